"""Redis with Sentinel in the engine: the measured runs, Jepsen's arithmetic, other faults."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from capray.metrics import measure
from capray.scenario import from_dict
from capray.trial import simulate
from capray.windows import simulate_in_windows

S = 1_000_000
REFERENCE = Path(__file__).parents[2] / "shared" / "reference" / "real_servers" / "index.json"


def trial(
    shape: str = "0,1|2,3,4", cut_s: int = 10, seed: int = 0, after_s: int = 20, workload: dict[str, Any] | None = None, **settings: Any
) -> Any:
    """The measured runs' set-up (round trip 0.2 ms) for any cut."""
    return from_dict(
        {
            "policy": "capray.policies.redis.replica:Redis",
            "nodes": 5,
            "link": {"floor_us": 70, "latency": {"shape": "exponential", "mean_us": 30}},
            "settings": {"down_after_us": 5 * S, "quorum": 3, **settings},
            "workload": workload or {},
            "duration_us": (10 + cut_s + after_s) * S,
            "faults": [{"at_us": 10 * S, "for_us": cut_s * S, "shape": shape}],
        }
    )


def test_the_engine_shows_what_the_real_servers_did() -> None:
    """../shared/reference/real_servers/index.json: availability within 3 points or inside the spread, failover within 0.5 s, losses and staleness."""
    if not REFERENCE.exists():
        pytest.skip("../shared/reference is not beside the project")
    index = json.loads(REFERENCE.read_text())
    rows = [measure(simulate(trial(seed=seed), seed)) for seed in range(3)]
    real = index["redis_leader_cut_D10"]
    for side, kind, name in [
        ("majority", "read", "av_dur_maj_r"),
        ("majority", "write", "av_dur_maj_w"),
        ("minority", "read", "av_dur_min_r"),
        ("minority", "write", "av_dur_min_w"),
    ]:
        mean = sum(row[f"availability_during_{side}_{kind}"] for row in rows) / len(rows)
        low, high = real["spread"].get(name, [real["median"][name]] * 2)
        assert low - 0.03 <= mean <= high + 0.03, (name, mean)
    for row in rows:
        assert abs(row["failover_write_us"] / S - real["median"]["failover_w"]) < max(0.5, 0.2 * real["median"]["failover_w"])
        assert row["recovery_first_write_us"] < S and row["recovery_last_us"] == 0 and row["availability_after"] == 1
        assert 0.85 * real["median"]["lost_acked"] < row["lost_writes"] < 1.2 * real["median"]["lost_acked"]
        assert 0.5 * real["spread"]["stale"][0] < row["stale_reads"] < 2 * real["spread"]["stale"][1] and row["staleness_max_us"] < 8 * S
    row = measure(simulate(trial("1,2|0,3,4"), 0))
    assert row["availability_during_minority"] < 0.03 and row["availability_during_majority"] == 1 and row["lost_writes"] == row["stale_reads"] == 0
    assert row["recovery_last_us"] == 0 and row["linearizable"] == "valid"


@pytest.mark.parametrize(("placement", "own"), [("beside", 0), ("outside", 3)])
def test_jepsens_arithmetic(placement: str, own: int) -> None:
    """../shared/reference/published.md, 4: "lost = r x (2 D + 3 T_f)"; clients beside their node "are cut with it, and then lost = r x 2 D"."""
    workload = {"client_placement": placement, "rate": 20, "read_share": 0.0}
    record, beside = (simulate(trial(cut_s=20, workload={**workload, "client_placement": where}), 0) for where in (placement, "beside"))
    first_ok = min(
        operation.complete for operation in beside.history if operation.node in (2, 3, 4) and operation.type == "ok" and operation.invoke > 10 * S
    )
    expected = 20 * (2 * 20 + own * (first_ok / S - 10))
    dropped = {version.value for version in record.versions if version.kind == "discard"}
    lost = sum(operation.type == "ok" and operation.value in dropped for operation in record.history if operation.f == "write")
    assert 0.9 * expected < lost < 1.15 * expected


def test_min_replicas_bounds_the_loss_by_about_max_lag() -> None:
    """Replication: "at least the time window for data loss is restricted to a given number of seconds.\""""
    record = simulate(trial(cut_s=25, workload={"rate": 20, "read_share": 0.0}, min_replicas_to_write=2, parallel_syncs=4), 0)
    assert 20 * 2 * 9 < measure(record)["lost_writes"] < 20 * 2 * 12
    assert {
        operation.error.split()[0] for operation in record.history if operation.error and operation.node in (0, 1) and operation.invoke > 25 * S
    } >= {"NOREPLICAS"}


def test_both_engines_give_the_same_bytes() -> None:
    scenario = trial(cut_s=8, after_s=5)
    assert simulate_in_windows(scenario, 3).digest() == simulate(scenario, 3).digest()


@pytest.mark.parametrize("kind", ["crash-process", "crash-host", "pause", "slow"])
def test_a_primary_that_dies_otherwise_is_replaced_too(kind: str) -> None:
    fault: dict[str, Any] = {"kind": kind, "nodes": [0], "at_us": 5 * S, "for_us": 15 * S, "service_us": 8 * S if kind == "slow" else 0}
    scenario = from_dict(
        {
            "policy": "capray.policies.redis.replica:Redis",
            "nodes": 3,
            "settings": {"down_after_us": 5 * S, "quorum": 2},
            "faults": [fault],
            "workload": {"rate": 5},
        }
    )
    record = simulate(scenario, 0)
    late = [operation for operation in record.history if operation.node in (1, 2) and 14 * S < operation.invoke < 20 * S]
    assert late and sum(operation.type == "ok" for operation in late) > 0.9 * len(late)
