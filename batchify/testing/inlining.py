"""Engines for tests: each call is a batch of one, run in its caller's thread or in a task on its caller's loop.

Decides: where a batch runs, and how batchers change to these engines and back.
Must not know: decorators.

These are the ordinary engines with ``max_size=1`` and a slot for every call, so all checks and errors stay the same.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from sys import maxsize
from typing import TYPE_CHECKING, Any, cast

from batchify._asyncio.batcher import AsyncMicrobatcher
from batchify._asyncio.engine import AsyncEngine
from batchify._asyncio.offload import ThreadOffload
from batchify._batcher.lifespan import Lifespan
from batchify._batcher.live import registered
from batchify._clock import monotonic
from batchify._core.entries import Entry
from batchify._core.outcome import call_captured
from batchify._threads.batcher import SyncMicrobatcher
from batchify._threads.engine import ThreadEngine
from batchify._threads.workers import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Generator

    from batchify._asyncio.waiters import AsyncWaiter
    from batchify._batcher.config import Config
    from batchify._core.batch import Batch
    from batchify._stats.counters import Stats


@contextmanager
def inline() -> Generator[None]:
    """Run each call as a batch of one: no worker threads, no windows, no waiting for other calls.

    A ``def`` function runs in its caller's thread. An ``async def`` function runs in a task on its caller's loop.

    It affects the whole process, including batchers that are created inside the block. In the block, every batcher
    starts afresh: open, and with all counters at zero. After the block, it continues with its earlier state. Calls that
    run at the start or the end of the block finish in the engine that started them.

    A call is almost ``batch_fn([item])[0]``, but the batch function does not see its caller's context variables, and
    the caller gets the same errors as without ``inline()``. Calls run concurrently, regardless of ``concurrency``. The
    queue is never full, equal items do not share a run, and every batch leaves because it is ``full``.
    """
    if SyncMicrobatcher._engine_kind is CallerEngine:
        yield
        return
    before: list[tuple[Any, dict[str, Any]]] = [(batcher, {**vars(batcher)}) for batcher, _ in registered()]
    SyncMicrobatcher._engine_kind = CallerEngine
    AsyncMicrobatcher._engine_kind = TaskEngine
    AsyncMicrobatcher._offload_kind = OnLoop
    _start_afresh()
    try:
        yield
    finally:
        SyncMicrobatcher._engine_kind = ThreadEngine
        AsyncMicrobatcher._engine_kind = AsyncEngine
        AsyncMicrobatcher._offload_kind = ThreadOffload
        _start_afresh()
        for batcher, state in before:
            batcher.__dict__.update(state)


def _start_afresh() -> None:
    for batcher, _ in registered():
        batcher._reset_after_fork()


def _alone(config: Config) -> Config:
    # The batcher prepares items for the queue that its own options need. A bound is one of them, so it must remain.
    return replace(config, max_size=1, concurrency=maxsize, executor=None, max_pending=config.max_pending and maxsize)


def _run_alone(data: Any) -> None:
    # Each call runs by itself, and at once, so it meets any deadline.
    if isinstance(data, Entry):
        data.duplicate_of = data.time_limit = None


class CallerEngine(ThreadEngine):
    """An engine without workers: the caller that enters an item runs it."""

    def __init__(self, source: Any, config: Config, stats: Stats) -> None:
        super().__init__(source, _alone(config), stats)
        # Waiter -> its batch, between taking it from the queue and running it.
        self._taken: dict[Any, Batch] = {}

    def enter(self, item: Any, waiter: Any, leave: Callable[[], bool] | None = None) -> int:
        mark = super().enter(item, waiter, leave)
        with self.deferred:
            # The caller is a worker of its own.
            lifespan = self.line.config.lifespan
            worker = Worker(self, 0, None if lifespan is None else Lifespan(lifespan, self.name))
            try:
                self.run(self._taken.pop(waiter), worker)
            finally:
                if worker.lifespan is not None:
                    worker.lifespan.exit()
        return mark

    def configure(self, config: Config) -> None:
        super().configure(_alone(config))

    def _open_plain(self) -> None:
        # Every call needs enter().
        pass

    def _add(self, data: Any, waiter: Any) -> int:
        _run_alone(data)
        return super()._add(data, waiter)

    def _wake_worker(self) -> None:
        # Under the lock, this is the batch of the item that was just entered.
        batch = cast("Batch", self.line.take(monotonic()))
        self._taken[batch.waiters[0]] = batch


class OnLoop(ThreadOffload):
    """Run a ``def`` batch function on the loop itself."""

    async def _run(self, fn: Callable[[list[Any]], Any], items: list[Any]) -> Any:
        return call_captured(fn, items)

    async def _in_thread(self, slot: Any, call: Callable[[], Any]) -> Any:  # noqa: ARG002  # the loop has none
        return call()


class TaskEngine(AsyncEngine):
    """An engine that runs each item in a task of its own."""

    def enter(self, data: Any, waiter: AsyncWaiter) -> int:
        _run_alone(data)
        return super().enter(data, waiter)

    def __init__(self, loop: Any, source: Any, lifespans: Any, config: Config, stats: Stats) -> None:
        super().__init__(loop, source, lifespans, _alone(config), stats)

    @property
    def kept_slots(self) -> Container[int]:
        return ()

    def configure(self, config: Config) -> None:
        super().configure(_alone(config))
