"""An event loop with virtual time: timers fire without a wait, and a hang is an error."""

from __future__ import annotations

import asyncio
import selectors
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Coroutine, Generator
    from concurrent.futures import Executor
    from selectors import SelectorKey

    from typing_extensions import TypeVarTuple, Unpack

    Ts = TypeVarTuple("Ts")

T = TypeVar("T")
L = TypeVar("L", bound="AbstractEventLoop")


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock advances only to the next timer, once the loop has nothing else to do.

    ``asyncio.sleep``, timeouts and batch windows take no time. ``time()`` starts at 0 and counts the seconds that they
    would have taken. If nothing can wake the loop any more, the call that runs it raises a ``RuntimeError`` that names
    the waiting tasks.

    The class is a loop factory for ``asyncio.Runner(loop_factory=VirtualLoop)``, ``asyncio.run(..., loop_factory=...)``
    and pytest-asyncio. ``run()`` works without a loop factory.

    Work outside the loop takes real time. The clock waits for ``run_in_executor()`` and ``asyncio.to_thread()``, at
    most for ``patience`` seconds. It does not wait for other threads, sockets and processes, so a timeout ends before
    they answer. A ``def`` function that is awaited with ``acall()`` runs in such a thread, except inside ``inline()``.

    Args:
        patience: seconds of real time after which the loop goes on to its next timer without its own threads. Without a
            timer, it waits as long for any thread, socket or process before it reports a hang.
    """

    def __init__(self, patience: float = 5.0) -> None:
        self._clock = _VirtualClock(patience)
        super().__init__(self._clock)

    if sys.platform == "emscripten":  # pragma: no cover  # covered by the run of the tests under Pyodide
        # There are no socket pairs, through which a thread would wake the loop, and no threads.
        def _make_self_pipe(self) -> None:
            self._csock = None

        def _close_self_pipe(self) -> None:
            pass

    @property
    def leaps(self) -> int:
        """How many times the clock has advanced; code that sets no timer adds nothing."""
        return self._clock.leaps

    def time(self) -> float:
        """Return the virtual time, in seconds since the loop was created."""
        return self._clock.now

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: Unpack[Ts]
    ) -> asyncio.Future[T]:
        """Run ``func`` in a thread, for which the clock waits."""
        job = super().run_in_executor(executor, func, *args)
        self._clock.jobs.add(job)
        job.add_done_callback(self._clock.jobs.discard)
        return job

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ARG002  # asyncio's
        """Wait for all threads, without a timeout: in virtual time it would end at once."""
        await super().shutdown_default_executor()


class _VirtualClock(selectors.DefaultSelector):
    """A selector that does not wait: if no file is ready, it advances the clock to the next timer."""

    def __init__(self, patience: float) -> None:
        super().__init__()
        self.now = 0.0
        self.leaps = 0
        # Jobs of the loop that run in threads.
        self.jobs: set[asyncio.Future[Any]] = set()
        self._patience = patience

    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        is_patient = bool(self.jobs) or (timeout is None and self._has_others())
        events = super().select(self._patience if is_patient and timeout != 0 else 0)
        if events or timeout == 0:
            return events
        if timeout is None:
            waiting = ", ".join(sorted(map(_location, asyncio.all_tasks()))) or "no task"
            reason = "no timer, thread or file is going to wake the event loop"
            if is_patient:
                reason = f"nothing has woken the event loop in the {self._patience:g} s of its patience"
            msg = f"hang: {reason}; waiting: {waiting}"
            raise RuntimeError(msg)
        # Rounded to the nanosecond, so that ten tenths make a second, but never down: a loop runs timers that are less
        # than a nanosecond away, so a task that waits until the time of a timer would wait again forever.
        target = self.now + timeout
        self.now = max(target, round(target, 9))
        self.leaps += 1
        return events

    def _has_others(self) -> bool:
        # One registered file belongs to the loop itself.
        return threading.active_count() > 1 or len(self.get_map()) > 1


def _location(task: asyncio.Task[Any]) -> str:
    frames = [f" in {frame.f_code.co_name}(), line {frame.f_lineno}" for frame in task.get_stack(limit=1)]
    return f"{task.get_name()}{''.join(frames)}"


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine like ``asyncio.run``, in virtual time, and return its result. A hang is a ``RuntimeError``."""
    with closing_loop(VirtualLoop()) as loop:
        return loop.run_until_complete(main)


@contextmanager
def closing_loop(loop: L) -> Generator[L]:
    """Close a loop at the end, like ``asyncio.run``: after its tasks, asynchronous generators and executor."""
    try:
        yield loop
    finally:
        try:
            loop.run_until_complete(_shut_down())
        finally:
            loop.close()


async def _shut_down() -> None:
    loop = asyncio.get_running_loop()
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await loop.shutdown_asyncgens()
    await loop.shutdown_default_executor()
