"""What ring and cut allow, counted on fingers: 5 nodes, replication factor 3, one key in each ring range (as reference/real_servers.md)."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capray.errors import InputError
from capray.measures.allowed import allowed_columns, blocked_by, enough, needed_replicas, reached
from capray.metrics import measure
from capray.record import FaultWindow, Operation
from capray.scenario import from_dict
from capray.trial import simulate

RING = {f"k{i}": (i, (i + 1) % 5, (i + 2) % 5) for i in range(5)}
CUT = ((0, 1), (2, 3, 4))
S = 1_000_000
SPLIT = FaultWindow(kind="partition", at=S, until=9 * S, groups=CUT, blocked=blocked_by(CUT))


def asked(node: int, key: str, f: str = "read", at: int = 2 * S, **more: Any) -> Operation:
    """A request that nobody answered, with a second's time."""
    return Operation(process=node, node=node, f=f, key=key, value=None, result=None, invoke=at, complete=None, type="info", deadline=at + S, **more)


EACH = [asked(node, key, f) for node in range(5) for key in RING for f in ("read", "write")]  # every node asks for every key


def share(nodes: int, placement: dict[str, tuple[int, ...]], blocked: Any, needed: int | str) -> dict[int, Fraction]:
    """The keys that each node can answer for."""
    sides = {node: reached(node, nodes, set(blocked)) for node in range(nodes)}
    return {node: Fraction(sum(enough(held, sides[node], needed) for held in placement.values()), len(placement)) for node in sides}


@pytest.mark.parametrize(("level", "minority", "majority"), [
    ("ONE", Fraction(4, 5), Fraction(1)),  # no replica of k2 (2, 3, 4) on the small side
    ("QUORUM", Fraction(2, 5), Fraction(3, 5)),  # the real Cassandra's shares for writes: .39 and .60
    ("ALL", Fraction(0), Fraction(1, 5)),  # only k2 is whole anywhere
    ("ANY", Fraction(1), Fraction(1)), ("TWO", Fraction(2, 5), Fraction(3, 5)), (3, Fraction(0), Fraction(1, 5)), (0, Fraction(1), Fraction(1)),
])
def test_a_clean_cut_by_consistency_level(level: int | str, minority: Fraction, majority: Fraction) -> None:
    found = share(5, RING, blocked_by(CUT), level)
    assert found == {0: minority, 1: minority, 2: majority, 3: majority, 4: majority}


def test_columns_are_means_over_requests_and_minima_over_nodes() -> None:
    row = allowed_columns(EACH, RING, 5, [SPLIT], "ONE", "QUORUM")
    assert row == {"allowed_availability_read": 0.92, "allowed_worst_node_read": 0.8, "allowed_availability_write": 0.52, "allowed_worst_node_write": 0.4}
    often = [*EACH, *[asked(0, "k2")] * 5]  # node 0 cannot reach k2's replicas: asked for more often, it weighs more
    assert allowed_columns(often, RING, 5, [SPLIT], "ONE", "ONE")["allowed_worst_node_read"] == 0.4
    crash = FaultWindow(kind="crash-host", at=0, until=1, nodes=(0,))
    flapping = FaultWindow(kind="partition", at=S, until=9 * S, shape="flapping", groups=CUT, blocked=blocked_by(CUT))
    for faults in ([], [crash], [flapping]):
        assert set(allowed_columns(EACH, RING, 5, faults, "ONE", "ONE").values()) == {None}


@pytest.mark.parametrize(("request_", "found"), [
    (asked(0, "k2"), 0.0),
    (asked(0, "k2", at=8 * S), 1.0),  # its deadline is the heal
    (asked(0, "k2", at=8 * S - 1), 0.0),
    (asked(0, "k2", at=S - 1), None),  # asked before the cut: not during it
    (asked(0, "k2", final=True), None),
    (asked(3, "k2"), 1.0),
])
def test_a_request_that_is_open_when_the_cut_heals_may_be_answered(request_: Operation, found: float | None) -> None:
    assert allowed_columns([request_], RING, 5, [SPLIT], "ONE", "ONE")["allowed_availability_read"] == found


def test_a_cut_in_one_direction_is_enough_to_take_an_answer_away() -> None:
    assert share(2, {"x": (1,)}, ((0, 1),), 1) == {0: 0, 1: 1} == share(2, {"x": (1,)}, ((1, 0),), 1)


def test_one_server_serves_its_own_side() -> None:
    assert share(3, {"x": (0,), "y": (0,)}, blocked_by(((0,), (1, 2))), 1) == {0: 1, 1: 0, 2: 0}


@pytest.mark.parametrize("level", ["ONE", "QUORUM", "ALL"])
@pytest.mark.parametrize("shape", ["majority", "bridge", "0|1,2|3,4"])
def test_no_trial_is_more_available_than_that(level: str, shape: str) -> None:
    settings = {"replication_factor": 3, "read_consistency": level, "write_consistency": level}
    scenario = from_dict({"policy": "cassandra", "nodes": 5, "settings": settings, "duration": "12s", "workload": {"rate": 20.0},
                          "faults": [{"shape": shape, "at": "2s", "for": "6s"}]})
    record = simulate(scenario, 7)
    row, bound = measure(record), allowed_columns(record.history, record.placement, 5, record.faults, level, level)
    for kind in ("read", "write"):
        most = bound[f"allowed_availability_{kind}"]
        assert most is not None and row[f"availability_during_{kind}"] <= most
    assert (bound["allowed_availability_write"] or 0) < 1 or (shape, level) == ("bridge", "ONE")  # the bridge reaches a replica of every key


@pytest.mark.parametrize(("level", "of_three", "of_five"), [("ANY", 0, 0), ("ONE", 1, 1), ("LOCAL_QUORUM", 2, 3), ("QUORUM", 2, 3), ("ALL", 3, 5),
                                                            ("SERIAL", 2, 3)])
def test_needed_replicas(level: str, of_three: int, of_five: int) -> None:
    assert (needed_replicas(level, 3), needed_replicas(level, 5)) == (of_three, of_five)
    with pytest.raises(InputError, match="consistency level: 'MOST' is not accepted; it takes one of ANY, ONE"):
        needed_replicas("MOST", 3)


@given(st.sets(st.tuples(st.integers(0, 3), st.integers(0, 3))), st.integers(0, 4), st.lists(st.sets(st.integers(0, 3), min_size=1), min_size=1, max_size=4))
def test_it_is_what_trying_every_set_of_replicas_gives(blocked: set[tuple[int, int]], needed: int, holders: list[set[int]]) -> None:
    placement = {f"k{i}": tuple(sorted(nodes)) for i, nodes in enumerate(holders)}
    found = share(4, placement, blocked, needed)
    for node in range(4):
        fine = [key for key, held in placement.items()
                if any(all(r == node or not {(node, r), (r, node)} & blocked for r in chosen) for chosen in combinations(held, needed))]
        assert found[node] == Fraction(len(fine), len(placement))
