"""Apache Cassandra 5.0's hinted handoff (package hints): writes kept for a replica that did not acknowledge them, and their replay.

Decides: when a hint reaches disk, when a file of hints is sent, what happens to one that is not acknowledged.
May not know: why a replica was silent, links, faults.
Sources: hints.HintsService (buffers flushed each hints_flush_period, 10 s), HintsDispatchTrigger (each 10 s, for each live endpoint: send
its files; close the file being written, which the NEXT run sends), HintsDispatchExecutor and HintsDispatcher (page by page, each hint
awaited for the write timeout; on a failure the file is kept from that page on, "partially"; throttle shared out over the other nodes),
StorageProxy.shouldHint (hint window, counted from conviction and, since 4.1, from the opening of the oldest file kept: HintsStore.findOldestHintTimestamp).
Simplified: a page is 64 KiB, sent at once, the throttle's pause behind it; the real one (HintsReader.PAGE_SIZE) is 512 KiB, sent hint by hint at
the throttle's pace, and awaited at its end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from capray.policies.cassandra.cells import Cell
from capray.policies.cassandra.messages import HintMessage
from capray.replica import Message

PAGE_BYTES = 64 << 10  # a quarter of a second at the default throttle among five nodes
DISPATCH_US = 10_000_000  # HintsService.startDispatch
Hint = tuple[str, Cell, int]  # key, cell, when the hint was made


class HintHost(Protocol):
    """What the hints service needs of its replica."""

    now: int
    nodes: int
    settings: Any

    def send(self, dst: int, message: Message) -> None: ...
    def set_timer(self, name: object, delay_us: int) -> None: ...
    def cancel_timer(self, name: object) -> None: ...
    def persist(self, record: object, sync: bool = True) -> None: ...


class Dispatch:
    """One file under way to its target."""

    __slots__ = ("offset", "page", "started", "unacknowledged")

    def __init__(self) -> None:
        self.offset = 0  # first hint of the page under way
        self.page = 0
        self.started = 0
        self.unacknowledged: set[int] = set()


class Store:
    """The hints for one target (HintsStore): the file being written, closed files (number, hints), where the first one's sending stands."""

    __slots__ = ("dispatch", "files", "offset", "writer")

    def __init__(self) -> None:
        self.writer: list[Hint] = []
        self.files: list[tuple[int, list[Hint]]] = []
        self.offset = 0
        self.dispatch: Dispatch | None = None


class Hints:
    """One node's hints service.  `downtime(peer)` and `alive[peer]` are the failure detector's word."""

    def __init__(self, host: HintHost, alive: list[bool], downtime: Callable[[int], int], flush_phase: int, dispatch_phase: int) -> None:
        self.host = host
        self.alive = alive
        self.downtime = downtime
        self.flush_phase = flush_phase
        self.dispatch_phase = dispatch_phase
        self.buffer: list[tuple[int, Hint]] = []
        self.stores: dict[int, Store] = {}
        self.opened: dict[int, int] = {}  # number of a file -> when it was opened
        self.next_file = 1
        self.next_page = 1
        self.ticking = False

    # ---- writing ------------------------------------------------------------------------------------------------------------------
    def should_hint(self, target: int) -> bool:
        """Handoff is on, and neither the outage nor the oldest file of hints kept for the target is older than the window."""
        settings = self.host.settings
        if not settings.hinted_handoff or self.downtime(target) > settings.max_hint_window_us:
            return False
        oldest = self._oldest(target)
        if oldest is None or not settings.hint_window_persistent:
            return True
        return bool(self.host.now - oldest <= settings.max_hint_window_us)

    def _oldest(self, target: int) -> int | None:
        """When the first file that waits was opened, be it the one that is written to; neither what is in the buffer nor the file under way counts."""
        store = self.stores.get(target)
        waiting = store.files[0 if store.dispatch is None else 1 :] if store else []
        return self.opened[waiting[0][0]] if waiting else None

    def write(self, target: int, key: str, cell: Cell) -> None:
        """Store a hint: in memory until the next flush."""
        if not self.buffer:
            self.host.set_timer("hints-flush", self._until(self.host.settings.hints_flush_period_us, self.flush_phase))
        self.buffer.append((target, (key, cell, self.host.now)))

    def _until(self, period: int, phase: int) -> int:
        return period - (self.host.now + phase) % period

    def flush(self) -> None:
        """Buffers go to the files being written; these are synced when they are closed."""
        buffer, self.buffer = self.buffer, []
        for target, hint in buffer:
            store = self.stores.get(target)
            if store is None:
                store = self.stores[target] = Store()
            if not store.writer:
                self.next_file += 1
                store.files.append((self.next_file, store.writer))
                self.opened[self.next_file] = self.host.now
            store.writer.append(hint)
            number = store.files[-1][0]
            self.host.persist(("hint", target, number, *hint, self.opened[number]), sync=False)
        self._tick_on()

    def _tick_on(self) -> None:
        if not self.ticking:
            self.ticking = True
            self.host.set_timer("hints-dispatch", self._until(DISPATCH_US, self.dispatch_phase))

    def recover(self, journal: list[Any]) -> None:
        """Files of an earlier life of the process, closed; what was sent of a file is forgotten, and sent again."""
        files: dict[tuple[int, int], list[Hint]] = {}
        for record in journal:
            if record[0] == "hint":
                files.setdefault((record[1], record[2]), []).append((record[3], tuple(record[4]), record[5]))
                self.opened[record[2]] = record[6]
            elif record[0] == "hints-sent":
                files.pop((record[1], record[2]), None)
        for (target, number), hints in sorted(files.items()):
            self.stores.setdefault(target, Store()).files.append((number, hints))
            self.next_file = max(self.next_file, number)
        if files:
            self._tick_on()

    # ---- sending ------------------------------------------------------------------------------------------------------------------
    def trigger(self) -> None:
        """HintsDispatchTrigger: for each live target that nothing is under way to, send its closed files, and close the open one."""
        self.ticking = False
        closed = False
        for target in sorted(self.stores):
            store = self.stores[target]
            if store.files:
                self._tick_on()
            if store.dispatch is not None or not self.alive[target]:
                continue
            if len(store.files) > (1 if store.writer else 0):
                store.dispatch = Dispatch()
                store.dispatch.offset = store.offset
                self._send_page(target, store)
            if store.writer:
                store.writer = []
                closed = True
        if closed:
            self.host.persist(("hints-closed",), sync=True)

    def _send_page(self, target: int, store: Store) -> None:
        dispatch = store.dispatch
        assert dispatch is not None
        if not self.alive[target]:
            self._give_up(store)
            return
        hints = store.files[0][1]
        self.next_page += 1
        dispatch.page = self.next_page
        dispatch.started = self.host.now
        end = min(len(hints), dispatch.offset + PAGE_BYTES // HintMessage.size)
        dispatch.unacknowledged = set(range(dispatch.offset, end))
        for index in range(dispatch.offset, end):
            key, cell, hinted = hints[index]
            self.host.send(target, HintMessage(dispatch.page, index, key, cell, hinted, self.host.now))
        self.host.set_timer(("hints-page", target), self.host.settings.write_request_timeout_us)

    def _give_up(self, store: Store) -> None:
        """Finished partially: the next trigger goes on from the page that was not acknowledged."""
        assert store.dispatch is not None
        store.offset = store.dispatch.offset
        store.dispatch = None

    def acknowledged(self, target: int, page: int, index: int) -> None:
        """A hint of the page under way was applied; after the last, the next page, the next file, or the end."""
        store = self.stores.get(target)
        if store is None or store.dispatch is None or store.dispatch.page != page:
            return
        waiting = store.dispatch.unacknowledged
        waiting.discard(index)
        if not waiting:
            sent_bytes = HintMessage.size * (index + 1 - store.dispatch.offset)
            self._page_done(target, store, index + 1, sent_bytes)

    def _page_done(self, target: int, store: Store, offset: int, sent_bytes: int) -> None:
        dispatch = store.dispatch
        assert dispatch is not None
        number, hints = store.files[0]
        dispatch.offset = min(len(hints), offset)
        if dispatch.offset == len(hints):
            del self.opened[store.files.pop(0)[0]]
            store.offset = dispatch.offset = 0
            self.host.persist(("hints-sent", target, number), sync=False)
            if len(store.files) <= (1 if store.writer else 0):
                store.dispatch = None
                self.host.cancel_timer(("hints-page", target))
                return
        pause = self._throttled(sent_bytes) - (self.host.now - dispatch.started)
        if pause > 0:
            dispatch.page = 0
            self.host.set_timer(("hints-page", target), pause)
        else:
            self._send_page(target, store)

    def _throttled(self, sent_bytes: int) -> int:
        """The time that so many bytes may take: hinted_handoff_throttle is shared out over the other nodes; 0 is no throttle."""
        throttle = self.host.settings.hinted_handoff_throttle_bytes
        return 0 if not throttle else int(sent_bytes * 1_000_000 * max(1, self.host.nodes - 1) // throttle)

    def page_due(self, target: int) -> None:
        """The page was not acknowledged within the write timeout: finished partially; or the throttle's pause is over: the next page."""
        store = self.stores[target]
        if store.dispatch is None:
            return
        if store.dispatch.page:
            self._give_up(store)
        else:
            self._send_page(target, store)
