"""Checkers broken on purpose, by one line of their source each; the random histories and the definition expose every one.

Each mutant is a module made from the changed source; nothing that other tests import is touched.
"""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest
from test_check_consistency import distinct_history
from test_check_linearizable import START, by_definition, which_info_was_spent_matters

import capray.checkers
from capray.checkers.generate import random_history
from capray.checkers.models import MODELS
from capray.record import Operation

SOURCE = Path(capray.checkers.__file__).parent


def mutant(name: str, changes: list[tuple[str, str]]) -> Any:
    """The module with each change made; a change that no longer applies fails the test, so that it is kept up to date."""
    text = (SOURCE / f"{name}.py").read_text()
    for old, new in changes:
        assert text.count(old) >= 1, f"{name}.py no longer has {old!r}"
        text = text.replace(old, new)
    module = types.ModuleType(f"capray.checkers.mutant_{name}")
    sys.modules[module.__name__] = module
    exec(compile(text, f"{name}.py (mutant)", "exec"), module.__dict__)  # noqa: S102 (the very point)
    return module


def searched(module: Any, ops: list[Operation], model: str, initial: Any) -> str:
    keys: dict[Any, list[Operation]] = {}
    for o in ops:
        keys.setdefault(o.key, []).append(o)
    answers = {module.Search(group, MODELS[model], initial).run(10**6) for group in keys.values()}
    return "invalid" if "invalid" in answers else "valid"


def zoned(module: Any, ops: list[Operation], model: str, initial: Any) -> str | None:
    found = module.clusters(ops, initial)
    return None if found is None else str(module.verdict_of(ops, found).status)


def whole(module: Any, ops: list[Operation], model: str, initial: Any) -> str:
    return str(module.linearizable(ops, MODELS[model], initial).status)


def _history(model: str, seed: int) -> list[Operation]:
    """A crafted one first; then every third with many crashed operations, which is where the reductions about those matter."""
    if not seed and model == "cas-register":
        return which_info_was_spent_matters()
    if seed % 3:
        return random_history(MODELS[model], seed, most_ops=8, keys=1 + seed % 2)
    return random_history(MODELS[model], seed, most_ops=11, processes=5, pending=5, values=2 + seed % 2)


def first_wrong(ask: Any, module: Any, model: str, histories: int) -> int | None:
    """The first random history that it gets wrong; None if none of so many.  A crash counts as wrong."""
    for seed in range(histories):
        ops = distinct_history(seed, most_ops=8) if ask is zoned else _history(model, seed)
        initial = START[model] if ask is not whole or seed % 2 or model != "cas-register" else 1
        if ops is None:
            continue
        truth = "valid" if by_definition(model, ops, initial) else "invalid"
        try:
            answer = ask(module, ops, model, initial)
        except Exception:  # noqa: BLE001 (a mutant may fail in any way)
            answer = "crashed"
        if answer is not None and answer != truth:
            return seed
    return None


SAME = """    def _same(self, p, s):
        return sum(1 << k for k in range(self.size - p) if self.opens[p] >> k & 1 and self.classes.rows[s][self.call[p + k]] == s)

    def _place_pure("""

# (mutant, file, how it is asked, model, changes)
MUTANTS: list[tuple[str, str, Any, str, list[tuple[str, str]]]] = [
    ("info taken as fail (search)", "search", searched, "cas-register", [('if kind == "fail":', 'if kind != "ok":')]),
    ("info taken as fail (zones)", "zones", zoned, "register", [('if kind == "fail":', 'if kind != "ok":')]),
    ("real time ignored (search)", "search", searched, "cas-register", [("and calls[j][0] <= now:", "and calls[j][0] <= 1 << 60:")]),
    ("real time ignored (zones)", "zones", zoned, "register", [("over = np.flatnonzero(s[:-1] > f[1:])", "over = np.flatnonzero(s[:-1] > f[1:] + (1 << 40))"),
                                                             ("inside = (around >= 0) & ", "inside = (around < 0) & ")]),
    ("(a) made unsound: a write of what is there is taken at once", "search", searched, "register",
     [("clean = left & pures[p]\n", "clean = left & (pures[p] | self._same(p, s))\n"),
      ("    def _place_pure(", SAME)]),
    ("(b) made unsound: one call of any class is enough", "search", searched, "cas-register", [("tried |= 1 << c", "tried |= -1")]),
    ("(d) made unsound: fewer placed infos are not looked at", "search", searched, "cas-register",
     [("if not old & ~used:", "if True:"), ("any(not old & ~used for old in before)", "True")]),
    ("(e) made unsound: an info call must be of use to a read", "search", searched, "cas-register",
     [("if t >= 0 and (without is None or without[c] != t):\n                found", "if t >= 0 and without is None:\n                found")]),
    ("(f) made unsound: info calls lead nowhere", "search", searched, "cas-register", [("any(members & free and gives[k] == need for", "any(False for")]),
    ("(g) made unsound: resets forgotten", "search", searched, "kv", [("if is_reset[calls[i][2]]]", "if False]")]),
    ("half-open intervals (search)", "search", searched, "cas-register", [("and calls[j][0] <= now:", "and calls[j][0] < now:")]),
    ("half-open intervals (zones)", "zones", zoned, "register", [("over = np.flatnonzero(s[:-1] > f[1:])", "over = np.flatnonzero(s[:-1] >= f[1:])"),
                                                               ('side="left"', 'side="right"')]),
    ("keys mixed", "linearizable", whole, "cas-register",
     [("group = keys.get(op.key)", "group = keys.get(None)"), ("keys[op.key] = [op]", "keys[None] = [op]")]),
    ("keys mixed (zones)", "zones", zoned, "register", [("tables.get(op.key)", "tables.get(None)"), ("self.tables[key] = table", "self.tables[None] = table")]),
    ("the initial value forgotten", "linearizable", whole, "cas-register", [("Search(group, model, initial)", "Search(group, model, None)"),
                                                                          ("clusters(ops, initial)", "clusters(ops, None)"),
                                                                          ("clusters(group, initial)", "clusters(group, None)")]),
]


@pytest.mark.parametrize(("name", "file", "ask", "model", "changes"), MUTANTS, ids=[m[0] for m in MUTANTS])
def test_the_mutant_is_exposed(name: str, file: str, ask: Any, model: str, changes: list[tuple[str, str]]) -> None:
    assert first_wrong(ask, mutant(file, changes), model, 2500) is not None


@pytest.mark.parametrize(("file", "ask", "model"), [("search", searched, "cas-register"), ("search", searched, "kv"), ("zones", zoned, "register"),
                                                    ("linearizable", whole, "cas-register")])
def test_the_unchanged_source_is_not(file: str, ask: Any, model: str) -> None:
    assert first_wrong(ask, mutant(file, []), model, 300) is None


@pytest.mark.parametrize("model", ["cas-register", "kv", "queue", "register"])
def test_the_paths_for_wide_histories_are_as_right_on_narrow_ones(model: str) -> None:
    """What is there for hundreds of calls in flight, made to serve always: bit masks by class, few sets compared, transitions asked one by one."""
    changes = [
        ("if window < self.wide_from:", "if False:"), ("return window.bit_count() > 2 * len(self.by_class)", "return True"),
        ("_MOST_COMPARED = 48", "_MOST_COMPARED = 1"), ("_FEW = 64", "_FEW = 0"), ("_MOST_PAIRS = 4_000_000", "_MOST_PAIRS = 3"),
    ]
    assert first_wrong(searched, mutant("search", changes), model, 600) is None
