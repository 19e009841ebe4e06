"""The way between an event loop and a worker thread, in made-up time."""

from __future__ import annotations

from functools import partial
from itertools import accumulate, chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchify._core.queue import PlainQueue
from batchify._planning.loop_delay import Crossing
from batchify._planning.simulation import departures, limits_of


def through(crossing, due, run_time, *, max_size=1, concurrency=1):
    """Return the batches of calls that are due, as (items, over, answered), for a function that takes ``run_time``."""
    config = limits_of(max_size, None, concurrency)
    run_times = iter(run_time)
    run = partial(departures, run_time=lambda _: next(run_times))
    left = list(crossing.through(due, lambda arrivals: run(PlainQueue(config), arrivals)))
    return [(batch.arrived, over, answered) for batch, over, answered in left]


def test_nothing_in_the_way():
    """If it takes no time, calls arrive when they are due, and answers when they are there."""
    assert [([0.0], 2.0, 2.0), ([1.0], 4.0, 4.0)] == through(Crossing(0.0, 0.0, 0.0), [0.0, 1.0], [2.0] * 4)


def test_a_call_alone():
    """The loop wakes up, makes the call and hands it over; it wakes up again, and gives the call its answer."""
    assert [([0.0], 22.5, 33.0)] == through(Crossing(10.0, 0.5, 2.0), [0.0], [10.0] * 2)


def test_calls_that_come_while_the_loop_wakes_up_arrive_together():
    """The second one is due while the loop wakes up for the first, the third when it sleeps again."""
    due = [0.0, 9.0, 12.5]
    found = through(Crossing(10.0, 1.0, 0.0), due, [100.0] * 4, max_size=3)
    assert [([0.0, 9.0], 112.0, 124.0), ([12.5], 212.0, 223.0)] == found


def test_a_call_that_comes_while_the_loop_sees_to_answers():
    """It finds the loop awake, so that it is made at once, and only then the loop sleeps."""
    found = through(Crossing(10.0, 1.0, 0.0), [0.0, 22.0], [10.0] * 4)
    assert [([0.0], 21.0, 33.0), ([22.0], 43.0, 54.0)] == found


def test_batches_that_end_in_another_order():
    """Of two slots the first is over last: each caller gets the answer of its own batch."""
    found = through(Crossing(0.0, 1.0, 0.0), [0.0, 2.0], [50.0, 10.0] * 2, concurrency=2)
    assert [([0.0], 51.0, 52.0), ([2.0], 13.0, 14.0)] == found


@given(
    gaps=st.lists(st.floats(0.0, 5.0), min_size=1, max_size=40),
    way=st.tuples(*[st.floats(0.0, 3.0)] * 3),
    max_size=st.integers(1, 5),
    concurrency=st.integers(1, 3),
)
def test_no_call_is_lost_or_early(gaps, way, max_size, concurrency):
    """Each call is in one batch, in order; nothing leaves before it can be there, no answer comes before it can."""
    due = list(accumulate(gaps))
    crossing = Crossing(*way)
    left = list(
        crossing.through(due, partial(departures, PlainQueue(limits_of(max_size, None, concurrency)), run_time=float))
    )
    assert due == list(chain.from_iterable(batch.arrived for batch, _, _ in left))
    for batch, over, answered in left:
        soonest = batch.arrived[-1] + crossing.each + crossing.hand_over
        assert batch.departed >= soonest or batch.departed == pytest.approx(soonest)
        assert over == batch.departed + batch.size
        back = over + crossing.each * batch.size
        assert answered >= back or answered == pytest.approx(back)
