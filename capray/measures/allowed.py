"""What ring and cut allow: the highest availability that any protocol with so many replicas to reach could have during a cut.

Decides: an upper bound on a trial's own requests, from where the replicas are, which directed links are cut, and how many replicas an operation
needs.  May not know: policies, what was answered.
Source: Gilbert and Lynch 2002 (a node cannot answer for replicas that it cannot reach); the consistency levels of Apache Cassandra 5.0,
db.ConsistencyLevel.blockFor.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from capray.errors import wrong
from capray.measures.phases import Calendar, Groups, due, kind_of
from capray.record import FaultWindow, Operation

LEVELS = ("ANY", "ONE", "LOCAL_ONE", "TWO", "THREE", "QUORUM", "LOCAL_QUORUM", "ALL", "SERIAL")
Placement = Mapping[str, Sequence[int]]


def needed_replicas(level: str, replicas: int) -> int:
    """How many of a key's replicas must answer at a consistency level (one data centre).  ANY needs none: a hint will do.

    Raises InputError for an unknown level.
    """
    if level not in LEVELS:
        raise wrong("consistency level", level, "one of " + ", ".join(LEVELS))
    counts = {"ANY": 0, "ONE": 1, "LOCAL_ONE": 1, "TWO": 2, "THREE": 3, "ALL": replicas}
    return counts.get(level, replicas // 2 + 1)


def blocked_by(groups: Groups) -> tuple[tuple[int, int], ...]:
    """The directed links that a complete cut into these groups blocks."""
    return tuple((a, b) for one in groups for other in groups if one is not other for a in one for b in other)


def reached(node: int, nodes: int, blocked: Collection[tuple[int, int]]) -> frozenset[int]:
    """The nodes that `node` reaches both ways, itself among them."""
    return frozenset(peer for peer in range(nodes) if peer == node or ((node, peer) not in blocked and (peer, node) not in blocked))


def enough(replicas: Sequence[int], within: Collection[int], needed: int | str) -> bool:
    """Whether as many of a key's replicas as an operation needs (a number, or a consistency level) are among the nodes `within` reach."""
    count = needed_replicas(needed, len(replicas)) if isinstance(needed, str) else needed
    return sum(replica in within for replica in replicas) >= count


def allowed_columns(
    history: Sequence[Operation], placement: Placement, nodes: int, faults: Sequence[FaultWindow], read: int | str, write: int | str,
) -> dict[str, float | None]:
    """`allowed_availability_read`, `..._write`: of the requests due during a fault, the share whose node reaches enough of the key's replicas, or
    that were still open when a cut healed; so what was measured of the same requests cannot lie above.  `allowed_worst_node_read`, `..._write`: that
    share at the node where it is least.  Null without a cut, and under one that heals and returns unseen (`flapping`)."""
    row: dict[str, float | None] = {f"allowed_{what}_{kind}": None for what in ("availability", "worst_node") for kind in ("read", "write")}
    cuts = [(fault, fault.blocked or blocked_by(fault.groups)) for fault in faults if fault.blocked or fault.groups]
    if not cuts or any(fault.shape == "flapping" for fault, _ in cuts):
        return row
    calendar, needed = Calendar(faults, nodes), {"read": read, "write": write}
    fine: dict[str, dict[int, list[bool]]] = {"read": {}, "write": {}}
    for op in history:
        if op.final or op.node is None or op.key is None or "during" not in calendar.cells[calendar.cell_at(due(op))].phases:
            continue
        within = reached(op.node, nodes, {link for fault, blocked in cuts if _covers(fault, op) for link in blocked})
        fine[kind_of(op)].setdefault(op.node, []).append(enough(placement[op.key], within, needed[kind_of(op)]))
    for kind, by_node in fine.items():
        if by_node:
            row[f"allowed_availability_{kind}"] = sum(map(sum, by_node.values())) / sum(map(len, by_node.values()))
            row[f"allowed_worst_node_{kind}"] = min(sum(found) / len(found) for found in by_node.values())
    return row


def _covers(fault: FaultWindow, op: Operation) -> bool:
    """Whether a cut lasted for all the time in which the operation could have been answered."""
    end = op.deadline if op.deadline is not None else op.invoke if op.complete is None else op.complete
    return fault.at <= op.invoke and (fault.until is None or fault.until > end)
