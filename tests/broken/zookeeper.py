"""The `zookeeper` policy, broken on purpose: Zab (Junqueira, Reed and Serafini, DSN 2011), section IV."""

from __future__ import annotations

from capray.policies.zookeeper import zab_learner
from capray.policies.zookeeper.replica import ZooKeeper
from capray.policies.zookeeper.zab_election import Election
from capray.policies.zookeeper.zab_leader import Leader
from capray.policies.zookeeper.zab_learner import SERVING, Learner
from capray.policies.zookeeper.zab_messages import Ack, Notification, Proposal, Snap, Trunc
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
