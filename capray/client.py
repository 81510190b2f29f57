"""One node's client: open-loop arrivals of its workload; and the one place that decides ok, fail or info.

Decides: when a node's client asks what, and what became of it.  May not know: policies, the network.
Source: open loop after Schroeder, Wierman and Harchol-Balter, NSDI 2006 (latency counts from the intended time).
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

from capray.distributions import Exponential, table
from capray.record import Operation
from capray.streams import Stream
from capray.workload import Workload, zipf_thresholds

NEVER_US = 1 << 62


class Client:
    """One node's client: its requests to come, those under way, and its finished history."""

    __slots__ = ("asked", "deadline_us", "delete_ppm", "deletes", "even_gap", "free", "gaps", "history", "keys", "late_answers", "names", "node", "nodes",
                 "open", "read_ppm", "seen", "slots", "stream", "workload", "writes", "zipf")

    def __init__(self, workload: Workload, node: int, nodes: int, seed: int, deletes: str = "delete") -> None:
        """`deletes`: what a delete is here, `delete` (of a key), `remove` (of an element that a read of the key answered) or `subtract` (a counter's
        write of an amount below 0)."""
        self.workload = workload
        self.node = node
        self.nodes = nodes
        self.stream = Stream(seed, "client", node)
        gap = 1_000_000 / workload.rate if workload.rate else 0.0
        self.gaps = table(Exponential(gap)) if workload.arrivals == "poisson" and gap else None
        self.even_gap = max(1, round(gap))
        self.read_ppm = round(workload.read_share * 1_000_000)
        self.delete_ppm = round(workload.delete_share * 1_000_000)
        self.deletes = deletes
        self.seen: dict[str, list[Any]] = {}  # by key the elements that the last read found; where elements are removed
        self.zipf = zipf_thresholds(workload.keys, repr(workload.zipf_exponent)) if workload.key_distribution == "zipfian" else ()
        self.names = [f"k{i}" for i in range(workload.keys)]
        self.keys = workload.keys
        self.deadline_us = workload.deadline_us
        self.writes = 0
        self.asked = 0
        self.free: list[int] = []  # processes without an operation under way, the newest freed last
        self.slots = 0
        self.open: dict[int, tuple[Any, ...]] = {}  # request id -> (process, f, key, value, invoke, deadline, final), oldest first
        self.history: list[Operation] = []
        self.late_answers = 0

    def first(self) -> int:
        """When the first request is due."""
        if not self.workload.rate:
            return NEVER_US
        return self.gap() if self.gaps else self.even_gap * (self.node + 1) // self.nodes

    def gap(self) -> int:
        """Microseconds to the next request."""
        if self.gaps is None:
            return self.even_gap
        return self.gaps.drawn(self.stream.word()) or 1

    def next_request(self) -> tuple[str, str, Any]:
        """What is asked now: (f, key, value)."""
        word = self.stream.word()
        low = word & 0xFFFFFFFF
        key = self.names[min(bisect_right(self.zipf, low), len(self.names) - 1) if self.zipf else low * self.keys >> 32]
        if (word >> 32 & 0xFFFFFFFF) * 1_000_000 >> 32 < self.read_ppm:
            return "read", key, None
        subtract = False
        if self.delete_ppm:
            bits = self.stream.bits()
            if ((bits >> 32) * 1_000_000 >> 32) < self.delete_ppm:
                if self.deletes == "delete":
                    return "delete", key, None
                subtract = self.deletes == "subtract"
                seen = self.seen.get(key)
                if seen:
                    return "remove", key, seen[(bits & 0xFFFFFFFF) * len(seen) >> 32]
        value = 1 + self.node + self.nodes * self.writes
        self.writes += 1
        return "write", key, -value if subtract else value

    def begin(self, now: int, f: str, key: str, value: Any, final: bool = False) -> int:
        """An operation is invoked by a free process, or a new one.  Returns its request id."""
        if self.free:
            process = self.free.pop()
        else:
            process = self.node + self.nodes * self.slots
            self.slots += 1
        self.asked = request = self.asked + 1
        self.open[request] = (process, f, key, value, now, now + self.deadline_us, final)
        return request

    def session(self, request: int) -> int:
        """The process that an open request belongs to."""
        return int(self.open[request][0])

    def oldest_deadline(self) -> int | None:
        """When the oldest open operation is given up; None where none is open."""
        for operation in self.open.values():
            return int(operation[5])
        return None

    def answer(self, now: int, request: int, outcome: str, result: Any, error: str | None) -> bool:
        """The store answered.  Returns False for an answer that came too late, which is only counted."""
        if request in self.open:
            self.finish(now, request, outcome, result, error)
            return True
        self.late_answers += 1
        return False

    def expire(self, now: int) -> None:
        """Give up every operation whose deadline has come."""
        due = [request for request, operation in self.open.items() if operation[5] <= now]
        for request in due:
            self.finish(now, request, "info", None, "timeout")

    def unfinished(self, now: int) -> list[Operation]:
        """The operations still open, as a history that ends `now` shows them: a write is `info`, a read `fail`.  They stay open."""
        return [Operation(process=process, node=self.node, f=f, key=key, value=value, result=None, invoke=invoke,
                          complete=None if f != "read" else now, type="info" if f != "read" else "fail", intended=invoke, deadline=deadline,
                          error="timeout", final=final)
                for process, f, key, value, invoke, deadline, final in self.open.values()]

    def lose(self, now: int, error: str) -> None:
        """The connection to the store is gone with every operation under way."""
        for request in list(self.open):
            self.finish(now, request, "info", None, error)

    def finish(self, now: int, request: int, outcome: str, result: Any, error: str | None) -> None:
        """Decide ok, fail or info, once.  A read of unknown outcome changed nothing: it is `fail`.  After an `info` its process is not
        used again: the operation may still take effect."""
        process, f, key, value, invoke, deadline, final = self.open.pop(request)
        if outcome == "info" and f == "read":
            outcome = "fail"
        if outcome != "info":
            self.free.append(process)
        if self.delete_ppm and f == "read" and outcome == "ok" and isinstance(result, list):
            self.seen[key] = result
        self.history.append(Operation(
            process=process, node=self.node, f=f, key=key, value=value, result=result if outcome == "ok" else None, invoke=invoke,
            complete=None if outcome == "info" else now, type=outcome, intended=invoke, deadline=deadline,  # type: ignore[arg-type]
            error=error, final=final))
