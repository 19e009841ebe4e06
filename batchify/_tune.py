"""What was measured, turned into advice.

Decides: what a batch costs, whether batching pays, which options are best, what they would do to latency.
Must not know: clocks, engines, how anything was measured, how it is shown.

A batch of n items takes ``together[n]`` seconds from the calls to the last answer: the function, the hand-over and the
engine. That is what the simulation is given as a run time. A call that comes while a batch runs takes ``crowding`` from
it, since it needs the same interpreter: at r calls a second a batch is longer by the factor 1 / (1 - r * crowding).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import exp, expm1, fsum, log, sqrt
from statistics import mean, median
from typing import TYPE_CHECKING, TypeVar

from batchify._simulate import _typical, simulate

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from batchify._simulate import Simulation

T = TypeVar("T")

# Default rates, as shares of what the function can do.
LOADS = (0.25, 0.5, 0.75)
# Windows to try, as multiples of what an item alone takes.
WINDOWS = (0.1, 0.25, 0.5, 1.0, 2.0)
# Simplicity is worth this much: a smaller size or adaptive timing is taken if it is hardly worse.
HARDLY = 1.05
# Batching that saves less than this does not pay.
LEAST_GAIN = 1.1
# Calls come for as long as so many runs of an item alone, within bounds: then a 99th percentile is one of many batches.
RUNS, LEAST, MOST = 200, 4_000, 16_000
# For the figures that are told, so many times as many.
FINER = 4
# Rates of a curve, up to one below the capacity.
STEPS = 20
# From the median of absolute deviations to a standard deviation, if they are normal.
MAD = 1.4826
# However many calls come, batches go on.
LEAST_LEFT = 0.05
# Variation that is not worth simulating.
STEADY = 0.01


@dataclass(frozen=True)
class Setting:
    """Options of a batched function."""

    max_size: int
    timeout: float | None = None
    concurrency: int = 1

    def __str__(self) -> str:
        return f"max_size={self.max_size}, timeout={self.timeout}, concurrency={self.concurrency}"


@dataclass(frozen=True)
class Line:
    """The cost of a batch as a + b n."""

    a: float
    b: float

    def __call__(self, size: float) -> float:
        return self.a + self.b * size


@dataclass
class Samples:
    """What was measured.

    Attributes:
        batches: by size, seconds of the function alone, and of all from the calls to the last answer.
        crowding: what a call took from a running batch.
        slowdown: by how many batches ran at once, how many times as long one took.
        warm: by size, seconds of all for a batch that followed another one at once.
    """

    batches: dict[int, list[tuple[float, float]]] = field(default_factory=dict[int, "list[tuple[float, float]]"])
    crowding: list[float] = field(default_factory=list[float])
    slowdown: dict[int, list[float]] = field(default_factory=dict[int, "list[float]"])
    warm: dict[int, list[float]] = field(default_factory=dict[int, "list[float]"])

    def __add__(self, other: Samples) -> Samples:
        return Samples(
            _joined(self.batches, other.batches),
            self.crowding + other.crowding,
            _joined(self.slowdown, other.slowdown),
            _joined(self.warm, other.warm),
        )


@dataclass(frozen=True)
class Cost:
    """What batches take, in seconds.

    Attributes:
        together: by size, from the calls to the last answer.
        function: by size, the batch function alone.
        spread: how much the former varies: standard deviation as a share of the mean.
        crowding: what a call that comes while a batch runs takes from it.
        slowdown: by how many batches run at once, how many times as long one takes.
        warm: as ``together``, of batches that follow each other at once; the same if not known.
    """

    together: Mapping[int, float]
    function: Mapping[int, float]
    spread: float = 0.0
    crowding: float = 0.0
    slowdown: Mapping[int, float] = field(default_factory=lambda: {1: 1.0})
    warm: Mapping[int, float] | None = None

    @property
    def line(self) -> Line:
        """The straight line that is nearest to what batches take."""
        return fit(self.together)

    @property
    def alone(self) -> float:
        """What an item takes if the function is called for it alone, without batching."""
        return self.function[1]

    @property
    def best(self) -> tuple[int, float]:
        """The size at which an item takes least, and what it takes then, with all that batching costs."""
        each = {size: seconds / size + self.crowding for size, seconds in self.together.items()}
        size = min(each, key=lambda size: each[size])
        return size, each[size]

    @property
    def gain(self) -> float:
        """How many times as much an item takes alone as in the best batch."""
        return self.alone / self.best[1]

    @property
    def pays(self) -> bool:
        """Whether that is worth batching."""
        return self.gain >= LEAST_GAIN

    def capacity(self, max_size: int, concurrency: int = 1) -> float:
        """Return how many calls a second can be answered in batches of at most ``max_size``."""
        typical = _typical(self.together if self.warm is None else self.warm, max_size)
        slow = self.slowdown[concurrency]
        return max(
            concurrency * size / (slow * typical[size] + concurrency * size * self.crowding)
            for size in range(1, max_size + 1)
        )

    def most(self) -> tuple[float, Setting]:
        """Return the highest capacity, with the setting that has it."""
        settings = [Setting(size, None, slots) for size in self.together for slots in self.slowdown]
        return max(
            ((self.capacity(each.max_size, each.concurrency), each) for each in settings), key=lambda pair: pair[0]
        )

    def predict(
        self, setting: Setting, rate: float, *, finer: int = 1, trace: Iterable[float] | None = None
    ) -> Simulation:
        """Return what ``setting`` would do at ``rate`` calls a second, which is below its capacity.

        Args:
            setting: options of the function.
            rate: calls a second.
            finer: how many times as many calls are simulated as it takes to compare settings.
            trace: when they come, if not at random.
        """
        load = min(rate / self.capacity(setting.max_size, setting.concurrency), 1.0)
        warm = self.together if self.warm is None else self.warm
        # Medians are less than means where few are far longer than the others.
        stretch = self.slowdown[setting.concurrency] * sqrt(1 + self.spread**2)
        stretch /= max(1 - rate * self.crowding, LEAST_LEFT)
        return simulate(
            run_time={n: stretch * ((1 - load) * seconds + load * warm[n]) for n, seconds in self.together.items()},
            rate=rate if trace is None else None,
            calls=finer * min(max(round(RUNS * rate * self.together[1]), LEAST), MOST),
            trace=trace,
            noise=self.spread or None,
            max_size=setting.max_size,
            timeout=setting.timeout,
            concurrency=setting.concurrency,
        )


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


def fit(points: Mapping[int, float]) -> Line:
    """Return the line a + b n, neither below 0, with the least squares of relative errors.

    Relative ones, or else the largest batches alone would decide.
    """
    weights = {size: 1 / seconds**2 for size, seconds in points.items()}
    total = fsum(weights.values())
    x = fsum(weight * size for size, weight in weights.items()) / total
    y = fsum(weights[size] * points[size] for size in points) / total
    across = fsum(weights[size] * (size - x) ** 2 for size in points)
    along = fsum(weights[size] * (size - x) * (points[size] - y) for size in points)
    b = max(along / across, 0.0) if across else 0.0
    if b * x > y:
        return Line(0.0, fsum(weights[n] * n * points[n] for n in points) / fsum(weights[n] * n * n for n in points))
    return Line(y - b * x, b)


def cost(samples: Samples) -> Cost:
    """Return what batches take, as the medians of samples."""
    batches = samples.batches
    function = {size: median(alone for alone, _ in taken) for size, taken in batches.items()}
    together = {size: median(total for _, total in taken) for size, taken in batches.items()}
    off = median(abs(log(total / together[size])) for size, taken in batches.items() for _, total in taken)
    spread = sqrt(expm1((MAD * off) ** 2))
    slower = {slots: max(1.0, median(times)) for slots, times in samples.slowdown.items()}
    return Cost(
        together,
        function,
        spread if spread >= STEADY else 0.0,
        max(0.0, median(samples.crowding)) if samples.crowding else 0.0,
        {1: 1.0, **slower},
        # A size is warmer than it is cold, or it is noise.
        {size: min(together[size], median(taken)) for size, taken in samples.warm.items()} or None,
    )


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


def _joined(one: Mapping[int, list[T]], other: Mapping[int, list[T]]) -> dict[int, list[T]]:
    return {key: [*one.get(key, []), *other.get(key, [])] for key in {**one, **other}}


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
