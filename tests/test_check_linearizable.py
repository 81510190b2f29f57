"""Linearizability: every algorithm against the definition itself, tried out in full on small histories; and the mutants that must die.

The brute force below shares nothing with capray.checkers: it has its own idea of what each object does, and tries every order.
CAPRAY_FULL=1 runs 20,000 random histories for each model (about three minutes) instead of a few hundred.
"""

from __future__ import annotations

import os
import resource
import time
from typing import Any

import pytest

from capray.checkers import generate
from capray.checkers import search as search_module
from capray.checkers.generate import random_history, register_history
from capray.checkers.linearizable import linearizable
from capray.checkers.models import MODELS, Call
from capray.checkers.search import Search
from capray.checkers.zones import clusters, linearizable_register, verdict_of
from capray.record import Operation

HISTORIES = 20_000 if os.environ.get("CAPRAY_FULL") == "1" else 400


def op(f: str, value: Any, start: int, end: int | None, result: Any = None, process: int = -1, kind: str = "", key: str | None = None) -> Operation:
    """One operation; each gets a process of its own unless told, and is `info` where it has no end."""
    return Operation(
        process=process, f=f, key=key, value=value, result=result, invoke=start, complete=end,
        type=kind or ("info" if end is None else "ok"),  # type: ignore[arg-type]
    )


def write(value: Any, start: int, end: int | None, **more: Any) -> Operation:
    return op("write", value, start, end, **more)


def read(result: Any, start: int, end: int, **more: Any) -> Operation:
    return op("read", None, start, end, result, **more)


def cas(old: Any, new: Any, start: int, end: int | None, result: Any = True) -> Operation:
    return op("cas", [old, new], start, end, None if end is None else result)


# ---- the definition, by trying everything -------------------------------------------------------------------------------------------------


def outcomes(model: str, state: Any, o: Operation) -> list[Any]:
    """The states that `o` may lead to from `state`, given its answer if that is known; plain Python values."""
    known = o.type == "ok"
    if o.f in ("read", "get"):
        told = sorted(o.result) if model == "set" and known else o.result
        return [state] if not known or (state == told and type(state) is type(told)) else []
    if o.f == "cas":
        hits = state == o.value[0]
        return [o.value[1] if hits else state] if not known or hits is o.result else []
    if o.f == "contains":
        return [state] if not known or (o.value in state) is o.result else []
    if o.f == "dequeue":
        return [state[1:]] if not known or (state[0] if state else None) == o.result else []
    if o.f == "append":
        return [state + ([o.value] if model == "list-append" else o.value)]
    if o.f == "add" and model == "set":
        return [sorted({*state, o.value})]
    if o.f == "remove":
        return [[x for x in state if x != o.value]]
    if o.f in ("add", "increment", "decrement"):
        return [state + (-o.value if o.f == "decrement" else o.value)]
    return [state + [o.value]] if o.f == "enqueue" else [o.value]


def by_definition(model: str, ops: list[Operation], initial: Any) -> bool:
    """Does some order of all completed and some pending operations, keeping real time, explain every answer?  Key by key."""
    for key in {o.key for o in ops}:
        if not _some_order(model, [o for o in ops if o.key == key and o.type != "fail"], initial, set()):
            return False
    return True


def _some_order(model: str, left: list[Operation], state: Any, hopeless: set[Any]) -> bool:
    if all(o.type == "info" for o in left):
        return True
    here = (tuple(map(id, left)), repr(state))
    if here in hopeless:
        return False
    hopeless.add(here)
    for o in left:
        if any(other.complete is not None and other.complete < o.invoke for other in left):
            continue
        rest = [other for other in left if other is not o]
        if any(_some_order(model, rest, after, hopeless) for after in outcomes(model, state, o)):
            return True
    return False


START: dict[str, Any] = {"register": None, "cas-register": None, "kv": "", "kv-append": "", "counter": 0, "set": [], "list-append": [], "queue": []}


@pytest.mark.parametrize("model", MODELS)
def test_the_search_agrees_with_the_definition_on_random_histories(model: str) -> None:
    answers = {"valid": 0, "invalid": 0}
    for seed in range(HISTORIES):
        ops = random_history(MODELS[model], seed, most_ops=6 + seed % 4, processes=3 + seed % 3, keys=1 + seed % 2)
        truth = "valid" if by_definition(model, ops, START[model]) else "invalid"
        assert linearizable(ops, MODELS[model], MODELS[model].initial).status == truth, (seed, ops)
        answers[truth] += 1
    assert min(answers.values()) > HISTORIES // 20, "the histories must ask both questions"


@pytest.mark.parametrize("model", ["register", "cas-register", "kv", "queue"])
def test_many_crashed_operations_are_placed_as_the_definition_allows(model: str) -> None:
    """The reductions that are about `info` operations need several of them that matter at once."""
    answers = {"valid": 0, "invalid": 0}
    for seed in range(HISTORIES // 2):
        ops = random_history(MODELS[model], seed, most_ops=11, processes=5, pending=4 + seed % 2, values=2 + seed % 3)
        truth = "valid" if by_definition(model, ops, START[model]) else "invalid"
        assert linearizable(ops, MODELS[model], MODELS[model].initial).status == truth, (seed, ops)
        answers[truth] += 1
    assert min(answers.values()) > HISTORIES // 100


def test_a_given_initial_value_is_where_each_key_begins() -> None:
    for seed in range(HISTORIES // 2):
        ops = random_history(MODELS["cas-register"], seed)
        truth = "valid" if by_definition("cas-register", ops, 1) else "invalid"
        assert linearizable(ops, MODELS["cas-register"], 1).status == truth, (seed, ops)


def test_zones_search_and_definition_agree_on_distinct_values() -> None:
    tried = {"valid": 0, "invalid": 0}
    for seed in range(2 * HISTORIES):
        ops = random_history(MODELS["register"], seed, values=40, most_ops=8)
        for read_ in [o for o in ops if o.f == "read" and o.type == "ok" and seed % 3]:
            written = [None, *(o.value for o in ops if o.f == "write")]
            read_.result = written[(seed + read_.invoke) % len(written)]
        found = clusters(ops, None)
        if found is None:
            continue
        truth = "valid" if by_definition("register", ops, None) else "invalid"
        assert verdict_of(ops, found).status == truth, (seed, ops)
        search = Search([o for o in ops], MODELS["register"], None)
        assert search.run(1 << 30) == truth, (seed, ops)
        tried[truth] += 1
    assert min(tried.values()) > HISTORIES // 10


# ---- what each model means ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
def test_what_a_model_promises_a_search_follows_from_its_step(model: str) -> None:
    """pure, shape and lost are shortcuts; each must say what trying says."""
    m = MODELS[model]
    calls, states = set(), {m.start(m.initial)}
    for seed in range(60):
        for o in random_history(m, seed):
            calls.add(m.prepare(Call(o.f, o.value, o.result if o.type == "ok" else None, o.type == "ok")))
    for _ in range(2):
        states |= {after for state in list(states)[:40] for call in calls if (after := m.step(state, call)) is not search_module.ILLEGAL}
    some = list(states)[:200]
    for call in calls:
        after = {state: m.step(state, call) for state in some}
        legal = {state: to for state, to in after.items() if to is not search_module.ILLEGAL}
        if m.pure(call):
            assert all(state == to for state, to in legal.items()), call
        shape = m.shape(call)
        if shape is not None:
            assert shape.needs is search_module.ANY or set(legal) <= {shape.needs}, call
            assert shape.needs is not search_module.ANY or len(legal) == len(some), call
            assert all(to == (state if shape.gives is search_module.SAME else shape.gives) for state, to in legal.items()), call
        if m.pure(call) and call.known:
            _lost_stays_lost(m, call, calls, some)


def _lost_stays_lost(m: Any, call: Call, calls: set[Call], states: list[Any]) -> None:
    for state in states:
        if m.lost(state, call):
            assert m.step(state, call) is search_module.ILLEGAL, (state, call)
            for other in calls:
                after = m.step(state, other)
                assert after is search_module.ILLEGAL or (m.reset(other) and m.revives(other, call)) or m.lost(after, call), (state, call, other)


@pytest.mark.parametrize(
    ("model", "ops", "status"),
    [
        ("register", [write(1, 0, 1), read(1, 2, 3)], "valid"),
        ("register", [write(1, 0, 1), read(None, 2, 3)], "invalid"),
        ("cas-register", [write(1, 0, 1), cas(1, 2, 2, 3), read(2, 4, 5)], "valid"),
        ("cas-register", [write(1, 0, 1), cas(1, 2, 2, 3, False)], "invalid"),
        ("cas-register", [write(1, 0, 1), cas(3, 2, 2, 3, False), read(1, 4, 5)], "valid"),
        ("kv", [op("get", None, 0, 1, ""), op("append", "x", 2, 3), op("append", "y", 4, 5), op("get", None, 6, 7, "xy")], "valid"),
        ("kv-append", [op("put", "x", 2, 3), op("append", "y", 4, 5), op("get", None, 6, 7, "yx")], "invalid"),
        ("counter", [op("add", 2, 0, 1), op("decrement", 1, 2, 3), op("increment", None, 4, 5), read(2, 6, 7)], "valid"),
        ("counter", [op("add", 2, 0, 1), read(3, 2, 3)], "invalid"),
        ("set", [op("add", 2, 0, 1), op("add", 1, 0, 1), read([2, 1], 2, 3), op("remove", 2, 4, 5), op("contains", 2, 6, 7, False)], "valid"),
        ("set", [op("add", 2, 0, 1), read([], 2, 3)], "invalid"),
        ("list-append", [op("append", 2, 0, 5), op("append", 1, 0, 5), read([1, 2], 6, 7)], "valid"),
        ("list-append", [op("append", 2, 0, 1), op("append", 1, 2, 3), read([1, 2], 6, 7)], "invalid"),
        ("queue", [op("enqueue", 1, 0, 1), op("enqueue", 2, 2, 3), op("dequeue", None, 4, 5, 1), op("dequeue", None, 6, 7, 2)], "valid"),
        ("queue", [op("enqueue", 1, 0, 1), op("enqueue", 2, 2, 3), op("dequeue", None, 4, 5, 2)], "invalid"),
        ("queue", [op("dequeue", None, 4, 5, None), op("enqueue", 1, 0, 6)], "valid"),
    ],
)
def test_what_each_object_does(model: str, ops: list[Operation], status: str) -> None:
    assert linearizable(ops, MODELS[model], MODELS[model].initial).status == status


def test_one_and_true_and_one_point_zero_are_three_values() -> None:
    assert linearizable_register([write(1, 0, 1), read(True, 2, 3)]).status == "invalid"
    assert linearizable_register([write(1, 0, 1), write(True, 2, 3), read(True, 4, 5), write(1.0, 6, 7), read(1.0, 8, 9)]).status == "valid"
    assert linearizable_register([write({"a": [1]}, 0, 1), read({"a": [1]}, 2, 3)]).status == "valid"


# ---- each of these stories kills a mutant -------------------------------------------------------------------------------------------------


def both(ops: list[Operation], initial: Any = None) -> str:
    """The verdict of zones and of the search, which must be one."""
    found = clusters(ops, initial)
    assert found is not None
    searched = Search(sorted(ops, key=lambda o: o.invoke), MODELS["register"], initial).run(10**6)
    assert verdict_of(ops, found).status == searched
    return searched


def test_an_info_write_may_take_effect_long_after_its_client_gave_up() -> None:
    """Killed: `info` taken as `fail`."""
    assert both([write(1, 0, None), write(2, 5, 6), read(2, 7, 8), read(1, 9, 10)]) == "valid"


def test_an_info_write_may_never_happen_but_not_come_and_go() -> None:
    assert both([write(1, 0, None), read(None, 5, 6)]) == "valid"
    assert both([write(1, 0, None), read(1, 5, 6), read(None, 7, 8)]) == "invalid"


def test_an_info_write_does_not_happen_before_it_was_asked_for() -> None:
    assert both([read(1, 0, 4), write(1, 5, None)]) == "invalid"


def test_a_failed_write_did_not_happen() -> None:
    assert both([write(1, 0, 1, kind="fail"), read(1, 2, 3)]) == "invalid"


def test_real_time_counts() -> None:
    """Killed: real time ignored (this history is sequentially consistent)."""
    assert both([write(1, 0, 1, process=0), read(None, 2, 3, process=1)]) == "invalid"


def test_a_completion_and_an_invocation_at_one_instant_are_concurrent() -> None:
    """Killed: half-open intervals."""
    assert both([write(1, 0, 5), read(None, 5, 6)]) == "valid"
    assert both([write(1, 0, 5), read(None, 6, 7)]) == "invalid"


def test_a_write_of_the_value_that_is_there_may_be_needed_later() -> None:
    """Killed: reduction (a) applied to a write that leaves the present state as it is: the pending second write of 1 brings 1 back."""
    ops = [write(1, 0, 1), write(1, 2, 20), write(2, 4, 5), read(2, 6, 7), read(1, 8, 9)]
    assert linearizable(ops, MODELS["register"]).status == "valid"
    for model in ("register", "cas-register"):
        m = MODELS[model]
        assert not any(m.pure(m.prepare(Call("write", v, None, True))) for v in (None, 1))
    assert linearizable([write(1, 0, 1), write(1, 2, None), write(2, 4, 5), read(2, 6, 7), read(1, 8, 9)], MODELS["register"]).status == "valid"


def which_info_was_spent_matters() -> list[Operation]:
    """Two crashed calls can bring 2 about; only the crashed write can do so again, after 0 was written, so the compare-and-set must come first."""
    return [write(2, 0, None), cas(1, 2, 1, None), write(1, 2, 3), read(1, 4, 5), read(2, 6, 7), write(0, 8, 9), read(0, 10, 11), read(2, 12, 13)]


def test_the_same_place_and_state_with_another_info_call_spent_is_another_configuration() -> None:
    """Killed: memoising without the `info` calls that were placed."""
    assert linearizable(which_info_was_spent_matters(), MODELS["cas-register"]).status == "valid"


def test_keys_are_apart() -> None:
    """Killed: keys mixed."""
    assert linearizable_register([write(1, 0, 1, key="a"), read(None, 2, 3, key="b"), write(1, 4, 5, key="b"), read(1, 6, 7, key="b")]).status == "valid"
    assert linearizable_register([write(1, 0, 1, key="a"), read(1, 2, 3, key="b")]).status == "invalid"


def test_the_initial_value_is_there_first_and_not_again() -> None:
    """Killed: the initial value forgotten."""
    assert both([read(7, 0, 1), write(1, 2, 3)], initial=7) == "valid"
    assert both([read(None, 0, 1)], initial=7) == "invalid"
    assert both([write(1, 0, 1), read(7, 2, 3)], initial=7) == "invalid"
    assert linearizable_register([write(1, 0, 1), write(7, 2, 3), read(7, 4, 5)], initial=7).status == "valid"


def test_mutants_of_the_search_are_caught_by_the_random_histories(monkeypatch: pytest.MonkeyPatch) -> None:
    """The agreement test can fail: with reduction (a) made unsound in the model's own words it does."""
    m = MODELS["cas-register"]._replace(pure=lambda call: call.f in ("read", "write"))
    wrong = 0
    for seed in range(400):
        ops = random_history(m, seed)
        wrong += (linearizable(ops, m).status == "valid") != by_definition("cas-register", ops, None)
    assert wrong > 0


# ---- budget, memory, size -----------------------------------------------------------------------------------------------------------------


def hostile(count: int = 500) -> list[Operation]:
    """Everything at once, half of it never completed, five values: nothing decides it early."""
    stream = generate.Stream(3, "hostile")
    ops = []
    for i in range(count):
        pair = [stream.below(5), stream.below(5)]
        pending = i % 2 == 1
        f = ("read", "write", "cas", "cas")[stream.below(4)]
        ops.append(
            Operation(
                process=i, f=f, key=None, value=None if f == "read" else (pair if f == "cas" else pair[0]),
                result=None if pending else {"read": pair[0], "cas": stream.below(3) > 0}.get(f), invoke=i, complete=None if pending else 10_000 + i,
                type="info" if pending else "ok",
            )
        )
    # Two reads after all else that no order can have: whatever else happens, there is no answer to be found by luck.
    return [*ops, read(77, 30_000, 30_001, process=9000)]


def test_a_hostile_history_returns_within_its_budget_and_memory() -> None:
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    verdict = linearizable(hostile(), MODELS["cas-register"], budget=20_000)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - held
    assert verdict.status == "unknown" and 20_000 <= verdict.states < 22_000 and "undecided after 20" in verdict.note
    assert grown < 300_000, "kilobytes"


def test_a_key_that_is_quickly_refuted_ends_the_search_of_all() -> None:
    ops = [Operation(**{**{f: getattr(o, f) for f in o.__struct_fields__}, "key": "hard"}) for o in hostile()]
    ops += [write(1, 0, 1, key="easy"), write(1, 2, 3, key="easy"), read(2, 4, 5, key="easy")]
    verdict = linearizable(ops, MODELS["cas-register"], budget=100_000)
    assert verdict.status == "invalid" and verdict.note == "key easy" and verdict.states < 5_000


def test_the_same_budget_gives_the_same_verdict_and_states() -> None:
    answers = {(v.status, v.states) for v in (linearizable(hostile(60), MODELS["cas-register"], budget=500) for _ in range(2))}
    assert len(answers) == 1


def test_a_search_does_not_recurse_nor_square_with_many_values() -> None:
    """5,000 operations on one key, each value written twice, so that zones do not apply."""
    ops = register_history(5_000)
    for o in ops:
        if o.f == "write":
            o.value //= 2
        elif o.result is not None:
            o.result //= 2
    assert linearizable(ops, MODELS["register"]).status == "valid"


def test_a_hundred_thousand_distinct_operations_take_well_under_a_second() -> None:
    ops = register_history(100_000)
    began = time.process_time()
    assert linearizable_register(ops).status == "valid"
    assert time.process_time() - began < 0.8, "0.1 s on the slow machine this was written on"
