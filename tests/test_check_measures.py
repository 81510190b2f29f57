"""Gamma, Delta, stale reads and provably lost writes: against their definitions, and on histories worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from test_check_consistency import HISTORIES, distinct_history
from test_check_linearizable import by_definition, read, write

from capray.checkers.measures import delta_us, gamma_us, lost_writes_provable, stale_reads
from capray.checkers.zones import clusters, verdict_of
from capray.history import read_history
from capray.record import Operation

REAL = Path(__file__).parents[2] / "shared" / "reference" / "real_servers"


def stretched(ops: list[Operation], g: int) -> list[Operation]:
    """Starts g/2 earlier and ends g/2 later, all times doubled so that they stay whole."""
    return [msgspec.structs.replace(o, invoke=2 * o.invoke - g, complete=None if o.complete is None else 2 * o.complete + g) for o in ops]


def relaxed(ops: list[Operation], d: int) -> list[Operation]:
    return [msgspec.structs.replace(o, invoke=o.invoke - d) if o.f == "read" else o for o in ops]


def test_gamma_is_the_smallest_stretch_that_makes_the_history_linearizable() -> None:
    positive = 0
    for seed in range(min(HISTORIES, 1500)):
        ops = distinct_history(seed, keys=1)
        if ops is None:
            continue
        g = gamma_us(ops)
        if g is None:
            assert not by_definition("register", stretched(ops, 1000), None)
            continue
        assert by_definition("register", stretched(ops, g), None), (seed, ops)
        assert g == 0 or not by_definition("register", stretched(ops, g - 1), None), (seed, ops)
        positive += g > 0
    assert positive > 20


def test_delta_is_the_smallest_age_at_which_reads_are_explained() -> None:
    positive = 0
    for seed in range(min(HISTORIES, 1500)):
        ops = distinct_history(seed, keys=1)
        if ops is None:
            continue
        d = delta_us(ops)
        if d is None:
            assert not by_definition("register", relaxed(ops, 1000), None)
            continue
        assert by_definition("register", relaxed(ops, d), None), (seed, ops)
        assert d == 0 or not by_definition("register", relaxed(ops, d - 1), None), (seed, ops)
        positive += d > 0
    assert positive > 20


def test_a_stale_read_worked_out_by_hand() -> None:
    ops = [write(1, 0, 10), write(2, 20, 30), write(3, 35, 50), write(4, 60, 70), read(1, 65, 80), read(4, 90, 95)]
    assert stale_reads(ops) == [(4, 35, 2)], "2 and 3 had completed, the first of them at 30"
    assert delta_us(ops) == 35, "the read must be taken for one at 30, when write 2 was completed"
    # 1 and 2 can pass one another for min(65 - 30, 20 - 10) = 10, 1 and 3 only for min(65 - 50, 35 - 10) = 15.
    assert gamma_us(ops) == 15
    assert stale_reads([read(None, 5, 6), write(1, 0, 5)]) == [], "a tie is no order"
    assert stale_reads([write(1, 0, 1), read(None, 5, 6)]) == [(1, 4, 1)]
    assert stale_reads([write(1, 0, None), write(2, 5, 6), read(1, 7, 8)]) == [], "a crashed write is never completed"


def test_stale_reads_agree_with_counting() -> None:
    for seed in range(400):
        ops = distinct_history(seed, most_ops=10)
        if ops is None:
            continue
        writes = [o for o in ops if o.f == "write" and o.type == "ok" and o.complete is not None]
        expected = []
        for i, o in enumerate(ops):
            if o.f != "read" or o.type != "ok":
                continue
            source = [w for w in ops if w.f == "write" and w.type != "fail" and w.key == o.key and w.value == o.result]
            ended = -1 if o.result is None else (source[0].complete if source[0].complete is not None else 10**9)
            later = [w.complete for w in writes if w.key == o.key and w.invoke > ended and (w.complete or 0) < o.invoke]
            if later:
                expected.append((i, o.invoke - min(x for x in later if x is not None), len(later)))
        assert stale_reads(ops) == expected, (seed, ops)


def test_writes_provably_lost_are_those_after_what_the_last_reads_returned() -> None:
    def final(value: int | None, at: int) -> Operation:
        return msgspec.structs.replace(read(value, at, at + 1), final=True)

    writes = [write(1, 0, 1), write(2, 2, 3), write(3, 4, 5)]
    assert lost_writes_provable([*writes, final(3, 10), final(3, 12)]) == 0
    assert lost_writes_provable([*writes, final(1, 10), final(1, 12)]) == 2
    assert lost_writes_provable([*writes, final(1, 10), final(2, 12)]) == 1, "one replica still has 2"
    assert lost_writes_provable([*writes, final(None, 10)]) == 3
    assert lost_writes_provable([write(1, 0, None), *writes[1:], final(1, 10)]) == 0, "a crashed write may take effect last"
    assert lost_writes_provable([*writes, read(1, 10, 11)]) == 2, "no read is marked: those after everything else"
    assert lost_writes_provable([*writes, read(1, 4, 11)]) is None


def test_measures_of_other_histories_are_null() -> None:
    twice = [write(1, 0, 1), write(1, 2, 3)]
    assert gamma_us(twice) is delta_us(twice) is stale_reads(twice) is lost_writes_provable(twice) is None
    assert gamma_us([read(5, 0, 1)]) is None


def test_recorded_real_servers_are_as_stale_as_their_index_says() -> None:
    if not REAL.exists():
        pytest.skip("the recorded runs of real servers are not there")
    index = json.loads((REAL / "index.json").read_text())
    for name, entry in index.items():
        file = REAL / f"{name}.jsonl.gz"
        if not file.exists():
            continue
        ops = read_history(file)
        stale = stale_reads(ops)
        assert stale is not None and len(stale) == entry["measured"]["stale"], name
        assert abs(max((s.age_us for s in stale), default=0) / 1e6 - entry["measured"]["stale_max_s"]) < 0.001, name
        found = clusters(ops)
        assert found is not None
        gamma = gamma_us(ops)
        assert (verdict_of(ops, found).status == "valid") == (gamma == 0), name
