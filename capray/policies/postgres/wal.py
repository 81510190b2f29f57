"""PostgreSQL's write-ahead log as replication sees it: records, timelines, the messages between primary and standby.

Decides: what a log holds, which part of it a change of timeline keeps, what is visible.  May not know: who is primary, time-outs.
Sources: PostgreSQL 15 manual 30 (WAL), 26.3.5 (timelines), 55.4 (streaming replication protocol).
A log sequence number (LSN) counts records here, not bytes.
"""

from __future__ import annotations

from typing import Any, ClassVar

from capray.replica import ACK, WRITE, Message

Entry = tuple[int, str, Any]  # the timeline it was written on, key, value
Fork = tuple[int, int]  # a timeline, and the last LSN that it shares with the one before


class StartReplication(Message, frozen=True):
    """The standby asks for the log from `lsn` on, which it has on timeline `timeline`."""

    timeline: int
    lsn: int


class Wal(Message, frozen=True):
    """Log records, the first being `first`; none at all where the standby is up to date."""

    kind: ClassVar[int] = WRITE
    timeline: int
    first: int
    records: list[Entry]
    forks: tuple[Fork, ...]


class Status(Message, frozen=True):
    """How far the standby has written, flushed and applied the log (Standby status update)."""

    kind: ClassVar[int] = ACK
    timeline: int
    write: int
    flush: int
    apply: int
    reply: bool = False


class Keepalive(Message, frozen=True):
    """The primary is there; with `reply` it wants to hear the standby."""

    reply: bool


class Poll(Message, frozen=True):
    """From one node's failover manager to the other's: I am primary, on this timeline, which left the older ones at these forks."""

    primary: bool
    timeline: int
    forks: tuple[Fork, ...]


class Flushed(Message, frozen=True):
    """To itself: the log is on disk up to `lsn`."""

    kind: ClassVar[int] = WRITE
    timeline: int
    lsn: int


class Log:
    """A server's log, its timeline, and the rows that are visible.  `entries[i]` is LSN i + 1."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.timeline = 1
        self.forks: tuple[Fork, ...] = ()
        self.rows: dict[str, tuple[int, int, Any]] = {}  # key -> timeline, LSN, value

    @property
    def lsn(self) -> int:
        """The last record's."""
        return len(self.entries)

    def append(self, key: str, value: Any) -> int:
        """A new record on this timeline; its LSN."""
        self.entries.append((self.timeline, key, value))
        return len(self.entries)

    def show(self, lsn: int) -> tuple[tuple[int, int], tuple[Any, ...]]:
        """Make a record visible; what orders it, and the value it replaced."""
        timeline, key, value = self.entries[lsn - 1]
        before = self.rows.get(key)
        self.rows[key] = (timeline, lsn, value)
        return (timeline, lsn), () if before is None else (before[2],)

    def kept(self, timeline: int) -> int:
        """The last LSN that a log on an older `timeline` shares with this one."""
        return min([fork for later, fork in self.forks if later > timeline], default=self.lsn)

    def fork(self) -> int:
        """Promotion: a new timeline begins after the last record."""
        self.timeline += 1
        self.forks = (*self.forks, (self.timeline, self.lsn))
        return self.timeline

    def rewind(self, timeline: int, forks: tuple[Fork, ...], shown: int) -> list[tuple[str, Any, tuple[int, int]]]:
        """Go over to a newer timeline, as pg_rewind does: drop what it does not share.  Up to LSN `shown` records stay visible.
        The visible records that were dropped: key, value, order."""
        keep = min(self.lsn, min(fork for later, fork in forks if later > self.timeline))
        dropped = [(key, value, (tl, i + 1)) for i, (tl, key, value) in enumerate(self.entries) if i >= keep and self._shown(key, i + 1)]
        del self.entries[keep:]
        self.timeline, self.forks = timeline, forks
        self.rows = {}
        for lsn in range(1, min(keep, shown) + 1):
            self.show(lsn)
        return dropped

    def _shown(self, key: str, lsn: int) -> bool:
        row = self.rows.get(key)
        return row is not None and row[1] >= lsn
