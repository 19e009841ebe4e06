"""Runs a ``def`` batch function for an event loop: in threads or in an executor, so that the loop stays free.

Must not know: batches, the core, how a thread pool works.
"""

from __future__ import annotations

from _thread import start_new_thread
from asyncio import CancelledError, current_task, get_running_loop, wait
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.thread import _global_shutdown_lock
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from batchify._batcher.current import current
from batchify._batcher.draining import wake
from batchify._batcher.executors import LocalCall
from batchify._batcher.lifespan import Lifespan
from batchify._core.outcome import call_captured

if TYPE_CHECKING:
    from asyncio import Future
    from collections.abc import Awaitable, Callable

    from batchify._asyncio.engine import BatchTask
    from batchify._asyncio.lifespans import EndOfLifespan
    from batchify._batcher.config import Config
    from batchify._core.batch import Batch


class ThreadOffload:
    """The source of a ``def`` batch function: it returns an awaitable form, which runs off the loop.

    Without an executor, each slot has a thread of its own, and a lifespan on that thread.
    """

    def __init__(self, source: Callable[[], Callable[[list[Any]], Any]], config: Config) -> None:
        self._source = source
        self.config = config
        self._threads: dict[int, SlotThread] = {}

    def __call__(self) -> Callable[[list[Any]], Awaitable[Any]]:
        return partial(self._run, self._source())

    async def _run(self, fn: Callable[[list[Any]], Any], items: list[Any]) -> Any:
        executor = self.config.executor
        if executor is None:
            # The context of the batch, in which ``current_batch()`` works.
            context = copy_context()
            slot = cast("Batch", current()).root.slot
            return await self._in_thread(slot, lambda: context.run(call_captured, fn, items))
        # The future of the loop carries no outcome: it refuses StopIteration.
        loop = get_running_loop()
        done = loop.create_future()
        with LocalCall(fn, cast("Batch", current())) as call:
            future = executor.send(call)
            future.add_done_callback(partial(wake, loop, done))
            await _ended(done, future.cancel)
        return call_captured(executor.outcome, future)

    @property
    def are_entered(self) -> bool:
        return self.config.lifespan is not None and bool(self._threads)

    async def enter(self, slot: int, batch: Batch) -> tuple[Any, bool]:
        """Return the value of the context manager of ``slot``, and whether it was entered only now, for ``batch``."""
        lifespan = self._thread_of(slot).lifespan
        if lifespan is None:
            return None, False
        is_new = await self._in_thread(slot, lambda: call_captured(lifespan.enter, batch))
        return lifespan.state, is_new

    def end(self, chosen: Callable[[int], bool]) -> list[EndOfLifespan]:
        """End the threads of the ``chosen`` slots after their batches, and return the ends of their lifespans."""
        # One by one, so that an interrupt loses the end of one thread at most.
        return [end for slot in [*self._threads] if chosen(slot) for end in self._threads.pop(slot).end()]

    def _thread_of(self, slot: int) -> SlotThread:
        if slot not in self._threads:
            self._threads[slot] = SlotThread(self.config, slot)
        return self._threads[slot]

    async def _in_thread(self, slot: Any, call: Callable[[], Any]) -> Any:
        thread = self._thread_of(slot)
        try:
            done = get_running_loop().run_in_executor(thread.pool, call)
        except RuntimeError:
            if self._threads.get(slot) is not thread:
                # Another thread ended this one in between. The batch has departed, so it still runs.
                return await self._in_thread(slot, call)
            # A pool that cannot start a thread keeps the call, and would run it later without a caller.
            thread.pool.shutdown(wait=False, cancel_futures=True)
            del self._threads[slot]
            raise
        await _ended(done, lambda: False)
        return done.result()

    # The engine is gone, because its loop is, or because nothing refers to the function any more.
    def __del__(self) -> None:
        end: Callable[[], Any] = partial(self.end, lambda _: True)
        if _global_shutdown_lock.locked():
            # The collector may have interrupted a submit(), which holds the lock that another submit() needs.
            start_new_thread(end, ())
        else:
            end()


class SlotThread:
    """The thread of a slot, as a pool of one, and its lifespan."""

    def __init__(self, config: Config, slot: int) -> None:
        self.pool = ThreadPoolExecutor(1, thread_name_prefix=f"{config.name}-{slot}")
        self.lifespan = None if config.lifespan is None else Lifespan(config.lifespan, config.name)

    def end(self) -> list[EndOfLifespan]:
        ends: list[EndOfLifespan] = []
        if self.lifespan is not None:
            # During the exit of the process, no thread takes calls any more.
            with suppress(RuntimeError):
                ends = [self.pool.submit(self.lifespan.exit)]
        self.pool.shutdown(wait=False)
        return ends


async def _ended(done: Future[Any], cancel: Callable[[], bool]) -> None:
    """Wait for ``done``, the end of a call in a thread, even after a cancellation: a slot is free when its thread is.

    A call that has not started can be cancelled, and a loop that ends does not wait for its threads.
    """
    cancelled = None
    while not done.done():
        try:
            await wait([done])
        except CancelledError as error:  # noqa: PERF203  # most calls end in the first round
            # No code will read an error of the call, so this reads it. Otherwise asyncio would log it.
            done.add_done_callback(lambda done: done.cancelled() or done.exception())
            if cancel() or cast("BatchTask", current_task()).loop_ends:
                raise
            cancelled = error
    if cancelled is not None:
        raise cancelled
