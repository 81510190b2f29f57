"""Cassandra, broken on purpose: one protocol bug a class.  `capray run --policy cassandra_mutants:DropsHints` (with tests/ on the path) runs one;
tests/test_cassandra_mutants.py has the schedule and the check that expose each, and that the sound policy passes."""

from __future__ import annotations

from typing import Any

from capray.policies import ring
from capray.policies.cassandra.cells import ABSENT, Cell, order, same
from capray.policies.cassandra.hints import Hints
from capray.policies.cassandra.reads import PendingRead, Reads
from capray.policies.cassandra.replica import Cassandra


class QuorumOfHalf(Cassandra):
    """QUORUM is half of the replicas, not more than half: a read can miss every replica that took the write."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        half = ((ring.EVERY, sum(self.settings.factors(self.nodes)) // 2),)
        self.read_needs = self.writes.needs = half


class DropsHints(Cassandra):
    """A hint is counted and thrown away: what a replica missed in a cut it misses for good."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.hints = NoHints(self, self.gossiper.alive, self.gossiper.downtime, 0, 0)


class NoHints(Hints):
    """Keeps nothing."""

    def write(self, target: int, key: str, cell: Cell) -> None:
        """Into the void."""


class RepairsNothing(Cassandra):
    """Blocking read repair answers without writing back: a later read can go back to the older value."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.reads = ReadsOnly(self)


class ReadsOnly(Reads):
    """Merges, and leaves it at that."""

    def _repair(self, read: PendingRead) -> None:
        self._finish(read, read.best)


class LastArrivalWins(Cassandra):
    """A replica keeps what came last, not what has the highest timestamp: replicas end with different values."""

    def apply(self, key: str, cell: Cell) -> None:
        old = self.cells.get(key, ABSENT)
        if not same(cell, old):
            self.cells[key] = cell
            self.applied(key, cell[1], order(cell), () if old[1] is None else (old[1],))


class ForgetsCommitLog(Cassandra):
    """Writes are acknowledged and never logged: a restarted process has lost them, so a quorum can be all amnesiac."""

    def persist(self, record: Any, sync: bool = True) -> None:
        if record[0] != "write":
            super().persist(record, sync)
