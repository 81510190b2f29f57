"""What became of acknowledged writes: lost, never visible, in conflict.

Decides: the V measures of METRICS.md on single writes.  May not know: phases, sides, how replicas came to hold what they hold.
Sources: METRICS.md; lost updates as Jepsen's; conflicts as the siblings of Dynamo (DeCandia et al., SOSP 2007): two writes of which
neither saw the other.

Lost: an ok write that is not in the order of writes which the surviving replicas (those not down at the end) keep.  In that order is what
such a replica holds, also `late`, and what any of it replaced as newest on some replica that has not discarded it, step by step.
Never visible: kept, but newest nowhere at any time (a write ordered before what was there: last-write-wins under a skewed clock).
Conflict: two ok writes of one key, each applied somewhere before it was acknowledged, where no replica that had applied the one by then had
the other before it, and the other way round; also two that some replica held as siblings, whatever saw them.  A replica has a write also by what
replaced it where that was first applied: a replica of a register that is told a successor alone has seen what that overwrote.  Counted where at least
one of the two was kept.  Where quorums of writes intersect and a replica keeps one newest version there are none.  Updates that commute (a counter's
increments, a set's adds) are merged, both kept and neither beside the other as a sibling: of them only a pair of which one was lost counts.
"""

from __future__ import annotations

from itertools import combinations_with_replacement

import numpy as np
import numpy.typing as npt

from capray.measures.availability import Row
from capray.measures.holdings import KeyHoldings
from capray.measures.phases import Calendar
from capray.record import Record

Times = npt.NDArray[np.int64]
BLOCK = 512  # pairs are compared in blocks of so many writes, so that memory stays small
LATER = 1 << 62


def acknowledged(record: Record, keys: dict[str, KeyHoldings] | None, calendar: Calendar) -> Row:
    """lost_writes, never_visible_writes, conflicts; null where versions are not known."""
    if keys is None or record.versions is None:
        return {"lost_writes": None, "never_visible_writes": None, "conflicts": None}
    surviving = frozenset(node for node in range(calendar.nodes) if not calendar.failed_at(node, record.end))
    at = np.array([version.at for version in record.versions], np.int64)
    lost = hidden = conflicts = 0
    for found in keys.values():
        kept = found.kept(surviving)
        ok = [write for write, acked in enumerate(found.acked) if acked is not None]
        lost += sum(write not in kept for write in ok)
        hidden += sum(write in kept and write not in found.visible for write in ok)
        conflicts += count_conflicts(found, kept, at)
    return {"lost_writes": lost, "never_visible_writes": hidden, "conflicts": conflicts}


class _Lines:
    """One key's accepted writes (ok, and applied by some replica before that) by the time of their first application: in which turn each
    replica had them, whether before their acknowledgement, when the first and the last had them.  A hint is no replica."""

    def __init__(self, found: KeyHoldings, kept: set[int], at: Times) -> None:
        count, columns = len(found.born), sorted({node for _, node in found.applied} | set(found.replicas))
        place = {node: column for column, node in enumerate(columns)}
        rows = [write for write, _ in found.applied]
        cells = [place[node] for _, node in found.applied]
        turn = np.full((count, len(columns)), LATER, np.int64)
        turn[rows, cells] = list(found.applied.values())
        when = np.full((count, len(columns)), LATER, np.int64)
        when[rows, cells] = at[turn[rows, cells]]
        seen = _with_what_they_replaced(found, turn)
        acked = np.array([-1 if one is None else one for one in found.acked], np.int64)
        first = when.min(axis=1, initial=LATER)
        writes = np.flatnonzero(first <= acked)
        writes = writes[np.argsort(first[writes], kind="stable")]
        self.place = {int(write): i for i, write in enumerate(writes)}
        self.turn = seen[writes]
        self.accepted = when[writes] <= acked[writes, None]
        self.first = first[writes]
        self.everywhere = np.append(at, LATER)[np.minimum(seen, len(at))][writes].max(axis=1, initial=0)
        self.kept = np.array([int(write) in kept for write in writes], bool)


def _with_what_they_replaced(found: KeyHoldings, turn: Times) -> Times:
    """In which turn each replica had each write or something that descends from it: what that replaced where it was first applied, step by step.
    Later writes go first, so that a step is whole before it is taken on."""
    seen = turn.copy()
    origin: dict[int, tuple[int, int]] = {}
    for (write, node), when in found.applied.items():
        origin[write] = min(origin.get(write, (LATER, node)), (when, node))
    for write in sorted(origin, key=origin.__getitem__, reverse=True):
        for older, node in found.superseded.get(write, ()):
            if node == origin[write][1]:
                np.minimum(seen[older], seen[write], out=seen[older])
    return seen


def count_conflicts(found: KeyHoldings, kept: set[int], at: Times) -> int:
    """Pairs of one key; `at` is when each version of the record was applied, by turn.  Pairs in different blocks are skipped where every replica
    had the earlier before any had the later."""
    lines = _Lines(found, kept, at)
    starts = range(0, len(lines.first), BLOCK)
    total = 0
    for a, b in combinations_with_replacement(starts, 2):
        one, other = slice(a, a + BLOCK), slice(b, b + BLOCK)
        if a == b or lines.everywhere[one].max() >= lines.first[b]:
            apart = ~(_saw(lines, one, other) | _saw(lines, other, one).T)
            apart &= _chosen(lines.kept[one][:, None], lines.kept[other][None, :], found.merges)
            total += int(np.count_nonzero(np.triu(apart, 1) if a == b else apart))
    return total + sum(_ordered_siblings(lines, found, kept, *pair) for pair in found.siblings)


def _chosen(one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_], merges: bool) -> npt.NDArray[np.bool_]:
    """Did the policy choose between the two: is one kept; where it merges, one alone?"""
    return one ^ other if merges else one | other


def _ordered_siblings(lines: _Lines, found: KeyHoldings, kept: set[int], a: int, b: int) -> bool:
    """Are these siblings a conflict that is not counted already: two ok writes, one kept, of which one saw the other?"""
    if found.acked[a] is None or found.acked[b] is None or not (a in kept or b in kept):
        return False
    if a not in lines.place or b not in lines.place:
        return True
    i, j = lines.place[a], lines.place[b]
    one, other = slice(i, i + 1), slice(j, j + 1)
    return bool(_saw(lines, one, other)[0, 0] or _saw(lines, other, one)[0, 0])


def _saw(lines: _Lines, one: slice, other: slice) -> npt.NDArray[np.bool_]:
    """saw[i, j]: some replica that had applied i before its acknowledgement had j before it."""
    turn, accepted = lines.turn, lines.accepted
    saw = np.zeros((turn[one].shape[0], turn[other].shape[0]), bool)
    for node in range(turn.shape[1]):
        mine = np.flatnonzero(accepted[one, node])
        if len(mine):
            saw[mine] |= turn[other, node][None, :] < turn[one, node][mine][:, None]
    return saw
