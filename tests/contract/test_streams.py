"""The promises of streams, tested through both engines and the bridge between them."""

from __future__ import annotations

import asyncio
import copy
import gc
import inspect
import logging
import pickle
import sys
from collections.abc import AsyncIterator, Iterator  # noqa: TC003  # signatures are evaluated
from concurrent.futures import ThreadPoolExecutor

import pytest

import batchify
from batchify import (
    DONE,
    AsyncMicrobatcher,
    BatchAbortedError,
    BatcherClosedError,
    BatchResultError,
    DeadlineError,
    QueueFullError,
    SyncMicrobatcher,
    microbatch,
)
from batchify._core.queue import PlainQueue
from batchify.testing import record
from tests.kit.engines import PATIENCE, counted_calls, wait_until
from tests.kit.processes import printed_by
from tests.kit.streams import KITS

TOGETHER = {"max_size": 2, "timeout": 3600}


@pytest.fixture(params=KITS, ids=lambda kind: kind.name)
def kit(request):
    """Each way to read: in threads, in tasks, and in tasks whose generator runs in a thread."""
    kit = request.param()
    yield kit
    kit.close()


def counting(count):
    """Return steps that yield ``count`` numbered values for each item."""

    def steps(items):
        for n in range(count):
            yield [f"{item}{n}" for item in items]

    return steps


def forever(items):
    while True:
        yield list(items)


def outcomes(fn):
    """Return the numbers of answered, failed and cancelled streams."""
    stats = fn.batch_stats
    return stats.answered_items, stats.failed_items, stats.cancelled_items


# Values.


def test_each_caller_reads_its_own_values(kit):
    """The values in a caller's position reach that caller, in order, and the stream ends with the generator."""
    generate, source = kit.decorate(counting(3), **TOGETHER)
    source.allow_all()
    readers = kit.call_waiting(generate, "a", "b")
    assert [["a0", "a1", "a2"], ["b0", "b1", "b2"]] == kit.results(readers)
    assert [["a", "b"]] == source.batches


def test_a_value_is_delivered_before_the_next_one_is_yielded(kit):
    """A caller reads a value before the generator yields the next one."""
    generate, source = kit.decorate(counting(2))
    [reader] = kit.call_waiting(generate, "a")
    source.allow()
    reader.await_values(1)
    assert (["a0"], False) == (reader.values, reader.done())
    source.allow()
    assert ["a0", "a1"] == reader.result(PATIENCE)


def test_a_generator_without_values_gives_empty_streams(kit):
    """Streams of a generator without values are empty."""
    generate, source = kit.decorate(counting(0), **TOGETHER)
    assert [[], []] == kit.results(kit.call_waiting(generate, "a", "b"))


def test_a_generator_may_yield_any_sequence(kit):
    """A generator may yield any object with a length and an order, and ``None`` is an ordinary value."""

    def steps(items):
        yield tuple(items)
        yield [None] * len(items)
        yield range(len(items))

    generate, source = kit.decorate(steps, **TOGETHER)
    source.allow_all()
    assert [["a", None, 0], ["b", None, 1]] == kit.results(kit.call_waiting(generate, "a", "b"))


def test_a_stream_that_is_not_read_queues_nothing(kit):
    """A call queues its item when its stream is first read."""
    generate, source = kit.decorate(counting(1))
    stream = kit.run(lambda: generate("a"))
    assert 0 == counted_calls(generate.batch_stats)
    source.allow_all()
    del stream
    gc.collect()
    assert [["b0"]] == kit.results([kit.call(generate, "b")])
    assert [["b"]] == source.batches


def test_submit_queues_at_once(kit):
    """``submit()`` queues its item before the stream is read."""
    generate, source = kit.decorate(counting(1), **TOGETHER)
    stream = kit.run(lambda: generate.submit("a"))
    assert 1 == generate.batch_stats.pending
    source.allow_all()
    assert ["b0"] == kit.call(generate, "b").result(PATIENCE)
    assert [["a", "b"]] == source.batches
    del stream


def test_a_slow_reader_does_not_delay_others(kit):
    """A generator runs to its end while one stream is not read, and the stream keeps its values."""
    generate, source = kit.decorate(counting(100), **TOGETHER)
    source.allow_all()
    slow = kit.run(lambda: generate.submit("a"))
    assert 100 == len(kit.call(generate, "b").result(PATIENCE))
    wait_until(lambda: (2, 0, 0) == outcomes(generate))
    assert [f"a{n}" for n in range(100)] == kit.read_any(slow).result(PATIENCE)


def test_map_returns_a_list_of_values_for_each_item(kit):
    """``map`` returns the list of all values of each item, in order."""
    generate, source = kit.decorate(counting(2), max_size=2)
    source.allow_all()
    assert [["a0", "a1"], ["b0", "b1"], ["c0", "c1"]] == kit.map(generate, "abc")


def test_an_error_in_map_removes_the_queued_items(kit):
    """``map`` raises the first error, and items that are still queued are removed."""

    def steps(items):
        yield [KeyError("no") for item in items]

    generate, source = kit.decorate(steps, max_size=1)
    source.allow()
    with pytest.raises(KeyError, match="no"):
        kit.map(generate, "abc")
    source.allow_all()
    wait_until(lambda: not generate.batch_stats.running)
    assert 3 == counted_calls(generate.batch_stats)
    assert source.batches in ([["a"]], [["a"], ["b"]])


def test_map_with_a_refused_item_removes_the_earlier_items(kit):
    """If an item of ``map`` cannot be queued, the items before it are removed."""
    generate, source = kit.decorate(counting(1), timeout=3600, weigh=len, max_weight=10)
    with pytest.raises(ValueError, match="weighs 11, more than max_weight, 10"):
        kit.map(generate, ["a", "b" * 11])
    wait_until(lambda: (0, 0, 1) == outcomes(generate))


# The end of a stream.


def test_done_ends_a_stream(kit):
    """DONE in a position ends that stream at once while others go on, and later values there are ignored."""

    def steps(items):
        yield [item + "0" for item in items]
        yield [DONE if item == "a" else item + "1" for item in items]
        yield [item + "2" for item in items]

    generate, source = kit.decorate(steps, **TOGETHER)
    a, b = kit.call_waiting(generate, "a", "b")
    source.allow(2)
    assert ["a0"] == a.result(PATIENCE)
    assert (2, False) == (generate.batch_stats.running, b.done())
    source.allow()
    assert ["b0", "b1", "b2"] == b.result(PATIENCE)
    assert (2, 0, 0) == outcomes(generate)


def test_the_generator_is_closed_after_done_in_every_position(kit):
    """When every stream has ended with DONE, the generator is closed, however much more it would yield."""

    def steps(items):
        yield [DONE, 1]
        yield [2, DONE]
        yield from forever(items)

    generate, source = kit.decorate(steps, **TOGETHER)
    source.allow_all()
    assert [[], [1]] == kit.results(kit.call_waiting(generate, "a", "b"))
    source.await_ended()
    wait_until(lambda: (2, 0, 0) == outcomes(generate))


def test_an_exception_as_a_value_is_raised_to_one_caller(kit):
    """A value that is an exception is raised to its own caller, after the values before it, and ends that stream."""
    odd = KeyError("odd")

    def steps(items):
        yield [0, 0]
        yield [odd, 1]
        yield [2, 2]

    generate, source = kit.decorate(steps, **TOGETHER)
    a, b = kit.call_waiting(generate, "a", "b")
    source.allow(2)
    assert odd is a.exception(PATIENCE)
    assert ([0], False) == (a.values, b.done())
    source.allow_all()
    assert [0, 1, 2] == b.result(PATIENCE)
    assert (1, 1, 0) == outcomes(generate)


def test_one_exception_as_several_values_is_a_copy_for_each_caller(kit):
    """An exception object that is yielded for several callers reaches each as an object of its own."""
    missing = KeyError("missing")

    def fail(items):
        yield [missing] * len(items)

    generate, source = kit.decorate(fail, **TOGETHER)
    callers = kit.call_waiting(generate, "a", "b")
    source.allow_all()
    a, b = [caller.exception(PATIENCE) for caller in callers]
    assert a is not b
    assert [(KeyError, ("missing",))] * 2 == [(type(error), error.args) for error in (a, b)]


def test_stop_iteration_as_a_value_becomes_a_runtime_error(kit):
    """``StopIteration`` or ``StopAsyncIteration`` as a value is raised as a ``RuntimeError`` caused by it."""
    generate, source = kit.decorate(lambda items: [[StopIteration(), StopAsyncIteration()]], **TOGETHER)
    source.allow_all()
    errors = kit.errors(kit.call_waiting(generate, "a", "b"))
    assert [RuntimeError, RuntimeError] == [type(error) for error in errors]
    assert [StopIteration, StopAsyncIteration] == [type(error.__cause__) for error in errors]


def test_an_ended_stream_stays_ended(kit):
    """A reader that goes on after the end, or after an error, reads nothing."""
    generate, source = kit.decorate(lambda items: [[KeyError()]])
    source.allow_all()
    kept = []

    def keep():
        kept.append(generate.submit("a"))
        return kept[0]

    stream = kit.run(keep)
    reader = kit.read_any(stream)
    assert isinstance(reader.exception(PATIENCE), KeyError)
    assert [] == kit.read_any(stream).result(PATIENCE)


# Errors.


def failing_after(values, error):
    def steps(items):
        yield from values
        raise error

    return steps


def test_an_error_comes_after_the_values_before_it(kit):
    """An error of the generator reaches every open stream, as an object of its own, after the values before it."""
    original = ValueError("no", 1)
    generate, source = kit.decorate(failing_after([[1, 2], [3, 4]], original), **TOGETHER)
    source.allow_all()
    a, b = kit.call_waiting(generate, "a", "b")
    errors = kit.errors([a, b])
    assert [(ValueError, ("no", 1))] * 2 == [(type(error), error.args) for error in errors]
    assert [original, original] == [error.__cause__ for error in errors]
    assert errors[0] is not errors[1]
    assert ([1, 3], [2, 4]) == (a.values, b.values)
    assert (0, 2, 0) == outcomes(generate)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="notes came with Python 3.11")
@pytest.mark.parametrize("values", [[], [[DONE, 1, 2]]], ids=["all open", "one ended"])
def test_an_error_names_the_position(kit, values):
    """The exception of a stream has a note with the function, the position and the size of the batch."""
    generate, source = kit.decorate(failing_after(values, KeyError()), max_size=3, timeout=3600)
    source.allow_all()
    [*_, error] = [reader.exception(PATIENCE) for reader in kit.call_waiting(generate, "a", "b", "c")]
    assert ["raised by generate() for item 3 of a batch of 3"] == error.__notes__


def test_an_error_does_not_disturb_a_stream_that_has_ended(kit):
    """A stream that ended with DONE before the generator failed is complete, and counts as answered."""
    original = ValueError("no")
    generate, source = kit.decorate(failing_after([[DONE, 1]], original), **TOGETHER)
    source.allow_all()
    a, b = kit.call_waiting(generate, "a", "b")
    assert [] == a.result(PATIENCE)
    assert original is b.exception(PATIENCE).__cause__
    assert [1] == b.values
    assert (1, 1, 0) == outcomes(generate)


def test_an_error_affects_only_its_batch(kit):
    """After a batch that fails, the next one streams."""

    def steps(items):
        if "a" in items:
            raise KeyError
        yield items

    generate, source = kit.decorate(steps)
    source.allow_all()
    assert isinstance(kit.call(generate, "a").exception(PATIENCE), KeyError)
    assert ["b"] == kit.call(generate, "b").result(PATIENCE)


def test_an_error_before_the_first_value_ends_all_streams(kit):
    """A generator that fails before it yields anything ends all its streams."""
    generate, source = kit.decorate(lambda items: 1 / 0, **TOGETHER)
    errors = kit.errors(kit.call_waiting(generate, "a", "b"))
    assert [ZeroDivisionError] * 2 == [type(error) for error in errors]


def test_a_report_has_the_error(kit):
    """The report of a batch has the error that ended the batch for all its callers."""
    original = ValueError("no")
    reports = []
    generate, source = kit.decorate(failing_after([[1, 2]], original), on_batch=reports.append, **TOGETHER)
    source.allow_all()
    kit.errors(kit.call_waiting(generate, "a", "b"))
    wait_until(lambda: reports)
    assert [(2, original)] == [(report.size, report.error) for report in reports]


@pytest.mark.parametrize(
    ("values", "description"),
    [
        ([1], "1 result"),
        ([1, 2, 3], "3 results"),
        (None, "None"),
        ({1: 1, 2: 2}, "a dict"),
        ("ab", "a str"),
        (iter([1, 2]), "a list_iterator, which has no length"),
        (DONE, "a Done, which has no length"),
    ],
)
def test_a_wrong_yield_is_an_error_for_every_caller(kit, values, description):
    """A yield that is not one value for each item raises an error to every caller; the generator is closed."""
    generate, source = kit.decorate(lambda items: [[1, 2], values, [3, 4]], **TOGETHER)
    source.allow_all()
    a, b = kit.call_waiting(generate, "a", "b")
    errors = kit.errors([a, b])
    message = f"generate() was given 2 items and yielded {description}; it must yield one for each item, in order"
    assert [(BatchResultError, message)] * 2 == [(type(error), str(error)) for error in errors]
    assert ([1], [2]) == (a.values, b.values)
    source.await_ended()


@pytest.mark.parametrize("kind", [GeneratorExit, asyncio.CancelledError, KeyboardInterrupt, SystemExit])
def test_a_base_exception_ends_every_stream(kit, kind):
    """A ``BaseException`` reaches callers in threads; on a loop, the batch is aborted."""
    if kit.name == "asyncio" and kind in (KeyboardInterrupt, SystemExit):
        pytest.skip("it ends the loop, as from any task")
    generate, source = kit.decorate(failing_after([[1, 2]], kind()), **TOGETHER)
    source.allow_all()
    a, b = kit.call_waiting(generate, "a", "b")
    expected = kind if kit.name == "threads" else BatchAbortedError
    assert [expected] * 2 == [type(error) for error in kit.errors([a, b])]
    assert ([1], [2]) == (a.values, b.values)


def test_stop_iteration_in_a_generator_becomes_a_runtime_error(kit):
    """A ``StopIteration`` that escapes from a generator reaches the caller as Python's ``RuntimeError``."""
    generate, source = kit.decorate(failing_after([[1]], StopIteration()))
    source.allow_all()
    reader = kit.call(generate, "a")
    assert isinstance(reader.exception(PATIENCE), RuntimeError)
    assert [1] == reader.values


# Readers that stop.


def test_a_caller_that_leaves_before_the_departure_removes_its_item(kit):
    """If a caller leaves before its batch departs, its item is removed and never run."""
    generate, source = kit.decorate(counting(1), **TOGETHER)
    (a,) = kit.call_waiting(generate, "a")
    a.leave()
    wait_until(lambda: 0 == generate.batch_stats.pending)
    source.allow_all()
    assert [["b0"], ["c0"]] == kit.results(kit.call_waiting(generate, "b", "c"))
    assert [["b", "c"]] == source.batches
    assert (2, 0, 1) == outcomes(generate)


def test_a_caller_that_leaves_a_running_batch_does_not_affect_the_others(kit):
    """A caller that leaves a running batch is dropped, and the other streams continue."""
    generate, source = kit.decorate(counting(3), **TOGETHER)
    a, b = kit.call_waiting(generate, "a", "b")
    source.allow()
    a.await_values(1)
    a.leave()
    wait_until(a.done)
    source.allow_all()
    assert ["b0", "b1", "b2"] == b.result(PATIENCE)
    assert ["a0"] == a.values
    wait_until(lambda: (1, 0, 1) == outcomes(generate))


def test_the_generator_is_closed_when_all_readers_have_left(kit):
    """When all readers have left, the generator is closed: at its next step, or where it waits on a loop."""
    generate, source = kit.decorate(forever, **TOGETHER)
    a, b = kit.call_waiting(generate, "a", "b")
    source.await_begun()
    for reader in (a, b):
        reader.leave()
        wait_until(reader.done)
    if kit.name != "asyncio":
        source.allow()
    source.await_ended()
    wait_until(lambda: (0, 0, 2) == outcomes(generate))


def test_the_generator_is_closed_when_all_streams_have_ended_or_been_left(kit):
    """When some streams have ended with DONE and all other readers have left, the generator is closed."""

    def steps(items):
        yield [DONE, 1]
        yield from forever(items)

    generate, source = kit.decorate(steps, **TOGETHER)
    a, b = kit.call_waiting(generate, "a", "b")
    source.allow()
    assert [] == a.result(PATIENCE)
    b.await_values(1)
    b.leave()
    wait_until(b.done)
    if kit.name != "asyncio":
        source.allow()
    source.await_ended()
    wait_until(lambda: (1, 0, 1) == outcomes(generate))


def test_an_error_after_all_streams_have_ended_is_logged(kit, caplog):
    """An exception while a generator is closed is logged, and does not affect streams that ended with DONE."""

    def steps(items):
        yield [DONE]

    generate, source = kit.decorate(steps)
    source.leave = lambda: 1 / 0
    with caplog.at_level(logging.ERROR, "batchify"):
        source.allow_all()
        assert [] == kit.call(generate, "a").result(PATIENCE)
        wait_until(lambda: (1, 0, 0) == outcomes(generate))
    assert ["generate() raised after all streams of its batch had ended"] == [
        record.getMessage() for record in caplog.records
    ]


def test_a_dropped_stream_removes_its_item(kit):
    """If a submitted stream is dropped before its batch leaves, its item is removed."""
    generate, source = kit.decorate(counting(3), **TOGETHER)
    stream = kit.run(lambda: generate.submit("a"))
    assert 1 == generate.batch_stats.pending
    del stream
    gc.collect()
    wait_until(lambda: (0, 0, 1) == outcomes(generate))
    assert [] == source.batches


def test_a_stream_may_be_closed_at_any_time(kit):
    """A stream may be closed before it begins, after its end, and twice."""
    generate, source = kit.decorate(counting(1))
    source.allow_all()

    def close():
        never, twice = generate("a"), generate.submit("b")
        return [kit.shut(stream) for stream in (never, twice, twice)] and (never, twice)

    never, twice = kit.run(close)
    assert [[], []] == [kit.read_any(stream).result(PATIENCE) for stream in (never, twice)]


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_stream_cannot_be_copied_or_pickled(kit, duplicate):
    """A stream is read once, so it cannot be copied or pickled, like a generator."""
    generate, source = kit.decorate(counting(1))
    source.allow_all()
    stream = kit.run(lambda: generate.submit("a"))
    with pytest.raises(TypeError, match="a stream cannot be copied or pickled: its values are read once"):
        duplicate(stream)
    assert ["a0"] == kit.read_any(stream).result(PATIENCE)


# Promises of all batches.


def test_a_batch_is_never_larger_than_max_size(kit):
    """Items that do not fit into a batch stream with the next one."""
    generate, source = kit.decorate(counting(1), max_size=2)
    callers = kit.call_waiting(generate, "a")
    source.await_begun()
    callers += kit.call_waiting(generate, "b", "c", "d")
    source.allow_all()
    assert [["a0"], ["b0"], ["c0"], ["d0"]] == kit.results(callers)
    assert [["a"], ["b", "c"], ["d"]] == source.batches


def test_as_many_generators_run_as_there_are_slots(kit):
    """As many generators run at once as ``concurrency`` allows, and no more."""
    generate, source = kit.decorate(counting(1), max_size=1, timeout=0, concurrency=2)
    callers = kit.call_waiting(generate, "a", "b", "c")
    source.await_begun(2)
    assert (2, 1) == (generate.batch_stats.running, generate.batch_stats.pending)
    source.allow_all()
    source.allow()
    assert [["a0"], ["b0"], ["c0"]] == kit.results(callers)


def test_closing_drains_open_streams(kit):
    """``close()`` lets open streams run to their end and refuses new calls."""
    generate, source = kit.decorate(counting(2), timeout=3600)
    readers = kit.call_waiting(generate, "a", "b")
    source.allow_all()
    kit.drain(generate)
    assert [["a0", "a1"], ["b0", "b1"]] == kit.results(readers)
    assert isinstance(kit.call(generate, "c").exception(PATIENCE), BatcherClosedError)


def test_a_stream_counts_as_running_until_its_batch_ends(kit):
    """A stream counts as running until its batch ends, even if the stream has ended or its reader has left."""

    def steps(items):
        yield [DONE, 1, 2]
        yield [0, 1, 2]

    generate, source = kit.decorate(steps, max_size=3, timeout=3600)
    a, b, c = kit.call_waiting(generate, "a", "b", "c")
    source.allow()
    assert [] == a.result(PATIENCE)
    c.await_values(1)
    c.leave()
    wait_until(c.done)
    assert (3, 3) == (generate.batch_stats.running, counted_calls(generate.batch_stats))
    source.allow_all()
    assert [1, 1] == b.result(PATIENCE)
    assert (2, 0, 1) == outcomes(generate)
    assert 3 == counted_calls(generate.batch_stats)


def test_a_call_without_room_is_refused(kit):
    """With ``on_full="raise"``, a call that finds the queue full raises ``QueueFullError``."""
    generate, source = kit.decorate(counting(1), max_size=1, max_pending=1, on_full="raise")
    readers = kit.call_waiting(generate, "a")
    source.await_begun()
    readers += kit.call_waiting(generate, "b")
    assert isinstance(kit.call(generate, "c").exception(PATIENCE), QueueFullError)
    source.allow_all()
    assert [["a0"], ["b0"]] == kit.results(readers)


def test_a_call_waits_for_room(kit):
    """A call that finds the queue full waits for room."""
    generate, source = kit.decorate(counting(1), max_size=1, max_pending=1)
    readers = kit.call_waiting(generate, "a")
    source.await_begun()
    readers += kit.call_waiting(generate, "b", "c")
    source.allow_all()
    assert [["a0"], ["b0"], ["c0"]] == kit.results(readers)


def test_a_generator_cannot_read_a_stream_of_its_own_function(kit):
    """A generator that reads a stream of its own function gets an error instead of waiting for itself forever."""
    seen = []

    def steps(items):
        yield [1]
        seen.append(kit.inside(generate, "b"))
        yield [2]

    generate, source = kit.decorate(steps)
    source.allow_all()
    assert [1, 2] == kit.call(generate, "a").result(PATIENCE)
    assert ["generate() was called with one item from inside its own batch"] == [
        str(error).split(", ")[0] for error in seen
    ]


def test_the_current_batch_is_set_while_the_generator_runs(kit):
    """``current_batch()`` describes the batch while the generator runs."""
    generate, source = kit.decorate(lambda items: [[batchify.current_batch()] * 2], **TOGETHER)
    source.allow_all()
    [[current], _] = kit.results(kit.call_waiting(generate, "a", "b"))
    assert ("generate", 2, "full") == (current.name, current.size, current.reason)


def test_a_batch_has_the_contexts_of_its_callers(kit):
    """With ``capture_context``, a batch has the context of each caller."""
    generate, source = kit.decorate(
        lambda items: [[len(batchify.current_batch().contexts)] * 2], capture_context=True, **TOGETHER
    )
    source.allow_all()
    assert [[2], [2]] == kit.results(kit.call_waiting(generate, "a", "b"))


def test_records_and_waiting_items_show_plain_items(kit):
    """Recorded batches and waiting items show the items as callers gave them."""
    generate, source = kit.decorate(counting(1), **TOGETHER)
    with record() as recorder:
        readers = kit.call_waiting(generate, "a")
        [batcher] = [batcher for batcher in batchify.batchers() if batcher.name == "generate" and batcher.waiting()]
        assert ["a"] == [item.data for item in batcher.waiting()]
        source.allow_all()
        kit.results(readers + kit.call_waiting(generate, "b"))
    assert [("a", "b")] == [batch.items for batch in recorder.batches]


def test_group_by_and_weigh_get_plain_items(kit):
    """``group_by`` and ``weigh`` get the items as callers gave them."""
    generate, source = kit.decorate(counting(1), max_size=4, group_by=len, weigh=len, max_weight=4)
    source.allow_all()
    assert [["aa0"], ["b0"], ["cc0"], ["dd0"]] == kit.map(generate, ["aa", "b", "cc", "dd"])
    assert all(len({len(item) for item in batch}) == 1 and sum(map(len, batch)) <= 4 for batch in source.batches)


def test_streams_use_the_plain_queue(kit):
    """Plain calls of a generator function are queued like those of any other function."""
    generate, source = kit.decorate(counting(1), timeout=3600)
    kit.call_waiting(generate, "a")
    [batcher] = [batcher for batcher in batchify.batchers() if batcher.name == "generate" and batcher.waiting()]
    [engine] = batcher._engines()
    assert PlainQueue is type(engine.line.queue)
    source.allow_all()
    generate.flush()


# Decoration.


def yielding(items: list[str], *, n: int = 1) -> Iterator[list[str]]:
    for _ in range(n):
        yield items


async def ayielding(items: list[str]) -> AsyncIterator[list[str]]:
    yield items


@pytest.mark.parametrize("fn", [yielding, ayielding])
@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ("dedupe", "each caller reads a stream of its own"),
        ("keyed", "each yield has one value for each position"),
        ("isolate_errors", "values that were yielded cannot be taken back"),
    ],
)
def test_an_unsupported_option_is_refused(fn, option, reason):
    """An option that a generator function cannot have is refused at decoration, with the reason."""
    with pytest.raises(TypeError) as caught:
        microbatch(fn, **{option: True})
    assert f"{option} does not work for {fn.__name__}(), a generator function: {reason}" == str(caught.value)


@pytest.mark.parametrize("fn", [yielding, ayielding])
def test_an_executor_is_refused(fn):
    """A generator function accepts no executor, at decoration or later."""
    reason = "an executor returns one result and cannot yield values"
    expected = f"executor does not work for {fn.__name__}(), a generator function: {reason}"
    with ThreadPoolExecutor() as pool:
        for use_executor in (lambda: microbatch(fn, executor=pool), lambda: microbatch(fn).configure(executor=pool)):
            with pytest.raises(TypeError) as caught:
                use_executor()
            assert expected == str(caught.value)


def test_streams_have_priorities_and_deadlines(kit):
    """Calls of a generator function leave by priority, and fail at their deadlines."""
    generate, source = kit.decorate(counting(1), max_size=1)
    [first] = kit.call_waiting(generate, "a")
    source.await_begun()
    [later] = kit.call_waiting(generate, "b")
    [sooner] = kit.call_waiting(generate.options(priority=1000), "c")
    late = kit.call(generate.options(deadline=0.02), "d")
    assert isinstance(late.exception(PATIENCE), DeadlineError)
    source.allow_all()
    assert [["a0"], ["b0"], ["c0"]] == kit.results([first, later, sooner])
    assert [["a"], ["c"], ["b"]] == source.batches
    assert 1 == generate.batch_stats.expired_items


def test_submit_and_map_of_a_view_stream(kit):
    """``submit()`` and ``map()`` of a view stream like those of the function."""
    generate, source = kit.decorate(counting(2), max_size=2)
    source.allow_all()
    view = generate.options(priority=1, deadline=60)
    assert ["a0", "a1"] == kit.read_any(kit.run(lambda: view.submit("a"))).result(PATIENCE)
    assert [["b0", "b1"], ["c0", "c1"]] == kit.map(view, ["b", "c"])


@pytest.mark.parametrize("fn", [yielding, ayielding])
@pytest.mark.parametrize("kind", [SyncMicrobatcher, AsyncMicrobatcher])
def test_engine_classes_refuse_generator_functions(kind, fn):
    """The engine classes refuse generator functions with an error that names the decorator."""
    with pytest.raises(TypeError) as caught:
        kind(fn)
    name = fn.__name__
    expected = f"{name}() is a generator function, which an engine class cannot run; use: microbatch({name})"
    assert expected == str(caught.value)


def test_inspect_recognizes_a_decorated_generator_function():
    """``inspect`` recognizes a decorated generator function, asynchronous or not."""
    stream, astream = microbatch(yielding), microbatch(ayielding)
    assert (True, False) == (inspect.isgeneratorfunction(stream), inspect.isasyncgenfunction(stream))
    assert (False, True) == (inspect.isgeneratorfunction(astream), inspect.isasyncgenfunction(astream))


def test_the_signature_returns_an_iterator_of_values():
    """The signature is that of a call: it takes an item and returns an iterator of values."""
    assert "(items: str, *, n: int = 1) -> collections.abc.Iterator[str]" == str(
        inspect.signature(microbatch(yielding))
    )
    assert "(items: str) -> collections.abc.AsyncIterator[str]" == str(inspect.signature(microbatch(ayielding)))

    def unannotated(items):
        yield items

    def incomplete(items) -> Iterator:
        yield items

    assert ["(items)", "(items)"] == [str(inspect.signature(microbatch(fn))) for fn in (unannotated, incomplete)]


def test_done_is_one_object():
    """Copying and pickling DONE return the same object, and its ``repr`` is its name."""
    assert DONE is copy.copy(DONE) is copy.deepcopy(DONE) is pickle.loads(pickle.dumps(DONE))  # noqa: S301  # our own bytes
    assert ("batchify.DONE", "batchify.DONE") == (repr(DONE), str(DONE))


def test_an_endless_stream_does_not_keep_the_process_running():
    """A stream that is kept but no longer read does not keep the process from exiting."""
    script = """
    from batchify import microbatch

    @microbatch
    def generate(items):
        n = 0
        try:
            while True:
                yield [n for _ in items]
                n += 1
        finally:
            print("closed")

    stream, unread = generate("a"), generate("b")
    print(next(stream))
    waiting, dropped = generate.submit("c"), generate.submit("d")
    del dropped
    """
    assert "0\nclosed\n" == printed_by(script)
