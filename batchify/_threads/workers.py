"""Worker threads: how an idle one waits, is woken, and ends.

Decides: which idle thread wakes, and when another one starts.
Must not know: batches, the core, deadlines.

A thread repeats one step of its engine. Between two steps it waits for its own signal and holds the engine weakly, so
the signal passes the engine along. When the engine is gone, its weak reference sets all signals, and the threads end.
"""

from __future__ import annotations

from math import inf
from threading import TIMEOUT_MAX, Lock, Thread
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from weakref import ref

from batchify._threads.waiters import new_waiter

if TYPE_CHECKING:
    from collections.abc import Callable

E = TypeVar("E")


class WakeSignal:
    """Wakes one thread, and keeps an engine alive until the thread has stopped waiting."""

    __slots__ = ("_lock", "engine")

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        # Held until the signal is set. A bare lock: the collector may drop the engine, and so set the signal, in the
        # middle of a wait, where an Event would deadlock.
        self._lock = Lock()
        self._lock.acquire()

    def set(self, engine: Any = None) -> None:
        self.engine = engine
        try:
            self._lock.release()
        except RuntimeError:
            # It is set: a signal that comes as a wait times out remains set, and the next wait returns at once.
            return

    def wait(self, seconds: float) -> Any:
        """Wait at most ``seconds`` for the signal, and return the engine that it passes along, if any."""
        if seconds == inf:
            self._lock.acquire()
        else:
            self._lock.acquire(timeout=min(max(seconds, 0), TIMEOUT_MAX))
        engine, self.engine = self.engine, None
        return engine


class Workers(Generic[E]):
    """Threads that repeat one step of an engine. All methods and attributes need the engine's lock.

    A step returns the seconds until it is due again, or ``None`` to end the thread.
    """

    __slots__ = ("_name", "_step", "count", "idle", "weak")

    def __init__(self, engine: E, step: Callable[[E, WakeSignal], float | None], name: str) -> None:
        self._step = step
        self._name = name
        self.count = 0
        # The signals of the threads that wait. A signal that is set is taken out.
        self.idle: dict[WakeSignal, None] = {}
        idle = self.idle
        self.weak: ref[E] = ref(engine, lambda _: _set_all(idle, None))

    def wake_one(self, engine: E, limit: int) -> None:
        """Wake an idle thread, or start one if there are fewer than ``limit``. Starting may be a ``RuntimeError``."""
        if self.idle:
            # The last step last: an interrupt must not lose the thread.
            signal = next(reversed(self.idle))
            signal.set(engine)
            self.idle.pop(signal, None)
        elif self.count < limit:
            args = self.weak, self._step, WakeSignal(engine)
            Thread(target=_run, args=args, name=f"{self._name}-{self.count}", daemon=True).start()
            self.count += 1

    def wake_all(self, engine: E) -> None:
        _set_all(self.idle, engine)


def _run(weak: ref[E], step: Callable[[E, WakeSignal], float | None], signal: WakeSignal) -> None:
    # A call that a batch makes needs a waiter of its own, after a check that it does not wait for its own batch.
    new_waiter().is_busy = True
    seconds: float | None = 0
    while seconds is not None and (engine := signal.wait(seconds) or weak()) is not None:
        seconds = step(engine, signal)
        del engine


def _set_all(idle: dict[WakeSignal, None], engine: Any) -> None:
    while idle:
        signal, _ = idle.popitem()
        signal.set(engine)
