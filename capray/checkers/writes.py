"""The order of the writes of distinct-value registers: what the reads force on it, and a guess at the rest that is proved or dropped.

Decides: refutations (a cycle of what is forced) and witnesses (every key's writes in one order, without a cycle) of sequential consistency.
May not know: budgets, states.
Sources: the saturation rules of Gibbons and Korach 1997 and Biswas and Enea 2019 ("On the complexity of checking transactional consistency",
OOPSLA): w before a read of w' puts w before w'; w before w' puts the reads of w before w'.  A history is sequentially consistent iff some total
order of each key's writes has no cycle with program order, reads-from and what follows by these rules (Shasha and Snir 1988).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from capray.checkers.precedence import INITIAL, Precedence
from capray.checkers.verdict import Evidence
from capray.record import Operation

_MOST_ROUNDS = 1_000
_MOST_GUESSES = 200


def refutation(ops: Sequence[Operation], order: Precedence) -> Evidence | None:
    """Add to `order` what is forced, until nothing new is; a cycle, or a value nobody wrote, is the evidence."""
    if order.thin:
        i = order.thin[0]
        return Evidence(problem=f"{_show(ops[i])}: nothing wrote that value", key=ops[i].key, operations=[i], offending=[i])
    _initial_first(order)
    cycle = _saturate(order)
    if not cycle:
        return None
    shown = [order.ops[e] for e in cycle]
    steps = " -> ".join(_show(ops[i]) for i in shown)
    return Evidence(problem=f"each must come before the next, and the last before the first: {steps}", operations=shown, offending=shown)


def _show(op: Operation) -> str:
    return f"{op.f} {op.key or ''} {op.result if op.f == 'read' else op.value!r} by process {op.process} at {op.invoke}"


def write_order(ops: Sequence[Operation], order: Precedence, guesses: int = _MOST_GUESSES) -> bool:
    """Can the forced order be completed by ordering writes as real time did, then what is still open as it was invoked?  No is no answer.

    Stores order writes as they meet them, whatever their reads do; so this finds the witness of most real histories.
    """
    guess = order.copy()
    for chains in order.writes.values():
        _as_in_time(ops, guess, [w for writes in chains.values() for w in writes])
    if _saturate(guess):
        guess = order.copy()
        guess.close()
    for _ in range(min(guesses, _MOST_GUESSES)):
        open_pairs = _undecided(guess)
        if not open_pairs:
            return True
        trial = _most_of(guess, open_pairs) or _with(guess, [open_pairs[0][::-1]])
        if trial is None:
            return False
        guess = trial
    return False


def _most_of(guess: Precedence, pairs: list[tuple[int, int]]) -> Precedence | None:
    """As many of the first pairs as go together: all, else half, else a quarter, ...  A trial costs as much with one pair as with all."""
    size = len(pairs)
    while size:
        trial = _with(guess, pairs[:size])
        if trial is not None:
            return trial
        size //= 2
    return None


def _as_in_time(ops: Sequence[Operation], guess: Precedence, writes: list[int]) -> None:
    """An edge between writes of one key that did not overlap in time (those that follow by transitivity left out)."""
    done = sorted([(end, w) for w in writes if (end := ops[guess.ops[w]].complete) is not None], reverse=True)
    done.reverse()
    ended: list[tuple[int, int]] = []
    j = 0
    for w in sorted(writes, key=lambda w: ops[guess.ops[w]].invoke):
        begin = ops[guess.ops[w]].invoke
        while j < len(done) and done[j][0] < begin:
            ended.append(done[j])
            j += 1
        newest = max((ops[guess.ops[v]].invoke for _, v in ended), default=0)
        ended = [(end, v) for end, v in ended if end >= newest]
        guess.preds[w] += [v for _, v in ended]


def _undecided(guess: Precedence) -> list[tuple[int, int]]:
    """Neighbours among each key's writes, in the present order, that nothing orders yet."""
    rank = {e: r for r, e in enumerate(guess.order)}
    pairs = []
    for chains in guess.writes.values():
        line = sorted([w for writes in chains.values() for w in writes], key=rank.__getitem__)
        pairs += [(a, b) for a, b in pairwise(line) if not guess.precedes(a, b)]
    return pairs


def _with(guess: Precedence, pairs: list[tuple[int, int]]) -> Precedence | None:
    trial = guess.copy()
    for a, b in pairs:
        trial.preds[b].append(a)
    return None if _saturate(trial) else trial


def _saturate(order: Precedence) -> list[int]:
    """Add what follows for the writes of each key until nothing new does; returns a cycle, empty if there is none."""
    for _ in range(_MOST_ROUNDS):
        cycle = order.close()
        if cycle:
            return cycle
        new = [_force(order, e) for e in range(len(order.ops))]
        if not any(new):
            return []
    raise MemoryError("the forced order did not settle")


def _initial_first(order: Precedence) -> None:
    """Who read the initial value did so before the first write of each process to that key."""
    for r in range(len(order.ops)):
        if order.reads_from[r] == INITIAL:
            for writes in order.writes.get(order.key[r], {}).values():
                order.preds[writes[0]].append(r)


def _force(order: Precedence, e: int) -> bool:
    new = False
    if order.is_write[e]:
        for w in order.last_writes(e):
            for r in order.readers.get(w, ()):
                if r != e and not order.precedes(r, e) and r not in order.preds[e]:
                    order.preds[e].append(r)
                    new = True
    elif order.reads_from[e] >= 0:
        source = order.reads_from[e]
        for w in order.last_writes(e):
            if w != source and not order.precedes(w, source) and w not in order.preds[source]:
                order.preds[source].append(w)
                new = True
    return new
