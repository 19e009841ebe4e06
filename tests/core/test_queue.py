"""The plain queue: its batches, their departures, and the reasons."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError
from types import SimpleNamespace
from weakref import ref

import pytest

from batchify._core.batch import BatchItem
from batchify._core.queue import NOBODY, SHORT, WIDTH, PlainQueue
from batchify._core.slots import SPAN
from tests.kit.misbehaving import Untouchable
from tests.kit.queues import caller, limits, reason


def new(**options):
    """Return an empty core, by default adaptive and with one slot."""
    return PlainQueue(limits(**options))


def arrive(queue, items, now=0.0):
    """Queue each letter as an item of the caller named by its capital, and return the mark of all."""
    mark = queue.mark
    for item in items:
        queue.places += (item, caller(item), now)
    return mark


def matters(queue):
    """Return whether the latest arrival can change the answer of ``take()``."""
    return len(queue.places) >= queue.wake_length


def busy(*, slots=1, now=0.0, **options):
    """Return a queue with ``slots`` taken slots, each by a batch of one item."""
    queue = new(**options)
    for _ in range(slots):
        arrive(queue, "x", now)
        if queue.take(now) is None:
            queue.flush("flush")
            queue.take(now)
    return queue


def free(queue, now, number=0):
    """Finish a running batch, the oldest by default."""
    queue.finish(queue.running[number], now)


def free_after(queue, now):
    """Take a batch and finish it."""
    queue.finish(queue.take(now), now)


def leave(queue, now=0.0):
    """Return the items of all batches that may leave now."""
    return ["".join(batch.items) for batch in iter(lambda: queue.take(now), None)]


# Contents of a batch.


def test_nothing_leaves_an_empty_queue():
    """Without an arrival there is no batch."""
    assert None is new().take(0.0)


def test_items_leave_in_order_of_arrival():
    """The first items of the queue make a batch, and the next items make the next one."""
    queue = new(concurrency=3)
    arrive(queue, "abcde")
    assert ["ab", "cd", "e"] == leave(queue)


def test_a_batch_has_the_callers_of_its_items():
    """The callers are in the order of the items."""
    queue = new()
    arrive(queue, "abc")
    assert ["A", "B"] == queue.take(0.0).waiters


def test_a_batch_has_the_arrival_times_of_its_items():
    """The arrival times are in the order of the items."""
    queue = new()
    arrive(queue, "a", 1.0)
    arrive(queue, "b", 2.0)
    assert [1.0, 2.0] == queue.take(3.0).arrived


def test_a_batch_has_its_time_of_departure():
    """The time of departure is the time at which the batch was taken, not the time at which it was due."""
    queue = new()
    arrive(queue, "ab", 1.0)
    assert 3.0 == queue.take(3.0).departed


def test_a_batch_has_the_maximum_size():
    """A batch that is not full still has the size of a full one."""
    queue = new(max_size=8)
    arrive(queue, "a")
    assert 8 == queue.take(0.0).max_size


def test_equal_items_are_different_arrivals():
    """Items and callers that are equal, or the same object, leave once for each arrival."""
    queue = new(max_size=3)
    arrive(queue, "aaa")
    assert (["a"] * 3, ["A"] * 3) == ((batch := queue.take(0.0)).items, batch.waiters)


def test_none_is_a_valid_item_and_caller():
    """``None`` as an item or caller is treated like any other object."""
    queue = new()
    queue.places += (None, None, 0.0)
    assert ([None], [None]) == ((batch := queue.take(0.0)).items, batch.waiters)


def test_items_are_never_examined():
    """The queue does not compare, hash or test items and callers for truth."""
    queue = new(max_size=2, concurrency=2)
    waiters = [Untouchable() for _ in range(5)]
    for waiter in waiters:
        queue.places += (Untouchable(), waiter, 0.0)
    queue.withdraw(0, waiters[1])
    batch = queue.take(0.0)
    batch.drop([True, False])
    batch.is_abandoned(lambda waiter: waiter is waiters[2])
    queue.finish(batch, 0.0)
    assert 2 == queue.waiting


def test_the_batch_function_owns_its_list():
    """A change of a batch's items affects neither its callers nor the queue."""
    queue = new(concurrency=2)
    arrive(queue, "abc")
    batch = queue.take(0.0)
    batch.items.clear()
    queue.flush("flush")
    assert (["A", "B"], ["c"]) == (batch.waiters, queue.take(0.0).items)


def test_no_more_batches_run_than_there_are_slots():
    """With all slots taken, even a full batch stays."""
    queue = new(max_size=1, concurrency=2)
    arrive(queue, "abc")
    assert (["a", "b"], 1) == (leave(queue), queue.waiting)


def test_a_free_slot_is_taken_again():
    """When a batch is finished, another one may leave."""
    queue = new(max_size=1, concurrency=2)
    arrive(queue, "abc")
    leave(queue)
    free(queue, 1.0)
    assert ["c"] == leave(queue, 1.0)


def test_batches_may_end_in_any_order():
    """Finishing a younger batch frees its slot, and the older one continues."""
    queue = new(max_size=1, concurrency=2)
    arrive(queue, "abc")
    first, second = queue.take(0.0), queue.take(0.0)
    queue.finish(second, 1.0)
    third = queue.take(1.0)
    assert [first, third] == queue.running


# Times and reasons of departures.


def test_a_full_batch_leaves_at_once():
    """A full batch does not wait for the end of its window."""
    queue = new(timeout=5.0)
    arrive(queue, "ab")
    assert "full" == reason(queue, 0.0)


def test_a_batch_that_is_not_full_waits_for_its_window():
    """Just before the end of the window nothing leaves."""
    queue = new(timeout=5.0)
    arrive(queue, "a", 1.0)
    assert None is reason(queue, math.nextafter(6.0, 0.0))


def test_a_batch_leaves_at_the_end_of_its_window():
    """At the very end of the window, the queued items leave."""
    queue = new(timeout=5.0)
    arrive(queue, "a", 1.0)
    assert "timeout" == reason(queue, 6.0)


def test_later_arrivals_do_not_extend_the_window():
    """The window begins with the first item."""
    queue = new(timeout=5.0, max_size=3)
    arrive(queue, "a", 1.0)
    arrive(queue, "b", 5.0)
    assert ["ab"] == leave(queue, 6.0)


def test_the_remaining_items_have_their_own_window():
    """Items that a full batch does not include wait from their own arrival, not from that of the first item."""
    queue = new(timeout=5.0, concurrency=2)
    arrive(queue, "ab", 1.0)
    arrive(queue, "c", 2.0)
    assert (["ab"], 7.0) == (leave(queue, 2.0), queue.plan())


def test_items_do_not_wait_with_a_timeout_of_zero():
    """With a timeout of 0 an item leaves when it arrives."""
    queue = new(timeout=0.0)
    arrive(queue, "a", 1.0)
    assert "timeout" == reason(queue, 1.0)


def test_adaptive_items_leave_at_once_without_a_running_batch():
    """With adaptive timing and no running batch, queued items leave at once."""
    queue = new()
    arrive(queue, "a", 1.0)
    assert "idle" == reason(queue, 1.0)


def test_the_wait_for_a_slot_is_part_of_the_window():
    """An item whose window ends while all slots are taken leaves as soon as a slot is free."""
    queue = busy(timeout=5.0)
    arrive(queue, "a", 1.0)
    free(queue, 7.0)
    assert "slot" == reason(queue, 7.0)


def test_a_slot_that_becomes_free_beside_another_is_no_reason():
    """If a second slot was free all the time, an item leaves because its window has ended."""
    queue = busy(timeout=4.0, concurrency=2)
    arrive(queue, "a", 5.0)
    free(queue, 10.0)
    assert "timeout" == reason(queue, 10.0)


def test_a_free_slot_does_not_end_a_window():
    """An item waits for the end of its window even if a slot becomes free before."""
    queue = busy(timeout=5.0)
    arrive(queue, "a", 3.0)
    free(queue, 7.0)
    assert (None, "timeout") == (reason(queue, 7.0), reason(queue, 8.0))


def test_a_slot_that_becomes_free_at_the_end_of_the_window_is_the_reason():
    """An item may leave at the very end of its window, so a slot that becomes free then is its reason."""
    queue = busy(timeout=5.0)
    arrive(queue, "a", 2.0)
    free(queue, 7.0)
    assert "slot" == reason(queue, 7.0)


def test_an_arrival_at_a_free_slot_did_not_wait_for_it():
    """An item that arrives just after a slot was freed leaves for another reason."""
    queue = busy(timeout=0.0)
    free(queue, 7.0)
    arrive(queue, "a", 7.0)
    assert "timeout" == reason(queue, 7.0)


def test_a_free_slot_among_free_slots_is_no_reason():
    """A batch that ends while another slot is free kept no item waiting."""
    queue = busy(timeout=5.0, concurrency=2)
    arrive(queue, "a", 0.0)
    free(queue, 1.0)
    assert "timeout" == reason(queue, 5.0)


def test_adaptive_batches_leave_when_a_slot_becomes_free():
    """With adaptive timing and one slot, items queued during a run leave when that run ends."""
    queue = busy(max_size=8)
    arrive(queue, "ab", 1.0)
    free(queue, 7.0)
    assert ("slot", ["A", "B"]) == ((batch := queue.take(7.0)).reason, batch.waiters)


def test_adaptive_departures_keep_a_distance():
    """With two slots and runs of 8 s, a batch leaves 4 s after the one that still runs."""
    queue = busy(max_size=8, concurrency=2)
    free(queue, 8.0)
    arrive(queue, "a", 10.0)
    leave(queue, 10.0)
    arrive(queue, "b", 11.0)
    assert (14.0, None, "timeout") == (queue.plan(), reason(queue, 13.9), reason(queue, 14.0))


def test_a_batch_that_did_not_run_has_no_run_time():
    """A batch that lost all its callers before its run does not shorten the distance between departures."""
    queue = busy(max_size=8, concurrency=2)
    free(queue, 8.0)
    arrive(queue, "a", 9.0)
    batch = queue.take(9.0)
    batch.drop([True])
    queue.finish(batch, 9.0)
    arrive(queue, "b", 10.0)
    leave(queue, 10.0)
    arrive(queue, "c", 11.0)
    assert 14.0 == queue.plan()


def test_a_full_batch_keeps_no_distance():
    """With a slot free, a full batch leaves at once, however recent the last departure is."""
    queue = busy(concurrency=2)
    free(queue, 8.0)
    arrive(queue, "a", 10.0)
    leave(queue, 10.0)
    arrive(queue, "bc", 10.0)
    assert "full" == reason(queue, 10.0)


def test_full_takes_precedence_over_all_other_reasons():
    """A full batch that waited for a slot and was flushed leaves because it is full."""
    queue = busy()
    arrive(queue, "ab")
    queue.flush("flush")
    free(queue, 9.0)
    assert "full" == reason(queue, 9.0)


@pytest.mark.parametrize("why", ["flush", "close"])
def test_flushed_items_leave(why):
    """A flush lets queued items leave before the end of their window, for the given reason."""
    queue = new(timeout=5.0)
    arrive(queue, "a")
    queue.flush(why)
    assert why == reason(queue, 1.0)


def test_later_arrivals_are_not_flushed():
    """An item that arrives after a flush has its whole window."""
    queue = new(timeout=5.0, concurrency=2)
    arrive(queue, "a", 0.0)
    queue.flush("flush")
    queue.take(1.0)
    arrive(queue, "b", 2.0)
    assert (None, 7.0) == (queue.take(2.0), queue.plan())


def test_a_flushed_batch_includes_later_arrivals():
    """A flushed batch is filled up with later arrivals."""
    queue = busy(timeout=5.0, max_size=3)
    arrive(queue, "a")
    queue.flush("flush")
    arrive(queue, "b")
    free(queue, 1.0)
    assert ["ab"] == leave(queue, 1.0)


def test_a_flush_needs_a_slot():
    """Flushed items wait for a slot."""
    queue = busy(timeout=5.0)
    arrive(queue, "a")
    queue.flush("flush")
    assert (None, None) == (reason(queue, 1.0), queue.plan())


def test_a_flush_lasts_until_a_slot_is_free():
    """Items flushed while all slots were taken leave when one becomes free, even within their window."""
    queue = busy(timeout=50.0)
    arrive(queue, "a")
    queue.flush("flush")
    free(queue, 1.0)
    assert "flush" == reason(queue, 1.0)


def test_the_last_flush_determines_the_reason():
    """Items flushed twice leave for the second reason."""
    queue = new(timeout=5.0)
    arrive(queue, "a")
    queue.flush("flush")
    queue.flush("close")
    assert "close" == reason(queue, 1.0)


# Plans.


def test_an_empty_queue_needs_no_waking():
    """An empty queue has no time to wake at."""
    assert None is new().plan()


def test_busy_slots_need_no_waking():
    """While all slots are taken, there is no time to wake at, even for a full batch."""
    queue = busy()
    arrive(queue, "ab")
    assert None is queue.plan()


def test_the_wake_time_is_the_end_of_the_window():
    """The time to wake at is the end of the first item's window."""
    queue = new(timeout=5.0)
    arrive(queue, "a", 1.0)
    assert 6.0 == queue.plan()


def test_the_wake_time_after_a_withdrawal_is_the_end_of_the_next_window():
    """After the first item is withdrawn, the window of the next one counts."""
    queue = new(timeout=5.0, max_size=3)
    mark = arrive(queue, "a", 1.0)
    arrive(queue, "b", 3.0)
    queue.withdraw(mark, "A")
    assert 8.0 == queue.plan()


def test_a_full_batch_is_overdue():
    """For a full batch, the time to wake at is past."""
    queue = new(timeout=5.0)
    arrive(queue, "ab", 1.0)
    assert 1.0 == queue.plan()


def test_flushed_items_are_overdue():
    """For flushed items, the time to wake at is past."""
    queue = new(timeout=5.0)
    arrive(queue, "a", 1.0)
    queue.flush("flush")
    assert 1.0 == queue.plan()


def test_an_item_after_a_flush_is_not_overdue():
    """For an item that arrives after the flushed ones have left, the time to wake at is the end of its window."""
    queue = new(timeout=5.0, concurrency=2)
    arrive(queue, "a", 1.0)
    queue.flush("flush")
    queue.take(1.0)
    arrive(queue, "b", 1.0)
    assert 6.0 == queue.plan()


def test_the_first_arrival_matters():
    """The first arrival in an empty queue with a free slot can change the next batch."""
    queue = new(max_size=3)
    arrive(queue, "a")
    assert matters(queue)


def test_the_arrival_that_fills_a_batch_matters():
    """After the first arrival, the next one that can change the batch is the one that fills it."""
    queue = new(timeout=5.0, max_size=3)
    arrive(queue, "a")
    queue.plan()
    arrive(queue, "b")
    early = matters(queue)
    arrive(queue, "c")
    assert (False, True) == (early, matters(queue))


def test_arrivals_matter_until_the_next_plan():
    """Until the next plan is made, later arrivals reach the wake length too."""
    queue = new(max_size=3)
    arrive(queue, "ab")
    assert matters(queue)


def test_an_arrival_behind_a_full_batch_does_not_matter():
    """A full batch may leave at once, so a later arrival does not change the plan."""
    queue = new(max_size=2)
    arrive(queue, "ab", 1.0)
    before = queue.plan()
    arrive(queue, "c", 2.0)
    assert (False, before) == (matters(queue), queue.plan())


def test_arrivals_do_not_matter_while_all_slots_are_busy():
    """While all slots are taken, an arrival changes nothing, also one that fills a batch."""
    queue = busy()
    queue.plan()
    arrive(queue, "ab")
    assert not matters(queue)


def test_a_free_slot_changes_the_plan():
    """When a slot becomes free, the arrival that fills a batch matters again."""
    queue = busy(timeout=50.0, max_size=3)
    arrive(queue, "a")
    before = queue.plan()
    free(queue, 1.0)
    assert (None, 50.0) == (before, queue.plan())
    assert len(queue.places) + 2 * WIDTH == queue.wake_length


def test_the_first_arrival_after_a_batch_matters():
    """When a slot becomes free, the next arrival matters without another plan."""
    queue = busy(timeout=50.0)
    queue.plan()
    free(queue, 1.0)
    arrive(queue, "a")
    assert (True, 50.0) == (matters(queue), queue.plan())


def test_a_caller_that_leaves_changes_the_plan():
    """After a caller left, one more arrival is needed to fill a batch."""
    queue = new(timeout=5.0, max_size=3)
    mark = arrive(queue, "ab")
    queue.withdraw(mark, "A")
    queue.plan()
    assert len(queue.places) + 2 * WIDTH == queue.wake_length


def test_an_emptied_queue_changes_the_plan():
    """After the last caller left, the next arrival is the first one again."""
    queue = new(timeout=5.0, max_size=3)
    queue.withdraw(arrive(queue, "a"), "A")
    queue.plan()
    assert len(queue.places) + WIDTH == queue.wake_length


@pytest.mark.parametrize(
    ("queue", "items"),
    [
        (lambda: busy(), ""),
        (lambda: new(max_size=2 * SPAN, timeout=5.0), "a"),
        (lambda: new(max_size=2, timeout=5.0), "ab"),
    ],
    ids=["while all slots are busy", "while a large batch fills up", "while a full batch may leave"],
)
def test_the_mark_is_renewed_in_time(queue, items):
    """The arrival after which a mark would be too old matters, because the shell then makes a plan."""
    queue = queue()
    arrive(queue, items)
    queue.plan()
    assert (queue.arrivals, len(queue.places) + SPAN * WIDTH) == (queue.mark, queue.wake_length)


@pytest.mark.parametrize("size", [SPAN // 2, SPAN, 2 * SPAN])
def test_the_mark_is_renewed_in_time_after_a_departure(size):
    """A batch that leaves shortens the list, but not the way to the arrival after which a mark would be too old."""
    queue = new(max_size=size)
    arrive(queue, "a" * size)
    queue.plan()
    queue.take(0.0)
    arrivals = 0
    while not matters(queue):
        arrive(queue, "a")
        arrivals += 1
    assert SPAN == arrivals


def test_a_first_arrival_makes_no_full_batch():
    """After the first arrival, the queue has no full batch; after the next, it has one."""
    queue = new()
    arrive(queue, "a")
    first = queue.has_full
    arrive(queue, "b")
    assert (False, True) == (first, queue.has_full)


def test_a_full_batch_cannot_leave_without_a_slot():
    """A full batch may not leave while all slots are taken."""
    queue = busy()
    arrive(queue, "ab")
    assert not queue.has_full


def test_padding_takes_time_like_items():
    """A batch that was padded teaches the run time of its padded size, which the queue knows."""
    queue = new(concurrency=2, max_size=8, sizes=(2, 8))
    learnt = []
    queue._learner = SimpleNamespace(departed=lambda now: None, ended=lambda *run: learnt.append(run))
    arrive(queue, "abc")
    queue.flush("flush")
    batch = queue.take(1.0)
    batch.copy_items(queue.padding(batch.size))
    queue.finish(batch, 3.0)
    assert [(2.0, 8)] == learnt


# Callers that leave without an answer.


def test_a_withdrawn_item_is_in_no_batch():
    """The item of a caller that leaves the queue is in no batch, and later items move up."""
    queue = new(max_size=3)
    mark = arrive(queue, "abcd")
    queue.withdraw(mark, "B")
    batch = queue.take(0.0)
    assert (["a", "c", "d"], ["A", "C", "D"]) == (batch.items, batch.waiters)


def test_withdrawing_returns_the_entry():
    """The first withdrawal returns item, caller and time of arrival, and the second returns nothing."""
    queue = new(max_size=3)
    mark = arrive(queue, "abc", 1.5)
    assert (("b", "B", 1.5), None) == (queue.withdraw(mark, "B"), queue.withdraw(mark, "B"))


def test_waiting_entries_can_be_listed():
    """The entries are item, caller and time of arrival, in order, without callers that left."""
    queue = new(max_size=1)
    mark = arrive(queue, "abcd", 1.5)
    queue.take(2.0)
    queue.withdraw(mark, "C")
    assert [("b", "B", 1.5), ("d", "D", 1.5)] == queue.entries


def test_a_waiting_item_is_shown_frozen():
    """A ``BatchItem`` cannot be changed."""
    with pytest.raises(FrozenInstanceError):
        BatchItem("data", None, 1.5).data = "other"


def test_the_head_is_withdrawn_once():
    """Withdrawing the head twice does not affect the new head."""
    queue = new(max_size=3)
    mark = arrive(queue, "ab")
    queue.withdraw(mark, "A")
    assert (None, 1) == (queue.withdraw(mark, "A"), queue.waiting)


def test_a_departed_item_cannot_be_withdrawn():
    """An item that left with a batch cannot be withdrawn."""
    queue = new()
    mark = arrive(queue, "ab")
    queue.take(0.0)
    assert None is queue.withdraw(mark, "A")


def test_a_departed_item_cannot_be_withdrawn_while_others_wait():
    """The same is true if other items still wait."""
    queue = new()
    mark = arrive(queue, "abc")
    queue.take(0.0)
    assert [None, None, ("c", "C", 0.0)] == [queue.withdraw(mark, waiter) for waiter in ("A", "B", "C")]


def test_calls_that_left_are_counted_by_the_way_they_left():
    """The queue counts the calls that left in batches, and those without one, also from the middle of the queue."""
    queue = new(max_size=1)
    mark = arrive(queue, "abcd")
    found = [(queue.taken, queue.withdrawn)]
    queue.take(0.0)
    queue.withdraw(mark, "C")
    found.append((queue.taken, queue.withdrawn))
    queue.withdraw(mark, "B")
    found.append((queue.taken, queue.withdrawn))
    assert [(0, 0), (1, 1), (1, 2)] == found


@pytest.mark.parametrize("gone", ["A", "B", "AB"])
def test_an_interrupted_departure_of_callers_is_mended(gone):
    """If an exception comes just after places were emptied, mending counts them, and a batch is without them."""
    queue = new(max_size=3)
    arrive(queue, "abc")
    for waiter in gone:
        queue.places[queue.places.index(waiter)] = NOBODY
    queue.mend()
    stay = [item for item in "abc" if caller(item) not in gone]
    assert (len(stay), len(gone)) == (queue.waiting, queue.withdrawn)
    assert stay == queue.take(1.0).items


@pytest.mark.parametrize(("late", "found"), [(SPAN - 1, True), (SPAN, False)])
def test_a_caller_is_searched_from_its_mark(late, found):
    """A caller is found among the ``SPAN`` arrivals from its mark, and the search ends there."""
    queue = busy()
    mark = arrive(queue, "a" * late + "b")
    assert found == (queue.withdraw(mark, "B") is not None)


def test_a_caller_is_not_found_before_its_mark():
    """A caller that arrived before the mark is another call of the same waiter, and stays."""
    queue = busy()
    arrive(queue, "a")
    queue.plan()
    arrive(queue, "b")
    assert (None, 2) == (queue.withdraw(queue.mark, "A"), queue.waiting)


def test_withdrawing_all_returns_the_entries():
    """All callers leave at once, except those that have left before or whose batch runs."""
    queue = new()
    mark = arrive(queue, "abcde")
    queue.take(0.0)
    queue.withdraw(mark, "D")
    assert [(2, ("c", "C", 0.0)), (4, ("e", "E", 0.0))] == queue.withdraw_all()
    assert (0, [], 5) == (queue.waiting, queue.entries, queue.arrivals)


def test_the_queue_continues_after_all_have_left():
    """After all callers have left, the next arrival matters and makes a batch."""
    queue = new()
    arrive(queue, "a")
    queue.withdraw_all()
    arrive(queue, "b")
    assert (True, ["b"]) == (matters(queue), leave(queue))


def test_every_arrival_in_a_closed_queue_matters():
    """In a closed queue each arrival matters, also while all slots are taken and after a plan."""
    queue = busy()
    queue.closed = True
    queue.plan()
    assert matters(queue)


def test_a_late_arrival_in_a_retired_queue_can_be_withdrawn():
    """A retired queue returns its calls and their places; a call that still joins it matters, and can leave it."""
    queue = busy()
    arrive(queue, "ab")
    entries, places = queue.retire()
    assert [(1, ("a", "A", 0.0)), (2, ("b", "B", 0.0))] == entries
    assert len(queue.places) == places
    mark = arrive(queue, "c", 1.5)
    assert matters(queue)
    assert ("c", "C", 1.5) == queue.withdraw(mark, "C")


def test_a_batch_is_filled_up_for_withdrawn_items():
    """A batch is filled up from behind for callers that left from its middle."""
    queue = new(max_size=4, concurrency=2)
    mark = arrive(queue, "abcdefgh")
    for waiter in ("B", "C", "E"):
        queue.withdraw(mark, waiter)
    assert "adfg" == "".join(queue.take(0.0).items)


def test_a_batch_is_not_full_without_further_items():
    """If callers left from the middle and the end, the remaining items leave, and the queue is empty."""
    queue = new(max_size=4)
    mark = arrive(queue, "abcd")
    for waiter in ("B", "D"):
        queue.withdraw(mark, waiter)
    assert (["ac"], 0) == (leave(queue), queue.waiting)


def test_the_queue_continues_behind_withdrawn_items():
    """If a batch ends before empty places, the next batch begins behind them."""
    queue = new(max_size=2, concurrency=3)
    mark = arrive(queue, "abcdef")
    for waiter in ("C", "D"):
        queue.withdraw(mark, waiter)
    assert ["ab", "ef"] == leave(queue)


def test_empty_places_do_not_count():
    """Callers that left count neither as waiting nor for a full batch."""
    queue = new(timeout=5.0)
    mark = arrive(queue, "ab")
    queue.withdraw(mark, "B")
    assert (1, None) == (queue.waiting, queue.take(0.0))


def test_a_caller_that_leaves_between_departure_and_run_is_dropped():
    """Items of callers that left between departure and run are dropped, and the others keep their order."""
    queue = new(max_size=3)
    arrive(queue, "abc")
    batch = queue.take(0.0)
    batch.drop([False, True, False])
    assert (["a", "c"], ["A", "C"], [0.0, 0.0]) == (batch.items, batch.waiters, batch.arrived)


def test_a_forgotten_batch_releases_its_items():
    """A forgotten batch releases items and callers, and keeps their arrival times."""
    queue = new()
    arrive(queue, "ab", 1.5)
    batch = queue.take(2.0)
    batch.forget()
    assert ([], [], [1.5, 1.5]) == (batch.items, batch.waiters, batch.arrived)


# Changes of limits.


def test_a_change_of_size_changes_the_plan():
    """After a change of size, the arrival that fills a batch of the new size matters."""
    queue = new(max_size=4, timeout=5.0)
    arrive(queue, "ab")
    queue.change(limits(max_size=3, timeout=5.0))
    queue.plan()
    assert len(queue.places) + WIDTH == queue.wake_length
    arrive(queue, "c")
    assert ["abc"] == leave(queue)


def test_running_batches_keep_their_slots():
    """After a change from one slot to two, with one taken, one more batch may leave."""
    queue = new(max_size=1)
    arrive(queue, "abc")
    assert ["a"] == leave(queue)
    queue.change(limits(max_size=1, concurrency=2))
    assert ["b"] == leave(queue)


# The list of arrivals.


def test_tickets_count_arrivals():
    """A ticket is the number of an arrival, whichever items left in between."""
    queue = new()
    mark = arrive(queue, "abcde")
    leave(queue)
    queue.withdraw(mark, "D")
    assert [(2, ("c", "C", 0.0)), (4, ("e", "E", 0.0))] == [*queue.with_tickets(len(queue.places))]


def test_only_the_entries_up_to_a_place_are_listed():
    """Only the entries up to a place are listed, whichever arrive behind it meanwhile."""
    queue = new()
    arrive(queue, "ab")
    end = len(queue.places)
    arrive(queue, "c")
    assert [0, 1] == [ticket for ticket, _ in queue.with_tickets(end)]


def test_a_batch_without_callers_is_settled():
    """A running batch that lost all of its callers does not hold up those that wait for earlier calls."""
    queue = new(max_size=2)
    arrive(queue, "a", 1.0)
    batch = queue.take(1.0)
    found = [queue.is_settled(1.0)]
    batch.drop([True])
    found.append(queue.is_settled(1.0))
    assert [False, True] == found


def test_a_queue_is_settled_when_no_earlier_call_waits_or_runs():
    """A queue is settled as of a time if all calls that arrived until then have left and are finished."""
    queue = new(max_size=2, concurrency=2)

    def settled():
        return [queue.is_settled(since) for since in (0.5, 1.0, 2.0)]

    found = [settled()]
    arrive(queue, "a", 1.0)
    arrive(queue, "b", 3.0)
    found.append(settled())
    first = queue.take(3.0)
    found.append(settled())
    arrive(queue, "cd", 4.0)
    queue.take(4.0)
    found.append(settled())
    queue.finish(first, 5.0)
    found.append(settled())
    free, taken = [True, True, True], [True, False, False]
    assert [free, taken, taken, taken, free] == found


def test_running_calls_are_counted():
    """The calls of all batches run until they are counted otherwise, except those that left before the run."""
    queue = new(concurrency=2)
    arrive(queue, "abcd")
    first, _ = queue.take(0.0), queue.take(0.0)
    counts = [queue.running_calls]
    first.drop([True, False])
    counts.append(queue.running_calls)
    first.unanswered -= 1
    counts.append(queue.running_calls)
    assert [4, 3, 2] == counts


def test_all_arrivals_are_counted():
    """The number of arrivals includes waiting, withdrawn and departed items."""
    queue = new()
    mark = arrive(queue, "abcde")
    leave(queue)
    queue.withdraw(mark, "D")
    assert (5, 2) == (queue.arrivals, queue.waiting)


@pytest.mark.parametrize("short", [0, 1, 7, SHORT])
def test_cutting_the_list_does_not_affect_items(monkeypatch, short):
    """Wherever the list is cut, items leave in order, and marks stay valid."""
    monkeypatch.setattr("batchify._core.queue.SHORT", short)
    queue = new(max_size=3, timeout=50.0)
    seen = []
    for first in range(0, 80, 4):
        mark = queue.mark
        for number in range(first, first + 4):
            queue.places += (number, number, 0.0)
        queue.withdraw(mark, first + 2)
        batch = queue.take(0.0)
        seen += batch.items
        queue.finish(batch, 0.0)
    queue.flush("close")
    assert [number for number in range(80) if number % 4 != 2] == seen


def test_departed_items_are_released():
    """The queue does not keep items and callers that left alive, however long others wait behind them."""

    class Item:
        pass

    queue = new(timeout=50.0)
    items = [Item(), Item(), Item()]
    for item in items:
        queue.places += (item, item, 0.0)
    gone = [ref(item) for item in items[:2]]
    free_after(queue, 0.0)
    del items, item
    assert [None, None] == [item() for item in gone]


@pytest.mark.parametrize("short", [10, 20])
def test_a_long_list_is_cut(monkeypatch, short):
    """The list of a queue that is never empty does not grow without limit: places of departed items are removed."""
    monkeypatch.setattr("batchify._core.queue.SHORT", short)
    queue = new(max_size=2, timeout=50.0)
    arrive(queue, "wxyz")
    longest = 0
    for _ in range(10 * short):
        arrive(queue, "ab")
        free_after(queue, 0.0)
        longest = max(longest, len(queue.places))
    assert short < longest <= short + 8 * WIDTH


def test_the_list_is_cut_when_more_than_half_of_it_has_left(monkeypatch):
    """Each cut moves fewer places than have left, so a departure costs the same in a long queue as in a short one."""
    monkeypatch.setattr("batchify._core.queue.SHORT", 1)
    queue = new(max_size=1)
    arrive(queue, "abcdefghijkl")
    lengths = []
    for _ in range(8):
        free_after(queue, 0.0)
        lengths.append(len(queue.places))
    assert [12 * WIDTH] * 6 + [5 * WIDTH] * 2 == lengths


def test_a_queue_knows_whether_it_has_one_slot():
    """The number of slots follows changes of the limits."""
    queue = new()
    before = queue.has_one_slot
    queue.change(limits(concurrency=2))
    assert (True, False) == (before, queue.has_one_slot)


def test_the_repr_of_a_queue_shows_its_state():
    """The representation has the number of queued items and of taken slots, and no item."""
    queue = busy(concurrency=3)
    arrive(queue, "a")
    assert "<PlainQueue: 1 waiting, 1 of 3 running>" == repr(queue)


def test_the_repr_of_a_batch_shows_its_state():
    """The representation has size, reason and time of departure, and no item."""
    queue = new()
    arrive(queue, "ab")
    assert "<Batch of 2, full, departed at 1.5>" == repr(queue.take(1.5))
