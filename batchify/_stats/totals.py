"""The statistics of all batchers, added up by name, for exporters of counters.

Decides: how numbers outlive the batchers that counted them.
Must not know: where batchers are found, the format of any exporter.

A reader of an exported counter takes a fall for a restart of the process and counts the whole value again. A plain sum
over batchers would fall whenever one of them is gone. So each reading adds to a total what was counted since the last.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Protocol
from weakref import WeakKeyDictionary

from batchify._stats.counters import Counts, snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from batchify._stats.counters import Stats
    from batchify._stats.snapshot import BatchStats

# The ends of a call, by field of a snapshot.
CALL_OUTCOMES = {
    "answered_items": "Calls that returned a result.",
    "failed_items": "Calls that raised an exception.",
    "cancelled_items": "Calls whose caller left before the answer.",
    "expired_items": "Calls that were dropped at their deadline.",
    "rejected_items": "Calls that were refused because the queue was full.",
    "deduped_items": "Calls that shared the item of an equal call.",
}


class Source(Protocol):
    """A batcher, as far as its statistics are concerned."""

    @property
    def name(self) -> str: ...
    @property
    def _counters(self) -> Stats: ...


@dataclass(frozen=True)
class Total:
    """The statistics of all batchers of one name, also of those that are gone.

    Attributes:
        present: a snapshot of the live batchers, for numbers that may fall: waiting and running calls, percentiles.
        counts: everything that was ever counted. It never falls.
    """

    present: BatchStats
    counts: Counts


class Totals:
    """Adds up the statistics of batchers, for one exporter. Any thread may read.

    Args:
        sources: returns the batchers whose counters together count every call once.
    """

    def __init__(self, sources: Callable[[], Iterable[Source]]) -> None:
        self._sources = sources
        self._reset_after_fork()

    def _reset_after_fork(self) -> None:
        """Start again at zero, with a lock of its own: another thread of the parent may have held the old one."""
        # Guards the rest.
        self._lock = Lock()
        # What the counters had counted when they were last read.
        self._last: WeakKeyDictionary[Stats, Counts] = WeakKeyDictionary()
        self._counts: defaultdict[str, Counts] = defaultdict(Counts)

    def read(self) -> list[Total]:
        """Return the totals of all names that were ever seen."""
        with self._lock:
            live: defaultdict[str, list[Stats]] = defaultdict(list)
            for source in self._sources():
                name, counters = source.name, source._counters
                counts = counters.all_counts()
                self._counts[name] += counts - self._last.get(counters, Counts())
                self._last[counters] = counts
                live[name].append(counters)
            return [Total(snapshot(name, live[name]), Counts(counts)) for name, counts in self._counts.items()]
