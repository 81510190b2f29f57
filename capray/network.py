"""The network of one trial: whether and when each message arrives, and the fault schedule as it happens.

Decides: arrival times, order, loss, cuts, connections, which faults begin and end when.  May not know: message bodies, policies, Ray.
One function judges a message when it is sent (`send`), and the same rules judge it again when a fault meets it in flight (`_meet`).
The queue holds (time, node, class, source, counter, ...) tuples; node -1 is the network's own agenda, so it comes first at an instant.
"""

from __future__ import annotations

from heapq import heapify, heappush
from typing import Any

from capray.distributions import Table, table
from capray.faults import Cut, Fault, resolve
from capray.record import FaultWindow, TraceEvent
from capray.replica import KINDS
from capray.scenario import Scenario
from capray.streams import GAMMA, MASK, Stream, mix
from capray.tcp import GIVE_UP_US, RTO_FIRST_US, RTO_MAX_US, WINDOW_BYTES, Connection, redial_at, retransmission_at

FAULT, DELIVERY, TIMER, REQUEST = range(4)  # classes of events at one instant, in this order
CLIENT_LANE = 8  # added to a message's class: traffic of clients outside the cut
CONNECTED, DISCONNECTED, REFUSED = -1, -2, -3  # notices of connections travel as deliveries of these kinds

Entry = tuple[Any, ...]  # a delivery: (due, dst, DELIVERY, src, counter, body, kind, sent, size)


class Lane:
    """One direction between two nodes: its stream, its order, and what waits on it."""

    __slots__ = ("src", "dst", "floor", "state", "spare", "last", "stuck", "unacked", "fault")

    def __init__(self, src: int, dst: int, floor: int, state: int) -> None:
        self.src = src
        self.dst = dst
        self.floor = floor
        self.state = state
        self.spare = 1  # the unused bits of the newest output, under a sentinel bit (1: none)
        self.last = -1  # when the newest message on it arrives: TCP keeps order
        self.stuck: list[Entry] = []  # sent into a cut, waiting for a retransmission (or held)
        self.unacked = 0  # bytes sent since acknowledgements are cut
        self.fault = -1  # which fault made the first of them wait


class Network:
    """The network's state in one trial.  `queue` is the heap into which deliveries, node faults and the agenda go."""

    def __init__(self, scenario: Scenario, seed: int, queue: list[Entry]) -> None:
        self.scenario = scenario
        self.seed = seed
        self.n = scenario.nodes
        self.queue = queue
        self.end = scenario.end_us
        self.tables: list[Table] = [table(scenario.wire.of_kind(kind)) for kind in range(len(KINDS))]
        self.levels = [times.levels[0] for times in self.tables]
        self.lookahead = scenario.lookahead_us
        self.tcp = scenario.transport == "tcp"
        self.cut_mode = scenario.effective_cut_mode
        self.loss_ppm = round(scenario.wire.loss * 1_000_000)
        self.double_ppm = 0 if self.tcp else round(scenario.wire.duplication * 1_000_000)
        self.lossy = bool(self.loss_ppm or self.double_ppm)
        self.luck: dict[int, Stream] = {}
        self.lanes: dict[int, Lane] = {}
        self.connections: dict[int, Connection] = {}
        self.epochs: dict[int, int] = {}
        self.rows = [0] * self.n  # rows[a] has bit b where a's packets do not reach b: cut, or b's host is dead
        self.down = 0  # bit set: no process
        self.dead = 0  # bit set: no host
        self.waiting = 0  # lanes on which something is stuck
        self.irregular = False  # any cut, crash, closed or half-open connection, stuck lane: messages take the careful way
        self.cuts: dict[int, frozenset[tuple[int, int]]] = {}  # active partitions: their directed links
        self.windows: list[FaultWindow] = []
        self.armed: list[tuple[int, Fault]] = []  # faults that wait for a role
        self.roles: dict[int, str] = {}
        self.leader = 0
        self.led = False
        self.messages = 0
        self.bytes = 0
        self.cut_messages = 0
        self.dropped: dict[str, int] = {}
        self.notices = 0
        self.agenda_count = 0
        self.agenda: list[int] = []  # when agenda entries are due: no window may cross one
        self.trace: dict[tuple[int, int], list[Any]] | None = {} if scenario.trace_us else None
        self.extra = self.lossy or self.trace is not None
        for index, fault in enumerate(scenario.faults):
            self.schedule(fault.at_us, "arm" if fault.on_role else "begin", index, fault)

    # ---- the verdict on a message ----------------------------------------------------------------------------------------------------
    def send(self, t: int, src: int, counter: int, dst: int, body: Any, kind: int, size: int) -> None:
        """Judge a message sent at `t`: put its delivery into the queue, or hold it, or drop it and say why."""
        self.carry(t, src, counter, (dst,), body, kind, size)

    def carry(self, t: int, src: int, counter: int, dsts: tuple[int, ...], body: Any, kind: int, size: int) -> None:
        """Judge one message to each of `dsts` (the hottest lines of a trial).  Its latency comes from its lane's own stream: SplitMix64
        (capray.streams) written out, each output serving three messages with 21 bits; `spare` keeps the rest under a sentinel bit."""
        self.messages += len(dsts)
        self.bytes += size * len(dsts)
        lanes, queue, tcp = self.lanes, self.queue, self.tcp
        level = self.levels[kind & 7]
        row = src * self.n
        if kind >= CLIENT_LANE:
            row += self.n * self.n
        careful = self.irregular or self.extra
        for dst in dsts:
            lane = lanes.get(row + dst)
            if lane is None:
                lane = self._lane(row + dst, src, dst)
            spare = lane.spare
            if spare == 1:
                z = lane.state = (lane.state + GAMMA) & MASK
                z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
                z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
                spare = (z ^ (z >> 31)) >> 1 | 0x8000000000000000
            lane.spare = spare >> 21
            i = spare >> 9 & 0xFFF
            if i == 4095:
                due = t + lane.floor + self._tail(lane, kind)
            else:
                low = level[i]
                due = t + lane.floor + low + ((level[i + 1] - low) * (spare & 0x1FF) >> 9)
            if due <= t:
                due = t + 1
            if careful:
                self._careful((due, dst, DELIVERY, src, counter, body, kind, t, size), lane)
            else:
                if tcp:
                    if due < lane.last:
                        due = lane.last
                    else:
                        lane.last = due
                heappush(queue, (due, dst, DELIVERY, src, counter, body, kind, t, size))
            counter += 2

    def _careful(self, entry: Entry, lane: Lane) -> None:
        """What the short way leaves out: faults, closed connections, loss, duplication, the trace."""
        kind = entry[6]
        if self.irregular and kind < CLIENT_LANE:
            self._judge(entry, lane)
            return
        due = entry[0]
        key = lane.src * self.n + lane.dst + (self.n * self.n if kind >= CLIENT_LANE else 0)
        if self.tcp:
            if self.loss_ppm:
                due += self._retransmissions(key)
            due = lane.last = max(due, lane.last)
        elif self.lossy and self._lost_or_doubled(key, entry):
            return
        heappush(self.queue, (due, *entry[1:]))
        if self.trace is not None:
            self._trace(entry[3], entry[4], entry[1], kind, entry[7], entry[5], due, None)

    def _judge(self, entry: Entry, lane: Lane) -> None:
        """The careful way: cuts, dead hosts, and connections that are not simply open."""
        if self.tcp:
            ready = self._socket(entry, lane)
            if ready < 0:
                return
            if entry[0] < ready:
                entry = (ready, *entry[1:])
        if not lane.stuck and self.rows[lane.dst] >> lane.src & 1:
            lane.unacked += entry[8]
        if self._blocked(lane):
            self._stop(entry, lane)
        elif lane.stuck:
            self._queue_behind(entry, lane)
        elif not self.tcp and self.lossy and self._lost_or_doubled(lane.src * self.n + lane.dst, entry):
            return
        else:
            self._deliver(entry, lane)

    def _blocked(self, lane: Lane) -> bool:
        """No packet gets through, or no acknowledgement does and the window is full."""
        if self.rows[lane.src] >> lane.dst & 1:
            return True
        return lane.unacked > WINDOW_BYTES and self.cut_mode == "tcp" and bool(self.rows[lane.dst] >> lane.src & 1)

    def _socket(self, entry: Entry, lane: Lane) -> int:
        """The earliest arrival that the pair's connection allows; -1 where the message was dropped or waits for a dial."""
        connection = self.connections.get(self._pair(lane.src, lane.dst))
        if connection is None:
            return 0
        t, side = entry[7], int(lane.src > lane.dst)
        if t < connection.learns[side]:
            self._drop(entry, "closed")
            return -1
        if not connection.up[side]:
            connection.pending[side].append(entry)
            self._dial(connection, side, t)
            return -1
        if not connection.up[1 - side]:
            if self.rows[lane.src] >> lane.dst & 1:
                return 0  # half-open, and nobody answers yet
            self._reset(connection, side, t)
            self._drop(entry, "closed")
            return -1
        if connection.ordinary(t):
            self._forget(connection)
            return 0
        wait = connection.ready[side] - t
        return int(entry[0]) + wait if wait > 0 else 0

    def _deliver(self, entry: Entry, lane: Lane) -> None:
        due = entry[0]
        if self.tcp:
            if entry[6] >= 0 and self.loss_ppm:
                due += self._retransmissions(lane.src * self.n + lane.dst)
            due = max(due, lane.last)
            lane.last = due
        heappush(self.queue, (due, *entry[1:]))
        if self.trace is not None and entry[6] >= 0:
            self._trace(entry[3], entry[4], entry[1], entry[6], entry[7], entry[5], due, None)

    def _stop(self, entry: Entry, lane: Lane) -> None:
        """A message meets a cut or a dead host: it is dropped, or waits, as the scenario's cut mode says."""
        fault = self._culprit(lane.src, lane.dst)
        if entry[6] >= 0:
            self.cut_messages += 1
        if self.cut_mode in ("drop", "deliver") or (self.cut_mode == "hold" and not self._cut_by_partition(lane)):
            self._touch(fault, "dropped")
            self._drop(entry, "cut" if self._cut_by_partition(lane) else "crashed")
            return
        self._touch(fault, "delayed")
        if not lane.stuck:
            lane.fault = fault
            self.waiting += 1
            if self.cut_mode == "tcp" and entry[7] + GIVE_UP_US <= self.end:
                self.schedule(entry[7] + GIVE_UP_US, "abort", lane.src * self.n + lane.dst, entry[7])
        lane.stuck.append(entry)
        if self.trace is not None and entry[6] >= 0:
            self._trace(entry[3], entry[4], entry[1], entry[6], entry[7], entry[5], None, "cut")

    def _queue_behind(self, entry: Entry, lane: Lane) -> None:
        """The path is open again, but TCP keeps order: a new message waits behind those that wait for their retransmission."""
        self._touch(lane.fault, "delayed")
        lane.stuck.append(entry)

    def _drop(self, entry: Entry, why: str) -> None:
        if entry[6] < 0:
            return
        self.dropped[why] = self.dropped.get(why, 0) + 1
        if self.trace is not None:
            self._trace(entry[3], entry[4], entry[1], entry[6], entry[7], entry[5], None, why)

    def _trace(self, src: int, counter: int, dst: int, kind: int, sent: int, body: Any, due: int | None, why: str | None) -> None:
        assert self.trace is not None
        if self.scenario.trace_us[0] <= sent < self.scenario.trace_us[1]:
            self.trace[(src, counter)] = [sent, src, dst, KINDS[kind & 7], type(body).__name__, due, why]

    def traced(self) -> list[TraceEvent]:
        """The messages of the traced window, in the order of sending."""
        return [TraceEvent(*row) for row in sorted((self.trace or {}).values(), key=lambda row: row[:3])]

    # ---- latency, loss ---------------------------------------------------------------------------------------------------------------
    def _lane(self, key: int, src: int, dst: int) -> Lane:
        lane = self.lanes[key] = Lane(src, dst, self.scenario.wire.distance_us(src, dst), self._stream("link", key).state)
        return lane

    def _stream(self, role: str, key: int) -> Stream:
        """A lane's stream, named by its two nodes: clusters of any size meet the same noise on the same link."""
        outside, pair = divmod(key, self.n * self.n)
        return Stream(self.seed, role, pair // self.n, pair % self.n, outside)

    def _between(self, src: int, dst: int) -> Lane:
        key = src * self.n + dst
        return self.lanes.get(key) or self._lane(key, src, dst)

    def _delay(self, lane: Lane, kind: int = 4) -> int:
        lane.state = (lane.state + GAMMA) & MASK
        return max(1, lane.floor + self.tables[kind & 7].draw(mix(lane.state)))

    def _tail(self, lane: Lane, kind: int) -> int:
        """A latency beyond the quantile 4095/4096, by a draw of its own."""
        lane.state = (lane.state + GAMMA) & MASK
        return self.tables[kind & 7].tail(mix(lane.state))

    def _chance(self, key: int, ppm: int) -> bool:
        stream = self.luck.get(key)
        if stream is None:
            stream = self.luck[key] = self._stream("loss", key)
        return stream.chance(ppm)

    def _retransmissions(self, key: int) -> int:
        """What lost segments add: each loss costs a retransmission time-out, doubling."""
        extra, pause = 0, RTO_FIRST_US
        while extra < GIVE_UP_US and self._chance(key, self.loss_ppm):
            extra += pause
            pause = min(2 * pause, RTO_MAX_US)
        return extra

    def _lost_or_doubled(self, key: int, entry: Entry) -> bool:
        if self.loss_ppm and self._chance(key, self.loss_ppm):
            self._drop(entry, "loss")
            return True
        if self.double_ppm and self._chance(key, self.double_ppm):
            late = entry[7] + self._delay(self.lanes[key], entry[6])
            heappush(self.queue, (late, *entry[1:4], entry[4] + 1, *entry[5:]))
        return False

    # ---- connections -----------------------------------------------------------------------------------------------------------------
    def _pair(self, a: int, b: int) -> int:
        return a * self.n + b if a < b else b * self.n + a

    def _connection(self, a: int, b: int) -> Connection:
        pair = self._pair(a, b)
        found = self.connections.get(pair)
        if found is None:
            found = self.connections[pair] = Connection(min(a, b), max(a, b), self.epochs.get(pair, 0))
            self.irregular = True
        return found

    def _forget(self, connection: Connection) -> None:
        pair = self._pair(connection.low, connection.high)
        self.epochs[pair] = connection.epoch
        del self.connections[pair]
        self._reckon()

    def _notice(self, at: int, to: int, peer: int, kind: int, epoch: int) -> int:
        """Tell `to` about its connection with `peer`, after everything that is under way on it.  Returns when it learns."""
        lane = self._between(peer, to)
        due = max(at, lane.last + 1)
        lane.last = due
        self.notices += 1
        heappush(self.queue, (due, to, DELIVERY, peer, -self.notices, epoch, kind, at, 0))
        return due

    def connect(self, t: int, src: int, dst: int) -> None:
        """A node dials a peer.  Nothing happens where it takes the connection for open."""
        if not self.tcp or src == dst:
            return
        connection = self.connections.get(self._pair(src, dst))
        if connection is not None:
            side = int(src > dst)
            if not connection.up[side] and t >= connection.learns[side]:
                self._dial(connection, side, t)

    def close(self, t: int, src: int, dst: int) -> None:
        """A node closes its end: what is not yet delivered is lost; the peer learns of it if the path allows."""
        if not self.tcp or src == dst:
            return
        connection = self._connection(src, dst)
        side = int(src > dst)
        self._abandon(connection, side)
        if not connection.up[side]:
            connection.learns[side] = 0
            return
        connection.up[side] = False
        for lane in (self._between(src, dst), self._between(dst, src)):
            self._lose_stuck(lane)
        if connection.up[1 - side]:
            lane = self._between(src, dst)
            if not self.rows[src] >> dst & 1:
                self._part(connection, 1 - side, t + self._delay(lane))
            elif self.cut_mode == "tcp":  # the peer takes it for open until the FIN, retransmitted, reaches it
                self.notices += 1
                self._stop((t, dst, DELIVERY, src, -self.notices, connection.epoch, DISCONNECTED, t, 0), lane)

    def _part(self, connection: Connection, side: int, at: int) -> None:
        """This side's end is dead; it learns of it at `at`, or after what is under way to it."""
        here, peer = (connection.low, connection.high) if side == 0 else (connection.high, connection.low)
        connection.up[side] = False
        connection.learns[side] = self._notice(at, here, peer, DISCONNECTED, connection.epoch)

    def _abandon(self, connection: Connection, side: int) -> None:
        connection.dialing[side] = -1
        for entry in connection.pending[side]:
            self._drop(entry, "closed")
        connection.pending[side] = []

    def _lose_stuck(self, lane: Lane) -> None:
        lane.unacked = 0
        for entry in self._take_stuck(lane):
            self._drop(entry, "closed")
            if entry[6] == CONNECTED:  # the receiver never hears of this connection
                connection = self.connections.get(self._pair(lane.src, lane.dst))
                if connection is not None and connection.epoch == entry[5]:
                    connection.up[int(lane.dst > lane.src)] = False

    def _take_stuck(self, lane: Lane) -> list[Entry]:
        """What waits on a lane; afterwards nothing does."""
        if lane.stuck:
            self.waiting -= 1
        found, lane.stuck = lane.stuck, []
        return found

    def _reset(self, connection: Connection, side: int, t: int) -> None:
        """The peer answers a segment sent at `t` with a reset: this side learns it a round trip later."""
        here, peer = (connection.low, connection.high) if side == 0 else (connection.high, connection.low)
        self._part(connection, side, t + self._delay(self._between(here, peer)) + self._delay(self._between(peer, here)))

    def _dial(self, connection: Connection, side: int, t: int) -> None:
        if connection.dialing[side] < 0:
            connection.dialing[side] = t
            self._attempt(connection, side, t)

    def _attempt(self, connection: Connection, side: int, t: int) -> None:
        """One try of a dial.  Into a cut it is lost (the next try follows heal); a host without the process refuses."""
        here, peer = (connection.low, connection.high) if side == 0 else (connection.high, connection.low)
        if self.rows[here] >> peer & 1 or self.rows[peer] >> here & 1:
            return
        forth, back = self._between(here, peer), self._between(peer, here)
        arrives = t + self._delay(forth)
        answered = arrives + self._delay(back)
        if self.down >> peer & 1:
            self._abandon(connection, side)
            self._notice(answered, here, peer, REFUSED, connection.epoch)
            return
        self._lose_stuck(forth)
        self._lose_stuck(back)
        connection.epoch += 1
        connection.up = [True, True]
        connection.learns = [0, 0]
        connection.dialing = [-1, -1]
        connection.ready[1 - side] = self._notice(arrives, peer, here, CONNECTED, connection.epoch)
        connection.ready[side] = self._notice(max(answered, connection.ready[1 - side] + 1), here, peer, CONNECTED, connection.epoch)
        for one, lane in ((side, forth), (1 - side, back)):
            waiting, connection.pending[one] = connection.pending[one], []
            for entry in waiting:
                self._deliver((connection.ready[one] + self._delay(lane, entry[6]), *entry[1:]), lane)

    # ---- faults: the network's part --------------------------------------------------------------------------------------------------
    def schedule(self, at: int, what: str, *arguments: Any) -> None:
        """Put something on the agenda: it happens at `at`, before all nodes' events of that instant."""
        self.agenda_count += 1
        heappush(self.agenda, at)
        heappush(self.queue, (at, -1, FAULT, 0, self.agenda_count, what, *arguments))

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
            if lane.stuck and lane.stuck[0][7] == arguments[1] and not self._blocked(lane):
                self._release(lane, t)
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
        heappush(self.queue, (t, node, FAULT, -1, self.agenda_count, *what))

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
            self._meet(lambda entry: entry[6] < CLIENT_LANE and bool(self.rows[entry[3]] >> entry[1] & 1), self._met_by_cut)

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
            if not self.rows[lane.dst] >> lane.src & 1:
                lane.unacked = 0
            if not lane.stuck or self._blocked(lane):
                continue
            if self.cut_mode == "hold":
                self._release(lane, t)
                continue
            sent = lane.stuck[0][7]
            again = retransmission_at(sent, t)
            if again < sent + GIVE_UP_US:
                self.schedule(again, "retransmit", key, sent)
        for pair in sorted(self.connections):
            connection = self.connections[pair]
            for side in (0, 1):
                if connection.dialing[side] >= 0:
                    self.schedule(redial_at(connection.dialing[side], t), "dial", pair, side, connection.dialing[side])

    def _release(self, lane: Lane, t: int) -> None:
        """What waited on a lane goes out at `t`, in its order.  A peer whose end of the connection is gone answers with a reset."""
        waiting = self._take_stuck(lane)
        connection = self.connections.get(self._pair(lane.src, lane.dst))
        side = int(lane.src > lane.dst)
        if connection is not None and not connection.up[1 - side]:
            for entry in waiting:
                self._drop(entry, "closed")
            if connection.up[side]:
                self._reset(connection, side, t)
        else:
            for entry in waiting:
                if entry[6] == DISCONNECTED:
                    if connection is not None and connection.epoch == entry[5]:
                        self._part(connection, 1 - side, t + self._delay(lane))
                else:
                    self._deliver((t + self._delay(lane, max(entry[6], 0)), *entry[1:]), lane)
        self._reckon()

    def _give_up(self, t: int, key: int, sent: int) -> None:
        """The system gives up retransmitting what was sent at `sent`: the connection is gone on this side."""
        lane = self.lanes[key]
        if not lane.stuck or lane.stuck[0][7] != sent:
            return
        self._lose_stuck(lane)
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
                if not host:
                    self.close(t, node, peer)
                    continue
                connection, side = self._connection(node, peer), int(node > peer)
                self._abandon(connection, side)
                connection.up[side] = False
                connection.learns[side] = 0
                self._lose_stuck(self._between(node, peer))
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

    def _reckon(self) -> None:
        """Recompute who reaches whom, after any cut, heal, crash or restart."""
        self.rows = [self.dead & ~(1 << a) for a in range(self.n)]
        for cut in self.cuts.values():
            for a, b in cut:  # any order: the rows are the same
                self.rows[a] |= 1 << b
        self.irregular = bool(self.cuts or self.down or self.connections or self.waiting or any(self.rows))

    def _cut_by_partition(self, lane: Lane) -> bool:
        return any((lane.src, lane.dst) in cut for cut in self.cuts.values())

    def _culprit(self, src: int, dst: int) -> int:
        """The newest fault that stops this direction (or, where only acknowledgements are cut, the other)."""
        for pair in ((src, dst), (dst, src)):
            for index in reversed(self.cuts):
                if pair in self.cuts[index]:
                    return index
        crashes = [i for i, w in enumerate(self.windows) if w.kind == "crash-host" and w.until is None and dst in w.nodes]
        return crashes[-1] if crashes else -1

    def _touch(self, index: int, how: str) -> None:
        if index >= 0:
            touched = self.windows[index].touched
            self.windows[index].touched = {**touched, how: touched.get(how, 0) + 1}
