"""Kits that run the same test on both engines, with batch functions that can wait at a gate."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
import weakref
from concurrent.futures import Future

import batchify
from batchify import microbatch
from batchify._clock import monotonic

# A wait of this many seconds counts as a hang. A test that passes needs about a hundredth of it.
PATIENCE = 5.0
# A window that never ends within a test.
HOUR = 3600


class Gate:
    """A batch function that records its batches, waits while its gate is shut, and returns ``answer(items)``."""

    def __init__(self, answer):
        self.answer = answer
        self.batches = []
        self._open = threading.Event()
        self._open.set()
        self.arrived = threading.Semaphore(0)

    def shut(self):
        self._open.clear()

    def open(self):
        self._open.set()

    def is_open(self):
        return self._open.is_set()

    def __call__(self, items):
        self.batches.append(list(items))
        self.arrived.release()
        assert self._open.wait(PATIENCE), "the gate was not opened in time"
        return self.answer(items)

    def await_batch(self):
        """Wait until the next batch reaches the gate."""
        assert self.arrived.acquire(timeout=PATIENCE), "no batch reached the gate"


def doubled(items):
    return [item * 2 for item in items]


async def adoubled(items):
    return doubled(items)


def failing():
    """Return a function that always raises, and a list of weak references to one local object of each call."""
    seen = []

    class Local:
        pass

    def fail(items):
        local = Local()
        seen.append(weakref.ref(local))
        raise KeyError

    return fail, seen


class Kit:
    """Calls the decorated functions of one engine from plain test code; a caller is the future of its answer."""

    def __init__(self):
        self._gates = []

    def decorate(self, answer=doubled, **options):
        """Decorate a batch function that returns ``answer(items)``; return the decorated function and its gate."""
        gate = Gate(answer)
        self._gates.append(gate)
        return microbatch(self.batch_function(gate), **{"name": "double", **options}), gate

    def held(self, **options):
        """Decorate a function and start one batch, which waits at the gate; return the function and the gate."""
        fn, gate = self.decorate(**options)
        gate.shut()
        self.call(fn, 0)
        gate.await_batch()
        return fn, gate

    def results(self, callers):
        return [caller.result(PATIENCE) for caller in callers]

    def errors(self, callers):
        return [caller.exception(PATIENCE) for caller in callers]

    def call_waiting(self, fn, *items):
        """Make one call for each item, and wait until each is counted before the next; return the callers."""
        callers = []
        for item in items:
            before = counted_calls(fn.batch_stats)
            callers.append(self.call(fn, item))
            wait_until(lambda: counted_calls(fn.batch_stats) > before)  # noqa: B023  # it is only called in this iteration
        return callers

    def await_done(self, futures):
        for future in futures:
            wait_until(future.done)

    def close(self):
        for gate in self._gates:
            gate.open()


def counted_calls(stats):
    """Return the number of calls that the statistics count."""
    ended = stats.answered_items + stats.failed_items + stats.cancelled_items + stats.expired_items
    return stats.pending + stats.running + ended


def await_queued(fn, number):
    """Wait until this number of calls is queued; a call on its way from a loop is pending, but not in the queue yet."""
    wait_until(lambda: len(fn._self_route.find().waiting()) == number)


def wait_until(condition):
    """Wait for another thread to make ``condition()`` true."""
    # Tests may freeze the clock of the application.
    deadline = monotonic() + PATIENCE
    while not condition():
        assert monotonic() < deadline, "the condition did not become true in time"
        time.sleep(0)


class Threads(Kit):
    """Each caller blocks in its own thread."""

    name = "threads"

    def batch_function(self, gate):
        def double(items):
            return gate(items)

        return double

    def call(self, fn, *args, **kwargs):
        caller = Future()
        caller.set_running_or_notify_cancel()

        def run():
            try:
                caller.set_result(fn(*args, **kwargs))
            except BaseException as error:
                caller.set_exception(error)

        threading.Thread(target=run, daemon=True).start()
        return caller

    def run(self, do):
        """Return ``do()``, run in a place where the function may be called."""
        return do()

    def inside(self, fn, item):
        """Call ``fn`` from inside a batch."""
        return fn(item)


class Tasks(Kit):
    """Callers are tasks of an event loop that runs in its own thread."""

    name = "asyncio"

    def __init__(self):
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="event loop")
        self._thread.start()

    def batch_function(self, gate):
        async def double(items):
            context = contextvars.copy_context()
            return await asyncio.get_running_loop().run_in_executor(None, context.run, gate, items)

        return double

    def call(self, fn, *args, **kwargs):
        async def call():
            return await fn(*args, **kwargs)

        return asyncio.run_coroutine_threadsafe(call(), self.loop)

    def run(self, do):
        async def run():
            return do()

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(PATIENCE)

    def inside(self, fn, item):
        return asyncio.run_coroutine_threadsafe(fn(item), self.loop).result(PATIENCE)

    def close(self):
        super().close()
        batchify.close_all()
        asyncio.run_coroutine_threadsafe(self.loop.shutdown_default_executor(), self.loop).result(PATIENCE)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(PATIENCE)
        self.loop.close()


class Bridged(Tasks):
    """Callers are tasks that await a function of the thread engine through ``acall()``."""

    name = "acall"

    batch_function = Threads.batch_function

    def call(self, fn, *args, **kwargs):
        return super().call(fn.acall, *args, **kwargs)

    def call_waiting(self, fn, *items):
        callers = super().call_waiting(fn, *items)
        # A call on its way from its loop is counted, but a later one may overtake it. This moves it to the queue.
        fn._self_route.find().waiting()
        return callers

    def inside(self, fn, item):
        return super().inside(fn.acall, item)
