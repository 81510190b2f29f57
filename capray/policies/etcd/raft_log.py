"""Raft's log (Ongaro and Ousterhout, ATC 2014, extended version, sections 5.3, 5.4 and 7), as etcd-io/raft keeps it.

Decides: whether two logs agree at a place, what is cut off, which log is more up to date, what compaction leaves.  May not know: messages,
quorums, disks.  Indices count from 1; entry i of the log is `entries[i - offset - 1]`; `offset` is the index of the last compacted entry.
"""

from __future__ import annotations

from collections.abc import Sequence

from capray.policies.etcd.raft_messages import Entry

COMPACTED = -1  # the term of an entry that is no longer, or not yet, in the log


class Log:
    """The entries after the newest compaction."""

    __slots__ = ("entries", "last", "last_term", "offset", "offset_term")

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.offset = 0
        self.offset_term = 0
        self.last = 0
        self.last_term = 0

    def term(self, index: int) -> int:
        """The term of the entry at `index`; COMPACTED where the log does not say."""
        if index == self.last:
            return self.last_term
        if self.offset < index < self.last:
            return self.entries[index - self.offset - 1].term
        return self.offset_term if index == self.offset else COMPACTED

    def entry(self, index: int) -> Entry:
        """The entry at `index`, which must be there."""
        return self.entries[index - self.offset - 1]

    def after(self, index: int, limit: int) -> tuple[Entry, ...]:
        """At most `limit` entries that follow `index`."""
        start = index - self.offset
        return tuple(self.entries[start:start + limit])

    def append(self, entries: Sequence[Entry]) -> None:
        """Add at the end."""
        self.entries.extend(entries)
        self.last += len(entries)
        self.last_term = self.entries[-1].term

    def matches(self, index: int, term: int) -> bool:
        """Whether the entry at `index` is of `term`: then, by log matching, all before it agree too."""
        return index >= self.offset and self.term(index) == term

    def merge(self, index: int, entries: Sequence[Entry]) -> int:
        """Take over what follows `index`, where the logs agree: skip what is here already, cut off from the first conflict on.  Returns how many
        entries were taken (figure 2: "If an existing entry conflicts with a new one (same index but different terms), delete the existing entry and all
        that follow it")."""
        for skipped, entry in enumerate(entries):
            if self.term(index + skipped + 1) != entry.term:
                self.truncate(index + skipped)
                self.append(entries[skipped:])
                return len(entries) - skipped
        return 0

    def truncate(self, index: int) -> None:
        """Forget all after `index`."""
        if index < self.last:
            del self.entries[index - self.offset:]
            self.last = index
            self.last_term = self.entries[-1].term if self.entries else self.offset_term

    def up_to_date(self, index: int, term: int) -> bool:
        """Whether a log that ends at (`index`, `term`) is at least as up to date as this one (5.4.1)."""
        return term > self.last_term or (term == self.last_term and index >= self.last)

    def find_by_term(self, index: int, term: int) -> int:
        """The largest index at or before `index` whose entry is of `term` or earlier: where two logs may agree.  0 where compaction hides it."""
        index = min(index, self.last)
        while index > self.offset and self.term(index) > term:
            index -= 1
        return index if index > self.offset or self.offset_term <= term else 0

    def compact(self, index: int) -> None:
        """Forget all up to `index`; a snapshot stands for it (section 7)."""
        if index > self.offset:
            self.offset_term = self.term(index)
            del self.entries[:index - self.offset]
            self.offset = index

    def restore(self, index: int, term: int) -> None:
        """Replace everything by a snapshot of `index`."""
        self.entries = []
        self.offset = self.last = index
        self.offset_term = self.last_term = term
