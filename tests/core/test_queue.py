"""Which items leave together, when, and why."""

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
    """Return an empty core, adaptive and with one slot unless told otherwise."""
    return PlainQueue(limits(**options))


def arrive(queue, items, now=0.0):
    """Let items arrive, each with a caller that has the letter's capital for a name; return their tickets."""
    return [queue.add(item, item.upper(), now) for item in items]


def busy(*, slots=1, now=0.0, **options):
    """Return a core of which so many slots are taken, by one item each."""
    queue = new(**options)
    for _ in range(slots):
        arrive(queue, "x", now)
        if queue.take(now) is None:
            queue.flush("flush")
            queue.take(now)
    return queue


def free(queue, now, number=0):
    """End one of the running batches, the oldest unless told otherwise."""
    queue.finish(queue.running[number], now)


def free_after(queue, now):
    """Let a batch leave and end."""
    queue.finish(queue.take(now), now)


def leave(queue, now=0.0):
    """Return the items of all batches that may leave now."""
    return ["".join(batch.items) for batch in iter(lambda: queue.take(now), None)]


# What leaves together.


def test_nothing_leaves_an_empty_line():
    """Without an arrival there is no batch."""
    assert None is new().take(0.0)


def test_items_leave_in_order_of_arrival():
    """The first items of the line make a batch, and the next ones the next."""
    queue = new(concurrency=3)
    arrive(queue, "abcde")
    assert ["ab", "cd", "e"] == leave(queue)


def test_callers_leave_with_their_items():
    """A batch has the callers of its items, in the same order."""
    queue = new()
    arrive(queue, "abc")
    assert ["A", "B"] == queue.take(0.0).waiters


def test_times_of_arrival_leave_with_their_items():
    """A batch has the time at which each of its items arrived."""
    queue = new()
    arrive(queue, "a", 1.0)
    arrive(queue, "b", 2.0)
    assert [1.0, 2.0] == queue.take(3.0).arrived


def test_a_batch_knows_when_it_departed():
    """The time of departure is that at which the batch was taken, not that at which it might have been."""
    queue = new()
    arrive(queue, "ab", 1.0)
    assert 3.0 == queue.take(3.0).departed


def test_a_batch_knows_the_largest_size():
    """A batch that is not full knows how many items would have filled it."""
    queue = new(max_size=8)
    arrive(queue, "a")
    assert 8 == queue.take(0.0).max_size


def test_equal_items_are_different_arrivals():
    """Items and callers that are equal, or the same object, leave one for each arrival."""
    queue = new(max_size=3)
    arrive(queue, "aaa")
    assert (["a"] * 3, ["A"] * 3) == ((batch := queue.take(0.0)).items, batch.waiters)


def test_none_is_an_item_like_any_other():
    """``None`` may be an item, and a caller."""
    queue = new()
    queue.add(None, None, 0.0)
    assert ([None], [None]) == ((batch := queue.take(0.0)).items, batch.waiters)


def test_items_are_never_looked_at():
    """Items and callers are neither compared, hashed nor tested for truth on their way."""
    queue = new(max_size=2, concurrency=2)
    tickets = [queue.add(Untouchable(), Untouchable(), 0.0) for _ in range(5)]
    queue.withdraw(tickets[1])
    batch = queue.take(0.0)
    batch.drop([True, False])
    queue.abandon(tickets[0])
    queue.finish(batch, 0.0)
    assert 2 == queue.waiting


def test_the_batch_function_owns_its_list():
    """What is done to the items of a batch changes neither its callers nor what still waits."""
    queue = new(concurrency=2)
    arrive(queue, "abc")
    batch = queue.take(0.0)
    batch.items.clear()
    queue.flush("flush")
    assert (["A", "B"], ["c"]) == (batch.waiters, queue.take(0.0).items)


def test_no_more_batches_run_than_there_are_slots():
    """With all slots taken even a full batch stays."""
    queue = new(max_size=1, concurrency=2)
    arrive(queue, "abc")
    assert (["a", "b"], 1) == (leave(queue), queue.waiting)


def test_a_free_slot_is_taken_again():
    """When a batch is over, another may leave."""
    queue = new(max_size=1, concurrency=2)
    arrive(queue, "abc")
    leave(queue)
    free(queue, 1.0)
    assert ["c"] == leave(queue, 1.0)


def test_batches_may_end_in_any_order():
    """Ending a younger batch frees its slot, and the older one runs on."""
    queue = new(max_size=1, concurrency=2)
    arrive(queue, "abc")
    first, second = queue.take(0.0), queue.take(0.0)
    queue.finish(second, 1.0)
    third = queue.take(1.0)
    assert [first, third] == queue.running


# When a batch leaves, and why.


def test_a_full_batch_leaves_at_once():
    """As many items as fill a batch do not wait for the end of their window."""
    queue = new(timeout=5.0)
    arrive(queue, "ab")
    assert "full" == reason(queue, 0.0)


def test_a_batch_that_is_not_full_waits_for_its_window():
    """Just before the end of the window nothing leaves."""
    queue = new(timeout=5.0)
    arrive(queue, "a", 1.0)
    assert None is reason(queue, math.nextafter(6.0, 0.0))


def test_a_batch_leaves_at_the_end_of_its_window():
    """At the very end of the window, what is there leaves."""
    queue = new(timeout=5.0)
    arrive(queue, "a", 1.0)
    assert "timeout" == reason(queue, 6.0)


def test_later_arrivals_do_not_push_the_window_back():
    """The window is that of the first item."""
    queue = new(timeout=5.0, max_size=3)
    arrive(queue, "a", 1.0)
    arrive(queue, "b", 5.0)
    assert ["ab"] == leave(queue, 6.0)


def test_the_rest_has_a_window_of_its_own():
    """What a full batch leaves behind waits from its own arrival, not from that of the first."""
    queue = new(timeout=5.0, concurrency=2)
    arrive(queue, "ab", 1.0)
    arrive(queue, "c", 2.0)
    assert (["ab"], 7.0) == (leave(queue, 2.0), queue.wake_at)


def test_a_timeout_of_nothing():
    """With a timeout of 0 an item leaves when it arrives."""
    queue = new(timeout=0.0)
    arrive(queue, "a", 1.0)
    assert "timeout" == reason(queue, 1.0)


def test_idle_means_at_once():
    """With adaptive timing and nothing running, what is there leaves at once."""
    queue = new()
    arrive(queue, "a", 1.0)
    assert "idle" == reason(queue, 1.0)


def test_waiting_for_a_slot_counts():
    """Time spent waiting for a busy function is part of the window: when a slot falls free, what is due leaves."""
    queue = busy(timeout=5.0)
    arrive(queue, "a", 1.0)
    free(queue, 7.0)
    assert "slot" == reason(queue, 7.0)


def test_a_slot_that_falls_free_beside_another_is_no_reason():
    """With a second slot free all along, who leaves late leaves because its window is over."""
    queue = busy(timeout=4.0, concurrency=2)
    arrive(queue, "a", 5.0)
    free(queue, 10.0)
    assert "timeout" == reason(queue, 10.0)


def test_a_free_slot_does_not_end_a_window():
    """When a slot falls free, an item whose window is not over waits on, and leaves because it is."""
    queue = busy(timeout=5.0)
    arrive(queue, "a", 3.0)
    free(queue, 7.0)
    assert (None, "timeout") == (reason(queue, 7.0), reason(queue, 8.0))


def test_a_window_that_ends_when_a_slot_falls_free_waited_for_it():
    """At the very end of its window an item may leave, so that a slot that falls free then is what it waited for."""
    queue = busy(timeout=5.0)
    arrive(queue, "a", 2.0)
    free(queue, 7.0)
    assert "slot" == reason(queue, 7.0)


def test_an_arrival_at_a_free_slot_did_not_wait_for_it():
    """What arrives when a slot has just fallen free leaves for another reason."""
    queue = busy(timeout=0.0)
    free(queue, 7.0)
    arrive(queue, "a", 7.0)
    assert "timeout" == reason(queue, 7.0)


def test_a_free_slot_among_free_slots_is_no_reason():
    """A batch that ends while another slot is free has kept nobody waiting."""
    queue = busy(timeout=5.0, concurrency=2)
    arrive(queue, "a", 0.0)
    free(queue, 1.0)
    assert "timeout" == reason(queue, 5.0)


def test_adaptive_batches_leave_when_a_slot_falls_free():
    """With adaptive timing and one slot, what gathered meanwhile leaves when the running batch is over."""
    queue = busy(max_size=8)
    arrive(queue, "ab", 1.0)
    free(queue, 7.0)
    assert ("slot", ["A", "B"]) == ((batch := queue.take(7.0)).reason, batch.waiters)


def test_adaptive_departures_keep_a_distance():
    """With two slots and a run time of 8 s, the next batch leaves 4 s after the last one while that one runs."""
    queue = busy(max_size=8, concurrency=2)
    free(queue, 8.0)
    arrive(queue, "a", 10.0)
    leave(queue, 10.0)
    arrive(queue, "b", 11.0)
    assert (14.0, None, "timeout") == (queue.wake_at, reason(queue, 13.9), reason(queue, 14.0))


def test_a_batch_that_did_not_run_has_no_run_time():
    """A batch whose callers all left before it ran does not shorten the distance that departures keep."""
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
    """With a slot free, a full batch leaves at once however short ago the last one left."""
    queue = busy(concurrency=2)
    free(queue, 8.0)
    arrive(queue, "a", 10.0)
    leave(queue, 10.0)
    arrive(queue, "bc", 10.0)
    assert "full" == reason(queue, 10.0)


def test_full_goes_before_all_other_reasons():
    """A full batch that waited for a slot, and was told to leave, left because it was full."""
    queue = busy()
    arrive(queue, "ab")
    queue.flush("flush")
    free(queue, 9.0)
    assert "full" == reason(queue, 9.0)


@pytest.mark.parametrize("why", ["flush", "close"])
def test_what_is_told_to_leave_leaves(why):
    """What waits when it is told to leave does so before its window is over, for the reason given."""
    queue = new(timeout=5.0)
    arrive(queue, "a")
    queue.flush(why)
    assert why == reason(queue, 1.0)


def test_what_arrives_later_was_not_told_to_leave():
    """Who arrives after the others were told to leave has its whole window."""
    queue = new(timeout=5.0, concurrency=2)
    arrive(queue, "a", 0.0)
    queue.flush("flush")
    queue.take(1.0)
    arrive(queue, "b", 2.0)
    assert (None, 7.0) == (queue.take(2.0), queue.wake_at)


def test_who_is_told_to_leave_takes_others_along():
    """A batch that was told to leave is filled up with what arrived since."""
    queue = busy(timeout=5.0, max_size=3)
    arrive(queue, "a")
    queue.flush("flush")
    arrive(queue, "b")
    free(queue, 1.0)
    assert ["ab"] == leave(queue, 1.0)


def test_a_slot_is_needed_even_so():
    """What was told to leave waits for a slot."""
    queue = busy(timeout=5.0)
    arrive(queue, "a")
    queue.flush("flush")
    assert (None, None) == (reason(queue, 1.0), queue.wake_at)


def test_the_order_to_leave_lasts():
    """What was told to leave while all slots were busy does so when one falls free, window or no window."""
    queue = busy(timeout=50.0)
    arrive(queue, "a")
    queue.flush("flush")
    free(queue, 1.0)
    assert "flush" == reason(queue, 1.0)


def test_the_last_order_counts():
    """Who is told to leave twice leaves for the second reason."""
    queue = new(timeout=5.0)
    arrive(queue, "a")
    queue.flush("flush")
    queue.flush("close")
    assert "close" == reason(queue, 1.0)


# When to ask.


def test_an_empty_line_needs_no_waking():
    """With nobody waiting there is no time to ask at."""
    assert None is new().wake_at


def test_busy_slots_need_no_waking():
    """While all slots are busy there is no time to ask at, even for a full batch."""
    queue = busy()
    arrive(queue, "ab")
    assert None is queue.wake_at


def test_wake_at_the_end_of_the_window():
    """The time to ask at is the end of the window of the first item."""
    queue = new(timeout=5.0)
    arrive(queue, "a", 1.0)
    assert 6.0 == queue.wake_at


def test_wake_at_the_end_of_the_next_window():
    """When the first item is withdrawn, the window of the next one counts."""
    queue = new(timeout=5.0, max_size=3)
    first, _ = [*arrive(queue, "a", 1.0), *arrive(queue, "b", 3.0)]
    queue.withdraw(first)
    assert 8.0 == queue.wake_at


def test_a_full_batch_is_overdue():
    """For a full batch the time to ask at is past."""
    queue = new(timeout=5.0)
    arrive(queue, "ab", 1.0)
    assert 1.0 == queue.wake_at


def test_what_is_told_to_leave_is_overdue():
    """For what was told to leave the time to ask at is past."""
    queue = new(timeout=5.0)
    arrive(queue, "a", 1.0)
    queue.flush("flush")
    assert 1.0 == queue.wake_at


def test_the_first_arrival_rings():
    """The first arrival at an empty line with a free slot is worth asking about."""
    queue = new(max_size=3)
    assert queue.wake_ticket == arrive(queue, "a")[0]


def test_the_arrival_that_fills_a_batch_rings():
    """After the first, the arrival that fills a batch is the next to be worth asking about."""
    queue = new(timeout=5.0, max_size=3)
    arrive(queue, "a")
    queue.reset_wake_ticket()
    wake_ticket = queue.wake_ticket
    assert wake_ticket == arrive(queue, "bc")[-1]


def test_arrivals_ring_until_they_are_heard():
    """An alarm that nobody acted upon rings again at the next arrival."""
    queue = new(max_size=3)
    assert queue.wake_ticket < arrive(queue, "ab")[-1]


def test_nobody_rings_while_all_slots_are_busy():
    """While all slots are busy there is no alarm."""
    assert NEVER == busy().wake_ticket


def test_a_free_slot_sets_the_alarm():
    """When a slot falls free, the alarm is again the arrival that fills a batch."""
    queue = busy(timeout=50.0, max_size=3)
    ticket = arrive(queue, "a")[0]
    free(queue, 1.0)
    assert ticket + 2 == queue.wake_ticket


def test_who_leaves_the_line_sets_the_alarm():
    """When a caller leaves, it takes one more arrival to fill a batch."""
    queue = new(timeout=5.0, max_size=3)
    tickets = arrive(queue, "ab")
    queue.withdraw(tickets[0])
    assert tickets[1] + 2 == queue.wake_ticket


def test_an_emptied_line_sets_the_alarm():
    """When the last caller leaves, the next arrival is the first one again."""
    queue = new(timeout=5.0, max_size=3)
    (ticket,) = arrive(queue, "a")
    queue.withdraw(ticket)
    assert ticket + 1 == queue.wake_ticket


def test_hearing_the_alarm_tells_of_a_full_batch():
    """Whoever hears the alarm is told that a full batch may leave."""
    queue = new()
    arrive(queue, "ab")
    queue.reset_wake_ticket()
    assert queue.has_full


def test_hearing_the_alarm_tells_of_a_first_arrival():
    """Whoever hears the alarm is told when it was only for the first of a line."""
    queue = new()
    arrive(queue, "a")
    queue.reset_wake_ticket()
    assert not queue.has_full


def test_hearing_an_alarm_too_late():
    """A full batch may not leave when the last slot was taken meanwhile."""
    queue = busy()
    arrive(queue, "ab")
    queue.reset_wake_ticket()
    assert not queue.has_full


# Who leaves without an answer.


def test_who_withdraws_is_in_no_batch():
    """A caller that leaves the line takes its item with it, and the others close up."""
    queue = new(max_size=3)
    tickets = arrive(queue, "abcd")
    queue.withdraw(tickets[1])
    batch = queue.take(0.0)
    assert (["a", "c", "d"], ["A", "C", "D"]) == (batch.items, batch.waiters)


def test_withdrawing_returns_what_was_waiting():
    """Item, caller and time of arrival are returned; the second time, there is nothing left to withdraw."""
    queue = new(max_size=3)
    ticket = arrive(queue, "abc", 1.5)[1]
    assert (("b", "B", 1.5), None) == (queue.withdraw(ticket), queue.withdraw(ticket))


def test_what_waits_can_be_listed():
    """Listed are item, caller and time of arrival of who waits, in order, and nobody who left."""
    queue = new(max_size=1)
    tickets = arrive(queue, "abcd", 1.5)
    queue.take(2.0)
    queue.withdraw(tickets[2])
    assert [("b", "B", 1.5), ("d", "D", 1.5)] == queue.entries


def test_a_waiting_item_is_shown_frozen():
    """What is shown of an item that waits can't be set."""
    with pytest.raises(FrozenInstanceError):
        BatchItem("data", None, 1.5).data = "other"


def test_the_first_of_the_line_is_withdrawn_once():
    """Withdrawing the head twice does no harm to who stands there now."""
    queue = new(max_size=3)
    ticket = arrive(queue, "ab")[0]
    queue.withdraw(ticket)
    assert (None, 1) == (queue.withdraw(ticket), queue.waiting)


def test_who_has_departed_can_not_withdraw():
    """An item that left with a batch is no longer waiting."""
    queue = new()
    ticket = arrive(queue, "ab")[0]
    queue.take(0.0)
    assert None is queue.withdraw(ticket)


def test_who_has_departed_can_not_withdraw_with_others_waiting():
    """The same, when the line goes on behind the batch."""
    queue = new()
    tickets = arrive(queue, "abc")
    queue.take(0.0)
    assert [None, None, ("c", "C", 0.0)] == [queue.withdraw(ticket) for ticket in tickets]


def test_a_batch_is_filled_up_for_who_withdrew():
    """A full batch is full although callers left from its middle, as far as there are others."""
    queue = new(max_size=4, concurrency=2)
    tickets = arrive(queue, "abcdefgh")
    for place in (1, 2, 4):
        queue.withdraw(tickets[place])
    assert "adfg" == "".join(queue.take(0.0).items)


def test_a_batch_is_not_full_for_lack_of_others():
    """With callers gone from the middle and the end, what is left leaves, and the line is empty."""
    queue = new(max_size=4)
    tickets = arrive(queue, "abcd")
    for place in (1, 3):
        queue.withdraw(tickets[place])
    assert (["ac"], 0) == (leave(queue), queue.waiting)


def test_the_line_goes_on_behind_who_withdrew():
    """A batch that ends before places of callers who left is followed by who stands behind them."""
    queue = new(max_size=2, concurrency=3)
    tickets = arrive(queue, "abcdef")
    for place in (2, 3):
        queue.withdraw(tickets[place])
    assert ["ab", "ef"] == leave(queue)


def test_places_of_who_withdrew_count_for_nothing():
    """Neither the number that wait nor a full batch counts callers that left."""
    queue = new(timeout=5.0)
    tickets = arrive(queue, "ab")
    queue.withdraw(tickets[1])
    assert (1, None) == (queue.waiting, queue.take(0.0))


def test_the_last_caller_of_a_running_batch():
    """When the last caller of a running batch has left, the batch is named, so that it can be cancelled."""
    queue = new()
    tickets = arrive(queue, "ab")
    batch = queue.take(0.0)
    assert [None, batch] == [queue.abandon(ticket) for ticket in tickets]


def test_each_batch_is_abandoned_by_its_own_callers():
    """Callers of one batch have nothing to do with another one."""
    queue = new(max_size=1, concurrency=2)
    tickets = arrive(queue, "ab")
    _, second = queue.take(0.0), queue.take(0.0)
    assert second is queue.abandon(tickets[1])


def test_a_batch_that_is_over_can_not_be_abandoned():
    """A caller that leaves when its batch is over is nobody's last."""
    queue = new()
    tickets = arrive(queue, "ab")
    queue.take(0.0)
    free(queue, 1.0)
    assert [None, None] == [queue.abandon(ticket) for ticket in tickets]


def test_who_leaves_a_batch_that_is_over_leaves_no_later_one():
    """A caller that leaves when its batch is over is not taken for a caller of the batch that runs by then."""
    queue = new(max_size=1)
    tickets = arrive(queue, "ab")
    free_after(queue, 1.0)
    batch = queue.take(1.0)
    assert [None, batch] == [queue.abandon(ticket) for ticket in tickets]


def test_who_left_at_the_last_moment_is_taken_out():
    """Items of callers that left between the line and the function are dropped, the others keep their order."""
    queue = new(max_size=3)
    arrive(queue, "abc")
    batch = queue.take(0.0)
    batch.drop([False, True, False])
    assert (["a", "c"], ["A", "C"], [0.0, 0.0]) == (batch.items, batch.waiters, batch.arrived)


def test_who_was_taken_out_is_not_the_last_to_leave():
    """A caller that was dropped and then says that it left is no caller of the batch any more."""
    queue = new(max_size=3)
    tickets = arrive(queue, "abc")
    batch = queue.take(0.0)
    batch.drop([False, True, False])
    assert [None, None, batch] == [queue.abandon(tickets[place]) for place in (1, 0, 2)]


def test_who_was_answered_by_another_does_not_say_so():
    """A caller that was dropped because somebody else answered it is not waited for to leave."""
    queue = new(max_size=3)
    tickets = arrive(queue, "abc")
    batch = queue.take(0.0)
    batch.drop([False, True, False], answered=1)
    assert [None, batch] == [queue.abandon(tickets[place]) for place in (0, 2)]


def test_a_batch_can_be_forgotten():
    """A batch that is over lets go of items and callers; when they arrived stays known."""
    queue = new()
    arrive(queue, "ab", 1.5)
    batch = queue.take(2.0)
    batch.forget()
    assert ([], [], [1.5, 1.5], ()) == (batch.items, batch.waiters, batch.arrived, batch.tickets)


# Other limits.


def test_the_alarm_of_a_core_that_changes():
    """A core that changes rings at the arrival that fills a batch of the new size."""
    queue = new(max_size=4, timeout=5.0)
    arrive(queue, "ab")
    queue.change(limits(max_size=3, timeout=5.0))
    assert 2 == queue.wake_ticket
    arrive(queue, "c")
    assert ["abc"] == leave(queue)


def test_batches_that_run_keep_their_slots():
    """With one slot taken of what are two now, one more batch may leave."""
    queue = new(max_size=1)
    arrive(queue, "abc")
    assert ["a"] == leave(queue)
    queue.change(limits(max_size=1, concurrency=2))
    assert ["b"] == leave(queue)


# The line.


def test_tickets_count_arrivals():
    """A ticket is the number of an arrival, whatever left in between."""
    queue = new()
    first = arrive(queue, "ab")
    leave(queue)
    free(queue, 0.0)
    assert [0, 1, 2] == first + arrive(queue, "c")


def test_arrivals_are_counted_for_ever():
    """The number of arrivals counts who waits, who left the line and who departed."""
    queue = new()
    tickets = arrive(queue, "abcde")
    leave(queue)
    queue.withdraw(tickets[3])
    assert (5, 2) == (queue.arrivals, queue.waiting)


@pytest.mark.parametrize("short", [0, 1, 7, SHORT])
def test_cutting_the_line_changes_nothing(monkeypatch, short):
    """Wherever the line is cut, items leave in order, and tickets stay what they were."""
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


def test_what_has_left_is_let_go_of():
    """The line does not hold on to items and callers that left, however long others wait behind them."""

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
def test_the_line_is_cut_when_it_is_long(monkeypatch, short):
    """A line that never empties does not grow for ever: what has left is cut off, and what waits is kept."""
    monkeypatch.setattr("batchify._core.queue.SHORT", short)
    queue = new(max_size=2, timeout=50.0)
    arrive(queue, "wxyz")
    longest = 0
    for _ in range(10 * short):
        arrive(queue, "ab")
        free_after(queue, 0.0)
        longest = max(longest, len(queue._arrivals.entries))
    assert short < longest <= short + 8


def test_the_line_is_cut_when_more_than_half_of_it_has_left(monkeypatch):
    """Each cut moves fewer places than have left, so that a long line costs each departure no more than a short one."""
    monkeypatch.setattr("batchify._core.queue.SHORT", 1)
    queue = new(max_size=1)
    arrive(queue, "abcdefghijkl")
    lengths = []
    for _ in range(8):
        free_after(queue, 0.0)
        lengths.append(len(queue._arrivals.entries))
    assert [12] * 6 + [5] * 2 == lengths


def test_a_core_shows_its_state():
    """Shown are the number that wait and the slots that are taken, and no item."""
    queue = busy(concurrency=3)
    arrive(queue, "a")
    assert "<PlainQueue: 1 waiting, 1 of 3 running>" == repr(queue)


def test_a_batch_shows_its_state():
    """Shown are size, reason and time of departure, and no item."""
    queue = new()
    arrive(queue, "ab")
    assert "<Batch of 2, full, departed at 1.5>" == repr(queue.take(1.5))
