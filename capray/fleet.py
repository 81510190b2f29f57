"""Fleets of actors side by side, from the driver: each a network actor and its node actors; and whole trials as Ray tasks.

Decides: how many fleets there are and on which machines, which fleet is given which trial, what is run again when a process dies, and when a trial
is given up.  May not know: windows, messages, measures.
Trials wait in one queue, the costliest first; the fleet with the least to do is given the next, one of the cluster size that it is running if
there is one (list scheduling, longest first: Graham 1969).  A fleet holds no more than its share of the trials in flight and answers when the
driver asks, so that what has ended and is not yet measured stays bounded.  A trial that processes died under again and again is run by itself,
in a task: if that dies too, the trial has failed.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import count
from typing import Any

import msgspec
import ray
from ray.exceptions import RayError, RayTaskError

from capray.actors import PLACED, SUSPECT, Job, NetworkActor
from capray.engines import DEFAULT_IN_FLIGHT, Ending, Outcome, Then, attempt
from capray.errors import InputError
from capray.raycluster import machines
from capray.record import Record
from capray.rounds import tune
from capray.scenario import Scenario
from capray.windows import _encode

CPUS_A_FLEET = 2  # what one fleet keeps busy: its network actor a little less than one, its node actors together a little more
CALLS = 2  # asked of a fleet at once, so that it need not wait for the driver
STARTS = 5  # of a fleet, without any trial ending in between
DEATHS = 3  # of a task's process, and its trial has failed

_opened = count(1)
_record_decoder = msgspec.msgpack.Decoder(Record)


def cost(scenario: Scenario) -> float:
    """What a trial is expected to cost: nodes x (operations and a heartbeat a second) x seconds; only the proportions matter."""
    return scenario.nodes * (1.0 + scenario.workload.rate) * scenario.end_us


class Waiting:
    """The trials that wait, by cluster size, the costliest first."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        self.by_size: dict[int, deque[Job]] = {}
        for job in sorted(jobs, key=lambda job: (-job[1].nodes, -cost(job[1]), job[0])):
            self.by_size.setdefault(job[1].nodes, deque()).append(job)

    def take(self, size: int) -> Job | None:
        """The next trial of that cluster size; where there is none, of the largest."""
        line = self.by_size.get(size) or next((line for line in self.by_size.values() if line), None)
        return line.popleft() if line else None

    def put_back(self, job: Job) -> None:
        """It is run again, before the others."""
        self.by_size.setdefault(job[1].nodes, deque()).appendleft(job)


class Fleet:
    """One network actor and its node actors, from the driver's side."""

    def __init__(self, nodes_per_actor: int = 1, placement: str = "pack", title: str = "", machine: str = "") -> None:
        """`machine`: the Ray id of the machine to start on; empty: wherever Ray likes."""
        self.nodes_per_actor, self.placement, self.title, self.machine = nodes_per_actor, placement, title, machine
        self.restarts = 0
        self.given: dict[int, Job] = {}
        self.fresh: list[Job] = []  # given, but not yet sent
        self.calls: deque[Any] = deque()
        self.load = 0.0
        self.size = 0
        self.network = self._start()

    def _start(self) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        title = self.title + (f" start {self.restarts + 1}" if self.restarts and self.title else "")
        options: dict[str, Any] = {"name": title.replace("{}", "network")} if title else {}
        if self.machine:
            options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(self.machine, soft=True)
        return ray.remote(NetworkActor).options(**PLACED, **options).remote(self.nodes_per_actor, self.placement, title)

    def take(self, job: Job) -> None:
        """It is this fleet's to run."""
        self.given[job[0]] = job
        self.fresh.append(job)
        self.load += cost(job[1])
        self.size = job[1].nodes

    def ask(self, in_flight: int) -> None:
        """Send what is new, and keep CALLS calls under way as long as there is anything to do."""
        while self.given and len(self.calls) < CALLS:
            self.calls.append(self.network.work.remote(self.fresh, in_flight))
            self.fresh = []

    def over(self, key: int) -> Job | None:
        """A trial is no longer this fleet's; None where it was not."""
        job = self.given.pop(key, None)
        if job is not None:
            self.load -= cost(job[1])
        return job

    def restart(self, machine: str = "") -> list[Job]:
        """Its network actor is dead or out of reach: another one takes its place.  Returns what it had been given."""
        lost = list(self.given.values())
        self.given, self.fresh, self.calls, self.load = {}, [], deque(), 0.0
        self.restarts += 1
        self.machine = machine
        self.close()
        self.network = self._start()
        return lost

    def run(self, jobs: Iterable[Job], in_flight: int = DEFAULT_IN_FLIGHT) -> Iterator[Ending]:
        """Run every job on this fleet alone."""
        return _run_on([self], jobs, in_flight)

    def close(self) -> None:
        """End the actors."""
        if ray.is_initialized():
            ray.kill(self.network)


class Fleets:
    """Several fleets side by side, over the cluster's machines by their processors.  Serves any number of runs; `close` ends the actors."""

    def __init__(self, number: int = 0, nodes_per_actor: int = 1, placement: str = "pack", title: str = "") -> None:
        """`number` 0: as many as the cluster's processors allow."""
        places, turn = plan(number), next(_opened)
        if title:
            title += " {}" + (f" sweep {turn}" if turn > 1 else "")  # the names of an earlier sweep of this process may not be free yet
        several = title and len(places) > 1
        self.fleets = [Fleet(nodes_per_actor, placement, title + (f" fleet {i}" if several else ""), machine) for i, machine in enumerate(places)]

    def run(self, jobs: Iterable[Job], in_flight: int = DEFAULT_IN_FLIGHT) -> Iterator[Ending]:
        """Run every job; yield (key, record or error, rounds) as each ends, in no fixed order.  Raises InputError where the actors do not stay alive."""
        return _run_on(self.fleets, jobs, in_flight)

    def close(self) -> None:
        """End the actors."""
        for fleet in self.fleets:
            fleet.close()


def plan(number: int = 0) -> list[str]:
    """The machine (its Ray id) of each fleet: one for each CPUS_A_FLEET processors of a machine, at least one in all; or so many as asked, each
    where most processors are left for it."""
    processors = {str(machine["NodeID"]): float(machine["Resources"].get("CPU", 0)) for machine in machines()}
    number = number or max(1, sum(int(count // CPUS_A_FLEET) for count in processors.values()))
    fleets = dict.fromkeys(processors, 0)
    out = []
    for _ in range(number):
        where = max(processors, key=lambda machine: processors[machine] / (fleets[machine] + 1), default="")
        if where:
            fleets[where] += 1
        out.append(where)
    return out


def _run_on(fleets: list[Fleet], jobs: Iterable[Job], in_flight: int) -> Iterator[Ending]:
    waiting = Waiting(jobs)
    share = max(1, in_flight // len(fleets))
    deaths: dict[int, int] = {}
    suspects: list[Job] = []
    failures = 0
    while _deal(fleets, waiting, share):
        [ready], _ = ray.wait([fleet.calls[0] for fleet in fleets if fleet.calls], num_returns=1)
        fleet = next(fleet for fleet in fleets if fleet.calls and fleet.calls[0] is ready)
        try:
            answer = ray.get(fleet.calls.popleft())
        except RayTaskError:
            raise  # ours, not a machine's
        except RayError as error:
            failures += 1
            if failures >= STARTS * len(fleets):
                raise InputError(f"engine: the actors do not stay alive ({_first_line(error)}); what was finished is kept") from None
            time.sleep(0.1 * failures)
            for job in fleet.restart():
                deaths[job[0]] = deaths.get(job[0], 0) + 1
                if deaths[job[0]] >= SUSPECT:
                    suspects.append(job)
                else:
                    waiting.put_back(job)
            continue
        for key, record, text, rounds, given_back in answer:
            mine = fleet.over(key)
            if mine is not None and given_back:
                suspects.append(mine)
            elif mine is not None:
                failures = 0
                yield key, text or _record_decoder.decode(record), rounds
    yield from run_tasks(suspects)


def _deal(fleets: list[Fleet], waiting: Waiting, share: int) -> bool:
    """Give each next trial to the fleet with the least to do that still has room; False once nothing is left to do."""
    ahead = share + share // 8 + 1  # a few more than it may run at once: it goes on without asking
    while roomy := [fleet for fleet in fleets if len(fleet.given) < ahead]:
        fleet = min(roomy, key=lambda fleet: fleet.load)
        job = waiting.take(fleet.size)
        if job is None:
            break
        fleet.take(job)
    for fleet in fleets:
        fleet.ask(share)
    return any(fleet.given for fleet in fleets)


# ---- whole trials as tasks -----------------------------------------------------------------------------------------------------------
def _simulate_whole(scenario: Scenario, seed: int, then: Then | None) -> tuple[bytes, Any]:
    tune()
    outcome = attempt(scenario, seed, then)
    return (_encode(outcome), None) if isinstance(outcome, Record) else (b"", outcome)


_whole_trial = ray.remote(num_cpus=1, max_retries=0)(_simulate_whole)


def run_tasks(jobs: Iterable[Job], in_flight: int = 0, then: Then | None = None) -> Iterator[Ending]:
    """Engine `tasks`: each trial whole in a Ray task, at most `in_flight` at once (0: two for each CPU), `then` applied to its record there.
    A trial whose process dies is run again; one that takes DEATHS processes with it has failed."""
    queue = deque(jobs)
    if not queue:
        return
    limit = in_flight or 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
    running: dict[Any, Job] = {}
    deaths: dict[int, int] = {}
    while queue or running:
        while queue and len(running) < limit:
            job = queue.popleft()
            running[_whole_trial.remote(job[1], job[2], then)] = job
        ready, _ = ray.wait(list(running), num_returns=1)
        for reference in ready:
            job = running.pop(reference)
            try:
                record, outcome = ray.get(reference)
            except RayTaskError:
                raise
            except RayError as error:
                deaths[job[0]] = deaths.get(job[0], 0) + 1
                if deaths[job[0]] < DEATHS:
                    queue.appendleft(job)
                else:
                    yield job[0], f"the process that ran it died {DEATHS} times (killed, or out of memory?): {_first_line(error)}", 0
                continue
            yield job[0], _record_decoder.decode(record) if record else outcome, 0


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]


__all__ = ["Fleet", "Fleets", "Outcome", "cost", "plan", "run_tasks"]
