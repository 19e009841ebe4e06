"""Worker threads: how an idle one waits, is woken, and ends.

Decides: which threads belong to an engine, which idle one wakes, and when another one starts.
Must not know: batches, the core, deadlines.

A thread repeats one step of its engine. Between two steps it waits at its own lock and holds the engine weakly, so the
signal that wakes it passes the engine along. When the engine is gone, the weak reference of each worker wakes its
thread, and the thread ends.

An exception of a signal handler may leave ``Thread.start()`` at any point, before or after the thread runs. So a worker
is registered before ``start()`` and removed again if that raises. A thread without a registered worker ends at its
first step.
"""

from __future__ import annotations

from math import inf
from threading import TIMEOUT_MAX, Lock, Thread, get_ident
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from weakref import ref

from batchify._batcher.draining import End
from batchify._threads.waiters import new_waiter

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from batchify._batcher.lifespan import Lifespan

E = TypeVar("E")


class ThreadEnd(End):
    """The end of a thread. If the thread refuses to end, this is set too, and ``thread`` is ``None``."""

    def __init__(self, thread: Thread) -> None:
        super().__init__()
        self.thread: Thread | None = thread

    def join(self) -> None:
        """Wait for the very last step of the thread, which takes microseconds."""
        if self.thread is not None:
            self.thread.join()


class Worker:
    """One thread of an engine, with the number of its slot: how it waits and is woken."""

    thread: Thread
    # The end of the thread. A thread that refuses to end gets a new one.
    ended: ThreadEnd

    def __init__(self, engine: Any, slot: int, lifespan: Lifespan | None = None) -> None:
        self.slot = slot
        self.lifespan = lifespan
        # The engine, if it must live until the wait of the thread ends: before the first step, and while items wait.
        self.kept = engine
        self._engine: Any = None
        # The batch that the thread took last, while it runs.
        self.batch: Any = None
        # Whether the thread is asked to end when it has nothing to do.
        self.is_leaving = False
        # Held until the thread is woken. A bare lock: the collector may drop the engine, and so wake the thread, in the
        # middle of a wait, where an Event would deadlock. No signal handler can interrupt a function of C.
        lock = Lock()
        lock.acquire()
        self._acquire, self.release = lock.acquire, lock.release
        on_gone: Any = lock.__exit__
        self._weak: ref[Any] = ref(engine, on_gone)

    def wake(self, engine: Any) -> None:
        self._engine = engine
        try:
            self.release()
        except RecursionError:
            raise
        except RuntimeError:
            # A signal that arrives as a wait times out remains set, and the next wait returns at once.
            return

    def wait(self, seconds: float) -> Any:
        """Wait at most ``seconds`` to be woken, and return the engine that the signal passes along, if any."""
        is_woken = self._acquire(timeout=-1 if seconds == inf else min(max(seconds, 0), TIMEOUT_MAX))
        kept, self.kept = self.kept, None
        engine = self._engine
        if is_woken:
            self._engine = None
        return engine or kept or self._weak()

    def stay(self) -> None:
        """Refuse to end: the thread has work."""
        if self.is_leaving:
            self.is_leaving = False
            refused, self.ended = self.ended, ThreadEnd(self.thread)
            refused.thread = None
            refused.set()


class Workers(Generic[E]):
    """Threads that repeat one step of an engine.

    The members need the engine's lock, except ``run()``, ``is_ending()``, ``wake_idle`` and ``waker``.

    A step returns the seconds until it is due again, or ``None`` to end the thread. ``new_lifespan`` makes the lifespan
    of a thread.
    """

    def __init__(
        self,
        engine: E,
        step: Callable[[E, Worker], float | None],
        name: str,
        new_lifespan: Callable[[], Lifespan] | None = None,
    ) -> None:
        self._step = step
        self._name = name
        self._new_lifespan = new_lifespan
        # The threads that belong to the engine, and those of them that wait and are not woken yet.
        self.all: dict[Worker, None] = {}
        self.idle: dict[Worker, None] = {}
        # The threads that no longer belong to it, but may still be exiting their lifespans.
        self._ending: dict[Worker, None] = {}
        # Wakes an idle thread, if there is one; raises a ``RuntimeError`` if it is woken already. A function of C:
        # neither a signal handler nor the depth of the stack can interrupt it. A caller first sets ``waker``.
        self.wake_idle: Callable[[], object] = tuple
        # The engine, for the thread that was woken in this way.
        self.waker: E | None = None
        self.weak: ref[E] = ref(engine)

    def wake_one(self, engine: E, limit: int) -> None:
        """Wake an idle thread, or start one if there are fewer than ``limit``. This may raise a ``RuntimeError``."""
        if self.idle:
            # Removed last, so that an interrupt does not lose the thread.
            worker = next(reversed(self.idle))
            worker.wake(engine)
            self.idle.pop(worker, None)
        elif len(self.all) < limit:
            slot = min({*range(len(self.all) + 1)} - {worker.slot for worker in self.all})
            worker = Worker(engine, slot, self._new_lifespan and self._new_lifespan())
            name = f"{self._name}-{slot}"
            unstarted = [(self, worker)]
            worker.thread = Thread(target=_run, args=(unstarted,), name=name, daemon=True)
            worker.ended = ThreadEnd(worker.thread)
            self.all[worker] = None
            try:
                worker.thread.start()
            except BaseException:
                # No call: an exception could interrupt it. CPython may keep the thread for ever.
                del self.all[worker], unstarted[:]
                raise

    def wake_all(self, engine: E) -> None:
        for worker in list(self.idle):
            worker.wake(engine)
            self.idle.pop(worker, None)

    def begin(self, worker: Worker, limit: int) -> bool:
        """Note that a thread begins a step, and remove it if its slot is not below ``limit``.

        Return whether it belongs to the engine.
        """
        self.waker = None
        self.idle.pop(worker, None)
        self.wake_idle = next(reversed(self.idle)).release if self.idle else tuple
        if worker.slot >= limit:
            self.remove(worker)
        return worker in self.all

    def rest(self, worker: Worker) -> None:
        """Note that a thread is about to wait."""
        self.idle[worker] = None
        self.wake_idle = worker.release

    def remove(self, worker: Worker) -> None:
        """Note that a thread is about to end."""
        self._ending[worker] = None
        self.all.pop(worker, None)
        self.idle.pop(worker, None)

    def is_ending(self) -> bool:
        """Return whether this thread is about to end, and may be exiting its lifespan."""
        return get_ident() in [worker.thread.ident for worker in [*self._ending]]

    def end_idle(self, engine: E, running: Container[Any]) -> list[ThreadEnd]:
        """Ask the threads that run none of the ``running`` batches to end, and return the ends of all that do."""
        leaving = [worker for worker in self.all if worker.batch not in running]
        for worker in leaving:
            worker.is_leaving = True
        ends = [worker.ended for worker in (*self._ending, *leaving)]
        self.wake_all(engine)
        return ends

    def run(self, worker: Worker) -> None:
        """Repeat the step in this thread."""
        # A call that a batch makes needs a waiter of its own, after a check that it does not wait for its own batch.
        new_waiter().is_busy = True
        engine: Any = None
        seconds: float | None = 0
        try:
            while seconds is not None and (engine := worker.wait(seconds)) is not None:
                seconds = self._step(engine, worker)
                engine = None
        except BaseException:
            self.remove(worker)
            engine = self.weak()
            if engine is not None:  # pragma: no branch  # it may be gone
                engine.replace_worker()
            raise
        finally:
            if worker.lifespan is not None:
                worker.lifespan.exit()
            self._ending.pop(worker, None)
            worker.ended.set()


def _run(unstarted: list[tuple[Workers[Any], Worker]]) -> None:
    """Run the worker of this thread, unless its start was interrupted."""
    for workers, worker in unstarted:
        workers.run(worker)
