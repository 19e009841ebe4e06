"""The core in made-up time: what batching does to latency, found out without a single call.

Decides: when calls arrive, how long batches run, and how the outcome is summed up. What leaves together and when is up
to the core, as it is for the engines.
Must not know: engines, real clocks.

Time jumps from one event to the next: an arrival, the end of a batch, the moment at which the core wants to be asked.
All that falls on one moment happens before anything leaves, as on an event loop, where calls of one iteration travel
together. All chance comes from the seed, arrivals first: who compares options compares them on the same calls.
"""

from __future__ import annotations

from bisect import bisect
from collections import Counter
from collections.abc import Mapping
from copy import copy
from dataclasses import asdict, dataclass
from functools import partial
from heapq import heappop, heappush
from itertools import accumulate, chain, islice, pairwise, repeat
from math import fsum, inf, isfinite, log, log1p, sqrt
from random import Random
from typing import TYPE_CHECKING, Any

from batchify._core.limits import Limits, positive, seconds, whole
from batchify._core.queue import PlainQueue
from batchify._stats.snapshot import REASONS, Percentiles, percentiles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from batchify._core.batch import Batch
    from batchify._planning.loop_delay import Crossing

# A standard deviation of ten times the mean is beyond what functions do, and still far from where numbers end.
MOST_NOISE = 10.0


@dataclass(frozen=True)
class Simulation:
    """What came of a simulation.

    Attributes:
        calls: calls that arrived; all of them were answered.
        batches: batches that ran.
        duration_s: seconds from the first arrival to the last answer.
        throughput: calls answered in a second.
        utilization: the share of the time that a slot was taken. Near 1 the slots are never free. If batches are full
            then, the function can't keep up: the more calls are simulated, the longer they wait.
        avg_latency_ms: time from an arrival to its answer, on average.
        latency_ms: percentiles of the same, over all calls.
        avg_wait_ms: time from an arrival to the departure of its batch, on average.
        wait_ms: percentiles of the same, over all calls.
        avg_batch_size: items in a batch, on average.
        size_histogram: the number of batches of each size.
        reasons: the number of batches by why they left, as ``BatchStats`` has it.
    """

    calls: int
    batches: int
    duration_s: float
    throughput: float
    utilization: float
    avg_latency_ms: float
    latency_ms: Percentiles
    avg_wait_ms: float
    wait_ms: Percentiles
    avg_batch_size: float
    size_histogram: dict[int, int]
    reasons: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain dicts, strings and numbers, ready for JSON, whose keys are strings: sizes too."""
        plain = asdict(self)
        plain["size_histogram"] = {str(size): count for size, count in self.size_histogram.items()}
        return plain

    def __str__(self) -> str:
        left = ", ".join(f"{reason} {count:,}" for reason, count in self.reasons.items() if count)
        return (
            f"{self.calls:,} calls in {self.duration_s:,.1f} s, {self.throughput:,.1f} a second\n"
            f"{self.batches:,} batches of {self.avg_batch_size:,.1f} items, {self.utilization:.0%} busy ({left})\n"
            f"latency  {_row(self.avg_latency_ms, self.latency_ms)}\n"
            f"waiting  {_row(self.avg_wait_ms, self.wait_ms)}"
        )


def simulate(
    *,
    run_time: Mapping[int, float],
    rate: float | None = None,
    burst: int = 1,
    calls: int = 50_000,
    trace: Iterable[float] | None = None,
    noise: float | None = None,
    seed: int = 0,
    max_size: int = 32,
    timeout: float | None = None,
    concurrency: int = 1,
) -> Simulation:
    """Tell what a batched function would do to its callers, from how long it runs and how often it is called.

    What happens to the 99th percentile with a window of 5 ms, at 300 calls a second, of a function that takes 4.1 ms
    for one item and 7.2 ms for 32:

        simulate(run_time={1: 0.0041, 32: 0.0072}, rate=300, timeout=0.005).latency_ms.p99

    Equal arguments give equal results. Batching itself is taken to cost nothing: an engine adds some microseconds.

    Args:
        run_time: seconds that a batch runs, by its size, as measured for a few sizes; a straight line joins neighbours,
            and goes on beyond the first and the last two. ``{0: a, 1: a + b}`` are a seconds and b for each item; one
            size alone is a function that takes the same time for any.
        rate: calls a second, on average; they come independently of each other, as a Poisson process.
        burst: calls that come at the same moment; it is the bursts then that come independently, as often as makes
            ``rate``.
        calls: how many calls ``rate`` stands for.
        trace: moments of arrival in seconds, in order, as recorded somewhere; instead of ``rate``, ``burst`` and
            ``calls``.
        noise: how much run times vary: their standard deviation as a share of their mean; ``None``: not at all. Their
            distribution is log-normal, in which a few are far longer than the others, as it is with services.
        seed: the number that all chance follows from.
        max_size: most items in a batch.
        timeout: seconds that the first item waits for others; ``None`` adapts.
        concurrency: most batches that run at once.

    Raises:
        TypeError: an argument is of the wrong kind, or neither or both of ``rate`` and ``trace`` are given.
        ValueError: an argument is out of range, or ``trace`` is not in order.
    """
    if (rate is None) is (trace is None):
        msg = "simulate() takes either rate or trace: how often calls come, or when they came"
        raise TypeError(msg)
    limits = limits_of(max_size, timeout, concurrency)
    chance = Random(seed)  # noqa: S311  # chance that can be repeated is what a simulation is about
    arrivals = drawn(chance, rate, burst, calls) if trace is None else _recorded(trace)
    return simulated(arrivals, limits, run_time, noise, chance)


def simulated(
    due: Sequence[float],
    limits: Limits,
    run_time: Mapping[int, float],
    noise: float | None,
    chance: Random,
    crossing: Crossing | None = None,
) -> Simulation:
    """Return what comes of calls that are due at these moments.

    Args:
        due: the moments, in order.
        limits: options.
        run_time: seconds that a batch runs, by its size.
        noise: how much they vary.
        chance: what noise is drawn from.
        crossing: the way of calls to the engine and back, if it takes time.
    """
    typical = by_size(run_time, min(limits.max_size, len(due)))

    def run(arrivals: Iterable[float]) -> Iterator[tuple[Batch, float]]:
        # Drawn anew each time: whoever asks twice gets the same function.
        vary = variation(copy(chance), noise)
        return departures(PlainQueue(limits), arrivals, lambda size: typical[size] * vary())

    left = ((batch, over, over) for batch, over in run(due)) if crossing is None else crossing.through(due, run)
    return _summary(left, due[0], limits.concurrency)


def departures(
    queue: PlainQueue, arrivals: Iterable[float], run_time: Callable[[int], float]
) -> Iterator[tuple[Batch, float]]:
    """Yield each batch as it leaves, with the moment at which it will be over.

    Args:
        queue: decides what leaves together and when; it is new.
        arrivals: moments of arrival in seconds, in order.
        run_time: tells how many seconds a batch of so many items runs.
    """
    # Moments at which batches are over, each with the number of its batch, since batches have no order.
    ends: list[tuple[float, int, Batch]] = []
    number = 0
    # When something other than an arrival happens next.
    soonest = inf
    add = queue.add
    for arrived in chain(arrivals, [inf]):
        while soonest < arrived:
            now, soonest = soonest, inf
            while ends and ends[0][0] == now:
                queue.finish(heappop(ends)[2], now)
            # To ask whether anything waits costs a tenth of asking for a batch.
            while queue.waiting:
                batch = queue.take(now)
                if batch is None:
                    soonest = inf if queue.wake_at is None else queue.wake_at
                    break
                end = now + run_time(batch.size)
                heappush(ends, (end, number, batch))
                number += 1
                yield batch, end
            if ends:
                soonest = min(soonest, ends[0][0])
        if arrived < inf and add(None, None, arrived) >= queue.wake_ticket:
            soonest = arrived


def limits_of(max_size: object, timeout: object, concurrency: object) -> Limits:
    return Limits(
        max_size=whole("max_size", max_size),
        timeout=seconds("timeout", timeout),
        concurrency=whole("concurrency", concurrency),
    )


def drawn(chance: Random, rate: object, burst: object, calls: object) -> list[float]:
    """Return the moments of a Poisson process of bursts."""
    size, count = whole("burst", burst), whole("calls", calls)
    pace = _number("rate", rate) / size
    draw = chance.random
    # Poisson arrivals are an exponential distance apart.
    moments = accumulate(-log(1.0 - draw()) / pace for _ in range(-(-count // size)))
    return list(islice(chain.from_iterable(map(repeat, moments, repeat(size))), count))


def _recorded(trace: Iterable[float]) -> list[float]:
    arrivals = [float(moment) for moment in trace]
    if not arrivals:
        msg = "trace must have at least one moment of arrival"
        raise ValueError(msg)
    for before, after in pairwise(chain(arrivals[:1], arrivals)):
        if not (isfinite(after) and before <= after):
            msg = f"trace must be finite moments in order, got {after!r} after {before!r}"
            raise ValueError(msg)
    return arrivals


def by_size(run_time: Mapping[int, float], largest: int) -> list[float]:
    """Return how many seconds a batch runs without noise, by its size, up to the largest; nothing stands at 0."""
    points = _points(run_time)
    sizes = [size for size, _ in points]
    # A single one is its own neighbour.
    lines = list(pairwise(points)) or [(points[0], (points[0][0] + 1, points[0][1]))]
    typical = [0.0]
    for size in range(1, largest + 1):
        (left, low), (right, high) = lines[min(max(bisect(sizes, size) - 1, 0), len(lines) - 1)]
        typical.append(low + (high - low) * (size - left) / (right - left))
        if typical[size] <= 0:
            msg = f"run_time must be above 0 for any batch, got {typical[size]:g} s for one of {size}"
            raise ValueError(msg)
    return typical


def _points(run_time: Any) -> list[tuple[int, float]]:
    """Return the measured sizes and their run times, smallest first."""
    if not (issubclass(type(run_time), Mapping) and run_time):
        msg = f"run_time must map batch sizes to seconds, as {{1: 0.004, 32: 0.007}} does, got {run_time!r}"
        raise TypeError(msg)
    return sorted(
        (0 if size == 0 else whole("a size in run_time", size), _number(f"run_time of {size!r}", seconds))
        for size, seconds in run_time.items()
    )


def _number(option: str, value: object) -> float:
    number = positive(option, value)
    if number is None:
        msg = f"{option} must be a number, got None"
        raise TypeError(msg)
    return number


def variation(chance: Random, noise: float | None) -> Callable[[], float]:
    """Return what draws factors whose mean is 1, and whose standard deviation is ``noise``."""
    if not noise:
        return lambda: 1.0
    spread = _number("noise", noise)
    if spread > MOST_NOISE:
        msg = f"noise must be at most {MOST_NOISE:g}, got {noise!r}"
        raise ValueError(msg)
    variance = log1p(spread * spread)
    return partial(chance.lognormvariate, -variance / 2, sqrt(variance))


def _summary(left: Iterable[tuple[Batch, float, float]], began: float, concurrency: int) -> Simulation:
    latencies: list[float] = []
    waits: list[float] = []
    runs: list[float] = []
    sizes: Counter[int] = Counter()
    reasons: Counter[str] = Counter()
    ended = began
    for batch, over, answered in left:
        departed = batch.departed
        latencies += [answered - arrived for arrived in batch.arrived]
        waits += [departed - arrived for arrived in batch.arrived]
        runs.append(over - departed)
        sizes[batch.size] += 1
        reasons[batch.reason] += 1
        ended = max(ended, answered)
    calls, batches, duration = len(latencies), len(runs), ended - began
    return Simulation(
        calls=calls,
        batches=batches,
        duration_s=duration,
        throughput=calls / duration,
        utilization=fsum(runs) / (concurrency * duration),
        avg_latency_ms=1000 * fsum(latencies) / calls,
        latency_ms=percentiles(latencies, max(latencies)),
        avg_wait_ms=1000 * fsum(waits) / calls,
        wait_ms=percentiles(waits, max(waits)),
        avg_batch_size=calls / batches,
        size_histogram=dict(sorted(sizes.items())),
        reasons={reason: reasons[reason] for reason in REASONS},
    )


def _row(average: float, percentiles: Percentiles) -> str:
    figures = {"average": average, **asdict(percentiles)}
    return "  ".join(f"{name} {value:,.2f}" for name, value in figures.items()) + " ms"
