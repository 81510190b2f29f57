"""Hayashibara et al., "The phi accrual failure detector" (SRDS 2004), and Apache Cassandra 5.0's Gossiper and FailureDetector, which use it.

Decides: whom a node gossips with, what heartbeats spread, which peers it takes for alive.  A peer is convicted by silence only.
May not know: links, faults, keys, requests.
Sources: gms.Gossiper (GossipTask, examineGossiper, applyStateLocally, markAlive with its echo), gms.FailureDetector and its ArrivalWindow,
service.StorageService.onDead (connections are interrupted), net.OutboundConnection (a connect attempt is given up after 2 s and the next begins within 1 s;
a connection carries one direction and is dialled by its sender, so that where one was lost a question waits for the asker's dial, and its answer for the
other's), net.OutboundMessageQueue (what waits for a dial goes when it has expired), net.SocketFactory (TCP_USER_TIMEOUT).  Five real 5.0.4 servers, which a cut
of 60 s had taught to wait, had their connections closed by the system 30.46 to 30.72 s into the next cut, gave up the dials 2.0 s later, convicted at 33 s,
and after heal spoke again at whole seconds of each node's own rounds of gossip, in which it had begun to dial: 0.1 to 1.9 s after heal.
Simplified: the only state gossiped is the heartbeat (generation, version); membership is fixed, so no tokens, status or schema travel.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from capray.policies.cassandra.settings import CassandraSettings
from capray.replica import CONTROL, Message
from capray.streams import Stream

# phi = elapsed / mean * PHI_FACTOR with PHI_FACTOR = 1 / ln 10 (FailureDetector.java), here as a ratio of integers, right to 15 digits.
PHI_NUMERATOR = 434_294_481_903_252
PHI_DENOMINATOR = 10**15
SAMPLES = 1000  # FailureDetector.SAMPLE_SIZE
MAX_LOCAL_PAUSE_US = 5_000_000  # FailureDetector.DEFAULT_MAX_PAUSE: after a gap this long in its own rounds a node convicts nobody for as long
BACK_OFF_US = 1_000_000  # between two attempts to connect, at most (OutboundConnection.Initiate: half of the least time-out, doubling up to 1 s)
SYN_AGAIN_US = 1_000_000  # TCP sends a connect attempt's SYN each second until the attempt is given up (tcp.py: the first five pauses are alike)
OWN_SYN_US = 250_000  # a connection that stands so soon after this node's own SYN is taken for the answer to it

Heartbeat = tuple[int, int, int]  # endpoint, generation, version


class GossipSyn(Message, frozen=True, array_like=True, tag=True, gc=False):
    """GOSSIP_DIGEST_SYN: what the sender knows of every endpoint, by node number: its generation and newest version."""

    generations: tuple[int, ...]
    versions: tuple[int, ...]

    @property
    def size(self) -> int:  # type: ignore[override]
        return 60 + 20 * len(self.versions)


class GossipAck(Message, frozen=True, array_like=True, tag=True, gc=False):
    """GOSSIP_DIGEST_ACK: heartbeats that the sender of the SYN lacks, and (endpoint, generation, version) after which more is wanted."""

    states: tuple[Heartbeat, ...]
    wanted: tuple[Heartbeat, ...]

    @property
    def size(self) -> int:  # type: ignore[override]
        return 60 + 40 * (len(self.states) + len(self.wanted))


class GossipAck2(Message, frozen=True, array_like=True, tag=True, gc=False):
    """GOSSIP_DIGEST_ACK2: the heartbeats that were wanted."""

    states: tuple[Heartbeat, ...]

    @property
    def size(self) -> int:  # type: ignore[override]
        return 60 + 40 * len(self.states)


class Echo(Message, frozen=True, array_like=True, tag=True, gc=False):
    """ECHO_REQ: are you there?  Sent to an endpoint heard of again before it counts as alive."""

    kind = CONTROL
    size = 40


class EchoReply(Message, frozen=True, array_like=True, tag=True, gc=False):
    """ECHO_RSP."""

    kind = CONTROL
    size = 40


class ArrivalWindow:
    """The last intervals between heartbeats of one endpoint, and how suspect its present silence is.  Times in microseconds."""

    __slots__ = ("intervals", "last", "max_interval", "total")

    def __init__(self, now: int, initial: int, max_interval: int) -> None:
        """Heard for the first time at `now`: the window starts with one interval of `initial`."""
        self.intervals: deque[int] = deque((initial,))
        self.total = initial
        self.last = now
        self.max_interval = max_interval

    def heard(self, now: int) -> None:
        """A newer heartbeat has arrived; an interval longer than the maximum is not kept (nor one that a clock set back made negative: the
        real detector measures by a clock that is never set)."""
        interval = now - self.last
        self.last = now
        if not 0 <= interval <= self.max_interval:
            return
        if len(self.intervals) == SAMPLES:
            self.total -= self.intervals.popleft()
        self.intervals.append(interval)
        self.total += interval

    def suspects(self, now: int, threshold: int) -> bool:
        """phi(now) > threshold, without a logarithm or a fraction: for exponential arrivals phi is linear in the silence."""
        return (now - self.last) * len(self.intervals) * PHI_NUMERATOR > threshold * self.total * PHI_DENOMINATOR

    def conviction_after(self, threshold: int) -> int:
        """The silence, in microseconds, after which this window convicts: about 18.4 x the mean interval at threshold 8."""
        return threshold * self.total * PHI_DENOMINATOR // (len(self.intervals) * PHI_NUMERATOR)


GOSSIP = (GossipSyn, GossipAck, GossipAck2, Echo, EchoReply)


class Host(Protocol):
    """What a Gossiper needs of the replica that it belongs to."""

    node: int
    now: int

    def send(self, dst: int, message: Message) -> None: ...
    def set_timer(self, name: object, delay_us: int) -> None: ...
    def cancel_timer(self, name: object) -> None: ...
    def connect(self, peer: int) -> None: ...
    def close(self, peer: int) -> None: ...


class Gossiper:
    """One node's view of its peers.  `alive[n]` is what FailureDetector.isAlive answers; a node always takes itself for alive."""

    def __init__(self, host: Host, nodes: int, stream: Stream, settings: CassandraSettings) -> None:
        self.host = host
        self.nodes = nodes
        self.stream = stream
        self.threshold = settings.phi_convict_threshold
        self.interval_us = settings.gossip_interval_us
        self.initial_us = settings.fd_initial_value_us
        self.max_interval_us = settings.fd_max_interval_us
        self.connect_timeout_us = settings.internode_tcp_connect_timeout_us
        seeds = min(settings.seeds, nodes)
        self.seeds = tuple(i * nodes // seeds for i in range(seeds))
        self.other_seeds = [n for n in self.seeds if n != host.node]  # all that Gossiper.seeds holds: buildSeedsList leaves the node itself out
        self.generations = [1] * nodes
        self.versions = [0] * nodes
        self.alive = [True] * nodes
        self.down_since = [0] * nodes  # when it was convicted, on this node's clock
        self.windows: list[ArrivalWindow | None] = [None] * nodes
        self.redialling = [False] * nodes
        self.dialled = [0] * nodes  # when the last attempt began
        self.redial_us = self.connect_timeout_us + BACK_OFF_US  # from one attempt's beginning to the next's
        # What waits until this node's own attempt would have succeeded, with when it expires; None where its connection to the peer stands.
        self.held: list[list[tuple[int, Message]] | None] = [None] * nodes
        self.last_round = 0
        self.last_pause = -MAX_LOCAL_PAUSE_US

    # ---- starting -----------------------------------------------------------------------------------------------------------------
    def start(self, generation: int) -> None:
        """The cluster is up: every peer has just been heard.  The rounds of the nodes are not in step."""
        now = self.host.now
        self.generations = [generation] * self.nodes
        self.windows = [ArrivalWindow(now, self.initial_us, self.max_interval_us) for _ in range(self.nodes)]
        self.last_round = now
        self.host.set_timer("gossip", 1 + self.stream.below(self.interval_us))

    def restart(self, generation: int) -> None:
        """Back after a crash: peers are known (system.peers) but count as down until heard of; a seed is asked at once.  (Simplified: doShadowRound asks all
        seeds, and every 5 s again; rounds begin a second later; a node that is no seed and reaches nobody within 2 x RING_DELAY, 60 s, does not start.)"""
        self.generations = [0] * self.nodes
        self.generations[self.host.node] = generation
        self.alive[:] = [n == self.host.node for n in range(self.nodes)]  # in place: the hints service holds the same list
        self.down_since = [self.host.now] * self.nodes
        self.last_round = self.host.now
        self.host.set_timer("gossip", 0)

    # ---- a round ------------------------------------------------------------------------------------------------------------------
    def round(self) -> None:
        """GossipTask: beat; one random live peer; with probability down / (live + 1) one that is down; perhaps a seed; then judge."""
        host = self.host
        host.set_timer("gossip", self.interval_us)
        self.versions[host.node] += 1
        live = [n for n in range(self.nodes) if self.alive[n] and n != host.node]
        down = [n for n in range(self.nodes) if not self.alive[n]]
        syn = GossipSyn(tuple(self.generations), tuple(self.versions))
        to_seed = bool(live) and self._gossip_to(syn, live) in self.seeds
        if down and self.stream.below((len(live) + 1) * 1000) < len(down) * 1000:
            self._gossip_to(syn, down)
        if not to_seed or len(live) < len(self.other_seeds):
            self._maybe_gossip_to_seed(syn, len(live), len(down))
        self._judge()

    def _gossip_to(self, syn: GossipSyn, peers: list[int]) -> int:
        peer = peers[self.stream.below(len(peers))]
        self.host.send(peer, syn)
        return peer

    def _maybe_gossip_to_seed(self, syn: GossipSyn, live: int, down: int) -> None:
        seeds = self.other_seeds
        if seeds and (not live or self.stream.below((live + down) * 1000) <= len(seeds) * 1000):
            self._gossip_to(syn, seeds)

    def _judge(self) -> None:
        """doStatusCheck: convict whoever has been silent too long, unless this node itself has just been paused."""
        now = self.host.now
        pause, self.last_round = now - self.last_round, now
        if pause > MAX_LOCAL_PAUSE_US:
            self.last_pause = now
        if now - self.last_pause < MAX_LOCAL_PAUSE_US:
            return
        for peer, window in enumerate(self.windows):
            if window is not None and self.alive[peer] and peer != self.host.node and window.suspects(now, self.threshold):
                self._convict(peer)

    def _convict(self, peer: int) -> None:
        """markDead: the peer is DOWN, and the connection, if it stands, is interrupted: what it still held is lost, and dialling begins anew."""
        self.alive[peer] = False
        self.down_since[peer] = self.host.now
        if not self.redialling[peer]:
            self.held[peer] = []
            self.host.close(peer)
            self.redial(peer)

    # ---- connections --------------------------------------------------------------------------------------------------------------
    def redial(self, peer: int) -> None:
        """Keep dialling until `connected`: an attempt is given up after internode_tcp_connect_timeout, and the next follows after the back-off."""
        self.redialling[peer] = True
        self.dialled[peer] = self.host.now
        self.host.connect(peer)
        self.host.set_timer(("redial", peer), self.redial_us)

    def disconnected(self, peer: int) -> None:
        """The connection ended (the peer's process did, or what was sent stayed unacknowledged for internode_tcp_user_timeout): dial again; or an attempt was
        refused: the next follows after the back-off."""
        if self.held[peer] is None:
            self.held[peer] = []
        if self.redialling[peer]:
            self.host.set_timer(("redial", peer), BACK_OFF_US)
        else:
            self.redial(peer)

    def redial_due(self, peer: int) -> None:
        """The attempt has failed: give it up and start another."""
        if self.redialling[peer]:
            self.host.close(peer)
            self.redial(peer)

    def connected(self, peer: int) -> None:
        """A connection with the peer stands, whoever dialled it; what this node says where its own was lost waits for its own SYN."""
        if self.redialling[peer]:
            self.redialling[peer] = False
            self.host.cancel_timer(("redial", peer))
        if self.held[peer] is not None:
            wait = self._until_own_syn(self.host.now - self.dialled[peer])
            if wait:
                self.host.set_timer(("outbound", peer), wait)
            else:
                self.outbound(peer)

    def _until_own_syn(self, since_attempt: int) -> int:
        """How long until this node's next SYN to the peer; 0 where the last one has just been answered."""
        for syn in (*range(0, self.connect_timeout_us, SYN_AGAIN_US), self.redial_us):
            if syn <= since_attempt <= syn + OWN_SYN_US:
                return 0
            if since_attempt < syn:
                return int(syn - since_attempt)
        return 0

    def hold(self, peer: int, message: Message, lasts_us: int) -> None:
        """Keep what is for a peer that no connection of this node leads to, for as long as it may be of use; of gossip the newest of a kind, which says all."""
        held = self.held[peer]
        assert held is not None
        if isinstance(message, GOSSIP):
            held[:] = [kept for kept in held if type(kept[1]) is not type(message)]
        held.append((self.host.now + lasts_us, message))

    def outbound(self, peer: int) -> None:
        """This node's own connection to the peer stands: what was held leaves, but what has expired."""
        held, self.held[peer] = self.held[peer], None
        for until, message in held or ():
            if until >= self.host.now:
                self.host.send(peer, message)

    # ---- messages -----------------------------------------------------------------------------------------------------------------
    def on_syn(self, src: int, syn: GossipSyn) -> None:
        """examineGossiper: answer with what the other lacks and with what is wanted of it."""
        mine = list(zip(self.generations, self.versions, strict=True))
        theirs = list(zip(syn.generations, syn.versions, strict=True))
        states: list[Heartbeat] = []
        wanted: list[Heartbeat] = []
        for endpoint, (own, other) in enumerate(zip(mine, theirs, strict=True)):
            if own > other:
                states.append((endpoint, *own))
            elif own < other:
                wanted.append((endpoint, *own))
        self.host.send(src, GossipAck(tuple(states), tuple(wanted)))

    def on_ack(self, src: int, ack: GossipAck) -> None:
        """Take the states, send those wanted."""
        self._take(ack.states)
        if ack.wanted:
            self.host.send(src, GossipAck2(tuple((e, self.generations[e], self.versions[e]) for e, _, _ in ack.wanted)))

    def on_ack2(self, src: int, ack2: GossipAck2) -> None:
        """Take the states."""
        self._take(ack2.states)

    def _take(self, states: tuple[Heartbeat, ...]) -> None:
        """notifyFailureDetector (the intervals of one that was dead and has restarted are learnt anew) and applyStateLocally."""
        for endpoint, generation, version in states:
            if endpoint == self.host.node or (generation, version) <= (self.generations[endpoint], self.versions[endpoint]):
                continue
            restarted = generation > self.generations[endpoint]
            self.generations[endpoint], self.versions[endpoint] = generation, version
            window = self.windows[endpoint]
            if window is None or restarted and not self.alive[endpoint]:
                self.windows[endpoint] = ArrivalWindow(self.host.now, self.initial_us, self.max_interval_us)
            else:
                window.heard(self.host.now)
            if restarted and self.alive[endpoint]:
                self.alive[endpoint] = False
                self.down_since[endpoint] = self.host.now
            if not self.alive[endpoint]:
                self.host.send(endpoint, Echo())

    def on_echo(self, src: int, echo: Echo) -> None:
        """Here I am."""
        self.host.send(src, EchoReply())

    def on_echo_reply(self, src: int, reply: EchoReply) -> None:
        """realMarkAlive."""
        self.alive[src] = True

    def downtime(self, peer: int) -> int:
        """How long the peer has been down, microseconds; 0 while it counts as alive."""
        return 0 if self.alive[peer] else self.host.now - self.down_since[peer]
