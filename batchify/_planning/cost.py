"""Cost model of a batch function: from measured times to the cost of a batch, and from that to predictions.

It decides the cost of a batch, whether batching pays, the capacity, and how options affect latency. It must not know
clocks, engines, how times are measured, or which options are best.

A batch of n items takes ``with_engine[n]`` seconds from its calls to its last answer: function, hand-over and engine.
It occupies a slot for ``slot_time[n]`` seconds, the run time in a simulation. The rest is ``loop_delay``, from calls to
their batch and back, which does not delay other batches. A call that arrives while a batch runs takes ``interference``
seconds from it, because both need the interpreter: at r calls a second, a batch takes 1 / (1 - r * interference) times
as long.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import fsum, inf, sqrt
from random import Random
from statistics import mean, median
from typing import TYPE_CHECKING, TypeVar

from batchify._planning.loop_delay import LoopDelay
from batchify._planning.simulation import checked_limits, interpolate, poisson_arrivals, run_simulation

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from batchify._planning.simulation import Simulation

T = TypeVar("T")

# Batching pays from this gain on.
MIN_GAIN = 1.1
# A prediction simulates the calls that arrive during this many runs of a single item, within bounds. So many batches
# contribute to a 99th percentile.
SIMULATED_RUNS, MIN_CALLS, MAX_CALLS = 200, 4_000, 16_000
# A run that takes this many times the median was delayed by other work of the machine.
OUTLIER = 4.0
# The least share of the interpreter that calls leave to a running batch, at any rate.
MIN_SHARE = 0.05
# A variation of run times that is not worth simulating.
NEGLIGIBLE = 0.01


@dataclass(frozen=True)
class Setting:
    max_size: int
    timeout: float | None = None
    concurrency: int = 1

    def __str__(self) -> str:
        return f"max_size={self.max_size}, timeout={self.timeout}, concurrency={self.concurrency}"


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
    """The measured times of a batch, in seconds."""

    # The batch function alone.
    function: float
    # From the time at which its calls were due to its last answer.
    total: float
    # From that time until the loop was awake to make the calls.
    wake_delay: float
    # CPU time of the loop's thread from then on.
    loop_cpu: float
    # Time in which another batch of the same size, after a pause, occupied its slot.
    slot_time: float
    # The same for a batch that directly followed another one.
    back_to_back: float


@dataclass
class Samples:
    """Measurements of a batch function."""

    # By batch size.
    runs: dict[int, list[Run]] = field(default_factory=dict[int, "list[Run]"])
    # Seconds that one call took from a running batch.
    interference: list[float] = field(default_factory=list[float])
    # By number of batches that ran at once: the time of one of them relative to a batch alone.
    slowdown: dict[int, list[float]] = field(default_factory=dict[int, "list[float]"])

    def __add__(self, other: Samples) -> Samples:
        return Samples(
            _merged(self.runs, other.runs),
            self.interference + other.interference,
            _merged(self.slowdown, other.slowdown),
        )


@dataclass(frozen=True)
class Cost:
    """The cost of batches, in seconds."""

    # By batch size: from the calls to the last answer, and the batch function alone.
    with_engine: Mapping[int, float]
    function: Mapping[int, float]
    # Standard deviation of slot times as a share of their mean.
    spread: float = 0.0
    # Time that a call takes from a running batch when it arrives.
    interference: float = 0.0
    # By number of batches that run at once: the time of one of them relative to a batch alone.
    slowdown: Mapping[int, float] = field(default_factory=lambda: {1: 1.0})
    # By batch size: time in a slot after a pause; ``None`` means as ``with_engine``.
    slot_time: Mapping[int, float] | None = None
    # By batch size: time in a slot directly after another batch; ``None`` means as ``slot_time``.
    back_to_back: Mapping[int, float] | None = None
    loop_delay: LoopDelay | None = None

    @classmethod
    def from_samples(cls, samples: Samples) -> Cost:
        """Return the cost of typical batches, without outliers."""
        runs = samples.runs.items()
        with_engine = {size: median(run.total for run in taken) for size, taken in runs}
        slot_times = {size: _without_outliers([run.slot_time for run in taken]) for size, taken in runs}
        slot_time = {size: mean(times) for size, times in slot_times.items()}
        back_to_back = {size: mean(_without_outliers([run.back_to_back for run in taken])) for size, taken in runs}
        spread = sqrt(mean((each / slot_time[size] - 1) ** 2 for size, times in slot_times.items() for each in times))
        return cls(
            with_engine,
            {size: median(run.function for run in taken) for size, taken in runs},
            spread if spread >= NEGLIGIBLE else 0.0,
            max(0.0, median(samples.interference)) if samples.interference else 0.0,
            {1: 1.0, **{count: max(1.0, median(ratios)) for count, ratios in samples.slowdown.items()}},
            slot_time,
            # A batch that seems slower without a pause is noise.
            {size: min(slot_time[size], seconds) for size, seconds in back_to_back.items()},
            _loop_delay(samples, with_engine[1] - median(slot_times[1])),
        )

    @property
    def linear(self) -> LinearCost:
        return LinearCost.fit(self.with_engine)

    @property
    def unbatched(self) -> float:
        """The time of one item without batching, when the function is called for it alone."""
        return self.function[1]

    @property
    def best(self) -> tuple[int, float]:
        """The size with the least time per item, and that time, which includes all costs of batching."""
        per_item = {size: seconds / size + self.interference for size, seconds in self._under_load.items()}
        size = min(per_item, key=lambda size: per_item[size])
        return size, per_item[size]

    @property
    def gain(self) -> float:
        """How many times longer an item takes without batching than in the best batch."""
        return self.unbatched / self.best[1]

    @property
    def pays(self) -> bool:
        return self.gain >= MIN_GAIN

    @property
    def fastest(self) -> Setting:
        settings = [Setting(size, None, slots) for size in self.with_engine for slots in self.slowdown]
        return max(settings, key=self.capacity)

    def capacity(self, setting: Setting) -> float:
        """Return how many calls a second can be answered with ``setting``, in batches of the best size."""
        slots = setting.concurrency
        slowdown, seconds = self.slowdown[slots], interpolate(self._under_load, setting.max_size)
        batches = max(
            slots * size / (slowdown * seconds[size] + slots * size * self.interference)
            for size in range(1, setting.max_size + 1)
        )
        return min(batches, inf if self.loop_delay is None else self.loop_delay.capacity)

    def predict(
        self, setting: Setting, rate: float, *, refine: int = 1, trace: Iterable[float] | None = None
    ) -> Simulation:
        """Return the prediction for ``setting`` at ``rate`` calls a second, which should be below its capacity.

        It simulates ``refine`` times as many calls as a comparison needs. A ``trace`` gives the times of arrival.
        """
        load = min(rate / self.capacity(setting), 1.0)
        stretch = self.slowdown[setting.concurrency] / max(1 - rate * self.interference, MIN_SHARE)
        under_load = self._under_load
        calls = refine * min(max(round(SIMULATED_RUNS * rate * self.with_engine[1]), MIN_CALLS), MAX_CALLS)
        rng = Random(0)  # noqa: S311  # all settings are compared on the same calls
        return run_simulation(
            poisson_arrivals(rng, rate, calls) if trace is None else list(trace),
            checked_limits(setting.max_size, setting.timeout, setting.concurrency),
            {n: stretch * ((1 - load) * seconds + load * under_load[n]) for n, seconds in self._after_pause.items()},
            self.spread or None,
            rng,
            self.loop_delay,
        )

    @property
    def _after_pause(self) -> Mapping[int, float]:
        return self.slot_time or self.with_engine

    @property
    def _under_load(self) -> Mapping[int, float]:
        return self.back_to_back or self._after_pause


def _without_outliers(times: Sequence[float]) -> list[float]:
    limit = OUTLIER * median(times)
    return [each for each in times if each <= limit]


def _loop_delay(samples: Samples, round_trip: float) -> LoopDelay | None:
    """Return the parts of the delay to a batch and back, which is ``round_trip`` seconds for a single item."""
    if round_trip <= 0:
        return None
    # The loop wakes up twice for a batch, and handles each call twice.
    loop_cpu = {size: mean(run.loop_cpu for run in runs) for size, runs in samples.runs.items()}
    # With a coarse clock of CPU time, some batches seem to take none.
    cpu = LinearCost.fit(loop_cpu) if all(loop_cpu.values()) else LinearCost(0.0, 0.0)
    wake_delay = median(run.wake_delay for runs in samples.runs.values() for run in runs)
    per_call = min(cpu.per_item / 2, round_trip / 2)
    wake = min(wake_delay + cpu.fixed / 2, round_trip / 2 - per_call)
    return LoopDelay(wake, per_call, round_trip - 2 * (wake + per_call))


def _merged(one: Mapping[int, list[T]], other: Mapping[int, list[T]]) -> dict[int, list[T]]:
    return {key: [*one.get(key, []), *other.get(key, [])] for key in {**one, **other}}
