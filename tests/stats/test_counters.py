"""What is counted, and what a snapshot of it says."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, fields
from threading import Thread

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from batchify._batcher.config import Config
from batchify._core.batch import Batch
from batchify._core.queue import PlainQueue
from batchify._stats.counters import RECENT, Stats, fold, together
from batchify._stats.snapshot import REASONS, BatchStats, Percentiles

NOTHING = BatchStats("embed")
# Options that are not under test are off.
OFF = dict.fromkeys(field.name for field in fields(Config))


def batch(*arrived, departed=0.0, reason="full", max_size=4):
    """Return a batch of items that arrived at these times."""
    size = len(arrived)
    return Batch(["item"] * size, ["caller"] * size, list(arrived), range(size), reason, max_size, departed)


def over(stats, some, run_time=0.0, *, failed=0, cancelled=0):
    """Count a batch that left and is over."""
    stats.departed(some)
    stats.ended(some, run_time, failed=failed, cancelled=cancelled)


def counted(*batches, run_times=None, **answers):
    """Return the snapshot of an engine that ran these batches and has no other item."""
    stats = Stats(lambda: sum(len(some.waiters) for some in batches))
    for some, run_time in zip(batches, run_times or [0.0] * len(batches), strict=True):
        over(stats, some, run_time, **answers)
    return stats.snapshot("embed")


def ran(*run_times):
    """Return the percentiles of batches that took so many seconds."""
    return counted(*[batch(0.0) for _ in run_times], run_times=run_times).run_ms


def calls(stats):
    """Return how many calls a snapshot accounts for."""
    answered = stats.answered_items + stats.failed_items + stats.cancelled_items + stats.expired_items
    return stats.pending + stats.running + answered


def test_before_any_call_all_is_zero():
    """A snapshot of nothing is all zeros, and no division fails."""
    assert NOTHING == Stats().snapshot("embed")


def test_zeros_are_zeros():
    """Every number of a snapshot of nothing is 0."""
    reasons = ["full", "timeout", "idle", "slot", "weight", "deadline", "flush", "close"]
    percentiles = dict.fromkeys(["p50", "p90", "p99", "max"], 0)
    expected = {
        **dict.fromkeys(vars(NOTHING), 0),
        "name": "embed",
        "wait_ms": percentiles,
        "run_ms": percentiles,
        "size_histogram": {},
        "reasons": dict.fromkeys(reasons, 0),
    }
    assert expected == Stats().snapshot("embed").to_dict()


def test_one_batch_of_one():
    """The averages of a single item are its own numbers."""
    snapshot = counted(batch(0.0, departed=3.0, max_size=1))
    assert (1.0, 3000.0, 1.0) == (snapshot.avg_batch_size, snapshot.avg_wait_time_ms, snapshot.fill_ratio)


def test_zeros_are_of_the_right_type():
    """Without a batch an average is a float, and a count is an int, as it is with batches."""
    empty, busy = Stats().snapshot("embed").to_dict(), counted(batch(0.0, departed=1.0)).to_dict()
    assert {key: type(value) for key, value in busy.items()} == {key: type(value) for key, value in empty.items()}


def test_arrivals_are_pending():
    """What has arrived and not left is pending, as the core counts it."""
    assert 3 == Stats(lambda: 3).snapshot("embed").pending


def test_what_departed_is_running():
    """The items of a batch that left run, and no longer wait."""
    stats = Stats(lambda: 3)
    stats.departed(batch(0.0, 0.0))
    snapshot = stats.snapshot("embed")
    assert (1, 2, 0) == (snapshot.pending, snapshot.running, snapshot.total_items)


def test_what_is_over_no_longer_runs():
    """The items of a batch that is over are answered, and run no more."""
    snapshot = counted(batch(0.0, 0.0))
    assert (0, 0, 2) == (snapshot.pending, snapshot.running, snapshot.answered_items)


def test_callers_that_left_the_line_are_cancelled():
    """Callers that left while they waited are cancelled, and part of no batch."""
    stats = Stats(lambda: 5)
    stats.left()
    stats.left(2)
    snapshot = stats.snapshot("embed")
    assert (2, 3, 0) == (snapshot.pending, snapshot.cancelled_items, snapshot.total_items)


def test_every_item_of_a_batch_has_one_fate():
    """Of the items of a batch some fail, some had left, and the others are answered."""
    snapshot = counted(batch(*[0.0] * 6), failed=1, cancelled=2)
    assert (3, 1, 2) == (snapshot.answered_items, snapshot.failed_items, snapshot.cancelled_items)


def test_totals():
    """Items and batches that are over are added up; the average and the largest size follow from them."""
    snapshot = counted(batch(0.0), batch(0.0, 0.0, 0.0, 0.0), batch(0.0))
    expected = (6, 3, 2.0, 4)
    assert expected == (
        snapshot.total_items,
        snapshot.total_batches,
        snapshot.avg_batch_size,
        snapshot.max_batch_size_seen,
    )


def test_sizes_are_counted_in_order():
    """The histogram has the number of batches of each size, smallest size first."""
    snapshot = counted(batch(0.0, 0.0, 0.0), batch(0.0), batch(0.0, 0.0, 0.0))
    assert [(1, 1), (3, 2)] == list(snapshot.size_histogram.items())


def test_reasons_are_counted():
    """Batches are counted by why they left, and every reason is named, also those that there was none of."""
    snapshot = counted(batch(0.0, reason="idle"), batch(0.0, reason="slot"), batch(0.0, reason="idle"))
    assert [(reason, {"idle": 2, "slot": 1}.get(reason, 0)) for reason in REASONS] == list(snapshot.reasons.items())


def test_the_fill_ratio_is_a_share_of_the_room():
    """It is the items of all batches by the items that would have filled them, whatever ``max_size`` was for each."""
    assert 0.75 == counted(batch(0.0, 0.0, max_size=2), batch(0.0, 0.0, 0.0, 0.0, max_size=6)).fill_ratio


def test_waits_are_from_arrival_to_departure():
    """Each item has waited from its own arrival to the departure of its batch."""
    snapshot = counted(batch(1.0, 2.0, 3.0, 4.0, departed=5.0))
    expected = (Percentiles(p50=2000.0, p90=4000.0, p99=4000.0, max=4000.0), 2500.0)
    assert expected == (snapshot.wait_ms, snapshot.avg_wait_time_ms)


def test_who_leaves_at_once_has_not_waited():
    """Items that leave when they arrive add nothing to the average wait."""
    assert 0.0 == counted(batch(1.0, 1.0, departed=1.0)).avg_wait_time_ms


def test_the_average_wait_is_that_of_an_item():
    """A batch of three weighs three times as much as a batch of one."""
    snapshot = counted(batch(0.0, departed=4.0), batch(0.0, 0.0, 0.0, departed=8.0))
    assert 7000.0 == snapshot.avg_wait_time_ms


def test_run_times_are_those_of_batches():
    """Each batch has one run time, whatever its size."""
    snapshot = counted(batch(0.0, 0.0, 0.0), batch(0.0), run_times=[1.0, 3.0])
    assert Percentiles(p50=1000.0, p90=3000.0, p99=3000.0, max=3000.0) == snapshot.run_ms


def test_percentiles_are_of_the_nearest_rank():
    """Of the run times 1 to 200 s, a percentile is the one with that share of them at or below it."""
    assert Percentiles(p50=100_000.0, p90=180_000.0, p99=198_000.0, max=200_000.0) == ran(*range(200, 0, -1))


def test_percentiles_of_one():
    """With a single measurement it is every percentile."""
    assert Percentiles(p50=7000.0, p90=7000.0, p99=7000.0, max=7000.0) == ran(7.0)


def test_percentiles_forget_and_the_maximum_does_not():
    """Percentiles are those of the newest measurements; the maximum is that of all."""
    assert Percentiles(p50=1000.0, p90=1000.0, p99=1000.0, max=60_000.0) == ran(*[60.0] * 200, *[1.0] * RECENT)


def test_percentiles_remember_enough():
    """No run that is just recent enough is forgotten: one less, and the median would be another."""
    assert 1000.0 == ran(*[1.0] * (RECENT // 2), *[60.0] * (RECENT // 2)).p50


def test_waits_of_whole_batches_are_forgotten():
    """Waits are kept for as many of the newest batches as it takes to have enough items."""
    half = RECENT // 2
    snapshot = counted(
        batch(*[0.0] * half, departed=9.0),
        batch(*[0.0] * half, departed=1.0),
        batch(*[0.0] * half, departed=2.0),
    )
    assert Percentiles(p50=1000.0, p90=2000.0, p99=2000.0, max=9000.0) == snapshot.wait_ms


def test_waits_are_not_forgotten_too_early():
    """A batch is kept while without it fewer items than promised would be left."""
    old, new = batch(*[0.0] * 200, departed=9.0), batch(*[0.0] * (RECENT - 1), departed=1.0)
    assert 9000.0 == counted(old, new).wait_ms.p99


def test_a_batch_beyond_all_bounds_is_kept():
    """The newest batch is kept even if it alone has more items than are needed."""
    assert 1000.0 == counted(batch(*[0.0] * (RECENT + 1), departed=1.0)).wait_ms.p50


@example(arrived=671089.4817928579, later=0.0, size=26)
@given(arrived=st.floats(0, 1e6), later=st.floats(0, 1e3), size=st.integers(1, 40))
def test_no_wait_is_negative(arrived, later, size):
    """Items that leave when they arrive, or later, have waited for no less than nothing on average."""
    assert 0.0 <= counted(batch(*[arrived] * size, departed=arrived + later)).avg_wait_time_ms


def test_reset_forgets_the_past():
    """After a reset all is as before the first call."""
    stats = Stats(lambda: 3)
    over(stats, batch(0.0, 0.0, departed=1.0), 1.0, failed=1)
    stats.left()
    stats.reset()
    assert NOTHING == stats.snapshot("embed")


def test_reset_does_not_forget_the_present():
    """What waits and what runs stays counted, and counts as answered when it is."""
    stats = Stats(lambda: 5)
    running = batch(0.0, 0.0)
    stats.departed(running)
    stats.reset()
    before = stats.snapshot("embed")
    stats.ended(running, 1.0, failed=0, cancelled=0)
    after = stats.snapshot("embed")
    expected = ((3, 2, 0), (3, 0, 2))
    assert expected == tuple((seen.pending, seen.running, seen.answered_items) for seen in (before, after))


def test_reset_begins_percentiles_anew():
    """After a reset percentiles and maximum are those of what came after it."""
    stats = Stats()
    over(stats, batch(0.0, departed=9.0), 9.0)
    stats.reset()
    over(stats, batch(0.0, departed=1.0), 1.0)
    seen = stats.snapshot("embed")
    assert [Percentiles(1000.0, 1000.0, 1000.0, 1000.0)] * 2 == [seen.wait_ms, seen.run_ms]


def busy(*, sizes, waiting=0, left=0):
    """Return counters of an engine with batches of these sizes, which took a second for each item."""
    stats = Stats(lambda: sum(sizes) + waiting + left)
    for size in sizes:
        over(stats, batch(*[0.0] * size, departed=float(size), reason="full" if size == 4 else "idle"), float(size))
    stats.left(left)
    return stats


def test_engines_seen_together():
    """Counts of several engines are added up, and their averages and percentiles are those of all items."""
    several = [busy(sizes=[4, 1], waiting=2, left=1), busy(sizes=[1], waiting=1)]
    expected = BatchStats(
        name="embed",
        total_items=6,
        total_batches=3,
        avg_batch_size=2.0,
        avg_wait_time_ms=3000.0,
        avg_run_time_ms=2000.0,
        max_batch_size_seen=4,
        pending=3,
        answered_items=6,
        cancelled_items=1,
        wait_ms=Percentiles(p50=4000.0, p90=4000.0, p99=4000.0, max=4000.0),
        run_ms=Percentiles(p50=1000.0, p90=4000.0, p99=4000.0, max=4000.0),
        size_histogram={1: 2, 4: 1},
        reasons={**NOTHING.reasons, "full": 1, "idle": 2},
        fill_ratio=0.5,
    )
    assert expected == together("embed", several)


def test_one_engine_is_seen_as_it_is():
    """An engine that is alone is seen together as it sees itself."""
    alone = busy(sizes=[4, 1], waiting=2, left=1)
    assert alone.snapshot("embed") == together("embed", [alone])


def test_no_engine_at_all():
    """Before there is any engine, all is zero."""
    assert NOTHING == together("embed", [])


def test_running_items_are_seen_together():
    """What runs in several engines is added up, and not taken for waiting."""
    several = [Stats(lambda: 2), Stats(lambda: 3)]
    several[0].departed(batch(0.0))
    several[1].departed(batch(0.0, 0.0))
    seen = together("embed", several)
    assert (2, 3) == (seen.pending, seen.running)


def test_looking_changes_nothing():
    """Seeing engines together leaves what they counted as it was."""
    several = [busy(sizes=[4]), busy(sizes=[1])]
    before = [stats.snapshot("embed") for stats in several]
    together("embed", several)
    assert before == [stats.snapshot("embed") for stats in several]


def test_what_was_absorbed_is_kept():
    """Counters that took over those of an engine that is gone are seen together with those of the living."""
    past = Stats()
    past.absorb(busy(sizes=[4]))
    past.absorb(busy(sizes=[1]))
    assert together("embed", [busy(sizes=[4]), busy(sizes=[1]), busy(sizes=[2])]) == together(
        "embed", [past, busy(sizes=[2])]
    )


def test_what_was_absorbed_can_be_forgotten():
    """A reset forgets engines that are gone like all of the past."""
    past = Stats()
    past.absorb(busy(sizes=[4, 1]))
    past.reset()
    assert NOTHING == past.snapshot("embed")


def test_the_past_does_not_grow():
    """However many engines come and go, percentiles are those of the newest measurements."""
    past = Stats()
    for seconds in (60.0, 1.0):
        engine = Stats(lambda: RECENT)
        for _ in range(RECENT):
            over(engine, batch(0.0, departed=seconds), seconds)
        past.absorb(engine)
    seen = past.snapshot("embed")
    assert [Percentiles(1000.0, 1000.0, 1000.0, 60_000.0)] * 2 == [seen.wait_ms, seen.run_ms]


def test_neighbours_that_are_final_are_added_up():
    """Engines that are gone become one in the list, and those that live stay what they are."""
    parts = [busy(sizes=[size]) for size in (1, 2, 3, 4, 5, 6)]
    expected = together("embed", parts)
    for part in parts[1:3] + parts[4:]:
        part.final = True
    first, _, _, fourth, *_ = parts
    fold(parts, many=2)
    assert [first, fourth] == [part for part in parts if not part.final]
    assert (4, expected) == (len(parts), together("embed", parts))
    before = list(parts)
    fold(parts, many=2)
    assert before == parts


@given(st.lists(st.sampled_from(["arrive", "leave", "depart", "end", "fail"]), max_size=40))
def test_every_call_is_accounted_for(steps):
    """At any moment each call made is waiting, running, answered, failed or cancelled."""
    queue = PlainQueue(Config(**{**OFF, "max_size": 2, "timeout": 0.0, "concurrency": 2}))
    stats = Stats(lambda: queue.arrivals)
    expected, accounted = [], []
    for step in steps:
        if step == "arrive":
            queue.add("item", "caller", 0.0)
        elif step == "leave" and queue.arrivals and queue.withdraw(queue.arrivals - 1):
            stats.left()
        elif step == "depart" and (departed := queue.take(0.0)) is not None:
            stats.departed(departed)
        elif step in {"end", "fail"} and queue.running:
            queue.finish(ended := queue.running[0], 0.0)
            stats.ended(ended, 0.0, failed=step == "fail", cancelled=0)
        expected.append((queue.arrivals, queue.waiting))
        accounted.append((calls(seen := together("embed", [stats])), seen.pending))
    assert expected == accounted


def test_a_snapshot_does_not_move():
    """What happens after a snapshot is not seen in it."""
    stats = Stats()
    over(stats, batch(0.0))
    snapshot = stats.snapshot("embed")
    before = snapshot.to_dict()
    over(stats, batch(0.0, 0.0))
    assert before == snapshot.to_dict()


def test_counting_in_the_middle_of_a_look():
    """A finalizer that counts while its own thread takes a snapshot does not wait for it for ever."""
    stats = Stats(lambda: stats.left() or 3)
    seen = []
    looker = Thread(target=lambda: seen.append(stats.snapshot("embed")), daemon=True)
    looker.start()
    looker.join(timeout=1)
    assert [3] == [calls(snapshot) for snapshot in seen]


def test_what_a_reader_does_to_a_snapshot_stays_there():
    """Changing the dicts of a snapshot changes neither the counters nor the next snapshot."""
    stats = Stats()
    over(stats, batch(0.0))
    seen = stats.snapshot("embed")
    seen.size_histogram.clear()
    seen.reasons.clear()
    after = stats.snapshot("embed")
    assert ({1: 1}, 1) == (after.size_histogram, after.reasons["full"])


def test_a_snapshot_is_frozen():
    """A number of a snapshot can't be set."""
    with pytest.raises(FrozenInstanceError):
        NOTHING.pending = 1


def test_percentiles_are_frozen():
    """Nor can a percentile."""
    with pytest.raises(FrozenInstanceError):
        NOTHING.wait_ms.p50 = 1.0


def test_a_snapshot_is_ready_for_json():
    """A snapshot comes out of JSON as it went in, sizes as strings, as the keys there are."""
    plain = counted(batch(0.0, departed=0.5), run_times=[0.25]).to_dict()
    assert {**plain, "size_histogram": {"1": 1}} == json.loads(json.dumps(plain))


def test_a_snapshot_as_a_dict_has_everything():
    """Every attribute is there under its name, percentiles as dicts."""
    seen = counted(batch(0.0, departed=0.5), run_times=[0.25])
    expected = {
        **vars(seen),
        "wait_ms": {"p50": 500.0, "p90": 500.0, "p99": 500.0, "max": 500.0},
        "run_ms": {"p50": 250.0, "p90": 250.0, "p99": 250.0, "max": 250.0},
        "size_histogram": {"1": 1},
    }
    assert expected == seen.to_dict()
