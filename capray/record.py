"""What a trial leaves: operations, versions, faults as they happened, counters; the vocabulary every later module reads.

Decides: the shape of a history and its JSON Lines form.  May not know: engines, policies, Ray.
Times are integer microseconds of virtual time (for a foreign history: since its own start).
Sources: history form after Jepsen's (invoke / ok / fail / info); versions as in METRICS.md's "V" measures.
"""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import msgspec

Outcome = Literal["ok", "fail", "info"]


class Operation(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """One client operation, from its invocation to its completion.

    `value` is what was asked (a write's value; a cas: [old, new]); `result` is what was answered (a read's value).
    `type`: `ok` happened; `fail` did not happen; `info` unknown: it may take effect at any time after `invoke`, or never.
    `complete` is null for `info`.  `intended` is when the open-loop client was due to ask; latency counts from there.
    """

    process: int
    node: int | None = None
    f: str
    key: str | None
    value: Any
    result: Any
    invoke: int
    complete: int | None
    type: Outcome
    intended: int | None = None
    deadline: int | None = None
    error: str | None = None
    final: bool = False
    session: int | None = None
    ts: int | None = None


class Version(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One write's effect on one replica.

    kind: `apply` it became (one of) the newest on that replica; `late` it was ordered before what the replica already held:
    part of the replica's order, never visible; `discard` the replica dropped it with a branch of history (full resync, truncation); `merge` it was
    included beside all that the replica holds (a counter's increment, a set's element): it replaces nothing, and nothing replaces it; with value null
    it took `superseded` away, as a client asked; `purge` a tombstone was forgotten, and with it all of the key up to its order.
    Else a null `value` is a tombstone (a delete); two of one order are one.
    Without a key it says that the replica is back from a crash and holds nothing but what it announces from then on.
    `order` is what the store itself orders by (zxid, (timestamp, value), log index): larger is newer.
    `superseded` are the values that this one replaced as newest on that replica.
    """

    at: int
    node: int
    key: str
    value: Any
    order: tuple[int, ...]
    kind: Literal["apply", "late", "discard", "merge", "purge"] = "apply"
    superseded: tuple[Any, ...] = ()


class FaultWindow(msgspec.Struct, kw_only=True):
    """One fault as it happened.  `groups` are the sides of a cut (empty where the fault is not a partition); `blocked` the directed
    links it cut.  `until` is null when it was never healed.  `touched` counts what the fault met: messages `dropped`, `delayed`, timers
    or requests `held`, unsynced journal records `unsynced`.  A fault whose counts are all 0 touched nothing."""

    kind: str
    at: int
    until: int | None
    shape: str = ""
    groups: tuple[tuple[int, ...], ...] = ()
    blocked: tuple[tuple[int, int], ...] = ()
    nodes: tuple[int, ...] = ()
    note: str = ""
    touched: dict[str, int] = {}

    @property
    def touched_nothing(self) -> bool:
        return not any(self.touched.values())


class TraceEvent(msgspec.Struct, frozen=True, array_like=True):
    """One message of a traced window: when and where it was sent, when it arrived, or why it did not (`cut`, `loss`, `crashed`, `closed`)."""

    sent: int
    src: int
    dst: int
    kind: str
    label: str
    arrived: int | None
    dropped: str | None


class Leavings(msgspec.Struct, kw_only=True):
    """What one node leaves at the end of a trial, or has left so far."""

    history: list[Operation]
    versions: list[Version]
    touched: dict[int, dict[str, int]]
    ignored: dict[str, int]
    late_answers: int


class Record(msgspec.Struct, kw_only=True):
    """All that a trial leaves.  `placement` names the replicas of each key; null `versions` means they are not known (a real store's
    history).  `end` is the last instant of the trial.  `trace` is not part of the digest: it shows, it does not decide."""

    policy: str
    nodes: int
    seed: int
    scenario: str
    history: list[Operation]
    faults: list[FaultWindow]
    versions: list[Version] | None
    placement: dict[str, tuple[int, ...]]
    counters: dict[str, int]
    end: int
    trace: list[TraceEvent] = []

    def digest(self) -> str:
        """BLAKE2b-128 of the record's canonical MessagePack bytes, in hex; the same on every engine and machine."""
        body = (self.policy, self.nodes, self.seed, self.scenario, self.history, self.faults, self.versions, self.placement, self.counters, self.end)
        return hashlib.blake2b(msgspec.msgpack.encode(body, order="deterministic"), digest_size=16).hexdigest()
