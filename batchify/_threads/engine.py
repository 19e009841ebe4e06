"""The engine of one batcher on threads: carries out the decisions of the core.

Decides: nothing about batches. It wakes a worker when a batch may leave, and the callers when they have their answers.
Must not know: how a caller waits, event loops, decorators.

Workers are daemon threads. The engine starts at most ``concurrency`` of them, each when it is first needed, and one
more to watch deadlines from the first call that has one. A worker ends

* when the engine is gone,
* when ``drain()`` or ``close()`` asks idle workers to end, or the engine is closed, and no item is queued,
* when ``concurrency`` is lowered and the worker is idle,
* with the process, after all submitted calls are answered.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from itertools import zip_longest
from math import inf
from os import getpid
from threading import TIMEOUT_MAX, RLock, get_ident
from time import sleep
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from batchify import errors
from batchify._batcher.admission import entry_factory, grouped_entry_factory
from batchify._batcher.current import batch_context, current
from batchify._batcher.cycles import check_reentrancy
from batchify._batcher.lifespan import Lifespan
from batchify._batcher.line import Line
from batchify._batcher.report import report
from batchify._batcher.waiters import Failed, kind_of, registered_kinds
from batchify._clock import monotonic
from batchify._core import outcome
from batchify._core.batch import Batch, BatchItem
from batchify._core.entries import Entry
from batchify._core.queue import WIDTH
from batchify._threads.waiters import FutureWaiter
from batchify._threads.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from weakref import ref

    from batchify._batcher.config import Config
    from batchify._batcher.draining import Drain
    from batchify._batcher.executors import BatchExecutor
    from batchify._batcher.waiters import Waiter
    from batchify._core.queue import PlainQueue
    from batchify._stats.counters import Stats
    from batchify._threads.workers import ThreadEnd, Worker

    BatchFunction = Callable[[list[Any]], Any]
    # The only kind of the waiters of a batch, or None for several.
    Kind: TypeAlias = type[Waiter] | None


class DeferredActions(deque["Callable[[], object]"]):
    """Actions that finalizers and signal handlers requested while their thread held the lock of the engine.

    ``with deferred, lock:`` runs them after it has released the lock. The check must follow the release, because a
    signal handler may add an action at any moment before it. After an exception, ``after_error`` is such an action.
    """

    def __init__(self, lock: RLock, is_owned: Callable[[], bool], after_error: Callable[[], object]) -> None:
        super().__init__()
        self._lock = lock
        self._is_owned = is_owned
        self._after_error = after_error
        # The threads that run actions. An action that requests others does not run them inside itself.
        self._runners: set[int] = set()

    def __enter__(self) -> None:
        pass

    def __exit__(self, error: object, *_: object) -> None:
        if error is not None:
            self._after_error()
        if self:
            self.run()

    def request(self, action: Callable[[], object]) -> None:
        """Run ``action``, or let the thread that holds the lock run it. Never wait: a finalizer may hold any lock."""
        self.append(action)
        if self._is_owned():
            return
        try:
            # If this fails, the owner looks for actions after it has released the lock.
            is_free = self._lock.acquire(blocking=False)
        except BaseException:
            if self._is_owned():
                self._lock.release()
            raise
        if is_free:
            self._lock.release()
            self.run()

    def run(self) -> None:
        """Run all actions, unless this thread still holds the lock, or runs them already."""
        me = get_ident()
        if me in self._runners:
            return
        try:
            self._runners.add(me)
            while self and not self._is_owned():
                try:
                    action = self.popleft()
                except IndexError:
                    # Another thread was faster.
                    return
                action()
        finally:
            self._runners.discard(me)


class ThreadEngine:
    """The line of one batcher, its slots and its workers."""

    def __init__(self, source: Callable[[BatchExecutor | None], BatchFunction], config: Config, stats: Stats) -> None:
        self._source = source
        self._process = getpid()
        # Guards the line and most attributes. ``configure()``, interrupted calls and the bridge write some without
        # it. No user code runs under it except finalizers and signal handlers, so it is reentrant.
        self._lock = RLock()
        # Whether the running code interrupted its own thread inside the engine. threading.Condition relies on it too.
        self.reentered = cast("Callable[[], bool]", self._lock._is_owned)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
        lifespan = None if config.lifespan is None else partial(Lifespan, config.lifespan, config.name)
        self.workers = Workers(self, ThreadEngine.run_batches, config.name, lifespan)
        self._deadline_workers = Workers(self, ThreadEngine.watch_deadlines, f"{config.name}-deadlines")
        weak: Any = self.workers.weak
        # After an error, the interrupted code still holds the engine.
        self.deferred = DeferredActions(self._lock, self.reentered, lambda: weak().recover())
        self.line = Line(config, stats)
        self.is_interrupted = self.line.is_interrupted
        self.name = config.name
        self._prepare = entry_factory(config)
        self.closed = False
        # Whether a step has begun and not ended. If no thread is in it, an exception has interrupted it.
        self._is_torn = False
        # The waiters of interrupted calls. A caller extends the list without a call, which nothing can interrupt.
        self.abandoned: list[Any] = []
        # The options after the latest change.
        self._config = config
        # The first ticket that had not arrived when the engine was closed.
        self._closed_at = 0
        # The queue that calls may join without the lock; None if they need ``enter()``.
        self.plain: PlainQueue | None = None
        self._open_plain()
        # The calls on their way from loops, and the latest of them. The bridge sets both.
        self.crossings: dict[Any, None] = {}
        self.crossing: Any = None
        # The batch function, held only while there is work: it may be the last reference to an instance.
        self._fn: BatchFunction | None = None
        # Whether a waiter that reports this may have left after its batch departed.
        self._may_have_left = False
        # The number of callers with missed deadlines that are not notified yet.
        self._notifying = 0

    # A step is ``with self.deferred, self._lock, self:``. The steps on the hot path do the same without these calls.
    def __enter__(self) -> None:
        self._mend_if_torn()
        self._is_torn = True

    def __exit__(self, error: object, *_: object) -> None:
        if error is None:
            self._go_idle_if_done()
            self._is_torn = False

    def is_orphan(self) -> bool:
        """Return whether this is the child of a fork. Its threads are gone, and may have held any lock."""
        return getpid() != self._process

    def free_futures(self) -> None:
        """Let the child of a fork cancel the futures that it has inherited."""
        running = [waiter for batch in self.line.queue.running for waiter in batch.waiters]
        for waiter in (*running, *(waiter for _, waiter in self.line.calls)):
            if isinstance(waiter, FutureWaiter):
                waiter.renew_lock()

    def _is_in_worker(self) -> bool:
        """Return whether this thread runs batches or callbacks of futures."""
        workers = [*self.workers.all, *self._deadline_workers.all]
        return get_ident() in [worker.thread.ident for worker in workers]

    def check_blocking(self) -> None:
        """Refuse to block a worker."""
        if self._is_in_worker():
            raise errors.ReentrantCallError(errors.reentrant(self.name))

    def enter(self, item: Any, waiter: Any, leave: Callable[[], bool] | None = None) -> int:
        """Queue ``item`` for ``waiter`` and return the mark for ``leave()``.

        If the call is counted elsewhere, ``leave`` removes it there, and returns whether its caller still waits.
        """
        if current():
            check_reentrancy(self.line.queue, self.name)
        if self.reentered() or self.is_interrupted():
            raise errors.ReentrantCallError(errors.interrupting(self.name))
        data = item if self._prepare is None else self._prepare(item)
        with self.deferred, self._lock:
            if self.closed:
                raise errors.BatcherClosedError(errors.closed(self.name))
            self._mend_if_torn()
            self.line.check_room(data)
            self._is_torn = True
            try:
                if leave is None:
                    mark = self._add(data, waiter)
                else:
                    # A reader of the counters must see the call move in one step.
                    with self.line.stats.lock:
                        mark = self._add(data, waiter) if leave() else 0
                self._start_or_schedule()
            except BaseException:
                self.abandoned += (waiter,)
                raise
            self._is_torn = False
        return mark

    def enter_all(self, crossing: Any) -> None:
        """Move the calls of ``crossing`` to the plain queue, and set its mark, unless each call has to ``enter()``.

        Any thread may do this before the loop does. A closed engine then refuses them, as the loop may be slow.
        """
        if self.crossing is crossing:
            self.crossing = None
        with self.deferred, self._lock:
            self._mend_if_torn()
            plain, calls = self.plain, crossing.calls
            if self.closed:
                with self.line.stats.lock:
                    refused = calls[:]
                    del calls[: len(refused)]
                self._fail_soon(refused[1::WIDTH], errors.BatcherClosedError(errors.closed(self.name)))
            if plain is None:
                return
            self._is_torn = True
            with self.line.stats.lock:
                if crossing.mark is None:
                    # Later calls of the same iteration are at least as far behind this mark as in the list.
                    crossing.mark = plain.arrivals
                arrived = calls[:]
                length = len(arrived)
                # No call in between, so no signal handler can lose or double the calls.
                del calls[:length]
                plain.places += arrived
            # After an error, it is the answer of all these calls.
            self._wake_another()
            self._is_torn = False

    def _enter_crossings(self) -> None:
        """Queue the calls that are on their way from a loop."""
        for crossing in list(self.crossings):
            self.enter_all(crossing)

    def arrived(self, queue: PlainQueue, mark: int, waiter: Any) -> float:
        """React to an arrival in ``plain`` that matters, or to the end of a window, which a blocked caller times.

        Return the seconds after which the caller is to call this again, or -1 if it need not.
        """
        try:
            with self._lock:
                if self._is_torn or self.abandoned or self._config is not self.line.config:
                    self._mend()
                self._is_torn = True
                if queue is not self.plain:
                    # Meanwhile the engine was closed, or calls need another queue. An item queued before remains.
                    with self.line.stats.lock:
                        entry = queue.withdraw(max(mark, self._closed_at) if self.closed else mark, waiter)
                        if entry is not None:
                            # If the queue is still that of the line, the item moves within it.
                            self.line.withdrawn += queue is self.line.queue
                            self._add(entry[0], waiter)
                seconds = self._start_or_schedule(keeps_time=True)
                self._is_torn = False
                return seconds
        finally:
            # Not a context manager, which would add two frames to every window.
            if self.deferred:
                self.deferred.run()

    def _add(self, data: Any, waiter: Any) -> int:
        """Queue ``data``, or let it wait for room. Needs the lock."""
        if self.closed:
            raise errors.BatcherClosedError(errors.closed(self.name))
        if self.line.joinable and self.line.join(data, waiter):
            # It has room, and counts as started.
            kind_of(waiter).admit(waiter)
            kind_of(waiter).is_open(waiter)
            return 0
        now = monotonic()
        limit = data.time_limit if isinstance(data, Entry) else None
        if limit is not None and now + limit < self.line.expires_at:
            self._deadline_workers.wake_one(self, 1)
        mark = self.line.add(data, waiter, now)
        self._admit_waiting()
        return mark

    def _start_or_schedule(self, *, keeps_time: bool = False) -> float:
        """Wake a worker for the next batch and return -1, or return the seconds until then if the caller waits for it.

        Needs the lock. If no thread can be started and none exists, the error is raised.
        """
        at = self.line.queue.plan()
        if at is None:
            return -1
        try:
            if self._fn is None:
                self._fn = self._source(self.line.config.executor)
            seconds = at - monotonic()
            # A first worker starts at once: during the exit of the process, Python 3.12 may refuse to start any.
            if keeps_time and seconds > 0 and self.workers.all:
                return min(seconds, TIMEOUT_MAX)
            self._wake_worker()
        except RuntimeError as error:
            if not self.workers.all or isinstance(error, RecursionError):
                raise
            # A worker exists, and will take the item.
        return -1

    def drop_queued(self) -> None:
        """Fail all calls whose items have not started."""
        with self.deferred, self._lock, self:
            # Drop nothing if the engine was opened again in the meantime.
            if self.closed:
                self._fail_soon(self.line.fail_unstarted(), errors.BatcherClosedError(errors.dropped(self.name)))

    def recover(self) -> None:
        """Complete a step that an exception interrupted, in a worker if possible: no signal handler interrupts that."""
        if self.workers.all:
            self.workers.waker = self
            try:  # noqa: SIM105  # with fewer calls, in case of a RecursionError
                self.workers.wake_idle()
            except RuntimeError:
                # That worker is woken already.
                pass
        elif not self.reentered():
            with self._lock:
                self._mend_if_torn()
            if self.deferred:
                self.deferred.run()

    def replace_worker(self) -> None:
        """Let another worker continue after one died of an error, such as a MemoryError."""
        with self.deferred, self._lock:
            self._is_torn = True
            self._mend()

    def _mend_if_torn(self) -> None:
        # Steps on the hot path inline this condition.
        if self._is_torn or self.abandoned or self._config is not self.line.config:
            self._mend()

    def _mend(self) -> None:
        """Complete the steps that an exception interrupted, and apply new options. Needs the lock.

        An exception of a signal handler may interrupt the main thread at any point. It leaves the calls in the queue
        and their counts sound, because these change in a single step. All else is derived from them here.
        """
        config = self._config
        change = self.line.mend if self._is_torn or self.abandoned else self.line.configure
        self._is_torn = True
        change(config)
        abandoned = {*self.abandoned}
        if abandoned:
            self._may_have_left = True
            for mark, waiter in self.line.calls:
                if waiter in abandoned:
                    self.line.leave(mark, waiter)
        if self._fn is not None:
            self._fn = self._source(config.executor)
        self._admit_waiting()
        # Callers whose items have room may not know it yet.
        for waiter in (*self.line.admitted, *abandoned):
            kind_of(waiter).admit(waiter)
        for waiter in abandoned:
            # A cancelled future notifies the threads that wait for it.
            kind_of(waiter).is_open(waiter)
        self._open_plain()
        self._wake_another()
        # Workers above a lower ``concurrency`` end.
        self.workers.wake_all(self)
        self._go_idle_if_done()
        del self.abandoned[: len(abandoned)]
        self.workers.waker = None
        self._is_torn = False

    def _fail_soon(self, waiters: list[Any], error: BaseException) -> None:
        """Answer these callers with ``error``, once the lock is free. Needs the lock."""
        for waiter in waiters:
            kind_of(waiter).admit(waiter)
            answer = Failed(outcome.copied(error), self.name)
            self.deferred.append(partial(kind_of(waiter).answer_all, [waiter], [answer]))

    def watch_deadlines(self, worker: Worker) -> float | None:
        """Drop overdue items; return the seconds until the next deadline, or ``None`` to end the worker."""
        # The workers for batches may all be busy at a deadline. Here too, callbacks of futures must not wait for
        # calls that wait for them.
        self._expire()
        with self.deferred, self._lock:
            workers, expires_at = self._deadline_workers, self.line.expires_at
            if not workers.begin(worker, 1) or (expires_at == inf and self._may_end(worker)):
                workers.remove(worker)
                return None
            if expires_at < inf:
                worker.stay()
            workers.rest(worker)
            return expires_at - monotonic()

    def _expire(self) -> None:
        """Drop overdue items and notify their callers."""
        with self.deferred, self._lock, self:
            expired = self.line.expire(monotonic())
            self._notifying += len(expired)
            self._admit_waiting()
            if expired:
                self._recheck()
        for entry in expired:
            error = errors.DeadlineError(errors.overdue(self.name, entry.time_limit))
            kind = kind_of(entry.waiter)
            kind.admit(entry.waiter)
            if kind.is_open(entry.waiter):
                kind.answer_all([entry.waiter], [Failed(error, self.name)])
        if expired:
            with self.deferred, self._lock, self:
                self._notifying -= len(expired)

    def waiting(self) -> list[BatchItem]:
        self._enter_crossings()
        with self.deferred, self._lock, self:
            entries = self.line.entries
        return [BatchItem(item, kind_of(waiter).get_future(waiter), arrived) for item, waiter, arrived in entries]

    def leave(self, mark: int, waiter: Any) -> None:
        """Drop a caller that will not read its answer."""
        if self.is_orphan():
            return
        if self.reentered():
            self.deferred.append(partial(self.leave, mark, waiter))
            return
        with self.deferred, self._lock, self:
            try:
                entry = self.line.leave(mark, waiter)
                if entry is None:
                    self._may_have_left = True
                else:
                    kind = kind_of(waiter)
                    # A caller that waits for room stops waiting.
                    kind.admit(waiter)
                    # No batch notifies a cancelled future, for which concurrent.futures.wait() waits.
                    kind.is_open(waiter)
                    self._admit_waiting()
                    self._recheck()
            except BaseException:
                self.abandoned += (waiter,)
                raise

    def flush(self) -> None:
        """Start the queued items as soon as slots are free, without waiting for more."""
        if self.reentered():
            self.deferred.append(self.flush)
            return
        self._enter_crossings()
        with self.deferred, self._lock, self:
            self.line.queue.flush("flush")
            self._wake_another()

    def configure(self, config: Config) -> None:
        """Apply these options before the next step. Never wait: a signal handler may call this anywhere."""
        if config.is_grouped:
            # The next call already needs these.
            self._prepare = grouped_entry_factory(self._prepare, config)
            self.plain = None
        self._config = config
        self.deferred.request(self.apply_config)

    def apply_config(self) -> None:
        with self.deferred, self._lock:
            self._mend_if_torn()

    def open(self) -> None:
        with self.deferred, self._lock, self:
            self.closed = False
            self._open_plain()
            # A call that arrived meanwhile may not have known that it matters.
            self._wake_another()

    def drain(self, drain: Drain) -> None:
        """Start the queued items now; ``drain`` ends when all calls so far are answered. To close, refuse new ones."""
        if self.reentered() or self._is_in_worker() or self.workers.is_ending():
            # The caller would wait for itself.
            drain.set()
        if self.reentered():
            self.deferred.append(partial(self.drain, drain))
            return
        self._enter_crossings()
        with self.deferred, self._lock, self:
            if drain.reason == "close":
                # First, so that no call joins an engine that says it is closed.
                self.plain = None
                self._closed_at = self.line.queue.arrivals
                self.closed = True
                self._open_plain()
        # This refuses calls that were made meanwhile, if the engine is closed now.
        self._enter_crossings()
        with self.deferred, self._lock, self:
            self.line.drain(drain, monotonic())
            self._wake_another()

    def end_workers(self) -> list[ThreadEnd]:
        """Ask the workers that run no batch to end, and return their ends. Inside a worker, return none."""
        if self.reentered() or self._is_in_worker() or self.workers.is_ending():
            return []
        with self.deferred, self._lock, self:
            ends = self.workers.end_idle(self, self.line.queue.running)
            ends += self._deadline_workers.end_idle(self, ())
        return ends

    def _open_plain(self) -> None:
        """Let calls join the plain queue without the lock if nothing forbids it. Needs the lock."""
        plain = self.line.plain
        if plain is not None:
            # A call that has found it open may join it later. This arrival then matters. Without a worker, each
            # arrival matters, as the call that was to start one may be interrupted.
            plain.closed = self.closed or not self.workers.all
            plain.plan()
        self.plain = None if self.closed else plain
        # Last, because ``configure()`` may just have set it, without the lock.
        if self._prepare is not None:
            self.plain = None

    def run_batches(self, worker: Worker) -> float | None:
        """Run all batches that may leave; return the seconds until the next one may, or ``None`` to end the worker."""
        while isinstance(step := self._next(worker), Batch):
            self.run(step, worker)
            # An idle engine has no function. With lengths, the next call waits for the other answered callers.
            if self._fn is not None or self.line.config.run_cost is not None:
                self._yield_to_callers()
        return step

    def _next(self, worker: Worker) -> Batch | float | None:
        if self._deadline_workers.all:
            self._expire()
        line = self.line
        try:
            with self._lock:
                if self._is_torn or self.abandoned or self._config is not self.line.config:
                    self._mend()
                workers = self.workers
                limit = line.config.concurrency
                if worker.batch is not None and self._fn is None and worker.slot < limit and workers.waker is None:
                    # It has just run the last batch, and the next call makes a plan.
                    worker.batch = None
                    return self._rest(worker, None)
                if not workers.begin(worker, limit):
                    # Items may wait that this worker was woken for.
                    self._wake_another()
                    return None
                now = monotonic()
                batch = line.take(now)
                if line.plain is None:
                    self._admit_waiting()
                at = line.queue.plan()
                worker.batch = batch
                if batch is not None:
                    if worker.is_leaving:
                        worker.stay()
                    if at is not None:
                        self._wake_another()
                    return batch
                return self._rest(worker, None if at is None else at - now)
        finally:
            # As in ``arrived()``.
            if self.deferred:
                self.deferred.run()

    def _rest(self, worker: Worker, seconds: float | None) -> float | None:
        """Let a worker rest until the next decision, and return for how long, or ``None`` to end it. Needs the lock."""
        if self._may_end(worker):
            self.workers.remove(worker)
            return None
        self.workers.rest(worker)
        if self.abandoned or self.workers.waker is not None:
            # A call that was interrupted just before found no idle worker to wake.
            return 0
        if seconds is None:
            return inf
        # Queued items keep the engine alive.
        worker.kept = self
        return seconds

    def _may_end(self, worker: Worker) -> bool:
        """Return whether an idle worker is to end. Needs the lock."""
        if self.line.queue.waiting:
            worker.stay()
            return False
        return self.closed or worker.is_leaving

    def _admit_waiting(self) -> None:
        """Notify the callers whose items have room now. Needs the lock."""
        for waiter in self.line.admit():
            kind_of(waiter).admit(waiter)

    def _wake_another(self) -> None:
        """Wake or start one more worker for the queued items, if possible. Needs the lock.

        If no thread can be started and none exists, the error is the answer of all callers in the queue.
        """
        try:
            self._start_or_schedule()
        except RecursionError:
            raise
        except (RuntimeError, MemoryError) as error:
            if not self.workers.all:
                self._fail_soon(self.line.fail_all(), error)

    def _recheck(self) -> None:
        """Let workers check the queue again after an item was withdrawn. Needs the lock."""
        self._wake_another()
        if self.line.queue.plan() is None:
            # A worker that waits for the window of the withdrawn item would keep the engine alive until then.
            self.workers.wake_all(self)

    def _wake_worker(self) -> None:
        """Wake or start a worker. Needs the lock. Raises a ``RuntimeError`` if no thread can be started."""
        self.workers.wake_one(self, self.line.config.concurrency)
        plain = self.plain
        if plain is not None and plain.closed:
            self._open_plain()

    def _go_idle_if_done(self) -> None:
        """Without work, release everything that only work needs. Needs the lock."""
        # Dropped without the lock: it may be the last reference to an instance with a finalizer.
        self.deferred.append([self._fn].clear)
        self._release_if_done()

    def _release_if_done(self) -> None:
        """Do the same if the code that calls this keeps the batch function alive by a reference of its own."""
        if self._notifying:
            return
        if self.line.drains:
            self.line.end_drains()
        queue = self.line.queue
        if queue.running or queue.waiting:
            return
        self._fn = None
        if self.closed:
            self.workers.wake_all(self)
            self._deadline_workers.wake_all(self)

    def run(self, batch: Batch, worker: Worker) -> None:
        kind = _only_kind(batch.waiters)
        gone, fn = self._gone(batch.waiters, kind), self._fn
        if gone or fn is None:
            fn = self._without(batch, gone)
            if fn is None:
                return
        line = self.line
        if line.config.executor is None:
            batch.slot = worker.slot
        if worker.lifespan is not None and not self._enter(worker.lifespan, batch, kind):
            return
        runs = line.runs(batch)
        for part in runs:
            try:
                answers, any_failed = line.answers(part, batch_context(part).run(fn, part.given or part.items))
            except BaseException as error:  # noqa: BLE001, PERF203  # every way out of a batch answers its callers
                outcome.drop_engine_frame(error)
                self._fail(runs, part, kind, error)
            else:
                if any_failed:
                    answers = [self._failed(answer) if outcome.is_error(answer) else answer for answer in answers]
                self._finish(part, kind, answers, any_failed=any_failed)
        # An exception that the batch function keeps holds this frame, which must not hold the engine and its threads.
        del self, line, batch, fn

    def _enter(self, lifespan: Lifespan, batch: Batch, kind: Kind) -> bool:
        """Enter the lifespan before the first batch; return whether the batch can run."""
        try:
            if lifespan.enter(batch):
                # Entering is not run time, and the first run after it is slow.
                batch.departed, batch.run_cost = monotonic(), None
        except BaseException as error:  # noqa: BLE001  # as in ``run()``
            outcome.drop_engine_frame(error)
            self._fail((batch,), batch, kind, error)
            return False
        batch.state = lifespan.state
        return True

    def _yield_to_callers(self) -> None:
        """Let answered callers call again, if the next batch would leave at once without being full."""
        # They can share it, but need the interpreter, which this thread holds.
        arrivals = -1
        while self.line.config.run_cost is not None and arrivals != (arrivals := self.line.queue.arrivals):
            # With lengths, the items of the batch are chosen from all of them.
            sleep(0)
        with self._lock:
            at = self.line.queue.plan()
            if at is None or at > monotonic() or self.line.queue.has_full:
                return
        sleep(0)

    def _without(self, batch: Batch, gone: list[bool]) -> BatchFunction | None:
        """Drop the callers that left at the last moment; return the function to run for the others, if any."""
        with self.deferred, self._lock, self:
            if self.line.drop(batch, gone, monotonic()):
                if self._fn is None:
                    # The items arrived just as the engine became idle.
                    self._fn = self._source(self.line.config.executor)
                return self._fn
        return None

    def _gone(self, waiters: list[Any], kind: Kind) -> list[bool]:
        """Return whether each waiter has left; nothing if none has."""
        if kind is None:
            return [not kind_of(waiter).is_open(waiter) for waiter in waiters]
        if kind.reports_leaving and not self._may_have_left:
            return []
        gone = kind.gone(waiters)
        return gone if True in gone else []

    def _failed(self, error: BaseException) -> Failed:
        return Failed(outcome.translate_exception(error, self.name, on_loop=False), self.name)

    def _fail(self, runs: Iterable[Batch], part: Batch, kind: Kind, error: BaseException) -> None:
        for ended in self.line.ended(runs, part, error, is_abandoned=False):
            answers = [
                Failed(outcome.exception_for(error, self.name, position, ended.size, on_loop=False), self.name)
                for position in ended.positions
            ]
            self._finish(ended, kind, answers, any_failed=True, error=error)

    def _finish(
        self, part: Batch, kind: Kind, answers: list[Any], *, any_failed: bool, error: BaseException | None = None
    ) -> None:
        """Count, answer the callers, report, and only then free the slot: an idle engine has nothing left to do."""
        now, waiters = monotonic(), part.waiters
        if part.shares is not None or part.call is not None:
            # Callers of other kinds may have joined, or all callers may have left.
            kind = _only_kind(waiters)
        gone = self._gone(waiters, kind)
        failed = 0
        if any_failed:
            failed = sum(type(answer) is Failed for answer, left in zip_longest(answers, gone) if not left)
        run_time = self.line.count(part, now, failed, sum(gone))
        if kind is not None:
            kind.answer_all(waiters, answers)
        else:
            for waiter, answer in zip(waiters, answers, strict=True):
                kind_of(waiter).answer_all([waiter], [answer])
        config = self.line.config
        if config.on_batch is not None and part.size:
            report(config.on_batch, config, part, run_time, error, on_loop=False)
        with self._lock:
            if self.line.end(part, now):
                self._release_if_done()
        if self.deferred:
            self.deferred.run()


def _only_kind(waiters: list[Any]) -> Kind:
    """Return the kind of all waiters, or ``None`` if they are of several."""
    types = {*map(type, waiters)}
    kinds = {*map(registered_kinds.get, types, types)}
    return kinds.pop() if len(kinds) == 1 else None


def leave_soon(weak: ref[ThreadEngine], mark: int, waiter: Any) -> None:
    """Leave an engine, if it still exists. A finalizer may call this anywhere."""
    engine = weak()
    if engine is not None:
        engine.deferred.request(partial(engine.leave, mark, waiter))
