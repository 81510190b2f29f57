"""One node's disk: its journal, what of it is synced, and when a sync is complete.

Decides: how long a synced write waits, and what a crash leaves.  May not know: what a record says, replicas, the network.
One queue; syncs that come while one is under way share the next (group commit, as ZooKeeper, etcd and PostgreSQL do).
"""

from __future__ import annotations

from typing import Any

from capray.streams import Stream
from capray.tables import Table


class Disk:
    """`journal` holds every record written, oldest first; the first `synced` of them would survive the host."""

    def __init__(self, times: Table, stream: Stream) -> None:
        self.times = times
        self.stream = stream
        self.journal: list[Any] = []
        self.synced = 0
        self.forgot = False  # whether the crash took records, or none was ever written
        self.busy = 0  # until when a sync is under way
        self.next = 0  # when the sync after that is complete (0: none is wanted)

    def sync(self, t: int, factor: int) -> int:
        """When a sync asked for at `t`, `factor` times as slow as usual, is complete; `t` where it takes no time."""
        cost = factor * (self.times.least if self.times.constant else self.times.drawn(self.stream.word()))
        if cost == 0:
            self.synced = len(self.journal)
            return t
        if self.next and t >= self.busy:
            self.busy, self.next = self.next, 0  # the awaited sync is the one under way now
        if t >= self.busy:
            self.busy = t + cost
            return self.busy
        if not self.next:
            self.next = self.busy + cost
        return self.next

    def completed(self, records: int) -> None:
        """The first `records` of the journal are synced."""
        self.synced = max(self.synced, records)

    def crash(self, host: bool) -> int:
        """The process is gone, or with `host` all that was not synced too.  Returns how many records that was."""
        self.busy = self.next = 0
        lost = len(self.journal) - self.synced if host else 0
        if host:
            del self.journal[self.synced:]
        self.forgot = lost > 0 or not self.journal
        return lost

    def recover(self) -> list[Any]:
        """What a booting process reads, and syncs as it reads it (as PostgreSQL's recovery does)."""
        self.synced = len(self.journal)
        return list(self.journal)
