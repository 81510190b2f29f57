"""Results directories: appended at once, continued after a kill, refused to a second writer and to another sweep."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from capray.errors import InputError
from capray.store import FORMAT, Results, digest, first_difference


def manifest(**changes):
    return {"format": FORMAT, "kind": "sweep", "name": "x", "version": "1", "engine": "local", "command": "", "spec": {"seeds": 2, "base": {}}, "digest": "",
            "trials": 0, **changes}


def test_rows_are_there_as_soon_as_they_are_appended(tmp_path):
    results = Results(tmp_path / "a")
    with results.writing(manifest()) as rows:
        assert rows == []
        results.append({"key": "b", "x": 1})
        assert [row["key"] for row in Results(tmp_path / "a").rows()] == ["b"]


def test_a_line_that_a_kill_cut_short_is_dropped_and_the_rest_kept(tmp_path):
    results = Results(tmp_path / "a")
    with results.writing(manifest()):
        results.append({"key": "a", "x": 1})
    with results.trials_path.open("a") as file:
        file.write('{"key": "b", "x"')
    with results.writing(manifest()) as rows:
        assert [row["key"] for row in rows] == ["a"]
        results.append({"key": "b", "x": 2})
    assert [row["x"] for row in results.rows()] == [1, 2]


def test_a_line_broken_in_the_middle_is_an_error_that_names_it(tmp_path):
    results = Results(tmp_path / "a")
    with results.writing(manifest()):
        results.append({"key": "a"})
    results.trials_path.write_text('{"key": "a"}\nnonsense\n{"key": "c"}\n')
    with pytest.raises(InputError, match="line 2"):
        results.rows()


def test_the_digest_does_not_depend_on_the_order_of_finishing_nor_on_wall_times():
    rows = [{"key": "a", "x": 0.1, "wall_s": 1}, {"key": "b", "x": None, "wall_s": 2}]
    assert digest(rows) == digest([{**rows[1], "wall_s": 9}, rows[0]])
    assert digest(rows) != digest([{**rows[0], "x": 0.2}, rows[1]])


def test_another_sweep_is_refused_and_the_field_that_differs_is_named(tmp_path):
    results = Results(tmp_path / "a")
    with results.writing(manifest()):
        pass
    for changed, named in ((manifest(spec={"seeds": 3, "base": {}}), "spec.seeds there is 2, not 3"), (manifest(version="2"), "version"),
                           (manifest(spec={"seeds": 2, "base": {"link": "wan"}}), "spec.base.link is only here")):
        with pytest.raises(InputError, match=named), results.writing(changed):
            pass


def test_a_directory_with_something_else_in_it_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="empty or new directory"), Results(tmp_path).writing(manifest()):
        pass
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != ".lock") == ["notes.txt"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"kind": "sweep"}', "\0\1"])
def test_a_manifest_that_is_not_one_is_refused_in_one_line(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(InputError) as caught:
        Results(tmp_path).manifest()
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def test_another_format_is_refused(tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps(manifest(format=99)))
    with pytest.raises(InputError, match="format"):
        Results(tmp_path).manifest()


HOLD = """
import sys, time
from capray.store import Results
with Results(sys.argv[1]).writing({manifest!r}):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_writer_is_refused_at_once_and_a_killed_one_leaves_no_lock(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD.format(manifest=manifest()), str(tmp_path / "a")], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline().strip() == "held"
        began = time.monotonic()
        with pytest.raises(InputError, match="no other capray process"), Results(tmp_path / "a").writing(manifest()):
            pass
        assert time.monotonic() - began < 5
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    with Results(tmp_path / "a").writing(manifest()) as rows:
        assert rows == []


def test_first_difference_speaks_of_the_innermost_field():
    assert first_difference({"a": {"b": [1, 2]}}, {"a": {"b": [1, 3]}}, "spec") == "spec.a.b[1] there is 2, not 3"
    assert first_difference([1], [1, 2], "x") == "x has 1 items there, 2 here"
    assert first_difference({"a": 1}, {"a": 1}, "x") == ""
