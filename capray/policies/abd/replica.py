"""The atomic register over majorities: Attiya, Bar-Noy and Dolev, JACM 1995; with many writers: Lynch and Shvartsman, FTCS 1997.

Each operation has two rounds, and each waits for a majority.  A write asks for the largest tag, then stores (tag + 1, own id) with its value.
A read asks for tags and values, then stores the largest back before it answers.  No leader, no election, no failure detector: linearizable,
available on the side that holds a majority.  What has been stored is persisted before it is acknowledged.
Both papers' writers do one thing at a time and never crash; these nodes' clients do many, and restart.  So that no tag is given twice, a node numbers its
writes of a key above those it has under way, and a write is on its own disk before it is sent (Guerraoui and Levy, ICDCS 2004: the writer logs first).
"""

from __future__ import annotations

from typing import Any

from capray.policies.abd.messages import Ask, Newest, Store, Stored, Tag
from capray.replica import Replica, Request

NOTHING: tuple[Tag, Any] = ((0, 0), None)  # what a replica without a value holds


class Abd(Replica):
    """A majority register; each node is a replica and coordinates its own clients' operations."""

    name = "abd"
    claims = "CP: linearizable always; operations wait for a majority, so the minority's hang (Attiya, Bar-Noy, Dolev 1995)"
    MESSAGES = (Ask, Newest, Store, Stored)

    def __init__(self, node: int, nodes: int, settings: Any, stream: Any) -> None:
        super().__init__(node, nodes, settings, stream)
        self.majority = nodes // 2 + 1
        self.peers = tuple(peer for peer in range(nodes) if peer != node)
        self.data: dict[str, tuple[Tag, Any]] = {}
        self.numbers: dict[str, int] = {}  # by key, the number of this node's newest tag
        self.running: dict[int, list[Any]] = {}  # request -> [f, key, value, best tag, its value, answers, storing]

    @classmethod
    def needs(cls, nodes: int, settings: Any) -> tuple[int | str, int | str]:
        return nodes // 2 + 1, nodes // 2 + 1

    def peek(self, key: str) -> Any:
        return self.data.get(key, (None, None))[1]

    def on_restart(self, journal: list[Any]) -> None:
        for record in journal:
            self.data[record.key] = (record.tag, record.value)
        for key, (tag, value) in self.data.items():
            self.applied(key, value, tag)

    def on_request(self, request: Request) -> None:
        tag, value = self.data.get(request.key, NOTHING)
        state = self.running[request.id] = [request.f, request.key, request.value, tag, value, 1, False]
        if self.majority == 1:
            self.store(request.id, state)
        self.send_all(self.peers, Ask(request.id, request.key))

    def on_message(self, src: int, message: Any) -> None:
        what = type(message)
        if what is Ask:
            tag, value = self.data.get(message.key, NOTHING)
            self.send(src, Newest(message.operation, tag, value))
        elif what is Newest:
            state = self.running.get(message.operation)
            if state is not None and not state[6]:
                self.on_newest(message, state)
        elif what is Store:
            self.hold(message)
            self.send(src, Stored(message.operation))
        else:
            self.on_stored(message.operation)

    def on_newest(self, message: Newest, state: list[Any]) -> None:
        state[5] += 1
        if message.tag > state[3]:
            state[3], state[4] = message.tag, message.value
        if state[5] == self.majority:
            self.store(message.operation, state)

    def store(self, operation: int, state: list[Any]) -> None:
        """A majority has answered: the second round begins, with the newest value or a newer one."""
        if state[0] == "write":
            number = self.numbers[state[1]] = 1 + max(state[3][0], self.numbers.get(state[1], 0))
            state[3], state[4] = (number, self.node), state[2]
        state[5], state[6] = 0, True
        self.spread(Store(operation, state[1], state[3], state[4]))

    def spread(self, message: Store) -> None:
        """To this node's own replica without the network, then (what that writes down being on disk) to every other node over it."""
        self.hold(message)
        self.on_stored(message.operation)
        self.send_all(self.peers, message)

    def hold(self, message: Store) -> None:
        held = self.data.get(message.key, NOTHING)
        if message.tag > held[0]:
            self.data[message.key] = (message.tag, message.value)
            self.keep(message, held[1])
        elif message.tag < held[0]:
            self.applied(message.key, message.value, message.tag, late=True)

    def keep(self, message: Store, older: Any) -> None:
        """The value is the newest here: tell the record, and write it down before it is acknowledged."""
        self.applied(message.key, message.value, message.tag, () if older is None else (older,))
        self.persist(message)

    def on_stored(self, operation: int) -> None:
        state = self.running.get(operation)
        if state is None or not state[6]:
            return
        state[5] += 1
        if state[5] == self.majority:
            del self.running[operation]
            self.reply(operation, "ok", None if state[0] == "write" else state[4])


class AbdInMemory(Abd):
    """The same register without a journal and without a record of versions, as the baselines of `capray bench` have it."""

    name = "abd-in-memory"

    def keep(self, message: Store, older: Any) -> None:
        """Nothing to write down."""
