"""The main job: partition durations swept over policies and cluster sizes (`capray sweep`, experiments/partition_sweep.py).

Decides: which policies, durations, sizes and rates each scale has.  `full` has the whole grid; `default` fits five minutes on two cores, `ci` ninety seconds.
Durations 43 s and 90 s are incidents at GitHub (2018 and 2012).  The cut is clean: a minority of (n - 1) / 2 nodes.
"""

from __future__ import annotations

from typing import Any

from capray.errors import wrong
from capray.sweep import Grid, Sweep, Variant

LEVEL = {level: {"read_consistency": level, "write_consistency": level} for level in ("ONE", "QUORUM")}
RING = ("Theory: with three replicas of each key, who is answered depends on where the ring puts them ('What ring and cut allow'). Writes go to all "
        "replicas and reach that bound. Reads stay below it: the coordinator asks only as many replicas as the level needs, in its dynamic snitch's order, "
        "and until the failure detector convicts the other side (some 20 s after the cut) a read sent across the cut hangs until its client gives up; the "
        "first time-outs, at 5 s, re-rank the replicas.")

VARIANTS = (
    Variant(label="rdbms, server in majority", policy="rdbms",
            note="Theory, CA: one copy, always consistent, available only to those who reach it: the server's side loses nothing, the other side "
                 "everything. A statement that was under way when the cut came is unknown until its deadline."),
    Variant(label="rdbms, server in minority", policy="rdbms", shape="leader-minority",
            note="Theory, CA: the same, the other way round: it is the majority that is cut off from the only copy. Being many does not help where there "
                 "is one server."),
    Variant(label="zookeeper, leader in majority", policy="zookeeper",
            note="Theory, CP: the majority goes on, the minority gives up. As built: the minority's writes stop at once, but its local reads go on, stale, "
                 "until it has heard nothing from the leader for syncLimit x tickTime = 10 s; so its availability falls with longer cuts, and the age of "
                 "what it reads is bounded by about that time. Trials are not linearizable because reads are local, as ZooKeeper's documentation says. "
                 "After heal the minority returns the later the longer it was cut: what it sent into the cut is retransmitted with a time-out that doubles "
                 "(TCP's, and the election's notifications)."),
    Variant(label="zookeeper, leader in minority", policy="zookeeper", shape="leader-minority",
            note="Theory, CP: as above. As built: for the same 10 s nobody notices, so writes stop on both sides; a cut shorter than that causes no "
                 "election and its writes are applied after heal. After a longer one the majority elects a leader and serves, the old leader steps down; "
                 "reads of the majority are not stale, for nothing was written meanwhile. A trial in which a local read came just after a write elsewhere "
                 "is not linearizable either, cut or no cut."),
    Variant(label="write-all", policy="write-all",
            note="Theory, the thought experiment's C choice: every write is refused while any node is cut off, on both sides; reads go on at every node. "
                 "As built: a read of a key with a prepared write waits for its coordinator, so the keys in doubt at the cut are not readable, and "
                 "availability lies below the share of reads. Always linearizable."),
    Variant(label="cassandra ONE, RF 3", policy="cassandra", settings=LEVEL["ONE"], note=RING),
    Variant(label="cassandra QUORUM, RF 3", policy="cassandra", settings=LEVEL["QUORUM"], note=RING + " At QUORUM two of the three must be on the client's "
                                                                                                      "side: no stale reads."),
    Variant(label="cassandra ONE, RF n", policy="cassandra", settings={**LEVEL["ONE"], "replication_factor": "nodes"},
            note="Theory, AP: every node answers alone, reads are stale, writes conflict, and after heal hints and read repair bring the replicas "
                 "together. So it is. Where few requests come, with one deviation: the dynamic snitch has too few latencies to put the coordinator's own "
                 "replica first, so until the other side is convicted (some 20 s) some reads are sent across the cut and hang. Conflicts end by the "
                 "highest timestamp: nothing is lost from the order, the rest is overwritten."),
    Variant(label="cassandra QUORUM, RF n", policy="cassandra", settings={**LEVEL["QUORUM"], "replication_factor": "nodes"},
            note="Theory, CP: the minority has no quorum. Its requests hang before conviction and are refused as UNAVAILABLE after it. The majority has "
                 "one: its writes all succeed, its reads only where the replicas asked, plus one by speculative retry, are all on its side; time-outs "
                 "re-rank them. No stale reads: read and write quorums intersect."),
)

ALL_DURATIONS = ("0s", "1s", "2s", "5s", "10s", "20s", "43s", "90s")


def _workload(rate: float) -> dict[str, Any]:
    return {"workload": {"rate": rate, "keys": 5}}


GRIDS: dict[str, tuple[Grid, ...]] = {
    "ci": (Grid(nodes=(3,), durations=("0s", "20s"), base=_workload(5)), Grid(nodes=(5,), durations=("0s", "2s", "20s"), base=_workload(5))),
    "default": (
        Grid(nodes=(5,), durations=ALL_DURATIONS, base=_workload(5)),
        Grid(nodes=(3,), durations=("0s", "5s", "20s", "90s"), base=_workload(5)),
        Grid(nodes=(9,), durations=("0s", "5s", "20s"), base=_workload(1)),
        Grid(nodes=(25,), durations=("0s", "2s"), base={**_workload(0.2), "quiet_us": 2_000_000}),
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
