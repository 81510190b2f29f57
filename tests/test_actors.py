"""The network and every node as Ray actors: the same bytes as in one process, also where actors die on the way.

One Ray instance and one fleet, an actor a node, serve the whole module: starting them is what costs time.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from capray.cluster import Cluster
from capray.engines import run_local
from capray.errors import InputError
from capray.faults import Fault
from capray.policies import POLICIES, load
from capray.record import Record
from capray.scenario import Scenario
from capray.trial import simulate
from capray.workload import Workload

ray = pytest.importorskip("ray")
actors = pytest.importorskip("capray.actors")
raycluster = pytest.importorskip("capray.raycluster")
fleets = pytest.importorskip("capray.fleet")
pytestmark = [pytest.mark.ray, pytest.mark.timeout(240)]

S = 1_000_000
FAULTS = (
    Fault(shape="leader-minority", at_us=S, for_us=2 * S), Fault(shape="one-way", at_us=2 * S, for_us=2 * S),
    Fault(kind="pause", nodes=(1,), at_us=S, for_us=S),
    Fault(kind="crash-process", nodes=(2,), at_us=3 * S, for_us=S), Fault(kind="crash-host", at_us=3 * S, for_us=S, on_role="leader"),
    Fault(kind="slow", nodes=(0,), at_us=S, for_us=S, service_us=300), Fault(kind="skew", nodes=(1,), at_us=S, for_us=S, offset_us=-40_000))


def there(policy: str) -> bool:
    try:
        load(policy)
    except InputError:
        return False
    return True


def short(policy: str, nodes: int = 3, duration_us: int = 5 * S, link: str = "lan") -> Scenario:
    return Scenario(policy=policy, nodes=nodes, faults=FAULTS, duration_us=duration_us, quiet_us=S, link=link, workload=Workload(rate=10, keys=2)).resolved()


def digests(runs: object) -> dict[int, str]:
    return {key: record.digest() for key, record, _ in runs}  # type: ignore[attr-defined]


def expected(jobs: list[tuple[int, Scenario, int]]) -> dict[int, str]:
    return {key: simulate(scenario, seed).digest() for key, scenario, seed in jobs}


@pytest.fixture(scope="module", autouse=True)
def one_ray() -> Iterator[None]:
    if ray.is_initialized():
        ray.shutdown()
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
             runtime_env={"env_vars": {"PYTHONPATH": str(Path(__file__).parents[1])}})
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def fleet(one_ray: None) -> Iterator[object]:
    fleet = fleets.Fleet(nodes_per_actor=1)
    yield fleet
    fleet.close()


def test_three_engines_one_result_on_every_policy(fleet: object) -> None:
    jobs = [(number, short(policy), number) for number, policy in enumerate(p for p in POLICIES if there(p))]
    wanted = expected(jobs)
    assert digests(fleet.run(jobs)) == wanted  # type: ignore[attr-defined]
    assert digests(fleets.run_tasks(jobs)) == wanted
    assert digests(run_local(jobs)) == wanted


def test_one_fleet_serves_clusters_of_several_sizes(fleet: object) -> None:
    sizes = {n: Scenario(policy="abd", nodes=n, duration_us=2 * S, quiet_us=0, workload=Workload(rate=10, keys=2)).resolved() for n in (2, 1, 3)}
    jobs = [(10 * nodes + seed, scenario, seed) for nodes, scenario in sizes.items() for seed in range(3)]
    assert digests(fleet.run(jobs, in_flight=4)) == expected(jobs)  # type: ignore[attr-defined]
    assert ray.get(fleet.network.state.remote())["hosts"] == 3  # type: ignore[attr-defined]


def test_nodes_may_share_an_actor_and_trials_tell_their_rounds() -> None:
    fleet = fleets.Fleet(nodes_per_actor=3)
    try:
        jobs = [(seed, short("abd", 3, 5 * S), seed) for seed in range(2)]
        runs = list(fleet.run(jobs))
        assert digests(runs) == expected(jobs) and all(rounds > 100 for _, _, rounds in runs)
        assert ray.get(fleet.network.state.remote())["hosts"] == 1
    finally:
        fleet.close()


def killing(pid: int, after_s: float) -> threading.Thread:
    """Kill one process that the test itself has started, a little later."""
    thread = threading.Thread(target=lambda: (time.sleep(after_s), os.kill(pid, signal.SIGKILL)))
    thread.start()
    return thread


def run_while_killing(fleet: object, pid: int) -> tuple[dict[int, str], dict[int, str]]:
    jobs = [(seed, short("abd", 3, 8 * S, "wan-3dc"), seed) for seed in range(24)]  # a long way: long windows, few rounds
    found: dict[int, Record] = {}
    thread: threading.Thread | None = None
    for key, record, _ in fleet.run(jobs, in_flight=4):  # type: ignore[attr-defined]
        found[key] = record
        thread = thread or killing(pid, 0.1)  # the first trial has ended: others are under way
    assert thread is not None
    thread.join()
    return {key: record.digest() for key, record in found.items()}, expected(jobs)


def test_a_node_actor_that_dies_is_replaced_and_only_its_trials_are_run_again(fleet: object) -> None:
    pids = ray.get(fleet.network.host_processes.remote())  # type: ignore[attr-defined]
    found, wanted = run_while_killing(fleet, pids[1])
    assert found == wanted
    state = ray.get(fleet.network.state.remote())  # type: ignore[attr-defined]
    assert (state["replaced"], fleet.restarts) == (1, 0)  # type: ignore[attr-defined]
    after = ray.get(fleet.network.host_processes.remote())  # type: ignore[attr-defined]
    assert after[1] != pids[1] and (after[0], after[2]) == (pids[0], pids[2])


def test_a_network_actor_that_dies_is_replaced_with_its_fleet(fleet: object) -> None:
    pid = ray.get(fleet.network.process_id.remote())  # type: ignore[attr-defined]
    found, wanted = run_while_killing(fleet, pid)
    assert found == wanted and fleet.restarts == 1  # type: ignore[attr-defined]


def story(cluster: Cluster) -> Cluster:
    cluster.write(0, "x", 1)
    cluster.partition("0|1,2")
    cluster.write(2, "x", 2)
    cluster.read(0, "x")
    cluster.heal().crash(1)
    cluster.read(1, "x")
    return cluster.restart(1).pause(2).advance("500ms").resume(2).advance("2s")


def test_the_interactive_cluster_is_the_same_on_actors() -> None:
    here = story(Cluster("abd", nodes=3, seed=5, deadline="300ms"))
    with Cluster("abd", nodes=3, seed=5, deadline="300ms", engine="actors") as there:
        story(there)
        assert there.record().digest() == here.record().digest() == there.record().digest()
        assert (repr(there), there.data("x"), there.now, there.history) == (repr(here), here.data("x"), here.now, here.history)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "127.0.0.1:ten"])
def test_no_ray_cluster_at_the_address_is_one_line_at_once(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    start = time.monotonic()
    with pytest.raises(InputError, match=f"address: '{address}' is not accepted; it takes the address of a running Ray cluster") as error:
        raycluster.start_ray(address)
    assert "\n" not in str(error.value) and time.monotonic() - start < 30
