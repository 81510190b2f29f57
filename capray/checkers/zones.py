"""Linearizability of registers whose written values are distinct, by zones: exact, O(n log n).

Decides: the verdict, and between which two values the contradiction is.  May not know: models, searches, files.
Source: Gibbons and Korach, "Testing shared memories", SIAM J. Comput. 26 (1997), section 4.1.

The operations on one value form a cluster: its write and the reads that returned it.  In a linearization clusters are contiguous, so
cluster b must come before cluster a as soon as one operation of b is completed before one of a begins: first_complete(b) < last_start(a).
A history is linearizable iff every read has a write that does not begin after the read is completed, and no two clusters must each come
before the other.  A cluster with first_complete < last_start is a forward zone, else a backward one; two forward zones conflict iff they
overlap, a backward one conflicts with a forward one iff it lies inside.

The initial value is a write that was completed before all else.  An `info` write is completed at infinity; unread, it binds nothing.
Intervals are closed: a completion and an invocation at one instant are concurrent (all comparisons are strict).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from capray.checkers.values import PLAIN, canonical
from capray.checkers.verdict import Evidence, Verdict
from capray.record import Operation

FOREVER = 1 << 61
Times = npt.NDArray[np.int64]


class Clusters:
    """The clusters of a history, all keys together.  `first` and `last` are first_complete and last_start; `begin` the write's invocation;
    `write` its position (-1 for an initial value); `key` a number for each key."""

    __slots__ = ("begin", "early", "first", "key", "last", "names", "reads", "tables", "thin", "write")

    def __init__(self) -> None:
        self.first: list[int] = []
        self.last: list[int] = []
        self.begin: list[int] = []
        self.write: list[int] = []
        self.key: list[int] = []
        self.names: list[str | None] = []
        self.tables: dict[str | None, dict[Hashable, int]] = {}
        self.reads: list[tuple[int, int]] = []
        self.early: list[tuple[int, int]] = []
        self.thin: list[int] = []

    def table(self, key: str | None, initial: Hashable) -> dict[Hashable, int]:
        """Values to clusters of a key met for the first time, with the cluster of its initial value."""
        number = len(self.names)
        self.names.append(key)
        table: dict[Hashable, int] = {initial: len(self.first)}
        self.tables[key] = table
        self.add(number, -1, -FOREVER, -FOREVER)
        return table

    def add(self, key: int, write: int, begin: int, complete: int) -> None:
        self.first.append(complete)
        self.last.append(begin)
        self.begin.append(begin)
        self.write.append(write)
        self.key.append(key)


def clusters(ops: Sequence[Operation], initial: Any = None) -> Clusters | None:
    """The clusters of `ops`; None if they are not reads and writes of distinct values (a rewritten initial value counts as not distinct)."""
    found = Clusters()
    tables, start = found.tables, canonical(initial)
    first, last, begin, write, owner = found.first, found.last, found.begin, found.write, found.key
    reads: list[tuple[int, Operation]] = []
    for i, op in enumerate(ops):
        kind = op.type
        if kind == "fail":
            continue
        f = op.f
        if f == "read":
            if kind == "ok":
                reads.append((i, op))
        elif f != "write":
            return None
        else:
            table = tables.get(op.key)
            if table is None:
                table = found.table(op.key, start)
            value = op.value
            if value.__class__ not in PLAIN:
                value = canonical(value)
            if value in table:
                return None
            table[value] = len(first)
            invoke = op.invoke
            first.append(FOREVER if kind == "info" else op.complete)  # type: ignore[arg-type]
            last.append(invoke)
            begin.append(invoke)
            write.append(i)
            owner.append(owner[table[start]])
    _place_reads(found, reads, start)
    return found


def _place_reads(found: Clusters, reads: list[tuple[int, Operation]], start: Hashable) -> None:
    """Each ok read into its value's cluster; those of values never written, or written only later, are remembered."""
    tables, first, last, begin, placed = found.tables, found.first, found.last, found.begin, found.reads
    for i, op in reads:
        table = tables.get(op.key)
        if table is None:
            table = found.table(op.key, start)
        value = op.result
        if value.__class__ not in PLAIN:
            value = canonical(value)
        cluster = table.get(value)
        if cluster is None:
            found.thin.append(i)
            continue
        placed.append((i, cluster))
        complete: int = op.complete  # type: ignore[assignment]
        if complete < first[cluster]:
            first[cluster] = complete
            if complete < begin[cluster]:
                found.early.append((i, cluster))
        if op.invoke > last[cluster]:  # noqa: PLR1730 (this loop is hot, and a call to max is not free)
            last[cluster] = op.invoke


def conflict(first: Times, last: Times, key: Times) -> tuple[int, int] | None:
    """Two clusters of one key each of which must come before the other, those with the smallest window; None if there are none."""
    count = len(first)
    if not count:
        return None
    # Dense ranks keep equal times equal and make room to lift each key above the one before it, so that all keys are one line.
    ranks = np.unique(np.concatenate((first, last)), return_inverse=True)[1].astype(np.int64)
    lift = key * (2 * count + 1)
    low, high = ranks[:count] + lift, ranks[count:] + lift
    forward = np.flatnonzero(low < high)
    if not len(forward):
        return None
    forward = forward[np.argsort(low[forward], kind="stable")]
    f, s = low[forward], high[forward]
    over = np.flatnonzero(s[:-1] > f[1:])
    pairs_a, pairs_b = forward[over], forward[over + 1]
    backward = np.flatnonzero(low >= high)
    around = np.searchsorted(f, high[backward], side="left") - 1
    inside = (around >= 0) & (s[around] > low[backward])
    pairs_a = np.concatenate((pairs_a, forward[around[inside]]))
    pairs_b = np.concatenate((pairs_b, backward[inside]))
    if not len(pairs_a):
        return None
    span = np.maximum(last[pairs_a], last[pairs_b]) - np.minimum(first[pairs_a], first[pairs_b])
    best = int(np.argmin(span))
    return int(pairs_a[best]), int(pairs_b[best])


def verdict_of(ops: Sequence[Operation], found: Clusters) -> Verdict:
    """The verdict over clusters already built."""
    answer = Verdict(status="valid", algorithm="zones", ops=len(ops), keys=len(found.names), by_key=True)
    if found.thin:
        answer.evidence = _never_written(ops, found.thin[0])
    elif found.early:
        answer.evidence = _read_before_write(ops, found, *found.early[0])
    else:
        pair = conflict(np.array(found.first, np.int64), np.array(found.last, np.int64), np.array(found.key, np.int64))
        if pair is not None:
            answer.evidence = _contradiction(ops, found, *pair)
    if answer.evidence is not None:
        answer.status = "invalid"
    return answer


def linearizable_register(ops: Sequence[Operation], initial: Any = None) -> Verdict:
    """Is a whole history of reads and writes linearizable, by key, each key holding `initial` at first?

    Zones where the written values are distinct; where they are not, the search of capray.checkers.linearizable.
    """
    found = clusters(ops, initial)
    if found is not None:
        return verdict_of(ops, found)
    from capray.checkers.linearizable import linearizable
    from capray.checkers.models import MODELS

    return linearizable(ops, MODELS["register"], initial)


# ---- evidence -----------------------------------------------------------------------------------------------------------------------------


def _show(ops: Sequence[Operation], i: int) -> str:
    op = ops[i]
    what = f"read {op.result!r}" if op.f == "read" else f"write {op.value!r}"
    return f"{what} by process {op.process} [{op.invoke}, {'...' if op.complete is None else op.complete}]"


def _evidence(ops: Sequence[Operation], problem: str, shown: list[int], offending: list[int]) -> Evidence:
    offending = sorted(set(offending))
    ends = [op.complete for op in (ops[i] for i in offending) if op.complete is not None]
    return Evidence(
        problem=problem, key=ops[offending[0]].key, operations=sorted(set(shown)), offending=offending,
        start_us=min(ops[i].invoke for i in offending), end_us=max(ends) if ends else None,
    )


def _never_written(ops: Sequence[Operation], i: int) -> Evidence:
    return _evidence(ops, f"{_show(ops, i)}: nothing wrote that value", [i], [i])


def _read_before_write(ops: Sequence[Operation], found: Clusters, i: int, cluster: int) -> Evidence:
    write = found.write[cluster]
    return _evidence(ops, f"{_show(ops, i)} was completed before {_show(ops, write)} began", [i, write], [i, write])


def _members(found: Clusters, cluster: int) -> list[int]:
    own = [found.write[cluster]] if found.write[cluster] >= 0 else []
    return own + [i for i, c in found.reads if c == cluster]


def _contradiction(ops: Sequence[Operation], found: Clusters, a: int, b: int) -> Evidence:
    """Which operations force a before b, and which b before a."""
    parts, offending = [], []
    members = {a: _members(found, a), b: _members(found, b)}
    for before, after in ((a, b), (b, a)):
        late = max(members[after], key=lambda i: ops[i].invoke)
        ended = [i for i in members[before] if ops[i].complete is not None]
        offending.append(late)
        if found.write[before] < 0:
            parts.append(f"the initial value was there before {_show(ops, late)}")
            continue
        early = min(ended, key=lambda i: ops[i].complete or 0)
        offending.append(early)
        parts.append(f"{_show(ops, early)} was completed before {_show(ops, late)} began")
    shown = [i for i in members[a] + members[b] if i in offending or ops[i].f == "write"]
    return _evidence(ops, ", yet ".join(parts), shown, offending)
