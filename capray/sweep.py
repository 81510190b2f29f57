"""A sweep: a grid of scenarios x seeds, run on an engine, measured trial by trial into a table.

Decides: which trials a sweep has, in what order they are run, what a row holds.  May not know: what measures mean, how figures look.
A trial that two points share (no partition: every shape is the same) is run once and stands in both points' rows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from capray import __version__
from capray.errors import InputError, duration_us, wrong
from capray.faults import FIELD_DURATIONS, Fault, draw_duration
from capray.measures.allowed import allowed_columns
from capray.metrics import measure
from capray.record import Record
from capray.replay import replay_command
from capray.scenario import Scenario, from_dict, with_units
from capray.store import FORMAT, Results, Row

ENGINES = ("actors", "tasks", "local")
DEFAULT_IN_FLIGHT = 256


class Variant(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One line of the plots: a policy with its settings and the shape of the cut.  A setting `"nodes"` means the number of nodes."""

    label: str
    policy: str
    settings: dict[str, Any] = {}
    shape: str = "majority"
    base: dict[str, Any] = {}  # scenario fields of this variant alone
    note: str = ""  # what theory expects of it, and why what is measured may differ; stands in the report


class Grid(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Cluster sizes x partition durations (with units, or a named distribution of the field); all variants, or the labels given."""

    nodes: tuple[int, ...]
    durations: tuple[str, ...]
    labels: tuple[str, ...] = ()
    base: dict[str, Any] = {}  # scenario fields of this grid alone


class Sweep(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What to sweep.  `base` holds scenario fields for all trials; the cut begins at `at_us`, clients go on for `after_us` after heal."""

    name: str
    variants: tuple[Variant, ...]
    grids: tuple[Grid, ...]
    seeds: int = 8
    first_seed: int = 0
    at_us: int = 5_000_000
    after_us: int = 20_000_000
    base: dict[str, Any] = {}

    def validate(self) -> None:
        """Refuse what cannot be run.  Raises InputError."""
        if not 1 <= self.seeds <= 1_000_000:
            raise wrong("seeds", self.seeds, "a whole number from 1 to 1000000")
        if not self.variants or not self.grids:
            raise wrong("sweep", self.name, "at least one variant and one grid")
        labels = [variant.label for variant in self.variants]
        if len(set(labels)) != len(labels):
            raise wrong("label", labels, "a different label for each variant")
        for grid in self.grids:
            for label in grid.labels:
                if label not in labels:
                    raise wrong("labels", label, "the labels of variants: " + ", ".join(labels))
            for duration in grid.durations:
                if duration not in FIELD_DURATIONS:
                    duration_us(duration, "duration")


class Point(msgspec.Struct, frozen=True):
    """One point of the plots: a variant at one size and one duration."""

    variant: Variant
    nodes: int
    duration: str
    base: dict[str, Any]


def points(sweep: Sweep) -> list[Point]:
    """Every point, once, in the order of the grids."""
    out: dict[tuple[str, int, str], Point] = {}
    for grid in sweep.grids:
        for nodes in grid.nodes:
            for duration in grid.durations:
                for variant in sweep.variants:
                    if not grid.labels or variant.label in grid.labels:
                        out.setdefault((variant.label, nodes, duration), Point(variant, nodes, duration, grid.base))
    return list(out.values())


def scenario_of(sweep: Sweep, point: Point, seed: int) -> Scenario:
    """The scenario of one point under one seed (a field duration is drawn with the seed).  Raises InputError."""
    us = draw_duration(point.duration, seed) if point.duration in FIELD_DURATIONS else duration_us(point.duration, "duration")
    variant = point.variant
    raw: dict[str, Any] = {**sweep.base, **point.base, **variant.base, "policy": variant.policy, "nodes": point.nodes}
    raw["settings"] = {name: point.nodes if value == "nodes" else value for name, value in variant.settings.items()}
    raw["duration_us"] = sweep.at_us + us + sweep.after_us
    if us and variant.shape != "none":
        raw["faults"] = [*raw.get("faults", []), {"kind": "partition", "shape": variant.shape, "at_us": sweep.at_us, "for_us": us}]
    try:
        return from_dict(raw)
    except InputError as error:
        raise InputError(f"{error} (variant {variant.label!r}, {point.nodes} nodes, duration {point.duration})") from None


def coordinates(sweep: Sweep, point: Point, scenario: Scenario, seed: int) -> Row:
    """The columns that say where a row stands."""
    cut: list[Fault] = [fault for fault in scenario.faults if fault.kind == "partition"]
    return {"key": f"{point.variant.label}|{point.nodes}|{point.duration}|{seed:06d}", "label": point.variant.label, "policy": point.variant.policy,
            "shape": point.variant.shape if cut else "none", "nodes": point.nodes, "duration": point.duration,
            "duration_us": cut[-1].for_us if cut else 0, "seed": seed, "scenario": scenario.digest()}


def measured(scenario: Scenario, record: Record) -> Row:
    """The measures of a trial, and what ring and cut allow where the policy says how many replicas it needs."""
    row: Row = {"record": record.digest(), **measure(record)}
    needs = scenario.policy_class.needs(scenario.nodes, scenario.policy_settings)
    if needs is not None:
        row.update(allowed_columns(record.placement, record.nodes, record.faults, *needs))
    return row


Progress = Callable[[int, int, int, Row | None], None]  # (trials done, trials in all, messages so far, newest row)


def run(jobs: list[tuple[int, Scenario, int]], engine: str, address: str | None = None, in_flight: int = DEFAULT_IN_FLIGHT,
        nodes_per_actor: int = 1) -> Iterator[tuple[int, Record | str, int]]:
    """Run jobs (key, scenario, seed) on an engine; yield (key, record or the text of its failure, rounds) as they end.  Raises InputError for an unknown engine."""
    if engine not in ENGINES:
        raise wrong("engine", engine, "one of " + ", ".join(ENGINES))
    from capray import actors

    if engine == "local":
        yield from actors.run_local(jobs)
        return
    actors.start_ray(address)
    if engine == "tasks":
        yield from actors.run_tasks(jobs)
        return
    fleet = actors.Fleet(nodes_per_actor)
    try:
        yield from fleet.run(jobs, in_flight)
    finally:
        fleet.close()


def manifest_of(sweep: Sweep, engine: str, command: str) -> dict[str, Any]:
    """What a results directory says about the sweep in it."""
    return {"format": FORMAT, "kind": "sweep", "name": sweep.name, "version": __version__, "engine": engine, "command": command,
            "spec": msgspec.to_builtins(sweep), "digest": "", "trials": 0}


def run_sweep(sweep: Sweep, directory: str | Path, engine: str = "actors", address: str | None = None, in_flight: int = DEFAULT_IN_FLIGHT,
              progress: Progress | None = None, command: str = "", nodes_per_actor: int = 1) -> tuple[str, list[Row]]:
    """Run what is not yet there, append each finished trial at once, and write the table.  Returns (digest, rows)."""
    sweep.validate()
    planned: list[tuple[Point, Scenario, int]] = [(point, scenario_of(sweep, point, seed), seed)
                                                   for point in points(sweep) for seed in range(sweep.first_seed, sweep.first_seed + sweep.seeds)]
    results = Results(directory)
    manifest = manifest_of(sweep, engine, command)
    with results.writing(manifest) as rows:
        done = {row["key"] for row in rows}
        wanted: dict[tuple[str, int], list[Row]] = {}
        jobs: list[tuple[int, Scenario, int]] = []
        shared: list[list[Row]] = []
        for point, scenario, seed in planned:
            place = coordinates(sweep, point, scenario, seed)
            if place["key"] in done:
                continue
            identity = (place["scenario"], seed)
            if identity not in wanted:
                wanted[identity] = []
                shared.append(wanted[identity])
                jobs.append((len(jobs), scenario, seed))
            wanted[identity].append(place)
        scenarios = [scenario for _, scenario, _ in jobs]
        messages, failed, total = 0, 0, len(planned)
        if progress:
            progress(len(rows), total, 0, None)
        jobs.sort(key=lambda job: (-job[1].nodes, -job[1].end_us, job[0]))  # the longest first: none is left over alone at the end
        for key, outcome, rounds in run(jobs, engine, address, in_flight, nodes_per_actor) if jobs else ():
            if isinstance(outcome, str):
                for place in shared[key]:
                    results.fail({**place, "error": outcome, "replay": replay_command(manifest, place)})
                failed += len(shared[key])
                continue
            started = time.perf_counter()
            measures = measured(scenarios[key], outcome)
            messages += outcome.counters["messages"]
            for place in shared[key]:
                row = {**place, **measures}
                results.append(row)
                rows.append(row)
            if progress:
                progress(len(rows), total, messages, {**rows[-1], "wall_rounds": rounds, "wall_measure_s": time.perf_counter() - started})
        if failed:
            raise InputError(f"{failed} of {total} trials failed (see {results.failures_path}, with a command for each); the other {len(rows)} are kept")
        return results.finish(manifest, rows), rows


def sweep_from_dict(raw: dict[str, Any], name: str) -> Sweep:
    """A sweep from plain data (TOML): tables `variants` and `grids`, `base` for scenario fields.  Raises InputError."""
    raw = {"name": name, **raw}
    try:
        sweep = msgspec.convert(_sweep_units(raw), Sweep)
    except msgspec.ValidationError as error:
        raise InputError(f"sweep: {error}") from None
    sweep.validate()
    return sweep


def _sweep_units(raw: dict[str, Any]) -> dict[str, Any]:
    out = dict(raw)
    if "base" in out:
        out["base"] = with_units(out["base"])
    for part in ("grids", "variants"):
        out[part] = [{**item, "base": with_units(item.get("base", {}))} for item in out.get(part, [])]
    for name in ("at", "after"):
        if name in out:
            out[name + "_us"] = duration_us(out.pop(name), name)
    return out
