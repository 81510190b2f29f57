"""Availability, CAP availability, latency, failover and recovery on histories small enough to work out by hand (times in milliseconds)."""

from __future__ import annotations

from typing import Any

import pytest

from capray.measures.availability import availability_of_nodes, quantile
from capray.measures.phases import Calendar, column, sides_of
from capray.metrics import measure_history
from capray.record import FaultWindow, Operation

MS = 1_000
Story = list[Operation]


def op(node: int, f: str, at: int, done: int | None, type: str = "ok", **more: Any) -> Operation:
    """One operation at `node`, asked at `at` and answered at `done` (ms).  Values do not matter here: each write's is its own time."""
    late = {name: more.pop(name) * MS for name in ("intended", "deadline") if name in more}
    value = at * 100 + node if f == "write" else None
    return Operation(process=at * 100 + node, node=node, f=f, key=more.pop("key", "x"), value=value, result=None, invoke=at * MS,
                     complete=None if done is None else done * MS, type=type, **late, **more)  # type: ignore[arg-type]


def cut(at: int, until: int | None, *groups: tuple[int, ...]) -> FaultWindow:
    return FaultWindow(kind="partition", at=at * MS, until=None if until is None else until * MS, groups=groups)


def crash(at: int, until: int | None, *nodes: int, kind: str = "crash-process") -> FaultWindow:
    return FaultWindow(kind=kind, at=at * MS, until=None if until is None else until * MS, nodes=nodes)


def three_nodes() -> Story:
    """Node 0 is cut off from 1 and 2 between 100 and 200; it loses its reads and writes then, and one read just after."""
    return [
        op(0, "write", 10, 15), op(1, "read", 20, 21), op(2, "write", 30, 33),
        op(0, "read", 95, None, "info"),  # under way when the cut comes: it was due before
        op(0, "write", 110, None, "info"), op(0, "read", 120, 170, "fail", deadline=170), op(1, "write", 130, 136), op(1, "read", 140, 141),
        op(2, "read", 150, 151), op(2, "write", 160, 161, "fail", error="UNAVAILABLE"),
        op(0, "read", 205, 250, "fail", error="timeout"), op(1, "read", 210, 212), op(2, "read", 220, 223), op(0, "read", 260, 264), op(0, "write", 270, 279),
        op(0, "read", 900, None, "info", final=True), op(1, "read", 900, 901, final=True),
    ]


SPLIT = [cut(100, 200, (0,), (1, 2))]


@pytest.mark.parametrize(("name", "worth"), [
    ("availability", 10 / 15),  # 15 asked without the two final reads
    ("operations", 15),
    ("availability_before", 3 / 4),
    ("availability_during", 3 / 6),
    ("availability_after", 4 / 5),
    ("availability_during_majority", 3 / 4),
    ("availability_during_minority", 0.0),
    ("availability_during_largest", 3 / 4),
    ("availability_during_majority_read", 1.0),
    ("availability_during_majority_write", 1 / 2),
    ("availability_during_minority_write", 0.0),
    ("availability_after_minority_read", 1 / 2),
    ("availability_read", 6 / 9),
    ("availability_before_majority_write", 1.0),
    ("operations_during_minority_read", 1),
    ("unanswered_share", 4 / 15),  # two infos, the read that ran into its deadline and the one that says timeout; UNAVAILABLE is an answer
    ("unanswered_share_during", 2 / 6),
    ("unanswered_share_during_majority", 0.0),
    ("availability_worst_node", 3 / 7),
    ("availability_worst_node_during", 0.0),
    ("availability_worst_node_after", 2 / 3),
    ("availability_worst_node_during_read", 0.0),
    ("cap_available", False),
    ("latency_p50_us", 3 * MS),  # 1 1 1 2 3 3 4 5 6 9
    ("latency_p99_us", 9 * MS),
    ("latency_p50_before_us", 3 * MS),
    ("latency_p50_before_write_us", 3 * MS),  # 3 5: nearest rank is the lower one
    ("latency_p99_during_majority_us", 6 * MS),
])
def test_yield_and_latency_by_phase_side_and_kind(name: str, worth: Any) -> None:
    measured = measure_history(three_nodes(), SPLIT)[name]
    assert measured == worth and type(measured) is type(worth)


def test_what_has_no_meaning_is_null_and_never_zero() -> None:
    row = measure_history(three_nodes(), [])
    for name in ("availability_during", "availability_before", "availability_majority", "cap_available", "failover_read_us", "gap_write_us",
                 "recovery_first_read_us", "recovery_last_us", "availability_worst_node_during", "latency_p50_during_us", "operations_during"):
        assert row[name] is None, name
    assert row["availability"] == 10 / 15
    assert measure_history([], [])["availability"] is None


def test_intended_counts_from_when_the_client_was_due_not_from_when_it_got_round_to_it() -> None:
    """An open loop: a request due at 90 that could only be sent at 130, in the cut, is one of the healthy phase, 50 ms late."""
    story = [op(0, "read", 130, 140, intended=90), op(1, "read", 10, 12)]
    row = measure_history(story, SPLIT)
    assert row["availability_before"] == 1.0 and row["operations_before"] == 2 and row["operations_during"] is None
    assert row["latency_p99_us"] == 50 * MS and row["latency_p50_us"] == 2 * MS


def test_an_answer_after_the_deadline_is_no_success() -> None:
    row = measure_history([op(0, "write", 10, 20, deadline=15), op(0, "write", 30, 40, deadline=40)], [])
    assert row["availability"] == 1 / 2 and row["latency_p99_us"] == 10 * MS


def test_a_phase_ends_at_the_instant_of_healing_and_begins_at_the_cut() -> None:
    row = measure_history([op(1, "read", 100, 101), op(1, "read", 199, 201), op(1, "read", 200, 201), op(1, "read", 99, 101)], SPLIT)
    assert (row["operations_before"], row["operations_during"], row["operations_after"]) == (1, 2, 1)


def test_two_windows_each_have_a_phase_and_between_them_is_after() -> None:
    story = [op(0, "read", 50, 51), op(0, "read", 110, 160, "fail"), op(0, "read", 220, 221), op(0, "read", 310, 311), op(0, "read", 420, 421)]
    row = measure_history(story, [cut(100, 200, (0,), (1, 2)), cut(300, 400, (0, 1), (2,))])
    assert (row["availability_during_1"], row["availability_during_2"], row["availability_during"]) == (0.0, 1.0, 1 / 2)
    assert row["operations_after"] == 2
    assert row["availability_during_minority"] == 0.0 and row["availability_during_majority"] == 1.0  # the side is that of the cut that is open
    assert row["operations_before_minority"] == 1 and row["operations_after_minority"] == 1 and row["operations_after_majority"] == 1


def test_sides_without_a_majority_are_named_by_their_members() -> None:
    assert sides_of(((0, 1), (2, 3)), 4) == {"largest": frozenset(range(4)), "n0n1": frozenset((0, 1)), "n2n3": frozenset((2, 3))}
    assert sides_of(((0, 1), (2,), (3, 4)), 5)["largest"] == frozenset((0, 1, 3, 4))
    assert sides_of(((0,), (1,), (2, 3, 4)), 5)["minority"] == frozenset((0, 1))
    assert sides_of((), 5) == {}
    row = measure_history([op(0, "write", 110, 111), op(3, "write", 120, None, "info")], [cut(100, 200, (0, 1), (2, 3))])
    assert row["availability_during_n0n1_write"] == 1.0 and row["availability_during_n2n3"] == 0.0
    assert row["availability_during_majority"] is None and row["availability_during_largest"] == 1 / 2
    assert column("latency_p50_us", "during", "n0n1", "read") == "latency_p50_during_n0n1_read_us"


# ---- CAP availability -------------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("story", "faults", "verdict", "worst"), [
    ([op(0, "read", 110, 111), op(1, "read", 120, 121)], SPLIT, True, 1.0),
    ([op(0, "read", 110, 111), op(1, "read", 120, 121), op(1, "write", 130, 131), op(1, "write", 140, None, "info")], SPLIT, False, 2 / 3),
    ([op(0, "read", 110, 111), op(0, "read", 50, 51, "fail")], SPLIT, True, 1.0),  # a failure before the fault says nothing
    # A failing node owes no answer: what it received while it was down does not count, nor what it had under way when it went down.
    ([op(0, "read", 110, 111, "fail"), op(1, "read", 120, 121)], [crash(100, 200, 0)], True, 1.0),
    ([op(0, "read", 90, 101, "fail"), op(1, "read", 120, 121)], [crash(100, 200, 0)], True, 1.0),
    ([op(0, "read", 110, 121, "fail"), op(1, "read", 120, 121)], [cut(100, 200, (0,), (1, 2)), crash(120, 150, 0)], True, 1.0),
    # It owes one again once it is back, if the fault (here: another one) still lasts.
    ([op(0, "read", 160, 161, "fail"), op(1, "read", 120, 121)], [crash(100, 150, 0), cut(100, 200, (0,), (1, 2))], False, 0.0),
    ([op(0, "read", 160, None, "info"), op(1, "read", 120, 121)], [crash(100, 200, 0, kind="pause")], True, 1.0),
    ([op(0, "read", 160, 161, "fail")], [crash(100, 200, 0, kind="slow")], False, 0.0),  # a slow node has not failed
    ([op(0, "read", 110, 111, final=True)], SPLIT, None, None),
])
def test_cap_availability_is_about_every_request_at_a_node_that_has_not_failed(story: Story, faults: list[FaultWindow], verdict: Any, worst: Any) -> None:
    row = measure_history(story, faults, nodes=3)
    assert row["cap_available"] is verdict and row["availability_worst_node_during"] == worst


def test_each_node_by_itself() -> None:
    calendar = Calendar(SPLIT, 3)
    assert availability_of_nodes(three_nodes(), calendar, "during") == {0: 0.0, 1: 1.0, 2: 1 / 2}
    assert availability_of_nodes(three_nodes(), calendar, "during", "read") == {0: 0.0, 1: 1.0, 2: 1.0}


def test_quantiles_are_values_that_were_measured() -> None:
    assert quantile([], 500) is None
    assert [quantile([5], q) for q in (1, 500, 1000)] == [5, 5, 5]
    assert [quantile(list(range(1, 101)), q) for q in (500, 990, 991, 1000)] == [50, 99, 100, 100]


# ---- failover, gap, recovery --------------------------------------------------------------------------------------------------------------------
def leader_lost() -> Story:
    """The leader's side {0} is cut off from 100 to 400.  The larger side writes again at 190, reads never stop for long."""
    return [
        op(1, "write", 80, 104),  # asked before the cut, answered after: it is no failover, but it ends the first gap
        op(1, "write", 120, None, "info"), op(0, "write", 130, 131), op(2, "write", 170, 190), op(1, "read", 110, 118), op(2, "read", 180, 182),
        op(1, "read", 240, 241), op(2, "write", 300, 310), op(2, "write", 450, 452), op(1, "write", 460, 470), op(0, "write", 405, 455, "fail"),
        op(0, "write", 480, 484), op(0, "read", 440, 441), op(1, "read", 401, 403), op(2, "read", 410, 460), op(2, "write", 490, None, "info"),
        op(1, "write", 500, 501), op(0, "write", 700, 701, final=True), op(2, "read", 700, None, "info", final=True),
    ]


@pytest.mark.parametrize(("name", "worth"), [
    ("failover_write_us", 90 * MS), ("failover_write_censored", False), ("failover_read_us", 18 * MS),
    ("gap_write_us", 142 * MS),  # oks on {1, 2} after the cut: 104 190 310 452 470 501, and the last request was due at 500
    ("gap_read_us", 162 * MS),  # 118 182 241 403 460
    ("recovery_first_write_us", 84 * MS), ("recovery_first_read_us", 60 * MS), ("recovery_first_read_censored", False),
    ("recovery_last_us", 90 * MS),
])
def test_failover_gap_and_recovery(name: str, worth: Any) -> None:
    assert measure_history(leader_lost(), [cut(100, 400, (0,), (1, 2))])[name] == worth


def test_a_failover_that_never_came_is_null_and_said_to_be_censored_and_its_gap_lasts_to_the_end() -> None:
    story = [op(1, "write", 50, 60), op(1, "write", 150, None, "info"), op(2, "write", 350, None, "info"), op(0, "write", 200, 201)]
    row = measure_history(story, [cut(100, None, (0,), (1, 2))])
    assert (row["failover_write_us"], row["failover_write_censored"], row["gap_write_us"]) == (None, True, 250 * MS)
    assert (row["failover_read_us"], row["failover_read_censored"], row["gap_read_us"]) == (None, None, None)  # nobody read
    assert (row["recovery_last_us"], row["recovery_first_write_us"], row["recovery_first_write_censored"]) == (None, None, None)  # never healed


def test_recovery_waits_for_every_node_that_was_asked() -> None:
    story = [op(0, "read", 210, 260, "fail"), op(1, "read", 210, 211), op(2, "read", 190, 290)]
    row = measure_history(story, SPLIT)
    assert (row["recovery_first_read_us"], row["recovery_first_read_censored"]) == (None, True)
    assert row["recovery_last_us"] == 10 * MS
    row = measure_history([*story, op(0, "read", 270, 275)], SPLIT)
    assert (row["recovery_first_read_us"], row["recovery_first_read_censored"], row["recovery_last_us"]) == (75 * MS, False, 10 * MS)
    assert measure_history([op(1, "read", 210, 211)], SPLIT)["recovery_last_us"] == 0  # measured: nothing failed


def test_after_a_crash_failover_is_measured_on_the_nodes_that_are_left() -> None:
    story = [op(0, "write", 110, 111, "fail"), op(0, "write", 160, 161), op(1, "write", 130, 180)]
    row = measure_history(story, [crash(100, 150, 0)], nodes=3)
    assert row["failover_write_us"] == 80 * MS
    assert measure_history(story, [crash(100, 150, 0, kind="slow")], nodes=3)["failover_write_us"] == 61 * MS


def test_a_history_that_names_no_nodes_is_measured_as_a_whole() -> None:
    story = [Operation(process=1, f="cas", key="r", value=[1, 2], result=True, invoke=0, complete=5, type="ok"),
             Operation(process=1, f="read", key="r", value=None, result=2, invoke=6, complete=8, type="ok")]
    row = measure_history(story)
    assert row["availability"] == 1.0 and row["latency_p99_write_us"] == 5 and row["availability_worst_node"] is None
    assert row["linearizable"] == "invalid"  # from null, a cas of 1 cannot have set
    assert measure_history(story, initial=1)["linearizable"] == "valid"
