"""How every figure looks: colours, markers, dashes, axes, titles, the menu that chooses a cluster size.

Decides: appearance only.  May not know: what is drawn.
Sources: palette of Okabe and Ito, "Color Universal Design" (2008), yellow left out (unreadable on white), then Paul Tol's "muted" scheme;
each line has a marker and a dash of its own beside its colour, so that no figure depends on colour alone.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import plotly.graph_objects as go

from capray.errors import show_us
from capray.figures.data import Estimate, LogLike, Point, thinned

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#882255", "#999933", "#332288", "#44AA99", "#AA4499")
MARKERS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "pentagon", "star", "hexagram", "cross", "x", "bowtie", "hourglass")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
INK, FAINT, GRID, SHADE = "#222222", "#767676", "#e6e6e6", "rgba(213,94,0,0.10)"
FONT = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"


class Look(NamedTuple):
    """How one line is told from the others."""

    colour: str
    marker: str
    dash: str


def looks(names: Sequence[str]) -> dict[str, Look]:
    """A look for each line, by its place; the same names in the same order look the same in every figure.  Lines of two results laid over one another
    (`label [first]`, `label [second]`) share colour and marker; dashes, and a dot in the second's markers, tell the results apart."""
    stems = list(dict.fromkeys(name.rpartition(" [")[0] or name for name in names))
    results = list(dict.fromkeys(name.rpartition(" [")[2] for name in names if " [" in name))
    out = {}
    for name in names:
        stem, _, result = name.rpartition(" [")
        i = stems.index(stem or name)
        marker, which = MARKERS[(i + i // len(COLOURS)) % len(MARKERS)], results.index(result) if stem else 0
        dotted = "-dot" if which and marker not in ("bowtie", "hourglass") else ""  # those two have no such form
        out[name] = Look(COLOURS[i % len(COLOURS)], marker + dotted, DASHES[(which if stem else i) % len(DASHES)])
    return out


def hollow(marker: str) -> str:
    """The open form of a marker."""
    return marker.removesuffix("-dot") + "-open" + ("-dot" if marker.endswith("-dot") else "")


def style(figure: go.Figure, title: str, subtitle: str, height: int, legend: bool = True) -> go.Figure:
    """The common layout: title and what it was drawn from above, the legend below the plot where it covers nothing."""
    figure.update_layout(
        title={
            "text": heading(title, subtitle),
            "x": 0,
            "xref": "paper",
            "y": 1 - 16 / height,
            "yref": "container",
            "yanchor": "top",
            "font": {"size": 16},
        },
        height=height,
        width=None,
        template="none",
        font={"family": FONT, "size": 12, "color": INK},
        paper_bgcolor="white",
        plot_bgcolor="white",
        margin={"l": 70, "r": 24, "t": 92, "b": 60},
        hovermode="closest",
        hoverlabel={"align": "left", "font": {"family": FONT}},
        showlegend=legend,
        legend={"orientation": "h", "x": 0, "xanchor": "left", "y": 0, "yref": "container", "yanchor": "bottom", "title": {"text": ""}},
    )
    figure.update_annotations(font_size=13)  # the facets' titles
    figure.update_xaxes(gridcolor=GRID, linecolor=FAINT, ticks="outside", tickcolor=FAINT, zeroline=False, automargin=True)
    figure.update_yaxes(gridcolor=GRID, linecolor=FAINT, ticks="outside", tickcolor=FAINT, zeroline=False, automargin=True)
    return figure


def legend_room(names: Sequence[str], width: int = 1000) -> int:
    """The height in pixels that a legend of these names takes below a plot."""
    longest = max((len(name) for name in names), default=0) * 7 + 60
    per_row = max(1, width // longest)
    return 24 + 20 * -(-len(names) // per_row)


def duration_ticks(points: Sequence[Point], scale: LogLike, gap: float) -> dict[str, Any]:
    """The duration axis of these points: a tick for each, thinned where they crowd; 0 is `no cut`."""
    places = {(scale(point.duration_us), "no cut" if not point.duration_us else show_duration(point)) for point in points}
    ticks = thinned(sorted(places), gap)
    right = max((place for place, _ in places), default=1.0)
    return {"tickvals": [place for place, _ in ticks], "ticktext": [text for _, text in ticks], "range": [-0.45, right + 0.45]}


def show_duration(point: Point) -> str:
    """A point's duration on an axis: its name where it was drawn from a distribution of the field, with the mean drawn."""
    text = point.duration
    return text if text[:1].isdigit() else f"{html.escape(text)}<br>(mean {show_value(point.duration_us, 'us')})"


def value_ticks(scale: LogLike, top: float, unit: str) -> dict[str, Any]:
    """A log-like value axis to `top`, 0 shown; `unit`: `us` writes durations, anything else plain numbers."""
    ticks = scale.decades(top)
    texts = [show_us(int(tick)) if unit == "us" and tick else f"{tick:g}" for tick in ticks]
    return {"tickvals": [scale(tick) for tick in ticks], "ticktext": texts, "range": [-0.15, scale(ticks[-1]) + 0.1]}


def dodge(index: int, of: int) -> float:
    """How far a line's points are set aside, in steps of the axis, so that lines that coincide stay visible: 0.05 each, 0.4 in all at most."""
    return 0.0 if of < 2 else (index / (of - 1) - 0.5) * min(0.4, 0.05 * (of - 1))


def show(found: Estimate | None, how: str = "share") -> str:
    """An estimate in words: mean [low, high]; `how`: share (three digits, its interval cut off at 0 and 1), us (a duration, cut off at 0), count."""
    if found is None:
        return "not measured"
    mean, low, high, _ = found
    if low is None or high is None:
        return show_value(mean, how)
    return f"{show_value(mean, how)} [{show_value(max(0.0, low), how)}, {show_value(min(1.0, high) if how == 'share' else high, how)}]"


def brief(found: Estimate | None, how: str = "share") -> str:
    """As `show`, without the interval where all seeds agree."""
    return show(found if found is None or not found.low == found.high == found.mean else found._replace(low=None, high=None), how)


def of_trials(found: Estimate, rows: Sequence[Mapping[str, Any]]) -> str:
    """`8 trials`, or `3 of 8 trials` where the others have no value (never stale, never converged)."""
    return f"{found.trials} trials" if found.trials == len(rows) else f"{found.trials} of {len(rows)} trials"


def show_value(x: float, how: str) -> str:
    """One number: a share to three digits, a duration with its unit, a count without needless digits."""
    if how == "us":
        digits = 4 - len(str(int(abs(x))))
        return show_us(int(round(x, min(0, digits)))) if abs(x) >= 0.5 else "0"
    return f"{x:.3f}" if how == "share" else f"{x:,.3g}" if abs(x) < 1000 else f"{x:,.0f}"


def chooser(figure: go.Figure, buttons: list[tuple[str, list[bool], str]], active: int) -> go.Figure:
    """Show the `active` choice of (name, which traces are visible, title); where there are several, a menu at the upper right, outside the plot."""
    for trace, visible in zip(figure.data, buttons[active][1]):
        trace.visible = visible
    figure.update_layout(title_text=buttons[active][2])
    if len(buttons) < 2:
        return figure
    entries = [{"label": name, "method": "update", "args": [{"visible": visible}, {"title.text": title}]} for name, visible, title in buttons]
    return figure.update_layout(
        updatemenus=[
            {
                "type": "dropdown",
                "buttons": entries,
                "active": active,
                "x": 1,
                "xanchor": "right",
                "y": 1,
                "yanchor": "bottom",
                "pad": {"b": 26},
                "bgcolor": "white",
                "bordercolor": "#bbbbbb",
                "showactive": False,
            }
        ]
    )


def heading(title: str, subtitle: str) -> str:
    """A title with its smaller second line."""
    return f"<b>{title}</b><br><span style='font-size:12px;color:{FAINT}'>{subtitle}</span>"


def bars(estimates: Sequence[Estimate | None], scale: LogLike | None = None, ceiling: float | None = None) -> dict[str, Any]:
    """Plotly's asymmetric error bars for a list of estimates, through a scale, cut off at 0 and at `ceiling` (a share ends at 1)."""
    up: list[float | None] = []
    down: list[float | None] = []
    for found in estimates:
        if found is None or found.low is None or found.high is None:
            up.append(None)
            down.append(None)
            continue
        low, high = max(0.0, found.low), found.high if ceiling is None else min(ceiling, found.high)
        at = found.mean if scale is None else scale(found.mean)
        up.append(max(0.0, (high if scale is None else scale(high)) - at))
        down.append(max(0.0, at - (low if scale is None else scale(low))))
    return {"type": "data", "symmetric": False, "array": up, "arrayminus": down, "thickness": 1.2, "width": 3}
