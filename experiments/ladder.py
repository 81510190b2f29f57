"""Which consistency does each policy and setting reach, healthy and under every kind of fault; and is it what its documentation promises?

Every policy with the settings that change its guarantees (capray/studies/ladder_claims.py) meets every fault: cuts of all shapes, crashes, pauses, slow
nodes, skewed and drifting clocks, and several at once.  Five nodes, two keys, 10 operations a second and node on links of 0.5 ms + Exp(2 ms), so that
operations on a key contend.  Each history is judged level by level: linearizable, sequential, causal, causal consistency, PRAM, the session guarantees,
regular (capray/studies/ladder.py).  A cell of the table holds the strongest level that held in EVERY trial.  A violation is a proof, and its trial can be
replayed; that a level held says only that so many trials did not break it.

`published` is the level that the system's documentation promises under that fault, with its source in the report; `within` is false where a trial broke
it or lost an acknowledged write that it promises to keep, null where the checkers' budget left it open, else true.  `low` and `high` are the weakest and
the strongest level that single trials reached.

    python experiments/ladder.py --scale ci --engine local
    python experiments/ladder.py --policy "etcd lease reads" etcd --fault "leader alone" none --seeds 20 --json
"""

import json
import sys
from argparse import Namespace

from capray.errors import wrong
from capray.experiment import main, parser, run_script
from capray.studies.ladder_claims import AT_US, CI_FAULTS, CI_RUNGS, FAULTS, LINK, LOAD_US, NODES, RUNGS, WORKLOAD, FaultColumn, Rung
from capray.studies.ladder_table import cells
from capray.sweep import Grid, Sweep, Variant
from capray.sweeping import draw

SEEDS = {"ci": 2, "default": 6, "full": 40}
QUIET_US = 8_000_000  # beyond the TCP back-off after a cut of 8 s


def script() -> None:
    options = parser(__doc__ or "")
    options.add_argument(
        "--policy", nargs="+", default=None, metavar="NAME", help="lines of the table (default: the scale's): " + "; ".join(rung.name for rung in RUNGS)
    )
    options.add_argument(
        "--fault", nargs="+", default=None, metavar="NAME", help="columns of the table (default: the scale's): " + "; ".join(fault.name for fault in FAULTS)
    )
    given = options.parse_args()
    digest, rows, directory = run_script(ladder(given), given)
    page = draw(directory)
    for cell in cells(rows):
        if given.json:
            print(json.dumps(cell.as_json()))
        elif cell.within is not True:
            print(f"{cell.rung.name}, {cell.fault.name}: promised {cell.claim.words}, measured {cell.level} in {len(cell.rows)} trials: {cell.verdict}")
    print(f"{len(rows)} trials, digest {digest}\nreport: {page}", file=sys.stderr if given.json else sys.stdout)


def ladder(given: Namespace) -> Sweep:
    """Every line with every column, each a variant of its own.  Raises InputError."""
    rungs = chosen("policy", given.policy, [rung.name for rung in RUNGS], CI_RUNGS if given.scale == "ci" else None)
    faults = chosen("fault", given.fault, [fault.name for fault in FAULTS], CI_FAULTS if given.scale == "ci" else None)
    sweep = Sweep(
        name="ladder" if given.scale == "default" else f"{given.scale}-ladder",
        variants=tuple(variant(rung, fault) for rung in RUNGS if rung.name in rungs for fault in FAULTS if fault.name in faults),
        grids=(Grid(nodes=(NODES,), durations=("0s",)),),
        seeds=SEEDS[given.scale] if given.seeds is None else given.seeds,
        at_us=AT_US,
        after_us=LOAD_US - AT_US,
        base={"link": LINK, "quiet_us": QUIET_US, "workload": WORKLOAD},
        study="ladder",
    )
    sweep.validate()
    return sweep


def chosen(field: str, names: list[str] | None, known: list[str], default: tuple[str, ...] | None) -> list[str]:
    """Names of a table's entries: those asked for, else the scale's, else all.  Raises InputError for an unknown one."""
    for name in names or ():
        if name not in known:
            raise wrong(field, name, "one of " + "; ".join(known))
    return names or list(default or known)


def variant(rung: Rung, fault: FaultColumn) -> Variant:
    """One cell: a policy with its settings, and what its clients ask, under a fault."""
    base = {**fault.base, "workload": {**WORKLOAD, **rung.workload}} if rung.workload else fault.base
    return Variant(label=f"{rung.name} | {fault.name}", policy=rung.policy, settings=rung.settings, shape="none", base=base, note=fault.words)


if __name__ == "__main__":
    main(script)
