"""A plain batch function on an event loop: it is run in threads, or in an executor, so that the loop stays free.

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
    """Where the batch function comes from if it is a plain one: it is wrapped to run elsewhere."""

    def __init__(self, source: Callable[[], Callable[[list[Any]], Any]], config: Config) -> None:
        self._source = source
        self._config = config
        self._pool: ThreadPoolExecutor | None = None

    def __call__(self) -> Callable[[list[Any]], Awaitable[Any]]:
        return partial(self._run, self._source())

    async def _run(self, fn: Callable[[list[Any]], Any], items: list[Any]) -> Any:
        elsewhere = self._config.executor
        return await (self._in_thread(fn, items) if elsewhere is None else _await_executor(elsewhere, fn, items))

    async def _in_thread(self, fn: Callable[[list[Any]], Any], items: list[Any]) -> Any:
        pool = self._pool
        if pool is None:
            pool = self._pool = ThreadPoolExecutor(self._config.concurrency, thread_name_prefix=self._config.name)
        # The context of the batch, in which it is the current one.
        context = copy_context()
        try:
            done = get_running_loop().run_in_executor(pool, lambda: context.run(call_captured, fn, items))
        except RuntimeError:
            if self._pool is not pool:
                # Another thread has closed it in between; who was taken before that is answered still.
                return await self._in_thread(fn, items)
            # A pool keeps what it could not start a thread for, and would run it later, for nobody.
            pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None
            raise
        return await done

    def change(self, config: Config) -> None:
        """Use as many threads as these options say, or the executor."""
        before, self._config = self._config, config
        if (config.concurrency, config.executor) != (before.concurrency, before.executor):
            self.close()

    def close(self) -> None:
        """End the threads when they are done with what they were given."""
        if self._pool is not None:
            self._pool.shutdown(wait=False)
            self._pool = None


async def _await_executor(elsewhere: BatchExecutor, fn: Callable[[list[Any]], Any], items: list[Any]) -> Any:
    """Await what comes of ``items`` in an executor. Not as a future of the loop, which takes no StopIteration."""
    loop = get_running_loop()
    done = loop.create_future()
    future = elsewhere.send(fn, items)
    future.add_done_callback(lambda _: _wake(loop, done))
    try:
        await done
    except CancelledError:
        future.cancel()
        raise
    return call_captured(elsewhere.outcome, future)


def _wake(loop: AbstractEventLoop, done: Future[None]) -> None:
    # It may be closed by now.
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(_resolve, done)


def _resolve(done: Future[None]) -> None:
    if not done.done():
        done.set_result(None)
