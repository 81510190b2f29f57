"""Primary copy with asynchronous replicas (Stonebraker 1979): node 0 orders the writes; every node reads its own copy."""

from typing import Annotated, Any

from msgspec import Meta

from capray.replica import Message, Replica, Request, Settings


class Forward(Message, frozen=True):
    request: int
    key: str
    value: Any

class Done(Message, frozen=True):
    request: int

class Copy(Message, frozen=True):
    key: str
    value: Any
    number: int

class PrimaryCopySettings(Settings, frozen=True, kw_only=True):
    give_up_us: Annotated[int, Meta(description="a forwarded write is given up after this; ours")] = 800_000

class PrimaryCopy(Replica):
    name = "primary-copy"
    claims = "reads everywhere, stale under a cut; writes only where the primary is reached"
    has_leader = True
    Settings = PrimaryCopySettings
    MESSAGES = (Forward, Done, Copy)

    def __init__(self, node: int, nodes: int, settings: Any, stream: Any) -> None:
        super().__init__(node, nodes, settings, stream)
        self.data: dict[str, Copy] = {}
        self.waiting: set[int] = set()

    def on_start(self) -> None:
        self.role("leader" if self.node == 0 else "follower")

    def on_restart(self, journal: list[Any]) -> None:
        for copy in journal:
            self.store(copy)
        self.on_start()
        for peer in (peer for peer in range(self.nodes) if peer != self.node):
            self.connect(peer)

    def on_request(self, request: Request) -> None:
        if request.f == "read":
            self.reply(request.id, "ok", self.peek(request.key))
        else:
            self.waiting.add(request.id)
            self.send(0, Forward(request.id, request.key, request.value))
            self.set_timer(("give up", request.id), self.settings.give_up_us)

    def on_timer(self, name: Any) -> None:
        self.waiting.remove(name[1])
        self.reply(name[1], "info", error="no answer from the primary")

    def on_connected(self, peer: int) -> None:
        for copy in self.data.values() if self.node == 0 else ():
            self.send(peer, copy)  # what the ended connection may have lost

    def on_message(self, src: int, message: Any) -> None:
        if isinstance(message, Forward):  # only node 0 gets these
            copy = Copy(message.key, message.value, max((c.number for c in self.data.values()), default=0) + 1)
            self.store(copy)
            self.persist(copy)  # what follows leaves when the disk has it
            self.send_all(tuple(range(1, self.nodes)), copy)
            self.send(src, Done(message.request))
        elif isinstance(message, Copy):
            self.store(message)
            self.persist(message, sync=False)
        elif message.request in self.waiting:
            self.waiting.remove(message.request)
            self.cancel_timer(("give up", message.request))
            self.reply(message.request, "ok")

    def store(self, copy: Copy) -> None:
        older = self.data.get(copy.key)
        if older is None or older.number < copy.number:
            self.data[copy.key] = copy
            self.applied(copy.key, copy.value, (copy.number,), () if older is None else (older.value,))

    def peek(self, key: str) -> Any:
        return self.data[key].value if key in self.data else None
