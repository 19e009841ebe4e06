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

from batchify._planning.simulation import poisson_arrivals
from batchify._stats.snapshot import percentiles

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from batchify._stats.snapshot import Percentiles


@dataclass
class Load:
    """Calls and their outcome so far, in seconds."""

    # The times of all calls since the first.
    due: Sequence[float]
    # For each answered call, the time from when it was due to its answer.
    latencies: list[float] = field(default_factory=list[float])
    # For each call made, the time from when it was due until it was made.
    delays: list[float] = field(default_factory=list[float])
    # Number of failed calls by type of exception.
    errors: Counter[str] = field(default_factory=Counter[str])
    # From the first call to the last outcome.
    duration: float = 0.0

    @property
    def latency_ms(self) -> Percentiles:
        return percentiles(self.latencies, max(self.latencies, default=0.0))

    @property
    def delay_ms(self) -> Percentiles:
        return percentiles(self.delays, max(self.delays, default=0.0))

    @property
    def throughput(self) -> float:
        return len(self.latencies) / self.duration if self.duration else 0.0


def arrivals(rate: float, seconds: float, seed: int) -> list[float]:
    """Return the times of a Poisson process of ``rate`` calls a second that begins with a call at 0."""
    rng = Random(seed)  # noqa: S311  # a load must be repeatable
    return [0.0, *poisson_arrivals(rng, rate, max(1, round(rate * seconds)) - 1)]


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
            load.latencies.append(loop.time() - start - due)
        load.duration = loop.time() - start

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
