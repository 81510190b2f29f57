"""The ladder (experiments/ladder.py) at reduced size: what the literature says of each policy comes out, and each level is judged as defined."""

import importlib.util
from argparse import Namespace
from itertools import permutations, product
from pathlib import Path

import msgspec
import pytest

from capray.checkers.pram import pram
from capray.errors import InputError
from capray.record import Operation, Record, Version
from capray.studies import ladder, ladder_page
from capray.studies.ladder_claims import FAULTS, RUNGS
from capray.studies.ladder_page import code, draw
from capray.studies.ladder_table import cells
from capray.studies.ladder_why import WHY
from capray.sweep import run_sweep

PATH = Path(__file__).parents[1] / "experiments" / "ladder.py"
SPEC = importlib.util.spec_from_file_location("ladder", PATH)
assert SPEC is not None and SPEC.loader is not None
script = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(script)


def sweep(policies, faults, seeds):
    return script.ladder(Namespace(scale="ci", seeds=seeds, policy=policies, fault=faults))


# (line, column) -> the level that the literature names, whether acknowledged writes are lost or overwritten by the past
KNOWN = {
    ("zookeeper", "none"): ("sequential", False),  # local reads lag
    ("zookeeper sync", "pause + cut"): ("sequential", False),  # a leader that slept through its deposition answers sync
    ("etcd", "pause + cut"): ("linearizable", False),
    ("etcd lease reads", "pause + cut"): ("sequential", False),
    ("cassandra QUORUM", "clock skew"): (None, True),
    ("redis", "pause + cut"): (None, True),
    ("crdt, grow-only counter", "pause + cut"): ("causal, eventual", False),
    ("crdt, PN counter", "none"): ("at least causal, eventual", False),  # totals of both signs do not refute one order
    ("crdt, observed-remove set", "pause + cut"): ("causal, eventual", False),
}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    directory = tmp_path_factory.mktemp("ladder") / "out"
    names, faults = list(dict.fromkeys(name for name, _ in KNOWN)), ["none", "pause + cut", "clock skew"]
    whole = sweep(names, faults, 1)
    kept = tuple(one for one in whole.variants if tuple(one.label.split(" | ")) in KNOWN)
    _, rows = run_sweep(msgspec.structs.replace(whole, variants=kept), directory, "local")
    window = ladder_page.smallest_window
    with pytest.MonkeyPatch.context() as patched:  # a trial is simulated again for its window: one of them, not each
        patched.setattr(ladder_page, "smallest_window", lambda manifest, row: window(manifest, row) if row["label"].startswith("etcd lease") else "")
        draw(directory)
    return {(cell.rung.name, cell.fault.name): cell for cell in cells(rows)}, (directory / "report.html").read_text()


@pytest.mark.parametrize("place", KNOWN, ids=" under ".join)
def test_a_policy_reaches_the_level_that_the_literature_names(table, place):
    level, loses = KNOWN[place]
    cell = table[0][place]
    assert cell.within is True
    assert level is None or cell.level == level
    assert bool(cell.loses or cell.reorders) == loses


def test_every_broken_level_comes_with_a_trial_and_a_reason(table):
    told = table[0]["etcd lease reads", "pause + cut"].as_json()
    assert told["published"] == "sequential" and told["within"] is True
    assert set(told["broken"]) == {"linearizable", "regular"} and "was completed before" in told["broken"]["linearizable"]["why"]


def test_the_page_has_the_window_and_the_command_that_replays_it(table):
    page = table[1]
    assert "longest linearizable prefix" in page and "capray run /dev/stdin --seed 0" in page and "rule of three" in page


def test_an_unknown_line_or_column_is_refused():
    with pytest.raises(InputError, match="policy: 'mysql' is not accepted; it takes one of|policy: 'mysql'"):
        sweep(["mysql"], None, 1)
    with pytest.raises(InputError, match="fault: 'flood'"):
        sweep(None, ["flood"], 1)


def test_every_pair_has_a_claim_at_a_known_level_with_a_source():
    for rung, fault in product(RUNGS, FAULTS):
        claim = rung.claim(fault)
        assert claim.level in (*ladder.LEVELS, ladder.NONE) and claim.source
        assert set(rung.claims) <= {"", *(f.name for f in FAULTS), *(f.group for f in FAULTS)}


def test_every_line_says_why_it_looks_as_it_does():
    assert list(WHY) == [rung.name for rung in RUNGS]


# ---- many trials together ---------------------------------------------------------------------------------------------------------------
def row(seed=0, lost=0, label="etcd | none", **broken):
    held = {f"holds_{name}": broken.get(name.replace("-", "_"), "valid") for name in ladder.LEVELS}
    why = {f"why_{name}": "because" if held[f"holds_{name}"] == "invalid" else None for name in ladder.LEVELS}
    level = ladder.strongest({name: held[f"holds_{name}"] for name in ladder.LEVELS})
    return {
        "label": label,
        "seed": seed,
        "lost_writes": lost,
        "lost_writes_provable": 0,
        "reordered_writes": 0,
        "level": level,
        "rank": ladder.rank(level),
        **held,
        **why,
    }


def test_one_trial_that_breaks_a_level_breaks_it_for_the_cell():
    [cell] = cells([row(0), row(1, linearizable="invalid", regular="invalid"), row(2)])
    assert (cell.level, cell.within, cell.verdict) == ("sequential", False, "BROKEN")
    assert cell.as_json()["low"] == "sequential" and cell.as_json()["high"] == "linearizable"
    told = cell.as_json()["broken"]["linearizable"]
    assert told["trials"] == 1 and 0.05 < told["share"][0] < 1 / 3 < told["share"][1] < 0.8  # Wilson, 1 of 3
    assert cell.as_json()["unbroken_below"] == pytest.approx(0.632, abs=1e-3) and "1 of 3" in code(cell)


def test_what_one_trial_left_open_is_never_called_valid():
    [cell] = cells([row(0), row(1, linearizable="unknown")])
    assert (cell.level, cell.within, code(cell)) == ("at least sequential, regular", None, "≥SEQ<br>REG")
    assert "budget" in cell.verdict


def test_a_lost_write_breaks_the_promise_though_every_level_holds():
    [cell] = cells([row(0, lost=2)])
    assert (cell.level, cell.within) == ("linearizable", False) and cell.verdict.startswith("acknowledged writes LOST")


# ---- the levels of one history -------------------------------------------------------------------------------------------------------------
def op(process, f, value, invoke, complete, key="x"):
    ok = f == "read"
    return Operation(
        process=process, node=process, f=f, key=key, value=None if ok else value, result=value if ok else None, invoke=invoke, complete=complete, type="ok"
    )


def judged(history, versions=()):
    record = Record(policy="p", nodes=3, seed=0, scenario="s", history=history, faults=[], versions=list(versions), placement={}, counters={}, end=100)
    return {name: verdict.status for name, verdict in ladder.levels(record).items()}


def test_siblings_are_no_register_but_may_be_causal():
    found = judged([op(0, "write", 1, 0, 1), op(1, "write", 2, 0, 1), op(2, "read", [1, 2], 5, 6)])
    assert [found[name] for name in ("linearizable", "sequential", "regular")] == ["invalid"] * 3
    assert found["causal-consistency"] == found["monotonic-reads"] == "valid"
    seen = judged([op(0, "write", 1, 0, 1), op(1, "read", 1, 2, 3), op(1, "write", 2, 4, 5), op(2, "read", [1, 2], 6, 7)])
    assert seen["causal-consistency"] == "invalid"  # 2 had seen 1


def test_acknowledged_and_overwritten_by_the_past():
    def count(*versions):
        history = [op(0, "write", 1, 0, 1), op(1, "write", 2, 2, 3)]
        record = Record(policy="p", nodes=2, seed=0, scenario="s", history=history, faults=[], placement={}, counters={}, end=9, versions=list(versions))
        return ladder.reordered(record)

    assert count(Version(1, 0, "x", 1, (70,)), Version(3, 0, "x", 2, (50,), "late")) == 1
    assert count(Version(1, 0, "x", 1, (40,)), Version(3, 0, "x", 2, (50,), "apply", (1,))) == 0
    assert count(Version(1, 0, "x", 1, (70,)), Version(3, 0, "x", 2, (50,))) is None  # siblings


def final(process, value):
    return msgspec.structs.replace(op(process, "read", value, 50, 51), final=True)


@pytest.mark.parametrize(
    ("answers", "status"), [([2, 2], "valid"), ([1, 2], "invalid"), ([2], "unknown"), ([[1, 2], [1, 2]], "valid"), ([[1, 2], 2], "invalid")]
)
def test_eventual_is_that_the_last_reads_agree(answers, status):
    assert judged([op(0, "write", 1, 0, 1), op(1, "write", 2, 0, 1), *(final(i, a) for i, a in enumerate(answers))])["eventual"] == status


@pytest.mark.parametrize(
    ("answers", "status"), [([3, 3], "valid"), ([3, 7], "invalid"), ([7, 7], "valid"), ([2, 2], "invalid"), ([8, 8], "invalid"), ([[1, 2], [2, 1]], "valid"),
                            ([[1, 2, 4], [1, 2, 4]], "valid"), ([[2], [2]], "invalid"), ([[1, 2, 3], [1, 2, 3]], "invalid")]
)
def test_counters_and_sets_agree_on_all_that_was_acknowledged_and_nothing_else(answers, status):
    """1 and 2 were acknowledged, 4 may have happened."""
    history = [op(0, "write", 1, 0, 1), op(1, "write", 2, 0, 1), msgspec.structs.replace(op(2, "write", 4, 0, 1), type="info", complete=None)]
    versions = [Version(1, 0, "x", 1, (1,), "merge")]
    assert judged([*history, *(final(i, a) for i, a in enumerate(answers))], versions)["eventual"] == status


# ---- PRAM, against its definition ----------------------------------------------------------------------------------------------------------
def pram_by_force(history):
    """For every process some order of its operations and all writes keeps each process's own and explains its reads."""
    for process in {o.process for o in history}:
        mine = [o for o in history if o.process == process or o.f == "write"]
        if not any(_legal(order) for order in permutations(mine)):
            return False
    return True


def _legal(order):
    last, state = {}, {}
    for o in order:
        if last.get(o.process, -1) > o.invoke:
            return False
        last[o.process] = o.invoke
        if o.f == "write":
            state[o.key] = o.value
        elif state.get(o.key) != o.result:
            return False
    return True


def small_histories():
    """All histories of two writers (two writes, one) and a reader with two reads, on one key or two."""
    for keys in product("xy", repeat=3):
        writes = [op(0, "write", 1, 0, 1, keys[0]), op(0, "write", 2, 2, 3, keys[1]), op(1, "write", 3, 0, 1, keys[2])]
        values = [(w.key, w.value) for w in writes] + [("x", None)]
        for first, second, third in product(values, values, [(None, None), *values]):
            reads = [op(2, "read", first[1], 4, 5, first[0]), op(2, "read", second[1], 6, 7, second[0])]
            yield writes + reads + ([op(1, "read", third[1], 2, 3, third[0])] if third[0] else [])


def test_pram_agrees_with_its_definition_on_every_small_history():
    counts = {"valid": 0, "invalid": 0}
    for n, history in enumerate(small_histories()):
        if n % 3 and len(history) > 5:
            continue
        status = pram(history).status
        counts[status] += 1
        assert (status == "valid") == pram_by_force(history), history
    assert min(counts.values()) > 30


def test_pram_without_causal_memory():
    """Ahamad et al. 1995, figure 3's kind: a reader sees the effect without its cause."""
    history = [
        op(0, "write", 1, 0, 1, "x"),
        op(1, "read", 1, 2, 3, "x"),
        op(1, "write", 2, 4, 5, "y"),
        op(2, "read", 2, 6, 7, "y"),
        op(2, "read", None, 8, 9, "x"),
    ]
    found = judged(history)
    assert (found["causal"], found["causal-consistency"], found["PRAM"]) == ("invalid", "invalid", "valid")
