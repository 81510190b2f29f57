"""The windowed loop with the network and every node as Ray actors; and whole trials as Ray tasks.

Decides: which actor hosts what, how many trials ride together, what is run again when an actor dies.  May not know: what a message says.
Actors are started once and serve any number of trials, of any cluster size.  Trials in flight are split into two cohorts: while the nodes run one
cohort's windows, the network judges the other's messages.  The network actor owns the node actors; a dead node actor is replaced
and the trials that had a node on it are run again from their beginning, to the same digest; with the network actor its whole fleet goes, and the
driver starts another.
"""

from __future__ import annotations

import gc
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec
import ray
from ray.exceptions import RayActorError, RayError

from capray.errors import InputError
from capray.record import Operation, Record
from capray.scenario import Scenario
from capray.trial import simulate
from capray.windows import NEVER, NodeHost, WindowedTrial, _encode, _reports

Job = tuple[int, Scenario, int]  # (the caller's key, scenario, seed)
DEFAULT_IN_FLIGHT = 128
COHORTS = 1

_record_decoder = msgspec.msgpack.Decoder(Record)
_operation_decoder = msgspec.msgpack.Decoder(Operation)


def start_ray(address: str | None = None) -> None:
    """Connect to the Ray cluster at `address` (`auto`: the running one), or start one on this machine.  Raises InputError where none answers."""
    if ray.is_initialized():
        return
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
    try:
        if address is None:
            ray.init(include_dashboard=False, **options)
        else:
            ray.init(address=address, **options)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError, RayError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"address: {address!r} is not accepted; it takes the address of a running Ray cluster, or auto ({first[:160]})") from None


def _tune() -> None:
    """Rare garbage collections: a worker's garbage is counted, not cyclic."""
    gc.set_threshold(200_000, 20, 20)


class NodeActor(NodeHost):
    """A node of the simulated cluster, one hosted node for each trial in flight.  A plain class, made an actor by `ray.remote`."""

    def __init__(self) -> None:
        _tune()
        super().__init__()

    def process_id(self) -> int:
        """The process that this actor is."""
        import os

        return os.getpid()

    def take_and_round(self, opens: list[tuple[int, int, Scenario, int]], orders: bytes, closes: list[tuple[int, int]]) -> tuple[bytes, list[bytes]]:
        """One call a round: what ended is handed in, what is new is taken on, then the windows are run."""
        left = [self.finish(slot, node) for slot, node in closes]
        if opens:
            self.open(opens)
        return self.round(orders), left


class _Cohort:
    """Some of the trials in flight, whose windows go together."""

    def __init__(self) -> None:
        self.trials: dict[int, WindowedTrial] = {}
        self.opens: dict[int, list[tuple[int, int, Scenario, int]]] = {}
        self.calls: list[tuple[int, Any]] = []
        self.ending: list[int] = []


class NetworkActor:
    """Carries every message between node actors; judges cuts, latencies and connections of all trials in flight.  A plain class, made an
    actor by `ray.remote`.  Interactive use: `open`, `advance`, `call`, `partition`, `heal`, `close`."""

    def __init__(self, nodes_per_actor: int = 1, spread: bool = False) -> None:
        _tune()
        self.nodes_per_actor = nodes_per_actor
        self.spread = spread
        self.hosts: list[Any] = []
        self.keys: dict[int, Job] = {}
        self.waiting: deque[Job] = deque()
        self.cohorts = [_Cohort() for _ in range(COHORTS)]
        self.slots = 0
        self.replaced = 0
        self.rounds = 0
        self.single: WindowedTrial | None = None

    # ---- hosts -----------------------------------------------------------------------------------------------------------------------
    def _host_of(self, node: int) -> int:
        return node // self.nodes_per_actor

    def prepare(self, nodes: int) -> int:
        """Start the node actors that clusters of `nodes` nodes need.  Returns how many there are."""
        while len(self.hosts) < -(-nodes // self.nodes_per_actor):
            self.hosts.append(self._start(len(self.hosts)))
        return len(self.hosts)

    def _start(self, index: int) -> Any:
        options: dict[str, Any] = {"num_cpus": 0, "name": None}
        if self.spread:
            options["scheduling_strategy"] = "SPREAD"
        return ray.remote(NodeActor).options(**options).remote()

    def host_processes(self) -> list[int]:
        """Process ids of the node actors (tests kill them)."""
        return [ray.get(host.process_id.remote()) for host in self.hosts]

    # ---- many trials -----------------------------------------------------------------------------------------------------------------
    def run(self, jobs: list[Job], in_flight: int) -> Iterator[tuple[int, bytes, int]]:
        """Run every job, at most `in_flight` at once; yield (key, record as MessagePack, rounds) as each ends, in no fixed order."""
        self.waiting = deque(jobs)
        self.prepare(max(scenario.nodes for _, scenario, _ in jobs))
        share = max(1, in_flight // COHORTS)
        for cohort in self.cohorts:
            self._fill(cohort, share)
            self._call(cohort)
        while any(cohort.calls or cohort.trials for cohort in self.cohorts):
            for cohort in self.cohorts:
                for slot, record, rounds in self._collect(cohort):
                    yield self.keys.pop(slot)[0], record, rounds
                self._fill(cohort, share)
                self._call(cohort)

    def _fill(self, cohort: _Cohort, share: int) -> None:
        while self.waiting and len(cohort.trials) < share:
            job = self.waiting.popleft()
            self.slots += 1
            self.keys[self.slots] = job
            self._begin(cohort, self.slots, job[1], job[2])

    def _begin(self, cohort: _Cohort, slot: int, scenario: Scenario, seed: int) -> None:
        cohort.trials[slot] = WindowedTrial(scenario, seed, slot)
        for node in range(scenario.nodes):
            cohort.opens.setdefault(self._host_of(node), []).append((slot, node, scenario, seed))

    def _call(self, cohort: _Cohort) -> None:
        """Plan the next window of each trial and hand each node actor its part, in one call."""
        orders: dict[int, list[Any]] = {}
        closes: dict[int, list[tuple[int, int]]] = {}
        for slot in cohort.trials:
            trial = cohort.trials[slot]
            planned = trial.plan()
            for order in planned:
                orders.setdefault(self._host_of(order[1]), []).append(order)
            if not planned:
                cohort.ending.append(slot)
                for node in range(trial.scenario.nodes):
                    closes.setdefault(self._host_of(node), []).append((slot, node))
        opens, cohort.opens = cohort.opens, {}
        self.rounds += 1
        cohort.calls = [(host, self.hosts[host].take_and_round.remote(opens.get(host, []), _encode(orders.get(host, [])), closes.get(host, [])))
                        for host in range(len(self.hosts)) if host in orders or host in opens or host in closes]

    def _collect(self, cohort: _Cohort) -> list[tuple[int, bytes, int]]:
        """Take the answers of a round; judge what was sent; give back the trials that ended."""
        answers: dict[int, list[tuple[int, int, Any]]] = {}
        left: dict[int, list[bytes]] = {slot: [] for slot in cohort.ending}
        dead: list[int] = []
        calls, cohort.calls = cohort.calls, []
        for host, call in calls:
            try:
                reports, ended = ray.get(call)
            except RayActorError:
                dead.append(host)
                continue
            for slot, node, wake, deeds in _reports.decode(reports):
                answers.setdefault(slot, []).append((node, wake, deeds))
            ended_slots = [slot for slot in cohort.ending for node in range(cohort.trials[slot].scenario.nodes) if self._host_of(node) == host]
            for slot, part in zip(ended_slots, ended):
                left[slot].append(part)
        again = self._replace(cohort, dead) if dead else set()
        for slot, reports_of in answers.items():
            if slot not in again:
                cohort.trials[slot].absorb(reports_of)
        finished = [slot for slot in cohort.ending if slot not in again]
        cohort.ending = []
        return [(slot, _encode(cohort.trials[slot].record(left[slot])), cohort.trials.pop(slot).rounds) for slot in finished]

    def _replace(self, cohort: _Cohort, dead: list[int]) -> set[int]:
        """Start dead node actors anew; begin again the trials that had a node there, in every cohort."""
        for host in dead:
            self.replaced += 1
            self.hosts[host] = self._start(host)
        again: set[int] = set()
        for other in self.cohorts:
            touched = [slot for slot, trial in other.trials.items() if any(self._host_of(node) in dead for node in range(trial.scenario.nodes))]
            if other is not cohort:
                self._settle(other)
            for slot in touched:
                _, scenario, seed = self.keys[slot]
                self._begin(other, slot, scenario, seed)
            if other is cohort:
                again.update(touched)
        return again

    def _settle(self, other: _Cohort) -> None:
        """Another cohort's round is under way when an actor is found dead: begin all of its trials again."""
        for _, call in other.calls:
            try:
                ray.get(call)
            except RayActorError:
                continue
        other.calls = []
        other.ending = []
        other.opens = {}
        for slot, trial in list(other.trials.items()):
            self._begin(other, slot, trial.scenario, trial.seed)

    # ---- one trial by hand: the interactive cluster on actors -----------------------------------------------------------------------
    def open(self, scenario: Scenario, seed: int) -> None:
        """Begin one trial that is advanced by hand."""
        self.prepare(scenario.nodes)
        self.single = WindowedTrial(scenario, seed, 0)
        ray.get([self.hosts[self._host_of(node)].open.remote([(0, node, scenario, seed)]) for node in range(scenario.nodes)])

    def _one(self) -> WindowedTrial:
        if self.single is None:
            raise InputError("no trial is open; call open(scenario, seed) first")
        return self.single

    def advance(self, until: int) -> None:
        """Run everything up to and including `until` (virtual microseconds)."""
        trial = self._one()
        trial.until = until
        while planned := trial.plan():
            by_host: dict[int, list[Any]] = {}
            for order in planned:
                by_host.setdefault(self._host_of(order[1]), []).append(order)
            reports = ray.get([self.hosts[host].round.remote(_encode(orders)) for host, orders in by_host.items()])
            trial.absorb([row[1:] for report in reports for row in _reports.decode(report)])

    def call(self, node: int, at: int, f: str, key: str, value: Any) -> int:
        """A client of `node` asks at `at`.  Returns the request's id."""
        request, report = ray.get(self.hosts[self._host_of(node)].call.remote(0, node, at, f, key, value))
        self._one().absorb([row[1:] for row in _reports.decode(report)])
        return int(request)

    def ask(self, at: int, node: int, f: str, key: str, value: Any, step: int) -> tuple[int, bytes]:
        """`call`, then let time pass in steps until the operation is over.  Returns when that is, and the operation as MessagePack."""
        host, request = self.hosts[self._host_of(node)], self.call(node, at, f, key, value)
        while (operation := ray.get(host.answered.remote(0, node, request))) is None:
            at += step
            self.advance(at)
        return at, operation

    def peek(self, node: int, key: str) -> Any:
        """What a replica holds."""
        return ray.get(self.hosts[self._host_of(node)].peek.remote(0, node, key))

    def begin_fault(self, at: int, fault: Any) -> int:
        """A fault begins now.  Returns its index, for `end_fault`."""
        return self._one().network.begin(at, fault)

    def end_fault(self, at: int, index: int) -> None:
        """A fault ends now."""
        self._one().network.end_fault(at, index)

    def partition(self, groups: str, at: int) -> int:
        """Cut the network into groups (`0,1|2,3,4`, or a shape's name) at virtual time `at`.  Returns the fault's index."""
        from capray.faults import Fault

        return self.begin_fault(at, Fault(shape=groups))

    def heal(self, at: int) -> None:
        """End every cut at virtual time `at`."""
        for index, window in enumerate(self._one().network.windows):
            if window.kind == "partition":
                self.end_fault(at, index)

    def roles(self) -> dict[int, str]:
        """The newest role that each node announced."""
        return self._one().network.roles

    def record(self, end: int) -> bytes:
        """The record up to `end`, as MessagePack; the trial goes on."""
        trial = self._one()
        return _encode(trial.record(ray.get([self.hosts[self._host_of(node)].leave.remote(0, node, end) for node in range(trial.scenario.nodes)]), end))

    def close(self) -> bytes:
        """End the trial by hand; returns its record as MessagePack."""
        trial = self._one()
        self.single = None
        return _encode(trial.record(ray.get([self.hosts[self._host_of(node)].finish.remote(0, node) for node in range(trial.scenario.nodes)])))

    def state(self) -> dict[str, int]:
        """Counts: hosts, replaced hosts, rounds."""
        return {"hosts": len(self.hosts), "replaced": self.replaced, "rounds": self.rounds}


class HandDriven:
    """One trial on actors of its own, driven by hand from here: what the interactive cluster runs on with `engine="actors"`."""

    def __init__(self, scenario: Scenario, seed: int, address: str | None = None) -> None:
        start_ray(address)
        self.network = ray.remote(NetworkActor).options(num_cpus=0).remote()
        ray.get(self.network.open.remote(scenario, seed))

    def advance(self, until: int) -> None:
        """Run everything up to and including `until`."""
        ray.get(self.network.advance.remote(until))

    def ask(self, at: int, node: int, f: str, key: str, value: Any, step: int) -> tuple[int, Operation]:
        """Ask, and let time pass in steps until the operation is over.  Returns when that is, and the operation."""
        now, operation = ray.get(self.network.ask.remote(at, node, f, key, value, step))
        return int(now), _operation_decoder.decode(operation)

    def begin_fault(self, at: int, fault: Any) -> int:
        """A fault begins now; its index."""
        return int(ray.get(self.network.begin_fault.remote(at, fault)))

    def end_fault(self, at: int, index: int) -> None:
        """A fault ends now."""
        ray.get(self.network.end_fault.remote(at, index))

    def peek(self, node: int, key: str) -> Any:
        """What a replica holds; None where its process is down."""
        return ray.get(self.network.peek.remote(node, key))

    def roles(self) -> dict[int, str]:
        """The newest role that each node announced."""
        return dict(ray.get(self.network.roles.remote()))

    def record(self, end: int) -> Record:
        """All that happened up to `end`."""
        return _record_decoder.decode(ray.get(self.network.record.remote(end)))

    def close(self) -> None:
        """End the actors."""
        ray.kill(self.network)


class Fleet:
    """One network actor and its node actors, from the driver's side.  Serves any number of sweeps; `close` ends its actors."""

    def __init__(self, nodes_per_actor: int = 1, spread: bool = False) -> None:
        self.nodes_per_actor = nodes_per_actor
        self.spread = spread
        self.restarts = 0
        self.network = self._start()

    def _start(self) -> Any:
        options: dict[str, Any] = {"num_cpus": 0}
        return ray.remote(NetworkActor).options(**options).remote(self.nodes_per_actor, self.spread)

    def run(self, jobs: Iterable[Job], in_flight: int = DEFAULT_IN_FLIGHT, attempts: int = 5) -> Iterator[tuple[int, Record, int]]:
        """Run every job on the actors; yield (key, record, rounds) as each ends.  A dead network actor is replaced with its fleet, and what had not
        ended is run again, at most `attempts` times without any trial ending in between."""
        left = {key: (key, scenario, seed) for key, scenario, seed in jobs}
        failures = 0
        while left:
            try:
                for item in self.network.run.options(num_returns="streaming").remote(list(left.values()), in_flight):
                    key, record, rounds = ray.get(item)
                    if left.pop(key, None) is not None:
                        failures = 0
                        yield key, _record_decoder.decode(record), rounds
            except RayActorError:
                failures += 1
                if failures >= attempts:
                    raise
                self.restarts += 1
                time.sleep(0.1 * failures)
                self.network = self._start()

    def close(self) -> None:
        """End the actors."""
        ray.kill(self.network)


def _simulate_whole(scenario: Scenario, seed: int) -> bytes:
    _tune()
    return _encode(simulate(scenario, seed))


_whole_trial = ray.remote(num_cpus=1)(_simulate_whole)


def run_tasks(jobs: Iterable[Job], in_flight: int = 0) -> Iterator[tuple[int, Record, int]]:
    """Engine `tasks`: each trial whole in a Ray task, at most `in_flight` at once (0: two for each CPU)."""
    queue = deque(jobs)
    limit = in_flight or 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
    running: dict[Any, Job] = {}
    while queue or running:
        while queue and len(running) < limit:
            job = queue.popleft()
            running[_whole_trial.remote(job[1], job[2])] = job
        ready, _ = ray.wait(list(running), num_returns=1)
        for reference in ready:
            key, _, _ = running.pop(reference)
            yield key, _record_decoder.decode(ray.get(reference)), 0


def run_local(jobs: Iterable[Job]) -> Iterator[tuple[int, Record, int]]:
    """Engine `local`: one trial after another in this process."""
    for key, scenario, seed in jobs:
        yield key, simulate(scenario, seed), 0


Runner = Callable[[Iterable[Job]], Iterator[tuple[int, Record, int]]]

__all__ = ["Fleet", "NetworkActor", "NodeActor", "run_tasks", "run_local", "start_ray", "NEVER"]
