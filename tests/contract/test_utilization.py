"""``BatchStats.utilization``: the share of slot time in which batches ran."""

from __future__ import annotations

import asyncio

from batchify import BatchStats, microbatch
from batchify.testing import run
from tests.kit.engines import HOUR


async def work(items):
    """Work for as many seconds as the item says."""
    await asyncio.sleep(items[0])
    if len(items) > 1:
        raise ValueError
    return items


def test_it_counts_the_time_of_all_slots_since_the_first_call():
    """It is the run time of all batches, as a share of the time of all slots from the first call to the last answer."""

    async def main():
        fn = microbatch(work, max_size=1, concurrency=2)
        await asyncio.sleep(100)
        assert 0.0 == fn.batch_stats.utilization
        await asyncio.gather(fn(1), fn(1))
        assert 1.0 == fn.batch_stats.utilization
        await asyncio.sleep(2)
        # The slots are idle, but no batch was counted since.
        assert 1.0 == fn.batch_stats.utilization
        await fn(1)
        assert 3 / (2 * 4) == fn.batch_stats.utilization
        fn.configure(concurrency=1)
        await fn(2)
        assert 5 / (2 * 4 + 2) == fn.batch_stats.utilization
        assert fn.batch_stats.to_dict()["utilization"] == 0.5

    run(main())


def test_a_reset_begins_again():
    """After a reset, it counts from the next call on."""

    async def main():
        fn = microbatch(work, max_size=1)
        await fn(1)
        fn.reset_stats()
        assert 0.0 == fn.batch_stats.utilization
        await asyncio.sleep(10)
        await fn(1)
        await asyncio.sleep(3)
        await fn(1)
        assert 2 / 5 == fn.batch_stats.utilization

    run(main())


def test_a_method_counts_the_slots_of_all_instances():
    """The statistics of a method count the slots of all instances, also of those that are gone."""

    class Worker:
        @microbatch(max_size=1)
        async def work(self, items):
            return await work(items)

    async def main():
        worker = Worker()
        await asyncio.gather(worker.work(4), Worker().work(2))
        assert (1.0, 1.0) == (worker.work.batch_stats.utilization, Worker.work.batch_stats.utilization)
        await asyncio.sleep(4)
        await worker.work(2)
        assert (6 / 10, 8 / 12) == (worker.work.batch_stats.utilization, Worker.work.batch_stats.utilization)

    run(main())


def test_it_is_at_most_1():
    """It is at most 1, also while errors are isolated, when each part counts from the departure of the batch."""

    async def main():
        fn = microbatch(work, max_size=4, isolate_errors=True)
        await asyncio.gather(*[fn(1) for _ in range(4)])
        assert 1.0 == fn.batch_stats.utilization

    run(main())


def test_threads(kit):
    """Both engines count the time of their slots."""
    fn, _ = kit.decorate(max_size=2, timeout=HOUR)
    kit.results(kit.call_waiting(fn, 1, 2))
    assert 0.0 < fn.batch_stats.utilization < 1.0
    assert 0.0 == BatchStats("f").utilization
