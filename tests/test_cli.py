"""The command line: what is printed, and which exit status; every wrong request is one line that names field, value and what is accepted."""

import io
import json
import shutil
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from capray import cli, experiment


def call(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["capray", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    out, err = capsys.readouterr()
    return stop.value.code or 0, out, err


RUN = ("run", "--policy", "abd", "--nodes", "3", "--rate", "5", "--partition", "isolate", "--at", "1s", "--for", "2s")


def test_run_prints_one_json_object_with_the_digest_and_the_measurement(monkeypatch, capsys):
    status, out, _ = call(monkeypatch, capsys, *RUN, "--json")
    [line] = out.splitlines()
    answer = json.loads(line)
    assert status == 0
    assert (answer["policy"], answer["nodes"], answer["seed"], answer["engine"]) == ("abd", 3, 0, "local")
    assert len(answer["digest"]) == 32 and answer["measurement"]["linearizable"] == "valid"
    assert call(monkeypatch, capsys, *RUN, "--json")[1] == out


def test_run_speaks_to_a_person_too(monkeypatch, capsys):
    status, out, _ = call(monkeypatch, capsys, *RUN)
    assert status == 0 and "isolate" in out and "from 1s to 3s; messages touched: " in out and len(out.splitlines()) < 50
    head = next(line for line in out.splitlines() if "whole trial" in line)
    lines = {line[: head.index("whole")].strip(): line[head.index("whole") :].split() for line in out.splitlines()[::-1]}
    assert head.split() == ["whole", "trial", "before", "during", "after"]
    measured = json.loads(call(monkeypatch, capsys, *RUN, "--json")[1])["measurement"]
    shown = [f"{measured['availability' + phase + '_minority']:.4g}" for phase in ("", "_before", "_during", "_after")]
    assert shown[2] == "0" and lines["minority side"] == shown and "largest side" not in lines  # which is the majority
    every = call(monkeypatch, capsys, *RUN, "--all")[1]
    assert all(f" {name} " in every for name, value in measured.items() if value is not None)


def test_what_had_not_come_when_the_trial_ended_is_said_and_not_left_out():
    from capray.summary import censored, shown

    assert censored({"convergence_us": None, "convergence_censored": True}, "convergence_us")
    assert not censored({"convergence_us": 5, "convergence_censored": False}, "convergence_us") and not censored({}, "linearizable")
    assert [shown("a_us", 1500), shown("a", None), shown("a", True), shown("a", 0.25), shown("a", "valid")] == ["1.5ms", "-", "yes", "0.25", "valid"]


def test_trials_that_fail_by_themselves_are_status_1_for_a_run_and_a_sweep(monkeypatch, capsys, tmp_path):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    status, _, err = call(monkeypatch, capsys, "run", "--policy", "failing_policy:Failing", "--nodes", "3")
    assert status == 1 and "the policy failed in this trial" in err and "too much" in err
    (tmp_path / "s.toml").write_text('seeds = 2\n[base]\nquiet = "500ms"\n[[variants]]\nlabel = "raises"\npolicy = "failing_policy:Failing"\n'
                                     '[[grids]]\nnodes = [3]\ndurations = ["1s"]\n')
    status, out, err = call(monkeypatch, capsys, "sweep", tmp_path / "s.toml", "--engine", "local", "--out", tmp_path / "out")
    assert status == 1 and not out and "2 of 2 trials failed" in err.splitlines()[-1]


def test_run_reads_a_scenario_and_options_override_it(monkeypatch, capsys, tmp_path):
    (tmp_path / "s.toml").write_text('policy = "abd"\nnodes = 3\nlink = "ymmr"\n[workload]\nrate = 3\ndeadline = "500ms"\n'
                                       '[[faults]]\nshape = "halves"\nat = "1s"\nfor = "1s"\n')
    one = json.loads(call(monkeypatch, capsys, "run", tmp_path / "s.toml", "--json")[1])
    other = json.loads(call(monkeypatch, capsys, "run", tmp_path / "s.toml", "--nodes", 5, "--json")[1])
    assert (one["nodes"], other["nodes"]) == (3, 5) and one["digest"] != other["digest"]


def test_run_writes_a_history_that_reads_back(monkeypatch, capsys, tmp_path):
    from capray.history import read_history

    answer = json.loads(call(monkeypatch, capsys, *RUN, "--json", "--history", tmp_path / "h.jsonl.gz")[1])
    assert len(read_history(tmp_path / "h.jsonl.gz")) >= answer["measurement"]["operations"]


def test_run_keeps_a_results_directory_that_can_be_reported_and_reproduced(monkeypatch, capsys, tmp_path):
    assert call(monkeypatch, capsys, *RUN, "--out", tmp_path / "one")[0] == 0
    assert (tmp_path / "one/report.html").exists() and (tmp_path / "one/history.jsonl.gz").exists()
    status, out, _ = call(monkeypatch, capsys, "reproduce", tmp_path / "one", "--json")
    assert status == 0 and json.loads(out)["equal"] is True
    assert call(monkeypatch, capsys, "report", tmp_path / "one")[0] == 0


SWEEP = """
seeds = 2
at = "1s"
after = "2s"
[base]
quiet = "500ms"
[base.workload]
rate = 5
[[variants]]
label = "register"
policy = "abd"
[[variants]]
label = "server"
policy = "rdbms"
[[grids]]
nodes = [3]
durations = ["0s", "2s"]
"""


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A folder with tiny.toml and its directory, `out`; what the command printed, and said."""
    folder = tmp_path_factory.mktemp("swept")
    (folder / "tiny.toml").write_text(SWEEP)
    arguments = ["capray", "sweep", str(folder / "tiny.toml"), "--engine", "local", "--out", str(folder / "out"), "--json"]
    with pytest.MonkeyPatch.context() as patched, redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        patched.setattr(sys, "argv", arguments)
        with pytest.raises(SystemExit) as stop:
            cli.main()
    assert not stop.value.code, err.getvalue()
    return folder, out.getvalue(), err.getvalue()


@pytest.fixture
def tiny(swept, tmp_path):
    """A copy of that folder."""
    return Path(shutil.copytree(swept[0], tmp_path / "copy"))


def test_sweep_prints_a_line_a_point_and_then_the_digest_and_goes_on_by_itself(monkeypatch, capsys, swept, tiny):
    *points, last = map(json.loads, swept[1].splitlines())
    assert len(points) == 4 and last["trials"] == 8 and "8/8" in swept[2]
    assert points[0]["availability"]["trials"] == 2 and set(last) == {"digest", "trials", "directory"}
    measures = {name: value for name, value in points[0].items() if name not in ("label", "policy", "shape", "nodes", "duration")}
    assert all(set(value) == {"mean", "low", "high", "trials"} for value in measures.values())
    assert measures["convergence_us"] == {"mean": None, "low": None, "high": None, "trials": 0}  # no cut, no heal: null, never 0
    whole = (tiny / "out/trials.jsonl").read_bytes()
    (tiny / "out/trials.jsonl").write_bytes(whole[: len(whole) // 2])
    again = call(monkeypatch, capsys, "sweep", tiny / "tiny.toml", "--engine", "local", "--out", tiny / "out", "--json")[1]
    assert json.loads(again.splitlines()[-1])["digest"] == last["digest"]


def test_reproduce_and_compare_say_no_with_status_1(monkeypatch, capsys, tiny, tmp_path):
    shutil.copytree(tiny / "out", tmp_path / "a")
    shutil.copytree(tiny / "out", tmp_path / "b")
    assert call(monkeypatch, capsys, "reproduce", tmp_path / "a", "--engine", "local")[0] == 0
    assert call(monkeypatch, capsys, "compare", tmp_path / "a", tmp_path / "b")[0] == 0
    lines = (tmp_path / "b/trials.jsonl").read_text().splitlines()
    changed = []
    for line in lines:
        row = json.loads(line)
        row["availability"] = round(row["availability"] * 0.5, 6)
        changed.append(json.dumps(row))
    (tmp_path / "b/trials.jsonl").write_text("\n".join(changed) + "\n")
    status, out, _ = call(monkeypatch, capsys, "reproduce", tmp_path / "b", "--engine", "local")
    assert status == 1 and "availability" in out
    status, out, _ = call(monkeypatch, capsys, "compare", tmp_path / "a", tmp_path / "b", "--measure", "availability", "--json")
    assert status == 1 and any(json.loads(line)["told_apart"] for line in out.splitlines())
    assert call(monkeypatch, capsys, "compare", tmp_path / "a", tmp_path / "b", "--measure", "availability", "--threshold", "1")[0] == 0


def test_policies_lists_claims_and_settings_with_their_meaning(monkeypatch, capsys):
    status, out, _ = call(monkeypatch, capsys, "policies", "--json")
    found = {row["policy"]: row for row in map(json.loads, out.splitlines())}
    assert status == 0 and {"rdbms", "zookeeper", "write-all", "cassandra"} <= set(found)
    for row in found.values():
        assert row["claims"] and row["source"]
        assert all(setting["meaning"] for setting in row["settings"]), row["policy"]
    assert "read_consistency" in {setting["setting"] for setting in found["cassandra"]["settings"]}


@pytest.mark.parametrize("arguments, named", [
    (["run", "--policy", "oracle"], "policy"),
    (["run", "--policy", "no.such:Thing"], "policy"),
    (["run", "--policy", "abd", "--nodes", "0"], "nodes"),
    (["run", "--policy", "abd", "--nodes", "-3"], "nodes"),
    (["run", "--policy", "abd", "--partition", "diagonal"], "partition"),
    (["run", "--policy", "abd", "--nodes", "2", "--partition", "0|1|2"], "partition"),
    (["run", "--policy", "abd", "--nodes", "3", "--partition", "0,0|1"], "partition"),
    (["run", "--policy", "abd", "--partition", "halves", "--for", "10 parsecs"], "for"),
    (["run", "--policy", "abd", "--partition", "halves", "--for", "-5s"], "for"),
    (["run", "--policy", "abd", "--partition", "halves", "--for", "0s"], "for"),
    (["run", "--policy", "abd", "--partition", "halves", "--at", "1x"], "at"),
    (["run", "--policy", "abd", "--for", "2s"], "for"),
    (["run", "--policy", "abd", "--at", "2s"], "at"),
    (["run", "--policy", "abd", "--trace", "1s,2s"], "trace"),
    (["export", ".", "--history", "h.jsonl", "--trace", "1s,2s"], "trace"),
    (["run", "--policy", "abd", "--link", "carrier-pigeon"], "link"),
    (["run", "--policy", "abd", "--disk", "clay"], "disk"),
    (["run", "--policy", "abd", "--rate", "-1"], "rate"),
    (["run", "--policy", "abd", "--engine", "steam"], "engine"),
    (["run", "--policy", "cassandra", "--set", "replication_factor=7", "--nodes", "5"], "replication_factor"),
    (["run", "--policy", "cassandra", "--set", "colour=red"], "colour"),
    (["run", "--policy", "cassandra", "--set", "read_consistency=SOMETIMES"], "read_consistency"),
    (["run", "--policy", "cassandra", "--set", "nonsense"], "--set"),
    (["run", "missing.toml"], "missing.toml"),
    (["run", "--nodes", "many"], "nodes: 'many' is not accepted; it takes a whole number"),
    (["run", "--rate=fast"], "rate: 'fast' is not accepted; it takes a number"),
    (["run", "--policy", "test_node:Probe", "--set", "x=1"], "it takes nothing: probe has no settings"),
    (["run", "--policy", "abd", "--address", "auto"], "address"),
    (["run", "--seed", str(1 << 63)], "seed"),
    (["sweep", "missing.toml"], "missing.toml"),
    (["sweep", "--scale", "huge"], "scale"),
    (["sweep", "--seeds", "0"], "seeds"),
    (["report", "nowhere"], "nowhere"),
    (["reproduce", "nowhere"], "nowhere"),
    (["compare", "nowhere", "nowhere"], "nowhere"),
    (["policies", "oracle"], "oracle"),
    (["bench", "--only", "nothing"], "nothing"),
    (["run", "--seed", "-1"], "seed"),
    (["run", "--policy", ":"], "':'"),
    (["run", "--policy", "abd", "--history", "no/such/place.jsonl"], "history"),
    (["run", "--policy", "abd", "--shiviz", "no/such/place.log"], "place.log"),
    (["run", "--policy", "abd", "--shiviz", "t.log", "--trace", "2s,1s"], "trace"),
    (["import", "nowhere", "--out", "x"], "nowhere"),
    (["export", "nowhere", "--history", "h.jsonl"], "nowhere"),
    (["frobnicate"], "'frobnicate'; it takes one of run, sweep, "),
])
def test_a_wrong_request_is_one_line_and_status_2(monkeypatch, capsys, tmp_path, arguments, named):
    monkeypatch.chdir(tmp_path)
    status, out, err = call(monkeypatch, capsys, *arguments)
    assert status == 2 and out == ""
    assert len(err.strip().splitlines()) == 1 and named in err and "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_a_cut_that_ends_after_the_trial_is_refused(monkeypatch, capsys, tmp_path):
    (tmp_path / "s.toml").write_text('policy = "abd"\nduration = "10s"\n[[faults]]\nshape = "halves"\nat = "5s"\nfor = "10s"\n')
    status, _, err = call(monkeypatch, capsys, "run", tmp_path / "s.toml")
    assert status == 2 and "after 10s" in err and len(err.strip().splitlines()) == 1


@pytest.mark.parametrize("text", ["policy = ", 'polisy = "abd"', "nodes = 2.5", "\0", 'policy = "abd"\n[workload]\nkeys = 0', 'link = {loss = 2.0}'])
def test_a_scenario_that_is_not_one_is_refused_in_one_line(monkeypatch, capsys, tmp_path, text):
    (tmp_path / "s.toml").write_text(text)
    status, _, err = call(monkeypatch, capsys, "run", tmp_path / "s.toml")
    assert status == 2 and len(err.strip().splitlines()) == 1


def test_a_results_directory_of_another_sweep_is_refused(monkeypatch, capsys, tiny):
    status, _, err = call(monkeypatch, capsys, "sweep", tiny / "tiny.toml", "--seeds", "3", "--engine", "local", "--out", tiny / "out")
    assert status == 2 and "seeds" in err


def test_what_cannot_be_written_is_refused_before_the_trial_is_run_and_nothing_is_written(monkeypatch, capsys, tiny):
    monkeypatch.setattr("capray.onetrial.run", lambda *_: pytest.fail("the trial is run"))
    before = sorted(tiny.rglob("*"))
    for option, value, accepted in (("out", tiny / "out", "another directory"), ("out", tiny / "tiny.toml", "a directory, and this is a file"),
                                    ("history", tiny, "a file, and this is a directory"), ("shiviz", tiny / "no/t.log", "a directory that exists")):
        status, out, err = call(monkeypatch, capsys, "run", "--policy", "abd", "--history", tiny / "h.jsonl", f"--{option}", value)
        assert status == 2 and not out and len(err.splitlines()) == 1 and err.startswith(f"capray: {option}: {str(value)!r}") and accepted in err, err
    assert sorted(tiny.rglob("*")) == before


def test_help_starts_without_the_heavy_libraries():
    import subprocess

    code = "import sys; sys.argv = ['capray', '--help']\nfrom capray import cli\ntry: cli.main()\nexcept SystemExit: pass\n" \
        "print([m for m in ('ray', 'plotly', 'scipy', 'polars', 'numpy') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip().splitlines()[-1] == "[]"


@pytest.mark.parametrize("spec", ["variants = 3", 'grids = ["a"]\nvariants = ["b"]', "seeds = 1", "base = 4\n" + SWEEP.lstrip(),
                                  SWEEP.replace("nodes = [3]", "nodes = 3"), SWEEP.replace("nodes = [3]", "nodes = []"), SWEEP.replace("nodes", "sizes"),
                                  SWEEP.replace('"2s"', '"2 parsecs"')])
def test_a_sweep_that_is_not_one_is_refused_in_one_line_and_writes_nothing(monkeypatch, capsys, tmp_path, spec):
    (tmp_path / "s.toml").write_text(spec)
    status, _, err = call(monkeypatch, capsys, "sweep", tmp_path / "s.toml", "--engine", "local", "--out", tmp_path / "out")
    assert status == 2 and len(err.strip().splitlines()) == 1 and not (tmp_path / "out").exists()


@pytest.mark.parametrize("manifest", ["", "[]", "{}", '{"format": 1, "kind": "sweep", "spec": 3}', '{"format": 99, "kind": "sweep", "spec": {}}',
                                      '{"format": 1, "kind": "sweep", "spec": {}, "engine": "local", "digest": "x"}',
                                      '{"format": 1, "kind": "run", "spec": {}, "engine": "local", "digest": "x"}'])
@pytest.mark.parametrize("row", ['{"key": "a"}', "nonsense"])
def test_a_directory_that_is_not_one_of_results_is_refused_in_one_line(monkeypatch, capsys, tmp_path, manifest, row):
    (tmp_path / "manifest.json").write_text(manifest)
    (tmp_path / "trials.jsonl").write_text(row + "\n")
    for command in (["report", tmp_path], ["reproduce", tmp_path], ["compare", tmp_path, tmp_path], ["export", tmp_path, "--history", tmp_path / "h.jsonl"]):
        status, out, err = call(monkeypatch, capsys, *command)
        assert status == 2 and not out and err.strip().splitlines()[1:] == [], (command, err)


def test_what_ray_prints_from_its_threads_is_no_answer_and_its_idle_warnings_are_not_shown(capsys):
    import contextlib
    import re
    import threading

    from capray.engines import NOISE

    with contextlib.redirect_stdout(cli._Answers()):
        print("an answer")
        thread = threading.Thread(target=print, args=("(raylet) a machine died",))
        thread.start()
        thread.join()
    assert capsys.readouterr() == ("an answer\n", "(raylet) a machine died\n")
    assert re.search(NOISE, "WARNING: 12 PYTHON worker processes have been started on node: 41 with address: 192.0.2.2, which is 6x the maximum expected")
    assert not re.search(NOISE, "Raylet is terminated. Termination is unexpected.") and not re.search(NOISE, "A worker died or was killed")


@pytest.mark.parametrize(("given", "named"), [("--scale tiny", "--scale"), ("--seeds many", "'many'"), ("--nonsense", "--nonsense"), ("--engine", "--engine")])
def test_what_a_script_does_not_take_is_one_line_that_names_it(monkeypatch, capsys, given, named):
    monkeypatch.setattr(sys, "argv", ["a_script.py", *given.split()])
    with pytest.raises(SystemExit) as ended:
        experiment.main(lambda: int(bool(experiment.parser("What?").parse_args())))
    printed = capsys.readouterr()
    assert ended.value.code == 2 and printed.out == "" and printed.err.count("\n") == 1 and printed.err.startswith("a_script.py: ") and named in printed.err
