"""Do the simulated policies behave as the real servers did?  The measured runs of etcd, ZooKeeper, Redis with
Sentinel, PostgreSQL and Cassandra, beside the simulation.

The set-up of those runs: 5 servers, a client beside each (20 operations a second, Poisson, half reads, 5 keys, 1 s deadline); 10 s healthy; {2 nodes | 3 nodes}
cut for --for and 5.5 ms more, the time it took to lift a cut in the measured runs; 20 s after heal; a second of quiet; final reads.  All on one kernel, whose
timers tick together.  Round trip about 0.2 ms, fdatasync median 2 ms and p99 20 ms; TCP retransmits first after 200 ms and a round trip, as Linux does.
`leader_cut`: the leader is one of the two; `follower_cut`: it is not; `minority2`: nodes 0 and 1; also any shape of `capray run`.
Systems by the measured runs' names; also `zookeeper_1s` (one session for reads and writes), `zookeeper_sync`, and `cassandra_rf<n>_<level>` or
`..._w<level>_r<level>`.

`published` is the median of the measured runs (1 to 3 of each), of a cut of 10 s; null where nobody published it (other lengths, shapes, settings).
`simulated` is the median over seeds, likewise; `low` and `high` its 95 % interval by order statistics, or the range of fewer than 6 seeds. `within`:
availability within 3 points, times (s) within 20 % or 0.5 s, or inside the spread of the measured runs; stale reads and lost writes: none or some alike, or
inside that spread. `apart`: interval and spread do not meet, so that it is not for the few seeds and runs alone. `again`: the median of more runs of the same
version, where up to three say little (20 of etcd 3.4.23, follower_cut; the 6 of Cassandra's reads at ONE of RF 3, which no level of writes changes, and 6
more of its oldest stale read: capray/studies/measured_servers.py), with their number and spread; `again_within`: within the same tolerance of that median alone. (A Cassandra's oldest stale
read hangs on who wrote when: asked what a measured run's clients asked, the simulation has its age and count.) Told, not judged: info_applied, for which
nobody set a tolerance (a Cassandra has no list of what it applied: there it counts what was newest on some replica), and healthy latencies (p50_*, ms), since
the processors' time of five servers on two cores is not simulated.
A Cassandra's reads hang on what its coordinators remember of earlier ones (each replica's latency until the snitch's reset, each 10 min; all latencies, for
speculation), and so differ from run to run of one setting.  Of the majority's reads at ONE, further runs of 5.0.4 answered .91 to 1.0 in five fresh clusters'
first cuts (simulated: .92), 1.0 in the next, 45 s later (1.0), and .73 to .89 in seven on servers an hour old, the snitch reset before each (.74 to .87 with
`--set stage_latency=800us`); of the minority's .61 to .73 in a fresh cluster's first cut (simulated: .76, of single trials .69 to .87).  There the first read
of each peer is slow, and the peer is not read again while another answers sooner: with `--set first_read_latency=40ms` .74, .62 to .85.
At SERIAL, too, what matters is what was remembered: 4 a second and client, two nodes cut off for 10 s, then one of the others, had .39/.32 (reads/writes;
simulated: .33/.36) and .58/.63 (.59/.61) on the two sides, then .86/.84 (.87/.84) on the larger; the node was back after 3.6 s (3.6).  At 20 a second the
processors' time counts, since transactions that take longer contend more: five servers on two busy cores answered .6 of the reads with no cut at all.
Where a long cut came before, a node is convicted after more than 30 s, and internode_tcp_user_timeout shows: after one of 90 s, one of 30 s was over .6 s after
heal at ALL (simulated: .6; without that time-out 23 s).
Measures, as in the measured runs: av_* availability by phase (before, dur, after), side and kind; failover: from the cut to the first ok on the majority,
*_all: on each of its nodes; maj_gap: longest time without an ok there; min_last_ok: from the cut to the minority's last ok; rec_first_ok: from heal to the
slowest node's first ok; rec_last_bad: from heal to the last operation that was not ok; stale: reads of values provably overwritten; lost_acked; info_applied:
writes of unknown outcome that were applied.

    python experiments/real_servers.py --system etcd --variant leader_cut --for 20s --json
"""

import argparse
import json
import re
import sys
from collections.abc import Callable
from decimal import Decimal
from functools import lru_cache
from math import comb
from statistics import median
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from capray.errors import duration_us, show_us, wrong
from capray.experiment import main, parser, run_script
from capray.faults import FIELD_DURATIONS, SHAPES, parse_groups
from capray.figures.style import FAINT, INK, looks, style
from capray.measures.holdings import holdings
from capray.measures.phases import FOREVER, is_ok, kind_of
from capray.record import Operation, Record
from capray.scenario import from_dict
from capray.store import Results, Row
from capray.studies.measured_servers import Spread, measured_again, measured_servers
from capray.sweep import Grid, Sweep, Variant
from capray.sweeping import draw, keep_figures, replay
from capray.trial import simulate

SECOND = 1_000_000
MEASURED, MEASURED_CUT = measured_servers(), "10s"
# How long a measured cut lasted.  The command that cuts returns about 1 ms after it took effect, and D is counted from there; the one that heals takes effect 4 to
# 6 ms after it is started, but returns only when the kernel's readers are through (RCU), 3 to 35 ms later: that is t_heal, from which the measured runs' script
# counted recoveries (index.json: t_heal - t_cut - D is 8.8 to 40.6 ms, in clusters 10 ms apart; the median is 19.2).  Seen with nftables on Linux 6.18, by a probe
# each .5 ms: on a quiet machine, and in ten runs beside five servers and their clients on a loaded one (medians 1.4 and 5.1 ms, at most 11 and 13).
# It decides which dials find the path open, as those begin whole seconds after a cut.  etcd's follower_cut hangs on it most: 9 s after the cut its members dial
# for the third time, and send the second SYN at 9.97 to 10.03 s, all of them when the kernel's timers next tick, each 32 ms.  Of own runs, two whose cuts lasted
# 10.0044 and 10.0060 s had SYNs at 10.0046 and 10.0306, and their leaders deposed at once; one of 10.0045 s had them at 10.0039, and its leader deposed by the
# next dials, 1 s later (simulated: 21 of 60 at once).  Away from there both do as the dials say: cut for 9.9 s, deposed .08, .11, .13 s after heal (simulated .07
# to .14 s, 16 of 16); for 10.1 s, .90 s after it (.86 to .93); for 1 s, .48 to .49 s after it, 3 of 4 (.47 to .54, 9 of 12).
LIFTING_US = 5_500
COUNTED_LATE_US = 13_700  # after heal
LINK = {"floor_us": 60, "latency": {"shape": "exponential", "mean_us": 40}, "rto_us": 200_200, "one_kernel": True}  # round trip 0.2 ms in the mean
BASE: dict[str, Any] = {"link": LINK, "disk": "fsync-2ms", "quiet_us": SECOND}
SHAPE_OF = {"leader_cut": "leader-minority", "follower_cut": "majority", "minority2": "0,1|2,3,4"}
EARLIER_SEEDS = range(1_000_000, 1_000_003)  # of the cut before the measured one, the same for all trials
SEEDS = {"ci": 3, "default": 16, "full": 40}  # Cassandra's reads scatter by 6 to 10 points a trial

# Where in its tick a measured ZooKeeper's leader was cut was not by chance: the clients began so long after it.  Cut leaders served 10.0 to 10.5 s, until a tick
# (real_servers.md; one of three won the next election with what it had not committed, so within the others' finalise wait of 0.2 s; the recorded one at
# 10.29 s): the cut came 1.5 to 2 s after a tick, and a simulated leader begins to serve 0.3 s after time 0.  Anywhere in there, as drawn for each trial.
PHASE = {"tick_phase": "1.8s", "tick_phase_width": "0.5s"}

# system -> policy and settings, from index.json; what is beside them is what a fresh simulated cluster lacks and the measured one had.
SYSTEMS: dict[str, tuple[str, dict[str, Any]]] = {
    "etcd": ("etcd", {"version": "3.4"}),
    "etcd_ser": ("etcd", {"version": "3.4", "read_consistency": "serializable"}),
    "zookeeper": ("zookeeper", PHASE),
    "zookeeper_1s": ("zookeeper", {**PHASE, "sessions": "shared"}),
    "zookeeper_sync": ("zookeeper", {**PHASE, "read_mode": "sync"}),
    "redis": ("redis", {"down_after": "5s", "quorum": 3}),
    "postgres": ("postgres", {}),
}
CASSANDRA = re.compile(r"cassandra_rf(\d+)_(?:w([a-z_]+)_r([a-z_]+)|([a-z_]+))")
# One key in each ring range.  The latency percentile that speculative retry waits for is kept for each table and coordinator, and a cluster's runs followed
# one another: the run before, on the same table, left reads that hung in it (`earlier`).  Between its heal and this run's start lay its 20 s after heal, its
# final reads and the start of five clients: about a minute (20 s to 2 min give the same rows, 3 min slightly higher ones).
CASSANDRA_SETTINGS = {"partitioner": "key_number", "timestamps": "client", "past_reads": 350, "past_age": "1min"}

COLUMNS = {
    "av_before": "availability_before", "av_dur_min_r": "availability_during_minority_read", "av_dur_min_w": "availability_during_minority_write",
    "av_dur_maj_r": "availability_during_majority_read", "av_dur_maj_w": "availability_during_majority_write", "av_after_min": "availability_after_minority",
    "av_after_maj": "availability_after_majority", "failover_w": "failover_write_us", "failover_w_all": "", "failover_r_all": "", "maj_gap_w": "gap_write_us",
    "maj_gap_r": "gap_read_us", "min_last_ok_r": "", "min_last_ok_w": "", "rec_first_ok_r": "recovery_first_read_us",
    "rec_first_ok_w": "recovery_first_write_us", "rec_last_bad": "recovery_last_us",
    "stale": "stale_reads", "stale_dur_min": "stale_reads_during_minority", "stale_dur_maj": "stale_reads_during_majority",
    "stale_after": "stale_reads_after", "stale_max_s": "staleness_max_us", "lost_acked": "lost_writes", "info_applied": "",
    "p50_r": "latency_p50_before_read_us", "p50_w": "latency_p50_before_write_us",
}  # measure -> column of the results ("": from the replayed trial)
COUNTS = ("stale", "lost")


def script() -> None:
    given = options().parse_args()
    sweep = sweep_of(given)
    digest, rows, directory = run_script(sweep, given)
    manifest = Results(directory).manifest()
    answers = told([{**row, **beside(replay(manifest, row))} for row in sorted(rows, key=lambda row: str(row["key"]))], as_published(given))
    keep_figures(directory, real_servers=figure(answers))
    draw(directory)
    say(answers, {"digest": digest, "trials": len(rows), "directory": str(directory)}, given.json)


def options() -> argparse.ArgumentParser:
    found = parser(__doc__ or "")
    found.add_argument("--system", nargs="+", default=None,
                       help="measured runs' names: " + ", ".join(SYSTEMS) + ", cassandra_rf3_one, ... (default: all that were measured)")
    found.add_argument("--variant", nargs="+", default=None,
                       help="leader_cut, follower_cut, minority2, or a shape such as isolate or 0,1|2,3,4 (default: as measured)")
    found.add_argument("--for", dest="cut", nargs="+", default=[MEASURED_CUT], help="how long the cut lasts, with units")
    found.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE",
                       help="settings of the policy in place of the measured ones; nothing is published for them")
    found.add_argument("--service", default="0us", help="processor's time that a server takes for each message; nothing is published beside it (default: none)")
    return found


# ---- the set-up ---------------------------------------------------------------------------------------------------------------------
def system(name: str) -> tuple[str, dict[str, Any]]:
    """Policy and settings of a measured system.  Raises InputError."""
    found = CASSANDRA.fullmatch(name)
    if name in SYSTEMS:
        return SYSTEMS[name]
    if not found:
        names = dict.fromkeys([*SYSTEMS, *(one for one, _ in MEASURED)])
        raise wrong("system", name, "one of " + ", ".join(names) + ", or another cassandra_rf<n>_<level>")
    factor, write, read, both = found.groups()
    levels = {"write_consistency": (write or both).upper(), "read_consistency": (read or both).upper()}
    return "cassandra", {**CASSANDRA_SETTINGS, "replication_factor": int(factor), **levels}


@lru_cache
def earlier(one: str, shape: str) -> dict[str, Any]:
    """What an earlier cut of the same shape, of 10 s, left at each Cassandra node: how many of the reads at ONE that it coordinated were not answered, in the
    mean of three fresh clusters; a node draws 0 to twice as many.  (ONE is the first of the recorded runs of each replication factor.  So n2 of rf3_quorum
    speculates, as the recorded one did 30 to 50 ms after a request, and n0, n1 and n4 do not; and at RF 5, where no read at ONE hangs, all do.)"""
    policy, settings = system(one)
    if policy != "cassandra":
        return {}
    settings = {**settings, "read_consistency": "ONE", "write_consistency": "ONE"}
    fault = {"kind": "partition", "shape": shape, "at_us": 10 * SECOND, "for_us": duration_us(MEASURED_CUT)}
    scenario = from_dict({**BASE, "policy": policy, "nodes": 5, "settings": settings, "duration_us": 20 * SECOND, "faults": [fault]})
    reads = [op for seed in EARLIER_SEEDS for op in simulate(scenario, seed).history if op.f == "read"]
    silent = [op.node for op in reads if not is_ok(op) and op.error != "UNAVAILABLE"]
    return {"past_read_timeouts": [silent.count(node) // len(EARLIER_SEEDS) for node in range(5)]}


def shape(variant: str) -> str:
    """A variant's cut.  Raises InputError."""
    if variant not in SHAPE_OF and variant not in SHAPES and parse_groups(variant) is None:
        raise wrong("variant", variant, "one of " + ", ".join([*SHAPE_OF, *SHAPES]) + ", or groups such as 0,1|2,3,4")
    return SHAPE_OF.get(variant, variant)


def wanted(given: argparse.Namespace) -> list[tuple[str, str]]:
    """The systems and variants asked for: of those measured, or where variants were named, each with each."""
    systems = list(dict.fromkeys(given.system or [one for one, _ in MEASURED]))
    if given.variant and given.system:
        return [(one, variant) for one in systems for variant in dict.fromkeys(given.variant)]
    found = [(one, variant) for one in systems for variant in variants_of(one)]
    return [pair for pair in found if pair[1] in given.variant] if given.variant else found


def variants_of(one: str) -> list[str]:
    """Those that a system was measured in; else the one of its kind."""
    return [variant for name, variant in MEASURED if name == one] or ["minority2" if one.startswith("cassandra") else "leader_cut"]


def sweep_of(given: argparse.Namespace) -> Sweep:
    """Every system with its variants, for every length of the cut.  Raises InputError."""
    extra: dict[str, Any] = {}
    for text in given.set:
        name, equals, value = text.partition("=")
        if not equals:
            raise wrong("set", text, "KEY=VALUE")
        extra[name] = value
    chosen = wanted(given)
    if not chosen:
        raise wrong("variant", " ".join(given.variant), "a variant that was measured, or a system beside it")
    variants = []
    for one, variant in chosen:
        policy, settings = system(one)
        settings = {**settings, **earlier(one, shape(variant)), **extra}
        variants.append(Variant(label=f"{one} {variant}", policy=policy, settings=settings, shape=shape(variant)))
    name = "real-servers" if given.scale == "default" else f"{given.scale}-real-servers"
    if given.system:
        name += "-" + "-".join(dict.fromkeys(one for one, _ in chosen))
    grid = Grid(nodes=(5,), durations=tuple(dict.fromkeys(lasting(cut) for cut in given.cut)))
    service = duration_us(given.service, "service")
    base = {**BASE, "service_us": service} if service else BASE
    sweep = Sweep(name=name, variants=tuple(variants), grids=(grid,), base=base, at_us=10 * SECOND, after_us=20 * SECOND,
                  seeds=SEEDS[given.scale] if given.seeds is None else given.seeds)
    sweep.validate()
    return sweep


def lasting(asked: str) -> str:
    """How long a cut lasts that was asked for.  Raises InputError."""
    if asked in FIELD_DURATIONS:
        return asked
    us = duration_us(asked, "for")
    if not us:
        raise wrong("for", asked, "a duration above 0: every measure here is one of a cut")
    return f"{Decimal(us + LIFTING_US) / SECOND}s"  # exact, and read by people


def asked_for(lasts: str) -> str:
    """What was asked for, from how long the cut lasts."""
    return lasts if lasts in FIELD_DURATIONS else show_us(duration_us(lasts) - LIFTING_US)


def as_published(given: argparse.Namespace) -> dict[tuple[str, str], dict[str, Spread]]:
    """(system and variant, cut) -> measure -> the measured runs; nothing where settings were changed, or for other cuts."""
    if given.set or duration_us(given.service, "service") or lasting(MEASURED_CUT) not in [lasting(cut) for cut in given.cut]:
        return {}
    return {(f"{one} {variant}", MEASURED_CUT): found for (one, variant), found in MEASURED.items()}


# ---- the measures -------------------------------------------------------------------------------------------------------------------
def beside(record: Record) -> Row:
    """What the measured runs' script told and a row of a sweep does not: seconds, null where it did not happen."""
    cut, heal = record.faults[0].at, record.faults[0].until or record.end
    sides = sorted(record.faults[0].groups, key=len)
    minority, majority = sides[0] if sides else (), sides[-1] if sides else ()
    out: Row = {"info_applied": None}
    for kind in ("read", "write"):
        ok = [op for op in record.history if not op.final and is_ok(op) and kind_of(op) == kind and op.invoke >= cut]
        first = [_first(ok, node) for node in majority]
        out[f"failover_{kind[0]}_all"] = None if None in first else (max(at for at in first if at is not None) - cut) / SECOND
        last = max((op.complete for op in ok if op.node in minority and op.complete is not None and op.complete < heal), default=None)
        out[f"min_last_ok_{kind[0]}"] = None if last is None else (last - cut) / SECOND
    if record.versions is not None:
        applied = {(version.key, version.value) for version in record.versions if version.kind == "apply"}  # `late` was never visible
        if record.policy == "redis":
            applied = kept_by_the_primary(record)
            out["lost_writes"] = sum(op.type == "ok" and op.f == "write" and (op.key, op.value) not in applied for op in record.history)
        out["info_applied"] = sum(op.type == "info" and (op.key, op.value) in applied for op in record.history)
    return out


def kept_by_the_primary(record: Record) -> set[tuple[str, Any]]:
    """What the history of the server that answers the final reads has: by that, the measured runs' script took a write for applied, or lost.  (A replica that
    nobody has told to leave a deposed primary yet, its slot being taken, still keeps that one's branch, for up to failover-timeout; METRICS.md counts it.)"""
    out: set[tuple[str, Any]] = set()
    for key, found in (holdings(record) or {}).items():
        answers = {op.result for op in record.history if op.final and op.key == key and op.type == "ok"}
        lasting_ones = {node: [(found.rank[write], write) for write, _, end in line if end == FOREVER] for node, line in found.held.items()}
        held = {node: max(ones)[1] for node, ones in lasting_ones.items() if ones}
        values = {number: value for value, number in found.number.items()}
        kept = found.kept(frozenset(node for node, newest in held.items() if values[newest] in answers))
        out |= {(key, values[write]) for write in kept}
    return out


def _first(ok: list[Operation], node: int) -> int | None:
    return min((op.complete for op in ok if op.node == node and op.complete is not None), default=None)


def value_of(row: Row, measure: str) -> float | None:
    """A trial's value in the unit of the measured runs: seconds, shares, counts; ms for p50."""
    column = COLUMNS[measure]
    value = row[column or measure]
    if measure == "stale_max_s" and value is None:
        return 0.0  # as the measured runs' script has it
    if value is None or not column.endswith("_us"):
        return None if value is None else float(value)
    if measure.startswith("rec_"):
        value = max(0, value - COUNTED_LATE_US)
    return float(value) / (1_000 if measure.startswith("p50") else SECOND)


def told(rows: list[Row], known: dict[tuple[str, str], dict[str, Spread]]) -> list[dict[str, Any]]:
    """One dict for each measure of each system, variant and length of the cut."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["label"], asked_for(row["duration"])), []).append(row)
    out = []
    for (label, cut), group in groups.items():
        for measure in COLUMNS:
            values = sorted(value for row in group if (value := value_of(row, measure)) is not None)
            middle, (low, high) = median(values) if values else None, interval(values)
            published = known.get((label, cut), {}).get(measure)
            apart = published is not None and low is not None and high is not None and (high < published.least or low > published.most)
            system_of, _, variant = label.partition(" ")
            out.append({"measure": measure, "published": published and published.median, "simulated": middle, "low": low, "high": high,
                        "within": published and within(measure, middle, published), "published_low": published and published.least,
                        "published_high": published and published.most, "system": system_of, "variant": variant, "cut": cut, "apart": apart,
                        "trials": len(values), **again(system_of, variant, measure, middle, published is not None)})
    return out


def again(one: str, variant: str, measure: str, simulated: float | None, comparable: bool) -> dict[str, Any]:
    """What further runs of the real servers said, null where there are none."""
    found = measured_again(one, variant, measure) if comparable else None
    if found is None:
        return dict.fromkeys(("again", "again_low", "again_high", "again_runs", "again_within"))
    runs, (middle, least, most) = found
    return {"again": middle, "again_low": least, "again_high": most, "again_runs": runs,
            "again_within": within(measure, simulated, Spread(middle, middle, middle))}


def interval(ordered: list[float]) -> tuple[float | None, float | None]:
    """The 95 % interval of the median by order statistics (the narrowest pair of equal ranks from both ends that covers as much); fewer than 6: the range."""
    n, rank, tail = len(ordered), 0, 0
    while rank < n // 2 and 40 * (tail + comb(n, rank)) <= 2**n:
        tail += comb(n, rank)
        rank += 1
    rank = max(rank - 1, 0)
    return (ordered[rank], ordered[-1 - rank]) if n > 1 else (None, None)


def within(measure: str, simulated: float | None, published: Spread) -> bool | None:
    """Does it agree, by the tolerances above?  Null for what it has none for."""
    middle, least, most = published
    if measure.startswith("p50") or measure == "info_applied":
        return None
    if simulated is None:
        return False
    if least <= simulated <= most:
        return True
    if measure.startswith(COUNTS) and measure != "stale_max_s":
        return (simulated > 0) == (middle > 0)
    if measure.startswith("av_"):
        return abs(simulated - middle) <= 0.03 + 1e-9
    return abs(simulated - middle) <= max(0.5, 0.2 * middle)


# ---- what is shown ------------------------------------------------------------------------------------------------------------------
PANELS = (("av_dur_min_r", "minority's reads, in the cut"), ("av_dur_min_w", "minority's writes, in the cut"), ("av_dur_maj_r", "majority's reads, in the cut"),
          ("av_dur_maj_w", "majority's writes, in the cut"), ("av_after_min", "minority, after heal"), ("av_after_maj", "majority, after heal"),
          ("failover_w", "failover, writes, s"), ("maj_gap_w", "longest gap, writes, s"), ("min_last_ok_r", "minority's last read, s"),
          ("rec_first_ok_w", "first writes after heal, s"), ("rec_last_bad", "last failure after heal, s"), ("stale_max_s", "oldest stale read, s"),
          ("stale", "stale reads"), ("lost_acked", "acknowledged writes lost"), ("info_applied", "unknown writes applied"))
ACROSS = 3


def figure(answers: list[dict[str, Any]]) -> go.Figure:
    """A panel for each measure, a line for each system: measured above, simulated below."""
    several = len({answer["cut"] for answer in answers}) > 1
    names = list(dict.fromkeys(name_of(answer, several) for answer in answers))[::-1]
    down = -(-len(PANELS) // ACROSS)
    height = 150 + down * (90 + 30 * len(names))
    drawn = make_subplots(rows=down, cols=ACROSS, shared_yaxes=True, subplot_titles=[title for _, title in PANELS],
                          horizontal_spacing=0.03, vertical_spacing=66 / height)
    fits_look, apart_look = looks(["within", "not within"]).values()
    dots: tuple[tuple[str, str, str, str, float, Callable[[dict[str, Any]], bool]], ...] = (
        ("measured: median and spread of the runs", "published", INK, "line-ns-open", 0.17, lambda answer: True),
        ("further runs of the same version", "again", FAINT, "line-ns-open", 0, lambda answer: True),
        ("simulated: median and its interval", "simulated", fits_look.colour, "circle", -0.17, lambda answer: answer["within"] is not False),
        ("simulated, not within tolerance", "simulated", apart_look.colour, "x", -0.17, lambda answer: answer["within"] is False))
    for i, (measure, _) in enumerate(PANELS):
        at = {"row": i // ACROSS + 1, "col": i % ACROSS + 1}
        for name, field, colour, symbol, aside, fits in dots:
            own = [answer for answer in answers if answer["measure"] == measure and answer[field] is not None and fits(answer)]
            ends = ("low", "high") if field == "simulated" else (f"{field}_low", f"{field}_high")
            bars = {"type": "data", "symmetric": False, "thickness": 1.3, "width": 3, "color": colour,
                    "array": [(answer[ends[1]] if answer[ends[1]] is not None else answer[field]) - answer[field] for answer in own],
                    "arrayminus": [answer[field] - (answer[ends[0]] if answer[ends[0]] is not None else answer[field]) for answer in own]}
            drawn.add_trace(go.Scatter(x=[answer[field] for answer in own], y=[names.index(name_of(answer, several)) + aside for answer in own],
                                       mode="markers", name=name, legendgroup=name, showlegend=False, error_x=bars, marker=mark(symbol, colour),
                                       hovertemplate=f"{measure}, {field}: %{{x:.4g}}<extra></extra>"), **at)
        drawn.update_xaxes(range=[-0.04, 1.06] if measure.startswith("av_") else None, rangemode="tozero", **at)
        drawn.update_yaxes(tickvals=list(range(len(names))), ticktext=names, range=[-0.6, len(names) - 0.4], **at)
    for name, _, colour, symbol, _, _ in dots:
        drawn.add_trace(go.Scatter(x=[None], y=[None], mode="markers", name=name, legendgroup=name, marker=mark(symbol, colour)))
    trials = max(answer["trials"] for answer in answers)
    style(drawn, "Real servers under a real cut, and their simulation",
          f"{trials} seeds; 1 to 3 runs of each real system, where it was measured; 5 nodes, two of them cut off", height)
    return drawn.update_xaxes(linecolor=FAINT).update_layout(width=1150)


def mark(symbol: str, colour: str) -> dict[str, Any]:
    return {"symbol": symbol, "size": 8, "color": colour, "line": {"width": 2, "color": colour}}


def name_of(answer: dict[str, Any], several: bool) -> str:
    name = f"{answer['system']}, {answer['variant'].replace('_', ' ')}".replace("cassandra_", "cassandra ")
    return f"{name}, {answer['cut']}" if several else name


def say(answers: list[dict[str, Any]], last: dict[str, Any], as_json: bool) -> None:
    for found in answers:
        if as_json:
            print(json.dumps(found))
        elif found["simulated"] is not None or found["published"] is not None:
            known = "" if found["published"] is None else f"  measured {found['published']:.4g} [{found['published_low']:.4g}, {found['published_high']:.4g}]"
            value = "not seen" if found["simulated"] is None else f"{found['simulated']:.4g}"
            value += "" if found["low"] is None else f" [{found['low']:.4g}, {found['high']:.4g}]"
            verdict = "  NOT within" if found["within"] is False else ""
            if found["again"] is not None:
                told_again = "within" if found["again_within"] else "NOT within"
                verdict += "; {again_runs} runs {again:.4g} [{again_low:.4g}, {again_high:.4g}]: ".format(**found) + told_again
            print(f"{found['system']:24} {found['variant']:12} {found['cut']:>5} {found['measure']:14} {value:>26}{known}{verdict}")
    print("{trials} trials, digest {digest}: {directory}".format(**last), file=sys.stderr if as_json else sys.stdout)


if __name__ == "__main__":
    main(script)
