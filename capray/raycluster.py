"""The Ray cluster itself: started or found, its machines, its head's death.

Decides: which cluster this process belongs to, how long a silent head is waited for, on which machine a node actor stands.  May not know: what the actors do.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from typing import Any

import ray

from capray.errors import InputError

HEAD_GONE_S = 30.0  # half of what Ray waits (gcs_rpc_server_reconnect_timeout_s)
LOOK_EVERY_S = 5.0


def start_ray(address: str | None = None) -> None:
    """Connect to the Ray cluster at `address` (`auto`: the running one), or start one on this machine.  Raises InputError where none answers."""
    if ray.is_initialized():
        return
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
    try:
        if address is None:
            ray.init(address="local", include_dashboard=False, **options)  # not a cluster that happens to run here
        else:
            _knock(address)
            ray.init(address=address, **options)
    except Exception as error:  # noqa: BLE001  Ray raises bare Exceptions too, where a machine is too busy to start it
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if address is None:
            raise InputError(f"engine: 'actors' is not accepted; it takes a machine on which Ray starts ({first[:160]})") from None
        raise InputError(f"address: {address!r} is not accepted; it takes the address of a running Ray cluster, or auto ({first[:160]})") from None
    if not (address or "").startswith("ray://"):
        threading.Thread(target=_watch_head, args=(ray.get_runtime_context().gcs_address,), daemon=True).start()


def _watch_head(gcs: str) -> None:
    """End this process with one line where the cluster's head (`host:port` of its control store) has not answered for HEAD_GONE_S.  Ray would do the
    same a minute after the death, with a line about its own inside, and until then whatever asks the head hangs; so no error is raised into it."""
    host, _, port = gcs.rpartition(":")
    heard = time.monotonic()
    while ray.is_initialized() and ray.get_runtime_context().gcs_address == gcs:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=LOOK_EVERY_S).close()
            heard = time.monotonic()
        except OSError:
            if time.monotonic() - heard > HEAD_GONE_S:
                print(f"\ncapray: engine: the Ray cluster's head, {gcs}, has died; what was finished is kept: the same command goes on, on any cluster or "
                      "engine", file=sys.stderr, flush=True)
                os._exit(2)
        time.sleep(LOOK_EVERY_S)


def _knock(address: str) -> None:
    """Ray itself waits minutes for an address where nobody listens.  Raises OSError or ValueError at once."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address not in ("auto", "local") and host:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


def machines() -> list[dict[str, Any]]:
    """The cluster's living machines, as Ray describes them, in a fixed order."""
    return sorted((machine for machine in ray.nodes() if machine["Alive"]), key=lambda machine: str(machine["NodeID"]))


def machine_for(placement: str, number: int) -> Any:
    """Where Ray should start the node actor of that number: on this process's machine (`pack`), or on the machines in turn, this one last (`spread`)."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = ray.get_runtime_context().get_node_id()
    if placement == "spread":
        others = [machine["NodeID"] for machine in machines() if machine["NodeID"] != here]
        here = [*others, here][number % (len(others) + 1)]
    return NodeAffinitySchedulingStrategy(here, soft=True)
