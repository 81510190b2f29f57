"""The `postgres` policy, broken on purpose: PostgreSQL 15 manual, ch. 27."""

from __future__ import annotations

from typing import Any

from capray.policies.postgres.replica import Postgres
from capray.policies.postgres.wal import Status, Wal


class AnswersBeforeTheStandby(Postgres):
    """A synchronous commit does not wait.  Violates 27.2.8, "each commit of a write transaction will wait until confirmation is received that the commit
    has been written to the write-ahead log on disk of both the primary and standby server"."""

    def _on_flushed(self, src: int, message: Any) -> None:
        super()._on_flushed(src, message)
        if message.lsn in self.commits:
            self._commit(self.commits[message.lsn])


class StandbyAnswersBeforeItsDisk(Postgres):
    """The standby reports as flushed what it has received (walreceiver's XLogWalRcvFlush left out).  Violates the same sentence: both hosts lose power, the
    standby is promoted, and the commit is nowhere."""

    def _on_wal(self, src: int, message: Wal) -> None:
        end = message.first + len(message.records) - 1
        self.send(self.peer, Status(message.timeline, end, end, self.applied_lsn))
        super()._on_wal(src, message)


class ForgetsToTruncate(Postgres):
    """The rewound server keeps its branch.  Violates pg_rewind's purpose ("synchronize a PostgreSQL data directory with another ... that was forked from
    it"): a deposed primary serves, and replays, what the new timeline never had."""

    def _rewind(self, message: Any) -> None:
        entries = list(self.log.entries)
        super()._rewind(message)
        self.log.entries = entries


class ForgetsItsPromotion(Postgres):
    """A promotion is not replayed after a crash.  Violates 26.3.5 (the timeline history file is durable before the new timeline is used): a promoted server
    comes back as the standby that it was, and nobody takes writes, or its branch meets the old one."""

    def _replay(self, what: str, timeline: int, body: Any) -> None:
        if what != "promoted":
            super()._replay(what, timeline, body)
