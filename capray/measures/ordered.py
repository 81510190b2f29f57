"""Stale reads where the store's own order of writes is known: a write overwrites all that the store orders before it.

Decides: the V reading of METRICS.md's "overwrites".  May not know: replicas, policies.
Source: METRICS.md, "Inconsistency"; Golab, Li and Shah 2011 for the age.

This finds more than the history alone does: of two writes that were concurrent the store orders one later, and a write of unknown outcome that
took effect has its place.  Beside the H columns (`stale_reads`, ...), not in place of them: those compare with a real store.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Hashable, Mapping, Sequence
from itertools import accumulate
from typing import Any

from capray.checkers.values import canonical
from capray.measures.availability import Row, share
from capray.measures.holdings import KeyHoldings
from capray.measures.phases import PHASES, Calendar, column, due
from capray.record import Operation

Order = tuple[int, ...]
Orders = Mapping[tuple[str | None, Hashable], Order]
NEVER = 1 << 62


def orders_of(keys: Mapping[str, KeyHoldings]) -> dict[tuple[str | None, Hashable], Order]:
    """The store's order of every write that some replica applied, by key and value."""
    return {(key, value): found.orders[write] for key, found in keys.items() for value, write in found.number.items() if found.orders[write]}


class _Key:
    """One key's ok writes: the newest order complete by a time, the earliest completion above an order."""

    def __init__(self, writes: list[tuple[int, Order]]) -> None:
        writes.sort()
        self.complete = [complete for complete, _ in writes]
        self.newest = list(accumulate((order for _, order in writes), max))
        by_order = sorted((order, complete) for complete, order in writes)
        self.orders = [order for order, _ in by_order]
        self.earliest = [*reversed(list(accumulate((complete for _, complete in reversed(by_order)), min))), NEVER]

    def age(self, order: Order, invoked: int) -> int | None:
        """How long before `invoked` the first write that the store orders after `order` had completed; null for none (not stale)."""
        done = bisect_left(self.complete, invoked)
        if not done or self.newest[done - 1] <= order:
            return None
        return invoked - self.earliest[bisect_right(self.orders, order)]


def stale_by_order(history: Sequence[Operation], orders: Orders, initial: Any = None) -> dict[int, int]:
    """Position -> age in microseconds of each stale ok read, final ones too.  Writes that `orders` does not name neither overwrite nor are
    overwritten; the initial value is before all."""
    written: dict[str | None, list[tuple[int, Order]]] = {}
    for op in history:
        order = orders.get((op.key, canonical(op.value))) if op.f == "write" and op.type == "ok" else None
        if order is not None and op.complete is not None:
            written.setdefault(op.key, []).append((op.complete, order))
    keys = {key: _Key(writes) for key, writes in written.items()}
    start, ages = canonical(initial), {}
    for i, op in enumerate(history):
        if op.f == "read" and op.type == "ok" and op.key in keys:
            value = canonical(op.result)
            order = () if value == start else orders.get((op.key, value))
            age = None if order is None else keys[op.key].age(order, op.invoke)
            if age is not None:
                ages[i] = age
    return ages


def ordered_staleness(history: Sequence[Operation], keys: Mapping[str, KeyHoldings] | None, calendar: Calendar, initial: Any = None) -> Row:
    """stale_reads_ordered, stale_share_ordered, staleness_max_ordered_us, overall and by phase, without final reads; null where versions are not
    known, a key's order is partial (siblings, updates that commute), or a key was deleted: a read that finds nothing does not say by which delete."""
    known = keys is not None and not any(found.siblings or found.merges for found in keys.values()) and not any(op.f == "delete" for op in history)
    ages = stale_by_order(history, orders_of(keys), initial) if keys is not None and known else {}
    asked = [(i, op) for i, op in enumerate(history) if op.f == "read" and not op.final]
    reads = [(i, calendar.cells[calendar.cell_at(due(op))].phases, op.type == "ok") for i, op in asked]
    row: Row = {}
    for phase in PHASES:
        chosen = [(i, ok) for i, phases, ok in reads if known and (not phase or phase in phases)]
        found = [ages[i] for i, _ in chosen if i in ages]
        row[column("stale_reads_ordered", phase)] = len(found) if chosen else None
        row[column("stale_share_ordered", phase)] = share(len(found), sum(ok for _, ok in chosen))
        row[column("staleness_max_ordered_us", phase)] = max(found, default=None)
    return row
