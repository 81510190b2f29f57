"""Merkle, "A digital signature based on a conventional encryption function" (CRYPTO 1987), as Apache Cassandra's repair uses it (utils.MerkleTree).

Decides: which parts of the ring two replicas differ in, from a tree of hashes each.  Pure.
May not know: replicas, messages.  A leaf is an even share of the token ring; its hash is the exclusive or of its rows' hashes (as
MerkleTree.TreeRange.addHash mixes them), a parent's the hash of its children's.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable

from capray.policies.cassandra.cells import Cell, value_bytes
from capray.policies.ring import TOP, token

MASK = 0xFFFFFFFFFFFFFFFF


def _mix(x: int) -> int:
    """SplitMix64's finisher: each bit of the input changes half of the output's."""
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def row_hash(key: str, cell: Cell) -> int:
    """64 bits of a row: key, timestamp, value or tombstone."""
    content = 0 if cell[1] is None else 1 + zlib.crc32(value_bytes(cell[1]))
    return _mix(_mix((zlib.crc32(key.encode()) << 32) ^ content) ^ (cell[0] & MASK))


def leaf(key: str, depth: int) -> int:
    """The leaf, of 2**depth, that a key's token falls into."""
    return (token(key) + TOP) >> (64 - depth)


def build(rows: Iterable[tuple[str, Cell]], depth: int) -> tuple[int, ...]:
    """The tree as a heap: node i's children are 2 i + 1 and 2 i + 2, the root comes first, the last 2**depth are the leaves."""
    leaves = [0] * (1 << depth)
    for key, cell in rows:
        leaves[leaf(key, depth)] ^= row_hash(key, cell)
    levels = [leaves]
    while len(levels[-1]) > 1:
        below = levels[-1]
        levels.append([_mix((below[i] * 3 + below[i + 1]) & MASK) for i in range(0, len(below), 2)])
    return tuple(h for level in reversed(levels) for h in level)


def difference(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    """The leaves in which two trees of the same depth differ, found from the root down through differing nodes only."""
    first_leaf = len(one) // 2
    found: list[int] = []
    look = [0]
    while look:
        node = look.pop()
        if one[node] == other[node]:
            continue
        if node >= first_leaf:
            found.append(node - first_leaf)
        else:
            look += [2 * node + 2, 2 * node + 1]
    return tuple(found)
