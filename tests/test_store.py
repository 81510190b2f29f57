"""Results directories: appended at once, continued after a kill, refused to a second writer and to another sweep."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc

import pytest

from capray import store
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


# ---- a full disk, and how much is held ----------------------------------------------------------------------------------------------------
def fills_up(monkeypatch, after):
    """The disk takes `after` more bytes, then half a write, then nothing."""
    room, plain = [after], os.write

    def write(file, data):
        if file <= 2:
            return plain(file, data)
        if room[0] <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = plain(file, bytes(data)[:room[0]])
        room[0] -= written
        return written

    monkeypatch.setattr(os, "write", write)


def test_a_full_disk_is_one_line_and_no_half_row_and_the_same_call_goes_on_afterwards(tmp_path, monkeypatch):
    results = Results(tmp_path / "a")
    with pytest.MonkeyPatch.context() as patch:
        fills_up(patch, 100)
        with pytest.raises(InputError, match="No space left on device.*goes on once it can") as error, results.opened(manifest()):
            for number in range(9):
                results.append({"key": f"trial {number}", "x": "y" * 20})
    assert "\n" not in str(error.value)
    assert results.trials_path.read_bytes().endswith(b"\n") and [row["key"] for row in results.rows()] == ["trial 0", "trial 1"]
    with results.opened(manifest()) as index:
        assert sorted(index) == ["trial 0", "trial 1"]
        results.append({"key": "trial 2"})
    assert len(results.rows()) == 3


@pytest.mark.parametrize("where", ["manifest", "table"])
def test_a_disk_that_fills_up_at_the_end_leaves_old_files_or_none(tmp_path, monkeypatch, where):
    results = Results(tmp_path / "a")
    with results.opened(manifest()):
        results.append({"key": "a", "x": 1})
        results.finish(manifest())
    before = {path.name: path.read_bytes() for path in results.path.iterdir() if path.is_file()}

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    import polars

    if where == "manifest":
        monkeypatch.setattr(os, "fsync", full)
    else:
        monkeypatch.setattr(polars.LazyFrame, "sink_parquet", full)
    with pytest.raises(InputError, match="No space left on device"), results.opened(manifest()):
        results.finish(manifest(command="another"))
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in results.path.iterdir() if path.is_file()} == before and not (results.path / ".parts").exists()


def test_another_fault_than_a_full_disk_is_not_called_one(tmp_path):
    with pytest.raises(ConnectionRefusedError), Results(tmp_path / "a").opened(manifest()):
        raise ConnectionRefusedError(errno.ECONNREFUSED, "nobody there")


def test_rows_are_read_when_asked_for_in_the_order_of_their_keys(tmp_path):
    results = Results(tmp_path / "a")
    with results.opened(manifest()):
        for number in (2, 0, 1):
            results.append({"key": f"k{number}", "x": number})
    rows = results.ordered()
    assert (len(rows), [row["x"] for row in rows], rows[1]["x"], rows[-1]["x"], [row["x"] for row in rows[1:]]) == (3, [0, 1, 2], 1, 2, [1, 2])
    assert digest(rows) == digest(results.rows())


def test_the_table_gives_each_column_the_type_of_all_its_values(tmp_path, monkeypatch):
    import polars

    monkeypatch.setattr(store, "BATCH", 2)
    rows = [{"key": f"k{i}", "none": None, "late": None if i < 3 else i, "mixed": i if i < 3 else i + 0.5, "yes": i % 2 == 0, "word": "a" if i else None,
             "list": [1]} for i in range(5)]
    store.write_tables(rows, tmp_path)
    frame = polars.read_parquet(tmp_path / "table.parquet")
    assert frame.to_dicts() == [{name: value for name, value in row.items() if name != "list"} for row in rows]
    assert polars.read_csv(tmp_path / "table.csv").height == 5 and sorted(path.name for path in tmp_path.iterdir()) == ["table.csv", "table.parquet"]


def test_a_row_takes_little_memory_once_it_is_written(tmp_path):
    """What stays of a trial is its key and its place in the file: a sweep of 100,000 trials must not hold 100,000 rows."""
    import polars  # noqa: F401  else it is imported while memory is traced, which is slow, and counted

    row = {f"column_{i}": None for i in range(300)}
    results = Results(tmp_path / "a")
    with results.opened(manifest()) as index:
        for number in range(50):
            index[f"trial {number}"] = results.append({**row, "key": f"trial {number}"})
        tracemalloc.start()
        for number in range(50, 450):
            index[f"trial {number}"] = results.append({**row, "key": f"trial {number}"})
        assert tracemalloc.get_traced_memory()[0] / 400 < 400  # bytes a trial; the row itself takes 10,000
        results.finish(manifest())
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 10_000_000
