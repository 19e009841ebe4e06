"""What was measured, turned into what batches take and what calls would.

Decides: what a batch costs, whether batching pays, what can be answered, what options would do to latency.
Must not know: clocks, engines, how anything was measured, which options are best.

A batch of n items takes ``together[n]`` seconds from the calls to the last answer: the function, the hand-over and the
engine. It keeps its slot for ``slots[n]`` of them, which is what the simulation is given as a run time; the rest is its
``crossing``, the way there and back, which other batches do not wait for. A call that comes while a batch runs takes
``crowding`` from it, since it needs the same interpreter: at r calls a second a batch is longer by the factor
1 / (1 - r * crowding).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import fsum, inf, sqrt
from random import Random
from statistics import mean, median
from typing import TYPE_CHECKING, TypeVar

from batchify._planning.loop_delay import Crossing
from batchify._planning.simulation import by_size, drawn, limits_of, simulated

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from batchify._planning.simulation import Simulation

T = TypeVar("T")

# Batching that saves less than this does not pay.
LEAST_GAIN = 1.1
# Calls come for as long as so many runs of an item alone, within bounds: then a 99th percentile is one of many batches.
RUNS, LEAST, MOST = 200, 4_000, 16_000
# A batch that took so many times as long as most was held up by something else.
FAR = 4.0
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


@dataclass(frozen=True)
class Run:
    """What a batch took, in seconds.

    Attributes:
        function: the batch function alone.
        total: from when its calls were due to its last answer.
        late: from when its calls were due until the loop was awake to make them.
        loop: what the thread of the loop computed from then on.
        slot: how long another one, of as many items, kept its slot.
        warm: the same, of one that followed another one at once.
    """

    function: float
    total: float
    late: float
    loop: float
    slot: float
    warm: float


@dataclass
class Samples:
    """What was measured.

    Attributes:
        runs: batches by size.
        crowding: what a call took from a running batch.
        slowdown: by how many batches ran at once, how many times as long one took.
    """

    runs: dict[int, list[Run]] = field(default_factory=dict[int, "list[Run]"])
    crowding: list[float] = field(default_factory=list[float])
    slowdown: dict[int, list[float]] = field(default_factory=dict[int, "list[float]"])

    def __add__(self, other: Samples) -> Samples:
        return Samples(
            _joined(self.runs, other.runs),
            self.crowding + other.crowding,
            _joined(self.slowdown, other.slowdown),
        )


@dataclass(frozen=True)
class Cost:
    """What batches take, in seconds.

    Attributes:
        together: by size, from the calls to the last answer.
        function: by size, the batch function alone.
        spread: how much the time that a slot is kept varies: standard deviation as a share of the mean.
        crowding: what a call that comes while a batch runs takes from it.
        slowdown: by how many batches run at once, how many times as long one takes.
        slots: by size, how long a batch keeps its slot; as ``together`` if not known.
        warm: the same, of batches that follow each other at once; as ``slots`` if not known.
        crossing: the way of a call to its batch and back; ``None`` if batches are all there is.
    """

    together: Mapping[int, float]
    function: Mapping[int, float]
    spread: float = 0.0
    crowding: float = 0.0
    slowdown: Mapping[int, float] = field(default_factory=lambda: {1: 1.0})
    slots: Mapping[int, float] | None = None
    warm: Mapping[int, float] | None = None
    crossing: Crossing | None = None

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
        each = {size: seconds / size + self.crowding for size, seconds in self._warm.items()}
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
        typical = by_size(self._warm, max_size)
        slow = self.slowdown[concurrency]
        batches = max(
            concurrency * size / (slow * typical[size] + concurrency * size * self.crowding)
            for size in range(1, max_size + 1)
        )
        return min(batches, inf if self.crossing is None else self.crossing.capacity)

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
        stretch = self.slowdown[setting.concurrency] / max(1 - rate * self.crowding, LEAST_LEFT)
        warm = self._warm
        calls = finer * min(max(round(RUNS * rate * self.together[1]), LEAST), MOST)
        chance = Random(0)  # noqa: S311  # all settings get the same calls
        return simulated(
            drawn(chance, rate, 1, calls) if trace is None else list(trace),
            limits_of(setting.max_size, setting.timeout, setting.concurrency),
            {n: stretch * ((1 - load) * seconds + load * warm[n]) for n, seconds in self._cold.items()},
            self.spread or None,
            chance,
            self.crossing,
        )

    @property
    def _cold(self) -> Mapping[int, float]:
        return self.together if self.slots is None else self.slots

    @property
    def _warm(self) -> Mapping[int, float]:
        return self._cold if self.warm is None else self.warm


def cost(samples: Samples) -> Cost:
    """Return what batches take, but for the few that something held up."""
    taken = samples.runs.items()
    function = {size: median(run.function for run in runs) for size, runs in taken}
    together = {size: median(run.total for run in runs) for size, runs in taken}
    kept = {size: _usual([run.slot for run in runs]) for size, runs in taken}
    slots = {size: mean(times) for size, times in kept.items()}
    warm = {size: mean(_usual([run.warm for run in runs])) for size, runs in taken}
    spread = sqrt(mean((each / slots[size] - 1) ** 2 for size, times in kept.items() for each in times))
    slower = {count: max(1.0, median(times)) for count, times in samples.slowdown.items()}
    return Cost(
        together,
        function,
        spread if spread >= STEADY else 0.0,
        max(0.0, median(samples.crowding)) if samples.crowding else 0.0,
        {1: 1.0, **slower},
        slots,
        # A size is warmer than it is cold, or it is noise.
        {size: min(slots[size], seconds) for size, seconds in warm.items()},
        _crossing(samples, together[1] - median(kept[1])),
    )


def _usual(times: Sequence[float]) -> list[float]:
    """Return the times that are not far longer than most."""
    far = FAR * median(times)
    return [each for each in times if each <= far]


def _crossing(samples: Samples, way: float) -> Crossing | None:
    """Return what the way there and back is made of, which takes an item alone so many seconds."""
    if way <= 0:
        return None
    # The loop wakes twice for a batch, and has each call in hand twice.
    loop = {size: mean(run.loop for run in runs) for size, runs in samples.runs.items()}
    # Where clocks of threads are coarse, a few batches seem to take nothing.
    computed = fit(loop) if all(loop.values()) else Line(0.0, 0.0)
    late = median(run.late for runs in samples.runs.values() for run in runs)
    each = min(computed.b / 2, way / 2)
    wake = min(late + computed.a / 2, way / 2 - each)
    return Crossing(wake, each, way - 2 * (wake + each))


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


def _joined(one: Mapping[int, list[T]], other: Mapping[int, list[T]]) -> dict[int, list[T]]:
    return {key: [*one.get(key, []), *other.get(key, [])] for key in {**one, **other}}
