"""Lost writes, conflicts, divergence, convergence and cost, from versions that replicas applied: small records worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from capray.measures import acknowledged as acknowledged_module
from capray.measures import divergence as divergence_module
from capray.measures.divergence import GRACE_US, SAMPLE_US, sampling
from capray.metrics import divergence_curve, measure
from capray.record import FaultWindow, Operation, Record, Version

S = 1_000_000
MS = 1_000


def write(value: int, node: int, invoke: int, complete: int | None, key: str = "x") -> Operation:
    return Operation(process=value, node=node, f="write", key=key, value=value, result=None, invoke=invoke, complete=complete,
                     type="info" if complete is None else "ok")


def applied(at: int, node: int, value: int, order: int | tuple[int, ...], *replaced: int, kind: Any = "apply", key: str = "x") -> Version:
    return Version(at, node, key, value, (order,) if isinstance(order, int) else order, kind, replaced)


def everywhere(at: int, value: int, order: int, *replaced: int, nodes: tuple[int, ...] = (0, 1, 2)) -> list[Version]:
    return [applied(at, node, value, order, *replaced) for node in nodes]


def record(history: list[Operation], versions: list[Version] | None, faults: list[FaultWindow] | None = None, nodes: int = 3, end: int = 20 * S,
           **more: Any) -> Record:
    keys = sorted({op.key for op in history if op.key})
    placement = more.pop("placement", {key: tuple(range(nodes)) for key in keys})
    ordered = None if versions is None else sorted(versions, key=lambda v: (v.at, v.node))
    return Record(policy="by-hand", nodes=nodes, seed=1, scenario="", history=history, faults=faults or [], versions=ordered, placement=placement,
                  counters=more.pop("counters", {}), end=end)


def cut(at: int, until: int | None, *groups: tuple[int, ...], **touched: int) -> FaultWindow:
    return FaultWindow(kind="partition", at=at, until=until, groups=groups, touched=touched)


def crash(at: int, until: int | None, node: int) -> FaultWindow:
    return FaultWindow(kind="crash-host", at=at, until=until, nodes=(node,))


# ---- lost writes ----------------------------------------------------------------------------------------------------------------------------------
def test_overwritten_is_not_lost() -> None:
    story = [write(1, 0, 0, 10), write(2, 0, 20, 30)]
    row = measure(record(story, everywhere(5, 1, 1) + everywhere(25, 2, 2, 1)))
    assert (row["lost_writes"], row["conflicts"], row["never_visible_writes"]) == (0, 0, 0)


def test_a_deposed_primary_discards_its_branch_and_what_it_had_acknowledged_is_lost() -> None:
    """1 is everywhere.  Cut: node 0 acknowledges 2 and 3; the others go on with 4.  After heal node 0 resynchronises: 2 and 3 are gone."""
    story = [write(1, 0, 0, 10), write(2, 0, 2 * S, 2 * S + 10), write(3, 0, 3 * S, 3 * S + 10), write(4, 1, 3 * S, 3 * S + 10), write(9, 1, 0, None)]
    before = [*everywhere(5, 1, 1), applied(2 * S + 5, 0, 2, (1, 2), 1), applied(3 * S + 5, 0, 3, (1, 3), 2)]
    others = [applied(3 * S + 5, node, 4, (2, 2), 1) for node in (1, 2)]
    resync = [applied(11 * S, 0, 3, (1, 3), kind="discard"), applied(11 * S, 0, 2, (1, 2), kind="discard"), applied(11 * S, 0, 4, (2, 2), 1)]
    row = measure(record(story, before + others + resync, [cut(S, 10 * S, (0,), (1, 2))]))
    assert row["lost_writes"] == 2
    assert row["conflicts"] == 2  # 4 and each of 2 and 3, neither of which saw the other; 2 and 3 did
    assert (row["convergence_us"], row["convergence_censored"]) == (S, False)  # what was lost is not waited for
    replaced = [applied(11 * S, 0, 4, (2, 2), 3), *resync[:2]]  # told the other way round: 4 replaced 3, and then 3 and 2 were dropped
    assert measure(record(story, before + others + replaced, [cut(S, 10 * S, (0,), (1, 2))]))["lost_writes"] == 2
    row = measure(record(story, before + others, [cut(S, None, (0,), (1, 2))]))
    assert row["lost_writes"] == 0 and row["convergence_censored"] is None  # not lost yet: node 0 still keeps them


def test_a_replaced_write_is_kept_by_what_replaced_it_even_if_its_replica_is_gone() -> None:
    """Node 0 took 1, then 2; only 2 reached node 1 (a snapshot).  Node 0 never comes back: 2 is kept, and 1 in it."""
    story = [write(1, 0, 0, 10), write(2, 0, 20, 30), write(3, 0, 40, 50)]
    versions = [applied(5, 0, 1, 1), applied(25, 0, 2, 2, 1), applied(26, 1, 2, 2), applied(45, 0, 3, 3, 2)]
    row = measure(record(story, versions, [crash(S, None, 0)]))
    assert row["lost_writes"] == 1  # 3 was on node 0 only


def test_a_write_ordered_before_its_predecessor_stands_in_the_order_but_was_never_visible() -> None:
    story = [write(1, 0, 0, 10), write(2, 1, 20, 30)]
    row = measure(record(story, everywhere(5, 1, 900) + [applied(25, node, 2, 800, kind="late") for node in range(3)]))
    assert (row["lost_writes"], row["never_visible_writes"]) == (0, 1)


def test_what_only_a_hint_held_is_lost_if_it_never_arrived() -> None:
    other = [write(2, 0, 0, 10, key="y")], [applied(5, 0, 2, 1, key="y")]
    assert measure(record([write(1, 0, 0, 10), *other[0]], other[1]))["lost_writes"] == 1
    assert measure(record([write(1, 0, 0, None), *other[0]], other[1]))["lost_writes"] == 0  # nobody was told ok


def test_of_a_policy_that_tells_of_no_version_nothing_is_known() -> None:
    row = measure(record([write(1, 0, 0, 10)], []))
    assert [row[name] for name in ("lost_writes", "conflicts", "divergence_area", "divergence_final", "convergence_us")] == [None] * 5
    assert measure(record([write(1, 0, 0, None)], []))["lost_writes"] == 0  # none was to be told of


def test_a_restarted_replica_holds_what_it_announces_then() -> None:
    """Host 0 alone had 2, unsynced, when it crashed; it comes back with 1."""
    story = [write(1, 0, 0, 10), write(2, 0, S, S + 10)]
    versions = [*everywhere(5, 1, 1), applied(S + 5, 0, 2, 2, 1), applied(3 * S, 0, 1, 1)]
    assert measure(record(story, versions, [crash(2 * S, 3 * S, 0)]))["lost_writes"] == 1
    silent = [v for v in versions if v.at != 3 * S]  # a policy that announces nothing then is taken to hold what it held
    assert measure(record(story, silent, [crash(2 * S, 3 * S, 0)]))["lost_writes"] == 0
    back = applied(3 * S, 0, 0, 0, key="")  # its machine says that the crash took records: what comes back may come later
    assert measure(record(story, [*silent, back, applied(4 * S, 0, 1, 1)], [crash(2 * S, 3 * S, 0)]))["lost_writes"] == 1
    assert measure(record(story, [*silent, back, applied(4 * S, 0, 2, 2)], [crash(2 * S, 3 * S, 0)]))["lost_writes"] == 0


def test_a_restarted_replica_has_in_its_order_what_came_before_what_it_announces() -> None:
    """Node 0 has 2, then 1 late, which it orders before; it crashes and comes back with 2 alone: 1 is overwritten there, not lost."""
    story = [write(1, 0, 0, 10), write(2, 0, 0, 10)]
    versions = [applied(5, 0, 2, 2), applied(6, 0, 1, 1, kind="late"), applied(3 * S, 0, 2, 2)]
    assert measure(record(story, versions, [crash(2 * S, 3 * S, 0)]))["lost_writes"] == 0
    older = [applied(5, 0, 1, 1), applied(6, 0, 2, 2, 1), applied(3 * S, 0, 1, 1)]  # the newer one did not survive
    assert measure(record(story, older, [crash(2 * S, 3 * S, 0)]))["lost_writes"] == 1


def test_a_silent_restart_makes_no_siblings() -> None:
    """Node 0 lost 2 in the crash without a word; then it replaces 1 by 3, which is no sign that it kept 2 beside 3."""
    story = [write(1, 0, 0, 10), write(2, 0, S, S + 10), write(3, 0, 5 * S, 5 * S + 10)]
    versions = [*everywhere(5, 1, 1), applied(S + 5, 0, 2, 2, 1), applied(5 * S, 0, 3, 3, 1)]
    assert measure(record(story, versions, [crash(2 * S, 3 * S, 0)]))["conflicts"] == 0
    assert measure(record(story, versions))["conflicts"] == 1  # without a crash it did keep both


# ---- stale reads by the store's own order -------------------------------------------------------------------------------------------------------
def read(value: int | None, node: int, invoke: int, final: bool = False) -> Operation:
    return Operation(process=900 + node, node=node, f="read", key="x", value=None, result=value, invoke=invoke, complete=invoke + 5, type="ok", final=final)


def test_of_two_concurrent_writes_the_store_orders_one_later_and_then_a_read_of_the_other_is_stale() -> None:
    story = [write(1, 0, 100, 150), write(2, 1, 110, 160), write(3, 1, 120, None)]
    reads = [read(2, 0, 150), read(2, 0, 155), read(2, 0, 400), read(1, 0, 500), read(3, 0, 600), read(None, 0, 700), read(2, 0, 800, final=True)]
    ordered = everywhere(140, 2, 1) + everywhere(141, 3, 2, 2) + everywhere(142, 1, 3, 3)  # the store's order: 2, then 3, then 1
    row = measure(record(story + reads, ordered))
    assert (row["stale_reads"], row["staleness_max_us"]) == (1, 550)  # by the history alone only null, overwritten at 150
    assert row["stale_reads_ordered"] == 4  # 2 at 155 (not at 150: a tie) and 400, 3 at 600, null at 700
    assert row["stale_share_ordered"] == 4 / 6 and row["staleness_max_ordered_us"] == 550


# ---- conflicts ------------------------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("what", "versions", "pairs"), [
    ("each accepted on its own node, unseen by the other; last write wins later", [
        applied(105, 0, 1, 1), applied(106, 1, 2, 2), applied(300, 0, 2, 2, 1), applied(300, 1, 1, 1, kind="late")], 1),
    ("both kept, as siblings", [applied(105, 0, 1, 1), applied(106, 1, 2, 2), applied(300, 0, 2, 2), applied(300, 1, 1, 1)], 1),
    ("the second is accepted on a node that has the first", [applied(105, 0, 1, 1), applied(106, 0, 2, 2, 1)], 0),
    ("quorums intersect: node 1 had 1 when it took 2", [
        applied(105, 0, 1, 1), applied(106, 1, 1, 1), applied(107, 1, 2, 2, 1), applied(107, 2, 2, 2), applied(300, 2, 1, 1, kind="late")], 0),
    ("ordered before they are acknowledged", [applied(105, n, 1, 1) for n in range(3)] + [applied(108, n, 2, 2, 1) for n in range(3)], 0),
    ("applied only after it was acknowledged (a hint): accepted nowhere", [applied(500, 0, 1, 1), applied(106, 1, 2, 2)], 0),
    ("both discarded later: nothing was kept", [
        applied(105, 0, 1, 1), applied(106, 1, 2, 2), applied(400, 0, 1, 1, kind="discard"), applied(400, 1, 2, 2, kind="discard")], 0),
])
def test_conflicts_are_pairs_of_which_neither_saw_the_other(what: str, versions: list[Version], pairs: int) -> None:
    assert measure(record([write(1, 0, 100, 110), write(2, 1, 101, 111)], versions))["conflicts"] == pairs, what


def test_concurrent_increments_are_merged_and_do_not_conflict() -> None:
    """Two counters' increments on two sides of a cut, 1 at node 0 and 2 at node 1: both are in every total in the end, so the policy chose between none.
    A register that keeps one of them, or both as siblings, has one conflict."""
    story = [write(1, 0, S, S + 10), write(2, 1, S, S + 10)]
    apart = [(S + 5, 0, 1), (S + 6, 1, 2)]
    both = [(4 * S, 0, 2), (4 * S, 1, 1), (4 * S, 2, 1), (4 * S, 2, 2)]
    faults = [cut(S // 2, 3 * S, (0,), (1, 2))]
    merged = measure(record(story, [applied(*one, one[2], kind="merge") for one in apart + both], faults))
    assert (merged["conflicts"], merged["lost_writes"], merged["never_visible_writes"]) == (0, 0, 0)
    assert (merged["divergence_final"], merged["convergence_us"]) == (0, S)
    assert measure(record(story, [applied(*one, one[2]) for one in apart + both], faults))["conflicts"] == 1


def test_of_merged_updates_only_one_that_was_lost_conflicts() -> None:
    """Node 0 takes 1 and loses it with its disk; 2, taken unseen by it at node 1, is kept: one was chosen."""
    story = [write(1, 0, S, S + 10), write(2, 1, S, S + 10)]
    versions = [applied(S + 5, 0, 1, 1, kind="merge"), applied(S + 6, 1, 2, 2, kind="merge"), applied(4 * S, 0, 2, 2, kind="merge")]
    row = measure(record(story, versions, [crash(2 * S, 4 * S, 0)], nodes=2))
    assert (row["conflicts"], row["lost_writes"], row["divergence_final"]) == (1, 1, 0)


def test_replicas_of_a_counter_agree_only_where_they_hold_the_same_increments() -> None:
    """Node 1 has the last increment and lacks the first: the newest is the same and the total is not."""
    story = [write(1, 0, 0, 10), write(2, 0, 20, 30)]
    versions = [applied(5, 0, 1, 1, kind="merge"), applied(25, 0, 2, 2, kind="merge"), applied(50, 1, 2, 2, kind="merge")]
    assert measure(record(story, versions, nodes=2))["divergence_final"] == 1


def test_what_a_client_removed_from_a_set_is_not_lost_and_removes_spread() -> None:
    """Node 0 adds 1 and both have it; node 1 removes it, which node 0 learns 2 s later: until then they differ, and nothing is lost."""
    story = [write(1, 0, 0, 10), write(2, 0, 0, 10)]
    versions = [applied(at, node, value, value, kind="merge") for at, node in ((5, 0), (50, 1)) for value in (1, 2)]
    versions += [Version(at, node, "x", None, (9, node), "merge", (1,)) for at, node in ((S, 1), (3 * S, 0))]
    row = measure(record(story, versions, [cut(S // 2, 2 * S, (0,), (1,))], nodes=2))
    assert (row["lost_writes"], row["conflicts"], row["divergence_final"], row["convergence_us"]) == (0, 0, 0, 0)
    assert row["divergence_area"] == pytest.approx(2, abs=0.11)


@pytest.mark.parametrize(("told", "pairs"), [(True, 0), (False, 1)])
def test_who_has_a_successor_has_seen_what_it_overwrote(told: bool, pairs: int) -> None:
    """Node 0 takes 1, then 2 in its place, and tells node 1 of 2 alone, as a register that sends states does; node 1 then takes 3.  So 1 and 3 do not
    conflict.  But a 2 that overwrote 1 only at node 2 (by its larger timestamp, unseen by its writer) does not hide that 1 and 3 do."""
    story = [write(1, 0, 0, 10), write(2, 0 if told else 1, 20, 30), write(3, 1, 50, 60)]
    if told:
        versions = [applied(5, 0, 1, 1), applied(25, 0, 2, 2, 1), applied(40, 1, 2, 2), applied(55, 1, 3, 3, 2)]
    else:
        versions = [applied(5, 0, 1, 1), applied(25, 1, 2, 2), applied(40, 0, 2, 2, 1), applied(55, 1, 3, 3, 2)]
        pairs += 1  # 1 and 2 as well
    assert measure(record(story, versions))["conflicts"] == pairs


def test_conflicts_are_counted_by_key_and_in_blocks_as_pair_by_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long cut: 30 writes on one side, 20 on the other, each side seeing its own: 600 pairs; then one write that saw them all."""
    side = {i: i % 2 if i <= 40 else 0 for i in range(1, 51)}
    story = [write(i, side[i], i * 100, i * 100 + 50) for i in side] + [write(99, 0, 9_000, 9_050), write(5_000, 1, 100, 150, key="y")]
    before = {i: [j for j in side if j < i and side[j] == side[i]][-1:] for i in side}
    versions = [applied(i * 100 + 10, side[i], i, i, *before[i]) for i in side]
    versions += [applied(8_000, 1 - side[i], i, i, kind="late") for i in side if i <= 39]
    versions += [applied(8_001, 1, i, i, *([39] if i == 40 else [40] if i == 41 else [i - 1])) for i in side if i >= 40]
    versions += [applied(9_010, 0, 99, 99, 50), applied(9_020, 1, 99, 99, 50), applied(110, 1, 5_000, 1, key="y")]
    assert measure(record(story, versions, nodes=2))["conflicts"] == 30 * 20
    monkeypatch.setattr(acknowledged_module, "BLOCK", 7)
    assert measure(record(story, versions, nodes=2))["conflicts"] == 30 * 20


# ---- divergence -----------------------------------------------------------------------------------------------------------------------------------
def lagging(until: int | None) -> Record:
    """Replica 2 of three misses 2, written at 1 s, until `until`: two of three pairs differ, once 2 is older than the grace."""
    versions = everywhere(5, 1, 1) + [applied(S, node, 2, 2, 1) for node in (0, 1)]
    if until is not None:
        versions.append(applied(until, 2, 2, 2, 1))
    return record([write(1, 0, 0, 10), write(2, 0, S, S + 10)], versions, end=4 * S)


def test_divergence_is_the_share_of_pairs_that_differ_beyond_the_grace() -> None:
    points = {point.at: point for point in divergence_curve(lagging(3 * S))}
    assert (points[0].differing, points[0].pairs) == (0, 3)
    assert points[S + GRACE_US - SAMPLE_US].differing == 0 and points[S + GRACE_US].differing == 2 and points[3 * S].differing == 0
    row = measure(lagging(3 * S))
    assert row["divergence_area"] == pytest.approx(2 / 3 * (2 - GRACE_US / S), abs=1e-12) and row["divergence_final"] == 0.0
    row = measure(lagging(None))
    assert row["divergence_area"] == pytest.approx(2 / 3 * (3 - GRACE_US / S), abs=1e-12) and row["divergence_final"] == 2 / 3


def test_a_lag_that_lasts_is_divergence_even_while_every_newest_version_is_young() -> None:
    """Node 0 takes a write each 50 ms (all younger than the grace when replaced); node 1 gets none of them."""
    story = [write(i, 0, i * 50 * MS, i * 50 * MS + 10) for i in range(1, 60)]
    versions = [applied(i * 50 * MS, 0, i, i, *([i - 1] if i > 1 else [])) for i in range(1, 60)]
    points = divergence_curve(record(story, versions, nodes=2, end=2 * S))
    assert all(point.differing == 1 for point in points if point.at >= 50 * MS + GRACE_US)


def test_two_sides_that_each_go_on_writing_differ_though_each_has_something_newer_than_the_other_had() -> None:
    """Last write wins: both nodes take a write each 50 ms, in turns, and get the other's only at 2 s."""
    story = [write(i, i % 2, i * 50 * MS, i * 50 * MS + 10) for i in range(1, 40)]
    versions = [applied(i * 50 * MS, i % 2, i, i, *([i - 2] if i > 2 else [])) for i in range(1, 40)]
    versions += [applied(2 * S, 1 - i % 2, i, i, *([38] if i == 39 else []), kind="apply" if i == 39 else "late") for i in range(1, 40)]
    points = {point.at: point.differing for point in divergence_curve(record(story, versions, nodes=2, end=3 * S))}
    assert all(differing == (1 if 300 * MS <= at < 2 * S else 0) for at, differing in points.items() if at != 200 * MS)


def test_a_replica_that_skipped_an_older_write_but_has_the_newer_one_does_not_differ() -> None:
    story = [write(1, 0, 0, 10), write(2, 0, 20, 30)]
    points = divergence_curve(record(story, [applied(5, 0, 1, 1), applied(25, 0, 2, 2, 1), applied(26, 1, 2, 2)], nodes=2))
    assert all(point.differing == 0 for point in points)
    later = [applied(5, 0, 1, 1), applied(25, 0, 2, 2, 1), applied(26, 1, 2, 2), applied(S, 1, 1, 1, kind="late")]
    assert all(point.differing == 0 for point in divergence_curve(record(story, later, nodes=2)))


def test_only_live_replicas_of_the_key_are_compared() -> None:
    versions = [applied(5, 0, 1, 1), applied(5, 1, 1, 1)]
    far = record([write(1, 0, 0, 10)], versions, nodes=5, placement={"x": (0, 1, 2)}, faults=[crash(2 * S, None, 2)], end=4 * S)
    points = {point.at: point for point in divergence_curve(far)}
    assert (points[S].differing, points[S].pairs) == (2, 3)  # 2 never got it; 3 and 4 hold no replica
    assert (points[3 * S].differing, points[3 * S].pairs) == (0, 1)  # 2 is down
    alone = measure(record([write(1, 0, 0, 10)], versions[:1], placement={"x": (0,)}))
    assert (alone["divergence_area"], alone["divergence_final"]) == (None, None)


def test_siblings_differ_until_every_replica_has_both_or_what_merges_them() -> None:
    """1 and 2 are written apart; node 2 gets both, the others one each; then 3 merges them."""
    story = [write(1, 0, 0, 10), write(2, 1, 0, 10), write(3, 2, S, S + 10)]
    versions = [applied(5, 0, 1, (1, 0)), applied(5, 1, 2, (1, 1)), applied(6, 2, 1, (1, 0)), applied(6, 2, 2, (1, 1))]
    points = {point.at: point.differing for point in divergence_curve(record(story, versions, end=2 * S))}
    assert points[500 * MS] == 3
    merged = [*versions, *(applied(S + 5, node, 3, (2, 2), *older) for node, older in ((0, (1,)), (1, (2,)), (2, (1, 2))))]
    done = record(story, merged, faults=[cut(1, 500 * MS, (0,), (1,), (2,))], end=2 * S)
    assert {point.at: point.differing for point in divergence_curve(done)}[1_500 * MS] == 0
    row = measure(done)
    assert row["lost_writes"] == 0  # merged is kept
    assert row["conflicts"] == 1  # 1 and 2; 3 was accepted on a node that had both
    assert row["convergence_us"] == S + 5 - 500 * MS


def test_two_replicas_with_both_siblings_agree_though_one_with_fewer_does_not() -> None:
    story = [write(1, 0, 0, 10), write(2, 1, 0, 10)]
    versions = [applied(5, 0, 1, 1), applied(5, 1, 2, 2), applied(S, 0, 2, 2), applied(S, 1, 1, 1), applied(S, 2, 2, 2)]
    assert divergence_curve(record(story, versions, end=2 * S))[-1].differing == 2


def test_a_long_trial_is_sampled_more_coarsely_and_always_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sampling(250 * MS) == (SAMPLE_US, [0, 100 * MS, 200 * MS, 250 * MS])
    monkeypatch.setattr(divergence_module, "MOST_SAMPLES", 2)
    assert sampling(500 * MS) == (300 * MS, [0, 300 * MS, 500 * MS])

def test_two_replicas_agree_from_the_instant_at_which_a_branch_is_discarded() -> None:
    story = [write(1, 0, 0, 10), write(2, 0, S, None)]
    branch = [applied(S + 5, 0, 2, 2, 1), applied(5 * S, 0, 2, 2, kind="discard")]
    points = divergence_curve(record(story, everywhere(5, 1, 1) + branch))
    assert {point.at // 100_000 for point in points if point.differing} == set(range(12, 50))  # 1.2 s, the grace, to 5 s


# ---- convergence ----------------------------------------------------------------------------------------------------------------------------------
HEAL = 10 * S


def after_heal(*versions: Version, nodes: int = 3, faults: tuple[FaultWindow, ...] = ()) -> dict[str, Any]:
    """2 was acknowledged by nodes 1 and 2 in a cut that healed at 10 s; 3 only after it."""
    story = [write(1, 0, 0, 10), write(2, 1, 5 * S, 5 * S + 10), write(3, 1, 11 * S, 11 * S + 10)]
    base = [*everywhere(5, 1, 1), applied(5 * S, 1, 2, 2, 1), applied(5 * S, 2, 2, 2, 1)]
    return measure(record(story, base + list(versions), [cut(S, HEAL, (0,), (1, 2)), *faults], nodes=nodes))


@pytest.mark.parametrize(("what", "versions", "us"), [
    ("node 0 gets 2, one second after heal", (applied(HEAL + S, 0, 2, 2, 1),), S),
    ("node 0 gets 3, which replaces 2", (applied(HEAL + 2 * S, 0, 3, 3, 1),), 2 * S),
    ("before heal already", (applied(7 * S, 0, 2, 2, 1),), 0),
    ("the trial ends first", (), None),
    ("late is as good: it is in its order", (applied(HEAL + S, 0, 3, 3, 1), applied(HEAL + 2 * S, 0, 2, 2, kind="late")), S),
    ("it had it, dropped it, and got it again", (
        applied(8 * S, 0, 2, 2, 1), applied(HEAL + S, 0, 2, 2, kind="discard"), applied(HEAL + 4 * S, 0, 2, 2, 1)), 4 * S),
])
def test_convergence_is_from_heal_to_the_last_replica(what: str, versions: tuple[Version, ...], us: int | None) -> None:
    row = after_heal(*versions)
    assert (row["convergence_us"], row["convergence_censored"]) == (us, us is None), what


def test_convergence_does_not_wait_for_a_lost_write_even_if_the_store_would_have_ordered_it_last() -> None:
    story = [write(1, 0, 0, 10), write(2, 0, 5 * S, 5 * S + 10)]
    versions = [*everywhere(5, 1, 1), applied(5 * S, 0, 2, 9, 1), applied(HEAL + S, 0, 2, 9, kind="discard")]
    row = measure(record(story, versions, [cut(S, HEAL, (0,), (1, 2))]))
    assert (row["lost_writes"], row["convergence_us"], row["convergence_censored"]) == (1, 0, False)


def test_convergence_of_siblings_waits_for_each_of_them_at_every_replica() -> None:
    story = [write(1, 0, 2 * S, 2 * S + 10), write(2, 1, 2 * S, 2 * S + 10)]
    versions = [applied(2 * S, 0, 1, 1), applied(2 * S, 1, 2, 2), applied(HEAL + S, 0, 2, 2), applied(HEAL + 3 * S, 1, 1, 1)]
    assert measure(record(story, versions, [cut(S, HEAL, (0,), (1,))], nodes=2))["convergence_us"] == 3 * S
    back = [*versions, applied(HEAL + 4 * S, 1, 2, 2, kind="discard"), applied(HEAL + 5 * S, 1, 2, 2)]
    assert measure(record(story, back, [cut(S, HEAL, (0,), (1,))], nodes=2))["convergence_us"] == 5 * S


def test_a_replica_that_is_down_at_the_end_is_not_waited_for() -> None:
    assert after_heal(faults=(crash(S, HEAL, 0),))["convergence_censored"] is True
    down = after_heal(applied(HEAL + S, 0, 2, 2, 1), faults=(FaultWindow(kind="slow", at=S, until=2 * S, nodes=(0,)),))
    assert down["convergence_us"] == S


def test_without_versions_faults_or_healing_there_is_no_convergence() -> None:
    for one in (record([write(1, 0, 0, 10)], None, [cut(S, HEAL, (0,), (1, 2))]), record([write(1, 0, 0, 10)], everywhere(5, 1, 1))):
        row = measure(one)
        assert (row["convergence_us"], row["convergence_censored"]) == (None, None)
    assert measure(record([write(1, 0, 0, 10)], None))["lost_writes"] is None


# ---- cost -----------------------------------------------------------------------------------------------------------------------------------------
def test_cost_is_by_completed_operation() -> None:
    story = [write(1, 0, 0, 10), write(2, 0, 20, 30), write(3, 0, 40, None)]
    row = measure(record(story, [], counters={"messages": 9, "bytes": 901, "messages_cut": 3}))
    assert (row["messages"], row["messages_per_op"], row["bytes_per_op"], row["messages_cut"], row["operations"]) == (9, 4.5, 450.5, 3, 3)
    row = measure(record([], [], counters={"messages": 9, "bytes": 901}))
    assert (row["messages_per_op"], row["messages_cut"], row["operations"]) == (None, None, 0)


@pytest.mark.parametrize(("faults", "said"), [
    ([cut(S, 2 * S, (0,), (1, 2), dropped=4)], False), ([cut(S, 2 * S, (0,), (1, 2), dropped=0)], True), ([], None),
    ([cut(S, 2 * S, (0,), (1, 2), dropped=4), cut(3 * S, 4 * S, (0,), (1, 2))], True),
])
def test_a_fault_that_touched_nothing_is_said(faults: list[FaultWindow], said: bool | None) -> None:
    assert measure(record([write(1, 0, 0, 10)], [], faults, counters={"messages": 1, "bytes": 1}))["fault_touched_nothing"] is said


# ---- names ------------------------------------------------------------------------------------------------------------------------------------------
NAMES = """availability cap_available availability_worst_node latency_p50_us latency_p99_us unanswered_share failover_read_us failover_write_us
gap_read_us gap_write_us recovery_first_read_us recovery_first_write_us recovery_last_us linearizable stale_reads stale_share staleness_max_us
versions_behind_max gamma_us read_your_writes_violations monotonic_reads_violations monotonic_writes_violations writes_follow_reads_violations
lost_writes lost_writes_provable conflicts divergence_area divergence_final convergence_us messages messages_per_op bytes_per_op messages_cut operations"""


def test_every_name_of_the_list_is_a_column_of_every_row_in_the_same_order() -> None:
    story = [write(1, 0, 0, 10), write(2, 0, S, S + 10)]
    faulty = measure(record(story, everywhere(5, 1, 1), [cut(S, HEAL, (0,), (1, 2))]))
    healthy = measure(record(story, None))
    assert list(faulty) == list(healthy)
    assert set(NAMES.split()) <= set(faulty) and {"availability_during_minority_write", "convergence_censored", "fault_touched_nothing"} <= set(faulty)
    assert all(value is None or type(value) in (int, float, str, bool) for value in faulty.values())
