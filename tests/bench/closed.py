"""Closed loops: callers that call again as soon as they have an answer. The batch function returns its items.

All entrants with a window have the same one. With fewer callers than a batch has items, each call waits for the end of
the window. With more callers, batches fill up before the window ends.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial

from tests.bench import clock, subjects
from tests.bench.contest import Contest, Entrant
from tests.bench.figures import Bar
from tests.bench.subjects import ADAPTIVE, AIODATALOADER, BATCHED, PEERS, WINDOWED, Subject

WINDOW = 0.002
ON_LOOP_SIZE = 64
THREADS_SIZE = 32
# Callers -> calls of each caller in a run; most runs take some tenths of a second. All callers make the same number of
# calls: threads that call for a given time would let others starve, and seem twice as fast.
TASKS = {16: 800, 256: 80, 4096: 6}
THREADS = {1: 2000, 8: 1000, 32: 400, 64: 200, 256: 60}
# Calls of each caller in a run in which every call waits for the window.
WAITING = 50


def asyncio_contests(plan):
    """Measure tasks on a loop, with a window and without."""
    for kind in plan.loops:
        judged = kind == "asyncio"
        for callers, calls in TASKS.items():
            bars = callers == 256 and judged
            yield _tasks(
                f"{callers:,} tasks on {kind}, window 2 ms",
                {name: partial(maker, timeout=WINDOW) for name, maker in subjects.with_window().items()},
                (kind, callers, plan.count(WAITING if callers < ON_LOOP_SIZE else calls)),
                bars=(Bar(0.80), Bar(3, WINDOWED)) if bars else (),
            )
            yield _tasks(
                f"{callers:,} tasks on {kind}, adaptive",
                {name: partial(maker, timeout=None) for name, maker in subjects.without_window().items()},
                (kind, callers, plan.count(calls)),
                bars=(Bar(1, (AIODATALOADER,)),) if bars else (),
            )


def _tasks(title, makers, sizes, **about):
    entrants = {
        name: _on_loop(partial(maker, clock.echo, max_size=ON_LOOP_SIZE), *sizes) for name, maker in makers.items()
    }
    return Contest(title, "items/s", entrants, **about)


def _on_loop(make, kind, callers, calls):
    async def timed(measure, calls):
        subject = make()
        try:
            await clock.tasks_latencies(subject.call, callers, 1)
            return await measure(subject.call, callers, calls)
        finally:
            subject.close()

    return Entrant(
        partial(clock.on_loop, kind, partial(timed, clock.tasks_rate, calls)),
        partial(clock.on_loop, kind, partial(timed, clock.tasks_latencies, half(calls))),
    )


def half(calls):
    """Return half the number of calls, at least one, because latencies are sampled in a shorter run."""
    return max(1, calls // 2)


def acall_contests(plan):
    """Measure tasks that call a def function, whose batches run in a thread."""
    for kind in plan.loops:
        yield Contest(
            f"256 tasks on {kind} call a def function, window 2 ms",
            "items/s",
            {
                name: _on_loop(
                    partial(maker, clock.echo_def, max_size=THREADS_SIZE, timeout=WINDOW), kind, 256, plan.count(80)
                )
                for name, maker in subjects.THROUGH_ACALL.items()
            },
            bars=(Bar(2, PEERS), Bar(2, PEERS, subject=ADAPTIVE)) if kind == "asyncio" else (),
            note="Calls use acall(). For the floor and for aiodataloader, batches run in a pool of one thread.",
        )


def thread_contests(plan):
    """Measure threads that block."""
    for callers, calls in THREADS.items():
        is_waiting = callers < THREADS_SIZE
        quick = {ADAPTIVE, "one-thread pool"}
        makers = {**subjects.AMONG_THREADS, "one-thread pool": _pool}
        yield Contest(
            f"{callers} thread{'s' * (callers > 1)}, window 2 ms",
            "items/s",
            {
                name: _among_threads(
                    partial(maker, clock.echo_def, max_size=THREADS_SIZE, timeout=WINDOW),
                    callers,
                    plan.count(WAITING if is_waiting and name not in quick else calls),
                )
                for name, maker in makers.items()
            },
            bars=() if is_waiting else (Bar(0.85), Bar(1.5, (BATCHED,)), Bar(0.85, subject=ADAPTIVE)),
            note="The pool gets each item on its own, without batches.",
        )


def _pool(fn, **_):
    pool = ThreadPoolExecutor(1)
    return Subject(lambda item: pool.submit(fn, [item]).result()[0], close=pool.shutdown)


def _among_threads(make, callers, calls):
    def latencies():
        subject = make()
        try:
            clock.threads_latencies(subject.call, callers, 1, THREADS_SIZE)
            return clock.threads_latencies(subject.call, callers, calls, THREADS_SIZE)
        finally:
            subject.close()

    def rate():
        found, seconds = latencies()
        return len(found) / seconds

    return Entrant(rate, lambda: latencies()[0])
