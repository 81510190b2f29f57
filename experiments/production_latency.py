"""The main job's question on latencies fitted to production stores, and on partitions as long as the field's.

Links: the fits of Bailis et al. (PBS, VLDB 2012) to LinkedIn's and Yammer's stores and to a wide-area one.  Durations: 43 s and 90 s (GitHub 2018,
2012), and repair times drawn from the lognormal fit of software-related isolating partitions in CENIC (Turner et al. 2010: median 2.7 min).

    python experiments/production_latency.py --links ymmr wan --scale ci
"""

from capray.experiment import main, parser, run
from capray.links import LINKS
from capray.sweep import Grid, Sweep, Variant

STORES = (
    ("cassandra ONE", "cassandra", {"read_consistency": "ONE", "write_consistency": "ONE", "replication_factor": "nodes"}, "majority"),
    ("cassandra QUORUM", "cassandra", {"read_consistency": "QUORUM", "write_consistency": "QUORUM", "replication_factor": "nodes"}, "majority"),
    ("zookeeper", "zookeeper", {}, "leader-minority"),
    ("rdbms", "rdbms", {}, "leader-minority"),
)
LATENCY = (" The link shows in how long a healthy answer takes (latency_p50, latency_p99 of the trials without a cut), "
           "hardly in who is answered during a cut of tens of seconds.")
NOTES = {
    "cassandra ONE": "Theory, AP: both sides go on, their reads go stale, writes conflict, and after heal the replicas come together. Reads sent across the "
                     "cut hang until the other side is convicted, some 20 s after the cut.",
    "cassandra QUORUM": "Theory, CP: the minority has no quorum and answers nothing; the majority goes on, its reads only once they are no longer sent across "
                        "the cut. Never stale.",
    "zookeeper": "Theory, CP, the leader in the minority: nobody notices for syncLimit x tickTime = 10 s, so writes stop on both sides; then the majority "
                 "elects a leader and serves, and the minority refuses. The longer the cut, the later the minority returns after heal: retransmission "
                 "time-outs have doubled.",
    "rdbms": "Theory, CA, the server in the minority: only its side is answered, however many are on the other.",
}
LINKS_OF = {"ci": ("lnkd-disk", "ymmr"), "default": ("lnkd-ssd", "lnkd-disk", "ymmr", "wan"), "full": ("lnkd-ssd", "lnkd-disk", "ymmr", "wan", "wan-3dc")}
DURATIONS = {"ci": ("0s", "43s"), "default": ("0s", "43s", "90s", "cenic-software"), "full": ("0s", "43s", "90s", "cenic-software", "incidents")}
SEEDS = {"ci": 3, "default": 8, "full": 40}
RATE = {"ci": 1.0, "default": 1.0, "full": 2.0}


def script() -> None:
    options = parser(__doc__ or "")
    options.add_argument("--links", nargs="+", choices=sorted(LINKS), default=None)
    options.add_argument("--durations", nargs="+", default=None, help="with units, or cenic-software, incidents")
    options.add_argument("--nodes", type=int, default=5)
    given = options.parse_args()
    variants = tuple(Variant(label=f"{label}, {link}", policy=policy, settings=settings, shape=shape, base={"link": link}, note=NOTES[label] + LATENCY)
                     for link in given.links or LINKS_OF[given.scale] for label, policy, settings, shape in STORES)
    grid = Grid(nodes=(given.nodes,), durations=tuple(given.durations or DURATIONS[given.scale]), base={"workload": {"rate": RATE[given.scale], "keys": 5}})
    name = "production-latency" if given.scale != "ci" else "ci-production-latency"
    sweep = Sweep(name=name, variants=variants, grids=(grid,), seeds=SEEDS[given.scale] if given.seeds is None else given.seeds)
    sweep.validate()
    run(sweep, given)


if __name__ == "__main__":
    main(script)
