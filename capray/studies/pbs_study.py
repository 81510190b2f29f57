"""A study of probabilistically bounded staleness: setups x batches, run in this process or on Ray, pooled, and held against what was published.

Decides: which batches a study has, what its rows add up to, what counts as agreeing.  May not know: how a batch is played, what is published.
Samples are independent of each other (capray.studies.pbs), so intervals here are over samples: Wilson's for shares, order statistics for quantiles (the ranks n
q +- z sqrt(n q (1 - q))).  `low` and `high` are the 95 % interval.  `within`: the 99.9 % interval (of quantiles by exact ranks) meets the accepted range, so
that with few samples only what is told apart from the published value is called different (99.9, since a study makes some 150 such comparisons); at 2 million
samples the interval adds next to nothing to the range.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import scipy

from capray import __version__
from capray.engines import ENGINES
from capray.errors import wrong
from capray.stats import Z, tidy
from capray.store import FORMAT, Results, Row, in_order
from capray.studies.pbs import VERSIONS, Setup, batch_row, beyond, quantile, scenario_of
from capray.sweep import Progress

KIND = "pbs"
REPORTED = (("p50", 0.5), ("p99", 0.99), ("p999", 0.999))
VERSIONS_BACK = (1, 2, 3, 5, 10)
SURE_Z = 3.290526731491926  # the standard normal's 99.95 % point
SURE_TAIL = 0.0005
CLOSED_FORM = "closed form, Bailis et al., VLDB 2012, equation 2"


class Study(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What to measure: `samples` fresh keys for each setup (`version_samples` where it counts versions), split over `batches` seeds."""

    name: str
    setups: tuple[Setup, ...]
    samples: int
    version_samples: int
    batches: int
    first_seed: int = 0

    def validate(self) -> None:
        """Refuse what cannot be run.  Raises InputError."""
        if not self.setups:
            raise wrong("setups", self.name, "at least one setup")
        for name, value in (("samples", self.samples), ("version_samples", self.version_samples)):
            if not self.batches <= value <= 1_000_000_000:
                raise wrong(name, value, f"a whole number from {self.batches} (one for each batch) to 1000000000")
        if not 1 <= self.batches <= 1_000_000:
            raise wrong("seeds", self.batches, "a whole number from 1 to 1000000")
        for setup in self.setups:
            scenario_of(setup)

    def jobs(self) -> list[Job]:
        """Every batch: setup, number of samples, seed."""
        out = []
        for setup in self.setups:
            share, rest = divmod(self.version_samples if setup.counts_versions else self.samples, self.batches)
            out += [Job(setup, share + (i < rest), self.first_seed + i) for i in range(self.batches)]
        return out


class Job(NamedTuple):
    """One batch to run."""

    setup: Setup
    samples: int
    seed: int


class Anchor(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A published value of `measure` (at `at`: microseconds after the commit, or versions) in setup `label`; `low` to `high` agrees with it."""

    label: str
    measure: str
    value: float
    low: float
    high: float
    source: str
    at: int | None = None


# ---- running -----------------------------------------------------------------------------------------------------------------------------------


def run_jobs(jobs: Iterable[Job], engine: str, address: str | None = None) -> Iterator[Row]:
    """The rows of batches, as they end.  A batch is whole in one process on every engine (see capray.studies.pbs): `tasks` and `actors` both spread
    batches over Ray's workers.  Raises InputError for an unknown engine."""
    if engine not in ENGINES:
        raise wrong("engine", engine, "one of " + ", ".join(ENGINES))
    if engine == "local":
        for job in jobs:
            yield batch_row(*job)
        return
    import ray

    from capray.raycluster import start_ray

    start_ray(address)
    remote = ray.remote(num_cpus=1)(batch_row)
    queue = deque(jobs)
    limit = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
    running: list[Any] = []
    while queue or running:
        while queue and len(running) < limit:
            running.append(remote.remote(*queue.popleft()))
        ready, running = ray.wait(running, num_returns=1)
        yield from ray.get(ready)


def key_of(job: Job) -> str:
    """The key of a batch's row."""
    return f"{job.setup.label}|{scenario_of(job.setup).nodes}|0s|{job.seed:06d}"


def run_study(
    study: Study, anchors: list[Anchor], directory: Path, engine: str, address: str | None = None, progress: Progress | None = None, command: str = ""
) -> tuple[str, list[Row]]:
    """Run what is not yet there, append each finished batch at once, write the table.  Returns (digest, rows in their order)."""
    study.validate()
    manifest = {
        "format": FORMAT,
        "kind": KIND,
        "name": study.name,
        "version": __version__,
        "engine": engine,
        "command": command,
        "spec": msgspec.to_builtins(study),
        "published": msgspec.to_builtins(anchors),
        "digest": "",
        "trials": 0,
    }
    results = Results(directory)
    jobs = study.jobs()
    with results.writing(manifest) as rows:
        done = {row["key"] for row in rows}
        messages = 0
        if progress:
            progress(len(rows), len(jobs), 0, None)
        for row in run_jobs([job for job in jobs if key_of(job) not in done], engine, address):
            results.append(row)
            rows.append(row)
            messages += row["messages"]
            if progress:
                progress(len(rows), len(jobs), messages, row)
        return results.finish(manifest, rows), in_order(rows)


def rerun(manifest: dict[str, Any], engine: str, address: str | None) -> list[Row]:
    """The rows of a study's manifest, computed anew (for `capray reproduce`)."""
    return list(run_jobs(msgspec.convert(manifest["spec"], Study).jobs(), engine, address))


# ---- what the rows add up to -------------------------------------------------------------------------------------------------------------------


class Found(NamedTuple):
    """One measured value from `samples` samples; `low` to `high` is its 95 % interval, `least` to `most` its 99.9 % interval."""

    value: float
    low: float
    high: float
    samples: int
    least: float
    most: float


class Pool:
    """All batches of one setup together."""

    def __init__(self, rows: list[Row]) -> None:
        self.label: str = rows[0]["label"]
        self.fit: str = rows[0]["fit"]
        self.shape: tuple[int, int, int] = (rows[0]["n"], rows[0]["r"], rows[0]["w"])
        self.samples = sum(row["samples"] for row in rows)
        self.t_us: list[int] = rows[0].get("t_us", [])
        self.unanswered = sum(row["unanswered"] for row in rows)
        self.fresh: dict[int, list[int]] = {}
        self.latencies: dict[str, list[tuple[int, int]]] = {}
        self.behind: list[int] = []
        for row in rows:
            for t, good, asked in row.get("fresh", []):
                total = self.fresh.setdefault(t, [0, 0])
                total[0] += good
                total[1] += asked
            if "behind" in row:
                self.behind = [a + b for a, b in zip(self.behind or [0] * len(row["behind"]), row["behind"])]
        for kind in ("read", "write"):
            counts: dict[int, int] = {}
            for row in rows:
                for at, count in row.get(f"{kind}_latencies", []):
                    counts[at] = counts.get(at, 0) + count
            if counts:
                self.latencies[kind] = sorted(counts.items())

    def fresh_at(self, t_us: int) -> Found:
        """P(fresh) of reads asked `t_us` after the commit."""
        good, asked = self.fresh[t_us]
        return _share(good, asked)

    def within(self, k: int) -> Found:
        """P(a read returns one of the newest k versions)."""
        return _share(sum(self.behind[:k]), sum(self.behind))

    def latency_ms(self, kind: str, share: float) -> Found:
        """A quantile of the latency of `read` or `write`, milliseconds."""
        counts = self.latencies[kind]
        n = sum(count for _, count in counts)
        deviation = math.sqrt(share * (1 - share) / n)
        at, low, high = (tidy(quantile(counts, min(1.0, max(0.0, share + z * deviation))) / 1000) for z in (0, -Z, Z))
        return Found(at, low, high, n, *_sure(counts, n, share))


def _sure(counts: list[tuple[int, int]], n: int, share: float) -> tuple[float, float]:
    """The 99.9 % interval of a quantile, ms, by the exact ranks: how many of n samples lie above it is binomial.  Of 3,000 samples none lies above
    their 99.9th percentile once in twenty times, so then they bound it on one side only."""
    most_above = int(scipy.stats.binom.isf(SURE_TAIL, n, 1 - share)) + 1
    fewest_above = int(scipy.stats.binom.ppf(SURE_TAIL, n, 1 - share))
    least = quantile(counts, 1 - (most_above - 0.5) / n) / 1000 if most_above <= n else 0.0
    return tidy(least), tidy(quantile(counts, 1 - (fewest_above - 0.5) / n) / 1000) if fewest_above else math.inf


def _share(good: int, asked: int) -> Found:
    return Found(tidy(good / asked), *_wilson(good, asked, Z), asked, *_wilson(good, asked, SURE_Z))


def _wilson(good: int, asked: int, z: float) -> tuple[float, float]:
    """Wilson's interval of a share, at any confidence (capray.stats has the one of 95 %)."""
    share, square = good / asked, z * z / asked
    centre = (share + square / 2) / (1 + square)
    half = z / (1 + square) * math.sqrt(share * (1 - share) / asked + square / asked / 4)
    return tidy(max(0.0, centre - half)) if good else 0.0, tidy(min(1.0, centre + half)) if good < asked else 1.0


def pools(rows: Iterable[Row]) -> list[Pool]:
    """The batches of each setup pooled, in the order in which the setups come."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["label"], []).append(row)
    return [Pool(group) for group in found.values()]


def measures(pool: Pool, anchors: Iterable[Anchor]) -> list[dict[str, Any]]:
    """A setup's measures, one dict each, beside what was published (null where nobody did).  Times in milliseconds, but `at` of anchors."""
    known = {(anchor.measure, anchor.at): anchor for anchor in anchors if anchor.label == pool.label}
    out = []
    if pool.fit == VERSIONS:
        for k in VERSIONS_BACK:
            if k < len(pool.behind):
                exact = 1 - beyond(k, *pool.shape)
                form = Anchor(
                    label=pool.label, measure="p_within_k", at=k, value=tidy(exact), low=exact - 0.005, high=exact + 0.005, source=CLOSED_FORM
                )
                out.append(_line(pool, "p_within_k", pool.within(k), form, {"k": k}))
        return out
    out.append(_line(pool, "p_fresh_0", pool.fresh_at(0), known.get(("p_fresh_0", None)), {"t_ms": 0.0}))
    for t in sorted(pool.fresh):
        if t:
            out.append(
                _line(pool, "p_fresh_t" if t in pool.t_us else "p_fresh_curve", pool.fresh_at(t), known.get(("p_fresh_t", t)), {"t_ms": t / 1000})
            )
    for kind in ("read", "write"):
        for name, share in REPORTED:
            out.append(_line(pool, f"{kind}_{name}_ms", pool.latency_ms(kind, share), known.get((f"{kind}_{name}_ms", None)), {}))
    return out


def _line(pool: Pool, measure: str, found: Found, anchor: Anchor | None, where: dict[str, Any]) -> dict[str, Any]:
    n, r, w = pool.shape
    return {
        "measure": measure,
        "published": None if anchor is None else anchor.value,
        "simulated": found.value,
        "low": found.low,
        "high": found.high,
        "within": None if anchor is None else found.least <= anchor.high and found.most >= anchor.low,
        "fit": pool.fit,
        "n": n,
        "r": r,
        "w": w,
        **where,
        "samples": found.samples,
        "accepted": None if anchor is None else [tidy(anchor.low), tidy(anchor.high)],
        "source": None if anchor is None else anchor.source,
    }
