"""The command line: what a user types, what is printed, which exit status.

Decides: options, output, exit statuses (0 done; 1 the answer is "no"; 2 the request was wrong, in one line).  May not know: how anything is computed.
`--json` prints one JSON object a line on standard output and nothing else; progress goes to standard error.
Each command imports what it needs when it runs, so that `capray --help` starts at once.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import threading
from pathlib import Path
from typing import Annotated, Any

import typer

from capray.errors import Failed, InputError, duration_us, refuse_unwritable, unwritable, wrong

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help="The CAP theorem as a measured, reproducible experiment.")

Json = Annotated[bool, typer.Option("--json", help="One JSON object a line on standard output, nothing else.")]
Engine = Annotated[str, typer.Option(help="actors (each node a Ray actor), tasks (a trial in a Ray task), local (no Ray).")]
AT, FOR = "10s", "20s"  # of --partition, where nothing else is said
Address = Annotated[str | None, typer.Option(help="Address of a running Ray cluster, or auto; without it, Ray starts on this machine.")]


class _Answers(io.TextIOBase):
    """Standard output for this thread's answers alone.  Ray prints what its machines report (a node that died) from threads of its own, to standard
    output: that goes to standard error."""

    def __init__(self) -> None:
        self.out, self.err, self.thread = sys.stdout, sys.stderr, threading.get_ident()

    def write(self, text: str) -> int:
        return (self.out if threading.get_ident() == self.thread else self.err).write(text)

    def flush(self) -> None:
        self.out.flush()

    def isatty(self) -> bool:
        return self.out.isatty()

    def fileno(self) -> int:
        return self.out.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self.out.encoding


def main() -> None:
    """Entry point.  Errors of the request are one line and status 2; an interrupt is status 130."""
    with contextlib.redirect_stdout(_Answers()):
        _run()


def _run() -> None:
    try:
        status = app(standalone_mode=False)
    except InputError as error:
        _stop(str(error), 2)
    except Failed as error:
        _stop(str(error), 1)
    except typer.Exit as stop:
        _leave(stop.exit_code)
    except typer.Abort:
        _stop("interrupted; what was finished is kept", 130)
    except KeyboardInterrupt:
        _stop("interrupted; what was finished is kept", 130)
    except BrokenPipeError:
        os._exit(0)
    except Exception as error:
        if isinstance(error, OSError) and unwritable(error):
            _stop(unwritable(error), 2)
        if not hasattr(error, "format_message"):  # a click usage error speaks for itself
            raise
        _stop(_usage(error), 2)
    else:
        _leave(int(status or 0))


def _usage(error: Any) -> str:
    """A usage error in the one form: field, value, what it takes."""
    said, param = str(error.format_message()), getattr(error, "param", None)
    if said.startswith("No such command"):
        group: Any = typer.main.get_command(app)
        return f"{said.rstrip('.')}; it takes one of {', '.join(group.commands)}"
    accepts = "a whole number" if "valid integer" in said else "a number" if "valid number" in said or "valid float" in said else ""
    for word, value in zip(sys.argv, [*sys.argv[1:], ""]):
        option, equals, joined = word.partition("=")
        if accepts and param is not None and option in param.opts:
            return str(wrong(option.lstrip("-"), joined if equals else value, accepts))
    return said


def _stop(message: str, status: int) -> None:
    print(f"capray: {message}", file=sys.stderr)
    _leave(status)


def _leave(status: int) -> None:
    sys.stdout.flush()
    sys.exit(status)


def show(value: object) -> None:
    """One JSON object on one line."""
    print(json.dumps(value), flush=True)


def parse_settings(pairs: list[str]) -> dict[str, Any]:
    """`KEY=VALUE` pairs as a dict.  Raises InputError for a pair without `=`."""
    out: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise wrong("--set", pair, "KEY=VALUE")
        out[name.replace("-", "_")] = value
    return out


@app.command()
def run(
    scenario: Annotated[Path | None, typer.Argument(help="A scenario in TOML; options override it.")] = None,
    policy: Annotated[str | None, typer.Option(help="A policy's name (see `capray policies`), or package.module:Class.")] = None,
    nodes: Annotated[int | None, typer.Option(help="Nodes of the simulated cluster.")] = None,
    seed: Annotated[int, typer.Option(help="The trial's seed.")] = 0,
    partition: Annotated[str | None, typer.Option(help="A shape's name, or groups: 0,1|2,3,4.")] = None,
    at: Annotated[str | None, typer.Option(help="When the cut begins; the trial goes on for 20 s after it ends.", show_default=AT)] = None,
    for_: Annotated[str | None, typer.Option("--for", help="How long it lasts, or a distribution of the field.", show_default=FOR)] = None,
    link: Annotated[str | None, typer.Option(help="A link preset: lan, wan-3dc, lnkd-ssd, lnkd-disk, ymmr, wan.")] = None,
    disk: Annotated[str | None, typer.Option(help="A disk preset: memory, ssd, disk, fsync-2ms.")] = None,
    rate: Annotated[float | None, typer.Option(help="Operations a second and node.")] = None,
    set_: Annotated[list[str], typer.Option("--set", help="A setting of the policy, KEY=VALUE; repeat for more.")] = [],
    engine: Engine = "local",
    address: Address = None,
    out: Annotated[Path | None, typer.Option(help="Write a results directory with report here.")] = None,
    history: Annotated[Path | None, typer.Option(help="Write the history here: .jsonl, or .edn as Jepsen's; either .gz.")] = None,
    shiviz: Annotated[Path | None, typer.Option(help="Write the messages here, as a log for ShiViz.")] = None,
    trace: Annotated[str | None, typer.Option(help="FROM,TO: the part of the trial that --shiviz shows; default: all of it.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Print every measure, not a page of them.")] = False,
    json_: Json = False,
) -> None:
    """Run one trial and measure it."""
    from capray.scenario import from_dict, read_toml

    if not 0 <= seed < 1 << 63:
        raise wrong("seed", seed, "a whole number from 0 to 2^63 - 1")
    raw: dict[str, Any] = read_toml(scenario) if scenario else {}
    for name, value in (("policy", policy), ("nodes", nodes), ("link", link), ("disk", disk)):
        if value is not None:
            raw[name] = value
    if rate is not None:
        raw["workload"] = {**_table(raw, "workload"), "rate": rate}
    raw["settings"] = {**_table(raw, "settings"), **parse_settings(set_)}
    if partition is not None:
        raw["faults"] = [] if partition == "none" else [_partition(partition, AT if at is None else at, FOR if for_ is None else for_, seed)]
    _need("--partition SHAPE", partition, at=at, for_=for_)
    _need("--shiviz FILE", shiviz, trace=trace)
    refuse_unwritable(history=history, shiviz=shiviz)
    if address is not None and engine == "local":
        raise wrong("address", address, "--engine actors or tasks beside it: local needs no cluster")
    from capray.onetrial import run_one
    from capray.sweeping import command_line

    run_one(from_dict(raw), seed, engine, address, out, history, json_, command_line(), shiviz, trace, all_)


def _need(option: str, given: object, **idle: str | None) -> None:
    """Refuse options that would be ignored, since what they belong to was not given."""
    for name, value in idle.items():
        if value is not None and given is None:
            raise wrong(name.strip("_"), value, f"{option} beside it, which it belongs to")


def _table(raw: dict[str, Any], name: str) -> dict[str, Any]:
    found = raw.get(name, {})
    if not isinstance(found, dict):
        raise wrong(name, found, f"a table: [{name}]")
    return found


def _partition(shape: str, at: str, length: str, seed: int) -> dict[str, Any]:
    from capray.faults import FIELD_DURATIONS, draw_duration

    us = draw_duration(length, seed) if length in FIELD_DURATIONS else duration_us(length, "for")
    if us == 0:
        raise wrong("for", length, "a duration above 0, or --partition none")
    return {"kind": "partition", "shape": shape, "at_us": duration_us(at, "at"), "for_us": us}


@app.command()
def sweep(
    spec: Annotated[Path | None, typer.Argument(help="A sweep in TOML; without it, the main job at its default scale.")] = None,
    out: Annotated[Path | None, typer.Option(help="Results directory; a sweep that was begun there goes on.")] = None,
    engine: Engine = "actors",
    address: Address = None,
    seeds: Annotated[int | None, typer.Option(help="Seeds for each point.")] = None,
    scale: Annotated[str, typer.Option(help="Of the main job: ci, default or full.")] = "default",
    until_interval: Annotated[str | None, typer.Option(help="MEASURE=WIDTH: add seeds to a point until this measure's 95 % interval is so narrow.")] = None,
    max_seeds: Annotated[int | None, typer.Option(help="The most that --until-interval adds up to (default: 20 x the seeds at first).")] = None,
    in_flight: Annotated[int | None, typer.Option(help="Trials in flight at once on the actors (default: capray.engines.DEFAULT_IN_FLIGHT).")] = None,
    nodes_per_actor: Annotated[int, typer.Option(help="Simulated nodes that one node actor hosts.")] = 1,
    fleets: Annotated[str, typer.Option(help="Network actors with their node actors, side by side: auto (by the processors) or a number.")] = "auto",
    placement: Annotated[str, typer.Option(help="A fleet's actors on one machine (pack), or over the machines (spread).")] = "pack",
    json_: Json = False,
) -> None:
    """Run a sweep and draw its report.  A killed sweep goes on where it stopped when it is started again."""
    from capray.engines import DEFAULT_IN_FLIGHT, Where, parse_fleets
    from capray.mainjob import main_job
    from capray.scenario import read_toml
    from capray.sweep import asked, sweep_from_dict
    from capray.sweeping import command_line, sweep_and_report

    if spec is not None:
        raw = read_toml(spec)
        if seeds is not None:
            raw["seeds"] = seeds
        wanted = sweep_from_dict(raw, spec.stem)
    else:
        wanted = main_job(scale, seeds)
    where = Where(engine=engine, address=address, in_flight=DEFAULT_IN_FLIGHT if in_flight is None else in_flight,
                  nodes_per_actor=nodes_per_actor, fleets=parse_fleets(fleets), placement=placement)
    sweep_and_report(asked(wanted, until_interval, max_seeds), out or Path("results") / wanted.name, where, json_, command_line())


@app.command()
def check(
    histories: Annotated[list[str], typer.Argument(help="History files: .jsonl, .edn, either .gz.")],
    model: Annotated[str | None, typer.Option(help="register, cas-register, kv, ... or package.module:name.")] = None,
    initial: Annotated[str | None, typer.Option(help="The initial value, as JSON.")] = None,
    consistency: Annotated[str, typer.Option(help="linearizable, sequential, causal, ... or ladder.")] = "linearizable",
    budget: Annotated[int | None, typer.Option(help="States the search may explore.")] = None,
    witness: Annotated[bool, typer.Option(help="Verify the store's own version order (the operations' `ts`) as a witness.")] = False,
    figure: Annotated[str | None, typer.Option(help="Write the evidence's timeline here, as HTML.")] = None,
    json_: Json = False,
) -> None:
    """Judge recorded histories: valid, invalid with evidence, or unknown."""
    from capray.checkcmd import check as check_files
    from capray.checkers.linearizable import DEFAULT_BUDGET

    refuse_unwritable(figure=figure)
    raise typer.Exit(check_files(histories, model, initial, consistency, DEFAULT_BUDGET if budget is None else budget, json_, witness, figure))


@app.command()
def report(
    directory: Annotated[Path, typer.Argument(help="A results directory.")],
    png: Annotated[bool, typer.Option("--png", help="Write each figure as a PNG too (needs the extra `png` and Chromium).")] = False,
    json_: Json = False,
) -> None:
    """Draw (again) the figures and the report of a results directory."""
    from capray.sweeping import draw, draw_pngs

    page = draw(directory)
    files, why_not = draw_pngs(directory) if png else ([], "")
    if why_not:
        print(f"no PNGs: {why_not}", file=sys.stderr)
    if json_:
        show({"report": str(page), "png": [str(file) for file in files]})
    else:
        print(page, *files, sep="\n")


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(help="A results directory: what it was.")],
    second: Annotated[Path, typer.Argument(help="Another: what it is now.")],
    measure: Annotated[list[str], typer.Option(help="Measures to compare; repeat for more.")] = [],
    threshold: Annotated[list[str], typer.Option(
        help="Differences up to this are accepted: NUMBER for all, MEASURE=NUMBER for one (durations with a unit); repeat for more.")] = [],
    pair: Annotated[list[str], typer.Option(help="FIRST=SECOND: labels that belong together though they differ; repeat for more.")] = [],
    worse: Annotated[bool, typer.Option("--worse", help="Status 1 only where the second is worse.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write the figures overlaid here, as one HTML page.")] = None,
    json_: Json = False,
) -> None:
    """Compare two results point by point: differences with intervals, and which are told apart.  Status 1 where any is."""
    from capray.compare import compare_directories

    refuse_unwritable(out=out)
    raise typer.Exit(compare_directories(first, second, measure, threshold, pair, worse, out, json_))


@app.command("import")
def import_(
    runs: Annotated[list[Path], typer.Argument(help="TOML files of [[runs]], or folders with an index.json: histories and the faults that met them.")],
    out: Annotated[Path, typer.Option(help="The results directory to write.")],
    json_: Json = False,
) -> None:
    """Make a results directory of runs recorded elsewhere (a real store's), for `report` and `compare`."""
    from capray.recorded import import_runs
    from capray.sweeping import command_line, draw

    digest, trials = import_runs(runs, out, command_line())
    page = draw(out)
    if json_:
        show({"digest": digest, "trials": trials, "directory": str(out)})
    else:
        print(f"{trials} runs, digest {digest}\nreport: {page}")


@app.command()
def export(
    directory: Annotated[Path, typer.Argument(help="A results directory.")],
    trial: Annotated[str | None, typer.Option(help="The trial's key, as in the table; needed where there are several.")] = None,
    history: Annotated[Path | None, typer.Option(help="Write its history here: .jsonl, or .edn as Jepsen's; either .gz.")] = None,
    shiviz: Annotated[Path | None, typer.Option(help="Write its messages here, as a log for ShiViz.")] = None,
    trace: Annotated[str | None, typer.Option(help="FROM,TO: the part of the trial that --shiviz shows; default: all of it.")] = None,
    json_: Json = False,
) -> None:
    """Write the history or the messages of one trial of a results directory (which holds the table as table.parquet and table.csv)."""
    from capray.export import export_trial

    _need("--shiviz FILE", shiviz, trace=trace)
    refuse_unwritable(history=history, shiviz=shiviz)
    key = export_trial(directory, trial, history, shiviz, trace)
    files = [str(file) for file in (history, shiviz) if file is not None]
    if json_:
        show({"trial": key, "files": files})
    else:
        print(*files, sep="\n")


@app.command()
def reproduce(
    directory: Annotated[Path, typer.Argument(help="A complete results directory.")],
    engine: Annotated[str, typer.Option(help="actors, tasks, local; default: the manifest's.")] = "",
    address: Address = None,
    json_: Json = False,
) -> None:
    """Run a results directory's manifest again and compare digests and values: 0 equal, 1 with what differs."""
    from capray.compare import reproduce_directory

    raise typer.Exit(reproduce_directory(directory, engine, address, json_))


@app.command()
def policies(name: Annotated[str | None, typer.Argument(help="One policy; without it, all.")] = None, json_: Json = False) -> None:
    """List the policies: what each claims, its settings with units, defaults and sources."""
    from capray.catalogue import show_policies

    show_policies(name, json_)


@app.command()
def bench(
    only: Annotated[str | None, typer.Option(help="Only one group: local, scaling, memory, ray, check.")] = None,
    figure: Annotated[str | None, typer.Option(help="Draw the curves of time and memory into this HTML file, and measure nothing else.")] = None,
    json_: Json = False,
) -> None:
    """Measure capray's own speed, as ratios to baselines of the same run."""
    from capray.bench import run_bench

    refuse_unwritable(figure=figure)
    run_bench(only, json_, figure)


if __name__ == "__main__":
    main()
