"""The counters of one batcher, shared by its engines.

Decides: which numbers an engine counts, and how many calls wait.
Must not know: engines, clocks. Engines pass durations.

Rules
-----
1. An engine updates the counters once or twice a batch, never once an item. A reader computes wait times from the
   arrival times that the core recorded.
2. The numbers of waiting and running calls are derived from the queues. A step that moves calls from there to the
   counters, or from waiting to running, holds the ``lock``. So waiting + running + answered + failed + cancelled +
   expired is the number of calls made, at any moment, read from any thread.
3. The counters of an instance have those of the decorated function as their parent. Both share one lock, and one update
   counts in both, so the parent keeps the numbers of dropped instances. Only waiting calls are summed.
4. ``reset()`` keeps all counts for exporters, which need numbers that never fall.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, deque
from itertools import islice
from math import inf
from threading import RLock
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias
from weakref import ref

from batchify._stats.snapshot import CALL_OUTCOMES, REASONS, BatchStats, percentiles

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batchify._core.batch import Batch

# Numbers by field of a snapshot, by reason of a departure, by size of a batch (an int), and by bucket of a time (a pair
# such as ``("run", 3)``). "capacity" is the sum of the ``max_size`` of all batches, "unanswered" counts the callers
# that left a running batch, "dropped" the calls that failed in the queue, and "wait_time", "run_time" and "slot_time"
# are sums in seconds. The numbers of the present are "pending", "running", "slots", and "room", the free places in the
# queues.
Counts: TypeAlias = Counter[Any]


class Queue(Protocol):
    @property
    def waiting(self) -> int: ...
    @property
    def running_calls(self) -> int: ...
    @property
    def slots(self) -> int: ...
    @property
    def room(self) -> float: ...


class Departures(Protocol):
    # The number of calls that departed and are counted, or will be when their batch ends.
    departed: int


FIELDS = ("total_items", "total_batches", *CALL_OUTCOMES, "isolation_runs")
# Percentiles cover this many of the newest items (wait times) and batches (run times).
RECENT = 10_000
# The upper bounds of the buckets of wait and run times, in seconds, with one more bucket above. They are the same for
# every batcher at any time, so that the buckets of several processes can be added.
BOUNDS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1),
    *(0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0),
)
# After this many batches of one item, a hint is due.
MANY_LONE_ITEMS = 1000


class Stats:
    """The counters of one batcher. The ``parent``, which has no parent itself, counts the same calls too."""

    lock: RLock

    def __init__(self, parent: Stats | None = None) -> None:
        # Each call counts in these too. They do not include the counters themselves: those of an instance that is gone,
        # with the queues that they follow, must not wait for the garbage collector.
        self._parents = () if parent is None else (parent,)
        # It is reentrant, because a signal handler or a finalizer may read or count in the middle of an update.
        self.lock = RLock() if parent is None else parent.lock
        # Weak references. As for the queues, a dict is copied in one step while a finalizer changes it.
        self._children: dict[ref[Any], None] = {}
        self._queues: dict[Queue, None] = {}
        self._before = Counts()
        # Whether the hint was given.
        self._hinted = False
        self._clear()
        if parent is not None:
            parent._children[ref(self, parent._children.pop)] = None

    def _clear(self) -> None:
        # By field of a snapshot: what does not follow from the next ones.
        self._counts = dict.fromkeys((*FIELDS, "unanswered", "dropped"), 0)
        # The number of batches of each size, reason and maximum size.
        self._kinds: dict[tuple[int, str, int], int] = {}
        self._wait_time = self._run_time = 0.0
        # The time of all slots, whether a batch ran in them or not.
        self.slot_time = 0.0
        self._longest_wait = self._longest_run = 0.0
        # The number of calls by wait time, and of batches by run time.
        self._wait_buckets, self._run_buckets = ([0] * (len(BOUNDS) + 1) for _ in range(2))
        # The departures of the newest batches, with their numbers of calls, and the arrivals of the newest calls.
        self._departures: deque[tuple[float, int]] = deque(maxlen=RECENT)
        self._arrivals: deque[float] = deque(maxlen=RECENT)
        self._runs: deque[float] = deque(maxlen=RECENT)

    def reset(self) -> None:
        """Set all counters to zero, also in the children, except those of waiting and running calls."""
        with self.lock:
            self._before.update(self._complete_counts())
            self._clear()
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
            del self._queues[queue]

    def left(self, count: int = 1, queue: Departures | None = None) -> None:
        """Count callers that left while their items were queued, and which ``queue`` has not counted yet."""
        self._count("cancelled_items", count, queue)

    def dropped(self, count: int, queue: Departures | None = None) -> None:
        """Count calls that failed while their items were queued."""
        self._count("dropped", count, queue)

    def expired(self, count: int) -> None:
        self._count("expired_items", count)

    def refused(self) -> None:
        self._count("rejected_items", 1)

    def isolated(self) -> None:
        # The two halves of the failed batch run again.
        self._count("isolation_runs", 2)

    def _count(self, field: str, count: int, queue: Departures | None = None) -> None:
        with self.lock:
            # No call in between: the exception of a signal handler leaves all of these counts changed, or none.
            if queue is not None:
                queue.departed += count
            self._counts[field] += count
            if self._parents:
                self._parents[0]._counts[field] += count

    def ended(self, batch: Batch, run_time: float, failed: int, cancelled: int, slot_time: float = 0.0) -> bool | None:
        """Count a batch or a part. ``failed`` calls got an error, and ``cancelled`` calls got no answer.

        ``slot_time`` is the time of all slots since the last batch was counted.

        If a hint is due, because all batches of the function have held one item, return whether calls overlap.

        The caller holds the lock, because these calls do not count as running any more.
        """
        calls, size, departed, arrived = len(batch.waiters), batch.size, batch.departed, batch.arrived
        wait_time = calls * departed - sum(arrived)
        # Only the grouped queue, which sets weights, changes the order of calls.
        in_order = arrived if batch.weights is None else sorted(arrived)
        longest_wait = departed - in_order[0]
        waits = ((bisect_left(BOUNDS, longest_wait), 1),) if calls == 1 else _by_bucket(in_order, departed)
        run_bucket = bisect_left(BOUNDS, run_time)
        kind = size, batch.reason, batch.max_size
        stats, batches = self, 0
        for stats in (self, *self._parents):
            stats._kinds[kind] = batches = stats._kinds.get(kind, 0) + 1
            if failed or cancelled or calls > size or batch.padding:
                counts = stats._counts
                counts["failed_items"] += failed
                counts["cancelled_items"] += cancelled
                counts["unanswered"] += cancelled
                counts["deduped_items"] += calls - size
                counts["padded_items"] += batch.padding
            stats._wait_time += wait_time
            stats._run_time += run_time
            stats._run_buckets[run_bucket] += 1
            for bucket, count in waits:
                stats._wait_buckets[bucket] += count
            stats.slot_time += slot_time
            if longest_wait > stats._longest_wait:  # noqa: PLR1730  # max() takes three times as long
                stats._longest_wait = longest_wait
            if run_time > stats._longest_run:  # noqa: PLR1730  # as above
                stats._longest_run = run_time
            stats._runs.append(run_time)
            stats._departures.append((departed, calls))
            stats._arrivals.extend(arrived)
        # The last one counts for the whole function.
        return stats._hint() if batches == MANY_LONE_ITEMS else None

    def _hint(self) -> bool | None:
        if self._hinted or any(size > 1 or max_size == 1 for size, _, max_size in self._kinds):
            return None
        self._hinted = True
        return any(queue.waiting or queue.running_calls for queue in self._all_queues())

    def all_counts(self) -> Counts:
        """Return all counts since the start, which never fall."""
        with self.lock:
            counts = self._before + self._complete_counts()
        # Not inside, where an exception of a signal handler would leave the lock held.
        return counts  # noqa: RET504

    def _complete_counts(self) -> Counts:
        """Return the counts with those that follow from the kinds of batches."""
        # Rounding may take a sum of large times below 0.
        times = {"wait_time": max(0.0, self._wait_time), "run_time": self._run_time, "slot_time": self.slot_time}
        counts = Counts(times)
        counts.update(self._counts)
        for (size, reason, max_size), count in self._kinds.items():
            counts.update({"total_items": count * size, "total_batches": count, "capacity": count * max_size})
            counts.update({reason: count, size: count})
        for kind, buckets in ("wait", self._wait_buckets), ("run", self._run_buckets):
            counts.update({(kind, bucket): count for bucket, count in enumerate(buckets) if count})
        counts["answered_items"] = counts["total_items"] + counts["deduped_items"]
        counts["answered_items"] -= counts["failed_items"] + counts["unanswered"]
        counts["failed_items"] += counts["dropped"]
        return counts

    def newest_waits(self) -> Iterator[float]:
        """Yield the wait times of the newest calls in seconds, newest first."""
        arrivals = reversed(self._arrivals)
        for departed, calls in reversed(self._departures):
            for arrived in islice(arrivals, calls):
                yield departed - arrived

    def snapshot(self, name: str) -> BatchStats:
        with self.lock:
            counts = self._complete_counts()
            waits, runs = [*self.newest_waits()], [*self._runs]
            longest_wait, longest_run = self._longest_wait, self._longest_run
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
            wait_ms=percentiles(waits, longest_wait),
            run_ms=percentiles(runs, longest_run),
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


def batch_sizes(counts: Counts) -> dict[int, int]:
    return {size: counts[size] for size in sorted(key for key in counts if isinstance(key, int))}


def _by_bucket(arrived: list[float], departed: float) -> list[tuple[int, int]]:
    """Return the buckets of the wait times of calls, which are in order of arrival, with the number of calls in each.

    It searches once for each bucket that is in use, mostly one or two, because a search for each call costs too much.
    """
    counts: list[tuple[int, int]] = []
    first, bucket = 0, bisect_left(BOUNDS, departed - arrived[0])
    while first < len(arrived):
        # The first call that belongs to a lower bucket.
        end = bisect_left(arrived, departed - BOUNDS[bucket - 1], first) if bucket else len(arrived)
        counts.append((bucket, end - first))
        first, bucket = end, bucket - 1
    return counts
