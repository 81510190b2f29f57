"""simulate(scenario, seed) -> Record: the event loop of one trial, on one screen (engine `local`).

Decides: the order of everything.  One total order (time, node, class, source, counter), integer microseconds; node -1 is the network's agenda.  Because no message takes less than one lookahead, running events one by one here and running whole windows on
every node at once (capray.actors) meet the same events in the same order at each node and at the network: the same bytes.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Final

import msgspec

from capray.heap import Entry, pop, push
from capray.links import Link
from capray.network import DELIVERY, Network
from capray.node import Node
from capray.record import FaultWindow, Leavings, Record
from capray.scenario import Scenario

STOP: Final = -3  # among the nodes' numbers: before everything else at its instant


class Trial:
    """A trial under way.  `scenario` must be resolved (capray.scenario)."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self.scenario = scenario
        self.seed = seed
        self.queue: list[Entry] = []  # what comes over the network, and the network's agenda
        self.own: list[Entry] = []  # what nodes await of themselves: requests, timers.  Apart, for these are many and far off: few messages are in flight at once
        self.network = Network(scenario, seed, self.queue)
        self.nodes = [Node(scenario, node, seed, self.own, self.network) for node in range(scenario.nodes)]
        self.now = 0

    def advance(self, until: int) -> None:
        """Run every event up to and including `until`."""
        queue, own, nodes, network = self.queue, self.own, self.nodes, self.network
        push(own, (until + 1, STOP))
        while True:  # `while queue` jumps back on a condition, at which CPython 3.11 never specialises the loop: it ran a tenth slower
            if queue:
                event = pop(queue)
                t: int = event[0]
                alone: int = own[0][0]
                if t >= alone and event > own[0]:
                    push(queue, event)
                    event = pop(own)
                    t = alone
            else:
                event = pop(own)
                t = event[0]
            number: int = event[1]
            if number < 0:
                if number > STOP:
                    network.happen(event)
                elif t > until:  # or it was left by a run that a policy's error ended
                    break
                continue
            node = nodes[number]
            cls: int = event[2]
            if cls == DELIVERY and node.plain:
                kind: int = event[6]
                if kind >= 0:  # what Node.handle does first, one call less
                    replica = node.replica
                    replica.now = t
                    replica.on_message(event[3], event[5])
                    if replica.effects:
                        node.carry_out(t)
                    continue
            node.handle(event)
        self.now = until

    def take(self) -> Entry:
        """Take the first of all events, for who runs them by hand.  Raises IndexError where there is none."""
        return pop(self.own if self.own and (not self.queue or self.own[0] < self.queue[0]) else self.queue)

    def soonest(self) -> int | None:
        """When the first of all events is due; None where there is none."""
        due = [int(events[0][0]) for events in (self.queue, self.own) if events]
        return min(due) if due else None

    def record(self, end: int | None = None) -> Record:
        """All that it left, up to `end` (None: of the whole trial)."""
        end = self.scenario.end_us if end is None else end
        return assemble(self.scenario, self.seed, self.network, [leavings(node, end) for node in self.nodes], end)


def leavings(node: Node, end: int) -> Leavings:
    """A node's part of the record; operations still open at the end are given up in it."""
    return Leavings(history=node.client.history + node.client.unfinished(end), versions=node.versions, touched=node.touched,
                    ignored=node.ignored, late_answers=node.client.late_answers)


def assemble(scenario: Scenario, seed: int, network: Network, parts: list[Leavings], end: int) -> Record:
    """The record of a trial from what the network and its nodes left."""
    history = [operation for part in parts for operation in part.history]
    history.sort(key=attrgetter("invoke", "node", "process"))
    versions = [version for part in parts for version in part.versions]
    versions.sort(key=attrgetter("at", "node"))
    dropped = dict(network.dropped)
    for part in parts:
        for why, count in part.ignored.items():
            dropped[why] = dropped.get(why, 0) + count
    policy, settings = scenario.policy_class, scenario.policy_settings
    keys = dict.fromkeys([f"k{i}" for i in range(scenario.workload.keys)] + [operation.key for operation in history if operation.key is not None])
    counters = {"messages": network.messages, "bytes": network.bytes, "messages_cut": network.cut_messages,
                "late_answers": sum(part.late_answers for part in parts), **{f"dropped_{why}": dropped[why] for why in sorted(dropped)}}
    return Record(
        policy=scenario.policy, nodes=scenario.nodes, seed=seed, scenario=scenario.digest(), history=history,
        faults=[_touched(index, window, parts) for index, window in enumerate(network.windows)], versions=versions,
        placement={key: policy.placement(key, scenario.nodes, settings) for key in keys},
        counters=counters, end=end, trace=network.traced())


def _touched(index: int, window: FaultWindow, parts: list[Leavings]) -> FaultWindow:
    touched = dict(window.touched)
    for part in parts:
        for how, count in part.touched.get(index, {}).items():
            touched[how] = touched.get(how, 0) + count
    return msgspec.structs.replace(window, touched=touched)


def simulate(scenario: Scenario, seed: int) -> Record:
    """Run one trial in this process.  The same scenario and seed give the same record, byte for byte, on every engine and machine."""
    trial = Trial(scenario if isinstance(scenario.link, Link) else scenario.resolved(), seed)
    trial.advance(trial.scenario.end_us)
    return trial.record()
