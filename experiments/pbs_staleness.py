"""Probabilistically bounded staleness: Table 4 and the curves of Bailis et al. (VLDB 2012), from the real `cassandra` policy.

How likely does a read, asked t after a write's commit, return that write, when R + W <= N?  Replicas hold a key each, coordinators none; read
repair, hints and anti-entropy are off, reads go to all replicas; each message class has the latency that the paper fitted to production.
Without --fit, every setup with published values; with it, one setup, which may be one that nobody published, from more samples.

    python experiments/pbs_staleness.py --scale ci
    python experiments/pbs_staleness.py --fit wan --n 3 --r 1 --w 1 --t 50 --t 113

`within`: the accepted range (99.9th percentiles within 3 % of the published one; P(fresh) at 0 within 0.5 points; P(fresh) at the published t in
[.9985, .9992], since that t is where an estimate first crossed .999 and so is biased low) and the 99.9 % interval of the simulated value have some
value in common.  At full scale (2 million samples) the interval hardly widens the range; at ci scale (3,000) it does: by 3 points at most at t = 0,
by .005 at the published t, and a 99.9th percentile, which hangs on 3 samples there, is told only from one of about half the size or twice.
"""

import hashlib
import json
import sys
from math import comb
from pathlib import Path

import msgspec

from capray.errors import duration_us, wrong
from capray.experiment import main, parser
from capray.studies.pbs import MOST_COORDINATORS, VERSIONS, Setup
from capray.studies.pbs_study import Anchor, Study, measures, pools, run_study
from capray.sweeping import Progress, command_line

SAMPLES = {"ci": 3_000, "default": 60_000, "full": 2_000_000}
SAMPLES_ALONE = {**SAMPLES, "default": 400_000}  # of one setup: a 99.9th percentile of the disk fits to 5 % (95 %), in a minute or two
VERSION_SAMPLES = {"ci": 1_500, "default": 10_000, "full": 50_000}
BATCH = 25_000  # keys in one trial, at most

# ---- what was published -------------------------------------------------------------------------------------------------------------------
PAPER = "Bailis et al., VLDB 2012"
RECALLED = "recalled, not re-read; a Monte Carlo of a million agrees"
MONTE_CARLO = "an independent Monte Carlo of 10 million"
# fit, R, W: read p99.9 (ms), write p99.9 (ms), t for P(fresh) = .999 (ms), P(fresh) at t = 0 by Monte Carlo
TABLE_4 = (
    ("lnkd-ssd", 1, 1, 0.66, 0.66, 1.85, None), ("lnkd-ssd", 1, 2, 0.66, 1.63, 1.79, 0.9783), ("lnkd-ssd", 2, 1, 1.63, 0.65, 0, 0.9994),
    ("lnkd-ssd", 2, 2, 1.62, 1.64, 0, 1), ("lnkd-ssd", 3, 1, 4.14, 0.65, 0, 1), ("lnkd-ssd", 1, 3, 0.65, 4.09, 0, 1),
    ("lnkd-disk", 1, 1, 0.66, 10.99, 45.5, None), ("lnkd-disk", 1, 2, 0.65, 20.97, 43.3, 0.7129), ("lnkd-disk", 2, 1, 1.63, 10.9, 13.6, 0.7628),
    ("lnkd-disk", 2, 2, 1.64, 20.96, 0, 1), ("lnkd-disk", 3, 1, 4.12, 10.89, 0, 1), ("lnkd-disk", 1, 3, 0.65, 112.65, 0, 1),
    ("ymmr", 1, 1, 5.58, 10.83, 1364.0, None), ("ymmr", 1, 2, 5.61, 427.12, 1352.0, None), ("ymmr", 2, 1, 32.6, 10.73, 202.0, None),
    ("ymmr", 2, 2, 33.18, 428.11, 0, None), ("ymmr", 3, 1, 219.27, 10.79, 0, None), ("ymmr", 1, 3, 5.63, 1870.86, 0, None),
    ("wan", 1, 1, 3.4, 55.12, 113.0, None), ("wan", 1, 2, 3.4, 167.64, 0, None), ("wan", 2, 1, 151.3, 56.36, 30.2, None),
    ("wan", 2, 2, 151.31, 167.72, 0, None), ("wan", 3, 1, 153.86, 55.19, 0, None), ("wan", 1, 3, 3.44, 241.55, 0, None),
)  # fmt: skip
# fit, N, t (ms), P(fresh), how far from it is agreed (two printed digits: half of the last one, and half a point); R = W = 1
CURVES = (
    ("lnkd-ssd", 3, 0, 0.974, 0.005), ("lnkd-disk", 3, 0, 0.439, 0.005), ("lnkd-disk", 2, 0, 0.575, 0.005), ("lnkd-disk", 10, 0, 0.211, 0.005),
    ("lnkd-disk", 3, 10, 0.925, 0.005), ("lnkd-ssd", 3, 5, 0.99999, 0.00001), ("exp-0.25", 3, 0, 0.94, 0.01), ("exp-10", 3, 0, 0.41, 0.01),
    ("ymmr", 3, 0, 0.893, 0.005), ("wan", 3, 0, 0.33, 0.01),
)  # fmt: skip
# where a curve is drawn, ms
GRIDS = {
    "lnkd-ssd": (0.25, 0.5, 1, 1.5, 3, 5),
    "lnkd-disk": (2, 5, 10, 20, 30, 80),
    "ymmr": (10, 50, 200, 500, 900, 2000),
    "wan": (20, 40, 60, 80, 100, 150),
}
OTHER_GRID = (1, 2, 5, 10, 20, 40)


def label(fit: str, n: int, r: int, w: int) -> str:
    return Setup(fit=fit, n=n, r=r, w=w).label


def published() -> list[Anchor]:
    """Every published value, with the range that agrees with it."""
    out = []
    for fit, r, w, read, write, t, p_0 in TABLE_4:
        place, table = label(fit, 3, r, w), f"{PAPER}, Table 4" + (f", {RECALLED}" if fit in ("ymmr", "wan") else "")
        for measure, value in (("read_p999_ms", read), ("write_p999_ms", write)):
            out.append(Anchor(label=place, measure=measure, value=value, low=0.97 * value, high=1.03 * value, source=table))
        if t:
            out.append(Anchor(label=place, measure="p_fresh_t", at=round(t * 1000), value=0.999, low=0.9985, high=0.9992, source=table))
        elif p_0 is None:
            out.append(Anchor(label=place, measure="p_fresh_0", value=0.999, low=0.9985, high=1, source=f"{table}: at least .999 at t = 0"))
        if p_0 is not None:
            out.append(Anchor(label=place, measure="p_fresh_0", value=p_0, low=p_0 - 0.005, high=min(1, p_0 + 0.005), source=MONTE_CARLO))
    for fit, n, t, p, off in CURVES:
        out.append(
            Anchor(
                label=label(fit, n, 1, 1),
                measure="p_fresh_t" if t else "p_fresh_0",
                at=t * 1000 or None,
                value=p,
                low=p - off,
                high=min(1, p + off),
                source=PAPER + (f", {RECALLED}" if fit in ("ymmr", "wan") else ""),
            )
        )
    return out


def setup_of(fit: str, n: int, r: int, w: int, anchors: list[Anchor], asked: list[int]) -> Setup:
    """One setup: read again at the times asked for, or at the published one; and along the curve, where there is one to see."""
    own = [a for a in anchors if a.label == label(fit, n, r, w)]
    matter = tuple(asked or [a.at for a in own if a.measure == "p_fresh_t" and a.value == 0.999 and a.at])
    flat = r + w > n or (not matter and any(a.measure == "p_fresh_0" and a.value >= 0.999 for a in own))
    curve = tuple(us for t in (() if flat else GRIDS.get(fit, OTHER_GRID)) if (us := round(t * 1000)) not in matter)
    return Setup(fit=fit, n=n, r=r, w=w, t_us=matter, curve_us=curve)


def setups(fit: str | None, n: int, r: int, w: int, anchors: list[Anchor], asked: list[int]) -> list[Setup]:
    """The setup asked for, or all with published values; then the versions of each N, R, W among them."""
    table = [(fit, n, r, w)] if fit else [*((f, 3, r_, w_) for f, r_, w_, *_ in TABLE_4), *((f, n_, 1, 1) for f, n_, *_ in CURVES)]
    table = list(dict.fromkeys(table))
    timed = [setup_of(f, n_, r_, w_, anchors, asked) for f, n_, r_, w_ in table if f != VERSIONS]
    shapes = dict.fromkeys((n_, r_, w_) for _, n_, r_, w_ in table if r_ + w_ <= n_)
    counted = []
    for n_, r_, w_ in shapes:
        if comb(n_, r_) + comb(n_, w_) <= MOST_COORDINATORS:
            counted.append(Setup(fit=VERSIONS, n=n_, r=r_, w=w_))
        else:
            print(f"no k-staleness for N={n_} R={r_} W={w_}: it would take {comb(n_, r_) + comb(n_, w_)} coordinators", file=sys.stderr)
    return timed + counted


def study(given: object, anchors: list[Anchor]) -> Study:
    """What the options ask for.  Raises InputError."""
    options = vars(given)
    fit, scale = options["fit"] and options["fit"].lower(), options["scale"]
    if fit is None and any(options[name] is not None for name in "nrw"):
        raise wrong("fit", fit, "the name of a fit, where n, r or w is given")
    n, r, w = (options[name] if options[name] is not None else default for name, default in (("n", 3), ("r", 1), ("w", 1)))
    asked = [duration_us(text if not text.replace(".", "", 1).isdigit() else f"{text}ms", "t") for text in options["t"]]
    samples = options["samples"] if options["samples"] is not None else (SAMPLES_ALONE if fit else SAMPLES)[scale]
    versions = min(VERSION_SAMPLES[scale], max(1, samples))
    batches = options["seeds"] if options["seeds"] is not None else max(1, min(samples, max(2, -(-samples // BATCH))))
    made = Study(
        name="",
        setups=tuple(setups(fit, n, r, w, anchors, [t for t in asked if t])),
        samples=samples,
        version_samples=max(versions, batches),
        batches=batches,
    )
    name = {"ci": "ci-pbs-staleness", "default": "pbs-staleness", "full": "pbs-staleness-full"}[scale]
    if fit or options["samples"] is not None or options["seeds"] is not None or asked:
        name += "-" + hashlib.blake2b(msgspec.msgpack.encode(made), digest_size=4).hexdigest()
    return msgspec.structs.replace(made, name=name)


def script() -> int:
    options = parser(__doc__ or "", engine="tasks")
    options.add_argument(
        "--fit", default=None, help="lnkd-ssd, lnkd-disk, ymmr, wan, exp-M (writes Exp(mean M ms), the rest Exp(1 ms)), or another link preset"
    )
    options.add_argument("--n", type=int, default=None, help="replicas (with --fit; 3)")
    options.add_argument("--r", type=int, default=None, help="replicas that answer a read (with --fit; 1)")
    options.add_argument("--w", type=int, default=None, help="replicas that acknowledge a write (with --fit; 1)")
    options.add_argument(
        "--t", action="append", default=[], help="read so long after the commit, in ms or with a unit; repeat for more (default: the published t)"
    )
    options.add_argument("--samples", type=int, default=None, help="fresh keys for each setup (default: the scale's)")
    given = options.parse_args()
    anchors = published()
    wanted = study(given, anchors)
    wanted.validate()
    progress = Progress()
    directory = given.out or Path("results") / wanted.name
    try:
        digest, rows = run_study(wanted, anchors, directory, given.engine, given.address, progress, command_line())
    finally:
        progress.close()
    from capray.studies.pbs_report import draw

    page = draw(directory)
    report(rows, anchors, wanted, given.json)
    if given.json:
        return 0
    print(f"{len(rows)} batches, digest {digest}\nreport: {page}")
    return 0


def report(rows: list[dict[str, object]], anchors: list[Anchor], wanted: Study, as_json: bool) -> None:
    """Every measure of every setup, in the study's order."""
    place = {setup.label: i for i, setup in enumerate(wanted.setups)}
    for pool in sorted(pools(rows), key=lambda pool: place[pool.label]):
        if pool.unanswered:
            print(f"{pool.label}: {pool.unanswered} operations were not answered", file=sys.stderr)
        for line in measures(pool, anchors):
            if as_json:
                print(json.dumps(line))
            else:
                where = f" t={line['t_ms']:g}ms" if line.get("t_ms") else f" k={line['k']}" if "k" in line else ""
                said = "" if line["published"] is None else f"published {line['published']:<9g} {'within' if line['within'] else 'NOT WITHIN'}"
                print(f"{pool.label:24s} {line['measure'] + where:22s} {line['simulated']:<10.5g} [{line['low']:.5g}, {line['high']:.5g}]  {said}")


if __name__ == "__main__":
    main(script)
