"""Metrics for Prometheus, read from the live batchers at each scrape. They add no cost to a call.

Decides: names, types and labels of the metrics.
Must not know: engines, how totals outlive batchers.

The extra ``prometheus`` installs the package ``prometheus-client``, which this module needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, SummaryMetricFamily
from prometheus_client.registry import Collector

from batchify._batcher.live import register_for_fork
from batchify._batcher.registry import sources
from batchify._stats.counters import batch_sizes
from batchify._stats.snapshot import CALL_OUTCOMES, REASONS
from batchify._stats.totals import Totals

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client import Metric

    from batchify._stats.counters import Counts
    from batchify._stats.snapshot import Percentiles
    from batchify._stats.totals import Total

# Powers of two, the same for every batcher at any time, because a rate over changing buckets is meaningless.
BUCKETS = [2**power for power in range(13)]


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
    * ``batchify_batch_items``: a histogram of the number of items in a batch.
    * ``batchify_wait_seconds``: a summary of the time from the arrival of a call to the departure of its batch.
    * ``batchify_run_seconds``: a summary of the run time of a batch. Quantiles cover the newest 10,000 measurements.

    No counter ever falls, not even after ``reset_stats()`` or when a batcher is dropped. A function or engine that is
    dropped loses its counts since the last scrape. Methods lose none while their class lives. Scrape each process
    separately: the multiprocess mode of ``prometheus_client`` omits custom collectors.
    """

    def __init__(self) -> None:
        self._totals = Totals(sources)
        register_for_fork(self._totals)

    def describe(self) -> list[Metric]:
        """Return the metrics without values. From their names, a registry detects a second collector."""
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
    sizes = HistogramMetricFamily("batchify_batch_items", "Number of items in a batch.", labels=labels)
    waits = _summary("wait", "Time from the arrival of a call to the departure of its batch.")
    runs = _summary("run", "Run time of a batch.")
    for total in totals:
        present, counts = total.present, total.counts
        name = present.name
        for field, counter in counters.items():
            counter.add_metric([name], counts[field])
        for reason in REASONS:
            batches.add_metric([name, reason], counts[reason])
        pending.add_metric([name], present.pending)
        running.add_metric([name], present.running)
        sizes.add_metric([name], _buckets(counts), counts["total_items"])
        waits.add_metric([name], counts["total_items"] + counts["deduped_items"], counts["wait_time"])
        runs.add_metric([name], counts["total_batches"], counts["run_time"])
        if present.total_batches:
            # Without a measurement there is no quantile, and 0 would be wrong.
            _add_quantiles(waits, name, present.wait_ms)
            _add_quantiles(runs, name, present.run_ms)
    return [*counters.values(), batches, pending, running, sizes, waits, runs]


def _summary(name: str, documentation: str) -> SummaryMetricFamily:
    return SummaryMetricFamily(f"batchify_{name}", documentation, labels=["batcher"], unit="seconds")


def _buckets(counts: Counts) -> list[tuple[str, float]]:
    sizes = batch_sizes(counts)
    up_to = [(str(float(most)), sum(sizes[size] for size in sizes if size <= most)) for most in BUCKETS]
    return [*up_to, ("+Inf", counts["total_batches"])]


def _add_quantiles(summary: SummaryMetricFamily, name: str, ms: Percentiles) -> None:
    for quantile, value in ("0.5", ms.p50), ("0.9", ms.p90), ("0.99", ms.p99):
        summary.add_sample(summary.name, {"batcher": name, "quantile": quantile}, value / 1e3)
