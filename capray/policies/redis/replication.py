"""A Redis server's data and its replication: Redis 7.0 replication.c, and "Redis replication" of its documentation.

Decides: what a server holds, which writes it takes, partial or full resynchronisation, what a deposed primary discards.
May not know: Sentinels' views, who is reachable.
Asynchronous: a write is answered when the primary has applied it, and streamed.  A replica acknowledges its offset every second; an acknowledgement
gates nothing, but with `min_replicas_to_write` a primary counts once a second the replicas that acknowledged within `min_replicas_max_lag`.
PSYNC: a replica goes on from its offset where the primary's replication id, or its second id up to the offset of its promotion, is the
replica's, and the backlog reaches back so far; else it takes the whole data set and drops its own.
A promoted replica begins a new id; whoever wrote on under the old one has a branch, which a full resynchronisation discards.
Simplified, and why: an offset counts writes and pings, not bytes (nothing depends on their length); loading a data set takes no time beyond
`repl_diskless_sync_delay` (the data of a trial is a few keys); the newlines that keep a replica from timing out while it waits for it are left out, so that
`repl_timeout` has to be longer.
"""

from __future__ import annotations

from typing import Any

from capray.policies.redis.history import SECOND_US, Attached, in_touch, last_offset_of, shared_offset
from capray.policies.redis.messages import (
    NOBODY,
    Continue,
    Entry,
    Feed,
    FullSync,
    Lineage,
    NoMasterLink,
    Psync,
    ReplAck,
    ReplicaOf,
    ReplReset,
)
from capray.policies.redis.paths import Paths, Syn
from capray.policies.redis.settings import RedisSettings
from capray.replica import Replica

CONNECT, HANDSHAKE, ONLINE = range(3)  # a replica's link
CRON_US = 1_000_000
ENTRY_BYTES = 100
SAVE_RULES = ((3_600_000_000, 1), (300_000_000, 100), (60_000_000, 10_000))  # redis.conf 7.0: save 3600 1 300 100 60 10000
READ_ONLY = "READONLY You can't write against a read only replica."
NO_REPLICAS = "NOREPLICAS Not enough good replicas to write."


class Server:
    """One node's Redis."""

    def __init__(self, owner: Replica, settings: RedisSettings, paths: Paths) -> None:
        self.owner = owner
        self.settings = settings
        self.paths = paths
        self.master = NOBODY if owner.node == settings.primary else settings.primary
        self.lineage: Lineage = ((1, 1),)
        self.base = 0  # the offset before the log's first entry
        self.log: list[Entry] = []
        self.rows: dict[str, Entry] = {}
        self.link = ONLINE  # a replica's to its primary
        self.stalled = False  # it waits for a retransmission
        self.heard = 0  # its primary
        self.link_down_at: int | None = None
        self.syn = Syn(paths.owner)
        self.kept: dict[int, Syn] = {}  # by peer: a connection whose path was given up
        self.knows_nothing = False  # restarted without an RDB file: PSYNC ? -1
        self.replicas: dict[int, Attached] = {}
        self.good_replicas = 0
        self.needed = settings.min_replicas_to_write if settings.min_replicas_max_lag_us >= SECOND_US else 0  # "one or the other to 0 disables"
        self.cron_loops = 0
        self.dirty = 0
        self.saved_at = 0

    @property
    def offset(self) -> int:
        """How far this server is."""
        return self.base + len(self.log)

    def link_down_us(self) -> int:
        """master_link_down_since_seconds of INFO, of a link that is down: -1 s since a process began, or was a primary ("Never connected, repl is down since
        EVER")."""
        return -SECOND_US if self.link_down_at is None else max(1, self.owner.now - self.link_down_at)

    # ---- a process's life ---------------------------------------------------------------------------------------------------------
    def boot(self) -> None:
        """The cluster boots, replicas in touch with their primary."""
        now = self.owner.now
        self.heard = self.saved_at = now
        if self.master == NOBODY:
            self.replicas = {node: Attached(0, now) for node in range(self.owner.nodes) if node != self.owner.node}
            self.good_replicas = len(self.replicas)
        self._begin()

    def reboot(self, journal: list[Any]) -> None:
        """The process boots again, with what RDB or append-only file and the rewritten redis.conf hold.  An RDB says where in which history it is: a
        replica goes on from there if it can; the append-only file does not."""
        for record in journal:
            if record[0] == "role":
                self.master = record[1]
            elif record[0] == "rdb":
                self.lineage, self.base, rows = tuple(tuple(branch) for branch in record[1]), record[2], record[3]
                self.log, self.rows = [], {row[3]: tuple(row) for row in rows}
            elif record[0] == "aof":
                entry = tuple(record[1])
                self.log += [(entry[0], at, entry[2], "", None) for at in range(self.offset + 1, entry[1])]  # pings, which no file holds
                self._append(entry)
            elif record[0] == "lineage":
                self.lineage = tuple(tuple(branch) for branch in record[1])
        self.owner.applied("", None, (0,))  # a restarted server holds what follows, and nothing else
        for row in self.rows.values():
            self.owner.applied(row[3], row[4], row[:3])
        self.knows_nothing = self.settings.appendonly != "no" or not any(record[0] == "rdb" for record in journal)
        self.saved_at = self.owner.now
        self.link_down_at = None
        self.link = CONNECT
        if self.master == NOBODY:
            self._new_id()
        self._begin()
        if self.master != NOBODY:
            self._connect()

    def _begin(self) -> None:
        self.owner.role("leader" if self.master == NOBODY else "follower")
        self.owner.set_timer("cron", 1 + self.owner.stream.below(CRON_US))

    def _new_id(self) -> None:
        """A new replication id from the next offset on; alone where there is no history before it."""
        fresh = (self.owner.stream.bits() >> 1, self.offset + 1)
        self.lineage = (*self.lineage, fresh) if self.offset or len(self.lineage) > 1 else (fresh,)

    # ---- commands -----------------------------------------------------------------------------------------------------------------
    def read(self, key: str) -> Any:
        """GET."""
        row = self.rows.get(key)
        return None if row is None else row[4]

    def write(self, key: str, value: Any) -> str | None:
        """SET: the error, or None where it was done."""
        if self.master != NOBODY:
            return READ_ONLY
        if self.good_replicas < self.needed:
            return NO_REPLICAS
        self._take(key, value)
        return None

    def _take(self, key: str, value: Any) -> None:
        """Apply as primary, and stream."""
        entry = (len(self.lineage), self.offset + 1, self.owner.node, key, value)
        self._apply(entry)
        self._feed([entry])

    def _apply(self, entry: Entry) -> None:
        key = entry[3]
        before = self.rows.get(key)
        self._append(entry)
        if key:
            self.owner.applied(key, entry[4], entry[:3], () if before is None else (before[4],))
            if self.settings.appendonly != "no":
                self.owner.persist(("aof", entry), sync=self.settings.appendonly == "always")

    def _append(self, entry: Entry) -> None:
        self.log.append(entry)
        if entry[3]:
            self.rows[entry[3]] = entry
            self.dirty += 1

    def _feed(self, entries: list[Entry]) -> None:
        if self.replicas:
            message = Feed(entries)
            for node, replica in self.replicas.items():
                if replica.online and not replica.stalled:
                    self.paths.post(node, message)

    # ---- the primary's side -------------------------------------------------------------------------------------------------------
    def on_psync(self, src: int, message: Psync) -> None:
        """A replica connects: partial resynchronisation where it can be, else full."""
        if self.master != NOBODY and self.link != ONLINE:
            self.paths.post(src, NoMasterLink())
            return
        replica = self.replicas[src] = Attached(message.offset, self.owner.now)
        if self._can_continue(message):
            self.paths.post(src, Continue(self.lineage, self.log[message.offset - self.base :]))
        else:
            replica.online = False
            if not self.settings.repl_diskless_sync_delay_us:
                self._bgsave()
        self._count_good()

    def _can_continue(self, asked: Psync) -> bool:
        if self.knows_nothing and asked.replid != self.lineage[-1][0]:
            return False  # restarted without an RDB file, it has no second id: `lineage` is for the record
        oldest = max(self.base, self.offset - self.settings.repl_backlog_size // ENTRY_BYTES)
        return oldest <= asked.offset <= last_offset_of(self.lineage, self.offset, asked.replid)

    def _start_pending_fork(self) -> None:
        """replicationStartPendingFork(): idle times are differences of whole seconds, looked at once a second, so that the delay of 5 s takes 4 to 6."""
        waiting = [replica for replica in self.replicas.values() if not replica.online]
        idle = max([self.owner.now // SECOND_US - replica.acked_at // SECOND_US for replica in waiting], default=-1)
        if waiting and idle >= self.settings.repl_diskless_sync_delay_us // SECOND_US:
            self._bgsave()

    def _bgsave(self) -> None:
        """The data set goes to all that wait for it."""
        for node, replica in self.replicas.items():
            if not replica.online:
                replica.online, replica.acked, replica.acked_at = True, self.offset, self.owner.now
                self.paths.post(node, FullSync(self.lineage, self.offset, list(self.rows.values())))
        self._count_good()

    def on_ack(self, src: int, message: ReplAck) -> None:
        """REPLCONF ACK."""
        replica = self.replicas.get(src)
        if replica is None:
            self.paths.post(src, ReplReset())
        else:
            replica.acked = message.offset
            replica.acked_at = self.owner.now

    def _count_good(self) -> None:
        self.good_replicas = in_touch(self.replicas.values(), self.owner.now, self.settings.min_replicas_max_lag_us)

    def _detach_all(self) -> None:
        for node in self.replicas:
            self.paths.post(node, ReplReset())
        self.replicas.clear()
        self.good_replicas = 0

    # ---- the replica's side -------------------------------------------------------------------------------------------------------
    def on_replica_of(self, src: int, message: ReplicaOf) -> None:
        """REPLICAOF: promotion, or another primary; the same one again changes nothing."""
        if message.master == self.master:
            return
        owner = self.owner
        linked = self.master != NOBODY and self.link == ONLINE
        if NOBODY in (self.master, message.master):
            owner.role("leader" if message.master == NOBODY else "follower")
        self.master = message.master
        if self.master == NOBODY:
            self.link_down_at = None
            self._detach_all()
            self._new_id()
            self._persist_lineage()
        else:
            if linked:
                self.link_down_at = owner.now
            self.stalled = False
            self._connect()
        owner.persist(("role", self.master))  # CONFIG REWRITE, in the same transaction

    def _persist_lineage(self) -> None:
        if self.settings.appendonly != "no":
            self.owner.persist(("lineage", self.lineage), sync=False)

    def _connect(self) -> None:
        """connectWithMaster(): at once on an open path, else dialling."""
        self.heard = self.owner.now
        self.link = CONNECT
        if self.paths.up[self.master]:
            self._handshake()
        else:
            self.syn.begin(self.owner.now)
            self.paths.dial(self.master)
            self.owner.set_timer("syn", self.syn.next - self.owner.now)

    def on_syn(self) -> None:
        """The kernel's next try to connect."""
        if self.master == NOBODY or self.link != CONNECT or not self.syn.due(self.owner.now):
            return
        if self.paths.up[self.master]:
            self._handshake()
        else:
            self.paths.dial(self.master)
            self.owner.set_timer("syn", self.syn.next - self.owner.now)

    def _handshake(self) -> None:
        self.link = HANDSHAKE
        self.syn.dialling = False
        self.paths.post(self.master, Psync(-1, 0) if self.knows_nothing else Psync(self.lineage[-1][0], self.offset))

    def on_continue(self, src: int, message: Continue) -> None:
        """+CONTINUE."""
        if src != self.master or self.link != HANDSHAKE:
            return
        if self.lineage != message.lineage:
            self.lineage = message.lineage
            self._persist_lineage()
            for node in self.replicas:
                self.paths.post(node, ReplReset())  # chained replicas learn the new id by PSYNC
            self.replicas.clear()
        self._online()
        self._replay(message.entries)
        self._acknowledge()

    def on_full_sync(self, src: int, message: FullSync) -> None:
        """+FULLRESYNC: the own branch goes, the primary's data set comes."""
        if src != self.master or self.link != HANDSHAKE:
            return
        keep = shared_offset(self.lineage, self.offset, message.lineage, message.offset)
        self._discard(keep)
        self._detach_all()
        before = {key: row for key, row in self.rows.items() if row[1] <= keep}
        self.lineage, self.base, self.log = message.lineage, message.offset, []
        self.rows = {row[3]: row for row in message.rows}
        self.knows_nothing = False
        for key, row in self.rows.items():
            old = before.get(key)
            if old != row:
                self.owner.applied(key, row[4], row[:3], () if old is None else (old[4],))
        self._save()
        self._online()
        self._acknowledge()

    def _discard(self, keep: int) -> None:
        """Drop what is not in the primary's history: whatever came after offset `keep`."""
        dropped = {entry[:3]: entry for entry in self.rows.values() if entry[1] > keep}
        dropped.update({entry[:3]: entry for entry in self.log if entry[1] > keep and entry[3]})
        for order in sorted(dropped):
            self.owner.discarded(dropped[order][3], dropped[order][4], order)

    def _online(self) -> None:
        self.link = ONLINE
        self.stalled = False
        self.heard = self.owner.now

    def on_feed(self, src: int, message: Feed) -> None:
        """The stream; what this server has is not applied again; a gap means a lost connection."""
        if src != self.master or self.link == CONNECT:
            self.paths.post(src, ReplReset())
        elif self.link == ONLINE:
            self.heard = self.owner.now
            if message.entries and message.entries[0][1] > self.offset + 1:
                self.on_reset(src)
            else:
                self._replay(message.entries)

    def _replay(self, entries: list[Entry]) -> None:
        fresh = [entry for entry in entries if entry[1] > self.offset]
        for entry in fresh:
            self._apply(entry)
        if fresh:
            self._feed(fresh)

    def _acknowledge(self) -> None:
        if not self.stalled:
            self.paths.post(self.master, ReplAck(self.offset))

    def on_reset(self, src: int) -> None:
        """A replication connection is gone; a replica connects again at its next cron."""
        self.replicas.pop(src, None)
        if src == self.master and self.link != CONNECT:
            if self.link == ONLINE:
                self.link_down_at = self.owner.now
            self.link = CONNECT
            self.syn.dialling = False

    # ---- paths --------------------------------------------------------------------------------------------------------------------
    def lost(self, peer: int) -> None:
        """The shared path was given up by others; replication's own connection is kept, and goes on with its retransmissions."""
        if peer in self.replicas:
            self.replicas[peer].stalled = True
        if peer == self.master and self.link != CONNECT:
            self.stalled = True
        if self._waits_for(peer):
            kept = self.kept[peer] = Syn(self.owner)
            kept.retransmit(self.paths.lost_at[peer], self.owner.now)
            self._next_resume(peer)

    def _waits_for(self, peer: int) -> bool:
        return (peer == self.master and self.stalled) or (peer in self.replicas and self.replicas[peer].stalled)

    def _next_resume(self, peer: int) -> None:
        self.owner.set_timer(("resume", peer), self.kept[peer].next - self.owner.now)

    def opened(self, peer: int) -> None:
        """The path is open again: whose try it was goes on; the others wait for theirs."""
        if peer == self.master and self.link == CONNECT and self.syn.dialling and self.paths.tried(peer, self.syn.last):
            self._handshake()
        elif self._waits_for(peer) and self.paths.tried(peer, self.kept[peer].last):
            self._go_on(peer)

    def resume(self, peer: int) -> None:
        """A kept connection retransmits: a try of the path, where it is not open."""
        if not self._waits_for(peer):
            return
        if self.paths.up[peer]:
            self._go_on(peer)
        elif self.kept[peer].due(self.owner.now):
            self.paths.dial(peer)
            self._next_resume(peer)

    def _go_on(self, peer: int) -> None:
        """The retransmission gets through."""
        replica = self.replicas.get(peer)
        if replica is not None and replica.stalled and self.paths.up[peer]:
            replica.stalled = False
            if replica.online and replica.acked >= self.base:
                self.paths.post(peer, Feed(self.log[replica.acked - self.base :]))
            elif not replica.online:
                return
            else:
                self.on_reset(peer)
        if peer == self.master and self.stalled and self.paths.up[peer]:
            self.stalled = False
            if self.link == HANDSHAKE:
                self._handshake()
            else:
                self._acknowledge()

    # ---- once a second ------------------------------------------------------------------------------------------------------------
    def on_cron(self) -> None:
        """replicationCron()."""
        owner, settings = self.owner, self.settings
        owner.set_timer("cron", CRON_US)
        self.cron_loops += 1
        if self.master != NOBODY:
            self._replica_cron()
        for node in [node for node, replica in self.replicas.items() if replica.online and owner.now - replica.acked_at > settings.repl_timeout_us]:
            self.paths.post(node, ReplReset())
            del self.replicas[node]
        if self.master == NOBODY and self.replicas and self.cron_loops * CRON_US % max(CRON_US, settings.repl_ping_replica_period_us) < CRON_US:
            self._take("", None)
        self._start_pending_fork()
        self._count_good()
        if settings.appendonly == "everysec":
            owner.persist(("fsync",))
        elif settings.appendonly == "no" and any(self.dirty >= changes and owner.now - self.saved_at >= us for us, changes in SAVE_RULES):
            self._save()

    def _replica_cron(self) -> None:
        owner = self.owner
        if self.link != CONNECT and owner.now - self.heard > self.settings.repl_timeout_us:
            self.paths.post(self.master, ReplReset())
            self.on_reset(self.master)
        if self.link == ONLINE:
            self._acknowledge()
        elif self.link == CONNECT and not self.syn.dialling:
            self._connect()
        elif self.link == CONNECT and owner.now - self.heard > self.settings.repl_timeout_us:
            self._connect()  # the dial timed out: another one

    def _save(self) -> None:
        """BGSAVE, a rewritten append-only file, or the file that a full resynchronisation brought (repl-diskless-load: disabled)."""
        self.owner.persist(("rdb", self.lineage, self.offset, list(self.rows.values())))
        self.dirty = 0
        self.saved_at = self.owner.now
