"""What batches take, and what calls would: against costs that are known."""

from __future__ import annotations

from dataclasses import replace
from math import exp, expm1, inf, sqrt
from random import Random

import pytest

from batchify import simulate
from batchify._planning import cost as _cost
from batchify._planning.cost import Cost, Line, Run, Samples, Setting
from batchify._planning.loop_delay import Crossing
from tests.kit.costs import SIZES, known


def taking(seconds, **more):
    """Return a run all of which took so long, but for what is told otherwise."""
    run = Run(function=seconds, total=seconds, late=0.0, loop=0.0, slot=seconds, warm=seconds)
    return replace(run, **more)


@pytest.mark.parametrize(("a", "b"), [(0.004, 0.0001), (0.004, 0.0), (0.0, 0.001), (1.0, 2.0)])
def test_a_line_is_found(a, b):
    """A cost of a + b n is found from its points, whatever of it is fixed."""
    found = _cost.fit({size: a + b * size for size in SIZES})
    assert (pytest.approx(a, abs=1e-12), pytest.approx(b, abs=1e-12)) == (found.a, found.b)


def test_one_point_is_a_fixed_cost():
    """From one size alone nothing is known of others, so it is taken for the cost of any."""
    assert Line(2.0, 0.0) == _cost.fit({4: 2.0})


def test_a_falling_cost_is_a_fixed_one():
    """No item takes less than nothing: where larger batches took less, the cost is the same for all."""
    assert 0.0 == _cost.fit({1: 3.0, 2: 2.0, 4: 1.0}).b


def test_no_batch_begins_below_nothing():
    """Where run times grow faster than batches, the fixed cost is none and not a negative one."""
    found = _cost.fit({1: 1.0, 2: 4.0, 4: 16.0})
    assert 0.0 == found.a
    assert 0.0 < found.b


def test_small_batches_count_as_much_as_large_ones():
    """Errors are relative: a large batch that is far off does not bend the line away from the small ones."""
    points = {1: 1.01, 2: 1.02, 4: 1.04, 256: 3.56 * 1.05}
    assert 1.0 == pytest.approx(_cost.fit(points)(0), rel=0.01)


def test_a_batch_that_was_held_up_does_not_count():
    """A batch that took ten times as long than the others of its size does not count."""
    runs = [taking(2.0), taking(2.0), taking(20.0)]
    found = _cost.cost(Samples({1: runs}, [0.1, 0.2, 9.0], {2: [1.5, 1.5, 9.0]}))
    assert Cost({1: 2.0}, {1: 2.0}, 0.0, 0.2, {1: 1.0, 2: 1.5}, {1: 2.0}, {1: 2.0}) == found


def test_nothing_takes_less_than_nothing():
    """What noise makes negative is none: calls do not speed batches up, nor do batches each other."""
    found = _cost.cost(Samples({1: [taking(1.0)]}, [-0.1], {2: [0.9]}))
    assert (0.0, {1: 1.0, 2: 1.0}) == (found.crowding, found.slowdown)


def test_variation_is_that_of_most_batches():
    """Run times that vary have their own mean and deviation, whatever few batches were held up."""
    chance = Random(0)
    taken = [chance.lognormvariate(0.0, 0.3) for _ in range(20_000)]
    found = _cost.cost(Samples({1: list(map(taking, [*taken, 100.0, 200.0]))}))
    assert exp(0.3**2 / 2) == pytest.approx(found.slots[1], rel=0.02)
    assert sqrt(expm1(0.3**2)) == pytest.approx(found.spread, rel=0.02)


def test_samples_add_up():
    """Samples from before and after are one, sizes and slots that only one has included."""
    one = Samples({1: [taking(1.0)], 2: [taking(2.0)]}, [0.1], {2: [1.0]})
    other = Samples({1: [taking(3.0)]}, [0.2], {4: [2.0]})
    runs = {1: [taking(1.0), taking(3.0)], 2: [taking(2.0)]}
    assert Samples(runs, [0.1, 0.2], {2: [1.0], 4: [2.0]}) == one + other


@pytest.mark.parametrize(
    ("cost", "pays", "gain"),
    [
        (known(0.010, 0.0), True, 32.0),
        (known(0.0, 0.001), False, 1.0),
        (known(0.0001, 0.001), False, 0.0011 / (0.0001 / 32 + 0.001)),
        (known(0.010, 0.0, crowding=0.0096875), False, 1.0),
    ],
    ids=["all fixed", "nothing fixed", "hardly anything fixed", "what is saved is spent on calls"],
)
def test_whether_batching_pays(cost, pays, gain):
    """It pays if an item alone takes a tenth more than in the best batch, with all that batching costs."""
    assert (pays, pytest.approx(gain)) == (cost.pays, cost.gain)


def test_capacity_is_that_of_the_best_size():
    """A function that is worse for large batches answers most calls with smaller ones, which max_size allows too."""
    assert 2.0 == Cost({1: 1.0, 2: 1.0, 4: 4.0}, {}).capacity(4)


def test_capacity_counts_slots_and_what_they_lose():
    """Two slots answer twice as many calls, but for what batches take from each other, and calls from batches."""
    assert 32 / 0.008 * 2 / 1.6 == known(0.008, 0.0, slowdown={1: 1.0, 2: 1.6}).capacity(32, 2)
    assert 1 / (0.008 / 32 + 0.001) == pytest.approx(known(0.008, 0.0, crowding=0.001).capacity(32))


def test_a_prediction_is_a_simulation():
    """Without variation and with nothing lost, what is predicted is what ``simulate()`` says."""
    expected = simulate(run_time={1: 0.0041, 32: 0.0072}, rate=300, calls=4000, max_size=16, timeout=0.001)
    found = Cost({1: 0.0041, 32: 0.0072}, {}).predict(Setting(16, 0.001), 300)
    assert expected == found


def test_calls_and_slots_make_batches_longer():
    """At 100 calls a second that take 2 ms each, and with a slot that costs half as much again, runs are longer."""
    cost = Cost({1: 0.001}, {}, crowding=0.002, slowdown={1: 1.0, 2: 1.5})
    found = cost.predict(Setting(8, None, 2), 100.0, trace=[0.0])
    assert 1.5 / 0.8 == pytest.approx(found.latency_ms.max)


def test_batches_are_warmer_under_load():
    """Alone a batch takes what it takes after a pause, and near the capacity what it takes without."""
    cost = Cost({1: 0.004}, {}, warm={1: 0.002})
    assert 500.0 == cost.capacity(1)
    found = [cost.predict(Setting(1), rate, trace=[0.0]).latency_ms.max for rate in (0.001, 250.0, 500.0, 1000.0)]
    assert [4.0, 3.0, 2.0, 2.0] == pytest.approx(found, rel=1e-4)


def test_warm_is_no_slower_than_cold():
    """What noise makes slower without a pause is taken to be as fast."""
    samples = Samples({1: [taking(2.0, warm=1.5)], 2: [taking(2.0, warm=9.0)]})
    assert {1: 1.5, 2: 2.0} == _cost.cost(samples + Samples()).warm


def test_a_batch_keeps_its_slot_for_a_part_of_its_time():
    """Of 5 ms a batch keeps its slot for two: that is what the next one waits for."""
    cost = Cost({1: 0.005}, {}, slots={1: 0.002}, crossing=Crossing(0.001, 0.0, 0.001))
    assert 500.0 == cost.capacity(1)
    alone = cost.predict(Setting(1), 0.001, trace=[0.0])
    assert (5.0, 5.0) == pytest.approx((alone.latency_ms.p50, alone.avg_latency_ms))
    both = cost.predict(Setting(1), 0.001, trace=[0.0, 0.0])
    assert (2, 7.0) == (both.batches, pytest.approx(both.latency_ms.max))


def test_the_way_is_made_of_what_was_measured():
    """Of 5 ms the loop is late by one, twice, computes 0.5 for waking up, twice, and 0.25 for each call, twice."""
    runs = {size: [taking(0.001, total=0.006, late=0.001, loop=0.001 + 0.0005 * size)] for size in (1, 2, 4)}
    found = _cost.cost(Samples(runs)).crossing
    assert [0.0015, 0.00025, 0.0015] == pytest.approx([found.wake, found.each, found.hand_over])
    assert 2000.0 == pytest.approx(found.capacity)


def test_the_way_is_no_longer_than_it_took():
    """A loop that seems to take longer than all of the way has half of it there, and half of it back."""
    runs = {size: [taking(0.001, total=0.002, late=0.001, loop=0.0002 * size)] for size in (1, 2)}
    found = _cost.cost(Samples(runs)).crossing
    assert [0.0004, 0.0001, 0.0] == pytest.approx([found.wake, found.each, found.hand_over])


def test_a_coarse_clock_is_no_obstacle():
    """Where the clock of a thread stands still during a batch, the loop is taken to be late and no more."""
    found = _cost.cost(Samples({1: [taking(0.001, total=0.004, late=0.001)]})).crossing
    assert [0.001, 0.0, 0.001] == pytest.approx([found.wake, found.each, found.hand_over])
    assert inf == found.capacity


def test_the_loop_may_be_what_calls_wait_for():
    """A function that could answer a thousand times as many calls answers those that its loop can make."""
    assert 500.0 == known(0.000001, 0.0, crossing=Crossing(0.0, 0.001, 0.0)).capacity(32)


def test_an_overload_is_no_error():
    """A rate at which calls take all the time there is has a prediction, too: machines change under way."""
    assert 20.0 == pytest.approx(
        Cost({1: 0.001}, {}, crowding=1.0).predict(Setting(1), 5.0, trace=[0.0]).latency_ms.max
    )
