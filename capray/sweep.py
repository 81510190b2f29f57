"""A sweep: a grid of scenarios x seeds, run on an engine, measured trial by trial into a table.

Decides: which trials a sweep has, how many seeds a point gets, what a row holds.  May not know: what measures mean, how figures look.
A trial that two points share (no partition: every shape is the same) is run once and stands in both points' rows.
Rows go to the file as they end and are not kept: memory grows by what names a trial.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec

from capray import __version__
from capray.engines import DEFAULT_IN_FLIGHT, Engine, Job, Where
from capray.errors import Failed, InputError, complaint, duration_us, wrong
from capray.faults import FIELD_DURATIONS, Fault, draw_duration
from capray.measures.allowed import allowed_columns
from capray.metrics import measure
from capray.record import Record
from capray.replay import replay_command
from capray.scenario import Scenario, from_dict, with_units
from capray.store import FORMAT, Results, Row, Rows
from capray.until import Until, parse_until

# Studies that measure a sweep's trials in their own way: where `row_of(scenario, record) -> row` is.
MEASURED_BY = {"ladder": "capray.studies.ladder", "pacelc": "capray.studies.pacelc"}


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
    until: Until | None = None  # add seeds to a point until its interval is narrow enough
    study: str = ""  # one of MEASURED_BY, which also draws the page; empty: capray.metrics and the ordinary report

    def validate(self) -> None:
        """Refuse what cannot be run.  Raises InputError."""
        if self.study and self.study not in MEASURED_BY:
            raise wrong("study", self.study, "one of " + ", ".join(MEASURED_BY) + ", or nothing")
        if not 1 <= self.seeds <= 1_000_000:
            raise wrong("seeds", self.seeds, "a whole number from 1 to 1000000")
        if self.until is not None:
            self.until.validate(self.seeds)
        if not self.variants or not self.grids:
            raise wrong("sweep", self.name, "at least one variant and one grid")
        labels = [variant.label for variant in self.variants]
        if len(set(labels)) != len(labels):
            raise wrong("label", labels, "a different label for each variant")
        for grid in self.grids:
            if not grid.nodes or not grid.durations:
                raise wrong("grids", self.name, "in each grid at least one of nodes and one of durations")
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


def key_of(point: Point, seed: int) -> str:
    """What names a trial within its sweep."""
    return f"{point.variant.label}|{point.nodes}|{point.duration}|{seed:06d}"


def coordinates(sweep: Sweep, point: Point, scenario: Scenario, seed: int) -> Row:
    """The columns that say where a row stands."""
    cut: list[Fault] = [fault for fault in scenario.faults if fault.kind == "partition"]
    return {"key": key_of(point, seed), "label": point.variant.label, "policy": point.variant.policy,
            "shape": point.variant.shape if cut else "none", "nodes": point.nodes, "duration": point.duration,
            "duration_us": cut[-1].for_us if cut else 0, "seed": seed, "scenario": scenario.digest()}


def measures_of(study: str) -> Callable[[Scenario, Record], Row]:
    """What makes a trial's row: a study's own function, else `measured`."""
    if not study:
        return measured
    found: Callable[[Scenario, Record], Row] = import_module(MEASURED_BY[study]).row_of
    return found


def measured(scenario: Scenario, record: Record) -> Row:
    """The measures of a trial, and what ring and cut allow where the policy says how many replicas it needs."""
    row: Row = {"record": record.digest(), **measure(record)}
    needs = scenario.policy_class.needs(scenario.nodes, scenario.policy_settings)
    if needs is not None:
        row.update(allowed_columns(record.history, record.placement, record.nodes, record.faults, *needs))
    return row


Progress = Callable[..., None]  # (trials done, trials in all, messages so far, newest row, trials failed)


def manifest_of(sweep: Sweep, engine: str, command: str) -> dict[str, Any]:
    """What a results directory says about the sweep in it."""
    spec = {name: value for name, value in msgspec.to_builtins(sweep).items() if name not in ("until", "study") or value}
    return {"format": FORMAT, "kind": "sweep", "name": sweep.name, "version": __version__, "engine": engine, "command": command,
            "spec": spec, "digest": "", "trials": 0}


def run_sweep(sweep: Sweep, directory: str | Path, engine: str = "actors", address: str | None = None, in_flight: int = DEFAULT_IN_FLIGHT,
              progress: Progress | None = None, command: str = "", nodes_per_actor: int = 1, fleets: int = 0, placement: str = "pack") -> tuple[str, Rows]:
    """Run what is not yet there, append each finished trial at once, and write the table.  Returns (digest, rows).  Raises InputError, and Failed
    where trials failed by themselves."""
    sweep.validate()
    where = Where(engine=engine, address=address, in_flight=in_flight, nodes_per_actor=nodes_per_actor, fleets=fleets, placement=placement)
    where.validate()
    planned = points(sweep)
    stage = Stage(sweep, planned, sweep.first_seed, sweep.seeds)
    results = Results(directory)
    manifest = manifest_of(sweep, engine, command)
    with Engine(where, title_of(sweep)) as opened, results.opened(manifest) as index:
        run_ = _Run(results, manifest, sweep, index, progress)
        while True:
            run_.stage(stage, opened)
            seeds = stage.first + stage.seeds - sweep.first_seed
            left = [point for point in stage.points if sweep.until and not run_.narrow(point, seeds)]
            if not left or not sweep.until or run_.failed:
                break
            stage = Stage(sweep, left, stage.first + stage.seeds, sweep.until.more(seeds))
        if run_.failed:
            raise Failed(f"{run_.failed} of {run_.total} trials failed, the first with {run_.reason!r} (see {results.failures_path}, with a command for each); "
                         f"the other {len(index)} are kept")
        return results.finish(manifest), Rows(results.trials_path, index)


def asked(sweep: Sweep, until_interval: str | None, max_seeds: int | None) -> Sweep:
    """The sweep with what `--until-interval` and `--max-seeds` say.  Raises InputError."""
    if until_interval is None:
        if max_seeds is not None:
            raise wrong("max-seeds", max_seeds, "--until-interval beside it")
        return sweep
    wanted = msgspec.structs.replace(sweep, until=parse_until(until_interval, sweep.seeds, max_seeds))
    wanted.validate()
    return wanted


def title_of(sweep: Sweep) -> str:
    """What the sweep's actors are called in Ray's dashboard: the policies that they serve, or the sweep's name where those are many."""
    policies = sorted({variant.policy.rpartition(":")[2] for variant in sweep.variants})
    return "+".join(policies) if len(policies) <= 4 else sweep.name


class Stage:
    """Some points and the seeds that they are run with; `jobs` are its trials, `places` the points and the seed that each job stands for."""

    def __init__(self, sweep: Sweep, chosen: list[Point], first: int, seeds: int) -> None:
        """Plan it.  Raises InputError for a point that cannot be run."""
        self.points, self.first, self.seeds = chosen, first, seeds
        self.jobs: list[Job] = []
        self.places: list[list[Point]] = []
        numbers: dict[tuple[str, int], int] = {}
        for point in chosen:
            scenario = scenario_of(sweep, point, first)
            for seed in range(first, first + seeds):
                if point.duration in FIELD_DURATIONS:
                    scenario = scenario_of(sweep, point, seed)
                number = numbers.setdefault((scenario.digest(), seed), len(self.jobs))
                if number == len(self.jobs):
                    self.jobs.append((number, scenario, seed))
                    self.places.append([])
                self.places[number].append(point)


class _Run:
    """A sweep under way: what is there, and what is told of it."""

    def __init__(self, results: Results, manifest: dict[str, Any], sweep: Sweep, index: dict[str, int], progress: Progress | None) -> None:
        self.results, self.manifest, self.sweep, self.index = results, manifest, sweep, index
        self.progress = progress or (lambda *_: None)
        self.messages = self.failed = self.total = 0
        self.reason = ""  # the last line of what the first failed trial ended with
        self.values: dict[str, Any] = {}  # key -> the measure that decides how many seeds there are
        if sweep.until:
            self.values = {row["key"]: row.get(sweep.until.measure) for row in Rows(results.trials_path, index)}

    def stage(self, stage: Stage, engine: Engine) -> None:
        """Run what is not there of it."""
        self.total += sum(map(len, stage.places))
        jobs = [job for job in stage.jobs if any(key_of(point, job[2]) not in self.index for point in stage.places[job[0]])]
        self.progress(len(self.index), self.total, self.messages, None, self.failed)
        if not jobs:
            return
        if not self.failed:
            self.results.forget_failures()
        scenarios = {number: scenario for number, scenario, _ in jobs}
        seeds = {number: seed for number, _, seed in jobs}
        for number, outcome, rounds in engine.run(jobs, measures_of(self.sweep.study)):
            began = time.perf_counter()
            for point in stage.places[number]:
                place = coordinates(self.sweep, point, scenarios[number], seeds[number])
                if isinstance(outcome, str):
                    self.results.fail({**place, "error": outcome, "replay": replay_command(self.manifest, place)})
                    self.failed += 1
                    self.reason = self.reason or outcome.rstrip().rpartition("\n")[2]
                elif place["key"] not in self.index:
                    self.keep({**place, **outcome})
            row = None if isinstance(outcome, str) else {**place, **outcome, "wall_rounds": rounds, "wall_append_s": time.perf_counter() - began}
            self.messages += row["messages"] if row else 0
            self.progress(len(self.index), self.total, self.messages, row or {}, self.failed)

    def keep(self, row: Row) -> None:
        """Append one row."""
        self.index[row["key"]] = self.results.append(row)
        if self.sweep.until:
            self.values[row["key"]] = row.get(self.sweep.until.measure)

    def narrow(self, point: Point, seeds: int) -> bool:
        """Whether a point needs no more seeds."""
        assert self.sweep.until is not None
        first = self.sweep.first_seed
        return self.sweep.until.narrow([self.values.get(key_of(point, seed)) for seed in range(first, first + seeds)])


def sweep_from_dict(raw: dict[str, Any], name: str) -> Sweep:
    """A sweep from plain data (TOML): tables `variants` and `grids`, `base` for scenario fields.  Raises InputError."""
    raw = {"name": name, **raw}
    plain = _sweep_units(raw)
    try:
        sweep = msgspec.convert(plain, Sweep)
    except msgspec.ValidationError as error:
        known = {part: [field.removesuffix("_us") for field in struct.__struct_fields__] for part, struct in (("", Sweep), ("grids", Grid), ("variants", Variant))}
        raise complaint("sweep", plain, str(error), known) from None
    sweep.validate()
    return sweep


def sweep_of(manifest: dict[str, Any]) -> Sweep:
    """The sweep that a directory's manifest describes.  Raises InputError where it is none that this version reads."""
    try:
        return msgspec.convert(manifest["spec"], Sweep)
    except msgspec.ValidationError as error:
        writer = manifest.get("version", "an unknown version")
        raise InputError(f"manifest: its spec is no sweep that capray {__version__} reads ({error}); it was written by {writer}") from None


def _sweep_units(raw: dict[str, Any]) -> dict[str, Any]:
    out = dict(raw)
    if "base" in out:
        out["base"] = with_units(out["base"])
    for part in ("grids", "variants"):
        items = out.get(part, [])
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise wrong(part, items, f"tables [[{part}]]")
        out[part] = [{**item, "base": with_units(item.get("base", {}))} for item in items]
    for name in ("at", "after"):
        if name in out:
            out[name + "_us"] = duration_us(out.pop(name), name)
    return out
