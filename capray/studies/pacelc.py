"""What consistency costs while nothing is wrong, and what is left when the network is cut: the trials of experiments/pacelc.py and what they are held against.

Decides: the policies and settings, the latencies that their message patterns imply, a trial's row, slopes, and PACELC classes.  May not know: pages,
engines.
Sources: Abadi, "Consistency tradeoffs in modern distributed database system design", IEEE Computer 2012 (PACELC: if there is a partition, availability or
consistency; else, latency or consistency); Kleppmann, "A critique of the CAP theorem", 2015 (delay sensitivity: does latency grow with the network's
delay?); Lipton and Sandberg, "PRAM: a scalable shared memory", 1988: under sequential consistency the times of a read and a write add up to one delay d
at least; Attiya and Welch, "Sequential consistency versus linearizability", ACM TOCS 1994: with delays in [d - u, d] a linearizable register's reads take
u/4 and its writes u/2 at least, where a sequential one may have either of them free.

Every link takes the same constant time d, one way; disks take none; so a latency is a whole number of d, plus waiting.  `expected` is that number,
counted along the messages of the protocol, at the leader's node and at others (one number where there is no leader); a client stands beside its node.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from capray.metrics import measure
from capray.record import Operation, Record
from capray.scenario import Scenario
from capray.stats import Summary, summarize

Row = dict[str, Any]
SECOND = 1_000_000
NODES = 5
AT_US, CUT_US = 4 * SECOND, 20 * SECOND  # what is asked before AT_US finds the cluster still starting, and is not counted
CUT_AT_US = 8 * SECOND
MARK = {"kind": "pause", "nodes": [], "at_us": AT_US, "for_us": 1}  # a pause of 1 us, so that the record says who leads
ROLES = ("leader", "other")
WORST_AVAILABLE = 0.9  # PA: the worst-served node answers so much of what it is asked during the cut
TOLERANCE = 0.1  # of a slope, in units of d
HEALTHY, CUT = "healthy", "cut"


class Pattern(NamedTuple):
    """A policy with settings; `read` and `write` are the expected latencies in units of d (at the leader's node, elsewhere); `why` how they are counted;
    `published` Abadi's class."""

    name: str
    policy: str
    settings: dict[str, Any]
    read: tuple[int, int]
    write: tuple[int, int]
    why: str
    published: str | None = None


PATTERNS = (
    Pattern("one server", "rdbms", {}, (0, 2), (0, 2), "to the server and back"),
    Pattern(
        "zookeeper", "zookeeper", {}, (0, 0), (2, 4), "reads at the own server; writes: forward d, proposal and acknowledgement 2d, commit d (Zab, DSN 2011)"
    ),
    Pattern(
        "zookeeper sync",
        "zookeeper",
        {"read_mode": "sync"},
        (0, 2),
        (2, 4),
        "sync to the leader and back, then the own server; the leader does not ask a quorum",
    ),
    Pattern(
        "etcd",
        "etcd",
        {"version": "3.5"},
        (2, 4),
        (2, 4),
        "ReadIndex: to the leader d, its heartbeats 2d, back d (thesis 6.4); writes: forward d, append 2d, commit d",
    ),
    Pattern("etcd lease reads", "etcd", {"version": "3.5", "read_only_option": "lease"}, (0, 2), (2, 4), "ReadIndex without heartbeats (thesis 6.4.1)"),
    Pattern("etcd serializable", "etcd", {"version": "3.5", "read_consistency": "serializable"}, (0, 0), (2, 4), "reads at the own member"),
    Pattern("cassandra ONE", "cassandra", {"replication_factor": NODES}, (0, 0), (0, 0), "every node is a replica: its own is enough", "PA/EL"),
    Pattern(
        "cassandra QUORUM",
        "cassandra",
        {"replication_factor": NODES, "read_consistency": "QUORUM", "write_consistency": "QUORUM"},
        (2, 2),
        (2, 2),
        "one round trip to a quorum",
    ),
    Pattern(
        "cassandra SERIAL",
        "cassandra",
        {"replication_factor": NODES, "read_consistency": "SERIAL", "write_consistency": "SERIAL"},
        (6, 6),
        (8, 8),
        "prepare, read, propose: 6d; a write commits too: 8d (four round trips)",
    ),
    Pattern(
        "dynamo, merging",
        "dynamo",
        {"n": NODES, "r": 2, "w": 2},
        (2, 2),
        (4, 4),
        "R = W = 2: one round trip; a merging client's write reads its context first",
        "PA/EL",
    ),
    Pattern(
        "dynamo, last write wins", "dynamo", {"n": NODES, "r": 2, "w": 2, "client": "last-write-wins"}, (2, 2), (2, 2), "R = W = 2: one round trip", "PA/EL"
    ),
    Pattern("redis", "redis", {"down_after": "2s", "failover_timeout": "10s"}, (0, 2), (0, 2), "to the primary and back; replicas follow later"),
    Pattern(
        "postgres, asynchronous standby",
        "postgres",
        {"standby": 3, "promotion": "automatic", "failover_timeout": "4s"},
        (0, 2),
        (0, 2),
        "to the primary and back; the standby follows later",
    ),
    Pattern(
        "postgres, synchronous standby",
        "postgres",
        {"standby": 3, "synchronous": True, "promotion": "automatic", "failover_timeout": "4s"},
        (0, 2),
        (2, 4),
        "to the primary and back, and its commit waits for the standby: 2d",
    ),
    Pattern("crdt", "crdt", {}, (0, 0), (0, 0), "the own replica; gossip follows"),
    Pattern("abd", "abd", {}, (4, 4), (4, 4), "two round trips to a majority, reads and writes alike"),
    Pattern("write-all", "write-all", {}, (0, 0), (4, 4), "reads at the own replica; prepare 2d, commit 2d"),
)


# ---- one trial ---------------------------------------------------------------------------------------------------------------------------
def row_of(scenario: Scenario, record: Record) -> Row:
    """A trial's row: `delay_us` (d), medians and 99th percentiles of reads and writes, at the leader's node and at others, of what was asked after AT_US;
    under a cut also what was
    answered in it, and how stale."""
    measures = measure(record)
    marked = [window for window in record.faults if window.kind == "pause"]
    leader = next((window.nodes[0] for window in marked if not window.note), None)
    asked = [op for op in record.history if op.intended is not None and op.intended > AT_US and not op.final]
    row: Row = {
        "record": record.digest(),
        "delay_us": scenario.lookahead_us,
        "messages": measures["messages"],
        "operations": measures["operations"],
        "linearizable": measures["linearizable"],
    }
    for kind in ("read", "write"):
        own = [op for op in asked if op.f == kind]
        row[f"latency_{kind}_p50_us"], row[f"latency_{kind}_p99_us"] = quantile(own, 50), quantile(own, 99)
        for role in ROLES:
            row[f"latency_{kind}_{role}_us"] = quantile([op for op in own if (op.node == leader) == (role == "leader")], 50)
        row[f"availability_during_{kind}"] = measures.get(f"availability_during_{kind}")
    for name in (
        "availability_during",
        "availability_worst_node_during",
        "stale_share",
        "stale_share_during",
        "staleness_max_us",
        "lost_writes",
        "divergence_area",
        "convergence_us",
    ):
        row[name] = measures.get(name)
    return row


def quantile(ops: Sequence[Operation], percent: int) -> int | None:
    """A quantile of the latencies of what was answered, from the intended time, microseconds: the smallest value with so many percent at or below it."""
    found = sorted(op.complete - op.intended for op in ops if op.type == "ok" and op.complete is not None and op.intended is not None)
    return found[max(0, -(-len(found) * percent // 100) - 1)] if found else None


# ---- many trials -------------------------------------------------------------------------------------------------------------------------
class Slope(NamedTuple):
    """Latency against delay: how many d it grows by a d (over seeds, with its interval), what it would be without delay, and what the message pattern
    implies."""

    pattern: Pattern
    kind: str
    role: str
    found: Summary
    base_us: float | None
    expected: int

    @property
    def within(self) -> bool | None:
        """Whether the slope is the expected one, within TOLERANCE."""
        return None if self.found.mean is None else abs(self.found.mean - self.expected) <= TOLERANCE


def pattern_rows(rows: Sequence[Row], pattern: Pattern, part: str = "") -> list[Row]:
    """A pattern's rows: of the sweep of delays, or of `healthy` or `cut`."""
    own = [row for row in rows if row["label"].partition(" | ")[0] == pattern.name]
    parts = {HEALTHY, CUT}
    return [row for row in own if (found := row["label"].partition(" | ")[2]) == part or (not part and found not in parts)]


def slopes(rows: Sequence[Row]) -> list[Slope]:
    """Every pattern's slopes, of reads and writes, at the leader's node (where there is one) and elsewhere: fitted for each seed apart."""
    out = []
    for pattern in PATTERNS:
        own = pattern_rows(rows, pattern)
        for kind, expected in (("read", pattern.read), ("write", pattern.write)):
            for role, number in zip(ROLES, expected):
                column = f"latency_{kind}_{role}_us"
                lines = [
                    line
                    for seed in sorted({row["seed"] for row in own})
                    if (line := fit([(row["delay_us"], row[column]) for row in own if row["seed"] == seed and row[column] is not None]))
                ]
                if lines:
                    out.append(Slope(pattern, kind, role, summarize([slope for slope, _ in lines]), sum(base for _, base in lines) / len(lines), number))
    return out


def fit(points: Sequence[tuple[int, int]]) -> tuple[float, float] | None:
    """Least squares: (slope, value at 0); None with fewer than two different delays."""
    if len({x for x, _ in points}) < 2:
        return None
    n = len(points)
    mean_x, mean_y = sum(x for x, _ in points) / n, sum(y for _, y in points) / n
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)
    return slope, mean_y - slope * mean_x


class Place(NamedTuple):
    """A pattern in the PACELC plane, each over seeds: healthy medians, and what is answered, and stale, during a cut."""

    pattern: Pattern
    read_us: Summary
    write_us: Summary
    read_p99_us: Summary
    write_p99_us: Summary
    answered_read: Summary
    answered_write: Summary
    worst: Summary
    stale: Summary
    lost: Summary
    broken: int
    together: float | None

    @property
    def measured(self) -> str | None:
        """PACELC's letters: A if the worst-served node answers WORST_AVAILABLE of what it is asked during the cut; else C: what it answers there may be
        stale all the same.  L if a healthy trial (`broken` of
        them) was not linearizable: consistency was given up for latency with nothing wrong."""
        if self.worst.mean is None:
            return None
        return f"{'PA' if self.worst.mean >= WORST_AVAILABLE else 'PC'}/{'EL' if self.broken else 'EC'}"

    @property
    def within(self) -> bool | None:
        """Whether the class is the published one.  Open where all that differs is an L that no healthy trial showed: that none broke proves no C."""
        published = self.pattern.published
        if published is None or self.measured is None:
            return None
        return True if self.measured == published else None if (self.measured, published[-2:]) == (f"{published[:2]}/EC", "EL") else False

    @property
    def below_bound(self) -> bool:
        """Whether a read and a write, where they take most, take less than a delay together: then the store cannot be sequentially consistent (Lipton and
        Sandberg)."""
        return self.together is not None and self.together < 1


DURING = ("availability_during_read", "availability_during_write", "availability_worst_node_during", "stale_share_during", "lost_writes")


def bounded(found: Summary, share: bool) -> Summary:
    """With an interval that stays where the measure can be: from 0, and a share up to 1."""
    low, high = (None if x is None else max(0.0, min(x, 1.0) if share else x) for x in (found.low, found.high))
    return found._replace(low=low, high=high)


def places(rows: Sequence[Row]) -> list[Place]:
    """Every pattern that was run healthy and cut."""
    found = slopes(rows)
    out = []
    for pattern in PATTERNS:
        whole, cut = pattern_rows(rows, pattern, HEALTHY), pattern_rows(rows, pattern, CUT)
        if whole and cut:
            worst = [
                max((line.found.mean for line in found if line.pattern is pattern and line.kind == kind and line.found.mean is not None), default=None)
                for kind in ("read", "write")
            ]
            (read, write), (read_p99, write_p99) = (
                [bounded(summarize([row[f"latency_{kind}_{of}_us"] for row in whole]), False) for kind in ("read", "write")] for of in ("p50", "p99")
            )
            reads, writes, least, stale, lost = (bounded(summarize([row[name] for row in cut]), name != "lost_writes") for name in DURING)
            broken = sum(row["linearizable"] == "invalid" for row in whole)
            together = None if None in worst else sum(x for x in worst if x is not None)
            out.append(Place(pattern, read, write, read_p99, write_p99, reads, writes, least, stale, lost, broken, together))
    return out


def told(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One dict a slope and a class, as experiments print them; `published` is what the protocol's message pattern implies, or Abadi's class."""
    out: list[dict[str, Any]] = []
    for line in slopes(rows):
        out.append(
            {
                "measure": f"slope_{line.kind}_{line.role}",
                "published": line.expected,
                "simulated": line.found.mean,
                "low": line.found.low,
                "high": line.found.high,
                "within": line.within,
                "label": line.pattern.name,
                "trials": line.found.trials,
                "base_us": line.base_us,
                "source": line.pattern.why,
            }
        )
    for place in places(rows):
        told_of = {"label": place.pattern.name, "trials": place.worst.trials}
        out.append(
            {
                "measure": "class",
                "published": place.pattern.published,
                "simulated": place.measured,
                "low": None,
                "high": None,
                "within": place.within,
                **told_of,
            }
        )
        out.append({"measure": "read_and_write", "published": None, "simulated": place.together, "low": None, "high": None, "within": None, **told_of})
        for name in ("read_us", "write_us", "read_p99_us", "write_p99_us", "answered_read", "answered_write", "worst", "stale", "lost"):
            found: Summary = getattr(place, name)
            out.append({"measure": name, "published": None, "simulated": found.mean, "low": found.low, "high": found.high, "within": None, **told_of})
    return out
