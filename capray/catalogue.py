"""`capray policies`: each policy with what it claims, and its settings with units, defaults and sources."""

from __future__ import annotations

import json
import typing
from typing import Any

import msgspec

from capray.errors import show_us, wrong
from capray.policies import POLICIES, load
from capray.replica import Replica


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
    return getattr(annotation, "__name__", str(annotation)), meaning


def show_policies(name: str | None, as_json: bool) -> None:
    """Print one policy, or all.  Raises InputError for an unknown one."""
    names = [name] if name else list(POLICIES)
    if name and name not in POLICIES and ":" not in name:
        raise wrong("policy", name, "one of " + ", ".join(POLICIES) + ", or package.module:Class")
    for one in names:
        policy = load(one)
        if as_json:
            print(json.dumps({"policy": one, "claims": policy.claims, "source": _first_line(policy), "settings": settings_table(policy)}))
            continue
        print(f"{one}\n  {policy.claims}\n  {_first_line(policy)}")
        for row in settings_table(policy):
            print(f"    {row['setting']} = {row['default']}   ({row['accepts']})  {row['meaning']}")
        print()


def _first_line(policy: type[Replica]) -> str:
    import sys

    return (sys.modules[policy.__module__].__doc__ or "").strip().split("\n")[0]
