"""etcd: the sentences of Raft's papers and of etcd's sources one by one, and protocols broken on purpose."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from capray.checkers.zones import linearizable_register
from capray.errors import InputError
from capray.policies.etcd.raft_messages import (
    NONE,
    Append,
    AppendResponse,
    Entry,
    HardState,
    Heartbeat,
    Persisted,
    PreVote,
    ReadIndex,
    Vote,
    VoteResponse,
)
from capray.policies.etcd.raft_streams import LINK_HEARTBEAT, WRITER
from capray.policies.etcd.replica import CONNECTION_LOST, LEADER_CHANGED, NOT_PROPOSED, TIMED_OUT, Etcd
from capray.policies.etcd.settings import EtcdSettings
from capray.replica import PERSIST, SEND, SET_TIMER
from capray.scenario import Scenario, from_dict
from capray.streams import Stream
from capray.tcp import redial_at
from capray.testing import FakeLink
from capray.trial import Trial, simulate
from capray.windows import simulate_in_windows

S = 1_000_000
EMPTY = Entry(1, NONE, 0, "", None)


def cluster(nodes: int = 3, policy: type[Etcd] = Etcd, seed: int = 0, **given: Any) -> FakeLink:
    """A cluster that has a leader and has settled."""
    link = FakeLink(policy, nodes=nodes, settings=EtcdSettings(**given), seed=seed)
    link.run_for(3 * S)
    return link


def leader(link: FakeLink, among: list[int] | None = None) -> int:
    """The node that leads the highest term."""
    return max((n for n in among or range(link.nodes) if link.is_up(n) and link.replica(n).state == "leader"), key=lambda n: link.replica(n).term)


def others(link: FakeLink, *nodes: int) -> list[int]:
    return [n for n in range(link.nodes) if n not in nodes]


def alone(nodes: int = 3, policy: type[Etcd] = Etcd, **given: Any) -> Etcd:
    """One member, driven by hand."""
    member = policy(0, nodes, EtcdSettings(**given), Stream(0, "replica", 0))
    member.on_start()
    sent(member)
    return member


def sent(member: Etcd) -> list[tuple[int, Any]]:
    """What it has sent to others since it was last asked; its disk is quick."""
    said = []
    while member.effects:
        effects, member.effects = member.effects, []
        for _, to, message in (effect for effect in effects if effect[0] == SEND):
            if isinstance(message, Persisted):
                member.on_message(to, message)
            else:
                said.append((to, message))
    return said


# ---- elections (ATC 2014, 5.1, 5.2, 5.4.1) ------------------------------------------------------------------------------------------------
def test_a_write_as_a_transcript() -> None:
    """A follower's write: proposed to the leader, appended everywhere, answered where it was asked once it is
    applied there; then everyone learns the commit."""
    link = cluster()
    at = leader(link)
    node = others(link, at)[0]
    link.log.clear()
    link.wait(link.request(node, "write", "x", "a"))
    link.run_for(1000)
    told = [line.split("ms ", 1)[1].split("(")[0] for line in link.log if "Heartbeat" not in line and "Persisted" not in line]
    third = others(link, at, node)[0]
    assert told[0] == f"client -> {node} #1 write" and told[1] == f"{node} -> {at} Propose"
    assert sorted(told[2:4]) == sorted(f"{at} -> {n} Append" for n in (node, third))
    assert f"{node} -> client #1 ok" in told[-4:]
    assert link.values("x") == ["a"] * 3


def test_one_vote_a_term_first_come_first_served() -> None:
    """5.2: "Each server will vote for at most one candidate in a given term, on a first-come-first-served basis." """
    member = alone()
    member.on_message(1, Vote(5, 0, 0))
    member.on_message(2, Vote(5, 0, 0))
    member.on_message(1, Vote(5, 0, 0))
    assert sent(member) == [(1, VoteResponse(5, False)), (2, VoteResponse(5, True)), (1, VoteResponse(5, False))]


def test_a_vote_is_on_disk_before_it_is_said() -> None:
    """Figure 2: "Persistent state on all servers: (Updated on stable storage before responding to RPCs)": currentTerm, votedFor, log[]."""
    link = FakeLink(Etcd, nodes=3, sync_us=50_000)
    link.run_for(3 * S)
    asked = next(line for line in link.log if " Vote(" in line)
    granted = next(line for line in link.log if "VoteResponse(" in line and "reject=False" in line and line.split()[1] != line.split()[3])
    assert float(granted.split("ms")[0]) - float(asked.split("ms")[0]) >= 50.0
    follower = others(link, leader(link))[0]
    held = (link.replica(follower).term, link.replica(follower).vote)
    link.crash(follower, host=True)
    link.restart(follower)
    assert (link.replica(follower).term, link.replica(follower).vote) == held and HardState(*held) in link.journal(follower)


def test_the_voter_denies_its_vote_to_a_shorter_log() -> None:
    """5.4.1: "the voter denies its vote if its own log is more up-to-date than that of the candidate." """
    member = alone()
    member.on_message(1, Append(1, 0, 0, (EMPTY, EMPTY), 0))
    member.elapsed = 10  # the lease is over
    sent(member)
    member.on_message(2, Vote(2, 1, 1))
    member.on_message(1, Vote(2, 2, 1))
    assert sent(member) == [(2, VoteResponse(2, True)), (1, VoteResponse(2, False))]


def test_a_leader_of_a_higher_term_is_followed_and_one_of_a_lower_term_is_told() -> None:
    """5.1: "If a candidate or leader discovers that its term is out of date, it immediately reverts to follower state.  If a server receives a request with a
    stale term number, it rejects the request." """
    member = alone()
    member.on_message(1, Append(4, 0, 0, (), 0))
    assert (member.term, member.lead) == (4, 1)
    sent(member)
    member.on_message(2, Append(3, 0, 0, (), 0))
    assert sent(member) == [(2, AppendResponse(4, 0))] and member.lead == 1
    member.on_message(2, AppendResponse(9, 0))
    assert (member.term, member.lead) == (9, NONE)


def test_an_election_timeout_is_ten_to_nineteen_ticks() -> None:
    """etcd-io/raft: "randomizedElectionTimeout is a random number between [electiontimeout, 2 * electiontimeout - 1]." """
    member = alone()
    drawn = set()
    for term in range(1, 400):
        member.become_follower(term, NONE)
        drawn.add(member.timeout)
    assert drawn == set(range(10, 20))


def test_who_heard_a_leader_within_an_election_timeout_ignores_candidates() -> None:
    """Thesis, 4.2.3: "if a server receives a RequestVote request within the minimum election timeout of hearing from a current leader, it does not update its
    term or grant its vote"; and this is what check-quorum brings."""
    for check_quorum in (True, False):
        member = alone(check_quorum=check_quorum)
        member.on_message(1, Append(1, 0, 0, (), 0))
        sent(member)
        member.on_message(2, Vote(7, 0, 0))
        assert member.term == (1 if check_quorum else 7)
        assert bool(sent(member)) != check_quorum


# ---- the log (5.3, 5.4.2, 7) ---------------------------------------------------------------------------------------------------------------
def test_an_append_is_answered_when_it_is_on_disk() -> None:
    """A crash of the host before the disk has it: it was never acknowledged, and is not there."""
    link = FakeLink(Etcd, nodes=3, sync_us=30_000)
    link.run_for(3 * S)
    node = others(link, leader(link))[0]
    link.request(leader(link), "write", "x", "a")
    link.run_for(20_000)
    journalled = [record for record in link.journal(node) if isinstance(record, Append) and record.entries[0].key == "x"]
    answered = [line for line in link.log if f"{node} -> {leader(link)} AppendResponse(term={link.replica(node).term}, index=2" in line]
    assert journalled and not answered
    link.crash(node, host=True)
    link.restart(node)
    assert journalled[0] not in link.journal(node)


def test_an_append_that_brings_nothing_new_does_not_acknowledge_what_is_still_being_written() -> None:
    """Figure 2: "updated on stable storage before responding to RPCs"; the commit index that follows an entry comes sooner than a slow disk."""
    member = alone()
    member.on_message(1, Append(1, 0, 0, (EMPTY,), 0))
    member.on_message(1, Append(1, 1, 1, (), 1))
    synced = [effect[2] for effect in member.effects if effect[0] == SEND]
    assert [type(message) for message in synced] == [Persisted]  # both answers wait for the first one's sync
    assert sent(member) == [(1, AppendResponse(1, 1)), (1, AppendResponse(1, 1))]


def test_a_timer_does_not_wait_for_the_disk() -> None:
    """A read's timers are set and cancelled in the order of its handlers: a leader's append that is being written does not hold them back."""
    member = alone()
    member.on_message(1, Append(2, 0, 0, (EMPTY,), 0))
    kinds = [effect[0] for effect in member.effects]
    assert kinds[kinds.index(PERSIST):] == [PERSIST, PERSIST, SEND]
    member.effects.clear()
    member.on_message(1, Append(3, 1, 1, (EMPTY,), 0))
    member.read(7, "x")
    assert {effect[0] for effect in member.effects} == {SET_TIMER}
    member.effects.clear()
    member.on_message(0, Persisted())
    assert [effect[0] for effect in member.effects] == [SEND, PERSIST, PERSIST, SEND]


def test_only_entries_of_the_leader_s_own_term_are_committed_by_counting() -> None:
    """5.4.2, figure 8: "Raft never commits log entries from previous terms by counting replicas." """
    member = alone()
    member.on_message(1, Append(2, 0, 0, (Entry(2, 1, 1, "x", "old"),), 0))
    sent(member)
    member.elapsed = member.timeout
    member.on_timer("tick")
    term = member.term
    sent(member)
    member.on_message(1, VoteResponse(term, False))
    assert member.state == "leader" and member.log.last == 2
    sent(member)
    member.on_message(1, AppendResponse(term, 1))
    member.on_message(2, AppendResponse(term, 1))
    assert member.commit == 0, "the entry of term 2 is on all three, and still not committed"
    member.on_message(1, AppendResponse(term, 2))
    member.on_message(2, AppendResponse(term, 2))
    assert member.commit == 2 and member.peek("x") == "old"


def test_a_deposed_leader_s_uncommitted_entries_are_overwritten() -> None:
    """5.3: "conflicting entries in follower logs will be overwritten with entries from the leader's log." """
    link = cluster(5)
    old = leader(link)
    link.cut([[old]], mode="drop")
    lost = [link.request(old, "write", "x", f"lost{i}") for i in range(3)]
    link.run_for(5 * S)
    new = leader(link, others(link, old))
    assert link.wait(link.request(new, "write", "x", "kept")).outcome == "ok"
    link.heal()
    link.run_for(12 * S)
    assert all(link.replies[each].outcome == "info" for each in lost)
    assert link.values("x") == ["kept"] * 5
    assert len({tuple(link.replica(n).log.entries) for n in range(5)}) == 1


def test_a_follower_behind_the_compacted_log_gets_a_snapshot() -> None:
    """Section 7: "the leader must occasionally send snapshots to followers that lag behind." """
    link = cluster(snapshot_count=20, snapshot_catchup_entries=5)
    away = others(link, leader(link))[0]
    link.cut([[away]], mode="drop")
    for i in range(60):
        link.wait(link.request(leader(link, others(link, away)), "write", f"k{i % 3}", i))
    assert link.replica(leader(link, others(link, away))).log.offset > 30
    link.heal()
    link.run_for(20 * S)
    assert any(f"-> {away} InstallSnapshot" in line for line in link.log)
    assert [link.values(f"k{i}") for i in range(3)] == [[57] * 3, [58] * 3, [59] * 3]
    link.crash(away)
    link.restart(away)
    assert [link.replica(away).peek(f"k{i}") for i in range(3)] == [57, 58, 59]


def test_a_restarted_member_applies_what_its_log_says_was_committed() -> None:
    """etcd keeps the commit index in its write-ahead log's hard state."""
    link = cluster()
    for i in range(5):
        link.wait(link.request(0, "write", "x", i))
    link.run_for(S)
    for node in range(3):
        link.crash(node)
    for node in range(3):
        link.restart(node)
        assert link.replica(node).peek("x") == 4
    link.run_for(6 * S)
    assert link.wait(link.request(1, "read", "x")).result == 4


# ---- check-quorum, pre-vote (thesis, 6.2, 9.6) -----------------------------------------------------------------------------------------------
def test_a_cut_off_leader_steps_down_within_two_election_timeouts() -> None:
    """Thesis, 6.2: "a leader in Raft steps down if an election timeout elapses without a successful round of heartbeats to a majority of its cluster." """
    link = cluster(5)
    old, at = leader(link), link.now
    link.cut([[old]])
    link.run_for(2 * S + 200_000)
    gone = [when for when, node, role in link.role_changes if node == old and role == "follower" and when > at]
    assert gone and S - 200_000 <= gone[0] - at <= 2 * S + 100_000


@pytest.mark.parametrize("pre_vote", [False, True])
def test_with_pre_vote_a_cut_off_follower_does_not_depose_the_leader(pre_vote: bool) -> None:
    """Thesis, 9.6: "the Pre-Vote algorithm solves the issue of a partitioned server disrupting the cluster when it rejoins"; 3.4 has it off."""
    link = cluster(5, pre_vote=pre_vote)
    lead, away = leader(link), others(link, leader(link))[0]
    term = link.replica(lead).term
    link.cut([[away]], mode="drop")
    link.run_for(10 * S)
    assert (link.replica(away).term == term) == pre_vote
    link.heal()
    link.run_for(8 * S)
    assert (link.replica(lead).term == term and link.replica(lead).state == "leader") == pre_vote
    assert link.wait(link.request(away, "write", "x", 1)).outcome == "ok"


def test_pre_vote_follows_the_version() -> None:
    assert [EtcdSettings(version=v).asks_first for v in ("3.4", "3.5", "3.6")] == [False, True, True]
    assert EtcdSettings(version="3.4", pre_vote=True).asks_first
    member = alone(version="3.5")
    member.elapsed = member.timeout
    member.on_timer("tick")
    assert member.term == 0 and (1, PreVote(1, 0, 0)) in sent(member)


# ---- clients (etcdserver) --------------------------------------------------------------------------------------------------------------------
def test_a_minority_answers_nothing_but_serializable_reads() -> None:
    """etcd's documentation: serializable requests "may access stale data with respect to quorum"; all else needs a quorum."""
    for consistency in ("linearizable", "serializable"):
        link = cluster(5, read_consistency=consistency)
        link.wait(link.request(0, "write", "x", "old"))
        link.run_for(S)
        minority = [leader(link), others(link, leader(link))[0]]
        link.cut([minority])
        link.run_for(4 * S)
        new = leader(link, others(link, *minority))
        assert link.wait(link.request(new, "write", "x", "new")).outcome == "ok"
        read, write = link.request(minority[1], "read", "x"), link.request(minority[0], "write", "x", "never")
        link.run_for(S)
        assert write not in link.replies
        if consistency == "serializable":
            assert link.replies[read].result == "old"
        else:
            assert read not in link.replies and link.wait(link.request(new, "read", "x")).result == "new"


def test_given_more_time_writes_fail_after_7_s_and_reads_after_7_to_14_s() -> None:
    """Measured (etcd 3.4.23): "Given more time than 1 s, writes fail after 7 s ("request timed out"), linearizable reads after 7 to 14 s." """
    link = cluster(5)
    node = leader(link)
    link.cut([[node]], mode="drop")
    link.run_for(3 * S)
    at = link.now
    asked = [link.request(node, f, "x", None if f == "read" else f"w{i}") for i, f in enumerate(("write", "read", "read"))]
    link.run_for(15 * S)
    write, first, second = (link.replies[each] for each in asked)
    assert (write.outcome, write.error, write.at - at) == ("info", NOT_PROPOSED, 7 * S)
    assert (first.outcome, first.error, first.at - at) == ("fail", TIMED_OUT, 7 * S)
    assert (second.outcome, second.error, second.at - at) == ("fail", TIMED_OUT, 14 * S)


def test_a_write_handed_to_a_leader_that_is_gone_times_out_as_etcd_says() -> None:
    """parseProposeCtxErr: "possibly due to connection lost" where the leader's stream was down."""
    link = cluster(3)
    node = others(link, leader(link))[0]
    link.cut([[node]])
    write = link.request(node, "write", "x", "a")
    answer = link.wait(write)
    assert answer.outcome == "info" and answer.error in (TIMED_OUT, CONNECTION_LOST) and answer.at == 10 * S


def test_while_there_is_no_leader_writes_wait_and_then_are_proposed() -> None:
    """etcd-io/raft, node.go: without a leader proposals are not taken from their channel; a client that gives up withdraws its own, a forwarded one stays."""
    for timeout, expected in ((0, "applied"), (S, None)):
        link = cluster(3)
        old = leader(link)
        link.crash(old)
        node = others(link, old)[0]
        link.cut([[n] for n in range(3)], mode="drop")
        link.run_for(4 * S)
        assert link.replica(node).lead == NONE
        write = link.request(node, "write", "x", "applied", timeout_us=timeout)
        link.run_for(2 * S)
        link.heal()
        link.restart(old)
        link.run_for(12 * S)
        assert link.values("x") == [expected] * 3
        assert (link.replies[write].outcome == "ok") == (expected is not None)


def test_a_read_under_way_fails_when_another_leader_is_elected() -> None:
    """v3_server.go: a new leader ends the round under way with "etcdserver: leader changed"; reads that wait for the next round go on."""
    link = cluster(3)
    old = leader(link)
    link.crash(old, host=True)
    node = others(link, old)[0]
    first, second = link.request(node, "read", "x"), link.request(node, "read", "x")
    link.run_for(6 * S)
    assert (link.replies[first].outcome, link.replies[first].error) == ("fail", LEADER_CHANGED)
    assert link.replies[second].outcome == "ok"


def test_a_member_asks_for_its_read_again_when_a_leaders_first_entry_has_been_applied() -> None:
    """v3_server.go, requestCurrentIndex: "first commit in current term: resending ReadIndex request" (so in the binary of 3.4.23); the next is due after
    another readIndexRetryTime ("retryTimer.Reset(readIndexRetryTime)")."""
    member = alone()
    member.on_message(1, Append(1, 0, 0, (EMPTY, Entry(1, 1, 1, "x", "a")), 0))
    member.read(7, "x")
    assert [(to, message.round) for to, message in sent(member) if isinstance(message, ReadIndex)] == [(1, 1)]
    member.on_message(1, Heartbeat(1, 1, NONE, 0))
    assert ("read-retry", 500_000) in [effect[1:3] for effect in member.effects if effect[0] == SET_TIMER]
    assert [(to, message.round) for to, message in sent(member) if isinstance(message, ReadIndex)] == [(1, 2)]
    member.on_message(1, Heartbeat(1, 2, NONE, 0))  # not a leader's first
    assert not [message for _, message in sent(member) if isinstance(message, ReadIndex)]


@pytest.mark.parametrize(("version", "hint"), [("3.4", (4, 0)), ("3.5", (2, 1))])
def test_a_refused_append_is_answered_by_a_hint(version: str, hint: tuple[int, int]) -> None:
    """etcd-io/raft 3.4, handleAppendEntries: "RejectHint: r.raftLog.lastIndex()"; since 3.5 findConflictByTerm's, "a guess on the maximal (index, term) at
    which the logs match" (so 3.6 puts it)."""
    member = alone(version=version)
    old = tuple(Entry(term, 1, i, "x", i) for i, term in enumerate((1, 1, 3, 3)))
    member.on_message(1, Append(3, 0, 0, old, 0))
    sent(member)
    member.on_message(2, Append(4, 4, 2, (), 0))
    refusal = next(message for _, message in sent(member) if isinstance(message, AppendResponse))
    assert refusal.reject and (refusal.hint, refusal.log_term if version != "3.4" else 0) == hint


def test_a_new_leader_confirms_no_read_before_it_has_committed_in_its_term() -> None:
    """Thesis, 6.4: "If the leader has not yet marked an entry from its current term committed, it waits until it has done so." """
    member = alone()
    member.elapsed = member.timeout
    member.on_timer("tick")
    member.on_message(0, VoteResponse(1, False))
    member.on_message(1, VoteResponse(1, False))
    assert member.state == "leader"
    sent(member)
    member.read(7, "x")
    assert not sent(member) and member.postponed
    member.on_message(1, AppendResponse(1, 1))
    member.on_message(2, AppendResponse(1, 1))
    assert not member.postponed and member.unconfirmed


def test_a_leader_with_a_lease_answers_alone_and_a_safe_one_asks() -> None:
    """etcd-io/raft: "ReadOnlyLeaseBased ensures linearizability of the read only request by relying on the
    leader lease.  It can be affected by clock drift." """
    for option, outcome in (("lease", "ok"), ("safe", None)):
        link = cluster(3, read_only_option=option)
        link.wait(link.request(0, "write", "x", "a"))
        link.cut([[leader(link)]])
        read = link.request(leader(link), "read", "x")
        link.run_for(500_000)
        assert (link.replies[read].outcome if read in link.replies else None) == outcome


def test_a_single_member_serves_by_itself() -> None:
    link = cluster(1)
    assert link.wait(link.request(0, "write", "x", "a")).outcome == "ok"
    assert link.wait(link.request(0, "read", "x")).result == "a"
    assert link.wait(link.request(0, "read", "y")).result is None


# ---- streams (rafthttp) ----------------------------------------------------------------------------------------------------------------------
def test_a_peer_that_is_silent_for_five_seconds_is_hung_up_on_and_nothing_queues_for_it() -> None:
    """rafthttp: ConnReadTimeout is 5 s; what a cut leader sent before that dies with the connection."""
    for cut_for, arrives in ((3 * S, True), (8 * S, False)):
        link = cluster(3)
        node = others(link, leader(link))[0]
        link.cut([[node]])
        write = link.request(node, "write", "x", "late")
        link.run_for(cut_for)
        assert all(link.replica(node).connected[peer] == arrives for peer in others(link, node))
        link.heal()
        link.run_for(12 * S)
        assert (link.values("x") == ["late"] * 3) == arrives
        assert link.replies[write].outcome == ("ok" if arrives else "info")


def test_each_direction_comes_back_when_its_own_reader_has_dialled_again() -> None:
    """rafthttp/stream.go: a member's streamReader dials the peer that it wants to hear, and so attaches that peer's streamWriter; a SYN goes out at once and
    after 1 s, a dial lasts 2 s (config.go, peerDialTimeout: 1 s + the election timeout).  What is written before that is lost, and nobody is told."""
    trial = Trial(scenario(faults=({"shape": "0|1,2,3,4", "at": "4s", "for": "8350ms"},)), 1)
    replicas: list[Any] = [node.replica for node in trial.nodes]
    again = set()
    while trial.now < 12 * S:
        trial.advance(trial.now + 100_000)
        for peer, dial in ((pair, connection.dialing[0]) for pair, connection in trial.network.connections.items()):
            if replicas[0].syn_at[peer] > dial >= 0:  # the member has noted when its kernel sent the dial's SYN again
                again.add(replicas[0].syn_at[peer] - redial_at(dial, dial + 1, replicas[0].kernel_phase))
    assert again == {0}
    assert all(replicas[0].post(peer, LINK_HEARTBEAT) and not replicas[0].listening[peer] for peer in range(1, 5))
    back: dict[tuple[int, int], float] = {}
    while trial.now < 14 * S:
        trial.advance(trial.now + 2000)
        for a, b in [pair for peer in range(1, 5) for pair in ((0, peer), (peer, 0))]:
            if replicas[a].listening[b] and (a, b) not in back:
                back[a, b] = trial.now / S - 12.35
                assert replicas[b].writers[a] == WRITER
    assert len(back) == 8 and 0 < min(back.values()) and max(back.values()) <= 1.1
    assert any(abs(back[0, peer] - back[peer, 0]) > 0.1 for peer in range(1, 5))


def test_entries_are_no_sign_of_life_on_the_message_stream() -> None:
    """rafthttp/stream.go: "stream MsgApp v2" and "stream Message" are two connections, each with a time-out of its own; terms and votes come by the second."""
    link = cluster(3)
    replica = link.replica(others(link, leader(link))[0])
    lead, before = replica.lead, replica.heard[replica.lead]
    replica.now += S
    replica.on_message(lead, Append(replica.term, replica.log.last, replica.log.term(replica.log.last), (), replica.commit))
    assert replica.heard[lead] == before
    replica.on_message(lead, Heartbeat(replica.term, replica.commit, NONE, 0))
    assert replica.heard[lead] == replica.now > before


def test_an_idle_cluster_keeps_its_streams() -> None:
    link = cluster(5)
    link.run_for(60 * S)
    assert all(link.replica(n).connected[peer] for n in range(5) for peer in range(5))
    assert len([1 for _, _, role in link.role_changes if role == "leader"]) == 1


# ---- whole trials ------------------------------------------------------------------------------------------------------------------------------
def scenario(policy: str = "capray.policies.etcd.replica:Etcd", faults: tuple[dict[str, Any], ...] = (), **given: Any) -> Scenario:
    return from_dict({"policy": policy, "nodes": 5, "duration": "22s", "workload": {"rate": 8, "keys": 2}, "faults": list(faults), "disk": "fsync-2ms",
                      **given})


TROUBLE: tuple[dict[str, Any], ...] = (
    {"shape": "isolate-leader", "at": "4s", "for": "7s"}, {"kind": "crash-process", "nodes": [1], "at": "6s", "for": "3s"},
    {"kind": "crash-host", "nodes": [3], "at": "12s", "for": "2s"}, {"shape": "ring", "at": "13s", "for": "3s"},
    {"kind": "pause", "nodes": [0], "at": "15s", "for": "2s"})


def test_what_had_waited_for_a_leader_comes_into_its_journal_in_the_order_of_its_log() -> None:
    """5.3: a log is replayed as it was written; a new leader appends an empty entry, then what its clients had waited with, in one handler."""
    link = FakeLink(Etcd, nodes=3, sync_us=20_000)
    link.run_for(3 * S)
    old = leader(link)
    link.cut([[old]])
    while any(link.replica(n).lead != NONE for n in others(link, old)):
        link.run_for(1000)
    for i in range(4):
        for node in others(link, old):
            link.request(node, "write", "x", f"{node} {i}")
    while leader(link) == old:
        link.run_for(1000)
    for i in range(4):
        link.request(leader(link), "write", "x", f"then {i}")
        link.run_for(5000)
    link.run_for(S)
    for node in others(link, old):
        starts = [record.index for record in link.journal(node) if isinstance(record, Append)]
        assert starts == sorted(starts) and (node != leader(link) or len(starts) > 8)


class Figure3:
    """Raft (ATC 2014), figure 3: "Raft guarantees that each of these properties is true at all times." """

    def __init__(self) -> None:
        self.leaders: dict[int, int] = {}  # term -> node
        self.led: dict[int, list[Entry]] = {}  # term -> its leader's log when last looked at
        self.committed: list[Entry] = []  # the longest prefix that any member has held to be committed

    def look(self, replicas: list[Any]) -> None:
        for one in replicas:
            log = one.log.entries
            self.state_machine_safety(log[:one.commit])
            if one.state == "leader":
                self.election_safety(one.term, one.node)
                self.leader_append_only(one.term, log)
                self.leader_completeness(one.term, log)
        for one in replicas:
            for other in replicas[:one.node]:
                self.log_matching(one.log.entries, other.log.entries)

    def election_safety(self, term: int, node: int) -> None:
        """ "at most one leader can be elected in a given term." """
        assert self.leaders.setdefault(term, node) == node

    def leader_append_only(self, term: int, log: list[Entry]) -> None:
        """ "a leader never overwrites or deletes entries in its log; it only appends new entries." """
        before, self.led[term] = self.led.get(term, []), list(log)
        assert log[:len(before)] == before

    def log_matching(self, one: list[Entry], other: list[Entry]) -> None:
        """ "if two logs contain an entry with the same index and term, then the logs are identical in all entries up through the given index." """
        shared = max((i + 1 for i, (a, b) in enumerate(zip(one, other)) if a.term == b.term), default=0)
        assert one[:shared] == other[:shared]

    def leader_completeness(self, term: int, log: list[Entry]) -> None:
        """ "if a log entry is committed in a given term, then that entry will be present in the logs of the leaders for all higher-numbered terms." """
        assert all(i < len(log) and log[i] == entry for i, entry in enumerate(self.committed) if entry.term < term)

    def state_machine_safety(self, committed: list[Entry]) -> None:
        """ "if a server has applied a log entry at a given index to its state machine, no other server will ever
        apply a different log entry for the same index." """
        shared = min(len(committed), len(self.committed))
        assert committed[:shared] == self.committed[:shared]
        if len(committed) > shared:
            self.committed = committed


@pytest.mark.parametrize("seed", range(3))
def test_under_cuts_crashes_and_pauses_it_is_linearizable_and_figure_3_holds_at_all_times(seed: int) -> None:
    trial, rules = Trial(scenario(faults=TROUBLE, settings={"pre_vote": "true"} if seed == 2 else {}), seed), Figure3()
    while trial.now < trial.scenario.end_us:
        trial.advance(trial.now + 50_000)
        rules.look([node.replica for node in trial.nodes])
    record = trial.record()
    assert len(rules.leaders) > 1 and len(rules.committed) > 250
    assert linearizable_register(record.history).status == "valid"
    finals = {(o.key, o.result) for o in record.history if o.final and o.type == "ok"}
    assert len(finals) == 2 and all(a <= b for a, b in pairwise(sorted({o.invoke for o in record.history})))


def test_figure_3_tells_a_member_that_commits_on_too_few() -> None:
    trial, rules = Trial(scenario(f"{CommitsOnTwo.__module__}:CommitsOnTwo", SPLIT, duration="16s"), 0), Figure3()
    with pytest.raises(AssertionError):
        while trial.now < trial.scenario.end_us:
            trial.advance(trial.now + 50_000)
            rules.look([node.replica for node in trial.nodes])


def test_windows_and_one_loop_give_the_same_bytes() -> None:
    chosen = scenario(faults=TROUBLE, duration="18s")
    assert simulate(chosen, 5).digest() == simulate_in_windows(chosen, 5).digest()


# ---- broken on purpose -------------------------------------------------------------------------------------------------------------------------
class ForgetsItsVote(Etcd):
    """Term and vote are not journalled."""

    def save(self, sync: bool = True) -> None:
        self.saved_term, self.saved_vote = self.term, self.vote


class CommitsOnTwo(Etcd):
    """Two of five commit, and keep a leader in office; three elect: these quorums need not intersect."""

    def __init__(self, node: int, nodes: int, settings: Any, stream: Stream) -> None:
        super().__init__(node, nodes, settings, stream)
        self.quorum = 2

    def maybe_commit(self, index: int) -> bool:
        agreed = sorted(self.matches)[-2]
        if agreed <= self.commit or self.log.term(agreed) != self.term:
            return False
        self.commit_to(agreed)
        return True


class ReadsOnItsWord(Etcd):
    """A leader answers reads without asking whether it still is one, and no quorum check deposes it."""

    def confirm(self, reader: int, round: int) -> None:
        self.hand_back(reader, round, self.commit)

    def check_quorum(self) -> None:
        pass


class VotesForAnyLog(Etcd):
    """The election restriction is forgotten."""

    def on_vote(self, src: int, message: Vote) -> None:
        super().on_vote(src, Vote(message.term, max(message.index, self.log.last), max(message.log_term, self.log.last_term)))


class AppliesBeforeCommit(Etcd):
    """A leader answers a write as soon as it is in its own log."""

    def lead_append(self, entry: Entry) -> None:
        super().lead_append(entry)
        self.commit_to(self.log.last)


SPLIT: tuple[dict[str, Any], ...] = ({"shape": "leader-minority", "at": "4s", "for": "8s"},)


@pytest.mark.parametrize("mutant", [CommitsOnTwo, ReadsOnItsWord, AppliesBeforeCommit])
def test_the_checker_catches_what_a_split_brings_out(mutant: type[Etcd]) -> None:
    policy = f"{mutant.__module__}:{mutant.__name__}"
    assert any(linearizable_register(simulate(scenario(policy, SPLIT, duration="16s"), seed).history).status == "invalid" for seed in range(3))


def test_a_forgotten_vote_is_cast_twice() -> None:
    said = {}
    for policy in (Etcd, ForgetsItsVote):
        link = FakeLink(policy, nodes=3)
        voter = link.replica(0)
        voter.on_message(1, Vote(5, 0, 0))
        link._carry_out(0, [effect for effect in voter.effects if effect[0] != SEND])
        link.crash(0)
        link.restart(0)
        again = link.replica(0)
        again.effects = []
        again.on_message(2, Vote(5, 0, 0))
        said[policy] = again.vote
    assert said == {Etcd: 1, ForgetsItsVote: 2}


def test_without_the_election_restriction_a_committed_write_is_lost() -> None:
    """5.4.1 keeps a candidate out "unless its log contains all committed entries": here a member that missed them is pushed into office."""
    kept = {}
    for policy in (Etcd, VotesForAnyLog):
        link = cluster(3, policy)
        old = leader(link)
        away, held = others(link, old)
        link.cut([[away]], mode="drop")
        assert link.wait(link.request(old, "write", "x", "committed")).outcome == "ok"
        link.crash(old)
        link.heal()
        link.run_for(1)
        link.replica(held).timeout = 10_000  # it would not stand for long
        link.run_for(12 * S)
        link.restart(old)
        link.run_for(6 * S)
        kept[policy] = link.wait(link.request(away, "read", "x")).result
    assert kept[Etcd] == "committed" and kept[VotesForAnyLog] is None


# ---- settings -----------------------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("given", [{"election_timeout": "400ms"}, {"election_timeout": "60s"}, {"heartbeat_interval": "0s"}, {"version": "2.3"},
                                   {"election_timeout_max": "1ms"}, {"snapshot_count": -1}])
def test_settings_that_etcd_would_refuse(given: dict[str, Any]) -> None:
    """embed/config.go: --election-timeout "should be at least as 5 times as --heartbeat-interval" and is at most 50 s."""
    with pytest.raises(InputError, match=next(iter(given))):
        scenario(settings=given)


def test_pre_vote_is_set_by_a_word() -> None:
    assert scenario(settings={"pre_vote": "true"}).policy_settings.asks_first  # type: ignore[attr-defined]


# ---- a restart, as its clients see it -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("version", ["3.4", "3.6"])
def test_a_restarted_member_serves_no_client_before_it_was_published_through_the_log(version: str) -> None:
    """server.go, publish: "publish registers server information into the cluster"; embed/serve.go waits for ReadyNotify, in every release for good: no
    serializable read goes back in time."""
    link = cluster(3, read_consistency="serializable", version=version)
    node = others(link, leader(link))[0]
    link.wait(link.request(node, "write", "x", "old"))
    link.crash(node, host=True)
    link.wait(link.request(leader(link), "write", "x", "new"))
    link.cut([[node]])
    link.restart(node)
    read = link.request(node, "read", "x")
    link.run_for(20 * S)
    assert read not in link.replies
    link.heal()
    assert link.wait(read).result == "new"
