"""The `abd` policy, broken on purpose: Attiya, Bar-Noy and Dolev, JACM 1995; Lynch and Shvartsman, FTCS 1997."""

from __future__ import annotations

from typing import Any

from capray.policies.abd.messages import Newest, Store
from capray.policies.abd.replica import Abd, Running
from capray.replica import Request


class QuorumsApart(Abd):
    """Half of the replicas, rounded down, are enough.  Violates what ABD rests on, that any two majorities intersect: both sides of a cut go on."""

    def __init__(self, node: int, nodes: int, settings: Any, stream: Any) -> None:
        super().__init__(node, nodes, settings, stream)
        self.majority = nodes // 2


class ReadsWithoutWriteBack(Abd):
    """A read answers after its first round.  Violates ABD's rule that readers write: else a later read may return an older value, the new-old inversion
    that tells a regular register from an atomic one (Lamport 1986)."""

    def on_newest(self, message: Newest, state: Running) -> None:
        super().on_newest(message, state)
        if message.operation in self.running and state.storing and state.f == "read":
            del self.running[message.operation]
            self.reply(message.operation, "ok", state.value)


class TagFromMemory(Abd):
    """A write takes its tag from its own replica and not from a majority.  Violates the first phase of Lynch and Shvartsman's write (query a quorum for the
    largest tag), which many writers need where ABD's one writer does not: a write can be ordered before one long done."""

    def on_request(self, request: Request) -> None:
        if request.f != "write":
            super().on_request(request)
            return
        tag = (self.data.get(request.key, ((0, 0), None))[0][0] + 1, self.node)
        state = self.running[request.id] = Running(request.f, request.key, request.value, (tag, request.value))
        state.answers, state.storing = 0, True
        self.spread(Store(request.id, request.key, tag, request.value))


class StoresInMemory(Abd):
    """What was stored is acknowledged and not written down.  Violates stable storage in the crash-recovery model (Guerraoui and Levy, ICDCS 2004: at least
    one log before a write is acknowledged): a majority that restarts has forgotten the value."""

    def persist(self, record: Any, sync: bool = True) -> None:
        """Nothing is kept."""
