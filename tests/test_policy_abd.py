"""The majority register, its sources' sentences, and what its writers may do that the papers' do not: several things at once, and a restart."""

from __future__ import annotations

from capray.faults import Fault
from capray.metrics import measure
from capray.policies.abd.replica import Abd
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


def test_through_cuts_and_crashes_nothing_acknowledged_is_lost_or_read_out_of_order() -> None:
    faults = (Fault(at_us=2 * S, for_us=2 * S, shape="ring"), Fault(kind="crash-host", nodes=(0, 1, 2), at_us=5 * S, for_us=S))
    for seed in range(3):
        row = measure(simulate(Scenario(policy="abd", nodes=5, faults=faults, duration_us=8 * S, workload=Workload(rate=40, keys=2)).resolved(), seed))
        assert (row["linearizable"], row["lost_writes"], row["conflicts"], row["divergence_final"]) == ("valid", 0, 0, 0)
