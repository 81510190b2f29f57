"""A Sentinel's connections as they were seen on the wire: five Redis 7.0.15 with Sentinels in network namespaces, Linux 6.18, a cut of 20 s.

There one Sentinel's connections to a cut-off Redis were tried (seconds from the cut): the command link from 3.5 at 3.5 4.5 5.6 6.6 7.6 8.7 10.7 14.9, and anew
from 18.6; the subscription from 6.1 at 6.1 7.1 8.1 9.2 10.2 11.2 13.2 17.4; a Sentinel's link to another from 3.1, anew from 18.2, and open at 20.3.
"""

from __future__ import annotations

from capray.policies.redis.link import MIN_RECONNECT_US, Link
from capray.policies.redis.messages import Subscribe
from capray.policies.redis.paths import Paths
from capray.policies.redis.settings import RedisSettings
from capray.policies.redis.watched import Watched
from capray.replica import CONNECT, SEND, Replica
from capray.streams import Stream

S = 1_000_000
TICK = 50_000
SETTINGS = RedisSettings(down_after_us=5 * S, quorum=3)


class Node:
    """A node whose peer 1 answers no more from second 0 on."""

    def __init__(self, sentinel: bool = False) -> None:
        self.owner = Replica(0, 2, None, Stream(0, "test"))
        self.owner.now = 100 * S
        self.cut = self.owner.now
        self.paths = Paths(self.owner, lambda peer: None)
        self.watched = Watched(1, sentinel, self.paths)
        self.watched.published_at = self.owner.now
        self.watched.ping(self.owner.now)
        self.watched.pong(self.owner.now, 0)
        self.watched.last_ping = self.owner.now
        self.watched.act_ping = self.owner.now + S // 2  # sent half a second later, and lost
        self.tries: list[float] = []  # of any link, seconds from the cut
        self.subscribing: list[float] = []  # of the subscription

    def run(self, seconds: float) -> None:
        """The Sentinel's timer, to so many seconds after the cut; the engine's part of a dial is that nothing comes of it."""
        while self.owner.now < self.cut + seconds * S:
            self.owner.now += TICK
            self.watched.reconnect(self.owner.now)
            if self.watched.check_links(self.owner.now, SETTINGS.down_after_us):
                self.paths.drop(1)
            self.tries += [(self.owner.now - self.cut) / S for effect in self.owner.effects if effect[0] == CONNECT]
            self.owner.effects.clear()
            last = self.watched.subscription.syn.last if self.watched.subscription else 0
            if last == self.owner.now:
                self.subscribing.append(round((last - self.cut) / S, 1))

    def sent(self) -> list[str]:
        return [type(effect[2]).__name__ for effect in self.owner.effects if effect[0] == SEND]


def test_a_command_link_is_tried_as_on_the_wire_and_dialled_anew_after_fifteen_seconds() -> None:
    """Sniffed, of Sentinels' links: SYNs 1.01, 2.03, 3.05, 4.08, 5.1, 7.12 and 11.14 to 11.38 s after the first."""
    node = Node(sentinel=True)
    node.run(21)
    assert [round(at, 1) for at in node.tries] == [3.1, 4.2, 5.2, 6.2, 7.2, 8.2, 10.2, 14.4, 18.2, 19.2, 20.3]


def test_a_subscription_is_closed_after_six_seconds_of_silence_and_tried_on_its_own() -> None:
    node = Node()
    node.run(21)
    assert node.subscribing == [6.1, 7.2, 8.2, 9.2, 10.2, 11.2, 13.2, 17.2]


def test_a_path_that_another_connection_opened_opens_no_link_before_its_own_try() -> None:
    """A replication link came back 0.6 s after heal; what Sentinels had to say came 3.4 s after heal, when theirs were dialled anew."""
    node = Node(sentinel=True)
    node.run(16)  # tried at 14.3; next: anew at 18.2
    node.paths.opened(1)
    node.watched.opened(node.owner.now)
    assert node.watched.dialling and not node.watched.commands.open and node.sent() == []
    node.run(18)
    assert not node.watched.commands.open
    node.run(18.3)
    assert node.watched.commands.open


def test_a_try_that_gets_through_opens_its_link_and_a_ping_goes_first() -> None:
    node = Node()
    node.run(3.1)
    assert node.tries and node.watched.commands.syn.dialling
    node.owner.now += 500  # a round trip
    node.paths.opened(1)
    node.watched.opened(node.owner.now)
    assert node.watched.commands.open and node.sent()[0] == "Ping"


def test_a_new_subscription_says_so() -> None:
    node = Node()
    node.watched.subscription = Link(1, node.paths, closed=True)
    node.watched.reconnect(node.owner.now + 2 * S)
    assert Subscribe.__name__ in node.sent()


def test_a_link_younger_than_fifteen_seconds_is_not_closed_for_silence() -> None:
    node = Node(sentinel=True)
    node.watched.commands.conn_time = node.cut - MIN_RECONNECT_US + 10 * S  # five seconds old
    node.run(9.9)
    assert node.tries == []
    node.run(10.2)
    assert node.tries
