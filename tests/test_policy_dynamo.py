"""The `dynamo` policy, a sentence of the paper a test (DeCandia et al., SOSP 2007; sections 5 and 6 as reprinted in Riak KV's documentation, 2.0,
learn/dynamo); engines; storms.

Five nodes, one key in each range (`key_number`): k0 on nodes 0 1 2, k1 on 1 2 3, ...; the ring goes 0 1 2 3 4.
"""

from __future__ import annotations

import os
from itertools import combinations
from typing import Any

import pytest

from capray.faults import Fault
from capray.measures.divergence import curve, sampling
from capray.measures.holdings import holdings
from capray.measures.phases import Calendar
from capray.metrics import measure
from capray.policies.dynamo.replica import Dynamo
from capray.policies.dynamo.settings import DynamoSettings
from capray.record import Record
from capray.scenario import Scenario
from capray.streams import Stream
from capray.testing import FakeLink
from capray.trial import Trial, simulate
from capray.windows import simulate_in_windows
from capray.workload import Workload

S = 1_000_000
FULL = bool(os.environ.get("CAPRAY_FULL"))
MINORITY = [[0, 1], [2, 3, 4]]
DYNAMO = "capray.policies.dynamo.replica:Dynamo"
clients = pytest.mark.parametrize("client", ["merging", "last-write-wins"])


def cluster(nodes: int = 5, **settings: Any) -> FakeLink:
    """A cluster two seconds old."""
    link = FakeLink(Dynamo, nodes, DynamoSettings(partitioner="key_number", **settings))
    link.run_for(2 * S)
    return link


def ask(link: FakeLink, node: int, f: str, key: str, value: Any = None) -> tuple[str, Any]:
    reply = link.wait(link.request(node, f, key, value))
    return reply.outcome, reply.result


@clients
@pytest.mark.parametrize("node", range(5))
def test_any_storage_node_is_eligible_to_receive_client_get_and_put_operations(node: int, client: Any) -> None:
    """4.5: "Any storage node in Dynamo is eligible to receive client get and put operations for any key.\""""
    link = cluster(client=client)
    assert ask(link, node, "write", "k3", "v") == ("ok", None)
    link.run_for(S)
    assert link.values("k3") == ["v", None, None, "v", "v"]
    assert ask(link, node, "read", "k3") == ("ok", "v")
    assert ask(link, node, "read", "k0") == ("ok", None)


def test_a_put_through_a_node_outside_the_list_is_forwarded_to_its_first() -> None:
    """4.5: "... the node that receives the request will not coordinate it if the node is not in the top N of the requested key's preference list. Instead, that
    node will forward the request to the first among the top N nodes in the preference list.\""""
    link = cluster(client="last-write-wins")
    before = len(link.log)
    ask(link, 4, "write", "k0", "v")
    assert [line for line in link.log[before:] if "4 -> 0 Put(" in line]


def test_the_write_is_successful_when_w_nodes_have_it() -> None:
    """4.5: "If at least W-1 nodes respond then the write is considered successful", the coordinator being the first."""
    for w, trips in ((1, 0), (2, 1), (3, 1)):
        link = cluster(client="last-write-wins", w=w)
        begun = link.now
        assert link.wait(link.request(0, "write", "k0", "v")).at - begun == 100 + trips * (500 + 100)


def test_with_w_of_one_a_write_is_never_rejected_while_a_single_node_can_process_it() -> None:
    """6: "if W is set to 1, then the system will never reject a write request as long as there is at least one node in the system that can successfully
    process a write request"; 4.6: "Thus, the write request is only rejected if all nodes in the system are unavailable.\""""
    link = cluster(client="last-write-wins", w=1, r=1)
    link.cut([[0], [1], [2], [3], [4]])
    link.run_for(5 * S)
    for node in range(5):
        for key in ("k0", "k2"):
            assert ask(link, node, "write", key, f"{node}{key}")[0] == "ok"


def test_a_hinted_replica_goes_to_the_next_node_and_back_when_its_owner_recovers() -> None:
    """4.6: "if node A is temporarily down or unreachable during a write operation then a replica that would normally have lived on A will now be sent to
    node D ... Upon detecting that A has recovered, D will attempt to deliver the replica to A. Once the transfer succeeds, D may delete the object from its
    local store without decreasing the total number of replicas in the system.\""""
    link = cluster(client="last-write-wins", w=3, anti_entropy_interval_us=0, read_repair=False)
    link.crash(0, host=True)
    assert ask(link, 1, "write", "k0", "v")[0] == "ok"  # three nodes have it: 1, 2, and 3 for 0
    assert list(link.replica(3).handoff.hints) == [0]
    link.restart(0)
    link.run_for(10 * S)
    assert link.values("k0")[:3] == ["v", "v", "v"]
    assert not link.replica(3).handoff.hints


def test_both_sides_of_a_cut_write_and_read_what_they_wrote() -> None:
    """2.3 and 4.6: an "always writeable" data store: the sloppy quorum is the first N healthy nodes, not always the first N; the strict one refuses."""
    for sloppy, outcome in ((True, "ok"), (False, "info")):
        link = cluster(client="last-write-wins", sloppy_quorum=sloppy)
        link.cut(MINORITY)
        link.run_for(20 * S)  # who is silent has been found out
        assert ask(link, 0, "write", "k2", "a")[0] == outcome  # all its replicas are on the other side
        if not sloppy:
            continue
        assert ask(link, 1, "read", "k2") == ("ok", "a")
        assert ask(link, 3, "write", "k2", "b")[0] == ask(link, 2, "write", "k0", "c")[0] == "ok"
        assert ask(link, 3, "read", "k2") == ("ok", "b")


def test_divergent_versions_are_returned_and_the_write_after_supersedes_them() -> None:
    """4.5: "... it returns all the versions it deems to be causally unrelated. The divergent versions are then reconciled and the reconciled version
    superseding the current versions is written back.\""""
    link = cluster()
    link.cut(MINORITY)
    assert ask(link, 0, "write", "k0", "a")[0] == "ok"
    assert ask(link, 2, "write", "k0", "b")[0] == "ok"
    link.heal()
    link.run_for(10 * S)
    assert ask(link, 4, "read", "k0") == ("ok", ["a", "b"])
    assert ask(link, 4, "write", "k0", "c")[0] == "ok"
    link.run_for(S)
    assert link.values("k0")[:3] == ["c", "c", "c"]
    assert [set(v.superseded) for v in link.versions if v.value == "c" and v.node < 3] == [{"a", "b"}] * 3


def test_timestamp_based_reconciliation_picks_the_largest_physical_timestamp() -> None:
    """6: "the object with the largest physical timestamp value is chosen as the correct version": a clock ahead wins, though written first."""
    link = cluster(client="last-write-wins")
    link.cut(MINORITY)
    link.run_for(3 * S)
    link.skew(0, 60 * S)
    ask(link, 0, "write", "k0", "early")
    ask(link, 2, "write", "k0", "late")
    link.heal()
    link.run_for(15 * S)
    assert [ask(link, node, "read", "k0")[1] for node in range(5)] == ["early"] * 5


def test_read_repair_updates_nodes_with_stale_versions() -> None:
    """5: "If stale versions were returned in any of the responses, the coordinator updates those nodes with the latest version.\""""
    for repair, held in ((True, "v"), (False, None)):
        link = cluster(w=1, r=1, client="last-write-wins", sloppy_quorum=False, anti_entropy_interval_us=0, read_repair=repair)
        link.cut([[0], [1, 2, 3, 4]], mode="drop")
        ask(link, 0, "write", "k0", "v")
        link.run_for(5 * S)
        link.heal()
        link.run_for(5 * S)
        assert link.values("k0")[:3] == ["v", None, None]
        ask(link, 0, "read", "k0")
        link.run_for(S)
        assert link.values("k0")[:3] == ["v", held, held]


def test_if_too_few_replies_come_within_a_time_bound_the_read_fails() -> None:
    """5: "(ii) wait for minimum number of required responses, (iii) if too few replies were received within a given time bound, fail the request ..."."""
    link = cluster(sloppy_quorum=False, request_timeout_us=S)
    link.cut([[0, 3, 4], [1, 2]])
    begun = link.now
    assert ask(link, 0, "read", "k0") == ("fail", None)
    assert S <= link.now - begun <= S + 400_000
    assert ask(link, 1, "read", "k0")[0] == "ok"


@pytest.mark.parametrize(("f", "outcome"), [("read", "ok"), ("write", "info")])
def test_with_r_1_and_w_n_it_is_a_read_engine(f: str, outcome: str) -> None:
    """6: "a high performance read engine ... typically R is set to be 1 and W to be N": one replica answers a get; a put needs them all."""
    link = cluster(client="last-write-wins", sloppy_quorum=False, r=1, w=3)
    assert ask(link, 0, "write", "k0", "v")[0] == "ok"
    link.cut([[0], [1, 2, 3, 4]])
    assert ask(link, 0, f, "k0", None if f == "read" else "w")[0] == outcome


def test_a_low_w_leaves_a_window_in_which_a_write_is_on_few_nodes() -> None:
    """6: "a vulnerability window for durability when a write request is successfully returned to the client even though it has been persisted at only a
    small number of nodes"; "decreased by increasing W"."""
    for w, outcome in ((1, "ok"), (2, "info")):
        link = cluster(client="last-write-wins", sloppy_quorum=False, w=w)
        link.cut([[0], [1, 2, 3, 4]], mode="drop")
        assert ask(link, 0, "write", "k0", "v")[0] == outcome
        assert link.values("k0") == ["v", None, None, None, None]


def test_merkle_trees_find_what_neither_hints_nor_reads_brought() -> None:
    """4.7: "Dynamo implements an anti-entropy (replica synchronization) protocol to keep the replicas synchronized.\""""
    link = cluster(w=1, client="last-write-wins", sloppy_quorum=False)
    link.cut([[0], [1, 2, 3, 4]], mode="drop")
    ask(link, 0, "write", "k0", "v")
    link.run_for(5 * S)
    link.heal()
    link.run_for(60 * S)
    assert link.values("k0")[:3] == ["v", "v", "v"]


def test_a_silent_node_is_suspected_locally_and_tried_again() -> None:
    """4.8.3: "... a node A quickly discovers that a node B is unresponsive when B fails to respond to a message; Node A then uses alternate nodes to service
    requests that map to B's partitions; A periodically retries B to check for the latter's recovery.\""""
    link = cluster()
    link.cut_one_way(1, 0)
    ask(link, 0, "read", "k0")
    link.run_for(S)
    assert link.replica(0).membership.suspected[1] and not link.replica(2).membership.suspected[1]
    link.heal()
    link.run_for(3 * S)
    assert not any(link.replica(node).membership.suspected[peer] for node in range(5) for peer in range(5))


def test_a_change_of_membership_reaches_everyone_by_gossip() -> None:
    """4.8.1: "A gossip-based protocol propagates membership changes and maintains an eventually consistent view of membership.\""""
    link = cluster()
    link.crash(3)
    link.run_for(S)
    link.restart(3)
    link.run_for(20 * S)
    assert [link.replica(node).membership.changes for node in range(5)] == [[1, 1, 1, 2, 1]] * 5


# ---- sections 4.3 to 4.8, what no story above shows ------------------------------------------------------------------------------------
def test_the_coordinator_replicates_keys_at_the_n_minus_1_clockwise_successor_nodes() -> None:
    """4.3: "In addition to locally storing each key within its range, the coordinator replicates these keys at the N-1 clockwise successor nodes in the
    ring.\""""
    link = cluster(client="last-write-wins")
    for first in range(5):
        ask(link, 0, "write", f"k{first}", "v")
    link.run_for(S)
    for first in range(5):
        assert {node for node in range(5) if link.values(f"k{first}")[node] == "v"} == {first, (first + 1) % 5, (first + 2) % 5}


def test_figure_3_the_version_evolution_of_an_object_over_time() -> None:
    """4.4, figure 3: D1 ([Sx, 1]), D2 ([Sx, 2]); from it D3 ([Sx, 2], [Sy, 1]) and D4 ([Sx, 2], [Sz, 1]); reconciled by Sx: D5 ([Sx, 3], [Sy, 1], [Sz, 1]).
    Sx, Sy, Sz are the nodes 0, 1, 2, each of which coordinates what its client writes."""
    link = cluster(nodes=3, w=1, r=1, anti_entropy_interval_us=0)

    def clocks(node: int) -> list[tuple[tuple[int, int], ...]]:
        return [tuple(entry[:2] for entry in version[0]) for version in link.replica(node).held("k0")]

    for value in ("D1", "D2"):
        ask(link, 0, "write", "k0", value)
    link.run_for(S)
    assert [clocks(node) for node in range(3)] == [[((0, 2),)]] * 3
    link.cut([[0], [1], [2]])
    ask(link, 1, "write", "k0", "D3")
    ask(link, 2, "write", "k0", "D4")
    assert clocks(1) == [((0, 2), (1, 1))] and clocks(2) == [((0, 2), (2, 1))]
    link.heal()
    link.run_for(20 * S)
    assert ask(link, 0, "read", "k0") == ("ok", ["D3", "D4"])
    ask(link, 0, "write", "k0", "D5")
    link.run_for(S)
    assert [clocks(node) for node in range(3)] == [[((0, 3), (1, 1), (2, 1))]] * 3


def test_a_put_may_return_before_the_update_is_applied_at_all_replicas_and_a_get_may_not_have_it() -> None:
    """4.4: "A put() call may return to its caller before the update has been applied at all the replicas, which can result in scenarios where a subsequent
    get() operation may return an object that does not have the latest updates.\""""
    link = cluster(client="last-write-wins", w=1, r=1)
    assert ask(link, 0, "write", "k0", "v")[0] == "ok" and ask(link, 1, "read", "k0") == ("ok", None)


def test_an_add_to_a_cart_is_not_forgotten_though_the_latest_version_was_unavailable() -> None:
    """4.4: "If the most recent state of the cart is unavailable, and a user makes changes to an older version of the cart, that change is still meaningful
    and should be preserved. But at the same time it shouldn't supersede the currently unavailable state of the cart,
    which itself may contain changes that should be preserved.\""""
    link = cluster(w=1, r=1)
    ask(link, 0, "write", "k0", "old")
    link.run_for(S)
    link.cut([[0], [1, 2, 3, 4]])
    assert ask(link, 0, "write", "k0", "latest")[0] == "ok"
    assert ask(link, 1, "write", "k0", "added to the old")[0] == "ok"
    link.heal()
    link.run_for(20 * S)
    assert ask(link, 2, "read", "k0") == ("ok", ["added to the old", "latest"])


def test_an_oldest_pair_removed_leaves_descendants_that_cannot_be_told() -> None:
    """4.4: "When the number of (node, counter) pairs in the vector clock reaches a threshold (say 10), the oldest pair is removed from the clock. Clearly, this
    truncation scheme can lead to inefficiencies in reconciliation as the descendant relationships cannot be derived accurately.\""""
    for threshold, found in ((3, "second"), (2, ["first", "second"])):
        link = cluster(nodes=3, clock_threshold=threshold)
        ask(link, 0, "write", "k0", "first")
        ask(link, 1, "write", "k0", "second")
        assert ask(link, 2, "read", "k0") == ("ok", found)


class Uneven(FakeLink):
    """A link of 250 us to node 1, of 10 ms to node 2."""

    def latency(self, src: int, dst: int, message: Any) -> int:
        return 10_000 if 2 in (src, dst) else 250


@pytest.mark.parametrize(("needed", "us"), [(1, 0), (2, 500), (3, 20_000)])
def test_the_latency_of_a_get_is_dictated_by_the_slowest_of_the_r_replicas(needed: int, us: int) -> None:
    """4.5: "the latency of a get (or put) operation is dictated by the slowest of the R (or W) replicas. For this reason, R and W are usually configured to
    be less than N, to provide better latency.\""""
    link = Uneven(Dynamo, 3, DynamoSettings(partitioner="key_number", client="last-write-wins", r=needed, w=needed), sync_us=0)
    link.run_for(2 * S)
    for f in ("write", "read"):
        assert link.wait(link.request(0, f, "k0", "v" if f == "write" else None)).at - link.now == 0
        assert link.replies[len(link.requests)].at - link.requests[len(link.requests)][2] == us


def test_r_plus_w_above_n_yields_a_quorum_like_system() -> None:
    """4.5: "Setting R and W such that R + W > N yields a quorum-like system": a get after a put sees it, whichever one replica is silent."""
    for silent in range(3):
        link = cluster(client="last-write-wins", sloppy_quorum=False, read_repair=False, anti_entropy_interval_us=0)
        link.cut([[silent], [node for node in range(5) if node != silent]], mode="drop")
        link.run_for(20 * S)
        assert ask(link, 4, "write", "k0", "v")[0] == "ok"
        link.heal()
        link.run_for(3 * S)
        assert [ask(link, node, "read", "k0")[1] for node in range(5)] == ["v"] * 5


def test_hinted_replicas_are_kept_in_a_separate_local_database() -> None:
    """4.6: "Nodes that receive hinted replicas will keep them in a separate local database": they outlive their keeper's crash, and are delivered."""
    link = cluster(client="last-write-wins", w=3, anti_entropy_interval_us=0, read_repair=False)
    link.crash(0, host=True)
    assert ask(link, 1, "write", "k0", "v")[0] == "ok"
    assert "k0" not in link.replica(3).data and link.replica(3).handoff.hints[0]["k0"]
    link.crash(3, host=True)
    link.restart(3)
    link.restart(0)
    link.run_for(15 * S)
    assert link.values("k0")[0] == "v" and not link.replica(3).handoff.hints


def test_if_the_roots_are_equal_the_nodes_require_no_synchronization() -> None:
    """4.7: "... if the hash values of the root of two trees are equal, then the values of the leaf nodes in the tree are equal and the nodes require no
    synchronization.\""""
    link = cluster(client="last-write-wins")
    ask(link, 0, "write", "k0", "v")
    link.run_for(30 * S)
    assert [line for line in link.log if "SyncRoots" in line] and not [line for line in link.log if "SyncTrees" in line or "SyncRows" in line]


def test_each_node_contacts_a_peer_chosen_at_random_every_second() -> None:
    """4.8.1: "Each node contacts a peer chosen at random every second ..."."""
    link = cluster()
    link.log.clear()
    link.run_for(20 * S)
    asked = [line.split("ms ")[1][:6] for line in link.log if "Gossip(" in line and "reply=True" in line]
    assert all(19 <= sum(pair.startswith(f"{node} -> ") for pair in asked) <= 21 for node in range(5)) and len(set(asked)) == 20


def test_settings_that_do_not_fit_are_refused() -> None:
    assert DynamoSettings(n=4).problems(3) and DynamoSettings(r=4).problems(5) and DynamoSettings(w=3, n=2).problems(5)
    assert not any(DynamoSettings().problems(nodes) for nodes in (1, 2, 3, 100))


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


def scenario(policy: str, faults: tuple[Fault, ...], quiet_us: int = 15 * S, **settings: Any) -> Scenario:
    return Scenario(policy=policy, settings={"partitioner": "key_number", **settings}, nodes=5, faults=faults, duration_us=10 * S, quiet_us=quiet_us,
                    workload=Workload(rate=8, keys=5)).resolved()


@pytest.mark.parametrize("seed", range(3))
def test_two_nodes_that_suspect_each_other_come_to_rest(seed: int) -> None:
    """Section 4.8.3: a node that does not respond is tried again "to check for the latter's recovery".  A node that closes a silent connection must not
    be answered by a closing, or both go on dialling past each other for ever."""
    slow = (Fault(kind="slow", at_us=2 * S + 100_000 * seed, for_us=700_000, nodes=(0,), factor=50),)
    one = Scenario(policy=DYNAMO, settings={"client": "last-write-wins"}, nodes=2, faults=slow, duration_us=4 * S, quiet_us=8 * S, disk="fsync-2ms",
                   link="wan-3dc",
                   workload=Workload(rate=40, keys=1, client_placement="outside")).resolved()
    assert converged(simulate(one, seed))


@clients
@pytest.mark.parametrize("number", range(4 if FULL else 2))
def test_both_engines_leave_the_same_bytes(client: str, number: int) -> None:
    one = scenario(DYNAMO, storm(number), 2 * S, client=client)
    assert simulate(one, number).digest() == simulate_in_windows(one, number).digest()


def converged(record: Record) -> bool:
    """Whether all final reads of a key agree, nothing acknowledged is lost, and no replica lacks what another has."""
    seen: dict[str | None, set[str]] = {}
    for op in record.history:
        if op.final:
            seen.setdefault(op.key, set()).add(f"{op.type} {op.result}")
    row = measure(record)
    return all(len(found) == 1 for found in seen.values()) and row["lost_writes"] == 0 and row["divergence_final"] == 0


@clients
def test_storms_end_in_agreement_and_lose_nothing(client: str) -> None:
    for number in range(16 if FULL else 2):
        assert converged(simulate(scenario(DYNAMO, storm(number), 30 * S, client=client), number)), number


CUT = (Fault(at_us=2 * S, for_us=6 * S, shape="0,1|2,3,4"),)


def test_divergence_is_that_of_what_the_replicas_hold_also_where_clocks_are_truncated() -> None:
    """Against a look at each replica's siblings, in steps of the curve, with truncation at two pairs; writes of any age count."""
    one = Scenario(policy=DYNAMO, settings={"partitioner": "key_number", "clock_threshold": 3}, nodes=5, duration_us=5 * S, quiet_us=2 * S, link="wan-3dc",
                   faults=(Fault(at_us=S, for_us=3 * S, shape="0,1|2,3,4"),), workload=Workload(rate=6, keys=2)).resolved()
    trial, seen, most = Trial(one, 1), {}, 0
    for at in sampling(one.end_us)[1]:
        trial.advance(at)
        pairs = 0
        for key, first in (("k0", 0), ("k1", 1)):
            held = [tuple(version[0] for version in trial.nodes[first + i].replica.held(key)) for i in range(3)]  # type: ignore[attr-defined]
            most = max(most, *map(len, held))
            pairs += sum(a != b for a, b in combinations(held, 2))
        seen[at] = pairs
    record = trial.record()
    assert {point.at: point.differing for point in curve(holdings(record) or {}, Calendar((), 5), record.end, 0)} == seen
    assert most > 2 and max(seen.values()) > 1, "truncation left siblings, and replicas differed"


@clients
def test_every_node_of_both_sides_goes_on_through_a_cut(client: str) -> None:
    """But for what was under way when the silence began, and not yet found out."""
    row = measure(simulate(scenario(DYNAMO, CUT, client=client), 1))
    assert row["availability_during"] > 0.9 and row["convergence_censored"] is False and row["conflicts"] > 0
