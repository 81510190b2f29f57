"""Random streams: named by (seed, role, index), never shared, the same everywhere."""

from __future__ import annotations

import hashlib

from capray.streams import GAMMA, MASK, Stream


def splitmix64(state: int) -> tuple[int, int]:
    """The published algorithm, written as in the paper's listing."""
    state = (state + 0x9E3779B97F4A7C15) % 2**64
    z = state
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return state, z ^ (z >> 31)


def test_it_is_splitmix64_with_its_published_outputs() -> None:
    stream = Stream(0, "any")
    stream.state = 1234567
    assert [stream.bits() for _ in range(5)] == [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]


def test_output_k_is_a_function_of_the_start_and_k_alone() -> None:
    stream = Stream(3, "link", 1, 2)
    start = stream.state
    drawn = [stream.bits() for _ in range(100)]
    assert [splitmix64((start + k * GAMMA) & MASK)[1] for k in range(100)] == drawn


def test_the_start_is_the_hash_of_the_name() -> None:
    assert Stream(7, "node", 3).state & MASK == int.from_bytes(hashlib.blake2b(b"7/node/3", digest_size=8).digest(), "little")


def test_streams_of_different_names_differ_and_of_the_same_name_agree() -> None:
    names = [(seed, role, *index) for seed in (0, 1, 11) for role in ("node", "link", "client") for index in ((0,), (1,), (1, 1), (11,), (1, 1, 0))]
    starts = {Stream(*name).state for name in names}  # type: ignore[arg-type]
    assert len(starts) == len(names)
    assert Stream(5, "client", 2).bits() == Stream(5, "client", 2).bits()


def test_one_streams_use_does_not_move_another() -> None:
    alone = [Stream(1, "node", 0).bits()]
    one, other = Stream(1, "node", 0), Stream(1, "node", 1)
    for _ in range(10):
        other.bits()
    assert [one.bits()] == alone


def test_below_is_even_and_within_bounds() -> None:
    stream, counts = Stream(9, "die"), [0] * 6
    for _ in range(60_000):
        counts[stream.below(6)] += 1
    chi2 = sum((count - 10_000) ** 2 / 10_000 for count in counts)
    assert chi2 < 20.5  # 0.1 % with 5 degrees of freedom


def test_between_includes_both_ends_and_chance_its_extremes() -> None:
    stream = Stream(2, "ends")
    assert {stream.between(-1, 1) for _ in range(200)} == {-1, 0, 1}
    assert stream.between(5, 5) == 5
    assert all(stream.chance(1_000_000) for _ in range(100)) and not any(stream.chance(0) for _ in range(100))
    assert 450 < sum(stream.chance(50_000) for _ in range(10_000)) < 550
