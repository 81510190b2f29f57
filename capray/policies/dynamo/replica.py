"""DeCandia et al., "Dynamo: Amazon's highly available key-value store" (SOSP 2007), sections 4.3 to 4.8: the `dynamo` policy.

Decides: what a node does as coordinator and as replica; membership (who is reachable), handoff (hints), sync (Merkle trees)
and vector_clock decide the rest.  May not know: virtual time, links, faults, whether a peer is reachable.
Clients (`client`): a `merging` client reads before it writes and puts with the context of that read, so its write supersedes the siblings it saw:
of a register the merge keeps the value written, the siblings are superseded, not lost; a read that finds siblings answers their list (in the order
of their clocks; one version answers its bare value).  A register never holds a list, so to a checker of registers such a read is evidence against it.
A `last-write-wins` client reads one value, by the timestamp of the put's coordinator, and puts without reading: what its coordinator holds is the
context.  Replicas keep siblings in either case, so that they converge whatever the clocks say; the record's versions show them.
A put that reaches a node outside the key's preference list is forwarded to the list's first reachable node; one whose coordinator falls silent is
`info` and not tried again, since it could be applied twice.
Simplified: one token a node, evenly spaced (the paper's strategy 3 without virtual nodes); every write is synced (the paper's buffered write is an
option, section 6.1); the write's coordinator is the client's own node where it is in the list, else the first of the list, not the one that answered
the client's last read fastest (section 5, for the balance of load and for reads of one's own writes: here load is even, and one's own node is fastest).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from capray.policies import ring, vector_clock
from capray.policies.dynamo.handoff import Handoff
from capray.policies.dynamo.membership import Membership
from capray.policies.dynamo.messages import Fetch, Fetched, Gossip, HandedOff, HandOff, Ping, Pong, Put, PutDone, Store, Stored, SyncRoots, SyncRows, SyncTrees
from capray.policies.dynamo.settings import DynamoSettings
from capray.policies.dynamo.sync import Sync
from capray.policies.vector_clock import Clock, Version
from capray.replica import Message, Replica, Request
from capray.streams import Stream

Finish = Callable[["tuple[Version, ...] | None"], None]  # called once, with the reconciled versions, or None: given up
SELF = -1  # in place of an intended node: the replica is the receiver's own


class Pending:
    """A request of a quorum under way at its coordinator: a get (`version` None) or a put."""

    __slots__ = ("answers", "asked", "done", "finish", "id", "key", "need", "rounds", "version")

    def __init__(self, number: int, key: str, need: int, version: Version | None, finish: Finish) -> None:
        self.id = number
        self.key = key
        self.need = need
        self.version = version
        self.finish = finish
        self.asked: dict[int, int] = {}  # node -> for whom
        self.answers: dict[int, tuple[Version, ...]] = {}
        self.done = False
        self.rounds = 0


class Dynamo(Replica):
    """One Dynamo node."""

    name = "dynamo"
    claims = "AP: always writeable where W nodes can be reached, any nodes; siblings or the last write (DeCandia et al., SOSP 2007)"
    transport = "tcp"
    Settings = DynamoSettings
    MESSAGES = (Put, PutDone, Store, Stored, Fetch, Fetched, Gossip, Ping, Pong, HandOff, HandedOff, SyncRoots, SyncTrees, SyncRows)
    HANDLERS: ClassVar[dict[type[Message], Callable[[Any, int, Any], None]]] = {}

    def __init__(self, node: int, nodes: int, settings: DynamoSettings, stream: Stream) -> None:
        super().__init__(node, nodes, settings, stream)
        s = settings
        self.count, (self.read_need, self.write_need) = s.replicas(nodes), s.quorums(nodes)
        self.data: dict[str, tuple[Version, ...]] = {}
        self.stood_in: dict[str, tuple[Version, ...]] = {}  # versions kept as hints, as the record was told of them
        self.issued = 0  # this node's newest counter, over all keys: no version's is given twice
        self.number = 0
        self.pending: dict[int, Pending] = {}
        self.forwards: dict[int, tuple[int, int]] = {}  # put's number -> (client's request, coordinator)
        self.membership = Membership(self, nodes, stream, s.gossip_interval_us, s.response_timeout_us, s.retry_interval_us)
        self.handoff = Handoff(self)
        self.sync = Sync(self)

    # ---- where data lives ---------------------------------------------------------------------------------------------------------
    @classmethod
    def needs(cls, nodes: int, settings: Any) -> tuple[int | str, int | str] | None:
        return None if settings.sloppy_quorum else settings.quorums(nodes)

    @classmethod
    def placement(cls, key: str, nodes: int, settings: Any) -> tuple[int, ...]:
        """The key's coordinator and the next clockwise: the first n of its preference list."""
        return ring.simple_strategy(ring.owner(key, nodes, settings.partitioner), nodes, settings.replicas(nodes))

    def hosted(self, node: int) -> tuple[int, ...]:
        """The key ranges (named by their owners) that a node hosts."""
        return tuple(sorted((node - i) % self.nodes for i in range(self.count)))

    def targets(self, key: str) -> list[tuple[int, int]]:
        """The first n healthy nodes on the key's ring, as (node, whom it stands in for)."""
        first = ring.owner(key, self.nodes, self.settings.partitioner)
        suspected = self.membership.suspected
        found, missing = [], []
        for i in range(self.count):
            node = (first + i) % self.nodes
            if suspected[node]:
                missing.append(node)
            else:
                found.append((node, SELF))
        if missing and self.settings.sloppy_quorum:
            spare = [node for i in range(self.count, self.nodes) if not suspected[node := (first + i) % self.nodes]]
            found += zip(spare, missing)
        return found

    def held(self, key: str) -> tuple[Version, ...]:
        """All versions of a key here, hinted ones too."""
        own = self.data.get(key, ())
        return vector_clock.reconcile([*own, *self.handoff.versions(key)]) if self.handoff.hints else own

    def answer_of(self, versions: tuple[Version, ...]) -> Any:
        """What the client gets for these versions."""
        if not versions:
            return None
        if len(versions) == 1 or self.settings.client == "last-write-wins":
            return vector_clock.last_write(versions)[1]
        return [version[1] for version in versions]

    def peek(self, key: str) -> Any:
        return self.answer_of(self.held(key))

    def on_start(self) -> None:
        self._begin(1)

    def on_restart(self, journal: list[Any]) -> None:
        """Read the store and the hints back; peers are tried before they are used."""
        change = 0
        for record in journal:
            what = record[0]
            if what == "put":
                self.data[record[1]] = vector_clock.add(self.data.get(record[1], ()), record[2])[0]
            elif what == "hint":
                self.handoff.keep(record[1], record[2], record[3])
            elif what == "handed":
                self.handoff.drop(record[1], record[2])
            elif what == "change":
                change = record[1]
            elif what == "issued":
                self.issued = max(self.issued, record[1])
        self.stood_in = {key: self.held(key) for kept in self.handoff.hints.values() for key in kept}
        for key, versions in [*self.data.items(), *self.stood_in.items()]:
            for version in versions:
                self.applied(key, version[1], vector_clock.order(version))
        self._begin(change + 1)
        self.membership.restart()

    def _begin(self, change: int) -> None:
        self.number = change << 32  # an answer to an earlier life's message names nothing of this one
        self.persist(("change", change), sync=True)
        self.membership.start(change)
        self.sync.start()

    def new_id(self) -> int:
        """A number for a message that is answered, unique on this node."""
        self.number += 1
        return self.number

    # ---- clients ------------------------------------------------------------------------------------------------------------------
    def on_request(self, request: Request) -> None:
        """6.4: "Any Dynamo node can act as a coordinator for a read request"; a merging client's write reads its context first."""
        if request.f == "read":
            self._get(request.key, lambda found: self._answer_read(request.id, found))
        elif self.settings.client == "merging":
            self._get(request.key, lambda found: self._with_context(request, found))
        else:
            self._put(request, ())

    def _answer_read(self, request: int, found: tuple[Version, ...] | None) -> None:
        if found is None:
            self.reply(request, "fail", None, "timeout")
        else:
            self.reply(request, "ok", self.answer_of(found))

    def _with_context(self, request: Request, found: tuple[Version, ...] | None) -> None:
        if found is None:
            self.reply(request.id, "fail", None, "no context: read timeout")  # nothing was written
        else:
            self._put(request, vector_clock.merge(version[0] for version in found))

    def _put(self, request: Request, context: Clock) -> None:
        """Coordinate, if this node is in the key's current preference list; else forward to the first that is."""
        targets = self.targets(request.key)
        if any(node == self.node for node, _ in targets):
            self._coordinate(request.key, request.value, context, lambda done: self._answer_write(request.id, done is not None))
            return
        number = self.new_id()
        self.forwards[number] = (request.id, targets[0][0] if targets else SELF)
        if targets:
            self.send(targets[0][0], Put(number, request.key, request.value, context))
            self.membership.probe(targets[0][0])
        self.set_timer(("forward", number), self.settings.request_timeout_us)

    def _answer_write(self, request: int, done: bool) -> None:
        if done:
            self.reply(request, "ok")
        else:
            self.reply(request, "info", None, "timeout")

    def _end_forward(self, number: int, ok: bool) -> None:
        request, _ = self.forwards.pop(number)
        self.cancel_timer(("forward", number))
        self._answer_write(request, ok)

    # ---- coordinating -------------------------------------------------------------------------------------------------------------
    def _get(self, key: str, finish: Finish) -> None:
        self._open(Pending(self.new_id(), key, self.read_need, None, finish))

    def _coordinate(self, key: str, value: Any, context: Clock, finish: Finish) -> None:
        """"The coordinator generates the vector clock for the new version and writes the new version locally"."""
        if self.settings.client == "last-write-wins":
            context = vector_clock.merge([context, *(version[0] for version in self.held(key))])
        self.issued = max(self.issued, vector_clock.counter(context, self.node)) + 1
        clock = vector_clock.truncate(vector_clock.advance(context, self.node, self.issued, self.now), self.settings.clock_threshold)
        self.persist(("issued", self.issued), sync=False)
        self._open(Pending(self.new_id(), key, self.write_need, (clock, value, self.now), finish))

    def _open(self, op: Pending) -> None:
        self.pending[op.id] = op
        self.set_timer(("op", op.id), self.settings.response_timeout_us)
        self._ask(op)

    def _ask(self, op: Pending) -> bool:
        """Ask those of the current preference list that were not asked yet, this node first: what it writes is synced before the others are asked."""
        fresh = [(node, intended) for node, intended in self.targets(op.key) if node not in op.asked]
        op.asked.update(fresh)
        for node, intended in sorted(fresh, key=lambda pair: pair[0] != self.node):
            if op.version is None and node == self.node:
                self._answered(node, op.id, self.held(op.key))
            elif op.version is None:
                self.send(node, Fetch(op.id, op.key))
            elif node == self.node:
                self._store(op.key, op.version, intended)
                self.send(node, Stored(op.id))
            else:
                self.send(node, Store(op.id, op.key, op.version, intended))
        return bool(fresh)

    def _answered(self, src: int, number: int, versions: tuple[Version, ...]) -> None:
        op = self.pending.get(number)
        if op is None or src not in op.asked:
            return
        op.answers[src] = versions
        if len(op.answers) >= op.need and not op.done:
            op.done = True
            op.finish(vector_clock.reconcile(version for found in op.answers.values() for version in found))
        if op.done and len(op.answers) == len(op.asked):
            self._close(op)

    def _close(self, op: Pending) -> None:
        """All have answered, or time is up: "If stale versions were returned in any of the responses, the coordinator updates those nodes with
        the latest version" (section 5)."""
        del self.pending[op.id]
        self.cancel_timer(("op", op.id))
        if op.version is not None or not self.settings.read_repair:
            return
        newest = vector_clock.reconcile(version for found in op.answers.values() for version in found)
        for node, found in op.answers.items():
            if op.asked[node] != SELF or found == newest:
                continue
            for version in newest:
                if not vector_clock.has(found, version):
                    if node == self.node:
                        self.apply(op.key, version)
                    else:
                        self.send(node, Store(0, op.key, version, SELF))

    def _silence(self, number: int) -> None:
        """Who has not answered is suspected, and the next healthy node on the ring asked in its place."""
        if number not in self.pending:
            return
        op = self.pending[number]
        op.rounds += 1
        for node in op.asked:
            if node not in op.answers:
                self.membership.suspect(node)
        asked = self._ask(op)
        if number not in self.pending:
            return
        expired = op.rounds * self.settings.response_timeout_us >= self.settings.request_timeout_us
        if expired or op.done and not asked:
            self._close(op)
            if not op.done:
                op.done = True
                op.finish(None)
        else:
            self.set_timer(("op", number), self.settings.response_timeout_us)

    def apply(self, key: str, version: Version) -> bool:
        """Keep a version of one's own.  Returns whether the disk is asked to sync it."""
        news = self._add(self.data, key, version)
        if news:
            self.persist(("put", key, version), sync=True)
        return news

    def _add(self, held: dict[str, tuple[Version, ...]], key: str, version: Version) -> bool:
        """Among the siblings, and told to the record; False where the version, or one that descends from it, is there."""
        siblings = held.get(key, ())
        kept, replaced = vector_clock.add(siblings, version)
        if kept is siblings:
            if version not in siblings:
                self.applied(key, version[1], vector_clock.order(version), (), True)
            return False
        held[key] = kept
        self.applied(key, version[1], vector_clock.order(version), tuple(one[1] for one in replaced))
        return True

    def _store(self, key: str, version: Version, intended: int) -> None:
        """Keep it, for oneself or another, and sync it.  Who stands in for another is one of the key's replicas meanwhile, to the record too: what
        it holds can be read and superseded there."""
        if intended != SELF:
            self._add(self.stood_in, key, version)
            self.handoff.keep(intended, key, version)
            self.persist(("hint", intended, key, version), sync=True)
        elif not self.apply(key, version):
            self.persist(("again",), sync=True)  # it may be on its way to the disk still

    def _on_store(self, src: int, message: Store) -> None:
        self._store(message.key, message.version, message.intended)
        if message.id:
            self.send(src, Stored(message.id))

    def _on_put(self, src: int, message: Put) -> None:
        self._coordinate(message.key, message.value, message.context, lambda done: self.send(src, PutDone(message.id, done is not None)))

    def _on_put_done(self, src: int, message: PutDone) -> None:
        self.membership.answered(src)
        if message.id in self.forwards:
            self._end_forward(message.id, message.ok)

    def _on_stored(self, src: int, message: Stored) -> None:
        if src != self.node:
            self.membership.answered(src)
        self._answered(src, message.id, ())

    def _on_fetched(self, src: int, message: Fetched) -> None:
        self.membership.answered(src)
        self._answered(src, message.id, message.versions)

    def _on_hand_off(self, src: int, message: HandOff) -> None:
        for key, version in message.rows:
            self._store(key, version, SELF)
        self.send(src, HandedOff(message.id))

    def _on_handed_off(self, src: int, message: HandedOff) -> None:
        self.membership.answered(src)
        self.handoff.delivered(src, message.id)

    def recovered(self, peer: int) -> None:
        """A suspected peer has answered."""
        self.handoff.deliver(peer)

    def on_message(self, src: int, message: Any) -> None:
        self.HANDLERS[type(message)](self, src, message)

    def on_connected(self, peer: int) -> None:
        self.membership.on_connected(peer)

    def on_disconnected(self, peer: int) -> None:
        self.membership.on_disconnected(peer)

    def lost(self, peer: int) -> None:
        """A peer is suspected: what was forwarded to it may have happened or not."""
        for number in [number for number, (_, node) in self.forwards.items() if node == peer]:
            self._end_forward(number, False)

    def on_timer(self, name: Any) -> None:
        if name == "gossip":
            self.membership.round()
        elif name == "handoff":
            self.handoff.scan()
        elif name == "sync":
            self.sync.begin()
        elif name[0] == "op":
            self._silence(name[1])
        elif name[0] == "probe":
            self.membership.unanswered(name[1])
        elif name[0] == "retry":
            self.membership.retry(name[1])
        elif name[0] == "handing":
            self.handoff.unanswered(name[1])
        elif name[1] in self.forwards:
            self._end_forward(name[1], False)


Dynamo.HANDLERS = {
    Put: Dynamo._on_put,
    PutDone: Dynamo._on_put_done,
    Store: Dynamo._on_store,
    Stored: Dynamo._on_stored,
    Fetch: lambda self, src, m: self.send(src, Fetched(m.id, self.held(m.key))),
    Fetched: Dynamo._on_fetched,
    Gossip: lambda self, src, m: self.membership.on_gossip(src, m),
    Ping: lambda self, src, m: self.send(src, Pong()),
    Pong: lambda self, src, m: self.membership.answered(src),
    HandOff: Dynamo._on_hand_off,
    HandedOff: Dynamo._on_handed_off,
    SyncRoots: lambda self, src, m: self.sync.on_roots(src, m),
    SyncTrees: lambda self, src, m: self.sync.on_trees(src, m),
    SyncRows: lambda self, src, m: self.sync.on_rows(src, m),
}
