"""What one object does when operations happen one at a time: sequential models, records of pure functions.

Decides: legality and next state.  May not know: time, concurrency, processes, how a search uses them.
Sources: the form after Porcupine's model.go; functions' names after Jepsen's workloads (register, cas-register, counter, set, queue,
list-append on one object) and Porcupine's key-value test model (get / put / append, "" where nothing was put).

A model of one's own needs `name`, `functions`, `initial` and `step` only.  The other fields tell a search what it may take for granted; each
must follow from `step` (the tests hold every built-in one to that, by trying).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple

import msgspec

from capray.checkers.values import canonical
from capray.errors import wrong

State = Any  # hashable


class _Word:
    """A value that no history can contain."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


ILLEGAL: Any = _Word("ILLEGAL")  # the operation cannot happen in that state with that result
ANY: Any = _Word("ANY")  # Shape.needs: legal in every state
SAME: Any = _Word("SAME")  # Shape.gives: leaves every state in which it is legal as it is


class Call(msgspec.Struct, frozen=True, gc=False):
    """What a model sees of an operation: hashable where its values are.  `known` is false for an `info` operation: its result is unknown (and
    `result` None)."""

    f: str
    value: Any
    result: Any
    known: bool


class Shape(msgspec.Struct, frozen=True, gc=False):
    """A call that is legal in exactly one state (`needs`) or ANY, and leads to exactly one (`gives`) or the SAME."""

    needs: Any
    gives: Any


def as_it_is(call: Call) -> Call:
    return call


def _never(call: Call) -> bool:
    return False


def _no_shape(call: Call) -> Shape | None:
    return None


def _as_given(initial: Any) -> State:
    return initial


def _always(reset: Call, call: Call) -> bool:
    return True


def never_lost(state: State, call: Call) -> bool:
    return False


class Model(NamedTuple):
    """One object's sequential behaviour.

    `start(initial)` is the first state (by default the initial value itself); `step(state, call)` the next one or ILLEGAL; states are
    hashable.  For an unknown call `step` gives the state if it takes effect (ILLEGAL where taking effect would change nothing:
    then it may as well never happen).
    `prepare` drops from a call what `step` does not look at, so that equal calls are seen to be equal, and makes its values canonical (hashable).
    `pure(call)`: it can never change any state.  `shape(call)`: see Shape.
    `lost(state, call)`: from `state`, this pure call can become legal only after some `reset(other)` with `revives(other, call)`.
    """

    name: str
    functions: tuple[str, ...]
    initial: Any
    step: Callable[[State, Call], State]
    start: Callable[[Any], State] = _as_given
    prepare: Callable[[Call], Call] = as_it_is
    pure: Callable[[Call], bool] = _never
    shape: Callable[[Call], Shape | None] = _no_shape
    lost: Callable[[State, Call], bool] = never_lost
    reset: Callable[[Call], bool] = _never
    revives: Callable[[Call, Call], bool] = _always


# ---- register, cas-register ---------------------------------------------------------------------------------------------------------------


def _register_prepare(call: Call) -> Call:
    """A compare-and-set that compared and did not set (`result` false) is a check that the state differs; else it needs its old value.  A delete is a
    write of null."""
    if call.f == "read":
        return Call("read", None, canonical(call.result), call.known)
    if call.f == "delete":
        return Call("write", None, None, True)
    if call.f == "write":
        return Call("write", canonical(call.value), None, True)
    pair = call.value
    if not isinstance(pair, (list, tuple)) or len(pair) != 2:
        raise wrong("value of a cas", pair, "[old, new]")
    return Call("cas", canonical(pair), call.known and call.result is False, True)


def _register_step(state: Any, call: Call) -> State:
    if call.f == "write":
        return call.value
    if call.f == "read":
        return state if call.known and state == call.result else ILLEGAL
    old, new = call.value
    if call.result:
        return state if state != old else ILLEGAL
    return new if state == old else ILLEGAL


def _register_pure(call: Call) -> bool:
    return call.f == "read" or (call.f == "cas" and (bool(call.result) or call.value[0] == call.value[1]))


def _register_shape(call: Call) -> Shape | None:
    if call.f == "write":
        return Shape(ANY, call.value)
    if call.f == "read":
        return Shape(call.result, SAME)
    old, new = call.value
    return None if call.result else Shape(old, SAME if old == new else new)


# ---- kv -----------------------------------------------------------------------------------------------------------------------------------


def _text(value: Any) -> Any:
    """A missing key reads as the empty string."""
    return "" if value is None else value


def _kv_prepare(call: Call) -> Call:
    if call.f == "get":
        return Call("get", None, _text(call.result), call.known)
    return Call(call.f, _text(call.value), None, True)


def _kv_step(state: Any, call: Call) -> State:
    if call.f == "get":
        return state if call.known and state == call.result else ILLEGAL
    return call.value if call.f == "put" else state + call.value


def _kv_lost(state: State, call: Call) -> bool:
    """Appends only lengthen."""
    return not call.result.startswith(state)


# ---- counter ------------------------------------------------------------------------------------------------------------------------------

_SIGN = {"add": 1, "increment": 1, "decrement": -1}


def _counter_prepare(call: Call) -> Call:
    if call.f == "read":
        return Call("read", None, canonical(call.result), call.known)
    return Call("add", _SIGN[call.f] * (1 if call.value is None else call.value), None, True)


def _counter_step(state: Any, call: Call) -> State:
    if call.f == "read":
        return state if call.known and state == call.result else ILLEGAL
    return state + call.value


def _counter_lost(state: Any, call: Call) -> bool:
    """Additions of what is not negative never lower it."""
    return not isinstance(call.result, int) or state > call.result


# ---- set ----------------------------------------------------------------------------------------------------------------------------------


def _members(value: Any) -> frozenset[Hashable]:
    return frozenset(map(canonical, value or ()))


def _set_prepare(call: Call) -> Call:
    """An answer that names a member twice (here: None) is no set's answer."""
    if call.f == "read":
        members = _members(call.result)
        return Call("read", None, members if len(members) == len(call.result or ()) else None, call.known)
    if call.f == "contains":
        return Call("contains", canonical(call.value), bool(call.result), call.known)
    return Call(call.f, canonical(call.value), None, True)


def _set_step(state: Any, call: Call) -> State:
    if call.f == "read":
        return state if call.known and state == call.result else ILLEGAL
    if call.f == "contains":
        return state if call.known and (call.value in state) is call.result else ILLEGAL
    return state | {call.value} if call.f == "add" else state - {call.value}


def _set_lost(state: Any, call: Call) -> bool:
    """Additions never take a member away."""
    if call.f == "contains":
        return call.value in state and not call.result
    return call.result is None or not state <= call.result


# ---- list-append, queue -------------------------------------------------------------------------------------------------------------------


def _items(value: Any) -> tuple[Hashable, ...]:
    return tuple(map(canonical, value or ()))


def _list_prepare(call: Call) -> Call:
    if call.f == "read":
        return Call("read", None, _items(call.result), call.known)
    return Call("append", canonical(call.value), None, True)


def _list_step(state: Any, call: Call) -> State:
    if call.f == "read":
        return state if call.known and state == call.result else ILLEGAL
    return (*state, call.value)


def _list_lost(state: Any, call: Call) -> bool:
    """Appends only lengthen."""
    return bool(call.result[: len(state)] != state)


def _queue_prepare(call: Call) -> Call:
    if call.f == "enqueue":
        return Call("enqueue", canonical(call.value), None, True)
    return Call("dequeue", None, canonical(call.result), call.known)


def _queue_step(state: Any, call: Call) -> State:
    """First in, first out; a dequeue that answers null found it empty."""
    if call.f == "enqueue":
        return (*state, call.value)
    if not state:
        return state if call.known and call.result is None else ILLEGAL
    return state[1:] if not call.known or state[0] == call.result else ILLEGAL


def _queue_pure(call: Call) -> bool:
    return call.f == "dequeue" and call.known and call.result is None


def _reads(call: Call) -> bool:
    return call.f in ("read", "get", "contains")


def _puts(call: Call) -> bool:
    return call.f == "put"


def _put_revives(put: Call, get: Call) -> bool:
    """What is read after a put begins with what was put."""
    return bool(get.result.startswith(put.value))


def _lowers(call: Call) -> bool:
    return call.f == "add" and call.value < 0


def _removes(call: Call) -> bool:
    return call.f == "remove"


def _remove_revives(remove: Call, call: Call) -> bool:
    """What must go is what the answer does not have."""
    if call.f == "contains":
        return bool(remove.value == call.value)
    return call.result is None or remove.value not in call.result


_KV = Model("kv", ("get", "put", "append"), "", _kv_step, _text, _kv_prepare, _reads, lost=_kv_lost, reset=_puts, revives=_put_revives)

# The table of models: a new one is a record and a line here.
MODELS: Mapping[str, Model] = {
    model.name: model
    for model in (
        Model("register", ("read", "write", "delete"), None, _register_step, canonical, _register_prepare, _register_pure, _register_shape),
        Model("cas-register", ("read", "write", "cas", "delete"), None, _register_step, canonical, _register_prepare, _register_pure, _register_shape),
        _KV,
        _KV._replace(name="kv-append"),
        Model("counter", ("read", "add", "increment", "decrement"), 0, _counter_step, lambda n: 0 if n is None else n, _counter_prepare, _reads,
              lost=_counter_lost, reset=_lowers),
        Model("set", ("read", "add", "remove", "contains"), None, _set_step, _members, _set_prepare, _reads, lost=_set_lost, reset=_removes,
              revives=_remove_revives),
        Model("list-append", ("read", "append"), None, _list_step, _items, _list_prepare, _reads, lost=_list_lost),
        Model("queue", ("enqueue", "dequeue"), None, _queue_step, _items, _queue_prepare, _queue_pure),
    )
}


def model_named(name: str) -> Model:
    """A built-in model, or a user's own as `package.module:name`.  Raises InputError naming what is accepted."""
    if name in MODELS:
        return MODELS[name]
    module, colon, attribute = name.partition(":")
    accepts = f"one of {', '.join(MODELS)}, or package.module:name of a capray.checkers.models.Model"
    if not colon:
        raise wrong("model", name, accepts)
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError):
        raise wrong("model", name, accepts) from None
    if not isinstance(found, Model):
        raise wrong("model", name, accepts)
    return found
