"""Why a history is not linearizable, for a reader: the smallest failing window, as text and as a timeline.

Decides: the window.  May not know: files, the command line.  plotly is imported only when a figure is asked for.

The end: the earliest completion by which the history so far cannot be linearized (linearizability is prefix-closed, so this is searched for by
halving); what was completed before it is the longest linearizable prefix.  The start: the latest invocation from which the rest fails whatever
state the object was in then; an operation that began before and was completed after that may have happened on either side, so within the window it
is optional and its answer says nothing.  A window that fails so proves that the whole history does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from capray.checkers.models import Call, Model, State
from capray.checkers.search import Search
from capray.checkers.verdict import Evidence, Verdict
from capray.checkers.zones import clusters, verdict_of
from capray.record import Operation

_BUDGET = 200_000  # states for each question asked here; a question left open widens the window, it never falsifies it
_MOST_STATES = 48
_MOST_SHOWN = 60


def explain(ops: Sequence[Operation], model: Model, initial: Any, verdict: Verdict) -> Evidence | None:
    """The evidence for an `invalid` verdict on linearizability (None for others); fills it into the verdict too."""
    if verdict.status != "invalid" or verdict.evidence is None:
        return None
    if verdict.consistency != "linearizable":
        return verdict.evidence
    key = verdict.evidence.key
    positions = sorted([i for i, op in enumerate(ops) if op.key == key and _matters(op, model)], key=lambda i: ops[i].invoke)
    end = _end(ops, positions, model, initial)
    inside = [i for i in positions if ops[i].invoke <= end]
    prefix = sorted([i for i in inside if _completed(ops[i]) < end], key=lambda i: _completed(ops[i]))
    found = clusters([ops[i] for i in inside], initial) if model.name in ("register", "cas-register") else None
    evidence = None
    if found is not None:
        evidence = verdict_of(*_at(ops, inside, end, initial)).evidence
    if evidence is not None:
        evidence.operations = [inside[i] for i in evidence.operations]
        evidence.offending = [inside[i] for i in evidence.offending]
    else:
        evidence = _searched(ops, inside, model, initial, end)
    evidence.key, evidence.prefix = key, prefix
    verdict.evidence = evidence
    return evidence


_NEVER = 1 << 62


def _completed(op: Operation) -> int:
    return _NEVER if op.complete is None else op.complete


def _matters(op: Operation, model: Model) -> bool:
    """A failed operation did not happen, and one that changes nothing and has no answer says nothing."""
    return op.type == "ok" or (op.type == "info" and not model.pure(model.prepare(Call(op.f, op.value, None, False))))


def _upto(op: Operation, end: int) -> Operation:
    """The operation as it was known at `end`."""
    if _completed(op) <= end:
        return op
    return msgspec.structs.replace(op, type="info", complete=None, result=None)


def _at(ops: Sequence[Operation], inside: list[int], end: int, initial: Any) -> tuple[list[Operation], Any]:
    known = [_upto(ops[i], end) for i in inside]
    found = clusters(known, initial)
    assert found is not None
    return known, found


def _fails(ops: Sequence[Operation], model: Model, initial: Any) -> bool:
    """Shown not to be linearizable, within the budget."""
    if model.name in ("register", "cas-register"):
        found = clusters(ops, initial)
        if found is not None:
            return verdict_of(ops, found).status == "invalid"
    return Search(ops, model, initial).run(_BUDGET) == "invalid"


def _end(ops: Sequence[Operation], positions: list[int], model: Model, initial: Any) -> int:
    """The earliest completion by which the history has failed."""
    times = sorted({_completed(ops[i]) for i in positions} - {_NEVER})
    low, high = -1, len(times) - 1
    while high - low > 1:
        middle = (low + high) // 2
        known = [_upto(ops[i], times[middle]) for i in positions if ops[i].invoke <= times[middle]]
        low, high = (low, middle) if _fails(known, model, initial) else (middle, high)
    return times[high]


def _searched(ops: Sequence[Operation], inside: list[int], model: Model, initial: Any, end: int) -> Evidence:
    known = [_upto(ops[i], end) for i in inside]
    search = Search(known, model, initial)
    search.run(_BUDGET)
    start = _start(known, model, search.classes.states, initial)
    window = [i for i, op in zip(inside, known) if _completed(op) >= start]
    last = [i for i in window if _completed(ops[i]) == end]
    told = ", ".join(_say(ops[i]) for i in last)
    fixed = " whatever the state was at its start" if start > known[0].invoke else ""
    return Evidence(
        problem=f"{told}: from {start} to {end} no order of the {len(window)} operations there is legal{fixed}; without it there is one",
        operations=window, offending=last, start_us=start, end_us=end,
    )


def _start(known: list[Operation], model: Model, states: list[State], initial: Any) -> int:
    """The latest invocation from which the rest fails from every state that the search met."""
    times = sorted({op.invoke for op in known})
    if len(states) > _MOST_STATES:
        return times[0]
    low, high = 0, len(times)
    while high - low > 1:
        middle = (low + high) // 2
        rest = [_from(op, times[middle]) for op in known if _completed(op) >= times[middle]]
        anyhow = model._replace(start=lambda state: state)
        fails = all(Search(rest, anyhow, state).run(_BUDGET) == "invalid" for state in states)
        low, high = (middle, high) if fails else (low, middle)
    return times[low]


def _from(op: Operation, start: int) -> Operation:
    return op if op.invoke >= start else msgspec.structs.replace(op, type="info", complete=None, result=None)


# ---- for the reader -----------------------------------------------------------------------------------------------------------------------


def _say(op: Operation) -> str:
    asked = "" if op.value is None else f" {op.value!r}"
    told = f" -> {op.result!r}" if op.type == "ok" and (op.result is not None or op.value is None) else (" -> ?" if op.type == "info" else "")
    return f"process {op.process} {op.f}{asked}{told}"


def _shown(ops: Sequence[Operation], evidence: Evidence) -> list[int]:
    """The window's operations, the offending ones and those nearest its end if there are too many."""
    rest = [i for i in evidence.operations if i not in set(evidence.offending)]
    rest.sort(key=lambda i: -ops[i].invoke)
    return sorted({*evidence.offending[:_MOST_SHOWN], *rest[:_MOST_SHOWN]}, key=lambda i: (ops[i].invoke, i))


def text(ops: Sequence[Operation], evidence: Evidence, width: int = 48) -> str:
    """The problem in a sentence, then the window: a line an operation, `>` before the offending ones, `...` where the outcome is unknown."""
    lines = [("" if evidence.key is None else f"key {evidence.key}: ") + evidence.problem]
    shown = _shown(ops, evidence)
    if not shown:
        return lines[0]
    low = min(ops[i].invoke for i in shown)
    high = max([ops[i].invoke for i in shown] + [end for i in shown if (end := ops[i].complete) is not None])
    scale = max(1, high - low)
    for i in shown:
        op = ops[i]
        begin = (op.invoke - low) * (width - 1) // scale
        until = width if op.complete is None else (op.complete - low) * (width - 1) // scale + 1
        bar = " " * begin + ("." if op.complete is None else "=") * max(1, until - begin)
        mark = ">" if i in evidence.offending else " "
        lines.append(f"  {mark} {_say(op):<34.34} |{bar:<{width}}| [{op.invoke}, {'...' if op.complete is None else op.complete}]")
    if len(shown) < len(evidence.operations):
        lines.append(f"    ({len(evidence.operations) - len(shown)} more operations in the window)")
    if evidence.prefix:
        lines.append(f"    longest linearizable prefix: the {len(evidence.prefix)} operations completed before {evidence.end_us}")
    return "\n".join(lines)


_COLOURS = {"prefix": "#56B4E9", "offending": "#D55E00", "other": "#999999", "unknown": "#E69F00"}
_LEGEND = {
    "prefix": "in the longest linearizable prefix", "offending": "contradicts the rest", "other": "completed later", "unknown": "outcome unknown",
}


def timeline(ops: Sequence[Operation], evidence: Evidence, title: str = "") -> Any:
    """A plotly Figure: the window's operations as bars by process (one too short to see is a mark), what each asked and got beside it, offending ones
    marked, the longest linearizable prefix shaded.  The axis is in seconds."""
    import plotly.graph_objects as go

    shown = _shown(ops, evidence)
    high = max([ops[i].invoke for i in shown] + [end for i in shown if (end := ops[i].complete) is not None], default=1)
    low = min((ops[i].invoke for i in shown), default=0)
    pad = max(1, (high - low) // 12)
    prefix = set(evidence.prefix)
    figure = go.Figure()
    for kind, legend in _LEGEND.items():
        group = [i for i in shown if _kind(ops[i], i, prefix, evidence) == kind]
        if group:
            figure.add_traces(_bars(ops, group, legend, _COLOURS[kind], high + pad))
    if evidence.prefix and evidence.end_us is not None:
        figure.add_vrect(x0=(low - pad) / 1e6, x1=evidence.end_us / 1e6, fillcolor="#56B4E9", opacity=0.10, line_width=0)
        figure.add_vline(x=evidence.end_us / 1e6, line_color=_COLOURS["offending"], line_dash="dot")
    processes = list(dict.fromkeys(f"process {ops[i].process}" for i in shown))
    return figure.update_layout(
        title=title or evidence.problem[:120], xaxis={"title": "virtual time (s)", "range": [(low - pad) / 1e6, (high + 2 * pad) / 1e6]},
        yaxis={"categoryorder": "array", "categoryarray": processes[::-1], "range": [-0.6, len(processes) - 0.4]}, template="plotly_white", showlegend=True,
    )


def _bars(ops: Sequence[Operation], group: Sequence[int], legend: str, colour: str, edge: int) -> list[Any]:
    """The operations of one kind: strokes from invocation to completion (to the edge where there was none), and a mark with its words at each beginning."""
    import plotly.graph_objects as go

    lane = [f"process {ops[i].process}" for i in group]
    begin = [ops[i].invoke / 1e6 for i in group]
    end = [(edge if ops[i].complete is None else _completed(ops[i])) / 1e6 for i in group]
    told = [f"{_say(ops[i])}<br>from {ops[i].invoke / 1e6:.6f} s, " + _length(ops[i]) for i in group]
    stroke = go.Scatter(
        x=[at for pair in zip(begin, end) for at in (*pair, None)], y=[at for name in lane for at in (name, name, None)], mode="lines", name=legend,
        legendgroup=legend, line={"color": colour, "width": 9}, hoverinfo="skip",
    )
    mark = go.Scatter(
        x=begin, y=lane, mode="markers+text", text=[_say(ops[i]).split(" ", 2)[2] for i in group], textposition="top right", textfont={"size": 11}, name=legend,
        legendgroup=legend, showlegend=False, hovertext=told, hoverinfo="text", marker={"color": colour, "size": 9, "symbol": "square"},
    )
    return [stroke, mark]


def _length(op: Operation) -> str:
    return "never completed" if op.complete is None else f"{op.complete - op.invoke} µs long"


def _kind(op: Operation, i: int, prefix: set[int], evidence: Evidence) -> str:
    if i in evidence.offending:
        return "offending"
    return "unknown" if op.complete is None else ("prefix" if i in prefix else "other")
