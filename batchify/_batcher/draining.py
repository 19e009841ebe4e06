"""The wait of a thread or a task for the end of calls, or of worker threads.

Must not know: engines, when a batcher is open.

An event loop that stops or is closed notifies nothing. A wait that depends on a loop therefore polls whether it runs,
and gives up the calls of a loop that has ended.
"""

from __future__ import annotations

from concurrent.futures import CancelledError, InvalidStateError
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from functools import partial
from math import inf
from threading import TIMEOUT_MAX
from typing import TYPE_CHECKING, Any

from batchify._batcher.cycles import begin_wait
from batchify._batcher.futures import SafeFuture
from batchify._clock import monotonic
from batchify._core.limits import seconds

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from asyncio import Future as AsyncFuture
    from collections.abc import Callable, Iterable, Sequence

    from batchify._core.slots import Slots

POLL_SECONDS = 0.02


class End(SafeFuture[None]):
    """The end of a worker thread, or of some calls."""

    # The loop that must run until then.
    loop: AbstractEventLoop | None = None

    def set(self) -> None:
        """Wake the threads and tasks that wait for the end. Several threads may do this, also after a cancellation."""
        # No check beforehand: another thread may set or cancel it in between.
        with suppress(InvalidStateError):
            self.set_result(None)

    def set_after(self, parts: Sequence[Any]) -> None:
        """Set the end once all ``parts``, tasks or futures, are done."""

        def set_if_done(_: object = None) -> None:
            if all(part.done() for part in parts):
                self.set()

        set_if_done()
        for part in parts:
            part.add_done_callback(set_if_done)

    def join(self) -> None:
        """Wait for the last steps that follow the end, if there are any."""

    @property
    def is_over(self) -> bool:
        return self.done() or (self.loop is not None and not self.loop.is_running())


class Drain(End):
    """The end of all calls that a line has received so far. They run on ``loop``, or on threads if that is ``None``.

    A batch that drains its own line, or one whose batches wait for this batch, would wait for itself. It does not wait.
    """

    def __init__(self, queue: Slots, reason: str, loop: AbstractEventLoop | None = None) -> None:
        super().__init__()
        self.reason = reason
        self.loop = loop
        self.since = inf
        end_wait = begin_wait(queue, is_drained=True)
        if end_wait is None:
            self.set()
        else:
            self.add_done_callback(lambda _: end_wait())


def time_left(timeout: float | None, clock: Callable[[], float] = monotonic) -> Callable[[], float | None]:
    """Return a function that returns the seconds left of ``timeout``, a valid time limit."""
    limit = seconds("timeout", timeout)
    if limit is None:
        return lambda: None
    until = clock() + limit
    return lambda: max(0.0, until - clock())


def wait_for(ends: Iterable[End], timeout: float | None) -> bool:
    """Block until all ``ends`` are over, at most ``timeout`` seconds; return whether they are."""
    until = inf if timeout is None else monotonic() + timeout
    for end in ends:
        while not end.is_over:
            left = until - monotonic()
            if left <= 0:
                return False
            with suppress(FutureTimeoutError, CancelledError):
                end.result(_next_look(left, end.loop))
        end.join()
    return True


async def wait_for_async(ends: Iterable[End], timeout: float | None) -> bool:
    """Wait like ``wait_for()``, without blocking the event loop."""
    import asyncio  # noqa: PLC0415  # users of threads alone do not import it

    here = asyncio.get_running_loop()
    until = inf if timeout is None else here.time() + timeout
    for end in ends:
        woken = here.create_future()
        end.add_done_callback(partial(wake, here, woken))
        while not (woken.done() or end.is_over):
            left = until - here.time()
            if left <= 0:
                return False
            await asyncio.wait([woken], timeout=_next_look(left, None if end.loop is here else end.loop))
        end.join()
    return True


def _next_look(left: float, loop: AbstractEventLoop | None) -> float | None:
    if loop is not None:
        return min(left, POLL_SECONDS)
    return None if left == inf else min(left, TIMEOUT_MAX)


def wake(loop: AbstractEventLoop, woken: AsyncFuture[None], _: object) -> None:
    """Resolve a future of ``loop`` from any thread."""
    # The loop may be closed by now, and then nothing waits on it.
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(woken.set_result, None)
