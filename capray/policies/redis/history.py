"""Replication histories of Redis: replication ids and offsets ("Replication ID explained" of its documentation), and a primary's view of a replica.

Decides: what two histories share, what a replica may go on from, who counts as in touch.  Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from capray.policies.redis.messages import Lineage

SECOND_US = 1_000_000


class Attached(msgspec.Struct):
    """A replica as its primary sees it: how far it is, and when it said so."""

    acked: int
    acked_at: int
    online: bool = True
    stalled: bool = False  # its connection waits for a retransmission


def in_touch(replicas: Iterable[Attached], now: int, max_lag_us: int) -> int:
    """refreshGoodSlavesCount(): how many acknowledged within the lag, both times in whole seconds."""
    second, lag = now // SECOND_US, max_lag_us // SECOND_US
    return sum(replica.online and second - replica.acked_at // SECOND_US <= lag for replica in replicas)


def last_offset_of(lineage: Lineage, length: int, replid: int) -> int:
    """The last offset that a replica on `replid` may be at to go on from there: this history's end for its own id (of `length`), the offset of
    the promotion for the second id; -1 for any other."""
    if replid == lineage[-1][0]:
        return length
    if len(lineage) > 1 and replid == lineage[-2][0]:
        return lineage[-1][1] - 1
    return -1


def shared_offset(one: Lineage, length: int, other: Lineage, other_length: int) -> int:
    """The last offset that two histories have in common; `length` is the last offset of each."""
    shared = 0
    for i, branch in enumerate(one):
        if i >= len(other) or other[i] != branch:
            break
        ends = [line[i + 1][1] - 1 if i + 1 < len(line) else last for line, last in ((one, length), (other, other_length))]
        shared = min(ends)
    return shared
