"""The `cassandra` policy, a sentence of Apache Cassandra 5.0's manual a test: architecture/dynamo.adoc and guarantees.adoc,
managing/operating/hints.adoc and read_repair.adoc, CQL reference.

Five nodes, one key in each ring range (`key_number`): k0 on nodes 0 1 2, k1 on 1 2 3, k2 on 2 3 4, k3 on 3 4 0, k4 on 4 0 1.
"""

from __future__ import annotations

from typing import Any

import pytest

from capray.policies.cassandra.messages import ReadRepair, ReadRequest
from capray.policies.cassandra.paxos import Commit
from capray.policies.cassandra.replica import Cassandra
from capray.policies.cassandra.settings import CassandraSettings
from capray.testing import FakeLink

S = 1_000_000
TWO_CENTRES: dict[str, Any] = {"strategy": "network_topology", "datacenters": 2, "replication_factor": 3}  # nodes 0 2 4 and 1 3 5


def cluster(nodes: int = 5, policy: type[Cassandra] = Cassandra, **settings: Any) -> FakeLink:
    link = FakeLink(policy, nodes, CassandraSettings(partitioner="key_number", **settings))
    link.run_for(2 * S)
    return link


def answered(link: FakeLink, node: int, f: str, key: str, value: Any = None) -> bool:
    """Whether a request is answered `ok` within a second."""
    number = link.request(node, f, key, value)
    link.run_for(S)
    return number in link.replies and link.replies[number].outcome == "ok"


# ---- dynamo.adoc, "Tunable Consistency" -------------------------------------------------------------------------------------------
# level -> the manual's sentence (ours for the last two, which that page does not list); which of {3 of 3, 2 of 3, 1 of 3, 0 of 3} replicas suffice for a write
LEVELS = {
    "ANY": ("A single replica may respond, or the coordinator may store a hint.", (True, True, True, False)),  # the hint: after 2 s
    "ONE": ("Only a single replica must respond.", (True, True, True, False)),
    "TWO": ("Two replicas must respond.", (True, True, False, False)),
    "THREE": ("Three replicas must respond.", (True, False, False, False)),
    "QUORUM": ("A majority (n/2 + 1) of the replicas must respond.", (True, True, False, False)),
    "ALL": ("All of the replicas must respond.", (True, False, False, False)),
    "LOCAL_ONE": ("Only a single replica must respond.", (True, True, True, False)),
    "LOCAL_QUORUM": (
        "A majority of the replicas in the local datacenter (whichever datacenter the coordinator is in) must respond.",
        (True, True, False, False),
    ),
    "EACH_QUORUM": ("A majority of the replicas in each datacenter must respond.", (True, True, False, False)),
    "SERIAL": ("A majority takes part in each phase of Paxos.", (True, True, False, False)),
    "LOCAL_SERIAL": ("The same, within the local datacenter.", (True, True, False, False)),
}


@pytest.mark.parametrize("level", LEVELS)
def test_as_many_replicas_as_the_level_says_must_be_on_the_coordinators_side(level: Any) -> None:
    """Coordinator 4 holds no replica of k0, whose replicas 2, 1, 0 are cut off one after the other; a read asks one level less than ANY."""
    read = "ONE" if level == "ANY" else level
    for lost, enough in enumerate(LEVELS[level][1]):
        link = cluster(write_consistency=level, read_consistency=read, reads_sent_to="all")
        link.cut([list(range(3 - lost, 3)), [*range(3 - lost), 3, 4]])
        assert answered(link, 4, "write", "k0", "v") == enough
        assert answered(link, 4, "read", "k0") == enough


def test_write_operations_are_always_sent_to_all_replicas_regardless_of_consistency_level() -> None:
    """dynamo.adoc: "Write operations are always sent to all replicas, regardless of consistency level." """
    for level in ("ANY", "ONE", "QUORUM", "ALL", "LOCAL_ONE"):
        link = cluster(write_consistency=level)
        assert answered(link, 4, "write", "k0", "v") and link.values("k0")[:3] == ["v"] * 3


def test_a_read_goes_to_enough_replicas_to_satisfy_the_level_and_speculative_retry_is_the_one_exception() -> None:
    """dynamo.adoc: "The one exception to this is when speculative retry may issue a redundant read request to an extra replica if the original
    replicas have not responded within a specified time window." """
    for level, count in (("ONE", 1), ("QUORUM", 2), ("ALL", 3)):
        link = cluster(read_consistency=level, dynamic_snitch=False)
        answered(link, 4, "read", "k0")
        assert sum("ReadRequest" in line for line in link.log) == count
    link = cluster(read_consistency="QUORUM", dynamic_snitch=False, past_reads=1000)
    link.run_for(5 * S)
    link.cut([[1], [0, 2, 3, 4]])
    assert answered(link, 4, "read", "k0")
    assert [line for line in link.log if "4 -> 2 " in line and "ReadRequest" in line]  # asked 0 and 1 first


def test_quorums_overlap_so_an_acknowledged_write_is_visible_to_the_next_read() -> None:
    """dynamo.adoc: "If QUORUM is used for both writes and reads ... the quorums will overlap and the write will be visible to the read." """
    link = cluster(write_consistency="QUORUM", read_consistency="QUORUM", hinted_handoff=False, speculative_retry="always")
    for number, alone in enumerate((0, 1, 2)):
        link.cut([[alone], [n for n in range(5) if n != alone]])
        assert answered(link, 4, "write", "k0", f"v{number}")
        link.heal()
        link.run_for(8 * S)
        assert all(link.wait(link.request(node, "read", "k0")).result == f"v{number}" for node in range(5))


# ---- several data centres ---------------------------------------------------------------------------------------------------------
def test_local_quorum_sees_the_latest_write_of_its_own_data_centre() -> None:
    """dynamo.adoc: "reads are guaranteed to see the latest write from within the same datacenter." """
    link = cluster(6, read_consistency="LOCAL_QUORUM", write_consistency="LOCAL_QUORUM", **TWO_CENTRES)
    link.cut([[0, 2, 4], [1, 3, 5]])
    assert answered(link, 0, "write", "k0", "even") and answered(link, 1, "write", "k0", "odd")
    assert [link.wait(link.request(node, "read", "k0")).result for node in range(6)] == ["even", "odd"] * 3


def test_local_one_never_asks_a_remote_data_centre_and_one_may() -> None:
    """dynamo.adoc: "... read requests are not sent to replicas in a remote datacenter" (LOCAL_ONE); "Indeed ONE will succeed if a single replica
    is available in any datacenter." """
    for level, found in (("LOCAL_ONE", False), ("ONE", True)):
        link = cluster(8, read_consistency=level, speculative_retry="always", **TWO_CENTRES)
        assert answered(link, 7, "read", "k0")  # held by 0 2 4 and 1 3 5
        remote = [line for line in link.log if "ReadRequest" in line and any(f"7 -> {node} " in line for node in (0, 2, 4))]
        assert bool(remote) == found
        for node in (1, 3, 5):
            link.crash(node)
        link.run_for(30 * S)
        assert answered(link, 7, "read", "k0") == found


def test_a_read_goes_to_the_nearest_replica_first_in_the_own_rack_then_in_the_own_data_centre() -> None:
    """snitch.adoc: "it teaches Cassandra enough about your network topology to route requests efficiently"; AbstractNetworkTopologySnitch.compareEndpoints():
    itself, then its data centre, and there its rack."""
    for centres, near in ((1, {3: 0, 4: 1, 5: 2}), (2, {8: 0, 9: 1, 10: 2, 11: 3})):
        link = cluster(
            6 * centres, strategy="network_topology", datacenters=centres, racks=3 if centres == 1 else 2, endpoint_snitch="gossiping_property_file",
            dynamic_snitch=False, speculative_retry="never", replication_factor=3 if centres == 1 else 2,
        )
        assert link.replica(0).replicas("k0") == ((0, 1, 2) if centres == 1 else (0, 1, 2, 3))
        for node, replica in near.items():
            link.log.clear()
            assert answered(link, node, "read", "k0")
            assert [line.split("ms ")[1].split(" ReadRequest")[0] for line in link.log if "ReadRequest" in line] == [f"{node} -> {replica}"]


def test_local_serial_is_linearizable_in_each_data_centre_and_serial_needs_a_majority_of_all() -> None:
    """DataStax C# driver 2.6, IStatement.SetSerialConsistencyLevel: "Setting it to ConsistencyLevel.Serial guarantees full linearizability while
    ConsistencyLevel.LocalSerial guarantees it only in the local datacenter.": with the data centres cut apart each goes on by itself, and after heal the
    later ballot stands everywhere."""
    for level, goes_on in (("LOCAL_SERIAL", True), ("SERIAL", False)):
        link = cluster(6, read_consistency=level, write_consistency=level, **TWO_CENTRES)
        link.cut([[0, 2, 4], [1, 3, 5]])
        assert [answered(link, node, "write", "k0", f"by {node}") for node in (0, 1)] == [goes_on] * 2
        if goes_on:
            assert [link.wait(link.request(node, "read", "k0")).result for node in range(6)] == ["by 0", "by 1"] * 3
            link.heal()
            link.run_for(40 * S)
            assert [link.wait(link.request(node, "read", "k0")).result for node in range(6)] == ["by 1"] * 6


def test_a_local_serial_commit_waits_for_a_quorum_of_its_own_data_centre() -> None:
    """StorageProxy.cas commits at the write's level, LOCAL_QUORUM here: acknowledgements from elsewhere do not count."""

    class Deaf(Cassandra):
        def _on_commit(self, src: int, message: Any) -> None:
            if self.node not in (2, 4):
                self.paxos.on_commit(src, message)

    Deaf.HANDLERS = {**Cassandra.HANDLERS, Commit: Deaf._on_commit}
    for policy, done in ((Cassandra, True), (Deaf, False)):
        settings = CassandraSettings(partitioner="key_number", read_consistency="LOCAL_SERIAL", write_consistency="LOCAL_SERIAL", **TWO_CENTRES)
        link = FakeLink(policy, 6, settings)
        link.run_for(2 * S)
        assert answered(link, 0, "write", "k0", "v") == done


# ---- hints.adoc -------------------------------------------------------------------------------------------------------------------
def test_hints_carry_the_original_timestamp_so_they_cannot_overwrite_a_later_write() -> None:
    """hints.adoc: "Since hints contain the original unmodified mutation timestamp, hint application is idempotent and cannot overwrite a future
    mutation." """
    link = cluster()
    link.cut([[2], [0, 1, 3, 4]])
    assert answered(link, 0, "write", "k0", "older")
    assert answered(link, 2, "write", "k0", "newer")  # before the hint of the older one is made
    link.run_for(3 * S)
    link.heal()
    link.run_for(40 * S)
    assert link.values("k0")[:3] == ["newer"] * 3 and any("HintMessage" in line for line in link.log)


def test_a_hint_is_stored_after_the_write_timeout_though_the_client_has_its_answer() -> None:
    """hints.adoc: "(t1): The client receives a quorum acknowledgement ... (t2): After the write timeout (default 2s), the coordinator decides that
    replica_2 is unavailable and stores a hint to its local disk." """
    link = cluster(write_consistency="LOCAL_QUORUM")
    link.cut([[2], [0, 1, 3, 4]])
    assert answered(link, 0, "write", "k0", "v") and not link.replica(0).hints.buffer
    link.run_for(2 * S)
    assert [target for target, _ in link.replica(0).hints.buffer] == [2]


# ---- dynamo.adoc, "Ring Membership and Failure Detection" -------------------------------------------------------------------------
def test_up_and_down_are_local_decisions_and_are_not_propagated() -> None:
    """dynamo.adoc: "UP and DOWN state are local node decisions and are not propagated with gossip." A node that hears nobody convicts all; they,
    who hear each other, convict it alone."""
    link = cluster()
    link.cut([[0], [1, 2, 3, 4]])
    link.run_for(30 * S)
    down = [[n for n in range(5) if not link.replica(node).gossiper.alive[n]] for node in range(5)]
    assert down == [[1, 2, 3, 4], [0], [0], [0], [0]]


def test_reads_are_not_routed_to_a_convicted_node_and_its_writes_are_hinted_at_once() -> None:
    """dynamo.adoc: "the failure detector 'convicts' that node, at which point Cassandra will stop routing reads to it (writes will typically be
    written to hints)"."""
    link = cluster(speculative_retry="never")
    link.cut([[0], [1, 2, 3, 4]])
    link.run_for(30 * S)
    before = len(link.log)
    assert all(answered(link, 4, "read", "k0") for _ in range(5)) and answered(link, 4, "write", "k0", "v")
    assert not [line for line in link.log[before:] if "-> 0" in line and ("ReadRequest" in line or "Mutation" in line)]
    assert [target for target, _ in link.replica(4).hints.buffer] == [0]


# ---- read_repair.adoc -------------------------------------------------------------------------------------------------------------
def seen_by_one_replica_only(**settings: Any) -> FakeLink:
    """A write that reached node 0 alone (of k0's 0, 1, 2), was not acknowledged, and has no hint."""
    link = cluster(**{"write_consistency": "QUORUM", "read_consistency": "QUORUM", "hinted_handoff": False, "dynamic_snitch": False, **settings})
    link.cut([[0], [1, 2, 3, 4]], mode="drop")
    assert not answered(link, 0, "write", "k0", "v")
    link.run_for(4 * S)
    link.heal()
    link.run_for(S)
    assert link.values("k0")[:3] == ["v", None, None]
    return link


@pytest.mark.parametrize(("repair", "later"), [("blocking", "v"), ("none", None)])
def test_blocking_read_repair_makes_quorum_reads_monotonic_and_none_does_not(repair: str, later: str | None) -> None:
    """read_repair.adoc: "in 2 successive quorum reads, it's guaranteed the 2nd one won't get something older than the 1st one, and this even if a failed
    quorum write made a write of the most up to date value only to a minority of replicas" (BLOCKING); with NONE "it may be visible in one read, and then
    disappear in a subsequent read"."""
    link = seen_by_one_replica_only(read_repair=repair)
    assert link.wait(link.request(0, "read", "k0")).result == "v"
    link.crash(0)
    link.run_for(30 * S)
    assert link.wait(link.request(1, "read", "k0")).result == later


def test_at_level_one_nothing_is_repaired_since_one_replica_only_is_asked() -> None:
    """read_repair.adoc, table 1: ONE and LOCAL_ONE: "Read repair is not performed"; "Background read repair ... is removed [in] Cassandra 4.0"."""
    for level, stays in (("ONE", None), ("LOCAL_ONE", None), ("TWO", "v")):
        link = seen_by_one_replica_only(read_consistency=level)
        assert answered(link, 0, "read", "k0")
        link.run_for(S)
        assert link.values("k0")[1] == stays


def test_a_repair_goes_only_to_replicas_that_are_not_up_to_date_and_were_asked() -> None:
    """read_repair.adoc: "If read repair is performed it is made only on the replicas that are not up-to-date and that are involved in the read request." """
    link = seen_by_one_replica_only(read_consistency="TWO")
    assert link.wait(link.request(4, "read", "k0")).result == "v"  # asked 0 and 1
    link.run_for(S)
    assert link.values("k0")[:3] == ["v", "v", None]


def test_a_repair_that_may_not_be_acknowledged_is_sent_to_a_replica_that_was_not_asked() -> None:
    """read_repair.adoc: "Cassandra 4.0 will also speculatively send a repair mutation to a minority of nodes not involved in the read repair data read / write
    cycle ... accepts acks from them in lieu of acks from the initial mutations sent out"."""

    class Deaf(Cassandra):
        def _on_repair(self, src: int, message: Any) -> None:
            if self.node != 1:
                super()._on_repair(src, message)

    Deaf.HANDLERS = {**Cassandra.HANDLERS, ReadRepair: Deaf._on_repair}
    for percentile in (S, 2_400_000):  # of the writes: also one above their time-out is waited for (BlockingPartitionRepair.maybeSendAdditionalWrites)
        link = seen_by_one_replica_only(policy=Deaf, past_reads=1000)
        link.run_for(6 * S)
        link.replica(4).writes.percentile.value_us = percentile
        asked = link.now
        reply = link.wait(link.request(4, "read", "k0"))
        assert (reply.outcome, reply.result, link.values("k0")[:3]) == ("ok", "v", ["v", None, "v"])
        assert percentile < reply.at - asked < percentile + 5_000


def test_a_replica_that_was_asked_and_is_silent_does_not_count_as_up_to_date() -> None:
    """read_repair.adoc, "in 2 successive quorum reads ..." (above): a repair waits for all that the level needs but the replicas that have answered with
    the newest row (DataResolver.resolveWithReadRepair: `replicaPlan.get().withContacts(context.replicas)`).  All three are asked, node 2 in vain."""

    class Silent(Cassandra):
        def _on_read(self, src: int, message: Any) -> None:
            if self.node != 2:
                Cassandra.HANDLERS[ReadRequest](self, src, message)

    Silent.HANDLERS = {**Cassandra.HANDLERS, ReadRequest: Silent._on_read}
    link = seen_by_one_replica_only(policy=Silent, speculative_retry="always")
    reply = link.wait(link.request(4, "read", "k0"))
    assert (reply.outcome, reply.result, link.values("k0")[:3]) == ("ok", "v", ["v", "v", None])


# ---- hints.adoc, guarantees.adoc --------------------------------------------------------------------------------------------------
def test_a_write_at_any_cannot_be_read_until_a_hint_has_brought_it_to_a_replica() -> None:
    """dynamo.adoc, ANY: "the coordinator will later attempt to replay the hint and deliver the mutation to the replicas": till then no replica has it."""
    link = cluster(write_consistency="ANY", read_consistency="ONE")
    link.cut([[0, 1, 2], [3, 4]])
    link.run_for(30 * S)
    assert answered(link, 4, "write", "k0", "v") and not answered(link, 4, "read", "k0")
    link.heal()
    link.run_for(5 * S)
    assert link.wait(link.request(0, "read", "k0")).result is None
    link.run_for(40 * S)
    assert link.wait(link.request(0, "read", "k0")).result == "v"


def test_a_hint_older_than_gc_grace_is_not_applied_lest_it_bring_back_what_was_deleted() -> None:
    """hints.Hint.isLive: a hint lives for the smallest gc_grace_seconds of its tables; later it is acknowledged and not applied."""
    for grace, found in ((3 * S, None), (3600 * S, "v")):
        link = cluster(gc_grace_us=grace)
        link.cut([[2], [0, 1, 3, 4]])
        assert answered(link, 0, "write", "k0", "v")
        link.run_for(10 * S)
        link.heal()
        link.run_for(40 * S)
        assert link.values("k0")[2] == found and any("HintMessage" in line for line in link.log)


def test_hints_are_best_effort_and_only_repair_brings_back_what_they_lost() -> None:
    """hints.adoc: "Hints are best effort, however, and do not guarantee eventual consistency like anti-entropy repair does." The coordinator is lost with the
    hint in its memory."""
    for interval, found in ((0, None), (20 * S, "v")):
        link = cluster(anti_entropy_interval_us=interval)
        link.cut([[2], [0, 1, 3, 4]])
        assert answered(link, 4, "write", "k0", "v")
        link.run_for(3 * S)
        assert link.replica(4).hints.buffer
        link.crash(4)
        link.heal()
        link.restart(4)
        link.run_for(60 * S)
        assert link.values("k0")[2] == found


# ---- dynamo.adoc, "Tunable Consistency" and Paxos ---------------------------------------------------------------------------------
def test_with_w_plus_r_at_most_the_factor_a_read_may_miss_an_acknowledged_write() -> None:
    """dynamo.adoc: writes are visible where levels overlap, "W + R > RF"; ONE and ONE of three, for "throughput, latency, and availability", are not."""
    link = cluster(dynamic_snitch=False)
    link.cut([[1], [0, 2, 3, 4]])
    assert answered(link, 4, "write", "k1", "v")  # k1 on 1 2 3
    assert answered(link, 1, "read", "k1") and link.wait(link.request(1, "read", "k1")).result is None


def test_lightweight_transactions_on_one_key_are_ordered_whoever_coordinates() -> None:
    """guarantees.adoc: "Lightweight transactions with linearizable consistency": what one acknowledged, the next serial read finds, whoever coordinates."""
    link = cluster(write_consistency="SERIAL", read_consistency="SERIAL")
    for node in (0, 3, 1, 4, 2):
        assert link.wait(link.request(node, "write", "k0", f"by {node}")).outcome == "ok"
        assert link.wait(link.request((node + 2) % 5, "read", "k0")).result == f"by {node}"
