"""What must come before what in a history of distinct-value registers: program order, who read from whom, and what follows from them.

Decides: the relation and its cycles.  May not know: which consistency is asked about.
Sources: Ahamad et al. 1995 (causal order); Bouajjani, Enea, Guerraoui and Hamza, "On verifying causal consistency", POPL 2017;
vector clocks after Fidge and Mattern 1988: every process is a chain, so an event's past is one count for each chain.

An `info` write that somebody read is a chain of its own behind what its process had done before (it may take effect late, so what its
process does next need not follow it); one that nobody read may never have happened and is left out.  A key's initial value comes first.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Hashable, Sequence
from heapq import heappop, heappush
from typing import Any

import numpy as np
import numpy.typing as npt

from capray.checkers.values import canonical
from capray.record import Operation

INITIAL = -1  # reads_from: the key's initial value
MOST_CLOCK_BYTES = 400 << 20
Clock = npt.NDArray[np.int32]
Writers = dict[tuple[str | None, Hashable], int]


class NotDistinct(ValueError):
    """The history is not one of registers whose written values are distinct; the message says why."""


def writers(history: Sequence[Operation], initial: Any) -> Writers:
    """The position of the write of each (key, value)."""
    start = canonical(initial)
    writer: Writers = {}
    for i, op in enumerate(history):
        if op.f not in ("read", "write"):
            raise NotDistinct(f"it has {op.f!r} operations")
        if op.f == "write" and op.type != "fail":
            value = canonical(op.value)
            if value == start or (op.key, value) in writer:
                raise NotDistinct(f"{op.value!r} is written twice" if value != start else f"the initial value {op.value!r} is written again")
            writer[op.key, value] = i
    return writer


class Precedence:
    """The events of a history and the order between them.

    `ops` are the positions, in the history, of the events; everything else is by event number.  `chain` and `place` (from 1) say where an event
    stands in its process; `preds` are edges into it beside its chain's; `reads_from` is the write event of a read, or INITIAL.
    `past[e]` counts, for each chain, the events that come before e; it is valid after `close()`.
    """

    __slots__ = ("before", "chain", "chains", "is_write", "key", "ops", "order", "past", "place", "preds", "readers", "reads_from", "thin", "writes")

    def __init__(self, history: Sequence[Operation], initial: Any) -> None:
        """Raises NotDistinct."""
        self.ops: list[int] = []
        self.chain: list[int] = []
        self.place: list[int] = []
        self.before: list[int] = []
        self.preds: list[list[int]] = []
        self.reads_from: list[int] = []
        self.is_write: list[bool] = []
        self.key: list[str | None] = []
        self.thin: list[int] = []
        self.chains = 0
        self.past: Clock = np.zeros((0, 0), np.int32)
        self.order: list[int] = []
        writer = writers(history, initial)
        seen = {writer.get((op.key, canonical(op.result))) for op in history if op.f == "read" and op.type == "ok"}
        event = self._events(history, seen)
        self._read_from(history, canonical(initial), writer, event)
        self.writes: dict[str | None, dict[int, list[int]]] = {}
        self.readers: dict[int, list[int]] = {}
        for e in range(len(self.ops)):
            if self.is_write[e]:
                self.writes.setdefault(self.key[e], {}).setdefault(self.chain[e], []).append(e)
            elif self.reads_from[e] >= 0:
                self.readers.setdefault(self.reads_from[e], []).append(e)

    def _events(self, history: Sequence[Operation], seen: set[int | None]) -> dict[int, int]:
        """Lay the operations out in chains; returns the event of each history position that has one."""
        last: dict[int, int] = {}
        chains: dict[int, int] = {}
        event: dict[int, int] = {}
        for i in sorted(range(len(history)), key=lambda i: (history[i].invoke, history[i].complete is None, history[i].complete or 0)):
            op = history[i]
            if op.type == "fail" or (op.type == "info" and i not in seen):
                continue
            e = event[i] = len(self.ops)
            former = last.get(op.process, -1)
            self.ops.append(i)
            self.before.append(former)
            self.preds.append([])
            self.reads_from.append(-2)
            self.is_write.append(op.f == "write")
            self.key.append(op.key)
            if op.type == "info" or op.process not in chains:
                self.chain.append(self.chains)
                self.place.append(1)
                if op.type != "info":
                    chains[op.process] = self.chains
                self.chains += 1
            else:
                self.chain.append(chains[op.process])
                self.place.append(self.place[former] + 1)
            if op.type != "info":
                last[op.process] = e
        return event

    def _read_from(self, history: Sequence[Operation], start: Hashable, writer: Writers, event: dict[int, int]) -> None:
        for e, i in enumerate(self.ops):
            if self.is_write[e]:
                continue
            op = history[i]
            value = canonical(op.result)
            source = writer.get((op.key, value))
            if value == start:
                self.reads_from[e] = INITIAL
            elif source is None:
                self.thin.append(i)
            else:
                self.reads_from[e] = event[source]
                self.preds[e].append(event[source])

    def copy(self) -> Precedence:
        """The same events with edges of its own; `past` as it is."""
        twin = Precedence.__new__(Precedence)
        for name in self.__slots__:
            setattr(twin, name, getattr(self, name))
        twin.preds = [list(edges) for edges in self.preds]
        return twin

    def close(self) -> list[int]:
        """Compute `past` and a topological `order` (of what is free the earliest invoked first); returns the events of a cycle, empty if
        there is none."""
        count = len(self.ops)
        if count * self.chains * 4 > MOST_CLOCK_BYTES:
            raise MemoryError("too many events and processes for vector clocks")
        after: list[list[int]] = [[] for _ in range(count)]
        waits = [0] * count
        for e in range(count):
            for pred in self._into(e):
                after[pred].append(e)
                waits[e] += 1
        self.past = past = np.zeros((count, self.chains), np.int32)
        ready = [e for e in range(count) if not waits[e]]
        self.order = order = []
        while ready:
            e = heappop(ready)
            order.append(e)
            row = past[e]
            for pred in self._into(e):
                np.maximum(row, past[pred], out=row)
                c = self.chain[pred]
                row[c] = max(row[c], self.place[pred])
            for follower in after[e]:
                waits[follower] -= 1
                if not waits[follower]:
                    heappush(ready, follower)
        return [] if len(order) == count else self._cycle(waits)

    def _into(self, e: int) -> list[int]:
        return self.preds[e] if self.before[e] < 0 else [self.before[e], *self.preds[e]]

    def _cycle(self, waits: list[int]) -> list[int]:
        """Walk backwards among the events never reached until one repeats."""
        e = next(e for e, w in enumerate(waits) if w)
        walked: dict[int, int] = {}
        path: list[int] = []
        while e not in walked:
            walked[e] = len(path)
            path.append(e)
            e = next(pred for pred in self._into(e) if waits[pred])
        return path[walked[e]:][::-1]

    def precedes(self, a: int, b: int) -> bool:
        """Does a come before b?  (After `close()`.)"""
        return bool(self.past[b, self.chain[a]] >= self.place[a])

    def last_writes(self, e: int) -> list[int]:
        """Of each chain the last write to e's key in the past of e."""
        found = []
        row = self.past[e]
        place = self.place
        for c, writes in self.writes.get(self.key[e], {}).items():
            k = int(row[c])
            if k:
                n = bisect_right(writes, k, key=lambda w: place[w])
                if n:
                    found.append(writes[n - 1])
        return found
