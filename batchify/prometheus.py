"""Metrics for Prometheus, read from the live batchers at each scrape. They add no cost to a call.

Decides: names, types and labels of the metrics.
Must not know: engines, how totals outlive batchers.

The extra ``prometheus`` installs the package ``prometheus-client``, which this module needs.
"""

from __future__ import annotations

import logging
import os
from bisect import bisect_left
from itertools import accumulate
from math import isfinite
from typing import TYPE_CHECKING

from batchify._batcher.live import register_for_fork
from batchify._batcher.registry import sources
from batchify._stats.snapshot import CALL_OUTCOMES, REASONS
from batchify._stats.sums import BOUNDS, batch_sizes
from batchify._stats.totals import Totals
from batchify.errors import needs

try:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
    from prometheus_client.registry import Collector
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(needs(__name__, "prometheus-client", "prometheus")) from error

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from prometheus_client import Metric

    from batchify._stats.sums import Counts
    from batchify._stats.totals import Total

# Powers of two, the same for every batcher at any time, so that the buckets of several processes can be added.
SIZES = [2**power for power in range(13)]

log = logging.getLogger("batchify")


class BatchCollector(Collector):
    """Collects the metrics of all batchers of this process: ``REGISTRY.register(BatchCollector())``.

    Each metric has the label ``batcher``, the name of the function or the engine. Batchers of one name share a
    series, such as the instances of a class.

    * Counters of calls: ``batchify_answered_items`` (returned a result), ``batchify_failed_items`` (raised an
      exception), ``batchify_cancelled_items`` (the caller left before the answer), ``batchify_expired_items`` (dropped
      at the deadline), ``batchify_rejected_items`` (refused because the queue was full), ``batchify_deduped_items``
      (shared the item of an equal call); and ``batchify_padded_items`` (added to pad batches up to one of ``sizes``).
    * ``batchify_batches``: a counter of batches that have ended, with the ``reason`` of their departure as a label.
    * ``batchify_pending_items`` and ``batchify_running_items``: gauges of calls that wait, and of calls that run.
    * ``batchify_room_items``: a gauge of the calls that the queue takes before it is full, if ``max_pending`` is set.
    * ``batchify_slots``: a gauge of the number of batches that can run at once.
    * ``batchify_batch_items``: a histogram of the number of items in a batch.
    * ``batchify_wait_seconds``: a histogram of the time from the arrival of a call to the departure of its batch.
    * ``batchify_run_seconds``: a histogram of the run time of a batch. The rate of its sum, divided by
      ``batchify_slots``, is the utilization: the share of slot time in which batches ran.

    The buckets are fixed, so the histograms of several processes can be added. No counter ever falls, not even after
    ``reset_stats()`` or when a batcher is dropped. A function or engine that is dropped loses its counts since the last
    scrape. Methods lose none while their class lives.

    Scrape each process separately: the multiprocess mode of ``prometheus_client`` omits these metrics, and a warning in
    the log says so.
    """

    def __init__(self) -> None:
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            log.warning(
                "PROMETHEUS_MULTIPROC_DIR is set, but the multiprocess mode of prometheus_client omits the metrics of "
                "batchify, which are read when they are scraped; give each process a port of its own for its metrics"
            )
        self._totals = Totals(sources)
        register_for_fork(self._totals)

    def describe(self) -> list[Metric]:
        """Return the metrics without values; their names let a registry detect a second collector."""
        return _metrics([])

    def collect(self) -> list[Metric]:
        return _metrics(self._totals.read())


def _metrics(totals: Iterable[Total]) -> list[Metric]:
    labels = ["batcher"]
    counters = {
        field: CounterMetricFamily(f"batchify_{field}", documentation, labels=labels)
        for field, documentation in CALL_OUTCOMES.items()
    }
    batches = CounterMetricFamily(
        "batchify_batches", "Batches that have ended, by the reason of their departure.", labels=[*labels, "reason"]
    )
    pending = GaugeMetricFamily("batchify_pending_items", "Calls that wait.", labels=labels)
    running = GaugeMetricFamily("batchify_running_items", "Calls in batches that run.", labels=labels)
    room = GaugeMetricFamily("batchify_room_items", "Calls that the queue takes before it is full.", labels=labels)
    slots = GaugeMetricFamily("batchify_slots", "Number of batches that can run at once.", labels=labels)
    sizes = HistogramMetricFamily("batchify_batch_items", "Number of items in a batch.", labels=labels)
    waits = HistogramMetricFamily(
        "batchify_wait", "Time from the arrival of a call to the departure of its batch.", labels=labels, unit="seconds"
    )
    runs = HistogramMetricFamily("batchify_run", "Run time of a batch.", labels=labels, unit="seconds")
    for total in totals:
        name, levels, counts = total.name, total.levels, total.counts
        for field, counter in counters.items():
            counter.add_metric([name], counts[field])
        for reason in REASONS:
            batches.add_metric([name, reason], counts[reason])
        pending.add_metric([name], levels["pending"])
        running.add_metric([name], levels["running"])
        if isfinite(levels["room"]):
            room.add_metric([name], levels["room"])
        slots.add_metric([name], levels["slots"])
        sizes.add_metric([name], _up_to(SIZES, _by_size(counts)), counts["total_items"])
        for kind, times in ("wait", waits), ("run", runs):
            measured = [counts[kind, bucket] for bucket in range(len(BOUNDS) + 1)]
            times.add_metric([name], _up_to(BOUNDS, measured), counts[f"{kind}_time"])
    return [*counters.values(), batches, pending, running, room, slots, sizes, waits, runs]


def _by_size(counts: Counts) -> list[int]:
    batches = [0] * (len(SIZES) + 1)
    for size, count in batch_sizes(counts).items():
        batches[bisect_left(SIZES, size)] += count
    return batches


def _up_to(bounds: Sequence[float], measured: list[int]) -> list[tuple[str, float]]:
    """Return the label of each bucket and the sum of the buckets up to it, as the format needs them."""
    return [*zip([*map(str, map(float, bounds)), "+Inf"], accumulate(measured), strict=True)]
