"""Histories and traces out of runs and results directories: JSON Lines, EDN, ShiViz's log.

Decides: which trial is exported, and what is said where it cannot be.  May not know: the formats themselves (capray.history, capray.shiviz).
A sweep keeps measurements, not histories: a trial's history is made again, and its digest compared with the row's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from capray.errors import InputError, duration_us, wrong
from capray.history import write_history
from capray.record import Record
from capray.recorded import FOLDER, record_of, runs_of
from capray.scenario import Scenario
from capray.shiviz import shiviz
from capray.store import Results, Row
from capray.sweeping import replay, scenario_of_row

MOST_KEYS = 5


def trace_window(text: str | None, scenario: Scenario) -> tuple[int, int]:
    """`9.9s,11s` in microseconds; None: the scenario's own window, or the whole trial.  Raises InputError."""
    if text is None:
        return (scenario.trace_us[0], scenario.trace_us[1]) if scenario.trace_us else (0, scenario.end_us + 1)
    parts = text.split(",")
    if len(parts) != 2:
        raise wrong("trace", text, "FROM,TO such as 9.9s,11s")
    start, end = (duration_us(part.strip(), "trace") for part in parts)
    if start >= end:
        raise wrong("trace", text, "a window that begins before it ends")
    return start, end


def write_file(path: Path, text: str) -> None:
    """A file, or an InputError in one line."""
    try:
        path.write_text(text)
    except OSError as error:
        raise wrong("file", str(path), f"a file that can be written ({error.strerror})") from None


def save_history(path: Path, record: Record) -> None:
    """A history in the form that its name says.  Raises InputError where it cannot be written."""
    try:
        write_history(path, record.history)
    except OSError as error:
        raise wrong("history", str(path), f"a file that can be written ({error.strerror})") from None


def export_trial(directory: Path, key: str | None, history: Path | None, log: Path | None, window: str | None) -> str:
    """Write what was asked for of one trial of a results directory.  Returns the trial's key.  Raises InputError."""
    if history is None and log is None:
        raise InputError("export: nothing was asked for; it takes --history FILE.jsonl or FILE.edn (.gz), --shiviz FILE, or both")
    results = Results(directory)
    manifest, row = results.manifest(), _row(results.ordered(), key)
    if manifest["kind"] == "recorded":
        if log is not None:
            raise wrong("shiviz", str(log), "a simulated trial: a recorded run holds no messages")
        place = tuple(row[name] for name in ("label", "nodes", "duration", "seed"))
        run = next(run for run in runs_of(manifest) if (run.label, run.nodes, run.duration, run.seed) == place)
        record = record_of(run, directory / FOLDER / run.history)
    else:
        record = replay(manifest, row, None if log is None else trace_window(window, scenario_of_row(manifest, row)))
        if log is not None:
            write_file(log, shiviz(record))
    if history is not None:
        save_history(history, record)
    return str(row["key"])


def _row(rows: Sequence[Row], key: str | None) -> Row:
    if len(rows) == 1 and key is None:
        return rows[0]
    found = next((row for row in rows if row["key"] == key), None)
    if found is None:
        some = ", ".join(repr(str(row["key"])) for row in rows[:MOST_KEYS])
        raise wrong("trial", key or "", f"the key of one of the {len(rows)} trials: {some}{', ...' if len(rows) > MOST_KEYS else ''}")
    return found
