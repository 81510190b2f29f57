"""The policy contract: a replica is a sans-IO state machine; a handler never acts, it records effects.

Decides: what a policy may do and may see.  A replica sees its own node's (possibly skewed) clock, its own random stream, its own durable
journal, and messages.  It may not know: virtual time, links, faults, whether a peer is reachable, Ray, the wall clock.
Sources: h11 and etcd-io/raft (sans-IO, an outbox instead of sockets), Stateright (handlers record effects), DESIGN.md "Contracts".

Order of effects: they are carried out in the order recorded, at the instant of the handler, except that everything recorded after a
`persist(..., sync=True)` in the same handler waits until that sync is complete (a crash before then loses all of it).
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from mypy_extensions import mypyc_attr

from capray.contract import ACK, CONTROL, KINDS, READ, RESPONSE, WRITE, Message, Request, Settings
from capray.streams import Stream

# Effect tags, the first item of each recorded effect.
SEND: Final = 0
REPLY: Final = 1
SET_TIMER: Final = 2
CANCEL_TIMER: Final = 3
PERSIST: Final = 4
CONNECT: Final = 5
CLOSE: Final = 6
VERSION: Final = 7
ROLE: Final = 8
SEND_ALL: Final = 9


@mypyc_attr(allow_interpreted_subclasses=True)
class Replica:
    """One policy's state machine on one node.  Subclass it, name your messages in MESSAGES, and override the handlers."""

    # What the policy is.
    name: ClassVar[str] = ""
    claims: ClassVar[str] = ""  # one line: what it gives up under a partition, and its source
    has_leader: ClassVar[bool] = False  # announces its leader with self.role("leader")
    transport: ClassVar[str] = "tcp"  # what its real system speaks: "tcp" or "datagram"
    datagrams: ClassVar[bool] = True  # its messages may also be lost, doubled and reordered: False refuses `link.transport = "datagram"`
    Settings: ClassVar[type[Settings]] = Settings
    MESSAGES: ClassVar[tuple[type[Message], ...]] = ()

    def __init__(self, node: int, nodes: int, settings: Any, stream: Stream) -> None:
        """A fresh replica on node `node` (0-based) of `nodes`.  Called at the start and again at each restart of the process: all that is not
        in the journal is gone.  `stream` goes on where it stood."""
        self.node = node
        self.nodes = nodes
        self.settings = settings
        self.stream = stream
        self.now = 0  # this node's own clock, microseconds; set before each handler
        self.kernel_phase = 0  # how long the host had been up at virtual time 0, for those who reckon with its kernel's timers (tcp.py); set before on_start
        self.effects: list[tuple[Any, ...]] = []

    # ---- where data lives; pure functions of the settings -------------------------------------------------------------------------
    @classmethod
    def placement(cls, key: str, nodes: int, settings: Any) -> tuple[int, ...]:
        """The nodes that hold a replica of `key`; by default all."""
        return tuple(range(nodes))

    @classmethod
    def needs(cls, nodes: int, settings: Any) -> tuple[int | str, int | str] | None:
        """How many of a key's replicas must answer a read, and a write: numbers, or Cassandra's consistency levels.  From it the report draws what
        placement and cut allow.  None where a number of replicas does not decide (a leader does, a transaction does)."""
        return None

    @classmethod
    def user_timeout_us(cls, settings: Any) -> int:
        """TCP_USER_TIMEOUT of the real system's connections: for how long what was sent may stay unacknowledged, microseconds, before its host closes the
        connection (on_disconnected).  0 (the default): it sets none, and Linux gives up after 924.6 s (tcp.py)."""
        return 0

    @classmethod
    def deletes(cls, settings: Any) -> str:
        """What `workload.delete_share` has clients ask: `delete` (a request without value, after which the key has none), `remove` (of `value`, an element of
        the key's set), `subtract` (a write below 0, of a counter); "" (the default) refuses such a workload."""
        return ""

    def peek(self, key: str) -> Any:
        """What this replica holds for `key` right now (None if nothing), for a human's eye: the interactive cluster and figures."""
        return None

    # ---- handlers -----------------------------------------------------------------------------------------------------------------
    def on_start(self) -> None:
        """The cluster boots for the first time; peers may not be up yet (they start at the same instant)."""

    def on_restart(self, journal: list[Any]) -> None:
        """The process boots again after a crash.  `journal` holds every record persisted that survived, oldest first; tell the record (`applied`) what
        came of them: after a crash that took some, what is not told anew counts as gone."""

    def on_request(self, request: Request) -> None:
        """A client of this node asks.  Answer, now or later, with `reply`."""

    def on_message(self, src: int, message: Any) -> None:
        """A peer's message (or this node's own message to itself) arrives."""

    def on_timer(self, name: Any) -> None:
        """A timer set earlier by this process has run out."""

    def on_connected(self, peer: int) -> None:
        """A TCP connection with `peer` has been established, by either side.  Not called for those that are open at the start."""

    def on_disconnected(self, peer: int) -> None:
        """The TCP connection with `peer` is gone: the peer closed it or its process died, or the system gave up retransmitting.
        A cut or a crashed host shows only as silence."""

    # ---- effects ------------------------------------------------------------------------------------------------------------------
    def send(self, dst: int, message: Message) -> None:
        """To a peer over the network, or to this node itself as a local event at the same instant.  On a closed connection it dials first."""
        self.effects.append((SEND, dst, message))

    def send_all(self, dsts: tuple[int, ...], message: Message) -> None:
        """The same message to several peers, in that order; this node itself must not be among them.  Cheaper than as many sends."""
        self.effects.append((SEND_ALL, dsts, message))

    def reply(self, request_id: int, outcome: str, result: Any = None, error: str | None = None) -> None:
        """Answer a client's request: outcome `ok`, `fail` (provably did not and will not happen) or `info` (unknown)."""
        self.effects.append((REPLY, request_id, outcome, result, error))

    def set_timer(self, name: Any, delay_us: int) -> None:
        """Call `on_timer(name)` after `delay_us` of this node's clock.  `name` is hashable (a string, or a tuple of strings and ints);
        setting a name again replaces the earlier timer.  A process crash ends all timers."""
        self.effects.append((SET_TIMER, name, delay_us))

    def cancel_timer(self, name: Any) -> None:
        """Forget the timer; nothing happens if it is not set."""
        self.effects.append((CANCEL_TIMER, name))

    def persist(self, record: Any, sync: bool = True) -> None:
        """Append `record` (msgpack-able, never changed afterwards) to this node's journal.  With `sync`, the effects recorded after this one in
        the same handler leave when the disk has synced it (and everything before it); concurrent syncs share one flush (group commit).
        A process crash keeps what was written; a host crash keeps what was synced."""
        self.effects.append((PERSIST, record, sync))

    def connect(self, peer: int) -> None:
        """Dial `peer`; `on_connected` follows when it answers.  Nothing happens where a connection is open or being dialled."""
        self.effects.append((CONNECT, peer))

    def close(self, peer: int) -> None:
        """Close the connection, or stop dialling.  What was sent and not yet delivered, either way, is lost, but what clients sent (`Message.client`): their
        systems go on sending that (Linux: for 102 s, tcp.py)."""
        self.effects.append((CLOSE, peer))

    def applied(self, key: str, value: Any, order: tuple[int, ...], superseded: tuple[Any, ...] = (), late: bool = False) -> None:
        """Tell the record (not the protocol) that this replica now holds `value` for `key`: `order` is what the store orders it by, larger
        is newer; `superseded` the values that it replaced as newest here; `late` if something newer was already here.  A `value` of None is a
        tombstone: the key was deleted."""
        self.effects.append((VERSION, key, value, order, "late" if late else "apply", superseded))

    def merged(self, key: str, value: Any, order: tuple[int, ...], removed: tuple[Any, ...] = ()) -> None:
        """Tell the record that this replica now includes `value` beside all that it holds for `key`: an update of a type whose updates commute (a
        counter's increment, a set's element).  `order` is told for the reader's eye; no replica chooses by it.  A `value` of None: what a client
        asked to be removed is gone here."""
        self.effects.append((VERSION, key, value, order, "merge", removed))

    def discarded(self, key: str, value: Any, order: tuple[int, ...]) -> None:
        """Tell the record that this replica dropped `value` together with a branch of its history (truncation, full resync)."""
        self.effects.append((VERSION, key, value, order, "discard", ()))

    def purged(self, key: str, order: tuple[int, ...]) -> None:
        """Tell the record that this replica forgot a tombstone, and whatever that had replaced: it holds nothing of the key up to `order`."""
        self.effects.append((VERSION, key, None, order, "purge", ()))

    def role(self, name: str) -> None:
        """Announce a change of role (`leader`, `follower`, `candidate`, ...): what `isolate-leader` and triggered faults look at."""
        self.effects.append((ROLE, name))


__all__ = ["ACK", "CANCEL_TIMER", "CLOSE", "CONNECT", "CONTROL", "KINDS", "PERSIST", "READ", "REPLY", "RESPONSE", "ROLE", "SEND", "SEND_ALL", "SET_TIMER",
           "VERSION", "WRITE", "Message", "Replica", "Request", "Settings", "Stream"]
