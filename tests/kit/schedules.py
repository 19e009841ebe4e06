"""All orders of callbacks within a few delays of the usual one, for each set of options of the asyncio engine.

An event loop runs its callbacks in order of arrival. A *delay* runs another one of the callbacks that are ready.
simloom runs a scenario again and again, until it has tried each callback at each place for a delay. Times are virtual
and whole seconds, so that the timers of the engine, the batch function and the callers coincide, and fire in each
order.

The test suite tries one delay. This command tries two, and prints the table of ``docs/schedules.md``::

    python -m tests.kit.schedules 2
"""

from __future__ import annotations

import asyncio
import gc
import platform
import sys
import time
from asyncio import CancelledError
from collections import Counter, deque
from contextlib import aclosing, contextmanager, suppress
from functools import partial
from weakref import ref

from batchify import (
    DONE,
    AsyncMicrobatcher,
    BatchAbortedError,
    BatcherClosedError,
    DeadlineError,
    QueueFullError,
    batchers,
    microbatch,
)
from batchify._core.grouped import GroupedQueue


class BadItemError(Exception):
    """The error of one item, returned in place of its result."""


class BadBatchError(Exception):
    """The error of a batch with these items."""


# The errors of calls that are not queued, and of calls that count as failed.
REFUSALS = (QueueFullError, BatcherClosedError)
FAILURES = (BadItemError, BadBatchError, BatchAbortedError)
NEVER = float("inf")


class Run:
    """One run of a scenario: its calls and batches, and the checks of both."""

    def __init__(self, options):
        self.loop = asyncio.get_running_loop()
        self.concurrency = options.get("concurrency", 1)
        # The run time of a batch.
        self.seconds = 1
        # The number of times that an item may reach the batch function.
        self.visits = 1
        # The errors that calls may get, apart from those that their options and items explain.
        self.errors = set()
        self._faults = []
        self._batches = self._running = 0
        # The tasks of running batches, in order.
        self._tasks = {}
        self._seen = Counter()
        # The calls that were queued, and those that were refused.
        self.made = self._refused = 0
        # The items with their tasks and futures.
        self.calls = []
        # The number of calls that may end as cancelled.
        self._leaving = 0
        self._deadlines = {}
        # The items whose callers left while they were queued.
        self._withdrawn = set()
        # The number of items with an answer from ``map()``.
        self._mapped = 0
        self._others = []
        self.fn = self.build(**options, on_batch=self._reported)

    def build(self, **options):
        return microbatch(self._answer, **options)

    async def _answer(self, items):
        with self.batch(items):
            await asyncio.sleep(self.seconds)
            return self.results(items)

    async def abort(self):
        """Cancel the tasks of all batches that run."""
        for task in [*self._tasks]:
            task.cancel()

    def results(self, items):
        """Return a result for each item. A negative item has an error: an odd one alone, an even one with its batch."""
        if any(item < 0 and item % 2 == 0 for item in items):
            raise BadBatchError(*items)
        return [BadItemError(item) if item < 0 else self.result(item) for item in items]

    def result(self, item):
        return f"result of {item}"

    @contextmanager
    def batch(self, items):
        """Check the batch at its start and its end."""
        self._running += 1
        self._tasks[task := asyncio.current_task()] = None
        self._seen.update(items)
        new = [item for item in items if self._seen[item] == 1]
        late = [item for item in new if self._deadlines.get(item, NEVER) <= self.loop.time()]
        repeated = [item for item in items if self._seen[item] > self.visits]
        self._expect(([], []), (late, repeated))
        self._expect(set(), self._withdrawn & {*items})
        self._expect(self.concurrency, max(self.concurrency, self._running))
        self._check_counters()
        try:
            yield
        finally:
            self._check_counters()
            self._tasks.pop(task)
            self._running -= 1

    def _reported(self, report):
        self._batches += 1
        self._check_counters()

    def _check_counters(self):
        stats = self.stats
        ended = stats.answered_items + stats.failed_items + stats.cancelled_items + stats.expired_items
        self._expect(self.made, stats.pending + stats.running + ended)

    def check_rest(self, now):
        """Check, at a time ``now`` to which the clock has just advanced, that all work was done before."""
        for engine in self._engines:
            queue, due = engine.line.queue, engine.line.plan()
            self._expect("due then", "due then" if due is None or now <= due else f"due at {due}")
            self._expect([], [batch for batch in queue.running if batch.is_abandoned(engine.is_open)])
            if isinstance(queue, GroupedQueue):
                self._expect(True, queue.is_full or not queue._overflow)

    @property
    def _engines(self):
        loop = ref(self.loop)
        own = (batcher for batcher in batchers() if isinstance(batcher, AsyncMicrobatcher))
        return [batcher._by_loop[loop] for batcher in own if loop in batcher._by_loop]

    def _expect(self, expected, found):
        # An error raised here could become the error of a batch.
        if expected != found:
            self._faults.append(f"at {self.loop.time()}: {found}, not {expected}")

    @property
    def stats(self):
        return self.fn.batch_stats

    def call(self, *items, within=None, **view):
        """Call the function in a task for each item, and return the tasks."""
        return [self._add(item, self.loop.create_task(self._call(item, within, view))) for item in items]

    async def _call(self, item, within, view):
        fn = self.fn.options(**view) if view else self.fn
        if "deadline" in view:
            self._deadlines[item] = self.loop.time() + view["deadline"]
        self.made += 1
        try:
            if within is None:
                return await self.ask(fn, item)
            self._leaving += 1
            async with asyncio.timeout(within):
                return await self.ask(fn, item)
        except REFUSALS:
            self.made -= 1
            self._refused += 1
            raise
        except DeadlineError:
            self._expect(self._deadlines[item], self.loop.time())
            raise
        finally:
            self._check_counters()

    async def ask(self, fn, item):
        return await fn(item)

    def submit(self, *items):
        """Submit the items, and return the futures of those that are queued."""
        calls = []
        for item in items:
            with suppress(*REFUSALS):
                calls.append(self._add(item, self.future(item)))
                self.made += 1
        return calls

    def future(self, item):
        return self.fn.submit(item)

    def _add(self, item, call):
        self.calls.append((item, call))
        return call

    def cancel(self, *calls):
        waiting = {item.data for engine in self._engines for item in engine.waiting()}
        for item, call in self.calls:
            if call in calls and call.cancel():
                self._leaving += 1
                if item in waiting and self.visits == 1:
                    self._withdrawn.add(item)
        self._check_counters()

    def start(self, coroutine):
        """Run a coroutine that must end without an error, beside the calls."""
        self._others.append(self.loop.create_task(coroutine))

    async def map(self, items):
        self.made += len(items)
        assert [*map(self.result, items)] == await self.fn.map(items)
        self._mapped += len(items)

    async def finish(self):
        """Wait for all calls, close the function, and check all outcomes and that nothing is left."""
        await asyncio.wait([call for _, call in self.calls])
        await asyncio.gather(*self._others)
        outcomes = [self._outcome(item, call) for item, call in self.calls]
        await self.fn.aclose()
        assert [] == self._faults
        stats = self.stats
        assert (0, 0, 0) == (self._running, stats.pending, stats.running)
        self._check_counters()
        assert self._batches == stats.total_batches
        errors = [error for error in outcomes if error is not None]
        assert len(errors) == len({id(error) for error in errors})
        kinds = Counter(map(type, errors))
        gone = kinds[CancelledError] + kinds[TimeoutError]
        assert gone <= self._leaving
        assert stats.cancelled_items <= gone
        # A call that ends as cancelled may have had its answer already.
        failed = sum(kinds[kind] for kind in FAILURES)
        assert 0 <= stats.answered_items - self._mapped - outcomes.count(None) <= gone
        assert 0 <= stats.failed_items - failed <= gone
        assert 0 <= stats.expired_items - kinds[DeadlineError] <= gone
        assert {CancelledError, TimeoutError, DeadlineError, BadItemError, BadBatchError, *self.errors} >= {*kinds}
        assert {asyncio.current_task()} == asyncio.all_tasks()
        assert [] == [timer for _, _, timer in self.loop._scheduled if not timer.cancelled()]

    def _outcome(self, item, call):
        """Check the outcome of a call, and return its error."""
        if call.cancelled():
            return CancelledError()
        error = call.exception()
        if error is None:
            assert self.result(item) == call.result()
            assert self._seen[item]
        elif isinstance(error, (BadItemError, BadBatchError)):
            assert item in error.args
        return error


class StreamRun(Run):
    """The function is a generator. It yields two values for each even item, and one for each odd item."""

    def build(self, **options):
        return microbatch(self._generate, **options)

    async def _generate(self, items):
        with self.batch(items):
            await asyncio.sleep(1)
            self.results(items)
            yield [f"first of {item}" for item in items]
            await asyncio.sleep(1)
            yield [DONE if item % 2 else f"second of {item}" for item in items]

    def result(self, item):
        return [f"first of {item}", *([] if item % 2 else [f"second of {item}"])]

    async def ask(self, fn, item):
        return await self._read(fn(item))

    def future(self, item):
        return self.loop.create_task(self._read(self.fn.submit(item)))

    async def _read(self, stream):
        async with aclosing(stream):
            return [value async for value in stream]


class OffloadRun(Run):
    """The batch function is a ``def`` function, which simloom runs as a callback of the loop."""

    def build(self, *, max_size=32, timeout=None, **options):
        return AsyncMicrobatcher(self._answer_at_once, max_size, timeout, **options)

    @property
    def stats(self):
        return self.fn.stats

    def _answer_at_once(self, items):
        with self.batch(items):
            return self.results(items)

    async def ask(self, fn, item):
        return await fn.submit(item)


async def waves(run):
    """Call three times, each time as batches end."""
    run.call(1, 2, 3)
    await asyncio.sleep(1)
    run.call(4, 5)
    await asyncio.sleep(1)
    run.call(6)


async def submit(run):
    """Submit two times, and call in between. A bounded queue may be full."""
    run.errors.add(QueueFullError)
    run.submit(1, 2, 3)
    await asyncio.sleep(1)
    run.submit(4, 5)
    run.call(6)


async def leave(run):
    """Cancel calls that wait, that run, and that just get their answers."""
    first, _ = run.call(1, 2)
    (waits,) = run.call(3)
    await asyncio.sleep(0)
    run.cancel(waits)
    run.call(4)
    await asyncio.sleep(1)
    run.cancel(first)
    run.cancel(*run.call(5))
    run.call(6)


async def cancel_futures(run):
    """Cancel futures of ``submit()`` that wait, that run, and that just get their answers."""
    first, _, waits = run.submit(1, 2, 3)
    run.cancel(waits)
    run.submit(4)
    await asyncio.sleep(1)
    run.cancel(first)
    run.cancel(*run.submit(5))
    run.submit(6)


async def withdraw(run):
    """Cancel the only call, and then the only future."""
    (call,) = run.call(1)
    await asyncio.sleep(0)
    run.cancel(call)
    await asyncio.sleep(1)
    run.cancel(*run.submit(2))


async def make_room(run):
    """Cancel a queued call while others wait for room, and let one expire while the batch runs."""
    run.seconds = 2
    run.call(1, 2, 3)
    run.call(4, deadline=1)
    run.call(5)
    await asyncio.sleep(0)
    run.cancel(run.calls[1][1])
    await asyncio.sleep(1)
    run.call(6)


async def abandon(run):
    """Cancel all callers of a batch that starts or runs, while others wait."""
    first, second = run.call(1, 2)
    run.call(3)
    await asyncio.sleep(0)
    run.cancel(first)
    await asyncio.sleep(0)
    run.cancel(second)
    await asyncio.sleep(1)
    run.call(5)


async def time_out(run):
    """Limit calls to the time that their batches take."""
    run.call(1, 2, 3, within=1)
    await asyncio.sleep(1)
    run.call(4, within=1)


async def urge(run):
    """Call with priorities, and with deadlines as batches end."""
    run.call(1, 2)
    run.call(3, deadline=1)
    run.call(4, deadline=2)
    run.call(5, priority=1)
    await asyncio.sleep(1)
    run.call(6, deadline=1)


async def expire(run):
    """Cancel calls as their deadlines pass, and wait for an expired call."""
    run.call(1, 2)
    first, *_ = run.call(3, 4, deadline=1)
    future, _ = (run._add(item, run.fn.options(deadline=1).submit(item)) for item in (5, 6))
    run.made += 2
    await asyncio.sleep(1)
    run.cancel(first, future)
    run.call(7)


async def shut_down(run):
    """Cancel all tasks, those of batches included, as ``asyncio.run`` does at its end, and call again."""
    run.errors.add(BatchAbortedError)
    run.call(1, 2, 3)
    await asyncio.sleep(0)
    run.submit(4)
    await asyncio.sleep(0)
    run.call(5)
    for task in sorted(asyncio.all_tasks() - {asyncio.current_task()}, key=asyncio.Task.get_name):
        run._leaving += task.cancel()
    run.call(6)


async def urge_late(run):
    """Call without options first, and with a deadline and a priority as a batch ends."""
    run.call(1, 2)
    run.submit(3)
    await asyncio.sleep(1)
    run.call(4, deadline=1)
    run.call(5, priority=1)


async def share(run):
    """Call with equal items, and cancel one of the callers."""
    run.visits = 2
    run.call(1, 2)
    first, *_ = run.call(3, 3, 4)
    await asyncio.sleep(1)
    run.cancel(first)
    run.call(4)


async def fail(run):
    """Call with good items and with two kinds of bad items, and cancel a caller as a batch ends."""
    first, *_ = run.call(1, -1, 2)
    run.call(-2)
    await asyncio.sleep(1)
    run.cancel(first)
    run.call(4)


async def isolate(run):
    """Call with items that fail their batches, and cancel one caller while an error is isolated."""
    run.visits = 3
    first, *_ = run.call(1, -2, 3)
    await asyncio.sleep(1)
    run.cancel(first)
    run.call(4)


async def abort(run):
    """Cancel the task of a running batch while calls wait, and as it ends."""
    run.errors.add(BatchAbortedError)
    run.call(1, 2, 3)
    await asyncio.sleep(0)
    run.start(run.abort())
    await asyncio.sleep(1)
    run.start(run.abort())
    run.call(4)


async def mix(run):
    """Call with everything that a call can have, cancel two calls, and change the options."""
    run.visits = 4
    run.call(1, 2, 2)
    gone, _ = run.call(3, -4, deadline=2)
    run.call(5, priority=1)
    await asyncio.sleep(1)
    run.cancel(gone)
    run.fn.configure(max_size=3)
    run.call(7, deadline=1, within=2)


async def reopen(run):
    """Stop while calls wait, and start again at the same time."""
    run.errors.add(BatcherClosedError)
    run.call(1, 2, 3)
    await asyncio.sleep(1)
    run.start(run.fn.stop())
    run.call(4)
    run.start(run.fn.start())
    run.call(5)


async def configure(run):
    """Change the options while a batch runs and calls wait, and as a batch ends."""
    run.call(1, 2, 3)
    await asyncio.sleep(0)
    run.concurrency = 2
    run.fn.configure(max_size=1, concurrency=2)
    run.call(4)
    await asyncio.sleep(1)
    run.fn.configure(max_size=4, timeout=1)
    run.call(5)


async def flush(run):
    """Flush in a window, and as a batch ends."""
    run.call(1)
    await asyncio.sleep(0)
    run.fn.flush()
    run.call(2)
    await asyncio.sleep(1)
    run.call(3)
    run.fn.flush()


async def close(run):
    """Close as a batch ends and calls wait, and call meanwhile."""
    run.errors.add(BatcherClosedError)
    run.call(1, 2, 3)
    run.submit(4)
    await asyncio.sleep(1)
    run.start(run.fn.aclose())
    run.call(5)
    await asyncio.sleep(0)
    run.submit(6)


async def map_items(run):
    """Await ``map()`` beside a call."""
    run.start(run.map([1, 2, 3]))
    run.call(4)
    await asyncio.sleep(1)
    run.call(5)


EVERYTHING = {
    "timeout": 1,
    "concurrency": 2,
    "max_pending": 4,
    "weigh": lambda item: 1 + item % 2,
    "max_weight": 4,
    "group_by": lambda item: item < 3,
    "dedupe": True,
    "isolate_errors": True,
    "capture_context": True,
}
# Each set of options with its scenario.
SETS = {
    "window": (Run, waves, {"timeout": 1}),
    "no window": (Run, waves, {"timeout": 0}),
    "adaptive": (Run, waves, {}),
    "window, 2 slots": (Run, waves, {"timeout": 1, "concurrency": 2}),
    "adaptive, 2 slots": (Run, waves, {"concurrency": 2}),
    "window, submit": (Run, submit, {"timeout": 1}),
    "adaptive, submit": (Run, submit, {}),
    "max_pending, wait": (Run, waves, {"max_pending": 1}),
    "max_pending, raise": (Run, submit, {"max_pending": 2, "on_full": "raise"}),
    "max_pending, leave": (Run, leave, {"max_pending": 1}),
    "max_pending, make room": (Run, make_room, {"max_pending": 1}),
    "weigh": (Run, waves, {"weigh": lambda item: 1 + item % 2, "max_weight": 3}),
    "group_by, 2 slots": (Run, waves, {"group_by": lambda item: item % 2, "timeout": 1, "concurrency": 2}),
    "dedupe": (Run, share, {"dedupe": True}),
    "dedupe, running": (Run, share, {"dedupe": "running"}),
    "dedupe, running, 2 slots": (Run, share, {"dedupe": "running", "concurrency": 2}),
    "dedupe, max_pending": (Run, share, {"dedupe": True, "max_pending": 2}),
    "errors": (Run, fail, {}),
    "aborted batch": (Run, abort, {}),
    "aborted batch, 2 slots": (Run, abort, {"concurrency": 2, "timeout": 1}),
    "isolate_errors": (Run, isolate, {"isolate_errors": True, "max_size": 4}),
    "deadlines, priorities": (Run, urge, {}),
    "deadlines, window, 2 slots": (Run, urge, {"timeout": 2, "concurrency": 2}),
    "expired, cancelled": (Run, expire, {}),
    "expired, max_pending": (Run, expire, {"max_pending": 3}),
    "all tasks cancelled": (Run, shut_down, {}),
    "all tasks cancelled, stream": (StreamRun, shut_down, {}),
    "all tasks cancelled, window": (Run, shut_down, {"timeout": 1}),
    "first deadline": (Run, urge_late, {"timeout": 1}),
    "capture_context": (Run, waves, {"capture_context": True}),
    "leave": (Run, leave, {}),
    "leave, window": (Run, leave, {"timeout": 1}),
    "withdrawn": (Run, withdraw, {}),
    "withdrawn, window": (Run, withdraw, {"timeout": 1}),
    "cancelled futures": (Run, cancel_futures, {"timeout": 1}),
    "abandoned batch": (Run, abandon, {}),
    "abandoned batch, 2 slots": (Run, abandon, {"concurrency": 2}),
    "time limits": (Run, time_out, {"timeout": 0}),
    "configure": (Run, configure, {}),
    "flush": (Run, flush, {"timeout": 5, "max_size": 3}),
    "close": (Run, close, {"timeout": 1}),
    "everything": (Run, mix, EVERYTHING),
    "map": (Run, map_items, {}),
    "map, stream": (StreamRun, map_items, {}),
    "stream": (StreamRun, waves, {"timeout": 1}),
    "stream, 2 slots": (StreamRun, waves, {"concurrency": 2}),
    "stream, leave": (StreamRun, leave, {}),
    "stream, aborted batch": (StreamRun, abort, {}),
    "stream, errors": (StreamRun, fail, {}),
    "stream, close": (StreamRun, close, {}),
    "def function": (OffloadRun, waves, {"timeout": 1}),
    "def function, leave": (OffloadRun, leave, {"concurrency": 2}),
    "def function, errors": (OffloadRun, fail, {}),
    "def function, start again": (OffloadRun, reopen, {"timeout": 1}),
}


class Watch:
    """The order of simloom, which also checks a run each time the clock has advanced."""

    descriptor = "watch"

    def __init__(self, runs, loop):
        self._runs = runs
        self._loop = loop
        self._now = 0.0

    def pick(self, ready):
        now = self._loop.time()
        if now > self._now:
            self._now = now
            self._runs[-1].check_rest(now)
        return self._loop.tape.draw("sched.pick", len(ready)) if len(ready) > 1 else 0


def explore(name, delays):
    """Run a scenario in all schedules with at most this many delays; return their number, or raise the first error."""
    import simloom

    kind, scenario, options = SETS[name]
    runs = deque(maxlen=1)

    async def main():
        runs.append(run := kind({"max_size": 2, **options}))
        await scenario(run)
        await run.finish()

    # Each run ends with a garbage collection, which need not visit the objects that are older.
    gc.freeze()
    try:
        explored = simloom.explore_systematic(
            main,
            max_delays=delays,
            max_schedules=1000**delays,
            scheduler=partial(Watch, runs),
            world=False,
            gc_interval=0,
        )
    finally:
        gc.unfreeze()
    if explored.first is not None:
        picks = {number: draw.value for number, draw in enumerate(explored.first.tape) if draw.value}
        explored.first.error.add_note(f"schedule {explored.schedules} of {name!r}, with the delays {picks}")
        raise explored.first.error
    assert explored.exhaustive
    return explored.schedules


def report(delays):
    """Print a table of all sets of options."""
    print(f"Python {platform.python_version()}, delays: {delays}\n")
    print("| options | schedules | seconds |\n|---|--:|--:|")
    total = spent = 0
    for name in SETS:
        began = time.process_time()
        number = explore(name, delays)
        seconds = time.process_time() - began
        print(f"| {name} | {number:,} | {seconds:.1f} |", flush=True)
        total, spent = total + number, spent + seconds
    print(f"| **all {len(SETS)}** | **{total:,}** | **{spent:.1f}** |")


if __name__ == "__main__":
    report(int(sys.argv[1]))
