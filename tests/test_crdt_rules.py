"""CRDTs' rules on which no other test failed when they were broken: nothing overtakes its own disk, what the record of versions is told, dots are never reused."""

from __future__ import annotations

import pytest
from test_policy_crdt import S, by_replication, by_type, cluster

from capray.policies.crdt import types
from capray.policies.crdt.replica import Crdt, CrdtSettings
from capray.testing import FakeLink


def at_us(line: str) -> int:
    return round(1000 * float(line.split("ms")[0]))


@by_type
@by_replication
def test_what_is_not_on_the_own_disk_is_neither_told_nor_acknowledged(type: str, replication: str) -> None:
    """SSS 2011, 2: a crashed process "may recover with its memory intact": what others have of it, or it of others, by its word, is on its disk first.  Were
    an update told before, its number would be given again after a power failure, and the second update taken for the first."""
    link = FakeLink(Crdt, 2, CrdtSettings(type=type, replication=replication), sync_us=700_000)  # type: ignore[arg-type]
    link.run_for(2 * S)
    begun, before = link.now, len(link.log)
    write = link.request(0, "write", "k", 7)
    link.run_for(650_000)
    assert link.values("k")[1] is None and write not in link.replies
    link.run_for(5 * S)
    told = [line for line in link.log[before:] if "0 -> 1" in line and "Acknowledge" not in line and ("'k'" in line or '"k"' in line)]
    acknowledged = [line for line in link.log[before:] if "1 -> 0 Acknowledge" in line]
    assert at_us(told[0]) - begun >= 700_000 and link.values("k")[1] == link.values("k")[0]
    if replication == "delta":
        assert at_us(acknowledged[0]) - at_us(told[0]) >= 700_000


@by_type
def test_a_node_that_comes_back_tells_the_record_what_it_holds(type: str) -> None:
    """The record of versions: what a crash left is applied once more, and nothing else."""
    link = cluster(type=type)
    for value in (3, 4):
        link.wait(link.request(0, "write", "k", value))
    before = {(version.value, version.order) for version in link.versions if version.node == 0}
    link.crash(0)
    link.versions.clear()
    link.restart(0)
    again = {(version.value, version.order) for version in link.versions if version.node == 0}
    assert again == (before if type in ("g-counter", "pn-counter", "or-set") else {max(before, key=lambda told: told[1])})


def test_an_element_that_is_added_again_was_never_removed() -> None:
    """RR-7506, specification 15: add(e) takes the place of earlier adds of e seen here; the set has e all the while."""
    link = cluster(type="or-set")
    for _ in range(2):
        link.wait(link.request(0, "write", "k", 7))
    assert [version.value for version in link.versions if version.node == 0] == [7, 7]
    link.wait(link.request(0, "remove", "k", 7))
    assert [version.value for version in link.versions if version.node == 0] == [7, 7, None]


@pytest.mark.parametrize(("context", "number"), [(((), ()), 1), ((((0, 2),), ()), 3), ((((0, 2),), ((0, 5),)), 6), (((), ((0, 4), (1, 9))), 5)])
def test_a_new_dot_is_above_all_that_were_seen_of_its_node(context: types.Context, number: int) -> None:
    """Almeida, Shoker and Baquero 2018, 7.4, next_i(c): one above "the maximum sequence number for pairs in c from replica i", also where there is a gap."""
    entry = types.or_add(((), context), 0, 0, "e")[0][0]
    assert entry[:2] == (0, number)


def test_a_g_counter_takes_zero_and_nothing_below() -> None:
    """RR-7506, specification 6: increments only."""
    link = cluster(type="g-counter")
    assert [link.wait(link.request(0, "write", "k", value)).outcome for value in (0, 1, -1)] == ["ok", "ok", "fail"]
