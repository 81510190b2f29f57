"""What a counter's totals alone refute: no reading of them as sums of updates keeps a level.

Decides: of levels that a witness did not show, which are broken and which are left open; the words of evidence on commuting updates.  May not know: where
a witness comes from.
Sources: Jepsen's checker `counter`; merged.py beside this file has the levels.

For `regular` and read-your-writes: the total must be what the level makes certain and a part of what may have been seen: exactly.  Where nothing is
subtracted: monotonic reads, that totals never fall; the sequential order, that they grow for all processes together.  What these break breaks the
levels that imply them.  Whatever else is open stays unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from capray.checkers.linearizable import linearizable
from capray.checkers.models import MODELS
from capray.checkers.verdict import Evidence, Status, Verdict
from capray.record import Operation

NEVER = 1 << 62
UNEXPLAINED = "the totals are not explained"


def is_update(op: Operation) -> bool:
    """An update that happened, or may have."""
    return op.f != "read" and op.type != "fail"


def end_of(op: Operation) -> int:
    """When an operation was completed; an `info` one never was."""
    return NEVER if op.complete is None else op.complete


def evidence_of(ops: Sequence[Operation], positions: Sequence[int], problem: str) -> Evidence:
    ends = [end for i in positions if (end := ops[i].complete) is not None]
    return Evidence(
        problem=problem, key=ops[positions[0]].key, operations=sorted(positions), offending=sorted(positions), start_us=min(ops[i].invoke for i in positions),
        end_us=max(ends, default=None),
    )


def show(op: Operation) -> str:
    if op.f != "read":
        return f"process {op.process} {'removed' if op.f == 'remove' else 'added'} {op.value!r} {'from' if op.f == 'remove' else 'to'} {op.key}"
    answer = f"{len(op.result)} elements" if isinstance(op.result, (list, tuple)) else repr(op.result)
    return f"process {op.process} read {op.key}: {answer}"


def doubted(ops: Sequence[Operation], found: Mapping[str, Verdict], budget: int) -> dict[str, Verdict]:
    """A counter's verdicts: what does not hold by a witness (`found`) is invalid only where the totals prove it.  `budget`: configurations for the search
    for a linearization."""
    grows = all(op.value >= 0 for op in ops if is_update(op))
    open_ = [name for name, verdict in found.items() if verdict.status != "valid"]
    proofs = {name: why for name in open_ if name in _PROOFS and (grows or name in _SIGNED) and (why := _PROOFS[name](ops))}
    out: dict[str, Verdict] = {}
    for name, verdict in found.items():
        proof = next((proofs[one] for one in (name, *_IMPLIED.get(name, ())) if one in proofs), None)
        if verdict.status == "valid":
            out[name] = verdict
        else:
            status: Status = "invalid" if proof else "unknown"
            note = "" if proof else verdict.note or "not by what the replicas had included; the totals alone do not refute it"
            out[name] = Verdict(status=status, consistency=name, algorithm="totals", ops=verdict.ops, keys=verdict.keys, evidence=proof, note=note)
    if out["linearizable"].status == "unknown":
        out["linearizable"] = searched(ops, "counter", budget)
    return out


def searched(ops: Sequence[Operation], model: str, budget: int) -> Verdict:
    """Whether there is a linearization, by search: `write` is the model's `add`."""
    return linearizable([_as_add(op) if op.f == "write" else op for op in ops], MODELS[model], None, budget)


def _as_add(op: Operation) -> Operation:
    return Operation(process=op.process, node=op.node, f="add", key=op.key, value=op.value, result=None, invoke=op.invoke, complete=op.complete, type=op.type)


def _reachable(certain: int, possible: Iterable[int], total: int) -> bool:
    """Is `total` what is certain and a part of what is possible?  Sums as bits, shifted so that the least is 0."""
    some = list(possible)
    least = sum(value for value in some if value < 0)
    sums = 1 << -least
    for value in some:
        sums |= sums << value if value >= 0 else sums >> -value
    place = total - certain - least
    return place >= 0 and bool(sums >> place & 1)


def _sums(ops: Sequence[Operation], own: bool) -> Evidence | None:
    """A read whose total is no sum of what it must have seen (with `own`: its process's acknowledged updates; else all that were acknowledged before it
    began) and a part of what it may have."""
    updates = [op for op in ops if is_update(op)]
    for i, op in enumerate(ops):
        if op.f != "read" or op.type != "ok":
            continue
        mine = [u for u in updates if u.key == op.key and u.invoke <= end_of(op)]
        must = [end_of(u) <= op.invoke and u.process == op.process if own else end_of(u) < op.invoke
                for u in mine]
        certain = sum(u.value for u, sure in zip(mine, must) if sure)
        rest = [u.value for u, sure in zip(mine, must) if not sure]
        low, high = certain + sum(value for value in rest if value < 0), certain + sum(value for value in rest if value > 0)
        total = op.result or 0
        if not low <= total <= high or not _reachable(certain, rest, total):
            told = f"where {'its own' if own else 'acknowledged'} updates give {certain} and all that were asked {low} to {high}"
            return evidence_of(ops, [i], f"{show(op)}, {told}")
    return None


def _falls(ops: Sequence[Operation]) -> Evidence | None:
    """A process that read less than before, where nothing is subtracted."""
    most: dict[tuple[int, str | None], tuple[int, int]] = {}
    for i in sorted(range(len(ops)), key=lambda i: (ops[i].invoke, end_of(ops[i]))):
        op = ops[i]
        if op.f == "read" and op.type == "ok":
            total, before = op.result or 0, most.get((op.process, op.key), (-1, i))
            if total < before[0]:
                return evidence_of(ops, [before[1], i], f"{show(op)}, after it had read {before[0]}")
            most[op.process, op.key] = max(before, (total, i))
    return None


def _no_one_order(ops: Sequence[Operation]) -> Evidence | None:
    """In one order totals only grow.  So a read of v comes after what any process had added before it read v or less, and before what any process added
    after it read v or more: where v is not between the sums of the two there is no such order."""
    lines: dict[str | None, dict[int, list[Operation]]] = {}
    for op in sorted(ops, key=lambda op: (op.invoke, end_of(op))):
        if is_update(op) or op.f == "read" and op.type == "ok":
            lines.setdefault(op.key, {}).setdefault(op.process, []).append(op)
    for i, op in enumerate(ops):
        if op.f == "read" and op.type == "ok":
            total = op.result or 0
            bounds = [_bounds(line, total) for line in lines[op.key].values()]
            low, high = sum(one for one, _ in bounds), sum(one for _, one in bounds)
            if not low <= total <= high:
                told = f"{show(op)}, where in one order of all it must be from {low} to {high}, by what each process had added before it read as much"
                return evidence_of(ops, [i], told)
    return None


def _bounds(line: Sequence[Operation], total: int) -> tuple[int, int]:
    """What of a process's updates is before every read of `total`, and what may be."""
    low = most = done = 0
    full = False
    for op in line:
        if op.f == "read":
            low = done if (op.result or 0) <= total else low
            full = full or (op.result or 0) >= total
        else:
            done += op.value if op.type == "ok" else 0
            most += 0 if full else op.value
    return low, most


_PROOFS: Mapping[str, Callable[[Sequence[Operation]], Evidence | None]] = {
    "regular": lambda ops: _sums(ops, False),
    "read-your-writes": lambda ops: _sums(ops, True),
    "monotonic-reads": _falls,
    "sequential": _no_one_order,
}
_SIGNED = ("regular", "read-your-writes")  # proofs that hold where something is subtracted, too
_SESSION = ("read-your-writes", "monotonic-reads")
_IMPLIED = {
    "linearizable": ("regular", "sequential", *_SESSION),
    **dict.fromkeys(("sequential", "causal", "causal-convergence", "causal-consistency", "PRAM"), _SESSION),
}
