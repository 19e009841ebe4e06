"""The learnt cost of a run: what it finds in exact run times, and which runs it ignores."""

from __future__ import annotations

from math import inf, isfinite
from random import Random

import pytest

from batchify._core.run_cost import FAST, LEAST_RUNS, LONGEST, SHORTEST, RunCost

FIXED, PER_ITEM, PADDING = 0.05, 0.002, 0.0005
TRUE = FIXED / PADDING


def seconds_of(size, longest, _, *, factor=1.0):
    """Return the exact run time of a function with these costs."""
    return factor * (FIXED + PER_ITEM * size + PADDING * size * longest)


def some_runs(count, *, seed=1):
    """Yield size, longest and total length of runs of many kinds."""
    rng = Random(seed)
    for _ in range(count):
        lengths = [rng.uniform(1, 100) for _ in range(rng.randint(1, 32))]
        yield len(lengths), max(lengths), sum(lengths)


def taught(count, *, factor=1.0, cost=None):
    cost = cost or RunCost()
    for run in some_runs(count, seed=count):
        cost.learn(*run, seconds_of(*run, factor=factor))
    return cost


def test_it_is_unknown_until_a_few_runs():
    """The first runs say too little."""
    assert taught(LEAST_RUNS - 1).padding_per_run is None
    assert taught(LEAST_RUNS).padding_per_run is not None


def test_it_finds_the_costs_of_exact_runs():
    """After 50 runs, the padding that a run costs is found within a twentieth; after 20, within a half."""
    assert pytest.approx(TRUE, rel=0.5) == taught(20).padding_per_run
    assert pytest.approx(TRUE, rel=0.05) == taught(50).padding_per_run


def test_equal_runs_give_a_finite_cost():
    """Runs that are all alike cannot be told apart, but the result is a number."""
    cost = RunCost()
    for _ in range(100):
        cost.learn(8, 10.0, 80.0, 0.02)
    assert isfinite(cost.padding_per_run)


def test_a_delayed_run_hardly_counts():
    """A run that takes 100 times as long moves the result by no more than 1 %."""
    cost = taught(200)
    before = cost.padding_per_run
    cost.learn(8, 50.0, 200.0, 100 * seconds_of(8, 50.0, 200.0))
    assert pytest.approx(before, rel=0.01) == cost.padding_per_run


def test_a_single_fast_run_is_ignored():
    """One run at a fiftieth of the time changes nothing; the one after it counts as usual."""
    cost = taught(200)
    before = cost.padding_per_run
    for _ in range(2):
        cost.learn(8, 50.0, 200.0, 0.02 * seconds_of(8, 50.0, 200.0))
        assert before == cost.padding_per_run
        cost.learn(8, 50.0, 200.0, seconds_of(8, 50.0, 200.0))
        before = cost.padding_per_run


def test_a_faster_function_is_found_again():
    """After all costs have fallen to a tenth, 20 runs are enough."""
    cost = taught(20, factor=0.1, cost=taught(200))
    assert pytest.approx(TRUE, rel=0.4) == cost.padding_per_run
    run = 8, 50.0, 200.0
    before = cost.padding_per_run
    cost.learn(*run, seconds_of(*run, factor=0.1))
    assert pytest.approx(before, rel=0.05) == cost.padding_per_run


@pytest.mark.parametrize(("longest", "seconds"), [(0.0, 1.0), (10.0, 0.0), (10.0, -1.0), (1e-200, 1.0), (1e200, 1.0)])
def test_runs_without_a_meaning_are_ignored(longest, seconds):
    """Runs of no time, and lengths whose squares are no number, teach nothing."""
    cost = taught(200)
    before = cost.padding_per_run
    for _ in range(2):
        cost.learn(2, longest, 2 * longest, seconds)
    assert before == cost.padding_per_run


def test_padding_that_costs_nothing_is_worth_any_amount():
    """If only the number of items counts, no run is worth less padding."""
    cost = RunCost()
    for size, longest, total in some_runs(100):
        cost.learn(size, longest, total, 0.01 + 0.001 * size)
    assert cost.padding_per_run > 1e3
    cost._costs[3] = 0.0
    assert inf == cost.padding_per_run


def test_the_first_run_may_be_the_fastest():
    """A fast first run counts, as there is nothing to compare it with, and so does one of just a quarter."""
    cost = RunCost()
    for _ in range(LEAST_RUNS):
        cost.learn(4, 10.0, 40.0, 1e-6)
    assert cost.padding_per_run is not None


@pytest.mark.parametrize("longest", [SHORTEST, LONGEST])
def test_a_length_at_a_bound_is_ignored(longest):
    """Lengths whose squares might overflow, or be 0, teach nothing, and neither do the bounds themselves."""
    cost = RunCost()
    for _ in range(LEAST_RUNS):
        cost.learn(1, longest, longest, 1.0)
    assert None is cost.padding_per_run


def test_a_run_of_a_quarter_of_the_time_counts():
    """A run is ignored only if it takes less than a quarter of the expected time."""
    cost = RunCost()
    for _ in range(LEAST_RUNS - 1):
        cost.learn(1, 1.0, 1.0, 1.0)
    cost.learn(1, 1.0, 1.0, FAST)
    assert cost.padding_per_run is not None


def test_half_of_the_first_run_is_fixed():
    """If all runs are alike, padding costs as much as a run from half of the time on."""
    cost = RunCost()
    for _ in range(LEAST_RUNS):
        cost.learn(1, 4.0, 4.0, 1.0)
    assert pytest.approx(4.0) == cost.padding_per_run
