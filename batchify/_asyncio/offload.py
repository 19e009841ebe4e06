"""Runs a ``def`` batch function for an event loop: in threads or in an executor, so that the loop stays free.

Must not know: batches, the core, how a thread pool works.
"""

from __future__ import annotations

from asyncio import CancelledError, get_running_loop
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any

from batchify._core.outcome import call_captured

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future
    from collections.abc import Awaitable, Callable

    from batchify._batcher.config import Config
    from batchify._batcher.executors import BatchExecutor


class ThreadOffload:
    """The source of a ``def`` batch function: it returns an awaitable form, which runs off the loop."""

    def __init__(self, source: Callable[[], Callable[[list[Any]], Any]], config: Config) -> None:
        self._source = source
        self._config = config
        self._pool: ThreadPoolExecutor | None = None

    def __call__(self) -> Callable[[list[Any]], Awaitable[Any]]:
        return partial(self._run, self._source())

    async def _run(self, fn: Callable[[list[Any]], Any], items: list[Any]) -> Any:
        executor = self._config.executor
        return await (self._in_thread(fn, items) if executor is None else _await_executor(executor, fn, items))

    async def _in_thread(self, fn: Callable[[list[Any]], Any], items: list[Any]) -> Any:
        pool = self._pool
        if pool is None:
            pool = self._pool = ThreadPoolExecutor(self._config.concurrency, thread_name_prefix=self._config.name)
        # The context of the batch, in which ``current_batch()`` works.
        context = copy_context()
        try:
            done = get_running_loop().run_in_executor(pool, lambda: context.run(call_captured, fn, items))
        except RuntimeError:
            if self._pool is not pool:
                # Another thread closed the pool in between. The batch has departed, so it still runs.
                return await self._in_thread(fn, items)
            # A pool that cannot start a thread keeps the call, and would run it later without a caller.
            pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None
            raise
        return await done

    def change(self, config: Config) -> None:
        before, self._config = self._config, config
        if (config.concurrency, config.executor) != (before.concurrency, before.executor):
            self.close()

    def close(self) -> None:
        if self._pool is not None:
            # The threads end once they have run their batches.
            self._pool.shutdown(wait=False)
            self._pool = None


async def _await_executor(executor: BatchExecutor, fn: Callable[[list[Any]], Any], items: list[Any]) -> Any:
    # The future of the loop carries no outcome: it refuses StopIteration.
    loop = get_running_loop()
    done = loop.create_future()
    future = executor.send(fn, items)
    future.add_done_callback(lambda _: _notify(loop, done))
    try:
        await done
    except CancelledError:
        future.cancel()
        raise
    return call_captured(executor.outcome, future)


def _notify(loop: AbstractEventLoop, done: Future[None]) -> None:
    # The loop may be closed by now.
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(_resolve, done)


def _resolve(done: Future[None]) -> None:
    if not done.done():
        done.set_result(None)
