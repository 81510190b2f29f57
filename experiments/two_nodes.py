"""The thought experiment: two nodes A and B, and a cut between them.  Choose C, and writes are refused; choose A, and both sides accept them and diverge.

First a story, client by client, told by the interactive cluster: write-all (two-phase commit) and Cassandra at ONE with a replica on each node.
Then the same two choices under load, measured over seeds into results/two-nodes.

    python experiments/two_nodes.py --cut 10s
"""

import json
import sys

from capray.cluster import Cluster
from capray.errors import duration_us, show_us
from capray.experiment import main, parser, run
from capray.record import Operation
from capray.sweep import Grid, Sweep, Variant

CHOICES = (
    ("C", "write-all", "consistency: a write is refused unless both nodes prepare it", {}),
    ("A", "cassandra", "availability: each node answers alone, at consistency ONE", {
        "read_consistency": "ONE", "write_consistency": "ONE", "replication_factor": 2,
        # A coordinator asks itself first, whatever it measured of the other: with the dynamic snitch on, a read may be sent across the cut, and hang.
        "endpoint_snitch": "gossiping_property_file", "dynamic_snitch": False}),
)
NAMES = "AB"
PAUSE = "100ms"  # between one client's answer and the next one's request


def tell(seen: list[dict[str, object]], cluster: Cluster, choice: str, step: str, operation: Operation) -> None:
    """Note what one client saw."""
    answer = {"ok": "ok" if operation.f == "write" else f"ok: x = {operation.result}",
              "fail": "no answer in time" if operation.error == "timeout" else f"refused ({operation.error})",
              "info": f"unknown ({operation.error})"}[operation.type]
    seen.append({"choice": choice, "step": step, "client": NAMES[operation.node or 0], "at_us": operation.invoke,
                 "took_us": (operation.complete or cluster.now) - operation.invoke,
                 "asked": "read x" if operation.f == "read" else f"write x = {operation.value}", "type": operation.type, "answer": answer,
                 "data": {NAMES[node]: value for node, value in cluster.data("x").items()}})
    cluster.advance(PAUSE)


def story(choice: str, policy: str, settings: dict[str, object], cut_us: int, engine: str, seed: int) -> list[dict[str, object]]:
    """What the clients of A and B see before, during and after a cut."""
    seen: list[dict[str, object]] = []
    with Cluster(policy, nodes=2, engine=engine, seed=seed, **settings) as cluster:
        cluster.advance("1s")
        tell(seen, cluster, choice, "before", cluster.write(0, "x", 1))
        tell(seen, cluster, choice, "before", cluster.read(1, "x"))
        cluster.partition("0|1")
        began = cluster.now
        for step, node, value in (("cut", 0, 2), ("cut", 1, 3)):
            tell(seen, cluster, choice, step, cluster.write(node, "x", value))
        for node in (0, 1):
            tell(seen, cluster, choice, "cut", cluster.read(node, "x"))
        cluster.advance(max(0, cut_us - (cluster.now - began)))
        cluster.heal()
        cluster.advance("30s")
        for node in (0, 1):
            tell(seen, cluster, choice, "healed", cluster.read(node, "x"))
    return seen


def told(line: dict[str, object]) -> str:
    """One line of the story, for a person."""
    held = "  ".join(f"{name} holds {value}" for name, value in line["data"].items())  # type: ignore[attr-defined]
    took = show_us(line["took_us"])  # type: ignore[arg-type]
    return f"  {line['step']:7s} client of {line['client']}: {line['asked']:12s} -> {line['answer']!s:32s} in {took:10s} {held}"


def moral(seen: list[dict[str, object]]) -> str:
    """What the story shows, from what was seen in it."""
    writes = [line for line in seen if line["step"] == "cut" and str(line["asked"]).startswith("write")]
    accepted = [line for line in writes if line["type"] == "ok"]
    differed = next((line["data"] for line in seen if line["step"] == "cut" and len(set(line["data"].values())) > 1), None)  # type: ignore[attr-defined]
    last = seen[-1]["data"]
    refused = len(writes) - len(accepted)
    points = [f"{refused} of {len(writes)} writes in the cut were refused" if refused else "every write in the cut was accepted"]
    if differed is None:
        points.append("A and B never held different values")
    else:
        both = next(line["data"] for line in reversed(seen) if line["step"] == "cut")
        points.append("in conflict: " + ", ".join(f"{name} held {value}" for name, value in both.items()))  # type: ignore[attr-defined]
        ends = ", ".join(f"{name} holds {value}" for name, value in last.items())  # type: ignore[attr-defined]
        points.append(f"after heal {ends}: the newest wins, the other is overwritten though its client was told ok")
    return "; ".join(points) + "."


def script() -> None:
    options = parser(__doc__ or "", engine="local")
    options.add_argument("--cut", default="10s", help="how long the two nodes are cut apart")
    options.add_argument("--seed", type=int, default=0, help="of the story")
    given = options.parse_args()
    cut_us = duration_us(given.cut, "cut")
    for choice, policy, meaning, settings in CHOICES:
        if not given.json:
            print(f"\nChoose {choice} ({policy}): {meaning}")
        seen = story(choice, policy, settings, cut_us, "actors" if given.engine == "actors" else "local", given.seed)
        for line in seen:
            print(json.dumps(line) if given.json else told(line))
        if not given.json:
            print(f"  => {moral(seen)}")
    if not given.json:
        print()
    sys.stdout.flush()
    variants = tuple(Variant(label=f"{choice}: {policy}", policy=policy, settings=settings, shape="halves") for choice, policy, _, settings in CHOICES)
    seeds = {"ci": 3, "default": 8, "full": 100}[given.scale] if given.seeds is None else given.seeds
    name = "two-nodes" if given.scale != "ci" else "ci-two-nodes"
    sweep = Sweep(name=name, variants=variants, grids=(Grid(nodes=(2,), durations=("0s", given.cut), base={"workload": {"rate": 10, "keys": 3}}),), seeds=seeds)
    sweep.validate()
    run(sweep, given)


if __name__ == "__main__":
    main(script)
