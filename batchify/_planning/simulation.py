"""Discrete-event simulation that drives the core: the effect of batching on latency, without a real call.

It decides when calls arrive, how long batches run, and how the outcome is summarized; the core decides which items
leave together and when, as it does for the engines. It must not know engines or real clocks.

Virtual time advances to the next event: an arrival, the end of a batch, or the core's next departure. All events at one
time precede a departure, as the calls in one iteration of an event loop share a batch. All randomness comes from the
seed, and arrivals are drawn first, so that different options are compared on the same calls.
"""

from __future__ import annotations

from bisect import bisect
from collections import Counter
from collections.abc import Mapping
from copy import copy
from dataclasses import asdict, dataclass, replace
from functools import partial
from heapq import heappop, heappush
from itertools import accumulate, chain, count, pairwise
from math import fsum, inf, isfinite, log1p, sqrt
from random import Random
from typing import TYPE_CHECKING, Any

from batchify._core.entries import Entry
from batchify._core.grouped import GroupedQueue
from batchify._core.limits import Limits, check_sizes, increasing, number, positive, seconds, whole
from batchify._core.queue import PlainQueue
from batchify._core.run_cost import RunCost
from batchify._stats.snapshot import REASONS, Percentiles, percentiles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from batchify._core.batch import Batch
    from batchify._planning.loop_delay import LoopDelay

# A standard deviation of ten times the mean is beyond any real function, and far from overflow.
MAX_NOISE = 10.0


@dataclass(frozen=True)
class Simulation:
    """The outcome of a simulation.

    Attributes:
        calls: number of calls, all of them answered.
        batches: number of batches.
        duration_s: seconds from the first arrival to the last answer.
        throughput: calls answered per second.
        utilization: share of slot time in which batches ran. If it is near 1 and batches are full, the function cannot
            keep up: the more calls are simulated, the longer they wait.
        avg_latency_ms: mean time from an arrival to its answer.
        latency_ms: percentiles of that time over all calls.
        avg_wait_ms: mean time from an arrival to the departure of its batch.
        wait_ms: percentiles of that time over all calls.
        avg_batch_size: mean number of items in a batch.
        size_histogram: number of batches of each size.
        reasons: number of batches by reason of departure, as in ``BatchStats``.
        padded_items: number of items that were added to pad batches up to one of ``sizes``.
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
    padded_items: int

    def to_dict(self) -> dict[str, Any]:
        """Return all figures as plain dicts, strings and numbers, ready for JSON; batch sizes become strings."""
        return asdict(self) | {"size_histogram": {str(size): count for size, count in self.size_histogram.items()}}

    def __str__(self) -> str:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in self.reasons.items() if count)
        return (
            f"{self.calls:,} calls in {self.duration_s:,.1f} s, {self.throughput:,.1f} a second\n"
            f"{self.batches:,} batches of {self.avg_batch_size:,.1f} items, {self.utilization:.0%} busy ({reasons})\n"
            f"latency  {_times(self.avg_latency_ms, self.latency_ms)}\n"
            f"waiting  {_times(self.avg_wait_ms, self.wait_ms)}"
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
    max_size: int | None = None,
    timeout: float | None = None,
    concurrency: int = 1,
    sizes: Iterable[int] | None = None,
    lengths: Iterable[float] | None = None,
    by_length: bool = True,
    max_padded: float | None = None,
) -> Simulation:
    """Predict the latency and throughput of a batched function from its run time and the rate of its calls.

    For example, a function takes 4.1 ms for one item and 7.2 ms for 32, and is called 300 times a second. This is the
    99th percentile of its latency with a window of 5 ms:

        simulate(run_time={1: 0.0041, 32: 0.0072}, rate=300, timeout=0.005).latency_ms.p99

    Equal arguments give equal results. The cost of the engine, some microseconds for each call, is not included.

    Args:
        run_time: seconds that a batch runs, by batch size, as measured for a few sizes. A straight line connects
            neighbouring sizes and continues beyond the first and the last two. ``{0: a, 1: a + b}`` means a seconds
            plus b for each item; a single size means the same run time for every size. With ``lengths``, by padded
            size: the number of items times the longest length.
        rate: mean number of calls per second. Calls arrive independently of each other, as a Poisson process.
        burst: number of calls that arrive together, in bursts that are independent of each other.
        calls: number of calls to simulate with ``rate``.
        trace: recorded times of arrival in seconds, in order; used instead of ``rate``, ``burst`` and ``calls``.
        noise: standard deviation of run times as a share of their mean; ``None`` means no variation. The distribution
            is log-normal: a few runs take far longer than the others, as in real services.
        seed: seed of all randomness.
        max_size: maximum number of items in a batch; ``None`` means the last of ``sizes``, or 32 without them.
        timeout: seconds that the first item waits for others; ``None`` adapts to the load.
        concurrency: maximum number of batches that run at once.
        sizes: the sizes that batches are padded up to; ``None`` means no padding.
        lengths: typical lengths of items, for a function that pads all items to the longest of their batch. Each call
            has one of them, at random.
        by_length: whether items of similar length share batches, as with the option ``length``. Otherwise, batches form
            in order of arrival.
        max_padded: maximum of the number of items in a batch times the longest length, with ``by_length``.

    Raises:
        TypeError: an argument has the wrong type, or ``rate`` and ``trace`` are both given or both missing.
        ValueError: an argument is out of range, or ``trace`` is empty or not in order.
    """
    if (rate is None) is (trace is None):
        msg = "simulate() needs either rate (how often calls arrive) or trace (when they arrived), and not both"
        raise TypeError(msg)
    limits = checked_limits(max_size, timeout, concurrency, sizes)
    rng = Random(seed)  # noqa: S311  # a simulation must be repeatable
    if trace is None:
        due = poisson_arrivals(rng, _positive("rate", rate), whole("calls", calls), whole("burst", burst))
    else:
        due = _checked_trace(trace)
    chosen: list[float] | None = None
    entries: list[Entry] = []
    if lengths is None:
        # The run time of a size that no batch has must be valid too.
        largest = min(limits.max_size, len(due))
        interpolate(run_time, largest + limits.padding(largest))
    else:
        longest = positive("max_padded", max_padded)
        choices = [_checked_length(length, inf if longest is None else longest) for length in lengths]
        if not choices:
            msg = "lengths must contain at least one length"
            raise ValueError(msg)
        chosen = [rng.choice(choices) for _ in due]
        if by_length:
            limits = replace(limits, max_padded=longest, run_cost=RunCost())
            entries = [Entry(length, None, length, None) for length in chosen]
    typical = line_through(run_time)
    factor = noise_source(rng, noise)

    def seconds_of(batch: Batch) -> float:
        size: float = batch.size + batch.padding
        if chosen is not None:
            size *= max(map(chosen.__getitem__, batch.waiters))
        return typical(size) * factor()

    return run_simulation(due, limits, lambda: seconds_of, entries)


def run_simulation(
    due: Sequence[float],
    limits: Limits,
    new_run_time: Callable[[], Callable[[Batch], float]],
    entries: Sequence[Entry] = (),
    loop_delay: LoopDelay | None = None,
) -> Simulation:
    """Return the outcome for calls that are due at the given times; the other arguments as in ``departures``."""

    def run(arrivals: Iterable[float]) -> Iterator[tuple[Batch, float]]:
        queue = GroupedQueue(limits) if entries else PlainQueue(limits)
        return departures(queue, arrivals, new_run_time(), entries)

    answered = ((batch, end, end) for batch, end in run(due)) if loop_delay is None else loop_delay.apply(due, run)
    return _summarize(answered, due[0], limits.concurrency)


def departures(
    queue: PlainQueue | GroupedQueue,
    arrivals: Iterable[float],
    run_time: Callable[[Batch], float],
    entries: Sequence[Entry] = (),
) -> Iterator[tuple[Batch, float]]:
    """Yield each batch as it leaves an empty queue, with its end.

    ``run_time`` returns the seconds for a batch. A waiter is the number of its call. A grouped queue gets a copy of an
    entry for each call.
    """
    # The ends of running batches, each with a serial number, because batches cannot be compared.
    ends: list[tuple[float, int, Batch]] = []
    serial = count()
    # The time of the next event that is not an arrival.
    next_at = inf
    for call, arrived in enumerate(chain(arrivals, [inf])):
        while next_at < arrived:
            now, next_at = next_at, inf
            while ends and ends[0][0] == now:
                ended = heappop(ends)[2]
                queue.finish(ended, now)
                ended.learn(now - ended.departed)
            while (batch := queue.take(now)) is not None:
                batch.padding = queue.padding(batch.size)
                end = now + run_time(batch)
                heappush(ends, (end, next(serial), batch))
                yield batch, end
            at = queue.plan()
            next_at = min(inf if at is None else at, ends[0][0] if ends else inf)
        if arrived < inf:
            if isinstance(queue, PlainQueue):
                queue.places += (None, call, arrived)
                if len(queue.places) < queue.wake_length:
                    continue
            else:
                queue.add(copy(entries[call]), call, arrived)
                queue.admit_waiting()
            next_at = arrived


def checked_limits(max_size: object, timeout: object, concurrency: object, sizes: object = None) -> Limits:
    known = increasing("sizes", sizes)
    limits = Limits(
        max_size=(known or (32,))[-1] if max_size is None else whole("max_size", max_size),
        timeout=seconds("timeout", timeout),
        concurrency=whole("concurrency", concurrency),
        sizes=known,
    )
    check_sizes(limits)
    return limits


def poisson_arrivals(rng: Random, rate: float, calls: int, burst: int = 1) -> list[float]:
    """Return the times of arrival in bursts that form a Poisson process, with ``rate`` calls a second."""
    gaps = (rng.expovariate(rate / burst) for _ in range(-(-calls // burst)))
    return [time for time in accumulate(gaps) for _ in range(burst)][:calls]


def _checked_trace(trace: Iterable[float]) -> list[float]:
    arrivals = [float(time) for time in trace]
    if not arrivals:
        msg = "trace must contain at least one time of arrival"
        raise ValueError(msg)
    for before, after in pairwise(chain(arrivals[:1], arrivals)):
        if not (isfinite(after) and before <= after):
            msg = f"trace must be finite times in order, got {after!r} after {before!r}"
            raise ValueError(msg)
    # From the first one on, because large numbers, as of nanoseconds since 1970, have no fractions.
    return [time - arrivals[0] for time in arrivals]


def interpolate(run_time: Mapping[int, float], largest: int) -> list[float]:
    """Return the run time without noise for each batch size up to ``largest``; index 0 is unused."""
    return [0.0, *map(line_through(run_time), range(1, largest + 1))]


def line_through(run_time: Mapping[int, float]) -> Callable[[float], float]:
    """Return a function that returns the run time without noise for a size."""
    points = _checked_points(run_time)
    sizes = [size for size, _ in points]
    # A single point is its own neighbour.
    lines = list(pairwise(points)) or [(points[0], (points[0][0] + 1, points[0][1]))]

    def typical(size: float) -> float:
        (left, low), (right, high) = lines[min(max(bisect(sizes, size) - 1, 0), len(lines) - 1)]
        seconds = low + (high - low) * (size - left) / (right - left)
        if seconds <= 0:
            msg = f"run_time must be above 0 for every batch size, got {seconds:g} s for size {size:g}"
            raise ValueError(msg)
        return seconds

    return typical


def _checked_points(run_time: Any) -> list[tuple[int, float]]:
    if not (issubclass(type(run_time), Mapping) and run_time):
        msg = f"run_time must map batch sizes to seconds, for example {{1: 0.004, 32: 0.007}}, got {run_time!r}"
        raise TypeError(msg)
    return sorted(
        (0 if size == 0 else whole("a batch size in run_time", size), _positive(f"run_time[{size!r}]", seconds))
        for size, seconds in run_time.items()
    )


def _checked_length(length: object, longest: float) -> float:
    checked = number("a length", length)
    if not 0 <= checked <= longest:
        msg = f"lengths must be at least 0 and at most max_padded, got {length!r}"
        raise ValueError(msg)
    return checked


def _positive(option: str, value: object) -> float:
    checked = positive(option, value)
    if checked is None:
        msg = f"{option} must be a number, got None"
        raise TypeError(msg)
    return checked


def noise_source(rng: Random, noise: float | None) -> Callable[[], float]:
    """Return a function that draws factors with mean 1 and standard deviation ``noise``."""
    if not noise:
        return lambda: 1.0
    deviation = _positive("noise", noise)
    if deviation > MAX_NOISE:
        msg = f"noise must be at most {MAX_NOISE:g}, got {noise!r}"
        raise ValueError(msg)
    variance = log1p(deviation * deviation)
    return partial(rng.lognormvariate, -variance / 2, sqrt(variance))


def _summarize(answered: Iterable[tuple[Batch, float, float]], began: float, concurrency: int) -> Simulation:
    latencies: list[float] = []
    waits: list[float] = []
    runs: list[float] = []
    sizes: Counter[int] = Counter()
    reasons: Counter[str] = Counter()
    padded = 0
    ended = began
    for batch, end, answered_at in answered:
        latencies += [answered_at - arrived for arrived in batch.arrived]
        waits += [batch.departed - arrived for arrived in batch.arrived]
        runs.append(end - batch.departed)
        sizes[batch.size] += 1
        reasons[batch.reason] += 1
        padded += batch.padding
        ended = max(ended, answered_at)
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
        padded_items=padded,
    )


def _times(average: float, percentiles: Percentiles) -> str:
    figures = {"average": average, **asdict(percentiles)}
    return "  ".join(f"{name} {value:,.2f}" for name, value in figures.items()) + " ms"
