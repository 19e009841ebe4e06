"""Open-loop load generator: calls at random times, whether or not earlier ones are answered.

It decides when calls are made and from when their latency counts. It must not know which function is called, or which
result is predicted.

The latency of a call counts from the time at which it was due, so a call that a busy loop makes late hides nothing.
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
    """Calls and their outcome so far.

    Attributes:
        due: the times of all calls, in seconds since the first.
        latencies: for each answered call, seconds from the time it was due to its answer.
        delays: for each call made, seconds from the time it was due until it was made.
        errors: number of failed calls by type of exception.
        duration: seconds from the first call to the last outcome.
    """

    due: Sequence[float]
    latencies: list[float] = field(default_factory=list[float])
    delays: list[float] = field(default_factory=list[float])
    errors: Counter[str] = field(default_factory=Counter[str])
    duration: float = 0.0

    @property
    def latency_ms(self) -> Percentiles:
        """Percentiles of the latencies."""
        return percentiles(self.latencies, max(self.latencies, default=0.0))

    @property
    def delay_ms(self) -> Percentiles:
        """Percentiles of the delays."""
        return percentiles(self.delays, max(self.delays, default=0.0))

    @property
    def throughput(self) -> float:
        """Calls answered per second."""
        return len(self.latencies) / self.duration if self.duration else 0.0


def arrivals(rate: float, seconds: float, seed: int) -> list[float]:
    """Return the times of a Poisson process of ``rate`` calls a second, beginning with a call at 0."""
    rng = Random(seed)  # noqa: S311  # a load must be repeatable
    return [0.0, *poisson_arrivals(rng, rate, max(1, round(rate * seconds)) - 1)]


async def run_load(load: Load, calls: Sequence[Callable[[], Any]], seed: int) -> None:
    """Make the calls of ``load`` when they are due, and add their outcome to it.

    Args:
        load: the times at which to call.
        calls: functions to call and await; each time, one of them is drawn at random.
        seed: seed of the draw.
    """
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
