"""Messages of the majority register (Attiya, Bar-Noy and Dolev 1995; Lynch and Shvartsman 1997): two rounds, each asked and answered."""

from __future__ import annotations

from typing import Any, ClassVar

from capray.replica import ACK, READ, RESPONSE, WRITE, Message

Tag = tuple[int, ...]  # (number, writer), ordered; not tuple[int, int], which mypyc would take apart and put together again at every use


class Ask(Message, frozen=True):
    """First round: what is your newest tag and value for the key?"""

    kind: ClassVar[int] = READ
    operation: int
    key: str


class Newest(Message, frozen=True):
    """A replica's answer to Ask."""

    kind: ClassVar[int] = RESPONSE
    operation: int
    tag: Tag
    value: Any


class Store(Message, frozen=True):
    """Second round: take this value if its tag is newer than yours."""

    kind: ClassVar[int] = WRITE
    operation: int
    key: str
    tag: Tag
    value: Any


class Stored(Message, frozen=True):
    """A replica holds the value, or a newer one."""

    kind: ClassVar[int] = ACK
    operation: int
