"""The `redis` policy, a sentence of Redis's manual a test: "Redis replication", "High availability with Redis Sentinel", "Sentinel client spec" and the
comments of redis.conf and sentinel.conf, all of 7.0.  More of them, as longer stories, are in test_policy_redis.py."""

from __future__ import annotations

from typing import Any

import pytest
from test_policy_redis import S, ask, became, cluster, leaders, lines

from capray.policies.redis.failover import RECONF, WAIT_PROMOTION
from capray.policies.redis.messages import NOBODY, Hello, IsMasterDown, ReplicaOf
from capray.policies.redis.replica import Redis
from capray.policies.redis.settings import RedisSettings
from capray.testing import FakeLink

NEVER_PROMOTED = (0,) * 5  # replica-priority: Sentinels agree, vote, and find nobody


def at_ms(line: str) -> float:
    return float(line.split("ms")[0])


def say(link: FakeLink, src: int, dst: int, message: Any) -> None:
    """One node's process tells another something, within its next tick."""
    link.replica(src).paths.post(dst, message)
    link.run_for(150_000)


# ---- Redis replication --------------------------------------------------------------------------------------------------------------
def test_the_replication_offset_is_incremented_even_if_no_replica_is_connected() -> None:
    """Replication, "How Redis replication works"."""
    link = cluster(1, quorum=1)
    for value in range(3):
        ask(link, 0, "write", value=value)
    assert link.replica(0).server.offset == 3


def test_replicas_ping_the_master_every_second_acknowledging_the_amount_processed() -> None:
    """Replication, "Allow writes only with N attached replicas": "Redis replicas ping the master every second, acknowledging the amount of replication
    stream processed.\""""
    link = cluster(2)
    ask(link, 0, "write", value="a")
    link.run_for(9 * S)  # before the first ping, at 10 s
    assert len(lines(link, "1 -> 0 ReplAck(offset=")) in (8, 9, 10)
    assert link.replica(0).server.replicas[1].acked == link.replica(0).server.offset == link.replica(1).server.offset == 1


def test_one_background_save_serves_all_concurrent_synchronization_requests_and_queries_go_on() -> None:
    """Replication: "If the master receives multiple concurrent replica synchronization requests, it performs a single background save in to serve all of
    them"; "the master will continue to handle queries when one or more replicas perform the initial synchronization or a partial
    resynchronization.\""""
    link = cluster(3, repl_backlog_size=100)
    link.run_for(S)
    for node in (1, 2):
        link.replica(node).server.on_reset(0)
    for value in range(3):
        ask(link, 0, "write", value=value)
    link.run_for(3 * S)
    assert len(lines(link, "-> 0 Psync")) == 2 and not lines(link, "FullSync")
    assert ask(link, 0, "write", value="meanwhile")[0] == ask(link, 0, "read")[0] == "ok"
    link.run_for(6 * S)
    one, other = lines(link, "FullSync")
    assert at_ms(one) == at_ms(other) and link.values("x") == ["meanwhile"] * 3


def test_a_replica_that_lost_its_link_still_replies_possibly_with_out_of_date_data() -> None:
    """redis.conf: "if replica-serve-stale-data is set to 'yes' (the default) the replica will still reply to client requests, possibly with out of date
    data": where a Sentinel is wrong, its clients read it."""
    link = cluster(3)
    ask(link, 0, "write", value="old")
    link.run_for(S)
    link.cut([[2]])
    ask(link, 0, "write", value="new")
    link.replica(2).sentinel.master = 2
    assert ask(link, 2, "read") == ("ok", "old")


def test_a_promoted_replica_starts_a_new_history_and_the_others_go_on_without_a_full_sync() -> None:
    """Replication, "Replication ID explained": "after a failover, replicas connecting to the newly promoted master don't have to perform a full sync"; "it
    sets its secondary ID to its main ID ... Later it will select a new random replication ID, because a new history begins.\""""
    link = cluster(3)
    ask(link, 0, "write", value="a")
    old = link.replica(1).server.lineage[-1][0]
    link.run_for(S)
    link.crash(0, host=True)
    link.run_for(12 * S)
    [(new, _)] = became(link, "leader", S)
    other = 3 - new
    assert lines(link, f"{new} -> {other} Continue") and not lines(link, "FullSync")
    ids = [replid for replid, _ in link.replica(new).server.lineage]
    assert ids[-2] == old != ids[-1] and link.replica(other).server.lineage == link.replica(new).server.lineage


def test_the_n_replicas_need_to_be_in_online_state() -> None:
    """redis.conf, min-replicas-to-write: "The N replicas need to be in "online" state": one that waits for its full synchronisation does not count."""
    link = cluster(2, min_replicas_to_write=1, repl_backlog_size=100)
    link.run_for(S)
    link.replica(1).server.on_reset(0)
    for value in range(3):
        ask(link, 0, "write", value=value)
    link.run_for(2 * S)
    assert lines(link, "Psync") and ask(link, 0, "write", value="x")[0] == "fail"
    link.run_for(6 * S)
    assert lines(link, "FullSync") and ask(link, 0, "write", value="y")[0] == "ok"


@pytest.mark.parametrize("off", [{"min_replicas_to_write": 0}, {"min_replicas_to_write": 2, "min_replicas_max_lag_us": 0}])
def test_setting_one_or_the_other_of_the_two_to_0_disables_the_feature(off: dict[str, int]) -> None:
    """redis.conf, min-replicas-to-write: "Setting one or the other to 0 disables the feature.\""""
    link = cluster(3, down_after_us=1000 * S, **off)
    link.cut([[0]])
    link.run_for(15 * S)
    assert ask(link, 0, "write", value="a")[0] == "ok"


def test_a_master_restarted_from_scratch_has_a_new_history_that_nobody_can_go_on_in() -> None:
    """Replication, "Replication ID explained": "Every time an instance restarts from scratch as a master ... a new replication ID is generated": what its
    append-only file does not hold, its offset, no replica may rely on."""
    link = cluster(2, appendonly="always", down_after_us=1000 * S)
    link.run_for(11 * S)  # a ping is in the stream, and in no file
    link.cut([[1]], mode="drop")
    ask(link, 0, "write", value="a")
    link.crash(0)
    link.run_for(S)
    link.restart(0)
    link.heal()
    link.run_for(20 * S)
    assert lines(link, "0 -> 1 FullSync(") and not lines(link, "Continue(") and link.values("x") == ["a", "a"]


# ---- Redis persistence ---------------------------------------------------------------------------------------------------------------
def written(appendonly: Any, sync_us: int, settled_us: int, host: bool, writes: int = 1) -> tuple[int, Any]:
    """How long the last of some writes took on a server alone, and what is there after a crash so long afterwards."""
    link = FakeLink(Redis, 1, RedisSettings(appendonly=appendonly), sync_us=sync_us)
    link.run_for(3 * S)
    for value in range(writes):
        ask(link, 0, "write", value=value)
    link.wait(link.request(0, "write", "x", "last"))
    took = link.replies[len(link.requests)].at - link.requests[len(link.requests)][2]
    link.run_for(settled_us)
    link.crash(0, host=host)
    link.restart(0)
    return took, link.values("x")[0]


def test_appendfsync_always_syncs_before_sending_the_replies() -> None:
    """Persistence: "fsync every time new commands are appended to the AOF. Very very slow, very safe ... a single fsync (before sending the replies).\""""
    assert written("always", 5_000, 0, True) == (5_000, "last")


def test_appendfsync_everysec_may_lose_1_second_of_data() -> None:
    """Persistence: "fsync every second. Fast enough ..., and you may lose 1 second of data if there is a disaster"; a process alone that dies loses none,
    for the file is the operating system's."""
    assert written("everysec", 5_000, 1, True) == (0, None)
    assert written("everysec", 5_000, 1_100_000, True) == (0, "last") and written("everysec", 5_000, 1, False) == (0, "last")


def test_snapshotting_is_not_very_durable() -> None:
    """Persistence: "If your computer running Redis stops, your power line fails, or you accidentally kill -9 your instance, the latest data written to Redis
    will be lost": all of it before the first save point; redis.conf: "After 300 seconds (5 minutes) if at least 100 changes were
    performed"."""
    assert written("no", 5_000, 200 * S, False) == (0, None)
    assert written("no", 5_000, 301 * S, True, writes=98) == (0, None) and written("no", 5_000, 301 * S, True, writes=100) == (0, "last")


def test_a_replica_saves_on_disk_the_database_file_that_it_is_sent() -> None:
    """Replication: "the master transfers the database file to the replica, which saves it on disk, and then loads it into memory.\""""
    link = cluster(2, repl_backlog_size=300)
    link.run_for(S)
    link.replica(1).server.on_reset(0)
    for value in range(4):
        ask(link, 0, "write", value=value)
    link.run_for(9 * S)
    ask(link, 0, "write", value="streamed, and in memory only")
    link.run_for(S)
    link.cut([[0]])
    link.crash(1, host=True)
    link.restart(1)
    assert len(lines(link, "FullSync")) == 1 and link.values("x")[1] == 3
    link.heal()
    link.run_for(9 * S)
    assert link.values("x")[1] == "streamed, and in memory only" and len(lines(link, "FullSync")) == 1


def test_a_replica_restarted_from_its_rdb_file_resynchronizes_partially_and_from_the_aof_file_fully() -> None:
    """Replication, "Partial sync after restarts and failovers": replicas "are able to store in the RDB file the information needed to resync with their
    master"; "It is not possible to partially sync a replica that restarted via the AOF file.\""""
    for appendonly, what in (("no", "Continue("), ("always", "FullSync(")):
        link = cluster(2, appendonly=appendonly)
        link.run_for(S)
        for value in range(100):
            ask(link, 0, "write", value=value)
        link.run_for(301 * S)  # a save point
        for _ in range(2):  # the second time the append-only file begins with what the full synchronisation brought
            link.crash(1)
            link.restart(1)
            before = len(link.log)
            link.run_for(9 * S)
        assert [line for line in link.log[before:] if f"0 -> 1 {what}" in line] and link.values("x")[1] == 99


def test_the_configuration_is_rewritten_when_a_replica_is_promoted() -> None:
    """sentinelSendSlaveOf: "we send a transaction performing the following tasks: 1) Reconfigure the instance according to the specified host/port params. 2)
    Rewrite the configuration": so that who was promoted wakes as a primary."""
    link = cluster(3, down_after_us=1000 * S)
    link.run_for(S)
    say(link, 0, 1, ReplicaOf(NOBODY))
    assert link.roles[1] == "leader"
    link.crash(1, host=True)
    link.restart(1)
    assert link.replica(1).server.master == NOBODY


def test_a_sentinels_configuration_is_rewritten_when_it_has_promoted_a_replica() -> None:
    """Sentinel, "Configuring Sentinel": "The configuration is also rewritten every time a replica is promoted to master during a failover": who led it and
    loses power at once wakes with the new primary."""
    link = cluster()
    link.run_for(S)
    link.crash(0, host=True)
    led: list[int] = []
    while not led and link.now < 20 * S:
        link.run_for(10_000)
        led = [node for node in range(1, 5) if link.replica(node).sentinel.failover.state == RECONF]
    new = link.replica(led[0]).sentinel.failover.promoted
    link.crash(led[0], host=True)
    link.restart(led[0])
    assert (link.replica(led[0]).sentinel.master, link.replica(led[0]).sentinel.config_epoch) == (new, 1)


# ---- Sentinel: down, subjectively and objectively --------------------------------------------------------------------------------------
def test_sdown_requires_that_no_acceptable_reply_is_received_for_the_whole_interval() -> None:
    """Sentinel, "SDOWN and ODOWN failure state": "if the interval is 30000 milliseconds (30 seconds) and we receive an acceptable ping reply every 29
    seconds, the instance is considered to be working.\""""
    link = cluster(2, down_after_us=30 * S, quorum=2)
    link.run_for(5 * S)
    for _ in range(3):
        link.cut([[0]])
        link.run_for(20 * S)
        assert not link.replica(1).sentinel.redis[0].s_down
        link.heal()
        link.run_for(9 * S)  # by then a dial has got through
    link.cut([[0]])
    link.run_for(32 * S)
    assert link.replica(1).sentinel.redis[0].s_down


def test_odown_only_applies_to_masters() -> None:
    """Sentinel: "the ODOWN state is never reached for replicas and other sentinels, but only SDOWN is.\""""
    link = cluster(3)
    link.run_for(S)
    link.crash(2, host=True)
    link.run_for(10 * S)
    for node in (0, 1):
        sentinel = link.replica(node).sentinel
        assert sentinel.redis[2].s_down and sentinel.sentinel_of[2].s_down and not sentinel.o_down and not sentinel.current_epoch


def test_if_the_acknowledge_is_later_missing_the_flag_is_cleared() -> None:
    """Sentinel: "if a given Sentinel gets reports that a master is not working from enough Sentinels in a given time range, the SDOWN is promoted to
    ODOWN. If this acknowledge is later missing, the flag is cleared.\""""
    link = cluster(5, quorum=2, replica_priorities=NEVER_PROMOTED)
    link.run_for(S)
    for node in (3, 4):
        link.cut_one_way(node, 0)
    link.run_for(8 * S)
    assert link.replica(3).sentinel.o_down
    link.cut([[3], [4]])
    link.run_for(8 * S)
    assert link.replica(3).sentinel.redis[0].s_down and not link.replica(3).sentinel.o_down


def test_a_logical_master_that_advertises_itself_as_a_replica_is_considered_to_be_down() -> None:
    """Sentinel: "a logical master that advertises itself as a replica in the INFO output is considered to be down": for down-after and two periods of
    INFO (sentinel.c); then another is promoted."""
    link = cluster(3)
    link.run_for(S)
    say(link, 1, 0, ReplicaOf(2))
    told = link.now
    link.run_for(60 * S)
    [(new, at)] = became(link, "leader", S)
    assert new in (1, 2) and 25 * S < at - told < 40 * S and leaders(link) == [new]


def test_a_sentinel_pings_each_second_asks_info_each_ten_and_publishes_its_hello_each_two() -> None:
    """Sentinel, "Sentinels and replicas auto discovery": "Every Sentinel publishes a message to every monitored master and replica Pub/Sub channel
    __sentinel__:hello, every two seconds"; sentinel.c: sentinel_ping_period 1 s, sentinel_info_period 10 s.  Each to a tick of 52 to 100 ms."""
    link = cluster(3)
    link.run_for(41 * S)
    for peer in (1, 2):
        counts = [len(lines(link, f"0 -> {peer} {what}(")) for what in ("Ping", "Publish", "Info")]
        assert 2 * 36 <= counts[0] <= 2 * 42 and 18 <= counts[1] <= 21 and counts[2] in (4, 5), counts


# ---- Sentinel: quorum, authorisation, epochs ------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("quorum", "fails_over"), [(4, True), (5, False)])
def test_above_the_majority_the_quorum_is_also_what_must_authorize(quorum: int, fails_over: bool) -> None:
    """Sentinel, "Quorum": "If instead the quorum is configured to 5, all the Sentinels must agree about the master error condition, and the
    authorization from all Sentinels is required": four are left of five.  (Who is elected with which votes: test_who_is_elected_against_counting.)"""
    link = cluster(5, quorum=quorum)
    link.run_for(S)
    link.crash(0, host=True)
    link.run_for(20 * S)
    assert bool(became(link, "leader", S)) == fails_over
    assert fails_over or not any(link.replica(node).sentinel.o_down for node in range(1, 5))


def test_of_two_sentinels_the_one_left_can_not_authorize_a_failover() -> None:
    """Sentinel, example 1, "just two Sentinels, DON'T DO THIS": "The Sentinel running in the other box S2 will not be able to authorize a failover, so the
    system will become not available.\""""
    for nodes, fails_over in ((2, False), (3, True)):
        link = cluster(nodes, quorum=1)
        link.run_for(S)
        link.crash(0, host=True)
        link.run_for(20 * S)
        assert bool(became(link, "leader", S)) == fails_over


def test_a_sentinel_that_voted_another_waits_two_times_failover_timeout() -> None:
    """Sentinel, "Configuration epochs": "if a Sentinel voted another Sentinel for the failover of a given master, it will wait some time to try to failover
    the same master again. This delay is the 2 * failover-timeout you can configure in sentinel.conf.\""""
    link = cluster(3, failover_timeout_us=10 * S)
    link.run_for(S)
    failover = link.replica(2).sentinel.failover
    link.replica(2).sentinel.vote(1, 1)
    assert not failover.start_if_needed(link.now + 20 * S - 1) and failover.start_if_needed(link.now + 21 * S)


def test_every_failover_has_a_different_configuration_epoch_and_all_converge_to_the_higher() -> None:
    """Sentinel, "Configuration epochs" and "propagation": "every configuration of every failover is versioned with a unique version"; "a set of Sentinels
    that are able to communicate will all converge to the same configuration with the higher version number.\""""
    link = cluster(3, failover_timeout_us=3 * S)
    link.run_for(S)
    old, epochs = 0, []
    for _ in range(2):
        link.crash(old, host=True)
        link.run_for(20 * S)
        link.restart(old)
        link.run_for(20 * S)
        sentinels = [link.replica(node).sentinel for node in range(3)]
        assert len({(sentinel.master, sentinel.config_epoch) for sentinel in sentinels}) == 1 and sentinels[0].master != old
        old = sentinels[0].master
        epochs.append(sentinels[0].config_epoch)
    assert epochs[0] < epochs[1]


def test_the_greater_version_always_wins_over_smaller_versions() -> None:
    """Sentinel, "Configuration propagation"; "If the receiving Sentinel has a configuration for a given master which is older than the one received, it
    updates to the new configuration immediately" ("Sentinels and replicas auto discovery")."""
    link = cluster(3)
    link.run_for(S)
    say(link, 1, 2, Hello(1, 9, 1, 9))
    assert link.replica(2).sentinel.master == 1
    say(link, 0, 2, Hello(0, 9, 0, 8))
    assert link.replica(2).sentinel.master == 1 and link.replica(2).sentinel.config_epoch == 9


# ---- Sentinel: the failover -------------------------------------------------------------------------------------------------------------
def test_a_failover_is_successful_once_info_shows_the_switch_and_from_then_on_clients_are_told() -> None:
    """Sentinel, "Configuration propagation": "it requires that the Sentinel was able to send the REPLICAOF NO ONE command to the selected replica, and that
    the switch to master was later observed in the INFO output"; "even if the reconfiguration of the replicas is in progress, the failover is considered to
    be successful"; GET-MASTER-ADDR-BY-NAME: "If a failover is in progress or terminated successfully ... it returns the address and port of the promoted
    replica.\""""
    link = cluster()
    link.run_for(S)
    link.crash(0, host=True)
    seen = set()
    while link.now < 20 * S and RECONF not in seen:
        link.run_for(10_000)
        for node in range(1, 5):
            sentinel = link.replica(node).sentinel
            seen.add(sentinel.failover.state)
            if sentinel.failover.state == WAIT_PROMOTION:
                assert (sentinel.current_master, sentinel.config_epoch) == (0, 0)
            elif sentinel.failover.state == RECONF:
                assert sentinel.master == 0 and sentinel.current_master == sentinel.failover.promoted and sentinel.config_epoch == 1
    assert {WAIT_PROMOTION, RECONF} <= seen


def test_a_replica_in_sdown_state_is_not_selected_to_be_promoted() -> None:
    """Sentinel, "SDOWN and ODOWN failure state"; its priority would be the best."""
    link = cluster(5, replica_priorities=(100, 1, 100, 100, 100))
    link.run_for(S)
    link.crash(1, host=True)
    link.run_for(7 * S)
    link.crash(0, host=True)
    link.run_for(10 * S)
    [(new, _)] = became(link, "leader", S)
    assert new in (2, 3, 4)


def test_a_replica_disconnected_for_ten_times_down_after_and_the_time_of_sdown_is_disregarded() -> None:
    """Sentinel, "Replica selection and priority": "a replica whose the INFO output suggests it has been disconnected from the master for more than:
    (down-after-milliseconds * 10) + milliseconds_since_master_is_in_SDOWN_state Is considered to be unreliable and is disregarded entirely.\""""
    for seconds, chosen in ((9, [1]), (15, [])):
        link = cluster(3, down_after_us=S, replica_priorities=(100, 1, 0), repl_timeout_us=S // 2, repl_ping_replica_period_us=S)
        link.run_for(S)
        link.cut_one_way(0, 1)  # Redis 1 hears nothing from its primary; Sentinels hear it
        link.run_for(seconds * S)
        link.crash(0, host=True)
        link.run_for(6 * S)
        assert [node for node, _ in became(link, "leader", S)] == chosen


# ---- Sentinel: reconfiguration outside the failover procedure --------------------------------------------------------------------------
def test_a_replica_partitioned_away_is_reconfigured_once_reachable_after_exactly_failover_timeout() -> None:
    """Sentinel: "Replicas partitioned away during a partition are reconfigured once reachable"; sentinel.conf: "The time needed for a replica replicating to a
    wrong master ... is exactly the failover timeout (counting since the moment a Sentinel detected the misconfiguration)": at the INFO after it."""
    link = cluster(5, failover_timeout_us=20 * S)
    link.run_for(S)
    link.cut([[4]])
    link.crash(0, host=True)
    link.run_for(20 * S)
    [(new, _)] = became(link, "leader", S)
    link.heal()
    healed = link.now
    while link.replica(4).server.master != new:
        link.run_for(100_000)
        assert link.now < healed + 45 * S
    assert link.now > healed + 20 * S
    assert {link.replica(node).server.master for node in range(1, 5)} == {new, NOBODY}


def test_a_replica_connected_to_a_wrong_master_is_set_right_once_that_was_observed_for_some_time() -> None:
    """Sentinel: "Replicas connected to a wrong master, will be reconfigured to replicate with the right master.  For Sentinels to reconfigure replicas, the
    wrong configuration must be observed for some time, that is greater than the period used to broadcast new configurations"."""
    link = cluster(5, failover_timeout_us=20 * S)
    link.run_for(S)
    say(link, 3, 2, ReplicaOf(3))  # an operator's mistake
    assert link.replica(2).server.master == 3
    link.run_for(19 * S)
    assert link.replica(2).server.master == 3
    link.run_for(22 * S)
    assert [link.replica(node).server.master for node in range(5)] == [NOBODY, 0, 0, 0, 0]


def test_a_replica_of_priority_zero_is_reconfigured_after_a_failover_too_it_only_never_becomes_a_master() -> None:
    """Sentinel, "Replica selection and priority": "a replica configured in this way will still be reconfigured by Sentinels in order to replicate with the new
    master after a failover, the only difference is that it will never become a master itself"."""
    link = cluster(3, replica_priorities=(100, 0, 100), down_after_us=S)
    link.run_for(S)
    for _ in range(2):
        [at] = [node for node in range(3) if node != 1 and link.is_up(node) and link.replica(node).server.master == NOBODY]
        link.crash(at, host=True)
        link.run_for(12 * S)
        [new] = leaders(link)
        assert new == 2 - at and link.replica(1).server.master == new
        link.restart(at)
        link.run_for(20 * S)
        assert link.replica(at).server.master == new


def test_sentinel_works_even_if_not_all_the_sentinel_processes_are_working() -> None:
    """Sentinel, "Sentinel as a distributed system": "Sentinel works even if not all the Sentinel processes are working"; and with a minority of them it does
    not."""
    for down, working in (((0, 4), True), ((0, 3, 4), False)):
        link = cluster(5, down_after_us=S, quorum=2)
        link.run_for(S)
        for node in down:
            link.crash(node, host=True)
        link.run_for(20 * S)
        assert bool(leaders(link)) is working


# ---- Sentinel: TILT -----------------------------------------------------------------------------------------------------------------------
def test_in_tilt_mode_a_sentinel_replies_negatively_and_after_thirty_seconds_no_more() -> None:
    """Sentinel, "TILT mode": "It starts to reply negatively to SENTINEL is-master-down-by-addr requests as the ability to detect a failure is no longer
    trusted"; "If everything appears to be normal for 30 second, the TILT mode is exited.\""""
    link = cluster(3, replica_priorities=(0, 0, 0))
    link.run_for(S)
    link.cut([[0]])
    link.run_for(8 * S)

    def replies() -> set[bool]:
        before = len(link.log)
        for _ in range(3):
            say(link, 1, 2, IsMasterDown(0, 0, NOBODY))
        return {"down=True" in line for line in link.log[before:] if "2 -> 1 IsMasterDownReply" in line}

    assert replies() == {True}
    link.skew(2, 60 * S)
    link.run_for(500_000)
    assert replies() == {False}
    link.run_for(32 * S)
    assert replies() == {True}
