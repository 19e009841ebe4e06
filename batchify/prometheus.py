"""Metrics for Prometheus, read from the live batchers when it scrapes; calls pay nothing for them.

Decides: names, types and labels of the metrics.
Must not know: engines, how totals outlive batchers.

It needs the package ``prometheus-client``, which the extra ``prometheus`` brings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, SummaryMetricFamily
from prometheus_client.registry import Collector

from batchify._stats.snapshot import REASONS
from batchify._stats.totals import CALL_OUTCOMES, Totals

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client import Metric

    from batchify._stats.snapshot import Percentiles
    from batchify._stats.totals import Total

# Powers of two. They are the same for every batcher and at any time: buckets that come and go make nonsense of rates.
BUCKETS = [2**power for power in range(13)]


class BatchCollector(Collector):
    """Collects the metrics of all batchers of this process: ``REGISTRY.register(BatchCollector())``.

    Each metric has the label ``batcher``, the name of the function or the engine. All of one name are one series: the
    instances of a class, the event loops of a function, also different functions with the same ``name``.

    No counter ever falls: ``reset_stats()`` makes none fall, and what a batcher has counted stays when it is gone. For
    methods that is exact, however short their instances live, as long as the class lives. Of functions and engines that
    are dropped, what they did since the last scrape is lost.

    Quantiles are those of the newest 10,000 measurements.

    Several processes must be scraped one by one: what ``prometheus_client`` calls multiprocess mode leaves out all
    metrics that are collected like these.
    """

    def __init__(self) -> None:
        self._totals = Totals()

    def describe(self) -> list[Metric]:
        """Return the metrics without a value, so that a registry knows their names and refuses a second collector."""
        return _metrics([])

    def collect(self) -> list[Metric]:
        """Return the metrics of this moment."""
        return _metrics(self._totals.read())


def _metrics(totals: Iterable[Total]) -> list[Metric]:
    labels = ["batcher"]
    counters = {
        name: CounterMetricFamily(f"batchify_{name}", documentation, labels=labels)
        for name, documentation in CALL_OUTCOMES.items()
    }
    batches = CounterMetricFamily(
        "batchify_batches", "Batches that are over, by why they left.", labels=[*labels, "reason"]
    )
    pending = GaugeMetricFamily("batchify_pending_items", "Items that wait.", labels=labels)
    running = GaugeMetricFamily("batchify_running_items", "Items in batches that run.", labels=labels)
    sizes = HistogramMetricFamily("batchify_batch_items", "Items in a batch.", labels=labels)
    waits = _summary("wait", "Time from the arrival of an item to the departure of its batch.")
    runs = _summary("run", "Run time of a batch.")
    for total in totals:
        present = total.present
        name = present.name
        for field, counter in counters.items():
            counter.add_metric([name], total.counts[field])
        for reason in REASONS:
            batches.add_metric([name, reason], total.reasons[reason])
        pending.add_metric([name], present.pending)
        running.add_metric([name], present.running)
        sizes.add_metric([name], _buckets(total), total.items)
        waits.add_metric([name], total.waits, total.wait_ns / 1e9)
        runs.add_metric([name], total.batches, total.run_ns / 1e9)
        if present.total_batches:
            # Where nothing was measured there is no quantile, and 0 would be a lie.
            _add_quantiles(waits, name, present.wait_ms)
            _add_quantiles(runs, name, present.run_ms)
    return [*counters.values(), batches, pending, running, sizes, waits, runs]


def _summary(what: str, documentation: str) -> SummaryMetricFamily:
    return SummaryMetricFamily(f"batchify_{what}", documentation, labels=["batcher"], unit="seconds")


def _buckets(total: Total) -> list[tuple[str, float]]:
    """Return how many batches have at most so many items."""
    up_to = [(str(float(most)), sum(total.sizes[size] for size in total.sizes if size <= most)) for most in BUCKETS]
    return [*up_to, ("+Inf", total.batches)]


def _add_quantiles(summary: SummaryMetricFamily, name: str, ms: Percentiles) -> None:
    for quantile, value in ("0.5", ms.p50), ("0.9", ms.p90), ("0.99", ms.p99):
        summary.add_sample(summary.name, {"batcher": name, "quantile": quantile}, value / 1e3)
