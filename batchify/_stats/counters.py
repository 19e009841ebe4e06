"""The counters of one batcher, shared by its engines.

Decides: which numbers an engine counts, and how many calls wait.
Must not know: engines, clocks. Engines pass durations.

Rules
-----
1. An engine notes each batch when it ends, and does nothing for each item. The notes are added up together: when there
   are enough of them, and before anything is read.
2. The numbers of waiting and running calls are derived from the queues. A step that moves calls from there to the
   counters, or from waiting to running, holds the ``lock``. So waiting + running + answered + failed + cancelled +
   expired is the number of calls made, at any moment, read from any thread.
3. The counters of an instance have those of the decorated function as their parent. Both share one lock, and one update
   counts in both, so the parent keeps the numbers of dropped instances. Only waiting calls are summed.
4. ``reset()`` keeps all counts for exporters, which need numbers that never fall.
5. A signal handler or a finalizer may read and count in the middle of any step, and a handler that raises ends the
   step. So numbers that belong together change without a call in between, which leaves CPython no chance to run them.
"""

from __future__ import annotations

from math import inf
from threading import RLock
from typing import TYPE_CHECKING, Any, Protocol
from weakref import ref

from batchify._stats.snapshot import CALL_OUTCOMES, REASONS, BatchStats, percentiles
from batchify._stats.sums import CALLS, WIDTH, Counts, Sums, batch_sizes

if TYPE_CHECKING:
    from batchify._core.batch import Batch


class Queue(Protocol):
    @property
    def waiting(self) -> int: ...
    @property
    def running_calls(self) -> int: ...
    @property
    def slots(self) -> int: ...
    @property
    def room(self) -> float: ...


class Withdrawals(Protocol):
    # The number of calls that left the queue without a batch, and are counted.
    withdrawn: int


FIELDS = ("total_items", "total_batches", *CALL_OUTCOMES, "isolation_runs")
# The counts that do not follow from batches, or not alone.
DIRECT: tuple[str, ...] = ("cancelled_items", "expired_items", "rejected_items", "isolation_runs", "dropped")
# After this many batches of one item, a hint is due.
MANY_LONE_ITEMS = 1000
# Notes are added up when their values and the arrivals of their calls are as many as those of so many lone items.
MANY = (WIDTH + 1) * MANY_LONE_ITEMS


class Stats:
    """The counters of one batcher. The ``parent``, which has no parent itself, counts the same calls too."""

    lock: RLock

    def __init__(self, parent: Stats | None = None) -> None:
        # Each call counts in these too.
        self._parent = parent
        # It is reentrant, because a signal handler or a finalizer may read or count in the middle of an update.
        self.lock = RLock() if parent is None else parent.lock
        # Weak references. Both are dicts, because ``list()`` copies a dict in one step, even while a finalizer changes
        # it.
        self._children: dict[ref[Any], None] = {}
        self._queues: dict[Queue, None] = {}
        # All counts until the last reset.
        self._before = Counts()
        # Whether no batch has ended since the start or the last reset.
        self.is_new = True
        # By field of a snapshot: what does not follow from batches.
        self._counts = dict.fromkeys(DIRECT, 0)
        self._sums = Sums()
        # The values of the batches that the sums do not include yet, and the arrivals of their calls in order.
        self._notes: list[Any] = []
        self._arrivals: list[float] = []
        # With so many of both, the next batch adds them up.
        self._limit = MANY
        # Whether the hint was given. It is about a function, not about an instance.
        self._hinted = parent is not None
        if parent is not None:
            parent._children[ref(self, parent._children.pop)] = None

    def reset(self) -> None:
        """Set all counters to zero, also in the children, except those of waiting and running calls."""
        with self.lock:
            before = self.all_counts()
            counts, sums = dict.fromkeys(DIRECT, 0), Sums()
            # Rule 5.
            self._before, self._counts, self._sums, self.is_new = before, counts, sums, True
            for child in self._live_children():
                child.reset()

    def follow(self, queue: Queue) -> None:
        """Count the calls that wait in ``queue``."""
        with self.lock:
            self._queues[queue] = None

    def retire(self, queue: Queue) -> None:
        """Stop following ``queue``, and count its calls as cancelled."""
        with self.lock:
            self.left(queue.waiting + queue.running_calls)
            self._queues.pop(queue, None)

    def left(self, count: int = 1, queue: Withdrawals | None = None) -> None:
        """Count callers that left while their items were queued. ``queue`` notes that they are counted."""
        self._count("cancelled_items", count, queue)

    def dropped(self, count: int, queue: Withdrawals | None = None) -> None:
        """Count calls that failed while their items were queued."""
        self._count("dropped", count, queue)

    def expired(self, count: int) -> None:
        self._count("expired_items", count)

    def refused(self) -> None:
        self._count("rejected_items", 1)

    def isolated(self) -> None:
        # The two halves of the failed batch run again.
        self._count("isolation_runs", 2)

    def _count(self, field: str, count: int, queue: Withdrawals | None = None) -> None:
        with self.lock:
            # Rule 5.
            if queue is not None:
                queue.withdrawn += count
            self._counts[field] += count
            if self._parent is not None:
                self._parent._counts[field] += count

    def ended(self, batch: Batch, run_time: float, failed: int, cancelled: int, slot_time: float = 0.0) -> bool | None:
        """Count a batch or a part. ``failed`` calls got an error, and ``cancelled`` calls got no answer.

        ``slot_time`` is the time of all slots since the last batch was counted.

        If a hint is due, because all batches of the function have held one item, return whether calls overlap.

        The caller holds the lock, because these calls do not count as running any more.
        """
        parent, hint = self._parent, None
        # First, because an exception of a signal handler must not come after the batch has been noted.
        if len(self._notes) + len(self._arrivals) >= self._limit:
            hint = self._add_many(len(batch.waiters))
        if parent is not None and len(parent._notes) + len(parent._arrivals) >= parent._limit:
            hint = parent._add_many(len(batch.waiters))
        # Only the grouped queue, which sets weights, changes the order of calls.
        arrived = batch.arrived if batch.weights is None else sorted(batch.arrived)
        exceptions = (failed, cancelled, batch.padding) if failed or cancelled or batch.padding else None
        root, calls = batch.parent or batch, len(arrived)
        note = batch.size, batch.reason, batch.max_size, batch.departed, calls, run_time, slot_time, exceptions
        # Rule 5.
        root.unanswered -= calls
        self.is_new = False
        self._arrivals += arrived
        self._notes += note
        if parent is not None:
            parent._arrivals += arrived
            parent._notes += note
        return hint

    def _add_many(self, ending: int) -> bool | None:
        """Add up the notes, and return the hint if it is due. ``ending`` calls still count as running."""
        self._add_up()
        if self._limit:
            return None
        self._limit, self._hinted = MANY, True
        return sum(queue.waiting + queue.running_calls for queue in self._all_queues()) > ending

    def _add_up(self) -> None:
        """Add the noted batches to the sums. The caller holds the lock."""
        while self._notes:
            before = self._sums
            notes, arrivals = self._notes[:], self._arrivals[:]
            calls = slice(sum(notes[CALLS::WIDTH]))
            if self._sums is not before:
                # A reader has added them up meanwhile.
                continue
            sums, added = before.plus(notes, arrivals[calls]), slice(len(notes))
            if self._sums is before:
                # Rule 5.
                self._sums = sums
                del self._notes[added], self._arrivals[calls]
        counts = self._sums.counts
        if (
            MANY_LONE_ITEMS <= counts["total_batches"] == counts["total_items"] < counts["capacity"]
            and not self._hinted
        ):
            # The next batch gives the hint.
            self._limit = 0

    def all_counts(self) -> Counts:
        """Return all counts since the start, which never fall."""
        with self.lock:
            counts = self._before + self._complete_counts()
        # Not inside, where an exception of a signal handler would leave the lock held.
        return counts  # noqa: RET504

    def _complete_counts(self) -> Counts:
        """Return all counts since the last reset. The caller holds the lock."""
        self._add_up()
        counts = Counts(self._counts)
        counts.update(self._sums.counts)
        # Rounding may take a sum of large times below 0, and a call may arrive just as its batch departs.
        counts["wait_time"] = max(0, counts["wait_time"])
        counts["answered_items"] = counts["total_items"] + counts["deduped_items"]
        counts["answered_items"] -= counts["failed_items"] + counts["unanswered"]
        counts["failed_items"] += counts["dropped"]
        counts["cancelled_items"] += counts["unanswered"]
        return counts

    def snapshot(self, name: str) -> BatchStats:
        with self.lock:
            counts = self._complete_counts()
            sums = self._sums
            queues = self._all_queues()
            running = sum(queue.running_calls for queue in queues)
            pending = sum(queue.waiting for queue in queues)
        batches, items = counts["total_batches"], counts["total_items"]
        sizes = batch_sizes(counts)
        return BatchStats(
            name=name,
            **{field: counts[field] for field in FIELDS},
            avg_batch_size=items / max(1, batches),
            avg_wait_time_ms=1000 * counts["wait_time"] / max(1, items + counts["deduped_items"]),
            avg_run_time_ms=1000 * counts["run_time"] / max(1, batches),
            max_batch_size_seen=max(sizes, default=0),
            pending=pending,
            running=running,
            wait_ms=percentiles([*sums.newest_waits()], sums.longest_wait),
            run_ms=percentiles([*sums.runs], sums.longest_run),
            size_histogram=sizes,
            reasons={reason: counts[reason] for reason in REASONS},
            fill_ratio=items / max(1, counts["capacity"]),
            # While an error is isolated, the run times of the parts overlap.
            utilization=min(1.0, counts["run_time"] / (counts["slot_time"] or inf)),
        )

    def levels(self) -> Counts:
        """Return the numbers of the present, for exporters."""
        levels = Counts()
        with self.lock:
            for queue in self._all_queues():
                levels.update({"pending": queue.waiting, "running": queue.running_calls})
                levels.update({"slots": queue.slots, "room": queue.room})
        return levels

    def _all_queues(self) -> list[Queue]:
        return [queue for stats in (self, *self._live_children()) for queue in list(stats._queues)]

    def _live_children(self) -> list[Stats]:
        return [child for known in list(self._children) if (child := known()) is not None]
