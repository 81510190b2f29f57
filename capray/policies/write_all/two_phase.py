"""Two-phase commit's messages, log records, and what a node remembers of a transaction and of a key; capray/policies/write_all/replica.py uses them.

Decides: nothing; the protocol is there.  Sources: Gray 1978, 5.8.3.3; Bernstein, Hadzilacos and Goodman 1987, 7.4 (which record when);
Mohan, Lindsay and Obermarck 1986 (presumed abort: no record of an abort need be synced, and a commit is remembered until all confirm it).
"""

from __future__ import annotations

from collections import deque
from typing import Any, ClassVar

import msgspec

from capray.replica import ACK, WRITE, Message

Tid = tuple[int, int, int]  # coordinator, its request, attempt
Age = tuple[int, int, int]  # the coordinator's clock at the request, coordinator, request: smaller is older
WAITING, PREPARING, DECIDED, LOGGED = range(4)


class Prepare(Message, frozen=True):
    """Lock the key for this write and vote.  Also the participant's record of having voted yes."""

    kind: ClassVar[int] = WRITE
    tid: Tid
    age: Age
    key: str
    value: Any


class Vote(Message, frozen=True):
    """Yes: locked and logged, the key's version here being `version`.  No: it gave way to an older write, or was refused."""

    kind: ClassVar[int] = ACK
    tid: Tid
    yes: bool
    version: int


class Commit(Message, frozen=True):
    """The decision.  Also a participant's record of it."""

    kind: ClassVar[int] = WRITE
    tid: Tid
    key: str
    version: int


class Confirm(Message, frozen=True):
    """The participant has applied and logged the commit."""

    kind: ClassVar[int] = ACK
    tid: Tid


class Abort(Message, frozen=True):
    """The decision.  Also a participant's record of it, which need not be synced."""

    tid: Tid
    key: str


class Inquire(Message, frozen=True):
    """A participant in doubt asks what became of the write."""

    tid: Tid
    key: str


class Decision(Message, frozen=True):
    """The coordinator's commit record: once synced, the write has happened.  To itself as a message: it is synced."""

    kind: ClassVar[int] = WRITE
    tid: Tid
    key: str
    value: Any
    version: int


class End(Message, frozen=True):
    """The coordinator's record that all have confirmed: it may forget."""

    tid: Tid


class Refusal(Message, frozen=True):
    """A participant's record that it will never vote yes on this write."""

    tid: Tid


class Transaction(msgspec.Struct):
    """A coordinator's write.  `missing`: bits of the nodes whose vote, later whose confirmation, is awaited."""

    request: int
    key: str
    value: Any
    age: Age
    attempt: int = 0
    phase: int = WAITING
    missing: int = 0
    version: int = 0
    answered: bool = False
    told_at: int = 0


class Row:
    """A key on one node: what is committed, who holds the lock, who waits."""

    __slots__ = ("age", "holder", "older", "pending", "queue", "reads", "superseded", "tid", "value", "version")

    def __init__(self) -> None:
        self.value: Any = None
        self.version = 0
        self.tid: Tid | None = None  # whose write `value` is
        self.superseded: tuple[Any, ...] = ()  # what it replaced
        self.holder: Tid | None = None
        self.age: Age = (0, 0, 0)  # the holder's
        self.pending: Any = None  # the holder's value
        self.reads: list[int] = []  # this node's clients
        self.older: list[Prepare] = []  # older than the holder, from other coordinators
        self.queue: deque[Transaction] = deque()  # this node's own, which hold nothing yet

    def take(self, tid: Tid, value: Any, version: int) -> None:
        self.superseded = () if self.value is None else (self.value,)
        self.value, self.version, self.tid = value, version, tid

    def lock(self, tid: Tid, age: Age, value: Any) -> None:
        self.holder, self.age, self.pending = tid, age, value

    def unlock(self) -> None:
        self.holder, self.pending = None, None
