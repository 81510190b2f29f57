"""A node's machine in one trial: its host and its process, what is up, paused, slow or skewed, its clock, its disk, its replica.

Decides: what a crash loses and what a restart finds, what a node's clock shows, how much slower it is.  May not know: events and their order (capray.node),
links, other nodes, Ray.
"""

from __future__ import annotations

from typing import Any

from capray.clock import shown
from capray.disk import Disk
from capray.distributions import table
from capray.heap import Entry as Event
from capray.replica import Replica
from capray.scenario import Scenario
from capray.streams import Stream
from capray.tcp import kernel_phase


class Machine:
    """What faults change of a node, and what they leave."""

    __slots__ = ("busy", "closed", "disk", "drift_ppm", "faults", "generation", "host_up", "id", "ignored", "kernel_phase", "offset_us", "paused", "plain",
                 "replica", "scenario", "service_us", "slow", "slow_service_us", "stash", "stream", "tcp", "timers", "touched", "true_clock", "up")

    def __init__(self, scenario: Scenario, node: int, seed: int) -> None:
        self.scenario = scenario
        self.id = node
        self.stream = Stream(seed, "replica", node)
        self.disk = Disk(table(scenario.storage), Stream(seed, "disk", node))
        self.service_us = scenario.service_us
        self.kernel_phase = kernel_phase(seed, node, scenario.wire.one_kernel)
        self.replica: Replica = self._boot()
        self.generation = 0  # of the process: a crash ends all that was under way
        self.up = True
        self.host_up = True
        self.paused: list[int] = []  # the pauses under way
        self.stash: list[Event] = []
        self.closed: set[int] = set()  # peers with which no connection is open, as this node knows
        self.timers: dict[Any, int] = {}
        self.busy = 0  # until when a message is being served
        self.slow = 1
        self.slow_service_us = 0
        self.offset_us = scenario.clock_offset_us[node] if scenario.clock_offset_us else 0
        self.drift_ppm = scenario.clock_drift_ppm[node] if scenario.clock_drift_ppm else 0
        self.true_clock = not (self.offset_us or self.drift_ppm)
        self.touched: dict[int, dict[str, int]] = {}
        self.faults: list[tuple[Any, ...]] = []  # slowness and skews under way
        self.ignored: dict[str, int] = {}
        self.tcp = scenario.transport == "tcp"
        self.plain = False
        self._look()

    def _look(self) -> None:
        """Whether a message can go straight to the replica: nothing is wrong with this node, its clock or its connections."""
        self.plain = self.up and not (self.paused or self.closed or self.service_us or self.slow_service_us or self.busy) and self.true_clock

    def _boot(self) -> Replica:
        replica = self.scenario.policy_class(self.id, self.scenario.nodes, self.scenario.policy_settings, self.stream)
        replica.kernel_phase = self.kernel_phase
        return replica

    def clock(self, t: int) -> int:
        """This node's clock at virtual time `t`."""
        return shown(t, self.offset_us, self.drift_ppm)

    # ---- slow, skewed -----------------------------------------------------------------------------------------------------------------
    def _strain(self, what: str, index: int, factor: int, service_us: int, offset_us: int) -> None:
        """Slowness and clock skew begin and end; several at once add up."""
        if what.startswith("end-"):
            self.faults = [fault for fault in self.faults if fault[0] != index]
        else:
            self.faults.append((index, factor if what == "slow" else 1, service_us if what == "slow" else 0, offset_us if what == "skew" else 0))
            self.touched[index] = {"slowed": 0} if what == "slow" else {"nodes": 1}
        self.slow = max([1, *(fault[1] for fault in self.faults)])
        self.slow_service_us = max([0, *(fault[2] for fault in self.faults)])
        self.offset_us = (self.scenario.clock_offset_us[self.id] if self.scenario.clock_offset_us else 0) + sum(fault[3] for fault in self.faults)
        self.true_clock = not (self.offset_us or self.drift_ppm)

    def _slowed(self) -> None:
        """Count a service or a sync for every slow fault under way."""
        for index, *_ in self.faults:
            if "slowed" in self.touched[index]:
                self.touched[index]["slowed"] += 1

    # ---- paused -----------------------------------------------------------------------------------------------------------------------
    def _pause(self, index: int) -> None:
        self.paused += [index] if self.up else []
        self.touched[index] = {"held": 0}
        self._look()

    def _resume(self, index: int) -> list[Event]:
        """The process goes on, unless another pause is under way: what waited, in the order in which it came."""
        if index not in self.paused:
            return []
        self.paused.remove(index)
        if self.paused:
            return []
        waiting, self.stash = self.stash, []
        self._look()
        return waiting

    def _hold(self, event: Event) -> None:
        self.stash.append(event)
        self.touched[self.paused[-1]]["held"] += 1

    def _ignore(self, why: str) -> None:
        self.ignored[why] = self.ignored.get(why, 0) + 1

    # ---- down -------------------------------------------------------------------------------------------------------------------------
    def _crash(self, host: bool, index: int) -> None:
        unsynced = self.disk.crash(host)
        self.host_up = self.host_up and not host
        self.touched[index] = {"processes": int(self.up), "unsynced": unsynced}
        self.up = self.plain = False
        self.generation += 1
        self.timers, self.stash, self.paused, self.busy = {}, [], [], 0
        self.closed = {peer for peer in range(self.scenario.nodes) if peer != self.id} if self.tcp else self.closed
        self.replica.effects = []

    def _restart(self, t: int) -> bool:
        """The process boots again and is told what its disk kept; False where it is up already."""
        if self.up:
            return False
        self.up = self.host_up = True
        self._look()
        self.replica = self._boot()
        self.replica.now = self.clock(t)
        if self.disk.forgot:  # whatever it announces now or later, it does not hold what it held
            Replica.applied(self.replica, "", None, (0,))
        self.replica.on_restart(self.disk.recover())
        return True
