"""A ladder's trials -> its cells: what held in every trial of a policy under a fault, against what is promised.

Decides: when a promise counts as kept, broken or open.  May not know: pages, how trials are run.
One trial that breaks the promised level, or loses an acknowledged write that the promise keeps, breaks the promise: that is a proof.  A promise is kept
`in n trials`, which is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from capray.stats import tidy, wilson_interval
from capray.studies.ladder import CHAIN, LEVELS, NONE, Row, strongest, weakest
from capray.studies.ladder_claims import FAULTS, RUNGS, Claim, FaultColumn, Rung

ABOVE: dict[str, tuple[str, ...]] = {
    "linearizable": (),
    "sequential": ("linearizable",),
    "causal": CHAIN[:2],
    "causal-consistency": CHAIN,
    "PRAM": CHAIN,
    "regular": ("linearizable",),
    "eventual": LEVELS[:-1],
}


class Cell(NamedTuple):
    """One policy under one fault.  `held`: each level's status over all trials; `loses`, `reorders`: how many trials lost acknowledged writes, or had some
    overwritten by the past; `within`: whether the promise was kept (None: left open)."""

    rung: Rung
    fault: FaultColumn
    rows: list[Row]
    claim: Claim
    held: dict[str, str]
    level: str
    loses: int
    reorders: int
    within: bool | None

    @property
    def sharp(self) -> bool:
        """Whether some trial showed that no more than the promise holds."""
        return (
            self.held[CHAIN[0]] == "invalid" if self.claim.level == NONE else any(self.held[name] == "invalid" for name in ABOVE.get(self.claim.level, CHAIN))
        )

    @property
    def verdict(self) -> str:
        """The comparison in words."""
        lost = f"; acknowledged writes lost in {self.loses}" if self.loses else ""
        if self.within is None:
            return "left open: a checker's budget was spent, or too few last reads were answered" + lost
        if not self.within:
            broken = any(self.held.get(name) == "invalid" for name in (self.claim.level, self.claim.beside or NONE))
            return ("BROKEN" if broken else "acknowledged writes LOST") + lost
        if self.claim.level == NONE:
            return "nothing promised; " + ("not linearizable" if self.sharp else "not seen to be less than linearizable") + lost
        return "as promised" + ("" if self.claim.level == CHAIN[0] else ", and no more" if self.sharp else "; nothing weaker than linearizable was seen") + lost

    @property
    def answered(self) -> float | None:
        """The share of what was asked in the fault (where it has no end of its own: at all) that was answered, over all trials."""
        shares = [row.get("availability") if (during := row.get("availability_during")) is None else during for row in self.rows]
        known = [share for share in shares if share is not None]
        return sum(known) / len(known) if known else None

    def broken(self, level: str) -> int:
        """How many trials broke a level."""
        return sum(row.get(f"holds_{level}") == "invalid" for row in self.rows)

    def example(self, level: str) -> Row | None:
        """The trial of the lowest seed that broke a level."""
        return next((row for row in self.rows if row.get(f"holds_{level}") == "invalid"), None)

    def as_json(self) -> dict[str, Any]:
        """One object as experiments print it, with the cell's coordinates and, for each broken level, a counterexample, in how many trials, and Wilson's 95 %
        interval of their share; `unbroken_below` bounds that share of the levels that held."""
        by_rank = sorted(self.rows, key=lambda row: row["rank"])
        examples = {
            level: {"seed": row["seed"], "why": row[f"why_{level}"], "trials": self.broken(level), "share": wilson_interval(self.broken(level), len(self.rows))}
            for level in LEVELS
            if (row := self.example(level)) is not None
        }
        return {
            "measure": "level",
            "published": self.claim.words,
            "simulated": self.level,
            "low": by_rank[-1]["level"],
            "high": by_rank[0]["level"],
            "within": self.within,
            "label": self.rung.name,
            "fault": self.fault.name,
            "policy": self.rung.policy,
            "settings": self.rung.settings,
            "trials": len(self.rows),
            "unbroken_below": unbroken_below(len(self.rows)),
            "held": self.held,
            "answered": None if self.answered is None else tidy(self.answered),
            "trials_losing_writes": self.loses,
            "trials_reordering_writes": self.reorders,
            "may_lose_writes": self.claim.loses,
            "source": self.claim.source,
            "broken": examples,
        }


def unbroken_below(trials: int) -> float:
    """With so many trials and none that broke a level: below which share of trials it is broken, with 95 % confidence (Clopper and Pearson 1934; the rule of
    three, exactly)."""
    return tidy(1 - 0.05 ** (1 / trials))


def cells(rows: Sequence[Row]) -> list[Cell]:
    """The cells of a ladder's rows, in the order of the claims' tables; rows of other labels are left out."""
    grouped: dict[tuple[str, str], list[Row]] = {}
    for row in sorted(rows, key=lambda row: row["seed"]):
        name, _, fault = row["label"].partition(" | ")
        grouped.setdefault((name, fault), []).append(row)
    return [cell_of(rung, fault, grouped[rung.name, fault.name]) for rung in RUNGS for fault in FAULTS if (rung.name, fault.name) in grouped]


def cell_of(rung: Rung, fault: FaultColumn, rows: list[Row]) -> Cell:
    """One cell."""
    claim, held = rung.claim(fault), weakest(rows)
    loses = sum(bool(row["lost_writes"] or row["lost_writes_provable"]) for row in rows)
    reorders = sum(bool(row["reordered_writes"]) for row in rows)
    statuses = {held[name] for name in (claim.level, claim.beside) if name not in (None, NONE)}
    within = False if "invalid" in statuses or (loses and not claim.loses) else None if "unknown" in statuses else True
    return Cell(rung, fault, rows, claim, held, strongest(held), loses, reorders, within)
