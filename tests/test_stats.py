"""Means over seeds, their intervals, and when two runs are told apart: against textbook numbers, closed forms and coverage by simulation."""

from __future__ import annotations

import random
from typing import Any

import pytest

from capray import stats
from capray.stats import (
    Summary,
    difference,
    independent_difference,
    mean_interval,
    paired_difference,
    summarize,
    summary,
    t_point,
    wilson_interval,
)


def test_student_1908_sleep_data_as_in_every_textbook() -> None:
    """Extra hours of sleep by the second soporific minus the first: mean 1.58, 95 % interval 0.70 to 2.46."""
    first = dict(enumerate([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]))
    second = dict(enumerate([1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]))
    found = paired_difference(first, second)
    assert (found.mean, found.trials, found.apart, found.paired) == (1.58, 10, True, True)
    assert found.low == pytest.approx(0.7001142, abs=1e-7) and found.high == pytest.approx(2.4598858, abs=1e-7)
    welch = independent_difference(list(first.values()), list(second.values()))  # R: t.test(extra ~ group): -3.3654832 to 0.2054832
    assert welch.low == pytest.approx(-0.2054832, abs=1e-7) and welch.high == pytest.approx(3.3654832, abs=1e-7)
    assert (welch.apart, welch.paired) == (False, False)  # pairing is what tells them apart


@pytest.mark.parametrize(("freedom", "point"), [(1, 12.706), (2, 4.303), (7, 2.365), (30, 2.042)])
def test_points_of_t_as_tabulated(freedom: int, point: float) -> None:
    assert t_point(freedom) == pytest.approx(point, abs=0.0005)


@pytest.mark.parametrize(("values", "expected"), [
    ([3.0], (3.0, None, None)),  # one trial has no interval
    ([2.0, 2.0, 2.0], (2.0, 2.0, 2.0)),
    ([1.0, 3.0], (2.0, 2 - 12.7062047, 2 + 12.7062047)),
    ([1, 2, 3, 4, 5], (3.0, 3 - 1.9632432, 3 + 1.9632432)),
])
def test_few_trials_get_a_t_interval(values: list[float], expected: tuple[float, ...]) -> None:
    assert mean_interval(values) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("good", "trials", "low", "high"), [
    (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (5, 10, 0.2366, 0.7634), (81, 263, 0.2553, 0.3662),  # the last: Newcombe 1998, table I
])
def test_wilson(good: int, trials: int, low: float, high: float) -> None:
    assert wilson_interval(good, trials) == pytest.approx((low, high), abs=0.00006)


def test_wilson_of_no_trials_is_an_error() -> None:
    for good, trials in ((0, 0), (3, 2), (-1, 4)):
        with pytest.raises(ValueError, match="no share of trials"):
            wilson_interval(good, trials)


@pytest.mark.parametrize(("column", "expected"), [
    ([], Summary(None, None, None, 0, 0)),
    ([None, None], Summary(None, None, None, 0, 2)),
    ([None, 4], Summary(4.0, None, None, 1, 1)),  # a null is not a 0
    ([5, 5, None, 5], Summary(5.0, 5.0, 5.0, 3, 1)),
    ([True], Summary(1.0, None, None, 1, 0)),
    ([True, False, None, True, True], Summary(0.75, 0.300641843, 0.954412739, 4, 1)),
    (["valid", "invalid", "unknown", "valid", "valid"], Summary(0.75, 0.300641843, 0.954412739, 4, 1)),
    (["zookeeper", "etcd"], Summary(None, None, None, 0, 2)),
])
def test_nulls_are_left_out_and_counted_and_verdicts_are_shares(column: list[Any], expected: Summary) -> None:
    assert summarize(column) == pytest.approx(expected)


def test_a_summary_as_the_command_line_prints_it() -> None:
    assert summary([1, 1]) == {"mean": 1.0, "low": 1.0, "high": 1.0, "trials": 2}
    assert summary([1, None]) == {"mean": 1.0, "low": None, "high": None, "trials": 1, "nulls": 1}


# ---- many trials: the bootstrap ---------------------------------------------------------------------------------------------------------------
def skewed(seed: int, n: int) -> list[float]:
    drawn = random.Random(seed)
    return [drawn.expovariate(1.0) for _ in range(n)]


def test_the_bootstrap_agrees_with_scipys_bca() -> None:
    from scipy.stats import bootstrap

    values = skewed(3, 40)
    theirs = bootstrap((values,), lambda x, axis: x.mean(axis=axis), vectorized=True, n_resamples=9_999, method="BCa", rng=5).confidence_interval
    _, low, high = mean_interval(values)
    spread = theirs.high - theirs.low
    assert low == pytest.approx(theirs.low, abs=0.05 * spread) and high == pytest.approx(theirs.high, abs=0.05 * spread)
    assert low is not None and high is not None and high - sum(values) / 40 > sum(values) / 40 - low  # it leans to the side of the long tail, as t cannot


def test_the_same_values_give_the_same_bytes_and_order_of_trials_hardly_matters() -> None:
    values = skewed(4, 25)
    assert mean_interval(values) == mean_interval(list(values))
    assert mean_interval(values) == pytest.approx(mean_interval(values[::-1]), rel=0.03)
    assert mean_interval([0.1] * 3)[0] == 0.1 and mean_interval([0.1, 0.2, 0.3])[0] == 0.2  # no trailing digits of the machine's arithmetic


def covered(samples: list[list[float]], true_mean: float) -> float:
    intervals = [mean_interval(values) for values in samples]
    return sum(low <= true_mean <= high for _, low, high in intervals if low is not None and high is not None) / len(samples)


def test_intervals_cover_about_95_percent() -> None:
    """1,000 sets of 8 normal trials (t is exact), and 1,000 of 24 exponential ones, which every method covers somewhat less."""
    drawn = random.Random(8)
    assert 0.93 <= covered([[drawn.gauss(5, 2) for _ in range(8)] for _ in range(1_000)], 5.0) <= 0.97
    assert 0.90 <= covered([skewed(seed, 24) for seed in range(1_000)], 1.0) <= 0.96


def test_a_rare_event_among_many_trials_has_an_interval_that_holds_its_mean() -> None:
    mean, low, high = mean_interval([0.0] * 29 + [1.0])
    assert low is not None and high is not None and 0 <= low <= mean <= high <= 1


# ---- comparisons --------------------------------------------------------------------------------------------------------------------------------
def test_pairs_are_seeds_that_both_have_a_value_for() -> None:
    a = {1: 0.5, 2: None, 3: 0.7, 4: 0.2}
    b = {4: 0.3, 3: 0.8, 2: 0.9, 7: 0.1, 1: 0.6}
    assert paired_difference(a, b)[:4] == pytest.approx((0.1, 0.1, 0.1, 3)) and paired_difference(a, b).apart is True
    assert paired_difference({1: 1.0}, {1: 3.0}) == (2.0, None, None, 1, None, True)  # one pair: no interval, no claim
    assert paired_difference({1: 1.0}, {2: 3.0}) == (None, None, None, 0, None, True)
    assert paired_difference({1: "valid", 2: "valid"}, {1: "invalid", 2: "invalid"}).mean == -1.0


def test_equal_runs_are_not_told_apart_and_noise_that_both_share_does_not_hide_a_difference() -> None:
    noise = {seed: random.Random(seed).gauss(0, 10) for seed in range(8)}
    assert paired_difference(noise, noise)[:3] == (0.0, 0.0, 0.0) and paired_difference(noise, noise).apart is False
    shifted = {seed: x + 0.5 + random.Random(-seed - 1).gauss(0, 0.1) for seed, x in noise.items()}
    assert paired_difference(noise, shifted).apart is True
    assert independent_difference(list(noise.values()), list(shifted.values())).apart is False


def test_runs_without_common_seeds_are_compared_by_welch() -> None:
    assert difference({1: 1.0, 2: 2.0}, {1: 2.0, 2: 3.5}).paired is True
    found = difference({1: 1.0, 2: 2.0, 3: 3.0}, {11: 11.0, 12: 12.0, 13: 13.0})
    assert (found.paired, found.apart, found.mean, found.trials) == (False, True, 10.0, 3)
    assert independent_difference([1, 1], [2, 2]) == (1.0, 1.0, 1.0, 2, True, False)
    assert independent_difference([1], [2, 2]) == (1.0, None, None, 1, None, False)
    assert independent_difference([None], [2, 2]) == (None, None, None, 0, None, False)


def test_the_threshold_between_t_and_bootstrap_is_the_stated_one(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[int] = []

    def noted(values: stats.Floats) -> tuple[float, float]:
        used.append(len(values))
        return 0.0, 9.0

    monkeypatch.setattr(stats, "_bca", noted)
    mean_interval(skewed(1, stats.BOOTSTRAP_FROM - 1))
    mean_interval(skewed(1, stats.BOOTSTRAP_FROM))
    assert used == [stats.BOOTSTRAP_FROM]


def test_thousands_of_trials_take_little_memory_and_t_and_the_bootstrap_then_agree() -> None:
    import tracemalloc

    values = skewed(5, 1_000)
    tracemalloc.start()
    mean, low, high = mean_interval(values)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 150_000_000 and low is not None and high is not None
    half = t_point(999) * (sum((x - mean) ** 2 for x in values) / 999 / 1000) ** 0.5
    assert (low, high) == pytest.approx((mean - half, mean + half), abs=0.15 * half)
    many = mean_interval([*values, values[0]])
    assert many.low is not None and many.high is not None and many.high - many.mean == pytest.approx(many.mean - many.low)  # symmetric: t
