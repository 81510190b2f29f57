"""The `crdt` policy, broken on purpose: one bug a class; tests/test_policy_crdt.py exposes each."""

from __future__ import annotations

from typing import Any

from capray.policies.crdt.replica import Acknowledge, Crdt
from capray.policies.crdt.types import mv_join


class AcknowledgesUnread(Crdt):
    """Whoever is told something counts as having it: what a cut dropped is never sent again."""

    def _tell(self, peer: int) -> None:
        super()._tell(peer)
        self._on_acknowledge(peer, Acknowledge(self.boot, self.sequence))


class ForgetsItsDisk(Crdt):
    """Writes are answered and not stored: a crash before the next gossip loses them, and numbers are given twice."""

    def _log(self, record: tuple[Any, ...]) -> None:
        if record[0] == "boot":
            super()._log(record)


class KeepsItsOwn(Crdt):
    """The "join" of concurrent values is the one already here: not commutative, so each side of a cut stays with its own."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.lattice = self.lattice._replace(join=lambda old, new: old if old and len(mv_join(old, new)) > 1 else mv_join(old, new))


class TrustsItsClock(Crdt):
    """A stamp is the clock's, not above what was seen: a write at a slow node is answered, and lost at once."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.lattice = self.lattice._replace(write=lambda state, node, stamp, value: (stamp, node, value))

    def _mutate(self, f: str, key: str, value: Any) -> Any:
        return (self.now, self.node, value), ()
