"""Extreme loads: very many concurrent calls, and a single caller. No entrant has a window."""

from __future__ import annotations

import asyncio
from functools import partial
from statistics import median
from time import process_time

from tests.bench import clock, subjects
from tests.bench.closed import ON_LOOP_SIZE, REPETITIONS, THREADS_SIZE
from tests.bench.contest import Contest
from tests.bench.figures import OURS
from tests.bench.subjects import ONE_THREAD, Subject

GATHERED = 50_000
DIRECT = "the function itself"
LESS = "The median of all calls, in the best repetition of a round: less is better."


def gather_contests(plan):
    """Measure very many concurrent calls, through coroutines and through futures."""
    for how, begin in {"coroutines": _calls, "futures of submit": _submits}.items():
        yield Contest(
            f"gather of {GATHERED:,} {how}",
            "items/s of CPU",
            {name: partial(_gathered, maker, begin) for name, maker in subjects.without_window().items()},
        )


def _calls(subject, many):
    call = subject.call
    return [call(item) for item in range(many)]


def _submits(subject, many):
    owner = subject.owner
    return [owner.submit(item) for item in range(many)]


def _gathered(maker, begin):
    async def main():
        subject = maker(clock.echo, max_size=ON_LOOP_SIZE, timeout=None)
        clock.check(await asyncio.gather(*begin(subject, ON_LOOP_SIZE)), list(range(ON_LOOP_SIZE)))
        start = process_time()
        answers = await asyncio.gather(*begin(subject, GATHERED))
        seconds = process_time() - start
        clock.check(answers, list(range(GATHERED)))
        return GATHERED / seconds

    return clock.on_loop("asyncio", main)


def lone_contests(plan):
    """Measure calls of a single caller: the cost of batching where it saves nothing."""
    calls = plan.count(1000)
    makers = {DIRECT: _direct_await, **subjects.without_window()}
    runs = {name: partial(_alone_on_loop, maker, calls) for name, maker in makers.items()}
    yield Contest("a lone task", "us a call", runs, note=LESS)
    makers = {DIRECT: _direct, ONE_THREAD: subjects.one_thread, OURS: subjects.ours}
    runs = {name: partial(_alone_in_thread, maker, calls) for name, maker in makers.items()}
    yield Contest("a lone thread", "us a call", runs, ONE_THREAD, note=LESS)


def _direct_await(fn, **_):
    async def call(item):
        return (await fn([item]))[0]

    return Subject(call)


def _direct(fn, **_):
    return Subject(lambda item: fn([item])[0])


def _alone_on_loop(maker, calls):
    async def main():
        call = maker(clock.echo, max_size=ON_LOOP_SIZE, timeout=None).call
        await clock.lone_latencies(call, 10)
        return median(await clock.lone_latencies(call, calls))

    return 1e6 * min(clock.on_loop("asyncio", main) for _ in range(REPETITIONS))


def _alone_in_thread(maker, calls):
    def middle():
        subject = maker(clock.echo_def, max_size=THREADS_SIZE, timeout=None)
        try:
            clock.threads_latencies(subject.call, 1, 10, 1)
            return median(clock.threads_latencies(subject.call, 1, calls, 1)[0])
        finally:
            subject.close()

    return 1e6 * min(middle() for _ in range(REPETITIONS))
