"""Open loop: items arrive at random times, at a share of the capacity, whether or not earlier items are answered.

The batch function sleeps as long as a model on one device would take: A seconds for the call and B for each item, one
batch at a time. This uses hardly any CPU, so all entrants can run at the same time with the same arrivals. The figures
are the mean and the 99th percentile of the time from arrival to answer; less is better. Peers that run any number of
batches at once do not take part: they would queue batches of one item at the device.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from random import Random
from statistics import mean
from threading import Lock
from time import perf_counter

from tests.bench import clock, subjects
from tests.bench.contest import AbsentError, Contest, Together
from tests.bench.figures import percentile
from tests.bench.subjects import ADAPTIVE, ASYNC_BATCHER, BATCHED, FIXED_WINDOWS

A, B, SIZE = 0.020, 0.001, 32
# Items per second in full batches.
CAPACITY = SIZE / (A + B * SIZE)
LOADS = (10, 50, 80, 95)
# The window of all peers.
WINDOW = 0.002


def poisson_contests(plan):
    """Measure each engine at each load."""
    on_loop = {
        name: partial(subjects.ours, timeout=window) for name, window in {ADAPTIVE: None, **FIXED_WINDOWS}.items()
    }
    in_threads = {**on_loop, BATCHED: partial(subjects.batched_in_thread, timeout=WINDOW)}
    for name in (BATCHED, ASYNC_BATCHER):
        on_loop[name] = partial(subjects.ON_LOOP[name], timeout=WINDOW)
    for load in LOADS:
        yield _contest(f"arrivals at {load} % of capacity, tasks", on_loop, _on_loop, load, plan)
        yield _contest(f"arrivals at {load} % of capacity, threads", in_threads, _in_threads, load, plan)


def _contest(title, makers, play, load, plan):
    together = Together(partial(_round, makers, play, load, plan.count(400)))
    return Contest(
        title,
        "mean ms",
        {name: partial(together.outcome, name) for name in makers},
        ADAPTIVE,
        tail="p99 ms",
    )


def _round(makers, play, load, items, seed):
    """Return the mean and the 99th percentile of each entrant, in milliseconds."""
    random = Random(seed)
    gaps = [random.expovariate(CAPACITY * load / 100) for _ in range(items)]
    outcomes = dict.fromkeys(makers)
    ready = {}

    async def main():
        for name, maker in makers.items():
            try:
                ready[name] = play(maker)
            except AbsentError as error:
                outcomes[name] = error
        latencies = {name: [] for name in ready}
        await _arrive(gaps, {name: partial(call, latencies[name]) for name, (call, _) in ready.items()})
        return latencies

    for name, latencies in clock.on_loop("asyncio", main).items():
        clock.check(len(latencies), items)
        outcomes[name] = 1000 * mean(latencies), 1000 * percentile(latencies, 99)
        ready[name][1]()
    return outcomes


async def _arrive(gaps, calls):
    """Make each call to all entrants at once, and return when all calls are answered."""
    loop = asyncio.get_running_loop()
    answers = []
    # Latency counts from the time at which a call is due, so that a busy loop hides no delay.
    due = perf_counter()
    for item, gap in enumerate(gaps):
        due += gap
        await asyncio.sleep(due - perf_counter())
        answers += [loop.create_task(call(item, due)) for call in calls.values()]
    await asyncio.gather(*answers)


def _on_loop(maker):
    device = asyncio.Lock()

    async def serve(items):
        async with device:
            await asyncio.sleep(A + B * len(items))
        return items

    subject = maker(serve, max_size=SIZE)

    async def call(latencies, item, due):
        clock.check(await subject.call(item), item)
        latencies.append(perf_counter() - due)

    return call, subject.close


def _in_threads(maker):
    device = Lock()

    def serve(items):
        with device:
            time.sleep(A + B * len(items))
        return items

    subject = maker(serve, max_size=SIZE)

    async def call(latencies, item, due):
        clock.check(await subject.call.acall(item), item)
        latencies.append(perf_counter() - due)

    return call, subject.close
