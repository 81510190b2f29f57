"""How time and memory grow: against messages, nodes (3 to 100) and trials in flight, as numbers of `capray bench` and as a figure.

Decides: the points.  Each is the workload of capray.bench on engine `local`, all its trials alive at once and advanced in turn; time is processor time, memory
what the trials hold at their end (tracemalloc, in a run of its own, for it slows what it watches).  A client's request and its answer count as messages: in a
small cluster they are a fifth of all.  Against trials in flight the work is the same at every point, the very same trials: only how many of them are alive at
once differs (fewer messages a trial where there are more trials would measure what setting a trial up costs).
"""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from capray.scenario import Scenario
from capray.trial import Trial

SIZE = 120_000  # messages of a point, about
A_LINK = 90  # messages a link, at least: setting one up costs as much as two
NODES = (3, 5, 10, 25, 50, 100)
IN_FLIGHT = (1, 8, 64, 512)
OF_A_TRIAL = 4_000  # messages of each of the trials in flight, about
RATE = 32_000  # messages a second of a trial's time
MESSAGES = (15_000, 60_000, 240_000)
TURN_US = 50_000  # of a trial before the next one's turn; some 2,000 messages where there are many trials


class Point(NamedTuple):
    """One measured point: at `x`, so many messages took so long and held so much."""

    x: int
    messages: int
    seconds: float
    held: int  # bytes


def of_size(nodes: int, messages: float) -> Scenario:
    """The bench's workload on so many nodes, with about so many messages: two rounds to all peers and back, and two for the client.  As many are sent a
    second at every size, so that as many are on their way at once: a curve varies one thing."""
    from capray.bench import quorum_scenario

    seconds = messages / RATE
    operations = messages / (4 * (nodes - 1) + 2)
    return quorum_scenario(nodes, f"{max(1, round(seconds * 1000))}ms", max(0.01, operations / nodes / seconds))


def started(scenario: Scenario, trials: int, first: int = 0) -> list[Trial]:
    """So many trials, from seed `first` on, a third through: their links are set up, which costs once what two messages do for each."""
    flying = [Trial(scenario, seed) for seed in range(first, first + trials)]
    for trial in flying:
        trial.advance(scenario.duration_us // 3)
    return flying


def finish(flying: list[Trial]) -> None:
    """Run trials to their end, all alive at once, in turns."""
    end = flying[0].scenario.end_us
    for until in range(flying[0].now, end + TURN_US, TURN_US):
        for trial in flying:
            trial.advance(min(until, end))


def carried(flying: list[Trial]) -> int:
    """Messages so far, with the clients' requests and answers."""
    return sum(trial.network.messages + 2 * sum(len(node.client.history) for node in trial.nodes) for trial in flying)


def passed(scenario: Scenario, trials: int, of: int) -> tuple[float, int]:
    """Run `of` trials, so many at a time.  Returns the seconds of processor time and the messages, of what follows their first third."""
    seconds, messages = 0.0, 0
    for first in range(0, of, trials):
        flying = started(scenario, trials, first)
        before, began = carried(flying), time.process_time()
        finish(flying)
        seconds += time.process_time() - began
        messages += carried(flying) - before
    return seconds, messages


def measured(x: int, scenario: Scenario, trials: int = 1, turns: int = 2, of: int = 0) -> Point:
    """The point at `x`: `of` trials (0: as many as are in flight), so many at a time; the fastest of `turns` runs, then one for its memory."""
    best, messages = min(passed(scenario, trials, of or trials) for _ in range(turns))
    gc.collect()
    tracemalloc.start()
    flying = started(scenario, trials)
    finish(flying)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return Point(x, messages, best, held)


def curves() -> dict[str, list[Point]]:
    """Every point, by what it is drawn against."""
    return {
        "messages": [measured(count, of_size(5, count)) for count in MESSAGES],
        "nodes": [measured(nodes, of_size(nodes, max(SIZE, A_LINK * nodes * (nodes - 1)))) for nodes in NODES],
        "trials in flight": [measured(trials, of_size(5, OF_A_TRIAL), trials, of=max(IN_FLIGHT)) for trials in IN_FLIGHT],
    }


MEMORY: dict[str, tuple[str, Callable[[Point], float]]] = {
    "messages": ("MB held", lambda point: point.held / 1e6),
    "nodes": ("MB held a node", lambda point: point.held / point.x / 1e6),
    "trials in flight": ("MB held a trial", lambda point: point.held / point.x / 1e6),
}


def numbers(found: dict[str, list[Point]]) -> Iterator[dict[str, Any]]:
    """The points as lines of the bench, each beside the first of its curve."""
    from capray.bench import figure

    for against, points in found.items():
        name = against.replace(" ", "_")
        cost = [1e6 * point.seconds / point.messages for point in points]
        unit, memory = MEMORY[against]
        for point, us in zip(points, cost):
            yield figure(f"curve_time_{name}_{point.x}", us, "us/message", f"{points[0].x} {against}", cost[0])
            yield figure(f"curve_memory_{name}_{point.x}", memory(point), unit, f"{points[0].x} {against}", memory(points[0]))


def draw(found: dict[str, list[Point]], path: str) -> None:
    """The curves as one page that opens offline."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    from capray.figures.style import COLOURS, style

    page = make_subplots(rows=2, cols=3, vertical_spacing=0.16, horizontal_spacing=0.08)
    for column, (against, points) in enumerate(found.items(), 1):
        unit, memory = MEMORY[against]
        xs = [point.x for point in points]
        ticks = [f"{x // 1000}k" if x >= 10_000 else str(x) for x in xs]
        time_us = [1e6 * point.seconds / point.messages for point in points]
        for row, ys, name in ((1, time_us, "processor time a message, us"), (2, [memory(point) for point in points], unit)):
            text = f"%{{x:,}} {against}<br>%{{y:.3g}} ({name})<extra></extra>"
            page.add_trace(go.Scatter(x=xs, y=ys, mode="lines+markers", line={"color": COLOURS[row - 1]}, showlegend=False, hovertemplate=text), row, column)
            page.update_yaxes(title_text=name, rangemode="tozero", row=row, col=column)
            page.update_xaxes(title_text=against, type="log", tickvals=xs, ticktext=ticks, row=row, col=column)
    style(page, "Time and memory on engine local", "a level line above: time grows with messages and with nothing else", 720, legend=False)
    page.write_html(path, include_plotlyjs=True)
