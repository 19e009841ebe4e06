"""Calls that come at random, whether or not earlier ones are answered, and what becomes of them.

Decides: when calls are made, and from when their time counts.
Must not know: what is called, what was predicted.

The time of a call counts from the moment at which it was due. Who is late with a call, since the loop is busy, hides
nothing by it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from itertools import accumulate
from random import Random
from typing import TYPE_CHECKING, Any

from batchify._stats.snapshot import percentiles

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from batchify._stats.snapshot import Percentiles


@dataclass
class Load:
    """What became of calls so far.

    Attributes:
        due: moments of all calls, in seconds from the first.
        latencies: seconds from there to the answer, of those that have one.
        late: seconds by which calls were made late.
        errors: calls that failed, by kind of error.
        duration: seconds from the first call to the last answer.
    """

    due: Sequence[float]
    latencies: list[float] = field(default_factory=list[float])
    late: list[float] = field(default_factory=list[float])
    errors: Counter[str] = field(default_factory=Counter[str])
    duration: float = 0.0

    @property
    def latency_ms(self) -> Percentiles:
        """Percentiles of the latencies."""
        return percentiles(self.latencies, max(self.latencies, default=0.0))

    @property
    def late_ms(self) -> Percentiles:
        """Percentiles of how late calls were made."""
        return percentiles(self.late, max(self.late, default=0.0))

    @property
    def throughput(self) -> float:
        """Calls answered in a second."""
        return len(self.latencies) / self.duration if self.duration else 0.0


def poisson(rate: float, seconds: float, seed: int) -> list[float]:
    """Return moments that come independently of each other, ``rate`` a second on average; the first is at 0."""
    chance = Random(seed)  # noqa: S311  # a run can be repeated
    count = max(1, round(rate * seconds))
    return [0.0, *accumulate(chance.expovariate(rate) for _ in range(count - 1))]


async def offer(load: Load, calls: Sequence[Callable[[], Any]], seed: int) -> None:
    """Make the calls of ``load`` when they are due, and note in it what becomes of them.

    Args:
        load: when to call.
        calls: what to call and await; each time one of them is drawn.
        seed: the number that the draw follows from.
    """
    loop = asyncio.get_running_loop()
    chance = Random(seed)  # noqa: S311  # as above
    start = loop.time()

    async def one(call: Callable[[], Any], due: float) -> None:
        try:
            await call()
        except Exception as error:  # noqa: BLE001  # whatever a call raises is counted
            load.errors[type(error).__name__] += 1
        else:
            load.latencies.append(loop.time() - start - due)
        load.duration = loop.time() - start

    under_way: set[asyncio.Task[None]] = set()
    now = 0.0
    for due in load.due:
        # All that are due by now are made at once, as by a loop that finds several sockets ready.
        if due > now:
            await asyncio.sleep(start + due - loop.time())
            now = loop.time() - start
        load.late.append(now - due)
        task = loop.create_task(one(chance.choice(calls), due))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
    await asyncio.gather(*under_way)
