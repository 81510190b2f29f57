"""Write-all's corners, a sentence each: queues, wait-die, the refusal that binds, what is told again and what is forced to the log."""

from __future__ import annotations

from typing import Any

from capray.policies.write_all.replica import WriteAll, WriteAllSettings
from capray.policies.write_all.two_phase import Abort, Commit, Decision, End, Inquire, Prepare, Vote
from capray.replica import SEND, SET_TIMER
from capray.streams import Stream
from capray.testing import FakeLink

S = 1_000_000


def lines(link: FakeLink, *words: str) -> list[str]:
    return [line for line in link.log if all(word in line for word in words)]


def participant(node: int, nodes: int) -> WriteAll:
    """A replica alone: a test hands it messages, and looks at its effects."""
    return WriteAll(node, nodes, WriteAllSettings(), Stream(0, "node", node))


def sent(replica: WriteAll, kind: type) -> list[tuple[int, Any]]:
    """What it has sent of this kind so far: to whom, what."""
    return [(effect[1], effect[2]) for effect in replica.effects if effect[0] == SEND and type(effect[2]) is kind]


def prepare(coordinator: int, age: int, key: str = "x") -> Prepare:
    return Prepare((coordinator, 1, 1), (age, coordinator, 1), key, f"of {coordinator}")


def test_writes_of_one_node_wait_for_their_turn_at_home_and_each_commits() -> None:
    """A write waits for its key at home, where it still holds nothing: the next begins when the decision before it is logged."""
    link = FakeLink(WriteAll, nodes=3)
    writes = [link.request(0, "write", "x", value) for value in "abc"]
    link.run_for(10_000)
    assert [link.replies[each].outcome for each in writes] == ["ok"] * 3 and link.values("x") == ["c"] * 3


def test_of_those_who_wait_as_older_the_youngest_is_next() -> None:
    """Rosenkrantz, Stearns and Lewis 1978, WAIT-DIE: waiting only ever goes from older to younger.  Were the oldest next, the others would wait for an older."""
    replica = participant(2, 4)
    for coordinator, age in ((3, 30), (0, 0), (1, 10)):
        replica.on_message(coordinator, prepare(coordinator, age))
    assert [to for to, _ in sent(replica, Vote)] == [3]
    replica.on_message(3, Abort((3, 1, 1), "x"))
    assert [(to, vote.yes) for to, vote in sent(replica, Vote)] == [(3, True), (1, True)], "of the ages 0 and 10 the younger"
    replica.on_message(1, Commit((1, 1, 1), "x", 1))
    assert [to for to, _ in sent(replica, Vote)] == [3, 1, 0]


def test_who_has_refused_a_write_never_votes_for_it_not_even_where_it_was_waiting() -> None:
    """BHG 7.4: a process that is asked and has not voted can decide Abort by itself: it tells who asked, and the coordinator, which may still
    wait for its vote."""
    replica = participant(2, 4)
    replica.on_message(3, prepare(3, 30))
    replica.on_message(0, prepare(0, 0))  # older: it waits
    replica.on_message(1, Inquire((0, 1, 1), "x"))  # node 1 has voted on it, and asks
    assert sent(replica, Abort) == [(1, Abort((0, 1, 1), "x"))]
    assert sent(replica, Vote)[1:] == [(0, Vote((0, 1, 1), False, 0))]
    replica.on_message(3, Abort((3, 1, 1), "x"))
    assert not replica.in_doubt, "the key is free, and it is not voted on"
    replica.on_message(0, prepare(0, 0))  # also where its prepare only comes now
    assert not replica.in_doubt and not any(to == 0 and vote.yes for to, vote in sent(replica, Vote))


def test_a_refusal_ends_the_attempt_and_the_next_one_commits() -> None:
    """As above, on the wire: the coordinator is well, and its prepare late at one participant; another is in doubt for an interval, and asks around."""

    class Late(FakeLink):
        def latency(self, src: int, dst: int, message: object) -> int:
            return 300_000 if (src, dst) == (0, 2) and isinstance(message, Prepare) and message.tid[2] == 1 else 250

    link = Late(WriteAll, 3, WriteAllSettings(inquiry_interval_us=50_000))
    write = link.request(0, "write", "x", "a")
    link.run_for(60_000)
    assert lines(link, "2 -> 1 Abort") and lines(link, "2 -> 0 Vote", "yes=False")
    assert link.wait(write).outcome == "ok"
    committed = {record.tid[2] for node in range(3) for record in link.journal(node) if isinstance(record, (Decision, Commit))}
    assert len(committed) == 1 and committed != {1}, "of the attempts one, and not the refused one"


def test_a_prepare_that_comes_twice_is_voted_on_once() -> None:
    """Also where its write has been committed meanwhile: the lock is not taken again."""
    replica = participant(1, 2)
    replica.on_message(0, prepare(0, 0))
    replica.on_message(0, prepare(0, 0))
    replica.on_message(0, Commit((0, 1, 1), "x", 1))
    replica.on_message(0, prepare(0, 0))
    assert len(sent(replica, Vote)) == 1 and not replica.in_doubt and replica.rows["x"].holder is None


def test_a_participant_that_died_before_it_voted_is_asked_again_and_one_that_had_voted_is_not() -> None:
    """BHG 7.4: a vote is on disk before it is sent, so it survives its process; one that was not given yet is lost with the prepare."""
    link = FakeLink(WriteAll, nodes=3)
    write = link.request(0, "write", "x", "a")
    link.run_for(200)
    link.crash(2)  # the prepare is on its way to it
    link.run_for(1_000)
    link.restart(2)
    assert link.wait(write).outcome == "ok" and lines(link, "Commit(tid=(0, 1,")
    assert link.now < 100_000, "the dead participant's connection ended: nobody waited for a time-out"
    link = FakeLink(WriteAll, nodes=3)
    link.cut_one_way(2, 0)
    write = link.request(0, "write", "x", "a")
    link.run_for(1_000)
    link.crash(1)  # its vote is there
    link.run_for(1_000)
    link.restart(1)
    link.heal()
    assert link.wait(write).outcome == "ok" and not lines(link, "Prepare(tid=(0, 1, 2)"), "no second attempt"


def test_a_commit_is_told_again_to_who_has_not_confirmed_it_and_comes_back_and_to_nobody_else() -> None:
    """Mohan, Lindsay and Obermarck 1986: a commit is told again to the subordinates that have not acknowledged it."""
    link = FakeLink(WriteAll, nodes=3)
    write = link.request(0, "write", "x", "a")
    link.run_for(1_010)
    link.crash(2)  # has applied the commit, and is syncing it
    link.run_for(1_000)
    link.restart(2)
    link.request(2, "write", "y", "b")  # by which it dials
    assert link.wait(write).outcome == "ok"
    assert len(lines(link, "0 -> 2 Commit")) == 2 and len(lines(link, "0 -> 1 Commit")) == 1
    link = FakeLink(WriteAll, nodes=3)
    write = link.request(0, "write", "x", "a")
    link.run_for(980)
    link.cut_one_way(2, 0, mode="drop")
    link.run_for(3 * S)
    assert len(lines(link, "0 -> 2 Commit")) > 1 and len(lines(link, "0 -> 1 Commit")) == 1


def test_who_is_in_doubt_asks_a_coordinator_that_comes_back_at_once() -> None:
    """BHG 7.4: it asks when it can; a coordinator without a commit record answers abort."""
    link = FakeLink(WriteAll, nodes=3)
    link.wait(link.request(0, "write", "x", "a"))
    link.request(0, "write", "x", "b")
    link.run_for(590)
    link.crash(0)
    read = link.request(1, "read", "x")
    link.run_for(10_000)
    link.restart(0)
    link.request(0, "write", "y", "c")  # by which it dials
    assert link.wait(read).result == "a" and link.now < 20_000, "not an inquiry interval later"


def test_who_wakes_in_doubt_asks_again_each_interval() -> None:
    """Those that it asked first did not know either; one learns it, and cannot know who else waits."""
    link = FakeLink(WriteAll, nodes=3)
    link.request(0, "write", "x", "a")
    link.run_for(650)
    link.cut([[0], [1, 2]], mode="drop")
    link.run_for(1_000)
    link.crash(2)
    link.restart(2)
    link.run_for(S // 2)
    link.heal()
    link.cut_one_way(0, 2, mode="drop")
    link.cut_one_way(2, 0, mode="drop")
    link.run_for(2 * S)
    assert link.values("x") == ["a"] * 3 and lines(link, "1 -> 2 Commit")


def test_new_doubts_do_not_put_off_the_question() -> None:
    """Each inquiry interval, however many writes come meanwhile: one timer runs."""
    replica = participant(1, 3)
    for number, key in enumerate("abc"):
        replica.on_message(0, Prepare((0, number, 1), (number, 0, number), key, "v"))
    assert [effect[1] for effect in replica.effects if effect[0] == SET_TIMER] == ["tick"]


def test_a_coordinator_that_wakes_has_forgotten_what_all_have_confirmed() -> None:
    """Mohan, Lindsay and Obermarck 1986: with the last acknowledgement the coordinator writes an end record, and forgets."""
    link = FakeLink(WriteAll, nodes=2)
    link.wait(link.request(0, "write", "x", "a"))
    link.crash(0)
    link.restart(0)
    assert link.replica(0).transactions == {}
    link.run_for(3 * S)
    assert len(lines(link, "Commit(")) == 1


def test_neither_an_end_nor_an_abort_is_forced_to_the_log() -> None:
    """Mohan, Lindsay and Obermarck 1986, presumed abort: they are written, but not forced: what is lost with the host is told again, or presumed."""
    link = FakeLink(WriteAll, nodes=2)
    link.wait(link.request(0, "write", "x", "a"))
    link.run_for(50_000)
    assert type(link.journal(0)[-1]) is End
    link.cut_one_way(1, 0)
    link.request(0, "write", "x", "b")
    link.run_for(550_000)
    assert type(link.journal(1)[-1]) is Abort
    for node in (0, 1):
        link.crash(node, host=True)
    assert type(link.journal(0)[-1]) is Decision and type(link.journal(1)[-1]) is Prepare
