"""How far apart the replicas were, over time, and when they agreed again.

Decides: the V measures divergence and convergence of METRICS.md.  May not know: clients' answers, policies.
Source: METRICS.md.

Two replicas of a key differ at an instant iff their newest versions differ, and would still if writes younger than the grace were left out:
then the newest of what each holds differ, too.  So what is under way is no divergence, a lag that lasts is (even if each newest version is
young), and so are two sides that each go on writing.  Where a replica held several newest at once (siblings), the order is partial: then they
differ iff one holds a write older than the grace that the other neither holds nor has replaced, step by step; where updates commute (a counter, a
set), likewise, and none replaces another.  A write's age counts from its invocation.  A replica that is down is left out while it is.

The curve is sampled every SAMPLE_US (in long trials: as many whole SAMPLE_US as keep it within MOST_SAMPLES), so the area is a sum of integers.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from heapq import heappop, heappush
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from capray.measures.availability import Row
from capray.measures.holdings import Held, KeyHoldings
from capray.measures.phases import FOREVER, Calendar

GRACE_US = 200_000  # replication within it is no divergence; above the round trip of the presets, and TCP's least retransmission time-out
SAMPLE_US = 100_000
MOST_SAMPLES = 2_000
Times = npt.NDArray[np.int64]


class Sample(NamedTuple):
    """One point of the divergence curve: at `at` microseconds `differing` of `pairs` (key, pair of live replicas) differ."""

    at: int
    differing: int
    pairs: int


def sampling(end: int) -> tuple[int, list[int]]:
    """The curve's step, and its instants from 0 to `end`; the last is `end` itself."""
    step = SAMPLE_US * max(1, -(-end // (SAMPLE_US * MOST_SAMPLES)))
    return step, [*range(0, end, step), end]


def curve(keys: dict[str, KeyHoldings], calendar: Calendar, end: int, grace_us: int = GRACE_US) -> list[Sample]:
    """The divergence curve from 0 to `end`."""
    _, at = sampling(end)
    grid = np.array(at, np.int64)
    live = {node: np.array([node not in calendar.down or not calendar.failed_at(node, t) for t in at], bool) for node in range(calendar.nodes)}
    differing, pairs = np.zeros(len(at), np.int64), np.zeros(len(at), np.int64)
    for found in keys.values():
        up = np.array([live[node] for node in found.replicas]).reshape(len(found.replicas), len(at))
        count = up.sum(axis=0)
        pairs += count * (count - 1) // 2
        differing += _by_cover(found, at, up, grace_us) if found.siblings or found.merges else _by_rank(found, grid, up, grace_us)
    return [Sample(*point) for point in zip(at, differing.tolist(), pairs.tolist())]


def _by_rank(found: KeyHoldings, grid: Times, up: npt.NDArray[np.bool_], grace_us: int) -> Times:
    """Pairs whose newest versions differ, both with and without what is younger than the grace."""
    newest = np.array([_highest(found, node, grid, None) for node in found.replicas])
    settled = np.array([_highest(found, node, grid, grace_us) for node in found.replicas])
    out = np.zeros(len(grid), np.int64)
    for i in range(len(found.replicas)):
        differ = (newest[i] != newest[i + 1:]) & (settled[i] != settled[i + 1:])
        out += (differ & up[i] & up[i + 1:]).sum(axis=0)
    return out


def _highest(found: KeyHoldings, node: int, grid: Times, grace_us: int | None) -> Times:
    """The highest rank that a replica holds at each instant, -1 for nothing; with a grace, among writes that are older."""
    spans = []
    for write, start, end in found.held.get(node, ()):
        since = start if grace_us is None else max(start, found.born[write] + grace_us)
        if since < end:
            spans.append((since, found.rank[write], end))
    spans.sort()
    if any(end != FOREVER for _, _, end in spans):
        return _sweep(spans, grid)
    if not spans:
        return np.full(len(grid), -1, np.int64)
    top = np.concatenate(([-1], np.maximum.accumulate(np.array([rank for _, rank, _ in spans], np.int64))))
    return top[np.searchsorted(np.array([since for since, _, _ in spans], np.int64), grid, side="right")]


def _sweep(spans: list[tuple[int, int, int]], grid: Times) -> Times:
    """The same where something was discarded."""
    edges = sorted({edge for since, _, end in spans for edge in (since, end) if edge != FOREVER})
    out = [-1]  # before the first edge, and from each on
    heap: list[tuple[int, int]] = []  # (-rank, until when it is held)
    i = 0
    for t in edges:
        while i < len(spans) and spans[i][0] <= t:
            heappush(heap, (-spans[i][1], spans[i][2]))
            i += 1
        while heap and heap[0][1] <= t:
            heappop(heap)
        out.append(-heap[0][0] if heap else -1)
    return np.array(out, np.int64)[np.searchsorted(np.array(edges, np.int64), grid, side="right")]


# ---- where the order is partial -----------------------------------------------------------------------------------------------------------


def covers(found: KeyHoldings) -> list[int]:
    """For each write, as bits: itself and all that it replaced, step by step."""
    cover = [1 << write for write in range(len(found.born))]
    changed = True
    while changed:
        changed = False
        for write, older in found.superseded.items():
            new = cover[write]
            for one, _ in older:
                new |= cover[one]
            changed = changed or new != cover[write]
            cover[write] = new
    return cover


def _changes(held: list[Held], cover: list[int]) -> list[tuple[int, int]]:
    """(instant, what the replica covers from then on), ascending."""
    events = sorted({at for _, start, end in held for at in (start, end) if at != FOREVER})
    if any(end != FOREVER for _, _, end in held):
        return [(at, _union(cover[write] for write, start, end in held if start <= at < end)) for at in events]
    out, bits, i, ordered = [], 0, 0, sorted((start, write) for write, start, _ in held)
    for at in events:
        while i < len(ordered) and ordered[i][0] <= at:
            bits |= cover[ordered[i][1]]
            i += 1
        out.append((at, bits))
    return out


def _union(bits: Iterable[int]) -> int:
    out = 0
    for one in bits:
        out |= one
    return out


def _by_cover(found: KeyHoldings, at: list[int], up: npt.NDArray[np.bool_], grace_us: int) -> Times:
    """Pairs of which one covers a write older than the grace that the other does not: all pairs but those in one class of equal covers."""
    cover = covers(found)
    lines = [_changes(found.held.get(node, []), cover) for node in found.replicas]
    births = sorted((born, write) for write, born in enumerate(found.born))
    place, bits = [0] * len(lines), [0] * len(lines)
    out, old, next_birth = [], 0, 0
    for column, t in enumerate(at):
        while next_birth < len(births) and births[next_birth][0] + grace_us <= t:
            old |= 1 << births[next_birth][1]
            next_birth += 1
        classes: dict[int, int] = {}
        for i, line in enumerate(lines):
            while place[i] < len(line) and line[place[i]][0] <= t:
                bits[i] = line[place[i]][1]
                place[i] += 1
            if up[i, column]:
                classes[bits[i] & old] = classes.get(bits[i] & old, 0) + 1
        count = sum(classes.values())
        out.append(count * (count - 1) // 2 - sum(n * (n - 1) // 2 for n in classes.values()))
    return np.array(out, np.int64)


# ---- convergence --------------------------------------------------------------------------------------------------------------------------


def converged_at(found: KeyHoldings, kept: set[int], live: list[int], heal: int) -> int | None:
    """When, from heal on, the last live replica of a key came to hold the newest write acknowledged before heal, or one that replaces it.

    `heal` where that was so already, or nothing was asked for; null where it was not so at the end.  Lost writes are not waited for.
    """
    due = [write for write, acked in enumerate(found.acked) if acked is not None and acked <= heal and write in kept and write not in found.removed]
    if not due:
        return heal
    if found.siblings or found.merges:
        cover = covers(found)
        wanted = _union(1 << write for write in due)
        steps = [[(at, wanted & ~bits == 0) for at, bits in _changes(found.held.get(node, []), cover)] for node in live]
    else:
        target = max(found.rank[write] for write in due)
        steps = [_reached(found, node, target) for node in live]
    return _settled(steps, heal)


def _reached(found: KeyHoldings, node: int, target: int) -> list[tuple[int, bool]]:
    """(instant, does the replica hold the target or newer, or has forgotten it with a tombstone, from then on)."""
    deltas: dict[int, int] = {}
    purged = found.purged.get(node, ())
    for write, start, end in found.held.get(node, ()):
        if found.rank[write] >= target:
            deltas[start] = deltas.get(start, 0) + 1
            if end != FOREVER and write not in purged:
                deltas[end] = deltas.get(end, 0) - 1
    out, count = [], 0
    for at in sorted(deltas):
        count += deltas[at]
        out.append((at, count > 0))
    return out


def _settled(steps: list[list[tuple[int, bool]]], heal: int) -> int | None:
    """When the last of several conditions became true for good; null where one is not true at the end."""
    latest = heal
    for line in steps:
        if not line or not line[-1][1]:
            return None
        since = next((i for i in range(len(line) - 1, -1, -1) if not line[i][1]), -1) + 1
        latest = max(latest, line[since][0])
    return latest


def convergence(keys: dict[str, KeyHoldings] | None, calendar: Calendar, end: int) -> Row:
    """convergence_us, and convergence_censored: true (and convergence_us null) where the trial ended first."""
    heal = calendar.heals
    row: Row = {"convergence_us": None, "convergence_censored": None}
    if keys is None or heal is None or heal > end:
        return row
    live = frozenset(node for node in range(calendar.nodes) if not calendar.failed_at(node, end))
    times = [converged_at(found, found.kept(live), [node for node in found.replicas if node in live], heal) for found in keys.values()]
    known = [at for at in times if at is not None]
    censored = len(known) < len(times)
    return {"convergence_us": None if censored or not times else max(known) - heal, "convergence_censored": censored}


def divergence(keys: dict[str, KeyHoldings] | None, calendar: Calendar, end: int) -> Row:
    """divergence_area (share x seconds, over the whole trial) and divergence_final (the share at the end); null where versions are not
    known, or no key has two live replicas."""
    points = curve(keys, calendar, end) if keys is not None else []
    if not any(point.pairs for point in points):
        return {"divergence_area": None, "divergence_final": None}
    by_pairs: dict[int, int] = {}
    for point, after in pairwise(points):
        if point.pairs:
            by_pairs[point.pairs] = by_pairs.get(point.pairs, 0) + point.differing * (after.at - point.at)
    area = sum((Fraction(total, pairs) for pairs, total in by_pairs.items()), Fraction(0)) / 1_000_000
    last = points[-1]
    return {"divergence_area": float(area), "divergence_final": last.differing / last.pairs if last.pairs else None}
