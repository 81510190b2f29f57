"""Who was served, how fast, and how soon again: availability, CAP availability, latency, failover, recovery.

Decides: the H measures of METRICS.md, "Availability", from a history and its fault windows alone.  May not know: versions, policies.
Sources: yield, Fox and Brewer 1999; CAP availability, Gilbert and Lynch 2002 (every request received by a non-failing node must result in a
response); open loop, Schroeder et al. 2006.

Final reads are no part of the workload: they are left out of everything here.  Counts are exact; a share is one division of integers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from capray.measures.phases import FOREVER, KINDS, Calendar, column, due, is_ok, kind_of
from capray.record import Operation

Row = dict[str, Any]
GIVEN_UP = frozenset(("timeout", "client_timeout", "connect-timeout", "connection reset"))


class Tally:
    """Operations of one stretch of time, node and kind: due, answered `ok` in time, never answered; latencies of the `ok` ones."""

    __slots__ = ("intended", "latencies", "ok", "unanswered")

    def __init__(self) -> None:
        self.intended = 0
        self.ok = 0
        self.unanswered = 0
        self.latencies: list[int] = []


Where = tuple[int, int, str, bool]  # stretch of time, node (-1: unknown), kind, received by a node that was down


def unanswered(op: Operation) -> bool:
    """Was it given up without an answer?  `info`, or a read that its client (not the store) ended: at its deadline, or told so by `error`."""
    if op.type != "fail":
        return op.type == "info"
    return op.error in GIVEN_UP or (op.deadline is not None and op.complete is not None and op.complete >= op.deadline)


def tallies(history: Sequence[Operation], calendar: Calendar) -> dict[Where, Tally]:
    """One pass over the history; all measures of this module that are counts are sums over these."""
    found: dict[Where, Tally] = {}
    anyone_down = bool(calendar.down)
    for op in history:
        if op.final:
            continue
        at = due(op)
        node = -1 if op.node is None else op.node
        ended = op.complete if op.complete is not None else op.deadline if op.deadline is not None else op.invoke
        where = (calendar.cell_at(at), node, kind_of(op), anyone_down and calendar.failed(node, at, ended))
        tally = found.get(where)
        if tally is None:
            tally = found[where] = Tally()
        tally.intended += 1
        if is_ok(op):
            tally.ok += 1
            tally.latencies.append(op.complete - at)  # type: ignore[operator]
        elif unanswered(op):
            tally.unanswered += 1
    for tally in found.values():
        tally.latencies.sort()
    return found


def share(part: int, whole: int) -> float | None:
    """part / whole, correctly rounded; null where there is nothing to divide by."""
    return part / whole if whole else None


def quantile(ordered: Sequence[int], per_mille: int) -> int | None:
    """The nearest-rank quantile: the least value that at least so many of a thousand do not exceed; null for none."""
    return ordered[-(-len(ordered) * per_mille // 1000) - 1] if ordered else None


def served(found: dict[Where, Tally], calendar: Calendar) -> Row:
    """availability, unanswered_share, operations and latency quantiles, overall and by phase, side and kind."""
    row: Row = {}
    for phase, side in calendar.narrowings():
        fitting = [(where[2], tally) for where, tally in found.items() if _fits(calendar, where, phase, side)]
        for kind in KINDS:
            chosen = [tally for of, tally in fitting if not kind or of == kind]
            intended = sum(t.intended for t in chosen)
            latencies = sorted([latency for t in chosen for latency in t.latencies])
            name = (phase, side, kind)
            row[column("availability", *name)] = share(sum(t.ok for t in chosen), intended)
            row[column("unanswered_share", *name)] = share(sum(t.unanswered for t in chosen), intended)
            row[column("latency_p50_us", *name)] = quantile(latencies, 500)
            row[column("latency_p99_us", *name)] = quantile(latencies, 990)
            row[column("operations", *name)] = intended if intended or not (phase or side) else None
    return row


def _fits(calendar: Calendar, where: Where, phase: str, side: str) -> bool:
    cell = calendar.cells[where[0]]
    return (not phase or phase in cell.phases) and (not side or where[1] in cell.sides.get(side, ()))


def by_node(found: dict[Where, Tally], calendar: Calendar, phase: str = "", kind: str = "") -> dict[int, float]:
    """The availability of each node, in order, over the requests that it received while it was up."""
    ok: dict[int, int] = {}
    intended: dict[int, int] = {}
    for where, tally in found.items():
        node = where[1]
        if node >= 0 and not where[3] and (not kind or kind == where[2]) and _fits(calendar, where, phase, ""):
            ok[node] = ok.get(node, 0) + tally.ok
            intended[node] = intended.get(node, 0) + tally.intended
    return {node: ok[node] / intended[node] for node in sorted(intended)}


def cap(found: dict[Where, Tally], calendar: Calendar) -> Row:
    """cap_available: did every request that a non-failed node received during the faults get its `ok` in time?  Null without faults, or
    without requests then.  availability_worst_node: the lowest availability of a node, over what it received while it was up."""
    row: Row = {}
    for phase in ("", "before", "during", "after"):
        for kind in KINDS:
            nodes = by_node(found, calendar, phase, kind)
            row[column("availability_worst_node", phase, "", kind)] = min(nodes.values(), default=None)
    worst = row["availability_worst_node_during"]
    return {"cap_available": None if worst is None else worst == 1, **row}


# ---- failover, gap, recovery --------------------------------------------------------------------------------------------------------------


def failover(history: Sequence[Operation], calendar: Calendar) -> Row:
    """Reads and writes apart, on the largest side of the first fault (Calendar.serving_side).

    failover: from the cut to the first `ok` of an operation invoked at or after it.  Null, with `failover_*_censored` true, where none came.
    gap: the longest time without an `ok` there, from the cut on, through heal and to the last request: so an outage that healing brings shows.
    """
    row: Row = {}
    cut = calendar.begins
    for kind in ("read", "write"):
        names = (f"failover_{kind}_us", f"failover_{kind}_censored", f"gap_{kind}_us")
        row.update(dict.fromkeys(names))
        if cut is None:
            continue
        side = calendar.serving_side()
        ops = [op for op in history if not op.final and op.node in side and kind_of(op) == kind]
        later = [op for op in ops if op.invoke >= cut]
        if later:
            first = min((op.complete for op in later if is_ok(op)), default=None)  # type: ignore[type-var]
            answered = [op.complete for op in ops if is_ok(op) and op.complete >= cut]  # type: ignore[operator]
            gap = _gap(cut, answered, max(map(due, later)))  # type: ignore[arg-type]
            row.update(zip(names, (None if first is None else first - cut, first is None, gap)))
    return row


def _gap(cut: int, answered: list[int], end: int) -> int:
    """The longest stretch without an answer from `cut` to `end`."""
    points = [cut, *sorted(answered), end]
    return max(b - a for a, b in pairwise(points))


def recovery(history: Sequence[Operation], calendar: Calendar) -> Row:
    """From heal (the end of the last fault) on, by operations invoked at or after it.

    first: until every node that was asked has answered one `ok`, reads and writes apart; null, with `_censored` true, where one never did.
    last: to the start of the last operation that was not `ok`; 0 where all were.  All null where a fault never ended, or nobody asked.
    """
    row: Row = {}
    heal = calendar.heals
    later = [] if heal is None else [op for op in history if not op.final and op.invoke >= heal]
    for kind in ("read", "write"):
        first: dict[int | None, int] = {}
        for op in later:
            if kind_of(op) == kind:
                first[op.node] = min(first.get(op.node, FOREVER), op.complete if is_ok(op) else FOREVER)  # type: ignore[type-var, assignment]
        slowest = max(first.values(), default=None)
        reached = slowest is not None and slowest != FOREVER
        row[f"recovery_first_{kind}_us"] = slowest - heal if reached else None  # type: ignore[operator]
        row[f"recovery_first_{kind}_censored"] = None if slowest is None else not reached
    bad = [due(op) - heal for op in later if not is_ok(op)]  # type: ignore[operator]
    row["recovery_last_us"] = max([0, *bad]) if later else None
    return row


# ---- by node, for tables and figures ----------------------------------------------------------------------------------------------------------


def availability_of_nodes(history: Sequence[Operation], calendar: Calendar, phase: str = "", kind: str = "") -> dict[int, float]:
    """Each node's availability (requests received while it was up), in a phase and for a kind, or over all ("")."""
    return by_node(tallies(history, calendar), calendar, phase, kind)


def measure_availability(history: Sequence[Operation], calendar: Calendar) -> Row:
    """All columns of METRICS.md, "Availability"."""
    found = tallies(history, calendar)
    row: Row = {}
    parts: tuple[Callable[[], Row], ...] = (
        lambda: served(found, calendar), lambda: cap(found, calendar), lambda: failover(history, calendar), lambda: recovery(history, calendar))
    for part in parts:
        row.update(part())
    return row
