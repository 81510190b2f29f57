"""The clients of one ZooKeeper server: ZooKeeper Programmer's Guide 3.8, "ZooKeeper Sessions" and "Consistency Guarantees"; kazoo 2.8.

Decides: what a node's application is told: answered, refused, or connection lost.  May not know: quorums, leaders.
A node's application has a client library beside its server, and speaks to that server only.  Before the first connection it waits, as kazoo's
start() does; later, what is asked without a connection fails at once, and the library tries again each 0.1 to 0.3 s.  When its server stops serving,
a write on its way is of unknown outcome (CONNECTIONLOSS) and a read has failed.
Sessions are first in, first out: a read waits for the writes before it on its session, not for another session's (CommitProcessor).  The
measured clients had one session for reads and one for writes, or one for both; all operations of a node share them, so `Request.session` plays no
part: with two sessions a node's reads never wait for writes, with one they always do.
A session is created and closed by a transaction.  The leader closes it when nothing was heard of its client for its time-out; the client
then learns of it from its server, as soon as that has applied it, and opens another.
Simplified, and why: a client's heart-beats are not messages of their own: a connected client's session counts as heard of in each of its server's
answers to the leader's ping, which differs from a third of its time-out by less than expiry is rounded to.
"""

from __future__ import annotations

from collections import deque

from capray.policies.zookeeper.zab_messages import CLOSE_SESSION, CREATE_SESSION, LEADING, SET, Forward, Proposal, Revalidate, Sync
from capray.policies.zookeeper.zab_peer import QuorumPeer
from capray.replica import Request

DOWN, CONNECTING, CONNECTED = range(3)
NOT_SERVING = "not serving"
LOST = "connection loss"
EXPIRED = "session expired"


class Entry:
    """An operation that waits on its session."""

    def __init__(self, request: Request, done: bool) -> None:
        self.request = request
        self.done = done  # it may be answered as soon as it is first in line


class Session:
    """One of the client library's connections to its server."""

    def __init__(self, starting: bool) -> None:
        self.id = 0  # 0: none yet, or expired
        self.state = DOWN
        self.queue: deque[Entry] = deque()
        self.starting = starting  # before the first connection
        self.waiting: list[Request] = []


class Clients:
    """What the clients of this server have under way."""

    def __init__(self, peer: QuorumPeer, starting: bool) -> None:
        settings = peer.settings
        self.peer = peer
        self.sessions = [Session(starting) for _ in range(2 if settings.sessions == "split" else 1)]
        self.syncs = settings.read_mode == "sync"
        self.entries: dict[int, tuple[Session, Entry]] = {}  # request -> where it waits for the ensemble
        self.leader = -1

    # ---- operations -------------------------------------------------------------------------------------------------------------------
    def ask(self, request: Request) -> None:
        """An application asks."""
        session = self.sessions[0 if request.f == "read" else -1]
        if session.state == CONNECTED:
            self._run(session, request)
        elif session.starting:
            session.waiting.append(request)
        else:
            self.peer.reply(request.id, "fail", None, NOT_SERVING)

    def _run(self, session: Session, request: Request) -> None:
        peer = self.peer
        if request.f != "read":
            peer.send(self.leader, Forward(request.id, SET, request.key, request.value, session.id))
            self._wait(session, request, done=False)
        elif self.syncs and peer.state != LEADING:
            peer.send(self.leader, Sync(request.id))
            self._wait(session, request, done=False)
        elif session.queue:
            self._wait(session, request, done=True)
        else:
            peer.reply(request.id, "ok", peer.peek(request.key))

    def _wait(self, session: Session, request: Request, done: bool) -> None:
        entry = Entry(request, done)
        session.queue.append(entry)
        if not done:
            self.entries[request.id] = (session, entry)

    def finished(self, request: int) -> None:
        """A write has been applied here, or a sync has come back: answer it, and what waited behind it."""
        found = self.entries.pop(request, None)
        if found is None:
            return
        session, entry = found
        entry.done = True
        queue = session.queue
        while queue and queue[0].done:
            asked = queue.popleft().request
            self.peer.reply(asked.id, "ok", self.peer.peek(asked.key) if asked.f == "read" else None)

    def refused(self, request: int) -> None:
        """The leader turned a write away: its session has expired."""
        found = self.entries.pop(request, None)
        if found is not None:
            found[0].queue.remove(found[1])
            self.peer.reply(request, "fail", None, EXPIRED)

    # ---- sessions -----------------------------------------------------------------------------------------------------------------------
    def start(self) -> None:
        """Try to connect, again and again."""
        settings = self.peer.settings
        self.peer.set_timer("client", self.peer.stream.between(settings.client_retry_min_us, settings.client_retry_max_us))

    def on_timer(self) -> None:
        """The library tries its server."""
        if self.peer.serving:
            for slot, session in enumerate(self.sessions):
                if session.state == DOWN:
                    self._connect(slot, session)
        if any(session.state != CONNECTED for session in self.sessions):
            self.start()

    def _connect(self, slot: int, session: Session) -> None:
        session.state = CONNECTING
        if session.id:
            self.peer.send(self.leader, Revalidate(session.id))
        else:
            self.peer.send(self.leader, Forward(slot, CREATE_SESSION, "", None, 0))

    def _connected(self, session: Session) -> None:
        session.state = CONNECTED
        session.starting = False
        waiting, session.waiting = session.waiting, []
        for request in waiting:
            self._run(session, request)

    def applied(self, txn: Proposal) -> None:
        """A transaction has been applied here: an answer of ours, a session of ours opened, or one closed."""
        if txn.op == CLOSE_SESSION:
            self._expired(txn.session)
        elif txn.node != self.peer.node:
            return
        elif txn.op == SET:
            self.finished(txn.id)
        elif txn.id < len(self.sessions) and self.sessions[txn.id].state == CONNECTING and not self.sessions[txn.id].id:
            session = self.sessions[txn.id]
            session.id = txn.zxid
            self._connected(session)

    def revalidated(self, session_id: int, valid: bool) -> None:
        """The leader knows the session, or has closed it."""
        for slot, session in enumerate(self.sessions):
            if session.id == session_id and session.state == CONNECTING:
                if valid:
                    self._connected(session)
                else:
                    session.id = 0
                    self._connect(slot, session)

    def _expired(self, session_id: int) -> None:
        for slot, session in enumerate(self.sessions):
            if session.id == session_id:
                session.id = 0
                if session.state != DOWN:
                    self._drop(session, EXPIRED)
                    self._connect(slot, session)
                    self.start()

    def disconnect(self) -> None:
        """The server stops serving: every connection is closed."""
        for session in self.sessions:
            self._drop(session, LOST)
        self.start()

    def _drop(self, session: Session, why: str) -> None:
        session.state = DOWN
        queue, session.queue = session.queue, deque()
        for entry in queue:
            self.entries.pop(entry.request.id, None)
            self.peer.reply(entry.request.id, "fail" if entry.request.f == "read" else "info", None, why)

    def live(self) -> tuple[int, ...]:
        """The connected sessions."""
        return tuple(session.id for session in self.sessions if session.state == CONNECTED)
