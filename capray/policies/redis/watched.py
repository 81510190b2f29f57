"""What a Sentinel knows of one process that it watches, and its links to it: sentinel.c 7.0, sentinelRedisInstance and instanceLink.

Decides: when the process is pinged, when it is subjectively down, when a link is closed and dialled again.  May not know: elections.
A Redis has two links, for commands and for Pub/Sub, each a connection of its own (link.py); a Sentinel has the first only.
Simplified, and why: how long nothing came on a Pub/Sub link is read off the pongs (a Redis says when anything was last published there), for a Redis
relays here only hellos that bring news (sentinel.py).
"""

from __future__ import annotations

from capray.policies.redis.link import MIN_RECONNECT_US, Link
from capray.policies.redis.messages import NOBODY, Ping, Subscribe
from capray.policies.redis.paths import NEVER, Paths
from capray.policies.redis.settings import RedisSettings
from capray.replica import Message

PING_PERIOD_US = 1_000_000
INFO_PERIOD_US = 10_000_000
PUBLISH_PERIOD_US = 2_000_000
SUBSCRIBER_SILENCE_US = 3 * PUBLISH_PERIOD_US
NOT_TOLD, SENT, IN_PROGRESS, DONE = range(4)  # a replica's reconfiguration in a failover


class Watched:
    """A Redis or (`sentinel`) a Sentinel on `node`.  Times are microseconds of this node's clock."""

    __slots__ = (
        "act_ping",
        "answered_at",
        "asked_at",
        "buffer",
        "commands",
        "due",
        "info_asked",
        "info_at",
        "last_avail",
        "last_ping",
        "last_pong",
        "last_publish",
        "last_reconn",
        "late",
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
        "published_at",
        "reconf",
        "reconf_at",
        "role_since",
        "runid",
        "s_down",
        "s_down_since",
        "says_down",
        "sentinel",
        "subscription",
    )

    def __init__(self, node: int, sentinel: bool, paths: Paths, closed: bool = False) -> None:
        self.node = node
        self.sentinel = sentinel
        self.paths = paths
        self.commands = Link(node, paths, closed)
        self.subscription = None if sentinel else Link(node, paths, closed)
        self.published_at = NEVER  # the newest message on the subscription, or when it was dialled
        self.act_ping = 0  # when the first ping without an answer was sent; 0: none
        self.last_ping = self.last_pong = self.last_avail = 0
        self.last_publish = NEVER
        self.last_reconn = NEVER
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
        self.late = False  # it was told for too long: it counts as done
        # a Sentinel
        self.says_down = False
        self.answered_at = self.asked_at = NEVER
        self.leader = NOBODY
        self.leader_epoch = 0

    def reset(self, now: int, master: int) -> None:
        """A new instance with new links (sentinelResetMasterAndChangeAddress): taken for what the configuration says until INFO tells."""
        self.__init__(self.node, self.sentinel, self.paths, True)  # type: ignore[misc]
        self.act_ping = self.last_avail = self.last_pong = self.role_since = self.master_since = now
        self.master = master

    # ---- the links ----------------------------------------------------------------------------------------------------------------
    @property
    def disconnected(self) -> bool:
        """Some link is closed: nothing is sent until both are dialled."""
        return self.commands.closed or (self.subscription is not None and self.subscription.closed)

    @property
    def dialling(self) -> bool:
        """Some link waits for an answer to a try."""
        return self.commands.syn.dialling or (self.subscription is not None and self.subscription.syn.dialling)

    def send(self, message: Message) -> None:
        """A command; while the link is being dialled it waits."""
        if self.commands.open:
            self.paths.post(self.node, message)
        elif self.commands.syn.dialling:
            self.buffer.append(message)

    def post(self, message: Message) -> None:
        """A command that is sent again and again: not kept while the link is being dialled."""
        if self.commands.open:
            self.paths.post(self.node, message)

    def ping(self, now: int) -> None:
        """PING; one that is never answered counts from the first."""
        self.post(Ping(self.sentinel))
        self.last_ping = now
        if not self.act_ping:
            self.act_ping = now

    def pong(self, now: int, quiet_us: int) -> None:
        """It answers; on its channel nothing was published for `quiet_us`."""
        self.paths.round_trip(self.node, now - self.last_ping)
        self.last_pong = self.last_avail = now
        self.act_ping = 0
        if self.subscription is not None and self.subscription.open:
            self.published_at = max(self.published_at, now - quiet_us)
        if self.s_down or self.dialling:
            self.due = NEVER

    def reconnect(self, now: int) -> None:
        """sentinelReconnectInstance(): closed links are dialled, at most once a second; what dials goes on dialling."""
        if self.disconnected and now - self.last_reconn >= PING_PERIOD_US:
            self.last_reconn = now
            if self.commands.closed:
                self.commands.connect(now)
                self.ping(now)
            if self.subscription is not None and self.subscription.closed:
                self.subscription.connect(now)
                self.published_at = now
                if self.subscription.open:
                    self._subscribe()
        if self.commands.advance(now):
            self._flush(now)
        if self.subscription is not None and self.subscription.advance(now):
            self._subscribe()

    def opened(self, now: int) -> None:
        """The path is open: so is the link whose try it was."""
        self.due = NEVER
        if self.commands.opened():
            self._flush(now)
        if self.subscription is not None and self.subscription.opened():
            self._subscribe()

    def hears(self, now: int) -> bool:
        """Something comes on its channel; whether it gets here: only where the subscription is open."""
        if self.subscription is None or not self.subscription.open:
            return False
        self.published_at = now
        return True

    def _subscribe(self) -> None:
        self.paths.post(self.node, Subscribe())

    def _flush(self, now: int) -> None:
        """The command link is open: what was buffered goes out, a ping first, with the newest hello and INFO."""
        self.due = NEVER
        self.last_publish = self.info_asked = NEVER
        self.ping(now)
        waiting, self.buffer = self.buffer, []
        for message in waiting:
            self.paths.post(self.node, message)

    def closed(self) -> None:
        """The path was reset or refused."""
        self._close_commands()
        if self.subscription is not None:
            self.subscription.close()

    def _close_commands(self) -> None:
        self.commands.close()
        self.buffer.clear()
        self.due = NEVER

    # ---- checks -------------------------------------------------------------------------------------------------------------------
    def check_links(self, now: int, down_after_us: int) -> bool:
        """Close the command link where a ping has had no answer for half of down-after, the subscription where nothing came for 6 s; new links are
        spared.  True where an open one was closed: its path is given up."""
        half = down_after_us // 2
        gives_up = False
        if self.commands.stale(now) and self.act_ping and now - self.act_ping > half and now - self.last_pong > half:
            gives_up = self.commands.open
            self._close_commands()
        subscription = self.subscription
        if subscription is not None and subscription.stale(now) and now - self.published_at > SUBSCRIBER_SILENCE_US:
            gives_up = gives_up or subscription.open
            subscription.close()
            self.due = NEVER
        return gives_up

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
        if not (self.dialling or self.paths.up[self.node]):
            return now
        period = min(PING_PERIOD_US, settings.down_after_us)
        due = min(self.last_publish + PUBLISH_PERIOD_US, max(self.last_pong + period, self.last_ping + period // 2))
        if not self.sentinel:
            due = min(due, max(self.info_at + info_period_us, self.info_asked + PING_PERIOD_US))
        if self.commands.syn.dialling:
            due = min(due, self.commands.syn.next)
        if self.subscription is not None:
            due = min(due, max(self.subscription.conn_time + MIN_RECONNECT_US, self.published_at + SUBSCRIBER_SILENCE_US))
            if self.subscription.syn.dialling:
                due = min(due, self.subscription.syn.next)
        if self.act_ping:
            closing = max(self.commands.conn_time + MIN_RECONNECT_US, self.act_ping + settings.down_after_us // 2)
            due = min(due, closing if self.s_down else min(closing, self.act_ping + settings.down_after_us))
        elif self.s_down:
            return now
        return due
