"""What every script under experiments/ shares: its options, and running a sweep from them.

Decides: the names of the common options and what a script prints.  May not know: what a script asks.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from capray.errors import InputError
from capray.sweep import ENGINES, Sweep
from capray.sweeping import command_line, sweep_and_report

SCALES = ("ci", "default", "full")


def parser(text: str, engine: str = "actors") -> argparse.ArgumentParser:
    """A parser with the common options; a script adds its own."""
    options = argparse.ArgumentParser(description=text, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    options.add_argument("--engine", choices=ENGINES, default=engine)
    options.add_argument("--address", default=None, help="address of a running Ray cluster, or auto")
    options.add_argument("--seeds", type=int, default=None, help="seeds for each point (default: the scale's)")
    options.add_argument("--out", type=Path, default=None, help="results directory (default: results/<name>)")
    options.add_argument("--scale", choices=SCALES, default="default")
    options.add_argument("--in-flight", type=int, default=512, help="trials in flight at once on the actors")
    options.add_argument("--json", action="store_true", help="one JSON object a line on standard output, nothing else")
    return options


def run(sweep: Sweep, given: argparse.Namespace) -> None:
    """Run a script's sweep with its options and draw the report."""
    sweep_and_report(sweep, given.out or Path("results") / sweep.name, given.engine, given.address, given.in_flight, 1, given.json, command_line())


def main(script: Callable[[], int | None]) -> None:
    """Run a script: what the user asked wrongly is one line and status 2; an interrupt keeps what was finished."""
    try:
        sys.exit(script() or 0)
    except InputError as error:
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f"{Path(sys.argv[0]).name}: interrupted; what was finished is kept", file=sys.stderr)
        sys.exit(130)
