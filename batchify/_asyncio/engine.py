"""One batcher on one event loop: it carries out the decisions of the core.

Decides: nothing about batches. It keeps a timer for the next decision, runs batches as tasks, and answers futures.
Must not know: threads, other loops, decorators.

An engine does everything on the thread of its loop. "At once" is the end of the current loop iteration, so that calls
made together share a batch: the first of them creates the task of the batch, whose first step takes the items that are
queued by then.
"""

from __future__ import annotations

from asyncio import BaseEventLoop, CancelledError, Future, InvalidStateError, Task, current_task, get_running_loop
from collections import deque
from contextvars import Context
from functools import partial
from itertools import count
from math import ceil
from typing import TYPE_CHECKING, Any, cast
from weakref import ref

from batchify._asyncio.lifespans import LoopLifespans
from batchify._asyncio.waiters import (
    ItemFuture,
    TaskWaiter,
    answer_all,
    are_pending,
    call_back,
    future_factory,
    future_of,
    only_kind,
)
from batchify._batcher.current import set_current
from batchify._batcher.line import Line
from batchify._batcher.report import report
from batchify._clock import monotonic
from batchify._core import outcome
from batchify._core.batch import BatchItem
from batchify.errors import (
    BatcherClosedError,
    DeadlineError,
    ReentrantCallError,
    dropped,
    interrupting,
    no_loop,
    overdue,
)

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, TimerHandle
    from collections.abc import Awaitable, Callable, Container, Generator, Iterable, Sequence

    from batchify._asyncio.lifespans import EndOfLifespan, Lifespans
    from batchify._asyncio.waiters import AsyncWaiter
    from batchify._batcher.config import Config
    from batchify._batcher.draining import Drain, End
    from batchify._core.batch import Batch
    from batchify._stats.counters import Stats

    BatchFunction = Callable[[list[Any]], Awaitable[Any]]


# A function of C, which ``map()`` calls without a frame.
set_result: Callable[[Future[Any], Any], None] = Future[Any].set_result


def find_loop(name: str) -> AbstractEventLoop:
    """Return the running event loop for a call of the batcher ``name``."""
    try:
        return get_running_loop()
    except RuntimeError:
        raise RuntimeError(no_loop(name)) from None


class UnknownThread:
    """Stands for a loop that does not know its thread, such as uvloop's. asyncio's own loops do."""

    _thread_id = None


class AsyncEngine:
    """The line of one batcher on one event loop, and the tasks that run its batches."""

    # The clock of the loop; an idle engine, which must not hold the loop, may have another one.
    clock: Callable[[], float]

    def __init__(
        self,
        loop: AbstractEventLoop,
        source: Callable[[], BatchFunction],
        lifespans: Lifespans | None,
        config: Config,
        stats: Stats,
    ) -> None:
        # Weak, so that an idle engine does not keep its loop alive.
        self.loop = ref(loop)
        # The loop while the engine is active: from an arrival until it is idle.
        self.running_loop: AbstractEventLoop | None = None
        # The same loop if it is one of asyncio's own, which know the thread that runs them.
        self.threaded: Any = UnknownThread
        # Whether the clock of the loop counts whole milliseconds of ``monotonic()``, as its timers do.
        self._is_coarse = type(loop).__module__ == "uvloop"
        # Whether the engine can use ``monotonic()`` itself, which takes less time and is exact.
        self._is_monotonic = self._is_coarse or type(loop).time is BaseEventLoop.time
        # The options of the batcher. ``inline()`` derives those of the line from them.
        self.requested = config
        self.line = Line(config, stats)
        # The queue that calls may join without ``enter()``, unless they need more than that.
        self.plain = None if config.capture_context else self.line.plain
        # Returns the batch function, which the engine holds only while there is work.
        self.source = source
        # The lifespans of the slots, and the threads of a ``def`` function; ``None`` if there is neither.
        self.lifespans = lifespans
        self._fn: BatchFunction | None = None
        self.clock = monotonic
        # Creates the future that a call awaits; ``None`` while the engine is idle, or if calls await a ``TaskWaiter``.
        self.future: Callable[[], Future[Any]] | None = None
        # Creates the future of ``submit()``.
        self.item_future: Callable[..., ItemFuture] = ItemFuture
        # Returns whether a waiter still wants an answer.
        self.is_open: Callable[[Any], bool] = _is_open
        # Whether an exception has interrupted a step of the queue.
        self._is_torn = False
        # The task that takes the next batch in its first step.
        self._starting: Task[None] | None = None
        # A timer for the next decision of the core, and its time. It may be early, and then is set again.
        self._timer: TimerHandle | None = None
        self._due = 0.0

    def activate(self, loop: AbstractEventLoop) -> None:
        """Hold ``loop`` until the engine is idle again, with shortcuts to its clock and its futures."""
        if not self._is_monotonic:
            self.clock = loop.time
        self.future = future_factory(loop)
        # After the clock and the futures, so that an interrupt before this line leaves an idle engine.
        self.running_loop = loop
        if isinstance(loop, BaseEventLoop):
            self.threaded = loop

    def waiting(self) -> list[BatchItem]:
        return [BatchItem(item, future_of(waiter), arrived) for item, waiter, arrived in self.line.entries]

    def enter(self, data: Any, waiter: AsyncWaiter) -> int:
        """Queue ``data`` for ``waiter``, and return the mark for ``leave()``."""
        if self.line.is_interrupted():
            raise ReentrantCallError(interrupting(self.line.name))
        if self._is_torn:
            self._mend()
        self.line.check_room(data)
        if self._fn is None:
            self._fn = self.source()
        if self.line.joinable and self.line.join(data, waiter):
            return 0
        try:
            mark = self.line.add(data, waiter, self.clock())
            self.line.admit()
            # At once, so that the items of a full batch make room for the next call.
            while self.line.has_full and (batch := self._take_open()) is not None:
                self._create_task(batch)
            self.start_or_schedule()
        except BaseException:
            self._mend_soon()
            raise
        return mark

    def _mend_soon(self) -> None:
        self._is_torn = True
        self._call_soon(self.start_or_schedule)

    def _mend(self) -> None:
        """Complete a step that an exception such as a ``RecursionError`` has interrupted."""
        self.line.mend(self.line.config)
        for batch in self.line.queue.running:
            if batch.task is None:
                self._create_task(batch)
        self._is_torn = False

    def start_or_schedule(self) -> None:
        """Create the task of a batch that may leave now, or set the timer for the next decision."""
        line, loop = self.line, self.running_loop
        if line.is_interrupted():
            self._call_soon(self.start_or_schedule)
            return
        if loop is None:
            # A finalizer or a signal handler has ended the work meanwhile.
            self.activate(loop := cast("AbstractEventLoop", self.loop()))
        if self._is_torn:
            self._mend()
        if line.drains:
            line.end_drains()
        at = line.plan()
        if at is None:
            self._go_idle_if_done()
            return
        if self._fn is None:
            self._fn = self.source()
        now = self.clock()
        if at > now:
            self._set_timer(loop, at, now)
        elif self._starting is None:
            self._starting = self._create_task()

    def _set_timer(self, loop: AbstractEventLoop, at: float, now: float) -> None:
        if self._timer is not None and now < self._due <= at:
            return
        self._cancel_timer()
        self._due = at
        if self._is_coarse:
            # Rounded up, because the loop would round a short delay down to 0, and spin.
            self._timer = loop.call_later(ceil(1000 * (at - now)) / 1000, self._on_timer)
        else:
            self._timer = loop.call_at(at, self._on_timer)

    def _call_soon(self, action: Callable[..., None], *args: Any) -> None:
        """Defer an action that a finalizer or signal handler requested in the middle of another one."""
        cast("AbstractEventLoop", self.loop()).call_soon(action, *args)

    def leave(self, mark: int, waiter: AsyncWaiter) -> None:
        """Drop a caller that has no answer yet."""
        if self.loop_is_closed:
            return
        if not waiter.done():
            waiter.cancel()
        if not waiter.cancelled():
            # The caller has an answer, which is counted.
            return
        if self.line.is_interrupted():
            self._call_soon(self.leave, mark, waiter)
            return
        if self._is_torn:
            self._mend()
        try:
            entry = self.line.leave(mark, waiter)
            self.line.admit()
        except BaseException:
            self._mend_soon()
            raise
        if entry is not None:
            self.start_or_schedule()
        else:
            self._end_abandoned()

    def _end_abandoned(self) -> None:
        """Cancel the batches that no caller waits for."""
        # A copy, because a finalizer may call meanwhile.
        for batch in [*self.line.queue.running]:
            if batch.is_abandoned(self.is_open) and batch.task is not None:
                batch.task.end()

    def flush(self, reason: str) -> None:
        if self.line.is_interrupted():
            self._call_soon(self.flush, reason)
        elif self.line.waiting:
            self.line.queue.flush(reason)
            self.start_or_schedule()

    def configure(self, config: Config) -> None:
        if self.line.is_interrupted():
            self._call_soon(self.configure, config)
            return
        self.line.configure(config)
        self._end_lifespans(self.kept_slots if config.executor is None else ())
        self.plain = None if config.capture_context else self.line.plain
        if self.running_loop is not None:
            self.start_or_schedule()

    def drain(self, drain: Drain) -> None:
        """Start the queued items now; ``drain`` ends when all calls so far are answered."""
        if self.running_loop is None:
            drain.set()
        else:
            self.line.drain(drain, self.clock())
            self.start_or_schedule()

    def drop_queued(self) -> None:
        """Fail all calls whose items have not started."""
        if self.line.is_interrupted():
            self._call_soon(self.drop_queued)
            return
        for future in self.line.fail_unstarted():
            if not future.done():
                future.set_exception(BatcherClosedError(dropped(self.line.name)))
        self._end_abandoned()
        if self.running_loop is not None:
            self.start_or_schedule()

    def abort(self) -> None:
        """Answer the queued calls with an error, because their loop ends."""
        for future in self.line.fail_all():
            if not future.done():
                future.set_exception(outcome.translate_exception(CancelledError(), self.line.name, on_loop=True))
                # This error is read, so that asyncio does not log it.
                future.exception()

    def count_lost_calls(self) -> None:
        """Count all queued and running calls as cancelled: the closed loop can answer none of them."""
        self.line.stats.retire(self.line)

    @property
    def loop_is_closed(self) -> bool:
        # The loop may even be collected when a coroutine is torn down.
        loop = self.loop()
        return loop is None or loop.is_closed()

    def _on_timer(self) -> None:
        try:
            self._timer = None
            self._expire()
            self.start_or_schedule()
        except BaseException:
            self._mend_soon()
            raise

    def _cancel_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _go_idle_if_done(self) -> None:
        if self._starting is not None or not self.line.idle:
            return
        self._cancel_timer()
        # First, because a call that finds the loop there does not look it up.
        self.threaded = UnknownThread
        self.running_loop = self.future = self._fn = None
        self.clock = monotonic
        if not self.line.idle:
            # A finalizer or a signal handler has called meanwhile.
            self.start_or_schedule()

    def _expire(self) -> None:
        if self._is_torn:
            self._mend()
        expired = self.line.expire(self.clock())
        for entry in expired:
            if not entry.waiter.done():
                entry.waiter.set_exception(DeadlineError(overdue(self.line.name, entry.time_limit)))
        if expired:
            self.line.admit()

    def _create_task(self, batch: Batch | None = None) -> Task[None]:
        """Create the task of a batch, by default of the one that may leave at the first step of the task."""
        loop: Any = self.loop()
        run = self._run(self.source() if self._fn is None else self._fn, loop, batch)
        # A coroutine that has not begun when its loop closes warns that it was never awaited.
        run.send(None)
        # A plain task, since the loop's task factory belongs to the application and may start or wrap the coroutine.
        task = Context().run(BatchTask, run, loop=loop, name=self.line.name)
        if batch is not None:
            if batch.slot is None:
                batch.slot = self._free_slot()
            batch.task = task
        task.engine = self
        # A loop that closes leaves the task pending for good. The callers report that, so the task need not.
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
        return task

    async def _run(self, fn: Any, loop: AbstractEventLoop, batch: Batch | None) -> None:
        try:
            await NEXT_STEP
            batch = self._take(batch)
            if batch is None or (self.lifespans is not None and not await self._enter(self.lifespans, batch)):
                return
            runs = self.line.runs(batch)
            for part in runs:
                if part.parent is not None and part.is_abandoned(self.is_open):
                    # Its callers left while another part ran.
                    self._end(part, CancelledError())
                    continue
                set_current(part)
                try:
                    answers, any_failed = self.line.answers(part, await fn(part.given or part.items))
                except BaseException as error:
                    if self._ends_task(runs, part, error):
                        raise
                else:
                    answer = self._answer_each if any_failed else self._answer
                    answer(part, answers)
        except BaseException as error:
            if self._is_raised_by_task(error):
                raise
            # The loop raises it once the callers have woken. The task would log it too, since no code awaits the task.
            loop.call_soon(_raise_in_loop, error)

    def _free_slot(self) -> int | None:
        """Return the lowest slot that no running batch has; with an executor, batches have none."""
        if self.line.config.executor is not None:
            return None
        taken = {batch.slot for batch in self.line.queue.running}
        return next(slot for slot in count() if slot not in taken)

    async def _enter(self, lifespans: Lifespans, batch: Batch) -> bool:
        """Enter the lifespan of the slot before its first batch; return whether the batch can run."""
        if batch.slot is None:
            return True
        try:
            batch.state, is_new = await lifespans.enter(batch.slot, batch)
        except BaseException as error:
            if self._ends_task((batch,), batch, error):
                raise
            return False
        if is_new:
            # Entering is not run time, and the first run after it is slow.
            batch.departed, batch.run_cost = self.clock(), None
        return True

    def _end_lifespans(self, slots: Container[int]) -> Sequence[EndOfLifespan]:
        """End the lifespans of all idle slots but the given ones."""
        if self.lifespans is None:
            return ()
        busy = {batch.slot for batch in self.line.queue.running}
        return self.lifespans.end(lambda slot: slot not in busy and slot not in slots)

    @property
    def needs_loop(self) -> bool:
        """Whether the loop has to run batches, or to exit lifespans."""
        exits = isinstance(self.lifespans, LoopLifespans) and self.lifespans.are_entered
        return exits or not self.line.idle

    @property
    def kept_slots(self) -> Container[int]:
        """The slots whose lifespans go on when their batches end."""
        # A close that does not wait for the last batches leaves these lifespans to be ended.
        is_left = any(drain.reason == "close" and drain.done() for drain in self.line.drains)
        return () if is_left and not self.line.waiting else range(self.line.config.concurrency)

    def end_workers(self, end: End) -> None:
        """End the idle lifespans and threads. Set ``end`` after that."""
        end.set_after(self._end_lifespans(()))

    def _is_raised_by_task(self, error: BaseException) -> bool:
        """End the rest of the batch of a task that ends with ``error``. Return whether the task raises it."""
        if self.loop_is_closed or type(error) is GeneratorExit:
            # The coroutine is torn down, perhaps without a task of its own.
            return True
        task: Any = current_task(self.loop())
        # An interrupt may also have occurred outside of the batch function.
        self._call_soon(self.start_or_schedule)
        if task is self._starting:
            # The task was cancelled before its first step.
            self._take(None)
        for batch in [batch for batch in self.line.queue.running if batch.task is task]:
            self._end(batch.unfinished, error)
        return not issubclass(type(error), (KeyboardInterrupt, SystemExit))

    def _take(self, batch: Batch | None) -> Batch | None:
        """Return ``batch``, or take the next one that any caller still waits for, and prepare the one after it."""
        # Not ``_starting``: a finalizer that made a call while that task was created may have created another one.
        task: Any = current_task(self.running_loop)
        if batch is not None:
            # Unless an interrupt has handed it to another task.
            return batch if batch.task is task else None
        self._starting = None
        line = self.line
        try:
            batch = self._take_open()
            if batch is not None:
                batch.task = task
                batch.slot = 0 if line.is_serial else self._free_slot()
            if batch is None or not line.is_serial or line.drains:
                self.start_or_schedule()
        except BaseException:
            if batch is not None:
                # Another task will run it.
                batch.task = None
            self._mend_soon()
            raise
        return batch

    def _take_open(self) -> Batch | None:
        """Take the next batch with callers that still wait, without the others, and without overdue items."""
        line = self.line
        if line.plain is None:
            self._expire()
        while (batch := line.take(now := self.clock())) is not None:
            if line.plain is None:
                line.admit()
            waiters = batch.waiters
            if only_kind(waiters) is TaskWaiter or are_pending(waiters):
                break
            if line.drop(batch, [waiter.done() for waiter in waiters], now):
                break
        return batch

    def _ends_task(self, runs: Iterable[Batch], part: Batch, error: BaseException) -> bool:
        """End the parts that ``error`` of the batch function ends. Return whether it ends the task of the batch too."""
        if type(error) is outcome.RaisedInThread:
            self._fail(runs, part, error.error)
            return False
        if self.loop_is_closed:
            # The task is torn down after its loop, and count_lost_calls() counts the rest.
            return True
        outcome.drop_engine_frame(error)
        self._fail(runs, part, error)
        return issubclass(type(error), (CancelledError, KeyboardInterrupt, SystemExit))

    def _answer(self, part: Batch, answers: list[Any]) -> None:
        kind = only_kind(part.waiters)
        if kind is TaskWaiter:
            # The engine becomes idle only if none of the callers calls again at once.
            answer_all(self.running_loop, part.waiters, answers, self._go_idle_if_done)
            self._release(part, 0, 0)
        elif kind is ItemFuture:
            # First, as in ``answer_all()``.
            self._call_soon(call_back, iter(part.waiters))
            self._answer_futures(part, answers)
        elif kind is Future:
            self._answer_futures(part, answers)
        else:
            self._answer_each(part, answers)

    def _answer_futures(self, part: Batch, results: list[Any]) -> None:
        cancelled = 0
        answers = map(set_result, part.waiters, results)
        while True:
            try:
                deque(answers, maxlen=0)
                break
            except InvalidStateError:
                # Another caller has left. The next round continues after it.
                cancelled += 1
        self._finish(part, 0, cancelled)

    def _answer_each(self, part: Batch, answers: list[Any]) -> None:
        failed = cancelled = 0
        for future, answer in zip(part.waiters, answers, strict=True):
            if future.done():
                cancelled += 1
            elif outcome.is_error(answer):
                future.set_exception(outcome.translate_exception(answer, self.line.name, on_loop=True))
                failed += 1
            else:
                future.set_result(answer)
        self._finish(part, failed, cancelled)

    def _fail(self, runs: Iterable[Batch], part: Batch, error: BaseException) -> None:
        for ended in self.line.ended(runs, part, error, is_abandoned=part.root.is_abandoned(self.is_open)):
            self._end(ended, error)

    def _end(self, part: Batch, error: BaseException) -> None:
        failed = cancelled = 0
        for position, future in zip(part.positions, part.waiters, strict=True):
            if future.done():
                cancelled += 1
            elif not self.is_open(future):
                # A stream that has ended before its batch.
                future.set_result(None)
                failed += future.error is not None
            else:
                future.set_exception(outcome.exception_for(error, self.line.name, position, part.size, on_loop=True))
                failed += 1
                if issubclass(type(error), CancelledError):
                    # A loop that ends cancels its tasks, and asyncio logs nothing about these. This error is read, so
                    # that asyncio does not log it either.
                    future.exception()
        self._finish(part, failed, cancelled, error)

    def _finish(self, part: Batch, failed: int, cancelled: int, error: BaseException | None = None) -> None:
        self._release(part, failed, cancelled, error)
        self._go_idle_if_done()

    def _release(self, part: Batch, failed: int, cancelled: int, error: BaseException | None = None) -> None:
        """Count the answers, and free the slot after the last part. The callers wake in the next loop iteration."""
        now = self.clock()
        run_time = self.line.count(part, now, failed, cancelled)
        batch = self.line.end(part, now)
        if batch is not None:
            batch.task = None
            if self.lifespans is not None:
                self._end_lifespans(self.kept_slots)
            plain = self.line.plain
            if plain is None or plain.places or self.line.drains or self._is_torn:
                self.start_or_schedule()
            else:
                # Nothing is due before the next call, so the engine need not hold the batch function.
                self._fn = None
        config = self.line.config
        if config.on_batch is not None and part.size:
            try:
                report(config.on_batch, config, part, run_time, error, on_loop=True)
            except BaseException as raised:  # noqa: BLE001  # the loop raises it, and the batch ends as usual
                self._call_soon(_raise_in_loop, raised)


class BatchTask(Task[None]):
    """The task of a batch. If it is cancelled while its loop is stopped, the loop ends, and starts no other batch."""

    __slots__ = ("engine",)

    engine: AsyncEngine
    loop_ends = False

    def end(self, msg: Any = None) -> bool:
        """Cancel this batch, which no caller waits for, and leave the queue as it is."""
        for batch in [batch for batch in self.engine.line.queue.running if batch.task is self]:
            self.engine.line.seal(batch)
        return super().cancel(msg)

    def cancel(self, msg: Any = None) -> bool:
        if not self.get_loop().is_running():
            # asyncio.run() does not cancel the task of the next batch, which this one would create at its end.
            self.engine.abort()
            self.loop_ends = True
        return self.end(msg)


class NextStep:
    """Awaited, it lets a coroutine wait for the next step of its task.

    It runs no Python code, where a signal handler could raise before the coroutine has a task.
    """

    if TYPE_CHECKING:

        def __await__(self) -> Generator[None, None, None]: ...
    else:
        __await__ = staticmethod(partial(iter, (None,)))


NEXT_STEP = NextStep()


def _is_open(waiter: AsyncWaiter) -> bool:
    return not waiter.done()


def _raise_in_loop(error: BaseException) -> None:
    raise error
