"""Apache Cassandra's Murmur3Partitioner, SimpleStrategy, NetworkTopologyStrategy and ConsistencyLevel (5.0): who holds a key, how many must answer.

Decides: the token of a key, its replicas, and how many of which replicas a consistency level blocks for.  Pure functions of their arguments.
May not know: which replicas are alive, messages, time.
Sources: org.apache.cassandra.dht.Murmur3Partitioner (MurmurHash3 x64 128, first half, with its sign extension of the tail's bytes),
locator.SimpleStrategy.calculateNaturalReplicas, locator.NetworkTopologyStrategy.calculateNaturalReplicas, db.ConsistencyLevel.blockFor (5.0).
Simplified: one token a node, evenly spaced (`num_tokens: 1` with `initial_token`, as in the recorded runs), in place of 16 random ones.
"""

from __future__ import annotations

from bisect import bisect_left
from functools import lru_cache

MASK = 0xFFFFFFFFFFFFFFFF
C1 = 0x87C37B91114253D5
C2 = 0x4CF5AD432745937F
TOP = 1 << 63

LOCAL_LEVELS = ("LOCAL_ONE", "LOCAL_QUORUM")
COUNTS = {"ANY": 1, "ONE": 1, "LOCAL_ONE": 1, "TWO": 2, "THREE": 3}
EVERY = -1  # in a requirement, stands for "of whatever data centre"


def _rotate(x: int, by: int) -> int:
    return ((x << by) | (x >> (64 - by))) & MASK


def _finish(h: int) -> int:
    h = ((h ^ (h >> 33)) * 0xFF51AFD7ED558CCD) & MASK
    h = ((h ^ (h >> 33)) * 0xC4CEB9FE1A85EC53) & MASK
    return h ^ (h >> 33)


def _scramble_first(k: int) -> int:
    return (_rotate((k * C1) & MASK, 31) * C2) & MASK


def _scramble_second(k: int) -> int:
    return (_rotate((k * C2) & MASK, 33) * C1) & MASK


def _signed_tail(tail: bytes) -> tuple[int, int]:
    """The last bytes as two words; Cassandra shifts Java's signed bytes, so that a byte from 128 up also flips all bits above it."""
    words = [0, 0]
    for index, byte in enumerate(tail):
        signed = byte - 256 if byte > 127 else byte
        words[index >> 3] ^= (signed << (8 * (index & 7))) & MASK
    return words[0], words[1]


@lru_cache(maxsize=65536)
def token(key: str | bytes) -> int:
    """The key's place on the ring, in [-2**63, 2**63), as Cassandra's Murmur3Partitioner has it; a string counts as its UTF-8 bytes."""
    data = key.encode() if isinstance(key, str) else key
    h1 = h2 = 0
    whole = len(data) & ~15
    for at in range(0, whole, 16):
        h1 ^= _scramble_first(int.from_bytes(data[at : at + 8], "little"))
        h1 = ((_rotate(h1, 27) + h2) * 5 + 0x52DCE729) & MASK
        h2 ^= _scramble_second(int.from_bytes(data[at + 8 : at + 16], "little"))
        h2 = ((_rotate(h2, 31) + h1) * 5 + 0x38495AB5) & MASK
    k1, k2 = _signed_tail(data[whole:])
    h1 ^= _scramble_first(k1) ^ len(data)
    h2 ^= _scramble_second(k2) ^ len(data)
    h1 = (h1 + h2) & MASK
    h2 = (h2 + h1) & MASK
    h1, h2 = _finish(h1), _finish(h2)
    h1 = (h1 + h2) & MASK
    return h1 - (1 << 64) if h1 >= TOP else h1


@lru_cache(maxsize=256)
def initial_tokens(nodes: int) -> tuple[int, ...]:
    """Evenly spaced tokens, node 0's the lowest: 2**64 / nodes * i - 2**63 (the manual's formula for initial_token)."""
    return tuple((1 << 64) // nodes * i - TOP for i in range(nodes))


def owner(key: str, nodes: int, partitioner: str = "murmur3") -> int:
    """The node whose range (predecessor's token, own token] holds the key.  With `key_number` the number that the key ends in chooses the
    range (k0 -> node 0, k7 of 5 nodes -> node 2), which stands for picking keys so that there is one in each range."""
    if partitioner == "key_number":
        digits = key[len(key.rstrip("0123456789")) :]
        return int(digits or "0") % nodes
    return bisect_left(initial_tokens(nodes), token(key)) % nodes


def datacenter(node: int, datacenters: int) -> int:
    """The data centre of a node: dealt round, as capray's links deal nodes to regions, so that neighbours on the ring stand apart."""
    return node % datacenters


def rack(node: int, datacenters: int, racks: int) -> int:
    """The rack of a node within its data centre: dealt round likewise."""
    return node // datacenters % racks


def simple_strategy(first: int, nodes: int, factor: int) -> tuple[int, ...]:
    """SimpleStrategy: the range's owner and the next nodes clockwise, `factor` in all."""
    return tuple((first + i) % nodes for i in range(factor))


def network_topology_strategy(first: int, nodes: int, factor: int, datacenters: int, racks: int) -> tuple[int, ...]:
    """NetworkTopologyStrategy with the same `factor` in every data centre: clockwise from the owner, in each data centre a node of a rack
    not used yet; a node of a used rack only once every rack has one (or as many more as the racks are short of the factor)."""
    chosen: list[int] = []
    used: dict[int, set[int]] = {dc: set() for dc in range(datacenters)}
    count = [0] * datacenters
    ring = [(first + i) % nodes for i in range(nodes)]
    there = [len({rack(n, datacenters, racks) for n in range(dc, nodes, datacenters)}) for dc in range(datacenters)]
    spare = [max(0, factor - count_of_racks) for count_of_racks in there]
    for node in ring:
        dc, place = datacenter(node, datacenters), rack(node, datacenters, racks)
        if count[dc] == factor:
            continue
        if place in used[dc]:
            if not spare[dc]:
                continue
            spare[dc] -= 1
        used[dc].add(place)
        count[dc] += 1
        chosen.append(node)
    return tuple(chosen)


def quorum(factor: int) -> int:
    """More than half of `factor` replicas."""
    return factor // 2 + 1


def block_for(level: str, factors: tuple[int, ...]) -> int:
    """How many replicas `level` blocks for, where data centre i holds factors[i] replicas of a key.  QUORUM and ALL count over all data
    centres; LOCAL_QUORUM takes the coordinator's, which all have the same factor here."""
    total = sum(factors)
    if level in COUNTS:
        return COUNTS[level]
    if level in ("QUORUM", "SERIAL"):
        return quorum(total)
    if level in ("LOCAL_QUORUM", "LOCAL_SERIAL"):
        return quorum(factors[0])
    if level == "EACH_QUORUM":
        return sum(quorum(f) for f in factors)
    return total


def requirements(level: str, factors: tuple[int, ...], local: int) -> tuple[tuple[int, int], ...]:
    """What `level` waits for, as (data centre or EVERY, count): all of them must be met.  `local` is the coordinator's data centre."""
    if level == "EACH_QUORUM":
        return tuple((dc, quorum(f)) for dc, f in enumerate(factors))
    if level in LOCAL_LEVELS or level == "LOCAL_SERIAL":
        return ((local, block_for(level, factors)),)
    return ((EVERY, block_for(level, factors)),)
