"""A study of elections: one trial, one election; how long there was no leader, held against what was published.

Decides: what an election's row holds, what the rows of a range add up to, what counts as agreeing.  May not know: how members elect.
`low` and `high` are a 95 % interval: normal for the mean, order statistics (the ranks n q +- z sqrt(n q (1 - q))) for quantiles.  `within`: the
99.9 % interval meets the published value with its tolerance, so that with few elections only what is told apart from it is called different.
Sources: Ongaro and Ousterhout, ATC 2014, figure 16 (digitised from the author's figure); Ongaro's thesis, 9.2 (split votes).
"""

from __future__ import annotations

import tempfile
from math import comb, inf, sqrt
from pathlib import Path
from typing import Any

import msgspec
import plotly.graph_objects as go

from capray.engines import run
from capray.errors import InputError
from capray.figures.style import looks, style
from capray.record import Record
from capray.store import Results, Row
from capray.sweep import Sweep, coordinates, manifest_of, points, scenario_of

KIND = "elections"
PUBLISHED_SERVERS = 5
# Timeout range -> measure -> ms.
PUBLISHED: dict[str, dict[str, float]] = {
    "150-155": {"mean": 345.0, "p10": 119.2, "median": 287.3, "p90": 609.4, "p99": 1242.0},
    "150-200": {"mean": 155.9, "p10": 110.5, "median": 146.5, "p90": 193.5, "p99": 352.0},
    "150-300": {"mean": 180.6, "p10": 124.7, "median": 171.3, "p90": 244.3, "p99": 414.6},
    "12-24": {"mean": 34.7, "p10": 19.7, "median": 30.0, "p90": 53.0, "p99": 86.9},
}
TOLERANCE = {"mean": 0.07, "p10": 0.15, "median": 0.07, "p90": 0.20, "p99": 0.15}
QUANTILES = {"p10": (10, 100), "median": (50, 100), "p90": (90, 100), "p99": (99, 100)}
Z, SURE_Z = 1.959964, 3.290527  # the standard normal's 97.5 % and 99.95 % points
SPLITS = (0.01, 0.1, 0.2)  # latency over the width of the timeout range
SPLIT_LATENCY_US = 10_000


# ---- the trials ---------------------------------------------------------------------------------------------------------------------
def run_elections(sweep: Sweep, directory: Path, engine: str, address: str | None, in_flight: int = 512, command: str = "") -> tuple[str, list[Row]]:
    """Run what is not there yet; every election is a row.  A variant's trials differ by their seeds alone.  Raises InputError where one failed."""
    results, manifest = Results(directory), {**manifest_of(sweep, engine, command), "kind": KIND}
    with results.writing(manifest) as rows:
        done = {row["key"] for row in rows}
        jobs: list[tuple[int, Any, int]] = []
        places: list[Row] = []
        for point in points(sweep):
            scenario = scenario_of(sweep, point, 0)
            place = coordinates(sweep, point, scenario, 0)
            for seed in range(sweep.first_seed, sweep.first_seed + sweep.seeds):
                key = f"{point.variant.label}|{point.nodes}|0s|{seed:06d}"
                if key not in done:
                    places.append({**place, "key": key, "seed": seed})
                    jobs.append((len(jobs), scenario, seed))
        for number, record, _ in run(jobs, engine, address, in_flight) if jobs else ():
            if isinstance(record, str):
                raise InputError(f"election {places[number]['key']} failed: {record}")
            row = {**places[number], "record": record.digest(), **measured(record)}
            results.append(row)
            rows.append(row)
        return results.finish(manifest, rows), rows


def rerun(manifest: dict[str, Any], engine: str, address: str | None) -> list[Row]:
    """The rows of a manifest, computed anew."""
    with tempfile.TemporaryDirectory() as folder:
        return run_elections(msgspec.convert(manifest["spec"], Sweep), Path(folder) / "again", engine, address)[1]


def measured(record: Record) -> dict[str, int | None]:
    """From the crash, and from the trial's beginning, until another survivor first hears the new leader's append; null if the trial ended first."""
    crash = next((window.at for window in record.faults if window.kind == "crash-host"), None)
    heard = min((event.arrived for event in record.trace if event.label == "Append" and event.arrived is not None), default=None)
    return {"leaderless_us": None if heard is None or crash is None else heard - crash, "heard_us": heard}


def times(rows: list[Row], label: str) -> list[Row]:
    """The rows of one range."""
    return [row for row in rows if row["label"] == label]


def leaderless_ms(rows: list[Row]) -> list[float]:
    """How long each election took, ascending; infinite where the trial ended without a leader (timeouts that do not differ elect nobody)."""
    return sorted(inf if row["leaderless_us"] is None else row["leaderless_us"] / 1000 for row in rows)


# ---- the answers --------------------------------------------------------------------------------------------------------------------
def judged(name: str, rows: list[Row], as_published: bool = True) -> list[dict[str, Any]]:
    """One object a measure of a range: simulated ms with its interval, beside what was published (null where nobody has, or not `as_published`).
    Elections without an end count as longer than all others: what hangs on them is null, and `unfinished` says how many they are."""
    ordered = leaderless_ms(rows)
    n = len(ordered)
    if n < 2:
        raise InputError(f"range {name}: {n} elections are too few to say anything; it takes 2 or more")
    mean = sum(ordered) / n
    error = sqrt(sum((x - mean) ** 2 for x in ordered) / (n - 1) / n) if mean < inf else 0.0
    known = PUBLISHED.get(name, {}) if as_published else {}
    found = [answer(name, "mean", mean, (mean - Z * error, mean + Z * error), (mean - SURE_Z * error, mean + SURE_Z * error), n, known)]
    for measure, (part, of) in QUANTILES.items():
        spread = sqrt(n * part * (of - part)) / of  # of the rank: binomial
        ranks = [min(n, max(1, round(n * part / of + z * spread))) - 1 for z in (-SURE_Z, -Z, 0, Z, SURE_Z)]
        least, low, middle, high, most = (ordered[rank] for rank in ranks)
        found.append(answer(name, measure, middle, (low, high), (least, most), n, known))
    return [{**each, "unfinished": ordered.count(inf)} for each in found]


def answer(name: str, measure: str, value: float, sure: tuple[float, float], surer: tuple[float, float], trials: int, known: dict[str, float]) -> dict[str, Any]:
    """What is printed of one measure."""
    published, tolerance = known.get(measure), TOLERANCE[measure]
    within = None if published is None else surer[0] <= published * (1 + tolerance) and surer[1] >= published * (1 - tolerance)
    simulated, low, high = (round(x, 4) if x < inf else None for x in (value, *sure))
    return {"range": name, "measure": measure, "published": published, "simulated": simulated, "low": low, "high": high, "within": within,
            "tolerance": tolerance, "trials": trials}


def judged_split(share: float, rows: list[Row]) -> dict[str, Any]:
    """The share of elections that took a second round, beside the closed form."""
    width = SPLIT_LATENCY_US / share
    second = sum((row["heard_us"] or inf) > 5 * width + 5 * SPLIT_LATENCY_US for row in rows)
    n, closed = len(rows), split_share(5, 4, share)
    error = sqrt(closed * (1 - closed) / n)
    return {"range": f"split {share}", "measure": "split_vote", "published": closed, "simulated": second / n, "low": max(0.0, second / n - Z * error),
            "high": second / n + Z * error, "within": abs(second / n - closed) <= SURE_Z * error, "tolerance": 0.0, "trials": n}


def split_share(servers: int, alive: int, share: float) -> float:
    """Thesis, 9.2: the probability that so many of the `alive` survivors time out within one latency of the first that nobody gets a majority;
    `share`: latency over the width of the timeout range."""
    enough = alive - servers // 2 + 1
    return sum(comb(alive, k) * share**k * (1 - share) ** (alive - k) for k in range(enough - 1, alive + 1))


# ---- the figure ---------------------------------------------------------------------------------------------------------------------
def figure(names: list[str], rows: list[Row]) -> go.Figure:
    """Figure 16: the share of elections that have ended, against time; the published quantiles as crosses."""
    drawn = go.Figure()
    for name, look in zip(names, looks(names).values()):
        ordered = leaderless_ms(times(rows, name))
        step = max(1, len(ordered) // 1000)
        share = [(i + 1) / len(ordered) for i in range(len(ordered))]
        over = len(ordered) - ordered.count(inf)
        drawn.add_scatter(x=ordered[:over:step], y=share[:over:step], mode="lines", name=f"{name} ms", line={"color": look.colour, "dash": look.dash})
        if name in PUBLISHED:
            marks = [(PUBLISHED[name][measure], part / of) for measure, (part, of) in QUANTILES.items()]
            drawn.add_scatter(x=[x for x, _ in marks], y=[y for _, y in marks], mode="markers", name=f"{name} ms, published",
                              marker={"symbol": "x", "size": 10, "color": look.colour})
    drawn.update_xaxes(type="log", title="time without a leader, ms", tickvals=[10, 20, 50, 100, 200, 500, 1000, 2000, 5000])
    drawn.update_yaxes(title="share of elections", range=[0, 1.02])
    return style(drawn, "How long Raft is without a leader", f"{len(rows)} elections; crosses: Ongaro and Ousterhout 2014, figure 16", 520)
