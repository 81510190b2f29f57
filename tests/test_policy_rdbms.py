"""The one-server database: each test a sentence of its sources (quoted), told over the fake link."""

from __future__ import annotations

from typing import Any

import pytest
from broken.rdbms import AnswersBeforeTheLog, ReadsUncommitted

from capray.errors import InputError
from capray.policies.rdbms import Rdbms, RdbmsSettings
from capray.testing import FakeLink


def database(nodes: int = 3, sync_us: int = 2_000, policy: type[Rdbms] = Rdbms, **settings: Any) -> FakeLink:
    return FakeLink(policy, nodes, RdbmsSettings(**settings), sync_us=sync_us)


def test_a_write_and_a_read_from_another_node_as_a_transcript() -> None:
    link = database()
    link.wait(link.request(1, "write", "x", "a"))
    link.wait(link.request(2, "read", "x"))
    assert link.transcript() == (
        "    0.000ms 0 becomes leader\n"
        "    0.000ms 1 becomes client\n"
        "    0.000ms 2 becomes client\n"
        "    0.000ms client -> 1 #1 write(x='a')\n"
        "    0.250ms 1 -> 0 Update(id=1, key='x', value='a')\n"
        "    2.250ms 0 -> 0 Flushed(lsn=1, src=1, id=1, key='x', value='a')\n"
        "    2.500ms 0 -> 1 Result(id=1, outcome='ok', value=None, error=None)\n"
        "    2.500ms 1 -> client #1 ok\n"
        "    2.500ms client -> 2 #2 read(x)\n"
        "    2.750ms 2 -> 0 Select(id=2, key='x')\n"
        "    3.000ms 0 -> 2 Result(id=2, outcome='ok', value='a', error=None)\n"
        "    3.000ms 2 -> client #2 ok 'a'\n"
    )


def test_only_the_server_holds_data_and_a_missing_key_reads_as_none() -> None:
    link = database(server=2)
    assert link.wait(link.request(0, "read", "x")).result is None
    link.wait(link.request(0, "write", "x", "a"))
    assert link.values("x") == [None, None, "a"]
    assert Rdbms.placement("x", 3, link.settings) == (2,)
    assert link.roles[2] == "leader"


def test_a_record_is_on_disk_before_its_write_is_seen_or_answered() -> None:
    """Gray and Reuter, ch. 10, force-log-at-commit: the log is durable before the transaction is declared committed."""
    link = database()
    write = link.request(0, "write", "x", "a")
    link.run_for(1_999)
    assert link.wait(link.request(0, "read", "x")).result is None and write not in link.replies
    link.crash(0, host=True)
    link.restart(0)
    assert link.wait(link.request(0, "read", "x")).result is None


def test_row_level_locks_do_not_affect_data_querying_they_block_only_writers_to_the_same_row() -> None:
    """PostgreSQL manual 13.3.2: "Row-level locks do not affect data querying; they block only writers and lockers to the same row"; 13.2.1: a SELECT "never
    sees ... uncommitted data.\""""
    link = database(sync_us=50_000)
    link.wait(link.request(0, "write", "x", "old"))
    locked, same, other = (link.request(0, "write", key, "new") for key in "xxy")
    assert link.wait(link.request(1, "read", "x")).result == "old" and locked not in link.replies
    at = [link.wait(each).at for each in (locked, same, other)]
    assert at[0] < at[2] < at[1], "the same row's is logged once the lock is free, the other one's at once"


def test_the_log_alone_needs_to_be_flushed_and_what_it_holds_is_redone() -> None:
    """PostgreSQL manual 30.3 (WAL): "in the event of a crash we will be able to recover the database using the log: any changes that have not been applied to
    the data pages can be redone from the log records": nothing else is on the disk."""
    link = database()
    for value in range(3):
        link.wait(link.request(1, "write", "x", value))
    assert [tuple(record) for record in link.journal(0)] == [(1, "x", 0), (2, "x", 1), (3, "x", 2)]
    link.crash(0, host=True)
    link.restart(0)
    assert link.values("x")[0] == 2


def test_a_client_that_loses_its_connection_cannot_know_whether_its_commit_happened() -> None:
    """Gray and Reuter, 10.4: what a restart finds in the log is committed, answered or not; so the client is told `info`, whether the server died before
    its record was on the disk (2.25 ms after it was asked) or after, with only the answer lost."""
    for answer_lost_at, kept in ((1_000, None), (2_240, "a")):
        link = database()
        write = link.request(1, "write", "x", "a")
        link.run_for(answer_lost_at)
        link.cut([[0]], mode="drop")
        link.run_for(20)
        link.crash(0, host=True)
        assert link.wait(write).outcome == "info"
        link.heal()
        link.restart(0)
        link.run_for(3_000_000)
        assert link.wait(link.request(1, "read", "x")).result == kept


def test_concurrent_commits_share_a_flush_and_one_row_is_written_by_one_at_a_time() -> None:
    """PostgreSQL manual 13.3.2: "FOR UPDATE ... prevents them from being locked, modified or deleted by other transactions until the
    current transaction ends"; 30.5: "commit_delay": group commit."""
    link = database()
    writes = [link.request(0, "write", key, key + str(i)) for i, key in enumerate("xyx")]
    assert [link.wait(each).at for each in writes] == [2_000, 4_000, 6_000]
    assert [(each.value, each.order, each.superseded) for each in link.versions] == [("x0", (1,), ()), ("y1", (2,), ()), ("x2", (3,), ("x0",))]


def test_in_a_cut_the_servers_side_has_everything_and_the_other_nothing() -> None:
    """reference/real_servers.md: "PostgreSQL: the server's side has everything, the other side nothing." """
    link = database(nodes=5)
    link.cut([[0, 1], [2, 3, 4]])
    near = [link.request(1, "write", "x", "a"), link.request(0, "read", "x")]
    far = [link.request(3, "write", "x", "b"), link.request(4, "read", "x")]
    link.run_for(3_000_000)
    assert [link.replies[each].outcome for each in near] == ["ok", "ok"]
    assert [link.replies[each].outcome for each in far] == ["info", "fail"], "they were sent: nobody knows"
    later = link.request(3, "write", "x", "c")
    link.run_for(3_000_000)
    assert link.replies[later].outcome == "fail", "its connection is gone: it was never sent"
    link.heal()
    link.run_for(1_000)
    assert link.wait(link.request(3, "read", "x")).result == "a", "what its driver closed was lost"


def test_a_cut_leaves_as_many_unknown_writes_as_the_pool_had_connections() -> None:
    """reference/real_servers/index.json, postgres_leader_cut_D10: 1 `info` and 288 `fail` among the writes of 3 cut-off clients."""
    link = database(nodes=2)
    busy = [link.request(1, "write", key, key) for key in "abc"]
    assert [link.wait(each).outcome for each in busy] == ["ok"] * 3
    link.cut([[0], [1]])
    cut_off = [link.request(1, "write", key, "cut " + key) for key in "abcdefgh"]
    link.run_for(2_000_000)
    assert sorted(link.replies[each].outcome for each in cut_off) == ["fail"] * 5 + ["info"] * 3


def test_what_was_sent_into_a_short_cut_is_answered_after_it() -> None:
    """tcp(7): a segment is sent again until it is acknowledged."""
    link = database()
    link.cut([[0]])
    write = link.request(1, "write", "x", "a")
    link.run_for(500_000)
    link.heal()
    assert link.wait(write).outcome == "ok"


def test_a_reset_with_a_query_in_flight_leaves_a_write_unknown_and_fails_a_read() -> None:
    """tcp(7): a process that dies resets its connections at once; whether what was in flight was done is not told."""
    link = database()
    write, read = link.request(1, "write", "x", "a"), link.request(1, "read", "x")
    link.run_for(1_000)
    assert link.replies[read].outcome == "ok"
    read = link.request(1, "read", "x")
    link.crash(0)
    link.run_for(1_000)
    assert (link.replies[write].outcome, link.replies[read].outcome) == ("info", "fail")
    refused = link.request(1, "write", "x", "b")
    assert link.wait(refused).outcome == "fail" and link.replies[refused].error == "connection refused"
    link.restart(0)
    assert link.wait(link.request(1, "read", "x")).result == "a", "its record was written, so the server recovers it"
    assert link.wait(link.request(1, "write", "x", "c")).outcome == "ok"


def test_after_a_crash_of_process_or_host_every_acknowledged_write_is_there() -> None:
    """Gray and Reuter, 10.4: restart: the effects of committed transactions are redone from the log."""
    for host in (False, True):
        link = database()
        for i in range(5):
            link.wait(link.request(i % 3, "write", "xy"[i % 2], i))
        link.crash(0, host=host)
        link.run_for(10_000)
        link.restart(0)
        link.run_for(10_000)
        assert [link.replica(0).peek(key) for key in "xy"] == [4, 3]
        assert link.wait(link.request(0, "write", "x", 5)).outcome == "ok"
        assert link.versions[-1].order == (6,) and link.versions[-1].superseded == (4,)


def test_a_crashed_host_is_silence_until_the_driver_gives_up() -> None:
    """tcp(7): a host that dies tells nobody; the driver's own time-outs end the wait."""
    link = database()
    link.crash(0, host=True)
    write = link.request(1, "write", "x", "a")
    assert link.wait(write).at == 1_000_000 and link.replies[write].outcome == "info"
    later = link.request(1, "write", "x", "b")
    assert link.wait(later).at == 1_900_000 and link.replies[later].outcome == "fail"


def test_a_query_given_up_while_the_server_answers_others_costs_only_itself() -> None:
    """PostgreSQL manual 34.7, "Canceling Queries in Progress": no guarantee that it takes effect; one that waits for a lock is dropped."""
    link = database(sync_us=700_000)
    first, second = link.request(1, "write", "x", "a"), link.request(1, "write", "x", "b")
    link.run_for(300_000)
    read = link.request(1, "read", "y")
    third = link.request(1, "write", "x", "c")
    link.run_for(5_000_000)
    assert [link.replies[each].outcome for each in (first, second, read, third)] == ["ok", "info", "ok", "info"]
    assert [each.value for each in link.versions] == ["a", "b"], "b was in the log when it was cancelled, c waited for its lock"


def test_a_restarted_client_node_dials_again() -> None:
    link = database()
    write = link.request(1, "write", "x", "a")
    link.crash(1)
    assert link.replies[write].outcome == "info"
    link.restart(1)
    assert link.wait(link.request(1, "write", "x", "b")).outcome == "ok"


class NoLock(Rdbms):
    """Broken on purpose: the last to be flushed wins though it may not be the last in the log, and none is superseded in order."""

    def _lock(self, src: int, query: int, key: str, value: Any) -> None:
        self.locks[key] = self.locks.get(key) or __import__("collections").deque()
        self._log(src, query, key, value)


@pytest.mark.parametrize(
    ("mutant", "story"),
    [
        (ReadsUncommitted, test_a_record_is_on_disk_before_its_write_is_seen_or_answered),
        (AnswersBeforeTheLog, test_after_a_crash_of_process_or_host_every_acknowledged_write_is_there),
        (NoLock, test_concurrent_commits_share_a_flush_and_one_row_is_written_by_one_at_a_time),
    ],
)
def test_the_stories_kill_mutants(mutant: type[Rdbms], story: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.Rdbms", mutant)
    monkeypatch.setattr(database, "__defaults__", (3, 2_000, mutant))
    with pytest.raises((AssertionError, KeyError)):
        story()


@pytest.mark.parametrize("settings", [{"server": 3}, {"server": -1}, {"query_timeout_us": 0}, {"connect_timeout_us": 0}])
def test_what_is_out_of_range_is_refused_by_name(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(settings))):
        database(**settings)
