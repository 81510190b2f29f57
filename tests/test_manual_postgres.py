"""The `postgres` policy, a sentence of PostgreSQL 15's manual a test: 20.5 and 20.6 (settings), 27.2 (log-shipping standby servers), 27.3 (failover), 27.4
(hot standby), 34.1 (libpq).  More of them, as longer stories, are in test_policy_postgres.py."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from test_policy_postgres import S, ask, lines

from capray.faults import Fault
from capray.policies.driver import READ_ONLY, Update
from capray.policies.postgres.replica import Postgres, PostgresSettings
from capray.scenario import Scenario
from capray.testing import FakeLink
from capray.trial import simulate
from capray.workload import Workload


def servers(sync_us: int, **settings: Any) -> FakeLink:
    """Primary on node 0, standby on node 1, clients on all, a second old; `sync_us`: of the disks."""
    link = FakeLink(Postgres, 3, PostgresSettings(standby=1, **settings), sync_us=sync_us)
    link.run_for(S)
    return link


# ---- 27.2.2, 27.2.5: standby server operation, streaming ------------------------------------------------------------------------------
def test_when_promoted_wal_immediately_available_is_restored_but_no_attempt_is_made_to_connect_to_the_primary() -> None:
    """27.2.2: "Before failover, any WAL immediately available in the archive or in pg_wal will be restored, but no attempt is made to connect to the
    primary": what has come is not on the disk yet when the promotion comes; what the primary writes afterwards is not asked for."""
    link = servers(5_000, promote_at_us=S + 7_000)
    ask(link, 0, "write", value="came")
    link.run_for(300)
    assert link.replica(1).log.entries and not link.replica(1).flushed
    link.request(0, "write", "x", "later")
    asked = len(lines(link, "1 -> 0 StartReplication"))
    link.run_for(20_000)
    assert link.roles[1] == "leader" and link.replica(1).log.entries == [(1, "x", "came")] and link.values("x")[1] == "came"
    assert len(lines(link, "1 -> 0 StartReplication")) == asked


def test_the_standby_streams_wal_records_as_they_are_generated() -> None:
    """27.2.5: "the primary ... streams WAL records to the standby as they're generated, without waiting for the WAL file to be filled.\""""
    link = servers(100)
    link.request(0, "write", "x", "a")
    link.run_for(100 + 250 + 100)
    assert link.values("x")[1] == "a"


def test_the_standby_reports_at_least_every_ten_seconds_though_nothing_is_written() -> None:
    """20.6.3, wal_receiver_status_interval: "the minimum frequency for the WAL receiver process on the standby to send information about replication progress
    to the primary"; "The default value is 10 seconds.\""""
    link = servers(100)
    link.run_for(60 * S)
    at = [float(line.split("ms")[0]) for line in lines(link, "1 -> 0 Status")]
    assert 7 <= len(at) <= 10 and max(later - before for before, later in pairwise(at)) <= 10_000.5


# ---- 27.2.8: synchronous replication -----------------------------------------------------------------------------------------------------
def test_by_default_transactions_that_were_committed_may_not_have_been_replicated() -> None:
    """27.2.8: "PostgreSQL streaming replication is asynchronous by default. If the primary server crashes then some transactions that were committed may not
    have been replicated to the standby server, causing data loss. The amount of data loss is proportional to the replication delay at the time of
    failover": here as many as were committed while the standby heard nothing."""
    for count in (2, 5):
        link = servers(100, promote_at_us=10 * S)
        ask(link, 0, "write", value="replicated")
        link.run_for(1_000)
        link.cut([[1]])
        assert [ask(link, 0, "write", value=i)[0] for i in range(count)] == ["ok"] * count
        link.crash(0, host=True)
        link.run(11 * S)
        assert link.roles[1] == "leader" and link.values("x")[1] == "replicated"


def test_the_minimum_wait_time_is_the_round_trip_between_primary_and_standby() -> None:
    """27.2.8."""
    took = []
    for synchronous in (False, True):
        link = servers(0, synchronous=synchronous)
        took.append(link.wait(link.request(0, "write", "x", "a")).at - S)
    assert took[1] - took[0] == 2 * 250


def test_read_only_transactions_need_not_wait_for_replies_from_standby_servers() -> None:
    """27.2.8."""
    link = servers(100, synchronous=True)
    link.cut([[1]])
    link.request(0, "write", "x", "a")
    link.run_for(10_000)
    assert link.wait(link.request(2, "read", "x")).at - link.now == 0 and lines(link, "2 -> client #2 ok")


@pytest.mark.parametrize(
    ("mode", "host", "kept"), [("remote_write", False, True), ("remote_write", True, False), ("on", True, True), ("remote_apply", True, True)]
)
def test_remote_write_could_lose_the_data_in_an_operating_system_crash_though_not_a_postgresql_crash(mode: Any, host: bool, kept: bool) -> None:
    """27.2.8.1, of remote_write: "a weaker guarantee of durability than on does: the standby could lose the data in the event of an operating system crash,
    though not a PostgreSQL crash.\""""
    link = servers(5_000, synchronous=True, synchronous_commit=mode)
    assert ask(link, 0, "write", value="a") == ("ok", None)
    link.cut([[0]])
    link.crash(1, host=host)
    link.run_for(20_000)
    link.restart(1)
    assert (link.values("x")[1] == "a") == kept


def test_remote_apply_makes_it_visible_to_queries_on_the_standby_before_it_is_answered() -> None:
    """20.5.1: "applied it, so that it has become visible to queries on the standby(s)"; 27.2.8.1: "In simple cases, this allows for load balancing with causal
    consistency.\""""
    link = servers(1_000, synchronous=True, synchronous_commit="remote_apply", standby_reads=True)
    for value in range(5):
        assert ask(link, 2, "write", value=value) == ("ok", None) and ask(link, 1, "read") == ("ok", value)


def test_local_waits_for_the_local_flush_and_not_for_replication() -> None:
    """20.5.1: "causes commits to wait for local flush to disk, but not for replication.\""""
    link = servers(5_000, synchronous=True, synchronous_commit="local")
    link.cut([[1]])
    assert link.wait(link.request(0, "write", "x", "a")).at - S == 5_000
    link.crash(0, host=True)
    link.restart(0)
    assert ask(link, 0, "read") == ("ok", "a")


def test_a_commit_may_never_be_completed_if_the_synchronous_standby_should_crash() -> None:
    """27.2.8.4: "Such transaction commits may never be completed if any one of the synchronous standbys should crash.\""""
    link = servers(100, synchronous=True, query_timeout_us=3_600 * S)
    link.crash(1, host=True)
    waits = link.request(0, "write", "x", "a")
    link.run_for(1_800 * S)
    assert waits not in link.replies and ask(link, 0, "read") == ("ok", None)


def test_a_standby_that_attaches_becomes_synchronous_once_it_has_caught_up() -> None:
    """27.2.8.4: "Once the lag between standby and primary reaches zero for the first time we move to real-time streaming state ... The standby is only able
    to become a synchronous standby once it has reached streaming state": commits of its absence are answered when it has them all."""
    link = servers(100, synchronous=True, query_timeout_us=60 * S)
    link.crash(1)
    waiting = [link.request(0, "write", key, key) for key in "abc"]
    link.run_for(5 * S)
    link.restart(1)
    done = {link.wait(each).at for each in waiting}
    assert len(done) == 1 and [link.values(key)[1] for key in "abc"] == ["a", "b", "c"]


# ---- 27.3: failover ------------------------------------------------------------------------------------------------------------------------
def test_if_the_standby_fails_then_no_failover_need_take_place_and_it_can_be_restarted_even_some_time_later() -> None:
    """27.3: "If the standby server fails then no failover need take place. If the standby server can be restarted, even some time later, then the recovery
    process can also be restarted immediately, taking advantage of restartable recovery.\""""
    link = servers(100, promotion="automatic")
    link.crash(1, host=True)
    for i in range(3):
        assert ask(link, 0, "write", value=i) == ("ok", None)
        link.run_for(100 * S)
    link.restart(1)
    link.run_for(S)
    assert (link.roles[0], link.roles[1]) == ("leader", "follower") and link.values("x")[1] == 2


# ---- 27.4: hot standby ---------------------------------------------------------------------------------------------------------------------
def test_all_connections_to_a_hot_standby_are_strictly_read_only() -> None:
    """27.4.1: "All such connections are strictly read-only"; libpq, which wants read-write (34.1.2), tries the next host, and there is none."""
    link = servers(100)
    link.crash(0)
    link.run_for(1_000)
    assert ask(link, 2, "write", value="a")[0] == ask(link, 2, "read")[0] == "fail" and lines(link, "1 -> 2 Ready(", "read_only=True")
    link.replica(2).send(1, Update(99, "x", "though asked"))
    ask(link, 2, "read")
    assert lines(link, "1 -> 2 Result(id=99, outcome='fail'", READ_ONLY) and link.values("x")[1] is None


def test_data_on_the_standby_is_eventually_consistent_with_the_primary() -> None:
    """27.4.1: "Running the same query nearly simultaneously on both primary and standby might therefore return differing results. We say that data on the
    standby is eventually consistent with the primary.\""""
    link = servers(1_000, standby_reads=True)
    ask(link, 0, "write", value="a")
    assert (ask(link, 0, "read")[1], ask(link, 1, "read")[1]) == ("a", None)
    link.run_for(10_000)
    assert ask(link, 1, "read")[1] == "a"


def test_sessions_remain_connected_while_the_server_changes_mode() -> None:
    """27.4.1: "If failover or switchover occurs, the database will switch to normal processing mode. Sessions will remain connected while the server changes
    mode.\""""
    link = servers(100, standby_reads=True, promote_at_us=2 * S)
    ask(link, 0, "write", value="a")
    link.crash(0)
    for _ in range(20):
        link.run_for(100_000)
        assert ask(link, 1, "read") == ("ok", "a")
    assert link.roles[1] == "leader" and ask(link, 1, "write", value="b") == ("ok", None)


# ---- 34.1: libpq ---------------------------------------------------------------------------------------------------------------------------
def test_hosts_are_tried_in_turn_until_a_connection_is_established() -> None:
    """34.1.1.3: "It is possible to specify multiple hosts to connect to, so that they are tried in the given order"; 34.1.2, target_session_attrs=read-write:
    "session must accept read-write transactions by default": the promoted standby is the second."""
    link = servers(100, promote_at_us=2 * S)
    link.crash(0)
    link.run_for(5 * S)
    assert ask(link, 2, "write", value="a") == ("ok", None) and lines(link, "2 -> 1 Startup")


def writers_of_one_row(seed: int) -> list[Any]:
    """Four writes of one row, 0.1 s apart, and no standby to confirm them: each is cancelled after a second.  What became visible, in order."""
    link = FakeLink(Postgres, 2, PostgresSettings(standby=1, synchronous=True), seed=seed)
    link.run_for(1 * S)
    link.cut([[0], [1]])
    for value in "abcd":
        link.request(0, "write", "x", value)
        link.run_for(100_000)
    link.run_for(2 * S)
    return [version.value for version in link.versions if version.node == 0]


def test_a_rows_writers_race_for_it_when_its_holder_ends() -> None:
    """README.tuplock and heapam.c: the first that waits has the tuple's lock, and the row next; those who find its new version wait for its writer, and wake
    together.  Where the last wins, the one before it is cancelled meanwhile."""
    assert {tuple(writers_of_one_row(seed)) for seed in range(12)} == {("a", "b", "c", "d"), ("a", "b", "d")}


@pytest.mark.parametrize(("rate", "committed"), [(1, 0.92), (3, 0.64), (10, 0.25)])
def test_of_writes_that_are_cancelled_in_their_wait_as_many_are_committed_as_on_a_real_server(rate: int, committed: float) -> None:
    """15.18 whose synchronous standby is away, `rate` writes a second of each of five keys, each cancelled after a second: of 129, 365 and 1,292 these shares
    (a queue would have committed nearly all)."""
    cut = Fault(kind="partition", shape="0|1", at_us=0, for_us=24 * S)
    asks = Workload(rate=5 * rate, read_share=0.0, keys=5, deadline_us=S)
    settings = {"standby": 1, "synchronous": True}
    story = Scenario(policy="postgres", nodes=2, settings=settings, workload=asks, disk="fsync-2ms", duration_us=24 * S, faults=(cut,))
    record = simulate(story.resolved(), 0)
    asked = {op.value for op in record.history if op.node == 0 and op.type == "info"}
    done = {version.value for version in record.versions or () if version.node == 0}
    assert abs(len(asked & done) / len(asked) - committed) <= 0.05
