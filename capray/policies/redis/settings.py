"""Settings of the `redis` policy: redis.conf and sentinel.conf by their names.

Defaults are those of Redis 7.0's redis.conf, sentinel.conf and sentinel.c.  Redis 2.6, which Jepsen cut in 2013: `down_after` 5 s, `quorum` 3,
`failover_delay` 5 s, `failover_delay_jitter` 10 s (sentinel.c 2.6: SENTINEL_FAILOVER_FIXED_DELAY, SENTINEL_FAILOVER_MAX_RANDOM_DELAY).
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from capray.replica import Settings

TIMES = ("down_after_us", "failover_timeout_us", "repl_timeout_us", "repl_ping_replica_period_us", "query_timeout_us", "connect_timeout_us")
DELAYS = ("failover_delay_us", "failover_delay_jitter_us", "min_replicas_max_lag_us", "repl_diskless_sync_delay_us", "repl_backlog_size")


class RedisSettings(Settings, frozen=True):
    """One primary, replicas and Sentinels on all nodes, clients on all nodes."""

    primary: Annotated[int, Meta(description="the node that is primary at first; an index from 0; by choice: node 0")] = 0
    down_after_us: Annotated[
        int, Meta(description="silence after which a Sentinel takes a process for down; microseconds; sentinel.conf 7.0: 30 s; Jepsen (2.6): 5 s")
    ] = 30_000_000
    quorum: Annotated[int, Meta(description="Sentinels that must agree that the primary is down; a number; sentinel.conf 7.0: 2; Jepsen: 3")] = 2
    failover_timeout_us: Annotated[
        int,
        Meta(description="after which a failover's step is given up; twice it, the pause before the next; microseconds; sentinel.conf 7.0: 180 s"),
    ] = 180_000_000
    parallel_syncs: Annotated[int, Meta(description="replicas told of a new primary at the same time; a number; sentinel.conf 7.0: 1")] = 1
    failover_delay_us: Annotated[int, Meta(description="a fixed wait before a failover; microseconds; sentinel.c 7.0: none; 2.6: 5 s")] = 0
    failover_delay_jitter_us: Annotated[
        int, Meta(description="and a random one, uniform up to this; microseconds; sentinel.c 7.0: none; 2.6: 10 s")
    ] = 0
    replica_priorities: Annotated[
        tuple[int, ...], Meta(description="replica-priority of each node, 0: never promoted, empty: 100 for all; numbers; redis.conf 7.0: 100")
    ] = ()
    min_replicas_to_write: Annotated[
        int, Meta(description="a primary refuses writes with fewer replicas in touch; a number, 0: off; redis.conf 7.0: 0")
    ] = 0
    min_replicas_max_lag_us: Annotated[
        int, Meta(description="a replica is in touch that acknowledged within it, in whole seconds (0: no minimum); microseconds; redis.conf 7.0: 10 s")
    ] = 10_000_000
    repl_timeout_us: Annotated[
        int, Meta(description="silence after which a replication link is closed, by either side; microseconds; redis.conf 7.0: 60 s")
    ] = 60_000_000
    repl_ping_replica_period_us: Annotated[int, Meta(description="a primary pings its replicas this often; microseconds; redis.conf 7.0: 10 s")] = (
        10_000_000
    )
    repl_backlog_size: Annotated[
        int, Meta(description="stream kept for partial resynchronisation; bytes, 100 for each write; redis.conf 7.0: 1 MB")
    ] = 1_048_576
    repl_diskless_sync_delay_us: Annotated[
        int, Meta(description="a full resynchronisation waits so long for more replicas to come, in whole seconds; microseconds; redis.conf 7.0: 5 s")
    ] = 5_000_000
    appendonly: Annotated[
        Literal["no", "everysec", "always"], Meta(description="append-only file, and when it is synced; redis.conf 7.0: no (snapshots only)")
    ] = "no"
    query_timeout_us: Annotated[
        int, Meta(description="a client gives up a command that was sent; microseconds; 1 s as the measured run's (reference/real_servers.md)")
    ] = 1_000_000
    connect_timeout_us: Annotated[
        int, Meta(description="a client gives up a command that it could not send; microseconds; 0.9 s: within the clients' 1 s deadline")
    ] = 900_000

    def problems(self, nodes: int) -> list[str]:
        checks = [
            ("primary", self.primary, 0 <= self.primary < nodes, f"a node from 0 to {nodes - 1}"),
            ("quorum", self.quorum, 1 <= self.quorum <= max(nodes, 2), f"a number of Sentinels from 1 to {max(nodes, 2)}"),
            ("parallel_syncs", self.parallel_syncs, self.parallel_syncs >= 1, "a whole number from 1"),
            (
                "min_replicas_to_write",
                self.min_replicas_to_write,
                0 <= self.min_replicas_to_write < max(nodes, 2),
                f"a number of replicas from 0 to {max(nodes, 2) - 1}",
            ),
            (
                "replica_priorities",
                self.replica_priorities,
                len(self.replica_priorities) in (0, nodes) and min(self.replica_priorities, default=0) >= 0,
                f"nothing, or {nodes} whole numbers from 0",
            ),
        ]
        checks += [(name, getattr(self, name), getattr(self, name) >= 1, "at least 1 microsecond") for name in TIMES]
        checks += [(name, getattr(self, name), getattr(self, name) >= 0, "0 or more") for name in DELAYS]
        return [f"{name}: {value!r} is not accepted; it takes {accepts}" for name, value, fine, accepts in checks if not fine]
