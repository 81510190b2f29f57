"""A whole trial: what it leaves, that it repeats, and that a person can stop and go on."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from capray.faults import Fault
from capray.heap import push
from capray.metrics import measure
from capray.policies.rdbms import Rdbms
from capray.record import Record
from capray.scenario import Scenario
from capray.trial import STOP, Trial, simulate
from capray.workload import Workload

S = 1_000_000


def cut(**fields: object) -> Scenario:
    given = {"policy": "abd", "faults": (Fault(shape="0,1|2,3,4", at_us=5 * S, for_us=5 * S),), "duration_us": 15 * S, **fields}
    return Scenario(**given).resolved()  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def record() -> Record:
    return simulate(cut(), 1)


def test_a_majority_register_loses_its_minority_and_nothing_else(record: Record) -> None:
    during = [o for o in record.history if 5 * S <= o.invoke and o.invoke + S < 10 * S]
    assert {o.type for o in during if o.node in (2, 3, 4)} == {"ok"}
    assert {o.type for o in during if o.node in (0, 1)} == {"info", "fail"}
    assert all(o.type == "ok" for o in record.history if o.invoke < 3 * S or o.invoke > 12 * S)


def test_every_operation_is_in_the_history_once_in_order(record: Record) -> None:
    assert [o.invoke for o in record.history] == sorted(o.invoke for o in record.history)
    assert len({(o.process, o.invoke, o.key) for o in record.history}) == len(record.history)
    by_process: dict[int, list[tuple[int, int | None]]] = {}
    for o in record.history:
        assert o.process % 5 == o.node and o.deadline == o.invoke + S == (o.intended or 0) + S
        by_process.setdefault(o.process, []).append((o.invoke, o.complete))
    for spans in by_process.values():  # one at a time, and nothing after an unknown outcome
        assert all(end is not None and end <= start for (_, end), (start, _) in pairwise(spans))


def test_it_ends_with_every_node_reading_every_key(record: Record) -> None:
    final = [o for o in record.history if o.final]
    assert Counter((o.node, o.key) for o in final) == {(node, f"k{k}"): 1 for node in range(5) for k in range(5)}
    assert {o.invoke for o in final} == {20 * S} and record.end == 21 * S
    for key in {o.key for o in final}:
        assert len({o.result for o in final if o.key == key and o.type == "ok"}) == 1
    assert max(o.invoke for o in record.history if not o.final) < 15 * S


def test_it_has_the_fault_as_it_happened_and_what_it_touched(record: Record) -> None:
    (window,) = record.faults
    assert (window.kind, window.at, window.until, window.groups) == ("partition", 5 * S, 10 * S, ((0, 1), (2, 3, 4)))
    assert window.touched["delayed"] >= record.counters["messages_cut"] > 100 and not window.touched_nothing


def test_versions_are_in_order_and_of_written_values(record: Record) -> None:
    assert record.versions and [v.at for v in record.versions] == sorted(v.at for v in record.versions)
    written = {(o.key, o.value) for o in record.history if o.f == "write"}
    assert {(v.key, v.value) for v in record.versions} <= written
    assert record.placement == {f"k{k}": (0, 1, 2, 3, 4) for k in range(5)}


def test_the_record_survives_its_file_form(record: Record) -> None:
    there = msgspec.msgpack.decode(msgspec.msgpack.encode(record), type=Record)
    assert there.digest() == record.digest()


@pytest.mark.parametrize("cut_mode", ["tcp", "drop"])
def test_the_trace_shows_and_decides_nothing(cut_mode: str) -> None:
    plain, traced = simulate(cut(cut_mode=cut_mode), 1), simulate(cut(cut_mode=cut_mode, trace_us=(4_900_000, 5_200_000)), 1)
    assert (traced.history, traced.faults, traced.counters) == (plain.history, plain.faults, plain.counters)
    assert {event.label for event in traced.trace} == {"Ask", "Newest", "Store", "Stored"}
    stopped = [event for event in traced.trace if event.arrived is None or event.arrived > 10 * S]
    assert stopped and {event.dropped for event in stopped} == ({"cut"} if cut_mode == "drop" else {None})


def test_stopping_on_the_way_and_looking_changes_nothing(record: Record) -> None:
    trial = Trial(cut(), 1)
    for until in (1, 4 * S, 5 * S, 5 * S + 1, 9_999_999, 12 * S):
        trial.advance(until)
        seen = trial.record(until)
        assert seen.end == until and all(o.invoke <= until for o in seen.history)
    trial.advance(trial.scenario.end_us)
    assert trial.record().digest() == record.digest()


def test_running_event_by_event_changes_nothing(record: Record) -> None:
    trial, end = Trial(cut(), 1), cut().end_us
    while (due := trial.soonest()) is not None and due <= end:
        event = trial.take()
        assert event[0] == due
        if event[1] < 0:
            trial.network.happen(event)
        else:
            trial.nodes[event[1]].handle(event)
    assert trial.record().digest() == record.digest()


def test_a_run_that_a_policy_ended_can_be_gone_on_with(record: Record) -> None:
    """The error leaves the end of that run among the events to come; it ends no later run."""
    trial = Trial(cut(), 1)
    trial.advance(S)
    push(trial.own, (2 * S, STOP))
    trial.advance(trial.scenario.end_us)
    assert trial.record().digest() == record.digest()


def test_under_one_seed_policies_and_durations_meet_the_same_requests() -> None:
    def asked(scenario: Scenario) -> list[tuple[object, ...]]:
        return [(o.invoke, o.node, o.f, o.key, o.value) for o in simulate(scenario, 3).history if o.invoke < 4 * S]

    plain = asked(cut())
    assert plain == asked(cut(policy="write-all")) == asked(cut(faults=(Fault(at_us=5 * S, for_us=9 * S),))) == asked(cut(link="wan", disk="disk"))
    assert plain != [(o.invoke, o.node, o.f, o.key, o.value) for o in simulate(cut(), 4).history if o.invoke < 4 * S]


def test_a_larger_cluster_asks_the_same_of_the_nodes_that_both_have() -> None:
    def asked(nodes: int) -> list[tuple[object, ...]]:
        return [(o.invoke, o.f, o.key) for o in simulate(cut(nodes=nodes, faults=()), 3).history if o.node == 1 and not o.final]

    assert asked(3) == asked(5)


def test_a_scenario_that_names_a_preset_need_not_be_resolved_first() -> None:
    plain = Scenario(policy="abd", nodes=3, duration_us=S, quiet_us=0)
    assert simulate(plain, 1).digest() == simulate(plain.resolved(), 1).digest()


def test_without_requests_there_are_only_the_final_reads() -> None:
    record = simulate(cut(workload=Workload(rate=0, keys=2)), 1)
    assert [(o.f, o.final, o.result) for o in record.history] == [("read", True, None)] * 10


def test_a_cut_that_nobody_spoke_across_says_that_it_touched_nothing() -> None:
    record = simulate(cut(workload=Workload(rate=0)), 1)
    assert record.faults[0].touched_nothing and record.counters["messages_cut"] == 0


# ---- what a power failure takes -----------------------------------------------------------------------------------------------------------
class Forgetful(Rdbms):
    """Acknowledges what its disk does not have."""

    def persist(self, record: Any, sync: bool = True) -> None:
        super().persist(record, False)


@pytest.mark.parametrize(("policy", "keeps"), [("rdbms", True), ("test_trial:Forgetful", False)])
def test_what_is_gone_with_the_whole_journal_is_lost_though_nothing_was_announced(policy: str, keeps: bool) -> None:
    left = simulate(cut(policy=policy, nodes=1, faults=(Fault(kind="crash-host", nodes=(0,), at_us=3 * S, for_us=S),), duration_us=6 * S), 1)
    acknowledged = sum(o.f == "write" and o.type == "ok" and o.invoke < 3 * S for o in left.history)
    assert acknowledged > 20 and measure(left)["lost_writes"] == (0 if keeps else acknowledged)
