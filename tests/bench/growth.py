"""Memory and cost of each call for growing numbers of waiting calls, option groups and instances."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections import defaultdict
from functools import partial
from time import process_time

from batchify import microbatch
from tests.bench import clock, floors, subjects
from tests.bench.closed import ON_LOOP_SIZE
from tests.bench.contest import Contest, Entrant
from tests.bench.figures import FLOOR, OURS, Bar
from tests.bench.subjects import AIODATALOADER

HOUR = 3600.0
GROUP_SIZE = 8
LESS = "Less is better."


def memory_contests(plan):
    """Measure the memory of waiting calls, in a batch that is never full and whose window never ends."""
    many = plan.count(10_000)
    options = {"max_size": 2 * many, "timeout": HOUR}
    bars = (Bar(1.5, most=True),)
    everybody = subjects.with_window() | subjects.without_window()
    runs = {name: partial(_bytes_on_loop, maker, _tasks, many, options) for name, maker in everybody.items()}
    yield _memory("a task that waits for a call", runs, bars)
    makers = subjects.without_window()
    runs = {name: partial(_bytes_on_loop, maker, _futures, many, options) for name, maker in makers.items()}
    yield _memory("a future of submit on a loop", runs, bars)
    runs = {
        FLOOR: partial(_bytes_in_threads, floors.with_futures, many, {"max_size": 2 * many}),
        OURS: partial(_bytes_in_threads, _thread_submit, many, options),
    }
    yield _memory("a future of submit among threads", runs, bars)


def _memory(title, runs, bars):
    return Contest(title, "bytes", {name: Entrant(run) for name, run in runs.items()}, bars=bars, note=LESS)


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
    """Queue very many items behind a running batch, then answer all of them."""
    few, many = 1_000, plan.count(1_000_000)
    names = {
        f"{entrant}, {number:,}": (entrant, number)
        for entrant in (FLOOR, OURS, AIODATALOADER)
        for number in (few, many)
    }
    yield Contest(
        "waiting behind a batch, on a loop",
        "us of CPU an item",
        {
            name: Entrant(partial(clock.on_loop, "asyncio", partial(_behind, subjects.ON_LOOP[entrant], number, many)))
            for name, (entrant, number) in names.items()
        },
        f"{FLOOR}, {few:,}",
        bars=(Bar(1.25, (f"{OURS}, {few:,}",), most=True, subject=f"{OURS}, {many:,}"),),
        note=LESS,
    )


async def _behind(maker, number, total):
    """Return the microseconds per item when ``number`` items wait, over a tenth of ``total`` items."""
    gate = asyncio.Event()

    async def behind_gate(items):
        await gate.wait()
        return items

    owner = maker(behind_gate, max_size=ON_LOOP_SIZE, timeout=None).owner
    times = max(1, total // 10 // number)
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


def groups_contests(plan):
    """Queue calls whose options differ: each group has its own batches, and all groups wait at the same time."""
    many = plan.count(10_000)
    makers = {FLOOR: _floor_for_each_group, OURS: _option_for_each_group}
    names = {f"{entrant}, {number:,}": (entrant, number) for entrant in makers for number in (1, many)}
    yield Contest(
        "waiting in groups by option, on a loop",
        "us of CPU an item",
        {
            name: Entrant(partial(clock.on_loop, "asyncio", partial(_in_groups, makers[entrant], number, many)))
            for name, (entrant, number) in names.items()
        },
        f"{FLOOR}, 1",
        bars=(Bar(1.25, (f"{OURS}, 1",), most=True, subject=f"{OURS}, {many:,}"),),
        note=LESS,
    )


def _floor_for_each_group():
    made = defaultdict(lambda: subjects.loop_floor(clock.echo, max_size=GROUP_SIZE, timeout=None).call)
    return lambda item, group: made[group](item)


def _option_for_each_group():
    @microbatch(max_size=GROUP_SIZE)
    async def echo(items, *, group):
        return items

    return lambda item, group: echo(item, group=group)


async def _in_groups(maker, groups, many):
    """Return the microseconds per item when as many items wait as fill one batch of each of ``many`` groups."""
    call = maker()
    items = list(range(GROUP_SIZE * many))
    start = process_time()
    # The groups alternate, as with many concurrent users.
    answers = await asyncio.gather(*[call(item, item % groups) for item in items])
    seconds = process_time() - start
    clock.check(answers, items)
    return 1e6 * seconds / len(items)


def instances_contests(plan):
    """Measure a method of many instances, each of which has its own batches."""
    many, batches = plan.count(10_000), plan.count(2_000)
    names = {f"{entrant}, {number:,}": (entrant, number) for entrant in CLASSES for number in (1, many)}
    for kind in plan.loops:
        yield Contest(
            f"full batches of one instance after another on {kind}",
            "us of CPU an item",
            {
                name: Entrant(partial(clock.on_loop, kind, partial(_full_batches, CLASSES[entrant], number, batches)))
                for name, (entrant, number) in names.items()
            },
            f"{FLOOR}, 1",
            bars=(Bar(1.25, (f"{OURS}, 1",), most=True, subject=f"{OURS}, {many:,}"),) if kind == "asyncio" else (),
            note=LESS,
        )
        yield Contest(
            f"the first call of each of {many:,} instances on {kind}",
            "us of CPU an instance",
            {
                name: Entrant(partial(clock.on_loop, kind, partial(_first_calls, made, many)))
                for name, made in CLASSES.items()
            },
            note=LESS,
        )


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


async def _full_batches(made, number, batches):
    instances = [made() for _ in range(number)]
    await asyncio.gather(*[instance.echo(0) for instance in instances])
    items = list(range(ON_LOOP_SIZE))
    start = process_time()
    for batch in range(batches):
        # With this prime factor, consecutive calls do not use neighbouring instances.
        echo = instances[batch * 7919 % number].echo
        clock.check(await asyncio.gather(*[echo(item) for item in items]), items)
    return 1e6 * (process_time() - start) / batches / ON_LOOP_SIZE


async def _first_calls(made, number):
    start = process_time()
    instances = [made() for _ in range(number)]
    answers = await asyncio.gather(*[instance.echo(item) for item, instance in enumerate(instances)])
    seconds = process_time() - start
    clock.check(answers, list(range(number)))
    return 1e6 * seconds / number
