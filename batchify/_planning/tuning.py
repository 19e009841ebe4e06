"""Choose the best options for a batch function of known cost.

It decides which sizes, windows and slots to compare, and which of them to recommend. It must not know clocks, engines,
how costs are measured, or how results are shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log
from statistics import mean
from typing import TYPE_CHECKING

from batchify._planning.cost import Setting

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchify._planning.cost import Cost
    from batchify._planning.simulation import Simulation

# Default rates, as shares of the capacity.
LOADS = (0.25, 0.5, 0.75)
# Windows to try, as multiples of the time of one item without batching.
WINDOWS = (0.1, 0.25, 0.5, 1.0, 2.0)
# A simpler setting (a smaller size, fewer slots, adaptive timing) wins if it is worse by no more than this factor.
TOLERANCE = 1.05
# The final forecasts simulate this many times as many calls as comparisons do.
REFINE = 4
# A curve has one rate less than this, in equal steps up to the capacity.
CURVE_STEPS = 20


@dataclass(frozen=True)
class Advice:
    """Recommended options and their predicted effect."""

    setting: Setting
    # By rate.
    forecasts: dict[float, Simulation]
    # Target in seconds for the 99th percentile of latency.
    slo: float | None = None
    # The highest rate that meets ``slo``; 0 if no rate does, ``None`` without ``slo``.
    max_rate: float | None = None

    @property
    def missed_rates(self) -> list[float]:
        if self.slo is None:
            return []
        return [rate for rate, outcome in self.forecasts.items() if outcome.latency_ms.p99 > 1000 * self.slo]


def recommend(cost: Cost, rates: Sequence[float], slo: float | None = None) -> Advice:
    """Return the simplest options whose 99th percentiles at ``rates``, all below the capacity, are near the lowest."""
    settings = [Setting(size, None, slots) for slots in cost.slowdown for size in cost.with_engine]
    setting = _simplest(cost, [each for each in settings if max(rates) < cost.capacity(each)], rates)
    windows = [float(f"{share * cost.unbatched:.2g}") for share in WINDOWS]
    settings = [setting, *(Setting(setting.max_size, window, setting.concurrency) for window in windows)]
    setting = _simplest(cost, settings, rates)
    forecasts = {rate: cost.predict(setting, rate, refine=REFINE) for rate in rates}
    return Advice(setting, forecasts, slo, None if slo is None else _max_rate(cost, setting, slo))


def curve(cost: Cost, setting: Setting) -> dict[float, Simulation]:
    """Return predictions for ``setting`` by rate, from a low rate to nearly its capacity."""
    capacity = cost.capacity(setting)
    rates = [capacity * step / CURVE_STEPS for step in range(1, CURVE_STEPS)]
    return {rate: cost.predict(setting, rate) for rate in rates}


def _simplest(cost: Cost, settings: Sequence[Setting], rates: Sequence[float]) -> Setting:
    tails = {setting: _tail(cost, setting, rates) for setting in settings}
    limit = TOLERANCE * min(tails.values())
    return next(setting for setting in settings if tails[setting] <= limit)


def _tail(cost: Cost, setting: Setting, rates: Sequence[float]) -> float:
    """Return the geometric mean of the 99th percentiles, in which every rate has the same weight."""
    tails = [cost.predict(setting, rate).latency_ms.p99 for rate in rates]
    return exp(mean(map(log, tails)))


def _max_rate(cost: Cost, setting: Setting, slo: float) -> float:
    """Return the highest rate that meets ``slo``, found by bisection."""
    capacity = cost.capacity(setting)
    low, high = 0.0, capacity
    while high - low > capacity / 64:
        rate = (low + high) / 2
        if cost.predict(setting, rate).latency_ms.p99 <= 1000 * slo:
            low = rate
        else:
            high = rate
    return low
