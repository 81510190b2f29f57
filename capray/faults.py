"""What goes wrong, and when: the fault schedule, the shapes of partitions, the field's durations.

Decides: which nodes and directed links a fault names.  May not know: messages (network.py judges them), policies.
Sources: shapes after Jepsen's nemesis (partition-halves, majorities-ring, bridge) and Alquraan et al., OSDI 2018 (complete, partial,
simplex partitions); durations after Turner et al., SIGCOMM 2010 (CENIC), and public incident reports.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from capray.distributions import AnyDistribution, Constant, Lognormal, Mixture, Part, table
from capray.errors import show_us, wrong
from capray.streams import Stream

FaultKind = Literal["partition", "crash-process", "crash-host", "pause", "slow", "skew"]
SHAPES = ("majority", "leader-minority", "halves", "isolate", "isolate-leader", "one-way", "bridge", "ring", "flapping", "none")


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One entry of the schedule: from `at_us` for `for_us` (0: never healed).

    partition: `shape` is a shape's name or groups written out (`0,1|2,3,4`); `period_us` is a flapping cut's time cut and time whole.
    crash-process, crash-host, pause: `nodes` go down (or are stopped), and come back after `for_us`; an empty `nodes` means the leader then.
    slow: `nodes` take `factor` times as long for each service and sync, and at least `service_us` for each message.
    skew: the clocks of `nodes` jump by `offset_us` (may be negative), back when it ends.
    `on_role`: not at `at_us` but one lookahead after the first time, from `at_us` on, that a node announces this role (`leader`).
    """

    kind: FaultKind = "partition"
    at_us: int = 0
    for_us: int = 0
    shape: str = "majority"
    nodes: tuple[int, ...] = ()
    period_us: int = 2_000_000
    factor: int = 10
    service_us: int = 0
    offset_us: int = 0
    on_role: str = ""

    def problems(self, count: int) -> list[str]:
        """Complaints about this fault in a cluster of `count` nodes."""
        found = []
        if self.at_us < 0 or self.for_us < 0:
            found.append(str(wrong("fault.at_us", min(self.at_us, self.for_us), "0 or more microseconds")))
        if any(not 0 <= node < count for node in self.nodes) or len(set(self.nodes)) != len(self.nodes):
            found.append(str(wrong("fault.nodes", list(self.nodes), f"distinct nodes from 0 to {count - 1}")))
        if self.kind == "partition":
            found += shape_problems(self.shape, count)
            if self.shape == "flapping" and self.period_us <= 0:
                found.append(str(wrong("fault.period_us", self.period_us, "more than 0 microseconds")))
        if self.kind in ("slow", "skew") and not self.nodes:
            found.append(str(wrong("fault.nodes", [], f"the nodes that a {self.kind} fault touches")))
        if self.kind == "slow" and (self.factor < 1 or self.service_us < 0):
            found.append(str(wrong("fault.factor", self.factor, "a factor of 1 or more, and service_us of 0 or more")))
        return found


class Cut(msgspec.Struct, frozen=True):
    """A resolved shape: the sides (for measures), and the directed links that are blocked."""

    groups: tuple[tuple[int, ...], ...]
    blocked: tuple[tuple[int, int], ...]


def parse_groups(text: str) -> tuple[tuple[int, ...], ...] | None:
    """`0,1|2,3,4` -> ((0, 1), (2, 3, 4)); None where the text is not of that form."""
    try:
        return tuple(tuple(int(node) for node in group.split(",")) for group in text.split("|"))
    except ValueError:
        return None


def shape_problems(shape: str, count: int) -> list[str]:
    """Complaints about a shape's name or its groups for `count` nodes."""
    if shape in SHAPES:
        if shape != "none" and count < 2:
            return [str(wrong("partition", shape, "none, in a cluster of one node"))]
        return []
    groups = parse_groups(shape)
    if groups is None:
        return [str(wrong("partition", shape, "one of " + ", ".join(SHAPES) + ", or groups such as 0,1|2,3,4"))]
    named = [node for group in groups for node in group]
    if len(groups) > count:
        return [str(wrong("partition", shape, f"at most {count} groups for {count} nodes"))]
    if len(groups) < 2 or len(set(named)) != len(named) or any(not 0 <= node < count for node in named):
        return [str(wrong("partition", shape, f"two or more groups of distinct nodes from 0 to {count - 1}"))]
    return []


def resolve(shape: str, count: int, leader: int, nodes: tuple[int, ...] = ()) -> Cut:
    """The cut that a shape means now.  `leader` is the node that leads at this instant (0 for a policy without one).  A node that written-out
    groups leave out forms a group with the other such nodes."""
    groups = parse_groups(shape)
    if groups is not None:
        rest = tuple(node for node in range(count) if all(node not in group for group in groups))
        return _complete((*groups, rest) if rest else groups)
    small = max(1, (count - 1) // 2)
    if shape == "none":
        return Cut((), ())
    if shape == "halves":
        return _complete(_sides(count, range(count // 2)))
    if shape == "isolate":
        return _complete(_sides(count, nodes or ((leader - 1) % count,)))
    if shape == "isolate-leader":
        return _complete(_sides(count, (leader,)))
    if shape == "leader-minority":
        return _complete(_sides(count, [(leader + i) % count for i in range(small)]))
    if shape == "bridge":
        return _bridge(count)
    if shape == "ring":
        return _ring(count)
    sides = _sides(count, [(leader + 1 + i) % count for i in range(small)])
    if shape == "one-way":
        return Cut(sides, tuple((a, b) for a in sides[0] for b in sides[1]))
    return _complete(sides)  # majority, flapping


def _sides(count: int, one: object) -> tuple[tuple[int, ...], ...]:
    chosen = set(one)  # type: ignore[call-overload]
    return tuple(sorted(chosen)), tuple(node for node in range(count) if node not in chosen)


def _complete(groups: tuple[tuple[int, ...], ...]) -> Cut:
    return Cut(groups, tuple((a, b) for one in groups for other in groups if one is not other for a in one for b in other))


def _bridge(count: int) -> Cut:
    """Two halves that do not reach each other, and one node that reaches both."""
    middle = count // 2
    left, right = tuple(range(middle)), tuple(range(middle + 1, count))
    return Cut(tuple(g for g in (left, (middle,), right) if g), tuple(pair for a in left for b in right for pair in ((a, b), (b, a))))


def _ring(count: int) -> Cut:
    """Every node reaches a majority, its nearest in the ring; no two the same one."""
    reach = (count // 2 + 1) // 2
    far = [(a, b) for a in range(count) for b in range(count) if min((a - b) % count, (b - a) % count) > reach]
    return Cut(tuple((node,) for node in range(count)), tuple(far))


# ---- durations from the field (CENIC: Turner et al. 2010, isolating partitions; incidents: public post-mortems) --------------------
MINUTE = 60_000_000
FIELD_DURATIONS: dict[str, AnyDistribution] = {
    "cenic-software": Lognormal(2.7 * MINUTE, 1.21),  # median 2.7 min, p95 19.9 min
    "incidents": Mixture(tuple(Part(1, Constant(us)) for us in (43_000_000, 90_000_000, 18 * MINUTE, 60 * MINUTE, 120 * MINUTE, 300 * MINUTE))),
}


def draw_duration(name: str, seed: int) -> int:
    """One partition's duration in microseconds, from a named distribution of the field.  Raises InputError for an unknown name."""
    if name not in FIELD_DURATIONS:
        raise wrong("for", name, "a duration, or one of " + ", ".join(FIELD_DURATIONS))
    if name == "incidents":  # a list, each as likely
        parts = FIELD_DURATIONS[name].parts  # type: ignore[union-attr]
        return int(parts[Stream(seed, "duration").below(len(parts))].of.value_us)  # type: ignore[union-attr]
    return table(FIELD_DURATIONS[name]).draw(Stream(seed, "duration").bits())


def describe(fault: Fault) -> str:
    """A fault in a few words, for titles."""
    what = fault.shape if fault.kind == "partition" else f"{fault.kind} {','.join(map(str, fault.nodes)) or 'leader'}"
    return f"{what} for {show_us(fault.for_us)}" if fault.for_us else what
