"""Latencies drawn ahead are the latencies drawn one by one."""

from __future__ import annotations

from random import Random

import pytest

from capray.distributions import Constant, Exponential, Pareto
from capray.draws import Drawer
from capray.links import Link
from capray.network import Network
from capray.scenario import Scenario
from capray.streams import COMPILED


def drawn(link: Link, seed: int, ahead: bool, interruptions: float, count: int = 3000) -> list[tuple[int, int]]:
    """So many latencies of three lanes that leave one node, one of them seldom used; now and then something else (a dial, a reset) draws from a lane's
    stream in between."""
    network = Network(Scenario(policy="abd", nodes=40, link=link).resolved(), seed, [])
    network.drawer = Drawer(network.tables[0], 40) if ahead else None
    lanes, chance, out, blocks = [network._lane(peer, 0, peer) for peer in (1, 2, 3)], Random(seed), [], 0
    for _ in range(count):
        lane = lanes[chance.choice((0, 0, 0, 1, 1, 2))]
        if chance.random() < interruptions:
            out.append((lane.dst, -network._delay(lane)))
        out.append((lane.dst, lane.ahead.pop() if lane.ahead else network._draw(lane, 0)))
        blocks = max(blocks, lane.block)
    assert bool(blocks) == ahead
    return out


@pytest.mark.skipif(COMPILED, reason="compiled, latencies are drawn one by one")
@pytest.mark.parametrize(
    "link", [Link(floor_us=200, latency=Exponential(75)), Link(latency=Pareto(1, 1.1)), Link(latency=Constant(0))], ids=["lan", "no floor", "nothing"]
)
def test_drawn_ahead_or_one_by_one_a_lane_has_the_same_latencies(link: Link) -> None:
    for seed in range(12):  # blocks of these end in every way: some with a draw whose tail would lie outside
        for interruptions in (0.0, 0.004):
            assert drawn(link, seed, True, interruptions) == drawn(link, seed, False, interruptions)


def test_links_with_a_latency_for_each_class_of_message_draw_one_by_one() -> None:
    link = Link(latency=Constant(5), by_class={"write": Constant(9)})
    assert Network(Scenario(policy="abd", nodes=3, link=link).resolved(), 1, []).drawer is None
