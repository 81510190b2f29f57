"""Runs of a real store become a results directory that can be reported, reproduced and compared."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from capray.compare import compare_directories, reproduce_directory
from capray.errors import InputError
from capray.history import write_history
from capray.record import Operation
from capray.recorded import import_runs, measured_again
from capray.reporting.packing import unpacked
from capray.scenario import from_dict
from capray.store import Results
from capray.sweeping import draw
from capray.trial import simulate

REAL = Path(__file__).parents[2] / "shared" / "reference" / "real_servers"
RUNS = """
[[runs]]
history = "one.jsonl.gz"
label = "my store"
duration = "3s"
[[runs.faults]]
shape = "0,1|2,3,4"
at = "2s"
for = "3.01s"
[[runs]]
history = "two.edn"
label = "my store"
duration = "3s"
[[runs.faults]]
shape = "0,1|2,3,4"
at = "2s"
for = "3s"
"""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two recorded runs of a store of five nodes, cut for three seconds."""
    folder = tmp_path_factory.mktemp("recorded")
    scenario = from_dict({"policy": "abd", "nodes": 5, "duration": "7s", "workload": {"rate": 10.0},
                          "faults": [{"shape": "0,1|2,3,4", "at": "2s", "for": "3s"}]})
    for seed, name in enumerate(("one.jsonl.gz", "two.edn")):
        write_history(folder / name, simulate(scenario, seed).history)
    (folder / "runs.toml").write_text(RUNS)
    return folder


@pytest.fixture
def folder(recorded: Path, tmp_path: Path) -> Path:
    """A copy of them."""
    return Path(shutil.copytree(recorded, tmp_path / "recorded"))


def test_histories_and_their_faults_become_a_directory(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder / "out"
    digest, trials = import_runs([folder / "runs.toml"], out, "capray import runs.toml")
    rows = Results(out).rows()
    assert trials == 2 and [(row["label"], row["nodes"], row["duration"], row["seed"]) for row in rows] == [("my store", 5, "3s", 0), ("my store", 5, "3s", 1)]
    assert rows[0]["duration_us"] == 3_010_000 and rows[0]["availability_during_minority"] < 0.5 < rows[0]["availability_during_majority"]
    assert rows[0]["linearizable"] == "valid" and rows[0]["lost_writes"] is None  # what needs the replicas' versions is not known
    for name in ("one.jsonl.gz", "two.edn", "runs.toml"):
        (folder / name).unlink()  # the directory stands alone
    assert reproduce_directory(out, "", None, True) == 0 and json.loads(capsys.readouterr().out)["digest_now"] == digest
    page = draw(out).read_text()
    assert "my store, 5 nodes, cut 3s, recorded" in page and "timeline-0" in unpacked(page)
    assert compare_directories(out, out, [], [], [], False, None, False) == 0


def test_a_changed_history_is_found_out(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import_runs([folder / "runs.toml"], folder / "out", "")
    file = folder / "out" / "histories" / "0000-one.jsonl.gz"
    write_history(file, [Operation(process=0, node=0, f="read", key="k0", value=None, result=None, invoke=0, complete=1, type="ok")])
    assert reproduce_directory(folder / "out", "", None, False) == 1 and "DIFFERS" in capsys.readouterr().out


@pytest.mark.parametrize(("old", "new", "said"), [
    ('"0,1|2,3,4"', '"majority"', "groups written out"),
    ('"0,1|2,3,4"', '"0,1|1,2"', "0,1|1,2"),
    ('at = "2s"', 'at = "2 parsecs"', "parsecs"),
    ('for = "3s"', 'fro = "3s"', "fro"),
    ('"one.jsonl.gz"', '"gone.jsonl"', "gone.jsonl"),
    ('label = "my store"', "label = 3", "label"),
    ('duration = "3s"', 'duration = "long"', "long"),
    ('duration = "3s"', "nodes = 3", "nodes"),
    ("[[runs]]", "[[trials]]", "runs"),
    (RUNS, "", "runs"),
    (RUNS, "runs = 1", "runs"),
    (RUNS, '[[runs]]\nhistory = "one.jsonl.gz"\nlabel = "my store"\nfaults = 3\n', "run 1: faults: 3 is not accepted"),
])
def test_a_wrong_description_is_one_line_and_writes_nothing(folder: Path, old: str, new: str, said: str) -> None:
    (folder / "runs.toml").write_text(RUNS.replace(old, new))
    with pytest.raises(InputError) as error:
        import_runs([folder / "runs.toml"], folder / "out", "")
    assert said in str(error.value) and "\n" not in str(error.value) and not (folder / "out").exists()


@pytest.mark.skipif(not REAL.exists(), reason="no recorded runs of real servers beside the project")
def test_real_servers_are_measured_as_their_index_says(tmp_path: Path) -> None:
    known = json.loads((REAL / "index.json").read_text())
    (tmp_path / "index.json").write_text(json.dumps({name: run for name, run in known.items() if name.startswith("redis_l")}))
    (tmp_path / "redis_leader_cut_D10.jsonl.gz").write_bytes((REAL / "redis_leader_cut_D10.jsonl.gz").read_bytes())
    import_runs([tmp_path], tmp_path / "out", "")
    [row] = Results(tmp_path / "out").rows()
    assert (row["label"], row["duration"], row["stale_reads"]) == ("redis leader_cut", "10s", 89)
    assert measured_again(Results(tmp_path / "out").manifest(), tmp_path / "out") == [row]


def test_a_trial_that_another_version_made_is_left_out_of_the_drawing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from capray.engines import Where
    from capray.sweep import sweep_from_dict
    from capray.sweeping import run_shown

    spec = {"seeds": 1, "at": "1s", "after": "2s", "variants": [{"label": name, "policy": "abd"} for name in ("kept", "changed")],
            "grids": [{"nodes": [3], "durations": ["0s", "1s"]}]}
    run_shown(sweep_from_dict(spec, "tiny"), tmp_path / "out", Where(engine="local"), "")
    trials = tmp_path / "out" / "trials.jsonl"
    lines = trials.read_text().splitlines(True)
    trials.write_text("".join(line if '"kept|' in line else re.sub(r'"record": "\w+"', '"record": "0000"', line) for line in lines))
    page = draw(tmp_path / "out").read_text()
    assert "not drawn: trial changed|3|1s|000000" in capsys.readouterr().err
    assert "kept, 3 nodes, cut 1s, seed 0" in page and "changed, 3 nodes, cut 1s, seed 0" not in page
