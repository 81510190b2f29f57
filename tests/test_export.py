"""Traces for ShiViz: read back as ShiViz reads them, the clocks say what the messages say; histories of a sweep's trials come out again."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import pytest

from capray.engines import Where
from capray.errors import InputError
from capray.export import export_trial, trace_window
from capray.history import read_history
from capray.record import Record
from capray.scenario import Scenario, from_dict
from capray.shiviz import REGEX, shiviz
from capray.sweep import sweep_from_dict
from capray.sweeping import run_shown
from capray.trial import simulate

Clock = dict[str, int]


def scenario(policy: str, **more: object) -> Scenario:
    return from_dict({"policy": policy, "nodes": 3, "duration": "6s", "workload": {"rate": 5.0}, "faults": [{"shape": "isolate", "at": "2s", "for": "2s"}],
                      **more})


def traced(asked: Scenario, window: str | None) -> Record:
    return simulate(msgspec.structs.replace(asked, trace_us=trace_window(window, asked)), 3)


def parsed(text: str) -> list[tuple[str, str, Clock]]:
    """(event, host, clock) of each event, as ShiViz's parser has it: first line the expression, second the delimiter, then the log."""
    expression, delimiter, log = text.split("\n", 2)
    assert expression == REGEX and not delimiter
    return [(found["event"], found["host"], json.loads(found["clock"])) for found in re.finditer(expression.replace("(?<", "(?P<"), log)]


def before(one: Clock, other: Clock) -> bool:
    """Whether an event happened before another, by their clocks."""
    return one != other and all(count <= other.get(host, 0) for host, count in one.items())


LOSSY = {"link": {"floor": "1ms", "loss": 0.1, "transport": "datagram"}, "cut_mode": "drop"}


@pytest.fixture(scope="module", params=[("abd", {}), ("zookeeper", {}), ("crdt", LOSSY)], ids=lambda param: param[0])
def record(request: pytest.FixtureRequest) -> Record:
    return traced(scenario(request.param[0], **request.param[1]), "1s,5s")


def test_a_hosts_events_are_counted_one_by_one(record: Record) -> None:
    seen: Clock = {}
    for _, host, clock in parsed(shiviz(record)):
        seen[host] = seen.get(host, 0) + 1
        assert clock[host] == seen[host]
        assert all(count <= seen.get(other, 0) for other, count in clock.items())  # nothing is known before it was told
    assert set(seen) <= {"n0", "n1", "n2", "faults"} and len(seen) == 4


def test_every_message_is_sent_before_it_is_received_and_a_dropped_one_is_received_nowhere(record: Record) -> None:
    sends: dict[str, list[Clock]] = {}
    receives: dict[str, list[Clock]] = {}
    for text, host, clock in parsed(shiviz(record)):
        _, _, said = text.partition(": ")
        if said.startswith("send") and "dropped" not in said:
            sends.setdefault(f"{host}>{said.rpartition(' ')[2]} {said.split()[1]}", []).append(clock)
        elif said.startswith("receive"):
            receives.setdefault(f"{said.rpartition(' ')[2]}>{host} {said.split()[1]}", []).append(clock)
    arrived = [event for event in record.trace if event.arrived is not None]
    assert sum(map(len, sends.values())) == sum(map(len, receives.values())) == len(arrived) > 20
    for lane, clocks in sends.items():
        assert all(any(before(sent, got) for got in receives[lane]) for sent in clocks)
    for lane, clocks in receives.items():  # in order or not: as many sends lie before the n-th receipt as there are receipts up to it
        assert all(sum(before(sent, got) for sent in sends[lane]) >= n for n, got in enumerate(clocks, 1))
    dropped = sum(event.dropped is not None and event.arrived is None for event in record.trace)
    assert sum(", dropped: " in text for text, _, _ in parsed(shiviz(record))) == dropped


def test_what_was_sent_after_an_event_is_not_before_it(record: Record) -> None:
    events = parsed(shiviz(record))
    for i, (_, _, clock) in enumerate(events[:120]):
        assert not any(before(later, clock) for _, _, later in events[i + 1:120])


def test_clients_and_faults_stand_in_it(record: Record) -> None:
    texts = [text for text, _, _ in parsed(shiviz(record))]
    assert any("2s: partition " in text and text.endswith("begins") for text in texts) and any(" asks write k" in text for text in texts)


def test_a_trace_changes_no_digest_and_needs_a_window(record: Record) -> None:
    plain = scenario("abd")
    assert simulate(plain, 3).digest() == traced(plain, None).digest()
    with pytest.raises(InputError, match="trace"):
        shiviz(simulate(plain, 3))
    assert trace_window("1s,2s", plain) == (1_000_000, 2_000_000)
    for text in ("1s", "2s,1s", "a,b", "1s,1s", "1s,2s,3s"):
        with pytest.raises(InputError, match="trace"):
            trace_window(text, plain)


def test_a_trial_of_a_sweep_comes_out_as_its_row_was_measured(tmp_path: Path) -> None:
    spec = {"seeds": 2, "at": "1s", "after": "2s", "variants": [{"label": "x", "policy": "abd"}], "grids": [{"nodes": [3], "durations": ["1s"]}]}
    _, rows = run_shown(sweep_from_dict(spec, "tiny"), tmp_path / "out", Where(engine="local"), "")
    key = "x|3|1s|000001"
    assert export_trial(tmp_path / "out", key, tmp_path / "h.edn", tmp_path / "t.log", "900ms,1100ms") == key
    row = next(row for row in rows if row["key"] == key)
    assert sum(not op.final for op in read_history(tmp_path / "h.edn")) == row["operations"]
    assert parsed((tmp_path / "t.log").read_text())
    for wrong_key in (None, "x|3|1s|000009"):
        with pytest.raises(InputError, match="one of the 2 trials: 'x|3|1s|000000'".replace("|", r"\|")):
            export_trial(tmp_path / "out", wrong_key, tmp_path / "h.edn", None, None)
    with pytest.raises(InputError, match="nothing was asked for"):
        export_trial(tmp_path / "out", key, None, None, None)
    with pytest.raises(InputError, match="can be written"):
        export_trial(tmp_path / "out", key, tmp_path / "no" / "h.jsonl", None, None)
