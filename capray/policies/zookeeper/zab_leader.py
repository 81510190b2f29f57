"""Zab's leader: DSN 2011, section IV, phases 1 to 3, "leader"; ZooKeeper 3.8, Leader.lead, LearnerHandler and LeaderSessionTracker.

Decides: the new epoch, how each learner is synchronised, what is proposed and when it is committed, when this leader gives up, which sessions
expire.  May not know: whether a learner is reachable; it hears from it, or does not.
Phase 1, discovery: a quorum connects; the new epoch is above all that it has accepted; each acknowledges it with its history's end; one that is ahead
is turned away.  Phase 2, synchronisation: each gets the leader's history and NEWLEADER; with a quorum's acknowledgements the leader serves.
Phase 3, broadcast: proposals in order to every learner in step; a quorum of acknowledgements commits, in order.
Silence: a learner's socket times out after syncLimit ticks (initLimit before it is in step); one that leaves a proposal unacknowledged that
long is dropped too (SyncLimitCheck); once a tick the leader counts who is in step, and stops where that is no quorum.
"""

from __future__ import annotations

from typing import Any

from capray.policies.zookeeper.zab_messages import (
    CLOSE_SESSION,
    CREATE_SESSION,
    Ack,
    AckEpoch,
    Commit,
    FollowerInfo,
    Forward,
    LeaderInfo,
    NewLeader,
    Ping,
    Pong,
    Proposal,
    Refused,
    Revalidate,
    Revalidated,
    Sync,
    Synced,
    UpToDate,
    make_zxid,
    starts_epoch,
)
from capray.policies.zookeeper.zab_peer import QuorumPeer, Socket

DISCOVERY, EPOCH_ACKS, SYNCHRONIZATION, BROADCAST = range(4)  # the leader's phase
CONNECTED, INFORMED, ACCEPTED, SYNCHRONIZING, IN_STEP = range(5)  # a learner's stage


class LearnerHandler:
    """The leader's end of one learner's socket."""

    def __init__(self, sid: int, socket: Socket, ack_deadline: int) -> None:
        self.sid = sid
        self.stage = CONNECTED
        self.zxid = 0  # the end of its history, when it told
        self.socket = socket
        self.ack_deadline = ack_deadline  # the tick until which it counts as in step
        self.unacked = 0  # SyncLimitCheck: the proposal that is timed (0: none) since which half tick, and the one to be timed next
        self.unacked_since = 0
        self.next_unacked = 0
        self.next_since = 0

    def sent(self, zxid: int, beat: int) -> None:
        """A proposal has gone out to it; `beat` is the next half tick."""
        if not self.unacked:
            self.unacked, self.unacked_since = zxid, beat
        else:
            self.next_unacked, self.next_since = zxid, beat

    def acked(self, zxid: int) -> None:
        """It has acknowledged a proposal."""
        if zxid == self.unacked:
            self.unacked, self.unacked_since = self.next_unacked, self.next_since
            self.next_unacked = 0
        elif zxid == self.next_unacked:
            self.next_unacked = 0


class Leader:
    """A leader, from its election until it gives up."""

    def __init__(self, peer: QuorumPeer) -> None:
        settings = peer.settings
        self.peer = peer
        self.me = 1 << peer.node
        self.tick_us = settings.tick_time_us
        self.init_us = settings.init_limit * settings.tick_time_us
        self.sync_us = settings.sync_limit * settings.tick_time_us
        self.elected_at = peer.now
        self.phase = DISCOVERY
        self.epoch = -1
        self.own_history = (peer.current, peer.db.last_zxid())
        self.voters = 0  # who has taken part in the present phase
        self.learners: dict[int, LearnerHandler] = {}
        self.forwarding: list[LearnerHandler] = []  # who gets proposals and commits
        self.counter = 0
        self.acks: dict[int, int] = {}  # outstanding proposal -> bits of those who have it on disk
        self.syncs: dict[int, list[tuple[int, int]]] = {}  # proposal -> (learner, request) to tell when it is committed
        self.beat = 0  # half ticks so far: the leader's own clock, for what it looks at when it pings
        self.tick = 0
        self.skip = True
        self.expiry: dict[int, int] = {}  # session -> the half tick at which it expires
        self.session_beats = 2 * settings.granted_session_timeout_us() // settings.tick_time_us
        self.sync_beats = 2 * settings.sync_limit

    def start(self) -> None:
        """Wait for a quorum of learners."""
        self.peer.set_timer("lead", self.init_us)
        self._offer(self.peer.node, self.peer.accepted)

    def port_is_open(self) -> bool:
        """Whether learners can connect yet: they decide when their leader does, and the first of them come too early (Learner.connectToLeader tries again)."""
        return not 0 <= self.peer.now - self.elected_at < self.peer.settings.leader_port_us

    def stop(self) -> None:
        """Leader.shutdown: close every learner's socket."""
        for name in ("lead", "tick"):
            self.peer.cancel_timer(name)
        for sid in list(self.learners):
            self.drop(sid)

    def drop(self, sid: int, closed: bool = False) -> None:
        """The end of a learner's socket; `closed`: by itself."""
        handler = self.learners.pop(sid, None)
        if handler is None:
            return
        self.peer.cancel_timer(("learner", sid))
        if handler in self.forwarding:
            self.forwarding.remove(handler)
        if not closed:
            self.peer.hang_up(sid)

    # ---- phase 1: discovery -----------------------------------------------------------------------------------------------------------
    def on_follower_info(self, sid: int, message: FollowerInfo) -> None:
        """A learner connects."""
        self.drop(sid, closed=True)
        limit = self.peer.settings.init_limit + self.peer.settings.sync_limit
        handler = self.learners[sid] = LearnerHandler(sid, Socket(self.peer, ("learner", sid)), self.tick + limit)
        handler.socket.arm(self.init_us)
        if self.phase == DISCOVERY:
            self._offer(sid, message.accepted)
        else:
            self._inform(handler)

    def _offer(self, sid: int, accepted: int) -> None:
        """getEpochToPropose: above every epoch that a quorum has accepted."""
        self.epoch = max(self.epoch, accepted + 1)
        self.voters |= 1 << sid
        if self.peer.is_quorum(self.voters):
            self.phase = EPOCH_ACKS
            self.voters = self.me
            self.peer.set_timer("lead", self.init_us)
            self.peer.accept_epoch(self.epoch)
            for handler in self.learners.values():
                self._inform(handler)
            self._check_epoch_acks()

    def _inform(self, handler: LearnerHandler) -> None:
        handler.stage = INFORMED
        self.peer.send(handler.sid, LeaderInfo(self.epoch))

    def on_ack_epoch(self, sid: int, message: AckEpoch) -> None:
        """A learner has accepted the epoch, and says where its history ends."""
        handler = self.learners.get(sid)
        if handler is None or handler.stage != INFORMED or message.epoch != self.epoch:
            return
        handler.zxid = message.zxid
        handler.stage = ACCEPTED
        if self.phase != EPOCH_ACKS:
            self._synchronize(handler)
        elif (message.current, message.zxid) > self.own_history:
            self.drop(sid)
        elif message.current >= 0:
            self.voters |= 1 << sid
            self._check_epoch_acks()

    def _check_epoch_acks(self) -> None:
        if not self.peer.is_quorum(self.voters):
            return
        self.phase = SYNCHRONIZATION
        self.voters = 0
        self.peer.set_timer("lead", self.init_us)
        self.peer.enter_epoch(self.epoch)
        self.peer.send(self.peer.node, Ack(make_zxid(self.epoch)))
        for handler in list(self.learners.values()):
            if handler.stage == ACCEPTED:
                self._synchronize(handler)

    # ---- phase 2: synchronisation -------------------------------------------------------------------------------------------------------
    def _synchronize(self, handler: LearnerHandler) -> None:
        """DIFF, TRUNC or SNAP, then what is outstanding (startForwarding), then NEWLEADER; from now on it gets every proposal."""
        db = self.peer.db
        history = db.done if self.phase == BROADCAST else len(db.log)
        handler.stage = SYNCHRONIZING
        self.peer.send(handler.sid, db.sync_plan(self.epoch, handler.zxid, history))
        for txn in db.log[history:]:
            self.peer.send(handler.sid, txn)
        self.peer.send(handler.sid, NewLeader(self.epoch))
        self.forwarding.append(handler)

    def _on_new_leader_ack(self, sid: int) -> None:
        handler = self.learners.get(sid)
        if handler is not None:
            if handler.stage != SYNCHRONIZING:
                return
            handler.stage = IN_STEP
            handler.socket.arm(self.sync_us)
        self.voters |= 1 << sid
        if self.phase == BROADCAST:
            self.peer.send(sid, UpToDate(self.epoch))
        elif self.phase == SYNCHRONIZATION and self.peer.is_quorum(self.voters):
            self._begin_broadcast()

    def _begin_broadcast(self) -> None:
        """The history is committed: a quorum has it."""
        peer = self.peer
        self.phase = BROADCAST
        peer.cancel_timer("lead")
        self._start_ticking()
        peer.db.commit_up_to(len(peer.db.log))
        for session in peer.db.sessions:
            self._track(session)
        for handler in self.learners.values():
            if handler.stage == IN_STEP:
                peer.send(handler.sid, UpToDate(self.epoch))
        peer.serve(self.epoch)

    def _start_ticking(self) -> None:
        """Count ticks from now; in a cluster's first epoch from a little earlier (`tick_phase`)."""
        phase = 0
        if self.epoch == 1:
            given, width = self.peer.settings.tick_phase_us, self.peer.settings.tick_phase_width_us
            if given is None:
                given, width = 0, self.tick_us
            phase = (given + self.peer.stream.below(width)) % self.tick_us if width else given
        half = self.tick_us // 2
        self.skip = phase < half
        self.peer.set_timer("tick", half - phase % half)

    # ---- phase 3: broadcast -----------------------------------------------------------------------------------------------------------
    def on_forward(self, sid: int, message: Forward) -> None:
        """A server, this one included, passes on a client's update: it gets the next zxid and goes to every learner, or is turned away
        where its session is gone.  (PrepRequestProcessor; a handler logs one proposal at most, so that log and wire keep one order.)"""
        peer = self.peer
        if self.phase != BROADCAST:
            return
        if message.op == CLOSE_SESSION:
            sid = -1
        elif message.op != CREATE_SESSION and message.session not in self.expiry:
            peer.send(sid, Refused(message.id))
            return
        self.counter += 1
        zxid = make_zxid(self.epoch, self.counter)
        txn = Proposal(zxid, sid, message.id, message.op, message.key, message.value, message.session)
        self.acks[zxid] = 0
        for handler in self.forwarding:
            peer.send(handler.sid, txn)
            if handler.stage == IN_STEP:
                handler.sent(zxid, self.beat + 1)
        peer.write_ahead(txn)
        peer.send(peer.node, Ack(zxid))

    def on_ack(self, sid: int, message: Ack) -> None:
        """A server has a proposal on disk: this one itself, or a learner in step."""
        zxid = message.zxid
        if starts_epoch(zxid):
            if zxid == make_zxid(self.epoch):
                self._on_new_leader_ack(sid)
            return
        if sid != self.peer.node:
            handler = self.learners[sid]
            if handler.stage != IN_STEP:
                return
            handler.acked(zxid)
        acks = self.acks.get(zxid)
        if acks is None:
            return
        self.acks[zxid] = acks | 1 << sid
        self._commit()

    def _commit(self) -> None:
        """Commit, in order, what a quorum has on disk."""
        peer = self.peer
        while self.acks:
            zxid = peer.db.next_to_commit()
            if not peer.is_quorum(self.acks[zxid]):
                return
            del self.acks[zxid]
            commit = Commit(zxid)
            for handler in self.forwarding:
                peer.send(handler.sid, commit)
            txn = peer.db.commit()
            if txn.op == CREATE_SESSION:
                self._track(txn.zxid)
            elif txn.op == CLOSE_SESSION:
                self.expiry.pop(txn.session, None)
            peer.committed(txn)
            for sid, request in self.syncs.pop(zxid, ()):
                peer.send(sid, Synced(request))

    def on_sync(self, sid: int, message: Sync) -> None:
        """processSync: answered at once where nothing is outstanding, and without asking a quorum whether this is still the leader."""
        if self.acks:
            self.syncs.setdefault(make_zxid(self.epoch, self.counter), []).append((sid, message.id))
        else:
            self.peer.send(sid, Synced(message.id))

    # ---- sessions -----------------------------------------------------------------------------------------------------------------------
    def is_alive(self, session: int) -> bool:
        """Whether the session has not expired; it is touched."""
        if session not in self.expiry:
            return False
        self._track(session)
        return True

    def touch(self, sessions: tuple[int, ...]) -> None:
        """Clients were heard of."""
        for session in sessions:
            if session in self.expiry:
                self._track(session)

    def _track(self, session: int) -> None:
        """ExpiryQueue.roundToNextInterval: expiry is at the next whole tick after the time-out."""
        self.expiry[session] = ((self.beat + self.session_beats) // 2 + 1) * 2

    def on_revalidate(self, sid: int, message: Revalidate) -> None:
        """A client has reconnected to a learner."""
        self.peer.send(sid, Revalidated(message.session, self.is_alive(message.session)))

    def on_pong(self, sid: int, message: Pong) -> None:
        """A learner answers a ping, with its live sessions."""
        self.touch(message.sessions)

    def _expire(self) -> None:
        """Close every session whose time is up."""
        for session in [session for session, at in self.expiry.items() if at <= self.beat]:
            del self.expiry[session]
            self.peer.send(self.peer.node, Forward(0, CLOSE_SESSION, "", None, session))

    # ---- liveness -----------------------------------------------------------------------------------------------------------------------
    def heard(self, sid: int) -> bool:
        """A packet of this server; False where it is no learner of this leader's."""
        handler = self.learners.get(sid)
        if handler is None:
            return sid == self.peer.node
        handler.socket.heard = self.peer.now
        if handler.stage == IN_STEP:
            handler.ack_deadline = self.tick + self.peer.settings.sync_limit
        return True

    def on_lead_timer(self) -> None:
        """No quorum connected, accepted or acknowledged within initLimit."""
        if self.phase != BROADCAST:
            self.peer.look()

    def on_learner_timer(self, sid: int) -> None:
        """The learner's socket may have timed out."""
        handler = self.learners.get(sid)
        if handler is not None and handler.socket.timed_out():
            self.drop(sid)

    def on_tick_timer(self) -> None:
        """Twice a tick: ping.  Once a tick: does a quorum follow, and which sessions have expired?"""
        peer = self.peer
        self.beat += 1
        if not self.skip:
            self.tick += 1
            in_step = self.me
            for handler in self.learners.values():
                if self.tick <= handler.ack_deadline:
                    in_step |= 1 << handler.sid
            if not peer.is_quorum(in_step):
                peer.look()
                return
            self._expire()
        self.skip = not self.skip
        peer.set_timer("tick", self.tick_us // 2)
        for handler in [handler for handler in self.learners.values() if handler.stage >= SYNCHRONIZING]:
            if handler.unacked and self.beat - handler.unacked_since >= self.sync_beats:
                self.drop(handler.sid)
            else:
                peer.send(handler.sid, Ping())


def handlers(kind: type[Leader] = Leader) -> dict[type[Any], Any]:
    """What to do with each packet of a learner."""
    return {
        FollowerInfo: kind.on_follower_info,
        AckEpoch: kind.on_ack_epoch,
        Ack: kind.on_ack,
        Forward: kind.on_forward,
        Sync: kind.on_sync,
        Revalidate: kind.on_revalidate,
        Pong: kind.on_pong,
    }
