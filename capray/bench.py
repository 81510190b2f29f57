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
from pathlib import Path
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


def local_rate(scenario: Scenario, seed: int = 0) -> float:
    """Messages a second of processor time of one trial on engine `local`."""
    began = time.process_time()
    record = simulate(scenario, seed)
    spent = time.process_time() - began
    return record.counters["messages"] / spent


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
    """Time and memory against messages, nodes and trials in flight; time a message is to be level within 20 %."""
    from capray.curves import curves, numbers

    yield from numbers(curves())


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
    from capray.fleet import Fleet, run_tasks
    from capray.raycluster import start_ray

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


def run_bench(only: str | None, as_json: bool, drawn: str | None = None) -> None:
    """Measure and print, group after group; `drawn`: measure only the curves and draw them into that file.  Raises InputError for an unknown group."""
    from capray.errors import wrong

    if only is not None and only not in GROUPS:
        raise wrong("only", only, "one of " + ", ".join(GROUPS))
    if drawn is not None:
        draw_curves(drawn, as_json)
        return
    for name, group in GROUPS.items():
        if only is None or name == only:
            print(f"measuring {name} ...", file=sys.stderr, flush=True)
            for one in group():
                show(one, as_json)


def draw_curves(drawn: str, as_json: bool) -> None:
    """The curves as numbers and as a page.  Raises InputError for a file that cannot be written, before anything is measured."""
    from capray.curves import curves, draw, numbers
    from capray.errors import wrong

    try:
        Path(drawn).touch()
    except OSError as error:
        raise wrong("figure", drawn, f"a file that can be written ({error.strerror})") from None
    found = curves()
    for one in numbers(found):
        show(one, as_json)
    draw(found, drawn)


def show(one: Figure, as_json: bool) -> None:
    """One figure on a line."""
    if as_json:
        print(json.dumps(one), flush=True)
        return
    against = f"   {one['ratio']} x {one['baseline']} ({one['baseline_value']:,})" if one["ratio"] is not None else ""
    print(f"{one['name']:44s} {one['value']:>14,} {one['unit']:12s}{against}", flush=True)
