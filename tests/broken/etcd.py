"""The `etcd` policy, broken on purpose: Raft (Ongaro and Ousterhout, ATC 2014; Ongaro's thesis, 2014)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from capray.policies.etcd.raft_election import FOLLOWER, LEADER
from capray.policies.etcd.raft_log import Log
from capray.policies.etcd.raft_messages import NONE, Append, Entry, Heartbeat, HeartbeatResponse, InstallSnapshot, Row
from capray.policies.etcd.raft_progress import Progress
from capray.policies.etcd.raft_quorum import committed
from capray.policies.etcd.replica import Etcd


class VoteForgotten(Etcd):
    """A restarted member knows its term and not whom it voted for.  Violates figure 2, "Persistent state on all servers", votedFor: it votes
    twice in one term, and two members lead it."""

    def replay(self, journal: list[Any]) -> None:
        super().replay(journal)
        self.vote = self.saved_vote = NONE


class TrustingLog(Log):
    """Takes every candidate's log for newer."""

    __slots__ = ()

    def up_to_date(self, index: int, term: int) -> bool:
        return True


class LogNotCompared(Etcd):
    """A vote goes to whoever asks first.  Violates 5.4.1, "the voter denies its vote if its own log is more up-to-date than that of the candidate": a
    member that was cut off is elected, and its log replaces what was committed without it."""

    def __init__(self, node: int, nodes: int, settings: Any, stream: Any) -> None:
        super().__init__(node, nodes, settings, stream)
        self.log = TrustingLog()


class HoardingLog(Log):
    """Keeps what conflicts."""

    __slots__ = ()

    def merge(self, index: int, entries: Sequence[Entry]) -> int:
        fresh = entries[max(0, self.last - index) :]
        if fresh:
            self.append(fresh)
        return len(fresh)


class TruncationForgotten(Etcd):
    """A follower keeps entries that its leader does not have.  Violates figure 2, "If an existing entry conflicts with a new one (same index but
    different terms), delete the existing entry and all that follow it": a deposed leader's entries are applied where others have been committed."""

    def __init__(self, node: int, nodes: int, settings: Any, stream: Any) -> None:
        super().__init__(node, nodes, settings, stream)
        self.log = HoardingLog()


class UnsafeNoFsync(Etcd):
    """Nothing is synced (etcd's own flag --unsafe-no-fsync: "unsafe, will cause data loss").  Violates figure 2, "updated on stable storage before
    responding to RPCs": entries acknowledged, and committed, are gone when a majority of hosts loses power."""

    def persist(self, record: Any, sync: bool = True) -> None:
        super().persist(record, False)


class ReadsWithoutQuorum(Etcd):
    """A leader answers reads without asking whether it still is one.  Violates thesis 6.4, step 3, "It issues a new round of heartbeats and waits
    for their acknowledgments from a majority of the cluster"; what Jepsen found in etcd 0.4 and Consul in 2014."""

    def confirm(self, reader: int, round: int) -> None:
        self.hand_back(reader, round, self.commit)


class CommitsOldTerms(Etcd):
    """A leader counts replicas of an entry of an earlier term.  Violates 5.4.2, "Raft never commits log entries from previous terms by counting replicas"
    (figure 8): such an entry can still be overwritten."""

    def maybe_commit(self, index: int) -> bool:
        agreed = committed(self.matches)
        if index <= self.commit or agreed <= self.commit:
            return False
        first = self.log.term(self.commit) != self.term
        self.commit_to(agreed)
        if first and self.log.term(self.commit) == self.term:
            self.leads_for_reads()
        return True


class LeaseTooLong(Etcd):
    """Reads go by a lease of five election timeouts, from when the last round that a quorum confirmed was begun.  Violates thesis 6.4.1, by whose
    figure a leader "would extend its lease to start + election timeout / clock drift bound": a leader that was cut off answers from a past that
    others have left."""

    LEASE = 5  # election timeouts; with 1 it is sound wherever clocks run alike

    def __init__(self, node: int, nodes: int, settings: Any, stream: Any) -> None:
        super().__init__(node, nodes, settings, stream)
        self.begun: dict[tuple[int, int], int] = {}
        self.leased_until = 0

    def confirm(self, reader: int, round: int) -> None:
        if self.now < self.leased_until:
            self.hand_back(reader, round, self.commit)
        else:
            self.begun[reader, round] = self.now
            super().confirm(reader, round)

    def hand_back(self, reader: int, round: int, index: int) -> None:
        begun = self.begun.pop((reader, round), None)
        if begun is not None:
            self.leased_until = begun + self.LEASE * self.settings.election_timeout_us
        super().hand_back(reader, round, index)

    def lead_ends(self) -> None:
        super().lead_ends()
        self.begun, self.leased_until = {}, 0


class ReadsBeforeOwnEntry(Etcd):
    """A new leader confirms reads before it has committed an entry of its term.  Violates thesis 6.4, step 1, "if the leader has not yet marked an entry from
    its current term committed, it waits until it has done so": its commit index may be behind what was committed before it."""

    def confirm(self, reader: int, round: int) -> None:
        if (reader, round) not in self.unconfirmed:
            self.unconfirmed[reader, round] = [self.commit, 1 << self.node]
            self.beat_with(reader, round)


class ReadsBeforeApplied(Etcd):
    """A member answers when it has the read index, whether it has applied so far or not.  Violates thesis 6.4, step 4, "the leader waits for its state machine
    to advance at least as far as the readIndex": a member that is catching up answers from the past."""

    def applied_on(self) -> None:
        if self.read_index:
            for request, key in self.end_round():
                self.answer_read(request, key)
            self.begin_waiting()


class CommitsWhatItHas(Etcd):
    """A heartbeat's commit index counts for whatever the follower's log holds there.  Violates figure 2 (matchIndex, "index of highest log entry known to be
    replicated on server": etcd sends min(commit, match)): a follower applies entries of a deposed leader."""

    def beat_with(self, reader: int, round: int) -> None:
        for peer in self.peers:
            self.say(peer, Heartbeat(self.term, self.commit, reader, round))

    def commit_to(self, index: int) -> None:
        super().commit_to(min(index, self.log.last))


class AnswersWhenAppended(Etcd):
    """The leader answers a write when it has appended it.  Violates 5.3, "When the entry has been safely replicated ..., the leader applies the entry to
    its state machine and returns the result of that execution to the client": a leader that is cut off acknowledges what nobody will commit."""

    def lead_append(self, entry: Entry) -> None:
        super().lead_append(entry)
        if entry.node == self.node and self.own.pop(entry.request, None) is not None:
            self.reply(entry.request, "ok")


class LeadsAheadOfItsDisk(Etcd):
    """A leader takes the next Ready while the last one is being saved, and has counted itself when it appended (raft.go, appendEntry).  Violates
    etcdserver/raft.go, raftNode.start, r.storage.Save before r.Advance; thesis 10.2.1 ("the leader may even commit an entry before it has been written to its
    own disk, if a majority of followers have written it to their disks"; otherwise its own disk counts): a committed entry is on one disk alone."""

    def finish(self) -> None:
        self.saving = self.saving and self.state != LEADER
        super().finish()


class SendsBeforeSaving(Etcd):
    """Whoever does not lead sends before it saves too.  Violates etcdserver/raft.go, raftNode.start, where only `if islead` comes before r.storage.Save; figure
    2, "updated on stable storage before responding to RPCs": entries that a majority has acknowledged are on no disk."""

    def write(self, records: list[Any], to_be_synced: bool) -> None:
        out, self.after = self.after, []
        self.send_out(out)
        super().write(records, to_be_synced)


class ProposesAgain(Etcd):
    """Writes under way are proposed anew when another leader is elected.  Violates section 8 ("if the leader crashes after committing the log entry but before
    responding to the client, the client will retry the command with a new leader, causing it to be executed a second time": serial numbers, or no retry)."""

    def __init__(self, node: int, nodes: int, settings: Any, stream: Any) -> None:
        super().__init__(node, nodes, settings, stream)
        self.proposed: dict[int, Entry] = {}

    def propose(self, until: int, entry: Entry) -> None:
        self.proposed[entry.request] = entry
        super().propose(until, entry)

    def lead_told(self) -> None:
        super().lead_told()
        for request in list(self.own):
            self.propose(1 << 62, self.proposed[request])


class SnapshotWithoutStore(Etcd):
    """A follower takes a snapshot's index and not its data.  Violates section 7, "reset state machine using snapshot contents" (figure 13)."""

    def restore(self, rows: tuple[Row, ...]) -> None:
        """The store stays as it was."""


class SnapshotUnsaved(Etcd):
    """A snapshot is not written down.  Violates section 7, figure 13 ("save snapshot file"): after a restart the log goes on where nothing stands before it.
    (A real member would panic then: "tocommit is out of range ... Was the raft log corrupted, truncated, or lost?"; this one commits what it has.)"""

    def commit_to(self, index: int) -> None:
        super().commit_to(min(index, self.log.last))

    def on_snapshot(self, src: int, message: InstallSnapshot) -> None:
        super().on_snapshot(src, message)
        self.unsaved = [record for record in self.unsaved if not isinstance(record, InstallSnapshot)]


class SnapshotAhead(Etcd):
    """A snapshot says that it goes up to the end of the log, and has what was applied.  Violates section 7 ("the last included index ... is the index of the
    last entry in the log that the snapshot replaces (the last entry the state machine had applied)"): what lies between is never applied."""

    def send_snapshot(self, peer: int, progress: Progress) -> bool:
        if self.state != LEADER or not progress.active or not self.open[peer]:
            return super().send_snapshot(peer, progress)
        progress.become_snapshot(self.log.last)
        self.say(peer, InstallSnapshot(self.term, self.log.last, self.log.last_term, self.rows()))
        return True


class HearsOldTerms(Etcd):
    """A follower takes over what a leader of an earlier term sends.  Violates figure 2, AppendEntries, "reply false if term < currentTerm": what that leader had
    under way when it was cut off replaces the new leader's entries."""

    def admit(self, src: int, message: Any) -> bool:
        stale = message.term < self.term and type(message) in (Append, Heartbeat)
        return (stale and self.state == FOLLOWER) or super().admit(src, message)


class CountsOldAnswers(Etcd):
    """Any heartbeat's answer confirms the newest read, also one given before the read came.  Violates thesis 6.4, step 3, "issues a new round of heartbeats and
    waits for their acknowledgments": answers that a cut held back confirm a leader that others have replaced."""

    def on_heartbeat_response(self, src: int, message: HeartbeatResponse) -> None:
        super().on_heartbeat_response(src, message)
        if self.state == LEADER and message.term == self.term:
            self.confirmed(src, *self.newest_read())
