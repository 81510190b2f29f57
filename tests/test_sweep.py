"""Sweeps: which trials they have, what they share, how they go on, and that engines and order do not matter."""

import pytest

from capray.errors import Failed, InputError
from capray.faults import draw_duration
from capray.mainjob import GRIDS, main_job
from capray.store import Results
from capray.sweep import Grid, Sweep, Variant, coordinates, points, run_sweep, scenario_of, sweep_from_dict

TINY = Sweep(name="tiny", seeds=2, at_us=1_000_000, after_us=2_000_000, base={"quiet_us": 500_000},
             variants=(Variant(label="register", policy="abd"), Variant(label="register, isolated", policy="abd", shape="isolate")),
             grids=(Grid(nodes=(3,), durations=("0s", "2s")),))


def test_points_stand_once_in_the_order_of_the_grids():
    assert [(p.variant.label, p.nodes, p.duration) for p in points(TINY)] == [
        ("register", 3, "0s"), ("register, isolated", 3, "0s"), ("register", 3, "2s"), ("register, isolated", 3, "2s")]


def test_a_trial_that_two_points_share_is_run_once_and_stands_in_both(tmp_path):
    seen = []
    _, rows = run_sweep(TINY, tmp_path / "a", "local", progress=lambda done, total, messages, newest, failed: seen.append(newest))
    assert len(rows) == 8
    assert len(seen) == 1 + 2 + 4  # the beginning, two healthy trials shared by both shapes, four cut ones
    healthy = {row["label"]: row["record"] for row in rows if row["duration"] == "0s" and row["seed"] == 0}
    assert len(healthy) == 2 and len(set(healthy.values())) == 1


def test_a_sweep_goes_on_where_it_was_killed_and_ends_with_the_same_digest(tmp_path):
    whole, rows = run_sweep(TINY, tmp_path / "whole", "local")

    class Killed(Exception):
        pass

    def kill(done, *rest):
        if done >= 3:
            raise Killed

    with pytest.raises(Killed):
        run_sweep(TINY, tmp_path / "cut", "local", progress=kill)
    assert not Results(tmp_path / "cut").complete()
    kept = Results(tmp_path / "cut").rows()
    assert 3 <= len(kept) < 8
    ran = []
    digest, again = run_sweep(TINY, tmp_path / "cut", "local", progress=lambda done, total, messages, newest, failed: ran.append(done))
    assert digest == whole and len(again) == len(rows) == 8
    assert ran[0] == len(kept)


def test_a_finished_sweep_runs_nothing_again(tmp_path):
    digest, _ = run_sweep(TINY, tmp_path / "a", "local")
    ran = []
    assert run_sweep(TINY, tmp_path / "a", "local", progress=lambda done, *rest: ran.append(done))[0] == digest
    assert ran == [8]


def test_the_table_is_written_in_both_forms(tmp_path):
    import polars

    run_sweep(TINY, tmp_path / "a", "local")
    parquet, csv = polars.read_parquet(tmp_path / "a/table.parquet"), polars.read_csv(tmp_path / "a/table.csv")
    assert parquet.height == csv.height == 8
    assert {"label", "nodes", "duration_us", "seed", "availability", "stale_share", "linearizable"} <= set(parquet.columns)


def test_a_setting_may_be_the_number_of_nodes():
    sweep = main_job("ci")
    point = next(p for p in points(sweep) if p.variant.label == "cassandra ONE, RF n" and p.nodes == 5 and p.duration == "20s")
    assert scenario_of(sweep, point, 0).policy_settings.replication_factor == 5


def test_a_field_duration_is_drawn_with_the_seed_and_stands_in_the_row():
    sweep = Sweep(name="x", variants=(Variant(label="a", policy="abd"),), grids=(Grid(nodes=(3,), durations=("incidents",)),))
    point = points(sweep)[0]
    drawn = [coordinates(sweep, point, scenario_of(sweep, point, seed), seed)["duration_us"] for seed in range(4)]
    assert drawn == [draw_duration("incidents", seed) for seed in range(4)] and len(set(drawn)) == 3 and all(us > 0 for us in drawn)
    assert drawn == [coordinates(sweep, point, scenario_of(sweep, point, seed), seed)["duration_us"] for seed in range(4)]


@pytest.mark.parametrize("change, named", [
    ({"seeds": 0}, "seeds"), ({"variants": ()}, "variant"), ({"grids": (Grid(nodes=(3,), durations=("2 parsecs",)),)}, "duration"),
    ({"grids": (Grid(nodes=(3,), durations=("2s",), labels=("nobody",)),)}, "labels"),
    ({"variants": (Variant(label="a", policy="abd"), Variant(label="a", policy="rdbms"))}, "label")])
def test_what_cannot_be_swept_is_refused_with_the_field_named(change, named):
    import msgspec

    with pytest.raises(InputError, match=named):
        msgspec.structs.replace(TINY, **change).validate()


def test_a_bad_point_names_its_variant_and_nothing_is_written(tmp_path):
    sweep = Sweep(name="x", variants=(Variant(label="too many", policy="cassandra", settings={"replication_factor": 9}),),
                  grids=(Grid(nodes=(3,), durations=("1s",)),))
    with pytest.raises(InputError, match="too many"):
        run_sweep(sweep, tmp_path / "a", "local")
    assert not (tmp_path / "a").exists()


def test_a_sweep_reads_from_toml_data_with_units():
    sweep = sweep_from_dict({"at": "2s", "after": "3s", "seeds": 1, "variants": [{"label": "a", "policy": "abd"}], "base": {"workload": {"deadline": "500ms"}},
                             "grids": [{"nodes": [3], "durations": ["1s"]}]}, "mine")
    scenario = scenario_of(sweep, points(sweep)[0], 0)
    assert (sweep.name, scenario.faults[0].at_us, scenario.load_us, scenario.workload.deadline_us) == ("mine", 2_000_000, 6_000_000, 500_000)


def test_the_main_job_has_every_policy_duration_and_size_that_was_asked():
    full = points(main_job("full"))
    assert {p.nodes for p in full} == {3, 5, 9, 25}
    assert {p.duration for p in full if p.nodes == 9} == {"0s", "1s", "2s", "5s", "10s", "20s", "43s", "90s"}
    assert {p.variant.policy for p in full} == {"rdbms", "zookeeper", "write-all", "cassandra"}
    assert all(main_job(scale).seeds >= 8 for scale in GRIDS if scale != "ci")


FAILS = Sweep(name="fails", seeds=2, at_us=1_000_000, after_us=2_000_000, base={"quiet_us": 500_000},
              variants=(Variant(label="sound", policy="abd"), Variant(label="raises", policy="failing_policy:Failing")),
              grids=(Grid(nodes=(3,), durations=("1s",)),))


def test_a_trial_whose_policy_raises_is_noted_with_a_command_and_stops_no_other(tmp_path, monkeypatch):
    import json
    from pathlib import Path

    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    with pytest.raises(Failed, match="2 of 4 trials failed, the first with 'RuntimeError: the third request is too much' "):
        run_sweep(FAILS, tmp_path / "a", "local")
    results = Results(tmp_path / "a")
    assert sorted(row["label"] for row in results.rows()) == ["sound", "sound"] and not results.complete()
    failures = [json.loads(line) for line in results.failures_path.read_text().splitlines()]
    assert [row["seed"] for row in failures] == [0, 1]
    assert all("too much" in row["error"] and row["replay"].startswith("capray run") for row in failures)


def test_in_windows_a_raising_policy_ends_its_own_trial_only(monkeypatch):
    from pathlib import Path

    from capray.trial import simulate
    from capray.windows import NodeHost, WindowedTrial, _encode, _reports

    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    bad, good = (scenario_of(FAILS, point, 0) for point in reversed(points(FAILS)))
    host, trials = NodeHost(), {0: WindowedTrial(bad, 0, 0), 1: WindowedTrial(good, 0, 1)}
    for slot, trial in trials.items():
        host.open([(slot, node, trial.scenario, 0) for node in range(3)])
    while orders := [order for trial in trials.values() if not trial.over for order in trial.plan()]:
        reports = _reports.decode(host.round(_encode(orders)))
        for slot, trial in trials.items():
            if mine := [report[1:] for report in reports if report[0] == slot]:
                trial.absorb(mine)
    assert "too much" in trials[0].failure
    assert trials[1].record([host.finish(1, node) for node in range(3)]).digest() == simulate(good, 0).digest()


def test_a_cluster_that_is_not_there_is_told_at_once_and_nothing_is_written(tmp_path, monkeypatch):
    ray = pytest.importorskip("ray")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    for engine in ("actors", "tasks"):
        with pytest.raises(InputError, match="address: '127.0.0.1:1' is not accepted"):
            run_sweep(TINY, tmp_path / "a", engine, "127.0.0.1:1")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("change, named", [({"engine": "steam"}, "engine"), ({"placement": "heap"}, "placement"), ({"fleets": -1}, "fleets"),
                                           ({"in_flight": 0}, "in-flight"), ({"nodes_per_actor": 0}, "nodes-per-actor")])
def test_where_trials_are_run_is_checked_before_anything_is_written(tmp_path, change, named):
    with pytest.raises(InputError, match=named):
        run_sweep(TINY, tmp_path / "a", **change)
    assert not (tmp_path / "a").exists()


def test_failures_are_counted_as_they_come(tmp_path, monkeypatch):
    from pathlib import Path

    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    told = []
    with pytest.raises(Failed):
        run_sweep(FAILS, tmp_path / "a", "local", progress=lambda done, total, messages, newest, failed: told.append((done, failed)))
    assert told[-1] == (2, 2) and [done + failed for done, failed in told] == list(range(5))
    with pytest.raises(Failed):  # they are tried again, and noted once
        run_sweep(FAILS, tmp_path / "a", "local")
    assert len(Results(tmp_path / "a").failures_path.read_text().splitlines()) == 2
