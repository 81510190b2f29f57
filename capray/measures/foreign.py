"""A real store's history as a record: the same measures over runs that capray did not make.

Decides: how a history file, the times of a cut and its groups become a Record.  May not know: how anything is measured.
Source: reference/real_servers.md and its index.json, for `real_server_record`.

Versions and counters are not known there, so what needs them is null; a fault's counts are not known either.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from capray.errors import InputError, wrong
from capray.history import read_history
from capray.measures.allowed import Placement
from capray.measures.phases import Groups
from capray.record import FaultWindow, Operation, Record


def foreign_record(
    name: str, history: Sequence[Operation], nodes: int, cut_us: int, heal_us: int, groups: Groups, placement: Placement | None = None,
) -> Record:
    """A record of one complete cut from `cut_us` to `heal_us` between `groups`.  The operations are taken as they are, in their order."""
    keys = sorted({op.key for op in history if op.key is not None})
    held = placement or {key: range(nodes) for key in keys}
    window = FaultWindow(kind="partition", at=cut_us, until=heal_us, shape="|".join(",".join(map(str, g)) for g in groups), groups=groups)
    return Record(policy=name, nodes=nodes, seed=0, scenario="", history=list(history), faults=[window], versions=None,
                  placement={key: tuple(replicas) for key, replicas in held.items()}, counters={},
                  end=max((op.invoke if op.complete is None else op.complete for op in history), default=0))


def real_server_index(folder: str | Path) -> dict[str, dict[str, Any]]:
    """The runs that a folder of real servers' histories describes, by name.  Raises InputError where its index.json is not readable."""
    path = Path(folder) / "index.json"
    try:
        found: dict[str, dict[str, Any]] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    if not isinstance(found, dict) or not all(isinstance(run, dict) for run in found.values()):
        raise InputError(f"{path}: it takes an object with one object a run")
    for name, run in found.items():
        for field in ("system", "variant", "D", "nodes", "minority", "majority", "t_cut", "t_heal"):
            if field not in run:
                raise InputError(f"{path}: run {name}: {field} is missing")
    return found


def real_server_record(name: str, folder: str | Path) -> Record:
    """One run of real servers, from `<folder>/<name>.jsonl.gz` and its entry in index.json.  Raises InputError for a name that is not there."""
    index = real_server_index(folder)
    if name not in index:
        raise wrong("run", name, "one of " + ", ".join(index))
    run = index[name]
    groups = tuple(tuple(sorted(_node(server) for server in run[side])) for side in ("minority", "majority"))
    placement = {key: tuple(_node(server) for server in servers) for key, servers in run.get("replicas", {}).items()}
    history = read_history(Path(folder) / f"{name}.jsonl.gz")
    return foreign_record(run["system"], history, run["nodes"], _us(run["t_cut"]), _us(run["t_heal"]), groups, placement)


def _node(server: str) -> int:
    """`n1` is node 0."""
    return int(server[1:]) - 1


def _us(seconds: float) -> int:
    return round(seconds * 1_000_000)
