"""The `zookeeper` policy, broken on purpose: Zab (Junqueira, Reed and Serafini, DSN 2011), section IV."""

from __future__ import annotations

from typing import Any

from capray.policies.zookeeper import zab_leader, zab_learner
from capray.policies.zookeeper.replica import ZooKeeper
from capray.policies.zookeeper.zab_election import Election
from capray.policies.zookeeper.zab_leader import SYNCHRONIZATION, Leader
from capray.policies.zookeeper.zab_learner import SERVING, Learner
from capray.policies.zookeeper.zab_messages import ACCEPTED, CURRENT, Ack, Notification, Proposal, Snap, Trunc
from capray.policies.zookeeper.zab_peer import QuorumPeer


class HalfIsEnough(ZooKeeper):
    """Half of the ensemble is a quorum.  Violates the first thing that DSN 2011 asks of quorums, that any two intersect: both halves of four elect a leader
    and go on."""

    def is_quorum(self, voters: int) -> bool:
        return 2 * voters.bit_count() >= self.nodes


class EagerLearner(Learner):
    """Acknowledges a proposal that is not on disk."""

    def on_proposal(self, message: Proposal) -> None:
        peer = self.peer
        if self.stage == SERVING and peer.db.follows(message.zxid):
            peer.db.append(message)
            peer.send(self.leader, Ack(message.zxid))
        else:
            super().on_proposal(message)


class AckBeforeDisk(ZooKeeper):
    """Acknowledged before it is logged.  Violates phase 3 (DSN 2011, IV: a follower acknowledges once the proposal is on stable storage; ZOOKEEPER-4646 is
    a bug of this kind): what a quorum acknowledged is gone when its hosts lose power."""

    LEARNER = EagerLearner
    FROM_LEADER = zab_learner.handlers(EagerLearner)


class BlindElection(Election):
    """Votes for the larger server id, whatever its history."""

    def better(self, a: Notification, b: Notification) -> bool:
        return (a.epoch, a.leader) > (b.epoch, b.leader)


class CredulousLeader(Leader):
    """Takes its own history for the newest."""

    def __init__(self, peer: QuorumPeer) -> None:
        super().__init__(peer)
        self.own_history = (1 << 62, 0)


class HistoryIgnored(ZooKeeper):
    """Neither the election nor the discovery looks at zxids.  Violates phase 1 (DSN 2011, IV: the prospective leader takes the history that ends highest):
    a server that missed committed transactions leads, and theirs are dropped."""

    ELECTION = BlindElection
    LEADER = CredulousLeader


class ForgetfulLearner(Learner):
    """Keeps transactions that the leader's history does not have."""

    def on_trunc(self, message: Trunc) -> None:
        if self._synchronizes(message.epoch):
            self._append(message.missing)

    def on_snap(self, message: Snap) -> None:
        self._synchronizes(message.epoch)


class TruncationForgotten(ZooKeeper):
    """TRUNC and SNAP drop nothing.  Violates phase 2 (DSN 2011, IV: a follower's history becomes the leader's; LearnerHandler.syncFollower): a deposed
    leader keeps what was never committed."""

    LEARNER = ForgetfulLearner
    FROM_LEADER = zab_learner.handlers(ForgetfulLearner)


class CountingElection(Election):
    """Compares how far a history has counted in its epoch, not the epoch."""

    def better(self, a: Notification, b: Notification) -> bool:
        return (a.zxid & 0xFFFFFFFF, a.leader) > (b.zxid & 0xFFFFFFFF, b.leader)


class EpochIgnored(ZooKeeper):
    """Zxids are compared by their counters.  Violates the order of zxids (DSN 2011, III: <e, c> < <e', c'> if e < e', or e = e' and c < c'): a server whose
    long history ends in an old epoch leads, and what the newer epoch committed is dropped."""

    ELECTION = CountingElection
    LEADER = CredulousLeader


class LeaderAlone(Leader):
    """Commits what is on its own disk."""

    def on_ack(self, sid: int, message: Ack) -> None:
        if sid == self.peer.node and message.zxid in self.acks:
            self.acks[message.zxid] |= (1 << self.peer.nodes) - 1
        super().on_ack(sid, message)


class CommitsAlone(ZooKeeper):
    """A transaction is committed when the leader has logged it.  Violates phase 3 (DSN 2011, IV: commit upon acknowledgements from a quorum): a leader that is
    cut off acknowledges what the others never see."""

    LEADER = LeaderAlone
    FROM_LEARNER = zab_leader.handlers(LeaderAlone)


class StubbornLeader(Leader):
    """Does not ask whether a quorum follows."""

    def on_tick_timer(self) -> None:
        self.peer.is_quorum = lambda voters: True  # type: ignore[method-assign]
        super().on_tick_timer()
        del self.peer.is_quorum


class NeverStepsDown(ZooKeeper):
    """A leader whose quorum is silent goes on.  Violates Leader.lead's check each tick (Internals, "Leader Activation": a leader that loses its quorum stops):
    its clients read from a past that the others have left."""

    LEADER = StubbornLeader
    FROM_LEARNER = zab_leader.handlers(StubbornLeader)


class DeafLearner(Learner):
    """Its socket never times out."""

    def on_timer(self) -> None:
        self.socket.timed_out()


class NeverStops(ZooKeeper):
    """A follower whose leader is silent goes on serving.  Violates the read time-out of syncLimit x tickTime (Learner; Administrator's Guide, syncLimit:
    "if followers fall too far behind a leader, they will be dropped"): its reads grow old without bound."""

    LEARNER = DeafLearner
    FROM_LEADER = zab_learner.handlers(DeafLearner)


class EpochsForgotten(ZooKeeper):
    """Epochs are not on disk.  Violates the persistence of f.p and f.a in DSN 2011, the last epoch accepted and the last one entered (ZooKeeper's files
    acceptedEpoch and currentEpoch): who restarts votes as if its history were of no epoch, and one that lacks committed transactions leads."""

    def on_restart(self, journal: list[Any]) -> None:
        super().on_restart([record for record in journal if isinstance(record, Proposal | Snap) or record[0] not in (ACCEPTED, CURRENT)])


class HastyLeader(Leader):
    """Serves as soon as a quorum has accepted its epoch."""

    def _check_epoch_acks(self) -> None:
        super()._check_epoch_acks()
        if self.phase == SYNCHRONIZATION:
            self._begin_broadcast()


class ServesTooSoon(ZooKeeper):
    """A new leader serves before a quorum has its history.  Violates phase 2 (DSN 2011, IV: it delivers its initial history upon a quorum's acknowledgements of
    NEWLEADER): its clients read transactions of its own that the others, should they lose it now, never have."""

    LEADER = HastyLeader
    FROM_LEARNER = zab_leader.handlers(HastyLeader)
