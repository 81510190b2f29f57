"""Raft's figure 2 (Ongaro and Ousterhout, ATC 2014, extended version), rule by rule where tests/test_policy_etcd.py does not hold it, and etcd's
"Failure modes" (etcd.io, operations guide), each sentence quoted."""

from __future__ import annotations

import pytest
from test_policy_etcd import EMPTY, S, alone, cluster, leader, others, sent

from capray.policies.etcd.raft_messages import (
    NONE,
    Append,
    AppendResponse,
    Entry,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    Row,
    Vote,
    VoteResponse,
)
from capray.policies.etcd.replica import Etcd
from capray.policies.etcd.settings import EtcdSettings
from capray.testing import FakeLink


def candidate(nodes: int = 5) -> Etcd:
    """Node 0, which stands and has told everybody."""
    member = alone(nodes)
    member.elapsed = member.timeout
    member.on_timer("tick")
    sent(member)
    return member


def entries(*terms: int) -> tuple[Entry, ...]:
    return tuple(Entry(term, 1, i, "x", f"{term}.{i}") for i, term in enumerate(terms))


# ---- AppendEntries, receiver --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("index", "term"), [(3, 1), (2, 2)])
def test_an_append_is_refused_where_the_log_has_no_such_entry(index: int, term: int) -> None:
    """2: "Reply false if log doesn't contain an entry at prevLogIndex whose term matches prevLogTerm." """
    member = alone()
    member.on_message(1, Append(2, 0, 0, entries(1, 1), 0))
    sent(member)
    member.on_message(1, Append(2, index, term, entries(2), 0))
    assert member.log.last == 2
    assert [(to, answer.index, answer.reject) for to, answer in sent(member)] == [(1, index, True)]


def test_a_commit_index_beyond_what_was_sent_is_cut_to_it() -> None:
    """5: "If leaderCommit > commitIndex, set commitIndex = min(leaderCommit, index of last new entry)": what follows it here may be another leader's."""
    member = alone()
    member.on_message(1, Append(1, 0, 0, entries(1, 1, 1), 0))
    member.on_message(2, Append(2, 0, 0, entries(1), 9))
    assert (member.log.last, member.commit) == (3, 1)


def test_an_append_that_comes_twice_does_no_harm() -> None:
    """5.5: "Raft RPCs are idempotent, so this causes no harm ... if a follower receives an AppendEntries request that includes log entries already present in
    its log, it ignores those entries in the new request." """
    member = alone()
    for agreed in (2, 1):  # what is known to be committed needs no second look
        member.on_message(1, Append(1, 0, 0, entries(1, 1), 1))
        assert sent(member) == [(1, AppendResponse(1, agreed))]
        assert (member.log.last, member.commit, member.peek("x")) == (2, 1, "1.0")


# ---- RequestVote, receiver ----------------------------------------------------------------------------------------------------------------
def test_a_candidate_of_an_older_term_gets_no_vote() -> None:
    """1: "Reply false if term < currentTerm"; etcd says nothing at all to it (raft.go, Step: "ignore other cases")."""
    member = alone()
    member.on_message(1, Vote(5, 9, 4))
    sent(member)
    member.on_message(2, Vote(4, 9, 4))
    assert sent(member) == [] and (member.term, member.vote) == (5, 1)


# ---- followers ----------------------------------------------------------------------------------------------------------------------------
def test_a_vote_restarts_the_election_timer_and_a_refusal_does_not() -> None:
    """ "If election timeout elapses without receiving AppendEntries RPC from current leader or granting vote to candidate: convert to candidate." """
    member = alone()
    member.on_message(1, Vote(5, 0, 0))
    member.elapsed = 8
    member.on_message(2, Vote(5, 0, 0))
    assert member.elapsed == 8
    member.on_message(1, Vote(5, 0, 0))
    assert member.elapsed == 0
    sent(member)
    member.elapsed = member.timeout - 1
    member.on_timer("tick")
    assert (member.state, member.term) == ("candidate", 6)


def test_an_append_and_a_heartbeat_restart_the_election_timer() -> None:
    """5.2: "A server remains in follower state as long as it receives valid RPCs from a leader or candidate.  Leaders send periodic heartbeats ... to all
    followers in order to maintain their authority." """
    for message in (Append(1, 0, 0, (), 0), Heartbeat(1, 0, NONE, 0)):
        member = alone()
        member.on_message(1, Append(1, 0, 0, (), 0))
        member.elapsed = 8
        member.on_message(1, message)
        assert member.elapsed == 0


# ---- candidates ---------------------------------------------------------------------------------------------------------------------------
def test_a_candidate_gives_way_to_a_leader_of_its_term_and_not_to_an_older_one() -> None:
    """5.2: "If the leader's term ... is at least as large as the candidate's current term, then the candidate recognizes the leader as legitimate and returns
    to follower state.  If the term in the RPC is smaller than the candidate's current term, then the candidate rejects the RPC and continues in candidate
    state." """
    member = candidate()
    member.on_message(1, Append(member.term - 1, 0, 0, (), 0))
    assert member.state == "candidate"
    member.on_message(1, Append(member.term, 0, 0, (), 0))
    assert (member.state, member.lead) == ("follower", 1)


def test_a_candidate_wins_with_a_majority_of_the_full_cluster_for_its_term() -> None:
    """5.2: "A candidate wins an election if it receives votes from a majority of the servers in the full cluster for the same term." """
    member = candidate(5)
    member.on_message(1, VoteResponse(member.term - 1, False))  # of another term
    member.on_message(2, VoteResponse(member.term, False))
    member.on_message(2, VoteResponse(member.term, False))  # the same server's again
    assert member.state == "candidate"
    member.on_message(3, VoteResponse(member.term, False))
    assert member.state == "leader"


def test_a_candidate_whose_time_passes_stands_for_the_next_term() -> None:
    """ "If election timeout elapses: start new election"; 5.2: "each candidate restarts its randomized election timeout at the start of an election"."""
    member = candidate()
    term, waits = member.term, []
    for _ in range(20):
        assert member.elapsed == 0
        waits.append(member.timeout)
        member.elapsed = member.timeout - 1
        member.on_timer("tick")
        sent(member)
    assert member.term == term + 20 and len(set(waits)) > 5


# ---- leaders ------------------------------------------------------------------------------------------------------------------------------
def test_a_new_leader_tells_everybody_at_once_and_begins_with_an_entry_of_its_own() -> None:
    """ "Upon election: send initial empty AppendEntries RPCs (heartbeat) to each server"; section 8: "having each leader commit a blank no-op entry into the
    log at the start of its term"; 5.3: "it initializes all nextIndex values to the index just after the last one in its log"."""
    member = alone(3)
    member.on_message(1, Append(1, 0, 0, entries(1, 1), 0))
    sent(member)
    member.elapsed = member.timeout
    member.on_timer("tick")
    term = member.term
    sent(member)
    member.on_message(1, VoteResponse(term, False))
    begun = Append(term, 2, 1, (Entry(term, NONE, 0, "", None),), 0)
    assert [found for found in sent(member) if isinstance(found[1], Append)] == [(1, begun), (2, begun)]


def test_a_leader_never_overwrites_its_own_log() -> None:
    """Figure 3, Leader Append-Only: "a leader never overwrites or deletes entries in its log; it only appends new entries"."""
    member = alone(3)
    member.on_message(1, Append(7, 0, 0, entries(7, 7), 0))
    sent(member)
    member.elapsed = member.timeout
    member.on_timer("tick")
    sent(member)
    member.on_message(1, VoteResponse(8, False))
    sent(member)
    before = list(member.log.entries)
    member.on_message(1, Append(7, 0, 0, (EMPTY, EMPTY), 0))
    assert member.state == "leader" and list(member.log.entries) == before and len(before) == 3


def test_a_leader_retries_until_every_follower_has_every_entry() -> None:
    """5.3: "If followers crash or run slowly, or if network packets are lost, the leader retries AppendEntries RPCs indefinitely (even after it has responded
    to the client) until all followers eventually store all log entries." """
    link = cluster(3)
    at = leader(link)
    away = others(link, at)[0]
    link.crash(away)
    for i in range(5):
        assert link.wait(link.request(at, "write", f"k{i}", i)).outcome == "ok"
    link.run_for(30 * S)
    link.restart(away)
    link.run_for(5 * S)
    assert [link.replica(away).peek(f"k{i}") for i in range(5)] == list(range(5))
    assert list(link.replica(away).log.entries) == list(link.replica(at).log.entries)


def test_a_heartbeat_promises_no_more_than_a_follower_is_known_to_hold() -> None:
    """raft.go, sendHeartbeat: "The leader MUST NOT forward the follower's commit to an unmatched index"."""
    link = cluster(3)
    at = leader(link)
    member = link.replica(at)
    behind = others(link, at)[0]
    member.progress[behind].match = 0
    member.effects.clear()
    member.beat()
    member.finish()
    told = {to: message.commit for to, message in sent(member) if isinstance(message, Heartbeat)}
    assert told[behind] == 0 and told[others(link, at, behind)[0]] == member.commit > 0


def test_a_follower_that_answers_and_lacks_entries_is_sent_them() -> None:
    """5.3: "the leader must find the latest log entry where the two logs agree ... and send the follower all of the leader's entries after that point"; etcd
    looks at each heartbeat's answer (stepLeader, MsgHeartbeatResp: "if pr.Match < r.raftLog.lastIndex() ... sendAppend")."""
    member = candidate(3)
    member.on_message(1, VoteResponse(member.term, False))
    sent(member)
    member.on_message(1, HeartbeatResponse(member.term, NONE, 0))
    assert [(to, message.index, len(message.entries)) for to, message in sent(member) if isinstance(message, Append)] == [(1, 0, 1)]


# ---- section 7 ----------------------------------------------------------------------------------------------------------------------------
def test_a_snapshot_of_what_the_log_has_keeps_what_follows_it() -> None:
    """ "If instead the follower receives a snapshot that describes a prefix of its log ..., then log entries covered by the snapshot are deleted but entries
    following the snapshot are still valid and must be retained"; etcd fast-forwards its commit index and keeps the log (raft.go, restore)."""
    member = alone()
    member.on_message(1, Append(1, 0, 0, entries(1, 1, 1), 0))
    sent(member)
    member.on_message(1, InstallSnapshot(1, 2, 1, (Row("x", "1.1", 2),)))
    assert (member.log.last, member.commit, member.peek("x")) == (3, 2, "1.1")
    assert sent(member) == [(1, AppendResponse(1, 2))]


def test_a_snapshot_of_something_else_replaces_the_whole_log() -> None:
    """ "Usually the snapshot will contain new information not already in the recipient's log.  In this case, the follower discards its entire log"."""
    member = alone()
    member.on_message(1, Append(1, 0, 0, entries(1, 1, 1), 0))
    member.on_message(2, InstallSnapshot(3, 8, 2, (Row("y", "new", 8),)))
    assert sent(member) == [(1, AppendResponse(1, 3)), (2, AppendResponse(3, 8))]
    assert (member.log.last, member.log.last_term, member.commit, member.log.entries) == (8, 2, 8, [])
    assert (member.peek("y"), member.peek("x")) == ("new", None)


# ---- etcd: Failure modes -----------------------------------------------------------------------------------------------------------------
def test_a_leader_on_the_minority_side_steps_down_and_recovers_its_state() -> None:
    """ "The leader on the minority side steps down and the majority side elects a new leader. ... Once the network partition clears, the minority side
    automatically recognizes the leader from the majority side and recovers its state." """
    link = cluster(5)
    old = leader(link)
    side = [old, (old + 1) % 5]
    link.cut([side], mode="drop")
    link.run_for(5 * S)
    assert link.replica(old).state != "leader"
    new = leader(link, others(link, *side))
    assert link.wait(link.request(new, "write", "x", "b")).outcome == "ok"
    link.heal()
    link.run_for(12 * S)
    assert len({link.replica(n).lead for n in range(5)}) == 1 and link.values("x") == ["b"] * 5


def test_without_a_majority_no_write_is_taken_until_it_is_back() -> None:
    """ "When the majority members of the cluster fail, the etcd cluster fails and cannot accept more writes.  The etcd cluster can only recover from a majority
    failure once the majority of members become available." """
    link = cluster(5)
    down = others(link, leader(link))[:3]
    for node in down:
        link.crash(node)
    up = others(link, *down)
    write = link.request(up[0], "write", "x", "a")
    link.run_for(10 * S)
    assert link.replies[write].outcome == "info"
    link.restart(down[0])
    link.run_for(5 * S)
    assert link.wait(link.request(up[0], "write", "x", "b")).outcome == "ok"


def test_a_minority_of_crashed_followers_is_not_noticed() -> None:
    """ "When fewer than half of the followers fail, the etcd cluster can still accept requests and make progress without any major disruption." """
    link = cluster(5)
    at = leader(link)
    for node in others(link, at)[:2]:
        link.crash(node, host=True)
    for i in range(20):
        assert link.wait(link.request(at, "write", "x", i)).outcome == "ok"
        link.run_for(S // 4)
    assert leader(link) == at


# ---- etcd: KV API guarantees ------------------------------------------------------------------------------------------------------------
def test_any_completed_operations_are_durable() -> None:
    """ "Any completed operations are durable": all hosts lose power at the instant of the answer."""
    link = cluster(5)
    assert link.wait(link.request(others(link, leader(link))[0], "write", "x", "a")).outcome == "ok"
    for node in range(5):
        link.crash(node, host=True)
    for node in range(5):
        link.restart(node)
    link.run_for(5 * S)
    assert link.wait(link.request(0, "read", "x")).result == "a"


@pytest.mark.parametrize("nodes", [1, 3])
def test_a_read_never_returns_data_that_has_not_been_made_durable(nodes: int) -> None:
    """ "All accessible data is also durable data.  A read will never return data that has not been made durable", also of a single member (etcd-io/etcd issue
    14370, mended in 3.4.21): while disks are syncing nobody shows the write, and the power takes it."""
    link = FakeLink(Etcd, nodes, EtcdSettings(read_consistency="serializable"), sync_us=50_000)
    link.run_for(5 * S)
    at = leader(link)
    write = link.request(at, "write", "x", "a")
    for _ in range(45):
        link.run_for(1_000)
        assert [link.wait(link.request(node, "read", "x")).result for node in range(nodes)] == [None] * nodes
    assert write not in link.replies
    for node in range(nodes):
        link.crash(node, host=True)
    for node in range(nodes):
        link.restart(node)
    link.run_for(10 * S)
    assert link.values("x") == [None] * nodes
