"""The counters of one batcher, shared by its engines.

Decides: which numbers an engine counts, and how many calls wait.
Must not know: engines, clocks. Engines pass durations.

Rules
-----
1. An engine updates the counters once or twice a batch, never once an item. A reader computes wait times from the
   arrival times that the core recorded.
2. The number of waiting calls is derived: all arrivals, less the calls that no longer wait. So waiting + running +
   answered + failed + cancelled + expired is the number of calls made, at any moment, read from any thread.
3. The counters of an instance have those of the decorated function as their parent. Both share one lock, and one update
   counts in both, so the parent keeps the numbers of dropped instances. Only waiting calls are summed.
4. ``reset()`` keeps all counts for exporters, which need numbers that never fall.
"""

from __future__ import annotations

from collections import Counter, deque
from itertools import islice
from threading import RLock
from typing import TYPE_CHECKING, Any, TypeAlias
from weakref import ref

from batchify._stats.snapshot import CALL_OUTCOMES, REASONS, BatchStats, percentiles

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batchify._core.batch import Batch
    from batchify._core.slots import Slots

# Numbers by field of a snapshot, by reason of a departure, and by size of a batch (an int). "room" is the sum of the
# ``max_size`` of all batches; "wait_time" and "run_time" are sums in seconds.
Counts: TypeAlias = Counter[Any]

FIELDS = ("total_items", "total_batches", *CALL_OUTCOMES, "isolation_runs")
# Percentiles cover this many of the newest items (wait times) and batches (run times).
RECENT = 10_000


class Stats:
    """The counters of one batcher. The ``parent``, which has no parent itself, counts the same calls too."""

    _lock: RLock

    def __init__(self, parent: Stats | None = None) -> None:
        self._parent = parent
        # It is reentrant, because a signal handler or a finalizer may read or count in the middle of an update.
        self._lock = RLock() if parent is None else parent._lock
        # Weak references. As for the queues, a dict is copied in one step while a finalizer changes it.
        self._children: dict[ref[Any], None] = {}
        self._queues: dict[Slots, None] = {}
        # Calls that arrived in these queues and no longer wait, and calls that run. A reset keeps both.
        self._gone = self._running = 0
        self._before = Counts()
        self._clear()
        if parent is not None:
            parent._children[ref(self, parent._children.pop)] = None

    def _clear(self) -> None:
        self._counts: dict[Any, Any] = dict.fromkeys((*FIELDS, *REASONS, "room", "wait_time", "run_time"), 0)
        self._longest_wait = self._longest_run = 0.0
        # The departure and the arrivals of the newest batches, and the number of these arrivals.
        self._waits: deque[tuple[float, list[float]]] = deque()
        self._recent = 0
        self._runs: deque[float] = deque(maxlen=RECENT)

    def reset(self) -> None:
        """Set all counters to zero, also in the children, except those of waiting and running calls."""
        with self._lock:
            self._before.update(self._counts)
            self._clear()
            for child in self._live_children():
                child.reset()

    def follow(self, queue: Slots) -> None:
        with self._lock:
            self._queues[queue] = None

    def replace(self, queue: Slots, other: Slots) -> None:
        with self._lock:
            del self._queues[queue]
            self._queues[other] = None

    def retire(self, queue: Slots) -> None:
        """Stop following ``queue``, in which no call waits."""
        with self._lock:
            # Not in one statement, in the middle of which a finalizer might change the count.
            arrivals = queue.arrivals
            self._gone -= arrivals
            del self._queues[queue]

    def left(self, count: int = 1) -> None:
        """Count callers that left while their items were queued."""
        self._count("cancelled_items", count, gone=count)

    def expired(self, count: int) -> None:
        self._count("expired_items", count, gone=count)

    def refused(self) -> None:
        self._count("rejected_items", 1)

    def isolated(self) -> None:
        # The two halves of the failed batch run again.
        self._count("isolation_runs", 2)

    def _count(self, field: str, count: int, *, gone: int = 0) -> None:
        with self._lock:
            self._gone += gone
            for stats in self._with_parent():
                stats._counts[field] += count

    def departed(self, batch: Batch) -> None:
        calls = len(batch.waiters)
        with self._lock:
            self._gone += calls
            for stats in self._with_parent():
                stats._running += calls

    def ended(self, batch: Batch, run_time: float, *, failed: int, cancelled: int) -> None:
        """Count a batch or a part. ``failed`` calls got an error, and ``cancelled`` calls got no answer."""
        calls, size, departed, arrived = len(batch.waiters), batch.size, batch.departed, batch.arrived
        # Rounding may take a sum of large times below 0.
        wait_time = max(0.0, calls * departed - sum(arrived))
        longest_wait = departed - min(arrived)
        with self._lock:
            for stats in self._with_parent():
                stats._running -= calls
                counts = stats._counts
                counts["total_items"] += size
                counts["total_batches"] += 1
                counts["answered_items"] += calls - failed - cancelled
                counts["failed_items"] += failed
                counts["cancelled_items"] += cancelled
                counts["deduped_items"] += calls - size
                counts["room"] += batch.max_size
                counts["wait_time"] += wait_time
                counts["run_time"] += run_time
                counts[batch.reason] += 1
                counts[size] = counts.get(size, 0) + 1
                stats._longest_wait = max(stats._longest_wait, longest_wait)
                stats._longest_run = max(stats._longest_run, run_time)
                stats._runs.append(run_time)
                stats._waits.append((departed, arrived))
                stats._recent += calls
                # Only whole batches are dropped, so that the cost does not depend on the number of items.
                while stats._recent > RECENT and stats._recent - len(stats._waits[0][1]) >= RECENT:
                    stats._recent -= len(stats._waits.popleft()[1])

    def all_counts(self) -> Counts:
        """Return all counts since the start, which never fall."""
        with self._lock:
            return self._before + Counts(self._counts)

    def snapshot(self, name: str) -> BatchStats:
        return snapshot(name, [self])

    def _with_parent(self) -> tuple[Stats, ...]:
        return (self,) if self._parent is None else (self, self._parent)

    def _pending(self) -> int:
        pending = 0
        for stats in (self, *self._live_children()):
            pending -= stats._gone
            for queue in list(stats._queues):
                pending += queue.arrivals
        return pending

    def _live_children(self) -> list[Stats]:
        return [child for known in list(self._children) if (child := known()) is not None]


def snapshot(name: str, several: Iterable[Stats]) -> BatchStats:
    """Return one snapshot of the counters of several batchers."""
    counts = Counts()
    newest_batches: list[tuple[float, list[float]]] = []
    runs: list[float] = []
    pending = running = 0
    longest_wait = longest_run = 0.0
    for stats in several:
        with stats._lock:
            counts.update(stats._counts.copy())
            newest_batches += reversed(stats._waits)
            runs += reversed(stats._runs)
            longest_wait = max(longest_wait, stats._longest_wait)
            longest_run = max(longest_run, stats._longest_run)
            running += stats._running
            # Read last, so that a call that arrives meanwhile counts as waiting, and no call counts twice.
            pending += stats._pending()
    waits = (departed - arrived for departed, times in newest_batches for arrived in times)
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
        wait_ms=percentiles(list(islice(waits, RECENT)), longest_wait),
        run_ms=percentiles(runs[:RECENT], longest_run),
        size_histogram=sizes,
        reasons={reason: counts[reason] for reason in REASONS},
        fill_ratio=items / max(1, counts["room"]),
    )


def batch_sizes(counts: Counts) -> dict[int, int]:
    return {size: counts[size] for size in sorted(key for key in counts if isinstance(key, int))}
