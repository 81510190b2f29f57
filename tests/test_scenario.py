"""Scenarios: from TOML with units, refused in one line, and with a digest that says what differs from the defaults."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from capray.distributions import Constant, Exponential
from capray.errors import InputError
from capray.faults import Fault
from capray.links import DISKS, LINKS
from capray.replica import Replica, Settings
from capray.scenario import Scenario, from_dict, read_toml, settings_of
from capray.workload import Workload


class Knobs(Settings):
    """Settings of every kind."""

    patience_us: int = 500_000
    level: str = "ONE"
    copies: int = 3
    eager: bool = True
    share: float = 0.5

    def problems(self, nodes: int) -> list[str]:
        return [f"copies: {self.copies} is not accepted; it takes at most {nodes}"] if self.copies > nodes else []


class Knobby(Replica):
    """A policy that does nothing, with settings."""

    name = "knobby"
    Settings = Knobs


class Shouting(Replica):
    """A policy that speaks datagrams."""

    name = "shouting"
    transport = "datagram"


KNOBBY, SHOUTING = f"{__name__}:Knobby", f"{__name__}:Shouting"


def toml(text: str) -> Scenario:
    return from_dict(tomllib.loads(text if text.lstrip().startswith("policy") else f'policy = "{KNOBBY}"\n' + text))


WHOLE = f"""
policy = "{KNOBBY}"
nodes = 3
disk = {{ shape = "constant", value = "2ms" }}
duration = "1min"
quiet = "2s"
service = "50us"
clock_offset = ["1ms", "-2ms", 0]
clock_drift_ppm = [0, 10, -10]
trace = ["9s", "11s"]
settings = {{ patience = "2s", level = "ALL", copies = "2", eager = false }}
[link]
floor = "0.2ms"
latency = {{ shape = "mixture", parts = [
  {{ weight = 9, of = {{ shape = "exponential", mean = "75us" }} }},
  {{ weight = 1, of = {{ shape = "uniform", low = "1ms", high = "2ms" }}, plus = "3ms" }} ] }}
by_class = {{ write = {{ shape = "lognormal", median = "1ms", sigma = 0.5 }}, ack = {{ shape = "pareto", scale = "1ms", alpha = 2 }} }}
regions = [[0, 100], [100, 0]]
loss = 0.01
[workload]
rate = 5
deadline = "1.5s"
key_distribution = "zipfian"
[[faults]]
shape = "flapping"
at = "10s"
for = "5s"
period = "500ms"
[[faults]]
kind = "skew"
nodes = [1]
at = "12s"
offset = "-5ms"
"""


def test_every_duration_may_carry_its_unit() -> None:
    found = toml(WHOLE)
    assert found.disk == Constant(2000) and (found.duration_us, found.quiet_us, found.service_us) == (60_000_000, 2_000_000, 50)
    assert (found.clock_offset_us, found.trace_us) == ((1000, -2000, 0), (9_000_000, 11_000_000))
    parts = found.wire.latency.parts  # type: ignore[union-attr]
    assert (found.wire.floor_us, parts[0].of, parts[1].plus_us) == (200, Exponential(75), 3000)
    assert found.faults == (Fault(shape="flapping", at_us=10_000_000, for_us=5_000_000, period_us=500_000),
                            Fault(kind="skew", nodes=(1,), at_us=12_000_000, offset_us=-5000))
    assert found.workload == Workload(rate=5, deadline_us=1_500_000, key_distribution="zipfian")
    assert found.policy_settings == Knobs(patience_us=2_000_000, level="ALL", copies=2, eager=False)


def test_a_scenario_says_when_things_are() -> None:
    plain = toml("")
    assert (plain.load_us, plain.final_us, plain.end_us) == (30_000_000, 35_000_000, 36_000_000)
    cut = toml('[[faults]]\nat = "10s"\nfor = "43s"\n')
    assert (cut.load_us, cut.end_us) == (73_000_000, 79_000_000)
    assert toml('duration = "12s"').load_us == 12_000_000


def test_tcp_is_what_a_policy_speaks_unless_the_link_says_otherwise() -> None:
    assert (toml("").transport, toml("").effective_cut_mode) == ("tcp", "tcp")
    datagram = toml('[link]\ntransport = "datagram"\n')
    assert (datagram.transport, datagram.effective_cut_mode) == ("datagram", "drop")
    assert toml(f'policy = "{SHOUTING}"').effective_cut_mode == "drop"
    assert toml(f'policy = "{SHOUTING}"\ncut_mode = "tcp"\nlink = {{ transport = "tcp" }}').effective_cut_mode == "tcp"
    assert toml('cut_mode = "hold"').effective_cut_mode == "hold"


@pytest.mark.parametrize("text, says", [
    ("nodes = 0", "nodes: 0 is not accepted; it takes a whole number from 1 to"),
    ('nodes = "five"', "scenario.nodes: 'five' is not accepted; it takes a whole number"),
    ("clock_offset = 3", "scenario.clock_offset: 3 is not accepted; it takes a list, a duration for each node"),
    ('[[faults]]\nkind = "crash-host"\nnodes = 3', "scenario.faults[0].nodes: 3 is not accepted; it takes a list"),
    ("workload = 3", "scenario.workload: 3 is not accepted; it takes a table"),
    ('duration = "100000d"', "duration: '8640000000s' is not accepted; it takes at most 200000s (366 days, or 20,000,000 operations: 5 nodes x 20 a second)"),
    ('duration = "400d"\n[workload]\nrate = 0', "duration: '34560000s' is not accepted; it takes at most"),
    ("nodes = -3", "nodes: -3"),
    ('policy = "papyrus"', "policy: 'papyrus' is not accepted; it takes one of"),
    ('policy = "capray.nothing:Here"', "policy: 'capray.nothing:Here' is not accepted; its module cannot be imported"),
    ('policy = "capray.errors:Here"', "policy: 'capray.errors:Here' is not accepted; module capray.errors has no class Here"),
    ('policy = "capray.errors:InputError"', "policy: 'capray.errors:InputError' is not accepted; it takes a subclass"),
    ('link = "lann"', "link: 'lann' is not accepted; it takes one of lan,"),
    ('disk = "tape"', "disk: 'tape' is not accepted; it takes one of memory,"),
    ('disk = { shape = "pareto", scale = "1ms", alpha = 0 }', "disk: alpha 0"),
    ('cut_mode = "bend"', "cut_mode: 'bend' is not accepted; it takes one of policy, drop"),
    (f'policy = "{SHOUTING}"\ncut_mode = "tcp"', "cut_mode: 'tcp' is not accepted; it takes drop, deliver or hold"),
    ('quiet = "5"', "quiet: '5' is not accepted; it takes a duration with a unit"),
    ('quiet = "5 parsecs"', "quiet: '5 parsecs' is not accepted; it takes a duration with a unit"),
    ("quiet = 1.5", "quiet: 1.5 is not accepted; it takes a duration with a unit"),
    ("quiet = true", "quiet: True is not accepted"),
    ('quiet = "-5s"', "quiet_us: -5000000 is not accepted; it takes 0 or more"),
    ('quiet = "0.5us"', "quiet: '0.5us' is not accepted; it takes a duration that is a whole number"),
    ('quiet = "5s"\nquiet_us = 5', "quiet: '5s' is not accepted; it takes one of quiet and quiet_us, not both"),
    ("clock_offset = [1]", "clock_offset_us: (1,) is not accepted; it takes one number for each of the 5 nodes"),
    ("clock_drift_ppm = [0, 0, 0, 0, 900000]", "clock_drift_ppm"),
    ('trace = ["1s"]', "trace_us: (1000000,) is not accepted; it takes two instants"),
    ('trace = ["2s", "1s"]', "trace_us"),
    ("colour = 1", "scenario: unknown field 'colour' is not accepted; it takes policy, settings, nodes"),
    ("[workload]\nspeed = 1", "scenario.workload: unknown field 'speed' is not accepted; it takes rate"),
    ("[workload]\nrate = -1", "workload.rate: -1"),
    ('[workload]\narrivals = "odd"', "scenario.workload.arrivals: 'odd' is not accepted; it takes one of poisson, even"),
    ('[workload]\ndeadline = "0s"', "workload.deadline: 0"),
    ("[link]\nloss = 2.0", "link.loss: 2.0 is not accepted; it takes a share"),
    ('[link]\nfloor = "-1ms"', "link.floor_us: -1000"),
    ('[link]\nlatency = { shape = "gauss" }', "scenario.link.latency.shape: 'gauss' is not accepted; it takes one of constant,"),
    ('[link]\nlatency = { shape = "exponential", mean_us = nan }', "link.latency: mean_us nan"),
    ('[link]\nlatency = { shape = "empirical", file = "/no/such" }', "link.latency: '/no/such' is not accepted"),
    ('[[faults]]\nkind = "flood"', "scenario.faults[0].kind: 'flood' is not accepted; it takes one of partition,"),
    ('[[faults]]\nat = "soon"', "faults.at: 'soon'"),
    ("[[faults]]\nwhen = 5", "scenario.faults[0]: unknown field 'when' is not accepted; it takes kind, at, for"),
    ('[[faults]]\nshape = "0|1|2|3|4|5"', "partition: '0|1|2|3|4|5' is not accepted; it takes at most 5 groups"),
    ('duration = "20s"\n[[faults]]\nat = "10s"\nfor = "50s"', "for: '50s' is not accepted; it takes a fault that ends within the trial"),
    ("settings = { courage = 1 }", "setting: 'courage' is not accepted; it takes one of knobby's: patience, level"),
    ('settings = { patience = "soon" }', "setting patience: 'soon' is not accepted"),
    ('settings = { copies = "many" }', "setting copies: 'many' is not accepted"),
    ("settings = { copies = 9 }", "copies: 9 is not accepted; it takes at most 5"),
])
def test_a_wrong_scenario_is_one_line(text: str, says: str) -> None:
    with pytest.raises(InputError) as error:
        toml(text)
    assert str(error.value).startswith(says), str(error.value)
    assert "\n" not in str(error.value)


def test_files_that_are_no_scenario(tmp_path: Path) -> None:
    (tmp_path / "broken.toml").write_text("nodes = = 3")
    (tmp_path / "binary.toml").write_bytes(b"\xff\x00")
    for name, says in (("broken.toml", "line 1"), ("binary.toml", "TOML"), ("none.toml", "readable")):
        with pytest.raises(InputError, match=says) as error:
            read_toml(tmp_path / name)
        assert "\n" not in str(error.value)


# ---- the digest -----------------------------------------------------------------------------------------------------------------------
SAME: list[tuple[str, str]] = [
    ("", "nodes = 5"), ("", 'link = "lan"'), ("", 'disk = "ssd"\nquiet = "5s"\ncut_mode = "policy"'), ("", "[workload]\nrate = 20.0\nkeys = 5"),
    ("", 'settings = { patience = "500ms", level = "ONE" }'), ('settings = { patience = "1s" }', "settings = { patience_us = 1000000 }"),
    ('[[faults]]\nat = "10s"\nfor = "5s"', '[[faults]]\nkind = "partition"\nshape = "majority"\nat_us = 10000000\nfor = "5000ms"'),
    ("", '[link]\nfloor = "200us"\nlatency = { shape = "exponential", mean = "75us" }'),
]


@pytest.mark.parametrize("one, other", SAME)
def test_a_default_that_is_written_out_changes_nothing(one: str, other: str) -> None:
    assert toml(one).digest() == toml(other).digest()


def test_everything_else_changes_it() -> None:
    texts = ["", "nodes = 3", 'link = "wan"', 'disk = "disk"', 'quiet = "6s"', 'cut_mode = "hold"', "[workload]\nrate = 21",
             '[[faults]]\nat = "10s"\nfor = "5s"',
             '[[faults]]\nat = "10s"\nfor = "6s"', 'settings = { patience = "1s" }', "service = 1", "clock_drift_ppm = [1, 0, 0, 0, 0]",
             '[link]\nlatency = { shape = "constant", value = 75 }', '[link]\nlatency = { shape = "exponential", mean = 75 }']
    assert len({toml(text).digest() for text in texts}) == len(texts)


def test_resolving_twice_is_resolving_once_and_the_wire_keeps_it() -> None:
    once = toml(WHOLE)
    assert once.resolved() == once and once.resolved().digest() == once.digest()
    there = msgspec.msgpack.decode(msgspec.msgpack.encode(once), type=Scenario)
    assert there == once and there.digest() == once.digest()


def test_an_unnamed_preset_is_the_link_itself() -> None:
    assert toml("").link == LINKS["lan"] and toml("").disk == DISKS["ssd"]


@pytest.mark.parametrize("given, expected", [
    ({"patience": "2s"}, 2_000_000), ({"patience_us": 7}, 7), ({"patience": "7"}, 7), ({"patience": 7}, 7)])
def test_settings_take_units_or_microseconds(given: dict[str, Any], expected: int) -> None:
    assert settings_of(Knobby, given).patience_us == expected  # type: ignore[attr-defined]


@pytest.mark.parametrize(("policy", "settings", "named"), [
    ("etcd", {"pre_vote": "maybe"}, "setting pre_vote: 'maybe' is not accepted; it takes true or false, or none"),
    ("redis", {"replica_priorities": "1,b"}, "setting replica_priorities: '1,b' is not accepted; it takes whole numbers such as 1,2,3, or none"),
    ("redis", {"quorum": "x"}, "setting quorum: 'x' is not accepted; it takes a whole number"),
    ("crdt", {"fanout": 0}, "setting fanout: 0 is not accepted; it takes a whole number >= 1"),
    ("dynamo", {"client": "me"}, "setting client: 'me' is not accepted; it takes one of merging, last-write-wins"),
])
def test_a_setting_that_does_not_fit_is_told_in_words(policy: str, settings: dict, named: str) -> None:
    with pytest.raises(InputError) as caught:
        from_dict({"policy": policy, "settings": settings})
    assert str(caught.value) == named


def test_settings_as_typed_on_a_command_line() -> None:
    given = from_dict({"policy": "redis", "nodes": 3, "settings": {"replica_priorities": "100,0,50", "down_after": "5s"}}).policy_settings
    assert (given.replica_priorities, given.down_after_us) == ((100, 0, 50), 5_000_000)
    assert from_dict({"policy": "redis", "settings": {"replica_priorities": "none"}}).policy_settings.replica_priorities == ()
    assert from_dict({"policy": "etcd", "settings": {"pre_vote": "none"}}).policy_settings.pre_vote is None
    assert from_dict({"policy": "zookeeper", "settings": {"tick_phase": "none"}}).policy_settings.tick_phase_us is None
