"""Lanes: one direction between two nodes each; its latency, its loss, its randomness, and the network's agenda.

Decides: how long a message takes, and whether it is lost or doubled on the way.  May not know: cuts, connections, message bodies, policies, Ray.
The queue holds (time, node, class, source, counter, ...) tuples; node -1 is the network's own agenda, so it comes first at an instant.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappush
from typing import Any, Final

from mypy_extensions import i64

from capray.distributions import table
from capray.draws import Drawer
from capray.heap import push
from capray.record import TraceEvent
from capray.replica import KINDS
from capray.scenario import Scenario
from capray.streams import COMPILED, Stream, after, later, mix
from capray.tables import TAIL_BIN, Table
from capray.tcp import GIVE_UP_US, RTO_MAX_US
from capray.wire import Wire

# Classes of events at one instant, in this order.
FAULT: Final = 0
DELIVERY: Final = 1
TIMER: Final = 2
REQUEST: Final = 3
# What a TIMER event carries as its sixth item.
REPLICA_TIMER: Final = 0
DISK_DONE: Final = 1
SERVED: Final = 2
DEADLINE: Final = 3
# What a REQUEST event carries there.
ARRIVAL: Final = 0
FINAL: Final = 1
CALL: Final = 2
CLIENT: Final = 8  # added to a message's class: a client's question or a server's answer to it, on a connection of their own
CLIENT_LANE: Final = 16  # added in its place: the same, of clients outside the cut
ORPHANED: Final = 32  # added too: its sender's end of that connection is closed
DRAWN_AT_LEAST: Final = 48  # where so many messages have left a node, more are likely to: their latencies are drawn ahead
# Notices of connections travel as deliveries of these kinds.
CONNECTED: Final = -1
DISCONNECTED: Final = -2
REFUSED: Final = -3

Entry = tuple[Any, ...]  # a delivery: (due, dst, DELIVERY, src, counter, body, kind, sent, size)
NONE_AHEAD: list[int] = []  # one for all lanes, since most never draw ahead


def unserved(queue: list[Entry], node: int, generation: int) -> list[Entry]:
    """Take out of the queue what still waits for the node's service, or is in it: the messages and requests, first come first."""
    waiting = [event for event in queue if event[1] == node and event[2] == TIMER and event[5] == SERVED and event[6] == generation]
    if waiting:
        queue[:] = [event for event in queue if event[1] != node or event[2] != TIMER or event[5] != SERVED]
        heapify(queue)
    return [event[7] for event in sorted(waiting)]


class Lane:
    """One direction between two nodes: its stream, its order, and what waits on it."""

    __slots__ = (
        "ahead", "began", "block", "dst", "fault", "floor", "last", "row", "seen", "soonest", "spare", "src", "state", "stuck", "unacked",
        "unacked_since",
    )

    def __init__(self, row: int, src: int, dst: int, floor: int, state: i64) -> None:
        self.spare: i64 = 1  # the unused bits of the newest output, under a sentinel bit (1: none)
        self.state: i64 = state
        self.floor: i64 = floor
        self.last = -1  # when the newest message on it arrives: TCP keeps order
        self.ahead = NONE_AHEAD  # latencies drawn ahead, the next one last
        self.src = src
        self.dst = dst
        self.row = row  # among the lanes of its source: of the node, or of the client outside
        self.block = 0  # how many they were at first
        self.began: tuple[i64, i64] = (state, 1)  # state and spare before them
        self.stuck: list[Entry] = []  # sent into a cut, waiting for a retransmission (or held)
        self.unacked = 0  # bytes sent since acknowledgements are cut
        self.unacked_since = 0  # when the first of them was sent
        self.fault = -1  # which fault made the first of them wait
        self.seen: tuple[i64, i64] = (state, 0)  # the state and spare for which `soonest` was worked out
        self.soonest = 0


def _class_name(body: Any) -> str:
    return type(body).__name__


class Lanes(Wire):
    """All lanes of one trial.  `queue` is the heap into which deliveries, node faults and the agenda go."""

    __slots__ = ("agenda", "agenda_count", "distinct", "double_ppm", "drawer", "dropped", "label", "lanes", "left", "levels", "loss_ppm", "lossy", "luck",
                 "n", "out", "outside", "queue", "rto_us", "scenario", "seed", "tables", "tcp", "trace")

    def __init__(self, scenario: Scenario, seed: int, queue: list[Entry]) -> None:
        self.scenario = scenario
        self.seed = seed
        self.n = scenario.nodes
        self.outside = int(scenario.workload.client_placement == "outside")
        self.queue = queue
        self.tables: list[Table] = [table(scenario.wire.of_kind(kind)) for kind in range(len(KINDS))]
        self.levels = [times.levels[0] for times in self.tables]
        self.distinct = list({id(level): level for level in self.levels}.values())
        self.drawer = Drawer(self.tables[0], self.n) if len(self.distinct) == 1 and not COMPILED else None  # None: nothing is drawn ahead
        self.left = [0] * 2 * self.n  # by source: latencies drawn one by one, until there are enough that more are drawn ahead
        self.tcp = scenario.transport == "tcp"
        self.rto_us = scenario.wire.rto_us
        self.loss_ppm = round(scenario.wire.loss * 1_000_000)
        self.double_ppm = 0 if self.tcp else round(scenario.wire.duplication * 1_000_000)
        self.lossy = bool(self.loss_ppm or self.double_ppm)
        self.luck: dict[int, Stream] = {}
        self.lanes: dict[int, Lane] = {}
        self.out: list[list[Lane | None]] = [[None] * self.n for _ in range(2 * self.n)]  # the same by source and destination: nodes, then clients outside
        self.dropped: dict[str, int] = {}
        self.agenda_count = 0
        self.agenda: list[int] = []  # when agenda entries are due: no window may cross one
        self.label: Callable[[Any], str] = _class_name  # what the trace calls a body; the windowed engines read it from the bytes
        self.trace: dict[tuple[int, int], list[Any]] | None = {} if scenario.trace_us else None

    def _lane(self, key: int, src: int, dst: int) -> Lane:
        row = key // self.n
        lane = self.lanes[key] = self.out[row][dst] = Lane(row, src, dst, self.scenario.wire.distance_us(src, dst), self._stream("link", key).state)
        return lane

    def _stream(self, role: str, key: int) -> Stream:
        """A lane's stream, named by its two nodes: clusters of any size meet the same noise on the same link."""
        outside, pair = divmod(key, self.n * self.n)
        return Stream(self.seed, role, pair // self.n, pair % self.n, outside)

    def _between(self, src: int, dst: int) -> Lane:
        key = src * self.n + dst
        return self.lanes.get(key) or self._lane(key, src, dst)

    def _draw(self, lane: Lane, kind: int) -> int:
        """The latency of the next message on a lane, where none is drawn ahead.  It comes from the lane's own stream (capray.streams), each output
        serving three messages with 21 bits; `spare` keeps the rest under a sentinel bit."""
        if self.drawer is not None:
            self.left[lane.row] += 1
            if self.left[lane.row] > DRAWN_AT_LEAST:
                self._draw_ahead(self.drawer, lane.row)
                return lane.ahead.pop()
        return self._one(lane, kind)

    def _one(self, lane: Lane, kind: int) -> int:
        spare: i64 = lane.spare
        if spare == 1:
            lane.state = after(lane.state)
            word = mix(lane.state)
            lane.spare = word >> 22 & 0x3FFFFFFFFFF | 0x40000000000
            spare = word >> 1
        else:
            lane.spare = spare >> 21
        i = spare >> 9 & 0xFFF
        if i >= TAIL_BIN:
            lane.state = after(lane.state)
            return max(1, lane.floor + self.tables[kind & 7].tail(mix(lane.state)))
        level = self.levels[kind & 7]
        low: i64 = level[i]
        high: i64 = level[i + 1]
        due = lane.floor + low + ((high - low) * (spare & 0x1FF) >> 9)
        return max(1, due)

    def _draw_ahead(self, drawer: Drawer, row: int) -> None:
        """Draw ahead for all lanes that leave one node and are about to run out: at once they cost little more than one of them alone."""
        short = [lane for lane in self.out[row] if lane is not None and 2 * len(lane.ahead) <= lane.block]
        for lane in short:
            if not lane.ahead:
                lane.began = (lane.state, lane.spare)
                lane.block = 0
                while lane.spare != 1:
                    lane.ahead = [self._one(lane, 0), *lane.ahead]
                    lane.block += 1
        each = self.left[row] // (3 * len(short))  # as many as there were before
        for lane, (times, outputs) in zip(short, drawer.blocks([(lane.state, lane.floor) for lane in short], each)):
            lane.ahead = times + lane.ahead
            lane.block += len(times)
            lane.state = later(lane.state, outputs)
            self.left[row] += len(times)

    def _settle(self, lane: Lane) -> None:
        """Give up what was drawn ahead: the lane's stream stands where its newest message left it."""
        drawn = lane.block - len(lane.ahead)
        lane.ahead = NONE_AHEAD
        lane.state, lane.spare = lane.began
        self.left[lane.row] = 0
        for _ in range(drawn):
            self._one(lane, 0)

    def _delay(self, lane: Lane, kind: int = 4) -> int:
        if lane.ahead:
            self._settle(lane)
        lane.state = after(lane.state)
        return max(1, int(lane.floor) + self.tables[kind & 7].drawn(mix(lane.state)))

    def soonest(self, lane: Lane) -> int:
        """The least latency that the lane's next draw can give, whatever draws it: its random bits are known ahead (Nicol 1988)."""
        now = (lane.state, lane.spare)
        if lane.seen != now:
            lane.seen = now
            fresh = mix(after(lane.state))
            spare = fresh >> 1 if lane.spare == 1 else lane.spare
            i, part = int(spare >> 9 & 0xFFF), int(spare & 0x1FF)
            times = [level[i] + ((level[i + 1] - level[i]) * part >> 9) if i < TAIL_BIN else level[TAIL_BIN] for level in self.distinct]
            lane.soonest = max(1, int(lane.floor) + min(min(times), self.tables[-1].drawn(fresh)))
        return lane.soonest

    def _chance(self, key: int, ppm: int) -> bool:
        stream = self.luck.get(key)
        if stream is None:
            stream = self.luck[key] = self._stream("loss", key)
        return stream.chance(ppm)

    def _retransmissions(self, key: int) -> int:
        """What lost segments add: each loss costs a retransmission time-out, doubling."""
        extra, pause = 0, self.rto_us
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
            push(self.queue, (late, *entry[1:4], entry[4] + 1, *entry[5:]))
        return False

    def _drop(self, entry: Entry, why: str) -> None:
        if entry[6] < 0:
            return
        self.dropped[why] = self.dropped.get(why, 0) + 1
        if self.trace is not None:
            self._trace(entry[3], entry[4], entry[1], entry[6], entry[7], entry[5], None, why)

    def _trace(self, src: int, counter: int, dst: int, kind: int, sent: int, body: Any, due: int | None, why: str | None) -> None:
        assert self.trace is not None
        if self.scenario.trace_us[0] <= sent < self.scenario.trace_us[1]:
            self.trace[(src, counter)] = [sent, src, dst, KINDS[kind & 7], self.label(body), due, why]

    def traced(self) -> list[TraceEvent]:
        """The messages of the traced window, in the order of sending."""
        return [TraceEvent(*row) for row in sorted((self.trace or {}).values(), key=lambda row: row[:3])]

    def schedule(self, at: int, what: str, *arguments: Any) -> None:
        """Put something on the agenda: it happens at `at`, before all nodes' events of that instant."""
        self.agenda_count += 1
        heappush(self.agenda, at)
        push(self.queue, (at, -1, FAULT, 0, self.agenda_count, what, *arguments))
