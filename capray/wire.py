"""Where a node's traffic goes: what a node asks of whatever carries it.

Decides: nothing; it is the seam between a node and its network.  On engine `local` the wire is the network itself, on the others a list that is
carried to it.  Times are virtual microseconds; a message's `counter` is its sender's own; `kind` is its class, `size` its bytes.
"""

from __future__ import annotations

from typing import Any

from mypy_extensions import mypyc_attr


@mypyc_attr(allow_interpreted_subclasses=True)
class Wire:
    """What carries a node's traffic."""

    __slots__ = ()

    def post(self, t: int, src: int, counter: int, dst: int, body: Any, kind: int, size: int) -> None:
        """Carry a message to `dst`."""
        raise NotImplementedError

    def carry(self, t: int, src: int, counter: int, dsts: tuple[int, ...], body: Any, kind: int, size: int) -> None:
        """`post` to each of `dsts`, in that order; the sender's counter goes up by 2 each."""
        raise NotImplementedError

    def connect(self, t: int, src: int, dst: int) -> None:
        """A node dials a peer."""
        raise NotImplementedError

    def close(self, t: int, src: int, dst: int) -> None:
        """A node closes its end of a connection."""
        raise NotImplementedError

    def role(self, t: int, node: int, name: str) -> None:
        """A node announces its role."""
        raise NotImplementedError
