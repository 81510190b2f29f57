"""Rules of Redis 7.0's sentinel.c and replication on which no other test failed when they were broken: whom a Sentinel asks, what it does in TILT, what is
published, and answers that come too late."""

from __future__ import annotations

from typing import Any

from test_policy_redis import S, ask, became, cluster, leaders, lines

from capray.policies.driver import Result
from capray.policies.redis.failover import NONE, RECONF, UPDATE_CONFIG, WAIT_PROMOTION
from capray.policies.redis.messages import NOBODY, Hello, InfoReply, IsMasterDown, Publish, ReplicaOf
from capray.policies.redis.replica import Redis
from capray.policies.redis.watched import PUBLISH_PERIOD_US
from capray.replica import REPLY, SEND


def sent(node: Redis, kind: type) -> list[tuple[int, Any]]:
    """What a node has sent of this kind since it was last asked."""
    found = [(effect[1], effect[2]) for effect in node.effects if effect[0] == SEND and isinstance(effect[2], kind)]
    node.effects.clear()
    return found


def test_other_sentinels_are_asked_each_second_at_once_when_forced_and_never_where_disconnected() -> None:
    """sentinelAskMasterStateToOtherSentinels: only where "2) Sentinel is connected. 3) We did not receive the info within SENTINEL_ASK_PERIOD ms", or at once
    where SENTINEL_ASK_FORCED; and one that has not answered is not asked again within half of it."""
    node = cluster(5).replica(0)
    sentinel, now = node.sentinel, node.now
    for each in sentinel.sentinels:
        each.answered_at = each.asked_at = now - 2 * S
    sentinel.ask_others(now)
    assert [to for to, _ in sent(node, IsMasterDown)] == [1, 2, 3, 4]
    sentinel.ask_others(now + S // 2 - 1)
    assert not sent(node, IsMasterDown)
    sentinel.sentinel_of[1].answered_at = now
    sentinel.ask_others(now + S // 2)
    assert [to for to, _ in sent(node, IsMasterDown)] == [2, 3, 4]
    sentinel.sentinel_of[3].closed()
    sentinel.ask_others(now + S // 2, forced=True)
    assert [to for to, _ in sent(node, IsMasterDown)] == [1, 2, 4]


def test_what_other_sentinels_said_long_ago_makes_no_primary_objectively_down() -> None:
    """sentinelAskMasterStateToOtherSentinels: "If the master state from other sentinel is too old, we clear it", also where it then asks nobody because it
    hears the primary.  Two that were cut off together told each other; later one of them alone hears nothing of it."""
    link = cluster(5, quorum=2, failover_timeout_us=3 * S)
    link.run_for(S)
    link.cut([[3, 4]])
    link.run_for(8 * S)
    sentinel = link.replica(3).sentinel
    assert sentinel.o_down and sentinel.sentinel_of[4].says_down
    link.heal()
    link.run_for(30 * S)
    assert not sentinel.redis[0].s_down and not any(each.says_down for each in sentinel.sentinels)
    link.cut_one_way(3, 0)
    link.run_for(20 * S)
    assert sentinel.redis[0].s_down and not sentinel.o_down and leaders(link) == [0] and not lines(link, "ReplicaOf")


def test_a_returned_primary_is_not_promoted_for_the_branch_that_it_will_discard() -> None:
    """sentinelRefreshInstanceInfo reads slave_repl_offset and slave_priority of what says that it is a slave: how far a master is, it does not look."""
    node = cluster(3).replica(0)
    sentinel = node.sentinel
    sentinel.on_info(1, InfoReply(NOBODY, True, 0, 1, 99, 8))
    sentinel.on_info(2, InfoReply(0, True, 0, 100, 10, 9))
    best = sentinel.failover.best_replica(node.now)
    assert best is sentinel.redis[2] and (sentinel.redis[1].priority, sentinel.redis[1].offset, sentinel.redis[1].runid) == (100, 0, 8)


def test_a_replica_that_never_reached_its_primary_was_not_without_it_for_too_long() -> None:
    """INFO's master_link_down_since_seconds: "Never connected, repl is down since EVER" is -1, which is more than no limit.  (Of one that goes on running,
    after as long a time: test_a_replica_disconnected_for_ten_times_down_after_and_the_time_of_sdown_is_disregarded.)"""
    link = cluster(3, down_after_us=S, replica_priorities=(100, 1, 0), repl_timeout_us=S // 2, repl_ping_replica_period_us=S)
    link.run_for(S)
    link.crash(1)
    link.cut_one_way(0, 1)
    link.restart(1)
    link.run_for(15 * S)
    link.crash(0, host=True)
    link.run_for(6 * S)
    assert [node for node, _ in became(link, "leader", S)] == [1]


def test_a_failover_that_has_changed_nothing_is_cancelled_after_failover_timeout() -> None:
    """sentinel.conf: "The time needed to cancel a failover that is already in progress but did not produced any configuration change (SLAVEOF NO ONE yet not
    acknowledged by the promoted replica)"."""
    node = cluster(3, failover_timeout_us=20 * S).replica(1)
    failover, promoted = node.sentinel.failover, node.sentinel.redis[2]
    failover.state, failover.promoted, failover.changed_at, promoted.promoted = WAIT_PROMOTION, 2, node.now, True
    failover.step(node.now + 20 * S)
    assert failover.state == WAIT_PROMOTION
    failover.step(node.now + 20 * S + 1)
    assert (failover.state, failover.promoted, promoted.promoted, node.sentinel.current_master, node.sentinel.config_epoch) == (NONE, NOBODY, False, 0, 0)


def test_after_failover_timeout_replicas_are_reconfigured_whatever_parallel_syncs() -> None:
    """sentinel.conf: "The maximum time a failover in progress waits for all the replicas to be reconfigured as replicas of the new master. However even after
    this time the replicas will be reconfigured by the Sentinels anyway, but not with the exact parallel-syncs progression as specified"."""
    node = cluster(5, failover_timeout_us=20 * S).replica(1)
    failover = node.sentinel.failover
    failover.state, failover.promoted, failover.changed_at = RECONF, 2, node.now
    node.effects.clear()
    told: list[list[int]] = []
    for after in (0, 20 * S, 20 * S + 1):
        failover.step(node.now + after)
        told.append([to for to, _ in sent(node, ReplicaOf)])
    assert [len(nodes) for nodes in told] == [1, 0, 2] and sorted(to for nodes in told for to in nodes) == [1, 3, 4] and failover.state == UPDATE_CONFIG


def test_a_replica_told_in_vain_for_ten_seconds_counts_as_done_and_is_told_again_where_it_is_connected() -> None:
    """sentinelFailoverReconfNextSlave: "If too much time elapsed without the slave moving forward to the next state, consider it reconfigured even if it is
    not": what follows there in the loop then tells it once more, "Nothing to do for instances that are disconnected"."""
    node = cluster(5, parallel_syncs=4).replica(1)
    failover, watched = node.sentinel.failover, node.sentinel.redis
    failover.state, failover.promoted, failover.changed_at = RECONF, 2, node.now
    node.effects.clear()
    failover.step(node.now)
    assert sorted(to for to, _ in sent(node, ReplicaOf)) == [1, 3, 4]
    watched[3].closed()
    failover.step(node.now + 10 * S)
    assert not sent(node, ReplicaOf) and failover.state == RECONF
    for tick in range(1, 4):  # who is told again takes a slot again
        if failover.state == RECONF:
            failover.step(node.now + 10 * S + tick)
    assert sorted(to for to, _ in sent(node, ReplicaOf)) == [1, 4] and failover.state == UPDATE_CONFIG


def test_in_tilt_mode_info_is_read_and_nothing_is_done_about_it() -> None:
    """sentinelRefreshInstanceInfo: "None of the following conditions are processed when in tilt mode, so return asap": here of a replica that says it is a
    master."""
    for tilt in (True, False):
        node = cluster(3).replica(0)
        sentinel = node.sentinel
        node.now = sentinel.owner.now = node.now + 60 * S
        for each in sentinel.redis:
            each.s_down, each.s_down_since, each.info_at = False, 0, node.now
        sentinel.redis[1].master, sentinel.redis[1].role_since = NOBODY, node.now - 20 * S
        sentinel.tilt_since = node.now - (10 if tilt else 40) * S
        node.effects.clear()
        sentinel.on_info(1, InfoReply(NOBODY, True, 0, 100, 7, 8))
        assert [to for to, _ in sent(node, ReplicaOf)] == ([] if tilt else [1])
        assert (sentinel.redis[1].master, sentinel.redis[1].runid) == (NOBODY, 8)


def test_a_published_hello_goes_to_all_who_have_subscribed_where_it_is_news() -> None:
    """Sentinel, "Sentinels and replicas auto discovery": hellos go by the Redis's channel.  What every Sentinel has heard of this Redis is not told again, but
    after somebody subscribed."""
    node = cluster(3).replica(0)
    node.now += 60 * S
    node.published, node.catching_up = (1, 1), 0

    def relayed(epoch: int, config_epoch: int) -> int:
        node.on_message(1, Publish(1, epoch, 0, config_epoch))
        return len({to for to, _ in sent(node, Hello)})

    node.effects.clear()
    assert [relayed(1, 1), relayed(1, 2), relayed(1, 2), relayed(9, 1), relayed(2, 2)] == [0, 3, 0, 0, 3]
    node._on_subscribe(2, None)
    assert relayed(2, 2) == 3
    node.now += 2 * PUBLISH_PERIOD_US
    assert relayed(2, 2) == 0 and node.published == (2, 2)


def test_a_path_that_is_lost_to_another_replica_stops_no_replication() -> None:
    """Replication is one connection between a replica and its master: what happens to others is nothing to it."""
    link = cluster(3)
    ask(link, 0, "write", value="a")
    link.run_for(2 * S)
    replica = link.replica(1)
    replica.server.lost(2)
    assert not replica.server.stalled and not replica.server.kept
    replica.server.lost(0)
    assert replica.server.stalled and list(replica.server.kept) == [0]


def test_an_answer_to_a_command_that_was_given_up_is_ignored() -> None:
    """A pool closes the connection of a command that it gives up: the answer finds nobody; nor does one of another server."""
    link = cluster(3)
    node = link.replica(1)
    for src, number in ((0, 99), (2, 99)):
        node.pools.answered(src, Result(number, "ok", "late"))
    waiting = link.request(1, "read", "x")
    node.pools.answered(2, Result(waiting, "ok", "not the server's that was asked"))
    assert not [effect for effect in node.effects if effect[0] == REPLY] and waiting in node.pools.asked
