"""Metrics for OpenTelemetry, read from the live batchers when they are collected; calls pay nothing for them.

Decides: names, units and attributes of the metrics, by the semantic conventions.
Must not know: engines, how totals outlive batchers.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from opentelemetry.metrics import Observation, get_meter

from batchify import __version__
from batchify._stats.snapshot import REASONS
from batchify._stats.totals import CALL_OUTCOMES, Totals
from batchify.opentelemetry.tracing import NAME, REASON

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, MeterProvider

    from batchify._stats.totals import Total

BATCHES = "batchify.batch.ended"
# The unit and the description of each metric.
COUNTERS = {
    **{f"batchify.item.{field.removesuffix('_items')}": ("{item}", said) for field, said in CALL_OUTCOMES.items()},
    "batchify.item.batched": ("{item}", "Items of batches that are over."),
    "batchify.item.wait_time": ("s", "Time from the arrival of items to the departure of their batches."),
    "batchify.batch.run_time": ("s", "Run time of batches."),
    BATCHES: ("{batch}", "Batches that are over, by why they left."),
}
LEVELS = {
    "batchify.item.pending": ("{item}", "Items that wait."),
    "batchify.item.running": ("{item}", "Items in batches that run."),
}


def instrument(meter_provider: MeterProvider | None = None) -> None:
    """Let ``meter_provider`` collect the metrics of all batchers of this process. To be called once for each provider.

    Each metric has the attribute ``batchify.batcher.name``; all batchers of one name are one series: the instances of a
    class, the event loops of a function, also different functions with the same ``name``.

    No counter ever falls: ``reset_stats()`` makes none fall, and what a batcher has counted stays when it is gone. For
    methods that is exact, however short their instances live, as long as the class lives. Of functions and engines that
    are dropped, what they did since the last collection is lost.

    Averages are ratios of counters: ``batchify.item.batched`` to ``batchify.batch.ended`` is the size of a batch. There
    are no percentiles, for OpenTelemetry has no histogram that is read when it is collected.

    Args:
        meter_provider: the global one if not given; that may be set later.
    """
    meter = get_meter("batchify", __version__, meter_provider)
    reading = _Reading()
    for name, (unit, description) in COUNTERS.items():
        meter.create_observable_counter(name, [partial(reading.observe, name)], unit, description)
    for name, (unit, description) in LEVELS.items():
        meter.create_observable_up_down_counter(name, [partial(reading.observe, name)], unit, description)


class _Reading:
    """Reads all totals once for each collection, in which every instrument asks for its own."""

    def __init__(self) -> None:
        self._totals = Totals()
        self._read: list[Total] = []
        # Who has asked since. One that asks again does so for the next collection.
        self._asked: set[str] = set()

    def observe(self, name: str, _: CallbackOptions) -> list[Observation]:
        """Return the values of one metric, for all batchers."""
        if name in self._asked or not self._asked:
            self._read = self._totals.read()
            self._asked = set()
        self._asked.add(name)
        return [observation for total in self._read for observation in _observations(name, total)]


def _observations(name: str, total: Total) -> list[Observation]:
    who = {NAME: total.present.name}
    if name == BATCHES:
        return [Observation(total.reasons[reason], {**who, REASON: reason}) for reason in REASONS]
    return [Observation(_values(total)[name], who)]


def _values(total: Total) -> dict[str, float]:
    """Return the values of all metrics that have one value for a batcher."""
    return {
        **{f"batchify.item.{field.removesuffix('_items')}": total.counts[field] for field in CALL_OUTCOMES},
        "batchify.item.batched": total.items,
        "batchify.item.wait_time": total.wait_ns / 1e9,
        "batchify.batch.run_time": total.run_ns / 1e9,
        "batchify.item.pending": total.present.pending,
        "batchify.item.running": total.present.running,
    }
