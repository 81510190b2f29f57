"""The lattices of capray.policies.crdt.types and vector clocks: join laws on states that replicas really reach, and brute-force twins."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capray.policies import vector_clock as vc
from capray.policies.crdt import types as t

NODES = 3
# (do what, at which node, with what): 0 to 3 write, 4 remove, 5 and above merge another node's state or only its newest delta
steps = st.lists(st.tuples(st.integers(0, 9), st.integers(0, NODES - 1), st.integers(0, 4)), max_size=25)
TYPES: dict[str, tuple[Any, Any, Any]] = {
    "g-counter": ((), t.counter_join, lambda s, node, stamp, v: t.counter_increment(s, node, v)),
    "pn-counter": (t.PN_ZERO, t.pn_join, lambda s, node, stamp, v: t.pn_add(s, node, v - 2)),
    "lww-register": (t.LWW_EMPTY, t.lww_join, t.lww_assign),
    "mv-register": ((), t.mv_join, t.mv_assign),
    "or-set": (t.OR_EMPTY, t.or_join, t.or_add),
}
by_type = pytest.mark.parametrize("name", list(TYPES))


def reached(name: str, script: list[tuple[int, int, int]]) -> list[Any]:
    """States and deltas that three replicas come to by a script."""
    empty, join, write = TYPES[name]
    states, seen = [empty] * NODES, [empty]
    for stamp, (what, node, number) in enumerate(script):
        if what < 4 or name != "or-set" and what == 4:
            delta = write(states[node], node, stamp // 2, number)
        elif what == 4:
            delta = t.or_remove(states[node], number)
        else:
            delta = states[number % NODES] if what < 8 else seen[-1]
        states[node] = join(states[node], delta)
        seen += [delta, states[node]]
    return seen


@by_type
@given(script=steps, picks=st.tuples(st.integers(0, 99), st.integers(0, 99), st.integers(0, 99)))
def test_a_join_is_commutative_associative_idempotent_and_an_upper_bound(name: str, script: list[tuple[int, int, int]], picks: tuple[int, int, int]) -> None:
    empty, join, _ = TYPES[name]
    seen = reached(name, script)
    a, b, c = (seen[pick % len(seen)] for pick in picks)
    assert join(a, b) == join(b, a)
    assert join(a, join(b, c)) == join(join(a, b), c)
    assert join(a, a) == a == join(a, empty)
    assert join(join(a, b), a) == join(a, b)


@given(steps)
def test_counters_and_sets_against_what_was_done(script: list[tuple[int, int, int]]) -> None:
    """A dumb twin: operations as a growing set of events, each replica with those that it has seen."""
    counter, orset = [()] * NODES, [t.OR_EMPTY] * NODES
    events: list[dict[int, int]] = [{} for _ in range(NODES)]  # event -> amount
    adds: list[dict[int, int]] = [{} for _ in range(NODES)]  # add -> element
    removed: list[set[int]] = [set() for _ in range(NODES)]
    for at, (what, node, number) in enumerate(script):
        if what < 4:
            counter[node] = t.counter_join(counter[node], t.counter_increment(counter[node], node, number))
            events[node][at] = number
            orset[node] = t.or_join(orset[node], t.or_add(orset[node], node, at, number))
            adds[node][at] = number
        elif what == 4:
            orset[node] = t.or_join(orset[node], t.or_remove(orset[node], number))
            removed[node] |= {add for add, element in adds[node].items() if element == number}
        else:
            other = number % NODES
            counter[node] = t.counter_join(counter[node], counter[other])
            orset[node] = t.or_join(orset[node], orset[other])
            events[node] |= events[other]
            adds[node] |= adds[other]
            removed[node] |= removed[other]
    for node in range(NODES):
        assert t.counter_value(counter[node]) == sum(events[node].values())
        assert t.or_elements(orset[node]) == sorted({element for add, element in adds[node].items() if add not in removed[node]})


def test_a_concurrent_add_wins_over_a_remove() -> None:
    """RR-7506, 3.3.5: "In the case of concurrent add and remove of the same element, add has precedence (in contrast to 2P-Set)." """
    a = t.or_join(t.OR_EMPTY, t.or_add(t.OR_EMPTY, 0, 1, "x"))
    b = t.or_join(a, t.or_remove(a, "x"))
    assert t.or_elements(b) == []
    again = t.or_join(a, t.or_add(a, 1, 2, "x"))
    assert t.or_elements(t.or_join(again, b)) == ["x"]


def test_a_multi_value_register_keeps_concurrent_values_and_the_next_write_replaces_them() -> None:
    both = t.mv_join(t.mv_assign((), 0, 5, "a"), t.mv_assign((), 1, 5, "b"))
    assert sorted(t.mv_values(both)) == ["a", "b"]
    assert t.mv_values(t.mv_join(both, t.mv_assign(both, 2, 0, "c"))) == ["c"]


# ---- vector clocks ------------------------------------------------------------------------------------------------------------------
clocks = st.dictionaries(st.integers(0, 4), st.integers(1, 3)).map(lambda d: tuple((node, d[node], d[node]) for node in sorted(d)))


@given(clocks, clocks, clocks)
def test_descent_is_a_partial_order_and_merge_its_least_upper_bound(a: vc.Clock, b: vc.Clock, c: vc.Clock) -> None:
    dumb = all(vc.counter(a, node) >= number for node, number, _ in b)
    assert vc.descends(a, b) == dumb and vc.descends(a, a)
    if vc.descends(a, b) and vc.descends(b, a):
        assert a == b
    both = vc.merge([a, b])
    assert vc.descends(both, a) and vc.descends(both, b)
    if vc.descends(c, a) and vc.descends(c, b):
        assert vc.descends(c, both)
    higher = vc.advance(a, 2, vc.counter(a, 2) + 1, 9)
    assert vc.descends(higher, a) and not vc.descends(a, higher)


@given(st.lists(clocks, max_size=6), st.randoms(use_true_random=False))
def test_reconciling_keeps_what_nothing_descends_from_in_any_order(found: list[vc.Clock], order: Any) -> None:
    versions = [(clock, repr(clock), 0) for clock in found]
    kept = vc.reconcile(versions)
    order.shuffle(versions)
    assert vc.reconcile(versions) == kept
    assert {v[0] for v in kept} == {a for a in found if not any(vc.descends(b, a) and a != b for b in found)}


def test_a_clock_that_reaches_the_threshold_loses_its_oldest_pair() -> None:
    """Dynamo, 4.4: "When the number of (node, counter) pairs in the vector clock reaches a threshold (say 10), the oldest pair is removed from the clock."
    Of a merged clock as many go as it takes."""
    clock = tuple((node, 1, 100 - node) for node in range(11))
    assert vc.truncate(clock, 10) == vc.truncate(clock[:10], 10) == clock[:9] == vc.truncate(clock[:9], 10)
