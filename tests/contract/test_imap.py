"""``imap()``: the results for an input of any length, in order, on both engines."""

from __future__ import annotations

import asyncio
import warnings
from contextlib import aclosing

import pytest

from batchify import BatcherClosedError, microbatch
from batchify.testing import inline, run
from tests.kit.engines import HOUR, doubled


def bad(items):
    """Double the items, but return an error for 3."""
    return [ValueError(item) if item == 3 else 2 * item for item in items]


class Input:
    """Yields 0 to ``length - 1``, and counts the items that were taken."""

    def __init__(self, length=1_000_000):
        self.length = length
        self.taken = 0
        self.is_closed = False

    def __iter__(self):
        for item in range(self.length):
            self.taken += 1
            yield item

    async def asynchronous(self):
        try:
            for item in self:
                yield item
        finally:
            self.is_closed = True


class Sync:
    """Reads the iterator of a ``def`` function."""

    def decorate(self, answer=doubled, **options):
        def double(items, **call_options):
            return answer(items, **call_options)

        return microbatch(double, **{"name": "double", **options})

    def stream(self):
        def repeat(items):
            yield items
            yield items

        return microbatch(repeat)

    def input(self, items):
        return items

    def read(self, results, most=None):
        """Read all results, or the first ones; return them with the error, if any, and close the iterator."""
        read = []
        try:
            while len(read) != most:
                read.append(next(results))
        except StopIteration:
            return read, None
        except Exception as error:
            return read, error
        finally:
            results.close()
        return read, None


class OnLoop(Sync):
    """Reads the iterator of an ``async def`` function, in virtual time."""

    def decorate(self, answer=doubled, **options):
        async def double(items, **call_options):
            return answer(items, **call_options)

        return microbatch(double, **{"name": "double", **options})

    def stream(self):
        async def repeat(items):
            yield items
            yield items

        return microbatch(repeat)

    def read(self, results, most=None):
        async def read_all():
            read = []
            async with aclosing(results):
                try:
                    while len(read) != most:
                        read.append(await anext(results))
                except StopAsyncIteration:
                    return read, None
                except Exception as error:
                    return read, error
            return read, None

        return run(read_all())


class AsyncInput(OnLoop):
    """The same, with an asynchronous input."""

    def input(self, items):
        return items.asynchronous() if isinstance(items, Input) else as_async(items)


async def as_async(items):
    for item in items:
        yield item


@pytest.fixture(params=[Sync, OnLoop, AsyncInput], ids=lambda kind: kind.__name__)
def side(request):
    return request.param()


def test_results_are_in_order(side):
    """The results are in the order of the items, however many there are."""
    fn = side.decorate(max_size=8, concurrency=2)
    assert (doubled(range(100)), None) == side.read(fn.imap(side.input(range(100))))
    assert 100 == fn.batch_stats.answered_items


def test_an_empty_input_has_no_results(side):
    """Without an item, the iterator ends at once."""
    assert ([], None) == side.read(side.decorate().imap(side.input([])))


@pytest.mark.parametrize("ahead", [1, 2, 5])
def test_it_takes_only_so_many_items_more_than_were_read(side, ahead):
    """No item is taken before the first read, and then only ``ahead`` more than were read."""
    for most in (0, 1, 4):
        source = Input()
        results = side.decorate().imap(side.input(source), ahead)
        assert 0 == source.taken
        assert (doubled(range(most)), None) == side.read(results, most)
        assert source.taken == 0 if not most else most <= source.taken <= most + ahead


def test_by_default_it_takes_twice_the_number_that_can_run(side):
    """The default is twice the number of items that can run at once."""
    source = Input()
    fn = side.decorate(max_size=8, concurrency=3)
    assert ([0], None) == side.read(fn.imap(side.input(source)), 1)
    assert 48 == source.taken


def test_an_error_is_raised_in_place_of_its_result(side):
    """An error is raised after the results of the items before it, and cancels the calls ahead."""
    source = Input()
    fn = side.decorate(bad, max_size=4, timeout=HOUR)
    read, error = side.read(fn.imap(side.input(source), 6))
    assert ([0, 2, 4], ValueError, (3,)) == (read, type(error), error.args)
    stats = fn.batch_stats
    assert (0, 0, 1) == (stats.pending, stats.running, stats.failed_items)
    assert stats.cancelled_items == source.taken - 4 > 0


def test_an_early_end_cancels_the_calls_ahead(side):
    """Closing the iterator cancels the calls ahead, and closes an asynchronous input."""
    source = Input()
    fn = side.decorate(max_size=4, timeout=HOUR)
    assert ([0, 2], None) == side.read(fn.imap(side.input(source), 6), 2)
    stats = fn.batch_stats
    assert (0, 0, source.taken - 4) == (stats.pending, stats.running, stats.cancelled_items)
    assert stats.cancelled_items > 0
    assert isinstance(side, AsyncInput) is source.is_closed


def test_an_error_closes_an_asynchronous_input():
    """An error of a call closes an asynchronous input."""
    side, source = AsyncInput(), Input()
    side.read(side.decorate(bad).imap(source.asynchronous(), 1))
    assert source.is_closed


def test_an_error_of_the_input_follows_the_results(side):
    """An error of the input is raised after the results of the items before it."""

    def failing():
        yield 1
        raise KeyError(7)

    read, error = side.read(side.decorate().imap(side.input(failing())))
    assert ([2], KeyError, (7,)) == (read, type(error), error.args)


def test_an_error_of_a_call_follows_the_results(side):
    """If an item cannot be queued, the error is raised after the results of the items before it."""

    def group(item):
        if item == 2:
            raise KeyError(item)

    fn = side.decorate(group_by=group)
    read, error = side.read(fn.imap(side.input(range(5))))
    assert ([0, 2], KeyError, (2,)) == (read, type(error), error.args)


def test_an_error_after_an_early_end_is_dropped(side):
    """An error ahead is not raised, and not logged, if the iterator is closed before it."""

    def failing():
        yield 1
        raise KeyError

    assert ([2], None) == side.read(side.decorate().imap(side.input(failing())), 1)


@pytest.mark.parametrize("on_full", ["wait", "raise"])
def test_it_waits_for_room(side, on_full):
    """With a full queue, it waits, whatever ``on_full`` is."""
    fn = side.decorate(max_size=2, max_pending=1, on_full=on_full)
    assert (doubled(range(20)), None) == side.read(fn.imap(side.input(range(20)), 10))
    assert 0 == fn.batch_stats.rejected_items


def test_options_of_calls(side):
    """All items get the options of the batch function, and the calls of a view its priority."""
    fn = side.decorate(lambda items, top_k=1: [top_k * item for item in items], max_pending=2, on_full="raise")
    assert ([3, 6], None) == side.read(fn.imap(side.input([1, 2]), top_k=3))
    assert ([1, 2], None) == side.read(fn.options(priority=1).imap(side.input([1, 2]), 1))


def test_columns(side):
    """With several columns, the items are tuples; another item is an error that says so."""

    def add(left, right, *, times=1):
        return [times * sum(pair) for pair in zip(left, right, strict=True)]

    async def aadd(left, right, *, times=1):
        return add(left, right, times=times)

    fn = microbatch(add if type(side) is Sync else aadd)
    assert ([3, 7], None) == side.read(fn.imap(side.input([(1, 2), (3, 4)])))
    assert ([6, 14], None) == side.read(fn.imap(side.input([(1, 2), (3, 4)]), times=2))
    _, error = side.read(fn.imap(side.input([5])))
    assert (TypeError, True) == (type(error), "take one tuple (left, right) for each item" in str(error))


def test_generator_functions_yield_lists(side):
    """For a generator function, the result of an item is the list of its values."""
    stream = side.stream()
    assert ([[1, 1], [2, 2]], None) == side.read(stream.imap(side.input([1, 2])))
    assert ([[1, 1]], None) == side.read(stream.imap(side.input([1, 2]), 2), 1)


def test_methods(side):
    """The results of a method are those of its instance, which lives as long as the iterator."""

    class Adder:
        def __init__(self, number):
            self.number = number

        @microbatch
        def add(self, items):
            return [self.number + item for item in items]

        @microbatch
        async def aadd(self, items):
            return [self.number + item for item in items]

    name = "add" if type(side) is Sync else "aadd"
    assert ([11, 12], None) == side.read(getattr(Adder(10), name).imap(side.input([1, 2])))


def test_inline(side):
    """It works inside ``inline()``."""
    with inline():
        fn = side.decorate(max_pending=1, on_full="raise")
        assert (doubled(range(5)), None) == side.read(fn.imap(side.input(range(5))))


def test_a_closed_function_refuses_it(side):
    """The calls of a closed function fail."""
    fn = side.decorate()
    fn.close()
    read, error = side.read(fn.imap(side.input([1])))
    assert ([], BatcherClosedError) == (read, type(error))


@pytest.mark.parametrize(
    ("kind", "ahead", "message"),
    [
        (ValueError, 0, "ahead must be at least 1, got 0"),
        (TypeError, True, "ahead must be an int, got True of type bool"),
    ],
)
def test_a_number_that_is_no_int_of_at_least_1_is_refused(side, kind, ahead, message):
    """A number of items ahead that is no int of at least 1 is refused at once."""
    with pytest.raises(kind) as caught:
        side.decorate().imap([], ahead)
    assert message == str(caught.value)


# Tasks.


def test_results_do_not_wait_for_a_slow_input(moment):
    """A result arrives as soon as its batch ends, also while the input has no further item."""

    async def slow():
        for item in range(3):
            await asyncio.sleep(1)
            yield item

    async def main():
        return [(moment(), result) async for result in OnLoop().decorate().imap(slow(), 10)]

    assert [(1, 0), (2, 2), (3, 4)] == run(main())


def test_a_reader_that_is_cancelled_cancels_all():
    """If the reading task is cancelled, the calls are cancelled, and the input is closed."""
    source = Input()
    fn = OnLoop().decorate(timeout=HOUR)

    async def main():
        async def read():
            async with aclosing(fn.imap(source.asynchronous(), 3)) as results:
                await anext(results)

        task = asyncio.create_task(read())
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.wait([task])
        assert (0, 3) == (fn.batch_stats.pending, fn.batch_stats.cancelled_items)

    run(main())
    assert source.is_closed


def test_an_iterator_without_an_end_is_read():
    """An asynchronous input need not be a generator."""

    class Letters:
        def __init__(self):
            self.left = [1, 2]

        def __aiter__(self):
            return self

        async def __anext__(self):
            if not self.left:
                raise StopAsyncIteration
            return self.left.pop(0)

    side = OnLoop()
    assert ([2, 4], None) == side.read(side.decorate().imap(Letters()))


def test_a_loop_that_ends_before_its_iterator():
    """An iterator that is not read to its end does not outlive ``asyncio.run()``."""
    source = Input()
    fn = OnLoop().decorate()
    kept = []

    async def main():
        kept.append(fn.imap(source.asynchronous(), 3))
        assert 0 == await anext(kept[0])

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asyncio.run(main())
    assert source.is_closed


def test_it_needs_a_loop():
    """Without an event loop of asyncio, reading says so."""
    results = OnLoop().decorate().imap([1])
    with pytest.raises(RuntimeError, match=r"^double\(\) can only be awaited on asyncio"):
        results.__anext__().send(None)
