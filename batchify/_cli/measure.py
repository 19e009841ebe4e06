"""Measure the times of batches in the engine that runs them.

It decides how and how often a batch is timed, and finds the item that makes it fail. It must not know how the times are
used or shown.

All calls come from one event loop. The batch function runs as usual: on the loop, or on a thread of the engine.
"""

from __future__ import annotations

import asyncio
from random import Random
from selectors import SelectSelector
from statistics import median
from time import perf_counter, thread_time
from typing import TYPE_CHECKING, Any

from batchify._cli.loading import CommandError, location_of
from batchify._decorator.microbatch import microbatch
from batchify._planning.cost import Run, Samples
from batchify.errors import BatchResultError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from batchify._cli.loading import Target

# A window that does not end during a measurement, so that only full batches leave.
HOUR = 3600.0
# Rounds through all sizes.
MIN_ROUNDS, MAX_ROUNDS = 3, 60
# Sizes grow until one batch of each has taken this share of the time, which leaves time for several rounds.
FIRST_ROUND = 1 / 6
# Seconds without a call before a batch, because waking up is part of the cost of a call.
PAUSE = 0.001
# Seconds to measure one size in a round.
SERIES = 0.02
# Before the measurement, items are tried in batches of this size, for at most this share of the time.
TRIAL_SIZE, TRIAL_SHARE = 32, 1 / 4
# Interference is measured on the largest batch that takes at most this many seconds.
INTERFERENCE_SECONDS = 0.05


class PreciseLoop(asyncio.SelectorEventLoop):
    """An event loop with timers to the microsecond: other selectors than ``select`` round up to milliseconds."""

    def __init__(self) -> None:
        super().__init__(SelectSelector())

    def time(self) -> float:
        return perf_counter()


class Meter:
    """Measures batches of random items: ``loop`` makes the calls, and its clock times them."""

    def __init__(self, target: Target, loop: asyncio.AbstractEventLoop, concurrency: int = 1) -> None:
        self.loop = loop
        self.concurrency = concurrency
        self.samples = Samples()
        self._target = target
        self._rng = Random(0)  # noqa: S311  # equal draws make measurements comparable
        # For each run of the function since the last calls, its start and its duration.
        self._function_runs: list[tuple[float, float]] = []
        timed = self._timed_async if target.is_async else self._timed
        self._call = microbatch(timed, timeout=HOUR, concurrency=concurrency, name=target.name)

    def try_items(self, seconds: float) -> Iterator[float]:
        """Run all items once, as far as time allows, and yield the share that is done."""
        rows, end = self._target.rows, self.loop.time() + TRIAL_SHARE * seconds
        for start in range(0, len(rows), TRIAL_SIZE):
            chosen = range(start, min(start + TRIAL_SIZE, len(rows)))
            self._call.configure(max_size=len(chosen))
            self._run(chosen)
            yield chosen.stop / len(rows)
            if self.loop.time() > end:
                return

    def measure(self, seconds: float, largest: int) -> Iterator[float]:
        """Measure batches of sizes up to ``largest`` in rounds, and yield the share of ``seconds`` that has passed."""
        start = self.loop.time()
        sizes: list[int] = []
        for size in doubling(largest):
            self._batch(size)
            sizes.append(size)
            passed = self.loop.time() - start
            yield min(passed / seconds, 1.0)
            if passed > FIRST_ROUND * seconds:
                break
        # Each round measures all sizes, so that other work of the machine affects all of them equally.
        for number in range(MAX_ROUNDS):
            for size in sizes:
                self._series(size)
                yield min(max((self.loop.time() - start) / seconds, number / MAX_ROUNDS), 1.0)
            self._interfere()
            if number + 1 >= MIN_ROUNDS and self.loop.time() - start > seconds:
                return

    def _series(self, size: int) -> None:
        """Sample batches of one size, one after the other, as under load."""
        end = self.loop.time() + SERIES
        # A first batch fills the caches, which hold the data of another size.
        self._batch(size)
        while True:
            run = Run(*self._batch(size), self._slot_time(size, PAUSE), self._slot_time(size, 0.0))
            # Only a complete run creates the list, because an interrupt may come at any time.
            self.samples.runs.setdefault(size, []).append(run)
            if self.loop.time() >= end:
                return

    def _batch(self, size: int, slots: int = 1) -> tuple[float, float, float, float]:
        """Run ``slots`` batches at once, and return the first four times of a ``Run``: ``function`` of the last one."""
        self._call.configure(max_size=size, concurrency=slots)
        due, awake, cpu = self._run(self._draw(size * slots), PAUSE)
        total = self.loop.time() - due
        return max(self._function_runs)[1], total, awake - due, cpu

    def _slot_time(self, size: int, pause: float) -> float:
        """Return how long a batch occupied its slot: until the next batch, which was queued, started."""
        self._call.configure(max_size=size, concurrency=1)
        self._run(self._draw(2 * size), pause)
        (first, _), (second, _) = sorted(self._function_runs)
        return second - first

    def _interfere(self) -> None:
        """Sample how much calls slow down a running batch, and how much batches slow down each other."""
        totals = {size: median(run.total for run in runs) for size, runs in self.samples.runs.items()}
        size = max((size for size, total in totals.items() if total <= INTERFERENCE_SECONDS), default=min(totals))
        self._call.configure(max_size=size, concurrency=1)
        end = self.loop.time() + SERIES
        while self.loop.time() < end:
            # The same items twice, because the cost of items varies.
            chosen = self._draw(size)
            due, _, _ = self._run(chosen)
            quiet = self.loop.time() - due
            busy, calls = self.loop.run_until_complete(self._run_among_calls(self._rows(chosen), 2 * quiet / size))
            self.samples.interference.append((busy - quiet) / calls)
        alone = self._batch(size)[0]
        for slots in doubling(self.concurrency):
            if slots > 1:
                self.samples.slowdown.setdefault(slots, []).append(self._batch(size, slots)[0] / alone)

    async def _run_among_calls(self, rows: list[Any], gap: float) -> tuple[float, int]:
        """Return the seconds that a batch takes while further calls arrive, and the number of these calls."""
        start = self.loop.time()
        ends: list[float] = []
        # Errors are ignored here: they also occur, and are reported, when a batch runs alone.
        batch = asyncio.gather(*[self._call.acall(row) for row in rows], return_exceptions=True)
        batch.add_done_callback(lambda _: ends.append(self.loop.time()))
        others: list[asyncio.Future[Any]] = []
        while not ends:
            await asyncio.sleep(start + (len(others) + 1) * gap - self.loop.time())
            others.append(asyncio.ensure_future(self._call.acall(self._rng.choice(self._target.rows))))
        await asyncio.sleep(0)
        self._call.flush()
        await asyncio.gather(batch, *others, return_exceptions=True)
        return ends[0] - start, len(others)

    def _draw(self, count: int) -> list[int]:
        return self._rng.choices(range(len(self._target.rows)), k=count)

    def _rows(self, chosen: Sequence[int]) -> list[Any]:
        return [self._target.rows[index] for index in chosen]

    def _run(self, chosen: Sequence[int], pause: float = 0.0) -> tuple[float, float, float]:
        """Return when the calls were due, when the loop was awake, and the CPU time of its thread from then on."""
        self._function_runs.clear()
        try:
            return self.loop.run_until_complete(self._call_all(chosen, pause))
        except Exception as error:  # noqa: BLE001  # a batch function may raise anything
            raise CommandError(self._bisect_failure(chosen, error)) from None

    async def _call_all(self, chosen: Sequence[int], pause: float = 0.0) -> tuple[float, float, float]:
        rows = self._rows(chosen)
        due = self.loop.time() + pause
        await asyncio.sleep(pause)
        awake, cpu = self.loop.time(), thread_time()
        await asyncio.gather(*[self._call.acall(row) for row in rows])
        return due, awake, thread_time() - cpu

    def _bisect_failure(self, chosen: Sequence[int], error: Exception) -> str:
        while len(chosen) > 1:
            middle = len(chosen) // 2
            for half in (chosen[:middle], chosen[middle:]):
                self._call.configure(max_size=len(half))
                try:
                    self.loop.run_until_complete(self._call_all(half))
                except Exception as failure:  # noqa: BLE001  # as above
                    chosen, error = half, failure
                    break
            else:
                items = f"{len(chosen)} items, including items[{chosen[0]}],"
                return f"{items} make {self._target.name}() fail together, but neither half alone: {_describe(error)}"
        return f"items[{chosen[0]}] makes {self._target.name}() fail: {_describe(error)}"

    def _timed(self, rows: list[Any]) -> Any:
        start = self.loop.time()
        results = self._target.run(rows)
        self._function_runs.append((start, self.loop.time() - start))
        return results

    async def _timed_async(self, rows: list[Any]) -> Any:
        start = self.loop.time()
        results = await self._target.run(rows)
        self._function_runs.append((start, self.loop.time() - start))
        return results


def _describe(error: Exception) -> str:
    """Return the type and the place of an error, without its message, which may quote an item."""
    if isinstance(error, BatchResultError):
        # This message comes from batchify, and never quotes an item.
        return str(error)
    cause = error.__cause__ or error
    return f"{type(cause).__name__}{location_of(cause)}"


def doubling(largest: int) -> Iterator[int]:
    """Yield the powers of two below ``largest``, then ``largest``."""
    size = 1
    while size < largest:
        yield size
        size *= 2
    yield largest
