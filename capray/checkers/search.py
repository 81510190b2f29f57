"""Linearizability of one object under any model: depth-first search after Wing, Gong and Lowe, resumable, within a budget of states.

Decides: whether some order of the operations that keeps real time is legal.  May not know: keys, files, evidence.
Sources: Wing and Gong 1993; Lowe, "Testing for linearizability" 2017 (memoised configurations); Gibbons and Korach 1997 (NP-complete, hence
the budget).

A configuration is what has been placed so far and the state.  Completed operations are numbered in the order they were completed; `p` is the
first that is not placed, `mask` has bit k for the placed operation p + k, `used` has a bit for each placed `info` operation.  Whatever was
invoked before p was completed (`opens[p]`) may be placed next.  Calls that do the same in every state share a class; rows[state][class] is the next
state or -1.  The search is pruned by what can be proved by changing a witness into another:

(a) A pure call that is enabled and legal is placed at once: moved to the front of a witness it changes nothing for the others.
    (Not so "a write of the value that is there already": it may be needed later, to bring that value back.)
(b) Of enabled calls of one class only that completed first is tried: exchange the two in a witness.  An `info` one comes last of all.
(c) The search ends when the completed calls are placed.
(d) Fewer `info` calls are better: a configuration with the same p, mask and state, and a superset of `used`, is not explored again.
(e) An `info` call is placed only if the next call does something else than it would have done without: else leave it out of the witness.
(f) A call that needs one certain state fails at once if the state is another and nothing enabled leads there.
(g) Where a model says that a pure call is lost (Model.lost) and nothing that revives it can come before it, the branch ends.

(b), (d) and (e) hold together because each keeps a witness with the fewest `info` calls one with the fewest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from capray.checkers.models import ANY, ILLEGAL, SAME, Call, Model, State, as_it_is, never_lost
from capray.checkers.values import PLAIN, canonical
from capray.checkers.verdict import Status
from capray.record import Operation

_Timed = tuple[int, int | None, int]  # invocation, completion or None, class
_ANYTHING = -1  # the class of a reset that is not looked at: it revives everything
_NEAR = 8  # reads looked at for one that is ripe
_MOST_COMPARED = 48  # sets of placed `info` calls that (d) compares with at one place and state; of further ones it knows only equal ones again
_MOST_MASKED = 20_000  # calls of one object for which a bit mask of each class is kept
_MOST_PAIRS = 4_000_000  # reads times resets that are compared
_FEW = 64  # up to so many classes, a row of transitions is a list and known at once
Config = tuple[bool, int, int, int, int, int]  # rest only?, p, mask, state, used, state before an info call (or -1)


class Row(dict[int, int]):
    """One state's transitions, asked of the model one by one."""

    __slots__ = ("classes", "state")

    def __init__(self, classes: Classes, state: int) -> None:
        super().__init__()
        self.classes = classes
        self.state = state

    def __missing__(self, call: int) -> int:
        classes = self.classes
        after = classes.model.step(classes.states[self.state], classes.calls[call])
        answer = self[call] = -1 if after is ILLEGAL else classes.number(after)
        return answer


class Classes:
    """The calls of one object by what they do, and its states by number; transitions are computed once."""

    __slots__ = (
        "by_call", "calls", "gives", "held_bytes", "ids", "losses", "model", "needs", "numbers",
        "prepared", "pure", "rows", "shapes", "states",
    )

    def __init__(self, model: Model) -> None:
        self.model = model
        self.prepared = model.prepare is not as_it_is
        self.held_bytes = 0
        self.calls: list[Call] = []
        self.pure: list[bool] = []
        self.needs: list[Any] = []
        self.gives: list[Any] = []
        self.shapes = True
        self.ids: dict[Any, int] = {}
        self.by_call: dict[Any, int] = {}
        self.states: list[State] = []
        self.numbers: dict[State, int] = {}
        self.rows: list[Any] = []
        self.losses: dict[tuple[int, int], bool] = {}

    def of(self, f: str, value: Any, result: Any, known: bool, key: Any) -> int:
        """The class of a call met for the first time under `key`."""
        call = self.model.prepare(Call(f, value, result, known))
        identity = call if self.prepared else (call.f, canonical(call.value), canonical(call.result), call.known)
        found = self.by_call.get(identity)
        if found is None:
            found = self.by_call[identity] = len(self.calls)
            self.calls.append(call)
            self.pure.append(self.model.pure(call))
            shape = self.model.shape(call)
            self.needs.append(ANY if shape is None else shape.needs)
            self.gives.append(None if shape is None else shape.gives)
            self.shapes = self.shapes and shape is not None
        self.ids[key] = found
        return found

    def number(self, state: State) -> int:
        """The number of a state; a new one gets its row of transitions, at once where few shapes tell them all, else filled as asked."""
        found = self.numbers.get(state)
        if found is not None:
            return found
        found = self.numbers[state] = len(self.states)
        self.states.append(state)
        if not self.shapes or len(self.calls) > _FEW:
            self.rows.append(Row(self, found))
            self.held_bytes += 200 + 8 * (len(state) if isinstance(state, (str, tuple, frozenset)) else 0)
            return found
        self.rows.append([])
        for gives in self.gives:
            if gives is not SAME and gives not in self.numbers:
                self.numbers[gives] = len(self.states)
                self.states.append(gives)
                self.rows.append([])
        for known in range(found, len(self.states)):
            self.rows[known] = self._row(known)
        return found

    def _row(self, number: int) -> list[int]:
        state, numbers = self.states[number], self.numbers
        return [
            (number if gives is SAME else numbers[gives]) if needs is ANY or needs == state else -1 for needs, gives in zip(self.needs, self.gives)
        ]

    def revives(self, reset: int, call: int) -> bool:
        if reset == _ANYTHING:
            return True
        key = (-1 - reset, call)
        answer = self.losses.get(key)
        if answer is None:
            answer = self.losses[key] = self.model.revives(self.calls[reset], self.calls[call])
        return answer

    def lost(self, state: int, call: int) -> bool:
        answer = self.losses.get((state, call))
        if answer is None:
            answer = self.losses[state, call] = self.model.lost(self.states[state], self.calls[call])
        return answer


class Search:
    """One object's search.  `run` explores some more configurations; `spent` counts them, `held_bytes` is what the memory of them takes."""

    __slots__ = (
        "by_class", "call", "classes", "held_bytes", "info_class", "info_classes", "infos", "looks_ahead", "more", "opens", "pures", "ripe", "seen",
        "size", "spent", "stack", "status", "target", "wide_from",
    )

    def __init__(self, ops: Sequence[Operation], model: Model, initial: Any) -> None:
        """`ops`: one object's operations in order of invocation; `fail` ones are left out here."""
        self.classes = classes = Classes(model)
        self.status: Status = "unknown"
        self.spent = 0
        self.held_bytes = 0
        self.seen: dict[Any, list[int]] = {}
        self.more: set[Any] = set()
        calls = _calls(ops, classes)
        completed = self._lay_out(calls)
        self.looks_ahead = model.lost is not never_lost
        if self.looks_ahead:
            self._look_ahead(calls, completed)
        self.by_class: list[int] = []
        few_enough = len(classes.calls) < self.size <= _MOST_MASKED
        self.wide_from = 1 << 2 * len(classes.calls) if few_enough else 1 << self.size
        first = classes.number(model.start(initial))
        self.stack: list[Config] = [(False, 0, 0, first, 0, -1)]

    def _lay_out(self, calls: list[_Timed]) -> list[tuple[int, int]]:
        """What may be placed at each p, from one sweep over the completions."""
        pure = self.classes.pure
        completed = sorted([(complete, i) for i, (_, complete, _) in enumerate(calls) if complete is not None])
        self.size = size = len(completed)
        rank = {i: p for p, (_, i) in enumerate(completed)}
        self.call = [calls[i][2] for _, i in completed]
        self.opens: list[int] = []
        self.pures: list[int] = []
        self.infos: list[int] = []
        self.info_class: list[int] = []
        members: dict[int, int] = {}
        j = opened = clean = 0
        total = len(calls)
        for p in range(size):
            now = completed[p][0]
            while j < total and calls[j][0] <= now:
                if calls[j][1] is None:
                    c = calls[j][2]
                    if not pure[c]:
                        members[c] = members.get(c, 0) | 1 << len(self.info_class)
                        self.info_class.append(c)
                else:
                    bit = 1 << (rank[j] - p)
                    opened |= bit
                    if pure[calls[j][2]]:
                        clean |= bit
                j += 1
            self.opens.append(opened)
            self.pures.append(clean)
            self.infos.append((1 << len(self.info_class)) - 1)
            opened >>= 1
            clean >>= 1
        self.info_classes = list(members.items())
        return completed

    def _look_ahead(self, calls: list[_Timed], completed: list[tuple[int, int]]) -> None:
        """For rule (g).  ripe[k]: from this p on, no call that could revive the pure call k can still be placed before it; target[p]: a pure call
        that begins only after p is completed and is ripe at p, -1 if there is none among the next few."""
        pure, classes = self.classes.pure, self.classes
        resets = self._resets(calls, completed)
        reads = []
        self.ripe, self.target = [0] * self.size, [-1] * self.size
        for k, (complete, i) in enumerate(completed):
            invoke, _, c = calls[i]
            if pure[c]:
                self.ripe[k] = 1 + max((rank for begun, rank, reset in resets if begun <= complete and classes.revives(reset, c)), default=-1)
                reads.append((invoke, k))
        reads.sort()
        r = len(reads)
        for p in range(self.size - 1, -1, -1):
            now = completed[p][0]
            while r > 0 and reads[r - 1][0] > now:
                r -= 1
            for _, k in reads[r : r + _NEAR]:
                if self.ripe[k] <= p:
                    self.target[p] = self.call[k]
                    break

    def _resets(self, calls: list[_Timed], completed: list[tuple[int, int]]) -> list[tuple[int, int, int]]:
        """(invocation, rank, class) of each resetting call; a pending one has a rank beyond all, and so has one of too many to look at."""
        classes = self.classes
        is_reset = [classes.model.reset(call) for call in classes.calls]
        found = [(calls[i][0], rank, calls[i][2]) for rank, (_, i) in enumerate(completed) if is_reset[calls[i][2]]]
        found += [(invoke, self.size, c) for invoke, complete, c in calls if complete is None and is_reset[c]]
        return found if len(found) * self.size <= _MOST_PAIRS else [(-(1 << 62), self.size, _ANYTHING)]

    def run(self, states: int) -> Status:
        """Explore up to `states` more configurations; the status is `unknown` until the search is decided."""
        classes, stack, spent = self.classes, self.stack, 0
        rows, call, opens, pures, infos, size = classes.rows, self.call, self.opens, self.pures, self.infos, self.size
        while stack and spent < states:
            rest, p, mask, s, used, prev = stack.pop()
            if rest:
                self._rest(p, mask, s, used, prev)
                continue
            while True:
                spent += 1
                while mask & 1:
                    mask >>= 1
                    p += 1
                if p == size:
                    stack.clear()
                    self.status = "valid"
                    self.spent += spent
                    return "valid"
                row = rows[s]
                left = opens[p] & ~mask
                clean = left & pures[p]
                if clean:
                    placed = self._place_pure(p, clean, s, row)
                    if placed < 0:
                        break
                    if placed:
                        mask |= placed
                        left &= ~placed
                        prev = -1
                        if mask & 1:
                            continue
                if self.looks_ahead and self.target[p] >= 0 and classes.lost(s, self.target[p]):
                    break
                dirty = left & ~pures[p]
                free = infos[p] & ~used
                c = call[p]
                t = row[c]
                if t >= 0 and prev >= 0 and rows[prev][c] == t:
                    t = -1
                if dirty == 1 and not free:
                    if t < 0:
                        break
                elif (not dirty and not free) or self._known(p, mask, s, used, prev):
                    break
                elif t < 0:
                    if row[c] >= 0 or self._within_reach(c, p, dirty, free):
                        self._rest(p, mask, s, used, prev)
                    break
                else:
                    stack.append((True, p, mask, s, used, prev))
                mask |= 1
                s = t
                prev = -1
        self.spent += spent
        if not stack:
            self.status = "invalid"
        return self.status

    def _place_pure(self, p: int, clean: int, s: int, row: Any) -> int:
        """Reductions (a) and (g): the pure calls among `clean` that are legal, or -1 if one of the others is lost."""
        classes, call, placed = self.classes, self.call, 0
        if self._is_wide(clean):
            for c, members in enumerate(self.by_class):
                if classes.pure[c] and row[c] >= 0:
                    placed |= members >> p & clean
            if not self.looks_ahead:
                return placed
            clean &= ~placed
        while clean:
            low = clean & -clean
            k = p + low.bit_length() - 1
            if row[call[k]] >= 0:
                placed |= low
            elif self.looks_ahead and self.ripe[k] <= p and classes.lost(s, call[k]):
                return -1
            clean ^= low
        return placed

    def _is_wide(self, window: int) -> bool:
        """Is it less work to go through the classes than through the calls of this window?"""
        if window < self.wide_from:
            return False
        if not self.by_class:
            self.by_class = [0] * len(self.classes.calls)
            for p, c in enumerate(self.call):
                self.by_class[c] |= 1 << p
        return window.bit_count() > 2 * len(self.by_class)

    def _first_of_each(self, p: int, window: int) -> list[tuple[int, int]]:
        """(bit, class) of the call of each class in the window that was completed first, in order of completion."""
        found = []
        if self._is_wide(window):
            for c, members in enumerate(self.by_class):
                members = members >> p & window
                if members:
                    found.append((members & -members, c))
            found.sort()
            return found
        tried = 0
        while window:
            low = window & -window
            window ^= low
            c = self.call[p + low.bit_length() - 1]
            if not tried >> c & 1:
                tried |= 1 << c
                found.append((low, c))
        return found

    def _known(self, p: int, mask: int, s: int, used: int, prev: int) -> bool:
        """Reduction (d): has this configuration, or one with fewer `info` calls, been met?  If not, remember it."""
        seen = self.seen
        key = (p, mask, s)
        before = seen.get(key)
        if prev >= 0:
            if before is not None and any(not old & ~used for old in before):
                return True
            key = (p, mask, s, prev)  # type: ignore[assignment]
            before = seen.get(key)
        if before is None:
            seen[key] = [used]
            self.held_bytes += 320 + (mask.bit_length() + used.bit_length()) // 7
            return False
        for old in before:
            if not old & ~used:
                return True
        if len(before) < _MOST_COMPARED:
            before.append(used)
            self.held_bytes += 48 + used.bit_length() // 7
            return False
        exact = (*key, -1, used)
        if exact in self.more:
            return True
        self.more.add(exact)
        self.held_bytes += 240 + (mask.bit_length() + used.bit_length()) // 7
        return False

    def _within_reach(self, c: int, p: int, dirty: int, free: int) -> bool:
        """Reduction (f)."""
        need, gives = self.classes.needs[c], self.classes.gives
        if need is ANY or any(gives[k] == need for _, k in self._first_of_each(p, dirty)):
            return True
        return any(members & free and gives[k] == need for k, members in self.info_classes)

    def _rest(self, p: int, mask: int, s: int, used: int, prev: int) -> None:
        """Push what may be placed at a configuration beside the call p, in order of completion, the `info` calls last (reductions (b), (e))."""
        classes, call = self.classes, self.call
        row, found = classes.rows[s], []
        without = classes.rows[prev] if prev >= 0 else None
        dirty = self.opens[p] & ~mask & ~self.pures[p]
        tried = 1 << call[p] if dirty & 1 else 0
        for low, c in self._first_of_each(p, dirty & ~1):
            if tried >> c & 1:
                continue
            tried |= 1 << c
            t = row[c]
            if t >= 0 and (without is None or without[c] != t):
                found.append((False, p, mask | low, t, used, -1))
        free = self.infos[p] & ~used
        if free:
            for c, members in self.info_classes:
                members &= free
                if not members or tried >> c & 1:
                    continue
                t = row[c]
                if t >= 0 and t != s and (without is None or without[c] != t):
                    found.append((False, p, mask, t, used | (members & -members), s))
        found.reverse()
        self.stack += found


def _calls(ops: Sequence[Operation], classes: Classes) -> list[_Timed]:
    """(invocation, completion or None, class) of every operation that may have happened."""
    ids, of, calls = classes.ids, classes.of, []
    for op in ops:
        kind = op.type
        if kind == "fail":
            continue
        f, value, result = op.f, op.value, op.result
        v = value if value.__class__ in PLAIN else canonical(value)
        if kind == "ok":
            key: Any = (f, v, result if result.__class__ in PLAIN else canonical(result))
            c = ids.get(key)
            calls.append((op.invoke, op.complete, of(f, value, result, True, key) if c is None else c))
        else:
            key = (f, v)
            c = ids.get(key)
            calls.append((op.invoke, None, of(f, value, None, False, key) if c is None else c))
    return calls
