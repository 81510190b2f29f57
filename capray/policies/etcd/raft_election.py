"""Raft's terms and elections (Ongaro and Ousterhout, ATC 2014, 5.1, 5.2, 5.4.1; Ongaro's thesis, 9.6), as etcd-io/raft has them (raft.go).

Decides: the term, the vote, who leads, when to stand; pre-vote, check-quorum and the lease it gives; what of them is to be on disk.
May not know: what a log entry means, clients, connections.
Time is counted in ticks of the heartbeat interval, as etcd does, or (`election_timeout_max`) by a timer of its own, as in the paper.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from capray.policies.etcd.raft_log import Log
from capray.policies.etcd.raft_messages import (
    NONE,
    Append,
    AppendResponse,
    HardState,
    Heartbeat,
    InstallSnapshot,
    PreVote,
    PreVoteResponse,
    Vote,
    VoteResponse,
)
from capray.policies.etcd.raft_quorum import LOST, WON, majority, tally
from capray.policies.etcd.raft_streams import Streams
from capray.replica import Message

FOLLOWER, PRE_CANDIDATE, CANDIDATE, LEADER = "follower", "pre-candidate", "candidate", "leader"
FROM_LEADER = (Append, Heartbeat, InstallSnapshot)


class Elections(Streams):
    """The part of a member that knows terms and leaders."""

    def __init__(self, node: int, nodes: int, settings: Any, stream: Any) -> None:
        super().__init__(node, nodes, settings, stream)
        self.quorum = majority(nodes)
        self.log = Log()
        self.term = 0
        self.vote = NONE
        self.lead = NONE
        self.state = FOLLOWER
        self.saved_term = 0  # what the journal holds
        self.saved_vote = NONE
        self.votes: dict[int, bool] = {}
        self.ticking = not settings.election_timeout_max_us
        self.elapsed = 0  # ticks since the election timer was restarted (a leader: since its last quorum check)
        self.timeout = 0  # after so many ticks this member stands
        self.led_at = 0  # own clock, when the leader was last heard
        self.unsaved: list[Any] = []  # what the next Ready is to journal
        self.outbox: list[tuple[int, Message]] = []  # what it is to send: to whom, what
        self.handlers: dict[type[Message], Callable[[int, Any], None]] = {
            PreVote: self.on_pre_vote, PreVoteResponse: self.on_pre_vote_response, Vote: self.on_vote, VoteResponse: self.on_vote_response}

    # ---- what later parts of the member add ----------------------------------------------------------------------------------------------
    def lead_begins(self) -> None:
        """This member has been elected."""

    def lead_ends(self) -> None:
        """This member leads no longer."""

    def beat(self) -> None:
        """A leader's heartbeat is due."""

    def quorum_active(self) -> bool:
        """Whether a leader has heard from a quorum since it last asked."""
        return True

    # ---- time ------------------------------------------------------------------------------------------------------------------------
    def start_clock(self) -> None:
        """A member boots: its ticks begin somewhere in a tick, and its first election comes soon (adjustTicks in etcdserver/server.go).  Simplified: at once;
        etcd looks each 50 ms for 5 s whether it hears two others and advances its ticks then, so that one that boots cut off stands later."""
        settings = self.settings
        self.redraw_timeout()
        if self.ticking:
            if settings.initial_election_tick_advance:
                self.elapsed = max(0, settings.election_ticks - (2 if self.peers else 1))
            self.set_timer("tick", 1 + self.stream.below(settings.heartbeat_interval_us))

    def redraw_timeout(self) -> None:
        """Restart the election timer with a new random timeout."""
        settings = self.settings
        if self.ticking:
            self.elapsed = 0
            self.timeout = settings.election_ticks + self.stream.below(settings.election_ticks)
        else:
            self.set_timer("election", self.stream.between(settings.election_timeout_us, settings.election_timeout_max_us))

    def restart_timer(self) -> None:
        """A sign of the leader, or a vote granted: restart the election timer."""
        if self.ticking:
            self.elapsed = 0
        else:
            self.redraw_timeout()

    def tick(self) -> None:
        """A heartbeat interval has passed on this member's clock."""
        self.elapsed += 1
        if self.state != LEADER:
            if self.elapsed >= self.timeout:
                self.elapsed = 0
                self.stand()
            return
        if self.elapsed >= self.settings.election_ticks:
            self.elapsed = 0
            self.check_quorum()
        if self.state == LEADER:
            self.beat()

    def on_election_timer(self) -> None:
        """Without ticks: the election timeout has passed, or a leader's quorum check is due."""
        if self.state == LEADER:
            self.set_timer("election", self.settings.election_timeout_us)
            self.check_quorum()
        else:
            self.redraw_timeout()
            self.stand()

    def on_beat_timer(self) -> None:
        """Without ticks: a leader's heartbeat is due."""
        if self.state == LEADER:
            self.set_timer("beat", self.settings.heartbeat_interval_us)
            self.beat()

    def check_quorum(self) -> None:
        """A leader that no quorum answers steps down."""
        if self.settings.check_quorum and not self.quorum_active():
            self.become_follower(self.term, NONE)

    def in_lease(self) -> bool:
        """Whether a leader was heard within an election timeout: then candidates are ignored (thesis, 4.2.3 and 6.4.1)."""
        if not self.settings.check_quorum or self.lead == NONE:
            return False
        if self.ticking:
            return self.elapsed < self.settings.election_ticks
        return self.state == LEADER or self.now - self.led_at < self.settings.election_timeout_us

    # ---- roles -----------------------------------------------------------------------------------------------------------------------
    def become_follower(self, term: int, lead: int) -> None:
        """Follow `lead` (NONE: nobody yet) in `term`."""
        was = self.state
        if term != self.term:
            self.term, self.vote = term, NONE
        self.lead = lead
        self.votes = {}
        self.state = FOLLOWER
        if was == LEADER:
            self.cancel_timer("beat")
            self.lead_ends()
        if self.settings.reset_timer_on_new_term or lead != NONE or was == LEADER:
            self.redraw_timeout()
        if was != FOLLOWER:
            self.role(FOLLOWER)

    def become_candidate(self) -> None:
        """Stand for the next term, and vote for oneself."""
        self.term += 1
        self.vote = self.node
        self.lead = NONE
        self.votes = {}
        self.state = CANDIDATE
        if self.ticking:
            self.redraw_timeout()
        self.role(CANDIDATE)

    def become_pre_candidate(self) -> None:
        """Ask first; neither term nor vote changes."""
        self.lead = NONE
        self.votes = {}
        self.state = PRE_CANDIDATE
        self.role(PRE_CANDIDATE)

    def become_leader(self) -> None:
        """Lead this term."""
        self.state = LEADER
        self.lead = self.node
        self.votes = {}
        if self.ticking:
            self.redraw_timeout()
        else:
            self.set_timer("election", self.settings.election_timeout_us)
            self.set_timer("beat", self.settings.heartbeat_interval_us)
        self.role(LEADER)
        self.lead_begins()

    # ---- what the next Ready takes ---------------------------------------------------------------------------------------------------
    def save(self) -> None:
        """Journal term and vote where they have changed."""
        if self.saved_term != self.term or self.saved_vote != self.vote:
            self.saved_term, self.saved_vote = self.term, self.vote
            self.unsaved.append(HardState(self.term, self.vote))

    def say(self, peer: int, message: Message) -> None:
        """Have the next Ready send it: Raft's own queue, r.msgs (ready.py says when that is)."""
        self.outbox.append((peer, message))

    # ---- terms (5.1) -----------------------------------------------------------------------------------------------------------------
    def admit(self, src: int, message: Any) -> bool:
        """A message of another term: take over a higher one, turn a lower one away.  Returns whether the message is to be handled."""
        kind = type(message)
        if message.term < self.term:
            self.turn_away(src, kind)
            return False
        if kind is Vote or kind is PreVote:
            if self.in_lease():
                return False
            if kind is Vote:
                self.become_follower(message.term, NONE)
        elif kind is not PreVoteResponse or message.reject:
            self.become_follower(message.term, src if kind in FROM_LEADER else NONE)
        return True

    def turn_away(self, src: int, kind: type[Any]) -> None:
        """A message of a lower term.  With check-quorum its leader is told of the higher term: candidates are ignored, nothing else would."""
        if kind is Heartbeat or kind is Append:
            if self.settings.check_quorum or self.settings.asks_first:
                self.say(src, AppendResponse(self.term, 0))
        elif kind is PreVote:
            self.say(src, PreVoteResponse(self.term, True))

    # ---- elections (5.2) -------------------------------------------------------------------------------------------------------------
    def stand(self) -> None:
        """The election timeout has passed without a leader."""
        if self.settings.asks_first:
            self.become_pre_candidate()
            for peer in self.peers:
                self.say(peer, PreVote(self.term + 1, self.log.last, self.log.last_term))
            self.count_itself(PreVoteResponse(self.term + 1, False))
        else:
            self.campaign()

    def campaign(self) -> None:
        """Ask everybody for their vote; by the time they read it one's own is on disk: who does not lead saves before it sends."""
        self.become_candidate()
        for peer in self.peers:
            self.say(peer, Vote(self.term, self.log.last, self.log.last_term))
        self.count_itself(VoteResponse(self.term, False))

    def count_itself(self, yes: PreVoteResponse | VoteResponse) -> None:
        """A candidate counts its own vote at once; since 3.6 when the Ready that holds it is saved (raft.go, campaign)."""
        if self.settings.hears_itself:
            self.say(self.node, yes)
        else:
            self.count(self.node, True)

    def on_vote(self, src: int, message: Vote) -> None:
        if message.term != self.term and not self.admit(src, message):
            return
        free = self.vote == src or (self.vote == NONE and self.lead == NONE)
        granted = free and self.log.up_to_date(message.index, message.log_term)
        if granted:
            self.vote = src
            self.restart_timer()
        self.say(src, VoteResponse(self.term, not granted))

    def on_pre_vote(self, src: int, message: PreVote) -> None:
        if message.term != self.term and not self.admit(src, message):
            return
        free = self.vote == src or (self.vote == NONE and self.lead == NONE) or message.term > self.term
        if free and self.log.up_to_date(message.index, message.log_term):
            self.say(src, PreVoteResponse(message.term, False))
        else:
            self.say(src, PreVoteResponse(self.term, True))

    def on_vote_response(self, src: int, message: VoteResponse) -> None:
        if (message.term == self.term or self.admit(src, message)) and self.state == CANDIDATE:
            self.count(src, not message.reject)

    def on_pre_vote_response(self, src: int, message: PreVoteResponse) -> None:
        if (message.term == self.term or self.admit(src, message)) and self.state == PRE_CANDIDATE:
            self.count(src, not message.reject)

    def count(self, voter: int, granted: bool) -> None:
        """A vote has come in."""
        self.votes.setdefault(voter, granted)
        yes = sum(self.votes.values())
        outcome = tally(yes, len(self.votes) - yes, self.nodes)
        if outcome == WON and self.state == PRE_CANDIDATE:
            self.campaign()
        elif outcome == WON:
            self.become_leader()
        elif outcome == LOST:
            self.become_follower(self.term, NONE)
