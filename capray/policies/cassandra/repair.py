"""Apache Cassandra 5.0's anti-entropy repair (package repair): `nodetool repair -pr` on every node, at an interval.

Decides: when replicas of a range compare Merkle trees, and which rows they then exchange.
May not know: which writes were missed, or why.
Sources: repair.RepairJob (validation at all replicas of the range, trees compared pair by pair, a sync task for each pair that differs),
repair.RepairSession (it does not begin while a neighbour is dead), repair.SymmetricRemoteSyncTask (the pair streams both ways).
Simplified: one tree depth for all ranges; no snapshots, no incremental repair; a session that hears nothing more is abandoned when the
node's next one begins (a real one waits for the participant's conviction).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from capray.policies import merkle, ring
from capray.policies.cassandra.cells import Cell
from capray.replica import WRITE, Message

if TYPE_CHECKING:
    from capray.policies.cassandra.replica import Cassandra

DEPTH = 8  # 256 leaves to a tree of the whole ring; the real repair goes to 2**20 in all, by memory (repair_session_space)


class ValidationRequest(Message, frozen=True, array_like=True, tag=True, gc=False):
    """VALIDATION_REQ: hash what you hold of the range that node `owner` owns."""

    session: int
    owner: int


class ValidationResponse(Message, frozen=True, array_like=True, tag=True, gc=False):
    """VALIDATION_RSP: the tree."""

    size = 32 * (2 << DEPTH)
    session: int
    tree: tuple[int, ...]


class SyncRequest(Message, frozen=True, array_like=True, tag=True, gc=False):
    """SYNC_REQ: exchange the rows of these leaves of the range with `peer`."""

    owner: int
    leaves: tuple[int, ...]
    peer: int


class StreamedRows(Message, frozen=True, array_like=True, tag=True, gc=False):
    """A stream of the rows of some leaves; with `answer` the receiver streams its own back."""

    kind = WRITE
    owner: int
    leaves: tuple[int, ...]
    rows: tuple[tuple[str, Cell], ...]
    answer: bool

    @property
    def size(self) -> int:  # type: ignore[override]
        return 100 + 100 * len(self.rows)


class Repair:
    """One node's part in repairs: it leads those of its own range, and takes part in others'."""

    def __init__(self, host: Cassandra, interval_us: int) -> None:
        self.host = host
        self.interval_us = interval_us
        self.session = 0
        self.trees: dict[int, tuple[int, ...]] = {}
        self.participants: tuple[int, ...] = ()

    def start(self) -> None:
        """Schedule this node's repairs, at a phase of its own."""
        if self.interval_us:
            self.host.set_timer("repair", 1 + self.host.stream.below(self.interval_us))

    def begin(self) -> None:
        """Ask all replicas of the own range for their trees, if all of them are alive."""
        host = self.host
        host.set_timer("repair", self.interval_us)
        if host.node >= host.settings.ring_nodes(host.nodes):
            return
        self.participants = host.range_replicas(host.node)
        if not all(host.gossiper.alive[n] for n in self.participants):
            return
        self.session += 1
        self.trees = {}
        for node in self.participants:
            host.send(node, ValidationRequest(self.session, host.node))

    def _rows(self, owner: int) -> list[tuple[str, Cell]]:
        host = self.host
        on_ring = host.settings.ring_nodes(host.nodes)
        return [(k, c) for k, c in sorted(host.cells.items()) if ring.owner(k, on_ring, host.settings.partitioner) == owner]

    def on_validation(self, src: int, message: ValidationRequest) -> None:
        """Hash what is held."""
        self.host.send(src, ValidationResponse(message.session, merkle.build(self._rows(message.owner), DEPTH)))

    def on_tree(self, src: int, message: ValidationResponse) -> None:
        """With all trees here, have each pair that differs exchange what differs."""
        if message.session != self.session or src in self.trees:
            return
        self.trees[src] = message.tree
        if len(self.trees) < len(self.participants):
            return
        for index, one in enumerate(self.participants):
            for other in self.participants[index + 1 :]:
                leaves = merkle.difference(self.trees[one], self.trees[other])
                if leaves:
                    self.host.send(one, SyncRequest(self.host.node, leaves, other))

    def on_sync(self, src: int, message: SyncRequest) -> None:
        """Stream to the peer what is held in those leaves, and ask for the peer's."""
        self._stream(message.peer, message.owner, message.leaves, True)

    def _stream(self, peer: int, owner: int, leaves: tuple[int, ...], answer: bool) -> None:
        rows = tuple(row for row in self._rows(owner) if merkle.leaf(row[0], DEPTH) in leaves)
        self.host.send(peer, StreamedRows(owner, leaves, rows, answer))

    def on_rows(self, src: int, message: StreamedRows) -> None:
        """Stream back what is held, if asked, and take in what came."""
        if message.answer:
            self._stream(src, message.owner, message.leaves, False)
        for key, cell in message.rows:
            self.host.apply(key, cell)
