"""What batchers did, added up by name, for those who export it as counters.

Decides: how numbers outlive the batchers that counted them.
Must not know: engines, and the format of any exporter.

Whoever reads an exported counter takes a fall of it for a restart, and counts its whole value once more. A plain sum
over batchers would fall whenever one of them is gone or starts over. Therefore what is added up is how far each has
come since it was last read, and a total never falls.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from batchify._batcher.registry import counting, register_reader
from batchify._stats.counters import together
from batchify._stats.snapshot import BatchStats

if TYPE_CHECKING:
    from batchify._batcher.registry import Counting
    from batchify._stats.counters import Stats

# What may become of a call, by field of a snapshot.
CALL_OUTCOMES = {
    "answered_items": "Calls that had a result.",
    "failed_items": "Calls that had an exception.",
    "cancelled_items": "Calls whose caller left before the answer.",
    "expired_items": "Calls that were dropped at their deadline.",
    "rejected_items": "Calls that were refused because too many items waited.",
    "deduped_items": "Calls that shared the item of an equal call.",
}
# Fields that only grow, until they are reset.
COUNTS = (*CALL_OUTCOMES, "total_items")


@dataclass(frozen=True)
class Total:
    """What all batchers of one name have done, those that are gone included.

    Attributes:
        present: what those that live are at, and their percentiles.
        counts: the counts of a snapshot, by field.
        reasons: the number of batches by why they left.
        sizes: the number of batches of each size.
        wait_ns: the time that calls have waited, in nanoseconds: a sum of floats may fall, if only by a rounding error.
        run_ns: the time that batches have run, likewise.
    """

    present: BatchStats
    counts: Counter[str] = field(default_factory=Counter[str])
    reasons: Counter[str] = field(default_factory=Counter[str])
    sizes: Counter[int] = field(default_factory=Counter[int])
    wait_ns: int = 0
    run_ns: int = 0

    @property
    def batches(self) -> int:
        """How many batches are over."""
        return self.sizes.total()

    @property
    def items(self) -> int:
        """How many items these batches had."""
        return self.counts["total_items"]

    @property
    def waits(self) -> int:
        """How many calls have waited: those that shared an item too."""
        return self.items + self.counts["deduped_items"]

    def advanced(self, before: BatchStats, after: BatchStats) -> Total:
        """Return this total with what one batcher has counted between two snapshots."""
        # A difference of counters has nothing below 0.
        return replace(
            self,
            counts=self.counts + (_counts(after) - _counts(before)),
            reasons=self.reasons + (Counter(after.reasons) - Counter(before.reasons)),
            sizes=self.sizes + (Counter(after.size_histogram) - Counter(before.size_histogram)),
            wait_ns=self.wait_ns + max(0, _wait_ns(after) - _wait_ns(before)),
            run_ns=self.run_ns + max(0, _run_ns(after) - _run_ns(before)),
        )


class Totals:
    """Adds up what batchers do, for one reader. Any thread may read."""

    def __init__(self) -> None:
        register_reader(self)
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        """Begin from nothing. The child of a fork needs it: somebody may have been reading."""
        # Guards all that follows.
        self._lock = Lock()
        self._last: WeakKeyDictionary[Counting, BatchStats] = WeakKeyDictionary()
        self._totals: dict[str, Total] = {}

    def read(self) -> list[Total]:
        """Return the totals of all names that were ever seen."""
        with self._lock:
            live: defaultdict[str, list[tuple[BatchStats, list[Stats]]]] = defaultdict(list)
            for source in counting():
                parts = source._parts()
                now = together(source.name, parts)
                self._add(source, now)
                live[now.name].append((now, parts))
            return [replace(total, present=_present(name, live[name])) for name, total in self._totals.items()]

    def _add(self, source: Counting, now: BatchStats) -> None:
        nothing = BatchStats(now.name)
        last = self._last.get(source, nothing)
        if now.total_batches < last.total_batches:
            # It has been reset, or is that of a child after a fork.
            last = nothing
        self._totals[now.name] = self._totals.get(now.name, Total(nothing)).advanced(last, now)
        self._last[source] = now


def _present(name: str, live: list[tuple[BatchStats, list[Stats]]]) -> BatchStats:
    """Return one snapshot of several, each with the counters that it is made of."""
    # Percentiles have to be taken anew, unless there is only one.
    return live[0][0] if len(live) == 1 else together(name, [part for _, parts in live for part in parts])


def _counts(stats: BatchStats) -> Counter[str]:
    return Counter({name: getattr(stats, name) for name in COUNTS})


def _wait_ns(stats: BatchStats) -> int:
    return round(1e6 * stats.avg_wait_time_ms * (stats.total_items + stats.deduped_items))


def _run_ns(stats: BatchStats) -> int:
    return round(1e6 * stats.avg_run_time_ms * stats.total_batches)
