"""Raft (Ongaro and Ousterhout, ATC 2014), sections 5.2 to 5.4 and 6: quorum arithmetic, pure and apart.

Decides: how many are enough.  May not know: terms, messages, time.  After etcd-io/raft's package `quorum`.
"""

from __future__ import annotations

from collections.abc import Sequence

WON, LOST, PENDING = "won", "lost", "pending"


def majority(voters: int) -> int:
    """The smallest number of voters such that any two such sets share one."""
    return voters // 2 + 1


def committed(matches: Sequence[int]) -> int:
    """The largest index that a majority holds; `matches`: for each voter, the index up to which its log is known to agree."""
    return sorted(matches)[len(matches) - majority(len(matches))]


def tally(granted: int, refused: int, voters: int) -> str:
    """What an election has come to: won, lost (a majority can no longer be had) or pending."""
    if granted >= majority(voters):
        return WON
    return LOST if voters - refused < majority(voters) else PENDING
