"""DeCandia et al., "Dynamo" (SOSP 2007), sections 4.8.1 (gossiped membership) and 4.8.3 (failure detection): whom a node takes for reachable.

Decides: who is suspected, and when no more.  "A purely local notion of failure detection is entirely sufficient": a peer that leaves a message unanswered for
`response_timeout` (or whose connection ends) is suspected by this node, whatever others think; it is then tried again each `retry_interval`
until it answers.  May not know: links, faults, keys.  A message answered clears a peer; one that merely arrives from it does not.
Membership: the ring is fixed (joins and leaves are an administrator's explicit acts, section 4.8.1); what gossip reconciles each second with a random
peer is each member's newest change, a start of its process; an unanswered gossip is what detects failure where there are no requests.
"""

from __future__ import annotations

from typing import Protocol

from capray.policies.dynamo.messages import Gossip, Ping
from capray.replica import Message
from capray.streams import Stream


class Host(Protocol):
    """What a membership needs of its replica."""

    node: int

    def send(self, dst: int, message: Message) -> None: ...
    def set_timer(self, name: object, delay_us: int) -> None: ...
    def cancel_timer(self, name: object) -> None: ...
    def connect(self, peer: int) -> None: ...
    def close(self, peer: int) -> None: ...
    def recovered(self, peer: int) -> None: ...
    def lost(self, peer: int) -> None: ...


class Membership:
    """One node's view of the ring."""

    def __init__(self, host: Host, nodes: int, stream: Stream, gossip_us: int, response_us: int, retry_us: int) -> None:
        self.host = host
        self.nodes = nodes
        self.stream = stream
        self.gossip_us = gossip_us
        self.response_us = response_us
        self.retry_us = retry_us
        self.changes = [1] * nodes
        self.suspected = [False] * nodes
        self.connected = [True] * nodes
        self.probing = [False] * nodes  # whose answer to a gossip is awaited

    def start(self, change: int) -> None:
        """The process is up: its own newest change."""
        self.changes[self.host.node] = change
        if self.nodes > 1:
            self.host.set_timer("gossip", 1 + self.stream.below(self.gossip_us))

    def restart(self) -> None:
        """Back after a crash: nobody is connected."""
        for peer in range(self.nodes):
            if peer != self.host.node:
                self.suspect(peer)

    def round(self) -> None:
        """"Each node contacts a peer chosen at random every second"."""
        self.host.set_timer("gossip", self.gossip_us)
        peer = self.stream.below(self.nodes - 1)
        peer += peer >= self.host.node
        self.probe(peer)

    def probe(self, peer: int) -> None:
        """Gossip with a peer now: also where a request goes there whose answer may take long, so that silence is found out soon."""
        if self.suspected[peer] or self.probing[peer]:
            return
        self.probing[peer] = True
        self.host.send(peer, Gossip(tuple(self.changes), True))
        self.host.set_timer(("probe", peer), self.response_us)

    def unanswered(self, peer: int) -> None:
        """The gossip's time is up."""
        self.probing[peer] = False
        self.suspect(peer)

    def on_gossip(self, src: int, message: Gossip) -> None:
        """"The two nodes efficiently reconcile their persisted membership change histories"."""
        self.changes = [max(one, other) for one, other in zip(self.changes, message.changes, strict=True)]
        if message.reply:
            self.host.send(src, Gossip(tuple(self.changes), False))
        else:
            if self.probing[src]:
                self.probing[src] = False
                self.host.cancel_timer(("probe", src))
            self.answered(src)

    def suspect(self, peer: int, ended: bool = False) -> None:
        """Silence, or a connection that `ended`: use others from now on, and dial afresh (what an old connection still holds would come late, if
        ever)."""
        if self.suspected[peer] or peer == self.host.node:
            return
        self.suspected[peer] = True
        self._dial(peer, ended)
        self.host.lost(peer)

    def _dial(self, peer: int, ended: bool = False) -> None:
        """Afresh; where the connection has `ended` by itself it is not closed again: that could end the one which the peer has dialled since, and
        two nodes that answer each closing with one of their own never come to rest."""
        self.connected[peer] = False
        if not ended:
            self.host.close(peer)
        self.host.connect(peer)
        self.host.set_timer(("retry", peer), self.retry_us)

    def retry(self, peer: int) -> None:
        """Still suspected: ask once more, or dial once more."""
        if not self.suspected[peer]:
            return
        if self.connected[peer]:
            self.connected[peer] = False  # the answer to this ping, or a new connection, will set it again
            self.host.send(peer, Ping())
            self.host.set_timer(("retry", peer), self.retry_us)
        else:
            self._dial(peer)

    def on_connected(self, peer: int) -> None:
        """A connection stands; that the peer answers it must still show."""
        self.connected[peer] = True
        if self.suspected[peer]:
            self.host.send(peer, Ping())

    def on_disconnected(self, peer: int) -> None:
        """Reset: what was asked on it will not be answered."""
        self.connected[peer] = False
        self.suspect(peer, ended=True)

    def answered(self, peer: int) -> None:
        """The peer has responded."""
        self.connected[peer] = True
        if self.suspected[peer]:
            self.suspected[peer] = False
            self.host.cancel_timer(("retry", peer))
            self.host.recovered(peer)
