"""etcd's settings: command-line flags, and constants of its source code that a partition shows.

Decides: defaults and what is refused.  Sources: etcd 3.4 and 3.5, server/embed/config.go, server/etcdserver/{server,raft,v3_server}.go,
server/etcdserver/api/rafthttp/peer.go; etcd-io/raft's Config.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from capray.errors import wrong
from capray.replica import Settings


class EtcdSettings(Settings, frozen=True, kw_only=True):
    """What an etcd member is started with."""

    version: Annotated[Literal["3.4", "3.5", "3.6"], Meta(description=
        "release whose defaults hold where they differ: pre_vote (off in 3.4, on since 3.5), snapshot_count (100000; 10000 since 3.6), and "
        "hints of refused appends (by term since 3.5), and when a member counts itself (when it has saved since 3.6); "
        "the measured runs are of 3.4.23")] = "3.4"
    read_consistency: Annotated[Literal["linearizable", "serializable"], Meta(description=
        "linearizable: by ReadIndex; serializable: from the local store, may be stale; etcd API, RangeRequest.serializable, off")] = "linearizable"
    pre_vote: Annotated[bool | None, Meta(description=
        "ask before raising the term (thesis 9.6); flag --pre-vote; default by version: false in 3.4, true since 3.5")] = None
    check_quorum: Annotated[bool, Meta(description=
        "a leader that has not heard a quorum for an election timeout steps down, and who heard a leader within one ignores candidates; "
        "always on in etcd (etcdserver/raft.go, CheckQuorum: true)")] = True
    heartbeat_interval_us: Annotated[int, Meta(description=
        "a tick, and the leader's heartbeat; microseconds; flag --heartbeat-interval, 100 ms")] = 100_000
    election_timeout_us: Annotated[int, Meta(description="the least election timeout; microseconds; flag --election-timeout, 1000 ms")] = 1_000_000
    election_timeout_max_us: Annotated[int, Meta(description=
        "0: as etcd, a whole number of ticks drawn from [election_timeout, 2 x election_timeout) at each change of term or role; else, as "
        "in the Raft paper, 9.3, uniform on [election_timeout, this] and drawn anew at each restart of the timer; microseconds; 0")] = 0
    reset_timer_on_new_term: Annotated[bool, Meta(description=
        "a higher term restarts the election timer whoever brings it (etcd-io/raft, reset()); false: only a leader's message or a vote "
        "granted does (Raft paper, figure 2)")] = True
    initial_election_tick_advance: Annotated[bool, Meta(description=
        "a booting member fast-forwards its election timer to 2 ticks before election_timeout (1 tick where it is alone); flag "
        "--initial-election-tick-advance, true")] = True
    read_only_option: Annotated[Literal["safe", "lease"], Meta(description=
        "safe: the leader confirms each read by a round of heartbeats; lease: it trusts its clock for an election timeout (etcd-io/raft, "
        "ReadOnlyOption; etcd always takes safe)")] = "safe"
    snapshot_count: Annotated[int, Meta(description=
        "entries applied between snapshots, after which the log is compacted; flag --snapshot-count; 0: by version, 100000, and 10000 "
        "since 3.6")] = 0
    snapshot_catchup_entries: Annotated[int, Meta(description=
        "entries kept behind a snapshot for slow followers; server.go, DefaultSnapshotCatchUpEntries, 5000")] = 5000
    max_inflight: Annotated[int, Meta(description="appends in flight to one follower; etcdserver/raft.go, maxInflightMsgs, 512")] = 512
    max_entries: Annotated[int, Meta(description=
        "entries in one append; etcdserver/raft.go, maxSizePerMsg, 1 MiB of entries of 64 bytes: 16384")] = 16_384
    request_timeout_us: Annotated[int, Meta(description=
        "how long a member waits for a proposal or for one round of ReadIndex; microseconds; 0: 5 s + 2 x election_timeout (config.go, "
        "ReqTimeout)")] = 0
    read_index_retry_us: Annotated[int, Meta(description=
        "a round of ReadIndex without an answer is asked again; microseconds; v3_server.go, readIndexRetryTime, 500 ms")] = 500_000
    stream_timeout_us: Annotated[int, Meta(description=
        "a peer silent on its stream for so long is hung up on; signs of life are sent thrice as often; microseconds; rafthttp/peer.go, "
        "ConnReadTimeout, 5 s")] = 5_000_000
    dial_timeout_us: Annotated[int, Meta(description=
        "a dial without an answer is begun anew; microseconds; 0: 1 s + election_timeout (config.go, peerDialTimeout)")] = 0
    dial_retry_us: Annotated[int, Meta(description=
        "pause before a peer that hung up or refused is dialled again; microseconds; rafthttp, DialRetryFrequency, 10 a second")] = 100_000

    @property
    def asks_first(self) -> bool:
        """Whether pre-vote is on."""
        return self.version != "3.4" if self.pre_vote is None else self.pre_vote

    @property
    def hints_by_term(self) -> bool:
        """Whether a refused append is answered with where the terms may agree (etcd-io/raft's findConflictByTerm, since 3.5), not with the last index."""
        return self.version != "3.4"

    @property
    def hears_itself(self) -> bool:
        """Whether a member's own vote and entries count once they are saved, by a message to itself (etcd-io/raft since 3.6, msgsAfterAppend), not at once."""
        return self.version == "3.6"

    @property
    def entries_between_snapshots(self) -> int:
        """snapshot_count, the version's where it is 0."""
        return self.snapshot_count or (10_000 if self.version == "3.6" else 100_000)

    @property
    def patience_us(self) -> int:
        """How long a member waits for a proposal or a round of ReadIndex."""
        return self.request_timeout_us or 5_000_000 + 2 * self.election_timeout_us

    @property
    def dial_patience_us(self) -> int:
        """How long one dial may take."""
        return self.dial_timeout_us or 1_000_000 + self.election_timeout_us

    @property
    def election_ticks(self) -> int:
        """election_timeout in whole ticks."""
        return self.election_timeout_us // self.heartbeat_interval_us

    def problems(self, nodes: int) -> list[str]:
        """Complaints; that the election timeout be five heartbeats is etcd's own rule (embed/config.go, Validate)."""
        positive = ("heartbeat_interval_us", "read_index_retry_us", "stream_timeout_us", "dial_retry_us", "max_inflight", "max_entries")
        found = [str(wrong(f"setting {name}", getattr(self, name), "more than 0")) for name in positive if getattr(self, name) <= 0]
        others = ("snapshot_count", "snapshot_catchup_entries", "request_timeout_us", "dial_timeout_us", "election_timeout_max_us")
        found += [str(wrong(f"setting {name}", getattr(self, name), "0 or more")) for name in others if getattr(self, name) < 0]
        if found:
            return found
        if self.election_timeout_max_us:
            if not 0 < self.election_timeout_us <= self.election_timeout_max_us:
                found.append(str(wrong("setting election_timeout_max", self.election_timeout_max_us, "election_timeout or more")))
        elif self.election_timeout_us < 5 * self.heartbeat_interval_us:
            found.append(str(wrong("setting election_timeout", self.election_timeout_us, "at least five times heartbeat_interval")))
        elif self.election_timeout_us > 50_000_000:
            found.append(str(wrong("setting election_timeout", self.election_timeout_us, "at most 50s")))
        return found
