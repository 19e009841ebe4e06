"""Cost model of a batch function: from measured times to the cost of a batch, and from that to predictions.

It decides the cost of a batch, its uncertainty, whether batching pays, and the capacity. It must not know clocks,
engines, how times are measured, or which options are best.

A batch that starts after a pause runs for ``function[n]`` seconds. A batch that directly follows another one occupies
its slot for ``loaded[slots][n]`` seconds, measured at overload: the engine, and the calls and answers that need the
interpreter meanwhile, are part of it. So the capacity is a measurement, and the cost of an item is its inverse.
"""

from __future__ import annotations

from copy import copy
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import product
from math import fsum, inf, sqrt
from random import Random
from statistics import mean, median
from typing import TYPE_CHECKING

from batchify._core.limits import Limits
from batchify._core.run_cost import RunCost
from batchify._planning.loop_delay import LoopDelay
from batchify._planning.simulation import interpolate, poisson_arrivals, run_simulation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from batchify._core.batch import Batch
    from batchify._core.entries import Entry
    from batchify._planning.simulation import Simulation

# The least gain at which batching pays.
MIN_GAIN = 1.1
# A prediction simulates the calls that arrive during this many runs of a single item, within bounds, so that many
# batches contribute to a 99th percentile.
SIMULATED_RUNS, MIN_CALLS, MAX_CALLS = 200, 4_000, 16_000
# Bootstrap resamples for an interval, and the share of them that lies outside on each side.
RESAMPLES, OUTSIDE = 20, 0.05


@dataclass(frozen=True)
class Setting:
    max_size: int
    timeout: float | None = None
    concurrency: int = 1

    def __str__(self) -> str:
        return f"max_size={self.max_size}, timeout={self.timeout}, concurrency={self.concurrency}"


@dataclass(frozen=True)
class Estimate:
    """A figure with its 90 % interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Estimate:
        """Return the estimate whose value comes first, and is followed by the values of bootstrap resamples."""
        value, *others = values
        ordered = sorted(others or [value])
        outside = int(OUTSIDE * len(ordered))
        return cls(value, min(value, ordered[outside]), max(value, ordered[-1 - outside]))

    @property
    def error(self) -> float:
        """The larger distance to an end of the interval, as a share of the value."""
        return max(self.value - self.low, self.high - self.value) / self.value if self.value else 0.0


@dataclass(frozen=True)
class LinearCost:
    """A cost of fixed + per_item * n seconds for a batch of n items."""

    fixed: float
    per_item: float

    @classmethod
    def fit(cls, points: Mapping[int, float]) -> LinearCost:
        """Return the cost, without negative parts, that has the least squares of relative errors."""
        # With absolute errors, only the largest batches would count.
        weights = {size: 1 / seconds**2 for size, seconds in points.items()}
        total = fsum(weights.values())
        x = fsum(weight * size for size, weight in weights.items()) / total
        y = fsum(weights[size] * points[size] for size in points) / total
        variance = fsum(weights[size] * (size - x) ** 2 for size in points)
        covariance = fsum(weights[size] * (size - x) * (points[size] - y) for size in points)
        per_item = max(covariance / variance, 0.0) if variance else 0.0
        if per_item * x > y:
            through_zero = fsum(weights[n] * n * points[n] for n in points) / fsum(weights[n] * n * n for n in points)
            return cls(0.0, through_zero)
        return cls(y - per_item * x, per_item)

    def __call__(self, size: float) -> float:
        return self.fixed + self.per_item * size


@dataclass(frozen=True)
class Run:
    """The measured times of a batch after a pause, in seconds."""

    # The batch function alone.
    function: float
    # From the time at which its calls were due to its last answer.
    total: float
    # From that time until the loop was awake to make the calls.
    wake_delay: float
    # CPU time of the loop's thread from then on.
    loop_cpu: float
    # The number of cores that the process used meanwhile.
    cores: float


@dataclass
class Round:
    """Measurements of the same items in all sizes and modes."""

    # By batch size.
    alone: dict[int, Sequence[Run]] = field(default_factory=dict[int, "Sequence[Run]"])
    # By number of slots and batch size: the seconds for which each batch occupied its slot at overload.
    loaded: dict[tuple[int, int], Sequence[float]] = field(default_factory=dict[tuple[int, int], "Sequence[float]"])
    # For each item in a batch of its own: the time of the function, and the same at overload.
    single: Sequence[tuple[float, float]] = ()


@dataclass(frozen=True)
class Workload:
    """The calls of a function whose options, such as a group or a weight, make items different for the queue."""

    # The entries of the items.
    entries: Sequence[Entry] = ()
    # Whether the queue needs them.
    is_grouped: bool = False
    # All other options that the queue needs.
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class Cost:
    """The cost of batches, in seconds."""

    # By batch size, after a pause: of the function alone, and from the calls to the last answer.
    function: Mapping[int, float]
    answered: Mapping[int, float]
    # By number of slots and batch size: the time for which a batch occupies its slot at overload.
    loaded: Mapping[int, Mapping[int, float]]
    # By batch size: the times of single batches as multiples of the typical time.
    ratios: Mapping[int, Sequence[float]] = field(default_factory=lambda: {1: [1.0]})
    loop_delay: LoopDelay | None = None
    # Standard deviation of the cost of single items, as a share of the mean.
    inequality: float = 0.0
    # The number of cores that the function uses.
    cores: float = 0.0
    workload: Workload = field(default_factory=Workload)

    @classmethod
    def of(cls, rounds: Sequence[Round], workload: Workload) -> Cost:
        """Return the cost in a typical round, so that other work of the machine in one of them hardly counts."""
        # A slower machine measures fewer sizes.
        sizes = [n for n in rounds[0].alone if all(n in one.alone for one in rounds)]
        function = {n: _middle(mean(run.function for run in one.alone[n]) for one in rounds) for n in sizes}
        answered = {n: _middle(mean(run.total for run in one.alone[n]) for one in rounds) for n in sizes}
        loaded: dict[int, dict[int, float]] = {slots: {} for slots, _ in rounds[0].loaded}
        for slots, n in product(loaded, sizes):
            loaded[slots][n] = _middle(mean(one.loaded[slots, n]) for one in rounds)
        return cls(
            function,
            answered,
            loaded,
            {n: _ratios([seconds for one in rounds for seconds in one.loaded[1, n]]) for n in sizes},
            _loop_delay(rounds, sizes, answered[1] - function[1]),
            _inequality(rounds),
            # The function takes nearly all of the time of the largest batch.
            median(run.cores for one in rounds for run in one.alone[max(sizes)]),
            workload,
        )

    @classmethod
    def resampled(cls, rounds: Sequence[Round], workload: Workload) -> list[Cost]:
        """Return the cost, followed by those of bootstrap resamples: rounds drawn with replacement."""
        rng = Random(0)  # noqa: S311  # equal draws make reports comparable
        resamples = (rng.choices(rounds, k=len(rounds)) for _ in range(RESAMPLES))
        return [cls.of(chosen, workload) for chosen in (rounds, *resamples)]

    @property
    def linear(self) -> LinearCost:
        return LinearCost.fit(self.loaded[1])

    @property
    def unbatched(self) -> float:
        """The time of one item without batching, when the function is called for it alone."""
        return self.function[1]

    @property
    def gain(self) -> float:
        """How many times longer an item takes without batching than in the best batch, with one slot."""
        return self.unbatched * max(size / seconds for size, seconds in self.loaded[1].items())

    def capacity(self, setting: Setting) -> float:
        """Return how many calls a second are answered with ``setting`` at overload, when all batches are full."""
        seconds = _by_size(self.loaded[setting.concurrency], setting.max_size)[setting.max_size]
        return setting.concurrency * setting.max_size / seconds

    def predict(
        self, setting: Setting, rate: float, *, refine: int = 1, trace: Iterable[float] | None = None
    ) -> Simulation:
        """Return the prediction for ``setting`` at ``rate`` calls a second.

        It simulates ``refine`` times as many calls as a comparison needs. A ``trace`` gives the times of arrival.
        """
        calls = refine * min(max(round(SIMULATED_RUNS * rate * self.answered[1]), MIN_CALLS), MAX_CALLS)
        rng = Random(0)  # noqa: S311  # all settings are compared on the same calls
        due = poisson_arrivals(rng, rate, calls) if trace is None else list(trace)
        workload = self.workload
        limits = replace(workload.limits, **asdict(setting))
        if limits.run_cost is not None:
            # The cost is learnt anew, as the first batches of a process learn it.
            limits = replace(limits, run_cost=RunCost())
        entries = rng.choices(workload.entries, k=len(due)) if workload.is_grouped else ()
        run_time = partial(self._run_time, setting, rng)
        return run_simulation(due, limits, run_time, entries, self.loop_delay)

    def _run_time(self, setting: Setting, rng: Random) -> Callable[[Batch], float]:
        """Return a function that returns the seconds for a batch, and draws the same variation every time."""
        after_pause = _by_size(self.function, setting.max_size)
        loaded = _by_size(self.loaded[setting.concurrency], setting.max_size)
        ratios = [self.ratios[min(self.ratios, key=lambda n: abs(n - size))] for size in range(setting.max_size + 1)]
        busy_until, rng = -inf, copy(rng)

        def run_time(batch: Batch) -> float:
            nonlocal busy_until
            typical = after_pause if batch.departed > busy_until else loaded
            size = batch.size + batch.padding
            seconds = typical[size] * rng.choice(ratios[size])
            busy_until = max(busy_until, batch.departed + seconds)
            return seconds

        return run_time


def _middle(values: Iterable[float]) -> float:
    """Return the mean of the middle half, so that rounds during other work of the machine do not count."""
    ordered = sorted(values)
    outside = len(ordered) // 4
    return mean(ordered[outside : len(ordered) - outside])


def _by_size(times: Mapping[int, float], largest: int) -> list[float]:
    """Interpolate; beyond the measured sizes, continue with the fitted line, which never falls."""
    return interpolate({largest: LinearCost.fit(times)(largest), **times}, largest)


def _ratios(times: Sequence[float]) -> list[float]:
    average = mean(times)
    return [seconds / average for seconds in times]


def _loop_delay(rounds: Sequence[Round], sizes: Sequence[int], round_trip: float) -> LoopDelay | None:
    """Return the parts of the delay to a batch and back, which is ``round_trip`` seconds for a single item."""
    if round_trip <= 0:
        return None
    # The loop wakes up twice for a batch, and handles each call twice.
    loop_cpu = {size: mean(run.loop_cpu for one in rounds for run in one.alone[size]) for size in sizes}
    # With a coarse clock of CPU time, some batches seem to take none.
    cpu = LinearCost.fit(loop_cpu) if all(loop_cpu.values()) else LinearCost(0.0, 0.0)
    wake_delay = median(run.wake_delay for one in rounds for runs in one.alone.values() for run in runs)
    per_call = min(cpu.per_item / 2, round_trip / 2)
    wake = min(wake_delay + cpu.fixed / 2, round_trip / 2 - per_call)
    return LoopDelay(wake, per_call, round_trip - 2 * (wake + per_call))


def _inequality(rounds: Sequence[Round]) -> float:
    """Return the standard deviation of the cost of items as a share of the mean, without the noise of the machine.

    Noise is independent in the two measurements of an item, so their covariance is the variance between items.
    """
    shares: list[float] = []
    for one in rounds:
        averages = [mean(column) for column in zip(*one.single, strict=True)]
        shares += [(first / averages[0] - 1) * (second / averages[1] - 1) for first, second in one.single]
    return sqrt(max(mean(shares), 0.0)) if shares else 0.0
