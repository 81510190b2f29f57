"""What ring and cut allow: the highest availability that any protocol with so many replicas to reach could have during a cut, by node.

Decides: an upper bound, from where the replicas are, which directed links are cut, and how many replicas an operation needs.  May not know:
policies, what was measured.
Source: Gilbert and Lynch 2002 (a node cannot answer for replicas that it cannot reach); the consistency levels of Apache Cassandra 5.0,
db.ConsistencyLevel.blockFor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

from capray.errors import wrong
from capray.measures.phases import Groups
from capray.record import FaultWindow

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


def allowed_by_node(
    placement: Placement, nodes: int, blocked: Sequence[tuple[int, int]], needed: int | str, weights: Mapping[str, int] | None = None,
) -> dict[int, Fraction]:
    """For each node the largest share of requests that it can answer: those for keys of which it reaches enough replicas, both ways.

    `needed` is a number of replicas, or a consistency level.  `weights` are the keys' shares of the requests, as integers (default: all alike).
    A node reaches itself; it need not hold the key.  Exact fractions; no keys give no nodes.
    """
    cut = set(blocked)
    total = sum((weights or {}).get(key, 1) if weights else 1 for key in placement)
    if not total:
        return {}
    out = {}
    for node in range(nodes):
        reached = {peer for peer in range(nodes) if peer == node or ((node, peer) not in cut and (peer, node) not in cut)}
        fine = 0
        for key, replicas in placement.items():
            enough = needed_replicas(needed, len(replicas)) if isinstance(needed, str) else needed
            if sum(replica in reached for replica in replicas) >= enough:
                fine += weights.get(key, 1) if weights else 1
        out[node] = Fraction(fine, total)
    return out


def allowed_columns(
    placement: Placement, nodes: int, faults: Sequence[FaultWindow], read: int | str, write: int | str, weights: Mapping[str, int] | None = None,
) -> dict[str, float | None]:
    """`allowed_availability_read`, `allowed_availability_write` (mean over nodes, as all nodes' clients ask alike) and `allowed_worst_node_read`,
    `..._write` under the first cut; null without one."""
    cut = next((fault for fault in sorted(faults, key=lambda fault: fault.at) if fault.blocked or fault.groups), None)
    row: dict[str, float | None] = {}
    for kind, needed in (("read", read), ("write", write)):
        found = {} if cut is None else allowed_by_node(placement, nodes, cut.blocked or blocked_by(cut.groups), needed, weights)
        row[f"allowed_availability_{kind}"] = float(sum(found.values(), Fraction(0)) / len(found)) if found else None
        row[f"allowed_worst_node_{kind}"] = float(min(found.values())) if found else None
    return row
