"""Random streams: one for each (seed, role, index), each a single integer of state.

Decides: every random number of a trial.  Never shared, never dependent on the order of execution, the hash seed, the engine or the batch.
Source: SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014): output k is a bijective
mix of start + k * golden gamma, so that a stream is counter-based and costs bytes; starts come from BLAKE2b of the name.
"""

from __future__ import annotations

import hashlib
from typing import Final

import numpy as np
import numpy.typing as npt
from mypy_extensions import i64

MASK = 0xFFFFFFFFFFFFFFFF
GAMMA = 0x9E3779B97F4A7C15
COMPILED: Final = not __file__.endswith(".py")


def after(state: i64) -> i64:
    """The state that follows a state, as a word: compiled, a signed integer of the machine, whose sums and products wrap around; else 64 bits of Python's,
    unsigned.  Who looks at a word's bits looks at some of them, under a mask, and sees the same."""
    return state - 0x61C8864680B583EB


def mix(state: i64) -> i64:
    """SplitMix64's output for a state, both as words: a bijection of 64-bit integers."""
    z = (state ^ (state >> 30 & 0x3FFFFFFFF)) * -0x40A7B892E31B1A47
    z = (z ^ (z >> 27 & 0x1FFFFFFFFF)) * -0x6B2FB644ECCEEE15
    return z ^ (z >> 31 & 0x1FFFFFFFF)


def _after(state: int) -> int:
    return (state + GAMMA) & MASK


def _mix(state: int) -> int:
    z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


if not COMPILED:  # Python's integers do not wrap around
    globals().update(after=_after, mix=_mix)


Outputs = npt.NDArray[np.uint64]
BLOCK = 256  # outputs worked out at once, at most
ALONE = 32  # a stream that has given so many one by one gives the next ones in blocks, at a fourth of the cost
_STEPS = np.arange(1, BLOCK + 1, dtype=np.uint64) * np.uint64(GAMMA)
_30, _27, _31 = np.uint64(30), np.uint64(27), np.uint64(31)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def outputs(state: int | Outputs, count: int) -> Outputs:
    """The `count` (at most BLOCK) outputs that follow a state, as unsigned 64-bit integers: `mix` of state + GAMMA, state + 2 GAMMA, ...; for a column of
    states a row each."""
    z = np.uint64(state) + _STEPS[:count] if isinstance(state, int) else state + _STEPS[:count]
    z = (z ^ (z >> _30)) * _FIRST
    z = (z ^ (z >> _27)) * _SECOND
    return z ^ (z >> _31)


def later(state: int, count: int) -> int:
    """A stream's state after `count` more outputs."""
    return (state + GAMMA * count) & MASK


class Stream:
    """A sequence of 64-bit integers named by (seed, role, index...)."""

    __slots__ = ("ahead", "given", "state")

    def __init__(self, seed: int, role: str, *index: int) -> None:
        name = f"{seed}/{role}/{'/'.join(map(str, index))}".encode()
        self.state: i64 = int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little", signed=COMPILED)
        self.given = 0  # outputs given one by one
        self.ahead: list[int] = []  # outputs worked out already, the next one last; `state` is behind them

    def word(self) -> i64:
        """The next 64 random bits, as a word: an integer of which some bits are looked at under a mask."""
        if self.ahead:
            return self.ahead.pop()
        if self.given < ALONE or COMPILED:
            self.given += 1
            self.state = after(self.state)
            return mix(self.state)
        self.ahead = outputs(self.state, 2 * ALONE)[::-1].tolist()
        self.state = later(self.state, 2 * ALONE)
        return self.ahead.pop()

    def bits(self) -> int:
        """The next 64 random bits, as an integer in [0, 2**64)."""
        return int(self.word()) & MASK

    def below(self, n: int) -> int:
        """An integer in [0, n), n <= 2**32; bias below 2**-32 (Lemire's multiply-shift, without rejection)."""
        return int(self.word() >> 32 & 0xFFFFFFFF) * n >> 32

    def between(self, low: int, high: int) -> int:
        """An integer in [low, high], both included."""
        return low + self.below(high - low + 1)

    def chance(self, parts_per_million: int) -> bool:
        """True with the given probability, in parts per million."""
        return self.below(1_000_000) < parts_per_million
