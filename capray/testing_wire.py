"""The wire of a fake link: when a message arrives, what a cut holds, which connections are open; the lower half of capray/testing.py.

Decides: for each message whether and when it is delivered, and what the transcript says of it.  May not know: clients, journals, disks.
Simplified on purpose (see capray/testing.py): constant latency, no retransmission time-out, one round trip for a dial.
"""

from __future__ import annotations

import heapq
from typing import Any, Literal, Union

import msgspec

from capray.replica import Message, Replica
from capray.streams import Stream

Mode = Literal["drop", "hold"]
DELIVERY, TIMER = 0, 1  # classes of events at one instant, in the engine's order


class ContractError(AssertionError):
    """The policy under test broke capray/replica.py's contract: answered twice, sent what cannot be encoded, ..."""


class Flight(msgspec.Struct):
    """A message under way; `connection` is None for a datagram and for a node's message to itself."""

    src: int
    dst: int
    message: Message
    connection: int | None


class Host:
    """One node: its process (None while crashed), journal, disk, timers, and its view of each connection."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.replica: Replica | None = None
        self.process = 0  # counts boots: what an earlier process left waiting is void
        self.journal: list[Any] = []
        self.synced = 0  # how many journal records a host crash keeps
        self.flushing = False
        self.waiting: list[list[tuple[Any, ...]]] = []  # effects behind the next flush
        self.timers: dict[Any, int] = {}
        self.connections: dict[int, int] = {}  # peer -> connection's number, as far as this node knows
        self.dialling: dict[int, list[Message]] = {}  # peer -> what waits for the connection
        self.pending: set[int] = set()  # requests not answered yet
        self.skew_us = 0
        self.dark = False  # the machine itself is down: nothing answers, not even a refusal


class Wire:
    """Hosts, the links between them, and the heap of what is due."""

    def __init__(self, policy: type[Replica], nodes: int, latency_us: int, seed: int) -> None:
        self.policy = policy
        self.nodes = nodes
        self.latency_us = latency_us
        self.now = 0
        self.log: list[str] = []
        self._tcp = policy.transport == "tcp"
        self._decoder: Any = msgspec.msgpack.Decoder(Union[policy.MESSAGES]) if policy.MESSAGES else None  # noqa: UP007 (a tuple)
        self._events: list[tuple[int, int, int, Any]] = []
        self._count = 0
        self._blocked: dict[tuple[int, int], Mode] = {}
        self._held: list[tuple[int, int, Any]] = []  # source, destination, event: waits for heal
        self._last: dict[tuple[int, int], int] = {}  # when the link's latest message arrives, for order
        self._void: set[int] = set()  # connections that a side closed: what they carried is lost
        self._broken: set[int] = set()  # connections whose one host died: the peer learns when it is back
        self._hosts = [Host(Stream(seed, "node", node)) for node in range(nodes)]
        for a in range(nodes):
            for b in range(a + 1, nodes):
                self._join(a, b)

    # ---- for subclasses -----------------------------------------------------------------------------------------------------------
    def latency(self, src: int, dst: int, message: Message) -> int:
        """One-way microseconds for this message; override for uneven links (on TCP, order is kept all the same)."""
        return self.latency_us

    def loses(self, src: int, dst: int, message: Message) -> bool:
        """Whether the link loses this message; override it to lose some.  A lost TCP segment would be sent again: datagrams only."""
        return False

    # ---- inside -----------------------------------------------------------------------------------------------------------------
    def _note(self, text: str) -> None:
        self.log.append(f"{self.now // 1000:>5}.{self.now % 1000:03}ms {text}")

    def _push(self, at: int, kind: int, event: Any) -> int:
        self._count += 1
        heapq.heappush(self._events, (at, kind, self._count, event))
        return self._count

    def _run_handler(self, node: int, handler: str, *arguments: Any) -> None:
        host = self._hosts[node]
        replica = host.replica
        if replica is None:
            return
        replica.now = self.now + host.skew_us
        getattr(replica, handler)(*arguments)
        effects, replica.effects = replica.effects, []
        self._carry_out(node, effects)

    def _carry_out(self, node: int, effects: list[tuple[Any, ...]]) -> None:
        raise NotImplementedError

    # ---- messages -----------------------------------------------------------------------------------------------------------------
    def _send(self, src: int, dst: int, message: Message) -> None:
        host = self._hosts[src]
        if dst == src:
            self._push(self.now, DELIVERY, (self._deliver_local, (src, host.process, message)))
            return
        decoded = self._on_the_wire(message)
        if not self._tcp:
            self._transmit(src, dst, (self._deliver, (Flight(src, dst, decoded, None),)))
        elif dst in host.connections:
            self._transmit(src, dst, (self._deliver, (Flight(src, dst, decoded, host.connections[dst]),)))
        else:
            self._dial(src, dst)
            host.dialling[dst].append(decoded)

    def _on_the_wire(self, message: Message) -> Message:
        if type(message) not in self.policy.MESSAGES:
            raise ContractError(f"{type(message).__name__} is not among {self.policy.__name__}.MESSAGES")
        decoded: Message = self._decoder.decode(msgspec.msgpack.encode(message))
        if decoded != message:
            raise ContractError(f"{message!r} does not survive MessagePack: it arrives as {decoded!r}")
        return decoded

    def _transmit(self, src: int, dst: int, event: Any) -> None:
        """Put an event on the way from src to dst: a message, or the end of a connection."""
        act, arguments = event
        flight = arguments[0] if act == self._deliver else None
        mode = self._blocked.get((src, dst))
        if mode == "hold" or (mode == "drop" and flight is None):
            self._held.append((src, dst, event))
        elif flight is not None and (mode == "drop" or self.loses(src, dst, flight.message)):
            self._note(f"{src} -x {dst} {flight.message!r} {'cut' if mode else 'loss'}")
        else:
            at = self.now + (self.latency_us if flight is None else self.latency(src, dst, flight.message))
            if self._tcp:
                at = self._last[(src, dst)] = max(at, self._last.get((src, dst), 0))
            self._push(at, DELIVERY, event)

    def _deliver_local(self, node: int, process: int, message: Message) -> None:
        if self._hosts[node].process == process:
            self._note(f"{node} -> {node} {message!r}")
            self._run_handler(node, "on_message", node, message)

    def _deliver(self, flight: Flight) -> None:
        src, dst, number = flight.src, flight.dst, flight.connection
        host = self._hosts[dst]
        if host.replica is None:
            self._note(f"{src} -x {dst} {flight.message!r} crashed")
        elif number is not None and (host.connections.get(src) != number or (number in self._void and not flight.message.client)):
            self._note(f"{src} -x {dst} {flight.message!r} closed")
        else:
            self._note(f"{src} -> {dst} {flight.message!r}")
            self._run_handler(dst, "on_message", src, flight.message)

    def _block(self, pairs: list[tuple[int, int]], mode: Mode | None) -> None:
        for pair in pairs:
            self._blocked[pair] = mode or ("hold" if self._tcp else "drop")
            self._last.pop(pair, None)
        flying = sorted(self._events)
        self._events = []
        for at, kind, count, event in flying:
            ends = self._ends(event)
            if ends is not None and ends in self._blocked:
                self._transmit(*ends, event)
            else:
                self._events.append((at, kind, count, event))

    def _ends(self, event: Any) -> tuple[int, int] | None:
        act, arguments = event
        if act == self._deliver:
            return arguments[0].src, arguments[0].dst
        return (arguments[1], arguments[0]) if act == self._disconnect else None

    # ---- connections --------------------------------------------------------------------------------------------------------------
    def _join(self, a: int, b: int) -> None:
        self._count += 1
        self._hosts[a].connections[b] = self._hosts[b].connections[a] = self._count

    def _dial(self, src: int, dst: int) -> None:
        dialling = self._hosts[src].dialling
        if dst not in dialling:
            dialling[dst] = []
            self._push(self.now + 2 * self.latency_us, DELIVERY, (self._established, (src, dst)))

    def _dial_again(self) -> None:
        for src in range(self.nodes):
            for dst in self._hosts[src].dialling:
                self._push(self.now + 2 * self.latency_us, DELIVERY, (self._established, (src, dst)))

    def _established(self, src: int, dst: int) -> None:
        dialler, other = self._hosts[src], self._hosts[dst]
        if dst not in dialler.dialling or other.dark or (src, dst) in self._blocked or (dst, src) in self._blocked:
            return
        if other.replica is None:
            del dialler.dialling[dst]
            self._note(f"{src} >< {dst} refused")
            self._run_handler(src, "on_disconnected", dst)
            return
        old = other.connections.get(src)
        if old is not None:
            self._disconnect(dst, src, old)
        waiting, crossing = dialler.dialling.pop(dst), other.dialling.pop(src, [])
        self._join(src, dst)
        self._note(f"{src} <> {dst} connected")
        number = dialler.connections[dst]
        for message in waiting:
            self._transmit(src, dst, (self._deliver, (Flight(src, dst, message, number),)))
        for message in crossing:
            self._transmit(dst, src, (self._deliver, (Flight(dst, src, message, number),)))
        self._run_handler(dst, "on_connected", src)
        self._run_handler(src, "on_connected", dst)

    def _close(self, node: int, peer: int) -> None:
        host = self._hosts[node]
        host.dialling.pop(peer, None)
        number = host.connections.pop(peer, None)
        if number is not None:
            self._void.add(number)
            self._note(f"{node} closes its connection with {peer}")
            self._transmit(node, peer, (self._disconnect, (peer, node, number)))

    def _disconnect(self, node: int, peer: int, number: int) -> None:
        """`node` learns that its connection `number` with `peer` is gone."""
        host = self._hosts[node]
        if host.replica is not None and host.connections.get(peer) == number:
            del host.connections[peer]
            self._note(f"{node} >< {peer} disconnected")
            self._run_handler(node, "on_disconnected", peer)
