"""Shapiro, Preguica, Baquero and Zawirski, "Conflict-free replicated data types" (SSS 2011); Almeida, Shoker and Baquero, "Delta state replicated data
types" (JPDC 2018; arXiv:1603.01529), algorithm 2: the `crdt` policy.

Decides: what is written to disk, sent and acknowledged; types.py beside this file has the types.  May not know: who is reachable: there is
no failure detector, no quorum, no leader; every node holds every key, answers at once from what it holds, and tells a random peer now and then.
What a register's `read` and `write` mean, by `type`: `lww-register` and `mv-register` are driven directly (a read of the latter that finds
concurrent values answers their list).  A counter's write adds the value (below 0 in a pn-counter: takes it away), its read answers the total; a
set's write adds the element, its read answers all elements in a list; `remove` removes one.  So for counters and sets the checkers of registers
mean nothing: look at availability, lost_writes, divergence and convergence.  A counter's write of no whole number, or of one that a
grow-only counter cannot add, is answered `fail`.
For the record only (versions): beside a counter's state travels a trace, its single increments, which no rule of the protocol reads and whose
bytes are not counted; a version of a counter or a set is a `merge`.
Durable: the state; the buffer of deltas and what peers acknowledged are not (as in algorithm 2).  A node acknowledges, and tells others, only
what it has synced, so that it never gives a number twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple

from msgspec import Meta

from capray.policies import vector_clock
from capray.policies.cassandra.cells import value_bytes
from capray.policies.crdt import types
from capray.replica import ACK, CONTROL, WRITE, Message, Replica, Request, Settings
from capray.streams import Stream

Trace = tuple[tuple[int, int, tuple[tuple[int, int], ...]], ...]  # node, the place of its first, (stamp, value) of its increments


class Update(Message, frozen=True, array_like=True, tag=True, gc=False):
    """States (or deltas) of some keys.  `upto`: the sender's deltas before this number are in it; 0: no acknowledgement is wanted."""

    kind = WRITE
    boot: int
    upto: int
    nominal: int  # bytes on the wire, without the traces

    @property
    def size(self) -> int:  # type: ignore[override]
        return self.nominal


class CounterUpdate(Update, frozen=True, array_like=True, tag=True, gc=False):
    """Of grow-only counters."""

    items: tuple[tuple[str, types.Counter, Trace], ...]


class PnUpdate(Update, frozen=True, array_like=True, tag=True, gc=False):
    """Of counters that also decrease."""

    items: tuple[tuple[str, types.PnCounter, Trace], ...]


class LwwUpdate(Update, frozen=True, array_like=True, tag=True, gc=False):
    """Of last-write-wins registers."""

    items: tuple[tuple[str, types.LwwRegister, Trace], ...]


class MvUpdate(Update, frozen=True, array_like=True, tag=True, gc=False):
    """Of multi-value registers."""

    items: tuple[tuple[str, types.MvRegister, Trace], ...]


class OrUpdate(Update, frozen=True, array_like=True, tag=True, gc=False):
    """Of observed-remove sets."""

    items: tuple[tuple[str, types.OrSet, Trace], ...]


class Acknowledge(Message, frozen=True, array_like=True, tag=True, gc=False):
    """All deltas before `upto` of the sender's life `boot` are in this replica's durable state."""

    kind = ACK
    size = 40
    boot: int
    upto: int


class Durable(Message, frozen=True, array_like=True, tag=True, gc=False):
    """To oneself, behind a sync: so many journal records are on the disk."""

    kind = CONTROL
    size = 0
    logged: int


class Lattice(NamedTuple):
    """One type as the replica uses it: write(state, node, stamp, value) gives a delta."""

    update: type[Update]
    empty: Any
    join: Callable[[Any, Any], Any]
    write: Callable[[Any, int, int, Any], Any]
    read: Callable[[Any], Any]
    entries: Callable[[Any], int]  # of which the nominal size counts 24 bytes each
    traced: bool
    least: int | None  # the least amount that a counter takes; None: any


def _one_or_all(state: types.MvRegister) -> Any:
    values = types.mv_values(state)
    return values if len(values) > 1 else values[0]


LATTICES = {
    "g-counter": Lattice(CounterUpdate, (), types.counter_join, lambda s, node, _, v: types.counter_increment(s, node, v), types.counter_value, len, True, 0),
    "pn-counter": Lattice(PnUpdate, types.PN_ZERO, types.pn_join, lambda s, node, _, v: types.pn_add(s, node, v), types.pn_value,
                          lambda s: len(s[0]) + len(s[1]), True, None),
    "lww-register": Lattice(LwwUpdate, types.LWW_EMPTY, types.lww_join, types.lww_assign, lambda s: s[2], lambda _: 1, False, None),
    "mv-register": Lattice(MvUpdate, (), types.mv_join, types.mv_assign, _one_or_all, lambda s: sum(1 + len(v[0]) for v in s), False, None),
    "or-set": Lattice(OrUpdate, types.OR_EMPTY, types.or_join, types.or_add, types.or_elements, lambda s: len(s[0]) + len(s[1][0]) + len(s[1][1]), False, None),
}


class CrdtSettings(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The type, and how it spreads."""

    type: Annotated[Literal["lww-register", "mv-register", "g-counter", "pn-counter", "or-set"],
                    Meta(description="what every key is; the register that INRIA RR-7506 gives first (3.2.1): lww-register")] = "lww-register"
    replication: Annotated[Literal["delta", "state"], Meta(description="what is sent: what a peer has not acknowledged (JPDC 2018, algorithm 2), or "
                                                           "each time the whole state (SSS 2011)")] = "delta"
    gossip_interval_us: Annotated[int, Meta(ge=1000, description="between two rounds of gossip; us; the papers name none; Akka Distributed Data 2.6: deltas "
                                            "go five times in its gossip-interval of 2 s")] = 400_000
    fanout: Annotated[int, Meta(ge=1, description="random peers told each round; algorithm 2: 1; 2 as Akka Distributed Data 2.6 in up to 9 nodes "
                                "(DeltaPropagationSelector.nodesSliceSize)")] = 2
    delta_buffer: Annotated[int, Meta(ge=1, description="deltas kept for peers that have not acknowledged them; beyond, such a peer gets the whole "
                                      "state, as algorithm 2 provides; capray's own choice: 1000")] = 1000


class Crdt(Replica):
    """One replica of every object."""

    name = "crdt"
    claims = "AP: every node that is up always answers; strong eventual consistency: equal deliveries, equal states (SSS 2011)"
    transport = "datagram"
    Settings = CrdtSettings
    MESSAGES = (CounterUpdate, PnUpdate, LwwUpdate, MvUpdate, OrUpdate, Acknowledge, Durable)

    def __init__(self, node: int, nodes: int, settings: CrdtSettings, stream: Stream) -> None:
        super().__init__(node, nodes, settings, stream)
        self.lattice = LATTICES[settings.type]
        self.peers = [peer for peer in range(nodes) if peer != node]
        self.states: dict[str, Any] = {}
        self.traces: dict[str, dict[int, list[tuple[int, int]]]] = {}
        self.stamps: dict[str, int] = {}
        self.boot = 0
        self.deltas: deque[tuple[str, Any, Trace]] = deque()
        self.sequence = 1  # number of the next delta; the buffer holds those just before it
        self.acked = [0] * nodes
        self.logged = 0
        self.durable = 0

    @classmethod
    def needs(cls, nodes: int, settings: Any) -> tuple[int | str, int | str] | None:
        return 1, 1

    @classmethod
    def deletes(cls, settings: Any) -> str:
        return {"or-set": "remove", "pn-counter": "subtract"}.get(settings.type, "")

    def peek(self, key: str) -> Any:
        state = self.states.get(key)
        return None if state is None else self.lattice.read(state)

    # ---- life ---------------------------------------------------------------------------------------------------------------------
    def on_start(self) -> None:
        self._begin(1)

    def on_restart(self, journal: list[Any]) -> None:
        """The state is the join of all deltas that the disk kept."""
        boot = 0
        for record in journal:
            if record[0] == "delta":
                self._take(record[1], record[2], record[3], tell=False)
            elif record[0] == "boot":
                boot = record[1]
        for key in sorted(self.states):
            self._tell_all(key)
        self._begin(boot + 1)

    def _begin(self, boot: int) -> None:
        self.boot = boot
        if self.states:  # what an earlier life wrote is news to nobody in particular: whoever has not acknowledged this life gets it all
            self.sequence += 1
        self._log(("boot", boot))
        self.set_timer("gossip", 1 + self.stream.below(self.settings.gossip_interval_us))

    def _log(self, record: tuple[Any, ...]) -> None:
        """To the disk; the effects after this wait for it."""
        self.logged += 1
        self.persist(record, sync=True)
        self.send(self.node, Durable(self.logged))

    def _behind_the_disk(self) -> None:
        """What is sent from here on must not overtake what is still being synced."""
        if self.durable < self.logged:
            self._log(("sync",))

    # ---- clients ------------------------------------------------------------------------------------------------------------------
    def on_request(self, request: Request) -> None:
        """Answered from the own state; a write once it is on the own disk."""
        if request.f == "read":
            self.reply(request.id, "ok", self.peek(request.key))
            return
        problem = self._refusal(request)
        if problem:
            self.reply(request.id, "fail", None, problem)
            return
        delta, trace = self._mutate(request.f, request.key, request.value)
        self._take(request.key, delta, trace)
        self._remember(request.key, delta, trace)
        self._log(("delta", request.key, delta, trace))
        self.reply(request.id, "ok")

    def _refusal(self, request: Request) -> str:
        lattice, value = self.lattice, request.value
        if request.f == "remove":
            return "" if self.settings.type == "or-set" else "only an or-set can remove"
        if lattice.traced and (type(value) is not int or lattice.least is not None and value < lattice.least):
            return f"a {self.settings.type} adds whole numbers" + (" from 0" if lattice.least == 0 else "")
        return ""

    def _mutate(self, f: str, key: str, value: Any) -> tuple[Any, Trace]:
        """The delta of what the client asks, made from the state here, and its trace."""
        state = self.states.get(key, self.lattice.empty)
        if f == "remove":
            return types.or_remove(state, value), ()
        stamp = max(self.now, self.stamps.get(key, 0) + 1)
        delta = self.lattice.write(state, self.node, stamp, value)
        if not self.lattice.traced:
            return delta, ()
        count = len(self.traces.get(key, {}).get(self.node, ()))
        return delta, ((self.node, count, ((stamp, value),)),)

    # ---- the state ----------------------------------------------------------------------------------------------------------------
    def _take(self, key: str, delta: Any, trace: Trace, tell: bool = True) -> bool:
        """Join a delta (or a state) into the key's state.  Returns whether it told anything new."""
        old = self.states.get(key, self.lattice.empty)
        new = self.lattice.join(old, delta)
        if new == old and (key in self.states or delta == old):
            return False
        self.states[key] = new
        added = self._extend(key, trace) if trace else []
        if not tell:
            return True
        if self.lattice.traced:
            self._tell_merged(key, added)
        elif self.settings.type == "or-set":
            self._tell_set(key, old, new)
        else:
            self._tell_register(key, old, new)
        return True

    def _news(self, key: str, trace: Trace) -> Trace:
        """What of the trace is not known here.  Only that is passed on, so that in a buffer each node's increments follow one another."""
        known = self.traces.get(key, {})
        beyond = [(node, max(first, len(known.get(node, ()))), items[max(0, len(known.get(node, ())) - first) :]) for node, first, items in trace]
        return tuple(part for part in beyond if part[2])

    def _extend(self, key: str, trace: Trace) -> list[tuple[int, int, Any]]:
        """The increments that the trace tells for the first time; one that lacks what came before is passed over."""
        added = []
        known = self.traces.setdefault(key, {})
        for node, first, items in trace:
            line = known.setdefault(node, [])
            if first <= len(line):
                fresh = items[len(line) - first :]
                line.extend(fresh)
                added += [(stamp, node, value) for stamp, value in fresh]
        return added

    def _tell_merged(self, key: str, added: list[tuple[int, int, Any]]) -> None:
        added.sort(key=_by_stamp)
        for stamp, node, value in added:
            self.merged(key, value, (stamp, node))
            self.stamps[key] = max(stamp, self.stamps.get(key, 0))

    def _tell_set(self, key: str, old: types.OrSet, new: types.OrSet) -> None:
        dots = {(entry[0], entry[1]) for entry in old[0]}
        self._tell_merged(key, [(e[2], e[0], e[3]) for e in new[0] if (e[0], e[1]) not in dots])
        gone = dots.difference((entry[0], entry[1]) for entry in new[0])
        if gone:
            left = {value_bytes(entry[3]) for entry in new[0]}
            removed = tuple(entry[3] for entry in old[0] if (entry[0], entry[1]) in gone and value_bytes(entry[3]) not in left)
            if removed:
                self.merged(key, None, (self.stamps.get(key, 0), self.node), removed)

    def _tell_register(self, key: str, old: Any, new: Any) -> None:
        if self.settings.type == "lww-register":
            self.applied(key, new[2], (new[0], new[1]), () if old[0] < 0 else (old[2],))
            return
        gone = [version for version in old if version not in new]
        for version in new:
            if version not in old:
                replaced = tuple(v[1] for v in gone if vector_clock.descends(version[0], v[0]))
                self.applied(key, version[1], vector_clock.order(version), replaced)

    def _tell_all(self, key: str) -> None:
        """After a restart: what is still here."""
        state = self.states[key]
        if self.lattice.traced:
            lines = self.traces.get(key, {})
            self._tell_merged(key, [(stamp, node, value) for node in sorted(lines) for stamp, value in lines[node]])
        elif self.settings.type == "or-set":
            self._tell_merged(key, [(e[2], e[0], e[3]) for e in state[0]])
        else:
            self._tell_register(key, self.lattice.empty, state)

    # ---- anti-entropy -------------------------------------------------------------------------------------------------------------
    def _remember(self, key: str, delta: Any, trace: Trace) -> None:
        """One more delta for the peers."""
        if self.settings.replication == "delta" and self.peers:
            self.deltas.append((key, delta, trace))
            self.sequence += 1
            if len(self.deltas) > self.settings.delta_buffer:
                self.deltas.popleft()

    def on_timer(self, name: Any) -> None:
        """A round of gossip."""
        self.set_timer("gossip", self.settings.gossip_interval_us)
        others = list(self.peers)
        chosen = [others.pop(self.stream.below(len(others))) for _ in range(min(self.settings.fanout, len(others)))]
        for peer in chosen:
            self._tell(peer)

    def _tell(self, peer: int) -> None:
        """By delta: what the peer has not acknowledged, if that is still in the buffer; else, and by state: everything."""
        if self.settings.replication == "state":
            if self.states:
                self._send_items(peer, self._everything(), 0)
            return
        since = max(1, self.acked[peer])
        if since < self.sequence:
            first = self.sequence - len(self.deltas)
            items = self._interval(since - first) if since >= first else self._everything()
            self._send_items(peer, items, self.sequence)

    def _send_items(self, peer: int, items: dict[str, tuple[Any, Trace]], upto: int) -> None:
        entries = self.lattice.entries
        nominal = 60 + sum(40 + 24 * entries(state) for state, _ in items.values())
        self._behind_the_disk()
        self.send(peer, self.lattice.update(self.boot, upto, nominal, tuple((key, *item) for key, item in items.items())))  # type: ignore[call-arg]

    def _everything(self) -> dict[str, tuple[Any, Trace]]:
        out: dict[str, tuple[Any, Trace]] = {}
        for key, state in self.states.items():
            lines = self.traces.get(key, {})
            out[key] = (state, tuple((node, 0, tuple(line)) for node, line in lines.items()))
        return out

    def _interval(self, skip: int) -> dict[str, tuple[Any, Trace]]:
        """The join of the buffered deltas, by key, without the first `skip`: a delta-interval."""
        out: dict[str, tuple[Any, Trace]] = {}
        for index in range(skip, len(self.deltas)):
            key, delta, trace = self.deltas[index]
            before = out.get(key)
            out[key] = (delta, trace) if before is None else (self.lattice.join(before[0], delta), _joined(before[1], trace))
        return out

    def on_message(self, src: int, message: Any) -> None:
        if type(message) is Acknowledge:
            self._on_acknowledge(src, message)
        elif type(message) is Durable:
            self.durable = message.logged
        else:
            self._on_update(src, message)

    def _on_update(self, src: int, message: Any) -> None:
        """Join; what was news is stored, passed on in turn, and acknowledged."""
        taken = []
        for key, state, trace in message.items:
            news = self._news(key, trace) if trace else ()
            if self._take(key, state, news):
                self._remember(key, state, news)
                taken.append(("delta", key, state, news))
        for record in taken[:-1]:  # all before one sync: what waits for a sync can be overtaken by the next message's, and the trace must follow on
            self.persist(record, sync=False)
        if taken:  # once all are taken: what is told after a sync waits for it, and the record would learn late what reads see at once
            self._log(taken[-1])
        if message.upto:
            self._behind_the_disk()
            self.send(src, Acknowledge(message.boot, message.upto))

    def _on_acknowledge(self, src: int, message: Acknowledge) -> None:
        """Algorithm 2: A(j) becomes max(A(j), n), which "handles possible old duplicates and messages arriving out of order"; and it "periodically removes the
        deltas that have been acked by all neighbors"."""
        if message.boot == self.boot and message.upto > self.acked[src]:
            self.acked[src] = message.upto
            least = min(self.acked[peer] for peer in self.peers)
            while self.deltas and self.sequence - len(self.deltas) < least:
                self.deltas.popleft()


def _joined(one: Trace, other: Trace) -> Trace:
    """Both traces as one, each increment once; what does not follow on is left out."""
    lines = {node: (first, items) for node, first, items in one}
    for node, first, items in other:
        start, known = lines.get(node, (first, ()))
        end = start + len(known)
        lines[node] = (start, known + items[end - first :]) if first <= end else (start, known)
    return tuple((node, *lines[node]) for node in sorted(lines))


def _by_stamp(item: tuple[int, int, Any]) -> tuple[int, int]:
    return item[:2]


__all__ = ["Crdt", "CrdtSettings"]
