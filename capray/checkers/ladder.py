"""The graded ladder: which consistency a history reaches, strongest first; not one bit.

Decides: the order of the levels and what "the strongest that holds" means when some are unknown.  May not know: files.
Source of the order: Viotti and Vukolic, "Consistency in non-transactional distributed storage systems", ACM Computing Surveys 2016:
linearizable > sequential > causal memory (CM) > causal consistency (CC) > the four session guarantees; CCv stands beside CM.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from capray.checkers.causal import causal_all
from capray.checkers.linearizable import DEFAULT_BUDGET, by_key, linearizable
from capray.checkers.models import Model
from capray.checkers.sequential import sequential
from capray.checkers.sessions import sessions_verdicts
from capray.checkers.verdict import Verdict
from capray.record import Operation

_CHAIN = ("linearizable", "sequential", "causal", "causal-consistency")


class Ladder(msgspec.Struct):
    """`strongest` names the strongest level shown to hold ("none" if no level does); `levels` all verdicts, strongest first."""

    strongest: str
    levels: list[Verdict]

    def status_of(self, consistency: str) -> str:
        return next(verdict.status for verdict in self.levels if verdict.consistency == consistency)


def ladder(ops: Sequence[Operation], model: Model, initial: Any = None, budget: int = DEFAULT_BUDGET, order: Sequence[Any] | None = None) -> Ladder:
    """Every level's verdict.  Levels that are defined for distinct-value registers only are `unknown`, saying so, for other histories."""
    levels = [linearizable(ops, model, initial, budget)]
    whole = sequential(ops, model, initial, budget, order)
    levels.append(whole)
    if whole.status == "unknown" and len({op.key for op in ops}) > 1:
        levels.append(_sequential_by_key(ops, model, initial, budget))
    if model.name in ("register", "cas-register"):
        levels += list(causal_all(ops, initial).values())
        levels += sessions_verdicts(ops, initial)
    _imply(levels)
    return Ladder(strongest(levels), levels)


def _sequential_by_key(ops: Sequence[Operation], model: Model, initial: Any, budget: int) -> Verdict:
    groups = by_key(ops)
    verdicts = [sequential(group, model, initial, budget // len(groups)) for group in groups.values()]
    statuses = {verdict.status for verdict in verdicts}
    return Verdict(
        status="invalid" if "invalid" in statuses else ("unknown" if "unknown" in statuses else "valid"), consistency="sequential-by-key",
        algorithm="each key apart", ops=len(ops), keys=len(groups), states=sum(verdict.states for verdict in verdicts), by_key=True,
        note="each key apart: sequential consistency does not compose, so this is weaker than sequential",
    )


def _imply(levels: list[Verdict]) -> None:
    """What holds on a level holds on those below it: a level that could not be decided by itself takes that."""
    held = ""
    for name in _CHAIN:
        for verdict in levels:
            if verdict.consistency == name:
                if verdict.status == "unknown" and held:
                    verdict.status, verdict.note = "valid", f"implied by {held}"
                held = held or (name if verdict.status == "valid" else "")
    for verdict in levels:
        if verdict.status == "unknown" and held in ("linearizable", "sequential") and verdict.consistency not in _CHAIN:
            verdict.status, verdict.note = "valid", f"implied by {held}"


def strongest(levels: Sequence[Verdict]) -> str:
    """The strongest level that holds: one of the chain, else the session guarantees that do; "at least" where a stronger one is undecided."""
    unsure = ""
    for name in _CHAIN:
        for verdict in levels:
            if verdict.consistency == name:
                if verdict.status == "valid":
                    return f"{unsure}{name}"
                if verdict.status == "unknown":
                    unsure = "at least "
    others = [v.consistency for v in levels if v.status == "valid" and v.consistency not in (*_CHAIN, "sequential-by-key")]
    return unsure + ", ".join(others) if others else ("unknown" if unsure else "none")
