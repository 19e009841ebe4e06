"""The statistics of all batchers, added up by name, for exporters of counters.

Decides: how numbers outlive the batchers that counted them.
Must not know: where batchers are found, the format of any exporter.

A monitoring system takes a fall of a counter for a restart, and counts the whole value again. A plain sum over
batchers would fall whenever a batcher is dropped. So each reading adds the counts since the last reading to a total.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from batchify._stats.sums import Counts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from batchify._stats.counters import Stats


@dataclass(frozen=True)
class Total:
    """The statistics of one name: ``levels`` of the live batchers, ``counts`` of all since the start."""

    name: str
    levels: Counts
    counts: Counts


class Totals:
    """Adds up the counters of ``sources`` by name. Together, they count every call once. Any thread may read."""

    def __init__(self, sources: Callable[[], Iterable[tuple[str, Stats]]]) -> None:
        self._sources = sources
        self._reset_after_fork()

    def _reset_after_fork(self) -> None:
        """Start again at zero, with a new lock, because a thread of the parent may have held the old one."""
        # Guards the rest.
        self._lock = Lock()
        # The counts at the last reading.
        self._last: WeakKeyDictionary[Stats, Counts] = WeakKeyDictionary()
        self._counts: defaultdict[str, Counts] = defaultdict(Counts)

    def read(self) -> list[Total]:
        """Return the totals of all names since the start."""
        with self._lock:
            levels: defaultdict[str, Counts] = defaultdict(Counts)
            for name, counters in self._sources():
                counts = counters.all_counts()
                self._counts[name] += counts - self._last.get(counters, Counts())
                self._last[counters] = counts
                levels[name].update(counters.levels())
            return [Total(name, levels[name], Counts(counts)) for name, counts in self._counts.items()]
