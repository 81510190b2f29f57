"""Probabilistically bounded staleness (Bailis et al., VLDB 2012), on the real `cassandra` policy: what is asked, when, what a batch leaves.

Decides: the cluster and the questions of one setup (fit, N, R, W), and the row of numbers that one batch of samples becomes.
May not know: what anybody published, how a figure looks, how batches are spread over processes (capray.studies.pbs_study).
Source: the paper's WARS model (section 4): a coordinator that holds no replica sends to all N; it answers a write at the W-th acknowledgement (the
commit) and a read at the R-th response; a read asked t after the commit is stale iff none of those R replicas had the write.
One fresh key a sample: it is written once, and read at t = 0 and at one later t, in turn.  No read changes anything (read repair,
hints and anti-entropy are off), and datagrams keep no order, so samples are independent of each other, and overlap freely in one trial.
The reader must ask at the very instant of the commit, on another node: no message could tell it, so one process drives the whole trial by hand.
k-staleness (section 3): replicas that a writer does not choose must never get its write.  So there is a writer for each set of W replicas and a
reader for each set of R, each a day away from all other replicas, and each request goes to one of them at random.
"""

from __future__ import annotations

from heapq import heappush
from itertools import combinations
from math import comb
from typing import Any

import msgspec

from capray.distributions import Exponential
from capray.errors import wrong
from capray.links import DISK_WRITE_FIT, LINKS, SSD_FIT, Link
from capray.record import Operation
from capray.scenario import Scenario
from capray.stats import tidy
from capray.store import Row
from capray.streams import Stream
from capray.trial import Trial
from capray.workload import Workload

VERSIONS = "k-staleness"  # the fit of setups that count versions, not time
FAR_US = 75_000  # WAN: one way to a replica that is not local
DAY_US = 86_400_000_000
SPACING_US = 100  # between the writes of a trial; it decides nothing but how many keys are under way at once
WARM_UP_US = 1_000
DEADLINE_US = 60_000_000
MOST_COORDINATORS = 60
WRITES_A_KEY = 10  # k-staleness: versions before the read
DRIVER = -2  # "node" of the driver's own events in a trial's queue: before all others of an instant
ASK_WRITE, ASK_READ = range(2)
OCTAVE = 256  # buckets for each doubling of a latency: 0.4 % wide at most
LEVELS = {1: "ONE", 2: "TWO", 3: "THREE"}


class Setup(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One line of a study.  `fit`: a link preset, `exp-M` (write messages Exp(mean M ms), all others Exp(mean 1 ms)), or `k-staleness`.
    A key is read at the commit, and again so long after it: half of the keys at the times `t_us`, in turn, half at those of the curve, `curve_us`."""

    fit: str
    n: int = 3
    r: int = 1
    w: int = 1
    t_us: tuple[int, ...] = ()
    curve_us: tuple[int, ...] = ()

    @property
    def times_us(self) -> tuple[int, ...]:
        """When the second reads come, key by key in turn."""
        if not (self.t_us and self.curve_us):
            return self.t_us or self.curve_us
        turns = len(self.t_us) * len(self.curve_us)
        return tuple(times[i % len(times)] for i in range(turns) for times in (self.t_us, self.curve_us))

    @property
    def label(self) -> str:
        """How tables and figures call it."""
        return f"{self.fit} N={self.n} R={self.r} W={self.w}"

    @property
    def counts_versions(self) -> bool:
        """Whether this setup measures versions, not time."""
        return self.fit == VERSIONS


def level(count: int, n: int, field: str) -> str:
    """Cassandra's consistency level that waits for so many of `n` replicas.  Raises InputError where there is none."""
    named = {**LEVELS, n // 2 + 1: "QUORUM", n: "ALL"}
    if not 1 <= count <= n or count not in named:
        raise wrong(field, count, "what a consistency level waits for with " + f"{n} replicas: " + ", ".join(str(c) for c in sorted(named) if c <= n))
    return named[count]


def beyond(k: int, n: int, r: int, w: int) -> float:
    """P(a read misses the newest k versions) = (C(N - W, R) / C(N, R))**k, where each write reaches exactly W replicas (section 3, equation 2)."""
    return (comb(n - w, r) / comb(n, r)) ** k


# ---- the cluster -----------------------------------------------------------------------------------------------------------------------------


def writers(setup: Setup) -> list[int]:
    """The nodes that coordinate writes: all hold no replica."""
    n = setup.n
    if setup.counts_versions:
        return list(range(n, n + comb(n, setup.w)))
    return list(range(n, 2 * n)) if setup.fit == "wan" else [n]


def readers(setup: Setup) -> list[int]:
    """The nodes that coordinate reads.  On the WAN one stands beside each replica, for writes and reads alike, so that each request has a local
    replica drawn at random, apart for the write and for the read."""
    first = writers(setup)[-1] + 1
    if setup.counts_versions:
        return list(range(first, first + comb(setup.n, setup.r)))
    return writers(setup) if setup.fit == "wan" else [first]


def link_of(setup: Setup) -> Link:
    """The network of a setup, as datagrams.  Raises InputError for an unknown fit."""
    if setup.counts_versions:
        return Link(floor_us=1_000, regions=_chosen_alone(setup), transport="datagram")
    if setup.fit == "wan":
        apart = tuple(tuple(0 if a == b else FAR_US for b in range(setup.n)) for a in range(setup.n))
        return Link(latency=SSD_FIT, by_class={"write": DISK_WRITE_FIT}, regions=apart, transport="datagram")
    if setup.fit.startswith("exp-"):
        return Link(latency=Exponential(1_000), by_class={"write": Exponential(_mean_us(setup.fit))}, transport="datagram")
    if setup.fit not in LINKS:
        raise wrong("fit", setup.fit, "one of " + ", ".join(LINKS) + ", or exp-M for a mean of M ms of write messages (exp-0.25, exp-10)")
    return msgspec.structs.replace(LINKS[setup.fit], transport="datagram")


def _mean_us(fit: str) -> int:
    try:
        mean_us = round(float(fit.removeprefix("exp-")) * 1_000)
    except (ValueError, OverflowError):
        mean_us = 0
    if not 1 <= mean_us <= 1_000_000:
        raise wrong("fit", fit, "exp-M with M from 0.001 to 1000 ms")
    return mean_us


def _chosen_alone(setup: Setup) -> tuple[tuple[int, ...], ...]:
    """k-staleness: each coordinator reaches its own set of replicas; all others are a day away, past the end of the trial."""
    n = setup.n
    sets = [*combinations(range(n), setup.w), *combinations(range(n), setup.r)]
    count = n + len(sets)
    near = {(i, n + j) for j, chosen in enumerate(sets) for i in chosen}
    return tuple(
        tuple(0 if a == b or (min(a, b), max(a, b)) in near or max(a, b) < n or min(a, b) >= n else DAY_US for b in range(count))
        for a in range(count)
    )


def scenario_of(setup: Setup) -> Scenario:
    """The scenario of a setup: the real policy with everything off that the model leaves out.  Raises InputError."""
    if not 1 <= setup.n <= 100:
        raise wrong("n", setup.n, "a number of replicas from 1 to 100")
    settings: dict[str, Any] = {
        "read_consistency": level(setup.r, setup.n, "r"),
        "write_consistency": level(setup.w, setup.n, "w"),
        "replication_factor": setup.n,
        "reads_sent_to": "all",
        "read_repair": "none",
        "hinted_handoff": False,
        "speculative_retry": "never",
        "dynamic_snitch": False,
        "partitioner": "key_number",
        "read_request_timeout_us": DEADLINE_US,
        "write_request_timeout_us": DEADLINE_US,
        "internode_timeout": False,
        "stage_latency_us": 0,
        "local_stage_latency_us": 0,  # draws that only the dynamic snitch would see
        "coordinator_only": len({*writers(setup), *readers(setup)}),
    }
    if setup.counts_versions and settings["coordinator_only"] > MOST_COORDINATORS:
        raise wrong("n", setup.n, f"for k-staleness, a number with at most {MOST_COORDINATORS} sets of W and of R replicas")
    if any(not 0 < t <= DEADLINE_US for t in setup.times_us):
        raise wrong("t", list(setup.times_us), f"times above 0 and up to {DEADLINE_US // 1_000_000} s")
    return Scenario(
        policy="cassandra",
        settings=settings,
        nodes=setup.n + settings["coordinator_only"],
        link=link_of(setup),
        disk="memory",
        workload=Workload(rate=0, keys=1, deadline_us=2 * DEADLINE_US),
        duration_us=4 * 3_600_000_000,
    ).resolved()


# ---- one batch: a trial driven by hand ---------------------------------------------------------------------------------------------------------


class Batch:
    """One trial's samples.  Keys are k1, k2, ...; a key's value is its number (k-staleness: and its version)."""

    def __init__(self, setup: Setup, samples: int, seed: int) -> None:
        self.setup = setup
        self.samples = samples
        self.trial = Trial(scenario_of(setup), seed)
        self.stream = Stream(seed, "pbs", setup.n, setup.r, setup.w)
        self.writers, self.readers = writers(setup), readers(setup)
        self.writes_a_key = WRITES_A_KEY if setup.counts_versions else 1
        self.times = setup.times_us
        self.left = samples * (self.writes_a_key + (2 if self.times else 1))  # operations not yet over
        self.asked = 0  # entries pushed
        self.written = [0] * (samples + 1)
        self.seen = [0] * len(self.trial.nodes)  # finished operations of each node that were looked at
        self.committed = [0] * (samples + 1)
        self.fresh: dict[int, list[int]] = {t: [0, 0] for t in sorted({0, *self.times})}  # t -> [fresh, asked]
        self.behind = [0] * (self.writes_a_key + 1)  # reads that were so many versions behind
        self.latencies: dict[str, dict[int, int]] = {"read": {}, "write": {}}  # bucket -> count
        self.unanswered = 0

    def run(self) -> None:
        """Play the trial until every operation is over."""
        take, nodes, network, first = self.trial.take, self.trial.nodes, self.trial.network, self.setup.n
        self._later(WARM_UP_US, ASK_WRITE, 1)
        while self.left:
            event = take()
            node = event[1]
            if node >= first:
                nodes[node].handle(event)
                done = nodes[node].client.history
                while len(done) > self.seen[node]:
                    operation = done[self.seen[node]]
                    self.seen[node] += 1
                    self._over(event[0], operation)
            elif node >= 0:
                nodes[node].handle(event)
            elif node == DRIVER:
                self._ask(event[0], event[3], event[4])
            else:
                network.happen(event)
            self.trial.now = event[0]

    def _later(self, at: int, what: int, key: int) -> None:
        self.asked += 1
        heappush(self.trial.queue, (at, DRIVER, self.asked, what, key))

    def _ask(self, t: int, what: int, key: int) -> None:
        if what == ASK_READ:
            self._read(t, key)
            return
        self._write(t, key)
        if key < self.samples:
            self._later(t + SPACING_US, ASK_WRITE, key + 1)

    def _one_of(self, nodes: list[int]) -> int:
        return nodes[0] if len(nodes) == 1 else nodes[self.stream.below(len(nodes))]

    def _read(self, t: int, key: int) -> None:
        self.trial.nodes[self._one_of(self.readers)].call(t, "read", f"k{key}", None)

    def _write(self, t: int, key: int) -> None:
        """The key's next version: its value is 1 + (key - 1) * writes_a_key + version."""
        value = 1 + (key - 1) * self.writes_a_key + self.written[key]
        self.written[key] += 1
        self.trial.nodes[self._one_of(self.writers)].call(t, "write", f"k{key}", value)

    def _over(self, t: int, operation: Operation) -> None:
        """An operation has ended at `t`."""
        self.left -= 1
        key = int(str(operation.key)[1:])
        if operation.type != "ok":
            self.unanswered += 1
        if operation.f == "write":
            if operation.type == "ok":
                self._count(t - operation.invoke, "write")
            self._committed(t, key)
        elif operation.type == "ok":
            self._count(t - operation.invoke, "read")
            if self.setup.counts_versions:
                newest = key * self.writes_a_key
                self.behind[self.writes_a_key if operation.result is None else newest - operation.result] += 1
            else:
                found = self.fresh[operation.invoke - self.committed[key]]
                found[0] += operation.result is not None
                found[1] += 1

    def _committed(self, t: int, key: int) -> None:
        """A write is answered: the next version, or the reads."""
        if self.written[key] < self.writes_a_key:
            self._write(t, key)
            return
        self.committed[key] = t
        self._read(t, key)
        if self.times:
            self._later(t + self.times[key % len(self.times)], ASK_READ, key)

    def _count(self, latency_us: int, kind: str) -> None:
        at = bucket(latency_us)
        counts = self.latencies[kind]
        counts[at] = counts.get(at, 0) + 1

    def row(self, seed: int) -> Row:
        """The batch's row: counts from which a study's numbers follow exactly, and this batch's own numbers beside them."""
        scenario = self.trial.scenario
        record = self.trial.record(self.trial.now)
        setup = self.setup
        out: Row = {
            "key": f"{setup.label}|{scenario.nodes}|0s|{seed:06d}",
            "label": setup.label,
            "policy": "cassandra",
            "shape": "none",
            "nodes": scenario.nodes,
            "duration": "0s",
            "duration_us": 0,
            "seed": seed,
            "scenario": scenario.digest(),
            "record": record.digest(),
            "fit": setup.fit,
            "n": setup.n,
            "r": setup.r,
            "w": setup.w,
            "samples": self.samples,
            "unanswered": self.unanswered,
            "messages": record.counters["messages"],
        }
        if setup.counts_versions:
            return {
                **out,
                "behind": list(self.behind),
                **{f"p_within_{k}": tidy(sum(self.behind[:k]) / self.samples) for k in range(1, self.writes_a_key + 1)},
            }
        out["t_us"] = list(setup.t_us)
        out["fresh"] = [[t, good, asked] for t, (good, asked) in self.fresh.items() if asked]
        out["p_fresh_0"] = tidy(self.fresh[0][0] / self.fresh[0][1]) if self.fresh[0][1] else None
        for kind, counts in self.latencies.items():
            found = sorted(counts.items())
            out[f"{kind}_latencies"] = [[at, count] for at, count in found]
            out.update({f"{kind}_p{name}_us": tidy(quantile(found, share)) if found else None for name, share in QUANTILES})
        return out


QUANTILES = (("50", 0.5), ("99", 0.99), ("999", 0.999))


def batch_row(setup: Setup, samples: int, seed: int) -> Row:
    """Run one batch: `samples` fresh keys under one seed."""
    batch = Batch(setup, samples, seed)
    batch.run()
    return batch.row(seed)


# ---- latencies, counted in buckets (after HdrHistogram: OCTAVE for each doubling) -----------------------------------------------------------------


def bucket(latency_us: int) -> int:
    """The bucket of a latency: itself below OCTAVE, then OCTAVE buckets for each doubling."""
    if latency_us < OCTAVE:
        return latency_us
    shift = latency_us.bit_length() - OCTAVE.bit_length()
    return shift * OCTAVE + (latency_us >> shift)


def bounds(at: int) -> tuple[int, int]:
    """The smallest latency of a bucket, and the smallest of the next one, microseconds."""
    shift = max(0, at // OCTAVE - 1)
    mantissa = at - shift * OCTAVE
    return mantissa << shift, (mantissa + 1) << shift


def quantile(counts: list[tuple[int, int]], share: float) -> float:
    """The quantile of counted latencies, microseconds: linear within its bucket.  `counts` is sorted by bucket, and not empty."""
    wanted = share * sum(count for _, count in counts)
    reached = 0
    for at, count in counts:
        if reached + count >= wanted:
            low, high = bounds(at)
            return low + (high - low) * max(0.0, wanted - reached) / count
        reached += count
    return float(bounds(counts[-1][0])[1])
