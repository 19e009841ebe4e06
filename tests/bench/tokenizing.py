"""Real work: the tokenizer of ``examples/tokenizer.py``, which encodes short texts one at a time."""

from __future__ import annotations

import asyncio
import importlib.util
from functools import cache, partial
from pathlib import Path
from time import perf_counter

from tests.bench import clock, subjects
from tests.bench.contest import AbsentError, Contest
from tests.bench.subjects import FLOOR_WITH_POOL, Subject

EXAMPLE = Path(__file__).parents[2] / "examples" / "tokenizer.py"
DIRECT = "the tokenizer itself"
OPTIONS = {"max_size": 64, "timeout": 0.002}
THREADS, TASKS = 64, 256


def tokenizer_contests(plan):
    """Encode the paragraphs of all help pages from threads and from tasks, and compare the ids."""
    note = (
        "Each caller encodes its share of the texts one by one. The tokenizer itself is called for one text at a time."
    )
    makers = {DIRECT: lambda fn, **_: Subject(_directly(fn)), **subjects.AMONG_THREADS}
    yield Contest(
        f"tokenizing from {THREADS} threads",
        "texts/s",
        {name: partial(_from_threads, plan, maker) for name, maker in makers.items()},
        note=note,
    )
    makers = {DIRECT: lambda fn, **_: Subject(_awaited(_directly(fn))), **subjects.THROUGH_ACALL}
    yield Contest(
        f"tokenizing from {TASKS} tasks",
        "texts/s",
        {name: partial(_from_tasks, plan, maker) for name, maker in makers.items()},
        FLOOR_WITH_POOL,
        note=note,
    )


@cache
def _example():
    """Return the batch function of the example, its texts, and the ids of each of them."""
    spec = importlib.util.spec_from_file_location("tokenizer_example", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(example)
    except ImportError as error:
        msg = f"not installed: {error.name}"
        raise AbsentError(msg) from None
    texts = example.paragraphs_of_help()
    example.train(texts)
    return example.tokenize.__wrapped__, texts, [example.tokenizer.encode(text).ids for text in texts]


def _directly(fn):
    return lambda text: fn([text])[0]


def _awaited(call):
    async def awaited(item):
        return call(item)

    return awaited


def _from_threads(plan, maker):
    fn, texts, ids = _example()
    subject = maker(fn, **OPTIONS)
    share = plan.count(len(texts) // THREADS)

    def caller(number):
        for place in range(number, share * THREADS, THREADS):
            clock.check(subject.call(texts[place]), ids[place])

    try:
        clock.check(subject.call(texts[0]), ids[0])
        spans = clock.among_threads(caller, THREADS)
    finally:
        subject.close()
    return share * THREADS / (max(end for _, end in spans) - min(start for start, _ in spans))


def _from_tasks(plan, maker):
    fn, texts, ids = _example()
    share = plan.count(len(texts) // TASKS)

    async def main():
        subject = maker(fn, **OPTIONS)

        async def caller(number):
            for place in range(number, share * TASKS, TASKS):
                clock.check(await subject.call(texts[place]), ids[place])

        try:
            clock.check(await subject.call(texts[0]), ids[0])
            start = perf_counter()
            await asyncio.gather(*[caller(number) for number in range(TASKS)])
            return share * TASKS / (perf_counter() - start)
        finally:
            subject.close()

    return clock.on_loop("asyncio", main)
