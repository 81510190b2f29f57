"""What brings Cassandra's replicas together again after a cut?  Hints, read repair and anti-entropy, each on and off; and hint windows too short.

Writes at ONE go on on both sides of a cut, reads are at QUORUM (at ONE a read contacts one replica, so that there is no mismatch to repair).
Three replicas of each of 60 keys on 5 nodes, Zipfian: hot keys are read and written again after heal, cold ones are not.  After heal clients go on
for 20 s, then all is quiet; at last every node reads every key.  A trial has converged if every replica of every key held the newest write
acknowledged before heal (or a newer one) before those last reads, which would themselves repair.  What is never hinted, read or compared stays
apart for good: `divergence_final` is the share of (key, pair of replicas) that differ even after the last reads, `stale_reads_final` how many of
those reads were stale.  Anti-entropy repairs every 20 s here; operators do it weekly: its time to converge is of the order of its interval.

    python experiments/repair_ablation.py --scale ci --engine local
"""

import json
from itertools import product
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from capray.errors import duration_us, wrong
from capray.experiment import main, parser, run_script
from capray.figures.data import LogLike
from capray.figures.style import FAINT, dodge, legend_room, looks, style
from capray.stats import summarize
from capray.store import Row
from capray.sweep import Grid, Sweep, Variant
from capray.sweeping import draw, keep_figures

PARTS = ("hints", "read repair", "anti-entropy")
CUTS = {
    "ci": ("20s", "60s"),
    "default": ("2s", "10s", "20s", "60s", "120s"),
    "full": ("1s", "2s", "5s", "10s", "20s", "43s", "60s", "90s", "120s", "300s"),
}
WINDOWS = {"ci": ("10s", "3h"), "default": ("5s", "15s", "30s", "60s", "3h"), "full": ("2s", "5s", "10s", "15s", "30s", "60s", "120s", "300s", "3h")}
SEEDS = {"ci": 6, "default": 5, "full": 30}
AFTER_US, QUIET_US = 20_000_000, 60_000_000
MEASURES = (("converged_share", 1.0), ("convergence_s", 1e-6), ("divergence_final", 1.0), ("divergence_area", 1.0), ("stale_reads_final", 1.0))


def combination(parts: tuple[str, ...], repair_every: str) -> Variant:
    """A variant with those parts on, all others off."""
    return Variant(
        label=" + ".join(parts) or "nothing",
        policy="cassandra",
        settings=settings("hints" in parts, "read repair" in parts, repair_every if "anti-entropy" in parts else "0s"),
    )


def window(length: str) -> Variant:
    """A variant with hints alone, kept for no longer than the window."""
    return Variant(label=f"hint window {length}", policy="cassandra", settings={**settings(True, False, "0s"), "max_hint_window": length})


def settings(hints: bool, read_repair: bool, repair_every: str) -> dict[str, Any]:
    """Cassandra's settings for one variant."""
    return {
        "write_consistency": "ONE",
        "read_consistency": "QUORUM",
        "replication_factor": 3,
        "hinted_handoff": hints,
        "read_repair": "blocking" if read_repair else "none",
        "anti_entropy_interval": repair_every,
    }


def ablation(scale: str, seeds: int | None, cuts: tuple[str, ...], windows: tuple[str, ...], repair_every: str) -> Sweep:
    """All combinations of the parts x cuts, and hints alone with each window x cuts.  Raises InputError."""
    for field, lengths in (("cut", cuts), ("window", windows), ("repair_every", (repair_every,))):
        for length in lengths:
            if not duration_us(length, field):
                raise wrong(field, length, "a duration above 0")
    combinations = tuple(
        combination(tuple(part for part, on in zip(PARTS, switches) if on), repair_every) for switches in product((False, True), repeat=3)
    )
    shorter = tuple(window(length) for length in windows)
    sweep = Sweep(
        name="repair-ablation" if scale == "default" else f"{scale}-repair-ablation",
        variants=combinations + shorter,
        grids=(Grid(nodes=(5,), durations=cuts),),
        seeds=SEEDS[scale] if seeds is None else seeds,
        after_us=AFTER_US,
        base={"quiet_us": QUIET_US, "workload": {"rate": 4, "keys": 60, "key_distribution": "zipfian", "read_share": 0.7}},
    )
    sweep.validate()
    return sweep


def told(rows: list[Row], labels: list[str]) -> list[dict[str, Any]]:
    """One dict for each measure of each point, in the order of the labels; nobody published any."""
    points: dict[tuple[str, str], list[Row]] = {}
    for row in sorted(rows, key=lambda row: (labels.index(row["label"]), row["duration_us"], row["seed"])):
        points.setdefault((row["label"], row["duration"]), []).append(row)
    out = []
    for (label, cut), group in points.items():
        for measure, scale in MEASURES:
            found = summarize([value_of(row, measure) for row in group])
            low, high = (None if x is None else max(0.0, x * scale) for x in (found.low, found.high))  # of what cannot be negative, no bound is
            out.append(
                {
                    "measure": measure,
                    "published": None,
                    "simulated": None if found.mean is None else found.mean * scale,
                    "low": low,
                    "high": high,
                    "within": None,
                    "label": label,
                    "cut": cut,
                    "trials": len(group),
                }
            )
    return out


def value_of(row: Row, measure: str) -> Any:
    """A trial's value: whether, and when, it converged without the help of the last reads."""
    at = row["convergence_us"]
    settled = at is not None and at < AFTER_US + QUIET_US
    if measure == "converged_share":
        return settled
    if measure == "convergence_s":
        return at if settled else None
    return row[measure]


# ---- figures -------------------------------------------------------------------------------------------------------------------------------
PANELS = (
    ("time to converge, trials that did", "convergence_s", "seconds after heal"),
    ("trials that converged", "converged_share", "share of trials"),
    ("replicas that differ for good", "divergence_final", "share of (key, pair), after the last reads"),
    ("stale last reads", "stale_reads_final", "stale reads of 300"),
)


def combinations_figure(lines: list[dict[str, Any]], cuts: tuple[str, ...]) -> go.Figure:
    """The combinations of the parts against the length of the cut."""
    names = list(dict.fromkeys(line["label"] for line in lines if not line["label"].startswith("hint window")))
    figure = make_subplots(rows=2, cols=2, subplot_titles=[panel[0] for panel in PANELS], horizontal_spacing=0.09, vertical_spacing=0.17)
    scale = LogLike.of_durations(duration_us(cut) for cut in cuts)
    for i, (_, measure, axis) in enumerate(PANELS):
        at = {"row": i // 2 + 1, "col": i % 2 + 1}
        for name, look in looks(names).items():
            own = [line for line in lines if line["label"] == name and line["measure"] == measure and line["simulated"] is not None]
            aside = dodge(names.index(name), len(names))
            figure.add_trace(
                go.Scatter(
                    x=[scale(duration_us(line["cut"])) + aside for line in own],
                    y=[line["simulated"] for line in own],
                    mode="lines+markers",
                    name=name,
                    legendgroup=name,
                    showlegend=i == 1,
                    line={"color": look.colour, "dash": look.dash, "width": 1.6},
                    marker={"symbol": look.marker, "size": 8, "color": look.colour},
                    error_y={
                        "type": "data",
                        "symmetric": False,
                        "array": [(line["high"] or line["simulated"]) - line["simulated"] for line in own],
                        "thickness": 1.2,
                        "width": 3,
                        "arrayminus": [line["simulated"] - (line["low"] if line["low"] is not None else line["simulated"]) for line in own],
                        "color": look.colour,
                    },
                    customdata=[[line["cut"], line["trials"]] for line in own],
                    hovertemplate=f"<b>{name}</b><br>cut: %{{customdata[0]}}<br>{axis}: %{{y:.4g}}<br>%{{customdata[1]}} trials<extra></extra>",
                ),
                **at,
            )
        figure.update_yaxes(title_text=axis, rangemode="tozero", **at)
        figure.update_xaxes(
            tickvals=[scale(duration_us(cut)) for cut in cuts], ticktext=list(cuts), title_text="length of the cut (log-like)", title_standoff=8, **at
        )
    trials = max(line["trials"] for line in lines)
    style(
        figure,
        "What brings replicas together again",
        f"{trials} trials a point; mean over seeds with its 95 % interval; points set a little apart sideways",
        790 + legend_room(names),
    )
    return figure.update_layout(margin_b=66 + legend_room(names))


def windows_figure(lines: list[dict[str, Any]], cuts: tuple[str, ...], windows: tuple[str, ...]) -> go.Figure:
    """Hints alone: the share of replicas that differ for good, window against cut."""
    cells = {(line["label"], line["cut"]): line["simulated"] for line in lines if line["measure"] == "divergence_final"}
    z = [[cells.get((f"hint window {length}", cut)) for cut in cuts] for length in windows]
    figure = go.Figure(
        go.Heatmap(
            z=z,
            x=list(cuts),
            y=list(windows),
            colorscale="Cividis",
            reversescale=True,
            zmin=0,
            xgap=1,
            ygap=1,
            text=[["" if x is None else f"{100 * x:.1f} %" for x in row] for row in z],
            texttemplate="%{text}",
            colorbar={"title": {"text": "share"}, "thickness": 12},
            hovertemplate="window %{y}, cut %{x}: %{text} differ for good<extra></extra>",
        )
    )
    style(
        figure,
        "Hints alone: replicas that differ for good, by hint window and length of the cut",
        f"{max(line['trials'] for line in lines)} trials a cell; share of (key, pair of replicas) after the last reads. A silent replica's hint is written 2 s "
        "after the write, a convicted one's at once;<br>the window counts from the conviction, and from the opening of the oldest file of hints kept",
        210 + 46 * len(windows),
        False,
    )
    figure.update_xaxes(type="category", title_text="length of the cut", showgrid=False)
    return figure.update_yaxes(type="category", title_text="max_hint_window", showgrid=False, linecolor=FAINT)


def script() -> None:
    options = parser(__doc__ or "")
    options.add_argument("--cut", action="append", default=[], help="length of the cut; repeat for more (default: the scale's)")
    options.add_argument("--window", action="append", default=[], help="hint window; repeat for more (default: the scale's)")
    options.add_argument("--repair-every", default="20s", help="interval of anti-entropy repair, where it is on")
    given = options.parse_args()
    cuts, windows = tuple(given.cut) or CUTS[given.scale], tuple(given.window) or WINDOWS[given.scale]
    sweep = ablation(given.scale, given.seeds, cuts, windows, given.repair_every)
    digest, rows, directory = run_script(sweep, given)
    lines = told(list(rows), [variant.label for variant in sweep.variants])
    keep_figures(directory, combinations=combinations_figure(lines, cuts), windows=windows_figure(lines, cuts, windows))
    report = draw(directory)
    if given.json:
        for line in lines:
            print(json.dumps(line))
        return
    for line in lines:
        if line["measure"] in ("converged_share", "convergence_s", "divergence_final"):
            print(
                f"{line['label']:38s} cut {line['cut']:5s} {line['measure']:18s} "
                + ("never" if line["simulated"] is None else f"{line['simulated']:.4g}")
            )
    print(f"{len(rows)} trials, digest {digest}\nreport: {report}")


if __name__ == "__main__":
    main(script)
