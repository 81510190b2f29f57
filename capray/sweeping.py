"""What a sweep shows a person: progress while it runs, then figures and report.

Decides: progress lines, which trials are shown in a report.  May not know: how trials are run or measured.
"""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Iterable, Iterator
from importlib import import_module
from itertools import groupby
from pathlib import Path
from typing import Any

import msgspec

from capray.engines import Where
from capray.errors import InputError, wrong
from capray.record import Record
from capray.recorded import shown_runs
from capray.scenario import Scenario
from capray.store import Results, Row, Rows, placed
from capray.sweep import Sweep, points, run_sweep, scenario_of, sweep_of

PLAIN_EVERY_S = 10.0
COORDINATES = ("key", "label", "policy", "shape", "nodes", "duration", "duration_us", "seed", "scenario", "record")
# Kinds of results directories that are no sweep: where `rerun(manifest, engine, address) -> rows`, and `draw(directory) -> page` and
# `figures(results) -> figures by name` are.
# `draw` serves sweeps that name a study too (Sweep.study); those are run again as any sweep.
STUDIES = {
    "ladder": ("capray.sweep", "capray.studies.ladder_page"),
    "pacelc": ("capray.sweep", "capray.studies.pacelc_page"),
    "pbs": ("capray.studies.pbs_study", "capray.studies.pbs_report"),
    "elections": ("capray.studies.elections", "capray.studies.elections_page"),
}


def command_line() -> str:
    """The command as it was typed, for manifests."""
    name = Path(sys.argv[0]).name
    return shlex.join(["capray" if name in ("cli.py", "__main__.py") else name, *sys.argv[1:]])


class Progress:
    """Trials done, messages a second, time left, failures: a bar in a terminal, plain lines elsewhere; on standard error."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.first = 0
        self.shown = 0.0
        self.bar: Any = None
        self.task: Any = None

    def __call__(self, done: int, total: int, messages: int, newest: Row | None, failed: int = 0) -> None:
        """Show where the sweep stands: trials done (of all that are known of), messages so far, the newest row (null at the beginning), trials failed."""
        if newest is None and not self.first:
            self.first, self.began = done + failed, time.monotonic()
        spent, over = time.monotonic() - self.began, done + failed - self.first
        rate = messages / spent if spent > 0 else 0.0
        enough = min(100.0, max(total / 20, min(10.0, total / 2)))  # of the first few little follows
        left = f", {spanned(spent * (total - done - failed) / over)} left" if over and over >= enough else ""
        line = f"{messages / 1e6:.2f} M messages, {rate:,.0f}/s{left}" + (f", {failed} FAILED" if failed else "")
        if sys.stderr.isatty():
            self._draw(done, total, line)
        elif time.monotonic() - self.shown >= PLAIN_EVERY_S or done + failed == total:
            self.shown = time.monotonic()
            print(f"{done}/{total} trials, {line}", file=sys.stderr, flush=True)

    def _draw(self, done: int, total: int, line: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as Bar

        if self.bar is None:
            self.bar = Bar(TextColumn("trials"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), console=Console(stderr=True))
            self.bar.start()
            self.task = self.bar.add_task(line, total=total)
        self.bar.update(self.task, completed=done, total=total, description=line)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None


def spanned(seconds: float) -> str:
    """A time to wait, as a person says it: 40 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"


def run_shown(sweep: Sweep, directory: Path, where: Where, command: str) -> tuple[str, Rows]:
    """Run a sweep with its progress on standard error.  Returns (digest, rows).  Raises InputError."""
    progress = Progress()
    try:
        return run_sweep(sweep, directory, where.engine, where.address, where.in_flight, progress, command,
                         where.nodes_per_actor, where.fleets, where.placement)
    finally:
        progress.close()


def sweep_and_report(sweep: Sweep, directory: Path, where: Where, as_json: bool, command: str) -> None:
    """Run a sweep, draw its report, print its points."""
    digest, rows = run_shown(sweep, directory, where, command)
    page = draw(directory)
    if as_json:
        for point in point_table(rows):
            print(json.dumps(point))
        print(json.dumps({"digest": digest, "trials": len(rows), "directory": str(directory)}))
    else:
        print(f"{len(rows)} trials, digest {digest}\nreport: {page}")


def point_table(rows: Iterable[Row]) -> Iterator[dict[str, Any]]:
    """One dict a point: its coordinates, and each measure as {mean, low, high, trials}.  Rows of one point stand together, as in the order of keys."""
    for _, group in groupby(rows, key=lambda row: (row["label"], row["nodes"], row["duration"])):
        yield point_of(list(group))


def point_of(group: list[Row]) -> dict[str, Any]:
    """One point from its rows."""
    from capray.stats import summary

    first = group[0]
    point: dict[str, Any] = {name: first[name] for name in ("label", "policy", "shape", "nodes", "duration")}
    for name in first:
        if name not in COORDINATES and not name.startswith("wall_"):
            found = summary([row.get(name) for row in group])
            point[name] = {part: found[part] for part in ("mean", "low", "high", "trials")}
    return point


def scenario_of_row(manifest: dict[str, Any], row: Row) -> Scenario:
    """The scenario that a row was measured on, from its directory's manifest."""
    if manifest["kind"] == "run":
        try:
            return msgspec.convert(manifest["spec"]["scenario"], Scenario).resolved()
        except (KeyError, TypeError, msgspec.ValidationError) as error:
            raise InputError(f"manifest: its spec is no scenario that this version of capray reads ({error})") from None
    if manifest["kind"] != "sweep":
        raise wrong("kind", manifest["kind"], "a directory of `capray run` or of a sweep")
    sweep = sweep_of(manifest)
    for point in points(sweep):
        if (point.variant.label, point.nodes, point.duration) == (row["label"], row["nodes"], row["duration"]):
            return scenario_of(sweep, point, row["seed"])
    raise wrong("key", row["key"], "a trial of this sweep")


def replay(manifest: dict[str, Any], row: Row, trace_us: tuple[int, int] | None = None) -> Record:
    """Simulate a row's trial again (with a traced window, if given).  Raises InputError where its digest is not the row's."""
    from capray.trial import simulate

    scenario = scenario_of_row(manifest, row)
    record = simulate(scenario if trace_us is None else msgspec.structs.replace(scenario, trace_us=trace_us), row["seed"])
    if record.digest() != row["record"]:
        raise InputError(f"trial {row['key']}: its digest is {record.digest()} now, {row['record']} in the table: another version of capray made the row")
    return record


def chosen_trials(manifest: dict[str, Any], rows: Iterable[Row]) -> list[tuple[str, Record]]:
    """One trial of each variant for the report's timelines: the lowest seed at the duration nearest to 20 s, on the size nearest to five
    nodes; with the messages around the cut's beginning traced."""
    def far(row: Row) -> tuple[int, int, int]:
        return abs((row.get("duration_us") or 0) - 20_000_000), abs(row["nodes"] - 5), row["seed"]

    chosen: dict[str, Row] = {}
    for row in rows:
        if row["label"] not in chosen or far(row) < far(chosen[row["label"]]):
            chosen[row["label"]] = row
    out = []
    for label in sorted(chosen):
        row = chosen[label]
        scenario = scenario_of_row(manifest, row)
        at = scenario.faults[0].at_us if scenario.faults else 0
        try:
            record = replay(manifest, row, (max(0, at - 300_000), at + 900_000))
        except InputError as error:  # the rows still stand, but this trial can no longer be shown
            print(f"not drawn: {error}", file=sys.stderr)
            continue
        out.append((f"{label}, {row['nodes']} nodes, cut {row['duration']}, seed {row['seed']}", record))
    return out


def draw_pngs(directory: Path) -> tuple[list[Path], str]:
    """The figures as PNG files in figures/; (the files, why there are none)."""
    import plotly.graph_objects as go

    from capray.plots import figures, write_pngs
    from capray.report import deadline_of, variants_of

    results = Results(directory)
    manifest = results.manifest()
    study = manifest["spec"].get("study") or manifest["kind"]
    own = {name.removesuffix(".figure.json"): go.Figure(json.loads(text)) for name, text in kept_figures(results.path)}
    if study in STUDIES:
        drawn = import_module(STUDIES[study][1]).figures(results)
    else:
        drawn = figures(results.rows(), deadline_of(manifest), variants_of(manifest))
    return write_pngs({**own, **drawn}, results.path / "figures")


def keep_figures(directory: Path, **drawn: Any) -> None:
    """Keep a script's own figures (plotly's, by name) beside its results: `draw` puts them on the page, before those of any sweep."""
    (directory / "figures").mkdir(parents=True, exist_ok=True)
    for name, figure in drawn.items():
        (directory / "figures" / f"{name}.figure.json").write_text(figure.to_json(), encoding="utf-8")


def kept_figures(directory: Path) -> list[tuple[str, str]]:
    """What `keep_figures` kept, by name: plotly's JSON."""
    return [(path.name, path.read_text(encoding="utf-8")) for path in sorted((directory / "figures").glob("*.figure.json"))]


def draw(directory: Path) -> Path:
    """Figures and report of a results directory.  Returns the page's path."""
    from capray.report import write_report

    results = Results(directory)
    manifest, rows = results.manifest(), placed(results.ordered(), directory)
    if not len(rows):
        raise wrong("directory", str(directory), "a results directory with at least one finished trial")
    study = manifest["spec"].get("study") or manifest["kind"]
    if study in STUDIES:
        return Path(import_module(STUDIES[study][1]).draw(directory))
    page = results.path / "report.html"
    if manifest["kind"] in ("run", "sweep"):
        write_report(rows, manifest, chosen_trials(manifest, rows), page, kept_figures(results.path))
    elif manifest["kind"] == "recorded":
        write_report(rows, manifest, list(shown_runs(manifest, results.path)), page)
    else:
        write_report(rows, manifest, [], page)
    return page
