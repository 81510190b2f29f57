"""The event queue's heap: pushes and pops in the total order of tuples.

Decides: nothing; heapq does the same to the same list.  Compiled (setup.py), comparing two events by their first item, an integer of microseconds, costs a
tenth of what it costs heapq to compare two tuples; as plain Python it would cost ten times as much, so there heapq's own functions take its place.
"""

from __future__ import annotations

import heapq
from typing import Any

from mypy_extensions import i64

Entry = tuple[Any, ...]  # (time, node, class, source, counter, ...): no two are equal so far


def push(queue: list[Entry], entry: Entry) -> None:
    """Put an entry into its place."""
    at: i64 = len(queue)
    queue.append(entry)
    time: i64 = entry[0]
    while at > 0:
        above: i64 = (at - 1) >> 1
        parent = queue[above]
        its: i64 = parent[0]
        if its < time or (its == time and parent < entry):
            break
        queue[at] = parent
        at = above
    queue[at] = entry


def pop(queue: list[Entry]) -> Entry:
    """Take out the least entry.  Raises IndexError where there is none."""
    last = queue.pop()
    if not queue:
        return last
    least = queue[0]
    end: i64 = len(queue)
    time: i64 = last[0]
    at: i64 = 0
    below: i64 = 1
    while below < end:
        child = queue[below]
        its: i64 = child[0]
        if below + 1 < end:
            other = queue[below + 1]
            others: i64 = other[0]
            if others < its or (others == its and other < child):
                child, its, below = other, others, below + 1
        if time < its or (time == its and last < child):
            break
        queue[at] = child
        at = below
        below = 2 * at + 1
    queue[at] = last
    return least


AS_WRITTEN = push, pop

if __file__.endswith(".py"):
    globals().update(push=heapq.heappush, pop=heapq.heappop)
