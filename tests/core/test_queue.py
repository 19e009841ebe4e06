"""The plain queue: its batches, their departures, and the reasons."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError
from weakref import ref

import pytest

from batchify._core.batch import BatchItem
from batchify._core.queue import NEVER, SHORT, PlainQueue
from tests.kit.misbehaving import Untouchable
from tests.kit.queues import limits, reason


def new(**options):
    """Return an empty core, by default adaptive and with one slot."""
    return PlainQueue(limits(**options))


def arrive(queue, items, now=0.0):
    """Queue each letter as an item of the caller named by its capital, and return the tickets."""
    return [queue.add(item, item.upper(), now) for item in items]


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
    queue.add(None, None, 0.0)
    assert ([None], [None]) == ((batch := queue.take(0.0)).items, batch.waiters)


def test_items_are_never_examined():
    """The queue does not compare, hash or test items and callers for truth."""
    queue = new(max_size=2, concurrency=2)
    tickets = [queue.add(Untouchable(), Untouchable(), 0.0) for _ in range(5)]
    queue.withdraw(tickets[1])
    batch = queue.take(0.0)
    batch.drop([True, False])
    queue.abandon(tickets[0])
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
    assert (["ab"], 7.0) == (leave(queue, 2.0), queue.wake_at)


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
    assert (14.0, None, "timeout") == (queue.wake_at, reason(queue, 13.9), reason(queue, 14.0))


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
    assert 14.0 == queue.wake_at


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
    assert (None, 7.0) == (queue.take(2.0), queue.wake_at)


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
    assert (None, None) == (reason(queue, 1.0), queue.wake_at)


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


# Times to wake.


def test_an_empty_queue_needs_no_waking():
    """An empty queue has no time to wake at."""
    assert None is new().wake_at


def test_busy_slots_need_no_waking():
    """While all slots are taken, there is no time to wake at, even for a full batch."""
    queue = busy()
    arrive(queue, "ab")
    assert None is queue.wake_at


def test_the_wake_time_is_the_end_of_the_window():
    """The time to wake at is the end of the first item's window."""
    queue = new(timeout=5.0)
    arrive(queue, "a", 1.0)
    assert 6.0 == queue.wake_at


def test_the_wake_time_after_a_withdrawal_is_the_end_of_the_next_window():
    """After the first item is withdrawn, the window of the next one counts."""
    queue = new(timeout=5.0, max_size=3)
    first, _ = [*arrive(queue, "a", 1.0), *arrive(queue, "b", 3.0)]
    queue.withdraw(first)
    assert 8.0 == queue.wake_at


def test_a_full_batch_is_overdue():
    """For a full batch, the time to wake at is past."""
    queue = new(timeout=5.0)
    arrive(queue, "ab", 1.0)
    assert 1.0 == queue.wake_at


def test_flushed_items_are_overdue():
    """For flushed items, the time to wake at is past."""
    queue = new(timeout=5.0)
    arrive(queue, "a", 1.0)
    queue.flush("flush")
    assert 1.0 == queue.wake_at


def test_the_first_arrival_wakes():
    """The first arrival in an empty queue with a free slot has the wake ticket."""
    queue = new(max_size=3)
    assert queue.wake_ticket == arrive(queue, "a")[0]


def test_the_arrival_that_fills_a_batch_wakes():
    """After the first arrival, the one that fills a batch has the wake ticket."""
    queue = new(timeout=5.0, max_size=3)
    arrive(queue, "a")
    queue.reset_wake_ticket()
    wake_ticket = queue.wake_ticket
    assert wake_ticket == arrive(queue, "bc")[-1]


def test_arrivals_wake_until_the_ticket_is_reset():
    """Until the wake ticket is reset, later arrivals are above it."""
    queue = new(max_size=3)
    assert queue.wake_ticket < arrive(queue, "ab")[-1]


def test_no_arrival_wakes_while_all_slots_are_busy():
    """While all slots are taken, no arrival reaches the wake ticket."""
    assert NEVER == busy().wake_ticket


def test_a_free_slot_sets_the_wake_ticket():
    """When a slot becomes free, the wake ticket is again the arrival that fills a batch."""
    queue = busy(timeout=50.0, max_size=3)
    ticket = arrive(queue, "a")[0]
    free(queue, 1.0)
    assert ticket + 2 == queue.wake_ticket


def test_a_caller_that_leaves_sets_the_wake_ticket():
    """After a caller left, one more arrival is needed to fill a batch."""
    queue = new(timeout=5.0, max_size=3)
    tickets = arrive(queue, "ab")
    queue.withdraw(tickets[0])
    assert tickets[1] + 2 == queue.wake_ticket


def test_an_emptied_queue_sets_the_wake_ticket():
    """After the last caller left, the next arrival is the first one again."""
    queue = new(timeout=5.0, max_size=3)
    (ticket,) = arrive(queue, "a")
    queue.withdraw(ticket)
    assert ticket + 1 == queue.wake_ticket


def test_a_full_batch_remains_after_the_wake_ticket_is_reset():
    """After the wake ticket is reset, the queue still has its full batch."""
    queue = new()
    arrive(queue, "ab")
    queue.reset_wake_ticket()
    assert queue.has_full


def test_a_first_arrival_makes_no_full_batch():
    """After the first arrival, the queue has no full batch."""
    queue = new()
    arrive(queue, "a")
    queue.reset_wake_ticket()
    assert not queue.has_full


def test_a_full_batch_cannot_leave_without_a_slot():
    """A full batch may not leave if the last slot was taken in the meantime."""
    queue = busy()
    arrive(queue, "ab")
    queue.reset_wake_ticket()
    assert not queue.has_full


# Callers that leave without an answer.


def test_a_withdrawn_item_is_in_no_batch():
    """The item of a caller that leaves the queue is in no batch, and later items move up."""
    queue = new(max_size=3)
    tickets = arrive(queue, "abcd")
    queue.withdraw(tickets[1])
    batch = queue.take(0.0)
    assert (["a", "c", "d"], ["A", "C", "D"]) == (batch.items, batch.waiters)


def test_withdrawing_returns_the_entry():
    """The first withdrawal returns item, caller and time of arrival, and the second returns nothing."""
    queue = new(max_size=3)
    ticket = arrive(queue, "abc", 1.5)[1]
    assert (("b", "B", 1.5), None) == (queue.withdraw(ticket), queue.withdraw(ticket))


def test_waiting_entries_can_be_listed():
    """The entries are item, caller and time of arrival, in order, without callers that left."""
    queue = new(max_size=1)
    tickets = arrive(queue, "abcd", 1.5)
    queue.take(2.0)
    queue.withdraw(tickets[2])
    assert [("b", "B", 1.5), ("d", "D", 1.5)] == queue.entries


def test_a_waiting_item_is_shown_frozen():
    """A ``BatchItem`` cannot be changed."""
    with pytest.raises(FrozenInstanceError):
        BatchItem("data", None, 1.5).data = "other"


def test_the_head_is_withdrawn_once():
    """Withdrawing the head twice does not affect the new head."""
    queue = new(max_size=3)
    ticket = arrive(queue, "ab")[0]
    queue.withdraw(ticket)
    assert (None, 1) == (queue.withdraw(ticket), queue.waiting)


def test_a_departed_item_cannot_be_withdrawn():
    """An item that left with a batch cannot be withdrawn."""
    queue = new()
    ticket = arrive(queue, "ab")[0]
    queue.take(0.0)
    assert None is queue.withdraw(ticket)


def test_a_departed_item_cannot_be_withdrawn_while_others_wait():
    """The same is true if other items still wait."""
    queue = new()
    tickets = arrive(queue, "abc")
    queue.take(0.0)
    assert [None, None, ("c", "C", 0.0)] == [queue.withdraw(ticket) for ticket in tickets]


def test_a_batch_is_filled_up_for_withdrawn_items():
    """A batch is filled up from behind for callers that left from its middle."""
    queue = new(max_size=4, concurrency=2)
    tickets = arrive(queue, "abcdefgh")
    for place in (1, 2, 4):
        queue.withdraw(tickets[place])
    assert "adfg" == "".join(queue.take(0.0).items)


def test_a_batch_is_not_full_without_further_items():
    """If callers left from the middle and the end, the remaining items leave, and the queue is empty."""
    queue = new(max_size=4)
    tickets = arrive(queue, "abcd")
    for place in (1, 3):
        queue.withdraw(tickets[place])
    assert (["ac"], 0) == (leave(queue), queue.waiting)


def test_the_queue_continues_behind_withdrawn_items():
    """If a batch ends before empty places, the next batch begins behind them."""
    queue = new(max_size=2, concurrency=3)
    tickets = arrive(queue, "abcdef")
    for place in (2, 3):
        queue.withdraw(tickets[place])
    assert ["ab", "ef"] == leave(queue)


def test_empty_places_do_not_count():
    """Callers that left count neither as waiting nor for a full batch."""
    queue = new(timeout=5.0)
    tickets = arrive(queue, "ab")
    queue.withdraw(tickets[1])
    assert (1, None) == (queue.waiting, queue.take(0.0))


def test_the_last_caller_abandons_a_running_batch():
    """``abandon()`` returns a running batch when its last caller leaves, so that it can be cancelled."""
    queue = new()
    tickets = arrive(queue, "ab")
    batch = queue.take(0.0)
    assert [None, batch] == [queue.abandon(ticket) for ticket in tickets]


def test_each_batch_is_abandoned_by_its_own_callers():
    """Callers of one batch do not count for another one."""
    queue = new(max_size=1, concurrency=2)
    tickets = arrive(queue, "ab")
    _, second = queue.take(0.0), queue.take(0.0)
    assert second is queue.abandon(tickets[1])


def test_a_finished_batch_cannot_be_abandoned():
    """A caller that leaves after its batch is finished abandons nothing."""
    queue = new()
    tickets = arrive(queue, "ab")
    queue.take(0.0)
    free(queue, 1.0)
    assert [None, None] == [queue.abandon(ticket) for ticket in tickets]


def test_leaving_a_finished_batch_does_not_affect_a_later_one():
    """A caller that leaves after its batch is finished does not count for the batch that runs at that time."""
    queue = new(max_size=1)
    tickets = arrive(queue, "ab")
    free_after(queue, 1.0)
    batch = queue.take(1.0)
    assert [None, batch] == [queue.abandon(ticket) for ticket in tickets]


def test_a_caller_that_leaves_between_departure_and_run_is_dropped():
    """Items of callers that left between departure and run are dropped, and the others keep their order."""
    queue = new(max_size=3)
    arrive(queue, "abc")
    batch = queue.take(0.0)
    batch.drop([False, True, False])
    assert (["a", "c"], ["A", "C"], [0.0, 0.0]) == (batch.items, batch.waiters, batch.arrived)


def test_a_dropped_caller_is_not_the_last_to_leave():
    """A dropped caller that then calls ``abandon()`` does not count as a caller of the batch."""
    queue = new(max_size=3)
    tickets = arrive(queue, "abc")
    batch = queue.take(0.0)
    batch.drop([False, True, False])
    assert [None, None, batch] == [queue.abandon(tickets[place]) for place in (1, 0, 2)]


def test_a_caller_answered_by_other_code_does_not_leave():
    """A caller dropped because other code answered it never calls ``abandon()``."""
    queue = new(max_size=3)
    tickets = arrive(queue, "abc")
    batch = queue.take(0.0)
    batch.drop([False, True, False], answered=1)
    assert [None, batch] == [queue.abandon(tickets[place]) for place in (0, 2)]


def test_a_forgotten_batch_releases_its_items():
    """A forgotten batch releases items and callers, and keeps their arrival times."""
    queue = new()
    arrive(queue, "ab", 1.5)
    batch = queue.take(2.0)
    batch.forget()
    assert ([], [], [1.5, 1.5], ()) == (batch.items, batch.waiters, batch.arrived, batch.tickets)


# Changes of limits.


def test_a_change_of_size_sets_the_wake_ticket():
    """After a change of size, the wake ticket is the arrival that fills a batch of the new size."""
    queue = new(max_size=4, timeout=5.0)
    arrive(queue, "ab")
    queue.change(limits(max_size=3, timeout=5.0))
    assert 2 == queue.wake_ticket
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
    first = arrive(queue, "ab")
    leave(queue)
    free(queue, 0.0)
    assert [0, 1, 2] == first + arrive(queue, "c")


def test_all_arrivals_are_counted():
    """The number of arrivals includes waiting, withdrawn and departed items."""
    queue = new()
    tickets = arrive(queue, "abcde")
    leave(queue)
    queue.withdraw(tickets[3])
    assert (5, 2) == (queue.arrivals, queue.waiting)


@pytest.mark.parametrize("short", [0, 1, 7, SHORT])
def test_cutting_the_list_does_not_affect_items(monkeypatch, short):
    """Wherever the list is cut, items leave in order, and tickets stay valid."""
    monkeypatch.setattr("batchify._core.queue.SHORT", short)
    queue = new(max_size=3, timeout=50.0)
    tickets, seen = [], []
    for _ in range(20):
        tickets += [queue.add(queue.arrivals, None, 0.0) for _ in range(4)]
        queue.withdraw(tickets[-2])
        batch = queue.take(0.0)
        seen += batch.items
        queue.finish(batch, 0.0)
    queue.flush("close")
    assert [ticket for ticket in range(80) if ticket % 4 != 2] == seen


def test_departed_items_are_released():
    """The queue does not keep items and callers that left alive, however long others wait behind them."""

    class Item:
        pass

    queue = new(timeout=50.0)
    items = [Item(), Item(), Item()]
    for item in items:
        queue.add(item, item, 0.0)
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
        longest = max(longest, len(queue._arrivals.entries))
    assert short < longest <= short + 8


def test_the_list_is_cut_when_more_than_half_of_it_has_left(monkeypatch):
    """Each cut moves fewer places than have left, so a departure costs the same in a long queue as in a short one."""
    monkeypatch.setattr("batchify._core.queue.SHORT", 1)
    queue = new(max_size=1)
    arrive(queue, "abcdefghijkl")
    lengths = []
    for _ in range(8):
        free_after(queue, 0.0)
        lengths.append(len(queue._arrivals.entries))
    assert [12] * 6 + [5] * 2 == lengths


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
