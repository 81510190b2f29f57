"""What to run: everything that decides a trial but its seed; frozen, validated, from TOML or Python.

Decides: names, units and defaults of a scenario's fields, and what is refused.  May not know: how it is run.
In TOML and on the command line a duration is written with its unit and without the suffix: `at = "10s"` sets `at_us`.
"""

from __future__ import annotations

import hashlib
import tomllib
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec

from capray.distributions import AnyDistribution
from capray.errors import InputError, bounds_of, complaint, duration_us, show_us, wrong
from capray.faults import Fault, FaultKind
from capray.links import Link, disk_preset, link_preset, load_files
from capray.policies import load
from capray.replica import Replica, Settings
from capray.soundness import accepted
from capray.workload import Workload

DEFAULT_AFTER_US = 20_000_000
DEFAULT_LOAD_US = 30_000_000
MAX_NODES = 1000
MAX_OPERATIONS = 20_000_000  # of one trial, which holds its history while it runs: some 200 bytes each, and more once it is measured
MAX_US = 366 * 86_400_000_000  # of one trial, whatever its clients ask: heartbeats and timers go on
CUT_MODES = ("policy", "drop", "deliver", "hold", "tcp")


class Scenario(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, dict=True):
    """One policy on one cluster under one workload and one fault schedule.

    Time runs: clients ask from 0 to `duration_us` (0: until 20 s after the last fault ends, 30 s where there is none); then `quiet_us`
    without requests; then every node reads every key (`final`), and the trial ends one deadline later.
    """

    policy: str = "zookeeper"
    settings: dict[str, Any] = {}
    nodes: int = 5
    link: str | Link = "lan"  # a preset's name, or the link itself
    disk: str | AnyDistribution = "ssd"  # the time of one synced write
    workload: Workload = Workload()
    faults: tuple[Fault, ...] = ()
    duration_us: int = 0
    quiet_us: int = 5_000_000
    cut_mode: str = "policy"  # what a cut does to messages: drop, deliver, hold, tcp; policy: tcp where the real system speaks it
    service_us: int = 0  # time a node takes for each message and request
    clock_offset_us: tuple[int, ...] = ()  # each node's clock minus true time
    clock_drift_ppm: tuple[int, ...] = ()
    trace_us: tuple[int, ...] = ()  # (from, to): messages sent then are kept for the space-time diagram

    def resolved(self) -> Scenario:
        """The same scenario with presets, files and settings resolved and everything validated.  Raises InputError."""
        link = link_preset(self.link) if isinstance(self.link, str) else self.link
        link = msgspec.structs.replace(link, latency=load_files(link.latency, "link.latency"),
                                       by_class={k: load_files(v, "link.by_class") for k, v in link.by_class.items()})
        disk = disk_preset(self.disk) if isinstance(self.disk, str) else load_files(self.disk, "disk")
        policy = load(self.policy)
        full = settings_of(policy, self.settings)
        given = {name: value for name, value in msgspec.structs.asdict(full).items() if value != _default(policy.Settings, name)}
        scenario = msgspec.structs.replace(self, link=link, disk=disk, settings=given)
        scenario._validate()
        return scenario

    def _validate(self) -> None:
        if not 1 <= self.nodes <= MAX_NODES:
            raise wrong("nodes", self.nodes, f"a whole number from 1 to {MAX_NODES}")
        if self.cut_mode not in CUT_MODES:
            raise wrong("cut_mode", self.cut_mode, "one of " + ", ".join(CUT_MODES))
        if self.transport == "datagram" and not self.policy_class.datagrams:
            raise wrong("link.transport", "datagram", f"tcp: {self.policy}'s messages are a byte stream")
        if self.cut_mode == "tcp" and self.transport != "tcp":
            raise wrong("cut_mode", "tcp", "drop, deliver or hold where the transport is datagram")
        for name in ("duration_us", "quiet_us", "service_us"):
            if getattr(self, name) < 0:
                raise wrong(name, getattr(self, name), "0 or more microseconds")
        for name in ("clock_offset_us", "clock_drift_ppm"):
            if len(getattr(self, name)) not in (0, self.nodes):
                raise wrong(name, getattr(self, name), f"one number for each of the {self.nodes} nodes")
        if any(abs(ppm) >= 500_000 for ppm in self.clock_drift_ppm):
            raise wrong("clock_drift_ppm", self.clock_drift_ppm, "parts per million within +- 500000")
        if len(self.trace_us) not in (0, 2) or list(self.trace_us) != sorted(self.trace_us) or min(self.trace_us, default=0) < 0:
            raise wrong("trace_us", self.trace_us, "two instants, from and to, in microseconds")
        disk = [f"disk: {problem}" for problem in self.storage.problems()]
        problems = [*self.wire.problems(), *disk, *self.workload.problems()]
        if not problems:
            problems += self._too_long()
        for fault in self.faults:
            problems += fault.problems(self.nodes)
            if fault.at_us + fault.for_us > self.load_us or fault.at_us >= self.load_us:
                problems.append(str(wrong("for", show_us(fault.for_us), f"a fault that ends within the trial: at {show_us(fault.at_us)} + for "
                                          f"{show_us(fault.for_us)} is after {show_us(self.load_us)}")))
        problems += self.policy_settings.problems(self.nodes)
        if self.workload.delete_share and not self.policy_class.deletes(self.policy_settings):
            problems.append(str(wrong("workload.delete_share", self.workload.delete_share, f"0: {self.policy}'s clients, as set, cannot delete")))
        if problems:
            raise InputError(problems[0])

    def _too_long(self) -> list[str]:
        """A trial that no machine would end."""
        asked = self.nodes * self.workload.rate
        most = min(MAX_US, int(MAX_OPERATIONS * 1_000_000 / asked)) if asked else MAX_US
        if self.load_us + self.quiet_us <= most:
            return []
        return [str(wrong("duration", show_us(self.load_us), f"at most {show_us(most)} (366 days, or {MAX_OPERATIONS:,} operations: "
                          f"{self.nodes} nodes x {self.workload.rate:g} a second)"))]

    # ---- what follows from the fields (of a resolved scenario) ----------------------------------------------------------------------
    @cached_property
    def policy_class(self) -> type[Replica]:
        """The policy's class."""
        return load(self.policy)

    @cached_property
    def policy_settings(self) -> Settings:
        """The policy's settings, defaults filled in."""
        return settings_of(self.policy_class, self.settings)

    @cached_property
    def wire(self) -> Link:
        """The link itself, also where a preset was named."""
        return link_preset(self.link) if isinstance(self.link, str) else self.link

    @cached_property
    def storage(self) -> AnyDistribution:
        """The time of one synced write, also where a preset was named."""
        return disk_preset(self.disk) if isinstance(self.disk, str) else self.disk

    @cached_property
    def transport(self) -> str:
        """`tcp` or `datagram`."""
        return self.policy_class.transport if self.wire.transport == "policy" else self.wire.transport

    @cached_property
    def effective_cut_mode(self) -> str:
        """What a cut does to messages: drop, deliver, hold or tcp."""
        if self.cut_mode != "policy":
            return self.cut_mode
        return "tcp" if self.transport == "tcp" else "drop"

    @cached_property
    def lookahead_us(self) -> int:
        """The smallest one-way latency any link can give."""
        return self.wire.lookahead_us(self.nodes)

    @cached_property
    def load_us(self) -> int:
        """When clients stop asking."""
        if self.duration_us:
            return self.duration_us
        return max((fault.at_us + fault.for_us for fault in self.faults), default=DEFAULT_LOAD_US - DEFAULT_AFTER_US) + DEFAULT_AFTER_US

    @cached_property
    def final_us(self) -> int:
        """When every node reads every key."""
        return self.load_us + self.quiet_us

    @cached_property
    def end_us(self) -> int:
        """The last instant of the trial."""
        return self.final_us + self.workload.deadline_us

    def digest(self) -> str:
        """BLAKE2b-128, in hex, of the fields that differ from their defaults: a new field changes no old digest.  What is traced decides nothing."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        plain = _without_defaults(msgspec.structs.replace(self, trace_us=()))
        return hashlib.blake2b(msgspec.msgpack.encode(plain, order="deterministic"), digest_size=16).hexdigest()


def _without_defaults(value: Any) -> Any:
    """A struct as nested dicts of its non-default fields, recursively."""
    if isinstance(value, msgspec.Struct):
        kept = {f.name: _without_defaults(getattr(value, f.name)) for f in fields_of(type(value)).values()
                if f.required or getattr(value, f.name) != _default(type(value), f.name)}
        tag = value.__struct_config__.tag
        return {**kept, "tag": tag} if tag else kept
    if isinstance(value, (tuple, list)):
        return [_without_defaults(item) for item in value]
    if isinstance(value, dict):
        return {name: _without_defaults(item) for name, item in value.items()}
    return int(value) if isinstance(value, float) and value.is_integer() else value  # 75 and 75.0 are one scenario


def _default(struct: type[msgspec.Struct], name: str) -> Any:
    field = fields_of(struct).get(name)
    if field is None:
        return msgspec.NODEFAULT
    return field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()


@lru_cache(maxsize=256)
def fields_of(struct: type[msgspec.Struct]) -> dict[str, Any]:
    """A struct's fields by name; msgspec evaluates every annotation anew at each call, which costs milliseconds."""
    return {field.name: field for field in msgspec.structs.fields(struct)}


def settings_of(policy: type[Replica], given: dict[str, Any]) -> Settings:
    """A policy's settings from what a user wrote.  Raises InputError naming an unknown setting or a value that does not fit."""
    fields = fields_of(policy.Settings)
    out: dict[str, Any] = {}
    for name, value in given.items():
        field = fields.get(name) or fields.get(name + "_us")
        if field is None:
            known = ", ".join(n.removesuffix("_us") for n in fields)
            raise wrong("setting", name, f"one of {policy.name}'s: {known}" if known else f"nothing: {policy.name} has no settings")
        kind = get_args(field.type)[0] if get_origin(field.type) is Annotated else field.type
        typed = _typed(value, kind)
        if field.name.endswith("_us") and typed is not None:
            out[field.name] = duration_us(int(value) if isinstance(value, str) and value.isdigit() else value, f"setting {name}")
            continue
        try:
            out[field.name] = msgspec.convert(typed, field.type, strict=False)
        except msgspec.ValidationError as error:
            raise wrong(f"setting {name}", value, accepted(kind) + bounds_of(error)) from None
    return policy.Settings(**out)


def _typed(value: Any, kind: Any) -> Any:
    """What `--set NAME=VALUE` cannot write as it is: none, and several numbers as `1,2,3`."""
    many = get_origin(kind) is tuple
    if value == "none" and (many or type(None) in get_args(kind)):
        return () if many else None
    return value.split(",") if many and isinstance(value, str) else value


# ---- from TOML ----------------------------------------------------------------------------------------------------------------------
_DURATIONS = {"rto", "duration", "quiet", "service", "at", "for", "period", "deadline", "floor", "value", "low", "high",
              "mean", "median", "scale", "plus", "offset", "clock_offset", "trace"}


def with_units(raw: Any, field: str = "") -> Any:
    """Raw TOML with every duration (`at = "10s"`) turned into its field in microseconds (`at_us = 10000000`)."""
    if isinstance(raw, list):
        return [with_units(item, field) for item in raw]
    if not isinstance(raw, dict):
        return raw
    out = {}
    for name, value in raw.items():
        if name == "settings":
            out[name] = value
        elif name in _DURATIONS and not isinstance(value, dict):
            if name + "_us" in raw:
                raise wrong(field + name, value, f"one of {name} and {name}_us, not both")
            out[name + "_us"] = _signed(value, f"{field}{name}")
        elif name.endswith("_us") and isinstance(value, (str, list)):
            out[name] = _signed(value, f"{field}{name}")
        else:
            out[name] = with_units(value, f"{field}{name}.")
    return out


def _signed(value: object, field: str) -> Any:
    if isinstance(value, list):
        return [_signed(item, field) for item in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return value  # microseconds; whether it may be negative, its field says
    if isinstance(value, str) and value.startswith("-"):
        return -duration_us(value[1:], field)
    return duration_us(value, field)


def from_dict(raw: dict[str, Any]) -> Scenario:
    """A scenario from plain data, validated.  Raises InputError."""
    for name, each in (("clock_offset", 'duration for each node: ["0s", "5ms", ...]'), ("clock_drift_ppm", "number for each node: [0, 50, ...]")):
        for field in (name, f"{name}_us"):
            if not isinstance(raw.get(field, []), (list, tuple)):
                raise wrong(f"scenario.{field}", raw[field], f"a list, a {each}")
    try:
        plain = with_units(raw)
        return msgspec.convert(plain, Scenario).resolved()
    except msgspec.ValidationError as error:
        raise complaint("scenario", plain, str(error), _KNOWN, _CHOICES) from None


def _names(struct: type[msgspec.Struct]) -> list[str]:
    return [name.removesuffix("_us") for name in struct.__struct_fields__]


_KNOWN: dict[str, list[str]] = {
    "": _names(Scenario), "workload": _names(Workload), "link": _names(Link), "faults": _names(Fault), "disk": ["its shape's parameters"]}
_CHOICES: dict[str, list[str]] = {
    "kind": list(get_args(FaultKind)), "shape": [str(kind.__struct_config__.tag) for kind in get_args(AnyDistribution)],
    **{field.name: list(get_args(field.type)) for struct in (Workload, Link) for field in msgspec.structs.fields(struct) if get_origin(field.type) is Literal}}


def read_toml(path: str | Path) -> dict[str, Any]:
    """A TOML file as plain data.  Raises InputError naming the file and, where TOML gives it, the line."""
    try:
        return tomllib.loads(Path(path).read_text())
    except OSError as error:
        raise wrong("file", str(path), f"a readable TOML file ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise wrong("file", str(path), f"TOML ({error})") from None
