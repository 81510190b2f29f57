"""The `dynamo` policy, broken on purpose: one bug a class; tests/test_policy_dynamo.py exposes each."""

from __future__ import annotations

from typing import Any

from capray.policies import vector_clock
from capray.policies.dynamo.handoff import Handoff
from capray.policies.dynamo.replica import Dynamo
from capray.policies.vector_clock import Clock, Version


class DropsHints(Dynamo):
    """A hint is acknowledged and thrown away: what a sloppy quorum took in for the other side never gets there."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.handoff = NoHints(self)


class NoHints(Handoff):
    """Keeps nothing."""

    def keep(self, target: int, key: str, version: Version) -> None:
        """Into the void."""


class LastArrivalWins(Dynamo):
    """Divergent versions are not kept side by side: a replica keeps what came last."""

    def _add(self, held: dict[str, tuple[Version, ...]], key: str, version: Version) -> bool:
        if version in held.get(key, ()):
            return False
        self.applied(key, version[1], vector_clock.order(version), tuple(one[1] for one in held.get(key, ())))
        held[key] = (version,)
        return True


class NoContext(Dynamo):
    """The put forgets what its client read: siblings that the client saw, and merged, stay for ever."""

    def _coordinate(self, key: str, value: Any, context: Clock, finish: Any) -> None:
        super()._coordinate(key, value, (), finish)


class ForgetsItsDisk(Dynamo):
    """Versions are acknowledged and not stored: when W nodes restart, an acknowledged write is gone."""

    def persist(self, record: Any, sync: bool = True) -> None:
        if record[0] not in ("put", "hint"):
            super().persist(record, sync)
