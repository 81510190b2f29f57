"""DeCandia et al., "Dynamo" (SOSP 2007), section 4.6 (hinted handoff): replicas kept for another node, "in a separate local database".

Decides: when hints are delivered and dropped.  May not know: why their owner did not answer.
"The replica sent to D will have a hint in its metadata that suggests which node was the intended recipient of the replica ... Upon detecting that A
has recovered, D will attempt to deliver the replica to A. Once the transfer succeeds, D may delete the object from its local store ..."
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from capray.policies import vector_clock
from capray.policies.dynamo.messages import HandOff
from capray.policies.vector_clock import Version

if TYPE_CHECKING:
    from capray.policies.dynamo.replica import Dynamo

BATCH = 100  # rows a message


class Handoff:
    """The hints that one node keeps, by their intended node."""

    def __init__(self, host: Dynamo) -> None:
        self.host = host
        self.hints: dict[int, dict[str, tuple[Version, ...]]] = {}
        self.under_way: dict[int, tuple[int, tuple[tuple[str, Version], ...]]] = {}  # target -> message's id, rows
        self.scanning = False

    def keep(self, target: int, key: str, version: Version) -> None:
        """Keep a version for its node.  The journal has it already."""
        kept = self.hints.setdefault(target, {})
        kept[key] = vector_clock.add(kept.get(key, ()), version)[0]
        if not self.scanning:
            self.scanning = True
            self.host.set_timer("handoff", self.host.settings.handoff_interval_us)

    def versions(self, key: str) -> list[Version]:
        """What is kept of a key for others: a read finds it here."""
        return [version for target in sorted(self.hints) for version in self.hints[target].get(key, ())]

    def scan(self) -> None:
        """A local database "that is scanned periodically"."""
        self.scanning = False
        for target in sorted(self.hints):
            self.deliver(target)
        if self.hints:
            self.scanning = True
            self.host.set_timer("handoff", self.host.settings.handoff_interval_us)

    def deliver(self, target: int) -> None:
        """Send what is kept for a node that seems reachable, a batch at a time."""
        if target not in self.hints or target in self.under_way or self.host.membership.suspected[target]:
            return
        rows: list[tuple[str, Version]] = []
        for key, versions in self.hints[target].items():
            rows += [(key, version) for version in versions]
            if len(rows) >= BATCH:
                break
        number = self.host.new_id()
        self.under_way[target] = (number, tuple(rows))
        self.host.send(target, HandOff(number, tuple(rows)))
        self.host.set_timer(("handing", target), self.host.settings.response_timeout_us)

    def unanswered(self, target: int) -> None:
        """No answer: keep them."""
        self.under_way.pop(target, None)
        self.host.membership.suspect(target)

    def delivered(self, target: int, number: int) -> None:
        """They are there: forget them here, and go on with the rest."""
        waiting = self.under_way.get(target)
        if waiting is None or waiting[0] != number:
            return
        del self.under_way[target]
        self.host.cancel_timer(("handing", target))
        self.drop(target, waiting[1])
        self.host.persist(("handed", target, waiting[1]), sync=False)
        self.deliver(target)

    def drop(self, target: int, rows: Any) -> None:
        """Forget these hints; newer ones of the same keys stay."""
        kept = self.hints.get(target, {})
        for key, version in rows:
            left = tuple(one for one in kept.get(key, ()) if not vector_clock.descends(version[0], one[0]))
            if left:
                kept[key] = left
            else:
                kept.pop(key, None)
        if not kept:
            self.hints.pop(target, None)
