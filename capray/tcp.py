"""TCP as far as a partition shows it: connections, retransmission, dialling, resets.

Decides: what becomes of messages on a connection that is cut, closed, half-open or being dialled.  May not know: policies, message bodies.
Simplified, and why: no congestion or flow control beyond one unscaled window, and one retransmission time-out, while acknowledgements are cut (after that Linux
sends nothing new: real servers' heartbeats into such a cut stop within a third of a second); a partition's visible effects are the retransmission time-out, the
order, the half-open connection and the dial's back-off, and those are here.  And where a replica closes a connection, both its buffers are lost: a kernel goes
on sending what was sent before, but a server that closes a silent connection has a peer that closes its end too, or meets a newer one.  A client's it does send.
Sources: RFC 6298 (time-out doubles), RFC 8985, 7 (tail loss probe), Linux tcp(7): TCP_RTO_MIN 200 ms, TCP_RTO_MAX 120 s, tcp_retries2 15 (gives up after
924.6 s), SYN retries after 1 s, the first five pauses alike (tcp_syn_linear_timeouts 4, Linux 6.5 and later; seen so on the wire), then doubling; RFC 793
(reset in answer to a segment for a connection that is not there); tcp(7): TCP_USER_TIMEOUT, as net/ipv4/tcp_timer.c does it (retransmits_timed_out).
A client's closed socket: Linux tcp_close() (without SO_LINGER the kernel goes on sending what it held, and a FIN behind it), tcp_orphan_retries 8, which
tcp_model_timeout() makes 102.2 s from the first retransmission on; seen so on the wire of a Linux 6.18: sent 1 s before close() into a cut of 10 s, read by the
other side 13.3 s after the sending; into a longer one, last retransmitted after 54 s.
"""

from __future__ import annotations

from capray.streams import Stream

JIFFY_US = 4_000  # a kernel of 250 Hz: Debian's, as under the measured servers
WHEEL_FIRST = 63  # jiffies: the least pause of the timer wheel's level 1 (LVL_START: 63, 504, 4032, 32256)
WHEEL_US = 8**4 * JIFFY_US  # its coarsest grain here, of pauses of 129 s on
RTO_FIRST_US = 200_000
RTO_MAX_US = 120_000_000
GIVE_UP_US = 924_600_000
ORPHAN_US = 102_200_000  # (2^9 - 1) x TCP_RTO_MIN: of a closed socket, a retransmission so long after the first one ends it instead
DIAL_FIRST_US = 1_000_000
DIAL_LINEAR = 4  # pauses that stay at the first before they double; 0 before Linux 6.5
DIAL_MAX_US = 64_000_000  # then the application, as reconnecting clients do, goes on dialling
WINDOW_BYTES = 65_535  # a receive window without scaling: what is sent on while only acknowledgements are cut


def grain_us(pause: int) -> int:
    """How late a kernel's timer of `pause` microseconds may end: the grain of the level of the timer wheel that holds such pauses (kernel/time/timer.c: level n,
    from 63 x 8^(n - 1) jiffies on, has one of 8^n).  A pause of 26 s may end 2 s late."""
    jiffies, grain, bound = -(-pause // JIFFY_US), 1, WHEEL_FIRST
    while jiffies >= bound:
        grain, bound = 8 * grain, 8 * bound
    return grain * JIFFY_US


def runs_out(start: int, pause: int, boot: int) -> int:
    """When a kernel's timer that was set at `start` for `pause` ends, on a host that booted `boot` microseconds before virtual time 0: Linux rounds the pause up
    to jiffies, and the end up to the grain (calc_index)."""
    grain = grain_us(pause)
    ends = ((start + boot) // JIFFY_US - -pause // JIFFY_US) * JIFFY_US
    return (ends // grain + 1) * grain - boot


def kernel_phase(seed: int, host: int, one_kernel: bool) -> int:
    """How long a host had been up at virtual time 0, as far as its kernel's timers tell: modulo their coarsest grain.  `one_kernel`: all hosts are one machine."""
    return Stream(seed, "boot", 0 if one_kernel else host).below(WHEEL_US)


def _next_try(at: int, pause: int, most: int, not_before: int, boot: int, linear: int) -> int:
    """The first instant at or after `not_before` of the tries that follow one another after `pause` (`linear` times more), 2 x `pause`, 4 x `pause`, ...
    (each pause at most `most`)."""
    at = runs_out(at, pause, boot)
    while at < not_before:
        if linear:
            linear -= 1
        else:
            pause = min(2 * pause, most)
        at = runs_out(at, pause, boot)
    return at


def retransmission_at(sent: int, not_before: int, first: int = RTO_FIRST_US, boot: int = 0, alone: bool = False) -> int:
    """When a segment sent at `sent` and unanswered since is next retransmitted, at or after `not_before`; `first` is the first time-out, `boot` as in
    `runs_out`.  `alone`: no other was sent before that; such a one is sent once more before the first time-out begins (tcp_output.c, tail loss probe)."""
    return _next_try(sent, first, RTO_MAX_US, not_before, boot, int(alone))


def orphan_at(sent: int, not_before: int, first: int, boot: int = 0) -> int:
    """The same where the socket, a client's with that alone under way, has been closed: -1 where its system has given up by then."""
    begun = retransmission_at(sent, sent, first, boot, alone=True)
    again = retransmission_at(sent, not_before, first, boot, alone=True)
    return again if again - begun < ORPHAN_US else -1


def abandoned_at(sent: int, timeout: int, first: int, boot: int = 0, alone: bool = False) -> int:
    """When a connection with a TCP_USER_TIMEOUT of `timeout` is closed whose segment sent at `sent` stays unanswered; `first`, `boot`, `alone` as in
    `retransmission_at`.  Linux counts from the first time that it is sent again, looks at each further one, and sets the last timer to what is left
    (tcp_clamp_rto_to_user_timeout, since 4.19; before that it waited for the next doubling).  Twelve connections of a Linux 6.18 with 30 s ended 30.24 to
    30.46 s after the sending, the lone segments among them no later than the others."""
    at = begun = runs_out(sent, first, boot)
    pause = first if alone else 2 * first
    while at - begun < timeout:
        at = runs_out(at, min(pause, timeout - (at - begun)), boot)
        pause = min(2 * pause, RTO_MAX_US)
    return at


def redial_at(started: int, not_before: int, boot: int = 0) -> int:
    """When a connection being dialled since `started` is next tried, at or after `not_before`; `boot` as in `runs_out`."""
    return _next_try(started, DIAL_FIRST_US, DIAL_MAX_US, not_before, boot, DIAL_LINEAR)


class Connection:
    """A pair's connection; side 0 is the lower node.  A pair without such an object is open and ordinary.

    `up[s]`: side s holds an open socket.  `learns[s]`: until then side s takes a dead connection for open, and what it sends is lost.
    `dialing[s]`: since when side s dials (-1: it does not); `pending[s]`: what it wants to send when that succeeds.
    `ready[s]`: when side s may first send.  `died[s]`: the process there is gone since.  `epoch` numbers the pair's connections.
    """

    __slots__ = ("dialing", "died", "epoch", "high", "learns", "low", "pending", "ready", "up")

    def __init__(self, low: int, high: int, epoch: int) -> None:
        self.low = low
        self.high = high
        self.up = [True, True]
        self.learns = [0, 0]
        self.dialing = [-1, -1]
        self.pending: list[list[tuple]] = [[], []]  # type: ignore[type-arg]
        self.ready = [0, 0]
        self.died = [False, False]
        self.epoch = epoch

    def ordinary(self, now: int) -> bool:
        """True where nothing distinguishes it from an open connection."""
        return self.up[0] and self.up[1] and now >= self.ready[0] and now >= self.ready[1] and now >= self.learns[0] and now >= self.learns[1]


class Orphan:
    """What the closed socket of a client still held, which its system goes on sending."""

    __slots__ = ("dst", "entry", "src")

    def __init__(self, src: int, dst: int, entry: tuple) -> None:  # type: ignore[type-arg]
        self.src = src
        self.dst = dst
        self.entry = entry
