"""Apache Cassandra 5.0, service.StorageProxy.mutate: how a coordinator writes.

Decides: whom a write is sent to, when it is answered, for whom a hint is kept.
May not know: links, faults; a replica's silence is all that it sees.
Sources: service.StorageProxy (mutate, sendToHintedReplicas, hintMutations), service.AbstractWriteResponseHandler, locator.ReplicaPlans.forWrite,
service.ClientState.getTimestamp, net.RequestCallbacks (a silent replica's hint is written by the reaper, after the time-out, at every level:
AbstractWriteResponseHandler.onFailure).
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from capray.policies.cassandra.cells import Cell
from capray.policies.cassandra.messages import Mutation
from capray.policies.cassandra.snitch import LatencyPercentile
from capray.policies.ring import EVERY
from capray.replica import Request

if TYPE_CHECKING:
    from capray.policies.cassandra.replica import Cassandra

WRITE_TIMEOUT = 4  # what a deadline is for, beside reads.py's


class PendingWrite:
    """One write under way at its coordinator."""

    __slots__ = ("answered", "cell", "id", "key", "missing", "request", "started", "waiting")

    def __init__(self, write_id: int, request: int, key: str, cell: Cell, started: int, missing: list[list[int]]) -> None:
        self.id = write_id
        self.request = request
        self.key = key
        self.cell = cell
        self.started = started
        self.missing = missing  # [data centre, acknowledgements still needed]
        self.waiting: list[int] = []  # replicas asked and silent
        self.answered = False


class Writes:
    """The writes that one node coordinates."""

    def __init__(self, host: Cassandra, needs: tuple[tuple[int, int], ...]) -> None:
        self.host = host
        self.settings = host.settings
        self.needs = needs
        self.at_any = host.settings.write_consistency == "ANY"
        self.pending: dict[int, PendingWrite] = {}
        self.silent: deque[tuple[int, int]] = deque()  # (when its callbacks expire, id), oldest first
        self.last_timestamp = 0
        read_timeout = host.settings.read_request_timeout_us
        self.percentile = LatencyPercentile(host.settings.write_request_timeout_us // 2, read_timeout, host.stream.below(read_timeout))

    def timestamp(self) -> int:
        """A write's timestamp, never twice the same here: the coordinator's are milliseconds x 1000 (ClientState), a driver's microseconds."""
        now = self.host.now
        if self.settings.timestamps == "coordinator":
            now -= now % 1000
        self.last_timestamp = max(now, self.last_timestamp + 1)
        return self.last_timestamp

    def begin(self, request: Request) -> None:
        """A client's write or delete: refuse it if too few replicas are alive, else send it to all of them."""
        host = self.host
        replicas = host.replicas(request.key)
        if not self.at_any and not host.enough_alive(self.needs, replicas):
            self.percentile.add(host.now, 1)  # StorageProxy.mutate counts every outcome's latency
            host.reply(request.id, "fail", None, "UNAVAILABLE")
            return
        cell = (self.timestamp(), request.value, host.now if request.value is None else 0)
        write = PendingWrite(host.new_id(), request.id, request.key, cell, host.now, [list(need) for need in self.needs])
        self.pending[write.id] = write
        self._send(write, replicas)
        if not write.waiting:
            del self.pending[write.id]
            return
        timeout = self.settings.write_request_timeout_us
        self.silent.append((host.now + timeout, write.id))
        host.arm_reaper()
        if not write.answered:
            host.deadline(host.now + timeout, WRITE_TIMEOUT, write.id)

    def _send(self, write: PendingWrite, replicas: tuple[int, ...]) -> None:
        """sendToHintedReplicas: the living are asked, for those known to be down a hint is stored at once; the own replica comes last.
        With a batch commit log the own replica is asked by message too, so that it acknowledges when its sync is complete."""
        host = self.host
        message = Mutation(write.id, write.key, write.cell, host.now)
        at_once = self.settings.commitlog_sync == "periodic"
        for node in replicas:
            if node == host.node and at_once:
                continue
            if host.gossiper.alive[node]:
                write.waiting.append(node)
                host.send(node, message)
            elif host.hints.should_hint(node):
                host.hints.write(node, write.key, write.cell)
                if self.at_any:
                    self._count(write, host.dc_of[node])
        if at_once and host.node in replicas:
            host.apply(write.key, write.cell)
            self._count(write, host.dc_of[host.node])

    def _count(self, write: PendingWrite, dc: int) -> None:
        """One more acknowledgement (for ANY also a hint stored); answer when there are enough."""
        for need in write.missing:
            if need[0] == EVERY or need[0] == dc:
                need[1] -= 1
        if write.answered:
            return
        for need in write.missing:
            if need[1] > 0:
                return
        write.answered = True
        self.percentile.add(self.host.now, max(1, self.host.now - write.started))
        self.host.reply(write.request, "ok")

    def on_ack(self, src: int, number: int) -> None:
        """A replica has applied it."""
        write = self.pending.get(number)
        if write is None or src not in write.waiting:
            return
        write.waiting.remove(src)
        self._count(write, self.host.dc_of[src])
        if not write.waiting and write.answered:
            del self.pending[number]

    def follow(self, number: int, key: str, cell: Cell, waiting: list[int]) -> None:
        """A commit of Paxos's was sent under this number: whoever of `waiting` does not acknowledge it gets a hint (AbstractWriteResponseHandler.onFailure)."""
        if waiting:
            write = PendingWrite(number, 0, key, cell, self.host.now, [])
            write.waiting, write.answered = waiting, True
            self.pending[number] = write
            self.silent.append((self.host.now + self.settings.write_request_timeout_us, number))
            self.host.arm_reaper()

    def due(self, number: int) -> None:
        """WriteTimeout: it may still take effect.  At ANY, hints for all other replicas are stored in its place, and that is success (hintMutations; the reaper
        stores those of the silent ones once more)."""
        write = self.pending.get(number)
        if write is None or write.answered:
            return
        host = self.host
        write.answered = True
        self.percentile.add(host.now, host.now - write.started)
        targets = [n for n in host.replicas(write.key) if n != host.node and host.hints.should_hint(n)] if self.at_any else []
        for target in targets:
            host.hints.write(target, write.key, write.cell)
        if targets:
            host.reply(write.request, "ok")
        else:
            host.reply(write.request, "info", None, "WriteTimeout")

    def reap(self, now: int) -> None:
        """Callbacks that expired: each silent replica gets a hint, whether the write was answered or not."""
        silent, hints = self.silent, self.host.hints
        while silent and silent[0][0] < now:
            write = self.pending.pop(silent.popleft()[1], None)
            if write is None:
                continue
            for node in write.waiting:
                if hints.should_hint(node):
                    hints.write(node, write.key, write.cell)
        while silent and silent[0][1] not in self.pending:
            silent.popleft()
