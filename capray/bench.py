"""`capray bench`: capray's speed and size, each figure beside its baseline, measured in one run on one machine.

Decides: what is measured and how often.  What is compared takes turns, so that ratios hold on a busy machine too.  The workload is the majority
register of capray.policies.abd on 5 nodes, in memory, without faults.
"""

from __future__ import annotations

import json
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from capray.baselines import SimpyCallbacks, SimpyCallbacksLeanest, SimpyStore, naive_rate
from capray.record import Record
from capray.scenario import Scenario, from_dict
from capray.trial import Trial, simulate

RATE = 400.0  # operations a second and node
Figure = dict[str, Any]


def quorum_scenario(nodes: int = 5, load: str = "1s", rate: float = RATE) -> Scenario:
    """The workload of every figure: a majority register, no faults, disks of no cost (as in the baselines)."""
    return from_dict({"policy": "capray.policies.abd.replica:AbdInMemory", "nodes": nodes, "disk": "memory", "duration": load, "quiet": "0s",
                      "workload": {"rate": rate, "deadline": "100ms"}})


def figure(name: str, value: float, unit: str, baseline: str = "", baseline_value: float | None = None) -> Figure:
    """One line of the bench."""
    ratio = None if not baseline_value else round(value / baseline_value, 3)
    return {"name": name, "value": round(value, 3), "unit": unit, "baseline": baseline or None,
            "baseline_value": None if baseline_value is None else round(baseline_value, 3), "ratio": ratio}


def local_rate(scenario: Scenario, seed: int = 0, with_clients: bool = False) -> float:
    """Messages a second of processor time of one trial on engine `local`; `with_clients` counts each client's request and its answer too."""
    began = time.process_time()
    record = simulate(scenario, seed)
    spent = time.process_time() - began
    return (record.counters["messages"] + (2 * len(record.history) if with_clients else 0)) / spent


def in_flight_rate(scenario: Scenario, trials: int, chunk: int = 2000) -> float:
    """Messages a second of processor time of `trials` trials advanced in turn, all of them alive, in this process."""
    flying = [Trial(scenario, seed) for seed in range(trials)]
    began = time.process_time()
    going = flying
    while going:
        going = [trial for trial in going if trial.step(chunk)]
    spent = time.process_time() - began
    return sum(trial.network.messages for trial in flying) / spent


def alternating(contenders: dict[str, Callable[[int], float]], turns: int) -> dict[str, float]:
    """Each contender's rate: the upper quartile of its turns, which all take one after another (a busy machine only slows, and slows all alike)."""
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(turns):
        for name, contender in contenders.items():
            rates[name].append(contender(turn))
    return {name: sorted(found)[3 * turns // 4] for name, found in rates.items()}


def speed_figures() -> Iterator[Figure]:
    """`local` against SimPy, on one core."""
    scenario = quorum_scenario(load="1s")
    simulate(scenario, 99)
    rate = alternating({
        "local": lambda seed: local_rate(scenario, seed),
        "callbacks": lambda seed: SimpyCallbacks(5, RATE, 1e6, seed).run(),
        "leanest": lambda seed: SimpyCallbacksLeanest(5, RATE, 1e6, seed).run(),
    }, 16)
    rate |= alternating({"again": lambda seed: local_rate(scenario, seed), "store": lambda seed: SimpyStore(5, RATE, 5e5, seed).run()}, 8)
    yield figure("local_vs_simpy_store", rate["again"], "messages/s", "SimPy, Store and process", rate["store"])
    yield figure("local_vs_simpy_callbacks", rate["local"], "messages/s", "SimPy, bare callbacks", rate["callbacks"])
    yield figure("local_vs_simpy_callbacks_leanest", rate["local"], "messages/s", "SimPy, bare callbacks, no closures", rate["leanest"])


def scaling_figures() -> Iterator[Figure]:
    """Cost of a message against trials in flight and against nodes: flat within 20 % is the aim.  Against nodes the clients' requests and answers count
    as messages: in a small cluster they are a fifth of all."""
    load = 4 * 16 * 5 * RATE  # messages of a second of load, about
    costs: dict[int, float] = {}
    for _ in range(2):
        for trials in (1, 8, 64, 512):
            scenario = quorum_scenario(load=f"{max(5, min(1000, int(4_000_000 / load * 1000 / trials)))}ms")
            costs[trials] = min(costs.get(trials, 1e9), 1e6 / in_flight_rate(scenario, trials))
    for trials, cost in costs.items():
        yield figure(f"local_us_per_message_{trials}_in_flight", cost, "us/message", "1 trial in flight", costs[1])
    by_nodes: dict[int, float] = {}
    for _ in range(2):
        for nodes in (3, 5, 9, 25, 50):
            scenario = quorum_scenario(nodes, "1s", 5 * RATE * 20 / (nodes * nodes))
            simulate(scenario, 1)
            by_nodes[nodes] = min(by_nodes.get(nodes, 1e9), 1e6 / local_rate(scenario, 0, with_clients=True))
    for nodes, cost in by_nodes.items():
        yield figure(f"local_us_per_message_{nodes}_nodes", cost, "us/message", "3 nodes", by_nodes[3])


def memory_figures() -> Iterator[Figure]:
    """Memory of a trial in flight: what 8 whole trials of the default workload hold at their end, a node."""
    scenario = from_dict({"policy": "cassandra", "nodes": 5, "faults": [{"shape": "majority", "at": "5s", "for": "20s"}],
                          "settings": {"replication_factor": 5}, "workload": {"rate": 2}})
    simulate(scenario, 0)
    tracemalloc.start()
    flying = [Trial(scenario, seed) for seed in range(8)]
    for trial in flying:
        trial.advance(scenario.end_us)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    yield figure("memory_per_trial_and_node", held / 8 / scenario.nodes / 1e6, "MB", "the limit", 1.0)


def carried(ended: Iterable[tuple[int, Record | str, int]]) -> int:
    """The messages of trials as they end."""
    return sum(outcome.counters["messages"] for _, outcome, _ in ended if isinstance(outcome, Record))


def ray_figures() -> Iterator[Figure]:
    """The engines on Ray against the naive design, and against `local`."""
    from capray.actors import start_ray
    from capray.fleet import Fleet, run_tasks

    start_ray()
    fleet = Fleet()
    scenario = quorum_scenario(load="500ms")
    list(fleet.run([(0, quorum_scenario(load="20ms"), 0)]))
    simulate(scenario, 0)
    naive = actor = local = 0.0
    for turn in range(2):
        naive = max(naive, naive_rate())
        began = time.perf_counter()
        messages = carried(fleet.run([(i, scenario, i) for i in range(128)], 128))
        actor = max(actor, messages / (time.perf_counter() - began))
        local = max(local, local_rate(scenario, turn))
    began = time.perf_counter()
    messages = carried(run_tasks([(i, scenario, i) for i in range(64)]))
    tasks = messages / (time.perf_counter() - began)
    fleet.close()
    yield figure("actors_128_in_flight_vs_naive", actor, "messages/s", "one Ray call a hop", naive)
    yield figure("actors_128_in_flight_vs_local", actor, "messages/s", "local, one core", local)
    yield figure("tasks_vs_local", tasks, "messages/s", "local, one core", local)


def checker_figures() -> Iterator[Figure]:
    """The checkers' growth."""
    from capray.checkers.bench import bench

    yield from bench()


GROUPS = {"local": speed_figures, "scaling": scaling_figures, "memory": memory_figures, "ray": ray_figures, "check": checker_figures}


def run_bench(only: str | None, as_json: bool) -> None:
    """Measure and print, group after group.  Raises InputError for an unknown group."""
    from capray.errors import wrong

    if only is not None and only not in GROUPS:
        raise wrong("only", only, "one of " + ", ".join(GROUPS))
    for name, group in GROUPS.items():
        if only is None or name == only:
            print(f"measuring {name} ...", file=sys.stderr, flush=True)
            for one in group():
                if as_json:
                    print(json.dumps(one), flush=True)
                else:
                    against = f"   {one['ratio']} x {one['baseline']} ({one['baseline_value']:,})" if one["ratio"] is not None else ""
                    print(f"{one['name']:44s} {one['value']:>14,} {one['unit']:12s}{against}", flush=True)
