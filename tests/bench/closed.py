"""Closed loops: callers that call again as soon as they have an answer. The batch function returns its items.

All entrants with a window have the same one, and more callers than a batch has items fill it before it ends.
"""

from __future__ import annotations

from functools import partial

from tests.bench import clock, subjects
from tests.bench.contest import Contest
from tests.bench.figures import FLOOR
from tests.bench.subjects import FLOOR_WITH_POOL

WINDOW = 0.002
ON_LOOP_SIZE = 64
THREADS_SIZE = 32
# Callers -> calls of each caller in a repetition, which takes some hundredths of a second on a loop, and some tenths
# among threads. All callers make the same number of calls: threads that call for a given time would let others starve,
# and seem twice as fast.
TASKS = {16: 400, 256: 40, 4096: 4}
THREADS = {8: 1000, 32: 400, 64: 200, 256: 60}
# The best repetition of a run counts: others are disturbed by other programs.
REPETITIONS = 5


def asyncio_contests(plan):
    """Measure tasks on a loop, with a window and without."""
    for kind in clock.LOOPS:
        for callers, calls in TASKS.items():
            sizes = kind, callers, plan.count(calls)
            if callers > ON_LOOP_SIZE:
                makers = {name: partial(maker, timeout=WINDOW) for name, maker in subjects.with_window().items()}
                yield _tasks(f"{callers:,} tasks on {kind}, window 2 ms", makers, *sizes)
            makers = {name: partial(maker, timeout=None) for name, maker in subjects.without_window().items()}
            yield _tasks(f"{callers:,} tasks on {kind}, adaptive", makers, *sizes)


def _tasks(title, makers, *sizes):
    entrants = {
        name: _on_loop(partial(maker, clock.echo, max_size=ON_LOOP_SIZE), *sizes) for name, maker in makers.items()
    }
    return Contest(title, "items/s of CPU", entrants, tail="items/s")


def _on_loop(make, kind, callers, calls):
    async def best():
        subject = make()
        try:
            await clock.tasks_rates(subject.call, callers, 1)
            rates = [await clock.tasks_rates(subject.call, callers, calls) for _ in range(REPETITIONS)]
            return tuple(max(each) for each in zip(*rates, strict=True))
        finally:
            subject.close()

    return partial(clock.on_loop, kind, best)


def acall_contests(plan):
    """Measure tasks that call a def function, whose batches run in a thread."""
    for kind in clock.LOOPS:
        yield Contest(
            f"256 tasks on {kind} call a def function",
            "items/s of CPU",
            {
                name: _on_loop(
                    partial(maker, clock.echo_def, max_size=THREADS_SIZE, timeout=WINDOW),
                    kind,
                    256,
                    plan.count(80),
                )
                for name, maker in subjects.THROUGH_ACALL.items()
            },
            FLOOR_WITH_POOL,
            "items/s",
            note="Calls use acall(). For entrants with a pool, batches run in a pool of one thread.",
        )


def thread_contests(plan):
    """Measure threads that block; threads that cannot fill a batch do not wait for a window."""
    for callers, calls in THREADS.items():
        makers = {**subjects.AMONG_THREADS, subjects.ONE_THREAD: subjects.one_thread}
        title = f"{callers} threads, window 2 ms"
        baseline = FLOOR
        if callers < THREADS_SIZE:
            makers = {name: makers[name] for name in (subjects.ADAPTIVE, subjects.ONE_THREAD)}
            title, baseline = f"{callers} threads, adaptive", subjects.ONE_THREAD
        yield Contest(
            title,
            "items/s",
            {
                name: _among_threads(
                    partial(maker, clock.echo_def, max_size=THREADS_SIZE, timeout=WINDOW), callers, plan.count(calls)
                )
                for name, maker in makers.items()
            },
            baseline,
            note="The pool gets each item on its own, without batches.",
        )


def _among_threads(make, callers, calls):
    def rate():
        subject = make()
        try:
            clock.threads_latencies(subject.call, callers, 1, THREADS_SIZE)
            latencies, seconds = clock.threads_latencies(subject.call, callers, calls, THREADS_SIZE)
            return len(latencies) / seconds
        finally:
            subject.close()

    return rate
