"""PostgreSQL's rules of timelines and replication on which no other test failed when they were broken: what a walsender refuses, whose log is taken over, what
pg_rewind keeps, when a standby asks for an answer."""

from __future__ import annotations

from typing import Any

import pytest
from test_policy_postgres import S, ask

from capray.policies.driver import Update
from capray.policies.postgres.replica import PRIMARY, STANDBY, Postgres, PostgresSettings
from capray.policies.postgres.wal import Entry, Flushed, Keepalive, Log, Poll, StartReplication, Status, Wal
from capray.replica import SEND, VERSION
from capray.streams import Stream
from capray.testing import FakeLink


def server(node: int, **settings: Any) -> Postgres:
    """One server by hand: node 0 is the primary, node 1 its standby."""
    replica = Postgres(node, 2, PostgresSettings(standby=1, **settings), Stream(0, "replica", node))
    replica.on_start()
    replica.effects.clear()
    return replica


def taken(replica: Postgres, kind: type) -> list[Any]:
    """What it has sent of this kind since it was last asked."""
    found = [effect[2] for effect in replica.effects if effect[0] == SEND and isinstance(effect[2], kind)]
    replica.effects.clear()
    return found


def log_of(*timelines: int) -> list[Entry]:
    return [(timeline, "x", f"{timeline}.{i}") for i, timeline in enumerate(timelines, 1)]


@pytest.mark.parametrize(("timeline", "lsn", "sent"), [(2, 4, []), (2, 2, [3, 4]), (1, 2, [3, 4]), (1, 3, None), (2, 5, None), (3, 2, None)])
def test_a_walsender_starts_only_within_its_own_history(timeline: int, lsn: int, sent: list[int] | None) -> None:
    """walsender.c, StartReplication: "requested starting point %X/%X on timeline %u is not in this server's history", "This server's history forked from timeline
    %u at %X/%X"; "requested starting point %X/%X is ahead of the WAL flush position of this server"."""
    primary = server(0)
    primary.log.entries, primary.log.timeline, primary.log.forks = log_of(1, 1, 2, 2), 2, ((2, 2),)
    primary.flushed = 4
    primary.on_message(1, StartReplication(timeline, lsn))
    found = taken(primary, Wal)
    assert [list(range(wal.first, wal.first + len(wal.records))) for wal in found] == ([] if sent is None else [sent])
    assert primary.streaming == (sent is not None)


def test_a_standby_sends_no_wal() -> None:
    """The policy has one standby: cascading replication (27.2.7) is not there."""
    standby = server(1)
    standby.on_message(0, StartReplication(1, 0))
    assert not taken(standby, Wal) and not standby.streaming


def test_a_standby_takes_over_no_log_of_an_older_timeline_and_a_primary_none_at_all() -> None:
    """27.2.4: recovery_target_timeline is latest, "to make the standby server follow the timeline change"; xlogrecovery.c:
    "new timeline %u is not a child of database system timeline %u"."""
    standby = server(1)
    standby.on_message(0, Wal(2, 1, log_of(1, 2), ((2, 1),)))
    assert standby.log.timeline == 2 and standby.log.lsn == 2
    standby.on_message(0, Wal(1, 3, log_of(1), ()))
    assert standby.log.lsn == 2
    standby.on_message(0, Wal(2, 3, log_of(2), ((2, 1),)))
    assert standby.log.lsn == 3
    primary = server(0)
    primary.on_message(1, Wal(2, 1, log_of(2), ((2, 0),)))
    assert primary.log.lsn == 0 and primary.state == PRIMARY


@pytest.mark.parametrize(("timeline", "kept"), [(1, 3), (2, 5), (3, 6)])
def test_a_rewind_keeps_what_both_logs_share(timeline: int, kept: int) -> None:
    """pg_rewind: up to where the source's timeline history forked off from the target's: by the forks after the target's own timeline."""
    log = Log()
    log.entries, log.timeline = [(1, f"k{i}", i) for i in range(1, 9)], timeline
    for lsn in range(1, 9):
        log.show(lsn)
    dropped = log.rewind(4, ((2, 3), (3, 5), (4, 6)), 8)
    assert log.lsn == kept and [(key, value, order) for key, value, order in dropped] == [(f"k{i}", i, (1, i)) for i in range(kept + 1, 9)]
    assert sorted(log.rows) == [f"k{i}" for i in range(1, kept + 1)]


def test_what_was_never_visible_is_not_told_as_dropped() -> None:
    """A record that the record of versions never heard of: logged, and waiting for the standby."""
    log = Log()
    log.entries = [(1, "x", "a"), (1, "x", "b"), (1, "y", "c")]
    log.show(1)
    assert log.rewind(2, ((2, 0),), 0) == [("x", "a", (1, 1))]


def test_a_commit_that_the_standby_had_is_shown_when_its_primary_follows_and_one_that_it_had_not_is_dropped() -> None:
    """27.2.8: what waits for its standby is committed already on the primary's own disk, and where the standby has it, in the history that both share."""
    primary = server(0, synchronous=True, rejoin="rewind")
    for number, key in enumerate("xy", 1):
        primary.on_message(0, Update(number, key, f"value of {key}"))
        primary.on_message(0, Flushed(1, number))
    assert sorted(primary.commits) == [1, 2]
    primary.effects.clear()
    primary.on_message(1, Poll(True, 2, ((2, 1),)))
    assert [effect[1:4] for effect in primary.effects if effect[0] == VERSION] == [("x", "value of x", (1, 1))]
    assert primary.state == STANDBY and primary.log.lsn == 1 and primary.peek("x") == "value of x"


def test_a_promoted_server_that_a_standby_has_joined_is_not_alone_after_a_restart() -> None:
    """27.3: after failover "the former primary" may be rebuilt as a standby: who has one waits for it again, also as a process of its own."""
    link = FakeLink(Postgres, 3, PostgresSettings(standby=1, promote_at_us=2 * S, rejoin="rewind"))
    link.run_for(S)
    ask(link, 0, "write", value="a")
    link.run_for(30 * S)
    assert link.roles[1] == "primary" or link.roles[1] == "leader"
    assert not link.replica(1).alone and [record for record in link.journal(1) if record[0] == "joined"]
    link.crash(1)
    link.restart(1)
    assert not link.replica(1).alone


def test_a_standby_asks_for_an_answer_after_half_of_its_time_out_and_not_before() -> None:
    """walreceiver.c: "If we haven't heard anything from the server for more than wal_receiver_timeout / 2, ping the server." """
    standby = server(1)
    standby.streaming = standby.asking = True
    for silence, asks in ((10, False), (29, False), (30, True)):
        standby.now = silence * S
        standby.on_timer("receiver")
        assert [status.reply for status in taken(standby, Status)] == [asks]
    standby.on_message(0, Keepalive(False))
    standby.on_timer("receiver")
    assert [status.reply for status in taken(standby, Status)] == [False]


@pytest.mark.parametrize(("promotion", "forks", "polls"), [("manual", (), 0), ("manual", ((2, 0),), 1), ("automatic", (), 1)])
def test_managers_look_at_the_other_server_where_there_is_something_to_manage(promotion: Any, forks: Any, polls: int) -> None:
    """repmgr's daemon monitors where failover is automatic; without one nothing is asked, until a promotion has left two histories."""
    primary = server(0, promotion=promotion)
    primary.log.forks, primary.streaming = forks, True
    primary.on_timer("monitor")
    assert len(taken(primary, Poll)) == polls
