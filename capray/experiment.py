"""What every script under experiments/ shares: its options, and running a sweep from them.

Decides: the names of the common options and what a script prints.  May not know: what a script asks.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from capray.engines import DEFAULT_IN_FLIGHT, ENGINES, Where, parse_fleets
from capray.errors import InputError, unwritable
from capray.store import Rows
from capray.sweep import Sweep, asked
from capray.sweeping import command_line, run_shown, sweep_and_report
from capray.until import AT_MOST

SCALES = ("ci", "default", "full")


class Parser(argparse.ArgumentParser):
    """One that says what was wrong in one line, without the usage before it."""

    def error(self, message: str) -> NoReturn:
        raise InputError(message)


class Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """The script's docstring as it stands; a default where there is one to tell."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return super()._get_help_string(action) if action.default not in (None, False, []) else action.help


def parser(text: str, engine: str = "actors") -> argparse.ArgumentParser:
    """A parser with the common options; a script adds its own.  It raises InputError for what it does not know."""
    options = Parser(description=text, formatter_class=Help)
    options.add_argument("--engine", choices=ENGINES, default=engine)
    options.add_argument("--address", default=None, help="address of a running Ray cluster, or auto")
    options.add_argument("--seeds", type=int, default=None, help="seeds for each point (default: the scale's)")
    options.add_argument("--until-interval", default=None, metavar="MEASURE=WIDTH", help="add seeds until this measure's 95 %% interval is so narrow")
    options.add_argument("--max-seeds", type=int, default=None, help=f"the most that --until-interval adds up to (default: {AT_MOST} x --seeds)")
    options.add_argument("--out", type=Path, default=None, help="results directory (default: results/<name>)")
    options.add_argument("--scale", choices=SCALES, default="default")
    options.add_argument("--in-flight", type=int, default=DEFAULT_IN_FLIGHT, help="trials in flight at once on the actors")
    options.add_argument("--nodes-per-actor", type=int, default=1, help="simulated nodes that one node actor hosts")
    options.add_argument("--fleets", default="auto", help="network actors with their node actors, side by side: auto (by the processors) or a number")
    options.add_argument("--placement", default="pack", help="a fleet's actors on one machine (pack) or spread over the machines (spread)")
    options.add_argument("--json", action="store_true", help="one JSON object a line on standard output, nothing else")
    return options


def where(given: argparse.Namespace) -> Where:
    """Where a script's options say that trials are run.  Raises InputError."""
    return Where(engine=given.engine, address=given.address, in_flight=given.in_flight, nodes_per_actor=given.nodes_per_actor,
                 fleets=parse_fleets(given.fleets), placement=given.placement)


def run_script(sweep: Sweep, given: argparse.Namespace) -> tuple[str, Rows, Path]:
    """Run a script's sweep with its options and progress.  Returns (digest, rows in the order of keys, results directory).  Raises InputError."""
    directory = given.out or Path("results") / sweep.name
    digest, rows = run_shown(asked(sweep, given.until_interval, given.max_seeds), directory, where(given), command_line())
    return digest, rows, directory


def run(sweep: Sweep, given: argparse.Namespace) -> None:
    """Run a script's sweep with its options and draw the report."""
    wanted = asked(sweep, given.until_interval, given.max_seeds)
    sweep_and_report(wanted, given.out or Path("results") / sweep.name, where(given), given.json, command_line())


def main(script: Callable[[], int | None]) -> None:
    """Run a script: what the user asked wrongly is one line and status 2; an interrupt keeps what was finished."""
    try:
        sys.exit(script() or 0)
    except InputError as error:
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # who read what it prints has gone
        os._exit(0)
    except OSError as error:
        if not unwritable(error):
            raise
        print(f"{Path(sys.argv[0]).name}: {unwritable(error)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f"{Path(sys.argv[0]).name}: interrupted; what was finished is kept", file=sys.stderr)
        sys.exit(130)
