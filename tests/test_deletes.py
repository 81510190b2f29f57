"""Deletes: what clients ask, what a history of them means, what the measures say where a read that finds nothing does not tell why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from test_check_linearizable import op as operation
from test_metrics_versions import S, applied, cut, everywhere, record
from test_metrics_versions import write as told

from capray.checkers import MODELS
from capray.checkers.generate import random_history
from capray.checkers.linearizable import linearizable
from capray.checkers.measures import lost_writes_provable, stale_reads
from capray.client import Client
from capray.cluster import Cluster
from capray.errors import InputError
from capray.history import read_history, write_history
from capray.measures.holdings import holdings
from capray.metrics import measure
from capray.policies import POLICIES
from capray.record import Operation, Version
from capray.scenario import from_dict
from capray.streams import Stream
from capray.trial import simulate
from capray.workload import Workload


def delete(invoke: int, complete: int | None, process: int = 9) -> Operation:
    return operation("delete", None, invoke, complete, process=process, key="x")


def write(value: int, invoke: int, complete: int | None) -> Operation:
    return operation("write", value, invoke, complete, process=1, key="x")


def read(result: Any, invoke: int, complete: int) -> Operation:
    return operation("read", None, invoke, complete, result, process=3, key="x")


# ---- what clients ask ---------------------------------------------------------------------------------------------------------------------
def test_deletes_come_in_their_share_of_what_is_not_a_read_and_without_them_nothing_changes() -> None:
    def asked(**share: float) -> list[tuple[str, str, Any]]:
        client = Client(Workload(read_share=0.5, **share), 1, 3, 7)
        return [client.next_request() for _ in range(4000)]

    found = [f for f, _, _ in asked(delete_share=0.25)]
    assert found.count("delete") / 4000 == pytest.approx(0.125, abs=0.015)
    assert all(value is None for f, _, value in asked(delete_share=0.25) if f == "delete")
    assert asked() == asked(delete_share=0) and "delete" not in {f for f, _, _ in asked()}


def test_a_sets_client_removes_what_its_last_read_of_that_key_found_and_adds_where_it_found_nothing() -> None:
    client = Client(Workload(read_share=0, delete_share=1, keys=1), 0, 1, 3, "remove")
    assert client.next_request() == ("write", "k0", 1)
    request = client.begin(0, "read", "k0", None)
    client.answer(1, request, "ok", [7, 8], None)
    assert {client.next_request() for _ in range(40)} == {("remove", "k0", 7), ("remove", "k0", 8)}


def test_a_counters_clients_write_amounts_below_0_all_different() -> None:
    client = Client(Workload(read_share=0, delete_share=0.5, keys=1), 1, 3, 3, "subtract")
    asked = [client.next_request() for _ in range(100)]
    assert {f for f, _, _ in asked} == {"write"} and [abs(value) for _, _, value in asked] == [2 + 3 * i for i in range(100)]
    assert 30 < sum(value < 0 for _, _, value in asked) < 70


DELETE = {"duration": "8s", "quiet": "6s", "workload": {"rate": 12, "keys": 4, "delete_share": 0.4}, "faults": [{"shape": "0|1,2", "at": "2s", "for": "2s"}]}


@pytest.mark.parametrize("policy", POLICIES)
def test_who_cannot_delete_says_so(policy: str) -> None:
    """The paper of dynamo has get and put, abd and write-all are registers, and a client of zookeeper's here sets znodes that are there."""
    if policy in ("rdbms", "postgres", "redis", "etcd", "cassandra"):
        assert from_dict({**DELETE, "policy": policy}).policy_class.deletes(None) == "delete"
        return
    with pytest.raises(InputError, match=f"workload.delete_share: 0.4 is not accepted; it takes 0: {policy}'s clients, as set, cannot delete"):
        from_dict({**DELETE, "policy": policy})


@pytest.mark.parametrize(("policy", "settings"), [
    ("rdbms", {}), ("postgres", {"standby": 1}), ("redis", {}), ("etcd", {}),
    ("cassandra", {"read_consistency": "QUORUM", "write_consistency": "QUORUM"}), ("cassandra", {"read_consistency": "SERIAL", "write_consistency": "SERIAL"}),
])
def test_a_key_that_was_deleted_has_no_value_until_it_is_written_again(policy: str, settings: dict[str, Any]) -> None:
    record = simulate(from_dict({**DELETE, "policy": policy, "settings": settings, "nodes": 3}), 1)
    row = measure(record)
    deleted = [op for op in record.history if op.f == "delete" and op.type == "ok"]
    assert len(deleted) > 30 and sum(op.f == "read" and op.result is None for op in record.history) > 20
    assert row["linearizable"] == "valid" and row["divergence_final"] in (0, None) and not row["convergence_censored"]
    assert (row["stale_reads"], row["stale_reads_final"], row["lost_writes"], row["lost_writes_provable"]) == (0, 0, 0, 0)
    assert row["gamma_us"] is row["read_your_writes_violations"] is row["stale_reads_ordered"] is None


def test_by_hand_a_key_is_deleted_and_an_element_removed() -> None:
    cluster = Cluster("etcd", nodes=3)
    cluster.advance("5s")
    assert cluster.write(0, "x", 1).type == cluster.delete(1, "x").type == "ok" and cluster.read(2, "x").result is None
    with pytest.raises(InputError, match="element: 1 is not accepted; it takes None"):
        cluster.delete(0, "x", 1)
    sets = Cluster("crdt", nodes=2, type="or-set")
    sets.write(0, "x", 1)
    sets.write(0, "x", 2)
    assert sets.delete(0, "x", 1).type == "ok" and sets.read(0, "x").result == [2]
    for cluster in (Cluster("dynamo", nodes=3), Cluster("crdt", nodes=2, type="pn-counter")):
        with pytest.raises(InputError, match="cannot delete"):
            cluster.delete(0, "x")


# ---- what a history of them means -----------------------------------------------------------------------------------------------------------
def test_a_delete_is_a_write_of_null() -> None:
    """On random histories: the verdict is that of the same history with writes of null."""
    verdicts = []
    for seed in range(150):
        ops = random_history(MODELS["register"], seed)
        nulls = [msgspec.structs.replace(op, value=None if op.value == 1 else op.value, result=None if op.result == 1 else op.result) for op in ops]
        deletes = [msgspec.structs.replace(op, f="delete") if op.f == "write" and op.value is None else op for op in nulls]
        verdict = linearizable(deletes, MODELS["register"]).status
        assert verdict == linearizable(nulls, MODELS["register"]).status
        verdicts.append(verdict)
    assert {"valid", "invalid"} == set(verdicts)


@pytest.mark.parametrize("name", ["h.jsonl", "h.edn"])
def test_it_goes_through_a_file_and_back(name: str, tmp_path: Path) -> None:
    ops = [write(1, 0, 10), delete(20, 30), delete(40, None), read(None, 50, 60)]
    write_history(tmp_path / name, ops)
    assert read_history(tmp_path / name) == ops


def by_definition(ops: list[Operation]) -> dict[int, int]:
    """Position -> age of each read that is stale whatever it is of."""
    never, ever = -(1 << 62), 1 << 62
    ages = {}
    for i, op in enumerate(ops):
        if op.f != "read" or op.type != "ok":
            continue
        could = [o for o in ops if o.f in ("write", "delete") and o.type != "fail" and o.value == op.result and o.invoke <= (op.complete or 0)]
        ends = [ever if o.complete is None else o.complete for o in could if o.f == "delete" or op.result is not None] + [never] * (op.result is None)
        over = [[o.complete for o in ops if o.f != "read" and o.type == "ok" and o.invoke > end and (o.complete or 0) < op.invoke] for end in ends]
        if over and all(over):
            ages[i] = min(op.invoke - min(done) for done in over)  # type: ignore[type-var]
    return ages


def test_a_read_that_finds_nothing_is_stale_if_it_is_whatever_delete_it_is_of() -> None:
    positive = 0
    for seed in range(300):
        stream, ops = Stream(seed, "deletes"), []
        for number in range(14):
            at, long, f = stream.below(60), stream.below(12), ("read", "write", "delete", "read")[stream.below(4)]
            done = None if f != "read" and stream.below(6) == 0 else at + long
            result = None if f != "read" or stream.below(3) == 0 else 1 + stream.below(14)
            ops.append(Operation(process=number, f=f, key="x", value=number + 1 if f == "write" else None, result=result, invoke=at, complete=done,
                                 type="info" if done is None else "ok"))
        known = {op.value for op in ops if op.f == "write"}
        begun = {op.value: op.invoke for op in ops if op.f == "write"}
        ops = [op for op in ops if op.f != "read" or op.result is None or (op.result in known and begun[op.result] <= (op.complete or 0))]
        found = stale_reads(ops)
        assert found is not None and {one.position: one.age_us for one in found} == by_definition(ops), seed
        positive += sum(ops[one.position].result is None for one in found)
    assert positive > 50


def test_a_delete_is_provably_lost_where_what_it_deleted_is_read_at_last() -> None:
    story = [write(1, 0, 10), delete(20, 30)]
    assert lost_writes_provable([*story, read(1, 50, 60)]) == 1
    assert lost_writes_provable([*story, read(None, 50, 60)]) == 0
    assert lost_writes_provable([write(1, 0, 10), delete(20, None), write(2, 40, 45), read(None, 50, 60)]) == 0  # it may be of the unknown delete
    assert lost_writes_provable([write(1, 0, 10), delete(20, 30), write(2, 40, 45), read(None, 50, 60)]) == 1


# ---- what the replicas hold -----------------------------------------------------------------------------------------------------------------
def tombstone(at: int, node: int, order: int, *replaced: int, kind: Any = "apply") -> Version:
    return Version(at, node, "x", None, (order,), kind, replaced)


def test_who_missed_a_delete_differs_and_what_was_deleted_is_not_lost() -> None:
    story = [told(1, 0, 0, 10)]
    deleted = [tombstone(2 * S, node, 2, 1) for node in (0, 1)]
    row = measure(record(story, [*everywhere(5, 1, 1), *deleted]))
    assert row["divergence_final"] == pytest.approx(2 / 3) and row["lost_writes"] == 0
    row = measure(record(story, [*everywhere(5, 1, 1), *deleted, tombstone(9 * S, 2, 2, 1)]))
    assert row["divergence_final"] == 0 and row["conflicts"] == 0


def test_a_write_replaces_the_tombstone_that_was_newest() -> None:
    """Two versions that stand side by side would be siblings, and the order partial."""
    story = [told(1, 0, 0, 10), told(3, 0, 3 * S, 3 * S + 10)]
    rewritten = [Version(3 * S + 5, node, "x", 3, (3,), "apply", (None,)) for node in range(3)]
    row = measure(record(story, [*everywhere(5, 1, 1), *[tombstone(2 * S, node, 2, 1) for node in range(3)], *rewritten]))
    assert (row["divergence_final"], row["lost_writes"], row["stale_reads_ordered"]) == (0, 0, None)
    assert not measure(record(story, rewritten + everywhere(5, 1, 1)))["lost_writes"]


def test_a_purged_tombstone_leaves_nothing_and_what_comes_back_differs_again() -> None:
    story, faults = [told(1, 0, 0, 10)], [cut(1 * S, 2 * S, (0, 1), (2,))]
    deleted = [tombstone(3 * S, node, 2, 1) for node in range(3)]
    purged = [tombstone(6 * S, node, 2, kind="purge") for node in range(3)]
    row = measure(record(story, everywhere(5, 1, 1) + deleted + purged, faults))
    assert (row["divergence_final"], row["lost_writes"], row["convergence_censored"]) == (0, 0, False)
    back = [applied(9 * S, 0, 1, 1)]
    assert measure(record(story, everywhere(5, 1, 1) + deleted + purged + back, faults))["divergence_final"] == pytest.approx(2 / 3)
    found = holdings(record(story, everywhere(5, 1, 1) + deleted + purged + back, faults))
    assert found is not None and not found["x"].siblings  # it does not stand beside the tombstone
    everyone = [applied(9 * S, node, 1, 1) for node in range(3)]
    assert measure(record(story, everywhere(5, 1, 1) + deleted + purged + everyone, faults))["divergence_final"] == 0
