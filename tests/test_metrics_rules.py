"""Measures' edges on which no other test failed when they were broken: levels' replicas, several faults at once, the grace of what merges, foreign records."""

from __future__ import annotations

import pytest
from test_metrics_allowed import CUT, EACH, RING, SPLIT, S
from test_metrics_versions import applied, crash, cut, read, record, write

from capray.checkers.measures import lost_writes_provable
from capray.measures.allowed import allowed_columns, needed_replicas
from capray.measures.divergence import GRACE_US
from capray.measures.holdings import restarts_of
from capray.measures.phases import Calendar
from capray.metrics import count_nodes, divergence_curve, measure
from capray.record import FaultWindow, Operation


@pytest.mark.parametrize(("replicas", "counts"), [(3, (0, 1, 1, 2, 3, 2, 2, 3, 2)), (5, (0, 1, 1, 2, 3, 3, 3, 5, 3))])
def test_each_level_needs_as_many_replicas_as_the_manual_says(replicas: int, counts: tuple[int, ...]) -> None:
    levels = ("ANY", "ONE", "LOCAL_ONE", "TWO", "THREE", "QUORUM", "LOCAL_QUORUM", "ALL", "SERIAL")
    assert tuple(needed_replicas(level, replicas) for level in levels) == counts


def test_a_recorded_cut_that_names_its_sides_blocks_what_is_between_them() -> None:
    """A foreign record has groups, and no list of links."""
    named = FaultWindow(kind="partition", at=SPLIT.at, until=SPLIT.until, groups=CUT)
    found = allowed_columns(EACH, RING, 5, [named], "QUORUM", "QUORUM")
    assert found == allowed_columns(EACH, RING, 5, [SPLIT], "QUORUM", "QUORUM") and found["allowed_worst_node_read"] == 2 / 5


def test_the_serving_side_is_that_of_the_fault_that_came_first() -> None:
    faults = [cut(9 * S, 12 * S, (0, 1, 2), (3, 4)), cut(2 * S, 4 * S, (0, 1), (2, 3, 4)), crash(6 * S, 7 * S, 4)]
    assert Calendar(faults, 5).serving_side() == {2, 3, 4}
    assert Calendar(faults[2:], 5).serving_side() == {0, 1, 2, 3}


def test_a_cluster_is_as_large_as_history_and_faults_together_say() -> None:
    """A real store's history may name no node that only a fault touched."""
    history = [write(1, 1, 0, 10)]
    assert count_nodes(history, []) == 2
    assert count_nodes(history, [crash(5, None, 3)]) == 4 and count_nodes(history, [cut(5, 9, (0, 1), (2, 3, 4))]) == 5 and count_nodes([], []) == 0


def test_a_pause_is_no_restart_and_crashes_count_from_the_last() -> None:
    pause = FaultWindow(kind="pause", at=S, until=2 * S, nodes=(0,))
    assert restarts_of(record([], [], [crash(2 * S, 3 * S, 0), pause, crash(6 * S, 8 * S, 0), crash(4 * S, None, 1)])) == {0: [8 * S, 3 * S]}


def test_staleness_by_the_stores_order_is_unknown_where_that_order_is_partial() -> None:
    """Siblings are ordered by nothing, merged updates by nothing that a read could show."""
    story = [write(1, 0, 0, 10), write(2, 1, 0, 10), read(1, 0, 50)]
    siblings = [applied(5, 0, 1, 1), applied(5, 1, 2, 2), applied(20, 0, 2, 2), applied(20, 1, 1, 1, kind="apply")]
    chain = [applied(5, 0, 1, 1), applied(6, 0, 2, 2, 1), applied(20, 1, 2, 2)]
    merged = [applied(5, 0, 1, 1, kind="merge"), applied(6, 1, 2, 2, kind="merge")]
    assert measure(record(story, chain, nodes=2))["stale_reads_ordered"] == 1
    for versions in (siblings, merged):
        assert measure(record(story, versions, nodes=2))["stale_reads_ordered"] is None


def test_what_merges_has_its_grace_too() -> None:
    """METRICS, divergence: "leaving out writes younger than a stated grace": an increment on its way is no difference yet."""
    story = [write(1, 0, S - 10, S)]
    versions = [applied(S, 0, 1, 1, kind="merge"), *(applied(S + GRACE_US // 2, node, 1, 1, kind="merge") for node in (1, 2))]
    assert not any(sample.differing for sample in divergence_curve(record(story, versions)))
    late = [versions[0], *(applied(S + 4 * GRACE_US, node, 1, 1, kind="merge") for node in (1, 2))]
    assert {sample.differing for sample in divergence_curve(record(story, late))} == {0, 2}  # of three pairs


def operation(f: str, value: int | None, invoke: int, complete: int, final: bool = False) -> Operation:
    return Operation(process=0, f=f, key="x", value=value if f == "write" else None, result=value if f == "read" else None, invoke=invoke, complete=complete,
                     type="ok", final=final)


@pytest.mark.parametrize(("ended", "begun", "lost"), [(30, 31, 1), (30, 30, 0), (30, 29, 0)])
def test_a_write_that_a_last_read_may_have_come_before_is_not_provably_lost(ended: int, begun: int, lost: int) -> None:
    """Jepsen: a write is lost where a read that began after it was over, as the last one, does not know it."""
    story = [operation("write", 1, 0, 5), operation("write", 2, 10, ended), operation("read", 1, begun, begun + 5, final=True)]
    assert lost_writes_provable(story) == lost


def test_last_reads_begin_after_all_writes_were_over() -> None:
    """Where a history marks none: one that began as a write ended may have missed it."""
    story = [operation("write", 1, 0, 5), operation("write", 2, 10, 30)]
    assert lost_writes_provable([*story, operation("read", 1, 30, 35)]) is None
    assert lost_writes_provable([*story, operation("read", 1, 31, 35)]) == 1
