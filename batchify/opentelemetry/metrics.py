"""Metrics for OpenTelemetry, read from the live batchers at each collection. They add no cost to a call.

Decides: names, units and attributes of the metrics, by the semantic conventions.
Must not know: engines, how totals outlive batchers.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from opentelemetry.metrics import Observation, get_meter

from batchify import __version__
from batchify._batcher.registry import register_for_fork, sources
from batchify._stats.snapshot import REASONS
from batchify._stats.totals import CALL_OUTCOMES, Totals
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

    Each metric has the attribute ``batchify.batcher.name``. All batchers of one name share a series: the instances of a
    class, the event loops of a function, and different functions with the same ``name``.

    * Counters of calls (unit ``{item}``): ``batchify.item.answered`` (returned a result), ``batchify.item.failed``
      (raised an exception), ``batchify.item.cancelled`` (the caller left before the answer), ``batchify.item.expired``
      (dropped at the deadline), ``batchify.item.rejected`` (refused because the queue was full),
      ``batchify.item.deduped`` (shared the item of an equal call).
    * Counters of batches that have ended: ``batchify.batch.ended`` (unit ``{batch}``) with the attribute
      ``batchify.batch.reason``, why they departed; ``batchify.item.batched`` (unit ``{item}``), the items in them.
    * Counters of time in seconds: ``batchify.item.wait_time``, the sum over all calls from arrival to departure, and
      ``batchify.batch.run_time``, the sum over all batches.
    * Levels (unit ``{item}``): ``batchify.item.pending``, calls that wait; ``batchify.item.running``, calls in running
      batches.

    No counter ever falls or loses a count by ``reset_stats()``, and the counts of a batcher stay when it is gone. They
    are exact for methods, however short their instances live, as long as the class lives. A function or engine that is
    dropped loses the counts since the last collection.

    Averages are ratios of counters: ``batchify.item.batched`` to ``batchify.batch.ended`` is the mean size of a batch.
    There are no percentiles, because OpenTelemetry has no histogram that is read at collection.

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
    """Reads all totals once for each collection, in which every instrument asks for its own value."""

    def __init__(self) -> None:
        self._totals = Totals(sources)
        register_for_fork(self._totals)
        self._read: list[Total] = []
        # The metrics asked for since. A metric that is asked for again belongs to the next collection.
        self._asked: set[str] = set()

    def observe(self, name: str, _: CallbackOptions) -> list[Observation]:
        """Return the values of one metric, for all batchers."""
        if name in self._asked or not self._asked:
            self._read = self._totals.read()
            self._asked = set()
        self._asked.add(name)
        return [observation for total in self._read for observation in _observations(name, total)]


def _observations(name: str, total: Total) -> list[Observation]:
    attributes = {NAME: total.present.name}
    if name == BATCHES:
        return [Observation(total.counts[reason], {**attributes, REASON: reason}) for reason in REASONS]
    return [Observation(_values(total)[name], attributes)]


def _values(total: Total) -> dict[str, float]:
    """Return the values of all metrics with one value for each batcher."""
    return {
        **{f"batchify.item.{field.removesuffix('_items')}": total.counts[field] for field in CALL_OUTCOMES},
        "batchify.item.batched": total.counts["total_items"],
        "batchify.item.wait_time": total.counts["wait_time"],
        "batchify.batch.run_time": total.counts["run_time"],
        "batchify.item.pending": total.present.pending,
        "batchify.item.running": total.present.running,
    }
