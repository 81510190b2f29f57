"""ZooKeeper 3.8: Hunt et al., "ZooKeeper: Wait-free coordination for Internet-scale systems", ATC 2010, section 4; Zab, DSN 2011.

Decides: which part of a server hears of what.  May not know: whether a peer is reachable.
Updates go through the leader, which orders them; a quorum logs each before it is committed; every server applies them in that order and answers
its own clients.  Reads are answered by the server a client is connected to: sequentially consistent, and as old as that server's news; sync()
before a read waits for what the leader has proposed, without asking a quorum whether it still leads, and on the leader itself for nothing
(CommitProcessor there does not match syncs): so that neither is linearizable.
After a cut nothing happens for syncLimit x tickTime, 10 s: a server of the minority goes on answering reads, then looks for a leader and refuses
its clients; a majority without the leader elects another then.

    file                     | what it holds
    zab_messages.py          | the packets
    zab_peer.py, zab_log.py  | what is durable; the history, and how learners are brought in step with it
    zab_election.py          | fast leader election
    zab_leader.py            | discovery, synchronisation and broadcast: the leader's side, with session expiry
    zab_learner.py           | the follower's side
    clients.py               | clients and their sessions
    settings.py              | settings, with their sources

Left out, because a register workload cannot see them: observers, reconfiguration, watches, ephemeral and sequential nodes, versions of a znode,
ACLs, groups and weights; znodes exist from their first write on.  A zxid's counter does not run over (2**32 writes an epoch).
"""

from __future__ import annotations

from typing import Any

from capray.policies.zookeeper import zab_leader, zab_learner
from capray.policies.zookeeper.clients import Clients
from capray.policies.zookeeper.settings import ZooKeeperSettings
from capray.policies.zookeeper.zab_election import Channels, Election
from capray.policies.zookeeper.zab_leader import Leader
from capray.policies.zookeeper.zab_learner import SERVING, Learner
from capray.policies.zookeeper.zab_messages import FOLLOWING, LEADING, LOOKING, MESSAGES, FollowerInfo, NotLeading, Proposal, Refused, Revalidated
from capray.policies.zookeeper.zab_peer import QuorumPeer
from capray.replica import Request
from capray.streams import Stream


class ZooKeeper(QuorumPeer):
    """One server of the ensemble, with its clients."""

    name = "zookeeper"
    claims = (
        "writes linearizable, reads sequentially consistent, after sync too where a deposed leader answers it: without a quorum no writes, and after "
        "syncLimit x tickTime no reads either (ZooKeeper Programmer's Guide and Internals, Consistency Guarantees)"
    )
    has_leader = True
    transport = "tcp"
    Settings = ZooKeeperSettings
    MESSAGES = MESSAGES
    ELECTION: type[Election] = Election  # the parts, so that a variant can put its own in their place
    LEADER: type[Leader] = Leader
    LEARNER: type[Learner] = Learner
    FROM_LEARNER = zab_leader.handlers()
    FROM_LEADER = zab_learner.handlers()

    def __init__(self, node: int, nodes: int, settings: Any, stream: Stream) -> None:
        super().__init__(node, nodes, settings, stream)
        self.leader: Leader | None = None
        self.learner: Learner | None = None
        self._boot(first=True)

    def _boot(self, first: bool) -> None:
        self.channels = Channels(self, up=first)
        self.election = self.ELECTION(self, self.channels)
        self.clients = Clients(self, starting=first)

    def peek(self, key: str) -> Any:
        entry = self.db.tree.get(key)
        return None if entry is None else entry[1]

    # ---- a process's life -------------------------------------------------------------------------------------------------------------
    def on_start(self) -> None:
        self.clients.start()
        self.role("looking")
        self.election.start()

    def on_restart(self, journal: list[Any]) -> None:
        epochs = self.db.recover(journal)
        self.accepted = epochs.get("accepted", 0)
        self.current = epochs.get("current", 0)
        self._boot(first=False)
        self.on_start()

    # ---- events -----------------------------------------------------------------------------------------------------------------------
    def on_request(self, request: Request) -> None:
        self.clients.ask(request)

    def on_message(self, src: int, message: Any) -> None:
        kind = type(message)
        handler = self.FROM_LEADER.get(kind)
        if handler is not None:
            learner = self.learner
            if learner is not None and learner.leader == src:
                if learner.stage == SERVING:
                    learner.socket.heard = self.now
                handler(learner, message)
            elif src == self.node:
                self._answered(message)
            return
        handler = self.FROM_LEARNER.get(kind)
        if handler is None:
            self.election.on_notification(src, message)
        elif self.leader is None or (kind is FollowerInfo and not self.leader.port_is_open()):
            if kind is FollowerInfo:
                self.send(src, NotLeading())
        elif kind is FollowerInfo or self.leader.heard(src):
            handler(self.leader, src, message)

    def on_timer(self, name: Any) -> None:
        if type(name) is tuple:
            if name[0] == "dial":
                self.channels.on_dial_timer(name[1])
            elif self.leader is not None:
                self.leader.on_learner_timer(name[1])
        else:
            TIMERS[name](self)

    def on_connected(self, peer: int) -> None:
        self.channels.on_connected(peer)

    def on_disconnected(self, peer: int) -> None:
        was_up = self.channels.to[peer].up
        self.channels.on_disconnected(peer)
        if self.leader is not None:
            self.leader.drop(peer, closed=True)
        elif self.learner is not None and self.learner.leader == peer and (was_up or not self.learner.on_refused_dial()):
            self.look(closed=peer)

    # ---- roles ------------------------------------------------------------------------------------------------------------------------
    def look(self, closed: int = -1) -> None:
        if self.leader is not None:
            self.leader.stop()
        if self.learner is not None:
            self.learner.stop(self.learner.leader == closed)
        self.leader = self.learner = None
        self.state = LOOKING
        if self.serving:
            self.serving = False
            self.clients.disconnect()
        self.role("looking")
        self.election.start()

    def elected(self, leader: int) -> None:
        if leader == self.node:
            self.state = LEADING
            self.leader = self.LEADER(self)
            self.leader.start()
        else:
            self.state = FOLLOWING
            self.role("follower")
            self.learner = self.LEARNER(self, leader)
            self.learner.start()

    def serve(self, epoch: int) -> None:
        self.serving = True
        self.election.update_epoch(epoch)
        self.clients.leader = self.node if self.learner is None else self.learner.leader
        if self.leader is not None:
            self.role("leader")

    # ---- answers to what this server's clients wait for ---------------------------------------------------------------------------------
    def committed(self, txn: Proposal) -> None:
        self.clients.applied(txn)

    def refused(self, request: int) -> None:
        self.clients.refused(request)

    def synced(self, request: int) -> None:
        self.clients.finished(request)

    def revalidated(self, session: int, valid: bool) -> None:
        self.clients.revalidated(session, valid)

    def live_sessions(self) -> tuple[int, ...]:
        return self.clients.live()

    def hang_up(self, peer: int) -> None:
        self.channels.hang_up(peer)

    def _answered(self, message: Any) -> None:
        """A leader answers a client of its own."""
        if type(message) is Refused:
            self.refused(message.id)
        elif type(message) is Revalidated:
            self.revalidated(message.session, message.valid)

    # ---- timers -------------------------------------------------------------------------------------------------------------------------
    def _vote(self) -> None:
        if self.state == LOOKING:
            self.election.on_timer()

    def _lead(self) -> None:
        if self.leader is not None:
            self.leader.on_lead_timer()

    def _tick(self) -> None:
        if self.leader is not None:
            self.leader.touch(self.clients.live())
            self.leader.on_tick_timer()

    def _follow(self) -> None:
        if self.learner is not None:
            self.learner.on_timer()

    def _register(self) -> None:
        if self.learner is not None:
            self.learner.register()

    def _client(self) -> None:
        self.clients.on_timer()


TIMERS: dict[str, Any] = {
    "vote": ZooKeeper._vote,
    "lead": ZooKeeper._lead,
    "tick": ZooKeeper._tick,
    "follow": ZooKeeper._follow,
    "register": ZooKeeper._register,
    "client": ZooKeeper._client,
}
