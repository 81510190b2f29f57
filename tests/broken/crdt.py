"""The `crdt` policy, broken on purpose: Shapiro et al. (SSS 2011; INRIA RR-7506); Almeida, Shoker and Baquero (JPDC 2018)."""

from __future__ import annotations

from typing import Any

from capray.policies.crdt.replica import Acknowledge, Crdt
from capray.policies.crdt.types import OR_EMPTY, Counter, LwwRegister, OrSet, context_join, mv_join, or_join, or_remove, pn_join


class AcknowledgesUnread(Crdt):
    """Whoever is told something counts as having it.  Violates algorithm 2 (JPDC 2018: A(j) grows when an ack is received): what a cut dropped is never
    sent again."""

    def _tell(self, peer: int) -> None:
        super()._tell(peer)
        self._on_acknowledge(peer, Acknowledge(self.boot, self.sequence))


class ForgetsItsDisk(Crdt):
    """Writes are answered and not stored.  Violates algorithm 2's durable state (X_i and c_i; JPDC 2018, 6): a crash before the next gossip loses them, and
    numbers are given twice."""

    def _log(self, record: tuple[Any, ...]) -> None:
        if record[0] == "boot":
            super()._log(record)


class KeepsItsOwn(Crdt):
    """The "join" of concurrent values is the one already here.  Violates commutativity (SSS 2011, 2.3: merging computes the least upper bound): each
    side of a cut stays with its own."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.lattice = self.lattice._replace(join=lambda old, new: old if old and len(mv_join(old, new)) > 1 else mv_join(old, new))


class TrustsItsClock(Crdt):
    """A stamp is the clock's, not above what was seen.  Violates specification 8 (RR-7506: timestamps are consistent with causal order): a write at a slow
    node is answered, and lost at once."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.lattice = self.lattice._replace(write=lambda state, node, stamp, value: (stamp, node, value))

    def _mutate(self, f: str, key: str, value: Any) -> Any:
        return (self.now, self.node, value), ()


def add_up(a: Counter, b: Counter) -> Counter:
    """Entry by entry the sum."""
    totals = dict(a)
    for node, total in b:
        totals[node] = totals.get(node, 0) + total
    return tuple(sorted(totals.items()))


class AddsUp(Crdt):
    """Counters are merged by addition.  Violates idempotence (RR-7506, specification 6: merge takes the maximum of each entry): what is heard twice counts
    twice."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.lattice = self.lattice._replace(join=add_up)


def first_of_equals(a: LwwRegister, b: LwwRegister) -> LwwRegister:
    """The later stamp; of equal stamps the one that is here."""
    return b if b[0] > a[0] else a


class TiesStay(Crdt):
    """Equal timestamps are not told apart (here: coarse ones, of a second).  Violates RR-7506, specification 8 (timestamps are unique and totally ordered):
    of two writes in one second each replica keeps the one that it heard first."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.lattice = self.lattice._replace(join=first_of_equals)

    def _mutate(self, f: str, key: str, value: Any) -> Any:
        coarse = -(-self.now // 1_000_000) * 1_000_000
        seen = self.states.get(key, (-1, -1, None))[0]
        return (max(coarse, seen + 1 if seen >= coarse else 0), self.node, value), ()


class RemovesUntagged(Crdt):
    """A remove takes the element out of the state here and names no adds.  Violates RR-7506, specification 15 (a remove's effect is the tags that it
    observed): nobody else hears of it, and whoever sends a state brings the element back."""

    def _mutate(self, f: str, key: str, value: Any) -> Any:
        if f != "remove":
            return super()._mutate(f, key, value)
        entries, context = self.states.get(key, OR_EMPTY)
        self.states[key] = tuple(entry for entry in entries if entry[3] != value), context
        return OR_EMPTY, ()


class RemovesWithoutContext(Crdt):
    """What was removed is not remembered as seen: a join is the union of both sides' elements.  Violates the join (JPDC 2018, 7.4: an entry that the other side
    has seen and dropped stands no more): the next state or delta with an add brings a removed element back."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.lattice = self.lattice._replace(join=join_of_entries)


def join_of_entries(a: OrSet, b: OrSet) -> OrSet:
    """A remove is heeded when it comes; an add is always taken."""
    dropped = {(entry[0], entry[1]) for entry in a[0]} - {(entry[0], entry[1]) for entry in or_join(a, b)[0]}
    entries = {(entry[0], entry[1]): entry for entry in (*a[0], *b[0]) if (entry[0], entry[1]) not in dropped}
    return tuple(entries[dot] for dot in sorted(entries)), context_join(a[1], b[1])


class RemovesUnseen(Crdt):
    """A remove counts as seen all that its key's nodes may have added by now, heard of or not.  Violates add-wins (RR-7506, specification 15: an add that is
    concurrent with a remove is not affected): what the other side of a cut adds meanwhile is swallowed."""

    def _mutate(self, f: str, key: str, value: Any) -> Any:
        if f != "remove":
            return super()._mutate(f, key, value)
        state = self.states.get(key, OR_EMPTY)
        ahead = tuple((node, upto + 1) for node, upto in state[1][0] if node != self.node)
        return ((), context_join(or_remove(state, value)[1], ((), ahead))), ()


class AcknowledgesTheNewest(Crdt):
    """An acknowledgement counts for all deltas there are, not for those that it names.  Violates algorithm 2 (JPDC 2018: ack(n), A(j) = max(A(j), n)): what was
    written while it was under way is never sent."""

    def _on_acknowledge(self, src: int, message: Acknowledge) -> None:
        super()._on_acknowledge(src, Acknowledge(message.boot, self.sequence))


class LivesConfused(Crdt):
    """An acknowledgement of an earlier life counts in this one.  Violates what algorithm 2 rests on (JPDC 2018: sequence numbers grow over crashes, c_i is
    durable): numbers are given again, and the new deltas count as known."""

    def _on_acknowledge(self, src: int, message: Acknowledge) -> None:
        super()._on_acknowledge(src, Acknowledge(self.boot, message.upto))


class ContextForgotten(Crdt):
    """A restarted replica knows the elements of a set, and not which adds it has seen removed.  Violates the causal context (JPDC 2018, 7.4: dots are
    never given twice): a new add has an old one's dot, and counts as removed."""

    def on_restart(self, journal: list[Any]) -> None:
        super().on_restart(journal)
        for key, (entries, context) in self.states.items():
            none = tuple((node, 0) for node, _ in context[0])
            self.states[key] = (entries, (none, tuple((entry[0], entry[1]) for entry in entries)))


class AcknowledgesBeforeItsDisk(Crdt):
    """Deltas are acknowledged, and told, before they are on the disk.  Violates algorithm 2's durable state (JPDC 2018, X_i): what a host forgot when it lost
    power nobody sends it again."""

    def _behind_the_disk(self) -> None:
        """Nothing is waited for."""


class TellsOneKey(Crdt):
    """By state only the first object is told.  Violates SSS 2011, 2.2, eventual delivery (an update delivered at some correct replica is eventually delivered
    to all)."""

    def _everything(self) -> dict[str, Any]:
        return dict(list(super()._everything().items())[:1])


class SubtractsOnce(Crdt):
    """The counter of what was taken away is not merged where there is one.  Violates RR-7506, specification 7 (merge takes the maximum of each entry of P and
    of N)."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.lattice = self.lattice._replace(join=lambda a, b: (pn_join(a, b)[0], a[1] or b[1]))


class OneSiblingStays(Crdt):
    """Of concurrent values the one with the latest stamp stays.  Violates RR-7506, specification 10 (merge keeps every value that no other dominates): and
    what stays depends on who heard what first."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.lattice = self.lattice._replace(join=lambda a, b: (max(mv_join(a, b), key=lambda version: version[2]),))
