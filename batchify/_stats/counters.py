"""What happened, in numbers.

Decides: what is counted, and what a snapshot of it says.
Must not know: engines, clocks. Whoever knows the time says how long things took.

An engine feeds the counters once or twice a batch, never once an item: times of arrival are kept as the core recorded
them, and turned into waits when somebody looks. The number of waiting items is not counted at all but derived, so that
waiting + running + answered + failed + cancelled + expired is the number of calls, at any moment, read from any thread.
"""

from __future__ import annotations

from collections import Counter, deque
from itertools import takewhile
from threading import Lock, RLock
from typing import TYPE_CHECKING

from batchify._stats.snapshot import REASONS, BatchStats, percentiles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from batchify._core.batch import Batch

# How many of the newest items (for waits) and batches (for run times) percentiles are taken from.
RECENT = 10_000
# How many counters of engines that are gone are kept apart.
MANY = 64
_folding = Lock()


class Stats:
    """The counters of one engine, or of several together.

    One lock guards them, taken a few times a batch. It is reentrant, so that a signal handler or a finalizer that reads
    statistics in the middle of an update can't stop the world.

    Args:
        arrivals: tells how many items ever arrived; may be called from any thread.
    """

    # What is simply added up when engines are seen together.
    SUMS = (
        "_gone",
        "_running",
        "_items",
        "_deduped",
        "_rejected",
        "_isolation",
        "_batches",
        "_room",
        "_answered",
        "_failed",
        "_cancelled",
        "_expired",
        "_wait_total",
        "_sizes",
        "_reasons",
        "_waits",
        "_recent",
        "_runs",
        "_run_total",
    )
    PEAKS = ("_largest", "_wait_max", "_run_max")
    __slots__ = (*SUMS, *PEAKS, "_arrivals", "_lock", "final")

    def __init__(self, arrivals: Callable[[], int] = int) -> None:
        self._arrivals = arrivals
        self._lock = RLock()
        # Whether its engine will not work any more, and nothing more is to be counted.
        self.final = False
        # Items that no longer wait, and those of them that run: they describe the present, and outlive reset().
        self._gone = 0
        self._running = 0
        self.reset()

    def reset(self) -> None:
        """Forget the past; what waits and what runs stays counted."""
        with self._lock:
            self._items = self._deduped = self._rejected = self._batches = self._largest = self._room = 0
            self._isolation = 0
            self._answered = self._failed = self._cancelled = self._expired = 0
            self._wait_total = self._wait_max = self._run_max = 0.0
            self._sizes: Counter[int] = Counter()
            self._reasons: Counter[str] = Counter()
            # Time of departure and times of arrival of the newest batches, and how many items they have.
            self._waits: deque[tuple[float, list[float]]] = deque()
            self._recent = 0
            self._runs: deque[float] = deque()
            self._run_total = 0.0

    def follow(self, arrivals: Callable[[], int]) -> None:
        """Ask another one for the arrivals, who goes on from the same number."""
        self._arrivals = arrivals

    def left(self, count: int = 1) -> None:
        """Count callers that left while their items waited."""
        with self._lock:
            self._gone += count
            self._cancelled += count

    def expired(self, count: int) -> None:
        """Count callers whose deadlines were over while their items waited."""
        with self._lock:
            self._gone += count
            self._expired += count

    def refused(self) -> None:
        """Count a call that found no room."""
        with self._lock:
            self._rejected += 1

    def isolated(self) -> None:
        """Count the two halves of what failed, which are run again."""
        with self._lock:
            self._isolation += 2

    def departed(self, batch: Batch) -> None:
        """Count the items of a batch as running."""
        with self._lock:
            self._gone += len(batch.waiters)
            self._running += len(batch.waiters)

    def ended(self, batch: Batch, run_time: float, *, failed: int, cancelled: int) -> None:
        """Count a batch, or a part of one, that is over; ``failed`` of its callers had an error, ``cancelled`` left."""
        calls, size = len(batch.waiters), batch.size
        with self._lock:
            self._running -= calls
            self._items += size
            self._deduped += calls - size
            self._batches += 1
            self._room += batch.max_size
            self._answered += calls - failed - cancelled
            self._failed += failed
            self._cancelled += cancelled
            self._sizes[size] += 1
            self._reasons[batch.reason] += 1
            self._largest = max(self._largest, size)
            self._time(batch, run_time)

    def _time(self, batch: Batch, run_time: float) -> None:
        # Not below 0, where rounding may take a sum of large times.
        self._wait_total += max(0.0, len(batch.arrived) * batch.departed - sum(batch.arrived))
        self._wait_max = max(self._wait_max, batch.departed - min(batch.arrived))
        self._run_max = max(self._run_max, run_time)
        self._runs.append(run_time)
        self._run_total += run_time
        self._waits.append((batch.departed, batch.arrived))
        self._recent += len(batch.arrived)
        self._forget_old()

    def _forget_old(self) -> None:
        # Batches are dropped whole, so that a departure pays for no single item.
        while self._recent > RECENT and self._recent - len(self._waits[0][1]) >= RECENT:
            self._recent -= len(self._waits.popleft()[1])
        while len(self._runs) > RECENT:
            self._runs.popleft()

    def absorb(self, other: Stats) -> None:
        """Add what ``other`` has counted."""
        with other._lock, self._lock:
            for name in self.SUMS:
                total = getattr(self, name)
                # In place: what thousands of engines have added up to is not copied for each of them.
                total += getattr(other, name)
                setattr(self, name, total)
            for name in self.PEAKS:
                setattr(self, name, max(getattr(self, name), getattr(other, name)))
            self._gone -= other._arrivals()
            self._forget_old()

    def snapshot(self, name: str) -> BatchStats:
        """Return what has been counted, under the name of the batcher."""
        with self._lock:
            waits = [departed - arrived for departed, times in self._waits for arrived in times]
            return BatchStats(
                name=name,
                total_items=self._items,
                total_batches=self._batches,
                avg_batch_size=self._items / max(1, self._batches),
                avg_wait_time_ms=1000 * self._wait_total / max(1, self._items + self._deduped),
                max_batch_size_seen=self._largest,
                # Read last: items that arrive meanwhile are pending, and none is counted twice.
                pending=self._arrivals() - self._gone,
                running=self._running,
                answered_items=self._answered,
                failed_items=self._failed,
                cancelled_items=self._cancelled,
                expired_items=self._expired,
                isolation_runs=self._isolation,
                rejected_items=self._rejected,
                deduped_items=self._deduped,
                wait_ms=percentiles(waits, self._wait_max),
                run_ms=percentiles(list(self._runs), self._run_max),
                avg_run_time_ms=1000 * self._run_total / max(1, self._batches),
                size_histogram=dict(sorted(self._sizes.items())),
                reasons={reason: self._reasons[reason] for reason in REASONS},
                fill_ratio=self._items / max(1, self._room),
            )


def fold(parts: list[Stats], many: int = MANY) -> None:
    """Add up neighbours in ``parts`` that are final, when there are ``many``; but one thread at a time.

    It takes one step for all of them, so that who copies the list finds each call in it once; others may append.
    """
    if len(parts) < many or not _folding.acquire(blocking=False):
        return
    try:
        begin = 0
        while begin < len(parts):
            final = list(takewhile(lambda part: part.final, parts[begin:]))
            if len(final) > 1:
                parts[begin : begin + len(final)] = [_sum(final)]
            begin += 1
    finally:
        _folding.release()


def _sum(parts: list[Stats]) -> Stats:
    total = Stats()
    for part in parts:
        total.absorb(part)
    total.final = True
    return total


def together(name: str, parts: Iterable[Stats]) -> BatchStats:
    """Return one snapshot of several engines."""
    total = Stats()
    for part in parts:
        total.absorb(part)
    return total.snapshot(name)
