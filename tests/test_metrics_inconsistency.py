"""Stale reads by phase and side, verdicts, Gamma, sessions and provable losses as columns; each on a history worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capray.measures.inconsistency import staleness
from capray.measures.phases import Calendar
from capray.metrics import measure_history
from capray.record import FaultWindow, Operation

CUT = FaultWindow(kind="partition", at=1_000, until=2_000, groups=((0,), (1, 2)))


def write(node: int, value: int, invoke: int, complete: int | None, key: str = "x", **more: Any) -> Operation:
    return Operation(process=10 * value + 1, node=node, f="write", key=key, value=value, result=None, invoke=invoke, complete=complete,
                     type="info" if complete is None else "ok", **more)


def read(node: int, result: int | None, invoke: int, complete: int, key: str = "x", process: int | None = None, **more: Any) -> Operation:
    return Operation(process=node + 5 if process is None else process, node=node, f="read", key=key, value=None, result=result, invoke=invoke,
                     complete=complete, type="ok", **more)


def split_brain() -> list[Operation]:
    """x = 1 everywhere; the larger side writes 2, 3, 4 during the cut; node 0 goes on reading 1, and once more just after healing."""
    return [
        write(1, 1, 100, 110), read(0, 1, 200, 210), read(1, None, 300, 310),  # the initial value, 190 after 1 was there
        write(1, 2, 1_100, 1_120), write(2, 3, 1_200, 1_230), write(1, 4, 1_300, 1_900),
        read(0, 1, 1_120, 1_121),  # as 2 completes: a tie is no "before"
        read(0, 1, 1_121, 1_130), read(0, 1, 1_500, 1_510), read(2, 4, 1_950, 1_960), read(0, 1, 2_100, 2_110),
        write(0, 5, 2_200, 2_210), read(1, 5, 2_300, 2_310), read(0, 2, 9_000, 9_010, final=True), read(1, 5, 9_000, 9_010, final=True),
    ]


@pytest.mark.parametrize(("name", "worth"), [
    ("stale_reads", 4), ("stale_share", 4 / 8), ("stale_reads_before", 1), ("stale_reads_during", 2), ("stale_reads_after", 1), ("stale_reads_final", 1),
    ("stale_reads_during_minority", 2), ("stale_reads_during_majority", 0), ("stale_share_during_minority", 2 / 3), ("stale_share_during_majority", 0.0),
    ("staleness_max_us", 980),  # at 2100, of a value that 2 (complete at 1120) overwrote first
    ("staleness_max_before_us", 190), ("staleness_max_during_us", 380), ("staleness_max_during_majority_us", None),
    ("versions_behind_max", 3),  # 2, 3 and 4 had completed
    ("versions_behind_max_during", 2),  # 4 had not
    ("linearizable", "invalid"),
])
def test_stale_reads_with_their_ages_by_phase_and_side(name: str, worth: Any) -> None:
    assert measure_history(split_brain(), [CUT])[name] == worth


def test_a_read_of_3_beside_a_concurrent_4_is_not_stale() -> None:
    story = [write(1, 3, 1_200, 1_230), write(2, 4, 1_220, 1_900), read(2, 3, 1_950, 1_960)]
    assert measure_history(story, [CUT])["stale_reads"] == 0  # 4 was invoked before 3 had completed: either may be the newer
    assert measure_history([*story, read(2, 4, 1_961, 1_962), read(2, 3, 1_970, 1_971)], [CUT])["linearizable"] == "invalid"


def test_a_write_of_unknown_outcome_overwrites_nothing_and_is_not_overwritten() -> None:
    story = [write(1, 1, 0, 10), write(1, 2, 20, None), read(0, 1, 500, 510), write(2, 3, 600, 610), read(0, 2, 700, 710)]
    row = measure_history(story)
    assert (row["stale_reads"], row["linearizable"]) == (0, "valid")  # 2 may have taken effect between 610 and 710


def test_without_reads_and_without_distinct_values_nothing_is_claimed() -> None:
    row = measure_history([write(0, 1, 0, 10)])
    assert (row["stale_reads"], row["stale_share"], row["staleness_max_us"], row["lost_writes_provable"]) == (None, None, None, None)
    row = measure_history([write(0, 1, 0, 10), write(0, 1, 20, 30), read(0, 1, 40, 50)])
    assert (row["stale_reads"], row["gamma_us"], row["monotonic_reads_violations"], row["linearizable"]) == (None, None, None, "valid")
    other = [Operation(process=1, f="enqueue", key="q", value=1, result=None, invoke=0, complete=1, type="ok")]
    assert measure_history(other)["linearizable"] is None


def test_gamma_and_sessions_come_from_the_checkers() -> None:
    """One process reads 2, then 1 again: 100 us after 2 had completed.  Gamma moves both ends: the read's start back and 2's end on."""
    story = [write(1, 1, 0, 10), write(1, 2, 100, 200), read(0, 2, 250, 260, process=9), read(0, 1, 300, 310, process=9)]
    row = measure_history(story)
    assert row["gamma_us"] == 100 and row["monotonic_reads_violations"] == 1
    assert (row["read_your_writes_violations"], row["writes_follow_reads_violations"]) == (0, 0)
    own = [Operation(process=9, node=0, f="write", key="x", value=7, result=None, invoke=0, complete=10, type="ok"), read(0, None, 20, 30, process=9)]
    assert measure_history(own)["read_your_writes_violations"] == 1


def test_what_final_reads_prove_lost() -> None:
    """Every final read shows 1.  2 came after it and is gone; so is 3.  4 is of unknown outcome and never counts."""
    story = [write(0, 1, 0, 10), write(1, 2, 20, 30), write(1, 3, 25, 40), write(1, 4, 50, None)]
    finals = [read(node, 1, 900, 910, final=True) for node in (0, 1)]
    assert measure_history([*story, *finals])["lost_writes_provable"] == 2
    assert measure_history([*story, *finals, read(2, 2, 900, 910, final=True)])["lost_writes_provable"] == 0  # one node still has 2: 3 may precede it
    assert measure_history([*story, read(2, 4, 900, 910, final=True)])["lost_writes_provable"] == 0


@st.composite
def histories(draw: st.DrawFn) -> list[Operation]:
    ops = []
    for value in range(1, draw(st.integers(1, 7))):
        invoke = draw(st.integers(0, 40))
        ops.append(write(value % 3, value, invoke, draw(st.one_of(st.none(), st.integers(invoke, 50))), key=draw(st.sampled_from("xy"))))
    written = [None, *(op.value for op in ops)]
    for i in range(draw(st.integers(0, 8))):
        invoke = draw(st.integers(0, 60))
        ops.append(read(i % 3, draw(st.sampled_from(written)), invoke, invoke + draw(st.integers(0, 9)), key=draw(st.sampled_from("xy")), process=100 + i))
    return ops


@given(histories())
def test_stale_columns_agree_with_their_definition_word_for_word(ops: list[Operation]) -> None:
    found = []
    for r in ops:
        if r.f == "read":
            source = next((w for w in ops if w.f == "write" and w.key == r.key and w.value == r.result), None)
            if source is None and r.result is not None:
                continue  # nothing wrote that here: wrong, not stale
            since = -1 if source is None else 99 if source.complete is None else source.complete
            newer = [w for w in ops if w.f == "write" and w.key == r.key and w.type == "ok" and w.invoke > since and (w.complete or 0) < r.invoke]
            if newer:
                found.append((r.invoke - min(w.complete or 0 for w in newer), len(newer)))
    row = staleness(ops, Calendar((), 3))
    assert row["stale_reads"] == (len(found) if any(op.f == "read" for op in ops) else None)
    assert row["staleness_max_us"] == max((age for age, _ in found), default=None)
    assert row["versions_behind_max"] == max((behind for _, behind in found), default=None)
