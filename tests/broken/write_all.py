"""The `write-all` policy, broken on purpose: Gray 1978; Bernstein, Hadzilacos and Goodman 1987 (BHG), ch. 7; Mohan, Lindsay and Obermarck 1986."""

from __future__ import annotations

from typing import Any

from capray.policies.write_all.replica import WriteAll
from capray.policies.write_all.two_phase import PREPARING, Abort, Prepare, Transaction, Vote
from capray.replica import ACK, WRITE, Message, Replica, Request


class Put(Message, frozen=True):
    """The naive protocol's only request."""

    kind = WRITE
    id: int
    key: str
    value: Any


class Done(Message, frozen=True):
    """Its answer."""

    kind = ACK
    id: int


class NaiveWriteAll(Replica):
    """Not the C choice: each node stores at once; what was not confirmed by all in time is refused and stays behind.  Violates the atomic commitment
    properties AC1 and AC3 (BHG 7.2): all processes that decide reach the same decision, and yes only if all voted yes."""

    name = "naive-write-all"
    MESSAGES = (Put, Done)

    def __init__(self, node: int, nodes: int, settings: Any, stream: Any) -> None:
        super().__init__(node, nodes, settings, stream)
        self.data: dict[str, Any] = {}
        self.missing: dict[int, int] = {}

    def on_restart(self, journal: list[Any]) -> None:
        self.data = {key: value for key, value in journal}

    def peek(self, key: str) -> Any:
        return self.data.get(key)

    def on_request(self, request: Request) -> None:
        if request.f == "read":
            self.reply(request.id, "ok", self.data.get(request.key))
            return
        self.missing[request.id] = self.nodes
        self.set_timer(request.id, 500_000)
        for peer in range(self.nodes):
            self.send(peer, Put(request.id, request.key, request.value))

    def on_message(self, src: int, message: Any) -> None:
        if isinstance(message, Put):
            self.data[message.key] = message.value
            self.persist((message.key, message.value))
            self.send(src, Done(message.id))
        elif message.id in self.missing:
            self.missing[message.id] -= 1
            if not self.missing[message.id]:
                del self.missing[message.id]
                self.reply(message.id, "ok")

    def on_timer(self, name: Any) -> None:
        if self.missing.pop(name, 0):
            self.reply(name, "fail")


class LostVoteIsYes(WriteAll):
    """A vote that does not come in time counts as yes.  Violates BHG 7.4, time-out actions: the coordinator that waits for votes in vain must decide abort.
    It commits what the other side never prepared."""

    def _prepare_timeout(self, t: Transaction) -> None:
        if t.phase == PREPARING:
            self._decide(t)
        else:
            super()._prepare_timeout(t)


class CommitsOnFirstVote(WriteAll):
    """The first yes decides.  Violates AC3 (BHG 7.2): the decision is Commit only if all processes voted Yes."""

    def _on_vote(self, src: int, message: Vote) -> None:
        t = self._find(message.tid)
        if t is not None and t.phase == PREPARING and message.yes:
            t.missing = 0
        super()._on_vote(src, message)


class ForgetsItsVote(WriteAll):
    """A restarted participant does not know that it voted yes.  Violates BHG 7.4 (a participant logs its yes before it sends it, and recovers in doubt):
    the lock is gone, and the decision finds nothing to apply."""

    def _replay(self, record: Any) -> None:
        if not isinstance(record, Prepare):
            super()._replay(record)


class GuessesAbort(WriteAll):
    """A participant in doubt aborts by itself.  Violates BHG 7.3: a process that has voted Yes must not decide unilaterally (the uncertainty period; the
    heuristic abort of X/Open XA)."""

    def _inquire(self, tid: Any, key: str) -> None:
        self.send(self.node, Abort(tid, key))


class ReadsThroughLocks(WriteAll):
    """A read does not wait for a prepared write.  Violates strict two-phase locking (BHG 3.2): the old value is read here after the new one was read, or
    answered, where the commit has arrived."""

    def on_request(self, request: Request) -> None:
        if request.f == "read":
            self.reply(request.id, "ok", self.peek(request.key))
        else:
            super().on_request(request)


class OkWhenDecided(ForgetsItsVote):
    """The client is told before all have confirmed, and a participant may forget what it promised.  Violates R*'s rule that a coordinator forgets a commit
    only when all have acknowledged it (Mohan, Lindsay and Obermarck 1986, 2)."""

    def _on_logged(self, src: int, message: Any) -> None:
        super()._on_logged(src, message)
        t = self.transactions.get(message.tid[1])
        if t is not None:
            self._finish(t)
