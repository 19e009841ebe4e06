"""Which options are best for a batch function of known cost.

Decides: which sizes, windows and slots are compared, and which of them is recommended.
Must not know: clocks, engines, how anything was measured, how it is shown.
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

# Default rates, as shares of what the function can do.
LOADS = (0.25, 0.5, 0.75)
# Windows to try, as multiples of what an item alone takes.
WINDOWS = (0.1, 0.25, 0.5, 1.0, 2.0)
# Simplicity is worth this much: a smaller size or adaptive timing is taken if it is hardly worse.
HARDLY = 1.05
# For the figures that are told, so many times as many.
FINER = 4
# Rates of a curve, up to one below the capacity.
STEPS = 20


@dataclass(frozen=True)
class Advice:
    """The options to use, and what they would do.

    Attributes:
        setting: the options.
        forecasts: what they would do, by rate.
        slo: seconds within which 99 of 100 calls are to be answered, if told.
        limit: the highest rate at which they are, if ``slo`` is told; 0 if there is none.
    """

    setting: Setting
    forecasts: dict[float, Simulation]
    slo: float | None = None
    limit: float | None = None

    @property
    def misses(self) -> list[float]:
        """The rates at which ``slo`` is not met."""
        if self.slo is None:
            return []
        return [rate for rate, done in self.forecasts.items() if done.latency_ms.p99 > 1000 * self.slo]


def recommend(cost: Cost, rates: Sequence[float], slo: float | None = None) -> Advice:
    """Return the options with the least 99th percentiles at ``rates``, all of which are below the capacity.

    Among those that are hardly worse, the smallest size, the fewest slots, and adaptive timing.
    """
    settings = [
        Setting(size, None, slots)
        for slots in cost.slowdown
        for size in cost.together
        if max(rates) < cost.capacity(size, slots)
    ]
    setting = _simplest(cost, settings, rates)
    windows = [Setting(setting.max_size, float(f"{share * cost.alone:.2g}"), setting.concurrency) for share in WINDOWS]
    setting = _simplest(cost, [setting, *windows], rates)
    forecasts = {rate: cost.predict(setting, rate, finer=FINER) for rate in rates}
    return Advice(setting, forecasts, slo, None if slo is None else _limit(cost, setting, slo))


def curve(cost: Cost, setting: Setting) -> dict[float, Simulation]:
    """Return what ``setting`` would do from hardly any load to nearly all it can bear, by rate."""
    capacity = cost.capacity(setting.max_size, setting.concurrency)
    rates = [capacity * step / STEPS for step in range(1, STEPS)]
    return {rate: cost.predict(setting, rate) for rate in rates}


def _simplest(cost: Cost, settings: list[Setting], rates: Sequence[float]) -> Setting:
    """Return the first one that is hardly worse than the best."""
    worth = {setting: _tail(cost, setting, rates) for setting in settings}
    least = min(worth.values())
    return next(setting for setting in settings if worth[setting] <= HARDLY * least)


def _tail(cost: Cost, setting: Setting, rates: Sequence[float]) -> float:
    """Return the geometric mean of the 99th percentiles: no rate counts for more than another."""
    tails = [cost.predict(setting, rate).latency_ms.p99 for rate in rates]
    return exp(mean(map(log, tails)))


def _limit(cost: Cost, setting: Setting, slo: float) -> float:
    """Return the highest rate at which 99 of 100 calls are answered within ``slo``, by halves."""
    capacity = cost.capacity(setting.max_size, setting.concurrency)
    low, high = 0.0, capacity
    while high - low > capacity / 64:
        rate = (low + high) / 2
        if cost.predict(setting, rate).latency_ms.p99 <= 1000 * slo:
            low = rate
        else:
            high = rate
    return low
