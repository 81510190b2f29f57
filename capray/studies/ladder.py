"""Which consistency one trial reached, level by level: the columns of a ladder's table (experiments/ladder.py).

Decides: the levels, their order, what a trial's row says of each, and what many trials together allow to say.  May not know: policies, claims, pages.
Sources: the order of the levels, Viotti and Vukolic, "Consistency in non-transactional distributed storage systems", ACM Computing Surveys 2016:
linearizable > sequential > causal memory (causal) > PRAM, and causal > causal consistency (CC); `regular`, beside the chain, is Lamport's ("On
interprocess communication", 1986) for many writers in its weak form (Shao, Welch, Pierce and Lee, SIAM J. Comput. 2011, MWReg-weak): no read returns what
was overwritten before it began, that is, none is stale (METRICS.md).  The session guarantees (Terry 1994) are METRICS.md's: there one write overwrites
another by real time, which is stricter than the papers' store order, so that they do not follow from the levels between linearizable and them.

`eventual`: after the quiet period every node's last read of a key answers the same (Vogels, "Eventually consistent", CACM 2009); of a counter or a set,
all acknowledged updates and nothing that was never asked (strong eventual consistency: Shapiro et al., SSS 2011).  No deadline is promised there; a trial
gives the quiet period.  Counters and sets are judged as such (capray.checkers.merged): of them nothing is overwritten, and all levels are asked.

A read that answers siblings (a list where a register has one value) breaks `linearizable`, `sequential` and `regular` outright.  For the causal levels
and PRAM it counts as reads of each, there and back, by the same process: by CC concurrent values may be read side by side and a causally overwritten one
may not, while causal memory and PRAM, where a process sees one order of the writes, refuse it.  For the sessions it counts as a read of that sibling that
was asked for last: they ask whether something was missing.
What is broken is proved by one history.  What holds was not broken in so many trials: no proof.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from capray.checkers.causal import causal_all
from capray.checkers.linearizable import linearizable
from capray.checkers.measures import stale_reads
from capray.checkers.models import model_named
from capray.checkers.pram import pram
from capray.checkers.sequential import sequential, version_order
from capray.checkers.sessions import sessions_verdicts
from capray.checkers.totals import end_of, is_update
from capray.checkers.values import canonical
from capray.checkers.verdict import Evidence, Verdict
from capray.measures.holdings import holdings
from capray.measures.included import kind_of, verdicts
from capray.metrics import measure
from capray.record import Operation, Record
from capray.scenario import Scenario

Row = dict[str, Any]
BUDGET = 20_000  # configurations a level and trial; past it the level is `unknown` there, and so shown
SESSIONS = ("read-your-writes", "monotonic-reads", "monotonic-writes", "writes-follow-reads")
CHAIN = ("linearizable", "sequential", "causal")  # each implies the next, and the last both BESIDE
BESIDE = ("causal-consistency", "PRAM")
LEVELS = (*CHAIN, "causal-convergence", *BESIDE, *SESSIONS, "regular", "eventual")
IMPLIES = {"linearizable": LEVELS[:-1], "sequential": ("causal", *BESIDE), "causal": BESIDE}
KEPT = (
    "availability",
    "availability_worst_node",
    "availability_during",
    "stale_share",
    "staleness_max_us",
    "versions_behind_max",
    "lost_writes",
    "lost_writes_provable",
    "conflicts",
    "divergence_final",
    "convergence_us",
    "latency_p50_us",
    "latency_p99_us",
    "operations",
    "messages",
    "fault_touched_nothing",
    "linearizable",
)
NONE = "none"


def row_of(scenario: Scenario, record: Record) -> Row:
    """A trial's row: `level` the strongest that was shown to hold, `rank` its place (linearizable 0), one `holds_<level>` a level (valid, invalid,
    unknown), `why_<level>` in words where it is invalid, and the measures KEPT."""
    measures = measure(record)
    verdicts = levels(record)
    row: Row = {"record": record.digest(), **{name: measures.get(name) for name in KEPT}}
    row["reordered_writes"] = reordered(record)
    row["level"] = strongest({name: verdict.status for name, verdict in verdicts.items()})
    row["rank"] = rank(row["level"])
    for name in LEVELS:
        row[f"holds_{name}"] = verdicts[name].status
        row[f"why_{name}"] = words(verdicts[name].evidence) if verdicts[name].status == "invalid" else None
    return row


def levels(record: Record) -> dict[str, Verdict]:
    """The verdict on every level."""
    history, register = record.history, model_named("register")
    if commutes(record):
        return {**verdicts(record, BUDGET), "eventual": eventual(history, kind_of(history))}
    plain = one_value_a_read(history)
    found = {name: v for name, v in causal_all(plain).items()}
    found.update({v.consistency: v for v in sessions_verdicts(newest_sibling(history))})
    siblings = [i for i, op in enumerate(history) if is_siblings(op)]
    if siblings:
        found.update({name: _siblings(name, history, siblings) for name in ("linearizable", "sequential", "regular")})
    else:
        found["linearizable"] = linearizable(history, register, None, BUDGET)
        found["sequential"] = sequential(history, register, None, BUDGET, version_order(history, orders(record)))
        found["regular"] = regular(history)
    found["PRAM"], found["eventual"] = pram(plain, None, found["causal"]), eventual(history)
    for strong, weaker in IMPLIES.items():
        for name in weaker:
            if found[strong].status == "valid" and found[name].status == "unknown":
                found[name] = Verdict(status="valid", consistency=name, note=f"implied by {strong}")
    return found


def commutes(record: Record) -> bool:
    """Whether the updates are of a counter or a set."""
    return any(version.kind == "merge" for version in record.versions or ())


def is_siblings(op: Operation) -> bool:
    """Whether a read answered several values."""
    return op.f == "read" and op.type == "ok" and isinstance(op.result, (list, tuple))


def one_value_a_read(history: Sequence[Operation]) -> list[Operation]:
    """The history with each read of siblings as reads of each, there and back, so that every one of them is read after every other."""
    out: list[Operation] = []
    for op in history:
        if is_siblings(op):
            out += [msgspec.structs.replace(op, result=value) for value in (*op.result, *op.result[-2::-1])]
        else:
            out.append(op)
    return out


def newest_sibling(history: Sequence[Operation]) -> list[Operation]:
    """The history with each read of siblings as a read of the one whose write was invoked last."""
    asked = {(op.key, op.value): op.invoke for op in history if op.f == "write"}
    return [
        msgspec.structs.replace(op, result=max(op.result, key=lambda value: (asked.get((op.key, value), -1), value), default=None)) if is_siblings(op) else op
        for op in history
    ]


def _siblings(name: str, history: Sequence[Operation], positions: list[int]) -> Verdict:
    first = history[positions[0]]
    problem = f"{len(positions)} reads answered several values, the first {first.result!r} to process {first.process}: a register has one"
    return Verdict(
        status="invalid",
        consistency=name,
        ops=len(history),
        evidence=Evidence(problem=problem, key=first.key, operations=positions[:20], offending=positions[:1], start_us=first.invoke, end_us=first.complete),
    )


def regular(history: Sequence[Operation]) -> Verdict:
    """No read is stale."""
    stale = stale_reads(history, None)
    verdict = Verdict(
        status="unknown" if stale is None else "invalid" if stale else "valid", consistency="regular", algorithm="real-time order", ops=len(history)
    )
    if stale:
        at = stale[0].position
        op = history[at]
        verdict.evidence = Evidence(
            problem=f"{len(stale)} stale reads, the first: process {op.process} read {op.result!r}, overwritten {stale[0].age_us} us before it asked",
            key=op.key,
            operations=[one.position for one in stale[:20]],
            offending=[at],
            start_us=op.invoke,
            end_us=op.complete,
        )
    return verdict


def eventual(history: Sequence[Operation], kind: str = "register") -> Verdict:
    """The last reads of each key agree, at every node that answered; unknown where fewer than two did."""
    last: dict[str | None, list[int]] = {}
    for i, op in enumerate(history):
        if op.final and op.f == "read" and op.type == "ok":
            last.setdefault(op.key, []).append(i)
    enough = last and all(len(reads) > 1 for reads in last.values())
    verdict = Verdict(status="valid" if enough else "unknown", consistency="eventual", algorithm="last reads", ops=len(history), keys=len(last))
    for key, reads in last.items():
        answers = {canonical(sorted(history[i].result) if kind == "set" and history[i].result else history[i].result) for i in reads}
        lacks = None if len(answers) > 1 or kind == "register" else _lacks(history, key, history[reads[0]].result, kind)
        if len(answers) > 1 or lacks:
            told = lacks or "; ".join(f"node {history[i].node} answered {history[i].result!r}" for i in reads)
            verdict.status, start, end = "invalid", min(history[i].invoke for i in reads), max(end_of(history[i]) for i in reads)
            verdict.evidence = Evidence(problem=f"last reads: {told}"[:400], key=key, operations=reads, offending=reads, start_us=start, end_us=end)
            break
    return verdict


def _lacks(history: Sequence[Operation], key: str | None, answer: Any, kind: str) -> str | None:
    """What a counter's or a set's last answer lacks of what was acknowledged, or has of what was never asked."""
    taken = {canonical(op.value) for op in history if op.f == "remove" and op.key == key and op.type != "fail"}  # may be gone, each element being added once
    updates = [op for op in history if is_update(op) and op.f != "remove" and op.key == key]
    sure = [op.value for op in updates if op.type == "ok" and canonical(op.value) not in taken]
    perhaps = [op.value for op in updates if op.type == "info" or canonical(op.value) in taken]
    if kind == "set":
        found = {canonical(value) for value in answer or ()}
        missing, extra = [v for v in sure if canonical(v) not in found], found - {canonical(value) for value in (*sure, *perhaps)}
        return f"without {missing[:3]} of {len(sure)} acknowledged, with {len(extra)} that nobody added" if missing or extra else None
    low = sum(sure) + sum(value for value in perhaps if value < 0)
    high = sum(sure) + sum(value for value in perhaps if value > 0)
    return None if low <= (answer or 0) <= high else f"{answer!r}, where what was acknowledged, with what may have been, gives {low} to {high}"


def orders(record: Record) -> dict[tuple[str | None, Any], Any]:
    """What the store itself ordered each write by: a witness to be verified, not believed."""
    found: dict[tuple[str | None, Any], Any] = {}
    for version in record.versions or ():
        if version.kind != "discard":
            found.setdefault((version.key, version.value), version.order)
    return found


def reordered(record: Record) -> int | None:
    """Acknowledged writes that the store ordered before one which had completed before they were asked for: acknowledged, and overwritten by the past.
    Null where some replica held siblings, or updates commute: their store orders writes in part only, or not at all."""
    keys = holdings(record)
    if keys is None or any(found.siblings or found.merges for found in keys.values()):
        return None
    ordered = orders(record)
    writes = [op for op in record.history if op.f == "write" and op.type == "ok" and (op.key, op.value) in ordered]
    done = sorted(writes, key=lambda op: op.complete or 0)
    newest: dict[str | None, Any] = {}
    count = at = 0
    for op in sorted(writes, key=lambda op: op.invoke):
        while at < len(done) and (done[at].complete or 0) < op.invoke:
            key, order = done[at].key, ordered[done[at].key, done[at].value]
            newest[key] = max(newest.get(key, order), order)
            at += 1
        count += newest.get(op.key, ()) > ordered[op.key, op.value]
    return count


def words(evidence: Evidence | None) -> str | None:
    """Evidence as one sentence with its window."""
    if evidence is None:
        return None
    window = "" if evidence.start_us is None else f" [{evidence.start_us}, {'...' if evidence.end_us is None else evidence.end_us}]"
    return (("" if evidence.key is None else f"key {evidence.key}: ") + evidence.problem)[:400] + window


# ---- one or many trials together ------------------------------------------------------------------------------------------------------
def strongest(statuses: Mapping[str, str]) -> str:
    """The strongest level that is valid, `at least` before it where a stronger one is unknown; below the chain all that hold."""
    unsure = ""
    for name in CHAIN[:2]:
        if statuses[name] == "valid":
            return unsure + ", ".join([name, *_also(statuses, ("regular",) if name != CHAIN[0] else ())])
        if statuses[name] == "unknown":
            unsure = "at least "
    unsure = unsure or ("at least " if statuses["causal"] == "unknown" else "")
    held = _also(statuses, CHAIN[2:]) or _also(statuses, BESIDE) or _also(statuses, SESSIONS)
    return unsure + (", ".join(held + _also(statuses, ("regular", "eventual"))) or NONE)


def _also(statuses: Mapping[str, str], names: Sequence[str]) -> list[str]:
    return [name for name in names if statuses[name] == "valid"]


RANKS = (*CHAIN, BESIDE, (*SESSIONS, "regular"), "eventual", NONE)


def rank(level: str) -> int:
    """A level's place in RANKS: linearizable 0, sequential 1, causal 2, causal consistency or PRAM 3, some of the session guarantees or regular 4,
    eventual 5, none 6."""
    first = level.removeprefix("at least ").split(", ")[0]
    return next(place for place, names in enumerate(RANKS) if first == names or first in names and not isinstance(names, str))


def weakest(rows: Sequence[Row]) -> dict[str, str]:
    """What held in every trial: for each level `invalid` where one trial broke it, else `unknown` where one left it open, else `valid`."""
    found = {}
    for name in LEVELS:
        statuses = {row.get(f"holds_{name}", "unknown") for row in rows}  # a row of before the level was asked
        found[name] = next(status for status in ("invalid", "unknown", "valid") if status in statuses)
    return found
