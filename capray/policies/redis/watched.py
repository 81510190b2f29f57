"""What a Sentinel knows of one process that it watches, and its link to it: sentinel.c 7.0, sentinelRedisInstance and instanceLink.

Decides: when the process is pinged, when it is subjectively down, when its link is closed and dialled again.  May not know: elections.
Simplified, and why: a Sentinel's command and Pub/Sub links to a Redis are one here (they share path and process;
the Pub/Sub one is only closed later).
"""

from __future__ import annotations

from capray.policies.redis.messages import NOBODY, Ping
from capray.policies.redis.paths import NEVER, Paths, Syn
from capray.policies.redis.settings import RedisSettings
from capray.replica import Message

PING_PERIOD_US = 1_000_000
INFO_PERIOD_US = 10_000_000
PUBLISH_PERIOD_US = 2_000_000
MIN_LINK_RECONNECT_US = 15_000_000
NOT_TOLD, SENT, IN_PROGRESS, DONE = range(4)  # a replica's reconfiguration in a failover


class Watched:
    """A Redis or (`sentinel`) a Sentinel on `node`.  Times are microseconds of this node's clock."""

    __slots__ = (
        "act_ping",
        "answered_at",
        "asked_at",
        "buffer",
        "conn_time",
        "disconnected",
        "due",
        "info_asked",
        "info_at",
        "last_avail",
        "last_ping",
        "last_pong",
        "last_publish",
        "last_reconn",
        "leader",
        "leader_epoch",
        "link_down_us",
        "link_up",
        "master",
        "master_since",
        "node",
        "offset",
        "paths",
        "priority",
        "promoted",
        "reconf",
        "reconf_at",
        "role_since",
        "runid",
        "s_down",
        "s_down_since",
        "says_down",
        "sentinel",
        "syn",
    )

    def __init__(self, node: int, sentinel: bool, paths: Paths) -> None:
        self.node = node
        self.sentinel = sentinel
        self.paths = paths
        self.conn_time = NEVER
        self.act_ping = 0  # when the first ping without an answer was sent; 0: none
        self.last_ping = self.last_pong = self.last_avail = 0
        self.last_publish = NEVER
        self.last_reconn = NEVER
        self.disconnected = False
        self.syn = Syn()
        self.buffer: list[Message] = []  # commands that wait for the connection
        self.due = NEVER  # nothing is to be done before
        self.s_down = False
        self.s_down_since = NEVER
        # a Redis
        self.master = NOBODY  # what it reported: the primary that it follows
        self.role_since = self.master_since = 0
        self.info_at = self.info_asked = NEVER
        self.link_up = True
        self.link_down_us = 0
        self.priority = 100
        self.offset = self.runid = 0
        self.promoted = False
        self.reconf = NOT_TOLD
        self.reconf_at = 0
        # a Sentinel
        self.says_down = False
        self.answered_at = self.asked_at = NEVER
        self.leader = NOBODY
        self.leader_epoch = 0

    def reset(self, now: int, master: int) -> None:
        """A new instance with a new link (sentinelResetMasterAndChangeAddress): taken for what the configuration says until INFO tells."""
        self.__init__(self.node, self.sentinel, self.paths)  # type: ignore[misc]
        self.act_ping = self.last_avail = self.last_pong = self.role_since = self.master_since = now
        self.master = master
        self.disconnected = True

    # ---- the link -----------------------------------------------------------------------------------------------------------------
    def send(self, message: Message) -> None:
        """A command on the link; while the link is being dialled it waits."""
        if self.paths.up[self.node]:
            self.paths.post(self.node, message)
        elif self.syn.dialling:
            self.buffer.append(message)

    def ping(self, now: int) -> None:
        """PING; one that is never answered counts from the first."""
        self.paths.post(self.node, Ping(self.sentinel))
        self.last_ping = now
        if not self.act_ping:
            self.act_ping = now

    def pong(self, now: int) -> None:
        """It answers."""
        self.paths.round_trip(self.node, now - self.last_ping)
        self.last_pong = self.last_avail = now
        self.act_ping = 0
        if self.s_down or self.syn.dialling:
            self.due = NEVER

    def reconnect(self, now: int) -> None:
        """sentinelReconnectInstance(): a closed link is dialled, at most once a second; what dials goes on dialling."""
        if self.disconnected and now - self.last_reconn >= PING_PERIOD_US:
            self.last_reconn = self.conn_time = now
            self.disconnected = False
            if not self.paths.up[self.node]:
                self.syn.begin(now)
                self.paths.dial(self.node)
            self.ping(now)
        elif self.syn.due(now):
            self.paths.dial(self.node)
        elif not (self.syn.dialling or self.disconnected or self.paths.up[self.node]):
            self.syn.retransmit(self.paths.lost_at[self.node], now)

    def opened(self, now: int) -> None:
        """The path is open: what was buffered goes out, a ping first."""
        self.syn.dialling = False
        self.disconnected = False
        self.due = NEVER
        self.last_publish = NEVER
        self.ping(now)
        waiting, self.buffer = self.buffer, []
        for message in waiting:
            self.paths.post(self.node, message)

    def closed(self) -> None:
        """The path was reset or refused."""
        self.disconnected = True
        self.syn.dialling = False
        self.buffer.clear()
        self.due = NEVER

    # ---- checks -------------------------------------------------------------------------------------------------------------------
    def check_link(self, now: int, down_after_us: int) -> bool:
        """Close a link that has been silent for half of down-after, if it is not a new one.  True where it was closed."""
        half = down_after_us // 2
        if (
            not self.disconnected
            and now - self.conn_time > MIN_LINK_RECONNECT_US
            and self.act_ping
            and now - self.act_ping > half
            and now - self.last_pong > half
        ):
            self.closed()
            return True
        return False

    def silence(self, now: int) -> int:
        """For how long it has not answered a ping, or not been connected."""
        if self.act_ping:
            return now - self.act_ping
        return now - self.last_avail if self.disconnected else 0

    def check_down(self, now: int, settings: RedisSettings, is_master: bool) -> bool:
        """SDOWN, by silence, or of a primary that reports to be a replica for long.  True where that has changed."""
        turned = is_master and self.master != NOBODY and now - self.role_since > settings.down_after_us + 2 * INFO_PERIOD_US
        down = turned or self.silence(now) > settings.down_after_us
        if down == self.s_down:
            return False
        self.s_down = down
        if down:
            self.s_down_since = now
        return True

    def next_due(self, now: int, settings: RedisSettings, info_period_us: int) -> int:
        """The next instant at which anything is to be done or to be noticed, if nothing arrives before."""
        if self.disconnected:
            return max(now, self.last_reconn + PING_PERIOD_US) if self.s_down else now
        if not (self.syn.dialling or self.paths.up[self.node]):
            return now
        period = min(PING_PERIOD_US, settings.down_after_us)
        due = min(self.last_publish + PUBLISH_PERIOD_US, max(self.last_pong + period, self.last_ping + period // 2))
        if not self.sentinel:
            due = min(due, max(self.info_at + info_period_us, self.info_asked + PING_PERIOD_US))
        if self.syn.dialling:
            due = min(due, self.syn.next)
        if self.act_ping:
            closing = max(self.conn_time + MIN_LINK_RECONNECT_US, self.act_ping + settings.down_after_us // 2)
            due = min(due, closing if self.s_down else min(closing, self.act_ping + settings.down_after_us))
        elif self.s_down:
            return now
        return due
