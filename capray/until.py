"""How many seeds a point gets where the user asks for an interval and not for a number (`--until-interval MEASURE=WIDTH`).

Decides: when an interval is narrow enough, and how many seeds come next.  May not know: how trials are run, what a measure means.
A point is looked at when all its seeds so far have ended, never in between, and seeds are taken in their order: which seeds it gets depends on the scenario
alone, not on the order of completion, the engine or a kill.  Each look comes after half as many seeds again, so that there are few.
Stopping at a narrow interval is a fixed-width sequential procedure (Chow and Robbins 1965): its interval holds the stated 95 % only as the width goes to 0. The
interval of few seeds is narrow by chance too often (the look at which it is stops there), so it covers somewhat less; a larger `--seeds`, the number that each
point gets at first, makes up for that.
"""

from __future__ import annotations

from difflib import get_close_matches
from functools import lru_cache
from typing import Any

import msgspec

from capray.errors import wrong
from capray.metrics import measure
from capray.record import FaultWindow, Record

FEWEST = 5  # seeds before the first look: the width of fewer says too little
AT_MOST = 20  # times the seeds at first, where no other limit is given


@lru_cache(maxsize=1)
def known_measures() -> tuple[str, ...]:
    """The columns that a measurement has, whatever was simulated (columns of sides that only some cuts have are not among them)."""
    cut = FaultWindow(kind="partition", at=0, until=1, groups=((0,), (1, 2)), blocked=((0, 1), (1, 0), (0, 2), (2, 0)))
    empty = Record(policy="", nodes=3, seed=0, scenario="", history=[], faults=[cut], versions=[], placement={}, counters={"messages": 0, "bytes": 0}, end=2)
    return tuple(sorted(measure(empty)))


class Until(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Add seeds to a point until the 95 % interval of `measure` is at most `width` wide (in the measure's unit), or it has `max_seeds` seeds."""

    measure: str
    width: float
    max_seeds: int

    def validate(self, seeds: int) -> None:
        """Refuse what cannot end or says nothing; `seeds`: what each point gets at first.  Raises InputError."""
        if not self.width > 0:
            raise wrong("until-interval", f"{self.measure}={self.width:g}", "a width above 0")
        if seeds < FEWEST:
            raise wrong("seeds", seeds, f"at least {FEWEST} with --until-interval: an interval of fewer says too little")
        if not seeds <= self.max_seeds <= 1_000_000:
            raise wrong("max-seeds", self.max_seeds, f"a whole number from --seeds, {seeds}, to 1000000")
        known = known_measures()
        if self.measure not in known:
            near = get_close_matches(self.measure, known, 3, 0.5) or ["availability", "stale_share_during", "failover_write_us"]
            raise wrong("until-interval", self.measure, f"a measure, narrowed or not: one of {len(known)} columns of the table, such as {', '.join(near)}")

    def narrow(self, values: list[Any]) -> bool:
        """Whether a point with these values, in the order of its seeds, gets no more: narrow enough, at the limit, or nowhere measured."""
        from capray.stats import summarize

        found = summarize(values)
        if len(values) >= self.max_seeds or not found.trials:
            return True
        return found.low is not None and found.high is not None and found.high - found.low <= self.width

    def more(self, seeds: int) -> int:
        """How many seeds come after the first `seeds`."""
        return min(self.max_seeds - seeds, max(1, seeds // 2))


def parse_until(text: str, seeds: int, max_seeds: int | None = None) -> Until:
    """`MEASURE=WIDTH` (a width of a `_us` measure may have a unit: `500ms`).  Raises InputError."""
    from capray.errors import duration_us

    measure, equals, width = text.partition("=")
    try:
        number = float(duration_us(width)) if measure.endswith("_us") and not _is_number(width) else float(width)
    except ValueError:
        number = 0.0
    if not equals or not measure or not number > 0 or number == float("inf"):
        raise wrong("until-interval", text, "MEASURE=WIDTH, such as availability=0.02 or failover_write_us=500ms")
    return Until(measure=measure, width=number, max_seeds=AT_MOST * seeds if max_seeds is None else max_seeds)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
