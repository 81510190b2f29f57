"""One trial for a person: what was cut, and a page of what it did, out of hundreds of measures.

Decides: which measures a reader wants first, and how they are written.  May not know: how they are computed.
Availability and staleness stand by phase, one line for each side; then verdicts, how long it took to come back, and what it cost (METRICS.md's order).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from capray.errors import show_us
from capray.measures.phases import column
from capray.record import Record

Measurement = Mapping[str, Any]
PHASES = ("", "before", "during", "after")
BY_PHASE = (  # (what it is called, measure, side, kind)
    ("answered in time", "availability", "", ""), ("  reads", "availability", "", "read"), ("  writes", "availability", "", "write"),
    ("  majority side", "availability", "majority", ""), ("  minority side", "availability", "minority", ""), ("  largest side", "availability", "largest", ""),
    ("  worst-served node", "availability_worst_node", "", ""),
    ("stale reads", "stale_share", "", ""), ("  majority side", "stale_share", "majority", ""), ("  minority side", "stale_share", "minority", ""),
    ("  largest side", "stale_share", "largest", ""), ("  the oldest", "staleness_max_us", "", ""),
    ("latency, median", "latency_p50_us", "", ""), ("  99th percentile", "latency_p99_us", "", ""), ("operations", "operations", "", ""))
ONCE = (
    ("linearizable", "linearizable"), ("every node that was up answered", "cap_available"), ("acknowledged writes lost", "lost_writes"),
    ("conflicting pairs of writes", "conflicts"), ("versions behind, at most", "versions_behind_max"), ("Gamma", "gamma_us"),
    ("read your writes, violated", "read_your_writes_violations"), ("monotonic reads, violated", "monotonic_reads_violations"),
    ("monotonic writes, violated", "monotonic_writes_violations"), ("writes follow reads, violated", "writes_follow_reads_violations"),
    ("first read after the cut", "failover_read_us"), ("first write after the cut", "failover_write_us"),
    ("longest time without a read", "gap_read_us"), ("longest time without a write", "gap_write_us"),
    ("every node reads, after heal", "recovery_first_read_us"), ("every node writes, after heal", "recovery_first_write_us"),
    ("last failure, after heal", "recovery_last_us"), ("replicas agree, after heal", "convergence_us"), ("divergence, share x seconds", "divergence_area"),
    ("messages", "messages"), ("messages an operation", "messages_per_op"), ("bytes an operation", "bytes_per_op"))


def describe(answer: Mapping[str, Any], record: Record, every: bool = False) -> None:
    """Print a trial (`policy nodes seed engine digest measurement`): its faults and a page of its measures, or all of them."""
    from rich.console import Console
    from rich.table import Table

    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    console.print(f"[bold]{answer['policy']}[/bold] on {answer['nodes']} nodes, seed {answer['seed']}, engine {answer['engine']}, digest {answer['digest']}")
    for line in faults(record):
        console.print("  " + line)
    measurement: Measurement = answer["measurement"]
    if every:
        table = Table("measure", "value")
        for name, value in measurement.items():
            if value is not None:
                table.add_row(name, shown(name, value))
        console.print(table)
        return
    phases = PHASES if record.faults else PHASES[:1]
    table = Table("", *(phase or "whole trial" for phase in phases), box=None, pad_edge=False)
    for said, cells in by_phase(measurement, phases):
        table.add_row(said, *cells)
    console.print(table)
    console.print()
    table = Table("", "", box=None, pad_edge=False, show_header=False)
    for said, name in ONCE:
        if measurement.get(name) is not None or censored(measurement, name):
            table.add_row(said, "not within the trial" if censored(measurement, name) else shown(name, measurement[name]))
    console.print(table)
    console.print(f"a page of {sum(value is not None for value in measurement.values())} measures: --all and --json have the others, --out DIR a report that "
                  "defines each", style="dim")


def faults(record: Record) -> list[str]:
    """Each fault as it happened, and what it touched."""
    out = []
    for window in record.faults:
        until = "never" if window.until is None else show_us(window.until)
        sides = " | ".join(",".join(map(str, group)) for group in window.groups) or ",".join(map(str, window.nodes))
        touched = ", ".join(f"{count} {how}" for how, count in window.touched.items()) or "nothing"
        note = f" ({window.note})" if window.note else ""
        out.append(f"{window.kind} {window.shape} {sides}  from {show_us(window.at)} to {until}; messages touched: {touched}{note}".replace("  ", " "))
    return out


def by_phase(measurement: Measurement, phases: tuple[str, ...]) -> list[tuple[str, list[str]]]:
    """The lines that say something, each with a cell for each phase.  Where the sides are a majority and a minority, the largest is the majority."""
    out = []
    for said, measure, side, kind in BY_PHASE:
        names = [column(measure, phase, side, kind) for phase in phases]
        twice = side == "largest" and measurement.get(column(measure, "", "majority", kind)) is not None
        if not twice and any(measurement.get(name) is not None for name in names):
            out.append((said, [shown(name, measurement.get(name)) for name in names]))
    return out


def censored(measurement: Measurement, name: str) -> bool:
    """Whether what is measured had not come when the trial ended."""
    return bool(measurement.get(name.removesuffix("_us") + "_censored"))


def shown(name: str, value: object) -> str:
    """A measure's value, as a person writes it; a dash for null."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name.endswith("_us") and isinstance(value, int):
        return show_us(value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
