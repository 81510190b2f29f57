"""The main job: partition durations swept over policies and cluster sizes (`capray sweep`, experiments/partition_sweep.py).

Decides: which policies, durations, sizes and rates each scale has.  `full` has the whole grid; `default` fits five minutes on two cores, `ci` ninety seconds.
Durations 43 s and 90 s are incidents at GitHub (2018 and 2012).  The cut is clean: a minority of (n - 1) / 2 nodes.
"""

from __future__ import annotations

from typing import Any

from capray.errors import wrong
from capray.sweep import Grid, Sweep, Variant

VARIANTS = (
    Variant(label="rdbms, server in majority", policy="rdbms"),
    Variant(label="rdbms, server in minority", policy="rdbms", shape="leader-minority"),
    Variant(label="zookeeper, leader in majority", policy="zookeeper"),
    Variant(label="zookeeper, leader in minority", policy="zookeeper", shape="leader-minority"),
    Variant(label="write-all", policy="write-all"),
    Variant(label="cassandra ONE, RF 3", policy="cassandra", settings={"read_consistency": "ONE", "write_consistency": "ONE"}),
    Variant(label="cassandra QUORUM, RF 3", policy="cassandra", settings={"read_consistency": "QUORUM", "write_consistency": "QUORUM"}),
    Variant(label="cassandra ONE, RF n", policy="cassandra", settings={"read_consistency": "ONE", "write_consistency": "ONE", "replication_factor": "nodes"}),
    Variant(label="cassandra QUORUM, RF n", policy="cassandra",
            settings={"read_consistency": "QUORUM", "write_consistency": "QUORUM", "replication_factor": "nodes"}),
)

ALL_DURATIONS = ("0s", "1s", "2s", "5s", "10s", "20s", "43s", "90s")


def _workload(rate: float) -> dict[str, Any]:
    return {"workload": {"rate": rate, "keys": 5}}


GRIDS: dict[str, tuple[Grid, ...]] = {
    "ci": (Grid(nodes=(3,), durations=("0s", "20s"), base=_workload(1)), Grid(nodes=(5,), durations=("0s", "2s", "20s"), base=_workload(1))),
    "default": (
        Grid(nodes=(5,), durations=ALL_DURATIONS, base=_workload(2)),
        Grid(nodes=(3, 9), durations=("0s", "5s", "20s", "90s"), base=_workload(1)),
        Grid(nodes=(25,), durations=("0s", "20s"), base=_workload(0.2)),
    ),
    "full": (
        Grid(nodes=(3, 5, 9), durations=ALL_DURATIONS, base=_workload(20)),
        Grid(nodes=(25,), durations=("0s", "5s", "20s", "90s"), base=_workload(4)),
    ),
}
SEEDS = {"ci": 3, "default": 8, "full": 20}


def main_job(scale: str, seeds: int | None = None) -> Sweep:
    """The sweep at a scale.  Raises InputError for an unknown one."""
    if scale not in GRIDS:
        raise wrong("scale", scale, "one of " + ", ".join(GRIDS))
    name = {"ci": "ci-partition-sweep", "default": "partition-sweep", "full": "partition-sweep-full"}[scale]
    sweep = Sweep(name=name, variants=VARIANTS, grids=GRIDS[scale], seeds=SEEDS[scale] if seeds is None else seeds)
    sweep.validate()
    return sweep
