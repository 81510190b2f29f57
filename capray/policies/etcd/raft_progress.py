"""What a Raft leader knows of one follower: etcd-io/raft, package `tracker` (progress.go, inflights.go) and design.md.

Decides: which entries go next, and whether they may go now.  May not know: logs, quorums, messages.
Probe: one append a heartbeat interval, until one is answered.  Replicate: optimistic, `next` runs ahead, up to so many appends in flight.
Snapshot: nothing until the snapshot has been taken.
"""

from __future__ import annotations

from collections import deque

PROBE, REPLICATE, SNAPSHOT = "probe", "replicate", "snapshot"


class Progress:
    """One follower as its leader sees it.  `match`: its log agrees up to there; `next`: the first entry to send; `active`: it has been heard
    since the last quorum check."""

    __slots__ = ("active", "inflight", "limit", "match", "next", "pending_snapshot", "probed", "state")

    def __init__(self, following: int, limit: int) -> None:
        self.match = 0
        self.next = following
        self.state = PROBE
        self.active = False
        self.probed = False
        self.pending_snapshot = 0
        self.inflight: deque[int] = deque()
        self.limit = limit

    def paused(self) -> bool:
        """Whether nothing more may be sent for now."""
        if self.state == REPLICATE:
            return len(self.inflight) >= self.limit
        return self.probed if self.state == PROBE else True

    def become_probe(self) -> None:
        self.next = max(self.match, self.pending_snapshot) + 1 if self.state == SNAPSHOT else self.match + 1
        self._become(PROBE)

    def become_replicate(self) -> None:
        self._become(REPLICATE)
        self.next = self.match + 1

    def become_snapshot(self, index: int) -> None:
        self._become(SNAPSHOT)
        self.pending_snapshot = index

    def _become(self, state: str) -> None:
        self.state = state
        self.probed = False
        self.pending_snapshot = 0
        self.inflight.clear()

    def sent(self, entries: int) -> None:
        """An append with so many entries has gone out; one that tells of the commit index alone is no probe."""
        if not entries:
            return
        if self.state == REPLICATE:
            self.next += entries
            self.inflight.append(self.next - 1)
        else:
            self.probed = True

    def update(self, index: int) -> bool:
        """The follower's log agrees up to `index`; False where that is old news."""
        self.next = max(self.next, index + 1)
        if index <= self.match:
            return False
        self.match = index
        self.probed = False
        return True

    def arrived(self, index: int) -> None:
        """Appends up to `index` are no longer in flight."""
        inflight = self.inflight
        while inflight and inflight[0] <= index:
            inflight.popleft()

    def refused(self, rejected: int, hint: int) -> bool:
        """The follower's log does not agree at `rejected`; it may at `hint`.  False where the refusal is stale."""
        if rejected <= self.match:
            return False
        if self.state == REPLICATE:
            self.next = self.match + 1
            return True
        if self.next - 1 != rejected:
            return False
        self.next = max(min(rejected, hint + 1), self.match + 1)
        self.probed = False
        return True

    def snapshot_failed(self) -> None:
        """The snapshot did not arrive; try again at the next heartbeat."""
        self.pending_snapshot = 0
        self.become_probe()
        self.probed = True
