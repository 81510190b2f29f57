"""Redis 7.0 with Sentinel: its documentation's "Redis replication" and "High availability with Redis Sentinel"; replication.c and sentinel.c.

Decides: how a node's parts act together.  May not know: who is reachable.
On each node: a Redis (replication.py), a Sentinel (sentinel.py with watched.py and failover.py), and clients
(clients.py), which ask their own node's Sentinel for the primary before each command; paths between nodes are paths.py's.
Under a cut both sides may have a primary; "clients ... in the same partition as the old master, may continue to write data to the old master.  This
data will be lost forever since when the partition will heal, the master will be reconfigured as a replica of the new master, discarding its data
set" (Sentinel, example 2).
Messages are in messages.py, settings with Redis 2.6's values in settings.py.  What is simplified stands in each of these files, and here: a Sentinel's
REPLICAOF comes with CLIENT KILL ("to make sure all the clients are disconnected from the reconfigured instance", Sentinel client spec), which is left
out: clients ask their Sentinel before each command, so only one in flight at that instant would be told otherwise (a reset, not READONLY).  For the same
reason they need not verify by ROLE whom they were sent to; the measured runs' clients did not.
"""

from __future__ import annotations

from typing import Any, ClassVar

from capray.policies.driver import Ready, Result, Select, Startup, Update
from capray.policies.redis.clients import Pools
from capray.policies.redis.messages import (
    NOBODY,
    Continue,
    Feed,
    FullSync,
    Hello,
    Info,
    InfoReply,
    IsMasterDown,
    IsMasterDownReply,
    NoMasterLink,
    Ping,
    Pong,
    Psync,
    Publish,
    ReplAck,
    ReplicaOf,
    ReplReset,
    Subscribe,
)
from capray.policies.redis.paths import Paths
from capray.policies.redis.replication import ONLINE, Server
from capray.policies.redis.sentinel import Sentinel
from capray.policies.redis.settings import RedisSettings
from capray.policies.redis.watched import PUBLISH_PERIOD_US
from capray.replica import Message, Replica, Request
from capray.streams import Stream


class Redis(Replica):
    """One node: a Redis, a Sentinel, clients."""

    name = "redis"
    claims = "available on every side that has a primary, or elects one; asynchronous: a failover loses acknowledged writes (Sentinel documentation)"
    has_leader = True
    transport = "tcp"
    Settings = RedisSettings
    SERVER: ClassVar[type[Server]] = Server
    SENTINEL: ClassVar[type[Sentinel]] = Sentinel
    MESSAGES = (
        Select,
        Update,
        Result,
        Startup,
        Ready,
        Psync,
        Continue,
        FullSync,
        Feed,
        ReplAck,
        ReplReset,
        NoMasterLink,
        Ping,
        Pong,
        Subscribe,
        Info,
        InfoReply,
        Publish,
        Hello,
        IsMasterDown,
        IsMasterDownReply,
        ReplicaOf,
    )

    def __init__(self, node: int, nodes: int, settings: RedisSettings, stream: Stream) -> None:
        super().__init__(node, nodes, settings, stream)
        self.paths = Paths(self, self._path_dropped)
        self.server = self.SERVER(self, settings, self.paths)
        self.sentinel = self.SENTINEL(self, settings, self.paths)
        self.pools = Pools(self, self.paths, settings.primary, settings.query_timeout_us, settings.connect_timeout_us)
        self.runid = stream.bits() >> 1
        self.published = (0, 0)  # the newest epochs among the hellos that this Redis relayed
        self.published_at = 0
        self.catching_up = 0  # a subscriber has come (back): until then every hello is relayed
        server, sentinel, pools = self.server, self.sentinel, self.pools
        self.handlers: dict[type[Message], Any] = {
            Select: self._on_select,
            Update: self._on_update,
            Startup: self._on_startup,
            Result: pools.answered,
            Ready: pools.ready,
            Psync: server.on_psync,
            Continue: server.on_continue,
            FullSync: server.on_full_sync,
            Feed: server.on_feed,
            ReplAck: server.on_ack,
            ReplReset: self._on_repl_reset,
            NoMasterLink: self._on_repl_reset,
            ReplicaOf: server.on_replica_of,
            Ping: self._on_ping,
            Pong: sentinel.on_pong,
            Info: self._on_info,
            InfoReply: sentinel.on_info,
            Subscribe: self._on_subscribe,
            Publish: self._on_publish,
            Hello: sentinel.on_hello,
            IsMasterDown: sentinel.on_is_master_down,
            IsMasterDownReply: sentinel.on_is_master_down_reply,
        }
        self.timers: dict[str, Any] = {
            "clients": pools.on_timer, "sentinel": sentinel.on_timer, "cron": server.on_cron, "syn": server.on_syn,
        }
        self.timers_with_peer: dict[str, Any] = {"abort": self.paths.abort, "resume": server.resume}

    @classmethod
    def deletes(cls, settings: Any) -> str:
        return "delete"

    def peek(self, key: str) -> Any:
        return self.server.read(key)

    # ---- a process's life ---------------------------------------------------------------------------------------------------------
    def on_start(self) -> None:
        self.server.boot()
        self.sentinel.boot()

    def on_restart(self, journal: list[Any]) -> None:
        self.paths.lost_at_boot()
        self.pools.lost_at_boot()
        self.sentinel.reboot(journal)
        self.server.reboot(journal)

    # ---- events -------------------------------------------------------------------------------------------------------------------
    def on_request(self, request: Request) -> None:
        self.pools.ask(request, self.sentinel.current_master)

    def on_message(self, src: int, message: Any) -> None:
        kind = type(message)
        if not kind.client:
            self.paths.unheard[src] = 0
        self.handlers[kind](src, message)

    def on_timer(self, name: Any) -> None:
        if type(name) is str:
            self.timers[name]()
        else:
            self.timers_with_peer[name[0]](name[1])

    def on_connected(self, peer: int) -> None:
        self.paths.opened(peer)
        self.server.opened(peer)
        self.sentinel.opened(peer)
        self.pools.opened(peer)

    def on_disconnected(self, peer: int) -> None:
        self.paths.closed(peer)
        self.sentinel.closed(peer)
        self.server.on_reset(peer)
        self.pools.closed(peer)

    def _path_dropped(self, peer: int) -> None:
        self.server.lost(peer)
        self.sentinel.lost(peer)

    # ---- the server's commands ----------------------------------------------------------------------------------------------------
    def _on_select(self, src: int, message: Select) -> None:
        self.send(src, Result(message.id, "ok", self.server.read(message.key)))

    def _on_update(self, src: int, message: Update) -> None:
        error = self.server.write(message.key, message.value)
        self.send(src, Result(message.id, "ok" if error is None else "fail", None, error))

    def _on_startup(self, src: int, message: Startup) -> None:
        self.send(src, Ready(message.id))

    def _on_ping(self, src: int, message: Ping) -> None:
        self.paths.post(src, Pong(message.sentinel, self.now - self.published_at))

    def _on_info(self, src: int, message: Info) -> None:
        server = self.server
        up = server.master == NOBODY or server.link == ONLINE
        priorities = self.settings.replica_priorities
        self.paths.post(
            src,
            InfoReply(
                server.master,
                up,
                0 if up else server.link_down_us(),
                priorities[self.node] if priorities else 100,
                server.offset,
                self.runid,
            ),
        )

    def _on_repl_reset(self, src: int, message: ReplReset | NoMasterLink) -> None:
        self.server.on_reset(src)

    def _on_subscribe(self, src: int, message: Subscribe) -> None:
        self.catching_up = self.now + 2 * PUBLISH_PERIOD_US  # by then every Sentinel that can has published

    def _on_publish(self, src: int, message: Publish) -> None:
        """PUBLISH on __sentinel__:hello: to all Sentinels, where it may be news."""
        self.published_at = self.now
        news = (message.config_epoch, message.epoch)
        if news > self.published or self.now < self.catching_up:
            self.published = max(news, self.published)
            relayed = Hello(message.sender, message.epoch, message.master, message.config_epoch, True)
            for node in range(self.nodes):
                self.paths.post(node, relayed)
