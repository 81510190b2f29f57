"""Sequential, causal and session consistency: against their definitions tried out in full, and against textbook histories.

CAPRAY_FULL=1 runs 20,000 random histories for each instead of a few hundred.
"""

from __future__ import annotations

import os
from itertools import permutations
from typing import Any

import pytest
from test_check_linearizable import START, outcomes

from capray.checkers.causal import causal_all
from capray.checkers.generate import random_history
from capray.checkers.ladder import ladder
from capray.checkers.models import MODELS
from capray.checkers.sequential import sequential, verify_order, version_order
from capray.checkers.sessions import session_offences, session_violations
from capray.record import Operation

HISTORIES = 20_000 if os.environ.get("CAPRAY_FULL") == "1" else 250
REGISTER = MODELS["register"]


def story(*lines: str) -> list[Operation]:
    """One line a process: `w x 1`, `r x 2`, `? x 3` (a write of unknown outcome), `r x -` (nothing read); one operation each 10 us, processes
    side by side unless a step is skipped with `.`."""
    ops = []
    for process, line in enumerate(lines):
        for step, word in enumerate(line.split(",")):
            if word.strip() == ".":
                continue
            f, key, value = word.split()
            number = None if value == "-" else int(value)
            ops.append(
                Operation(
                    process=process, f="read" if f == "r" else "write", key=key, value=None if f == "r" else number, result=number if f == "r" else None,
                    invoke=step * 10 + process, complete=None if f == "?" else step * 10 + process + 1, type="info" if f == "?" else "ok",
                )
            )
    return sorted(ops, key=lambda o: o.invoke)


# ---- sequential ---------------------------------------------------------------------------------------------------------------------------


def sequential_by_definition(model: str, ops: list[Operation], initial: Any) -> bool:
    """Does some order of all ok and some info operations, keeping each process's order, explain every answer?  All keys at once."""
    ordered = sorted((o for o in ops if o.type != "fail"), key=lambda o: (o.invoke, o.complete is None, o.complete or 0))
    return _some_order(model, ordered, {o.key: initial for o in ops})


def _some_order(model: str, left: list[Operation], states: dict[str | None, Any]) -> bool:
    if all(o.type == "info" for o in left):
        return True
    for n, o in enumerate(left):
        if any(other.process == o.process and other.type == "ok" for other in left[:n]):
            continue
        rest = left[:n] + left[n + 1:]
        if any(_some_order(model, rest, {**states, o.key: after}) for after in outcomes(model, states[o.key], o)):
            return True
    return False


@pytest.mark.parametrize("model", MODELS)
def test_sequential_agrees_with_the_definition(model: str) -> None:
    answers = {"valid": 0, "invalid": 0}
    for seed in range(HISTORIES):
        ops = random_history(MODELS[model], seed, most_ops=7, processes=3, keys=1 + seed % 2)
        truth = "valid" if sequential_by_definition(model, ops, START[model]) else "invalid"
        assert sequential(ops, MODELS[model], MODELS[model].initial).status == truth, (seed, ops)
        answers[truth] += 1
    assert answers["invalid"] > HISTORIES // 50


def distinct_history(seed: int, keys: int = 2, most_ops: int = 7, processes: int = 3) -> list[Operation] | None:
    """A small history of distinct-value registers, its reads returning anything that was written to their key, or nothing."""
    ops = random_history(REGISTER, seed, most_ops=most_ops, processes=processes, values=1000, keys=keys)
    for n, o in enumerate(o for o in ops if o.f == "read" and o.type == "ok"):
        written = [None, *(w.value for w in ops if w.f == "write" and w.key == o.key and w.type != "fail")]
        o.result = written[(seed // 3 + n * 7 + o.invoke) % len(written)]
    values = [(o.key, o.value) for o in ops if o.f == "write"]
    return ops if len(set(values)) == len(values) else None


def test_the_forced_order_and_the_guessed_one_agree_with_the_definition() -> None:
    seen: dict[tuple[str, str], int] = {}
    for seed in range(3 * HISTORIES):
        ops = distinct_history(seed)
        if ops is None:
            continue
        truth = "valid" if sequential_by_definition("register", ops, None) else "invalid"
        verdict = sequential(ops, REGISTER, None)
        assert verdict.status == truth, (seed, ops)
        seen[truth, verdict.algorithm] = seen.get((truth, verdict.algorithm), 0) + 1
    assert seen["valid", "order of writes"] and seen["invalid", "order of writes"] and seen["valid", "linearizable"]
    assert {how for _, how in seen} == {"order of writes", "linearizable"}, "so small a history is never left to the search"


def test_two_queues_each_sequential_are_not_sequential_together() -> None:
    """Sequential consistency does not compose (Herlihy and Wing 1990, figure 9, with registers)."""
    ops = story("w x 1, r y -", "w y 2, r x -")
    assert sequential(ops, REGISTER).status == "invalid"
    for key in ("x", "y"):
        assert sequential([o for o in ops if o.key == key], REGISTER).status == "valid"


def test_a_stale_read_is_sequential_and_not_linearizable() -> None:
    grades = ladder(story("w x 1, w x 2, ., .", "., ., r x 1, r x 2"), REGISTER)
    assert grades.strongest == "sequential" and grades.status_of("linearizable") == "invalid"


def test_a_budget_that_is_spent_says_so() -> None:
    ops = [Operation(process=p, f="write", key=None, value=v % 2, result=None, invoke=v, complete=v + 1, type="ok") for p in range(6) for v in range(8)]
    ops += [Operation(process=p, f="read", key=None, value=None, result=p % 2 or 7, invoke=20, complete=21, type="ok") for p in range(6)]
    verdict = sequential(ops, REGISTER, None, budget=60)
    assert verdict.status == "unknown" and "states" in verdict.note


def test_a_store_s_order_is_verified_and_not_believed() -> None:
    ops = story("w x 1, ., r x 2", "w x 2, ., r x 2", "., ., r x 1")
    good, bad = {("x", 1): (0, 1), ("x", 2): (0, 2)}, {("x", 1): (0, 2), ("x", 2): (0, 1)}
    assert sequential(ops, REGISTER, None, order=version_order(ops, good)).algorithm == "witness verified"
    assert verify_order(ops, REGISTER, None, version_order(ops, bad)) is not None
    refused = sequential(ops, REGISTER, None, order=version_order(ops, bad))
    assert refused.status == "valid" and refused.algorithm != "witness verified" and "no witness" in refused.note
    assert verify_order(ops, REGISTER, None, version_order(ops, {("x", 1): 1})) is not None, "an ok write without a place"
    assert verify_order(ops, REGISTER, None, version_order(ops, {("x", 1): 1, ("x", 2): 1})) is not None, "two in one place"


def test_a_verified_order_is_always_sequential() -> None:
    """Whatever order is offered, verified implies valid by definition; and some order verifies every valid history of few writes."""
    verified = 0
    for seed in range(HISTORIES):
        ops = distinct_history(seed, keys=1 + seed % 2)
        if ops is None:
            continue
        writes = [i for i, o in enumerate(ops) if o.f == "write" and o.type == "ok"]
        if len(writes) > 3 or any(o.type == "info" and o.f == "write" for o in ops):
            continue
        found = False
        for places in permutations(range(len(writes))):
            order: list[Any] = [None] * len(ops)
            for i, place in zip(writes, places, strict=True):
                order[i] = place
            found = found or verify_order(ops, REGISTER, None, order) is None
        assert found == sequential_by_definition("register", ops, None), (seed, ops)
        verified += found
    assert verified > 10


# ---- causal -------------------------------------------------------------------------------------------------------------------------------


class Causal:
    """The definitions of CC, CCv and CM over every linear order; causal order is the least one: program order and reads-from."""

    def __init__(self, ops: list[Operation]) -> None:
        read = {(o.key, o.result) for o in ops if o.f == "read" and o.type == "ok"}
        self.ops = sorted(
            (o for o in ops if o.type == "ok" or (o.type == "info" and o.f == "write" and (o.key, o.value) in read)),
            key=lambda o: (o.invoke, o.complete is None, o.complete or 0),
        )
        n = len(self.ops)
        self.co = {(a, b) for a in range(n) for b in range(n) if self._direct(a, b)}
        for k in range(n):
            self.co |= {(a, b) for a in range(n) for b in range(n) if (a, k) in self.co and (k, b) in self.co}
        written = {(o.key, o.value) for o in self.ops if o.f == "write"}
        self.sound = all((a, a) not in self.co for a in range(n)) and all(
            o.f == "write" or o.result is None or (o.key, o.result) in written for o in self.ops
        )

    def _direct(self, a: int, b: int) -> bool:
        x, y = self.ops[a], self.ops[b]
        program = a < b and x.process == y.process and x.type == "ok"
        return program or (x.f == "write" and y.f == "read" and (x.key, x.value) == (y.key, y.result))

    def past(self, b: int) -> list[int]:
        return [a for a in range(len(self.ops)) if (a, b) in self.co]

    def orders(self, events: list[int]) -> Any:
        for order in permutations(events):
            place = {e: n for n, e in enumerate(order)}
            if all(place[a] < place[b] for a, b in self.co if a in place and b in place):
                yield order

    def legal(self, order: Any, reads: set[int]) -> bool:
        held: dict[str | None, Any] = {}
        for e in order:
            o = self.ops[e]
            if o.f == "write":
                held[o.key] = o.value
            elif e in reads and held.get(o.key) != o.result:
                return False
        return True

    def cc(self) -> bool:
        reads = [e for e, o in enumerate(self.ops) if o.f == "read"]
        return self.sound and all(any(self.legal(order, {r}) for order in self.orders([*self.past(r), r])) for r in reads)

    def cm(self) -> bool:
        if not self.sound:
            return False
        for process in {o.process for o in self.ops}:
            own = [e for e, o in enumerate(self.ops) if o.process == process and o.type == "ok"]
            if own and not any(self.legal(order, {e for e in own if self.ops[e].f == "read"}) for order in self.orders([*self.past(own[-1]), own[-1]])):
                return False
        return True

    def ccv(self) -> bool:
        return self.sound and any(
            all(self.legal([a for a in order if (a, r) in self.co] + [r], {r}) for r in order if self.ops[r].f == "read")
            for order in self.orders(list(range(len(self.ops))))
        )


def test_bad_patterns_agree_with_the_definitions_of_causal_consistency() -> None:
    answers: dict[tuple[str, str], int] = {}
    for seed in range(3 * HISTORIES):
        ops = distinct_history(seed, most_ops=6)
        if ops is None:
            continue
        truth = Causal(ops)
        want = {"causal": truth.cm(), "causal-convergence": truth.ccv(), "causal-consistency": truth.cc()}
        for name, verdict in causal_all(ops).items():
            assert (verdict.status == "valid") == want[name], (seed, name, ops)
            answers[name, verdict.status] = answers.get((name, verdict.status), 0) + 1
    assert min(answers.values()) > HISTORIES // 20 and len(answers) == 6


# Figure 3 of Bouajjani et al. 2017, (a) to (e), each with what it shows.
@pytest.mark.parametrize(
    ("lines", "cm", "ccv", "cc", "sc"),
    [
        (("w x 1, r x 2", "w x 2, r x 1"), "valid", "invalid", "valid", "invalid"),  # (a) CM but not CCv
        (("w z 1, w x 1, w y 1", "w x 2, r z -, r y 1, r x 2"), "invalid", "valid", "valid", "invalid"),  # (b) CCv but not CM
        (("w x 1", "w x 2, r x 1, r x 2"), "invalid", "invalid", "valid", "invalid"),  # (c) CC but neither
        (("w x 1, r y -, w y 1, r x 1", "w x 2, r y -, w y 2, r x 2"), "valid", "valid", "valid", "invalid"),  # (d) both but not sequential
        (("w x 1, w y 1", "r y 1, w x 2", "r x 2, r x 1"), "invalid", "invalid", "invalid", "invalid"),  # (e) not CC
    ],
)
def test_the_papers_own_examples(lines: tuple[str, ...], cm: str, ccv: str, cc: str, sc: str) -> None:
    ops = story(*lines)
    got = {name: verdict.status for name, verdict in causal_all(ops).items()}
    assert got == {"causal": cm, "causal-convergence": ccv, "causal-consistency": cc}
    assert sequential(ops, REGISTER).status == sc


@pytest.mark.parametrize(
    ("lines", "pattern"),
    [
        (("r x 9",), "ThinAirRead"),
        (("r x 1, w y 2", "r y 2, w x 1"), "CyclicCO"),
        (("w x 1, w y 2", "r y 2, r x -"), "WriteCOInitRead"),
        (("w x 1, w x 2, w y 3", "r y 3, r x 1"), "WriteCORead"),
    ],
)
def test_each_bad_pattern_is_named_with_its_operations(lines: tuple[str, ...], pattern: str) -> None:
    evidence = causal_all(story(*lines))["causal"].evidence
    assert evidence is not None and evidence.problem.startswith(pattern) and evidence.operations


def test_values_that_repeat_leave_causality_unknown_and_say_why() -> None:
    verdict = causal_all(story("w x 1, w x 1"))["causal"]
    assert verdict.status == "unknown" and "written twice" in verdict.note


def test_a_crashed_write_that_was_read_happened_and_one_that_was_not_may_not_have() -> None:
    assert causal_all(story("? x 1, r x -", "., r x 1"))["causal"].status == "valid"


# ---- sessions -----------------------------------------------------------------------------------------------------------------------------

NONE = {"read_your_writes": 0, "monotonic_reads": 0, "monotonic_writes": 0, "writes_follow_reads": 0}


@pytest.mark.parametrize(
    ("lines", "counts"),
    [
        (("w x 1, r x 1", "., r x 1"), {}),
        (("w x 1, r x -",), {"read_your_writes": 1}),
        (("w x 1, w x 2, r x 1, r x 2",), {"read_your_writes": 1}),
        (("w x 1, w x 2", "., ., r x 2, r x 1"), {"monotonic_reads": 1, "monotonic_writes": 1}),
        (("w x 1", "., w x 2", "., ., r x 2, r x 1"), {"monotonic_reads": 1}),
        (("w x 1", "., r x 1, r x -"), {"monotonic_reads": 1}),
        (("w x 1, w y 2", "., ., r y 2, r x -"), {"monotonic_writes": 1}),
        (("w x 1", "., r x 1, w y 2", "., ., ., r y 2, r x -"), {"writes_follow_reads": 1}),
        (("w x 1", "., r x 1, w x 2", "., ., ., r x 2, r x 1"), {"monotonic_reads": 1, "writes_follow_reads": 1}),
        (("w x 1, w x 2, ., .", "., ., r x 1, r x 2"), {}),
        (("? x 1, r x -",), {}),
        (("w x 1", "w x 2, ., r x 1, r x 2"), {}),  # the writes overlap: none overwrites the other
    ],
)
def test_session_guarantees_count_the_reads_that_break_them(lines: tuple[str, ...], counts: dict[str, int]) -> None:
    ops = story(*lines)
    if len(lines) == 2 and lines[1].startswith("w x 2"):
        ops[0].complete = 9
    assert session_violations(ops) == {f"{name}_violations": n for name, n in {**NONE, **counts}.items()}


def test_the_store_s_own_order_replaces_real_time_in_sessions() -> None:
    ops = story("w x 1, w x 2, r x 1")
    assert session_violations(ops, orders={("x", 1): 2, ("x", 2): 1}) == {
        "read_your_writes_violations": 0, "monotonic_reads_violations": 0, "monotonic_writes_violations": 1, "writes_follow_reads_violations": 0,
    }
    offences = session_offences(story("w x 1", "., r x 1, w x 2"), orders={("x", 1): 2, ("x", 2): 1})
    assert offences is not None and offences["writes_follow_reads"] == [2]


def test_a_causal_history_breaks_no_session_guarantee_of_one_key() -> None:
    """The ladder is a ladder: what is sequential breaks nothing below."""
    for seed in range(HISTORIES):
        ops = distinct_history(seed)
        if ops is None or sequential(ops, REGISTER).status != "valid":
            continue
        assert causal_all(ops)["causal"].status == "valid", (seed, ops)
        assert causal_all(ops)["causal-convergence"].status == "valid", (seed, ops)


def test_the_ladder_names_the_strongest_that_holds() -> None:
    assert ladder(story("w x 1, r x 1"), REGISTER).strongest == "linearizable"
    assert ladder(story("w x 1, r x 2", "w x 2, r x 1"), REGISTER).strongest == "causal"
    assert ladder(story("w x 1", "w x 2, r x 1, r x 2"), REGISTER).strongest == "causal-consistency"
    assert ladder(story("w x 1, w y 1", "r y 1, w x 2", "., ., r x 2, r x 1"), REGISTER).strongest.startswith("read-your-writes")
    assert ladder(story("r x 9"), REGISTER).status_of("causal") == "invalid"
