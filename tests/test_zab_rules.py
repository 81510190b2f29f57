"""Rules of ZooKeeper 3.8's servers on which no other test failed when they were broken: elections that forget, limits phase by phase, learners that are late,
and the log's edges."""

from __future__ import annotations

from typing import Any

import pytest
from test_policy_zookeeper import SECOND, alone, database, ensemble, history, taken, vote
from test_zab_paper import broadcasting, leading, said

from capray.policies.zookeeper.replica import ZooKeeper
from capray.policies.zookeeper.zab_leader import LearnerHandler
from capray.policies.zookeeper.zab_learner import CONNECT_TRIES
from capray.policies.zookeeper.zab_log import Database
from capray.policies.zookeeper.zab_messages import (
    FOLLOWING,
    LEADING,
    LOOKING,
    SET,
    Ack,
    AckEpoch,
    Commit,
    Diff,
    FollowerInfo,
    Forward,
    LeaderInfo,
    NewLeader,
    Notification,
    NotLeading,
    Ping,
    Proposal,
    Revalidate,
    Snap,
    UpToDate,
    make_zxid,
)
from capray.policies.zookeeper.zab_peer import Socket
from capray.replica import CANCEL_TIMER, SET_TIMER

TICK = 2 * SECOND


# ---- election -----------------------------------------------------------------------------------------------------------------------------
def test_what_was_heard_in_an_earlier_election_counts_no_more() -> None:
    """FastLeaderElection.lookForLeader: recvset and outofelection are the call's own: a new look begins with none."""
    server = alone(5)
    server.on_start()
    vote(server, 1, 1, round_=9, state=LEADING)
    vote(server, 2, 1, round_=9, state=FOLLOWING)
    server.look()
    vote(server, 3, 1, round_=9, state=FOLLOWING)
    assert server.state == LOOKING, "the first two may have left it"
    vote(server, 1, 1, round_=9, state=LEADING)
    vote(server, 2, 1, round_=9, state=FOLLOWING)
    assert server.state == FOLLOWING


def test_a_leader_that_says_so_in_this_round_is_followed_with_those_who_still_vote_for_it() -> None:
    """lookForLeader, case LEADING: "Consider all notifications from the same epoch together": votes of this round and the leader's own word."""
    server = alone(5)
    server.on_start()
    vote(server, 3, 4)
    assert server.state == LOOKING and server.election.vote.leader == 4
    vote(server, 4, 4, state=LEADING)
    assert server.state == FOLLOWING and server.learner is not None and server.learner.leader == 4


def test_a_server_that_does_not_look_counts_no_votes() -> None:
    """FastLeaderElection.WorkerReceiver: who is not looking answers a looking one with its vote, and hands nothing to its own election."""
    server = alone(3)
    server.on_start()
    server.elected(1)
    before = server.election.vote
    taken(server)
    vote(server, 2, 2, zxid=99, epoch=9, round_=7)
    assert server.state == FOLLOWING and (server.election.vote, server.election.round) == (before, 1)
    assert [to for to, _ in said(server, type(before))] == [2]


def test_in_a_newer_round_a_server_votes_anew_from_its_own_history() -> None:
    """lookForLeader: "if (n.electionEpoch > logicalclock.get()) ... updateProposal" with the better of the notification and its own initial vote: what it had
    come to in the older round is void."""
    server = alone(5)
    server.on_start()
    vote(server, 3, 4)
    vote(server, 1, 1, round_=5)
    assert (server.election.vote.leader, server.election.vote.round, server.election.round) == (1, 5, 5)
    server = alone(5, node=2)
    server.on_start()
    vote(server, 3, 4)
    vote(server, 1, 1, round_=5)
    assert (server.election.vote.leader, server.election.vote.round) == (2, 5)


def test_a_vote_that_the_dial_has_delivered_is_not_sent_again() -> None:
    """QuorumCnxManager: one queue for each peer, whose last vote is kept: sent when the connection stands, where it is not the one that waited for it."""
    server = alone(3)
    server.on_start()
    server.channels.to[1].up = False
    taken(server)
    server.channels.tell(1, server.election.vote)
    assert len(said(server, Notification)) == 1
    server.on_connected(1)
    assert not said(server, Notification)
    server.on_disconnected(1)
    server.on_connected(1)
    assert len(said(server, Notification)) == 1, "what was on its way may be lost"


# ---- the limits -----------------------------------------------------------------------------------------------------------------------------
def armed(server: ZooKeeper) -> list[int]:
    return [effect[2] for effect in taken(server) if effect[:2] == (SET_TIMER, "lead")]


def test_each_phase_of_a_new_leader_has_init_limit_ticks() -> None:
    """Leader.getEpochToPropose, waitForEpochAck, waitForNewLeaderAck: each waits "self.getInitLimit() * self.getTickTime()", and throws where no quorum
    came."""
    server = alone(3)
    server.on_start()
    taken(server)
    server.elected(0)
    assert armed(server) == [10 * TICK]
    server.on_message(1, FollowerInfo(0))
    assert armed(server) == [10 * TICK]
    server.on_message(1, AckEpoch(1, 0, 0))
    assert armed(server) == [10 * TICK]
    server.on_message(0, Ack(make_zxid(1)))
    server.on_message(1, Ack(make_zxid(1)))
    assert (CANCEL_TIMER, "lead") in taken(server)


def test_a_leader_that_nobody_connects_to_looks_again() -> None:
    server = alone(3)
    server.on_start()
    server.elected(0)
    server.on_timer("lead")
    assert server.state == LOOKING and server.leader is None


def test_a_learner_has_init_limit_and_sync_limit_ticks_to_come_in_step() -> None:
    """LearnerHandler.run: "tickOfNextAckDeadline = learnerMaster.getTickOfInitialAckDeadline()", self.tick + initLimit + syncLimit: so long it counts as in
    step."""
    server = broadcasting(3)
    server.on_disconnected(1)
    server.on_disconnected(2)
    server.on_message(1, FollowerInfo(1))
    server.on_message(1, AckEpoch(1, 1, make_zxid(1, 1)))
    ticks = 0
    while server.leader is not None:
        server.on_timer("tick")
        ticks += 1
    assert ticks // 2 in (15, 16)


def test_a_learner_that_connects_and_says_no_more_is_dropped_after_init_limit() -> None:
    """LearnerHandler: the socket's time-out is tickTime x initLimit until the learner is in step."""
    server = alone(3)
    server.on_start()
    server.elected(0)
    taken(server)
    server.on_message(1, FollowerInfo(0))
    assert [effect[2] for effect in taken(server) if effect[:2] == (SET_TIMER, ("learner", 1))] == [10 * TICK]
    server.now += 10 * TICK
    server.on_timer(("learner", 1))
    assert server.leader is not None and not server.leader.learners


def test_a_learner_that_is_silent_for_sync_limit_is_dropped() -> None:
    """LearnerHandler: sock.setSoTimeout(syncLimit x tickTime): its read throws, and the leader forgets it."""
    server = broadcasting(5)
    assert server.leader is not None
    server.now += 5 * TICK
    server.on_message(2, Ack(make_zxid(1, 1)))
    for sid in (1, 2):
        server.on_timer(("learner", sid))
    assert set(server.leader.learners) == {2}


def test_only_who_is_in_step_is_timed_for_a_proposal() -> None:
    """LearnerHandler.SyncLimitCheck: "start()" is called when NEWLEADER was acknowledged; updateProposal does nothing before."""
    server = broadcasting(5)
    assert server.leader is not None
    server.on_message(3, FollowerInfo(0))
    server.on_message(3, AckEpoch(1, 0, 0))
    server.on_message(1, Forward(7, SET, "x", "a", make_zxid(1, 1)))
    timed = {sid: handler.unacked for sid, handler in server.leader.learners.items()}
    assert timed == {1: make_zxid(1, 2), 2: make_zxid(1, 2), 3: 0}


def test_the_oldest_proposal_without_an_acknowledgement_is_the_one_that_is_timed() -> None:
    """SyncLimitCheck.updateAck: the current one's acknowledgement makes the next one current; the next one's, "ACK for 0x{} received before ACK for
    0x{}", leaves no next."""
    peer = alone(3)
    handler = LearnerHandler(1, Socket(peer, ("learner", 1)), 15)
    handler.sent(1, 10)
    handler.sent(2, 11)
    handler.sent(3, 12)
    handler.acked(1)
    assert (handler.unacked, handler.unacked_since) == (3, 12)
    handler.sent(4, 13)
    handler.acked(2)  # neither
    assert handler.next_unacked == 4
    handler.acked(4)
    handler.acked(3)
    assert handler.unacked == 0


# ---- learners ---------------------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("refused", [lambda server: server.on_message(1, NotLeading()), lambda server: server.on_disconnected(1)])
def test_a_follower_tries_its_leader_five_times(refused: Any) -> None:
    """Learner.connectToLeader: "for (int tries = 0; tries < 5 && socket.get() == null; tries++)", a port or a host that refuses; then "Unexpected exception,
    retries exceeded"."""
    server = alone(3)
    server.on_start()
    server.elected(1)
    server.channels.to[1].up = False
    taken(server)
    for _ in range(CONNECT_TRIES - 1):
        refused(server)
        assert (SET_TIMER, "register", 100_000) in taken(server)
        server.on_timer("register")
        assert [to for to, _ in said(server, FollowerInfo)] == [1]
    refused(server)
    assert server.state == LOOKING and server.learner is None


def test_a_follower_that_is_in_step_does_not_try_again_when_the_connection_ends() -> None:
    server = alone(3)
    server.on_start()
    server.elected(1)
    server.on_message(1, LeaderInfo(1))
    server.channels.to[1].up = False
    server.on_disconnected(1)
    assert server.state == LOOKING


def test_an_acknowledgement_of_another_epoch_is_no_acknowledgement_of_this_one() -> None:
    """DSN 2011, phase 1: acknowledgements of NEWEPOCH(e'): of this epoch."""
    server = alone(3)
    server.on_start()
    server.accepted = 4
    server.elected(0)
    server.on_message(1, FollowerInfo(2))
    server.on_message(1, AckEpoch(4, 0, 0))
    assert server.current == 0 and not said(server, NewLeader)
    server.on_message(1, AckEpoch(5, 0, 0))
    assert server.current == 5


def test_a_commit_that_comes_before_new_leader_is_applied_when_the_learner_serves() -> None:
    """Learner.syncWithLeader: until UPTODATE commits go to packetsCommitted, and are applied after it."""
    server = alone(3)
    server.on_start()
    server.elected(1)
    server.on_message(1, LeaderInfo(1))
    server.on_message(1, Diff(1, ()))
    server.on_message(1, history((1, 1))[0])
    server.on_message(1, Commit(make_zxid(1, 1)))
    server.on_message(1, NewLeader(1))
    server.on_message(1, UpToDate(1))
    assert server.serving and server.peek("k") == "1.1" and server.state == FOLLOWING


def test_a_session_that_reconnects_has_its_whole_time_again() -> None:
    """Leader.revalidateSession asks checkIfValidGlobalSession, which is touchSession: the client was heard of."""
    server = broadcasting(3)
    assert server.leader is not None
    session = make_zxid(1, 1)
    for _ in range(8):
        server.leader.heard(1)
        server.leader.on_tick_timer()
    before = server.leader.expiry[session]
    server.on_message(1, Revalidate(session))
    assert server.leader.expiry[session] == before + 8
    server.leader.heard(1)
    server.leader.on_tick_timer()
    assert [to for to, _ in said(server, Ping)][-2:] == [1, 2]


def test_a_leader_counts_only_those_who_have_acknowledged_its_epoch() -> None:
    """DSN 2011, phase 1: acknowledgements of the new epoch from a quorum: of five, itself and one are none."""
    server = alone(5)
    server.on_start()
    server.elected(0)
    for src in (1, 2):
        server.on_message(src, FollowerInfo(0))
    server.on_message(1, AckEpoch(1, 0, 0))
    assert server.current == 0
    server.on_message(2, AckEpoch(1, 0, 0))
    assert server.current == 1 and leading(5).current == 1


def test_only_a_connected_clients_session_is_heard_of() -> None:
    """LearnerHandler.ping, and Learner.ping: the sessions that were touched: a client without a connection is not heard of."""
    server = ensemble(3).replica(0)
    read, write = server.clients.sessions
    assert server.clients.live() == (read.id, write.id)
    server.clients.disconnect()
    assert server.clients.live() == () and read.id and write.id


# ---- the log --------------------------------------------------------------------------------------------------------------------------------------
def told() -> tuple[Database, list[Any], list[Any]]:
    applied: list[Any] = []
    discarded: list[Any] = []
    return Database(2, lambda *what: applied.append(what[1]), lambda *what: discarded.append(what[1])), applied, discarded


@pytest.mark.parametrize("kept", range(6))
def test_a_truncation_drops_just_what_is_newer_and_what_nobody_saw_was_never_discarded(kept: int) -> None:
    """ZKDatabase.truncateLog: "Truncate the ZKDatabase to the specified zxid"."""
    db, _, discarded = told()
    for txn in history(*((1, i) for i in range(1, 6))):
        db.append(txn)
    db.keep = 9
    db.commit_up_to(3)
    db.truncate(make_zxid(1, kept))
    assert [txn.zxid for txn in db.log] == [make_zxid(1, i) for i in range(1, kept + 1)] and db.done == min(3, kept)
    assert discarded == [f"1.{i}" for i in range(3, kept, -1)]


@pytest.mark.parametrize(("epoch", "counter", "follows"), [(1, 4, True), (1, 5, False), (1, 3, False), (1, 1, False), (2, 1, True), (2, 2, False), (0, 1, False)])
def test_what_follows_in_a_log_is_the_next_of_its_epoch_or_the_first_of_a_newer_one(epoch: int, counter: int, follows: bool) -> None:
    """Learner.syncWithLeader: "Got zxid 0x{} expected 0x{}", lastQueued + 1: a warning there, over TCP, which loses nothing between."""
    assert database(history((1, 1), (1, 2), (1, 3))).follows(make_zxid(epoch, counter)) is follows


def test_a_snapshot_discards_what_it_does_not_hold_and_nothing_that_it_does() -> None:
    """LearnerHandler: a SNAP replaces the learner's tree: what it had applied beyond it is gone, what is up to it is in it."""
    db, applied, discarded = told()
    db.keep = 9
    for txn in history((1, 1), (1, 2), (1, 3)):
        db.append(txn)
    db.commit_up_to(3)
    applied.clear()
    db.replace(Snap(2, make_zxid(1, 2), (("k", make_zxid(1, 2), "1.2"),), ()))
    assert discarded == ["1.3"] and db.last_zxid() == make_zxid(1, 2) and db.follows(make_zxid(1, 3))


def test_what_is_dropped_from_memory_leaves_its_last_zxid() -> None:
    """ZKDatabase.addCommittedProposal: "if (committedLog.size() > commitLogCount) { committedLog.remove(); minCommittedLog =
    committedLog.peek().packet.getZxid(); }"."""
    db, _, _ = told()
    for txn in history(*((1, i) for i in range(1, 5))):
        db.append(txn)
        db.commit()
    assert [txn.zxid for txn in db.log] == [make_zxid(1, 3), make_zxid(1, 4)] and db.floor == make_zxid(1, 2)
    db.truncate(0)
    assert db.last_zxid() == make_zxid(1, 2)


def test_memory_serves_a_learner_that_the_newest_file_does_not_reach() -> None:
    """LearnerHandler.syncFollower: the committedLog first; the file only where the learner is before it."""
    leader = database([], 500, on_disk=True)
    leader.recover(history(*((1, i) for i in range(1, 1001))))
    for txn in history((1, 1001), (1, 1002)):
        leader.append(txn)
    leader.commit_up_to(1002)
    plan = leader.sync_plan(1, make_zxid(1, 900), leader.done)
    assert isinstance(plan, Diff) and [txn.zxid & 0xFFFF for txn in plan.missing] == list(range(901, 1003))


def test_an_ensemble_goes_on_when_a_server_was_elected_that_holds_a_proposal_alone() -> None:
    """DSN 2011, phase 2: a new leader's whole history is committed, also what only it had logged."""
    link = ensemble(3)
    link.wait(link.request(2, "write", "x", "a"))
    link.cut([[2], [0, 1]])
    link.request(2, "write", "x", "alone")
    link.run_for(SECOND)
    for node in (0, 1):
        link.crash(node)
    link.heal()
    link.run_for(SECOND)
    for node in (0, 1):
        link.restart(node)
    link.run_for(5 * SECOND)
    assert link.values("x") == ["alone"] * 3 and all(isinstance(link.journal(node)[-1], Proposal) for node in range(3))
