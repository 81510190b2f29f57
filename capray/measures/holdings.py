"""What each replica held, and when: the versions of a record as intervals by key and node.

Decides: how a record's versions (apply, late, discard, merge, superseded) are read.  May not know: phases, how a measure is made of it.
Source: Version's contract in capray.record.

A replica holds a version from its `apply` (or `late`: part of its order, never visible) until it discards it.  A replica that was restarted
after a crash holds what it announces at the instant of its restart, if it announces anything then; else what it held before.  Where the crash took
records of its journal, or none was ever written, its machine announces (a version without a key) that it holds nothing but what is told from then on.
What it held and the store orders before something of that key which it announces is still part of its order: overwritten there, though nobody wrote down
by what.
A tombstone (value null) is known by its order, since nothing says whose delete it was: it takes part in what is newest, and is never lost or in
conflict itself.  Who purges one holds nothing of the key up to its order; what that had replaced is overwritten, not lost.
A key with a `merge` is of a type whose updates commute: a replica's state is all that it holds, no version of it is the newest.
"""

from __future__ import annotations

from collections.abc import Hashable

import msgspec

from capray.checkers.values import PLAIN, canonical
from capray.measures.phases import FOREVER
from capray.record import Operation, Record


class Tombstone(msgspec.Struct, frozen=True):
    """What stands for the null that a delete leaves, among the values of its key."""

    deleted: tuple[int, ...]


# One version on one replica: the write's number, when it got there, when it was discarded (plain tuples: there are tens of thousands).
Held = tuple[int, int, int]


class ReplicaHoldings:
    """One key on one replica: since when it holds each write, which of them are its newest, and what it has discarded."""

    __slots__ = ("before", "gone", "newest", "restarted", "since")

    def __init__(self) -> None:
        self.since: dict[int, int] = {}
        self.newest: set[int] = set()
        self.gone: list[Held] = []
        self.restarted = -1  # when
        self.before: dict[int, int] = {}  # what it held then


class KeyHoldings:
    """One key's versions.  Writes are numbered as they were first met; `rank` is the place of each in the store's order."""

    def __init__(self, replicas: tuple[int, ...]) -> None:
        self.replicas = replicas
        self.number: dict[Hashable, int] = {}
        self.born: list[int] = []  # when the write was invoked
        self.acked: list[int | None] = []  # when its ok came; None: no ok
        self.orders: list[tuple[int, ...]] = []
        self.rank: list[int] = []
        self.held: dict[int, list[Held]] = {}  # node -> all it ever held; once `close`d
        self.superseded: dict[int, set[tuple[int, int]]] = {}  # write -> (the older write, on which node)
        self.applied: dict[tuple[int, int], int] = {}  # (write, node) -> in which turn, among all versions, it was first there
        self.visible: set[int] = set()  # writes that were newest on some replica
        self.merges = False  # its updates commute
        self.removed: set[int] = set()  # updates that clients asked to take back, and some replica did
        self.siblings: set[tuple[int, int]] = set()  # pairs that were newest on one replica at once, the lower number first
        self.deletes: set[int] = set()  # those of the writes that are tombstones
        self.purged: dict[int, set[int]] = {}  # node -> the writes that it forgot with a tombstone
        self._above: dict[tuple[int, int], list[int]] | None = None  # `superseded` from its other end, once something was discarded
        self._nodes: dict[int, ReplicaHoldings] = {}
        self._kept: dict[frozenset[int], set[int]] = {}

    def write(self, value: Hashable, invoked: int, acked: int | None = None) -> int:
        """The number of a value's write, a new one where it was not met before."""
        number = self.number.get(value)
        if number is None:
            number = self.number[value] = len(self.born)
            self.born.append(invoked)
            self.acked.append(acked)
            self.orders.append(())
        return number

    def restart(self, node: int, at: int) -> None:
        """The replica begins anew: what it holds it will announce."""
        replica = self._nodes.get(node)
        if replica is not None:
            replica.gone += [(write, since, at) for write, since in replica.since.items()]
            replica.restarted, replica.before = at, replica.since
            replica.since = {}
            replica.newest.clear()

    def forget_newest(self, node: int) -> None:
        """The replica was restarted and did not say what it holds: which of it was newest is not known any more."""
        if node in self._nodes:
            self._nodes[node].newest.clear()

    def hold(self, node: int, at: int, turn: int, write: int, order: tuple[int, ...], older: list[int] | None) -> None:
        """The replica has applied a write as (one of) its newest, in place of `older`; None: it came late."""
        replica = self._nodes.get(node)
        if replica is None:
            replica = self._nodes[node] = ReplicaHoldings()
        self.orders[write] = max(self.orders[write], order)
        replica.since.setdefault(write, at)
        self.applied.setdefault((write, node), turn)
        if older is None:
            return
        if at == replica.restarted:
            for one in [one for one in replica.before if self.orders[one] < order]:
                replica.since.setdefault(one, at)
                del replica.before[one]
        self.visible.add(write)
        newest = replica.newest
        if older:
            newest.difference_update(older)
            edges = self.superseded.get(write)
            if edges is None:
                edges = self.superseded[write] = set()
            for one in older:
                edges.add((one, node))
                if self._above is not None:
                    self._above.setdefault((one, node), []).append(write)
        if newest and write not in newest:
            self.siblings.update((min(write, other), max(write, other)) for other in newest)
        newest.add(write)

    def include(self, node: int, at: int, turn: int, write: int, order: tuple[int, ...]) -> None:
        """The replica has taken an update in, beside all that it holds."""
        self.merges = True
        self.visible.add(write)
        self.hold(node, at, turn, write, order, None)

    def remove(self, node: int, at: int, write: int) -> None:
        """The replica has taken an element away, as a client asked it or a peer: that is no loss."""
        self.merges = True
        self.removed.add(write)
        self.discard(node, at, write)

    def discard(self, node: int, at: int, write: int) -> None:
        """The replica has dropped a write with a branch of its history, and with it what it had replaced."""
        replica = self._nodes.get(node)
        if replica is not None and write in replica.since:
            replica.gone.append((write, replica.since.pop(write), at))
            replica.newest.discard(write)
        if self._above is None:
            self._above = {}
            for newer, edges in self.superseded.items():
                for edge in edges:
                    self._above.setdefault(edge, []).append(newer)
        for newer in self._above.pop((write, node), ()):
            self.superseded[newer].discard((write, node))

    def purge(self, node: int, at: int, order: tuple[int, ...]) -> None:
        """The replica has forgotten a tombstone of that order, and with it all of the key up to there."""
        replica = self._nodes.get(node)
        if replica is not None:
            gone = {write for write in replica.since if self.orders[write] <= order}
            replica.gone += [(write, replica.since.pop(write), at) for write in sorted(gone)]
            replica.newest -= gone
            self.purged.setdefault(node, set()).update(gone)

    def tombstones(self, node: int) -> list[int]:
        """Those that are newest on a replica."""
        replica = self._nodes.get(node)
        return [] if replica is None else sorted(write for write in replica.newest if write in self.deletes)

    def close(self) -> None:
        """No more versions: rank the orders, end the intervals."""
        place = {order: i for i, order in enumerate(sorted(set(self.orders)))}
        self.rank = [place[order] for order in self.orders]
        for node, replica in self._nodes.items():
            self.held[node] = replica.gone + [(write, since, FOREVER) for write, since in replica.since.items()]

    def kept(self, surviving: frozenset[int]) -> set[int]:
        """The writes in the order that the surviving replicas keep: what they hold at the end, and whatever that replaced, step by step; and what was
        removed on request."""
        found = self._kept.get(surviving)
        if found is None:
            held = {write for node in surviving if node in self._nodes for write in self._nodes[node].since}
            found = self._kept[surviving] = held.union(self.removed, *(self.purged.get(node, ()) for node in surviving))
            queue = [write for write in self.superseded if write in found]
            while queue:
                for older, _ in self.superseded.get(queue.pop(), ()):
                    if older not in found:
                        found.add(older)
                        queue.append(older)
        return found


def holdings(record: Record) -> dict[str, KeyHoldings] | None:
    """Every key's holdings; null where versions are not known, as of a policy that tells of none though it acknowledges writes.  Keys with a placement come
    first, in its order."""
    if record.versions is None or not record.versions and any(op.f == "write" and op.type == "ok" for op in record.history):
        return None
    everywhere = tuple(range(record.nodes))
    keys = {key: KeyHoldings(nodes) for key, nodes in record.placement.items()}
    _client_writes(record.history, keys, everywhere)
    restarts = restarts_of(record)
    for turn, version in enumerate(record.versions):
        at, node, value = version.at, version.node, version.value
        if node in restarts and at >= restarts[node][-1]:
            _restarted(keys, node, at == restarts[node].pop(), at)
            if not restarts[node]:
                del restarts[node]
        if value is None and version.kind == "merge":
            for one in version.superseded if version.key in keys else ():
                keys[version.key].remove(node, at, keys[version.key].write(canonical(one), at))
            continue
        if not version.key:
            continue  # without a key a replica only says that it is back, and holds nothing
        found = keys.get(version.key)
        if found is None:
            found = keys[version.key] = KeyHoldings(everywhere)
        if version.kind == "purge":
            found.purge(node, at, version.order)
            continue
        if value is None:
            value = Tombstone(version.order)
        elif value.__class__ not in PLAIN:
            value = canonical(value)
        write = found.number.get(value)
        if write is None:
            write = found.write(value, at)
            if version.value is None:
                found.deletes.add(write)
        if version.kind == "discard":
            found.discard(node, at, write)
        elif version.kind == "late":
            found.hold(node, at, turn, write, version.order, None)
        elif version.kind == "merge":
            found.include(node, at, turn, write, version.order)
        else:
            older = [found.write(canonical(one), at) for one in version.superseded if one is not None]
            found.hold(node, at, turn, write, version.order, older if len(older) == len(version.superseded) else older + found.tombstones(node))
    for found in keys.values():
        found.close()
    return keys


def restarts_of(record: Record) -> dict[int, list[int]]:
    """For each node when it came back from crashes, the latest first."""
    ends: dict[int, list[int]] = {}
    for fault in record.faults:
        if fault.kind in ("crash-process", "crash-host") and fault.until is not None:
            for node in fault.nodes:
                ends.setdefault(node, []).append(fault.until)
    return {node: sorted(times, reverse=True) for node, times in ends.items()}


def _restarted(keys: dict[str, KeyHoldings], node: int, announces: bool, at: int) -> None:
    """A replica's first version since its restart."""
    for found in keys.values():
        if announces:
            found.restart(node, at)
        else:
            found.forget_newest(node)


def _client_writes(history: list[Operation], keys: dict[str, KeyHoldings], everywhere: tuple[int, ...]) -> None:
    for op in history:
        if op.f == "write" and op.key is not None and op.type != "fail":
            if op.key not in keys:
                keys[op.key] = KeyHoldings(everywhere)
            keys[op.key].write(canonical(op.value), op.invoke, op.complete if op.type == "ok" else None)
