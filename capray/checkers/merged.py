"""Counters and sets whose updates commute: what each read saw, and which consistency that allows.

Decides: the verdict on every level of the ladder for such histories: reads, and updates of any other name (`write`, `add`, `increment`).  May not know:
replicas, versions, policies.
Sources: Shapiro, Preguica, Baquero and Zawirski, SSS 2011 (strong eventual consistency); Burckhardt, "Principles of eventual consistency", 2014
(visibility); Bouajjani, Enea, Guerraoui and Hamza, POPL 2017 (CC, CM, CCv for any type, by a causal order); Terry et al. 1994 (sessions); Jepsen's
checkers `counter` (an answer lies between what is certain and what is possible) and `set-full`.

A set of distinct elements tells what each read saw.  Then every level is decided exactly, since updates commute among themselves and every pair of an
update and a read of one key is ordered (seen: before, not seen: after):
  linearizable, sequential   no cycle with real time, with the processes' own orders;
  causal consistency (CC)    closing program order and `seen before its read`: no cycle, and nothing of a read's past that it did not see.  Causal memory
                             and convergence ask no more: were a process's reads not in one order with the updates, then of its last read in such a
                             cycle something of its past was not seen; and updates that commute need no order;
  PRAM                       the same with one process's reads alone;
  sessions                   Terry's, by what was seen: an update counts as shown once it was seen, on any key; what must be seen is of the read's key;
  regular                    what was acknowledged before the read began was seen.
Of a set that elements are removed from, too, an answer does not tell why an element is not in it: removed.py.
A counter tells a total only.  `witness` says which updates each read saw; it is verified, not believed (they are of that key, asked before the read was
over, and add up to its answer), and what holds by it is valid.  What does not is left to totals.py beside this file.
Updates that failed are none; an `info` update that no read saw may never have happened.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from capray.checkers.removed import regular, removed_levels
from capray.checkers.totals import UNEXPLAINED, doubted, end_of, evidence_of, is_update, searched, show
from capray.checkers.values import canonical
from capray.checkers.verdict import Evidence, Verdict
from capray.record import Operation

CAUSAL_LEVELS = ("causal", "causal-convergence", "causal-consistency")
SESSION_LEVELS = ("read-your-writes", "monotonic-reads", "monotonic-writes", "writes-follow-reads")
MERGED_LEVELS = ("linearizable", "sequential", *CAUSAL_LEVELS, "PRAM", *SESSION_LEVELS, "regular")
Seen = Mapping[int, Iterable[int]]  # position of an ok read -> positions of the updates that it saw


def merged_levels(ops: Sequence[Operation], kind: str, witness: Seen | None = None, budget: int = 20_000) -> dict[str, Verdict]:
    """The verdicts on MERGED_LEVELS of a history of sets (kind `set`) or counters (`counter`; see `witness` above).  `budget`: configurations that the
    search for a linearization may look at, where what was seen does not decide."""
    sums = kind == "counter"
    seen = _verified(ops, witness) if sums else _answers(ops)
    if isinstance(seen, Evidence):
        return {name: _verdict(name, "invalid", ops, seen) for name in MERGED_LEVELS}
    if seen is None and not sums:
        return _with_removes(ops, budget)
    found = _by_what_was_seen(ops, seen) if seen is not None else {name: _verdict(name, "unknown", ops, None, UNEXPLAINED) for name in MERGED_LEVELS}
    return doubted(ops, found, budget) if sums else found


def _with_removes(ops: Sequence[Operation], budget: int) -> dict[str, Verdict]:
    """Of sets that elements are taken from; what breaks `sequential` or `regular` breaks linearizability, too."""
    judged = removed_levels(ops)
    if isinstance(judged, Evidence):
        return {name: _verdict(name, "invalid", ops, judged) for name in MERGED_LEVELS}
    judged.update(dict.fromkeys(CAUSAL_LEVELS, judged["causal-consistency"]))
    broken = next((judged[name] for name in ("regular", "sequential") if judged[name].status == "invalid"), None)
    found = {name: _verdict(name, one.status, ops, one.evidence, one.note) for name, one in judged.items()}
    found["linearizable"] = searched(ops, "set", budget) if broken is None else _verdict("linearizable", "invalid", ops, broken.evidence)
    if found["linearizable"].status == "valid":
        found.update({name: _verdict(name, "valid", ops, None, "implied by linearizable") for name in MERGED_LEVELS if found[name].status != "valid"})
    elif found["sequential"].status == "valid":
        found.update({name: _verdict(name, "valid", ops, None, "implied by sequential") for name in (*CAUSAL_LEVELS, "PRAM") if found[name].status != "valid"})
    return {name: found[name] for name in MERGED_LEVELS}


def merged_linearizable(ops: Sequence[Operation], kind: str, witness: Seen | None = None, budget: int = 20_000) -> Verdict:
    """The first of merged_levels alone; of a set that elements are removed from it costs less."""
    if kind == "set" and any(op.f == "remove" for op in ops):
        judged = regular(ops)
        if judged.status == "invalid":
            return _verdict("linearizable", "invalid", ops, judged.evidence)
        found = searched(ops, kind, budget)
        if found.status != "unknown":
            return found
    return merged_levels(ops, kind, witness, budget)["linearizable"]


def what_was_seen(ops: Sequence[Operation], kind: str, witness: Seen | None = None) -> dict[int, list[int]] | None:
    """For each ok read the positions of the updates that it saw; None where answers and witness do not tell."""
    seen = _verified(ops, witness) if kind == "counter" else _answers(ops)
    return None if isinstance(seen, Evidence) else seen


def _verdict(name: str, status: Any, ops: Sequence[Operation], evidence: Evidence | None = None, note: str = "") -> Verdict:
    return Verdict(status=status, consistency=name, algorithm="what was seen", ops=len(ops), keys=len({op.key for op in ops}), evidence=evidence, note=note)


# ---- what each read saw -------------------------------------------------------------------------------------------------------------------
def _answers(ops: Sequence[Operation]) -> dict[int, list[int]] | Evidence | None:
    """What each read of a set saw; evidence where it answers what nobody added by then; None where answers do not tell."""
    added: dict[tuple[str | None, Any], int] = {}
    for i, op in enumerate(ops):
        if op.f == "remove":
            return None
        if is_update(op):
            name = op.key, canonical(op.value)
            if name in added:
                return None
            added[name] = i
    seen: dict[int, list[int]] = {}
    for i, op in enumerate(ops):
        if op.f == "read" and op.type == "ok":
            seen[i] = []
            for element in op.result or ():
                at = added.get((op.key, canonical(element)))
                if at is None or ops[at].invoke > end_of(op):
                    return evidence_of(ops, [i], f"process {op.process} read {element!r}, which nobody had added")
                seen[i].append(at)
    return seen


def _verified(ops: Sequence[Operation], witness: Seen | None) -> dict[int, list[int]] | None:
    """The witness, if it explains the total of every read; else None."""
    seen: dict[int, list[int]] = {}
    for i, op in enumerate(ops):
        if op.f == "read" and op.type == "ok":
            if witness is None or i not in witness:
                return None
            seen[i] = sorted(set(witness[i]))
            if any(not is_update(ops[at]) or ops[at].key != op.key or ops[at].invoke > end_of(op) for at in seen[i]):
                return None
            if sum(ops[at].value for at in seen[i]) != (op.result or 0):
                return None
    return seen


class _Seen:
    """The events of a history (updates and ok reads, by invocation), in chains: a process each, and each `info` update one of its own behind what its
    process had done before.  Updates are numbered in the order of events; sets of them are bits."""

    def __init__(self, ops: Sequence[Operation], seen: Mapping[int, Sequence[int]]) -> None:
        anyone = {at for own in seen.values() for at in own}
        self.ops = ops
        self.at = [
            i
            for i in sorted(range(len(ops)), key=lambda i: (ops[i].invoke, end_of(ops[i])))
            if i in seen or is_update(ops[i]) and (ops[i].type == "ok" or i in anyone)
        ]
        event = {i: e for e, i in enumerate(self.at)}
        self.event_of: list[int] = [e for e, i in enumerate(self.at) if i not in seen]  # update's number -> its event
        number = {self.at[e]: n for n, e in enumerate(self.event_of)}
        self.number = {e: n for n, e in enumerate(self.event_of)}
        self.saw = {event[i]: sum(1 << number[at] for at in own) for i, own in seen.items()}
        self.former: list[int] = []
        self.chain: list[int] = []
        self.lines: list[list[int]] = []  # a chain's events
        self.own: dict[str | None, dict[int, int]] = {}  # key -> chain -> its updates, as bits
        self._lay_out()

    def _lay_out(self) -> None:
        last: dict[int, int] = {}
        for e, i in enumerate(self.at):
            op = self.ops[i]
            self.former.append(last.get(op.process, -1))
            if op.type == "info" or op.process not in last:
                self.chain.append(len(self.lines))
                self.lines.append([])
            else:
                self.chain.append(self.chain[last[op.process]])
            self.lines[self.chain[e]].append(e)
            if op.type != "info":
                last[op.process] = e
            if e in self.number:
                own = self.own.setdefault(op.key, {})
                own[self.chain[e]] = own.get(self.chain[e], 0) | 1 << self.number[e]

    def edges(self, reads: Iterable[int], unseen: bool) -> list[tuple[int, int]]:
        """Each chain's last update that a read saw goes before it; with `unseen`, the read goes before each chain's first that it did not see."""
        found = []
        for r in reads:
            for mask in self.own.get(self.ops[self.at[r]].key, {}).values():
                if mask & self.saw[r]:
                    found.append((self.event_of[_last(mask & self.saw[r])], r))
                if unseen and mask & ~self.saw[r]:
                    found.append((r, self.event_of[_first(mask & ~self.saw[r])]))
        return found

    def program(self) -> list[tuple[int, int]]:
        return [(before, e) for e, before in enumerate(self.former) if before >= 0]

    def bits(self, key: str | None) -> int:
        """All updates of a key."""
        return sum(self.own.get(key, {}).values())


def _first(bits: int) -> int:
    return (bits & -bits).bit_length() - 1


def _last(bits: int) -> int:
    return bits.bit_length() - 1


def _sorted(count: int, edges: Iterable[tuple[int, int]]) -> tuple[list[int], list[int]]:
    """(a topological order, nothing) or (what could be ordered, the nodes of a cycle)."""
    after: list[list[int]] = [[] for _ in range(count)]
    before: list[list[int]] = [[] for _ in range(count)]
    waits = [0] * count
    for a, b in edges:
        after[a].append(b)
        before[b].append(a)
        waits[b] += 1
    order = [e for e in range(count) if not waits[e]]
    for e in order:
        for follower in after[e]:
            waits[follower] -= 1
            if not waits[follower]:
                order.append(follower)
    if len(order) == count:
        return order, []
    walked: dict[int, int] = {}
    e = next(e for e in range(count) if waits[e])
    while e not in walked:
        walked[e] = len(walked)
        e = next(one for one in before[e] if waits[one])
    return order, [node for node, place in walked.items() if place >= walked[e]][::-1]


# ---- the levels, by what was seen ---------------------------------------------------------------------------------------------------------
def _by_what_was_seen(ops: Sequence[Operation], seen: Mapping[int, Sequence[int]]) -> dict[str, Verdict]:
    story = _Seen(ops, seen)
    order = story.program() + story.edges(story.saw, True)
    found = {"linearizable": _cycle(story, _real_time(story, order)), "sequential": _cycle(story, order)}
    past = _causal(story)
    found.update(dict.fromkeys(CAUSAL_LEVELS, past))
    found.update(_sessions(story))
    found["regular"] = _regular(story)
    return {name: _verdict(name, "valid" if found[name] is None else "invalid", ops, found[name]) for name in MERGED_LEVELS}


def _cycle(story: _Seen, edges: tuple[int, list[tuple[int, int]]] | list[tuple[int, int]]) -> Evidence | None:
    count, pairs = (len(story.at), edges) if isinstance(edges, list) else edges
    found = [story.at[e] for e in _sorted(count, pairs)[1] if e < len(story.at)]
    if not found:
        return None
    return evidence_of(story.ops, found, "each must come before the next, and the last before the first: " + " -> ".join(show(story.ops[i]) for i in found[:8]))


def _real_time(story: _Seen, order: list[tuple[int, int]]) -> tuple[int, list[tuple[int, int]]]:
    """With what real time orders, through one node more for each time of completion: (nodes, edges)."""
    ends = sorted({end for i in story.at if (end := story.ops[i].complete) is not None})
    base, place = len(story.at), {end: n for n, end in enumerate(ends)}
    edges = order + [(base + n, base + n + 1) for n in range(len(ends) - 1)]
    times = sorted((story.ops[i].invoke, e) for e, i in enumerate(story.at))
    n = -1
    for invoke, e in times:
        while n + 1 < len(ends) and ends[n + 1] < invoke:
            n += 1
        if n >= 0:
            edges.append((base + n, e))
        end = story.ops[story.at[e]].complete
        if end is not None:
            edges.append((e, base + place[end]))
    return base + len(ends), edges


def _causal(story: _Seen) -> Evidence | None:
    """CC: closing program order and what was seen."""
    edges = story.program() + story.edges(story.saw, False)
    order, cycle = _sorted(len(story.at), edges)
    if cycle:
        return evidence_of(story.ops, [story.at[e] for e in cycle], "each came before the next in causal order, and the last before the first")
    into: list[list[int]] = [[] for _ in story.at]
    for a, b in edges:
        into[b].append(a)
    past = [0] * len(story.at)
    for e in order:
        for one in into[e]:
            past[e] |= past[one] | (1 << story.number[one] if one in story.number else 0)
        if e in story.saw and (missed := past[e] & story.bits(story.ops[story.at[e]].key) & ~story.saw[e]):
            return _missed(story, e, missed, "which is in its causal past")
    return None


def _missed(story: _Seen, read: int, missed: int, why: str) -> Evidence:
    one = story.at[story.event_of[_first(missed)]]
    told = f"{show(story.ops[story.at[read]])}, without {missed.bit_count()} updates, the first: {show(story.ops[one])}, {why}"
    return evidence_of(story.ops, [story.at[read], one], told)


def _regular(story: _Seen) -> Evidence | None:
    """What was acknowledged before a read began, it saw."""
    by_end = sorted((end_of(story.ops[story.at[e]]), n) for n, e in enumerate(story.event_of))
    done = n = 0
    for e in sorted(story.saw, key=lambda e: story.ops[story.at[e]].invoke):
        op = story.ops[story.at[e]]
        while n < len(by_end) and by_end[n][0] < op.invoke:
            done |= 1 << by_end[n][1]
            n += 1
        if missed := done & story.bits(op.key) & ~story.saw[e]:
            return _missed(story, e, missed, "acknowledged before it asked")
    return None


def _sessions(story: _Seen) -> dict[str, Evidence | None]:
    """The four guarantees, and PRAM: the first three of them (Brzezinski et al. 2003), and that nothing is seen before its own process asks it."""
    found: dict[str, Evidence | None] = dict.fromkeys((*SESSION_LEVELS, "PRAM"))
    before, known = _before_each(story)
    for line in story.lines:
        own = shown = written = followed = 0
        later = sum(1 << story.number[e] for e in line if e in story.number)
        for e in line:
            if e in story.number:
                own |= 1 << story.number[e]
                continue
            saw = story.saw[e]
            fresh, shown = saw & ~shown, shown | saw
            while fresh:
                n = _first(fresh)
                written, followed, fresh = written | before[n], followed | known[n], fresh & (fresh - 1)
            _judge_read(story, found, e, (own, shown, written, followed))
            if saw & later & ~own and found["PRAM"] is None:
                found["PRAM"] = evidence_of(story.ops, [story.at[e]], f"{show(story.ops[story.at[e]])}, with what it added only later")
    found["PRAM"] = found["PRAM"] or found["read-your-writes"] or found["monotonic-reads"] or found["monotonic-writes"]
    return found


_WHY = ("its own", "which it had read before", "added before something that it had read, by the same process",
        "which a process had read before it added something that this one had read")


def _judge_read(story: _Seen, found: dict[str, Evidence | None], read: int, must: Sequence[int]) -> None:
    """The first read that breaks a guarantee: `must` is what each of SESSION_LEVELS makes visible, of any key."""
    wanted = story.bits(story.ops[story.at[read]].key) & ~story.saw[read]
    for name, bits, why in zip(SESSION_LEVELS, must, _WHY):
        if bits & wanted and found[name] is None:
            found[name] = _missed(story, read, bits & wanted, why)


def _before_each(story: _Seen) -> tuple[list[int], list[int]]:
    """For each update those of its process before it, and what its process had read before it."""
    writes, reads = [0] * len(story.at), [0] * len(story.at)
    for e, former in enumerate(story.former):
        if former >= 0:
            writes[e], reads[e] = writes[former], reads[former]
        if former in story.number:
            writes[e] |= 1 << story.number[former]
        if e in story.saw:
            reads[e] |= story.saw[e]
    return [writes[e] for e in story.event_of], [reads[e] for e in story.event_of]
