"""Figures say what the rows and records say: means, intervals, places, strokes; and nothing that was not measured is drawn as 0."""

from __future__ import annotations

import math
from typing import Any

import pytest

from capray import plots
from capray.figures.data import Estimate, LogLike, estimate, line, main_size, ordered, partitioned, share_linearizable, thinned, tidy, value
from capray.figures.signature import Shares, counterexamples, place, shares
from capray.figures.style import bars, dodge, looks, show, show_value

S = 1_000_000


def row(label: str, seconds: float, seed: int, nodes: int = 5, **measures: Any) -> dict[str, Any]:
    """One trial of a sweep."""
    duration = f"{seconds:g}s"
    return {
        "label": label,
        "policy": label.split()[0],
        "nodes": nodes,
        "duration": duration,
        "duration_us": round(seconds * S),
        "seed": seed,
        "shape": "majority" if seconds else "none",
        "linearizable": "valid",
        "stale_share": 0.0,
        **measures,
    }


def cp(seconds: float, seed: int, nodes: int = 5) -> dict[str, Any]:
    """The majority goes on, the minority does not; nothing is stale."""
    cut = (
        {
            "availability_during": 0.6,
            "availability_during_minority": 0.0,
            "availability_during_majority": 1.0,
            "availability_during_largest": 1.0,
            "availability_worst_node_during": 0.0,
            "stale_share_during": 0.0,
        }
        if seconds
        else {}
    )
    return row(
        "cp",
        seconds,
        seed,
        nodes,
        availability=1 - 0.4 * seconds / (seconds + 25),
        availability_worst_node=1.0,
        lost_writes=0,
        divergence_area=0.0,
        **cut,
    )


def ap(seconds: float, seed: int, nodes: int = 5) -> dict[str, Any]:
    """Everybody is answered; half the reads under a cut are stale, give or take the seed."""
    stale = 0.5 + 0.02 * seed if seconds else 0.0
    cut = (
        {
            "availability_during": 1.0,
            "availability_during_minority": 1.0,
            "availability_during_majority": 1.0,
            "availability_during_largest": 1.0,
            "availability_worst_node_during": 1.0,
            "stale_share_during": stale,
            "staleness_max_us": round(seconds * S),
        }
        if seconds
        else {}
    )
    return row(
        "ap",
        seconds,
        seed,
        nodes,
        availability=1.0,
        availability_worst_node=1.0,
        lost_writes=3 if seconds else 0,
        divergence_area=seconds / 2,
        **cut | {"linearizable": "invalid" if seconds else "valid", "stale_share": stale / 2},
    )


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return [make(seconds, seed, nodes) for make in (cp, ap) for nodes in (3, 5) for seconds in (0, 0.5, 2, 20) for seed in range(4)]


@pytest.fixture(scope="module")
def figures(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return plots.figures(rows)


# ---- rows -> points -------------------------------------------------------------------------------------------------------------------------
def test_a_point_is_the_mean_over_seeds_with_students_interval(rows: list[dict[str, Any]]) -> None:
    point = next(p for p in line(rows, "ap", 5) if p.duration == "20s")
    found = estimate(point.rows, "stale_share_during")  # 0.50, 0.52, 0.54, 0.56: mean 0.53, s = 0.02582, t(3) = 3.18245
    assert found is not None and found.trials == 4
    assert found.mean == pytest.approx(0.53)
    assert (found.low, found.high) == (pytest.approx(0.53 - 0.041085, abs=1e-5), pytest.approx(0.53 + 0.041085, abs=1e-5))


def test_rows_of_one_seed_are_averaged_first_so_the_interval_is_over_seeds_only(rows: list[dict[str, Any]]) -> None:
    several = estimate([r for r in rows if r["label"] == "ap" and r["nodes"] == 5 and r["duration_us"]], "stale_share_during")
    once = estimate([r for r in rows if r["label"] == "ap" and r["nodes"] == 5 and r["duration"] == "20s"], "stale_share_during")
    assert several is not None and once is not None
    assert several[:3] == once[:3]  # three lengths under the same four seeds say no more about seeds than one
    assert (several.trials, once.trials) == (12, 4)


def test_one_trial_has_no_interval_and_what_was_not_measured_no_point() -> None:
    alone = estimate([cp(2, 0)], "availability_during")
    assert alone is not None and (alone.low, alone.high) == (None, None)
    assert estimate([cp(2, 0)], "convergence_us") is None
    assert show(None) == "not measured"
    assert show(alone) == "0.600"


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ("availability_during_minority", 0.9),
        ("availability_during_minority_write", 0.8),
        ("staleness_max_during_us", 7.0),
        ("availability_worst_node_during", 0.7),
        ("stale_share", None),
    ],
)
def test_without_a_cut_a_narrowed_measure_is_the_one_over_the_whole_trial(column: str, expected: float | None) -> None:
    healthy = {
        **row("x", 0, 0),
        "availability": 0.9,
        "availability_write": 0.8,
        "staleness_max_us": 7,
        "availability_worst_node": 0.7,
        "stale_share": None,
    }
    assert value(healthy, column) == expected
    assert value({**healthy, "duration_us": 5}, column) is None


def test_verdicts_become_a_share_with_wilsons_interval() -> None:
    found = share_linearizable([{"linearizable": verdict} for verdict in ("valid", "valid", "invalid", "unknown", None)])
    assert found is not None and (found.mean, found.trials) == (pytest.approx(2 / 3), 3)  # unknown is no verdict
    assert found.low is not None and 0 < found.low < 2 / 3
    assert share_linearizable([{"linearizable": "unknown"}]) is None


def test_one_label_under_several_shapes_becomes_several_lines_that_share_the_healthy_trials() -> None:
    made = tidy([row("p", 0, 0), {**row("p", 5, 0), "shape": "halves"}, {**row("p", 5, 0), "shape": "isolate"}])
    assert sorted((r["label"], r["duration"]) for r in made) == [("p, halves", "0s"), ("p, halves", "5s"), ("p, isolate", "0s"), ("p, isolate", "5s")]


def test_the_order_of_the_lines_does_not_depend_on_the_order_in_which_trials_ended(rows: list[dict[str, Any]], figures: dict[str, Any]) -> None:
    assert ordered(rows[::-1], ["cp", "ap"]) == ordered(rows, ["cp", "ap"])
    assert ordered(rows[::-1], ["cp", "ap"])[0]["label"] == "cp"
    backwards = plots.figures(rows[::-1])["availability"]
    assert backwards.to_json() == figures["availability"].to_json()


def test_the_size_with_most_durations_opens_and_of_those_the_nearest_to_five() -> None:
    assert main_size([row("a", 1, 0, 3), row("a", 1, 0, 5), row("a", 1, 0, 9), row("a", 2, 0, 9), row("a", 2, 0, 3)]) == 3
    assert main_size([row("a", 1, 0, 3), row("a", 1, 0, 25), row("a", 1, 0, 7)]) in (3, 7)


# ---- axes ----------------------------------------------------------------------------------------------------------------------------------
def test_the_log_like_axis_shows_zero_and_then_doublings() -> None:
    scale = LogLike.of_durations([0, 1 * S, 2 * S, 20 * S])
    assert [scale(x * S) for x in (0, 1, 2, 4)] == [0, 1, 2, 3]
    assert scale(S / 2) == 0.5  # straight below the unit: continuous, and 0 has a place
    decades = LogLike.of_values([0, 0.03, 40])
    assert decades.unit == pytest.approx(0.01)
    assert decades.decades(40) == pytest.approx([0, 0.01, 0.1, 1, 10, 100])


def test_crowded_ticks_are_thinned_but_the_ends_stay() -> None:
    assert thinned([(0, "a"), (0.1, "b"), (1, "c"), (1.9, "d"), (2, "e")], 0.5) == [(0, "a"), (1, "c"), (2, "e")]


def test_twelve_lines_differ_in_colour_marker_or_dash_and_in_more_than_colour() -> None:
    made = list(looks([str(i) for i in range(12)]).values())
    assert len({look.colour for look in made}) == 12
    assert len({(look.marker, look.dash) for look in made}) == 12
    assert (dodge(0, 3), dodge(2, 3), dodge(0, 1), dodge(0, 17)) == (-0.05, 0.05, 0.0, -0.2)


@pytest.mark.parametrize(
    ("x", "how", "text"),
    [
        (0.12345, "share", "0.123"),
        (9_366_123.4, "us", "9.366s"),
        (610_049.9, "us", "610ms"),
        (0.0, "us", "0"),
        (12.0, "count", "12"),
        (26_407.4, "count", "26,407"),
    ],
)
def test_numbers_are_written_without_needless_digits(x: float, how: str, text: str) -> None:
    assert show_value(x, how) == text


# ---- figures of a sweep ---------------------------------------------------------------------------------------------------------------------
def visible(figure: Any) -> list[Any]:
    return [trace for trace in figure.data if trace.visible is not False]


def test_availability_has_three_facets_a_line_a_policy_and_the_number_of_trials(figures: dict[str, Any]) -> None:
    figure = figures["availability"]
    assert [a.text for a in figure.layout.annotations] == ["all clients", "minority side", "majority side"]
    shown = visible(figure)
    assert [trace.name for trace in shown] == ["ap", "cp"] * 3
    minority = next(trace for trace in shown if trace.name == "cp" and trace.xaxis == "x2")
    assert list(minority.y) == [1.0, 0.0, 0.0, 0.0]
    assert [data[:3] for data in minority.customdata] == [["cp", 5, duration] for duration in ("0s", "0.5s", "2s", "20s")]
    assert "32 trials" in figure.layout.title.text and "95 %" in figure.layout.title.text
    assert [trace.showlegend for trace in shown] == [True, True, False, False, False, False]  # one entry a policy


def test_the_menu_shows_one_cluster_size_at_a_time(figures: dict[str, Any]) -> None:
    figure = figures["availability"]
    [menu] = figure.layout.updatemenus
    assert [button.label for button in menu.buttons] == ["3 nodes", "5 nodes"] and menu.active == 1
    for button, nodes in zip(menu.buttons, (3, 5)):
        shown = [trace for trace, yes in zip(figure.data, button.args[0]["visible"]) if yes]
        assert {data[1] for trace in shown for data in trace.customdata} == {nodes}
        assert f"{nodes} nodes" in button.args[1]["title.text"]


def test_intervals_are_drawn_and_cut_off_where_a_share_ends(figures: dict[str, Any]) -> None:
    stale = next(trace for trace in visible(figures["inconsistency"]) if trace.name == "ap" and trace.xaxis == "x")
    assert list(stale.error_y.array) == pytest.approx([0, 0.0205425, 0.0205425, 0.0205425], abs=1e-6)
    for name in ("availability", "inconsistency"):
        for trace in figures[name].data:
            if trace.yaxis == "y":
                assert all(y + up <= 1 + 1e-9 for y, up in zip(trace.y, trace.error_y.array) if up is not None)


def test_a_bar_ends_where_a_share_or_an_axis_ends() -> None:
    near = [Estimate(0.95, 0.8, 1.1, 4), Estimate(0.02, -0.1, 0.14, 4), Estimate(0.5, None, None, 1), None]
    drawn = bars(near, None, 1.0)
    assert drawn["array"] == [pytest.approx(0.05), pytest.approx(0.12), None, None]
    assert drawn["arrayminus"] == [pytest.approx(0.15), pytest.approx(0.02), None, None]
    assert bars([Estimate(10.0, -5.0, 100.0, 4)], LogLike(1, 10)) == {**bars([], None), "array": [pytest.approx(1)], "arrayminus": [pytest.approx(2)]}


def test_a_measure_that_is_null_is_left_out_not_zero(figures: dict[str, Any]) -> None:
    ages = [trace for trace in visible(figures["inconsistency"]) if trace.xaxis == "x2"]
    assert {trace.name: len(trace.x) for trace in ages} == {"ap": 3, "cp": 0}


def test_the_heat_map_has_a_cell_for_each_point_and_says_what_is_bright(figures: dict[str, Any]) -> None:
    figure = figures["heatmap"]
    ap_cells, cp_cells = visible(figure)
    assert [list(r) for r in cp_cells.z] == [[1.0, 0.6, 0.6, 0.6]] * 2  # sizes 3 and 5; no cut, 0.5, 2, 20 s
    assert list(ap_cells.x) == ["no cut", "0.5s", "2s", "20s"] and list(ap_cells.y) == ["3", "5"]
    stale = next(trace for trace in figure.data if "stale" in trace.hovertemplate)
    assert stale.reversescale and "bright is good" in figure.layout.title.text


def test_what_ring_and_cut_allow_stands_beside_what_was_measured(rows: list[dict[str, Any]], figures: dict[str, Any]) -> None:
    assert "allowed" not in figures
    bounded = [
        {**r, "allowed_availability_read": 0.8, "allowed_availability_write": 0.7, "availability_during_read": 0.75}
        if r["label"] == "ap" and r["duration_us"]
        else r
        for r in rows
    ]
    figure = plots.figures(bounded)["allowed"]
    traces = {trace.name: trace for trace in figure.data}
    assert list(traces["reads, measured"].y) == [0.75] * 3
    assert list(traces["reads, allowed by ring and cut"].y) == [0.8] * 3
    assert list(traces["writes, allowed by ring and cut"].y) == [0.7] * 3 and len(traces["writes, measured"].y) == 0


# ---- the signature and the triangle -----------------------------------------------------------------------------------------------------------
def test_the_signature_joins_healthy_to_partitioned_and_hollows_what_was_not_linearizable(figures: dict[str, Any]) -> None:
    points = {(trace.name, trace.customdata[0][2]): trace for trace in visible(figures["signature"]) if trace.customdata is not None}
    assert (points["cp", "healthy"].x[0], points["cp", "healthy"].y[0]) == (1, 1)
    assert (points["cp", "partitioned"].x[0], points["cp", "partitioned"].y[0]) == (1, 0)
    assert (points["ap", "partitioned"].x[0], points["ap", "partitioned"].y[0]) == (pytest.approx(0.47), 1)
    assert points["ap", "partitioned"].marker.symbol.endswith("-open")
    assert not any(points[key].marker.symbol.endswith("-open") for key in (("cp", "healthy"), ("cp", "partitioned"), ("ap", "healthy")))
    arrows = [trace for trace in visible(figures["signature"]) if trace.customdata is None]
    assert len(arrows) == 2 and arrows[0].marker.symbol == "arrow"
    assert points["ap", "partitioned"].customdata[0][6] == 8  # 2 s and 20 s under 4 seeds: the cut of 0.5 s is within the deadline


def test_partitioned_means_longer_than_the_deadline(rows: list[dict[str, Any]]) -> None:
    assert {r["duration"] for r in partitioned(rows, S)} == {"2s", "20s"}
    assert {r["duration"] for r in partitioned(rows, 5 * S)} == {"20s"}


def test_points_that_coincide_are_set_apart() -> None:
    twins = [{**cp(seconds, seed), "label": label} for label in ("a", "b", "c") for seconds in (0, 20) for seed in range(2)]
    points = [trace for trace in plots.figures(twins)["signature"].data if trace.customdata is not None and trace.customdata[0][2] == "partitioned"]
    xs = sorted(trace.x[0] for trace in points)
    assert xs[1] == 1 and xs[0] < 1 < xs[2] and {trace.y[0] for trace in points} == {0}


def test_a_store_that_is_both_under_a_cut_is_reported_as_a_counterexample(rows: list[dict[str, Any]]) -> None:
    assert counterexamples(rows, S) == []
    magic = [{**ap(20, seed), "label": "magic", "linearizable": "valid", "stale_share_during": 0.0} for seed in range(2)]
    assert counterexamples([*rows, *magic], S) == ["magic (5 nodes)"]
    assert counterexamples([*rows, {**magic[0], "linearizable": "invalid"}], S) == []


def test_healthy_is_taken_from_before_the_cut_where_every_trial_was_cut() -> None:
    [trial] = [{**cp(20, 0), "stale_share_before": 0.0, "availability_worst_node_before": 0.98}]
    points = {trace.customdata[0][2]: trace for trace in plots.figures([trial])["signature"].data if trace.customdata is not None}
    assert points["healthy"].y[0] == 0.98 and points["partitioned"].y[0] == 0


@pytest.mark.parametrize(
    ("c", "a", "p", "spot"),
    [
        (1, 0, 0, (0.5, math.sqrt(3) / 2)),
        (0, 1, 0, (0, 0)),
        (0, 0, 1, (1, 0)),
        (1, 1, 1, (0.5, math.sqrt(3) / 6)),
        (0.2, 0.2, 0.2, (0.5, math.sqrt(3) / 6)),
        (1, 0, 1, (0.75, math.sqrt(3) / 4)),
    ],
)
def test_the_triangle_places_by_the_barycentric_mean(c: float, a: float, p: float, spot: tuple[float, float]) -> None:
    assert Shares(c, a, p).spot() == pytest.approx(spot)
    assert Shares(0, 0, 0).spot() is None


def test_the_triangle_takes_the_least_largest_side_over_the_shapes(figures: dict[str, Any]) -> None:
    cut = [cp(20, 0), {**cp(20, 1), "shape": "leader-minority", "availability_during_largest": 0.25}]
    assert shares(cut) == Shares(1.0, 0.0, 0.25)
    spots = [trace for trace in figures["triangle"].data if trace.customdata is not None]
    assert {trace.name.split("<")[0] for trace in spots} == {"ap", "cp"}
    assert place([]) is None


def test_names_are_shown_as_text_not_as_markup(rows: list[dict[str, Any]]) -> None:
    named = plots.figures([{**r, "label": "<b>x</b>"} for r in rows])
    assert all("<b>x" not in (trace.name or "") and "<b>x" not in (trace.hovertemplate or "") for figure in named.values() for trace in figure.data)


def test_a_single_trial_and_no_trial_make_what_they_can() -> None:
    assert plots.figures([]) == {}
    assert set(plots.figures([cp(20, 0)])) == {"signature", "triangle"}
    [(name, figure)] = plots.figures([cp(0, 0)]).items()
    [healthy] = figure.data
    assert name == "signature"
    assert healthy.showlegend and "[" not in healthy.customdata[0][5]  # one trial has no interval


# ---- PNG ------------------------------------------------------------------------------------------------------------------------------------
def test_without_the_extra_no_png_is_written_and_the_reason_is_said(figures: dict[str, Any], tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "kaleido", None)
    files, why = plots.write_pngs(figures, tmp_path / "figures")
    assert files == [] and "capray[png]" in why and not (tmp_path / "figures").exists()


def test_pngs_are_written_where_the_extra_and_a_browser_are(figures: dict[str, Any], tmp_path: Any) -> None:
    pytest.importorskip("kaleido", reason="PNG export needs the extra `png`")
    files, why = plots.write_pngs({"triangle": figures["triangle"]}, tmp_path)
    if why:
        pytest.skip(why)
    assert [file.name for file in files] == ["triangle.png"] and files[0].read_bytes()[:4] == b"\x89PNG"


def test_lines_of_two_results_share_their_colour_and_no_two_of_many_lines_look_alike() -> None:
    from capray.figures.style import hollow, looks

    found = looks(["ap [old]", "ap [new]", "cp [old]", "cp [new]"])
    old, new, other = found["ap [old]"], found["ap [new]"], found["cp [old]"]
    assert old.colour == new.colour != other.colour and old.dash != new.dash and old.marker != new.marker == old.marker + "-dot"
    assert (hollow("circle"), hollow("circle-dot")) == ("circle-open", "circle-open-dot")
    assert len({(look.colour, look.marker) for look in looks([f"line {i}" for i in range(60)]).values()}) == 60
