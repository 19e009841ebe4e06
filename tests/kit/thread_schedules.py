"""All schedules of a few threads within some delays of the usual one, for each use of the thread engine.

The engine takes its locks, its threads and its clock from names of its modules. Here, these names stand for controlled
ones: one thread runs at a time, and at each *point* a schedule decides which thread goes on. There is a point before
each acquisition of a lock, and before each access to an attribute that threads share without a lock. Time is virtual.
It passes when all threads wait, or earlier if the schedule decides so.

In the usual schedule, a thread goes on until it waits, then the next one in order of creation. A *delay* is a point
with another decision. The test suite tries one delay. This command tries two, and prints the table of
``docs/schedules.md``::

    python -m tests.kit.thread_schedules 2
"""

from __future__ import annotations

import gc
import platform
import sys
import time
from _thread import allocate_lock, get_ident
from collections import Counter, deque
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from functools import partial
from math import inf
from operator import attrgetter
from threading import Thread, current_thread

import pytest

from batchify import BatcherClosedError, DeadlineError, SyncMicrobatcher, batchers, microbatch
from batchify._batcher.futures import SafeFuture
from batchify._core.grouped import GroupedQueue
from batchify._core.queue import PlainQueue
from batchify._core.slots import Slots
from batchify._threads.engine import DeferredActions, ThreadEngine
from batchify._threads.waiters import ThreadWaiter
from batchify._threads.workers import Worker
from tests.kit.engines import counted_calls

# A run with so many decisions does not end.
ENDLESS = 10_000
# Seconds of real time within which a thread ends on the slowest machine.
PATIENCE = 30
# The attributes that threads read or write without the lock of the engine.
SHARED = {
    PlainQueue: ["mark"],
    Slots: ["wake_length"],
    SyncMicrobatcher: ["_engine"],
    ThreadEngine: ["_config", "_fn", "_may_have_left", "plain"],
    ThreadWaiter: ["value"],
    Worker: ["_engine"],
}
# The methods of containers that threads use so.
PLACES = ("__delitem__", "__iadd__", "__len__")
DEFERRED = ("__len__", "append", "popleft")


class Stopped(BaseException):
    """Ends the threads of a run that has failed."""


class Schedule:
    """The threads of one run after the other, and the decisions which of them goes on."""

    def __init__(self):
        self._begin(())
        self._running = None

    def _begin(self, choices):
        self.now = 0.0
        # The choices to make first. All others are the usual ones.
        self._choices = choices
        # The choice and the number of choices, for each decision.
        self.decisions = []
        # Whether all further decisions are the usual ones.
        self.is_over = False
        # What went wrong first.
        self.fault = None
        # All threads, and those that have not ended.
        self._all = []
        self._threads = []

    def run(self, choices, main, check_rest):
        """Run ``main`` in a controlled thread, until all threads have ended. Check the rest before time passes."""
        self._begin(choices)
        self._check_rest = check_rest
        self._running = ControlledThread(self, target=main, name="main")
        self._running.start()
        self._running.turn.release()
        # The list grows meanwhile.
        for thread in self._all:
            Thread.join(thread, PATIENCE)
            assert not thread.is_alive(), f"{thread.name} does not reach the next point"

    def add(self, thread):
        self._all.append(thread)
        self._threads.append(thread)

    def remove(self, thread):
        """Let another thread go on at the end of this one."""
        thread.is_ready = lambda: False
        following = self._next(thread) if self.fault is None and len(self._threads) > 1 else thread
        self._threads.remove(thread)
        if following is not thread:
            following.turn.release()

    def fail(self, fault):
        """Note what went wrong first, and end all threads."""
        if self.fault is None:
            self.fault = f"at {self.now}: {fault}; threads: {[thread.name for thread in self._threads]}"
            for thread in self._threads:
                if thread.turn.locked():
                    thread.turn.release()

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self._step((lambda: False) if seconds else always, self.now + seconds, yields=not seconds)

    def point(self):
        """Let the schedule decide which thread goes on."""
        if not self.is_over:
            self._step(always)

    def wait(self, is_ready, seconds=-1):
        """Block the running thread until ``is_ready()``, at most for ``seconds`` if these are not negative."""
        self._step(is_ready, self.now + seconds if seconds >= 0 else inf)

    def _step(self, is_ready, until=inf, *, yields=False):
        me = self._running
        if me is None or get_ident() != me.ident or self.fault is not None:
            if isinstance(current_thread(), ControlledThread):
                raise Stopped
            # The thread of the test makes and drops objects between two runs.
            return
        me.is_ready, me.until = is_ready, until
        following = self._next(me, yields=yields)
        if following is not me:
            following.turn.release()
            me.turn.acquire()
        if self.fault is not None:
            raise Stopped
        me.is_ready, me.until = always, inf

    def _next(self, me, *, yields=False):
        """Return the thread that goes on after a thread that waits, ends, or ``yields``."""
        # A thread that yields comes last.
        place = self._threads.index(me) + yields
        order = self._threads[place:] + self._threads[:place]
        choices = [thread for thread in order if thread.is_ready() or thread.until <= self.now]
        timed = [thread for thread in order if thread not in choices and thread.until < inf]
        late = min(timed, key=attrgetter("until"), default=None)
        if not choices:
            self._check_rest(inf if late is None else late.until)
        if late is not None:
            choices.append(late)
        if not choices:
            self.fail("deadlock")
        if self.fault is None:
            self._running = self._choose(choices)
            if self._running is late:
                self.now = late.until
        # The thread of a fault ends itself.
        return me if self.fault is not None else self._running

    def _choose(self, threads):
        if self.is_over or len(threads) == 1:
            return threads[0]
        number = len(self.decisions)
        choice = self._choices[number] if number < len(self._choices) else 0
        self.decisions.append((choice, len(threads)))
        if number == ENDLESS:
            self.fail("the run does not end")
        return threads[choice]


def always():
    return True


class ControlledThread(Thread):
    """A thread that goes on when the schedule decides so."""

    def __init__(self, schedule, **arguments):
        super().__init__(**{**arguments, "daemon": True})
        self._schedule = schedule
        self.is_ready, self.until = always, inf
        # Held while another thread runs.
        self.turn = allocate_lock()
        self.turn.acquire()
        self._has_ended = False

    def start(self):
        self._schedule.add(self)
        super().start()

    def run(self):
        self.turn.acquire()
        try:
            if self._schedule.fault is None:
                super().run()
        except Stopped:
            pass
        except BaseException as error:
            self._schedule.fail(f"{self.name} raises {error!r}")
        finally:
            self._has_ended = True
            self._schedule.remove(self)

    def join(self, timeout=None):
        self._schedule.wait(lambda: self._has_ended)


class ControlledLock:
    """A lock with a point before each acquisition."""

    def __init__(self, schedule, *, is_reentrant=False):
        self._schedule = schedule
        self._is_reentrant = is_reentrant
        self._owner = None
        self._depth = 0

    def acquire(self, blocking=True, timeout=-1):
        if not (self._is_reentrant and self._is_owned()):
            self._schedule.wait(lambda: self._owner is None or not blocking, timeout)
            if self._owner is not None:
                return False
            self._owner = get_ident()
        self._depth += 1
        return True

    def release(self):
        if self._owner is None:
            raise RuntimeError
        self._depth -= 1
        if not self._depth:
            self._owner = None

    def locked(self):
        return self._owner is not None

    def _is_owned(self):
        return self._owner == get_ident()

    def __enter__(self):
        self.acquire()

    def __exit__(self, *error):
        self.release()


class ControlledCondition(ControlledLock):
    """The condition of a future."""

    def __init__(self, schedule):
        super().__init__(schedule, is_reentrant=True)
        self._notifications = 0

    def wait(self, timeout=None):
        before = self._notifications
        self.release()
        self._schedule.wait(lambda: self._notifications > before, -1 if timeout is None else timeout)
        self.acquire()
        return self._notifications > before

    def notify_all(self):
        self._notifications += 1


class SharedAttribute:
    """An attribute with a point before each access."""

    def __init__(self, schedule, owner, name):
        self._schedule = schedule
        self._name = name
        # The slot, or the value of an object that has none of its own.
        self._former = vars(owner).get(name)
        self._is_slot = hasattr(self._former, "__set__")

    def __get__(self, owner, kind=None):
        self._schedule.point()
        return self._former.__get__(owner) if self._is_slot else vars(owner).get(self._name, self._former)

    def __set__(self, owner, value):
        self._schedule.point()
        if self._is_slot:
            self._former.__set__(owner, value)
        else:
            vars(owner)[self._name] = value


def with_points(schedule, base, names):
    """Return the methods of a container, each with a point before it."""

    def with_point(method):
        def call(*arguments):
            schedule.point()
            return method(*arguments)

        return call

    return {name: with_point(getattr(base, name)) for name in names}


@contextmanager
def controlled(schedule):
    """Let the engine use the locks, the threads and the clock of ``schedule``."""
    lock = partial(ControlledLock, schedule)
    reentrant_lock = partial(lock, is_reentrant=True)
    names = {
        "_batcher.draining": {"monotonic": schedule.monotonic},
        "_stats.counters": {"RLock": reentrant_lock},
        "_threads.batcher": {"configure_lock": reentrant_lock(), "monotonic": schedule.monotonic},
        "_threads.engine": {"RLock": reentrant_lock, "monotonic": schedule.monotonic, "sleep": schedule.sleep},
        "_threads.waiters": {"Lock": lock},
        "_threads.workers": {"Lock": lock, "Thread": partial(ControlledThread, schedule)},
    }
    init_queue = PlainQueue.__init__
    places = type("Places", (list,), with_points(schedule, list, PLACES))

    def init_queue_with_points(queue, limits):
        init_queue(queue, limits)
        queue.places = places()

    def init_future(future):
        Future.__init__(future)
        future._condition = ControlledCondition(schedule)

    with pytest.MonkeyPatch.context() as patch:
        for module, values in names.items():
            for name, value in values.items():
                patch.setattr(f"batchify.{module}.{name}", value)
        patch.setattr("batchify._decorator.proxy.configure_lock", names["_threads.batcher"]["configure_lock"])
        patch.setattr("batchify._decorator.routes.configure_lock", names["_threads.batcher"]["configure_lock"])
        patch.setattr(PlainQueue, "__init__", init_queue_with_points)
        patch.setattr(SafeFuture, "__init__", init_future)
        for name, method in with_points(schedule, deque, DEFERRED).items():
            patch.setattr(DeferredActions, name, method, raising=False)
        for owner, attributes in SHARED.items():
            for name in attributes:
                patch.setattr(owner, name, SharedAttribute(schedule, owner, name), raising=False)
        yield


class Run:
    """One run of a scenario: its calls and batches, and the checks of both."""

    def __init__(self, schedule, callers, *, max_size=2, seconds=0, slots=1, **options):
        self._schedule = schedule
        self._callers = callers
        # The run time of a batch, and the largest number of batches that run at once.
        self._seconds = seconds
        self._slots = slots
        self._running = 0
        self._seen = Counter()
        # The item and the error, or None, of each call.
        self._ends = []
        self.fn = microbatch(self._answer, name="answer", max_size=max_size, **options)

    def _answer(self, items):
        self._running += 1
        self._expect(True, self._running <= self._slots)
        self._seen.update(items)
        self.pause(self._seconds)
        self._running -= 1
        return [f"result of {item}" for item in items]

    def _expect(self, expected, found):
        # An error raised here could become the answer of a call.
        if expected != found:
            self._schedule.fail(f"{found}, not {expected}")

    def main(self):
        """Run the callers, then close the function."""
        threads = [
            ControlledThread(self._schedule, target=caller, args=(self,), name=f"caller {number}")
            for number, caller in enumerate(self._callers)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self._schedule.is_over = True
        self.fn.close()
        self._check_end()

    def check_rest(self, until):
        """Check that all work is done, when all threads wait and the first of them wakes at ``until``."""
        was_over, self._schedule.is_over = self._schedule.is_over, True
        for engine in [engine for batcher in self.batchers for engine in batcher._engines()]:
            queue = engine.line.queue
            # Not ``line.plan()``, whose lock would be another step.
            due = min(at for at in (queue.plan(), engine.line.expires_at, inf) if at is not None)
            self._expect(inf, due if due <= self._schedule.now or due < until else inf)
            self._expect(engine._config, engine.line.config)
            if isinstance(queue, GroupedQueue):
                self._expect(True, queue.is_full or not queue._overflow)
        self._schedule.is_over = was_over

    @property
    def batchers(self):
        return [batcher for batcher in batchers() if batcher.name == "answer"]

    def _check_end(self):
        stats = self.fn.batch_stats
        ends = Counter(kind for _, kind in self._ends)
        self._expect((0, 0, 0), (stats.pending, stats.running, self._running))
        self._expect(ends[None], stats.answered_items)
        self._expect(ends[CancelledError], stats.cancelled_items)
        self._expect(ends[DeadlineError], stats.expired_items)
        self._expect(Counter(item for item, kind in self._ends if kind is None), self._seen)
        self._expect(True, stats.failed_items <= ends[BatcherClosedError])
        self._expect(set(), {*ends} - {None, CancelledError, DeadlineError, BatcherClosedError})

    def pause(self, seconds):
        if seconds:
            self._schedule.sleep(seconds)

    def note(self, item, answer):
        """Note how a call ends, and check its answer."""
        try:
            self._expect(f"result of {item}", answer())
        except Exception as error:
            self._ends.append((item, type(error)))
        else:
            self._ends.append((item, None))


def call(*items, **view):
    """Return a caller that calls with one item after the other."""

    def caller(run):
        for item in items:
            run.note(item, partial(run.fn.options(**view) if view else run.fn, item))

    return caller


def cancel(item, after=0):
    """Return a caller that submits an item, and cancels its future ``after`` some seconds."""

    def caller(run):
        future = run.fn.submit(item)
        run.pause(after)
        future.cancel()
        run.note(item, future.result)

    return caller


def use(name, *arguments, **options):
    """Return a caller that uses another member of the function."""
    return lambda run: getattr(run.fn, name)(*arguments, **options)


def end(name):
    """Return a caller that closes or drains the function, and checks that all calls until then have ended."""

    def caller(run):
        before = counted_calls(run.fn.batch_stats)
        getattr(run.fn, name)()
        stats = run.fn.batch_stats
        run._expect(True, before <= counted_calls(stats) - stats.pending - stats.running)

    return caller


def pause(seconds):
    return lambda run: run.pause(seconds)


def steps(*callers):
    """Return a caller that is all of these, one after the other."""

    def caller(run):
        for each in callers:
            each(run)

    return caller


WINDOW = {"timeout": 2, "max_size": 3}
BUSY = {"max_size": 1, "seconds": 2}
# The callers and the options of each scenario.
SCENARIOS = {
    "first use": ([call(1), call(2)], {}),
    "full": ([call(1), call(2)], {"timeout": 1}),
    "timer": ([call(1), call(2)], WINDOW),
    "timer, then full": ([call(1), steps(pause(1), call(2))], {"timeout": 2}),
    "busy": ([call(1, 3), call(2, 4)], BUSY),
    "busy, window": ([call(1, 3), call(2, 4)], {"timeout": 1, "seconds": 1}),
    "2 slots": ([call(1, 3), call(2)], {**BUSY, "concurrency": 2, "slots": 2}),
    "cancel": ([call(1), cancel(2)], {}),
    "cancel, window": ([call(1), cancel(2, after=1)], WINDOW),
    "cancel, busy": ([call(1), cancel(2, after=1)], BUSY),
    "flush": ([call(1), steps(pause(1), use("flush"))], WINDOW),
    "close": ([call(1), call(2), end("close")], {}),
    "close, window": ([call(1), call(2), steps(pause(1), end("close"))], WINDOW),
    "close, busy": ([call(1), call(2), steps(pause(1), end("close"))], BUSY),
    "close at once": ([call(1), call(2), steps(pause(1), use("close", 0))], BUSY),
    "close, open": ([call(1), steps(end("close"), use("open"), call(2))], {}),
    "drain": ([call(1, 3), call(2), steps(pause(1), end("drain"))], WINDOW),
    "drain, busy": ([call(1, 3), steps(pause(1), end("drain")), cancel(2, after=1)], BUSY),
    "deadline": ([call(1), call(2, deadline=1)], BUSY),
    "deadline, window": ([call(1), call(2, deadline=1)], {"timeout": 2, "max_size": 3}),
    "deadlines": ([call(1), call(2, deadline=2), steps(pause(1), call(3, deadline=0.5))], {**BUSY, "seconds": 4}),
    "priority": ([call(1, 3), steps(pause(1), call(2, priority=1))], {**WINDOW, "seconds": 1}),
    "max_pending": ([call(1), call(2), call(3)], {**BUSY, "max_pending": 1}),
    "max_pending, cancel": ([call(1), cancel(2, after=1), call(3)], {**BUSY, "max_pending": 1}),
    "configure": ([call(1), call(2), steps(pause(1), use("configure", max_size=1))], WINDOW),
    "configure, 2 slots": ([call(1), call(2), steps(pause(1), use("configure", concurrency=2))], {**BUSY, "slots": 2}),
}


def explore(name, delays):
    """Run a scenario in all schedules with at most this many delays; return their number, or raise the first error."""
    callers, options = SCENARIOS[name]
    schedule = Schedule()
    choices, schedules = [], 0
    # A collection in the middle of a run would make the run unrepeatable.
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        with controlled(schedule):
            while choices is not None:
                run = Run(schedule, callers, **options)
                schedule.run(choices, run.main, run.check_rest)
                schedules += 1
                if schedules % 100 == 0:
                    gc.collect()
                if schedule.fault is not None:
                    for batcher in run.batchers:
                        # Its threads are gone, and nothing can close it any more.
                        batcher._engine = None
                    taken = {number: choice for number, (choice, _) in enumerate(schedule.decisions) if choice}
                    msg = f"schedule {schedules} of {name!r}, with the delays {taken}: {schedule.fault}"
                    raise AssertionError(msg)
                choices = following(schedule.decisions, delays)
    finally:
        gc.enable()
        gc.collect()
        gc.unfreeze()
    return schedules


def following(decisions, delays):
    """Return the choices of the next schedule, depth first, or ``None`` after the last one."""
    choices = [choice for choice, _ in decisions]
    for place in reversed(range(len(decisions))):
        choice, number = decisions[place]
        if choice + 1 < number and sum(map(bool, choices[:place])) < delays:
            return [*choices[:place], choice + 1]
    return None


def report(delays):
    """Print a table of all scenarios."""
    print(f"Python {platform.python_version()}, delays: {delays}\n")
    print("| use | schedules | seconds |\n|---|--:|--:|")
    total = spent = 0
    for name in SCENARIOS:
        began = time.process_time()
        number = explore(name, delays)
        seconds = time.process_time() - began
        print(f"| {name} | {number:,} | {seconds:.1f} |", flush=True)
        total, spent = total + number, spent + seconds
    print(f"| **all {len(SCENARIOS)}** | **{total:,}** | **{spent:.1f}** |")


if __name__ == "__main__":
    report(int(sys.argv[1]))
