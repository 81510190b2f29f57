"""Apache Cassandra 5.0, db.rows.Cells.reconcile: which of two versions of a cell stands, and how cells are compared over the wire.

Decides: last-write-wins.  May not know: replicas, messages.
Sources: db.rows.Cells.resolveRegular (the higher timestamp; on a tie a tombstone; then the larger value, byte by byte),
db.SinglePartitionReadCommand's digests.  A cell is the tuple (timestamp, value, deleted_at): microseconds, the value (None in a
tombstone), and when it was deleted on the coordinator's clock (0 in a live cell), from which gc_grace_seconds count.
"""

from __future__ import annotations

import zlib
from functools import lru_cache
from typing import Any

import msgspec

Cell = tuple[int, Any, int]
ABSENT: Cell = (-1, None, 0)  # stands for "this replica holds nothing"


def value_bytes(value: Any) -> bytes:
    """The bytes that ties are decided by: UTF-8 for text, as Cassandra's text; MessagePack for all else."""
    return value.encode() if isinstance(value, str) else msgspec.msgpack.encode(value, order="deterministic")


def wins(new: Cell, old: Cell) -> bool:
    """Whether `new` replaces `old`; a cell does not replace itself."""
    if new[0] != old[0]:
        return new[0] > old[0]
    if (new[1] is None) != (old[1] is None):
        return new[1] is None
    return new[1] is not None and new[1] != old[1] and value_bytes(new[1]) > value_bytes(old[1])


def same(a: Cell, b: Cell) -> bool:
    """Whether both are the same write."""
    return a[0] == b[0] and a[1] == b[1]


def _chunks(data: bytes) -> tuple[int, ...]:
    return tuple(int.from_bytes(data[i : i + 7].ljust(7, b"\0"), "big") for i in range(0, len(data), 7))


@lru_cache(maxsize=8192, typed=True)
def _cached_chunks(value: str | int) -> tuple[int, ...]:
    return _chunks(value_bytes(value))


def order(cell: Cell) -> tuple[int, ...]:
    """What the store orders the cell by, as integers of less than 64 bits: timestamp, tombstone or not, the value's bytes by sevens."""
    timestamp, value, _ = cell
    if value is None:
        return (timestamp, 1)
    if type(value) is str or type(value) is int:
        return (timestamp, 0, *_cached_chunks(value))
    return (timestamp, 0, *_chunks(value_bytes(value)))


def digest(cell: Cell) -> int:
    """What a digest response carries: two replicas agree iff theirs are equal (but for a collision of CRC-32 within one microsecond)."""
    timestamp, value, _ = cell
    if timestamp < 0:
        return 0
    return ((timestamp & 0x7FFFFFFF) << 32) | (0 if value is None else zlib.crc32(value_bytes(value)))
