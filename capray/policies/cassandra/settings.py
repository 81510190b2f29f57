"""Apache Cassandra 5.0, conf/cassandra.yaml and the CQL table options: the settings of the `cassandra` policy, with their defaults' sources.

Decides: names, units, defaults of settings, and which are refused for a cluster.  May not know: protocol, messages.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from capray.policies.ring import EVERY, block_for, datacenter, requirements
from capray.replica import Settings

ReadLevel = Literal["ONE", "TWO", "THREE", "QUORUM", "ALL", "LOCAL_ONE", "LOCAL_QUORUM", "EACH_QUORUM", "SERIAL", "LOCAL_SERIAL"]
WriteLevel = Literal["ANY", "ONE", "TWO", "THREE", "QUORUM", "ALL", "LOCAL_ONE", "LOCAL_QUORUM", "EACH_QUORUM", "SERIAL", "LOCAL_SERIAL"]
SERIAL_LEVELS = ("SERIAL", "LOCAL_SERIAL")


class CassandraSettings(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Cassandra's settings, by the field's own names; times in microseconds."""

    read_consistency: Annotated[
        ReadLevel, Meta(description="replicas that must answer a read; SERIAL, LOCAL_SERIAL: a Paxos read; default of cqlsh: ONE")
    ] = "ONE"
    write_consistency: Annotated[
        WriteLevel,
        Meta(description="replicas that must acknowledge a write; ANY: a stored hint is enough; SERIAL, LOCAL_SERIAL: a lightweight transaction; cqlsh: ONE"),
    ] = "ONE"
    replication_factor: Annotated[int, Meta(ge=0, description="replicas of each key, in each data centre; 0: 3, or all its nodes if fewer")] = 0
    strategy: Annotated[
        Literal["simple", "network_topology"],
        Meta(description="SimpleStrategy: the next nodes clockwise; NetworkTopologyStrategy: the factor in every data centre, racks apart"),
    ] = "simple"
    datacenters: Annotated[
        int,
        Meta(ge=1, description="data centres, node i in number i mod this (as a link's regions); only `network_topology` tells them apart; 1 (5.0)"),
    ] = 1
    racks: Annotated[int, Meta(ge=1, description="racks of each data centre, dealt round; 5.0's cassandra-rackdc.properties: 1")] = 1
    coordinator_only: Annotated[
        int, Meta(ge=0, description="how many of the last nodes own no range (join_ring=false), so that their clients' coordinator is no replica; 0")
    ] = 0
    partitioner: Annotated[
        Literal["murmur3", "key_number"],
        Meta(description="murmur3: Murmur3Partitioner, 5.0's default; key_number: k0, k1, ... in successive ranges, as if picked one for each range"),
    ] = "murmur3"
    timestamps: Annotated[
        Literal["client", "coordinator"],
        Meta(
            description="who stamps a write, always by the coordinator's node's clock: the driver beside it, in microseconds (drivers' "
            "default since protocol "
            "3), or the coordinator, in milliseconds x 1000 (ClientState.getTimestamp, 5.0), which can tie two coordinators' writes of one "
            "millisecond"
        ),
    ] = "client"

    hinted_handoff: Annotated[bool, Meta(description="keep writes for silent replicas; cassandra.yaml hinted_handoff_enabled: true (5.0)")] = True
    max_hint_window_us: Annotated[int, Meta(ge=0, description="no hints for a replica down for longer; max_hint_window: 3h (5.0)")] = 10_800_000_000
    hint_window_persistent: Annotated[
        bool, Meta(description="the window also counts from the opening of the oldest file of hints kept; hint_window_persistent_enabled: true (since 4.1)")
    ] = True
    hints_flush_period_us: Annotated[int, Meta(ge=1000, description="hint buffers to files; hints_flush_period: 10000ms (5.0)")] = 10_000_000
    hinted_handoff_throttle_bytes: Annotated[
        int, Meta(ge=0, description="bytes/s of hints to one node, from all others together; hinted_handoff_throttle: 1024KiB (5.0); 0: none")
    ] = 1_048_576
    gc_grace_us: Annotated[int, Meta(ge=0, description="age after which tombstones and hints go; table option gc_grace_seconds: 864000 (5.0)")] = (
        864_000_000_000
    )

    read_repair: Annotated[
        Literal["blocking", "none"],
        Meta(description="on a digest mismatch, write the merged row back and wait; table option read_repair: BLOCKING (since 4.0)"),
    ] = "blocking"
    speculative_retry: Annotated[
        Literal["99p", "always", "never"], Meta(description="ask one more replica after this percentile of recent reads; table option: 99p (5.0)")
    ] = "99p"
    reads_sent_to: Annotated[
        Literal["needed", "all"],
        Meta(
            description="needed: as many replicas as the level needs (Cassandra); all: full reads at all, the first that suffice answer (Dynamo, PBS)"
        ),
    ] = "needed"
    read_request_timeout_us: Annotated[int, Meta(ge=1000, description="ReadTimeout after; read_request_timeout: 5000ms (5.0)")] = 5_000_000
    write_request_timeout_us: Annotated[int, Meta(ge=1000, description="WriteTimeout after; write_request_timeout: 2000ms (5.0)")] = 2_000_000
    cas_contention_timeout_us: Annotated[
        int, Meta(ge=1000, description="SERIAL gives up after; cas_contention_timeout: 1000ms (5.0; 1800ms where cassandra.yaml has no such line)")
    ] = 1_000_000
    internode_timeout: Annotated[bool, Meta(description="receivers drop requests that expired on the way; internode_timeout: true (since 4.0)")] = (
        True
    )

    internode_tcp_connect_timeout_us: Annotated[
        int, Meta(ge=1000, description="an attempt to connect to a node is given up after; internode_tcp_connect_timeout: 2000ms (since 4.0)")
    ] = 2_000_000
    internode_tcp_user_timeout_us: Annotated[
        int,
        Meta(
            ge=0,
            description="how long what was sent to a node may stay unacknowledged before the connection is thrown out and dialled anew "
            "(TCP_USER_TIMEOUT, where conviction has not done so before); internode_tcp_user_timeout: 30000ms (since 4.0); 0: the system's own 924.6 s",
        ),
    ] = 30_000_000

    endpoint_snitch: Annotated[
        Literal["simple", "gossiping_property_file"],
        Meta(description="order below the dynamic snitch: the ring's (SimpleSnitch, 5.0's default), or itself, then its rack, then its data centre, first"),
    ] = "simple"
    dynamic_snitch: Annotated[bool, Meta(description="order replicas by measured latency; dynamic_snitch: true (5.0)")] = True
    dynamic_snitch_update_interval_us: Annotated[int, Meta(ge=1000, description="dynamic_snitch_update_interval: 100ms (5.0)")] = 100_000
    dynamic_snitch_reset_interval_us: Annotated[
        int, Meta(ge=1000, description="forget all latencies; dynamic_snitch_reset_interval: 600000ms (5.0)")
    ] = 600_000_000
    dynamic_snitch_badness_percent: Annotated[
        int, Meta(ge=0, description="leave the static order if worse by this, percent; dynamic_snitch_badness_threshold: 1.0 since 4.0 (0.1 before)")
    ] = 100
    clock_tick_us: Annotated[
        int,
        Meta(ge=1, description="grain of the clock that latencies are measured by; approximate_time_precision_ms: 2 (MonotonicClock.SampledClock)"),
    ] = 2_000
    stage_latency_us: Annotated[
        int,
        Meta(
            ge=0,
            description="mean of what two servers' thread pools add to a remote read AS THE DYNAMIC SNITCH MEASURES IT, exponential beyond its half; it "
            "delays nothing (service_us does). From the recorded 5.0.4 servers' healthy reads at ONE: a coordinator that held no replica answered 1.0 ms "
            "later than one that did at the 5th to 25th percentile, 1.2 ms in the mean, beside the 0.5 ms of the next setting. (Servers with more of the "
            "processor, asked over JMX, had in their first run timed 57, 31, 10, 2 in 100 at 0 to 3 ms, as 1.75 ms does; hours later 0.8 ms would "
            "do, and the ring's order decided more often); 0: the network's time alone",
        ),
    ] = 2_000
    local_stage_latency_us: Annotated[
        int,
        Meta(
            ge=0,
            description="the same for a read of the coordinator's own replica, which waits for no thread pool: 5.0.4 servers, asked over JMX, had timed "
            "more than nine in ten of theirs below 2 ms, five in six below 1 ms",
        ),
    ] = 500
    first_read_latency_us: Annotated[
        int,
        Meta(
            ge=0,
            description="mean of what the first read that a process makes of each peer takes longer, likewise only as the dynamic snitch measures it: the "
            "connection is not dialled before, nor the code compiled; of fresh 5.0.4 servers seven such had taken 3, 5, 6, 6, 40, 111 and 124 ms "
            "(JMX). The peer is then not read again while another replica answers sooner, until the snitch's reset: the order hangs on the first reads, "
            "and hardly on how slow they were. 0: peers were read before",
        ),
    ] = 0
    driver_own_reads: Annotated[
        int,
        Meta(
            ge=0,
            description="reads of its own system tables (system.local, system.peers) that a client's driver has a coordinator do when it connects, timed "
            "1 ms each by the dynamic snitch: of 36 coordinators of 5.0.4 asked over JMX in the seconds between their snitch's reset and the first request "
            "each had timed 3, with a median of 1 ms in 33, 0 in 2, 2 in 1.  So a replica elsewhere that answers within the millisecond is preferred to the "
            "coordinator's own until that one is read again; 0: none",
        ),
    ] = 3
    past_reads: Annotated[
        int,
        Meta(
            ge=0,
            description="reads of 5 ms in each coordinator's latency histogram from before the trial, which speculative retry goes by; 0: a fresh cluster",
        ),
    ] = 0
    past_read_timeouts: Annotated[
        tuple[int, ...],
        Meta(
            description="likewise reads that timed out in an earlier cut, for each node, which draws 0 to twice as many (cuts differ in length); "
            "weighing more than 1 % they end speculation; empty: none"
        ),
    ] = ()
    past_age_us: Annotated[
        int,
        Meta(
            ge=0,
            description="how long before the trial those were: the histogram halves their weight each minute; above 0 the dynamic snitch's "
            "reset too may fall at any time",
        ),
    ] = 0

    phi_convict_threshold: Annotated[
        int, Meta(ge=5, le=16, description="a peer is down when phi exceeds it; phi_convict_threshold: 8 (5.0; 5 to 16)")
    ] = 8
    gossip_interval_us: Annotated[int, Meta(ge=1000, description="a round of gossip each; Gossiper.intervalInMillis: 1000 (5.0)")] = 1_000_000
    fd_initial_value_us: Annotated[int, Meta(ge=1000, description="first interval of a window; cassandra.fd_initial_value_ms: 2000 (5.0)")] = (
        2_000_000
    )
    fd_max_interval_us: Annotated[
        int,
        Meta(
            ge=1000,
            description="longer intervals are not kept; 2 s is meant, but 5.0.4 was seen to keep the gaps of cuts (its default is "
            "nanoseconds taken for "
            "milliseconds), so each cut delays the next conviction: 2e9 ms",
        ),
    ] = 2_000_000_000_000
    seeds: Annotated[int, Meta(ge=1, description="how many nodes, evenly spread, are seeds; the recorded runs had 2 of 5")] = 2

    commitlog_sync: Annotated[
        Literal["periodic", "batch"], Meta(description="periodic: acknowledge, sync later; batch: sync first; commitlog_sync: periodic (5.0)")
    ] = "periodic"
    commitlog_sync_period_us: Annotated[int, Meta(ge=1000, description="commitlog_sync_period: 10000ms (5.0)")] = 10_000_000
    anti_entropy_interval_us: Annotated[
        int,
        Meta(ge=0, description="each node repairs its ranges (nodetool repair -pr, Merkle trees) so often; 0: never, as Cassandra does unless told"),
    ] = 0

    def ring_nodes(self, nodes: int) -> int:
        """How many of the cluster's nodes own a range: all but the last `coordinator_only`."""
        return nodes - self.coordinator_only

    def sizes(self, nodes: int) -> tuple[int, ...]:
        """Nodes on the ring in each data centre that placement tells apart."""
        ring = self.ring_nodes(nodes)
        if self.strategy == "simple":
            return (ring,)
        return tuple(sum(datacenter(n, self.datacenters) == dc for n in range(ring)) for dc in range(self.datacenters))

    def factors(self, nodes: int) -> tuple[int, ...]:
        """Replicas of a key in each data centre; one entry with SimpleStrategy."""
        return tuple(self.replication_factor or min(3, size) for size in self.sizes(nodes))

    def problems(self, nodes: int) -> list[str]:
        """A factor above the nodes there are, a level above the factor, and settings that contradict each other."""
        found = self._shape_problems(nodes)
        if found:
            return found
        smallest = min(self.sizes(nodes))
        if self.replication_factor > smallest:
            where = "nodes" if self.strategy == "simple" else "nodes in the smallest data centre"
            return [f"replication_factor: {self.replication_factor} is not accepted with {smallest} {where}; it takes 1 to {smallest}, or 0"]
        factors = self.factors(nodes)
        for field, level in (("read_consistency", self.read_consistency), ("write_consistency", self.write_consistency)):
            for dc, count in requirements(level, factors, 0):
                have = sum(factors) if dc == EVERY else factors[dc]
                if count > have:
                    found.append(f"{field}: {level} is not accepted with {have} replicas of a key; it needs {block_for(level, factors)}")
        return found

    def _shape_problems(self, nodes: int) -> list[str]:
        if self.coordinator_only >= nodes:
            return [f"coordinator_only: {self.coordinator_only} is not accepted with {nodes} nodes; at least one node must own the ring"]
        if self.strategy == "network_topology" and self.datacenters > self.ring_nodes(nodes):
            return [f"datacenters: {self.datacenters} is not accepted; it takes at most the {self.ring_nodes(nodes)} nodes on the ring"]
        if self.read_consistency in SERIAL_LEVELS and self.write_consistency not in SERIAL_LEVELS:
            given = f"read_consistency: {self.read_consistency} is not accepted with write_consistency {self.write_consistency}"
            return [given + "; a Paxos read does not see plain writes in flight, so it takes SERIAL or LOCAL_SERIAL for both"]
        if len(self.past_read_timeouts) not in (0, nodes) or min(self.past_read_timeouts, default=0) < 0:
            return [f"past_read_timeouts: {list(self.past_read_timeouts)} is not accepted with {nodes} nodes; it takes a count from 0 for each node, or none"]
        return []
