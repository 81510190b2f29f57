"""PostgreSQL's row locks: heapam.c and README.tuplock of version 15.

Decides: who writes a row next.  May not know: when a writer ends, the log, standbys.
A row's writers are no queue.  Whoever finds the row being written takes the heavyweight lock of that version of the tuple, one after another, and its first
waits for the writer's transaction (heap_update).  When that ends there is a new version, and all who waited for the old one go on to the new: where it is
being written again they wait for that transaction alone, with no lock between them (heapam_tuple_lock, XLTW_FetchUpdated: "while rechecking updated tuple").
So at its end those wake all at once, with the first of the new version's queue, and one is there first.  Which, the system's scheduler decides: drawn
uniformly, as measured on 15.18 (two processors; where 2 to 19 waited, each rank won about alike).
Where each writer holds the row until its own client cancels it (a synchronous standby is away), most of those behind are cancelled before their turn: at 1, 3
and 10 writes a second and key, each cancelled after a second, .92, .64 and .25 of them were committed; a queue would commit nearly all.
"""

from __future__ import annotations

from typing import Any

import msgspec


class Write(msgspec.Struct):
    """A write on the primary: it waits for its row's lock (`lsn` 0), for the disk, for the standby."""

    src: int
    id: int
    key: str
    value: Any
    lsn: int = 0
    flushed: bool = False
    cancelled: bool = False


class Row(msgspec.Struct):
    """A row that is being written: by `holder`; `queue` waits for the version's tuple lock, its first for the holder's end; `racers` for that alone."""

    holder: Write
    queue: list[Write] = []
    racers: list[Write] = []

    def woken(self) -> list[Write]:
        """Who competes for the row when its holder ends."""
        return [*self.racers, *self.queue[:1]]

    def passes_to(self, winner: Write) -> None:
        """There is a new version: all others have come too late for the old one, and wait for the winner's end."""
        self.racers = [write for write in (*self.racers, *self.queue) if write is not winner]
        self.holder, self.queue = winner, []

    def forget(self, write: Write) -> None:
        """It waits no longer."""
        (self.queue if write in self.queue else self.racers).remove(write)
