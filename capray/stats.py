"""Means over seeds with 95 % intervals, shares of trials, paired differences.

Decides: which interval a set of trials gets, and whether two runs are told apart.  May not know: what a column means, how it is drawn.
Source: METRICS.md "Statistics".  t: Student 1908.  Wilson: Wilson 1927.  Bootstrap: BCa, Efron 1987, with a fixed seed.

Intervals are over seeds only: operations of one trial fail together and are not independent.  One trial has no interval.  Values that are null were not
measured (or censored): they are left out and counted, never taken for 0.  With fewer than BOOTSTRAP_FROM trials the interval is t; from there on BCa, 9,999
resamples; with more than BOOTSTRAP_TO it is t again, from which BCa then differs by little and costs memory and time.  Where all values are equal the interval
is that value.  Booleans and verdicts are shares of trials.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special

CONFIDENCE = 0.95
Z = 1.959963984540054  # the standard normal's 97.5 % point
BOOTSTRAP_FROM = 20  # fewer trials: resampling them says too little (BCa covers too rarely below about 20)
BOOTSTRAP_TO = 1_000  # more trials: the skewness that BCa corrects for has fallen with the root of their number
RESAMPLES = 9_999
AT_ONCE = 500  # resamples whose values are held at once
BOOTSTRAP_SEED = 1987  # any fixed number
DIGITS = 9
Floats = npt.NDArray[np.float64]


class Interval(NamedTuple):
    """A mean (or share) and its 95 % interval; `low` and `high` are null for a single trial."""

    mean: float
    low: float | None
    high: float | None


class Summary(NamedTuple):
    """One column over several trials: `mean` (null where no trial has a value), its interval, how many trials have a value, and how many do not."""

    mean: float | None
    low: float | None
    high: float | None
    trials: int
    nulls: int


class Difference(NamedTuple):
    """The mean of b - a and its interval; `apart` is true iff the interval leaves out 0, null where there is no interval.  `paired`: over seeds that
    both have (`trials` of them); else Welch's (`trials` is the smaller number)."""

    mean: float | None
    low: float | None
    high: float | None
    trials: int
    apart: bool | None
    paired: bool


def tidy(value: float) -> float:
    """Rounded to nine significant digits, so that the last bits of a machine's mathematics do not show."""
    return float(f"{value:.{DIGITS - 1}e}")


@lru_cache(maxsize=1024)
def t_point(freedom: float) -> float:
    """Student's t: the point that is exceeded with probability 2.5 %."""
    return float(special.stdtrit(freedom, 1 - (1 - CONFIDENCE) / 2))


def mean_of(values: Sequence[float]) -> float:
    """The mean; the sum is rounded once."""
    return math.fsum(values) / len(values)


def mean_interval(values: Sequence[float]) -> Interval:
    """The mean of one value or more, and its 95 % interval (see the module).  Raises ValueError for none."""
    mean = mean_of(values)
    if len(values) < 2:
        return Interval(tidy(mean), None, None)
    if min(values) == max(values):
        return Interval(tidy(mean), tidy(mean), tidy(mean))
    low, high = _bca(np.array(values, np.float64)) if BOOTSTRAP_FROM <= len(values) <= BOOTSTRAP_TO else _t(values, mean)
    return Interval(tidy(mean), tidy(low), tidy(high))


def _t(values: Sequence[float], mean: float) -> tuple[float, float]:
    n = len(values)
    half = t_point(n - 1) * math.sqrt(math.fsum((x - mean) ** 2 for x in values) / (n - 1) / n)
    return mean - half, mean + half


@lru_cache(maxsize=2)
def _resamples(n: int) -> npt.NDArray[np.int16]:
    return np.random.default_rng(BOOTSTRAP_SEED).integers(0, n, (RESAMPLES, n)).astype(np.int16)


def _bca(values: Floats) -> tuple[float, float]:
    """Bias-corrected and accelerated bootstrap of the mean (Efron 1987): the same resamples for every column, so columns of one set of trials
    agree with one another."""
    n, mean = len(values), float(values.mean())
    drawn = _resamples(n)
    means = np.sort(np.concatenate([values[drawn[start:start + AT_ONCE]].mean(axis=1) for start in range(0, RESAMPLES, AT_ONCE)]))
    below = (np.count_nonzero(means < mean) + np.count_nonzero(means <= mean)) / 2 / RESAMPLES
    bias = float(special.ndtri(min(max(below, 1 / RESAMPLES), 1 - 1 / RESAMPLES)))
    # Their mean minus a leave-one-out mean is (x - mean) / (n - 1): the acceleration is a sixth of the values' own skewness.
    away = values - mean
    squares = float((away**2).sum())
    skew = float((away**3).sum()) / (6 * squares**1.5)
    ends = []
    for z in (-Z, Z):
        share = float(special.ndtr(bias + (bias + z) / (1 - skew * (bias + z))))
        ends.append(float(means[min(max(int(share * (RESAMPLES + 1)) - 1, 0), RESAMPLES - 1)]))
    return min(ends[0], mean), max(ends[1], mean)


def wilson_interval(good: int, trials: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of trials.  Raises ValueError for no trials; a single trial has one, but says little."""
    if trials < 1 or not 0 <= good <= trials:
        raise ValueError(f"{good} of {trials} is no share of trials")
    share, square = good / trials, Z * Z / trials
    centre = (share + square / 2) / (1 + square)
    half = Z / (1 + square) * math.sqrt(share * (1 - share) / trials + square / trials / 4)
    return tidy(max(0.0, centre - half)) if good else 0.0, tidy(min(1.0, centre + half)) if good < trials else 1.0


def as_bool(value: Any) -> Any:
    """A verdict as a bool: `valid` is true, `invalid` false; `unknown`, and any other text, is not known (null)."""
    return {"valid": True, "invalid": False}.get(value) if isinstance(value, str) else value


def summarize(values: Sequence[Any]) -> Summary:
    """One column over the trials of one point: each trial a value of its own seed, or null.  Booleans and verdicts: the share that is true (`valid`),
    with Wilson's interval.  Other text has no mean: it counts as null."""
    known = [value for value in map(as_bool, values) if value is not None]
    nulls = len(values) - len(known)
    if not known:
        return Summary(None, None, None, 0, nulls)
    if all(isinstance(value, bool) for value in known):
        good = sum(known)
        low, high = wilson_interval(good, len(known)) if len(known) > 1 else (None, None)
        return Summary(tidy(good / len(known)), low, high, len(known), nulls)
    return Summary(*mean_interval([float(value) for value in known]), len(known), nulls)


def summary(values: Sequence[Any]) -> dict[str, Any]:
    """`summarize` as the command line prints it: {"mean", "low", "high", "trials"}, and "nulls" where there are some."""
    found = summarize(values)._asdict()
    if not found["nulls"]:
        del found["nulls"]
    return found


# ---- comparisons ----------------------------------------------------------------------------------------------------------------------------


def paired_difference(a: Mapping[int, Any], b: Mapping[int, Any]) -> Difference:
    """b - a over the seeds that both have with a value: policies and durations under one seed meet the same requests.  Verdicts and booleans
    count as 1 and 0, each difference -1, 0 or 1."""
    one, other = _numbers(a), _numbers(b)
    return _of_differences([other[seed] - one[seed] for seed in sorted(one.keys() & other.keys())])


def _numbers(values: Mapping[int, Any]) -> dict[int, float]:
    known = {seed: as_bool(value) for seed, value in values.items()}
    return {seed: float(value) for seed, value in known.items() if value is not None}


def _of_differences(values: list[float]) -> Difference:
    if not values:
        return Difference(None, None, None, 0, None, True)
    mean, low, high = mean_interval(values)
    return Difference(mean, low, high, len(values), None if low is None or high is None else not low <= 0 <= high, True)


def independent_difference(a: Sequence[Any], b: Sequence[Any]) -> Difference:
    """mean(b) - mean(a) of two sets of trials that share no seeds (a real store's runs, say): Welch's t interval."""
    one = [float(value) for value in map(as_bool, a) if value is not None]
    other = [float(value) for value in map(as_bool, b) if value is not None]
    trials = min(len(one), len(other))
    if not trials:
        return Difference(None, None, None, 0, None, False)
    mean = mean_of(other) - mean_of(one)
    if trials < 2:
        return Difference(tidy(mean), None, None, trials, None, False)
    parts = [math.fsum((x - mean_of(xs)) ** 2 for x in xs) / (len(xs) - 1) / len(xs) for xs in (one, other)]
    total = math.fsum(parts)
    if not total:
        return Difference(tidy(mean), tidy(mean), tidy(mean), trials, mean != 0, False)
    freedom = total**2 / math.fsum(part**2 / (len(xs) - 1) for part, xs in zip(parts, (one, other)))
    half = t_point(freedom) * math.sqrt(total)
    return Difference(tidy(mean), tidy(mean - half), tidy(mean + half), trials, not mean - half <= 0 <= mean + half, False)


def difference(a: Mapping[int, Any], b: Mapping[int, Any]) -> Difference:
    """Paired where the two have at least two seeds in common, else independent."""
    common = _numbers(a).keys() & _numbers(b).keys()
    return paired_difference(a, b) if len(common) >= 2 else independent_difference(list(a.values()), list(b.values()))
