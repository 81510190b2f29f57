"""Transport: the verdict on a message, and the connections that TCP carries it on.

Decides: whether and when a message arrives, given who is cut off, who is down and which connections stand.  May not know: when faults begin
and end (network.py), message bodies, policies, Ray.  The rules of TCP's time-outs are in tcp.py.
"""

from __future__ import annotations

from typing import Any

from capray.heap import push
from capray.lanes import CLIENT, CLIENT_LANE, CONNECTED, DELIVERY, DISCONNECTED, REFUSED, Entry, Lane, Lanes
from capray.record import FaultWindow
from capray.replica import CONTROL, RESPONSE
from capray.scenario import Scenario
from capray.tcp import GIVE_UP_US, WINDOW_BYTES, Connection, Orphan, abandoned_at, kernel_phase, orphan_at


class Transport(Lanes):
    """What carries messages in one trial, under the cuts and crashes of the moment."""

    __slots__ = ("boots", "bytes", "connections", "cut_messages", "cut_mode", "cuts", "dead", "down", "end", "epochs", "extra", "irregular", "messages",
                 "notices", "orphaned", "orphans", "rows", "user_timeout", "waiting", "windows")

    def __init__(self, scenario: Scenario, seed: int, queue: list[Entry]) -> None:
        super().__init__(scenario, seed, queue)
        self.end = scenario.end_us
        self.cut_mode = scenario.effective_cut_mode
        self.user_timeout = scenario.policy_class.user_timeout_us(scenario.policy_settings)
        self.connections: dict[int, Connection] = {}
        self.epochs: dict[int, int] = {}
        self.rows = [0] * self.n  # rows[a] has bit b where a's packets do not reach b: cut, or b's host is dead
        self.down = 0  # bit set: no process
        self.dead = 0  # bit set: no host
        self.waiting = 0  # lanes on which something is stuck
        self.irregular = False  # any cut, crash, closed or half-open connection, stuck lane: messages take the careful way
        self.extra = self.lossy or self.trace is not None
        self.cuts: dict[int, frozenset[tuple[int, int]]] = {}  # active partitions: their directed links
        self.windows: list[FaultWindow] = []
        self.messages = 0
        self.bytes = 0
        self.cut_messages = 0
        self.notices = 0
        self.boots: dict[int, int] = {}  # host -> how long it had been up at time 0
        self.orphans: dict[int, Orphan] = {}  # what closed sockets still held
        self.orphaned = 0

    # ---- the verdict on a message -----------------------------------------------------------------------------------------------------
    def post(self, t: int, src: int, counter: int, dst: int, body: Any, kind: int, size: int) -> None:
        """Judge a message sent at `t`: put its delivery into the queue, or hold it, or drop it and say why (one of the two hottest functions of a trial)."""
        self.messages += 1
        self.bytes += size
        row = src if kind < CLIENT_LANE else src + self.n
        lane = self.out[row][dst]
        if lane is None:
            lane = self._lane(row * self.n + dst, src, dst)
        ahead = lane.ahead
        due = t + (ahead.pop() if ahead else self._draw(lane, kind))
        if self.irregular or self.extra:
            self._careful((due, dst, DELIVERY, src, counter, body, kind, t, size), lane)
            return
        if self.tcp:
            if due < lane.last:
                due = lane.last
            else:
                lane.last = due
        push(self.queue, (due, dst, DELIVERY, src, counter, body, kind, t, size))

    def carry(self, t: int, src: int, counter: int, dsts: tuple[int, ...], body: Any, kind: int, size: int) -> None:
        """`post` to each of `dsts`, in that order; the sender's counter goes up by 2 each."""
        if self.irregular or self.extra:
            for dst in dsts:
                self.post(t, src, counter, dst, body, kind, size)
                counter += 2
            return
        self.messages += len(dsts)
        self.bytes += size * len(dsts)
        queue, tcp = self.queue, self.tcp
        row = src if kind < CLIENT_LANE else src + self.n
        lanes = self.out[row]
        for dst in dsts:
            lane = lanes[dst]
            if lane is None:
                lane = self._lane(row * self.n + dst, src, dst)
            ahead = lane.ahead
            due = t + (ahead.pop() if ahead else self._draw(lane, kind))
            if tcp:
                if due < lane.last:
                    due = lane.last
                else:
                    lane.last = due
            push(queue, (due, dst, DELIVERY, src, counter, body, kind, t, size))
            counter += 2

    def horizon(self, node: int, t: int) -> int:
        """The first instant at which anything that `node` does from `t` on can reach another node (TCP only).  The next draw of each lane
        is known; whatever follows on the lane in the same window does not overtake it."""
        first = 1 << 62
        for row in (node * self.n, (node + self.n) * self.n)[:1 + self.outside]:
            for dst in range(self.n):
                if dst != node:
                    lane = self.lanes.get(row + dst) or self._lane(row + dst, node, dst)
                    first = min(first, max(t + self.soonest(lane), lane.last))
        return first

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
        push(self.queue, (due, *entry[1:]))
        if self.trace is not None:
            self._trace(entry[3], entry[4], entry[1], kind, entry[7], entry[5], due, None)

    def _judge(self, entry: Entry, lane: Lane) -> None:
        """The careful way: cuts, dead hosts, and connections that are not simply open."""
        if self.tcp:
            lane.last = max(lane.last, entry[0])  # also where it will be lost: what is drawn next on this lane does not overtake
            ready = self._socket(entry, lane)
            if ready < 0:
                return
            if entry[0] < ready:
                entry = (ready, *entry[1:])
        if not lane.stuck and self.rows[lane.dst] >> lane.src & 1:
            if not lane.unacked:
                lane.unacked_since = entry[7]
            lane.unacked += entry[8]
        if self._blocked(lane, entry[7]):
            self._stop(entry, lane)
        elif lane.stuck and not (self.cut_mode == "tcp" and self._own(entry, lane)):
            self._queue_behind(entry, lane)
        elif not self.tcp and self.lossy and self._lost_or_doubled(lane.src * self.n + lane.dst, entry):
            return
        else:
            self._deliver(entry, lane)

    def _blocked(self, lane: Lane, t: int) -> bool:
        """No packet gets through; or no acknowledgement does, and the window is full or the retransmission time-out has passed: from then on
        only the first segment is sent, again and again (RFC 5681, 3.1: the loss window is one segment)."""
        if self.rows[lane.src] >> lane.dst & 1:
            return True
        if not lane.unacked or self.cut_mode != "tcp" or not self.rows[lane.dst] >> lane.src & 1:
            return False
        return lane.unacked > WINDOW_BYTES or t >= lane.unacked_since + self.rto_us

    def _socket(self, entry: Entry, lane: Lane) -> int:
        """The earliest arrival that the pair's connection allows; -1 where the message was dropped or waits for a dial."""
        connection = self.connections.get(self._pair(lane.src, lane.dst))
        if connection is None:
            return 0
        t, side = entry[7], int(lane.src > lane.dst)
        ended = not (connection.up[0] and connection.up[1])
        if t < connection.learns[side] or (ended and entry[6] & CLIENT and entry[6] & 7 == RESPONSE):  # no server dials its client
            self._drop(entry, "closed")
            return -1
        if not connection.up[side]:
            connection.pending[side].append(entry)
            self._dial(connection, side, t)
            return -1
        if not connection.up[1 - side]:
            if self.rows[lane.src] >> lane.dst & 1:
                return 0  # half-open, and nobody answers yet
            self._reset(connection, side, lane.last)
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
        push(self.queue, (due, *entry[1:]))
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
        lane.stuck.append(entry)
        if len(lane.stuck) == 1 and self.cut_mode == "tcp":
            look = max(self._unanswered_since(lane) + (self.user_timeout or GIVE_UP_US), entry[7] + self.rto_us)
            if look <= self.end:
                self.schedule(look, "abort", lane.src * self.n + lane.dst, entry[7])
        if self.trace is not None and entry[6] >= 0:
            self._trace(entry[3], entry[4], entry[1], entry[6], entry[7], entry[5], None, "cut")

    def _queue_behind(self, entry: Entry, lane: Lane) -> None:
        """The path is open again, but TCP keeps order: a new message waits behind those that wait for their retransmission."""
        self._touch(lane.fault, "delayed")
        lane.stuck.append(entry)

    # ---- who reaches whom, and which fault is to blame --------------------------------------------------------------------------------
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

    # ---- connections ------------------------------------------------------------------------------------------------------------------
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
        push(self.queue, (due, to, DELIVERY, peer, -self.notices, epoch, kind, at, 0))
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
        """A node closes its end: what is not yet delivered is lost, but what clients sent; the peer learns of it if the path allows."""
        if not self.tcp or src == dst:
            return
        connection = self._connection(src, dst)
        side = int(src > dst)
        self._abandon(connection, side)
        if not connection.up[side]:
            connection.learns[side] = 0
            return
        connection.up[side] = False
        lane = self._between(src, dst)
        self._let_go(t, lane)
        self._let_go(t, self._between(dst, src))
        if connection.up[1 - side]:
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

    def _let_go(self, t: int, lane: Lane) -> None:
        """Take what waits off a lane whose connection is closed.  What a client sent goes on by itself, the rest is lost."""
        lane.unacked = 0
        for entry in self._take_stuck(lane):
            if self._outlives(entry, lane):
                self._orphan(t, Orphan(lane.src, lane.dst, entry))
                continue
            self._drop(entry, "closed")
            if entry[6] == CONNECTED:  # the receiver never hears of this connection
                connection = self.connections.get(self._pair(lane.src, lane.dst))
                if connection is not None and connection.epoch == entry[5]:
                    connection.up[int(lane.dst > lane.src)] = False

    def _own(self, entry: Entry, lane: Lane) -> bool:
        """A message on a client's connection of its own (a pool's), which is not closed with the pair's, nor waits for it, but ends with the process at the
        other end."""
        if entry[6] < 0 or not entry[6] & CLIENT:
            return False
        connection = self.connections.get(self._pair(lane.src, lane.dst))
        return connection is None or not connection.died[int(lane.dst > lane.src)]

    def _outlives(self, entry: Entry, lane: Lane) -> bool:
        """Whether a message goes on after its connection is closed: a client's does, but not what opens a connection, CONTROL, which stands for its SYN."""
        return self.cut_mode == "tcp" and entry[6] & 7 != CONTROL and self._own(entry, lane)

    def _orphan(self, t: int, orphan: Orphan) -> None:
        """A system goes on sending what a client's closed socket held: at its next retransmission, or at the first after heal (network.py, `_reopen`)."""
        self.orphaned += 1
        self.orphans[self.orphaned] = orphan
        if not self.rows[orphan.src] >> orphan.dst & 1:
            self._send_again(t, self.orphaned)

    def _send_again(self, t: int, number: int) -> None:
        orphan = self.orphans[number]
        again = orphan_at(orphan.entry[7], t, self.rto_us, self._boot(orphan.src))
        if again >= 0:
            self.schedule(again, "orphan", number)
        else:
            self._end_orphan(number)

    def _end_orphan(self, number: int) -> None:
        self._drop(self.orphans.pop(number).entry, "closed")

    def _boot(self, host: int) -> int:
        """A host's kernel_phase, drawn once."""
        boot = self.boots.get(host, -1)
        if boot < 0:
            boot = self.boots[host] = kernel_phase(self.seed, host, self.scenario.wire.one_kernel)
        return boot

    def _alone(self, sent: list[Entry]) -> bool:
        """Whether the first of these (a FIN, if there are none) was alone under way when its first time-out came."""
        return len(sent) < 2 or int(sent[1][7]) - int(sent[0][7]) >= self.rto_us

    def _unanswered_since(self, lane: Lane) -> int:
        """When what waits on a lane was sent, or what of it arrived before and was not acknowledged."""
        return int(lane.unacked_since if lane.unacked else lane.stuck[0][7])

    def _abandoned_at(self, lane: Lane) -> int:
        """When the system gives up what waits on a lane."""
        sent = self._unanswered_since(lane)
        if not self.user_timeout:
            return sent + GIVE_UP_US
        return abandoned_at(sent, self.user_timeout, self.rto_us, self._boot(lane.src), self._alone(lane.stuck))

    def _take_stuck(self, lane: Lane) -> list[Entry]:
        """What waits on a lane; afterwards nothing does."""
        if lane.stuck:
            self.waiting -= 1
        found, lane.stuck = lane.stuck, []
        return found

    def _reset(self, connection: Connection, side: int, arrival: int) -> None:
        """The peer answers a segment that arrives at `arrival` with a reset."""
        here, peer = (connection.low, connection.high) if side == 0 else (connection.high, connection.low)
        self._part(connection, side, arrival + self._delay(self._between(peer, here)))

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
        arrives = max(t + self._delay(forth), forth.last)
        if self.down >> peer & 1:
            forth.last = arrives
            self._abandon(connection, side)
            self._notice(arrives + self._delay(back), here, peer, REFUSED, connection.epoch)
            return
        self._let_go(t, forth)
        self._let_go(t, back)
        connection.epoch += 1
        connection.died = [False, False]
        connection.up = [True, True]
        connection.learns = [0, 0]
        connection.dialing = [-1, -1]
        connection.ready[1 - side] = self._notice(arrives, peer, here, CONNECTED, connection.epoch)
        connection.ready[side] = self._notice(connection.ready[1 - side] + self._delay(back), here, peer, CONNECTED, connection.epoch)
        for one, lane in ((side, forth), (1 - side, back)):
            waiting, connection.pending[one] = connection.pending[one], []
            for entry in waiting:
                self._deliver((connection.ready[one] + self._delay(lane, entry[6]), *entry[1:]), lane)
