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

from batchify._batcher.draining import End
from batchify._threads.waiters import new_waiter

if TYPE_CHECKING:
    from collections.abc import Callable, Container

E = TypeVar("E")


class ThreadEnd(End):
    """The end of a thread, or its refusal to end. Then ``thread`` is ``None``."""

    def __init__(self, thread: Thread) -> None:
        super().__init__()
        self.thread: Thread | None = thread

    def join(self) -> None:
        """Wait for the very last step of the thread, which takes microseconds."""
        if self.thread is not None:
            self.thread.join()


class WakeSignal:
    """Wakes one thread, and keeps an engine alive until the thread has stopped waiting."""

    __slots__ = ("_lock", "batch", "engine", "leaving", "thread")

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        # The batch that the thread took last, while it runs.
        self.batch: Any = None
        # The end of the thread, if it is asked to end when it has nothing to do.
        self.leaving: ThreadEnd | None = None
        self.thread: Thread
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

    def leave(self) -> ThreadEnd:
        """Ask the thread to end, and return its end."""
        self.leaving = self.leaving or ThreadEnd(self.thread)
        return self.leaving

    def stay(self) -> None:
        """Refuse to end: the thread has work."""
        leaving, self.leaving = self.leaving, None
        if leaving is not None:
            leaving.thread = None
            leaving.set()

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

    __slots__ = ("_live", "_name", "_step", "idle", "weak")

    def __init__(self, engine: E, step: Callable[[E, WakeSignal], float | None], name: str) -> None:
        self._step = step
        self._name = name
        # The signals of all threads, and those of the threads that wait. A signal that is set is no longer idle.
        self._live: dict[WakeSignal, None] = {}
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
            signal = WakeSignal(engine)
            args = self.weak, self._step, signal
            signal.thread = Thread(target=_run, args=args, name=f"{self._name}-{self.count}", daemon=True)
            self._live[signal] = None
            try:
                signal.thread.start()
            except BaseException:
                if not signal.thread.is_alive():
                    self.remove(signal)
                raise

    def wake_all(self, engine: E) -> None:
        _set_all(self.idle, engine)

    @property
    def count(self) -> int:
        return len(self._live)

    def remove(self, signal: WakeSignal) -> None:
        """Forget a thread that is about to end."""
        self._live.pop(signal, None)

    def end_idle(self, engine: E, running: Container[Any]) -> list[ThreadEnd]:
        """Ask the threads that run none of the ``running`` batches to end, and return their ends."""
        ends = [signal.leave() for signal in self._live if signal.batch not in running]
        self.wake_all(engine)
        return ends


def _run(weak: ref[E], step: Callable[[E, WakeSignal], float | None], signal: WakeSignal) -> None:
    # A call that a batch makes needs a waiter of its own, after a check that it does not wait for its own batch.
    new_waiter().is_busy = True
    seconds: float | None = 0
    try:
        while seconds is not None and (engine := signal.wait(seconds) or weak()) is not None:
            seconds = step(engine, signal)
            del engine
    finally:
        if signal.leaving is not None:
            signal.leaving.set()


def _set_all(idle: dict[WakeSignal, None], engine: Any) -> None:
    while idle:
        signal, _ = idle.popitem()
        signal.set(engine)
