"""The dynamic snitch and the latency percentile, beside floating-point twins of the real ones."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import convert

from capray.policies.cassandra.replica import Cassandra
from capray.policies.cassandra.settings import CassandraSettings
from capray.policies.cassandra.snitch import OFFSETS, DynamicSnitch, LatencyPercentile, Reservoir
from capray.testing import FakeLink

S = 1_000_000
MS = 1_000


def snitch(nearest_first: bool = False, enabled: bool = True, badness: int = 100) -> DynamicSnitch:
    return DynamicSnitch(0, nearest_first, enabled, 100 * MS, 600 * S, badness, 0)


@given(st.lists(st.tuples(st.integers(0, 500_000), st.integers(0, 40)), min_size=1, max_size=60))
def test_the_median_weighs_samples_by_e_to_the_three_quarters_per_whole_second(gaps: list[tuple[int, int]]) -> None:
    """ExponentiallyDecayingReservoir.update(value) passes currentTimeInSeconds(): samples of one second weigh alike."""
    reservoir, now, samples = Reservoir(), 5 * S, []
    for gap, value in gaps:
        now += gap
        reservoir.add(now, value)
        samples.append((value, math.exp(0.75 * (now // S - 5))))
    total, reached = sum(w for _, w in samples), 0.0
    below = {}
    for value, weight in sorted(samples):
        reached += weight
        below[value] = reached / total
    median = reservoir.median()
    assert below[median] > 0.5 - 0.02
    smaller = [share for value, share in below.items() if value < median]
    assert not smaller or max(smaller) < 0.5 + 0.02


def test_samples_of_one_second_weigh_alike() -> None:
    """currentTimeInSeconds(): by finer time the last would weigh 2.08 times a first one, and be the median."""
    reservoir = Reservoir()
    for at, value in ((5_000_000, 1), (5_000_001, 1), (5_990_000, 9)):
        reservoir.add(at, value)
    assert reservoir.median() == 1


def test_old_samples_fade_so_that_one_time_out_after_5_s_of_silence_outweighs_them() -> None:
    reservoir = Reservoir()
    for i in range(30):
        reservoir.add(i * S // 10, 2)
    reservoir.add(8 * S, 5000)
    assert reservoir.median() == 5000


def test_a_reservoir_survives_an_hour_between_samples() -> None:
    reservoir = Reservoir()
    reservoir.add(0, 7)
    reservoir.add(3600 * S, 3)
    assert reservoir.median() == 3 and len(reservoir.weights) == 1


def test_without_samples_simple_snitch_keeps_the_rings_order_and_the_property_file_puts_itself_first() -> None:
    assert snitch().order(0, [3, 0, 2]) == [3, 0, 2]
    assert snitch(nearest_first=True).order(0, [3, 0, 2], {3: 1}) == [0, 2, 3]


def test_scores_decide_once_a_replica_is_twice_as_bad_as_the_one_that_would_stand_in_its_place() -> None:
    """dynamic_snitch_badness_threshold 1.0: up to twice the score is tolerated."""
    for worse, expected in ((4, [1, 2]), (5, [2, 1])):
        s = snitch()
        s.sample(0, 1, worse)
        s.sample(0, 2, 2)
        assert s.order(S, [1, 2]) == expected


def test_before_version_4_a_tenth_worse_was_enough() -> None:
    s = snitch(badness=10)
    s.sample(0, 1, 23)
    s.sample(0, 2, 20)
    assert s.order(S, [1, 2]) == [2, 1]


def test_scores_are_updated_each_100_ms_and_forgotten_each_10_minutes() -> None:
    s = snitch()
    s.sample(10 * MS, 1, 5000)
    assert s.order(99 * MS, [1, 2]) == [1, 2]
    assert s.order(100 * MS, [1, 2]) == [2, 1]
    assert s.order(599 * S, [1, 2]) == [2, 1]
    assert s.order(600 * S, [1, 2]) == [1, 2]


def test_a_replica_never_asked_scores_best() -> None:
    """DynamicEndpointSnitch: a missing score counts as 0.0."""
    s = snitch()
    s.sample(0, 1, 2)
    assert s.order(S, [1, 2]) == [2, 1]


def test_switched_off_it_only_keeps_the_static_order() -> None:
    s = snitch(enabled=False)
    s.sample(0, 1, 5000)
    assert s.order(S, [1, 2]) == [1, 2]


@given(st.lists(st.integers(100, 5_000_000), min_size=1, max_size=400))
def test_the_percentile_is_the_bucket_of_the_true_one(latencies: list[int]) -> None:
    p = LatencyPercentile(2_500_000, 5 * S, 0)
    for latency in latencies:
        p.add(S, latency)
    true = sorted(latencies)[math.ceil(len(latencies) * 0.99) - 1]
    found = p.threshold(5 * S)
    assert true <= found <= true * 1.2 + 2 and found in OFFSETS


def test_it_is_half_the_timeout_until_the_first_refresh_and_changes_each_5_s_only() -> None:
    p = LatencyPercentile(2_500_000, 5 * S, 0)
    p.add(S, 1000)
    assert p.threshold(4_999_999) == 2_500_000
    first = p.threshold(5 * S)
    assert first < 1300
    for _ in range(10):
        p.add(5 * S, 5_000_000)
    assert p.threshold(9_999_999) == first
    assert p.threshold(10 * S) >= 5 * S


@pytest.mark.parametrize("age_s, weight", [(0, 1), (34, 1), (36, 2), (60, 2), (120, 4), (600, 1024)])
def test_a_latency_weighs_twice_as_much_a_minute_later(age_s: int, weight: int) -> None:
    """DecayingEstimatedHistogramReservoir: round(e**(t / (60 s / ln 2)))."""
    p = LatencyPercentile(0, 5 * S, 0)
    p.add(age_s * S, 1000)
    assert p.total == weight


def test_after_half_an_hour_the_weights_start_anew() -> None:
    p = LatencyPercentile(0, 5 * S, 0)
    p.add(1799 * S, 1000)
    heavy = p.total
    p.add(1801 * S, 1000)
    assert heavy > 2**29 and p.total <= 3


# ---- what a driver's connecting leaves ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("endpoint_snitch", ["simple", "gossiping_property_file"])
@pytest.mark.parametrize("own_reads, hangs", [(3, True), (0, False)])
def test_once_its_driver_has_connected_a_coordinator_reads_others_that_answer_within_the_millisecond(own_reads: int, hangs: bool, endpoint_snitch: str) -> None:
    """Our own runs of 5.0.4, its snitch just reset: of three reads of system tables the coordinator's own score was 1 ms, its reads at ONE went to
    replicas across the cut until they timed out at 5 s, and a node cut off alone answered .19 of its clients' reads, of the .6 that it holds."""
    raw = {"partitioner": "key_number", "endpoint_snitch": endpoint_snitch, "driver_own_reads": own_reads, "stage_latency_us": 0, "speculative_retry": "never"}
    link = FakeLink(Cassandra, 5, convert(raw, CassandraSettings))
    link.run_for(2 * S)
    snitch = link.replica(1).reads.snitch
    link.wait(link.request(1, "read", "k1", None))
    assert snitch.scores.get(1, 0) == (1 if own_reads else 0)
    link.cut([[1], [0, 2, 3, 4]])
    began = link.now
    assert link.wait(link.request(1, "read", "k1", None)).outcome == ("fail" if hangs else "ok")
    assert (link.now - began >= 5 * S) is hangs


@pytest.mark.parametrize("first, again", [("60ms", False), ("0ms", True)])
def test_a_peer_whose_first_read_was_slow_is_not_read_again_while_others_answer_sooner(first: str, again: bool) -> None:
    """Fresh 5.0.4 servers, asked over JMX 20 s after their start: of one peer each had 20 to 50 latencies with a median of 0 or 1 ms, of two others one of 3 to 124 ms."""
    raw = {"partitioner": "key_number", "first_read_latency_us": int(first.removesuffix("ms")) * MS, "stage_latency_us": 0, "speculative_retry": "never"}
    link = FakeLink(Cassandra, 5, convert(raw, CassandraSettings))
    for _ in range(60):
        link.wait(link.request(0, "read", "k1"))  # replicas 1, 2, 3, in the ring's order
        link.run_for(200 * MS)
    asked = [sum(f"0 -> {peer} ReadRequest(" in line for line in link.log) for peer in (1, 2, 3)]
    assert sum(asked) == 60
    assert sorted(asked) == [1, 1, 58] if not again else asked[0] == 60
