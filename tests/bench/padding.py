"""Padding: a batch function whose run time depends on its longest item, for sentences of real text.

Tasks call again as soon as they have an answer, in virtual time, so the figures do not depend on the machine. A batch
costs as much as one item of mean length, and for each item as much as for the longest one. The function is the same for
all entrants; the last one gets the list of all items, sorted by length, in batches of the same size.
"""

from __future__ import annotations

import asyncio
from functools import cache, partial
from pydoc_data.topics import topics
from random import Random
from statistics import mean

from batchify import microbatch
from batchify.testing import virtual_time
from tests.bench.contest import Contest, Together

SIZE = 64
CALLERS = (16, 64, 256)
# The seconds of the fixed cost of a run, and of an item of mean length.
COST = 0.004
IN_ORDER, BY_GROUP, BY_LENGTH = (f"batchify, {kind}" for kind in ("in order", "group_by", "length"))
SORTED = "sorted beforehand"


@cache
def sentences():
    """Return the number of words of each sentence of Python's help, with the two marks around it."""
    texts = [text for topic in topics.values() for text in topic.split(". ") if 40 < len(text) < 300]
    return [len(text.split()) + 2 for text in texts]


def padding_contests(plan):
    """Measure each way to choose the items of a batch."""
    step = mean(sentences()) / 2
    options = {IN_ORDER: {}, BY_GROUP: {"group_by": lambda words: words // step}, BY_LENGTH: {"length": float}}
    for callers in CALLERS:
        together = Together(partial(rates, options, callers, plan.count(6000)))
        yield Contest(
            f"padding, {callers} callers",
            "items/s",
            {name: partial(together.outcome, name) for name in (*options, SORTED)},
            SORTED,
            note="Groups are half as wide as the mean length.",
        )


def rates(options, callers, items, seed):
    """Return the items per second with each of the options, and with the list of all items sorted beforehand."""
    drawn = Random(seed).choices(sentences(), k=items)
    ours = {name: items / virtual_time.run(_seconds(drawn, callers, **own)) for name, own in options.items()}
    ordered = sorted(drawn)
    batches = [ordered[start : start + SIZE] for start in range(0, items, SIZE)]
    return {**ours, SORTED: items / sum(map(_cost, batches))}


async def _seconds(items, callers, **options):
    """Return the seconds in which the callers get all answers."""

    @microbatch(max_size=SIZE, **options)
    async def pad(batch):
        await asyncio.sleep(_cost(batch))
        return batch

    waiting = iter(items)

    async def caller():
        for item in waiting:
            await pad(item)

    await asyncio.gather(*[caller() for _ in range(callers)])
    return asyncio.get_running_loop().time()


def _cost(batch):
    return COST * (1 + len(batch) * max(batch) / mean(sentences()))
