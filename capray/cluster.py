"""An interactive cluster for a notebook or a REPL: the engine of the trials, driven by hand, one call at a time.

Decides: how a person's calls become requests, faults and steps of virtual time.  May not know: policies, Ray (`engine="actors"` asks capray.actors).
Nothing happens by itself: there is no load, and virtual time moves only in `write`, `read` and `advance`.  Both engines leave the same record.
"""

from __future__ import annotations

from typing import Any, Protocol, Self

import msgspec

from capray.distributions import AnyDistribution
from capray.errors import InputError, duration_us, show_us, wrong
from capray.faults import Fault
from capray.links import Link
from capray.record import Operation, Record
from capray.scenario import Scenario
from capray.trial import Trial
from capray.workload import Workload

FOREVER_US = 1 << 44  # about 200 days of virtual time: an interactive cluster does not end by itself
STEP_US = 1_000  # time moves in such steps while an answer is awaited


class ByHand(Protocol):
    """What drives the trial: in this process, or on actors (capray.byhand.HandDriven)."""

    def advance(self, until: int) -> None: ...
    def ask(self, at: int, node: int, f: str, key: str, value: Any, step: int) -> tuple[int, Operation]: ...
    def begin_fault(self, at: int, fault: Fault) -> int: ...
    def end_fault(self, at: int, index: int) -> None: ...
    def peek(self, node: int, key: str) -> Any: ...
    def roles(self) -> dict[int, str]: ...
    def record(self, end: int) -> Record: ...
    def close(self) -> None: ...


class InProcess:
    """The engine `local`, by hand."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self.trial = Trial(scenario, seed)

    def advance(self, until: int) -> None:
        """Run everything up to and including `until`."""
        self.trial.advance(until)

    def ask(self, at: int, node: int, f: str, key: str, value: Any, step: int) -> tuple[int, Operation]:
        """Ask, and let time pass in steps until the client has its answer or gives up.  Returns when that is, and the operation."""
        client = self.trial.nodes[node].client
        request = self.trial.nodes[node].call(at, f, key, value)
        while request in client.open:
            at += step
            self.trial.advance(at)
        return at, client.history[-1]

    def begin_fault(self, at: int, fault: Fault) -> int:
        """A fault begins now; its index."""
        return self.trial.network.begin(at, fault)

    def end_fault(self, at: int, index: int) -> None:
        """A fault ends now."""
        self.trial.network.end_fault(at, index)

    def peek(self, node: int, key: str) -> Any:
        """What a replica holds; None where its process is down."""
        return self.trial.nodes[node].peek(key)

    def roles(self) -> dict[int, str]:
        """The newest role that each node announced."""
        return dict(self.trial.network.roles)

    def record(self, end: int) -> Record:
        """All that happened up to `end`."""
        return self.trial.record(end)

    def close(self) -> None:
        """Nothing to end."""


class Cluster:
    """A replicated store to play with.

        cluster = Cluster("cassandra", nodes=5, replication_factor=5, read_consistency="ONE")
        cluster.write(0, "x", 1)                # a client beside node 0 writes; the Operation says ok, fail or info, and when
        cluster.partition("0,1|2,3,4")          # or a shape's name: halves, isolate-leader, one-way, bridge, ring, ...
        cluster.write(4, "x", 2)
        cluster.read(0, "x").result             # -> 1, or whatever this store answers across a cut
        cluster.data("x")                       # -> {0: 1, 1: 1, 2: 2, 3: 2, 4: 2}
        cluster.heal()
        cluster.advance("5s")

    `policy` and its settings are those of `capray policies`; `link` and `disk` a preset's name or the thing itself; `deadline` how long a client
    waits for an answer; `cut_mode` what a cut does to messages; further scenario fields (`service_us`, `clock_offset_us`) go in `scenario`.
    `engine`: `local` (this process) or `actors` (each node a Ray actor; `address` of a running Ray cluster, or None to start one here).
    Raises InputError, one line, for anything that cannot be.
    """

    def __init__(self, policy: str = "zookeeper", nodes: int = 5, *, link: str | Link = "lan", disk: str | AnyDistribution = "ssd", seed: int = 0,
                 engine: str = "local", deadline: str | int = "1s", cut_mode: str = "policy", address: str | None = None,
                 scenario: dict[str, Any] | None = None, **settings: Any) -> None:
        free = ("service_us", "clock_offset_us", "clock_drift_ppm", "trace_us")
        for name in scenario or {}:
            if name not in free:
                raise wrong("scenario", name, "the further fields " + ", ".join(free))
        self.scenario = Scenario(
            policy=policy, settings=settings, nodes=nodes, link=link, disk=disk, cut_mode=cut_mode, duration_us=FOREVER_US,
            workload=Workload(rate=0, keys=1, deadline_us=duration_us(deadline, "deadline")), **(scenario or {})).resolved()
        self.seed = seed
        self.now = 0
        self.engine: ByHand
        if engine == "local":
            self.engine = InProcess(self.scenario, seed)
        elif engine == "actors":
            from capray.byhand import HandDriven

            self.engine = HandDriven(self.scenario, seed, address)
        else:
            raise wrong("engine", engine, "local or actors")
        self.active: dict[int, Fault] = {}  # faults that were begun by hand and not ended
        self.since: dict[int, int] = {}
        self.engine.advance(0)

    # ---- what a client does ------------------------------------------------------------------------------------------------------
    def write(self, node: int, key: str, value: Any) -> Operation:
        """A client beside `node` writes.  Time passes until it is answered, or its deadline is over: then the operation is `info`."""
        if value is None:
            raise wrong("value", value, "anything but None, which means that a key has no value")
        return self._ask(node, "write", key, value)

    def read(self, node: int, key: str) -> Operation:
        """A client beside `node` reads: `result` has the value (None: the key has none).  Unanswered, it is `fail`."""
        return self._ask(node, "read", key, None)

    def delete(self, node: int, key: str, element: Any = None) -> Operation:
        """A client beside `node` deletes the key; of a set (crdt's or-set) it removes `element`.  Raises InputError where the policy's clients cannot."""
        f = self.scenario.policy_class.deletes(self.scenario.policy_settings)
        if f not in ("delete", "remove"):
            raise wrong("delete", key, f"no key: {self.scenario.policy}'s clients, as set, cannot delete")
        if (f == "remove") != (element is not None):
            raise wrong("element", element, "an element of the set" if f == "remove" else "None: the key is no set")
        return self._ask(node, f, key, element)

    def _ask(self, node: int, f: str, key: str, value: Any) -> Operation:
        self._check(node)
        if not isinstance(key, str):
            raise wrong("key", key, "a string")
        self.now, operation = self.engine.ask(self.now, node, f, key, value, STEP_US)
        return operation

    # ---- time ----------------------------------------------------------------------------------------------------------------------
    def advance(self, duration: str | int) -> Cluster:
        """Let virtual time pass: `5s`, `200ms`, or microseconds."""
        self.now += duration_us(duration, "advance")
        self.engine.advance(self.now)
        return self

    # ---- what goes wrong -----------------------------------------------------------------------------------------------------------
    def begin(self, fault: Fault) -> int:
        """Any fault begins now (its `at_us` and `for_us` are ignored).  Returns its number, for `end`."""
        fault = _lasting(fault)
        for problem in fault.problems(self.scenario.nodes):
            raise InputError(problem)
        number = self.engine.begin_fault(self.now, fault)
        self.active[number], self.since[number] = fault, self.now
        self.engine.advance(self.now)
        return number

    def end(self, number: int) -> None:
        """A fault ends now."""
        if self.active.pop(number, None) is None:
            raise wrong("fault", number, "the number of a fault under way: " + (", ".join(map(str, self.active)) or "there is none"))
        self.engine.end_fault(self.now, number)
        self.engine.advance(self.now)

    def partition(self, groups: str) -> Cluster:
        """Cut the network: groups (`0,1|2,3,4`) or a shape's name.  Cuts add up until `heal`."""
        self.begin(Fault(shape=groups))
        return self

    def heal(self) -> Cluster:
        """End every cut."""
        for number in [number for number, fault in self.active.items() if fault.kind == "partition"]:
            self.end(number)
        return self

    def crash(self, node: int, host: bool = False) -> Cluster:
        """The process on `node` dies (its peers notice at once), or with `host` the whole machine (they see only silence; unsynced data is lost)."""
        if self._under_way(node, "crash-process", "crash-host") is not None:
            raise wrong("node", node, "a node that is up")
        self._check(node)
        self.begin(Fault(kind="crash-host" if host else "crash-process", nodes=(node,)))
        return self

    def restart(self, node: int) -> Cluster:
        """Boot the crashed process or machine again, from its journal."""
        return self._end_of(node, "a crashed node", "crash-process", "crash-host")

    def pause(self, node: int) -> Cluster:
        """Stop the process (as SIGSTOP, or a long garbage collection): it is silent, and nothing is lost."""
        if self._under_way(node, "pause") is not None:
            raise wrong("node", node, "a node that is not paused")
        self._check(node)
        self.begin(Fault(kind="pause", nodes=(node,)))
        return self

    def resume(self, node: int) -> Cluster:
        """The paused process goes on."""
        return self._end_of(node, "a paused node", "pause")

    def _under_way(self, node: int, *kinds: str) -> int | None:
        return next((number for number, fault in self.active.items() if fault.kind in kinds and node in fault.nodes), None)

    def _end_of(self, node: int, accepts: str, *kinds: str) -> Cluster:
        number = self._under_way(node, *kinds)
        if number is None:
            raise wrong("node", node, accepts)
        self.end(number)
        return self

    def _check(self, node: int) -> None:
        if not isinstance(node, int) or not 0 <= node < self.scenario.nodes:
            raise wrong("node", node, f"a whole number from 0 to {self.scenario.nodes - 1}")

    # ---- what there is to see --------------------------------------------------------------------------------------------------------
    def data(self, key: str) -> dict[int, Any]:
        """What each replica holds for `key` right now; None where it holds nothing or its process is down."""
        return {node: self.engine.peek(node, key) for node in range(self.scenario.nodes)}

    @property
    def roles(self) -> dict[int, str]:
        """The newest role that each node announced (`leader`, `follower`, ...), for policies that have roles."""
        return dict(sorted(self.engine.roles().items()))

    @property
    def history(self) -> list[Operation]:
        """Every operation so far, by its invocation: what the checkers take."""
        return self.record().history

    def record(self) -> Record:
        """All that the cluster left up to now, as a trial's record: history, faults, versions, counters."""
        return self.engine.record(self.now)

    def close(self) -> None:
        """End the actors, where there are any."""
        self.engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        parts = [f"{self.scenario.policy}, {self.scenario.nodes} node{'s' if self.scenario.nodes > 1 else ''}, at {show_us(self.now)}"]
        leaders = [str(node) for node, role in self.roles.items() if role == "leader"]
        if leaders:
            parts.append(f"leading: {', '.join(leaders)}")
        parts += [_describe(fault, self.since[number]) for number, fault in self.active.items()]
        outcomes = [operation.type for operation in self.history]
        parts.append(", ".join(f"{outcomes.count(kind)} {kind}" for kind in ("ok", "fail", "info") if kind in outcomes) or "nothing asked yet")
        return f"<Cluster {'; '.join(parts)}>"


def _lasting(fault: Fault) -> Fault:
    """The same fault from now on, until it is ended by hand."""
    return msgspec.structs.replace(fault, at_us=0, for_us=0, on_role="")


def _describe(fault: Fault, since: int) -> str:
    what = {"partition": f"cut {fault.shape}", "crash-process": "down", "crash-host": "host down", "pause": "paused"}.get(fault.kind, fault.kind)
    where = "" if fault.kind == "partition" else " " + (", ".join(map(str, fault.nodes)) or "leader")
    return f"{what}{where} since {show_us(since)}"
