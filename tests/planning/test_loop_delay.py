"""The delay between an event loop and a worker thread, in virtual time."""

from __future__ import annotations

from functools import partial
from itertools import accumulate, chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchify._core.queue import PlainQueue
from batchify._planning.loop_delay import LoopDelay
from batchify._planning.simulation import checked_limits, departures


def batches(loop_delay, due, run_times, *, max_size=1, concurrency=1):
    """Return the batches of calls that are due, as (items, end, answered), with the given run times."""
    limits = checked_limits(max_size, None, concurrency)
    run_times = iter(run_times)
    run = partial(departures, run_time=lambda _: next(run_times))
    answered = list(loop_delay.apply(due, lambda arrivals: run(PlainQueue(limits), arrivals)))
    return [(batch.arrived, end, time) for batch, end, time in answered]


def test_times_are_exact_without_a_delay():
    """Without a delay, calls arrive when they are due, and answers when their batch ends."""
    assert [([0.0], 2.0, 2.0), ([1.0], 4.0, 4.0)] == batches(LoopDelay(0.0, 0.0, 0.0), [0.0, 1.0], [2.0] * 4)


def test_a_single_call_is_delayed_twice():
    """The loop wakes up and makes the call; it wakes up again and delivers the answer."""
    assert [([0.0], 22.5, 33.0)] == batches(LoopDelay(10.0, 0.5, 2.0), [0.0], [10.0] * 2)


def test_calls_that_are_due_while_the_loop_wakes_up_arrive_together():
    """The second call is due while the loop wakes up for the first, and the third when the loop sleeps again."""
    found = batches(LoopDelay(10.0, 1.0, 0.0), [0.0, 9.0, 12.5], [100.0] * 4, max_size=3)
    assert [([0.0, 9.0], 112.0, 124.0), ([12.5], 212.0, 223.0)] == found


def test_an_awake_loop_makes_a_due_call_at_once():
    """A loop that delivers answers makes a call that is due, and then sleeps."""
    found = batches(LoopDelay(10.0, 1.0, 0.0), [0.0, 22.0], [10.0] * 4)
    assert [([0.0], 21.0, 33.0), ([22.0], 43.0, 54.0)] == found


def test_batches_may_end_in_any_order():
    """The first of two concurrent batches ends last; each caller gets the answer of its own batch."""
    found = batches(LoopDelay(0.0, 1.0, 0.0), [0.0, 2.0], [50.0, 10.0] * 2, concurrency=2)
    assert [([0.0], 51.0, 52.0), ([2.0], 13.0, 14.0)] == found


@given(
    gaps=st.lists(st.floats(0.0, 5.0), min_size=1, max_size=40),
    delays=st.tuples(*[st.floats(0.0, 3.0)] * 3),
    max_size=st.integers(1, 5),
    concurrency=st.integers(1, 3),
)
def test_no_call_is_lost_or_early(gaps, delays, max_size, concurrency):
    """Each call is in one batch, in order; no batch leaves before its calls arrive, and no answer is early."""
    due = list(accumulate(gaps))
    loop_delay = LoopDelay(*delays)
    run = partial(
        departures, PlainQueue(checked_limits(max_size, None, concurrency)), run_time=lambda batch: float(batch.size)
    )
    answered = list(loop_delay.apply(due, run))
    assert due == list(chain.from_iterable(batch.arrived for batch, _, _ in answered))
    for batch, end, time in answered:
        earliest = batch.arrived[-1] + loop_delay.per_call + loop_delay.hand_over
        assert batch.departed >= earliest or batch.departed == pytest.approx(earliest)
        assert end == batch.departed + batch.size
        earliest = end + loop_delay.per_call * batch.size
        assert time >= earliest or time == pytest.approx(earliest)
