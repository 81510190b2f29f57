"""Causal consistency of registers with distinct values, by bad patterns: CC, CCv (convergence) and CM (memory).

Decides: which of the three hold, and the pattern that breaks one.  May not know: real time, models other than the register.
Source: Bouajjani, Enea, Guerraoui and Hamza, "On verifying causal consistency", POPL 2017, tables 2 and 3: a differentiated history is
  CC   iff it has no CyclicCO, WriteCOInitRead, ThinAirRead, WriteCORead;
  CCv  iff it is CC and has no CyclicCF;
  CM   iff it is CC and has no WriteHBInitRead, CyclicHB.
"Causal" in capray's ladder is CM, causal memory (Ahamad et al. 1995).  CM and CCv do not imply one another; both imply CC.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from capray.checkers.precedence import INITIAL, NotDistinct, Precedence
from capray.checkers.verdict import Evidence, Verdict
from capray.record import Operation

CAUSAL = ("causal", "causal-convergence", "causal-consistency")
_NAMES = {"causal": "CM", "causal-convergence": "CCv", "causal-consistency": "CC"}
_MOST_ROUNDS = 10_000


def causal(ops: Sequence[Operation], initial: Any = None, consistency: str = "causal") -> Verdict:
    """The verdict on one of CAUSAL; `unknown`, saying why, where values are not distinct or the history is too large for its clocks."""
    return causal_all(ops, initial, (consistency,))[consistency]


def causal_all(ops: Sequence[Operation], initial: Any = None, wanted: Sequence[str] = CAUSAL) -> dict[str, Verdict]:
    """The verdicts on several of CAUSAL, the common part done once."""
    keys = len({op.key for op in ops})

    def verdict(name: str, found: Evidence | None) -> Verdict:
        return Verdict(
            status="valid" if found is None else "invalid", consistency=name, algorithm="bad patterns", ops=len(ops), keys=keys, evidence=found,
            note=_NAMES[name],
        )

    try:
        order = Precedence(ops, initial)
        common = _causal_consistency(ops, order)
        if common is not None:
            return {name: verdict(name, common) for name in wanted}
        checks = {"causal": _memory, "causal-convergence": _convergence}
        return {name: verdict(name, checks[name](ops, order) if name in checks else None) for name in wanted}
    except (NotDistinct, MemoryError) as error:
        return {
            name: Verdict(status="unknown", consistency=name, algorithm="bad patterns", ops=len(ops), keys=keys, note=f"{_NAMES[name]}: {error}")
            for name in wanted
        }


def explain_cycle(ops: Sequence[Operation], pattern: str, positions: Sequence[int]) -> Evidence:
    """A bad pattern in words: the operations at `positions`, each before the next."""
    steps = " -> ".join(_show(ops[i]) for i in positions)
    shown = sorted(set(positions))
    ends = [end for i in shown if (end := ops[i].complete) is not None]
    return Evidence(
        problem=f"{pattern}: {steps}", key=ops[shown[0]].key, operations=shown, offending=shown, start_us=min(ops[i].invoke for i in shown),
        end_us=max(ends) if ends else None,
    )


def _show(op: Operation) -> str:
    name = "" if op.key is None else f"{op.key}="
    return f"process {op.process} {op.f} {name}{op.result if op.f == 'read' else op.value!r}"


def _causal_consistency(ops: Sequence[Operation], order: Precedence) -> Evidence | None:
    """The four patterns of CC.  Leaves `order` closed under causal order."""
    if order.thin:
        return explain_cycle(ops, "ThinAirRead (nothing wrote that value)", order.thin[:1])
    cycle = order.close()
    if cycle:
        return explain_cycle(ops, "CyclicCO (each came before the next in causal order)", [order.ops[e] for e in cycle])
    for r in order.order:
        source = order.reads_from[r]
        if order.is_write[r]:
            continue
        for w in order.last_writes(r):
            if source == INITIAL:
                return explain_cycle(ops, "WriteCOInitRead (the initial value read after a write in causal order)", [order.ops[w], order.ops[r]])
            if w != source and order.precedes(source, w):
                return explain_cycle(ops, "WriteCORead (an overwritten value read, in causal order)", [order.ops[e] for e in (source, w, r)])
    return None


def _convergence(ops: Sequence[Operation], order: Precedence) -> Evidence | None:
    """CyclicCF: a write that a read's past holds beside the write it returned was ordered before that one; with causal order that must not cycle."""
    other = order.copy()
    new = [_order_before_source(order, other, r) for r in range(len(order.ops)) if order.reads_from[r] >= 0]
    if not any(new):
        return None
    cycle = other.close()
    return explain_cycle(ops, "CyclicCF (no one order of the writes explains every read)", [order.ops[e] for e in cycle]) if cycle else None


def _order_before_source(seen: Precedence, into: Precedence, r: int) -> bool:
    """Order each write in the past of read r before the write it returned; True if that was new."""
    source, new = seen.reads_from[r], False
    for w in seen.last_writes(r):
        if w != source and not seen.precedes(w, source) and w not in into.preds[source]:
            into.preds[source].append(w)
            new = True
    return new


def _memory(ops: Sequence[Operation], order: Precedence) -> Evidence | None:
    """CyclicHB, WriteHBInitRead: for each process, what its reads force on the writes before them, until nothing new follows.

    First for all processes at once: that relation holds each process's own, so where it is sound so are they."""
    reads: dict[int, list[int]] = {}
    for e in range(len(order.ops)):
        if not order.is_write[e]:
            reads.setdefault(order.chain[e], []).append(e)
    if happened_before(ops, order, [e for own in reads.values() for e in own]) is None:
        return None
    for own in reads.values():
        found = happened_before(ops, order, own)
        if found is not None:
            return found
    return None


def happened_before(ops: Sequence[Operation], order: Precedence, reads: list[int]) -> Evidence | None:
    """What breaks the closed `order` once each write before one of `reads` goes before the write it returned; None where nothing does."""
    view = order.copy()
    for _ in range(_MOST_ROUNDS):
        for r in reads:
            if view.reads_from[r] == INITIAL and (before := view.last_writes(r)):
                return explain_cycle(ops, "WriteHBInitRead (the initial value read after a write)", [order.ops[before[0]], order.ops[r]])
        new = [_order_before_source(view, view, r) for r in reads if view.reads_from[r] >= 0]
        if not any(new):
            return None
        cycle = view.close()
        if cycle:
            return explain_cycle(ops, "CyclicHB (what one process read cannot be put in one order)", [order.ops[e] for e in cycle])
    raise MemoryError("happened-before did not settle")
