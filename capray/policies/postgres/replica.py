"""PostgreSQL 15: one server, or a primary and a standby: manual ch. 27 (27.2 log shipping, 27.2.5 streaming, 27.2.8 synchronous, 27.3 failover).

Decides: when a commit is answered, what a standby holds, who is primary after a promotion.  May not know: who is reachable.
A write takes its row's lock; its record is flushed on the primary and streamed to the standby; then it becomes visible, is answered, and the
lock passes on.  With a synchronous standby the commit first waits for it (`synchronous_commit`: on = flushed there, remote_write,
remote_apply; local = no wait), however long (27.2.8: "each commit of a write transaction will wait"); reads go on.  A wait that its client
cancels is over: "The transaction has already committed locally, but might not have been replicated to the standby" (syncrep.c; the client was
told `info`); so it is for one that a crash interrupts.
A client that goes away without a cancel leaves its commit waiting, lock held.  All of this was also seen on a PostgreSQL 15.18, step by step.
A row's writers race for it (locks.py).
The standby flushes, then replays; it may show a commit before the primary does (`standby_reads`).
Promotion: `manual`: an operator does it at `promote_at` (0: never).  `automatic`: the standby's own manager, after the primary was silent for
`failover_timeout`, as repmgrd without a witness: nobody fences the old primary, so two primaries may take writes (27.3: "you must have a mechanism
for informing the old primary that it is no longer the primary. This is sometimes known as STONITH": left to the user).  When the old primary
meets the newer timeline it is rewound (pg_rewind drops its branch) and follows; or never, by setting `rejoin`.  Until a standby has joined it,
a promoted server does not wait for one (pg_auto_failover's wait_primary).
Clients (capray/policies/driver.py) on all nodes name both hosts and want one that takes writes (target_session_attrs=read-write).
Simplified, and why: one statement a transaction; one standby; LSNs count records; a rewind takes no time (its copying depends on the data's size);
of synchronous_commit `off` is not offered (what it gives up is one server's own crash safety, and no cut shows that).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta

from capray.policies.driver import READ_ONLY, TERMINATED, Cancel, Driver, Ready, Result, Select, Startup, Update
from capray.policies.postgres.locks import Row, Write
from capray.policies.postgres.wal import Flushed, Keepalive, Log, Poll, StartReplication, Status, Wal
from capray.replica import Message, Replica, Request, Settings
from capray.streams import Stream

TIMES = ("wal_receiver_timeout_us", "wal_sender_timeout_us", "wal_receiver_status_interval_us", "wal_retrieve_retry_interval_us")
WAITS = ("monitor_interval_us", "failover_timeout_us", "query_timeout_us", "connect_timeout_us")
PRIMARY, STANDBY, PROMOTING, CLIENT = "leader", "follower", "promoting", "client"


class PostgresSettings(Settings, frozen=True):
    """Names and defaults of postgresql.conf in version 15; failover's are repmgr 5's."""

    server: Annotated[int, Meta(description="the node that is primary at first; an index from 0; by choice: node 0")] = 0
    standby: Annotated[int, Meta(description="the standby's node; an index from 0, -1: none; by choice: none")] = -1
    synchronous: Annotated[
        bool, Meta(description="whether commits wait for the standby (synchronous_standby_names); manual 20.6.2: empty, so no")
    ] = False
    synchronous_commit: Annotated[
        Literal["on", "remote_apply", "remote_write", "local"],
        Meta(description="what they wait for, where there is a synchronous standby; manual 20.5.1: on"),
    ] = "on"
    standby_reads: Annotated[
        bool, Meta(description="whether the standby's own clients read there (hot_standby, manual 20.6.3: on, allows it); by choice: no")
    ] = False
    promotion: Annotated[Literal["manual", "automatic"], Meta(description="who promotes the standby; manual 27.3: nobody by itself")] = "manual"
    promote_at_us: Annotated[int, Meta(description="when an operator promotes it; microseconds on its clock, 0: never; by choice: never")] = 0
    rejoin: Annotated[
        Literal["rewind", "never"], Meta(description="what an old primary does when it meets a newer timeline; by choice: pg_rewind and follow")
    ] = "rewind"
    wal_receiver_timeout_us: Annotated[
        int, Meta(description="silence after which a standby drops its connection; microseconds; manual 20.6.3: 60 s")
    ] = 60_000_000
    wal_sender_timeout_us: Annotated[int, Meta(description="silence after which a primary drops its standby; microseconds; manual 20.6.1: 60 s")] = (
        60_000_000
    )
    wal_receiver_status_interval_us: Annotated[int, Meta(description="a standby reports at least this often; microseconds; manual 20.6.3: 10 s")] = (
        10_000_000
    )
    wal_retrieve_retry_interval_us: Annotated[
        int, Meta(description="a standby's pause before it connects again; microseconds; manual 20.6.3: 5 s")
    ] = 5_000_000
    monitor_interval_us: Annotated[
        int, Meta(description="managers look at the other server this often; microseconds; repmgr 5 monitor_interval_secs: 2 s")
    ] = 2_000_000
    failover_timeout_us: Annotated[
        int, Meta(description="silence of the primary before promotion; microseconds; repmgr 5: reconnect_attempts 6, reconnect_interval 10 s between: 50 s")
    ] = 50_000_000
    query_timeout_us: Annotated[
        int,
        Meta(description="a driver gives up a query that was sent; microseconds; 1 s as the clients of the measured run (reference/real_servers.md)"),
    ] = 1_000_000
    connect_timeout_us: Annotated[
        int, Meta(description="a driver gives up a request that it could not send; microseconds; 0.9 s: within the clients' 1 s deadline")
    ] = 900_000

    def problems(self, nodes: int) -> list[str]:
        found = [] if 0 <= self.server < nodes else [f"server: {self.server} is not accepted; it takes a node from 0 to {nodes - 1}"]
        if not -1 <= self.standby < nodes or self.standby == self.server:
            found.append(f"standby: {self.standby} is not accepted; it takes -1 (none) or a node from 0 to {nodes - 1} other than the server")
        if self.standby < 0 and (self.synchronous or self.standby_reads or self.promote_at_us or self.promotion == "automatic"):
            found.append("standby: -1 is not accepted; it takes a node where synchronous, standby_reads, promote_at or promotion ask for one")
        if self.promote_at_us < 0:
            found.append(f"promote_at_us: {self.promote_at_us} is not accepted; it takes 0 or more microseconds")
        return found + [
            f"{name}: {getattr(self, name)} is not accepted; it takes at least 1 microsecond" for name in TIMES + WAITS if getattr(self, name) < 1
        ]


def look_again(silence: int, limit: int) -> int:
    """How long until a peer that has been silent for so long is to be asked for an answer (half of the time-out), or to be hung up on (all of it)."""
    half = (limit + 1) // 2
    return half - silence if silence < half else limit - silence if silence < limit else half


class Postgres(Replica):
    """The primary and its standby on their nodes, a driver on every node."""

    name = "postgres"
    claims = (
        "one server: consistent, as available as it is reachable; a standby adds copies: asynchronous loses acknowledged writes at failover, synchronous none, "
        "but an old primary that nobody fenced goes on answering stale reads (manual 27.2.8, 27.3)"
    )
    has_leader = True
    transport = "tcp"
    datagrams = False  # libpq and streaming replication are byte streams
    Settings = PostgresSettings
    MESSAGES = (Select, Update, Result, Cancel, Startup, Ready, StartReplication, Wal, Status, Keepalive, Poll, Flushed)

    def __init__(self, node: int, nodes: int, settings: PostgresSettings, stream: Stream) -> None:
        super().__init__(node, nodes, settings, stream)
        hosts = self.placement("", nodes, settings)
        self.state = {settings.server: PRIMARY, settings.standby: STANDBY}.get(node, CLIENT)
        self.peer = -1 if len(hosts) == 1 or self.state == CLIENT else hosts[0] + hosts[1] - node
        self.log = Log()
        self.locks: dict[str, Row] = {}
        self.commits: dict[int, Write] = {}  # by LSN: logged, not visible yet
        self.queries: dict[tuple[int, int], Write] = {}  # by client node and query
        self.flushed = 0
        self.applied_lsn = 0
        self.streaming = False  # primary: a standby is being sent the log; standby: it is receiving it
        self.alone = False  # promoted, and no standby has joined since
        self.asking = False  # standby: it has asked to receive it
        self.heard = 0  # the other server
        self.driver = Driver(self, hosts, settings.query_timeout_us, settings.connect_timeout_us, may_close=self.peer < 0)
        self.handlers: dict[type[Message], Any] = {
            Select: self._on_select,
            Update: self._on_update,
            Cancel: self._on_cancel,
            Startup: self._on_startup,
            Result: self.driver.answered,
            Ready: self.driver.ready,
            Flushed: self._on_flushed,
            StartReplication: self._on_start_replication,
            Wal: self._on_wal,
            Status: self._on_status,
            Keepalive: self._on_keepalive,
            Poll: self._on_poll,
        }
        self.timers: dict[str, Any] = {
            "driver": self.driver.on_timer,
            "sender": self._check_sender,
            "receiver": self._check_receiver,
            "connect": self._connect_to_primary,
            "monitor": self._monitor,
            "promote": self._promote,
        }

    @classmethod
    def placement(cls, key: str, nodes: int, settings: Any) -> tuple[int, ...]:
        return (settings.server,) if settings.standby < 0 else (settings.server, settings.standby)

    @classmethod
    def deletes(cls, settings: Any) -> str:
        return "delete"

    def peek(self, key: str) -> Any:
        row = self.log.rows.get(key)
        return None if row is None else row[2]

    # ---- a process's life ---------------------------------------------------------------------------------------------------------
    def on_start(self) -> None:
        if self.state == STANDBY and self.settings.promote_at_us > self.now:
            self.set_timer("promote", self.settings.promote_at_us - self.now)
        self._begin()

    def on_restart(self, journal: list[Any]) -> None:
        """Recovery replays the log; a commit that waited for the standby is visible afterwards."""
        self.driver.lost_at_boot()
        for record in journal:
            self._replay(*record)
        last: dict[str, tuple[Any, ...]] = {}
        for lsn in range(1, self.log.lsn + 1):
            last[self.log.entries[lsn - 1][1]] = self.log.show(lsn)[1]
        for key, (timeline, lsn, value) in self.log.rows.items():
            self.applied(key, value, (timeline, lsn), last[key])
        self.flushed = self.applied_lsn = self.log.lsn
        self.on_start()

    def _replay(self, what: str, timeline: int, body: Any) -> None:
        if what == "wal":
            self.log.entries.append(body)
        elif what == "promoted":
            self.log.fork()
            self.state, self.alone = PRIMARY, True
        elif what == "joined":
            self.alone = False
        else:
            self.log.rewind(timeline, body, 0)
            self.state, self.alone = STANDBY, False

    def _begin(self) -> None:
        """Take up the role."""
        self.role(self.state)
        self.heard = self.now
        self.streaming = self.asking = False
        if self.peer >= 0:
            self.set_timer("monitor", self.settings.monitor_interval_us)
        if self.state == STANDBY:
            self.set_timer("receiver", self.settings.wal_receiver_status_interval_us)
            self._connect_to_primary()
        elif self.peer >= 0:
            self.set_timer("sender", self.settings.wal_sender_timeout_us // 2)

    # ---- events -------------------------------------------------------------------------------------------------------------------
    def on_request(self, request: Request) -> None:
        if request.f == "read" and self.settings.standby_reads and self.state == STANDBY:
            self.reply(request.id, "ok", self.peek(request.key))
        else:
            self.driver.ask(request)

    def on_message(self, src: int, message: Any) -> None:
        if src == self.peer:
            self.heard = self.now
        self.handlers[type(message)](src, message)

    def on_timer(self, name: Any) -> None:
        self.timers[name]()

    def on_connected(self, peer: int) -> None:
        if peer == self.peer and self.state == PRIMARY and self.log.forks and not self.streaming:
            self.send(peer, Poll(True, self.log.timeline, self.log.forks))
        self.driver.on_connected(peer)

    def on_disconnected(self, peer: int) -> None:
        if peer == self.peer:
            self.streaming = self.asking = False
            if self.state == STANDBY:
                self.set_timer("connect", self.settings.wal_retrieve_retry_interval_us)
        self.driver.on_disconnected(peer)

    # ---- queries ------------------------------------------------------------------------------------------------------------------
    def _on_startup(self, src: int, message: Startup) -> None:
        self.send(src, Ready(message.id, self.state != PRIMARY))

    def _on_select(self, src: int, message: Select) -> None:
        if self.state == PRIMARY:
            self.send(src, Result(message.id, "ok", self.peek(message.key)))
        else:
            self.send(src, Result(message.id, "fail", None, READ_ONLY))

    def _on_update(self, src: int, message: Update) -> None:
        if self.state != PRIMARY:
            self.send(src, Result(message.id, "fail", None, READ_ONLY))
            return
        write = Write(src, message.id, message.key, message.value)
        self.queries[(src, message.id)] = write
        row = self.locks.get(message.key)
        if row is None:
            self.locks[message.key] = Row(write)
            self._write_ahead(write)
        else:
            row.queue.append(write)

    def _write_ahead(self, write: Write) -> None:
        log = self.log
        write.lsn = log.append(write.key, write.value)
        self.commits[write.lsn] = write
        self.persist(("wal", log.timeline, log.entries[-1]))
        self.send(self.node, Flushed(log.timeline, write.lsn))

    def _on_flushed(self, src: int, message: Flushed) -> None:
        if message.timeline != self.log.timeline:
            return  # rewound since
        self.flushed = message.lsn
        if self.state != PRIMARY:
            self._replay_up_to(message.lsn)
            return
        if self.streaming:
            self.send(self.peer, Wal(self.log.timeline, message.lsn, [self.log.entries[message.lsn - 1]], self.log.forks))
        write = self.commits[message.lsn]
        write.flushed = True
        if write.cancelled or self.alone or not self.settings.synchronous or self.settings.synchronous_commit == "local":
            self._commit(write)

    def _commit(self, write: Write) -> None:
        """Visible from now on; then the answer; then the row's next writer."""
        order, superseded = self.log.show(write.lsn)
        self.applied(write.key, write.value, order, superseded)
        del self.commits[write.lsn], self.queries[(write.src, write.id)]
        self.send(write.src, Result(write.id, "ok"))
        row = self.locks[write.key]
        woken = row.woken()
        if woken:
            row.passes_to(woken[self.stream.below(len(woken)) if len(woken) > 1 else 0])
            self._write_ahead(row.holder)
        else:
            del self.locks[write.key]

    def _on_cancel(self, src: int, message: Cancel) -> None:
        """A write that waits for a lock is dropped; one that waits for the standby is committed here and now."""
        write = self.queries.get((src, message.id))
        if write is None:
            return
        if not write.lsn:
            self.locks[write.key].forget(write)
            del self.queries[(src, message.id)]
            return
        write.cancelled = True
        if write.flushed:
            self._commit(write)

    # ---- the primary's side of replication ----------------------------------------------------------------------------------------
    def _on_start_replication(self, src: int, message: StartReplication) -> None:
        if self.state == PRIMARY and message.timeline <= self.log.timeline and message.lsn <= self.log.kept(message.timeline):
            self.streaming = True
            if self.alone:
                self.alone = False
                self.persist(("joined", self.log.timeline, None))
            self.send(src, Wal(self.log.timeline, message.lsn + 1, self.log.entries[message.lsn : self.flushed], self.log.forks))

    def _on_status(self, src: int, message: Status) -> None:
        if self.state != PRIMARY or message.timeline != self.log.timeline:
            return
        if message.reply:
            self.send(src, Keepalive(False))
        mode = self.settings.synchronous_commit
        reached = message.flush if mode == "on" else message.apply if mode == "remote_apply" else message.write
        if self.settings.synchronous and mode != "local":
            for lsn in sorted(lsn for lsn, write in self.commits.items() if lsn <= reached and write.flushed):
                self._commit(self.commits[lsn])

    def _check_sender(self) -> None:
        if self.state != PRIMARY:
            return
        silence, limit = self.now - self.heard, self.settings.wal_sender_timeout_us
        if self.streaming and silence >= limit:
            self.close(self.peer)
            self.on_disconnected(self.peer)
        elif self.streaming and 2 * silence >= limit:
            self.send(self.peer, Keepalive(True))
        self.set_timer("sender", look_again(silence, limit))

    # ---- the standby's side -------------------------------------------------------------------------------------------------------
    def _connect_to_primary(self) -> None:
        if self.state == STANDBY and not self.asking:
            self.asking = True
            self.send(self.peer, StartReplication(self.log.timeline, self.log.lsn))

    def _on_wal(self, src: int, message: Wal) -> None:
        log = self.log
        if self.state != STANDBY or message.timeline < log.timeline:
            return
        if message.first > log.lsn + 1:
            self.asking = False  # a record was lost on the way (a link that drops)
            self._connect_to_primary()
            return
        self.streaming = True
        if message.timeline > log.timeline:
            log.rewind(message.timeline, message.forks, self.applied_lsn)
            self.persist(("follows", message.timeline, message.forks), sync=False)
        fresh = message.records[log.lsn + 1 - message.first :]
        log.entries.extend(fresh)
        if fresh:
            self._report()  # written, not flushed yet: walreceiver.c, "Let the primary know that we received some data"
        for entry in fresh:
            self.persist(("wal", log.timeline, entry), sync=entry is fresh[-1])
        self.send(self.node, Flushed(log.timeline, log.lsn))

    def _replay_up_to(self, lsn: int) -> None:
        for each in range(self.applied_lsn + 1, lsn + 1):
            order, superseded = self.log.show(each)
            _, key, value = self.log.entries[each - 1]
            self.applied(key, value, order, superseded)
        self.applied_lsn = max(self.applied_lsn, lsn)
        if self.state == STANDBY:
            self._report()
        else:
            self.state = PRIMARY
            self._begin()

    def _report(self, reply: bool = False) -> None:
        self.send(self.peer, Status(self.log.timeline, self.log.lsn, self.flushed, self.applied_lsn, reply))

    def _on_keepalive(self, src: int, message: Keepalive) -> None:
        if message.reply and self.state == STANDBY:
            self._report()

    def _check_receiver(self) -> None:
        if self.state != STANDBY:
            return
        silence, limit = self.now - self.heard, self.settings.wal_receiver_timeout_us
        if self.asking and silence >= limit:
            self.close(self.peer)
            self.on_disconnected(self.peer)
        elif self.streaming:
            self._report(reply=2 * silence >= limit)
        self.set_timer("receiver", min(self.settings.wal_receiver_status_interval_us, look_again(silence, limit)))

    # ---- failover -----------------------------------------------------------------------------------------------------------------
    def _monitor(self) -> None:
        """Each manager tells the other what its server is; the standby's promotes after a long silence, where it may."""
        settings = self.settings
        self.set_timer("monitor", settings.monitor_interval_us)
        if self.state == STANDBY and settings.promotion == "automatic" and self.now - self.heard >= settings.failover_timeout_us:
            self._promote()
        elif self.state == PRIMARY and self.log.forks and not self.streaming and self.now - self.heard >= 2 * settings.monitor_interval_us:
            self.close(self.peer)  # a manager's check is a connection of its own: it does not wait for what an old one retransmits
            self.on_disconnected(self.peer)
            self.connect(self.peer)
        elif settings.promotion == "automatic" or self.log.forks:
            self.send(self.peer, Poll(self.state == PRIMARY, self.log.timeline, self.log.forks))

    def _promote(self) -> None:
        """pg_promote(): what was received is replayed, and a new timeline begins once that is on disk."""
        if self.state == STANDBY:
            self.state, self.alone = PROMOTING, True
            timeline = self.log.fork()
            self.persist(("promoted", timeline, None))
            self.send(self.node, Flushed(timeline, self.log.lsn))

    def _on_poll(self, src: int, message: Poll) -> None:
        if message.primary and self.state != PROMOTING and message.timeline > self.log.timeline and self.settings.rejoin == "rewind":
            self._rewind(message)

    def _rewind(self, message: Poll) -> None:
        """pg_rewind, and follow the new primary: the branch that it does not share is dropped, and every session ends."""
        for write in list(self.queries.values()):
            self.send(write.src, Result(write.id, "info" if write.lsn else "fail", None, TERMINATED))
        shared = min(fork for later, fork in message.forks if later > self.log.timeline)
        for lsn in sorted(lsn for lsn in self.commits if lsn <= shared):  # the standby had it, and its answer did not come
            order, superseded = self.log.show(lsn)
            self.applied(*self.log.entries[lsn - 1][1:], order, superseded)
        self.queries.clear()
        self.commits.clear()
        self.locks.clear()
        for key, value, order in self.log.rewind(message.timeline, message.forks, self.log.lsn):
            self.discarded(key, value, order)
        self.flushed = self.applied_lsn = self.log.lsn
        self.state, self.alone = STANDBY, False
        self.persist(("follows", message.timeline, message.forks))
        self._begin()
