"""`capray reproduce` and `capray compare`: the same run again, and two runs side by side.

Decides: what counts as equal, what counts as told apart.  May not know: how trials are run.
`reproduce` demands equal bytes: the digest, and every row.  `compare` looks at points: where both runs used the same seeds the differences are
paired, otherwise independent; two points are told apart where the 95 % interval of their difference excludes 0 by more than the threshold.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from heapq import merge
from importlib import import_module
from itertools import groupby
from pathlib import Path
from typing import Any

import msgspec

from capray.engines import Where
from capray.errors import wrong
from capray.store import Results, Row, Rows, digest, in_order
from capray.sweep import Sweep

Manifest = dict[str, Any]
MOST_SHOWN = 100  # lines of the table of what differs

DEFAULT_MEASURES = ("availability", "availability_worst_node", "stale_share", "staleness_max_us", "divergence_area", "lost_writes", "latency_p99_us",
                    "p_fresh_0", "read_p99_us", "write_p99_us", "p_within_2")


def reproduce_directory(directory: Path, engine: str, address: str | None, as_json: bool) -> int:
    """Run a directory's manifest again, elsewhere; 0 where digest and rows are equal, 1 (with a table of what differs) where not."""
    results = Results(directory)
    manifest = results.manifest()
    if not manifest.get("digest"):
        raise wrong("directory", str(directory), "a complete results directory; this one has no digest yet: run its command again first")
    there = results.ordered()
    with rerun(manifest, engine or manifest["engine"], address) as rows:
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
    print(f"{len(differences)} values differ, in {trials} of {len(there)} trials" + (f"; the first {MOST_SHOWN} are shown" if len(differences) > MOST_SHOWN else ""))


@contextmanager
def rerun(manifest: Manifest, engine: str, address: str | None) -> Iterator[Sequence[Row]]:
    """The rows of a manifest, computed anew, in the order of their keys."""
    from capray.sweeping import STUDIES, run_shown

    if manifest["kind"] == "run":
        yield [_one_again(manifest, engine, address)]
    elif manifest["kind"] in STUDIES:
        yield in_order(import_module(STUDIES[manifest["kind"]][0]).rerun(manifest, engine, address))
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield run_shown(msgspec.convert(manifest["spec"], Sweep), Path(folder) / "again", Where(engine=engine, address=address), "")[1]


def _one_again(manifest: dict[str, Any], engine: str, address: str | None) -> Row:
    from capray.onetrial import only, row_of
    from capray.scenario import Scenario

    scenario = msgspec.convert(manifest["spec"]["scenario"], Scenario).resolved()
    return row_of(scenario, manifest["spec"]["seed"], only(scenario, manifest["spec"]["seed"], engine, address))


def row_differences(there: Iterable[Row], now: Iterable[Row]) -> Iterator[dict[str, Any]]:
    """Every column of every row that is not the same; both in the order of their keys."""
    rows = groupby(merge(((str(row["key"]), 0, row) for row in there), ((str(row["key"]), 1, row) for row in now), key=lambda one: one[:2]), key=lambda one: one[0])
    for key, group in rows:
        found = {side: row for _, side, row in group}
        old, new = found.get(0), found.get(1)
        if old is None or new is None:
            yield {"key": key, "column": "(row)", "there": "present" if old else "absent", "now": "present" if new else "absent"}
            continue
        for column in sorted({*old, *new}):
            if old.get(column) != new.get(column) and not column.startswith("wall_"):
                yield {"key": key, "column": column, "there": old.get(column), "now": new.get(column)}


def compare_directories(first: Path, second: Path, measures: list[str], threshold: float, out: Path | None, as_json: bool) -> int:
    """Print the differences of two results directories; 1 where any point is told apart by more than the threshold, else 0."""
    rows_a, rows_b = Results(first), Results(second)
    rows_a.manifest()
    rows_b.manifest()
    table = compare_rows(rows_a.rows(), rows_b.rows(), list(measures) or list(DEFAULT_MEASURES), threshold)
    if not table:
        raise wrong("directories", f"{first} and {second}", "two results that share at least one point (label, nodes, duration) and measure")
    apart = [line for line in table if line["told_apart"]]
    if out is not None:
        from capray.report import write_comparison

        write_comparison(rows_a.rows(), rows_b.rows(), first.name, second.name, table, out)
    for line in table if as_json else apart or table[:0]:
        print(json.dumps(line) if as_json else
              f"{line['label']}, {line['nodes']} nodes, {line['duration']}: {line['measure']} {line['first']:.6g} -> {line['second']:.6g} "
              f"(difference {line['difference']:.4g}, 95 % {line['low']} to {line['high']}, {line['trials']} trials)")
    print(f"{len(table)} points and measures compared, {len(apart)} told apart", file=sys.stderr)
    return 1 if apart else 0


def compare_rows(a: list[Row], b: list[Row], measures: list[str], threshold: float) -> list[dict[str, Any]]:
    """One dict for each point and measure that both have: means, difference with interval, and whether they are told apart."""
    from capray.stats import difference, summary

    first, second = _points(a), _points(b)
    out = []
    for place in first:
        if place not in second:
            continue
        for measure in measures:
            old = {row["seed"]: row.get(measure) for row in first[place] if row.get(measure) is not None}
            new = {row["seed"]: row.get(measure) for row in second[place] if row.get(measure) is not None}
            if not old or not new:
                continue
            found = difference(old, new)
            if found.mean is None:
                continue
            apart = abs(found.mean) > threshold and (found.mean != 0 if found.apart is None else found.apart)
            out.append({"label": place[0], "nodes": place[1], "duration": place[2], "measure": measure,
                        "first": summary(list(old.values()))["mean"], "second": summary(list(new.values()))["mean"], "difference": found.mean,
                        "low": found.low, "high": found.high, "trials": found.trials, "paired": found.paired, "told_apart": apart})
    return out


def _points(rows: list[Row]) -> dict[tuple[str, int, str], list[Row]]:
    out: dict[tuple[str, int, str], list[Row]] = {}
    for row in in_order(rows):
        out.setdefault((row["label"], row["nodes"], row["duration"]), []).append(row)
    return out
