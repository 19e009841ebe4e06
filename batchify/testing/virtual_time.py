"""An event loop on which nothing takes time, and a hang is an error."""

from __future__ import annotations

import asyncio
import selectors
import threading
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from concurrent.futures import Executor
    from selectors import SelectorKey

    from typing_extensions import TypeVarTuple, Unpack

    Ts = TypeVarTuple("Ts")

T = TypeVar("T")


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock stands still, but for leaps to the next timer when nothing else is left to do.

    ``asyncio.sleep``, timeouts and the windows of batches take no time, and ``time()``, which begins at 0, says how
    much would have passed. When nothing is left that could happen, the loop raises instead of waiting for ever.

    It is a loop factory, for ``asyncio.Runner(loop_factory=VirtualLoop)``, ``asyncio.run(..., loop_factory=...)``,
    pytest-asyncio and others; where there are none, ``run()`` does it.

    What is outside of the loop takes the time it takes. For what it has in ``run_in_executor()`` and
    ``asyncio.to_thread()`` the clock waits, for other threads, sockets and processes it does not: a timeout is over
    before they answer. A ``def`` function that is awaited with ``acall()`` has such a thread, unless it runs
    ``inline()``.

    Args:
        patience: seconds of real time in which a thread, a socket or a process must come up with something, when the
            loop has nothing else to wait for.

    Raises:
        RuntimeError: from whatever runs the loop: nothing can happen any more. It names the tasks that wait.
    """

    def __init__(self, patience: float = 5.0) -> None:
        self._leaping = _Leaping(patience)
        super().__init__(self._leaping)

    @property
    def leaps(self) -> int:
        """How often the clock leapt: what sets no timer does not add to it."""
        return self._leaping.leaps

    def time(self) -> float:
        """Return the virtual time, in seconds since the loop was made."""
        return self._leaping.now

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: Unpack[Ts]
    ) -> asyncio.Future[T]:
        """Run ``func`` in a thread, and let the clock wait for it."""
        job = super().run_in_executor(executor, func, *args)
        self._leaping.jobs.add(job)
        job.add_done_callback(self._leaping.jobs.discard)
        return job

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ARG002  # asyncio's
        """Wait for threads as long as they take: where time leaps, a timeout is over at once."""
        await super().shutdown_default_executor()


class _Leaping(selectors.DefaultSelector):
    """Waits for nothing: when there is nothing to read, time leaps to the next timer."""

    def __init__(self, patience: float) -> None:
        super().__init__()
        self.now = 0.0
        self.leaps = 0
        # What runs in threads for the loop.
        self.jobs: set[asyncio.Future[Any]] = set()
        self._patience = patience

    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        may_come = bool(self.jobs) or (timeout is None and self._has_others())
        events = super().select(self._patience if may_come and timeout != 0 else 0)
        if events or timeout == 0:
            return events
        if timeout is None:
            raise RuntimeError(_hang())
        # Up to the nanosecond, so that ten tenths are a second; never down, or who waits again until a timer's time
        # would do so for ever: a loop runs timers that are less than a nanosecond away.
        target = self.now + timeout
        self.now = max(target, round(target, 9))
        self.leaps += 1
        return events

    def _has_others(self) -> bool:
        """Say whether there is anything outside of the loop that could wake it. One file is the loop's own."""
        return threading.active_count() > 1 or len(self.get_map()) > 1


def _hang() -> str:
    waiting = sorted(map(_whereabouts, asyncio.all_tasks()))
    return f"hang: no timer, thread or file is going to wake the event loop; waiting: {', '.join(waiting) or 'no task'}"


def _whereabouts(task: asyncio.Task[Any]) -> str:
    places = [f" in {frame.f_code.co_name}(), line {frame.f_lineno}" for frame in task.get_stack(limit=1)]
    return f"{task.get_name()}{''.join(places)}"


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine as ``asyncio.run`` does, in virtual time, and return its result.

    Args:
        main: the coroutine.

    Raises:
        RuntimeError: it waits for something that cannot happen any more.
    """
    loop = VirtualLoop()
    try:
        try:
            return loop.run_until_complete(main)
        finally:
            loop.run_until_complete(_end())
    finally:
        loop.close()


async def _end() -> None:
    """Cancel what is left, and let it end."""
    loop = asyncio.get_running_loop()
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    await loop.shutdown_asyncgens()
    await loop.shutdown_default_executor()
