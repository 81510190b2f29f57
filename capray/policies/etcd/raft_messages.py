"""Raft's messages and journal records as etcd-io/raft has them (raftpb/raft.proto; Ongaro and Ousterhout, ATC 2014, figure 2).

Decides: nothing.  Sizes are nominal: a message's head, and 64 bytes for each entry or row (etcd's benchmark: 8-byte keys, small values).
Journal records are what etcd's write-ahead log holds: HardState (term, vote), entries (kept as the Append that brought them), Committed,
and a snapshot (kept as the InstallSnapshot that brought it).
"""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec

from capray.replica import ACK, READ, RESPONSE, WRITE, Message

NONE = -1  # no node: no leader known, no vote cast
ROW_BYTES = 64


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One log entry: `key` = `value`, asked as `request` at `node`.  A new leader's empty entry has node -1 and no key.  Its index is its
    place in the log."""

    term: int
    node: int
    request: int
    key: str
    value: Any


class Row(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One key of a snapshot, its value, and the index of the entry that wrote it."""

    key: str
    value: Any
    index: int


class HardState(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """Journal: the current term, and whom this node voted for in it."""

    term: int
    vote: int


class Committed(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """Journal, not synced by itself (etcd: MustSync is false where only the commit index moved)."""

    index: int


class PreVote(Message, frozen=True):
    """Would you vote for me in `term`, if I stood?  Nobody's term changes (thesis, 9.6)."""

    term: int
    index: int
    log_term: int


class PreVoteResponse(Message, frozen=True):
    """Granted: `term` is the one asked about.  Refused: it is the answerer's."""

    kind: ClassVar[int] = ACK
    term: int
    reject: bool


class Vote(Message, frozen=True):
    """RequestVote: a candidate for `term`, whose log ends at `index` with an entry of `log_term`."""

    term: int
    index: int
    log_term: int


class VoteResponse(Message, frozen=True):
    """The answer, sent when the vote is on disk.  To itself (since 3.6): the candidate's own vote is."""

    kind: ClassVar[int] = ACK
    term: int
    reject: bool


class Heartbeat(Message, frozen=True):
    """The leader lives.  `reader`, `round`: the newest read that waits for a quorum to confirm the leader (-1: none)."""

    term: int
    commit: int
    reader: int
    round: int


class HeartbeatResponse(Message, frozen=True):
    """Heard; the read is handed back."""

    kind: ClassVar[int] = ACK
    term: int
    reader: int
    round: int


class Append(Message, frozen=True):
    """AppendEntries: `entries` follow the entry at `index`, which is of `log_term`."""

    kind: ClassVar[int] = WRITE
    term: int
    index: int
    log_term: int
    entries: tuple[Entry, ...]
    commit: int

    @property
    def size(self) -> int:  # type: ignore[override]
        return 100 + ROW_BYTES * len(self.entries)


class AppendResponse(Message, frozen=True):
    """The log agrees with the leader's up to `index`, on disk (to itself, since 3.6: the leader's own does); or, `reject`: it does not at
    `index`, try at `hint`, which is of `log_term` here."""

    kind: ClassVar[int] = ACK
    term: int
    index: int
    reject: bool = False
    hint: int = 0
    log_term: int = 0


class InstallSnapshot(Message, frozen=True):
    """The store as it was when the entry at `index`, of `log_term`, had been applied."""

    kind: ClassVar[int] = WRITE
    term: int
    index: int
    log_term: int
    rows: tuple[Row, ...]

    @property
    def size(self) -> int:  # type: ignore[override]
        return 1000 + ROW_BYTES * len(self.rows)


class Propose(Message, frozen=True):
    """A follower hands its client's write to the leader (MsgProp; it carries no term)."""

    kind: ClassVar[int] = WRITE
    size: ClassVar[int] = 100 + ROW_BYTES
    entry: Entry


class ReadIndex(Message, frozen=True):
    """A follower asks the leader up to where it must have applied to answer the reads of its `round` (it carries no term)."""

    kind: ClassVar[int] = READ
    round: int


class ReadIndexResponse(Message, frozen=True):
    """The leader's commit index when it was asked, confirmed by a quorum since."""

    kind: ClassVar[int] = RESPONSE
    term: int
    round: int
    index: int


class Persisted(Message, frozen=True):
    """A member to itself: the Ready that was being saved is on disk."""

    kind: ClassVar[int] = ACK


class LinkHeartbeat(Message, frozen=True):
    """rafthttp's own sign of life on a stream; Raft does not see it."""

    size: ClassVar[int] = 20


class Attach(Message, frozen=True):
    """rafthttp's GET of a stream: from now on the sender reads what it is written.  `waited`: the age of the SYN that it follows, which is no part of
    the real one: one connection joins a pair here, and of two dials that end in it only the younger one was answered."""

    size: ClassVar[int] = 300
    waited: int


class Attached(Message, frozen=True):
    """The stream's head: its reader is served."""

    size: ClassVar[int] = 150


MESSAGES: tuple[type[Message], ...] = (PreVote, PreVoteResponse, Vote, VoteResponse, Heartbeat, HeartbeatResponse, Append, AppendResponse,
                                       InstallSnapshot, Propose, ReadIndex, ReadIndexResponse, Persisted, LinkHeartbeat, Attach, Attached)
