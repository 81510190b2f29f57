"""The `cassandra` policy, broken on purpose: Lakshman and Malik (LADIS 2009), section 5; Apache Cassandra 5.0's documentation and sources."""

from __future__ import annotations

from typing import Any

from capray.policies import ring
from capray.policies.cassandra.cells import ABSENT, Cell, order, same
from capray.policies.cassandra.hints import Hints, Store
from capray.policies.cassandra.messages import ReadRepair
from capray.policies.cassandra.reads import PendingRead, Reads
from capray.policies.cassandra.repair import Repair
from capray.policies.cassandra.replica import Cassandra
from capray.policies.cassandra.writes import PendingWrite, Writes


class QuorumOfHalf(Cassandra):
    """QUORUM is half of the replicas, not more than half.  Violates R + W > N (documentation, Dynamo, tunable consistency): a read can miss every replica
    that took the write."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        half = ((ring.EVERY, sum(self.settings.factors(self.nodes)) // 2),)
        self.read_needs = self.writes.needs = half


class DropsHints(Cassandra):
    """A hint is counted and thrown away.  Violates hinted handoff (documentation, Hints): what a replica missed in a cut it misses, until somebody reads
    it."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.hints = NoHints(self, self.gossiper.alive, self.gossiper.downtime, 0, 0)


class NoHints(Hints):
    """Keeps nothing."""

    def write(self, target: int, key: str, cell: Cell) -> None:
        """Into the void."""


class RepairsNothing(Cassandra):
    """Blocking read repair answers without writing back.  Violates monotonic quorum reads (documentation, Read repair, BLOCKING): a later read can go back
    to the older value."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.reads = ReadsOnly(self)


class ReadsOnly(Reads):
    """Merges, and leaves it at that."""

    def _repair(self, read: PendingRead) -> None:
        self._finish(read, read.best)


class LastArrivalWins(Cassandra):
    """A replica keeps what came last, not what has the highest timestamp.  Violates last-write-wins (Cells.reconcile): replicas that heard two writes in
    different orders stay different."""

    def apply(self, key: str, cell: Cell) -> None:
        old = self.cells.get(key, ABSENT)
        if not same(cell, old):
            self.cells[key] = cell
            self.applied(key, cell[1], order(cell), () if old[1] is None else (old[1],))


class ForgetsCommitLog(Cassandra):
    """Writes are acknowledged and never logged.  Violates LADIS 2009, section 5, local persistence (the commit log before the memtable; as a keyspace with
    durable_writes = false): a restarted process has lost them, so a quorum can be all amnesiac."""

    def persist(self, record: Any, sync: bool = True) -> None:
        if record[0] != "write":
            super().persist(record, sync)


class TrustsTheFirstRow(Cassandra):
    """Digests are not compared.  Violates read resolution (DigestResolver: on a mismatch the newest of the full rows answers): a stale replica that answers
    with the row is believed."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.reads = Believing(self)


class Believing(Reads):
    """Takes the row that came, whatever the digests say."""

    def _read_rows(self, digests: PendingRead) -> None:
        self._finish(digests, next(cell for _, cell in digests.answers.values() if cell is not None))


class DeletesInPlace(Cassandra):
    """A delete takes the row away and leaves no tombstone.  Violates LADIS 2009's last write wins for deletes (documentation, Tombstones: "a delete is a
    write"): a replica that missed the delete brings the value back, by a read's repair or by anti-entropy."""

    def apply(self, key: str, cell: Cell) -> None:
        super().apply(key, cell)
        if cell[1] is None and self.cells.get(key) == cell:
            del self.cells[key]
            self.purged(key, order(cell))


class GraceForgotten(Cassandra):
    """A tombstone goes with the next compaction, here after a second.  Violates gc_grace_seconds (documentation, Tombstones, grace period: longer than any
    replica is away): the deleted value is resurrected by who was away for longer."""

    def _expect_purge(self, key: str, cell: Cell) -> None:
        if cell[1] is None:
            self.set_timer(("purge", key), 1_000_000)

    def _purge(self, key: str) -> None:
        cell = self.cells.get(key, ABSENT)
        if cell[1] is None and cell != ABSENT:
            del self.cells[key]
            self.purged(key, order(cell))


class RepairsLiveRows(Cassandra):
    """Anti-entropy compares and streams what has a value.  Violates repair (documentation, Repair: tombstones are streamed like any other cell): who missed
    a delete goes on with the value for ever."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.repair = RepairOfLiveRows(self, self.settings.anti_entropy_interval_us)


class RepairOfLiveRows(Repair):
    """Does not see a tombstone."""

    def _rows(self, owner: int) -> list[tuple[str, Cell]]:
        return [row for row in super()._rows(owner) if row[1][1] is not None]


class RepairsAfterTheAnswer(Cassandra):
    """Read repair goes out behind the answer.  Violates BLOCKING (documentation, Read repair: "the read will block on writes sent to other replicas until the
    CL is reached by the writes"): a later read comes before the repair, and goes back."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.reads = AnswersFirst(self)


class AnswersFirst(Reads):
    """Answers, and repairs meanwhile."""

    def _repair(self, read: PendingRead) -> None:
        for node in read.stale:
            self.host.send_or_apply(node, ReadRepair(read.id, read.key, read.best, self.host.now))
        self._finish(read, read.best)


class TombstonesUnrepaired(Cassandra):
    """What is written back is never a tombstone.  Violates read repair of deletes (documentation, Tombstones: Cassandra "treats a deletion as an insertion"):
    a deleted row is seen again after a read that missed it."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.reads = RepairsValues(self)


class RepairsValues(Reads):
    """Writes values back."""

    def _repair(self, read: PendingRead) -> None:
        if read.best[1] is None:
            self._finish(read, read.best)
        else:
            super()._repair(read)


class HintsCountAsReplicas(Cassandra):
    """A hint stored counts as an acknowledgement at QUORUM too.  Violates the levels (documentation, Tunable consistency: so many REPLICAS must
    respond; a hint is enough at ANY alone): a write is acknowledged that one replica has."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.writes = CountsHints(self, self.writes.needs)


class CountsHints(Writes):
    """Counts who is known to be down as having answered."""

    def _send(self, write: PendingWrite, replicas: tuple[int, ...]) -> None:
        for node in replicas:
            if not self.host.gossiper.alive[node]:
                self._count(write, self.host.dc_of[node])
        super()._send(write, replicas)


class LevelsOverAllCentres(Cassandra):
    """LOCAL_QUORUM and EACH_QUORUM count answers from wherever they come.  Violates both (documentation, Tunable consistency: a majority of the replicas in the
    local data centre; in each): a write is acknowledged that the other centre has not, and read there."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.read_needs = tuple((ring.EVERY, count) for _, count in self.read_needs)
        self.writes.needs = tuple((ring.EVERY, count) for _, count in self.writes.needs)


class HintsStampedAnew(Cassandra):
    """A hint is replayed with the time of its replay.  Violates what a hint is (documentation, Hints: the mutation itself, with its timestamp): an old value
    wins over newer ones."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.hints = FreshHints(self, self.gossiper.alive, self.gossiper.downtime, self.hints.flush_phase, self.hints.dispatch_phase)


class FreshHints(Hints):
    """Stamps what it sends."""

    def _send_page(self, target: int, store: Store) -> None:
        hints = store.files[0][1]
        hints[:] = [(key, (self.host.now, *cell[1:]), hinted) for key, cell, hinted in hints]
        super()._send_page(target, store)


class PartialFilesDropped(Cassandra):
    """A file of hints whose sending ended in a cut is deleted.  Violates HintsDispatchExecutor (the file is kept from the page on that was not acknowledged,
    "partially"): what was in it is lost."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.hints = CarelessHints(self, self.gossiper.alive, self.gossiper.downtime, self.hints.flush_phase, self.hints.dispatch_phase)


class CarelessHints(Hints):
    """Drops the file under way."""

    def _give_up(self, store: Store) -> None:
        store.files.pop(0)
        store.offset, store.dispatch = 0, None


class DeletesUnhinted(Cassandra):
    """No hint is kept for a delete.  Violates hinted handoff of deletes (documentation, Tombstones: Cassandra "treats a deletion as an insertion"): who was
    cut off goes on with the value."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.hints = ValueHints(self, self.gossiper.alive, self.gossiper.downtime, self.hints.flush_phase, self.hints.dispatch_phase)


class ValueHints(Hints):
    """Keeps values."""

    def write(self, target: int, key: str, cell: Cell) -> None:
        if cell[1] is not None:
            super().write(target, key, cell)


class HintsUnlogged(Cassandra):
    """Hints stay in memory.  Violates hinted handoff's files (documentation, Hints: a hint is written to disk, each hints_flush_period): who keeps them restarts,
    and what they were for is missed."""

    def persist(self, record: Any, sync: bool = True) -> None:
        if record[0] != "hint":
            super().persist(record, sync)
