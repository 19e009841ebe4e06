"""Measuring a batch function and choosing its options, compared with known costs in virtual time."""

from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager, closing
from functools import partial
from itertools import product
from statistics import pstdev

import pytest

from batchify import current_batch, microbatch
from batchify._cli.load import Load, arrivals, run_load
from batchify._cli.loading import CommandError, make_target
from batchify._cli.measure import Meter, PreciseLoop
from batchify._planning.cost import Cost, Setting
from batchify._planning.tuning import TOLERANCE, _tail, curve, pays, recommend
from batchify.testing import VirtualLoop
from batchify.testing.virtual_time import closing_loop
from tests.kit.costs import SIZES, linear_cost

# Recommendations.


def test_adaptive_timing_is_recommended():
    """Where most of a run is fixed, no window is much better than adaptive timing, and the capacity is sufficient."""
    cost = linear_cost(0.010, 0.0001)
    advice = recommend([cost], [500.0, 2000.0])
    assert (None, 1) == (advice.setting.timeout, advice.setting.concurrency)
    assert cost.capacity(advice.setting) > 2000.0


@pytest.mark.untraced
def test_the_recommended_size_is_hardly_worse_than_any():
    """No other size has 99th percentiles that are better by more than 5 %, and no smaller size is as good."""
    cost, rates = linear_cost(0.005, 0.0005), [300.0, 900.0]
    tails = {size: _tail(cost, Setting(size), rates) for size in SIZES if cost.capacity(Setting(size)) > 900.0}
    chosen, limit = recommend([cost], rates).setting.max_size, TOLERANCE * min(tails.values())
    assert tails[chosen] <= limit
    assert all(tails[size] > limit for size in tails if size < chosen)


def test_a_window_is_recommended_where_it_is_better():
    """With four slots that are nearly always busy, a short window beats none, and is a round number."""
    cost = linear_cost(0.010, 0.001, sizes=(1, 2, 4, 8), slowdown={4: 1.0})
    assert Setting(8, 0.0055, 4) == recommend([cost], [1400.0]).setting


@pytest.mark.untraced
def test_more_slots_are_recommended_only_if_necessary():
    """Two slots are recommended if the rate needs them, and otherwise one."""
    cost = linear_cost(0.010, 0.0, sizes=(1, 2), slowdown={1: 1.0, 2: 1.0})
    assert [1, 2] == [recommend([cost], [rate]).setting.concurrency for rate in (0.2, 250.0)]


def test_a_target_may_be_met_at_nearly_all_rates():
    """With a target of 100 ms for a function of 10 ms, nearly all rates below the capacity meet it."""
    advice = recommend([linear_cost(0.010, 0.0)], [1000.0], slo=0.1)
    assert [] == advice.missed_rates
    assert 1000.0 < advice.max_rate.value < 3200.0


@pytest.mark.untraced
def test_a_target_may_be_missed_at_some_rates():
    """The advice has the rates that miss the target, and a lower rate that meets it."""
    advice = recommend([linear_cost(0.010, 0.001, sizes=(1, 2, 4))], [20.0, 270.0], slo=0.024)
    assert [270.0] == advice.missed_rates
    assert 20.0 < advice.max_rate.value < 270.0


@pytest.mark.untraced
def test_a_target_below_the_run_time_is_missed_at_every_rate():
    """A function that takes longer than the target misses it at every rate."""
    assert 0.0 == recommend([linear_cost(0.010, 0.0)], [10.0], slo=0.005).max_rate.value


def test_no_rate_misses_an_absent_target():
    """Without a target, no rate misses it and no rate is the highest."""
    advice = recommend([linear_cost(0.010, 0.0)], [10.0])
    assert ([], None) == (advice.missed_rates, advice.max_rate)


def test_a_curve_ends_below_the_capacity():
    """A curve has growing latencies, from a twentieth of the capacity on."""
    found = curve(linear_cost(0.010, 0.0), Setting(32))
    assert [160.0 * step for step in range(1, 20)] == pytest.approx(list(found))
    assert found[min(found)].latency_ms.p50 < found[max(found)].latency_ms.p50


def test_an_overload_is_forecast_and_not_compared():
    """The default rates end with an overload, at which the capacity is answered; options are for the other rates."""
    cost = linear_cost(0.010, 0.0)
    advice = recommend([cost])
    most = advice.capacity.value
    rates = [share * most for share in (0.25, 0.5, 0.75, 1.5)]
    assert rates == pytest.approx(list(advice.forecasts), rel=0.05)
    assert most == pytest.approx(advice.forecasts[max(advice.forecasts)][0].throughput, rel=0.05)
    assert rates[:3] == pytest.approx(list(advice.carried), rel=0.05)


def test_the_fastest_setting_is_recommended_at_overload():
    """If no setting can carry the rate, the one with the highest capacity is recommended."""
    cost = linear_cost(0.008, 0.0, slowdown={1: 1.0, 2: 1.6})
    assert Setting(32, None, 2) == recommend([cost], [1e6]).setting


@pytest.mark.parametrize(
    ("gains", "expected"),
    [
        ([2.0, 1.8, 2.2], True),
        ([1.15, 1.02, 1.2], True),
        ([1.0, 0.9, 1.05], False),
        ([1.05, 0.95, 1.15], None),
    ],
    ids=["it pays", "it pays a little", "it does not", "the noise is larger"],
)
def test_batching_pays_if_the_difference_is_larger_than_the_noise(gains, expected):
    """The interval of the gain decides."""
    assert expected is pays([Cost({1: gain}, {1: gain}, {1: {1: 1.0, 4: 4.0}}) for gain in gains])


def test_noise_favours_a_simpler_setting():
    """A larger size whose advantage is smaller than the noise is not recommended."""
    sizes = (1, 2, 4, 8)
    exact, noisy = linear_cost(0.010, 0.0, sizes), linear_cost(0.015, 0.0, sizes)
    assert [2, 4] == [recommend(costs, [50.0]).setting.max_size for costs in ([exact, noisy], [exact])]


# Measurements.


@pytest.fixture
def loop():
    """Return an event loop in virtual time."""
    with closing_loop(VirtualLoop()) as loop:
        yield loop


def sleeper(a, b, **options):
    """Return a function that takes exactly a + b n seconds of virtual time."""

    @microbatch(**options)
    async def sleep(items):
        await asyncio.sleep(a + b * len(items))
        return items

    return sleep


def measured(loop, fn, items=(1, 2, 3), seconds=0.5, largest=32, concurrency=1):
    """Return the cost of a function, and the progress of its measurement."""
    target = make_target(fn, list(items))
    meter = Meter(target, loop, concurrency)
    shares = [*meter.try_items(seconds), *meter.measure(seconds, largest)]
    return Cost.of(meter.rounds, target.workload), shares, meter.rounds


def test_exact_times_are_measured(loop):
    """In virtual time, the engine takes no time, so a batch takes the time of its function in all modes."""
    cost = measured(loop, sleeper(0.004, 0.0001))[0]
    expected = pytest.approx(linear_cost(0.004, 0.0001).function)
    assert [expected] * 3 == [cost.function, cost.answered, cost.loaded[1]]
    assert (pytest.approx(0.004), pytest.approx(0.0001)) == (cost.linear.fixed, cost.linear.per_item)


def test_sizes_grow_to_the_largest(loop):
    """Sizes are powers of two, and the largest size."""
    assert [1, 2, 4, 8, 12] == list(measured(loop, sleeper(0.001, 0.0), largest=12)[0].function)


def test_sizes_stop_growing_in_time(loop):
    """Sizes that would take too long are not measured, and the others are measured at least four times."""
    cost, _, rounds = measured(loop, sleeper(0.0, 0.1), seconds=1.0)
    assert [1, 2] == list(cost.function)
    assert 4 <= len(rounds)


def test_one_size_is_no_measurement(loop):
    """A cost that is known for one size only says nothing about others, unless there are no others."""
    with pytest.raises(CommandError, match=r"^only batches of one item of sleeper.*measure for longer: --seconds 4$"):
        measured(loop, sleeper(0.2, 0.0), seconds=1.0)
    assert [1] == list(measured(loop, sleeper(0.2, 0.0), seconds=1.0, largest=1)[0].function)


def test_measuring_ends_in_time(loop):
    """A measurement ends with the round during which its time ends."""
    measured(loop, sleeper(0.001, 0.0), seconds=2.0)
    assert 2.0 <= loop.time() < 3.0


def test_the_number_of_rounds_is_limited(loop):
    """With any amount of time, there are at most 60 rounds."""
    assert 60 == len(measured(loop, sleeper(0.05, 0.0), seconds=1e6, largest=1)[2])


def test_progress_grows(loop):
    """The progress grows from little to all of the measurement."""
    shares = measured(loop, sleeper(0.001, 0.0), items=range(50))[1]
    trial, measurement = shares[:50], shares[50:]
    assert (0.02, 1.0) == (trial[0], trial[-1])
    assert sorted(measurement) == measurement
    assert 0.9 < measurement[-1] <= 1.0


def test_many_items_are_not_all_tried(loop):
    """Items are tried for a quarter of the time."""
    meter = Meter(make_target(sleeper(0.1, 0.0), list(range(1000))), loop)
    assert 4 == len(list(meter.try_items(1.4)))


def test_all_sizes_and_modes_measure_the_same_items(loop):
    """Items of any cost have the same total in batches of any size, after a pause and at overload."""

    @microbatch
    async def wait(items):
        await asyncio.sleep(0.001 * sum(items))
        return items

    cost = measured(loop, wait, items=[1, 2, 4, 8, 16, 32, 64, 128], seconds=10.0, largest=8)[0]
    per_item = [seconds / size for times in (cost.function, cost.loaded[1]) for size, seconds in times.items()]
    assert [per_item[0]] * 8 == pytest.approx(per_item)


def padded(**options):
    """Return a function whose time is that of its longest item for each item."""

    @microbatch(**options)
    async def pad(items):
        await asyncio.sleep(0.002 + 0.0001 * len(items) * max(items))
        return items

    return pad


def test_unequal_items_are_detected(loop):
    """Items of 1 to 41 units differ, and equal items do not."""
    found = measured(loop, padded(), items=range(1, 42), seconds=5.0)[0].inequality
    assert 0.0001 * pstdev(range(1, 42)) / 0.0041 == pytest.approx(found, rel=0.1)
    assert 0.0 == pytest.approx(measured(loop, padded(), items=[5] * 40, seconds=5.0)[0].inequality)


class BusyLoop(VirtualLoop):
    """An event loop that takes 2 ms to create a task."""

    def create_task(self, *args, **kwargs):
        self._clock.now += 0.002
        return super().create_task(*args, **kwargs)


def test_calls_that_slow_down_a_batch_are_part_of_its_time_at_overload():
    """At overload, four further calls arrive while a batch of four runs, and delay it."""

    @microbatch
    async def compute(items):
        for _ in range(40):
            await asyncio.sleep(0.001)
        return items

    with closing(BusyLoop()) as loop:
        cost = measured(loop, compute, seconds=5.0, largest=4)[0]
    assert cost.function[4] < 0.045
    assert cost.function[4] + 0.004 < cost.loaded[1][4]


def test_slots_are_measured(loop):
    """Two batches at once take twice as long if the function runs one at a time, and four take four times as long."""
    device = asyncio.Lock()

    @microbatch(concurrency=4)
    async def shared(items):
        async with device:
            await asyncio.sleep(0.01)
        return items

    cost = measured(loop, shared, largest=2, concurrency=4)[0]
    expected = {slots: {1: 0.01 * slots, 2: 0.01 * slots} for slots in (1, 2, 4)}
    assert expected == {slots: pytest.approx(times) for slots, times in cost.loaded.items()}


def test_batches_have_items_of_one_group(loop):
    """A function that must not get items of several groups never does, even in batches larger than a group."""
    groups = []

    @microbatch(group_by=str)
    async def of_one_group(items):
        groups.append({*items})
        await asyncio.sleep(0.001)
        return items

    assert [1, 2, 4, 8] == list(measured(loop, of_one_group, items=[1, 2, 2, 3, 3, 3], largest=8)[0].function)
    assert {1, 2, 3} == set().union(*groups)
    assert all(len(group) == 1 for group in groups)


def test_batches_are_not_too_heavy(loop):
    """Only sizes that weights allow are measured, and with items that fit together."""
    weights = []

    @microbatch(weigh=float, max_weight=10)
    async def carry(items):
        weights.append(sum(items))
        await asyncio.sleep(0.001)
        return items

    assert [1, 2] == list(measured(loop, carry, items=[3, 4, 9], largest=8)[0].function)
    assert 10 >= max(weights)


def test_a_lifespan_is_entered(loop):
    """The function finds the state that it has in production, for a method that of its instance."""

    class Model:
        @asynccontextmanager
        async def hold(self):
            yield self

        @microbatch(lifespan=hold)
        async def run(self, items):
            assert current_batch().state is self
            await asyncio.sleep(0.001)
            return items

    measured(loop, Model().run, largest=2)


def test_a_plain_function_is_measured_on_its_thread():
    """A ``def`` function is measured on the one thread of its engine, and called from an event loop."""
    import threading

    threads = set()

    def double(items):
        threads.add(threading.get_ident())
        return [2 * item for item in items]

    with closing_loop(PreciseLoop()) as loop:
        rounds = measured(loop, microbatch(double), seconds=0.01, largest=1)[2]
    runs = [run for one in rounds for runs in one.alone.values() for run in runs]
    assert runs
    assert all(0 < run.function < run.total for run in runs)
    assert all(0 <= run.loop_cpu < run.total for run in runs)
    assert all(0 < min(run.wake_delay, run.cores) for run in runs)
    assert all(0 < seconds for one in rounds for times in one.loaded.values() for seconds in times)
    assert 1 == len(threads)
    assert threading.get_ident() not in threads


def test_remaining_tasks_are_cancelled():
    """Tasks that a function leaves running are cancelled when the loop is closed."""
    ended = []

    async def forever():
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    with closing_loop(PreciseLoop()) as loop:
        task = loop.create_task(forever())
        loop.run_until_complete(asyncio.sleep(0))
    assert [True] == ended
    assert task.cancelled()


# Items that fail.


def picky(bad):
    """Return a function that fails if ``bad(items)``."""

    @microbatch
    async def picky(items):
        if bad(items):
            msg = f"{items} are secret"
            raise KeyError(msg)
        return items

    return picky


def failure(loop, fn, count=100):
    """Return the message of the error that a measurement raises."""
    with pytest.raises(CommandError) as caught:
        measured(loop, fn, items=range(count))
    return str(caught.value)


@pytest.mark.parametrize("bad", [0, 1, 31, 32, 77, 99])
def test_a_bad_item_is_found(loop, bad):
    """The error names the index of the bad item and the place of the failure, and not the message."""
    line = picky.__code__.co_firstlineno + 7
    expected = f"items[{bad}] makes picky.<locals>.picky() fail: KeyError at test_tuning.py, line {line}"
    assert expected == failure(loop, picky(lambda items: bad in items))


def test_items_that_fail_only_together_are_named(loop):
    """Where no item fails alone, the error names the first one of the batch."""
    message = failure(loop, picky(lambda items: len(items) > 2))
    expected = (
        r"a batch with items\[\d+\] makes picky.* fail, but no item of it does alone: KeyError at test_tuning.py, "
    )
    assert re.match(expected, message)


def test_an_error_at_overload_ends_all_calls(loop):
    """No call waits forever for the others of its batch, which were cancelled."""
    count = 0

    @microbatch(name="tired")
    async def tired(items):
        nonlocal count
        count += 1
        await asyncio.sleep(0.001)
        if count == 40:
            raise KeyError
        return items

    expected = "a batch with items[0] makes tired() fail, but no item of it does alone: KeyError"
    assert failure(loop, tired, 1).startswith(expected)


def test_a_wrong_number_of_results_is_an_error(loop):
    """A function that drops a result gets the message of the engine."""

    @microbatch(name="drops")
    async def drops(items):
        return [item for item in items if item != 5]

    assert (
        "items[5] makes drops() fail: drops() was given 1 item and returned 0 results; "
        "it must return one for each item, in order"
    ) == failure(loop, drops)


# Loads.


def test_arrivals_are_repeatable():
    """Arrivals follow from the seed, begin at 0, and have the given rate."""
    times = arrivals(100.0, 50.0, seed=1)
    assert times == arrivals(100.0, 50.0, seed=1)
    assert (0.0, 5000) == (times[0], len(times))
    assert 50.0 == pytest.approx(times[-1], rel=0.05)
    assert [0.0] == arrivals(0.1, 1.0, seed=1)


def weighed(**options):
    return padded(weigh=float, max_weight=60.0, **options)


def grouped(**options):
    return padded(group_by=lambda item: item // 15, **options)


def by_length(**options):
    return padded(length=float, **options)


@pytest.mark.untraced
@pytest.mark.parametrize("timeout", [None, 0.003])
@pytest.mark.parametrize(
    ("make", "share"),
    # With lengths, batches at overload have less padding than those measured, as the output says.
    [*product([partial(sleeper, 0.004, 0.0001), padded, grouped, weighed], [0.5, 1.5]), (by_length, 0.5)],
)
def test_a_measured_cost_predicts_a_load(loop, make, timeout, share):
    """From a measurement of any of these functions, median and throughput under load are within a quarter."""
    setting = Setting(16, timeout)
    fn, items = make(max_size=16, timeout=timeout), list(range(1, 42))
    cost = measured(loop, fn, items, seconds=5.0, largest=16)[0]
    rate = share * cost.capacity(setting)
    load = Load(arrivals(rate, 1500 / rate, seed=3))
    loop.run_until_complete(run_load(load, make_target(fn, items).calls, seed=0))
    expected = cost.predict(setting, rate, trace=load.due)
    p50, _, throughput = next(load.outcomes())
    assert pytest.approx(expected.latency_ms.p50, rel=0.25) == p50
    assert pytest.approx(expected.throughput, rel=0.25) == throughput


def test_latency_counts_from_the_time_a_call_was_due(loop):
    """The latency of a call that a busy loop made late includes its delay."""
    blocked = []

    async def call():
        if not blocked:
            blocked.append(True)
            # The loop is blocked for a second.
            loop._clock.now += 1.0

    load = Load([0.0, 0.25])
    loop.run_until_complete(run_load(load, [call], seed=0))
    assert [1.0, 0.75] == [latency for _, latency in load.answered]
    assert [0.0, 0.75] == load.delays


def test_failed_calls_are_counted_by_type(loop):
    """Failed calls have no latency, and are counted by type of error."""

    async def fail():
        raise KeyError

    load = Load([0.0, 0.5])
    loop.run_until_complete(run_load(load, [fail], seed=0))
    assert ({"KeyError": 2}, []) == (load.errors, load.answered)


def test_a_load_has_few_enough_calls_to_simulate():
    """A load ends early, after 20,000 calls."""
    assert 20_000 == len(arrivals(1e6, 60.0, seed=1))


def test_the_outcome_of_a_load_is_resampled():
    """The first outcome is that of all calls; if latencies change during the load, the others differ."""
    load = Load([], [(float(second), 0.001 * second) for second in range(1, 101)])
    outcome, *resamples = load.outcomes()
    assert (50.0, 99.0, 1.0) == pytest.approx(outcome)
    assert 1 < len({p50 for p50, _, _ in resamples})
