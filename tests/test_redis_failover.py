"""experiments/redis_failover.py at a reduced size: Jepsen's arithmetic against the simulated loss."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from capray.errors import InputError

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "experiments" / "redis_failover.py"


Script = Callable[..., str]


@pytest.fixture(scope="module")
def script() -> Iterator[Script]:
    """Runs the script in this process; what it prints on standard output.  Its report is drawn without the timelines, for which trials are simulated again."""
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(str(SCRIPT.parent))
        patched.setattr("capray.sweeping.chosen_trials", lambda manifest, rows: [])
        module = import_module(SCRIPT.stem)

        def run(*options: str) -> str:
            patched.setattr(sys, "argv", [str(SCRIPT), "--engine", "local", *options])
            with redirect_stdout(StringIO()) as printed:
                module.script()
            return printed.getvalue()

        yield run


@pytest.fixture(scope="module")
def rows(script: Script, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    out = tmp_path_factory.mktemp("redis") / "out"
    printed = script("--cut", "4s", "14s", "--rate", "5", "--seeds", "1", "--json", "--out", str(out))
    assert "What was asked" in (out / "report.html").read_text() and (out / "figures" / "redis_failover.figure.json").exists()
    return [json.loads(line) for line in printed.splitlines()]


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


@pytest.mark.parametrize(("option", "value", "field"), [("--cut", "soon", "cut"), ("--quorum", "9", "quorum")])
def test_a_wrong_option_is_refused_before_anything_is_written(option: str, value: str, field: str, script: Script, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=field):
        script(option, value, "--out", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_wrong_option_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--engine", "local", "--minority", "5", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}, check=False)
    assert done.returncode == 2 and "minority" in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr


def test_real_servers_lost_as_many(script: Script, tmp_path: Path) -> None:
    """Redis 7.0.15, cut for 20 s: 368 to 432 with clients beside their nodes (5 runs), 607 with clients outside of the cut."""
    printed = script("--cut", "20s", "--min-replicas", "0", "--seeds", "2", "--json", "--out", str(tmp_path / "out"))
    lost = {row["placement"]: row for row in map(json.loads, printed.splitlines()) if row["measure"] == "lost"}
    for placement, real in (("beside", 398), ("outside", 607)):
        assert lost[placement]["measured"] == real and lost[placement]["simulated"] == pytest.approx(real, rel=0.08)
