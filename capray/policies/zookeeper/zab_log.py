"""A server's history: the transaction log, the tree that it leads to, and how a learner is brought in step (ZooKeeper 3.8: ZKDatabase,
LearnerHandler.syncFollower; DSN 2011, section IV, phase 2, "synchronization").

Decides: what is logged, what is applied, and whether a learner gets DIFF, TRUNC or SNAP.  May not know: messages' times, roles, peers.
The tree holds what a client could read: transactions are applied when they are committed.  (ZooKeeper also replays the uncommitted end of its log
into memory when it stops serving; nobody can read it there, so the record would show writes that no client could see.)
A learner more than `commit_log_count` transactions behind gets DIFF from the leader's newest log file, where that reaches back to it: its size is not
counted (FileTxnIterator.getStorageSize), so snapshotSizeFactor never forbids it, while a file before it, of 64 MiB, is too large for a small tree.
Real servers 3.8.0 that were 3000 transactions behind got DIFF so.  A process begins a file of its own; one ends after a random number of transactions
from half of snapCount up to it: here after snapCount.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from typing import Any

from capray.policies.zookeeper.zab_messages import CREATE_SESSION, SET, TRUNCATED, Diff, Proposal, Snap, Trunc, epoch_of, starts_epoch

SNAP_COUNT = 100_000  # zookeeper.snapCount 3.8: the most transactions in a log file

Applied = Callable[[str, Any, tuple[int, ...], tuple[Any, ...]], None]
Discarded = Callable[[str, Any, tuple[int, ...]], None]


def _zxid(txn: Proposal) -> int:
    return txn.zxid


class Database:
    """Log and tree.  `applied` and `discarded` are told of every change of the tree."""

    def __init__(self, keep: int, applied: Applied, discarded: Discarded, on_disk: bool = False) -> None:
        self.keep = keep  # committed transactions kept in memory for DIFF
        self.on_disk = on_disk  # whether the newest log file serves too
        self.begun = 0  # the entry of the log with which that file begins
        self.on_applied = applied
        self.on_discarded = discarded
        self.log: list[Proposal] = []  # in order of zxid, each logged on disk or on its way there
        self.floor = 0  # the zxid after which the log begins
        self.done = 0  # how many of the log's entries are applied
        self.replayed = 0  # how many of them were read from the journal of an earlier process and not applied since
        self.tree: dict[str, tuple[int, Any]] = {}  # key -> zxid of its last change, value
        self.sessions: dict[int, int] = {}  # session -> the node where it was opened

    def last_zxid(self) -> int:
        """The newest transaction logged (0: none)."""
        return self.log[-1].zxid if self.log else self.floor

    def follows(self, zxid: int) -> bool:
        """Whether a transaction may be appended: it is the next one of the epoch, or starts a newer epoch."""
        last = self.last_zxid()
        return zxid == last + 1 or (epoch_of(zxid) > epoch_of(last) and starts_epoch(zxid - 1))

    def append(self, txn: Proposal) -> None:
        """Log a transaction."""
        self.log.append(txn)

    def commit(self) -> Proposal:
        """Apply the oldest transaction that is not applied yet."""
        txn = self.log[self.done]
        self.done += 1
        self._apply(txn)
        keep = max(self.keep, SNAP_COUNT) if self.on_disk else self.keep
        if self.done >= 2 * keep:
            self._forget(self.done - keep)
        return txn

    def commit_up_to(self, count: int) -> None:
        """Apply the log's first `count` entries.  Of those that an earlier process had logged, and mostly applied, only the newest of each key is
        told of again."""
        before: dict[str, tuple[Any, ...]] = {}
        for txn in self.log[self.done : min(self.replayed, count)]:
            self.done += 1
            if txn.op == SET:
                old = self.tree.get(txn.key)
                before[txn.key] = () if old is None else (old[1],)
            _change(self.tree, self.sessions, txn)
        self.replayed = 0
        for key, superseded in before.items():
            zxid, value = self.tree[key]
            self.on_applied(key, value, (zxid,), superseded)
        for _ in range(count - self.done):
            self.commit()

    def next_to_commit(self) -> int:
        """The zxid of the oldest transaction logged and not applied (0: none)."""
        return self.log[self.done].zxid if self.done < len(self.log) else 0

    def truncate(self, zxid: int) -> None:
        """Drop every transaction after `zxid`."""
        end = len(self.log)
        while end and self.log[end - 1].zxid > zxid:
            end -= 1
            if end < self.done:
                self._undo(self.log[end])
        del self.log[end:]
        self.begun = end
        self.done = min(self.done, end)
        self.replayed = min(self.replayed, end)

    def replace(self, snap: Snap) -> None:
        """Take over the leader's tree."""
        fresh = {key: (zxid, value) for key, zxid, value in snap.items}
        for txn in self.log[: self.done]:
            if txn.op == SET and txn.zxid > snap.zxid:
                self.on_discarded(txn.key, txn.value, (txn.zxid,))
        self.log, self.done, self.replayed, self.begun, self.floor = [], 0, 0, 0, snap.zxid
        self.sessions = dict(snap.sessions)
        before, self.tree = self.tree, fresh
        for key, (zxid, value) in fresh.items():
            old = before.get(key)
            if old is None or old[0] != zxid:
                self.on_applied(key, value, (zxid,), () if old is None else (old[1],))

    def recover(self, journal: list[Any]) -> dict[str, int]:
        """Read the journal of an earlier process, oldest record first.  Returns the epochs found in it.  The log is whole afterwards, the tree
        that of the last snapshot: what follows it is applied once a leader has said what is committed."""
        numbers: dict[str, int] = {}
        for record in journal:
            if type(record) is Proposal:
                self.log.append(record)
            elif type(record) is Snap:
                self.replace(record)
            elif record[0] == TRUNCATED:
                self.truncate(record[1])
            else:
                numbers[record[0]] = record[1]
        self.replayed = self.begun = len(self.log)
        return numbers

    # ---- synchronisation ------------------------------------------------------------------------------------------------------------
    def sync_plan(self, epoch: int, peer: int, end: int) -> Diff | Trunc | Snap:
        """How a learner whose last zxid is `peer` gets the first `end` entries of the log, which are committed (or the history of a new
        leader).  The cases in their order are LearnerHandler.syncFollower's."""
        log = self.log
        start = max(0, min(end - self.keep, self.begun) if self.on_disk else end - self.keep)
        newest = log[end - 1].zxid if end else self.floor
        oldest = log[start].zxid if start < end else newest
        if peer == newest:
            return Diff(epoch, ())
        if peer > newest and not starts_epoch(peer):
            return Trunc(epoch, newest, ())
        if oldest <= peer <= newest:
            at = bisect_left(log, peer, start, end, key=_zxid)
            if log[at].zxid == peer:
                return Diff(epoch, tuple(log[at + 1 : end]))
            if starts_epoch(peer):
                return Diff(epoch, tuple(log[at:end]))
            if epoch_of(log[at].zxid) == epoch_of(peer):
                return Trunc(epoch, log[at - 1].zxid, tuple(log[at:end]))
        return self._snapshot(epoch, end)

    def _snapshot(self, epoch: int, end: int) -> Snap:
        tree, sessions = dict(self.tree), dict(self.sessions)
        for txn in self.log[self.done : end]:
            _change(tree, sessions, txn)
        zxid = self.log[end - 1].zxid if end else self.floor
        return Snap(epoch, zxid, tuple((key, at, value) for key, (at, value) in tree.items()), tuple(sessions.items()))

    # ---- inside -----------------------------------------------------------------------------------------------------------------------
    def _apply(self, txn: Proposal) -> None:
        if txn.op == SET:
            before = self.tree.get(txn.key)
            self.tree[txn.key] = (txn.zxid, txn.value)
            self.on_applied(txn.key, txn.value, (txn.zxid,), () if before is None else (before[1],))
        else:
            _change(self.tree, self.sessions, txn)

    def _undo(self, txn: Proposal) -> None:
        """An applied transaction is dropped.  Zab never does that to a committed one; a broken variant may, and the record then says so."""
        if txn.op != SET:
            return
        self.on_discarded(txn.key, txn.value, (txn.zxid,))
        if self.tree.get(txn.key, (0, None))[0] == txn.zxid:
            del self.tree[txn.key]
            older = [t for t in self.log[: self.done] if t.op == SET and t.key == txn.key and t.zxid < txn.zxid]
            if older:
                self.tree[txn.key] = (older[-1].zxid, older[-1].value)

    def _forget(self, count: int) -> None:
        """Drop the oldest applied transactions from memory."""
        self.floor = self.log[count - 1].zxid
        del self.log[:count]
        self.begun = max(0, self.begun - count)
        self.done -= count


def _change(tree: dict[str, tuple[int, Any]], sessions: dict[int, int], txn: Proposal) -> None:
    if txn.op == SET:
        tree[txn.key] = (txn.zxid, txn.value)
    elif txn.op == CREATE_SESSION:
        sessions[txn.zxid] = txn.node
    else:
        sessions.pop(txn.session, None)
