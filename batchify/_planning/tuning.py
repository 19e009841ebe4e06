"""Choose the best options for a batch function of known cost.

It decides which sizes, windows and slots to compare, which of them to recommend, and when measurements are too noisy
for a recommendation. It must not know clocks, engines, how costs are measured, or how results are shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log
from statistics import mean
from typing import TYPE_CHECKING

from batchify._planning.cost import MIN_GAIN, Estimate, Setting

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchify._planning.cost import Cost
    from batchify._planning.simulation import Simulation

# Default rates, as shares of the capacity. The last one is an overload.
LOADS = (0.25, 0.5, 0.75, 1.5)
# Windows to try, as multiples of the time of one item without batching.
WINDOWS = (0.1, 0.25, 0.5, 1.0, 2.0)
# A simpler setting (a smaller size, fewer slots, adaptive timing) wins if it is worse by no more than this factor.
TOLERANCE = 1.05
# The final forecasts simulate this many times as many calls as comparisons do.
REFINE = 4
# A curve has one rate less than this, in equal steps up to the capacity.
CURVE_STEPS = 20
# With a larger error of the capacity, a prediction cannot be within a quarter of the truth.
MAX_ERROR = 0.25


@dataclass(frozen=True)
class Advice:
    """Recommended options and their predicted effect."""

    setting: Setting
    capacity: Estimate
    # By rate: the prediction, followed by those for the resamples.
    forecasts: dict[float, list[Simulation]]
    # Target in seconds for the 99th percentile of latency.
    slo: float | None = None
    # The highest rate that meets ``slo``; 0 if no rate does, ``None`` without ``slo``.
    max_rate: Estimate | None = None

    @property
    def carried(self) -> dict[float, Simulation]:
        """The prediction by rate, without rates that are an overload."""
        return {rate: found[0] for rate, found in self.forecasts.items() if rate < self.capacity.value}

    @property
    def missed_rates(self) -> list[float]:
        if self.slo is None:
            return []
        return [rate for rate, outcome in self.carried.items() if outcome.latency_ms.p99 > 1000 * self.slo]


def pays(costs: Sequence[Cost]) -> bool | None:
    """Return whether batching pays; ``None`` if the noise is larger than the difference."""
    gain = Estimate.of(cost.gain for cost in costs)
    if gain.high < MIN_GAIN:
        return False
    return True if gain.low > 1 else None


def recommend(costs: Sequence[Cost], rates: Sequence[float] | None = None, slo: float | None = None) -> Advice:
    """Return the simplest options whose 99th percentiles are near the lowest at those rates that can be carried.

    The default rates are ``LOADS`` of the capacity.
    """
    cost = costs[0]
    sizes = cost.workload.limits.sizes or cost.function
    settings = [Setting(size, None, slots) for slots in cost.loaded for size in cost.function if size in sizes]
    setting = max(settings, key=cost.capacity)
    most = _capacity(costs, setting)
    if carried := [rate for rate in rates or default_rates(most.value) if rate < most.value]:
        settings = [each for each in settings if max(carried) < cost.capacity(each)]
        setting = _simplest(cost, settings, carried, TOLERANCE + most.error)
        windows = [float(f"{share * cost.unbatched:.2g}") for share in WINDOWS]
        settings = [setting, *(Setting(setting.max_size, window, setting.concurrency) for window in windows)]
        setting = _simplest(cost, settings, carried, TOLERANCE + most.error)
    capacity = _capacity(costs, setting)
    forecasts = {rate: forecast(costs, setting, rate) for rate in rates or default_rates(capacity.value)}
    max_rate = None if slo is None else Estimate.of(_max_rate(cost, setting, slo) for cost in costs)
    return Advice(setting, capacity, forecasts, slo, max_rate)


def default_rates(capacity: float) -> list[float]:
    return [float(f"{load * capacity:.2g}") for load in LOADS]


def forecast(
    costs: Sequence[Cost], setting: Setting, rate: float, trace: Sequence[float] | None = None
) -> list[Simulation]:
    """Return the prediction, followed by those for the resamples."""
    refined = costs[0].predict(setting, rate, refine=REFINE, trace=trace)
    return [refined, *(cost.predict(setting, rate, trace=trace) for cost in costs[1:])]


def curve(cost: Cost, setting: Setting) -> dict[float, Simulation]:
    """Return predictions for ``setting`` by rate, from a low rate to nearly its capacity."""
    capacity = cost.capacity(setting)
    rates = [capacity * step / CURVE_STEPS for step in range(1, CURVE_STEPS)]
    return {rate: cost.predict(setting, rate) for rate in rates}


def _capacity(costs: Sequence[Cost], setting: Setting) -> Estimate:
    return Estimate.of(cost.capacity(setting) for cost in costs)


def _simplest(cost: Cost, settings: Sequence[Setting], rates: Sequence[float], tolerance: float) -> Setting:
    tails = {setting: _tail(cost, setting, rates) for setting in settings}
    limit = tolerance * min(tails.values())
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
