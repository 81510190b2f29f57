"""A Sentinel: sentinel.c of Redis 7.0, and "High availability with Redis Sentinel" of its documentation.

Decides: when the primary is down (SDOWN, ODOWN), whom to vote for, who is primary for this node's clients, whom to reconfigure.
May not know: who is reachable; it pings.
Every 52 to 100 ms (1000 / hz, hz 10 to 19 drawn anew each time) it looks after each process: PING each second, INFO each 10 s (each second to
replicas while the primary is down or their link to it is), a hello each 2 s: to each Redis, which relays it, and to each Sentinel.
SDOWN: no answer for down-after.  ODOWN: `quorum` Sentinels say so when asked (SENTINEL is-master-down-by-addr, each second).  Then the failover
of failover.py.  A hello with a higher configuration epoch changes the primary ("+switch-master").
A replica that reports to be a primary is told to follow ("+convert-to-slave") when it has been so for 8 s of stability at an INFO: 10 s after it is
seen again.  One that follows another primary ("+fix-slave-config") after failover-timeout.
TILT: where the timer sees the clock jump, or itself held for 2 s, it acts on nothing for 30 s.
Simplified, and why: no discovery (a trial begins with a settled cluster, as the measured runs did), no scripts, no authentication.
A Redis relays only hellos that bring news: others change nothing at a Sentinel, and would be most of all messages.  What is not answered is asked
again after 1 s (INFO) or half a second (is-master-down-by-addr), and not while its link is being dialled: sentinel.c asks at each tick, and all of
that arrives together.
"""

from __future__ import annotations

from typing import Any, ClassVar

from capray.policies.redis.failover import NONE, UPDATE_CONFIG, WAIT_PROMOTION, Failover
from capray.policies.redis.messages import (
    NOBODY,
    Hello,
    Info,
    InfoReply,
    IsMasterDown,
    IsMasterDownReply,
    Pong,
    Publish,
    ReplicaOf,
)
from capray.policies.redis.paths import NEVER, Paths
from capray.policies.redis.settings import RedisSettings
from capray.policies.redis.watched import DONE, IN_PROGRESS, INFO_PERIOD_US, PING_PERIOD_US, PUBLISH_PERIOD_US, SENT, Watched
from capray.replica import Replica

ASK_PERIOD_US = 1_000_000
TILT_TRIGGER_US = 2_000_000
TILT_PERIOD_US = 30_000_000
STABLE_US = 4 * PUBLISH_PERIOD_US


class Sentinel:
    """One node's Sentinel."""

    FAILOVER: ClassVar[type[Failover]] = Failover

    def __init__(self, owner: Replica, settings: RedisSettings, paths: Paths) -> None:
        self.owner = owner
        self.settings = settings
        self.paths = paths
        self.master = settings.primary
        self.redis = [Watched(node, False, paths) for node in range(owner.nodes)]
        self.sentinels = [Watched(node, True, paths) for node in range(owner.nodes) if node != owner.node]
        self.sentinel_of = {each.node: each for each in self.sentinels}
        self.current_epoch = 0
        self.config_epoch = 0
        self.leader = NOBODY  # this Sentinel's vote
        self.leader_epoch = 0
        self.o_down = False
        self.o_down_since = NEVER
        self.failover = self.FAILOVER(self)
        self.tilt_since = NEVER
        self.told = False  # some other Sentinel's word may still count
        self.previous = 0
        self.order = self._shuffled(owner)

    @staticmethod
    def _shuffled(owner: Replica) -> list[int]:
        """The order of its table of replicas, which is a hash table with a random seed."""
        order = list(range(owner.nodes))
        for i in range(len(order) - 1, 0, -1):
            j = owner.stream.below(i + 1)
            order[i], order[j] = order[j], order[i]
        return order

    # ---- a process's life ---------------------------------------------------------------------------------------------------------
    def boot(self) -> None:
        """All start at this instant, as by a script: pings are due at the first tick, in step until the random ticks spread them.  Replicas and Sentinels are
        known, links are old.  Nobody knows in which part of the hellos' 2 s and of INFO's 10 s a cut comes: each Sentinel has phases of its own."""
        now = self.owner.now
        published = now - self.owner.stream.below(PUBLISH_PERIOD_US)
        informed = now - self.owner.stream.below(INFO_PERIOD_US)
        for each in [*self.redis, *self.sentinels]:
            each.last_ping = each.last_pong = each.last_avail = now - 2 * PING_PERIOD_US
            each.published_at = now
            each.last_publish = published
            each.info_at = informed
            each.role_since = each.master_since = now - INFO_PERIOD_US
            each.master = NOBODY if each.node == self.master else self.master
            if self.settings.replica_priorities and not each.sentinel:
                each.priority = self.settings.replica_priorities[each.node]
        self.previous = now
        self._arm()

    def reboot(self, journal: list[Any]) -> None:
        """sentinel.conf holds epochs, vote and primary."""
        for record in journal:
            if record[0] == "sentinel":
                _, self.current_epoch, self.config_epoch, self.master, self.leader, self.leader_epoch = record
        for each in [*self.redis, *self.sentinels]:
            each.reset(self.owner.now, NOBODY if each.node == self.master else self.master)
        self.previous = self.owner.now
        self._arm()

    def flush(self) -> None:
        """Write sentinel.conf; what follows waits for it."""
        self.owner.persist(("sentinel", self.current_epoch, self.config_epoch, self.current_master, self.leader, self.leader_epoch))

    def _arm(self) -> None:
        self.owner.set_timer("sentinel", 1_000_000 // (10 + self.owner.stream.below(10)))

    @property
    def current_master(self) -> int:
        """SENTINEL get-master-addr-by-name."""
        promoted = self.failover.promoted_master()
        return self.master if promoted == NOBODY else promoted

    # ---- the timer ----------------------------------------------------------------------------------------------------------------
    def on_timer(self) -> None:
        """sentinelTimer()."""
        now = self.owner.now
        self._arm()
        if not 0 <= now - self.previous <= TILT_TRIGGER_US:
            self.tilt_since = now
        self.previous = now
        acts = now - self.tilt_since > TILT_PERIOD_US
        before = self.urgent
        self._look_after_master(now, acts)
        if self.urgent != before:
            self._all_due()
        for node in self.order:
            each = self.redis[node]
            if now >= each.due and node != self.master:
                self._look_after(each, now, acts)
        for each in self.sentinels:
            if now >= each.due:
                self._look_after(each, now, acts)
        if self.failover.state == UPDATE_CONFIG:
            self.switch_master(self.failover.promoted)

    def _look_after_master(self, now: int, acts: bool) -> None:
        master = self.redis[self.master]
        if now >= master.due:
            self._look_after(master, now, acts)
        if not acts:
            return
        if master.s_down or self.o_down:
            self._check_objectively_down(now)
        if self.o_down and self.failover.start_if_needed(now):
            self.ask_others(now, forced=True)
        self.failover.step(now)
        if master.s_down:
            self.ask_others(now)
        elif self.told:
            self._forget_old_answers(now)

    def _look_after(self, each: Watched, now: int, acts: bool) -> None:
        """sentinelHandleRedisInstance(): link, commands, subjective state."""
        each.reconnect(now)
        if not each.disconnected:
            self._send_periodic(each, now)
        if acts:
            if each.check_links(now, self.settings.down_after_us):
                self.paths.drop(each.node)
            each.check_down(now, self.settings, each is self.redis[self.master])
        each.due = each.next_due(now, self.settings, self._info_period(each)) if acts else now

    @property
    def urgent(self) -> bool:
        """The primary is down, or a failover is under way."""
        return self.o_down or self.failover.state != NONE

    def _info_period(self, each: Watched) -> int:
        return PING_PERIOD_US if each.node != self.master and (each.link_down_us or self.urgent) else INFO_PERIOD_US

    def _all_due(self) -> None:
        for each in [*self.redis, *self.sentinels]:
            each.due = NEVER

    def _send_periodic(self, each: Watched, now: int) -> None:
        if not each.sentinel and now - each.info_at > self._info_period(each) and now - each.info_asked > PING_PERIOD_US:
            each.info_asked = now
            each.post(Info())
        period = min(PING_PERIOD_US, self.settings.down_after_us)
        if now - each.last_pong > period and now - each.last_ping > period // 2:
            each.ping(now)
        if now - each.last_publish > PUBLISH_PERIOD_US:
            each.last_publish = now
            hello = Hello if each.sentinel else Publish
            each.post(hello(self.owner.node, self.current_epoch, self.current_master, self.config_epoch))

    def force_hello(self) -> None:
        """The configuration has changed: tell everybody at the next tick."""
        for each in [*self.redis, *self.sentinels]:
            each.last_publish = NEVER
        self._all_due()

    # ---- is the primary down? -----------------------------------------------------------------------------------------------------
    def _check_objectively_down(self, now: int) -> None:
        agree = 1 + sum(each.says_down for each in self.sentinels)
        down = self.redis[self.master].s_down and agree >= self.settings.quorum
        if down and not self.o_down:
            self.o_down_since = now
        self.o_down = down

    def ask_others(self, now: int, forced: bool = False) -> None:
        """sentinelAskMasterStateToOtherSentinels()."""
        candidate = self.owner.node if self.failover.state != NONE else NOBODY
        self._forget_old_answers(now)
        for each in self.sentinels:
            recent = now - each.answered_at < ASK_PERIOD_US or now - each.asked_at < ASK_PERIOD_US // 2
            if each.disconnected or (recent and not forced):
                continue
            each.asked_at = now
            each.post(IsMasterDown(self.master, self.current_epoch, candidate))

    def _forget_old_answers(self, now: int) -> None:
        """"If the master state from other sentinel is too old, we clear it": also where this Sentinel hears the primary, and asks nobody."""
        self.told = False
        for each in self.sentinels:
            if now - each.answered_at > 5 * ASK_PERIOD_US:
                each.says_down = False
                each.leader = NOBODY
            else:
                self.told = True

    def on_is_master_down(self, src: int, message: IsMasterDown) -> None:
        """Another Sentinel asks, and may want a vote."""
        known = message.master == self.master
        tilt = self.owner.now - self.tilt_since <= TILT_PERIOD_US
        down = known and not tilt and self.redis[self.master].s_down
        leader, epoch = (NOBODY, 0)
        if known and message.candidate != NOBODY:
            leader, epoch = self.vote(message.epoch, message.candidate)
        self.paths.post(src, IsMasterDownReply(down, leader, epoch))

    def on_is_master_down_reply(self, src: int, message: IsMasterDownReply) -> None:
        """What another Sentinel thinks, and its vote."""
        each = self.sentinel_of[src]
        each.answered_at = self.owner.now
        each.says_down = message.down
        self.told = True
        if message.leader != NOBODY:
            each.leader, each.leader_epoch = message.leader, message.epoch

    def vote(self, epoch: int, candidate: int) -> tuple[int, int]:
        """sentinelVoteLeader(): first come, first served, once an epoch; on disk before it is told."""
        if epoch > self.current_epoch:
            self.current_epoch = epoch
            self.flush()
        if self.leader_epoch < epoch and self.current_epoch <= epoch:
            self.leader, self.leader_epoch = candidate, self.current_epoch
            self.flush()
            if candidate != self.owner.node:
                self.failover.voted_for_another()
        return self.leader, self.leader_epoch

    # ---- hellos -------------------------------------------------------------------------------------------------------------------
    def on_hello(self, src: int, message: Hello) -> None:
        """sentinelProcessHelloMessage(): the highest configuration epoch wins."""
        if message.sender == self.owner.node or (message.relayed and not self.redis[src].hears(self.owner.now)):
            return
        if message.epoch > self.current_epoch:
            self.current_epoch = message.epoch
            self.flush()
        if message.config_epoch > self.config_epoch:
            self.config_epoch = message.config_epoch
            if message.master != self.master:
                self.switch_master(message.master)
            else:
                self.flush()

    def switch_master(self, master: int) -> None:
        """+switch-master: everything about the old one is forgotten, the old one is a replica from now on."""
        now = self.owner.now
        self.master = master
        self.o_down = False
        self.failover.reset()
        self.leader = NOBODY
        for each in self.redis:
            each.reset(now, NOBODY if each.node == master else master)
        for each in self.sentinels:
            each.says_down, each.leader = False, NOBODY
        self.flush()

    # ---- answers ------------------------------------------------------------------------------------------------------------------
    def on_pong(self, src: int, message: Pong) -> None:
        """A process answers."""
        (self.sentinel_of[src] if message.sentinel else self.redis[src]).pong(self.owner.now, message.quiet_us)

    def on_info(self, src: int, message: InfoReply) -> None:
        """sentinelRefreshInstanceInfo()."""
        now, each = self.owner.now, self.redis[src]
        each.info_at, each.due = now, NEVER
        if (message.master == NOBODY) != (each.master == NOBODY):
            each.role_since = now
        if message.master != each.master:
            each.master, each.master_since = message.master, now
        each.link_up, each.link_down_us, each.runid = message.link_up, message.link_down_us, message.runid
        if message.master != NOBODY:  # slave_priority and slave_repl_offset: a primary's own are not read
            each.priority, each.offset = message.priority, message.offset
        if src == self.master or now - self.tilt_since <= TILT_PERIOD_US:
            return
        if each.master == NOBODY:
            if each.promoted and self.failover.state == WAIT_PROMOTION:
                self.failover.promotion_seen(now)
            elif not each.promoted and self._looks_sane(now) and self._no_down_for(each, STABLE_US) and now - each.role_since > STABLE_US:
                each.send(ReplicaOf(self.master))
            return
        wait = self.settings.failover_timeout_us
        astray = each.master not in (self.master, self.current_master) and each.reconf != SENT and now - each.master_since > wait
        if astray and self._looks_sane(now) and self._no_down_for(each, wait):
            each.send(ReplicaOf(self.master))
        if each.reconf == SENT and each.master == self.failover.promoted:
            each.reconf = IN_PROGRESS
        if each.reconf == IN_PROGRESS and each.link_up:
            each.reconf = DONE

    def _looks_sane(self, now: int) -> bool:
        master = self.redis[self.master]
        return master.master == NOBODY and not master.s_down and not self.o_down and now - master.info_at < 2 * INFO_PERIOD_US

    def _no_down_for(self, each: Watched, us: int) -> bool:
        return self.owner.now - each.s_down_since > us

    # ---- paths --------------------------------------------------------------------------------------------------------------------
    def opened(self, peer: int) -> None:
        """The path to a node is open again."""
        for each in (self.redis[peer], self.sentinel_of[peer]):
            each.opened(self.owner.now)

    def closed(self, peer: int) -> None:
        """It was reset, or refused."""
        for each in (self.redis[peer], self.sentinel_of[peer]):
            each.closed()

    def lost(self, peer: int) -> None:
        """It was given up on this side."""
        for each in (self.redis[peer], self.sentinel_of[peer]):
            each.due = NEVER
