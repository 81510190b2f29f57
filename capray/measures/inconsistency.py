"""How inconsistent the answers were, from the history and its fault windows alone: verdict, stale reads, Gamma, sessions, provable losses.

Decides: how the checkers' findings become columns by phase and side.  May not know: versions, how a checker works.
Sources: METRICS.md, "Inconsistency"; capray.checkers has the definitions and theirs.

Final reads: they belong to the verdict, to Gamma, the sessions and the provable losses, which are about the whole history.  They are left out
of the stale reads and of the share's denominator, since they are no part of the workload (with many keys they would drown it);
`stale_reads_final` counts the stale ones among them: what stayed stale after the quiet period.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from capray.checkers.linearizable import linearizable
from capray.checkers.measures import StaleRead, gamma_us, lost_writes_provable, stale_reads
from capray.checkers.models import MODELS
from capray.checkers.sessions import GUARANTEES, session_violations
from capray.checkers.zones import linearizable_register
from capray.measures.availability import Row, share
from capray.measures.phases import Calendar, column, due
from capray.record import Operation


def verdict(history: Sequence[Operation], initial: Any = None) -> str | None:
    """`valid`, `invalid` or `unknown`: linearizability of the whole history as registers (with compare-and-set where it has those); null for
    other operations, whose model `capray check` must be told."""
    names = {op.f for op in history}
    if names <= {"read", "write", "delete"}:
        return linearizable_register(history, initial).status
    if names <= {"read", "write", "delete", "cas"}:
        return linearizable(history, MODELS["cas-register"], initial).status
    return None


def staleness(history: Sequence[Operation], calendar: Calendar, initial: Any = None) -> Row:
    """stale_reads, stale_share, staleness_max_us, versions_behind_max, overall and by phase and side; stale_reads_final.

    All null where written values are not distinct, or where nobody meant to read.  A maximum over no stale read is null, a count of none is 0;
    a share of no `ok` read is null.
    """
    return staleness_of(history, stale_reads(history, initial), calendar)


def staleness_of(history: Sequence[Operation], found: Sequence[StaleRead] | None, calendar: Calendar) -> Row:
    """The same columns of stale reads that were found already (None: it is not known which are)."""
    row: Row = {}
    reads: dict[tuple[int, int], int] = {}  # ok reads; 0 where reads were asked for and none was ok
    stale: dict[tuple[int, int], list[StaleRead]] = {}
    for op in history if found is not None else ():
        if op.f == "read" and not op.final:
            where = _where(op, calendar)
            reads[where] = reads.get(where, 0) + (op.type == "ok")
    for one in found or ():
        if not history[one.position].final:
            stale.setdefault(_where(history[one.position], calendar), []).append(one)
    for phase, side in calendar.narrowings():
        chosen = [one for where, ones in stale.items() if _fits(calendar, where, phase, side) for one in ones]
        counts = [count for where, count in reads.items() if _fits(calendar, where, phase, side)]
        row[column("stale_reads", phase, side)] = len(chosen) if counts else None
        row[column("stale_share", phase, side)] = share(len(chosen), sum(counts))
        row[column("staleness_max_us", phase, side)] = max((one.age_us for one in chosen), default=None)
        row[column("versions_behind_max", phase, side)] = max((one.behind for one in chosen), default=None)
    finals = any(op.final and op.f == "read" and op.type == "ok" for op in history)
    row["stale_reads_final"] = sum(history[one.position].final for one in found) if found is not None and finals else None
    return row


def _where(op: Operation, calendar: Calendar) -> tuple[int, int]:
    return calendar.cell_at(due(op)), -1 if op.node is None else op.node


def _fits(calendar: Calendar, where: tuple[int, int], phase: str, side: str) -> bool:
    cell = calendar.cells[where[0]]
    return (not phase or phase in cell.phases) and (not side or where[1] in cell.sides.get(side, ()))


def measure_inconsistency(history: Sequence[Operation], calendar: Calendar, initial: Any = None) -> Row:
    """All H columns of METRICS.md, "Inconsistency"."""
    row: Row = {"linearizable": verdict(history, initial), **staleness(history, calendar, initial), "gamma_us": gamma_us(history, initial)}
    row.update(dict.fromkeys(f"{name}_violations" for name in GUARANTEES))
    row.update(session_violations(history, initial) or {})
    row["lost_writes_provable"] = lost_writes_provable(history, initial)
    return row
