"""Raft in mid-life, for measuring elections: Ongaro and Ousterhout, ATC 2014, extended version, 9.3 and figure 16; Ongaro's thesis, 9.2 to 9.4.

Decides: what five servers hold when a trial begins; from then on they are capray.policies.etcd.replica's members and nothing else.
Node 0 leads term 1.  It has appended a second entry that some of its followers lack, so that they cannot win ("servers in each trial had
different log lengths"), sends all of them a heartbeat at once ("a synchronized broadcast of heartbeat RPCs from the leader before terminating its
process"), does nothing more, and at a random time within the heartbeat interval announces the role `doomed`, upon which a scenario's fault
(`kind = crash-host`, `on_role = doomed`) kills it one lookahead later.  So the interval counts from about when the heartbeat is heard:
the heartbeats come `heard_after` after the lookahead in the mean, and so much later the interval begins.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from msgspec import Meta

from capray.errors import wrong
from capray.policies.etcd.raft_messages import NONE, Entry, HardState, Heartbeat
from capray.policies.etcd.replica import Etcd
from capray.policies.etcd.settings import EtcdSettings
from capray.replica import Request

OLD_LEADER = 0


class StagedSettings(EtcdSettings, frozen=True, kw_only=True):
    """What the scene needs beside."""

    heard_after_us: Annotated[int, Meta(description=
        "what the last heartbeats take over the least latency, in the mean: when the heartbeat interval in which the leader dies begins; microseconds; "
        "half the width of figure 16's one-way latency, U(2, 3) ms")] = 500

    def problems(self, nodes: int) -> list[str]:
        """Complaints: etcd's, and its own."""
        own = [] if self.heard_after_us >= 0 else [str(wrong("setting heard_after_us", self.heard_after_us, "0 or more"))]
        return super().problems(nodes) + own


class Staged(Etcd):
    """Half of the leader's followers, the last, have shorter logs."""

    claims = "etcd's members at the moment before their leader dies (Raft, ATC 2014, figure 16)"
    Settings = StagedSettings
    settings: StagedSettings
    uneven: ClassVar[bool] = True

    def on_start(self) -> None:
        entries = 1 if self.uneven and self.node >= self.nodes - (self.nodes - 1) // 2 else 2
        self.log.append([Entry(1, NONE, 0, "", None)] * entries)
        self.stable = entries
        self.term, self.vote = self.saved_term, self.saved_vote = 1, OLD_LEADER
        self.persist(HardState(1, OLD_LEADER), sync=False)
        self.start_streams(connected=True)
        self.lead = self.known_lead = OLD_LEADER
        self.start_clock()
        if self.node == OLD_LEADER:
            self.cancel_timer("election")
            for peer in self.peers:
                self.post(peer, Heartbeat(1, 0, NONE, 0))
            self.set_timer("doom", self.settings.heard_after_us + self.stream.below(self.settings.heartbeat_interval_us))

    def on_message(self, src: int, message: Any) -> None:
        if self.node != OLD_LEADER:
            super().on_message(src, message)

    def on_request(self, request: Request) -> None:
        """Nobody asks: what is measured is who leads."""

    def on_timer(self, name: Any) -> None:
        if self.node != OLD_LEADER:
            super().on_timer(name)
        elif name == "doom":
            self.role("doomed")


class StagedAlike(Staged):
    """All logs are alike: every survivor can win (thesis, 9.2's model of split votes)."""

    uneven = False
