"""experiments/redis_failover.py at a reduced size: Jepsen's arithmetic against the simulated loss."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "experiments" / "redis_failover.py"


def run(*options: str) -> subprocess.CompletedProcess[str]:
    path = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    return subprocess.run(
        [sys.executable, str(SCRIPT), "--engine", "local", *options], capture_output=True, text=True, cwd=ROOT, env=path, check=False
    )


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    done = run("--cut", "4s", "14s", "--rate", "5", "--seeds", "1", "--json", "--out", str(tmp_path_factory.mktemp("redis") / "out"))
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_loss_is_what_the_arithmetic_says(rows: list[dict[str, Any]]) -> None:
    """published.md, 4: r x 2 D beside, r x (2 D + 3 T) outside; with min-replicas-to-write, max-lag + 1 s in place of D."""
    long = [row for row in rows if row["cut"] == "14s"]
    assert len(long) == 5 and all(row["within"] for row in long), long
    expected = {(row["placement"], row["min_replicas"]): row["published"] for row in long}
    assert expected["beside", 0] == 5 * 2 * 14 and expected["beside", 2] == 5 * 2 * 11


def test_a_cut_shorter_than_the_failover_loses_nothing_and_claims_nothing(rows: list[dict[str, Any]]) -> None:
    short = [row for row in rows if row["cut"] == "4s"]
    assert len(short) == 5 and all(row["published"] is None and row["within"] is None for row in short)
    assert all(row["simulated"] == 0 for row in short if row["measure"] == "lost")


@pytest.mark.parametrize(("option", "value", "field"), [("--cut", "soon", "cut"), ("--quorum", "9", "quorum"), ("--minority", "5", "minority")])
def test_a_wrong_option_is_one_line(option: str, value: str, field: str, tmp_path: Path) -> None:
    done = run(option, value, "--out", str(tmp_path / "out"))
    assert done.returncode == 2 and field in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr


def test_real_servers_lost_as_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Redis 7.0.15, cut for 20 s: 368 to 432 with clients beside their nodes (5 runs), 607 with clients outside of the cut.  In this process, without the
    report, whose drawing the runs above show."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    script = import_module(SCRIPT.stem)
    monkeypatch.setattr(script, "draw", lambda directory: None)
    options = ["--engine", "local", "--cut", "20s", "--min-replicas", "0", "--seeds", "2", "--json", "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *options])
    script.script()
    lost = {row["placement"]: row for row in map(json.loads, capsys.readouterr().out.splitlines()) if row["measure"] == "lost"}
    for placement, real in (("beside", 398), ("outside", 607)):
        assert lost[placement]["measured"] == real and lost[placement]["simulated"] == pytest.approx(real, rel=0.08)
