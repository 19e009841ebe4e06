"""Measure the times of batches in the engine that runs them.

It decides how and how often a batch is timed, and finds the item that makes it fail. It must not know how the times are
used or shown.

All calls come from one event loop. The batch function runs as usual: on the loop, or on a thread of the engine. Every
round measures the same items in all sizes, after a pause and at overload, so that sizes and modes can be compared.
"""

from __future__ import annotations

import asyncio
from itertools import chain, cycle, islice
from math import inf
from random import Random
from selectors import SelectSelector
from time import perf_counter, process_time, thread_time
from typing import TYPE_CHECKING, Any

from batchify._cli.loading import CommandError, location_of
from batchify._decorator.microbatch import microbatch
from batchify._planning.cost import Cost, Round, Run
from batchify.errors import BatchResultError

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Iterator, Sequence

    from batchify._cli.loading import Target

# A window that does not end during a measurement, so that only full batches leave.
HOUR = 3600.0
# The number of rounds, which is the number of values for a bootstrap, if time allows: the number of items is chosen
# for this many.
ROUNDS, MIN_ROUNDS, MAX_ROUNDS = 12, 4, 60
# Sizes grow until one batch of each has taken this share of the time, which leaves time for several rounds.
FIRST_ROUND = 1 / 8
# Seconds without a call before a batch, because waking up is part of the cost of a call.
PAUSE = 0.001
# Before the measurement, items are tried for at most this share of the time.
TRIAL_SHARE = 1 / 4


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
        self.rounds: list[Round] = []
        self._target = target
        self._slots = [*doubling(concurrency)]
        self._rng = Random(0)  # noqa: S311  # equal draws make measurements comparable
        # For each run of the function since the last calls, its start and its duration.
        self._function_runs: list[tuple[float, float]] = []
        timed = self._timed_async if target.is_async else self._timed
        self._call: Any = microbatch(timed, timeout=HOUR, **target.options)

    def costs(self) -> list[Cost]:
        return Cost.resampled(self.rounds, self._target.workload)

    def try_items(self, seconds: float) -> Iterator[float]:
        """Run each item alone, as far as time allows, and yield the share that is done."""
        count, end = len(self._target.rows), self.loop.time() + TRIAL_SHARE * seconds
        for index in range(count):
            self._alone([index])
            yield (index + 1) / count
            if self.loop.time() > end:
                return

    def measure(self, seconds: float, largest: int) -> Iterator[float]:
        """Measure batches of sizes up to ``largest`` in rounds, and yield the share of ``seconds`` that has passed."""
        start = self.loop.time()
        # By size: the time of a batch, and a full batch for rounds that draw none, because items are too heavy.
        times: dict[int, float] = {}
        full: dict[int, list[int]] = {}
        for size in (sizes := self._sizes(largest)):
            full[size] = self._cut(self._draw(size), 0, size)
            if len(full[size]) < size:
                break
            times[size] = self._alone(full[size]).total
            passed = self.loop.time() - start
            yield min(passed / seconds, 1.0)
            if passed > FIRST_ROUND * seconds:
                break
        if len(times) == 1 < len(sizes):
            msg = (
                f"only batches of one item of {self._target.name}() could be measured, which says nothing about larger "
                f"ones; measure for longer: --seconds {4 * seconds:g}"
            )
            raise CommandError(msg)
        count = self._affordable(times, seconds / ROUNDS)
        for number in range(MAX_ROUNDS):
            items, done = self._draw(max(times)), Round()
            for size in times:
                batches = [self._cut(items, start, size) for start in range(0, max(count, size), size)]
                self._measure_size(done, size, [each for each in batches if len(each) == size] or [full[size]])
                yield min(max((self.loop.time() - start) / seconds, number / MAX_ROUNDS), 1.0)
            # Only complete rounds count, because an interrupt may come at any time.
            self.rounds.append(done)
            if number + 1 >= MIN_ROUNDS and self.loop.time() - start > seconds:
                return

    def _sizes(self, largest: int) -> list[int]:
        """Return the sizes to measure: powers of two, or those that the function is always called with."""
        sizes = self._target.workload.limits.sizes
        if sizes is None:
            return [*doubling(largest)]
        return sorted({1, sizes[0], *(size for size in sizes if size <= largest)})

    def _configure(self, size: int, slots: int) -> None:
        # Not ``configure()``, which refuses a size below the last of ``sizes``.
        self._call._self_scope.change({"max_size": size, "concurrency": slots})

    def _affordable(self, times: dict[int, float], seconds: float) -> int:
        """Return the number of items for which a round takes ``seconds``, or twice the least time if that is longer."""
        modes = 1 + len(self._slots)

        def needed(count: int) -> float:
            return sum(time * modes * (max(count // size, 1) + 2) for size, time in times.items())

        count = max(times)
        while needed(count) > max(seconds, 2 * needed(1)):
            count //= 2
        return count

    def _measure_size(self, done: Round, size: int, batches: Sequence[list[int]]) -> None:
        done.alone[size] = [self._alone(batch) for batch in batches]
        for slots in self._slots:
            starts = self._overload(batches, slots)
            # The first batches, one for each slot, do not meet any other calls.
            cycles = zip(starts[slots:], starts[2 * slots :], strict=False)
            done.loaded[slots, size] = [after - before for before, after in cycles]
            if (slots, size) == (1, 1):
                runs = zip(done.alone[1], self._function_runs, strict=False)
                done.single = [(run.function, seconds) for run, (_, seconds) in runs]

    def _alone(self, chosen: Sequence[int]) -> Run:
        """Run a batch after a pause."""
        self._configure(len(chosen), 1)
        times = self._run(self._after_pause(chosen), chosen)
        return Run(self._function_runs[0][1], *times)

    async def _after_pause(self, chosen: Sequence[int]) -> tuple[float, float, float, float]:
        """Return the times of a ``Run``, without the first."""
        rows = [self._target.rows[index] for index in chosen]
        due = self.loop.time() + PAUSE
        await asyncio.sleep(PAUSE)
        awake, began, loop_cpu, cpu = self.loop.time(), perf_counter(), thread_time(), process_time()
        await _gather(self._call.acall(row) for row in rows)
        cores = (process_time() - cpu) / (perf_counter() - began)
        return self.loop.time() - due, awake - due, thread_time() - loop_cpu, cores

    def _overload(self, batches: Sequence[list[int]], slots: int) -> list[float]:
        """Return when batches start while the queue always holds another one for each slot.

        Callers repeat their calls at once, so calls and answers slow down the running batches, as in production.
        """
        self._configure(len(batches[0]), slots)
        repeated = islice(cycle(batches), max(len(batches), slots) + 2 * slots)
        rows = iter([self._target.rows[index] for batch in repeated for index in batch])

        async def call() -> None:
            for row in islice(rows, 1):
                await self._call.acall(row)
                # As in a server, each call has a task of its own.
                await self.loop.create_task(call())

        callers = [call() for _ in range(2 * slots * len(batches[0]))]
        self._run(_gather(callers), {*chain.from_iterable(batches)})
        self._function_runs.sort()
        return [start for start, _ in self._function_runs]

    def _draw(self, count: int) -> list[int]:
        """Return random items, each of them as often as any other; with ``length``, in order of their lengths."""
        every = range(len(self._target.rows))
        drawn = [*islice(cycle(self._rng.sample(every, min(count, len(every)))), count)]
        if self._target.workload.limits.run_cost is not None:
            drawn.sort(key=lambda index: self._target.workload.entries[index].weight)
        return drawn

    def _cut(self, items: Sequence[int], start: int, size: int) -> list[int]:
        """Return a batch of items from ``start`` on that may share one; it is short if not enough of them may."""
        entries, room = self._target.workload.entries, self._target.workload.limits.max_weight
        room = inf if room is None else room
        ring = [*items[start:], *items[:start]]
        group = entries[ring[0]].group
        alike = [index for index in ring if entries[index].group is group]
        chosen: list[int] = []
        while len(chosen) < size and (fitting := [index for index in alike if entries[index].weight <= room]):
            for index in fitting:
                if len(chosen) < size and entries[index].weight <= room:
                    chosen.append(index)
                    room -= entries[index].weight
        return chosen

    def _run(self, calls: Any, chosen: Iterable[int]) -> Any:
        self._function_runs.clear()
        try:
            return self.loop.run_until_complete(calls)
        except Exception as error:  # noqa: BLE001  # a batch function may raise anything
            raise CommandError(self._explain(error, chosen)) from None

    def _explain(self, error: Exception, chosen: Iterable[int]) -> str:
        self._configure(1, 1)
        name = self._target.name
        for index in sorted(chosen):
            try:
                self.loop.run_until_complete(self._after_pause([index]))
            except Exception as failure:  # noqa: BLE001, PERF203  # as above
                return f"items[{index}] makes {name}() fail: {_describe(failure)}"
        batch = f"a batch with items[{min(chosen)}]"
        return f"{batch} makes {name}() fail, but no item of it does alone: {_describe(error)}"

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


async def _gather(calls: Iterable[Coroutine[Any, Any, Any]]) -> None:
    """Await all calls; after an error, cancel the others, so that none is left in the queue."""
    tasks = [*map(asyncio.ensure_future, calls)]
    try:
        await asyncio.gather(*tasks)
    except Exception:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


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
