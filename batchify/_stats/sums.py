"""The sums over the batches that ended, and the times of the newest ones.

Decides: what is counted for each batch, and for how many of the newest ones each time is kept.
Must not know: queues, locks, and calls that did not depart in a batch.

A ``Sums`` object never changes: adding batches returns a new one. So it is replaced in one step, and adding many
batches at once takes a fraction of the time of one step for each.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from dataclasses import dataclass, field
from itertools import islice
from operator import sub
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

N = TypeVar("N", int, float)

# Numbers by field of a snapshot, by reason of a departure, by size of a batch (an int), and by bucket of a time (a pair
# such as ``("run", 3)``). "capacity" is the sum of the ``max_size`` of all batches, "unanswered" counts the callers
# that left a running batch, "dropped" the calls that failed in the queue, and "wait_time", "run_time" and "slot_time"
# are sums in seconds. The numbers of the present are "pending", "running", "slots", and "room", the free places in the
# queues.
Counts: TypeAlias = Counter[Any]

# Percentiles cover this many of the newest items (wait times) and batches (run times).
RECENT = 10_000
# The upper bounds of the buckets of wait and run times, in seconds, with one more bucket above. They are the same for
# every batcher at any time, so that the buckets of several processes can be added.
BOUNDS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1),
    *(0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0),
)
# The number of values in the note of a batch: size, reason, maximum size, departure, number of calls, run time and slot
# time; and the numbers of failed calls, unanswered calls and padded items, or ``None`` if these are zero.
WIDTH = 8
# The index of the number of calls in a note.
CALLS = 4


@dataclass(frozen=True, eq=False)
class Sums:
    counts: Counts = field(default_factory=Counts)
    longest_wait: float = 0.0
    longest_run: float = 0.0
    # The departures, numbers of calls and run times of the newest batches, and the arrivals of the newest calls.
    departures: list[float] = field(default_factory=list[float])
    calls: list[int] = field(default_factory=list[int])
    runs: list[float] = field(default_factory=list[float])
    arrivals: list[float] = field(default_factory=list[float])

    def plus(self, batches: list[Any], arrivals: list[float]) -> Sums:
        """Return the sums with more batches, each as ``WIDTH`` values, and the arrivals of their calls in order."""
        columns = (batches[column::WIDTH] for column in range(WIDTH))
        sizes, reasons, max_sizes, departures, calls, runs, slot_times, exceptions = columns
        wait_time, longest_wait, wait_buckets = _wait_times(departures, calls, arrivals)
        times: Any = {"wait_time": wait_time, "run_time": sum(runs), "slot_time": sum(slot_times)}
        counts = Counts(self.counts)
        counts.update(times, deduped_items=sum(calls) - sum(sizes))
        for failed, unanswered, padded in filter(None, exceptions):
            counts.update(failed_items=failed, unanswered=unanswered, padded_items=padded)
        for (size, reason, max_size), count in Counter(zip(sizes, reasons, max_sizes, strict=True)).items():
            counts.update({"total_items": count * size, "total_batches": count, "capacity": count * max_size})
            counts.update({reason: count, size: count})
        for kind, buckets in ("wait", wait_buckets), ("run", _buckets(runs)):
            counts.update({(kind, bucket): count for bucket, count in enumerate(buckets) if count})
        return Sums(
            counts,
            max(self.longest_wait, longest_wait),
            max(self.longest_run, *runs),
            _newest(self.departures, departures),
            _newest(self.calls, calls),
            _newest(self.runs, runs),
            _newest(self.arrivals, arrivals),
        )

    def newest_waits(self) -> Iterator[float]:
        """Yield the wait times of the newest calls in seconds, newest first."""
        arrivals = reversed(self.arrivals)
        for departed, calls in zip(reversed(self.departures), reversed(self.calls), strict=True):
            for arrived in islice(arrivals, calls):
                yield departed - arrived


def _wait_times(departures: list[float], calls: list[int], arrivals: list[float]) -> tuple[float, float, list[int]]:
    """Return the sum and the maximum of the wait times, and the number of them in each bucket.

    It searches once for each bucket of a batch, mostly one or two, because a search for each call costs too much.
    """
    total = longest = 0.0
    buckets = [0] * (len(BOUNDS) + 1)
    first = 0
    for departed, count in zip(departures, calls, strict=True):
        wait, end = departed - arrivals[first], first + count
        if wait > longest:  # noqa: PLR1730  # max() takes three times as long
            longest = wait
        total += wait if count == 1 else count * departed - sum(arrivals[first:end])
        bucket = bisect_left(BOUNDS, wait)
        while first < end:
            # The first call that belongs to a lower bucket.
            split = bisect_left(arrivals, departed - BOUNDS[bucket - 1], first, end) if bucket else end
            buckets[bucket] += split - first
            first, bucket = split, bucket - 1
    return total, longest, buckets


def _newest(before: list[N], more: list[N]) -> list[N]:
    newest = before[max(0, len(before) + len(more) - RECENT) :]
    newest += more[-RECENT:]
    return newest


def _buckets(times: list[float]) -> list[int]:
    """Return the number of times in each bucket."""
    ordered = sorted(times)
    ends = [*(bisect_right(ordered, bound) for bound in BOUNDS), len(ordered)]
    return [*map(sub, ends, [0, *ends[:-1]])]


def batch_sizes(counts: Counts) -> dict[int, int]:
    return {size: counts[size] for size in sorted(key for key in counts if isinstance(key, int))}
