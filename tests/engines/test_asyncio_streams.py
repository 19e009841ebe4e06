"""Streams on an event loop alone: how tasks read, leave and tear them down."""

from __future__ import annotations

import asyncio
import gc
import sys
import weakref
from contextlib import aclosing

import pytest

import batchify
from batchify import DONE, BatchAbortedError, BatcherClosedError, ReentrantCallError, microbatch
from batchify.testing import inline, run


class Log(list):
    """The batches and the ends of a generator."""

    def generator(self, steps=None, *, pause=1.0):
        """Return a generator function that pauses before each yield, for ``steps`` yields or forever."""

        async def generate(items):
            self.append(list(items))
            try:
                for n in range(steps or sys.maxsize):
                    await asyncio.sleep(pause)
                    yield [f"{item}{n}" for item in items]
            finally:
                self.append("closed")

        return generate


async def values(stream):
    return [value async for value in stream]


async def settle():
    """Run the loop until everything that is due has happened."""
    for _ in range(10):
        await asyncio.sleep(0)


# Reading.


async def test_calls_made_together_share_a_batch():
    """Streams that are first read in one iteration of the loop share a batch."""
    log = Log()
    generate = microbatch(log.generator(2))
    assert [["a0", "a1"], ["b0", "b1"]] == await asyncio.gather(values(generate("a")), values(generate("b")))
    assert (2.0, [["a", "b"], "closed"]) == (asyncio.get_running_loop().time(), log)


async def test_an_interrupted_end(monkeypatch, caplog):
    """An exception, as of a signal handler, as a stream ends only delays the end."""
    stream = microbatch(Log().generator(2))("a")

    def interrupted(*_):
        monkeypatch.undo()
        raise MemoryError

    monkeypatch.setattr("batchify._asyncio.streams.EndOfStream", interrupted)
    assert ["a0", "a1"] == await values(stream)
    assert [MemoryError] == [record.exc_info[0] for record in caplog.records]


async def test_two_readers_of_one_stream():
    """A second task that waits for the same stream is refused, and the first is not disturbed."""
    stream = microbatch(Log().generator(1))("a")
    first = asyncio.ensure_future(values(stream))
    await settle()
    with pytest.raises(RuntimeError) as caught:
        await anext(stream)
    assert str(caught.value).endswith(
        "generator.<locals>.generate() is already read by another task; each call has one reader"
    )
    assert ["a0"] == await first


async def test_closing_a_stream_that_another_task_reads():
    """A task that waits for a value reaches the end when another task closes the stream."""
    stream = microbatch(Log().generator())("a")
    reader = asyncio.ensure_future(values(stream))
    await asyncio.sleep(1.5)
    await stream.aclose()
    assert ["a0"] == await reader


async def test_a_stream_of_a_loop_that_is_gone():
    """A call belongs to the loop that first reads its stream."""
    generate = microbatch(Log().generator(1))
    stream = generate("a")
    assert ["a0"] == await asyncio.to_thread(lambda: run(values(stream)))


# Leaving.


async def test_leaving_the_loop_body():
    """A stream that is dropped in the middle, by ``break`` or an error, leaves at once."""
    log = Log()
    generate = microbatch(log.generator())
    async for value in generate("a"):
        assert "a0" == value
        break
    await settle()
    assert [["a"], "closed"] == log
    assert (1.0, 1) == (asyncio.get_running_loop().time(), generate.batch_stats.cancelled_items)


async def test_closing_with_aclosing():
    """``contextlib.aclosing`` closes a stream as it closes an asynchronous generator."""
    log = Log()
    async with aclosing(microbatch(log.generator())("a")) as stream:
        await anext(stream)
    assert [] == await values(stream)
    await settle()
    assert [["a"], "closed"] == log


async def test_a_reader_that_times_out():
    """A reader that times out, as with ``wait_for``, leaves."""
    log = Log()
    stream = microbatch(log.generator(pause=60))("a")
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(anext(stream), 1)
    assert [] == await values(stream)
    await settle()
    assert [["a"], "closed"] == log


async def test_a_reader_that_is_torn_down():
    """A coroutine that is closed while it waits for a value leaves."""
    log = Log()
    generate = microbatch(log.generator())
    waiting = anext(generate("a")).__await__() if sys.version_info < (3, 11) else generate("a").__anext__()
    waiting.send(None)
    await settle()
    waiting.close()
    await settle()
    assert [["a"], "closed"] == log


async def test_a_reader_that_is_cancelled_before_the_batch_leaves():
    """If a reading task is cancelled while its item is queued, the item does not run."""
    log = Log()
    generate = microbatch(log.generator(1))
    reader = asyncio.ensure_future(values(generate("a")))
    await asyncio.sleep(0)
    reader.cancel()
    reader.cancel()
    await settle()
    assert [] == log
    assert (1, 0) == (generate.batch_stats.cancelled_items, generate.batch_stats.pending)


async def test_all_leave_before_the_first_step():
    """A batch whose callers have all left before it begins is never run."""
    log = Log()
    generate = microbatch(log.generator())
    for stream in [generate.submit("a"), generate.submit("b")]:
        await stream.aclose()
    await settle()
    assert ([], 2) == (log, generate.batch_stats.cancelled_items)
    assert 0 == generate.batch_stats.running


async def test_one_leaves_at_the_last_moment():
    """The positions of a batch count only callers that have not left before the generator begins."""
    log = Log()
    generate = microbatch(log.generator(1), max_size=3)
    a, b, c = (generate.submit(item) for item in "abc")
    await b.aclose()
    assert [["a0"], ["c0"]] == [await values(a), await values(c)]


async def test_a_generator_that_ignores_its_cancellation():
    """A generator that goes on after it was cancelled is closed at its next yield."""
    log = []

    @microbatch
    async def generate(items):
        try:
            yield items
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                log.append("cancelled")
            yield items
            log.append("went on")
        finally:
            await asyncio.sleep(1)
            log.append("closed")

    stream = generate("a")
    await anext(stream)
    await stream.aclose()
    assert ["b"] == (await anext(generate("b"))).split()
    assert ["cancelled", "closed"] == log[:2]
    assert 1.0 == asyncio.get_running_loop().time()


async def test_cleaning_up_is_not_cut_short():
    """A generator whose streams have all ended has time to clean up before its slot is free."""
    log = []

    @microbatch
    async def generate(items):
        try:
            yield [DONE for _ in items]
        finally:
            await asyncio.sleep(5)
            log.append("closed")

    stream = generate("a")
    assert [] == await values(stream)
    await stream.aclose()
    assert 1 == generate.batch_stats.running
    await asyncio.sleep(6)
    assert (["closed"], 0, 1) == (log, generate.batch_stats.running, generate.batch_stats.answered_items)


async def test_leaving_from_inside():
    """A generator may close the streams of its own batch, and is closed at its next yield."""
    streams = []

    async def steps(items):
        yield items
        for stream in streams:
            await stream.aclose()
        yield items
        pytest.fail("it was not closed")

    generate = microbatch(steps, max_size=2)
    streams += [generate.submit("a"), generate.submit("b")]
    assert ["a"] == await values(streams[0])
    await settle()
    assert (0, 2) == (generate.batch_stats.running, generate.batch_stats.cancelled_items)


# The end of batches and loops.


async def test_a_batch_that_is_cancelled():
    """If the task of a batch is cancelled, its readers get the earlier values and then an error."""
    log = Log()
    generate = microbatch(log.generator(), max_size=2)
    a, b = generate.submit("a"), generate.submit("b")
    assert ["a0", "b0"] == [await anext(a), await anext(b)]
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    for stream in (a, b):
        with pytest.raises(BatchAbortedError):
            await anext(stream)
        assert [] == await values(stream)
    assert [["a", "b"], "closed"] == log


async def test_streams_that_end_before_an_aborted_batch():
    """If a batch is aborted, its streams that have ended keep their outcomes, also in the counters."""

    @microbatch
    async def generate(items):
        yield [{"ends": DONE, "fails": ValueError()}.get(item, item) for item in items]
        raise asyncio.CancelledError

    calls = (values(generate(item)) for item in ("ends", "fails", "goes on"))
    ended, failed, aborted = await asyncio.gather(*calls, return_exceptions=True)
    assert ([], ValueError, BatchAbortedError) == (ended, type(failed), type(aborted))
    stats = generate.batch_stats
    assert (1, 2, 0) == (stats.answered_items, stats.failed_items, stats.cancelled_items)


async def test_readers_that_leave_while_the_generator_closes():
    """If all readers leave while the generator cleans up at its end, the batch is cancelled there."""
    log = []

    @microbatch
    async def generate(items):
        try:
            yield items
        finally:
            try:
                await asyncio.sleep(1)
            except asyncio.CancelledError:
                log.append("cancelled")
                raise

    streams = [generate.submit(1), generate.submit(2)]
    assert [1, 2] == [await anext(stream) for stream in streams]
    await asyncio.sleep(0.5)
    for stream in streams:
        await stream.aclose()
    await generate.aclose()
    assert (["cancelled"], 2, 0) == (log, generate.batch_stats.cancelled_items, generate.batch_stats.running)


def test_a_loop_that_ends_with_open_streams(caplog):
    """Streams of a loop that ended count as left; nothing is logged, and the next loop works."""
    log = Log()
    generate = microbatch(log.generator(pause=0))
    kept = []

    async def main():
        kept.extend([generate.submit("a"), generate("b"), generate.submit("c")])
        return await anext(kept[-3])

    assert ["a0", "a0"] == [asyncio.run(main()), asyncio.run(main())]
    del kept[:]
    gc.collect()
    assert (0, 0) == (generate.batch_stats.running, generate.batch_stats.pending)
    assert [] == caplog.records


def test_a_loop_that_ends_while_a_stream_waits(caplog):
    """If ``asyncio.run`` ends while one stream runs and another waits, the other one never starts."""
    log = Log()
    generate = microbatch(log.generator(pause=0))
    kept = []

    async def main():
        kept.append(generate.submit("a"))
        await anext(kept[0])
        kept.append(generate.submit("b"))

    asyncio.run(main())
    assert [["a"], "closed"] == log
    assert [] == caplog.records
    stats = generate.batch_stats
    assert (0, 0, 2) == (stats.running, stats.pending, stats.failed_items)


def test_a_loop_that_is_closed_under_open_streams(caplog):
    """Streams of a closed loop count as left, running or queued, even if no task was cancelled."""
    generate = microbatch(Log().generator(pause=60), max_size=1)
    loop = asyncio.new_event_loop()

    async def main():
        streams = [generate.submit("a"), generate.submit("b")]
        await settle()
        return streams

    a, b = loop.run_until_complete(main())
    loop.close()
    b.leave()
    del a, b
    gc.collect()
    stats = generate.batch_stats
    assert (0, 0, 2) == (stats.running, stats.pending, stats.cancelled_items)
    assert [] == caplog.records


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_exception_that_ends_the_program(kind):
    """An exception that ends the program propagates, as from any task, after the readers have their errors."""
    told = []

    @microbatch
    async def generate(items):
        yield [DONE, *items[1:]]
        await asyncio.sleep(0)
        raise kind

    async def read(item):
        try:
            return await values(generate(item))
        except BatchAbortedError as error:
            told.append(error)
            raise

    async def main():
        return await asyncio.gather(read("a"), read("b"), return_exceptions=True)

    loop = asyncio.new_event_loop()
    both = loop.create_task(main())
    with pytest.raises(kind):
        loop.run_until_complete(both)
    ended, error = loop.run_until_complete(both)
    assert ([], [error]) == (ended, told)
    assert [kind] == [type(error.__cause__) for error in told]
    loop.close()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
def test_eager_tasks():
    """A generator that awaits nothing may end before its call returns."""

    @microbatch(max_size=1)
    async def generate(items):
        yield items
        yield [DONE for _ in items]
        yield items

    async def main():
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        return await values(generate("a")), await values(generate.submit("b"))

    assert (["a"], ["b"]) == asyncio.run(main())


def test_uvloop():
    """Streams work on uvloop's loops."""
    uvloop = pytest.importorskip("uvloop")
    generate = microbatch(Log().generator(2, pause=0))
    answers = asyncio.Runner(loop_factory=uvloop.new_event_loop) if sys.version_info >= (3, 11) else None
    if answers is None:
        pytest.skip("runners came with Python 3.11")
    with answers as runner:
        assert ["a0", "a1"] == runner.run(values(generate("a")))


async def test_no_stream_without_a_loop():
    """``submit()`` needs a running loop; a call needs one when it is read."""
    generate = microbatch(Log().generator(1))
    with pytest.raises(RuntimeError, match="no event loop of asyncio is running"):
        await asyncio.to_thread(generate.submit, "a")
    assert ["a0"] == await values(await asyncio.to_thread(generate, "a"))


async def test_closed():
    """After ``aclose()`` a call is refused when it is read, and ``submit()`` at once; each only once."""
    generate = microbatch(Log().generator(1))
    await generate.aclose()
    stream = generate("a")
    with pytest.raises(BatcherClosedError):
        await anext(stream)
    assert [] == await values(stream)
    with pytest.raises(BatcherClosedError):
        generate.submit("a")


# Batches that read the streams of others.


async def test_a_circle():
    """Generators that read each other's streams get an error instead of waiting for each other forever."""

    @microbatch
    async def one(items):
        async for value in two(items[0]):
            yield [value for _ in items]

    @microbatch
    async def two(items):
        async for value in one(items[0]):
            yield [value for _ in items]

    with pytest.raises(ReentrantCallError):
        await values(one("a"))


async def test_a_neighbour():
    """A generator that reads a queued stream of its own function gets an error: it would wait for itself."""
    streams = []

    @microbatch(max_size=1)
    async def generate(items):
        yield [await anext(stream) for stream in streams] or items

    first = generate.submit("a")
    streams.append(generate.submit("b"))
    with pytest.raises(ReentrantCallError):
        await values(first)
    assert [] == await values(streams[0])


async def test_a_chain():
    """A generator may read the streams of another, of either kind."""

    @microbatch
    def letters(words):
        for n in range(len(words[0])):
            yield [word[n] for word in words]

    @microbatch
    async def loud(words):
        async for letter in letters.acall(words[0]):
            yield [letter.upper()]

    assert ["A", "B"] == await values(loud("ab"))
    assert ["A", "B"] == [letter async for letter in loud.submit("ab")]


# Methods.


class Model:
    def __init__(self, name):
        self.name = name

    @microbatch
    async def generate(self, items, *, times=1):
        for _ in range(times):
            await asyncio.sleep(1)
            yield [self.name + item for item in items]

    @microbatch
    @classmethod
    async def of_class(cls, items):
        yield [cls.__name__ + item for item in items]

    @staticmethod
    @microbatch
    async def static(items):
        yield items


async def test_methods():
    """Methods of instances, classes and neither stream, each instance in batches of its own."""
    one, two = Model("1"), Model("2")
    streams = [one.generate("a"), one.generate("b", times=2), two.generate("a"), Model.generate(two, "b")]
    expected = [["1a"], ["1b", "1b"], ["2a"], ["2b"]]
    assert expected == await asyncio.gather(*map(values, streams))
    assert (2, 2) == (one.generate.batch_stats.total_batches, two.generate.batch_stats.total_items)
    assert [["Modelb"], ["c"], ["d"]] == await asyncio.gather(
        *map(values, [Model.of_class("b"), Model.static("c"), one.static.acall("d")])
    )
    assert [["1a"], ["1b"]] == await one.generate.map("ab")


async def test_a_stream_keeps_its_instance():
    """The instance of a method lives for as long as its stream is read, and no longer."""
    model = Model("1")
    weak = weakref.ref(model)
    stream = model.generate("a", times=2)
    del model
    assert ["1a", "1a"] == await values(stream)
    await settle()
    assert weak() is None


async def test_a_submitted_stream_is_served_without_its_instance():
    """A queued item is answered even if its instance is no longer referenced."""
    stream = Model("1").generate.submit("a")
    assert ["1a"] == await values(stream)


# Nothing is left behind.


class Local:
    pass


@pytest.mark.parametrize("end", ["it ends", "it fails", "it yields what is wrong", "all are done", "all have left"])
def test_nothing_is_left_behind(end):
    """However a batch ends, no reference keeps its generator, items or streams, not even a cycle."""
    seen = []

    @microbatch(max_size=2)
    async def generate(items):
        local = Local()
        seen.append(weakref.ref(local))
        yield items
        await asyncio.sleep(0)
        if end == "it fails":
            raise KeyError
        if end == "it yields what is wrong":
            yield 5
        if end == "all are done":
            yield [DONE, DONE]
        yield items

    async def read(item):
        seen.append(weakref.ref(item))
        stream = generate(item)
        seen.append(weakref.ref(stream))
        try:
            async for _ in stream:
                if end == "all have left":
                    break
        except (KeyError, batchify.BatchResultError):
            pass

    async def main():
        tasks = [asyncio.ensure_future(read(Local())) for _ in range(2)]
        await asyncio.wait(tasks)
        del tasks
        await settle()
        return [weak() for weak in seen]

    gc.collect()
    gc.disable()
    try:
        assert [None] * 5 == run(main())
    finally:
        gc.enable()


# The bridge.


def test_a_loop_that_is_closed_under_bridged_streams():
    """The generator of a ``def`` function is closed after the loop of all its readers is closed."""
    closed = []

    @microbatch
    def generate(items):
        try:
            while True:
                yield items
        finally:
            closed.append(True)

    loop = asyncio.new_event_loop()
    stream = generate.acall("a")
    assert "a" == loop.run_until_complete(anext(stream))
    loop.close()
    generate.close()
    assert [True] == closed
    stream.leave()


def test_a_dropped_bridged_stream():
    """A stream of a ``def`` function leaves when it is dropped, even if its loop does not run."""
    generate = microbatch(endless)
    loop = asyncio.new_event_loop()
    stream = generate.acall("a")
    assert "a" == loop.run_until_complete(anext(stream))
    del stream
    gc.collect()
    generate.close()
    loop.close()
    assert 1 == generate.batch_stats.cancelled_items


def endless(items):
    while True:
        yield items


async def test_inline():
    """Inline, each stream is a batch of its own, and a ``def`` function has run when its stream is first read."""
    log = Log()
    generate = microbatch(log.generator(2), max_size=8, timeout=60)

    @microbatch
    def letters(words):
        for n in range(2):
            yield [word[n] for word in words]

    with inline():
        assert [["a0", "a1"], ["b0", "b1"]] == await asyncio.gather(values(generate("a")), values(generate.submit("b")))
        assert [["b"], ["a"], "closed", "closed"] == log
        assert [["a0", "a1"]] == await generate.map("a")
        assert ["x", "y"] == list(letters("xy")) == await values(letters.acall("xy"))
        assert [["x", "y"], ["a", "b"]] == letters.map(["xy", "ab"])
        async for _ in generate("a"):
            break
        await settle()
        assert 1 == generate.batch_stats.cancelled_items
    assert 5 == asyncio.get_running_loop().time()


async def test_closing_a_stream_that_has_ended():
    """Closing a stream whose end is unread does not interrupt the generator; the call counts as answered."""
    log = []

    @microbatch(max_size=1)
    async def generate(items):
        try:
            yield items
            yield [DONE]
        finally:
            await asyncio.sleep(1)
            log.append("cleaned")

    stream = generate.submit("a")
    assert "a" == await anext(stream)
    await settle()
    await stream.aclose()
    await asyncio.sleep(2)
    assert ["cleaned"] == log
    assert (1, 0) == (generate.batch_stats.answered_items, generate.batch_stats.cancelled_items)
