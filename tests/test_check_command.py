"""`capray check`: what it prints, what it refuses, its exit status; the evidence it shows; the shared histories."""

from __future__ import annotations

import io
import json
import statistics
from pathlib import Path
from typing import Any

import pytest
from test_check_linearizable import cas, hostile, op, read, write

from capray.checkcmd import check, check_file, infer_initial, infer_model
from capray.checkers.bench import bench
from capray.checkers.evidence import explain, text, timeline
from capray.checkers.generate import random_history
from capray.checkers.linearizable import linearizable
from capray.checkers.models import MODELS, Call, Model
from capray.checkers.search import Search
from capray.errors import InputError
from capray.history import write_history
from capray.record import Operation

SHARED = Path(__file__).parents[2] / "shared" / "histories"


def save(path: Path, ops: list[Operation]) -> str:
    for n, o in enumerate(ops):
        o.process = n
    write_history(path, sorted(ops, key=lambda o: o.invoke))
    return str(path)


def run(*files: str, **options: Any) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    return check(files, out=out, err=err, **options), out.getvalue(), err.getvalue()


def test_one_object_a_history_in_order_and_one_where_any_answer_is_no(tmp_path: Path) -> None:
    good = save(tmp_path / "good.jsonl", [write(1, 0, 1), read(1, 2, 3)])
    bad = save(tmp_path / "bad.edn.gz", [write(1, 0, 1, key="a"), read(None, 2, 3, key="a"), write(2, 0, 1, key="b")])
    status, out, err = run(good, bad, good, json=True)
    rows = [json.loads(line) for line in out.splitlines()]
    assert status == 1 and [row["verdict"] for row in rows] == ["valid", "invalid", "valid"] and "2 valid, 1 invalid" in err
    assert rows[1]["file"] == bad and (rows[1]["ops"], rows[1]["keys"]) == (3, 2) and rows[1]["check_ms"] >= 0 and rows[1]["states"] == 0
    assert rows[1]["evidence"]["key"] == "a" and rows[1]["evidence"]["offending"] and "evidence" not in rows[0]
    assert run(good, json=True)[0] == 0


def test_model_and_initial_value_are_given_or_listed_or_inferred_and_said(tmp_path: Path) -> None:
    file = save(tmp_path / "h.jsonl", [read(5, 0, 1), cas(5, 6, 2, 3), read(6, 4, 5)])
    status, out, _ = run(file)
    assert status == 0 and "model 'cas-register' inferred, initial 5 inferred" in out
    assert run(file, initial="4")[0] == 1
    (tmp_path / "index.json").write_text('{"h": {"model": "cas-register", "initial": 4}}')
    status, out, _ = run(file, json=True)
    row = json.loads(out)
    assert status == 1 and row["initial"] == 4 and row["sources"] == {"model": "index.json", "initial": "index.json"}
    assert run(file, model="cas-register", initial="5")[0] == 0


@pytest.mark.parametrize("model", MODELS)
def test_the_model_of_every_kind_of_history_is_inferred(model: str) -> None:
    ops = [o for seed in range(30) for o in random_history(MODELS[model], seed)]
    assert infer_model(ops) == model.removesuffix("-append") or infer_model(ops) == model


def test_an_initial_value_is_not_inferred_from_a_lie() -> None:
    assert infer_initial([write(1, 0, 1), read(0, 2, 3)], MODELS["register"]) == 0
    assert infer_initial([read(None, 0, 1), write(1, 0, 1), read(9, 2, 3)], MODELS["register"]) is None
    assert infer_initial([write(1, 0, 5), read(1, 2, 3)], MODELS["register"]) is None


def test_what_is_wrong_is_one_line_and_status_two(tmp_path: Path) -> None:
    good = save(tmp_path / "good.jsonl", [write(1, 0, 1)])
    file = save(tmp_path / "h.jsonl", [write(1, 0, 1), op("pop", None, 2, 3)])
    for options, says in (
        ({"model": "stack"}, "model: 'stack' is not accepted; it takes one of register,"),
        ({"model": "no.such:model"}, "package.module:name"),
        ({"consistency": "eventual"}, "consistency: 'eventual'"),
        ({"budget": 0}, "budget: 0"),
        ({"model": "register"}, f"{file}:2: f: 'pop' is not accepted; model register takes read, write"),
        ({}, "no model has the operations pop, write"),
    ):
        status, out, err = run(file, **options)
        assert status == 2 and says in err.splitlines()[0], options
    status, out, err = run(str(tmp_path / "none.jsonl"), good, json=True)
    assert status == 2 and len(out.splitlines()) == 1 and "none.jsonl: cannot be read" in err and "1 refused" in err


@pytest.mark.parametrize(("name", "text"), [("lost.jsonl", ""), ("lost.jsonl", "\n"), ("lost.edn", "[]")])
def test_a_history_without_operations_is_nothing_to_check(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert run(str(tmp_path / name)) == (2, "", f"{tmp_path / name}: there is nothing to check: it holds no operations\n")


def test_a_budget_that_is_spent_is_unknown_and_not_a_yes(tmp_path: Path) -> None:
    file = save(tmp_path / "h.jsonl", hostile(40))
    status, out, _ = run(file, budget=20)
    assert status == 1 and "unknown" in out and "undecided after" in out


def test_the_ladder_prints_every_level(tmp_path: Path) -> None:
    file = save(tmp_path / "h.jsonl", [write(1, 0, 1), write(2, 2, 3), read(1, 4, 5)])
    status, out, _ = run(file, consistency="ladder", json=True)
    row = json.loads(out)
    assert status == 1 and row["strongest"] == "sequential" and row["levels"]["linearizable"] == "invalid" and row["levels"]["monotonic-reads"] == "valid"
    assert run(file, consistency="sequential")[0] == 0
    assert run(file, consistency="causal")[0] == 0
    assert run(file, consistency="read-your-writes")[0] == 0


def test_a_witness_in_the_file_is_used(tmp_path: Path) -> None:
    ops = [write(1, 0, 1), write(2, 2, 3), read(1, 4, 5)]
    ops[0].ts, ops[1].ts = 1, 2
    checked, _ = check_file(save(tmp_path / "h.jsonl", ops), consistency="sequential", witness=True)
    assert checked.algorithm == "witness verified"


# ---- a user's own model -------------------------------------------------------------------------------------------------------------------


def _toggle_step(state: Any, call: Call) -> Any:
    from capray.checkers.models import ILLEGAL

    if call.f == "flip":
        return not state
    return state if not call.known or call.result == state else ILLEGAL


toggle = Model("toggle", ("flip", "look"), False, _toggle_step)


def test_a_model_of_one_s_own_is_named_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    good = [op("flip", None, 0, 1), op("look", None, 2, 3, True), op("flip", None, 4, 5), op("look", None, 6, 7, False)]
    assert run(save(tmp_path / "good.jsonl", good), model="test_check_command:toggle", initial="false")[0] == 0
    bad = [op("flip", None, 0, 1), op("look", None, 2, 3, False)]
    assert run(save(tmp_path / "bad.jsonl", bad), model="test_check_command:toggle", initial="false")[0] == 1


# ---- evidence -----------------------------------------------------------------------------------------------------------------------------


def test_the_window_is_where_it_went_wrong_and_not_before() -> None:
    quiet = [o for n in range(50) for o in (write(n, 10 * n, 10 * n + 1), read(n, 10 * n + 2, 10 * n + 3))]
    ops = [*quiet, write(70, 1000, 1010), write(71, 1020, 1030), read(70, 1040, 1050), write(72, 2000, 2001)]
    verdict = linearizable(ops, MODELS["register"])
    evidence = explain(ops, MODELS["register"], None, verdict)
    assert evidence is not None and (evidence.start_us, evidence.end_us) == (1000, 1050)
    assert set(evidence.offending) == {100, 101, 102} and len(evidence.prefix) == 102
    shown = text(ops, evidence)
    assert "write 71" in shown and "longest linearizable prefix: the 102 operations completed before 1050" in shown and shown.count(">") >= 3


@pytest.mark.parametrize("model", MODELS)
def test_a_window_proves_itself(model: str) -> None:
    """The history up to the window's end fails, up to just before it does not; and the window alone fails from every state met."""
    m, seen = MODELS[model], 0
    for seed in range(200):
        ops = random_history(m, seed, most_ops=9, keys=1)
        verdict = linearizable(ops, m, m.initial)
        if verdict.status != "invalid":
            continue
        evidence = explain(ops, m, m.initial, verdict)
        assert evidence is not None and evidence.end_us is not None and evidence.offending and evidence.problem and text(ops, evidence)
        known = [o for o in ops if o.type != "fail" and o.invoke < evidence.end_us]
        before = [_pending(o) if o.complete is None or o.complete >= evidence.end_us else o for o in known]
        assert Search(before, m, m.initial).run(10**6) == "valid", seed
        seen += 1
    assert seen > 5


def _pending(o: Operation) -> Operation:
    return Operation(process=o.process, f=o.f, key=o.key, value=o.value, result=None, invoke=o.invoke, complete=None, type="info")


def test_the_timeline_shows_the_window() -> None:
    pytest.importorskip("plotly")
    ops = [write(1, 0, 1, process=0), write(2, 2, None, process=1), write(3, 4, 5, process=0), read(1, 6, 7, process=2)]
    evidence = explain(ops, MODELS["register"], None, linearizable(ops, MODELS["register"]))
    assert evidence is not None
    figure = timeline(ops, evidence)
    names = {trace.name for trace in figure.data}
    assert "contradicts the rest" in names and figure.layout.shapes


def test_a_figure_is_written_for_the_first_invalid_history(tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    bad = save(tmp_path / "bad.jsonl", [write(1, 0, 1), read(None, 2, 3)])
    run(bad, figure=str(tmp_path / "why.html"))
    assert "plotly" in (tmp_path / "why.html").read_text()[:100_000]


# ---- the shared histories, and speed ------------------------------------------------------------------------------------------------------


def test_all_shared_histories_are_right_in_one_command_and_as_fast_as_porcupine() -> None:
    if not SHARED.exists():
        pytest.skip("the shared histories are not there")
    index = json.loads((SHARED / "index.json").read_text())
    files = [str(SHARED / f"{name}.jsonl") for name in index]
    status, out, _ = run(*files, json=True)
    rows = dict(zip(index, map(json.loads, out.splitlines()), strict=True))
    assert status == 1
    for name, entry in index.items():
        row = rows[name]
        assert row["verdict"] == ("valid" if entry["linearizable"] else "invalid"), name
        assert (row["ops"], row["keys"], row["model"]) == (entry["ops"], entry["keys"], entry["model"]), name
    assert sum(row["check_ms"] for row in rows.values()) < 990
    assert statistics.median(rows[name]["check_ms"] / entry["porcupine_1cpu_ms"] for name, entry in index.items()) < 6, "1.4 when the machine is quiet"


def test_the_bench_shows_linear_growth() -> None:
    rows = bench(most_ops=20_000)
    assert all(set(row) == {"name", "value", "unit", "baseline", "baseline_value", "ratio"} for row in rows)
    assert all(row["ratio"] < 4 for row in rows), rows


def test_an_unreadable_file_raises_from_python(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        check_file(tmp_path / "none.jsonl")
