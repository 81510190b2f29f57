"""A fake link: drive a few replicas of one policy by hand, in one process, without the engine; for tests of a protocol, yours or ours.

Decides: what a test sees of a policy: answers, versions, roles, and a transcript of every message as text.
May not know: scenarios, schedules, workloads, Ray.  It is deterministic: the same calls give the same transcript, byte for byte.
Simplified on purpose beside the engine, so that a transcript can be worked out by hand: every message takes the same time, a disk sync
takes a constant, what a cut held arrives one latency after heal (the engine: after TCP's retransmission time-out), a dial takes one round
trip and in a cut waits for heal (the engine: retries from 1 s, doubling), and clients have no deadline.
Sources: Maelstrom and etcd-io/raft's testdata (transcripts as tests), Stateright (a handler's effects carried out by a harness).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from typing import Any

import msgspec

from capray.errors import wrong
from capray.record import Operation, Outcome, Version
from capray.replica import CANCEL_TIMER, CLOSE, CONNECT, PERSIST, REPLY, ROLE, SEND, SEND_ALL, SET_TIMER, VERSION, Replica, Request, Settings
from capray.testing_wire import DELIVERY, TIMER, ContractError, Mode, Wire

__all__ = ["ContractError", "FakeLink", "Reply"]


class Reply(msgspec.Struct, frozen=True):
    """A client's answer.  `outcome` ok, fail or info; `result` what a read returned; `at` virtual microseconds."""

    outcome: Outcome
    result: Any
    error: str | None
    at: int


class FakeLink(Wire):
    """`nodes` replicas of `policy`, joined by links of `latency_us` one way, on disks whose sync takes `sync_us`.

    Time is virtual and in microseconds; it moves only in `run`, `run_for` and `wait`.  A story is told by calls:

        link = FakeLink(MyPolicy, nodes=3)
        first = link.request(0, "write", "x", "a")     # a client at node 0 writes
        assert link.wait(first).outcome == "ok"
        link.cut([[0], [1, 2]])                        # silence between the sides; nobody is told
        second = link.request(0, "write", "x", "b")
        link.run_for(5_000_000)
        assert second not in link.replies              # it hangs, as a real one would
        print(link.transcript())

    What to look at: `replies` (id -> Reply), `versions` (what each replica applied), `roles` (node -> its last announced role),
    `role_changes`, `log` (the transcript's lines), `history()` (for the checkers), `replica(node)` (the state machine itself),
    `journal(node)`.

    transport: from the policy's class.  "tcp": ordered, a cut holds what is sent and delivers it after `heal()` unless a side called
    `close()` (a client's goes on); connections among all pairs are open at the start.  "datagram": a cut drops; there are no connections.  `cut(mode=...)`
    overrides what the cut does to messages.  For uneven latency or loss, subclass and override `latency` and `loses`.

    Every message goes through MessagePack and every journal record must be encodable, as between real processes; one that does not
    survive it, an answer given twice, or an answer to nobody raises ContractError.
    """

    def __init__(
        self, policy: type[Replica], nodes: int, settings: Settings | None = None, latency_us: int = 250, sync_us: int = 100, seed: int = 0
    ) -> None:
        if nodes < 1:
            raise wrong("nodes", nodes, "an integer from 1")
        if latency_us < 1:
            raise wrong("latency_us", latency_us, "microseconds, at least 1")
        if sync_us < 0:
            raise wrong("sync_us", sync_us, "microseconds, at least 0 (0: a sync is complete at once)")
        super().__init__(policy, nodes, latency_us, seed)
        self.settings = policy.Settings() if settings is None else settings
        for problem in self.settings.problems(nodes):
            raise wrong("settings", self.settings, problem)
        self.sync_us = sync_us
        self.replies: dict[int, Reply] = {}
        self.requests: dict[int, tuple[int, Request, int]] = {}  # id -> node, request, when
        self.versions: list[Version] = []
        self.roles: dict[int, str] = {}
        self.role_changes: list[tuple[int, int, str]] = []  # when, node, role
        for node in range(nodes):
            self._boot(node)
        for node in range(nodes):
            self._run_handler(node, "on_start")

    # ---- what a test does ---------------------------------------------------------------------------------------------------------
    def request(self, node: int, f: str, key: str, value: Any = None, session: int = 0, timeout_us: int = 0) -> int:
        """A client of `node` asks now; the number under which `replies` will hold the answer.  At a crashed node it is refused: `fail`."""
        request = Request(len(self.requests) + 1, f, key, value, session, timeout_us)
        self.requests[request.id] = (node, request, self.now)
        self._note(f"client -> {node} #{request.id} {f}({key}{'' if value is None else '=' + repr(value)})")
        if self._hosts[node].replica is None:
            self._answer(node, request.id, "fail", None, "connection refused")
        else:
            self._hosts[node].pending.add(request.id)
            self._run_handler(node, "on_request", request)
        return request.id

    def run(self, until_us: int) -> None:
        """Let everything due up to and including `until_us` happen; afterwards `now` is `until_us`."""
        while self._events and self._events[0][0] <= until_us:
            self._step()
        self.now = max(self.now, until_us)

    def run_for(self, us: int) -> None:
        """`run` until `us` microseconds from now."""
        self.run(self.now + us)

    def wait(self, request_id: int, limit_us: int = 60_000_000) -> Reply:
        """Run until the request is answered, and return the answer; AssertionError if `limit_us` pass without one."""
        end = self.now + limit_us
        while request_id not in self.replies:
            if not self._events or self._events[0][0] > end:
                raise AssertionError(f"request {request_id} not answered within {limit_us} us\n{self.transcript()}")
            self._step()
        return self.replies[request_id]

    def cut(self, groups: Iterable[Iterable[int]], mode: Mode | None = None) -> None:
        """Silence between the groups, both ways, from now on; nodes not named are one more group.  `hold`: what is under way or sent
        arrives after heal, as on TCP; `drop`: it is lost.  By default what the policy's transport does.  Nobody is notified."""
        sides = [sorted(group) for group in groups]
        named = {node for side in sides for node in side}
        sides.append([node for node in range(self.nodes) if node not in named])
        self._note("cut " + " | ".join(" ".join(map(str, side)) for side in sides if side))
        side_of = {node: index for index, side in enumerate(sides) for node in side}
        pairs = [(a, b) for a in range(self.nodes) for b in range(self.nodes) if side_of[a] != side_of[b]]
        self._block(pairs, mode)

    def cut_one_way(self, src: int, dst: int, mode: Mode | None = None) -> None:
        """Nothing passes from `src` to `dst`; the other direction is as it was."""
        self._note(f"cut {src} -> {dst}")
        self._block([(src, dst)], mode)

    def heal(self) -> None:
        """End every cut.  What was held goes out now, in the order in which it was sent; pending dials are tried again."""
        self._note("heal")
        self._blocked.clear()
        held, self._held = self._held, []
        for src, dst, event in held:
            self._transmit(src, dst, event)
        self._dial_again()

    def crash(self, node: int, host: bool = False) -> None:
        """The process dies: timers, memory and unanswered requests are gone, the journal stays; peers see their connections end.
        With `host` the machine dies: unsynced records are gone too, and peers see only silence.  Its clients' open requests are answered
        at once: a write `info`, a read `fail`."""
        self._note(f"crash {node}{' (host)' if host else ''}")
        machine = self._hosts[node]
        machine.replica = None
        machine.dark = host
        machine.process += 1
        machine.timers.clear()
        machine.waiting.clear()
        machine.flushing = False
        machine.dialling.clear()
        if host:
            del machine.journal[machine.synced :]
        for peer, number in sorted(machine.connections.items()):
            if host:
                self._broken.add(number)
            else:
                self._transmit(node, peer, (self._disconnect, (peer, node, number)))
        machine.connections.clear()
        for request_id in sorted(machine.pending):
            is_write = self.requests[request_id][1].f != "read"
            self._answer(node, request_id, "info" if is_write else "fail", None, "connection reset")

    def restart(self, node: int) -> None:
        """Boot the crashed node's process again from its journal, which it syncs as it reads it (as PostgreSQL's recovery does).  Peers of a
        crashed host see the old connections end now."""
        if self._hosts[node].replica is not None:
            raise wrong("node", node, "a crashed node")
        self._note(f"restart {node}")
        self._boot(node)
        self._hosts[node].synced = len(self._hosts[node].journal)
        for peer in range(self.nodes):
            number = self._hosts[peer].connections.get(node)
            if number is not None and number in self._broken:
                self._transmit(node, peer, (self._disconnect, (peer, node, number)))
        self._run_handler(node, "on_restart", list(self._hosts[node].journal))
        self._dial_again()

    def skew(self, node: int, skew_us: int) -> None:
        """The node's own clock shows virtual time plus `skew_us` from now on."""
        self._hosts[node].skew_us = skew_us

    def is_up(self, node: int) -> bool:
        """Whether the node's process runs."""
        return self._hosts[node].replica is not None

    # ---- what a test looks at -----------------------------------------------------------------------------------------------------
    def replica(self, node: int) -> Any:
        """The policy's state machine on `node`; AssertionError while it is crashed."""
        replica = self._hosts[node].replica
        assert replica is not None, f"node {node} is crashed"
        return replica

    def journal(self, node: int) -> list[Any]:
        """The node's journal, synced or not, oldest first."""
        return list(self._hosts[node].journal)

    def values(self, key: str) -> list[Any]:
        """What each node's replica holds for `key` (`peek`); None for a crashed one."""
        return [None if host.replica is None else host.replica.peek(key) for host in self._hosts]

    def transcript(self) -> str:
        """All lines of the log: messages when they arrive (or where they were lost), requests, answers, roles, faults."""
        return "\n".join(self.log) + "\n"

    def history(self) -> list[Operation]:
        """What clients asked and got, by invocation: for the checkers.  An unanswered write is `info`, an unanswered read `fail`.
        Each session of each node is a process of its own."""
        return [self._operation(*asked) for asked in self.requests.values()]

    # ---- inside -------------------------------------------------------------------------------------------------------------------
    def _operation(self, node: int, request: Request, invoke: int) -> Operation:
        missing = Reply("fail" if request.f == "read" else "info", None, "no answer", self.now)
        reply = self.replies.get(request.id, missing)
        return Operation(
            process=request.session * self.nodes + node,
            node=node,
            f=request.f,
            key=request.key,
            value=request.value,
            result=reply.result,
            invoke=invoke,
            complete=None if reply.outcome == "info" else reply.at,
            type=reply.outcome,
            error=reply.error,
        )

    def _step(self) -> None:
        self.now, _, count, (act, arguments) = heapq.heappop(self._events)
        if act == self._fire:
            arguments = (*arguments, count)
        act(*arguments)

    def _boot(self, node: int) -> None:
        host = self._hosts[node]
        host.dark = False
        host.replica = self.policy(node, self.nodes, self.settings, host.stream)
        host.replica.now = self.now + host.skew_us

    # ---- effects ------------------------------------------------------------------------------------------------------------------
    def _carry_out(self, node: int, effects: list[tuple[Any, ...]]) -> None:
        host = self._hosts[node]
        for index, effect in enumerate(effects):
            tag = effect[0]
            if tag == SEND:
                self._send(node, effect[1], effect[2])
            elif tag == SEND_ALL:
                for peer in effect[1]:
                    self._send(node, peer, effect[2])
            elif tag == REPLY:
                self._answer(node, *effect[1:])
            elif tag == SET_TIMER:
                host.timers[effect[1]] = self._push(self.now + effect[2], TIMER, (self._fire, (node, effect[1])))
            elif tag == CANCEL_TIMER:
                host.timers.pop(effect[1], None)
            elif tag == PERSIST:
                msgspec.msgpack.encode(effect[1])
                host.journal.append(effect[1])
                if effect[2] and self.sync_us:
                    self._sync(node, effects[index + 1 :])
                    return
                if effect[2]:
                    host.synced = len(host.journal)
            else:
                self._carry_out_other(node, effect)

    def _carry_out_other(self, node: int, effect: tuple[Any, ...]) -> None:
        tag = effect[0]
        if tag == CONNECT:
            if self._tcp and effect[1] != node and effect[1] not in self._hosts[node].connections:
                self._dial(node, effect[1])
        elif tag == CLOSE:
            self._close(node, effect[1])
        elif tag == VERSION:
            self.versions.append(Version(self.now, node, *effect[1:]))
        elif tag == ROLE:
            self.roles[node] = effect[1]
            self.role_changes.append((self.now, node, effect[1]))
            self._note(f"{node} becomes {effect[1]}")
        else:
            raise ContractError(f"node {node}: unknown effect {effect!r}")

    def _answer(self, node: int, request_id: int, outcome: Outcome, result: Any, error: str | None) -> None:
        if request_id not in self.requests or self.requests[request_id][0] != node:
            raise ContractError(f"node {node} answers request {request_id}, which it was not asked")
        if request_id in self.replies:
            raise ContractError(f"node {node} answers request {request_id} twice\n{self.transcript()}")
        self._hosts[node].pending.discard(request_id)
        self.replies[request_id] = Reply(outcome, result, error, self.now)
        shown = "" if result is None else f" {result!r}"
        self._note(f"{node} -> client #{request_id} {outcome}{shown}{'' if error is None else f' ({error})'}")

    def _fire(self, node: int, name: Any, count: int) -> None:
        host = self._hosts[node]
        if host.timers.get(name) == count:
            del host.timers[name]
            self._run_handler(node, "on_timer", name)

    def _sync(self, node: int, effects: list[tuple[Any, ...]]) -> None:
        """Group commit: what arrives while a flush runs shares the next one."""
        host = self._hosts[node]
        host.waiting.append(effects)
        if not host.flushing:
            self._flush(node)

    def _flush(self, node: int) -> None:
        host = self._hosts[node]
        host.flushing = True
        group, host.waiting = host.waiting, []
        self._push(self.now + self.sync_us, DELIVERY, (self._flushed, (node, host.process, len(host.journal), group)))

    def _flushed(self, node: int, process: int, synced: int, group: list[list[tuple[Any, ...]]]) -> None:
        host = self._hosts[node]
        if process != host.process:
            return
        host.synced = synced
        host.flushing = False
        if host.waiting:
            self._flush(node)
        for effects in group:
            self._carry_out(node, effects)
