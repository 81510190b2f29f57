"""When two values of a history are the same value.

Decides: identity of JSON values as checkers see it (1, 1.0, true and "1" are four values; lists and maps by content).
May not know: models.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import msgspec

# Values of these types stand for themselves; Python's 1 == 1.0 == True makes the others need a wrapping.
PLAIN = frozenset((int, str, type(None)))
_TRUE, _FALSE = ("bool", "True"), ("bool", "False")


def canonical(value: Any) -> Hashable:
    """A hashable stand-in for `value`, equal for equal JSON values only."""
    kind = value.__class__
    if kind in PLAIN:
        return value  # type: ignore[no-any-return]
    if kind is list or kind is tuple:
        return tuple([item if item.__class__ in PLAIN else canonical(item) for item in value])
    if kind is bool:
        return _TRUE if value else _FALSE
    if kind is float:
        return ("float", repr(value))
    return ("json", msgspec.json.encode(value, order="deterministic"))
