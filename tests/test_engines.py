"""One loop, several engines, one result: whole trials and windowed trials leave the same bytes, whatever goes wrong in them.

What is compared is the record's digest.  The Ray engines' turn is in test_actors.py; here the windowed loop runs in this process.
"""

from __future__ import annotations

import os
import subprocess
import sys

import msgspec
import pytest

from capray.distributions import Constant
from capray.errors import InputError
from capray.faults import SHAPES, Fault
from capray.links import DISKS, LINKS, Link, link_preset
from capray.network import Network
from capray.policies import POLICIES, load
from capray.scenario import Scenario
from capray.streams import Stream
from capray.trial import simulate
from capray.windows import NodeHost, WindowedTrial, _encode, _reports, simulate_in_windows
from capray.workload import Workload

S = 1_000_000
KINDS = ("partition", "crash-process", "crash-host", "pause", "slow", "skew")


def there(policy: str) -> bool:
    try:
        load(policy)
    except InputError:
        return False
    return True


HERE = [policy for policy in POLICIES if there(policy)]
policies = pytest.mark.parametrize("policy", [pytest.param(p, marks=[] if p in HERE else pytest.mark.skip(reason="not there yet")) for p in POLICIES])


AGREED: dict[tuple[str, int], str] = {}  # (the scenario's digest, the seed) -> the record's digest


def both(scenario: Scenario, seed: int) -> str:
    """The digest, after the two loops have agreed on it."""
    whole, windowed = simulate(scenario, seed), simulate_in_windows(scenario, seed)
    assert whole.digest() == windowed.digest(), f"{scenario} with seed {seed}: {first_difference(whole, windowed)}"
    AGREED[scenario.digest(), seed] = whole.digest()
    return whole.digest()


def digest_of(scenario: Scenario, seed: int) -> str:
    """The digest, from what the tests before have simulated, or anew."""
    return AGREED.get((scenario.digest(), seed)) or simulate(scenario, seed).digest()


def first_difference(a: object, b: object) -> str:
    for name in ("history", "versions", "faults", "counters", "placement"):
        one, other = getattr(a, name), getattr(b, name)
        if isinstance(one, list):
            for x, y in zip(one, other):
                if x != y:
                    return f"{name}: {x} / {y}"
        if one != other:
            return f"{name} differ: {one if isinstance(one, dict) else len(one)} / {other if isinstance(other, dict) else len(other)}"
    return "nothing that can be seen"


def everything_at_once(nodes: int, start: int = S) -> tuple[Fault, ...]:
    """Every kind of fault, overlapping, with one that waits for a leader."""
    last = nodes - 1
    faults = [
        Fault(kind="slow", nodes=(last,), at_us=start, for_us=3 * S, factor=20, service_us=300),
        Fault(kind="skew", nodes=(0,), at_us=start, for_us=4 * S, offset_us=-70_000),
        Fault(kind="pause", nodes=(nodes // 2,), at_us=start + 500_000, for_us=S),
        Fault(kind="crash-process", nodes=(last,), at_us=start + 2 * S, for_us=S),
        Fault(kind="crash-host", at_us=start + 2_500_000, for_us=1_500_000),
        Fault(kind="pause", at_us=0, for_us=700_000, on_role="leader"),
    ]
    if nodes > 1:
        faults += [Fault(shape="leader-minority", at_us=start, for_us=1_700_000), Fault(shape="one-way", at_us=start + 2 * S, for_us=2 * S),
                   Fault(shape="flapping", period_us=230_000, at_us=start + 3 * S, for_us=2 * S), Fault(shape="isolate", at_us=0, for_us=S, on_role="leader")]
    return tuple(faults)


def short(policy: str, nodes: int = 5, **other: object) -> Scenario:
    """Eight seconds of every fault; in large clusters as many requests as in one of three nodes."""
    fields = {"faults": everything_at_once(nodes), "duration_us": 8 * S, "quiet_us": S, "workload": Workload(rate=min(15, 45 / nodes), keys=3), **other}
    return Scenario(policy=policy, nodes=nodes, **fields).resolved()  # type: ignore[arg-type]


@policies
@pytest.mark.parametrize("nodes", [1, 2, 3, 5, 9])
def test_every_policy_in_clusters_of_any_size_with_every_fault_at_once(policy: str, nodes: int) -> None:
    both(short(policy, nodes), nodes)


@policies
@pytest.mark.parametrize("cut_mode", ["drop", "deliver", "hold", "tcp"])
def test_every_cut_mode(policy: str, cut_mode: str) -> None:
    if cut_mode == "tcp" and load(policy).transport != "tcp":
        pytest.skip(f"{policy} speaks datagrams")
    both(short(policy, cut_mode=cut_mode), 7)


@policies
@pytest.mark.parametrize("link", list(LINKS))
def test_every_link_preset(policy: str, link: str) -> None:
    both(short(policy, 3, link=link, duration_us=7 * S, workload=Workload(rate=5)), 3)
    untriggered = tuple(fault for fault in everything_at_once(3) if not fault.on_role)  # where nothing waits for a role, windows look ahead
    both(short(policy, 3, link=link, duration_us=7 * S, faults=untriggered, workload=Workload(rate=5)), 4)


@pytest.mark.parametrize("policy", [policy for policy in ("abd", "cassandra") if policy in HERE])  # the others' protocols rest on TCP
def test_datagrams_that_are_lost_and_doubled(policy: str) -> None:
    lossy = Link(floor_us=200, latency=link_preset("lan").latency, loss=0.05, duplication=0.05, transport="datagram")
    both(short(policy, link=lossy), 5)


@policies
def test_segments_that_are_lost(policy: str) -> None:
    both(short(policy, link=Link(floor_us=200, latency=link_preset("lan").latency, loss=0.05)), 5)


@policies
def test_clients_outside_the_cut_and_a_busy_server_and_drifting_clocks(policy: str) -> None:
    both(short(policy, 3, workload=Workload(rate=40, client_placement="outside", key_distribution="zipfian", arrivals="even"), service_us=400,
               clock_offset_us=(0, 30_000, -20_000), clock_drift_ppm=(0, 200, -900), disk="memory"), 11)


@pytest.mark.parametrize("shape", ["one-way", "isolate"])
def test_connections_that_their_user_timeout_ends(shape: str) -> None:
    both(short("cassandra", 3, settings={"internode_tcp_user_timeout": "1s"}, faults=(Fault(shape=shape, at_us=S, for_us=4 * S),)), 5)


def test_what_arrives_at_one_instant_meets_a_nodes_messages_to_itself_in_the_order_of_their_sources() -> None:
    """Where all latencies are one constant many messages arrive at once, and a proposer that is its own acceptor sends itself some at that instant."""
    serial = {"read_consistency": "SERIAL", "write_consistency": "SERIAL"}
    both(short("cassandra", faults=(), settings=serial, link=Link(latency=Constant(1_000)), disk="memory", duration_us=3 * S,
               workload=Workload(rate=40, keys=3, arrivals="even")), 1)


def draw_scenario(number: int) -> Scenario:
    """A scenario out of a hat: any policy, size, link, disk, cut mode and up to six faults of any kind at any time."""
    hat = Stream(number, "hat")
    pick = lambda options: options[hat.below(len(options))]
    nodes = pick((1, 2, 3, 3, 4, 5, 5, 7))
    faults = []
    for _ in range(hat.below(7)):
        kind = pick(("partition",) * 4 + KINDS)
        some = tuple(sorted({hat.below(nodes) for _ in range(1 + hat.below(2))}))
        shape = pick(SHAPES) if nodes > 1 else "none"
        if nodes > 2 and hat.below(4) == 0:
            shape = "0|1,2"
        faults.append(Fault(
            kind=kind, at_us=hat.below(5 * S), for_us=pick((0, hat.below(3 * S), hat.below(3 * S))), shape=shape, period_us=1 + hat.below(S),
            nodes=() if kind == "partition" or kind not in ("slow", "skew") and hat.below(3) == 0 else some, factor=1 + hat.below(30),
            service_us=pick((0, 100, 3000)), offset_us=hat.below(200_000) - 100_000, on_role=pick(("", "", "", "leader"))))
    transport = pick(("policy", "tcp", "datagram"))
    base = link_preset(pick(list(LINKS)))
    policy = pick(HERE)
    link = Link(floor_us=base.floor_us, latency=base.latency, by_class=base.by_class, regions=base.regions, transport=transport,
                loss=pick((0.0, 0.0, 0.02)), duplication=pick((0.0, 0.0, 0.02)) if policy in ("abd", "cassandra") else 0.0)
    if transport == "datagram" and not load(policy).datagrams:
        link = msgspec.structs.replace(link, transport="tcp")
        transport = "tcp"
    speaks = load(policy).transport if transport == "policy" else transport
    modes = ("policy", "drop", "deliver", "hold") + (("tcp",) if speaks == "tcp" else ())
    return Scenario(policy=policy, nodes=nodes, link=link, disk=pick(list(DISKS)), faults=tuple(faults), cut_mode=pick(modes), duration_us=8 * S, quiet_us=S,
                    service_us=pick((0, 0, 150)), workload=Workload(rate=10, keys=2, client_placement=pick(("beside", "outside")))).resolved()


@pytest.mark.parametrize("batch", range(6))
def test_random_schedules(batch: int) -> None:
    for number in range(batch * 8, batch * 8 + 8):
        both(draw_scenario(number), number)


@pytest.mark.parametrize("cut_mode", ["drop", "tcp"])
def test_the_trace_is_the_same_though_it_is_no_part_of_the_digest(cut_mode: str) -> None:
    scenario = short("abd", 3, trace_us=(S, 2 * S), cut_mode=cut_mode)
    whole, windowed = simulate(scenario, 1), simulate_in_windows(scenario, 1)
    assert whole.trace == windowed.trace and len(whole.trace) > 100


def test_the_digest_tells_seeds_apart_and_repeats() -> None:
    scenario = short(HERE[-1], 3)
    assert both(scenario, 1) == both(scenario, 1) != both(scenario, 2)


def by_hand(scenario: Scenario, seed: int, plain: bool) -> tuple[int, str]:
    """How many windows a trial takes, and its record's digest; none where it must begin again."""
    host, trial = NodeHost(), WindowedTrial(scenario, seed, 0, plain)
    host.open([(0, node, scenario, seed) for node in range(scenario.nodes)])
    while orders := trial.plan():
        trial.absorb([report[1:] for report in _reports.decode(host.round(_encode(orders)))])
        if trial.overrun:
            return trial.rounds, ""
    return trial.rounds, trial.record([host.finish(0, node) for node in range(scenario.nodes)]).digest()


@pytest.mark.parametrize("link, gain", [("ymmr", 2), ("lnkd-ssd", 1.5)])
def test_where_a_latency_has_no_floor_looking_ahead_saves_rounds(link: str, gain: float) -> None:
    faults = (Fault(shape="leader-minority", at_us=S, for_us=3 * S), Fault(kind="crash-process", nodes=(1,), at_us=2 * S, for_us=S))
    scenario = short("abd", link=link, faults=faults)
    ahead, digest = by_hand(scenario, 1, plain=False)
    plain, digest_of_plain = by_hand(scenario, 1, plain=True)
    assert digest and plain > gain * ahead
    assert digest_of_plain == digest == simulate(scenario, 1).digest()


def test_while_a_fault_waits_for_a_role_windows_do_not_look_ahead_of_its_effect() -> None:
    scenario = short("zookeeper", 3, link="ymmr", faults=(Fault(shape="isolate-leader", at_us=0, for_us=2 * S, on_role="leader"),))
    assert all(by_hand(scenario, seed, plain=False)[1] for seed in range(4))


def test_a_window_that_ran_too_far_is_noticed_and_the_trial_begun_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A horizon that promises too much stands in for a hole in the argument: the digest does not change."""
    scenario = short("abd", 3, link="lnkd-ssd", faults=(Fault(at_us=S, for_us=S),))
    honest = Network.horizon
    monkeypatch.setattr(Network, "horizon", lambda self, node, t: honest(self, node, t) + 300)
    assert not by_hand(scenario, 2, plain=False)[1]
    both(scenario, 2)


PROGRAM = """
import sys
sys.path.insert(0, {tests!r})
from test_engines import of_many
print(of_many())
"""


def of_many() -> list[str]:
    return [digest_of(short(policy, 3), 3) for policy in HERE] + [digest_of(draw_scenario(i), i) for i in range(4)]


def test_the_hash_seed_of_python_decides_nothing() -> None:
    """In this process it is whatever it is, in the other another."""
    hash_seed = "0" if os.environ.get("PYTHONHASHSEED") == "4242" else "4242"
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)}
    program = PROGRAM.format(tests=os.path.dirname(__file__))
    printed = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True).stdout
    assert printed.split("\n")[-2] == str(of_many())
