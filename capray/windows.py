"""The same loop in conservative windows: what the network hands to nodes and what they answer, with message bodies as opaque bytes.

Decides: how far all nodes may run at once.  Let L be the lookahead.  If the earliest pending event is at T, nothing a node does in
[T, T + L) reaches another node before T + L, so every node gets, in one call, all its messages due before T + L, and runs alone.  A window never
crosses an entry of the network's agenda (a fault, a dial, a time-out).  May not know: Ray (capray.actors carries the bytes).
Where the least latency is far below the usual one, the lookahead of a window is what its nodes' links will draw next (transport.py, `horizon`);
should a message arrive within a window already run all the same, the trial is begun again with plain windows: the same bytes.
Source: conservative synchronisation with lookahead (Chandy and Misra 1979; Nicol, "Parallel discrete-event simulation of FCFS
stochastic queueing networks", 1988).
"""

from __future__ import annotations

import traceback
from heapq import heappop
from operator import itemgetter
from typing import Any, Union

import msgspec

from capray.errors import told
from capray.heap import pop
from capray.network import CONNECTED, DELIVERY, FAULT, Network
from capray.node import Node
from capray.record import Leavings, Record
from capray.scenario import Scenario
from capray.trial import assemble, leavings
from capray.wire import Wire

NEVER = 1 << 62
AHEAD_PAYS = 4  # looking ahead costs a look at each link: it is done where the usual latency is so many times the least
FAILED = -1  # a node's next wake where its policy raised; the error's text is the body of its only deed
ROLE, CLOSED, DIALED = -1, -2, -3  # a deed's kind, where it is not a message
NODE_FAULT = -9  # an arrival's

# What a node did in a window: (time, node, counter, dst, kind, size, body); a message to several is one deed; a role's name is the body.
Deed = tuple[int, int, int, int | tuple[int, ...], int, int, msgspec.Raw]
# What a node receives: (due, src, kind, body); a connection's epoch is the body, or a node fault's words as MessagePack.  In its node's order: so the
# sender's counter, which only says which comes first, need not travel.
Arrival = tuple[int, int, int, Any]

_encode = msgspec.msgpack.Encoder().encode
_orders = msgspec.msgpack.Decoder(list[tuple[int, int, int, msgspec.Raw]])
_reports = msgspec.msgpack.Decoder(list[tuple[int, int, int, list[Deed]]])
_text = msgspec.msgpack.Decoder(str)
_words = msgspec.msgpack.Decoder(list[int | str])
_leavings = msgspec.msgpack.Decoder(Leavings)
_when = itemgetter(0, 1)


def arrivals_decoder(scenario: Scenario) -> msgspec.msgpack.Decoder[list[Arrival]]:
    """What turns the bytes of arrivals back into the policy's messages."""
    messages = scenario.policy_class.MESSAGES
    body = Union[(*messages, int, bytes)] if messages else Any
    return msgspec.msgpack.Decoder(list[tuple[int, int, int, body]])  # type: ignore[valid-type]


class Outbox(Wire):
    """A node's wire in the windowed engines: it writes down what the network will judge."""

    def __init__(self) -> None:
        self.deeds: list[tuple[int, int, int, int | tuple[int, ...], int, int, Any]] = []

    def carry(self, t: int, src: int, counter: int, dsts: tuple[int, ...], body: Any, kind: int, size: int) -> None:
        self.deeds.append((t, src, counter, dsts, kind, size, body))

    def post(self, t: int, src: int, counter: int, dst: int, body: Any, kind: int, size: int) -> None:
        self.deeds.append((t, src, counter, dst, kind, size, body))

    def connect(self, t: int, src: int, dst: int) -> None:
        self.deeds.append((t, src, 0, dst, DIALED, 0, None))

    def close(self, t: int, src: int, dst: int) -> None:
        self.deeds.append((t, src, 0, dst, CLOSED, 0, None))

    def role(self, t: int, node: int, name: str) -> None:
        self.deeds.append((t, node, 0, 0, ROLE, 0, name))


def _encoded(reports: list[tuple[int, int, int, list[Any]]]) -> bytes:
    """The reports as MessagePack; a message that cannot be encoded ends its own trial only."""
    try:
        return _encode(reports)
    except (TypeError, ValueError, OverflowError):
        for index, (slot, node, _, deeds) in enumerate(reports):
            try:
                _encode(deeds)
            except (TypeError, ValueError, OverflowError):
                reports[index] = (slot, node, FAILED, [(0, 0, 0, 0, ROLE, 0, traceback.format_exc())])
        return _encode(reports)


class HostedNode:
    """One node of one trial in flight, with a queue of its own."""

    def __init__(self, scenario: Scenario, node: int, seed: int) -> None:
        self.outbox = Outbox()
        self.queue: list[tuple[Any, ...]] = []
        self.node = Node(scenario, node, seed, self.queue, self.outbox)
        self.decode = arrivals_decoder(scenario).decode

    def run(self, until: int, arrivals: msgspec.Raw) -> int:
        """Take what arrives and run every event before `until`.  Returns when this node next wakes by itself.  What arrives is in order already: it
        meets the node's own events without going through its queue."""
        queue, node = self.queue, self.node
        handle = node.handle
        for due, src, kind, body in self.decode(arrivals):
            while queue and queue[0][0] <= due and _before(queue[0], due, src):
                handle(pop(queue))
            if kind >= 0 and node.plain:  # what Node.handle does first, one call less
                replica = node.replica
                replica.now = due
                replica.on_message(src, body)
                if replica.effects:
                    node.carry_out(due)
            elif kind == NODE_FAULT:
                handle((due, node.id, FAULT, src, 0, *_words.decode(body)))
            else:
                handle((due, node.id, DELIVERY, src, 0, body, kind))
        while queue and queue[0][0] < until:
            handle(pop(queue))
        return int(queue[0][0]) if queue else NEVER


def _before(event: tuple[Any, ...], due: int, src: int) -> bool:
    """Whether a node's own event is before what arrives at `due`: by time, class and source, as in every queue."""
    return bool((event[0], event[2], event[3]) < (due, DELIVERY if src >= 0 else FAULT, src))


class NodeHost:
    """All the hosted nodes of one node actor: one for each trial in flight (several where an actor hosts several nodes)."""

    def __init__(self) -> None:
        self.hosted: dict[tuple[int, int], HostedNode] = {}

    def open(self, trials: list[tuple[int, int, Scenario, int]]) -> None:
        """Take on (slot, node, scenario, seed); a slot that is open already begins anew."""
        for slot, node, scenario, seed in trials:
            self.hosted[slot, node] = HostedNode(scenario, node, seed)

    def round(self, orders: bytes) -> bytes:
        """One window of each of many trials: [(slot, node, until, arrivals)] -> [(slot, node, next wake, deeds)], both as MessagePack."""
        reports = []
        hosted = self.hosted
        for slot, node, until, arrivals in _orders.decode(orders):
            one = hosted[slot, node]
            try:
                wake = one.run(until, arrivals)
            except Exception as error:  # noqa: BLE001  a policy's own: it ends this trial, not the others
                one.outbox.deeds[:] = [(0, 0, 0, 0, ROLE, 0, told(error))]
                wake = FAILED
            reports.append((slot, node, wake, one.outbox.deeds))
        out = _encoded(reports)
        for slot, node, _, deeds in reports:
            deeds.clear()
        return out

    def finish(self, slot: int, node: int) -> bytes:
        """What a node leaves at the end of its trial; its place is free again."""
        one = self.hosted.pop((slot, node)).node
        return _encode(leavings(one, one.scenario.end_us))

    def leave(self, slot: int, node: int, end: int) -> bytes:
        """What a node has left up to `end`; it goes on."""
        return _encode(leavings(self.hosted[slot, node].node, end))

    def peek(self, slot: int, node: int, key: str) -> Any:
        """What a replica holds for `key` right now."""
        return self.hosted[slot, node].node.peek(key)

    def call(self, slot: int, node: int, at: int, f: str, key: str, value: Any) -> tuple[int, bytes]:
        """A client asks by hand.  Returns the request's id and the node's report, as `round` does."""
        one = self.hosted[slot, node]
        request = one.node.call(at, f, key, value)
        deeds, one.outbox.deeds = one.outbox.deeds, []
        return request, _encode([(slot, node, one.queue[0][0] if one.queue else NEVER, deeds)])

    def answered(self, slot: int, node: int, request: int) -> bytes | None:
        """The finished operation, as MessagePack, of the newest request asked by hand; None while it is open."""
        client = self.hosted[slot, node].node.client
        return None if request in client.open else _encode(client.history[-1])


def _tag(body: msgspec.Raw) -> str:
    """The message's class, which is the first item of its bytes."""
    return str(msgspec.msgpack.decode(body)[0])


class WindowedTrial:
    """The network's side of one trial in flight."""

    def __init__(self, scenario: Scenario, seed: int, slot: int, plain: bool = False) -> None:
        """`plain`: every window is one constant lookahead long."""
        self.scenario = scenario
        self.seed = seed
        self.slot = slot
        self.queue: list[tuple[Any, ...]] = []
        self.network = Network(scenario, seed, self.queue)
        self.network.label = _tag
        self.wakes = [0] * scenario.nodes
        self.lookahead = scenario.lookahead_us
        self.until = scenario.end_us
        self.rounds = 0
        self.over = False  # time has come to `until`, or the trial failed
        self.failure = ""
        self.handed_in = 0  # nodes whose leavings are complete
        self.limit = 0  # where the newest window ends
        usual = self.network.tables[0].draw(1 << 63) + scenario.wire.floor_us
        self.ahead = not plain and self.network.tcp and usual > AHEAD_PAYS * self.lookahead
        if self.ahead:
            self.network.drawer = None  # the lanes' next draws are looked at
        self.overrun = False  # a message arrived within a window already run: begin again, plain

    def plan(self) -> list[tuple[int, int, int, list[Any]]]:
        """The next window: (slot, node, until, arrivals) for each node that has something to do; empty once time has come to `until`."""
        queue, network = self.queue, self.network
        while True:
            wake = min(self.wakes)
            if not queue or queue[0][0] > wake:
                now = wake
                break
            now = queue[0][0]
            if queue[0][1] >= 0 or now > self.until:
                break
            network.happen(pop(queue))
        if now > self.until or self.failure:
            self.over = True
            return []
        agenda = network.agenda
        while agenda and agenda[0] <= now:
            heappop(agenda)
        limit = min(self.until + 1, agenda[0]) if agenda else self.until + 1
        ahead = self.ahead and not network.armed  # a trigger's effect is due one plain lookahead later
        limit = self._ahead(limit) if ahead else min(limit, now + self.lookahead)
        inboxes: dict[int, list[Any]] = {}
        while queue and queue[0][0] < limit:
            entry = pop(queue)
            due, node = entry[0], entry[1]
            inbox = inboxes.get(node)
            if inbox is None:
                inbox = inboxes[node] = []
                if ahead and due < self.wakes[node]:
                    limit = min(limit, network.horizon(node, due))
            inbox.append((due, entry[3], entry[6], entry[5]) if entry[2] == DELIVERY else (due, entry[3], NODE_FAULT, _encode(entry[5:])))
        self.rounds += 1
        self.limit = limit
        slot, wakes = self.slot, self.wakes
        return [(slot, node, limit, inboxes.get(node, [])) for node in range(len(wakes)) if node in inboxes or wakes[node] < limit]

    def _ahead(self, limit: int) -> int:
        """How far all may run, as far as the nodes that wake by themselves decide it."""
        horizon = self.network.horizon
        for wake, node in sorted(zip(self.wakes, range(len(self.wakes)))):
            if wake >= limit:
                break
            limit = min(limit, horizon(node, wake))
        return limit

    def absorb(self, reports: list[tuple[int, int, list[Deed]]]) -> None:
        """What the nodes did in the window, as (node, next wake, deeds): judged in the order (time, node, the node's own)."""
        merged: list[Deed] = []
        for node, wake, deeds in reports:
            self.wakes[node] = wake
            if wake == FAILED:
                self.failure = _text.decode(deeds[0][6])
                return
            merged += deeds
        if len(reports) > 1:
            merged.sort(key=_when)
        try:
            self._judge(merged)
        except Exception:  # noqa: BLE001  a policy that sends to nobody
            self.failure = traceback.format_exc()

    def _judge(self, merged: list[Deed]) -> None:
        network = self.network
        post, carry = network.post, network.carry
        for t, node, counter, dst, kind, size, body in merged:
            if kind >= 0:
                if network.irregular:  # a body may wait out a cut: then it must not keep the whole round's bytes alive
                    body = body.copy()
                if isinstance(dst, int):
                    post(t, node, counter, dst, body, kind, size)
                else:
                    carry(t, node, counter, dst, body, kind, size)
            elif kind == ROLE:
                network.role(t, node, _text.decode(body))
            else:
                assert isinstance(dst, int)
                (network.close if kind == CLOSED else network.connect)(t, node, dst)
        self.overrun = bool(self.ahead and self.queue and self.queue[0][0] < self.limit)

    def record(self, parts: list[bytes], end: int | None = None) -> Record:
        """The record, from what every node left (up to `end`; None: of the whole trial)."""
        end = self.scenario.end_us if end is None else end
        return assemble(self.scenario, self.seed, self.network, [_leavings.decode(part) for part in parts], end)


def simulate_in_windows(scenario: Scenario, seed: int, plain: bool = False) -> Record:
    """The windowed loop in one process, without Ray: what the engine `actors` does, for tests."""
    host, trial = NodeHost(), WindowedTrial(scenario, seed, 0, plain)
    host.open([(0, node, scenario, seed) for node in range(scenario.nodes)])
    while orders := trial.plan():
        trial.absorb([report[1:] for report in _reports.decode(host.round(_encode(orders)))])
        if trial.overrun:
            return simulate_in_windows(scenario, seed, plain=True)
    return trial.record([host.finish(0, node) for node in range(scenario.nodes)])


__all__ = ["CONNECTED", "NodeHost", "WindowedTrial", "simulate_in_windows"]
