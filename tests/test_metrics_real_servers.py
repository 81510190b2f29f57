"""Real servers' recorded runs through the same measuring code: the numbers come out as the independent script of their index.json has them."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from capray.errors import InputError
from capray.measures.foreign import real_server_index, real_server_record
from capray.measures.ordered import stale_by_order
from capray.metrics import Measurement, measure
from capray.record import Record

FOLDER = Path(__file__).parents[2] / "shared" / "reference" / "real_servers"
INDEX: dict[str, dict[str, Any]] = real_server_index(FOLDER) if FOLDER.exists() else {}
needs_files = pytest.mark.skipif(not INDEX, reason="the recorded runs of real servers (../shared/reference/real_servers) are not here")
runs = pytest.mark.parametrize("name", list(INDEX) or [pytest.param("none", marks=needs_files)])

SHARES = {  # index.json -> column; the same definition: by invocation, without final reads
    "av_dur": "availability_during", "av_dur_min_r": "availability_during_minority_read", "av_dur_min_w": "availability_during_minority_write",
    "av_dur_maj_r": "availability_during_majority_read", "av_dur_maj_w": "availability_during_majority_write", "av_after": "availability_after",
    "av_after_min": "availability_after_minority", "av_after_maj": "availability_after_majority",
}
SECONDS = {
    "failover_w": "failover_write_us", "maj_gap_w": "gap_write_us", "maj_gap_r": "gap_read_us", "rec_first_ok_r": "recovery_first_read_us",
    "rec_first_ok_w": "recovery_first_write_us", "rec_last_bad": "recovery_last_us",
}
COUNTS = {
    "stale": "stale_reads", "stale_before": "stale_reads_before", "stale_dur_min": "stale_reads_during_minority",
    "stale_dur_maj": "stale_reads_during_majority", "stale_after": "stale_reads_after",
}


@lru_cache(maxsize=32)
def run(name: str) -> tuple[Record, Measurement]:
    record = real_server_record(name, FOLDER)
    return record, measure(record)


@runs
@needs_files
def test_stale_reads_and_ages_are_those_of_the_index(name: str) -> None:
    measured, row = INDEX[name]["measured"], run(name)[1]
    for theirs, ours in COUNTS.items():
        assert row[ours] == measured[theirs], ours
    assert (row["staleness_max_us"] or 0) / 1e6 == pytest.approx(measured["stale_max_s"], abs=0.0006)  # the index has 0 where nothing was stale
    assert (row["stale_reads_final"] > 0) == (measured["final_stale_keys"] > 0)


@runs
@needs_files
def test_availability_failover_gap_and_recovery_are_those_of_the_index(name: str) -> None:
    measured, row = INDEX[name]["measured"], run(name)[1]
    for theirs, ours in SHARES.items():
        assert row[ours] == pytest.approx(measured[theirs], abs=0.00006), ours
    for theirs, ours in SECONDS.items():
        assert row[ours] / 1e6 == pytest.approx(measured[theirs], abs=0.0006), ours


@runs
@needs_files
def test_before_differs_by_what_was_under_way_when_the_cut_came(name: str) -> None:
    """The index counts as `before` only what was over by then; capray counts by when an operation was due, so that every one has its phase."""
    record, row = run(name)
    cut = record.faults[0].at
    straddling = sum(op.invoke < cut and op.type != "ok" for op in record.history)
    before = sum(op.invoke < cut for op in record.history)
    assert straddling <= 2 and row["availability_before"] == (before - straddling) / before
    assert all(op.complete is None or op.complete >= cut for op in record.history if op.invoke < cut and op.type != "ok")
    assert INDEX[name]["measured"]["av_before"] == 1.0


@runs
@needs_files
def test_healthy_latency_is_that_of_the_index_but_for_the_kind_of_quantile(name: str) -> None:
    """capray's quantiles are values that were measured (nearest rank); the index's p50 lie up to 0.03 ms beside them."""
    measured, row = INDEX[name]["measured"], run(name)[1]
    for kind, letter in (("read", "r"), ("write", "w")):
        assert row[f"latency_p50_before_{kind}_us"] / 1e3 == pytest.approx(measured[f"p50_{letter}"], abs=0.03)
        assert row[f"latency_p99_before_{kind}_us"] / 1e3 == pytest.approx(measured[f"p99_{letter}"], rel=0.25)


@runs
@needs_files
def test_verdicts_and_what_a_history_alone_cannot_tell(name: str) -> None:
    """Every stale read breaks linearizability.  ALL / ONE has none and breaks it all the same: it reads values of writes that never succeeded.
    Versions are not known, so lost writes are null; Redis lost 194, none of which its history proves: later writes may have taken their place."""
    row = run(name)[1]
    system = INDEX[name]["system"]
    expected = "invalid" if row["stale_reads"] or "wall" in system else "valid"
    assert row["linearizable"] == expected and (row["gamma_us"] == 0) == (expected == "valid")
    assert row["lost_writes_provable"] == 0
    for column in ("lost_writes", "conflicts", "divergence_area", "convergence_us", "messages", "messages_per_op", "fault_touched_nothing"):
        assert row[column] is None
    assert row["cap_available"] is (system == "cassandra_rf5_one")


@pytest.mark.parametrize("name", [name for name in INDEX if "stale_ts" in INDEX[name]["measured"]] or [pytest.param("none", marks=needs_files)])
@needs_files
def test_stale_reads_by_the_stores_own_timestamps_are_those_of_the_index(name: str) -> None:
    """Cassandra's clients set the timestamps, so the history has the store's order: a few more reads are stale by it than by the history alone."""
    record, measured = run(name)[0], INDEX[name]["measured"]
    orders = {(op.key, op.value): (op.ts,) for op in record.history if op.f == "write" and op.ts is not None}
    ages = stale_by_order(record.history, orders)
    assert len(ages) == measured["stale_ts"] and max(ages.values(), default=0) / 1e6 == pytest.approx(measured["stale_ts_max_s"], abs=0.0006)
    cut, heal = record.faults[0].at, record.faults[0].until or 0
    sides = [op.node in (0, 1) for i in ages if cut <= (op := record.history[i]).invoke < heal]
    assert (sum(sides), len(sides) - sum(sides)) == (measured["stale_ts_dur_min"], measured["stale_ts_dur_maj"])
    assert len(ages) >= run(name)[1]["stale_reads"]


@needs_files
def test_placement_and_sides_come_from_the_index() -> None:
    record, row = run("cassandra_rf3_one_minority2_D10")
    assert record.placement["k3"] == (3, 4, 0) and record.faults[0].groups == ((0, 1), (2, 3, 4))
    assert row["operations"] == INDEX["cassandra_rf3_one_minority2_D10"]["measured"]["ops"]
    with pytest.raises(InputError, match="run: 'oracle' is not accepted; it takes one of etcd_leader_cut_D10"):
        real_server_record("oracle", FOLDER)


def test_a_folder_without_an_index_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"index\.json: cannot be read"):
        real_server_record("etcd", tmp_path)
