"""The PACELC experiment (experiments/pacelc.py) at reduced size: slopes are what the message patterns imply; the theorem's bound; how a class is told."""

import importlib.util
from argparse import Namespace
from pathlib import Path

import msgspec
import pytest

from capray.errors import InputError
from capray.record import Operation
from capray.studies import pacelc
from capray.studies.pacelc_page import draw
from capray.sweep import run_sweep

PATH = Path(__file__).parents[1] / "experiments" / "pacelc.py"
SPEC = importlib.util.spec_from_file_location("pacelc", PATH)
assert SPEC is not None and SPEC.loader is not None
script = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(script)

NAMES = ["zookeeper", "etcd", "etcd lease reads", "cassandra ONE", "cassandra SERIAL", "crdt"]


def sweep(policies=None, delays=("2ms", "20ms"), seeds=1):
    return script.pacelc(Namespace(scale="ci", seeds=seeds, policy=policies, delay=list(delays)))


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The rows of a few policies at two delays, and of two of them in the plane; the page."""
    directory = tmp_path_factory.mktemp("pacelc") / "out"
    whole = sweep(NAMES)
    kept = tuple(one for one in whole.variants if one.label.endswith("ms") or one.label.startswith(("etcd |", "cassandra ONE |", "crdt |")))
    _, rows = run_sweep(msgspec.structs.replace(whole, variants=kept), directory, "local")
    draw(directory)
    return list(rows), (directory / "report.html").read_text()


def test_every_slope_is_the_number_of_messages_in_a_row(done):
    lines = pacelc.slopes(done[0])
    assert {line.pattern.name for line in lines} == set(NAMES)
    assert [(line.pattern.name, line.kind, line.role, line.found.mean) for line in lines if not line.within] == []
    found = {(line.pattern.name, line.kind, line.role): line.found.mean for line in lines}
    assert found["etcd", "read", "leader"] == pytest.approx(2, abs=0.02) and found["etcd", "write", "other"] == pytest.approx(4, abs=0.02)
    assert ("cassandra ONE", "read", "leader") not in found  # nobody leads


def test_who_is_below_the_bound_of_lipton_and_sandberg_is_not_linearizable(done):
    places = {place.pattern.name: place for place in pacelc.places(done[0])}
    assert {name for name, place in places.items() if place.below_bound} == {"cassandra ONE", "crdt"}
    assert all(place.broken for place in places.values() if place.below_bound)
    assert {name: place.measured for name, place in places.items()} == {"etcd": "PC/EC", "cassandra ONE": "PA/EL", "crdt": "PA/EL"}


def test_that_no_healthy_trial_broke_a_promise_does_not_contradict_a_published_l(done):
    place = next(place for place in pacelc.places(done[0]) if place.pattern.name == "cassandra ONE")
    assert place.within is True and place._replace(broken=0).within is None
    assert place._replace(worst=place.worst._replace(mean=0.5)).within is False


def test_bounds_stay_where_the_measure_can_be(done):
    rows = [*done[0], *({**row, "seed": 9, "stale_share_during": 0.9, "lost_writes": 4, "availability_worst_node_during": 0.5} for row in done[0])]
    for place in pacelc.places(rows):
        assert all(0 <= found.low <= found.high <= 1 for found in (place.stale, place.worst) if found.low is not None)
        assert place.lost.low == 0 and place.lost.high > 4


def test_the_page_and_its_figures(done):
    rows, page = done
    assert all(f"data-{name}" in page for name in ("slopes", "delay", "plane"))
    assert "Lipton and Sandberg" in page and "data-plane" in page
    told = {(line["label"], line["measure"]): line for line in pacelc.told(rows)}
    assert told["cassandra ONE", "class"]["within"] is True and told["etcd", "class"]["published"] is None
    assert told["cassandra SERIAL", "slope_write_other"]["published"] == 8


def test_a_fit_is_least_squares():
    assert pacelc.fit([(1, 3), (2, 5), (4, 9)]) == (2.0, 1.0)
    slope, base = pacelc.fit([(0, 0), (1, 1), (2, 1)])
    assert (round(slope, 6), round(base, 6)) == (0.5, 0.166667)
    assert pacelc.fit([(1, 3), (1, 4)]) is None


def test_a_quantile_counts_from_the_intended_time_and_only_what_was_answered():
    def op(latency, kind="ok"):
        return Operation(
            process=0, node=0, f="read", key="x", value=None, result=None, invoke=5, complete=None if kind == "info" else latency, type=kind, intended=0
        )

    ops = [op(10), op(30), op(20), op(99, "fail")]
    assert (pacelc.quantile(ops, 50), pacelc.quantile(ops, 99), pacelc.quantile([], 50)) == (20, 30, None)


@pytest.mark.parametrize(
    "policies, delays, named",
    [(["mongo"], ["1ms", "2ms"], "policy"), (None, ["1ms", "80ms"], "delay"), (None, ["5ms", "5ms"], "delay"), (None, ["1", "x"], "delay")],
)
def test_what_cannot_be_run_is_refused(policies, delays, named):
    with pytest.raises(InputError, match=named):
        sweep(policies, delays)
