"""The core in made-up time: what comes out, what goes in, and that an engine does the very same."""

from __future__ import annotations

import asyncio
import json
import math
import statistics
from collections import Counter
from dataclasses import FrozenInstanceError
from itertools import count
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import batchify
from batchify import Percentiles, current_batch, microbatch, simulate
from batchify._core.queue import PlainQueue
from batchify._planning.simulation import MOST_NOISE, departures, drawn, limits_of
from batchify.testing import VirtualLoop
from tests.kit.errors import message_of

# One second for one item, and half a second for each further one: exact numbers.
COST = {1: 1.0, 3: 2.0}


def traced(*moments, **options):
    """Return what comes of calls at these moments, with a function that runs for exactly a second, unless told."""
    return simulate(**{"trace": moments, "run_time": {1: 1.0}, **options})


def told(kind, **options):
    """Return the message of the exception, of exactly this kind, that these arguments raise."""
    return message_of(kind, simulate, **{"run_time": COST, "rate": 10.0, "calls": 10, **options})


# What comes out.


def test_a_lone_call_takes_one_run():
    """A call that finds nothing running has its answer when a batch of one has run."""
    assert Percentiles(1000.0, 1000.0, 1000.0, 1000.0) == traced(5.0).latency_ms


def test_who_finds_a_batch_running_waits_for_its_end():
    """Calls that come while a batch runs leave together when it ends."""
    done = traced(0.0, 0.25, 0.5)
    assert (Percentiles(1500.0, 1750.0, 1750.0, 1750.0), {1: 1, 2: 1}) == (done.latency_ms, done.size_histogram)


def test_waiting_is_latency_without_the_run():
    """The wait of a call ends when its batch departs."""
    assert Percentiles(500.0, 750.0, 750.0, 750.0) == traced(0.0, 0.25, 0.5).wait_ms


def test_averages_are_over_calls():
    """A batch counts as often as it has calls."""
    done = traced(0.0, 0.25, 0.5)
    assert (pytest.approx(4250 / 3), pytest.approx(1250 / 3)) == (done.avg_latency_ms, done.avg_wait_ms)


def test_time_passes_from_the_first_arrival_to_the_last_answer():
    """Neither what goes before the first call counts, nor anything after the last answer."""
    done = traced(10.0, 10.5)
    assert (2.0, 1.0) == (done.duration_s, done.throughput)


@pytest.mark.parametrize(("slots", "expected"), [(1, 1.0), (2, 2 / 3), (4, 1 / 3)])
def test_utilization_is_the_share_of_taken_slots(slots, expected):
    """Slots that stand empty count too."""
    assert expected == pytest.approx(traced(0.0, 0.5, timeout=0, concurrency=slots).utilization)


def test_a_batch_counts_its_items():
    """Batches are counted by size, and their average size told."""
    done = traced(0.0, 0.1, 0.2, 0.3, 0.4, max_size=2)
    assert (5, 3, 5 / 3, {1: 1, 2: 2}) == (done.calls, done.batches, done.avg_batch_size, done.size_histogram)


def test_reasons_are_those_of_the_statistics():
    """Why batches left is told in the words of ``BatchStats``, those included that did not come up."""
    done = traced(0.0, 0.1, 5.0, 5.0, 9.0, max_size=2)
    assert {"full": 1, "idle": 2, "slot": 1} == {reason: count for reason, count in done.reasons.items() if count}
    assert set(batchify.BatchStats("").reasons) == set(done.reasons)


def test_calls_of_one_moment_travel_together():
    """As on an event loop, nothing leaves before all that falls on the same moment has arrived."""
    assert {3: 1} == traced(1.0, 1.0, 1.0).size_histogram


def test_more_calls_than_fit_leave_at_once_too():
    """A burst fills one batch after the other, as far as there are slots, and the rest follows."""
    assert {2: 2, 1: 1} == traced(*[1.0] * 5, max_size=2, concurrency=2).size_histogram


def test_a_call_at_the_very_end_of_a_batch_leaves_with_the_next():
    """What arrives in the moment at which a slot falls free is in time for it."""
    assert {1: 1, 2: 1} == traced(0.0, 0.5, 1.0).size_histogram


def test_a_window_ends_by_itself():
    """A batch that does not fill leaves at the end of its window, without another arrival."""
    assert Percentiles(1250.0, 1500.0, 1500.0, 1500.0) == traced(0.0, 0.25, timeout=0.5).latency_ms


def test_batches_that_end_together_free_their_slots_together():
    """What waits finds all slots free that fall free in one moment."""
    assert (
        Percentiles(1000.0, 1500.0, 1500.0, 1500.0) == traced(0.0, 0.0, 0.5, 0.5, max_size=1, concurrency=2).latency_ms
    )


def test_the_outcome_is_frozen():
    """Nobody changes what was found."""
    with pytest.raises(FrozenInstanceError):
        traced(0.0).calls = 2


def test_the_outcome_is_ready_for_json():
    """All of it survives JSON."""
    plain = traced(0.0, 0.25, 0.5).to_dict()
    assert plain == json.loads(json.dumps(plain))
    assert (3, {"1": 1, "2": 1}, 1500.0) == (plain["calls"], plain["size_histogram"], plain["latency_ms"]["p50"])


def test_the_outcome_can_be_read():
    """Printed, it says what people ask for."""
    assert [
        "3 calls in 2.0 s, 1.5 a second",
        "2 batches of 1.5 items, 100% busy (idle 1, slot 1)",
        "latency  average 1,416.67  p50 1,500.00  p90 1,750.00  p99 1,750.00  max 1,750.00 ms",
        "waiting  average 416.67  p50 500.00  p90 750.00  p99 750.00  max 750.00 ms",
    ] == str(traced(0.0, 0.25, 0.5)).splitlines()


# What goes in.


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
def test_run_times_lie_on_lines_between_the_measured_ones(run_time, size, expected):
    """A straight line joins two sizes, and goes on beyond the first and the last two; one alone is constant."""
    assert expected == traced(*[0.0] * size, run_time=run_time).duration_s


def test_no_run_time_is_asked_for_that_cannot_come_up():
    """A size that no batch can have may be as large as it likes."""
    assert 1 == traced(0.0, max_size=10**12).batches


def test_calls_come_at_the_rate():
    """Over many calls the rate is what was asked for, and distances vary as those of a Poisson process."""
    done = simulate(run_time={1: 1e-9}, rate=50.0, calls=5000, seed=4)
    assert (5000, pytest.approx(100.0, rel=0.05)) == (done.calls, done.duration_s)


def test_bursts_come_at_the_rate():
    """Bursts are full, but for the last, and as much rarer as they are larger."""
    done = simulate(run_time={1: 1e-9}, rate=200.0, burst=8, calls=20_004, seed=4, timeout=0)
    assert ({4: 1, 8: 2500}, pytest.approx(100.0, rel=0.06)) == (done.size_histogram, done.duration_s)


@pytest.mark.parametrize("noise", [0.1, 1.0, 3.0])
def test_noise_keeps_the_mean(noise):
    """Run times that vary have the mean of those that do not."""
    calls = 5000
    done = simulate(run_time={1: 2.0}, trace=range(0, 10**6 * calls, 10**6), noise=noise, seed=1)
    assert pytest.approx(2000.0, rel=4 * noise / math.sqrt(calls)) == done.avg_latency_ms


def test_noise_is_log_normal():
    """Half of the runs are shorter than the mean by the factor of that distribution, and some are far longer."""
    done = simulate(run_time={1: 2.0}, trace=range(0, 10**10, 10**6), noise=1.0)
    deviation = math.sqrt(math.log(2))
    quantile = statistics.NormalDist(-math.log(2) / 2, deviation).inv_cdf
    found = done.latency_ms
    assert pytest.approx([2000 * math.exp(quantile(q)) for q in (0.5, 0.9, 0.99)], rel=0.1) == [
        found.p50,
        found.p90,
        found.p99,
    ]


@pytest.mark.parametrize("noise", [None, 0, 0.0])
def test_without_noise_run_times_are_exact(noise):
    """No noise is none at all."""
    assert 1000.0 == traced(0.0, noise=noise).avg_latency_ms


def test_equal_arguments_give_equal_results():
    """All chance comes from the seed."""
    first, second = (simulate(run_time=COST, rate=3.0, noise=0.5, seed=7, calls=500) for _ in range(2))
    assert first == second


def test_another_seed_is_another_chance():
    """Nobody has to take one run for the truth."""
    assert 2 == len({simulate(run_time=COST, rate=3.0, seed=seed, calls=500).avg_latency_ms for seed in (1, 2)})


@pytest.mark.parametrize("options", [{"timeout": 5.0}, {"noise": 2.0}, {"max_size": 2}, {"concurrency": 3}])
def test_options_are_compared_on_the_same_calls(options):
    """Whatever the function does and however its calls are batched, they arrive at the same moments."""
    brief = {"run_time": {1: 1e-9}, "rate": 3.0, "calls": 50}
    shared = simulate(**brief).duration_s
    assert pytest.approx(shared, abs=6.0) == simulate(**{**brief, **options}).duration_s


# What is said of arguments that make no sense.


def test_calls_come_from_somewhere():
    """Either a rate or a trace says when calls come."""
    sentence = "simulate() takes either rate or trace: how often calls come, or when they came"
    assert sentence == told(TypeError, rate=None)
    assert sentence == told(TypeError, trace=[1.0])


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
        (ValueError, {"rate": None, "trace": []}, "trace must have at least one moment of arrival"),
        (
            ValueError,
            {"rate": None, "trace": [1.0, 3.0, 2.0]},
            "trace must be finite moments in order, got 2.0 after 3.0",
        ),
        (ValueError, {"rate": None, "trace": [math.nan]}, "trace must be finite moments in order, got nan after nan"),
        (
            TypeError,
            {"run_time": 0.004},
            "run_time must map batch sizes to seconds, as {1: 0.004, 32: 0.007} does, got 0.004",
        ),
        (
            TypeError,
            {"run_time": {}},
            "run_time must map batch sizes to seconds, as {1: 0.004, 32: 0.007} does, got {}",
        ),
        (TypeError, {"run_time": {1.5: 1.0}}, "a size in run_time must be an int, got 1.5 of type float"),
        (ValueError, {"run_time": {-1: 1.0}}, "a size in run_time must be at least 1, got -1"),
        (TypeError, {"run_time": {1: None}}, "run_time of 1 must be a number, got None"),
        (ValueError, {"run_time": {8: -1.0}}, "run_time of 8 must be a finite number above 0, got -1.0"),
        (
            ValueError,
            {"run_time": {1: 2.0, 2: 1.0}},
            "run_time must be above 0 for any batch, got 0 s for one of 3",
        ),
    ],
    ids=repr,
)
def test_arguments_are_checked(kind, options, message):
    """An argument that makes no sense is named, with its value and what it should be."""
    assert message == told(kind, **options)


def test_the_most_noise_there_may_be_is_a_number():
    """With all the noise that is allowed, nothing overflows or becomes zero."""
    done = simulate(run_time=COST, rate=1.0, noise=MOST_NOISE, calls=1000)
    assert 0 < done.throughput < math.inf


# An engine does the very same.


def simulated(arrivals, run_times, **options):
    """Return the calls of each batch, its reason, and its times of departure and end."""
    run_times = iter(run_times)
    left = departures(PlainQueue(limits_of(**options)), arrivals, lambda size: size * next(run_times))
    return [(list(batch.tickets), batch.reason, batch.departed, end) for batch, end in left]


def on_a_loop(arrivals, run_times, **options):
    """Let an engine do on an event loop what is simulated, and return the same."""
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
        # A loop may turn the order of timers of one moment around.
        for moment, together in Counter(arrivals).items():
            loop.call_at(moment, lambda n=together: calls.extend(wait.submit(next(numbers)) for _ in range(n)))
        loop.call_at(arrivals[-1], over.set_result, None)
        await over
        await asyncio.gather(*calls)

    loop = VirtualLoop()
    over = loop.create_future()
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
@settings(deadline=None, max_examples=200)
def test_an_engine_does_what_is_simulated(seed, calls, burst, load, noisy, **options):
    """The engine on an event loop makes the very same batches at the same moments, of the same calls."""
    chance = Random(seed)
    arrivals = drawn(chance, load, burst, calls)
    # No two are the same: of what falls on one moment but for rounding, either may come first, and be the reason.
    run_times = [chance.expovariate(1.0) if noisy else chance.uniform(0.9, 0.91) for _ in arrivals]
    expected = simulated(arrivals, run_times, **options)
    found = on_a_loop(arrivals, run_times, **options)
    assert [batch[:2] for batch in expected] == [batch[:2] for batch in found]
    assert [pytest.approx(batch[2:], abs=1e-6) for batch in expected] == [batch[2:] for batch in found]
