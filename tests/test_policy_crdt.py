"""The `crdt` policy, a sentence of its papers a test; engines; storms."""

from __future__ import annotations

from typing import Any

import pytest

from capray.faults import Fault
from capray.measures.included import seen_by_replicas
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
    """SSS 2011, 2.2, strong convergence: "Correct replicas that have delivered the same updates have equivalent state.\""""
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
    """RR-7506, 1: "As a CRDT requires no synchronisation, an update executes immediately, unaffected by network latency, faults, or disconnection": alone
    in the world a node answers at the cost of one sync."""
    link = cluster(type=type)
    link.cut([[0], [1], [2]])
    begun = link.now
    assert link.wait(link.request(0, "write", "k", 7)).at - begun <= 200
    assert link.wait(link.request(0, "read", "k")).result == ([7] if type == "or-set" else 7)
    assert link.wait(link.request(1, "read", "k")).result is None


def test_a_register_that_was_written_on_both_sides_returns_both_values() -> None:
    """RR-7506, 3.2, of concurrent assignments: "both are retained (MV-Register, Section 3.2.2)"; 3.2.2: "Clients can later reduce
    multiple values to a single one, by a new assignment.\""""
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
    """Almeida 2018, 6.1: "A delta message is only sent if the counter c_i has advanced past the next delta expected by node j, i.e., if A_i(j) < c_i":
    once all have all, gossip is silent; by state it never is."""
    for replication, silent in (("delta", True), ("state", False)):
        link = cluster(replication=replication)
        link.wait(link.request(0, "write", "k", 1))
        link.run_for(5 * S)
        before = len(link.log)
        link.run_for(5 * S)
        assert (len([line for line in link.log[before:] if "Update" in line]) == 0) is silent


def test_a_peer_that_lacks_dropped_deltas_gets_the_whole_state() -> None:
    """Almeida 2018, 6.1: a node "sends the entire state in two cases: (1) if the sequence of deltas D_i is empty, or (2) if j is expecting from i a delta that
    was already removed from D_i": the buffer holds two deltas, the peer missed six."""
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
    """Almeida 2018, 6.1: "Like the delta-CRDT state X_i, the counter c_i is also kept in a durable storage."  """
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


# ---- what the papers ask of links and processes, and what they promise ------------------------------------------------------------------
class Unreliable(FakeLink):
    """Loses half of all datagrams, and lets those that pass overtake each other."""

    def latency(self, src: int, dst: int, message: Any) -> int:
        return 100 + self._hosts[src].stream.below(50_000)

    def loses(self, src: int, dst: int, message: Any) -> bool:
        return bool(self._hosts[dst].stream.below(2))


@by_type
@by_replication
def test_messages_may_be_lost_received_out_of_order_or_multiple_times(type: Any, replication: Any) -> None:
    """RR-7506, 2.3.1: "Since merge is idempotent and commutative ..., messages may be lost, received out of order, or multiple times, as long as new state
    eventually reaches all replicas, either directly or indirectly via successive merges"; Almeida 2018: "over unreliable communication channels"."""
    link = Unreliable(Crdt, 3, CrdtSettings(type=type, replication=replication))
    for i in range(9):
        link.wait(link.request(i % 3, "write", "k", 1 << i))
        link.run_for(100_000)
    link.run_for(10 * S)
    one, two, three = link.values("k")
    expected = {"g-counter": 511, "pn-counter": 511, "or-set": [1 << i for i in range(9)]}
    assert one == two == three == expected.get(type, one) and one is not None


@by_replication
def test_no_effect_is_seen_before_its_cause_though_messages_are_lost_and_overtake_each_other(replication: Any) -> None:
    """Almeida 2018, section 6: the causal delta-merging condition: an interval is joined only where all before it was; a sender begins at what was
    acknowledged, so that what was lost is in the next.  b is always written after a."""
    link, seen = Unreliable(Crdt, 3, CrdtSettings(type="lww-register", replication=replication, gossip_interval_us=50_000)), set()
    for i in range(1, 13):
        link.wait(link.request(0, "write", "a", i))
        link.wait(link.request(0, "write", "b", i))
        for _ in range(6):
            link.run_for(20_000)
            pairs = [(a or 0, b or 0) for a, b in zip(link.values("a"), link.values("b"))]
            assert all(b <= a for a, b in pairs)
            seen.update(pairs[1:])
    assert len(seen) > 5


@by_type
def test_up_to_n_minus_1_replicas_may_crash_at_once(type: Any) -> None:
    """SSS 2011, 3.1: "... a SEC object tolerates up to n - 1 simultaneous crashes": the one left answers, and what it took reaches those that come back."""
    link = cluster(type=type)
    link.wait(link.request(1, "write", "k", 1))
    link.run_for(3 * S)
    for node in (1, 2):
        link.crash(node, host=True)
    assert link.wait(link.request(0, "write", "k", 2)).outcome == link.wait(link.request(0, "read", "k")).outcome == "ok"
    for node in (1, 2):
        link.restart(node)
    link.run_for(3 * S)
    assert link.values("k") == [{"g-counter": 3, "pn-counter": 3, "or-set": [1, 2]}.get(type, 2)] * 3


def test_a_delta_mutation_is_small_however_large_the_state() -> None:
    """Almeida 2018, abstract: "... defining delta-mutators to return a delta-state, typically with a much smaller size than the full state": one key of a
    hundred."""
    sizes = {}
    for replication in ("delta", "state"):
        link = cluster(nodes=2, replication=replication)
        for i in range(100):
            link.wait(link.request(0, "write", f"k{i}", i))
        link.run_for(5 * S)
        link.wait(link.request(0, "write", "k7", "again"))
        before = len(link.log)
        link.run_for(S // 2)
        sizes[replication] = max(line.count("'k") for line in link.log[before:] if "0 -> 1 LwwUpdate" in line)
    assert sizes == {"delta": 1, "state": 100}


def test_deltas_that_all_have_acknowledged_are_collected() -> None:
    """Almeida 2018, 6.1: "To garbage collect old deltas, the algorithm periodically removes the deltas that have been acked by all neighbors."  """
    link = cluster()
    link.cut([[2], [0, 1]])
    link.wait(link.request(0, "write", "k", 1))
    link.run_for(5 * S)
    assert len(link.replica(0).deltas) == 1, "node 2 has not acknowledged it"
    link.heal()
    link.run_for(5 * S)
    assert [len(link.replica(node).deltas) for node in range(3)] == [0, 0, 0]


def test_after_a_crash_the_buffer_is_lost_and_whoever_has_not_acknowledged_this_life_gets_the_state() -> None:
    """Almeida 2018, algorithm 2: the state X and the counter c are durable, the deltas D and the acknowledgements A volatile."""
    link = cluster(nodes=2)
    link.cut([[0], [1]], mode="drop")
    for i in range(3):
        link.wait(link.request(0, "write", f"k{i}", i))
    link.crash(0, host=True)
    link.restart(0)
    assert not link.replica(0).deltas
    link.heal()
    link.run_for(3 * S)
    assert [link.values(f"k{i}")[1] for i in range(3)] == [0, 1, 2]


def test_timestamps_are_consistent_with_causal_order_whatever_the_clocks_say() -> None:
    """RR-7506, 3.2.1 (LWW-Register): "Timestamps are assumed unique, totally ordered, and consistent with causal order": who saw a value of a clock far
    ahead writes above it."""
    link = cluster()
    link.skew(0, 3600 * S)
    link.wait(link.request(0, "write", "k", "ahead"))
    link.run_for(3 * S)
    link.wait(link.request(1, "write", "k", "later"))
    link.run_for(3 * S)
    assert link.values("k") == ["later"] * 3


def test_two_replicas_at_1_might_both_decrement_and_a_merged_increment_counts_once() -> None:
    """RR-7506, 3.1.2 to 3.1.4: "The value is the sum of all entries"; "Merge takes the maximum of each entry"; "two replicas at value 1 might still
    concurrently decrement, and the value converges to -1.\""""
    link = cluster(nodes=2, type="pn-counter", replication="state")
    link.wait(link.request(0, "write", "k", 1))
    link.run_for(10 * S)
    assert link.values("k") == [1, 1], "told twenty-five times"
    link.cut([[0], [1]])
    for node in (0, 1):
        link.wait(link.request(node, "write", "k", -1))
    assert link.values("k") == [0, 0]
    link.heal()
    link.run_for(3 * S)
    assert link.values("k") == [-1, -1]


def test_a_remove_takes_away_the_adds_that_its_source_observed_and_no_others() -> None:
    """RR-7506, 3.3.5 (OR-Set): "The outcome of a sequence of adds and removes depends only on its causal history and conforms to the sequential
    specification of a set"; "all associated unique tags observed at the source replica are removed, and only those"; "When add(e) is concurrent with
    remove(e), the add takes precedence, as the unique tag generated by add cannot be observed by remove.\""""
    link = cluster(type="or-set")
    for node, f in ((0, "write"), (1, "remove"), (2, "write")):
        link.wait(link.request(node, f, "k", "x"))
        link.run_for(3 * S)
    assert link.values("k") == [["x"]] * 3
    link.cut([[0], [1, 2]])
    link.wait(link.request(0, "write", "k", "x"))
    link.wait(link.request(1, "remove", "k", "x"))
    link.run_for(S)
    assert link.values("k")[1:] == [[], []]
    link.heal()
    link.run_for(3 * S)
    assert link.values("k") == [["x"]] * 3


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


def test_what_the_disk_kept_of_a_counter_is_told_in_the_order_in_which_it_came() -> None:
    """Two messages within one sync: the journal has all of the first before anything of the second, else a restart tells increments with a gap."""
    faults = tuple(Fault(kind="crash-host", nodes=(0, 1, 2), at_us=S + i * 400_000, for_us=100_000) for i in range(5))
    one = Scenario(policy=CRDT, settings={"type": "g-counter", "gossip_interval_us": 20_000}, nodes=5, faults=faults, duration_us=4 * S, quiet_us=S,
                   workload=Workload(rate=60, keys=3))
    record = simulate(one.resolved(), 0)
    assert len(seen_by_replicas(record)) == sum(op.f == "read" and op.type == "ok" for op in record.history)


def test_cut_as_one_likes_availability_is_one() -> None:
    """Always available: with nodes that are up, links alone take nothing away."""
    cuts = (Fault(at_us=S, for_us=3 * S, shape="isolate"), Fault(at_us=2 * S, for_us=4 * S, shape="0|1,2|3,4"), Fault(at_us=S, for_us=5 * S, shape="ring"))
    for type in LATTICES:
        row = measure(simulate(scenario(CRDT, 0, cuts, type=type), 1))
        assert row["availability"] == 1 and row["cap_available"] is True
        assert row["divergence_final"] == 0 and row["convergence_censored"] is False
