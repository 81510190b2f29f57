"""How long is Raft without a leader?  Figure 16 of Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm", ATC 2014.

The members are capray's `etcd` policy under that paper's set-up (capray/policies/etcd/raft_staged.py): 5 servers, election timeouts uniform on a range,
drawn anew at each restart; heartbeats every half of the smallest timeout; 2 of the 4 survivors with shorter logs; the leader dies at a random time
between two heartbeats; no pre-vote, no check-quorum, and a higher term does not restart the election timer, as in that paper's figure 2.  Each
message takes U(2, 3) ms, and a vote the time to persist it more; messages do not wait for each other (a thread a peer).
That time is exponential, as disks vary (the fdatasync of reference/real_servers.md: median 2 ms, p99 20 ms), its mean such that the broadcast time is 15 ms.
The paper, 5.6: "the average time it takes a server to send RPCs in parallel to every server in the cluster and receive their responses", so the slowest of
four, while a candidate waits for the second of three.  (A constant 8 ms in its place, `--persist-ms 8`, lets no election of 12-24 end before 21.5 ms, where
a tenth were published to end before 19.7, and its mean comes out 7 % too high; a lognormal of that fdatasync's shape is within 5 % of all published means and 8 %
of all medians.  A candidate that waits for its own disk before it asks would double 150-155.)
One trial, one election: from the crash until a survivor hears the new leader; it ends without one after 60 s, or 2,500 of the largest timeout.  Where none
of the first 30 elections of a range ended, as at 150-150, whose members stand together for ever, no more are run: all that is told is `unfinished`.
With `--splits`, also the share of split votes among members with equal logs and a constant latency against the closed form of Ongaro's thesis, 9.2.

    python experiments/raft_elections.py --range 150-300 --trials 2000 --engine local --json
    python experiments/raft_elections.py --range 150-300 --splits 0.05 0.3 --servers 7
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from capray.errors import wrong
from capray.experiment import main, parser
from capray.studies.elections import (
    PUBLISHED,
    PUBLISHED_SERVERS,
    SPLIT_LATENCY_US,
    SPLITS,
    UNPUBLISHED,
    judged,
    judged_split,
    run_elections,
    times,
)
from capray.studies.elections_page import draw
from capray.sweep import Grid, Sweep, Variant
from capray.sweeping import command_line

TRIALS = {"ci": 1000, "default": 4000, "full": 40_000}
LIMIT_US = 60_000_000  # no election lasts longer
ROUNDS = 2500  # nor more of the largest timeout: from 24 ms on, the former comes first
LATENCY_MS, BROADCAST_MS = [2.0, 3.0], 15.0  # figure 16's


def script() -> None:
    given = options().parse_args()
    sweep = planned(given, next(count for count in (given.trials, given.seeds, TRIALS[given.scale]) if count is not None))
    directory = given.out or Path("results") / sweep.name
    digest, rows = run_elections(sweep, directory, given.engine, given.address, given.in_flight, command_line())
    found = [answer for name in ranges(given) for answer in judged(name, times(rows, name), as_published(given))]
    found += [judged_split(share, times(rows, f"split {share}")) for share in shares(given)]
    say(found, given.json)
    for name in ranges(given):
        if len(own := times(rows, name)) < sweep.seeds:
            print(f"range {name}: none of the first {len(own)} elections ended; the others were not run", file=sys.stderr)
    print(f"{len(rows)} elections, digest {digest}: {draw(directory)}", file=sys.stderr if given.json else sys.stdout)


def options() -> argparse.ArgumentParser:
    found = parser(__doc__ or "")
    found.add_argument("--range", nargs="+", default=list(PUBLISHED), help="election timeouts in ms, smallest-largest")
    found.add_argument("--trials", type=int, default=None, help="elections a range (as --seeds)")
    found.add_argument("--servers", type=int, default=PUBLISHED_SERVERS, help="half of the survivors have shorter logs; nothing is published for others than 5")
    found.add_argument("--heartbeat-ms", type=milliseconds, default=None, help="the leader's heartbeat interval (default: half of the smallest timeout)")
    found.add_argument("--latency-ms", nargs=2, type=milliseconds, default=LATENCY_MS, metavar=("LOW", "HIGH"), help="one way, uniform")
    found.add_argument("--broadcast-ms", type=milliseconds, default=None, help="mean time until every other server has answered a request for its vote "
                       f"(default: {BROADCAST_MS:g} at the default latency, and what votes take to be persisted there, at any)")
    found.add_argument("--persist-ms", type=milliseconds, default=None, help="to persist a vote, always the same, in place of what --broadcast-ms leaves (0: nothing)")
    found.add_argument("--splits", nargs="*", type=float, default=None, metavar="SHARE", help="also the share of split votes, against the closed form, where the "
                       f"latency is such a share of the width of the timeout range (without one: {' '.join(map(str, SPLITS))})")
    return found


def ranges(given: argparse.Namespace) -> list[str]:
    """The ranges asked for, each once."""
    return list(dict.fromkeys(given.range))


def shares(given: argparse.Namespace) -> list[float]:
    """The shares of split votes asked for, each once."""
    return list(dict.fromkeys(SPLITS if given.splits == [] else given.splits or ()))


def as_published(given: argparse.Namespace) -> bool:
    """Whether the set-up is figure 16's, but for what its ranges are and how long a vote takes to be persisted."""
    return (given.servers, given.latency_ms, given.broadcast_ms or BROADCAST_MS, given.heartbeat_ms) == (PUBLISHED_SERVERS, LATENCY_MS, BROADCAST_MS, None)


def milliseconds(text: str) -> float:
    """An option's value.  Raises ValueError where it is no number, or none below an hour."""
    value = float(text)
    if not -3_600_000 < value < 3_600_000:
        raise ValueError(text)
    return value


def planned(given: argparse.Namespace, trials: int) -> Sweep:
    """A variant for each range; every trial of it differs by its seed alone.  Raises InputError."""
    if trials < 2:
        raise wrong("trials", trials, "2 elections or more")
    if not 3 <= given.servers <= 99:
        raise wrong("servers", given.servers, "a whole number from 3 to 99")
    variants = [election(name, given) for name in ranges(given)] + [split_vote(share, given.servers) for share in shares(given)]
    sweep = Sweep(name="raft-elections" if given.scale != "ci" else "ci-raft-elections", seeds=trials, at_us=0, after_us=LIMIT_US,
                  grids=(Grid(nodes=(given.servers,), durations=("0s",)),), variants=tuple(variants),
                  base={"workload": {"rate": 0, "keys": 1, "deadline_us": 1}, "quiet_us": 0, "disk": "memory"})
    sweep.validate()
    return sweep


# ---- the set-up ---------------------------------------------------------------------------------------------------------------------
def election(name: str, given: argparse.Namespace) -> Variant:
    """Figure 16's members with timeouts from this range."""
    try:
        low, high = (round(milliseconds(part) * 1000) for part in name.split("-"))
    except ValueError:
        raise wrong("range", name, "smallest-largest in ms, such as 150-300") from None
    if not 2000 <= low <= high:
        raise wrong("range", name, "smallest-largest in ms, such as 150-300, the smallest 2 or more")
    near, far = (round(ms * 1000) for ms in given.latency_ms)
    if not 0 < near < far:
        raise wrong("latency-ms", given.latency_ms, "two numbers above 0, the second the larger")
    latency = {"shape": "uniform", "low_us": 0, "high_us": far - near}
    link = {"transport": "datagram", "floor_us": near, "latency": latency, "by_class": {"ack": answers(given, near, far)}}
    heartbeat = low // 2 if given.heartbeat_ms is None else round(given.heartbeat_ms * 1000)
    if not 0 < heartbeat <= low:
        raise wrong("heartbeat-ms", given.heartbeat_ms, f"more than 0, and no more than the smallest timeout, {low / 1000:g}")
    settings = {"heartbeat_interval_us": heartbeat, "heard_after_us": (far - near) // 2}
    return staged(name, "Staged", low, high, link, given.servers, settings, "" if as_published(given) else UNPUBLISHED)


def answers(given: argparse.Namespace, near: int, far: int) -> dict[str, Any]:
    """What an answer takes over the floor, `near`: to persist a vote, and the jitter of the way back.  The slowest of k exponential times is their mean times
    1 + 1/2 + ... + 1/k in the mean."""
    if given.persist_ms is not None:
        if given.persist_ms < 0:
            raise wrong("persist-ms", given.persist_ms, "0 or more")
        persist = round(given.persist_ms * 1000)
        return {"shape": "uniform", "low_us": persist, "high_us": persist + far - near}
    if given.broadcast_ms is None:
        near, far = (round(ms * 1000) for ms in LATENCY_MS)
    left = round((given.broadcast_ms or BROADCAST_MS) * 1000) - (near + far) / 2 - near
    if not 0 < left < LIMIT_US:
        raise wrong("broadcast-ms", given.broadcast_ms, f"more than a request and the least of an answer take, {((near + far) / 2 + near) / 1000:g}, and below 60000")
    return {"shape": "exponential", "mean_us": round(left / sum(1 / k for k in range(1, given.servers)))}


def split_vote(share: float, servers: int) -> Variant:
    """Members with equal logs and a constant latency, `share` of the range; the range is far above 0, so that a second round is told by its time."""
    if not 0.001 <= share <= 1:
        raise wrong("splits", share, "shares from 0.001 to 1")
    width = round(SPLIT_LATENCY_US / share)
    link = {"transport": "datagram", "latency": {"shape": "constant", "value_us": SPLIT_LATENCY_US}}
    return staged(f"split {share}", "StagedAlike", 4 * width, 5 * width, link, servers, {"heartbeat_interval_us": 2 * width})


def staged(label: str, policy: str, low: int, high: int, link: dict[str, Any], servers: int, more: dict[str, Any], note: str = "") -> Variant:
    """The leader dies when it announces that it is doomed; once there is a new one, the survivors are stopped: the trial is over.  They are stopped after ROUNDS
    timeouts, too."""
    settings = {"election_timeout_us": low, "election_timeout_max_us": high, "pre_vote": False, "check_quorum": False, "reset_timer_on_new_term": False, **more}
    faults = [{"kind": "crash-host", "at_us": 0, "on_role": "doomed", "nodes": [0]},
              {"kind": "pause", "at_us": 0, "on_role": "leader", "nodes": list(range(1, servers))}]
    if ROUNDS * high < LIMIT_US:
        faults.append({"kind": "pause", "at_us": ROUNDS * high, "nodes": list(range(1, servers))})
    return Variant(label=label, policy=f"capray.policies.etcd.raft_staged:{policy}", settings=settings, shape="none", note=note,
                   base={"link": link, "faults": faults, "trace_us": [0, LIMIT_US]})


def say(answers: list[dict[str, Any]], as_json: bool) -> None:
    for found in answers:
        if as_json:
            print(json.dumps(found))
            continue
        unfinished = f"  {found['unfinished']} of {found['trials']} never ended" if found.get("unfinished") else ""
        verdict = "within tolerance" if found["within"] else "NOT within tolerance"
        published = "" if found["published"] is None else f"  published {found['published']:.4g}: {verdict}"
        simulated, low, high = ("never" if found[name] is None else f"{found[name]:.4g}" for name in ("simulated", "low", "high"))
        print(f"{found['range']:>10} {found['measure']:>10} {simulated:>10}  [{low}, {high}]{published}{unfinished}")


if __name__ == "__main__":
    main(script)
