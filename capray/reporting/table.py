"""Every trial in the page: the rows as compact columns of JSON, which the page's script sorts, filters and pages through.

Decides: which columns a page holds, and how they are packed.  May not know: figures, what a measure means.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from capray.figures.data import Row
from capray.replay import replay_command
from capray.reporting.definitions import CAPTIONS, DEFINITIONS, SUMMARY, definition_of
from capray.reporting.packing import embedded

COORDINATES = ("label", "nodes", "duration", "shape", "seed")
PICKERS = ("label", "nodes", "duration", "shape")
TABLE_BYTES = 4_000_000
MOST_ROWS = 4_000
ESSENTIAL = (
    "availability_during",
    "availability_during_minority",
    "availability_during_majority",
    "availability_worst_node_during",
    "linearizable",
    "stale_share",
    "staleness_max_us",
    "lost_writes",
    "divergence_area",
    "convergence_us",
)
FIRST = tuple(dict.fromkeys((  # the columns that come first, where not all fit
    *ESSENTIAL, *(name for one in CAPTIONS.values() for name in one.columns), *(name for one in DEFINITIONS for name in (one.measure, one.measure + "_us")),
    *(name for _, name, _ in SUMMARY))))


def trials_table(rows: Sequence[Row], manifest: Mapping[str, Any], deadline_us: int, stand_for: int = 0) -> str:
    """The section.  `stand_for`: the trials that the rows are the means of, where they are points."""
    unit = f"points (each the mean over its trials, {stand_for} in all)" if stand_for else "trials"
    shown: list[Row] = [{**row, "label": row.get("label") or row.get("policy"), "replay": row.get("replay") or _template(manifest, row)} for row in rows]
    packed, left = packed_columns(shown)
    coordinates = [name for name in COORDINATES if name in packed]
    meta = {
        "deadline_us": deadline_us,
        "coordinates": coordinates,
        "pickers": [name for name in PICKERS if name in packed],
        "unit": unit,
        "command": str(manifest.get("command", "")),
        "columns": coordinates + [name for name in ESSENTIAL if name in packed],
        "titles": {name: one.text for name in packed if (one := definition_of(name))},
    }
    note = f" {left} columns that do not fit are in the directory's table.csv and table.parquet." if left else ""
    return (
        "<section id=trials><h2>All trials</h2><p class=caption>A click on a heading sorts, a click on a row shows all its measures and the "
        "command that replays it. Numbers are rounded to five "
        f"digits here; columns that are null in every trial are not shown.{note}</p><div class=controls><span id=pickers></span><select id=cut "
        f"aria-label=cut><option value=''>any cut</option>"
        "<option value=healthy>no cut</option><option value=partitioned>longer than the deadline</option></select><input id=find type=search "
        "placeholder='find' aria-label=find>"
        "<label><input type=checkbox id=all-columns> all columns</label><button id=reset>reset</button><button id=before>&larr;</button><button "
        "id=after>&rarr;</button>"
        "<span id=matching class=faint></span></div><div class=scroll><table id=trials-table></table></div><div id=trial-detail></div>"
        + embedded("rows", {"count": len(shown), "columns": packed})
        + embedded("meta", meta)
        + "</section>"
    )


def _template(manifest: Mapping[str, Any], row: Row) -> str:
    """The replay command with `{seed}` for the seed, so that the trials of a point share one text."""
    command, seed = replay_command(manifest, row), f"--seed {row.get('seed')} "
    return command.replace(seed, "--seed {seed} ", 1) if command.count(seed) == 1 else command


def points(rows: Iterable[Row], manifest: Mapping[str, Any]) -> list[Row]:
    """One row a point, for sweeps of more trials than a page should hold: of the columns that come first.  Rows of one point stand together."""
    out = []
    for _, group in groupby(rows, key=lambda row: tuple(row.get(name) for name in ("label", "nodes", "duration", "shape"))):
        first = next(group)
        one: Row = {**{name: first.get(name) for name in (*COORDINATES, "policy", "duration_us")}, "replay": _template(manifest, first)}
        sums: dict[str, list[float]] = {}
        trials = 0
        for row in (first, *group):
            trials += 1
            for name in FIRST:
                if name not in one and isinstance(row.get(name), (int, float)):
                    total = sums.setdefault(name, [0, 0])
                    total[0] += row[name]
                    total[1] += 1
        out.append({**one, "trials": trials, **{name: total / known for name, (total, known) in sums.items()}})
    return out


def packed_columns(rows: Sequence[Row]) -> tuple[dict[str, Any], int]:
    """The rows as columns of JSON within TABLE_BYTES, the important ones first, and how many columns did not fit.  A column of words is a list of
    places in its vocabulary; one that repeats an earlier column names it; one that is null everywhere is left out."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    first = dict.fromkeys((*COORDINATES, "policy", "duration_us", "replay", "trials", *FIRST))
    packed: dict[str, Any] = {}
    seen: dict[str, str] = {}
    spent = left = 0
    for name in [*(name for name in first if name in names), *(name for name in names if name not in first and name not in ("key", "wall_rounds"))]:
        column = [_rounded(row.get(name)) for row in rows]
        if all(value is None for value in column):
            continue
        entry = _packed(column)
        text = json.dumps(entry, separators=(",", ":"))
        same = seen.get(text)
        entry, size = ({"same": same}, 40) if same else (entry, len(text) + len(name) + 8)
        if spent + size > TABLE_BYTES:
            left += 1
            continue
        seen.setdefault(text, name)
        packed[name] = entry
        spent += size
    return packed, left


def _packed(column: list[Any]) -> dict[str, Any]:
    if any(isinstance(value, str) for value in column):
        words = list(dict.fromkeys(str(value) for value in column if value is not None))
        place = {word: i for i, word in enumerate(words)}
        return {"words": words, "at": [-1 if value is None else place[str(value)] for value in column]}
    return {"values": column}


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < 1e15 else float(f"{value:.5g}")
    return json.dumps(value) if isinstance(value, (dict, list)) else value
