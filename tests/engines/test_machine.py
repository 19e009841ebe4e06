"""Both engines compared with the model of the core: the same batches at the same times, with the right answers.

Time is virtual. An event loop advances from timer to timer. Threads share a clock that advances only when all of them
wait. They pause while the machine acts, so that no batch depends on the speed of a thread.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections import Counter
from functools import partial
from unittest.mock import patch

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from batchify import (
    AsyncMicrobatcher,
    BatcherClosedError,
    BatchResultError,
    SyncMicrobatcher,
    current_batch,
)
from batchify._batcher.draining import Drain
from batchify._threads import workers
from batchify.testing import VirtualLoop
from tests.kit.columns import forget_batchers
from tests.kit.model import Model, item_of

picks = st.integers(0, 40)
# A hang is a failure after this many seconds.
PATIENCE = 1.0
# Times with a smaller difference are equal except for rounding.
SAME = 1e-6


class BadItemError(Exception):
    """Returned in place of a result."""


class BadBatchError(Exception):
    """Raised by a batch."""


def answer(caller):
    return "answer to", caller["item"]


# The ways in which a batch may end: the results that the batch function returns, or the error that it raises.
ENDS = {
    "answers": lambda callers: [answer(caller) for caller in callers],
    "one is refused": lambda callers: [BadItemError(), *(answer(caller) for caller in callers[1:])],
    "raises": lambda callers: BadBatchError("all of them"),
    "one too few": lambda callers: [answer(caller) for caller in callers[1:]],
}


def expected(end, callers):
    """Return the answer, or the type of the error, that each caller must get."""
    if end == "raises":
        return [BadBatchError] * len(callers)
    if end == "one too few":
        return [BatchResultError] * len(callers)
    answers = [answer(caller) for caller in callers]
    return [BadItemError, *answers[1:]] if end == "one is refused" else answers


def outcome(future):
    """Return the answer of a future, or the type of its error."""
    error = future.exception()
    return future.result() if error is None else type(error)


class Running:
    """A batch as the batch function saw it."""

    def __init__(self, items, now):
        self.items = list(items)
        self.reason = current_batch().reason
        self.began = now


class OnLoop:
    """An engine on an event loop in virtual time."""

    # Whether a caller of a running batch can be cancelled.
    cancels_running = True

    def __init__(self, **options):
        self.loop = VirtualLoop()
        self.began = []
        self._ends = {}
        self.batcher = AsyncMicrobatcher(self._answer, **options)

    async def _answer(self, items):
        batch = Running(items, self.loop.time())
        self.began.append(batch)
        self._ends[batch] = end = self.loop.create_future()
        returned = await end
        if isinstance(returned, Exception):
            raise returned
        return returned

    @property
    def now(self):
        return self.loop.time()

    def act(self, *actions):
        """Do ``actions`` in one iteration of the loop, and run all callbacks that follow at the same time."""
        done = []
        self.loop.call_soon(lambda: done.extend(action() for action in actions))
        for _ in range(8):
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()
        return done

    def put(self, item):
        try:
            return self.batcher._submit_nowait(item)
        except BatcherClosedError as error:
            return error

    def end(self, batch, returned):
        self._ends[batch].set_result(returned)

    def close(self):
        """Begin to close; return a function that says whether closing is complete."""
        return self.loop.create_task(self.batcher.stop()).done

    def open(self):
        self.batcher._accept()

    def sleep(self, seconds):
        self.loop.run_until_complete(asyncio.sleep(seconds))
        self.act()

    def shut(self):
        self.loop.close()


class Clock:
    """Virtual time and locks for threads that run only while the driver waits for them."""

    def __init__(self):
        self.now = 1000.0
        self._changed = threading.Condition()
        self._driver = threading.get_ident()
        self._frozen = False
        # The condition that each thread waits for, or None if it does not wait.
        self._threads = {}

    def wait_for(self, condition):
        """Block until ``condition()`` is true and the driver lets the threads run."""
        me = threading.get_ident()
        with self._changed:
            while not condition() or (self._frozen and me in self._threads):
                if me in self._threads:
                    self._threads[me] = condition
                self._changed.notify_all()
                assert self._changed.wait(PATIENCE), "hang: no thread woke this one"
            if me in self._threads:
                self._threads[me] = None

    def __enter__(self):
        """Stop all threads."""
        self._frozen = True

    def __exit__(self, *error):
        """Let the threads run until each one waits for a condition that is not true."""
        with self._changed:
            self._frozen = False
            self._changed.notify_all()
            assert self._changed.wait_for(self._all_wait, PATIENCE), "hang: a thread does not wait"

    def _all_wait(self):
        return all(condition is not None and not condition() for condition in self._threads.values())

    def sleep(self, seconds):
        """Advance from timeout to timeout of the threads, until the time has passed."""
        until = self.now + seconds
        while (moment := min([until, *self.moments()])) < until:
            self._advance(moment)
        self._advance(until)

    def moments(self):
        return [condition.until for condition in self._threads.values() if condition.until is not None]

    def _advance(self, moment):
        with self:
            self.now = moment

    def lock(self):
        return Lock(self)

    def thread(self, target, args, name, daemon):
        """Return a thread that this clock controls from its start to its end."""

        def run():
            me = threading.get_ident()
            self.wait_for(Waits(lambda: me in self._threads))
            target(*args)
            with self._changed:
                del self._threads[me]
                self._changed.notify_all()

        return Thread(self, run, name)


class Waits:
    """A condition that a thread waits for, and the time until which it waits."""

    def __init__(self, condition, until=None):
        self._condition = condition
        self.until = until

    def __call__(self):
        return self._condition()


class Thread(threading.Thread):
    """A thread that a clock controls."""

    def __init__(self, clock, run, name):
        super().__init__(target=run, name=name, daemon=True)
        self._clock = clock

    def start(self):
        with self._clock._changed:
            super().start()
            self._clock._threads[self.ident] = None
            self._clock._changed.notify_all()


class Lock:
    """A lock whose timeouts use a clock."""

    def __init__(self, clock):
        self._clock = clock
        self._held = False

    def acquire(self, timeout=None):
        until = None if timeout in {None, -1} else self._clock.now + timeout
        with self._clock._changed:
            has_timed_out = lambda: until is not None and self._clock.now >= until
            self._clock.wait_for(Waits(lambda: not self._held or has_timed_out(), until))
            free, self._held = not self._held, True
            return free

    def release(self):
        with self._clock._changed:
            if not self._held:
                raise RuntimeError
            self._held = False
            self._clock._changed.notify_all()

    def __exit__(self, *engine):
        """Do nothing: no engine is dropped in virtual time."""


class InThreads:
    """A thread engine in virtual time."""

    cancels_running = False

    def __init__(self, **options):
        self._clock = Clock()
        self._began = []
        self._ends = {}
        self._patches = [
            patch.multiple(workers, Lock=self._clock.lock, Thread=self._clock.thread),
            patch("batchify._threads.engine.monotonic", lambda: self._clock.now),
        ]
        for each in self._patches:
            each.start()
        self.batcher = SyncMicrobatcher(self._answer, **options)

    def _answer(self, items):
        batch = Running(items, self._clock.now)
        self._began.append(batch)
        self._clock.wait_for(Waits(lambda: batch in self._ends))
        returned = self._ends[batch]
        if isinstance(returned, Exception):
            raise returned
        return returned

    @property
    def began(self):
        # Of two batches that leave at the same moment, either may reach the function first.
        return sorted(self._began, key=lambda batch: (batch.began, batch.items[0]))

    @property
    def now(self):
        return self._clock.now

    def act(self, *actions):
        """Do ``actions`` while all threads pause, and then run the threads until they wait again."""
        with self._clock:
            return [action() for action in actions]

    put = OnLoop.put

    def end(self, batch, returned):
        self._ends[batch] = returned

    def close(self):
        engine = self.batcher._ensure_engine()
        drain = Drain(engine.line.queue, "close")
        engine.drain(drain)
        return drain.done

    open = OnLoop.open

    def sleep(self, seconds):
        self._clock.sleep(seconds)

    def shut(self):
        for each in self._patches:
            each.stop()
        assert {} == self._clock._threads


class EngineMachine(RuleBasedStateMachine):
    """Performs the same operations on an engine and on the model."""

    kit = OnLoop

    @initialize(
        max_size=st.integers(1, 4),
        timeout=st.sampled_from([None, 0.0, 0.75, 4.0]),
        concurrency=st.integers(1, 3),
    )
    def begin(self, max_size, timeout, concurrency):
        self.engine = self.kit(max_batch_size=max_size, batch_wait_timeout_s=timeout, concurrency=concurrency)
        self.model = Model(max_size, timeout, concurrency)
        # The running batches of the engine, in the same order as those of the model.
        self.batches = []
        self.futures = []
        self.ends = Counter()
        self.closed = False
        # For each call of close(), a function that says whether closing is complete.
        self.closings = []

    def teardown(self):
        """Close the batcher: every caller gets an answer, and no item waits or runs."""
        if not hasattr(self, "engine"):
            return
        try:
            self.close()
            while self.model.running():
                self.end(0, "answers")
            self.same_numbers()
            assert all(future.done() for future in self.futures)
        finally:
            self.engine.shut()

    @rule(count=st.sampled_from([1, 1, 1, 2, 3, 9]))
    def arrive(self, count):
        """Let items arrive together; a closed batcher refuses all of them."""
        first = len(self.model.callers)
        puts = [partial(self.engine.put, item_of(ticket)) for ticket in range(first, first + count)]
        if self.closed:
            assert [BatcherClosedError] * count == [type(error) for error in self.engine.act(*puts)]
            return
        for _ in range(count):
            self.model.add(self.engine.now)
        self.futures += self.engine.act(*puts)
        self._follow()

    @rule(quarters=st.integers(1, 20))
    def sleep(self, quarters):
        """Let time pass; each batch leaves when it is due."""
        self.engine.sleep(quarters / 4)
        self._follow()

    @precondition(lambda self: self.model.wake_at() is not None)
    @rule()
    def sleep_until_due(self):
        """Let time pass until a batch is due, which leaves at that moment."""
        self.engine.sleep(max(0.0, self.model.wake_at() - self.engine.now) + SAME / 2)
        self._follow()

    @precondition(lambda self: self.model.running())
    @rule(pick=picks, how=st.sampled_from(sorted(ENDS)))
    def end(self, pick, how):
        """End a running batch in one of the ways, and check that each caller gets its own answer."""
        model = self.model.running()[pick % len(self.model.running())]
        batch = self.batches[self.model.batches.index(model)]
        callers = model["members"]
        self.model.finish(model, self.engine.now)
        self.engine.act(lambda: self.engine.end(batch, ENDS[how](callers)))
        for caller, answer in zip(callers, expected(how, callers), strict=True):
            if caller in model["left"]:
                assert self.futures[caller["ticket"]].cancelled()
            else:
                assert answer == outcome(self.futures[caller["ticket"]])
                self.ends["failed" if isinstance(answer, type) else "answered"] += 1
        self._follow()

    @precondition(lambda self: self.model.callers)
    @rule(pick=picks)
    def cancel(self, pick):
        """Cancel a caller, whether its item waits, runs or is answered."""
        self._cancel(self.model.callers[pick % len(self.model.callers)])

    @precondition(lambda self: self.model.waiting())
    @rule(pick=picks)
    def cancel_waiting(self, pick):
        """Cancel a caller whose item waits."""
        self._cancel(self.model.waiting()[pick % len(self.model.waiting())])

    @precondition(lambda self: self.model.running())
    @rule(pick=picks)
    def cancel_a_batch(self, pick):
        """Cancel all callers of a running batch."""
        for caller in self.model.running()[pick % len(self.model.running())]["members"]:
            self._cancel(caller)

    @rule()
    def flush(self):
        """Flush: the waiting items leave as soon as there are slots."""
        self.model.push("flush")
        self.engine.act(self.engine.batcher.flush)
        self._follow()

    @rule()
    def close(self):
        """Close: the waiting items leave as soon as there are slots, and new items are refused."""
        self.model.push("close")
        self.closed = True
        self.closings += [(is_complete, self.engine.now) for is_complete in self.engine.act(self.engine.close)]
        self._follow()

    @rule()
    def reopen(self):
        """Open the batcher again, whether or not it was closed, and whether or not closing is complete."""
        self.engine.act(self.engine.open)
        self.closed = False

    @invariant()
    def same_numbers(self):
        """Engine and model have the same counts."""
        stats = self.engine.batcher.stats
        running = sum(len(batch["members"]) for batch in self.model.running())
        assert (len(self.model.waiting()), running) == (stats.pending, stats.running)
        ends = {"answered": stats.answered_items, "failed": stats.failed_items, "cancelled": stats.cancelled_items}
        # A caller that left a running batch is counted when the batch ends.
        left = sum(len(batch["left"]) for batch in self.model.running())
        assert self.ends - Counter(cancelled=left) == Counter(**ends) + Counter()

    @invariant()
    def same_closings(self):
        """Check that a close is complete once no item waits or runs that had arrived by then."""
        running = [caller for batch in self.model.running() for caller in batch["members"]]
        oldest = min((caller["arrived"] for caller in [*self.model.waiting(), *running]), default=math.inf)
        assert [oldest > at for _, at in self.closings] == [is_complete() for is_complete, _ in self.closings]
        self.closings = [closing for closing in self.closings if not closing[0]()]

    @invariant()
    def same_queue(self):
        """Engine and model have the same waiting callers, in the same order."""
        waiting = [(caller["item"], self.futures[caller["ticket"]]) for caller in self.model.waiting()]
        assert waiting == [(item.data, item.future) for item in self.engine.batcher.waiting()]

    def _follow(self):
        """Apply the departures of the engine to the model: the callers, times and reasons must be equal."""
        for batch in self.engine.began[len(self.batches) :]:
            at = self.model.wake_at()
            assert at is not None, f"{batch.items} left although no slot was free"
            assert at <= batch.began + SAME
            reasons = self.model.reasons()
            assert batch.items == [caller["item"] for caller in self.model.take(batch.began)]
            assert batch.reason in reasons
            self.batches.append(batch)
        at = self.model.wake_at()
        assert at is None or at > self.engine.now - SAME, "a batch is due but has not left"

    def _cancel(self, caller):
        future = self.futures[caller["ticket"]]
        waits = caller["state"] == "waiting"
        runs = caller["state"] == "running"
        works = not future.done() and (waits or self.engine.cancels_running)
        was = future.cancelled()
        self.engine.act(future.cancel)
        assert (works or was) == future.cancelled()
        if works:
            self.ends["cancelled"] += 1
            if waits:
                caller["state"] = "withdrawn"
            if runs:
                self._abandon(caller)
        self._follow()

    def _abandon(self, caller):
        model = next(batch for batch in self.model.running() if caller in batch["members"])
        model["left"].append(caller)
        if len(model["left"]) == len(model["members"]):
            self.model.finish(model, self.engine.now)


class ThreadMachine(EngineMachine):
    """Runs the machine with the thread engine."""

    kit = InThreads


@pytest.mark.untraced
@pytest.mark.parametrize("machine", [EngineMachine, ThreadMachine], ids=["asyncio", "threads"])
def test_an_engine_behaves_like_the_model(machine):
    """After any arrivals, cancellations and ends of batches, an engine behaves like the model."""
    # Without shrinking, because each attempt at an example that hangs takes its full timeout.
    phases = set(Phase) - {Phase.shrink}
    try:
        run_state_machine_as_test(machine, settings=settings(max_examples=120, stateful_step_count=50, phases=phases))
    except BaseException:
        forget_batchers()
        raise
