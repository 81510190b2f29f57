"""ZooKeeper's minority and its majority under a cut, at reduced size: syncLimit x tickTime rules both, and the measured cuts come out."""

from __future__ import annotations

import importlib.util
import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from capray.errors import InputError
from capray.measures.foreign import real_server_record
from capray.metrics import measure
from capray.sweep import points, scenario_of
from capray.trial import simulate

ROOT = Path(__file__).parents[1]
FOLDER = ROOT.parent / "shared" / "reference" / "real_servers"
spec = importlib.util.spec_from_file_location("zookeeper_minority", ROOT / "experiments" / "zookeeper_minority.py")
assert spec is not None and spec.loader is not None
script = importlib.util.module_from_spec(spec)
spec.loader.exec_module(script)


@lru_cache(maxsize=8)
def answers(*arguments: str, seeds: int = 1) -> dict[tuple[str, str, str], dict[str, Any]]:
    """(variant, cut, measure) -> row, from trials that no results directory keeps."""
    sweep = script.sweep_of(script.options().parse_args(list(arguments)))
    rows = []
    for point in points(sweep):
        for seed in range(seeds):
            record = simulate(scenario_of(sweep, point, seed), seed)
            rows.append({"label": point.variant.label, "duration": point.duration, **measure(record), "serves": script.serves(record)})
    return {(row["variant"], row["cut"], row["measure"]): row for row in script.told(sweep, rows)}


@pytest.mark.parametrize(("tick", "limit", "cut"), [("1s", 2, "15s"), ("1s", 5, "18s"), ("500ms", 5, "14s")])
def test_sync_limit_times_tick_time_rules_both_sides(tick: str, limit: int, cut: str) -> None:
    """A follower falls silent after the limit (its last read and the leader's last ping came a little earlier: half a tick at most); a leader up to two ticks
    after it; a majority elects a leader within a second after it (finalise wait 0.2 s, notifications, synchronisation, the next write)."""
    found = answers("--tick-time", tick, "--sync-limit", str(limit))
    seconds = {"1s": 1.0, "500ms": 0.5}[tick]
    ends = limit * seconds
    assert ends - seconds / 2 - 0.3 <= found["follower_cut", cut, "serves"]["simulated"] <= ends + 0.1
    assert found["follower_cut", cut, "stale"]["simulated"] == pytest.approx(found["follower_cut", cut, "serves"]["simulated"], abs=0.6)
    assert ends - 0.3 <= found["leader_cut", cut, "serves"]["simulated"] <= ends + 2 * seconds
    assert ends - seconds / 2 - 0.3 <= found["leader_cut", cut, "leaderless"]["simulated"] <= ends + 1.0
    assert all(row["published"] is None and row["within"] is None for row in found.values())


def test_the_measured_cuts_of_10_s_and_longer_ones_come_out() -> None:
    """A follower's 10.0 s and a cut leader's 10.5 s within 0.5 s or 20 % (the instant within a tick moves the leader's by up to 2 s)."""
    found = answers("--tick-time", "2s", "--sync-limit", "5", seeds=4 if os.environ.get("CAPRAY_FULL") else 1)
    judged = {where: row for where, row in found.items() if row["published"] is not None}
    assert {where[:2] for where in judged} == {("follower_cut", "26s"), ("leader_cut", "26s"), ("follower_cut", "10s"), ("leader_cut", "10s")}
    for row in judged.values():
        assert row["within"] is True, row


def test_the_published_values_are_those_of_the_index() -> None:
    if not FOLDER.exists():
        pytest.skip("the recorded runs of real servers (../shared/reference/real_servers) are not here")
    index = json.loads((FOLDER / "index.json").read_text())
    names = {"serves": "min_last_ok_r", "stale": "stale_max_s", "leaderless": "failover_w", "returns": "rec_first_ok_r"}
    for variant in script.SHAPES:
        run = index[f"zookeeper_{variant}_D10"]
        assert run["settings"]["tickTime_ms"] == 2000 and run["settings"]["syncLimit"] == script.LIMIT
        for name, value in script.PUBLISHED[variant, True].items():
            assert value == run["median"][names[name]]
        assert script.serves(real_server_record(f"zookeeper_{variant}_D10", FOLDER)) == pytest.approx(run["measured"]["min_last_ok_r"], abs=0.0006)


@pytest.mark.parametrize(("arguments", "complaint"), [
    (("--tick-time", "soon"), "tick-time: 'soon' is not accepted"),
    (("--tick-time", "0s"), "tick-time: '0s' is not accepted; it takes at least 1 tick, and a tick longer than 0"),
    (("--sync-limit", "0"), "sync-limit: 0 is not accepted"),
])
def test_a_wrong_request_is_one_line(arguments: tuple[str, ...], complaint: str) -> None:
    with pytest.raises(InputError) as error:
        script.sweep_of(script.options().parse_args(list(arguments)))
    assert complaint in str(error.value) and "\n" not in str(error.value)
