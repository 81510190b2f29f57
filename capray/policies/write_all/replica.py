"""Read one, write all, by two-phase commit: Gray 1978 (Notes on Data Base Operating Systems, 5.8.3.3); Bernstein, Hadzilacos and Goodman 1987
(BHG), ch. 7; presumed abort: Mohan, Lindsay and Obermarck 1986 (R*).  The thought experiment's C choice.
Gray's notes and the R* paper were not at hand but for the latter's opening: their sections are cited from secondary sources, BHG among them.

Decides: when a write is committed everywhere or nowhere.  May not know: who is reachable; silence alone refuses.
Every node is a participant; the coordinator is the client's node.  It locks the key at home, asks all others to prepare (lock the key, log
the value, vote), logs the commit when all have voted yes, applies it, and tells all.  `ok` only when every participant has logged and
applied it; decided and not confirmed by all within `confirm_timeout` is `info` (it will happen); not prepared everywhere within
`prepare_timeout` is aborted and `fail`.  Abort needs no record: a transaction without a commit record at its coordinator is aborted, for
ever, so the refusal binds (presumed abort).
Reads are local.  A read of a key with a prepared write waits: until that write is decided its old value may already be overwritten
elsewhere.  Hence linearizable always: a write takes effect when its commit is logged, and from then until each node applies it, its reads wait.
Locks: a write waits for its key at home, where it still holds nothing; elsewhere wait-die (Rosenkrantz, Stearns and Lewis 1978): an older
write waits for a younger holder, a younger one is voted down and tries again, with its old age, until `prepare_timeout`.  No deadlock.

In doubt (voted yes, decision not known), across a cut: the participant keeps the lock, so reads of that key wait there, however long.  Each
`inquiry_interval` it asks the coordinator and all participants (cooperative termination, BHG 7.4): who has the commit says so; who has not
voted refuses for ever (logged), which aborts it; the coordinator answers from its log.  All voted and the coordinator out of reach: they wait.
Across a crash: what was voted is in the journal, so the participant wakes in doubt, lock held.  A coordinator that wakes goes on telling the
commits that not all have confirmed, and answers `abort` to all else.
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta

from capray.policies.write_all.two_phase import (
    DECIDED,
    LOGGED,
    PREPARING,
    WAITING,
    Abort,
    Age,
    Commit,
    Confirm,
    Decision,
    End,
    Inquire,
    Prepare,
    Refusal,
    Row,
    Tid,
    Transaction,
    Vote,
)
from capray.replica import Replica, Request, Settings
from capray.streams import Stream

BACKOFF_LIMIT = 4  # doublings of the pause before another attempt


class WriteAllSettings(Settings, frozen=True):
    """How long a coordinator waits, and how often those in doubt ask."""

    prepare_timeout_us: Annotated[
        int, Meta(ge=1, description="not prepared everywhere by then: refused; microseconds; by choice: half of the clients' 1 s")
    ] = 500_000
    confirm_timeout_us: Annotated[
        int, Meta(ge=1, description="decided and not confirmed by all by then: info; microseconds; by choice: within the clients' 1 s")
    ] = 400_000
    inquiry_interval_us: Annotated[
        int, Meta(ge=1, description="participants in doubt ask, and coordinators repeat decisions, this often; microseconds; by choice: 1 s")
    ] = 1_000_000
    retry_us: Annotated[
        int,
        Meta(
            ge=1, description="a write that gave way tries again after this, doubling to 16 times; microseconds; by choice: about a commit's length"
        ),
    ] = 5_000

    def problems(self, nodes: int) -> list[str]:
        times = ("prepare_timeout_us", "confirm_timeout_us", "inquiry_interval_us", "retry_us")
        return [f"{name}: {getattr(self, name)} is not accepted; it takes at least 1 microsecond" for name in times if getattr(self, name) < 1]


class WriteAll(Replica):
    """Participant, and coordinator for the clients of its node."""

    name = "write-all"
    claims = "CP: linearizable always; under a cut it refuses every write and serves reads, except of keys in doubt (ROWA with 2PC, BHG 1987)"
    transport = "tcp"
    Settings = WriteAllSettings
    MESSAGES = (Prepare, Vote, Commit, Confirm, Abort, Inquire, Decision)

    def __init__(self, node: int, nodes: int, settings: WriteAllSettings, stream: Stream) -> None:
        super().__init__(node, nodes, settings, stream)
        self.others = [peer for peer in range(nodes) if peer != node]
        self.all_others = (1 << nodes) - 1 & ~(1 << node)
        self.rows: dict[str, Row] = {}
        self.transactions: dict[int, Transaction] = {}  # by request: this node coordinates them
        self.in_doubt: dict[Tid, tuple[str, int]] = {}  # voted yes: the key, and since when
        self.refused: set[Tid] = set()
        self.ticking = False
        self.handlers: dict[type, Any] = {
            Prepare: self._on_prepare,
            Vote: self._on_vote,
            Commit: self._on_commit,
            Confirm: self._on_confirm,
            Abort: self._on_abort,
            Inquire: self._on_inquire,
            Decision: self._on_logged,
        }
        self.timers = {"prepare": self._prepare_timeout, "retry": self._attempt_again, "confirm": self._confirm_timeout}

    def peek(self, key: str) -> Any:
        row = self.rows.get(key)
        return None if row is None else row.value

    # ---- events -------------------------------------------------------------------------------------------------------------------
    def on_request(self, request: Request) -> None:
        row = self._row(request.key)
        if request.f == "read":
            if row.holder is None:
                self.reply(request.id, "ok", row.value)
            else:
                row.reads.append(request.id)
            return
        t = Transaction(request.id, request.key, request.value, (self.now, self.node, request.id))
        self.transactions[request.id] = t
        self.set_timer(("prepare", request.id), self.settings.prepare_timeout_us)
        self._queue(row, t)

    def on_message(self, src: int, message: Any) -> None:
        self.handlers[type(message)](src, message)

    def on_timer(self, name: Any) -> None:
        if name == "tick":
            self._tick()
        else:
            t = self.transactions.get(name[1])
            if t is not None:
                self.timers[name[0]](t)

    def on_connected(self, peer: int) -> None:
        """What an ended connection may have lost is said again."""
        for t in self.transactions.values():
            if t.phase == LOGGED and t.missing >> peer & 1:
                self.send(peer, Commit(self._tid(t), t.key, t.version))
        for tid, (key, _) in self.in_doubt.items():
            self.send(peer, Inquire(tid, key))

    def on_disconnected(self, peer: int) -> None:
        """A participant's process died, and its vote with it: try again, until the time-out."""
        for t in list(self.transactions.values()):
            if t.phase == PREPARING and t.missing >> peer & 1:
                self._give_way(t)

    # ---- the coordinator ----------------------------------------------------------------------------------------------------------
    def _tid(self, t: Transaction) -> Tid:
        return (self.node, t.request, t.attempt)

    def _find(self, tid: Tid) -> Transaction | None:
        """The transaction whose present attempt this is."""
        t = self.transactions.get(tid[1]) if tid[0] == self.node else None
        return t if t is not None and t.attempt == tid[2] else None

    def _queue(self, row: Row, t: Transaction) -> None:
        if row.holder is None:
            self._prepare(row, t)
        else:
            row.queue.append(t)

    def _prepare(self, row: Row, t: Transaction) -> None:
        t.attempt += 1
        t.phase = PREPARING
        t.missing = self.all_others
        t.version = row.version
        tid = self._tid(t)
        row.lock(tid, t.age, t.value)
        message = Prepare(tid, t.age, t.key, t.value)
        for peer in self.others:
            self.send(peer, message)
        if not t.missing:
            self._decide(t)

    def _on_vote(self, src: int, message: Vote) -> None:
        t = self._find(message.tid)
        if t is None or t.phase != PREPARING:
            return
        if not message.yes:
            self._give_way(t)
            return
        t.missing &= ~(1 << src)
        t.version = max(t.version, message.version)
        if not t.missing:
            self._decide(t)

    def _decide(self, t: Transaction) -> None:
        """All have voted: commit.  It has happened once the record is synced."""
        t.phase = DECIDED
        t.version += 1
        self.cancel_timer(("prepare", t.request))
        self.set_timer(("confirm", t.request), self.settings.confirm_timeout_us)
        decision = Decision(self._tid(t), t.key, t.value, t.version)
        self.persist(decision)
        self.send(self.node, decision)

    def _on_logged(self, src: int, message: Decision) -> None:
        t = self.transactions[message.tid[1]]
        t.phase = LOGGED
        t.missing = self.all_others
        t.told_at = self.now
        row = self.rows[t.key]
        self._apply(row, message.tid, t.key, t.value, t.version)
        self._tell(t)
        if t.missing:
            self._keep_ticking()
        else:
            self._finish(t)
        self._next(row)

    def _tell(self, t: Transaction) -> None:
        message = Commit(self._tid(t), t.key, t.version)
        for peer in self.others:
            if t.missing >> peer & 1:
                self.send(peer, message)

    def _on_confirm(self, src: int, message: Confirm) -> None:
        t = self._find(message.tid)
        if t is not None and t.phase == LOGGED:
            t.missing &= ~(1 << src)
            if not t.missing:
                self._finish(t)

    def _finish(self, t: Transaction) -> None:
        del self.transactions[t.request]
        if not t.answered:
            self.cancel_timer(("confirm", t.request))
            self.reply(t.request, "ok")
        self.persist(End(self._tid(t)), sync=False)

    def _confirm_timeout(self, t: Transaction) -> None:
        t.answered = True
        self.reply(t.request, "info", None, "committed, not confirmed by all")

    def _prepare_timeout(self, t: Transaction) -> None:
        """Refused: there is no commit record, and without the transaction there will be none."""
        del self.transactions[t.request]
        self.cancel_timer(("retry", t.request))
        self.reply(t.request, "fail", None, "not prepared everywhere")
        self._withdraw(t)

    def _give_way(self, t: Transaction) -> None:
        """This attempt is aborted; another follows after a pause."""
        self.set_timer(("retry", t.request), self.settings.retry_us << min(t.attempt - 1, BACKOFF_LIMIT))
        self._withdraw(t)

    def _withdraw(self, t: Transaction) -> None:
        row = self.rows[t.key]
        if t.phase == PREPARING:
            t.phase = WAITING
            message = Abort(self._tid(t), t.key)
            for peer in self.others:
                self.send(peer, message)
            self._release(row)
        elif t in row.queue:
            row.queue.remove(t)

    def _attempt_again(self, t: Transaction) -> None:
        self._queue(self.rows[t.key], t)

    # ---- the participant ----------------------------------------------------------------------------------------------------------
    def _on_prepare(self, src: int, message: Prepare) -> None:
        row = self._row(message.key)
        if message.tid in self.refused:
            self.send(src, Vote(message.tid, False, 0))
        elif row.holder == message.tid or row.tid == message.tid:
            pass  # a duplicate
        elif row.holder is None:
            self._vote(row, message)
        elif message.age < row.age:
            row.older.append(message)
        else:
            self.send(src, Vote(message.tid, False, 0))

    def _vote(self, row: Row, message: Prepare) -> None:
        row.lock(message.tid, message.age, message.value)
        self.in_doubt[message.tid] = (message.key, self.now)
        self._keep_ticking()
        self.persist(message)
        self.send(message.tid[0], Vote(message.tid, True, row.version))

    def _on_commit(self, src: int, message: Commit) -> None:
        row = self._row(message.key)
        held = row.holder == message.tid
        if held:
            del self.in_doubt[message.tid]
            self._apply(row, message.tid, message.key, row.pending, message.version)
        elif message.version > row.version:
            return  # never voted on: no coordinator decides so
        self.persist(message)
        self.send(message.tid[0], Confirm(message.tid))
        if held:
            self._next(row)

    def _on_abort(self, src: int, message: Abort) -> None:
        row = self._row(message.key)
        if row.holder == message.tid and message.tid in self.in_doubt:
            del self.in_doubt[message.tid]
            self.persist(message, sync=False)
            self._release(row)
        else:
            row.older = [each for each in row.older if each.tid != message.tid]

    def _on_inquire(self, src: int, message: Inquire) -> None:
        tid, row = message.tid, self._row(message.key)
        if row.tid == tid:
            self.send(src, Commit(tid, message.key, row.version))
        elif tid[0] == self.node:
            t = self._find(tid)
            if t is None or t.phase == WAITING:
                self.send(src, Abort(tid, message.key))
            elif t.phase == LOGGED:
                self.send(src, Commit(tid, message.key, t.version))
        elif tid not in self.in_doubt:
            self._refuse(src, row, message)

    def _refuse(self, src: int, row: Row, message: Inquire) -> None:
        """This node has not voted on the write, or has already aborted it: from now on it never will vote yes."""
        tid = message.tid
        self.refused.add(tid)
        row.older = [each for each in row.older if each.tid != tid]
        self.persist(Refusal(tid))
        self.send(src, Abort(tid, message.key))
        self.send(tid[0], Vote(tid, False, 0))

    # ---- a key's lock -------------------------------------------------------------------------------------------------------------
    def _row(self, key: str) -> Row:
        row = self.rows.get(key)
        if row is None:
            row = self.rows[key] = Row()
        return row

    def _apply(self, row: Row, tid: Tid, key: str, value: Any, version: int) -> None:
        """The write is visible here from now on; the reads that waited see it."""
        row.take(tid, value, version)
        self.applied(key, value, (version,), row.superseded)
        row.unlock()
        self._serve(row)

    def _serve(self, row: Row) -> None:
        reads, row.reads = row.reads, []
        for request in reads:
            self.reply(request, "ok", row.value)

    def _release(self, row: Row) -> None:
        row.unlock()
        self._serve(row)
        self._next(row)

    def _next(self, row: Row) -> None:
        """The youngest of those that waited as older: so the others go on waiting for a younger one.  Then this node's own, in their order."""
        if row.holder is not None:
            return
        if row.older:
            message = max(row.older, key=_age)
            row.older.remove(message)
            self._vote(row, message)
        elif row.queue:
            self._prepare(row, row.queue.popleft())

    # ---- silence and recovery -----------------------------------------------------------------------------------------------------
    def _keep_ticking(self) -> None:
        if not self.ticking:
            self.ticking = True
            self.set_timer("tick", self.settings.inquiry_interval_us)

    def _tick(self) -> None:
        """Ask about what has been in doubt for an interval; repeat decisions that were not confirmed within one."""
        self.ticking = False
        before = self.now - self.settings.inquiry_interval_us
        for tid, (key, since) in self.in_doubt.items():
            if since <= before:
                self._inquire(tid, key)
        waiting = bool(self.in_doubt)
        for t in self.transactions.values():
            if t.phase == LOGGED:
                waiting = True
                if t.told_at <= before:
                    self._tell(t)
        if waiting:
            self._keep_ticking()

    def _inquire(self, tid: Tid, key: str) -> None:
        message = Inquire(tid, key)
        for peer in self.others:
            self.send(peer, message)

    def on_restart(self, journal: list[Any]) -> None:
        for record in journal:
            self._replay(record)
        for key, row in self.rows.items():
            if row.version:
                self.applied(key, row.value, (row.version,), row.superseded)
        for t in self.transactions.values():
            self._tell(t)
        for tid, (key, _) in self.in_doubt.items():
            self._inquire(tid, key)
        if self.transactions or self.in_doubt:
            self._keep_ticking()

    def _replay(self, record: Any) -> None:
        kind = type(record)
        if kind is End:
            self.transactions.pop(record.tid[1], None)
        elif kind is Refusal:
            self.refused.add(record.tid)
        elif kind is Prepare:
            self._row(record.key).lock(record.tid, record.age, record.value)
            self.in_doubt[record.tid] = (record.key, self.now)
        elif kind is Decision:
            row = self._row(record.key)
            row.take(record.tid, record.value, record.version)
            age = (self.now, self.node, record.tid[1])
            t = Transaction(record.tid[1], record.key, record.value, age, record.tid[2], LOGGED, self.all_others, record.version, True, self.now)
            self.transactions[record.tid[1]] = t
        else:
            self._replay_decision(self._row(record.key), record)

    def _replay_decision(self, row: Row, record: Any) -> None:
        """A participant's Commit or Abort, of the write that it had voted on; a repeated one finds nothing in doubt."""
        if self.in_doubt.pop(record.tid, None) is None:
            return
        if type(record) is Commit:
            row.take(record.tid, row.pending, record.version)
        row.unlock()


def _age(message: Prepare) -> Age:
    return message.age
