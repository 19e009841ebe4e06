"""Kits that run the same stream test on both engines: in threads, in tasks, and in tasks across the bridge."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future

from batchify import microbatch
from tests.kit.engines import PATIENCE, Bridged, Tasks, Threads, wait_until


class Source:
    """The steps of a generator function, which waits for permission before each, and a record of its batches."""

    def __init__(self, steps):
        self.steps = steps
        self.batches = []
        # The number of generators that have started, and the number of those that have ended.
        self.begun = self.ended = 0
        self.is_free = False

    def enter(self, items):
        self.begun += 1
        self.batches.append(list(items))

    def leave(self):
        self.ended += 1

    def await_begun(self, count=1):
        wait_until(lambda: self.begun >= count)

    def await_ended(self, count=1):
        wait_until(lambda: self.ended >= count)


class ThreadSource(Source):
    """The source of a ``def`` generator function."""

    def __init__(self, steps):
        super().__init__(steps)
        self._leave = threading.Semaphore(0)

    def allow(self, steps=1):
        self._leave.release(steps)

    def allow_all(self):
        self.is_free = True
        self.allow()

    def function(self):
        def generate(items):
            self.enter(items)
            try:
                for values in self.steps(items):
                    if not self.is_free:
                        assert self._leave.acquire(timeout=PATIENCE), "the generator got no permission in time"
                    yield values
            finally:
                self.leave()

        return generate


class LoopSource(Source):
    """The source of an ``async def`` generator function."""

    def __init__(self, steps, loop):
        super().__init__(steps)
        self._loop = loop
        self._leave = asyncio.Semaphore(0)

    def allow(self, steps=1):
        for _ in range(steps):
            self._loop.call_soon_threadsafe(self._leave.release)

    def allow_all(self):
        self.is_free = True
        self.allow()

    def function(self):
        async def generate(items):
            self.enter(items)
            try:
                for values in self.steps(items):
                    if not self.is_free:
                        await self._leave.acquire()
                    yield values
            finally:
                self.leave()

        return generate


class Reader(Future):
    """Reads a stream to its end and has all values as its result.

    If the stream fails, ``values`` has the values before the error.
    """

    def __init__(self):
        super().__init__()
        self.set_running_or_notify_cancel()
        self.values = []

    def await_values(self, count):
        wait_until(lambda: len(self.values) >= count)


class Reading:
    """The members that all stream kits share."""

    def decorate(self, steps, **options):
        """Decorate a generator function that yields the values of ``steps(items)``; return it and its source."""
        source = self.source(steps)
        self._gates.append(source)
        return microbatch(source.function(), **{"name": "generate", **options}), source

    def close(self):
        for source in self._gates:
            source.open = source.allow_all
        super().close()


class Blocking:
    """The members of the kits in which generators run in threads."""

    source = staticmethod(ThreadSource)

    def read_any(self, stream):
        """Read a stream that already exists, such as one that ``submit()`` returned."""
        reader = Reader()

        def run():
            try:
                for value in stream:
                    reader.values.append(value)
                reader.set_result(reader.values)
            except BaseException as error:
                reader.set_exception(error)

        reader.leave = stream.close
        threading.Thread(target=run, daemon=True).start()
        return reader

    def map(self, fn, items):
        return fn.map(items)

    def shut(self, stream):
        """Close a stream."""
        stream.close()

    def drain(self, fn):
        """Close a function."""
        fn.close()

    def inside(self, fn, item):
        """Return the first value of a call from inside a batch, or its error."""
        try:
            return next(fn(item))
        except Exception as error:
            return error


class ReadingThreads(Blocking, Reading, Threads):
    """Readers are threads, which block."""

    def call(self, fn, *args, **kwargs):
        return self.read_any(fn(*args, **kwargs))


class ReadingTasks(Reading, Tasks):
    """Readers are tasks of an event loop that runs in its own thread."""

    def source(self, steps):
        return LoopSource(steps, self.loop)

    def call(self, fn, *args, **kwargs):
        return self.read(lambda: fn(*args, **kwargs))

    def read(self, stream):
        reader = Reader()

        async def run():
            try:
                async for value in stream():
                    reader.values.append(value)
                reader.set_result(reader.values)
            except BaseException as error:
                reader.set_exception(error)

        async def start():
            return asyncio.get_running_loop().create_task(run())

        task = asyncio.run_coroutine_threadsafe(start(), self.loop).result(PATIENCE)
        reader.leave = lambda: self.loop.call_soon_threadsafe(task.cancel)
        return reader

    def read_any(self, stream):
        """Read a stream that already exists, such as one that ``submit()`` returned."""
        return self.read(lambda: stream)

    def map(self, fn, items):
        async def call():
            return await fn.map(items)

        return asyncio.run_coroutine_threadsafe(call(), self.loop).result(PATIENCE)

    def shut(self, stream):
        stream.aclose().close()
        stream.leave()

    def inside(self, fn, item):
        """Return the first value of a call from inside a batch, or its error."""
        try:
            return fn(item).__anext__().send(None)
        except Exception as error:
            return error

    def drain(self, fn):
        asyncio.run_coroutine_threadsafe(fn.aclose(), self.loop).result(PATIENCE)


class ReadingBridged(Blocking, ReadingTasks, Bridged):
    """Readers are tasks, and the generator runs in a worker thread."""

    def call(self, fn, *args, **kwargs):
        return self.read(lambda: fn.acall(*args, **kwargs))


KITS = [ReadingThreads, ReadingTasks, ReadingBridged]
