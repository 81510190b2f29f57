"""Sequential consistency: one order of all operations, of all keys, that keeps each process's own order and explains every answer.

Decides: the verdict within a budget of states; whether a store's own version order is a witness.  May not know: real time between processes.
Sources: Lamport 1979; Attiya and Welch 1994 (it does not compose, so keys are searched together); Gibbons and Korach 1997 (NP-complete).

In this order: a linearizable history is sequential (unless a process begins at the instant of its own former completion); for distinct values,
capray.checkers.writes tells what the reads force on the writes (a cycle refutes) and tries to complete that to an order of the writes (a witness).
What is left is a search over the processes' heads: an enabled legal pure operation is taken at once; a write waits until nobody has
the present value still to read.
An `info` operation may take effect at any time after what its process had done before it, or never.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from capray.checkers.linearizable import DEFAULT_BUDGET, MEMORY_BYTES, linearizable
from capray.checkers.models import ILLEGAL, Call, Model
from capray.checkers.precedence import NotDistinct, Precedence
from capray.checkers.values import canonical
from capray.checkers.verdict import Evidence, Verdict
from capray.checkers.writes import refutation, write_order
from capray.record import Operation

_STATES_A_GUESS = 1_000  # of the budget: what a guess at the order of the writes counts for (both take some 50 ms on a thousand operations)


def sequential(
    ops: Sequence[Operation], model: Model, initial: Any = None, budget: int = DEFAULT_BUDGET, order: Sequence[Any] | None = None,
) -> Verdict:
    """Is the history sequentially consistent?

    `order`: the store's own version order as a witness: for each operation what the store ordered it by (zxid, revision, timestamp; larger is
    later), None for operations that change nothing and `info` ones that did not happen.  It is verified, not believed: where it does not
    explain the history, the verdict is searched for as if there were none.
    """
    verdict = Verdict(status="unknown", consistency="sequential", ops=len(ops), keys=len({op.key for op in ops}))
    if order is not None:
        refuted = verify_order(ops, model, initial, order)
        if refuted is None:
            verdict.status, verdict.algorithm = "valid", "witness verified"
            return verdict
        verdict.note = f"the given order is no witness: {refuted.problem}"
    if not _ties_in_a_process(ops):
        plain = linearizable(ops, model, initial, budget // 4)
        verdict.states = plain.states
        if plain.status == "valid":
            verdict.status, verdict.algorithm = "valid", "linearizable"
            return verdict
    saturated = None
    if model.name in ("register", "cas-register"):
        try:
            saturated = Precedence(ops, initial)
            verdict.evidence = refutation(ops, saturated)
            if verdict.evidence is not None or write_order(ops, saturated, budget // _STATES_A_GUESS):
                verdict.status, verdict.algorithm = "valid" if verdict.evidence is None else "invalid", "order of writes"
                return verdict
        except (NotDistinct, MemoryError):
            saturated = None
    search = _Search(ops, model, initial, saturated)
    verdict.status, verdict.algorithm = search.run(budget - verdict.states), "search"  # type: ignore[assignment]
    verdict.states += search.spent
    if verdict.status == "unknown":
        verdict.note = (verdict.note + "; " if verdict.note else "") + f"undecided after {verdict.states} states"
    elif verdict.status == "invalid":
        verdict.evidence = Evidence(problem="no order of all operations keeps every process's own order and explains every answer")
    return verdict


def _ties_in_a_process(ops: Sequence[Operation]) -> bool:
    """Does a process begin at the very instant at which its former operation was completed?  Real time calls the two concurrent, it does not."""
    ends = {(op.process, op.complete) for op in ops if op.type == "ok"}
    return any((op.process, op.invoke) in ends for op in ops if op.type != "fail")


# ---- a store's own order as a witness -----------------------------------------------------------------------------------------------------


def version_order(ops: Sequence[Operation], orders: Mapping[tuple[str | None, Any], Any]) -> list[Any]:
    """For `sequential`'s `order`: what each write's (key, value) was ordered by, from a table such as a record's versions give."""
    return [orders.get((op.key, op.value)) if op.f == "write" else None for op in ops]


def verify_order(ops: Sequence[Operation], model: Model, initial: Any, order: Sequence[Any]) -> Evidence | None:
    """None if the order is a witness; else what it does not explain.

    Operations with an order take effect in it; every other one, with its process, at the earliest point at which it is legal: later is
    never better, since a process's next operation must come after it.
    """
    calls = [model.prepare(Call(op.f, op.value, op.result if op.type == "ok" else None, op.type == "ok")) for op in ops]
    pure = [model.pure(call) for call in calls]
    for i, op in enumerate(ops):
        if op.type == "ok" and not pure[i] and order[i] is None:
            return Evidence(problem=f"{_show(op)} has no place in it", operations=[i], offending=[i])
    ranked = sorted([i for i, op in enumerate(ops) if op.type != "fail" and not pure[i] and order[i] is not None], key=lambda i: order[i])
    if any(order[i] == order[j] for i, j in pairwise(ranked)):
        return Evidence(problem="two operations have the same place in it")
    states: dict[str | None, list[tuple[int, Any]]] = {}
    rank: dict[int, int] = {}
    for r, i in enumerate(ranked, 1):
        rank[i] = r
        line = states.setdefault(ops[i].key, [(0, model.start(initial))])
        after = model.step(line[-1][1], calls[i])
        if after is ILLEGAL:
            return Evidence(problem=f"{_show(ops[i])} is not legal where it stands", operations=[i], offending=[i])
        line.append((r, after))
    return _place_reads(ops, model, initial, calls, rank, states)


def _place_reads(
    ops: Sequence[Operation], model: Model, initial: Any, calls: list[Call], rank: dict[int, int], states: dict[str | None, list[tuple[int, Any]]],
) -> Evidence | None:
    at: dict[int, int] = {}
    cursor: dict[tuple[int, str | None], int] = {}
    for i in _program_order(ops):
        op = ops[i]
        now = at.get(op.process, 0)
        if i in rank:
            if rank[i] <= now:
                return Evidence(problem=f"{_show(op)} stands before what its process had done or seen", operations=[i], offending=[i])
            if op.type == "ok":
                at[op.process] = rank[i]
            continue
        if op.type != "ok":
            continue
        line = states.setdefault(op.key, [(0, model.start(initial))])
        k = cursor.get((op.process, op.key), 0)
        while k + 1 < len(line) and line[k + 1][0] <= now:
            k += 1
        while k < len(line) and model.step(line[k][1], calls[i]) is ILLEGAL:
            k += 1
        if k == len(line):
            problem = f"{_show(op)} is legal nowhere after what its process had done or seen"
            return Evidence(problem=problem, key=op.key, operations=[i], offending=[i])
        cursor[op.process, op.key] = k
        at[op.process] = max(now, line[k][0])
    return None


def _program_order(ops: Sequence[Operation]) -> list[int]:
    return sorted(range(len(ops)), key=lambda i: (ops[i].invoke, ops[i].complete is None, ops[i].complete or 0))


def _show(op: Operation) -> str:
    return f"{op.f} {op.key or ''} {op.result if op.value is None else op.value!r} by process {op.process} at {op.invoke}"


# ---- the search ---------------------------------------------------------------------------------------------------------------------------


class _Search:
    """Chains of operations (a process each; an `info` operation one of its own, optional), placed head by head."""

    def __init__(self, ops: Sequence[Operation], model: Model, initial: Any, forced: Precedence | None) -> None:
        self.model = model
        self.spent = 0
        self.chains: list[list[int]] = []
        self.optional: list[bool] = []
        self.after: dict[int, list[tuple[int, int]]] = {}
        self.ops = ops
        self.calls: dict[int, Call] = {}
        self.pure: dict[int, bool] = {}
        self.place: dict[int, tuple[int, int]] = {}
        self._lay_out()
        self.keys = {key: k for k, key in enumerate({ops[i].key: None for chain in self.chains for i in chain})}
        self.states: list[Any] = [model.start(initial)]
        self.numbers: dict[Any, int] = {self.states[0]: 0}
        self.required = sum(len(chain) for chain, optional in zip(self.chains, self.optional) if not optional)
        self.unread: dict[tuple[int, int], list[tuple[int, int]]] = {}
        if forced is not None:
            self._take_forced(forced)

    def _lay_out(self) -> None:
        chain_of: dict[int, int] = {}
        for i in _program_order(self.ops):
            op = self.ops[i]
            if op.type == "fail":
                continue
            call = self.model.prepare(Call(op.f, op.value, op.result if op.type == "ok" else None, op.type == "ok"))
            pure = self.model.pure(call)
            if op.type == "info" and pure:
                continue
            self.calls[i], self.pure[i] = call, pure
            c = chain_of.get(op.process, -1)
            if op.type == "info":
                if c >= 0:
                    self.after.setdefault(i, []).append((c, len(self.chains[c])))
                c = len(self.chains)
                self.chains.append([])
                self.optional.append(True)
            elif c < 0:
                c = chain_of[op.process] = len(self.chains)
                self.chains.append([])
                self.optional.append(False)
            self.chains[c].append(i)
            self.place[i] = (c, len(self.chains[c]))

    def _take_forced(self, forced: Precedence) -> None:
        """The saturated order, and who reads each value (a write of the same key waits for them)."""
        for e, i in enumerate(forced.ops):
            for pred in forced.preds[e]:
                self.after.setdefault(i, []).append(self.place[forced.ops[pred]])
            source = forced.reads_from[e]
            if source >= 0:
                value = self._number(canonical(self.ops[forced.ops[source]].value))
                self.unread.setdefault((self.keys[self.ops[i].key], value), []).append(self.place[i])

    def _number(self, state: Any) -> int:
        found = self.numbers.get(state)
        if found is None:
            found = self.numbers[state] = len(self.states)
            self.states.append(state)
        return found

    def run(self, budget: int) -> str:
        """valid, invalid, or unknown past the budget or the memory."""
        at, held = array("l", [0] * len(self.chains)), array("l", [0] * len(self.keys))
        stack: list[tuple[array[int], array[int], int, list[tuple[int, int]]]] = []
        seen: set[bytes] = set()
        size = (len(at) + len(held)) * array("l").itemsize * 3 + 400
        left = self.required
        while self.spent < budget and (len(seen) + len(stack)) * size < MEMORY_BYTES:
            left -= self._take_pure(at, held)
            if not left:
                return "valid"
            choices = self._choices(at, held)
            if len(choices) > 1:
                key = at.tobytes() + held.tobytes()
                if key in seen:
                    choices = []
                else:
                    seen.add(key)
            while not choices:
                if not stack:
                    return "invalid"
                at, held, left, choices = stack.pop()
            c, state = choices.pop()
            if choices:
                stack.append((at[:], held[:], left, choices))
            i = self.chains[c][at[c]]
            at[c] += 1
            held[self.keys[self.ops[i].key]] = state
            left -= not self.optional[c]
            self.spent += 1
        return "unknown"

    def _ready(self, i: int, at: array[int]) -> bool:
        after = self.after.get(i)
        return after is None or all(at[c] >= n for c, n in after)

    def _take_pure(self, at: array[int], held: array[int]) -> int:
        """Place every enabled legal pure operation, again and again; returns how many."""
        taken, moved = 0, True
        while moved:
            moved = False
            for c, chain in enumerate(self.chains):
                while at[c] < len(chain) and self.pure[i := chain[at[c]]] and self._ready(i, at):
                    if self.model.step(self.states[held[self.keys[self.ops[i].key]]], self.calls[i]) is ILLEGAL:
                        break
                    at[c] += 1
                    taken += 1
                    moved = True
        self.spent += taken
        return taken

    def _choices(self, at: array[int], held: array[int]) -> list[tuple[int, int]]:
        """Chains whose head may be placed now, and the state it leads to; the earliest invoked last (it is tried first), `info` ones before."""
        found = []
        for c, chain in enumerate(self.chains):
            if at[c] >= len(chain) or self.pure[i := chain[at[c]]] or not self._ready(i, at):
                continue
            k = self.keys[self.ops[i].key]
            if any(at[reader] < n for reader, n in self.unread.get((k, held[k]), ())):
                continue
            after = self.model.step(self.states[held[k]], self.calls[i])
            if after is not ILLEGAL:
                found.append((not self.optional[c], -self.ops[i].invoke, c, self._number(after)))
        found.sort()
        return [(c, state) for _, _, c, state in found]
