"""One TCP connection of a Sentinel to a process that it watches: Redis 7.0 sentinel.c, instanceLink's `cc` (commands) and `pc` (Pub/Sub); tcp(7).

Decides: when the connection is dialled, tried again, open.  May not know: what is said on it.
A connection is open when a try of its own gets through: that another connection to the same node is open does not help it.  So what is first heard
after heal depends on when which link last began to dial: a link that was closed dials at once, its kernel tries again after 1 s, 2 s, ... (tcp.py), and
the Sentinel closes it and begins anew after 15 s.  One that was kept goes on with the retransmissions of what it had sent.
"""

from __future__ import annotations

from capray.policies.redis.paths import NEVER, Paths, Syn

MIN_RECONNECT_US = 15_000_000  # sentinel_min_link_reconnect_period


class Link:
    """One connection to `node`."""

    __slots__ = ("closed", "conn_time", "node", "paths", "syn")

    def __init__(self, node: int, paths: Paths, closed: bool) -> None:
        self.node = node
        self.paths = paths
        self.closed = closed
        self.conn_time = NEVER
        self.syn = Syn(paths.owner)

    @property
    def open(self) -> bool:
        """What is sent goes out."""
        return not self.closed and not self.syn.dialling and self.paths.up[self.node]

    def connect(self, now: int) -> None:
        """connect(2)."""
        self.closed = False
        self.conn_time = now
        if not self.paths.up[self.node]:
            self.syn.begin(now)
            self.paths.dial(self.node)

    def close(self) -> None:
        """Whatever waits on it is lost."""
        self.closed = True
        self.syn.dialling = False

    def advance(self, now: int) -> bool:
        """The kernel's next try, where one is due.  True where it has opened the connection: the path is there already."""
        if self.closed:
            return False
        if self.syn.due(now):
            if self.paths.up[self.node]:
                self.syn.dialling = False
                return True
            self.paths.dial(self.node)
        elif not self.syn.dialling and not self.paths.up[self.node]:
            self.syn.retransmit(self.paths.lost_at[self.node], now)
        return False

    def opened(self) -> bool:
        """The path is open.  True where it was a try of this connection that got through."""
        if self.syn.dialling and self.paths.tried(self.node, self.syn.last):
            self.syn.dialling = False
            return True
        return False

    def stale(self, now: int) -> bool:
        """Old enough to be closed for silence."""
        return not self.closed and now - self.conn_time > MIN_RECONNECT_US
