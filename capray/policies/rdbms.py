"""One database server on one node: Gray and Reuter, "Transaction Processing" (1993), chs. 7 (locks) and 10 (write-ahead log); the CA corner.

Decides: what a single-copy ACID store answers.  May not know: whether the server is reachable.
The other nodes hold no data: they are application servers, whose driver (capray/policies/driver.py) asks the server over the network.
A write takes its row's lock, its record goes to the log and is synced (write-ahead; concurrent commits share a flush), then it becomes
visible, is answered, and the lock passes on: the order of PostgreSQL's CommitTransaction.  A read sees what is visible and waits for nobody.
After a crash the server replays its log; a record that was synced and not answered is then visible (its client was told `info`).
Simplified, and why: one statement a transaction, no multi-version storage: with single-key reads and writes nobody could see a difference.
"""

from __future__ import annotations

from collections import deque
from typing import Annotated, Any

from msgspec import Meta

from capray.policies.driver import Cancel, Driver, Ready, Result, Select, Startup, Update
from capray.replica import WRITE, Message, Replica, Request, Settings


class Flushed(Message, frozen=True):
    """The server to itself: the log is on disk up to this record."""

    kind = WRITE
    client = True
    lsn: int
    src: int
    id: int
    key: str
    value: Any


class RdbmsSettings(Settings, frozen=True):
    """Where the server stands and how long its clients wait."""

    server: Annotated[int, Meta(description="the server's node; an index from 0; by choice: node 0")] = 0
    query_timeout_us: Annotated[
        int,
        Meta(
            ge=1,
            description="a driver gives up a query that was sent; microseconds; 1 s as the clients of the measured run (reference/real_servers.md)",
        ),
    ] = 1_000_000
    connect_timeout_us: Annotated[
        int,
        Meta(
            ge=1,
            description="a driver gives up a request that it could not send; microseconds; 0.9 s: within the clients' 1 s deadline",
        ),
    ] = 900_000

    def problems(self, nodes: int) -> list[str]:
        wrong = [] if 0 <= self.server < nodes else [f"server: {self.server} is not accepted; it takes a node from 0 to {nodes - 1}"]
        for name in ("query_timeout_us", "connect_timeout_us"):
            if getattr(self, name) < 1:
                wrong.append(f"{name}: {getattr(self, name)} is not accepted; it takes at least 1 microsecond")
        return wrong


class Rdbms(Replica):
    """The server on its node, a driver on each other one."""

    name = "rdbms"
    claims = "consistent, and as available as its one server is reachable: a cut takes the other side's reads and writes (CA in Brewer 2000)"
    has_leader = True
    transport = "tcp"
    Settings = RdbmsSettings
    MESSAGES = (Select, Update, Result, Cancel, Startup, Ready, Flushed)

    def __init__(self, node: int, nodes: int, settings: RdbmsSettings, stream: Any) -> None:
        super().__init__(node, nodes, settings, stream)
        self.serves = node == settings.server
        self.rows: dict[str, tuple[int, Any]] = {}  # key -> log sequence number, value; what is visible
        self.locks: dict[str, deque[tuple[int, int, str, Any]]] = {}  # a locked row -> who waits: node, query, key, value
        self.lsn = 0
        self.driver = Driver(self, (settings.server,), settings.query_timeout_us, settings.connect_timeout_us)
        self.handlers: dict[type[Message], Any] = {
            Select: self._on_select,
            Update: self._on_update,
            Result: self.driver.answered,
            Cancel: self._on_cancel,
            Startup: self._on_startup,
            Ready: self.driver.ready,
            Flushed: self._on_flushed,
        }

    @classmethod
    def placement(cls, key: str, nodes: int, settings: Any) -> tuple[int, ...]:
        return (settings.server,)

    @classmethod
    def deletes(cls, settings: Any) -> str:
        return "delete"

    def peek(self, key: str) -> Any:
        row = self.rows.get(key)
        return None if row is None else row[1]

    # ---- a process's life ---------------------------------------------------------------------------------------------------------
    def on_start(self) -> None:
        self.role("leader" if self.serves else "client")

    def on_restart(self, journal: list[Any]) -> None:
        self.driver.lost_at_boot()
        last: dict[str, Any] = {}
        for lsn, key, value in journal:
            last[key] = self.peek(key)
            self.rows[key] = (lsn, value)
            self.lsn = lsn
        for key, (lsn, value) in self.rows.items():
            self.applied(key, value, (lsn,), () if last[key] is None else (last[key],))
        self.on_start()

    # ---- events -------------------------------------------------------------------------------------------------------------------
    def on_request(self, request: Request) -> None:
        if not self.serves:
            self.driver.ask(request)
        elif request.f == "read":
            self.reply(request.id, "ok", self.peek(request.key))
        else:
            self._lock(self.node, request.id, request.key, request.value)

    def on_message(self, src: int, message: Any) -> None:
        self.handlers[type(message)](src, message)

    def on_timer(self, name: Any) -> None:
        self.driver.on_timer()

    def on_connected(self, peer: int) -> None:
        if not self.serves:
            self.driver.on_connected(peer)

    def on_disconnected(self, peer: int) -> None:
        if not self.serves:
            self.driver.on_disconnected(peer)

    # ---- the server's side --------------------------------------------------------------------------------------------------------
    def _on_select(self, src: int, message: Select) -> None:
        self.send(src, Result(message.id, "ok", self.peek(message.key)))

    def _on_startup(self, src: int, message: Startup) -> None:
        self.send(src, Ready(message.id))

    def _on_update(self, src: int, message: Update) -> None:
        self._lock(src, message.id, message.key, message.value)

    def _on_cancel(self, src: int, message: Cancel) -> None:
        """A query that waits for a lock is dropped; one that is in the log is not undone."""
        for waiting in self.locks.values():
            for entry in waiting:
                if entry[0] == src and entry[1] == message.id:
                    waiting.remove(entry)
                    return

    def _lock(self, src: int, query: int, key: str, value: Any) -> None:
        waiting = self.locks.get(key)
        if waiting is not None:
            waiting.append((src, query, key, value))
            return
        self.locks[key] = deque()
        self._log(src, query, key, value)

    def _log(self, src: int, query: int, key: str, value: Any) -> None:
        self.lsn += 1
        self.persist((self.lsn, key, value))
        self.send(self.node, Flushed(self.lsn, src, query, key, value))

    def _on_flushed(self, src: int, message: Flushed) -> None:
        key = message.key
        before = self.rows.get(key)
        self.rows[key] = (message.lsn, message.value)
        self.applied(key, message.value, (message.lsn,), () if before is None else (before[1],))
        if message.src == self.node:
            self.reply(message.id, "ok")
        else:
            self.send(message.src, Result(message.id, "ok"))
        waiting = self.locks[key]
        if waiting:
            self._log(*waiting.popleft())
        else:
            del self.locks[key]
