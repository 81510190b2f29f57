"""Lamport 1978 / Mattern 1989 vector clocks as DeCandia et al., "Dynamo" (SOSP 2007), section 4.4 uses them; siblings as antichains of versions.

Decides: which of two versions descends from the other, and which of many stand side by side.  Pure functions of their arguments.
May not know: replicas, messages, what a value means.
A clock is a tuple of (node, counter, stamp) ascending by node: counter is what is compared, stamp (microseconds, of the node that last
advanced the entry) is looked at by `truncate` alone.  A version is (clock, value, timestamp); two versions of one clock are one version.
With clocks by coordinator two puts of the same context through one coordinator order themselves: the later subsumes the earlier (Preguica
et al., "Dotted version vectors", 2010, mend that; the paper of 2007 does not, nor does this).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from capray.policies.cassandra.cells import value_bytes

Clock = tuple[tuple[int, int, int], ...]
Version = tuple[Clock, Any, int]


def counter(clock: Clock, node: int) -> int:
    """A node's counter; 0 where the clock does not name it."""
    for entry in clock:
        if entry[0] == node:
            return entry[1]
    return 0


def descends(a: Clock, b: Clock) -> bool:
    """Whether `b` is `a` or an ancestor of it: "If the counters on the first object's clock are less-than-or-equal to all of the
    nodes in the second clock, then the first is an ancestor of the second and can be forgotten", with `b` the first."""
    place, count = 0, len(a)
    for node, number, _ in b:
        while place < count and a[place][0] < node:
            place += 1
        if place == count or a[place][0] != node or a[place][1] < number:
            return False
    return True


def merge(clocks: Iterable[Clock]) -> Clock:
    """The least clock that descends from all of these; of equal counters the later stamp."""
    best: dict[int, tuple[int, int, int]] = {}
    for clock in clocks:
        for entry in clock:
            known = best.get(entry[0])
            if known is None or entry > known:
                best[entry[0]] = entry
    return tuple(best[node] for node in sorted(best))


def advance(clock: Clock, node: int, number: int, stamp: int) -> Clock:
    """The clock with this node's entry set to `number`, which must be above what the entry held."""
    kept = [entry for entry in clock if entry[0] != node]
    kept.append((node, number, stamp))
    kept.sort()
    return tuple(kept)


def truncate(clock: Clock, threshold: int) -> Clock:
    """"When the number of (node, counter) pairs in the vector clock reaches a threshold (say 10), the oldest pair is removed from the clock":
    fewer than `threshold` entries stay, those of the latest stamps (of equal stamps the higher node's); `threshold` is 2 or more."""
    if len(clock) < threshold:
        return clock
    newest = sorted(clock, key=lambda entry: (entry[2], entry[0]))[len(clock) - threshold + 1 :]
    return tuple(sorted(newest))


def order(version: Version) -> tuple[int, ...]:
    """A total order of versions that agrees with descent (by the clocks as they are: of what truncation removed none descends): the sum of the
    counters, the timestamp, the last entry advanced."""
    last = max(version[0], key=lambda entry: (entry[2], entry[1], entry[0]), default=(0, 0, 0))
    return (sum(entry[1] for entry in version[0]), version[2], last[0], last[1])


def add(siblings: tuple[Version, ...], new: Version) -> tuple[tuple[Version, ...], tuple[Version, ...]]:
    """(siblings with `new` among them, those that it replaced); the same siblings and nothing where one of them descends from `new`."""
    clock = new[0]
    for version in siblings:
        if descends(version[0], clock):
            return siblings, ()
    replaced = tuple(version for version in siblings if descends(clock, version[0]))
    kept = [version for version in siblings if version not in replaced] if replaced else list(siblings)
    kept.append(new)
    kept.sort(key=_by_clock)
    return tuple(kept), replaced


def _by_clock(version: Version) -> Clock:
    return version[0]


def reconcile(versions: Iterable[Version]) -> tuple[Version, ...]:
    """Syntactic reconciliation: the versions from which no other descends, in the order of their clocks."""
    siblings: tuple[Version, ...] = ()
    for version in versions:
        siblings = add(siblings, version)[0]
    return siblings


def has(siblings: tuple[Version, ...], version: Version) -> bool:
    """Whether one of `siblings` is this version or descends from it."""
    return any(descends(held[0], version[0]) for held in siblings)


def last_write(siblings: tuple[Version, ...]) -> Version:
    """Section 6, "last write wins": "the object with the largest physical timestamp value is chosen as the correct version"; ties by the larger value,
    byte by byte.  There must be one."""
    return max(siblings, key=lambda version: (version[2], value_bytes(version[1]), version[0]))
