"""The engine of one batcher on threads: carries out the decisions of the core.

Decides: nothing about batches. It wakes a worker when a batch may leave, and the callers when they have their answers.
Must not know: how a caller waits, event loops, decorators.

Workers are daemon threads. The engine starts at most ``concurrency`` of them, each when it is first needed, and one
more to watch deadlines from the first call that has one. A worker ends

* when the engine is gone,
* when the engine is closed and no item is queued,
* when ``concurrency`` is lowered and the worker is idle,
* with the process, after all submitted calls are answered.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from math import inf
from threading import RLock, get_ident
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, cast

from batchify import errors
from batchify._batcher import admission
from batchify._batcher.current import batch_context, belongs_to, current
from batchify._batcher.report import report
from batchify._core import outcome
from batchify._core.batch import Batch, BatchItem
from batchify._core.queue import PlainQueue
from batchify._core.reruns import Reruns
from batchify._threads.workers import Workers

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


class DeferredActions(deque["Callable[[], object]"]):
    """Actions that finalizers and signal handlers requested while their thread held the lock of the engine.

    ``with deferred, lock:`` runs them after it has released the lock. The check must follow the release, because a
    signal handler may add an action at any moment before it.
    """

    def __init__(self, is_owned: Callable[[], bool]) -> None:
        super().__init__()
        self._is_owned = is_owned

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        if self:
            self.run()

    def run(self) -> None:
        """Run all actions, unless this thread still holds the lock."""
        while self and not self._is_owned():
            try:
                action = self.popleft()
            except IndexError:
                # Another thread was faster.
                return
            action()


class ThreadEngine:
    """The queue of one batcher, its slots and its workers."""

    def __init__(self, source: Callable[[BatchExecutor | None], BatchFunction], config: Config, stats: Stats) -> None:
        self._config = config
        self._source = source
        # Guards all attributes below. No user code runs under it except finalizers and signal handlers, so it is
        # reentrant, and its owner is known.
        self._lock = RLock()
        # Whether the running code interrupted its own thread inside the engine. threading.Condition relies on it too.
        self.reentered = cast("Callable[[], bool]", self._lock._is_owned)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
        self.deferred = DeferredActions(self.reentered)
        self.queue = admission.make_queue(config)
        self._prepare = admission.entry_factory(config)
        self.stats = stats
        stats.follow(self.queue)
        self.started = self.closed = False
        # The batch function, held only while there is work: it may be the last reference to an instance.
        self._fn: BatchFunction | None = None
        self.workers = Workers(self, ThreadEngine.run_batches, config.name)
        self._deadline_workers = Workers(self, ThreadEngine.watch_deadlines, f"{config.name}-deadlines")
        # The identifiers of the threads that run batches or callbacks of futures.
        self.threads: set[int] = set()
        # The number of callers with missed deadlines that are not notified yet.
        self._notifying = 0
        # Called, under the lock, when no item is queued and no batch runs. They must not call the engine.
        self._on_drained: list[Callable[[], None]] = []

    @property
    def name(self) -> str:
        return self._config.name

    def enter(self, item: Any, waiter: Any) -> int:
        """Queue ``item`` for ``waiter`` and return the ticket for ``leave()``."""
        if current() and belongs_to(self.queue.running):
            raise self.reentrant()
        if self.reentered():
            raise errors.ReentrantCallError(errors.interrupting(self.name))
        data = item if self._prepare is None else self._prepare(item)
        try:
            with self._lock:
                if self.closed:
                    raise errors.BatcherClosedError(errors.closed(self.name))
                self.started = True
                queue = self.queue
                ticket = (
                    queue.add(data, waiter, monotonic())
                    if isinstance(queue, PlainQueue)
                    else self._add_entry(data, waiter, queue)
                )
                if ticket >= queue.wake_ticket:
                    self._ensure_worker(ticket)
        finally:
            # Not a context manager, which would add two frames to every call.
            if self.deferred:
                self.deferred.run()
        return ticket

    def _add_entry(self, data: Any, waiter: Any, queue: GroupedQueue) -> int:
        """Queue an item in the grouped queue, or let it wait for room. Needs the lock."""
        if queue.refuses:
            self.stats.refused()
            raise errors.QueueFullError(errors.full(self.name, cast("int", self._config.max_pending)))
        entry, expires_at = admission.as_entry(data), queue.expires_at
        if entry.time_limit is not None and (expires_at is None or monotonic() + entry.time_limit < expires_at):
            self._deadline_workers.wake_one(self, 1)
        ticket = queue.add(entry, waiter, monotonic())
        self._admit_waiting()
        return ticket

    def watch_deadlines(self, signal: WakeSignal) -> float | None:
        """Drop overdue items; return the seconds until the next deadline, or ``None`` to end the worker."""
        # The workers for batches may all be busy at a deadline. Here too, callbacks of futures must not wait for
        # calls that wait for them.
        self.threads.add(get_ident())
        self._expire()
        with self.deferred, self._lock:
            workers = self._deadline_workers
            workers.idle.pop(signal, None)
            if self.closed and not self.queue.waiting:
                workers.count -= 1
                self.threads.discard(get_ident())
                return None
            workers.idle[signal] = None
            expires_at = self.queue.expires_at
            return inf if expires_at is None else expires_at - monotonic()

    def _expire(self) -> None:
        """Drop overdue items and notify their callers."""
        with self.deferred, self._lock:
            expired = self.queue.expire(monotonic())
            self._notifying += len(expired)
            self._admit_waiting()
            if expired:
                self._recheck()
        self._fail_expired(expired)
        with self.deferred, self._lock:
            self._notifying -= len(expired)
            fn = self._go_idle_if_done()
        del fn

    def _fail_expired(self, entries: Sequence[Entry]) -> None:
        late = [entry for entry in entries if entry.waiter.is_open()]
        self.stats.expired(len(late))
        self.stats.left(len(entries) - len(late))
        for entry in late:
            entry.waiter.error = errors.DeadlineError(errors.overdue(self.name, entry.time_limit))
        for entry in entries:
            entry.waiter.admit()
            entry.waiter.wake()

    def reentrant(self) -> errors.ReentrantCallError:
        return errors.ReentrantCallError(errors.reentrant(self.name))

    def waiting(self) -> list[BatchItem]:
        with self.deferred, self._lock:
            entries = self.queue.entries
        return [
            BatchItem(admission.item_of(data, self._config), waiter.future, arrived)
            for data, waiter, arrived in entries
        ]

    def leave(self, ticket: int) -> bool:
        """Drop a caller that will not read its answer; return whether this withdrew its item from the queue."""
        if self.reentered():
            self.deferred.append(partial(self.leave, ticket))
            return False
        with self.deferred, self._lock:
            entry = self.queue.withdraw(ticket)
            fn = None
            if entry is not None:
                self.stats.left()
                _, waiter, _ = entry
                # A caller that waits for room stops waiting.
                waiter.admit()
                self._admit_waiting()
                self._recheck()
                fn = self._go_idle_if_done()
        del fn
        return entry is not None

    def flush(self, reason: str) -> None:
        if self.reentered():
            self.deferred.append(partial(self.flush, reason))
            return
        with self.deferred, self._lock:
            self.queue.flush(reason)
            if self.queue.wake_at is not None:
                self._wake_another()

    def change(self, config: Config) -> None:
        if self.reentered():
            self.deferred.append(partial(self.change, config))
            return
        with self.deferred, self._lock:
            if config.takes_requests and not self._config.takes_requests:
                self._prepare = admission.grouped_entry_factory(self._prepare, config)
            self._config = config
            queue, self.queue = self.queue, admission.reconfigured(self.queue, config)
            self.stats.replace(queue, self.queue)
            if self._fn is not None:
                self._fn = self._source(config.executor)
            # Those above a lower ``concurrency`` end.
            self.workers.wake_all(self)
            if self.queue.wake_at is not None:
                self._wake_another()

    def open(self) -> None:
        with self.deferred, self._lock:
            self.started, self.closed = True, False

    def close(self, on_drained: Callable[[], None] | None = None) -> None:
        """Refuse new items, run the queued ones, and call ``on_drained`` when all are answered.

        If the caller would wait for itself, ``on_drained`` is called at once.
        """
        is_inside = self.reentered() or get_ident() in self.threads or belongs_to(self.queue.running)
        if is_inside and on_drained is not None:
            on_drained()
            on_drained = None
        if self.reentered():
            self.deferred.append(self.close)
            return
        with self.deferred, self._lock:
            self.closed = True
            if on_drained is not None:
                self._on_drained.append(on_drained)
            fn = self._go_idle_if_done()
        del fn
        self.flush("close")

    def run_batches(self, signal: WakeSignal) -> float | None:
        """Run all batches that may leave; return the seconds until the next one may, or ``None`` to end the worker."""
        while isinstance(step := self._next(signal), Batch):
            self.run(step)
            self.yield_to_callers(step)
        return step

    def _next(self, signal: WakeSignal) -> Batch | float | None:
        self.threads.add(get_ident())
        if self._deadline_workers.count:
            self._expire()
        try:
            with self._lock:
                self.workers.idle.pop(signal, None)
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
                    return None
                self.workers.idle[signal] = None
                if wake_at is None:
                    return inf
                # Queued items keep the engine alive.
                signal.engine = self
                return wake_at - now
        finally:
            if self.deferred:
                self.deferred.run()

    def _ensure_worker(self, ticket: int) -> None:
        """Wake or start a worker for the arrival with this ticket. Needs the lock."""
        try:
            if self._fn is None:
                self._fn = self._source(self._config.executor)
            self._wake_worker()
            self.queue.reset_wake_ticket()
        except BaseException as error:
            # If no thread can be started, the existing workers will take the item. Without any, this call has failed.
            if not isinstance(error, RuntimeError) or not self.workers.count:
                self.queue.withdraw(ticket)
                self.stats.left()
                raise

    def _admit_waiting(self) -> None:
        """Notify the callers whose items have room now. Needs the lock."""
        for waiter in self.queue.admit_waiting():
            waiter.admit()

    def _wake_another(self) -> None:
        """Wake or start one more worker for the queued items, if possible. Needs the lock."""
        try:
            self._wake_worker()
        except RuntimeError:
            # A worker exists, because items are queued, and will take them.
            return

    def _recheck(self) -> None:
        """Let workers look again after an item was withdrawn. Needs the lock."""
        if self.queue.wake_at is not None:
            self._wake_another()
        else:
            # A worker that waits for the window of the withdrawn item would keep the engine alive until then.
            self.workers.wake_all(self)

    def _wake_worker(self) -> None:
        """Wake or start a worker. Needs the lock. Raises a ``RuntimeError`` if no thread can be started."""
        self.workers.wake_one(self, self._config.concurrency)

    def _go_idle_if_done(self) -> BatchFunction | None:
        """Without work, release everything that only work needs. Return the batch function. Needs the lock."""
        if self.queue.waiting or self.queue.running or self._notifying:
            return None
        # The caller drops it without the lock: it may be the last reference to an instance with a finalizer.
        fn, self._fn = self._fn, None
        while self._on_drained:
            self._on_drained.pop()()
        if self.closed:
            self.workers.wake_all(self)
            self._deadline_workers.wake_all(self)
        return fn

    def run(self, batch: Batch) -> None:
        fn = self._depart(batch)
        if self.deferred:
            self.deferred.run()
        if fn is None:
            return
        admission.depart(batch, self._config)
        parts = Reruns(batch, isolate=self._config.isolate_errors)
        for part in parts:
            try:
                context = batch_context(part)
                answers = outcome.results(self._config.name, part.size, context.run(fn, parts.items))
            except BaseException as error:  # noqa: BLE001, PERF203  # every way out of a batch answers its callers
                outcome.drop_engine_frame(error)
                self._fail(parts, error)
            else:
                self._answer(part, answers)
        # An exception that the batch function keeps holds this frame, which must not hold the engine and its threads.
        del self, batch, fn

    def yield_to_callers(self, batch: Batch) -> None:
        # They can call again and share the next batch, but need the interpreter, which this thread holds. Yielding is
        # useless if a full batch is queued, or if the batch had one caller and no other item has arrived.
        with self._lock:
            is_alone = batch.size == 1 and not self.queue.waiting
            if is_alone or self.queue.has_full:
                return
        sleep(0)

    def _depart(self, batch: Batch) -> BatchFunction | None:
        """Drop the callers that left at the last moment; return the function to run for the others, if any."""
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
        """Count, wake the callers, report, and only then free the slot: an idle engine has nothing left to do."""
        now = monotonic()
        run_time = now - batch.departed
        self.stats.ended(batch, run_time, failed=failed, cancelled=cancelled)
        for waiter in batch.waiters:
            waiter.wake()
        report(self._config, batch, run_time, error, on_loop=False)
        over = batch.part_finished(len(batch.waiters) - cancelled)
        if over is not None:
            # Before it forgets its callers: the queue learns no run time from a batch without callers.
            with self._lock:
                self.queue.finish(over, now)
                fn = self._go_idle_if_done()
            del fn
            over.forget()
        batch.forget()


def leave_soon(weak: ref[ThreadEngine], ticket: int) -> None:
    """Leave an engine, if it still exists. A finalizer may call this anywhere."""
    engine = weak()
    if engine is not None:
        engine.leave(ticket)
