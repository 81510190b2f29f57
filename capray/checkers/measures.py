"""How far a register history is from linearizable: Gamma, Delta, stale reads with age and versions behind, writes that are provably lost.

Decides: these measures from operations alone.  May not know: replicas, versions, phases, sides.
A delete is an operation that overwrites, and that is lost where what it deleted is read again; a read that finds nothing does not say which delete it
is of, so it counts as of the last that it can be of: what is found is a lower bound there, and Gamma and Delta are None.
Sources: METRICS.md; Golab, Li and Shah, "Analyzing consistency properties for fun and profit", PODC 2011 (Delta); Golab et al., "Client-centric
benchmarking of eventual consistency", ICDCS 2014 (Gamma, its scores from zones).  All need distinct written values, else they are None.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np

from capray.checkers.zones import FOREVER, Clusters, Times, clusters, conflict
from capray.record import Operation

OVERWRITES = ("write", "delete")


def gamma_us(ops: Sequence[Operation], initial: Any = None) -> int | None:
    """The smallest g such that the history is linearizable with each operation's start g/2 earlier and end g/2 later, in microseconds.

    None where values are not distinct, or where some read returned what was never written (no g helps).
    """
    found = clusters(ops, initial)
    if found is None or found.thin:
        return None
    first, last, key = _times(found)
    # Moving every completion g later is the same, for every comparison, as g/2 on either side.
    early = max((found.begin[c] - _end(ops[i]) for i, c in found.early), default=0)
    return max(early, _least(lambda g: conflict(np.where(first >= FOREVER, first, first + g), last, key) is None, ops))


def delta_us(ops: Sequence[Operation], initial: Any = None) -> int | None:
    """The smallest d such that the history is linearizable with each read's start d earlier, in microseconds: every read is at most d stale.

    None where values are not distinct, or where a read returned what was never, or only later, written (no d helps).
    """
    found = clusters(ops, initial)
    if found is None or found.thin or found.early:
        return None
    first, last, key = _times(found)
    begin = np.array(found.begin, np.int64)
    return _least(lambda d: conflict(first, np.maximum(begin, last - d), key) is None, ops)


def _times(found: Clusters) -> tuple[Times, Times, Times]:
    return np.array(found.first, np.int64), np.array(found.last, np.int64), np.array(found.key, np.int64)


def _end(op: Operation) -> int:
    return FOREVER if op.complete is None else op.complete


def _least(holds: Callable[[int], bool], ops: Sequence[Operation]) -> int:
    """The least value at which a property that then stays true holds; the history's own length is always enough."""
    if holds(0):
        return 0
    low, high = 0, max(max(op.invoke, op.complete or 0) for op in ops) - min(op.invoke for op in ops) + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


# ---- stale reads --------------------------------------------------------------------------------------------------------------------------


class StaleRead(NamedTuple):
    """A read that returned an overwritten value: its position, its invocation minus the earliest completion of a write that overwrites what it
    returned, and the number of such writes completed before it began (a lower bound of k - 1 of k-atomicity)."""

    position: int
    age_us: int
    behind: int


class _Writes:
    """One key's ok writes in order of invocation."""

    def __init__(self, writes: list[tuple[int, int]]) -> None:
        writes.sort()
        self.invoke = [invoke for invoke, _ in writes]
        self.complete = np.array([complete for _, complete in writes], np.int64)
        tail = list(accumulate(reversed([complete for _, complete in writes]), min))
        self.earliest_after = [*reversed(tail), FOREVER]

    def staleness(self, completed: int, begins: int) -> tuple[int, int] | None:
        """(age, versions behind) of a read that begins then, of a write completed then; None if it is fresh."""
        later = bisect_right(self.invoke, completed)
        earliest = self.earliest_after[later]
        if earliest >= begins:
            return None
        until = bisect_right(self.invoke, begins)
        return begins - earliest, int(np.count_nonzero(self.complete[later:until] < begins))


def stale_reads(ops: Sequence[Operation], initial: Any = None) -> list[StaleRead] | None:
    """Every stale ok read of a whole history, in order of position (METRICS.md: an ok write overwrites w iff invoked after w had completed; the
    initial value is overwritten by every write).  A read of what was never written is not stale but wrong: it is not in the list.
    None where values are not distinct."""
    found = _completed(ops, initial)
    if found is None:
        return None
    written: dict[str | None, list[tuple[int, int]]] = {}
    for op in ops:
        if op.f in OVERWRITES and op.type == "ok":
            written.setdefault(op.key, []).append((op.invoke, _end(op)))
    by_key = {key: _Writes(writes) for key, writes in written.items()}
    stale = []
    for i, completed in found:
        op = ops[i]
        if op.key in by_key:
            result = by_key[op.key].staleness(completed, op.invoke)
            if result is not None:
                stale.append(StaleRead(i, *result))
    return stale


def _completed(ops: Sequence[Operation], initial: Any) -> list[tuple[int, int]] | None:
    """Each ok read of what was written (its position), and when that was completed: FOREVER for what is not known to have happened, -FOREVER for the
    initial value.  A read that finds nothing is of the initial value or of any delete that began before it was over: of the last to be completed."""
    deletes: dict[str | None, list[Operation]] = {}
    for op in ops:
        if op.f == "delete" and op.type != "fail":
            deletes.setdefault(op.key, []).append(op)
    found = clusters([op for op in ops if op.f != "delete"] if deletes else ops, initial)
    if found is None or (deletes and initial is not None):
        return None
    if not deletes:
        return [(i, -FOREVER if (source := found.write[c]) < 0 else _end(ops[source])) for i, c in found.reads]
    place = [i for i, op in enumerate(ops) if op.f != "delete"]
    out = []
    for i, c in found.reads:
        read, source = ops[place[i]], found.write[c]
        if source >= 0:
            out.append((place[i], _end(ops[place[source]])))
        else:
            begun = [_end(op) for op in deletes.get(read.key, ()) if op.invoke <= _end(read)]
            out.append((place[i], max(begun, default=-FOREVER)))
    return out


def lost_writes_provable(ops: Sequence[Operation], initial: Any = None) -> int | None:
    """How many ok writes and deletes the history alone proves lost: invoked after everything that their key's last reads returned had completed.

    The last reads of a key are its `final` ones; where the history marks none at all, those that began after every other operation on the key was
    over.  Where the last reads differ, a write counts only if it is later than all that they returned.  None where values are not distinct or there
    are no last reads; an `info` write that is still read proves nothing.
    """
    found = _completed(ops, initial)
    if found is None:
        return None
    last = _last_reads(ops)
    if not last:
        return None
    completed = dict(found)
    survived: dict[str | None, int] = {}
    for i in last:
        if i in completed:
            survived[ops[i].key] = max(completed[i], survived.get(ops[i].key, -FOREVER))
    begun = {key: min(ops[i].invoke for i in last if ops[i].key == key) for key in survived}
    return sum(
        op.f in OVERWRITES and op.type == "ok" and op.key in survived and survived[op.key] < op.invoke and _end(op) < begun[op.key] for op in ops
    )


def _last_reads(ops: Sequence[Operation]) -> list[int]:
    reads = [i for i, op in enumerate(ops) if op.f == "read" and op.type == "ok"]
    marked = [i for i in reads if ops[i].final]
    if marked:
        return marked
    over: dict[str | None, int] = {}
    for op in ops:
        if op.f in OVERWRITES and op.type != "fail":
            over[op.key] = max(over.get(op.key, -FOREVER), _end(op) if op.type == "ok" else op.invoke)
    return [i for i in reads if ops[i].invoke > over.get(ops[i].key, FOREVER)]
