"""What every number of the report means, and which numbers each figure is drawn from.

Decides: the words of the report's definitions and captions.  May not know: how anything is measured or drawn.
Source: METRICS.md, whose definitions these are; each entry names the literature's.
"""

from __future__ import annotations

from typing import NamedTuple


class Definition(NamedTuple):
    """A measure: what it is read from (H history and faults alone; V versions that replicas applied; C counters), what it is, and its source."""

    measure: str
    of: str
    text: str
    source: str
    how: str = "share"  # how a number of it is written: share, us, count


DEFINITIONS = (
    Definition(
        "availability",
        "H",
        "operations answered ok before their deadline / operations intended. Intended counts every request the open-loop client was due to make. "
        "Final reads are left out.",
        "yield: Fox & Brewer 1999",
    ),
    Definition(
        "cap_available",
        "H",
        "true iff every request that a non-failed node received during the fault got a successful response before its deadline",
        "Gilbert & Lynch 2002",
    ),
    Definition(
        "availability_worst_node", "H", "the lowest availability of a node, over what it received while it had not failed", "Gilbert & Lynch 2002"
    ),
    Definition(
        "allowed_availability",
        "C",
        "the highest availability that any protocol could have: of the requests due during the cut, those whose node reaches as many of the key's "
        "replicas as the consistency level needs, both ways, or whose deadline came after heal (reads and writes apart)",
        "capray.measures.allowed, after Gilbert & Lynch 2002",
    ),
    Definition(
        "latency", "H", "quantiles (p50, p99) from the intended time to the answer, ok operations only", "open loop: Schroeder et al. 2006", "us"
    ),
    Definition(
        "unanswered_share",
        "H",
        "operations that were never answered (given up at their deadline, not refused) / operations intended",
        "beside latency",
    ),
    Definition(
        "failover",
        "H",
        "from the cut to the first ok of an operation invoked after the cut, on the largest side, reads and writes apart; null, and censored, "
        "where none came",
        "",
        "us",
    ),
    Definition("gap", "H", "the longest time without an ok on the largest side, from the cut to the last request", "", "us"),
    Definition("recovery_first", "H", "from heal until every node has answered an operation invoked after heal", "", "us"),
    Definition("recovery_last", "H", "from heal to the start of the last operation that was not ok", "", "us"),
    Definition(
        "linearizable",
        "H",
        "verdict over the whole history, by key: valid, invalid, or unknown (budget spent). In tables and figures: the share of trials that were "
        "valid, with "
        "Wilson's interval",
        "Herlihy & Wing 1990; Gibbons & Korach 1997",
    ),
    Definition(
        "stale_reads",
        "H",
        "ok reads that returned w although an ok write that overwrites w had completed before the read was invoked. A write overwrites w iff it "
        "was invoked after w "
        "had completed. A delete is a write of nothing; a read that finds nothing counts as of the last delete that it can be of. Gamma and the "
        "sessions are null where keys were deleted",
        "",
        "count",
    ),
    Definition("stale_share", "H", "stale reads / ok reads", ""),
    Definition(
        "staleness_max",
        "H",
        "the largest age of a stale read: its invocation minus the earliest completion of a write that overwrites what it returned; null where no "
        "read was stale",
        "Delta-atomicity: Golab et al. 2011",
        "us",
    ),
    Definition("versions_behind_max", "H", "the largest number of such writes (a lower bound of k - 1 of k-atomicity)", "Aiyer et al. 2005", "count"),
    Definition(
        "gamma",
        "H",
        "the smallest g such that the history is linearizable with each operation's start g/2 earlier and end g/2 later",
        "Golab et al. 2014",
        "us",
    ),
    Definition("read_your_writes_violations", "H", "reads that missed an earlier write of their own process", "Terry et al. 1994", "count"),
    Definition("monotonic_reads_violations", "H", "reads older than an earlier read of the same process", "Terry et al. 1994", "count"),
    Definition("monotonic_writes_violations", "H", "writes of one process seen against their order", "Terry et al. 1994", "count"),
    Definition("writes_follow_reads_violations", "H", "writes seen without what their process had read before them", "Terry et al. 1994", "count"),
    Definition(
        "lost_writes",
        "V",
        "ok writes absent from the order of writes that the surviving replicas keep, and not merged into it. Overwritten or deleted is not lost; a "
        "lost delete counts only in the bound that a history proves",
        "Jepsen",
        "count",
    ),
    Definition("lost_writes_provable", "H", "the lower bound of lost writes and deletes that a history alone proves", "Jepsen", "count"),
    Definition("never_visible_writes", "V", "ok writes that are kept but were newest on no replica at any time", "capray.measures.acknowledged", "count"),
    Definition(
        "conflicts",
        "V",
        "pairs of ok writes of one key, each accepted where the other was not visible, of which the policy kept one (or both, as siblings); updates that "
        "commute, of which it keeps both in one state, are none",
        "DeCandia et al. 2007",
        "count",
    ),
    Definition(
        "divergence_area",
        "V",
        "the share of (key, pair of live replicas of that key) whose newest versions differ, leaving out writes younger than a grace of 0.2 s, "
        "summed over "
        "the trial: share x seconds",
        "",
        "count",
    ),
    Definition("divergence_final", "V", "that share at the end of the trial", ""),
    Definition(
        "convergence",
        "V",
        "from heal until every live replica of a key holds the newest version acknowledged before heal, or one that supersedes it, for all keys; "
        "null, and "
        "censored, if the trial ends first",
        "",
        "us",
    ),
    Definition(
        "messages",
        "C",
        "messages that nodes sent one another; messages_per_op and bytes_per_op: for each completed operation; messages_cut: stopped or held up by "
        "a cut",
        "",
        "count",
    ),
    Definition("operations", "H", "operations intended", "", "count"),
    Definition("fault_touched_nothing", "C", "true iff some fault of the trial met no message, timer or record: it tested nothing", "DESIGN.md"),
)


class Caption(NamedTuple):
    """A figure of a sweep: its heading, what it shows and how to read it, and the measures it is drawn from (columns of the table)."""

    heading: str
    text: str
    columns: tuple[str, ...]


CAPTIONS = {
    "signature": Caption(
        "Consistency and availability, healthy and partitioned",
        "Every policy has two points: small, measured in trials without a cut (where there are none, in what went before the cut); "
        "large, in trials whose cut was longer than the clients' deadline (all such lengths; each seed's trials are averaged first, intervals are over seeds). "
        "To the right: a smaller share of reads during the cut was stale. Up: the worst-served node answered more of its clients in time during the cut. Hollow: not every trial was linearizable. The theorem says that no large, filled point stands at (1, 1). A filled point at the "
        "right and below is the CP choice, a hollow "
        "one at the top the AP choice. Points that coincide are set side by side.",
        ("stale_share_during", "availability_worst_node_during", "linearizable"),
    ),
    "availability": Caption(
        "Availability against the length of the cut",
        "The share of intended operations that were answered ok before their deadline, of those due during the cut: all clients, those beside the "
        "nodes of the minority, those beside the "
        "majority. At 'no cut': over the whole trial.",
        ("availability_during", "availability_during_minority", "availability_during_majority"),
    ),
    "inconsistency": Caption(
        "Inconsistency against the length of the cut",
        "All are over the whole trial, so that what a cut leaves behind counts as well. The oldest stale read is a mean over the trials that "
        "had one, convergence over the trials that converged before their end (a point's hover says how many did); there is no point where none had. "
        "All but the share of stale reads are on log-like axes that begin at 0. There is no line for divergence where a key has one replica only, or "
        "versions are not known.",
        ("stale_share", "staleness_max_us", "divergence_area", "lost_writes", "conflicts", "convergence_us"),
    ),
    "heatmap": Caption(
        "Nodes against the length of the cut",
        "One panel a policy, one cell a point of the sweep; the menu chooses the measure. Bright is good for every measure.",
        ("availability_during", "availability_during_minority", "availability_worst_node_during", "stale_share"),
    ),
    "allowed": Caption(
        "What ring and cut allow",
        "With fewer replicas than nodes, a node can answer for a key only if it reaches enough of that key's replicas. The thick lines are the "
        "highest availability that ring, cut and "
        "consistency level allow any protocol; the points are what was measured. The distance between them is the protocol's own: time-outs, wrong "
        "choice of replicas, conviction, back-off.",
        ("availability_during_read", "availability_during_write", "allowed_availability_read", "allowed_availability_write"),
    ),
    "triangle": Caption(
        "The CAP triangle, placed by measurement",
        "From trials whose cut was longer than the deadline: C = 1 - share of stale reads during the cut; A = availability of the worst-served "
        "node during it; P = availability of the largest "
        "side during it (the least over the shapes of cut, where one policy was cut in several). A policy stands at the barycentric mean (C, A, P) "
        "/ (C + A + P) of the corners. The place "
        "shows proportions, not amounts: (1, 1, 1) and (0.2, 0.2, 0.2) coincide in the middle, so the three numbers stand beside each name. The "
        "corners CA, CP, AP are never asserted: a single "
        "server stands on the C - P edge if its side is the largest one, at C if it is not.",
        ("stale_share_during", "availability_worst_node_during", "availability_during_largest"),
    ),
}

SUMMARY = (
    ("availability during the cut", "availability_during", "share"),
    ("minority side", "availability_during_minority", "share"),
    ("majority side", "availability_during_majority", "share"),
    ("worst-served node", "availability_worst_node_during", "share"),
    ("stale reads during the cut", "stale_share_during", "share"),
    ("oldest stale read", "staleness_max_us", "us"),
    ("lost writes", "lost_writes", "count"),
    ("conflicts", "conflicts", "count"),
    ("converged after", "convergence_us", "us"),
)


def definition_of(column: str) -> Definition | None:
    """The definition that a column belongs to: the longest measure that its name begins with."""
    found = [one for one in DEFINITIONS if column == one.measure or column.startswith(one.measure + "_")]
    return max(found, key=lambda one: len(one.measure), default=None)
