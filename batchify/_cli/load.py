"""Open-loop load generator: calls at random times, whether or not earlier ones are answered.

It decides when calls are made, and measures their latency. It must not know the called function or predictions.

The latency of a call counts from the time at which it was due, so it includes the delay of a busy loop.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

from batchify._planning.cost import RESAMPLES
from batchify._planning.simulation import poisson_arrivals
from batchify._stats.snapshot import percentiles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from batchify._stats.snapshot import Percentiles

# The parts of a load from which its bootstrap resamples are drawn. Calls of one part may share a batch.
PARTS = 10
# Enough calls for a 99th percentile. The prediction simulates them many times.
MAX_CALLS = 20_000


@dataclass
class Load:
    """Calls and their outcome so far, in seconds."""

    # The times of all calls since the first.
    due: Sequence[float]
    # For each answered call, the time of the answer since the first call, and the time from when it was due until then.
    answered: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    # For each call made, the time from when it was due until it was made.
    delays: list[float] = field(default_factory=list[float])
    # Number of failed calls by type of exception.
    errors: Counter[str] = field(default_factory=Counter[str])

    @property
    def delay_ms(self) -> Percentiles:
        return percentiles(self.delays, max(self.delays, default=0.0))

    def outcomes(self) -> Iterator[tuple[float, float, float]]:
        """Yield the median and the 99th percentile of the latency, and the throughput; then those of resamples."""
        size = -(-len(self.answered) // PARTS)
        parts = [self.answered[start : start + size] for start in range(0, len(self.answered), size)]
        starts = [0.0, *(part[-1][0] for part in parts)]
        seconds = [part[-1][0] - start for part, start in zip(parts, starts, strict=False)]
        rng = Random(0)  # noqa: S311  # equal draws make reports comparable
        numbers = range(len(parts))
        for chosen in (numbers, *(rng.choices(numbers, k=len(parts)) for _ in range(RESAMPLES))):
            latencies = [latency for number in chosen for _, latency in parts[number]]
            found = percentiles(latencies, max(latencies))
            yield found.p50, found.p99, len(latencies) / sum(seconds[number] for number in chosen)


def arrivals(rate: float, seconds: float, seed: int) -> list[float]:
    """Return the times of a Poisson process of ``rate`` calls a second that begins with a call at 0."""
    rng = Random(seed)  # noqa: S311  # a load must be repeatable
    return [0.0, *poisson_arrivals(rng, rate, min(max(1, round(rate * seconds)), MAX_CALLS) - 1)]


async def run_load(load: Load, calls: Sequence[Callable[[], Any]], seed: int) -> None:
    """Call and await one of ``calls``, drawn at random, whenever a call of ``load`` is due; add the outcome to it."""
    loop = asyncio.get_running_loop()
    rng = Random(seed)  # noqa: S311  # as above
    start = loop.time()

    async def make(call: Callable[[], Any], due: float) -> None:
        try:
            await call()
        except Exception as error:  # noqa: BLE001  # a call may raise anything
            load.errors[type(error).__name__] += 1
        else:
            now = loop.time() - start
            load.answered.append((now, now - due))

    tasks: set[asyncio.Task[None]] = set()
    now = 0.0
    for due in load.due:
        # All calls that are due by now are made at once, as by a loop that finds several sockets ready.
        if due > now:
            await asyncio.sleep(start + due - loop.time())
            now = loop.time() - start
        load.delays.append(now - due)
        task = loop.create_task(make(rng.choice(calls), due))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
