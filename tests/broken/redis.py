"""The `redis` policy, broken on purpose: "Redis replication" and "High availability with Redis Sentinel" (redis.io), Redis 7.0's sources."""

from __future__ import annotations

from typing import Any

from capray.policies.redis.failover import Failover
from capray.policies.redis.messages import NOBODY, FullSync, Psync
from capray.policies.redis.replica import Redis
from capray.policies.redis.replication import Server
from capray.policies.redis.sentinel import Sentinel
from capray.policies.redis.watched import Watched
from capray.replica import Request


class QuorumFailover(Failover):
    """Takes the quorum for enough to lead."""

    def _leader(self) -> int:
        return self.owner.node if super()._leader() == self.owner.node or self.sentinel.o_down else -1


class QuorumSentinel(Sentinel):
    FAILOVER = QuorumFailover


class MinorityElects(Redis):
    """A failover that `quorum` Sentinels suffice for.  Violates Sentinel's rule that the quorum only detects a failure, while to lead the failover takes
    the votes of a majority: both sides of a cut have a primary, and the branch of one is lost."""

    SENTINEL = QuorumSentinel


class ReadsAtItsReplica(Redis):
    """A client that reads at its own node's Redis, whoever that follows.  Violates Sentinel's guidelines for clients (ask for the master's address):
    replication is asynchronous, so a replica's data is old."""

    def on_request(self, request: Request) -> None:
        if request.f == "read":
            self.reply(request.id, "ok", self.server.read(request.key))
        else:
            super().on_request(request)


class ForgetfulSentinel(Sentinel):
    """Never tells a replica that reports to be a primary."""

    def _no_down_for(self, each: Watched, us: int) -> bool:
        return False


class NeverConverts(Redis):
    """The deposed primary stays one.  Violates what Sentinel does when a partition heals, make it a replica of the new primary
    (sentinelRefreshInstanceInfo)."""

    SENTINEL = ForgetfulSentinel


class TrustingServer(Server):
    """Partial resynchronisation whatever the replication id and the offset."""

    def _can_continue(self, asked: Psync) -> bool:
        return self.base <= asked.offset


class BranchKept(Redis):
    """A deposed primary goes on from its own branch.  Violates PSYNC's condition (a partial resynchronisation needs the same replication id up to the
    offset): the truncation is forgotten."""

    SERVER = TrustingServer


class CarelessServer(Server):
    """Counts every replica that is attached, however long ago it was heard."""

    def _count_good(self) -> None:
        self.good_replicas = len(self.replicas)


class LagIgnored(Redis):
    """min-replicas-max-lag is not looked at.  Violates the condition of min-replicas-to-write (at least so many replicas with a lag of less than so many
    seconds): the loss in a cut is not bounded."""

    SERVER = CarelessServer


class BackwardsFailover(Failover):
    """Of the replicas in touch it takes the one that is least far."""

    def best_replica(self, now: int) -> Watched | None:
        if super().best_replica(now) is None:
            return None
        sentinel = self.sentinel
        seen = [each for each in sentinel.redis if each.node != sentinel.master and not each.s_down and not each.disconnected]
        return min(seen, key=lambda each: (each.offset, each.runid))


class BackwardsSentinel(Sentinel):
    FAILOVER = BackwardsFailover


class PromotesTheStalest(Redis):
    """A replica that missed much is promoted.  Violates sentinelSelectSlave (among equal priorities the largest offset; Sentinel documentation,
    "Replica selection and priority": "the replica that received more data from the master is selected"): what others have is lost."""

    SENTINEL = BackwardsSentinel


class RashSentinel(Sentinel):
    """Takes its own word for the others'."""

    def _check_objectively_down(self, now: int) -> None:
        down = self.redis[self.master].s_down
        if down and not self.o_down:
            self.o_down_since = now
        self.o_down = down


class QuorumNotAsked(Redis):
    """One Sentinel that does not hear the primary is enough for a failover.  Violates ODOWN ("the quorum is the number of Sentinels that need to agree about
    the fact the master is not reachable"): a primary that most can reach is deposed."""

    SENTINEL = RashSentinel


class GenerousSentinel(Sentinel):
    """Has a vote for each who asks."""

    def vote(self, epoch: int, candidate: int) -> tuple[int, int]:
        own = self.leader == self.owner.node and self.leader_epoch == epoch
        if epoch == self.leader_epoch == self.current_epoch and candidate not in (NOBODY, self.owner.node):
            if not own:
                self.leader = candidate
            return candidate, epoch
        return super().vote(epoch, candidate)


class VotesTwice(Redis):
    """A Sentinel votes for all who ask in an epoch.  Violates sentinel.c's "Each Sentinel can vote just one time per epoch" (Sentinel, "Configuration epochs":
    every failover has a version of its own): two lead failovers in one epoch, and where they see other replicas there are two primaries whose configurations
    are of one age, so that neither ever gives way.  Where all see all they promote the same replica, and no client notices."""

    SENTINEL = GenerousSentinel


class SecondIdServer(Server):
    """Its second replication id has no end."""

    def _can_continue(self, asked: Psync) -> bool:
        if len(self.lineage) > 1 and asked.replid == self.lineage[-2][0]:
            return self.base <= asked.offset
        return super()._can_continue(asked)


class SecondIdWithoutEnd(Redis):
    """A promoted replica lets the deposed primary go on from any offset of the old id.  Violates the second id's validity (Redis replication, "Replication ID
    explained"; masterTryPartialResync: only up to second_replid_offset): the deposed primary keeps its branch."""

    SERVER = SecondIdServer


class MergingServer(Server):
    """Loads a data set beside its own."""

    def on_full_sync(self, src: int, message: FullSync) -> None:
        before = dict(self.rows)
        super().on_full_sync(src, message)
        for key, row in before.items():
            if key not in self.rows:
                self.rows[key] = row
                self.owner.applied(key, row[4], row[:3])


class FullSyncMerges(Redis):
    """A full resynchronisation does not empty the replica first.  Violates it (Redis replication: a deposed primary discards its data set): keys that only the
    branch had are still there."""

    SERVER = MergingServer


class AppendsWithoutFsync(Redis):
    """appendonly always, and no fsync.  Violates redis.conf, "appendfsync always": what was acknowledged is gone when all hosts lose power."""

    def persist(self, record: Any, sync: bool = True) -> None:
        super().persist(record, False)
