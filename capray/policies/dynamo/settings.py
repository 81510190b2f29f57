"""DeCandia et al., "Dynamo" (SOSP 2007): the settings of the `dynamo` policy, with their defaults' sources.

Decides: names, units, defaults, and what is refused for a cluster.  May not know: protocol, messages.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from capray.replica import Settings


class DynamoSettings(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """N, R, W and the rest; times in microseconds."""

    n: Annotated[int, Meta(ge=0, description="replicas of each key; 0: 3 (section 6: the common (N,R,W) is (3,2,2)), or all nodes if fewer")] = 0
    r: Annotated[int, Meta(ge=0, description="nodes that must answer a read; 0: 2 (section 6), or n if less")] = 0
    w: Annotated[int, Meta(ge=0, description="nodes that must have a write; 0: 2 (section 6), or n if less")] = 0
    client: Annotated[Literal["merging", "last-write-wins"], Meta(description="who reconciles siblings: the client, or the larger timestamp "
                                                                  "(section 6, business logic or timestamp based)")] = "merging"
    sloppy_quorum: Annotated[bool, Meta(description="go past unreachable nodes of the list, with hints (section 4.6); false: the n nodes only")] = True
    read_repair: Annotated[bool, Meta(description="update the nodes that answered a read with less (section 5)")] = True
    clock_threshold: Annotated[int, Meta(ge=2, description="a vector clock that reaches so many entries loses its oldest; section 4.4: say 10")] = 10
    response_timeout_us: Annotated[int, Meta(ge=1000, description="silence after which a node asked is suspected; us; the paper names none; above "
                                             "its 300 ms service level")] = 400_000
    request_timeout_us: Annotated[int, Meta(ge=1000, description="a request is given up after; us; the paper names none")] = 2_000_000
    retry_interval_us: Annotated[int, Meta(ge=1000, description="a suspected node is asked again after; us; the paper names none (periodically)")] = 1_000_000
    gossip_interval_us: Annotated[int, Meta(ge=1000, description="one random peer is contacted each; us; section 4.8.1: every second")] = 1_000_000
    handoff_interval_us: Annotated[int, Meta(ge=1000, description="hints are scanned each; us; the paper names none (periodically)")] = 5_000_000
    anti_entropy_interval_us: Annotated[int, Meta(ge=0, description="a node compares Merkle trees with a random one each; us; 0: never; the paper "
                                                  "names none")] = 10_000_000
    partitioner: Annotated[Literal["murmur3", "key_number"], Meta(description="as in `cassandra`; the paper hashes with MD5")] = "murmur3"

    def replicas(self, nodes: int) -> int:
        """N for a cluster of so many."""
        return self.n or min(3, nodes)

    def quorums(self, nodes: int) -> tuple[int, int]:
        """R and W."""
        least = min(2, self.replicas(nodes))
        return self.r or least, self.w or least

    def problems(self, nodes: int) -> list[str]:
        count = self.replicas(nodes)
        read, write = self.quorums(nodes)
        checks = [("n", count, nodes, "the cluster's nodes"), ("r", read, count, "n"), ("w", write, count, "n")]
        return [f"{name}: {value!r} is not accepted; it takes at most {most}, {what}" for name, value, most, what in checks if value > most]
