"""One node told as stories: timers, disk, crashes, pauses, slowness, clocks, and its client's deadline.

The replica is a probe that does what its requests and messages say, and writes down what it sees and when (by its own clock).
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Any

import pytest

from capray.distributions import AnyDistribution, Constant
from capray.network import CONNECTED, DELIVERY, DISCONNECTED, FAULT, REFUSED
from capray.node import Node
from capray.replica import Message, Replica, Request
from capray.scenario import Scenario
from capray.wire import Wire
from capray.workload import Workload

MS, S = 1_000, 1_000_000


class Do(Message, frozen=True):
    """Effects to record, each (method, arguments...)."""

    effects: tuple[tuple[Any, ...], ...]


class Note(Message, frozen=True):
    """Something to send."""

    text: str


class Probe(Replica):
    """Does what it is told."""

    name = "probe"
    MESSAGES = (Do, Note)

    def __init__(self, node: int, nodes: int, settings: Any, stream: Any) -> None:
        super().__init__(node, nodes, settings, stream)
        self.seen: list[tuple[Any, ...]] = []
        self.draw = stream.bits()

    def do(self, effects: Any) -> None:
        for effect in effects:
            getattr(self, effect[0])(*effect[1:])

    def on_start(self) -> None:
        self.seen.append((self.now, "start"))

    def on_restart(self, journal: list[Any]) -> None:
        self.seen.append((self.now, "restart", journal))

    def on_request(self, request: Request) -> None:
        self.seen.append((self.now, request.f, request.id))
        if isinstance(request.value, tuple):
            self.do(request.value)
        elif request.key == "answer":
            self.reply(request.id, "ok", "here")

    def on_message(self, src: int, message: Any) -> None:
        self.seen.append((self.now, "message", message if isinstance(message, str) else src))
        if isinstance(message, Do):
            self.do(message.effects)

    def on_timer(self, name: Any) -> None:
        self.seen.append((self.now, name))

    def on_connected(self, peer: int) -> None:
        self.seen.append((self.now, "connected", peer))

    def on_disconnected(self, peer: int) -> None:
        self.seen.append((self.now, "disconnected", peer))


DISK = Constant(2 * MS)


class Story(Wire):
    """A node of three, with a wire that only writes down."""

    def __init__(self, disk: AnyDistribution = DISK, transport: str = "tcp", **fields: Any) -> None:
        from capray.links import Link

        workload = fields.pop("workload", Workload(rate=0, keys=1))
        scenario = Scenario(policy=f"{__name__}:Probe", nodes=3, disk=disk, duration_us=1000 * S, workload=workload,
                            link=Link(transport=transport), **fields)  # type: ignore[arg-type]
        self.queue: list[Any] = []
        self.sent: list[tuple[int, int, Any]] = []
        self.node = Node(scenario.resolved(), 0, 1, self.queue, self)
        self.counter = 0
        self.requests: list[int] = []

    # the wire
    def carry(self, t: int, src: int, counter: int, dsts: tuple[int, ...], body: Any, kind: int, size: int) -> None:
        self.sent += [(t, dst, body) for dst in dsts]

    def post(self, t: int, src: int, counter: int, dst: int, body: Any, kind: int, size: int) -> None:
        self.sent.append((t, dst, body))

    def connect(self, t: int, src: int, dst: int) -> None:
        self.sent.append((t, dst, "dial"))

    def close(self, t: int, src: int, dst: int) -> None:
        self.sent.append((t, dst, "close"))

    def role(self, t: int, node: int, name: str) -> None:
        self.sent.append((t, node, name))

    # the story
    def message(self, at: int, *effects: tuple[Any, ...], body: Any = None, src: int = 1) -> None:
        self.counter += 1
        heappush(self.queue, (at, 0, DELIVERY, src, self.counter, Do(effects) if body is None else body, 0, at, 100))

    def notice(self, at: int, kind: int, epoch: int, src: int = 1) -> None:
        self.counter += 1
        heappush(self.queue, (at, 0, DELIVERY, src, self.counter, epoch, kind, at, 0))

    def fault(self, at: int, what: str, index: int = 0, factor: int = 1, service_us: int = 0, offset_us: int = 0) -> None:
        self.counter += 1
        heappush(self.queue, (at, 0, FAULT, -1, self.counter, what, index, factor, service_us, offset_us))

    def ask(self, at: int, f: str, key: str, value: Any = None) -> int:
        self.run(at)
        self.requests.append(self.node.call(at, f, key, value))
        return self.requests[-1]

    def run(self, until: int) -> list[tuple[Any, ...]]:
        while self.queue and self.queue[0][0] <= until:
            self.node.handle(heappop(self.queue))
        return self.seen()

    def seen(self) -> list[tuple[Any, ...]]:
        return [what for what in self.node.replica.seen if what[1] != "start"]  # type: ignore[attr-defined]

    def outcomes(self) -> list[tuple[str, int | None, str | None]]:
        return [(o.type, o.complete, o.error) for o in self.node.client.history]


# ---- timers ---------------------------------------------------------------------------------------------------------------------------
def test_timers_run_out_and_setting_one_again_replaces_it_and_cancelling_forgets_it() -> None:
    story = Story()
    story.message(S, ("set_timer", "a", 10), ("set_timer", ("b", 2), 20), ("set_timer", "c", 30), ("set_timer", "a", 40), ("cancel_timer", "c"),
                  ("cancel_timer", "never set"))
    assert story.run(2 * S) == [(S, "message", 1), (S + 20, ("b", 2)), (S + 40, "a")]
    assert story.node.timers == {}


def test_a_timer_in_the_past_runs_out_now_and_time_does_not_run_backwards() -> None:
    story = Story()
    story.message(S, ("set_timer", "late", -5 * S))
    assert story.run(2 * S)[-1] == (S, "late")


def test_at_one_instant_messages_come_before_timers_and_timers_before_requests() -> None:
    story = Story(workload=Workload(rate=1, arrivals="even", keys=1, read_share=1))  # node 0's first request: S / 3
    due = S // 3
    story.message(100, ("set_timer", "timer", due - 100))
    story.message(due, body="message")
    assert [what[1] for what in story.run(due)][1:] == ["message", "timer", "read"]


def test_a_message_to_itself_is_a_local_event_at_the_same_instant() -> None:
    story = Story()
    story.message(S, ("send", 0, Note("to myself")), ("send", 2, Note("away")), ("send_all", (1, 2), Note("to all")))
    assert story.run(S) == [(S, "message", 1), (S, "message", 0)]
    assert story.sent == [(S, 2, Note("away")), (S, 1, Note("to all")), (S, 2, Note("to all"))]


# ---- disk -----------------------------------------------------------------------------------------------------------------------------
def sends(story: Story) -> list[tuple[int, str]]:
    return [(at, body.text) for at, _, body in story.sent if isinstance(body, Note)]


def test_effects_after_a_synced_persist_leave_when_it_is_complete() -> None:
    story = Story()
    story.message(S, ("send", 1, Note("before")), ("persist", "r1"), ("send", 1, Note("after")), ("persist", "r2"), ("send", 1, Note("after both")))
    story.run(2 * S)
    assert sends(story) == [(S, "before"), (S + 2 * MS, "after"), (S + 4 * MS, "after both")]


def test_what_need_not_be_synced_waits_for_nothing() -> None:
    story = Story()
    story.message(S, ("persist", "r", False), ("send", 1, Note("at once")))
    story.run(2 * S)
    assert sends(story) == [(S, "at once")] and (story.node.disk.journal, story.node.disk.synced) == (["r"], 0)


def test_syncs_that_come_while_one_is_under_way_share_the_next() -> None:
    story = Story()
    for i in range(5):
        story.message(S + i * 100, ("persist", i), ("send", 1, Note(str(i))))
    story.message(S + 3 * MS, ("persist", 5), ("send", 1, Note("5")))
    story.run(2 * S)
    assert sends(story) == [(S + 2 * MS, "0"), *((S + 4 * MS, str(i)) for i in (1, 2, 3, 4)), (S + 6 * MS, "5")]


def test_a_memory_disk_makes_nothing_wait() -> None:
    story = Story(disk=Constant(0))
    story.message(S, ("persist", "r"), ("send", 1, Note("now")))
    story.run(2 * S)
    assert sends(story) == [(S, "now")] and story.node.disk.synced == 1


# ---- crashes --------------------------------------------------------------------------------------------------------------------------
def crashed(how: str) -> Story:
    story = Story()
    story.message(S, ("persist", "synced"), ("send", 1, Note("synced")))
    story.message(S + 3 * MS, ("persist", "under way"), ("send", 1, Note("never sent")), ("set_timer", "never", 1))
    story.message(S + 3 * MS, ("persist", "written", False), ("set_timer", "gone", 10 * S))
    story.fault(S + 4 * MS, how)
    story.message(S + 5 * MS, body="to nobody")
    story.fault(2 * S, "end-" + how)
    story.run(60 * S)
    return story


def test_a_process_crash_keeps_what_was_written() -> None:
    story = crashed("crash-process")
    assert story.seen() == [(2 * S, "restart", ["synced", "under way", "written"])]
    assert sends(story) == [(S + 2 * MS, "synced")] and story.node.touched == {0: {"processes": 1, "unsynced": 0}} and story.node.ignored == {"crashed": 1}


def test_a_host_crash_loses_what_was_not_synced() -> None:
    story = crashed("crash-host")
    assert story.seen() == [(2 * S, "restart", ["synced"])]
    assert sends(story) == [(S + 2 * MS, "synced")] and story.node.touched == {0: {"processes": 1, "unsynced": 2}}


@pytest.mark.parametrize(("how", "said"), [("crash-process", []), ("crash-host", [(2 * S, 0, "", None)])])
def test_a_machine_whose_crash_took_records_tells_the_record_that_its_replica_holds_nothing_yet(how: str, said: list[Any]) -> None:
    assert [(v.at, v.node, v.key, v.value) for v in crashed(how).node.versions] == said


def test_a_synced_record_takes_all_before_it_along() -> None:
    story = Story()
    story.message(S, ("persist", "a", False), ("persist", "b"))
    story.fault(S + 2 * MS + 1, "crash-host")
    story.fault(2 * S, "end-crash-host")
    assert story.run(3 * S) == [(2 * S, "restart", ["a", "b"])]


def test_a_sync_that_is_complete_while_its_process_is_paused_survives_the_host() -> None:
    story = Story()
    story.message(S, ("persist", "r"), ("send", 1, Note("waits for the process")))
    story.fault(S + 1, "pause", 0)
    story.fault(S + 5 * MS, "crash-host", 1)
    story.fault(2 * S, "end-crash-host", 1)
    assert story.run(3 * S) == [(2 * S, "restart", ["r"])] and sends(story) == []


def test_a_restarted_replica_goes_on_with_its_stream() -> None:
    story = Story()
    first = story.node.replica.draw  # type: ignore[attr-defined]
    story.fault(S, "crash-process")
    story.fault(2 * S, "end-crash-process")
    story.run(3 * S)
    assert story.node.replica.draw != first  # type: ignore[attr-defined]


def test_two_crashes_at_once_end_with_the_first_restart() -> None:
    story = Story()
    for at, what, index in ((S, "crash-process", 0), (2 * S, "crash-host", 1), (3 * S, "end-crash-process", 0), (4 * S, "end-crash-host", 1)):
        story.fault(at, what, index)
    assert story.run(5 * S) == [(3 * S, "restart", [])] and story.node.touched[1] == {"processes": 0, "unsynced": 0}


def test_a_crash_at_time_zero_comes_before_the_boot() -> None:
    story = Story()
    story.fault(0, "crash-process")
    story.run(S)
    assert story.node.replica.seen == []  # type: ignore[attr-defined]
    story.fault(2 * S, "end-crash-process")
    assert story.run(3 * S) == [(2 * S, "restart", [])]


# ---- connections, as the node sees them -----------------------------------------------------------------------------------------------
def test_after_close_nothing_arrives_until_a_new_connection_stands() -> None:
    story = Story()
    story.message(S, ("close", 1))
    story.message(2 * S, body="in flight when it closed")
    story.notice(3 * S, CONNECTED, 1)
    story.message(4 * S, body="on the new one")
    assert story.run(5 * S) == [(S, "message", 1), (3 * S, "connected", 1), (4 * S, "message", "on the new one")]
    assert story.node.ignored == {"closed": 1} and story.sent == [(S, 1, "close")]


def test_a_new_connection_tells_that_the_old_one_was_half_open() -> None:
    story = Story()
    story.notice(S, CONNECTED, 1)
    assert story.run(2 * S) == [(S, "disconnected", 1), (S, "connected", 1)]


def test_the_end_of_an_older_connection_is_no_news() -> None:
    story = Story()
    story.notice(S, DISCONNECTED, 0)
    story.notice(2 * S, DISCONNECTED, 0)
    story.notice(3 * S, CONNECTED, 1)
    story.notice(4 * S, DISCONNECTED, 0)
    story.notice(5 * S, DISCONNECTED, 1)
    story.notice(6 * S, REFUSED, 1)
    assert [(at // S, what) for at, what, _ in story.run(9 * S)] == [(1, "disconnected"), (3, "connected"), (5, "disconnected"), (6, "disconnected")]


def test_datagrams_know_no_connections_also_after_a_crash() -> None:
    story = Story(transport="datagram")
    story.message(S, ("close", 1))
    story.fault(2 * S, "crash-process")
    story.fault(3 * S, "end-crash-process")
    story.message(4 * S, body="heard")
    assert story.run(5 * S)[-1] == (4 * S, "message", "heard")


# ---- pause, slow, skew ----------------------------------------------------------------------------------------------------------------
def test_a_pause_keeps_everything_and_its_order() -> None:
    story = Story()
    story.message(S, ("set_timer", "timer", 1500 * MS))
    story.fault(2 * S, "pause")
    story.message(2 * S + 1, body="m1")
    request = story.ask(3 * S, "read", "answer")
    story.message(3 * S + 1, body="m2")
    story.fault(3 * S + 500 * MS, "end-pause")
    resumed = 3 * S + 500 * MS
    assert story.run(4 * S)[1:] == [(resumed, "message", "m1"), (resumed, "timer"), (resumed, "read", request), (resumed, "message", "m2")]
    assert story.node.touched == {0: {"held": 4}} and story.outcomes() == [("ok", resumed, None)]


def test_of_two_pauses_the_last_to_end_resumes_and_each_counts_what_it_held() -> None:
    story = Story()
    for at, what, index in ((S, "pause", 0), (2 * S, "pause", 1), (3 * S, "end-pause", 0), (5 * S, "end-pause", 1)):
        story.fault(at, what, index)
    for second in (1, 2, 4):
        story.message(second * S + 1, body=str(second))
    assert [(at, what) for at, _, what in story.run(9 * S)] == [(5 * S, "1"), (5 * S, "2"), (5 * S, "4")]
    assert story.node.touched == {0: {"held": 1}, 1: {"held": 2}}


def test_a_pause_from_before_a_restart_does_not_end_one_after_it() -> None:
    story = Story()
    for at, what, index in ((S, "pause", 0), (2 * S, "crash-process", 1), (3 * S, "end-crash-process", 1), (4 * S, "pause", 2), (5 * S, "end-pause", 0),
                            (7 * S, "end-pause", 2)):
        story.fault(at, what, index)
    story.notice(3 * S + 1, CONNECTED, 1)
    story.message(6 * S, body="m")
    assert story.run(9 * S) == [(3 * S, "restart", []), (3 * S + 1, "connected", 1), (7 * S, "message", "m")]


def test_service_takes_turns() -> None:
    story = Story(service_us=500)
    for i in range(3):
        story.message(S + i, body=str(i))
    request = story.ask(S + 2, "read", "answer")
    assert story.run(2 * S) == [(S + 500, "message", "0"), (S + 1000, "message", "1"), (S + 1500, "message", "2"), (S + 2000, "read", request)]


def test_a_crash_ends_the_service_under_way() -> None:
    story = Story(service_us=S)
    for i in range(3):
        story.message(S + i, body=str(i))
    story.fault(S + 10, "crash-process")
    story.fault(2 * S, "end-crash-process")
    story.notice(2 * S + 1, CONNECTED, 1)
    story.message(2 * S + 2, body="m")
    assert story.run(9 * S) == [(2 * S, "restart", []), (3 * S + 1, "connected", 1), (4 * S + 1, "message", "m")]


def test_a_slow_node_stretches_service_and_sync() -> None:
    story = Story(service_us=100)
    story.fault(S, "slow", factor=10)
    story.message(S, ("persist", "r"), ("send", 1, Note("slow")))
    story.fault(2 * S, "end-slow")
    story.message(3 * S, ("persist", "r"), ("send", 1, Note("fast")))
    story.run(4 * S)
    assert sends(story) == [(S + 1000 + 20 * MS, "slow"), (3 * S + 100 + 2 * MS, "fast")] and story.node.touched == {0: {"slowed": 2}}


def test_nothing_overtakes_what_a_slow_node_still_serves_when_it_is_fast_again() -> None:
    story = Story()
    story.fault(S, "slow", service_us=S)
    for i in range(3):
        story.message(S + i, body=str(i))
    story.fault(2 * S, "end-slow")
    story.message(2 * S + 1, body="3")
    story.message(6 * S, body="4")
    assert [(at, what) for at, _, what in story.run(9 * S)] == [(2 * S, "0"), (2 * S, "1"), (2 * S, "2"), (2 * S + 1, "3"), (6 * S, "4")]


def test_what_waits_for_a_slow_node_goes_on_at_the_pace_that_the_node_has() -> None:
    """Three messages at 100 us each meet a node that is a hundred times slower from 50 us on, until the first is served."""
    story = Story(service_us=100)
    for i in range(3):
        story.message(S, body=str(i))
    story.fault(S + 50, "slow", factor=100)
    story.fault(S + 50 + 10 * MS, "end-slow")
    assert [at for at, _, _ in story.run(2 * S)] == [S + 50 + 10 * MS + i * 100 for i in (1, 2, 3)]


def test_slow_without_anything_to_slow_touched_nothing() -> None:
    story = Story()
    story.fault(S, "slow", factor=10)
    story.run(2 * S)
    assert story.node.touched == {0: {"slowed": 0}}


def test_a_skewed_clock_jumps_and_jumps_back() -> None:
    story = Story()
    story.fault(S, "skew", offset_us=-300)
    story.message(2 * S, ("set_timer", "t", 100))
    story.fault(3 * S, "skew", index=1, offset_us=1000)
    story.message(4 * S, body="both")
    story.fault(5 * S, "end-skew")
    story.message(6 * S, body="one")
    assert [at for at, *_ in story.run(9 * S)] == [2 * S - 300, 2 * S - 200, 4 * S + 700, 6 * S + 1000]


def test_a_drifting_clock_shortens_timers_and_shows_its_own_time() -> None:
    story = Story(clock_offset_us=(5, 0, 0), clock_drift_ppm=(250_000, 0, 0))  # a quarter faster
    story.message(4 * S, ("set_timer", "t", S))
    assert story.run(9 * S) == [(5 * S + 5, "message", 1), (6 * S + 5, "t")]


# ---- the client -----------------------------------------------------------------------------------------------------------------------
def test_at_the_deadline_a_write_is_unknown_and_a_read_failed_and_a_later_answer_is_only_counted() -> None:
    story = Story()
    write = story.ask(S, "write", "x", "v")
    read = story.ask(S + 10, "read", "x")
    story.message(3 * S, ("reply", write, "ok"), ("reply", read, "ok", "v"))
    story.run(4 * S)
    assert story.outcomes() == [("info", None, "timeout"), ("fail", 2 * S + 10, "timeout")] and story.node.client.late_answers == 2


def test_an_answer_at_the_very_deadline_counts() -> None:
    story = Story()
    write = story.ask(S, "write", "x", "v")
    story.message(2 * S, ("reply", write, "ok"))
    story.run(4 * S)
    assert story.outcomes() == [("ok", 2 * S, None)]


def test_a_process_whose_write_is_unknown_is_not_used_again() -> None:
    story = Story()
    story.ask(S, "write", "x", "lost")
    story.ask(3 * S, "read", "answer")
    story.ask(4 * S, "read", "answer")
    story.run(9 * S)
    assert [o.process for o in story.node.client.history] == [0, 3, 3]


def test_the_connection_to_a_dead_process_is_refused_which_is_a_sure_fail() -> None:
    story = Story()
    story.fault(S, "crash-process")
    story.ask(2 * S, "write", "x", "v")
    assert story.outcomes() == [("fail", 2 * S, "connection refused")]


@pytest.mark.parametrize("how, error", [("crash-process", "connection reset"), ("crash-host", "host down")])
def test_a_crash_ends_the_operations_under_way_with_unknown_outcome(how: str, error: str) -> None:
    story = Story()
    story.ask(S, "write", "x", "v")
    story.ask(S, "read", "x")
    story.fault(S + 5, how)
    story.run(9 * S)
    assert story.outcomes() == [("info", None, error), ("fail", S + 5, error)]


def test_a_client_outside_notices_a_dead_host_by_its_deadline_only() -> None:
    story = Story(workload=Workload(rate=0, keys=1, client_placement="outside"))
    story.ask(S, "write", "x", "v")
    story.fault(S + 5, "crash-host")
    story.ask(2 * S - 1, "write", "x", "w")
    story.run(9 * S)
    assert story.outcomes() == [("info", None, "timeout"), ("info", None, "timeout")]


def test_a_request_that_was_given_up_while_the_node_was_paused_is_not_asked_any_more() -> None:
    story = Story()
    story.fault(S, "pause")
    story.ask(S + 1, "read", "answer")
    story.fault(5 * S, "end-pause")
    assert story.run(9 * S) == [] and story.outcomes() == [("fail", 2 * S + 1, "timeout")]


def test_versions_and_roles_go_to_the_record_and_to_the_network() -> None:
    story = Story()
    story.message(S, ("role", "leader"), ("applied", "k", 7, (1, 2), (5,)), ("applied", "k", 6, (1, 1), (), True), ("discarded", "k", 6, (1, 1)))
    story.run(2 * S)
    assert story.sent == [(S, 0, "leader")]
    assert [(v.at, v.value, v.kind, v.superseded) for v in story.node.versions] == [(S, 7, "apply", (5,)), (S, 6, "late", ()), (S, 6, "discard", ())]


def test_a_timer_on_a_drifting_clock_never_fires_before_that_clock_says_so() -> None:
    from capray.clock import shown, true_delay

    for ppm in (-900, -1, 1, 200, 499_999):
        for t in (0, 1, 999, 9_499_000, 10**12 + 7):
            for delay in (0, 1, 2, 999, 100_000, 7_000_003):
                true = true_delay(t, delay, ppm)
                assert shown(t + true, 17, ppm) - shown(t, 17, ppm) >= delay
                assert true == 0 or shown(t + true - 1, 17, ppm) - shown(t, 17, ppm) < delay
