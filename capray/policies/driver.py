"""The client's side of a database server: PostgreSQL manual 34.1 (libpq: several hosts, target_session_attrs), and a pool as asyncpg's.

Decides: when a query goes out, when its connection is given up, and what its caller is then told.  May not know: what the server does.
A query is never sent twice.  One that was sent and not answered before its connection ended is of unknown outcome (a write: `info`; a read:
`fail`); one that was never sent certainly did not happen (`fail`).
The pool: each query has a connection for itself; an idle one is taken (last in, first out), else a new one is opened (`Startup`, `Ready`) and
the query follows.  A query given up takes its connection with it, and no other's; a CancelRequest for it goes out on a new one.  So a cut leaves
as many queries of unknown outcome as there were connections, and after that nothing is sent: the clients of the measured run
(reference/real_servers) had 1 such write, and 288 refused.
Simplified, and why: all of a pool's connections share one TCP connection here, as they share path and server.  Where a query times out and
nothing at all was heard since it was asked, that one is closed, with what was idle.  From then on each request dials for itself (SYN at once,
after 1 s, 3 s, ...): after a cut new requests are served at once, while one begun in the cut is served only if its own next try comes before its
time-out.  The next host's turn comes where no connection to the last one could be opened; later requests begin at the one that took them.
What was sent on connections that are given up the kernel goes on sending (tcp.py): the one write of unknown outcome of the measured run landed so after heal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import msgspec

from capray.replica import READ, RESPONSE, WRITE, Message, Replica, Request

RESET = "connection reset with the query in flight"
REFUSED = "connection refused"
UNREACHED = "could not connect"
READ_ONLY = "cannot execute in a read-only transaction"
TERMINATED = "terminating connection: the server was rewound"
SILENT = "query timed out"
SYN_RETRY_US = 1_000_000  # tcp(7): then doubling
FOREVER = 1 << 62
NEVER = -(1 << 62)  # before any clock, however skewed
T = TypeVar("T")


class Select(Message, frozen=True):
    """A client's read.  `id` is the asking node's request."""

    kind = READ
    client = True
    id: int
    key: str


class Update(Message, frozen=True):
    """A client's write, a transaction of its own."""

    kind = WRITE
    client = True
    id: int
    key: str
    value: Any


class Result(Message, frozen=True):
    """The server's answer to query `id`, in a history's terms: outcome, result, error."""

    kind = RESPONSE
    client = True
    id: int
    outcome: str
    value: Any = None
    error: str | None = None


class Cancel(Message, frozen=True):
    """The driver gave query `id` up and asks the server to stop it (a CancelRequest, PostgreSQL manual 55.2.8): it may be too late."""

    client = True
    id: int


class Startup(Message, frozen=True):
    """A new connection's first packet (PostgreSQL manual 55.2.1), on behalf of query `id`."""

    client = True
    id: int


class Ready(Message, frozen=True):
    """The server's process for the new connection stands by (ReadyForQuery), or would serve reads only (a standby)."""

    client = True
    id: int
    read_only: bool = False


class Asked(msgspec.Struct):
    """A query that waits for its answer, if `sent` from `server`; `at`: when its client asked, microseconds of this node's clock; `refused`: by how many
    hosts.  While it has no connection: `syn`, when it last tried to open one, and `again`, when it next does."""

    query: Select | Update
    at: int
    sent: bool
    syn: int
    again: int
    server: int
    refused: int = 0


class Alarm(Generic[T]):
    """One timer of a replica for the time-outs of many queries: it rings for the earliest.  `waiting`: the queries, by request; `due_of`: when one's time is
    up, microseconds of this node's clock."""

    def __init__(self, owner: Replica, name: str, waiting: Mapping[int, T], due_of: Callable[[T], int]) -> None:
        self.owner = owner
        self.name = name
        self.waiting = waiting
        self.due_of = due_of
        self.due = 0  # when it rings; 0: not set

    def watch(self, asked: T) -> None:
        """This query waits, too."""
        self._set(self.due_of(asked))

    def overdue(self) -> list[T]:
        """It has rung: whose time is up."""
        self.due = 0
        return [asked for asked in self.waiting.values() if self.due_of(asked) <= self.owner.now]

    def watch_the_rest(self) -> None:
        """What was overdue is done."""
        if self.waiting:
            self._set(min(map(self.due_of, self.waiting.values())))

    def _set(self, due: int) -> None:
        if not self.due or due < self.due:
            self.due = due
            self.owner.set_timer(self.name, due - self.owner.now)


def give_up(owner: Replica, query: Select | Update, sent: bool, why: str) -> None:
    """Tell a query's client that there will be no answer: a write that was sent may have happened, anything else has not."""
    owner.reply(query.id, "info" if sent and type(query) is Update else "fail", None, why)


class Driver:
    """A node's pool of connections to the first of `hosts` that takes it.  The owner passes its events on; answers go to the owner's clients.

    `connected`: whether there is a path, as far as the node knows.  `query_timeout_us` runs from the request to the answer;
    `connect_timeout_us` from the request to the sending, where there is no idle connection.  `may_close`: whether silence may close the path
    (not where others use it too: a standby's client shares it with replication)."""

    def __init__(self, owner: Replica, hosts: tuple[int, ...], query_timeout_us: int, connect_timeout_us: int, may_close: bool = True) -> None:
        self.owner = owner
        self.hosts = hosts
        self.server = hosts[0]
        self.query_timeout_us = query_timeout_us
        self.connect_timeout_us = connect_timeout_us
        self.may_close = may_close
        self.open = [True] * len(hosts)
        self.connected = True
        self.idle = 1
        self.heard = NEVER
        self.asked: dict[int, Asked] = {}
        self.dialled = NEVER
        self.alarm = Alarm(owner, "driver", self.asked, self._due)

    def lost_at_boot(self) -> None:
        """The process was started again: no connection is open, but within the node."""
        self.open = [host == self.owner.node for host in self.hosts]
        self.connected = self.open[0]
        self.idle = int(self.connected)

    def ask(self, request: Request) -> None:
        """Send a client's request to the server, on an idle connection or a new one."""
        owner = self.owner
        query = Select(request.id, request.key) if request.f == "read" else Update(request.id, request.key, request.value)
        sent = self.idle > 0
        asked = self.asked[request.id] = Asked(query, owner.now, sent, owner.now, owner.now + SYN_RETRY_US, self.server)
        if sent:
            self.idle -= 1
            owner.send(self.server, query)
        else:
            self._open(asked)
        self.alarm.watch(asked)

    def _open(self, asked: Asked) -> None:
        """Open a connection for a query: a packet on the path, or a dial of its own."""
        if self.connected:
            asked.again = FOREVER
            self.owner.send(self.server, Startup(asked.query.id))
        else:
            now = self.owner.now
            asked.again = now + max(SYN_RETRY_US, 2 * (now - asked.syn))
            asked.syn = self.dialled = now
            if self.may_close:
                self.owner.close(self.server)
            self.owner.connect(self.server)

    def answered(self, src: int, result: Result) -> None:
        """The server has answered; an answer to a query that was given up is ignored."""
        asked = self.asked.get(result.id)
        if asked is not None and asked.sent and asked.server == src:
            del self.asked[result.id]
            self.idle += src == self.server
            self.owner.reply(result.id, result.outcome, result.value, result.error)
        if src == self.server:
            self.heard = self.owner.now
            if result.error in (READ_ONLY, TERMINATED):
                self._next_host()

    def ready(self, src: int, message: Ready) -> None:
        """A new connection is open; if its query was given up meanwhile, it is idle.  A standby will not do: the next host."""
        if src != self.server:
            return
        self.heard = self.owner.now
        asked = self.asked.get(message.id)
        if message.read_only:
            if asked is None:
                self._next_host()
            else:
                self._refuse(asked, READ_ONLY)
                self._next_host((asked,))
        elif asked is None or asked.sent:
            self.idle += 1
        else:
            asked.sent, asked.server = True, src
            self.owner.send(src, asked.query)

    def on_connected(self, peer: int) -> None:
        """A path to a host is open: for the queries that this dial was for."""
        if peer in self.hosts:
            self.open[self.hosts.index(peer)] = True
        if peer == self.server and not self.connected:
            self.connected = True
            for asked in self.asked.values():
                if not asked.sent and asked.syn == self.dialled:
                    self._open(asked)

    def on_disconnected(self, peer: int) -> None:
        """The path was reset, or the dial refused."""
        if peer in self.hosts:
            self.open[self.hosts.index(peer)] = False
            self._lose_sent(peer)
        if peer == self.server:
            waiting = tuple(asked for asked in self.asked.values() if not asked.sent)
            for asked in waiting:
                self._refuse(asked, REFUSED)
            self._next_host(waiting)

    def on_timer(self) -> None:
        """Give up what is due; and the path, where nothing at all was heard since such a query was asked; and the host, where there is no new one."""
        owner = self.owner
        silent = unreached = False
        for asked in self.alarm.overdue():
            if not asked.sent and owner.now < asked.at + self.connect_timeout_us:
                self._open(asked)
                continue
            self._give_up(asked, SILENT if asked.sent else UNREACHED)
            unheard = asked.server == self.server and self.heard <= asked.at
            silent, unreached = silent or unheard, unreached or (unheard and not asked.sent)
            if asked.sent and (self.may_close or not unheard or self.server == owner.node):
                owner.send(asked.server, Cancel(asked.query.id))
        if silent and self.server != owner.node:
            self._abandon()
            if unreached:
                self._next_host()
        self.alarm.watch_the_rest()

    def _abandon(self) -> None:
        """The idle connections go, and what all share here; queries under way wait on."""
        self.idle = 0
        if self.connected and self.may_close:
            self.owner.close(self.server)
            self.connected = self.open[self.hosts.index(self.server)] = False
            if any(asked.sent for asked in self.asked.values()):
                self.owner.connect(self.server)
            for asked in self.asked.values():
                asked.again = asked.syn + SYN_RETRY_US
                while asked.again <= self.owner.now:
                    asked.again += 2 * (asked.again - asked.syn)

    def _lose_sent(self, server: int) -> None:
        for asked in list(self.asked.values()):
            if asked.sent and asked.server == server:
                self._give_up(asked, RESET)

    def _refuse(self, asked: Asked, why: str) -> None:
        asked.refused += 1
        if asked.refused >= len(self.hosts):
            self._give_up(asked, why)

    def _next_host(self, refused: tuple[Asked, ...] = ()) -> None:
        """Where there is one host, it is the same again.  The queries that the last one refused go on there at once."""
        at = (self.hosts.index(self.server) + 1) % len(self.hosts)
        self.server = self.hosts[at]
        self.connected = self.open[at]
        self.idle = 0
        for asked in refused:
            if asked.query.id in self.asked:
                asked.syn = self.owner.now
                self._open(asked)

    def _due(self, asked: Asked) -> int:
        if asked.sent:
            return asked.at + self.query_timeout_us
        return min(asked.at + self.connect_timeout_us, asked.again)

    def _give_up(self, asked: Asked, why: str) -> None:
        del self.asked[asked.query.id]
        give_up(self.owner, asked.query, asked.sent, why)
