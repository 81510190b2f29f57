"""The loop of etcd's raftNode (etcd 3.4 and 3.5, server/etcdserver/raft.go, raftNode.start), a rule a test, each with the words that say it."""

from __future__ import annotations

from typing import Any

import pytest
from test_policy_etcd import S, alone, cluster, leader, others, sent
from test_raft_rules import entries, leading, standing

from capray.policies.etcd.raft_messages import (
    NONE,
    Append,
    AppendResponse,
    Committed,
    Entry,
    HardState,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    Persisted,
    PreVote,
    ReadIndexResponse,
    Row,
    Vote,
    VoteResponse,
)
from capray.policies.etcd.replica import Etcd
from capray.policies.etcd.settings import EtcdSettings
from capray.replica import PERSIST, REPLY, SEND, Request
from capray.testing import FakeLink

WRITE = Entry(1, 0, 7, "x", "a")
DONE = Persisted()


def told(member: Etcd) -> list[Any]:
    """What it has sent since it was last asked, and what it has journalled, in order; its disk is slow, so that a sync stands for what waits for it."""
    effects, member.effects = member.effects, []
    return [effect[1] if effect[0] == PERSIST else effect[2] for effect in effects if effect[0] in (SEND, PERSIST)]


def kinds(member: Etcd) -> list[type]:
    return [type(each) for each in told(member)]


# ---- one Ready ----------------------------------------------------------------------------------------------------------------------------
def test_a_leader_sends_before_it_saves() -> None:
    """ "the leader can write to its disk in parallel with replicating to the followers and them writing to their disks": `if islead` before storage.Save."""
    member = leading(3)
    member.lead_append(WRITE)
    member.finish()
    assert told(member) == [Append(1, 1, 1, (WRITE,), 1), Append(1, 1, 1, (WRITE,), 1), Append(1, 1, 1, (WRITE,), 1), DONE]


def test_who_does_not_lead_sends_after_it_has_saved() -> None:
    """`if !islead ... r.transport.Send(msgs)` comes after storage.Save: votes asked, votes given, and what an append is answered."""
    member = alone()
    member.elapsed = member.timeout
    member.on_timer("tick")
    assert told(member) == [HardState(1, 0), DONE]
    member.on_message(0, DONE)
    assert kinds(member) == [Vote, Vote]
    append = Append(2, 0, 0, entries(2), 0)
    for message, record, answer in ((Vote(2, 0, 0), HardState(2, 1), VoteResponse(2, False)), (append, append, AppendResponse(2, 1))):
        member.on_message(1, message)
        assert told(member) == [record, DONE]
        member.on_message(0, DONE)
        assert told(member) == [answer]


def test_of_the_answers_to_appends_in_one_ready_the_last_is_sent() -> None:
    """processMessages: "sentAppResp": of several MsgAppResp all but the last go to nobody."""
    member = alone()
    for index in range(3):
        member.on_message(1, Append(1, index, min(index, 1), entries(1), 0))
    member.on_message(1, Heartbeat(1, 0, NONE, 0))
    assert [each for _, each in sent(member)] == [AppendResponse(1, 1), AppendResponse(1, 3), HeartbeatResponse(1, NONE, 0)]


def test_what_was_committed_is_applied_while_the_next_entries_are_saved() -> None:
    """`case r.applyc <- ap` comes before storage.Save: "the entries will be persisted to ... raft storage concurrently"."""
    member = alone()
    member.on_message(1, Append(1, 0, 0, entries(1), 0))
    sent(member)
    member.on_message(1, Append(1, 1, 1, entries(1, 1), 1))
    assert (member.peek("x"), member.saving) == ("1.0", True)
    assert told(member) == [Append(1, 1, 1, entries(1, 1), 1), Committed(1), DONE]


def test_the_commit_index_alone_is_not_synced() -> None:
    """raft/node.go, MustSync: "entsnum != 0 || st.Vote != prevst.Vote || st.Term != prevst.Term": a heartbeat that commits is answered at once."""
    member = alone()
    member.on_message(1, Append(1, 0, 0, entries(1), 0))
    sent(member)
    member.on_message(1, Heartbeat(1, 1, NONE, 0))
    assert told(member) == [Committed(1), HeartbeatResponse(1, NONE, 0)] and member.peek("x") == "1.0"


@pytest.mark.parametrize("version", ["3.4", "3.5", "3.6"])
def test_entries_that_come_with_their_own_commit_are_saved_before_they_are_applied(version: str) -> None:
    """shouldWaitWALSync (3.4.21, 3.5.5): "Check if there is overlap between unstable and committed entries"; 3.6 has no such rule."""
    member = alone(version=version)
    member.on_message(1, Append(1, 0, 0, entries(1), 1))
    assert member.peek("x") == (None if version != "3.6" else "1.0")
    sent(member)
    assert member.peek("x") == "1.0"


@pytest.mark.parametrize("version", ["3.4", "3.6"])
def test_a_single_member_answers_when_its_disk_has_the_write(version: str) -> None:
    """Issue 14370, "Durability API guarantee broken in single node cluster": mended by shouldWaitWALSync, in 3.6 by a leader that hears itself."""
    link = FakeLink(Etcd, nodes=1, settings=EtcdSettings(version=version), sync_us=50_000)
    link.run_for(3 * S)
    begun = link.now
    assert link.wait(link.request(0, "write", "x", "a")).at - begun == 50_000


@pytest.mark.parametrize("version", ["3.4", "3.6"])
def test_a_snapshot_is_restored_when_it_is_on_disk(version: str) -> None:
    """server.go, applySnapshot: "wait for raftNode to persist snapshot onto the disk": `<-apply.notifyc`."""
    member = alone(version=version)
    member.on_message(1, InstallSnapshot(3, 8, 2, (Row("y", "new", 8),)))
    assert (member.peek("y"), member.commit, member.log.last) == (None, 8, 8)
    assert sent(member) == [(1, AppendResponse(3, 8))] and (member.peek("y"), member.applied_to) == ("new", 8)


# ---- one after another ----------------------------------------------------------------------------------------------------------------------
def test_what_is_committed_while_a_ready_is_saved_is_applied_and_told_with_the_next() -> None:
    """`case rd := <-r.Ready()` comes round again after storage.Save and r.Advance: also where a leader has counted itself and followers were quicker."""
    member = leading(3)
    member.on_request(Request(7, "write", "x", "a", 0, 0))
    member.effects.clear()
    member.on_message(1, AppendResponse(1, 2))
    assert (member.commit, member.peek("x"), member.effects) == (2, None, [])
    member.on_message(0, DONE)
    assert member.peek("x") == "a" and (REPLY, 7, "ok", None, None) in member.effects
    assert told(member) == [Append(1, 2, 1, (), 2), Append(1, 2, 1, (), 2), Committed(2)]


def test_a_read_confirmed_while_a_ready_is_saved_is_answered_with_the_next() -> None:
    """`r.readStateC <- rd.ReadStates[len(rd.ReadStates)-1]`: at the follower that asked; and the leader's heartbeats for it are messages like others."""
    member = alone()
    member.on_message(1, Append(1, 0, 0, entries(1), 0))
    sent(member)
    member.on_message(1, Heartbeat(1, 1, NONE, 0))
    member.on_request(Request(7, "read", "x", None, 0, 0))
    sent(member)
    member.on_message(1, Append(1, 1, 1, entries(1), 1))
    member.effects.clear()
    member.on_message(1, ReadIndexResponse(1, 1, 1))
    assert not member.effects
    member.on_message(0, DONE)
    assert (REPLY, 7, "ok", "1.0", None) in member.effects
    member = leading(3)
    member.lead_append(WRITE)
    member.finish()
    member.effects.clear()
    member.on_request(Request(8, "read", "x", None, 0, 0))
    assert Heartbeat not in kinds(member)
    member.on_message(0, DONE)
    assert kinds(member) == [Heartbeat, Heartbeat]


def test_proposals_that_come_while_a_ready_is_saved_go_to_the_disk_together() -> None:
    """raft/node.go, run, goes on taking proposals and messages: they make up the next Ready."""
    member = leading(3)
    for request in range(1, 5):
        member.on_request(Request(request, "write", "x", request, 0, 0))
    assert [len(each.entries) for each in told(member) if isinstance(each, Append)] == [1, 1, 1]
    member.on_message(0, DONE)
    assert [type(each) for each in told(member)] == [Append] * 9 + [Persisted], "three to each of two, three to the disk"


def test_of_the_ticks_that_come_while_a_ready_is_saved_one_is_kept() -> None:
    """`case <-r.ticker.C: r.tick()` is a case of the same loop, and a time.Ticker's channel holds one: it will "drop ticks to make up for slow receivers"."""
    member = alone()
    member.on_message(1, Append(1, 0, 0, entries(1), 0))
    for _ in range(3):
        member.on_timer("tick")
    assert member.elapsed == 0
    member.on_message(0, DONE)
    assert member.elapsed == 1


def test_the_server_hears_of_a_leader_with_the_next_ready() -> None:
    """`rd.SoftState`: updateLead, updateLeadership; who had proposed has its proposal passed on at once (raft/node.go, run: propc), in a message of
    that Ready."""
    member = alone()
    member.on_message(1, Vote(1, 0, 0))
    member.on_request(Request(7, "write", "x", "a", 0, 0))
    member.on_message(2, Heartbeat(2, 0, NONE, 0))
    assert (member.lead, member.known_lead, len(member.blocked)) == (2, NONE, 0)
    member.on_message(0, DONE)
    assert member.known_lead == 2


# ---- 3.6 ------------------------------------------------------------------------------------------------------------------------------------
def test_since_3_6_a_member_counts_its_own_vote_and_entries_when_they_are_saved() -> None:
    """etcd-io/raft 3.6, appendEntry: "The leader needs to self-ack the entries just appended once they have been durably persisted"; campaign: "The
    candidate votes for itself and should account for this self vote once the vote has been durably persisted"."""
    for version, at_once in (("3.5", True), ("3.6", False)):
        member = standing(5, version=version, pre_vote=False)
        assert member.votes == {0: True}
        for node in (1, 2):
            member.on_message(node, VoteResponse(1, False))
        assert (member.state, member.matches[0]) == ("leader", 1 if at_once else 0)
        for node in (1, 2):
            member.on_message(node, AppendResponse(1, 1))
        assert member.commit == (1 if at_once else 0)
        member.on_message(0, DONE)
        assert member.commit == 1 and member.matches[0] == 1
    for version, at_once in (("3.5", True), ("3.6", False)):
        member = alone(version=version)
        member.on_message(1, Vote(1, 0, 0))
        assert told(member) == [HardState(1, 1), DONE]
        member.stand()
        assert member.state == "pre-candidate" and member.votes == ({0: True} if at_once else {})
        member.on_message(0, DONE)
        assert kinds(member) == [VoteResponse, PreVote, PreVote] and member.votes == {0: True}


# ---- crashes ----------------------------------------------------------------------------------------------------------------------------------
def test_a_crash_in_mid_save_loses_what_was_unsaved_and_nothing_else() -> None:
    """What one Ready has saved is there; of the one on its way to the disk a lost host keeps nothing, and of the next nothing was even written."""
    link = FakeLink(Etcd, nodes=3, sync_us=50_000)
    link.run_for(3 * S)
    at = leader(link)
    assert link.wait(link.request(at, "write", "x", "saved")).outcome == "ok"
    link.run_for(S)
    node = others(link, at)[0]
    for value in ("being saved", "of the next"):
        link.request(at, "write", "x", value)
        link.run_for(10_000)
    written = [entry.value for record in link.journal(at) if isinstance(record, Append) for entry in record.entries if entry.key]
    assert written == ["saved", "being saved"] and link.replica(at).log.last == 4 and link.replica(node).log.last == 3
    link.crash(at, host=True)
    link.restart(at)
    member = link.replica(at)
    assert (member.saving, member.outbox, member.unsaved, member.after) == (False, [], [], [])
    assert [entry.value for entry in member.log.entries if entry.key] == ["saved"]
    link.run_for(12 * S)
    assert link.values("x") == ["being saved"] * 3, "it was on its way to the others' disks"


def test_a_disk_that_takes_no_time_holds_nothing_back() -> None:
    link = cluster(3)
    quick = FakeLink(Etcd, nodes=3, sync_us=0)
    quick.run_for(3 * S)
    at = leader(quick)
    begun = quick.now
    assert quick.wait(quick.request(at, "write", "x", "a")).at - begun == 500, "there and back"
    assert not any(quick.replica(node).saving for node in range(3)) and link.replica(leader(link)).commit == 1
