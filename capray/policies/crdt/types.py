"""Shapiro et al., "A comprehensive study of convergent and commutative replicated data types" (INRIA RR-7506, 2011), specifications 6 to 10 and 15;
as deltas after Almeida, Shoker and Baquero, "Delta state replicated data types" (JPDC 2018; numbers as in arXiv:1603.01529), sections 4 and 7.

Decides: the states, joins and delta-mutators of five types.  Pure functions of their arguments.  May not know: replicas, messages, time.
A state is a nested tuple with one form for each value, so that equal states have equal bytes; `join` is the least upper bound: commutative,
associative, idempotent.  A mutator gives a delta, itself a state (often a small one): the new state is join(state, delta) by definition
("m(X) = X join m_delta(X)"), so by state or by delta is a matter of what is sent, not of the type.
"""

from __future__ import annotations

from typing import Any

from capray.policies import vector_clock
from capray.policies.cassandra.cells import value_bytes
from capray.policies.vector_clock import Version

# ---- grow-only counter (specification 6): each node's own total -------------------------------------------------------------------------
Counter = tuple[tuple[int, int], ...]  # (node, total), ascending by node


def counter_join(a: Counter, b: Counter) -> Counter:
    """Entry by entry the larger."""
    if a == b or not b:
        return a
    totals = dict(a)
    for node, total in b:
        if total > totals.get(node, -1):
            totals[node] = total
    return tuple(sorted(totals.items()))


def counter_increment(state: Counter, node: int, amount: int) -> Counter:
    """The delta of adding `amount`, 0 or more: only this node's entry."""
    return ((node, dict(state).get(node, 0) + amount),)


def counter_value(state: Counter) -> int:
    """The sum of all entries."""
    return sum(total for _, total in state)


# ---- counter that also decreases (specification 7): two grow-only ones --------------------------------------------------------------------
PnCounter = tuple[Counter, Counter]
PN_ZERO: PnCounter = ((), ())


def pn_join(a: PnCounter, b: PnCounter) -> PnCounter:
    """Half by half."""
    return counter_join(a[0], b[0]), counter_join(a[1], b[1])


def pn_add(state: PnCounter, node: int, amount: int) -> PnCounter:
    """The delta of adding `amount`, which may be negative."""
    if amount >= 0:
        return counter_increment(state[0], node, amount), ()
    return (), counter_increment(state[1], node, -amount)


def pn_value(state: PnCounter) -> int:
    """Increments less decrements."""
    return counter_value(state[0]) - counter_value(state[1])


# ---- last-write-wins register (specification 8) --------------------------------------------------------------------------------------------
LwwRegister = tuple[int, int, Any]  # stamp, node, value; a stamp below 0: never written
LWW_EMPTY: LwwRegister = (-1, -1, None)


def lww_join(a: LwwRegister, b: LwwRegister) -> LwwRegister:
    """The later stamp; of equal stamps the higher node's; one node never gives a stamp twice."""
    return a if a[:2] >= b[:2] else b


def lww_assign(state: LwwRegister, node: int, stamp: int, value: Any) -> LwwRegister:
    """The delta of a write: "Timestamps are assumed unique, totally ordered, and consistent with causal order", so the stamp is above what
    was seen, whatever the clock says."""
    return max(stamp, state[0] + 1), node, value


# ---- multi-value register (specification 10) -------------------------------------------------------------------------------------------------
MvRegister = tuple[Version, ...]


def mv_join(a: MvRegister, b: MvRegister) -> MvRegister:
    """The versions of both from which no other descends."""
    for version in b:
        a = vector_clock.add(a, version)[0]
    return a


def mv_assign(state: MvRegister, node: int, stamp: int, value: Any) -> MvRegister:
    """The delta of a write, which supersedes all that stands here: the one new version."""
    seen = vector_clock.merge(version[0] for version in state)
    stamp = max(stamp, max((version[2] for version in state), default=-1) + 1)
    return ((vector_clock.advance(seen, node, vector_clock.counter(seen, node) + 1, stamp), value, stamp),)


def mv_values(state: MvRegister) -> list[Any]:
    """All concurrent values, in the order of their clocks."""
    return [version[1] for version in state]


# ---- observed-remove set (specification 15; without tombstones: Almeida 2018, 7.4) ---------------------------------------------------------
Dot = tuple[int, int]  # node, its number
Entry = tuple[int, int, int, Any]  # node, number, stamp (told to the record; no join looks at it), element
Context = tuple[tuple[Dot, ...], tuple[Dot, ...]]  # the dots seen: (node, all up to this number), and single ones above
OrSet = tuple[tuple[Entry, ...], Context]
OR_EMPTY: OrSet = ((), ((), ()))


def context_join(a: Context, b: Context) -> Context:
    """All dots of both, in the one shortest form."""
    if a == b:
        return a
    upto = dict(counter_join(a[0], b[0]))
    cloud = []
    for node, number in sorted({*a[1], *b[1]}):
        if number == upto.get(node, 0) + 1:
            upto[node] = number
        elif number > upto.get(node, 0):
            cloud.append((node, number))
    return tuple(sorted(upto.items())), tuple(cloud)


def context_has(context: Context, node: int, number: int) -> bool:
    """Whether the dot was seen."""
    return number <= dict(context[0]).get(node, 0) or (node, number) in context[1]


def _seen(context: Context, dots: set[Dot]) -> set[Dot]:
    upto, cloud = dict(context[0]), set(context[1])
    return {dot for dot in dots if dot[1] <= upto.get(dot[0], 0) or dot in cloud}


def or_join(a: OrSet, b: OrSet) -> OrSet:
    """Entries that both have, and those of one that the other has not seen; what the other has seen and dropped is removed."""
    mine = {(entry[0], entry[1]): entry for entry in a[0]}
    theirs = {(entry[0], entry[1]): entry for entry in b[0]}
    for dot in _seen(b[1], set(mine) - set(theirs)):
        del mine[dot]
    fresh = set(theirs) - set(mine)
    for dot in fresh - _seen(a[1], fresh):
        mine[dot] = theirs[dot]
    return tuple(mine[dot] for dot in sorted(mine)), context_join(a[1], b[1])


def _adds(state: OrSet, element: Any) -> list[Dot]:
    wanted = value_bytes(element)
    return [(entry[0], entry[1]) for entry in state[0] if value_bytes(entry[3]) == wanted]


def or_add(state: OrSet, node: int, stamp: int, element: Any) -> OrSet:
    """The delta of an add: the node's next dot, one above the greatest of its own that was seen (7.4, next_i); earlier adds of the element seen here are
    dropped in its favour."""
    upto, cloud = state[1]
    number = 1 + max(dict(upto).get(node, 0), *(dot[1] for dot in cloud if dot[0] == node), 0)
    dots = _adds(state, element)
    return ((node, number, stamp, element),), context_join(((), ()), ((), tuple(sorted([*dots, (node, number)]))))


def or_remove(state: OrSet, element: Any) -> OrSet:
    """The delta of a remove: the adds of the element that were observed here count as seen, and stand no more; a concurrent add wins."""
    return (), context_join(((), ()), ((), tuple(_adds(state, element))))


def or_elements(state: OrSet) -> list[Any]:
    """The elements, each once, in the order of their bytes."""
    found = {value_bytes(entry[3]): entry[3] for entry in state[0]}
    return [found[key] for key in sorted(found)]
