"""The simulation: its figures, its arguments, and its agreement with an engine."""

from __future__ import annotations

import asyncio
import json
import math
import statistics
from collections import Counter
from dataclasses import FrozenInstanceError, replace
from itertools import count
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import batchify
from batchify import Percentiles, current_batch, microbatch, simulate
from batchify._core.entries import Entry
from batchify._core.grouped import GroupedQueue
from batchify._core.queue import PlainQueue
from batchify._core.run_cost import RunCost
from batchify._planning.simulation import MAX_NOISE, checked_limits, departures, poisson_arrivals
from batchify.testing import VirtualLoop
from tests.kit.errors import message_of

# One second for the first item and half a second for each further one: exact in floating point.
COST = {1: 1.0, 3: 2.0}


def traced(*times, **options):
    """Return the outcome of calls at these times; by default, the function runs for exactly one second."""
    return simulate(**{"trace": times, "run_time": {1: 1.0}, **options})


def error_message(kind, **options):
    """Return the message of the exception, of exactly this type, that these arguments raise."""
    return message_of(kind, simulate, **{"run_time": COST, "rate": 10.0, "calls": 10, **options})


# Figures.


def test_a_lone_call_takes_one_run():
    """With nothing running, a call gets its answer when a batch of one has run."""
    assert Percentiles(1000.0, 1000.0, 1000.0, 1000.0) == traced(5.0).latency_ms


def test_calls_wait_for_the_end_of_a_running_batch():
    """Calls that arrive while a batch runs leave together when it ends."""
    outcome = traced(0.0, 0.25, 0.5)
    assert (Percentiles(1500.0, 1750.0, 1750.0, 1750.0), {1: 1, 2: 1}) == (outcome.latency_ms, outcome.size_histogram)


def test_waiting_is_latency_without_the_run():
    """The wait of a call ends when its batch departs."""
    assert Percentiles(500.0, 750.0, 750.0, 750.0) == traced(0.0, 0.25, 0.5).wait_ms


def test_averages_are_over_calls():
    """The weight of a batch is the number of its calls."""
    outcome = traced(0.0, 0.25, 0.5)
    assert (pytest.approx(4250 / 3), pytest.approx(1250 / 3)) == (outcome.avg_latency_ms, outcome.avg_wait_ms)


def test_the_duration_is_from_the_first_arrival_to_the_last_answer():
    """Time before the first call and after the last answer does not count."""
    outcome = traced(10.0, 10.5)
    assert (2.0, 1.0) == (outcome.duration_s, outcome.throughput)


@pytest.mark.parametrize(("slots", "expected"), [(1, 1.0), (2, 2 / 3), (4, 1 / 3)])
def test_utilization_is_the_share_of_busy_slots(slots, expected):
    """Idle slots count too."""
    assert expected == pytest.approx(traced(0.0, 0.5, timeout=0, concurrency=slots).utilization)


def test_batches_are_counted_by_size():
    """The outcome has the number of batches of each size, and their average size."""
    outcome = traced(0.0, 0.1, 0.2, 0.3, 0.4, max_size=2)
    assert (5, 3, {1: 1, 2: 2}) == (outcome.calls, outcome.batches, outcome.size_histogram)
    assert 5 / 3 == outcome.avg_batch_size


def test_reasons_are_those_of_the_statistics():
    """Reasons have the names of ``BatchStats``, including those that did not occur."""
    outcome = traced(0.0, 0.1, 5.0, 5.0, 9.0, max_size=2)
    assert {"full": 1, "idle": 2, "slot": 1} == {reason: count for reason, count in outcome.reasons.items() if count}
    assert set(batchify.BatchStats("").reasons) == set(outcome.reasons)


def test_calls_at_one_time_share_a_batch():
    """As on an event loop, no batch leaves before all calls of the same time have arrived."""
    assert {3: 1} == traced(1.0, 1.0, 1.0).size_histogram


def test_a_burst_may_be_larger_than_a_batch():
    """A burst fills one batch for each slot, and its remaining calls follow."""
    assert {2: 2, 1: 1} == traced(*[1.0] * 5, max_size=2, concurrency=2).size_histogram


def test_a_call_at_the_very_end_of_a_batch_leaves_with_the_next():
    """A call that arrives at the time at which a slot becomes free gets that slot."""
    assert {1: 1, 2: 1} == traced(0.0, 0.5, 1.0).size_histogram


def test_a_window_ends_by_itself():
    """A batch that is not full leaves at the end of its window, without another arrival."""
    assert Percentiles(1250.0, 1500.0, 1500.0, 1500.0) == traced(0.0, 0.25, timeout=0.5).latency_ms


def test_batches_that_end_together_free_their_slots_together():
    """Waiting calls find all slots free that become free at one time."""
    assert (
        Percentiles(1000.0, 1500.0, 1500.0, 1500.0) == traced(0.0, 0.0, 0.5, 0.5, max_size=1, concurrency=2).latency_ms
    )


def test_the_outcome_is_frozen():
    """The figures cannot be changed."""
    with pytest.raises(FrozenInstanceError):
        traced(0.0).calls = 2


def test_the_outcome_is_ready_for_json():
    """The figures survive a round trip through JSON."""
    plain = traced(0.0, 0.25, 0.5).to_dict()
    assert plain == json.loads(json.dumps(plain))
    assert (3, {"1": 1, "2": 1}, 1500.0) == (plain["calls"], plain["size_histogram"], plain["latency_ms"]["p50"])


def test_the_outcome_has_a_text():
    """The text has calls, batches, reasons, latency and waiting time."""
    assert [
        "3 calls in 2.0 s, 1.5 a second",
        "2 batches of 1.5 items, 100% busy (idle 1, slot 1)",
        "latency  average 1,416.67  p50 1,500.00  p90 1,750.00  p99 1,750.00  max 1,750.00 ms",
        "waiting  average 416.67  p50 500.00  p90 750.00  p99 750.00  max 750.00 ms",
    ] == str(traced(0.0, 0.25, 0.5)).splitlines()


# Arguments.


@pytest.mark.parametrize(
    ("run_time", "size", "expected"),
    [
        ({1: 1.0}, 1, 1.0),
        ({8: 1.0}, 3, 1.0),
        ({0: 1.0, 1: 1.5}, 3, 2.5),
        ({2: 1.0, 4: 2.0}, 1, 0.5),
        ({2: 1.0, 4: 2.0}, 2, 1.0),
        ({2: 1.0, 4: 2.0}, 3, 1.5),
        ({2: 1.0, 4: 2.0}, 6, 3.0),
        ({4: 2.0, 2: 1.0, 8: 2.0}, 6, 2.0),
        ({4: 2.0, 2: 1.0, 8: 2.0}, 9, 2.0),
    ],
)
def test_run_times_are_interpolated(run_time, size, expected):
    """A straight line connects two sizes, and continues beyond the first and the last two; one size is constant."""
    assert expected == traced(*[0.0] * size, run_time=run_time).duration_s


def test_a_maximum_size_above_the_number_of_calls_takes_no_time():
    """The maximum size may be far larger than the number of calls."""
    assert 1 == traced(0.0, max_size=10**12).batches


def test_a_trace_of_large_numbers():
    """Only the distances of arrivals count, so a trace may be of seconds or nanoseconds since 1970."""
    assert (2, 2.0) == (traced(1.8e18, 1.8e18, timeout=1.0).calls, traced(1.8e18, 1.8e18, timeout=1.0).duration_s)


def test_calls_arrive_at_the_rate():
    """Over many calls, the mean rate is the given one, and gaps vary like those of a Poisson process."""
    outcome = simulate(run_time={1: 1e-9}, rate=50.0, calls=5000, seed=4)
    assert (5000, pytest.approx(100.0, rel=0.05)) == (outcome.calls, outcome.duration_s)


def test_bursts_arrive_at_the_rate():
    """All bursts but the last are full, and larger bursts are rarer."""
    outcome = simulate(run_time={1: 1e-9}, rate=200.0, burst=8, calls=20_004, seed=4, timeout=0)
    assert ({4: 1, 8: 2500}, pytest.approx(100.0, rel=0.06)) == (outcome.size_histogram, outcome.duration_s)


@pytest.mark.parametrize("noise", [0.1, 1.0, 3.0])
def test_noise_keeps_the_mean(noise):
    """Run times with noise have the mean of those without."""
    calls = 5000
    outcome = simulate(run_time={1: 2.0}, trace=range(0, 10**6 * calls, 10**6), noise=noise, seed=1)
    assert pytest.approx(2000.0, rel=4 * noise / math.sqrt(calls)) == outcome.avg_latency_ms


def test_noise_is_log_normal():
    """The percentiles of run times are those of a log-normal distribution."""
    outcome = simulate(run_time={1: 2.0}, trace=range(0, 10**10, 10**6), noise=1.0)
    deviation = math.sqrt(math.log(2))
    quantile = statistics.NormalDist(-math.log(2) / 2, deviation).inv_cdf
    found = outcome.latency_ms
    assert pytest.approx([2000 * math.exp(quantile(q)) for q in (0.5, 0.9, 0.99)], rel=0.1) == [
        found.p50,
        found.p90,
        found.p99,
    ]


@pytest.mark.parametrize("noise", [None, 0, 0.0])
def test_without_noise_run_times_are_exact(noise):
    """Without noise, every run takes its exact time."""
    assert 1000.0 == traced(0.0, noise=noise).avg_latency_ms


def test_equal_arguments_give_equal_results():
    """All randomness comes from the seed."""
    first, second = (simulate(run_time=COST, rate=3.0, noise=0.5, seed=7, calls=500) for _ in range(2))
    assert first == second


def test_another_seed_gives_other_calls():
    """A different seed gives a different outcome."""
    assert 2 == len({simulate(run_time=COST, rate=3.0, seed=seed, calls=500).avg_latency_ms for seed in (1, 2)})


@pytest.mark.parametrize("options", [{"timeout": 5.0}, {"noise": 2.0}, {"max_size": 2}, {"concurrency": 3}])
def test_options_are_compared_on_the_same_calls(options):
    """Calls arrive at the same times, whatever the function and the options are."""
    brief = {"run_time": {1: 1e-9}, "rate": 3.0, "calls": 50}
    shared = simulate(**brief).duration_s
    assert pytest.approx(shared, abs=6.0) == simulate(**{**brief, **options}).duration_s


# Invalid arguments.


def test_exactly_one_of_rate_and_trace_is_required():
    """Both or neither is an error."""
    sentence = "simulate() needs either rate (how often calls arrive) or trace (when they arrived), and not both"
    assert sentence == error_message(TypeError, rate=None)
    assert sentence == error_message(TypeError, trace=[1.0])


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (ValueError, {"max_size": 0}, "max_size must be at least 1, got 0"),
        (ValueError, {"timeout": -1}, "timeout must be a finite number of seconds, at least 0, got -1"),
        (TypeError, {"concurrency": 1.0}, "concurrency must be an int, got 1.0 of type float"),
        (ValueError, {"rate": 0}, "rate must be a finite number above 0, got 0"),
        (ValueError, {"burst": 0}, "burst must be at least 1, got 0"),
        (ValueError, {"calls": 0}, "calls must be at least 1, got 0"),
        (ValueError, {"noise": -1}, "noise must be a finite number above 0, got -1"),
        (ValueError, {"noise": 11}, "noise must be at most 10, got 11"),
        (ValueError, {"rate": None, "trace": []}, "trace must contain at least one time of arrival"),
        (
            ValueError,
            {"rate": None, "trace": [1.0, 3.0, 2.0]},
            "trace must be finite times in order, got 2.0 after 3.0",
        ),
        (ValueError, {"rate": None, "trace": [math.nan]}, "trace must be finite times in order, got nan after nan"),
        (
            TypeError,
            {"run_time": 0.004},
            "run_time must map batch sizes to seconds, for example {1: 0.004, 32: 0.007}, got 0.004",
        ),
        (
            TypeError,
            {"run_time": {}},
            "run_time must map batch sizes to seconds, for example {1: 0.004, 32: 0.007}, got {}",
        ),
        (TypeError, {"run_time": {1.5: 1.0}}, "a batch size in run_time must be an int, got 1.5 of type float"),
        (ValueError, {"run_time": {-1: 1.0}}, "a batch size in run_time must be at least 1, got -1"),
        (TypeError, {"run_time": {1: None}}, "run_time[1] must be a number, got None"),
        (ValueError, {"run_time": {8: -1.0}}, "run_time[8] must be a finite number above 0, got -1.0"),
        (
            ValueError,
            {"run_time": {1: 2.0, 2: 1.0}},
            "run_time must be above 0 for every batch size, got 0 s for size 3",
        ),
    ],
    ids=repr,
)
def test_arguments_are_checked(kind, options, message):
    """The error names the invalid argument, its value, and the rule."""
    assert message == error_message(kind, **options)


def test_the_largest_noise_does_not_overflow():
    """With the largest noise that is allowed, no figure overflows or becomes zero."""
    outcome = simulate(run_time=COST, rate=1.0, noise=MAX_NOISE, calls=1000)
    assert 0 < outcome.throughput < math.inf


# Lengths.


def test_the_run_time_depends_on_the_padded_size():
    """With lengths, a run takes as long as its number of items times the longest length says."""
    outcome = traced(0.0, 0.5, 1.0, run_time={0: 1.0, 10: 2.0}, lengths=[5])
    assert (1.5 + 2.0, {1: 1, 2: 1}) == (outcome.duration_s, outcome.size_histogram)


def test_similar_lengths_share_batches():
    """Items of two far lengths never share a batch, but do in order of arrival."""
    options = {"rate": 100.0, "calls": 400, "run_time": {0: 0.01, 1000: 1.01}, "lengths": [10, 1000], "max_size": 8}
    by_length, in_order = simulate(**options), simulate(**options, by_length=False)
    assert by_length.throughput > 1.5 * in_order.throughput


def test_padding_can_be_limited():
    """No batch has more than ``max_padded`` of items times longest length."""
    outcome = traced(*[0.0] * 8, lengths=[10], max_padded=30, max_size=8)
    assert {2: 1, 3: 2} == outcome.size_histogram


@pytest.mark.parametrize(
    ("kind", "lengths", "message"),
    [
        (ValueError, [3, -1], "lengths must be at least 0 and at most max_padded, got -1"),
        (ValueError, [3, 11], "lengths must be at least 0 and at most max_padded, got 11"),
        (TypeError, ["3"], "a length must be a number, got '3' of type str"),
        (ValueError, [], "lengths must contain at least one length"),
    ],
)
def test_lengths_are_checked(kind, lengths, message):
    """The error names the length and the rule."""
    assert message == error_message(kind, lengths=lengths, max_padded=10)


@given(
    seed=st.integers(0, 2**32),
    calls=st.integers(1, 60),
    load=st.sampled_from([0.01, 0.05, 0.3]),
    max_size=st.integers(1, 8),
    timeout=st.sampled_from([None, 0.0, 2.0]),
    concurrency=st.integers(1, 3),
)
@settings(max_examples=50)
def test_an_engine_agrees_with_the_simulation_of_lengths(seed, calls, load, max_size, timeout, concurrency):
    """With lengths, the engine makes batches of the same sizes at the same times, and learns the same."""
    rng = Random(seed)
    arrivals = poisson_arrivals(rng, load, calls)
    lengths = [rng.uniform(1, 100) for _ in arrivals]
    options = {"max_size": max_size, "timeout": timeout, "concurrency": concurrency}
    limits = replace(checked_limits(**options), run_cost=RunCost())
    entries = [Entry(length, None, length, None) for length in lengths]

    def run_time(items):
        # With a round share of padding, a border between two classes of lengths saves exactly as much as one more run.
        return 1 + 0.0973 * len(items) * max(items)

    batches = departures(GroupedQueue(limits), arrivals, lambda run: run_time(run.items), entries)
    expected = [(batch.items, batch.reason, batch.departed) for batch, _ in batches]
    found = []

    @microbatch(length=lambda item: item, **options)
    async def wait(items):
        found.append((list(items), current_batch().reason, loop.time()))
        await asyncio.sleep(run_time(items))
        return items

    async def main():
        calls = []
        for time, length in zip(arrivals, lengths, strict=True):
            loop.call_at(time, lambda length=length: calls.append(wait.submit(length)))
        await asyncio.sleep(arrivals[-1] + 1)
        await asyncio.gather(*calls)

    loop = VirtualLoop()
    loop.run_until_complete(main())
    loop.close()
    assert [(items, reason, pytest.approx(time, abs=1e-6)) for items, reason, time in expected] == found


# Agreement with an engine.


def simulated(arrivals, run_times, **options):
    """Return the calls of each batch, its reason, and its times of departure and end."""
    run_times, numbers = iter(run_times), count()
    batches = departures(PlainQueue(checked_limits(**options)), arrivals, lambda batch: batch.size * next(run_times))
    # Calls leave in order of arrival.
    return [
        ([next(numbers) for _ in batch.arrived], batch.reason, batch.departed, end)
        for batch, end in sorted(batches, key=lambda batch_and_end: batch_and_end[0].departed)
    ]


def on_a_loop(arrivals, run_times, **options):
    """Return the same for real calls on an event loop in virtual time."""
    run_times = iter(run_times)
    batches = []

    @microbatch(**options)
    async def wait(numbers):
        batches.append(batch := [list(numbers), current_batch().reason, loop.time()])
        await asyncio.sleep(len(numbers) * next(run_times))
        batch.append(loop.time())
        return numbers

    async def main():
        calls = []
        numbers = count()
        # One timer for each time, because a loop may run timers of the same time in any order.
        for time, burst in Counter(arrivals).items():
            loop.call_at(time, lambda n=burst: calls.extend(wait.submit(next(numbers)) for _ in range(n)))
        loop.call_at(arrivals[-1], all_called.set_result, None)
        await all_called
        await asyncio.gather(*calls)

    loop = VirtualLoop()
    all_called = loop.create_future()
    loop.run_until_complete(main())
    loop.close()
    return [tuple(batch) for batch in batches]


@given(
    seed=st.integers(0, 2**32),
    calls=st.integers(1, 60),
    burst=st.integers(1, 5),
    load=st.sampled_from([0.1, 0.5, 1.0, 3.0]),
    noisy=st.booleans(),
    max_size=st.integers(1, 8),
    timeout=st.sampled_from([None, None, 0.0, 0.3, 2.0]),
    concurrency=st.integers(1, 4),
)
@settings(max_examples=200)
def test_an_engine_agrees_with_the_simulation(seed, calls, burst, load, noisy, **options):
    """The engine on an event loop makes the same batches of the same calls at the same times."""
    rng = Random(seed)
    arrivals = poisson_arrivals(rng, load, calls, burst)
    # All run times differ: of two events whose times differ by rounding only, either may come first and be the reason.
    run_times = [rng.expovariate(1.0) if noisy else rng.uniform(0.9, 0.91) for _ in arrivals]
    expected = simulated(arrivals, run_times, **options)
    found = on_a_loop(arrivals, run_times, **options)
    assert [batch[:2] for batch in expected] == [batch[:2] for batch in found]
    assert [pytest.approx(batch[2:], abs=1e-6) for batch in expected] == [batch[2:] for batch in found]
