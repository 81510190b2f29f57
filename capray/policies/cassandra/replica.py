"""Lakshman and Malik, "Cassandra: a decentralized structured storage system" (LADIS 2009), as Apache Cassandra 5.0 does it: the `cassandra` policy.

Decides: what a node does as replica, and what each message, timer and request is for; its parts decide the rest: writes and
reads (as coordinator), paxos (SERIAL), ring, gossip, snitch, hints, repair.
May not know: virtual time, links, faults, whether a peer is reachable.  Before its failure detector convicts a silent peer (about 18.4 x the
mean heartbeat interval, so some 20 s) nothing is refused: a request that lacks replicas hangs until WriteTimeout (2 s) or ReadTimeout (5 s).
Sources: the LADIS paper's sections 5 and 6; the 5.0 sources that each part names; net.RequestCallbacks; recorded runs of 5.0.4 servers.
Simplified: one table of one text column; the commit log is the only thing on disk (no memtable flush); writes to other data centres go to each
replica and not through one forwarder; a node has one connection with each peer where Cassandra has six (three each way: urgent, small, large), so a large
hint can delay gossip, and repair's streams have none of their own (nor internode_streaming_tcp_user_timeout, 300 s).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from typing import Any, ClassVar

from capray.policies import ring
from capray.policies.cassandra import cells
from capray.policies.cassandra.cells import ABSENT, Cell
from capray.policies.cassandra.gossip import Echo, EchoReply, GossipAck, GossipAck2, Gossiper, GossipSyn
from capray.policies.cassandra.hints import Hints
from capray.policies.cassandra.messages import (
    HintAck,
    HintMessage,
    Mutation,
    MutationAck,
    ReadData,
    ReadDigest,
    ReadRepair,
    ReadRepairAck,
    ReadRequest,
)
from capray.policies.cassandra.paxos import Accepted, Commit, Committed, Paxos, Prepare, Promise, Propose
from capray.policies.cassandra.reads import Reads
from capray.policies.cassandra.repair import Repair, StreamedRows, SyncRequest, ValidationRequest, ValidationResponse
from capray.policies.cassandra.settings import SERIAL_LEVELS, CassandraSettings
from capray.policies.cassandra.writes import WRITE_TIMEOUT, Writes
from capray.policies.ring import EVERY
from capray.replica import CONTROL, READ, RESPONSE, SEND, Message, Replica, Request
from capray.streams import Stream

NEVER = 1 << 62


class Cassandra(Replica):
    """One Cassandra node: coordinator for its clients, and replica of its ranges."""

    name = "cassandra"
    claims = (
        "AP at ONE or ANY: answers with what replicas it reaches, converges later; at QUORUM a minority times out, and a key is linearizable while "
        "timestamps follow real time; SERIAL is linearizable (LADIS 2009, 5.0 manual)"
    )
    transport = "tcp"
    Settings = CassandraSettings
    MESSAGES = (
        Mutation,
        MutationAck,
        ReadRequest,
        ReadData,
        ReadDigest,
        ReadRepair,
        ReadRepairAck,
        HintMessage,
        HintAck,
        GossipSyn,
        GossipAck,
        GossipAck2,
        Echo,
        EchoReply,
        Prepare,
        Promise,
        Propose,
        Accepted,
        Commit,
        Committed,
        ValidationRequest,
        ValidationResponse,
        SyncRequest,
        StreamedRows,
    )
    HANDLERS: ClassVar[dict[type[Message], Callable[[Any, int, Any], None]]] = {}

    def __init__(self, node: int, nodes: int, settings: CassandraSettings, stream: Stream) -> None:
        super().__init__(node, nodes, settings, stream)
        s = settings
        self.cells: dict[str, Cell] = {}
        self.placed: dict[str, tuple[int, ...]] = {}
        self.deadlines: list[tuple[int, int, int]] = []  # (when, what, id)
        self.next_deadline = NEVER
        self.reaper_armed = False
        self.next_id = 0
        self.unsynced = False
        self.dc_of = [self._datacenter(n) for n in range(nodes)]
        factors = s.factors(nodes)
        self.read_needs = ring.requirements(s.read_consistency, factors, self.dc_of[node])
        self.gossiper = Gossiper(self, nodes, stream, s)
        below = stream.below
        # A server starts its hints' flush and, seconds later, their dispatch, and the nodes of a cluster are started within seconds of each
        # other, so these ticks are not at random: in the recorded runs hints arrived 5 to 9.5 s after heal, with most of the cut's own among them.
        dispatch_phase = 1_000_000 + below(4_000_000)
        flush_phase = dispatch_phase + 1_000_000 + below(2_000_000)
        self.hints = Hints(self, self.gossiper.alive, self.gossiper.downtime, flush_phase, dispatch_phase)
        self.reap_period = min(s.read_request_timeout_us, s.write_request_timeout_us) // 2
        self.reap_phase = below(self.reap_period)
        self.writes = Writes(self, ring.requirements(s.write_consistency, factors, self.dc_of[node]))
        self.reads = Reads(self)
        self.paxos = Paxos(self)
        self.repair = Repair(self, s.anti_entropy_interval_us)

    # ---- where data lives ---------------------------------------------------------------------------------------------------------
    @classmethod
    def needs(cls, nodes: int, settings: Any) -> tuple[int | str, int | str] | None:
        levels = settings.read_consistency, settings.write_consistency
        return None if settings.datacenters > 1 or "EACH_QUORUM" in levels or "LOCAL_SERIAL" in levels else levels

    @classmethod
    def user_timeout_us(cls, settings: Any) -> int:
        return int(settings.internode_tcp_user_timeout_us)

    @classmethod
    def deletes(cls, settings: Any) -> str:
        return "delete"

    @classmethod
    def placement(cls, key: str, nodes: int, settings: Any) -> tuple[int, ...]:
        """The replicas of `key`, its range's owner first."""
        return cls._range_replicas(ring.owner(key, settings.ring_nodes(nodes), settings.partitioner), nodes, settings)

    @staticmethod
    def _range_replicas(first: int, nodes: int, settings: Any) -> tuple[int, ...]:
        on_ring = settings.ring_nodes(nodes)
        factor = settings.factors(nodes)[0]
        if settings.strategy == "simple":
            return ring.simple_strategy(first, on_ring, factor)
        return ring.network_topology_strategy(first, on_ring, factor, settings.datacenters, settings.racks)

    def range_replicas(self, owner: int) -> tuple[int, ...]:
        """The replicas of the range that a node owns."""
        return self._range_replicas(owner, self.nodes, self.settings)

    def replicas(self, key: str) -> tuple[int, ...]:
        """`placement`, remembered."""
        placed = self.placed.get(key)
        if placed is None:
            placed = self.placed[key] = self.placement(key, self.nodes, self.settings)
        return placed

    def _datacenter(self, node: int) -> int:
        return 0 if self.settings.strategy == "simple" else ring.datacenter(node, self.settings.datacenters)

    def datacenter(self, node: int) -> int:
        """The data centre of a node, as far as the strategy tells them apart."""
        return self.dc_of[node]

    def distance(self, node: int) -> int:
        """AbstractNetworkTopologySnitch.compareEndpoints(): 0 in the own rack, 1 in the own data centre, 2 elsewhere."""
        if self.dc_of[node] != self.dc_of[self.node]:
            return 2
        settings = self.settings
        there, here = (ring.rack(n, settings.datacenters, settings.racks) for n in (node, self.node))
        return int(settings.strategy != "simple" and there != here)

    def peek(self, key: str) -> Any:
        """The value held here; None for nothing and for a tombstone."""
        return self.cells.get(key, ABSENT)[1]

    # ---- life ---------------------------------------------------------------------------------------------------------------------
    def on_start(self) -> None:
        """A cluster that has been up: everyone knows everyone."""
        self.persist(("generation", 1), sync=True)
        self.gossiper.start(1)
        self.reads.driver_connects()
        self.repair.start()

    def on_restart(self, journal: list[Any]) -> None:
        """Replay the commit log and the hint files; gossip under a higher generation (SystemKeyspace.incrementAndGetGeneration)."""
        generation = 0
        for record in journal:
            if record[0] == "write":
                cell = tuple(record[2])
                if cells.wins(cell, self.cells.get(record[1], ABSENT)):
                    self.cells[record[1]] = cell
                    self._expect_purge(record[1], cell)
            elif record[0] == "paxos":
                self.paxos.recover(record)
            elif record[0] == "generation":
                generation = max(generation, record[1])
        self.hints.recover(journal)
        self.applied("", None, (0,))  # what follows is all that the commit log kept
        for key, cell in self.cells.items():
            self.applied(key, cell[1], cells.order(cell))
        self.persist(("generation", generation + 1), sync=True)
        self.gossiper.restart(generation + 1)
        self.reads.driver_connects()
        self.repair.start()

    def on_request(self, request: Request) -> None:
        """A client of this node asks; this node coordinates.  A write of null is a `delete`, which leaves a tombstone."""
        level = self.settings.read_consistency if request.f == "read" else self.settings.write_consistency
        if level in SERIAL_LEVELS:
            self.paxos.begin(request.id, request.key, request.value, request.f == "read", level == "LOCAL_SERIAL")
        elif request.f == "read":
            self.reads.begin(request.id, request.key)
        else:
            self.writes.begin(request)

    def on_message(self, src: int, message: Any) -> None:
        """To the method of the message's type."""
        self.HANDLERS[type(message)](self, src, message)

    def send(self, dst: int, message: Message) -> None:
        """At once, or when this node's own connection to the peer, which was lost, stands again, if it has not expired by then (net.Verb)."""
        gossiper = self.gossiper
        if gossiper.held[dst] is None:
            self.effects.append((SEND, dst, message))
            return
        settings, kind = self.settings, message.kind
        if kind == CONTROL:
            gossiper.hold(dst, message, NEVER)
        else:
            gossiper.hold(dst, message, settings.read_request_timeout_us if kind in (READ, RESPONSE) else settings.write_request_timeout_us)

    def on_connected(self, peer: int) -> None:
        """A dial has succeeded, or a peer's has."""
        self.gossiper.connected(peer)

    def on_disconnected(self, peer: int) -> None:
        """The peer dropped the connection or its process died: dial again.  Whether it is down, only its silence will tell."""
        self.gossiper.disconnected(peer)

    def on_timer(self, name: Any) -> None:
        """To what the timer was for."""
        if name == "due":
            self._deadlines_due()
        elif name == "gossip":
            self.gossiper.round()
        elif name == "reap":
            self._reap()
        elif name == "commitlog":
            self.unsynced = False
            self.persist(("commitlog",), sync=True)
        elif name == "hints-flush":
            self.hints.flush()
        elif name == "hints-dispatch":
            self.hints.trigger()
        elif name == "repair":
            self.repair.begin()
        else:
            self._on_named_timer(name[0], name[1])

    def _on_named_timer(self, name: str, what: Any) -> None:
        if name == "hints-page":
            self.hints.page_due(what)
        elif name == "redial":
            self.gossiper.redial_due(what)
        elif name == "outbound":
            self.gossiper.outbound(what)
        elif name == "paxos":
            self.paxos.timed_out(what)
        elif name == "paxos-again":
            self.paxos.again(what)
        else:
            self._purge(what)

    def enough_alive(self, needs: tuple[tuple[int, int], ...], replicas: Sequence[int]) -> bool:
        """Whether the failure detector leaves as many of `replicas` as needed (assureSufficientLiveReplicas)."""
        alive = self.gossiper.alive
        for dc, count in needs:
            if sum(alive[n] and dc in (EVERY, self.dc_of[n]) for n in replicas) < count:
                return False
        return True

    # ---- time ---------------------------------------------------------------------------------------------------------------------
    def new_id(self) -> int:
        """A number for a request, unique in this life of the process."""
        self.next_id += 1
        return self.next_id

    def deadline(self, at: int, what: int, number: int) -> None:
        """Remember to look at this request at that time of the own clock; one timer serves all."""
        heappush(self.deadlines, (at, what, number))
        if at < self.next_deadline:
            self.next_deadline = at
            self.set_timer("due", max(0, at - self.now))

    def _deadlines_due(self) -> None:
        deadlines = self.deadlines
        while deadlines and deadlines[0][0] <= self.now:
            _, what, number = heappop(deadlines)
            if what == WRITE_TIMEOUT:
                self.writes.due(number)
            else:
                self.reads.due(what, number)
        while deadlines and deadlines[0][2] not in self.writes.pending and deadlines[0][2] not in self.reads.pending:
            heappop(deadlines)
        self.next_deadline = deadlines[0][0] if deadlines else NEVER
        if deadlines:
            self.set_timer("due", max(0, deadlines[0][0] - self.now))

    def arm_reaper(self) -> None:
        """Callbacks are looked through each half of the smallest timeout (RequestCallbacks), while there are any."""
        if not self.reaper_armed:
            self._set_reaper(self.now + min(self.settings.write_request_timeout_us, self.settings.read_request_timeout_us))

    def _set_reaper(self, at: int) -> None:
        self.reaper_armed = True
        self.set_timer("reap", at - self.now + self.reap_period - (at + self.reap_phase) % self.reap_period)

    def _reap(self) -> None:
        """Callbacks that expired: each replica silent in a write gets a hint; reads tell the snitch."""
        self.reaper_armed = False
        self.writes.reap(self.now)
        self.reads.reap(self.now)
        heads = [queue[0][0] for queue in (self.writes.silent, self.reads.awaited) if queue]
        if heads:
            self._set_reaper(max(min(heads), self.now))

    def expired(self, created: int, timeout: int) -> bool:
        """Whether a message made at `created`, by its sender's clock, is too old to be heeded."""
        return bool(self.settings.internode_timeout and self.now - created > timeout)

    # ---- as replica ---------------------------------------------------------------------------------------------------------------
    def apply(self, key: str, cell: Cell) -> None:
        """Write to the commit log and the memtable; the newest cell wins."""
        old = self.cells.get(key, ABSENT)
        if cells.same(cell, old):
            return
        if self.settings.commitlog_sync == "periodic":
            self.persist(("write", key, cell), sync=False)
            if not self.unsynced:
                self.unsynced = True
                self.set_timer("commitlog", self.settings.commitlog_sync_period_us)
        else:
            self.persist(("write", key, cell), sync=True)
        if cells.wins(cell, old):
            self.cells[key] = cell
            self._expect_purge(key, cell)
            self.applied(key, cell[1], cells.order(cell), () if old[0] < 0 else (old[1],))
        else:
            self.applied(key, cell[1], cells.order(cell), (), True)

    def _expect_purge(self, key: str, cell: Cell) -> None:
        """A tombstone is kept for gc_grace_seconds from its deletion, so that every replica can learn of it."""
        if cell[1] is None:
            self.set_timer(("purge", key), max(0, cell[2] + self.settings.gc_grace_us - self.now))

    def _purge(self, key: str) -> None:
        """Compaction drops the tombstone: a replica that missed it can now bring the deleted value back."""
        cell = self.cells.get(key)
        if cell is not None and cell[1] is None and cell[2] + self.settings.gc_grace_us <= self.now:
            del self.cells[key]
            self.purged(key, cells.order(cell))

    def _on_mutation(self, src: int, message: Mutation) -> None:
        if not self.expired(message.created, self.settings.write_request_timeout_us):
            self.apply(message.key, message.cell)
            self.send(src, MutationAck(message.id))

    def _on_read(self, src: int, message: ReadRequest) -> None:
        if self.expired(message.created, self.settings.read_request_timeout_us):
            return
        cell = self.cells.get(message.key, ABSENT)
        if message.digest:
            self.send(src, ReadDigest(message.id, cells.digest(cell), message.created))
        else:
            self.send(src, ReadData(message.id, cell, message.created))

    def _on_repair(self, src: int, message: ReadRepair) -> None:
        if not self.expired(message.created, self.settings.write_request_timeout_us):
            self.apply(message.key, message.cell)
            self.send(src, ReadRepairAck(message.id))

    def send_or_apply(self, node: int, message: ReadRepair) -> None:
        """A repair to a replica, which may be this node itself."""
        self.send(node, message)

    def _on_hint(self, src: int, message: HintMessage) -> None:
        if not self.expired(message.created, self.settings.write_request_timeout_us):
            if self.now - message.hinted < self.settings.gc_grace_us:
                self.apply(message.key, message.cell)
            self.send(src, HintAck(message.page, message.index))


Cassandra.HANDLERS = {
    Mutation: Cassandra._on_mutation,
    MutationAck: lambda self, src, m: self.writes.on_ack(src, m.id),
    ReadRequest: Cassandra._on_read,
    ReadData: lambda self, src, m: self.reads.on_data(src, m),
    ReadDigest: lambda self, src, m: self.reads.on_digest(src, m),
    ReadRepair: Cassandra._on_repair,
    ReadRepairAck: lambda self, src, m: self.reads.on_repaired(m.id),
    HintMessage: Cassandra._on_hint,
    HintAck: lambda self, src, m: self.hints.acknowledged(src, m.page, m.index),
    GossipSyn: lambda self, src, m: self.gossiper.on_syn(src, m),
    GossipAck: lambda self, src, m: self.gossiper.on_ack(src, m),
    GossipAck2: lambda self, src, m: self.gossiper.on_ack2(src, m),
    Echo: lambda self, src, m: self.gossiper.on_echo(src, m),
    EchoReply: lambda self, src, m: self.gossiper.on_echo_reply(src, m),
    Prepare: lambda self, src, m: self.paxos.on_prepare(src, m),
    Promise: lambda self, src, m: self.paxos.on_promise(src, m),
    Propose: lambda self, src, m: self.paxos.on_propose(src, m),
    Accepted: lambda self, src, m: self.paxos.on_accepted(src, m),
    Commit: lambda self, src, m: self.paxos.on_commit(src, m),
    Committed: lambda self, src, m: self.paxos.on_committed(src, m),
    ValidationRequest: lambda self, src, m: self.repair.on_validation(src, m),
    ValidationResponse: lambda self, src, m: self.repair.on_tree(src, m),
    SyncRequest: lambda self, src, m: self.repair.on_sync(src, m),
    StreamedRows: lambda self, src, m: self.repair.on_rows(src, m),
}
