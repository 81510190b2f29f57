"""`capray run`: one trial on one engine, measured and shown."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from capray import __version__
from capray.engines import run
from capray.errors import show_us
from capray.export import save_history, trace_window, write_file
from capray.history import write_history
from capray.metrics import measure
from capray.record import Record
from capray.scenario import Scenario
from capray.shiviz import shiviz
from capray.store import FORMAT, Results
from capray.sweep import measured


def run_one(
    scenario: Scenario, seed: int, engine: str, address: str | None, out: Path | None, history: Path | None, as_json: bool, command: str,
    log: Path | None = None, trace: str | None = None,
) -> None:
    """Run, measure, write what was asked for (`log`: the messages of a window, for ShiViz), print."""
    if log is not None:
        scenario = msgspec.structs.replace(scenario, trace_us=trace_window(trace, scenario))
    record = only(scenario, seed, engine, address)
    measurement = measure(record)
    answer = {"policy": scenario.policy, "nodes": scenario.nodes, "seed": seed, "engine": engine, "digest": record.digest(), "measurement": measurement}
    if history is not None:
        save_history(history, record)
    if log is not None:
        write_file(log, shiviz(record))
    if out is not None:
        keep(scenario, seed, engine, record, out, command)
    if as_json:
        print(json.dumps(answer))
    else:
        describe(answer, record)


def only(scenario: Scenario, seed: int, engine: str, address: str | None) -> Record:
    """The record of a single trial.  Raises TrialFailed where the policy raised."""
    [(_, outcome, _)] = run([(0, scenario, seed)], engine, address, in_flight=1)
    if isinstance(outcome, str):
        raise TrialFailed(outcome)
    assert isinstance(outcome, Record)
    return outcome


class TrialFailed(Exception):
    """The policy raised: its traceback is the user's to read, since the code is the user's."""


def keep(scenario: Scenario, seed: int, engine: str, record: Record, out: Path, command: str) -> None:
    """Write a results directory of one trial, with its report.  Raises InputError where the directory holds something else."""
    from capray.sweeping import draw

    row = row_of(scenario, seed, record)
    manifest = {"format": FORMAT, "kind": "run", "name": out.name, "version": __version__, "engine": engine, "command": command,
                "spec": {"scenario": msgspec.to_builtins(scenario), "seed": seed}, "digest": "", "trials": 0}
    results = Results(out)
    with results.writing(manifest) as rows:
        if not rows:
            results.append(row)
        results.finish(manifest, rows or [row])
    write_history(out / "history.jsonl.gz", record.history)
    draw(out)


def row_of(scenario: Scenario, seed: int, record: Record) -> dict[str, Any]:
    """The row of a single trial."""
    cuts = [window for window in record.faults if window.kind == "partition"]
    length = (cuts[0].until or record.end) - cuts[0].at if cuts else 0
    return {"key": f"{scenario.policy}|{scenario.nodes}|{seed:06d}", "label": scenario.policy, "policy": scenario.policy, "nodes": scenario.nodes, "seed": seed,
            "shape": cuts[0].shape if cuts else "none", "duration": show_us(length), "duration_us": length,
            "scenario": scenario.digest(), **measured(scenario, record)}


def describe(answer: dict[str, Any], record: Record) -> None:
    """Print a trial for a person."""
    from rich.console import Console
    from rich.table import Table

    console = Console(file=sys.stdout, highlight=False)
    console.print(f"[bold]{answer['policy']}[/bold] on {answer['nodes']} nodes, seed {answer['seed']}, engine {answer['engine']}, digest {answer['digest']}")
    for window in record.faults:
        until = "never" if window.until is None else show_us(window.until)
        sides = " | ".join(",".join(map(str, group)) for group in window.groups) or ",".join(map(str, window.nodes))
        touched = ", ".join(f"{count} {how}" for how, count in window.touched.items()) or "touched nothing"
        console.print(f"  {window.kind} {window.shape} {sides}  from {show_us(window.at)} to {until}: {touched}" + (f" ({window.note})" if window.note else ""))
    table = Table("measure", "value", title="measurement (--out DIR writes a report that defines each)", title_justify="left")
    for name, value in answer["measurement"].items():
        if value is not None:
            table.add_row(name, _shown(name, value))
    console.print(table)


def _shown(name: str, value: object) -> str:
    if name.endswith("_us") and isinstance(value, int):
        return show_us(value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
