"""Apache Cassandra 5.0's DynamicEndpointSnitch, and the latency percentile behind its speculative retry.

Decides: in which order a coordinator asks replicas, and after how long it asks one more.
May not know: who is alive, keys, messages.  It sees a peer only through the latencies that the coordinator measured.
Sources: locator.DynamicEndpointSnitch (scores: median over the worst median, updated each 100 ms; badness threshold), codahale
ExponentiallyDecayingReservoir(100, 0.75), metrics.DecayingEstimatedHistogramReservoir (buckets of factor 1.2, half-life 60 s),
schema.speculativeRetry's 99p, ColumnFamilyStore.updateSpeculationThreshold (each read timeout, 5 s).
Integers only: e**(0.75 t) is 2**(t / half-life) with half-life ln 2 / 0.75 s = 924,196 us, through a table of 64 steps; t is in whole
seconds of the clock, as the reservoir has it, so samples of one second weigh alike.
Simplified: the weighted median is over all samples, where the real reservoir draws by priority which 100 of them stand for all.
"""

from __future__ import annotations

from bisect import bisect_left

HALF_LIFE_US = 924_196  # ln 2 / DynamicEndpointSnitch.ALPHA, in microseconds


def _isqrt_chain(steps: int, scale: int) -> tuple[int, ...]:
    """scale * 2**(-i / steps) for i in 0..steps-1 (steps a power of two), rounded down, by repeated integer square roots."""
    table = [scale]
    count = 1
    while count < steps:
        finer = []
        for index, value in enumerate(table):
            following = table[index + 1] if index + 1 < count else scale // 2
            finer += [value, _isqrt(value * following)]
        table, count = finer, count * 2
    return tuple(table)


def _isqrt(n: int) -> int:
    """The integer square root, by Newton's method from above."""
    x = 1 << ((n.bit_length() + 1) // 2)
    while True:
        y = (x + n // x) // 2
        if y >= x:
            return x
        x = y


STEPS = 64
GROWTH = tuple((1 << 80) // fall for fall in _isqrt_chain(STEPS, 1 << 40))  # 2**40 * 2**(i / 64)
RESCALE_AT = 64  # half-lives


class Reservoir:
    """One replica's latencies in whole milliseconds; a sample weighs e**(0.75 t), t the whole seconds of the clock when it came."""

    __slots__ = ("base", "changed", "weights")

    def __init__(self) -> None:
        self.weights: dict[int, int] = {}  # milliseconds -> weight of all samples of that latency
        self.base = -1  # the half-life at which a weight is 2**40
        self.changed = False

    def add(self, at: int, milliseconds: int) -> None:
        """A latency measured at `at` (microseconds)."""
        whole, step = divmod((at - at % 1_000_000) * STEPS // HALF_LIFE_US, STEPS)
        if self.base < 0:
            self.base = whole
        if whole - self.base > RESCALE_AT:
            shift = whole - self.base
            self.weights = {value: weight >> shift for value, weight in self.weights.items() if weight >> shift}
            self.base = whole
        self.weights[milliseconds] = self.weights.get(milliseconds, 0) + (GROWTH[step] << max(0, whole - self.base))
        self.changed = True

    def median(self) -> int:
        """The weighted median (WeightedSnapshot: the first value with more than half of the weight at or below it)."""
        self.changed = False
        if len(self.weights) == 1:
            return next(iter(self.weights))
        half = sum(self.weights.values())
        reached = 0
        for value in sorted(self.weights):
            reached += 2 * self.weights[value]
            if reached > half:
                return value
        return max(self.weights)


class DynamicSnitch:
    """Sorts replicas by how they answered.  Scores change at multiples of `update_us` only; all samples go at multiples of `reset_us`."""

    def __init__(
        self, node: int, nearest_first: bool, enabled: bool, update_us: int, reset_us: int, badness_percent: int, phase_us: int, reset_phase_us: int = 0
    ) -> None:
        """nearest_first: the snitch below puts the coordinator itself first, then its data centre (GossipingPropertyFileSnitch);
        otherwise it keeps the ring's order (SimpleSnitch).  The phases say how long ago the last update and the last reset were due."""
        self.node = node
        self.nearest_first = nearest_first
        self.enabled = enabled
        self.update_us = update_us
        self.reset_us = reset_us
        self.badness_percent = badness_percent
        self.phase_us = phase_us
        self.reset_phase_us = reset_phase_us
        self.reservoirs: dict[int, Reservoir] = {}
        self.scores: dict[int, int] = {}  # medians in milliseconds: all are divided by the same maximum, which changes no order
        self.slot = 0
        self.epoch = 0
        self.changed = False

    def sample(self, now: int, peer: int, milliseconds: int) -> None:
        """The peer answered a read after so long, or did not within it."""
        if self.enabled:
            self._tick(now)
            reservoir = self.reservoirs.get(peer)
            if reservoir is None:
                reservoir = self.reservoirs[peer] = Reservoir()
            reservoir.add(now, milliseconds)
            self.changed = True

    def _tick(self, now: int) -> None:
        """Catch up with the updates that were due: between two samples all of them compute the same."""
        slot = (now + self.phase_us) // self.update_us
        if slot != self.slot:
            self.slot = slot
            if self.changed:
                for peer, reservoir in self.reservoirs.items():
                    if reservoir.changed:
                        self.scores[peer] = reservoir.median()
                self.changed = False
        epoch = (now + self.reset_phase_us) // self.reset_us
        if epoch != self.epoch:
            self.epoch = epoch
            self.reservoirs.clear()
            self.scores.clear()

    def order(self, now: int, replicas: list[int], distance: dict[int, int] | None = None) -> list[int]:
        """The replicas, best first.  Order by score only if some replica is worse, by more than the badness threshold, than the one that
        the scores would put in its place.  `distance` is the proximity that the snitch below goes by (0 near), if it does."""
        if len(replicas) < 2:
            return replicas
        if self.nearest_first:
            near = distance or {}
            replicas = sorted(replicas, key=lambda n: -1 if n == self.node else near.get(n, 0))
        if not self.enabled:
            return replicas
        self._tick(now)
        scores = self.scores
        values = [scores.get(n, 0) for n in replicas]
        for value, best in zip(values, sorted(values), strict=True):
            if value * 100 > best * (100 + self.badness_percent):
                return sorted(replicas, key=lambda n: scores.get(n, 0))
        return replicas


def _offsets() -> tuple[int, ...]:
    """EstimatedHistogram's bucket bounds, here in microseconds: each 1.2 times the one before, at least one more."""
    bounds = [1]
    while bounds[-1] < 100_000_000_000:
        bounds.append(max(bounds[-1] + 1, (bounds[-1] * 12 + 5) // 10))
    return tuple(bounds)


OFFSETS = _offsets()
LANDMARK_RESET_US = 1_800_000_000  # DecayingEstimatedHistogramReservoir.LANDMARK_RESET_INTERVAL: 30 min


class LatencyPercentile:
    """The 99th percentile of recent latencies, refreshed each `update_us`; what a coordinator waits before it asks one more replica."""

    def __init__(self, initial_us: int, update_us: int, phase_us: int) -> None:
        self.value_us = initial_us
        self.update_us = update_us
        self.phase_us = phase_us
        self.buckets = [0] * (len(OFFSETS) + 1)
        self.total = 0
        self.landmark = 0
        self.slot = 0

    def add(self, now: int, latency_us: int) -> None:
        """An operation took so long, answered or not."""
        self._tick(now)
        age = now - self.landmark
        if age > LANDMARK_RESET_US:
            self._rescale(now)
            age = 0
        step = max(0, age) * 64 // 60_000_000  # the half-life is a minute, so a weight doubles in one
        weight = ((GROWTH[step % 64] << (step // 64)) + (1 << 39)) >> 40
        self.buckets[bisect_left(OFFSETS, latency_us)] += weight
        self.total += weight

    def past(self, age_us: int, counts: dict[int, int]) -> None:
        """Latencies (microseconds -> how many) measured `age_us` before the clock's start."""
        self.landmark = -age_us
        for latency_us, count in counts.items():
            self.buckets[bisect_left(OFFSETS, latency_us)] += count
            self.total += count

    def _rescale(self, now: int) -> None:
        """Old weights are divided by what a weight has grown to, 2**(minutes since the landmark)."""
        halvings = (now - self.landmark) // 60_000_000
        self.buckets = [(count + (1 << halvings >> 1)) >> halvings for count in self.buckets]
        self.total = sum(self.buckets)
        self.landmark = now

    def _tick(self, now: int) -> None:
        slot = (now + self.phase_us) // self.update_us
        if slot != self.slot:
            self.slot = slot
            if self.total:
                self.value_us = self._percentile()

    def _percentile(self) -> int:
        """getValue(0.99): the bound of the bucket in which 99 % of the weight is reached."""
        wanted = -(-self.total * 99 // 100)
        reached = 0
        for index, count in enumerate(self.buckets):
            reached += count
            if reached >= wanted:
                return OFFSETS[min(index, len(OFFSETS) - 1)]
        return OFFSETS[-1]

    def threshold(self, now: int) -> int:
        """Microseconds to wait, as of the last refresh."""
        self._tick(now)
        return self.value_us
