"""How many acknowledged writes does Redis lose in a split brain?  Jepsen, 2013: {n1, n2} | {n3, n4, n5}, n1 the primary, a Sentinel on each.

Replication is asynchronous, and the deposed primary discards its branch when it is told to follow.  With a cut of length D, longer than the
failover T, and r writes a second and client, the arithmetic is: clients beside their nodes are cut with them, and r x 2 D writes are lost; clients
outside the cut all go on writing to n1 until their own Sentinel names another, and r x (2 D + 3 T) are lost.  With `min-replicas-to-write` above
the replicas on the minority's side, D is bounded by max-lag (10 s) + 1 s: acknowledgements of up to a second ago count, lags are whole seconds.
The arithmetic leaves out the time from heal until the minority's Sentinels hear of the new primary (TCP's next try, 0 to 4 s): `within` allows 5 %, and that
time's writes; of a bound, 20 % below (and above, that time's writes after a cut of repl-timeout or more: then a replica that still follows the deposed primary
dials it anew, is back first, and counts again as in touch: real servers lost 301 in one of two such runs).  `published` is null where the arithmetic says
nothing: cuts not longer than the failover.
T is simulated too; with the settings of the measured run (down-after 5 s, quorum 3, no delay) it stands beside that run's 6.69 s, within 20 %.
`measured`: the median of real runs, where there are any: reference/real_servers (10 s), and our own of Redis 7.0.15 with Sentinels in network namespaces, a
Poisson process of 10 writes a second and client among as many reads.  They show the second or three after heal, too: 603 to 687 were lost after 30 s beside.
Simplified, and why: writes only, evenly spaced, so that the loss is no matter of chance; reads lose nothing.
Redis 2.6, which Jepsen cut: --failover-delay 5s --failover-jitter 10s.

    python experiments/redis_failover.py --cut 30s --client-placement beside outside --min-replicas 0 2 --json
"""

import argparse
import json
import sys
from statistics import median
from typing import Any

import plotly.graph_objects as go

from capray.errors import duration_us, wrong
from capray.experiment import main, parser, run_script
from capray.figures.style import looks, style
from capray.stats import summary
from capray.store import Row
from capray.sweep import Grid, Sweep, Variant
from capray.sweeping import draw, keep_figures

POLICY = "redis"
CUTS = {"ci": ("10s", "30s"), "default": ("10s", "20s", "30s", "60s"), "full": ("10s", "15s", "20s", "30s", "45s", "60s", "120s")}
SEEDS = {"ci": 3, "default": 8, "full": 50}
SECOND = 1_000_000
HEARD_WITHIN_S = 4  # after heal: dials are tried after 1 s, 2 s, 4 s, ... by each of two dozen connections
REPL_TIMEOUT_S = 60  # redis.conf 7.0
MEASURED_FAILOVER_S = 6.694  # reference/real_servers/index.json, redis_leader_cut_D10, median of 3 runs
# (client placement, min-replicas, cut in s) -> acknowledged writes lost in each of the real runs;
# {2 | 3} of 5 nodes, down-after 5 s, quorum 3, 10 writes a second and client
MEASURED_LOSSES = {
    ("beside", 0, 10): (192, 194, 197, 199, 204), ("beside", 0, 20): (368, 383, 398, 422, 432), ("beside", 0, 30): (603, 623, 626, 662, 687),
    ("beside", 0, 60): (1242, 1271), ("beside", 0, 90): (1835,),
    ("beside", 2, 10): (190,), ("beside", 2, 30): (204, 218), ("beside", 2, 60): (180, 301),
    ("outside", 0, 20): (607,), ("outside", 0, 30): (864,),
}
BASELINE = "failover"  # the variant that T is measured on: clients beside their nodes, no min-replicas


def script() -> None:
    given = options().parse_args()
    sweep = sweep_of(given)
    digest, rows, directory = run_script(sweep, given)
    answers = [answer for cut in cuts_of(given) for answer in judged(given, list(rows), cut)]
    keep_figures(directory, redis_failover=figure(given, answers))
    draw(directory)
    say(answers, {"digest": digest, "trials": len(rows), "directory": str(directory)}, given.json)


def options() -> argparse.ArgumentParser:
    found = parser(__doc__ or "")
    found.add_argument("--cut", nargs="+", default=None, help="how long the cut lasts, with units (default: the scale's)")
    found.add_argument("--down-after", default="5s", help="down-after-milliseconds")
    found.add_argument("--quorum", type=int, default=3, help="Sentinels that must agree")
    found.add_argument("--failover-delay", default="0s", help="Redis 2.6: 5s")
    found.add_argument("--failover-jitter", default="0s", help="Redis 2.6: 10s")
    found.add_argument("--rate", type=float, default=10.0, help="writes a second and client")
    found.add_argument("--nodes", type=int, default=5)
    found.add_argument("--minority", type=int, default=2, help="nodes on the primary's side")
    found.add_argument("--client-placement", nargs="+", choices=("beside", "outside"), default=["beside", "outside"], help="where clients stand")
    found.add_argument("--min-replicas", nargs="+", type=int, default=[0, 2], help="min-replicas-to-write")
    found.add_argument("--max-lag", default="10s", help="min-replicas-max-lag")
    return found


# ---- the set-up ---------------------------------------------------------------------------------------------------------------------
def sweep_of(given: argparse.Namespace) -> Sweep:
    """Every placement with every min-replicas, and the variant that T is measured on."""
    if not 1 <= given.minority < given.nodes:
        raise wrong("minority", given.minority, f"a number of nodes from 1 to {given.nodes - 1}")
    if not 0.1 <= given.rate <= 1000:
        raise wrong("rate", given.rate, "writes a second and client, from 0.1 to 1000")
    for cut in cuts_of(given):
        duration_us(cut, "cut")
    variants = [variant(given, BASELINE, "beside", 0)]
    variants += [
        variant(given, label(placement, count), placement, count)
        for placement in dict.fromkeys(given.client_placement)
        for count in dict.fromkeys(given.min_replicas)
    ]
    seeds = SEEDS[given.scale] if given.seeds is None else given.seeds
    sweep = Sweep(
        name="redis-failover" if given.scale != "ci" else "ci-redis-failover",
        variants=tuple(variants),
        seeds=seeds,
        at_us=10 * SECOND,
        after_us=40 * SECOND,
        grids=(Grid(nodes=(given.nodes,), durations=tuple(cuts_of(given))),),
    )
    sweep.validate()
    return sweep


def variant(given: argparse.Namespace, name: str, placement: str, min_replicas: int) -> Variant:
    settings = {
        "down_after_us": duration_us(given.down_after, "down-after"),
        "quorum": given.quorum,
        "min_replicas_to_write": min_replicas,
        "min_replicas_max_lag_us": duration_us(given.max_lag, "max-lag"),
        "failover_delay_us": duration_us(given.failover_delay, "failover-delay"),
        "failover_delay_jitter_us": duration_us(given.failover_jitter, "failover-jitter"),
    }
    sides = (range(given.minority), range(given.minority, given.nodes))
    shape = "|".join(",".join(map(str, side)) for side in sides)
    workload = {"rate": given.rate, "read_share": 0.0, "arrivals": "even", "client_placement": placement}
    return Variant(label=name, policy=POLICY, settings=settings, shape=shape, base={"workload": workload})


def label(placement: str, min_replicas: int) -> str:
    return f"{placement}, min-replicas {min_replicas}" if min_replicas else placement


def cuts_of(given: argparse.Namespace) -> tuple[str, ...]:
    return tuple(dict.fromkeys(given.cut or CUTS[given.scale]))


# ---- the answers --------------------------------------------------------------------------------------------------------------------
def judged(given: argparse.Namespace, rows: list[Row], cut: str) -> list[dict[str, Any]]:
    """T and the losses for one length of the cut."""
    seconds = duration_us(cut, "cut") / SECOND
    here = [row for row in rows if row["duration"] == cut]
    times = [row["failover_write_us"] / SECOND for row in here if row["label"] == BASELINE and row["failover_write_us"] is not None]
    as_measured = (given.down_after, given.quorum, given.failover_delay, given.failover_jitter, given.nodes, given.minority) == (
        "5s",
        3,
        "0s",
        "0s",
        5,
        2,
    )
    failover = sum(times) / len(times) if times else None
    fails_over = failover is not None and failover < seconds
    published = MEASURED_FAILOVER_S if as_measured and fails_over else None
    found = [answer("failover_s", cut, "", 0, published, times if fails_over else [], 0.8, 1.2, 0.0)]
    like_real = as_measured and given.rate == 10 and duration_us(given.max_lag, "max-lag") == 10 * SECOND
    for placement in dict.fromkeys(given.client_placement):
        for count in dict.fromkeys(given.min_replicas):
            lost = [row["lost_writes"] for row in here if row["label"] == label(placement, count)]
            bounded = count > given.minority - 1
            expected = arithmetic(given, seconds, failover, placement, bounded) if fails_over and failover is not None else None
            late = 0.0 if bounded and seconds < REPL_TIMEOUT_S else given.rate * given.minority * HEARD_WITHIN_S
            found.append(answer("lost", cut, placement, count, expected, lost, 0.8 if bounded else 0.95, 1.05, late))
            real = MEASURED_LOSSES.get((placement, count, seconds), ()) if like_real else ()
            found[-1]["measured"] = median(real) if real else None
    return found


def arithmetic(given: argparse.Namespace, cut_s: float, failover_s: float, placement: str, bounded: bool) -> float:
    """Writes that the old primary acknowledged in the cut."""
    accepts_s = min(cut_s, duration_us(given.max_lag, "max-lag") / SECOND + 1) if bounded else cut_s
    others = given.nodes - given.minority if placement == "outside" else 0
    return float(given.rate * (given.minority * accepts_s + others * min(failover_s, accepts_s)))


def answer(
    measure: str, cut: str, placement: str, count: int, published: float | None, values: list[float], least: float, most: float, late: float
) -> dict[str, Any]:
    """One row; `within`: the simulated mean is from `least` to `most` of the published value, or `late` above that."""
    found = summary(values)
    within = None if published is None or found["mean"] is None else published * least <= found["mean"] <= published * most + late
    return {
        "measure": measure,
        "cut": cut,
        "placement": placement or None,
        "min_replicas": count,
        "published": published,
        "measured": published if measure == "failover_s" else None,
        "simulated": found["mean"],
        "low": found["low"],
        "high": found["high"],
        "within": within,
        "trials": found["trials"],
    }


def figure(given: argparse.Namespace, answers: list[dict[str, Any]]) -> go.Figure:
    """Lost writes against the cut's length: simulated with their intervals, the arithmetic as crosses."""
    drawn = go.Figure()
    chosen = [(placement, count) for placement in dict.fromkeys(given.client_placement) for count in dict.fromkeys(given.min_replicas)]
    for (placement, count), look in zip(chosen, looks([label(*each) for each in chosen]).values()):
        rows = [row for row in answers if row["measure"] == "lost" and (row["placement"], row["min_replicas"]) == (placement, count)]
        rows.sort(key=lambda row: duration_us(row["cut"], "cut"))
        x = [duration_us(row["cut"], "cut") / SECOND for row in rows]
        bars = {
            "type": "data",
            "symmetric": False,
            "array": [(row["high"] or row["simulated"]) - row["simulated"] for row in rows],
            "arrayminus": [row["simulated"] - (row["low"] or row["simulated"]) for row in rows],
        }
        drawn.add_scatter(
            x=x,
            y=[row["simulated"] for row in rows],
            error_y=bars,
            mode="lines+markers",
            name=label(placement, count),
            line={"color": look.colour, "dash": look.dash},
            marker={"symbol": look.marker, "color": look.colour},
        )
        drawn.add_scatter(
            x=x,
            y=[row["published"] for row in rows],
            mode="markers",
            name=f"{label(placement, count)}, arithmetic",
            marker={"symbol": "x-thin", "size": 12, "color": look.colour, "line": {"width": 2, "color": look.colour}},
        )
        real = [row for row in rows if row["measured"] is not None]
        if real:
            drawn.add_scatter(
                x=[duration_us(row["cut"], "cut") / SECOND for row in real],
                y=[row["measured"] for row in real],
                mode="markers",
                name=f"{label(placement, count)}, real servers",
                marker={"symbol": "square-open", "size": 13, "color": look.colour, "line": {"width": 2, "color": look.colour}},
            )
    drawn.update_xaxes(title="length of the cut, s")
    drawn.update_yaxes(title="acknowledged writes lost", rangemode="tozero")
    return style(
        drawn,
        "What Redis loses in a split brain",
        f"{given.rate:g} writes a second and client; crosses: r x 2 D, r x (2 D + 3 T), or bounded by max-lag + 1 s; squares: real Redis 7.0",
        520,
    )


def say(answers: list[dict[str, Any]], last: dict[str, Any], as_json: bool) -> None:
    for found in answers if as_json else ():
        print(json.dumps(found))
    for found in answers if not as_json else ():
        what = " ".join(
            filter(None, [found["measure"], found["placement"], f"min-replicas {found['min_replicas']}" if found["min_replicas"] else ""])
        )
        known = (
            "" if found["published"] is None else f"  published {found['published']:.4g}: {'within' if found['within'] else 'NOT within'} tolerance"
        )
        known += "" if found["measured"] is None else f", real {found['measured']:.4g}"
        value = "not seen" if found["simulated"] is None else f"{found['simulated']:.4g}"
        print(f"cut {found['cut']:>5}  {what:32} {value:>9}{known}")
    print("{trials} trials, digest {digest}: {directory}".format(**last), file=sys.stderr if as_json else sys.stdout)


if __name__ == "__main__":
    main(script)
