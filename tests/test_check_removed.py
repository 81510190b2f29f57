"""Sets that elements are removed from: every level against its definition by force on small histories, and stories with a name."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, combinations, permutations, product
from typing import Any

import pytest

from capray.checkers import observed
from capray.checkers.merged import CAUSAL_LEVELS, MERGED_LEVELS, SESSION_LEVELS, merged_levels
from capray.checkers.observed import Story
from capray.record import Operation
from capray.streams import Stream


def ask(process: int, f: str, value: Any, invoke: int, complete: int | None, key: str = "x") -> Operation:
    return Operation(process=process, f=f, key=key, value=value, result=None, invoke=invoke, complete=complete, type="info" if complete is None else "ok")


def add(*told: Any) -> Operation:
    return ask(told[0], "write", *told[1:])


def remove(*told: Any) -> Operation:
    return ask(told[0], "remove", *told[1:])


def read(process: int, result: Any, invoke: int, complete: int, key: str = "x") -> Operation:
    return Operation(process=process, f="read", key=key, value=None, result=result, invoke=invoke, complete=complete, type="ok")


def statuses(ops: list[Operation]) -> dict[str, str]:
    return {name: verdict.status for name, verdict in merged_levels(ops, "set").items()}


ALL = set(MERGED_LEVELS)
STRONG = {"linearizable", "sequential"}
STORIES = [
    ("added, removed, gone", [add(0, 1, 0, 1), remove(0, 1, 2, 3), read(1, [], 4, 5)], ALL),
    ("a remove that gossip has not brought yet", [add(0, 1, 0, 1), remove(0, 1, 2, 3), read(1, [1], 4, 5)], ALL - {"linearizable", "regular"}),
    ("resurrected: seen, gone, seen", [add(0, 1, 0, 1), remove(0, 1, 2, 9), read(1, [1], 2, 3), read(1, [], 4, 5), read(1, [1], 6, 7)],
     ALL - STRONG - {*CAUSAL_LEVELS, "PRAM", "monotonic-reads"}),
    ("gone, and nobody removed it", [add(0, 1, 0, 9), remove(0, 2, 10, 11), read(1, [1], 1, 2), read(1, [], 3, 4)],
     ALL - STRONG - {*CAUSAL_LEVELS, "PRAM", "monotonic-reads"}),
    ("gone before anybody asked to remove it", [add(0, 1, 0, 1), read(1, [1], 2, 3), read(1, [], 4, 5), remove(0, 1, 8, 9)],
     ALL - STRONG - {*CAUSAL_LEVELS, "PRAM", "monotonic-reads", "regular"}),
    ("its own remove had no effect", [add(0, 1, 0, 1), read(1, [1], 2, 3), remove(1, 1, 4, 5), read(1, [1], 6, 7)],
     ALL - STRONG - {*CAUSAL_LEVELS, "PRAM", "read-your-writes", "regular"}),
    ("removed by one who never saw it: the add may come later, and wins", [add(0, 1, 0, 9), remove(1, 1, 0, 1), read(2, [1], 10, 11)], ALL),
    ("the third of a process, the first gone, and without its second", [add(0, 1, 0, 1), add(0, 2, 2, 3), add(0, 3, 4, 9), remove(2, 1, 4, 5), read(1, [3], 6, 7)],
     ALL - STRONG - {*CAUSAL_LEVELS, "PRAM", "monotonic-writes", "regular"}),
    ("two sides of a cut, each sees its own removes", [
        add(0, 1, 0, 1), add(0, 2, 2, 3), read(0, [1, 2], 4, 5), read(1, [1, 2], 4, 5), remove(0, 1, 6, 7), remove(1, 2, 6, 7), read(0, [2], 8, 9),
        read(1, [1], 8, 9)], ALL - STRONG - {"regular"}),
    ("an effect without its cause, of another key", [
        add(0, 1, 0, 9), read(1, [1], 1, 2), add(1, 2, 3, 9, "y"), read(2, [2], 4, 5, "y"), read(2, [], 6, 7), remove(0, 1, 10, 11)],
     ALL - STRONG - {*CAUSAL_LEVELS, "writes-follow-reads"}),
    ("a remove that was over before the add was asked explains nothing", [remove(1, 1, 0, 1), add(2, 1, 2, 2), read(2, [], 3, 5)],
     ALL - STRONG - {*CAUSAL_LEVELS, "PRAM", "read-your-writes", "regular"}),
    ("two sides of a cut, each sees its own adds", [
        add(0, 1, 0, 1), add(1, 2, 0, 1), add(2, 3, 0, 1), remove(2, 3, 2, 3), read(0, [1], 4, 5), read(1, [2], 4, 5)], ALL - STRONG - {"regular"}),
    ("what nobody added", [read(0, [7], 0, 1), remove(0, 1, 2, 3)], set()),
]


@pytest.mark.parametrize(("story", "ops", "expected"), STORIES, ids=[name for name, _, _ in STORIES])
def test_a_story_reaches_these_levels(story: str, ops: list[Operation], expected: set[str]) -> None:
    found = statuses(ops)
    assert {name for name, status in found.items() if status == "valid"} == expected, story
    assert "unknown" not in found.values()


def test_evidence_names_the_element_and_why_it_must_be_gone() -> None:
    found = merged_levels(STORIES[5][1], "set")["read-your-writes"].evidence
    assert found is not None and found.operations == [2, 3]
    assert found.problem == "process 1 read x: 1 elements, 1 among them, whose remove by process 1 it must have seen; read your writes: its own updates"


def test_guesses_that_are_taken_back_too_often_leave_it_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both removes may explain the first answer, and either is refuted later: by what came before it in its process."""
    ops = [add(0, 1, 0, 1), add(1, 8, 0, 1), add(2, 9, 0, 1), read(3, [1], 2, 3), remove(1, 1, 2, 3), remove(2, 1, 2, 3), read(3, [], 4, 5)]
    assert statuses(ops)["causal"] == "invalid"
    assert statuses([*ops[:-1], read(3, [8], 4, 5)])["causal"] == "valid"
    monkeypatch.setattr(observed, "TAKEN_BACK", -1)
    hidden = [add(0, 1, 0, 1, "x"), add(1, 8, 0, 1, "y"), add(2, 9, 0, 1, "y"), read(3, [1], 2, 3, "x"), remove(1, 1, 2, 3, "x"), remove(2, 1, 2, 3, "x"),
              read(3, [], 4, 5, "x"), read(3, [], 6, 7, "y")]
    assert statuses(hidden)["causal"] == "unknown"
    monkeypatch.undo()
    assert statuses(hidden)["causal"] == "invalid"


# ---- by force -------------------------------------------------------------------------------------------------------------------------------------
def small(seed: int, most: int) -> list[Operation]:
    """A random history: each answer is made of what was asked by then; one key or two, three processes."""
    hat = Stream(seed, "removed")
    free, out, keys = [0] * 3, list[Operation](), "xy"[: 1 + hat.below(2)]
    for value in range(1, 1 + hat.between(4, most)):
        process = hat.below(3)
        invoke = free[process] + hat.below(3)
        complete, key, kind = invoke + hat.below(4), keys[hat.below(len(keys))], hat.below(5)
        added = [op for op in out if op.f == "write"]
        if value == 1 or kind < 2:
            out.append(add(process, value, invoke, complete, key))
        elif kind == 2 and added:
            one = added[hat.below(len(added))]
            out.append(remove(process, one.value, invoke, complete, one.key))
        else:
            out.append(read(process, [], invoke, complete, key))
        free[process] = complete + 1
    for op in out:
        if op.f == "read":
            op.result = [u.value for u in out if u.f == "write" and u.key == op.key and u.invoke <= (op.complete or 0) and hat.below(3)]
    return sorted(out, key=lambda op: (op.invoke, op.process))


def in_time(update: Operation, op: Operation) -> bool:
    return update.invoke <= (op.complete or 0)


def answer(ops: list[Operation], visible: set[int], observed_by: dict[int, bool], key: str | None) -> set[Any]:
    """Burckhardt 2014, 4.3.2: what is added and visible, without what a visible remove had seen."""
    gone = {ops[i].value for i in visible if ops[i].f == "remove" and observed_by[i]}
    return {ops[i].value for i in visible if ops[i].f == "write" and ops[i].key == key} - gone


def some(items: list[Any]) -> Iterator[Any]:
    return chain.from_iterable(combinations(items, n) for n in range(len(items) + 1))


def before(a: Operation, b: Operation) -> bool:
    return a.process == b.process and (a.invoke, a.complete or 0) < (b.invoke, b.complete or 0)


def causal_by_force(ops: list[Operation]) -> bool | None:
    """Is there a causal order by which every answer is what its past makes it?  None where there are too many to try."""
    n = range(len(ops))
    pairs = [(i, j) for i, j in product(n, repeat=2) if ops[i].process != ops[j].process and ops[i].key == ops[j].key and ops[i].f != "read"
             and (ops[j].f == "read" or ops[i].f == "write" and ops[j].f == "remove" and ops[i].value == ops[j].value) and in_time(ops[i], ops[j])]
    if len(pairs) > 8:
        return None
    program = {(i, j) for i, j in product(n, repeat=2) if before(ops[i], ops[j])}
    for chosen in some(pairs):
        order = program | set(chosen)
        while more := {(a, d) for a, b in order for c, d in order if b == c} - order:
            order |= more
        if any(a == b for a, b in order):
            continue
        by = {m: any(ops[i].f == "write" and (ops[i].key, ops[i].value) == (ops[m].key, ops[m].value) and (i, m) in order for i in n) for m in n}
        if all(set(op.result) == answer(ops, {i for i in n if (i, j) in order and ops[i].key == op.key}, by, op.key)
               for j, op in enumerate(ops) if op.f == "read"):
            return True
    return False


def sessions_by_force(ops: list[Operation]) -> dict[str, bool]:
    """Every way for each read to have seen some updates of its key, against each guarantee's words."""
    reads = [i for i, op in enumerate(ops) if op.f == "read"]
    updates = [i for i, op in enumerate(ops) if op.f != "read"]
    static = Story(ops)
    surely = {static.updates[m] for m in observed.members(static.observed)}
    free = [i for i in updates if ops[i].f == "remove" and i not in surely
            and any(ops[a].f == "write" and ops[a].value == ops[i].value and in_time(ops[a], ops[i]) for a in updates)]
    own = {i: {u for u in updates if before(ops[u], ops[i])} for i in range(len(ops))}
    found = dict.fromkeys((*SESSION_LEVELS, "PRAM", "regular"), False)
    for extra in some(free):
        by = {i: i in surely or i in extra for i in updates}
        ways = [[set(w) for w in some([u for u in updates if ops[u].key == ops[r].key and in_time(ops[u], ops[r])])
                 if answer(ops, set(w), by, ops[r].key) == set(ops[r].result)] for r in reads]
        for way in product(*ways):
            found = {name: truth or kept(name, ops, dict(zip(reads, way)), own) for name, truth in found.items()}
    late = {i: ops[i].f == "remove" and any(ops[a].f == "write" and ops[a].value == ops[i].value and (ops[a].complete or 0) < ops[i].invoke for a in updates)
            for i in updates}
    found["regular"] = any(
        all(answer(ops, w, by, ops[r].key) == set(ops[r].result) and {u for u in updates if ops[u].key == ops[r].key and
            (ops[u].complete or 0) < ops[r].invoke} <= w for r, w in zip(reads, way))
        for extra in some(free) for by in [{i: i in surely or i in extra or late[i] for i in updates}]
        for way in product(*[[set(w) for w in some([u for u in updates if ops[u].key == ops[r].key and in_time(ops[u], ops[r])])] for r in reads])
    ) if len(reads) * len(updates) <= 8 else statuses(ops)["regular"] == "valid"
    return found


def kept(name: str, ops: list[Operation], seen: dict[int, set[int]], own: dict[int, set[int]]) -> bool:
    """Whether what each read saw has all that the guarantee makes visible to it."""
    for r, saw in seen.items():
        former = [q for q in seen if q == r or before(ops[q], ops[r])]
        shown = set().union(*(seen[q] for q in former))
        followed = {w for u in shown for q in seen if before(ops[q], ops[u]) for w in seen[q]}
        must = {"read-your-writes": own[r], "monotonic-reads": shown, "monotonic-writes": {w for u in shown for w in own[u]}, "writes-follow-reads": followed,
                "PRAM": own[r] | shown | {w for u in shown for w in own[u]}}.get(name, set())
        if any(ops[u].key == ops[r].key and u not in saw for u in must) or name == "PRAM" and any(before(ops[r], ops[u]) for u in saw):
            return False
    return True


def one_order_by_force(ops: list[Operation], comes_before: Any) -> bool:
    def legal(order: Any) -> bool:
        held: set[Any] = set()
        for op in order:
            if op.f == "read" and set(op.result) != {value for key, value in held if key == op.key}:
                return False
            held = held | {(op.key, op.value)} if op.f == "write" else held - {(op.key, op.value)} if op.f == "remove" else held
        return True

    return any(legal(order) for order in permutations(ops) if not any(comes_before(later, one) for i, one in enumerate(order) for later in order[i + 1:]))


def in_program_order(a: Operation, b: Operation) -> bool:
    """Or a read, or a remove of that element, is over before what it would see is asked."""
    return before(a, b) or b.f != "read" and not in_time(b, a) and (a.f == "read" or a.f == "remove" and a.value == b.value)


def in_real_time(a: Operation, b: Operation) -> bool:
    return before(a, b) or (a.complete or 0) < b.invoke


def truths_of(ops: list[Operation]) -> dict[str, bool]:
    found = sessions_by_force(ops)
    found["linearizable"], causal = one_order_by_force(ops, in_real_time), causal_by_force(ops)
    return found if causal is None else {**found, "causal": causal}


def test_every_level_agrees_with_its_definition_on_small_histories() -> None:
    counts = {name: [0, 0] for name in ("linearizable", "causal", "PRAM", "regular", *SESSION_LEVELS)}
    orders = {"valid": 0, "invalid": 0, "unknown": 0}
    for seed in range(300):
        ops = small(seed, 6)
        if any(op.f == "remove" for op in ops):
            found = statuses(ops)
            for name, truth in truths_of(ops).items():
                assert found[name] == ("valid" if truth else "invalid"), (name, ops)
                counts[name][truth] += 1
            orders[found["sequential"]] += 1
            assert found["sequential"] != "valid" or one_order_by_force(ops, before), ops
            assert found["sequential"] != "invalid" or not one_order_by_force(ops, in_program_order), ops
    assert all(min(both) > 1 for name, both in counts.items() if name[:6] != "writes") and orders["invalid"] > 15 and orders["unknown"] < 10, (counts, orders)
