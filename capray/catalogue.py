"""`capray policies`: each policy with what it claims, and its settings with units, defaults and sources."""

from __future__ import annotations

import json
import re
import shutil
import sys
import textwrap
import typing
from typing import Any

import msgspec

from capray.errors import show_us
from capray.policies import POLICIES, load, registered
from capray.replica import Replica
from capray.soundness import accepted


def settings_table(policy: type[Replica]) -> list[dict[str, Any]]:
    """One dict a setting: name (as a user writes it), default, accepts, meaning (with unit and source)."""
    rows = []
    for field in msgspec.structs.fields(policy.Settings):
        default = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
        kind, meaning = _unwrap(field.type)
        duration = field.name.endswith("_us")
        rows.append({"setting": field.name.removesuffix("_us"), "default": show_us(default) if duration and isinstance(default, int) else default,
                     "accepts": "duration" if duration else kind, "meaning": meaning})
    return rows


def _unwrap(annotation: Any) -> tuple[str, str]:
    meaning = ""
    if typing.get_origin(annotation) is typing.Annotated:
        annotation, *extra = typing.get_args(annotation)
        meaning = next((item.description for item in extra if isinstance(item, msgspec.Meta) and item.description), "")
    choices = typing.get_args(annotation)
    if choices and all(isinstance(choice, str) for choice in choices):
        return " | ".join(choices), meaning
    return accepted(annotation).removeprefix("a "), meaning


def show_policies(name: str | None, as_json: bool) -> None:
    """Print one policy, or all.  Raises InputError for an unknown one."""
    for one in [name] if name else [*POLICIES, *registered()]:
        policy = load(one)
        if as_json:
            print(json.dumps({"policy": one, "claims": policy.claims, "source": source(policy), "settings": settings_table(policy)}))
        else:
            show(one, policy)
    if not as_json:
        print("Each is set by --set NAME=VALUE, or under [settings] of a scenario; a duration takes units (200ms, 10s, 5min, 3h), "
              "without one it is in microseconds.")


def show(name: str, policy: type[Replica]) -> None:
    """One policy for a reader; wrapped in a terminal, a line a setting elsewhere."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 100_000
    print(name)
    for text in (policy.claims, source(policy)):
        print(textwrap.fill(text, width, initial_indent="  ", subsequent_indent="  "))
    rows = settings_table(policy)
    if not rows:
        print("    (no settings)")
    for row in rows:
        meaning = re.sub(r"; (microseconds|us)(?=[,;]|$)", "", row["meaning"]) if row["accepts"] == "duration" else row["meaning"]
        head = f"{row['setting']} = {_typed(row['default'])}   ({row['accepts']})  "
        print(textwrap.fill(head + meaning, width, initial_indent="    ", subsequent_indent="        ", break_on_hyphens=False))
    print()


def _typed(default: Any) -> str:
    """A default as a user would type it."""
    if default is None or default == ():
        return "none"
    return str(default).lower() if isinstance(default, bool) else str(default)


def source(policy: type[Replica]) -> str:
    """What a policy follows: the first sentences of its module, to the end of a line."""
    lines = []
    for line in (sys.modules[policy.__module__].__doc__ or "").strip().split("\n"):
        if not line:
            break
        lines.append(line)
        if line.endswith("."):
            break
    return " ".join(" ".join(lines).split())
