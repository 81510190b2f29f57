"""Broken on purpose: `capray run` and the checkers expose every bug of tests/broken/table.py, and pass the sound policy on the same schedules.

With CAPRAY_FULL=1 the sound policies run with 200 seeds each, and every bug and seed of the table is tried.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from functools import lru_cache
from pathlib import Path

import pytest
from broken.table import BUGS, SCHEDULES, Bug, broken_claims

from capray.policies import POLICIES, load
from capray.record import Record
from capray.scenario import Scenario, from_dict
from capray.trial import simulate

HERE = Path(__file__).parent
FULL = bool(os.environ.get("CAPRAY_FULL"))
SEEDS = 200 if FULL else 1
pytestmark = pytest.mark.timeout(3000 if FULL else 300)  # 200 trials a test, on a machine that may be busy
TRIED = [bug for bug in BUGS if FULL or bug.quick]
BY_SCHEDULE = {bug.schedule: [other for other in BUGS if other.schedule == bug.schedule] for bug in TRIED}


@lru_cache
def scenario(bug: Bug, broken: bool) -> Scenario:
    return from_dict(bug.scenario(broken))


def trial(bug: Bug, broken: bool, seed: int) -> Record:
    return simulate(scenario(bug, broken), seed)


@pytest.mark.parametrize("bug", TRIED, ids=lambda bug: bug.mutant)
def test_the_broken_policy_is_exposed(bug: Bug) -> None:
    """By every seed of the table; in the quick run by one, so that a protocol whose random draws move does not break the suite."""
    exposed = (bool(broken_claims(trial(bug, True, seed), [bug.keeps])) for seed in bug.seeds)
    assert all(exposed) if FULL else any(exposed)


@pytest.mark.parametrize("schedule", BY_SCHEDULE)
def test_the_sound_policy_passes_on_the_same_schedule(schedule: str) -> None:
    bugs = BY_SCHEDULE[schedule]
    claims = list(dict.fromkeys(bug.keeps for bug in bugs))
    for seed in range(SEEDS):
        record = trial(bugs[0], False, seed)
        assert all(not fault.touched_nothing for fault in record.faults if fault.at < record.end), f"seed {seed}: a fault touched nothing"
        assert not broken_claims(record, claims), f"seed {seed}"


def test_every_policy_has_three_bugs_and_every_schedule_is_its_own_policys() -> None:
    counts = Counter(bug.policy for bug in BUGS)
    assert set(counts) == set(POLICIES) and min(counts.values()) >= 3
    assert all(bug.scenario(False)["policy"] == bug.policy for bug in BUGS)
    assert {path.stem for path in SCHEDULES.iterdir()} == {bug.schedule for bug in BUGS}


def test_every_bug_says_what_it_violates() -> None:
    for bug in BUGS:
        assert "Violates" in (load(f"broken.{bug.mutant}").__doc__ or ""), bug.mutant


def test_from_the_command_line(tmp_path: Path) -> None:
    """As a user types it; what the sound policy's row says there is the test above."""
    history, where = tmp_path / "history.jsonl", {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    capray, policy = (sys.executable, "-m", "capray"), "broken.etcd:UnsafeNoFsync"
    command = (*capray, "run", str(SCHEDULES / "etcd_power_loss.toml"), "--policy", policy, "--seed", "1", "--json", "--history", str(history))
    answer = json.loads(subprocess.run(command, env=where, capture_output=True, text=True, check=True).stdout)
    assert answer["policy"] == policy and answer["measurement"]["linearizable"] == "invalid"
    assert subprocess.run((*capray, "check", str(history)), env=where, capture_output=True, check=False).returncode == 1
