"""Measuring a batch function and choosing its options: against costs that are known, in virtual time."""

from __future__ import annotations

import asyncio
from contextlib import closing

import pytest

from batchify import microbatch
from batchify._cli import load as _load
from batchify._cli import loading, measure
from batchify._cli.loading import CommandError
from batchify._planning import cost as _cost
from batchify._planning import tuning
from batchify._planning.cost import Setting
from batchify.testing import VirtualLoop
from tests.kit.costs import SIZES, known

# What options are best.


def test_adaptive_timing_is_recommended():
    """Where most of a run is fixed no window is much better than none, and the size is one that bears the rates."""
    cost = known(0.010, 0.0001)
    advice = tuning.recommend(cost, [500.0, 2000.0])
    assert (None, 1) == (advice.setting.timeout, advice.setting.concurrency)
    assert cost.capacity(advice.setting.max_size) > 2000.0


def test_the_recommended_size_is_hardly_worse_than_any():
    """No other size has 99th percentiles that are better by more than a twentieth, and no smaller one is as good."""
    cost, rates = known(0.005, 0.0005), [300.0, 900.0]
    tails = {size: tuning._tail(cost, Setting(size), rates) for size in SIZES if cost.capacity(size) > 900.0}
    chosen = tuning.recommend(cost, rates).setting.max_size
    assert tails[chosen] <= 1.05 * min(tails.values())
    assert all(tails[size] > 1.05 * min(tails.values()) for size in tails if size < chosen)


def test_a_window_is_recommended_where_it_is_better():
    """With four slots that are nearly always taken a short window beats none, and is a round number."""
    cost = known(0.010, 0.001, sizes=(1, 2, 4, 8), slowdown={4: 1.0})
    assert Setting(8, 0.0055, 4) == tuning.recommend(cost, [1400.0]).setting


def test_more_slots_only_where_they_help():
    """Two slots are recommended if they are needed for the rate, and one if they are not."""
    cost = known(0.010, 0.0, sizes=(1, 2), slowdown={1: 1.0, 2: 1.0})
    assert [1, 2] == [tuning.recommend(cost, [rate]).setting.concurrency for rate in (0.2, 250.0)]


def test_a_target_that_is_met():
    """With 100 ms allowed for a function of 10 ms, all rates below the capacity are fine but the last few."""
    advice = tuning.recommend(known(0.010, 0.0), [1000.0], slo=0.1)
    assert [] == advice.misses
    assert 1000.0 < advice.limit < 3200.0


def test_a_target_that_is_missed_at_some_rates():
    """The rates that miss it are named, and the highest rate that meets it lies below them."""
    advice = tuning.recommend(known(0.010, 0.001, sizes=(1, 2, 4)), [20.0, 270.0], slo=0.024)
    assert [270.0] == advice.misses
    assert 20.0 < advice.limit < 270.0


def test_a_target_that_nothing_meets():
    """What takes longer alone than is allowed is late at any rate."""
    assert 0.0 == tuning.recommend(known(0.010, 0.0), [10.0], slo=0.005).limit


def test_no_target():
    """Without a target nothing is missed, and there is no limit."""
    advice = tuning.recommend(known(0.010, 0.0), [10.0])
    assert ([], None) == (advice.misses, advice.limit)


def test_a_curve_ends_below_the_capacity():
    """It has latencies from a twentieth of what can be answered, and they grow."""
    curve = tuning.curve(known(0.010, 0.0), Setting(32))
    assert [160.0 * step for step in range(1, 20)] == pytest.approx(list(curve))
    assert curve[min(curve)].latency_ms.p50 < curve[max(curve)].latency_ms.p50


# How it is measured.


@pytest.fixture
def loop():
    """Return an event loop in virtual time."""
    loop = VirtualLoop()
    yield loop
    loop.run_until_complete(measure._end())
    loop.close()


def sleeper(a, b, **options):
    """Return a function that takes exactly a + b n seconds of virtual time."""

    @microbatch(**options)
    async def sleep(items):
        await asyncio.sleep(a + b * len(items))
        return items

    return sleep


def measured(loop, fn, items=(1, 2, 3), seconds=0.5, largest=32, concurrency=1):
    meter = measure.Meter(loading.target(fn, list(items)), loop, concurrency)
    shares = [*meter.try_items(seconds), *meter.measure(seconds, largest)]
    return meter.samples, shares


def test_exact_times_are_measured(loop):
    """In virtual time, where an engine takes none, a batch takes what its function takes."""
    cost = _cost.cost(measured(loop, sleeper(0.004, 0.0001))[0])
    assert pytest.approx(known(0.004, 0.0001).together) == cost.together
    assert pytest.approx(known(0.004, 0.0001).function) == cost.function
    assert (0.0, pytest.approx(0.0, abs=1e-9)) == (cost.spread, cost.crowding)


def test_the_line_is_found_by_measuring(loop):
    """What is fixed and what an item takes come out of it."""
    line = _cost.cost(measured(loop, sleeper(0.004, 0.0001))[0]).line
    assert (pytest.approx(0.004), pytest.approx(0.0001)) == (line.a, line.b)


def test_sizes_grow_to_the_largest(loop):
    """They are powers of two, and the largest one that is asked for."""
    samples, _ = measured(loop, sleeper(0.001, 0.0), largest=12)
    assert [1, 2, 4, 8, 12] == list(samples.runs)


def test_sizes_stop_growing_in_time(loop):
    """Sizes that would take too long are not measured, and the others at least three times."""
    samples, _ = measured(loop, sleeper(0.0, 0.1), seconds=1.0)
    assert [1, 2] == list(samples.runs)
    assert all(len(taken) >= 3 for taken in samples.runs.values())


def test_measuring_ends_in_time(loop):
    """It ends when the time is over, but for the round that is under way."""
    measured(loop, sleeper(0.001, 0.0), seconds=2.0)
    assert 2.0 <= loop.time() < 3.0


def test_enough_is_enough(loop):
    """A function is not measured for longer than makes sense, however much time there is."""
    samples, _ = measured(loop, sleeper(0.05, 0.0), seconds=1e6, largest=1)
    assert 60 == len(samples.runs[1])


def test_shares_grow(loop):
    """What is told of the progress goes from little to all of it."""
    _, shares = measured(loop, sleeper(0.001, 0.0), items=range(100))
    tried, timed = shares[:4], shares[4:]
    assert [0.32, 0.64, 0.96, 1.0] == tried
    assert sorted(timed) == timed
    assert 0.9 < timed[-1] <= 1.0


def test_not_all_items_are_tried_if_there_are_many(loop):
    """A quarter of the time is for trying items."""
    meter = measure.Meter(loading.target(sleeper(0.1, 0.0), list(range(1000))), loop)
    assert 4 == len(list(meter.try_items(1.4)))


class BusyLoop(VirtualLoop):
    """An event loop on which it takes 2 ms to make a task."""

    def create_task(self, *args, **kwargs):
        self._clock.now += 0.002
        return super().create_task(*args, **kwargs)


def test_what_a_call_takes_from_a_batch():
    """A call that holds up a function which computes makes its batch longer by that, and is found out."""

    @microbatch
    async def compute(items):
        for _ in range(40):
            await asyncio.sleep(0.001)
        return items

    with closing(BusyLoop()) as loop:
        crowding = _cost.cost(measured(loop, compute, largest=4)[0]).crowding
    assert 0.0005 < crowding <= 0.002


def test_slots_that_share_are_slower(loop):
    """Two batches of a function that serves one at a time take twice as long together, four take four times."""
    device = asyncio.Lock()

    @microbatch(concurrency=4)
    async def shared(items):
        async with device:
            await asyncio.sleep(0.01)
        return items

    cost = _cost.cost(measured(loop, shared, largest=2, concurrency=4)[0])
    assert {1: 1.0, 2: pytest.approx(2.0), 4: pytest.approx(4.0)} == cost.slowdown


def test_a_plain_function_is_measured_too():
    """A def function is measured on its engine's thread, always the same one, called from an event loop of our own."""
    import threading

    threads = set()

    def double(items):
        threads.add(threading.get_ident())
        return [2 * item for item in items]

    with measure.looping() as loop:
        samples, _ = measured(loop, microbatch(double), seconds=0.01, largest=2)
    assert samples.runs
    assert all(0 < run.function < run.total for runs in samples.runs.values() for run in runs)
    assert all(0 < min(run.late, run.slot, run.warm) for runs in samples.runs.values() for run in runs)
    assert all(0 <= run.loop < run.total for runs in samples.runs.values() for run in runs)
    assert 1 == len(threads)
    assert threading.get_ident() not in threads


def test_what_still_runs_is_ended():
    """Tasks that somebody's function leaves behind end with the loop."""
    ended = []

    async def forever():
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    with measure.looping() as loop:
        task = loop.create_task(forever())
        loop.run_until_complete(asyncio.sleep(0))
    assert [True] == ended
    assert task.cancelled()


# Who is to blame.


def picky(bad):
    """Return a function that fails if ``bad(items)``."""

    @microbatch
    async def picky(items):
        if bad(items):
            msg = f"{items} are secret"
            raise KeyError(msg)
        return items

    return picky


def blamed(loop, fn, count=100):
    with pytest.raises(CommandError) as caught:
        measured(loop, fn, items=range(count))
    return str(caught.value)


@pytest.mark.parametrize("bad", [0, 1, 31, 32, 77, 99])
def test_an_item_is_blamed(loop, bad):
    """An item that makes the function fail is found by its index, and where it failed is told, not with what."""
    line = picky.__code__.co_firstlineno + 7
    expected = f"items[{bad}] makes picky.<locals>.picky() fail: KeyError at test_tuning.py, line {line}"
    assert expected == blamed(loop, picky(lambda items: bad in items))


def test_items_that_fail_together_are_blamed_together(loop):
    """Where no half fails alone, all of it is to blame."""
    told = blamed(loop, picky(lambda items: 3 in items and 12 in items))
    expected = "16 items, among them items[0], make picky.<locals>.picky() fail together, but no half of them alone: "
    assert told.startswith(f"{expected}KeyError at test_tuning.py, line ")


def test_an_item_that_was_not_tried_is_blamed_too(loop):
    """Where there was no time to try all items, the one that fails later is found as well."""
    tried = []

    @microbatch(name="later")
    async def later(items):
        tried.extend(items)
        await asyncio.sleep(0.01)
        return [KeyError() if len(tried) > 200 else item for item in items]

    assert "items[5] makes later() fail: KeyError" == blamed(loop, later, 1).replace("items[0]", "items[5]")


def test_a_wrong_number_of_results_is_told(loop):
    """A function that does not answer for each item is told so in the words of the engine."""

    @microbatch(name="drops")
    async def drops(items):
        return [item for item in items if item != 5]

    assert (
        "items[5] makes drops() fail: drops() was given 1 item and returned 0 results; "
        "it must return one for each item, in order"
    ) == blamed(loop, drops)


# Calls at random.


def test_arrivals_are_repeatable():
    """They follow from the seed, the first one at 0, and come as often as told."""
    moments = _load.poisson(100.0, 50.0, seed=1)
    assert moments == _load.poisson(100.0, 50.0, seed=1)
    assert (0.0, 5000) == (moments[0], len(moments))
    assert 50.0 == pytest.approx(moments[-1], rel=0.05)
    assert [0.0] == _load.poisson(0.1, 1.0, seed=1)


@pytest.mark.parametrize("timeout", [None, 0.003])
@pytest.mark.parametrize("rate", [100.0, 1000.0, 3000.0])
def test_an_engine_does_what_is_predicted(loop, rate, timeout):
    """In virtual time, where engines cost nothing, the same calls have the latencies that are predicted."""
    fn = sleeper(0.004, 0.0001, max_size=32, timeout=timeout)
    load = _load.Load(_load.poisson(rate, 2.0, seed=3))
    loop.run_until_complete(_load.offer(load, loading.target(fn, [1, 2]).calls, seed=0))
    expected = known(0.004, 0.0001).predict(Setting(32, timeout), rate, trace=load.due)
    assert pytest.approx(expected.latency_ms.p50, rel=0.02) == load.latency_ms.p50
    assert pytest.approx(expected.latency_ms.p99, rel=0.02) == load.latency_ms.p99
    assert pytest.approx(expected.throughput, rel=0.02) == load.throughput
    assert pytest.approx(expected.avg_batch_size, rel=0.02) == fn.batch_stats.avg_batch_size
    assert 0.0 == pytest.approx(load.late_ms.max, abs=1e-6)


def test_latency_counts_from_when_a_call_was_due(loop):
    """A call that is made late, since the loop was held up, hides nothing."""
    held = []

    async def call():
        if not held:
            held.append(True)
            # The loop does nothing else meanwhile.
            loop._clock.now += 1.0

    load = _load.Load([0.0, 0.25])
    loop.run_until_complete(_load.offer(load, [call], seed=0))
    assert [1.0, 0.75] == load.latencies
    assert [0.0, 0.75] == load.late


def test_calls_that_fail_are_counted_apart(loop):
    """They have no latency, and their errors are counted by kind."""

    async def fail():
        raise KeyError

    load = _load.Load([0.0, 0.5])
    loop.run_until_complete(_load.offer(load, [fail], seed=0))
    assert ({"KeyError": 2}, [], 0.0) == (load.errors, load.latencies, load.latency_ms.max)


def test_a_load_without_a_call_has_no_throughput():
    """Before the first answer nothing is divided by zero."""
    assert (0.0, 0.0) == (_load.Load([0.0]).throughput, _load.Load([0.0]).late_ms.p99)
