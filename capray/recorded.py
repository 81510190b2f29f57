"""Runs that were recorded elsewhere, of a real store say: histories and their faults -> a results directory that `report` and `compare` take.

Decides: how such runs are described, and what a directory of them holds.  May not know: how anything is measured or drawn.
A description is a TOML file (or a folder with the index.json of capray.measures.foreign), one table a run:

    [[runs]]
    history = "monday.jsonl.gz"          # beside this file; JSON Lines or Jepsen EDN
    label = "my store"                   # the line it belongs to; runs of one label and length of cut are its trials
    nodes = 5                            # default: as many as history and faults name
    duration = "10s"                     # how long the cut was meant to be; default: how long it was
    [[runs.faults]]                      # as they happened; kinds and fields of a scenario, a cut's groups written out
    shape = "0,1|2,3,4"
    at = "10.0064s"
    for = "10.0272s"

The histories are copied into the directory, so that it stands alone: `reproduce` measures them again.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from capray import __version__
from capray.errors import InputError, duration_us, show_us, wrong
from capray.faults import Fault, parse_groups, resolve
from capray.history import read_history
from capray.measures.foreign import real_server_index, real_server_record
from capray.metrics import count_nodes, measure
from capray.record import FaultWindow, Operation, Record
from capray.scenario import read_toml, with_units
from capray.store import FORMAT, Results, Row

FOLDER = "histories"
FIELDS = ("history", "label", "nodes", "duration", "faults")


class Run(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One recorded run as the manifest keeps it.  `history` is the file's name in the directory's `histories/`; `seed` counts the runs of a point."""

    label: str
    nodes: int
    duration: str
    seed: int
    history: str
    faults: list[FaultWindow]
    placement: dict[str, tuple[int, ...]] = {}


def import_runs(sources: Sequence[Path], out: Path, command: str) -> tuple[str, int]:
    """Write a results directory of the runs that `sources` describe.  Returns (digest, number of runs).  Raises InputError; then nothing is written."""
    found = [one for source in sources for one in _described(source)]
    if not found:
        raise wrong("runs", " ".join(map(str, sources)), "a description with at least one run")
    files: dict[str, Path] = {}
    runs: list[Run] = []
    rows: list[Row] = []
    for file, run in found:
        seed = sum((one.label, one.nodes, one.duration) == (run.label, run.nodes, run.duration) for one in runs)
        name = f"{len(runs):04d}-{file.name}"
        run = msgspec.structs.replace(run, seed=seed, history=name)
        rows.append(_row(run, record_of(run, file)))
        runs.append(run)
        files[name] = file
    manifest = {"format": FORMAT, "kind": "recorded", "name": out.name, "version": __version__, "engine": "recorded", "command": command,
                "spec": {"runs": msgspec.to_builtins(runs)}, "digest": "", "trials": 0}
    results = Results(out)
    with results.writing(manifest) as there:
        (out / FOLDER).mkdir(exist_ok=True)
        for name, file in files.items():
            shutil.copyfile(file, out / FOLDER / name)
        for row in rows[len(there):]:
            results.append(row)
        return results.finish(manifest, rows), len(rows)


def runs_of(manifest: dict[str, Any]) -> list[Run]:
    """The runs of a manifest."""
    return msgspec.convert(manifest["spec"]["runs"], list[Run])


def measured_again(manifest: dict[str, Any], directory: Path) -> list[Row]:
    """The rows of a directory, measured again from its histories, in the order of their keys.  Raises InputError."""
    rows = [_row(run, record_of(run, directory / FOLDER / run.history)) for run in runs_of(manifest)]
    return sorted(rows, key=lambda row: str(row["key"]))


def shown_runs(manifest: dict[str, Any], directory: Path) -> Iterator[tuple[str, Record]]:
    """The first run of each label, with a title, for the report's timelines."""
    seen: set[str] = set()
    for run in runs_of(manifest):
        if run.label not in seen:
            seen.add(run.label)
            yield f"{run.label}, {run.nodes} nodes, cut {run.duration}, recorded", record_of(run, directory / FOLDER / run.history)


def record_of(run: Run, file: Path) -> Record:
    """A recorded run as a record: versions and counters are not known.  Raises InputError."""
    history = read_history(file)
    held = run.placement or {key: tuple(range(run.nodes)) for key in sorted({op.key for op in history if op.key is not None})}
    return Record(policy=run.label, nodes=run.nodes, seed=run.seed, scenario="", history=history, faults=run.faults, versions=None, placement=held, counters={},
                  end=max((op.invoke if op.complete is None else op.complete for op in history), default=0))


def _row(run: Run, record: Record) -> Row:
    cut = next((fault for fault in run.faults if fault.kind == "partition"), None)
    length = 0 if cut is None else (record.end if cut.until is None else cut.until) - cut.at
    return {"key": f"{run.label}|{run.nodes}|{run.duration}|{run.seed:06d}", "label": run.label, "policy": run.label, "nodes": run.nodes, "seed": run.seed,
            "shape": "none" if cut is None else cut.shape, "duration": run.duration, "duration_us": length, "record": record.digest(), **measure(record)}


# ---- descriptions -----------------------------------------------------------------------------------------------------------------------
def _described(source: Path) -> Iterator[tuple[Path, Run]]:
    if source.is_dir() or source.name == "index.json":
        folder = source if source.is_dir() else source.parent
        for name, one in real_server_index(folder).items():
            record = real_server_record(name, folder)
            placement = record.placement if one.get("replicas") else {}
            yield folder / f"{name}.jsonl.gz", Run(label=f"{one['system']} {one['variant']}", nodes=record.nodes, duration=show_us(round(one["D"] * 1_000_000)),
                                                   seed=0, history="", faults=record.faults, placement=placement)
        return
    if source.suffix != ".toml":
        raise wrong("runs", str(source), "a TOML file of [[runs]], or a folder with an index.json (docs/results.md, \"Runs of a real store\")")
    raw = read_toml(source)
    tables = raw.get("runs")
    if not isinstance(tables, list) or set(raw) != {"runs"} or not all(isinstance(one, dict) for one in tables):
        raise wrong(str(source), sorted(raw), "tables [[runs]] and nothing else")
    for number, table in enumerate(tables, 1):
        yield _from_table(table, source, f"{source}: run {number}: ")


def _from_table(table: dict[str, Any], source: Path, where: str) -> tuple[Path, Run]:
    for name in table:
        if name not in FIELDS:
            raise InputError(where + str(wrong("field", name, "one of " + ", ".join(FIELDS))))
    if not isinstance(table.get("history"), str) or not isinstance(table.get("label"), str) or not table["label"]:
        raise InputError(f"{where}history and label: it takes the name of a file and the name of a line")
    described = table.get("faults", [])
    if not isinstance(described, list):
        raise InputError(where + str(wrong("faults", described, "tables [[runs.faults]]")))
    file = source.parent / table["history"]
    history = read_history(file)
    nodes = table.get("nodes", max(count_nodes(history, ()), _named(described)))
    if not isinstance(nodes, int) or isinstance(nodes, bool) or nodes < 1:
        raise InputError(where + str(wrong("nodes", nodes, "a whole number of 1 or more")))
    faults = [_window(raw, nodes, where) for raw in described]
    _inside(history, nodes, where)
    cut = next((fault for fault in faults if fault.kind == "partition"), None)
    length = 0 if cut is None or cut.until is None else cut.until - cut.at
    duration = table.get("duration", show_us(length) if length else "0s")
    duration_us(duration, where + "duration")
    return file, Run(label=table["label"], nodes=nodes, duration=str(duration), seed=0, history="", faults=faults)


def _named(described: list[Any]) -> int:
    """One more than the highest node that the faults name; 0 where none does, or where they are no faults (that is said later)."""
    named = [0]
    for fault in described:
        if isinstance(fault, dict):
            groups = parse_groups(fault["shape"]) if isinstance(fault.get("shape"), str) else None
            named += [node + 1 for group in groups or () for node in group]
    return max(named)


def _inside(history: Sequence[Operation], nodes: int, where: str) -> None:
    outside = next((op.node for op in history if op.node is not None and not 0 <= op.node < nodes), None)
    if outside is not None:
        raise InputError(where + str(wrong("nodes", nodes, f"more nodes than that: the history names node {outside}")))


def _window(raw: Any, nodes: int, where: str) -> FaultWindow:
    try:
        fault = msgspec.convert(with_units(raw), Fault)
    except (msgspec.ValidationError, InputError) as error:
        raise InputError(f"{where}faults: {error}") from None
    problems = fault.problems(nodes)
    if problems:
        raise InputError(f"{where}{problems[0]}")
    until = fault.at_us + fault.for_us if fault.for_us else None
    if fault.kind != "partition":
        return FaultWindow(kind=fault.kind, at=fault.at_us, until=until, nodes=fault.nodes)
    if parse_groups(fault.shape) is None:
        raise InputError(where + str(wrong("shape", fault.shape, "the cut's groups written out, as they were: 0,1|2,3,4")))
    cut = resolve(fault.shape, nodes, 0, fault.nodes)
    return FaultWindow(kind="partition", at=fault.at_us, until=until, shape=fault.shape, groups=cut.groups, blocked=cut.blocked)
