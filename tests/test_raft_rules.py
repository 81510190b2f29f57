"""Rules of Raft and of etcd-io/raft on which no other test failed when they were broken: votes, terms, what a leader says when, and what a reader may believe."""

from __future__ import annotations

from typing import Any

import pytest
from test_policy_etcd import S, alone, cluster, leader, others, sent

from capray.policies.etcd.raft_log import Log
from capray.policies.etcd.raft_messages import (
    NONE,
    Append,
    AppendResponse,
    Attached,
    Committed,
    Entry,
    HardState,
    HeartbeatResponse,
    Persisted,
    PreVote,
    PreVoteResponse,
    ReadIndex,
    ReadIndexResponse,
    Row,
    Vote,
    VoteResponse,
)
from capray.policies.etcd.raft_progress import PROBE, REPLICATE, Progress
from capray.policies.etcd.replica import CONNECTION_LOST, TIMED_OUT, Etcd
from capray.replica import CONNECT, PERSIST, SEND, VERSION
from capray.testing import FakeLink


def entries(*terms: int) -> tuple[Entry, ...]:
    return tuple(Entry(term, 1, i, "x", f"{term}.{i}") for i, term in enumerate(terms))


def standing(nodes: int, **given: Any) -> Etcd:
    """Node 0, whose time has passed; what its disk says it hears at once."""
    member = alone(nodes, **given)
    member.elapsed = member.timeout
    member.on_timer("tick")
    sent(member)
    return member


def leading(nodes: int, **given: Any) -> Etcd:
    """Node 0, elected by a majority, with its first entry on all disks and committed."""
    member = standing(nodes, **given)
    for node in range(nodes):
        member.on_message(node, VoteResponse(1, False))
    sent(member)
    for node in range(1, nodes):
        member.on_message(node, AppendResponse(1, 1))
    sent(member)
    assert member.state == "leader" and member.commit == 1
    return member


def appends(member: Etcd) -> list[tuple[int, int, int, int]]:
    """The appends it has sent since it was last asked: to whom, after which index, how many entries, which commit index."""
    return [(to, each.index, len(each.entries), each.commit) for to, each in sent(member) if isinstance(each, Append)]


# ---- votes --------------------------------------------------------------------------------------------------------------------------------
def test_a_yes_to_the_question_is_no_vote() -> None:
    """Thesis, 9.6, pre-vote: "a candidate only increments its term if it first learns from a majority of the cluster that they would be willing to grant the
    candidate their votes": then it asks for them."""
    member = standing(3, pre_vote=True)
    assert member.state == "pre-candidate" and member.term == 0
    member.on_message(1, PreVoteResponse(1, False))
    assert [type(message) for _, message in sent(member)] == [Vote, Vote]
    assert (member.state, member.term) == ("candidate", 1)
    member.on_message(2, PreVoteResponse(1, False))  # late
    assert member.state == "candidate"
    member.on_message(2, VoteResponse(1, False))
    assert member.state == "leader"


def test_a_member_that_does_not_ask_counts_no_yes() -> None:
    """raft.go, stepFollower: an answer to a question that was given up is ignored."""
    member = standing(3, pre_vote=True)
    member.on_message(2, Append(1, 0, 0, (), 0))
    member.on_message(1, PreVoteResponse(1, False))
    assert (member.state, member.lead, member.votes) == ("follower", 2, {})


def test_a_vote_is_on_disk_also_where_its_term_was_known_before() -> None:
    """Figure 2, persistent state: currentTerm AND votedFor: the term came with a candidate that was refused."""
    member = alone()
    member.on_message(1, Append(1, 0, 0, entries(1, 1), 0))
    member.elapsed = 10
    sent(member)
    member.on_message(2, Vote(5, 1, 1))
    sent(member)
    member.on_message(1, Vote(5, 2, 1))
    assert [effect[1] for effect in member.effects if effect[0] == PERSIST and isinstance(effect[1], HardState)] == [HardState(5, 1)]


def test_a_question_for_an_older_term_or_a_shorter_log_is_answered_no() -> None:
    """Thesis, 9.6: they would grant their votes "if the candidate's log is sufficiently up-to-date"; raft.go tells a candidate of an older term its own."""
    member = alone(pre_vote=True)
    member.on_message(1, Append(4, 0, 0, entries(3, 4), 0))
    member.elapsed = 10
    sent(member)
    for asked in (PreVote(3, 9, 9), PreVote(5, 1, 4), PreVote(5, 2, 4)):
        member.on_message(2, asked)
    assert [(answer.term, answer.reject) for _, answer in sent(member)] == [(4, True), (4, True), (5, False)]


def test_each_answer_waits_for_the_sync_that_it_promises_and_not_for_an_earlier_one() -> None:
    """Figure 2: "updated on stable storage before responding to RPCs": of two appends one after the other to the disk, the first sync answers the first."""
    member = alone()
    for index in (0, 1):
        member.on_message(1, Append(1, index, index, entries(1), 0))
    for done in (1, 2):
        assert [type(effect[-1]) for effect in member.effects if effect[0] == SEND] == [Persisted]
        member.effects.clear()
        member.on_message(0, Persisted())
        assert [effect[2].index for effect in member.effects if isinstance(effect[-1], AppendResponse)] == [done]
        member.effects = [effect for effect in member.effects if not isinstance(effect[-1], AppendResponse)]


# ---- terms --------------------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("message", [
    HeartbeatResponse(9, NONE, 0), AppendResponse(9, 1), AppendResponse(9, 1, True), ReadIndexResponse(9, 1, 1), VoteResponse(9, True), Append(9, 0, 0, (), 0)])
def test_whatever_brings_a_higher_term_deposes_a_leader(message: Any) -> None:
    """Figure 2, all servers: "If RPC request or response contains term T > currentTerm: set currentTerm = T, convert to follower (5.1)." """
    member = leading(3)
    member.on_message(1, message)
    assert (member.state, member.term) == ("follower", 9)


@pytest.mark.parametrize("message", [HeartbeatResponse(0, 0, 1), AppendResponse(0, 1), ReadIndexResponse(0, 1, 1), VoteResponse(0, True)])
def test_an_answer_of_an_older_term_is_no_answer(message: Any) -> None:
    """5.1: a stale term is rejected; here: counted for nothing."""
    member = leading(3)
    member.read(7, "x")
    for progress in member.progress.values():
        progress.active = False
    member.on_message(1, message)
    assert not any(progress.active for progress in member.progress.values()) and member.unconfirmed and (member.state, member.term) == ("leader", 1)


def test_a_leader_that_nobody_answers_steps_down_at_its_first_check() -> None:
    """raft.go, tickHeartbeat and MsgCheckQuorum: after an election timeout, 10 ticks, a leader asks whether a quorum is active; who voted is not, as such."""
    member = standing(3)
    for node in range(3):
        member.on_message(node, VoteResponse(1, False))
    for tick in range(1, 11):
        assert member.state == "leader", tick
        sent(member)
        member.on_timer("tick")
    assert member.state == "follower"


def test_a_reader_still_knows_its_leader_when_its_read_is_confirmed() -> None:
    """raft.go, Step: only a message of a HIGHER term makes a follower forget whom it follows."""
    member = alone()
    member.on_message(1, Append(1, 0, 0, entries(1), 1))
    member.read(7, "x")
    sent(member)
    member.on_message(1, ReadIndexResponse(1, 1, 1))
    assert member.lead == 1 and not member.first_round


def test_who_asks_for_votes_meanwhile_takes_no_read_index() -> None:
    """raft.go, stepCandidate knows no MsgReadIndexResp: one that comes late, of the term that a pre-candidate is still in, is dropped."""
    member = alone(version="3.5")
    member.on_message(1, Append(1, 0, 0, entries(1), 1))
    member.read(7, "x")
    sent(member)
    member.elapsed = member.timeout
    member.on_timer("tick")
    member.on_message(1, ReadIndexResponse(1, 1, 1))
    assert (member.state, member.term) == ("pre-candidate", 1) and member.first_round


def test_a_member_that_leads_again_knows_nothing_of_the_others_logs() -> None:
    """Figure 2, volatile state on leaders, "reinitialized after election": matchIndex is "initialized to 0": what a follower held in an earlier term it may have
    had to give up; nor are reads of an earlier leadership confirmed."""
    member = leading(3)
    for index in (2, 3):
        member.lead_append(Entry(1, 0, index, "x", index))
        member.finish()
    member.postponed.append((1, 5))
    sent(member)
    member.on_message(1, AppendResponse(1, 2))
    assert member.commit == 2 and member.matches[1] == 2
    member.on_message(2, Append(2, 2, 1, (), 2))
    sent(member)
    assert member.state == "follower" and not member.postponed and not member.unconfirmed
    member.elapsed = member.timeout
    member.on_timer("tick")
    sent(member)
    member.on_message(1, VoteResponse(3, False))
    assert member.state == "leader" and member.matches == [4, 0, 0], "but for its own, the new entry included"
    sent(member)
    assert member.commit == 2, "its own disk alone is no majority"
    member.on_message(2, AppendResponse(3, member.log.last))
    assert member.commit == member.log.last


# ---- what a leader says ---------------------------------------------------------------------------------------------------------------------
def test_a_commit_is_told_to_all_at_once_by_whichever_disk_it_came_about() -> None:
    """raft.go, stepLeader: "if r.maybeCommit() ... r.bcastAppend()": also where the leader's own disk is the last of the majority; and once only."""
    member = leading(3)
    member.lead_append(Entry(1, 0, 1, "x", "a"))
    member.finish()
    assert appends(member) == [(1, 1, 1, 1), (2, 1, 1, 1)] and member.commit == 1
    member.on_message(1, AppendResponse(1, 2))
    assert member.commit == 2 and appends(member) == [(1, 2, 0, 2), (2, 2, 0, 2)]
    member.on_message(2, AppendResponse(1, 2))
    assert not appends(member), "what was committed before is no news"


def test_a_follower_that_keeps_up_is_never_waited_for() -> None:
    """etcd-io/raft, tracker/inflights.go, and raft.go, MsgAppResp: max_inflight appends at most are unanswered; an answer makes room for the next at once,
    not at the next heartbeat."""
    member = leading(3, max_inflight=2)
    for index in range(2, 6):
        member.lead_append(Entry(1, 0, index, "x", index))
        member.finish()
    assert [found[1:3] for found in appends(member) if found[0] == 1] == [(1, 1), (2, 1)]
    member.on_message(1, AppendResponse(1, 2))
    assert [found[1:3] for found in appends(member) if found[0] == 1][:1] == [(3, 2)]
    member.on_message(1, AppendResponse(1, 5))
    member.lead_append(Entry(1, 0, 6, "x", 6))
    member.finish()
    assert [found[1:3] for found in appends(member) if found[0] == 1 and found[2]] == [(5, 1)]


def test_who_is_reported_unreachable_is_probed_from_what_it_is_known_to_hold() -> None:
    """raft.go, MsgUnreachable: "During optimistic replication, if the remote becomes unreachable, there is huge probability that a MsgApp is lost": back to probing."""
    member = leading(3)
    assert member.progress[1].state == REPLICATE
    member.lead_append(Entry(1, 0, 1, "x", "a"))
    assert member.progress[1].next == 3
    member.unreachable(1)
    assert (member.progress[1].state, member.progress[1].next) == (PROBE, 2) and member.progress[2].state == REPLICATE
    progress = Progress(9, limit=2)
    progress.update(4)
    progress.become_probe()
    assert progress.next == 5, "tracker/progress.go, BecomeProbe: Next = Match + 1"


@pytest.mark.parametrize(("index", "term", "hint"), [(9, 3, 4), (4, 2, 2), (4, 1, 2), (3, 3, 3), (9, 0, 0)])
def test_a_hint_never_points_behind_the_end_of_the_log(index: int, term: int, hint: int) -> None:
    """raft/log.go 3.5, findConflictByTerm "finds the largest index in log l with a term <= `term` and an index <= `index`"; both its callers see to it that
    `index` is in the log (handleAppendEntries: "min(m.Index, r.raftLog.lastIndex())")."""
    log = Log()
    log.append(entries(1, 1, 3, 3))
    assert log.find_by_term(index, term) == hint


# ---- reads ------------------------------------------------------------------------------------------------------------------------------------
def test_a_read_is_confirmed_by_a_majority_of_the_whole_cluster_and_not_by_one_follower() -> None:
    """Thesis, 6.4, step 3: "waits for their acknowledgments from a majority of the cluster"; here two of four others, and the leader."""
    member = leading(5)
    member.on_message(3, ReadIndex(1))
    assert {to for to, _ in sent(member)} == {1, 2, 3, 4}
    member.on_message(1, HeartbeatResponse(1, 3, 1))
    member.on_message(1, HeartbeatResponse(1, 3, 1))  # the same follower's again
    assert not [each for _, each in sent(member) if isinstance(each, ReadIndexResponse)]
    member.on_message(2, HeartbeatResponse(1, 3, 1))
    assert [(to, each) for to, each in sent(member) if isinstance(each, ReadIndexResponse)] == [(3, ReadIndexResponse(1, 1, 1))]


def test_an_answer_to_an_earlier_heartbeat_confirms_no_read() -> None:
    """Thesis, 6.4, step 3: "issues a new round of heartbeats": what was answered before the read came names an earlier one, or none."""
    member = leading(3)
    member.read(7, "x")
    member.on_message(1, HeartbeatResponse(1, NONE, 0))
    member.on_message(2, HeartbeatResponse(1, 0, 99))
    assert member.unconfirmed
    member.on_message(1, HeartbeatResponse(1, 0, member.round))
    assert not member.unconfirmed


# ---- restarts and snapshots -------------------------------------------------------------------------------------------------------------------
def test_a_restarted_member_applies_nothing_that_its_log_does_not_say_was_committed() -> None:
    """Figure 2, volatile state: commitIndex is "initialized to 0"; etcd's HardState brings what was known of it: no more."""
    member = alone()
    member.on_restart([HardState(1, NONE), Append(1, 0, 0, entries(1, 1), 0)])
    assert (member.commit, member.applied_to, member.peek("x"), member.log.last) == (0, 0, None, 2)
    member = alone()
    member.on_restart([HardState(1, NONE), Append(1, 0, 0, entries(1, 1), 0), Committed(1)])
    assert (member.commit, member.applied_to, member.peek("x")) == (1, 1, "1.0")


def test_of_a_snapshot_the_record_is_told_what_has_changed() -> None:
    """The record of versions: a row that was held already is not applied again, one that is newer is."""
    member = alone()
    member.on_message(1, Append(1, 0, 0, (Entry(1, 1, 0, "same", "a"), Entry(1, 1, 1, "old", "b")), 2))
    sent(member)
    member.restore((Row("same", "a", 1), Row("old", "c", 7)))
    assert [effect[1:4] for effect in member.effects if effect[0] == VERSION] == [("old", "c", (7,))]
    assert (member.peek("same"), member.peek("old")) == ("a", "c")


# ---- streams ------------------------------------------------------------------------------------------------------------------------------------
def test_while_nobody_answers_a_new_dial_begins_each_two_seconds() -> None:
    """rafthttp/stream.go: a dial that is not answered within its time-out (config.go: 1 s + the election timeout) is followed by another."""
    dials: list[int] = []

    class Watched(FakeLink):
        def _carry_out(self, node: int, effects: list[tuple[Any, ...]]) -> None:
            dials.extend(self.now for effect in effects if effect[0] == CONNECT and (node, effect[1]) == (0, 1))
            super()._carry_out(node, effects)

    link = Watched(Etcd, 3)
    link.run_for(3 * S)
    link.cut([[0]])
    begun = link.now
    link.run_for(15 * S)
    late = [(at - begun) / S for at in dials]
    assert 4.8 < late[0] < 5.2, "after 5 s of silence"
    starts = [at for at in late if min(abs(at - late[0] - 2 * turn) for turn in range(6)) < 0.05]
    assert len(starts) == 6, late


def test_a_stream_that_came_back_after_the_proposal_does_not_count_as_connected() -> None:
    """etcdserver/util.go, isConnectedSince "checks whether the local member is connected to the remote member since the given time"; parseProposeCtxErr gives
    it the time of the proposal."""
    member = alone()
    member.on_message(1, Append(1, 0, 0, (), 0))
    assert member.why_timed_out(7, 0) == TIMED_OUT
    member.now = 2 * S
    member.on_disconnected(1)
    assert member.why_timed_out(7, S) == CONNECTION_LOST
    member.now = 3 * S
    member.on_message(1, Attached())
    assert [member.why_timed_out(7, since) for since in (S, 4 * S)] == [CONNECTION_LOST, TIMED_OUT]


def test_who_has_its_stream_back_dials_no_more() -> None:
    """rafthttp/stream.go: a reader dials while it has no stream; another dial would end the connection that it has."""
    link = cluster(3)
    node = others(link, leader(link))[0]
    link.cut([[node]])
    link.run_for(8 * S)
    link.heal()
    link.run_for(6 * S)
    numbers = dict(link._hosts[node].connections)
    link.run_for(20 * S)
    assert link._hosts[node].connections == numbers and len(numbers) == 2
