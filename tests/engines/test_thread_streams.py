"""Streams in threads alone: how threads read and leave them."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import weakref
from contextlib import closing, suppress

import pytest

import batchify
from batchify import DONE, BatcherClosedError, ReentrantCallError, microbatch
from batchify._threads.streams import ThreadChannel
from tests.kit.columns import in_time
from tests.kit.engines import PATIENCE, Gate, wait_until
from tests.kit.processes import printed_by
from tests.kit.streams import ThreadSource


def letters(words):
    for n in range(2):
        yield [word[n] for word in words]


def endless(items):
    while True:
        yield list(items)


def source_of(steps, **options):
    """Return a decorated generator function whose steps need permission, and its source."""
    source = ThreadSource(steps)
    return microbatch(source.function(), **{"name": "generate", **options}), source


def numbers(items):
    for n in range(100):
        yield [n for _ in items]


# Reading.


def test_two_streams_side_by_side():
    """One thread may read two streams in turn, whether or not they share a batch."""
    generate = microbatch(letters)
    assert [("a", "x"), ("b", "y")] == in_time(lambda: list(zip(generate("ab"), generate("xy"), strict=True)))
    both = generate.submit("ab"), generate.submit("xy")
    assert [("a", "x"), ("b", "y")] == in_time(lambda: list(zip(*both, strict=True)))


def test_two_readers_of_one_stream():
    """Threads that read one stream share its values, and all reach its end."""
    generate, source = source_of(numbers)
    stream = generate.submit("a")
    read = [[], []]
    threads = [threading.Thread(target=values.extend, args=[stream], daemon=True) for values in read]
    for thread in threads:
        thread.start()
    source.allow_all()
    for thread in threads:
        thread.join(PATIENCE)
    assert list(range(100)) == sorted(read[0] + read[1])
    assert [] == list(stream)


def test_closing_a_stream_that_another_thread_reads():
    """A thread that waits for a value reaches the end when another thread closes the stream."""
    generate, source = source_of(numbers)
    stream = generate("a")
    read = []
    thread = threading.Thread(target=read.extend, args=[stream], daemon=True)
    thread.start()
    source.await_begun()
    stream.close()
    thread.join(PATIENCE)
    assert ([], False) == (read, thread.is_alive())
    source.allow()
    source.await_ended()


def test_a_stream_that_is_closed_while_it_begins():
    """A stream that another thread closes while it is queued leaves at once."""
    generate = microbatch(endless, weigh=lambda item: stream.close() or 1, max_weight=1)
    stream = generate("a")
    assert [] == in_time(lambda: list(stream))
    wait_until(lambda: 1 == generate.batch_stats.cancelled_items)


def test_a_stream_that_is_read_while_it_begins():
    """A thread that reads a stream while another thread queues its item waits for the values, too."""
    begun, go_on = threading.Event(), threading.Event()
    generate = microbatch(letters, weigh=lambda item: begun.set() or (go_on.wait(PATIENCE) and 1), max_weight=1)
    stream, read = generate("ab"), [[], []]
    threads = [threading.Thread(target=values.extend, args=[stream], daemon=True) for values in read]
    threads[0].start()
    begun.wait(PATIENCE)
    threads[1].start()
    wait_until(lambda: waits_for_a_value(threads[1]))
    go_on.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert ["a", "b"] == sorted(read[0] + read[1])


def waits_for_a_value(thread):
    frame = sys._current_frames().get(thread.ident)
    return frame is not None and frame.f_code is ThreadChannel.get.__code__


# Leaving.


def test_leaving_the_loop_body():
    """A stream that is dropped in the middle, by ``break`` or an error, leaves at once."""
    generate, source = source_of(endless)
    source.allow_all()
    for value in generate("a"):
        assert "a" == value
        break
    source.await_ended()
    wait_until(lambda: 1 == generate.batch_stats.cancelled_items)


def test_closing_with_closing():
    """``contextlib.closing`` closes a stream as it closes a generator."""
    generate, source = source_of(endless)
    source.allow_all()
    with closing(generate("a")) as stream:
        assert "a" == next(stream)
    assert [] == list(stream)
    source.await_ended()


@pytest.mark.parametrize("begin", ["generate('a')", "generate.submit('a')"])
def test_a_reader_interrupted_while_it_waits(begin):
    """Ctrl-C reaches the main thread while it waits for a value, and its item is removed."""
    script = f"""
        import os, signal, threading
        from batchify import microbatch

        @microbatch(timeout=3600)
        def generate(items):
            yield items

        raised, reads = [], threading.Event()

        def interrupted(*_):
            if not raised:
                raised.append(True)
                raise KeyboardInterrupt

        def interrupt():
            reads.wait()
            while not generate.batch_stats.pending:
                pass
            # Again and again: CPython does not notice a signal that comes just before a thread blocks.
            while not raised:
                os.kill(os.getpid(), signal.SIGINT)

        signal.signal(signal.SIGINT, interrupted)
        stream = {begin}
        threading.Thread(target=interrupt).start()
        try:
            reads.set()
            next(stream)
        except KeyboardInterrupt:
            print("interrupted")
        other = generate.submit("b")
        generate.flush()
        print(list(other), list(stream), generate.batch_stats.cancelled_items, generate.batch_stats.size_histogram)
    """
    assert "interrupted\n['b'] [] 1 {1: 1}\n" == printed_by(script)


def test_a_finalizer_in_the_middle_of_a_call():
    """A stream that is collected while its thread holds the engine's lock leaves later, without a deadlock."""
    generate = microbatch(letters, timeout=3600)
    streams = [generate.submit("ab")]
    [engine] = [batcher._ensure_engine() for batcher in batchify.batchers() if batcher.waiting()]

    def interrupt():
        with engine.deferred, engine._lock:
            streams.pop()
            gc.collect()

    in_time(interrupt)
    wait_until(lambda: 1 == generate.batch_stats.cancelled_items)


# Room.


def test_submit_waits_for_room():
    """``submit()`` blocks until there is room for its item."""
    generate, source = source_of(letters, max_size=1, max_pending=1)
    running = generate.submit("ab")
    source.await_begun()
    waiting, blocked = generate.submit("cd"), []
    thread = threading.Thread(target=lambda: blocked.append(generate.submit("ef")), daemon=True)
    thread.start()
    wait_until(lambda: 2 == generate.batch_stats.pending)
    assert [] == blocked
    source.allow(2)
    source.allow_all()
    thread.join(PATIENCE)
    assert [["a", "b"], ["c", "d"], ["e", "f"]] == [list(stream) for stream in (running, waiting, *blocked)]


def test_no_room_in_the_own_batch():
    """A hook on the thread that has to make room is refused, and its item is removed."""
    refused = []

    def hook(_):
        if not refused:
            try:
                generate.submit("ef")
            except ReentrantCallError as error:
                refused.append(error)

    generate, source = source_of(letters, max_size=1, max_pending=1, on_batch=hook)
    running = generate.submit("ab")
    source.await_begun()
    waiting = generate.submit("cd")
    source.allow_all()
    assert [["a", "b"], ["c", "d"]] == in_time(lambda: [list(running), list(waiting)])
    assert (1, 1) == (len(refused), generate.batch_stats.cancelled_items)


def test_reading_on_the_own_thread():
    """A hook that reads a stream on the thread that has to fill it is refused instead of waiting forever."""
    told = []

    def hook(_):
        if not told:
            try:
                next(generate("cd"))
            except ReentrantCallError as error:
                told.append(error)

    generate = microbatch(letters, on_batch=hook)
    assert ["a", "b"] == list(generate("ab"))
    wait_until(lambda: told)
    wait_until(lambda: 0 == generate.batch_stats.pending)


def test_a_chain():
    """A generator may read the streams of another."""
    spell = microbatch(letters)

    @microbatch
    def loud(words):
        for letter in spell(words[0]):
            yield [letter.upper()]

    assert ["A", "B"] == in_time(lambda: list(loud("ab")))


def test_a_circle():
    """Generators that read each other's streams get an error instead of waiting for each other forever."""

    @microbatch
    def one(items):
        yield from two(items[0])

    @microbatch
    def two(items):
        yield from one(items[0])

    with pytest.raises(ReentrantCallError):
        in_time(lambda: next(one("a")))


# Event loops.


async def test_blocking_a_loop_is_warned_of():
    """In asyncio's debug mode, a stream that blocks the loop warns and names ``acall``."""
    generate = microbatch(letters, name="letters")
    asyncio.get_running_loop().set_debug(True)
    with pytest.warns(RuntimeWarning) as caught:
        assert ["a", "b"] == list(generate("ab"))
    use = "use: async for value in letters.acall(item)"
    assert [f"letters() blocks the event loop that it is called from; {use}"] == [str(w.message) for w in caught]
    assert [__file__] == [warning.filename for warning in caught]


async def test_map_warns_once():
    """In asyncio's debug mode, ``map`` warns once for all its streams, and ``submit``, which does not block, never."""
    generate = microbatch(letters, name="letters")
    asyncio.get_running_loop().set_debug(True)
    submitted = generate.submit("ab")
    with pytest.warns(RuntimeWarning) as caught:
        assert [["a", "b"], ["c", "d"]] == generate.map(["ab", "cd"])
    use = "use: async for value in letters.acall(item)"
    assert [f"letters.map() blocks the event loop that it is called from; {use}"] == [str(w.message) for w in caught]
    assert ["a", "b"] == await asyncio.to_thread(list, submitted)


def test_all_readers_leave_as_the_generator_closes(threads):
    """Readers that leave while the generator cleans up at its end leave no call behind, and the next batch runs."""
    gate = Gate(len)

    @microbatch(max_size=2, timeout=3600)
    def generate(items):
        try:
            yield items
        finally:
            gate(items)

    gate.shut()
    streams = [generate.submit(item) for item in (1, 2)]
    gate.await_batch()
    for stream in streams:
        stream.close()
    gate.open()
    in_time(generate.drain)
    stats = generate.batch_stats
    assert (0, 2) == (stats.running, stats.answered_items + stats.cancelled_items)
    assert [[3], [4]] == generate.map([3, 4])


async def test_threads_and_loops_share_batches():
    """Streams that are read in threads and on loops share batches."""
    generate = microbatch(letters, max_size=2, timeout=3600)
    stream = generate.submit("ab")
    assert ["x", "y"] == [value async for value in generate.acall("xy")]
    assert (["a", "b"], 1) == (list(stream), generate.batch_stats.total_batches)


# Every kind of function.


class Model:
    def __init__(self, name):
        self.name = name

    @microbatch
    def generate(self, items, *, times=1):
        for _ in range(times):
            yield [self.name + item for item in items]

    @microbatch
    @classmethod
    def of_class(cls, items):
        yield [cls.__name__ + item for item in items]

    @staticmethod
    @microbatch
    def static(items):
        yield items

    def plain(self, items):
        yield [self.name + item for item in items]

    def __call__(self, items):
        yield [self.name + item for item in items]


def test_methods():
    """Methods of instances, classes and neither stream, each instance in batches of its own."""
    one, two = Model("1"), Model("2")
    assert (["1a"], ["1b", "1b"]) == (list(one.generate("a")), list(one.generate("b", times=2)))
    assert (["2a"], ["2b"]) == (list(two.generate("a")), list(Model.generate(two, "b")))
    assert (["Modela"], ["b"]) == (list(Model.of_class("a")), list(one.static("b")))
    assert ([["1a"], ["1b"]], 4) == (one.generate.map("ab"), one.generate.batch_stats.total_items)


def test_other_callables():
    """Bound methods of undecorated classes, callable objects and partials stream."""
    model = Model("1")
    assert ["1a"] == list(microbatch(model.plain)("a"))
    assert ["1a"] == list(microbatch(model)("a"))


def test_options_and_columns():
    """Calls with different options do not share a batch, and each column is a list of its own."""
    seen = []

    @microbatch(weigh=lambda left, right: left + right, max_weight=10)
    def add(lefts, rights, *, times=1, **more):
        seen.append((lefts, rights, times, more))
        for n in range(times):
            yield [left + right + n for left, right in zip(lefts, rights, strict=True)]

    streams = [add.submit(1, 2), add.submit(3, 4, times=2), add.submit(rights=5, lefts=5)]
    assert [[3], [7, 8], [10]] == [list(stream) for stream in streams]
    with pytest.raises(ValueError, match="weighs 11, more than max_weight"):
        next(add(5, 6))
    assert [[3], [3]] == add.map([(1, 2), (2, 1)], scale=2)
    assert {"scale": 2} in [more for *_, more in seen]
    assert [([3], [4])] == [(lefts, rights) for lefts, rights, times, _ in seen if times == 2]


# Nothing is left behind.


def test_a_stream_that_is_over_does_not_keep_the_thread():
    """The thread of a dropped function ends even if streams of it are kept, read or not."""
    kept = [microbatch(letters, name="kept")]
    read, unread, closed = (kept[0].submit(word) for word in ("ab", "xy", "cd"))
    assert ["a", "b"] == list(read)
    wait_until(lambda: 3 == kept[0].batch_stats.total_items)
    [engine] = [weakref.ref(b._ensure_engine()) for b in batchify.batchers() if b.name == "kept"]
    del kept[:]
    wait_until(lambda: gc.collect() is not None and engine() is None)
    assert ["x", "y"] == list(unread)
    closed.close()
    assert [] == list(closed)


class Local:
    pass


@pytest.mark.parametrize("end", ["it ends", "it fails", "it yields what is wrong", "all are done", "all have left"])
def test_nothing_is_left_behind(end):
    """However a batch ends, no reference keeps its generator, items or streams, not even a cycle."""
    seen = []

    @microbatch
    def generate(items):
        local = Local()
        seen.append(weakref.ref(local))
        yield items
        if end == "it fails":
            raise KeyError
        if end == "it yields what is wrong":
            yield 5
        if end == "all are done":
            yield [DONE for _ in items]
        yield items
        yield from endless(items) if end == "all have left" else ()

    def read(item):
        seen.append(weakref.ref(item))
        stream = generate(item)
        seen.append(weakref.ref(stream))
        with suppress(KeyError, batchify.BatchResultError):
            for _ in stream:
                if end == "all have left":
                    break

    gc.collect()
    gc.disable()
    try:
        read(Local())
        wait_until(lambda: [None] * 3 == [weak() for weak in seen])
    finally:
        gc.enable()


def test_closed():
    """After ``close()`` a call is refused when it is read, and ``submit()`` at once; each only once."""
    generate = microbatch(letters)
    generate.close()
    stream = generate("ab")
    with pytest.raises(BatcherClosedError):
        next(stream)
    assert [] == list(stream)
    with pytest.raises(BatcherClosedError):
        generate.submit("ab")
