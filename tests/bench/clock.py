"""How a run is timed: on a loop of a kind, or among threads, with the same caller code for everybody.

Must not know: who is called.
"""

from __future__ import annotations

import asyncio
from itertools import count
from threading import Barrier, Thread
from time import perf_counter

from tests.bench.subjects import module


class WrongAnswerError(Exception):
    """A caller got something else than its answer: nothing that was measured counts."""


def check(found, expected):
    """Compare answers.

    Raises:
        WrongAnswerError: they differ.
    """
    if found != expected:
        msg = f"an answer is wrong: {found!r:.60} instead of {expected!r:.60}"
        raise WrongAnswerError(msg)


async def echo(items):
    """Answer each item with itself, at once: what is left is the cost of batching."""
    return items


def echo_def(items):
    """Do what ``echo`` does in a ``def`` function."""
    return items


def on_loop(kind, main):
    """Return what the coroutine function ``main`` returns on a new loop; end all that it leaves running."""
    loop = asyncio.new_event_loop() if kind == "asyncio" else module(kind).new_event_loop()
    try:
        return loop.run_until_complete(main())
    finally:
        loop.run_until_complete(_end())
        loop.close()


async def _end():
    # Tasks of a peer may swallow a cancellation: they are asked until they listen.
    while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=0.1)
    await asyncio.get_running_loop().shutdown_default_executor()


async def tasks_rate(call, callers, calls):
    """Return the calls a second of tasks that call again as soon as they have an answer."""

    async def caller(number):
        for item in range(number, number + calls):
            if await call(item) != item:
                check(None, item)

    start = perf_counter()
    await asyncio.gather(*[caller(number) for number in range(callers)])
    return callers * calls / (perf_counter() - start)


async def tasks_latencies(call, callers, calls):
    """Return the seconds from call to answer of each call of such tasks."""
    latencies = []

    async def caller(number):
        for item in range(number, number + calls):
            start = perf_counter()
            answer = await call(item)
            latencies.append(perf_counter() - start)
            check(answer, item)

    await asyncio.gather(*[caller(number) for number in range(callers)])
    return latencies


def threads_latencies(call, callers, calls, size):
    """Return the seconds from call to answer of each call of threads that call again and again, and how long it took.

    It is over when fewer of them are left than a batch has places: they would wait for company that never comes.
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
    """Run ``caller(number)`` in threads that start together; return when each began and ended."""
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
