"""Links: what a message takes, the lookahead that follows, and the presets against the numbers that they cite."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest

from capray.distributions import Constant, Empirical, Exponential, Mixture, Part, Uniform, table
from capray.errors import InputError
from capray.links import DISKS, LINKS, Link, disk_preset, link_preset, load_files
from capray.replica import ACK, CONTROL, KINDS, READ, WRITE
from capray.streams import Stream


def sample(link: Link, kind: int, src: int = 0, dst: int = 1, count: int = 20_000) -> list[int]:
    stream, times = Stream(1, "sample"), table(link.of_kind(kind))
    return sorted(link.distance_us(src, dst) + times.draw(stream.bits()) for _ in range(count))


def test_lan_has_the_mean_round_trip_of_one_zone() -> None:
    assert 2 * statistics.mean(sample(LINKS["lan"], WRITE)) == pytest.approx(550, rel=0.02)


@pytest.mark.parametrize("a, b, round_trip_ms", [(0, 1, 82.9), (0, 2, 107.9), (1, 2, 170.6), (3, 4, 82.9), (0, 3, 0.55)])
def test_three_data_centres_are_as_far_apart_as_measured(a: int, b: int, round_trip_ms: float) -> None:
    assert 2 * statistics.mean(sample(LINKS["wan-3dc"], READ, a, b)) == pytest.approx(round_trip_ms * 1000, rel=0.02)


@pytest.mark.parametrize("name, kind, low_ms, high_ms", [
    ("lnkd-ssd", WRITE, 0.235, 0.33), ("lnkd-ssd", READ, 0.235, 0.33), ("lnkd-disk", WRITE, 1.05, 12), ("lnkd-disk", READ, 0.235, 0.33),
    ("ymmr", WRITE, 3.0, 6.0), ("ymmr", ACK, 1.5, 3.0), ("wan", READ, 75.235, 75.33)])
def test_the_production_fits_differ_by_message_class(name: str, kind: int, low_ms: float, high_ms: float) -> None:
    """The scale of each Pareto body bounds its median from below."""
    assert low_ms <= sample(LINKS[name], kind)[10_000] / 1000 <= high_ms


def test_a_class_without_a_distribution_of_its_own_takes_the_general_one() -> None:
    link = Link(latency=Constant(5), by_class={"write": Constant(9)})
    assert (link.of_kind(WRITE), link.of_kind(CONTROL)) == (Constant(9), Constant(5))


@pytest.mark.parametrize("link, nodes, expected", [
    (Link(latency=Constant(1000)), 5, 1000),
    (Link(floor_us=200, latency=Exponential(75)), 5, 200),
    (Link(latency=Exponential(75)), 5, 1),  # no floor: never less than a microsecond
    (Link(latency=Constant(0)), 5, 1),
    (Link(floor_us=10, latency=Constant(1000), by_class={"ack": Uniform(30, 40)}), 5, 40),
    (Link(regions=((0, 50), (50, 0)), latency=Constant(10)), 2, 60),  # no two nodes in one region
    (Link(regions=((0, 50), (50, 0)), latency=Constant(10)), 3, 10),
    (Link(regions=((9, 50), (50, 3)), latency=Constant(0)), 3, 9),  # nodes 0 and 2 share a region
    (Link(regions=((9, 50), (50, 3)), latency=Constant(0)), 4, 3),  # nodes 1 and 3 share the tighter one
    (Link(floor_us=7), 1, 1007),
])
def test_the_lookahead_is_the_least_a_link_can_give(link: Link, nodes: int, expected: int) -> None:
    assert link.lookahead_us(nodes) == expected


@pytest.mark.parametrize("name", list(LINKS))
def test_no_message_is_faster_than_the_lookahead(name: str) -> None:
    link = LINKS[name]
    for nodes in (2, 3, 5, 7):
        pairs = [(a, b) for a in range(nodes) for b in range(nodes) if a != b]
        for kind in range(len(KINDS)):
            fastest = min(link.distance_us(a, b) for a, b in pairs) + table(link.of_kind(kind)).draw(0)
            assert max(1, fastest) >= link.lookahead_us(nodes)


@pytest.mark.parametrize("link, names", [
    (Link(loss=1.0), "link.loss: 1.0"), (Link(loss=float("nan")), "link.loss: nan"), (Link(duplication=-0.1), "link.duplication: -0.1"),
    (Link(floor_us=-1), "link.floor_us: -1"), (Link(by_class={"gossip": Constant(1)}), "link.by_class: 'gossip'"),
    (Link(latency=Exponential(-5)), "link.latency: mean_us -5"), (Link(regions=((0, 1),)), "link.regions"), (Link(regions=((0, -1), (1, 0))), "link.regions")])
def test_what_a_link_cannot_be_is_named(link: Link, names: str) -> None:
    (problem,) = link.problems()
    assert problem.startswith(names) and "\n" not in problem


@pytest.mark.parametrize("name", list(LINKS))
def test_presets_have_no_problems(name: str) -> None:
    assert LINKS[name].problems() == [] and link_preset(name) is LINKS[name]


@pytest.mark.parametrize("name, median", [("memory", 0), ("ssd", 800), ("disk", 10_000), ("fsync-2ms", 2_000)])
def test_disks(name: str, median: int) -> None:
    assert table(disk_preset(name)).draw(1 << 63) == median and DISKS[name].problems() == []


def test_unknown_presets_name_the_known_ones() -> None:
    with pytest.raises(InputError, match="link: 'lann' is not accepted; it takes one of lan, wan-3dc"):
        link_preset("lann")
    with pytest.raises(InputError, match="disk: 'tape' is not accepted; it takes one of memory, ssd"):
        disk_preset("tape")


def test_files_of_quantiles_are_read_wherever_they_stand(tmp_path: Path) -> None:
    (tmp_path / "q.csv").write_text("0,1\n1,3\n")
    file, read = Empirical(file=str(tmp_path / "q.csv")), Empirical(points=((0, 1), (1, 3)))
    assert load_files(file, "disk") == read
    assert load_files(Mixture((Part(1, file), Part(2, Constant(1)))), "disk") == Mixture((Part(1, read), Part(2, Constant(1))))
