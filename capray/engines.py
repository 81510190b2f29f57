"""The three engines behind one call: the same jobs, the same records; only cost differs.

Decides: which engine runs jobs, and where what follows a trial (its measuring) is done.  May not know: sweeps, tables.
Ray is not imported before an engine that needs it is asked for.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Self

import msgspec

from capray.errors import told, wrong
from capray.record import Record
from capray.scenario import Scenario
from capray.trial import Trial
from capray.watchdog import watched

ENGINES = ("actors", "tasks", "local")
PLACEMENTS = ("pack", "spread")
DEFAULT_IN_FLIGHT = 512  # on the actors, over all fleets: enough that a round's own cost hardly counts, at well under 1 MB a trial and node
NOISE = r"worker processes have been started on node|types of tasks seen"  # what Ray warns of where all is as it should be: node actors ask for no CPU

Job = tuple[int, Scenario, int]  # (the caller's key, scenario, seed)
Outcome = Any  # a trial's record (or what `then` makes of it), or the text of why it failed
Ending = tuple[int, Outcome, int]  # (the job's key, outcome, rounds on the actors)
Then = Callable[[Scenario, Record], Any]


class Where(msgspec.Struct, frozen=True, kw_only=True):
    """Where trials are run.  `fleets` 0: as many as the cluster's processors allow."""

    engine: str = "actors"
    address: str | None = None
    in_flight: int = DEFAULT_IN_FLIGHT
    nodes_per_actor: int = 1
    fleets: int = 0
    placement: str = "pack"

    def validate(self) -> None:
        """Refuse what is no engine, or makes no sense.  Raises InputError."""
        if self.engine not in ENGINES:
            raise wrong("engine", self.engine, "one of " + ", ".join(ENGINES))
        if self.placement not in PLACEMENTS:
            raise wrong("placement", self.placement, "one of " + ", ".join(PLACEMENTS))
        for name in ("in_flight", "nodes_per_actor"):
            if not 1 <= getattr(self, name) <= 1_000_000:
                raise wrong(name.replace("_", "-"), getattr(self, name), "a whole number from 1 to 1000000")
        if not 0 <= self.fleets <= 10_000:
            raise wrong("fleets", self.fleets, "auto, or a whole number from 1 to 10000")


def parse_fleets(text: str) -> int:
    """`auto` (0) or a number of fleets.  Raises InputError."""
    if text != "auto" and not (text.isdecimal() and int(text) > 0):
        raise wrong("fleets", text, "auto, or a whole number from 1 to 10000")
    return 0 if text == "auto" else int(text)


def attempt(scenario: Scenario, seed: int, then: Then | None = None) -> Outcome:
    """A trial's record (or what `then` makes of it), or the text of the error that it ended with.  `scenario` must be resolved."""
    try:
        trial = Trial(scenario, seed)
        with watched(trial.soonest):
            trial.advance(scenario.end_us)
        return judged(scenario, trial.record(), then)
    except (Exception, SystemExit) as error:  # noqa: BLE001 (a policy's own: whatever it raises is the trial's result, not the sweep's)
        return told(error)


def judged(scenario: Scenario, record: Record, then: Then | None) -> Outcome:
    """What `then` makes of a record, or the text of its error."""
    try:
        return record if then is None else then(scenario, record)
    except Exception:  # noqa: BLE001 (a record that cannot be measured must not stop the others)
        return traceback.format_exc()


def run_local(jobs: Iterable[Job], then: Then | None = None) -> Iterator[Ending]:
    """Engine `local`: one trial after another in this process."""
    for key, scenario, seed in jobs:
        yield key, attempt(scenario, seed, then), 0


def run(jobs: list[Job], engine: str = "actors", address: str | None = None, in_flight: int = DEFAULT_IN_FLIGHT, nodes_per_actor: int = 1,
        fleets: int = 0, placement: str = "pack") -> Iterator[Ending]:
    """Run jobs (key, scenario, seed) on an engine; yield (key, record or the text of its failure, rounds) as they end.  Raises InputError."""
    where = Where(engine=engine, address=address, in_flight=in_flight, nodes_per_actor=nodes_per_actor, fleets=fleets, placement=placement)
    with Engine(where) as opened:
        yield from opened.run(jobs)


class Engine:
    """An engine that stays up for several runs, as a context."""

    def __init__(self, where: Where, title: str = "") -> None:
        """`title`: what its actors are called in Ray's dashboard.  Raises InputError."""
        where.validate()
        self.where = where
        self.title = title
        self.fleets: Any = None

    def __enter__(self) -> Self:
        if self.where.engine != "local":
            os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", NOISE)  # before Ray is imported, which reads it then
        if self.where.address is not None and self.where.engine != "local":  # a cluster that is not there is told before anything is written
            from capray.raycluster import start_ray

            start_ray(self.where.address)
        return self

    def __exit__(self, *_: object) -> None:
        if self.fleets is not None:
            self.fleets.close()

    def run(self, jobs: list[Job], then: Then | None = None) -> Iterator[Ending]:
        """Run jobs; yield (key, outcome, rounds) as they end."""
        where = self.where
        if where.engine == "local":
            yield from run_local(jobs, then)
            return
        from capray.fleet import Fleets, run_tasks
        from capray.raycluster import start_ray

        start_ray(where.address)
        if where.engine == "tasks":
            yield from run_tasks(jobs, 0, then)
            return
        if self.fleets is None:
            self.fleets = Fleets(where.fleets, where.nodes_per_actor, where.placement, self.title)
        scenarios = {key: scenario for key, scenario, _ in jobs} if then else {}
        for key, outcome, rounds in self.fleets.run(jobs, where.in_flight):
            yield key, judged(scenarios[key], outcome, then) if then and isinstance(outcome, Record) else outcome, rounds
