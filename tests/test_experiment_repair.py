"""The repair ablation (experiments/repair_ablation.py) at reduced size: what converges after a cut, what never does, and why."""

import importlib.util
from pathlib import Path

import msgspec
import pytest

from capray.errors import InputError
from capray.sweep import Grid, run_sweep

PATH = Path(__file__).parents[1] / "experiments" / "repair_ablation.py"
SPEC = importlib.util.spec_from_file_location("repair_ablation", PATH)
assert SPEC is not None and SPEC.loader is not None
script = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(script)

SHOWN = ("nothing", "hints", "read repair", "anti-entropy", "hint window 5s")


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    """(label, measure) -> the line of a cut of 20 s, over two seeds."""
    sweep = script.ablation("ci", 2, ("20s",), ("5s",), "20s")
    sweep = msgspec.structs.replace(sweep, grids=(Grid(nodes=(5,), durations=("20s",), labels=SHOWN),))
    _, rows = run_sweep(sweep, tmp_path_factory.mktemp("repair"), "local")
    told = script.told(rows, [variant.label for variant in sweep.variants])
    return {(line["label"], line["measure"]): line for line in told}


def test_all_eight_combinations_and_every_window_are_swept():
    sweep = script.ablation("default", None, ("20s",), ("5s", "3h"), "20s")
    assert [variant.label for variant in sweep.variants] == [
        "nothing",
        "anti-entropy",
        "read repair",
        "read repair + anti-entropy",
        "hints",
        "hints + anti-entropy",
        "hints + read repair",
        "hints + read repair + anti-entropy",
        "hint window 5s",
        "hint window 3h",
    ]


def test_without_hints_read_repair_and_anti_entropy_what_a_replica_missed_it_misses_for_good(lines):
    assert lines["nothing", "converged_share"]["simulated"] == 0
    assert lines["nothing", "convergence_s"]["simulated"] is None
    assert lines["nothing", "divergence_final"]["simulated"] > 0.02


def test_no_bound_is_below_what_a_measure_can_be(lines):
    assert all(line["low"] is None or line["low"] >= 0 for line in lines.values())
    assert any(line["low"] == 0 < line["simulated"] for line in lines.values())  # a t interval of two seeds reaches below


def test_hints_alone_bring_everything_together_within_seconds(lines):
    """A hint is flushed within 10 s and dispatched within 10 s more."""
    assert lines["hints", "converged_share"]["simulated"] == 1
    assert lines["hints", "divergence_final"]["simulated"] == 0
    assert 0 < lines["hints", "convergence_s"]["simulated"] < 35


def test_anti_entropy_alone_takes_about_its_interval(lines):
    assert lines["anti-entropy", "converged_share"]["simulated"] == 1
    assert 0 < lines["anti-entropy", "convergence_s"]["simulated"] < 45


def test_read_repair_alone_mends_what_is_read_and_leaves_cold_keys_apart(lines):
    assert lines["read repair", "converged_share"]["simulated"] == 0
    assert 0 <= lines["read repair", "divergence_final"]["simulated"] < lines["nothing", "divergence_final"]["simulated"] / 2


def test_writes_after_the_hint_window_are_not_hinted_and_never_arrive(lines):
    assert lines["hint window 5s", "converged_share"]["simulated"] == 0
    assert 0 < lines["hint window 5s", "divergence_final"]["simulated"] <= lines["nothing", "divergence_final"]["simulated"]


def test_convergence_by_the_last_reads_does_not_count():
    row = {"convergence_us": script.AFTER_US + script.QUIET_US + 1, "divergence_final": 0.0}
    assert script.value_of(row, "converged_share") is False and script.value_of(row, "convergence_s") is None
    row["convergence_us"] = 5_000_000
    assert script.value_of(row, "converged_share") is True and script.value_of(row, "convergence_s") == 5_000_000


def test_the_figures_name_every_combination(lines):
    figure = script.combinations_figure(list(lines.values()), ("20s",))
    assert {trace.name for trace in figure.data if trace.showlegend} == set(SHOWN[:4])
    heat = script.windows_figure(list(lines.values()), ("20s",), ("5s",)).data[0]
    assert (
        heat.z == ((lines["hint window 5s", "divergence_final"]["simulated"],),)
        or heat.z[0][0] == lines["hint window 5s", "divergence_final"]["simulated"]
    )


@pytest.mark.parametrize(
    "cuts, windows, every, named", [(("0s",), ("5s",), "20s", "cut"), (("5s",), ("x",), "20s", "window"), (("5s",), ("5s",), "0s", "repair_every")]
)
def test_lengths_that_make_no_sense_are_refused(cuts, windows, every, named):
    with pytest.raises(InputError, match=named):
        script.ablation("ci", 1, cuts, windows, every)
