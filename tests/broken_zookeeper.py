"""ZooKeeper broken on purpose: each class is the sound policy with one thing wrong, for `capray run --policy broken_zookeeper:<class>` (this
directory on the path) and for test_policy_zookeeper.py; SCHEDULES has, for each, the cluster and the faults that expose it."""

from __future__ import annotations

from capray.faults import Fault
from capray.policies.zookeeper import zab_learner
from capray.policies.zookeeper.replica import ZooKeeper
from capray.policies.zookeeper.zab_election import Election
from capray.policies.zookeeper.zab_leader import Leader
from capray.policies.zookeeper.zab_learner import SERVING, Learner
from capray.policies.zookeeper.zab_messages import Ack, Notification, Proposal, Snap, Trunc
from capray.policies.zookeeper.zab_peer import QuorumPeer


class HalfIsEnough(ZooKeeper):
    """A quorum that does not intersect: half of the ensemble."""

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
    """Acknowledged before it is logged."""

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
    """Neither the election nor the discovery looks at zxids."""

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
    """TRUNC and SNAP drop nothing."""

    LEARNER = ForgetfulLearner
    FROM_LEADER = zab_learner.handlers(ForgetfulLearner)


SECOND = 1_000_000
SYNC = {"read_mode": "sync"}  # no leader is cut off in these schedules, so every read is fresh
SCHEDULES: dict[type[ZooKeeper], tuple[int, dict[str, str], tuple[Fault, ...]]] = {
    HalfIsEnough: (4, {}, (Fault(shape="0,1|2,3", at_us=3 * SECOND, for_us=20 * SECOND),)),
    AckBeforeDisk: (
        3,
        SYNC,
        (
            Fault(kind="crash-host", nodes=(0, 1), at_us=3 * SECOND, for_us=SECOND),
            Fault(kind="crash-host", nodes=(2,), at_us=3 * SECOND, for_us=5 * SECOND),
        ),
    ),
    HistoryIgnored: (
        3,
        SYNC,
        (
            Fault(kind="crash-process", nodes=(2,), at_us=2 * SECOND, for_us=SECOND),
            Fault(shape="2|0,1", at_us=5 * SECOND, for_us=2 * SECOND),
            Fault(kind="crash-process", nodes=(0, 2), at_us=6 * SECOND, for_us=2 * SECOND),
            Fault(kind="crash-process", nodes=(1,), at_us=6 * SECOND, for_us=8 * SECOND),
        ),
    ),
    TruncationForgotten: (3, {}, (Fault(shape="leader-minority", at_us=3 * SECOND, for_us=15 * SECOND),)),
}
