"""Apache Cassandra 5.0, net.Verb: the messages of the `cassandra` policy other than gossip's (capray/policies/cassandra/gossip.py).

Decides: what travels.  Each request carries `created`, the sender's clock when it was made: with internode_timeout a receiver drops what has
expired by its own clock, so what TCP delivers after a cut, seconds late, has no effect (Message.Header.expiresAtNanos).
Nominal sizes are those of a row of one short text cell with its header, in bytes.
"""

from __future__ import annotations

from capray.policies.cassandra.cells import Cell
from capray.replica import ACK, READ, RESPONSE, WRITE, Message


class Mutation(Message, frozen=True, array_like=True, tag=True, gc=False):
    """MUTATION_REQ, a coordinator's write."""

    kind = WRITE
    size = 180
    id: int
    key: str
    cell: Cell
    created: int


class MutationAck(Message, frozen=True, array_like=True, tag=True, gc=False):
    """MUTATION_RSP: applied; the commit log syncs later."""

    kind = ACK
    size = 40
    id: int


class ReadRequest(Message, frozen=True, array_like=True, tag=True, gc=False):
    """READ_REQ: the row, or its digest only."""

    kind = READ
    size = 110
    id: int
    key: str
    digest: bool
    created: int


class ReadData(Message, frozen=True, array_like=True, tag=True, gc=False):
    """READ_RSP with the row; cells.ABSENT where the replica holds none."""

    kind = RESPONSE
    size = 170
    id: int
    cell: Cell
    created: int


class ReadDigest(Message, frozen=True, array_like=True, tag=True, gc=False):
    """READ_RSP with the row's digest."""

    kind = RESPONSE
    size = 70
    id: int
    digest: int
    created: int


class ReadRepair(Message, frozen=True, array_like=True, tag=True, gc=False):
    """READ_REPAIR_REQ: the merged row, to a replica whose own was older.  Never hinted."""

    kind = WRITE
    size = 180
    id: int
    key: str
    cell: Cell
    created: int


class ReadRepairAck(Message, frozen=True, array_like=True, tag=True, gc=False):
    """READ_REPAIR_RSP."""

    kind = ACK
    size = 40
    id: int


class HintMessage(Message, frozen=True, array_like=True, tag=True, gc=False):
    """HINT_REQ: a write that this replica missed.  `page` and `index` name it to its sender; `hinted` is when the hint was made."""

    kind = WRITE
    size = 200
    page: int
    index: int
    key: str
    cell: Cell
    hinted: int
    created: int


class HintAck(Message, frozen=True, array_like=True, tag=True, gc=False):
    """HINT_RSP."""

    kind = ACK
    size = 40
    page: int
    index: int
