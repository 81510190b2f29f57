"""A policy that never ends must end its own trial only.

Decides: when a trial is going nowhere: so much processor time of its thread, and no virtual time passed.  May not know: policies, Ray.
Processor time and not the wall's: a machine that is busy, or was asleep, is no fault of the policy's.  A thread beside the trial's raises the error within it
(PyThreadState_SetAsyncExc, CPython), so that any loop in Python ends, in a handler or of timers that are due at once.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LIMIT_S = 60.0  # of processor time; a window takes milliseconds
LOOK_EVERY_S = 1.0


class NeverEnds(Exception):
    """The trial used up its processor time without virtual time passing: a handler that loops, or timers that are due at once for ever."""


class Watchdog:
    """Watches the thread that calls `begin`, until it calls `end`."""

    def __init__(self, limit_s: float | None = None, progress: Callable[[], object] = lambda: None) -> None:
        """`progress`: what changes as virtual time passes; the limit begins anew when it does."""
        self.limit_s = LIMIT_S if limit_s is None else limit_s
        self.progress = progress
        self.thread: int | None = None
        self.began = 0.0
        self.seen: object = None
        self.closed = threading.Event()
        self.lock = threading.Lock()
        threading.Thread(target=self._look, daemon=True).start()

    def begin(self) -> None:
        """What follows, in this thread, is watched."""
        self.began = time.thread_time()
        self.thread = threading.get_ident()

    def end(self) -> None:
        """It has ended.  Should the error be on its way already, it is raised here."""
        with self.lock:
            self.thread = None

    def close(self) -> None:
        """No more watching."""
        self.closed.set()

    def _look(self) -> None:
        while not self.closed.wait(min(LOOK_EVERY_S, self.limit_s)):
            with self.lock:
                thread = self.thread
                if thread is None:
                    continue
                used = time.clock_gettime(time.pthread_getcpuclockid(thread))
                seen = self.progress()
                if seen != self.seen:
                    self.seen, self.began = seen, used
                elif used - self.began > self.limit_s:
                    self.began = used  # a round of the actors has windows of many trials: the next that never ends is ended too
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(NeverEnds))


@contextmanager
def watched(progress: Callable[[], object]) -> Iterator[None]:
    """What is done within is watched (see Watchdog)."""
    dog = Watchdog(progress=progress)
    dog.begin()
    try:
        yield
    finally:
        dog.end()
        dog.close()


__all__ = ["LIMIT_S", "NeverEnds", "Watchdog", "watched"]
