"""When and where an operation was asked: the phases of a trial, the sides of a cut, the nodes that had failed.

Decides: to which phase, side and kind an operation counts, and how columns are named after them.  May not know: versions, verdicts.
Source: METRICS.md, "Phases", "Sides" and "Names in tables and JSON".

An operation belongs to the phase in which it was *due* (`intended`; `invoke` where nobody recorded that): `before` the first fault, `during`
(inside a fault window, [at, until)), `after` (any other time).  So an operation that was under way when the cut came counts as `before`,
and is what keeps availability there from being exactly 1.  `during_1`, `during_2`, ... are the windows one by one, where there are several.

A node's side is its group in the cut that is open or was the last to begin (before the first cut: in the first).  `majority` is a group of more
than half of the nodes, `minority` all other nodes; where no group is that large, sides are named by their members (`n0n1`), and only `during`.
`largest` is the largest group, or all of the largest where several are equally large.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from capray.record import FaultWindow, Operation

FAILED_KINDS = ("crash-process", "crash-host", "pause")
FOREVER = 1 << 62
PHASES = ("", "before", "during", "after")
SIDES = ("", "majority", "minority", "largest")
KINDS = ("", "read", "write")
Groups = tuple[tuple[int, ...], ...]


def due(op: Operation) -> int:
    """When an operation was meant to be asked, microseconds."""
    return op.invoke if op.intended is None else op.intended


def kind_of(op: Operation) -> str:
    """`read`, or `write` for all that may change something."""
    return "read" if op.f in ("read", "get") else "write"


def is_ok(op: Operation) -> bool:
    """Answered `ok`, and before its deadline where it has one."""
    return op.type == "ok" and (op.deadline is None or op.complete is None or op.complete <= op.deadline)


def sides_of(groups: Groups, nodes: int) -> dict[str, frozenset[int]]:
    """The named sides of a cut; empty without groups."""
    if not groups:
        return {}
    size = max(map(len, groups))
    sides = {"largest": frozenset(node for group in groups if len(group) == size for node in group)}
    if 2 * size > nodes:
        sides["majority"] = sides["largest"]
        sides["minority"] = frozenset(range(nodes)) - sides["majority"]
    else:
        for group in groups:
            sides["".join(f"n{node}" for node in sorted(group))] = frozenset(group)
    return sides


class Cell(NamedTuple):
    """One stretch of time in which neither phase nor sides change."""

    phases: frozenset[str]
    sides: dict[str, frozenset[int]]


class Calendar:
    """A trial's fault windows, as the measures need them."""

    def __init__(self, faults: Sequence[FaultWindow], nodes: int) -> None:
        self.faults = list(faults)
        self.nodes = nodes
        self.cuts = sorted((f for f in faults if f.groups), key=lambda f: f.at)
        edges = {f.at for f in faults} | {f.until for f in faults if f.until is not None}
        self.edges = sorted(edges)
        self.cells = [self._cell(at) for at in [-1, *self.edges]]
        self.down: dict[int, list[tuple[int, int]]] = {}
        for f in self.faults:
            if f.kind in FAILED_KINDS:
                for node in f.nodes:
                    self.down.setdefault(node, []).append((f.at, FOREVER if f.until is None else f.until))

    def _cell(self, at: int) -> Cell:
        inside = [i for i, f in enumerate(self.faults) if f.at <= at and (f.until is None or at < f.until)]
        if inside:
            phases = {"during", *(f"during_{i + 1}" for i in inside if len(self.faults) > 1)}
        else:
            phases = {"before" if all(at < f.at for f in self.faults) else "after"} if self.faults else set()
        begun = [f for f in self.cuts if f.at <= at]
        governing = begun[-1:] or self.cuts[:1]
        return Cell(frozenset(phases), sides_of(governing[0].groups, self.nodes) if governing else {})

    def cell_at(self, at: int) -> int:
        """The number, in `cells`, of the stretch that holds the instant `at`."""
        return bisect_right(self.edges, at)

    @property
    def begins(self) -> int | None:
        """When the first fault begins; null without faults."""
        return min((f.at for f in self.faults), default=None)

    @property
    def heals(self) -> int | None:
        """When the last fault has ended; null without faults, or where one never ended."""
        ends = [f.until for f in self.faults]
        return max((end for end in ends if end is not None), default=None) if None not in ends else None

    def failed(self, node: int | None, since: int, until: int) -> bool:
        """Was `node` down (crashed or paused) at any time in [since, until]?"""
        return node is not None and any(a <= until and since < b for a, b in self.down.get(node, ()))

    def failed_at(self, node: int, at: int) -> bool:
        """Was `node` down at the instant `at`?"""
        return self.failed(node, at, at)

    def serving_side(self) -> frozenset[int]:
        """The largest side of the first fault: of its groups if it is a cut, else the nodes that it does not take down."""
        first = min(self.faults, key=lambda f: f.at)
        if first.groups:
            return sides_of(first.groups, self.nodes)["largest"]
        return frozenset(range(self.nodes)) - (frozenset(first.nodes) if first.kind in FAILED_KINDS else frozenset())

    def narrowings(self) -> Iterator[tuple[str, str]]:
        """All (phase, side) pairs that have columns; "" stands for all phases, all sides."""
        for phase in PHASES:
            for side in SIDES:
                yield phase, side
        for side in sorted({name for cell in self.cells for name in cell.sides} - set(SIDES), key=lambda name: (len(name), name)):
            yield "during", side
        if len(self.faults) > 1:
            for i in range(len(self.faults)):
                yield f"during_{i + 1}", ""


def column(measure: str, phase: str = "", side: str = "", kind: str = "") -> str:
    """A column's name: the measure, then phase, side and kind as far as narrowed; a unit stays last."""
    stem, unit = (measure[:-3], "_us") if measure.endswith("_us") else (measure, "")
    return "_".join(part for part in (stem, phase, side, kind) if part) + unit
