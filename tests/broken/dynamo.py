"""The `dynamo` policy, broken on purpose: DeCandia et al. (SOSP 2007), section 4."""

from __future__ import annotations

from typing import Any

from capray.policies import vector_clock
from capray.policies.dynamo.handoff import Handoff
from capray.policies.dynamo.replica import Dynamo
from capray.policies.dynamo.sync import Sync
from capray.policies.vector_clock import Clock, Version


class DropsHints(Dynamo):
    """A hint is acknowledged and thrown away.  Violates 4.6, "Nodes that receive hinted replicas will keep them in a separate local database": what a
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
    """The put forgets what its client read.  Violates 4.4, "when a client wishes to update an object, it must specify which version it is
    updating", by the context that it obtained: siblings that it saw and merged stay for ever (sibling explosion, as Riak's users know it)."""

    def _coordinate(self, key: str, value: Any, context: Clock, finish: Any) -> None:
        super()._coordinate(key, value, (), finish)


class ForgetsItsDisk(Dynamo):
    """Versions are acknowledged and not stored.  Violates the durability that W counts (4.5, 6): when W nodes restart, an acknowledged write is gone."""

    def persist(self, record: Any, sync: bool = True) -> None:
        if record[0] not in ("put", "hint"):
            super().persist(record, sync)


class HalfOfTheRing(Sync):
    """Looks at the leaves of a tree's right half."""

    def _of_leaves(self, wanted: tuple[tuple[int, tuple[int, ...]], ...]) -> tuple[tuple[str, Version], ...]:
        return super()._of_leaves(tuple((owner, tuple(leaf for leaf in leaves if leaf >= 16)) for owner, leaves in wanted))


class SyncSkipsARange(Dynamo):
    """Of two trees that differ only some leaves are exchanged.  Violates 4.7 ("the nodes determine if they have any differences and perform the appropriate
    synchronization action"): what a replica missed there it misses for good."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.sync = HalfOfTheRing(self)


class CountsItselfTwice(Dynamo):
    """A coordinator's own copy counts for two.  Violates 4.5 ("If at least W-1 nodes respond then the write is considered successful"): R + W > N holds no
    more."""

    def _answered(self, src: int, number: int, versions: tuple[Version, ...]) -> None:
        op = self.pending.get(number)
        if op is not None and src == self.node and op.version is not None:
            op.answers[-1] = ()
        super()._answered(src, number, versions)


class SumsItsCounters(Dynamo):
    """Of two versions the one whose counters sum up to more is taken for the descendant.  Violates 4.4 ("If the counters on the first object's clock are
    less-than-or-equal to all of the nodes in the second clock"): siblings are thrown away."""

    def _add(self, held: dict[str, tuple[Version, ...]], key: str, version: Version) -> bool:
        old = held.get(key, ())
        if old and sum(entry[1] for entry in old[0][0]) >= sum(entry[1] for entry in version[0]):
            return False
        self.applied(key, version[1], vector_clock.order(version), tuple(one[1] for one in old))
        held[key] = (version,)
        return True


class HastyHandoff(Handoff):
    """Forgets what it sends."""

    def deliver(self, target: int) -> None:
        super().deliver(target)
        if target in self.under_way:
            self.drop(target, self.under_way[target][1])


class HintsForgottenWhenSent(Dynamo):
    """A hint is dropped when it is sent.  Violates 4.6, "Once the transfer succeeds, D may delete the object from its local store": its target dies, and nobody
    has it any more."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.handoff = HastyHandoff(self)


class HintsInMemory(Dynamo):
    """Hints are not written down.  Violates 4.6, "a separate local database": who stands in restarts, and what it stood in for is gone."""

    def persist(self, record: Any, sync: bool = True) -> None:
        if record[0] != "hint":
            super().persist(record, sync)


class CountersForgotten(Dynamo):
    """A restarted node counts its writes from one again.  Violates 4.4, "A vector clock is effectively a list of (node, counter) pairs", that only grows: where
    the node holds nothing of a key any more, its new version carries an old one's clock, and is thrown away as seen."""

    def on_restart(self, journal: list[Any]) -> None:
        super().on_restart([record for record in journal if record[0] != "issued"])


class HintsUnread(Dynamo):
    """A node that stands in for another does not answer from what it keeps for it.  Violates 4.6, "all read and write operations are performed on the first N
    healthy nodes": a client's reads on the side without the key's own nodes do not see what it wrote there."""

    def held(self, key: str) -> tuple[Version, ...]:
        return self.data.get(key, ())
