"""A snapshot of what a batcher has done, and which of its figures are shown under which label."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from math import ceil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batchify._stats.drawing import Figures

REASONS = ("full", "timeout", "idle", "slot", "weight", "deadline", "flush", "close")


@dataclass(frozen=True)
class Percentiles:
    """Percentiles of the newest 10,000 measurements, and the maximum of all of them, in milliseconds."""

    p50: float = 0.0
    p90: float = 0.0
    p99: float = 0.0
    max: float = 0.0


@dataclass(frozen=True)
class BatchStats:
    """A snapshot of what a batcher has done. Times are in milliseconds.

    Calls are always accounted for: ``pending + running + answered_items + failed_items + cancelled_items +
    expired_items`` is the number of calls made, at the moment of the snapshot.

    Attributes:
        name: the batcher's name.
        total_items: items of all batches that are over.
        total_batches: batches that are over.
        avg_batch_size: items in a batch, on average.
        avg_wait_time_ms: time from the arrival of an item to the departure of its batch, on average.
        avg_run_time_ms: run time of a batch, on average.
        max_batch_size_seen: the largest batch.
        pending: items that wait.
        running: items in batches that run.
        answered_items: calls that had a result.
        failed_items: calls that had an exception.
        cancelled_items: calls whose caller left before the answer.
        expired_items: calls that were dropped at their deadline.
        isolation_runs: runs of parts of batches that had failed, to isolate errors.
        rejected_items: calls that were refused because too many items waited; they do not count as calls made.
        deduped_items: calls that shared the item of an equal call.
        wait_ms: percentiles of the time from arrival to departure.
        run_ms: percentiles of the run time of a batch.
        size_histogram: the number of batches of each size.
        reasons: the number of batches by why they left: ``full``; ``timeout`` (the window had passed; with adaptive
            timing and several slots, the distance between departures); ``idle`` (nothing was running); ``slot`` (all
            slots were busy and a batch ended); ``weight``; ``deadline``; ``flush``; ``close``.
        fill_ratio: items in a batch as a share of ``max_size``, on average.
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
    wait_ms: Percentiles = field(default_factory=Percentiles)
    run_ms: Percentiles = field(default_factory=Percentiles)
    size_histogram: dict[int, int] = field(default_factory=dict[int, int])
    reasons: dict[str, int] = field(default_factory=lambda: dict.fromkeys(REASONS, 0))
    fill_ratio: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain dicts, strings and numbers, ready for JSON, whose keys are strings: sizes too."""
        plain = asdict(self)
        plain["size_histogram"] = {str(size): count for size, count in self.size_histogram.items()}
        return plain

    def __str__(self) -> str:
        from batchify._stats.drawing import as_text  # noqa: PLC0415  # only who looks pays for the drawing

        return as_text(_figures(self))

    def _repr_html_(self) -> str:
        from batchify._stats.drawing import as_html  # noqa: PLC0415  # as above

        return as_html(_figures(self))


def percentiles(measured: list[float], highest: float) -> Percentiles:
    """Return nearest-rank percentiles of ``measured`` seconds, in milliseconds."""
    if not measured:
        return Percentiles()
    measured.sort()
    ranks = (measured[ceil(share * len(measured)) - 1] for share in (0.50, 0.90, 0.99))
    return Percentiles(*(1000 * value for value in (*ranks, highest)))


def _figures(stats: BatchStats) -> Figures:
    from batchify._stats.drawing import Figures  # noqa: PLC0415  # as above

    exceptional = {
        "failed": stats.failed_items,
        "cancelled": stats.cancelled_items,
        "expired": stats.expired_items,
        "rejected": stats.rejected_items,
        "deduped": stats.deduped_items,
        "isolation runs": stats.isolation_runs,
    }
    calls = {"pending": stats.pending, "running": stats.running, **{k: n for k, n in exceptional.items() if n}}
    return Figures(
        title=stats.name,
        totals={
            "items": f"{stats.total_items:,}",
            "batches": f"{stats.total_batches:,}",
            "avg size": f"{stats.avg_batch_size:,.2f}",
            "fill ratio": f"{stats.fill_ratio:.1%}",
        },
        calls={label: f"{number:,}" for label, number in calls.items()},
        reasons={reason: number for reason, number in Counter(stats.reasons).most_common() if number},
        sizes=stats.size_histogram,
        wait=asdict(stats.wait_ms),
        run=asdict(stats.run_ms),
    )
