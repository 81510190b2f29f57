"""The `rdbms` policy, broken on purpose: Gray and Reuter, "Transaction Processing" (1993), chs. 7 and 10."""

from __future__ import annotations

from typing import Any

from capray.policies.driver import Asked, Driver, Ready, Result
from capray.policies.rdbms import Flushed, Rdbms
from capray.replica import Request


class AnswersBeforeTheLog(Rdbms):
    """The commit record is written and not forced.  Violates the force-log-at-commit rule (Gray and Reuter, 10.3.7); PostgreSQL with fsync = off, MySQL
    with innodb_flush_log_at_trx_commit = 0: a host that loses power loses what was answered."""

    def _log(self, src: int, query: int, key: str, value: Any) -> None:
        self.lsn += 1
        self.persist((self.lsn, key, value), sync=False)
        self.send(self.node, Flushed(self.lsn, src, query, key, value))


class ReadsUncommitted(Rdbms):
    """A write is seen while its record is on its way to the disk.  Violates two-phase locking's first rule, no dirty reads (Gray and Reuter, 7.6: a write
    lock is held to the commit): a crash takes back what was read."""

    def __init__(self, node: int, nodes: int, settings: Any, stream: Any) -> None:
        super().__init__(node, nodes, settings, stream)
        self.dirty: dict[str, Any] = {}

    def _log(self, src: int, query: int, key: str, value: Any) -> None:
        super()._log(src, query, key, value)
        self.dirty[key] = value

    def peek(self, key: str) -> Any:
        return self.dirty.get(key, super().peek(key))


class CertainDriver(Driver):
    """Takes silence for a no."""

    def _give_up(self, asked: Asked, why: str) -> None:
        del self.asked[asked.query.id]
        self.owner.reply(asked.query.id, "fail", None, why)


class RefusesTheUnknown(Rdbms):
    """The driver reports a write as failed whose connection ended before its answer.  Violates at-most-once messaging (Gray and Reuter, ch. 10: a client
    that got no answer must ask what became of its transaction): what "failed" is read later."""

    def __init__(self, node: int, nodes: int, settings: Any, stream: Any) -> None:
        super().__init__(node, nodes, settings, stream)
        self.driver = CertainDriver(self, (settings.server,), settings.query_timeout_us, settings.connect_timeout_us)
        self.handlers |= {Result: self.driver.answered, Ready: self.driver.ready}


class CachesReads(Rdbms):
    """An application server answers reads from what it last saw.  Violates read-after-write (a second-level cache without invalidation; Nishtala et al.,
    "Scaling Memcache at Facebook", NSDI 2013, 3.2.1: stale sets)."""

    def __init__(self, node: int, nodes: int, settings: Any, stream: Any) -> None:
        super().__init__(node, nodes, settings, stream)
        self.cache: dict[str, Any] = {}
        self.keys: dict[int, str] = {}

    def on_request(self, request: Request) -> None:
        if request.f == "read" and request.key in self.cache:
            self.reply(request.id, "ok", self.cache[request.key])
            return
        self.keys[request.id] = request.key
        super().on_request(request)

    def reply(self, request_id: int, outcome: str, result: Any = None, error: str | None = None) -> None:
        key = self.keys.pop(request_id, None)
        if outcome == "ok" and result is not None and key is not None:
            self.cache[key] = result
        super().reply(request_id, outcome, result, error)
