"""One batcher on one event loop: does what the core says.

Decides: nothing about batches. It keeps one timer for the head of the line, runs batches as tasks, and answers futures.
Must not know: threads, other loops, decorators.

All that an engine does happens on its loop's thread. "At once" is the end of the current iteration of the loop, so that
calls made together travel together, and so that callers who were just answered can come back before the next batch
leaves.
"""

from __future__ import annotations

from asyncio import BaseEventLoop, CancelledError, Future, InvalidStateError
from contextvars import Context
from functools import partial
from time import monotonic
from types import coroutine
from typing import TYPE_CHECKING, Any, cast
from weakref import ref

from batchify._batcher.admission import as_entry, item_of, make_queue, reconfigured
from batchify._batcher.current import batch_context, belongs_to, enter
from batchify._batcher.report import report
from batchify._core import outcome
from batchify._core.batch import BatchItem
from batchify._core.queue import PlainQueue
from batchify._core.reruns import Reruns
from batchify.errors import DeadlineError, QueueFullError, ReentrantCallError, full, overdue, reentrant

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Handle, Task
    from collections.abc import Awaitable, Callable, Generator

    from batchify._batcher.config import Config
    from batchify._core.batch import Batch
    from batchify._core.grouped import GroupedQueue
    from batchify._stats.counters import Stats

    BatchFunction = Callable[[list[Any]], Awaitable[Any]]

NOW = float("-inf")


class AsyncEngine:
    """One batcher's line on one event loop."""

    __slots__ = (
        "_config",
        "_drains",
        "_fn",
        "_handle",
        "_is_plain",
        "_pumping",
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

    # The time on the loop, and how a future of it is made; there while the engine is awake.
    clock: Callable[[], float]
    future: Callable[[], Future[Any]]
    # Puts an item into the line for a waiter and returns its ticket; who gets one at the alarm or above it rings.
    add: Callable[[Any, Any, float], int]

    def __init__(
        self, loop: AbstractEventLoop, source: Callable[[], BatchFunction], config: Config, stats: Stats
    ) -> None:
        # Weak, so that an idle engine does not keep its loop alive.
        self.loop = ref(loop)
        # The loop while the engine is awake: from an arrival until it is idle again.
        self.running_loop: AbstractEventLoop | None = None
        # Whether the loop makes plain futures, as asyncio's own and uvloop's do.
        self._is_plain = type(loop.create_future()) is Future
        self.queue = make_queue(config)
        self.stats = stats
        stats.follow(self.queue)
        # The options, as they were given and as this engine goes by them.
        self.requested = self._config = config
        # For the callbacks of futures: each would keep a copy of its caller's context else.
        self.empty_context = Context()
        # Where the batch function comes from; held itself only while there is something to run it for.
        self.source = source
        self._fn: BatchFunction | None = None
        self.add = self._adding()
        self._tasks: dict[Batch, Task[None]] = {}
        # The one callback that will ask the core again, and the time it was set for.
        self._handle: Handle | None = None
        self._when = NOW
        self._pumping = False
        # Who is to be told when nothing waits and nothing runs.
        self._drains: list[Callable[[], None]] = []

    def wake(self, loop: AbstractEventLoop) -> None:
        """Hold ``loop``, and the shortest ways to what is asked of it for every item."""
        self.running_loop = loop
        # That of asyncio's own loops is this clock, behind a method.
        is_monotonic = getattr(loop.time, "__func__", None) is BaseEventLoop.time
        self.clock = monotonic if is_monotonic else loop.time
        self.future = partial(Future, loop=loop) if self._is_plain else loop.create_future

    def check_reentrancy(self) -> None:
        """Refuse a call from a batch of this engine, which would wait for itself.

        Raises:
            ReentrantCallError: it is one.
        """
        if belongs_to(self.queue.running):
            raise ReentrantCallError(reentrant(self._config.name))

    def waiting(self) -> list[BatchItem]:
        """Return the items that wait, in order of arrival."""
        return [BatchItem(item_of(data, self._config), *rest) for data, *rest in self.queue.places]

    def start_or_schedule(self) -> None:
        """See to the arrival that rang the core's alarm."""
        self.queue.reset_wake_ticket()
        self._start_or_schedule()

    def pump(self) -> None:
        """Start every batch that may leave now. An eager one is over by then, and who started it goes on."""
        if self._pumping:
            return
        self._pumping = True
        try:
            self._drop_late()
            while (batch := self.queue.take(self.clock())) is not None:
                self.queue.admit_waiting()
                self._start(batch)
        finally:
            self._pumping = False
            self._schedule()

    def leave(self, ticket: int, future: Future[Any]) -> None:
        """Let go of a caller that will not read its answer."""
        if self.ended:
            return
        future.cancel()
        if not future.cancelled():
            # It was answered, though nobody will look: that is counted already.
            return
        if self.queue.withdraw(ticket) is not None:
            self.stats.left()
            self.queue.admit_waiting()
            self._schedule()
        elif (batch := self.queue.abandon(ticket)) in self._tasks:
            self._tasks[batch].cancel()

    def push(self, reason: str) -> None:
        """Let what waits leave now."""
        if not self.idle:
            self.queue.push(reason)
            self.pump()

    def change(self, config: Config) -> None:
        """Go by these options from now on."""
        self._config = config
        queue, self.queue = self.queue, reconfigured(self.queue, config)
        self.add = self._adding()
        self.stats.replace(queue, self.queue)
        if not self.idle:
            # Not yet pump(): who changes options holds a lock, and tasks may begin at once.
            self._schedule()

    def drain(self, tell: Callable[[], None]) -> None:
        """Let what waits leave now, and ``tell`` when all is answered, or at once if that waits for the caller.

        No task: those of a loop are cancelled when it ends.
        """
        if self.running_loop is None or belongs_to(self.queue.running):
            tell()
        else:
            self._drains.append(tell)
        self.push("close")

    def abandon(self) -> None:
        """Count what waits and runs as left by its callers: the loop is closed, nobody can be answered any more."""
        self.stats.left(self.queue.waiting)
        for batch in list(self.queue.running):
            rest = batch.rest
            self.stats.ended(rest, 0.0, failed=0, cancelled=len(rest.waiters))
        self.stats.retire(self.queue)

    @property
    def ended(self) -> bool:
        """Whether the loop is closed, or even gone, as it may be when a coroutine is torn down."""
        loop = self.loop()
        return loop is None or loop.is_closed()

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing runs."""
        return not self.queue.running and not self.queue.waiting

    def _start_or_schedule(self) -> None:
        """Start a full batch, which has nobody to wait for; see to the timer for all others."""
        if self.queue.has_full:
            self.pump()
        else:
            self._schedule()

    def _schedule(self) -> None:
        """Set the one callback to the time that the core names; whoever is pumping does it in the end."""
        if self._pumping:
            return
        at = _earliest(self.queue.wake_at, self.queue.expires_at)
        if at is not None and at <= self.clock():
            at = NOW
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
            self._handle = loop.call_soon(self._on_timer) if at == NOW else loop.call_at(at, self._on_timer)
        elif self.idle:
            self._go_idle()

    def _on_timer(self) -> None:
        self._handle = None
        self.pump()

    def _drop_late(self) -> None:
        """Tell those whose deadlines are over."""
        dropped = self.queue.expire(self.clock())
        for place in dropped:
            if place.waiter.done():
                self.stats.left()
            else:
                self.stats.expired(1)
                place.waiter.set_exception(DeadlineError(overdue(self._config.name, place.time_limit)))
        if dropped:
            self.queue.admit_waiting()

    def _adding(self) -> Callable[[Any, Any, float], int]:
        queue = self.queue
        return queue.add if isinstance(queue, PlainQueue) else _asking(queue, self.stats, self._config)

    def _go_idle(self) -> None:
        """Let go of everything that is only needed while there is work."""
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
        if self._fn is None:
            self._fn = self.source()
        run = self._run(batch, self._fn)
        # A coroutine that has not begun when its loop is closed would warn that it was never awaited.
        run.send(None)
        try:
            context = batch_context(batch, self._config)
            task = context.run(self._get_loop().create_task, run)
        except BaseException as error:
            # The task factory of the loop is somebody else's.
            run.close()
            if batch in self.queue.running:
                self._end(batch, error)
            if issubclass(type(error), (KeyboardInterrupt, SystemExit)):
                raise
            return
        # An eager task may be over by now.
        if batch in self.queue.running:
            self._tasks[batch] = task
            # A loop that is closed under it leaves it pending for good, and the callers are who has reason to complain.
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]

    async def _run(self, batch: Batch, fn: BatchFunction) -> None:
        loop = self._get_loop()
        try:
            await _begin()
            await self._run_parts(batch, fn)
        except BaseException as error:
            # It was cancelled before the first step of its task, or an interrupt came outside of the batch function. If
            # it is thrown away because there will be no task, who wanted that tells why.
            thrown_away = issubclass(type(error), GeneratorExit) and batch not in self._tasks
            if batch in self.queue.running and not thrown_away and not self.ended:
                self._end(batch.rest, error)
            if self.ended or not issubclass(type(error), (KeyboardInterrupt, SystemExit)):
                raise
            # For the loop to see, once callers know. Raised here, it would go through the call that filled the batch if
            # tasks are eager, and be complained of as an error of a task that nobody awaits.
            loop.call_soon(_raise, error)

    async def _run_parts(self, batch: Batch, fn: BatchFunction) -> None:
        parts = Reruns(batch, isolate=self._config.isolate_errors)
        for part in parts:
            if part is not batch:
                enter(part, self._config)
            try:
                results = outcome.results(self._config.name, part.size, await fn(parts.items))
            except outcome.RaisedInThread as carried:
                self._fail(parts, carried.error)
            except BaseException as error:
                if self.ended:
                    # The task is torn down after its loop: abandon() has seen to the rest.
                    raise
                outcome.drop_engine_frame(error)
                self._fail(parts, error)
                if issubclass(type(error), (CancelledError, KeyboardInterrupt, SystemExit)):
                    raise
            else:
                self._answer(part, results)

    def _answer(self, batch: Batch, results: list[Any]) -> None:
        failed = cancelled = 0
        for future, result in zip(batch.waiters, batch.per_caller(results, outcome.with_own_exceptions), strict=True):
            try:
                # Not isinstance(), which asks the object: that is somebody else's code.
                if issubclass(type(result), Exception):
                    future.set_exception(outcome.shared_exception(result, self._config.name, on_loop=True))
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
                    # As a cancelled task, it is nothing to complain of if nobody looks: so ends whatever a loop leaves.
                    future.exception()
        self._finish(batch, failed, len(batch.waiters) - failed, error)

    def _finish(self, batch: Batch, failed: int, cancelled: int, error: BaseException | None = None) -> None:
        """Count, and free the slot if this was the last part. Who was answered sees it in the loop's next iteration."""
        now, loop = self.clock(), self._get_loop()
        run_time = now - batch.departed
        over = batch.over(len(batch.waiters) - cancelled)
        if over is not None:
            self._tasks.pop(over, None)
            self.queue.finish(over, now)
        self.stats.ended(batch, run_time, failed=failed, cancelled=cancelled)
        batch.forget()
        if over is not None:
            over.forget()
            self._start_or_schedule()
        try:
            report(self._config, batch, run_time, error, on_loop=True)
        except BaseException as raised:  # noqa: BLE001  # it is for the loop to see, and what is left of the batch goes on
            loop.call_soon(_raise, raised)

    def _get_loop(self) -> AbstractEventLoop:
        """Return the loop, which is there whenever there is work."""
        return cast("AbstractEventLoop", self.running_loop)


def _asking(queue: GroupedQueue, stats: Stats, config: Config) -> Callable[[Any, Any, float], int]:
    """Return ``core.add`` for items that ask for more."""

    def add(data: Any, waiter: Any, now: float) -> int:
        if queue.refuses:
            stats.refused()
            raise QueueFullError(full(config.name, cast("int", config.max_pending)))
        ticket = queue.add(as_entry(data), waiter, now)
        queue.admit_waiting()
        return ticket

    return add


def _earliest(one: float | None, other: float | None) -> float | None:
    if one is None or other is None:
        return one if other is None else other
    return min(one, other)


class CancelCallback:
    """Lets go of the caller of a future that is cancelled. One is made for each, so it is a small one."""

    __slots__ = ("_engine", "_ticket")

    def __init__(self, engine: AsyncEngine, ticket: int) -> None:
        self._engine = engine
        self._ticket = ticket

    def __call__(self, future: Future[Any]) -> None:
        if future.cancelled():
            self._engine.leave(self._ticket, future)


@coroutine
def _begin() -> Generator[None, None, None]:
    """Stop at once, to be continued by the first step of a task."""
    yield


def _raise(error: BaseException) -> None:
    raise error
