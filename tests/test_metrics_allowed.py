"""What ring and cut allow, counted on fingers: 5 nodes, replication factor 3, one key in each ring range (as reference/real_servers.md)."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capray.errors import InputError
from capray.measures.allowed import allowed_by_node, allowed_columns, blocked_by, needed_replicas
from capray.record import FaultWindow

RING = {f"k{i}": (i, (i + 1) % 5, (i + 2) % 5) for i in range(5)}
CUT = ((0, 1), (2, 3, 4))
SPLIT = FaultWindow(kind="partition", at=0, until=1, groups=CUT, blocked=blocked_by(CUT))


@pytest.mark.parametrize(("level", "minority", "majority"), [
    ("ONE", Fraction(4, 5), Fraction(1)),  # no replica of k2 (2, 3, 4) on the small side
    ("QUORUM", Fraction(2, 5), Fraction(3, 5)),  # the real Cassandra's shares for writes: .39 and .60
    ("ALL", Fraction(0), Fraction(1, 5)),  # only k2 is whole anywhere
    ("ANY", Fraction(1), Fraction(1)), ("TWO", Fraction(2, 5), Fraction(3, 5)), (3, Fraction(0), Fraction(1, 5)), (0, Fraction(1), Fraction(1)),
])
def test_a_clean_cut_by_consistency_level(level: int | str, minority: Fraction, majority: Fraction) -> None:
    found = allowed_by_node(RING, 5, blocked_by(CUT), level)
    assert found == {0: minority, 1: minority, 2: majority, 3: majority, 4: majority}


def test_columns_are_means_and_minima_over_nodes_under_the_first_cut() -> None:
    row = allowed_columns(RING, 5, [SPLIT], "ONE", "QUORUM")
    assert row == {"allowed_availability_read": 0.92, "allowed_worst_node_read": 0.8, "allowed_availability_write": 0.52, "allowed_worst_node_write": 0.4}
    assert set(allowed_columns(RING, 5, [], "ONE", "ONE").values()) == {None}
    assert set(allowed_columns(RING, 5, [FaultWindow(kind="crash-host", at=0, until=1, nodes=(0,))], "ONE", "ONE").values()) == {None}


def test_a_cut_in_one_direction_is_enough_to_take_an_answer_away() -> None:
    assert allowed_by_node({"x": (1,)}, 2, ((0, 1),), 1) == {0: 0, 1: 1} == allowed_by_node({"x": (1,)}, 2, ((1, 0),), 1)


def test_one_server_serves_its_own_side() -> None:
    assert allowed_by_node({"x": (0,), "y": (0,)}, 3, blocked_by(((0,), (1, 2))), 1) == {0: 1, 1: 0, 2: 0}


def test_keys_that_are_asked_for_more_often_weigh_more() -> None:
    found = allowed_by_node(RING, 5, blocked_by(CUT), "ONE", {"k0": 6, "k1": 1, "k2": 3, "k3": 0, "k4": 0})
    assert found[0] == Fraction(7, 10) and found[2] == 1
    assert allowed_by_node({}, 5, (), 1) == {}


@pytest.mark.parametrize(("level", "of_three", "of_five"), [("ANY", 0, 0), ("ONE", 1, 1), ("LOCAL_QUORUM", 2, 3), ("QUORUM", 2, 3), ("ALL", 3, 5), ("SERIAL", 2, 3)])
def test_needed_replicas(level: str, of_three: int, of_five: int) -> None:
    assert (needed_replicas(level, 3), needed_replicas(level, 5)) == (of_three, of_five)
    with pytest.raises(InputError, match="consistency level: 'MOST' is not accepted; it takes one of ANY, ONE"):
        needed_replicas("MOST", 3)


@given(st.sets(st.tuples(st.integers(0, 3), st.integers(0, 3))), st.integers(0, 4), st.lists(st.sets(st.integers(0, 3), min_size=1), min_size=1, max_size=4))
def test_it_is_what_trying_every_set_of_replicas_gives(blocked: set[tuple[int, int]], needed: int, holders: list[set[int]]) -> None:
    placement = {f"k{i}": tuple(sorted(nodes)) for i, nodes in enumerate(holders)}
    found = allowed_by_node(placement, 4, sorted(blocked), needed)
    for node in range(4):
        fine = [key for key, held in placement.items()
                if any(all(r == node or not {(node, r), (r, node)} & blocked for r in chosen) for chosen in combinations(held, needed))]
        assert found[node] == Fraction(len(fine), len(placement))
