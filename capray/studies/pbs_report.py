"""The page of a study of probabilistically bounded staleness: its curves, its latencies, its versions, each with the published values drawn in.

Decides: what is drawn against what, and what the page says.  May not know: how batches are run.
The axis of P(fresh) has a step for each nine (0.9, 0.99, 0.999), since all that is of interest happens near 1.
"""

from __future__ import annotations

import html
import math
from pathlib import Path
from typing import Any

import msgspec
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from capray.errors import wrong
from capray.figures.data import LogLike
from capray.figures.style import FAINT, INK, SHADE, Look, legend_room, looks, style
from capray.reporting.page import CSS, plotly_js
from capray.store import Results
from capray.studies.pbs import VERSIONS, Setup, beyond
from capray.studies.pbs_study import Anchor, Found, Pool, measures, pools

NINES = (0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999)
TOP = 5.5  # the axis ends here


def nines(p: float) -> float:
    """P(fresh) on the axis: one step for each nine."""
    return min(TOP, -math.log10(1 - p)) if p < 1 else TOP


# ---- P(fresh) against time -----------------------------------------------------------------------------------------------------------------------


def curves(found: list[Pool], anchors: list[Anchor]) -> go.Figure | None:
    """P(fresh) against the time since the commit, a panel for each fit; published values as open diamonds."""
    drawn = [pool for pool in found if len(pool.fresh) > 1]
    fits = list(dict.fromkeys(pool.fit for pool in drawn))
    if not drawn:
        return None
    columns = min(3, len(fits))
    lines = -(-len(fits) // columns)
    figure = make_subplots(rows=lines, cols=columns, subplot_titles=fits, shared_yaxes=True, horizontal_spacing=0.04, vertical_spacing=0.34 / lines)
    shapes = list(dict.fromkeys(_shape(pool) for pool in drawn))
    look, named = looks(shapes), set()
    for i, fit in enumerate(fits):
        own = [pool for pool in drawn if pool.fit == fit]
        scale = LogLike(min(t for pool in own for t in pool.fresh if t), 2)
        at = {"row": i // columns + 1, "col": i % columns + 1}
        for pool in own:
            name = _shape(pool)
            figure.add_trace(_curve(pool, name, look[name], scale, name not in named), **at)
            figure.add_trace(_at_least(pool, name, look[name], scale), **at)
            named.add(name)
        points = [a for a in anchors if a.measure in ("p_fresh_0", "p_fresh_t") and a.label in {pool.label for pool in own}]
        figure.add_trace(_published(points, scale, i == 0), **at)
        figure.update_xaxes(**_times(scale, own), title_text="time after the commit (log-like)", title_standoff=6, **at)
    total = sum(pool.samples for pool in drawn)
    style(
        figure,
        "P(a read is fresh) against the time since the write's commit",
        f"{total:,} fresh keys; points with their 95 % interval; open triangles: no read was stale, at least this; open diamonds: published",
        180 + 330 * lines,
    )
    figure.update_layout(margin_b=66 + legend_room([*shapes, "published"]))
    figure.update_yaxes(tickvals=[nines(p) for p in NINES], ticktext=[f"{p:g}" for p in NINES], range=[-0.15, TOP])
    return figure.update_yaxes(title_text="P(fresh), a step for each nine", col=1)


def _shape(pool: Pool) -> str:
    return "N={} R={} W={}".format(*pool.shape)


def _curve(pool: Pool, name: str, look: Look, scale: LogLike, legend: bool) -> go.Scatter:
    found: list[tuple[int, Found]] = [(t, one) for t in sorted(pool.fresh) if (one := pool.fresh_at(t)).value < 1]
    return go.Scatter(
        x=[scale(t) for t, _ in found],
        y=[nines(one.value) for _, one in found],
        mode="lines+markers",
        name=name,
        legendgroup=name,
        showlegend=legend,
        line={"color": look.colour, "dash": look.dash, "width": 1.6},
        marker={"symbol": look.marker, "size": 7, "color": look.colour},
        error_y={
            "type": "data",
            "symmetric": False,
            "array": [nines(one.high) - nines(one.value) for _, one in found],
            "arrayminus": [nines(one.value) - nines(one.low) for _, one in found],
            "color": look.colour,
            "thickness": 1.2,
            "width": 3,
        },
        customdata=[[f"{t / 1000:g} ms", f"{one.value:.5f} [{one.low:.5f}, {one.high:.5f}]", one.samples] for t, one in found],
        hovertemplate=f"<b>{html.escape(pool.label)}</b><br>%{{customdata[0]}} after the commit<br>P(fresh): %{{customdata[1]}}<br>"
        "%{customdata[2]} reads<extra></extra>",
    )


def _at_least(pool: Pool, name: str, look: Look, scale: LogLike) -> go.Scatter:
    """Where no read was stale: the lower end of the interval, as an open triangle."""
    found = [(t, one) for t in sorted(pool.fresh) if (one := pool.fresh_at(t)).value == 1]
    return go.Scatter(
        x=[scale(t) for t, _ in found],
        y=[nines(one.low) for _, one in found],
        mode="markers",
        name=name,
        legendgroup=name,
        showlegend=False,
        marker={"symbol": "triangle-up-open", "size": 8, "color": look.colour},
        customdata=[[f"{t / 1000:g} ms", f"{one.low:.5f}", one.samples] for t, one in found],
        hovertemplate=f"<b>{html.escape(pool.label)}</b><br>%{{customdata[0]}} after the commit<br>"
        "none of %{customdata[2]} reads was stale: at least %{customdata[1]}<extra></extra>",
    )


def _published(points: list[Anchor], scale: LogLike, legend: bool) -> go.Scatter:
    return go.Scatter(
        x=[scale(a.at or 0) for a in points],
        y=[nines(a.value) for a in points],
        mode="markers",
        name="published",
        legendgroup="published",
        showlegend=legend,
        legendrank=2000,
        marker={"symbol": "diamond-open", "size": 15, "color": INK, "line": {"width": 2}},
        customdata=[[html.escape(a.label), a.value, html.escape(a.source)] for a in points],
        hovertemplate="<b>%{customdata[0]}</b><br>published: %{customdata[1]}<br>%{customdata[2]}<extra></extra>",
    )


def _times(scale: LogLike, own: list[Pool]) -> dict[str, Any]:
    last = max(t for pool in own for t in pool.fresh)
    ticks = [0.0, *(unit * 10.0**power for power in range(8) for unit in (1, 3) if scale.unit <= unit * 10.0**power <= 1.2 * last)]
    return {"tickvals": [scale(t) for t in ticks], "ticktext": [f"{t / 1000:g} ms" if t else "0" for t in ticks], "range": [-0.3, scale(last) + 0.3]}


# ---- latencies -----------------------------------------------------------------------------------------------------------------------------------


def latencies(found: list[Pool], anchors: list[Anchor]) -> go.Figure | None:
    """The 99.9th percentiles, each as its difference from the published one; the band is the 3 % that are asked for."""
    lines: list[tuple[str, str, Found, Anchor]] = []
    for pool in found:
        for kind in ("read", "write"):
            anchor = next((a for a in anchors if (a.label, a.measure) == (pool.label, f"{kind}_p999_ms")), None)
            if anchor is not None and kind in pool.latencies:
                lines.append((pool.label, kind, pool.latency_ms(kind, 0.999), anchor))
    if not lines:
        return None
    names = list(dict.fromkeys(line[0] for line in lines))
    figure = go.Figure()
    for i, (kind, look) in enumerate(looks(["read", "write"]).items()):
        own = [line for line in lines if line[1] == kind]
        off = [[100 * (x / a.value - 1) for x in (f.value, f.low, f.high)] for _, _, f, a in own]
        figure.add_trace(
            go.Scatter(
                x=[x[0] for x in off],
                y=[names.index(line[0]) + 0.16 * (2 * i - 1) for line in own],
                mode="markers",
                name=f"{kind}, 99.9th percentile",
                marker={"symbol": look.marker, "size": 8, "color": look.colour},
                error_x={
                    "type": "data",
                    "symmetric": False,
                    "array": [x[2] - x[0] for x in off],
                    "arrayminus": [x[0] - x[1] for x in off],
                    "color": look.colour,
                    "thickness": 1.2,
                    "width": 3,
                },
                customdata=[[name, f"{f.value:.2f} [{f.low:.2f}, {f.high:.2f}] ms", f"{a.value:g} ms", f.samples] for name, _, f, a in own],
                hovertemplate=f"<b>%{{customdata[0]}}</b>, {kind}<br>simulated: %{{customdata[1]}}<br>published: %{{customdata[2]}}<br>"
                "%{customdata[3]} operations<extra></extra>",
            )
        )
    reach = min(60.0, max(6.0, *(1.3 * abs(100 * (f.value / a.value - 1)) for _, _, f, a in lines)))
    figure.add_vrect(x0=-3, x1=3, fillcolor=SHADE, line_width=0, layer="below")
    figure.add_vline(x=0, line={"color": FAINT, "width": 1, "dash": "dot"})
    style(
        figure,
        "99.9th percentiles of latency beside the published ones",
        "difference in percent with its 95 % interval; shaded: 3 %",
        190 + 30 * len(names),
    )
    figure.update_layout(margin_b=100)
    figure.update_yaxes(tickvals=list(range(len(names))), ticktext=[html.escape(name) for name in names], range=[len(names) - 0.4, -0.6])
    return figure.update_xaxes(title_text="simulated minus published, % of the published", title_standoff=8, range=[-reach, reach])


# ---- versions ------------------------------------------------------------------------------------------------------------------------------------


def versions(found: list[Pool]) -> go.Figure | None:
    """P(a read returns one of the newest k versions) against k; lines: the closed form."""
    drawn = [pool for pool in found if pool.fit == VERSIONS]
    if not drawn:
        return None
    figure = go.Figure()
    for name, look in looks([_shape(pool) for pool in drawn]).items():
        pool = next(pool for pool in drawn if _shape(pool) == name)
        ks = list(range(1, len(pool.behind)))
        shares = [pool.within(k) for k in ks]
        figure.add_trace(
            go.Scatter(
                x=ks,
                y=[1 - beyond(k, *pool.shape) for k in ks],
                mode="lines",
                name=f"{name}, closed form",
                legendgroup=name,
                hoverinfo="skip",
                line={"color": look.colour, "dash": look.dash, "width": 1.4},
            )
        )
        figure.add_trace(
            go.Scatter(
                x=ks,
                y=[one.value for one in shares],
                mode="markers",
                name=f"{name}, simulated",
                legendgroup=name,
                marker={"symbol": look.marker, "size": 8, "color": look.colour},
                error_y={
                    "type": "data",
                    "symmetric": False,
                    "array": [one.high - one.value for one in shares],
                    "arrayminus": [one.value - one.low for one in shares],
                    "color": look.colour,
                    "thickness": 1.2,
                    "width": 3,
                },
                customdata=[
                    [f"{one.value:.4f} [{one.low:.4f}, {one.high:.4f}]", 1 - beyond(k, *pool.shape), one.samples] for k, one in zip(ks, shares)
                ],
                hovertemplate=f"<b>{name}</b><br>within %{{x}} versions: %{{customdata[0]}}<br>closed form: %{{customdata[1]:.4f}}<br>"
                "%{customdata[2]} reads<extra></extra>",
            )
        )
    style(
        figure,
        "Versions behind: P(a read returns one of the newest k versions)",
        "partial quorums that no write spreads beyond; points: simulated, with their 95 % interval",
        430,
    )
    figure.update_layout(margin_b=120)
    figure.update_xaxes(title_text="k, versions", dtick=1, title_standoff=8)
    return figure.update_yaxes(title_text="P(within k versions)", range=[0, 1.04])


def figures(results: Results) -> dict[str, go.Figure]:
    """Every figure that the pools allow, by name."""
    found, anchors = answers(results)
    drawn = {"curves": curves(found, anchors), "latencies": latencies(found, anchors), "versions": versions(found)}
    return {name: figure for name, figure in drawn.items() if figure is not None}


# ---- the page ------------------------------------------------------------------------------------------------------------------------------------
def answers(results: Results) -> tuple[list[Pool], list[Anchor]]:
    """What was simulated, in the order of the set-ups, and what was published."""
    manifest = results.manifest()
    order = {msgspec.convert(setup, Setup).label: i for i, setup in enumerate(manifest["spec"]["setups"])}
    found = sorted(pools(results.rows()), key=lambda pool: order.get(pool.label, len(order)))
    return found, msgspec.convert(manifest.get("published", []), list[Anchor])


def draw(directory: Path) -> Path:
    """Write `report.html` of a study's results directory.  Returns its path.  Raises InputError where it holds no finished batch."""
    results = Results(directory)
    manifest, rows = results.manifest(), results.rows()
    if not rows:
        raise wrong("directory", str(directory), "a results directory with at least one finished trial")
    found, anchors = answers(results)
    page = results.path / "report.html"
    said = {name: manifest.get(name) for name in ("kind", "name", "version", "engine", "digest", "command") if manifest.get(name)}
    facts = "".join(
        f"<dt>{name}</dt><dd>{html.escape(str(value))}</dd>"
        for name, value in {**said, "batches": len(rows), "messages": f"{sum(row['messages'] for row in rows):,}"}.items()
    )
    plots = list(figures(results).items())
    boxes = "".join(f"<div class=plot id={name} style='height:{figure.layout.height}px'></div>" for name, figure in plots)
    script = "".join(
        f"Plotly.newPlot('{name}', ...(f => [f.data, f.layout])({figure.to_json().replace('<', chr(92) + 'u003c')}), "
        "{responsive: true, displaylogo: false});"
        for name, figure in plots
    )
    page.write_text(
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>capray: {html.escape(str(manifest['name']))}</title><style>{CSS}</style></head>\n<body><h1>Probabilistically bounded staleness</h1>"
        "<p>Reads of Cassandra at partial quorums, asked t after the write's commit: how likely they are fresh, and what the quorums cost; "
        "beside what Bailis et al. published (VLDB 2012).</p>"
        f"<dl class=run>{facts}</dl>{boxes}{_table(found, anchors)}<noscript>The figures need JavaScript.</noscript>\n"
        f"<script>{plotly_js()}</script>\n<script>{script}</script>\n</body></html>\n",
        encoding="utf-8",
    )
    return page


def _table(found: list[Pool], anchors: list[Anchor]) -> str:
    head = "".join(
        f"<th>{name}</th>" for name in ("setup", "measure", "at", "published", "simulated", "95 % interval", "within", "samples", "source")
    )
    body = ""
    for pool in found:
        for line in measures(pool, anchors):
            at = f"{line['t_ms']:g} ms" if "t_ms" in line else f"k = {line['k']}" if "k" in line else ""
            cells = [
                pool.label,
                line["measure"],
                at,
                "" if line["published"] is None else f"{line['published']:g}",
                f"{line['simulated']:.5g}",
                f"{line['low']:.5g} to {line['high']:.5g}",
                {None: "", True: "yes", False: "NO"}[line["within"]],
                f"{line['samples']:,}",
                line["source"] or "",
            ]
            body += "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>"
    return f"<h2>Every measure</h2><div class=scroll><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
