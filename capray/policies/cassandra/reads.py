"""Apache Cassandra 5.0, package service.reads: how a coordinator reads (AbstractReadExecutor, ReadCallback, DigestResolver, BlockingReadRepair).

Decides: whom a read asks and when it asks one more, when it is answered, what is written back to stale replicas.
May not know: links, faults; a replica's silence is all that it sees.
Sources: locator.ReplicaPlans.forRead, service.reads.AbstractReadExecutor (data from the first, digests from the others; speculation after the
99th percentile), service.reads.repair.AbstractReadRepair and BlockingPartitionRepair (full reads of all contacted, merge, write back, wait for
as many as the level needs), net.RequestCallbacks (a reaper each half of the smallest timeout feeds silences to the dynamic snitch).
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from typing import TYPE_CHECKING

from capray.policies.cassandra.cells import ABSENT, Cell, digest, same, wins
from capray.policies.cassandra.messages import ReadData, ReadDigest, ReadRepair, ReadRequest
from capray.policies.cassandra.snitch import DynamicSnitch, LatencyPercentile
from capray.policies.ring import EVERY, quorum

if TYPE_CHECKING:
    from capray.policies.cassandra.replica import Cassandra

Needs = tuple[tuple[int, int], ...]  # (data centre, how many of its replicas)

# Stages of a read: digests are awaited; full rows are, after a mismatch; repaired replicas are; it is answered.
DIGESTS, ROWS, REPAIRS, DONE = range(4)
# What a deadline is for.
READ_TIMEOUT, SPECULATE, REPAIR_TIMEOUT, MORE_REPAIRS = range(4)
DRIVER_READ_MS = 1  # see driver_own_reads


class PendingRead:
    """One read under way at its coordinator."""

    __slots__ = (
        "answers", "best", "candidates", "contacts", "counted", "id", "key", "missing", "needs", "request", "sent", "stage", "stale", "started", "within"
    )

    def __init__(self, read_id: int, request: int, within: int, key: str, started: int, counted: int, needs: Needs, candidates: list[int]) -> None:
        """For a client's request, or within a lightweight transaction, the other of `request` and `within` being 0."""
        self.id = read_id
        self.request = request
        self.within = within
        self.key = key
        self.started = started  # when the client's request came
        self.counted = counted  # since when its latency is, for the percentile; -1: that is not told here
        self.needs = needs
        self.candidates = candidates
        self.contacts: list[int] = []
        self.missing = [list(need) for need in needs]  # [data centre, answers still needed]
        self.sent: set[int] = set()  # replicas that were asked and have not answered
        self.answers: dict[int, tuple[int, Cell | None]] = {}  # replica -> digest, and the row where it was asked for
        self.stage = DIGESTS
        self.stale: list[int] = []
        self.best: Cell = ABSENT

    def count(self, dc: int) -> None:
        """A replica of that data centre has answered."""
        for need in self.missing:
            if need[0] in (EVERY, dc):
                need[1] -= 1

    def enough(self) -> bool:
        """Whether as many as needed have answered, among them one with the row."""
        return all(need[1] <= 0 for need in self.missing) and any(cell is not None for _, cell in self.answers.values())


class Reads:
    """The reads that one node coordinates."""

    def __init__(self, host: Cassandra) -> None:
        settings = host.settings
        self.host = host
        self.settings = settings
        self.pending: dict[int, PendingRead] = {}
        self.awaited: deque[tuple[int, int]] = deque()  # (when its callbacks expire, id), oldest first
        below = host.stream.below
        self.snitch = DynamicSnitch(
            host.node,
            settings.endpoint_snitch != "simple",
            settings.dynamic_snitch,
            settings.dynamic_snitch_update_interval_us,
            settings.dynamic_snitch_reset_interval_us,
            settings.dynamic_snitch_badness_percent,
            below(settings.dynamic_snitch_update_interval_us),
            below(settings.dynamic_snitch_reset_interval_us) if settings.past_age_us else 0,
        )
        timeout = settings.read_request_timeout_us
        self.percentile = LatencyPercentile(timeout // 2, timeout, below(timeout))
        timeouts = below(2 * settings.past_read_timeouts[host.node] + 1) if settings.past_read_timeouts else 0
        self.percentile.past(settings.past_age_us, {5_000: settings.past_reads, timeout: timeouts})
        self.tick_phase = below(settings.clock_tick_us)
        self.unread = set(range(host.nodes)) if settings.first_read_latency_us else set()  # peers that this process has not read yet
        self.distance = {n: host.distance(n) for n in range(host.nodes)}

    def driver_connects(self) -> None:
        """A client's driver reads this node's system tables, through StorageProxy as any client's read: the snitch learns of its own replica first."""
        for _ in range(self.settings.driver_own_reads):
            self.snitch.sample(self.host.now, self.host.node, DRIVER_READ_MS)

    # ---- asking -------------------------------------------------------------------------------------------------------------------
    def begin(self, request: int, key: str) -> None:
        """A client's read."""
        self._begin(request, 0, key, self.host.now, self.host.now, self.host.read_needs)

    def begin_within(self, transaction: int, key: str, started: int, needs: Needs, counted: bool) -> None:
        """A lightweight transaction's, whose client asked at `started`; `paxos.on_row` or `row_failed` is told how it ends."""
        self._begin(0, transaction, key, started, self.host.now if counted else -1, needs)

    def _begin(self, request: int, within: int, key: str, started: int, counted: int, needs: Needs) -> None:
        """Refuse it if too few replicas are alive, else ask as many as the level needs, best first."""
        host = self.host
        candidates = [n for n in host.replicas(key) if host.gossiper.alive[n]]
        if len(needs) == 1 and needs[0][0] != EVERY:
            candidates = [n for n in candidates if host.datacenter(n) == needs[0][0]]
        read = PendingRead(host.new_id(), request, within, key, started, counted, needs, candidates)
        if not host.enough_alive(needs, candidates):
            if counted >= 0:
                self.percentile.add(host.now, 1)
            self._fail(read, "UNAVAILABLE")
            return
        read.candidates = self.snitch.order(host.now, candidates, self.distance)
        self.pending[read.id] = read
        self._ask_first(read)
        if read.stage != DONE:
            self._await(read)
        elif read.sent:
            self._expect(read)

    def _ask_first(self, read: PendingRead) -> None:
        """The row from the first (from two, if always speculating; from all, if all are to be asked), digests from the others."""
        chosen = list(read.candidates) if self.settings.reads_sent_to == "all" else self._contacts(read)
        rows = len(chosen) if self.settings.reads_sent_to == "all" else 2 if self.settings.speculative_retry == "always" else 1
        read.contacts = chosen
        here = -1
        for index, node in enumerate(chosen):
            if node == self.host.node:
                here = index
            else:
                self._send(read, node, index >= rows)
        if here >= 0:
            self._read_here(read, here >= rows)

    def _contacts(self, read: PendingRead) -> list[int]:
        """As many of the candidates, in their order, as each data centre (or the whole) must answer, and one more if always speculating."""
        chosen: list[int] = []
        left = [list(need) for need in read.missing]
        for node in read.candidates:
            dc = self.host.datacenter(node)
            for need in left:
                if need[0] in (EVERY, dc) and need[1] > 0:
                    need[1] -= 1
                    chosen.append(node)
                    break
        if self.settings.speculative_retry == "always":
            chosen += self._uncontacted(read, chosen)[:1]
        return chosen

    def _uncontacted(self, read: PendingRead, contacts: list[int]) -> list[int]:
        return [n for n in read.candidates if n not in contacts]

    def _send(self, read: PendingRead, node: int, only_digest: bool) -> None:
        read.sent.add(node)
        self.host.send(node, ReadRequest(read.id, read.key, only_digest, read.started))

    def _read_here(self, read: PendingRead, only_digest: bool) -> None:
        """The coordinator's own replica is read within the process; the snitch learns of that too."""
        host = self.host
        cell = host.cells.get(read.key, ABSENT)
        took = host.now + self._stage_latency(self.settings.local_stage_latency_us) - read.started
        self.snitch.sample(host.now, host.node, took // 1000)
        self._answer(read, host.node, digest(cell), None if only_digest else cell)

    def _await(self, read: PendingRead) -> None:
        """Deadlines of a read that could not be answered on the spot: its timeout, and when to ask one more."""
        timeout = self.settings.read_request_timeout_us
        self.host.deadline(read.started + timeout, READ_TIMEOUT, read.id)
        self._expect(read)
        if self.settings.speculative_retry == "99p" and not self._in_each(read) and len(read.contacts) < len(read.candidates):
            wait = self.percentile.threshold(self.host.now)
            if wait <= timeout:
                self.host.deadline(max(self.host.now, read.started + wait), SPECULATE, read.id)

    def _in_each(self, read: PendingRead) -> bool:
        """At EACH_QUORUM there is no speculation (CASSANDRA-11980)."""
        return not read.within and self.settings.read_consistency == "EACH_QUORUM"

    def _expect(self, read: PendingRead) -> None:
        """From here on the reaper looks after this read's callbacks; they expire with the client's request."""
        insort(self.awaited, (read.started + self.settings.read_request_timeout_us, read.id))
        self.host.arm_reaper()

    # ---- answers ------------------------------------------------------------------------------------------------------------------
    def on_data(self, src: int, message: ReadData) -> None:
        """A replica's row."""
        self._on_answer(src, message.id, message.created, digest(message.cell), message.cell)

    def on_digest(self, src: int, message: ReadDigest) -> None:
        """A replica's digest."""
        self._on_answer(src, message.id, message.created, message.digest, None)

    def _on_answer(self, src: int, read_id: int, created: int, its_digest: int, cell: Cell | None) -> None:
        read = self.pending.get(read_id)
        if read is None or src not in read.sent or self.host.expired(created, self.settings.read_request_timeout_us):
            return
        read.sent.discard(src)
        self.snitch.sample(self.host.now, src, self._remote_latency(read, src))
        if read.stage in (DIGESTS, ROWS):
            self._answer(read, src, its_digest, cell)
        elif not read.sent and read.stage == DONE:
            del self.pending[read_id]

    def _remote_latency(self, read: PendingRead, src: int) -> int:
        """Whole milliseconds, towards zero, from the start of the client's request (a speculative or second round's answer counts the wait
        before it) to the last tick of the sampled clock: below zero where a request starts and is answered within one tick."""
        ended = self.host.now + self._stage_latency(self.settings.stage_latency_us)
        if src in self.unread:
            self.unread.remove(src)
            ended += self._stage_latency(self.settings.first_read_latency_us)
        took: int = ended - (ended + self.tick_phase) % self.settings.clock_tick_us - read.started
        return took // 1000 if took >= 0 else -(-took // 1000)

    def _stage_latency(self, mean: int) -> int:
        """Half of the mean, and a nearly exponential rest: the number of heads before the first tail, and a fraction, in units of ln 2."""
        if not mean:
            return 0
        bits = self.host.stream.bits()
        heads = ((bits | 1 << 44) & -(bits | 1 << 44)).bit_length() - 1
        return mean // 2 + ((heads << 16) + (bits >> 45 & 0xFFFF)) * mean * 333 // 1000 // (1 << 16)

    def _answer(self, read: PendingRead, node: int, its_digest: int, cell: Cell | None) -> None:
        read.answers[node] = (its_digest, cell)
        read.count(self.host.datacenter(node))
        if not read.enough():
            return
        if read.stage == DIGESTS and self.settings.reads_sent_to == "needed":
            if len({d for d, _ in read.answers.values()}) > 1:
                self._read_rows(read)
            else:
                self._finish(read, next(c for _, c in read.answers.values() if c is not None))
        else:
            self._merge(read)

    def _finish(self, read: PendingRead, cell: Cell) -> None:
        if read.stage != REPAIRS:
            self._count(read)
        read.stage = DONE
        if read.within:
            self.host.paxos.on_row(read.within, cell)
        else:
            self.host.reply(read.request, "ok", cell[1])
        if not read.sent:
            del self.pending[read.id]

    def _count(self, read: PendingRead) -> None:
        """StorageProxy.readRegular: coordinatorReadLatency ends when the rows are there; what repairs take after that is not counted."""
        if read.counted >= 0:
            self.percentile.add(self.host.now, max(1, self.host.now - read.counted))

    def _fail(self, read: PendingRead, error: str) -> None:
        if read.within:
            self.host.paxos.row_failed(read.within, error)
        else:
            self.host.reply(read.request, "fail", None, error)

    # ---- digest mismatch ----------------------------------------------------------------------------------------------------------
    def _read_rows(self, digests: PendingRead) -> None:
        """AbstractReadRepair.startRepair: full rows from all that were contacted, under a number of its own."""
        host = self.host
        old = digests
        read = PendingRead(host.new_id(), old.request, old.within, old.key, old.started, old.counted, old.needs, old.candidates)
        digests.stage = DONE
        if not digests.sent:
            self.pending.pop(digests.id, None)
        read.stage = ROWS
        read.contacts = list(digests.contacts)
        self.pending[read.id] = read
        for node in read.contacts:
            if node != host.node:
                self._send(read, node, False)
        if host.node in read.contacts:
            self._read_here(read, False)
        if read.stage == ROWS:
            self._await_rows(read)
        elif read.sent:
            self._expect(read)

    def _await_rows(self, read: PendingRead) -> None:
        timeout = self.settings.read_request_timeout_us
        self.host.deadline(read.started + timeout, READ_TIMEOUT, read.id)
        self._expect(read)
        wait = 0 if self.settings.speculative_retry == "always" else self.percentile.threshold(self.host.now)
        if self._speculates_rows(read) and wait <= timeout:
            self.host.deadline(max(self.host.now, read.started + wait), SPECULATE, read.id)

    def _speculates_rows(self, read: PendingRead) -> bool:
        """AbstractReadRepair.shouldSpeculate: only levels that wait for at least a quorum (ConsistencyLevel.satisfies)."""
        if self.settings.speculative_retry == "never" or self._in_each(read):
            return False
        dc, needed = read.needs[0]
        replicas = self.host.replicas(read.key)
        return needed >= quorum(len(replicas) if dc == EVERY else sum(self.host.datacenter(n) == dc for n in replicas))

    def _merge(self, read: PendingRead) -> None:
        """DataResolver: the newest row answers; those that returned an older one are repaired first, if that is asked for."""
        best = ABSENT
        for _, cell in read.answers.values():
            if cell is not None and wins(cell, best):
                best = cell
        read.best = best
        read.stale = [n for n, (_, cell) in read.answers.items() if cell is not None and not same(cell, best)]
        if not read.stale or self.settings.read_repair == "none":
            self._finish(read, best)
            return
        self._repair(read)

    def _repair(self, read: PendingRead) -> None:
        """BlockingPartitionRepair: wait for as many writes as the level needs, less those of the replicas that answered which need none (one asked in
        vain is not known to hold the row: DataResolver.resolveWithReadRepair, withContacts), until the read's own timeout is over."""
        host = self.host
        self._count(read)
        read.stage = REPAIRS
        unneeded = len(read.answers) - len(read.stale)
        block = max(0, sum(count for _, count in read.needs) - unneeded)
        read.missing = [[EVERY, block]]
        message = ReadRepair(read.id, read.key, read.best, host.now)
        for node in read.stale:
            if node != host.node:
                host.send(node, message)
        if host.node in read.stale:
            host.apply(read.key, read.best)
            read.missing[0][1] -= 1
        if read.missing[0][1] <= 0:
            self._finish(read, read.best)
            return
        host.deadline(read.started + self.settings.read_request_timeout_us, REPAIR_TIMEOUT, read.id)
        if self._uncontacted(read, list(read.answers)):
            host.deadline(host.now + host.writes.percentile.threshold(host.now), MORE_REPAIRS, read.id)

    def on_repaired(self, read_id: int) -> None:
        """READ_REPAIR_RSP."""
        read = self.pending.get(read_id)
        if read is not None and read.stage == REPAIRS:
            read.missing[0][1] -= 1
            if read.missing[0][1] <= 0:
                self._finish(read, read.best)

    # ---- time ---------------------------------------------------------------------------------------------------------------------
    def due(self, what: int, read_id: int) -> None:
        """A deadline set earlier has come."""
        read = self.pending.get(read_id)
        if read is None or read.stage == DONE:
            return
        if what == READ_TIMEOUT and read.stage in (DIGESTS, ROWS) or what == REPAIR_TIMEOUT and read.stage == REPAIRS:
            self._time_out(read)
        elif what == SPECULATE and read.stage in (DIGESTS, ROWS):
            self._speculate(read)
        elif what == MORE_REPAIRS and read.stage == REPAIRS:
            message = ReadRepair(read.id, read.key, read.best, self.host.now)
            for node in self._uncontacted(read, list(read.answers)):
                self.host.send_or_apply(node, message)

    def _time_out(self, read: PendingRead) -> None:
        """ReadTimeout.  Its latency counts: enough of them, and the percentile exceeds the timeout, which ends speculation."""
        if read.stage != REPAIRS:
            self._count(read)
        read.stage = DONE
        self._fail(read, "ReadTimeout")
        if not read.sent:
            self.pending.pop(read.id, None)

    def _speculate(self, read: PendingRead) -> None:
        """One more replica: for a digest if some row is here already, else for the row."""
        extra = self._uncontacted(read, read.contacts)
        if not extra:
            return
        node = extra[0]
        read.contacts.append(node)
        only_digest = read.stage == DIGESTS and any(cell is not None for _, cell in read.answers.values())
        if node == self.host.node:
            self._read_here(read, only_digest)
        else:
            self._send(read, node, only_digest)

    def reap(self, now: int) -> None:
        """RequestCallbacks.expire: a replica that has not answered within the timeout counts, for the snitch, as having taken that long."""
        timeout_ms = self.settings.read_request_timeout_us // 1000
        while self.awaited and self.awaited[0][0] < now:
            read = self.pending.pop(self.awaited.popleft()[1], None)
            if read is None:
                continue
            for node in read.sent:
                self.snitch.sample(now, node, timeout_ms)
            if read.stage == REPAIRS:
                read.sent.clear()
                self.pending[read.id] = read
        while self.awaited and self.awaited[0][1] not in self.pending:
            self.awaited.popleft()


