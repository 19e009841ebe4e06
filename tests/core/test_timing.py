"""Timing policies: the time at which the head of the queue may leave."""

from __future__ import annotations

from fractions import Fraction
from itertools import repeat
from operator import itemgetter, mul

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchify._core.timing import NEWEST, Adaptive, Window

moments = st.floats(0, 1e6)
spans = st.floats(0, 1e3)
counts = st.integers(1, 64)


def adaptive(concurrency, *run_times, sizes=None, departed=None):
    """Return the adaptive policy after batches of these run times and sizes, and a departure."""
    timing = Adaptive(concurrency)
    for run_time, size in zip(run_times, sizes or repeat(4), strict=False):
        timing.ended(run_time, size)
    if departed is not None:
        timing.departed(departed)
    return timing


def test_a_window_begins_with_the_arrival():
    """An item may leave when it has waited for the timeout since its arrival."""
    assert 10.5 == Window(0.5).due(10.0, 0)


def test_a_window_does_not_depend_on_what_runs():
    """Running batches neither shorten nor lengthen a fixed window."""
    assert 10.5 == Window(0.5).due(10.0, 3)


def test_a_timeout_of_zero_is_no_window():
    """With a timeout of 0, an item may leave when it arrives."""
    assert 10.0 == Window(0.0).due(10.0, 1)


def test_items_leave_at_once_without_a_running_batch():
    """With no running batch, an item may leave when it arrives, whatever was measured before."""
    assert 10.0 == adaptive(4, 60.0, departed=9.0).due(10.0, 0)


def test_items_leave_at_once_before_the_first_measurement():
    """Until the first batch ends, there is no distance to keep."""
    assert 10.0 == adaptive(4, departed=9.0).due(10.0, 1)


def test_items_leave_at_once_before_the_first_departure():
    """Without a departure, there is no distance to keep."""
    assert 10.0 == adaptive(4, 8.0).due(10.0, 1)


def test_departures_keep_a_distance():
    """While batches run, departures keep a distance of the run time divided by the number of slots."""
    assert 11.0 == adaptive(4, 8.0, departed=9.0).due(10.0, 1)


def test_the_cost_of_items_causes_no_wait():
    """Of 10 s for a run and 2 s for each item, only the 10 s count."""
    timing = adaptive(4, 12.0, 18.0, 74.0, 14.0, sizes=[1, 4, 32, 2], departed=9.0)
    assert 11.5 == pytest.approx(timing.due(10.0, 1))


def test_without_a_fixed_cost_there_is_no_distance():
    """Batches that cost no more than their items do not wait."""
    assert 10.0 == adaptive(4, 2.0, 8.0, sizes=[1, 4], departed=9.9).due(10.0, 1)


def test_faster_larger_batches_do_not_increase_the_distance():
    """If larger batches run faster, the distance is that of an average run."""
    assert 9.0 + 9.0 / 4 == adaptive(4, 10.0, 5.0, sizes=[1, 32], departed=9.0).due(10.0, 1)


def test_the_distance_starts_at_the_newest_departure():
    """The distance is kept from the last batch that left."""
    timing = adaptive(4, 8.0, departed=9.0)
    timing.departed(9.5)
    assert 11.5 == timing.due(10.0, 2)


def test_a_late_arrival_does_not_wait():
    """An item that arrives after the distance has passed may leave at once."""
    assert 12.0 == adaptive(4, 8.0, departed=9.0).due(12.0, 1)


def test_the_first_run_time_is_the_average():
    """The first measurement becomes the average in full, not by a fifth."""
    assert 8.0 == adaptive(1, 8.0, departed=0.0).due(0.0, 1)


def test_the_newest_run_time_has_a_weight_of_one_fifth():
    """A run of 13 s after one of 8 s moves the average to 9 s."""
    assert 9.0 == adaptive(1, 8.0, 13.0, departed=0.0).due(0.0, 1)


def test_the_average_follows_a_slower_function_within_ten_batches():
    """After ten runs of a new duration, the average includes nine tenths of the change."""
    assert 1.893 == pytest.approx(adaptive(1, 1.0, *[2.0] * 10, departed=0.0).due(0.0, 1), abs=0.001)


@given(arrived=moments, timeout=spans, running=st.integers(0, 9))
def test_no_window_ends_before_the_arrival(arrived, timeout, running):
    """A window never ends before it begins."""
    assert arrived <= Window(timeout).due(arrived, running)


@given(arrived=moments, departed=moments, runs=st.lists(st.tuples(spans, counts), max_size=5), slots=st.integers(1, 9))
def test_no_item_waits_longer_than_a_batch_runs(arrived, departed, runs, slots):
    """Adaptive timing delays an item by at most the slowest run after the last departure."""
    run_times, sizes = zip(*runs, strict=True) if runs else ((), ())
    due = adaptive(slots, *run_times, sizes=sizes, departed=departed).due(arrived, 1)
    assert arrived <= due <= max(arrived, departed + max(run_times, default=0.0) * (1 + 1e-9))


@given(runs=st.lists(st.tuples(st.floats(0.01, 1e3), counts), min_size=1, max_size=30))
def test_the_fixed_cost_is_that_of_weighted_least_squares(runs):
    """The fixed cost is the value of the least-squares line at size 0, each newest run weighing a fifth."""
    weights = [Fraction(NEWEST) * Fraction(1 - NEWEST) ** age for age in range(len(runs))][::-1]
    weights[0] = Fraction(1 - NEWEST) ** (len(runs) - 1)
    total = sum(weights)
    mean = lambda values: sum(map(mul, weights, values)) / total
    times, sizes = ([Fraction(value) for value in values] for values in zip(*runs, strict=True))
    variance = mean([size * size for size in sizes]) - mean(sizes) ** 2
    covariance = mean(list(map(mul, sizes, times))) - mean(sizes) * mean(times)
    slope = covariance / variance if variance else 0
    fixed = float(min(max(mean(times) - slope * mean(sizes), 0), mean(times)))
    found = adaptive(1, *map(itemgetter(0), runs), sizes=map(itemgetter(1), runs), departed=0.0).due(0.0, 1)
    assert fixed == pytest.approx(found, rel=1e-6, abs=1e-6)


@given(first=moments, second=moments, departed=moments, run_time=spans, running=st.integers(0, 3))
def test_the_first_arrival_is_due_first(first, second, departed, run_time, running):
    """A later arrival is never due before an earlier one, so a withdrawal cannot make a batch due."""
    timing = adaptive(3, run_time, departed=departed)
    assert timing.due(min(first, second), running) <= timing.due(max(first, second), running)
