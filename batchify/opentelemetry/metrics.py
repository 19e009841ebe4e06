"""Metrics for OpenTelemetry, read from the live batchers at each collection. They add no cost to a call.

Decides: names, units and attributes of the metrics, by the semantic conventions.
Must not know: engines, how totals outlive batchers.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from opentelemetry.metrics import Observation, get_meter

from batchify import __version__
from batchify._batcher.live import register_for_fork
from batchify._batcher.registry import sources
from batchify._stats.snapshot import CALL_OUTCOMES, REASONS
from batchify._stats.totals import Totals
from batchify.opentelemetry.tracing import NAME, REASON

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, MeterProvider

    from batchify._stats.totals import Total

# By key in the counts or levels of a total: the name, the unit and the description of a metric.
COUNTERS = {
    **{key: (f"batchify.item.{key.removesuffix('_items')}", "{item}", text) for key, text in CALL_OUTCOMES.items()},
    "total_items": ("batchify.item.batched", "{item}", "Items in batches that have ended."),
    "wait_time": ("batchify.item.wait_time", "s", "Time from the arrival of calls to the departure of their batches."),
    "run_time": ("batchify.batch.run_time", "s", "Run time of batches."),
    "total_batches": ("batchify.batch.ended", "{batch}", "Batches that have ended, by the reason of their departure."),
}
LEVELS = {
    "pending": ("batchify.item.pending", "{item}", "Calls that wait."),
    "running": ("batchify.item.running", "{item}", "Calls in batches that run."),
}


def instrument(meter_provider: MeterProvider | None = None) -> None:
    """Let ``meter_provider`` collect the metrics of all batchers of this process. Call it once for each provider.

    The batchers of one ``batchify.batcher.name``, such as the instances of a class, share a series.

    * Counters of calls (unit ``{item}``): ``batchify.item.answered``, ``batchify.item.failed``,
      ``batchify.item.cancelled`` (the caller left before the answer), ``batchify.item.expired`` (dropped at the
      deadline), ``batchify.item.rejected`` (the queue was full), ``batchify.item.deduped`` (shared an equal item);
      and ``batchify.item.padded`` (added to pad batches up to one of ``sizes``).
    * Counters of ended batches: ``batchify.batch.ended`` (unit ``{batch}``), with the reason of their departure as the
      attribute ``batchify.batch.reason``; ``batchify.item.batched`` (unit ``{item}``), their items.
    * Sums in seconds: ``batchify.item.wait_time``, from arrival to departure; ``batchify.batch.run_time``.
    * Levels (unit ``{item}``): ``batchify.item.pending`` and ``batchify.item.running``, calls that wait or run.

    No counter ever falls, not even after ``reset_stats()`` or when a batcher is dropped. A dropped function or engine
    loses its counts since the last collection; methods lose none while their class lives. Percentiles are missing,
    because OpenTelemetry has no histogram that is read at collection.

    Args:
        meter_provider: the provider; ``None`` is the global one, which may be set later.
    """
    meter = get_meter("batchify", __version__, meter_provider)
    reading = _Reading()
    for key, (name, unit, description) in COUNTERS.items():
        meter.create_observable_counter(name, [partial(reading.observe, key)], unit, description)
    for key, (name, unit, description) in LEVELS.items():
        meter.create_observable_up_down_counter(name, [partial(reading.observe, key)], unit, description)


class _Reading:
    """Reads all totals once for each collection, in which every metric calls ``observe()``."""

    def __init__(self) -> None:
        self._totals = Totals(sources)
        register_for_fork(self._totals)
        self._read: list[Total] = []
        # The keys observed since. The second observation of a key starts the next collection.
        self._observed: set[str] = set()

    def observe(self, key: str, _: CallbackOptions) -> list[Observation]:
        if key in self._observed or not self._observed:
            self._read = self._totals.read()
            self._observed = set()
        self._observed.add(key)
        return [observation for total in self._read for observation in _observations(key, total)]


def _observations(key: str, total: Total) -> list[Observation]:
    attributes = {NAME: total.name}
    if key == "total_batches":
        return [Observation(total.counts[reason], {**attributes, REASON: reason}) for reason in REASONS]
    return [Observation((total.levels if key in LEVELS else total.counts)[key], attributes)]
