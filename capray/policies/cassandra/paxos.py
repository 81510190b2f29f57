"""Lamport, "The part-time parliament" (1998), as Apache Cassandra 5.0's lightweight transactions run it (paxos_variant v1): SERIAL, LOCAL_SERIAL.

Decides: what a compare-and-set and a serial read do, as coordinator and as acceptor: prepare, (repair what was left over), read, propose, commit.
May not know: other keys; each partition is a Paxos register of its own.
Sources: service.StorageProxy (legacyCas, legacyReadWithPaxos, doPaxos, beginAndRepairPaxos, proposePaxos, commitPaxos), service.paxos.v1
(callbacks: prepare waits for a quorum, propose for one or for all answers; all of them until the write timeout counted from the client's
request), service.paxos.PaxosState; serial reads propose an empty update since 4.0 (CASSANDRA-12126), so that a later one cannot see an earlier state.
The row is read as any other at QUORUM (LOCAL_QUORUM), by reads.py: of as many replicas as that needs, in the dynamic snitch's order, so that
a transaction can hang on a cut-off replica although a quorum of others has promised.
A write at SERIAL stands for `UPDATE ... IF <condition that holds>`: it reads, as any conditional update must, and then sets the value.
LOCAL_SERIAL has only the replicas of the coordinator's data centre as participants, and is committed at LOCAL_QUORUM; commits go to all.
A ballot is (microseconds, a number of its own): as TimeUUIDs are, ordered by time (whole milliseconds of the coordinator's clock) and unique.  A read at SERIAL that fails to reach a quorum fails.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from capray.policies.cassandra.cells import ABSENT, Cell
from capray.policies.ring import EVERY, quorum
from capray.replica import ACK, WRITE, Message

if TYPE_CHECKING:
    from capray.policies.cassandra.replica import Cassandra

Ballot = tuple[int, int]
NONE: Ballot = (0, -1)
NOTHING = ABSENT  # an empty update: what a serial read proposes
CONTENTION_SLEEP_US = 100_000  # StorageProxy: a random sleep up to 100 ms before the next ballot

PREPARE, READING, PROPOSE, COMMIT = range(4)


class Prepare(Message, frozen=True, array_like=True, tag=True, gc=False):
    """PAXOS_PREPARE_REQ."""

    kind = WRITE
    size = 120
    id: int
    key: str
    ballot: Ballot
    created: int


class Promise(Message, frozen=True, array_like=True, tag=True, gc=False):
    """PAXOS_PREPARE_RSP: promised or not; the promise that stands; what was accepted last, and what was committed last."""

    kind = ACK
    size = 300
    id: int
    promised: bool
    standing: Ballot
    accepted: Ballot
    accepted_cell: Cell
    committed: Ballot
    committed_cell: Cell
    created: int


class Propose(Message, frozen=True, array_like=True, tag=True, gc=False):
    """PAXOS_PROPOSE_REQ."""

    kind = WRITE
    size = 220
    id: int
    key: str
    ballot: Ballot
    cell: Cell
    created: int


class Accepted(Message, frozen=True, array_like=True, tag=True, gc=False):
    """PAXOS_PROPOSE_RSP."""

    kind = ACK
    size = 60
    id: int
    accepted: bool
    standing: Ballot
    created: int


class Commit(Message, frozen=True, array_like=True, tag=True, gc=False):
    """PAXOS_COMMIT_REQ: learn the decision and apply it.  `id` 0: nobody waits for the acknowledgement."""

    kind = WRITE
    size = 220
    id: int
    key: str
    ballot: Ballot
    cell: Cell
    created: int


class Committed(Message, frozen=True, array_like=True, tag=True, gc=False):
    """PAXOS_COMMIT_RSP."""

    kind = ACK
    size = 40
    id: int


class Transaction:
    """One lightweight transaction under way at its coordinator."""

    __slots__ = (
        "ballot",
        "cell",
        "deadline",
        "id",
        "key",
        "least",
        "needs",
        "participants",
        "phase",
        "promises",
        "read",
        "refused",
        "repairing",
        "replicas",
        "request",
        "started",
        "value",
        "votes",
    )

    def __init__(self, number: int, request: int, key: str, value: Any, read: bool, started: int, deadline: int, participants: list[int]) -> None:
        """participants: the replicas among which a quorum is needed."""
        self.id = number
        self.request = request
        self.key = key
        self.value = value
        self.read = read
        self.started = started
        self.deadline = deadline
        self.participants = participants
        self.replicas: list[int] = []  # those of them that were alive when it began
        self.needs: tuple[tuple[int, int], ...] = ()  # what reading the row needs
        self.phase = PREPARE
        self.ballot: Ballot = NONE
        self.least = 0  # the time below which its next ballot would be refused, as far as that is known
        self.cell: Cell = NOTHING  # what is proposed
        self.repairing = False  # an earlier transaction's leftover is being finished first
        self.promises: dict[int, Promise] = {}
        self.votes: dict[int, Cell] = {}
        self.refused = 0


class Register:
    """One partition's acceptor state (system.paxos)."""

    __slots__ = ("accepted", "accepted_cell", "committed", "committed_cell", "promised")

    def __init__(self) -> None:
        self.promised: Ballot = NONE
        self.accepted: Ballot = NONE
        self.accepted_cell: Cell = NOTHING
        self.committed: Ballot = NONE
        self.committed_cell: Cell = NOTHING


class Paxos:
    """One node's part in lightweight transactions: acceptor for its ranges, proposer for its clients."""

    def __init__(self, host: Cassandra) -> None:
        self.host = host
        self.registers: dict[str, Register] = {}
        self.open: dict[int, Transaction] = {}
        self.last_ballot = 0

    # ---- acceptor -----------------------------------------------------------------------------------------------------------------
    def _register(self, key: str) -> Register:
        register = self.registers.get(key)
        if register is None:
            register = self.registers[key] = Register()
        return register

    def _keep(self, key: str, r: Register) -> None:
        self.host.persist(("paxos", key, r.promised, r.accepted, r.accepted_cell, r.committed, r.committed_cell), sync=False)

    def recover(self, record: Any) -> None:
        """A record of the commit log: the newest of a key stands."""
        r = self._register(record[1])
        r.promised, r.accepted, r.accepted_cell, r.committed, r.committed_cell = (tuple(part) for part in record[2:])

    def _stale(self, created: int) -> bool:
        return self.host.expired(created, self.host.settings.write_request_timeout_us)

    def on_prepare(self, src: int, m: Prepare) -> None:
        """Promise to accept nothing older, unless something newer was promised or committed; tell what is accepted and committed."""
        if self._stale(m.created):
            return
        r = self._register(m.key)
        promised = m.ballot[0] > max(r.promised[0], r.committed[0])  # by time alone (Commit.isAfter), since cells are stamped by it
        if promised:
            r.promised = m.ballot
            self._keep(m.key, r)
        self.host.send(src, Promise(m.id, promised, r.promised, r.accepted, r.accepted_cell, r.committed, r.committed_cell, m.created))

    def on_propose(self, src: int, m: Propose) -> None:
        """Accept unless something newer was promised."""
        if self._stale(m.created):
            return
        r = self._register(m.key)
        latest = max(r.promised, r.committed)
        accepted = m.ballot == latest or m.ballot[0] > latest[0]
        if accepted:
            r.promised = r.accepted = m.ballot
            r.accepted_cell = m.cell
            self._keep(m.key, r)
        self.host.send(src, Accepted(m.id, accepted, r.promised, m.created))

    def on_commit(self, src: int, m: Commit) -> None:
        """Apply the decision; what was accepted up to its ballot is done with.  One that comes late has expired, as any message."""
        if self._stale(m.created):
            return
        r = self._register(m.key)
        if m.ballot > r.committed:
            r.committed, r.committed_cell = m.ballot, m.cell
            if r.accepted <= m.ballot:
                r.accepted, r.accepted_cell = NONE, NOTHING
            self._keep(m.key, r)
        if m.cell[0] >= 0:
            self.host.apply(m.key, m.cell)
        if m.id:
            self.host.send(src, Committed(m.id))

    # ---- proposer -----------------------------------------------------------------------------------------------------------------
    def begin(self, request: int, key: str, value: Any, read: bool, local: bool = False) -> None:
        """A client's conditional write, or its serial read: refused if no quorum of the participants is alive (ReplicaPlans.forPaxos)."""
        host = self.host
        here = host.datacenter(host.node)
        participants = [n for n in host.replicas(key) if not local or host.datacenter(n) == here]
        t = Transaction(host.new_id(), request, key, value, read, host.now, host.now + host.settings.cas_contention_timeout_us, participants)
        self.open[t.id] = t
        t.replicas = [n for n in participants if host.gossiper.alive[n]]
        t.needs = ((here if local else EVERY, self._quorum(t)),)
        if len(t.replicas) < self._quorum(t):
            self._finish(t, "fail", None, "UNAVAILABLE")
        else:
            self._prepare(t)

    def _quorum(self, t: Transaction) -> int:
        return quorum(len(t.participants))

    def _next_phase(self, t: Transaction, phase: int) -> None:
        """All phases but the reading wait until the write timeout from the client's request (RequestTime.computeTimeout); a phase's number is a
        new one, so that late answers to an earlier one are ignored."""
        self.open.pop(t.id, None)
        self.host.cancel_timer(("paxos", t.id))
        t.id = self.host.new_id()
        self.open[t.id] = t
        t.phase = phase
        t.promises, t.votes, t.refused = {}, {}, 0
        if phase != READING:
            self.host.set_timer(("paxos", t.id), max(0, t.started + self.host.settings.write_request_timeout_us - self.host.now))

    def _prepare(self, t: Transaction) -> None:
        self._next_phase(t, PREPARE)
        t.ballot = (self._ballot_time(t.least), self.host.new_id() * self.host.nodes + self.host.node)
        for node in t.replicas:
            self.host.send(node, Prepare(t.id, t.key, t.ballot, self.host.now))

    def _ballot_time(self, least: int) -> int:
        """ClientState.getTimestampForPaxos: the clock's milliseconds, but not before `least`, and never twice the same here unless it is that: what a peer
        with a clock ahead has promised is heeded this once and not remembered (CASSANDRA-11991)."""
        now = self.host.now
        current = max(now - now % 1000, least)
        if self.last_ballot >= current:
            current = self.last_ballot + 1
        if current != least:
            self.last_ballot = current
        return current

    def on_promise(self, src: int, m: Promise) -> None:
        """Answers to a prepare: one refusal is enough to begin again with a higher ballot."""
        t = self.open.get(m.id)
        if t is None or t.phase != PREPARE:
            return
        if not m.promised:
            self._contended(t, m.standing[0] + 1)
            return
        t.promises[src] = m
        if len(t.promises) == self._quorum(t):
            self._promised(t)

    def _promised(self, t: Transaction) -> None:
        """beginAndRepairPaxos: finish what another left accepted (an empty update needs no finishing: it changes nothing); bring the newest
        commit to those without it; else go on."""
        promises = list(t.promises.values())
        last = max(promises, key=lambda p: p.committed)
        pending = max(promises, key=lambda p: p.accepted)
        t.least = pending.accepted[0] + 1
        if pending.accepted > last.committed and pending.accepted_cell[0] >= 0:
            t.repairing = True
            self._propose(t, pending.accepted_cell)
            return
        missing = [src for src, p in t.promises.items() if p.committed < last.committed]
        for node in missing:
            self.host.send(node, Commit(0, t.key, last.committed, last.committed_cell, self.host.now))
        if missing:
            self.again(t.id)
        elif t.read:
            self._propose(t, NOTHING)
        else:
            self._read_row(t)

    def _read_row(self, t: Transaction) -> None:
        """The state that the condition is tested on, or that a serial read answers: a read at QUORUM, whose times count from the client's request."""
        self._next_phase(t, READING)
        self.host.reads.begin_within(t.id, t.key, t.started, t.needs, not t.read)

    def on_row(self, number: int, cell: Cell) -> None:
        """The row is here."""
        t = self.open.get(number)
        if t is None or t.phase != READING:
            return
        if t.read:
            self._finish(t, "ok", cell[1], None)
        else:
            self._propose(t, (t.ballot[0], t.value, self.host.now if t.value is None else 0))

    def row_failed(self, number: int, error: str) -> None:
        """Too few replicas are alive for the row (nothing was proposed), or they did not answer in time."""
        t = self.open.get(number)
        if t is not None and t.phase == READING:
            self._finish(t, "fail" if t.read or error == "UNAVAILABLE" else "info", None, error)

    def _propose(self, t: Transaction, cell: Cell) -> None:
        self._next_phase(t, PROPOSE)
        if cell[0] >= 0:
            cell = (t.ballot[0], cell[1], cell[2])
        t.cell = cell
        for node in t.replicas:
            self.host.send(node, Propose(t.id, t.key, t.ballot, cell, self.host.now))

    def on_accepted(self, src: int, m: Accepted) -> None:
        """A quorum has accepted: decided.  All refused: begin again.  Some accepted and some refused: another transaction may finish what
        was accepted, so that to try again could apply it twice: CasWriteUnknownResultException (proposePaxos, backoffIfPartial)."""
        t = self.open.get(m.id)
        if t is None or t.phase != PROPOSE:
            return
        if m.accepted:
            t.votes[src] = NOTHING
        else:
            t.refused += 1
        if len(t.votes) >= self._quorum(t):
            if t.read and not t.repairing:
                self._read_row(t)
            else:
                self._commit(t)
        elif t.repairing and len(t.replicas) - t.refused < self._quorum(t):
            self._contended(t, t.least)
        elif len(t.votes) + t.refused == len(t.replicas):
            if t.votes:
                self._fail(t, "CasWriteUnknown")
            else:
                self._contended(t, 0)

    def _commit(self, t: Transaction) -> None:
        """To all replicas: the living are asked, for those known to be down a hint is stored (not of an earlier transaction's leftover: allowHints); those that
        stay silent get theirs from the reaper, as with any write."""
        self._next_phase(t, COMMIT)
        host, waiting = self.host, []
        for node in host.replicas(t.key):
            if host.gossiper.alive[node]:
                host.send(node, Commit(t.id, t.key, t.ballot, t.cell, host.now))
                waiting.append(node)
            elif not t.repairing and host.hints.should_hint(node):
                host.hints.write(node, t.key, t.cell)
        host.writes.follow(t.id, t.key, t.cell, [node for node in waiting if node != host.node])

    def on_committed(self, src: int, m: Committed) -> None:
        """A quorum has applied it: an earlier transaction's, and this one begins; or this one's, and the client is told."""
        self.host.writes.on_ack(src, m.id)
        t = self.open.get(m.id)
        if t is None or t.phase != COMMIT:
            return
        t.votes[src] = NOTHING
        if sum(node in t.votes for node in t.participants) < self._quorum(t):
            return
        if t.repairing:
            t.repairing = False
            self.again(t.id)
        else:
            self._finish(t, "ok", None, None)

    def _contended(self, t: Transaction, least: int) -> None:
        """Another ballot is ahead: sleep up to 100 ms and try a higher one, from `least` on, until the contention timeout."""
        t.least = least
        t.repairing = False
        self._next_phase(t, PREPARE)
        self.host.set_timer(("paxos-again", t.id), self.host.stream.below(CONTENTION_SLEEP_US))
        self.host.cancel_timer(("paxos", t.id))

    def again(self, number: int) -> None:
        """The sleep is over, or an earlier transaction is finished: prepare anew, if cas_contention_timeout is not over."""
        t = self.open.get(number)
        if t is None:
            return
        if self.host.now < t.deadline:
            self._prepare(t)
        else:
            self._fail(t, "CasWriteTimeout (contention)")

    def timed_out(self, number: int) -> None:
        """A phase found no quorum in time."""
        t = self.open.get(number)
        if t is not None:
            self._fail(t, "ReadTimeout (SERIAL)" if t.read else "CasWriteTimeout")

    def _fail(self, t: Transaction, error: str) -> None:
        """A read has failed; a write may be accepted somewhere and be finished by a later transaction: unknown."""
        self._finish(t, "fail" if t.read else "info", None, error)

    def _finish(self, t: Transaction, outcome: str, result: Any, error: str | None) -> None:
        host = self.host
        del self.open[t.id]
        host.cancel_timer(("paxos", t.id))
        if t.read:
            host.reads.percentile.add(host.now, max(1, host.now - t.started))  # legacyReadWithPaxos: coordinatorReadLatency is all of it
        host.reply(t.request, outcome, result, error)
