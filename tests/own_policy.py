"""Primary copy with asynchronous replicas (Stonebraker 1979): node 0 orders the writes; every node reads its own copy."""

from typing import Annotated, Any

from msgspec import Meta, structs

from capray.replica import Message, Replica, Request, Settings


class Write(Message, frozen=True):
    origin: int  # whose client asked
    request: int
    key: str
    value: Any
    number: int = 0  # its place in the primary's order; 0: it has none yet

class PrimaryCopySettings(Settings, frozen=True, kw_only=True):
    give_up_us: Annotated[int, Meta(description="a forwarded write is given up after this; ours")] = 800_000

class PrimaryCopy(Replica):
    name = "primary-copy"
    claims = "reads everywhere, stale under a cut; writes only where the primary is reached"
    has_leader = True
    Settings = PrimaryCopySettings
    MESSAGES = (Write,)

    def __init__(self, node: int, nodes: int, settings: Any, stream: Any) -> None:
        super().__init__(node, nodes, settings, stream)
        self.data: dict[str, Write] = {}
        self.waiting: set[int] = set()

    def on_start(self) -> None:
        self.role("leader" if self.node == 0 else "follower")

    def on_restart(self, journal: list[Any]) -> None:
        for write in journal:
            self.store(write)
        self.on_start()
        for peer in (peer for peer in range(self.nodes) if peer != self.node):
            self.connect(peer)

    def on_request(self, request: Request) -> None:
        if request.f == "read":
            self.reply(request.id, "ok", self.peek(request.key))
        else:
            self.waiting.add(request.id)
            self.send(0, Write(self.node, request.id, request.key, request.value))
            self.set_timer(("give up", request.id), self.settings.give_up_us)

    def on_timer(self, name: Any) -> None:
        self.waiting.remove(name[1])
        self.reply(name[1], "info", error="no answer from the primary")

    def on_connected(self, peer: int) -> None:
        for write in self.data.values() if self.node == 0 else ():
            self.send(peer, write)  # what the ended connection may have lost

    def on_message(self, src: int, write: Any) -> None:
        if write.number == 0:  # only node 0 gets these
            write = structs.replace(write, number=1 + max((known.number for known in self.data.values()), default=0))
        self.store(write)
        self.persist(write, sync=self.node == 0)  # what follows leaves when the primary's disk has it
        self.send_all(tuple(range(1, self.nodes)) if self.node == 0 else (), write)
        if write.origin == self.node and write.request in self.waiting:
            self.waiting.remove(write.request)
            self.cancel_timer(("give up", write.request))
            self.reply(write.request, "ok")

    def store(self, write: Write) -> None:
        older = self.data.get(write.key)
        if older is None or older.number < write.number:
            self.data[write.key] = write
            self.applied(write.key, write.value, (write.number,), () if older is None else (older.value,))

    def peek(self, key: str) -> Any:
        return self.data[key].value if key in self.data else None
