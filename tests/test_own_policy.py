"""The README's guide: a user's own policy, run from the command line and tested over a fake link, without touching the package."""

from pathlib import Path

import pytest

from capray.metrics import measure
from capray.scenario import from_dict
from capray.testing import FakeLink
from capray.trial import simulate
from capray.windows import simulate_in_windows

HERE = Path(__file__).parent


@pytest.fixture
def policy(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    import own_policy

    return own_policy.PrimaryCopy


def test_the_readme_shows_the_policy_that_is_tested():
    readme = (HERE.parent / "README.md").read_text()
    assert (HERE / "own_policy.py").read_text().strip() in readme


def test_it_is_as_short_as_the_readme_says():
    lines = [line for line in (HERE / "own_policy.py").read_text().splitlines() if line.strip()]
    assert len(lines) <= 66  # 60 and its imports


def test_it_answers_over_a_fake_link(policy):
    link = FakeLink(policy, nodes=3, latency_us=1000)
    write = link.request(1, "write", "x", 7)
    link.run_for(50_000)
    read = link.request(2, "read", "x")
    link.run_for(50_000)
    assert link.replies[write].outcome == "ok" and link.replies[read].result == 7


def test_it_runs_on_both_loops_with_the_same_bytes_and_is_stale_in_a_cut(policy):
    scenario = from_dict({"policy": "own_policy:PrimaryCopy", "nodes": 3, "faults": [{"shape": "leader-minority", "at": "2s", "for": "4s"}]})
    record = simulate(scenario, 1)
    assert record.digest() == simulate_in_windows(scenario, 1).digest()
    found = measure(record)
    assert found["availability_during_read"] == 1.0 and found["availability_during_majority_write"] == 0.0
    assert found["stale_share"] > 0 and found["linearizable"] == "invalid"


def test_its_acknowledged_writes_survive_a_crash_of_the_primarys_host(policy):
    scenario = from_dict({"policy": "own_policy:PrimaryCopy", "nodes": 3, "faults": [{"kind": "crash-host", "nodes": [0], "at": "2s", "for": "2s"}]})
    assert measure(simulate(scenario, 1))["lost_writes"] == 0


def test_the_command_line_names_it_and_its_settings(policy, monkeypatch, capsys):
    from test_cli import call

    assert call(monkeypatch, capsys, "run", "--policy", "own_policy:PrimaryCopy", "--nodes", 3, "--set", "give_up=100ms", "--json")[0] == 0
    status, out, _ = call(monkeypatch, capsys, "policies", "own_policy:PrimaryCopy")
    assert status == 0 and "give_up = 800ms" in out
    status, _, err = call(monkeypatch, capsys, "run", "--policy", "own_policy:PrimaryCopy", "--set", "patience=1s")
    assert status == 2 and "patience" in err
