"""Probabilistically bounded staleness (Bailis et al., VLDB 2012), from the real `cassandra` policy, at reduced size.

The tolerance here, of a few thousand samples: what the 99.9 % interval cannot tell from the published value and its range.
"""

import importlib.util
import math
from itertools import combinations
from pathlib import Path

import msgspec
import pytest
import scipy

from capray.compare import reproduce_directory
from capray.differences import compare_rows
from capray.errors import InputError
from capray.studies.pbs import Batch, Setup, batch_row, beyond, bounds, bucket, quantile, readers, scenario_of, writers
from capray.studies.pbs_report import draw
from capray.studies.pbs_study import Anchor, Job, Pool, Study, _sure, measures, pools, run_study
from capray.sweeping import draw as draw_any
from capray.trial import Trial

PATH = Path(__file__).parents[1] / "experiments" / "pbs_staleness.py"
SPEC = importlib.util.spec_from_file_location("pbs_staleness", PATH)
assert SPEC is not None and SPEC.loader is not None
script = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(script)


def measured(fit: str, n: int, r: int, w: int, samples: int, asked=(), seed: int = 0) -> dict:
    anchors = script.published()
    pool = Pool([batch_row(script.setup_of(fit, n, r, w, anchors, list(asked)), samples, seed)])
    return {line["measure"] + (f"@{line['t_ms']:g}" if line.get("t_ms") else ""): line for line in measures(pool, anchors)}


# ---- the published values come out ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fit, n, r, w, at",
    [
        ("lnkd-ssd", 3, 1, 1, 1.85),
        ("lnkd-disk", 3, 1, 1, 45.5),
        ("lnkd-disk", 3, 2, 1, 13.6),
        ("ymmr", 3, 1, 2, 1352),
        ("wan", 3, 1, 1, 113),
        ("wan", 3, 2, 1, 30.2),
    ],
)
def test_table_4_comes_out_of_the_cassandra_policy(fit, n, r, w, at):
    lines = measured(fit, n, r, w, 3_000, seed=1)
    assert lines[f"p_fresh_t@{at:g}"]["published"] == 0.999
    judged = [line for line in lines.values() if line["published"] is not None]
    assert len(judged) >= 3
    assert [line for line in judged if not line["within"]] == []


@pytest.mark.parametrize("fit, n, p", [("lnkd-disk", 2, 0.575), ("lnkd-disk", 10, 0.211), ("exp-0.25", 3, 0.94), ("exp-10", 3, 0.41)])
def test_the_curves_begin_where_the_paper_says(fit, n, p):
    line = measured(fit, n, 1, 1, 2_000)["p_fresh_0"]
    assert line["published"] == p and line["within"]
    assert abs(line["simulated"] - p) < 0.04


def test_strict_quorums_are_never_stale():
    row = batch_row(Setup(fit="lnkd-disk", r=2, w=2), 1_000, 0)
    assert row["p_fresh_0"] == 1 and row["unanswered"] == 0


def test_a_row_that_nobody_published_has_null_and_no_verdict():
    lines = measured("lan", 3, 1, 1, 200, asked=[3_000])
    assert {line["published"] for line in lines.values()} == {None} and {line["within"] for line in lines.values()} == {None}
    assert "p_fresh_t@3" in lines and "p_fresh_curve@5" in lines


def test_a_wrong_store_is_found_out():
    """Reads sent to one replica only (Cassandra's own way) are no Dynamo: their latency is not the fastest of three's."""
    setup = Setup(fit="lnkd-disk", t_us=(45_500,))
    anchors = script.published()
    batch = Batch(setup, 1_500, 0)
    scenario = batch.trial.scenario
    wrong = msgspec.structs.replace(scenario, settings={**scenario.settings, "reads_sent_to": "needed"}).resolved()
    batch.trial = Trial(wrong, 0)
    batch.run()
    lines = {line["measure"]: line for line in measures(Pool([batch.row(0)]), anchors)}
    assert lines["read_p999_ms"]["within"] is False


# ---- how a sample is asked ----------------------------------------------------------------------------------------------------------------------


def test_each_key_is_written_once_and_read_at_the_commit_and_once_later():
    setup = Setup(fit="lnkd-ssd", t_us=(2_000,), curve_us=(500, 1_000))
    batch = Batch(setup, 8, 0)
    batch.run()
    record = batch.trial.record(batch.trial.now)
    asked = sorted(operation.key for operation in record.history)
    assert asked == sorted(f"k{key}" for key in range(1, 9) for _ in range(3))
    commits = {operation.key: operation.complete for operation in record.history if operation.f == "write"}
    later = [operation.invoke - commits[operation.key] for operation in record.history if operation.f == "read"]
    assert sorted(later) == [0] * 8 + [500] * 2 + [1_000] * 2 + [2_000] * 4
    assert all(operation.node >= 3 for operation in record.history)  # coordinators hold no replica
    assert record.placement["k1"] in {(0, 1, 2), (1, 2, 0), (2, 0, 1)}


def test_on_the_wan_one_replica_is_local_drawn_apart_for_write_and_read():
    setup = Setup(fit="wan")
    assert writers(setup) == readers(setup) == [3, 4, 5]
    link = scenario_of(setup).wire
    for coordinator in writers(setup):
        assert sorted(link.distance_us(coordinator, replica) for replica in range(3)) == [0, 75_000, 75_000]
    batch = Batch(setup, 300, 0)
    batch.run()
    pairs: dict[str, dict[str, int]] = {}
    for operation in batch.trial.record(batch.trial.now).history:
        pairs.setdefault(operation.key, {})[operation.f] = operation.node
    together = sum(one["write"] == one["read"] for one in pairs.values())
    assert 70 < together < 130  # a third of 300


# ---- k-staleness --------------------------------------------------------------------------------------------------------------------------------


def by_counting(k: int, n: int, r: int, w: int) -> float:
    """P(R replicas met by none of k writes to W replicas), by trying every set: a write misses them independently."""
    read = set(range(r))
    sets = list(combinations(range(n), w))
    return (sum(not read & set(one) for one in sets) / len(sets)) ** k


def test_the_closed_form_is_what_counting_gives():
    for n in range(1, 6):
        for r in range(1, n + 1):
            for w in range(1, n + 1):
                assert beyond(2, n, r, w) == pytest.approx(by_counting(2, n, r, w))


@pytest.mark.parametrize("k, published", [(2, 0.556), (3, 0.704), (5, 0.868), (10, 0.983)])
def test_the_closed_form_gives_the_published_shares(k, published):
    assert 1 - beyond(k, 3, 1, 1) == pytest.approx(published, abs=0.0005)


@pytest.mark.parametrize("n, r, w", [(3, 1, 1), (3, 2, 1), (5, 2, 2)])
def test_a_simulated_run_is_as_many_versions_behind_as_the_closed_form_says(n, r, w):
    lines = measures(Pool([batch_row(Setup(fit="k-staleness", n=n, r=r, w=w), 600, 0)]), [])
    assert [line["k"] for line in lines] == [1, 2, 3, 5, 10]
    assert all(line["within"] for line in lines)


# ---- counting and pooling -----------------------------------------------------------------------------------------------------------------------


def test_buckets_follow_each_other_without_gap_and_hold_their_latencies():
    for latency in [*range(3_000), 10**6, 10**9 + 7]:
        low, high = bounds(bucket(latency))
        assert low <= latency < high and (high - low) <= max(1, latency / 128)
        assert bucket(high) == bucket(latency) + 1


def test_a_quantile_of_buckets_is_that_of_the_values():
    values = [int(300 * math.exp(i / 500)) for i in range(2_000)]
    counts: dict[int, int] = {}
    for value in values:
        counts[bucket(value)] = counts.get(bucket(value), 0) + 1
    for share in (0.01, 0.5, 0.99, 0.999):
        assert quantile(sorted(counts.items()), share) == pytest.approx(values[int(share * 2_000)], rel=0.005)


def test_batches_are_the_same_bytes_again_and_share_the_samples():
    setup = Setup(fit="lnkd-ssd", t_us=(1_850,))
    assert batch_row(setup, 50, 7) == batch_row(setup, 50, 7) != batch_row(setup, 50, 8)
    study = Study(name="x", setups=(setup,), samples=101, version_samples=10, batches=4, first_seed=3)
    assert [(job.samples, job.seed) for job in study.jobs()] == [(26, 3), (25, 4), (25, 5), (25, 6)]
    assert Pool([batch_row(*Job(setup, 20, seed)) for seed in (0, 1)]).fresh_at(0).samples == 40


# ---- the results directory ----------------------------------------------------------------------------------------------------------------------


def small(samples: int = 40) -> tuple[Study, list[Anchor]]:
    anchors = script.published()
    setups = (script.setup_of("lnkd-ssd", 3, 1, 1, anchors, []), Setup(fit="k-staleness"))
    return Study(name="small", setups=setups, samples=samples, version_samples=10, batches=2), anchors


def test_a_study_goes_on_where_it_was_killed_and_can_be_reproduced_compared_and_drawn(tmp_path, capsys):
    study, anchors = small()
    whole, rows = run_study(study, anchors, tmp_path / "whole", "local")

    class Killed(Exception):
        pass

    def kill(done, total, messages, newest):
        if done >= 3:
            raise Killed

    with pytest.raises(Killed):
        run_study(study, anchors, tmp_path / "cut", "local", progress=kill)
    again, _ = run_study(study, anchors, tmp_path / "cut", "local")
    assert again == whole and len(rows) == 4
    assert reproduce_directory(tmp_path / "whole", "local", None, True) == 0
    assert not any(line["told_apart"] for line in compare_rows(rows, rows, ["p_fresh_0", "read_p99_us"], 0))
    assert draw_any(tmp_path / "whole") == draw(tmp_path / "whole") == tmp_path / "whole" / "report.html"
    page = (tmp_path / "whole" / "report.html").read_text()
    assert "http://" not in page.split("<script>")[0] and "p_fresh_t" in page
    with pytest.raises(InputError, match="samples"):
        run_study(small(60)[0], anchors, tmp_path / "whole", "local")


def test_pools_keep_the_setups_apart():
    study, _ = small(20)
    found = pools([batch_row(*job) for job in study.jobs()])
    assert [pool.label for pool in found] == ["lnkd-ssd N=3 R=1 W=1", "k-staleness N=3 R=1 W=1"]
    assert [pool.samples for pool in found] == [20, 10]


def test_a_study_leaves_out_the_versions_where_they_would_take_too_many_coordinators(capsys):
    fits = [setup.fit for setup in script.setups("lnkd-ssd", 10, 3, 3, script.published(), [])]
    assert fits == ["lnkd-ssd"] and "k-staleness" in capsys.readouterr().err


@pytest.mark.parametrize(
    "setup, named",
    [
        (Setup(fit="lnkd"), "fit"),
        (Setup(fit="exp-x"), "fit"),
        (Setup(fit="exp-0"), "fit"),
        (Setup(fit="wan", r=4), "r"),
        (Setup(fit="wan", n=10, w=4), "w"),
        (Setup(fit="wan", n=0), "n"),
        (Setup(fit="wan", t_us=(10**12,)), "t"),
        (Setup(fit="k-staleness", n=10, r=3, w=3), "n"),
    ],
)
def test_what_cannot_be_run_is_refused(setup, named):
    with pytest.raises(InputError, match=f"^{named}: .* is not accepted; it takes"):
        scenario_of(setup)


@pytest.mark.parametrize("n, bounded", [(3000, False), (10_000, True)])
def test_a_quantiles_sure_interval_goes_by_exact_ranks_and_is_open_where_no_sample_need_lie_above(n: int, bounded: bool) -> None:
    """The 40 largest samples are powers of two, so that a value tells its rank; how many lie above the 99.9th percentile is binomial.  So the interval
    covers the true value 99.9 % of the time or more (6,000 times 3,000 exponential latencies: 99.98 %); with normal ranks, which end at the largest of
    3,000 samples, it would do so at most 95 % of the time, since once in twenty times none lies above the true value."""
    counts = [(bucket(1), n - 40), *((bucket(1000 * 2**i), 1) for i in range(40))]
    least, most = _sure(counts, n, 0.999)
    rank = 40 - round(math.log2(least))  # 1: the largest
    binom = scipy.stats.binom
    assert binom.sf(rank - 1, n, 0.001) <= 0.0005 < binom.sf(rank - 2, n, 0.001)
    assert (most < math.inf) == bounded
    if bounded:
        rank = 40 - round(math.log2(most))
        assert binom.cdf(rank - 1, n, 0.001) <= 0.0005 < binom.cdf(rank, n, 0.001)


def test_one_setup_has_a_name_in_any_case_and_more_samples(monkeypatch):
    """published.md writes LNKD-SSD; a row alone is worth more samples than one of forty."""
    studies = {}
    monkeypatch.setattr(script, "run_study", lambda study, *_: studies.setdefault(len(studies), study) and (_ for _ in ()).throw(InputError("enough")))
    for words in ([], ["--fit", "LNKD-SSD"], ["--fit", "lnkd-ssd"], ["--fit", "lnkd-ssd", "--samples", "500"]):
        monkeypatch.setattr("sys.argv", ["pbs_staleness.py", *words])
        with pytest.raises(InputError, match="enough"):
            script.script()
    assert [study.samples for study in studies.values()] == [60_000, 400_000, 400_000, 500]
    assert studies[1] == studies[2] and studies[1].setups[0].fit == "lnkd-ssd"
