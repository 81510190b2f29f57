"""Fast leader election: ZooKeeper 3.8, FastLeaderElection.lookForLeader and QuorumCnxManager; ZooKeeper Internals, "Leader Activation".

Decides: for whom this server votes, when it sends its vote again, when it takes an election for decided.  May not know: what a leader does,
whether a peer is reachable.
A vote is (epoch, zxid, server id), compared in this order.  A server votes for itself, takes over any better vote that it hears of and says so to
all; when a quorum says the same it waits `finalize_wait` for a better vote, and then leads or follows.  Who is not looking answers a looking
server with the vote that it settled on; a looking server joins when a quorum of such answers names a leader that itself answered so.
Votes are sent again after a pause that doubles, from 200 ms to 60 s, and is counted from the last notification.

QuorumCnxManager's connections outlive their quorum's; ours is one with the learner's socket (capray/policies/zookeeper/zab_peer.py).  Where that was closed,
dials take the place of TCP's retransmissions of the vote: at once, and 0.2, 0.6, 1.4, 3.0, ... s after the first.  Only the last vote for each
peer is kept, and it is sent again on a new connection, as QuorumCnxManager does.
So the way back grows with the cut: five servers 3.8.0 in namespaces took .9, 2.1 to 2.8, 2.9 to 4.6, 6.5 to 8.2, 4.6 to 4.9 and 28 to 29 s after cuts of 10,
15, 20, 30, 60 and 90 s; simulated they take .7, 2.0, 3.6, 6.6, 4.2 and 27.4.  After 20 s in which only one direction of a leader, or of a follower, was cut:
3.5 to 3.9 s, simulated 3.2 to 3.9; a bridge: 3.6, simulated 3.4 to 3.6.
"""

from __future__ import annotations

from capray.policies.zookeeper.zab_messages import FOLLOWING, LEADING, LOOKING, Notification
from capray.policies.zookeeper.zab_peer import QuorumPeer
from capray.tcp import JIFFY_US, RTO_FIRST_US, RTO_MAX_US, runs_out

RTO_US = RTO_FIRST_US + JIFFY_US  # Linux adds the smoothed round trip to its least time-out, in whole jiffies; a server does not know the link's
SILENT_DIAL_US = 900_000  # a dial in place of a retransmission: ended before the system's own second SYN, 1 s after the first


def same(a: Notification, b: Notification) -> bool:
    """Vote.equals: settled votes agree where leader and epoch do (ZOOKEEPER-1732); others in everything."""
    if a.leader != b.leader or a.epoch != b.epoch:
        return False
    return (a.state != LOOKING and b.state != LOOKING) or (a.zxid == b.zxid and a.round == b.round)


class Channel:
    """What QuorumCnxManager keeps for one peer."""

    def __init__(self, up: bool) -> None:
        self.up = up
        self.last: Notification | None = None
        self.dialled: Notification | None = None  # what the dial under way will deliver
        self.hung_up = False  # it was closed as a learner's socket: in reality the votes' connection is still there
        self.pause_us = 0  # between retransmissions, where it was hung up (0: none begun)
        self.rest_us = 0  # what is left of the pause when the dial in place of a retransmission is ended


class Channels:
    """QuorumCnxManager: the last notification for each peer, dialling, and the stand-in for retransmission."""

    def __init__(self, peer: QuorumPeer, up: bool) -> None:
        self.peer = peer
        self.to = [Channel(up) for _ in range(peer.nodes)]

    def tell(self, to: int, notification: Notification) -> None:
        """Send a peer this notification, in place of any that has not left."""
        channel = self.to[to]
        channel.last = notification
        if channel.up:
            self.peer.send(to, notification)
        elif not channel.hung_up:
            self._dial(to, channel)
            self.peer.set_timer(("dial", to), self.peer.settings.connection_timeout_us)
        elif not channel.pause_us:
            self._retransmit(to, channel)

    def _dial(self, to: int, channel: Channel) -> None:
        if channel.dialled is not None:
            self.peer.close(to)  # the dial under way starts anew, without its queue
        channel.dialled = channel.last
        if channel.last is not None:
            self.peer.send(to, channel.last)

    def _retransmit(self, to: int, channel: Channel) -> None:
        """The pause doubles, as TCP's time-out does, and ends when the host's kernel next looks at timers of its length."""
        channel.pause_us = min(2 * channel.pause_us, RTO_MAX_US) or RTO_US
        lasts = runs_out(self.peer.now, channel.pause_us, self.peer.kernel_phase) - self.peer.now
        now = min(lasts, SILENT_DIAL_US)
        channel.rest_us = lasts - now
        self._dial(to, channel)
        self.peer.set_timer(("dial", to), now)

    def on_dial_timer(self, to: int) -> None:
        """The dial took too long, or the next one is due."""
        channel = self.to[to]
        if channel.up:
            return
        if channel.hung_up and not channel.rest_us:
            self._retransmit(to, channel)
            return
        if channel.dialled is not None:
            channel.dialled = None
            self.peer.close(to)
        if channel.hung_up:
            self.peer.set_timer(("dial", to), channel.rest_us)
            channel.rest_us = 0

    def on_connected(self, to: int) -> None:
        """SendWorker: "send the lastMessage to ensure that the last message was received by the peer"."""
        channel = self.to[to]
        dialled, channel.dialled = channel.dialled, None
        channel.up = True
        channel.hung_up = False
        self.peer.cancel_timer(("dial", to))
        if channel.last is not None and channel.last is not dialled:
            self.peer.send(to, channel.last)

    def on_disconnected(self, to: int) -> None:
        """The connection ended, or a dial was refused: that one waits for the next notification.  Whether the peer closed a learner's socket, and still has
        the votes' connection, or its process is gone, the next dial tells: by a refusal."""
        channel = self.to[to]
        was_up, channel.up = channel.up, False
        channel.dialled = None
        channel.hung_up = was_up
        channel.pause_us = 0
        self.peer.cancel_timer(("dial", to))
        if was_up and self.peer.state == LOOKING and channel.last is not None:
            self.tell(to, channel.last)

    def hang_up(self, to: int) -> None:
        """Close the connection."""
        channel = self.to[to]
        if channel.up:
            channel.up = False
            channel.hung_up = True
            channel.pause_us = 0
            self.peer.close(to)


class Election:
    """One server's part in the elections of its life."""

    def __init__(self, peer: QuorumPeer, channels: Channels) -> None:
        self.peer = peer
        self.channels = channels
        self.round = 0  # logicalclock
        self.vote = Notification(peer.node, 0, 0, 0, LOOKING)  # proposed while looking; settled on afterwards
        self.received: dict[int, Notification] = {}  # recvset: this round's
        self.outside: dict[int, Notification] = {}  # outofelection: of those who are not looking
        self.agreeing = 0  # bits of those in `received` whose vote is ours
        self.pause_us = 0
        self.finalizing = False

    def start(self) -> None:
        """Look for a leader."""
        self.round += 1
        self.received.clear()
        self.outside.clear()
        self.finalizing = False
        self.pause_us = self.peer.settings.min_notification_us
        self._propose(self._own())
        self._announce()
        if not self.finalizing:
            self.peer.set_timer("vote", self.pause_us)

    def update_epoch(self, epoch: int) -> None:
        """updateElectionVote: answer those who look with the epoch that was established."""
        vote = self.vote
        self.vote = Notification(vote.leader, vote.zxid, epoch, vote.round, vote.state)

    # ---- events -----------------------------------------------------------------------------------------------------------------------
    def on_timer(self) -> None:
        """Nothing better came within the finalise wait; or nothing came at all, and votes are sent again."""
        if self.finalizing:
            self._decide(self.vote)
            return
        self._announce()
        self.pause_us = min(2 * self.pause_us, self.peer.settings.max_notification_us)
        if not self.finalizing:
            self.peer.set_timer("vote", self.pause_us)

    def on_notification(self, src: int, n: Notification) -> None:
        """A vote, ours to count while we look, and to answer where its sender looks and is behind."""
        if self.peer.state != LOOKING:
            if n.state == LOOKING:
                self.channels.tell(src, self.vote)
            return
        if n.state == LOOKING and n.round < self.round:
            self.channels.tell(src, self.vote)
        if self.finalizing and not self.better(n, self.vote):
            self.peer.set_timer("vote", self.peer.settings.finalize_wait_us)
            return
        self.finalizing = False
        if n.state == LOOKING:
            self._count(src, n)
        elif self._join(src, n):
            return
        if not self.finalizing:
            self.peer.set_timer("vote", self.pause_us)

    def better(self, a: Notification, b: Notification) -> bool:
        """totalOrderPredicate: the newer epoch; in one epoch the longer history; then the larger server id."""
        return (a.epoch, a.zxid, a.leader) > (b.epoch, b.zxid, b.leader)

    # ---- inside -----------------------------------------------------------------------------------------------------------------------
    def _own(self) -> Notification:
        return Notification(self.peer.node, self.peer.db.last_zxid(), self.peer.current, self.round, LOOKING)

    def _propose(self, vote: Notification) -> None:
        self.vote = Notification(vote.leader, vote.zxid, vote.epoch, self.round, LOOKING)
        self.agreeing = 0
        for src, n in self.received.items():
            if same(n, self.vote):
                self.agreeing |= 1 << src

    def _announce(self) -> None:
        for other in range(self.peer.nodes):
            if other != self.peer.node:
                self.channels.tell(other, self.vote)
        self._record(self.peer.node, self.vote)

    def _count(self, src: int, n: Notification) -> None:
        if n.round > self.round:
            self.round = n.round
            self.received.clear()
            own = self._own()
            self._propose(n if self.better(n, own) else own)
            self._announce()
        elif n.round < self.round:
            return
        elif self.better(n, self.vote):
            self._propose(n)
            self._announce()
        self._record(src, n)

    def _record(self, src: int, n: Notification) -> None:
        """Count a vote of this round; a quorum for ours starts the finalise wait."""
        self.received[src] = n
        if same(n, self.vote):
            self.agreeing |= 1 << src
        else:
            self.agreeing &= ~(1 << src)
        if self.peer.is_quorum(self.agreeing):
            self.finalizing = True
            self.peer.set_timer("vote", self.peer.settings.finalize_wait_us)

    def _join(self, src: int, n: Notification) -> bool:
        """One who is not looking says whom it follows.  Returns whether that decided the election."""
        if n.round == self.round:
            self.received[src] = n
            if not same(n, self.vote):
                self.agreeing &= ~(1 << src)
            if self._established(self.received, n):
                self._decide(n)
                return True
        self.outside[src] = n
        if self._established(self.outside, n):
            self.round = n.round
            self._decide(n)
            return True
        return False

    def _established(self, votes: dict[int, Notification], n: Notification) -> bool:
        """A quorum names the leader of `n`, and the leader itself says that it leads (checkLeader: or peers would elect a crashed server over
        and over)."""
        if n.leader == self.peer.node:
            leads = n.round == self.round
        else:
            leads = n.leader in votes and votes[n.leader].state == LEADING
        return leads and self.peer.is_quorum(sum(1 << src for src, vote in votes.items() if same(vote, n)))

    def _decide(self, n: Notification) -> None:
        self.finalizing = False
        self.peer.cancel_timer("vote")
        self.vote = Notification(n.leader, n.zxid, n.epoch, n.round, LEADING if n.leader == self.peer.node else FOLLOWING)
        self.peer.elected(n.leader)
