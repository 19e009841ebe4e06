"""Engines for tests: each call is a batch of one, run by its caller, in no other thread and no other task.

Decides: who runs a batch, and how a batcher changes over.
Must not know: decorators.

They are the engines that do the work otherwise, with ``max_size=1`` and a slot for everybody: what is checked before a
call is queued, what an answer has to be, and who gets which exception stays as it is.
"""

from __future__ import annotations

from asyncio import CancelledError, Future, current_task
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from sys import maxsize
from time import monotonic
from typing import TYPE_CHECKING, Any, cast

from batchify._asyncio.batcher import AsyncMicrobatcher
from batchify._asyncio.engine import AsyncEngine
from batchify._asyncio.offload import ThreadOffload
from batchify._batcher.admission import as_entry
from batchify._batcher.current import batch_context
from batchify._batcher.registry import registered
from batchify._core.outcome import call_captured
from batchify._threads.batcher import SyncMicrobatcher
from batchify._threads.engine import ThreadEngine

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Task
    from collections.abc import Callable, Coroutine, Generator
    from contextvars import Context

    from batchify._batcher.config import Config
    from batchify._batcher.executors import BatchExecutor
    from batchify._core.batch import Batch
    from batchify._core.grouped import GroupedQueue
    from batchify._stats.counters import Stats


@contextmanager
def inline() -> Generator[None]:
    """Run each call as a batch of one, in its caller's own thread or task: no worker threads, no windows, no waiting.

    It holds for the whole process, for batchers that exist and for those that are made meanwhile. Inside, all of them
    begin anew, open and with counters at zero; in the end each goes on where it was. Calls that are under way end as
    they began.

    A call is all but ``batch_fn([item])[0]``: the batch function does not see its caller's context variables, and
    errors and wrong results reach the caller as they would otherwise. Batches are not bounded: calls from several
    threads or tasks run side by side, whatever ``concurrency`` says, and there is always room. Batches leave because
    they are ``full``. On an event loop, ``submit()`` and ``map()``, which do not wait, need tasks of their own, and
    what they queue together is still deduplicated.
    """
    if SyncMicrobatcher.engine_kind is CallerEngine:
        yield
        return
    before = [(batcher, dict(vars(batcher))) for batcher in registered()]
    SyncMicrobatcher.engine_kind = CallerEngine
    AsyncMicrobatcher.engine_kind = TaskEngine
    AsyncMicrobatcher.call_captured = OnLoop
    _reset_after_fork()
    try:
        yield
    finally:
        SyncMicrobatcher.engine_kind = ThreadEngine
        AsyncMicrobatcher.engine_kind = AsyncEngine
        AsyncMicrobatcher.call_captured = ThreadOffload
        _reset_after_fork()
        for batcher, state in before:
            vars(batcher).update(state)


def _reset_after_fork() -> None:
    for batcher in registered():
        batcher.reset_after_fork()


def _alone(config: Config) -> Config:
    # What a call asks for stands in the line by the same rules as without this, so a bound stays one, out of reach.
    return replace(config, max_size=1, concurrency=maxsize, executor=None, max_pending=config.max_pending and maxsize)


class CallerEngine(ThreadEngine):
    """An engine without workers: who enters an item runs it."""

    def __init__(
        self, source: Callable[[BatchExecutor | None], Callable[[list[Any]], Any]], config: Config, stats: Stats
    ) -> None:
        super().__init__(source, _alone(config), stats)
        # Waiter -> its batch, from where that is taken out of the line until its caller runs it.
        self._taken: dict[Any, Batch] = {}

    def enter(self, item: Any, waiter: Any) -> int:
        ticket = super().enter(item, waiter)
        self.run(self._taken.pop(waiter))
        return ticket

    def change(self, config: Config) -> None:
        super().change(_alone(config))

    def _stand(self, data: Any, waiter: Any, queue: GroupedQueue) -> int:
        # Its caller is about to start it: no deadline is missed, and there is nothing to watch.
        place = as_entry(data)
        place.time_limit = None
        return super()._stand(place, waiter, queue)

    def _ring(self) -> None:
        """Take the batch that a worker would be woken for. Needs the lock, so it is that of the caller."""
        batch = cast("Batch", self.queue.take(monotonic()))
        self._taken[batch.waiters[0]] = batch


class OnLoop(ThreadOffload):
    """Where the batch function comes from if it is a plain one: it is run on the loop itself."""

    async def _run(self, fn: Callable[[list[Any]], Any], items: list[Any]) -> Any:
        return call_captured(fn, items)


class TaskEngine(AsyncEngine):
    """An engine without tasks: who awaits the future of an item runs it, or a task if nobody does so at once."""

    __slots__ = ()

    def __init__(self, loop: AbstractEventLoop, source: Callable[[], Any], config: Config, stats: Stats) -> None:
        super().__init__(loop, source, _alone(config), stats)

    def wake(self, loop: AbstractEventLoop) -> None:
        super().wake(loop)
        self.future = partial(ItemFuture, self, loop)

    def _start_or_schedule(self) -> None:
        """Leave it to the end of the iteration, also when a batch is full: its caller may be about to await it."""
        self._schedule()

    def change(self, config: Config) -> None:
        super().change(_alone(config))

    def claim(self, future: Future[Any]) -> Generator[Any, None, None]:
        """Run the batch of ``future`` in this task, if it still waits."""
        while (batch := self.queue.take(self.clock())) is not None:
            if future not in batch.waiters:
                self._start(batch)
                continue
            self.stats.departed(batch)
            run = self._run(batch, self._fn or self.source())
            # It begins with its second step, as ``_start`` says.
            run.send(None)
            self._tasks[batch] = cast("Task[None]", current_task())
            yield from _steps(run, batch_context(batch, self._config), future)
            return


class ItemFuture(Future[Any]):
    """The future of an item, which is run by who awaits it."""

    def __init__(self, engine: TaskEngine, loop: AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self._engine = engine

    def __await__(self) -> Generator[Any, None, Any]:
        if not self.done():
            yield from self._engine.claim(self)
        return (yield from super().__await__())

    __iter__ = __await__


def _steps(run: Coroutine[Any, Any, None], context: Context, future: Future[Any]) -> Generator[Any, None, None]:
    """Run a batch in ``context``, as a part of this task. Its outcome is in ``future``."""
    left: BaseException | None = None
    thrown: BaseException | None = None
    while True:
        try:
            waits_for = context.run(run.send, None) if thrown is None else context.run(run.throw, thrown)
        except (StopIteration, CancelledError):
            break
        except BaseException:
            # What ends the program goes past the future, which is not to complain that nobody looked.
            with suppress(CancelledError):
                future.exception()
            raise
        thrown = None
        try:
            yield waits_for
        except BaseException as error:  # noqa: BLE001  # the task is cancelled, or torn down: the batch is too
            left = thrown = error
            future.cancel()
    if left is not None:
        raise left
