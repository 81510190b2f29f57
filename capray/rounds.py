"""One round over all node actors: each gets its orders, each gives its report.

Decides: how bytes travel between the network actor and its node actors.  May not know: what they say.
The node actors and the network actor are joined by a Ray compiled graph: on two slow cores a round over 5 actors costs 1.2 ms (1.7 ms of
processor time) where plain actor calls cost 3.4 (4.7), over 25 actors 11 ms where they cost 31.  While the graph stands, its actors answer
nothing else, so taking on trials and handing in what they leave travel with the rounds.
Where node actors stand on several machines, rounds are plain calls: with two rounds of varying sizes under way, Ray 2.60's compiled graphs lose messages
between machines and hang (seen with three raylets after some hundred rounds; github.com/ray-project/ray/issues/58426 has the cause), and the death of
a machine ends a plain call at once.
"""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError

from capray.scenario import Scenario
from capray.watchdog import Watchdog
from capray.windows import NodeHost

Opening = tuple[int, int, Scenario, int]  # (slot, node, scenario, seed)
BUFFER_BYTES = 16_000_000  # of a channel; a report larger than a part of it is handed in over several rounds
PART_BYTES = 4_000_000
PATIENCE_S = 3600.0  # a round of a heavily loaded machine may take minutes; a dead actor is noticed at once all the same
ALIVE_WITHIN_S = 60.0


class HostsDied(Exception):
    """At least one node actor is dead: whatever its round was, it is lost."""


def tune() -> None:
    """Rare garbage collections: a worker's garbage is counted, not cyclic."""
    gc.set_threshold(200_000, 20, 20)


class NodeActor(NodeHost):
    """A node of the simulated cluster, one hosted node for each trial in flight.  A plain class, made an actor by `ray.remote`."""

    def __init__(self, title: str = "node") -> None:
        """`title`: what it is called in Ray's dashboard and logs."""
        tune()
        super().__init__()
        self.title = title
        self.watchdog = Watchdog()
        self.leaving: list[tuple[int, int, bytes]] = []  # what ended trials left and has not been handed in

    def __repr__(self) -> str:
        return self.title or "node"

    def machine(self) -> str:
        """The Ray id of the machine that this actor is on."""
        return str(ray.get_runtime_context().get_node_id())

    def process_id(self) -> int:
        """The process that this actor is."""
        return os.getpid()

    def serve(self, order: bytes) -> bytes:
        """One round: what ended is handed in (in parts, if it is large), what is new is taken on, then the windows are run."""
        if not order:
            return b""
        opens, orders, closes = pickle.loads(order)
        for slot, node in closes:
            self.leaving.append((slot, node, self.finish(slot, node)))
        if opens:
            self.open(opens)
        self.watchdog.begin()
        report = self.round(orders)
        self.watchdog.end()
        return pickle.dumps((report, self._hand_in()))

    def _hand_in(self) -> list[tuple[int, int, bytes, bool]]:
        """Parts of what is left, (slot, node, bytes, last), up to PART_BYTES a round."""
        parts, room = [], PART_BYTES
        while self.leaving and room > 0:
            slot, node, data = self.leaving[0]
            parts.append((slot, node, data[:room], len(data) <= room))
            if len(data) > room:
                self.leaving[0] = (slot, node, data[room:])
            else:
                self.leaving.pop(0)
            room -= len(data)
        return parts


def rounds_over(hosts: list[Any]) -> Rounds | Calls:
    """What carries rounds over these node actors.  Raises HostsDied."""
    try:
        machines = set(ray.get([host.machine.remote() for host in hosts], timeout=PATIENCE_S))
    except RayError as error:
        raise HostsDied from error
    return Rounds(hosts) if machines == {str(ray.get_runtime_context().get_node_id())} else Calls(hosts)


class Calls:
    """Plain calls of node actors, wherever they are."""

    def __init__(self, hosts: list[Any]) -> None:
        self.hosts = hosts

    def submit(self, orders: list[bytes]) -> Any:
        """Send every actor that has something to do its order."""
        return [host.serve.remote(order) if order else None for host, order in zip(self.hosts, orders)]

    def collect(self, round_: Any) -> list[bytes]:
        """Every actor's report (empty: it had nothing to do).  Raises HostsDied."""
        try:
            found = iter(ray.get([call for call in round_ if call is not None], timeout=PATIENCE_S))
        except RayTaskError:
            raise  # ours, not a machine's
        except RayError as error:
            raise HostsDied from error
        return [next(found) if call is not None else b"" for call in round_]

    def close(self) -> None:
        """Nothing stands in the way of other calls."""


class Rounds:
    """A compiled graph over some node actors."""

    def __init__(self, hosts: list[Any]) -> None:
        from ray.dag import InputNode, MultiOutputNode
        from ray.dag.context import DAGContext

        context = DAGContext.get_current()
        context.submit_timeout = context.get_timeout = int(PATIENCE_S)
        self.hosts = hosts
        with InputNode() as order:
            graph = MultiOutputNode([host.serve.bind(order[i]) for i, host in enumerate(hosts)])
        try:
            self.graph = graph.experimental_compile(_buffer_size_bytes=BUFFER_BYTES)
        except RayError as error:
            raise HostsDied from error

    def submit(self, orders: list[bytes]) -> Any:
        """Send every actor its order (empty: it has nothing to do).  Raises HostsDied."""
        try:
            return self.graph.execute(*orders)
        except RayError as error:
            raise HostsDied from error

    def collect(self, round_: Any) -> list[bytes]:
        """Every actor's report.  Raises HostsDied."""
        try:
            return list(ray.get(round_, timeout=PATIENCE_S))
        except RayError as error:
            raise HostsDied from error

    def close(self) -> None:
        """Take the graph down; its actors answer plain calls again."""
        with contextlib.suppress(Exception):  # the actors that it would tell may be dead
            self.graph.teardown()


def living(hosts: list[Any]) -> list[bool]:
    """Which of these actors still answer (no graph may stand over them)."""
    out = []
    for call in [host.process_id.remote() for host in hosts]:
        try:
            ray.get(call, timeout=ALIVE_WITHIN_S)
            out.append(True)
        except (RayError, GetTimeoutError):
            out.append(False)
    return out
