"""Where fleets and their node actors stand, and which trial goes to which fleet: the driver's arithmetic, without a cluster."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

fleet = pytest.importorskip("capray.fleet")

from capray import raycluster
from capray.scenario import Scenario
from capray.workload import Workload

S = 1_000_000


def job(key: int, nodes: int = 3, seconds: int = 10, rate: float = 9.0) -> Any:
    return key, Scenario(policy="abd", nodes=nodes, duration_us=seconds * S, quiet_us=0, workload=Workload(rate=rate)), 1


def processors(monkeypatch: pytest.MonkeyPatch, **machines: int) -> None:
    found = [{"NodeID": name * 56, "Alive": True, "Resources": {"CPU": count} if count else {}} for name, count in machines.items()]
    monkeypatch.setattr(fleet, "machines", lambda: found)
    monkeypatch.setattr(raycluster, "machines", lambda: found)


@pytest.mark.parametrize(("machines", "asked", "places"), [
    ({"a": 8, "b": 4, "c": 1}, 0, "aabaab"),  # one for two processors, so that c has none
    ({"a": 8, "b": 4, "c": 1}, 3, "aab"), ({"a": 2, "b": 2}, 2, "ab"), ({"a": 1}, 0, "a"), ({"a": 1, "b": 1}, 3, "aba"),
])
def test_fleets_stand_where_most_processors_are_left_for_them(machines: dict[str, int], asked: int, places: str, monkeypatch: pytest.MonkeyPatch) -> None:
    processors(monkeypatch, **machines)
    found = [machine[0] for machine in fleet.plan(asked)]
    assert sorted(found) == sorted(places) and found[0] == "a"


@pytest.mark.parametrize(("placement", "stand"), [("pack", "bbbbb"), ("spread", "acbac")])
def test_node_actors_stand_with_their_network_actor_or_on_all_machines_in_turn_that_one_last(
    placement: str, stand: str, monkeypatch: pytest.MonkeyPatch,
) -> None:
    processors(monkeypatch, a=2, b=2, c=2)
    monkeypatch.setattr(raycluster.ray, "get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: "b" * 56))
    assert "".join(raycluster.machine_for(placement, number).node_id[0] for number in range(5)) == stand


def test_the_largest_clusters_wait_first_the_costliest_of_them_before_and_what_was_lost_before_all() -> None:
    waiting = fleet.Waiting([job(1, 3, 5), job(2, 5, 5), job(3, 3, 50), job(4, 5, 5, rate=90.0)])
    first = waiting.take(3)
    assert first[0] == 3
    waiting.put_back(first)
    assert [waiting.take(size)[0] for size in (3, 0, 3, 5)] == [3, 4, 1, 2]
    assert waiting.take(3) is None


class Unstarted(fleet.Fleet):  # type: ignore[misc,name-defined]
    """A fleet whose actors nobody starts: it counts what it is asked."""

    def _start(self) -> Any:
        return SimpleNamespace(work=SimpleNamespace(remote=lambda fresh, in_flight: ([key for key, *_ in fresh], in_flight)))


def test_the_fleet_with_the_least_to_do_is_given_the_next_trial_of_the_size_that_it_runs_and_no_more_than_its_share() -> None:
    one, two = Unstarted(), Unstarted()
    waiting = fleet.Waiting([job(1, 5, 40), *(job(key, 3, 10) for key in range(2, 20))])
    assert fleet._deal([one, two], waiting, share=4)
    assert list(one.given)[:1] == [1] and one.size == 3  # by then no trial of five nodes was left
    assert len(one.given) == len(two.given) == 4 + 1
    assert list(two.given)[:4] == [2, 3, 4, 5]  # 5 x 40 is 6.7 times 3 x 10: the other came last again
    assert [call[0] for call in one.calls] == [list(one.given), []] and {call[1] for call in one.calls} == {4}
    one.over(1)
    assert one.load == pytest.approx(sum(fleet.cost(job[1]) for job in one.given.values()))
    assert one.over(1) is None and fleet._deal([one, two], waiting, share=4) and len(one.given) == 5
    assert not fleet._deal([Unstarted()], fleet.Waiting([]), share=4)
