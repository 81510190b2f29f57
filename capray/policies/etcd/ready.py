"""The loop of etcd's raftNode: one Ready after another (etcd 3.4 to 3.6, server/etcdserver/raft.go, raftNode.start).

Decides: when what Raft has come to is applied, written and sent.  May not know: what a message says, but for what is treated by its kind there.
A Ready is all that has come about since the last one.  A confirmed read and committed entries are handed on first: applying runs beside the writing.  A
leader's messages go out before its own fdatasync ("the leader can write to its disk in parallel with replicating to the followers", thesis 10.2.1),
anybody else's after it.  While it lasts Raft goes on hearing messages and proposals, but what comes of them, a commitment, an answer, a confirmed read, is
for the next Ready; so is a tick, and only one (time.Ticker keeps no more).  So a leader applies nothing that is not on its disk: an entry is committed in a
later Ready than the one that brought it.  Where both come in one (a single member; a follower that hears of both at once) the writing comes first:
shouldWaitWALSync, since 3.4.21 and 3.5.5, issue 14370.  In 3.6, which has a leader count itself after the writing instead, such a follower applies what a
majority has saved while it saves it too.  A snapshot is restored when it is on disk.
Simplified: applying, the snapshot's several fdatasyncs and its merging with a newer store take no time of their own.
"""

from __future__ import annotations

from typing import Any

from capray.policies.etcd.raft_election import LEADER
from capray.policies.etcd.raft_messages import NONE, AppendResponse, Committed, InstallSnapshot, Persisted
from capray.policies.etcd.raft_reads import Reads
from capray.replica import Message

PERSISTED = Persisted()


class ReadyLoop(Reads):
    """The part of a member between Raft, its disk, its store and its peers."""

    def __init__(self, node: int, nodes: int, settings: Any, stream: Any) -> None:
        super().__init__(node, nodes, settings, stream)
        self.known_lead = NONE  # whom the server takes for the leader
        self.saving = False  # a Ready is on its way to the disk
        self.after: list[tuple[int, Message]] = []  # what it sends when it is there
        self.apply_after: tuple[InstallSnapshot | None, int] | None = None  # what it applies then: a snapshot, and up to which index
        self.tick_waits = False
        self.handlers[Persisted] = self.on_persisted

    def lead_told(self) -> None:
        """The server hears of another leader."""

    def on_ticker(self) -> None:
        """The ticker ticks."""
        self.set_timer("tick", self.settings.heartbeat_interval_us)
        if self.saving:
            self.tick_waits = True
        else:
            self.tick()

    def finish(self) -> None:
        """A handler is at its end: go on while there is a Ready and none is being saved.  Whatever is recorded after a synced write waits for the disk, timers
        too: so nothing is."""
        while not self.saving and self.has_ready():
            self.take_ready()

    def has_ready(self) -> bool:
        """Whether anything has come about (raft/rawnode.go, HasReady)."""
        return bool(self.outbox or self.unsaved or self.read_state or self.commit > self.applied_to or self.lead != self.known_lead
                    or self.term != self.saved_term or self.vote != self.saved_vote)

    def take_ready(self) -> None:
        """Handle one Ready up to the end of its writing, or whole where nothing is to be synced."""
        self.save()
        out, self.outbox = self.outbox, []
        records, self.unsaved = self.unsaved, []
        snapshot, self.snapshot = self.snapshot, None
        index = self.commit
        writes_first = snapshot is not None or (index > self.stable and not self.settings.hears_itself)
        self.stable = self.log.last
        to_be_synced = bool(records)
        if index > self.applied_to:
            records.append(Committed(index))
        self.hand_on()
        if writes_first:
            self.apply_after = snapshot, index
        elif index > self.applied_to:
            self.apply_to(index)
        if self.state == LEADER and not writes_first:
            out = self.send_out(out)
        self.after = out
        self.write(records, to_be_synced)

    def hand_on(self) -> None:
        """The server hears who leads, and which round of reads is confirmed: of several the newest."""
        if self.lead != self.known_lead:
            self.known_lead = self.lead
            if self.lead != NONE:
                self.lead_told()
        if self.read_state is not None:
            state, self.read_state = self.read_state, None
            self.take_read_index(*state)

    def write(self, records: list[Any], to_be_synced: bool) -> None:
        """Journal entries, term, vote and the commit index, which alone is not worth a sync (raft/node.go, MustSync)."""
        for record in records[:-1]:
            self.persist(record, sync=False)
        if records:
            self.persist(records[-1], sync=to_be_synced)
        if to_be_synced:
            self.saving = True
            self.send(self.node, PERSISTED)
        else:
            self.advance()

    def on_persisted(self, src: int, message: Persisted) -> None:
        """The Ready is on disk; the tick that has waited for it comes before the next."""
        self.saving = False
        self.advance()
        if self.tick_waits:
            self.tick_waits = False
            self.tick()

    def advance(self) -> None:
        """What waited for the writing: to be applied, sent, or (since 3.6, raft/rawnode.go, stepsOnAdvance) counted by this member itself."""
        if self.apply_after is not None:
            (snapshot, index), self.apply_after = self.apply_after, None
            if snapshot is not None:
                self.take_snapshot(snapshot)
            self.apply_to(index)
        out, self.after = self.after, []
        for peer, message in self.send_out(out):
            self.handlers[type(message)](peer, message)

    def send_out(self, out: list[tuple[int, Message]]) -> list[tuple[int, Message]]:
        """Send, but for what is to this member itself, which is returned; of a Ready's MsgAppResps only the last (processMessages).  Raft is told what was
        dropped; a snapshot goes by a request of its own."""
        others = [each for each in out if each[0] != self.node]
        answers = [number for number, each in enumerate(others) if type(each[1]) is AppendResponse]
        for number, (peer, message) in enumerate(others):
            if type(message) is InstallSnapshot:
                if self.open[peer]:
                    self.send(peer, message)
                else:
                    self.connection_lost(peer)
            elif number not in answers[:-1] and not self.post(peer, message):
                self.unreachable(peer)
        return [each for each in out if each[0] == self.node]
