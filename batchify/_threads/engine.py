"""One batcher's line and its worker threads: does with threads what the core says.

Decides: nothing about batches. It wakes workers when the core has something for them, and callers when they have
their answers.
Must not know: how a caller waits, event loops, decorators.

Workers are daemon threads, started when they are first needed, at most ``concurrency`` of them. A worker ends

* when the engine is gone,
* when the engine is closed and nothing waits,
* with the process, after what was submitted is answered.
"""

from __future__ import annotations

from _thread import start_new_thread
from threading import TIMEOUT_MAX, RLock, get_ident
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, cast

from batchify._batcher.admission import (
    as_entry,
    depart,
    entry_factory,
    grouped_entry_factory,
    item_of,
    make_queue,
    reconfigured,
)
from batchify._batcher.current import batch_context, belongs_to, current
from batchify._batcher.report import report
from batchify._core import outcome
from batchify._core.batch import Batch, BatchItem
from batchify._core.queue import PlainQueue
from batchify._core.reruns import Reruns
from batchify._threads.deadlines import DeadlineThread
from batchify._threads.workers import Workers
from batchify.errors import (
    BatcherClosedError,
    DeadlineError,
    QueueFullError,
    ReentrantCallError,
    closed,
    full,
    interrupting,
    overdue,
    reentrant,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from weakref import ref

    from batchify._batcher.config import Config
    from batchify._batcher.executors import BatchExecutor
    from batchify._core.entries import Entry
    from batchify._core.grouped import GroupedQueue
    from batchify._stats.counters import Stats
    from batchify._threads.workers import WakeSignal

    BatchFunction = Callable[[list[Any]], Any]


class ThreadEngine:
    """The line of one batcher, its slots and its workers."""

    def __init__(self, source: Callable[[BatchExecutor | None], BatchFunction], config: Config, stats: Stats) -> None:
        self.name = config.name
        # The options, as they were given and as this engine goes by them.
        self.requested = self._config = config
        self._source = source
        # Guards all below. Nothing of the user's runs under it but what comes unasked: finalizers and signal handlers.
        # For their sake a thread can tell whether it has it.
        self._lock = RLock()
        self.queue = make_queue(config)
        self._prepare = entry_factory(config)
        self.stats = stats
        stats.follow(self.queue)
        self.started = self.closed = False
        # The batch function, held only while there is something to run it for.
        self._fn: BatchFunction | None = None
        self.workers = Workers(self)
        # Their threads, once they run.
        self.threads: set[int] = set()
        # Who minds deadlines, from the first call that has one, and how many callers are about to be told of theirs.
        self._deadline_thread: DeadlineThread | None = None
        self._notifying = 0
        # Who is to be told when nothing waits and nothing runs; under the lock, as nobody who is told comes back.
        self._drains: list[Callable[[], None]] = []

    def enter(self, item: Any, waiter: Any) -> int:
        """Put ``item`` into the line for ``waiter``; return the ticket to ``leave()`` with.

        Raises:
            BatcherClosedError: the engine is closed.
            QueueFullError: there is no room, and nobody may wait for it.
            ReentrantCallError: a batch of this engine waits for the item.
            RuntimeError: the item needs a worker, and no thread can be started.
        """
        if current() and belongs_to(self.queue.running):
            raise self.reentrant()
        if self.reentered:
            raise ReentrantCallError(interrupting(self.name))
        data = item if self._prepare is None else self._prepare(item)
        with self._lock:
            if self.closed:
                raise BatcherClosedError(closed(self.name))
            self.started = True
            queue = self.queue
            ticket = (
                queue.add(data, waiter, monotonic())
                if isinstance(queue, PlainQueue)
                else self._stand(data, waiter, queue)
            )
            if ticket >= queue.wake_ticket:
                self._ensure_worker(ticket)
        return ticket

    def _stand(self, data: Any, waiter: Any, queue: GroupedQueue) -> int:
        """Put an item that asks for more into the line, or at the door, and return its ticket. Needs the lock."""
        if queue.refuses:
            self.stats.refused()
            raise QueueFullError(full(self.name, cast("int", self._config.max_pending)))
        place = as_entry(data)
        if place.time_limit is not None and self._deadline_thread is None:
            self._deadline_thread = DeadlineThread(self, f"{self.name}-deadlines")
        ticket = queue.add(place, waiter, monotonic())
        self._admit_waiting()
        if self._deadline_thread is not None and queue.expires_at == place.deadline:
            self._deadline_thread.wake()
        return ticket

    def expire(self) -> float:
        """Tell those whose deadlines are over, on the thread that minds them; return the seconds to the next one."""
        # As on a worker, callbacks of futures must not wait for what waits for them.
        self.threads.add(get_ident())
        try:
            return self._expire()
        finally:
            self.threads.discard(get_ident())

    def _expire(self) -> float:
        with self._lock:
            dropped = self.queue.expire(monotonic())
            self._notifying += len(dropped)
            self._admit_waiting()
            if dropped:
                self._recheck()
        self._tell_late(dropped)
        with self._lock:
            self._notifying -= len(dropped)
            fn = self._go_idle_if_done()
            at = self.queue.expires_at
        del fn
        return TIMEOUT_MAX if at is None else at - monotonic()

    def _tell_late(self, places: Sequence[Entry]) -> None:
        late = [place for place in places if place.waiter.is_open()]
        self.stats.expired(len(late))
        self.stats.left(len(places) - len(late))
        for place in late:
            place.waiter.error = DeadlineError(overdue(self.name, place.time_limit))
        for place in places:
            place.waiter.admit()
            place.waiter.wake()

    @property
    def reentered(self) -> bool:
        """Whether the running code came in the middle of what its thread does here, and must not change anything."""
        # threading.Condition relies on this too.
        return cast("bool", self._lock._is_owned())  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]

    def waits_for_this(self) -> bool:
        """Say whether a batch waits for the running code: it is part of the batch, or a callback on its thread."""
        return get_ident() in self.threads or belongs_to(self.queue.running)

    def reentrant(self) -> ReentrantCallError:
        """Return the error for a call that would wait for itself."""
        return ReentrantCallError(reentrant(self.name))

    def waiting(self) -> list[BatchItem]:
        """Return the items that wait, in order of arrival."""
        with self._lock:
            entries = self.queue.entries
        return [BatchItem(item_of(data, self._config), waiter.future, arrived) for data, waiter, arrived in entries]

    def leave(self, ticket: int) -> bool:
        """Let go of a caller that will not read its answer; say whether its item still waited."""
        with self._lock:
            place = self.queue.withdraw(ticket)
            fn = None
            if place is not None:
                self.stats.left()
                _, waiter, _ = place
                # Who waits at the door is not to wait any more.
                waiter.admit()
                self._admit_waiting()
                self._recheck()
                fn = self._go_idle_if_done()
        del fn
        return place is not None

    def push(self, reason: str) -> None:
        """Let what waits leave now, as far as there are slots."""
        if self.reentered:
            start_new_thread(self.push, (reason,))
            return
        with self._lock:
            self.queue.flush(reason)
            if self.queue.wake_at is not None:
                self._wake_another()

    def change(self, config: Config) -> None:
        """Go by these options from now on. Workers that are too many then end when they have nothing to do."""
        if self.reentered:
            start_new_thread(self.change, (config,))
            return
        with self._lock:
            if config.takes_requests and not self._config.takes_requests:
                self._prepare = grouped_entry_factory(self._prepare, config)
            self._config = config
            queue, self.queue = self.queue, reconfigured(self.queue, config)
            self.stats.replace(queue, self.queue)
            if self._fn is not None:
                self._fn = self._source(config.executor)
            self.workers.wake_all()
            if self.queue.wake_at is not None:
                self._wake_another()

    def open(self) -> None:
        """Take items again."""
        with self._lock:
            self.started, self.closed = True, False

    def close(self, tell: Callable[[], None]) -> None:
        """Take no more items, and ``tell`` when all is answered, or at once if that waits for the caller."""
        if self.reentered:
            tell()
            start_new_thread(self.close, (_nobody,))
            return
        waits = self.waits_for_this()
        with self._lock:
            self.closed = True
            if not waits:
                self._drains.append(tell)
            fn = self._go_idle_if_done()
        del fn
        self.push("close")
        if waits:
            tell()

    def work(self, signal: WakeSignal) -> bool:
        """Run all batches that may leave, and say whether the worker is to wait for its bell, and not to end."""
        while isinstance(batch := self._next(signal), Batch):
            self.run(batch)
            self.yield_to_callers(batch)
        return batch

    def _next(self, signal: WakeSignal) -> Batch | bool:
        """Return the next batch for this thread; ``True`` if it is to wait for its bell, ``False`` if it is to end."""
        self.threads.add(get_ident())
        while True:
            if self._deadline_thread is not None:
                self._expire()
            with self._lock:
                now = monotonic()
                batch = self.queue.take(now)
                self._admit_waiting()
                wake_at = self.queue.wake_at
                if batch is not None:
                    if wake_at is not None:
                        self._wake_another()
                    return batch
                if (self.closed and not self.queue.waiting) or self.workers.count > self._config.concurrency:
                    self.workers.count -= 1
                    self.threads.discard(get_ident())
                    return False
                self.workers.idle.append(signal)
                if wake_at is None:
                    return True
            if not signal.wait_for(wake_at - now):
                with self._lock:
                    self.workers.cancel_wait(signal)

    def _ensure_worker(self, ticket: int) -> None:
        """Find a worker for what rang the core's alarm. Needs the lock."""
        try:
            if self._fn is None:
                self._fn = self._source(self._config.executor)
            self._ring()
            self.queue.reset_wake_ticket()
        except BaseException as error:
            # If no thread can be started, workers that are there will come to it. Otherwise this call has failed.
            if not isinstance(error, RuntimeError) or not self.workers.count:
                self.queue.withdraw(ticket)
                self.stats.left()
                raise

    def _admit_waiting(self) -> None:
        """Tell those for whom there is room now. Needs the lock."""
        for waiter in self.queue.admit_waiting():
            waiter.admit()

    def _wake_another(self) -> None:
        """Let another worker see to what waits, if there may be one more. Needs the lock."""
        try:
            self._ring()
        except RuntimeError:
            # Something waits, so there is a worker, and it will come to that.
            return

    def _recheck(self) -> None:
        """Let workers see what is to be done after somebody left. Needs the lock."""
        if self.queue.wake_at is not None:
            self._wake_another()
        else:
            # One that waits for the time of who left would keep the engine until then.
            self.workers.wake_all()

    def _ring(self) -> None:
        """Wake a worker, or start one if there may be more. Needs the lock.

        Raises:
            RuntimeError: the thread can't be started.
        """
        self.workers.ring(self, self._config.concurrency)

    def _go_idle_if_done(self) -> BatchFunction | None:
        """Let go of all that is only needed while there is work. Needs the lock.

        Return the batch function, to be dropped when the lock is free: it may be what keeps an instance alive, and that
        may have a finalizer.
        """
        if self.queue.waiting or self.queue.running or self._notifying:
            return None
        fn, self._fn = self._fn, None
        while self._drains:
            self._drains.pop()()
        if self.closed:
            self.workers.wake_all()
            if self._deadline_thread is not None:
                self._deadline_thread.end()
                self._deadline_thread = None
        return fn

    def run(self, batch: Batch) -> None:
        """Run ``batch`` and answer its callers."""
        fn = self._depart(batch)
        if fn is None:
            return
        depart(batch, self._config)
        parts = Reruns(batch, isolate=self._config.isolate_errors)
        for part in parts:
            try:
                context = batch_context(part)
                answers = outcome.results(self.name, part.size, context.run(fn, parts.items))
            except BaseException as error:  # noqa: BLE001, PERF203  # every way out of a batch answers its callers
                outcome.drop_engine_frame(error)
                self._fail(parts, error)
            else:
                self._answer(part, answers)
        # Who keeps an exception of the batch function keeps this frame, and must not keep the engine and its threads.
        del self, batch, fn

    def yield_to_callers(self, batch: Batch) -> None:
        """Let those who were just answered call again before the next batch leaves, as they can on a loop.

        They are about to, but whoever answers them has the interpreter. There is nothing to gain if a full batch waits,
        or for a caller who was alone and still is.
        """
        with self._lock:
            is_alone = batch.size == 1 and not self.queue.waiting
            if is_alone or self.queue.has_full:
                return
        sleep(0)

    def _depart(self, batch: Batch) -> BatchFunction | None:
        """Drop who left at the last moment; return the function to run for the others, ``None`` if there are none."""
        gone = [not waiter.is_open() for waiter in batch.waiters]
        with self._lock:
            if any(gone):
                batch.drop(gone)
                self.stats.left(sum(gone))
            if batch.waiters:
                self.stats.departed(batch)
                return self._fn
            self.queue.finish(batch, monotonic())
            fn = self._go_idle_if_done()
        del fn
        return None

    def _answer(self, batch: Batch, answers: list[Any]) -> None:
        failed = cancelled = 0
        for waiter, answer in zip(batch.waiters, batch.per_caller(answers), strict=True):
            if not waiter.is_open():
                cancelled += 1
            # That is is_error(), without a call for each answer.
            elif issubclass(type(answer), Exception):
                waiter.error = outcome.translate_exception(answer, self.name, on_loop=False)
                failed += 1
            else:
                waiter.value = answer
        self._finish(batch, failed, cancelled)

    def _fail(self, parts: Reruns, error: BaseException) -> None:
        ended = parts.ended(error)
        if not ended:
            self.stats.isolated()
        for part in ended:
            self._end(part, error)

    def _end(self, batch: Batch, error: BaseException) -> None:
        failed = 0
        for position, waiter in zip(batch.positions, batch.waiters, strict=True):
            if waiter.is_open():
                waiter.error = outcome.exception_for(error, self.name, position, batch.size, on_loop=False)
                failed += 1
        self._finish(batch, failed, len(batch.waiters) - failed, error)

    def _finish(self, batch: Batch, failed: int, cancelled: int, error: BaseException | None = None) -> None:
        """Count, wake who was answered, report, and only then free the slot: an engine is idle when all is done."""
        now = monotonic()
        run_time = now - batch.departed
        self.stats.ended(batch, run_time, failed=failed, cancelled=cancelled)
        for waiter in batch.waiters:
            waiter.wake()
        report(self._config, batch, run_time, error, on_loop=False)
        over = batch.part_finished(len(batch.waiters) - cancelled)
        if over is not None:
            # Before it forgets whom it had: one that nobody waited for would tell nothing of run times.
            with self._lock:
                self.queue.finish(over, now)
                fn = self._go_idle_if_done()
            del fn
            over.forget()
        batch.forget()


def _nobody() -> None:
    """Stand for somebody who has been told already."""


def leave_soon(weak: ref[ThreadEngine], ticket: int) -> None:
    """Leave an engine, if it is still there, from wherever a finalizer may run."""
    engine = weak()
    if engine is not None and engine.reentered:
        start_new_thread(leave_soon, (weak, ticket))
    elif engine is not None:
        engine.leave(ticket)
