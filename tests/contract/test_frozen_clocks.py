"""Calls under frozen clocks: freezegun and time-machine stop the clock of the application, and never that of batchify.

freezegun replaces every module attribute that is a function of the clock, in all loaded modules. time-machine replaces
the functions themselves.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from datetime import datetime, timezone

import freezegun
import pytest
import time_machine

from batchify import DeadlineError, SyncMicrobatcher, microbatch
from batchify._clock import monotonic
from tests.kit.engines import HOUR, doubled, wait_until

# Before the machine was started, and in between.
DATES = [datetime(1970, 1, 1, tzinfo=timezone.utc), datetime(2024, 1, 1, tzinfo=timezone.utc)]
# A window that ends within a test.
SHORT = 0.002


@pytest.fixture(
    params=[
        freezegun.freeze_time,
        lambda date: freezegun.freeze_time(date, tick=True),
        lambda date: freezegun.freeze_time(date, real_asyncio=True),
        lambda date: time_machine.travel(date, tick=False),
    ],
    ids=["freezegun", "ticking", "real asyncio", "time-machine"],
)
def freeze(request):
    return request.param


@pytest.mark.parametrize("date", DATES, ids=str)
@pytest.mark.parametrize("timeout", [None, 0, SHORT])
def test_a_call_from_a_thread_is_answered(threads, freeze, date, timeout):
    """A function answers calls whose clock is frozen, first or later ones, and calls from before and after."""
    fn, gate = threads.decorate(max_size=4, timeout=timeout)
    with freeze(date):
        callers = [threads.call(fn, item) for item in range(3)]
        assert [0, 2, 4] == threads.results(callers)
    assert 8 == threads.results([threads.call(fn, 4)])[0]
    gate.shut()
    early = threads.call_waiting(fn, 5)
    with freeze(date):
        late = threads.call_waiting(fn, 6, 7)
        gate.open()
        assert [10, 12, 14] == threads.results([*early, *late])


@pytest.mark.parametrize("date", DATES, ids=str)
@pytest.mark.parametrize("timeout", [None, 0, SHORT])
def test_acall_is_answered(freeze, date, timeout):
    """A task that awaits a def function gets its answer, whatever its clock says."""
    fn = microbatch(doubled, timeout=timeout)

    async def main():
        return await asyncio.gather(*[fn.acall(item) for item in range(3)])

    with freeze(date):
        assert [0, 2, 4] == asyncio.run(main())


@pytest.mark.parametrize("timeout", [None, 0, SHORT])
def test_a_call_of_an_async_function_is_answered(freeze, timeout):
    """A window of an async def function ends on real time too. The clock of the loop may be frozen meanwhile."""

    @microbatch(timeout=timeout)
    async def double(items):
        return doubled(items)

    async def main():
        with freeze(DATES[1]):
            first = await asyncio.gather(*[double(item) for item in range(3)])
            pending = asyncio.ensure_future(double(3))
            await asyncio.sleep(0)
        return [*first, await pending, await double(4)]

    assert [0, 2, 4, 6, 8] == asyncio.run(main())


@pytest.mark.parametrize("date", DATES, ids=str)
def test_a_deadline_passes_in_real_time(threads, freeze, date):
    """A call under a frozen clock gets its DeadlineError, and one with time left gets its answer."""
    fn, gate = threads.held(max_size=1)
    with freeze(date):
        late = threads.call(fn.options(deadline=SHORT), 1)
        assert isinstance(threads.errors([late])[0], DeadlineError)
        patient = threads.call(fn.options(deadline=HOUR), 2)
        gate.open()
        assert [4] == threads.results([patient])


def test_a_jump_of_the_clock_ends_no_window(threads, freeze):
    """A frozen clock that jumps by years does not end a window early."""
    fn, _ = threads.decorate(timeout=HOUR)
    with freeze(DATES[0]):
        callers = threads.call_waiting(fn, 1)
        with freeze(DATES[1]):
            callers += threads.call_waiting(fn, 2)
            fn.flush()
            assert [2, 4] == threads.results(callers)
    assert {2: 1} == fn.batch_stats.size_histogram


def test_statistics_are_of_real_time(threads, freeze):
    """Wait times stay real when a clock is frozen between the call and its batch."""
    fn, _ = threads.decorate(timeout=HOUR)
    callers = threads.call_waiting(fn, 1)
    with freeze(DATES[1]):
        fn.flush()
        threads.results(callers)
    assert 0 <= fn.batch_stats.wait_ms.max < 1000 * HOUR


def test_times_of_arrival_are_those_of_the_real_clock(freeze):
    """``BatchItem.enqueued_at`` can be compared with ``time.monotonic()`` outside of the frozen block."""
    before = time.monotonic()
    with SyncMicrobatcher(doubled, batch_wait_timeout_s=HOUR) as batcher:
        with freeze(DATES[1]):
            future = batcher._submit_nowait(1)
            (item,) = batcher.waiting()
        batcher.flush()
        wait_until(future.done)
    assert before <= item.enqueued_at <= time.monotonic()


FROZEN_IMPORT = """
import freezegun
with freezegun.freeze_time("2024-01-01"):
    from batchify import microbatch
    @microbatch(timeout=0.002)
    def double(items):
        return [2 * item for item in items]
    assert 2 == double(1)
assert 4 == double(2)
"""


def test_an_import_under_a_frozen_clock_takes_the_real_one():
    """A function that is decorated and first called under a frozen clock works there and afterwards."""
    subprocess.run([sys.executable, "-c", FROZEN_IMPORT], check=True, timeout=30)


def test_the_clock_is_that_of_the_system():
    """The package's own clock is ``time.monotonic()``, as another function object."""
    assert monotonic is not time.monotonic
    before = time.monotonic()
    assert before <= monotonic() <= time.monotonic()
