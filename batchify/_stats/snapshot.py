"""A snapshot of the statistics of a batcher, and the label of each figure in drawings."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from math import ceil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batchify._stats.drawing import Figures

REASONS = ("full", "timeout", "idle", "slot", "weight", "deadline", "flush", "close")
# Fields that count calls, and one that counts padding, with descriptions for exporters.
CALL_OUTCOMES = {
    "answered_items": "Calls that returned a result.",
    "failed_items": "Calls that raised an exception.",
    "cancelled_items": "Calls whose caller left before the answer.",
    "expired_items": "Calls that were dropped at their deadline.",
    "rejected_items": "Calls that were refused because the queue was full.",
    "deduped_items": "Calls that shared the item of an equal call.",
    "padded_items": "Items that were added to pad batches up to one of the sizes.",
}


@dataclass(frozen=True)
class Percentiles:
    """Nearest-rank percentiles of the newest 10,000 measurements, in milliseconds; all are 0 without a measurement.

    Attributes:
        p50: the median: half of the measurements are at most this.
        p90: 90 % of the measurements are at most this.
        p99: 99 % of the measurements are at most this.
        max: the highest measurement since the last reset of the counters.
    """

    p50: float = 0.0
    p90: float = 0.0
    p99: float = 0.0
    max: float = 0.0


@dataclass(frozen=True)
class BatchStats:
    """A snapshot of the statistics of a batcher.

    A call is one item of one caller. At any moment, ``pending + running + answered_items + failed_items +
    cancelled_items + expired_items`` is the number of calls made. ``reset_stats()`` sets all fields except ``pending``
    and ``running`` to 0.

    Attributes:
        name: the name of the batcher.
        total_items: items in all batches that have ended; calls that share an item count once.
        total_batches: batches that have ended.
        avg_batch_size: mean number of items in a batch.
        avg_wait_time_ms: mean time from the arrival of a call to the departure of its batch, in milliseconds.
        avg_run_time_ms: mean run time of a batch, in milliseconds.
        max_batch_size_seen: number of items in the largest batch.
        pending: calls that wait.
        running: calls in batches that run.
        answered_items: calls that returned a result.
        failed_items: calls that raised an exception.
        cancelled_items: calls whose caller left before the answer.
        expired_items: calls that were dropped at their deadline.
        isolation_runs: runs of the halves of failed batches (``isolate_errors``); each half also counts as a batch.
        rejected_items: calls that were refused because the queue was full; they do not count as calls made.
        deduped_items: calls that shared the item of an equal call.
        padded_items: items that were added to pad batches up to one of ``sizes``; no other field counts them.
        wait_ms: percentiles of the time from the arrival of a call to the departure of its batch, in milliseconds.
        run_ms: percentiles of the run time of a batch, in milliseconds.
        size_histogram: the number of batches of each size, smallest size first.
        reasons: the number of batches by the reason of their departure: ``full``; ``timeout`` (the window had passed,
            or the distance between departures of adaptive timing); ``idle`` (no batch was running); ``slot`` (all slots
            were busy and a batch ended); ``weight`` (``max_weight`` was reached); ``deadline`` (a deadline was near);
            ``flush``; ``close``.
        fill_ratio: ``total_items`` as a share of the items that would have filled these batches to ``max_size``.
        utilization: the share of slot time in which batches ran, from the first call to the end of the last batch.
            Each second has ``concurrency`` seconds of slot time.
    """

    name: str
    total_items: int = 0
    total_batches: int = 0
    avg_batch_size: float = 0.0
    avg_wait_time_ms: float = 0.0
    avg_run_time_ms: float = 0.0
    max_batch_size_seen: int = 0
    pending: int = 0
    running: int = 0
    answered_items: int = 0
    failed_items: int = 0
    cancelled_items: int = 0
    expired_items: int = 0
    isolation_runs: int = 0
    rejected_items: int = 0
    deduped_items: int = 0
    padded_items: int = 0
    wait_ms: Percentiles = field(default_factory=Percentiles)
    run_ms: Percentiles = field(default_factory=Percentiles)
    size_histogram: dict[int, int] = field(default_factory=dict[int, int])
    reasons: dict[str, int] = field(default_factory=lambda: dict.fromkeys(REASONS, 0))
    fill_ratio: float = 0.0
    utilization: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as plain dicts, strings and numbers, ready for JSON. Batch sizes become strings."""
        return asdict(self) | {"size_histogram": {str(size): count for size, count in self.size_histogram.items()}}

    def __str__(self) -> str:
        return _figures(self).as_text()

    def _repr_html_(self) -> str:
        return _figures(self).as_html()


def percentiles(measured: list[float], highest: float) -> Percentiles:
    """Sort ``measured``, in seconds, and return its percentiles, in milliseconds."""
    if not measured:
        return Percentiles()
    measured.sort()
    ranks = (measured[ceil(share * len(measured)) - 1] for share in (0.50, 0.90, 0.99))
    return Percentiles(*(1000 * value for value in (*ranks, highest)))


def _figures(stats: BatchStats) -> Figures:
    from batchify._stats.drawing import Figures  # noqa: PLC0415  # only a drawn snapshot pays for the import

    calls = {"pending": stats.pending, "running": stats.running}
    for name in (*CALL_OUTCOMES, "isolation_runs"):
        # The other counts are shown only if they are not zero.
        if name != "answered_items" and (number := getattr(stats, name)):
            calls[name.partition("_")[0]] = number
    return Figures(
        title=stats.name,
        totals={
            "items": f"{stats.total_items:,}",
            "batches": f"{stats.total_batches:,}",
            "avg size": f"{stats.avg_batch_size:,.2f}",
            "fill ratio": f"{stats.fill_ratio:.1%}",
            "utilization": f"{stats.utilization:.1%}",
        },
        calls={label: f"{number:,}" for label, number in calls.items()},
        reasons={reason: number for reason, number in Counter(stats.reasons).most_common() if number},
        sizes=stats.size_histogram,
        wait=asdict(stats.wait_ms),
        run=asdict(stats.run_ms),
    )
