"""The cost model, compared with known costs."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from batchify import simulate
from batchify._core.entries import Entry
from batchify._core.limits import Limits
from batchify._planning.cost import Cost, Estimate, LinearCost, Round, Run, Setting, Workload
from tests.kit.costs import SIZES, linear_cost


def run_of(seconds, **others):
    """Return a run whose times are all ``seconds``, except for the given ones."""
    return replace(Run(function=seconds, total=seconds, wake_delay=0.0, loop_cpu=0.0, cores=0.0), **others)


def round_of(seconds, loaded=None, single=(), **others):
    """Return a round in which the batches of each size took these seconds."""
    runs = {size: [run_of(time, **others)] for size, time in seconds.items()}
    return Round(runs, {(1, size): [time] for size, time in (loaded or seconds).items()}, single)


@pytest.mark.parametrize(("a", "b"), [(0.004, 0.0001), (0.004, 0.0), (0.0, 0.001), (1.0, 2.0)])
def test_a_linear_cost_is_found(a, b):
    """A cost of a + b n is found from its points, whatever part of it is fixed."""
    found = LinearCost.fit({size: a + b * size for size in SIZES})
    assert (pytest.approx(a, abs=1e-12), pytest.approx(b, abs=1e-12)) == (found.fixed, found.per_item)


def test_one_point_is_a_fixed_cost():
    """With a single measured size, its cost is the cost of all sizes."""
    assert LinearCost(2.0, 0.0) == LinearCost.fit({4: 2.0})


def test_a_falling_cost_is_a_fixed_cost():
    """No item has a negative cost: where larger batches are faster, all sizes have the same cost."""
    assert 0.0 == LinearCost.fit({1: 3.0, 2: 2.0, 4: 1.0}).per_item


def test_the_fixed_cost_is_never_negative():
    """Where run times grow faster than batches, the fixed cost is zero."""
    found = LinearCost.fit({1: 1.0, 2: 4.0, 4: 16.0})
    assert 0.0 == found.fixed
    assert 0.0 < found.per_item


def test_small_batches_have_the_same_weight_as_large_ones():
    """Errors are relative: a large batch that is far off does not bend the line away from the small ones."""
    points = {1: 1.01, 2: 1.02, 4: 1.04, 256: 3.56 * 1.05}
    assert 1.0 == pytest.approx(LinearCost.fit(points)(0), rel=0.01)


def test_a_disturbed_round_is_ignored():
    """A round in which all batches take ten times as long does not affect the cost."""
    rounds = [round_of({1: 2.0, 2: 3.0}, {1: 2.5, 2: 3.5})] * 3 + [round_of({1: 20.0, 2: 30.0}, {1: 25.0, 2: 35.0})]
    found = Cost.of(rounds, Workload())
    assert ({1: 2.0, 2: 3.0}, {1: {1: 2.5, 2: 3.5}}) == (found.function, found.loaded)


def test_only_sizes_of_all_rounds_count():
    """A round that measured fewer sizes, because the machine was slower, is no error."""
    cost = Cost.of([round_of({1: 2.0, 2: 3.0}), round_of({1: 2.0})], Workload())
    assert [{1: 2.0}] * 3 == [cost.function, cost.answered, cost.loaded[1]]


def test_the_variation_is_that_of_single_batches():
    """Single batches take their share of the mean time, whichever it is."""
    rounds = [Round({1: [run_of(1.0)]}, {(1, 1): [1.0, 2.0, 3.0, 2.0]})] * 4
    assert [0.5, 1.0, 1.5, 1.0] == Cost.of(rounds, Workload()).ratios[1][:4]


def test_unequal_items_are_found_in_noise():
    """What an item costs in both measurements is its own cost; what only one of them shows is noise."""
    rng = Random(0)
    costs = [1.0, 3.0] * 500
    single = [(cost * rng.uniform(0.5, 1.5), cost * rng.uniform(0.5, 1.5)) for cost in costs]
    assert 0.5 == pytest.approx(Cost.of([round_of({1: 2.0}, single=single)], Workload()).inequality, abs=0.05)
    noise = [(rng.uniform(0.5, 1.5), rng.uniform(0.5, 1.5)) for _ in range(1000)]
    assert 0.1 > Cost.of([round_of({1: 1.0}, single=noise)], Workload()).inequality


def test_resamples_show_the_noise():
    """The first cost is the best estimate, and rounds that differ lead to costs that differ."""
    rounds = [round_of({1: seconds, 2: 2 * seconds}) for seconds in (1.0, 1.1, 1.2, 1.3, 1.4)]
    costs = Cost.resampled(rounds, Workload())
    found = Estimate.of(cost.function[1] for cost in costs)
    assert 1.2 == pytest.approx(found.value)
    assert 1.0 <= found.low < 1.2 < found.high <= 1.4
    assert costs == Cost.resampled(rounds, Workload())


def test_an_interval_excludes_the_extremes():
    """Of 20 resamples, the lowest and the highest lie outside of the interval of 90 %."""
    found = Estimate.of([10.0, 5.0, 20.0, *[9.0] * 9, *[12.0] * 9])
    assert Estimate(10.0, 9.0, 12.0) == found
    assert 0.2 == pytest.approx(found.error)


def test_the_value_is_in_its_interval():
    """The interval includes the value, even if all resamples are higher; a value of 0 has no relative error."""
    assert Estimate(1.0, 1.0, 2.0) == Estimate.of([1.0, *[2.0] * 20])
    assert 0.0 == Estimate.of([0.0, 0.0]).error


@pytest.mark.parametrize(
    ("cost", "gain"),
    [
        (linear_cost(0.010, 0.0), 32.0),
        (linear_cost(0.0, 0.001), 1.0),
        (linear_cost(0.010, 0.0, slowdown={1: 32.0}), 1.0),
    ],
    ids=["all fixed", "nothing fixed", "calls take the gain"],
)
def test_the_gain_includes_all_costs_of_batching(cost, gain):
    """The time of an unbatched item is compared with that in the best batch at overload."""
    assert gain == pytest.approx(cost.gain)


def test_capacity_is_the_rate_at_overload():
    """At overload, all slots have full batches, whose time is measured with as many slots."""
    cost = linear_cost(0.008, 0.0, slowdown={1: 1.0, 2: 1.6})
    assert 32 / 0.008 == pytest.approx(cost.capacity(Setting(32)))
    assert 32 / 0.008 * 2 / 1.6 == pytest.approx(cost.capacity(Setting(32, None, 2)))


def test_the_cost_beyond_the_measured_sizes_never_falls():
    """Noise that makes a larger batch seem faster does not lead to a negative time of an even larger one."""
    cost = Cost({1: 3.0, 2: 1.0}, {1: 3.0, 2: 1.0}, {1: {1: 3.0, 2: 1.0}})
    assert 0 < 64 / cost.capacity(Setting(64)) < 3.0


def test_a_prediction_is_a_simulation():
    """Without variation and losses, the prediction is the result of ``simulate()``."""
    run_time = {1: 0.0041, 32: 0.0072}
    expected = simulate(run_time=run_time, rate=300, calls=4000, max_size=16, timeout=0.001)
    assert expected == Cost(run_time, run_time, {1: run_time}).predict(Setting(16, 0.001), 300)


def test_a_batch_that_follows_another_takes_its_time_at_overload():
    """The first two batches start after a pause, and the third one waits for the second."""
    cost = Cost({1: 4.0}, {1: 4.0}, {1: {1: 2.0}})
    found = cost.predict(Setting(1), 1.0, trace=[0.0, 10.0, 10.0])
    assert (4000.0, 6000.0) == (found.latency_ms.p50, found.latency_ms.max)


def test_only_items_of_a_group_share_a_batch():
    """Two calls of different groups are two batches."""
    entries = [Entry(None, group, 0.0, None) for group in "ab"]
    cost = replace(linear_cost(1.0, 0.0), workload=Workload(entries, is_grouped=True))
    found = cost.predict(Setting(32), 1.0, trace=[0.0] * 8)
    assert 2 == found.batches


def test_weights_limit_a_batch():
    """Two items of weight 2 fill a batch of at most 5."""
    workload = Workload([Entry(None, None, 2.0, None)], is_grouped=True, limits=Limits(max_weight=5.0))
    cost = replace(linear_cost(1.0, 0.0), workload=workload)
    assert {2: 4} == cost.predict(Setting(32), 1.0, trace=[0.0] * 8).size_histogram


def test_the_loop_delay_comes_from_measurements():
    """Of 5 ms, the loop twice wakes up 1 ms late, and twice computes 0.5 ms to wake up and 0.25 ms for each call."""
    runs = {size: [run_of(0.001, total=0.006, wake_delay=0.001, loop_cpu=0.001 + 0.0005 * size)] for size in (1, 2, 4)}
    found = Cost.of([Round(runs, {(1, size): [0.001] for size in runs})], Workload()).loop_delay
    assert [0.0015, 0.00025, 0.0015] == pytest.approx([found.wake, found.per_call, found.hand_over])


def test_the_loop_delay_is_at_most_the_measured_time():
    """A loop that seems to compute for longer than the whole round trip spends half of it on each way."""
    runs = {size: [run_of(0.001, total=0.002, wake_delay=0.001, loop_cpu=0.0002 * size)] for size in (1, 2)}
    found = Cost.of([Round(runs, {(1, size): [0.001] for size in runs})], Workload()).loop_delay
    assert [0.0004, 0.0001, 0.0] == pytest.approx([found.wake, found.per_call, found.hand_over])


def test_a_coarse_cpu_clock_attributes_the_delay_to_late_waking():
    """If the CPU clock of a thread does not advance during a batch, the loop only wakes up late."""
    found = Cost.of([round_of({1: 0.001}, total=0.004, wake_delay=0.001)], Workload()).loop_delay
    assert [0.001, 0.0, 0.001] == pytest.approx([found.wake, found.per_call, found.hand_over])
