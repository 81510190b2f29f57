"""The `cassandra` policy's lightweight transactions, broken on purpose: Lamport, "The part-time parliament" (1998); Apache Cassandra 5.0, service.paxos."""

from __future__ import annotations

from typing import Any

from capray.policies.cassandra.paxos import NOTHING, READING, Paxos, Propose, Transaction
from capray.policies.cassandra.replica import Cassandra


class QuorumOfOne(Cassandra):
    """One acceptor's word is enough in each phase.  Violates B2 (1998, 2.1: the quorums of any two ballots have a member in common): two transactions are
    decided past each other."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.paxos = AloneIsEnough(self)


class AloneIsEnough(Paxos):
    """Of any number of participants one."""

    def _quorum(self, t: Transaction) -> int:
        return 1


class LeftoversIgnored(Cassandra):
    """What a promise says to be accepted is not finished.  Violates B3 (1998, 2.1; StorageProxy.beginAndRepairPaxos: an in-progress proposal is finished
    first): a value that a quorum accepted is decided and passed over, and comes back with an older ballot or never."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.paxos = Blind(self)


class Blind(Paxos):
    """Goes on with its own business whatever the promises say."""

    def _promised(self, t: Transaction) -> None:
        if t.read:
            self._propose(t, NOTHING)
        else:
            self._read_row(t)


class ReadsWithoutBallot(Cassandra):
    """A serial read asks a quorum for the row and proposes nothing.  Violates CASSANDRA-12126 (a serial read finishes what is accepted, and no earlier state
    is seen after it): of a write under way one read finds the new value, a later one the old."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.paxos = Hasty(self)


class Hasty(Paxos):
    """Reads straight away."""

    def _prepare(self, t: Transaction) -> None:
        if t.read:
            self._next_phase(t, READING)
            self._read_row(t)
        else:
            super()._prepare(t)


class PromisesBroken(Cassandra):
    """An acceptor accepts whatever it is asked to.  Violates the promise (1998, 2.3, LastVote: no vote in a ballot below the one that was promised;
    PaxosState.propose): an older ballot is decided after a newer one."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.paxos = Faithless(self)


class Faithless(Paxos):
    """Forgets its promise when a proposal comes."""

    def on_propose(self, src: int, m: Propose) -> None:
        self._register(m.key).promised = m.ballot
        super().on_propose(src, m)


class PromisesForgotten(Cassandra):
    """What an acceptor promised and accepted is not written down.  Violates the ledger (1998, 2.2: notes are written in indelible ink; SystemKeyspace.
    savePaxosPromise): a restarted acceptor votes against what it said."""

    def persist(self, record: Any, sync: bool = True) -> None:
        if record[0] != "paxos":
            super().persist(record, sync)
