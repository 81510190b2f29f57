"""Rules of Redis 7.0's sentinel.c and replication on which no other test failed when they were broken: whom a Sentinel asks, what it does in TILT, what is
published, and answers that come too late."""

from __future__ import annotations

from typing import Any

from test_policy_redis import S, ask, cluster

from capray.policies.driver import Result
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
    """sentinelAskMasterStateToOtherSentinels: only where "2) Sentinel is connected. 3) We did not receive the info within SENTINEL_ASK_PERIOD ms", or at once where
    SENTINEL_ASK_FORCED; and one that has not answered is not asked again within half of it."""
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


def test_in_tilt_mode_info_is_read_and_nothing_is_done_about_it() -> None:
    """sentinelRefreshInstanceInfo: "None of the following conditions are processed when in tilt mode, so return asap": here of a replica that says it is a master."""
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
        assert (sentinel.redis[1].offset, sentinel.redis[1].runid) == (7, 8)


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
