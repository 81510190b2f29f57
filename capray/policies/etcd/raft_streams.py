"""How etcd's members stay connected: rafthttp's streams (etcd, server/etcdserver/api/rafthttp: peer.go, stream.go, pipeline.go).

Decides: when a connection is given up and dialled again, and what is not even sent.  May not know: Raft.
A stream is long-lived; its writer shows life every third of `stream_timeout`, and a reader that hears nothing for `stream_timeout` hangs up and
dials again, a new dial every `dial_timeout` while nobody answers.  A message to a peer without a connection is dropped and Raft is told that
the peer is unreachable: nothing queues for a peer that is away.  What went out before that is TCP's.
Simplified: the pipeline, which carries single messages by POST while a stream is down, dials no sooner than a stream's reader; it is left out.
"""

from __future__ import annotations

from typing import Any

from capray.policies.etcd.raft_messages import LinkHeartbeat
from capray.policies.etcd.settings import EtcdSettings
from capray.replica import Message, Replica

SYN_RETRY_US = 1_000_000  # tcp(7): the first retransmission of a SYN
TIMER_LATE_US = 64_000  # Linux's timer wheel: a timer of 0.5 to 4 s runs out up to 64 ms late (kernel/time/timer.c, HZ 1000, level 2)
LINK_HEARTBEAT = LinkHeartbeat()


class Streams(Replica):
    """The part of a member that talks to its peers."""

    settings: EtcdSettings

    def __init__(self, node: int, nodes: int, settings: Any, stream: Any) -> None:
        super().__init__(node, nodes, settings, stream)
        self.peers = [peer for peer in range(nodes) if peer != node]
        self.connected = [True] * nodes
        self.heard = [0] * nodes

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
                self.connected[peer] = False
                self.dial(peer)

    # ---- sending and receiving -------------------------------------------------------------------------------------------------------
    def post(self, peer: int, message: Message) -> bool:
        """Send, or drop where no connection is open; returns whether it was sent."""
        if self.connected[peer]:
            self.send(peer, message)
            return True
        return False

    def show_life(self) -> None:
        """A writer's tick."""
        self.set_timer("link", self.settings.stream_timeout_us // 3)
        for peer in self.peers:
            self.post(peer, LINK_HEARTBEAT)

    def check_silence(self) -> None:
        """Hang up on every peer that has been silent for too long; look again when the next could be."""
        limit = self.settings.stream_timeout_us
        oldest = self.now
        for peer in self.peers:
            if not self.connected[peer]:
                continue
            if self.now - self.heard[peer] >= limit:
                self.hang_up(peer)
            elif self.heard[peer] < oldest:
                oldest = self.heard[peer]
        self.set_timer("silence", oldest + limit - self.now)

    # ---- connections -----------------------------------------------------------------------------------------------------------------
    def hang_up(self, peer: int) -> None:
        """The peer is silent: what is under way on the stream is lost, and a dial begins."""
        self.close(peer)
        self.connected[peer] = False
        self.unreachable(peer)
        self.dial(peer)

    def dial(self, peer: int) -> None:
        """Begin a dial, in place of one that has found nobody."""
        self.close(peer)
        self.connect(peer)
        self.set_timer(("dial", peer), self.settings.dial_patience_us)
        if self.settings.dial_patience_us > SYN_RETRY_US + TIMER_LATE_US:
            self.set_timer(("syn", peer), SYN_RETRY_US + self.stream.below(TIMER_LATE_US))

    def retry_syn(self, peer: int) -> None:
        """The dial's next SYN, as late as a kernel's timer is: dials and cuts of whole seconds would else always miss each other by the same hair."""
        self.close(peer)
        self.connect(peer)

    def stop_dialling(self, peer: int) -> None:
        self.cancel_timer(("dial", peer))
        self.cancel_timer(("syn", peer))

    def on_connected(self, peer: int) -> None:
        """Either side's dial has been answered."""
        self.connected[peer] = True
        self.heard[peer] = self.now
        self.stop_dialling(peer)

    def on_disconnected(self, peer: int) -> None:
        """The peer hung up, its process is gone, or it refused: dial again soon."""
        self.connected[peer] = False
        self.unreachable(peer)
        self.stop_dialling(peer)
        self.set_timer(("dial", peer), self.settings.dial_retry_us)

    def unreachable(self, peer: int) -> None:
        """Raft is told that what was sent may be lost."""
