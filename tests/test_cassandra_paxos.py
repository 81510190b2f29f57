"""Lightweight transactions: consistency SERIAL, over a fake link and against a linearizability check."""

from __future__ import annotations

from typing import Any

import pytest

from capray.policies.cassandra.paxos import PROPOSE, Commit, Paxos, Prepare, Propose
from capray.policies.cassandra.replica import Cassandra
from capray.policies.cassandra.settings import CassandraSettings
from capray.streams import Stream
from capray.testing import FakeLink

S = 1_000_000


def cluster(policy: type[Cassandra] = Cassandra, seed: int = 0, **given: Any) -> FakeLink:
    levels = {"read_consistency": "SERIAL", "write_consistency": "SERIAL"}
    link = FakeLink(policy, 5, CassandraSettings(**{"partitioner": "key_number", **levels, **given}), seed=seed)
    link.run_for(2 * S)
    return link


def test_a_lightweight_transaction_takes_four_round_trips_and_a_serial_read_three() -> None:
    """DataStax, Cassandra 3.0, "How do I accomplish lightweight transactions with linearizable consistency?": "These four phases require four round trips
    between a node proposing a lightweight transaction and any cluster replicas involved in the transaction."  (Prepare, read, propose, commit.)  A read
    proposes an empty update and commits none."""
    link = cluster()
    assert link.wait(link.request(4, "write", "k0", "v")).at - 2 * S == 4 * 500
    begun = link.now
    reply = link.wait(link.request(3, "read", "k0"))
    assert (reply.result, reply.at - begun) == ("v", 3 * 500)


def test_without_a_quorum_it_times_out_before_conviction_and_is_refused_after() -> None:
    link = cluster()
    link.cut([[0, 1], [2, 3, 4]])
    write, read = link.wait(link.request(0, "write", "k2", "v")), link.wait(link.request(0, "read", "k2"))
    assert (write.outcome, write.error) == ("info", "CasWriteTimeout")
    assert (read.outcome, read.error) == ("fail", "ReadTimeout (SERIAL)")
    link.run_for(30 * S)
    assert link.wait(link.request(0, "write", "k2", "v")).error == "UNAVAILABLE"


def test_all_phases_together_have_the_write_timeout_from_the_request() -> None:
    """RequestTime.computeTimeout: prepared and read by 1 ms, proposed into a cut, and answered 2 s after the request, not after the proposal."""
    link = cluster()
    asked, begun = link.request(0, "write", "k0", "v"), link.now
    link.run_for(1100)
    link.cut([[0], [1, 2, 3, 4]])
    reply = link.wait(asked)
    assert (reply.outcome, reply.error, reply.at - begun) == ("info", "CasWriteTimeout", 2 * S)


def test_what_a_quorum_accepted_is_finished_by_the_next_transaction_though_its_proposer_is_gone() -> None:
    link = cluster()
    asked = link.request(4, "write", "k0", "v")
    link.run_for(1300)  # proposals are on their way, after the round trips of prepare and read
    link.crash(4)
    link.run_for(S)
    assert link.values("k0") == [None, None, None, None, None] and link.replies[asked].outcome == "info"
    assert link.wait(link.request(3, "read", "k0")).result == "v"
    link.run_for(S)
    assert link.values("k0")[:3] == ["v"] * 3


def test_contending_proposers_all_come_through_or_time_out_and_replicas_agree() -> None:
    link = cluster()
    asked = [link.request(node, "write", "k0", f"v{node}") for node in range(5)]
    link.run_for(5 * S)
    outcomes = [link.replies[a].outcome for a in asked]
    assert "ok" in outcomes and set(outcomes) <= {"ok", "info"}
    assert len(set(link.values("k0")[:3])) == 1


def test_the_row_is_read_of_a_quorum_only_so_that_a_cut_off_replica_can_hang_a_transaction_that_a_quorum_has_promised() -> None:
    """readOne at QUORUM asks two of three in the snitch's order; speculative retry, or the time-outs that re-rank the replicas, end it."""
    link = cluster(dynamic_snitch=False, speculative_retry="never")
    link.cut([[1], [0, 2, 3, 4]])
    assert [link.wait(link.request(0, f, "k0", "v")).error for f in ("write", "read")] == ["ReadTimeout", "ReadTimeout"]
    assert link.wait(link.request(0, "write", "k4", "v")).outcome == "ok"  # replicas 4, 0, 1: the first two are on this side
    retried = cluster(dynamic_snitch=False, speculative_retry="99p", past_reads=1000)
    retried.run_for(6 * S)
    retried.cut([[1], [0, 2, 3, 4]])
    assert [retried.wait(retried.request(0, f, "k0", "v")).outcome for f in ("write", "read")] == ["ok", "ok"]


@pytest.mark.parametrize("f", ["write", "read"])
def test_a_proposal_accepted_in_part_and_refused_in_part_has_an_unknown_result(f: str) -> None:
    """CasWriteUnknownResultException, of a write and of a serial read's empty proposal alike: somebody may finish what one replica accepted."""
    link = cluster()
    asked, began = link.request(0, f, "k0", "v"), link.now
    higher = (began + 400_000, 9)
    while link.replica(0).paxos.open and next(iter(link.replica(0).paxos.open.values())).phase != PROPOSE:
        link.run_for(50)
    for node in (1, 2):
        link.replica(node).paxos._register("k0").promised = higher
    reply = link.wait(asked)
    assert (reply.outcome, reply.error) == ("info" if f == "write" else "fail", "CasWriteUnknown")


def test_promises_outlive_a_process_crash() -> None:
    link = cluster()
    link.wait(link.request(4, "write", "k0", "v"))
    link.run_for(S)
    before = link.replica(0).paxos.registers["k0"].promised
    link.crash(0)
    link.restart(0)
    assert link.replica(0).paxos.registers["k0"].promised == before > (0, 0)


# ---- linearizability --------------------------------------------------------------------------------------------------------------


def linearizable(operations: list[Any]) -> bool:
    """Brute force for one register: is there an order that real time and reads allow?  Writes of unknown outcome may be left out."""
    ops = [o for o in operations if not (o.type == "fail" or (o.type == "info" and o.f == "read"))]
    seen: set[tuple[frozenset[int], Any]] = set()

    def search(left: frozenset[int], value: Any) -> bool:
        if all(ops[i].type == "info" for i in left):
            return True
        if (left, value) in seen:
            return False
        seen.add((left, value))
        first_end = min(ops[i].complete for i in left if ops[i].complete is not None)
        for i in sorted(left):
            op = ops[i]
            if op.invoke <= first_end and (op.f == "write" or op.result == value) and search(left - {i}, op.value if op.f == "write" else value):
                return True
        return False

    return search(frozenset(range(len(ops))), None)


def storm(seed: int, **given: Any) -> list[Any]:
    """Five nodes at one key through cuts of every kind, a crash of a process, and skewed clocks."""
    link = cluster(seed=seed, **given)
    stream = Stream(seed, "storm")
    for node in range(5):
        link.skew(node, stream.below(400_000) - 200_000)
    for step in range(24):
        node, f = stream.below(5), ("read", "read", "write")[stream.below(3)]
        if link.is_up(node):
            link.request(node, f, "k0", step if f == "write" else None, session=step)
        link.run_for(stream.below(2500))
        if stream.below(6) == 0:
            away = stream.below(5)
            link.cut([[away, (away + 1) % 5], [n for n in range(5) if n not in (away, (away + 1) % 5)]], mode="drop")
        elif stream.below(5) == 0:
            link.heal()
            link.run_for(stream.below(300_000))
        elif stream.below(10) == 0 and all(link.is_up(n) for n in range(5)):
            link.crash(stream.below(3))
        elif stream.below(4) == 0:
            for n in range(5):
                if not link.is_up(n):
                    link.restart(n)
    link.heal()
    for n in range(5):
        if not link.is_up(n):
            link.restart(n)
    link.run_for(5 * S)
    for n in range(5):
        link.wait(link.request(n, "read", "k0", session=100))
    return link.history()


@pytest.mark.parametrize("repair", ["blocking", "none"])
def test_serial_is_linearizable_through_cuts_crashes_and_skew(repair: str) -> None:
    for seed in range(20):
        assert linearizable(storm(seed, read_repair=repair)), seed


def test_mutant_that_forgets_what_was_accepted_loses_what_a_quorum_has_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    def blind(self: Paxos, t: Any) -> None:
        if t.read:
            self._propose(t, (-1, None, 0))
        else:
            self._read_row(t)

    monkeypatch.setattr(Paxos, "_promised", blind)
    with pytest.raises(AssertionError):
        test_what_a_quorum_accepted_is_finished_by_the_next_transaction_though_its_proposer_is_gone()


def test_mutant_with_quorums_of_one_is_not_linearizable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Paxos, "_quorum", lambda self, t: 1)
    assert not all(linearizable(storm(seed)) for seed in range(100))


def test_what_one_serial_read_has_seen_a_later_one_sees_too() -> None:
    """A decision that was committed on one replica only, and read there: the read brings it to a quorum first, so that the loss of that replica hides nothing."""
    link = cluster(read_repair="none", dynamic_snitch=False, hinted_handoff=False)
    link.request(0, "write", "k0", "v")
    while link.values("k0")[0] is None:
        link.run_for(50)
    link.cut([[0], [1, 2, 3, 4]], mode="drop")
    link.run_for(3 * S)
    link.heal()
    assert link.values("k0")[:3] == ["v", None, None]
    assert link.wait(link.request(0, "read", "k0")).result == "v"
    link.crash(0)
    link.run_for(40 * S)
    assert link.wait(link.request(1, "read", "k0")).result == "v"


def test_mutant_that_reads_without_a_ballot_goes_backwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Paxos, "_prepare", _read_straight_away(Paxos._prepare))
    with pytest.raises(AssertionError, match="None == 'v'"):
        test_what_one_serial_read_has_seen_a_later_one_sees_too()


def _read_straight_away(prepare: Any) -> Any:
    def hasty(self: Paxos, t: Any) -> None:
        if t.read:
            self._read_row(t)
        else:
            prepare(self, t)

    return hasty


def test_of_two_ballots_of_one_microsecond_the_second_is_refused_since_cells_are_stamped_by_it() -> None:
    """Commit.isAfter compares the ballots' times alone; else two decisions would carry one timestamp, and the larger value would win over the later."""
    link = cluster()
    paxos, time = link.replica(1).paxos, 5 * S
    for node in (0, 2, 4):
        paxos.on_prepare(node, Prepare(node, "k0", (time, node), link.now))
        paxos.on_propose(node, Propose(node, "k0", (time, node), (time, f"v{node}", 0), link.now))
    register = paxos._register("k0")
    assert (register.promised, register.accepted) == ((time, 0), (time, 0))


def hinted(link: FakeLink, node: int) -> list[int]:
    """For whom a node keeps hints that are not on disk yet."""
    return [target for target, _ in link.replica(node).hints.buffer]


def test_a_commit_that_comes_after_the_write_timeout_has_expired_and_the_silent_replica_has_a_hint() -> None:
    """PAXOS_COMMIT_REQ has writeTimeout (net.Verb); AbstractWriteResponseHandler.onFailure hints whom the callbacks expired for."""
    link = cluster(dynamic_snitch=False)
    link.cut([[2], [0, 1, 3, 4]])
    assert link.wait(link.request(4, "write", "k0", "v")).outcome == "ok"
    link.run_for(4 * S)
    assert hinted(link, 4) == [2]
    link.heal()
    link.run_for(S)
    assert link.values("k0")[:3] == ["v", "v", None]


def test_whom_the_end_of_an_earlier_transaction_did_not_reach_has_a_hint_too() -> None:
    """commitPaxos(refreshedInProgress, ..., allowHints false) stores none for those that are down; for the silent its callbacks do."""
    link = cluster(dynamic_snitch=False)
    link.request(4, "write", "k0", "v")
    link.run_for(1300)
    link.crash(4)
    link.cut([[2], [0, 1, 3]])
    assert link.wait(link.request(3, "read", "k0")).result == "v"
    link.run_for(4 * S)
    assert hinted(link, 3) == [2]


def test_ballots_are_stamped_in_milliseconds_and_what_a_clock_ahead_has_promised_is_not_remembered() -> None:
    """ClientState.getTimestampForPaxos: "a single node in the future could corrupt the clock of all nodes" (CASSANDRA-11991)."""
    replica = Cassandra(0, 5, CassandraSettings(), Stream(0, "node", 0))
    replica.now = 7_654_321
    times = [replica.paxos._ballot_time(least) for least in (0, 0, 9_000_000, 9_000_000, 0)]
    assert times == [7_654_000, 7_654_001, 9_000_000, 9_000_000, 7_654_002]


def test_a_coordinator_whose_clock_is_behind_is_refused_first_and_then_goes_above_what_was_promised() -> None:
    link = cluster()
    link.skew(3, 5 * S)
    assert link.wait(link.request(3, "write", "k0", "ahead")).outcome == "ok"
    link.log.clear()
    assert link.wait(link.request(4, "write", "k0", "behind")).outcome == "ok"
    assert sum("4 -> 0 Prepare(" in line for line in link.log) == 2
    link.run_for(S)
    assert link.values("k0")[:3] == ["behind"] * 3


def test_what_is_older_than_the_last_commit_here_is_refused_though_that_ones_prepare_never_came() -> None:
    """PaxosState.legacyPrepare, legacyPropose: latestWitnessedOrLowBound is the latest of promised, accepted and committed."""
    link = cluster()
    paxos = link.replica(0).paxos
    paxos.on_commit(1, Commit(0, "k0", (5000, 1), (5000, "v", 0), link.now))
    paxos.on_prepare(4, Prepare(9, "k0", (4000, 4), link.now))
    assert not link.replica(0).effects[-1][2].promised
    paxos.on_propose(4, Propose(9, "k0", (4000, 4), (4000, "old", 0), link.now))
    assert not link.replica(0).effects[-1][2].accepted
