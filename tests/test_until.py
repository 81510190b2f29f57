"""Seeds added until an interval is narrow: which seeds a point gets follows from the scenario alone, and is run again by `reproduce`."""

import json
import sys
from itertools import islice

import msgspec
import pytest

from capray import cli
from capray.compare import reproduce_directory
from capray.errors import InputError
from capray.stats import mean_interval
from capray.store import Results
from capray.sweep import Grid, Sweep, Variant, run_sweep
from capray.until import Until, parse_until

MEASURE, WIDTH = "latency_p99_us", 240_000.0  # of a wide-area link it differs from seed to seed
WANTED = Sweep(name="until", seeds=5, at_us=1_000_000, after_us=2_000_000, base={"quiet_us": 500_000, "link": "ymmr", "workload": {"rate": 5.0, "keys": 2}},
               variants=(Variant(label="register", policy="abd"), Variant(label="server", policy="rdbms"), Variant(label="bare", policy="rdbms", shape="none")),
               grids=(Grid(nodes=(3,), durations=("1s",)),), until=Until(measure=MEASURE, width=WIDTH, max_seeds=30))


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    directory = tmp_path_factory.mktemp("until") / "a"
    digest, rows = run_sweep(WANTED, directory, "local")
    return directory, digest, list(rows)


def by_label(rows):
    out = {}
    for row in rows:
        out.setdefault(row["label"], []).append(row)
    return out


def width(rows):
    interval = mean_interval([row[MEASURE] for row in rows])
    return interval.high - interval.low


def test_each_point_stops_at_the_first_look_at_which_its_interval_is_narrow_or_at_the_limit(done):
    looks = [5, 7, 10, 15, 22, 30]  # half as many again each time
    points = by_label(done[2])
    for rows in points.values():
        assert [row["seed"] for row in rows] == list(range(len(rows))) and len(rows) in looks
        assert len(rows) == 30 or width(rows) <= WIDTH
        assert all(width(rows[:look]) > WIDTH for look in looks if look < len(rows))
    assert len({len(rows) for rows in points.values()}) > 1  # they differ: the test shows something


def test_a_kill_in_between_changes_neither_seeds_nor_digest(done, tmp_path):
    class Killed(Exception):
        pass

    def kill(at):
        def progress(count, *rest):
            if count >= at:
                raise Killed
        return progress

    for at in (3, 9, len(done[2]) - 1):
        with pytest.raises(Killed):
            run_sweep(WANTED, tmp_path / "b", "local", progress=kill(at))
    assert run_sweep(WANTED, tmp_path / "b", "local")[0] == done[1]


def test_the_order_of_completion_decides_nothing(done, tmp_path, monkeypatch):
    from capray import engines

    monkeypatch.setattr(engines, "run_local", lambda jobs, then, plain=engines.run_local: plain(jobs[::-1], then))
    assert run_sweep(WANTED, tmp_path / "b", "local")[0] == done[1]


def test_the_manifest_says_so_and_reproduce_runs_the_same_seeds(done, capsys):
    directory, digest, _ = done
    manifest = Results(directory).manifest()
    assert manifest["spec"]["until"] == {"measure": MEASURE, "width": WIDTH, "max_seeds": 30} and manifest["digest"] == digest
    assert reproduce_directory(directory, "local", None, True) == 0
    assert json.loads(capsys.readouterr().out)["trials"] == manifest["trials"]


def test_a_sweep_without_it_has_the_manifest_that_it_always_had(tmp_path):
    run_sweep(msgspec.structs.replace(WANTED, until=None, seeds=1), tmp_path / "a", "local")
    assert "until" not in Results(tmp_path / "a").manifest()["spec"]


def test_nowhere_measured_needs_no_more_seeds_and_shares_use_wilsons_interval():
    until = Until(measure="linearizable", width=0.5, max_seeds=100)
    assert until.narrow([None] * 5) and until.narrow(["valid"] * 5) is True
    assert until.narrow(["valid", "invalid"] * 3) is False and until.narrow(["valid", "invalid"] * 50) is True


@pytest.mark.parametrize("text, seeds, most, named", [
    ("availability", 8, None, "MEASURE=WIDTH"), ("availability=", 8, None, "MEASURE=WIDTH"), ("availability=0", 8, None, "MEASURE=WIDTH"),
    ("availability=-1", 8, None, "MEASURE=WIDTH"), ("availability=inf", 8, None, "MEASURE=WIDTH"), ("availability=nan", 8, None, "MEASURE=WIDTH"),
    ("availabilty=0.1", 8, None, "availability"), ("availability=0.1", 3, None, "at least 5"), ("availability=0.1", 8, 4, "max-seeds"),
])
def test_a_wrong_request_is_refused_in_one_line(text, seeds, most, named):
    with pytest.raises(InputError, match=named) as error:
        parse_until(text, seeds, most).validate(seeds)
    assert "\n" not in str(error.value)


def test_a_width_may_have_a_unit_and_the_default_limit_is_stated():
    assert parse_until("failover_write_us=500ms", 8) == Until(measure="failover_write_us", width=500_000.0, max_seeds=160)
    assert parse_until("failover_write_us=500000", 8).width == 500_000.0


def test_the_command_line_takes_it(monkeypatch, capsys, tmp_path):
    (tmp_path / "s.toml").write_text('seeds = 5\nat = "1s"\nafter = "1s"\n[base]\nquiet = "0s"\nworkload = {rate = 5.0, keys = 2}\n'
                                     '[[variants]]\nlabel = "server"\npolicy = "rdbms"\n[[grids]]\nnodes = [3]\ndurations = ["1s"]\n')

    def call(*more):
        monkeypatch.setattr(sys, "argv", ["capray", "sweep", str(tmp_path / "s.toml"), "--out", str(tmp_path / "a"), "--engine", "local", "--json", *more])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return stop.value.code or 0, capsys.readouterr()

    status, out = call("--until-interval", "latency_p50_us=1us", "--max-seeds", "12")
    assert status == 0 and json.loads(out.out.splitlines()[-1])["trials"] == 12
    status, out = call("--max-seeds", "12")
    assert status == 2 and "until-interval" in out.err
    status, out = call("--until-interval", "latency_p50_us=2us")
    assert status == 2 and "spec.until" in out.err and len(list(islice(out.err.splitlines(), 2))) == 1
