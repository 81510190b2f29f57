"""How etcd's members stay connected: rafthttp's streams (etcd, server/etcdserver/api/rafthttp: peer.go, stream.go, pipeline.go).

Decides: when a stream is given up and asked for again, and what is not even sent.  May not know: Raft.
A member reads a peer's messages from a stream that it has asked for itself (a GET), and writes on the one that the peer has asked for: each direction
of a pair comes and goes by itself.  A writer shows life every third of `stream_timeout`.  A reader that hears nothing for `stream_timeout` hangs up and
dials, a new dial every `dial_timeout` while nobody answers; so after a long cut both ends must have dialled again before a question is answered.
A writer whose reader has hung up does not know it: what it writes is lost, until the peer attaches a new stream or answers with a reset.
Simplified: of the two streams of a direction (entries, and everything else) the second is here, since terms, votes and heartbeats come by it: entries go on it too,
but do not count as life.  The pipeline, which carries single messages by POST while no stream
was ever attached or one has been reset, is taken to get through where the path is open, and not to dial into a cut; the real one's connections are
separate from one another, here one joins a pair, so that hanging up loses what is under way in both directions.
"""

from __future__ import annotations

from typing import Any

from capray.policies.etcd.raft_messages import Attach, Attached, LinkHeartbeat
from capray.policies.etcd.settings import EtcdSettings
from capray.replica import Message, Replica
from capray.tcp import DIAL_FIRST_US, JIFFY_US, runs_out

GO_LATE_US = 1_000  # a process that only waits asks epoll for whole milliseconds (runtime/netpoll_epoll.go), so that its timers end up to one late
LINK_HEARTBEAT, ATTACHED = LinkHeartbeat(), Attached()
NOT_DIALLING = 1 << 62
NO_WRITER, LOST_WRITER, WRITER = range(3)  # a stream to a peer: none; one that is gone without this member's knowing; one that works


class Streams(Replica):
    """The part of a member that talks to its peers."""

    settings: EtcdSettings

    def __init__(self, node: int, nodes: int, settings: Any, stream: Any) -> None:
        super().__init__(node, nodes, settings, stream)
        self.peers = [peer for peer in range(nodes) if peer != node]
        self.connected = [True] * nodes  # rafthttp's peerStatus: what was last seen of the peer was good
        self.active_since = [-NOT_DIALLING] * nodes  # since when, own clock
        self.open = [True] * nodes  # the pair's connection stands, as far as is known here
        self.listening = [True] * nodes
        self.writers = [WRITER] * nodes
        self.heard = [0] * nodes
        self.asked = [False] * nodes  # for a stream, on a connection that the peer had opened
        self.syn_at = [0] * nodes  # own clock, at the newest SYN
        self.waited = [NOT_DIALLING] * nodes  # how old it was when the connection stood

    def start_streams(self, connected: bool) -> None:
        """Begin to show life and to listen; after a restart there are no connections yet."""
        if not self.peers:
            return
        period = self.settings.stream_timeout_us // 3
        self.set_timer("link", 1 + self.stream.below(period))
        self.heard = [self.now] * self.nodes
        self.set_timer("silence", self.settings.stream_timeout_us)
        if not connected:
            for peer in self.peers:
                self.connected[peer] = self.open[peer] = self.listening[peer] = False
                self.writers[peer] = NO_WRITER
                self.dial(peer)

    # ---- sending and receiving -------------------------------------------------------------------------------------------------------
    def post(self, peer: int, message: Message) -> bool:
        """Send, lose or drop; returns False where it was dropped: then Raft is told."""
        writer = self.writers[peer]
        if self.open[peer] and writer != LOST_WRITER:
            self.send(peer, message)
            return True
        return writer != NO_WRITER

    def show_life(self) -> None:
        """A writer's tick."""
        self.set_timer("link", self.settings.stream_timeout_us // 3)
        for peer in self.peers:
            if self.writers[peer] == WRITER:
                self.post(peer, LINK_HEARTBEAT)

    def check_silence(self) -> None:
        """Hang up on every peer that has been silent for too long; look again when the next could be."""
        limit = self.settings.stream_timeout_us
        oldest = self.now
        for peer in self.peers:
            if not self.listening[peer]:
                continue
            if self.now - self.heard[peer] >= limit:
                self.hang_up(peer)
            elif self.heard[peer] < oldest:
                oldest = self.heard[peer]
        self.set_timer("silence", oldest + limit - self.now + self.stream.below(GO_LATE_US))

    # ---- streams ---------------------------------------------------------------------------------------------------------------------
    def hang_up(self, peer: int) -> None:
        """The peer is silent: its stream is given up, and a dial begins."""
        self.listening[peer] = False
        self.dial_anew(peer)

    def dial_anew(self, peer: int) -> None:
        """A dial by a new connection: nobody answers on the present one."""
        self.open[peer] = False
        self.dial(peer)

    def dial(self, peer: int) -> None:
        """Begin a dial: a SYN, and the request that follows it where it is answered."""
        self.connected[peer] = self.asked[peer] = False
        self.set_timer(("dial", peer), self.settings.dial_patience_us + self.stream.below(GO_LATE_US))
        self.syn_sent(peer)
        if self.open[peer]:
            self.ask_for_stream(peer)
        else:
            self.connection_lost(peer)
            self.close(peer)
            self.connect(peer)

    def on_syn_timer(self, peer: int) -> None:
        """The kernel has sent a dial's SYN once more.  Where the peer has opened a connection meanwhile, it is answered."""
        self.syn_sent(peer)
        if self.open[peer]:
            self.ask_for_stream(peer)

    def syn_sent(self, peer: int) -> None:
        """Take note of it, and of when the kernel sends the next: as late as its timers are, for dials and cuts of whole seconds meet or miss each other
        by some milliseconds (9 s after a cut that lasts 10 s, a leader dials for the third time, and its second SYN goes out at 9.98 to 10.03 s)."""
        self.syn_at[peer] = self.now
        self.set_timer(("syn", peer), runs_out(self.now, DIAL_FIRST_US, self.kernel_phase) - self.now)

    def ask_for_stream(self, peer: int) -> None:
        """Ask on the connection that the peer has opened."""
        self.asked[peer] = True
        self.send(peer, Attach(0))

    def on_attach(self, src: int, message: Attach) -> None:
        """The peer reads what is written to it from now on; but not where its SYN was lost, and it was this member's that opened the connection.  Of two
        that went out within a jiffy, as they do where timers tick together, both were answered or none."""
        if message.waited < self.waited[src] + JIFFY_US:
            self.waited[src] = NOT_DIALLING
            self.writers[src] = WRITER
            self.stream_stands(src)
            self.send(src, ATTACHED)

    def on_attached(self, src: int, message: Attached) -> None:
        """This member reads what the peer writes."""
        self.listening[src] = True
        self.stream_stands(src)
        self.stop_dialling(src)

    def stream_stands(self, peer: int) -> None:
        """A stream with the peer is active (peerStatus.activate)."""
        if not self.connected[peer]:
            self.connected[peer], self.active_since[peer] = True, self.now
        self.open[peer] = True

    def connected_since(self, peer: int, since: int) -> bool:
        """Whether a stream was active before `since`, and has been all the time (etcdserver/util.go, isConnectedSince)."""
        return self.connected[peer] and self.active_since[peer] < since

    def stop_dialling(self, peer: int) -> None:
        self.cancel_timer(("dial", peer))
        self.cancel_timer(("syn", peer))

    # ---- connections -----------------------------------------------------------------------------------------------------------------
    def on_connected(self, peer: int) -> None:
        """Either side's dial has been answered: whose, the younger SYN tells.  A writer is as lost as it was; a reader that had not hung up goes on."""
        self.open[peer] = True
        self.connection_lost(peer)
        if self.writers[peer] == WRITER:
            self.writers[peer] = LOST_WRITER
        if self.listening[peer]:
            self.waited[peer] = NOT_DIALLING
            self.send(peer, Attach(0))
        else:
            self.waited[peer] = self.now - self.syn_at[peer]
            self.send(peer, Attach(self.waited[peer]))

    def on_disconnected(self, peer: int) -> None:
        """The peer's process is gone, it hung up, or it refused."""
        was_open, self.open[peer] = self.open[peer], False
        self.connected[peer] = False
        self.writers[peer] = NO_WRITER
        self.unreachable(peer)
        if self.listening[peer] or not was_open:
            self.listening[peer] = False
            self.stop_dialling(peer)
            self.set_timer(("dial", peer), self.settings.dial_retry_us)

    def connection_lost(self, peer: int) -> None:
        """What was under way on the pair's connection did not arrive."""

    def unreachable(self, peer: int) -> None:
        """Raft is told that what was sent may be lost."""
