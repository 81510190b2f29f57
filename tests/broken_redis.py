"""Redis broken on purpose: each class is the sound policy with one thing wrong, for `capray run --policy broken_redis:<class>` (this directory on the
path) and for test_policy_redis.py; SCHEDULES has, for each, the set-up and the cut that expose it, and what the sound policy shows there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from capray.policies.redis.failover import Failover
from capray.policies.redis.messages import Psync
from capray.policies.redis.replica import Redis
from capray.policies.redis.replication import Server
from capray.policies.redis.sentinel import Sentinel
from capray.policies.redis.watched import Watched
from capray.replica import Request
from capray.scenario import Scenario, from_dict


class QuorumFailover(Failover):
    """Takes the quorum for enough to lead."""

    def _leader(self) -> int:
        return self.owner.node if super()._leader() == self.owner.node or self.sentinel.o_down else -1


class QuorumSentinel(Sentinel):
    FAILOVER = QuorumFailover


class MinorityElects(Redis):
    """A failover that `quorum` Sentinels suffice for: a quorum that does not intersect."""

    SENTINEL = QuorumSentinel


class ReadsAtItsReplica(Redis):
    """A client that reads at its own node's Redis, whoever that follows."""

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
    """The deposed primary stays one."""

    SENTINEL = ForgetfulSentinel


class TrustingServer(Server):
    """Partial resynchronisation whatever the replication id and the offset."""

    def _can_continue(self, asked: Psync) -> bool:
        return self.base <= asked.offset


class BranchKept(Redis):
    """The truncation is forgotten: a deposed primary goes on from its own branch."""

    SERVER = TrustingServer


class CarelessServer(Server):
    """Counts every replica that is attached, however long ago it was heard."""

    def _count_good(self) -> None:
        self.good_replicas = len(self.replicas)


class LagIgnored(Redis):
    """min-replicas-max-lag is not looked at."""

    SERVER = CarelessServer


Row = dict[str, Any]


class Schedule(NamedTuple):
    """The cut that exposes a bug, and what holds of a measurement where there is none."""

    cut: str
    cut_s: int
    settings: dict[str, Any]
    sound: Callable[[Row], bool]


FOLLOWERS, LEADER = "3,4|0,1,2", "0,1|2,3,4"
SCHEDULES: dict[type[Redis], Schedule] = {
    MinorityElects: Schedule(FOLLOWERS, 12, {"quorum": 2}, lambda row: row["linearizable"] == "valid" and row["lost_writes"] == 0),
    ReadsAtItsReplica: Schedule(FOLLOWERS, 12, {"quorum": 3}, lambda row: row["linearizable"] == "valid" and row["stale_reads"] == 0),
    NeverConverts: Schedule(LEADER, 12, {"quorum": 3}, lambda row: row["divergence_final"] == 0),
    BranchKept: Schedule(LEADER, 12, {"quorum": 3}, lambda row: row["divergence_final"] == 0),
    LagIgnored: Schedule(LEADER, 25, {"quorum": 3, "min_replicas_to_write": 2}, lambda row: row["lost_writes"] <= 2 * RATE * 14),
}
RATE = 6


def scenario(policy: str, schedule: Schedule) -> Scenario:
    """A cut after 8 s, and 40 s to come together again; so many keys that not each is written again."""
    return from_dict(
        {
            "policy": policy,
            "nodes": 5,
            "settings": {"down_after_us": 5_000_000, **schedule.settings},
            "duration_us": (48 + schedule.cut_s) * 1_000_000,
            "workload": {"rate": 2 * RATE, "keys": 300, "arrivals": "even"},
            "faults": [{"at_us": 8_000_000, "for_us": schedule.cut_s * 1_000_000, "shape": schedule.cut}],
        }
    )
