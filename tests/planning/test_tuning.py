"""Measuring a batch function and choosing its options, compared with known costs in virtual time."""

from __future__ import annotations

import asyncio
from contextlib import closing

import pytest

from batchify import microbatch
from batchify._cli.load import Load, arrivals, run_load
from batchify._cli.loading import CommandError, make_target
from batchify._cli.measure import Meter, PreciseLoop
from batchify._planning.cost import Cost, Setting
from batchify._planning.tuning import TOLERANCE, _tail, curve, recommend
from batchify.testing import VirtualLoop
from batchify.testing.virtual_time import closing_loop
from tests.kit.costs import SIZES, linear_cost

# Recommendations.


def test_adaptive_timing_is_recommended():
    """Where most of a run is fixed, no window is much better than adaptive timing, and the capacity is sufficient."""
    cost = linear_cost(0.010, 0.0001)
    advice = recommend(cost, [500.0, 2000.0])
    assert (None, 1) == (advice.setting.timeout, advice.setting.concurrency)
    assert cost.capacity(advice.setting) > 2000.0


@pytest.mark.untraced
def test_the_recommended_size_is_hardly_worse_than_any():
    """No other size has 99th percentiles that are better by more than 5 %, and no smaller size is as good."""
    cost, rates = linear_cost(0.005, 0.0005), [300.0, 900.0]
    tails = {size: _tail(cost, Setting(size), rates) for size in SIZES if cost.capacity(Setting(size)) > 900.0}
    chosen, limit = recommend(cost, rates).setting.max_size, TOLERANCE * min(tails.values())
    assert tails[chosen] <= limit
    assert all(tails[size] > limit for size in tails if size < chosen)


def test_a_window_is_recommended_where_it_is_better():
    """With four slots that are nearly always busy, a short window beats none, and is a round number."""
    cost = linear_cost(0.010, 0.001, sizes=(1, 2, 4, 8), slowdown={4: 1.0})
    assert Setting(8, 0.0055, 4) == recommend(cost, [1400.0]).setting


@pytest.mark.untraced
def test_more_slots_are_recommended_only_if_necessary():
    """Two slots are recommended if the rate needs them, and otherwise one."""
    cost = linear_cost(0.010, 0.0, sizes=(1, 2), slowdown={1: 1.0, 2: 1.0})
    assert [1, 2] == [recommend(cost, [rate]).setting.concurrency for rate in (0.2, 250.0)]


def test_a_target_may_be_met_at_nearly_all_rates():
    """With a target of 100 ms for a function of 10 ms, nearly all rates below the capacity meet it."""
    advice = recommend(linear_cost(0.010, 0.0), [1000.0], slo=0.1)
    assert [] == advice.missed_rates
    assert 1000.0 < advice.max_rate < 3200.0


@pytest.mark.untraced
def test_a_target_may_be_missed_at_some_rates():
    """The advice has the rates that miss the target, and a lower rate that meets it."""
    advice = recommend(linear_cost(0.010, 0.001, sizes=(1, 2, 4)), [20.0, 270.0], slo=0.024)
    assert [270.0] == advice.missed_rates
    assert 20.0 < advice.max_rate < 270.0


@pytest.mark.untraced
def test_a_target_below_the_run_time_is_missed_at_every_rate():
    """A function that takes longer than the target misses it at every rate."""
    assert 0.0 == recommend(linear_cost(0.010, 0.0), [10.0], slo=0.005).max_rate


def test_no_rate_misses_an_absent_target():
    """Without a target, no rate misses it and no rate is the highest."""
    advice = recommend(linear_cost(0.010, 0.0), [10.0])
    assert ([], None) == (advice.missed_rates, advice.max_rate)


def test_a_curve_ends_below_the_capacity():
    """A curve has growing latencies, from a twentieth of the capacity on."""
    found = curve(linear_cost(0.010, 0.0), Setting(32))
    assert [160.0 * step for step in range(1, 20)] == pytest.approx(list(found))
    assert found[min(found)].latency_ms.p50 < found[max(found)].latency_ms.p50


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
    meter = Meter(make_target(fn, list(items)), loop, concurrency)
    shares = [*meter.try_items(seconds), *meter.measure(seconds, largest)]
    return meter.samples, shares


def test_exact_times_are_measured(loop):
    """In virtual time, the engine takes no time, so a batch takes the time of its function."""
    cost = Cost.from_samples(measured(loop, sleeper(0.004, 0.0001))[0])
    assert pytest.approx(linear_cost(0.004, 0.0001).with_engine) == cost.with_engine
    assert pytest.approx(linear_cost(0.004, 0.0001).function) == cost.function
    assert (0.0, pytest.approx(0.0, abs=1e-9)) == (cost.spread, cost.interference)


def test_the_linear_cost_is_measured(loop):
    """The fixed cost and the cost per item follow from measurements."""
    linear = Cost.from_samples(measured(loop, sleeper(0.004, 0.0001))[0]).linear
    assert (pytest.approx(0.004), pytest.approx(0.0001)) == (linear.fixed, linear.per_item)


def test_sizes_grow_to_the_largest(loop):
    """Sizes are powers of two, and the largest size."""
    samples, _ = measured(loop, sleeper(0.001, 0.0), largest=12)
    assert [1, 2, 4, 8, 12] == list(samples.runs)


def test_sizes_stop_growing_in_time(loop):
    """Sizes that would take too long are not measured, and the others are measured at least three times."""
    samples, _ = measured(loop, sleeper(0.0, 0.1), seconds=1.0)
    assert [1, 2] == list(samples.runs)
    assert all(len(runs) >= 3 for runs in samples.runs.values())


def test_measuring_ends_in_time(loop):
    """A measurement ends with the round during which its time ends."""
    measured(loop, sleeper(0.001, 0.0), seconds=2.0)
    assert 2.0 <= loop.time() < 3.0


def test_the_number_of_rounds_is_limited(loop):
    """With any amount of time, a size is measured at most 60 times."""
    samples, _ = measured(loop, sleeper(0.05, 0.0), seconds=1e6, largest=1)
    assert 60 == len(samples.runs[1])


def test_progress_grows(loop):
    """The progress grows from little to all of the measurement."""
    _, shares = measured(loop, sleeper(0.001, 0.0), items=range(100))
    trial, measurement = shares[:4], shares[4:]
    assert [0.32, 0.64, 0.96, 1.0] == trial
    assert sorted(measurement) == measurement
    assert 0.9 < measurement[-1] <= 1.0


def test_many_items_are_not_all_tried(loop):
    """Items are tried for a quarter of the time."""
    meter = Meter(make_target(sleeper(0.1, 0.0), list(range(1000))), loop)
    assert 4 == len(list(meter.try_items(1.4)))


class BusyLoop(VirtualLoop):
    """An event loop that takes 2 ms to create a task."""

    def create_task(self, *args, **kwargs):
        self._clock.now += 0.002
        return super().create_task(*args, **kwargs)


def test_interference_is_measured():
    """A call that delays a running function makes its batch longer, which is measured."""

    @microbatch
    async def compute(items):
        for _ in range(40):
            await asyncio.sleep(0.001)
        return items

    with closing(BusyLoop()) as loop:
        interference = Cost.from_samples(measured(loop, compute, largest=4)[0]).interference
    assert 0.0005 < interference <= 0.002


def test_slowdown_is_measured(loop):
    """Two batches at once take twice as long if the function runs one at a time, and four take four times as long."""
    device = asyncio.Lock()

    @microbatch(concurrency=4)
    async def shared(items):
        async with device:
            await asyncio.sleep(0.01)
        return items

    cost = Cost.from_samples(measured(loop, shared, largest=2, concurrency=4)[0])
    assert {1: 1.0, 2: pytest.approx(2.0), 4: pytest.approx(4.0)} == cost.slowdown


def test_a_plain_function_is_measured_on_its_thread():
    """A ``def`` function is measured on the one thread of its engine, and called from an event loop."""
    import threading

    threads = set()

    def double(items):
        threads.add(threading.get_ident())
        return [2 * item for item in items]

    with closing_loop(PreciseLoop()) as loop:
        samples, _ = measured(loop, microbatch(double), seconds=0.01, largest=2)
    assert samples.runs
    assert all(0 < run.function < run.total for runs in samples.runs.values() for run in runs)
    assert all(
        0 < min(run.wake_delay, run.slot_time, run.back_to_back) for runs in samples.runs.values() for run in runs
    )
    assert all(0 <= run.loop_cpu < run.total for runs in samples.runs.values() for run in runs)
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


def test_all_items_are_named_if_they_fail_only_together(loop):
    """Where neither half fails alone, the error names all items."""
    message = failure(loop, picky(lambda items: 3 in items and 12 in items))
    expected = "16 items, including items[0], make picky.<locals>.picky() fail together, but neither half alone: "
    assert message.startswith(f"{expected}KeyError at test_tuning.py, line ")


def test_a_bad_item_that_was_not_tried_is_found(loop):
    """An item that fails only during the measurement is found as well."""
    tried = []

    @microbatch(name="later")
    async def later(items):
        tried.extend(items)
        await asyncio.sleep(0.01)
        return [KeyError() if len(tried) > 200 else item for item in items]

    assert "items[5] makes later() fail: KeyError" == failure(loop, later, 1).replace("items[0]", "items[5]")


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


@pytest.mark.parametrize("timeout", [None, 0.003])
@pytest.mark.parametrize("rate", [100.0, 1000.0, 3000.0])
def test_an_engine_agrees_with_the_prediction(loop, rate, timeout):
    """In virtual time, engines take no time, and the same calls have the predicted latencies."""
    fn = sleeper(0.004, 0.0001, max_size=32, timeout=timeout)
    load = Load(arrivals(rate, 2.0, seed=3))
    loop.run_until_complete(run_load(load, make_target(fn, [1, 2]).calls, seed=0))
    expected = linear_cost(0.004, 0.0001).predict(Setting(32, timeout), rate, trace=load.due)
    assert pytest.approx(expected.latency_ms.p50, rel=0.02) == load.latency_ms.p50
    assert pytest.approx(expected.latency_ms.p99, rel=0.02) == load.latency_ms.p99
    assert pytest.approx(expected.throughput, rel=0.02) == load.throughput
    assert pytest.approx(expected.avg_batch_size, rel=0.02) == fn.batch_stats.avg_batch_size
    assert 0.0 == pytest.approx(load.delay_ms.max, abs=1e-6)


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
    assert [1.0, 0.75] == load.latencies
    assert [0.0, 0.75] == load.delays


def test_failed_calls_are_counted_by_type(loop):
    """Failed calls have no latency, and are counted by type of error."""

    async def fail():
        raise KeyError

    load = Load([0.0, 0.5])
    loop.run_until_complete(run_load(load, [fail], seed=0))
    assert ({"KeyError": 2}, [], 0.0) == (load.errors, load.latencies, load.latency_ms.max)


def test_a_load_without_a_call_has_no_throughput():
    """Before the first answer, all figures are zero."""
    assert (0.0, 0.0) == (Load([0.0]).throughput, Load([0.0]).delay_ms.p99)
