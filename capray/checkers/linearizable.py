"""Linearizability of a history of many objects: by key, since it composes (Herlihy and Wing 1990), zones where they apply, else the search.

Decides: which algorithm each key gets and how the keys share the budget.  May not know: files, evidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

from capray.checkers.models import Model
from capray.checkers.search import Search
from capray.checkers.verdict import Evidence, Verdict
from capray.checkers.zones import clusters, verdict_of
from capray.record import Operation

DEFAULT_BUDGET = 1_000_000  # configurations; some ten seconds where a hundred operations are in flight, a few hundred megabytes at most
MEMORY_BYTES = 512 << 20  # what memoised configurations may take, by the search's own account
_FIRST_SLICE = 256
_by_invocation = attrgetter("invoke")


def by_key(ops: Sequence[Operation]) -> dict[str | None, list[Operation]]:
    """The operations of each key in order of invocation (ties as they came)."""
    times = [op.invoke for op in ops]
    ordered = ops if times == sorted(times) else sorted(ops, key=_by_invocation)
    keys: dict[str | None, list[Operation]] = {}
    for op in ordered:
        group = keys.get(op.key)
        if group is None:
            keys[op.key] = [op]
        else:
            group.append(op)
    return keys


def linearizable(ops: Sequence[Operation], model: Model, initial: Any = None, budget: int = DEFAULT_BUDGET) -> Verdict:
    """Is the history linearizable, every key being one object of `model` that is `initial` at first?

    `budget` bounds the configurations explored over all keys; past it, or past MEMORY_BYTES, the verdict is `unknown`.  Where a search
    refuted it the evidence names the key only: capray.checkers.evidence.explain finds the window.
    """
    registers = model.name in ("register", "cas-register")
    if registers:
        found = clusters(ops, initial)
        if found is not None:
            return verdict_of(ops, found)
    keys = by_key(ops)
    answer = Verdict(status="valid", algorithm="search", ops=len(ops), keys=len(keys), by_key=True)
    searches = []
    for key, group in keys.items():
        found = clusters(group, initial) if registers and len(keys) > 1 else None
        if found is None:
            searches.append((key, Search(group, model, initial)))
        elif verdict_of(group, found).status == "invalid":
            _refute(answer, key)
            return answer
    _share(searches, budget, answer)
    return answer


def _refute(answer: Verdict, key: str | None) -> None:
    answer.status, answer.note = "invalid", _about(key)
    answer.evidence = Evidence(problem="no order of the operations that keeps real time is legal", key=key)


def _about(key: str | None) -> str:
    return "" if key is None else f"key {key}"


def _share(searches: list[tuple[str | None, Search]], budget: int, answer: Verdict) -> None:
    """Every undecided key gets the same, growing, slice of the budget, so that one quickly refuted key ends the whole."""
    slice_, open_ = _FIRST_SLICE, searches
    while open_:
        undecided = []
        for key, search in open_:
            before = search.spent
            status = search.run(min(slice_, budget - answer.states))
            answer.states += search.spent - before
            if status == "invalid":
                _refute(answer, key)
                return
            if status == "unknown":
                undecided.append((key, search))
        held = sum(search.held_bytes + search.classes.held_bytes for _, search in undecided)
        if undecided and (answer.states >= budget or held > MEMORY_BYTES):
            reason = f"{answer.states} states" if answer.states >= budget else f"{MEMORY_BYTES >> 20} MiB of memory"
            answer.status = "unknown"
            answer.note = f"undecided after {reason}: " + (", ".join(_about(key) or "the whole" for key, _ in undecided[:5]))
            return
        slice_ *= 2
        open_ = undecided
