"""The `redis` policy, broken on purpose: "Redis replication" and "High availability with Redis Sentinel" (redis.io), Redis 7.0's sources."""

from __future__ import annotations

from capray.policies.redis.failover import Failover
from capray.policies.redis.messages import Psync
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
