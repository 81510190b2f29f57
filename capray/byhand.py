"""One trial on actors of its own, driven by hand: what the interactive cluster runs on with `engine="actors"`.

Decides: which calls of the network actor a hand-driven trial makes.  May not know: policies.
"""

from __future__ import annotations

from typing import Any

import msgspec
import ray

from capray.actors import NetworkActor
from capray.raycluster import start_ray
from capray.record import Operation, Record
from capray.scenario import Scenario

_record_decoder = msgspec.msgpack.Decoder(Record)
_operation_decoder = msgspec.msgpack.Decoder(Operation)


class HandDriven:
    """One trial on actors of its own, driven by hand from here: what the interactive cluster runs on with `engine="actors"`."""

    def __init__(self, scenario: Scenario, seed: int, address: str | None = None) -> None:
        start_ray(address)
        self.network = ray.remote(NetworkActor).options(num_cpus=0).remote()
        ray.get(self.network.open.remote(scenario, seed))

    def advance(self, until: int) -> None:
        """Run everything up to and including `until`."""
        ray.get(self.network.advance.remote(until))

    def ask(self, at: int, node: int, f: str, key: str, value: Any, step: int) -> tuple[int, Operation]:
        """Ask, and let time pass in steps until the operation is over.  Returns when that is, and the operation."""
        now, operation = ray.get(self.network.ask.remote(at, node, f, key, value, step))
        return int(now), _operation_decoder.decode(operation)

    def begin_fault(self, at: int, fault: Any) -> int:
        """A fault begins now; its index."""
        return int(ray.get(self.network.begin_fault.remote(at, fault)))

    def end_fault(self, at: int, index: int) -> None:
        """A fault ends now."""
        ray.get(self.network.end_fault.remote(at, index))

    def peek(self, node: int, key: str) -> Any:
        """What a replica holds; None where its process is down."""
        return ray.get(self.network.peek.remote(node, key))

    def roles(self) -> dict[int, str]:
        """The newest role that each node announced."""
        return dict(ray.get(self.network.roles.remote()))

    def record(self, end: int) -> Record:
        """All that happened up to `end`."""
        return _record_decoder.decode(ray.get(self.network.record.remote(end)))

    def close(self) -> None:
        """End the actors."""
        if ray.is_initialized():
            ray.kill(self.network)
