"""Histories made to order, for tests and benches: small random ones of any built-in model, large ones of distinct-value registers.

Decides: nothing that is measured.  May not know: checkers.
Every draw comes from capray.streams, so a seed names a history on every machine.
"""

from __future__ import annotations

from typing import Any

from capray.checkers.models import ILLEGAL, Call, Model
from capray.record import Operation
from capray.streams import Stream

_ASK: dict[str, tuple[str, ...]] = {
    "register": ("read", "write"),
    "cas-register": ("read", "write", "cas", "cas"),
    "kv": ("get", "put", "append", "append"),
    "counter": ("read", "add", "decrement"),
    "set": ("read", "add", "add", "remove", "contains"),
    "list-append": ("read", "append"),
    "queue": ("enqueue", "dequeue"),
}


def random_history(
    model: Model, seed: int, most_ops: int = 7, processes: int = 4, values: int = 3, keys: int = 1, pending: int = 2,
) -> list[Operation]:
    """A small history with few values, ties, crashes, pending operations and failures; about half are linearizable from `model.initial`.

    `pending` in ten operations never complete.  It is first run for real, each operation taking effect at a moment inside its
    interval; then, in three of four, some answers are changed.
    """
    stream = Stream(seed, f"history/{model.name}")
    ops = _intervals(stream, model, most_ops, processes, values, keys, pending)
    _run(stream, model, ops)
    for _ in range(stream.below(4)):
        _disturb(stream, ops, values)
    return sorted(ops, key=lambda op: (op.invoke, op.process))


def _intervals(stream: Stream, model: Model, most_ops: int, processes: int, values: int, keys: int, pending_in_ten: int) -> list[Operation]:
    ops: list[Operation] = []
    asks = _ASK[model.name.replace("kv-append", "kv")]
    free = [0] * processes
    for _ in range(stream.between(most_ops // 2, most_ops)):
        process = stream.below(processes)
        invoke = free[process] + stream.below(4)
        complete = invoke + stream.below(6)
        kind = stream.below(10)
        pending = kind >= 10 - pending_in_ten
        f = asks[stream.below(len(asks))]
        ops.append(
            Operation(
                process=process, f=f, key=None if keys == 1 else f"k{stream.below(keys)}", value=_value(stream, f, values), result=None,
                invoke=invoke, complete=None if pending else complete, type="info" if pending else ("fail" if kind == 0 else "ok"),
            )
        )
        free[process] = (invoke + 1) if pending else complete
    return ops


def _value(stream: Stream, f: str, values: int) -> Any:
    if f == "cas":
        return [stream.below(values), stream.below(values)]
    if f in ("read", "get", "dequeue"):
        return None
    number = stream.below(values)
    return "abcdefgh"[number] if f in ("put", "append") and stream.below(2) else (str(number) if f == "put" or f == "append" else number)


def _run(stream: Stream, model: Model, ops: list[Operation]) -> None:
    """Let each operation take effect once inside its interval (an `info` one perhaps, perhaps much later) and answer from the state."""
    moments = []
    for i, op in enumerate(ops):
        last = op.invoke + (stream.below(15) if op.complete is None else op.complete - op.invoke)
        moments.append((stream.between(op.invoke, last), stream.below(1 << 20), i))
    states: dict[str | None, Any] = {}
    for _, _, i in sorted(moments):
        op = ops[i]
        state = states.get(op.key, model.start(model.initial))
        if op.type == "fail" or (op.type == "info" and stream.below(2)):
            continue
        op.result = _answer(state, op) if op.type == "ok" else None
        known = op.type == "ok" and op.f != "add"
        after = model.step(state, model.prepare(Call(op.f, op.value, op.result, known)))
        states[op.key] = state if after is ILLEGAL else after


def _answer(state: Any, op: Operation) -> Any:
    if op.f == "cas":
        return bool(state == op.value[0])
    if op.f == "dequeue":
        return state[0] if state else None
    if op.f == "contains":
        return op.value in state
    if op.f not in ("read", "get"):
        return None
    return sorted(state) if isinstance(state, frozenset) else (list(state) if isinstance(state, tuple) else state)


def _disturb(stream: Stream, ops: list[Operation], values: int) -> None:
    """Exchange two answers, or make one up."""
    told = [op for op in ops if op.type == "ok" and op.f in ("read", "get", "cas", "contains", "dequeue")]
    if not told:
        return
    one, other = told[stream.below(len(told))], told[stream.below(len(told))]
    if one.f == other.f and one is not other and stream.below(2):
        one.result, other.result = other.result, one.result
    elif isinstance(one.result, bool):
        one.result = not one.result
    elif isinstance(one.result, list):
        one.result = one.result[: stream.below(len(one.result) + 1)] if stream.below(2) else [*one.result, stream.below(values)]
    elif isinstance(one.result, str):
        one.result = one.result[stream.below(len(one.result) + 1):] + "a0"[: stream.below(3)]
    else:
        one.result = stream.below(values + 1)


def register_history(ops: int, keys: int = 1, processes: int = 10, seed: int = 1) -> list[Operation]:
    """A linearizable history of `ops` reads and writes of distinct values over `keys` keys, `processes` operations in flight at a time."""
    stream = Stream(seed, "history/large")
    free = [0] * processes
    rows: list[tuple[int, int, Operation]] = []
    for i in range(ops):
        process = i % processes
        invoke = max(free[process], i * 10) + stream.below(5)
        complete = invoke + 1 + stream.below(80)
        free[process] = complete + 1
        write = stream.below(2) == 0
        op = Operation(
            process=process, f="write" if write else "read", key=f"k{stream.below(keys)}", value=i if write else None, result=None,
            invoke=invoke, complete=complete, type="ok",
        )
        rows.append((stream.between(invoke, complete), i, op))
    held: dict[str | None, Any] = {}
    for _, i, op in sorted(rows, key=lambda row: row[:2]):
        if op.f == "write":
            held[op.key] = i
        else:
            op.result = held.get(op.key)
    return sorted((op for _, _, op in rows), key=lambda op: op.invoke)
