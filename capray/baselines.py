"""What capray's speed is compared with: the same majority register (capray.policies.abd), written three other ways.

- naive: every node a Ray actor, and every hop of every message a Ray call through a network actor, in real time;
- SimPy as its users write it: a Store for each inbox, a process for each node, each message and each operation;
- SimPy with bare callbacks: one Timeout a message, a callback, no processes; with a closure for each, as one writes it, and without, as one tunes it.
The two rounds, the majorities, the latencies' law (200 us + exponential 75 us) and the open-loop Poisson clients are those of the workload
measured beside them; none of the baselines has faults, connections, disks, records, or repeatable streams.
"""

from __future__ import annotations

import random
import time
from collections.abc import Generator
from typing import Any

FLOOR_US, TAIL_US = 200.0, 75.0


class SimpyStore:
    """SimPy, idiomatic: Store and process."""

    def __init__(self, nodes: int, rate: float, duration_us: float, seed: int) -> None:
        import simpy

        self.simpy = simpy
        self.env = simpy.Environment()
        self.random = random.Random(seed)
        self.nodes, self.duration, self.gap = nodes, duration_us, 1e6 / rate
        self.majority = nodes // 2 + 1
        self.inboxes = [simpy.Store(self.env) for _ in range(nodes)]
        self.data: list[dict[int, tuple[tuple[int, int], int]]] = [{} for _ in range(nodes)]
        self.waiting: dict[int, Any] = {}
        self.operations = 0
        self.messages = 0
        self.done = 0
        for node in range(nodes):
            self.env.process(self.server(node))
            self.env.process(self.client(node))

    def carry(self, dst: int, message: tuple[Any, ...]) -> Generator[Any, Any, None]:
        self.messages += 1
        yield self.env.timeout(FLOOR_US + self.random.expovariate(1 / TAIL_US))
        yield self.inboxes[dst].put(message)

    def server(self, node: int) -> Generator[Any, Any, None]:
        while True:
            what, src, operation, key, tag, value = yield self.inboxes[node].get()
            if what == "ask":
                self.env.process(self.carry(src, ("answer", node, operation, key, *self.data[node].get(key, ((0, 0), 0)))))
            elif what == "store":
                if tag > self.data[node].get(key, ((0, 0), 0))[0]:
                    self.data[node][key] = (tag, value)
                self.env.process(self.carry(src, ("answer", node, operation, key, tag, value)))
            elif operation in self.waiting:
                self.waiting[operation].put((tag, value))

    def client(self, node: int) -> Generator[Any, Any, None]:
        while self.env.now < self.duration:
            yield self.env.timeout(self.random.expovariate(1 / self.gap))
            self.env.process(self.operation(node, self.random.randrange(5), self.random.random() < 0.5))

    def round(self, node: int, what: str, key: int, tag: tuple[int, int], value: int) -> Generator[Any, Any, list[Any]]:
        self.operations += 1
        number = self.operations
        answers = self.waiting[number] = self.simpy.Store(self.env)
        got = [self.data[node].get(key, ((0, 0), 0))]
        if what == "store" and tag > got[0][0]:
            self.data[node][key] = (tag, value)
        for peer in range(self.nodes):
            if peer != node:
                self.env.process(self.carry(peer, (what, node, number, key, tag, value)))
        while len(got) < self.majority:
            got.append((yield answers.get()))
        del self.waiting[number]
        return got

    def operation(self, node: int, key: int, read: bool) -> Generator[Any, Any, None]:
        got = yield self.env.process(self.round(node, "ask", key, (0, 0), 0))
        tag, value = max(got)
        if not read:
            tag, value = (tag[0] + 1, node), self.operations
        yield self.env.process(self.round(node, "store", key, tag, value))
        self.done += 1

    def run(self) -> float:
        """Messages a second of processor time."""
        began = time.process_time()
        self.env.run(until=self.duration)
        return self.messages / (time.process_time() - began)


class SimpyCallbacks:
    """SimPy with bare callbacks: its scheduler and nothing more of it."""

    def __init__(self, nodes: int, rate: float, duration_us: float, seed: int) -> None:
        import simpy

        self.env = simpy.Environment()
        self.random = random.Random(seed)
        self.nodes, self.duration, self.gap = nodes, duration_us, 1e6 / rate
        self.majority = nodes // 2 + 1
        self.data: list[dict[int, tuple[tuple[int, int], int]]] = [{} for _ in range(nodes)]
        self.open: dict[int, list[Any]] = {}
        self.operations = self.messages = self.done = 0
        for node in range(nodes):
            self.after(self.random.expovariate(1 / self.gap), self.arrive, node)

    def after(self, delay: float, call: Any, *arguments: Any) -> None:
        event = self.env.timeout(delay)
        event.callbacks.append(lambda _: call(*arguments))

    def send(self, dst: int, message: tuple[Any, ...]) -> None:
        self.messages += 1
        self.after(FLOOR_US + self.random.expovariate(1 / TAIL_US), self.receive, dst, message)

    def arrive(self, node: int) -> None:
        self.operations += 1
        read = self.random.random() < 0.5
        self.open[self.operations] = [read, self.random.randrange(5), (0, 0), 0, 0, False]
        self.round(node, self.operations, "ask", (0, 0), 0)
        self.after(self.random.expovariate(1 / self.gap), self.arrive, node)

    def round(self, node: int, number: int, what: str, tag: tuple[int, int], value: int) -> None:
        state = self.open[number]
        for peer in range(self.nodes):
            if peer != node:
                self.send(peer, (what, node, number, state[1], tag, value))
        if what == "store" and tag > self.data[node].get(state[1], ((0, 0), 0))[0]:
            self.data[node][state[1]] = (tag, value)
        self.answer(node, number, *self.data[node].get(state[1], ((0, 0), 0)))

    def receive(self, node: int, message: tuple[Any, ...]) -> None:
        what, src, number, key, tag, value = message
        if what == "ask":
            held = self.data[node].get(key, ((0, 0), 0))
            self.send(src, ("asked", node, number, key, held[0], held[1]))
        elif what == "store":
            if tag > self.data[node].get(key, ((0, 0), 0))[0]:
                self.data[node][key] = (tag, value)
            self.send(src, ("stored", node, number, key, tag, value))
        else:
            state = self.open.get(number)
            if state is not None and state[5] == (what == "stored"):
                self.answer(node, number, tag, value)

    def answer(self, node: int, number: int, tag: tuple[int, int], value: int) -> None:
        state = self.open[number]
        state[4] += 1
        if tag > state[2]:
            state[2], state[3] = tag, value
        if state[4] == self.majority:
            if state[5]:
                del self.open[number]
                self.done += 1
                return
            state[4], state[5] = 0, True
            if not state[0]:
                state[2], state[3] = (state[2][0] + 1, node), number
            self.round(node, number, "store", state[2], state[3])

    def run(self) -> float:
        """Messages a second of processor time."""
        began = time.process_time()
        self.env.run(until=self.duration)
        return self.messages / (time.process_time() - began)


class SimpyCallbacksLeanest(SimpyCallbacks):
    """The same without a closure for each message: the message is its event's value, one bound method every event's callback."""

    def send(self, dst: int, message: tuple[Any, ...]) -> None:
        self.messages += 1
        event = self.env.timeout(FLOOR_US + self.random.expovariate(1 / TAIL_US), (dst, message))
        event.callbacks.append(self.due)

    def due(self, event: Any) -> None:
        dst, message = event._value
        self.receive(dst, message)


class NaiveNode:
    """A node of the naive design: made a Ray actor."""

    def __init__(self, node: int, nodes: int) -> None:
        self.node, self.nodes, self.majority = node, nodes, nodes // 2 + 1
        self.network: Any = None
        self.data: dict[int, tuple[tuple[int, int], int]] = {}
        self.open: dict[int, list[Any]] = {}
        self.done = 0

    def join(self, network: Any) -> None:
        self.network = network

    def ask(self, number: int, key: int, read: bool) -> None:
        self.open[number] = [read, key, (0, 0), 0, 1, False]
        self._to_all("ask", number, key, (0, 0), 0)

    def _to_all(self, what: str, number: int, key: int, tag: tuple[int, int], value: int) -> None:
        for peer in range(self.nodes):
            if peer != self.node:
                self.network.carry.remote(peer, what, self.node, number, key, tag, value)

    def receive(self, what: str, src: int, number: int, key: int, tag: tuple[int, int], value: int) -> None:
        held = self.data.get(key, ((0, 0), 0))
        if what == "ask":
            self.network.carry.remote(src, "asked", self.node, number, key, *held)
        elif what == "store":
            if tag > held[0]:
                self.data[key] = (tag, value)
            self.network.carry.remote(src, "stored", self.node, number, key, tag, value)
        elif number in self.open and self.open[number][5] == (what == "stored"):
            self._answer(number, tag, value)

    def _answer(self, number: int, tag: tuple[int, int], value: int) -> None:
        state = self.open[number]
        state[4] += 1
        if tag > state[2]:
            state[2], state[3] = tag, value
        if state[4] == self.majority:
            if state[5]:
                del self.open[number]
                self.done += 1
                return
            state[4], state[5] = 1, True
            if not state[0]:
                state[2], state[3] = (state[2][0] + 1, self.node), number
            self.data[state[1]] = (state[2], state[3])
            self._to_all("store", number, state[1], state[2], state[3])

    def finished(self) -> int:
        return self.done


class NaiveNetwork:
    """The network actor of the naive design: one call in, one call out, for each message."""

    def __init__(self, nodes: list[Any]) -> None:
        self.nodes = nodes
        self.messages = 0

    def carry(self, dst: int, *message: Any) -> None:
        self.messages += 1
        self.nodes[dst].receive.remote(*message)

    def carried(self) -> int:
        return self.messages


def naive_rate(nodes: int = 5, operations: int = 120) -> float:
    """Messages a second of the naive design, all operations asked at once (its best case: no waiting for arrivals)."""
    import ray

    actors = [ray.remote(NaiveNode).options(num_cpus=0).remote(node, nodes) for node in range(nodes)]
    network = ray.remote(NaiveNetwork).options(num_cpus=0).remote(actors)
    ray.get([actor.join.remote(network) for actor in actors])
    warm = operations // 4
    for number in range(warm):
        actors[number % nodes].ask.remote(number, number % 5, number % 2 == 0)
    _wait(actors, warm)
    before, began = ray.get(network.carried.remote()), time.perf_counter()
    for number in range(warm, warm + operations):
        actors[number % nodes].ask.remote(number, number % 5, number % 2 == 0)
    _wait(actors, warm + operations)
    spent = time.perf_counter() - began
    carried = ray.get(network.carried.remote()) - before
    for actor in [*actors, network]:
        ray.kill(actor)
    return float(carried / spent)


def _wait(actors: list[Any], operations: int) -> None:
    import ray

    deadline = time.perf_counter() + 120
    while sum(ray.get([actor.finished.remote() for actor in actors])) < operations and time.perf_counter() < deadline:
        time.sleep(0.01)
