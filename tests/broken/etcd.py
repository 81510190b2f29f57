"""The `etcd` policy, broken on purpose: Raft (Ongaro and Ousterhout, ATC 2014; Ongaro's thesis, 2014)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from capray.policies.etcd.raft_log import Log
from capray.policies.etcd.raft_messages import NONE, Entry
from capray.policies.etcd.raft_quorum import committed
from capray.policies.etcd.replica import Etcd


class VoteForgotten(Etcd):
    """A restarted member knows its term and not whom it voted for.  Violates figure 2, "persistent state on all servers: currentTerm, votedFor": it votes
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
    """A follower keeps entries that its leader does not have.  Violates 5.3, "if an existing entry conflicts with a new one, delete the existing entry and
    all that follow it": a deposed leader's entries are applied where others have been committed."""

    def __init__(self, node: int, nodes: int, settings: Any, stream: Any) -> None:
        super().__init__(node, nodes, settings, stream)
        self.log = HoardingLog()


class UnsafeNoFsync(Etcd):
    """Nothing is synced (etcd's own flag --unsafe-no-fsync: "unsafe, will cause data loss").  Violates figure 2, "updated on stable storage before
    responding to RPCs": entries acknowledged, and committed, are gone when a majority of hosts loses power."""

    def persist(self, record: Any, sync: bool = True) -> None:
        super().persist(record, False)


class ReadsWithoutQuorum(Etcd):
    """A leader answers reads without asking whether it still is one.  Violates thesis 6.4, step 3, "the leader ... issues a new round of heartbeats and
    waits for their acknowledgments from a majority"; what Jepsen found in etcd 0.4 and Consul in 2014."""

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
    """Reads go by a lease of five election timeouts, from when the last round that a quorum confirmed was begun.  Violates thesis 6.4.1, "the leader's lease
    would be extended to start + election timeout / clock drift bound": a leader that was cut off answers from a past that others have left."""

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
