"""What can be seen of a policy's class without running it: its messages and its settings' defaults.

Decides: whether they keep the contract (contract.py, replica.py), in one line that names the policy, the place and the value.  May not know: protocols, scenarios.
What only shows in a run, a message sent that MESSAGES does not name, is told by the node that sends it, in the same words on every engine.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec

from capray.contract import Message, Settings
from capray.errors import InputError, bounds_of


def accepted(kind: Any) -> str:
    """What a setting of this type takes, in words."""
    choices = get_args(kind)
    if get_origin(kind) is tuple:
        return "whole numbers such as 1,2,3, or none"
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(str, choices))
    if type(None) in choices:
        return accepted(choices[0]) + ", or none"
    return {int: "a whole number", float: "a number", bool: "true or false"}.get(kind, "text")


@lru_cache(maxsize=64)
def _named(policy: Any) -> frozenset[type]:
    return frozenset(policy.MESSAGES)


def require_named(policy: Any, what: type) -> None:
    """Refuse a message that a policy sends, and its MESSAGES does not name.  Raises InputError."""
    if what not in _named(policy):
        known = ", ".join(each.__name__ for each in policy.MESSAGES) or "nothing"
        raise InputError(f"policy: {policy.__qualname__} sends {what.__qualname__}, which is not accepted; its MESSAGES names {known}")


def check(name: str, policy: Any) -> None:
    """Refuse a policy's class by what it declares.  Raises InputError."""
    for problem in (_about_messages(policy) or _about_settings(policy))[:1]:
        raise InputError(f"policy: {name!r} is not accepted; {problem}")


def _about_messages(policy: Any) -> list[str]:
    messages = policy.MESSAGES
    if not isinstance(messages, tuple):
        return [f"MESSAGES: {messages!r} is not accepted; it takes a tuple of Message's subclasses"]
    for each in messages:
        if not (isinstance(each, type) and issubclass(each, Message) and each is not Message):
            return [f"MESSAGES: {each!r} is not accepted; it takes subclasses of capray.replica.Message"]
    names = [each.__name__ for each in messages]
    if twice := [each for each in names if names.count(each) > 1]:
        return [f"MESSAGES: {twice[0]} is not accepted twice; it takes classes of different names"]
    try:
        msgspec.msgpack.Decoder(Union[(*messages, int, bytes)])
    except (TypeError, NameError) as error:
        return [f"MESSAGES: they cannot travel ({error}); it takes fields that MessagePack carries"]
    return []


def _about_settings(policy: Any) -> list[str]:
    settings = policy.Settings
    if not (isinstance(settings, type) and issubclass(settings, Settings)):
        return [f"Settings: {settings!r} is not accepted; it takes a subclass of capray.replica.Settings"]
    try:
        fields = msgspec.structs.fields(settings)
    except (TypeError, NameError) as error:
        return [f"Settings: its annotations cannot be read ({error}); it takes types such as int, bool, float, str, Literal[...]"]
    return [problem for field in fields for problem in _about_default(field)]


def _about_default(field: Any) -> list[str]:
    name, annotated = field.name, get_origin(field.type) is Annotated
    kind = get_args(field.type)[0] if annotated else field.type
    takes = "microseconds, a whole number" if name.endswith("_us") else accepted(kind)
    if field.required:
        return [f"setting {name}: it has no default; it takes {takes}"]
    default = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
    try:
        fits = msgspec.convert(msgspec.to_builtins(default), field.type) == default
        bounds = ""
    except (msgspec.ValidationError, TypeError, NotImplementedError) as error:
        fits, bounds = False, bounds_of(error)
    if fits and (isinstance(default, bool) <= (kind is not int)):
        return []
    return [f"setting {name}: its default {default!r} is not accepted; it takes {takes}{bounds}"]
