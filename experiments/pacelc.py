"""What does consistency cost while nothing is wrong, and what is left of it under a cut?  Latency against the network's delay, and the PACELC plane.

Two questions of each policy and setting.  First: every link takes the same constant time d, disks none, and d is swept: the slope of the median latency,
in units of d, for reads and writes, at the leader's node and elsewhere, against the number of messages in a row that the protocol needs
(capray/studies/pacelc.py counts them).  By Lipton and Sandberg (1988) a read and a write of a sequentially consistent store take one d together; what
takes less cannot be.  Second: on links of 10 ms + Exp(1 ms) the healthy medians beside the availability and the stale share during a cut of 20 s that
leaves the leader (or node 0) and one more in the minority (Abadi 2012).

`published` is the slope that the protocol's description implies, or Abadi's class; `within`: 0.1 d.

    python experiments/pacelc.py --scale ci --engine local
    python experiments/pacelc.py --policy etcd "etcd lease reads" --delay 1ms 10ms 50ms --json
"""

import json
import sys
from argparse import Namespace
from typing import Any

from capray.errors import duration_us, wrong
from capray.experiment import main, parser, run_script
from capray.studies.pacelc import AT_US, CUT, CUT_AT_US, CUT_US, HEALTHY, MARK, NODES, PATTERNS, Pattern, told
from capray.sweep import Grid, Sweep, Variant
from capray.sweeping import draw

DELAYS = {
    "ci": ("2ms", "10ms", "40ms"),
    "default": ("1ms", "2ms", "5ms", "10ms", "20ms", "50ms"),
    "full": ("1ms", "2ms", "3ms", "5ms", "7ms", "10ms", "15ms", "20ms", "30ms", "40ms", "50ms"),
}
SEEDS = {"ci": 3, "default": 8, "full": 30}
# So few operations that the median one meets no other: a ZooKeeper sync waits for proposals that are outstanding, at 20/s and 50 ms in most cases.
SLOPES: dict[str, Any] = {"disk": "memory", "quiet_us": 1_000_000, "workload": {"rate": 1, "keys": 100}, "faults": [MARK]}
PLANE: dict[str, Any] = {"link": {"floor_us": 10_000, "latency": {"shape": "exponential", "mean_us": 1000}}, "workload": {"rate": 5, "keys": 5}}
VERDICTS = {True: "", False: "  NOT within", None: "  undecided"}
LONGEST_US = 50_000  # SERIAL takes 8 d, which the clients' deadline of 1 s must bear twice


def script() -> None:
    options = parser(__doc__ or "")
    options.add_argument(
        "--policy", nargs="+", default=None, metavar="NAME", help="policies (default: all): " + "; ".join(pattern.name for pattern in PATTERNS)
    )
    options.add_argument("--delay", nargs="+", default=None, help="one-way delays, with units, two or more (default: the scale's)")
    given = options.parse_args()
    digest, rows, directory = run_script(pacelc(given), given)
    page = draw(directory)
    for line in told(list(rows)):
        if given.json:
            print(json.dumps(line))
        elif line["published"] is not None:
            value = line["simulated"] if isinstance(line["simulated"], str) or line["simulated"] is None else f"{line['simulated']:.3f}"
            print(f"{line['label']:32s} {line['measure']:20s} expected {line['published']}, measured {value}{VERDICTS[line['within']]}")
    print(f"{len(rows)} trials, digest {digest}\nreport: {page}", file=sys.stderr if given.json else sys.stdout)


def pacelc(given: Namespace) -> Sweep:
    """Each policy at every delay, healthy and cut, each a variant of its own.  Raises InputError."""
    known = [pattern.name for pattern in PATTERNS]
    for name in given.policy or ():
        if name not in known:
            raise wrong("policy", name, "one of " + "; ".join(known))
    delays = list(dict.fromkeys(given.delay or DELAYS[given.scale]))
    for delay in delays:
        if not 0 < duration_us(delay, "delay") <= LONGEST_US:
            raise wrong("delay", delay, "a duration above 0 and up to 50ms")
    if len(delays) < 2:
        raise wrong("delay", " ".join(delays), "two different delays or more")
    wanted = [pattern for pattern in PATTERNS if pattern.name in (given.policy or known)]
    sweep = Sweep(
        name="pacelc" if given.scale == "default" else f"{given.scale}-pacelc",
        variants=tuple(variant for pattern in wanted for variant in variants(pattern, delays)),
        grids=(Grid(nodes=(NODES,), durations=("0s",)),),
        seeds=SEEDS[given.scale] if given.seeds is None else given.seeds,
        at_us=AT_US,
        after_us=CUT_AT_US + CUT_US + 5_000_000 - AT_US,
        study="pacelc",
    )
    sweep.validate()
    return sweep


def variants(pattern: Pattern, delays: list[str]) -> list[Variant]:
    """A pattern at each delay, healthy, and cut."""
    slopes = [(delay, {**SLOPES, "link": {"latency": {"shape": "constant", "value_us": duration_us(delay)}}}) for delay in delays]
    cut = {"kind": "partition", "shape": "leader-minority", "at_us": CUT_AT_US, "for_us": CUT_US}
    parts = [*slopes, (HEALTHY, {**PLANE, "faults": [MARK]}), (CUT, {**PLANE, "faults": [MARK, cut]})]
    return [
        Variant(label=f"{pattern.name} | {part}", policy=pattern.policy, settings=pattern.settings, shape="none", base=base, note=pattern.why)
        for part, base in parts
    ]


if __name__ == "__main__":
    main(script)
