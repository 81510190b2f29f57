"""The `crdt` policy, a sentence of its papers a test; engines; storms."""

from __future__ import annotations

from typing import Any

import pytest

from capray.faults import Fault
from capray.metrics import measure
from capray.policies.crdt.replica import LATTICES, Crdt, CrdtSettings
from capray.record import Record
from capray.scenario import Scenario
from capray.streams import Stream
from capray.testing import FakeLink
from capray.trial import simulate
from capray.windows import simulate_in_windows
from capray.workload import Workload

S = 1_000_000
CRDT = "capray.policies.crdt.replica:Crdt"
by_type = pytest.mark.parametrize("type", list(LATTICES))
by_replication = pytest.mark.parametrize("replication", ["delta", "state"])


def cluster(nodes: int = 3, **settings: Any) -> FakeLink:
    return FakeLink(Crdt, nodes, CrdtSettings(**settings))


@by_type
@by_replication
def test_replicas_that_received_the_same_updates_have_equal_states(type: Any, replication: Any) -> None:
    """"Strong eventual consistency: correct replicas that have delivered the same updates have equivalent state.\""""
    link = cluster(type=type, replication=replication)
    link.cut([[0], [1, 2]])
    for node in range(3):
        assert link.wait(link.request(node, "write", "k", 10 + node)).outcome == "ok"
    link.run_for(2 * S)
    apart = link.values("k")
    assert apart[0] != apart[1] == apart[2]
    link.heal()
    link.run_for(5 * S)
    assert link.values("k")[0] == link.values("k")[1] == link.values("k")[2]
    expected = {"g-counter": 33, "pn-counter": 33, "or-set": [10, 11, 12]}
    assert link.values("k")[0] == expected.get(type, link.values("k")[0])


@by_type
def test_an_update_executes_at_one_replica_without_synchronisation(type: Any) -> None:
    """"An update occurs entirely at the source, without any synchronisation": alone in the world a node answers at the cost of one sync."""
    link = cluster(type=type)
    link.cut([[0], [1], [2]])
    begun = link.now
    assert link.wait(link.request(0, "write", "k", 7)).at - begun <= 200
    assert link.wait(link.request(0, "read", "k")).result == ([7] if type == "or-set" else 7)
    assert link.wait(link.request(1, "read", "k")).result is None


def test_a_register_that_was_written_on_both_sides_returns_both_values() -> None:
    link = cluster(type="mv-register")
    link.cut([[0], [1, 2]])
    link.wait(link.request(0, "write", "k", "a"))
    link.wait(link.request(1, "write", "k", "b"))
    link.heal()
    link.run_for(3 * S)
    assert sorted(link.wait(link.request(2, "read", "k")).result) == ["a", "b"]
    link.wait(link.request(2, "write", "k", "c"))
    link.run_for(3 * S)
    assert link.values("k") == ["c", "c", "c"]


def test_counters_take_numbers_only_and_a_set_removes() -> None:
    link = cluster(type="g-counter")
    for value in ("x", -1, True, 1.5):
        assert link.wait(link.request(0, "write", "k", value)).outcome == "fail"
    link = cluster(type="pn-counter")
    for value in (5, -7):
        link.wait(link.request(0, "write", "k", value))
    assert link.values("k")[0] == -2
    link = cluster(type="or-set")
    link.wait(link.request(0, "write", "k", "x"))
    link.run_for(3 * S)
    assert link.wait(link.request(1, "remove", "k", "x")).outcome == "ok"
    link.run_for(3 * S)
    assert link.values("k") == [[], [], []]


def test_only_what_a_peer_has_not_acknowledged_is_sent() -> None:
    """Algorithm 2: "if A(j) < c then send": once all have all, gossip is silent; by state it never is."""
    for replication, silent in (("delta", True), ("state", False)):
        link = cluster(replication=replication)
        link.wait(link.request(0, "write", "k", 1))
        link.run_for(5 * S)
        before = len(link.log)
        link.run_for(5 * S)
        assert (len([line for line in link.log[before:] if "Update" in line]) == 0) is silent


def test_a_peer_that_lacks_dropped_deltas_gets_the_whole_state() -> None:
    """"If min dom(D) > A(j) then d = X": the buffer holds two deltas, the peer missed six."""
    link = cluster(nodes=2, delta_buffer=2)
    link.cut([[0], [1]])
    for i in range(6):
        link.wait(link.request(0, "write", f"k{i}", i))
    assert len(link.replica(0).deltas) == 2
    link.heal()
    link.run_for(3 * S)
    assert [link.values(f"k{i}")[1] for i in range(6)] == list(range(6))


@pytest.mark.parametrize("host", [False, True])
@by_type
def test_durable_state_survives_a_crash_and_numbers_are_not_given_twice(type: Any, host: bool) -> None:
    """"The durable state is (X, c)"."""
    link = cluster(type=type)
    link.cut([[0], [1, 2]])
    link.wait(link.request(0, "write", "k", 3))
    link.crash(0, host=host)
    link.restart(0)
    link.wait(link.request(0, "write", "k", 4))
    link.heal()
    link.run_for(5 * S)
    expected = {"g-counter": 7, "pn-counter": 7, "or-set": [3, 4]}.get(type, 4)
    assert link.values("k") == [expected] * 3


# ---- in the engine ------------------------------------------------------------------------------------------------------------------


def storm(number: int, nodes: int = 5) -> tuple[Fault, ...]:
    """Random faults of all kinds between 1 and 8 s."""
    hat = Stream(number, "storm")
    faults = []
    for _ in range(5):
        kind = ("partition", "partition", "crash-process", "crash-host", "pause", "slow", "skew")[hat.below(7)]
        shape = ("halves", "isolate", "one-way", "ring", "bridge", "flapping", "0,1|2,3,4")[hat.below(7)]
        some = () if kind == "partition" else (hat.below(nodes),)
        faults.append(Fault(kind=kind, at_us=S + hat.below(4 * S), for_us=200_000 + hat.below(3 * S), shape=shape, nodes=some,  # type: ignore[arg-type]
                            period_us=300_000, factor=10, service_us=300, offset_us=hat.below(400_000) - 200_000))
    return tuple(faults)


def scenario(policy: str, number: int, faults: tuple[Fault, ...] | None = None, quiet_us: int = 8 * S, **settings: Any) -> Scenario:
    return Scenario(policy=policy, settings=settings, nodes=5, faults=storm(number) if faults is None else faults, duration_us=8 * S, quiet_us=quiet_us,
                    workload=Workload(rate=12, keys=4)).resolved()


@by_type
@by_replication
def test_both_engines_leave_the_same_bytes(type: Any, replication: Any) -> None:
    one = scenario(CRDT, 3, quiet_us=2 * S, type=type, replication=replication)
    assert simulate(one, 3).digest() == simulate_in_windows(one, 3).digest()


def agreed(record: Record) -> bool:
    """Whether every node's final read of a key was the same."""
    seen: dict[str | None, set[str]] = {}
    for op in record.history:
        if op.final:
            seen.setdefault(op.key, set()).add(f"{op.type} {op.result}")
    return all(len(answers) == 1 for answers in seen.values())


def sound(record: Record) -> bool:
    """No acknowledged write lost, all final reads agree, and every node that is up answers."""
    row = measure(record)
    refused = [op for op in record.history if op.type != "ok" and op.error not in ("connection refused", "host down", "connection reset", "timeout")]
    return row["lost_writes"] == 0 and agreed(record) and not refused


@by_type
@by_replication
def test_storms_end_in_agreement_and_lose_nothing(type: Any, replication: Any) -> None:
    for seed in range(2 if type in ("or-set", "lww-register") else 1):
        assert sound(simulate(scenario(CRDT, seed, type=type, replication=replication), seed)), seed


@pytest.mark.parametrize("seed", [1, 2])
def test_a_counters_increments_are_all_told_though_others_pass_them_on(seed: int) -> None:
    """What comes back from a peer is not passed on again: it would stand between a node's own increments in the buffer, and break their line."""
    faults = (Fault(shape="1|0", at_us=2 * S, for_us=700_000), Fault(kind="pause", nodes=(0, 1), at_us=2_300_000, for_us=S))
    one = Scenario(policy=CRDT, settings={"type": "g-counter"}, nodes=2, faults=faults, duration_us=5 * S, quiet_us=4 * S, workload=Workload(rate=12, keys=1))
    record = simulate(one.resolved(), seed)
    assert sound(record) and measure(record)["divergence_final"] == 0


def test_cut_as_one_likes_availability_is_one() -> None:
    """Always available: with nodes that are up, links alone take nothing away."""
    cuts = (Fault(at_us=S, for_us=3 * S, shape="isolate"), Fault(at_us=2 * S, for_us=4 * S, shape="0|1,2|3,4"), Fault(at_us=S, for_us=5 * S, shape="ring"))
    for type in LATTICES:
        row = measure(simulate(scenario(CRDT, 0, cuts, type=type), 1))
        assert row["availability"] == 1 and row["cap_available"] is True
        assert row["divergence_final"] == 0 and row["convergence_censored"] is False
