"""One trial on paper: the timeline (what every node's clients got, and how far the replicas stood apart) and the space-time diagram.

Decides: how a record is drawn.  May not know: what is stale or divergent (capray.metrics says so), rows, sweeps.
Sources: the timeline after Jepsen's timeline and latency plots; the space-time diagram after Lamport, "Time, clocks, and the ordering of
events in a distributed system", 1978: a line for each node, a slanted line for each message.
"""

from __future__ import annotations

import html
from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from capray.checkers.measures import StaleRead, stale_reads
from capray.errors import show_us, wrong
from capray.figures.style import FAINT, GRID, INK, SHADE, style
from capray.metrics import divergence_curve
from capray.record import FaultWindow, Operation, Record, TraceEvent

S = 1_000_000


class Tick(NamedTuple):
    """How one outcome is drawn in a node's lane: its own row beside its own colour."""

    name: str
    colour: str
    row: float
    width: float


TICKS = {
    "read": Tick("read ok", "#56B4E9", 0.14, 1.2),
    "write": Tick("write ok", "#009E73", 0.32, 1.2),
    "stale": Tick("read ok but stale", "#CC79A7", 0.5, 1.6),
    "fail": Tick("failed", "#D55E00", 0.68, 1.4),
    "info": Tick("unknown (no answer by the deadline)", "#000000", 0.86, 1.2),
}
KIND_LOOKS = {
    "write": ("#009E73", "solid"),
    "ack": ("#E69F00", "dash"),
    "read": ("#0072B2", "solid"),
    "response": ("#56B4E9", "dash"),
    "control": ("#999999", "solid"),
}
MOST_MESSAGES = 400
REASONS = {
    "cut": "it met the cut",
    "loss": "lost on the link",
    "crashed": "the receiver was down",
    "closed": "connection closed",
}


def lanes(record: Record) -> list[int]:
    """The nodes from top to bottom, side by side as the first cut grouped them."""
    groups = next((fault.groups for fault in record.faults if fault.groups), ())
    grouped = [node for group in groups for node in group]
    return [*dict.fromkeys(grouped), *(node for node in range(record.nodes) if node not in grouped)]


def sides(record: Record) -> dict[int, str]:
    """The side of each node in the first cut: majority, minority, or its group's number; empty without a cut."""
    groups = next((fault.groups for fault in record.faults if fault.groups), ())
    out = {}
    for i, group in enumerate(groups):
        size = "majority" if 2 * len(group) > record.nodes else "minority" if len(groups) == 2 and 2 * len(group) < record.nodes else f"side {i + 1}"
        out.update({node: size for node in group})
    return out


def lane_names(record: Record, order: Sequence[int]) -> list[str]:
    """`n3 (minority)`: what stands beside each lane."""
    side = sides(record)
    return [f"n{node} <span style='color:{FAINT}'>{side[node]}</span>" if node in side else f"n{node}" for node in order]


# ---- the timeline --------------------------------------------------------------------------------------------------------------------------
def timeline(record: Record, title: str = "", hover: bool = True) -> go.Figure:
    """Operations by node over virtual time, faults shaded; below, the share of (key, pair of replicas) that differ (where versions are known).
    `hover`: say of each operation what it was (most of the figure's bytes)."""
    stale = stale_reads(record.history)
    marked = {one.position: one for one in stale or ()}
    divergence = _changes([(sample.at, round(sample.differing / sample.pairs, 4)) for sample in divergence_curve(record) if sample.pairs])
    order = lanes(record)
    below = bool(divergence)
    figure = (
        make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.74, 0.26], vertical_spacing=0.05) if below else make_subplots(rows=1, cols=1)
    )
    for outcome, tick in TICKS.items():
        figure.add_trace(
            _ticks([(op, marked.get(i)) for i, op in enumerate(record.history) if _outcome(op, i in marked) == outcome], tick, order, hover), 1, 1
        )
    if below:
        figure.add_trace(_curve(divergence, record.end), 2, 1)
        figure.update_yaxes(title_text="divergence<br>(share of pairs)", range=[-0.02, 1.02], tickformat=".1f", row=2, col=1)
    style(
        figure,
        "Timeline of one trial: " + html.escape(title or f"{record.policy}, {record.nodes} nodes, seed {record.seed}"),
        _counted(record, len(marked), stale is not None),
        190 + max(110, 62 * record.nodes if record.nodes <= 9 else 34 * record.nodes) + (150 if below else 0),
    )
    _faults(figure, record, order)
    for i in range(1, len(order)):
        figure.add_hline(y=i, line={"color": GRID, "width": 1}, layer="below", row=1, col=1)
    figure.update_yaxes(
        tickvals=[i + 0.5 for i in range(len(order))], ticktext=lane_names(record, order), range=[len(order), 0], showgrid=False, row=1, col=1
    )
    figure.update_xaxes(range=[0, record.end / S])
    figure.update_xaxes(title_text="virtual time (s)", row=2 if below else 1, col=1)
    return figure.update_layout(margin={"t": 112, "b": 84})


def _outcome(op: Operation, stale: bool) -> str:
    if op.type != "ok":
        return op.type
    return "stale" if stale else "read" if op.f == "read" else "write"


def _ticks(chosen: Sequence[tuple[Operation, StaleRead | None]], tick: Tick, order: Sequence[int], hover: bool) -> go.Scatter:
    """One short upright stroke for each operation at its invocation: all of an outcome are one path."""
    lane = {node: i for i, node in enumerate(order)}
    x: list[float | None] = []
    y: list[float | None] = []
    text: list[str] = []
    for op, stale in chosen:
        if op.node is not None and op.node in lane:
            middle, at = lane[op.node] + tick.row, round(op.invoke / S, 4)
            x += [at, at, None]
            y += [round(middle - 0.08, 2), round(middle + 0.08, 2), None]
            text += [_operation(op, stale) if hover else "", "", ""]
    told = {"text": text, "hovertemplate": "%{x} s: %{text}<extra></extra>"} if hover else {"hoverinfo": "x+name"}
    return go.Scatter(
        x=x, y=y, mode="lines", line={"color": tick.colour, "width": tick.width}, name=f"{tick.name} ({len(chosen)})", showlegend=True, **told
    )


def _operation(op: Operation, stale: StaleRead | None) -> str:
    """`n2 read k3 -> 17, ok, 1.2ms`: one operation for hover."""
    asked = f"{op.f} {op.key}" + ("" if op.f == "read" else f" = {op.value}") + (f" -> {op.result}" if op.f == "read" and op.type == "ok" else "")
    took = "" if op.complete is None else f" {show_us(op.complete - (op.invoke if op.intended is None else op.intended))}"
    late = "" if stale is None else f", overwritten {show_us(stale.age_us)} before"
    return html.escape(f"n{op.node} {asked}, {op.type}{took}{late}" + (f" ({op.error})" if op.error else "") + (", final" if op.final else ""))


def _counted(record: Record, stale: int, known: bool) -> str:
    said = [f"1 trial, {len(record.history)} operations", f"{stale} stale reads" if known else "stale reads not marked"]
    for fault in record.faults:
        said.append(
            f"{fault_name(fault)} from {show_us(fault.at)} "
            + ("on, never healed" if fault.until is None else f"to {show_us(fault.until)}")
            + (" (touched nothing)" if fault.touched_nothing else "")
        )
    rows = "rows in a lane from the top: " + ", ".join(tick.name.split(" (")[0] for tick in TICKS.values())
    return html.escape("; ".join(said[:4]) + (f"; and {len(said) - 4} more faults" if len(said) > 4 else "")) + "<br>" + rows


def fault_name(fault: FaultWindow) -> str:
    """`majority: 1,2 | 0,3,4`, or the kind and the nodes."""
    if fault.groups:
        return f"{fault.shape or 'cut'} {' | '.join(','.join(map(str, group)) for group in fault.groups)}"
    return fault.kind + (" " + ",".join(f"n{node}" for node in fault.nodes) if fault.nodes else "")


def _faults(figure: go.Figure, record: Record, order: Sequence[int]) -> None:
    """Shade each fault over every row; a heavy line between the sides while they are cut."""
    side = sides(record)
    for fault in record.faults:
        left, right = fault.at / S, (record.end if fault.until is None else fault.until) / S
        figure.add_vrect(x0=left, x1=right, fillcolor=SHADE, line_width=0, layer="below", row="all", col=1)
        if fault.groups:
            for i in range(1, len(order)):
                if side.get(order[i]) != side.get(order[i - 1]):
                    figure.add_shape(type="line", x0=left, x1=right, y0=i, y1=i, line={"color": "#D55E00", "width": 2.5}, row=1, col=1)
    for fault in record.faults[:6]:
        figure.add_annotation(
            x=fault.at / S,
            y=1,
            xref="x",
            yref="y domain",
            yanchor="bottom",
            xanchor="left",
            showarrow=False,
            font={"size": 11, "color": "#A04000"},
            text=html.escape(fault.kind + ("" if not fault.shape else f": {fault.shape}")),
        )


def _changes(curve: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """A step curve without the samples that change nothing."""
    return [sample for i, sample in enumerate(curve) if not i or sample[1] != curve[i - 1][1]]


def _curve(divergence: Sequence[tuple[int, float]], end: int) -> go.Scatter:
    at = [*(t / S for t, _ in divergence), end / S]
    share = [*(v for _, v in divergence), divergence[-1][1] if divergence else 0.0]
    return go.Scatter(
        x=at,
        y=share,
        mode="lines",
        line={"shape": "hv", "color": "#882255", "width": 1.6},
        fill="tozeroy",
        fillcolor="rgba(136,34,85,0.15)",
        name="divergence",
        hovertemplate="%{x:.3f} s: %{y:.3f}<extra>divergence</extra>",
    )


# ---- space and time ------------------------------------------------------------------------------------------------------------------------
def spacetime(record: Record, window: tuple[int, int] | None = None, title: str = "") -> go.Figure:
    """Messages between the nodes' lifelines in a window (from, to) of microseconds, dropped ones with their reason.

    Without a window it opens on the first messages that were dropped or held up; all that were traced (to MOST_MESSAGES) are there, beyond the
    window's edges.  Raises InputError where the record carries no trace there (`trace_us` of the scenario).
    """
    if not record.trace:
        raise wrong("trace_us", "(none)", "a window of time (from, to) in which the trial keeps its messages")
    view = window or _interesting(record.trace)
    sent = [event for event in record.trace if window is None or window[0] <= event.sent < window[1]]
    if not sent:
        raise wrong("window", view, f"a window that holds messages: they were traced from {record.trace[0].sent} to {record.trace[-1].sent}")
    near = sorted(sent, key=lambda event: (abs(event.sent - view[0]), event.sent))[:MOST_MESSAGES]
    shown = sorted(near, key=lambda event: (event.sent, event.src, event.dst))
    order, start, reach = lanes(record), view[0], (view[1] - view[0]) / 1000 * 0.012
    figure, lane = go.Figure(), {node: i for i, node in enumerate(order)}
    held = _held_from(sent)
    for kind, (colour, dash) in KIND_LOOKS.items():
        arrived = [event for event in shown if event.kind == kind and event.arrived is not None and event.arrived - event.sent < held]
        if arrived:
            figure.add_trace(_arrows(arrived, kind, colour, dash, lane, start))
    late = [event for event in shown if event.arrived is not None and event.arrived - event.sent >= held]
    if late:
        figure.add_trace(_stubs(late, "held up by the cut, arrives later", "triangle-right-open", "#882255", lane, start, reach))
    for reason in dict.fromkeys(event.dropped or "" for event in shown if event.arrived is None):
        figure.add_trace(
            _stubs(
                [event for event in shown if event.arrived is None and (event.dropped or "") == reason],
                f"dropped: {REASONS.get(reason, reason or 'not told')}",
                "x",
                "#D55E00",
                lane,
                start,
                reach,
            )
        )
    _lifelines(figure, record, order, shown, view)
    more = "" if len(shown) == len(sent) else f" (of {len(sent)} traced)"
    return style_spacetime(
        figure, record, title, f"1 trial, {len(shown)} messages{more}; shaded: a fault; drag to look at another part, double-click for all"
    )


def style_spacetime(figure: go.Figure, record: Record, title: str, said: str) -> go.Figure:
    """Title, height and margins of the diagram."""
    style(
        figure,
        "Messages between nodes: " + html.escape(title or f"{record.policy}, {record.nodes} nodes, seed {record.seed}"),
        said,
        190 + max(74 * min(record.nodes, 9), 36 * record.nodes),
    )
    figure.update_yaxes(showgrid=False)
    return figure.update_layout(margin={"t": 84, "b": 90})


def _lifelines(figure: go.Figure, record: Record, order: Sequence[int], shown: Sequence[TraceEvent], view: tuple[int, int]) -> None:
    start, end = min(view[0], shown[0].sent), max(view[1], shown[-1].sent)
    ends = [(start - view[0]) / 1000, (end - view[0]) / 1000, None]
    figure.add_trace(
        go.Scatter(
            x=ends * len(order),
            y=[y for i in range(len(order)) for y in (i, i, None)],
            mode="lines",
            line={"color": INK, "width": 1},
            hoverinfo="skip",
            showlegend=False,
        )
    )
    for fault in record.faults:
        left, right = max(fault.at, start), min(record.end if fault.until is None else fault.until, end + (end - start))
        if left < right:
            figure.add_vrect(x0=(left - view[0]) / 1000, x1=(right - view[0]) / 1000, fillcolor=SHADE, line_width=0, layer="below")
    figure.update_yaxes(tickvals=list(range(len(order))), ticktext=lane_names(record, order), range=[len(order) - 0.5, -0.5])
    figure.update_xaxes(title_text=f"milliseconds after {view[0] / S:.6f} s of virtual time", range=[0, (view[1] - view[0]) / 1000])


def _held_from(events: Sequence[TraceEvent]) -> int:
    """A message that takes so long was held up, not just slow: 50 times the median flight, at least 100 ms (below TCP's first time-out)."""
    flights = sorted(event.arrived - event.sent for event in events if event.arrived is not None)
    return max(100_000, 50 * flights[len(flights) // 2]) if flights else 0


def _interesting(trace: Sequence[TraceEvent]) -> tuple[int, int]:
    """A window that begins a little before a message that was dropped or held up: of all such the one with most messages; 40 median flights long,
    or so many times four as it takes to show 6 messages."""
    held = _held_from(trace)
    flights = sorted(event.arrived - event.sent for event in trace if event.arrived is not None and event.arrived - event.sent < held)
    length = 40 * (flights[len(flights) // 2] if flights else 1000)
    sent = [event.sent for event in trace]
    troubled = [event.sent for event in trace if event.arrived is None or event.arrived - event.sent >= held] or sent[:1]
    while True:
        before = length // 10
        many, at = max((bisect_left(sent, t + length - before) - bisect_left(sent, t - before), -t) for t in troubled)
        if many >= min(6, len(sent)) or length > 4 * (sent[-1] - sent[0]):
            return -at - before, -at + length - before
        length *= 4


def _arrows(events: Sequence[TraceEvent], kind: str, colour: str, dash: str, lane: dict[int, int], start: int) -> go.Scatter:
    """All messages of a class that arrived, as one path with an arrow head at each end."""
    x: list[float | None] = []
    y: list[float | None] = []
    text: list[str] = []
    for event in events:
        assert event.arrived is not None
        x += [(event.sent - start) / 1000, (event.arrived - start) / 1000, None]
        y += [lane[event.src], lane[event.dst], None]
        text += [_message(event)] * 2 + [""]
    return _path(x, y, text, f"{kind} ({len(events)})", {"color": colour, "width": 1.3, "dash": dash}, "arrow", 10)


def _stubs(events: Sequence[TraceEvent], name: str, symbol: str, colour: str, lane: dict[int, int], start: int, reach: float) -> go.Scatter:
    """Messages that do not arrive: a short way towards the receiver, ended by a mark."""
    x: list[float | None] = []
    y: list[float | None] = []
    text: list[str] = []
    for event in events:
        a, b = lane[event.src], lane[event.dst]
        step = min(0.2 + 0.13 * abs(b - a), 0.75)  # marks of messages to several peers stand apart
        x += [(event.sent - start) / 1000, (event.sent - start) / 1000 + reach, None]
        y += [a, a + (step if b > a else -step), None]
        text += [_message(event)] * 2 + [""]
    return _path(x, y, text, f"{name} ({len(events)})", {"color": colour, "width": 1.3, "dash": "dot"}, symbol, 9)


def _path(x: list[float | None], y: list[float | None], text: list[str], name: str, line: dict[str, object], symbol: str, size: int) -> go.Scatter:
    """Separate strokes, each from a dot to a mark."""
    many = len(x) // 3
    return go.Scatter(
        x=x,
        y=y,
        mode="lines+markers",
        name=name,
        text=text,
        line=line,
        hovertemplate="%{text}<extra></extra>",
        marker={
            "symbol": ["circle", symbol, "circle"] * many,
            "angleref": "previous" if symbol == "arrow" else "up",
            "size": [4, size, 0] * many,
            "color": line["color"],
            "opacity": 1,
        },
    )


def _message(event: TraceEvent) -> str:
    end = f"arrives {show_us(event.arrived - event.sent)} later" if event.arrived is not None else f"dropped: {REASONS.get(event.dropped or '', event.dropped)}"
    return html.escape(f"{event.label} ({event.kind}) n{event.src} -> n{event.dst}, sent at {event.sent / S:.6f} s, {end}")
