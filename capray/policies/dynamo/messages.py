"""DeCandia et al., "Dynamo: Amazon's highly available key-value store" (SOSP 2007): the messages of the `dynamo` policy.

Decides: what travels.  Sizes are nominal, in bytes: 20 an entry of a vector clock, 100 for a value with its headers.
"""

from __future__ import annotations

from typing import Any

from capray.policies.vector_clock import Clock, Version
from capray.replica import ACK, CONTROL, READ, RESPONSE, WRITE, Message


def rows_size(rows: tuple[tuple[str, Version], ...]) -> int:
    """Nominal bytes of some rows."""
    return 60 + sum(100 + 20 * len(version[0]) for _, version in rows)


class Put(Message, frozen=True, array_like=True, tag=True, gc=False):
    """A client's write, forwarded to a node of the key's preference list.  `context` is what the client read."""

    kind = WRITE
    size = 200
    id: int
    key: str
    value: Any
    context: Clock


class PutDone(Message, frozen=True, array_like=True, tag=True, gc=False):
    """W nodes have the write; or the coordinator has given up."""

    kind = ACK
    size = 40
    id: int
    ok: bool


class Store(Message, frozen=True, array_like=True, tag=True, gc=False):
    """A version to keep; `intended`: the node that it is a hint for, -1 for the receiver itself.  id 0: no answer is awaited (read repair)."""

    kind = WRITE
    id: int
    key: str
    version: Version
    intended: int

    @property
    def size(self) -> int:  # type: ignore[override]
        return 140 + 20 * len(self.version[0])


class Stored(Message, frozen=True, array_like=True, tag=True, gc=False):
    """The version is on the disk."""

    kind = ACK
    size = 40
    id: int


class Fetch(Message, frozen=True, array_like=True, tag=True, gc=False):
    """All versions of a key, please."""

    kind = READ
    size = 80
    id: int
    key: str


class Fetched(Message, frozen=True, array_like=True, tag=True, gc=False):
    """Here they are, hinted ones too."""

    kind = RESPONSE
    id: int
    versions: tuple[Version, ...]

    @property
    def size(self) -> int:  # type: ignore[override]
        return 60 + sum(100 + 20 * len(version[0]) for version in self.versions)


class Gossip(Message, frozen=True, array_like=True, tag=True, gc=False):
    """The membership as the sender knows it: by node the number of its newest change (a start of the process); `reply` is wanted or given."""

    kind = CONTROL
    changes: tuple[int, ...]
    reply: bool

    @property
    def size(self) -> int:  # type: ignore[override]
        return 60 + 12 * len(self.changes)


class Ping(Message, frozen=True, array_like=True, tag=True, gc=False):
    """"A periodically retries B to check for the latter's recovery"."""

    kind = CONTROL
    size = 40


class Pong(Message, frozen=True, array_like=True, tag=True, gc=False):
    """Here I am."""

    kind = CONTROL
    size = 40


class HandOff(Message, frozen=True, array_like=True, tag=True, gc=False):
    """Hinted replicas for the receiver, whose they are."""

    kind = WRITE
    id: int
    rows: tuple[tuple[str, Version], ...]

    @property
    def size(self) -> int:  # type: ignore[override]
        return rows_size(self.rows)


class HandedOff(Message, frozen=True, array_like=True, tag=True, gc=False):
    """They are on the disk."""

    kind = ACK
    size = 40
    id: int


class SyncRoots(Message, frozen=True, array_like=True, tag=True, gc=False):
    """The roots of the Merkle trees of the key ranges that both host, as (range, root)."""

    kind = CONTROL
    roots: tuple[tuple[int, int], ...]

    @property
    def size(self) -> int:  # type: ignore[override]
        return 60 + 12 * len(self.roots)


class SyncTrees(Message, frozen=True, array_like=True, tag=True, gc=False):
    """The trees of the ranges whose roots differ."""

    kind = CONTROL
    trees: tuple[tuple[int, tuple[int, ...]], ...]

    @property
    def size(self) -> int:  # type: ignore[override]
        return 60 + sum(8 * len(tree) for _, tree in self.trees)


class SyncRows(Message, frozen=True, array_like=True, tag=True, gc=False):
    """The rows of the leaves that differ; with `leaves` the receiver's own are wanted back."""

    kind = WRITE
    rows: tuple[tuple[str, Version], ...]
    leaves: tuple[tuple[int, tuple[int, ...]], ...]

    @property
    def size(self) -> int:  # type: ignore[override]
        return rows_size(self.rows)
