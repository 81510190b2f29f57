"""A node's Redis clients: a pool to every server, and the question to the node's own Sentinel before each command ("Sentinel client spec").

Decides: which connection a command goes out on, when it is given up, and what its caller is told.  May not know: what the servers do.
As the clients of the measured run (reference/real_servers/index.json): "before each op asks its own node's sentinel get-master-addr-by-name, then reads
AND writes at that primary over a pooled connection (dropped on any error)".  A command is never sent twice: one sent and not answered is of
unknown outcome (a write: `info`; a read: `fail`); one never sent did not happen (`fail`).
A command that was given up may still land after heal: the kernel goes on sending what the closed connection held (tcp.py); in the measured runs one or two
writes of unknown outcome did.
"""

from __future__ import annotations

import msgspec

from capray.policies.driver import Alarm, Ready, Result, Select, Startup, Update, give_up
from capray.policies.redis.paths import NEVER, Paths
from capray.replica import Replica, Request

SILENT = "command timed out"
UNREACHED = "could not connect"
RESET = "connection reset with the command in flight"
REFUSED = "connection refused"


class Asked(msgspec.Struct):
    """A command that waits for its answer from `server`; `at`: when its client asked."""

    query: Select | Update
    server: int
    at: int
    sent: bool


class Pools:
    """The connections of one node's clients."""

    def __init__(self, owner: Replica, paths: Paths, primary: int, query_timeout_us: int, connect_timeout_us: int) -> None:
        """The clients have been at work for a while: each has a connection to the `primary`, and none to servers that it never had to ask."""
        self.owner = owner
        self.paths = paths
        self.query_timeout_us = query_timeout_us
        self.connect_timeout_us = connect_timeout_us
        self.idle = [int(server == primary) for server in range(owner.nodes)]
        self.heard = [NEVER] * owner.nodes
        self.silent = [False] * owner.nodes  # a command was given up, and nothing heard since it was sent
        self.asked: dict[int, Asked] = {}
        self.alarm = Alarm(owner, "clients", self.asked, self._due)

    def lost_at_boot(self) -> None:
        """The process was started again: there are no connections."""
        self.idle = [0] * self.owner.nodes
        self.silent = [not up for up in self.paths.up]

    def ask(self, request: Request, server: int) -> None:
        """Send a client's command to the server that its Sentinel named."""
        owner = self.owner
        query = Select(request.id, request.key) if request.f == "read" else Update(request.id, request.key, request.value)
        sent = self.idle[server] > 0
        asked = self.asked[request.id] = Asked(query, server, owner.now, sent)
        if sent:
            self.idle[server] -= 1
            owner.send(server, query)
        else:
            self._open(asked)
        self.alarm.watch(asked)

    def _open(self, asked: Asked) -> None:
        """Open a connection for a command: a try of its own (a SYN), where the server is silent or the path has been given up by this node.  Clients
        outside of the cut never find a server silent, and those who have heard it since need no path."""
        server = asked.server
        if self.silent[server] or (not self.paths.up[server] and self.heard[server] <= self.paths.lost_at[server]):
            self.paths.dial(server)
        self.owner.send(server, Startup(asked.query.id))

    def answered(self, src: int, result: Result) -> None:
        """The server has answered; its connection is idle again.  An answer to a command that was given up is ignored."""
        self._hear(src)
        asked = self.asked.get(result.id)
        if asked is not None and asked.server == src:
            del self.asked[result.id]
            self.idle[src] += 1
            self.owner.reply(result.id, result.outcome, result.value, result.error)

    def ready(self, src: int, message: Ready) -> None:
        """A new connection is open: its command follows."""
        self._hear(src)
        asked = self.asked.get(message.id)
        if asked is not None and not asked.sent and asked.server == src:
            asked.sent = True
            self.owner.send(src, asked.query)

    def _hear(self, server: int) -> None:
        self.heard[server] = self.owner.now
        self.silent[server] = False

    def opened(self, server: int) -> None:
        """The path is open again.  Commands asked since that dial have their connections; a SYN of before was lost, and its next is too late."""
        self.silent[server] = False
        since = self.paths.dialled[server] - self.paths.trying_us[server]
        for asked in self.asked.values():
            if asked.server == server and not asked.sent and asked.at >= since:
                self.owner.send(server, Startup(asked.query.id))

    def closed(self, server: int) -> None:
        """The server reset or refused: what was sent is of unknown outcome, what was not is refused."""
        self.idle[server] = 0
        self.silent[server] = True
        for asked in [asked for asked in self.asked.values() if asked.server == server]:
            self._give_up(asked, RESET if asked.sent else REFUSED)

    def on_timer(self) -> None:
        """Give up what is due, each with its connection."""
        for asked in self.alarm.overdue():
            self._give_up(asked, SILENT if asked.sent else UNREACHED)
            if self.heard[asked.server] <= asked.at:
                self.silent[asked.server] = True
                self.idle[asked.server] = 0
        self.alarm.watch_the_rest()

    def _due(self, asked: Asked) -> int:
        return asked.at + (self.query_timeout_us if asked.sent else self.connect_timeout_us)

    def _give_up(self, asked: Asked, why: str) -> None:
        del self.asked[asked.query.id]
        give_up(self.owner, asked.query, asked.sent, why)
