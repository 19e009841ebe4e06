"""How long batches take, measured through the engine that will run them.

Decides: how a batch is timed, how often, and which item is to blame when it fails.
Must not know: what is made of the figures, or how they are shown.

All calls come from one event loop, and the batch function runs where it always does: on the loop, or on the engine's
own thread. What is timed is a batch from its calls to its last answer, and the function in it.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from random import Random
from selectors import SelectSelector
from statistics import median
from time import perf_counter, thread_time
from typing import TYPE_CHECKING, Any

from batchify._cli.loading import CommandError, place
from batchify._decorator.microbatch import microbatch
from batchify._planning.cost import Run, Samples
from batchify.errors import BatchResultError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from batchify._cli.loading import Target

# A window that is never over: batches leave when they are full.
HOUR = 3600.0
# At least so many times each size is measured, at most so many times.
FEWEST, MOST = 3, 60
# Sizes grow until one round of all takes this share of the time there is, or more would never be measured often enough.
ROUND = 1 / 6
# Seconds without a call before a batch: to wake up is a part of what a call takes.
PAUSE = 0.001
# Seconds that a size is measured at a stretch.
SERIES = 0.02
# Items are tried in batches of this size before anything is measured, for this share of the time at most.
TRIED, TRIAL = 32, 1 / 4
# Calls come while batches of at most so many seconds run, to see what they take from them.
CROWDED = 0.05


class Loop(asyncio.SelectorEventLoop):
    """An event loop with timers to the microsecond: most ways to wait for sockets round up to milliseconds."""

    def __init__(self) -> None:
        super().__init__(SelectSelector())

    def time(self) -> float:
        """Return the seconds of the finest clock there is."""
        return perf_counter()


@contextmanager
def looping() -> Generator[Loop]:
    """Make an event loop, and end in the end what it still runs."""
    loop = Loop()
    try:
        yield loop
    finally:
        loop.run_until_complete(_end())
        loop.close()


async def _end() -> None:
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    loop = asyncio.get_running_loop()
    await loop.shutdown_asyncgens()
    await loop.shutdown_default_executor()


class Meter:
    """Times batches of random items.

    Args:
        target: the function, and its items.
        loop: the event loop that calls come from; its clock is the one to go by.
        concurrency: most batches that are to run at once.
    """

    def __init__(self, target: Target, loop: asyncio.AbstractEventLoop, concurrency: int = 1) -> None:
        self.loop = loop
        self.concurrency = concurrency
        self.samples = Samples()
        self._target = target
        self._chance = Random(0)  # noqa: S311  # equal draws make runs comparable
        # When the function began, in the batches that were made last, and how long it took.
        self._spans: list[tuple[float, float]] = []
        timed = self._awaited if target.is_async else self._called
        self._call = microbatch(timed, timeout=HOUR, concurrency=concurrency, name=target.name)

    def try_items(self, seconds: float) -> Iterator[float]:
        """Run all items once, as far as time allows, and yield the part of it that is done.

        Raises:
            CommandError: an item makes the function fail.
        """
        rows, end = self._target.rows, self.loop.time() + TRIAL * seconds
        for start in range(0, len(rows), TRIED):
            chosen = range(start, min(start + TRIED, len(rows)))
            self._call.configure(max_size=len(chosen))
            self._run(chosen)
            yield chosen.stop / len(rows)
            if self.loop.time() > end:
                return

    def measure(self, seconds: float, largest: int) -> Iterator[float]:
        """Time batches of growing sizes again and again, and yield the part of the time that has passed.

        Rounds go through all sizes, so that whatever else the machine does hits all of them alike.

        Args:
            seconds: how long to go on.
            largest: the largest size.
        """
        start = self.loop.time()
        sizes: list[int] = []
        for size in growing(largest):
            self._batch(size)
            sizes.append(size)
            passed = self.loop.time() - start
            yield min(passed / seconds, 1.0)
            if passed > ROUND * seconds:
                break
        for number in range(MOST):
            for size in sizes:
                self._series(size)
                yield min(max((self.loop.time() - start) / seconds, number / MOST), 1.0)
            self._disturb()
            if number + 1 >= FEWEST and self.loop.time() - start > seconds:
                return

    def _series(self, size: int) -> None:
        """Take samples of batches of a size, one after the other, as they are under load."""
        end = self.loop.time() + SERIES
        # The first one finds caches full of what another size left there.
        self._batch(size)
        while True:
            run = Run(*self._batch(size), slot=self._kept(size, PAUSE), warm=self._kept(size, 0.0))
            # Not before there is something to put in: an interrupt may come at any time.
            self.samples.runs.setdefault(size, []).append(run)
            if self.loop.time() >= end:
                return

    def _batch(self, size: int, slots: int = 1) -> tuple[float, float, float, float]:
        """Return what a batch took, as ``Run`` has it; of several at once, the function in the one that began last.

        Args:
            size: its items.
            slots: batches that run at once.
        """
        self._call.configure(max_size=size, concurrency=slots)
        due, woke, computed = self._run(self._draw(size * slots), PAUSE)
        total = self.loop.time() - due
        return max(self._spans)[1], total, woke - due, computed

    def _kept(self, size: int, pause: float) -> float:
        """Return for how long a batch kept its slot: until the next one, which was there, began."""
        self._call.configure(max_size=size, concurrency=1)
        self._run(self._draw(2 * size), pause)
        (first, _), (second, _) = sorted(self._spans)
        return second - first

    def _disturb(self) -> None:
        """See what calls take from a batch that runs, and batches from each other."""
        taken = {size: median(run.total for run in runs) for size, runs in self.samples.runs.items()}
        size = max((size for size, total in taken.items() if total <= CROWDED), default=min(taken))
        self._call.configure(max_size=size, concurrency=1)
        end = self.loop.time() + SERIES
        while self.loop.time() < end:
            # The same items twice: how much they vary is not what is asked.
            chosen = self._draw(size)
            due, _, _ = self._run(chosen)
            quiet = self.loop.time() - due
            busy, calls = self.loop.run_until_complete(self._crowd(self._rows(chosen), 2 * quiet / size))
            self.samples.crowding.append((busy - quiet) / calls)
        alone = self._batch(size)[0]
        for slots in growing(self.concurrency):
            if slots > 1:
                self.samples.slowdown.setdefault(slots, []).append(self._batch(size, slots)[0] / alone)

    async def _crowd(self, rows: list[Any], gap: float) -> tuple[float, int]:
        """Return the seconds that a batch took while further calls came, and how many of these."""
        start = self.loop.time()
        ends: list[float] = []
        # Whatever fails here fails alone as well, where it is told.
        batch = asyncio.gather(*[self._call.acall(row) for row in rows], return_exceptions=True)
        batch.add_done_callback(lambda _: ends.append(self.loop.time()))
        others: list[asyncio.Future[Any]] = []
        while not ends:
            await asyncio.sleep(start + (len(others) + 1) * gap - self.loop.time())
            others.append(asyncio.ensure_future(self._call.acall(self._chance.choice(self._target.rows))))
        await asyncio.sleep(0)
        self._call.flush()
        await asyncio.gather(batch, *others, return_exceptions=True)
        return ends[0] - start, len(others)

    def _draw(self, count: int) -> list[int]:
        return self._chance.choices(range(len(self._target.rows)), k=count)

    def _rows(self, chosen: Sequence[int]) -> list[Any]:
        return [self._target.rows[index] for index in chosen]

    def _run(self, chosen: Sequence[int], pause: float = 0.0) -> tuple[float, float, float]:
        """Run the items that are chosen after a pause.

        Return when that was due, when the loop was awake, and the seconds that its thread computed from then on.

        Raises:
            CommandError: they make the function fail.
        """
        self._spans.clear()
        try:
            return self._together(self._rows(chosen), pause)
        except Exception as error:  # noqa: BLE001  # a batch function may raise anything
            raise CommandError(self._blame(chosen, error)) from None

    def _together(self, rows: list[Any], pause: float = 0.0) -> tuple[float, float, float]:

        async def together() -> tuple[float, float, float]:
            due = self.loop.time() + pause
            await asyncio.sleep(pause)
            woke, computed = self.loop.time(), thread_time()
            await asyncio.gather(*[self._call.acall(row) for row in rows])
            return due, woke, thread_time() - computed

        return self.loop.run_until_complete(together())

    def _fails(self, chosen: Sequence[int]) -> Exception | None:
        self._call.configure(max_size=len(chosen))
        try:
            self._together(self._rows(chosen))
        except Exception as error:  # noqa: BLE001  # a batch function may raise anything
            return error
        return None

    def _blame(self, chosen: Sequence[int], error: Exception) -> str:
        """Say which item makes the function fail, by halves."""
        while len(chosen) > 1:
            middle = len(chosen) // 2
            for half in (chosen[:middle], chosen[middle:]):
                failed = self._fails(half)
                if failed is not None:
                    chosen, error = half, failed
                    break
            else:
                who = f"{len(chosen)} items, among them items[{chosen[0]}], make {self._target.name}() fail together"
                return f"{who}, but no half of them alone: {_kind(error)}"
        return f"items[{chosen[0]}] makes {self._target.name}() fail: {_kind(error)}"

    def _called(self, rows: list[Any]) -> Any:
        start = self.loop.time()
        results = self._target.run(rows)
        self._spans.append((start, self.loop.time() - start))
        return results

    async def _awaited(self, rows: list[Any]) -> Any:
        start = self.loop.time()
        results = await self._target.run(rows)
        self._spans.append((start, self.loop.time() - start))
        return results


def _kind(error: Exception) -> str:
    """Return what is known of an error without its message, which may quote an item; ours never do."""
    if isinstance(error, BatchResultError):
        return str(error)
    cause = error.__cause__ or error
    return f"{type(cause).__name__}{place(cause)}"


def growing(largest: int) -> Iterator[int]:
    """Yield the powers of two below ``largest``, and that."""
    size = 1
    while size < largest:
        yield size
        size *= 2
    yield largest
