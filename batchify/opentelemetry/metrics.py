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

BATCHES = "batchify.batch.ended"
# The unit and the description of each metric.
COUNTERS = {
    **{f"batchify.item.{field.removesuffix('_items')}": ("{item}", text) for field, text in CALL_OUTCOMES.items()},
    "batchify.item.batched": ("{item}", "Items in batches that have ended."),
    "batchify.item.wait_time": ("s", "Time from the arrival of calls to the departure of their batches."),
    "batchify.batch.run_time": ("s", "Run time of batches."),
    BATCHES: ("{batch}", "Batches that have ended, by the reason of their departure."),
}
LEVELS = {
    "batchify.item.pending": ("{item}", "Calls that wait."),
    "batchify.item.running": ("{item}", "Calls in batches that run."),
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
    for name, (unit, description) in COUNTERS.items():
        meter.create_observable_counter(name, [partial(reading.observe, name)], unit, description)
    for name, (unit, description) in LEVELS.items():
        meter.create_observable_up_down_counter(name, [partial(reading.observe, name)], unit, description)


class _Reading:
    """Reads all totals once for each collection, in which every metric calls ``observe()``."""

    def __init__(self) -> None:
        self._totals = Totals(sources)
        register_for_fork(self._totals)
        self._read: list[Total] = []
        # The metrics observed since. The second observation of a metric starts the next collection.
        self._observed: set[str] = set()

    def observe(self, name: str, _: CallbackOptions) -> list[Observation]:
        if name in self._observed or not self._observed:
            self._read = self._totals.read()
            self._observed = set()
        self._observed.add(name)
        return [observation for total in self._read for observation in _observations(name, total)]


def _observations(name: str, total: Total) -> list[Observation]:
    attributes = {NAME: total.name}
    if name == BATCHES:
        return [Observation(total.counts[reason], {**attributes, REASON: reason}) for reason in REASONS]
    return [Observation(_values(total)[name], attributes)]


def _values(total: Total) -> dict[str, float]:
    # The metrics that have one value for each batcher.
    return {
        **{f"batchify.item.{field.removesuffix('_items')}": total.counts[field] for field in CALL_OUTCOMES},
        "batchify.item.batched": total.counts["total_items"],
        "batchify.item.wait_time": total.counts["wait_time"],
        "batchify.batch.run_time": total.counts["run_time"],
        "batchify.item.pending": total.levels["pending"],
        "batchify.item.running": total.levels["running"],
    }
