"""Timing of a run, on an event loop or in threads, with the same caller code for all entrants.

Must not know: the entrant that it calls.
"""

from __future__ import annotations

import asyncio
from itertools import count
from threading import Barrier, Thread
from time import perf_counter, process_time

from tests.bench.subjects import module

LOOPS = ("asyncio", "uvloop")


class WrongAnswerError(Exception):
    """A caller got a wrong answer, so no measurement is valid."""


def check(found, expected):
    """Compare answers.

    Raises:
        WrongAnswerError: they differ.
    """
    if found != expected:
        msg = f"an answer is wrong: {found!r:.60} instead of {expected!r:.60}"
        raise WrongAnswerError(msg)


async def echo(items):
    """Return the items at once, so that only the cost of batching remains."""
    return items


def echo_def(items):
    """Return the items, as a ``def`` function."""
    return items


def on_loop(kind, main):
    """Return the result of the coroutine function ``main`` on a new loop, and end its remaining tasks."""
    loop = asyncio.new_event_loop() if kind == "asyncio" else module(kind).new_event_loop()
    try:
        return loop.run_until_complete(main())
    finally:
        loop.run_until_complete(_end())
        loop.close()


async def _end():
    # Tasks of a peer may suppress a cancellation, so they are cancelled until they end.
    while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=0.1)
    await asyncio.get_running_loop().shutdown_default_executor()


async def tasks_rates(call, callers, calls):
    """Return the calls of tasks that call again as soon as they have an answer, per second of CPU time and of time."""

    async def caller(number):
        for item in range(number, number + calls):
            if await call(item) != item:
                check(None, item)

    start, start_of_cpu = perf_counter(), process_time()
    await asyncio.gather(*[caller(number) for number in range(callers)])
    return callers * calls / (process_time() - start_of_cpu), callers * calls / (perf_counter() - start)


async def lone_latencies(call, calls):
    """Return the seconds from call to answer of each call of one such task."""
    latencies = []
    for item in range(calls):
        start = perf_counter()
        answer = await call(item)
        latencies.append(perf_counter() - start)
        check(answer, item)
    return latencies


def threads_latencies(call, callers, calls, size):
    """Return the seconds from call to answer of each call of threads that call again and again, and the duration.

    The measurement ends when fewer threads are left than a batch has items, because they could not fill a batch.
    """
    latencies = []
    ended = count()
    over = []

    def caller(number):
        for item in range(number, number + calls):
            start = perf_counter()
            answer = call(item)
            latencies.append(perf_counter() - start)
            check(answer, item)
        if next(ended) == max(0, callers - size):
            over.append((len(latencies), perf_counter()))

    begun = min(start for start, _ in among_threads(caller, callers))
    [(counted, end)] = over
    return latencies[:counted], end - begun


def among_threads(caller, callers):
    """Run ``caller(number)`` in threads that start together; return the start and the end of each."""
    spans = []
    errors = []
    together = Barrier(callers)

    def body(number):
        together.wait()
        start = perf_counter()
        try:
            caller(number)
        except BaseException as error:
            errors.append(error)
        spans.append((start, perf_counter()))

    threads = [Thread(target=body, args=(number,), daemon=True) for number in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return spans
