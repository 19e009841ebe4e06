"""Calls, batches, flushing, closing and statistics, tested on both engines and across the bridge."""

from __future__ import annotations

import contextvars
import gc
import sys
import threading

import pytest

import batchify
from batchify import BatcherClosedError, BatchResultError, microbatch
from tests.kit.engines import HOUR, PATIENCE, doubled, wait_until


def test_a_call_returns_the_result_for_its_item(kit):
    """A call with one item returns the result for that item."""
    double, _ = kit.decorate()
    assert 6 == kit.call(double, 3).result(PATIENCE)


def test_items_that_arrive_while_a_batch_runs_share_the_next_one(kit):
    """Items that arrive while a batch runs share the next one, in order of arrival."""
    double, gate = kit.decorate()
    gate.shut()
    first = kit.call_waiting(double, 0)
    gate.await_batch()
    others = kit.call_waiting(double, 1, 2, 3)
    gate.open()
    assert [0, 2, 4, 6] == kit.results(first + others)
    assert [[0], [1, 2, 3]] == gate.batches


def test_a_batch_is_never_larger_than_max_size(kit):
    """An item that does not fit into a batch goes into the next one."""
    double, gate = kit.decorate(max_size=2)
    gate.shut()
    callers = kit.call_waiting(double, 0)
    gate.await_batch()
    callers += kit.call_waiting(double, 1, 2, 3)
    gate.open()
    assert [0, 2, 4, 6] == kit.results(callers)
    assert [[0], [1, 2], [3]] == gate.batches


def test_a_full_batch_starts_before_its_window_ends(kit):
    """A full batch starts before its window ends."""
    double, gate = kit.decorate(max_size=2, timeout=3600)
    assert [2, 4] == kit.results(kit.call_waiting(double, 1, 2))
    assert [[1, 2]] == gate.batches
    assert 1 == double.batch_stats.reasons["full"]


def test_a_window_of_zero_starts_waiting_items_together(kit):
    """With ``timeout=0``, waiting items start together as soon as a slot is free."""
    double, gate = kit.held(timeout=0)
    callers = kit.call_waiting(double, 1, 2, 3)
    gate.open()
    assert [2, 4, 6] == kit.results(callers)
    assert [[0], [1, 2, 3]] == gate.batches


def test_concurrency_limits_the_running_batches(kit):
    """At most ``concurrency`` batches run at once."""
    double, gate = kit.decorate(max_size=1, timeout=0, concurrency=2)
    gate.shut()
    callers = kit.call_waiting(double, 1, 2, 3)
    gate.await_batch()
    gate.await_batch()
    assert (2, 1) == (double.batch_stats.running, double.batch_stats.pending)
    gate.open()
    assert [2, 4, 6] == kit.results(callers)


def test_every_caller_gets_its_own_exception(kit):
    """Every caller of a failed batch gets its own exception, whose cause is the original."""
    original = ValueError("no", 1)

    def fail(items):
        raise original

    double, gate = kit.decorate(fail, max_size=2, timeout=3600)
    errors = kit.errors(kit.call_waiting(double, 1, 2))
    assert [(ValueError, ("no", 1))] * 2 == [(type(error), error.args) for error in errors]
    assert [original, original] == [error.__cause__ for error in errors]
    assert errors[0] is not errors[1]
    assert 2 == double.batch_stats.failed_items


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exceptions have notes since Python 3.11")
def test_a_note_names_the_position_of_the_item(kit):
    """The exception of a caller has a note with the function, the position of its item and the batch size."""

    def fail(items):
        raise KeyError

    double, gate = kit.decorate(fail, max_size=2, timeout=3600)
    errors = kit.errors(kit.call_waiting(double, 1, 2))
    notes = [note for error in errors for note in error.__notes__]
    assert [f"raised by double() for item {position} of a batch of 2" for position in (1, 2)] == notes


def test_an_exception_as_a_result_fails_one_call(kit):
    """A result that is an exception is raised in its own caller; other callers get their results."""
    error = KeyError("odd")
    double, _ = kit.decorate(lambda items: [error if item % 2 else item for item in items], max_size=3, timeout=3600)
    callers = kit.call_waiting(double, 1, 2, 4)
    assert [2, 4] == kit.results(callers[1:])
    assert error is callers[0].exception(PATIENCE)
    assert (1, 2) == (double.batch_stats.failed_items, double.batch_stats.answered_items)


def test_results_may_be_any_sequence(kit):
    """Results may be a tuple or any other sequence."""
    double, _ = kit.decorate(tuple, max_size=2, timeout=3600)
    assert [1, 2] == kit.results(kit.call_waiting(double, 1, 2))


def test_the_batch_function_may_reuse_its_result_list(kit):
    """The batch function may reuse its result list, because the engine copies the results at once."""
    buffer = []

    def reuse(items):
        buffer[:] = doubled(items)
        return buffer

    double, _ = kit.decorate(reuse, max_size=1)
    assert [2, 4, 6] == kit.results(kit.call_waiting(double, 1, 2, 3))


def test_flush_starts_waiting_items(kit):
    """``flush()`` starts waiting items before their window ends."""
    double, gate = kit.decorate(timeout=3600)
    callers = kit.call_waiting(double, 1, 2)
    double.flush()
    assert [2, 4] == kit.results(callers)
    assert 1 == double.batch_stats.reasons["flush"]


def test_close_runs_waiting_items(kit):
    """``close()`` runs all waiting items, and later calls raise ``BatcherClosedError``."""
    double, gate = kit.decorate(timeout=3600)
    callers = kit.call_waiting(double, 1, 2)
    double.close()
    assert [2, 4] == kit.results(callers)
    assert 1 == double.batch_stats.reasons["close"]
    error = kit.call(double, 3).exception(PATIENCE)
    assert (BatcherClosedError, "double is closed and takes no more calls until it is opened again") == (
        type(error),
        str(error),
    )


def test_close_waits_for_the_running_batch(kit):
    """``close()`` does not return before the callers of the running batch have their answers."""
    double, gate = kit.decorate(name=f"closed while it runs ({kit.name})")
    gate.shut()
    caller = kit.call(double, 1)
    gate.await_batch()
    answered = []
    closing = threading.Thread(target=lambda: (double.close(), answered.append(double.batch_stats.answered_items)))
    closing.start()
    (batcher,) = [each for each in batchify.batchers() if each.name == double.batch_stats.name]
    wait_until(lambda: not batcher.is_running)
    gate.open()
    closing.join(PATIENCE)
    assert [1] == answered
    assert 2 == caller.result(PATIENCE)


def test_a_second_close_does_nothing(kit):
    """A second ``close()`` does nothing, even if no call was made."""
    double, _ = kit.decorate()
    double.close()
    double.close()
    assert isinstance(kit.call(double, 1).exception(PATIENCE), BatcherClosedError)


def test_submit_returns_a_future(kit):
    """``submit()`` queues its item at once and returns a future of the result."""
    double, gate = kit.decorate(timeout=3600)
    future = kit.run(lambda: double.submit(4))
    assert 1 == double.batch_stats.pending
    kit.run(double.flush)
    wait_until(future.done)
    assert 8 == future.result()


def test_a_batch_without_callers_does_not_run(kit):
    """If all callers cancel, the batch function is not called; the next call is answered."""
    double, gate = kit.decorate(timeout=3600)
    futures = kit.run(lambda: [double.submit(1), double.submit(2)])
    kit.run(lambda: [future.cancel() for future in futures])
    wait_until(lambda: double.batch_stats.pending == 0)
    kit.run(double.flush)
    later = kit.call_waiting(double, 3)
    double.flush()
    assert [6] == kit.results(later)
    assert [[3]] == gate.batches


def test_all_statistics_are_zero_before_the_first_call(kit):
    """All statistics are zero before the first call."""
    double, _ = kit.decorate()
    assert batchify.BatchStats("double") == double.batch_stats


def test_statistics_count_calls_and_batches(kit):
    """Statistics count calls and batches, and measure batch sizes, waits and run times."""
    double, _ = kit.decorate(max_size=2, timeout=3600)
    kit.results(kit.call_waiting(double, 1, 2, 3, 4))
    stats = double.batch_stats
    assert (4, 2, 2.0, 2) == (stats.total_items, stats.total_batches, stats.avg_batch_size, stats.max_batch_size_seen)
    assert ({2: 2}, 1.0, 4) == (stats.size_histogram, stats.fill_ratio, stats.answered_items)
    assert 0 < stats.wait_ms.p50 <= stats.wait_ms.p90 <= stats.wait_ms.p99 <= stats.wait_ms.max
    assert 0 < stats.run_ms.p50 <= stats.run_ms.max
    assert 0 < stats.avg_wait_time_ms <= stats.wait_ms.max


def test_reset_stats_keeps_the_number_of_waiting_items(kit):
    """``reset_stats()`` sets the counters to zero and keeps the number of waiting items."""
    double, _ = kit.decorate(max_size=2, timeout=3600)
    kit.results(kit.call_waiting(double, 1, 2))
    waiting = kit.call_waiting(double, 3)
    double.reset_stats()
    assert (0, 1) == (double.batch_stats.total_items, double.batch_stats.pending)
    double.flush()
    assert [6] == kit.results(waiting)
    assert 1 == double.batch_stats.total_items


def test_a_call_is_counted_before_its_caller_resumes(kit):
    """The statistics include a call by the time its caller gets the answer."""
    double, _ = kit.decorate()
    for calls in range(1, 20):
        kit.call(double, 1).result(PATIENCE)
        stats = double.batch_stats
        assert (calls, 0, 0) == (stats.answered_items, stats.pending, stats.running)


def test_batchers_lists_live_batchers(kit):
    """``batchers()`` lists a batcher from its first call until its function is garbage collected."""
    name = f"listed ({kit.name})"
    double, _ = kit.decorate(name=name)
    assert name not in [batcher.name for batcher in batchify.batchers()]
    kit.call(double, 1).result(PATIENCE)
    assert name in [batcher.name for batcher in batchify.batchers()]
    del double
    wait_until(lambda: gc.collect() >= 0 and name not in [batcher.name for batcher in batchify.batchers()])


def test_instances_do_not_share_batches(kit):
    """Each instance has its own batches and statistics; the class has the sum of the statistics."""
    gate = kit.decorate()[1]
    batch = kit.batch_function(gate)

    class Model:
        @microbatch(max_size=2, timeout=3600, name="run")
        def run(self, items):
            return batch([(self, item) for item in items])

    if kit.name == "asyncio":

        class Model:
            @microbatch(max_size=2, timeout=3600, name="run")
            async def run(self, items):
                return await batch([(self, item) for item in items])

    gate.answer = lambda items: items
    one, two = Model(), Model()
    callers = [kit.call_waiting(bound, n)[0] for n, bound in enumerate([one.run, two.run, one.run, two.run])]
    assert [(one, 0), (two, 1), (one, 2), (two, 3)] == kit.results(callers)
    owners = [[owner for owner, _ in batch] for batch in gate.batches]
    assert owners in ([[one, one], [two, two]], [[two, two], [one, one]])
    assert (2, 2, 4) == tuple(fn.batch_stats.total_items for fn in (one.run, two.run, Model.run))


def test_waiting_lists_the_queued_items(kit):
    """``waiting()`` lists the queued items with their futures and arrival times, in order of arrival."""
    name = f"waiting ({kit.name})"
    double, _ = kit.decorate(timeout=3600, name=name)
    futures = kit.run(lambda: [double.submit(1), double.submit(2)])
    (batcher,) = [each for each in batchify.batchers() if each.name == name]
    waiting = batcher.waiting()
    assert [(1, futures[0]), (2, futures[1])] == [(item.data, item.future) for item in waiting]
    assert waiting[0].enqueued_at <= waiting[1].enqueued_at
    double.flush()
    kit.await_done(futures)
    assert [] == batcher.waiting()


def test_current_batch_describes_the_running_batch(kit):
    """``current_batch()`` returns the name, size and reason of the batch, and ``None`` outside a batch function."""
    seen = []
    double, gate = kit.decorate(lambda items: seen.append(batchify.current_batch()) or items, max_size=2, timeout=3600)
    kit.results(kit.call_waiting(double, 1, 2))
    assert [("double", 2, "full", ())] == [(each.name, each.size, each.reason, each.contexts) for each in seen]
    assert batchify.current_batch() is None


def test_a_batch_function_can_read_the_captured_contexts(kit):
    """With ``capture_context``, a batch function can read the context of each caller, in the order of the items."""
    tenant = contextvars.ContextVar("tenant", default="none")
    seen = []

    def look(items):
        seen.extend(context[tenant] for context in batchify.current_batch().contexts)
        assert "none" == tenant.get()
        return items

    echo, _ = kit.decorate(look, capture_context=True, timeout=3600)

    def submit(name):
        tenant.set(name)
        return echo.submit(name)

    futures = kit.run(lambda: [contextvars.Context().run(submit, name) for name in ("one", "two")])
    assert ["one", "two"] == [item.data for each in batchify.batchers() for item in each.waiting()]
    echo.flush()
    kit.await_done(futures)
    assert (["one", "two"], ["one", "two"]) == (seen, [future.result() for future in futures])


def test_one_exception_at_several_positions_is_a_copy_for_each_caller(kit):
    """An exception object that is returned several times reaches each caller as an object of its own."""
    missing = KeyError("missing")
    double, _ = kit.decorate(lambda items: [missing if item else 0 for item in items], timeout=HOUR, max_size=4)
    found = kit.call_waiting(double, 0)
    errors = kit.errors(kit.call_waiting(double, 1, 2, 3))
    assert [0] == kit.results(found)
    assert 3 == len({*map(id, errors)})
    assert [(KeyError, ("missing",))] * 3 == [(type(error), error.args) for error in errors]


def test_a_square_data_frame_is_refused(kit):
    """A data frame would answer with the names of its columns, and the error names the way to return its rows."""
    import pandas as pd

    double, _ = kit.decorate(lambda items: pd.DataFrame({"a": items, "b": items}), timeout=HOUR, max_size=2)
    for error in kit.errors(kit.call_waiting(double, 1, 2)):
        assert BatchResultError is type(error)
        assert 'return frame.to_dict("records")' in str(error)


def test_a_series_answers_by_position(kit):
    """The results of a series are its values in order, whatever its index is."""
    import pandas as pd

    double, _ = kit.decorate(lambda items: pd.Series(items, index=[1, 0]) * 2, timeout=HOUR, max_size=2)
    assert [2, 4] == kit.results(kit.call_waiting(double, 1, 2))
