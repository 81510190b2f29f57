"""`capray run`: one trial on one engine, measured and shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from capray import __version__
from capray.engines import run
from capray.errors import Failed, InputError, show_us
from capray.export import save_history, trace_window, write_file
from capray.history import write_history
from capray.metrics import measure
from capray.record import Record
from capray.scenario import Scenario
from capray.shiviz import shiviz
from capray.store import FORMAT, Results
from capray.summary import describe
from capray.sweep import measured


def run_one(
    scenario: Scenario, seed: int, engine: str, address: str | None, out: Path | None, history: Path | None, as_json: bool, command: str,
    log: Path | None = None, trace: str | None = None, every: bool = False,
) -> None:
    """Run, measure, write what was asked for (`log`: the messages of a window, for ShiViz), print (`every`: all measures, not a page of them)."""
    if log is not None:
        scenario = msgspec.structs.replace(scenario, trace_us=trace_window(trace, scenario))
    if out is not None:
        Results(out).refuse_other(manifest_of(scenario, seed, engine, out, command))
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
        describe(answer, record, every)


def only(scenario: Scenario, seed: int, engine: str, address: str | None) -> Record:
    """The record of a single trial.  Raises Failed where the policy raised: its traceback is the user's to read, since the code is the user's; InputError
    where it broke the contract."""
    [(_, outcome, _)] = run([(0, scenario, seed)], engine, address, in_flight=1)
    if isinstance(outcome, str) and "\n" not in outcome:
        raise InputError(outcome)
    if isinstance(outcome, str):
        raise Failed(f"the policy failed in this trial:\n{outcome}")
    assert isinstance(outcome, Record)
    return outcome


def keep(scenario: Scenario, seed: int, engine: str, record: Record, out: Path, command: str) -> None:
    """Write a results directory of one trial, with its report.  Raises InputError where the directory holds something else."""
    from capray.sweeping import draw

    row = row_of(scenario, seed, record)
    manifest, results = manifest_of(scenario, seed, engine, out, command), Results(out)
    with results.writing(manifest) as rows:
        if not rows:
            results.append(row)
        results.finish(manifest, rows or [row])
    write_history(out / "history.jsonl.gz", record.history)
    draw(out)


def manifest_of(scenario: Scenario, seed: int, engine: str, out: Path, command: str) -> dict[str, Any]:
    """What stands in the directory of a single trial."""
    return {"format": FORMAT, "kind": "run", "name": out.name, "version": __version__, "engine": engine, "command": command,
            "spec": {"scenario": msgspec.to_builtins(scenario), "seed": seed}, "digest": "", "trials": 0}


def row_of(scenario: Scenario, seed: int, record: Record) -> dict[str, Any]:
    """The row of a single trial."""
    cuts = [window for window in record.faults if window.kind == "partition"]
    length = (cuts[0].until or record.end) - cuts[0].at if cuts else 0
    return {"key": f"{scenario.policy}|{scenario.nodes}|{seed:06d}", "label": scenario.policy, "policy": scenario.policy, "nodes": scenario.nodes, "seed": seed,
            "shape": cuts[0].shape if cuts else "none", "duration": show_us(length), "duration_us": length,
            "scenario": scenario.digest(), **measured(scenario, record)}
