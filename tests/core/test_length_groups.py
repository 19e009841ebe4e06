"""Which items share a batch that is padded to its longest one."""

from __future__ import annotations

import gc
import weakref
from math import inf
from random import Random
from types import SimpleNamespace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from batchify._core.entries import Entry
from batchify._core.grouped import GroupedQueue
from batchify._core.lengths import SAVED_SHARE, class_of
from tests.core.test_grouped_cost import steps
from tests.kit.queues import limits

LENGTHS = st.one_of(st.integers(0, 300), st.floats(0, 300))


def new(padding_per_run=None, **options):
    """Return a queue for lengths with one slot, in which one more run costs as much as this padding."""
    return GroupedQueue(limits(run_cost=SimpleNamespace(padding_per_run=padding_per_run), **options))


def arrive(queue, lengths, now=0.0, *, group="g", **options):
    """Queue an item for each length, which is the item too, and return the marks."""
    marks = []
    for length in lengths:
        marks.append(queue.add(Entry(length, group, length, None, **options), "caller", now))
        queue.admit_waiting()
    return marks


def take(queue, now=0.0):
    """Return the items of the next batch, which ends at once; ``None`` if none may leave."""
    batch = queue.take(now)
    if batch is not None:
        queue.finish(batch, now)
    return batch and batch.items


def leave(queue, now=0.0):
    """Return the items of all batches in order."""
    return [*iter(lambda: take(queue, now), None)]


# The choice.


@given(
    st.lists(LENGTHS, min_size=1, max_size=60),
    st.sampled_from([0.0, 1.0, 30.0, 1000.0, inf, None]),
    st.integers(1, 20),
    st.sampled_from([None, 300.0, 1000.0, 4000.0]),
)
# The last two lengths are as far from the first, after rounding.
@example([8.0, 2, 6, 15, 0, 4e-188], 30.0, 5, None)
def test_each_batch_has_the_head_and_its_neighbours_within_all_limits(lengths, padding_per_run, max_size, max_padded):
    """Each batch has the oldest item, in order of arrival; no split would save enough, and no neighbour is left out."""
    queue = new(padding_per_run, max_size=max_size, max_padded=max_padded)
    waiting = [*enumerate(lengths)]
    for number, length in waiting:
        queue.add(Entry((number, length), "g", float(length), None), "caller", 0.0)
    queue.admit_waiting()
    runs = 0
    while waiting:
        cost = padding_per_run
        if cost is None:
            cost = 2 * sum(length for _, length in waiting) / len(waiting)
        items = take(queue)
        runs += 1
        assert waiting[0] in items
        assert sorted(items) == items
        longest = max(length for _, length in items)
        assert len(items) <= max_size
        assert len(items) == 1 or max_padded is None or len(items) * longest <= max_padded
        classes = sorted(class_of(length) for _, length in items)
        for m, length in enumerate(classes, 1):
            assert m * (classes[-1] - length) <= SAVED_SHARE * cost * (1 + 1e-9)
        waiting = [item for item in waiting if item not in items]
        is_bound = len(items) == max_size or (max_padded and (len(items) + 1) * classes[-1] > max_padded)
        assert is_bound or not any(classes[0] < class_of(length) < classes[-1] for _, length in waiting)
    assert runs <= len(lengths)


def test_padding_up_to_a_size_counts():
    """A batch is as large as its limit of padding allows at its padded size, and a split pays for two padded sizes."""
    queue = new(inf, sizes=(2, 4, 8), max_size=8, max_padded=40)
    arrive(queue, [10] * 7)
    assert [[10] * 4, [10] * 3] == leave(queue)
    # Two runs save 2 * 5 without padding, but each needs 4 items instead of 2.
    for sizes, batches in (((2, 4), [[5, 5], [10, 10]]), ((4,), [[5, 5, 10, 10]])):
        queue = new(10, sizes=sizes, max_size=4)
        arrive(queue, [5, 5, 10, 10])
        assert batches == leave(queue)


@given(st.lists(st.just(7), min_size=1, max_size=50), st.integers(1, 9))
def test_equal_lengths_leave_as_without_lengths(lengths, max_size):
    """Items of one length share batches in order of arrival."""
    queue, plain = new(max_size=max_size), GroupedQueue(limits(max_size=max_size))
    arrive(queue, lengths)
    arrive(plain, lengths)
    assert leave(plain) == leave(queue)


def test_runs_that_cost_nothing_have_one_class():
    """Without a fixed cost, only lengths of one class share a batch."""
    queue = new(0.0, max_size=9)
    arrive(queue, [65, 100, 64, 65.5, 66])
    assert [[65, 65.5, 66], [100], [64]] == leave(queue)


def test_runs_that_cost_everything_have_the_nearest_items():
    """With an unlimited fixed cost, the nearest items fill the batch, the shorter ones first."""
    queue = new(inf, max_size=3)
    arrive(queue, [50, 10, 90, 60, 40, 45])
    assert [[50, 40, 45], [10, 90, 60]] == leave(queue)


def test_empty_items_share_a_batch():
    """Lengths may be 0, and a run without any cost is never split."""
    queue = new(0.0, max_size=9, max_padded=1.0)
    arrive(queue, [0, 0, 0.0])
    assert [[0, 0, 0.0]] == leave(queue)


def test_rounding_does_not_matter():
    """The sum of the waiting lengths may be below 0 by rounding, and the batch still leaves."""
    queue = new(max_size=9)
    marks = arrive(queue, [0.1, 0.7, 0.3, 0.0])
    for mark in marks[:3]:
        queue.withdraw(mark, "caller")
    assert queue._groups["g"].weight < 0
    assert [[0.0]] == leave(queue)


def test_two_clusters_do_not_mix():
    """Short and long items that fill their own batches never share one."""
    queue = new(max_size=4)
    arrive(queue, [10, 200, 11, 210, 200, 10, 205, 12])
    assert [[10, 11, 10, 12], [200, 210, 200, 205]] == leave(queue)


def test_a_side_that_does_not_fit_leaves_the_other_one_open():
    """A longer item that would exceed ``max_padded`` is left out, and shorter ones still join."""
    queue = new(inf, max_size=9, max_padded=100.0)
    arrive(queue, [20, 30, 20, 20, 10, 10])
    assert [[20, 20, 20, 10, 10], [30]] == leave(queue)


def test_an_item_alone_is_measured_by_its_own_length():
    """An item of exactly ``max_padded`` leaves, although its class is longer."""
    queue = new(inf, max_size=9, max_padded=100.0)
    arrive(queue, [100, 1])
    assert [[100], [1]] == leave(queue)


def test_the_first_runs_are_split_by_a_guess():
    """Until the cost of a run is known, it is that of padding of two mean lengths."""
    queue = new()
    arrive(queue, [1, 30])
    together = new()
    arrive(together, [25, 30])
    assert ([[1], [30]], [[25, 30]]) == (leave(queue), leave(together))


def test_a_split_counts_all_shorter_items():
    """What two runs save is the padding of all items below the border, not only of the nearest class."""
    queue = new(padding_per_run=100 / SAVED_SHARE, max_size=8)
    arrive(queue, [100, 10, 11])
    assert [100] == take(queue)


def test_a_batch_may_fill_the_padded_limit():
    """A batch whose size times its longest length is just ``max_padded`` stays together."""
    queue = new(padding_per_run=inf, max_size=4, max_padded=40.0)
    arrive(queue, [class_of(10)] * 4)
    assert 4 == len(take(queue))


def test_a_batch_knows_the_cost_that_it_teaches():
    """Each batch has the learnt cost of its queue."""
    cost = SimpleNamespace(padding_per_run=None)
    queue = GroupedQueue(limits(run_cost=cost))
    arrive(queue, [1])
    assert cost is queue.take(0.0).run_cost


# Groups, priorities, deadlines, departures.


def test_groups_do_not_mix():
    """Items of one length but of two groups do not share a batch."""
    queue = new(max_size=9)
    arrive(queue, [7], group="a")
    arrive(queue, [7], group="b")
    assert [[7], [7]] == leave(queue)


def test_a_higher_priority_is_the_head():
    """The head is the item of lowest rank, also in the middle of its class, and of equal lengths those leave first."""
    queue = new(inf, max_size=2)
    arrive(queue, [71, 10, 71.5])
    arrive(queue, [72], priority=1)
    assert [[71, 72], [10, 71.5]] == leave(queue)


def test_an_item_near_its_deadline_becomes_the_head():
    """An item whose deadline is near overtakes the first one, but the same first one only once."""
    queue = new(0.0, max_size=9)
    arrive(queue, [10])
    arrive(queue, [20, 30, 40], time_limit=1.0)
    assert [10] == take(queue, 0.5)
    arrive(queue, [50], 0.5)
    assert [20] == take(queue, 0.95)
    assert [30] == take(queue, 0.95)
    assert [[40], [50]] == leave(queue, 0.95)


def test_the_second_arrival_may_be_overtaken_too():
    """At the moment when an item near its deadline stops waiting, it overtakes the first one, whichever that is."""
    queue = new(0.0, max_size=9)
    gone, _ = arrive(queue, [10, 20])
    queue.withdraw(gone, "caller")
    arrive(queue, [30], time_limit=1.0)
    [*_, urgent] = queue.entries
    assert [30] == take(queue, urgent.latest_departure)


def test_deadlines_do_not_let_an_item_starve():
    """The first item leaves after one batch that an item near its deadline is the head of."""
    queue = new(0.0, max_size=9)
    arrive(queue, [10])
    arrive(queue, [20, 30], time_limit=1.0)
    assert [[20], [10], [30]] == leave(queue, 0.95)


def test_a_deadline_of_another_group_or_without_room_does_not_count():
    """Only an item of the departing group with room can become the head."""
    queue = new(0.0, max_size=9, max_pending=2)
    arrive(queue, [10])
    arrive(queue, [20], group="h", time_limit=2.0)
    arrive(queue, [30], time_limit=1.0)
    assert [10] == take(queue, 0.99)
    queue.expire(1.0)
    arrive(queue, [40], 1.0)
    assert [20] == take(queue, 1.99)
    arrive(queue, [50], 2.0, group="h", time_limit=1.0)
    assert [40] == take(queue, 2.95)


def test_a_batch_that_is_split_keeps_its_reason():
    """A batch is due as usual, and lengths only choose its items."""
    queue = new(0.0, max_size=3, timeout=5.0)
    arrive(queue, [10, 20, 30])
    batch = queue.take(0.0)
    assert ([10], "full", 3) == (batch.items, batch.reason, batch.max_size)


def test_a_full_batch_leaves_at_once_only_to_make_room():
    """Later items may be nearer, so a full batch waits for the next decision, unless there is no room."""
    queue = new(max_size=2, max_pending=3)
    arrive(queue, [10, 20])
    assert not queue.has_full
    arrive(queue, [30])
    assert queue.has_full


def test_duplicates_count_once():
    """Equal items leave together, and have the length of the first of them."""
    queue = new(inf, max_size=2)
    for item, length, key in [("a", 10, "a"), ("b", 100, "b"), ("c", 12, "c"), ("a", 90, "a")]:
        queue.add(Entry(item, "g", length, key), "caller", 0.0)
    queue.admit_waiting()
    batch = queue.take(0.0)
    assert (["a", "c"], [0, 0, 1], [10, 12]) == (batch.items, batch.shares, batch.weights)


# Leaving, cost, memory.


def test_items_can_be_withdrawn_down_to_empty_classes():
    """A caller that leaves removes its item, and a class without items disappears."""
    queue = new(inf, max_size=9)
    marks = arrive(queue, [10, 20, 30])
    queue.withdraw(marks[1], "caller")
    group = queue._groups["g"]
    assert [10.0, 30.0] == group._lengths
    queue.withdraw(marks[0], "caller")
    assert [[30]] == leave(queue)
    assert ([], {}) == (group._lengths, group._classes)


@pytest.mark.untraced
@pytest.mark.parametrize("priority", [None, 1.0])
def test_many_waiting_items_cost_no_more_than_few(priority):
    """Adding, taking and withdrawing take as many steps with 4,000 waiting items as with 500."""
    counts = []
    for number in (500, 4000):
        rng = Random(1)
        queue = new(60.0, max_size=8)
        arrive(queue, [rng.randint(1, 500) for _ in range(number)])
        rng.seed(2)

        def act(queue=queue, rng=rng):
            for now in range(20):
                new = [rng.randint(1, 500) for _ in range(8)]
                marks = arrive(queue, new, float(now), **({} if priority is None else {"priority": now % 3}))
                queue.withdraw(marks[-1], "caller")
                take(queue)

        counts.append(steps(act))
    assert counts[1] <= 1.5 * counts[0]


def test_items_that_left_are_not_kept_alive():
    """Neither the classes nor the group refer to an item after its batch has ended."""

    class Item:
        pass

    queue = new(inf, max_size=1)
    items = [Item(), Item()]
    for item in items:
        queue.add(Entry(item, "g", 7.0, None, time_limit=1.0), "caller", 0.0)
    queue.admit_waiting()
    known = weakref.ref(items[0])
    items.clear()
    queue.finish(queue.take(0.99), 0.99)
    gc.collect()
    assert known() is None


def test_a_change_of_the_learner_applies_to_waiting_items():
    """After a change, later batches are split by the new cost."""
    queue = new(0.0, max_size=9)
    arrive(queue, [10, 20, 40, 50])
    assert [10] == take(queue)
    queue.change(limits(run_cost=SimpleNamespace(padding_per_run=inf), max_size=9))
    assert [20, 40, 50] == take(queue)
