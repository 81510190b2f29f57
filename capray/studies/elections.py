"""A study of elections: one trial, one election; how long there was no leader, held against what was published.

Decides: what an election's row holds, what the rows of a range add up to, what counts as agreeing.  May not know: how members elect.
`low` and `high` are a 95 % interval: normal for the mean, order statistics (the ranks n q +- z sqrt(n q (1 - q))) for quantiles.  `within`: the
99.9 % interval meets the published value with its tolerance, so that with few elections only what is told apart from it is called different.
Sources: Ongaro and Ousterhout, ATC 2014, extended version, figure 16 (digitised from the author's figure); Ongaro's thesis, 9.2 (split votes).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from math import comb, inf, sqrt
from pathlib import Path
from typing import Any

import msgspec
import plotly.graph_objects as go

from capray.engines import Engine, Where
from capray.errors import InputError
from capray.figures.style import FAINT, INK, looks, style
from capray.record import Record
from capray.store import Results, Row
from capray.sweep import Point, Sweep, coordinates, manifest_of, points, scenario_of

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
PILOT = 30  # elections of a range; where none of them ended, no more are run
UNPUBLISHED = "nothing is published for this set-up"  # the note of a variant


# ---- the trials ---------------------------------------------------------------------------------------------------------------------
def run_elections(sweep: Sweep, directory: Path, engine: str, address: str | None, in_flight: int = 512, command: str = "") -> tuple[str, list[Row]]:
    """Run what is not there yet; every election is a row.  A variant's trials differ by their seeds alone: the first PILOT come first, and the others of a
    variant are run where one of those ended.  Raises InputError where one failed."""
    results, manifest = Results(directory), {**manifest_of(sweep, engine, command), "kind": KIND}
    seeds = range(sweep.first_seed, sweep.first_seed + sweep.seeds)
    with results.writing(manifest) as rows, Engine(Where(engine=engine, address=address, in_flight=in_flight)) as opened:
        for part in (seeds[:PILOT], seeds[PILOT:]):
            ended = {row["label"] for row in rows if row["heard_us"] is not None}
            chosen = [point for point in points(sweep) if part.start == sweep.first_seed or point.variant.label in ended]
            for row in elected(sweep, chosen, part, {row["key"] for row in rows}, opened):
                results.append(row)
                rows.append(row)
        return results.finish(manifest, rows), rows


def elected(sweep: Sweep, chosen: list[Point], seeds: range, done: set[str], engine: Engine) -> Iterator[Row]:
    """The rows of these points' elections that are not done yet, as they end."""
    jobs: list[tuple[int, Any, int]] = []
    places: list[Row] = []
    for point in chosen:
        scenario = scenario_of(sweep, point, 0)
        place = coordinates(sweep, point, scenario, 0)
        for seed in seeds:
            key = f"{point.variant.label}|{point.nodes}|0s|{seed:06d}"
            if key not in done:
                places.append({**place, "key": key, "seed": seed})
                jobs.append((len(jobs), scenario, seed))
    for number, record, _ in engine.run(jobs) if jobs else ():
        if isinstance(record, str):
            raise InputError(f"election {places[number]['key']} failed: {record}")
        yield {**places[number], "record": record.digest(), **measured(record)}


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
    n, servers = len(rows), rows[0]["nodes"]
    closed = split_share(servers, servers - 1, share)
    error = sqrt(closed * (1 - closed) / n)
    return {"range": f"split {share}", "measure": "split_vote", "published": closed, "simulated": second / n, "low": max(0.0, second / n - Z * error),
            "high": min(1.0, second / n + Z * error), "within": abs(second / n - closed) <= SURE_Z * error, "tolerance": 0.0, "trials": n}


def split_share(servers: int, alive: int, share: float) -> float:
    """Thesis, 9.2: the probability that so many of the `alive` survivors time out within one latency of the first that nobody gets a majority;
    `share`: latency over the width of the timeout range."""
    enough = alive - servers // 2 + 1
    return sum(comb(alive, k) * share**k * (1 - share) ** (alive - k) for k in range(enough - 1, alive + 1))


# ---- the figures --------------------------------------------------------------------------------------------------------------------
def figure(names: list[str], rows: list[Row], known: frozenset[str] = frozenset(PUBLISHED)) -> go.Figure:
    """Figure 16: the share of elections that have ended, against time; the published quantiles of the ranges `known` as crosses."""
    drawn = go.Figure()
    for name, look in zip(names, looks(names).values()):
        ordered = leaderless_ms(times(rows, name))
        step = max(1, len(ordered) // 1000)
        share = [(i + 1) / len(ordered) for i in range(len(ordered))]
        over = len(ordered) - ordered.count(inf)
        shown = f"{name} ms" if over == len(ordered) else f"{name} ms ({len(ordered) - over} of {len(ordered)} never ended)"
        drawn.add_scatter(x=ordered[:over:step] if over else [None], y=share[:over:step] if over else [None], mode="lines", name=shown, line={"color": look.colour, "dash": look.dash}, showlegend=True)
        if name in known:
            marks = [(PUBLISHED[name][measure], part / of) for measure, (part, of) in QUANTILES.items()]
            drawn.add_scatter(x=[x for x, _ in marks], y=[y for _, y in marks], mode="markers", name=f"{name} ms, published",
                              marker={"symbol": "x", "size": 10, "color": look.colour})
    drawn.update_xaxes(type="log", title="time without a leader, ms", tickvals=[10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000])
    drawn.update_yaxes(title="share of elections", range=[0, 1.02])
    source = "; crosses: Ongaro and Ousterhout 2014, figure 16" if known.intersection(names) else ""
    count = sum(row["label"] in names for row in rows)
    return style(drawn, "How long Raft is without a leader", f"{count} elections{source}", 520)


def split_figure(rows: list[Row]) -> go.Figure:
    """Split votes: counted, with their 95 % intervals, against the latency as a share of the timeouts' range; the closed form as a line."""
    labels = {float(label.removeprefix("split ")): label for label in sorted({str(row["label"]) for row in rows}) if label.startswith("split")}
    own = [row for row in rows if row["label"] in labels.values()]
    found = [judged_split(share, times(own, labels[share])) for share in sorted(labels)]
    servers, curve = own[0]["nodes"], [max(labels) * 1.1 * i / 100 for i in range(101)]
    drawn = go.Figure(go.Scatter(x=curve, y=[100 * split_share(servers, servers - 1, min(1.0, share)) for share in curve], mode="lines",
                                 name="closed form, thesis 9.2", line={"color": FAINT, "dash": "dot"}))
    bars = {"type": "data", "symmetric": False, "array": [100 * (one["high"] - one["simulated"]) for one in found],
            "arrayminus": [100 * (one["simulated"] - one["low"]) for one in found]}
    drawn.add_scatter(x=sorted(labels), y=[100 * one["simulated"] for one in found], error_y=bars, mode="markers", name="simulated elections",
                      marker={"size": 8, "color": INK})
    drawn.update_xaxes(title="one-way latency, as a share of the width of the timeouts' range", rangemode="tozero")
    drawn.update_yaxes(title="elections that need a second round, %", rangemode="tozero")
    return style(drawn, "How often Raft's vote is split", f"{len(own)} elections, {servers} servers, the leader dead, logs alike", 480)
