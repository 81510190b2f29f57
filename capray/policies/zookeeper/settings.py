"""ZooKeeper's settings: Administrator's Guide 3.8 ("Configuration Parameters"), and the constants of its source where the guide is silent.

Decides: names, units, defaults and what is refused.  May not know: what they do.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from capray.errors import show_us, wrong
from capray.replica import Settings

LEAST = {
    "tick_time_us": 1000,
    "init_limit": 1,
    "sync_limit": 1,
    "finalize_wait_us": 1,
    "min_notification_us": 1,
    "max_notification_us": 1,
    "connection_timeout_us": 1,
    "leader_connect_retry_us": 1,
    "leader_port_us": 0,
    "commit_log_count": 1,
    "session_timeout_us": 1,
    "client_retry_min_us": 1,
    "client_retry_max_us": 1,
}


class ZooKeeperSettings(Settings, frozen=True, kw_only=True):
    """ZooKeeper 3.8's configuration, and that of its clients as in the measured runs (reference/real_servers.md)."""

    tick_time_us: Annotated[
        int, Meta(description="tickTime, the unit of the limits; the leader pings each half of it; microseconds; 2 s, zoo_sample.cfg 3.8")
    ] = 2_000_000
    tick_phase_us: Annotated[
        int | None,
        Meta(
            description="how far into a tick the first leader is when it begins to serve; microseconds; none: drawn for each trial, since it "
            "stands for one that has led for long; by choice"
        ),
    ] = None
    tick_phase_width_us: Annotated[
        int, Meta(description="where tick_phase is given: it is drawn for each trial, up to so much later; microseconds; 0, by choice")
    ] = 0
    init_limit: Annotated[
        int, Meta(description="initLimit: ticks in which a follower must have connected to its leader and be in step; 10, zoo_sample.cfg 3.8")
    ] = 10
    sync_limit: Annotated[
        int, Meta(description="syncLimit: ticks of silence after which leader and follower give each other up; 5, zoo_sample.cfg 3.8")
    ] = 5
    finalize_wait_us: Annotated[
        int, Meta(description="how long an elected server waits for a better vote; microseconds; 200 ms, FastLeaderElection.finalizeWait 3.8")
    ] = 200_000
    min_notification_us: Annotated[
        int, Meta(description="first pause before votes are sent again; microseconds; 200 ms, FastLeaderElection.minNotificationInterval 3.8")
    ] = 200_000
    max_notification_us: Annotated[
        int, Meta(description="the pause doubles up to this; microseconds; 60 s, FastLeaderElection.maxNotificationInterval 3.8")
    ] = 60_000_000
    connection_timeout_us: Annotated[
        int, Meta(description="a dial of the election's connection is given up; microseconds; 5 s, zookeeper.cnxTimeout 3.8")
    ] = 5_000_000
    leader_connect_retry_us: Annotated[
        int, Meta(description="pause after a leader's port refused; microseconds; 100 ms, zookeeper.leaderConnectDelayDuringRetryMs 3.8")
    ] = 100_000
    leader_port_us: Annotated[
        int,
        Meta(
            description="a leader's port opens so long after its election; microseconds; 7 ms: in 15 elections of own servers 3.8.0 followers that came up to 6 ms "
            "after it were refused, and none from 8 ms on"
        ),
    ] = 7_000
    commit_log_count: Annotated[
        int, Meta(description="committed transactions that a leader keeps to send as DIFF; 500, zookeeper.commitLogCount 3.8 (a real server takes no fewer)")
    ] = 500
    txn_log_sync: Annotated[
        bool,
        Meta(
            description="whether a leader also reads its newest log file to send DIFF; true, as zookeeper.snapshotSizeFactor 3.8, 0.33, does (negative: false)"
        ),
    ] = True
    fails_on_early_commit: Annotated[
        bool,
        Meta(
            description="a learner that hears between NEWLEADER and UPTODATE that a proposal sent before them is committed fails, unless another proposal came "
            "meanwhile, and looks for its leader anew (NullPointerException in Learner.syncWithLeader, ZOOKEEPER-4394, mended in 3.9.3); true, as 3.8.0 does"
        ),
    ] = True
    read_mode: Annotated[
        Literal["local", "sync"],
        Meta(description="local: the connected server answers at once; sync: sync() before each read; local, the client library's getData"),
    ] = "local"
    sessions: Annotated[
        Literal["split", "shared"],
        Meta(
            description="a client's sessions, each first in, first out: split: one for reads and one for writes; shared: one for both, on which a "
            "stuck write blocks the reads behind it; split, as in the measured runs"
        ),
    ] = "split"
    session_timeout_us: Annotated[
        int,
        Meta(description="time-out that clients ask for; the server grants 2 to 20 ticks; microseconds; 10 s, kazoo 2.8 and the measured runs"),
    ] = 10_000_000
    client_retry_min_us: Annotated[
        int, Meta(description="a client without a connection tries again after at least this; microseconds; 0.1 s, the measured runs")
    ] = 100_000
    client_retry_max_us: Annotated[
        int, Meta(description="and at most this; microseconds; 0.3 s, the measured runs")
    ] = 300_000

    def problems(self, nodes: int) -> list[str]:
        found = []
        for field, least in LEAST.items():
            value = getattr(self, field)
            if value < least:
                found.append(str(wrong(field.removesuffix("_us"), value, f"at least {least}{' microseconds' if field.endswith('_us') else ''}")))
        for upper, lower in (("max_notification", "min_notification"), ("client_retry_max", "client_retry_min")):
            top, bottom = getattr(self, upper + "_us"), getattr(self, lower + "_us")
            if top < bottom:
                found.append(str(wrong(upper, show_us(top), f"at least {lower}, {show_us(bottom)}")))
        if self.tick_phase_us is not None and not 0 <= self.tick_phase_us < self.tick_time_us:
            found.append(str(wrong("tick_phase", show_us(self.tick_phase_us), f"a duration below tick_time, {show_us(self.tick_time_us)}")))
        if not 0 <= self.tick_phase_width_us <= self.tick_time_us:
            found.append(str(wrong("tick_phase_width", show_us(self.tick_phase_width_us), f"a duration up to tick_time, {show_us(self.tick_time_us)}")))
        return found

    def granted_session_timeout_us(self) -> int:
        """minSessionTimeout 2 ticks, maxSessionTimeout 20 ticks (Administrator's Guide)."""
        return min(max(self.session_timeout_us, 2 * self.tick_time_us), 20 * self.tick_time_us)
