"""The atomic register over majorities: Attiya, Bar-Noy and Dolev, JACM 1995; with many writers: Lynch and Shvartsman, FTCS 1997.

Each operation has two rounds, and each waits for a majority.  A write asks for the largest tag, then stores (tag + 1, own id) with its value.
A read asks for tags and values, then stores the largest back before it answers (`write_back`; without it a write that is under way, or was given up, is read
and then not read any more: a regular register, Lamport, "On interprocess communication", 1986).  No leader, no election, no failure detector: linearizable,
available on the side that holds a majority.  What has been stored is persisted before it is acknowledged.
Both papers' writers do one thing at a time and never crash; these nodes' clients do many, and restart.  So that no tag is given twice, a node numbers its
writes of a key above those it has under way, and a write is on its own disk before it is sent (Guerraoui and Levy, ICDCS 2004: the writer logs first).
Of the two papers of 1995 and 1997 only abstracts were at hand: their phases are told as later accounts have them (Attiya, "Robust simulation of shared memory:
20 years after", EATCS Bulletin 2010).
"""

from __future__ import annotations

from typing import Any

from mypy_extensions import mypyc_attr

from capray.policies.abd.messages import Ask, Newest, Store, Stored, Tag
from capray.policies.abd.settings import AbdSettings
from capray.replica import Replica, Request

Held = tuple[Any, ...]  # a tag and the value that it orders
NOTHING: Held = ((0, 0), None)  # what a replica without a value holds


class Running:
    """A client's operation under way: the newest tag and value that have been seen, and how many have answered the round."""

    __slots__ = ("answers", "f", "key", "storing", "tag", "value", "written")

    def __init__(self, f: str, key: str, written: Any, held: Held) -> None:
        self.f = f
        self.key = key
        self.written = written  # what it asks to write
        self.tag: Any = held[0]
        self.value = held[1]
        self.answers = 1
        self.storing = False


@mypyc_attr(allow_interpreted_subclasses=True)
class Abd(Replica):
    """A majority register; each node is a replica and coordinates its own clients' operations."""

    name = "abd"
    claims = (
        "CP: linearizable always (regular where reads do not write back); operations wait for a majority, so the minority's hang (Attiya, Bar-Noy, Dolev 1995)"
    )
    Settings = AbdSettings
    MESSAGES = (Ask, Newest, Store, Stored)

    def __init__(self, node: int, nodes: int, settings: Any, stream: Any) -> None:
        super().__init__(node, nodes, settings, stream)
        self.majority = nodes // 2 + 1
        self.write_back: bool = settings.write_back
        self.peers = tuple(peer for peer in range(nodes) if peer != node)
        self.data: dict[str, Held] = {}
        self.numbers: dict[str, int] = {}  # by key, the number of this node's newest tag
        self.running: dict[int, Running] = {}  # by request

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
        operation, key = request.id, request.key
        state = self.running[operation] = Running(request.f, key, request.value, self.data.get(key, NOTHING))
        if self.majority == 1:
            self.store(operation, state)
        self.send_all(self.peers, Ask(operation, key))

    def on_message(self, src: int, message: Any) -> None:
        what = type(message)
        if what is Ask:
            held = self.data.get(message.key, NOTHING)
            self.send(src, Newest(message.operation, held[0], held[1]))
        elif what is Newest:
            state = self.running.get(message.operation)
            if state is not None and not state.storing:
                self.on_newest(message, state)
        elif what is Store:
            self.hold(message)
            self.send(src, Stored(message.operation))
        else:
            self.on_stored(message.operation)

    def on_newest(self, message: Newest, state: Running) -> None:
        tag: Tag = message.tag
        state.answers += 1
        if tag > state.tag:
            state.tag, state.value = tag, message.value
        if state.answers == self.majority:
            if self.write_back or state.f == "write":
                self.store(message.operation, state)
            else:
                self.answer(message.operation, state)

    def store(self, operation: int, state: Running) -> None:
        """A majority has answered: the second round begins, with the newest value or a newer one."""
        key = state.key
        if state.f == "write":
            number = self.numbers[key] = 1 + max(state.tag[0], self.numbers.get(key, 0))
            state.tag, state.value = (number, self.node), state.written
        state.answers, state.storing = 0, True
        self.spread(Store(operation, key, state.tag, state.value))

    def spread(self, message: Store) -> None:
        """To this node's own replica without the network, then (what that writes down being on disk) to every other node over it."""
        self.hold(message)
        self.on_stored(message.operation)
        self.send_all(self.peers, message)

    def hold(self, message: Store) -> None:
        key: str = message.key
        tag: Tag = message.tag
        held = self.data.get(key, NOTHING)
        newest: Tag = held[0]
        if tag > newest:
            self.data[key] = (tag, message.value)
            self.keep(message, held[1])
        elif tag != newest:
            self.applied(key, message.value, tag, late=True)

    def keep(self, message: Store, older: Any) -> None:
        """The value is the newest here: tell the record, and write it down before it is acknowledged."""
        self.applied(message.key, message.value, message.tag, () if older is None else (older,))
        self.persist(message)

    def on_stored(self, operation: int) -> None:
        state = self.running.get(operation)
        if state is None or not state.storing:
            return
        state.answers += 1
        if state.answers == self.majority:
            self.answer(operation, state)

    def answer(self, operation: int, state: Running) -> None:
        del self.running[operation]
        self.reply(operation, "ok", None if state.f == "write" else state.value)


@mypyc_attr(allow_interpreted_subclasses=True)
class AbdInMemory(Abd):
    """The same register without a journal and without a record of versions, as the baselines of `capray bench` have it."""

    name = "abd-in-memory"

    def keep(self, message: Store, older: Any) -> None:
        """Nothing to write down."""
