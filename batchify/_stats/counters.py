"""The counters of one batcher, shared by its engines.

Decides: what is counted, and how many calls wait.
Must not know: engines, clocks. Engines pass durations.

Rules
-----
1. An engine updates the counters once or twice a batch, never once an item. Arrival times are kept as the core recorded
   them; a reader turns them into wait times.
2. The number of waiting calls is derived: all arrivals, less the calls that no longer wait. So waiting + running +
   answered + failed + cancelled + expired is the number of calls made, at any moment, read from any thread.
3. The counters of an instance have those of the decorated function as their parent. Both share one lock, and one update
   counts in both, so the parent keeps the numbers of an instance that is gone. Only waiting calls are summed.
4. ``reset()`` forgets no count: exporters need numbers that never fall.
"""

from __future__ import annotations

from collections import Counter, deque
from itertools import islice
from threading import RLock
from typing import TYPE_CHECKING, Any, TypeAlias
from weakref import ref

from batchify._stats.snapshot import REASONS, BatchStats, percentiles

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batchify._core.batch import Batch
    from batchify._core.slots import Slots

# Numbers by field of a snapshot, by reason of a departure, or (an int) by size of a batch. "room" is the sum of the
# ``max_size`` of all batches; "wait_time" and "run_time" are sums in seconds.
Counts: TypeAlias = Counter[Any]

FIELDS = (
    "total_items",
    "total_batches",
    "answered_items",
    "failed_items",
    "cancelled_items",
    "expired_items",
    "rejected_items",
    "deduped_items",
    "isolation_runs",
)
# Percentiles are those of so many of the newest items (wait times) and batches (run times).
RECENT = 10_000


class Stats:
    """The counters of one batcher.

    The lock is reentrant, because a signal handler or a finalizer may read or count in the middle of an update.

    Args:
        parent: counters that count everything that these count. They have no parent.
    """

    _lock: RLock

    def __init__(self, parent: Stats | None = None) -> None:
        self._parent = parent
        self._lock = RLock() if parent is None else parent._lock
        # Weak references. As for the queues, a dict is copied in one step while a finalizer changes it.
        self._children: dict[ref[Any], None] = {}
        self._queues: dict[Slots, None] = {}
        # Calls that arrived in these queues and no longer wait, and calls that run. Both outlive a reset.
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
        """Start again at zero, with the children; waiting and running calls stay counted."""
        with self._lock:
            self._before.update(self._counts)
            self._clear()
            for child in self._live_children():
                child.reset()

    def follow(self, queue: Slots) -> None:
        """Count the arrivals in ``queue``."""
        with self._lock:
            self._queues[queue] = None

    def replace(self, queue: Slots, other: Slots) -> None:
        """Count the arrivals in ``other``, which continues ``queue``."""
        with self._lock:
            del self._queues[queue]
            self._queues[other] = None

    def retire(self, queue: Slots) -> None:
        """Stop following ``queue``, once none of its calls waits."""
        with self._lock:
            arrivals = queue.arrivals
            self._gone -= arrivals
            del self._queues[queue]

    def left(self, count: int = 1) -> None:
        """Count callers that left while their items waited."""
        self._count("cancelled_items", count, gone=count)

    def expired(self, count: int) -> None:
        """Count calls that were dropped at their deadline."""
        self._count("expired_items", count, gone=count)

    def refused(self) -> None:
        """Count a call that found no room."""
        self._count("rejected_items", 1)

    def isolated(self) -> None:
        """Count the two halves of a failed batch, which run again."""
        self._count("isolation_runs", 2)

    def _count(self, field: str, count: int, *, gone: int = 0) -> None:
        with self._lock:
            self._gone += gone
            stats: Stats | None = self
            while stats is not None:
                stats._counts[field] += count
                stats = stats._parent

    def departed(self, batch: Batch) -> None:
        """Count the calls of a batch as running."""
        calls = len(batch.waiters)
        with self._lock:
            self._gone += calls
            stats: Stats | None = self
            while stats is not None:
                stats._running += calls
                stats = stats._parent

    def ended(self, batch: Batch, run_time: float, *, failed: int, cancelled: int) -> None:
        """Count a batch, or a part of one, that ended with an error for ``failed`` and no answer for ``cancelled``."""
        calls, size, departed, arrived = len(batch.waiters), batch.size, batch.departed, batch.arrived
        # Rounding may take a sum of large times below 0.
        wait_time = max(0.0, calls * departed - sum(arrived))
        longest_wait = departed - min(arrived)
        with self._lock:
            stats: Stats | None = self
            while stats is not None:
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
                # Batches are dropped whole, so that a departure pays for no single item.
                while stats._recent > RECENT and stats._recent - len(stats._waits[0][1]) >= RECENT:
                    stats._recent -= len(stats._waits.popleft()[1])
                stats = stats._parent

    def all_counts(self) -> Counts:
        """Return everything that was ever counted: numbers that never fall."""
        with self._lock:
            return self._before + Counts(self._counts)

    def snapshot(self, name: str) -> BatchStats:
        """Return a snapshot under the name of the batcher."""
        return snapshot(name, [self])

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
            # Last: a call that arrives meanwhile waits, and no call counts twice.
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
    """Return the number of batches of each size, smallest size first."""
    return {size: counts[size] for size in sorted(key for key in counts if isinstance(key, int))}
