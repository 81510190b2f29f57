"""Raft's log replication, commitment and snapshots (Ongaro and Ousterhout, ATC 2014, extended version, 5.3, 5.4.2, 7), as etcd-io/raft
has them (raft.go, tracker).

Decides: what a leader sends to whom, what a follower takes over, when an entry is committed, when the log is compacted.
May not know: what an entry means to the store, clients.
A leader counts itself as soon as it has appended an entry (raft.go, appendEntry: MaybeUpdate), since 3.6 when it is saved (a MsgAppResp to itself).
Either way nothing shows before the entry is on its disk: what comes of it is for the Ready after the one that holds it (ready.py).
Refusals carry a hint: by term since etcd 3.5, before it the last index, so that a log which ends in entries of an old term is probed back
one by one.
"""

from __future__ import annotations

from typing import Any

from capray.policies.etcd.raft_election import LEADER, Elections
from capray.policies.etcd.raft_log import COMPACTED
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
    Row,
)
from capray.policies.etcd.raft_progress import PROBE, REPLICATE, SNAPSHOT, Progress
from capray.policies.etcd.raft_quorum import committed


class Replication(Elections):
    """The part of a member that keeps the log and commits it."""

    def __init__(self, node: int, nodes: int, settings: Any, stream: Any) -> None:
        super().__init__(node, nodes, settings, stream)
        self.commit = 0
        self.applied_to = 0
        self.stable = 0  # up to where the log has been given to the disk
        self.snapshot: InstallSnapshot | None = None  # a leader's, that the next Ready is to save and restore
        self.progress: dict[int, Progress] = {}
        self.matches: list[int] = [0] * nodes  # a leader's: up to where each member's log agrees, on disk; its own: in memory (since 3.6 on disk too)
        self.snapshot_at = 0  # applied_to at the newest snapshot
        self.handlers.update({Append: self.on_append, AppendResponse: self.on_append_response, Heartbeat: self.on_heartbeat,
                              HeartbeatResponse: self.on_heartbeat_response, InstallSnapshot: self.on_snapshot})

    # ---- what later parts of the member add ----------------------------------------------------------------------------------------------
    def apply(self, index: int, entry: Entry) -> None:
        """The store takes a committed entry."""

    def rows(self) -> tuple[Row, ...]:
        """The store, for a snapshot."""
        return ()

    def restore(self, rows: tuple[Row, ...]) -> None:
        """The store becomes the snapshot's."""

    def newest_read(self) -> tuple[int, int]:
        """The newest read that waits for a quorum's heartbeats, as (reader, round)."""
        return NONE, 0

    def confirmed(self, peer: int, reader: int, round: int) -> None:
        """A follower has handed a read back with its heartbeat's answer."""

    def applied_on(self) -> None:
        """The store has moved on."""

    def leads_for_reads(self) -> None:
        """A leader has committed its first entry: it knows the commit index."""

    # ---- leading ---------------------------------------------------------------------------------------------------------------------
    def lead_begins(self) -> None:
        """Everyone is probed, and an empty entry of the new term is appended (5.4.2 and thesis, 6.4)."""
        limit = self.settings.max_inflight
        self.progress = {peer: Progress(self.log.last + 1, limit) for peer in self.peers}
        self.matches = [0] * self.nodes
        self.matches[self.node] = self.log.last
        self.lead_append(Entry(self.term, NONE, 0, "", None))

    def lead_ends(self) -> None:
        self.progress = {}

    def lead_append(self, entry: Entry) -> None:
        """Append one's own entry, and count oneself."""
        before = Append(self.term, self.log.last, self.log.last_term, (entry,), self.commit)
        self.log.append(before.entries)
        self.unsaved.append(before)
        if self.settings.hears_itself:
            self.say(self.node, AppendResponse(self.term, self.log.last))
        else:
            self.matches[self.node] = self.log.last
            self.maybe_commit(self.log.last)
        self.append_to_all()

    def append_to_all(self) -> None:
        for peer in self.peers:
            self.send_append(peer, True)

    def send_append(self, peer: int, even_if_empty: bool) -> bool:
        """Send what `peer` lacks, or a snapshot where the log no longer has it.  Returns whether anything was sent."""
        progress = self.progress[peer]
        if progress.paused():
            return False
        before = progress.next - 1
        log_term = self.log.term(before)
        if log_term == COMPACTED:
            return self.send_snapshot(peer, progress)
        entries = self.log.after(before, self.settings.max_entries)
        if not entries and not even_if_empty:
            return False
        progress.sent(len(entries))
        self.say(peer, Append(self.term, before, log_term, entries, self.commit))
        return True

    def send_snapshot(self, peer: int, progress: Progress) -> bool:
        """The follower lags behind compaction: the store itself is sent (section 7)."""
        if not progress.active:
            return False
        progress.become_snapshot(self.applied_to)
        self.say(peer, InstallSnapshot(self.term, self.applied_to, self.log.term(self.applied_to), self.rows()))
        return True

    def beat(self) -> None:
        reader, round = self.newest_read()
        self.beat_with(reader, round)

    def beat_with(self, reader: int, round: int) -> None:
        """A heartbeat to all.  A follower is told no more of the commit index than its log is known to hold."""
        commit = self.commit
        for peer in self.peers:
            match = self.progress[peer].match
            self.say(peer, Heartbeat(self.term, min(commit, match), reader, round))

    def quorum_active(self) -> bool:
        active = 1
        for progress in self.progress.values():
            active += progress.active
            progress.active = False
        return active >= self.quorum

    def unreachable(self, peer: int) -> None:
        """What was sent to `peer` may be lost: back to probing."""
        progress = self.progress.get(peer)
        if progress is None:
            return
        if progress.state == REPLICATE:
            progress.become_probe()
        self.connection_lost(peer)

    def connection_lost(self, peer: int) -> None:
        """A snapshot, which travels by a request of its own, is not taken: ReportSnapshot."""
        progress = self.progress.get(peer)
        if progress is not None and progress.state == SNAPSHOT:
            progress.snapshot_failed()

    # ---- commitment ------------------------------------------------------------------------------------------------------------------
    def maybe_commit(self, index: int) -> bool:
        """A member's log has come to agree up to `index`.  Only entries of the leader's own term are committed by counting (5.4.2)."""
        if index <= self.commit:
            return False
        agreed = committed(self.matches)
        if agreed <= self.commit or self.log.term(agreed) != self.term:
            return False
        first = self.log.term(self.commit) != self.term
        self.commit_to(agreed)
        if first:
            self.leads_for_reads()
        return True

    def commit_to(self, index: int) -> None:
        """Entries up to `index` are committed: the next Ready has the store take them."""
        self.commit = max(self.commit, index)

    def apply_to(self, index: int) -> None:
        """The store takes what is committed up to `index`, in order."""
        log = self.log
        while self.applied_to < index:
            self.applied_to += 1
            self.apply(self.applied_to, log.entry(self.applied_to))
        if index - self.snapshot_at > self.settings.entries_between_snapshots:
            self.snapshot_at = index
            log.compact(index - self.settings.snapshot_catchup_entries)
        self.applied_on()

    def on_append_response(self, src: int, message: AppendResponse) -> None:
        if (message.term != self.term and not self.admit(src, message)) or self.state != LEADER:
            return
        if src == self.node:
            self.on_own_response(message)
            return
        progress = self.progress[src]
        progress.active = True
        if message.reject:
            hint = self.log.find_by_term(message.hint, message.log_term) if self.settings.hints_by_term else message.hint
            if progress.refused(message.index, hint):
                if progress.state == REPLICATE:
                    progress.become_probe()
                self.send_append(src, True)
            return
        paused = progress.paused()
        if not progress.update(message.index):
            return
        if progress.state == PROBE or (progress.state == SNAPSHOT and progress.match >= progress.pending_snapshot):
            progress.become_replicate()
        elif progress.state == REPLICATE:
            progress.arrived(message.index)
        self.matches[src] = progress.match
        if self.maybe_commit(message.index):
            self.append_to_all()
        elif paused:
            self.send_append(src, True)
        while self.send_append(src, False):
            pass

    def on_own_response(self, message: AppendResponse) -> None:
        """Since 3.6: this leader's own disk has what it appended."""
        self.matches[self.node] = message.index
        if self.maybe_commit(message.index):
            self.append_to_all()

    def on_heartbeat_response(self, src: int, message: HeartbeatResponse) -> None:
        if (message.term != self.term and not self.admit(src, message)) or self.state != LEADER:
            return
        progress = self.progress[src]
        progress.active = True
        progress.probed = False
        if progress.state == REPLICATE and progress.paused():
            progress.inflight.popleft()
        if progress.match < self.log.last:
            self.send_append(src, True)
        if message.reader != NONE:
            self.confirmed(src, message.reader, message.round)

    # ---- following -------------------------------------------------------------------------------------------------------------------
    def hear_leader(self, src: int, message: Any) -> bool:
        """A leader's message; whether it is of this term.  A candidate gives way to it (5.2)."""
        if message.term != self.term and not self.admit(src, message):
            return False
        if self.state != "follower":
            self.become_follower(message.term, src)
        else:
            self.lead = src
            self.restart_timer()
        self.led_at = self.now
        return True

    def on_heartbeat(self, src: int, message: Heartbeat) -> None:
        if self.hear_leader(src, message):
            self.commit_to(message.commit)
            self.say(src, HeartbeatResponse(self.term, message.reader, message.round))

    def on_append(self, src: int, message: Append) -> None:
        if not self.hear_leader(src, message):
            return
        if message.index < self.commit:
            self.say(src, AppendResponse(self.term, self.commit))
            return
        if not self.log.matches(message.index, message.log_term):
            hint = self.log.find_by_term(message.index, message.log_term) if self.settings.hints_by_term else self.log.last
            self.say(src, AppendResponse(self.term, message.index, True, hint, max(0, self.log.term(hint))))
            return
        end = message.index + len(message.entries)
        taken = self.log.merge(message.index, message.entries)
        if taken:
            self.stable = min(self.stable, end - taken)
            self.unsaved.append(message)
        self.commit_to(min(message.commit, end))
        self.say(src, AppendResponse(self.term, end))

    def on_snapshot(self, src: int, message: InstallSnapshot) -> None:
        if not self.hear_leader(src, message):
            return
        if message.index > self.commit:
            if self.log.matches(message.index, message.log_term):
                self.commit_to(message.index)
            else:
                self.log.restore(message.index, message.log_term)
                self.commit, self.snapshot = message.index, message
                self.unsaved.append(message)
        self.say(src, AppendResponse(self.term, self.commit))

    def take_snapshot(self, message: InstallSnapshot) -> None:
        """The store becomes what the snapshot says."""
        self.applied_to = self.snapshot_at = message.index
        self.restore(message.rows)

    # ---- restart ---------------------------------------------------------------------------------------------------------------------
    def replay(self, journal: list[Any]) -> None:
        """Read the write-ahead log.  What it says was committed is applied."""
        commit = 0
        for record in journal:
            if isinstance(record, Append):
                self.log.merge(record.index, record.entries)
            elif isinstance(record, Committed):
                commit = record.index
            elif isinstance(record, HardState):
                self.term, self.vote = record.term, record.vote
            else:
                self.log.restore(record.index, record.log_term)
                self.take_snapshot(record)
                commit = max(commit, record.index)
        self.saved_term, self.saved_vote = self.term, self.vote
        self.stable = self.log.last
        while self.applied_to < min(commit, self.log.last):
            self.applied_to += 1
            self.apply(self.applied_to, self.log.entry(self.applied_to))
        self.commit = self.applied_to
