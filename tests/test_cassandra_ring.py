"""Ring, placement and consistency levels: against vectors of the real partitioner, worked cases, and a brute-force twin."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capray.policies import ring


@pytest.mark.parametrize(
    "key, token",
    [  # the vectors that Apache Cassandra's drivers test their Murmur3 against
        (b"123", -7468325962851647638),
        (b"\x00\xff\x10\xfa\x99" * 10, 5837342703291459765),
        (b"\xfe" * 8, -8927430733708461935),
        (b"\x10" * 8, 1446172840243228796),
        (b"9223372036854775807", 7162290910810015547),
    ],
)
def test_tokens_are_those_of_the_murmur3_partitioner(key: bytes, token: int) -> None:
    assert ring.token(key) == token


def test_initial_tokens_are_the_manuals_formula() -> None:
    assert ring.initial_tokens(4) == (-(2**63), -(2**62), 0, 2**62)


@given(st.text(max_size=20), st.integers(1, 30))
def test_the_owner_is_the_first_node_clockwise_whose_token_is_not_below_the_keys(key: str, nodes: int) -> None:
    tokens = ring.initial_tokens(nodes)
    at_or_after = [n for n in range(nodes) if tokens[n] >= ring.token(key)]
    assert ring.owner(key, nodes) == (at_or_after[0] if at_or_after else 0)


def test_keys_spread_over_the_ring() -> None:
    owners = [ring.owner(f"key{i}", 5) for i in range(2000)]
    assert all(300 < owners.count(node) < 500 for node in range(5))


def test_key_number_puts_one_key_into_each_range() -> None:
    assert [ring.owner(f"k{i}", 5, "key_number") for i in range(7)] == [0, 1, 2, 3, 4, 0, 1]
    assert ring.owner("nothing", 5, "key_number") == 0


def test_simple_strategy_takes_the_next_nodes_clockwise() -> None:
    assert ring.simple_strategy(3, 5, 3) == (3, 4, 0)


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(0, 40), st.integers(1, 30))
def test_network_topology_gives_each_data_centre_its_factor_and_repeats_a_rack_only_when_it_must(
    datacenters: int, racks: int, factor: int, first: int, extra: int
) -> None:
    nodes = datacenters * factor + extra
    placed = ring.network_topology_strategy(first % nodes, nodes, factor, datacenters, racks)
    assert len(set(placed)) == len(placed) == datacenters * factor
    for dc in range(datacenters):
        mine = [n for n in placed if ring.datacenter(n, datacenters) == dc]
        there = {ring.rack(n, datacenters, racks) for n in range(dc, nodes, datacenters)}
        assert len(mine) == factor
        assert len({ring.rack(n, datacenters, racks) for n in mine}) == min(factor, len(there))


@pytest.mark.parametrize(
    "level, factors, count",
    [
        ("ANY", (3,), 1),
        ("ONE", (3,), 1),
        ("TWO", (3,), 2),
        ("THREE", (3,), 3),
        ("QUORUM", (3,), 2),
        ("QUORUM", (4,), 3),
        ("QUORUM", (3, 3), 4),
        ("LOCAL_QUORUM", (3, 3), 2),
        ("EACH_QUORUM", (3, 3), 4),
        ("ALL", (3, 2), 5),
    ],
)
def test_levels_block_for_as_many_as_the_manual_says(level: str, factors: tuple[int, ...], count: int) -> None:
    assert ring.block_for(level, factors) == count
    assert sum(c for _, c in ring.requirements(level, factors, 0)) == count
