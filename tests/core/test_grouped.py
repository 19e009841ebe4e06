"""The grouped queue: its groups, weights, duplicates, capacity, priorities and deadlines, also against a model."""

from __future__ import annotations

import gc
import weakref
from math import inf

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from batchify._core.entries import Entry
from batchify._core.grouped import GroupedQueue
from batchify._core.queue import PlainQueue
from batchify._core.slots import SPAN
from tests.kit.queues import caller, limits, reason


def new(**options):
    """Return an empty core, by default adaptive and with one slot."""
    return GroupedQueue(limits(**options))


def put(queue, entry, waiter="caller", now=0.0):
    """Queue an entry, as a shell does, and return its mark, which is its ticket."""
    mark = queue.add(entry, waiter, now)
    queue.admit_waiting()
    return mark


def arrive(queue, items, now=0.0, *, group="g", weight=0.0, equal=None):
    """Queue each letter as an item of the caller named by its capital, and return the marks."""
    return [put(queue, Entry(item, group, weight, equal), caller(item), now) for item in items]


def busy(**options):
    """Return a queue whose one slot is taken."""
    queue = new(**options)
    arrive(queue, "x", group="busy")
    queue.flush("flush")
    queue.take(0.0)
    return queue


def leave(queue, now=0.0):
    """Return the items of all batches in order, each of which leaves after the previous one is finished."""
    left = []
    for batch in list(queue.running):
        queue.finish(batch, now)
    while (batch := queue.take(now)) is not None:
        left.append("".join(batch.items))
        queue.finish(batch, now)
    return left


# Groups.


def test_groups_do_not_mix():
    """Only items of one group share a batch, in order of arrival."""
    queue = busy(max_size=9)
    arrive(queue, "a", group=1)
    arrive(queue, "b", group=2)
    arrive(queue, "c", group=1)
    assert ["ac", "b"] == leave(queue)


def test_the_full_group_with_the_oldest_head_leaves_first():
    """Full groups leave in the order in which their heads arrived."""
    queue = busy(max_size=2)
    for item, group in zip("abcdefgh", "12211221", strict=True):
        arrive(queue, item, group=group)
    assert ["ad", "bc", "eh", "fg"] == leave(queue)


def test_a_full_group_does_not_wait_for_an_older_one():
    """A full group leaves while the head of an older group still waits in its window."""
    queue = new(max_size=2, timeout=5.0, concurrency=9)
    arrive(queue, "a", 0.0, group=1)
    arrive(queue, "bc", 1.0, group=2)
    assert queue.has_full
    assert 1.0 == queue.plan()
    batch = queue.take(1.0)
    assert (["b", "c"], "full") == (batch.items, batch.reason)
    assert (None, 5.0) == (queue.take(1.0), queue.plan())
    assert "timeout" == reason(queue, 5.0)


def test_each_group_has_its_own_window():
    """Each group leaves when its own head has waited long enough."""
    queue = new(max_size=9, timeout=5.0, concurrency=9)
    arrive(queue, "a", 0.0, group=1)
    arrive(queue, "b", 2.0, group=2)
    assert [None, "timeout", None, "timeout"] == [reason(queue, now) for now in (4.9, 5.0, 6.9, 7.0)]


def test_a_flush_reaches_all_groups():
    """Flushed items of all groups leave for the given reason, and later items wait."""
    queue = new(max_size=9, timeout=5.0, concurrency=9)
    arrive(queue, "a", group=1)
    arrive(queue, "b", group=2)
    queue.flush("flush")
    arrive(queue, "c", group=3)
    assert 0.0 == queue.plan()
    assert ["flush", "flush", None] == [reason(queue, 0.0) for _ in range(3)]


def test_no_group_starves():
    """Each of very many groups has its turn, in order of arrival, while new items keep coming for the first one."""
    queue = busy(max_size=2)
    for group in range(1000):
        put(queue, Entry(group, group, 0.0, None))
    left = []
    queue.finish(queue.running[0], 0.0)
    while len(left) < 1000:
        arrive(queue, "aa", group=0)
        batch = queue.take(0.0)
        left += [item for item in batch.items if item != "a"]
        queue.finish(batch, 0.0)
    assert list(range(1000)) == left


def test_empty_groups_are_removed():
    """A group is kept only while an entry of it waits."""

    class Group:
        pass

    queue = busy(max_size=2)
    groups = [Group(), Group()]
    (mark,) = arrive(queue, "a", group=groups[0])
    arrive(queue, "b", group=groups[1])
    queue.withdraw(mark, "A")
    assert ["b"] == leave(queue)
    gone = [weakref.ref(group) for group in groups]
    del groups
    gc.collect()
    assert [None, None] == [group() for group in gone]


def test_a_full_group_cannot_leave_without_a_slot():
    """With all slots taken, there is no time to wake at, and no full batch that may leave."""
    queue = new(max_size=2, timeout=5.0)
    arrive(queue, "abcd")
    assert (True, 0.0) == (queue.has_full, queue.plan())
    queue.take(0.0)
    assert (False, None, None) == (queue.has_full, queue.plan(), queue.take(0.0))


def test_a_batch_records_its_departure():
    """A batch has the time of its departure, and the maximum size of that time."""
    queue = new(max_size=3)
    arrive(queue, "ab")
    batch = queue.take(1.5)
    assert (1.5, 3) == (batch.departed, batch.max_size)


def test_a_new_size_decides_which_groups_are_full():
    """After a change of size, a group may become full or stop being full."""
    queue = busy(max_size=2, timeout=5.0)
    arrive(queue, "ab")
    queue.change(limits(max_size=3, timeout=5.0))
    assert [] == leave(queue)
    arrive(queue, "c")
    assert ["abc"] == leave(queue)


# Weights.


def test_weights_never_sum_above_the_maximum():
    """A batch takes items in order as long as their weights fit."""
    queue = busy(max_size=9, max_weight=10.0)
    for item, weight in zip("abcd", (6.0, 4.0, 5.0, 6.0), strict=True):
        arrive(queue, item, weight=weight)
    assert ["ab", "c", "d"] == leave(queue)


def test_a_light_item_does_not_overtake_a_heavy_one():
    """An item that would fit waits behind an item that does not."""
    queue = busy(max_size=9, max_weight=10.0)
    for item, weight in zip("abc", (6.0, 6.0, 1.0), strict=True):
        arrive(queue, item, weight=weight)
    assert ["a", "bc"] == leave(queue)


@pytest.mark.parametrize(("weights", "expected"), [((4.0, 5.9), None), ((4.0, 6.0), "weight"), ((4.0, 7.0), "weight")])
def test_a_group_with_maximum_weight_does_not_wait(weights, expected):
    """A group leaves before the end of its window when its items reach the maximum weight."""
    queue = new(max_size=9, timeout=5.0, max_weight=10.0)
    for item, weight in zip("ab", weights, strict=True):
        arrive(queue, item, weight=weight)
    batch = queue.take(0.0)
    assert expected == (batch and batch.reason)


def test_a_batch_has_the_sum_of_its_weights():
    """The weight of a batch is the sum of the weights of its items."""
    queue = new(max_size=2, max_weight=10.0)
    arrive(queue, "ab", weight=1.5)
    assert 3.0 == queue.take(0.0).weight


def test_weights_do_not_drift():
    """When a group is empty, its weight has no rounding error: here, the sum of the weights has lost the 1."""
    exact = 2.0**53
    queue = new(max_size=99, timeout=5.0, max_weight=exact + 2)
    (first,), (second,) = arrive(queue, "a", weight=exact), arrive(queue, "b", weight=1.0)
    queue.withdraw(first, "A")
    queue.withdraw(second, "B")
    arrive(queue, "c", weight=exact + 2)
    assert "weight" == reason(queue, 0.0)


def test_a_withdrawn_item_no_longer_fills_its_group():
    """A group counts and weighs only the items that wait in it."""
    for limits_of_batch, expected in (({"max_size": 4}, "full"), ({"max_size": 99, "max_weight": 1.0}, "weight")):
        queue = new(timeout=5.0, **limits_of_batch)
        _, mark, _ = arrive(queue, "abc", weight=0.25)
        queue.withdraw(mark, "B")
        assert None is reason(queue, 0.0)
        arrive(queue, "d", weight=0.25)
        assert None is reason(queue, 0.0)
        arrive(queue, "e", weight=0.25)
        assert expected == reason(queue, 0.0)


# Duplicates.


def shared(queue, items, group="g"):
    """Queue an item for each letter; items of the same letter are equal."""
    for number, item in enumerate(items):
        put(queue, Entry(item, group, 1.0, (group, item.lower())), (item, number))


def test_equal_items_are_sent_once():
    """Duplicates leave together, and the item of the first is sent."""
    queue = busy(max_size=2)
    shared(queue, "abAcA")
    queue.finish(queue.running[0], 0.0)
    batch = queue.take(0.0)
    assert ["a", "b"] == batch.items
    assert [("a", 0), ("A", 2), ("A", 4), ("b", 1)] == batch.waiters
    assert [0, 0, 0, 1] == batch.shares == batch.positions


def test_a_group_counts_equal_items_once():
    """Equal items count once, for the size and for the weight of a group."""
    queue = new(max_size=2, timeout=5.0, max_weight=9.0)
    shared(queue, "aaaaaaaaaaaa")
    assert None is reason(queue, 0.0)
    shared(queue, "b")
    assert "full" == reason(queue, 0.0)


def test_a_caller_that_leaves_does_not_affect_its_duplicates():
    """If the first of several duplicates leaves the queue, the item of the next one is sent."""
    queue = new(max_size=9, timeout=5.0, max_weight=9.0)
    (mark,) = arrive(queue, "a", weight=1.0, equal="equal")
    arrive(queue, "x", weight=1.0, equal="equal")
    arrive(queue, "b", weight=1.0)
    queue.withdraw(mark, "A")
    queue.flush("flush")
    batch = queue.take(0.0)
    assert (["x", "b"], 2.0) == (batch.items, batch.weight)


def test_duplicates_weigh_as_much_as_the_first():
    """Equal items have the weight of the first of them, also after it has left."""
    queue = new(max_size=9, timeout=5.0, max_weight=4.0)
    (first,) = arrive(queue, "a", weight=3.0, equal="equal")
    arrive(queue, "b", weight=4.0, equal="equal")
    assert None is queue.take(0.0)
    queue.withdraw(first, "A")
    arrive(queue, "c", weight=1.0)
    batch = queue.take(0.0)
    assert (["b", "c"], "weight", [3.0, 1.0]) == (batch.items, batch.reason, batch.weights)


def test_a_batch_without_duplicates_has_no_shares():
    """Without duplicates, each waiter has an item of its own."""
    queue = new(max_size=2)
    shared(queue, "ab")
    batch = queue.take(0.0)
    assert (None, range(2)) == (batch.shares, batch.positions)


def test_a_duplicate_may_leave_between_departure_and_run():
    """An item is dropped with the last caller that shares it, and the others keep theirs."""
    queue = busy(max_size=9)
    shared(queue, "aAbBc")
    queue.finish(queue.running[0], 0.0)
    batch = queue.take(0.0)
    assert [("a", 0), ("A", 1), ("b", 2), ("B", 3), ("c", 4)] == batch.waiters
    batch.drop([True, True, False, True, False])
    assert (["b", "c"], 2, [("b", 2), ("c", 4)]) == (batch.items, batch.size, batch.waiters)
    assert [0, 1] == batch.shares


# Capacity of the queue.


def bounded(*, room=2, **options):
    """Return a queue with a small capacity, whose window does not end."""
    return new(max_size=9, timeout=100.0, max_pending=room, **options)


def test_a_call_waits_while_the_queue_is_full():
    """Items that arrive at a full queue wait, in order of arrival, until a batch leaves."""
    queue = bounded()
    arrive(queue, "abcde")
    assert (5, [*"abcde"]) == (queue.waiting, [entry.item for entry in queue.entries])
    assert ["ab"] == ["".join(queue.take(0.0).items)]
    assert ["C", "D"] == queue.admit_waiting()
    queue.finish(queue.running[0], 0.0)
    assert ["cd"] == ["".join(queue.take(0.0).items)]
    assert ["E"] == queue.admit_waiting()


def test_a_batch_does_not_wait_while_the_queue_is_full():
    """A full queue admits no further items, so its oldest group leaves as if it were full."""
    queue = bounded()
    arrive(queue, "a", 1.0, group=1)
    assert (False, 101.0) == (queue.has_full, queue.plan())
    arrive(queue, "b", 2.0, group=2)
    assert (True, 1.0) == (queue.has_full, queue.plan())
    batch = queue.take(2.0)
    assert (["a"], "full") == (batch.items, batch.reason)
    queue.finish(batch, 2.0)
    assert None is queue.take(2.0)


def test_a_queue_is_not_settled_while_a_call_waits_for_room():
    """A grouped queue is settled when no call waits in a group or for room."""
    queue = bounded(room=1, concurrency=2)
    found = [queue.is_settled(2.0)]
    arrive(queue, "a", 1.0)
    arrive(queue, "b", 2.0)
    found.append(queue.is_settled(1.0))
    queue.finish(queue.take(2.0), 2.0)
    found += [queue.is_settled(1.0), queue.is_settled(2.0)]
    assert [True, False, True, False] == found


def test_a_cancelled_item_makes_room():
    """A withdrawn item makes room for the next one, and an item withdrawn from the overflow has no effect."""
    queue = bounded()
    first, _, third, _ = arrive(queue, "abcd")
    assert "c" == queue.withdraw(third, "C").item
    assert None is queue.withdraw(third, "C")
    assert [] == queue.admit_waiting()
    queue.withdraw(first, "A")
    assert ["D"] == queue.admit_waiting()
    assert ["bd"] == leave(queue)


def test_a_queue_is_full_without_room_for_another_item():
    """A queue with room for two items is full with the second one."""
    queue = bounded()
    arrive(queue, "a")
    assert not queue.is_full
    arrive(queue, "b")
    assert queue.is_full


def test_a_flush_reaches_items_that_wait_for_room():
    """Items that wait for room are flushed as well, when they are admitted."""
    queue = bounded()
    arrive(queue, "abc")
    queue.flush("flush")
    queue.finish(queue.take(0.0), 0.0)
    queue.admit_waiting()
    assert "flush" == reason(queue, 0.0)


# Withdrawal and inspection.


def test_a_second_withdrawal_has_no_effect():
    """A withdrawn or departed item cannot be withdrawn again."""
    queue = new(max_size=1)
    (mark,) = arrive(queue, "a")
    assert "a" == queue.withdraw(mark, "A").item
    assert None is queue.withdraw(mark, "A")
    (mark,) = arrive(queue, "b")
    queue.take(0.0)
    assert None is queue.withdraw(mark, "B")


def test_only_the_caller_at_the_mark_is_withdrawn():
    """A mark does not withdraw the item of another caller."""
    queue = new(max_size=9, timeout=5.0)
    first, _ = arrive(queue, "ab")
    assert (None, 2) == (queue.withdraw(first, "B"), queue.waiting)


def test_a_caller_is_not_found_before_its_mark():
    """If a waiter has several calls, the one at the mark leaves."""
    queue = new(max_size=9, timeout=5.0)
    first, second = arrive(queue, "aa")
    assert second == queue.withdraw(second, "A").ticket
    assert [first] == [entry.ticket for entry in queue.entries]


def test_withdrawing_all_returns_the_entries():
    """All callers leave at once, also those that wait for room, and no group or deadline of them remains."""
    queue = bounded()
    arrive(queue, "ab", group=1)
    urgent(queue, "c", group=2, time_limit=5.0)
    assert [(0, "A"), (1, "B"), (2, "C")] == [(ticket, entry.waiter) for ticket, entry in queue.withdraw_all()]
    assert (0, [], None, inf) == (queue.waiting, queue.admit_waiting(), queue.plan(), queue.expires_at)
    arrive(queue, "d")
    assert ["d"] == [entry.item for entry in queue.entries]


def test_entries_are_in_order_of_arrival():
    """``entries`` has items, waiters and times of all groups."""
    queue = busy()
    arrive(queue, "a", 1.0, group=1)
    arrive(queue, "b", 2.0, group=2)
    assert [("a", "A", 1.0), ("b", "B", 2.0)] == [tuple(entry) for entry in queue.entries]
    assert (2, 3) == (queue.waiting, queue.arrivals)
    assert "<GroupedQueue: 2 waiting, 1 of 1 running>" == repr(queue)


def test_the_batch_keeps_its_duplicates():
    """Duplicates that are not sent live until the batch is forgotten, because their finalizers are user code."""

    class Item:
        pass

    queue = busy(max_size=9)
    items = [Item(), Item()]
    for item in items:
        put(queue, Entry(item, "g", 0.0, "equal"))
    del item
    gone = weakref.ref(items.pop())
    queue.finish(queue.running[0], 0.0)
    batch = queue.take(0.0)
    assert None is not gone()
    batch.forget()
    assert None is gone()


# Replacement of a plain queue.


def adopted(items, now=0.0, *, leave=0, push=None, timeout=None, **options):
    """Return a queue that replaces a plain one with these items, of which the first ``leave`` run in a batch."""
    plain = PlainQueue(limits(max_size=leave or 1, timeout=timeout))
    for item in items:
        plain.places += (item, caller(item), now)
    if leave:
        plain.take(now)
    if push is not None:
        plain.flush(push)
    entries = []
    for ticket, (item, waiter, arrived) in plain.retire()[0]:
        entry = Entry(item, "g", 0.0, None)
        entry.ticket, entry.waiter, entry.arrived = ticket, waiter, arrived
        entries.append(entry)
    queue = new(timeout=timeout, **options)
    queue.adopt(plain, entries)
    return queue


def test_a_queue_continues_a_plain_one():
    """The items keep their order and tickets, running batches keep their slots, and new items follow."""
    queue = adopted("abcde", 1.0, leave=2, max_size=2, timeout=5.0)
    assert [("c", "C", 1.0), ("d", "D", 1.0), ("e", "E", 1.0)] == [tuple(entry) for entry in queue.entries]
    assert [["a", "b"]] == [batch.items for batch in queue.running]
    assert (5, 3, None) == (queue.arrivals, queue.waiting, queue.plan())
    assert [5] == arrive(queue, "f", 2.0)
    assert ["cd", "ef"] == leave(queue, 2.0)


def test_a_call_of_a_plain_queue_leaves_by_its_mark():
    """A call that arrived in the plain queue is searched from its mark, and no later call is withdrawn for it."""
    queue = adopted("abcd", leave=1, max_size=9, timeout=5.0)
    arrive(queue, "e")
    found = [queue.withdraw(0, waiter) for waiter in ("A", "C", "C", "E")]
    assert [None, "c", None, None] == [entry and entry.item for entry in found]
    assert ["B", "D", "E"] == [entry.waiter for entry in queue.entries]


@pytest.mark.parametrize(("late", "found"), [(SPAN - 1, True), (SPAN, False)])
def test_a_call_of_a_plain_queue_is_near_its_mark(late, found):
    """A call of the plain queue is found among the ``SPAN`` arrivals from its mark, and the search ends there."""
    queue = adopted("a" * late + "b", max_size=9, timeout=5.0)
    assert found == (queue.withdraw(0, "B") is not None)


def test_a_call_of_a_plain_queue_that_waits_for_room_can_leave():
    """Calls of the plain queue for which there was no room leave by their marks too."""
    queue = adopted("abc", max_size=9, max_pending=1, timeout=5.0)
    assert "c" == queue.withdraw(0, "C").item


def test_an_urgent_item_overtakes_those_of_a_plain_queue():
    """Items of the plain queue have no priority, and share batches with later items of their group."""
    queue = adopted("abc", leave=1, max_size=2)
    urgent(queue, "u", priority=1)
    assert ["ub", "c"] == leave(queue)


def learnt(**options):
    """Return a plain queue after a run of 8 s, and its second batch, which departed at 10 and still runs."""
    plain = PlainQueue(limits(max_size=8, **options))
    plain.places += ("item", "caller", 0.0)
    plain.flush("flush")
    plain.finish(plain.take(0.0), 8.0)
    plain.places += ("item", "caller", 10.0)
    plain.flush("flush")
    return plain, plain.take(10.0)


def test_adaptive_departures_keep_a_distance_across_a_replacement():
    """With two slots and runs of 8 s, a batch leaves 4 s after the last one of either queue, if one still runs."""
    plain, batch = learnt(concurrency=2)
    queue = new(max_size=8, concurrency=2)
    queue.adopt(plain, [])
    arrive(queue, "a", 11.0)
    assert (14.0, None, "timeout") == (queue.plan(), reason(queue, 13.9), reason(queue, 14.5))
    queue.finish(batch, 18.0)
    arrive(queue, "b", 18.0)
    assert 18.5 == queue.plan()


@pytest.mark.parametrize(
    ("old", "changed", "expected"),
    [
        ({"timeout": 5.0}, {"timeout": None}, 11.0),
        ({"timeout": None}, {"timeout": 5.0}, 16.0),
        ({"concurrency": 4}, {"concurrency": 2}, 11.0),
    ],
    ids=["to adaptive timing", "to a window", "to fewer slots"],
)
def test_changed_limits_start_a_new_policy(old, changed, expected):
    """If the window or the number of slots changes with the replacement, no run time of the plain queue counts."""
    plain, _ = learnt(**{"concurrency": 2, **old})
    queue = new(max_size=8, **{"concurrency": 2, **changed})
    queue.adopt(plain, [])
    arrive(queue, "a", 11.0)
    assert expected == queue.plan()


def test_a_replacement_keeps_the_flush():
    """Flushed items leave for the reason of the flush, also from the new queue."""
    queue = adopted("ab", push="close", max_size=9, timeout=5.0)
    assert "close" == reason(queue, 0.0)


def test_a_replacement_admits_no_more_than_its_room():
    """Items of the plain queue for which there is no room wait for it."""
    queue = adopted("abc", max_size=9, max_pending=2, timeout=5.0)
    assert ["ab"] == ["".join(queue.take(0.0).items)]
    assert ["C"] == queue.admit_waiting()


# Priorities and deadlines.


def urgent(queue, item, now=0.0, *, group="g", priority=0.0, time_limit=None):
    """Queue an item with a priority and a deadline, and return its mark."""
    return put(queue, Entry(item, group, 0.0, None, priority, time_limit), caller(item), now)


def test_the_higher_priority_leaves_first():
    """Within a group, and among groups, the higher priority leaves first."""
    queue = busy(max_size=2)
    for item, group, priority in (("a", 1, 0), ("b", 2, -3), ("c", 1, 2), ("d", 3, 1), ("e", 1, 0), ("f", 2, 0)):
        urgent(queue, item, group=group, priority=priority)
    assert ["ca", "d", "e", "fb"] == leave(queue)


def test_waiting_counts_as_priority():
    """A point of priority overtakes a second of waiting, and no more."""
    queue = busy(max_size=1)
    urgent(queue, "a", 0.0)
    urgent(queue, "b", 0.5)
    urgent(queue, "c", 1.0)
    urgent(queue, "d", 1.75, priority=1)
    assert ["a", "b", "d", "c"] == leave(queue, 2.0)


def test_any_of_the_items_with_priorities_may_leave():
    """The others leave in the same order, whether the first, the oldest or another one leaves the queue."""
    priorities = {"a": -1, "b": 3, "c": 1, "d": 2, "e": -1, "f": 3, "g": 0}
    for gone in priorities:
        queue = busy(max_size=9)
        marks = {item: urgent(queue, item, priority=priority) for item, priority in priorities.items()}
        queue.withdraw(marks[gone], caller(gone))
        assert ["bfdcgae".replace(gone, "")] == leave(queue)


def test_a_group_of_priorities_leaves_with_its_oldest_item():
    """The window of a group starts with its oldest item, whatever its priority, and also after others have left."""
    queue = new(max_size=9, timeout=5.0)
    first = urgent(queue, "a", 0.0, priority=1)
    second = urgent(queue, "b", 1.0, priority=3)
    urgent(queue, "c", 2.0, priority=2)
    urgent(queue, "d", 3.0, priority=0)
    for mark, waiter, due in ((first, "A", 6.0), (second, "B", 7.0)):
        queue.withdraw(mark, waiter)
        assert due == queue.plan()
        assert None is queue.take(due - 0.5)
    assert (["c", "d"], "timeout") == ((batch := queue.take(7.0)).items, batch.reason)


def test_no_item_starves_behind_a_higher_priority():
    """An item that has waited long enough leaves, however many items of higher priority arrive."""
    queue = busy(max_size=1)
    urgent(queue, "z", 0.0)
    left = ""
    for second in range(9):
        urgent(queue, "a", float(second), priority=5)
        for batch in list(queue.running):
            queue.finish(batch, float(second))
        left += queue.take(float(second)).items[0]
    assert "aaaaazaaa" == left


def test_the_oldest_item_keeps_its_window():
    """An item that overtakes others does not change the time of departure."""
    queue = new(max_size=9, timeout=5.0)
    urgent(queue, "a", 0.0)
    urgent(queue, "b", 4.0, priority=100)
    assert 5.0 == queue.plan()
    assert None is queue.take(4.5)
    batch = queue.take(5.0)
    assert (["b", "a"], "timeout") == (batch.items, batch.reason)


def test_a_due_group_does_not_wait_for_one_of_higher_priority():
    """A group that is due leaves, though a group of higher priority may not leave yet."""
    queue = new(max_size=9, timeout=5.0)
    urgent(queue, "a", 0.0, group=1)
    urgent(queue, "b", 4.0, group=2, priority=100)
    assert ["a"] == queue.take(5.0).items


def test_an_item_is_dropped_at_its_deadline():
    """An item is dropped at its deadline and not before, and an item without one is kept."""
    queue = busy(max_size=9)
    urgent(queue, "a", 0.0, time_limit=2.0)
    urgent(queue, "b", 0.0)
    urgent(queue, "c", 0.0, time_limit=1.0)
    assert 1.0 == queue.expires_at
    assert [] == queue.expire(0.999)
    assert ["C"] == [entry.waiter for entry in queue.expire(1.0)]
    assert 2.0 == queue.expires_at
    assert ["ab"] == leave(queue, 1.5)
    assert inf == queue.expires_at


def test_a_batch_has_the_earliest_deadline_of_its_callers():
    """The deadline of a batch is the earliest of those whose callers stay, and infinite without any."""
    queue = busy(max_size=9)
    for item, time_limit in ("a", 2.0), ("b", None), ("c", 1.0), ("d", 3.0):
        urgent(queue, item, 0.0, time_limit=time_limit)
    queue.finish(queue.running[0], 0.0)
    batch = queue.take(0.0)
    found = [(batch.expires_at, "".join(entry.waiter for entry in batch.entries))]
    for gone in [False, False, True, False], [True, False, False], [True, True]:
        batch.drop(gone)
        found.append((batch.expires_at, "".join(entry.waiter for entry in batch.entries)))
    assert [(1.0, "ABCD"), (2.0, "ABD"), (3.0, "BD"), (float("inf"), "")] == found


def test_a_deadline_that_is_met_stays_met():
    """A batch that has started has no deadline, whichever callers leave it."""
    queue = busy(max_size=9)
    for item in "ab":
        urgent(queue, item, 0.0, time_limit=1.0)
    queue.finish(queue.running[0], 0.0)
    batch = queue.take(0.0)
    batch.expires_at = float("inf")
    batch.drop([True, False])
    assert float("inf") == batch.expires_at


def test_an_item_that_waits_for_room_is_dropped_at_its_deadline():
    """A deadline also holds for an item that waits for room, and the items behind it are admitted."""
    queue = new(max_pending=1, max_size=9, timeout=60.0)
    urgent(queue, "x")
    queue.take(0.0)
    urgent(queue, "a", time_limit=1.0)
    urgent(queue, "b", time_limit=2.0)
    urgent(queue, "c")
    assert ["A", "B"] == [entry.waiter for entry in queue.expire(2.0)]
    queue.admit_waiting()
    assert ["c"] == [entry.item for entry in queue.entries]


@pytest.mark.parametrize(("time_limit", "expected"), [(1.0, 0.9), (0.02, 0.015), (0.004, 0.002)])
def test_a_batch_leaves_in_time_for_a_deadline(time_limit, expected):
    """With a slot free, a batch leaves some time before its first deadline, even within its window."""
    queue = new(max_size=9, timeout=60.0)
    urgent(queue, "a")
    urgent(queue, "b", time_limit=time_limit)
    assert expected == queue.plan()
    assert None is queue.take(expected - 0.001)
    batch = queue.take(expected)
    assert (["a", "b"], "deadline") == (batch.items, batch.reason)


# Against a naive model.


def by_rank(entry):
    return entry["rank"], entry["ticket"]


class Model:
    """The same rules, implemented as a search through one list."""

    def __init__(self, max_size, timeout, max_weight, concurrency, room):
        self.max_size, self.timeout, self.max_weight, self.concurrency = max_size, timeout, max_weight, concurrency
        self.room = room
        self.waiting = []
        self.overflow = []
        self.flushed = set()

    def members(self, group):
        return sorted((entry for entry in self.waiting if entry["group"] == group), key=by_rank)

    def fullness(self, group):
        items = {}
        for entry in self.members(group):
            items.setdefault(entry["equal"] or entry["ticket"], entry["weight"])
        if len(items) >= self.max_size:
            return "full"
        return "weight" if sum(items.values()) >= self.max_weight else None

    def why(self, group, now):
        if self.fullness(group) or len(self.waiting) == self.room:
            return self.fullness(group) or "full"
        oldest = next(entry for entry in self.waiting if entry["group"] == group)
        if oldest["ticket"] in self.flushed:
            return "flush"
        return "timed" if oldest["arrived"] + self.timeout <= now else None

    def candidates(self, now):
        """Return the groups that may leave, with their reasons, in the order in which they leave."""
        ranked = sorted(self.waiting, key=by_rank)
        for entry in (ranked[0], self.waiting[0]):
            yield entry["group"], self.why(entry["group"], now)
        for entry in ranked:
            yield entry["group"], self.fullness(entry["group"])
        earliest = min(self.waiting, key=lambda entry: (entry["deadline"], entry["ticket"]))
        yield earliest["group"], "deadline" if earliest["leaves_by"] <= now else None

    def next(self, now, running):
        """Return the reason of the next batch and the tickets of each of its items, or ``None``."""
        if running >= self.concurrency or not self.waiting:
            return None
        group, reason = next(((group, why) for group, why in self.candidates(now) if why), (None, None))
        if reason is None:
            return None
        taken, weight = [], 0.0
        members = self.members(group)
        for entry in members:
            mates = next((some for some in taken if entry["equal"] and some[0]["equal"] == entry["equal"]), None)
            if mates is not None:
                continue
            if len(taken) == self.max_size or (taken and weight + entry["weight"] > self.max_weight):
                break
            weight += entry["weight"]
            same = [p for p in members if entry["equal"] and p["equal"] == entry["equal"]]
            taken.append(sorted(same, key=lambda duplicate: duplicate["ticket"]) or [entry])
        return reason, [[entry["ticket"] for entry in some] for some in taken]

    def late(self, now):
        return {entry["ticket"] for entry in self.waiting + self.overflow if entry["deadline"] <= now}

    def remove(self, tickets):
        self.waiting = [entry for entry in self.waiting if entry["ticket"] not in tickets]
        self.overflow = [entry for entry in self.overflow if entry["ticket"] not in tickets]
        self.admit_waiting()

    def admit_waiting(self):
        while self.overflow and len(self.waiting) < self.room:
            self.waiting.append(self.overflow.pop(0))


class GroupsMachine(RuleBasedStateMachine):
    """Drives the queue and the model with the same arrivals, departures and times."""

    @initialize(
        max_size=st.integers(1, 4),
        timeout=st.sampled_from([0.0, 2.0]),
        max_weight=st.sampled_from([4.0, 100.0]),
        concurrency=st.integers(1, 2),
        room=st.sampled_from([1, 3, 1000]),
        plain=st.sampled_from(["", "", "a", "abcdef"]),
    )
    def begin(self, room, plain, **options):
        self.queue = adopted(plain, max_pending=room, **options)
        self.model = Model(room=room, **options)
        self.limits = lambda size: limits(**{**options, "max_pending": room, "max_size": size})
        self.now = 0.0
        for ticket, item in enumerate(plain):
            # Its mark may be older than its ticket.
            self._arrive_in_model(ticket, 0, caller(item), "g", 0.0, None, 0.0, None)

    @rule(
        group=st.sampled_from(["g", "h", "i"]),
        weight=st.integers(0, 4),
        equal=st.none() | st.integers(1, 2),
        priority=st.sampled_from([0.0, 0.0, 1.0, -0.5]) | st.floats(-9, 9),
        time_limit=st.none() | st.sampled_from([0.004, 0.5, 3.0]),
    )
    def arrive(self, group, weight, equal, priority, time_limit):
        # Equal items weigh the same.
        weight = float(weight if equal is None else equal)
        key = None if equal is None else (group, equal)
        waiter = object()
        mark = put(self.queue, Entry("item", group, weight, key, priority, time_limit), waiter, self.now)
        self._arrive_in_model(mark, mark, waiter, group, weight, key, priority, time_limit)

    def _arrive_in_model(self, ticket, mark, waiter, group, weight, key, priority, time_limit):
        deadline = inf if time_limit is None else self.now + time_limit
        self.model.overflow.append(
            {
                "ticket": ticket,
                "mark": mark,
                "waiter": waiter,
                "group": group,
                "weight": weight,
                "equal": key,
                "arrived": self.now,
                "rank": self.now - priority,
                "deadline": deadline,
                "leaves_by": deadline - min(max(0.1 * (time_limit or 0), 0.005), (time_limit or 0) / 2),
            },
        )
        self.model.admit_waiting()

    @precondition(lambda self: self.model.waiting)
    @rule(data=st.data())
    def withdraw(self, data):
        waiting = self.model.waiting + self.model.overflow
        number = data.draw(st.integers(0, len(waiting) - 1))
        call = waiting[number]
        assert call["ticket"] == self.queue.withdraw(call["mark"], call["waiter"]).ticket
        assert None is self.queue.withdraw(call["mark"], call["waiter"])
        self.queue.admit_waiting()
        self.model.remove({call["ticket"]})

    @rule()
    def withdraw_all(self):
        waiting = self.model.waiting + self.model.overflow
        left = [(ticket, entry.waiter) for ticket, entry in self.queue.withdraw_all()]
        assert [(call["ticket"], call["waiter"]) for call in waiting] == left
        self.model.waiting, self.model.overflow = [], []

    @rule(size=st.integers(1, 4))
    def change(self, size):
        self.queue.change(self.limits(size))
        self.model.max_size = size

    @rule()
    def push(self):
        self.queue.flush("flush")
        self.model.flushed = {entry["ticket"] for entry in self.model.waiting + self.model.overflow}

    @rule(seconds=st.sampled_from([0.5, 1.0, 2.0]))
    def pass_time(self, seconds):
        self.now += seconds

    @precondition(lambda self: self.queue.running)
    @rule(data=st.data())
    def finish(self, data):
        self.queue.finish(data.draw(st.sampled_from(self.queue.running)), self.now)

    @rule()
    def expire(self):
        dropped = [entry.ticket for entry in self.queue.expire(self.now)]
        self.queue.admit_waiting()
        assert self.model.late(self.now) == set(dropped)
        self.model.remove(set(dropped))

    @rule()
    def take(self):
        self.expire()
        expected = self.model.next(self.now, len(self.queue.running))
        batch = self.queue.take(self.now)
        if expected is None:
            assert batch is None
            return
        reason, shares = expected
        assert reason == ("timed" if batch.reason in ("timeout", "slot") else batch.reason)
        positions = [index for index, duplicates in enumerate(shares) for _ in duplicates]
        tickets = [ticket for duplicates in shares for ticket in duplicates]
        waiters = {call["ticket"]: call["waiter"] for call in self.model.waiting}
        assert ([waiters[ticket] for ticket in tickets], positions) == (batch.waiters, list(batch.positions))
        assert batch.weight <= self.model.max_weight
        self.queue.admit_waiting()
        self.model.remove(set(tickets))

    @invariant()
    def same(self):
        if not hasattr(self, "queue"):
            return
        waiting = [entry["ticket"] for entry in self.model.waiting + self.model.overflow]
        assert waiting == [entry.ticket for entry in self.queue.entries]
        due = self.model.next(self.now, len(self.queue.running)) is not None
        at = self.queue.plan()
        assert due == (at is not None and at <= self.now)
        assert {entry["group"] for entry in self.model.waiting} == set(self.queue._groups)
        deadlines = [entry["deadline"] for entry in self.model.waiting + self.model.overflow]
        assert min(deadlines, default=inf) == self.queue.expires_at


TestGroupsMachine = pytest.mark.untraced(GroupsMachine.TestCase)
TestGroupsMachine.settings = settings(max_examples=150, stateful_step_count=50)


def test_an_entry_can_be_refused_unless_it_waits():
    """By default, an entry does not insist on waiting for room."""
    assert [False, True] == [Entry("x", "g", 0.0, None, **options).waits for options in ({}, {"waits": True})]
