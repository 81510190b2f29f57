"""What each read of a set may have seen, where elements are removed too: a level as what must have been visible, settled or refuted.

Decides: whether there is a way to have seen what every read answered that keeps a rule.  May not know: which levels there are (removed.py), replicas.
Source: Burckhardt, "Principles of eventual consistency", 2014, 4.3.2 (an observed-remove set answers the elements of which an add is visible and no
visible remove saw that add); removed.py beside this file says how it is used.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from capray.checkers.totals import end_of, evidence_of, is_update, show
from capray.checkers.values import canonical
from capray.checkers.verdict import Evidence
from capray.record import Operation

State = tuple[dict[int, int], dict[int, int], int]
TAKEN_BACK = 40  # guesses, a level; past it the level is unknown
GUESSED = "elements that are gone were removed more than once, and it was not found out which removes each read can have seen"


class Judged(NamedTuple):
    """A level's status, and what proves it broken or why it is open."""

    status: str
    evidence: Evidence | None = None
    note: str = ""


class Broken(Exception):
    """No reading of the answers is possible under what was assumed."""

    def __init__(self, evidence: Evidence) -> None:
        super().__init__(evidence.problem)
        self.evidence = evidence


# ---- what the history has -------------------------------------------------------------------------------------------------------------------------
class Story:
    """The events by invocation: ok reads, and updates that happened or may have, numbered (sets of updates are bits)."""

    def __init__(self, ops: Sequence[Operation]) -> None:
        self.ops = ops
        named = {(op.key, canonical(element)) for op in ops if op.f == "read" and op.type == "ok" for element in op.result or ()}
        self.events = [i for i in sorted(range(len(ops)), key=lambda i: (ops[i].invoke, end_of(ops[i]))) if self._counts(ops[i], named)]
        self.updates = [i for i in self.events if ops[i].f != "read"]
        self.number = {i: n for n, i in enumerate(self.updates)}
        self.reads = [i for i in self.events if ops[i].f == "read"]
        self.add_of: dict[tuple[str | None, object], int] = {}
        self.adds: dict[str | None, int] = {}
        self.keys: dict[str | None, int] = {}
        self.removes: dict[int, list[int]] = {}  # add -> removes of its element
        self.target: dict[int, int] = {}  # remove -> add
        self.twice = False
        self._number_updates()
        self.thin: Evidence | None = None
        self.present = {r: self._present(r) for r in self.reads}
        self.lines: dict[int, list[int]] = {}
        for i in self.events:
            self.lines.setdefault(ops[i].process, []).append(i)
        self.chains = self._chains()
        self.observed = self._observed()
        self.against = {r: sum(1 << m for add in members(bits) for m in self.removes.get(add, ())) for r, bits in self.present.items()}
        self.later = self._later()

    @staticmethod
    def _counts(op: Operation, named: set[tuple[str | None, object]]) -> bool:
        """An add of unknown outcome that nobody saw may never have happened."""
        if op.f == "read":
            return op.type == "ok"
        return is_update(op) and (op.type == "ok" or op.f == "remove" or (op.key, canonical(op.value)) in named)

    def _number_updates(self) -> None:
        for n, i in enumerate(self.updates):
            op = self.ops[i]
            self.keys[op.key] = self.keys.get(op.key, 0) | 1 << n
            if op.f != "remove":
                name = op.key, canonical(op.value)
                self.twice = self.twice or name in self.add_of
                self.add_of[name] = n
                self.adds[op.key] = self.adds.get(op.key, 0) | 1 << n
        for n, i in enumerate(self.updates):
            op = self.ops[i]
            add = self.add_of.get((op.key, canonical(op.value)))
            if op.f == "remove" and add is not None and self.ops[self.updates[add]].invoke <= end_of(op):  # else it was over before
                self.target[n] = add
                self.removes.setdefault(add, []).append(n)

    def _present(self, read: int) -> int:
        op, found = self.ops[read], 0
        for element in op.result or ():
            n = self.add_of.get((op.key, canonical(element)))
            if n is None or self.ops[self.updates[n]].invoke > end_of(op):
                self.thin = self.thin or evidence_of(self.ops, [read], f"process {op.process} read {element!r}, which nobody had added")
            else:
                found |= 1 << n
        return found

    def _observed(self) -> int:
        """The removes whose own process had read or added the element before."""
        found = 0
        for line in self.lines.values():
            known = 0
            for i in line:
                n = self.number.get(i)
                if n is None:
                    known |= self.present[i]
                elif n in self.target:
                    found |= (known >> self.target[n] & 1) << n
                else:
                    known |= 1 << n
        return found

    def _chains(self) -> list[int]:
        """Updates that program order keeps: each process's acknowledged ones, and every one of unknown outcome by itself."""
        found: dict[tuple[int, int], int] = {}
        for n, i in enumerate(self.updates):
            own = self.ops[i].process, -1 if self.ops[i].type == "ok" else n
            found[own] = found.get(own, 0) | 1 << n
        return list(found.values())

    def lasts(self, bits: int) -> list[int]:
        """Of these updates the last of each chain, as events: what comes after it comes after all of them."""
        return [self.updates[(bits & chain).bit_length() - 1] for chain in self.chains if bits & chain]

    def firsts(self, bits: int) -> list[int]:
        """Likewise the first."""
        return [self.updates[(bits & chain & -(bits & chain)).bit_length() - 1] for chain in self.chains if bits & chain]

    def unanswered(self, read: int) -> int:
        """The adds of the read's key that its answer does not have."""
        return self.adds.get(self.ops[read].key, 0) & ~self.present[read]

    def _later(self) -> dict[int, int]:
        """Each read's own process's updates after it."""
        out = {}
        for line in self.lines.values():
            own = 0
            for i in reversed(line):
                if i in self.number:
                    own |= 1 << self.number[i]
                else:
                    out[i] = own
        return out

    def before(self) -> dict[int, int]:
        """Each event's own process's updates before it; one of unknown outcome may take effect at any time after."""
        out = {}
        for line in self.lines.values():
            own = 0
            for i in line:
                out[i] = own
                own |= 1 << self.number[i] if i in self.number and self.ops[i].type == "ok" else 0
        return out

    def program(self) -> list[tuple[int, int]]:
        """Pairs of events of one process, the first before the second."""
        found = []
        for line in self.lines.values():
            last = -1
            for i in line:
                if last >= 0:
                    found.append((last, i))
                last = last if self.ops[i].type == "info" else i
        return found


def members(bits: int) -> Iterator[int]:
    while bits:
        low = bits & -bits
        yield low.bit_length() - 1
        bits ^= low


# ---- a level as what must be visible ------------------------------------------------------------------------------------------------------------
class Rule:
    """`seen`: for each read the updates of its key that were visible to it, by what is assumed so far; it only grows."""

    why = ""

    def __init__(self, story: Story) -> None:
        self.story = story
        self.seen = dict(story.present)
        self.unseen = dict.fromkeys(story.reads, 0)  # what a read cannot have seen
        self.chosen = 0  # removes that were seen to take an element away: they had observed its add
        self.before = story.before()

    def close(self) -> None:
        """Add to `seen` what the level makes visible."""
        raise NotImplementedError

    def effective(self) -> int:
        """The removes that observed the add of their element."""
        return self.story.observed | self.chosen

    def could(self, remove: int, read: int) -> bool:
        """Whether the read may have seen it."""
        return self.story.ops[self.story.updates[remove]].invoke <= end_of(self.story.ops[read])

    def brings(self, remove: int) -> int:
        """What is visible with it, as far as is known."""
        return 1 << remove

    def state(self) -> State:
        """What is assumed, to come back to."""
        return dict(self.seen), dict(self.unseen), self.chosen

    def restore(self, state: State) -> None:
        self.seen, self.unseen, self.chosen = dict(state[0]), dict(state[1]), state[2]

    def see(self, remove: int, read: int) -> None:
        """The read saw it, and what it took away."""
        self.seen[read] |= 1 << remove
        self.chosen |= 1 << remove


def settled(rule: Rule) -> Judged:
    """Whether there is a way to have seen what each read answered.  A guess that leads to a contradiction is taken back and excluded, the last one first."""
    guesses, taken_back = list[tuple[State, list[tuple[int, int]]]](), 0
    while True:
        try:
            open_ = propagated(rule)
            if not open_:
                return Judged("valid")
            guesses.append((rule.state(), _guess(rule, open_)))
        except Broken as broken:
            if not guesses:
                return Judged("invalid", broken.evidence)
            taken_back += 1
            if taken_back > TAKEN_BACK:
                return Judged("unknown", None, GUESSED)
            before, made = guesses.pop()
            rule.restore(before)
            read, remove = made[0]
            if len(made) > 1:  # each process's first open read at once is the quick way; one by one the sure one
                guesses.append((rule.state(), made[:1]))
                rule.see(remove, read)
            else:
                rule.unseen[read] |= 1 << remove


def propagated(rule: Rule) -> list[tuple[int, list[int]]]:
    """What follows without a guess.  Returns the reads that several removes may explain, and which.  Raises Broken."""
    done = dict[int, tuple[int, int]]()
    while True:
        rule.close()
        effective, chosen, changed, open_ = rule.effective(), rule.chosen, False, list[tuple[int, list[int]]]()
        for read, seen in list(rule.seen.items()):
            if done.get(read) != (seen, effective):
                several = _forced(rule, read, effective)
                open_ += [(read, options) for options in several]
                done[read] = (seen, -1 if several else effective)
                changed = changed or rule.seen[read] != seen or rule.chosen != chosen
        if not changed and not (open_ and _exclude(rule)):
            return open_


def _exclude(rule: Rule) -> bool:
    """What reads cannot have seen, by what is known.  Returns whether that is more than before."""
    story, effective, more = rule.story, rule.effective(), False
    for read, seen in rule.seen.items():
        for add in members(story.unanswered(read) & ~(seen | rule.unseen[read])):
            if not any(rule.could(m, read) and not _spoils(rule, read, m, effective) for m in story.removes.get(add, ())):
                rule.unseen[read] |= 1 << add
                more = True
    return more


def _guess(rule: Rule, open_: Sequence[tuple[int, list[int]]]) -> list[tuple[int, int]]:
    """At the first read of each process whose answer is open: the remove that brings least with it.  Returns what was guessed."""
    made: dict[int, tuple[int, int]] = {}
    for read, options in open_:
        process = rule.story.ops[read].process
        if process not in made:
            made[process] = read, min(options, key=lambda m: ((rule.brings(m) & ~rule.seen[read]).bit_count(), m))
    for read, remove in made.values():
        rule.see(remove, read)
    return list(made.values())


def _forced(rule: Rule, read: int, effective: int) -> list[list[int]]:
    """See what can be explained by one remove only.  Returns the options where there are several."""
    found = wants(rule, read, effective)
    for options in found:
        if len(options) == 1:
            rule.see(options[0], read)
    return [options for options in found if len(options) > 1]


def wants(rule: Rule, read: int, effective: int) -> list[list[int]]:
    """For each element that the read had an add of and does not answer, and no remove that was seen explains it: the removes that may.  Raises Broken
    where there is none, or one was seen of what it answers."""
    story, seen, gone = rule.story, rule.seen[read], 0
    adds, present = story.adds.get(story.ops[read].key, 0), story.present[read]
    for remove in members(seen & ~adds & effective):
        gone |= 1 << story.target[remove]
        if present >> story.target[remove] & 1:
            raise Broken(_still(rule, read, remove))
    found = []
    for add in members(seen & adds & ~present & ~gone):
        options = [m for m in story.removes.get(add, ()) if rule.could(m, read) and not _spoils(rule, read, m, effective)]
        if not options:
            raise Broken(_missing(rule, read, add))
        found.append(options)
    return found


def _spoils(rule: Rule, read: int, remove: int, effective: int) -> bool:
    """Would seeing this remove bring one of an element that the read answers, or an add that it cannot have seen?"""
    return bool(rule.brings(remove) & (effective & rule.story.against[read] | rule.unseen[read]))


def _missing(rule: Rule, read: int, add: int) -> Evidence:
    story, one = rule.story, rule.story.updates[add]
    told = f"{show(story.ops[read])}, without what it must have seen, and no remove that it can have seen explains that: {show(story.ops[one])}; {rule.why}"
    return evidence_of(story.ops, [read, one], told)


def _still(rule: Rule, read: int, remove: int) -> Evidence:
    story, one = rule.story, rule.story.updates[remove]
    op = story.ops[one]
    told = f"{show(story.ops[read])}, {op.value!r} among them, whose remove by process {op.process} it must have seen; {rule.why}"
    return evidence_of(story.ops, [read, one], told)
