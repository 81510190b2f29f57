"""Raft: Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm", ATC 2014, sections 5 and 7 and figure 2 of its
extended version; Ongaro's thesis, 6.4, 9.6.

etcd is Raft under a key-value store.  This file is the member: how its requests, its store and the parts of Raft fit together.  The parts are
raft_election (terms, votes, pre-vote, check-quorum), raft_replication (log, commitment, snapshots), raft_reads (ReadIndex), ready (what is applied, saved
and sent when: raftNode's loop), raft_streams (rafthttp); raft_quorum, raft_log and raft_progress are what they count with.  Sources: etcd 3.4 and 3.5,
server/etcdserver (server.go, v3_server.go, raft.go), etcd-io/raft, also its 3.6; etcd's documentation, "KV API guarantees" (linearizable unless a read asks
to be serializable) and "Failure modes".

Writes: a member proposes to the leader it knows (a follower by a MsgProp that nobody acknowledges).  While none is known, proposals wait at the
member, also those that other members have forwarded; one whose own client reaches its deadline is withdrawn.  A write is answered when its entry has
been applied here.  A member gives it up after 5 s + 2 election timeouts: its outcome is unknown.
A restarted member serves no client before an entry of its own, its published attributes, has come back through the log (server.go, publish and
ReadyNotify; embed/serve.go), so that its store is not older than what it had answered before.  (A time-out on that wait, after which a member served what
it had, was in 3.6.0-alpha.0 and in no release: a way back in time, issue 16666.)
Simplified: one voter set for the whole trial (no membership changes, learners or leader transfer), no leases, auth or watches: nobody asks for
them here.  Not modelled: two races between goroutines that let a linearizable read be stale around a pause or a change of leader, mended in 3.4.42, 3.5.28
and 3.6.9 (issue 20418, pull 21375).
"""

from __future__ import annotations

from collections import deque
from typing import Any

from capray.policies.etcd.raft_election import LEADER
from capray.policies.etcd.raft_messages import MESSAGES, NONE, Append, Attach, Attached, Entry, LinkHeartbeat, Propose, Row
from capray.policies.etcd.ready import ReadyLoop
from capray.policies.etcd.settings import EtcdSettings
from capray.replica import Request

NEVER = 1 << 62
MAX_PENDING = 4096  # rafthttp/peer.go, maxPendingProposals: forwarded proposals that wait for a leader
TIMED_OUT = "etcdserver: request timed out"
LEADER_FAILED = "etcdserver: request timed out, possibly due to previous leader failure"
CONNECTION_LOST = "etcdserver: request timed out, possibly due to connection lost"
PUBLISH = -1  # the request of an entry that publishes a member
NOT_PROPOSED = "context deadline exceeded"
LEADER_CHANGED = "etcdserver: leader changed"


class Etcd(ReadyLoop):
    """One etcd member."""

    name = "etcd"
    claims = ("CP: linearizable; a side without a quorum answers nothing but serializable reads, which are sequential and may be stale without bound "
              "(etcd documentation, KV API guarantees); lease reads may be stale while a cut-off or paused leader does not know (etcd-io/raft issue 166)")
    has_leader = True
    Settings = EtcdSettings
    MESSAGES = MESSAGES

    def __init__(self, node: int, nodes: int, settings: Any, stream: Any) -> None:
        super().__init__(node, nodes, settings, stream)
        self.store: dict[str, tuple[Any, int]] = {}  # key -> value, index of the entry that wrote it
        self.own: dict[int, int] = {}  # this member's clients' writes under way -> when they came
        self.blocked: deque[tuple[int, Entry]] = deque()  # writes that wait for a leader, and until when their client waits
        self.elected_at = 0  # when this member last became leader
        self.replaying = False
        self.published = -1  # when this restarted member asked to be published (-1: it serves clients)
        self.unserved: list[tuple[int, Request]] = []  # clients that wait for that, and until when
        self.handlers.update({Propose: self.on_propose, LinkHeartbeat: self.on_link_heartbeat, Attach: self.on_attach, Attached: self.on_attached})

    @classmethod
    def deletes(cls, settings: Any) -> str:
        return "delete"

    def peek(self, key: str) -> Any:
        return self.store.get(key, (None, 0))[0]

    # ---- a member's life -------------------------------------------------------------------------------------------------------------
    def on_start(self) -> None:
        self.start_streams(connected=True)
        self.start_clock()

    def on_restart(self, journal: list[Any]) -> None:
        self.replaying = True
        self.replay(journal)
        self.replaying = False
        self.start_streams(connected=False)
        self.start_clock()
        self.published = self.now
        self.publish()

    def publish(self) -> None:
        """Propose this member's attributes, again after each request timeout."""
        self.set_timer("publish", self.settings.patience_us)
        self.propose(NEVER, Entry(0, self.node, PUBLISH, "", self.published))

    def serve_clients(self) -> None:
        """The listener is served; who gave up meanwhile has hung up."""
        self.published = -1
        self.cancel_timer("publish")
        unserved, self.unserved = self.unserved, []
        for until, request in unserved:
            if self.now < until:
                self.serve(request)

    def on_message(self, src: int, message: Any) -> None:
        kind = type(message)
        if kind is not Append:  # which comes on the stream of its own
            self.heard[src] = self.now
        self.handlers[kind](src, message)
        self.finish()

    def on_link_heartbeat(self, src: int, message: LinkHeartbeat) -> None:
        """A stream lives."""

    def on_timer(self, name: Any) -> None:
        if name == "tick":
            self.on_ticker()
        elif name == "election":
            self.on_election_timer()
        elif name == "beat":
            self.on_beat_timer()
        elif name == "link":
            self.show_life()
        elif name == "silence":
            self.check_silence()
        elif name == "read-retry":
            self.ask_read_index()
        elif name == "read-timeout":
            self.fail_round(TIMED_OUT)
        elif name == "request-timeout":
            self.expire()
        elif name == "publish":
            self.publish()
        elif name[0] == "syn":
            self.on_syn_timer(name[1])
        elif self.asked[name[1]]:
            self.dial_anew(name[1])
        else:
            self.dial(name[1])
        self.finish()

    def finish(self) -> None:
        """A handler is at its end.  Where a leader has become known, what waited for one goes to it (raft/node.go, run: propc), and the loop goes on."""
        if self.blocked and self.lead != NONE:
            blocked, self.blocked = self.blocked, deque()
            for until, entry in blocked:
                if self.now < until:
                    self.propose(until, entry)
        super().finish()

    def lead_told(self) -> None:
        """The server takes note of who leads."""
        if self.state == LEADER:
            self.elected_at = self.now
        self.fail_round(LEADER_CHANGED)

    # ---- requests --------------------------------------------------------------------------------------------------------------------
    def on_request(self, request: Request) -> None:
        if self.published >= 0:
            self.unserved.append((self.given_up_at(request), request))
            return
        self.serve(request)
        self.finish()

    def serve(self, request: Request) -> None:
        """A client asks."""
        if request.f == "read":
            if self.settings.read_consistency == "serializable":
                self.answer_read(request.id, request.key)
            else:
                self.read(request.id, request.key)
            return
        if not self.own:
            self.set_timer("request-timeout", self.settings.patience_us)
        self.own[request.id] = self.now
        self.propose(self.given_up_at(request), Entry(0, self.node, request.id, request.key, request.value))

    def given_up_at(self, request: Request) -> int:
        """Own clock, when the request's client cancels it: its deadline, which gRPC passes on (the JSON gateway cancels when its client hangs up)."""
        return self.now + request.timeout_us if request.timeout_us else NEVER

    def answer_read(self, request: int, key: str) -> None:
        self.reply(request, "ok", self.store.get(key, (None, 0))[0])

    def propose(self, until: int, entry: Entry) -> None:
        """Hand a write to the leader, or keep it until there is one; if that is later than `until`, it is withdrawn."""
        if self.state == LEADER:
            self.lead_append(Entry(self.term, entry.node, entry.request, entry.key, entry.value))
        elif self.lead == NONE:
            self.blocked.append((until, entry))
        else:
            self.say(self.lead, Propose(entry))

    def on_propose(self, src: int, message: Propose) -> None:
        """Another member's proposal; who does not lead passes it on.  No client's patience ends it any more."""
        if self.lead != NONE or len(self.blocked) < MAX_PENDING:
            self.propose(NEVER, message.entry)

    def expire(self) -> None:
        """Give up the writes that have waited too long; nobody knows what will become of them."""
        patience = self.settings.patience_us
        for request, since in list(self.own.items()):
            if self.now - since < patience:
                self.set_timer("request-timeout", since + patience - self.now)
                return
            del self.own[request]
            self.reply(request, "info", None, self.why_timed_out(request, since))

    def why_timed_out(self, request: int, since: int) -> str:
        """What parseProposeCtxErr makes of it; a write that still waits for a leader is withdrawn."""
        for waiting in self.blocked:
            if waiting[1].node == self.node and waiting[1].request == request:
                self.blocked.remove(waiting)
                return NOT_PROPOSED
        if self.elected_at - 2 * self.settings.election_timeout_us < since < self.elected_at:
            return LEADER_FAILED
        if self.state == LEADER:
            reached = 1 + sum(self.connected_since(peer, since) for peer in self.peers)
            return TIMED_OUT if reached >= self.quorum else CONNECTION_LOST
        return TIMED_OUT if self.lead == NONE or self.connected_since(self.lead, since) else CONNECTION_LOST

    # ---- the store -------------------------------------------------------------------------------------------------------------------
    def apply(self, index: int, entry: Entry) -> None:
        if entry.node == NONE:
            if not self.replaying:
                self.first_commit()
            return
        if entry.request == PUBLISH:
            if entry.node == self.node and entry.value == self.published and not self.replaying:
                self.serve_clients()
            return
        key = entry.key
        held = self.store.get(key)
        self.store[key] = (entry.value, index)
        if self.replaying:
            return
        self.applied(key, entry.value, (index,), () if held is None else (held[0],))
        if entry.node == self.node and self.own.pop(entry.request, None) is not None:
            self.reply(entry.request, "ok")

    def rows(self) -> tuple[Row, ...]:
        return tuple(Row(key, value, index) for key, (value, index) in self.store.items())

    def restore(self, rows: tuple[Row, ...]) -> None:
        """Take over a snapshot's store; what came between is skipped."""
        for row in rows:
            held = self.store.get(row.key)
            self.store[row.key] = (row.value, row.index)
            if not self.replaying and (held is None or held[1] != row.index):
                self.applied(row.key, row.value, (row.index,), () if held is None else (held[0],))
