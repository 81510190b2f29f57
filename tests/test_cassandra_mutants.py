"""Seeded bugs: on one schedule each the checkers expose the mutant, and pass the sound policy on the same schedule and seeds."""

from __future__ import annotations

from typing import Any

import pytest

from capray.checkers.zones import linearizable_register
from capray.faults import Fault
from capray.record import Record
from capray.scenario import Scenario
from capray.trial import simulate
from capray.workload import Workload

S = 1_000_000
CUT = Fault(at_us=4 * S, for_us=6 * S, shape="0,1|2,3,4")
CRASH_OF_TWO = Fault(kind="crash-process", at_us=6 * S, for_us=S, nodes=(0, 1))
QUORUM = {"read_consistency": "QUORUM", "write_consistency": "QUORUM", "partitioner": "key_number"}


def trial(policy: str, faults: tuple[Fault, ...], settings: dict[str, Any], seed: int, quiet_us: int, keys: int = 5) -> Record:
    load = Workload(rate=20.0, keys=keys)
    return simulate(
        Scenario(policy=policy, settings=settings, nodes=5, faults=faults, workload=load, duration_us=18 * S, quiet_us=quiet_us).resolved(), seed
    )


def linearizable(policy: str, faults: tuple[Fault, ...], seed: int, **more: Any) -> bool:
    status = linearizable_register(trial(policy, faults, {**QUORUM, **more}, seed, S, keys=50).history).status
    assert status in ("valid", "invalid")
    return status == "valid"


def converges(policy: str, faults: tuple[Fault, ...], seed: int, **more: Any) -> bool:
    """Whether all replicas of each key hold the same value half a minute after the last request."""
    record = trial(policy, faults, {"partitioner": "key_number", **more}, seed, 35 * S)
    held: dict[tuple[str, int], Any] = {}
    for version in record.versions or ():
        if version.kind == "apply":
            held[version.key, version.node] = version.value
    return all(len({held.get((key, node)) for node in nodes}) == 1 for key, nodes in record.placement.items())


CASES = [
    ("QuorumOfHalf", linearizable, (CUT,), {}),
    ("RepairsNothing", linearizable, (CUT,), {}),
    ("ForgetsCommitLog", linearizable, (CRASH_OF_TWO,), {}),
    ("DropsHints", converges, (CUT, Fault(at_us=14 * S, for_us=4 * S, shape="0,1|2,3,4")), {}),
    ("LastArrivalWins", converges, (CUT,), {"write_consistency": "ONE"}),
]


@pytest.mark.parametrize("mutant, check, faults, settings", CASES)
def test_the_mutant_is_exposed_and_the_sound_policy_is_not(mutant: str, check: Any, faults: tuple[Fault, ...], settings: dict[str, Any]) -> None:
    seeds = range(3)
    assert all(check("cassandra", faults, seed, **settings) for seed in seeds)
    assert not all(check("cassandra_mutants:" + mutant, faults, seed, **settings) for seed in seeds)
