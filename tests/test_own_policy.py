"""docs/own-policy.md: a user's own policy, run from the command line and tested over a fake link, without touching the package.  Every block is run."""

import re
import shlex
import sys
import tomllib
from pathlib import Path

import pytest

from capray.errors import InputError
from capray.metrics import measure
from capray.policies import load
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


GUIDE = (HERE.parent / "docs" / "own-policy.md").read_text()
BLOCKS = re.findall(r"^```(\w+)(?: file=(\S+))?\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)


def test_the_guide_shows_the_policy_that_is_tested():
    assert BLOCKS[0][:2] == ("python", "own_policy.py") and BLOCKS[0][2].strip() == (HERE / "own_policy.py").read_text().strip()
    assert "docs/own-policy.md" in (HERE.parent / "README.md").read_text()


def test_every_block_of_the_guide_runs(policy, monkeypatch, capsys, tmp_path):
    from test_cli import call

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("capray.report.write_report", lambda rows, *_: None)  # half of the time, and tested elsewhere
    for language, name, text in BLOCKS:
        if name:
            Path(name).write_text(text)
        if language == "toml":
            assert tomllib.loads(text)
        elif language == "python" and not name:
            exec(compile(text, "docs/own-policy.md", "exec"), {})  # noqa: S102 (a reader runs it too)
        for line in text.splitlines() if language == "sh" else ():
            path, command, *arguments = shlex.split(line)
            assert (path, command) == ("PYTHONPATH=.", "capray")
            status, out, err = call(monkeypatch, capsys, *arguments)
            assert status == 0, (line, err)
            assert out.strip(), line


def test_it_is_as_short_as_the_guide_says():
    lines = [line for line in (HERE / "own_policy.py").read_text().splitlines() if line.strip()]
    assert len(lines) <= 60 and f"Save these {len(lines)} lines as" in GUIDE and max(map(len, lines)) <= 125


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


@pytest.mark.parametrize(("text", "problem"), [
    ("class Mine(\n", "SyntaxError: .*mine.py:1"), ("x = 1\ny = 1 / 0\n", "ZeroDivisionError: .*mine.py:2"),
    ("import no_such_module\n", "No module named 'no_such_module'"), ("", "module mine has no class Mine"),
])
def test_a_module_that_cannot_be_read_is_refused_in_one_line_that_names_the_place(text, problem, monkeypatch, tmp_path):
    (tmp_path / "mine.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    with pytest.raises(InputError, match=f"policy: 'mine:Mine' is not accepted; .*{problem}") as caught:
        load("mine:Mine")
    assert "\n" not in str(caught.value)


def test_a_name_that_a_package_registers_is_listed_and_shown(policy, monkeypatch, capsys, tmp_path):
    from test_cli import call

    package = tmp_path / "mine-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[capray.policies]\nprimary-copy = own_policy:PrimaryCopy\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    load.cache_clear()
    assert "give_up = 800ms" in call(monkeypatch, capsys, "policies", "primary-copy")[1]
    assert "primary-copy" in call(monkeypatch, capsys, "policies")[1]
    assert "primary-copy" in call(monkeypatch, capsys, "run", "--policy", "nobody")[2]
    load.cache_clear()
