"""Extreme loads: very many concurrent calls, and a single caller."""

from __future__ import annotations

import asyncio
from functools import partial
from statistics import median
from time import process_time

from tests.bench import clock, subjects
from tests.bench.closed import ON_LOOP_SIZE, THREADS_SIZE, WINDOW
from tests.bench.contest import Contest, Entrant
from tests.bench.figures import Bar
from tests.bench.subjects import ADAPTIVE, AIODATALOADER, Subject

WINDOWS = {"window 2 ms": WINDOW, "adaptive": None}
DIRECT = "the function itself"


def gather_contests(plan):
    """Measure very many concurrent calls, through coroutines and through futures."""
    many = plan.count(50_000)
    for kind in plan.loops:
        judged = kind == "asyncio"
        for how, timeout in WINDOWS.items():
            makers = subjects.with_window() if timeout else subjects.without_window()
            yield Contest(
                f"gather of {many:,} coroutines on {kind}, {how}",
                "items/s of CPU",
                {name: _gathered(kind, maker, timeout, _calls, many) for name, maker in makers.items()},
                bars=(Bar(0.90),) if judged else (),
            )
            makers = subjects.without_window()
            yield Contest(
                f"gather of {many:,} futures of submit on {kind}, {how}",
                "items/s of CPU",
                {name: _gathered(kind, maker, timeout, _submits, many) for name, maker in makers.items()},
                bars=(Bar(1, (AIODATALOADER,)),) if judged else (),
            )


def _calls(subject, many):
    call = subject.call
    return [call(item) for item in range(many)]


def _submits(subject, many):
    owner = subject.owner
    return [owner.submit(item) for item in range(many)]


def _gathered(kind, maker, timeout, begin, many):
    async def main():
        subject = maker(clock.echo, max_size=ON_LOOP_SIZE, timeout=timeout)
        clock.check(await asyncio.gather(*begin(subject, ON_LOOP_SIZE)), list(range(ON_LOOP_SIZE)))
        start = process_time()
        answers = await asyncio.gather(*begin(subject, many))
        seconds = process_time() - start
        clock.check(answers, list(range(many)))
        return many / seconds

    return Entrant(partial(clock.on_loop, kind, main))


def lone_contests(plan):
    """Measure calls of a single caller: the cost of batching where it saves nothing."""
    calls = plan.count(400)
    for kind in plan.loops:
        makers = {DIRECT: _direct_await, **subjects.with_window(), ADAPTIVE: subjects.ours_adaptive}
        makers[AIODATALOADER] = subjects.aiodataloader
        yield Contest(
            f"a lone task on {kind}, window 2 ms",
            "us a call",
            {name: Entrant(partial(_alone_on_loop, kind, maker, calls)) for name, maker in makers.items()},
            DIRECT,
            bars=(Bar(40, (DIRECT,), most=True, subject=ADAPTIVE, apart=True),) if kind == "asyncio" else (),
            note="The median of all calls of a round: less is better.",
        )
    makers = {DIRECT: _direct, **subjects.AMONG_THREADS}
    yield Contest(
        "a lone thread, window 2 ms",
        "us a call",
        {name: Entrant(partial(_alone_in_thread, maker, calls)) for name, maker in makers.items()},
        DIRECT,
        bars=(Bar(100, (DIRECT,), most=True, subject=ADAPTIVE, apart=True),),
        note="The median of all calls of a round: less is better.",
    )


def _direct_await(fn, **_):
    async def call(item):
        return (await fn([item]))[0]

    return Subject(call)


def _direct(fn, **_):
    return Subject(lambda item: fn([item])[0])


def _alone_on_loop(kind, maker, calls):
    async def main():
        call = maker(clock.echo, max_size=ON_LOOP_SIZE, timeout=WINDOW).call
        await clock.tasks_latencies(call, 1, 10)
        return 1e6 * median(await clock.tasks_latencies(call, 1, calls))

    return clock.on_loop(kind, main)


def _alone_in_thread(maker, calls):
    subject = maker(clock.echo_def, max_size=THREADS_SIZE, timeout=WINDOW)
    try:
        clock.threads_latencies(subject.call, 1, 10, 1)
        return 1e6 * median(clock.threads_latencies(subject.call, 1, calls, 1)[0])
    finally:
        subject.close()
