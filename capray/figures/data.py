"""Rows of a sweep -> lines, points and intervals: what every figure and table of the report is drawn from.

Decides: which rows make a point, and what a column means in a trial without a cut.  May not know: how a point is drawn, how a measure is
defined.  A row is one trial: its coordinates (`label`, `nodes`, `duration`, `duration_us`, `shape`, `seed`) and METRICS.md's measures.
Intervals are over seeds only (METRICS.md "Statistics"): rows of one seed are averaged first.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from capray.errors import show_us
from capray.stats import mean_interval, wilson_interval

Row = dict[str, Any]
DEFAULT_DEADLINE_US = 1_000_000  # capray.workload.Workload.deadline_us
_NARROWED = re.compile(r"_during(?=_|$)(_(majority|minority|largest))?")


class Estimate(NamedTuple):
    """A mean over seeds with its 95 % interval (None with one seed), and the number of trials behind it."""

    mean: float
    low: float | None
    high: float | None
    trials: int


class Point(NamedTuple):
    """One point of a line: `duration` as the sweep writes it (`10s`, or a named distribution), its mean length, and its trials."""

    duration: str
    duration_us: float
    rows: list[Row]


def ordered(rows: Iterable[Row], names: Sequence[str] = ()) -> list[Row]:
    """The rows in a fixed order, whatever order they were finished in: labels as in `names` (the sweep's variants), others by name; then size,
    duration, seed."""
    place = {name: i for i, name in enumerate(names)}
    return sorted(
        rows,
        key=lambda row: (
            place.get(str(row.get("label")), len(place)),
            str(row.get("label")),
            row.get("nodes") or 0,
            row.get("duration_us") or 0,
            str(row.get("duration")),
            row.get("seed") or 0,
        ),
    )


def tidy(rows: Iterable[Row]) -> list[Row]:
    """The rows with every coordinate filled in.  Where one label was cut in several shapes, the shape joins the label, and a trial without a
    cut stands for each of them."""
    rows = [_filled(row) for row in rows]
    shapes: dict[str, list[str]] = {}
    for row in rows:
        seen = shapes.setdefault(row["label"], [])
        if row["shape"] != "none" and row["shape"] not in seen:
            seen.append(row["shape"])
    out = []
    for row in rows:
        several = shapes[row["label"]]
        if len(several) < 2:
            out.append(row)
            continue
        out += [{**row, "label": f"{row['label']}, {shape}"} for shape in several if row["shape"] in (shape, "none")]
    return out


def _filled(row: Row) -> Row:
    us = row.get("duration_us") or 0
    filled = {
        "label": str(row.get("label") or row.get("policy") or "?"),
        "nodes": row.get("nodes") or 0,
        "duration_us": us,
        "duration": str(row.get("duration") or show_us(us)),
        "shape": str(row.get("shape") or ("none" if not us else "cut")),
        "seed": row.get("seed", 0),
    }
    whole = all(name in row and row[name] == value for name, value in filled.items())
    return row if whole else {**row, **filled}  # a sweep's rows are whole, and may be many


def labels(rows: Iterable[Row]) -> list[str]:
    """The lines, in the order of their first row."""
    return list(dict.fromkeys(row["label"] for row in rows))


def sizes(rows: Iterable[Row]) -> list[int]:
    """The numbers of nodes, ascending."""
    return sorted({row["nodes"] for row in rows})


def main_size(rows: Sequence[Row]) -> int:
    """The cluster size that figures open with: the one with most durations; of those the nearest to 5."""
    durations = {n: len({row["duration"] for row in rows if row["nodes"] == n}) for n in sizes(rows)}
    return min(durations, key=lambda n: (-durations[n], abs(n - 5), n), default=0)


def line(rows: Iterable[Row], label: str, nodes: int) -> list[Point]:
    """The points of one line by duration, shortest first."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        if row["label"] == label and row["nodes"] == nodes:
            found.setdefault(row["duration"], []).append(row)
    points = [Point(duration, sum(row["duration_us"] for row in group) / len(group), group) for duration, group in found.items()]
    return sorted(points, key=lambda point: (point.duration_us, point.duration))


def value(row: Row, column: str) -> float | None:
    """A measure of one trial.  In a trial without a cut there is no `during` and there are no sides: the same measure over the whole trial."""
    found = row.get(column)
    if found is None and not row["duration_us"]:
        found = row.get(_NARROWED.sub("", column))
    return None if found is None or isinstance(found, str) else float(found)


def narrow(rows: Iterable[Row], columns: Iterable[str]) -> list[Row]:
    """The rows with these columns alone (and, for a trial without a cut, what stands for them): a row of all measures takes some 30 kB."""
    kept = list(dict.fromkeys(one for column in columns for one in (column, _NARROWED.sub("", column))))
    seen: dict[Any, Any] = {}  # equal values are one: most are 0, 1 or null
    return [{name: seen.setdefault((type(row[name]), row[name]), row[name]) for name in kept if row.get(name) is not None} for row in rows]


def by_seed(rows: Iterable[Row], of: Callable[[Row], float | None]) -> dict[int, list[float]]:
    """The values that are known, by seed."""
    out: dict[int, list[float]] = {}
    for row in rows:
        known = of(row)
        if known is not None:
            out.setdefault(row["seed"], []).append(known)
    return out


def estimate(rows: Iterable[Row], column: str) -> Estimate | None:
    """Mean and interval of a column over seeds; None where no trial has it."""
    return estimate_of(by_seed(rows, lambda row: value(row, column)))


def estimate_of(seeds: dict[int, list[float]]) -> Estimate | None:
    """Mean and interval over seeds, each seed's trials averaged first; None without any."""
    if not seeds:
        return None
    mean, low, high = mean_interval([sum(values) / len(values) for values in seeds.values()])
    return Estimate(mean, low, high, sum(len(values) for values in seeds.values()))


def share_linearizable(rows: Sequence[Row]) -> Estimate | None:
    """The share of trials with verdict `valid` among those with a verdict, with Wilson's interval; None where there is none."""
    verdicts = [row["linearizable"] for row in rows if row.get("linearizable") in ("valid", "invalid")]
    if not verdicts:
        return None
    good = verdicts.count("valid")
    low, high = wilson_interval(good, len(verdicts)) if len(verdicts) > 1 else (None, None)
    return Estimate(good / len(verdicts), low, high, len(verdicts))


def first_known(rows: Sequence[Row], *columns: str) -> str:
    """The first of the columns that any row has a value in; the last where none has."""
    return next((column for column in columns if any(row.get(column) is not None for row in rows)), columns[-1])


def healthy(rows: Iterable[Row]) -> list[Row]:
    """The trials without a cut."""
    return [row for row in rows if not row["duration_us"]]


def partitioned(rows: Iterable[Row], deadline_us: int) -> list[Row]:
    """The trials whose cut was longer than the clients' deadline."""
    return [row for row in rows if row["duration_us"] > deadline_us]


class LogLike(NamedTuple):
    """A log-like scale that also shows 0: straight from 0 to `unit` (one step), then one step for each factor of `base`."""

    unit: float
    base: float

    def __call__(self, x: float) -> float:
        if x <= self.unit:
            return max(x, 0.0) / self.unit
        return 1 + math.log(x / self.unit, self.base)

    @classmethod
    def of_durations(cls, durations_us: Iterable[float]) -> LogLike:
        """Doublings from the shortest cut on."""
        return cls(min((us for us in durations_us if us > 0), default=1_000_000), 2)

    @classmethod
    def of_values(cls, values: Iterable[float], decades: int = 6) -> LogLike:
        """Decades from the power of ten at or below the smallest value, at most so many below the largest."""
        known = [x for x in values if x > 0]
        if not known:
            return cls(1, 10)
        lowest = max(min(known), max(known) / 10**decades)
        return cls(10 ** math.floor(math.log10(lowest)), 10)

    def decades(self, top: float) -> list[float]:
        """0, the unit and its multiples by ten, to the first at or above `top`."""
        ticks = [0.0, self.unit]
        while ticks[-1] < top:
            ticks.append(ticks[-1] * 10)
        return ticks


def thinned(ticks: Sequence[tuple[float, str]], gap: float) -> list[tuple[float, str]]:
    """Ticks (place, text) at least `gap` apart, the first and the last kept."""
    kept: list[tuple[float, str]] = []
    for tick in sorted(ticks):
        if not kept or tick[0] - kept[-1][0] >= gap:
            kept.append(tick)
        elif tick == max(ticks) and len(kept) > 1:
            kept[-1] = tick
    return kept
