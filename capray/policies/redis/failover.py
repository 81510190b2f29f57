"""A Sentinel's failover: sentinel.c of Redis 7.0, "FAILOVER" and "Failover state machine implementation".

Decides: when an attempt begins, who leads it, which replica is promoted, in what order the others follow, when it has ended.
May not know: links, pings, Redis servers (sentinel.py).
One state a tick: WAIT_START (elected by a majority of all Sentinels, and at least `quorum`, in this epoch) -> SELECT -> SEND_NOONE -> WAIT_PROMOTION
(seen by INFO) -> RECONF (`parallel_syncs` replicas at a time; one that is cut off holds its slot) -> UPDATE_CONFIG.
An attempt that nobody wins ends after 10 s; nobody begins another within twice failover-timeout of an own one or of a vote for another's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from capray.policies.redis.messages import NOBODY, ReplicaOf
from capray.policies.redis.paths import NEVER
from capray.policies.redis.watched import DONE, INFO_PERIOD_US, NOT_TOLD, PING_PERIOD_US, SENT, Watched

if TYPE_CHECKING:
    from capray.policies.redis.sentinel import Sentinel

NONE, WAIT_START, SELECT, SEND_NOONE, WAIT_PROMOTION, RECONF, UPDATE_CONFIG = range(7)
ELECTION_TIMEOUT_US = 10_000_000
MAX_DESYNC_US = 1_000_000
RECONF_TIMEOUT_US = 10_000_000


def voted_leader(votes: list[int], own: int, voters: int, quorum: int) -> int:
    """Who has a majority of `voters`, and `quorum` votes; -1: nobody.  `votes` are the other Sentinels', `own` this one's (-1: none)."""
    cast = [vote for vote in [*votes, own] if vote != NOBODY]
    best = max(sorted(set(cast)), key=cast.count, default=NOBODY)
    return best if best != NOBODY and cast.count(best) >= max(voters // 2 + 1, quorum) else NOBODY


class Failover:
    """The failover of a Sentinel's primary."""

    def __init__(self, sentinel: Sentinel) -> None:
        self.sentinel = sentinel
        self.settings = sentinel.settings
        self.owner = sentinel.owner
        self.reset()

    def reset(self) -> None:
        """None is under way, none was tried (a new primary)."""
        self.state = NONE
        self.epoch = 0
        self.started_at = NEVER
        self.wait_until = 0
        self.changed_at = 0
        self.promoted = NOBODY

    def promoted_master(self) -> int:
        """The new primary, as soon as its promotion was seen; else -1."""
        return self.promoted if self.state >= RECONF else NOBODY

    def voted_for_another(self) -> None:
        """A delay before an own attempt, a little out of step with others'."""
        self.started_at = self.owner.now + self.owner.stream.below(MAX_DESYNC_US)

    def start_if_needed(self, now: int) -> bool:
        """sentinelStartFailoverIfNeeded(), of a primary that is objectively down."""
        if self.state != NONE or now - self.started_at < 2 * self.settings.failover_timeout_us:
            return False
        sentinel, stream = self.sentinel, self.owner.stream
        sentinel.current_epoch += 1
        sentinel.flush()
        self.epoch = sentinel.current_epoch
        self.started_at = now + stream.below(MAX_DESYNC_US)
        self.wait_until = now + self.settings.failover_delay_us + stream.below(self.settings.failover_delay_jitter_us + 1)
        self._go(WAIT_START)
        return True

    def _go(self, state: int) -> None:
        self.state = state
        self.changed_at = self.owner.now

    def _abort(self) -> None:
        if self.promoted != NOBODY:
            self.sentinel.redis[self.promoted].promoted = False
        self.promoted = NOBODY
        self._go(NONE)

    def step(self, now: int) -> None:
        """sentinelFailoverStateMachine(): at most one state a tick."""
        if self.state == WAIT_START:
            self._wait_start(now)
        elif self.state == SELECT:
            self._select(now)
        elif self.state == SEND_NOONE:
            self._send_noone(now)
        elif self.state == WAIT_PROMOTION:
            if now - self.changed_at > self.settings.failover_timeout_us:
                self._abort()
        elif self.state == RECONF:
            self._reconfigure_next(now)

    def _wait_start(self, now: int) -> None:
        if now < self.wait_until:
            return
        if self._leader() == self.owner.node:
            self._go(SELECT)
        elif now - max(self.started_at, self.wait_until) > min(ELECTION_TIMEOUT_US, self.settings.failover_timeout_us):
            self._abort()

    def _leader(self) -> int:
        """sentinelGetLeader(): this Sentinel votes for who leads among the others' votes, or for itself."""
        sentinel = self.sentinel
        votes = [each.leader for each in sentinel.sentinels if each.leader_epoch == sentinel.current_epoch]
        favourite = max(sorted(set(votes) - {NOBODY}), key=votes.count, default=self.owner.node)
        own, epoch = sentinel.vote(self.epoch, favourite)
        return voted_leader(votes, own if epoch == self.epoch else NOBODY, len(sentinel.sentinels) + 1, self.settings.quorum)

    def _select(self, now: int) -> None:
        best = self.best_replica(now)
        if best is None:
            self._abort()
            return
        best.promoted = True
        self.promoted = best.node
        self._go(SEND_NOONE)

    def best_replica(self, now: int) -> Watched | None:
        """sentinelSelectSlave(): among those in touch, by priority, then offset, then run id."""
        sentinel = self.sentinel
        master = sentinel.redis[sentinel.master]
        longest = 10 * self.settings.down_after_us + (now - master.s_down_since if master.s_down else 0)
        validity = 5 * PING_PERIOD_US if master.s_down else 3 * INFO_PERIOD_US
        fit = [
            each
            for each in sentinel.redis
            if each.node != sentinel.master
            and not each.s_down
            and not each.disconnected
            and each.priority
            and now - each.last_avail <= 5 * PING_PERIOD_US
            and now - each.info_at <= validity
            and each.link_down_us <= longest
        ]
        return min(fit, key=lambda each: (each.priority, -each.offset, each.runid), default=None)

    def _send_noone(self, now: int) -> None:
        promoted = self.sentinel.redis[self.promoted]
        if not promoted.disconnected:
            promoted.send(ReplicaOf(NOBODY))
            self._go(WAIT_PROMOTION)
        elif now - self.changed_at > self.settings.failover_timeout_us:
            self._abort()

    def promotion_seen(self, now: int) -> None:
        """INFO shows the promoted replica as a primary: the new configuration has this failover's epoch, and all are told."""
        self.sentinel.config_epoch = self.epoch
        self._go(RECONF)
        self.sentinel.flush()
        self.sentinel.force_hello()

    def _replicas(self) -> list[Watched]:
        sentinel = self.sentinel
        return [sentinel.redis[node] for node in sentinel.order if node not in (sentinel.master, self.promoted)]

    def _reconfigure_next(self, now: int) -> None:
        """sentinelFailoverReconfNextSlave(): also one that is cut off takes its turn, and its slot.  Where INFO does not show for 10 s that it follows, it
        counts as done, and is told once more if its link is there."""
        replicas = self._replicas()
        busy = sum(each.reconf not in (NOT_TOLD, DONE) for each in replicas)
        for each in replicas:
            if busy >= self.settings.parallel_syncs:
                break
            if each.late:
                continue
            if each.reconf == SENT and now - each.reconf_at > RECONF_TIMEOUT_US:
                each.late, each.reconf = True, NOT_TOLD
            if each.reconf == NOT_TOLD and not each.disconnected:
                each.send(ReplicaOf(self.promoted))
                each.reconf, each.reconf_at = SENT, now
                busy += 1
        self._detect_end(now, replicas)

    def _detect_end(self, now: int, replicas: list[Watched]) -> None:
        """sentinelFailoverDetectEnd(): all that are not down are done, or time is up."""
        if self.sentinel.redis[self.promoted].s_down:
            return
        timeout = now - self.changed_at > self.settings.failover_timeout_us
        if timeout:
            for each in replicas:
                if each.reconf == NOT_TOLD and not each.late and not each.disconnected:
                    each.send(ReplicaOf(self.promoted))
        if timeout or all(each.reconf == DONE or each.late or each.s_down for each in replicas):
            self._go(UPDATE_CONFIG)
