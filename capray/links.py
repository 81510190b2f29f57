"""What a link and a disk are: floor, distribution for each message class, loss, duplication, transport; and presets with their sources.

Decides: the numbers of the simulated hardware.  May not know: messages, faults.
Sources:
- `lan`: one availability zone of EC2, mean round trip 0.55 ms (Bailis et al., "Highly Available Transactions", VLDB 2014, table 1a);
  the split into a floor of 200 us and an exponential part of mean 75 us a direction is ours.
- `wan-3dc`: Virginia, Oregon, Ireland: mean round trips 82.9, 107.9 and 170.6 ms (the same, table 1c), half of it a direction, `lan` inside and on top.
- `lnkd-ssd`, `lnkd-disk`, `ymmr`, `wan`: production fits of Bailis et al., "Probabilistically Bounded Staleness", VLDB 2012, table 3; YMMR's write tail
  index is 3.5 as in the authors' code (the table prints 3.35, which does not give their results).  `wan` puts every node in a data centre of its
  own: 75 ms on each message.
- disks: `ssd` and `disk` after etcd's hardware guide (a spinning disk syncs in about 10 ms, an SSD often below 1 ms); `fsync-2ms` is the machine of
  measured runs: median 2 ms, p99 20 ms. Their lognormal shapes are assumptions.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from capray.distributions import AnyDistribution, Constant, Distribution, Empirical, Exponential, Lognormal, Mixture, Pareto, Part, read_quantiles, table
from capray.errors import InputError, wrong

KIND_NAMES = ("write", "ack", "read", "response", "control")


class Link(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One direction between two nodes; every link of a scenario is alike but for `regions`.

    A message takes `floor_us` + a draw from `latency` (or from `by_class`: `write ack read response control`) + the region's distance.
    `regions`: one-way microseconds between regions, node i standing in region i mod the number of regions.
    """

    floor_us: int = 0
    latency: AnyDistribution = Constant(1000)
    by_class: dict[str, AnyDistribution] = {}
    regions: tuple[tuple[int, ...], ...] = ()
    loss: float = 0.0  # share of messages (TCP: segments) lost
    duplication: float = 0.0  # share of datagrams delivered twice
    transport: Literal["policy", "tcp", "datagram"] = "policy"  # policy: what its real system speaks
    rto_us: int = 200_000  # TCP's first retransmission time-out: Linux's least, TCP_RTO_MIN, which it adds to the smoothed round trip
    one_kernel: bool = False  # the nodes are containers or network namespaces of one machine: their kernels' timers are one

    def of_kind(self, kind: int) -> AnyDistribution:
        """The distribution for message class number `kind`."""
        return self.by_class.get(KIND_NAMES[kind], self.latency)

    def distance_us(self, src: int, dst: int) -> int:
        """The constant part between two nodes: floor and distance of their regions."""
        if not self.regions:
            return self.floor_us
        count = len(self.regions)
        return self.floor_us + self.regions[src % count][dst % count]

    def lookahead_us(self, nodes: int) -> int:
        """The smallest one-way latency any link can give, at least 1 us."""
        least = min(table(self.of_kind(kind)).least for kind in range(len(KIND_NAMES)))
        count = min(nodes, 2 * max(1, len(self.regions)))  # two nodes of each region, where there are so many, are every kind of pair
        distance = min((self.distance_us(a, b) for a in range(count) for b in range(count) if a != b), default=self.floor_us)
        return max(1, distance + least)

    def problems(self) -> list[str]:
        """Complaints, each naming field, value and what it takes."""
        found = [str(wrong(f"link.{name}", value, "a share from 0 to below 1"))
                 for name, value in (("loss", self.loss), ("duplication", self.duplication)) if not 0 <= value < 1]
        if self.floor_us < 0:
            found.append(str(wrong("link.floor_us", self.floor_us, "0 or more microseconds")))
        if not 1 <= self.rto_us <= 120_000_000:
            found.append(str(wrong("link.rto_us", self.rto_us, "1 to 120000000 microseconds (TCP_RTO_MAX)")))
        found += [str(wrong("link.by_class", name, "the classes " + ", ".join(KIND_NAMES))) for name in self.by_class if name not in KIND_NAMES]
        for name, distribution in [("latency", self.latency), *self.by_class.items()]:
            found += [f"link.{name}: {problem}" for problem in distribution.problems()]
        size = len(self.regions)
        if any(len(row) != size or min(row, default=0) < 0 for row in self.regions):
            found.append(str(wrong("link.regions", self.regions, "a square matrix of one-way microseconds")))
        return found


SSD_FIT = Mixture((Part(0.9122, Pareto(235, 10)), Part(0.0878, Exponential(1000 / 1.66))))
DISK_WRITE_FIT = Mixture((Part(0.38, Pareto(1050, 1.51)), Part(0.62, Exponential(1000 / 0.183))))
YMMR_WRITE_FIT = Mixture((Part(0.939, Pareto(3000, 3.5)), Part(0.061, Exponential(1000 / 0.0028))))
YMMR_FIT = Mixture((Part(0.982, Pareto(1500, 3.8)), Part(0.018, Exponential(1000 / 0.0217))))
LAN_TAIL = Exponential(75)

LINKS: dict[str, Link] = {
    "lan": Link(floor_us=200, latency=LAN_TAIL),
    "wan-3dc": Link(floor_us=200, latency=LAN_TAIL, regions=((0, 41_450, 53_950), (41_450, 0, 85_300), (53_950, 85_300, 0))),
    "lnkd-ssd": Link(latency=SSD_FIT),
    "lnkd-disk": Link(latency=SSD_FIT, by_class={"write": DISK_WRITE_FIT}),
    "ymmr": Link(latency=YMMR_FIT, by_class={"write": YMMR_WRITE_FIT}),
    "wan": Link(floor_us=75_000, latency=SSD_FIT, by_class={"write": DISK_WRITE_FIT}),
}

DISKS: dict[str, AnyDistribution] = {
    "memory": Constant(0),
    "ssd": Lognormal(800, 0.3),
    "disk": Lognormal(10_000, 0.3),
    "fsync-2ms": Lognormal(2_000, 0.99),
}


def link_preset(name: str) -> Link:
    """A named link.  Raises InputError for an unknown name."""
    if name not in LINKS:
        raise wrong("link", name, "one of " + ", ".join(LINKS) + ", or a table of its own")
    return LINKS[name]


def disk_preset(name: str) -> AnyDistribution:
    """A named disk: the time of one synced write.  Raises InputError for an unknown name."""
    if name not in DISKS:
        raise wrong("disk", name, "one of " + ", ".join(DISKS) + ", or a distribution of its own")
    return DISKS[name]


def load_files(distribution: AnyDistribution, field: str) -> AnyDistribution:
    """The same distribution with the quantiles of an `empirical` file read in.  Raises InputError naming file and line."""
    if isinstance(distribution, Empirical) and distribution.file:
        return read_quantiles(distribution.file, field)
    if isinstance(distribution, Mixture):
        return Mixture(tuple(Part(p.weight, load_files(p.of, field), p.plus_us) for p in distribution.parts))
    return distribution


__all__ = ["DISKS", "LINKS", "Distribution", "InputError", "Link", "disk_preset", "link_preset", "load_files"]
