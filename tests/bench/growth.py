"""What grows with the number of waiting calls, of option groups and of instances: memory, and the cost of each call."""

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
    """Count the bytes of what waits, in a batch that is never full, in a window that is never over."""
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
    # What aiodataloader returns is a future.
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
            # The tasks begin; the worker of a peer looks at what there is.
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
    """Knows how many bytes were allocated since it was entered, and are still there."""

    def __enter__(self):
        gc.collect()
        tracemalloc.start()
        self._before = tracemalloc.get_traced_memory()[0]
        return self

    def bytes(self):
        """Return how many more there are."""
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - self._before

    def __exit__(self, *error):
        tracemalloc.stop()


def waiting_contests(plan):
    """Let very many wait behind a batch that takes its time, then have them all answered."""
    few, many = 1_000, plan.count(1_000_000)
    names = {f"{who}, {number:,}": (who, number) for who in (FLOOR, OURS, AIODATALOADER) for number in (few, many)}
    yield Contest(
        "waiting behind a batch, on a loop",
        "us of CPU an item",
        {
            name: Entrant(partial(clock.on_loop, "asyncio", partial(_behind, subjects.ON_LOOP[who], number, many)))
            for name, (who, number) in names.items()
        },
        f"{FLOOR}, {few:,}",
        bars=(Bar(1.25, (f"{OURS}, {few:,}",), most=True, subject=f"{OURS}, {many:,}"),),
        note=LESS,
    )


async def _behind(maker, number, total):
    """Return the microseconds of an item when ``number`` of them wait, as often as makes a tenth of ``total``."""
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
        # Before the next ones come, and not while they are timed.
        del futures
    return 1e6 * seconds / number / times


def groups_contests(plan):
    """Let calls wait whose options differ: each group has its own batches, and all of them wait at once."""
    many = plan.count(10_000)
    makers = {FLOOR: _floor_for_each_group, OURS: _option_for_each_group}
    names = {f"{who}, {number:,}": (who, number) for who in makers for number in (1, many)}
    yield Contest(
        "waiting in groups by option, on a loop",
        "us of CPU an item",
        {
            name: Entrant(partial(clock.on_loop, "asyncio", partial(_in_groups, makers[who], number, many)))
            for name, (who, number) in names.items()
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
    """Return the microseconds of an item when as many wait as fill a batch of each of ``many`` groups."""
    call = maker()
    items = list(range(GROUP_SIZE * many))
    start = process_time()
    # One of each group after another, as they come where many users ask at once.
    answers = await asyncio.gather(*[call(item, item % groups) for item in items])
    seconds = process_time() - start
    clock.check(answers, items)
    return 1e6 * seconds / len(items)


def instances_contests(plan):
    """Call a method of many instances, each of which has its own batches."""
    many, visits = plan.count(10_000), plan.count(2_000)
    names = {f"{who}, {number:,}": (who, number) for who in CLASSES for number in (1, many)}
    for kind in plan.loops:
        yield Contest(
            f"full batches of one instance after another on {kind}",
            "us of CPU an item",
            {
                name: Entrant(partial(clock.on_loop, kind, partial(_visit, CLASSES[who], number, visits)))
                for name, (who, number) in names.items()
            },
            f"{FLOOR}, 1",
            bars=(Bar(1.25, (f"{OURS}, 1",), most=True, subject=f"{OURS}, {many:,}"),) if kind == "asyncio" else (),
            note=LESS,
        )
        yield Contest(
            f"the first call of each of {many:,} instances on {kind}",
            "us of CPU an instance",
            {
                name: Entrant(partial(clock.on_loop, kind, partial(_begin, made, many)))
                for name, made in CLASSES.items()
            },
            note=LESS,
        )


class FloorClass:
    """Each instance makes a floor of its own."""

    def __init__(self):
        self.echo = subjects.loop_floor(clock.echo, max_size=ON_LOOP_SIZE, timeout=None).call


class OurClass:
    """A decorated method."""

    @microbatch(max_size=ON_LOOP_SIZE)
    async def echo(self, items):
        """Answer each item with itself."""
        return items


class LoaderClass:
    """Each instance makes a loader of its own."""

    def __init__(self):
        self.echo = subjects.aiodataloader(clock.echo, max_size=ON_LOOP_SIZE, timeout=None).call


CLASSES = {FLOOR: FloorClass, OURS: OurClass, AIODATALOADER: LoaderClass}


async def _visit(made, number, visits):
    instances = [made() for _ in range(number)]
    await asyncio.gather(*[instance.echo(0) for instance in instances])
    items = list(range(ON_LOOP_SIZE))
    start = process_time()
    for visit in range(visits):
        # A prime, so that neighbours do not follow each other.
        echo = instances[visit * 7919 % number].echo
        clock.check(await asyncio.gather(*[echo(item) for item in items]), items)
    return 1e6 * (process_time() - start) / visits / ON_LOOP_SIZE


async def _begin(made, number):
    start = process_time()
    instances = [made() for _ in range(number)]
    answers = await asyncio.gather(*[instance.echo(item) for item, instance in enumerate(instances)])
    seconds = process_time() - start
    clock.check(answers, list(range(number)))
    return 1e6 * seconds / number
