"""When the head of the line may leave."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchify._timing import Adaptive, Window

moments = st.floats(0, 1e6)
spans = st.floats(0, 1e3)


def adaptive(concurrency, *run_times, departed=None):
    """Return the adaptive policy after batches that took so long, and a departure."""
    timing = Adaptive(concurrency)
    for run_time in run_times:
        timing.ended(run_time)
    if departed is not None:
        timing.departed(departed)
    return timing


def test_a_window_begins_with_the_arrival():
    """An item may leave when it has waited for the timeout since it arrived."""
    assert 10.5 == Window(0.5).due(10.0, 0)


def test_a_window_does_not_depend_on_what_runs():
    """Running batches neither shorten nor lengthen a fixed window."""
    assert 10.5 == Window(0.5).due(10.0, 3)


def test_a_window_learns_nothing():
    """Departures and run times do not move a fixed window."""
    timing = Window(0.5)
    timing.departed(11.0)
    timing.ended(60.0)
    assert 10.5 == timing.due(10.0, 1)


def test_no_window_at_all():
    """With a timeout of 0 an item may leave when it arrives."""
    assert 10.0 == Window(0.0).due(10.0, 1)


def test_idle_means_at_once():
    """With nothing running, an item may leave when it arrives, whatever was measured before."""
    assert 10.0 == adaptive(4, 60.0, departed=9.0).due(10.0, 0)


def test_nothing_measured_means_at_once():
    """Until a first batch is over there is no distance to keep."""
    assert 10.0 == adaptive(4, departed=9.0).due(10.0, 1)


def test_nothing_departed_means_at_once():
    """Without a departure there is nothing to keep a distance from."""
    assert 10.0 == adaptive(4, 8.0).due(10.0, 1)


def test_departures_keep_a_distance():
    """While batches run, departures are one run time divided by the number of slots apart."""
    assert 11.0 == adaptive(4, 8.0, departed=9.0).due(10.0, 1)


def test_the_newest_departure_counts():
    """The distance is kept from the last batch that left."""
    timing = adaptive(4, 8.0, departed=9.0)
    timing.departed(9.5)
    assert 11.5 == timing.due(10.0, 2)


def test_a_late_arrival_does_not_wait():
    """An item that arrives after the distance was kept may leave at once."""
    assert 12.0 == adaptive(4, 8.0, departed=9.0).due(12.0, 1)


def test_the_first_run_time_is_taken_as_it_is():
    """The first measurement is the average, not a fifth of it."""
    assert 8.0 == adaptive(1, 8.0, departed=0.0).due(0.0, 1)


def test_the_newest_run_time_weighs_a_fifth():
    """A run of 13 s after one of 8 s moves the average to 9 s."""
    assert 9.0 == adaptive(1, 8.0, 13.0, departed=0.0).due(0.0, 1)


def test_a_function_that_slows_down_is_followed_within_ten_batches():
    """After ten runs of a new length, nine tenths of the difference are made up for."""
    assert 1.893 == pytest.approx(adaptive(1, 1.0, *[2.0] * 10, departed=0.0).due(0.0, 1), abs=0.001)


@given(arrived=moments, timeout=spans, running=st.integers(0, 9))
def test_nobody_leaves_a_window_before_the_arrival(arrived, timeout, running):
    """A window never ends before it begins."""
    assert arrived <= Window(timeout).due(arrived, running)


@given(arrived=moments, departed=moments, run_times=st.lists(spans, max_size=5), slots=st.integers(1, 9))
def test_nobody_waits_longer_than_a_batch_runs(arrived, departed, run_times, slots):
    """Adaptive timing holds an item back for one run of the slowest batch after the last departure, and no longer."""
    due = adaptive(slots, *run_times, departed=departed).due(arrived, 1)
    assert arrived <= due <= max(arrived, departed + max(run_times, default=0.0) * (1 + 1e-9))


@given(first=moments, second=moments, departed=moments, run_time=spans, running=st.integers(0, 3))
def test_who_came_first_is_due_first(first, second, departed, run_time, running):
    """A later arrival is never due before an earlier one: leaving the line cannot make a batch due."""
    timing = adaptive(3, run_time, departed=departed)
    assert timing.due(min(first, second), running) <= timing.due(max(first, second), running)
