"""The `dynamo` policy, broken on purpose: DeCandia et al. (SOSP 2007), section 4."""

from __future__ import annotations

from typing import Any

from capray.policies import vector_clock
from capray.policies.dynamo.handoff import Handoff
from capray.policies.dynamo.replica import Dynamo
from capray.policies.vector_clock import Clock, Version


class DropsHints(Dynamo):
    """A hint is acknowledged and thrown away.  Violates 4.6, "nodes that receive hinted replicas will keep them in a separate local database": what a
    sloppy quorum took in for another node never gets there."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.handoff = NoHints(self)


class NoHints(Handoff):
    """Keeps nothing."""

    def keep(self, target: int, key: str, version: Version) -> None:
        """Into the void."""


class LastArrivalWins(Dynamo):
    """Divergent versions are not kept side by side: a replica keeps what came last.  Violates 4.4: versions that are causally unrelated are kept for
    semantic reconciliation."""

    def _add(self, held: dict[str, tuple[Version, ...]], key: str, version: Version) -> bool:
        if version in held.get(key, ()):
            return False
        self.applied(key, version[1], vector_clock.order(version), tuple(one[1] for one in held.get(key, ())))
        held[key] = (version,)
        return True


class NoContext(Dynamo):
    """The put forgets what its client read.  Violates 4.4, "the client must specify which version it is updating", by the context that it obtained:
    siblings that it saw and merged stay for ever (sibling explosion, as Riak's users know it)."""

    def _coordinate(self, key: str, value: Any, context: Clock, finish: Any) -> None:
        super()._coordinate(key, value, (), finish)


class ForgetsItsDisk(Dynamo):
    """Versions are acknowledged and not stored.  Violates the durability that W counts (4.5, 6): when W nodes restart, an acknowledged write is gone."""

    def persist(self, record: Any, sync: bool = True) -> None:
        if record[0] not in ("put", "hint"):
            super().persist(record, sync)
