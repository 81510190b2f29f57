"""Where a node's traffic goes: what a node asks of whatever carries it.

Decides: nothing; it is the seam between a node and its network.  On engine `local` the wire is the network itself, on the others a list that is
carried to it.  Times are virtual microseconds; a message's `counter` is its sender's own; `kind` is its class, `size` its bytes.
"""

from __future__ import annotations

from typing import Any, Protocol


class Wire(Protocol):
    """Where a node's traffic goes."""

    def carry(self, t: int, src: int, counter: int, dsts: tuple[int, ...], body: Any, kind: int, size: int) -> None: ...
    def post(self, t: int, src: int, counter: int, dst: int, body: Any, kind: int, size: int) -> None: ...
    def connect(self, t: int, src: int, dst: int) -> None: ...
    def close(self, t: int, src: int, dst: int) -> None: ...
    def role(self, t: int, node: int, name: str) -> None: ...
