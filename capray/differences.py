"""Two tables of trials -> the differences of their points, each with its interval, and whether it is told apart.

Decides: which points of two results belong together, whether their trials are paired, what counts as told apart, which way is worse.  May not know:
how trials are run, how a difference is shown.
Source: METRICS.md "Statistics".

A point is a label, a number of nodes and a length of the cut.  Labels belong together where they are equal, where the user says so, or where each
table has only one; lengths where they are written alike, else the nearest within 5 % (a real cut is never exactly as long as it was meant to be).
Where both used the same seeds the differences are paired (they met the same requests), otherwise independent (Welch); recorded runs of a real store
are never paired.  Two points are told apart where the 95 % interval of their difference lies wholly beyond the threshold, on either side of 0.  A single
trial has no interval (`low` and `high` are null): under one seed any difference beyond the threshold counts, for it is no noise; otherwise one trial tells
nothing (`told_apart` is null).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from capray.errors import UNITS_US, InputError, duration_us, wrong
from capray.stats import Difference, difference, independent_difference, summary
from capray.store import Row

DEFAULT_MEASURES = (
    "availability", "availability_during", "availability_during_minority", "availability_during_majority", "availability_worst_node", "linearizable",
    "stale_share", "staleness_max_us", "lost_writes", "conflicts", "divergence_area", "convergence_us", "convergence_censored", "failover_write_us",
    "recovery_first_write_us", "latency_p99_us", "p_fresh_0", "read_p99_us", "write_p99_us", "p_within_2",
)
HIGHER_IS_BETTER = ("availability", "allowed_", "cap_available", "linearizable", "p_fresh", "p_within")
LOWER_IS_BETTER = (
    "stale", "versions_behind", "gamma", "read_your_writes", "monotonic", "writes_follow_reads", "lost_writes", "never_visible", "conflicts", "divergence",
    "convergence", "latency", "unanswered", "failover", "gap", "recovery", "read_p", "write_p", "messages_per_op", "bytes_per_op",
)
COORDINATES = ("key", "label", "policy", "nodes", "seed", "shape", "duration", "duration_us", "scenario", "record")
NEAR = 0.05
Line = dict[str, Any]
Place = tuple[str, int, str]  # label, nodes, duration


class Point(NamedTuple):
    """One point of a table: the mean length of its cuts, and each measure's known values by seed."""

    duration_us: float
    values: dict[str, dict[int, Any]]


class Thresholds(NamedTuple):
    """How large a difference may be: of every measure, or of one by its name."""

    every: float = 0.0
    own: Mapping[str, float] = {}

    def of(self, measure: str) -> float:
        """The largest difference that is accepted."""
        return self.own.get(measure, self.every)


def parse_thresholds(texts: Sequence[str]) -> Thresholds:
    """From `0.01`, `availability=0.01`, `convergence_us=500ms`.  Raises InputError."""
    every, own = 0.0, {}
    for text in texts:
        name, equals, value = text.rpartition("=")
        number = _number(value, name)
        if number < 0 or (equals and not name):
            raise wrong("threshold", text, "NUMBER or MEASURE=NUMBER, 0 or more; durations with a unit: convergence_us=500ms")
        if equals:
            own[name] = number
        else:
            every = number
    return Thresholds(every, own)


def _number(text: str, measure: str) -> float:
    try:
        if measure.endswith("_us") and text.strip().endswith(tuple(UNITS_US)):
            return float(duration_us(text, "threshold"))
        number = float(text)
    except (InputError, ValueError):
        return -1.0
    return number if number < float("inf") else -1.0


def points_of(rows: Iterable[Row], measures: Sequence[str]) -> dict[Place, Point]:
    """The points of a table, in the order of their keys."""
    lengths: dict[Place, list[float]] = {}
    values: dict[Place, dict[str, dict[int, Any]]] = {}
    for row in sorted(rows, key=lambda row: str(row["key"])):
        place = (str(row["label"]), int(row["nodes"]), str(row["duration"]))
        lengths.setdefault(place, []).append(row.get("duration_us") or 0)
        known = values.setdefault(place, {})
        for measure in measures:
            if row.get(measure) is not None:
                known.setdefault(measure, {})[row["seed"]] = row[measure]
    return {place: Point(sum(us) / len(us), values[place]) for place, us in lengths.items()}


def matched(a: Mapping[Place, Point], b: Mapping[Place, Point], pairs: Mapping[str, str]) -> Iterator[tuple[Place, Place]]:
    """The places of both tables that belong together.  Raises InputError for a pair whose label is not there."""
    ours, theirs = ({label for label, _, _ in places} for places in (a, b))
    for one, other in pairs.items():
        if one not in ours or other not in theirs:
            raise wrong("pair", f"{one}={other}", f"a label of the first results ({_some(ours)}) and one of the second ({_some(theirs)})")
    if not pairs and not ours & theirs and len(ours) == len(theirs) == 1:
        pairs = {min(ours): min(theirs)}
    for place in a:
        label = pairs.get(place[0], place[0])
        same = {other[2]: other for other in b if other[:2] == (label, place[1])}
        if place[2] in same:
            yield place, same[place[2]]
            continue
        near = min(same.values(), key=lambda other: abs(b[other].duration_us - a[place].duration_us), default=None)
        if near is not None and 0 < abs(b[near].duration_us - a[place].duration_us) <= NEAR * min(b[near].duration_us, a[place].duration_us):
            yield place, near


def _some(labels: Iterable[str]) -> str:
    known = sorted(labels)
    return ", ".join(repr(label) for label in known[:12]) + (", ..." if len(known) > 12 else "")


def compare_rows(
    a: Iterable[Row], b: Iterable[Row], measures: Sequence[str], threshold: float | Thresholds = 0.0, pairs: Mapping[str, str] | None = None,
    same_requests: bool = True,
) -> list[Line]:
    """One dict for each point and measure that both have: `label nodes duration measure first second difference low high trials paired told_apart worse`.

    Differences are second - first.  `worse`: whether the second is the worse one; null where it is no different, or the measure has no better end.
    `same_requests`: whether trials under one seed met the same requests.  Raises InputError where nothing belongs together.
    """
    limits = threshold if isinstance(threshold, Thresholds) else Thresholds(threshold)
    first, second = points_of(a, measures), points_of(b, measures)
    both = list(matched(first, second, pairs or {}))
    if not both:
        labels = [_some({label for label, _, _ in points}) for points in (first, second)]
        raise InputError(f"compare: no point (label, nodes, length of the cut) is in both results: the first has {labels[0]}, the second {labels[1]}; "
                         "--pair FIRST=SECOND says which labels belong together")
    out = []
    for here, there in both:
        for measure in measures:
            old, new = first[here].values.get(measure), second[there].values.get(measure)
            if old and new:
                found = difference(old, new) if same_requests else independent_difference(list(old.values()), list(new.values()))
                if same_requests and len(old) == 1 and old.keys() == new.keys():
                    found = found._replace(paired=True)
                means = [summary(list(values.values()))["mean"] for values in (old, new)]
                out.append({**_place(here, there), "measure": measure, "first": means[0], "second": means[1], **_told(measure, found, limits.of(measure))})
    return out


def _place(here: Place, there: Place) -> Line:
    return {"label": here[0] if here[0] == there[0] else f"{here[0]} -> {there[0]}", "nodes": here[1], "duration": here[2]}


def default_measures(a: Sequence[Row], b: Sequence[Row]) -> list[str]:
    """What is compared unless something is asked for: of DEFAULT_MEASURES those that any row of both has; where there is none (a study has measures of
    its own), every number of both."""
    ours, theirs = ({name for row in rows for name, value in row.items() if isinstance(value, (int, float)) or name == "linearizable"} for rows in (a, b))
    both = sorted(name for name in ours & theirs if name not in COORDINATES and not name.startswith("wall_"))
    return [name for name in DEFAULT_MEASURES if name in both] or both


def _told(measure: str, found: Difference, limit: float) -> Line:
    assert found.mean is not None
    apart: bool | None = None
    if found.low is not None and found.high is not None:
        apart = found.low > limit or found.high < -limit
    elif found.paired:
        apart = abs(found.mean) > limit
    return {"difference": found.mean, "low": found.low, "high": found.high, "trials": found.trials, "paired": found.paired,
            "told_apart": apart, "worse": worse(measure, found.mean)}


def worse(measure: str, change: float) -> bool | None:
    """Whether a change of a measure is for the worse; null where it is none, or where the measure has no better end."""
    if not change:
        return None
    if measure.startswith(HIGHER_IS_BETTER):
        return change < 0
    return change > 0 if measure.startswith(LOWER_IS_BETTER) else None
