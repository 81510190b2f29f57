"""Distributions: tables against scipy's quantiles and against the definition, entry by entry, in 40 digits."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import mpmath
import msgspec
import numpy as np
import pytest
import scipy  # its `stats` takes most of a second to import, so that a worker without these tests leaves it

from capray import distributions
from capray.distributions import (
    BINS,
    CEILING_US,
    LEVELS,
    AnyDistribution,
    Constant,
    Empirical,
    Exponential,
    Lognormal,
    Mixture,
    Pareto,
    Part,
    Table,
    Uniform,
    read_quantiles,
    table,
)
from capray.errors import InputError
from capray.faults import FIELD_DURATIONS
from capray.links import DISKS, LINKS
from capray.streams import Stream
from capray.tables import TAIL_BIN

MEASURED = Empirical(points=((0.0, 100.0), (0.5, 200.0), (0.9, 1000.0), (0.9999999, 5e5), (1.0, 1e8)))
CLOSED: list[tuple[AnyDistribution, str, tuple[float, ...]]] = [  # its name in scipy.stats, its arguments there
    (Exponential(75), "expon", (0, 75)),
    (Exponential(545_454.5), "expon", (0, 545_454.5)),
    (Lognormal(2_000, 0.99), "lognorm", (0.99, 0, 2_000)),
    (Pareto(235, 10), "pareto", (10, 0, 235)),
    (Pareto(1050, 1.51), "pareto", (1.51, 0, 1050)),
    (Uniform(10, 5_000), "uniform", (10, 4_990)),
]
EVERY: list[AnyDistribution] = [ours for ours, *_ in CLOSED] + [
    MEASURED, Constant(7), Mixture((Part(0.9122, Pareto(235, 10)), Part(0.0878, Exponential(602.4)))), Mixture((Part(1, MEASURED, 50), Part(3, Constant(90)))),
    Mixture(tuple(Part(1, Constant(us)) for us in (10, 1_000_000, 10**12)) + (Part(1, Constant(5)),))]


def bits_at(share: float) -> int:
    return min(int(share * 2**64), 2**64 - 1)


@pytest.mark.parametrize("ours, theirs, arguments", CLOSED, ids=[str(ours) for ours, *_ in CLOSED])
def test_quantiles_agree_with_scipy(ours: AnyDistribution, theirs: str, arguments: tuple[float, ...]) -> None:
    """Within 0.4 %: between the 12,288 entries a draw is linear, which shows where a bin is steep."""
    drawn = table(ours)
    for share in (0.001, 0.01, 0.25, 0.5, 0.9, 0.99, 0.999, 0.9999, 1 - 1e-6, 1 - 1e-8):
        expected = getattr(scipy.stats, theirs)(*arguments).ppf(share)
        assert drawn.draw(bits_at(share)) == pytest.approx(expected, rel=4e-3, abs=1.5), share


@pytest.mark.parametrize("ours, theirs, arguments", CLOSED, ids=[str(ours) for ours, *_ in CLOSED])
def test_draws_pass_kolmogorov_smirnov(ours: AnyDistribution, theirs: str, arguments: tuple[float, ...]) -> None:
    drawn, stream = table(ours), Stream(4, "ks")
    sample = np.array([drawn.draw(stream.bits()) for _ in range(20_000)]) + np.random.default_rng(1).uniform(-1, 0, 20_000)  # integers, rounded up
    assert scipy.stats.kstest(sample, getattr(scipy.stats, theirs)(*arguments).cdf).statistic < 0.02


def test_the_tail_is_resolved_to_two_to_the_minus_47() -> None:
    drawn = table(Pareto(1000, 2))
    for k in (13, 20, 24, 30, 35, 41, 47):
        assert drawn.draw(2**64 - 2 ** (64 - k)) == pytest.approx(1000 * 2 ** (k / 2), rel=2e-3), k
    assert drawn.draw(2**64 - 1) < CEILING_US


@pytest.mark.parametrize("distribution", EVERY, ids=lambda d: type(d).__name__)
def test_every_entry_is_the_smallest_integer_that_reaches_its_quantile(distribution: AnyDistribution) -> None:
    """By the definition itself, in 40 digits, on a sample of entries of each level."""
    drawn = table(distribution)
    for level in range(LEVELS):
        for i in [1, 2, 100, 1024, 2048, 2049, 3072, 3700, 4000, 4094, 4095]:
            t = drawn.levels[level][i]
            with mpmath.workdps(40):
                tail = mpmath.mpf(BINS - i) / (BINS * 64**level)
                assert distribution.survival_exact(t) <= tail, (level, i)
                assert t == 0 or distribution.survival_exact(t - 1) > tail, (level, i)


@pytest.mark.parametrize("distribution", EVERY, ids=lambda d: type(d).__name__)
def test_tables_rise_join_and_start_at_the_least(distribution: AnyDistribution) -> None:
    drawn = table(distribution)
    assert drawn.draw(0) == drawn.least == distribution.least()
    for level in drawn.levels:
        assert all(a <= b for a, b in pairwise(level))
    assert [level[TAIL_BIN] for level in drawn.levels[:-1]] == [level[0] for level in drawn.levels[1:]]
    assert all(type(entry) is int for level in drawn.levels for entry in level[::97])


@pytest.mark.parametrize("ulp", [-1, 1])
def test_a_processor_whose_floats_are_an_ulp_off_builds_the_same_table(ulp: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Floating point only proposes: shift every survival value to its neighbour and nothing changes."""
    for distribution in EVERY:
        kind = type(distribution)
        if kind is Mixture or kind is Constant:
            continue
        honest = table(distribution)
        plain = kind.survival
        with monkeypatch.context() as patch:
            patch.setattr(kind, "survival", lambda self, t, plain=plain: np.nextafter(plain(self, t), ulp * np.inf))
            shifted = table.__wrapped__(distribution)
        assert shifted.levels == honest.levels, kind


def test_without_the_exact_decision_an_ulp_would_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above can fail: uniform on [0, 4096] has a boundary on every entry."""
    distribution = Uniform(0, 4096)
    honest = table(distribution).levels
    monkeypatch.setattr(distributions, "_decide", lambda _, t, a, b: t)
    plain = Uniform.survival
    monkeypatch.setattr(Uniform, "survival", lambda self, t: np.nextafter(plain(self, t), np.inf))
    assert table.__wrapped__(distribution).levels != honest


def test_a_long_flat_stretch_is_crossed_in_few_steps() -> None:
    """Six incidents, each as likely: at one half the survival function is flat for 42 minutes of microseconds."""
    incidents = FIELD_DURATIONS["incidents"]
    drawn = table(incidents)
    assert [drawn.draw(bits_at((k + 0.5) / 6)) for k in range(6)] == [p.of.value_us for p in incidents.parts]  # type: ignore[union-attr]


def test_a_mixture_is_its_parts_and_adds_its_constants() -> None:
    both = table(Mixture((Part(1, Constant(10), 5), Part(3, Uniform(100, 200)))))
    assert (both.draw(bits_at(0.2)), both.least) == (15, 15)
    assert both.draw(bits_at(0.625)) == pytest.approx(150, abs=1)


def test_a_constant_is_constant_and_rounded_up() -> None:
    drawn = table(Constant(2.5))
    assert {drawn.draw(Stream(i, "c").bits()) for i in range(50)} == {3} and drawn.constant


def test_presets_reproduce_the_means_they_cite() -> None:
    assert np.mean([table(LINKS["lan"].latency).draw(Stream(i, "m").bits()) for i in range(20_000)]) == pytest.approx(75, rel=0.03)
    fsync = sorted(table(DISKS["fsync-2ms"]).draw(Stream(i, "d").bits()) for i in range(20_000))  # type: ignore[arg-type]
    assert fsync[10_000] == pytest.approx(2_000, rel=0.03) and fsync[19_800] == pytest.approx(20_000, rel=0.1)


@pytest.mark.parametrize("distribution, names", [
    (Exponential(0), "mean_us 0"), (Exponential(-1), "mean_us -1"), (Exponential(float("nan")), "mean_us nan"), (Exponential(float("inf")), "mean_us inf"),
    (Lognormal(1, 0), "sigma 0"), (Pareto(1, -2), "alpha -2"), (Constant(-1), "value_us -1"), (Uniform(5, 5), "low_us"), (Empirical(), "points"),
    (Empirical(points=((0, 5), (1, 5))), "points"), (Empirical(points=((0.1, 5), (1, 6))), "points"), (Mixture(()), "parts"),
    (Mixture((Part(0, Constant(1)),)), "weight"), (Mixture((Part(1, Constant(1), -5),)), "plus_us"), (Mixture((Part(float("nan"), Constant(1)),)), "weight"),
    (Mixture((Part(1, Exponential(0)),)), "mean_us 0")], ids=str)
def test_what_cannot_be_is_named(distribution: AnyDistribution, names: str) -> None:
    (problem,) = distribution.problems()
    assert names in problem and "\n" not in problem


def test_quantiles_come_from_a_file_with_or_without_a_header(tmp_path: Path) -> None:
    file = tmp_path / "rtt.csv"
    file.write_text("probability,time_us\n0,100\n0.5,200\n\n1,1000\n")
    assert read_quantiles(str(file), "link.latency") == Empirical(points=((0, 100), (0.5, 200), (1, 1000)))
    assert table(read_quantiles(str(file), "x")).draw(bits_at(0.75)) == pytest.approx(600, abs=1)


@pytest.mark.parametrize("text, complaint", [
    ("0,100\nhalf,200\n1,300\n", "line 2: 'half,200'"), ("0,100\n1\n", "line 2: '1'"), ("0,100\n1,50\n", "points must rise"), ("", "points must rise"),
    ("p,t\n0,1\n0.5,nan\n1,9\n", "points must rise")])
def test_a_wrong_file_is_one_line_that_says_where(tmp_path: Path, text: str, complaint: str) -> None:
    file = tmp_path / "bad.csv"
    file.write_text(text)
    with pytest.raises(InputError) as error:
        read_quantiles(str(file), "link.latency")
    assert complaint in str(error.value) and "link.latency" in str(error.value) and "\n" not in str(error.value)


def test_a_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00\x80")
    for path in (tmp_path / "none", tmp_path / "binary", tmp_path):
        with pytest.raises(InputError, match="link.latency"):
            read_quantiles(str(path), "link.latency")


def test_distributions_survive_the_wire() -> None:
    for distribution in EVERY:
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(distribution), type=AnyDistribution) == distribution


def test_a_table_costs_no_more_than_its_levels() -> None:
    assert [len(level) for level in table(Exponential(75)).levels] == [BINS + 1] * LEVELS and isinstance(table(Exponential(75)), Table)


def test_a_convex_tail_is_not_bent_upwards_between_two_entries() -> None:
    """A linear chord over a bin of a Pareto tail lies above it: drawn over the whole last 1/64, the mean excess stays within 1 % of the true one."""
    drawn, n = table(Pareto(1050, 1.51)), 200_000
    for low, high in ((0.98, 0.99), (0.999, 0.9995), (0.9995, 0.9999)):
        mean = sum(drawn.draw(int((low + (high - low) * (k + 0.5) / n) * 2**64)) for k in range(0, n, 20)) / (n / 20)
        true = 1050 * 1.51 / 0.51 * ((1 - low) ** (1 - 1 / 1.51) - (1 - high) ** (1 - 1 / 1.51)) / (high - low)
        assert mean == pytest.approx(true, rel=0.01), (low, high)
