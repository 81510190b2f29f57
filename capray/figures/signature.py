"""The two pictures of the theorem: the plane of measured consistency and availability (capray's signature), and the CAP triangle.

Decides: how a policy is placed in either.  May not know: policies.
Sources: METRICS.md "The picture"; Gilbert and Lynch 2002 (no store is both available to every node and linearizable while cut).

Plane: x = 1 - share of stale reads, y = availability of the worst-served node.  Healthy: trials without a cut.  Partitioned: trials whose cut
is longer than the clients' deadline, of every such length and shape; each seed's trials are averaged first, then mean and interval over seeds.
Triangle: three measured shares under those cuts, C = 1 - share of stale reads, A = availability of the worst-served node, P = availability of
the largest side (the least over the shapes of cut measured); the place is their barycentric mean (C, A, P) / (C + A + P).
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import NamedTuple

import plotly.graph_objects as go

from capray.figures.data import (
    Estimate,
    Row,
    by_seed,
    estimate,
    estimate_of,
    first_known,
    healthy,
    labels,
    main_size,
    partitioned,
    share_linearizable,
    sizes,
    value,
)
from capray.figures.style import FAINT, INK, Look, chooser, heading, hollow, legend_room, looks, show, style

WORST = ("availability_worst_node_during", "availability_worst_node")
STALE = ("stale_share_during", "stale_share")
LARGEST = ("availability_during_largest", "availability_during_majority")


class Place(NamedTuple):
    """A policy in the plane: x and y with their intervals, and the share of trials that were linearizable."""

    x: Estimate
    y: Estimate
    linearizable: Estimate | None

    @property
    def filled(self) -> bool:
        """Whether every trial with a verdict was linearizable."""
        return self.linearizable is not None and self.linearizable.mean == 1


def place(rows: Sequence[Row]) -> Place | None:
    """Where these trials of one policy stand; None where a coordinate was not measured."""
    stale, worst = first_known(rows, *STALE), first_known(rows, *WORST)
    x = estimate_of(by_seed(rows, lambda row: None if (share := value(row, stale)) is None else 1 - share))
    y = estimate(rows, worst)
    return None if x is None or y is None else Place(x, y, share_linearizable(rows))


def counterexamples(rows: Sequence[Row], deadline_us: int) -> list[str]:
    """The policies that would contradict the theorem: (1, 1) in the plane while cut, and every trial linearizable.  A policy whose cuts
    touched nothing would be one; empty is what the theorem says."""
    out = []
    for name in labels(rows):
        for nodes in sizes(rows):
            found = place(partitioned([row for row in rows if row["label"] == name and row["nodes"] == nodes], deadline_us))
            if found is not None and found.filled and found.x.mean == found.y.mean == 1:
                out.append(f"{name} ({nodes} nodes)")
    return out


# ---- the plane -----------------------------------------------------------------------------------------------------------------------------
def signature(rows: Sequence[Row], deadline_us: int) -> go.Figure | None:
    """Healthy -> partitioned for every policy; hollow where a trial was not linearizable.  A menu chooses the cluster size."""
    names, counts = labels(rows), sizes(rows)
    figure, owner = go.Figure(), []
    lowest = 0.9
    for nodes in counts:
        pairs = {name: _pair([row for row in rows if row["label"] == name and row["nodes"] == nodes], deadline_us) for name in names}
        lowest = min([lowest, *(at.x.mean if at.x.low is None else at.x.low for pair in pairs.values() for at in pair if at)])
        aside = _apart({name: pair[1] for name, pair in pairs.items() if pair[1]})
        for name, look in looks(names).items():
            before, during = pairs[name]
            for trace in _arrow(name, nodes, look, before, during, aside.get(name, 0.0)):
                figure.add_trace(trace)
                owner.append(nodes)
    if not owner:
        return None
    style(figure, "", "", 700 + legend_room(names))
    figure.update_xaxes(
        range=[max(-0.03, lowest - 0.05), 1 + 0.1 * (1.03 - lowest)], title_text="1 - share of stale reads   (to the right: more consistent)"
    )
    figure.update_yaxes(range=[-0.05, 1.09], title_text="availability of the worst-served node   (up: more available)")
    figure.add_shape(
        type="circle",
        x0=-14,
        x1=14,
        y0=-14,
        y1=14,
        xsizemode="pixel",
        ysizemode="pixel",
        xanchor=1,
        yanchor=1,
        line={"color": FAINT, "dash": "dot", "width": 1.5},
        layer="below",
    )
    figure.add_annotation(
        x=1,
        y=1,
        yshift=15,
        text="(1, 1): while cut, no filled point can stand here",
        showarrow=False,
        xanchor="right",
        yanchor="bottom",
        font={"color": FAINT, "size": 11},
    )
    figure.update_layout(margin={"t": 112, "b": 66 + legend_room(names)})
    return chooser(
        figure,
        [
            (f"{nodes} nodes", [one == nodes for one in owner], _heading([row for row in rows if row["nodes"] == nodes], nodes, deadline_us))
            for nodes in counts
        ],
        counts.index(main_size(rows)),
    )


def _pair(own: Sequence[Row], deadline_us: int) -> tuple[Place | None, Place | None]:
    """Healthy and partitioned.  Without trials that were never cut, healthy is what the others were before their cut (its verdict unknown)."""
    during = place(partitioned(own, deadline_us))
    before = place(healthy(own))
    if before is None and during is not None:
        before = place(
            [
                {**row, STALE[0]: row.get("stale_share_before"), WORST[0]: row.get("availability_worst_node_before"), "linearizable": None}
                for row in own
            ]
        )
    return before, during


def _heading(used: Sequence[Row], nodes: int, deadline_us: int) -> str:
    uncut = len(healthy(used))
    small = f"{uncut} trials without a cut" if uncut else "what was before each trial's cut"
    return heading(
        "Consistency and availability, healthy \u2192 partitioned",
        f"{nodes} nodes; small: {small}; large: {len(partitioned(used, deadline_us))} trials with a cut longer than the deadline"
        "<br>bars: 95 % intervals over seeds; hollow: not every trial was linearizable; points that coincide stand side by side",
    )


def _apart(places: dict[str, Place]) -> dict[str, float]:
    """How far points that coincide are set aside along x, so that none hides another."""
    lowest = min((at.x.mean for at in places.values()), default=1.0)
    step = 0.022 * max(0.12, 1.05 - lowest)
    out: dict[str, float] = {}
    groups: list[list[str]] = []
    for name, at in places.items():
        near = next(
            (group for group in groups if abs(places[group[0]].x.mean - at.x.mean) < step and abs(places[group[0]].y.mean - at.y.mean) < 0.03), None
        )
        if near is None:
            groups.append([name])
        else:
            near.append(name)
    for group in groups:
        out.update({name: (i - (len(group) - 1) / 2) * step for i, name in enumerate(group)})
    return out


def _arrow(name: str, nodes: int, look: Look, before: Place | None, during: Place | None, aside: float) -> list[go.Scatter]:
    """The healthy point, the arrow, and the partitioned point of one policy (one legend entry)."""
    out = []
    if before is not None and during is not None:
        out.append(
            go.Scatter(
                x=[before.x.mean, during.x.mean + aside],
                y=[before.y.mean, during.y.mean],
                mode="lines+markers",
                line={"color": look.colour, "width": 1.6, "dash": look.dash},
                marker={"symbol": "arrow", "angleref": "previous", "size": [0, 13], "color": look.colour, "standoff": [0, 7]},
                legendgroup=name,
                showlegend=False,
                hoverinfo="skip",
            )
        )
    if before is not None:
        out.append(_point(name, nodes, look, before, "healthy", 0.0, during is None))
    if during is not None:
        out.append(_point(name, nodes, look, during, "partitioned", aside, True))
    return out


def _point(name: str, nodes: int, look: Look, at: Place, state: str, aside: float, legend: bool) -> go.Scatter:
    linear = "not checked" if at.linearizable is None else f"{show(at.linearizable)} of {at.linearizable.trials} trials"
    filled = at.filled or (at.linearizable is None and state == "healthy")
    return go.Scatter(
        x=[at.x.mean + aside],
        y=[at.y.mean],
        error_x=_bar(at.x, look),
        error_y=_bar(at.y, look),
        mode="markers",
        name=html.escape(name),
        legendgroup=name,
        showlegend=legend,
        marker={
            "symbol": look.marker if filled else hollow(look.marker),
            "size": 13 if state == "partitioned" else 8,
            "color": look.colour,
            "line": {"width": 2, "color": look.colour},
        },
        customdata=[[name, nodes, state, show(at.x), show(at.y), linear, at.y.trials]],
        hovertemplate=f"<b>{html.escape(name)}</b>, {nodes} nodes, {state}<br>1 - stale share: %{{customdata[3]}}<br>worst-served node: "
        f"%{{customdata[4]}}"
        "<br>linearizable: %{customdata[5]}<br>%{customdata[6]} trials<extra></extra>",
    )


def _bar(found: Estimate, look: Look) -> dict[str, object]:
    if found.low is None or found.high is None:
        return {"visible": False}
    return {
        "type": "data",
        "symmetric": False,
        "array": [max(0.0, min(1.0, found.high) - found.mean)],
        "arrayminus": [max(0.0, found.mean - max(0.0, found.low))],
        "color": look.colour,
        "thickness": 1.2,
        "width": 3,
    }


# ---- the triangle --------------------------------------------------------------------------------------------------------------------------
HEIGHT = 3**0.5 / 2
CORNERS = {"C": (0.5, HEIGHT), "A": (0.0, 0.0), "P": (1.0, 0.0)}


class Shares(NamedTuple):
    """What the triangle is placed by, each 0 to 1."""

    c: float
    a: float
    p: float

    def spot(self) -> tuple[float, float] | None:
        """The place in the plane of the triangle; None where all three are 0."""
        total = self.c + self.a + self.p
        if total <= 0:
            return None
        weights = (self.c / total, self.a / total, self.p / total)
        return (sum(w * CORNERS[k][0] for w, k in zip(weights, "CAP")), sum(w * CORNERS[k][1] for w, k in zip(weights, "CAP")))


def shares(rows: Sequence[Row]) -> Shares | None:
    """C, A and P of trials of one policy with a cut; None where one was not measured."""
    at = place(rows)
    shapes = dict.fromkeys(row["shape"] for row in rows)
    largest = [estimate([row for row in rows if row["shape"] == shape], first_known(rows, *LARGEST)) for shape in shapes]
    known = [one.mean for one in largest if one is not None]
    return None if at is None or not known else Shares(at.x.mean, at.y.mean, min(known))


def triangle(rows: Sequence[Row], deadline_us: int) -> go.Figure | None:
    """The CAP triangle, each policy placed by what was measured under cuts longer than the deadline; faint: its single seeds."""
    nodes, names = main_size(rows), labels(rows)
    cut = [row for row in partitioned(rows, deadline_us) if row["nodes"] == nodes]
    traces, lost = [], []
    for name, look in looks(names).items():
        own = [row for row in cut if row["label"] == name]
        found = shares(own) if own else None
        spot = found.spot() if found else None
        if found is None or spot is None:
            lost.append(name)
            continue
        seeds = [one.spot() for seed in sorted({row["seed"] for row in own}) if (one := shares([row for row in own if row["seed"] == seed]))]
        traces.append(_cloud([one for one in seeds if one], name, look))
        traces.append(_spot(name, nodes, look, found, spot, place(own), len(own)))
    if not traces:
        return None
    figure = go.Figure(traces)
    _frame(figure)
    note = "" if not lost else f"; not placed (nothing measured, or all three 0): {html.escape(', '.join(lost))}"
    style(
        figure,
        "The CAP triangle, placed by measurement",
        f"{nodes} nodes, {len(cut)} trials with a cut longer than the deadline; faint: single seeds; hollow: not every trial was "
        f"linearizable{note}<br>"
        "C = 1 - stale share, A = worst-served node's availability, P = largest side's availability; place = (C, A, P) / (C + A + P)",
        640,
    )
    figure.update_layout(
        margin={"t": 84, "r": 330, "b": 20}, legend={"orientation": "v", "x": 1.02, "xref": "paper", "y": 1, "yref": "paper", "yanchor": "top"}
    )
    return figure


def _frame(figure: go.Figure) -> None:
    (cx, cy), (ax, ay), (px, py) = CORNERS["C"], CORNERS["A"], CORNERS["P"]
    figure.add_shape(
        type="path", path=f"M {cx} {cy} L {ax} {ay} L {px} {py} Z", line={"color": INK, "width": 1.5}, fillcolor="#fafafa", layer="below"
    )
    centre = (0.5, HEIGHT / 3)
    for x, y in ((0.25, HEIGHT / 2), (0.75, HEIGHT / 2), (0.5, 0.0)):
        figure.add_shape(type="line", x0=centre[0], y0=centre[1], x1=x, y1=y, line={"color": "#cccccc", "width": 1, "dash": "dot"}, layer="below")
    for text, x, y, xa, ya in (
        ("<b>C</b> consistent", cx, cy, "center", "bottom"),
        ("<b>A</b> available", ax, ay, "center", "top"),
        ("<b>P</b> survives the cut", px, py, "center", "top"),
        ("(1, 1, 1) is here +", centre[0] + 0.008, centre[1], "right", "middle"),
        ("CA: gives up P", 0.235, HEIGHT / 2, "right", "middle"),
        ("CP: gives up A", 0.765, HEIGHT / 2, "left", "middle"),
        ("AP: gives up C", 0.5, -0.015, "center", "top"),
    ):
        big = text.startswith("<b>")
        figure.add_annotation(
            x=x,
            y=y,
            text=text,
            showarrow=False,
            xanchor=xa,
            yanchor=ya,
            yshift=8 if text.startswith("<b>C") else 0,
            font={"size": 14 if big else 11, "color": INK if big else FAINT},
        )
    figure.update_xaxes(visible=False, range=[-0.12, 1.12])
    figure.update_yaxes(visible=False, range=[-0.08, HEIGHT + 0.07], scaleanchor="x", scaleratio=1)


def _cloud(spots: list[tuple[float, float]], name: str, look: Look) -> go.Scatter:
    return go.Scatter(
        x=[x for x, _ in spots],
        y=[y for _, y in spots],
        mode="markers",
        marker={"symbol": look.marker, "size": 5, "color": look.colour},
        opacity=0.35,
        legendgroup=name,
        showlegend=False,
        hoverinfo="skip",
    )


def _spot(name: str, nodes: int, look: Look, found: Shares, spot: tuple[float, float], at: Place | None, trials: int) -> go.Scatter:
    filled = at is not None and at.filled
    numbers = f"C {found.c:.2f}  A {found.a:.2f}  P {found.p:.2f}"
    return go.Scatter(
        x=[spot[0]],
        y=[spot[1]],
        mode="markers",
        name=f"{html.escape(name)}<br><span style='font-size:11px;color:{FAINT}'>{numbers}</span>",
        legendgroup=name,
        marker={"symbol": look.marker if filled else hollow(look.marker), "size": 13, "color": look.colour, "line": {"width": 2, "color": look.colour}},
        customdata=[[name, nodes, "partitioned", numbers, trials]],
        hovertemplate=f"<b>{html.escape(name)}</b><br>%{{customdata[3]}}<br>%{{customdata[4]}} trials<extra></extra>",
    )
