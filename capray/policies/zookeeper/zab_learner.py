"""Zab's follower: DSN 2011, section IV, phases 1 to 3, "follower"; ZooKeeper 3.8, Follower.followLeader, Learner and FollowerZooKeeperServer.

Decides: how a server joins the leader that it elected, what it logs and acknowledges, when it gives the leader up.  May not know: whether the leader
is reachable: its socket times out after initLimit ticks of silence, and after syncLimit once it is in step.
The leader's outstanding proposals come before NEWLEADER, and are logged with it.  Until UPTODATE, the proposals and commits that follow NEWLEADER are set
aside (packetsNotCommitted, packetsCommitted); afterwards each proposal is logged, then acknowledged, and each commit is applied at once, also where this
server's own disk is not done with it.
A follower that misses a proposal (a network that loses what TCP would not) drops its leader and joins again (3.8 warns of it, and ends its process at the
commit).
NEWLEADER is acknowledged when the history is on disk, as the paper has it.  3.8.0 itself acknowledges it while its log is still being written
(ZOOKEEPER-4646), so that a follower that crashes in between lacks what it was counted for.
"""

from __future__ import annotations

from typing import Any

from capray.policies.zookeeper.zab_messages import (
    TRUNCATED,
    Ack,
    AckEpoch,
    Commit,
    Diff,
    FollowerInfo,
    LeaderInfo,
    NewLeader,
    NotLeading,
    Ping,
    Pong,
    Proposal,
    Refused,
    Revalidated,
    Snap,
    Synced,
    Trunc,
    UpToDate,
    make_zxid,
)
from capray.policies.zookeeper.zab_peer import QuorumPeer, Socket

GONE, REGISTERING, ACCEPTED, SYNCHRONIZING, IN_STEP, SERVING = range(6)
CONNECT_TRIES = 5  # Learner.connectToLeader


class Learner:
    """A follower of one leader, from the election until it gives it up."""

    def __init__(self, peer: QuorumPeer, leader: int) -> None:
        self.peer = peer
        self.leader = leader
        self.stage = REGISTERING
        self.epoch = 0
        self.tries = 0
        self.socket = Socket(peer, "follow")
        self.aside: list[Proposal | Commit] = []
        self.covered = 0  # how many transactions of the log NEWLEADER covers

    def start(self) -> None:
        """Connect to the leader."""
        self.socket.arm(self.peer.settings.init_limit * self.peer.settings.tick_time_us)
        self.register()

    def stop(self, closed: bool) -> None:
        """Learner.shutdown: close the socket, unless it has ended by itself."""
        self.stage = GONE
        self.peer.cancel_timer("follow")
        self.peer.cancel_timer("register")
        if not closed:
            self.peer.hang_up(self.leader)

    def on_timer(self) -> None:
        """Too much silence; or initLimit is over, and this server is not in step."""
        if self.socket.timed_out():
            self.peer.look()

    # ---- phase 1: discovery -----------------------------------------------------------------------------------------------------------
    def register(self) -> None:
        """FOLLOWERINFO."""
        self.tries += 1
        self.peer.send(self.leader, FollowerInfo(self.peer.accepted))

    def on_not_leading(self, message: NotLeading) -> None:
        """The leader is not ready: it tries again a little later, and not for ever."""
        if self.stage != REGISTERING:
            return
        if self.tries >= CONNECT_TRIES:
            self.peer.look()
        else:
            self.peer.set_timer("register", self.peer.settings.leader_connect_retry_us)

    def on_refused_dial(self) -> bool:
        """No process answered the dial.  Returns whether this follower tries again."""
        if self.stage != REGISTERING or self.tries >= CONNECT_TRIES:
            return False
        self.peer.set_timer("register", self.peer.settings.leader_connect_retry_us)
        return True

    def on_leader_info(self, message: LeaderInfo) -> None:
        """Accept the epoch, durably, if it is not older than one accepted before."""
        peer = self.peer
        if self.stage != REGISTERING:
            return
        if message.epoch < peer.accepted:
            peer.look()
            return
        self.stage = ACCEPTED
        self.epoch = message.epoch
        current, zxid = -1, peer.db.last_zxid()
        if message.epoch > peer.accepted:
            current = peer.current
            peer.accept_epoch(message.epoch)
        peer.send(self.leader, AckEpoch(message.epoch, current, zxid))

    # ---- phase 2: synchronisation -------------------------------------------------------------------------------------------------------
    def on_diff(self, message: Diff) -> None:
        """What is missing here."""
        if self._synchronizes(message.epoch):
            self._append(message.missing)

    def on_trunc(self, message: Trunc) -> None:
        """Transactions that the leader's history does not have are dropped."""
        if self._synchronizes(message.epoch):
            self.peer.db.truncate(message.zxid)
            self.peer.persist((TRUNCATED, message.zxid), sync=False)
            self._append(message.missing)

    def on_snap(self, message: Snap) -> None:
        """The leader's tree in place of this one."""
        if self._synchronizes(message.epoch):
            self.peer.db.replace(message)
            self.peer.persist(message, sync=False)

    def _synchronizes(self, epoch: int) -> bool:
        if self.stage != ACCEPTED or epoch != self.epoch:
            return False
        self.stage = SYNCHRONIZING
        return True

    def _append(self, missing: tuple[Proposal, ...]) -> None:
        for txn in missing:
            self.peer.db.append(txn)
            self.peer.persist(txn, sync=False)

    def on_new_leader(self, message: NewLeader) -> None:
        """All that came before is on disk, with the epoch, before it is acknowledged; what is not committed yet is logged behind it."""
        peer = self.peer
        if self.stage != SYNCHRONIZING or message.epoch != self.epoch:
            return
        self.stage = IN_STEP
        self.socket.arm(peer.settings.sync_limit * peer.settings.tick_time_us)
        self.covered = len(peer.db.log)
        peer.enter_epoch(self.epoch)
        peer.send(self.leader, Ack(make_zxid(self.epoch)))
        outstanding = [packet for packet in self.aside if type(packet) is Proposal]
        self.aside = [packet for packet in self.aside if type(packet) is Commit]
        for txn in outstanding:
            if not peer.db.follows(txn.zxid):
                peer.look()
                return
            peer.db.append(txn)
        self._log(outstanding)

    def _log(self, appended: list[Proposal]) -> None:
        """Write to disk, all at once, and acknowledge."""
        for txn in appended:
            self.peer.persist(txn, sync=txn is appended[-1])
        for txn in appended:
            self.peer.send(self.leader, Ack(txn.zxid))

    def on_up_to_date(self, message: UpToDate) -> None:
        """A quorum follows: everything that NEWLEADER covered is committed."""
        peer = self.peer
        if self.stage != IN_STEP or message.epoch != self.epoch:
            return
        self.stage = SERVING
        peer.db.commit_up_to(self.covered)
        peer.serve(self.epoch)
        aside, self.aside = self.aside, []
        logged = [packet for packet in aside if type(packet) is Proposal]
        for packet in aside:
            if type(packet) is Commit:
                self.on_commit(packet)
            elif peer.db.follows(packet.zxid) and type(packet) is Proposal:
                peer.db.append(packet)
            else:
                peer.look()
                return
        self._log(logged)

    # ---- phase 3: broadcast -----------------------------------------------------------------------------------------------------------
    def on_proposal(self, message: Proposal) -> None:
        """Log it, then acknowledge it."""
        peer = self.peer
        if self.stage == SERVING:
            if peer.db.follows(message.zxid):
                peer.write_ahead(message)
                peer.send(self.leader, Ack(message.zxid))
            else:
                peer.look()
        elif self.stage >= SYNCHRONIZING:
            self.aside.append(message)

    def on_commit(self, message: Commit) -> None:
        """Apply it, or set it aside; 3.8.0's learner fails on one that comes before UPTODATE where no newer proposal is set aside with it."""
        peer = self.peer
        if self.stage == SERVING:
            if peer.db.next_to_commit() == message.zxid:
                peer.committed(peer.db.commit())
            else:
                peer.look()
        elif self.stage == IN_STEP and peer.settings.fails_on_early_commit and not any(type(packet) is Proposal for packet in self.aside):
            peer.look()
        elif self.stage >= SYNCHRONIZING:
            self.aside.append(message)

    # ---- liveness and clients -----------------------------------------------------------------------------------------------------------
    def on_ping(self, message: Ping) -> None:
        """Answered with the sessions of the clients here."""
        self.peer.send(self.leader, Pong(self.peer.live_sessions()))

    def on_refused(self, message: Refused) -> None:
        """A request of ours came on an expired session."""
        self.peer.refused(message.id)

    def on_synced(self, message: Synced) -> None:
        """All that was proposed before our sync has been committed here."""
        self.peer.synced(message.id)

    def on_revalidated(self, message: Revalidated) -> None:
        """The leader says whether a reconnected client's session is alive."""
        self.peer.revalidated(message.session, message.valid)


def handlers(kind: type[Learner] = Learner) -> dict[type[Any], Any]:
    """What to do with each packet of the leader."""
    return {
        NotLeading: kind.on_not_leading,
        LeaderInfo: kind.on_leader_info,
        Diff: kind.on_diff,
        Trunc: kind.on_trunc,
        Snap: kind.on_snap,
        NewLeader: kind.on_new_leader,
        UpToDate: kind.on_up_to_date,
        Proposal: kind.on_proposal,
        Commit: kind.on_commit,
        Ping: kind.on_ping,
        Refused: kind.on_refused,
        Synced: kind.on_synced,
        Revalidated: kind.on_revalidated,
    }
