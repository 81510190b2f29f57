"""Distributions of times, drawn as integer microseconds through inverse-CDF tables.

Decides: how long a message, a disk sync, a service, a pause between requests takes.  May not know: who asks.
A table entry is the smallest integer t with F(t) >= q.  Floating point only proposes t; where it comes as near to the boundary as its own error could
reach (`precision`), 40-digit arithmetic decides, so that no ulp of any processor's logarithm or power reaches a result.
Sources of the presets are beside them.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from capray.errors import InputError, wrong
from capray.tables import BINS, LEVELS, Table

CEILING_US = 1 << 50  # about 36 years: no draw is longer


class Distribution(msgspec.Struct, frozen=True, tag_field="shape", forbid_unknown_fields=True):
    """A distribution over non-negative times.  Subclasses say which parameters they take; times are microseconds."""

    def survival(self, t: np.ndarray) -> np.ndarray:
        """P(T > t), vectorised, in floating point."""
        raise TypeError("a distribution names its survival function")

    def survival_exact(self, t: int) -> Any:
        """P(T > t) as an mpmath number of 40 digits."""
        raise TypeError("a distribution names its exact survival function")

    def least(self) -> int:
        """The smallest time it can give, rounded up to a microsecond."""
        return 0

    def precision(self) -> float:
        """A relative error that floating point stays far below in `survival`."""
        return 1e-10

    def rounding(self) -> float:
        """The absolute error that floating point may leave in `survival` beside the relative one; above 0 where it subtracts."""
        return 0.0

    def problems(self) -> list[str]:
        """Complaints about parameters, each `name: what it takes`."""
        return [f"{name} {value!r} is not accepted; it takes a number above 0 and at most {CEILING_US}" for name in self.__struct_fields__
                if isinstance(value := getattr(self, name), (int, float)) and not 0 < value <= CEILING_US]


class Constant(Distribution, frozen=True, tag="constant"):
    """Always `value_us`."""

    value_us: float = 0

    def survival(self, t: np.ndarray) -> np.ndarray:
        return (t < self.value_us).astype(float)

    def survival_exact(self, t: int) -> Any:
        return 1 if t < self.value_us else 0

    def least(self) -> int:
        return -int(-self.value_us // 1)

    def problems(self) -> list[str]:
        return [] if 0 <= self.value_us <= CEILING_US else [f"value_us {self.value_us!r} is not accepted; it takes a number from 0 to {CEILING_US}"]


class Uniform(Distribution, frozen=True, tag="uniform"):
    """Uniform on [low_us, high_us]."""

    low_us: float
    high_us: float

    def survival(self, t: np.ndarray) -> np.ndarray:
        return np.clip((self.high_us - t) / (self.high_us - self.low_us), 0.0, 1.0)

    def survival_exact(self, t: int) -> Any:
        mp = _mp()
        return min(mp.mpf(1), max(mp.mpf(0), (mp.mpf(self.high_us) - t) / (mp.mpf(self.high_us) - mp.mpf(self.low_us))))

    def least(self) -> int:
        return -int(-self.low_us // 1)

    def problems(self) -> list[str]:
        if 0 <= self.low_us < self.high_us <= CEILING_US:
            return []
        return [f"low_us, high_us {self.low_us!r}, {self.high_us!r} are not accepted; they take 0 <= low_us < high_us <= {CEILING_US}"]


class Exponential(Distribution, frozen=True, tag="exponential"):
    """Exponential with mean `mean_us`."""

    mean_us: float

    def survival(self, t: np.ndarray) -> np.ndarray:
        return np.exp(-t / self.mean_us)

    def survival_exact(self, t: int) -> Any:
        mp = _mp()
        return mp.exp(-mp.mpf(t) / mp.mpf(self.mean_us))


class Lognormal(Distribution, frozen=True, tag="lognormal"):
    """Lognormal: median `median_us`, and `sigma` the standard deviation of its natural logarithm."""

    median_us: float
    sigma: float

    def survival(self, t: np.ndarray) -> np.ndarray:
        from scipy.special import erfc

        with np.errstate(divide="ignore"):
            return 0.5 * np.asarray(erfc(np.log(t / self.median_us) / (self.sigma * 2**0.5)))

    def survival_exact(self, t: int) -> Any:
        mp = _mp()
        return mp.mpf(1) if t <= 0 else mp.erfc(mp.log(mp.mpf(t) / mp.mpf(self.median_us)) / (mp.mpf(self.sigma) * mp.sqrt(2))) / 2

    def precision(self) -> float:
        """At z < 9 an error of the logarithm's argument is multiplied by z / sigma: (9 / sigma + 81) ulps, under 1e-14 / sigma + 1e-13 with erfc's own.  Hours
        that are told to the microsecond lie nearer to each other than 1e-10: were that the bound, most of their table would be decided in 40 digits."""
        return min(1e-10, 1e-12 + 1e-13 / self.sigma)


class Pareto(Distribution, frozen=True, tag="pareto"):
    """Pareto: scale `scale_us` (its minimum), tail index `alpha`."""

    scale_us: float
    alpha: float

    def survival(self, t: np.ndarray) -> np.ndarray:
        return np.asarray((self.scale_us / np.maximum(t, self.scale_us)) ** self.alpha)

    def survival_exact(self, t: int) -> Any:
        mp = _mp()
        return mp.mpf(1) if t <= self.scale_us else mp.power(mp.mpf(self.scale_us) / t, mp.mpf(self.alpha))

    def least(self) -> int:
        return -int(-self.scale_us // 1)


class Empirical(Distribution, frozen=True, tag="empirical"):
    """Measured quantiles: `points` are (probability, microseconds), both rising, from probability 0 to 1; linear in between.
    Or `file`: lines `probability,time_us` (CSV, a header line allowed), read once when the scenario is."""

    points: tuple[tuple[float, float], ...] = ()
    file: str = ""

    def survival(self, t: np.ndarray) -> np.ndarray:
        probability, time = np.array(self.points).T
        return np.asarray(1.0 - np.interp(t, time, probability, left=0.0, right=1.0))

    def survival_exact(self, t: int) -> Any:
        mp = _mp()
        if t < self.points[0][1]:
            return mp.mpf(1)
        for (p0, t0), (p1, t1) in zip(self.points, self.points[1:]):
            if t < t1:
                return 1 - (mp.mpf(p0) + (mp.mpf(p1) - mp.mpf(p0)) * (mp.mpf(t) - mp.mpf(t0)) / (mp.mpf(t1) - mp.mpf(t0)))
        return mp.mpf(0)

    def least(self) -> int:
        return -int(-self.points[0][1] // 1) if self.points else 0

    def rounding(self) -> float:
        return 1e-15

    def problems(self) -> list[str]:
        if self.file:
            return []
        rising = all(a[0] < b[0] and a[1] < b[1] for a, b in zip(self.points, self.points[1:]))
        ends = len(self.points) >= 2 and self.points[0][0] == 0 and self.points[-1][0] == 1 and self.points[0][1] >= 0 and self.points[-1][1] <= CEILING_US
        return [] if rising and ends else ["points must rise in both columns, from probability 0 to probability 1"]


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One component of a mixture: its weight, its distribution, and a constant added to it."""

    weight: float
    of: AnyDistribution
    plus_us: int = 0


class Mixture(Distribution, frozen=True, tag="mixture"):
    """A mixture; weights are relative (they need not sum to 1)."""

    parts: tuple[Part, ...]

    def survival(self, t: np.ndarray) -> np.ndarray:
        total = sum(part.weight for part in self.parts)
        return np.asarray(sum(part.weight / total * np.where(t < part.plus_us, 1.0, part.of.survival(np.maximum(t - part.plus_us, 0.0)))
                              for part in self.parts))

    def survival_exact(self, t: int) -> Any:
        mp = _mp()
        total = mp.fsum(mp.mpf(part.weight) for part in self.parts)
        return mp.fsum(mp.mpf(p.weight) / total * (1 if t < p.plus_us else p.of.survival_exact(t - p.plus_us)) for p in self.parts)

    def least(self) -> int:
        return min(part.plus_us + part.of.least() for part in self.parts)

    def precision(self) -> float:
        return max(part.of.precision() for part in self.parts)

    def rounding(self) -> float:
        return max(part.of.rounding() for part in self.parts)

    def problems(self) -> list[str]:
        if not self.parts or not all(0 < part.weight <= CEILING_US and 0 <= part.plus_us <= CEILING_US for part in self.parts):
            return ["parts must be one or more, each with a weight above 0 and a plus_us of 0 or more"]
        return [problem for part in self.parts for problem in part.of.problems()]


AnyDistribution = Constant | Uniform | Exponential | Lognormal | Pareto | Empirical | Mixture


@lru_cache(maxsize=256)
def table(distribution: AnyDistribution) -> Table:
    """The table of a distribution; built once a process (tens of milliseconds)."""
    if isinstance(distribution, Constant):
        value = distribution.least()
        return Table([[value] * (BINS + 1)] * LEVELS, value, True)
    levels = []
    for level in range(LEVELS):
        remains = [(BINS - i, BINS * 64**level) for i in range(BINS)]
        remains.append((1, 2 * BINS * 64**level))  # a finite end of an infinite tail; only the last level uses it
        levels.append(_quantiles(distribution, remains))
    levels[0][0] = distribution.least()
    return Table(levels, distribution.least(), False)


def _quantiles(distribution: AnyDistribution, remains: list[tuple[int, int]]) -> list[int]:
    """For each tail probability a/b: the smallest integer t with P(T > t) <= a/b."""
    tail = np.array([a / b for a, b in remains])
    low = np.full(len(tail), -1, dtype=np.int64)  # P(T > low) > tail, as far as floats can tell
    high = np.full(len(tail), CEILING_US, dtype=np.int64)
    while bool(np.any(high - low > 1)):
        middle = (low + high) // 2
        enough = distribution.survival(middle.astype(float)) <= tail
        high = np.where(enough, middle, high)
        low = np.where(enough, low, middle)
    unsure = np.zeros(len(tail), dtype=bool)
    for t in (high - 1, high):
        unsure |= np.abs(distribution.survival(np.maximum(t, 0).astype(float)) - tail) <= distribution.precision() * tail + distribution.rounding()
    out = [int(t) for t in high]
    for i in np.flatnonzero(unsure):
        out[i] = _decide(distribution, out[i], *remains[i])
    return out


def _decide(distribution: AnyDistribution, t: int, a: int, b: int) -> int:
    """The exact answer, by 40-digit arithmetic, looked for from `t` outward in doubling steps (a flat stretch may be long)."""
    mp = _mp()
    tail = mp.mpf(a) / b
    low, high, step = t - 1, t, 1  # to be: P(T > low) > tail >= P(T > high)
    while low >= 0 and distribution.survival_exact(low) <= tail:
        high, low, step = low, max(-1, low - step), 2 * step
    while high < CEILING_US and distribution.survival_exact(high) > tail:
        low, high, step = high, min(CEILING_US, high + step), 2 * step
    while high - low > 1:
        middle = (low + high) // 2
        if distribution.survival_exact(middle) <= tail:
            high = middle
        else:
            low = middle
    return high


def _mp() -> Any:
    import mpmath

    mpmath.mp.dps = 40
    return mpmath.mp


def read_quantiles(path: str, field: str) -> Empirical:
    """Empirical quantiles from a CSV file of `probability,time_us` lines.  Raises InputError naming the line that is wrong."""
    try:
        lines = Path(path).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise wrong(field, path, f"a readable CSV file of probability,time_us lines ({error})") from None
    points = []
    for number, line in enumerate(lines, 1):
        cells = line.split(",")
        try:
            points.append((float(cells[0]), float(cells[1])))
        except (ValueError, IndexError):
            if number == 1 and points == [] and line.strip():
                continue  # a header
            if line.strip():
                raise InputError(f"{field}: {path} line {number}: {line!r} is not accepted; it takes probability,time_us") from None
    found = Empirical(points=tuple(points))
    if problems := found.problems():
        raise wrong(field, path, problems[0])
    return found
