"""What Redis servers, Sentinels and clients say to each other.

Sources: Redis 7.0 replication.c (PSYNC, REPLCONF ACK), sentinel.c (PING, INFO, hello, is-master-down-by-addr, SLAVEOF); clients' messages are
those of any database driver (capray/policies/driver.py).  A Redis node is named by its number; offsets count writes (and pings), not bytes.
"""

from __future__ import annotations

from typing import Any, ClassVar

from capray.replica import ACK, WRITE, Message

Entry = tuple[int, int, int, str, Any]  # replication stream: number of the branch, offset, the primary that took it, key ("": a ping), value
Branch = tuple[int, int]  # a replication id, and the first offset written under it
Lineage = tuple[Branch, ...]  # oldest first; Redis itself remembers the last two (replid, replid2)
NOBODY = -1


class Psync(Message, frozen=True):
    """A replica asks to go on from `offset` (what it has) under replication id `replid`; -1: it knows nothing."""

    replid: int
    offset: int


class Continue(Message, frozen=True):
    """+CONTINUE: partial resynchronisation, with what the backlog holds after the replica's offset."""

    kind: ClassVar[int] = WRITE
    lineage: Lineage
    entries: list[Entry]

    @property
    def size(self) -> int:  # type: ignore[override]
        return 100 + 100 * len(self.entries)


class FullSync(Message, frozen=True):
    """+FULLRESYNC and the RDB: the whole data set at `offset`."""

    kind: ClassVar[int] = WRITE
    lineage: Lineage
    offset: int
    rows: list[Entry]

    @property
    def size(self) -> int:  # type: ignore[override]
        return 200 + 100 * len(self.rows)


class Feed(Message, frozen=True):
    """The replication stream: consecutive entries."""

    kind: ClassVar[int] = WRITE
    entries: list[Entry]

    @property
    def size(self) -> int:  # type: ignore[override]
        return 100 * len(self.entries)


class ReplAck(Message, frozen=True):
    """REPLCONF ACK: how far the replica is."""

    kind: ClassVar[int] = ACK
    offset: int


class ReplReset(Message, frozen=True):
    """The sender has no such replication connection (a reset), or closes it."""


class NoMasterLink(Message, frozen=True):
    """-NOMASTERLINK: a replica that is not in sync with its own primary serves no replicas."""


class Ping(Message, frozen=True):
    """A Sentinel's PING to a node's Redis or (`sentinel`) to its Sentinel."""

    sentinel: bool


class Pong(Message, frozen=True):
    """The answer.  `quiet_us`: how long ago anything was last published on this Redis's `__sentinel__:hello` (no part of a real PONG: it stands for
    the hellos that a subscriber would have seen; the record's bytes do not count it)."""

    sentinel: bool
    quiet_us: int = 0


class Subscribe(Message, frozen=True):
    """A Sentinel's SUBSCRIBE __sentinel__:hello, on a connection of its own."""


class Info(Message, frozen=True):
    """A Sentinel's INFO to a Redis."""


class InfoReply(Message, frozen=True):
    """What a Sentinel reads of INFO: role and primary (-1: it is one), the link to it (`link_down_us` below 0: there never was one), and what selection
    goes by."""

    size: ClassVar[int] = 3000
    master: int
    link_up: bool
    link_down_us: int
    priority: int
    offset: int
    runid: int


class Publish(Message, frozen=True):
    """A hello published on a Redis's `__sentinel__:hello`: the Sentinel's epoch, the primary that it takes for current, and since which epoch."""

    size: ClassVar[int] = 200
    sender: int
    epoch: int
    master: int
    config_epoch: int


class Hello(Message, frozen=True):
    """The same at a Sentinel: relayed by a Redis to its subscribers, or sent directly."""

    size: ClassVar[int] = 200
    sender: int
    epoch: int
    master: int
    config_epoch: int
    relayed: bool = False


class IsMasterDown(Message, frozen=True):
    """SENTINEL is-master-down-by-addr: is it down for you; and, where `candidate` is a Sentinel, vote for it in `epoch`."""

    master: int
    epoch: int
    candidate: int


class IsMasterDownReply(Message, frozen=True):
    """The answer; `leader` -1: no vote."""

    down: bool
    leader: int
    epoch: int


class ReplicaOf(Message, frozen=True):
    """A Sentinel's SLAVEOF (with CONFIG REWRITE); -1: NO ONE."""

    master: int
