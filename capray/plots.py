"""The figures of a sweep: availability and inconsistency against the length of the cut, the heat map, what ring and cut allow; and PNGs.

Decides: what is drawn against what.  May not know: where rows come from, how a page is made.
A point is a mean over seeds with its 95 % interval (capray.stats); a click on it in the report shows its trials: `customdata` begins with
label, nodes and duration.  Sources: METRICS.md "Statistics", "The picture".
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import plotly.graph_objects as go
import plotly.io
from plotly.subplots import make_subplots

from capray.figures.data import DEFAULT_DEADLINE_US, Estimate, LogLike, Point, Row, estimate, first_known, labels, line, main_size, ordered, sizes, tidy
from capray.figures.signature import signature, triangle
from capray.figures.style import FAINT, Look, bars, chooser, dodge, duration_ticks, heading, legend_room, looks, of_trials, show, style, value_ticks

__all__ = ["allowed", "availability", "figures", "heatmap", "inconsistency", "signature", "triangle", "write_pngs"]


class Panel(NamedTuple):
    """One facet: a column against duration.  `how`: `share` (0 to 1), `us` (log-like, a duration), `count` (log-like)."""

    title: str
    column: str
    how: str
    axis: str


def figures(rows: Sequence[Row], deadline_us: int = DEFAULT_DEADLINE_US, names: Sequence[str] = ()) -> dict[str, go.Figure]:
    """Every figure that these rows allow, by name: `signature availability inconsistency heatmap allowed triangle`.  `names` is the order of the
    labels; without it, alphabetical."""
    tidied = tidy(ordered(rows, names))
    if not tidied:
        return {}
    drawn: dict[str, go.Figure | None] = {"signature": signature(tidied, deadline_us)}
    if len({row["duration"] for row in tidied}) > 1:  # else there is nothing to draw against duration
        drawn["availability"] = availability(tidied, deadline_us)
        drawn["inconsistency"] = inconsistency(tidied, deadline_us)
        drawn["heatmap"] = heatmap(tidied)
        drawn["allowed"] = allowed(tidied, deadline_us)
    drawn["triangle"] = triangle(tidied, deadline_us)
    return {name: figure for name, figure in drawn.items() if figure is not None}


# ---- measures against duration ------------------------------------------------------------------------------------------------------------
def availability(rows: Sequence[Row], deadline_us: int) -> go.Figure:
    """Availability during the cut against its length: all clients, the minority's, the majority's (or the largest side's), by policy."""
    sided = [("minority side", "availability_during_minority"), ("majority side", "availability_during_majority")]
    other = [("largest side", "availability_during_largest"), ("worst-served node", "availability_worst_node_during")]
    chosen = [pair for pair in sided if any(row.get(pair[1]) is not None for row in rows)] or [
        pair for pair in other if any(row.get(pair[1]) is not None for row in rows)
    ]
    panels = [
        Panel(title, column, "share", "share answered in time" if not i else "")
        for i, (title, column) in enumerate([("all clients", first_known(rows, "availability_during", "availability")), *chosen])
    ]
    return _against_duration(rows, panels, len(panels), "Availability against the length of the cut", deadline_us)


def inconsistency(rows: Sequence[Row], deadline_us: int) -> go.Figure:
    """Stale share, staleness age, divergence, lost writes, conflicts and convergence against the length of the cut, by policy."""
    panels = [
        Panel("stale reads", "stale_share", "share", "share of ok reads"),
        Panel("oldest stale read", "staleness_max_us", "us", "age of the overwritten value"),
        Panel("divergence of replicas", "divergence_area", "count", "share of differing pairs × seconds"),
        Panel("acknowledged writes lost", first_known(rows, "lost_writes", "lost_writes_provable"), "count", "writes a trial"),
        Panel("conflicting writes", "conflicts", "count", "pairs a trial"),
        Panel("convergence after heal", "convergence_us", "us", "until the replicas agree"),
    ]
    return _against_duration(rows, panels, 3, "Inconsistency against the length of the cut", deadline_us)


def _against_duration(rows: Sequence[Row], panels: list[Panel], columns: int, title: str, deadline_us: int) -> go.Figure:
    names, counts = labels(rows), sizes(rows)
    figure = make_subplots(
        rows=-(-len(panels) // columns),
        cols=columns,
        subplot_titles=[panel.title for panel in panels],
        horizontal_spacing=0.05 if len(panels) <= columns else 0.075,
        vertical_spacing=0.17,
    )
    every = [point for n in counts for name in names for point in line(rows, name, n)]
    scale = LogLike.of_durations(point.duration_us for point in every)
    owner: list[int] = []
    for nodes in counts:
        lines = {name: line(rows, name, nodes) for name in names}
        for i, panel in enumerate(panels):
            values = _scale_of(rows, panel)
            for name, look in looks(names).items():
                if lines[name]:
                    aside = dodge(names.index(name), len(names))
                    figure.add_trace(_trace(lines[name], name, nodes, panel, look, aside, scale, values, i == 0), i // columns + 1, i % columns + 1)
                    owner.append(nodes)
    height = 170 + 310 * (-(-len(panels) // columns)) + legend_room(names)
    style(figure, title, "", height)
    _axes(figure, rows, panels, columns, every, scale, deadline_us)
    return _by_size(figure, rows, owner, title, legend_room(names))


def _scale_of(rows: Sequence[Row], panel: Panel) -> LogLike | None:
    if panel.how == "share":
        return None
    return LogLike.of_values((float(row[panel.column]) for row in rows if row.get(panel.column) is not None), 4)


def _trace(
    points: list[Point], name: str, nodes: int, panel: Panel, look: Look, aside: float, scale: LogLike, values: LogLike | None, legend: bool
) -> go.Scatter:
    found = [estimate(point.rows, panel.column) for point in points]
    kept = [(point, one) for point, one in zip(points, found) if one is not None]
    estimates = [one for _, one in kept]
    return go.Scatter(
        x=[scale(point.duration_us) + aside for point, _ in kept],
        y=[one.mean if values is None else values(one.mean) for one in estimates],
        error_y={**bars(estimates, values, 1.0 if values is None else None), "color": look.colour},
        mode="lines+markers",
        name=html.escape(name),
        legendgroup=name,
        showlegend=legend,
        line={"color": look.colour, "dash": look.dash, "width": 1.8},
        marker={"symbol": look.marker, "size": 8, "color": look.colour, "line": {"color": "white", "width": 0.7}},
        customdata=[[name, nodes, point.duration, show(one, panel.how), of_trials(one, point.rows)] for point, one in kept],
        hovertemplate=f"<b>{html.escape(name)}</b>, {nodes} nodes<br>cut: %{{customdata[2]}}<br>{panel.title}: %{{customdata[3]}}"
        "<br>%{customdata[4]}<extra></extra>",
    )


def _axes(figure: go.Figure, rows: Sequence[Row], panels: list[Panel], columns: int, every: list[Point], scale: LogLike, deadline_us: int) -> None:
    for i, panel in enumerate(panels):
        at = {"row": i // columns + 1, "col": i % columns + 1}
        figure.update_xaxes(
            **duration_ticks(every, scale, 0.62 if columns > 2 else 0.4), title_text="length of the cut (log-like, 0 shown)", title_standoff=8, **at
        )
        values = _scale_of(rows, panel)
        top = _top(every, rows, panel)
        ceiling = 1.05 if not panel.column.startswith("stale") else min(1.05, max(0.1, 1.1 * top))  # availability always from 0 to 1
        axis = {"range": [-0.03 * ceiling, ceiling]} if values is None else value_ticks(values, top, panel.how)
        figure.update_yaxes(title_text=panel.axis, title_standoff=6, **axis, **at)
        figure.add_vline(x=scale(deadline_us), line={"color": FAINT, "width": 1, "dash": "dot"}, **at)
        said = _said_of_all(rows, panel)
        if said:
            figure.add_annotation(text=said, showarrow=False, font={"color": FAINT}, x=0.5, y=0.5, xref="x domain", yref="y domain", **at)


def _top(every: Sequence[Point], rows: Sequence[Row], panel: Panel) -> float:
    """How far up a panel must reach: the largest value, and the end of the longest interval."""
    values = [float(row[panel.column]) for row in rows if row.get(panel.column) is not None]
    ends = [one.high for point in every if (one := estimate(point.rows, panel.column)) is not None and one.high is not None]
    return max([*values, *ends] if panel.how == "share" else values, default=1.0)


def _said_of_all(rows: Sequence[Row], panel: Panel) -> str:
    """What a panel without anything to see says."""
    values = {row[panel.column] for row in rows if row.get(panel.column) is not None}
    return "not measured in these trials" if not values else "0 in every trial" if values == {0} else ""


def _by_size(figure: go.Figure, rows: Sequence[Row], owner: list[int], title: str, room: int) -> go.Figure:
    """Show one cluster size at a time, chosen by a menu where there are several."""
    counts = sizes(rows)
    figure.update_layout(margin_b=66 + room)
    return chooser(
        figure,
        [
            (f"{nodes} nodes", [one == nodes for one in owner], _title(title, [row for row in rows if row["nodes"] == nodes], f"{nodes} nodes"))
            for nodes in counts
        ],
        counts.index(main_size(rows)),
    )


def _title(title: str, rows: Sequence[Row], what: str) -> str:
    seeds = len({row["seed"] for row in rows})
    return heading(
        title,
        f"{what}, {len(rows)} trials, {seeds} seed{'s' if seeds > 1 else ''} a point; mean over seeds with its 95 % interval; dotted: the clients' "
        f"deadline; "
        "points set a little apart sideways",
    )


# ---- nodes x duration --------------------------------------------------------------------------------------------------------------------
HEAT = (
    ("availability during the cut, all clients", "availability_during"),
    ("availability of the minority side", "availability_during_minority"),
    ("availability of the worst-served node", "availability_worst_node_during"),
    ("share of stale reads", "stale_share"),
)


def heatmap(rows: Sequence[Row]) -> go.Figure | None:
    """Nodes x duration, one panel a policy; the measure is chosen by a menu.  Bright is good, whatever the measure."""
    names, counts = labels(rows), sizes(rows)
    measures = [(text, column) for text, column in HEAT if any(row.get(column) is not None for row in rows)]
    if not measures:
        return None
    columns = min(3, len(names))
    lines = -(-len(names) // columns)
    figure = make_subplots(
        rows=lines,
        cols=columns,
        subplot_titles=[html.escape(name) for name in names],
        shared_yaxes=True,
        horizontal_spacing=0.03,
        vertical_spacing=min(0.3, 0.46 / lines),
    )
    order = {point.duration: point.duration_us for name in names for n in counts for point in line(rows, name, n)}
    durations = sorted(order, key=lambda duration: (order[duration], duration))
    owner = []
    for text, column in measures:
        for i, name in enumerate(names):
            figure.add_trace(_heat(rows, name, counts, durations, text, column, i == 0), i // columns + 1, i % columns + 1)
            owner.append(column)
    title, subtitle = "Nodes against the length of the cut", f"{len(rows)} trials; each cell the mean over its seeds; bright is good; empty: not run"
    style(figure, title, subtitle, 150 + lines * (86 + 30 * len(counts)), legend=False)
    figure.update_layout(margin={"t": 112, "b": 60, "r": 90})
    figure.update_xaxes(type="category", categoryorder="array", categoryarray=["no cut" if not order[d] else d for d in durations], showgrid=False)
    figure.update_yaxes(type="category", categoryorder="array", categoryarray=[str(n) for n in counts], showgrid=False)
    figure.update_yaxes(title_text="nodes", col=1)
    figure.update_xaxes(title_text="length of the cut", row=lines)
    return chooser(figure, [(text, [one == column for one in owner], heading(f"{title}: {text}", subtitle)) for text, column in measures], 0)


def _heat(rows: Sequence[Row], name: str, counts: list[int], durations: list[str], text: str, column: str, bar: bool) -> go.Heatmap:
    cells: list[list[Estimate | None]] = []
    for n in counts:
        at = {point.duration: point for point in line(rows, name, n)}
        cells.append([estimate(at[duration].rows, column) if duration in at else None for duration in durations])
    zero = {row["duration"] for row in rows if not row["duration_us"]}
    return go.Heatmap(
        z=[[None if one is None else one.mean for one in row] for row in cells],
        x=["no cut" if d in zero else d for d in durations],
        y=[str(n) for n in counts],
        zmin=0,
        zmax=1,
        colorscale="Cividis",
        reversescale=column.startswith("stale"),
        showscale=bar,
        xgap=1,
        ygap=1,
        text=[["" if one is None else f"{one.mean:.2f}" for one in row] for row in cells],
        texttemplate="%{text}",
        textfont={"size": 10},
        colorbar={"title": {"text": "share"}, "thickness": 12, "len": 1.0, "x": 1.01},
        customdata=[
            [None if one is None else [name, n, duration, show(one), one.trials] for one, duration in zip(row, durations)]
            for row, n in zip(cells, counts)
        ],
        hovertemplate=f"<b>{html.escape(name)}</b>, %{{y}} nodes<br>cut: %{{x}}<br>{text}: %{{customdata[3]}}<br>%{{customdata[4]}} "
        f"trials<extra></extra>",
        hoverongaps=False,
    )


# ---- what ring and cut allow ---------------------------------------------------------------------------------------------------------------
ALLOWED = (
    ("reads", "availability_during_read", "allowed_availability_read", 0),
    ("writes", "availability_during_write", "allowed_availability_write", 1),
)


def allowed(rows: Sequence[Row], deadline_us: int) -> go.Figure | None:
    """For policies with fewer replicas than nodes: measured availability of reads and writes against duration, and beside it the share that
    ring and cut allow (`allowed_availability_read`, `_write`); None where no row has it."""
    held = [row for row in rows if any(row.get(column) is not None for _, _, column, _ in ALLOWED)]
    names = [name for name in labels(rows) if any(row["label"] == name for row in held)]
    if not names:
        return None
    nodes = main_size(held)
    columns = min(4, len(names))
    lines = -(-len(names) // columns)
    figure = make_subplots(rows=lines, cols=columns, subplot_titles=[html.escape(name) for name in names], shared_yaxes=True, horizontal_spacing=0.03)
    points = [point for name in names for point in line(rows, name, nodes)]
    scale = LogLike.of_durations(point.duration_us for point in points)
    for i, name in enumerate(names):
        for trace in _allowed(line(rows, name, nodes), name, nodes, scale, deadline_us, i == 0):
            figure.add_trace(trace, i // columns + 1, i % columns + 1)
    used = [row for row in rows if row["nodes"] == nodes and row["label"] in names]
    style(
        figure,
        "Availability that ring and cut allow, beside the measured one",
        f"{nodes} nodes, {len(used)} trials; points: measured, mean over seeds with its 95 % interval; lines without points: allowed",
        170 + 270 * lines,
    )
    figure.update_layout(margin_b=100)
    figure.update_xaxes(**duration_ticks(points, scale, 0.9), title_text="length of the cut (log-like, 0 shown)", title_standoff=8)
    figure.update_yaxes(range=[-0.03, 1.05])
    return figure.update_yaxes(title_text="availability during the cut", col=1)


def _allowed(points: list[Point], name: str, nodes: int, scale: LogLike, deadline_us: int, legend: bool) -> list[go.Scatter]:
    out = []
    for what, column, limit, look in ALLOWED:
        colour, marker = ("#0072B2", "circle") if not look else ("#D55E00", "square")
        measured = [(point, one) for point in points if (one := estimate(point.rows, column)) is not None]
        bound = [(point, one) for point in points if point.duration_us and (one := estimate(point.rows, limit)) is not None]
        out.append(
            go.Scatter(
                x=[scale(point.duration_us) + 0.1 * look for point, _ in measured],
                y=[one.mean for _, one in measured],
                mode="lines+markers",
                name=f"{what}, measured",
                error_y={**bars([one for _, one in measured], None, 1.0), "color": colour},
                legendgroup=f"{what} measured",
                showlegend=legend,
                line={"color": colour, "width": 1.8, "dash": "dash" if look else "solid"},
                marker={"symbol": marker, "size": 8},
                customdata=[[name, nodes, point.duration, show(one), one.trials] for point, one in measured],
                hovertemplate=f"<b>{html.escape(name)}</b>, {what}<br>cut: %{{customdata[2]}}<br>measured: "
                f"%{{customdata[3]}}<br>%{{customdata[4]}} trials<extra></extra>",
            )
        )
        out.append(
            go.Scatter(
                x=[scale(point.duration_us) for point, _ in bound],
                y=[one.mean for _, one in bound],
                mode="lines",
                name=f"{what}, allowed by ring and cut",
                legendgroup=f"{what} allowed",
                showlegend=legend,
                line={"color": colour, "width": 6, "dash": "dot" if look else "solid"},
                opacity=0.35,
                customdata=[[name, nodes, point.duration, show(one)] for point, one in bound],
                hovertemplate=f"<b>{html.escape(name)}</b>, {what}<br>ring and cut allow: %{{customdata[3]}}<extra></extra>",
            )
        )
    return out


# ---- PNG -----------------------------------------------------------------------------------------------------------------------------------
def write_pngs(drawn: dict[str, go.Figure], folder: str | Path, width: int = 1200) -> tuple[list[Path], str]:
    """Write each figure as `<name>.png` into `folder`.  Returns (files, ""), or ([], why not) where the extra is missing: it needs
    `pip install capray[png]` (kaleido) and a Chromium or Chrome on this machine."""
    try:
        import kaleido  # noqa: F401
    except ImportError:
        return [], "no PNG files: they need the extra `png` (pip install 'capray[png]') and Chromium or Chrome"
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{name}.png" for name in drawn]
    try:
        plotly.io.write_images(list(drawn.values()), files, width=width, height=[figure.layout.height for figure in drawn.values()], scale=1.5)
    except Exception as error:  # noqa: BLE001 - kaleido's own kinds differ from version to version; all mean the same to the reader
        why = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        return [], f"no PNG files: they need Chromium or Chrome beside kaleido ({why})"
    return files, ""
