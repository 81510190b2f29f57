"""What one ZooKeeper server keeps whatever its role: epochs, history, state (QuorumPeer, ZooKeeper 3.8; DSN 2011, its table of persistent variables).

Decides: what is durable.  May not know: how votes are counted, what a leader does.
Durable are, in Zab's words: f.p, the newest epoch accepted (`accepted`); f.a, the newest epoch whose NEWLEADER was acknowledged (`current`);
h, the history (`db`).  A real server has three TCP connections with a peer: for votes, as leader, as follower.  Here one joins a pair, so
closing a learner's socket takes the votes under way with it; capray/policies/zookeeper/zab_election.py makes good for that as QuorumCnxManager does.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from capray.policies.zookeeper.settings import ZooKeeperSettings
from capray.policies.zookeeper.zab_log import Database
from capray.policies.zookeeper.zab_messages import ACCEPTED, CURRENT, LOOKING, Proposal, quorum
from capray.replica import Replica
from capray.streams import Stream

CLOCK_ERROR_US = 1000  # a drifting clock's rounding is less, a clock that was set is more


class QuorumPeer(Replica, ABC):
    """The part of a server that election, leader and learner share."""

    settings: ZooKeeperSettings

    def __init__(self, node: int, nodes: int, settings: Any, stream: Stream) -> None:
        super().__init__(node, nodes, settings, stream)
        self.accepted = 0
        self.current = 0
        self.state = LOOKING
        self.serving = False
        self.db = Database(settings.commit_log_count, self.applied, self.discarded, settings.txn_log_sync)

    def is_quorum(self, voters: int) -> bool:
        """Whether the servers whose bits are set are a quorum."""
        return quorum(voters, self.nodes)

    # ---- durable state --------------------------------------------------------------------------------------------------------------
    def accept_epoch(self, epoch: int) -> None:
        """Never follow an older leader again.  Effects recorded after this wait for the disk."""
        self.accepted = epoch
        self.persist((ACCEPTED, epoch))

    def enter_epoch(self, epoch: int) -> None:
        """The history is now that of this epoch's leader.  Effects recorded after this wait for the disk."""
        self.current = epoch
        self.persist((CURRENT, epoch))

    def write_ahead(self, txn: Proposal) -> None:
        """Log a transaction.  Effects recorded after this wait for the disk."""
        self.db.append(txn)
        self.persist(txn)

    # ---- what the whole server does ---------------------------------------------------------------------------------------------------
    @abstractmethod
    def look(self, closed: int = -1) -> None:
        """Stop serving and look for a leader; `closed` is a peer whose connection has just ended by itself."""

    @abstractmethod
    def elected(self, leader: int) -> None:
        """The election is over: lead, or follow `leader`."""

    @abstractmethod
    def serve(self, epoch: int) -> None:
        """Clients may connect: a quorum follows the leader of `epoch`, and this server is in step."""

    @abstractmethod
    def committed(self, txn: Proposal) -> None:
        """A transaction has been applied: whoever waits for it here is answered."""

    @abstractmethod
    def refused(self, request: int) -> None:
        """The leader did not propose a request of ours."""

    @abstractmethod
    def synced(self, request: int) -> None:
        """The sync that a read waits for is complete."""

    @abstractmethod
    def revalidated(self, session: int, valid: bool) -> None:
        """The leader says whether a session that a client has reconnected with is alive."""

    @abstractmethod
    def live_sessions(self) -> tuple[int, ...]:
        """The sessions of the clients connected here."""

    @abstractmethod
    def hang_up(self, peer: int) -> None:
        """Close the connection with `peer`, as a learner's socket is closed."""


class Socket:
    """One end of a learner's socket, and its read time-out (SO_TIMEOUT).

    Real servers measure it by a clock that nobody sets (System.nanoTime).  A replica has only its node's clock: where a timer fires at another time
    than it was set for, that clock was set (or the process stood still), and silence is counted anew."""

    def __init__(self, peer: QuorumPeer, timer: Any) -> None:
        self.peer = peer
        self.timer = timer
        self.heard = 0  # when something was last read
        self.limit_us = 0
        self.due = 0

    def arm(self, limit_us: int) -> None:
        """From now on, so much silence is too much."""
        self.heard = self.peer.now
        self.limit_us = limit_us
        self._set(limit_us)

    def timed_out(self) -> bool:
        """Its timer has fired: whether nothing was read for so long; otherwise it is set again."""
        now = self.peer.now
        if abs(now - self.due) > CLOCK_ERROR_US:
            self.heard = now
        left = self.heard + self.limit_us - now
        if left > 0:
            self._set(left)
        return left <= 0

    def _set(self, left_us: int) -> None:
        self.due = self.peer.now + left_us
        self.peer.set_timer(self.timer, left_us)
