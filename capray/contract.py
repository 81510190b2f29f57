"""What passes between a replica and the rest: messages, requests, settings.  The replica itself is in replica.py.

Decides: their form (msgspec structs: typed, validated, encodable).  May not know: protocols, the network.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

import msgspec

# Message classes: a link may have a latency for each (PBS needs that).
WRITE: Final = 0
ACK: Final = 1
READ: Final = 2
RESPONSE: Final = 3
CONTROL: Final = 4
KINDS = ("write", "ack", "read", "response", "control")


class Message(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """What travels between replicas.  Subclass it once for each message of the protocol, all fields typed and msgpack-able.

    `kind` is its class for the network; `size` its nominal bytes on the wire (a property where it depends on the fields);
    `client` marks traffic between a client's side and a server, which a cut between servers spares when clients stand outside of it; it has a connection of
    its own, as a pool's, which is not closed with that of the two nodes.
    """

    kind: ClassVar[int] = CONTROL
    size: ClassVar[int] = 100
    client: ClassVar[bool] = False


class Request(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a client asks of the node that it talks to.  `id` is unique on that node; `session` is the client's process.
    f: `read` (value null) or `write`; keys are strings; written values are distinct within a trial, and never null.
    timeout_us: how much longer its client waits, from when the node is handed it (as gRPC's grpc-timeout header is relative); 0: it does not say.
    Most stores are never told, and go on; one whose protocol tells its server (etcd) may stop by it."""

    id: int
    f: str
    key: str
    value: Any
    session: int
    timeout_us: int = 0


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A policy's settings.  Subclass it: each field with a default and
    `Annotated[type, msgspec.Meta(description="meaning; unit; source of the default")]`.  Times are integer microseconds, names end in `_us`;
    a user may write them with units and without the suffix (`--set read_timeout=5s`).  Choices are `Literal[...]`."""

    def problems(self, nodes: int) -> list[str]:
        """Plain-English complaints about these settings for a cluster of `nodes`, each naming field, value and what is accepted."""
        return []
