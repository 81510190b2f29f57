"""History files: what goes in comes out, in JSON Lines and Jepsen EDN, plain and gzipped; what is malformed is refused by file and line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from capray.checkers.generate import random_history, register_history
from capray.checkers.models import MODELS
from capray.errors import InputError
from capray.history import read_history, write_history
from capray.record import Operation

SHARED = Path(__file__).parents[2] / "shared"
FORMS = ("h.jsonl", "h.jsonl.gz", "h.edn", "h.edn.gz")


def row(**changes: Any) -> dict[str, Any]:
    return {"process": 0, "f": "write", "key": None, "value": 1, "result": None, "invoke": 0, "complete": 1, "type": "ok", **changes}


def lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    return path


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_history(path)
    message = str(caught.value)
    assert "\n" not in message
    return message


# ---- round trips --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("model", MODELS)
def test_every_form_gives_every_history_back(tmp_path: Path, name: str, model: str) -> None:
    for seed in range(30):
        ops = random_history(MODELS[model], seed, keys=1 + seed % 3)
        write_history(tmp_path / name, ops)
        back = read_history(tmp_path / name)
        same = sorted(back, key=lambda o: (o.invoke, o.process, str(o))) == sorted(ops, key=lambda o: (o.invoke, o.process, str(o)))
        assert same, (seed, ops, back)


@pytest.mark.parametrize("name", FORMS)
def test_every_field_and_odd_value_survives(tmp_path: Path, name: str) -> None:
    ops = [
        Operation(process=0, node=0, f="write", key="k0", value={"a": [1, "x\"\n"]}, result=None, invoke=0, complete=5, type="ok", intended=0, deadline=9,
                  ts=0),
        Operation(process=1, node=2, f="read", key="k0", value=None, result=":word", invoke=1, complete=6, type="ok", final=True, session=0),
        Operation(process=2, f="cas", key="7", value=[1, 2], result=False, invoke=2, complete=7, type="ok"),
        Operation(process=3, f="cas", key="7", value=[1, 2], result=True, invoke=3, complete=8, type="ok"),
        Operation(process=4, f="write", key="07", value=True, result="OK", invoke=4, complete=None, type="info", error="timeout", deadline=70),
        Operation(process=4, f="write", key="7", value=1.5, result=1, invoke=5, complete=None, type="info"),
        Operation(process=4, f="write", key="7", value=1, result=1, invoke=6, complete=9, type="ok"),
        Operation(process=5, f="dequeue", key="q", value=None, result=None, invoke=9, complete=9, type="fail", error="[:closed]"),
        Operation(process=5, f="write", key="q", value=-3, result=None, invoke=9, complete=9, type="ok"),
        Operation(process=6, f="append", key="q", value="é, ; {", result=[], invoke=10, complete=11, type="ok"),
    ]
    write_history(tmp_path / name, ops)
    back = read_history(tmp_path / name)
    assert back == ops
    assert [type(o.value) for o in back] == [type(o.value) for o in ops] and [type(o.result) for o in back] == [type(o.result) for o in ops]


@pytest.mark.parametrize("name", ["h.edn", "h.jsonl"])
def test_pairs_that_look_like_independent_tuples_are_told_apart(tmp_path: Path, name: str) -> None:
    for ops in (
        [Operation(process=0, f="write", key=None, value=[1, 2], result=None, invoke=0, complete=1, type="ok")],
        [Operation(process=0, f="write", key="1", value=2, result=None, invoke=0, complete=1, type="ok")],
        [Operation(process=0, f="cas", key=None, value=[1, 2], result=True, invoke=0, complete=1, type="ok")],
        [Operation(process=0, f="cas", key="1", value=[2, 3], result=True, invoke=0, complete=1, type="ok")],
        [Operation(process=0, f="write", key=k, value=2, result=None, invoke=i, complete=i, type="ok") for i, k in enumerate(["a", None])],
        [],
    ):
        write_history(tmp_path / name, ops)
        assert read_history(tmp_path / name) == ops


def test_writing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    ops = register_history(50, keys=3)
    for name in FORMS:
        write_history(tmp_path / name, ops)
        first = (tmp_path / name).read_bytes()
        write_history(tmp_path / name, ops)
        assert first == (tmp_path / name).read_bytes()


def test_json_lines_have_the_fields_in_the_documented_order(tmp_path: Path) -> None:
    write_history(tmp_path / "h.jsonl", [Operation(process=4, f="write", key=None, value=2, result=None, invoke=0, complete=1, type="ok")])
    assert (tmp_path / "h.jsonl").read_text() == '{"process":4,"f":"write","key":null,"value":2,"result":null,"invoke":0,"complete":1,"type":"ok"}\n'


def test_the_shared_histories_go_through_edn_and_back(tmp_path: Path) -> None:
    files = sorted((SHARED / "histories").glob("*.jsonl"))[::19]
    if not files:
        pytest.skip("the shared histories are not there")
    for file in files:
        ops = read_history(file)
        write_history(tmp_path / "h.edn.gz", ops)
        assert read_history(tmp_path / "h.edn.gz") == ops
        write_history(tmp_path / "h.jsonl", ops)
        assert (tmp_path / "h.jsonl").read_bytes() == file.read_bytes()


# ---- Jepsen's own form --------------------------------------------------------------------------------------------------------------------


JEPSEN = """; a comment
{:process 0, :type :invoke, :f :write, :value [:x 3], :time 1000500, :index 0}
#jepsen.history.Op{:process 1, :type :invoke, :f :read, :value [:x nil], :time 1000600}
{:process :nemesis, :type :info, :f :start, :value nil, :time 1000650}
{:process 0, :type :ok, :f :write, :value [:x 3], :time 1000700}
{:process 2, :type :invoke, :f :cas, :value [:x [3 4]], :time 1000800}
{:process 1, :type :ok, :f :read, :value [:x 3], :time 2000000}
{:process 2, :type :info, :f :cas, :value [:x [3 4]], :time 5000000, :error :timeout}
{:process 3, :type :invoke, :f :cas, :value [:x [3 4]], :time 5000000}
{:process 3, :type :fail, :f :cas, :value [:x [3 4]], :time 5001000}
{:process 4, :type :invoke, :f :read, :value [:x nil], :time 5002000}
"""


def test_jepsen_events_become_operations(tmp_path: Path) -> None:
    (tmp_path / "h.edn").write_text(JEPSEN)
    ops = read_history(tmp_path / "h.edn")
    assert [(o.process, o.f, o.key, o.value, o.result, o.type) for o in ops] == [
        (0, "write", ":x", 3, None, "ok"), (1, "read", ":x", None, 3, "ok"), (2, "cas", ":x", [3, 4], None, "info"),
        (3, "cas", ":x", [3, 4], None, "fail"), (4, "read", ":x", None, None, "info"),
    ]
    assert (ops[2].error, ops[2].deadline, ops[2].complete) == (":timeout", 5000, None)


def test_rounding_nanoseconds_never_makes_a_completion_tie_with_a_later_invocation(tmp_path: Path) -> None:
    (tmp_path / "h.edn").write_text(JEPSEN)
    ops = read_history(tmp_path / "h.edn")
    assert ops[0].complete is not None and ops[0].complete < ops[2].invoke, "700 ns before 800 ns of the same microsecond"
    assert ops[0].invoke == ops[1].invoke == 1000, "invocations may tie: they are concurrent anyway"


def test_one_vector_of_maps_is_a_history_too_and_without_times_the_order_counts(tmp_path: Path) -> None:
    text = "[{:process 0 :type :invoke :f :enqueue :value 1} {:process 0 :type :ok :f :enqueue :value 1}\n " \
           "#_{:no 1} {:process 1 :type :invoke :f :dequeue :value nil}" \
           "\n{:process 1 :type :ok :f :dequeue :value 1}]"
    (tmp_path / "h.edn.gz").write_bytes(gzip.compress(text.encode()))
    ops = read_history(tmp_path / "h.edn.gz")
    assert [(o.f, o.value, o.result, o.invoke, o.complete) for o in ops] == [("enqueue", 1, None, 0, 1), ("dequeue", None, 1, 2, 3)]


# ---- refusals -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "place", "says"),
    [
        ([row(), row(invoke=5, complete=4)], 2, "4 is before its invocation at 5"),
        ([row(), "", row(invoke=5, complete=None)], 3, "null is not accepted for type 'ok'"),
        ([row(type="info")], 1, "takes null"),
        ([row(complete=9), row(invoke=5, complete=10)], 2, "begins at 5 while its former operation"),
        ([row(complete=9), row(complete=10)], 2, "a second completion of its invocation at 0"),
        ([row(complete=None, type="info"), row(complete=10)], 2, "a second completion"),
        ([row(), '{"process": 0,'], 2, "not an operation"),
        ([row(), {"process": 0}], 2, "missing required field `f`"),
        ([row(process="x")], 1, "Expected `int`, got `str`"),
        ([row(type="maybe")], 1, "Invalid enum value 'maybe'"),
        ([row(), row(invoke=20, complete=30), row(process=1), row(invoke=5, complete=21)], 2, "begins at 20 while"),
    ],
)
def test_malformed_json_lines_are_refused_by_line(tmp_path: Path, rows: list[Any], place: int, says: str) -> None:
    message = refusal(lines(tmp_path / "bad.jsonl", *rows))
    assert message.startswith(f"{tmp_path / 'bad.jsonl'}:{place}: ") and says in message


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        ("{:process 0 :type :invoke :f :read :value nil}\n{:process 0 :type :ok :f :read :value 1}\n{:process 0 :type :ok :f :read :value 1}", 3,
         "completes nothing"),
        ("{:process 0 :type :ok :f :read :value 1}", 1, "completes nothing"),
        ("{:process 0 :type :invoke :f :read :value nil}\n{:process 0 :type :invoke :f :read :value nil}", 2, "former operation (line 1)"),
        ("{:process 0 :type :invoke :f :read :value nil}\n{:process 0 :type :ok :f :write :value 1}", 2, "completes :write but"),
        ("{:process 0 :type :begin :f :read}", 1, ":begin"),
        ("{:process 0 :type :invoke :f :read\n", 1, "ends inside"),
        ("\n{:process 0 :type}", 2, "even number"),
        ("]", 1, "closes nothing"),
        ("[1 2]", 1, "not an event"),
        ("{:process 0 :type :invoke :f :read :time 1}\n{:process 0 :type :ok :f :read}", 2, ":time is missing"),
        ("{:process 0 :type :invoke :f :read :time 1.5}", 1, "whole nanoseconds"),
    ],
)
def test_malformed_edn_is_refused_by_line(tmp_path: Path, text: str, place: int, says: str) -> None:
    (tmp_path / "bad.edn").write_text(text)
    message = refusal(tmp_path / "bad.edn")
    assert message.startswith(f"{tmp_path / 'bad.edn'}:{place}: ") and says in message


def test_files_that_cannot_be_read_say_so(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "none.jsonl")
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b"x" * 1000)[:-9])
    assert "truncated or damaged" in refusal(tmp_path / "cut.jsonl.gz")
    (tmp_path / "plain.jsonl.gz").write_bytes(b"no gzip")
    assert "cannot be read" in refusal(tmp_path / "plain.jsonl.gz")
    (tmp_path / "latin.edn").write_bytes(b'"\xff"')
    assert "UTF-8" in refusal(tmp_path / "latin.edn")


def test_an_info_ends_its_process_turn(tmp_path: Path) -> None:
    path = lines(tmp_path / "h.jsonl", row(complete=None, type="info"), row(invoke=5, complete=6), row(invoke=6, complete=7))
    assert len(read_history(path)) == 3
