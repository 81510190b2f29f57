"""A policy that never ends takes down its own trial, and neither the process nor the trials beside it."""

import time
from pathlib import Path

import pytest

from capray import watchdog
from capray.engines import attempt, run_local
from capray.record import Record
from capray.scenario import from_dict
from capray.watchdog import NeverEnds, Watchdog


def scenario(policy):
    return from_dict({"policy": policy, "nodes": 3, "duration_us": 2_000_000, "quiet_us": 0, "workload": {"rate": 5, "keys": 2}})


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.setattr(watchdog, "LIMIT_S", 0.2)


@pytest.mark.parametrize("policy", ["failing_policy:Endless", "failing_policy:Storm"])
def test_a_handler_that_loops_and_timers_that_are_due_at_once_end_their_trial_with_a_reason(policy):
    outcome = attempt(scenario(policy), 0)
    assert isinstance(outcome, str) and outcome.rstrip().endswith("watchdog.NeverEnds")


def test_the_trials_after_it_go_on():
    jobs = [(0, scenario("failing_policy:Endless"), 0), (1, scenario("abd"), 0)]
    outcomes = {key: outcome for key, outcome, _ in run_local(jobs)}
    assert isinstance(outcomes[0], str) and isinstance(outcomes[1], Record)


def test_a_long_trial_whose_time_passes_is_left_alone(monkeypatch):
    """It takes several times the limit; how long that is in seconds is the engine's speed and no matter of the watchdog's."""
    monkeypatch.setattr(watchdog, "LIMIT_S", 0.01)
    started = time.thread_time()
    outcome = attempt(from_dict({"policy": "abd", "nodes": 5, "duration_us": 60_000_000, "quiet_us": 0, "workload": {"rate": 10, "keys": 2}}), 0)
    assert isinstance(outcome, Record) and time.thread_time() - started > 4 * watchdog.LIMIT_S


def test_what_has_ended_is_not_interrupted_afterwards():
    dog = Watchdog(0.05)
    dog.begin()
    dog.end()
    until = time.thread_time() + 0.3
    while time.thread_time() < until:
        pass
    dog.begin()
    with pytest.raises(NeverEnds):
        while True:
            pass
    dog.close()


def test_a_second_trial_of_one_round_that_never_ends_is_ended_too():
    dog = Watchdog(0.05)
    dog.begin()
    for _ in range(3):
        with pytest.raises(NeverEnds):
            while True:
                pass
    dog.end()
    dog.close()


def test_in_one_round_of_a_node_s_host_every_endless_trial_ends_and_the_sound_one_goes_on():
    from capray.rounds import NodeActor
    from capray.windows import WindowedTrial, _encode, _reports

    scenarios = [scenario("failing_policy:Endless"), scenario("failing_policy:Storm"), scenario("failing_policy:Endless"), scenario("abd")]
    host = NodeActor()
    host.watchdog.limit_s = 0.05
    trials = {slot: WindowedTrial(one, 0, slot, True) for slot, one in enumerate(scenarios)}
    host.open([(slot, node, one, 0) for slot, one in enumerate(scenarios) for node in range(3)])
    while orders := [order for trial in trials.values() if not trial.over for order in trial.plan()]:
        host.watchdog.begin()
        rows = _reports.decode(host.round(_encode(orders)))
        host.watchdog.end()
        for slot, trial in trials.items():
            found = [row[1:] for row in rows if row[0] == slot]
            if found:
                trial.absorb(found)
    host.watchdog.close()
    assert [trial.failure.rstrip().endswith("NeverEnds") for trial in trials.values()] == [True, True, True, False]
