"""One batcher on one event loop: it carries out the decisions of the core.

Decides: nothing about batches. It keeps a timer for the head of the queue, runs batches as tasks, and answers futures.
Must not know: threads, other loops, decorators.
An engine does everything on the thread of its loop. "At once" is the end of the current loop iteration, so that calls
made together share a batch, and answered callers can call again before the next batch leaves.
"""

from __future__ import annotations

from asyncio import BaseEventLoop, CancelledError, Future, InvalidStateError, Task, sleep
from contextvars import Context
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, cast
from weakref import ref

from batchify._batcher.admission import as_entry, depart, item_of, make_queue, reconfigured
from batchify._batcher.current import batch_context, belongs_to, set_current
from batchify._batcher.report import report
from batchify._core import outcome
from batchify._core.batch import BatchItem
from batchify._core.queue import PlainQueue
from batchify._core.reruns import Reruns
from batchify.errors import DeadlineError, QueueFullError, ReentrantCallError, full, overdue, reentrant

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Handle
    from collections.abc import Awaitable, Callable

    from batchify._batcher.config import Config
    from batchify._core.batch import Batch
    from batchify._core.grouped import GroupedQueue
    from batchify._stats.counters import Stats

    BatchFunction = Callable[[list[Any]], Awaitable[Any]]

AT_ONCE = float("-inf")


class AsyncEngine:
    """The queue of one batcher on one event loop, and the tasks that run its batches."""

    __slots__ = (
        "_config",
        "_drains",
        "_fn",
        "_handle",
        "_is_plain",
        "_tasks",
        "_when",
        "add",
        "clock",
        "empty_context",
        "future",
        "loop",
        "queue",
        "requested",
        "running_loop",
        "source",
        "stats",
    )

    # The clock of the loop, and its way to create a future. They exist while the engine is active.
    clock: Callable[[], float]
    future: Callable[[], Future[Any]]
    # Queues an item for a waiter and returns its ticket. From ``wake_ticket`` on, ``start_or_schedule()`` must follow.
    add: Callable[[Any, Any, float], int]

    def __init__(
        self, loop: AbstractEventLoop, source: Callable[[], BatchFunction], config: Config, stats: Stats
    ) -> None:
        # Weak, so that an idle engine does not keep its loop alive.
        self.loop = ref(loop)
        # The loop while the engine is active: from an arrival until it is idle.
        self.running_loop: AbstractEventLoop | None = None
        # Whether the loop creates plain futures, as asyncio's own loops and uvloop's do.
        self._is_plain = type(loop.create_future()) is Future
        self.queue = make_queue(config)
        self.stats = stats
        stats.follow(self.queue)
        # The options of the batcher, and those that this engine applies: ``inline()`` derives its own from them.
        self.requested = self._config = config
        # An empty context for future callbacks, which would otherwise each keep a copy of their caller's.
        self.empty_context = Context()
        # Returns the batch function, which the engine holds only while there is work.
        self.source = source
        self._fn: BatchFunction | None = None
        self.add = _make_add(self.queue, stats, config)
        self._tasks: dict[Batch, Task[None]] = {}
        # The one timer for the next decision of the core, and its time.
        self._handle: Handle | None = None
        self._when = AT_ONCE
        # Called when the engine becomes idle.
        self._drains: list[Callable[[], None]] = []

    def activate(self, loop: AbstractEventLoop) -> None:
        """Hold ``loop`` until the engine is idle again, with shortcuts to its clock and its futures."""
        self.running_loop = loop
        # ``time()`` of asyncio's own loops is this clock, behind a method.
        is_monotonic = getattr(loop.time, "__func__", None) is BaseEventLoop.time
        self.clock = monotonic if is_monotonic else loop.time
        self.future = partial(Future, loop=loop) if self._is_plain else loop.create_future

    def check_reentrancy(self) -> None:
        if belongs_to(self.queue.running):
            raise ReentrantCallError(reentrant(self._config.name))

    def waiting(self) -> list[BatchItem]:
        return [BatchItem(item_of(data, self._config), *rest) for data, *rest in self.queue.entries]

    def start_or_schedule(self) -> None:
        """Start full batches at once; set the timer for all others."""
        self.queue.reset_wake_ticket()
        if self.queue.has_full:
            self._start_due_batches()
        else:
            self._schedule()

    def leave(self, ticket: int, future: Future[Any]) -> None:
        if self.loop_is_closed:
            return
        future.cancel()
        if not future.cancelled():
            # The caller has an answer, which is counted.
            return
        if self.queue.withdraw(ticket) is not None:
            self.stats.left()
            self.queue.admit_waiting()
            self._schedule()
        elif (batch := self.queue.abandon(ticket)) is not None:
            self._tasks[batch].cancel()

    def flush(self, reason: str) -> None:
        if not self.idle:
            self.queue.flush(reason)
            self._start_due_batches()

    def change(self, config: Config) -> None:
        self._config = config
        queue, self.queue = self.queue, reconfigured(self.queue, config)
        self.add = _make_add(self.queue, self.stats, config)
        self.stats.replace(queue, self.queue)
        if not self.idle:
            self._schedule()

    def drain(self, when_idle: Callable[[], None]) -> None:
        """Start the queued items now, and call ``when_idle`` once every call is answered; inside a batch, at once."""
        # A task cannot do this: a loop that ends would cancel it.
        if self.running_loop is None or belongs_to(self.queue.running):
            when_idle()
        else:
            self._drains.append(when_idle)
        self.flush("close")

    def count_lost_calls(self) -> None:
        """Count all queued and running calls as cancelled: the closed loop can answer none of them."""
        self.stats.left(self.queue.waiting)
        for batch in list(self.queue.running):
            rest = batch.unfinished
            self.stats.ended(rest, 0.0, failed=0, cancelled=len(rest.waiters))
        self.stats.retire(self.queue)

    @property
    def loop_is_closed(self) -> bool:
        # The loop may even be collected when a coroutine is torn down.
        loop = self.loop()
        return loop is None or loop.is_closed()

    @property
    def idle(self) -> bool:
        return not self.queue.running and not self.queue.waiting

    def _start_due_batches(self) -> None:
        self._expire()
        while (batch := self.queue.take(self.clock())) is not None:
            self.queue.admit_waiting()
            self._start(batch)
        self._schedule()

    def _schedule(self) -> None:
        """Set the one callback to the time at which the core has something to do."""
        at = _earliest(self.queue.wake_at, self.queue.expires_at)
        if at is not None and at <= self.clock():
            at = AT_ONCE
        if self._handle is not None:
            if at == self._when:
                return
            self._handle.cancel()
        self._handle = None
        if at is not None:
            if self._fn is None:
                self._fn = self.source()
            self._when = at
            loop = self._get_loop()
            self._handle = loop.call_soon(self._on_timer) if at == AT_ONCE else loop.call_at(at, self._on_timer)
        elif self.idle:
            self._go_idle()

    def _on_timer(self) -> None:
        self._handle = None
        self._start_due_batches()

    def _expire(self) -> None:
        expired = self.queue.expire(self.clock())
        for entry in expired:
            if entry.waiter.done():
                self.stats.left()
            else:
                self.stats.expired(1)
                entry.waiter.set_exception(DeadlineError(overdue(self._config.name, entry.time_limit)))
        if expired:
            self.queue.admit_waiting()

    def _go_idle(self) -> None:
        self.running_loop = self._fn = None
        del self.clock, self.future
        while self._drains:
            self._drains.pop()()

    def _start(self, batch: Batch) -> None:
        gone = [future.done() for future in batch.waiters]
        if any(gone):
            batch.drop(gone, answered=sum(future.done() and not future.cancelled() for future in batch.waiters))
            self.stats.left(sum(gone))
        if not batch.waiters:
            self.queue.finish(batch, self.clock())
            return
        self.stats.departed(batch)
        depart(batch, self._config)
        if self._fn is None:
            self._fn = self.source()
        run = self._run(batch, self._fn)
        # A coroutine that has not begun when its loop closes warns that it was never awaited.
        run.send(None)
        # A plain task, since the loop's task factory belongs to the application and may start or wrap the coroutine.
        self._tasks[batch] = task = batch_context(batch).run(Task, run, loop=self._get_loop())
        # A loop that closes leaves the task pending for good. The callers report that, so the task need not.
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]

    async def _run(self, batch: Batch, fn: BatchFunction) -> None:
        loop = self._get_loop()
        try:
            await sleep(0)
            await self._run_parts(batch, fn)
        except BaseException as error:
            if self.loop_is_closed:
                raise
            # The task was cancelled before its first step, or an interrupt occurred outside of the batch function.
            if batch in self.queue.running:
                self._end(batch.unfinished, error)
            if not issubclass(type(error), (KeyboardInterrupt, SystemExit)):
                raise
            # The loop raises it once the callers have woken. The task would log it too, since no code awaits the task.
            loop.call_soon(_raise_in_loop, error)

    async def _run_parts(self, batch: Batch, fn: BatchFunction) -> None:
        parts = Reruns(batch, isolate=self._config.isolate_errors)
        for part in parts:
            if part is not batch:
                set_current(part)
            try:
                results = outcome.results(self._config.name, part.size, await fn(parts.items))
            except outcome.RaisedInThread as carried:
                self._fail(parts, carried.error)
            except BaseException as error:
                if self.loop_is_closed:
                    # The task is torn down after its loop, and count_lost_calls() counts the rest.
                    raise
                outcome.drop_engine_frame(error)
                self._fail(parts, error)
                if issubclass(type(error), (CancelledError, KeyboardInterrupt, SystemExit)):
                    raise
            else:
                self._answer(part, results)

    def _answer(self, batch: Batch, results: list[Any]) -> None:
        failed = cancelled = 0
        for future, result in zip(batch.waiters, batch.per_caller(results), strict=True):
            try:
                # Not is_error(): a call for each result would cost too much.
                if issubclass(type(result), Exception):
                    future.set_exception(outcome.translate_exception(result, self._config.name, on_loop=True))
                    failed += 1
                else:
                    future.set_result(result)
            except InvalidStateError:  # noqa: PERF203  # costs nothing from Python 3.11 on, and less than to ask before it
                cancelled += 1
        self._finish(batch, failed, cancelled)

    def _fail(self, parts: Reruns, error: BaseException) -> None:
        ended = parts.ended(error)
        if not ended:
            self.stats.isolated()
        for part in ended:
            self._end(part, error)

    def _end(self, batch: Batch, error: BaseException) -> None:
        failed = 0
        for position, future in zip(batch.positions, batch.waiters, strict=True):
            if not future.done():
                future.set_exception(
                    outcome.exception_for(error, self._config.name, position, batch.size, on_loop=True)
                )
                failed += 1
                if issubclass(type(error), CancelledError):
                    # A loop that ends cancels its tasks, and asyncio logs nothing about these. This error is read, so
                    # that asyncio does not log it either.
                    future.exception()
        self._finish(batch, failed, len(batch.waiters) - failed, error)

    def _finish(self, batch: Batch, failed: int, cancelled: int, error: BaseException | None = None) -> None:
        """Count the answers, and free the slot after the last part. The callers wake in the next loop iteration."""
        now, loop = self.clock(), self._get_loop()
        run_time = now - batch.departed
        over = batch.part_finished(len(batch.waiters) - cancelled)
        if over is not None:
            del self._tasks[over]
            self.queue.finish(over, now)
        self.stats.ended(batch, run_time, failed=failed, cancelled=cancelled)
        batch.forget()
        if over is not None:
            over.forget()
            self.start_or_schedule()
        try:
            report(self._config, batch, run_time, error, on_loop=True)
        except BaseException as raised:  # noqa: BLE001  # the loop raises it, and the batch ends as usual
            loop.call_soon(_raise_in_loop, raised)

    def _get_loop(self) -> AbstractEventLoop:
        # The engine holds it whenever there is work.
        return cast("AbstractEventLoop", self.running_loop)


def _make_add(queue: PlainQueue | GroupedQueue, stats: Stats, config: Config) -> Callable[[Any, Any, float], int]:
    if isinstance(queue, PlainQueue):
        return queue.add

    def add_entry(data: Any, waiter: Any, now: float) -> int:
        if queue.refuses:
            stats.refused()
            raise QueueFullError(full(config.name, cast("int", config.max_pending)))
        ticket = queue.add(as_entry(data), waiter, now)
        queue.admit_waiting()
        return ticket

    return add_entry


def _earliest(one: float | None, other: float | None) -> float | None:
    if one is None or other is None:
        return one if other is None else other
    return min(one, other)


class CancelCallback:
    """Drops the caller of a cancelled future. It is small, since each future has one."""

    __slots__ = ("_engine", "_ticket")

    def __init__(self, engine: AsyncEngine, ticket: int) -> None:
        self._engine = engine
        self._ticket = ticket

    def __call__(self, future: Future[Any]) -> None:
        if future.cancelled():
            self._engine.leave(self._ticket, future)


def _raise_in_loop(error: BaseException) -> None:
    raise error
