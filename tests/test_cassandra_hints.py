"""Hinted handoff: when hints reach files, when files are sent, and what becomes of one that is not acknowledged."""

from __future__ import annotations

from typing import Any

from capray.policies.cassandra.hints import PAGE_BYTES, Hints
from capray.policies.cassandra.messages import HintMessage
from capray.policies.cassandra.settings import CassandraSettings

S = 1_000_000


class Node:
    """A replica as far as its hints service sees it: effects are kept, time is set by hand."""

    def __init__(self, **settings: Any) -> None:
        self.now = 0
        self.nodes = 3
        self.settings = CassandraSettings(**settings)
        self.sent: list[HintMessage] = []
        self.timers: dict[Any, int] = {}
        self.journal: list[Any] = []
        self.alive = [True, True, True]
        self.down = 0
        self.hints = Hints(self, self.alive, lambda peer: self.down, 0, 5 * S)

    def send(self, dst: int, message: Any) -> None:
        self.sent.append(message)

    def set_timer(self, name: Any, delay_us: int) -> None:
        self.timers[name] = self.now + delay_us

    def cancel_timer(self, name: Any) -> None:
        self.timers.pop(name, None)

    def persist(self, record: Any, sync: bool = True) -> None:
        self.journal.append(record)

    def until(self, at: int) -> None:
        """Fire what is due, in order."""
        fire = {"hints-flush": lambda _: self.hints.flush(), "hints-dispatch": lambda _: self.hints.trigger()}
        while self.timers and min(self.timers.values()) <= at:
            name = min(self.timers, key=lambda n: (self.timers[n], str(n)))
            self.now = self.timers.pop(name)
            if isinstance(name, str):
                fire[name](None)
            else:
                self.hints.page_due(name[1])
        self.now = at

    def acknowledge(self, count: int | None = None) -> None:
        messages = self.sent[:count]
        del self.sent[:count]
        for message in messages:
            self.hints.acknowledged(1, message.page, message.index)

    def write(self, count: int = 1) -> None:
        for i in range(count):
            self.hints.write(1, f"k{i}", (self.now + i, "v", 0))


def test_a_hint_waits_for_the_flush_then_for_the_trigger_that_closes_its_file_then_for_the_one_that_sends_it() -> None:
    node = Node()
    node.now = 1 * S
    node.write()
    assert node.timers == {"hints-flush": 10 * S}
    node.until(14_999_999)
    assert not node.sent and [r[0] for r in node.journal] == ["hint"]
    node.until(15 * S)  # the trigger closes the file
    assert not node.sent and node.journal[-1] == ("hints-closed",)
    node.until(25 * S)
    assert [m.key for m in node.sent] == ["k0"]
    node.acknowledge()
    assert node.journal[-1][0] == "hints-sent" and not node.hints.stores[1].files
    node.until(60 * S)
    assert not node.sent and not node.timers


def test_a_page_that_is_not_acknowledged_within_the_write_timeout_is_sent_again_at_the_next_trigger() -> None:
    node = Node()
    node.write()
    node.until(26_999_999)
    assert len(node.sent) == 1 and node.hints.stores[1].dispatch is not None
    node.until(27 * S)
    assert node.hints.stores[1].dispatch is None
    late = node.sent.pop()
    node.hints.acknowledged(1, late.page, late.index)  # too late: the dispatch is over
    assert node.hints.stores[1].files
    node.until(35 * S)
    assert len(node.sent) == 1
    node.acknowledge()
    assert not node.hints.stores[1].files


def test_a_partially_sent_file_goes_on_from_the_page_that_failed() -> None:
    node = Node(hinted_handoff_throttle_bytes=0)
    page = PAGE_BYTES // HintMessage.size
    node.write(page + 3)
    node.until(25 * S)
    assert len(node.sent) == page
    node.acknowledge()
    assert [m.index for m in node.sent] == [page, page + 1, page + 2]
    node.until(30 * S)
    node.sent.clear()
    node.until(35 * S)
    assert [m.index for m in node.sent] == [page, page + 1, page + 2]


def test_nothing_is_sent_to_a_peer_that_is_down() -> None:
    node = Node()
    node.write()
    node.alive[1] = False
    node.until(100 * S)
    assert not node.sent and "hints-dispatch" in node.timers
    node.alive[1] = True
    node.until(106 * S)
    assert not node.sent  # this trigger closed the file
    node.until(116 * S)
    assert len(node.sent) == 1


def test_the_throttle_is_shared_out_over_the_other_nodes() -> None:
    """64 KiB pages at 64 KiB/s over two other nodes: two seconds a page."""
    node = Node(hinted_handoff_throttle_bytes=65_536)
    page = PAGE_BYTES // HintMessage.size
    node.write(2 * page)
    node.until(25 * S)
    node.acknowledge()
    assert not node.sent
    node.until(26_900_000)
    assert not node.sent
    node.until(27_100_000)
    assert len(node.sent) == page


def test_the_window_counts_from_conviction_and_from_the_opening_of_the_oldest_file_kept() -> None:
    """HintsStore.findOldestHintTimestamp: the timestamp of the first file to send, else of the one being written, which is when it was opened; what is in
    the buffer has none."""
    node = Node(max_hint_window_us=100 * S)
    assert node.hints.should_hint(1)
    node.down = 101 * S
    assert not node.hints.should_hint(1)
    node.down = 0
    node.alive[1] = False
    node.write()  # flushed at 10 s
    node.until(110 * S)
    assert node.hints.should_hint(1)
    node.until(110 * S + 1)
    assert not node.hints.should_hint(1)
    again = Node(max_hint_window_us=100 * S)
    again.hints.recover(node.journal)
    for now, allowed in ((110 * S, True), (110 * S + 1, False)):
        again.now = now
        assert again.hints.should_hint(1) == allowed
    node.settings = CassandraSettings(max_hint_window_us=100 * S, hint_window_persistent=False)
    assert node.hints.should_hint(1)


def test_the_file_under_way_does_not_count_in_the_window_until_it_is_given_up() -> None:
    """HintsDispatchExecutor polls a file from the store's queue, and offers it first again where its dispatch failed."""
    node = Node(max_hint_window_us=14 * S)
    node.write()
    node.until(25 * S)  # flushed at 10 s, closed at 15 s, sent at 25 s
    assert node.sent and node.hints.should_hint(1)
    node.until(28 * S)
    assert not node.hints.should_hint(1)


def test_files_come_back_from_the_journal_without_those_that_were_sent() -> None:
    node = Node()
    node.write()
    node.until(25 * S)
    node.acknowledge()
    node.write(2)
    node.until(35 * S)
    again = Node()
    again.now = 36 * S
    again.hints.recover(node.journal)
    assert [len(hints) for _, hints in again.hints.stores[1].files] == [2]
    again.until(45 * S)
    assert len(again.sent) == 2
