"""The cost model, compared with known costs."""

from __future__ import annotations

from dataclasses import replace
from math import exp, expm1, inf, sqrt
from random import Random

import pytest

from batchify import simulate
from batchify._planning.cost import Cost, LinearCost, Run, Samples, Setting
from batchify._planning.loop_delay import LoopDelay
from tests.kit.costs import SIZES, linear_cost


def run_of(seconds, **others):
    """Return a run whose times are all ``seconds``, except for the given ones."""
    run = Run(function=seconds, total=seconds, wake_delay=0.0, loop_cpu=0.0, slot_time=seconds, back_to_back=seconds)
    return replace(run, **others)


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


def test_an_outlier_is_ignored():
    """A batch that takes ten times as long as the others of its size does not affect the cost."""
    runs = [run_of(2.0), run_of(2.0), run_of(20.0)]
    found = Cost.from_samples(Samples({1: runs}, [0.1, 0.2, 9.0], {2: [1.5, 1.5, 9.0]}))
    assert Cost({1: 2.0}, {1: 2.0}, 0.0, 0.2, {1: 1.0, 2: 1.5}, {1: 2.0}, {1: 2.0}) == found


def test_no_cost_is_negative():
    """A negative measurement is noise, because neither calls nor other batches make a batch faster."""
    found = Cost.from_samples(Samples({1: [run_of(1.0)]}, [-0.1], {2: [0.9]}))
    assert (0.0, {1: 1.0, 2: 1.0}) == (found.interference, found.slowdown)


def test_the_spread_is_that_of_typical_batches():
    """Run times that vary have their own mean and deviation, without the few outliers."""
    rng = Random(0)
    times = [rng.lognormvariate(0.0, 0.3) for _ in range(20_000)]
    found = Cost.from_samples(Samples({1: list(map(run_of, [*times, 100.0, 200.0]))}))
    assert exp(0.3**2 / 2) == pytest.approx(found.slot_time[1], rel=0.02)
    assert sqrt(expm1(0.3**2)) == pytest.approx(found.spread, rel=0.02)


def test_samples_add_up():
    """The sum of two samples includes sizes and slots that only one of them has."""
    one = Samples({1: [run_of(1.0)], 2: [run_of(2.0)]}, [0.1], {2: [1.0]})
    other = Samples({1: [run_of(3.0)]}, [0.2], {4: [2.0]})
    runs = {1: [run_of(1.0), run_of(3.0)], 2: [run_of(2.0)]}
    assert Samples(runs, [0.1, 0.2], {2: [1.0], 4: [2.0]}) == one + other


@pytest.mark.parametrize(
    ("cost", "pays", "gain"),
    [
        (linear_cost(0.010, 0.0), True, 32.0),
        (linear_cost(0.0, 0.001), False, 1.0),
        (linear_cost(0.0001, 0.001), False, 0.0011 / (0.0001 / 32 + 0.001)),
        (linear_cost(0.010, 0.0, interference=0.0096875), False, 1.0),
    ],
    ids=["all fixed", "nothing fixed", "hardly anything fixed", "interference takes the gain"],
)
def test_batching_pays_if_it_saves_a_tenth(cost, pays, gain):
    """The time of an unbatched item is compared with that in the best batch, including all costs of batching."""
    assert (pays, pytest.approx(gain)) == (cost.pays, cost.gain)


def test_capacity_is_that_of_the_best_size():
    """A function that is worse for large batches answers most calls with smaller ones, which max_size allows."""
    assert 2.0 == Cost({1: 1.0, 2: 1.0, 4: 4.0}, {}).capacity(Setting(4))


def test_capacity_includes_slots_and_their_losses():
    """Two slots answer twice as many calls, minus the time that batches and calls cost each other."""
    two_slots = Setting(32, None, 2)
    assert 32 / 0.008 * 2 / 1.6 == linear_cost(0.008, 0.0, slowdown={1: 1.0, 2: 1.6}).capacity(two_slots)
    assert 1 / (0.008 / 32 + 0.001) == pytest.approx(linear_cost(0.008, 0.0, interference=0.001).capacity(Setting(32)))


def test_a_prediction_is_a_simulation():
    """Without variation and losses, the prediction is the result of ``simulate()``."""
    expected = simulate(run_time={1: 0.0041, 32: 0.0072}, rate=300, calls=4000, max_size=16, timeout=0.001)
    found = Cost({1: 0.0041, 32: 0.0072}, {}).predict(Setting(16, 0.001), 300)
    assert expected == found


def test_calls_and_slots_make_batches_longer():
    """Runs are longer at 100 calls a second that take 2 ms each, and with a second slot that costs half as much."""
    cost = Cost({1: 0.001}, {}, interference=0.002, slowdown={1: 1.0, 2: 1.5})
    found = cost.predict(Setting(8, None, 2), 100.0, trace=[0.0])
    assert 1.5 / 0.8 == pytest.approx(found.latency_ms.max)


def test_batches_are_faster_under_load():
    """Without load, a batch takes its time after a pause, and near the capacity its time back to back."""
    cost = Cost({1: 0.004}, {}, back_to_back={1: 0.002})
    assert 500.0 == cost.capacity(Setting(1))
    found = [cost.predict(Setting(1), rate, trace=[0.0]).latency_ms.max for rate in (0.001, 250.0, 500.0, 1000.0)]
    assert [4.0, 3.0, 2.0, 2.0] == pytest.approx(found, rel=1e-4)


def test_back_to_back_is_no_slower_than_after_a_pause():
    """A batch that seems slower without a pause is noise, so both times are equal."""
    samples = Samples({1: [run_of(2.0, back_to_back=1.5)], 2: [run_of(2.0, back_to_back=9.0)]})
    assert {1: 1.5, 2: 2.0} == Cost.from_samples(samples + Samples()).back_to_back


def test_a_batch_occupies_its_slot_for_a_part_of_its_time():
    """Of its 5 ms, a batch occupies its slot for 2 ms: the next batch waits for these only."""
    cost = Cost({1: 0.005}, {}, slot_time={1: 0.002}, loop_delay=LoopDelay(0.001, 0.0, 0.001))
    assert 500.0 == cost.capacity(Setting(1))
    one = cost.predict(Setting(1), 0.001, trace=[0.0])
    assert (5.0, 5.0) == pytest.approx((one.latency_ms.p50, one.avg_latency_ms))
    two = cost.predict(Setting(1), 0.001, trace=[0.0, 0.0])
    assert (2, 7.0) == (two.batches, pytest.approx(two.latency_ms.max))


def test_the_loop_delay_comes_from_measurements():
    """Of 5 ms, the loop twice wakes up 1 ms late, and twice computes 0.5 ms to wake up and 0.25 ms for each call."""
    runs = {size: [run_of(0.001, total=0.006, wake_delay=0.001, loop_cpu=0.001 + 0.0005 * size)] for size in (1, 2, 4)}
    found = Cost.from_samples(Samples(runs)).loop_delay
    assert [0.0015, 0.00025, 0.0015] == pytest.approx([found.wake, found.per_call, found.hand_over])
    assert 2000.0 == pytest.approx(found.capacity)


def test_the_loop_delay_is_at_most_the_measured_time():
    """A loop that seems to compute for longer than the whole round trip spends half of it on each way."""
    runs = {size: [run_of(0.001, total=0.002, wake_delay=0.001, loop_cpu=0.0002 * size)] for size in (1, 2)}
    found = Cost.from_samples(Samples(runs)).loop_delay
    assert [0.0004, 0.0001, 0.0] == pytest.approx([found.wake, found.per_call, found.hand_over])


def test_a_coarse_cpu_clock_attributes_the_delay_to_late_waking():
    """If the CPU clock of a thread does not advance during a batch, the loop only wakes up late."""
    found = Cost.from_samples(Samples({1: [run_of(0.001, total=0.004, wake_delay=0.001)]})).loop_delay
    assert [0.001, 0.0, 0.001] == pytest.approx([found.wake, found.per_call, found.hand_over])
    assert inf == found.capacity


def test_the_loop_may_limit_the_capacity():
    """A function that can answer a thousand times as many calls answers as many as its loop can make."""
    assert 500.0 == linear_cost(0.000001, 0.0, loop_delay=LoopDelay(0.0, 0.001, 0.0)).capacity(Setting(32))


def test_an_overload_has_a_prediction():
    """A rate at which calls take all the time of the interpreter has a prediction, because machines change."""
    cost = Cost({1: 0.001}, {}, interference=1.0)
    assert 20.0 == pytest.approx(cost.predict(Setting(1), 5.0, trace=[0.0]).latency_ms.max)
