"""Linearizable reads without the log: ReadIndex (Ongaro's thesis, 6.4), as etcd-io/raft (read_only.go) and etcd's linearizableReadLoop have it.

Decides: which reads a round confirms, when it is asked again or given up.  May not know: the store.
A member confirms all its waiting reads by one round at a time: reads that come during a round wait for the next.  The leader notes its commit index,
makes sure by heartbeats that a quorum still takes it for the leader, and hands the index back; the member answers once it has applied so far.
A leader that has not yet committed an entry of its own term keeps such requests until it has.
A round without an answer is asked again each `read_index_retry`, and when a leader's first entry has been applied here; it fails after the request timeout, or at once when another leader is
elected ("etcdserver: leader changed").  Each asking has a number of its own, as since 2026 (etcd-io/etcd pull request 21399; with one number for all of
a round's, a paused member could read stale: issue 20418).  So a read that waited a round for its own round fails after one to two request timeouts.
"""

from __future__ import annotations

from typing import Any

from capray.policies.etcd.raft_election import FOLLOWER, LEADER
from capray.policies.etcd.raft_messages import NONE, ReadIndex, ReadIndexResponse
from capray.policies.etcd.raft_replication import Replication


class Reads(Replication):
    """The part of a member that confirms reads, its own and as leader those of others."""

    def __init__(self, node: int, nodes: int, settings: Any, stream: Any) -> None:
        super().__init__(node, nodes, settings, stream)
        self.unconfirmed: dict[tuple[int, int], list[int]] = {}  # leader: (reader, round) -> [commit index, bits of who confirmed], oldest first
        self.postponed: list[tuple[int, int]] = []  # leader: reads that wait for the first commit of its term
        self.read_state: tuple[int, int] | None = None  # a round that is confirmed, and its index: the next Ready hands it out, of several the newest
        self.round = 0  # this member's newest request to a leader
        self.first_round = 0  # the first request of the round under way (0: none is)
        self.read_index = 0  # what the store must have applied to answer it (0: not yet known)
        self.reading: list[tuple[int, str]] = []  # the round's reads: (request, key)
        self.waiting_reads: list[tuple[int, str]] = []  # for the next round
        self.handlers.update({ReadIndex: self.on_read_index, ReadIndexResponse: self.on_read_index_response})

    def answer_read(self, request: int, key: str) -> None:
        """Answer from the store."""

    # ---- the leader's part -----------------------------------------------------------------------------------------------------------
    def on_read_index(self, src: int, message: ReadIndex) -> None:
        """A read's round comes in.  Who does not lead passes it on, or drops it."""
        if self.state == LEADER:
            self.confirm(src, message.round)
        elif self.lead != NONE and src == self.node:
            self.say(self.lead, message)

    def confirm(self, reader: int, round: int) -> None:
        """Confirm by a quorum's heartbeats that this is still the leader."""
        if self.log.term(self.commit) != self.term:
            self.postponed.append((reader, round))
        elif self.quorum == 1 or self.settings.read_only_option == "lease":
            self.hand_back(reader, round, self.commit)
        elif (reader, round) not in self.unconfirmed:
            self.unconfirmed[reader, round] = [self.commit, 1 << self.node]
            self.beat_with(reader, round)

    def newest_read(self) -> tuple[int, int]:
        return next(reversed(self.unconfirmed), (NONE, 0))

    def confirmed(self, peer: int, reader: int, round: int) -> None:
        """One more member took this one for the leader after the read had come; a quorum confirms it and all before it."""
        read = self.unconfirmed.get((reader, round))
        if read is None:
            return
        read[1] |= 1 << peer
        if read[1].bit_count() < self.quorum:
            return
        for earlier in list(self.unconfirmed):
            self.hand_back(*earlier, self.unconfirmed.pop(earlier)[0])
            if earlier == (reader, round):
                return

    def hand_back(self, reader: int, round: int, index: int) -> None:
        if reader == self.node:
            self.read_state = (round, index)
        else:
            self.say(reader, ReadIndexResponse(self.term, round, index))

    def leads_for_reads(self) -> None:
        postponed, self.postponed = self.postponed, []
        for reader, round in postponed:
            self.confirm(reader, round)

    def lead_ends(self) -> None:
        super().lead_ends()
        self.unconfirmed = {}
        self.postponed = []

    # ---- the reader's part -----------------------------------------------------------------------------------------------------------
    def read(self, request: int, key: str) -> None:
        """A client asks for a linearizable read."""
        self.waiting_reads.append((request, key))
        if not self.first_round:
            self.begin_round()

    def begin_round(self) -> None:
        """Take all waiting reads into a round."""
        self.reading, self.waiting_reads = self.waiting_reads, []
        self.first_round = self.round + 1
        self.read_index = 0
        self.set_timer("read-timeout", self.settings.patience_us)
        self.ask_read_index()

    def ask_read_index(self) -> None:
        """Ask the leader, if one is known.  Each asking has a number of its own; an answer to any of the round's will do."""
        self.round += 1
        self.set_timer("read-retry", self.settings.read_index_retry_us)
        self.on_read_index(self.node, ReadIndex(self.round))

    def first_commit(self) -> None:
        """A leader's empty entry has been applied here: "first commit in current term: resending ReadIndex request" (v3_server.go)."""
        if self.first_round and not self.read_index:
            self.ask_read_index()

    def on_read_index_response(self, src: int, message: ReadIndexResponse) -> None:
        """Only a follower takes it (raft.go, stepFollower): a member that asks for votes meanwhile does not."""
        if (message.term == self.term or self.admit(src, message)) and self.state == FOLLOWER:
            self.read_state = (message.round, message.index)

    def take_read_index(self, round: int, index: int) -> None:
        """The loop of the reads hears that a round is confirmed (readStateC)."""
        if self.first_round and round >= self.first_round and not self.read_index:
            self.read_index = index
            self.cancel_timer("read-retry")
            self.cancel_timer("read-timeout")
            self.applied_on()

    def applied_on(self) -> None:
        """The store has moved on: far enough for the round's reads?"""
        if self.read_index and self.applied_to >= self.read_index:
            reads = self.end_round()
            for request, key in reads:
                self.answer_read(request, key)
            self.begin_waiting()

    def end_round(self) -> list[tuple[int, str]]:
        self.first_round = self.read_index = 0
        self.cancel_timer("read-retry")
        self.cancel_timer("read-timeout")
        reads, self.reading = self.reading, []
        return reads

    def fail_round(self, error: str) -> None:
        """The round is given up, and its reads with it."""
        if self.first_round and not self.read_index:
            for request, _ in self.end_round():
                self.reply(request, "fail", None, error)
            self.begin_waiting()

    def begin_waiting(self) -> None:
        if self.waiting_reads and not self.first_round:
            self.begin_round()
