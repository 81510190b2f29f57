"""The `cassandra` policy, a sentence of its sources a test: the recorded runs of 5.0.4 (reference/real_servers.md), the manual, the code.

Five nodes, one key in each ring range (`key_number`): k0 on nodes 0 1 2, k1 on 1 2 3, k2 on 2 3 4, k3 on 3 4 0, k4 on 4 0 1.
"""

from __future__ import annotations

from typing import Any

import pytest

from capray.metrics import measure
from capray.policies import ring
from capray.policies.cassandra.hints import Hints
from capray.policies.cassandra.replica import Cassandra
from capray.policies.cassandra.settings import CassandraSettings
from capray.scenario import from_dict
from capray.streams import Stream
from capray.testing import FakeLink
from capray.trial import simulate

S = 1_000_000
MINORITY = [[0, 1], [2, 3, 4]]


def cluster(nodes: int = 5, policy: type[Cassandra] = Cassandra, **settings: Any) -> FakeLink:
    """A cluster of one key a range, three replicas, two seconds old."""
    link = FakeLink(policy, nodes, CassandraSettings(partitioner="key_number", **settings))
    link.run_for(2 * S)
    return link


def ask(link: FakeLink, node: int, f: str, key: str, value: Any = None) -> tuple[str, Any, str | None, int]:
    """A client's request, waited for: outcome, result, error, microseconds."""
    begun = link.now
    reply = link.wait(link.request(node, f, key, value))
    return reply.outcome, reply.result, reply.error, reply.at - begun


def convicted(link: FakeLink, node: int) -> list[int]:
    """Whom a node takes for down."""
    return [peer for peer, alive in enumerate(link.replica(node).gossiper.alive) if not alive]


# ---- a healthy cluster ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("coordinator", range(5))
@pytest.mark.parametrize("level", ["ONE", "TWO", "THREE", "QUORUM", "ALL", "LOCAL_ONE", "LOCAL_QUORUM", "EACH_QUORUM"])
def test_any_node_coordinates_whether_it_holds_a_replica_or_not(coordinator: int, level: Any) -> None:
    link = cluster(read_consistency=level, write_consistency=level)
    assert ask(link, coordinator, "write", "k2", "v")[0] == "ok"
    link.run_for(S)
    assert link.values("k2") == [None, None, "v", "v", "v"]
    assert ask(link, coordinator, "read", "k2")[:2] == ("ok", "v")


def test_a_read_of_a_key_that_nobody_wrote_answers_none() -> None:
    link = cluster(read_consistency="QUORUM")
    assert ask(link, 0, "read", "k3") == ("ok", None, None, 500)


def test_the_coordinator_writes_to_all_replicas_and_waits_for_as_many_as_the_level_needs() -> None:
    link = cluster(write_consistency="ONE")
    outcome, _, _, took = ask(link, 0, "write", "k0", "v")
    assert (outcome, took) == ("ok", 0)  # its own replica is enough
    link.run_for(250)
    assert link.values("k0")[:3] == ["v", "v", "v"]


def test_transcript_of_a_quorum_write_and_a_quorum_read_through_a_node_that_is_no_replica() -> None:
    """Data from the first replica, a digest from the second; the third is written but not read."""
    link = cluster(read_consistency="QUORUM", write_consistency="QUORUM")
    before = len(link.log)
    ask(link, 4, "write", "k0", "v")
    link.run_for(1000)
    ask(link, 4, "read", "k0")
    lines = [line.split(None, 1)[1] for line in link.log[before:] if "Gossip" not in line]
    kinds = [line.replace(",", " ").split("(")[0] for line in lines]
    assert [k for k in kinds if "Mutation" in k and "Ack" not in k] == ["4 -> 0 Mutation", "4 -> 1 Mutation", "4 -> 2 Mutation"]
    assert [k for k in kinds if "Read" in k] == ["4 -> 0 ReadRequest", "4 -> 1 ReadRequest", "0 -> 4 ReadData", "1 -> 4 ReadDigest"]
    assert lines[-1] == "4 -> client #2 ok 'v'"


# ---- a cut, before conviction -----------------------------------------------------------------------------------------------------


def test_until_a_peer_is_convicted_nothing_is_refused_and_a_write_times_out_after_2_s_a_read_after_5_s() -> None:
    """ "given time, the coordinator answers WriteTimeout after 2.0 s and ReadTimeout after 5.0 s"."""
    link = cluster(read_consistency="QUORUM", write_consistency="QUORUM")
    link.cut(MINORITY)
    write, read = link.request(0, "write", "k2", "v"), link.request(0, "read", "k2")
    link.run_for(1_999_999)
    assert not link.replies
    link.run_for(10 * S)
    assert (link.replies[write].outcome, link.replies[write].error, link.replies[write].at) == ("info", "WriteTimeout", 4 * S)
    assert (link.replies[read].outcome, link.replies[read].error, link.replies[read].at) == ("fail", "ReadTimeout", 7 * S)


@pytest.mark.parametrize("level, needed", [("ONE", 1), ("QUORUM", 2), ("ALL", 3)])
def test_with_enough_replicas_on_its_side_a_write_never_fails_also_where_the_coordinator_is_no_replica(level: Any, needed: int) -> None:
    link = cluster(write_consistency=level)
    link.cut(MINORITY)
    for node in range(5):
        for key in ("k0", "k1", "k2", "k3", "k4"):
            side = {0, 1} if node < 2 else {2, 3, 4}
            asked = link.request(node, "write", key, f"{node}{key}")
            link.run_for(1000)
            assert (asked in link.replies) == (len(side & set(Cassandra.placement(key, 5, link.settings))) >= needed)


def test_a_write_sent_into_a_cut_is_dropped_as_expired_when_tcp_delivers_it_and_the_hint_brings_it() -> None:
    """internode_timeout: the receiver heeds the sender's time of creation.  Hints come by the files' 10 s ticks: 5 to 18 s and more."""
    link = cluster(write_consistency="ONE")
    link.cut(MINORITY)
    ask(link, 0, "write", "k0", "v")
    link.run_for(4 * S)
    link.heal()
    link.run_for(10_000)
    assert link.values("k0") == ["v", "v", None, None, None]
    link.run_for(40 * S)
    assert link.values("k0")[:3] == ["v", "v", "v"]


@pytest.mark.parametrize("level", ["ONE", "ANY"])
def test_a_hint_is_written_when_the_time_out_expires_not_before(level: str) -> None:
    """The reaper passes each second: between 2 and 3 s.  AbstractWriteResponseHandler.onFailure asks for no level: also at ANY a replica that was silent while
    another acknowledged gets its hint."""
    link = cluster(write_consistency=level)
    link.cut(MINORITY)
    ask(link, 0, "write", "k0", "v")
    link.run_for(1_999_999)
    assert link.replica(0).hints.buffer == []
    link.run_for(1_000_002)
    assert [(target, hint[0], hint[1][1]) for target, hint in link.replica(0).hints.buffer] == [(2, "k0", "v")]


def test_any_is_answered_when_the_hint_is_stored_after_2_s_before_conviction() -> None:
    """ "before conviction a write without a reachable replica is answered ok after 2.0 s, when its hint is stored"."""
    link = cluster(write_consistency="ANY")
    link.cut(MINORITY)
    assert ask(link, 0, "write", "k2", "v") == ("ok", None, None, 2 * S)
    assert [target for target, _ in link.replica(0).hints.buffer] == [2, 3, 4]


def test_any_without_hinted_handoff_can_only_time_out() -> None:
    link = cluster(write_consistency="ANY", hinted_handoff=False)
    link.cut(MINORITY)
    assert ask(link, 0, "write", "k2", "v")[:3] == ("info", None, "WriteTimeout")


def test_a_read_asks_as_many_replicas_as_needed_so_it_hangs_although_enough_others_are_there() -> None:
    """ "if too few of those are on its side the read hangs although enough others are there" ... "The first read time-outs, at 5 s, re-rank"."""
    link = cluster(speculative_retry="never")
    link.cut([[0, 3, 4], [1, 2]])
    assert ask(link, 4, "write", "k1", "v")[0] == "ok"  # node 3 took it
    assert ask(link, 4, "read", "k1")[2] == "ReadTimeout"  # asked node 1
    link.run_for(2 * S)
    assert ask(link, 4, "read", "k1")[2] == "ReadTimeout"  # asked node 2
    link.run_for(2 * S)
    assert ask(link, 4, "read", "k1") == ("ok", "v", None, 500)


def test_speculative_retry_asks_one_more_replica_after_the_99th_percentile() -> None:
    link = cluster(dynamic_snitch=False)
    for _ in range(100):
        ask(link, 4, "read", "k0")
    link.run_for(5 * S)
    link.cut([[0], [1, 2, 3, 4]])
    outcome, _, _, took = ask(link, 4, "read", "k0")
    assert outcome == "ok" and 500 < took < 2000


@pytest.mark.parametrize("coordinator, asked", [(4, 1), (1, 1)])
def test_the_snitch_counts_the_wait_before_a_speculative_read_also_for_the_coordinators_own_replica(coordinator: int, asked: int) -> None:
    """`Message.outWithFlags(..., requestTime.startedAtNanos(), ...)` and LocalReadRunnable's `preciseTime.now() - requestTime.startedAtNanos()`: so a
    replica that answers a speculative read looks as slow as the one that made it necessary, until that one's time-out is counted at 5 s."""
    link = cluster(past_reads=10_000, dynamic_snitch=False, stage_latency_us=0, local_stage_latency_us=0)
    link.run_for(5 * S)
    reads = link.replica(coordinator).reads
    reads.snitch.enabled = True
    link.cut([[0], [1, 2, 3, 4]])
    assert ask(link, coordinator, "read", "k0")[0] == "ok"
    waited_ms = reads.percentile.threshold(link.replica(coordinator).now) // 1000
    (sample,) = reads.snitch.reservoirs[asked].weights
    assert waited_ms >= 5 and waited_ms - 2 <= sample <= waited_ms + 1


def test_the_snitch_remembers_a_cut_so_that_the_majoritys_reads_do_not_notice_the_next_of_its_shape() -> None:
    """Our own run of 5.0.4 (RF 5, QUORUM, three cuts of 10 s, 42 s apart): .45, 1 and 1 of the majority's reads.  Whoever timed out is asked last, so
    never again where enough others answer, until all samples are dropped after 10 min (DynamicEndpointSnitch.reset)."""
    settings = {"partitioner": "key_number", "replication_factor": 5, "read_consistency": "QUORUM", "write_consistency": "QUORUM"}
    cuts = [{"kind": "partition", "shape": "0,1|2,3,4", "at_us": at * S, "for_us": 7 * S} for at in (5, 24)]
    raw = {"policy": "cassandra", "nodes": 5, "settings": settings, "workload": {"rate": 10, "keys": 5}, "duration_us": 31 * S, "faults": cuts}
    record = simulate(from_dict(raw), 0)
    shares = []
    for cut in record.faults:
        reads = [op for op in record.history if op.f == "read" and op.node in (2, 3, 4) and cut.at <= op.invoke < (cut.until or 0)]
        shares.append(sum(op.type == "ok" for op in reads) / len(reads))
    assert shares[0] < 0.9 and shares[1] == 1


def test_timed_out_reads_raise_the_percentile_above_the_timeout_and_end_speculation() -> None:
    """AbstractReadExecutor.shouldSpeculateAndMaybeWait: where sampleLatencyNanos > command.getTimeout(NANOSECONDS) there is "no latency information, or we're
    overloaded"."""
    link = cluster(past_reads=100, past_read_timeouts=(1000,) * 5, dynamic_snitch=False)
    link.run_for(5 * S)
    replica = link.replica(4)
    assert replica.reads.percentile.threshold(replica.now) > 5 * S
    link.cut([[0], [1, 2, 3, 4]])
    assert ask(link, 4, "read", "k0")[2] == "ReadTimeout"


# ---- conviction -------------------------------------------------------------------------------------------------------------------


def test_a_peer_is_down_about_20_s_after_the_first_cut_of_a_fresh_cluster() -> None:
    """ "phi 8 means 18.4 x the mean heartbeat interval (about 1.05 s) ... about 20 s (18.9 to 22.6)"."""
    link = cluster()
    link.run_for(8 * S)
    link.cut(MINORITY)
    link.run_for(5 * S)  # what one of a side had heard last has reached the other by gossip
    windows = {(node, peer): link.replica(node).gossiper.windows[peer] for node in range(5) for peer in range(5) if (node < 2) != (peer < 2)}
    due = {pair: window.last + window.conviction_after(8) for pair, window in windows.items()}
    down: dict[tuple[int, int], int] = {}
    for _ in range(200):
        link.run_for(S // 10)
        for node in range(5):
            for peer in convicted(link, node):
                down.setdefault((node, peer), link.now)
    assert len(down) == 12  # each of a side convicts each of the other
    assert all(due[pair] < at <= due[pair] + S + S // 10 for pair, at in down.items()), "phi is looked at once a round of gossip, the test each 0.1 s"
    assert 18_900_000 < sum(down.values()) / 12 - 10 * S < 22_600_000  # the servers' are from the cut, ours single ones less by the last heartbeat's age


def test_after_conviction_it_answers_unavailable_at_once() -> None:
    link = cluster(read_consistency="QUORUM", write_consistency="QUORUM")
    link.cut(MINORITY)
    link.run_for(30 * S)
    assert convicted(link, 0) == [2, 3, 4] and convicted(link, 2) == [0, 1]
    assert ask(link, 0, "write", "k2", "v") == ("fail", None, "UNAVAILABLE", 0)
    assert ask(link, 0, "read", "k2") == ("fail", None, "UNAVAILABLE", 0)
    assert link.values("k2") == [None] * 5
    assert ask(link, 2, "write", "k1", "w")[0] == "ok"


def test_after_conviction_hints_are_written_at_once_and_any_is_answered_at_once() -> None:
    link = cluster(write_consistency="ANY")
    link.cut(MINORITY)
    link.run_for(30 * S)
    assert ask(link, 0, "write", "k2", "v") == ("ok", None, None, 0)
    assert [target for target, _ in link.replica(0).hints.buffer] == [2, 3, 4]


def test_a_convicted_peer_comes_back_when_its_gossip_is_heard_and_its_echo_answered() -> None:
    link = cluster()
    link.cut(MINORITY)
    link.run_for(60 * S)
    link.heal()
    link.run_for(6 * S)
    assert [convicted(link, node) for node in range(5)] == [[]] * 5


def test_each_cut_delays_the_next_conviction_because_the_gap_stays_among_the_samples() -> None:
    def convicts_within(max_interval: int) -> int:
        link = cluster(fd_max_interval_us=max_interval)
        for _ in range(2):
            link.run_for(10 * S)
            link.cut(MINORITY)
            link.run_for(15 * S)
            link.heal()
        link.run_for(10 * S)
        link.cut(MINORITY)
        begun = link.now
        while not convicted(link, 0):
            link.run_for(S)
        return link.now - begun

    assert convicts_within(2_000_000_000_000) > convicts_within(2 * S) + 3 * S


def test_hints_end_with_the_window() -> None:
    """max_hint_window: a replica down for longer gets none; the next repair has to bring it."""
    link = cluster(write_consistency="ONE", max_hint_window_us=10 * S)
    link.cut(MINORITY)
    link.run_for(45 * S)
    ask(link, 0, "write", "k0", "late")
    assert link.replica(0).hints.buffer == []
    link.heal()
    link.run_for(60 * S)
    assert link.values("k0")[:3] == ["late", "late", None]


# ---- heal -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut_us", [5 * S, 40 * S])
def test_after_heal_every_replica_holds_the_newest_write(cut_us: int) -> None:
    link = cluster(write_consistency="ONE")
    link.cut(MINORITY)
    ask(link, 0, "write", "k0", "old")
    link.run_for(1000)
    ask(link, 2, "write", "k0", "new")
    link.run_for(cut_us)
    link.heal()
    link.run_for(45 * S)
    assert link.values("k0")[:3] == ["new"] * 3
    assert all(not link.replica(node).hints.stores.get(2) or not link.replica(node).hints.stores[2].files for node in range(5))


def test_hints_sent_to_a_peer_that_is_cut_but_not_convicted_end_partially_and_go_on_later() -> None:
    link = cluster(write_consistency="ONE", phi_convict_threshold=16)
    link.cut(MINORITY)
    ask(link, 0, "write", "k0", "v")
    link.run_for(38 * S)
    store = link.replica(0).hints.stores[2]
    assert store.files and link.values("k0")[2] is None  # sent, not acknowledged, kept
    link.heal()
    link.run_for(12 * S)
    assert link.values("k0")[2] == "v" and not store.files


# ---- reads that disagree ----------------------------------------------------------------------------------------------------------


def stale_third_replica(**settings: Any) -> FakeLink:
    """k0 = "new" on nodes 0 and 1, "old" on node 2, and no hint under way."""
    link = cluster(write_consistency="ONE", read_consistency="ALL", hinted_handoff=False, **settings)
    ask(link, 0, "write", "k0", "old")
    link.run_for(S)
    link.cut([[2], [0, 1, 3, 4]])
    ask(link, 0, "write", "k0", "new")
    link.run_for(4 * S)
    link.heal()
    link.run_for(S)
    assert link.values("k0")[:3] == ["new", "new", "old"]
    return link


def test_a_digest_mismatch_reads_all_rows_and_blocking_read_repair_writes_the_newest_back_before_answering() -> None:
    link = stale_third_replica()
    outcome, result, _, took = ask(link, 3, "read", "k0")
    assert (outcome, result) == ("ok", "new") and took == 3 * 500  # digests, rows, repairs: a round trip each
    assert link.values("k0")[:3] == ["new"] * 3


def test_without_read_repair_the_merged_row_is_answered_and_nothing_written() -> None:
    link = stale_third_replica(read_repair="none")
    assert ask(link, 3, "read", "k0") == ("ok", "new", None, 1000)
    assert link.values("k0")[:3] == ["new", "new", "old"]


def test_a_repair_that_is_not_acknowledged_fails_the_read_when_its_own_timeout_is_over() -> None:
    """BlockingReadRepair.awaitWrites: `requestTime.computeDeadline(getReadRpcTimeout)`."""

    class Deaf(Cassandra):
        def _on_repair(self, src: int, message: Any) -> None:
            pass

    Deaf.HANDLERS = {**Cassandra.HANDLERS, next(m for m in Cassandra.MESSAGES if m.__name__ == "ReadRepair"): Deaf._on_repair}
    link = stale_third_replica(policy=Deaf)
    assert ask(link, 3, "read", "k0") == ("fail", None, "ReadTimeout", 5 * S)


# ---- last write wins --------------------------------------------------------------------------------------------------------------


def test_the_higher_timestamp_wins_so_a_coordinator_whose_clock_is_behind_loses_acknowledged_writes() -> None:
    link = cluster(write_consistency="ALL", read_consistency="ONE")
    link.skew(1, -500_000)
    assert ask(link, 0, "write", "k0", "first")[0] == "ok"
    assert ask(link, 1, "write", "k0", "second")[0] == "ok"
    link.run_for(S)
    assert link.values("k0")[:3] == ["first"] * 3
    assert [v.kind for v in link.versions if v.value == "second"] == ["late"] * 3


def test_a_replica_whose_clock_is_ahead_by_more_than_the_timeout_takes_every_write_for_expired() -> None:
    """cassandra.yaml, internode_timeout: "It is generally assumed that users have setup NTP on their clusters, and that clocks are modestly in sync, since this
    is a requirement for general correctness of last write wins.\""""
    link = cluster(write_consistency="ALL")
    link.skew(2, 3 * S)
    assert ask(link, 0, "write", "k0", "v")[2] == "WriteTimeout"
    link = cluster(write_consistency="ALL", internode_timeout=False)
    link.skew(2, 3 * S)
    assert ask(link, 0, "write", "k0", "v")[0] == "ok"


def test_a_coordinators_timestamps_are_milliseconds_and_never_twice_the_same() -> None:
    replica = Cassandra(0, 3, CassandraSettings(timestamps="coordinator"), Stream(0, "node", 0))
    replica.now = 1_234_567
    assert [replica.writes.timestamp() for _ in range(3)] == [1_234_000, 1_234_001, 1_234_002]
    replica.writes.settings = CassandraSettings(timestamps="client")
    assert replica.writes.timestamp() == 1_234_567


# ---- crashes ----------------------------------------------------------------------------------------------------------------------


def test_a_process_crash_loses_nothing_and_the_node_serves_again_once_gossip_knows_it() -> None:
    link = cluster(write_consistency="ALL", read_consistency="ALL")
    ask(link, 0, "write", "k0", "v")
    link.run_for(S)
    link.crash(1)
    link.run_for(S)
    link.restart(1)
    link.run_for(5 * S)
    assert link.values("k0")[:3] == ["v"] * 3
    assert ask(link, 0, "read", "k0")[:2] == ("ok", "v")


@pytest.mark.parametrize("sync, kept", [("periodic", None), ("batch", "v")])
def test_a_host_crash_loses_what_the_periodic_commit_log_had_not_synced(sync: Any, kept: Any) -> None:
    """cassandra.yaml: "the default option is "periodic" where writes may be acked immediately and the CommitLog is simply synced every commitlog_sync_period
    milliseconds."  """
    link = cluster(write_consistency="ALL", commitlog_sync=sync, hinted_handoff=False)
    assert ask(link, 0, "write", "k0", "v")[0] == "ok"
    link.crash(1, host=True)
    link.run_for(S)
    link.restart(1)
    link.run_for(S)
    assert link.values("k0")[1] == kept


def test_hint_files_outlive_the_process_that_wrote_them() -> None:
    link = cluster(write_consistency="ONE")
    link.cut(MINORITY)
    ask(link, 0, "write", "k0", "v")
    link.run_for(15 * S)  # flushed
    link.crash(0)
    link.heal()
    link.run_for(S)
    link.restart(0)
    link.run_for(40 * S)
    assert link.values("k0")[:3] == ["v"] * 3


# ---- topology ---------------------------------------------------------------------------------------------------------------------


def test_nodes_that_only_coordinate_own_no_range() -> None:
    settings = CassandraSettings(coordinator_only=1, partitioner="key_number")
    assert {n for i in range(20) for n in Cassandra.placement(f"k{i}", 4, settings)} == {0, 1, 2}
    link = cluster(4, coordinator_only=1, reads_sent_to="all", read_repair="none")
    assert ask(link, 3, "write", "k0", "v")[0] == "ok"
    assert ask(link, 3, "read", "k0")[:2] == ("ok", "v")
    asked = [line for line in link.log if "ReadRequest" in line]
    assert len(asked) == 3


def test_local_quorum_works_on_both_sides_of_a_cut_between_data_centres_each_quorum_on_neither() -> None:
    topology: dict[str, Any] = {"strategy": "network_topology", "datacenters": 2, "replication_factor": 3}
    for level, local in (("LOCAL_QUORUM", True), ("EACH_QUORUM", False), ("QUORUM", False)):
        link = cluster(6, read_consistency=level, write_consistency=level, **topology)
        link.cut([[0, 2, 4], [1, 3, 5]])
        replies = [link.request(node, f, "k0", f"{node}" if f == "write" else None) for node in (0, 1) for f in ("write", "read")]
        link.run_for(S)
        assert [r in link.replies for r in replies] == [local] * 4


# ---- broken on purpose ------------------------------------------------------------------------------------------------------------


def test_mutant_that_drops_hints_never_converges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Hints, "write", lambda self, target, key, cell: None)
    with pytest.raises(AssertionError):
        test_after_heal_every_replica_holds_the_newest_write(5 * S)


def test_mutant_whose_quorums_do_not_intersect_reads_stale_after_an_acknowledged_write(monkeypatch: pytest.MonkeyPatch) -> None:
    def story() -> Any:
        settings = {"hinted_handoff": False, "endpoint_snitch": "gossiping_property_file", "driver_own_reads": 0}
        link = cluster(write_consistency="QUORUM", read_consistency="QUORUM", **settings)
        link.cut([[2], [0, 1, 3, 4]])
        ask(link, 0, "write", "k0", "v")
        link.run_for(4 * S)
        link.heal()
        link.run_for(S)
        return ask(link, 2, "read", "k0")[1]

    assert story() == "v"
    monkeypatch.setattr(ring, "quorum", lambda factor: factor // 2)
    assert story() is None


def test_mutant_that_heeds_expired_writes_lets_a_write_land_after_heal_that_had_been_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cassandra, "expired", lambda self, created, timeout: False)
    with pytest.raises(AssertionError):
        test_a_write_sent_into_a_cut_is_dropped_as_expired_when_tcp_delivers_it_and_the_hint_brings_it()


def test_what_a_power_failure_takes_before_the_commit_log_was_synced_is_counted_as_lost() -> None:
    """cassandra.yaml, commitlog_sync: periodic: writes are acknowledged at once and the log is synced every 10 s."""
    faults = [{"kind": "crash-host", "nodes": [0, 1, 2], "at_us": 4_000_000, "for_us": 1_000_000}]
    base = {"policy": "cassandra", "nodes": 3, "faults": faults, "duration_us": 8_000_000, "workload": {"rate": 10, "keys": 2}}
    lost = {}
    for sync in ("periodic", "batch"):
        settings = {"commitlog_sync": sync, "read_consistency": "QUORUM", "write_consistency": "QUORUM"}
        row = measure(simulate(from_dict({**base, "settings": settings}), 0))
        lost[sync] = row["lost_writes"]
    assert lost["batch"] == 0 and lost["periodic"] > 20
