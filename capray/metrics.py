"""Record -> measurement: one row of numbers for one trial, with METRICS.md's names.

Decides: which columns a row has, and what is measured from what: H from history and fault windows alone (so that a real store's history goes
through the same code), V from the versions that replicas applied.  May not know: engines, policies' code, Ray, statistics.
Source: METRICS.md.  Durations are integer microseconds; what was not measured, or has no meaning there, is null, never 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from capray.measures.acknowledged import acknowledged
from capray.measures.availability import Row, measure_availability, share
from capray.measures.divergence import Sample, convergence, curve, divergence
from capray.measures.holdings import holdings
from capray.measures.included import measure_merged, merges
from capray.measures.inconsistency import measure_inconsistency
from capray.measures.ordered import ordered_staleness
from capray.measures.phases import Calendar
from capray.record import FaultWindow, Operation, Record

__all__ = ["Measurement", "divergence_curve", "measure", "measure_history"]

Measurement = dict[str, Any]  # int, float, str, bool or None by column


def measure(record: Record, initial: Any = None) -> Measurement:
    """A trial's measurement.  `initial` is what every key holds at first.

    Columns: METRICS.md's; each narrowed by phase, side and kind as far as that makes sense (capray.measures.phases.column); with them
    `fault_touched_nothing`, `*_censored` (true where the event never came, so the duration is null), `stale_reads_final`,
    `never_visible_writes`, and the stale reads by the store's own order (`stale_reads_ordered`, ...; capray.measures.ordered).  Where updates commute
    (counters, sets) the columns of registers are theirs (capray.measures.included).
    """
    calendar = Calendar(record.faults, record.nodes)
    keys = holdings(record)
    row = _from_history(record.history, calendar, initial)
    if merges(keys):
        row.update(measure_merged(record, calendar))
    row.update(ordered_staleness(record.history, keys, calendar, initial))
    row.update(acknowledged(record, keys, calendar))
    row.update(divergence(keys, calendar, record.end))
    row.update(convergence(keys, calendar, record.end))
    row.update(cost(record))
    return row


def measure_history(
    history: Sequence[Operation], faults: Sequence[FaultWindow] = (), nodes: int | None = None, initial: Any = None,
) -> Measurement:
    """The H measures of any history.  `nodes` is the cluster's size; where it is not given, the nodes that history and faults name."""
    return _from_history(history, Calendar(faults, count_nodes(history, faults) if nodes is None else nodes), initial)


def count_nodes(history: Sequence[Operation], faults: Sequence[FaultWindow]) -> int:
    """One more than the highest node that is named anywhere."""
    named = {op.node for op in history if op.node is not None}
    for fault in faults:
        named.update(fault.nodes, *fault.groups)
    return max(named, default=-1) + 1


def _from_history(history: Sequence[Operation], calendar: Calendar, initial: Any) -> Measurement:
    return {**measure_availability(history, calendar), **measure_inconsistency(history, calendar, initial)}


def cost(record: Record) -> Row:
    """Messages and bytes a completed operation (an `ok`; final reads too, since their messages are counted), messages stopped or delayed by a
    cut, and whether some fault of the trial touched nothing.  Null where the record has no counters (a real store's)."""
    counted = record.counters
    completed = sum(op.type == "ok" for op in record.history)
    return {
        "messages": counted.get("messages"),
        "messages_per_op": share(counted["messages"], completed) if "messages" in counted else None,
        "bytes_per_op": share(counted["bytes"], completed) if "bytes" in counted else None,
        "messages_cut": counted.get("messages_cut"),
        "fault_touched_nothing": any(fault.touched_nothing for fault in record.faults) if record.faults and counted else None,
    }


def divergence_curve(record: Record) -> list[Sample]:
    """The divergence curve of a trial, for figures; empty where versions are not known."""
    keys = holdings(record)
    return [] if keys is None else curve(keys, Calendar(record.faults, record.nodes), record.end)
