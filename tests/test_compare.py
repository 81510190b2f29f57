"""Two results side by side: which points belong together, what tells them apart, what the gate says."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from capray import cli
from capray.differences import Thresholds, compare_rows, default_measures, parse_thresholds
from capray.errors import InputError
from capray.store import FORMAT, Results

S = 1_000_000


def rows(values: Sequence[Any], label: str = "store", measure: str = "availability", duration: str = "10s", us: int = 10 * S,
         first: int = 0) -> list[dict[str, Any]]:
    """A trial for each value, under seeds from `first` on."""
    return [{"key": f"{label}|5|{duration}|{seed:06d}", "label": label, "policy": label, "nodes": 5, "duration": duration, "duration_us": us,
             "shape": "majority",
             "seed": seed, measure: value} for seed, value in enumerate(values, first)]


def one(a: list[dict[str, Any]], b: list[dict[str, Any]], measure: str = "availability", threshold: Any = 0.0, **more: Any) -> dict[str, Any]:
    [line] = compare_rows(a, b, [measure], threshold, **more)
    return line


def test_seeds_in_common_are_paired_so_that_a_small_steady_loss_is_told_apart() -> None:
    before, after = rows([0.2, 0.5, 0.8, 0.9]), rows([0.19, 0.49, 0.79, 0.89])
    line = one(before, after)
    assert line["paired"] and line["told_apart"] and line["worse"] and line["difference"] == pytest.approx(-0.01)
    assert not one(before, rows([0.19, 0.49, 0.79, 0.89], first=100))["told_apart"]  # other requests: the spread hides it
    assert not one(before, after, same_requests=False)["paired"]
    same = one(before, before)
    assert (same["difference"], same["told_apart"], same["worse"]) == (0, False, None)


def test_the_interval_must_lie_wholly_beyond_the_threshold() -> None:
    before, after = rows([0.5, 0.6, 0.7]), rows([0.40, 0.49, 0.60])  # -0.10, -0.11, -0.10: t gives -0.118 to -0.089
    assert one(before, after, threshold=0.08)["told_apart"]
    assert not one(before, after, threshold=0.09)["told_apart"]
    assert one(after, before, threshold=0.08)["told_apart"] and not one(after, before, threshold=0.09)["told_apart"]
    assert one(before, after, threshold=Thresholds(1.0, {"availability": 0.08}))["told_apart"]


def test_a_single_trial_has_no_interval_and_says_something_only_under_one_seed() -> None:
    line = one(rows([0.5]), rows([0.4]))
    assert line["low"] is None and line["told_apart"] is True
    assert one(rows([0.5]), rows([0.4]), threshold=0.2)["told_apart"] is False
    assert one(rows([0.5]), rows([0.4], first=7))["told_apart"] is None
    assert one(rows([0.5]), rows([0.4, 0.5, 0.6]))["told_apart"] is None
    assert one(rows([0.5]), rows([0.4]), same_requests=False)["told_apart"] is None


@pytest.mark.parametrize(("measure", "change", "is_worse"), [
    ("availability_during_minority", -0.1, True), ("stale_share", -0.1, False), ("convergence_us", 5, True), ("linearizable", -1, True),
    ("operations", 3, None),
    ("latency_p99_us", 0, None), ("lost_writes", 2, True),
])
def test_which_way_is_worse(measure: str, change: float, is_worse: bool | None) -> None:
    assert one(rows([1.0, 1.0], measure=measure), rows([1 + change, 1 + change], measure=measure), measure)["worse"] is is_worse


def test_verdicts_and_booleans_count_as_shares_and_what_never_happened_is_left_out() -> None:
    line = one(rows(["valid"] * 4, measure="linearizable"), rows(["invalid"] * 4, measure="linearizable"), "linearizable")
    assert (line["first"], line["second"], line["told_apart"]) == (1, 0, True)
    line = one(rows([False] * 3, measure="convergence_censored"), rows([True] * 3, measure="convergence_censored"), "convergence_censored")
    assert line["told_apart"] and line["worse"]
    assert compare_rows(rows([None, None]), rows([0.5, 0.5]), ["availability"]) == []


def test_labels_and_lengths_that_belong_together() -> None:
    ours, theirs = rows([1.0, 1.0]), rows([0.5, 0.5], label="rival")
    assert one(ours, theirs)["label"] == "store -> rival"  # each has one
    many = theirs + rows([0.7, 0.7], label="third")
    with pytest.raises(InputError, match="--pair FIRST=SECOND"):
        compare_rows(ours, many, ["availability"])
    assert one(ours, many, pairs={"store": "third"})["second"] == 0.7
    with pytest.raises(InputError, match="'nobody=third'"):
        compare_rows(ours, many, ["availability"], pairs={"nobody": "third"})
    real = rows([0.9, 0.9], duration="10.027s", us=10_027_000) + rows([0.1, 0.1], duration="20s", us=20 * S)
    assert one(ours, real)["second"] == 0.9  # a real cut of almost that length
    with pytest.raises(InputError):
        compare_rows(ours, rows([0.9], duration="11s", us=11 * S), ["availability"])


def test_what_is_compared_unless_asked() -> None:
    assert default_measures(rows([1.0]), rows([1.0])) == ["availability"]
    study = rows([1.0], measure="leaderless_us")
    assert default_measures(study, study) == ["leaderless_us"] and default_measures(study, rows([1.0])) == []


def test_thresholds_as_they_are_typed() -> None:
    assert parse_thresholds([]) == Thresholds()
    assert parse_thresholds(["0.01", "convergence_us=500ms", "lost_writes=3"]) == Thresholds(0.01, {"convergence_us": 500_000, "lost_writes": 3})
    for text in ("x", "-1", "=1", "availability=", "availability=10ms", "nan", "inf", "convergence_us=5parsecs"):
        with pytest.raises(InputError, match="threshold"):
            parse_thresholds([text])


# ---- the command ------------------------------------------------------------------------------------------------------------------------
def directory(path: Path, table: list[dict[str, Any]]) -> Path:
    manifest = {"format": FORMAT, "kind": "sweep", "name": path.name, "version": "0", "engine": "local", "command": "", "spec": {}, "digest": "", "trials": 0}
    results = Results(path)
    with results.writing(manifest):
        for row in table:
            results.append(row)
        results.finish(manifest)
    return path


def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["capray", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    out, err = capsys.readouterr()
    return int(stop.value.code or 0), out, err


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    one_, other = rows([0.9, 0.8, 0.9], measure="availability"), rows([0.5, 0.5, 0.4], measure="availability")
    return directory(tmp_path / "a", one_), directory(tmp_path / "b", other)


def test_the_command_prints_a_table_and_serves_as_a_gate(two: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = call(monkeypatch, capsys, "compare", *two)
    assert status == 1 and "worse" in out and "3 paired" in out and "1 told apart" in err
    assert call(monkeypatch, capsys, "compare", two[0], two[0])[0] == 0
    assert call(monkeypatch, capsys, "compare", *two, "--threshold", "availability=0.9")[0] == 0
    assert call(monkeypatch, capsys, "compare", *two, "--worse")[0] == 1
    assert call(monkeypatch, capsys, "compare", *two[::-1], "--worse")[0] == 0  # better is fine
    status, out, _ = call(monkeypatch, capsys, "compare", *two, "--json")
    [line] = map(json.loads, out.splitlines())
    assert status == 1 and set(line) == {"label", "nodes", "duration", "measure", "first", "second", "difference", "low", "high", "trials", "paired",
                                         "told_apart", "worse"}


@pytest.mark.parametrize("arguments", [("--measure", "avialability"), ("--threshold", "much"), ("--threshold", "no_such=1"), ("--pair", "store"),
                                       ("--pair", "x=y")])
def test_a_wrong_comparison_is_one_line(
    two: tuple[Path, Path], arguments: tuple[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:
    status, out, err = call(monkeypatch, capsys, "compare", *two, *arguments)
    assert status == 2 and not out and len(err.strip().splitlines()) == 1 and arguments[1].partition("=")[0] in err
