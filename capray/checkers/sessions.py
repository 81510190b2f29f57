"""Session guarantees of registers with distinct values: how many reads break each, as seen from the history alone or with a store's own order.

Decides: the four counts.  May not know: nodes, replicas, faults.
Source: Terry et al., "Session guarantees for weakly consistent replicated data", PDIS 1994; METRICS.md ("with the same relation"): a write
overwrites another iff it was invoked after that one had completed or, where the store's own order is given, iff that orders it later.

A session is a process.  A read that returned w breaks a guarantee iff some write that the guarantee makes visible to it overwrites w:
  read your writes      the ok writes of its own session, before it;
  monotonic reads       the writes that its session read before;
  monotonic writes      where its session read a write v before: the ok writes of v's session before v; also, if v's session wrote w itself,
                        and v is of the same key, then v came after w;
  writes follow reads   where its session read a write v before: what v's session had read before it wrote v; also, if w itself was read there,
                        and v is of the same key, then v came after w.
The last two take the reading session to stay with one server (capray's clients do): then what the server had when it showed v it still has.
Given an order, two writes of one session (a read and a later write) on one key that it puts the other way round break the last two as well.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

from capray.checkers.precedence import NotDistinct, writers
from capray.checkers.values import canonical
from capray.checkers.verdict import Evidence, Verdict
from capray.record import Operation

GUARANTEES = ("read_your_writes", "monotonic_reads", "monotonic_writes", "writes_follow_reads")
_NEVER, _ALWAYS = -(1 << 62), 1 << 62
_Line = tuple[list[int], list[int]]  # positions in a session, and the greatest rank up to each


def session_violations(
    ops: Sequence[Operation], initial: Any = None, orders: Mapping[tuple[str | None, Any], Any] | None = None,
) -> dict[str, int] | None:
    """`{"read_your_writes_violations": n, ...}`; None where the history is not one of distinct-value registers.

    `orders` gives the store's order by (key, value); writes that it does not name neither overwrite nor are overwritten.
    """
    found = session_offences(ops, initial, orders)
    return None if found is None else {f"{name}_violations": len(found[name]) for name in GUARANTEES}


def session_offences(
    ops: Sequence[Operation], initial: Any = None, orders: Mapping[tuple[str | None, Any], Any] | None = None,
) -> dict[str, list[int]] | None:
    """For each guarantee the positions of the operations that break it, ascending."""
    try:
        sessions = _Sessions(ops, initial, orders)
    except NotDistinct:
        return None
    for positions in sessions.of.values():
        _walk(sessions, positions)
    return {name: sorted(set(sessions.broken[name])) for name in GUARANTEES}


def sessions_verdicts(ops: Sequence[Operation], initial: Any = None) -> list[Verdict]:
    """One verdict a guarantee; `unknown` where values are not distinct."""
    found = session_offences(ops, initial)
    keys = len({op.key for op in ops})
    verdicts = []
    for name in GUARANTEES:
        verdict = Verdict(status="unknown", consistency=name.replace("_", "-"), algorithm="sessions", ops=len(ops), keys=keys)
        if found is None:
            verdict.note = "needs a register with distinct values"
        else:
            verdict.status = "invalid" if found[name] else "valid"
            if found[name]:
                first = found[name][0]
                verdict.evidence = Evidence(
                    problem=f"{len(found[name])} operations break {name.replace('_', ' ')}, the first: process {ops[first].process} "
                    f"{ops[first].f} {ops[first].result if ops[first].f == 'read' else ops[first].value!r} at {ops[first].invoke}",
                    key=ops[first].key, operations=found[name][:20], offending=found[name][:20], start_us=ops[first].invoke,
                    end_us=ops[first].complete,
                )
        verdicts.append(verdict)
    return verdicts


class _Sessions:
    """The sessions' operations, and per session and key what was written and read, with running maxima of rank.

    w' overwrites w iff rank(w') > bound(w): invocation against completion, or both the store's order.
    """

    def __init__(self, ops: Sequence[Operation], initial: Any, orders: Mapping[tuple[str | None, Any], Any] | None) -> None:
        self.ops = ops
        self.writer = writers(ops, initial)
        self.start = canonical(initial)
        self.rank, self.bound = _ranks(ops, orders)
        self.ordered = orders is not None
        self.broken: dict[str, list[int]] = {name: [] for name in GUARANTEES}
        self.of: dict[int, list[int]] = {}
        self.place: dict[int, int] = {}
        self.wrote: dict[str | None, dict[int, _Line]] = {}
        self.saw: dict[str | None, dict[int, _Line]] = {}
        self.first_seen: dict[tuple[int, int], int] = {}
        for i in sorted(range(len(ops)), key=lambda i: (ops[i].invoke, ops[i].complete is None, ops[i].complete or 0)):
            op = ops[i]
            if op.type == "fail" or (op.type == "info" and op.f == "read"):
                continue
            line = self.of.setdefault(op.process, [])
            self.place[i] = len(line)
            line.append(i)
            if op.f == "write" and op.type == "ok":
                _extend(self.wrote.setdefault(op.key, {}).setdefault(op.process, ([], [])), self.place[i], self.rank[i])
            elif op.f == "read" and (source := self.source(i)) is not None and source >= 0:
                self.first_seen.setdefault((op.process, source), self.place[i])
                _extend(self.saw.setdefault(op.key, {}).setdefault(op.process, ([], [])), self.place[i], self.rank[source])

    def source(self, i: int) -> int | None:
        """The position of the write that read i returned; -1 for the initial value; None if nothing wrote it."""
        value = canonical(self.ops[i].result)
        return -1 if value == self.start else self.writer.get((self.ops[i].key, value))


def _ranks(ops: Sequence[Operation], orders: Mapping[tuple[str | None, Any], Any] | None) -> tuple[list[int], list[int]]:
    if orders is None:
        return [op.invoke for op in ops], [_ALWAYS if op.complete is None else op.complete for op in ops]
    named = sorted({orders[op.key, op.value] for op in ops if op.f == "write" and (op.key, op.value) in orders})
    number = {order: n for n, order in enumerate(named)}
    places = [number[orders[op.key, op.value]] if op.f == "write" and (op.key, op.value) in orders else None for op in ops]
    return [_NEVER if n is None else n for n in places], [_ALWAYS if n is None else n for n in places]


def _extend(line: _Line, place: int, rank: int) -> None:
    line[0].append(place)
    line[1].append(max(rank, line[1][-1]) if line[1] else rank)


def _highest(line: _Line | None, place: int) -> int:
    """The greatest rank up to and with a place."""
    if line is None:
        return _NEVER
    n = bisect_right(line[0], place)
    return line[1][n - 1] if n else _NEVER


def _walk(sessions: _Sessions, positions: list[int]) -> None:
    """One session, operation by operation."""
    ops, broken = sessions.ops, sessions.broken
    read: dict[str | None, int] = {}
    shown: dict[int, int] = {}
    for i in positions:
        op = ops[i]
        if op.f == "write":
            _writes_in_order(sessions, i)
            continue
        source = sessions.source(i)
        if source is None:
            continue
        bound = _NEVER if source < 0 else sessions.bound[source]
        if _highest(sessions.wrote.get(op.key, {}).get(op.process), sessions.place[i]) > bound:
            broken["read_your_writes"].append(i)
        if read.get(op.key, _NEVER) > bound:
            broken["monotonic_reads"].append(i)
        _others(sessions, i, source, bound, shown)
        if source >= 0:
            read[op.key] = max(read.get(op.key, _NEVER), sessions.rank[source])
            writer = ops[source].process
            if writer != op.process:
                shown[writer] = max(shown.get(writer, -1), sessions.place[source])


def _others(sessions: _Sessions, i: int, source: int, bound: int, shown: dict[int, int]) -> None:
    """Monotonic writes and writes follow reads, for each session of which a write was shown to this one."""
    key = sessions.ops[i].key
    wrote, saw = sessions.wrote.get(key, {}), sessions.saw.get(key, {})
    for other, upto in shown.items():
        line = wrote.get(other)
        back = source >= 0 and line is not None and sessions.ops[source].process == other and _wrote_within(line, sessions.place[source], upto)
        if _highest(line, upto - 1) > bound or back:
            sessions.broken["monotonic_writes"].append(i)
        seen_at = sessions.first_seen.get((other, source))
        if _highest(saw.get(other), upto - 1) > bound or (seen_at is not None and line is not None and _wrote_within(line, seen_at, upto)):
            sessions.broken["writes_follow_reads"].append(i)


def _wrote_within(line: _Line, after: int, upto: int) -> bool:
    n = bisect_right(line[0], upto)
    return n > 0 and line[0][n - 1] > after


def _writes_in_order(sessions: _Sessions, i: int) -> None:
    """With the store's own order: is this write before one of its session's earlier writes, or before what its session had read?"""
    if not sessions.ordered or sessions.bound[i] == _ALWAYS:
        return
    op, before = sessions.ops[i], sessions.place[i] - 1
    if _highest(sessions.wrote.get(op.key, {}).get(op.process), before) > sessions.bound[i]:
        sessions.broken["monotonic_writes"].append(i)
    if _highest(sessions.saw.get(op.key, {}).get(op.process), before) > sessions.bound[i]:
        sessions.broken["writes_follow_reads"].append(i)
