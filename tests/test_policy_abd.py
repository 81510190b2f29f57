"""The majority register, its sources' sentences, and what its writers may do that the papers' do not: several things at once, and a restart."""

from __future__ import annotations

import pytest

from capray.faults import Fault
from capray.metrics import measure
from capray.policies.abd.replica import Abd
from capray.policies.abd.settings import AbdSettings
from capray.scenario import Scenario
from capray.testing import FakeLink
from capray.trial import simulate
from capray.workload import Workload

S = 1_000_000


def test_two_writes_under_way_at_one_node_get_two_tags() -> None:
    """Lynch and Shvartsman 1997: tags are unique, by number and writer; their writer does one thing at a time."""
    link = FakeLink(Abd, 3)
    first, second = link.request(0, "write", "x", "a"), link.request(0, "write", "x", "b", session=1)
    assert [link.wait(each).outcome for each in (first, second)] == ["ok", "ok"]
    assert len({version.order for version in link.versions}) == 2
    assert link.wait(link.request(1, "read", "x")).result == "b"


def test_a_write_is_on_its_own_disk_before_it_is_sent_so_that_no_restart_gives_its_tag_again() -> None:
    """Guerraoui and Levy 2004: a writer that crashes must log before it sends, or it may write two values under one tag."""
    link = FakeLink(Abd, 3, sync_us=5_000)
    link.request(0, "write", "x", "a")
    link.run_for(2_000)
    link.crash(0, host=True)
    link.run_for(50_000)
    assert link.values("x") == [None, None, None], "not on the disk of its writer, and nowhere else"


def test_operations_go_on_while_a_majority_is_not_faulty_and_remains_connected() -> None:
    """ABD 1995: registers are emulated as long as a majority of the processors is not faulty and stays connected: with two of five down and
    one cut off nothing is answered, neither wrongly nor at all, until one is back."""
    link = FakeLink(Abd, 5)
    link.crash(3, host=True)
    link.crash(4, host=True)
    assert link.wait(link.request(0, "write", "x", "a")).outcome == "ok" and link.wait(link.request(1, "read", "x")).result == "a"
    link.cut([[2]])
    waiting = [link.request(0, "write", "x", "b"), link.request(1, "read", "x"), link.request(2, "read", "x")]
    link.run_for(60 * S)
    assert not set(waiting) & set(link.replies)
    link.heal()
    assert [link.wait(each).outcome for each in waiting] == ["ok"] * 3


@pytest.mark.parametrize(("f", "trips"), [("write", 4), ("read", 4)])
def test_each_operation_is_two_rounds_to_a_majority_whoever_is_slow(f: str, trips: int) -> None:
    """ABD 1995: a processor sends to all and waits for a majority to answer, twice; Lynch and Shvartsman 1997: query phase, propagation phase.  Four
    delays for a read (of a value on disk) and for a write, which is logged here and there: two syncs."""

    class Slow(FakeLink):
        def latency(self, src: int, dst: int, message: object) -> int:
            return 100_000 if {src, dst} & {3, 4} else 250

    link = Slow(Abd, 5)
    link.wait(link.request(0, "write", "x", "a"))
    link.run_for(S)
    begun = link.now
    assert link.wait(link.request(1, f, "x", "b" if f == "write" else None)).at - begun == trips * 250 + (200 if f == "write" else 0)


@pytest.mark.parametrize(("write_back", "then"), [(True, "new"), (False, "old")])
def test_a_read_writes_back_so_that_no_later_read_returns_an_older_value(write_back: bool, then: str) -> None:
    """ABD 1995, of the reader: it sends the largest label and its value to all, and waits for a majority to acknowledge it, before it returns: else a
    write that has reached one replica only is seen, and then not seen any more."""
    link = FakeLink(Abd, 5, AbdSettings(write_back=write_back))
    link.wait(link.request(0, "write", "x", "old"))
    link.run_for(S)
    write = link.request(0, "write", "x", "new")
    link.run_for(700)  # its first round is over
    link.cut([[0, 1], [2, 3, 4]], mode="drop")  # one replica beside the writer's own will have it
    link.run_for(10_000)
    assert write not in link.replies and link.values("x") == ["new", "new", "old", "old", "old"]
    link.crash(0, host=True)
    link.heal()
    link.cut([[1, 2, 3], [4]], mode="drop")
    assert link.wait(link.request(1, "read", "x")).result == "new"
    link.heal()
    link.cut([[2, 3, 4], [1]], mode="drop")
    assert [link.wait(link.request(node, "read", "x")).result for node in (2, 3, 4)] == [then] * 3


def test_a_write_asks_a_majority_for_the_largest_tag_and_breaks_ties_by_its_own_name() -> None:
    """Lynch and Shvartsman 1997: a writer queries for the largest tag (t, _), and propagates its value with (t + 1, its id)."""
    link = FakeLink(Abd, 3)
    link.cut([[2], [0, 1]], mode="drop")
    link.wait(link.request(0, "write", "x", "a"))
    link.heal()
    link.wait(link.request(2, "write", "x", "b"))  # whose own replica has never heard of a
    both = [link.request(node, "write", "x", f"by {node}") for node in (0, 1)]
    assert [link.wait(each).outcome for each in both] == ["ok"] * 2
    link.run_for(S)
    assert {version.value: version.order for version in link.versions} == {"a": (1, 0), "b": (2, 2), "by 0": (3, 0), "by 1": (3, 1)}
    assert link.values("x") == ["by 1"] * 3


@pytest.mark.parametrize(("nodes", "majority"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3)])
def test_a_majority_is_more_than_half_of_any_number_of_nodes_and_of_one_it_is_that_one(nodes: int, majority: int) -> None:
    """ABD 1995: majorities, since any two of them intersect.  An operation that is over is forgotten."""
    assert Abd.needs(nodes, None) == (majority, majority)
    link = FakeLink(Abd, nodes)
    for node in range(majority, nodes):
        link.crash(node, host=True)
    assert link.wait(link.request(0, "write", "x", "a")).outcome == "ok" and link.wait(link.request(0, "read", "x")).result == "a"
    link.run_for(S)
    assert not link.replica(0).running


def test_a_node_that_comes_back_tells_the_record_what_it_holds() -> None:
    """Guerraoui and Levy 2004: what was stored is there again after a crash; the record of versions hears of it once more."""
    link = FakeLink(Abd, 3)
    link.wait(link.request(0, "write", "x", "a"))
    link.run_for(S)
    link.crash(1, host=True)
    link.versions.clear()
    link.restart(1)
    assert [(version.node, version.key, version.value, version.order) for version in link.versions] == [(1, "x", "a", (1, 0))]


def test_through_cuts_and_crashes_nothing_acknowledged_is_lost_or_read_out_of_order() -> None:
    """ABD 1995: an atomic register, wherever majorities are; Guerraoui and Levy 2004: and whoever crashes comes back with what it stored."""
    faults = (Fault(at_us=2 * S, for_us=2 * S, shape="ring"), Fault(kind="crash-host", nodes=(0, 1, 2), at_us=5 * S, for_us=S))
    for seed in range(3):
        row = measure(simulate(Scenario(policy="abd", nodes=5, faults=faults, duration_us=8 * S, workload=Workload(rate=40, keys=2)).resolved(), seed))
        assert (row["linearizable"], row["lost_writes"], row["conflicts"], row["divergence_final"]) == ("valid", 0, 0, 0)
