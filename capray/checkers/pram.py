"""PRAM (pipelined RAM, FIFO) consistency of registers with distinct values: one order of the writes for each process, that keeps each writer's own.

Decides: the verdict, and the cycle that breaks it.  May not know: real time, models other than the register.
Sources: Lipton and Sandberg, "PRAM: a scalable shared memory", 1988; Wei, Huang, Cao and Lu, "Verifying pipelined-RAM consistency over read/write traces
of data replicas", IEEE TPDS 2016: with distinct values, closing program order and one process's reads-from under "a write before a read goes before the
write it returned" decides it, process by process.  Causal memory implies it; causal consistency (CC) does not, nor the other way round.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from capray.checkers.causal import causal, explain_cycle, happened_before
from capray.checkers.precedence import NotDistinct, Precedence
from capray.checkers.verdict import Evidence, Verdict
from capray.record import Operation


def pram(ops: Sequence[Operation], initial: Any = None, memory: Verdict | None = None) -> Verdict:
    """The verdict; `unknown` where values are not distinct.  `memory`: the verdict on causal memory, where it is known already."""
    memory = causal(ops, initial) if memory is None else memory
    verdict = Verdict(status=memory.status, consistency="PRAM", algorithm="closure by process", ops=len(ops), keys=len({op.key for op in ops}))
    if memory.status != "invalid":
        verdict.note = "implied by causal memory" if memory.status == "valid" else memory.note
        return verdict
    try:
        verdict.evidence = _broken(ops, Precedence(ops, initial))
    except (NotDistinct, MemoryError) as error:
        verdict.status, verdict.note = "unknown", str(error)
        return verdict
    verdict.status = "invalid" if verdict.evidence is not None else "valid"
    return verdict


def _broken(ops: Sequence[Operation], order: Precedence) -> Evidence | None:
    if order.thin:
        return explain_cycle(ops, "ThinAirRead (nothing wrote that value)", order.thin[:1])
    reads: dict[int, list[int]] = {}
    for e in range(len(order.ops)):
        if not order.is_write[e]:
            reads.setdefault(order.chain[e], []).append(e)
    for own in reads.values():
        view = order.copy()
        mine = set(own)
        view.preds = [edges if order.is_write[e] or e in mine else [] for e, edges in enumerate(view.preds)]
        cycle = view.close()
        found = (
            explain_cycle(ops, "CyclicHB (what one process read cannot be put in one order)", [order.ops[e] for e in cycle])
            if cycle
            else happened_before(ops, view, own)
        )
        if found is not None:
            return found
    return None
