"""Histories in and out of files: JSON Lines (DESIGN.md) and Jepsen EDN, plain or gzipped; what is malformed is refused with file and line.

Decides: what a well-formed history is.  May not know: models, checkers, engines.
Sources: DESIGN.md "History file"; Jepsen's history form (events `:process :type :f :value :time`, independent `[k v]` tuples, times in
nanoseconds, `:info` for an outcome nobody knows).  An invocation without a completion is an `info`.

EDN times are kept in microseconds.  Where rounding would make a completion and a later invocation tie (closed intervals: that would call
them concurrent), the later event and what follows at that microsecond move up by one: order in real time is what checkers decide by.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec

from capray.edn import EdnError, dumps, forms
from capray.errors import InputError
from capray.record import Operation

_DECODER = msgspec.json.Decoder(Operation)
_EXTRAS = ("node", "intended", "deadline", "error", "final", "session", "ts")
_PLAIN_INTEGER = re.compile(r"0|-?[1-9][0-9]*")
Where = Callable[[int], str]


def read_history(path: str | Path) -> list[Operation]:
    """The operations of one file, in the file's order, validated.

    `.edn` and `.edn.gz` are read as Jepsen events, everything else as JSON Lines; `.gz` of either.  Raises InputError naming file, line
    number and what is wrong: unreadable or truncated files, missing fields, a completion before its invocation, two completions of one
    invocation, an operation begun by a process whose former one is completed later.
    """
    path = Path(path)
    data = _read_bytes(path)
    if _is_edn(path):
        ops, lines = _from_edn(data, path)
        validate(ops, lambda i: f"{path}:{lines[i]}")
        return ops
    ops = _from_json(data, path)
    validate(ops, lambda i: f"{path}:{_json_line(data, i)}")
    return ops


def write_history(path: str | Path, ops: Sequence[Operation]) -> None:
    """Write `ops` so that `read_history` gives them back, field for field; the form follows the file's name.  The bytes depend on `ops` only."""
    path = Path(path)
    if _is_edn(path):
        data = _to_edn(ops).encode()
    else:
        data = msgspec.json.Encoder().encode_lines([_json_row(op) for op in ops])
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def line_of(path: str | Path, index: int) -> int:
    """The line (from 1) on which operation `index` of `read_history(path)` begins; for complaints that need a model to be made."""
    path = Path(path)
    data = _read_bytes(path)
    return _from_edn(data, path)[1][index] if _is_edn(path) else _json_line(data, index)


def validate(ops: Sequence[Operation], where: Where) -> None:
    """Refuse what no client could have recorded; `where(i)` names the place of operation i in the complaint."""
    last: dict[int, int] = {}
    order: Sequence[int] = range(len(ops))
    if any(a.invoke > b.invoke for a, b in pairwise(ops)):
        order = sorted(order, key=lambda i: (ops[i].invoke, ops[i].complete is None, ops[i].complete or 0))
    for i in order:
        op = ops[i]
        complete = op.complete
        if complete is None:
            if op.type != "info":
                raise InputError(f"{where(i)}: complete: null is not accepted for type {op.type!r}; it takes the time of the completion")
        elif complete < op.invoke:
            raise InputError(f"{where(i)}: complete: {complete} is before its invocation at {op.invoke}")
        elif op.type == "info":
            raise InputError(f"{where(i)}: complete: {complete} is not accepted for type 'info'; it takes null (the outcome is unknown)")
        before = last.get(op.process)
        if before is not None:
            _take_turns(ops[before], op, where, before, i)
        last[op.process] = i


def _take_turns(former: Operation, op: Operation, where: Where, before: int, i: int) -> None:
    """One process, one operation at a time; an `info` ends its turn."""
    if former.invoke == op.invoke and former.complete != op.invoke:
        raise InputError(f"{where(i)}: process {op.process}: a second completion of its invocation at {op.invoke} (the first: {where(before)})")
    if former.complete is not None and former.complete > op.invoke:
        begins = f"{where(i)}: process {op.process} begins at {op.invoke} while its former operation"
        raise InputError(f"{begins} ({where(before)}) is completed later, at {former.complete}")


def _is_edn(path: Path) -> bool:
    return path.name.endswith((".edn", ".edn.gz"))


def _read_bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if path.suffix == ".gz" else data
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (EOFError, zlib.error):
        raise InputError(f"{path}: cannot be read: the gzip data are truncated or damaged") from None


# ---- JSON Lines -------------------------------------------------------------------------------------------------------------------------


def _from_json(data: bytes, path: Path) -> list[Operation]:
    try:
        return _DECODER.decode_lines(data)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        pass
    ops = []
    for number, line in enumerate(data.splitlines(), 1):
        if line.strip():
            ops.append(_decoded(line, f"{path}:{number}"))
    return ops


def _decoded(line: bytes, place: str) -> Operation:
    try:
        return _DECODER.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        problem = str(error).replace("Object ", "").replace("`$.", "`")
    raise InputError(f"{place}: not an operation: {problem}")


def _json_line(data: bytes, index: int) -> int:
    rows = [number for number, line in enumerate(data.splitlines(), 1) if line.strip()]
    return rows[index]


def _json_row(op: Operation) -> dict[str, Any]:
    """DESIGN.md's order of fields; optional ones only where they are set."""
    row: dict[str, Any] = {"process": op.process}
    if op.node is not None:
        row["node"] = op.node
    for name in ("f", "key", "value", "result", "invoke", "complete", "type"):
        row[name] = getattr(op, name)
    for name in _EXTRAS[1:]:
        if _is_set(op, name):
            row[name] = getattr(op, name)
    return row


def _is_set(op: Operation, name: str) -> bool:
    value = getattr(op, name)
    return value is not None and value is not False


# ---- Jepsen EDN -------------------------------------------------------------------------------------------------------------------------


class _Event(msgspec.Struct):
    line: int
    at: int
    process: int
    kind: str
    body: dict[str, Any]


def _from_edn(data: bytes, path: Path) -> tuple[list[Operation], list[int]]:
    """Operations in order of invocation, and the line of each invocation."""
    try:
        maps = list(forms(data.decode()))
    except EdnError as error:
        raise InputError(f"{path}:{error.line}: {error.problem}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: cannot be read: not UTF-8 text") from None
    events = _events(maps, path)
    opened: dict[int, int] = {}
    pairs: list[tuple[_Event, _Event | None]] = []
    for event in events:
        place = f"{path}:{event.line}"
        if event.kind == "invoke":
            former = opened.pop(event.process, None)
            if former is not None:
                begins = f"{place}: process {event.process} begins while its former operation (line {pairs[former][0].line})"
                raise InputError(f"{begins} is completed later or never; end it with :info")
            opened[event.process] = len(pairs)
            pairs.append((event, None))
            continue
        slot = opened.pop(event.process, None)
        if slot is None:
            raise InputError(f"{place}: process {event.process}: :{event.kind} completes nothing: its invocation is missing or already completed")
        if pairs[slot][0].body.get(":f") != event.body.get(":f"):
            invoked = pairs[slot][0]
            completes = f"{place}: process {event.process}: completes {event.body.get(':f')} but its invocation"
            raise InputError(f"{completes} (line {invoked.line}) was {invoked.body.get(':f')}")
        pairs[slot] = (pairs[slot][0], event)
    tuples = _independent([invoked.body for invoked, _ in pairs])
    return [_operation(invoked, completed, tuples) for invoked, completed in pairs], [invoked.line for invoked, _ in pairs]


def _events(maps: list[tuple[int, Any]], path: Path) -> list[_Event]:
    """The clients' events in time's order, times in microseconds; those of the nemesis (a process that is no integer) are left out."""
    events: list[_Event] = []
    timed: list[bool] = []
    for index, (line, body) in enumerate(maps):
        if not isinstance(body, dict) or ":process" not in body or ":type" not in body:
            raise InputError(f"{path}:{line}: not an event: it takes a map with :process, :type, :f and :value")
        kind, process = str(body[":type"]).lstrip(":"), body[":process"]
        if kind not in ("invoke", "ok", "fail", "info"):
            raise InputError(f"{path}:{line}: :type: {body[':type']!r} is not accepted; it takes :invoke, :ok, :fail or :info")
        if not isinstance(process, int) or isinstance(process, bool):
            continue
        at = body.get(":time")
        if ":f" not in body or not isinstance(at, (int, type(None))):
            raise InputError(f"{path}:{line}: not an event: it takes an :f, and a :time in whole nanoseconds")
        timed.append(at is not None)
        events.append(_Event(line, index if at is None else at, process, kind, body))
    if any(timed) and not all(timed):
        raise InputError(f"{path}:{events[timed.index(False)].line}: :time is missing, where other events have one")
    if any(timed):
        events.sort(key=lambda event: event.at)
        _to_microseconds(events)
    return events


def _to_microseconds(events: list[_Event]) -> None:
    """Nanoseconds to microseconds without making a completion tie with a later invocation."""
    now = completed_ns = completed_at = -(1 << 62)
    for event in events:
        ns = event.at
        now = max(now, ns // 1000)
        if event.kind == "invoke" and now == completed_at and ns > completed_ns:
            now += 1
        event.at = now
        if event.kind != "invoke":
            completed_ns, completed_at = ns, now


def _independent(bodies: list[dict[str, Any]]) -> bool:
    """Are the values Jepsen's independent tuples `[k v]`?  Yes if every invocation has a pair, unless they are all compare-and-sets of plain
    pairs or say their `:key` themselves."""
    if not bodies or any(":key" in body for body in bodies):
        return False
    values: list[Any] = [body.get(":value") for body in bodies]
    if not all(isinstance(value, list) and len(value) == 2 and isinstance(value[0], (int, str)) for value in values):
        return False
    return all(isinstance(value[1], list) and len(value[1]) == 2 for body, value in zip(bodies, values) if body[":f"] == ":cas")


def _split(value: Any, tuples: bool) -> tuple[str | None, Any]:
    if tuples and isinstance(value, list) and len(value) == 2:
        return str(value[0]), value[1]
    return None, value


def _operation(invoked: _Event, completed: _Event | None, tuples: bool) -> Operation:
    body = invoked.body
    key, value = _split(body.get(":value"), tuples)
    if ":key" in body:
        key = None if body[":key"] is None else str(body[":key"])
    op = Operation(
        process=invoked.process, f=str(body[":f"]).lstrip(":"), key=key, value=value, result=body.get(":result"), invoke=invoked.at,
        complete=None, type="info",
    )
    _extras(op, body)
    if completed is not None:
        _complete(op, completed, _split(completed.body.get(":value"), tuples)[1])
    return op


def _extras(op: Operation, body: dict[str, Any]) -> None:
    for name in _EXTRAS:
        if f":{name}" in body:
            value = body[f":{name}"]
            setattr(op, name, dumps(value) if name == "error" and not isinstance(value, (str, type(None))) else value)


def _complete(op: Operation, completed: _Event, answered: Any) -> None:
    """Outcome and result; an `info` keeps the time of its event as the deadline, since nothing was completed then."""
    if completed.kind == "info":
        op.deadline = completed.at
    else:
        op.type = "ok" if completed.kind == "ok" else "fail"
        op.complete = completed.at
        op.result = completed.body[":result"] if ":result" in completed.body else _answer(op, answered)
    _extras(op, completed.body)


def _answer(op: Operation, answered: Any) -> Any:
    """A completion repeats the request where there is nothing to tell; a compare-and-set that is `:ok` has set."""
    if op.type == "fail" or (answered == op.value and dumps(answered) == dumps(op.value)):
        return True if op.f == "cas" and op.type == "ok" else None
    return answered


def _to_edn(ops: Sequence[Operation]) -> str:
    """One map a line, in time's order; at one instant invocations come before completions, except behind their own process's former event."""
    explicit = _needs_keys(ops)
    ends = _event_ends(ops)
    rows: list[tuple[int, int, int, str]] = []
    turn: dict[int, tuple[int, int]] = {}
    for i in sorted(range(len(ops)), key=lambda i: (ops[i].invoke, ends[i] is None, ends[i] or 0)):
        op, at = ops[i], ends[i]
        former, rank = turn.get(op.process, (-1, -1))
        rank = rank + 1 if former == op.invoke else 0
        rows.append((op.invoke, rank, i, _event(op, "invoke", op.invoke, explicit)))
        if at is not None:
            rank = rank + 1 if at == op.invoke else 1
            turn[op.process] = (at, rank)
            rows.append((at, rank, i, _event(op, op.type, at, explicit)))
    return "".join(row[3] for row in sorted(rows))


def _event_ends(ops: Sequence[Operation]) -> list[int | None]:
    """When each operation's last event is: its completion; for an `info` its deadline, or when its process goes on; None for no event."""
    ends = [op.complete for op in ops]
    onward: dict[int, int] = {}
    for i in sorted(range(len(ops)), key=lambda i: -ops[i].invoke):
        op = ops[i]
        if op.complete is None:
            limits = [at for at in (op.deadline, onward.get(op.process)) if at is not None]
            ends[i] = max(op.invoke, min(limits)) if limits else None
        onward[op.process] = op.invoke
    return ends


def _needs_keys(ops: Sequence[Operation]) -> bool:
    """Must each event say its `:key`?  Only where `[k v]` tuples would be read as something else."""
    tuples = bool(ops) and all(op.key is not None for op in ops)
    if not tuples and any(op.key is not None for op in ops):
        return True
    bodies = [{":f": f":{op.f}", ":value": [_key(op.key), op.value] if tuples else op.value} for op in ops]
    return _independent(bodies) != tuples


def _key(key: str | None) -> int | str | None:
    return int(key) if key is not None and _PLAIN_INTEGER.fullmatch(key) else key


def _event(op: Operation, kind: str, at: int, explicit: bool) -> str:
    extra: dict[str, Any] = {}
    value = op.value
    if kind == "invoke":
        extra = {f":{name}": getattr(op, name) for name in _EXTRAS if _is_set(op, name)}
        if op.type == "info" and op.result is not None:
            extra[":result"] = op.result
    elif kind == "info":
        extra = {":deadline": op.deadline} if op.deadline != at else {}
    else:
        value = op.value if op.result is None or op.type != "ok" or op.f == "cas" else op.result
        if dumps(_answer(op, value)) != dumps(op.result):
            extra = {":result": op.result}
    body: dict[str, Any] = {":process": op.process, ":type": f":{kind}", ":f": f":{op.f}"}
    body[":value"] = value if explicit or op.key is None else [_key(op.key), value]
    if explicit:
        body[":key"] = _key(op.key)
    return dumps({**body, ":time": at * 1000, **extra}) + "\n"
