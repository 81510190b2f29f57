"""Tables of times: an inverse CDF in integers, and the draw from it.

Decides: which time a word of 64 random bits names.  May not know: distributions, which make the tables (distributions.py), and who asks.
A table has seven levels of 4,096 equal bins; a level's last 1/64 is the next level, so that a tail, which is convex, is resolved to 2**-48.
"""

from __future__ import annotations

from typing import Final

from mypy_extensions import i64

BINS: Final = 4096
TAIL_BIN: Final = 4032  # BINS - BINS // 64: from this bin on the next level answers
LEVELS: Final = 7


class Table:
    """The inverse CDF of a distribution in integers: `draw(bits)` maps 64 random bits to microseconds."""

    __slots__ = ("constant", "least", "levels")

    def __init__(self, levels: list[list[int]], least: int, constant: bool) -> None:
        self.levels = levels
        self.least = least
        self.constant = constant

    def draw(self, bits: int) -> int:
        """The time at the quantile that `bits` / 2**64 names, linear between table entries."""
        return self.drawn(bits - (1 << 64) if bits >> 63 else bits)

    def drawn(self, word: i64) -> int:
        """The same for a word of a stream (streams.py), which may be negative."""
        i = word >> 52 & 0xFFF
        if i >= TAIL_BIN:
            return self.tail(word << 6)
        times = self.levels[0]
        low = times[i]
        return low + ((times[i + 1] - low) * int(word >> 20 & 0xFFFFFFFF) >> 32)

    def tail(self, word: i64) -> int:
        """The time at the quantile 1 - (1 - word / 2**64) / 64."""
        at = 1
        while word >> 52 & 0xFFF >= TAIL_BIN and at < LEVELS - 1:
            at += 1
            word <<= 6
        times, i = self.levels[at], word >> 52 & 0xFFF
        low = times[i]
        return low + ((times[i + 1] - low) * int(word >> 20 & 0xFFFFFFFF) >> 32)
