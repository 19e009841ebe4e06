"""The plain queue compared with a simple model: a list of all callers that ever arrived.

The machine performs on both any operation of a shell, in any order and at any time. After each step it compares the
batches, their times and reasons, the plan, the arrivals that matter, and which batches are abandoned.
"""

from __future__ import annotations

import math
from contextlib import ExitStack
from unittest.mock import patch

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from batchify._core.limits import Limits
from batchify._core.queue import SHORT, WIDTH, PlainQueue
from batchify._core.slots import SPAN
from tests.kit.model import Model

picks = st.integers(0, 40)


def place(caller):
    """Return the entry of a caller."""
    return caller["item"], caller["waiter"], caller["arrived"]


class CoreMachine(RuleBasedStateMachine):
    """Performs the same operations on the queue and on the model."""

    @initialize(
        max_size=st.integers(1, 4),
        timeout=st.sampled_from([None, 0.0, 0.75, 4.0]),
        concurrency=st.integers(1, 3),
        short=st.sampled_from([0, WIDTH, 3 * WIDTH, SHORT]),
        span=st.sampled_from([1, 2, 5, SPAN]),
    )
    def begin(self, max_size, timeout, concurrency, short, span):
        # Short lists are cut, and marks are renewed after few arrivals.
        self.patches = ExitStack()
        self.patches.enter_context(patch("batchify._core.queue.SHORT", short))
        self.patches.enter_context(patch("batchify._core.queue.SPAN", span))
        options = {"max_size": max_size, "timeout": timeout, "concurrency": concurrency}
        self.queue = PlainQueue(Limits(**options))
        self.model = Model(**options, span=span)
        # The running batches of the queue, in the same order as those of the model.
        self.batches = []
        self.now = 1000.0
        # The answer of the last plan.
        self.at = None

    def teardown(self):
        """Run all remaining batches: no caller is lost, leaves twice, or overtakes another one."""
        if not hasattr(self, "queue"):
            return
        try:
            self._drain()
        finally:
            self.patches.close()
        departed = [caller["ticket"] for batch in self.model.batches for caller in batch["members"]]
        withdrawn = [caller["ticket"] for caller in self.model.callers if caller["state"] == "withdrawn"]
        assert list(range(len(self.model.callers))) == sorted(departed + withdrawn)
        assert sorted(departed) == departed
        assert (0, []) == (self.queue.waiting, self.queue.running)

    @rule(heard=st.booleans(), probe=st.booleans())
    def arrive(self, heard, probe):
        """Queue an item, which changes nothing if it does not matter. The shell may react to several at once."""
        ready = self._ready()
        # A caller reads the mark before it arrives.
        mark = self.queue.mark
        matters = self.model.add(self.now)
        caller = self.model.callers[-1]
        caller["mark"] = mark
        self.queue.places += (caller["item"], caller["waiter"], self.now)
        assert matters == (len(self.queue.places) >= self.queue.wake_length)
        if not matters:
            if probe and not ready:
                assert None is self.queue.take(self.now)
        elif heard or self.model.unmarked >= self.model.span:
            self._plan()

    @rule(count=st.integers(2, 12))
    def arrive_together(self, count):
        """Several items arrive at once, and the shell acts for each of them."""
        for _ in range(count):
            self.arrive(heard=True, probe=False)

    @rule(quarters=st.integers(1, 20))
    def sleep(self, quarters):
        """Time passes."""
        self.now += quarters / 4

    @precondition(lambda self: self._sleeping())
    @rule()
    def wake(self):
        """Just before the time to wake at, no batch leaves, and at that time one does."""
        at = self._plan()
        self.now = max(self.now, math.nextafter(at, -math.inf))
        assert None is self.queue.take(self.now)
        self.now = at
        self._take()
        self._plan()

    @rule()
    def take(self):
        """Take a batch if one is ready, and none otherwise."""
        if self._ready():
            self._take()
        else:
            assert None is self.queue.take(self.now)
        self._plan()

    @rule()
    def take_all(self):
        """All batches that may leave do so."""
        while self._ready():
            self._take()
        assert None is self.queue.take(self.now)
        self._plan()

    @precondition(lambda self: self._ready())
    @rule(mask=st.lists(st.booleans(), min_size=4, max_size=4))
    def take_and_drop(self, mask):
        """Drop callers between departure and run."""
        self._take()
        model, batch = self.model.batches[-1], self.batches[-1]
        gone = [dropped for _, dropped in zip(model["members"], mask, strict=False)]
        batch.drop(gone)
        for caller, dropped in zip(model["members"], gone, strict=True):
            if dropped:
                caller["state"] = "dropped"
        self._compare(batch, [caller for caller in model["members"] if caller["state"] == "running"])
        if all(gone):
            self._finish(len(self.model.running()) - 1)
        self._plan()

    @precondition(lambda self: self.model.running())
    @rule(pick=picks)
    def finish(self, pick):
        """Any of the running batches ends."""
        self._finish(pick % len(self.model.running()))
        self._plan()

    @precondition(lambda self: self.model.callers)
    @rule(pick=picks)
    def withdraw(self, pick):
        """Any caller leaves, whether it waits, runs, is answered or has left already."""
        self._withdraw(self.model.callers[pick % len(self.model.callers)])
        self._plan()

    @precondition(lambda self: self.model.waiting())
    @rule(pick=picks)
    def withdraw_waiting(self, pick):
        """Withdraw a waiting caller twice."""
        line = self.model.waiting()
        caller = line[pick % len(line)]
        self._withdraw(caller)
        self._withdraw(caller)
        self._plan()

    @precondition(lambda self: self.model.running())
    @rule(pick=picks)
    def abandon(self, pick):
        """Let a caller leave whose item runs. The last one of its batch abandons the batch."""
        running = self.model.running()
        batch = running[pick % len(running)]
        stays = [caller for caller in batch["members"] if caller["state"] == "running"]
        if stays:
            stays[pick % len(stays)]["state"] = "left"

    @rule(reason=st.sampled_from(["flush", "close"]))
    def push(self, reason):
        """Flush the waiting items."""
        self._push(reason)
        self._plan()

    @rule(size=st.integers(1, 4))
    def change(self, size):
        """Change the size of later batches."""
        self.queue.change(Limits(max_size=size, timeout=self.model.timeout, concurrency=self.model.concurrency))
        self.model.change(size)
        self._plan()

    @rule()
    def close(self):
        """From now on, every arrival matters."""
        self.queue.closed = self.model.closed = True
        self._plan()

    @rule()
    def withdraw_all(self):
        """All waiting callers leave at once. The queue makes the plan itself."""
        self._empty(self.queue.withdraw_all)

    @invariant()
    def same_numbers(self):
        """Both have the same arrivals, waiting items and running batches."""
        expected = (len(self.model.callers), len(self.model.waiting()))
        assert expected == (self.queue.arrivals, self.queue.waiting)
        assert self._tickets() == [*self.queue.with_tickets(len(self.queue.places))]
        running = [
            real for real, batch in zip(self.batches, self.model.batches, strict=True) if batch["state"] == "running"
        ]
        assert running == self.queue.running
        assert self.model.concurrency >= len(running)
        members = [caller for batch in self.model.running() for caller in batch["members"]]
        assert sum(caller["state"] != "dropped" for caller in members) == self.queue.running_calls

    @invariant()
    def the_plan_remains_right(self):
        """Until an arrival matters, the plan is that of the model: never, now, or later."""
        if self.model.missing > 0:
            self._same_time(self.model.wake_at())

    @invariant()
    def same_arrivals_matter(self):
        """Both know the next arrival that matters. Until the shell reacts to it, the later ones matter too."""
        missing = (self.queue.wake_length - len(self.queue.places)) // WIDTH
        assert max(0, self.model.missing) == max(0, missing)

    @invariant()
    def marks_are_young(self):
        """Keep the mark so young that a caller that reads it now is found from there."""
        assert 0 <= self.queue.arrivals - self.queue.mark < self.model.span

    @invariant()
    def same_batches_are_abandoned(self):
        """Both have abandoned batches: those of which no caller wants its answer any more."""
        open_waiters = {caller["waiter"] for caller in self.model.callers if caller["state"] == "running"}
        for real, batch in zip(self.batches, self.model.batches, strict=True):
            if batch["state"] == "running":
                expected = not any(caller["state"] == "running" for caller in batch["members"])
                assert expected == real.is_abandoned(open_waiters.__contains__)

    def _ready(self):
        at = self.model.wake_at()
        return at is not None and at <= self.now

    def _sleeping(self):
        at = self.model.wake_at()
        return at is not None and at > self.now

    def _plan(self):
        self.at = self.queue.plan()
        self._same_time(self.model.plan())
        assert self.queue.has_full == (self.model.slot_free() and len(self.model.waiting()) >= self.model.max_size)
        return self.at

    def _same_time(self, expected):
        if expected == -math.inf:
            assert self.now >= self.at
        else:
            assert expected == self.at

    def _take(self):
        reasons = self.model.reasons()
        self.batches.append(batch := self.queue.take(self.now))
        assert batch is not None
        self._compare(batch, self.model.take(self.now))
        assert batch.reason in reasons
        assert (self.now, self.model.max_size) == (batch.departed, batch.max_size)

    def _push(self, reason):
        self.queue.flush(reason)
        self.model.push(reason)

    def _drain(self):
        self._push("close")
        while self.model.waiting() or self.model.running():
            while self._ready():
                self._take()
            self._finish(0)

    def _compare(self, batch, members):
        assert self.model.max_size >= len(batch.items)
        assert [place(caller) for caller in members] == list(
            zip(batch.items, batch.waiters, batch.arrived, strict=True)
        )

    def _finish(self, number):
        model = self.model.running()[number]
        self.queue.finish(self.batches[self.model.batches.index(model)], self.now)
        self.model.finish(model, self.now)

    def _withdraw(self, caller):
        waits = caller["state"] == "waiting"
        assert (place(caller) if waits else None) == self.queue.withdraw(caller["mark"], caller["waiter"])
        if waits:
            caller["state"] = "withdrawn"

    def _empty(self, leave):
        assert self._tickets() == leave()
        for caller in self.model.waiting():
            caller["state"] = "withdrawn"
        self.at = None
        self.model.plan()

    def _tickets(self):
        return [(caller["ticket"], place(caller)) for caller in self.model.waiting()]


@pytest.mark.untraced
@pytest.mark.parametrize("steps", [12, 60], ids=["briefly", "at length"])
def test_the_queue_agrees_with_the_model(steps):
    """After any sequence of operations at any times, the queue and the model agree."""
    run_state_machine_as_test(CoreMachine, settings=settings(max_examples=100, stateful_step_count=steps))
