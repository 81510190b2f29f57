"""One standing Ray cluster of three machines: fleets over them, and a sweep that ends with the digest of an undisturbed one whatever is killed.

Starting the cluster takes most of the time, so one serves the whole module.  In CI 20 processes are killed at random moments (node actors, network actors, task
workers); with CAPRAY_FULL=1 the driver, by SIGKILL and by Ctrl-C, and whole machines are killed as well:

    CAPRAY_FULL=1 python -m pytest -n 0 -s tests/test_survival.py
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from capray.errors import Failed
from capray.store import Results
from capray.sweep import Grid, Sweep, Variant, run_sweep, sweep_from_dict

ray = pytest.importorskip("ray")
pytestmark = [pytest.mark.ray, pytest.mark.timeout(1500)]
full = pytest.mark.skipif(not os.environ.get("CAPRAY_FULL"), reason="kills drivers and machines for minutes: CAPRAY_FULL=1")
HERE = Path(__file__).parent
KILLS = 20
SWEEP = Sweep(name="survival", seeds=24, at_us=1_000_000, after_us=3_000_000,
              base={"quiet_us": 500_000, "link": "wan-3dc", "workload": {"rate": 5.0, "keys": 2}},
              variants=(Variant(label="register", policy="abd"), Variant(label="server", policy="rdbms")), grids=(Grid(nodes=(3,), durations=("2s",)),))


class Machines:
    """A Ray cluster of several raylets on this machine, and the processes that are its own."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False, "object_store_memory": 400_000_000},
                               connect=False)
        self.others = [self.add(), self.add()]

    def add(self) -> object:
        return self.cluster.add_node(num_cpus=2, object_store_memory=400_000_000)

    def replace(self, which: int) -> None:
        """A machine dies, and another comes."""
        self.cluster.remove_node(self.others[which], allow_graceful=False)
        self.others[which] = self.add()

    def workers(self) -> list[int]:
        """Processes of our actors and tasks: children of this cluster's raylets, and of nobody else's."""
        raylets = {process.process.pid for node in self.cluster.list_all_nodes() for process in node.all_processes.get("raylet", [])}
        return [pid for pid in children(raylets) if any(name in command(pid) for name in ("NodeActor", "NetworkActor", "_simulate_whole"))]


def children(parents: set[int]) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and int((entry / "stat").read_text().rpartition(")")[2].split()[1]) in parents:
                found.append(int(entry.name))
        except OSError:
            continue
    return sorted(found)


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    if ray.is_initialized():
        ray.shutdown()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(HERE.parent), str(HERE)]))
        patch.setenv("CAPRAY_TEST_DEADLY", "1")
        patch.syspath_prepend(str(HERE))
        found = Machines()
        ray.init(address=found.cluster.address, log_to_driver=False, logging_level="ERROR")
        yield found
        ray.shutdown()
        found.cluster.shutdown()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    return run_sweep(SWEEP, tmp_path_factory.mktemp("local") / "a", "local")[0]


def actors() -> dict[str, str]:
    """Name -> Ray id of the machine, of all living actors."""
    from ray._private import state

    return {actor["Name"]: actor["Address"]["NodeID"] for actor in state.actors().values() if actor["State"] == "ALIVE" and actor["Name"]}


def role(name: str) -> str:
    return next(role for role in ("network", "node 0", "node 1", "node 2") if name.startswith(f"abd+rdbms {role} "))


@pytest.mark.parametrize("placement", ["pack", "spread"])
def test_fleets_stand_over_the_machines_and_their_node_actors_as_they_were_asked_to(machines: Machines, undisturbed: str, tmp_path: Path,
                                                                                    placement: str) -> None:
    seen: dict[str, str] = {}
    digest, rows = run_sweep(SWEEP, tmp_path / "a", "actors", fleets=2, placement=placement, progress=lambda *_: seen.update(actors()))
    assert digest == undisturbed and len(rows) == 48
    first, second = ({role(name): machine for name, machine in seen.items() if f" fleet {i}" in name} for i in (0, 1))
    assert set(first) == set(second) == {"network", "node 0", "node 1", "node 2"}
    assert first["network"] != second["network"]
    assert len(set(first.values())) == (1 if placement == "pack" else 3)


def test_a_trial_that_takes_its_process_with_it_fails_alone_and_says_how_to_replay_it(machines: Machines, tmp_path: Path) -> None:
    import json

    from capray.errors import Failed

    sweep = msgspec.structs.replace(SWEEP, seeds=2, variants=(SWEEP.variants[0], Variant(label="deadly", policy="failing_policy:Deadly")))
    for engine in ("actors", "tasks"):
        with pytest.raises(Failed, match="2 of 4 trials failed"):
            run_sweep(sweep, tmp_path / engine, engine, fleets=1)
        results = Results(tmp_path / engine)
        assert [row["label"] for row in results.rows()] == ["register", "register"]
        failures = [json.loads(line) for line in results.failures_path.read_text().splitlines()]
        assert {row["seed"] for row in failures} == {0, 1}
        assert all("died 3 times" in row["error"] and row["replay"].startswith("capray run") for row in failures)


class Killer(threading.Thread):
    """Kills one of the cluster's workers at a random moment after each sign of progress, so many times."""

    def __init__(self, machines: Machines, directory: Path, kills: int, seed: int) -> None:
        super().__init__()
        self.machines, self.directory, self.kills, self.dice = machines, directory, kills, random.Random(seed)
        self.killed: list[str] = []
        self.over = threading.Event()

    def rows(self) -> int:
        path = self.directory / "trials.jsonl"
        return path.read_bytes().count(b"\n") if path.exists() else 0

    def run(self) -> None:
        while not self.over.is_set() and len(self.killed) < self.kills:
            before, until = self.rows(), time.monotonic() + 30
            while self.rows() == before and time.monotonic() < until and not self.over.is_set():
                time.sleep(0.02)
            time.sleep(0.3 * self.dice.random())
            victims = self.machines.workers()
            if victims and not self.over.is_set():
                victim = self.dice.choice(victims)
                name = command(victim)
                os.kill(victim, signal.SIGKILL)
                self.killed.append(name.partition("\0")[0])


@pytest.mark.parametrize("engine", ["actors", "tasks"])
def test_twenty_processes_killed_at_random_moments_change_nothing(machines: Machines, undisturbed: str, tmp_path: Path, engine: str) -> None:
    killed: list[str] = []
    turn = 0
    while len(killed) < KILLS // 2:  # over two engines: 20
        turn += 1
        assert turn <= 3 * KILLS, f"only {len(killed)} kills in {turn} sweeps"
        directory = tmp_path / str(turn)
        killer = Killer(machines, directory, KILLS // 2 - len(killed), turn)
        killer.start()
        try:
            digest, rows = run_sweep(SWEEP, directory, engine, in_flight=8, fleets=2)
        except Failed as why:  # one trial's process was the victim each time, by chance: it is set aside, and tried again when the sweep goes on
            assert "the process that ran it died 3 times" in str(why)
            killer.over.set()
            killer.join()
            digest, rows = run_sweep(SWEEP, directory, engine, in_flight=8, fleets=2)
        finally:
            killer.over.set()
            killer.join()
        assert digest == undisturbed and len(rows) == 48 and not Results(directory).failures_path.exists()
        killed += killer.killed  # none where the sweep was over first


# ---- in full: the driver and whole machines too ----------------------------------------------------------------------------------------
TOML = """
name = "survival"
seeds = 130
at = "1s"
after = "3s"
[base]
quiet = "500ms"
link = "wan-3dc"
workload = {rate = 5.0, keys = 2}
[[variants]]
label = "register"
policy = "abd"
[[variants]]
label = "server"
policy = "rdbms"
[[grids]]
nodes = [3]
durations = ["2s"]
"""


def can_be_interrupted() -> None:
    """Also where the tests run in the background of a shell, which makes its children deaf to Ctrl-C."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@full
@pytest.mark.timeout(5400)
@pytest.mark.parametrize("placement", ["pack", "spread"])
def test_drivers_and_machines_that_are_killed_change_nothing(machines: Machines, tmp_path: Path, placement: str) -> None:
    import tomllib

    (tmp_path / "survival.toml").write_text(TOML)
    expected = run_sweep(sweep_from_dict(tomllib.loads(TOML), "survival"), tmp_path / "local", "local")[0]
    directory, dice, done = tmp_path / "out", random.Random(placement), {"driver killed": 0, "interrupted": 0, "machine killed": 0, "process killed": 0}
    arguments = [sys.executable, "-m", "capray", "sweep", "survival.toml", "--address", machines.cluster.address, "--out", str(directory),
                 "--fleets", "2", "--in-flight", "8", "--placement", placement, "--json"]
    killer = Killer(machines, directory, 0, 0)
    began = time.monotonic()
    while True:
        with (tmp_path / "log").open("a") as log:
            driver = subprocess.Popen(arguments, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=log,
                                      preexec_fn=can_be_interrupted)  # noqa: PLW1509 (it takes no lock)
        while driver.poll() is None:
            before, until = killer.rows(), time.monotonic() + 60
            while killer.rows() == before and time.monotonic() < until and driver.poll() is None:
                time.sleep(0.05)
            time.sleep(2 * dice.random())
            what = dice.choice(list(done))
            if driver.poll() is not None or killer.rows() > 240:  # let it end
                continue
            done[what] += 1
            print(f"{placement}: {killer.rows()} rows, {what}", flush=True)
            if what == "driver killed":
                driver.kill()
            elif what == "interrupted":
                driver.send_signal(signal.SIGINT)
            elif what == "machine killed":
                machines.replace(dice.randrange(2))
            elif victims := machines.workers():
                os.kill(dice.choice(victims), signal.SIGKILL)
        if driver.wait() == 0:
            break
        assert driver.returncode in (-signal.SIGKILL, 130), (tmp_path / "log").read_text()
    print(f"{placement}: {done}, {time.monotonic() - began:.0f} s")
    assert Results(directory).manifest()["digest"] == expected
    assert sum(done.values()) >= KILLS and all(done.values())


@full
def test_a_dead_head_is_told_in_one_line_and_the_sweep_goes_on_elsewhere(tmp_path: Path) -> None:
    import tomllib

    from ray.cluster_utils import Cluster

    (tmp_path / "survival.toml").write_text(TOML.replace("seeds = 130", "seeds = 600"))
    expected = run_sweep(sweep_from_dict(tomllib.loads((tmp_path / "survival.toml").read_text()), "survival"), tmp_path / "local", "local")[0]
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False, "object_store_memory": 200_000_000}, connect=False)
    cluster.add_node(num_cpus=2, object_store_memory=200_000_000)
    arguments = [sys.executable, "-m", "capray", "sweep", "survival.toml", "--out", "out", "--in-flight", "4"]
    with subprocess.Popen([*arguments, "--address", cluster.address], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                          env={**os.environ, "PYTHONPATH": str(HERE.parent)}) as driver:
        rows = tmp_path / "out" / "trials.jsonl"
        while driver.poll() is None and not (rows.exists() and rows.read_bytes().count(b"\n") > 4):
            time.sleep(0.1)
        for kind in ("gcs_server", "raylet"):
            for process in cluster.head_node.all_processes[kind]:
                os.kill(process.process.pid, signal.SIGKILL)
        _, said = driver.communicate(timeout=300)
    assert driver.returncode == 2 and "has died; what was finished is kept" in said.splitlines()[-1], said
    cluster.shutdown()
    done = subprocess.run([*arguments, "--engine", "local"], cwd=tmp_path, check=True, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(HERE.parent)})
    assert f"1200 trials, digest {expected}" in done.stdout
