"""The interactive cluster: what a person at a REPL does and sees."""

from __future__ import annotations

import pytest

from capray.cluster import Cluster
from capray.errors import InputError
from capray.faults import Fault
from capray.links import Link
from capray.policies import POLICIES, load


def test_a_write_is_answered_and_everybody_has_it_soon() -> None:
    cluster = Cluster("abd", nodes=3)
    written = cluster.write(0, "x", "hello")
    assert (written.type, written.node, written.invoke) == ("ok", 0, 0) and written.complete is not None and 0 < written.complete <= cluster.now
    cluster.advance("10ms")
    assert cluster.data("x") == {0: "hello", 1: "hello", 2: "hello"}
    assert cluster.read(2, "x").result == "hello" and cluster.read(2, "never").result is None


def test_time_moves_only_when_it_is_told_to() -> None:
    cluster = Cluster("abd", nodes=3)
    assert cluster.now == 0
    assert cluster.advance("1.5s").now == 1_500_000 == cluster.advance(0).now
    cluster.partition("halves")
    cluster.crash(2)
    assert cluster.now == 1_500_000


def test_the_minority_of_a_majority_register_waits_for_its_deadline_in_vain() -> None:
    cluster = Cluster("abd", deadline="300ms")
    cluster.write(0, "x", 1)
    cluster.partition("0,1|2,3,4")
    start = cluster.now
    assert cluster.write(0, "x", 2).type == "info" and 300_000 <= cluster.now - start <= 301_000
    assert cluster.read(1, "x").type == "fail" and cluster.write(4, "x", 3).type == "ok"
    cluster.heal().advance("10s")
    assert cluster.read(0, "x").type == "ok"
    assert [o.type for o in cluster.history] == ["ok", "info", "fail", "ok", "ok"]


def test_a_write_before_a_leader_is_elected_takes_as_long_as_it_takes() -> None:
    cluster = Cluster("zookeeper", nodes=3, deadline="30s")
    assert cluster.write(0, "x", 1).type == "ok" and cluster.now > 0
    assert list(cluster.roles.values()).count("leader") == 1 and "leading: " in repr(cluster)


def test_settings_are_the_policies_own() -> None:
    with Cluster("cassandra", nodes=5, replication_factor=5, read_consistency="ONE", write_consistency="ONE") as cluster:
        cluster.partition("0,1|2,3,4")
        assert cluster.write(0, "x", 1).type == cluster.write(4, "x", 2).type == "ok"
        cluster.advance("50ms")
        assert cluster.data("x") == {0: 1, 1: 1, 2: 2, 3: 2, 4: 2}
        cluster.heal().advance("60s")
        assert set(cluster.data("x").values()) == {2}


def test_crash_and_restart() -> None:
    cluster = Cluster("abd", nodes=3)
    cluster.write(0, "x", 1)
    cluster.advance("1s").crash(2)
    assert cluster.data("x") == {0: 1, 1: 1, 2: None}
    assert cluster.write(2, "x", 2).error == "connection refused" and cluster.write(0, "x", 3).type == "ok"
    cluster.restart(2).advance("1s")
    assert cluster.data("x") == {0: 3, 1: 3, 2: 1}  # from its journal; nothing tells it of what it missed
    assert cluster.read(2, "x").result == 3
    cluster.crash(2, host=True)
    assert "host down 2" in repr(cluster) and cluster.read(2, "x").error == "host down"


def test_pause_and_resume() -> None:
    cluster = Cluster("abd", nodes=3, deadline="1s")
    cluster.pause(1)
    assert cluster.read(1, "x").type == "fail" and cluster.write(0, "x", 1).type == "ok"
    assert cluster.data("x")[1] is None  # its message waits
    cluster.resume(1).advance("1ms")
    assert cluster.data("x")[1] == 1


def test_cuts_add_up_until_heal() -> None:
    cluster = Cluster("abd", nodes=5)
    cluster.partition("0|1,2,3,4").partition("0,1|2,3,4")
    assert repr(cluster) == "<Cluster abd, 5 nodes, at 0us; cut 0|1,2,3,4 since 0us; cut 0,1|2,3,4 since 0us; nothing asked yet>"
    assert cluster.read(1, "x").type == "fail" and cluster.read(2, "x").type == "ok"
    cluster.heal().advance("10s")
    assert cluster.read(1, "x").type == "ok"
    assert [(window.at, window.until is None) for window in cluster.record().faults] == [(0, False), (0, False)]
    assert repr(cluster).endswith("2 ok, 1 fail>")


def test_heal_ends_a_flapping_cut_also_while_it_is_whole() -> None:
    cluster = Cluster("abd", nodes=3)
    cluster.partition("flapping").advance("3s")  # whole from 2 s to 4 s
    cluster.heal().advance("2s")
    assert cluster.read(1, "x").type == "ok"


def test_any_other_fault_by_its_number() -> None:
    cluster = Cluster("abd", nodes=3)
    number = cluster.begin(Fault(kind="slow", nodes=(0,), service_us=20_000, at_us=99, for_us=5))
    slow = cluster.read(0, "x")
    assert slow.complete is not None and slow.complete - slow.invoke > 60_000
    cluster.end(number)
    with pytest.raises(InputError, match="fault: 0 is not accepted; it takes the number of a fault under way: there is none"):
        cluster.end(number)


def test_a_record_can_be_taken_at_any_time_and_again() -> None:
    cluster = Cluster("abd", nodes=3)
    cluster.crash(1)
    cluster.write(0, "x", 1)
    first = cluster.record()
    assert first.digest() == cluster.record().digest() and first.end == cluster.now and first.placement["x"] == (0, 1, 2)
    cluster.advance("1s")
    assert cluster.record().history == first.history and first.faults[0].touched == cluster.record().faults[0].touched


def test_the_same_calls_leave_the_same_record() -> None:
    def story(seed: int) -> str:
        cluster = Cluster("abd", seed=seed)
        for i in range(5):
            cluster.write(i, "x", i + 1)
        cluster.partition("ring").read(0, "x")
        cluster.crash(3).advance("2s")
        return cluster.record().digest()

    assert story(1) == story(1) != story(2)


@pytest.mark.parametrize("policy", list(POLICIES))
def test_every_policy_can_be_played_with(policy: str) -> None:
    try:
        load(policy)
    except InputError:
        pytest.skip("not there yet")
    cluster = Cluster(policy, nodes=3, deadline="30s")
    assert cluster.write(1, "x", 7).type == "ok"
    cluster.advance("1s")
    assert cluster.read(1, "x").result == 7 and 7 in cluster.data("x").values()


def test_a_link_of_ones_own() -> None:
    cluster = Cluster("abd", nodes=3, link=Link(floor_us=50_000))
    assert (cluster.write(0, "x", 1).complete or 0) > 200_000


@pytest.mark.parametrize("call, says", [
    (lambda c: c.write(7, "x", 1), "node: 7 is not accepted; it takes a whole number from 0 to 2"),
    (lambda c: c.read(-1, "x"), "node: -1"),
    (lambda c: c.read("0", "x"), "node: '0'"),
    (lambda c: c.write(0, 5, 1), "key: 5 is not accepted; it takes a string"),
    (lambda c: c.write(0, "x", None), "value: None is not accepted"),
    (lambda c: c.partition("0|5"), "partition: '0|5'"),
    (lambda c: c.partition("thirds"), "partition: 'thirds'"),
    (lambda c: c.advance("later"), "advance: 'later'"),
    (lambda c: c.advance(-5), "advance: -5"),
    (lambda c: c.restart(0), "node: 0 is not accepted; it takes a crashed node"),
    (lambda c: c.resume(0), "node: 0 is not accepted; it takes a paused node"),
    (lambda c: c.crash(0).crash(0), "node: 0 is not accepted; it takes a node that is up"),
    (lambda c: c.pause(0).pause(0), "node: 0 is not accepted; it takes a node that is not paused"),
    (lambda c: c.crash(9), "node: 9"),
    (lambda c: c.begin(Fault(kind="slow")), "fault.nodes: []"),
    (lambda c: Cluster("nosql"), "policy: 'nosql'"),
    (lambda c: Cluster("abd", nodes=0), "nodes: 0"),
    (lambda c: Cluster("abd", link="string"), "link: 'string'"),
    (lambda c: Cluster("abd", engine="steam"), "engine: 'steam' is not accepted; it takes local or actors"),
    (lambda c: Cluster("abd", deadline="soon"), "deadline: 'soon'"),
    (lambda c: Cluster("cassandra", spice="hot"), "setting: 'spice'"),
    (lambda c: Cluster("abd", scenario={"colour": 1}), "scenario: 'colour'"),
    (lambda c: Cluster("abd", scenario={"nodes": 1}), "scenario: 'nodes'"),
])
def test_what_cannot_be_is_one_line(call: object, says: str) -> None:
    with pytest.raises(InputError) as error:
        call(Cluster("abd", nodes=3))  # type: ignore[operator]
    assert str(error.value).startswith(says) and "\n" not in str(error.value)
