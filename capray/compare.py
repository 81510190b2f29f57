"""`capray reproduce` and `capray compare`: the same run again, and two runs side by side.

Decides: what counts as equal, how differences are told.  May not know: how trials are run, what tells two points apart (capray.differences).
`reproduce` demands equal bytes: the digest, and every row.  `compare` looks at points, and serves as a gate: its status is 1 where one is told apart.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from heapq import merge
from importlib import import_module
from itertools import groupby
from pathlib import Path
from typing import Any

from capray.differences import Line, Thresholds, compare_rows, default_measures, parse_thresholds
from capray.engines import Where
from capray.errors import wrong
from capray.figures.style import show_value
from capray.recorded import measured_again
from capray.store import Results, Row, Rows, digest, in_order, placed
from capray.sweep import sweep_of

Manifest = dict[str, Any]
MOST_SHOWN = 100  # lines of the table of what differs

def reproduce_directory(directory: Path, engine: str, address: str | None, as_json: bool) -> int:
    """Run a directory's manifest again, elsewhere; 0 where digest and rows are equal, 1 (with a table of what differs) where not."""
    results = Results(directory)
    manifest = results.manifest()
    if not manifest.get("digest"):
        raise wrong("directory", str(directory), "a complete results directory; this one has no digest yet: run its command again first")
    there = results.ordered()
    with rerun(manifest, directory, engine or manifest["engine"], address) as rows:
        differences = list(row_differences(there, rows))
        now, trials = digest(rows), len(rows)
    equal = now == manifest["digest"] and not differences
    if as_json:
        print(json.dumps({"directory": str(directory), "equal": equal, "digest": manifest["digest"], "digest_there": digest(there), "digest_now": now,
                          "trials": trials, "differing": len(differences), "differences": differences[:MOST_SHOWN]}))
    else:
        print(f"{directory}: {'equal' if equal else 'DIFFERS'}: digest {manifest['digest']}" + ("" if equal else f", now {now}"))
        if not equal:
            _tell(manifest, there, differences)
    return 0 if equal else 1


def _tell(manifest: Manifest, there: Rows, differences: list[dict[str, Any]]) -> None:
    """What differs, for a person: a table, and whether the directory agrees with itself."""
    if digest(there) != manifest["digest"]:
        print("the rows in the directory have not the digest of its own manifest: one of the two was changed after it was written")
    shown = [[str(line[name]) for name in ("key", "column", "there", "now")] for line in differences[:MOST_SHOWN]]
    lines = [["trial", "column", "there", "now"], *shown]
    widths = [max(len(line[i]) for line in lines) for i in range(3)]
    for line in lines if shown else []:
        print("  ".join([*(text.ljust(width) for text, width in zip(line, widths)), line[3]]))
    trials = len({line["key"] for line in differences})
    more = f"; the first {MOST_SHOWN} are shown" if len(differences) > MOST_SHOWN else ""
    print(f"{len(differences)} values differ, in {trials} of {len(there)} trials{more}")


@contextmanager
def rerun(manifest: Manifest, directory: Path, engine: str, address: str | None) -> Iterator[Sequence[Row]]:
    """The rows of a directory's manifest, computed anew, in the order of their keys."""
    from capray.sweeping import STUDIES, run_shown

    if manifest["kind"] == "run":
        yield [_one_again(manifest, engine, address)]
    elif manifest["kind"] == "recorded":
        yield measured_again(manifest, directory)
    elif manifest["kind"] in STUDIES:
        yield in_order(import_module(STUDIES[manifest["kind"]][0]).rerun(manifest, engine, address))
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield run_shown(sweep_of(manifest), Path(folder) / "again", Where(engine=engine, address=address), "")[1]


def _one_again(manifest: dict[str, Any], engine: str, address: str | None) -> Row:
    from capray.onetrial import only, row_of
    from capray.sweeping import scenario_of_row

    scenario = scenario_of_row(manifest, {})
    return row_of(scenario, manifest["spec"]["seed"], only(scenario, manifest["spec"]["seed"], engine, address))


def row_differences(there: Iterable[Row], now: Iterable[Row]) -> Iterator[dict[str, Any]]:
    """Every column of every row that is not the same; both in the order of their keys."""
    both = merge(((str(row["key"]), 0, row) for row in there), ((str(row["key"]), 1, row) for row in now), key=lambda one: one[:2])
    rows = groupby(both, key=lambda one: one[0])
    for key, group in rows:
        found = {side: row for _, side, row in group}
        old, new = found.get(0), found.get(1)
        if old is None or new is None:
            yield {"key": key, "column": "(row)", "there": "present" if old else "absent", "now": "present" if new else "absent"}
            continue
        for column in sorted({*old, *new}):
            if old.get(column) != new.get(column) and not column.startswith("wall_"):
                yield {"key": key, "column": column, "there": old.get(column), "now": new.get(column)}


def compare_directories(
    first: Path, second: Path, measures: list[str], threshold: list[str], pairs: list[str], only_worse: bool, out: Path | None, as_json: bool,
) -> int:
    """Print the differences of two results directories; 1 where any point is told apart beyond its threshold (`only_worse`: for the worse), else 0."""
    a, b = Results(first), Results(second)
    one, other = _complete(a), _complete(b)
    rows_a, rows_b = placed(a.ordered(), first), placed(b.ordered(), second)
    limits = parse_thresholds(threshold)
    wanted = list(measures) or default_measures(rows_a, rows_b)
    _known([*measures, *limits.own], rows_a, rows_b)
    table = compare_rows(rows_a, rows_b, list(dict.fromkeys([*wanted, *limits.own])), limits, _pairs(pairs), "recorded" not in (one["kind"], other["kind"]))
    if not table:
        raise wrong("measure", " ".join(wanted[:6]), "a measure that both results have values of, in at least one point")
    if out is not None:
        from capray.report import write_comparison

        write_comparison(list(rows_a), list(rows_b), first.name, second.name, table, out)
    failing = [line for line in table if line["told_apart"] and (line["worse"] or not only_worse)]
    if as_json:
        for line in table:
            print(json.dumps(line))
    else:
        print_differences(table, only_worse)
    print(_said(table, failing, only_worse, out, limits), file=sys.stderr)
    return 1 if failing else 0


def _complete(results: Results) -> Manifest:
    manifest = results.manifest()
    if not manifest.get("digest"):
        print(f"{results.path}: not complete (no digest): what is finished there is compared", file=sys.stderr)
    return manifest


def _known(measures: list[str], a: Sequence[Row], b: Sequence[Row]) -> None:
    columns = {name for rows in (a, b) for row in rows for name in row} if measures else set()
    for measure in measures:
        if measure not in columns:
            close = get_close_matches(measure, sorted(columns), 4) or ["availability", "stale_share"]
            raise wrong("measure", measure, "a column of the tables, such as " + ", ".join(close))


def _pairs(texts: list[str]) -> dict[str, str]:
    found = {}
    for text in texts:
        one, equals, other = text.partition("=")
        if not equals or not one or not other:
            raise wrong("pair", text, "LABEL OF THE FIRST=LABEL OF THE SECOND")
        found[one] = other
    return found


def print_differences(table: list[Line], only_worse: bool) -> None:
    """A table of the differences: all where they are few, else those told apart, the surest first."""
    shown = sorted(table, key=lambda line: (not line["told_apart"], only_worse and not line["worse"])) if len(table) <= MOST_SHOWN else \
        [line for line in table if line["told_apart"]][:MOST_SHOWN]
    texts = [["point", "measure", "first", "second", "second - first [95 %]", "trials", ""]]
    for line in shown:
        first, second, change, low, high = (_number(line[name], line["measure"]) for name in ("first", "second", "difference", "low", "high"))
        texts.append([f"{line['label']}, {line['nodes']} nodes, {line['duration']}", line["measure"], first, second,
                      f"{change} [{low}, {high}]" if low else change, f"{line['trials']}{' paired' if line['paired'] else ''}", _verdict(line)])
    widths = [max(len(text[i]) for text in texts) for i in range(7)]
    for text in texts if shown else []:
        print("  ".join(part.ljust(width) for part, width in zip(text, widths)).rstrip())
    if len(shown) < len(table):
        print(f"({len(shown)} of {len(table)} lines shown: those told apart; --json prints all)")


def _number(value: float | None, measure: str) -> str:
    """A value as a person writes it: a duration with its unit."""
    if value is None:
        return ""
    return ("-" if value < 0 else "") + show_value(abs(value), "us") if measure.endswith("_us") else f"{value:.4g}"


def _verdict(line: Line) -> str:
    if line["told_apart"] is None:
        return "one trial: no interval"
    return ("worse" if line["worse"] else "better" if line["worse"] is False else "different") if line["told_apart"] else "not told apart"


def _said(table: list[Line], failing: list[Line], only_worse: bool, out: Path | None, limits: Thresholds) -> str:
    apart = sum(line["told_apart"] is True for line in table)
    alone = sum(line["low"] is None for line in table)
    said = [f"{len(table)} points and measures compared, {apart} told apart" + (" beyond the threshold" if limits != Thresholds() else "")
            + (f", {len(failing)} of them worse" if only_worse else "")]
    if any(line["low"] is not None and line["low"] != line["high"] for line in table):
        said.append(f"of {len(table)} that do not differ, 95 % intervals would tell about {len(table) / 20:.2g} apart by chance")
    if alone:
        said.append(f"{alone} of single trials, without an interval")
    said.append(f"figures: {out}" if out is not None else "--out PAGE.html draws the figures overlaid")
    return "; ".join(said)
