"""Dynamo's sentences on which no other test failed when they were broken (DeCandia et al., SOSP 2007): hints, repair, membership, clocks."""

from __future__ import annotations

from itertools import permutations
from typing import Any

from test_policy_dynamo import MINORITY, S, ask, cluster

from capray.policies import vector_clock
from capray.policies.dynamo.messages import Gossip, HandedOff, HandOff, Ping, Store
from capray.policies.dynamo.replica import Dynamo
from capray.policies.dynamo.settings import DynamoSettings
from capray.policies.vector_clock import Clock, Version
from capray.replica import SEND
from capray.streams import Stream
from capray.testing import FakeLink


def node_of(number: int, **settings: Any) -> Dynamo:
    """One node, driven by hand."""
    replica = Dynamo(number, 5, DynamoSettings(partitioner="key_number", **settings), Stream(0, "replica", number))
    replica.on_start()
    replica.effects.clear()
    return replica


def sent(replica: Dynamo, kind: type) -> list[tuple[int, Any]]:
    """What it has sent of this kind since it was last asked."""
    found = [(effect[1], effect[2]) for effect in replica.effects if effect[0] == SEND and type(effect[2]) is kind]
    replica.effects.clear()
    return found


def version(value: str, *clock: tuple[int, int, int]) -> Version:
    return (clock, value, 0)


# ---- 4.6, hinted handoff ------------------------------------------------------------------------------------------------------------------
def test_a_hint_is_sent_when_its_node_has_recovered_and_not_before() -> None:
    """4.6: "Upon detecting that A has recovered, D will attempt to deliver the replica to A": the scans in between send nothing."""
    node = node_of(3)
    node.membership.suspect(0)
    node.on_message(1, Store(7, "k0", version("v", (1, 1, 0)), 0))
    node.effects.clear()
    node.on_timer("handoff")
    assert not sent(node, HandOff)
    node.membership.answered(0)
    assert [to for to, _ in sent(node, HandOff)] == [0]


def test_a_late_answer_to_an_earlier_batch_drops_no_hint() -> None:
    """4.6: "Once the transfer succeeds, D may delete the object from its local store": that transfer, not one that was given up."""
    node = node_of(3)
    node.on_message(1, Store(7, "k0", version("a", (1, 1, 0)), 0))
    node.on_timer("handoff")
    first = sent(node, HandOff)[0][1]
    node.on_timer(("handing", 0))  # no answer came
    node.on_message(1, Store(8, "k0", version("b", (1, 2, 0)), 0))
    node.membership.answered(0)
    second = sent(node, HandOff)[0][1]
    node.on_message(0, HandedOff(first.id))
    assert node.handoff.hints == {0: {"k0": (version("b", (1, 2, 0)),)}}
    node.on_message(0, HandedOff(second.id))
    assert node.handoff.hints == {}


# ---- 4.5 and 5, coordinators ----------------------------------------------------------------------------------------------------------------
def test_a_coordinator_writes_locally_before_it_asks_the_others() -> None:
    """4.5: "the coordinator generates the vector clock for the new version and writes the new version locally. The coordinator then sends the new version
    (along with the new vector clock) to the N highest-ranked reachable nodes"."""
    link = FakeLink(Dynamo, 5, DynamoSettings(partitioner="key_number", client="last-write-wins"), sync_us=50_000)
    link.run_for(2 * S)
    for node in (1, 2):  # of k0's nodes 0, 1 and 2 the second and the third
        begun = link.now
        link.request(node, "write", "k0", f"by {node}")
        link.run_for(40_000)
        assert not [line for line in link.log if f"{node} -> " in line and "Store(" in line and float(line.split("ms")[0]) * 1000 > begun]
        link.run_for(2 * S)
    assert link.values("k0") == ["by 2"] * 3 + [None] * 2


def test_a_read_is_over_when_all_have_answered_and_repairs_then() -> None:
    """5, the read's state machine: it "waits for a small period of time to receive any outstanding responses", and no longer than they take: "If stale versions
    were returned in any of the responses, the coordinator updates those nodes with the latest version."  """
    link = cluster()
    ask(link, 0, "write", "k0", "old")
    link.run_for(S)
    link.replica(2).data["k0"] = ()
    link.wait(link.request(0, "read", "k0"))
    link.run_for(5_000)
    assert link.values("k0") == ["old"] * 3 + [None] * 2 and not link.replica(0).pending


def test_a_read_that_one_node_does_not_answer_repairs_the_others_when_it_is_suspected() -> None:
    """The same, where an answer does not come: after the time that makes the node suspect, not after the request's whole time."""
    link = FakeLink(Dynamo, 3, DynamoSettings(partitioner="key_number"))
    link.run_for(2 * S)
    ask(link, 0, "write", "k0", "v")
    link.run_for(S)
    link.replica(1).data["k0"] = ()
    link.cut([[2]])
    link.wait(link.request(0, "read", "k0"))
    link.run_for(500_000)
    assert link.values("k0") == ["v"] * 3 and not link.replica(0).pending


def test_only_what_was_forwarded_to_the_silent_node_is_given_up() -> None:
    """4.5: any reachable node of the list coordinates: what another one has under way goes on."""
    link = cluster(client="last-write-wins")
    link.cut([[1], [0, 2, 3, 4]])
    to_silent, to_well = link.request(4, "write", "k1", "a"), link.request(4, "write", "k0", "b")
    link.run_for(450_000)
    assert [link.replies[each].outcome if each in link.replies else "waits" for each in (to_silent, to_well)] == ["info", "ok"]
    node = node_of(4, client="last-write-wins")
    node.forwards.update({1: (11, 0), 2: (12, 1)})
    node.lost(1)
    assert node.forwards == {1: (11, 0)}


def test_the_record_is_told_of_a_version_that_comes_late() -> None:
    """The record of versions: what descends from it was here already."""
    node = node_of(0)
    node.apply("k0", version("new", (1, 2, 0)))
    node.effects.clear()
    node.apply("k0", version("old", (1, 1, 0)))
    assert [effect[1:5] for effect in node.effects] == [("k0", "old", vector_clock.order(version("old", (1, 1, 0))), "late")]


# ---- 4.8, failures --------------------------------------------------------------------------------------------------------------------------------
def test_a_suspected_node_is_asked_again_each_retry_interval_and_gossiped_with_when_it_is_back() -> None:
    """4.8.3: "Node A then uses alternate nodes to service requests that map to B's partitions; A periodically retries B to check for the latter's recovery"."""
    node = node_of(0)
    node.on_timer(("probe", 1))
    assert node.membership.suspected[1]
    node.on_connected(1)
    assert [to for to, _ in sent(node, Ping)] == [1]
    node.on_timer(("retry", 1))
    assert [to for to, _ in sent(node, Ping)] == [1]
    node.membership.answered(1)
    node.membership.probe(1)
    node.on_timer(("probe", 1))
    node.membership.answered(1)
    node.effects.clear()
    node.membership.probe(1)
    assert [to for to, _ in sent(node, Gossip)] == [1], "not: still waiting for the answer that never came"


def test_on_both_sides_of_a_cut_every_node_is_tried_again_until_it_answers() -> None:
    link = cluster()
    link.cut(MINORITY, mode="drop")
    link.run_for(20 * S)
    assert [sum(link.replica(node).membership.suspected) for node in range(5)] == [3, 3, 2, 2, 2]
    link.heal()
    link.run_for(3 * S)
    assert not any(any(link.replica(node).membership.suspected) for node in range(5))


# ---- 4.4, vector clocks -----------------------------------------------------------------------------------------------------------------------------
def drawn(seed: int) -> list[Clock]:
    """Two to four clocks of few nodes, small counters and stamps that say nothing."""
    dice = Stream(seed, "clocks")
    return [tuple((node, 1 + dice.below(5), dice.below(4)) for node in range(4) if dice.below(3)) for _ in range(2 + dice.below(3))]


def test_a_merged_clock_is_the_least_that_descends_from_all() -> None:
    """4.4: the client's context covers the versions that it read, whatever their order, and nothing else."""
    for seed in range(200):
        given = drawn(seed)
        merged = vector_clock.merge(given)
        assert all(vector_clock.descends(merged, clock) for clock in given), given
        assert all(any(entry[:2] == told[:2] for clock in given for told in clock) for entry in merged) and list(merged) == sorted(merged), given


def test_the_order_told_to_the_record_agrees_with_descent_whatever_the_stamps() -> None:
    """4.4: descent is by counters; a descendant's stamps may be older, where its coordinator's clock is slow."""
    older = 0
    for seed in range(200):
        for a, b in permutations(drawn(seed), 2):
            if vector_clock.descends(a, b) and not vector_clock.descends(b, a):
                assert vector_clock.order(version("a", *a)) > vector_clock.order(version("b", *b)), (a, b)
                older += sum(entry[2] for entry in a) < sum(entry[2] for entry in b)
    assert older > 10, "the stamps must be able to mislead"
