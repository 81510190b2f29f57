"""`capray check`: histories in, verdicts out; the same from Python.

Decides: which model and initial value a file is checked with, what is printed, the exit status.  May not know: how checkers decide.
Exit status: 0 all valid; 1 some verdict is invalid or unknown; 2 a request or a file was wrong (one line on standard error).
A file without operations is refused: a history of none is linearizable (the checkers, as Porcupine and Knossos, call it so), but who asks about one has lost
their recording, and a gate that it passes tests nothing.
`check_ms` is processor time of the check alone: without start-up, reading, and the finding of a window for the evidence.
"""

from __future__ import annotations

import gc
import json as json_module
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import msgspec

from capray.checkers import CHECKERS, DEFAULT_BUDGET, MODELS, Evidence, Model, Verdict, model_named
from capray.checkers.evidence import explain, text, timeline
from capray.checkers.ladder import Ladder, ladder
from capray.checkers.values import canonical
from capray.errors import InputError, wrong
from capray.history import line_of, read_history
from capray.record import Operation

LADDER = "ladder"
CONSISTENCIES = (*CHECKERS, LADDER)


class Checked(msgspec.Struct, kw_only=True):
    """One history's answer.  `verdict` is the status; `sources` says where model and initial value came from."""

    file: str
    verdict: str
    consistency: str
    model: str
    initial: Any
    sources: dict[str, str]
    ops: int
    keys: int
    states: int
    check_ms: float
    algorithm: str = ""
    note: str = ""
    strongest: str | None = None
    levels: dict[str, str] | None = None
    evidence: Evidence | None = None


def check(
    files: Sequence[str | Path], model: str | None = None, initial: str | None = None, consistency: str = "linearizable",
    budget: int = DEFAULT_BUDGET, json: bool = False, witness: bool = False, figure: str | None = None,
    out: TextIO | None = None, err: TextIO | None = None,
) -> int:
    """Check each file, print its answer, return the exit status.

    `initial` is JSON (a word that is not JSON is a string).  `consistency` is one of CONSISTENCIES; `ladder` prints the strongest that holds.
    `budget` counts states.  `witness` takes each operation's `ts` as the store's own order (sequential, ladder).  `figure` is where the
    timeline of the first invalid history is written, as HTML.
    """
    out, err = out or sys.stdout, err or sys.stderr
    counts = {"valid": 0, "invalid": 0, "unknown": 0, "refused": 0}
    try:
        _accepted(consistency, budget, model)
        for file in files:
            try:
                checked, ops = check_file(file, model, initial, consistency, budget, witness)
            except InputError as error:
                counts["refused"] += 1
                print(error, file=err)
                continue
            counts[checked.verdict] += 1
            print(_json(checked) if json else _words(checked, ops), file=out, flush=True)
            if figure is not None and checked.evidence is not None:
                timeline(ops, checked.evidence, title=f"{checked.file}: {checked.evidence.problem[:100]}").write_html(figure, include_plotlyjs=True)
                figure = None
    except InputError as error:
        print(error, file=err)
        return 2
    if len(files) > 1:
        print(", ".join(f"{n} {status}" for status, n in counts.items() if n), file=err if json else out)
    return 2 if counts["refused"] else int(counts["invalid"] + counts["unknown"] > 0)


def check_file(
    file: str | Path, model: str | None = None, initial: str | None = None, consistency: str = "linearizable", budget: int = DEFAULT_BUDGET,
    witness: bool = False,
) -> tuple[Checked, list[Operation]]:
    """One file's answer, with evidence where it is invalid, and its operations.  Raises InputError."""
    ops = read_history(file)
    if not ops:
        raise InputError(f"{file}: there is nothing to check: it holds no operations")
    chosen, start, sources = _choose(Path(file), ops, model, initial)
    _known_functions(file, ops, chosen)
    order = [op.ts for op in ops] if witness else None
    gc.disable()  # a search keeps what it makes until it ends: collecting in between finds nothing and costs a pass over all histories read
    try:
        began = time.process_time_ns()
        answer = _ask(ops, chosen, start, consistency, budget, order)
        elapsed = time.process_time_ns() - began
    finally:
        gc.enable()
    verdict = _summary(answer) if isinstance(answer, Ladder) else answer
    if verdict.status == "invalid" and verdict.consistency == "linearizable":
        explain(ops, chosen, start, verdict)
    levels: dict[str, str] | None = {level.consistency: level.status for level in answer.levels} if isinstance(answer, Ladder) else None
    checked = Checked(
        file=str(file), verdict=verdict.status, consistency=consistency, model=chosen.name, initial=start, sources=sources, ops=len(ops),
        keys=len({op.key for op in ops}), states=verdict.states, check_ms=round(elapsed / 1e6, 4), algorithm=verdict.algorithm, note=verdict.note,
        strongest=answer.strongest if isinstance(answer, Ladder) else None, levels=levels, evidence=verdict.evidence,
    )
    return checked, ops


def _accepted(consistency: str, budget: int, model: str | None) -> None:
    if consistency not in CONSISTENCIES:
        raise wrong("consistency", consistency, "one of " + ", ".join(CONSISTENCIES))
    if budget < 1:
        raise wrong("budget", budget, "a number of states, at least 1")
    if model is not None:
        model_named(model)


def _ask(ops: list[Operation], model: Model, initial: Any, consistency: str, budget: int, order: list[Any] | None) -> Verdict | Ladder:
    if consistency == LADDER:
        return ladder(ops, model, initial, budget, order)
    if consistency == "sequential" and order is not None:
        from capray.checkers.sequential import sequential

        return sequential(ops, model, initial, budget, order)
    return CHECKERS[consistency](ops, model, initial, budget)


def _summary(answer: Ladder) -> Verdict:
    """The ladder as one verdict: valid where the history is linearizable; the evidence is against that."""
    first = answer.levels[0]
    first.states = sum(level.states for level in answer.levels)
    return first


# ---- model and initial value --------------------------------------------------------------------------------------------------------------


def _choose(file: Path, ops: list[Operation], model: str | None, initial: str | None) -> tuple[Model, Any, dict[str, str]]:
    """Given, else from index.json beside the file, else inferred."""
    listed = _listed(file) if model is None or initial is None else {}
    if model is not None:
        chosen, source = model_named(model), "given"
    elif "model" in listed:
        chosen, source = model_named(listed["model"]), "index.json"
    else:
        chosen, source = model_named(infer_model(ops, str(file))), "inferred"
    if initial is not None:
        return chosen, _parsed(initial), {"model": source, "initial": "given"}
    if "initial" in listed:
        return chosen, listed["initial"], {"model": source, "initial": "index.json"}
    return chosen, infer_initial(ops, chosen), {"model": source, "initial": "inferred"}


def _parsed(initial: str) -> Any:
    try:
        return json_module.loads(initial)
    except ValueError:
        return initial


def _listed(file: Path) -> dict[str, Any]:
    """The file's entry in index.json beside it; empty if there is none."""
    try:
        index = json_module.loads((file.parent / "index.json").read_bytes())
    except (OSError, ValueError):
        return {}
    name = file.name.removesuffix(".gz").removesuffix(".jsonl").removesuffix(".json").removesuffix(".edn")
    entry = index.get(name) if isinstance(index, dict) else None
    return entry if isinstance(entry, dict) else {}


# What a model has that those before it do not: one of these in a history tells it from them.
_TELLING: tuple[tuple[str, set[str]], ...] = (
    ("register", {"read", "write"}), ("cas-register", {"cas"}), ("kv", {"get", "put"}), ("queue", {"enqueue", "dequeue"}),
    ("list-append", {"append"}), ("counter", {"increment", "decrement"}), ("set", {"remove", "contains"}),
)


def infer_model(ops: Sequence[Operation], file: str = "history") -> str:
    """The built-in model whose functions these are.  Raises InputError where no model, or more than one, has them all."""
    functions = {op.f for op in ops}
    for name, some in _TELLING:
        all_ = set(MODELS[name].functions)
        if functions <= all_ and (functions & some or not functions):
            return name
    if functions <= {"read", "add"}:
        lists = any(isinstance(op.result, list) for op in ops if op.f == "read" and op.type == "ok")
        return "set" if lists else "counter"
    raise InputError(f"{file}: no model has the operations {', '.join(sorted(functions))}; say --model")


def infer_initial(ops: Sequence[Operation], model: Model) -> Any:
    """The model's own initial value; for registers, unless that one is read, the one value seen before anything that writes it began."""
    if model.name not in ("register", "cas-register"):
        return model.initial
    begun: dict[Any, int] = {}
    for op in ops:
        if op.type != "fail" and op.f != "read":
            value = (op.key, canonical(op.value[1] if op.f == "cas" and _is_pair(op.value) else op.value))
            begun[value] = min(op.invoke, begun.get(value, op.invoke))
    early: dict[Any, Any] = {}
    for op in ops:
        looked = op.f == "read" or (op.f == "cas" and op.result is not False and _is_pair(op.value))
        if op.type != "ok" or op.complete is None or not looked:
            continue
        seen = op.result if op.f == "read" else op.value[0]
        if begun.get((op.key, canonical(seen)), op.complete + 1) > op.complete:
            early[canonical(seen)] = seen
    return next(iter(early.values())) if len(early) == 1 else model.initial


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2


def _known_functions(file: str | Path, ops: Sequence[Operation], model: Model) -> None:
    for i, op in enumerate(ops):
        if op.f not in model.functions:
            raise InputError(f"{file}:{line_of(file, i)}: f: {op.f!r} is not accepted; model {model.name} takes {', '.join(model.functions)}")
        if op.f == "cas" and not _is_pair(op.value):
            raise InputError(f"{file}:{line_of(file, i)}: value: {op.value!r} is not accepted; a cas takes [old, new]")


# ---- what is printed ----------------------------------------------------------------------------------------------------------------------


def _json(checked: Checked) -> str:
    row = msgspec.to_builtins(checked)
    return msgspec.json.encode({name: value for name, value in row.items() if value not in (None, "") or name == "initial"}).decode()


def _words(checked: Checked, ops: Sequence[Operation]) -> str:
    inferred = ", ".join(f"{what} {getattr(checked, what)!r} {source}" for what, source in checked.sources.items() if source != "given")
    states = f", {checked.states} states" if checked.states else ""
    size = f"{checked.ops} operations, {checked.keys} {'key' if checked.keys == 1 else 'keys'}{states}, {checked.check_ms:.1f} ms"
    line = f"{checked.file}: {checked.verdict} ({checked.consistency}; {size}"
    lines = [line + (f"; {inferred})" if inferred else ")")]
    if checked.strongest is not None and checked.levels is not None:
        lines.append(f"  strongest that holds: {checked.strongest}")
        lines += [f"    {level:<22} {status}" for level, status in checked.levels.items()]
    if checked.note:
        lines.append(f"  {checked.note}")
    if checked.evidence is not None:
        lines += ["  " + row for row in text(ops, checked.evidence).splitlines()]
    return "\n".join(lines)


def main(
    files: list[str], model: str | None = None, initial: str | None = None, consistency: str = "linearizable", budget: int = DEFAULT_BUDGET,
    json: bool = False, witness: bool = False, figure: str | None = None,
) -> None:
    """Check histories (JSON Lines or Jepsen EDN, plain or .gz) and say why where the answer is no."""
    raise SystemExit(check(files, model, initial, consistency, budget, json, witness, figure))


if __name__ == "__main__":
    import typer

    typer.run(main)
