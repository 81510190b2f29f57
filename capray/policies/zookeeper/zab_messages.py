"""Zab on the wire: Junqueira, Reed and Serafini, "Zab: High-performance broadcast for primary-backup systems", DSN 2011; ZooKeeper 3.8's packets.

Decides: what servers of the `zookeeper` policy say to each other.  May not know: when they say it.
Names are those of ZooKeeper's QuorumPacket types (Leader.java).  A zxid is epoch << 32 | counter.  Where ZooKeeper ties a packet to its
learner socket, ours carries the epoch as well, because one connection joins a pair of servers here (see capray/policies/zookeeper/zab_peer.py).
"""

from __future__ import annotations

from typing import Any

from capray.replica import ACK, CONTROL, READ, RESPONSE, WRITE, Message

LOOKING, FOLLOWING, LEADING = range(3)  # QuorumPeer.ServerState
SET, CREATE_SESSION, CLOSE_SESSION = range(3)  # what a transaction does
COUNTER_BITS = 32


def make_zxid(epoch: int, counter: int = 0) -> int:
    """A transaction's number: the leader's epoch, then its count within it."""
    return epoch << COUNTER_BITS | counter


def epoch_of(zxid: int) -> int:
    """The epoch in which a transaction was proposed."""
    return zxid >> COUNTER_BITS


def starts_epoch(zxid: int) -> bool:
    """Whether no transaction carries this zxid: it stands for the start of an epoch (or of everything)."""
    return not zxid & (1 << COUNTER_BITS) - 1


def quorum(voters: int, nodes: int) -> bool:
    """Whether the servers whose bits are set are more than half of the ensemble (QuorumMaj)."""
    return 2 * voters.bit_count() > nodes


# ---- election ------------------------------------------------------------------------------------------------------------------------
class Notification(Message, frozen=True):
    """A server's vote: `leader` with its last zxid and its epoch, cast in election `round` (electionEpoch) by a server in `state`."""

    kind = CONTROL
    leader: int
    zxid: int
    epoch: int
    round: int
    state: int


# ---- transactions --------------------------------------------------------------------------------------------------------------------
class Proposal(Message, frozen=True):
    """PROPOSAL: a transaction.  Also the record in the log.  `node` and `id` say whose request it is; `op` what it does: SET `key` to `value`,
    CREATE_SESSION (its id becomes the zxid), CLOSE_SESSION of `session`."""

    kind = WRITE
    size = 150
    zxid: int
    node: int
    id: int
    op: int
    key: str
    value: Any
    session: int


class Ack(Message, frozen=True):
    """ACK: the sender has everything up to `zxid` on disk."""

    kind = ACK
    size = 60
    zxid: int


class Commit(Message, frozen=True):
    """COMMIT: the transaction has a quorum."""

    kind = RESPONSE
    size = 60
    zxid: int


class Forward(Message, frozen=True):
    """REQUEST: a client's update, passed to the leader by the server that it is connected to."""

    kind = WRITE
    size = 150
    id: int
    op: int
    key: str
    value: Any
    session: int


class Refused(Message, frozen=True):
    """The leader did not propose request `id`: its session has expired (an error transaction, SESSIONEXPIRED)."""

    kind = RESPONSE
    id: int


class Sync(Message, frozen=True):
    """REQUEST of type sync: answer when everything proposed so far has been committed to me."""

    kind = READ
    size = 60
    id: int


class Synced(Message, frozen=True):
    """SYNC: the answer to it, behind the commits in the same stream."""

    kind = RESPONSE
    size = 60
    id: int


# ---- discovery and synchronisation ---------------------------------------------------------------------------------------------------
class FollowerInfo(Message, frozen=True):
    """FOLLOWERINFO: a learner connects; `accepted`: the newest epoch that it has accepted."""

    accepted: int


class NotLeading(Message, frozen=True):
    """The learner port is closed: a TCP reset in reality, where it is a port of its own."""


class LeaderInfo(Message, frozen=True):
    """LEADERINFO: the new epoch."""

    epoch: int


class AckEpoch(Message, frozen=True):
    """ACKEPOCH for `epoch`: the learner's current epoch (-1: it had accepted this epoch before, do not count it) and its last zxid."""

    kind = ACK
    epoch: int
    current: int
    zxid: int


class Diff(Message, frozen=True):
    """DIFF: what the learner lacks, all committed."""

    kind = WRITE
    epoch: int
    missing: tuple[Proposal, ...]

    @property
    def size(self) -> int:  # type: ignore[override]
        return 100 + 210 * len(self.missing)


class Trunc(Message, frozen=True):
    """TRUNC: drop everything after `zxid`; then what the learner lacks, all committed."""

    kind = WRITE
    epoch: int
    zxid: int
    missing: tuple[Proposal, ...]

    @property
    def size(self) -> int:  # type: ignore[override]
        return 100 + 210 * len(self.missing)


class Snap(Message, frozen=True):
    """SNAP: the whole tree as of `zxid`: (key, zxid of its last change, value), and the sessions as (id, node)."""

    kind = WRITE
    epoch: int
    zxid: int
    items: tuple[tuple[str, int, Any], ...]
    sessions: tuple[tuple[int, int], ...]

    @property
    def size(self) -> int:  # type: ignore[override]
        return 100 + 100 * len(self.items) + 20 * len(self.sessions)


class NewLeader(Message, frozen=True):
    """NEWLEADER: the learner's history is now the leader's; acknowledge once it is on disk."""

    epoch: int


class UpToDate(Message, frozen=True):
    """UPTODATE: a quorum follows; serve clients."""

    epoch: int


# ---- liveness ------------------------------------------------------------------------------------------------------------------------
class Ping(Message, frozen=True):
    """PING, leader to follower, each half tick."""

    size = 60


class Pong(Message, frozen=True):
    """PING, follower to leader: with the sessions heard of since (the touch table)."""

    kind = ACK
    sessions: tuple[int, ...]


class Revalidate(Message, frozen=True):
    """REVALIDATE, follower to leader: a client has reconnected with this session; is it alive?"""

    session: int


class Revalidated(Message, frozen=True):
    """REVALIDATE, leader to follower: the answer."""

    session: int
    valid: bool


MESSAGES: tuple[type[Message], ...] = (
    Notification,
    Proposal,
    Ack,
    Commit,
    Forward,
    Refused,
    Sync,
    Synced,
    FollowerInfo,
    NotLeading,
    LeaderInfo,
    AckEpoch,
    Diff,
    Trunc,
    Snap,
    NewLeader,
    UpToDate,
    Ping,
    Pong,
    Revalidate,
    Revalidated,
)


# ---- other records of the journal: (what, number) ------------------------------------------------------------------------------------
ACCEPTED, CURRENT, TRUNCATED = "accepted", "current", "truncated"
