"""The counters of a batcher, and the snapshots that are made of them."""

from __future__ import annotations

import gc
import json
from collections import Counter
from dataclasses import FrozenInstanceError, fields
from math import inf
from threading import Thread

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from batchify._batcher.config import Config
from batchify._core.batch import Batch
from batchify._core.queue import PlainQueue
from batchify._stats import counters
from batchify._stats.counters import Stats
from batchify._stats.snapshot import REASONS, BatchStats, Percentiles
from batchify._stats.sums import BOUNDS, RECENT, WIDTH
from tests.kit.steps import at_calls, interrupted

NOTHING = BatchStats("embed")
# Options that are not under test are off.
OFF = dict.fromkeys(field.name for field in fields(Config))


class Queue:
    """A queue in which so many calls wait, and from which so many run."""

    def __init__(self, waiting=0, running_calls=0):
        self.waiting = waiting
        self.running_calls = running_calls


def following(*queues, parent=None):
    """Return counters that follow queues, which are given as their numbers of waiting and running calls."""
    stats = Stats(parent)
    for numbers in queues:
        stats.follow(Queue(*numbers))
    return stats


def batch(*arrived, departed=0.0, reason="full", max_size=4):
    """Return a batch of items that arrived at these times."""
    size = len(arrived)
    return Batch(["item"] * size, ["caller"] * size, list(arrived), reason, max_size, departed)


def over(stats, some, run_time=0.0, *, failed=0, cancelled=0):
    """Count a batch that ended."""
    stats.ended(some, run_time, failed=failed, cancelled=cancelled)


def counted(*batches, run_times=None, **answers):
    """Return the snapshot of a batcher that ran these batches and has no other item."""
    stats = Stats()
    for some, run_time in zip(batches, run_times or [0.0] * len(batches), strict=True):
        over(stats, some, run_time, **answers)
    return stats.snapshot("embed")


def ran(*run_times):
    """Return the percentiles of batches with these run times, in seconds."""
    return counted(*[batch(0.0) for _ in run_times], run_times=run_times).run_ms


def calls(stats):
    """Return how many calls a snapshot accounts for."""
    answered = stats.answered_items + stats.failed_items + stats.cancelled_items + stats.expired_items
    return stats.pending + stats.running + answered


def test_before_any_call_everything_is_zero():
    """Before any call, all values are zero and no division fails."""
    assert NOTHING == Stats().snapshot("embed")


def test_every_field_of_an_empty_snapshot_is_zero():
    """Every number of an empty snapshot is 0, also inside mappings and percentiles."""
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
    """The averages over a single item are the numbers of that item."""
    seen = counted(batch(0.0, departed=3.0, max_size=1))
    assert (1.0, 3000.0, 1.0) == (seen.avg_batch_size, seen.avg_wait_time_ms, seen.fill_ratio)


def test_types_do_not_depend_on_the_numbers():
    """An average is a float and a count is an int, with and without batches."""
    empty, busy = Stats().snapshot("embed").to_dict(), counted(batch(0.0, departed=1.0)).to_dict()
    assert {key: type(value) for key, value in busy.items()} == {key: type(value) for key, value in empty.items()}


def test_waiting_calls_are_pending():
    """Calls that wait are pending, in all queues together."""
    assert 5 == following([3], [2]).snapshot("embed").pending


def test_departed_items_are_running():
    """Calls of departed batches run, from all queues together."""
    seen = following([1, 2], [0, 3]).snapshot("embed")
    assert (1, 5, 0) == (seen.pending, seen.running, seen.total_items)


def test_ended_items_are_answered():
    """The items of a batch that ended are answered."""
    seen = counted(batch(0.0, 0.0))
    assert (0, 0, 2) == (seen.pending, seen.running, seen.answered_items)


def test_callers_that_left_the_queue_are_cancelled():
    """Calls whose callers left the queue are cancelled, and belong to no batch."""
    stats = following([2])
    stats.left()
    stats.left(2)
    seen = stats.snapshot("embed")
    assert (2, 3, 0) == (seen.pending, seen.cancelled_items, seen.total_items)


def test_every_call_of_a_batch_has_one_outcome():
    """The calls of a batch that neither failed nor were cancelled are answered."""
    seen = counted(batch(*[0.0] * 6), failed=1, cancelled=2)
    assert (3, 1, 2) == (seen.answered_items, seen.failed_items, seen.cancelled_items)


def test_shared_items_are_counted():
    """A call whose item was sent for an equal one is answered, and counts in the totals as deduplicated."""
    shared = Batch(["item"] * 2, ["caller"] * 5, [0.0] * 5, "full", 4, 2.0)
    shared.shares = [0, 0, 0, 1, 1]
    seen = counted(shared)
    expected = (2, 3, 5, 2000.0, {2: 1})
    assert expected == (
        seen.total_items,
        seen.deduped_items,
        seen.answered_items,
        seen.avg_wait_time_ms,
        seen.size_histogram,
    )


def test_totals():
    """Items and batches that ended are added up; the average and the largest size follow from them."""
    seen = counted(batch(0.0), batch(0.0, 0.0, 0.0, 0.0), batch(0.0))
    expected = (6, 3, 2.0, 4)
    assert expected == (
        seen.total_items,
        seen.total_batches,
        seen.avg_batch_size,
        seen.max_batch_size_seen,
    )


def test_sizes_are_counted_in_order():
    """The histogram has the number of batches of each size, smallest size first."""
    seen = counted(batch(0.0, 0.0, 0.0), batch(0.0), batch(0.0, 0.0, 0.0))
    assert [(1, 1), (3, 2)] == list(seen.size_histogram.items())


def test_reasons_are_counted():
    """Batches are counted by reason, and every reason is listed, also with a count of 0."""
    seen = counted(batch(0.0, reason="idle"), batch(0.0, reason="slot"), batch(0.0, reason="idle"))
    assert [(reason, {"idle": 2, "slot": 1}.get(reason, 0)) for reason in REASONS] == list(seen.reasons.items())


def test_batches_of_one_size_may_have_different_reasons():
    """Batches of one size are counted together, whichever their reasons and maximum sizes are."""
    seen = counted(batch(0.0, reason="idle"), batch(0.0, reason="slot"), batch(0.0, reason="slot", max_size=2))
    assert ({1: 3}, 3, 0.3) == (seen.size_histogram, seen.total_batches, seen.fill_ratio)
    assert (1, 2) == (seen.reasons["idle"], seen.reasons["slot"])


def test_the_fill_ratio_weighs_batches_by_max_size():
    """The fill ratio is the items of all batches over the sum of the ``max_size`` of each."""
    assert 0.75 == counted(batch(0.0, 0.0, max_size=2), batch(0.0, 0.0, 0.0, 0.0, max_size=6)).fill_ratio


def test_waits_are_from_arrival_to_departure():
    """Each item waits from its own arrival to the departure of its batch."""
    seen = counted(batch(1.0, 2.0, 3.0, 4.0, departed=5.0))
    expected = (Percentiles(p50=2000.0, p90=4000.0, p99=4000.0, max=4000.0), 2500.0)
    assert expected == (seen.wait_ms, seen.avg_wait_time_ms)


def test_an_item_that_departs_at_once_does_not_wait():
    """Items that depart when they arrive add nothing to the average wait."""
    assert 0.0 == counted(batch(1.0, 1.0, departed=1.0)).avg_wait_time_ms


def test_the_average_wait_is_over_items():
    """In the average wait, a batch of three weighs three times as much as a batch of one."""
    seen = counted(batch(0.0, departed=4.0), batch(0.0, 0.0, 0.0, departed=8.0))
    assert 7000.0 == seen.avg_wait_time_ms


def test_run_times_are_per_batch():
    """Each batch has one run time, whatever its size."""
    seen = counted(batch(0.0, 0.0, 0.0), batch(0.0), run_times=[1.0, 3.0])
    assert Percentiles(p50=1000.0, p90=3000.0, p99=3000.0, max=3000.0) == seen.run_ms


def test_percentiles_are_of_the_nearest_rank():
    """A percentile of the run times 1 to 200 s is the lowest one with that share at or below it."""
    assert Percentiles(p50=100_000.0, p90=180_000.0, p99=198_000.0, max=200_000.0) == ran(*range(200, 0, -1))


def test_percentiles_of_one():
    """A single measurement is every percentile."""
    assert Percentiles(p50=7000.0, p90=7000.0, p99=7000.0, max=7000.0) == ran(7.0)


def test_percentiles_forget_and_the_maximum_does_not():
    """Percentiles cover the newest measurements, the maximum covers all."""
    assert Percentiles(p50=1000.0, p90=1000.0, p99=1000.0, max=60_000.0) == ran(*[60.0] * 200, *[1.0] * RECENT)


def test_percentiles_remember_enough():
    """A run that is just recent enough counts: with one less, the median would differ."""
    assert 1000.0 == ran(*[1.0] * (RECENT // 2), *[60.0] * (RECENT // 2)).p50


def test_old_waits_are_forgotten():
    """Waits are those of the newest items."""
    half = RECENT // 2
    seen = counted(
        batch(*[0.0] * half, departed=9.0),
        batch(*[0.0] * half, departed=1.0),
        batch(*[0.0] * half, departed=2.0),
    )
    assert Percentiles(p50=1000.0, p90=2000.0, p99=2000.0, max=9000.0) == seen.wait_ms


@pytest.mark.parametrize(("newer", "p99"), [(RECENT - 101, 9000.0), (RECENT - 100, 1000.0)])
def test_waits_remember_enough(newer, p99):
    """Waits of a part of an old batch count while there are not enough newer ones."""
    old, new = batch(*[0.0] * 200, departed=9.0), batch(*[0.0] * newer, departed=1.0)
    assert p99 == counted(old, new).wait_ms.p99


def test_a_batch_larger_than_the_limit():
    """The newest batch counts even if it alone has more items than percentiles use."""
    assert 1000.0 == counted(batch(*[0.0] * (RECENT + 1), departed=1.0)).wait_ms.p50


@example(arrived=671089.4817928579, later=0.0, size=26)
@given(arrived=st.floats(0, 1e6), later=st.floats(0, 1e3), size=st.integers(1, 40))
def test_no_wait_is_negative(arrived, later, size):
    """The average wait is at least 0, however the times are rounded."""
    assert 0.0 <= counted(batch(*[arrived] * size, departed=arrived + later)).avg_wait_time_ms


def buckets(kind, stats):
    """Return the number of measurements in each bucket of times that has any, by its upper bound."""
    numbers = zip((*BOUNDS, inf), (stats.all_counts()[kind, bucket] for bucket in range(len(BOUNDS) + 1)), strict=True)
    return {bound: count for bound, count in numbers if count}


def test_run_times_are_counted_by_bucket():
    """A run time counts in the first bucket whose upper bound it does not exceed."""
    stats = Stats()
    for run_time in (0.0, 0.0001, 0.0002, 0.00025, 100.0, 100.1):
        over(stats, batch(0.0), run_time)
    assert {0.0001: 2, 0.00025: 2, 100.0: 1, inf: 1} == buckets("run", stats)


def test_wait_times_are_counted_by_bucket():
    """The waits of one batch count in several buckets, up to the upper bound of each, and in those of the parent."""
    stats = Stats(parent := Stats())
    over(stats, batch(0.0, 63.0, 63.5, 64.0, 64.0, departed=64.0))
    over(stats, batch(0.0, departed=1000.0))
    assert {100.0: 1, 1.0: 1, 0.5: 1, 0.0001: 2, inf: 1} == buckets("wait", stats) == buckets("wait", parent)


@pytest.mark.parametrize("weights", [None, [1.0] * 3])
def test_wait_times_in_any_order(weights):
    """A weighed batch may have its items in another order than that of their arrival."""
    arrived = [0.0, 1.0, 3.0] if weights is None else [3.0, 0.0, 1.0]
    stats = Stats()
    some = Batch([1, 2, 3], ["caller"] * 3, arrived, "full", 4, 4.0)
    some.weights = weights
    over(stats, some)
    assert {1.0: 1, 5.0: 2} == buckets("wait", stats)


# Multiples of a sixteenth of a millisecond, at which no time is rounded.
TICKS = st.integers(0, 2**20).map(lambda ticks: ticks / 2**14)


@given(departed=TICKS, waits=st.lists(TICKS, min_size=1, max_size=50))
def test_each_wait_is_in_its_bucket(departed, waits):
    """The buckets of a batch are those of its waits, each looked up by itself."""
    stats = Stats()
    over(stats, batch(*[departed - wait for wait in sorted(waits, reverse=True)], departed=departed))
    expected = Counter(next(bound for bound in (*BOUNDS, inf) if wait <= bound) for wait in waits)
    assert expected == buckets("wait", stats)


def test_a_reader_at_any_step(monkeypatch):
    """A signal handler may read while batches are counted and added up, and each batch still counts once."""
    monkeypatch.setattr(counters, "MANY", 2 * (WIDTH + 1))
    expected = {"total_batches": 3, "total_items": 4, "failed_items": 1, 1: 2, 2: 1, ("run", 0): 3, ("wait", 0): 4}

    def count(stats):
        for some, failed in ((batch(0.0), 0), (batch(0.0, 0.0), 1), (batch(0.0), 0)):
            over(stats, some, failed=failed)

    def read(stats):
        return [stats.all_counts(), stats._parent.all_counts()]

    steps = 0
    for stats in interrupted(lambda: Stats(Stats()), count, read, at_calls):
        assert [expected] * 2 == [{key: counts[key] for key in expected} for counts in read(stats)]
        steps += 1
    assert steps > 100


def test_an_interrupt_while_batches_are_added_up(monkeypatch):
    """If a signal handler raises while batches are added up, the batch that just ended is not counted yet."""
    monkeypatch.setattr(counters, "MANY", WIDTH + 1)
    stats = Stats()
    over(stats, batch(0.0))
    with monkeypatch.context() as patched:
        patched.setattr(counters.Sums, "plus", raising)
        with pytest.raises(KeyboardInterrupt):
            over(stats, batch(0.0))
    before = stats.all_counts()["total_batches"]
    over(stats, batch(0.0))
    assert (1, 2) == (before, stats.all_counts()["total_batches"])


def raising(*_):
    raise KeyboardInterrupt


def test_a_call_that_arrives_as_its_batch_departs():
    """A call may arrive after the time of its departure was read; the average wait is not negative."""
    assert 0.0 == counted(batch(0.002, departed=0.0)).avg_wait_time_ms


def test_noted_batches_are_few(monkeypatch):
    """An instance and its class each keep the notes of a few batches, however often the other is read."""
    monkeypatch.setattr(counters, "MANY", 5 * (WIDTH + 1))
    stats = Stats(parent := Stats())
    notes = []
    for read in (stats, parent):
        for _ in range(20):
            over(stats, batch(0.0))
            read.all_counts()
            notes += [len(stats._notes), len(parent._notes)]
    assert max(notes) <= 5 * WIDTH


def test_reset_forgets_the_past():
    """After a reset, everything is as before the first call."""
    stats = following([0])
    over(stats, batch(0.0, 0.0, departed=1.0), 1.0, failed=1)
    stats.left()
    stats.reset()
    assert NOTHING == stats.snapshot("embed")


def test_reset_does_not_forget_the_present():
    """Waiting and running calls survive a reset, and count as answered when they are."""
    queue = Queue(3, 2)
    stats = Stats()
    stats.follow(queue)
    stats.reset()
    before = stats.snapshot("embed")
    queue.running_calls = 0
    over(stats, batch(0.0, 0.0), 1.0)
    after = stats.snapshot("embed")
    expected = ((3, 2, 0), (3, 0, 2))
    assert expected == tuple((seen.pending, seen.running, seen.answered_items) for seen in (before, after))


def test_reset_restarts_percentiles():
    """After a reset, percentiles and maximum cover only newer measurements."""
    stats = Stats()
    over(stats, batch(0.0, departed=9.0), 9.0)
    stats.reset()
    over(stats, batch(0.0, departed=1.0), 1.0)
    seen = stats.snapshot("embed")
    assert [Percentiles(1000.0, 1000.0, 1000.0, 1000.0)] * 2 == [seen.wait_ms, seen.run_ms]


def test_no_count_falls_at_a_reset():
    """The counts that never fall go on through a reset."""
    stats = Stats()
    for _ in range(3):
        over(stats, batch(0.0, 0.0, departed=0.5), 0.5, failed=1)
        stats.left()
        stats.reset()
    calls = {"answered_items": 3, "failed_items": 3, "cancelled_items": 3}
    batches = {"total_items": 6, "total_batches": 3, "capacity": 12, "wait_time": 3.0, "run_time": 1.5}
    kinds = {"full": 3, 2: 3, ("wait", 11): 6, ("run", 11): 3}
    assert {**calls, **batches, **kinds} == stats.all_counts()


def busy(*, sizes, waiting=0, left=0, parent=None):
    """Return the counters of a batcher with batches of these sizes, which took a second for each item."""
    stats = following([waiting], parent=parent)
    for size in sizes:
        over(stats, batch(*[0.0] * size, departed=float(size), reason="full" if size == 4 else "idle"), float(size))
    stats.left(left)
    return stats


# The sum of ``busy(sizes=[4, 1], waiting=2, left=1)`` and ``busy(sizes=[1], waiting=1)``.
BOTH = BatchStats(
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


def test_a_parent_counts_what_its_children_count():
    """The counts of a parent are the sums over its children, and its averages and percentiles cover all items."""
    parent = Stats()
    children = [busy(sizes=[4, 1], waiting=2, left=1, parent=parent), busy(sizes=[1], waiting=1, parent=parent)]
    alone = [busy(sizes=[4, 1], waiting=2, left=1), busy(sizes=[1], waiting=1)]
    assert BOTH == parent.snapshot("embed")
    assert [stats.snapshot("embed") for stats in alone] == [child.snapshot("embed") for child in children]


def test_a_parent_counts_for_itself():
    """The calls of a parent add to those of its children and stay apart from them."""
    parent = busy(sizes=[4, 1], waiting=2, left=1)
    child = busy(sizes=[1], waiting=1, parent=parent)
    assert (BOTH, 1) == (parent.snapshot("embed"), child.snapshot("embed").total_items)


def test_running_calls_of_children():
    """A parent counts the running calls of its children as running, and not as waiting."""
    parent = Stats()
    children = [following([1, 1], parent=parent), following([1, 2], parent=parent)]
    seen = parent.snapshot("embed")
    assert (2, 3, 2) == (seen.pending, seen.running, len(children))


def test_every_count_of_a_child_reaches_the_parent():
    """Calls that never run count in the parent too."""
    parent = Stats()
    child = following([1], parent=parent)
    child.left(2)
    child.expired(3)
    child.refused()
    child.isolated()
    seen = parent.snapshot("embed")
    assert seen == child.snapshot("embed")
    expected = (1, 2, 3, 1, 2)
    assert expected == (
        seen.pending,
        seen.cancelled_items,
        seen.expired_items,
        seen.rejected_items,
        seen.isolation_runs,
    )


def test_a_parent_keeps_the_numbers_of_a_child_that_is_gone():
    """The counts of a child stay in its parent, and nothing else of the child remains."""
    parent = Stats()
    for _ in range(3):
        busy(sizes=[4, 1], left=1, parent=parent)
    gc.collect()
    seen = parent.snapshot("embed")
    assert ((15, 0, 3), {}) == ((seen.answered_items, seen.pending, seen.cancelled_items), parent._children)


def test_a_child_that_goes_while_its_parent_is_read():
    """A child that is collected in the middle of a reading counts once."""
    parent = Stats()
    children = []

    class Last:
        running_calls = 0

        @property
        def waiting(self):
            children.clear()
            return 1

    children.append(busy(sizes=[1], waiting=1, parent=parent))
    children[0].follow(Last())
    children.append(busy(sizes=[1], parent=parent))
    assert (2, 2) == ((seen := parent.snapshot("embed")).pending, seen.answered_items)
    assert (0, 2) == ((seen := parent.snapshot("embed")).pending, seen.answered_items)


def test_a_reset_of_a_parent_resets_its_children():
    """The reset of a parent sets its children to zero; the reset of a child changes no other counters."""
    parent = Stats()
    one, two = (busy(sizes=[1], parent=parent) for _ in range(2))
    one.reset()
    assert [0, 1, 2] == [stats.snapshot("embed").total_items for stats in (one, two, parent)]
    parent.reset()
    assert [NOTHING] * 3 == [stats.snapshot("embed") for stats in (one, two, parent)]


def test_a_retired_queue_does_not_count():
    """The calls that wait in a retired queue or run from it count as cancelled, and later ones do not count."""
    queue, other = Queue(2, 4), Queue(3, 1)
    stats = Stats()
    stats.follow(queue)
    stats.follow(other)
    stats.retire(queue)
    queue.waiting = queue.running_calls = 100
    seen = stats.snapshot("embed")
    assert (3, 1, 6) == (seen.pending, seen.running, seen.cancelled_items)


def test_a_reading_holds_the_lock():
    """No other thread counts between the reading of the counters and that of the queues."""

    class Locked:
        @property
        def waiting(self):
            owned.append(stats.lock._is_owned())
            return 0

        running_calls = waiting

    owned = []
    stats = Stats(Stats())
    stats.follow(Locked())
    stats.snapshot("embed")
    assert [True, True] == owned


def test_a_child_shares_the_lock_of_its_parent():
    """A step of a child that holds its lock is one step for a reader of the parent too."""
    parent = Stats()
    assert parent.lock is Stats(parent).lock


@given(st.lists(st.sampled_from(["arrive", "leave", "depart", "end", "fail", "cancel"]), max_size=40))
def test_every_call_is_accounted_for(steps):
    """At any moment, each call made is waiting, running, answered, failed or cancelled, also in the parent."""
    queue = PlainQueue(Config(**{**OFF, "max_size": 2, "timeout": 0.0, "concurrency": 2}))
    parent = Stats()
    stats = Stats(parent)
    stats.follow(queue)
    caller = object()
    expected, accounted = [], []
    for step in steps:
        if step == "arrive":
            queue.places += ("item", caller, 0.0)
        elif step == "leave" and queue.withdraw(0, caller):
            stats.left()
        elif step == "depart":
            queue.take(0.0)
        elif step in {"end", "fail", "cancel"} and queue.running:
            queue.finish(ended := queue.running[0], 0.0)
            stats.ended(ended, 0.0, failed=step == "fail", cancelled=step == "cancel")
        expected += [(queue.arrivals, queue.waiting)] * 2
        accounted += [(calls(seen), seen.pending) for seen in (stats.snapshot("embed"), parent.snapshot("embed"))]
    assert expected == accounted


def test_a_snapshot_does_not_change():
    """Later batches do not change a snapshot."""
    stats = following([3])
    over(stats, batch(0.0))
    seen = stats.snapshot("embed")
    before = seen.to_dict()
    over(stats, batch(0.0, 0.0))
    assert before == seen.to_dict()


def test_counting_in_the_middle_of_a_reading():
    """A finalizer that counts while its own thread takes a snapshot does not deadlock."""

    class Leaving:
        running_calls = 0

        @property
        def waiting(self):
            stats.left()
            return 3

    stats = Stats()
    stats.follow(Leaving())
    seen = []
    looker = Thread(target=lambda: seen.append(stats.snapshot("embed")), daemon=True)
    looker.start()
    looker.join(timeout=1)
    assert [3] == [calls(snapshot) for snapshot in seen]


def test_a_snapshot_shares_nothing_with_the_counters():
    """Changing the dicts of a snapshot changes neither the counters nor the next snapshot."""
    stats = following([1])
    over(stats, batch(0.0))
    seen = stats.snapshot("embed")
    seen.size_histogram.clear()
    seen.reasons.clear()
    after = stats.snapshot("embed")
    assert ({1: 1}, 1) == (after.size_histogram, after.reasons["full"])


def test_a_snapshot_is_frozen():
    """The fields of a snapshot cannot be set."""
    with pytest.raises(FrozenInstanceError):
        NOTHING.pending = 1


def test_percentiles_are_frozen():
    """Percentiles cannot be set."""
    with pytest.raises(FrozenInstanceError):
        NOTHING.wait_ms.p50 = 1.0


def test_a_snapshot_is_ready_for_json():
    """``to_dict()`` survives JSON unchanged, with sizes as strings, because keys of JSON are strings."""
    plain = counted(batch(0.0, departed=0.5), run_times=[0.25]).to_dict()
    assert {**plain, "size_histogram": {"1": 1}} == json.loads(json.dumps(plain))


def test_a_snapshot_as_a_dict_has_everything():
    """``to_dict()`` has every field under its name, and percentiles as dicts."""
    seen = counted(batch(0.0, departed=0.5), run_times=[0.25])
    expected = {
        **vars(seen),
        "wait_ms": {"p50": 500.0, "p90": 500.0, "p99": 500.0, "max": 500.0},
        "run_ms": {"p50": 250.0, "p90": 250.0, "p99": 250.0, "max": 250.0},
        "size_histogram": {"1": 1},
    }
    assert expected == seen.to_dict()
