"""What the systems' own documentation promises, policy by policy and fault by fault: the expected table of the ladder (experiments/ladder.py).

Decides: which policies and settings, which faults, and what is claimed of each pair, with its source.  May not know: what was measured.
A claim is the strongest level of capray.studies.ladder that the documentation, the paper or a maintainer promises under that fault, `none` where nothing
is promised, a second one beside it where the first does not imply it, and whether acknowledged writes may be lost.  It is a floor: a trial above it is no
deviation.  `eventual` has no deadline; it is claimed where the system's own intervals (hints, gossip, resynchronisation) end within the quiet period, which a fault
may prolong.
Counters and sets are given distinct numbers; from the PN counter and the observed-remove set two in five updates take something away again.
The faults last from 7 s to 15 s of 23 s.  Keys are two and links slow and variable against the requests' spacing, so that operations contend.
"""

from __future__ import annotations

from typing import Any, NamedTuple

SECOND = 1_000_000
AT_US, FOR_US, LOAD_US = 7 * SECOND, 8 * SECOND, 23 * SECOND
NODES = 5
EXP = {"shape": "exponential", "mean_us": 2000}
LINK = {"floor_us": 500, "latency": EXP}
WORKLOAD = {"rate": 10, "keys": 2}
TAKES_AWAY = {"delete_share": 0.4}  # of what is not a read: removes of elements that were read, or amounts below 0


class Claim(NamedTuple):
    """The level promised, who says so, whether acknowledged writes may be lost, and a level promised beside the first."""

    level: str
    source: str
    loses: bool = False
    beside: str | None = None

    @property
    def words(self) -> str:
        """What is promised."""
        return self.level if self.beside is None else f"{self.level}, {self.beside}"


class Rung(NamedTuple):
    """One line of the table: a policy with its settings; `claims` by the fault's name, else its group, else `""`; what its clients ask beside WORKLOAD."""

    name: str
    policy: str
    settings: dict[str, Any]
    claims: dict[str, Claim]
    workload: dict[str, Any] | None = None

    def claim(self, fault: FaultColumn) -> Claim:
        """What is promised under this fault."""
        return self.claims.get(fault.name) or self.claims.get(fault.group) or self.claims[""]


class FaultColumn(NamedTuple):
    """One column: what goes wrong.  `group`: healthy, network, crash, rolling, power, pause, clock or drift; `base`: scenario fields."""

    name: str
    group: str
    words: str
    base: dict[str, Any]


# ---- what goes wrong ----------------------------------------------------------------------------------------------------------------------
def _cut(shape: str, at_us: int = AT_US, for_us: int = FOR_US, **more: Any) -> dict[str, Any]:
    return {"kind": "partition", "shape": shape, "at_us": at_us, "for_us": for_us, **more}


def _stop(kind: str, for_us: int, nodes: tuple[int, ...] = (), at_us: int = AT_US, **more: Any) -> dict[str, Any]:
    return {"kind": kind, "nodes": list(nodes), "at_us": at_us, "for_us": for_us, **more}


ALL = tuple(range(NODES))
DRIFT = [-300_000, 0, -300_000, 0, -300_000]  # ppm: clocks of nodes 0, 2 and 4 run at 0.7 of true speed
FAULTS = (
    FaultColumn("none", "healthy", "no fault", {}),
    FaultColumn("followers cut", "network", "two nodes cut off, the leader with the majority", {"faults": [_cut("majority")]}),
    FaultColumn("leader cut", "network", "the leader and one more cut off from the majority", {"faults": [_cut("leader-minority")]}),
    FaultColumn("leader alone", "network", "the leader cut off from all others", {"faults": [_cut("isolate-leader")]}),
    FaultColumn("one-way", "network", "two followers are heard by nobody, and hear all", {"faults": [_cut("one-way")]}),
    FaultColumn("bridge", "network", "two halves that meet in one node", {"faults": [_cut("bridge")]}),
    FaultColumn("ring", "network", "every node reaches a majority, no two the same", {"faults": [_cut("ring")]}),
    FaultColumn("flapping", "network", "two followers cut off for 1 s in each 2 s", {"faults": [_cut("flapping", period_us=SECOND)]}),
    FaultColumn(
        "successive cuts",
        "network",
        "the leader cut off for 5 s, and the next leader 4 s later",
        {
            "faults": [_cut("isolate-leader", for_us=5 * SECOND), _cut("isolate-leader", AT_US + 4 * SECOND, 6 * SECOND)],
            "quiet_us": 60 * SECOND,  # two failovers: Redis's Sentinels set a replica right whole failover time-outs (10 s) later
        },
    ),
    FaultColumn(
        "lossy",
        "network",
        "5 % of all segments lost; where a policy sends datagrams (crdt, abd) 5 % of them lost, 5 % doubled, and they overtake each other",
        {"link": {**LINK, "loss": 0.05, "duplication": 0.05}},
    ),
    FaultColumn(
        "slow links", "network", "messages take 30 ms in the mean, one in a thousand 200 ms", {"link": {**LINK, "latency": {**EXP, "mean_us": 30_000}}}
    ),
    FaultColumn("crash", "crash", "the leader's process crashes, back after 5 s", {"faults": [_stop("crash-process", 5 * SECOND)]}),
    FaultColumn("host crash", "crash", "the leader's host crashes, what was not synced is lost, back after 5 s", {"faults": [_stop("crash-host", 5 * SECOND)]}),
    FaultColumn(
        "rolling crash",
        "rolling",
        "every host crashes in its turn, one each 1.5 s, what was not synced is lost, back after 1 s",
        {"faults": [_stop("crash-host", SECOND, (node,), AT_US + 3 * node * SECOND // 2) for node in ALL]},
    ),
    FaultColumn("power failure", "power", "every host crashes at once, back after 2 s", {"faults": [_stop("crash-host", 2 * SECOND, ALL)]}),
    FaultColumn("pause", "pause", "the leader's process stands still for 5 s", {"faults": [_stop("pause", 5 * SECOND)]}),
    FaultColumn(
        "pause + cut",
        "pause",
        "the leader stands still for 4 s and is cut off for 7 s",
        {"faults": [_stop("pause", 4 * SECOND), _cut("isolate-leader", for_us=7 * SECOND)]},
    ),
    FaultColumn("slow", "pause", "nodes 0 and 1 take 50 ms for each message", {"faults": [_stop("slow", FOR_US, (0, 1), factor=20, service_us=50_000)]}),
    FaultColumn(
        "clock skew",
        "clock",
        "node 0's clock 2 s ahead, node 1's 2 s behind",
        {"faults": [_stop("skew", FOR_US, (0,), offset_us=2 * SECOND), _stop("skew", FOR_US, (1,), offset_us=-2 * SECOND)]},
    ),
    FaultColumn(
        "drift + leader alone",
        "drift",
        "three of five clocks at 0.7 of true speed, and the leader cut off",
        {"clock_drift_ppm": DRIFT, "faults": [_cut("isolate-leader")]},
    ),
    FaultColumn(
        "leader cut, drop", "network", "leader cut, messages in flight and during it dropped", {"faults": [_cut("leader-minority")], "cut_mode": "drop"}
    ),
    FaultColumn("leader cut, deliver", "network", "leader cut, what was in flight still arrives", {"faults": [_cut("leader-minority")], "cut_mode": "deliver"}),
    FaultColumn("leader cut, hold", "network", "leader cut, everything held until heal", {"faults": [_cut("leader-minority")], "cut_mode": "hold"}),
    FaultColumn(
        "cut + skew",
        "clock",
        "two followers cut off, a clock on each side 2 s ahead",
        {"faults": [_cut("majority"), _stop("skew", FOR_US, (0, 1), offset_us=2 * SECOND)]},
    ),
    FaultColumn(
        "cut + host crash",
        "crash",
        "two followers cut off, then the leader's host crashes for 4 s",
        {"faults": [_cut("majority"), _stop("crash-host", 4 * SECOND, at_us=AT_US + 2 * SECOND)]},
    ),
)

# ---- what is promised ---------------------------------------------------------------------------------------------------------------------
ONE_COPY = "one copy, one server, each commit flushed before it is acknowledged (PostgreSQL 15 manual, 13 Concurrency Control, 30.1 Reliability)"
ZK_LOCAL = (
    "ZooKeeper Programmer's Guide 3.8, Consistency Guarantees: sequential consistency, single system image; ZooKeeper Internals, Consistency "
    "Guarantees: reads can "
    "return stale data, so they are not linearizable"
)
ZK_SYNC = (
    "ZooKeeper Internals 3.8, Consistency Guarantees: sync is not an ordinary quorum operation, so a deposed leader that does not yet know answers it; "
    "ordered sequential consistency; github.com/jepsen-io/jepsen issue 399"
)
ZK_STEADY = "ZooKeeper Internals 3.8, Consistency Guarantees: sync, then read, sees the latest value while there is one leader"
ETCD = "etcd documentation 3.5, KV API guarantees: linearizability for all operations by default"
ETCD_SERIAL = "etcd documentation 3.5, API, RangeRequest.serializable: served locally, may be stale"
ETCD_LEASE = (
    "etcd-io/raft, ReadOnlyLeaseBased: affected by clock drift, not safe if a clock pauses; issue 166: check-quorum lets a cut-off leader "
    "lead for up to two election timeouts, while another is elected after one"
)
ETCD_LEASE_STEADY = "etcd-io/raft, ReadOnlyLeaseBased: linearizable by the leader's lease, with check-quorum on, while clocks keep step"
C_ONE = "Cassandra 5.0 documentation, Dynamo: tunable consistency; R + W <= RF gives eventual consistency, the last write wins; hints reach who missed a write"
C_QUORUM = (
    "Cassandra 5.0 documentation, Dynamo: R + W > RF: a read sees the latest acknowledged write; Read Repair: blocking gives monotonic quorum reads; "
    "both while timestamps follow real time"
)
C_NONE = "Cassandra 5.0 documentation, Dynamo: R + W > RF sees the latest acknowledged write; Read Repair: none gives up monotonic quorum reads"
C_SKEW = "Cassandra 5.0 documentation, Dynamo, Data Versioning: last write wins by timestamp, correct only while clocks are synchronised"
C_LOG = "cassandra.yaml 5.0: commitlog_sync periodic acknowledges before the 10 s sync: what all replicas hold in memory only is lost with them"
C_SERIAL = "Cassandra 5.0 documentation, Dynamo and CQL, lightweight transactions: linearizable consistency by Paxos (SERIAL)"
DYNAMO = "DeCandia et al., SOSP 2007, sections 2.3, 4.4: eventual consistency, always writeable; conflicting versions are returned, or the last write wins"
DYNAMO_MERGE = (
    "DeCandia et al., SOSP 2007, sections 2.3, 4.4: all updates reach all replicas eventually; vector clocks capture causality between versions; an update "
    "seen is never silently lost"
)
REDIS = "one primary executes one command at a time (Redis documentation, replication: clients that speak to the primary only)"
REDIS_ASYNC = (
    "Redis documentation, High availability with Sentinel: an eventually consistent system where the merge function is last failover wins; asynchronous "
    "replication, acknowledged writes may be lost in a failover and in a partition; sentinel.c 7.0, sentinelVoteLeader: a vote asks nobody whether the primary "
    "is down, so that Sentinels of a healed minority may win one against a healthy primary"
)
REDIS_MEMORY = "Redis documentation, persistence: without an append-only file a restart loses what the last snapshot lacks"
REDIS_AOF = "Redis documentation, persistence: appendfsync always is durable; replication is asynchronous all the same, so that a failover loses writes"
PG_ASYNC = "PostgreSQL 15 manual, 27.2.5, 27.3: asynchronous standby: transactions not yet received are lost at failover; without fencing two primaries serve"
PG_SYNC = (
    "PostgreSQL 15 manual, 27.2.8, 27.3: what was acknowledged is on the standby; an old primary must be kept out (STONITH), else it goes on answering reads"
)
PG_NO_FAILOVER = "one primary serves; the standby is not promoted while it hears it (PostgreSQL 15 manual, 27.3)"
PG_STANDBY = (
    "PostgreSQL 15 manual, 27.4.1: data on a standby takes time to arrive, so reads there may be older than on the primary, also than a client's own "
    "writes; it replays the primary's log in order"
)
CRDT = "Shapiro et al., SSS 2011: strong eventual consistency, which promises convergence and no session; the later of two concurrent writes wins"
CRDT_CAUSAL = (
    "Shapiro et al., SSS 2011: strong eventual consistency; Almeida et al., JPDC 2018, section 6: delta-intervals in order keep causal consistency, as whole "
    "states do; a client stays at its replica, whose state only grows"
)
CRDT_SUM = CRDT_CAUSAL + "; concurrent updates commute, so that none that was acknowledged is lost (INRIA RR-7506, specifications 6 and 15)"
ABD = "Attiya, Bar-Noy, Dolev, JACM 1995; Lynch and Shvartsman, FTCS 1997: atomic register"
ABD_REGULAR = (
    "Lamport, On interprocess communication, 1986: a regular register's reads may go backwards while a write is under way; Attiya, Bar-Noy, Dolev, JACM 1995: "
    "it is the reader's second round that makes the register atomic"
)
ROWA = "Bernstein, Hadzilacos and Goodman 1987, 8.2: write all, read one, under two-phase commit: one-copy serializable, for single operations linearizable"

C_EVENTUAL = {
    "": Claim("eventual", C_ONE),
    "clock": Claim("eventual", C_SKEW, True),
    "drift": Claim("eventual", C_SKEW, True),
    "power": Claim("eventual", C_LOG, True),
    "rolling": Claim("eventual", C_LOG, True),
    "crash": Claim("eventual", C_LOG, True),
}
STANDBY_STAYS = ("followers cut", "one-way", "flapping")  # nodes 1 and 2 are cut off: the standby, 3, hears its primary, 0
_LIN, _SEQ = "linearizable", "sequential"
RUNGS = (
    Rung("one server", "rdbms", {}, {"": Claim(_LIN, ONE_COPY)}),
    Rung("zookeeper", "zookeeper", {"sessions": "shared", "tick_time": "500ms"}, {"": Claim(_SEQ, ZK_LOCAL)}),
    Rung("zookeeper sync", "zookeeper", {"read_mode": "sync", "tick_time": "500ms"}, {"": Claim(_SEQ, ZK_SYNC), "healthy": Claim(_LIN, ZK_STEADY)}),
    Rung("etcd", "etcd", {"version": "3.5"}, {"": Claim(_LIN, ETCD)}),
    Rung("etcd serializable", "etcd", {"version": "3.5", "read_consistency": "serializable"}, {"": Claim(_SEQ, ETCD_SERIAL)}),
    Rung(
        "etcd lease reads",
        "etcd",
        {"version": "3.5", "read_only_option": "lease"},
        {
            "": Claim(_LIN, ETCD_LEASE_STEADY),
            "network": Claim(_SEQ, ETCD_LEASE),
            "pause": Claim(_SEQ, ETCD_LEASE),
            "clock": Claim(_SEQ, ETCD_LEASE),
            "drift": Claim(_SEQ, ETCD_LEASE),
        },
    ),
    Rung(
        "cassandra ONE",
        "cassandra",
        {},
        C_EVENTUAL,
    ),
    Rung(
        "cassandra ANY",
        "cassandra",
        {"write_consistency": "ANY"},
        C_EVENTUAL,
    ),
    Rung(
        "cassandra QUORUM",
        "cassandra",
        {"read_consistency": "QUORUM", "write_consistency": "QUORUM"},
        {
            "": Claim(_LIN, C_QUORUM),
            "clock": Claim("none", C_SKEW, True),
            "drift": Claim("none", C_SKEW, True),
            "cut + host crash": Claim("none", C_LOG, True),
            "power": Claim("none", C_LOG, True),
            "rolling": Claim("none", C_LOG, True),
        },
    ),
    Rung(
        "cassandra QUORUM, no read repair",
        "cassandra",
        {"read_consistency": "QUORUM", "write_consistency": "QUORUM", "read_repair": "none"},
        {
            "": Claim("regular", C_NONE),
            "clock": Claim("none", C_SKEW, True),
            "drift": Claim("none", C_SKEW, True),
            "cut + host crash": Claim("none", C_LOG, True),
            "power": Claim("none", C_LOG, True),
            "rolling": Claim("none", C_LOG, True),
        },
    ),
    Rung(
        "cassandra SERIAL",
        "cassandra",
        {"read_consistency": "SERIAL", "write_consistency": "SERIAL"},
        {"": Claim(_LIN, C_SERIAL), "cut + host crash": Claim("none", C_LOG, True), "power": Claim("none", C_LOG, True), "rolling": Claim("none", C_LOG, True)},
    ),
    Rung("dynamo, merging", "dynamo", {}, {"": Claim("eventual", DYNAMO_MERGE)}),
    Rung("dynamo, last write wins", "dynamo", {"client": "last-write-wins"}, {"": Claim("eventual", DYNAMO, True)}),
    Rung(
        "redis",
        "redis",
        {"down_after": "2s", "failover_timeout": "10s"},
        {
            "": Claim("eventual", REDIS_ASYNC, True),
            "healthy": Claim(_LIN, REDIS),
            "clock": Claim(_LIN, REDIS),
            "power": Claim("eventual", REDIS_MEMORY, True),
            "lossy": Claim(_LIN, REDIS),
            "flapping": Claim(_LIN, REDIS),
        },
    ),
    Rung(
        "redis, min-replicas 2",
        "redis",
        {"down_after": "2s", "failover_timeout": "10s", "min_replicas_to_write": 2, "min_replicas_max_lag": "2s"},
        {
            "": Claim("eventual", REDIS_ASYNC, True),
            "healthy": Claim(_LIN, REDIS),
            "clock": Claim(_LIN, REDIS),
            "power": Claim("eventual", REDIS_MEMORY, True),
        },
    ),
    Rung(
        "redis, appendfsync always",
        "redis",
        {"down_after": "2s", "failover_timeout": "10s", "appendonly": "always"},
        {
            "": Claim("eventual", REDIS_AOF, True),
            "healthy": Claim(_LIN, REDIS),
            "clock": Claim(_LIN, REDIS),
            "power": Claim(_LIN, REDIS_AOF),
        },
    ),
    Rung("postgres", "postgres", {}, {"": Claim(_LIN, ONE_COPY)}),
    Rung(
        "postgres, asynchronous standby",
        "postgres",
        {"standby": 3, "promotion": "automatic", "failover_timeout": "4s"},
        {"": Claim("none", PG_ASYNC, True), **dict.fromkeys(("healthy", "clock", "power", "lossy", *STANDBY_STAYS), Claim(_LIN, PG_NO_FAILOVER))},
    ),
    Rung(
        "postgres, synchronous standby",
        "postgres",
        {"standby": 3, "synchronous": True, "promotion": "automatic", "failover_timeout": "4s"},
        {
            "": Claim("none", PG_SYNC),
            **dict.fromkeys(("healthy", "clock", "power", "lossy", *STANDBY_STAYS), Claim(_LIN, PG_NO_FAILOVER)),
        },
    ),
    Rung("postgres, reads at the standby", "postgres", {"standby": 3, "standby_reads": True}, {"": Claim("monotonic-reads", PG_STANDBY)}),
    Rung("crdt, last-write-wins register", "crdt", {}, {"": Claim("eventual", CRDT, True)}),
    Rung("crdt, multi-value register", "crdt", {"type": "mv-register"}, {"": Claim("causal-consistency", CRDT_CAUSAL, beside="eventual")}),
    Rung("crdt, grow-only counter", "crdt", {"type": "g-counter"}, {"": Claim("causal", CRDT_SUM, beside="eventual")}),
    Rung("crdt, PN counter", "crdt", {"type": "pn-counter"}, {"": Claim("causal", CRDT_SUM, beside="eventual")}, TAKES_AWAY),
    Rung("crdt, observed-remove set", "crdt", {"type": "or-set"}, {"": Claim("causal", CRDT_SUM, beside="eventual")}, TAKES_AWAY),
    Rung("abd", "abd", {}, {"": Claim(_LIN, ABD)}),
    Rung("abd, no write-back", "abd", {"write_back": False}, {"": Claim("regular", ABD_REGULAR)}),
    Rung("write-all", "write-all", {}, {"": Claim(_LIN, ROWA)}),
)
CI_RUNGS = (
    "zookeeper",
    "zookeeper sync",
    "etcd",
    "etcd serializable",
    "etcd lease reads",
    "cassandra ONE",
    "cassandra QUORUM",
    "cassandra QUORUM, no read repair",
    "cassandra SERIAL",
    "dynamo, merging",
    "redis",
    "postgres, synchronous standby",
    "crdt, last-write-wins register",
    "crdt, grow-only counter",
    "crdt, PN counter",
    "crdt, observed-remove set",
    "abd",
    "write-all",
    "one server",
)
CI_FAULTS = ("none", "leader cut", "bridge", "pause + cut", "clock skew", "power failure", "drift + leader alone")
