"""The page of experiments/pacelc.py: latency against delay, slopes against message patterns, the PACELC plane.

Decides: what the page says.  May not know: how trials are run or measured.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from capray.figures.style import COLOURS as COLOUR_RING
from capray.figures.style import INK, MARKERS, style
from capray.reporting.packing import embedded
from capray.reporting.page import write_page
from capray.reporting.table import trials_table
from capray.stats import Summary, summarize
from capray.store import Results
from capray.studies.pacelc import PATTERNS, ROLES, TOLERANCE, WORST_AVAILABLE, Place, Row, Slope, pattern_rows, places, slopes

COLOURS = {"read": "#0072B2", "write": "#D55E00"}
SYMBOLS = {"leader": "diamond", "other": "circle"}
COLUMNS = 5
HEADS = {"slopes": "Slopes", "delay": "Latency against delay", "plane": "The PACELC plane"}


def draw(directory: Path) -> Path:
    """Write report.html of a directory.  Returns the page's path."""
    results = Results(directory)
    manifest, rows = results.manifest(), list(results.rows())
    lines, plane, page = slopes(rows), places(rows), results.path / "report.html"
    drawn = figures(results)
    sections = [
        reading(manifest),
        *(_figure(name, drawn[name]) for name in drawn if name == "slopes"),
        slope_table(lines),
        *(_figure(name, drawn[name]) for name in drawn if name == "delay"),
        *(_figure(name, drawn[name]) for name in drawn if name == "plane"),
        plane_table(plane),
        trials_table(rows, manifest, 1_000_000),
    ]
    nav = [
        ("reading", "How to read it"),
        *((name, HEADS[name]) for name in drawn),
        ("trials", "All trials"),
    ]
    said = html.escape(f"{len(rows)} trials; engine {manifest.get('engine')}; digest {manifest.get('digest') or 'none: not complete'}")
    write_page(page, f"capray: {manifest.get('name', 'pacelc')}", said, nav, sections)
    return page


def figures(results: Results) -> dict[str, go.Figure]:
    """The figures by name."""
    rows = results.rows()
    found = {"slopes": slope_figure(slopes(rows)), "delay": delay_figure(rows)}
    plane = places(rows)
    return {**found, "plane": plane_figure(plane)} if plane else found


# ---- figures -------------------------------------------------------------------------------------------------------------------------------
def slope_figure(lines: Sequence[Slope]) -> go.Figure:
    """How many delays a delay adds to the median: measured, and expected from the message pattern."""
    names = [pattern.name for pattern in PATTERNS if any(line.pattern is pattern for line in lines)]
    drawn = go.Figure()
    aside = {("read", "leader"): -0.24, ("read", "other"): -0.08, ("write", "leader"): 0.08, ("write", "other"): 0.24}
    drawn.add_trace(
        go.Scatter(
            x=[line.expected for line in lines],
            y=[names.index(line.pattern.name) + aside[line.kind, line.role] for line in lines],
            mode="markers",
            name="expected",
            marker={"symbol": "line-ns-open", "size": 13, "color": INK, "line": {"width": 2}},
            hoverinfo="skip",
        )
    )
    for (kind, role), shift in aside.items():
        own = [line for line in lines if (line.kind, line.role) == (kind, role)]
        drawn.add_trace(
            go.Scatter(
                x=[line.found.mean for line in own],
                y=[names.index(line.pattern.name) + shift for line in own],
                mode="markers",
                name=f"{kind}s at {'the leader' if role == 'leader' else 'other nodes'}",
                marker={"symbol": SYMBOLS[role], "size": 8, "color": COLOURS[kind]},
                error_x=_bars([line.found for line in own]),
                customdata=[[line.pattern.name, line.expected, line.found.trials] for line in own],
                hovertemplate="<b>%{customdata[0]}</b><br>slope %{x:.3f} d, expected %{customdata[1]} d<br>%{customdata[2]} seeds<extra></extra>",
            )
        )
    style(
        drawn,
        "What a delay costs: slope of the median latency on the one-way delay",
        f"bars: expected from the message pattern; {_seeds(lines)} seeds, 95 % intervals; no leader: all nodes are others",
        200 + 34 * len(names),
    )
    drawn.update_xaxes(title_text="slope, in one-way delays d", dtick=1, range=[-0.3, max((line.expected for line in lines), default=1) + 0.6])
    drawn.update_yaxes(tickvals=list(range(len(names))), ticktext=names, range=[len(names) - 0.5, -0.5])
    return drawn.update_layout(margin={"l": 210, "b": 110})


def delay_figure(rows: Sequence[Row]) -> go.Figure:
    """Each policy's medians against the delay, with the fitted lines."""
    shown = [pattern for pattern in PATTERNS if pattern_rows(rows, pattern)]
    across = min(COLUMNS, max(1, len(shown)))
    down = -(-len(shown) // across) or 1
    drawn = make_subplots(
        rows=down,
        cols=across,
        shared_xaxes=True,
        shared_yaxes=True,
        subplot_titles=[pattern.name for pattern in shown],
        horizontal_spacing=0.02,
        vertical_spacing=0.28 / (down + 1),
    )
    lines = {(line.pattern.name, line.kind, line.role): line for line in slopes(rows)}
    for i, pattern in enumerate(shown):
        own = pattern_rows(rows, pattern)
        delays = sorted({row["delay_us"] for row in own})
        for kind, colour in COLOURS.items():
            for role in ROLES:
                line = lines.get((pattern.name, kind, role))
                if line is None or line.found.mean is None:
                    continue
                found = [summarize([row[f"latency_{kind}_{role}_us"] for row in own if row["delay_us"] == delay]) for delay in delays]
                place, name = {"row": i // across + 1, "col": i % across + 1}, f"{kind}s, {'leader' if role == 'leader' else 'others'}"
                drawn.add_trace(
                    go.Scatter(
                        x=[d / 1000 for d in delays],
                        y=[None if s.mean is None else s.mean / 1000 for s in found],
                        mode="markers",
                        name=name,
                        legendgroup=name,
                        showlegend=False,
                        marker={"symbol": SYMBOLS[role], "size": 6, "color": colour},
                        hovertemplate="d %{x} ms: %{y:.2f} ms<extra>" + name + "</extra>",
                    ),
                    **place,
                )
                ends = [0.0, delays[-1] / 1000]
                drawn.add_trace(
                    go.Scatter(
                        x=ends,
                        y=[(line.base_us or 0) / 1000 + line.found.mean * x for x in ends],
                        mode="lines",
                        hoverinfo="skip",
                        name=name,
                        legendgroup=name,
                        showlegend=not i,
                        line={"color": colour, "dash": "dash" if role == "leader" else "solid", "width": 1.4},
                    ),
                    **place,
                )
    told = f"ms; points: mean over {_seeds(list(lines.values()))} seeds; lines: fitted for each seed, then averaged"
    style(drawn, "Median latency against the one-way delay", told, 160 + 190 * down)
    for column in range(1, across + 1):  # the lowest panel of each column tells the delay
        lowest = (len(shown) - column) // across + 1
        drawn.update_xaxes(title_text="delay, ms", showticklabels=True, row=lowest, col=column)
    return drawn.update_layout(margin_b=90)


def plane_figure(plane: Sequence[Place]) -> go.Figure:
    """Healthy median to the right, answered during the cut upwards; hollow where reads were stale or acknowledged writes lost."""
    drawn = make_subplots(rows=1, cols=2, shared_yaxes=True, horizontal_spacing=0.04, subplot_titles=["reads", "writes"])
    for i, place in enumerate(plane):
        name, colour, marker = place.pattern.name, COLOUR_RING[i % len(COLOUR_RING)], MARKERS[(i + 3 * (i // len(COLOUR_RING))) % len(MARKERS)]
        hollow = bool((place.stale.mean or 0) > 0 or (place.lost.mean or 0) > 0)
        for column, (x, y) in enumerate(((place.read_us, place.answered_read), (place.write_us, place.answered_write)), 1):
            if x.mean is None or y.mean is None:
                continue
            drawn.add_trace(
                go.Scatter(
                    x=[x.mean / 1000],
                    y=[y.mean],
                    mode="markers",
                    name=name,
                    legendgroup=name,
                    showlegend=column == 1,
                    error_x=_bars([x], 1000),
                    error_y=_bars([y]),
                    marker={"symbol": marker + ("-open" if hollow else ""), "size": 12, "color": colour, "line": {"width": 2, "color": colour}},
                    hovertemplate=f"<b>{html.escape(name)}</b> {place.measured}<br>healthy median %{{x:.1f}} ms, "
                    f"answered in the cut %{{y:.3f}}<br>stale {place.stale.mean or 0:.3f}, lost writes {place.lost.mean or 0:.1f}<extra></extra>",
                ),
                row=1,
                col=column,
            )
    style(
        drawn,
        "PACELC: what is answered under a cut, against what it costs without one",
        "links of 10 ms + Exp(1 ms), a cut of 20 s, leader or node 0 in the minority; all nodes together;<br>hollow: stale reads "
        f"in the cut, or acknowledged writes lost; mean and 95 % interval over {max((place.worst.trials for place in plane), default=0)} seeds",
        640,
    )
    longest = max((s.mean for place in plane for s in (place.read_us, place.write_us) if s.mean is not None), default=1) / 1000
    drawn.update_xaxes(title_text="healthy median latency, ms", range=[-0.04 * longest, 1.06 * longest])
    drawn.update_yaxes(range=[-0.04, 1.05]).update_yaxes(title_text="share answered during the cut", row=1, col=1)
    return drawn.update_layout(margin={"t": 120, "b": 160})


def _bars(found: Sequence[Summary], scale: float = 1.0) -> dict[str, Any]:
    up = [0.0 if s.mean is None or s.high is None else (s.high - s.mean) / scale for s in found]
    down = [0.0 if s.mean is None or s.low is None else (s.mean - s.low) / scale for s in found]
    return {"type": "data", "symmetric": False, "array": up, "arrayminus": down, "thickness": 1.2, "width": 3}


def _seeds(lines: Sequence[Slope]) -> int:
    return max((line.found.trials for line in lines), default=0)


def _figure(name: str, drawn: go.Figure) -> str:
    return (
        f"<section id={name}><h2>{HEADS[name]}</h2><div class=plot id='fig-{name}' data-figure='data-{name}' style='height:{drawn.layout.height}px'></div>"
        f"{embedded(f'data-{name}', drawn.to_json())}</section>"
    )


# ---- words and tables --------------------------------------------------------------------------------------------------------------------------
def reading(manifest: Mapping[str, Any]) -> str:
    return (
        "<section id=reading><h2>How to read it</h2><p>In the sweep of delays every link takes the same constant time d one way and disks take none, "
        "so that a latency is the number of messages that must follow one another, times "
        "d. A slope is fitted by least squares to the medians over d, for each seed; with its 95 % interval over seeds it stands beside the number "
        "that the protocol's message pattern implies. Lipton and Sandberg (1988): in a "
        "sequentially consistent store a read and a write together take one delay at least; a policy below that cannot be sequentially consistent, "
        "whatever it says. Attiya and Welch (1994): linearizable reads cannot all be "
        "free once delays vary. A leader's lease makes reads free at the leader by trusting clocks instead.</p><p>PACELC (Abadi 2012): under a "
        "<b>P</b>artition <b>A</b>vailability or <b>C</b>onsistency, <b>E</b>lse <b>L</b>atency or "
        f"<b>C</b>onsistency. Measured here as: A if the worst-served node answered {WORST_AVAILABLE:.0%} of what it was asked during the cut; L if a "
        f"healthy trial was not linearizable.</p>"
        f"<p class=faint>Command: <code>{html.escape(str(manifest.get('command', '')))}</code></p></section>"
    )


def slope_table(lines: Sequence[Slope]) -> str:
    body = ""
    for pattern in PATTERNS:
        own = [line for line in lines if line.pattern is pattern]
        if own:
            cells = {(line.kind, line.role): line for line in own}
            body += f"<tr><td class=w>{html.escape(pattern.name)}</td>" + "".join(_slope_cell(cells.get((kind, role))) for kind in COLOURS for role in ROLES)
            body += f"<td>{html.escape(pattern.why)}</td></tr>"
    off = sum(line.within is not True for line in lines)
    return (
        "<section id=slope-table><div class=scroll><table><thead><tr><th>policy</th><th class=n>reads, leader</th><th class=n>reads, others</th><th "
        "class=n>writes, leader</th><th class=n>writes, others</th><th style='min-width:20em'>expected, and why</th></tr>"
        f"</thead><tbody>{body}</tbody></table></div><p class=caption>In units of d: measured [95 % interval] / expected. {len(lines) - off} of "
        f"{len(lines)} within {TOLERANCE} d.</p></section>"
    )


def _slope_cell(line: Slope | None) -> str:
    if line is None or line.found.mean is None:
        return "<td class=n>-</td>"
    interval = "" if line.found.low is None or line.found.high is None else f"<br><span class=ci>[{line.found.low:.3f}, {line.found.high:.3f}]</span>"
    return f"<td class=n>{'' if line.within else '<b>'}{line.found.mean:.3f} / {line.expected}{'' if line.within else '</b>'}{interval}</td>"


def plane_table(plane: Sequence[Place]) -> str:
    if not plane:
        return ""
    body = "".join(
        f"<tr><td class=w>{html.escape(place.pattern.name)}</td><td class=w>{place.measured or '-'}</td><td "
        f"class=w>{place.pattern.published or '-'}</td><td class=n>{_together(place)}</td>"
        + "".join(
            f"<td class=n>{_show(found, scale, digits)}</td>"
            for found, scale, digits in (
                (place.read_us, 1000, 1),
                (place.read_p99_us, 1000, 1),
                (place.write_us, 1000, 1),
                (place.write_p99_us, 1000, 1),
                (place.answered_read, 1, 3),
                (place.answered_write, 1, 3),
                (place.worst, 1, 3),
                (place.stale, 1, 3),
                (place.lost, 1, 1),
            )
        )
        + "</tr>"
        for place in plane
    )
    heads = (
        "read median, ms",
        "read p99",
        "write median, ms",
        "write p99",
        "reads answered in the cut",
        "writes answered",
        "worst node",
        "stale share in the cut",
        "acknowledged writes lost",
    )
    return (
        "<section id=plane-table><div class=scroll><table><thead><tr><th>policy</th><th>measured</th><th>Abadi 2012</th><th class=n>read + write, at most</th>"
        + "".join(f"<th class=n>{head}</th>" for head in heads)
        + f"</tr></thead><tbody>{body}</tbody></table></div><p class=caption>Mean over seeds [95 % interval]. "
        f"Below one delay for a read and a write together (in bold) no store is sequentially consistent: of {sum(place.below_bound for place in plane)} such, "
        f"{sum(place.below_bound and place.broken > 0 for place in plane)} were seen not to be linearizable while healthy.</p></section>"
    )


def _together(place: Place) -> str:
    if place.together is None:
        return "-"
    return f"<b>{place.together:.2f} d</b>" if place.below_bound else f"{place.together:.2f} d"


def _show(found: Summary, scale: float, digits: int) -> str:
    if found.mean is None:
        return "-"
    interval = "" if found.low is None or found.high is None else f"<br><span class=ci>[{found.low / scale:.{digits}f}, {found.high / scale:.{digits}f}]</span>"
    return f"{found.mean / scale:.{digits}f}{interval}"
