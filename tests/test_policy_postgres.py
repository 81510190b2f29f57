"""PostgreSQL, with and without a standby: the manual's sentences (version 15) over the fake link."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from broken.postgres import AnswersBeforeTheStandby, ForgetsItsPromotion, ForgetsToTruncate

from capray.checkers.zones import linearizable_register
from capray.errors import InputError
from capray.faults import Fault
from capray.policies.postgres.replica import Postgres, PostgresSettings
from capray.scenario import Scenario
from capray.streams import Stream
from capray.testing import FakeLink
from capray.trial import simulate

S = 1_000_000


def cluster(nodes: int = 3, policy: type[Postgres] = Postgres, **settings: Any) -> FakeLink:
    """Primary on node 0, standby on node 1, clients on all."""
    return FakeLink(policy, nodes, PostgresSettings(**{"standby": 1, **settings}))


def lines(link: FakeLink, *words: str) -> list[str]:
    return [line for line in link.log if all(word in line for word in words)]


def ask(link: FakeLink, node: int, f: str, key: str = "x", value: Any = None) -> tuple[str, Any]:
    reply = link.wait(link.request(node, f, key, value))
    return reply.outcome, reply.result


def test_without_a_standby_it_is_one_server() -> None:
    """reference/real_servers.md: "the server's side has everything, the other side nothing.\""""
    link = cluster(standby=-1)
    assert ask(link, 2, "write", value="a") == ("ok", None) and ask(link, 1, "read") == ("ok", "a")
    link.cut([[0]])
    assert ask(link, 0, "write", value="b") == ("ok", None)
    assert ask(link, 1, "read")[0] == "fail" and ask(link, 2, "write", value="c")[0] == "info"
    assert ask(link, 2, "write", value="d")[0] == "fail"
    assert Postgres.placement("x", 3, link.settings) == (0,)


def test_a_synchronous_commit_as_a_transcript() -> None:
    """27.2.8: "each commit of a write transaction will wait until confirmation is received that the commit has been written to the
    write-ahead log on disk of both the primary and standby server"."""
    link = cluster(synchronous=True)
    link.run_for(1 * S)
    at = len(link.log)
    link.wait(link.request(2, "write", "x", "a"))
    assert link.log[at:] == [
        " 1000.000ms client -> 2 #1 write(x='a')",
        " 1000.250ms 2 -> 0 Update(id=1, key='x', value='a')",
        " 1000.350ms 0 -> 0 Flushed(timeline=1, lsn=1)",
        " 1000.600ms 0 -> 1 Wal(timeline=1, first=1, records=[(1, 'x', 'a')], forks=())",
        " 1000.700ms 1 -> 1 Flushed(timeline=1, lsn=1)",
        " 1000.850ms 1 -> 0 Status(timeline=1, write=1, flush=0, apply=0, reply=False)",
        " 1000.950ms 1 -> 0 Status(timeline=1, write=1, flush=1, apply=1, reply=False)",
        " 1001.200ms 0 -> 2 Result(id=1, outcome='ok', value=None, error=None)",
        " 1001.200ms 2 -> client #1 ok",
    ]
    assert link.values("x") == ["a", "a", None]


@pytest.mark.parametrize(("mode", "us"), [("local", 600), ("remote_write", 1_100), ("on", 1_200), ("remote_apply", 1_200)])
def test_each_synchronous_commit_waits_for_what_it_names(mode: str, us: int) -> None:
    """20.5.1, synchronous_commit; replay takes no time here, so `on` and `remote_apply` take the same."""
    link = cluster(synchronous=True, synchronous_commit=mode)
    link.run_for(1 * S)
    assert link.wait(link.request(2, "write", "x", "a")).at - 1 * S == us


def test_an_asynchronous_standby_is_behind_and_its_reads_may_be_stale() -> None:
    """27.2.5: "there is a small delay between committing a transaction in the primary and the changes becoming visible in the standby"."""
    link = cluster(standby_reads=True)
    ask(link, 0, "write", value="a")
    link.run_for(1 * S)
    link.cut([[1]])
    assert ask(link, 2, "write", value="b") == ("ok", None)
    link.run_for(5 * S)
    assert ask(link, 1, "read") == ("ok", "a")
    assert linearizable_register(link.history()).status == "invalid"
    link.heal()
    link.run_for(10 * S)
    assert ask(link, 1, "read") == ("ok", "b")


def test_a_standby_may_show_a_commit_that_the_primary_does_not_show_yet() -> None:
    """27.2.8: the standby replays what it has received; the primary's session still waits."""
    link = cluster(synchronous=True, standby_reads=True)
    link.run_for(1 * S)
    link.cut_one_way(1, 0)
    write = link.request(0, "write", "x", "a")
    link.run_for(2_000)
    assert write not in link.replies and ask(link, 0, "read") == ("ok", None) and ask(link, 1, "read") == ("ok", "a")


def test_a_synchronous_commit_without_its_standby_waits_and_cancelled_it_is_committed_locally() -> None:
    """27.2.8: "each commit of a write transaction will wait"; syncrep.c, when the wait is cancelled: "The transaction has already committed locally, but might
    not have been replicated to the standby"."""
    link = cluster(synchronous=True)
    link.run_for(1 * S)
    link.cut([[1]])
    write = link.request(2, "write", "x", "a")
    link.run_for(900_000)
    assert write not in link.replies and ask(link, 0, "read") == ("ok", None), "it hangs, reads do not"
    ask(link, 2, "read", "y")
    link.run_for(200_000)
    assert link.replies[write].outcome == "info" and lines(link, "2 -> 0 Cancel")
    assert ask(link, 0, "read") == ("ok", "a")
    link.heal()
    link.run_for(2 * S)
    assert link.values("x") == ["a", "a", None]


def test_a_query_that_times_out_ends_itself_alone_and_is_cancelled_also_where_nothing_else_was_heard() -> None:
    """Each of a pool's queries has a connection of its own, and a CancelRequest another (manual 55.2.8).  Measured on 15.18: 2 operations a second and node,
    the synchronous standby cut off for 10 s: 53 of 56 writes of unknown outcome were committed, 52 of them by a cancelled wait."""
    link = cluster(synchronous=True)
    for key in "yx":
        link.request(2, "write", key, "before")  # at once, so that the pool has two connections afterwards
    link.run_for(1 * S)
    link.cut([[1]])
    first = link.request(2, "write", "x", "a")
    link.run_for(S // 2)
    second = link.request(2, "write", "y", "b")
    link.run_for(600_000)
    assert link.replies[first].outcome == "info" and second not in link.replies
    assert ask(link, 0, "read") == ("ok", "a"), "the wait was cancelled"
    link.heal()
    assert link.wait(second).outcome == "ok"


def test_a_waiting_commit_holds_its_rows_lock() -> None:
    """27.2.8.3: "transaction locks continue to be held until the transfer is confirmed"."""
    link = cluster(synchronous=True)
    link.run_for(1 * S)
    link.cut([[1]])
    link.request(0, "write", "x", "a")
    behind = link.request(2, "write", "x", "b")
    link.run_for(500_000)
    link.heal()
    assert link.wait(behind).outcome == "ok"
    assert [each.value for each in link.versions if each.node == 0] == ["a", "b"]


def test_a_commit_whose_client_went_away_without_a_cancel_goes_on_waiting() -> None:
    """Seen on 15.18: psql killed, its backend still in wait_event SyncRep, the row locked, the old value read; recovery from a crash shows the new one."""
    link = cluster(synchronous=True, query_timeout_us=60 * S)
    ask(link, 0, "write", value="old")
    link.cut([[1], [0, 2]])
    link.request(2, "write", "x", "orphan")
    link.run_for(S // 2)
    link.crash(2)
    after = link.request(0, "write", "x", "next")
    link.run_for(20 * S)
    assert after not in link.replies and ask(link, 0, "read") == ("ok", "old")
    link.heal()
    link.run_for(5 * S)
    assert link.replies[after].outcome == "ok" and [v.value for v in link.versions if v.node == 0] == ["old", "orphan", "next"]


@pytest.mark.parametrize("host", [False, True])
def test_a_commit_that_waited_for_the_standby_when_the_primary_crashed_is_committed(host: bool) -> None:
    """27.2.8.4: after a restart "waiting transactions will be marked fully committed once the primary database recovers"."""
    link = cluster(synchronous=True)
    link.run_for(1 * S)
    link.cut([[1]])
    link.request(0, "write", "x", "a")
    link.run_for(10_000)
    link.crash(0, host=host)
    link.restart(0)
    assert ask(link, 0, "read") == ("ok", "a")


def test_a_standby_that_was_away_catches_up_from_where_it_was() -> None:
    """27.2.2: "the standby tries to connect to the primary server and start streaming WAL from the last valid record found in archive or pg_wal";
    wal_retrieve_retry_interval 5 s."""
    link = cluster()
    for value in "abc":
        ask(link, 0, "write", value=value)
    link.run_for(1 * S)
    link.crash(1)
    for value in "de":
        ask(link, 2, "write", value=value)
    link.restart(1)
    link.run_for(20_000)
    assert lines(link, "1 -> 0 StartReplication(timeline=1, lsn=3)")
    assert lines(link, "Wal(timeline=1, first=4, records=[(1, 'x', 'd'), (1, 'x', 'e')]")
    assert link.values("x")[1] == "e"
    link.crash(0)
    link.restart(0)
    link.run_for(4 * S)
    assert not link.replica(0).streaming
    link.run_for(2 * S)
    assert link.replica(0).streaming, "it connects again after 5 s"


def test_silence_ends_replication_connections_after_their_time_outs() -> None:
    """20.6: wal_sender_timeout and wal_receiver_timeout: "Terminate replication connections that are inactive for longer than this amount of time"; each asks
    for an answer once half of it is over."""
    link = cluster()
    link.run_for(24 * S)
    ask(link, 0, "write", value="a")
    link.run_for(S)
    heard = link.now - S
    link.cut([[1]])
    link.run_for(58 * S)
    assert not lines(link, "closes"), "idle for less than a minute"
    link.run_for(2 * S)
    ends = {line.split()[1]: float(line.split("ms")[0]) * 1000 for line in lines(link, "closes its connection")}
    assert set(ends) == {"0", "1"} and all(60 * S <= at - heard < 60 * S + S // 100 for at in ends.values())
    link.heal()
    link.run_for(20 * S)
    assert link.replica(0).streaming and link.replica(1).streaming


def test_idle_replication_stays_open() -> None:
    """20.6: reports each 10 s and keepalives from half of wal_sender_timeout on keep an idle connection below both time-outs."""
    link = cluster()
    link.run_for(600 * S)
    assert not lines(link, "closes") and link.replica(1).streaming


def test_nobody_promotes_by_itself_unless_told_to() -> None:
    """27.3: "PostgreSQL does not provide the system software required to identify a failure on the primary and notify the standby"."""
    link = cluster()
    link.crash(0, host=True)
    link.run_for(600 * S)
    assert link.roles[1] == "follower"
    assert ask(link, 1, "write", value="a")[0] in ("fail", "info")


def test_an_operator_promotes_the_standby_and_the_clients_find_it() -> None:
    """34.1.2, target_session_attrs=read-write: "session must accept read-write transactions by default"; 34.1.1.3: hosts are tried in the given order."""
    link = cluster(promote_at_us=10 * S)
    ask(link, 2, "write", value="a")
    link.run(5 * S)
    link.crash(0, host=True)
    link.run(12 * S)
    assert link.roles[1] == "leader"
    while ask(link, 2, "write", value=f"at {link.now}")[0] != "ok":
        assert link.now < 16 * S, link.transcript()
    assert ask(link, 1, "write", value="b")[0] in ("ok", "info", "fail")
    assert link.versions[-1].order[0] == 2, "on a new timeline"


def split(link: FakeLink) -> None:
    """A cut so long that the standby is promoted: two primaries, each with a client, for a while."""
    ask(link, 0, "write", value="before")
    link.run_for(1 * S)
    link.cut([[0], [1, 2]])
    for i in range(80):
        for node in (0, 2):
            link.request(node, "write", "x", f"{node} at {i}")
        link.run_for(500_000)
        for node in (0, 2):
            link.request(node, "read", "x")
        link.run_for(500_000)


def test_automatic_promotion_without_a_witness_splits_the_brain_and_the_old_primarys_branch_is_lost() -> None:
    """27.3: "If the primary server fails and the standby server becomes the new primary, and then the old primary restarts, you must have a mechanism
    for informing the old primary that it is no longer the primary"."""
    link = cluster(promotion="automatic")
    split(link)
    promoted = [at // S for at, node, role in link.role_changes if (node, role) == (1, "leader")]
    assert len(promoted) == 1 and promoted[0] in (50, 51, 52, 53), "repmgr: six attempts, ten seconds between each; after the last it does not wait"
    done = [(link.requests[id], id) for id, reply in link.replies.items() if reply.outcome == "ok"]
    old, new = ([id for (node, asked, at), id in done if node == side and asked.f == "write" and at > 2 * S] for side in (0, 2))
    assert len(old) > 70 and len(new) > 10, "both took writes"
    link.heal()
    link.run_for(15 * S)
    assert link.roles[0] == "follower" and lines(link, "0 becomes follower")
    assert link.values("x")[0] == link.values("x")[1] == "2 at 79"
    dropped = {each.value for each in link.versions if each.kind == "discard"}
    assert {link.requests[id][1].value for id in old} <= dropped, "acknowledged, and lost"
    assert linearizable_register(link.history()).status == "invalid"
    assert ask(link, 0, "write", value="after") in [("ok", None), ("fail", None), ("info", None)]


def test_a_synchronous_standby_loses_nothing_that_was_acknowledged() -> None:
    """27.2.8.4: "The guarantee we offer is that the application will not receive explicit acknowledgment of the successful commit of a transaction
    until the WAL data is known to be safely received by all the synchronous standbys.\""""
    link = cluster(promotion="automatic", synchronous=True)
    split(link)
    assert all(link.replies[id].outcome != "ok" for id, (node, asked, at) in link.requests.items() if node == 0 and asked.f == "write" and at > 2 * S)
    assert {link.replies[id].outcome for id, (node, asked, at) in link.requests.items() if node == 2 and at > 70 * S} == {"ok"}, "the new primary"
    link.heal()
    link.run_for(15 * S)
    kept = {entry[2] for entry in link.replica(1).log.entries}
    assert {link.requests[id][1].value for id, reply in link.replies.items() if reply.outcome == "ok"} - {None} <= kept


def test_without_a_rewind_two_primaries_stay() -> None:
    """27.3: "to avoid situations where both systems think they are the primary, which will lead to confusion and ultimately data loss": nobody does it here."""
    link = cluster(promotion="automatic", rejoin="never")
    split(link)
    link.heal()
    link.run_for(100 * S)
    assert link.roles[0] == link.roles[1] == "leader"


def test_a_commit_that_the_standby_had_when_the_cut_came_is_shown_by_the_old_primary_once_it_follows() -> None:
    """pg_rewind: what lies before the point of divergence stays; a commit record there is replayed like any other."""
    link = cluster(promotion="automatic", synchronous=True)
    link.run_for(1 * S)
    link.request(0, "write", "x", "in time")
    while link.replica(1).log.lsn == 0:
        link.run_for(10)
    link.cut([[0], [1, 2]])
    link.run_for(100 * S)
    link.heal()
    link.run_for(15 * S)
    assert link.values("x")[:2] == ["in time", "in time"]
    assert {each.node for each in link.versions if each.value == "in time" and each.kind == "apply"} == {0, 1}


@pytest.mark.parametrize("node", [0, 1])
def test_roles_and_branches_survive_a_crash_of_either_server(node: int) -> None:
    """26.3.5: the timeline history says from which timeline a log branched off, and where; standby.signal says who is a standby."""
    link = cluster(promotion="automatic")
    split(link)
    link.heal()
    link.run_for(15 * S)
    before = link.replica(0).log.entries
    link.crash(node, host=True)
    link.run_for(1 * S)
    link.restart(node)
    link.run_for(15 * S)
    assert (link.roles[0], link.roles[1]) == ("follower", "leader")
    assert link.replica(0).log.entries == link.replica(1).log.entries == before
    assert link.replica(0).log.timeline == 2
    for _ in range(5):
        ask(link, 2, "write", value=f"again {link.now}")
    link.run_for(1 * S)
    assert link.values("x")[0] == link.values("x")[1] == link.requests[len(link.requests)][1].value


@pytest.mark.parametrize(
    ("mutant", "story"),
    [
        (AnswersBeforeTheStandby, test_a_synchronous_standby_loses_nothing_that_was_acknowledged),
        (ForgetsToTruncate, test_automatic_promotion_without_a_witness_splits_the_brain_and_the_old_primarys_branch_is_lost),
        (ForgetsItsPromotion, lambda: test_roles_and_branches_survive_a_crash_of_either_server(1)),
    ],
)
def test_the_stories_kill_mutants(mutant: type[Postgres], story: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "__defaults__", (3, mutant))
    with pytest.raises((AssertionError, KeyError, IndexError, ValueError)):
        story()


def trouble(seed: int, settings: PostgresSettings, steps: int = 60) -> FakeLink:
    """Clients everywhere on two keys, cuts, crashes; at last all is well and every node reads every key until it is answered."""
    link, dice = FakeLink(Postgres, 3, settings, seed=seed), Stream(seed, "trouble")
    for step in range(steps):
        node, key, what = dice.below(3), "xy"[dice.below(2)], dice.below(100)
        if what < 80:
            link.request(node, "write" if what < 40 else "read", key, None if what >= 40 else step, session=step)
        elif what < 86:
            link.cut([[node]])
        elif what < 93:
            link.heal()
        elif link.is_up(node):
            link.crash(node, host=bool(dice.below(2)))
        else:
            link.restart(node)
        link.run_for((10, 200, 700, 3_000, 400_000, 1_500_000)[dice.below(6)])
    link.heal()
    for node in range(3):
        if not link.is_up(node):
            link.restart(node)
    link.run_for(100 * S)
    for key in "xy":
        for node in range(3):
            link.request(node, "read", key, session=steps + 1)
            link.run_for(5 * S)
    return link


@pytest.mark.parametrize("settings", [PostgresSettings(), PostgresSettings(standby=1), PostgresSettings(standby=1, synchronous=True)])
def test_with_one_primary_it_is_linearizable_through_cuts_and_crashes(settings: PostgresSettings) -> None:
    for seed in range(60):
        link = trouble(seed, settings)
        verdict = linearizable_register(link.history())
        assert verdict.status == "valid", f"seed {seed}: {verdict.evidence}\n{link.transcript()}"
        assert len(link.replies) == len(link.requests)
        if settings.standby == 1:
            assert link.replica(0).log.entries == link.replica(1).log.entries, f"seed {seed}"
            assert all(link.values(key)[0] == link.values(key)[1] for key in "xy"), f"seed {seed}"


def test_one_server_does_in_the_engine_what_the_measured_one_did() -> None:
    """../shared/reference/real_servers/index.json, postgres_leader_cut_D10: availability in the cut by side and kind, unknown writes, recovery."""
    index = Path(__file__).parents[2] / "shared" / "reference" / "real_servers" / "index.json"
    if not index.exists():
        pytest.skip("../shared/reference is not beside the project")
    measured = json.loads(index.read_text())["postgres_leader_cut_D10"]["median"]
    cut = Fault(at_us=10 * S, for_us=10 * S, shape="0,1|2,3,4")
    history = simulate(Scenario(policy="capray.policies.postgres.replica:Postgres", nodes=5, faults=(cut,)).resolved(), 1).history
    for side, name in (((0, 1), "min"), ((2, 3, 4), "maj")):
        for f in ("read", "write"):
            asked = [each for each in history if each.node in side and each.f == f and 10 * S <= each.invoke < 20 * S]
            available = sum(each.type == "ok" for each in asked) / len(asked)
            assert abs(available - measured[f"av_dur_{name}_{f[0]}"]) <= 0.03
    assert sum(each.type == "info" for each in history) <= 3 + measured["info"], "at most one for each pool that was cut off"
    after = [each for each in history if each.invoke >= 20 * S and each.node is not None]
    assert all(each.type == "ok" for each in after), "measured: rec_last_bad 0"
    assert linearizable_register(history).status == "valid"


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"server": 3}, "server"),
        ({"standby": 0}, "standby"),
        ({"standby": 9}, "standby"),
        ({"standby": -1, "synchronous": True}, "standby"),
        ({"promote_at_us": -1}, "promote_at_us"),
        ({"monitor_interval_us": 0}, "monitor_interval_us"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError, match=field):
        cluster(**settings)


def test_datagrams_are_refused_for_a_protocol_of_byte_streams():
    from capray.errors import InputError
    from capray.scenario import from_dict

    with pytest.raises(InputError, match="link.transport: 'datagram'"):
        from_dict({"policy": "postgres", "nodes": 3, "link": {"floor_us": 200, "transport": "datagram", "duplication": 0.1}})
