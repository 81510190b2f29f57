"""Types whose updates commute (counters, sets): what each read saw, and the measures of inconsistency that mean something for them.

Decides: what a replica had included when it answered; which of METRICS.md's H columns such a trial has.  May not know: policies.
Sources: METRICS.md; capray.checkers.merged.

One update never overwrites another there.  So a read is stale iff it lacks an update that had been acknowledged before it was invoked; its age counts
from the earliest such acknowledgement, and it is as many versions behind as it lacks.  Null: Gamma and the counts of session violations (of registers;
capray.checkers.merged has the levels), and everything where what a read saw is not known.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from typing import Any

from capray.checkers.measures import StaleRead
from capray.checkers.merged import merged_levels, merged_linearizable, what_was_seen
from capray.checkers.totals import is_update
from capray.checkers.values import canonical
from capray.checkers.verdict import Verdict
from capray.measures.availability import Row
from capray.measures.holdings import KeyHoldings, restarts_of
from capray.measures.inconsistency import staleness_of
from capray.measures.phases import Calendar
from capray.record import Operation, Record


def merges(keys: Mapping[str, KeyHoldings] | None) -> bool:
    """Whether a trial's updates commute."""
    return keys is not None and any(found.merges for found in keys.values())


def kind_of(history: list[Operation]) -> str:
    """`set` where reads answer lists, else `counter`."""
    return "set" if any(isinstance(op.result, (list, tuple)) for op in history if op.f == "read") else "counter"


class _Line:
    """One key on one replica: the updates in the order it told of them, and its states: since when, their total, from which update to which.  A replica
    that was restarted begins with none, and tells again what it has."""

    def __init__(self) -> None:
        self.positions: list[int] = []
        self.since = [0]
        self.states = [(0, 0, 0)]  # total, from, to

    def include(self, at: int, position: int, value: Any) -> None:
        self.positions.append(position)
        total, start, end = self.states[-1]
        self.since.append(at)
        self.states.append((total + (value if isinstance(value, int) else 0), start, end + 1))

    def restart(self, at: int) -> None:
        self.since.append(at)
        self.states.append((0, len(self.positions), len(self.positions)))

    def explains(self, read: Operation) -> list[int] | None:
        """The updates of the latest state within the read's interval that adds up to its answer."""
        assert read.complete is not None
        for k in range(bisect_right(self.since, read.complete) - 1, -1, -1):
            total, start, end = self.states[k]
            if total == (read.result or 0):
                return self.positions[start:end]
            if self.since[k] < read.invoke:
                break
        return None


def seen_by_replicas(record: Record) -> dict[int, list[int]]:
    """For each ok read the updates that its node's replica had included when it answered.  A witness for capray.checkers.merged, to be verified; reads that
    no state explains are left out."""
    asked = {(op.key, canonical(op.value)): i for i, op in enumerate(record.history) if is_update(op)}
    back = restarts_of(record)
    lines: dict[tuple[int, str | None], _Line] = {}
    for version in record.versions or ():
        if version.kind != "merge":
            continue
        while back.get(version.node) and version.at >= back[version.node][-1]:
            at = back[version.node].pop()
            for (node, _), line in lines.items():
                if node == version.node and version.at == at:
                    line.restart(at)
        position = asked.get((version.key, canonical(version.value)))
        if position is not None:
            lines.setdefault((version.node, version.key), _Line()).include(version.at, position, version.value)
    empty = _Line()
    reads = [(i, op) for i, op in enumerate(record.history) if op.f == "read" and op.type == "ok" and op.node is not None]
    found = {i: lines.get((op.node, op.key), empty).explains(op) for i, op in reads if op.node is not None}
    return {i: state for i, state in found.items() if state is not None}


def verdicts(record: Record, budget: int) -> dict[str, Verdict]:
    """The verdicts of capray.checkers.merged on a trial whose updates commute."""
    kind = kind_of(record.history)
    return merged_levels(record.history, kind, seen_by_replicas(record) if kind == "counter" else None, budget)


def measure_merged(record: Record, calendar: Calendar, budget: int = 20_000) -> Row:
    """In place of the columns of registers: see the head of this file."""
    kind = kind_of(record.history)
    witness = seen_by_replicas(record) if kind == "counter" else None
    row: Row = {"linearizable": merged_linearizable(record.history, kind, witness, budget).status}
    row.update(staleness_of(record.history, stale_merged(record.history, what_was_seen(record.history, kind, witness)), calendar))
    names = ("gamma_us", "lost_writes_provable", "read_your_writes", "monotonic_reads", "monotonic_writes", "writes_follow_reads")
    row.update(dict.fromkeys((name if name in names[:2] else f"{name}_violations" for name in names), None))
    return row


def stale_merged(history: list[Operation], seen: Mapping[int, Any] | None) -> list[StaleRead] | None:
    """The reads that lack an update acknowledged before they were invoked; None where what they saw is not known."""
    if seen is None:
        return None
    done: dict[str | None, list[tuple[int, int]]] = {}
    for i, op in enumerate(history):
        if is_update(op) and op.complete is not None:
            done.setdefault(op.key, []).append((op.complete, i))
    stale = []
    for i, own in seen.items():
        had = set(own)
        lacks = [end for end, at in done.get(history[i].key, ()) if end < history[i].invoke and at not in had]
        if lacks:
            stale.append(StaleRead(i, history[i].invoke - min(lacks), len(lacks)))
    return stale
