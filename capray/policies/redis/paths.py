"""The paths from a Redis node to the others, as its kernel keeps them: tcp(7), connect(2); sentinel.c's links.

Decides: when a lost path is dialled and given up, when a kept connection's data goes out again.  May not know: whether a peer is reachable.
Simplified, and why: between two nodes Redis has a dozen TCP connections (each Sentinel's to the other's Redis and Sentinel, replication, the
clients' pools), the engine has one.  Each of them keeps its own schedule here (SYN at once, after 1 s, 2 s, 3 s, 4 s, 5 s, 7 s, 11 s, ...; retransmission after
0.2 s, 0.6 s, 1.4 s, ..., each pause ending as late as the kernel's timer wheel has it: the engine's own rules, tcp.py), every try of each is a try of the
shared path, and each is open from its own next try on.
"""

from __future__ import annotations

from collections.abc import Callable

from capray.replica import Message, Replica
from capray.tcp import DIAL_FIRST_US, DIAL_LINEAR, RTO_FIRST_US, RTO_MAX_US, runs_out

NEVER = -(1 << 62)  # before any clock, however skewed
ABORT_US = 900_000  # a try is over before the next one


class Paths:
    """Which paths this node takes for open."""

    def __init__(self, owner: Replica, on_drop: Callable[[int], None]) -> None:
        """`on_drop(peer)` is called where a path is given up on this side."""
        self.owner = owner
        self.on_drop = on_drop
        self.up = [True] * owner.nodes
        self.dialled = [NEVER] * owner.nodes
        self.unheard = [0] * owner.nodes  # when the first message was sent since the peer was last heard; 0: none
        self.lost_at = [0] * owner.nodes  # the same, at the time when the path was given up
        self.trying_us = [2_000] * owner.nodes  # a dial may be under way for so long: two round trips

    def lost_at_boot(self) -> None:
        """The process was started again: no path is open, but within the node."""
        self.up = [peer == self.owner.node for peer in range(self.owner.nodes)]

    def post(self, peer: int, message: Message) -> None:
        """Send where the path is taken for open; else it is lost, like what a closed connection had buffered."""
        if self.up[peer]:
            if not self.unheard[peer]:
                self.unheard[peer] = self.owner.now
            self.owner.send(peer, message)

    def drop(self, peer: int) -> None:
        """Give a silent path up."""
        if self.up[peer] and peer != self.owner.node:
            self.up[peer] = False
            self.lost_at[peer] = self.unheard[peer] or self.owner.now
            self.owner.close(peer)
            self.on_drop(peer)

    def dial(self, peer: int) -> None:
        """One try (a SYN) of some connection to the peer."""
        owner = self.owner
        if peer == owner.node or owner.now - self.dialled[peer] < self.trying_us[peer]:
            return
        self.drop(peer)
        owner.close(peer)
        owner.connect(peer)
        self.dialled[peer] = owner.now
        owner.set_timer(("abort", peer), ABORT_US)

    def tried(self, peer: int, since: int) -> bool:
        """Whether a try at `since` may be the one that has just got through: it is the last one, and no older than a round trip."""
        return since >= self.dialled[peer] and self.owner.now - since <= self.trying_us[peer]

    def round_trip(self, peer: int, us: int) -> None:
        """The newest round trip seen; a longer one than a wide-area link's was a retransmission."""
        self.trying_us[peer] = min(max(2 * us, 2_000), 400_000)

    def abort(self, peer: int) -> None:
        """The try was in vain."""
        if not self.up[peer]:
            self.owner.close(peer)

    def opened(self, peer: int) -> None:
        """Some connection to the peer is established."""
        self.up[peer] = True
        self.unheard[peer] = 0
        self.owner.cancel_timer(("abort", peer))

    def closed(self, peer: int) -> None:
        """The peer reset or refused."""
        self.up[peer] = False
        self.unheard[peer] = 0
        self.owner.cancel_timer(("abort", peer))


class Syn:
    """One connection's schedule of tries, reckoned with its host's kernel_phase."""

    __slots__ = ("dialling", "host", "last", "linear", "next", "pause")

    def __init__(self, host: Replica) -> None:
        self.host = host
        self.last = NEVER
        self.next = 0
        self.pause = DIAL_FIRST_US
        self.linear = 0  # pauses left that do not double
        self.dialling = False

    def begin(self, now: int) -> None:
        """connect(2): the first SYN goes out now."""
        self.dialling = True
        self.last = now
        self.pause = DIAL_FIRST_US
        self.linear = DIAL_LINEAR
        self.next = runs_out(now, DIAL_FIRST_US, self.host.kernel_phase)

    def retransmit(self, lost_at: int, now: int) -> None:
        """A connection that is kept although its path was given up: it goes on with what was sent at `lost_at`."""
        self.dialling = True
        self.last = NEVER
        self.linear = 0
        self.next, self.pause = runs_out(lost_at, RTO_FIRST_US, self.host.kernel_phase), RTO_FIRST_US
        while self.next < now:
            self._back_off()

    def _back_off(self) -> None:
        if self.linear:
            self.linear -= 1
        else:
            self.pause = min(2 * self.pause, RTO_MAX_US)
        self.next = runs_out(self.next, self.pause, self.host.kernel_phase)

    def due(self, now: int) -> bool:
        """Whether another segment goes out now."""
        if not self.dialling or now < self.next:
            return False
        self.last = now
        self._back_off()
        return True
