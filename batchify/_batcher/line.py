"""The line of one batcher: everything that happens to its calls, except where they wait and where batches run.

Decides: what each step in the life of a batch does to the queue, to the counters and to its callers.
Must not know: clocks, locks, threads, event loops, or how a waiter gets its answer.

An engine holds one ``Line`` and uses it in this way:

    batch = line.take(now)               the next batch that may leave now, or None; its calls count as running
    line.drop(batch, gone, now)          some callers left meanwhile; returns whether any stay
    runs = line.runs(batch)              the batch, and later its halves if an error is isolated
    line.answers(part, returned)         the batch function returned: one answer for each caller of the part
    line.ended(runs, part, error, ...)   the batch function raised: the parts that this ends
    line.count(part, now, ...)           the answers of a part are known, and are counted
    line.end(part, now)                  a part ended; the slot is free after the last one

    line.join(data, waiter)              an item arrived: returns whether its caller shares an equal one that runs
    line.seal(batch)                     no more callers may join the batch, because it is cancelled
    mark = line.add(data, waiter, now)   an item arrived
    line.admit()                         items may have room now: returns their waiters
    line.leave(mark, waiter)             a caller left: returns its entry if it was queued, otherwise None
    line.fail_all()                      no batch can run: returns all waiters of the queue, which then fail
    line.fail_unstarted()                the same at the end of a close(), also for items that wait in an executor
    line.expire(now)                     the entries that missed their deadlines
    line.configure(config)               the options changed
    line.drain(drain, now)               the queued items leave as soon as slots are free
    line.end_drains()                    after the end of calls: wakes those that wait for it
    line.mend(config)                    an exception interrupted one of these steps
    line.plan()                          the time of the next decision
    line.idle                            no call waits or runs

An engine is the only caller of these methods, one at a time. Any thread may read the counters meanwhile, so every step
that moves calls from one count to another holds their lock.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, cast

from batchify._batcher import requests
from batchify._batcher.admission import as_entry, item_of, make_queue, mended, reconfigured
from batchify._core import outcome
from batchify._core.queue import EMPTY, WIDTH, PlainQueue
from batchify._core.reruns import Reruns
from batchify.errors import QueueFullError, full, unshared

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from threading import RLock

    from batchify._batcher.config import Config
    from batchify._batcher.draining import Drain
    from batchify._core.batch import Batch
    from batchify._core.entries import Entry
    from batchify._core.grouped import GroupedQueue
    from batchify._stats.counters import Stats


log = logging.getLogger("batchify")


class Line:
    queue: PlainQueue | GroupedQueue
    # The queue, if calls can join it without ``add()``.
    plain: PlainQueue | None
    # Whether a batch that departs takes the only slot of a plain queue, so that nothing is due before it ends.
    is_serial: bool
    # Returns the time of the next decision, if it is known: a batch may leave, or an entry expires.
    plan: Callable[[], float | None]

    def __init__(self, config: Config, stats: Stats) -> None:
        self.config = config
        self.name = config.name
        self.stats = stats
        # The drains that have not ended.
        self.drains: list[Drain] = []
        # The number of calls that left the queue without a batch, and are counted.
        self.withdrawn = 0
        # Whether a batch is more than one run of its items as they were queued. ``configure()`` does not change these
        # options.
        joins = config.dedupe == "running"
        self.prepares = bool(joins or config.capture_context or config.isolate_errors or config.keyed or config.sizes)
        # The time until which the statistics include the time of the slots; 0 before the first batch.
        self.counted_until = 0.0
        # With ``dedupe="running"``, by group and item: the running batch of an item, and its index there.
        self.joinable: dict[tuple[Any, Any], tuple[Batch, int]] = {}
        self._use(make_queue(config))
        # Returns whether the running code, of a finalizer or a signal handler, interrupts a step of this thread.
        self.is_interrupted = cast("Callable[[], bool]", stats.lock._is_owned)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
        stats.follow(self)

    def _use(self, queue: PlainQueue | GroupedQueue) -> None:
        self.queue = queue
        self.plain = queue if isinstance(queue, PlainQueue) else None
        self.is_serial = self.plain is not None and self.config.concurrency == 1 and self.config.executor is None
        self.plan = queue.plan if isinstance(queue, PlainQueue) else partial(_plan_grouped, queue, self.stats.lock)

    @property
    def waiting(self) -> int:
        return self.queue.waiting

    @property
    def running_calls(self) -> int:
        return self.queue.running_calls

    @property
    def slots(self) -> int:
        return self.config.concurrency

    @property
    def room(self) -> float:
        """The number of items that the queue takes before it is full."""
        most = self.config.max_pending
        return inf if most is None else max(0, most - self.waiting)

    @property
    def idle(self) -> bool:
        queue = self.queue
        return not queue.running and not queue.waiting

    @property
    def entries(self) -> list[tuple[Any, Any, float]]:
        """The item, waiter and time of arrival of each call in the queue."""
        return [(item_of(data, self.config), waiter, arrived) for data, waiter, arrived in self.queue.entries]

    def add(self, data: Any, waiter: Any, now: float) -> int:
        """Queue ``data``, from ``entry_factory()``, and return the mark for ``leave()``.

        Raises:
            QueueFullError: the queue is full, and calls do not wait for room.
        """
        if self.plain is not None:
            mark = self.plain.mark
            self.plain.places += (data, waiter, now)
            return mark
        self.check_room(data)
        entry = as_entry(data)
        queue = cast("GroupedQueue", self.queue)
        with self.stats.lock:
            mark = queue.add(entry, waiter, now)
        return mark  # noqa: RET504  # an exception of a signal handler at a return would leave the lock held

    def check_room(self, data: Any) -> None:
        refuses = self.config.on_full == "raise" and cast("GroupedQueue", self.queue).is_full
        if refuses and not (data.waits or self._running_equal(data)):
            self.stats.refused()
            raise QueueFullError(full(self.name, cast("int", self.config.max_pending)))

    def join(self, data: Any, waiter: Any) -> bool:
        with self.stats.lock:
            equal = self._running_equal(data)
            if equal is not None:
                batch, index = equal
                batch.join(waiter, index)
        return equal is not None

    def _running_equal(self, data: Any) -> tuple[Batch, int] | None:
        return self.joinable.get((data.group, data.duplicate_of)) if self.joinable else None

    def admit(self) -> Sequence[Any]:
        """Return the waiters whose items have room now, after waiting for it."""
        if isinstance(self.queue, PlainQueue):
            return ()
        with self.stats.lock:
            waiters = self.queue.admit_waiting()
        return waiters  # noqa: RET504  # as above

    def leave(self, mark: int, waiter: Any) -> Any:
        """Return the entry of a caller that left the queue, or ``None`` if its item is not queued any more.

        If the item waits in an executor, it is dropped from its batch.
        """
        with self.stats.lock:
            entry = self.queue.withdraw(mark, waiter)
            self._count_left()
            dropped: list[Any] = []
            if entry is None:
                for batch in self.queue.running:
                    dropped += self._withdraw(batch, [waiter])
                self.stats.left(len(dropped))
        return entry

    def fail_all(self) -> list[Any]:
        """Empty the queue, and return the waiters, which get an error as their answer."""
        with self.stats.lock:
            entries = self.queue.withdraw_all()
            self.stats.dropped(len(entries), self)
        return [waiter for _, (_, waiter, _) in entries]

    def fail_unstarted(self) -> list[Any]:
        """Empty the queue, drop the items that wait in an executor, and return the waiters, which get an error."""
        waiters = self.fail_all()
        with self.stats.lock:
            for batch in self.queue.running:
                dropped = [waiter for _, waiter in self._withdraw(batch, batch.waiters)]
                self.stats.dropped(len(dropped))
                waiters += dropped
        return waiters

    @property
    def has_full(self) -> bool:
        """Whether a full batch may leave."""
        with self.stats.lock:
            has_full = self.queue.has_full
        return has_full  # noqa: RET504  # as above

    @property
    def calls(self) -> list[tuple[int, Any]]:
        """The mark and the waiter of each call in the queue."""
        queue = self.queue
        if isinstance(queue, PlainQueue):
            return [(mark, waiter) for mark, (_, waiter, _) in queue.with_tickets(len(queue.places))]
        return [(entry.ticket, entry.waiter) for entry in queue.entries]

    @property
    def admitted(self) -> list[Any]:
        """The waiters of the calls that do not wait for room."""
        return [] if isinstance(self.queue, PlainQueue) else self.queue.admitted

    @property
    def expires_at(self) -> float:
        """The time of the next deadline, at which ``expire()`` is due; infinite without one."""
        return inf if isinstance(self.queue, PlainQueue) else _next_deadline(self.queue)

    def expire(self, now: float) -> Sequence[Entry]:
        if isinstance(self.queue, PlainQueue):
            return ()
        with self.stats.lock:
            expired = self.queue.expire(now)
            self.withdrawn += len(expired)
            for batch in self.queue.running:
                if batch.expires_at <= now:
                    late = [entry for entry in batch.entries if entry.deadline <= now]
                    if self._withdraw(batch, [entry.waiter for entry in late]):
                        expired += late
                    else:
                        # All of its items have started.
                        batch.expires_at = inf
            self.stats.expired(len(expired))
        return expired

    def _withdraw(self, batch: Batch, waiters: list[Any]) -> list[tuple[Any, Any]]:
        """Remove callers from a batch that waits in an executor, and return their items and waiters."""
        dropped: list[tuple[Any, Any]] = []
        if batch.call is None:
            return dropped
        leaving = {*map(id, waiters)}
        gone = [id(waiter) in leaving for waiter in batch.waiters]
        with batch.call.lock:
            if True in gone and not batch.call.has_started:
                callers = zip(batch.positions, batch.waiters, gone, strict=True)
                dropped = [(batch.items[index], waiter) for index, waiter, leaves in callers if leaves]
                if self.joinable:
                    self.seal(batch)
                batch.drop(gone)
                if batch.given is not None:
                    batch.copy_items(self.config.padding(batch.size))
        return dropped

    def drain(self, drain: Drain, now: float) -> None:
        drain.since = now
        self.queue.flush(drain.reason)
        self.drains.append(drain)

    def end_drains(self) -> None:
        for drain in self.drains[:]:
            if self.queue.is_settled(drain.since):
                # Only then, as a signal handler may interrupt this.
                drain.set()
                self.drains.remove(drain)

    def configure(self, config: Config) -> None:
        with self.stats.lock:
            self.config = config
            old = self.plain
            queue, places = reconfigured(self.queue, config)
            if old is not None:
                # No call in between, so no signal handler can lose or double the entries.
                self.queue, old.places[:places] = queue, EMPTY * (places // WIDTH)
            self._use(queue)

    def mend(self, config: Config) -> None:
        """Restore a sound state after an exception of a signal handler interrupted a step at any point.

        The calls themselves, and their number, are changed without a call in between, where CPython runs no handler.
        All else is derived from them.
        """
        with self.stats.lock:
            self._use(mended(self.queue, config))
            self.configure(config)
            self._count_left()
            # The interrupt may have come before ``take()`` did this.
            for batch in self.queue.running:
                batch.name = self.name

    def _count_left(self) -> None:
        """Count the callers that have left the queue since the last count."""
        self.stats.left(self.queue.withdrawn - self.withdrawn, self)

    def take(self, now: float) -> Batch | None:
        # Readers of the counters see the calls wait or run, and never neither.
        with self.stats.lock:
            batch = self.queue.take(now)
        if batch is not None:
            batch.name = self.name
            if self.plain is None and self.config.executor is None:
                # The items start now.
                batch.expires_at = inf
        return batch

    def drop(self, batch: Batch, gone: list[bool], now: float) -> bool:
        """Remove the callers that left before the run, and return whether any stays. If not, the batch ends."""
        if any(gone):
            held = batch.items, batch.entries
            with self.stats.lock:
                batch.drop(gone)
                self.stats.left(sum(gone))
                if not batch.waiters:
                    self.queue.finish(batch, now)
            # Not before, because this may run the finalizer of an item.
            del held
        return bool(batch.waiters)

    def runs(self, batch: Batch) -> Iterable[Batch]:
        """Return the parts to run: the batch, and halves of those that fail if errors are isolated."""
        if self.prepares:
            config = self.config
            if config.capture_context:
                batch.contexts = tuple(context for _, context in batch.items)
                batch.items = [item for item, _ in batch.items]
            if config.dedupe == "running":
                self._unseal(batch)
            if config.isolate_errors:
                return Reruns(batch, config.padding)
            if config.keyed or config.sizes is not None:
                batch.copy_items(config.padding(batch.size))
        return (batch,)

    def answers(self, part: Batch, returned: Any) -> tuple[list[Any], bool]:
        """Return one answer for each waiter, and whether any of them may be an exception.

        Raises:
            BatchResultError: ``returned`` is not one result for each item, in order, or by item with ``keyed``.
        """
        if self.joinable:
            self.seal(part)
        if type(returned) is list and len(returned) == part.size and part.given is None:  # pyright: ignore[reportUnknownArgumentType]  # of anything
            # A copy, which the batch function cannot change.
            answers: list[Any] = [*returned]
        else:
            answers = self._results(part, returned)
        if part.shares is not None:
            answers = [answers[index] for index in part.shares]
        try:
            # Checking each type of the answers takes less time than checking each answer.
            for kind in {*map(type, answers)}:
                if issubclass(kind, Exception):
                    return outcome.with_own_exceptions(answers), True
        except TypeError:
            # The type of a class may make its classes unhashable.
            return outcome.with_own_exceptions(answers), True
        return answers, False

    def _unseal(self, batch: Batch) -> None:
        """Let callers of equal items join a batch that begins to run."""
        with self.stats.lock:
            for entry, index in zip(batch.entries, batch.positions, strict=True):
                if entry.duplicate_of is not None:
                    self.joinable[entry.group, entry.duplicate_of] = batch, index

    def seal(self, batch: Batch) -> None:
        """Let no more callers join a batch that has its answers, or is cancelled."""
        with self.stats.lock:
            for entry in batch.entries:
                key = entry.group, entry.duplicate_of
                if key in self.joinable and self.joinable[key][0] is batch:
                    del self.joinable[key]

    def _results(self, part: Batch, returned: Any) -> list[Any]:
        if self.config.keyed:
            return outcome.keyed_results(self.name, [*map(requests.item_of, part.items)], returned)
        return outcome.results(self.name, part.size + part.padding, returned)[: part.size]

    def ended(self, runs: Iterable[Batch], part: Batch, error: BaseException, *, is_abandoned: bool) -> Sequence[Batch]:
        """Return the parts that ``error`` of ``part`` ends. If no caller waits any more, it ends all."""
        self.seal(part)
        if not isinstance(runs, Reruns):
            return [part]
        parts = runs.ended(error, is_abandoned=is_abandoned)
        if not parts:
            self.stats.isolated()
        return parts

    def count(self, part: Batch, now: float, failed: int, cancelled: int) -> float:
        """Count the calls of a part, and return its run time in seconds."""
        run_time, stats = now - part.departed, self.stats
        if not part.size:
            # All left before the executor started the batch.
            return run_time
        with stats.lock:
            # From the first arrival if nothing was counted before, or since the last reset.
            since = (not stats.is_new and self.counted_until) or part.arrived[0]
            self.counted_until = now
            overlap = stats.ended(part, run_time, failed, cancelled, self.config.concurrency * (now - since))
            # The counters of all instances have one lock, so they learn one at a time.
            if part.run_cost is not None and failed + cancelled < len(part.waiters):
                part.learn(run_time)
        if overlap is not None:
            # An error of a logging filter would end the worker.
            with suppress(Exception):
                log.info(unshared(self.name, overlap=overlap))
        return run_time

    def end(self, part: Batch, now: float) -> Batch | None:
        """Release the callers of a part, and the slot after the last one. Return the batch if this was its end."""
        root = part.parent or part
        if root is not part:
            part.forget()
        if root.unanswered:
            return None
        # Without the lock, because the calls are counted. Before the batch forgets its callers, because the queue
        # learns no run time from a batch without callers.
        self.queue.finish(root, now)
        root.forget()
        return root


def _plan_grouped(queue: GroupedQueue, lock: RLock) -> float | None:
    """Return the time of the next departure or deadline. Unlike that of a plain queue, this plan needs the lock."""
    with lock:
        at, expires_at = queue.plan(), _next_deadline(queue)
    at = expires_at if at is None else min(at, expires_at)
    return None if at == inf else at


def _next_deadline(queue: GroupedQueue) -> float:
    # A batch may also wait in an executor.
    return min([queue.expires_at, *(batch.expires_at for batch in queue.running)])
