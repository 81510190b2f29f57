"""The command that replays one trial: its scenario, as TOML, and its seed.

Decides: how a row and its manifest become a command.  May not know: how a trial is run.
A sweep's trial is given whole, through standard input, so that the command needs neither the results directory nor the sweep: it prints the
digest that stands in the row's `record`.  A directory of `capray run` has its own command in its manifest.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

Row = Mapping[str, Any]


def scenario_toml(manifest: Mapping[str, Any], row: Row) -> str | None:
    """The scenario of a sweep's row as TOML, as capray.sweep.scenario_of makes it; None where the manifest is no sweep's."""
    spec = manifest.get("spec")
    if manifest.get("kind") != "sweep" or not isinstance(spec, dict):
        return None
    variant = next((one for one in spec.get("variants", ()) if one.get("label") == row.get("label")), None)
    if variant is None:
        return None
    nodes, cut_us = row["nodes"], row.get("duration_us") or 0
    grid: Mapping[str, Any] = next(
        (
            one
            for one in spec.get("grids", ())
            if nodes in one["nodes"] and row.get("duration") in one["durations"] and (not one.get("labels") or row["label"] in one["labels"])
        ),
        {},
    )
    raw: dict[str, Any] = {**spec.get("base", {}), **grid.get("base", {}), **variant.get("base", {}), "policy": variant["policy"], "nodes": nodes}
    raw["settings"] = {name: nodes if value == "nodes" else value for name, value in variant.get("settings", {}).items()}
    at_us = spec.get("at_us", 5_000_000)
    raw["duration_us"] = at_us + cut_us + spec.get("after_us", 20_000_000)
    if cut_us and variant.get("shape", "majority") != "none":
        raw["faults"] = [*raw.get("faults", []), {"kind": "partition", "shape": variant.get("shape", "majority"), "at_us": at_us, "for_us": cut_us}]
    return toml(raw)


def replay_command(manifest: Mapping[str, Any], row: Row) -> str:
    """What to type to replay the trial of a row; `replay` in the row wins; else the manifest's own command, where nothing better is known."""
    if row.get("replay"):
        return str(row["replay"])
    text = scenario_toml(manifest, row)
    if text is None:
        return str(
            manifest.get("command")
            or f"capray run --policy {shlex.quote(str(row.get('policy')))} --nodes {row.get('nodes')} --seed {row.get('seed')}"
        )
    return f"capray run /dev/stdin --seed {row['seed']} <<'EOF'\n{text}EOF"


def toml(raw: Mapping[str, Any]) -> str:
    """A flat TOML document: nested tables inline, nulls and empty tables left out."""
    return "".join(f"{_key(name)} = {_value(value)}\n" for name, value in raw.items() if value is not None and value != {})


def _key(name: str) -> str:
    return name if name.isidentifier() and name.isascii() else json.dumps(name)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(name)} = {_value(inner)}" for name, inner in value.items() if inner is not None) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_value(inner) for inner in value) + "]"
    return json.dumps(value)
