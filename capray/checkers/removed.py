"""Sets that elements are removed from, too: which level of the ladder a history of them keeps, broken only where no reading of its answers is possible.

Decides: of histories in which every element is added at most once, what each read must, and may, have seen, level by level.  May not know: replicas.
Sources: Shapiro et al., INRIA RR-7506, specification 15 (a remove takes away the adds that its source observed; who asks for it must have found the
element: "pre lookup(e)"); Burckhardt, "Principles of eventual consistency", 2014, section 4.3.2: an observed-remove set answers the elements of which
an add is visible and no visible remove saw that add.  So the answer depends on what is visible alone, and on no order of it; causal memory and
convergence then ask what causal consistency asks, as for all updates that commute (merged.py).

Of an element that is in the answer the add was seen, and no remove that observed it.  Of one that is not, the add was not seen, or a remove was, too.
A level says what must have been visible (merged.py: SESSION_LEVELS, PRAM, causal order, `regular`).  Where that has the add of an element that the
answer lacks, some remove of it must have been seen, of those asked before the read was over: where none can have been, the level is broken; one is
forced, and brings what it makes visible in turn; of several one is guessed, and the guess taken back where it contradicts the answers (observed.py).  So
`valid` has a witness, and `invalid` has tried all; past a bound of guesses taken back the verdict is `unknown`.
A remove observed the add if its own process had read or added the element before; in causal order also if the add is in its past; for `regular` if
the add was acknowledged before.  Any other may have, or may not.
Sequential: one order of all.  What causal order forces, and that what a read cannot have seen goes after it: a cycle of these is a proof, an order that
explains every answer a witness; else `unknown`.  Nothing is seen before it was asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from capray.checkers.observed import Broken, Judged, Rule, Story, members, propagated, settled
from capray.checkers.totals import end_of, evidence_of, show
from capray.checkers.verdict import Evidence
from capray.record import Operation

VISIBLE_LEVELS = ("causal-consistency", "PRAM", "read-your-writes", "monotonic-reads", "monotonic-writes", "writes-follow-reads", "regular")
TWICE = "an element is added twice: answers do not tell which add they saw"

NO_ORDER = "nothing refutes one order of all, and none was found"


def removed_levels(ops: Sequence[Operation]) -> dict[str, Judged] | Evidence:
    """Every level but linearizable, of a history of sets with removes; evidence alone where an answer has what nobody added."""
    story = Story(ops)
    if story.twice:
        return dict.fromkeys((*VISIBLE_LEVELS, "sequential"), Judged("unknown", None, TWICE))
    if story.thin is not None:
        return story.thin
    found = {}
    causal = Causal(story)
    found["causal-consistency"] = settled(causal)
    rules: dict[str, Callable[[], Rule]] = {
        "PRAM": lambda: Pram(story), "read-your-writes": lambda: Own(story), "monotonic-reads": lambda: Monotonic(story),
        "monotonic-writes": lambda: Written(story), "writes-follow-reads": lambda: Followed(story),
    }
    for name, rule in rules.items():  # what was seen by causal order keeps all of these
        found[name] = found["causal-consistency"] if found["causal-consistency"].status == "valid" else settled(rule())
    found["regular"] = settled(Regular(story))
    found["sequential"] = found["causal-consistency"] if found["causal-consistency"].status == "invalid" else one_order(causal)
    return found


def regular(ops: Sequence[Operation]) -> Judged:
    """The one level that takes no other: is what was acknowledged before a read began visible to it?"""
    story = Story(ops)
    if story.twice or story.thin is not None:
        return Judged("unknown", None, TWICE) if story.twice else Judged("invalid", story.thin)
    return settled(Regular(story))


# ---- the session guarantees, PRAM, regular ----------------------------------------------------------------------------------------------------
class Own(Rule):
    why = "read your writes: its own updates"

    def close(self) -> None:
        for read in self.seen:
            self.seen[read] |= self.before[read] & self.story.keys.get(self.story.ops[read].key, 0)


class Monotonic(Rule):
    why = "monotonic reads: what it had seen before"

    def close(self) -> None:
        for line in self.story.lines.values():
            shown = 0
            for i in line:
                if i in self.seen:
                    self.seen[i] |= shown & self.story.keys.get(self.story.ops[i].key, 0)
                    shown |= self.seen[i]


class Written(Rule):
    why = "monotonic writes: what its process had asked before something that this one has seen"

    def close(self) -> None:
        for line in self.story.lines.values():
            must = shown = 0
            for i in line:
                if i in self.seen:
                    for n in members(self.seen[i] & ~shown):
                        must |= self.before[self.story.updates[n]]
                    shown |= self.seen[i]
                    self.seen[i] |= must & self.story.keys.get(self.story.ops[i].key, 0)

    def brings(self, remove: int) -> int:
        return 1 << remove | self.before[self.story.updates[remove]]


class Followed(Rule):
    why = "writes follow reads: what a process had read before it asked for something that this one has seen"

    def known(self) -> dict[int, int]:
        """Each update: what its process had seen before it."""
        out = {}
        for line in self.story.lines.values():
            shown = 0
            for i in line:
                if i in self.seen:
                    shown |= self.seen[i]
                else:
                    out[self.story.number[i]] = shown
        return out

    def close(self) -> None:
        known = self.known()
        for line in self.story.lines.values():
            must = shown = 0
            for i in line:
                if i in self.seen:
                    for n in members(self.seen[i] & ~shown):
                        must |= known[n]
                    shown |= self.seen[i]
                    self.seen[i] |= must & self.story.keys.get(self.story.ops[i].key, 0)


class Pram(Written):
    """The first three together, and nothing of a process's own before it asks it (Brzezinski et al. 2003)."""

    why = "PRAM: its own updates, what it had seen, and what came before those in their processes"

    def close(self) -> None:
        for line in self.story.lines.values():
            past = 0
            for i in line:
                if i not in self.seen:
                    past |= 1 << self.story.number[i] if self.story.ops[i].type == "ok" else 0
                    continue
                for n in members(self.seen[i] & ~past):
                    past |= self.before[self.story.updates[n]] | 1 << n
                self.seen[i] |= past & self.story.keys.get(self.story.ops[i].key, 0)
                if own := self.seen[i] & self.story.later[i]:
                    one = self.story.updates[next(members(own))]
                    raise Broken(evidence_of(self.story.ops, [i, one], f"{show(self.story.ops[i])}, with what it added only later"))

    def could(self, remove: int, read: int) -> bool:
        return super().could(remove, read) and not self.story.later[read] >> remove & 1


class Regular(Rule):
    why = "acknowledged before it asked"

    def __init__(self, story: Story) -> None:
        super().__init__(story)
        ended = sorted((end_of(story.ops[i]), n) for n, i in enumerate(story.updates))
        self.done, done, at = {}, 0, 0
        for i in story.events:
            while at < len(ended) and ended[at][0] < story.ops[i].invoke:
                done |= 1 << ended[at][1]
                at += 1
            self.done[i] = done

    def close(self) -> None:
        for read in self.seen:
            self.seen[read] |= self.done[read] & self.story.keys.get(self.story.ops[read].key, 0)

    def effective(self) -> int:
        late = sum(1 << m for m, add in self.story.target.items() if self.done[self.story.updates[m]] >> add & 1)
        return super().effective() | late


# ---- causal order, and one order of all ------------------------------------------------------------------------------------------------------------
class Causal(Rule):
    """Program order and what was seen, closed; `past` has each event's updates before it."""

    why = "it is in its causal past"

    def __init__(self, story: Story) -> None:
        super().__init__(story)
        self.past: dict[int, int] = {}

    def edges(self) -> list[tuple[int, int]]:
        story = self.story
        found = story.program()
        found += [(i, read) for read, seen in self.seen.items() for i in story.lasts(seen)]
        return found + [(story.updates[story.target[m]], story.updates[m]) for m in members(self.chosen)]

    def close(self) -> None:
        self.past = pasts(self.story, self.edges())
        for read in self.seen:
            self.seen[read] |= self.past[read] & self.story.keys.get(self.story.ops[read].key, 0)

    def effective(self) -> int:
        return sum(1 << m for m, add in self.story.target.items() if self.past[self.story.updates[m]] >> add & 1)

    def could(self, remove: int, read: int) -> bool:
        """Not if the read comes before it: what a later update of the read's own process is before."""
        return super().could(remove, read) and not self.story.later[read] & self.brings(remove)

    def brings(self, remove: int) -> int:
        return self.past[self.story.updates[remove]] | 1 << remove


def pasts(story: Story, edges: Iterable[tuple[int, int]], every: bool = False) -> dict[int, int]:
    """Each event's updates (with `every`: events, by their position) before it, in the order that the edges make.  Raises Broken where they make a cycle."""
    into: dict[int, set[int]] = {i: set() for i in story.events}
    out: dict[int, list[int]] = {i: [] for i in story.events}
    for a, b in edges:
        if a not in into[b]:
            into[b].add(a)
            out[a].append(b)
    waits = {i: len(before) for i, before in into.items()}
    ready, past = [i for i in story.events if not waits[i]], {}
    for i in ready:
        past[i] = 0
        for a in into[i]:
            own = a if every else story.number.get(a, -1)
            past[i] |= past[a] | (1 << own if own >= 0 else 0)
        for follower in out[i]:
            waits[follower] -= 1
            if not waits[follower]:
                ready.append(follower)
    if len(ready) < len(story.events):
        raise Broken(_cycle(story, into, waits))
    return past


def _cycle(story: Story, into: dict[int, set[int]], waits: dict[int, int]) -> Evidence:
    walked: dict[int, int] = {}
    i = next(i for i in story.events if waits[i])
    while i not in walked:
        walked[i] = len(walked)
        i = next(a for a in into[i] if waits[a])
    ring = [event for event, place in walked.items() if place >= walked[i]][::-1]
    told = " -> ".join(show(story.ops[event]) for event in ring[:8])
    return evidence_of(story.ops, ring, "each must come before the next, and the last before the first: " + told)


def one_order(causal: Causal) -> Judged:
    """Sequential consistency, of a history that may be causally consistent.  What causal order forces is taken from a run without guesses."""
    story, forced = causal.story, Causal(causal.story)
    try:
        propagated(forced)
        order = _ordered(forced)
    except Broken as broken:
        return Judged("invalid", broken.evidence)
    latest = Regular(story)
    for rule in [causal, *([latest] if settled(latest).status == "valid" else [])]:  # what was seen: as little as may be, as much as may be
        seen = [(i, read) for read in story.reads for i in story.lasts(rule.seen[read])]
        unseen = [(read, i) for read in story.reads for i in story.firsts(story.unanswered(read) & ~rule.seen[read])]
        try:
            past = pasts(story, [*order, *seen, *unseen, *_kept(causal)], every=True)
        except Broken:
            continue
        if _explains(story, sorted(story.events, key=lambda i: past[i].bit_count())):
            return Judged("valid")
    return Judged("unknown", None, NO_ORDER)


def _kept(rule: Rule) -> list[tuple[int, int]]:
    """A read comes before the removes of what it answers that observed it."""
    story, effective = rule.story, rule.effective()
    return [(read, i) for read in story.reads for i in story.firsts(story.against[read] & effective)]


def _ordered(rule: Causal) -> list[tuple[int, int]]:
    """The edges that every one order has."""
    story = rule.story
    found = {*rule.edges(), *_kept(rule)}
    while True:
        past, more = pasts(story, found, every=True), set()
        for read in story.reads:
            after = 0
            for add in members(story.unanswered(read)):
                i, options = story.updates[add], story.removes.get(add, ())
                left = [story.updates[m] for m in options if rule.could(m, read) and not past[story.updates[m]] >> read & 1]
                if not left:
                    after |= 1 << add
                elif past[read] >> i & 1 and len(left) == 1:
                    more |= {(i, left[0]), (left[0], read)}
            more.update((read, i) for i in story.firsts(after))
        if more <= found:
            return list(found)
        found |= more


def _explains(story: Story, order: Sequence[int]) -> bool:
    """Whether a set that takes the operations in this order gives every answer."""
    held: dict[str | None, int] = {}
    for i in order:
        op, n = story.ops[i], story.number.get(i)
        if n is None:
            if held.get(op.key, 0) != story.present[i]:
                return False
        elif n in story.target:
            held[op.key] = held.get(op.key, 0) & ~(1 << story.target[n])
        elif op.f != "remove":
            held[op.key] = held.get(op.key, 0) | 1 << n
    return True
