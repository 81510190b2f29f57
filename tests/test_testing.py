"""The fake link itself: what a test of a policy may rely on.  A small policy of our own shows each promise."""

from __future__ import annotations

from typing import Any

import pytest

from capray.errors import InputError
from capray.replica import ACK, RESPONSE, WRITE, Message, Replica, Request
from capray.testing import ContractError, FakeLink


class Store(Message, frozen=True):
    kind = WRITE
    id: int
    key: str
    value: Any


class Stored(Message, frozen=True):
    kind = ACK
    id: int


class Answer(Message, frozen=True):
    kind = RESPONSE
    value: Any


class Mirror(Replica):
    """Writes go to a journal and to the next node, whose acknowledgement is the answer; reads are local."""

    name = "mirror"
    MESSAGES = (Store, Stored, Answer)

    def on_start(self) -> None:
        self.data: dict[str, Any] = {}
        self.seen: list[Any] = []
        if self.node == 0:
            self.role("leader")

    def on_restart(self, journal: list[Any]) -> None:
        self.data = dict(journal)
        self.seen = []

    def peek(self, key: str) -> Any:
        return self.data.get(key)

    def on_request(self, request: Request) -> None:
        if request.f == "read":
            self.reply(request.id, "ok", self.data.get(request.key))
            return
        self.data[request.key] = request.value
        self.persist((request.key, request.value))
        self.applied(request.key, request.value, (self.now,))
        self.send((self.node + 1) % self.nodes, Store(request.id, request.key, request.value))

    def on_message(self, src: int, message: Any) -> None:
        if isinstance(message, Store):
            self.seen.append(message.value)
            self.send(src, Stored(message.id))
        elif isinstance(message, Answer):
            self.seen.append(message.value)
        elif isinstance(message, Stored):
            self.reply(message.id, "ok")

    def on_timer(self, name: Any) -> None:
        self.seen.append((name, self.now))

    def on_connected(self, peer: int) -> None:
        self.seen.append(("connected", peer))

    def on_disconnected(self, peer: int) -> None:
        self.seen.append(("disconnected", peer))


class Datagrams(Mirror):
    transport = "datagram"


def act(link: FakeLink, node: int, effect: str, *arguments: Any) -> None:
    """Make a replica record one effect, as a handler would."""
    replica = link.replica(node)
    getattr(replica, effect)(*arguments)
    effects, replica.effects = replica.effects, []
    link._carry_out(node, effects)


def test_a_transcript_tells_the_story_and_is_the_same_every_time() -> None:
    def story() -> str:
        link = FakeLink(Mirror, nodes=2)
        link.wait(link.request(0, "write", "x", "a"))
        link.cut([[0], [1]], mode="drop")
        link.request(0, "write", "x", "b")
        link.run_for(1_000)
        link.heal()
        link.request(1, "read", "x")
        return link.transcript()

    assert story() == story()
    assert story() == (
        "    0.000ms 0 becomes leader\n"
        "    0.000ms client -> 0 #1 write(x='a')\n"
        "    0.350ms 0 -> 1 Store(id=1, key='x', value='a')\n"
        "    0.600ms 1 -> 0 Stored(id=1)\n"
        "    0.600ms 0 -> client #1 ok\n"
        "    0.600ms cut 0 | 1\n"
        "    0.600ms client -> 0 #2 write(x='b')\n"
        "    0.700ms 0 -x 1 Store(id=2, key='x', value='b') cut\n"
        "    1.600ms heal\n"
        "    1.600ms client -> 1 #3 read(x)\n"
        "    1.600ms 1 -> client #3 ok\n"
    )


def test_what_follows_a_synced_record_waits_for_the_disk_and_dies_with_the_process() -> None:
    link = FakeLink(Mirror, nodes=2, sync_us=5_000)
    write = link.request(0, "write", "x", "a")
    link.run_for(4_999)
    assert link.versions == [] and link.replica(1).seen == []
    link.crash(0)
    link.run_for(100_000)
    assert link.versions == [] and link.replica(1).seen == [("disconnected", 0)]
    assert link.replies[write].outcome == "info"
    assert link.journal(0) == [("x", "a")], "a process crash keeps what was written"


def test_concurrent_syncs_share_one_flush() -> None:
    link = FakeLink(Mirror, nodes=2, sync_us=1_000)
    first = link.request(0, "write", "x", "a")
    link.run_for(100)
    later = [link.request(0, "write", "x", value) for value in "bcd"]
    assert link.wait(first).at == 1_500
    assert [link.wait(each).at for each in later] == [2_500] * 3


def test_a_host_crash_keeps_what_was_synced_and_only_that() -> None:
    link = FakeLink(Mirror, nodes=2, sync_us=1_000)
    link.wait(link.request(0, "write", "x", "a"))
    link.request(0, "write", "x", "b")
    link.crash(0, host=True)
    link.run_for(60_000_000)
    assert link.replica(1).seen == ["a"], "a crashed host shows only as silence"
    link.restart(0)
    assert link.values("x") == ["a", None]
    link.run_for(1_000)
    assert link.replica(1).seen == ["a", ("disconnected", 0)], "the old connection ends when the host is back"


@pytest.mark.parametrize(
    ("policy", "mode", "arrives"), [(Mirror, None, True), (Datagrams, None, False), (Mirror, "drop", False), (Datagrams, "hold", True)]
)
def test_a_cut_holds_or_drops_what_is_sent_into_it(policy: type[Mirror], mode: Any, arrives: bool) -> None:
    link = FakeLink(policy, nodes=3)
    link.cut([[0]], mode=mode)
    write = link.request(0, "write", "x", "a")
    link.run_for(10_000_000)
    assert write not in link.replies
    link.heal()
    link.run_for(1_000)
    assert (write in link.replies) == arrives


@pytest.mark.parametrize(("mode", "arrives"), [("hold", True), ("drop", False)])
def test_a_cut_meets_what_is_in_flight(mode: Any, arrives: bool) -> None:
    link = FakeLink(Mirror, nodes=2, sync_us=0)
    link.request(0, "write", "x", "a")
    link.run_for(100)
    link.cut([[0], [1]], mode=mode)
    link.run_for(1_000)
    assert link.replica(1).seen == []
    link.heal()
    link.run_for(1_000)
    assert link.replica(1).seen == (["a"] if arrives else [])


def test_a_one_way_cut_stops_one_direction() -> None:
    link = FakeLink(Mirror, nodes=2)
    link.cut_one_way(1, 0)
    write = link.request(0, "write", "x", "a")
    link.run_for(10_000)
    assert link.replica(1).seen == ["a"] and write not in link.replies


def test_closing_loses_both_directions_and_sending_dials_again() -> None:
    link = FakeLink(Mirror, nodes=2)
    link.cut([[0], [1]])
    act(link, 0, "send", 1, Stored(7))
    act(link, 1, "send", 0, Answer("lost too"))
    act(link, 0, "close", 1)
    link.run_for(1_000)
    assert link.replica(1).seen == [], "in a cut the peer does not learn of it"
    link.heal()
    link.run_for(1_000)
    assert link.replica(1).seen == [("disconnected", 0)]
    write = link.request(0, "write", "x", "a")
    assert link.wait(write).at == link.now
    assert link.replica(1).seen == [("disconnected", 0), ("connected", 0), "a"]
    assert link.replica(0).seen == [("connected", 1)]
    assert link.log.count("    1.000ms 0 -x 1 Stored(id=7) closed") == 0  # it arrives nowhere before heal
    assert "    1.250ms 0 -x 1 Stored(id=7) closed" in link.log


def test_a_dial_in_a_cut_waits_for_heal_and_what_was_queued_follows_it() -> None:
    link = FakeLink(Mirror, nodes=2)
    act(link, 0, "close", 1)
    link.cut([[0], [1]])
    write = link.request(0, "write", "x", "a")
    link.run_for(5_000_000)
    assert write not in link.replies and link.replica(1).seen == []
    link.heal()
    assert link.wait(write).outcome == "ok"


def test_a_dial_is_refused_where_no_process_listens_and_unanswered_where_the_host_is_down() -> None:
    for host, seen in ((False, [("disconnected", 1)] * 2), (True, [])):
        link = FakeLink(Mirror, nodes=2)
        link.crash(1, host=host)
        link.run_for(1_000)
        write = link.request(0, "write", "x", "a")
        link.run_for(10_000_000)
        assert link.replica(0).seen == seen, "the reset of the old connection, then the refusal of a new one"
        link.restart(1)
        link.run_for(10_000)
        assert write not in link.replies, "what was sent to the old process is lost, on either kind of crash"


def test_a_restarted_process_has_its_journal_no_timers_and_no_connections() -> None:
    link = FakeLink(Mirror, nodes=2)
    link.wait(link.request(0, "write", "x", "a"))
    act(link, 0, "set_timer", "alarm", 1_000)
    link.crash(0)
    refused = link.request(0, "write", "x", "b")
    assert link.replies[refused].outcome == "fail"
    link.restart(0)
    link.run_for(10_000)
    assert link.replica(0).seen == []
    assert link.wait(link.request(0, "read", "x")).result == "a"
    assert link.wait(link.request(0, "write", "x", "c")).outcome == "ok", "it dials its peer"


def test_timers_fire_once_at_their_time_and_can_be_replaced_and_cancelled() -> None:
    link = FakeLink(Mirror, nodes=1)
    link.skew(0, 70)
    act(link, 0, "set_timer", ("retry", 1), 500)
    act(link, 0, "set_timer", ("retry", 1), 900)
    act(link, 0, "set_timer", "gone", 100)
    act(link, 0, "cancel_timer", "gone")
    link.run(5_000)
    assert link.replica(0).seen == [(("retry", 1), 970)], "on the node's own, skewed clock"
    assert link.now == 5_000


def test_order_is_kept_on_tcp_and_not_on_datagrams() -> None:
    def arrivals(policy: type[Mirror]) -> list[Any]:
        class Uneven(FakeLink):
            def latency(self, src: int, dst: int, message: Any) -> int:
                return 900 if message.value == "slow" else 100

        link = Uneven(policy, nodes=2)
        act(link, 0, "send", 1, Answer("slow"))
        act(link, 0, "send", 1, Answer("fast"))
        link.run_for(10_000)
        seen: list[Any] = link.replica(1).seen
        return seen

    assert arrivals(Mirror) == ["slow", "fast"]
    assert arrivals(Datagrams) == ["fast", "slow"]


def test_the_history_holds_what_clients_asked_and_got() -> None:
    link = FakeLink(Mirror, nodes=2)
    link.wait(link.request(0, "write", "x", "a"))
    link.cut([[0], [1]])
    link.request(1, "write", "x", "b", session=1)
    link.run_for(1_000)
    link.request(0, "read", "x")
    history = link.history()
    assert [(each.process, each.node, each.type, each.invoke, each.complete, each.result) for each in history] == [
        (0, 0, "ok", 0, 600, None),
        (3, 1, "info", 600, None, None),
        (0, 0, "ok", 1_600, 1_600, "a"),
    ]


def test_a_policy_that_breaks_the_contract_is_told_so() -> None:
    link = FakeLink(Mirror, nodes=2)
    write = link.request(0, "write", "x", "a")
    link.wait(write)
    with pytest.raises(ContractError, match="twice"):
        act(link, 0, "reply", write, "ok")
    with pytest.raises(ContractError, match="not asked"):
        act(link, 1, "reply", write, "ok")
    with pytest.raises(ContractError, match="does not survive"):
        act(link, 0, "send", 1, Answer(("a", "tuple")))
    with pytest.raises(ContractError, match="MESSAGES"):
        act(link, 0, "send", 1, Message())


@pytest.mark.parametrize("bad", [{"nodes": 0}, {"nodes": 2, "latency_us": 0}, {"nodes": 2, "sync_us": -1}])
def test_bad_input_is_named(bad: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=list(bad)[-1]):
        FakeLink(Mirror, **bad)
