"""How long does a cut-off minority of ZooKeeper go on serving stale reads, and how long is a majority without its leader?  Against tickTime and syncLimit.

A follower's socket to its leader times out after syncLimit x tickTime of silence; a leader quits at the first tick at which its synced set has had no quorum
for as long (ZooKeeper 3.8: Learner, Leader.lead).  So a minority answers local reads that much longer, up to two ticks more on a cut leader, and a majority
that lost its leader has no writes for as long, and an election.  The set-up is that of the measured runs (reference/real_servers.md): 5 servers, a client
beside each, 20 operations a second, Poisson, half reads, 5 keys; {2 nodes | 3 nodes} cut.  Cuts outlast the limit by 3 ticks and 10 s, but for those of 10 s
that were measured at the defaults, tickTime 2 s and syncLimit 5.  `follower_cut`: the leader is on the majority's side; `leader_cut`: on the minority's.  Where
in its tick the leader is cut is drawn for each trial, but as the measured leaders' was in those of 10 s.

Measures, in seconds: serves: from the cut to the minority's last read answered in it; stale: age of the oldest stale read; leaderless: from the
cut to the first write on the majority, `leader_cut` only; returns: from heal until every node has answered a read.  `published` is the median
of 3 measured runs of a 10 s cut, and what real_servers.md tells of longer ones (10.0 s, and 10.5 s on a cut leader); null for all else.
`within`: 20 % or 0.5 s.  `limit` is syncLimit x tickTime.

    python experiments/zookeeper_minority.py --tick-time 1s 2s --sync-limit 5 --json
"""

import argparse
import json
import sys
from itertools import product
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from capray.errors import duration_us, show_us, wrong
from capray.experiment import main, parser, run_script
from capray.figures.style import FAINT, INK, looks, style
from capray.measures.phases import is_ok, kind_of
from capray.record import Record
from capray.stats import summarize
from capray.store import Results, Row
from capray.sweep import Grid, Sweep, Variant
from capray.sweeping import draw, keep_figures, replay

SECOND = 1_000_000
SHAPES = {"follower_cut": "majority", "leader_cut": "leader-minority"}
TICK, LIMIT = "2s", 5  # zoo_sample.cfg 3.8
TICKS = {"ci": ("1s", "2s"), "default": ("500ms", "1s", "2s", "4s"), "full": ("250ms", "500ms", "1s", "2s", "3s", "4s", "6s")}
LIMITS = {"ci": (2, 5), "default": (2, 3, 5, 10), "full": (1, 2, 3, 5, 7, 10, 15)}
SEEDS = {"ci": 3, "default": 6, "full": 40}
MEASURED_CUT = "10s"
MEASURED_PHASE = {"tick_phase": "1.8s", "tick_phase_width": "0.5s"}  # those cuts came 1.5 to 2 s after a tick (experiments/real_servers.py)
BASE: dict[str, Any] = {"link": {"floor_us": 60, "latency": {"shape": "exponential", "mean_us": 40}, "rto_us": 200_200},
                        "disk": "fsync-2ms", "quiet_us": SECOND}
# (variant, whether the cut is of 10 s) -> measure -> seconds; reference/real_servers.md and its index.json (medians of 3 runs), tickTime 2 s, syncLimit 5.
PUBLISHED: dict[tuple[str, bool], dict[str, float]] = {
    ("follower_cut", True): {"serves": 9.972, "stale": 9.901, "returns": 0.504},
    ("leader_cut", True): {"serves": 9.976, "stale": 0.0, "leaderless": 10.698, "returns": 0.716},
    ("follower_cut", False): {"serves": 10.0},
    ("leader_cut", False): {"serves": 10.5},
}


def script() -> None:
    given = options().parse_args()
    sweep = sweep_of(given)
    digest, rows, directory = run_script(sweep, given)
    manifest = Results(directory).manifest()
    answers = told(sweep, [{**row, "serves": serves(replay(manifest, row))} for row in sorted(rows, key=lambda row: str(row["key"]))])
    keep_figures(directory, zookeeper_minority=figure(answers))
    draw(directory)
    say(answers, {"digest": digest, "trials": len(rows), "directory": str(directory)}, given.json)


def options() -> argparse.ArgumentParser:
    found = parser(__doc__ or "")
    found.add_argument("--tick-time", nargs="+", default=None, help="tickTime, with units; with --sync-limit: each with each (default: the scale's)")
    found.add_argument("--sync-limit", nargs="+", type=int, default=None, help="syncLimit, in ticks (default: the scale's)")
    found.add_argument("--variant", nargs="+", choices=tuple(SHAPES), default=list(SHAPES), help="where the leader is")
    found.add_argument("--for", dest="cut", nargs="+", default=None,
                       help="how long the cut lasts (default: 3 ticks and 10 s beyond the limit; at the defaults 10 s too)")
    return found


# ---- the set-up ---------------------------------------------------------------------------------------------------------------------
def chosen(given: argparse.Namespace) -> list[tuple[str, int]]:
    """The pairs of tickTime and syncLimit: each default tickTime with syncLimit 5, and 2 s with each default syncLimit; or those asked for, each with each."""
    if given.tick_time or given.sync_limit:
        return list(dict.fromkeys(product(given.tick_time or [TICK], given.sync_limit or [LIMIT])))
    return list(dict.fromkeys([(tick, LIMIT) for tick in TICKS[given.scale]] + [(TICK, limit) for limit in LIMITS[given.scale]]))


def cuts(given: argparse.Namespace, tick: str, limit: int) -> tuple[str, ...]:
    """The lengths of the cut for one pair."""
    if given.cut:
        return tuple(dict.fromkeys(given.cut))
    return (show_us((limit + 3) * duration_us(tick, "tick-time") + 10 * SECOND),)


def sweep_of(given: argparse.Namespace) -> Sweep:
    """Every pair in every variant, with its cuts.  Raises InputError."""
    variants, grids = [], []
    for tick, limit in chosen(given):
        if not duration_us(tick, "tick-time") or limit < 1:
            raise wrong("sync-limit" if limit < 1 else "tick-time", limit if limit < 1 else tick, "at least 1 tick, and a tick longer than 0")
        labels = [f"{variant}, tickTime {tick}, syncLimit {limit}" for variant in dict.fromkeys(given.variant)]
        settings: dict[str, Any] = {"tick_time": tick, "sync_limit": limit}
        variants += [Variant(label=label, policy="zookeeper", shape=SHAPES[label.partition(",")[0]], settings=settings) for label in labels]
        grids.append(Grid(nodes=(5,), durations=cuts(given, tick, limit), labels=tuple(labels)))
        if (duration_us(tick), limit) == (duration_us(TICK), LIMIT) and not given.cut:
            measured = {f"{variant}, as measured": SHAPES[variant] for variant in given.variant}
            settings = {**settings, **MEASURED_PHASE}
            variants += [Variant(label=label, policy="zookeeper", shape=shape, settings=settings) for label, shape in measured.items()]
            grids.append(Grid(nodes=(5,), durations=(MEASURED_CUT,), labels=tuple(measured)))
    name = "zookeeper-minority" if given.scale == "default" else f"{given.scale}-zookeeper-minority"
    sweep = Sweep(name=name, variants=tuple(variants), grids=tuple(grids), base=BASE, at_us=10 * SECOND, after_us=20 * SECOND,
                  seeds=SEEDS[given.scale] if given.seeds is None else given.seeds)
    sweep.validate()
    return sweep


# ---- the measures -------------------------------------------------------------------------------------------------------------------
def serves(record: Record) -> float | None:
    """Seconds from the cut to the minority's last answered read within it; null where it answered none."""
    cut, heal = record.faults[0].at, record.faults[0].until or record.end
    minority = min(record.faults[0].groups, key=len)
    answered = [op.complete for op in record.history if op.node in minority and is_ok(op) and kind_of(op) == "read" and op.complete is not None]
    last = max((complete for complete in answered if cut <= complete < heal), default=None)
    return None if last is None else (last - cut) / SECOND


def told(sweep: Sweep, rows: list[Row]) -> list[dict[str, Any]]:
    """One dict for each measure of each point."""
    settings = {variant.label: variant.settings for variant in sweep.variants}
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["label"], row["duration"]), []).append(row)
    out = []
    for (label, cut), group in groups.items():
        variant, tick, limit = label.partition(",")[0], settings[label]["tick_time"], settings[label]["sync_limit"]
        as_measured = (duration_us(tick), limit) == (duration_us(TICK), LIMIT)
        cut_us, limit_us = duration_us(cut), duration_us(tick) * limit
        short, outlasts = cut_us == duration_us(MEASURED_CUT), cut_us > limit_us + 2 * duration_us(tick)
        known = PUBLISHED[variant, short] if as_measured and (short or outlasts) else {}
        for measure in ("serves", "stale", "leaderless", "returns"):
            if measure == "leaderless" and variant != "leader_cut":
                continue
            found, published = summarize([value_of(row, measure) for row in group]), known.get(measure)
            low = None if found.low is None else max(0.0, found.low)
            within = None if published is None else found.mean is not None and abs(found.mean - published) <= max(0.5, 0.2 * published)
            out.append({"measure": measure, "published": published, "simulated": found.mean, "low": low, "high": found.high, "within": within,
                        "variant": variant, "tick_time": tick, "sync_limit": limit, "limit": limit_us / SECOND, "cut": cut, "trials": found.trials})
    return out


def value_of(row: Row, measure: str) -> float | None:
    """A trial's value, in seconds; no stale read: 0."""
    if measure == "serves":
        return None if row["serves"] is None else float(row["serves"])
    value = row[{"stale": "staleness_max_us", "leaderless": "failover_write_us", "returns": "recovery_first_read_us"}[measure]]
    return (0.0 if measure == "stale" else None) if value is None else value / SECOND


# ---- what is shown ------------------------------------------------------------------------------------------------------------------
LINES = (("follower_cut", "serves", "followers cut off: minority's last read"), ("follower_cut", "stale", "followers cut off: oldest stale read"),
         ("leader_cut", "serves", "leader cut off: minority's last read"), ("leader_cut", "leaderless", "leader cut off: majority's first write"))


def figure(answers: list[dict[str, Any]]) -> go.Figure:
    """Seconds after the cut, over syncLimit x tickTime; to the left by tickTime at syncLimit 5, to the right by syncLimit at tickTime 2 s, or at the first asked
    for where those were not."""
    limit_held, tick_held = (value if any(answer[name] == value for answer in answers) else answers[0][name]
                             for name, value in (("sync_limit", LIMIT), ("tick_time", TICK)))
    drawn = make_subplots(rows=1, cols=2, shared_yaxes=True, horizontal_spacing=0.05,
                          subplot_titles=[f"tickTime, at syncLimit {limit_held}", f"syncLimit, at tickTime {tick_held}"])
    long = [answer for answer in answers if duration_us(answer["cut"]) > SECOND * answer["limit"]]
    for column, (axis, other, value) in enumerate((("tick_time", "sync_limit", limit_held), ("sync_limit", "tick_time", tick_held)), 1):
        own = sorted((answer for answer in long if answer[other] == value), key=lambda answer: float(answer["limit"]))
        places = list(dict.fromkeys((answer["limit"], str(answer[axis])) for answer in own))
        for i, (variant, measure, name) in enumerate(LINES):
            look = looks([line[2] for line in LINES])[name]
            line = [answer for answer in own if (answer["variant"], answer["measure"]) == (variant, measure) and answer["simulated"] is not None]
            x = [places.index((answer["limit"], str(answer[axis]))) + 0.12 * (i - 1.5) for answer in line]
            bars = {"type": "data", "symmetric": False, "thickness": 1.2, "width": 3, "array": [(a["high"] or a["simulated"]) - a["simulated"] for a in line],
                    "arrayminus": [a["simulated"] - (a["low"] if a["low"] is not None else a["simulated"]) for a in line]}
            drawn.add_trace(go.Scatter(x=x, y=[a["simulated"] for a in line], error_y=bars, mode="markers", name=name, legendgroup=name, showlegend=column == 1,
                                       marker={"symbol": look.marker, "size": 8, "color": look.colour}), row=1, col=column)
            known = [(at, a["published"]) for at, a in zip(x, line) if a["published"] is not None]
            drawn.add_trace(go.Scatter(x=[at for at, _ in known], y=[value for _, value in known], mode="markers", name="real servers",
                                       legendgroup="real", showlegend=False,
                                       marker={"symbol": "line-ew-open", "size": 16, "color": INK, "line": {"width": 2, "color": INK}}), row=1, col=column)
        for at, (limit, _) in enumerate(places):
            drawn.add_trace(go.Scatter(x=[at - 0.4, at + 0.4], y=[limit, limit], mode="lines", name="syncLimit x tickTime", legendgroup="limit",
                                       showlegend=column == 1 and not at, line={"color": FAINT, "dash": "dot"}), row=1, col=column)
        drawn.update_xaxes(tickvals=list(range(len(places))), ticktext=[f"{text}<br>({limit:g} s)" for limit, text in places],
                           range=[-0.5, max(len(places), 1) - 0.5], row=1, col=column)
    drawn.add_trace(go.Scatter(x=[None], y=[None], mode="markers", name="real servers", legendgroup="real",
                               marker={"symbol": "line-ew-open", "size": 14, "color": INK, "line": {"width": 2, "color": INK}}))
    drawn.update_yaxes(title_text="seconds after the cut", rangemode="tozero", row=1, col=1)
    trials = max(answer["trials"] for answer in answers)
    style(drawn, "ZooKeeper under a cut: who still serves, and when the majority serves again",
          f"{trials} trials a point, mean and 95 % interval; cuts that outlast the limit by 3 ticks and 10 s", 560)
    return drawn.update_layout(margin_b=130)


def say(answers: list[dict[str, Any]], last: dict[str, Any], as_json: bool) -> None:
    for found in answers:
        if as_json:
            print(json.dumps(found))
            continue
        known = "" if found["published"] is None else f"  published {found['published']:.4g}: {'within' if found['within'] else 'NOT within'} tolerance"
        value = "not seen" if found["simulated"] is None else f"{found['simulated']:.4g} s"
        value += "" if found["low"] is None else f" [{found['low']:.4g}, {found['high']:.4g}]"
        point = f"tickTime {found['tick_time']:>6} syncLimit {found['sync_limit']:2} (limit {found['limit']:g} s), cut {found['cut']:>5}"
        print(f"{found['variant']:12} {point}  {found['measure']:10} {value}{known}")
    print("{trials} trials, digest {digest}: {directory}".format(**last), file=sys.stderr if as_json else sys.stdout)


if __name__ == "__main__":
    main(script)
