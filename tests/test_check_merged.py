"""Counters and sets whose updates commute: every level against its definition by force on small histories, and stories with a name."""

from __future__ import annotations

from itertools import chain, combinations, permutations, product
from typing import Any

import pytest

from capray.checkers.merged import CAUSAL_LEVELS, MERGED_LEVELS, SESSION_LEVELS, merged_levels
from capray.checkers.totals import is_update
from capray.record import Operation
from capray.streams import Stream


def add(process: int, value: int, invoke: int, complete: int | None, key: str = "x") -> Operation:
    return Operation(process=process, f="write", key=key, value=value, result=None, invoke=invoke, complete=complete, type="info" if complete is None else "ok")


def read(process: int, result: Any, invoke: int, complete: int, key: str = "x") -> Operation:
    return Operation(process=process, f="read", key=key, value=None, result=result, invoke=invoke, complete=complete, type="ok")


def statuses(ops: list[Operation], kind: str = "set", witness: Any = None) -> dict[str, str]:
    return {name: verdict.status for name, verdict in merged_levels(ops, kind, witness).items()}


def holds(ops: list[Operation]) -> set[str]:
    return {name for name, status in statuses(ops).items() if status == "valid"}


# ---- stories --------------------------------------------------------------------------------------------------------------------------------------
ALL = set(MERGED_LEVELS)
STORIES = [
    ("seen as it is acknowledged", [add(0, 1, 0, 1), read(1, [1], 2, 3)], ALL),
    ("gossip lags: what was acknowledged is not seen yet", [add(0, 1, 0, 1), read(1, [], 2, 3)], ALL - {"linearizable", "regular"}),
    ("two sides of a cut, each sees its own: no one order", [add(0, 1, 0, 1), add(1, 2, 0, 1), read(0, [1], 2, 3), read(1, [2], 2, 3)],
     ALL - {"linearizable", "sequential", "regular"}),
    ("an answer without its own add", [add(0, 1, 0, 1), read(0, None, 2, 3)],
     ALL - {"linearizable", "sequential", *CAUSAL_LEVELS, "PRAM", "read-your-writes", "regular"}),
    ("backwards, by another server", [add(0, 1, 0, 9), read(1, [1], 1, 2), read(1, [], 3, 4)],
     ALL - {"linearizable", "sequential", *CAUSAL_LEVELS, "PRAM", "monotonic-reads"}),
    ("an effect without its cause, of another key", [add(0, 1, 0, 9), read(1, [1], 1, 2), add(1, 2, 3, 9, "y"), read(2, [2], 4, 5, "y"), read(2, [], 6, 7)],
     ALL - {"linearizable", "sequential", *CAUSAL_LEVELS, "writes-follow-reads"}),
    ("the second of a process without its first", [add(0, 1, 0, 1), add(0, 2, 2, 9), read(1, [2], 3, 4)],
     ALL - {"linearizable", "sequential", *CAUSAL_LEVELS, "PRAM", "monotonic-writes", "regular"}),
    ("an add of unknown outcome that took effect late", [add(0, 1, 0, None), read(1, [], 5, 6), read(1, [1], 7, 8)], ALL),
    ("an add of unknown outcome that was seen and is gone", [add(0, 1, 0, None), read(1, [1], 5, 6), read(1, [], 7, 8)],
     ALL - {"linearizable", "sequential", *CAUSAL_LEVELS, "PRAM", "monotonic-reads"}),
    ("what nobody added", [read(0, [7], 0, 1)], set()),
]


@pytest.mark.parametrize(("story", "ops", "expected"), STORIES, ids=[name for name, _, _ in STORIES])
def test_a_story_reaches_these_levels(story: str, ops: list[Operation], expected: set[str]) -> None:
    assert holds(ops) == expected, story
    total = [op if op.f != "read" else read(op.process, sum(op.result or ()), op.invoke, op.complete or 0, op.key or "") for op in ops]
    by_value = {(op.key, op.value): i for i, op in enumerate(ops) if is_update(op)}
    if expected:  # the same as a counter, where a witness tells what each total is made of
        seen = {i: [by_value[op.key, value] for value in op.result or ()] for i, op in enumerate(ops) if op.f == "read"}
        assert {name for name, status in statuses(total, "counter", seen).items() if status == "valid"} == expected
        assert not {name for name, status in statuses(total, "counter").items() if status == "invalid"} & expected


def test_evidence_says_which_update_is_missing_and_where() -> None:
    found = merged_levels([add(0, 1, 0, 1), read(1, [], 2, 3)], "set")["regular"].evidence
    assert found is not None
    assert found.problem == "process 1 read x: 0 elements, without 1 updates, the first: process 0 added 1 to x, acknowledged before it asked"
    assert (found.start_us, found.end_us, found.operations) == (0, 3, [0, 1])


def test_what_does_not_tell_what_was_seen_is_unknown() -> None:
    twice = [add(0, 1, 0, 1), add(1, 1, 2, 3)]  # the same element
    assert set(statuses([*twice, read(0, [1], 4, 5)]).values()) == {"valid"}  # linearizable, by search
    found = statuses([*twice, read(0, [], 4, 5)])
    assert found.pop("linearizable") == "invalid" and set(found.values()) == {"unknown"}
    lying = statuses([add(0, 1, 0, 1), add(0, 2, 2, 3), read(1, 3, 4, 5)], "counter", {2: [0]})
    assert lying["regular"] == "unknown" and lying["causal-consistency"] == "unknown"
    assert lying["linearizable"] == "valid"  # found by search


# ---- by force -------------------------------------------------------------------------------------------------------------------------------------
def small(seed: int, most: int, processes: int = 3) -> list[Operation]:
    """A random history of sets: 1 or 2 keys, reads of any part of what was asked by then."""
    hat = Stream(seed, "merged")
    free, out, keys = [0] * processes, [], "xy"[: 1 + hat.below(2)]
    for value in range(1, 1 + hat.between(3, most)):
        process = hat.below(processes)
        invoke = free[process] + hat.below(3)
        complete = invoke + hat.below(4)
        key = keys[hat.below(len(keys))]
        if hat.below(2) or value == 1:
            unknown = hat.below(6) == 0
            out.append(add(process, value, invoke, None if unknown else complete, key))
            free[process] = 100 if unknown else complete + 1
        else:
            out.append(read(process, [], invoke, complete, key))
            free[process] = complete + 1
    for op in out:
        if op.f == "read":
            op.result = [u.value for u in out if u.f != "read" and u.key == op.key and u.invoke <= (op.complete or 0) and hat.below(3)]
    return sorted((op for op in out if op.invoke < 100), key=lambda op: (op.invoke, op.process))


def answers(op: Operation, added: set[Any]) -> bool:
    return op.f != "read" or set(op.result) == {value for key, value in added if key == op.key}


def legal(order: Any, told: set[int]) -> bool:
    """Does the order explain the answers of the reads in `told` (by identity)?"""
    added: set[Any] = set()
    for op in order:
        if op.f != "read":
            added.add((op.key, op.value))
        elif id(op) in told and not answers(op, added):
            return False
    return True


def before(a: Operation, b: Operation) -> bool:
    """In program order; an operation ends before the next of its process begins."""
    return a.process == b.process and a is not b and a.type == "ok" and (a.invoke, a.complete or 0) < (b.invoke, b.complete or 1 << 60)


def orders(ops: list[Operation], comes_before: Any) -> Any:
    for order in permutations(ops):
        if not any(comes_before(later, sooner) for i, sooner in enumerate(order) for later in order[i + 1:]):
            yield order


def real_time(a: Operation, b: Operation) -> bool:
    return before(a, b) or a is not b and a.complete is not None and a.complete < b.invoke


def some_order(ops: list[Operation], comes_before: Any, told: set[int]) -> bool:
    return any(legal(order, told) for order in orders(ops, comes_before))


def causal_orders(ops: list[Operation], pairs: list[tuple[int, int]]) -> Any:
    """Every causal order (as a set of pairs) that is made of program order and some of `pairs`."""
    program = {(i, j) for i, j in product(range(len(ops)), repeat=2) if before(ops[i], ops[j])}
    for some in chain.from_iterable(combinations(pairs, n) for n in range(len(pairs) + 1)):
        order = program | set(some)
        while more := {(a, d) for a, b in order for c, d in order if b == c} - order:
            order |= more
        if not any(a == b for a, b in order):
            yield order


def causal_by_force(ops: list[Operation], pairs: list[tuple[int, int]]) -> tuple[bool, bool]:
    """(CC, CM), Bouajjani et al. 2017, table 1: each operation's causal past can be put in an order that keeps the causal one and explains its answer; with
    CM those of its process before it, too."""
    cc = cm = False
    for order in causal_orders(ops, pairs):
        def comes_before(a: Operation, b: Operation, order: Any = order) -> bool:
            return (ops.index(a), ops.index(b)) in order

        def explained(memory: bool, order: Any = order, comes_before: Any = comes_before) -> bool:
            for j, op in enumerate(ops):
                past = [ops[i] for i in range(len(ops)) if (i, j) in order] + [op]
                told = {id(one) for one in past if one is op or memory and before(one, op)}
                if not some_order(past, comes_before, told):
                    return False
            return True

        cc = cc or explained(False)
        cm = cm or explained(True)
        if cm:
            break
    return cc, cm


def happened(ops: list[Operation]) -> list[Operation]:
    """Without the updates of unknown outcome that nobody read."""
    seen = {(op.key, value) for op in ops if op.f == "read" for value in op.result}
    return [op for op in ops if op.type == "ok" or (op.key, op.value) in seen]


def by_force(ops: list[Operation]) -> dict[str, bool]:
    every = {id(op) for op in ops}
    found = {"linearizable": some_order(ops, real_time, every), "sequential": some_order(ops, before, every)}
    found["PRAM"] = all(
        some_order([op for op in ops if op.process == process or op.f != "read"], before, every) for process in {op.process for op in ops}
    )
    found["regular"] = all(
        u.value in op.result or u.complete is None or u.complete >= op.invoke
        for op in ops if op.f == "read" for u in ops if u.f != "read" and u.key == op.key
    )
    return found


def test_every_level_agrees_with_its_definition_on_small_histories() -> None:
    counts = {name: [0, 0] for name in ("linearizable", "sequential", "PRAM", "regular")}
    for seed in range(250):
        ops = happened(small(seed, 5))
        found = statuses(ops)
        for name, truth in by_force(ops).items():
            assert (found[name] == "valid") == truth, (name, ops)
            counts[name][truth] += 1
        sessions = all(found[name] == "valid" for name in SESSION_LEVELS[:3])
        assert sessions or found["PRAM"] == "invalid"
        assert found["causal-consistency"] == "invalid" or all(found[name] == "valid" for name in (*SESSION_LEVELS, "PRAM"))
    assert all(min(both) > 20 for both in counts.values()), counts


@pytest.mark.parametrize(("most", "histories"), [(4, 40), (5, 120)])
def test_causal_levels_agree_with_a_search_of_all_causal_orders(most: int, histories: int) -> None:
    """With four operations over any pairs, with five over pairs of an update and a read."""
    counts = [0, 0]
    for seed in range(histories):
        ops = happened(small(1000 + seed, most))
        pairs = [(i, j) for i, j in product(range(len(ops)), repeat=2)
                 if i != j and ops[i].process != ops[j].process and (most == 4 or ops[i].f != "read" and ops[j].f == "read")]
        if len(pairs) > 10:
            continue
        cc, cm = causal_by_force(ops, pairs)
        found = statuses(ops)
        assert (found["causal-consistency"] == "valid", found["causal"] == "valid") == (cc, cm), ops
        counts[cc] += 1
    assert min(counts) > 5, counts


def test_a_counter_is_refuted_only_where_no_reading_of_its_totals_is_possible() -> None:
    """Every way of reading the totals is tried: what none of them allows may be called invalid, and by sums of what must have been seen, is."""
    refuted = dict.fromkeys(MERGED_LEVELS, 0)
    for seed in range(300):
        ops = small(2000 + seed, 5)
        for op in ops:
            if op.f == "read":
                op.result = sum(op.result)
        reads = [i for i, op in enumerate(ops) if op.f == "read"]
        updates = [[j for j, u in enumerate(ops) if is_update(u) and u.key == ops[i].key and u.invoke <= (ops[i].complete or 0)] for i in reads]
        ways = [[some for n in range(len(own) + 1) for some in combinations(own, n) if sum(ops[j].value for j in some) == ops[i].result]
                for i, own in zip(reads, updates)]
        possible = set()
        for way in product(*ways):
            sets = [op if op.f != "read" else read(op.process, [ops[j].value for j in way[reads.index(i)]], op.invoke, op.complete or 0, op.key or "")
                    for i, op in enumerate(ops)]
            possible |= holds(sets)
            witnessed = statuses(ops, "counter", dict(zip(reads, way)))
            assert all(witnessed[name] == "valid" for name in holds(sets)), ops
        for name, status in statuses(ops, "counter").items():
            assert status != "invalid" or name not in possible, (name, ops)
            assert name not in ("regular", "read-your-writes", "linearizable") or name in possible or status == "invalid", (name, ops)
            refuted[name] += status == "invalid"
    assert min(refuted[name] for name in ("linearizable", "sequential", "regular", "read-your-writes", "monotonic-reads")) > 10, refuted


def test_in_one_order_what_a_process_adds_after_it_read_a_total_is_not_in_that_total() -> None:
    """3 would need the 2 that its own reader adds only afterwards; so does another process's 3."""
    for reader in (0, 2):
        ops = [add(1, 1, 0, 9), read(0, 3, 0, 1), add(0, 2, 2, 3), *([read(2, 3, 4, 5)] if reader == 2 else [])]
        assert statuses(ops, "counter")["sequential"] == "invalid"
    assert statuses([add(1, 1, 0, 9), read(0, 1, 0, 1), add(0, 2, 2, 3), read(2, 3, 4, 5)], "counter", {1: [0], 3: [0, 2]})["sequential"] == "valid"


def test_a_counter_that_goes_down_is_judged_by_sums_of_both_signs() -> None:
    ops = [add(0, 5, 0, 1), add(1, -3, 0, 9), read(2, 2, 3, 4), read(2, 5, 5, 6)]
    assert statuses(ops, "counter")["regular"] == "valid" or statuses(ops, "counter")["regular"] == "unknown"
    assert statuses([*ops, read(3, 1, 7, 8)], "counter")["regular"] == "invalid"  # neither 5 nor 2
    assert statuses(ops, "counter")["monotonic-reads"] == "unknown"  # 2 then 5: perhaps it saw the subtraction and lost it
