"""The windowed loop with the network and every node as Ray actors.

Decides: which actor hosts what, how many trials ride together, what is run again when a node actor dies.  May not know: what a message says.
Actors are started once and serve any number of trials, of any cluster size.  Trials in flight are split into two cohorts: while the nodes run one
cohort's windows, the network judges the other's messages.  The network actor owns the node actors; a dead node actor is replaced and
the trials in flight are run again from their beginning, to the same digest; with the network actor its whole fleet goes, and the driver starts another
(capray.fleet).  A trial that fails by itself (a policy raises) ends with the text of its error, and the others go on.
"""

from __future__ import annotations

import os
import pickle
from collections import deque
from typing import Any, NamedTuple

import ray

from capray.errors import InputError
from capray.raycluster import machine_for
from capray.rounds import Calls, HostsDied, NodeActor, Opening, Rounds, living, rounds_over, tune
from capray.scenario import Scenario
from capray.windows import NEVER, WindowedTrial, _encode, _reports

Job = tuple[int, Scenario, int]  # (the caller's key, scenario, seed)
COHORTS = 2
PLACED: dict[str, Any] = {"num_cpus": 0, "memory": 1}  # a byte: Ray pays no heed to where an actor should be that asks for nothing at all
CLOSING = 2  # trials of a cohort that hand in what they leave, at most, in one round
SUSPECT = 3  # a trial that was in flight at so many deaths of a node actor may be what kills them: it is given back


class Ended(NamedTuple):
    """A trial that is over: its record as MessagePack, or the text of its error; or it is given back, since node actors died under it."""

    key: int
    record: bytes
    error: str
    rounds: int
    given_back: bool = False


class _Cohort:
    """Some of the trials in flight, whose windows go together."""

    def __init__(self) -> None:
        self.trials: dict[int, WindowedTrial] = {}
        self.opens: dict[int, list[Opening]] = {}
        self.round: Any = None  # under way
        self.ended: deque[int] = deque()  # trials whose time is over, not yet asked for what they leave
        self.left: dict[int, dict[int, bytes]] = {}  # slot -> node -> what it leaves, as far as it came

    # What is done for each order and report is done here: every call of an actor class's own method passes Ray's tracing, some microseconds long.
    def plan(self, nodes_per_actor: int) -> dict[int, list[Any]]:
        """The next window of each trial, as the orders of each node actor."""
        orders: dict[int, list[Any]] = {}
        for slot, trial in self.trials.items():
            if trial.over:
                continue
            for order in trial.plan():
                host = order[1] // nodes_per_actor
                if host in orders:
                    orders[host].append(order)
                else:
                    orders[host] = [order]
            if trial.over:
                self.ended.append(slot)
        return orders

    def absorb(self, reports: list[bytes]) -> dict[int, int]:
        """Take the node actors' reports; judge what was sent.  Returns how many nodes of which trials have handed in all that they leave."""
        answers: dict[int, list[tuple[int, int, Any]]] = {}
        whole: dict[int, int] = {}
        for report in reports:
            if not report:
                continue
            windows, parts = pickle.loads(report)
            for slot, node, wake, deeds in _reports.decode(windows):
                if slot in answers:
                    answers[slot].append((node, wake, deeds))
                else:
                    answers[slot] = [(node, wake, deeds)]
            for slot, node, part, last in parts:
                self.left[slot][node] = self.left[slot].get(node, b"") + part
                whole[slot] = whole.get(slot, 0) + last
                self.trials[slot].handed_in += last
        for slot, found in answers.items():
            self.trials[slot].absorb(found)
        return whole


class NetworkActor:
    """Carries every message between node actors; judges cuts, latencies and connections of all trials in flight.  A plain class, made an
    actor by `ray.remote`.  Interactive use: `open`, `advance`, `call`, `partition`, `heal`, `close`."""

    def __init__(self, nodes_per_actor: int = 1, placement: str = "pack", title: str = "") -> None:
        """`placement`: node actors on this actor's machine (`pack`) or over all (`spread`).  `title`: what they are called in Ray's
        dashboard, {} for the node; empty: they have no names."""
        tune()
        self.nodes_per_actor = nodes_per_actor
        self.placement = placement
        self.title = title
        self.hosts: list[Any] = []
        self.keys: dict[int, Job] = {}
        self.waiting: deque[Job] = deque()
        self.cohorts = [_Cohort() for _ in range(COHORTS)]
        self.slots = 0
        self.replaced = 0
        self.starts: dict[int, int] = {}
        self.deaths: dict[int, int] = {}  # slot -> how often a node actor died while it was in flight
        self.rounds = 0
        self.graph: Rounds | Calls | None = None
        self.single: WindowedTrial | None = None

    # ---- hosts -----------------------------------------------------------------------------------------------------------------------
    def _host_of(self, node: int) -> int:
        return node // self.nodes_per_actor

    def prepare(self, nodes: int) -> int:
        """Start the node actors that clusters of `nodes` nodes need.  Returns how many there are."""
        wanted = -(-nodes // self.nodes_per_actor)
        if len(self.hosts) < wanted:
            self._take_down()
            self.hosts += [self._start(host) for host in range(len(self.hosts), wanted)]
        return len(self.hosts)

    def _take_down(self) -> None:
        if self.graph is not None:
            self.graph.close()
            self.graph = None

    def _start(self, host: int) -> Any:
        first = host * self.nodes_per_actor
        last = first + self.nodes_per_actor - 1
        self.starts[host] = self.starts.get(host, 0) + 1
        again = f" ({self.starts[host]})" if self.starts[host] > 1 else ""  # Ray frees a dead actor's name late
        name = self.title.replace("{}", (f"node {first}" if first == last else f"nodes {first} to {last}") + again)
        options: dict[str, Any] = {"name": name} if self.title else {}
        return ray.remote(NodeActor).options(**PLACED, scheduling_strategy=machine_for(self.placement, host), **options).remote(name)

    def __repr__(self) -> str:
        return self.title.replace("{}", "network") or "network"

    def process_id(self) -> int:
        """The process that this actor is."""
        return os.getpid()

    def host_processes(self) -> list[int]:
        """Process ids of the node actors (tests kill them)."""
        self._take_down()
        return list(ray.get([host.process_id.remote() for host in self.hosts]))

    # ---- many trials -----------------------------------------------------------------------------------------------------------------
    def work(self, jobs: list[Job], in_flight: int) -> list[Ended]:
        """Take on jobs; run rounds, at most `in_flight` trials at once, until at least one has ended: those that have.  The others stay in
        flight for the next call; the answer is empty once there are none."""
        self.waiting.extend(jobs)
        share = max(1, in_flight // COHORTS)
        ended: list[Ended] = []
        while not ended:
            for cohort in self.cohorts:
                try:
                    ended += self._collect(cohort)
                    self._fill(cohort, share)
                    self._submit(cohort)
                except HostsDied:
                    ended += self._mend()
                    break
            if not any(cohort.trials for cohort in self.cohorts):
                break
        return ended

    def _fill(self, cohort: _Cohort, share: int) -> None:
        while self.waiting and len(cohort.trials) < share and self._admits(self.waiting[0][1].nodes):
            job = self.waiting.popleft()
            self.slots += 1
            self.keys[self.slots] = job
            self._begin(cohort, self.slots)

    def _begin(self, cohort: _Cohort, slot: int, plain: bool = False) -> None:
        _, scenario, seed = self.keys[slot]
        cohort.trials[slot] = WindowedTrial(scenario, seed, slot, plain)
        for node in range(scenario.nodes):
            cohort.opens.setdefault(self._host_of(node), []).append((slot, node, scenario, seed))

    def _submit(self, cohort: _Cohort) -> None:
        """Plan the next window of each trial and hand each node actor its part, all in one round."""
        if not cohort.trials or not self._fit():
            return
        orders = cohort.plan(self.nodes_per_actor)
        closes: dict[int, list[tuple[int, int]]] = {}
        for _ in range(min(CLOSING, len(cohort.ended))):
            slot = cohort.ended.popleft()
            cohort.left[slot] = {}
            for node in range(cohort.trials[slot].scenario.nodes):
                closes.setdefault(self._host_of(node), []).append((slot, node))
        opens, cohort.opens = cohort.opens, {}
        self.rounds += 1
        handing_in = {self._host_of(node) for slot in cohort.left for node in range(cohort.trials[slot].scenario.nodes)}
        assert self.graph is not None
        cohort.round = self.graph.submit([
            pickle.dumps((opens.get(host, []), _encode(orders.get(host, [])), closes.get(host, [])))
            if host in orders or host in opens or host in handing_in else b"" for host in range(len(self.graph.hosts))])

    def _admits(self, nodes: int) -> bool:
        """Clusters of one size at a time, the largest first: a round over 25 actors costs many times one over 5, also for the trials that need only 5."""
        host = self._host_of(nodes - 1)
        return all(self._host_of(trial.scenario.nodes - 1) == host for cohort in self.cohorts for trial in cohort.trials.values())

    def _fit(self) -> bool:
        """A graph over just the node actors that the trials in flight need.  False while a round is still under way on another."""
        needed = next(self._host_of(trial.scenario.nodes - 1) + 1 for cohort in self.cohorts for trial in cohort.trials.values())  # one size at a time
        if self.graph is not None and needed != len(self.graph.hosts):
            if any(cohort.round is not None for cohort in self.cohorts):
                return False
            self._take_down()
        if self.graph is None:
            self.prepare(needed * self.nodes_per_actor)
            self.graph = rounds_over(self.hosts[:needed])
        return True

    def _collect(self, cohort: _Cohort) -> list[Ended]:
        """Take the reports of a round; judge what was sent; give back the trials that are complete."""
        if cohort.round is None or self.graph is None:
            return []
        round_, cohort.round = cohort.round, None
        whole = cohort.absorb(self.graph.collect(round_))
        for slot in [slot for slot, trial in cohort.trials.items() if trial.overrun]:
            self._begin(cohort, slot, plain=True)
        return [self._end(cohort, slot) for slot in whole if cohort.trials[slot].handed_in == cohort.trials[slot].scenario.nodes]

    def _end(self, cohort: _Cohort, slot: int) -> Ended:
        trial, left = cohort.trials.pop(slot), cohort.left.pop(slot)
        key = self._forget(slot)
        if trial.failure:
            return Ended(key, b"", trial.failure, trial.rounds)
        return Ended(key, _encode(trial.record([left[node] for node in sorted(left)])), "", trial.rounds)

    def _forget(self, slot: int) -> int:
        self.deaths.pop(slot, None)
        return self.keys.pop(slot)[0]

    def _mend(self) -> list[Ended]:
        """A node actor is dead: start it anew, and begin again every trial in flight (the others' last round is lost with it), but for those that
        have seen so many deaths that one of them may be the cause: they are given back."""
        self._take_down()
        for host, alive in enumerate(living(self.hosts)):
            if not alive:
                ray.kill(self.hosts[host])
                self.replaced += 1
                self.hosts[host] = self._start(host)
        given_back = []
        for cohort in self.cohorts:
            slots = list(cohort.trials)
            cohort.__init__()  # type: ignore[misc]
            for slot in slots:
                self.deaths[slot] = self.deaths.get(slot, 0) + 1
                if self.deaths[slot] < SUSPECT:
                    self._begin(cohort, slot)
                else:
                    given_back.append(Ended(self._forget(slot), b"", "", 0, given_back=True))
        return given_back

    # ---- one trial by hand: the interactive cluster on actors -----------------------------------------------------------------------
    def open(self, scenario: Scenario, seed: int) -> None:
        """Begin one trial that is advanced by hand."""
        self.prepare(scenario.nodes)
        self._take_down()
        self.single = WindowedTrial(scenario, seed, 0, plain=True)
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


__all__ = ["NEVER", "NetworkActor", "NodeActor"]
