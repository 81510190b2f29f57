"""One node of one trial: its machine, its client, and the events that meet them.

Decides: in which order a node's events happen, what becomes of a handler's effects, when a request or a message meets a machine that is down, paused or busy.
May not know: links, other nodes, Ray.  What leaves the node goes to `wire`, which is the network itself (engine `local`) or a list that
is carried to it (engine `actors`).  Events of a node run in the total order (time, class, source, source's counter).
"""

from __future__ import annotations  # noqa: I001  names of one module on two lines, not on twenty

from typing import Any

from capray.client import Client
from capray.clock import true_delay
from capray.heap import Entry as Event, push
from capray.lanes import ARRIVAL, CALL, CLIENT, CLIENT_LANE, CONNECTED, DEADLINE, DELIVERY, DISCONNECTED, DISK_DONE
from capray.lanes import FAULT, FINAL, REFUSED, REPLICA_TIMER, REQUEST, SERVED, TIMER, unserved
from capray.machine import Machine
from capray.record import Version
from capray.replica import CANCEL_TIMER, CLOSE, CONNECT, PERSIST, REPLY, ROLE, SEND, SEND_ALL, SET_TIMER, VERSION, Message, Request
from capray.scenario import Scenario
from capray.soundness import require_named
from capray.wire import Wire


class Node(Machine):
    """A node's state in one trial.  `queue` is its event heap (engine `local`: shared by all nodes and the network)."""

    __slots__ = ("client", "counter", "deadline_at", "epochs", "facts", "load_us", "outside", "queue", "versions", "wire")

    def __init__(self, scenario: Scenario, node: int, seed: int, queue: list[Event], wire: Wire) -> None:
        super().__init__(scenario, node, seed)
        self.queue = queue
        self.wire = wire
        self.client = Client(scenario.workload, node, scenario.nodes, seed, scenario.policy_class.deletes(scenario.policy_settings))
        self.outside = scenario.workload.client_placement == "outside"
        self.facts: dict[type[Message], tuple[int, int]] = {}
        self.counter = 0
        self.epochs: dict[int, int] = {}
        self.versions: list[Version] = []
        self.load_us = scenario.load_us
        self.deadline_at = 0  # when the next deadline event is due (0: none)
        self._push(0, FAULT, "start")
        first = self.client.first()
        if first < self.load_us:
            self._push(first, REQUEST, ARRIVAL)
        if scenario.final_us < scenario.end_us:
            self._push(scenario.final_us, REQUEST, FINAL)

    def _push(self, at: int, cls: int, *what: Any) -> None:
        self.counter += 2
        push(self.queue, (at, self.id, cls, self.id, self.counter, *what))

    # ---- events ----------------------------------------------------------------------------------------------------------------------
    def handle(self, event: Event) -> None:
        """Run one event."""
        t: int = event[0]
        cls: int = event[2]
        if cls == DELIVERY:
            if self.plain and event[6] >= 0:  # the usual case, in as few steps as it takes
                replica = self.replica
                replica.now = t
                replica.on_message(event[3], event[5])
                if replica.effects:
                    self.carry_out(t)
                return
            if self.paused:
                self._hold(event)
            elif not self.up:
                self._ignore("crashed")
            elif self._serving(t):
                self._serve(t, event)
            else:
                self._receive(t, event)
        elif cls == TIMER:
            self._timer(t, event)
        elif cls == REQUEST:
            self._request(t, event)
        else:
            self._fault(t, event)

    def _receive(self, t: int, event: Event) -> None:
        src: int = event[3]
        kind: int = event[6]
        replica = self.replica
        replica.now = t if self.true_clock else self.clock(t)
        if kind < 0:
            self._connection(src, kind, event[5])
        elif self.closed and src in self.closed and src != self.id and kind < CLIENT_LANE:
            self._ignore("closed")
            return
        else:
            replica.on_message(src, event[5])
        if replica.effects:
            self.carry_out(t)

    def _connection(self, peer: int, kind: int, epoch: int) -> None:
        if kind == CONNECTED:
            if peer not in self.closed:
                self.replica.on_disconnected(peer)  # the old connection was half-open: the new one tells so
            self.closed.discard(peer)
            self.epochs[peer] = epoch
            self._look()
            self.replica.on_connected(peer)
        elif kind == REFUSED or (kind == DISCONNECTED and peer not in self.closed and self.epochs.get(peer, 0) == epoch):
            self.closed.add(peer)
            self.plain = False
            self.replica.on_disconnected(peer)

    def _serving(self, t: int) -> bool:
        """Whether service takes time now, or what came while it did is still waiting: nothing overtakes."""
        if self.service_us or self.slow_service_us:
            return True
        if self.busy and self.busy < t:
            self.busy = 0
            self._look()
        return self.busy > 0

    def _serve(self, t: int, event: Event) -> None:
        """A message (or request) waits for its turn, and is handled when its service is complete."""
        self.busy = max(self.busy, t) + max(self.service_us * self.slow, self.slow_service_us)
        self._slowed()
        self._push(self.busy, TIMER, SERVED, self.generation, event)

    def _timer(self, t: int, event: Event) -> None:
        what: int = event[5]
        if what == DEADLINE:
            self.deadline_at = 0
            self.client.expire(t)
            self._arm_deadline()
            return
        if event[6] != self.generation:
            return
        if what == DISK_DONE:
            self.disk.completed(event[7])
        if self.paused:
            self._hold(event)
        elif what == REPLICA_TIMER:
            name = event[7]
            if self.timers.get(name) != event[4]:
                return
            del self.timers[name]
            replica = self.replica
            replica.now = t if self.true_clock else self.clock(t)
            replica.on_timer(name)
            if replica.effects:
                self.carry_out(t)
        elif what == DISK_DONE:
            self._carry_out(t, event[8])
        elif event[7][2] == DELIVERY:
            self._receive(t, event[7])
        else:
            self._ask(t, event[7][6])

    # ---- clients ---------------------------------------------------------------------------------------------------------------------
    def _request(self, t: int, event: Event) -> None:
        what: int = event[5]
        if what == ARRIVAL:
            f, key, value = self.client.next_request()
            self._begin(t, f, key, value)
            if (after := t + self.client.gap()) < self.load_us:
                self.counter += 2
                push(self.queue, (after, self.id, REQUEST, self.id, self.counter, ARRIVAL))
        elif what == FINAL:
            for key in self.client.names:
                self._begin(t, "read", key, None, final=True)
        else:
            self._ask(t, event[6])

    def _begin(self, t: int, f: str, key: str, value: Any, final: bool = False) -> int:
        request = self.client.begin(t, f, key, value, final)
        if not self.deadline_at:
            self._arm_deadline()
        if self.plain or (self.up and not self.paused and not self._serving(t)):
            self._hand_over(t, request)
        else:
            self._ask(t, request, queued=True)
        return request

    def _ask(self, t: int, request: int, queued: bool = False) -> None:
        """A request meets the node as it is: down, paused, busy, or ready."""
        if not self.up:
            if self.host_up:
                self.client.finish(t, request, "fail", None, "connection refused")
            elif not self.outside:
                self.client.finish(t, request, "fail", None, "host down")
            return  # outside and no host: nobody answers, the deadline will
        self.counter += 2
        event = (t, self.id, REQUEST, self.id, self.counter, CALL, request)
        if self.paused:
            self._hold(event)
        elif queued and self._serving(t):
            self._serve(t, event)
        else:
            self._hand_over(t, request)

    def _hand_over(self, t: int, request: int) -> None:
        if (operation := self.client.open.get(request)) is None:
            return  # given up before the node came to it
        replica = self.replica
        replica.now = t if self.true_clock else self.clock(t)
        replica.on_request(Request(request, operation[1], operation[2], operation[3], operation[0], operation[5] - t))
        if replica.effects:
            self.carry_out(t)

    def call(self, t: int, f: str, key: str, value: Any) -> int:
        """Ask by hand, now (the interactive cluster).  Returns the request's id."""
        return self._begin(t, f, key, value)

    def peek(self, key: str) -> Any:
        """What the replica holds for `key`, for a human's eye; None while its process is down."""
        return self.replica.peek(key) if self.up else None

    def _arm_deadline(self) -> None:
        if (due := self.client.oldest_deadline()) is not None:
            self.deadline_at = due
            self._push(due, TIMER, DEADLINE)

    # ---- effects ---------------------------------------------------------------------------------------------------------------------
    def carry_out(self, t: int) -> None:
        """Carry out what the replica's handler has recorded."""
        effects = self.replica.effects
        if len(effects) != 1:
            self._carry_out(t, effects)
            effects.clear()
            return
        effect = effects.pop()
        tag: int = effect[0]
        to: int = effect[1] if tag == SEND else self.id
        if to != self.id:  # the usual case, an answer
            message = effect[2]
            facts = self.facts.get(type(message))
            kind, size = facts if facts is not None else self._facts(message)
            self.counter += 2
            self.wire.post(t, self.id, self.counter, to, message, kind, size)
        elif tag == SEND_ALL:
            self._send_all(t, effect[1], effect[2])
        elif tag == REPLY:
            self.client.answer(t, effect[1], effect[2], effect[3], effect[4])
        else:
            self._carry_out(t, [effect])

    def _send_all(self, t: int, dsts: tuple[int, ...], message: Message) -> None:
        facts = self.facts.get(type(message))
        kind, size = facts if facts is not None else self._facts(message)
        self.wire.carry(t, self.id, self.counter + 2, dsts, message, kind, size)
        self.counter += 2 * len(dsts)

    def _facts(self, message: Message) -> tuple[int, int]:
        """A message's class for the network, and its bytes.  Where all messages of its type have the same, they are looked at once."""
        what = type(message)
        require_named(self.scenario.policy_class, what)
        facts = message.kind + ((CLIENT_LANE if self.outside else CLIENT) if message.client else 0), message.size
        if isinstance(what.size, int) and isinstance(what.kind, int):
            self.facts[what] = facts
        return facts

    def _carry_out(self, t: int, effects: list[tuple[Any, ...]]) -> None:
        """Carry out effects in their order; those after a synced persist wait for the disk."""
        me, queue = self.id, self.queue
        for i, effect in enumerate(effects):
            tag: int = effect[0]
            if tag == SEND:
                self.counter += 2
                if effect[1] == me:
                    push(queue, (t, me, DELIVERY, me, self.counter, effect[2], 0, t, 0))
                else:
                    facts = self.facts.get(type(effect[2]))
                    kind, size = facts if facts is not None else self._facts(effect[2])
                    self.wire.post(t, me, self.counter, effect[1], effect[2], kind, size)
            elif tag == SEND_ALL:
                self._send_all(t, effect[1], effect[2])
            elif tag == REPLY:
                self.client.answer(t, effect[1], effect[2], effect[3], effect[4])
            elif tag == SET_TIMER:
                delay = true_delay(t, effect[2], self.drift_ppm) if self.drift_ppm else effect[2]
                delay = max(delay, 0)  # time does not run backwards
                self.counter += 2
                self.timers[effect[1]] = self.counter
                push(queue, (t + delay, me, TIMER, me, self.counter, REPLICA_TIMER, self.generation, effect[1]))
            elif tag == PERSIST:
                self.disk.journal.append(effect[1])
                if effect[2] and self._sync(t, effects, i + 1):
                    return
            else:
                self._rarer(t, effect)

    def _rarer(self, t: int, effect: tuple[Any, ...]) -> None:
        tag: int = effect[0]
        if tag == VERSION:
            self.versions.append(Version(t, self.id, effect[1], effect[2], effect[3], effect[4], effect[5]))
        elif tag == CANCEL_TIMER:
            self.timers.pop(effect[1], None)
        elif tag == ROLE:
            self.wire.role(t, self.id, effect[1])
        elif tag == CONNECT:
            self.wire.connect(t, self.id, effect[1])
        elif tag == CLOSE:
            if self.tcp and effect[1] != self.id:
                self.closed.add(effect[1])
                self.plain = False
            self.wire.close(t, self.id, effect[1])

    def _sync(self, t: int, effects: list[tuple[Any, ...]], following: int) -> bool:
        """Sync the journal; True where the effects from `following` on wait for it."""
        self._slowed()
        done = self.disk.sync(t, self.slow)
        if done == t:
            return False
        self._push(done, TIMER, DISK_DONE, self.generation, len(self.disk.journal), effects[following:])
        return True

    # ---- faults: the node's part -----------------------------------------------------------------------------------------------------
    def _fault(self, t: int, event: Event) -> None:
        what = event[5]
        if what == "start":
            if self.paused:
                self._hold(event)
            elif self.up:  # or else a fault at time 0 was first, and restart boots it
                self.replica.now = self.clock(t)
                self.replica.on_start()
                self.carry_out(t)
            return
        _, index, factor, service_us, offset_us = event[5:]
        if what == "crash-process" or what == "crash-host":
            self._go_down(t, what == "crash-host", index)
        elif what in ("end-crash-process", "end-crash-host"):
            if self._restart(t):
                self.carry_out(t)
        elif what == "pause":
            self._pause(index)
        elif what == "end-pause":
            for waiting in self._resume(index):
                self._meet_again(t, waiting)
        else:
            self._strain(what, index, factor, service_us, offset_us)
            if self.busy > t and what.endswith("slow"):  # what waits goes on at the new pace
                self.busy = t
                for served in unserved(self.queue, self.id, self.generation):
                    self._serve(t, served)
            self._look()

    def _go_down(self, t: int, host: bool, index: int) -> None:
        if self.up and (not host or not self.outside):
            self.client.lose(t, "connection reset" if not host else "host down")
        self._crash(host, index)

    def _meet_again(self, t: int, event: Event) -> None:
        if event[2] == TIMER:
            self._timer(t, event)
        elif event[2] == FAULT:
            self._fault(t, event)
        elif self._serving(t):
            self._serve(t, event)
        elif event[2] == DELIVERY:
            self._receive(t, event)
        else:
            self._hand_over(t, event[6])
