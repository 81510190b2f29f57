"""What clients ask: how often, which keys, reads or writes.  client.py asks it.

Decides: the form of a workload.  May not know: policies, the network.
Arrivals are a Poisson process (exponential gaps, by an integer table) or evenly spaced; keys are uniform or Zipfian.  Written values are
distinct within a trial: 1 + node + nodes * (number of the node's write), so value mod nodes tells who wrote it.  A delete leaves its key without a
value (null); what a policy's clients delete, and whether they can, its class says (`deletes`): a set's clients remove an element that they have read, a
counter's, where it can go down, write an amount below 0.
Sources: open loop after Schroeder, Wierman and Harchol-Balter, NSDI 2006 (latency counts from the intended time); Zipfian keys after YCSB
(exponent 0.99), by its plain definition: key i of K has weight (i + 1) ** -exponent.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import msgspec

from capray.errors import wrong


class Workload(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The clients' requests; every node has one client."""

    rate: float = 20.0  # operations a second and node; 0: none but the final reads
    read_share: float = 0.5
    delete_share: float = 0.0  # of what is not a read
    keys: int = 5
    key_distribution: Literal["uniform", "zipfian"] = "uniform"
    zipf_exponent: float = 0.99
    arrivals: Literal["poisson", "even"] = "poisson"
    deadline_us: int = 1_000_000  # counted from the intended time
    client_placement: Literal["beside", "outside"] = "beside"  # on the node's host, or outside every cut between nodes

    def problems(self) -> list[str]:
        """Complaints, each naming field, value and what it takes."""
        checks = [
            ("rate", self.rate, self.rate == 0 or 0.001 <= self.rate <= 100_000, "operations a second and node, from 0.001 to 100000, or 0 for none"),
            ("read_share", self.read_share, 0 <= self.read_share <= 1, "a share from 0 to 1"),
            ("delete_share", self.delete_share, 0 <= self.delete_share <= 1, "a share from 0 to 1, of what is not a read"),
            ("keys", self.keys, 1 <= self.keys <= 100_000, "a whole number from 1 to 100000"),
            ("zipf_exponent", self.zipf_exponent, 0 < self.zipf_exponent <= 100, "a number above 0 and at most 100"),
            ("deadline", self.deadline_us, self.deadline_us > 0, "a duration above 0"),
        ]
        return [str(wrong("workload." + name, value, accepts)) for name, value, fine, accepts in checks if not fine]


@lru_cache(maxsize=16)
def zipf_thresholds(keys: int, exponent: str) -> tuple[int, ...]:
    """Cumulative Zipf weights as integers of 2**32; computed in 30-digit decimals, the same on every machine."""
    from decimal import Context, Decimal, localcontext

    with localcontext(Context(prec=30)):
        weights = [Decimal(i + 1) ** -Decimal(exponent) for i in range(keys)]
        total, running, out = sum(weights), Decimal(0), []
        for weight in weights:
            running += weight
            out.append(int(running / total * (1 << 32)))
    return tuple(out)
