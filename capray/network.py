"""The network of one trial: whether and when each message arrives, and the fault schedule as it happens.

Decides: arrival times, order, loss, cuts, connections, which faults begin and end when.  May not know: message bodies, policies, Ray.
One function judges a message when it is sent (transport.py), and the same rules judge it again when a fault meets it in flight (`_meet`).
Three layers: a lane's latency and loss (lanes.py), the verdict on a message and its connection (transport.py), and here what changes over time.
"""

from __future__ import annotations

from heapq import heapify
from typing import Any

from capray.faults import Cut, Fault, resolve
from capray.heap import push
from capray.lanes import CLIENT_LANE, CONNECTED, DELIVERY, DISCONNECTED, FAULT, ORPHANED, REFUSED, REQUEST, TIMER, Entry, Lane
from capray.record import FaultWindow
from capray.scenario import Scenario
from capray.tcp import redial_at, retransmission_at
from capray.transport import Transport

__all__ = ["CLIENT_LANE", "CONNECTED", "DELIVERY", "DISCONNECTED", "FAULT", "REFUSED", "REQUEST", "TIMER", "Entry", "Network"]


class Network(Transport):
    """The network's state in one trial, its fault schedule and its agenda."""

    __slots__ = ("armed", "leader", "led", "lookahead", "roles")

    def __init__(self, scenario: Scenario, seed: int, queue: list[Entry]) -> None:
        super().__init__(scenario, seed, queue)
        self.lookahead = scenario.lookahead_us
        self.armed: list[tuple[int, Fault]] = []  # faults that wait for a role
        self.roles: dict[int, str] = {}
        self.leader = 0
        self.led = False
        for index, fault in enumerate(scenario.faults):
            self.schedule(fault.at_us, "arm" if fault.on_role else "begin", index, fault)

    def happen(self, event: Entry) -> None:
        """Carry out an agenda entry."""
        t, what, arguments = event[0], event[5], event[6:]
        if what == "begin":
            self.begin(t, arguments[1])
        elif what == "end":
            self.end_fault(t, *arguments)
        elif what == "arm":
            self.armed.append(arguments)
        elif what == "flap":
            self._flap(t, *arguments)
        elif what == "dial":
            connection = self.connections.get(arguments[0])
            if connection is not None and connection.dialing[arguments[1]] == arguments[2]:
                self._attempt(connection, arguments[1], t)
        elif what == "retransmit":
            lane = self.lanes[arguments[0]]
            if lane.stuck and lane.stuck[0][7] == arguments[1] and not self._blocked(lane, t):
                self._release(lane, t)
        elif what == "orphan":
            self._deliver_orphan(t, arguments[0])
        elif what == "abort":
            self._give_up(t, *arguments)

    def role(self, t: int, node: int, name: str) -> None:
        """A node announces its role; the newest to announce `leader` is the leader.  Armed faults fire one lookahead later."""
        self.roles[node] = name
        if name == "leader":
            self.leader, self.led = node, True
        for waiting in [w for w in self.armed if w[1].on_role == name]:
            self.armed.remove(waiting)
            self.schedule(t + self.lookahead, "begin", *waiting)

    def begin(self, t: int, fault: Fault) -> int:
        """A fault begins.  Returns its index among the windows."""
        index = len(self.windows)
        leads = not fault.nodes and (fault.kind in ("crash-process", "crash-host", "pause") or "leader" in fault.shape)
        note = "no leader announced: node 0 taken" if leads and not self.led else ""
        window = FaultWindow(kind=fault.kind, at=t, until=None, shape=fault.shape if fault.kind == "partition" else "", note=note)
        self.windows.append(window)
        if fault.kind == "partition":
            cut = resolve(fault.shape, self.n, self.leader, fault.nodes)
            window.groups, window.blocked = cut.groups, cut.blocked
            self._cut(index, cut)
            if fault.shape == "flapping":
                self.schedule(t + fault.period_us, "flap", index, fault.period_us, cut)
        else:
            window.nodes = fault.nodes or (self.leader,)
            for node in window.nodes:
                if fault.kind in ("crash-process", "crash-host"):
                    self._crash(t, node, fault.kind == "crash-host", index)
                self._tell(t, node, fault.kind, index, fault.factor, fault.service_us, fault.offset_us)
        if fault.for_us:
            self.schedule(t + fault.for_us, "end", index)
        return index

    def end_fault(self, t: int, index: int) -> None:
        """A fault ends: heal, restart, resume."""
        window = self.windows[index]
        if window.until is not None:
            return
        window.until = t
        if window.kind == "partition":
            self._heal(t, index)
            return
        for node in window.nodes:
            if window.kind in ("crash-process", "crash-host"):
                self._restart(t, node)
            self._tell(t, node, "end-" + window.kind, index, 0, 0, 0)

    def _tell(self, t: int, node: int, *what: Any) -> None:
        self.agenda_count += 1
        push(self.queue, (t, node, FAULT, -1, self.agenda_count, *what))

    def _flap(self, t: int, index: int, period: int, cut: Cut) -> None:
        if self.windows[index].until is not None:
            return
        if index in self.cuts:
            self._heal(t, index)
        else:
            self._cut(index, cut)
        self.schedule(t + period, "flap", index, period, cut)

    def _cut(self, index: int, cut: Cut) -> None:
        self.cuts[index] = frozenset(cut.blocked)
        self._reckon()
        if self.cut_mode != "deliver":
            self._meet(lambda entry: (entry[6] < CLIENT_LANE or entry[6] >= ORPHANED) and bool(self.rows[entry[3]] >> entry[1] & 1), self._met_by_cut)

    def _met_by_cut(self, entry: Entry) -> bool:
        """A message in flight meets a cut.  Returns whether it goes on."""
        lane = self._between(entry[3], entry[1])
        if entry[6] < 0:
            if self.cut_mode != "tcp":
                return True
            if entry[6] == DISCONNECTED:  # the connection stays half-open until it is retransmitted
                connection = self._connection(entry[3], entry[1])
                side = int(entry[1] > entry[3])
                if connection.epoch == entry[5] and not connection.up[side] and connection.dialing[side] < 0:
                    connection.up[side] = True
                    connection.learns[side] = 0
        self._stop(entry, lane)
        return False

    def _meet(self, concerned: Any, verdict: Any) -> None:
        """Judge again, in order of arrival, every message in flight that a fault concerns."""
        in_flight = [e for e in self.queue if e[1] >= 0 and e[2] == DELIVERY and e[3] != e[1] and concerned(e)]
        if not in_flight:
            return
        stopped = {(e[3], e[4], e[1]) for e in sorted(in_flight, key=lambda e: e[:5]) if not verdict(e)}
        self.queue[:] = [e for e in self.queue if not (e[1] >= 0 and e[2] == DELIVERY and (e[3], e[4], e[1]) in stopped and e[3] != e[1])]
        heapify(self.queue)

    def _heal(self, t: int, index: int) -> None:
        self.cuts.pop(index, None)
        self._reckon()
        self._reopen(t)

    def _reopen(self, t: int) -> None:
        """Paths are open again: what waited goes on at its next retransmission, what was dialled at its next try."""
        for key in sorted(self.lanes):
            lane = self.lanes[key]
            gone = self._abandoned_at(lane) if lane.stuck else 0
            if not self.rows[lane.dst] >> lane.src & 1:
                lane.unacked = 0
            if not lane.stuck or self._blocked(lane, t):
                continue
            if self.cut_mode == "hold":
                self._release(lane, t)
                continue
            sent = lane.stuck[0][7]
            again = retransmission_at(sent, t, self.rto_us, self._boot(lane.src), self._alone(lane.stuck))
            if again < gone:
                self.schedule(again, "retransmit", key, sent)
        for number in list(self.orphans):
            if not self.rows[self.orphans[number].src] >> self.orphans[number].dst & 1:
                self._send_again(t, number)
        for pair in sorted(self.connections):
            connection = self.connections[pair]
            for side in (0, 1):
                if connection.dialing[side] >= 0:
                    host = (connection.low, connection.high)[side]
                    self.schedule(redial_at(connection.dialing[side], t, self._boot(host)), "dial", pair, side, connection.dialing[side])

    def _release(self, lane: Lane, t: int) -> None:
        """What waited on a lane goes out at `t`, in its order.  A peer whose end of the connection is gone answers with a reset."""
        waiting = self._take_stuck(lane)
        connection = self.connections.get(self._pair(lane.src, lane.dst))
        side = int(lane.src > lane.dst)
        if connection is not None and not connection.up[1 - side]:
            for entry in waiting:
                if self._outlives(entry, lane):
                    self._deliver((t + self._delay(lane, entry[6]), *entry[1:6], entry[6] | ORPHANED, *entry[7:]), lane)
                else:
                    self._drop(entry, "closed")
            if connection.up[side]:
                self._reset(connection, side, t + self._delay(lane))
        else:
            for entry in waiting:
                if entry[6] == DISCONNECTED:
                    if connection is not None and connection.epoch == entry[5]:
                        self._part(connection, 1 - side, t + self._delay(lane))
                else:
                    self._deliver((t + self._delay(lane, max(entry[6], 0)), *entry[1:]), lane)
        self._reckon()

    def _deliver_orphan(self, t: int, number: int) -> None:
        """What a client's closed socket held gets through.  What goes by other connections does not hold it up, nor it them."""
        orphan = self.orphans.get(number)
        if orphan is None or self.rows[orphan.src] >> orphan.dst & 1:
            return
        del self.orphans[number]
        lane, entry = self._between(orphan.src, orphan.dst), orphan.entry
        newest, lane.last = lane.last, 0
        self._deliver((t + self._delay(lane), *entry[1:6], entry[6] | ORPHANED, *entry[7:]), lane)
        lane.last = max(lane.last, newest)

    def _give_up(self, t: int, key: int, sent: int) -> None:
        """The system gives up retransmitting what was sent at `sent`: the connection is gone on this side."""
        lane = self.lanes[key]
        if not lane.stuck or lane.stuck[0][7] != sent:
            return
        if t < (due := self._abandoned_at(lane)):
            self.schedule(due, "abort", key, sent)
            return
        self._let_go(t, lane)
        connection = self._connection(lane.src, lane.dst)
        side = int(lane.src > lane.dst)
        if connection.up[side]:
            self._part(connection, side, t)

    def _crash(self, t: int, node: int, host: bool, index: int) -> None:
        """A process dies: its peers see its connections reset.  A host dies: they see nothing.  What was under way to it is lost."""
        self._meet(lambda entry: entry[1] == node, lambda entry: self._lost_in_crash(entry, index))
        self.down |= 1 << node
        if self.tcp:
            for peer in range(self.n):
                if peer == node:
                    continue
                connection, side = self._connection(node, peer), int(node > peer)
                connection.died[side] = True
                if not host:
                    self.close(t, node, peer)
                    continue
                self._abandon(connection, side)
                connection.up[side] = False
                connection.learns[side] = 0
                self._let_go(t, self._between(node, peer))
            for number in [n for n, orphan in self.orphans.items() if orphan.dst == node or (host and orphan.src == node)]:
                self._end_orphan(number)
        if host:
            self.dead |= 1 << node
        self._reckon()

    def _lost_in_crash(self, entry: Entry, index: int) -> bool:
        self._touch(index, "dropped")
        self._drop(entry, "crashed")
        return False

    def _restart(self, t: int, node: int) -> None:
        self.down &= ~(1 << node)
        self.dead &= ~(1 << node)
        self._reckon()
        self._reopen(t)
