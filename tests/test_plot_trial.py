"""One trial on paper: a stroke for each operation, a line for each message, and the reason where one was lost."""

from __future__ import annotations

import pytest

from capray.errors import InputError
from capray.figures.trial import lanes, sides, spacetime, timeline
from capray.record import FaultWindow, Operation, Record, TraceEvent
from capray.scenario import from_dict
from capray.trial import simulate

S = 1_000_000


def op(node: int, f: str, invoke: int, kind: str = "ok", value: int | None = None, result: int | None = None) -> Operation:
    done = None if kind == "info" else invoke + 1000
    return Operation(
        process=node * 10000 + invoke // 1000, node=node, f=f, key="k", value=value, result=result, invoke=invoke, complete=done, type=kind
    )  # type: ignore[arg-type]


@pytest.fixture
def record() -> Record:
    """Three nodes, node 2 cut off from 1 s to 2 s; it reads what was overwritten, its write is not answered."""
    history = [
        op(0, "write", 100_000, value=1),
        op(2, "read", 200_000, result=1),
        op(0, "write", 1_100_000, value=2),
        op(2, "read", 1_500_000, result=1),
        op(2, "write", 1_600_000, "info", value=3),
        op(1, "write", 1_700_000, "fail", value=4),
        op(1, "read", 2_500_000, result=2),
    ]
    cut = FaultWindow(kind="partition", at=S, until=2 * S, shape="isolate", groups=((2,), (0, 1)), touched={"dropped": 2})
    trace = [
        TraceEvent(1_100_000, 0, 1, "write", "Put", 1_100_300, None),
        TraceEvent(1_100_000, 0, 2, "write", "Put", None, "cut"),
        TraceEvent(1_100_300, 1, 0, "ack", "Ok", 1_100_550, None),
        TraceEvent(1_100_400, 1, 2, "control", "Ping", 2_400_000, None),
    ]
    return Record(
        policy="toy",
        nodes=3,
        seed=7,
        scenario="",
        history=history,
        faults=[cut],
        versions=None,
        placement={"k": (0, 1, 2)},
        counters={},
        end=3 * S,
        trace=trace,
    )


def test_the_timeline_has_a_stroke_for_each_operation_in_its_nodes_lane_and_its_outcomes_row(record: Record) -> None:
    figure = timeline(record)
    counts = {trace.name.split(" (")[0]: len(trace.x) // 3 for trace in figure.data}
    assert counts == {"read ok": 2, "write ok": 2, "read ok but stale": 1, "failed": 1, "unknown": 1}
    stale = next(trace for trace in figure.data if "stale" in trace.name)
    assert stale.x[0] == 1.5 and 0 < stale.y[0] < 1  # node 2 is alone on its side: the first lane
    assert "overwritten 399ms before" in stale.text[0]
    assert lanes(record) == [2, 0, 1] and sides(record) == {2: "minority", 0: "majority", 1: "majority"}
    assert "1 stale reads" in figure.layout.title.text and "isolate 2 | 0,1 from 1s to 2s" in figure.layout.title.text
    assert any(shape.x0 == 1 and shape.x1 == 2 and shape.type == "rect" for shape in figure.layout.shapes)


def test_the_timeline_draws_divergence_only_where_versions_are_known(record: Record) -> None:
    assert not any(trace.name == "divergence" for trace in timeline(record).data)
    real = simulate(
        from_dict(
            {
                "policy": "cassandra",
                "nodes": 3,
                "faults": [{"shape": "majority", "at": "3s", "for": "5s"}],
                "duration": "12s",
                "workload": {"rate": 10.0},
                "trace_us": (2_900_000, 3_300_000),
                "settings": {"read_consistency": "ONE", "write_consistency": "ONE"},
            }
        ),
        seed=1,
    )
    [curve] = [trace for trace in timeline(real).data if trace.name == "divergence"]
    assert curve.line.shape == "hv" and max(curve.y) > 0 and curve.y[0] == 0
    assert all(2.9 < at < 12 for at, share in zip(curve.x, curve.y) if share)
    drawn = spacetime(real)
    assert any("dropped" in trace.name or "held up" in trace.name for trace in drawn.data if trace.name)


def test_without_hover_the_timeline_is_the_same_picture_in_fewer_bytes(record: Record) -> None:
    full, lean = timeline(record), timeline(record, hover=False)
    assert [list(trace.x) for trace in full.data] == [list(trace.x) for trace in lean.data]
    assert len(lean.to_json()) < len(full.to_json())


def test_messages_go_from_lifeline_to_lifeline_and_the_lost_ones_say_why(record: Record) -> None:
    figure = spacetime(record, (1_100_000, 1_110_000))
    by_name = {trace.name: trace for trace in figure.data if trace.name}
    write = by_name["write (1)"]
    assert (list(write.x[:2]), list(write.y[:2])) == ([0.0, 0.3], [1, 2])  # node 0 stands in lane 1, node 1 in lane 2
    assert set(by_name) == {"write (1)", "ack (1)", "held up by the cut, arrives later (1)", "dropped: it met the cut (1)"}
    said = by_name["dropped: it met the cut (1)"].text[0]
    assert "dropped: it met the cut" in said and "Put (write) n0 -&gt; n2" in said


def test_a_window_without_messages_is_refused_in_one_line(record: Record) -> None:
    with pytest.raises(InputError, match="window.*traced from 1100000 to 1100400"):
        spacetime(record, (0, 5))
    record.trace = []
    with pytest.raises(InputError, match="trace_us"):
        spacetime(record)
