"""Memory and cost of each call for growing numbers of waiting calls, option groups and instances."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections import defaultdict
from functools import partial
from random import Random
from time import process_time

from batchify import microbatch
from tests.bench import clock, floors, subjects
from tests.bench.closed import ON_LOOP_SIZE
from tests.bench.contest import Contest
from tests.bench.figures import FLOOR, OURS
from tests.bench.subjects import AIODATALOADER

HOUR = 3600.0
GROUP_SIZE = 8
# The numbers of items, groups and instances that are compared.
WAITING = (1_000, 1_000_000)
PRIORITIES = (1_000, 6_000, 100_000)
LENGTHS = (1_000, 100_000)
GROUPS = (1, 10_000)
INSTANCES = (1, 10_000)
# The number of items of a run with few items that wait, and of items whose departure is timed.
ENOUGH = 100_000
DEPARTING = 512
LESS = "Less is better."


def memory_contests(plan):
    """Measure the memory of waiting calls, in a batch that is never full and whose window never ends."""
    many = plan.count(10_000)
    options = {"max_size": 2 * many, "timeout": HOUR}
    everybody = subjects.with_window() | subjects.without_window()
    runs = {name: partial(_bytes_on_loop, maker, _tasks, many, options) for name, maker in everybody.items()}
    yield _memory("memory of a waiting task", runs)
    makers = subjects.without_window()
    runs = {name: partial(_bytes_on_loop, maker, _futures, many, options) for name, maker in makers.items()}
    yield _memory("memory of a future of submit on a loop", runs)
    runs = {
        FLOOR: partial(_bytes_in_threads, floors.with_futures, many, {"max_size": 2 * many}),
        OURS: partial(_bytes_in_threads, _thread_submit, many, options),
    }
    yield _memory("memory of a future of submit among threads", runs)


def _memory(title, runs):
    return Contest(title, "bytes", runs, note=LESS)


def _flat(title, unit, makers, run, numbers):
    """Return a contest of ``run(maker, number)`` for each entrant and each of the ``numbers``."""
    runs = {
        f"{name}, {number:,}": partial(_uncollected, partial(run, maker, number))
        for name, maker in makers.items()
        for number in numbers
    }
    return Contest(title, unit, runs, next(iter(runs)), note=LESS)


def _uncollected(main):
    """Run without the garbage collector, which examines waiting objects the more often the more of them there are."""
    gc.disable()
    try:
        return clock.on_loop("asyncio", main)
    finally:
        gc.enable()


def _tasks(subject, items):
    # aiodataloader returns a future.
    return [asyncio.ensure_future(subject.call(item)) for item in items]


def _futures(subject, items):
    return [subject.owner.submit(item) for item in items]


def _bytes_on_loop(maker, begin, many, options):
    async def main():
        subject = maker(clock.echo, **options)
        await asyncio.wait(begin(subject, [0]), timeout=0.01)
        items = list(range(many))
        with Traced() as traced:
            waiting = begin(subject, items)
            # The tasks start, and the worker of a peer reads its queue.
            for _ in range(3):
                await asyncio.sleep(0)
            found = traced.bytes() / many
        for future in waiting:
            future.cancel()
        return found

    return clock.on_loop("asyncio", main)


def _bytes_in_threads(maker, many, options):
    submit = maker(clock.echo_def, **options)
    submit(0)
    items = list(range(many))
    with Traced() as traced:
        waiting = [submit(item) for item in items]
        found = traced.bytes() / many
    for future in waiting:
        future.cancel()
    return found


def _thread_submit(fn, **options):
    return microbatch(fn, **options).submit


class Traced:
    """Counts the bytes that were allocated since it was entered and are not freed."""

    def __enter__(self):
        gc.collect()
        tracemalloc.start()
        self._before = tracemalloc.get_traced_memory()[0]
        return self

    def bytes(self):
        """Return the number of these bytes."""
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - self._before

    def __exit__(self, *error):
        tracemalloc.stop()


def waiting_contests(plan):
    """Queue very many items behind a running batch, then answer them."""
    makers = {name: subjects.ON_LOOP[name] for name in (FLOOR, OURS, AIODATALOADER)}
    yield _flat("items that wait behind a batch", "us of CPU an item", makers, _behind, WAITING)
    title = "items that wait, each with a priority of its own"
    yield _flat(title, "us of CPU an item", {OURS: subjects.ours}, _by_priority, PRIORITIES)
    yield _flat("items that wait, of 500 lengths", "us of CPU an item", {OURS: subjects.ours}, _by_length, LENGTHS)


async def _behind(maker, number):
    """Return the microseconds per item when ``number`` items wait."""
    gate = asyncio.Event()

    async def behind_gate(items):
        await gate.wait()
        return items

    owner = maker(behind_gate, max_size=ON_LOOP_SIZE, timeout=None).owner
    times = max(1, ENOUGH // number)
    items = list(range(number))
    seconds = 0.0
    for _ in range(times):
        gate.clear()
        start = process_time()
        futures = [owner.submit(item) for item in items]
        await asyncio.sleep(0)
        gate.set()
        await futures[-1]
        seconds += process_time() - start
        clock.check(await asyncio.gather(*futures), items)
        # Freed here, so that the time of the next round does not include it.
        del futures
    return 1e6 * seconds / number / times


async def _by_priority(maker, number):
    return await _departing(maker, number, lambda owner, rank: owner.options(priority=rank / number).submit)


async def _by_length(maker, number):
    return await _departing(partial(maker, length=lambda rank: rank % 500), number, lambda owner, _: owner.submit)


async def _departing(maker, number, submit_of):
    """Return the microseconds of the arrival of an item and of its departure, while ``number`` items wait."""
    gate, has_departed = asyncio.Event(), asyncio.Event()
    departed = 0

    async def behind_gate(items):
        nonlocal departed
        await gate.wait()
        departed += len(items)
        if departed >= DEPARTING:
            has_departed.set()
            gate.clear()
        return items

    owner = maker(behind_gate, max_size=ON_LOOP_SIZE, timeout=None).owner
    ranks = list(range(number))
    Random(number).shuffle(ranks)
    submits = [submit_of(owner, rank) for rank in ranks]
    start = process_time()
    futures = [submit(rank) for submit, rank in zip(submits, ranks, strict=True)]
    await asyncio.sleep(0)
    arrival = (process_time() - start) / number
    start = process_time()
    gate.set()
    await has_departed.wait()
    departure = (process_time() - start) / departed
    for future, rank in zip(futures, ranks, strict=True):
        if not future.cancel():
            clock.check(future.result(), rank)
    return 1e6 * (arrival + departure)


def groups_contests(plan):
    """Queue calls whose options differ: each group has its own batches, and all groups wait at the same time."""
    makers = {FLOOR: _floor_for_each_group, OURS: _option_for_each_group}
    yield _flat("items that wait in groups by option", "us of CPU an item", makers, _in_groups, GROUPS)


def _floor_for_each_group():
    made = defaultdict(lambda: subjects.loop_floor(clock.echo, max_size=GROUP_SIZE, timeout=None).call)
    return lambda item, group: made[group](item)


def _option_for_each_group():
    @microbatch(max_size=GROUP_SIZE)
    async def echo(items, *, group):
        return items

    return lambda item, group: echo(item, group=group)


async def _in_groups(maker, groups):
    """Return the microseconds per item when as many items wait as fill one batch of each of very many groups."""
    call = maker()
    items = list(range(GROUP_SIZE * GROUPS[-1]))
    start = process_time()
    # The groups alternate, as with many concurrent users.
    answers = await asyncio.gather(*[call(item, item % groups) for item in items])
    seconds = process_time() - start
    clock.check(answers, items)
    return 1e6 * seconds / len(items)


def instances_contests(plan):
    """Measure a method of many instances, each of which has its own batches."""
    run = partial(_full_batches, plan.count(2_000))
    yield _flat("full batches of one instance after another", "us of CPU an item", CLASSES, run, INSTANCES)


class FloorClass:
    """Each instance has its own floor."""

    def __init__(self):
        self.echo = subjects.loop_floor(clock.echo, max_size=ON_LOOP_SIZE, timeout=None).call


class OurClass:
    """A class with a decorated method."""

    @microbatch(max_size=ON_LOOP_SIZE)
    async def echo(self, items):
        """Return the items."""
        return items


class LoaderClass:
    """Each instance has its own loader."""

    def __init__(self):
        self.echo = subjects.aiodataloader(clock.echo, max_size=ON_LOOP_SIZE, timeout=None).call


CLASSES = {FLOOR: FloorClass, OURS: OurClass, AIODATALOADER: LoaderClass}


async def _full_batches(batches, made, number):
    instances = [made() for _ in range(number)]
    await asyncio.gather(*[instance.echo(0) for instance in instances])
    items = list(range(ON_LOOP_SIZE))
    start = process_time()
    for batch in range(batches):
        # With this prime factor, consecutive calls do not use neighbouring instances.
        echo = instances[batch * 7919 % number].echo
        clock.check(await asyncio.gather(*[echo(item) for item in items]), items)
    return 1e6 * (process_time() - start) / batches / ON_LOOP_SIZE
