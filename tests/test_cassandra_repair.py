"""Merkle trees and anti-entropy repair; tombstones and gc_grace_seconds."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from capray.policies import merkle
from capray.policies.cassandra.cells import Cell
from capray.policies.cassandra.replica import Cassandra
from capray.policies.cassandra.settings import CassandraSettings
from capray.testing import FakeLink

S = 1_000_000
row = st.tuples(st.integers(0, 1000), st.one_of(st.none(), st.integers(0, 9)), st.just(0))
rows = st.dictionaries(st.text(min_size=1, max_size=6), row, max_size=40)


@given(rows, rows)
def test_trees_differ_in_exactly_the_leaves_in_which_the_rows_do(one: dict[str, Cell], other: dict[str, Cell]) -> None:
    depth = 5
    differing = {merkle.leaf(key, depth) for key in {*one, *other} if one.get(key) != other.get(key)}
    assert set(merkle.difference(merkle.build(one.items(), depth), merkle.build(other.items(), depth))) == differing


def test_a_tree_does_not_depend_on_the_order_of_rows() -> None:
    some = [(f"k{i}", (i, f"v{i}", 0)) for i in range(50)]
    assert merkle.build(some, 8) == merkle.build(some[::-1], 8)
    assert len(merkle.build(some, 8)) == 2 * 2**8 - 1


def cluster(**options: Any) -> FakeLink:
    link = FakeLink(Cassandra, 5, CassandraSettings(partitioner="key_number", **options))
    link.run_for(2 * S)
    return link


def missed_by_node_2(**options: Any) -> FakeLink:
    """Node 2 missed a write of k0, and node 0 one of k5 (same range), without hints."""
    link = cluster(hinted_handoff=False, **options)
    for node, key, away in ((0, "k0", 2), (1, "k5", 0)):
        link.cut([[away], [n for n in range(5) if n != away]])
        link.wait(link.request(node, "write", key, f"of {node}"))
        link.run_for(3 * S)
        link.heal()
        link.run_for(S)
    assert link.values("k0")[:3] == ["of 0", "of 0", None] and link.values("k5")[:3] == [None, "of 1", "of 1"]
    return link


def test_repair_makes_the_replicas_of_a_range_equal() -> None:
    link = missed_by_node_2(anti_entropy_interval_us=20 * S)
    link.run_for(25 * S)
    assert link.values("k0") == ["of 0"] * 3 + [None] * 2 and link.values("k5") == ["of 1"] * 3 + [None] * 2


def test_without_repair_hints_and_reads_nothing_converges() -> None:
    link = missed_by_node_2()
    link.run_for(100 * S)
    assert link.values("k0")[2] is None


def test_only_rows_of_differing_leaves_are_streamed() -> None:
    link = cluster(hinted_handoff=False, anti_entropy_interval_us=30 * S)
    for i in range(0, 100, 5):
        link.wait(link.request(0, "write", f"k{i}", f"v{i}"))
    link.run_for(S)
    link.cut([[2], [0, 1, 3, 4]])
    link.wait(link.request(0, "write", "k0", "new"))
    link.run_for(3 * S)
    link.heal()
    link.run_for(32 * S)
    assert link.values("k0")[:3] == ["new"] * 3
    streams = [line for line in link.log if "StreamedRows" in line]
    assert streams and all("k0" in line and "'k5'" not in line for line in streams)


def test_no_repair_begins_while_a_replica_of_the_range_is_down() -> None:
    link = cluster(anti_entropy_interval_us=10 * S)
    link.cut([[2], [0, 1, 3, 4]])
    link.run_for(40 * S)
    before = len(link.log)
    link.run_for(20 * S)
    asked = [line for line in link.log[before:] if "ValidationRequest" in line]
    assert asked and all("owner=3" in line or "owner=4" in line for line in asked)  # their ranges (3 4 0, 4 0 1) do without node 2


# ---- tombstones -------------------------------------------------------------------------------------------------------------------


def deleted_behind_node_2(gc_grace_us: int, **options: Any) -> FakeLink:
    """k0 was written everywhere, and deleted while node 2 was cut off."""
    link = cluster(write_consistency="ONE", read_consistency="QUORUM", gc_grace_us=gc_grace_us, hinted_handoff=False, **options)
    link.wait(link.request(0, "write", "k0", "v"))
    link.run_for(S)
    link.cut([[2], [0, 1, 3, 4]])
    link.wait(link.request(0, "delete", "k0"))
    link.run_for(3 * S)
    link.heal()
    link.run_for(S)
    assert options or link.values("k0")[:3] == [None, None, "v"]
    return link


def test_a_tombstone_wins_over_the_older_value_in_reads_and_is_repaired_to_the_replica_that_missed_it() -> None:
    link = deleted_behind_node_2(1000 * S)
    link.cut([[0], [1, 2, 3, 4]])  # so that nodes 1 and 2 answer
    reply = link.wait(link.request(2, "read", "k0"))
    assert (reply.outcome, reply.result) == ("ok", None)
    link.run_for(S)
    assert link.values("k0")[2] is None


def test_after_gc_grace_a_replica_that_missed_the_tombstone_brings_the_value_back() -> None:
    """tombstones.adoc: "If a node remains down or disconnected for longer than gc_grace_seconds, its deleted data will be repaired back to the other nodes and
    reappear in the cluster.": so repair in time."""
    link = deleted_behind_node_2(10 * S)
    link.run_for(20 * S)
    assert "k0" not in link.replica(0).cells  # purged
    link.cut([[0], [1, 2, 3, 4]])
    assert link.wait(link.request(2, "read", "k0")).result == "v"
    link.run_for(S)
    assert link.values("k0")[1] == "v"


def test_repair_within_gc_grace_prevents_that() -> None:
    link = deleted_behind_node_2(30 * S, anti_entropy_interval_us=10 * S)
    link.run_for(60 * S)
    assert link.values("k0") == [None] * 5 and "k0" not in link.replica(2).cells


def test_on_equal_timestamps_a_tombstone_wins_then_the_larger_value() -> None:
    from capray.policies.cassandra.cells import order, wins

    live, other, dead = (5, "a", 0), (5, "b", 0), (5, None, 9)
    assert wins(dead, live) and not wins(live, dead)
    assert wins(other, live) and not wins(live, other) and not wins(live, live)
    assert order(dead) > order(other) > order(live) > order((4, "z", 0))
    assert order((5, 300, 0)) > order((5, 299, 0)) and wins((5, 300, 0), (5, 299, 0))
