"""DeCandia et al., "Dynamo" (SOSP 2007), section 4.7 (replica synchronisation): Merkle trees, one for each key range that a node hosts.

Decides: which rows two nodes exchange.  May not know: which writes were missed.
"... two nodes exchange the root of the Merkle tree corresponding to the key ranges that they host in common. Subsequently, using the tree traversal
scheme described above the nodes determine if they have any differences and perform the appropriate synchronization action."
Simplified: below the root the whole tree of a range travels at once, not level by level.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import msgspec

from capray.policies import merkle, ring
from capray.policies.dynamo.messages import SyncRoots, SyncRows, SyncTrees
from capray.policies.vector_clock import Version

if TYPE_CHECKING:
    from capray.policies.dynamo.replica import Dynamo

DEPTH = 5  # 32 leaves a range


def clock_hash(version: Version) -> int:
    """31 bits of a version's clock and timestamp."""
    return zlib.crc32(msgspec.msgpack.encode((version[0], version[2]))) >> 1


class Sync:
    """One node's part in anti-entropy."""

    def __init__(self, host: Dynamo) -> None:
        self.host = host

    def start(self) -> None:
        """At a phase of its own."""
        interval = self.host.settings.anti_entropy_interval_us
        if interval and self.host.nodes > 1:
            self.host.set_timer("sync", 1 + self.host.stream.below(interval))

    def begin(self) -> None:
        """Compare with a random reachable node that hosts some range in common."""
        host = self.host
        host.set_timer("sync", host.settings.anti_entropy_interval_us)
        mine = host.hosted(host.node)
        partners = [n for n in range(host.nodes) if n != host.node and not host.membership.suspected[n] and set(mine) & set(host.hosted(n))]
        if partners:
            peer = partners[host.stream.below(len(partners))]
            trees = self._trees(self._common(peer))
            host.send(peer, SyncRoots(tuple((owner, tree[0]) for owner, tree in trees)))

    def _common(self, peer: int) -> tuple[int, ...]:
        theirs = self.host.hosted(peer)
        return tuple(owner for owner in self.host.hosted(self.host.node) if owner in theirs)

    def _rows(self, owners: tuple[int, ...]) -> dict[int, list[tuple[str, Version]]]:
        rows: dict[int, list[tuple[str, Version]]] = {owner: [] for owner in owners}
        for key, versions in self.host.data.items():
            owner = ring.owner(key, self.host.nodes, self.host.settings.partitioner)
            if owner in rows:
                rows[owner] += [(key, version) for version in versions]
        return rows

    def _trees(self, owners: tuple[int, ...]) -> list[tuple[int, tuple[int, ...]]]:
        rows = self._rows(owners)
        return [(owner, merkle.build([(key, (clock_hash(v), v[1], 0)) for key, v in rows[owner]], DEPTH)) for owner in owners]

    def on_roots(self, src: int, message: SyncRoots) -> None:
        """Answer with the trees of the ranges whose roots differ."""
        roots = dict(message.roots)
        owners = tuple(owner for owner in self._common(src) if owner in roots)
        differing = tuple((owner, tree) for owner, tree in self._trees(owners) if tree[0] != roots[owner])
        if differing:
            self.host.send(src, SyncTrees(differing))

    def on_trees(self, src: int, message: SyncTrees) -> None:
        """Send the rows of the leaves that differ, and ask for theirs."""
        theirs = dict(message.trees)
        leaves = [(owner, merkle.difference(tree, theirs[owner])) for owner, tree in self._trees(tuple(theirs))]
        wanted = tuple((owner, found) for owner, found in leaves if found)
        if wanted:
            self.host.send(src, SyncRows(self._of_leaves(wanted), wanted))

    def _of_leaves(self, wanted: tuple[tuple[int, tuple[int, ...]], ...]) -> tuple[tuple[str, Version], ...]:
        rows = self._rows(tuple(owner for owner, _ in wanted))
        return tuple(row for owner, leaves in wanted for row in rows[owner] if merkle.leaf(row[0], DEPTH) in leaves)

    def on_rows(self, src: int, message: SyncRows) -> None:
        """Take them, and give one's own."""
        for key, version in message.rows:
            self.host.apply(key, version)
        if message.leaves:
            self.host.send(src, SyncRows(self._of_leaves(message.leaves), ()))
