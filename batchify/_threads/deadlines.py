"""Tells callers in time that their deadlines are over, though all workers of their engine may be busy.

Decides: when somebody looks.
Must not know: batches, the core, what is told.

It is one thread for an engine, there from the first call with a deadline. It sleeps until the next deadline, or, if
there is none, until one comes up; it holds the engine weakly, and ends with it.
"""

from __future__ import annotations

from contextlib import suppress
from threading import TIMEOUT_MAX, Lock, Thread
from typing import Protocol
from weakref import ref


class Watched(Protocol):
    """An engine."""

    def expire(self) -> float:
        """Tell whose deadlines are over, and return the seconds until the next one is."""
        ...


class DeadlineThread:
    """Asks an engine to ``expire()`` whenever that is due.

    Args:
        engine: what is asked.
        name: that of the thread.

    Raises:
        RuntimeError: the thread cannot be started.
    """

    def __init__(self, engine: Watched, name: str) -> None:
        # Held while there is no reason to look. A bare lock: the collector may let go of the engine in the middle of
        # what this thread does, and an Event would wait for itself then.
        self._soon = Lock()
        self._soon.acquire()
        self._is_over = False
        weak = ref(engine, lambda _: self.wake())
        Thread(target=self._deadline_thread, args=(weak,), name=name, daemon=True).start()

    def wake(self) -> None:
        """Ask at once: the next deadline comes before the one that is known."""
        # It may have been told before.
        with suppress(RuntimeError):
            self._soon.release()

    def end(self) -> None:
        """Ask no more."""
        self._is_over = True
        self.wake()

    def _deadline_thread(self, weak: ref[Watched]) -> None:
        seconds = TIMEOUT_MAX
        while not self._is_over:
            self._soon.acquire(timeout=min(max(seconds, 0), TIMEOUT_MAX))
            engine = weak()
            if engine is None:
                return
            seconds = engine.expire()
            del engine
