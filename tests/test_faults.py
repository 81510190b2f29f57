"""Shapes of partitions: which links each one cuts, for any number of nodes and any leader; and what a schedule may not say."""

from __future__ import annotations

import pytest

from capray.errors import InputError
from capray.faults import FIELD_DURATIONS, SHAPES, Cut, Fault, describe, draw_duration, parse_groups, resolve

CUTTING = [shape for shape in SHAPES if shape != "none"]
SYMMETRIC = [shape for shape in CUTTING if shape != "one-way"]
SIZES = [2, 3, 4, 5, 6, 7, 8, 9, 25]


def reach(cut: Cut, nodes: int, node: int) -> set[int]:
    """Whom a node speaks with in both directions, itself included."""
    return {peer for peer in range(nodes) if (node, peer) not in cut.blocked and (peer, node) not in cut.blocked}


@pytest.mark.parametrize("shape", CUTTING)
@pytest.mark.parametrize("nodes", SIZES)
def test_every_shape_is_sound_for_every_leader(shape: str, nodes: int) -> None:
    for leader in range(nodes):
        cut = resolve(shape, nodes, leader)
        assert sorted(node for group in cut.groups for node in group) == list(range(nodes))  # each node on exactly one side
        assert len(set(cut.blocked)) == len(cut.blocked) and all(a != b for a, b in cut.blocked)
        if shape in SYMMETRIC:
            assert {(b, a) for a, b in cut.blocked} == set(cut.blocked)


@pytest.mark.parametrize("nodes", SIZES)
def test_majority_leaves_the_leader_with_the_majority_and_leader_minority_does_not(nodes: int) -> None:
    for leader in range(nodes):
        small, large = resolve("majority", nodes, leader).groups
        assert len(small) == max(1, (nodes - 1) // 2) and leader in large
        small, large = resolve("leader-minority", nodes, leader).groups
        assert len(small) == max(1, (nodes - 1) // 2) and leader in small


def test_isolating_the_leader_or_another() -> None:
    assert resolve("isolate-leader", 5, 3).groups == ((3,), (0, 1, 2, 4))
    assert resolve("isolate", 5, 3).groups == ((2,), (0, 1, 3, 4))
    assert resolve("isolate", 5, 3, (4,)).groups == ((4,), (0, 1, 2, 3))


@pytest.mark.parametrize("nodes", SIZES)
def test_halves_differ_by_at_most_one(nodes: int) -> None:
    left, right = resolve("halves", nodes, 0).groups
    assert len(right) - len(left) in (0, 1) and len(resolve("halves", nodes, 0).blocked) == 2 * len(left) * len(right)


@pytest.mark.parametrize("nodes", SIZES)
def test_one_way_cuts_one_direction_only(nodes: int) -> None:
    cut = resolve("one-way", nodes, 0)
    assert cut.blocked and not {(b, a) for a, b in cut.blocked} & set(cut.blocked)
    assert set(cut.blocked) == {(a, b) for a in cut.groups[0] for b in cut.groups[1]}


@pytest.mark.parametrize("nodes", range(3, 10))
def test_in_a_ring_of_majorities_every_node_reaches_a_majority_and_no_two_the_same(nodes: int) -> None:
    cut = resolve("ring", nodes, 0)
    reached = [frozenset(reach(cut, nodes, node)) for node in range(nodes)]
    assert all(len(group) >= nodes // 2 + 1 for group in reached)
    if nodes > 3:  # three nodes all reach each other
        assert len(set(reached)) == nodes and cut.blocked


@pytest.mark.parametrize("nodes", range(3, 10))
def test_over_a_bridge_the_halves_meet_in_one_node_only(nodes: int) -> None:
    cut = resolve("bridge", nodes, 0)
    middle = nodes // 2
    assert reach(cut, nodes, middle) == set(range(nodes))
    for node in range(nodes):
        side = set(range(middle)) if node < middle else set(range(middle + 1, nodes))
        assert node == middle or reach(cut, nodes, node) == side | {middle}


def test_none_cuts_nothing() -> None:
    assert resolve("none", 5, 2) == Cut((), ())


def test_groups_written_out_and_the_nodes_they_leave_out() -> None:
    assert parse_groups("0,1|2,3,4") == ((0, 1), (2, 3, 4)) and parse_groups("halves") is None and parse_groups("0,|1") is None
    assert resolve("0,1|2,3,4", 5, 0).groups == ((0, 1), (2, 3, 4))
    cut = resolve("0|1", 4, 0)
    assert cut.groups == ((0,), (1,), (2, 3)) and {(0, 1), (0, 2), (1, 3), (3, 0)} <= set(cut.blocked) and (2, 3) not in cut.blocked
    assert len(resolve("0|1|2", 3, 0).blocked) == 6


@pytest.mark.parametrize("fault, nodes, complaint", [
    (Fault(shape="thirds"), 5, "partition: 'thirds' is not accepted; it takes one of majority,"),
    (Fault(shape="0|1|2|3"), 3, "partition: '0|1|2|3' is not accepted; it takes at most 3 groups for 3 nodes"),
    (Fault(shape="0|0,1"), 3, "partition: '0|0,1' is not accepted; it takes two or more groups of distinct nodes"),
    (Fault(shape="0|7"), 3, "partition: '0|7' is not accepted; it takes two or more groups of distinct nodes from 0 to 2"),
    (Fault(shape="0,1,2"), 3, "partition: '0,1,2' is not accepted"),
    (Fault(shape="0|-1"), 3, "partition: '0|-1' is not accepted"),
    (Fault(shape=""), 3, "partition: '' is not accepted"),
    (Fault(shape="halves"), 1, "partition: 'halves' is not accepted; it takes none, in a cluster of one node"),
    (Fault(shape="flapping", period_us=0), 3, "fault.period_us: 0 is not accepted"),
    (Fault(at_us=-1), 3, "fault.at_us: -1 is not accepted"),
    (Fault(kind="pause", nodes=(3,)), 3, "fault.nodes: [3] is not accepted; it takes distinct nodes from 0 to 2"),
    (Fault(kind="pause", nodes=(1, 1)), 3, "fault.nodes: [1, 1] is not accepted"),
    (Fault(kind="slow"), 3, "fault.nodes: [] is not accepted; it takes the nodes that a slow fault touches"),
    (Fault(kind="slow", nodes=(0,), factor=0), 3, "fault.factor: 0 is not accepted"),
    (Fault(kind="skew", offset_us=5), 3, "fault.nodes: [] is not accepted")])
def test_what_a_fault_cannot_be_is_one_line(fault: Fault, nodes: int, complaint: str) -> None:
    problems = fault.problems(nodes)
    assert problems and problems[0].startswith(complaint) and "\n" not in problems[0]


@pytest.mark.parametrize("shape", CUTTING)
def test_every_shape_is_accepted_from_two_nodes_on(shape: str) -> None:
    assert Fault(shape=shape).problems(2) == [] and Fault(shape="none").problems(1) == []


def test_durations_from_the_field() -> None:
    software = sorted(draw_duration("cenic-software", seed) for seed in range(1000))
    assert software[500] == pytest.approx(2.7 * 60e6, rel=0.12) and software[950] == pytest.approx(19.9 * 60e6, rel=0.2)
    incidents = {draw_duration("incidents", seed) for seed in range(200)}
    assert incidents == {43_000_000, 90_000_000, 1_080_000_000, 3_600_000_000, 7_200_000_000, 18_000_000_000} and len(FIELD_DURATIONS) == 2
    assert draw_duration("incidents", 5) == draw_duration("incidents", 5)
    with pytest.raises(InputError, match="for: 'lunch' is not accepted"):
        draw_duration("lunch", 1)


def test_a_fault_in_words() -> None:
    assert describe(Fault(shape="halves", for_us=10_000_000)) == "halves for 10s"
    assert describe(Fault(kind="crash-host", nodes=(1, 2))) == "crash-host 1,2" and describe(Fault(kind="pause", for_us=5000)) == "pause leader for 5ms"
