"""The plain queue compared with a simple model: a list of all callers that ever arrived.

The machine performs on both any operation of a shell, in any order and at any time. After each step it compares the
batches, their times and reasons, the wake time, the wake ticket, and the last caller to leave a batch.
"""

from __future__ import annotations

import math
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
from batchify._core.queue import NEVER, SHORT, PlainQueue
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
        short=st.sampled_from([0, 1, 3, SHORT]),
    )
    def begin(self, max_size, timeout, concurrency, short):
        # Short lists are cut, too.
        self.short = patch("batchify._core.queue.SHORT", short)
        self.short.start()
        options = {"max_size": max_size, "timeout": timeout, "concurrency": concurrency}
        self.queue = PlainQueue(Limits(**options))
        self.model = Model(**options)
        # The running batches of the queue, in the same order as those of the model.
        self.batches = []
        self.now = 1000.0

    def teardown(self):
        """Run all remaining batches: no caller is lost, leaves twice, or overtakes another one."""
        if not hasattr(self, "queue"):
            return
        try:
            self._drain()
        finally:
            self.short.stop()
        departed = [caller["ticket"] for batch in self.model.batches for caller in batch["members"]]
        withdrawn = [caller["ticket"] for caller in self.model.callers if caller["state"] == "withdrawn"]
        assert list(range(len(self.model.callers))) == sorted(departed + withdrawn)
        assert sorted(departed) == departed
        assert (0, []) == (self.queue.waiting, self.queue.running)

    @rule(heard=st.booleans(), probe=st.booleans())
    def arrive(self, heard, probe):
        """Queue an item, which changes nothing below the wake ticket."""
        ready, wake_at = self._ready(), self.queue.wake_at
        wake_ticket = self.queue.wake_ticket
        rings = self.model.add(self.now)
        caller = self.model.callers[-1]
        ticket = self.queue.add(caller["item"], caller["waiter"], self.now)
        assert caller["ticket"] == ticket
        assert rings == (ticket >= wake_ticket)
        if not rings:
            assert wake_at == self.queue.wake_at
            if probe and not ready:
                assert None is self.queue.take(self.now)
        elif heard:
            full = self.model.slot_free() and len(self.model.waiting()) >= self.model.max_size
            self.queue.reset_wake_ticket()
            assert full == self.queue.has_full
            self.model.wake_pending = False

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
        at = self.queue.wake_at
        self.now = max(self.now, math.nextafter(at, -math.inf))
        assert None is self.queue.take(self.now)
        self.now = at
        self._take()

    @rule()
    def take(self):
        """Take a batch if one is ready, and none otherwise."""
        if self._ready():
            self._take()
        else:
            assert None is self.queue.take(self.now)
            self.model.wake_pending = False

    @rule()
    def take_all(self):
        """All batches that may leave do so."""
        while self._ready():
            self._take()
        assert None is self.queue.take(self.now)
        self.model.wake_pending = False

    @precondition(lambda self: self._ready())
    @rule(mask=st.lists(st.booleans(), min_size=4, max_size=4), tell=st.booleans())
    def take_and_drop(self, mask, tell):
        """Drop callers between departure and run, which call ``abandon()`` at once or later."""
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
        elif tell:
            for caller in [caller for caller in model["members"] if caller["state"] == "dropped"]:
                self._abandon(model, caller)

    @precondition(lambda self: self.model.running())
    @rule(pick=picks)
    def finish(self, pick):
        """Any of the running batches ends."""
        self._finish(pick % len(self.model.running()))

    @precondition(lambda self: self.model.callers)
    @rule(pick=picks)
    def withdraw(self, pick):
        """Any caller leaves, whether it waits, runs, is answered or has left already."""
        self._withdraw(self.model.callers[pick % len(self.model.callers)])

    @precondition(lambda self: self.model.waiting())
    @rule(pick=picks)
    def withdraw_waiting(self, pick):
        """Withdraw a waiting caller twice."""
        line = self.model.waiting()
        caller = line[pick % len(line)]
        self._withdraw(caller)
        self._withdraw(caller)

    @precondition(lambda self: self.model.running())
    @rule(pick=picks)
    def abandon(self, pick):
        """Withdraw a caller whose item runs."""
        running = self.model.running()
        batch = running[pick % len(running)]
        stays = [caller for caller in batch["members"] if caller not in batch["left"]]
        if stays:
            self._abandon(batch, stays[pick % len(stays)])

    @precondition(lambda self: any(batch["state"] == "ended" for batch in self.model.batches))
    @rule(pick=picks)
    def abandon_too_late(self, pick):
        """Withdraw a caller whose batch is finished, which abandons no batch."""
        ended = [batch for batch in self.model.batches if batch["state"] == "ended"]
        caller = ended[pick % len(ended)]["members"][0]
        assert None is self.queue.abandon(caller["ticket"])

    @rule(reason=st.sampled_from(["flush", "close"]))
    def push(self, reason):
        """Flush the waiting items."""
        self.queue.flush(reason)
        self.model.push(reason)

    @invariant()
    def same_numbers(self):
        """Both have the same arrivals, waiting items and running batches."""
        expected = (len(self.model.callers), len(self.model.waiting()))
        assert expected == (self.queue.arrivals, self.queue.waiting)
        assert [place(caller) for caller in self.model.waiting()] == self.queue.entries
        running = [
            real for real, batch in zip(self.batches, self.model.batches, strict=True) if batch["state"] == "running"
        ]
        assert running == self.queue.running
        assert self.model.concurrency >= len(running)

    @invariant()
    def same_time_to_wake(self):
        """Both have the same time to wake at: never, now, or later."""
        expected = self.model.wake_at()
        if expected == -math.inf:
            assert self.now >= self.queue.wake_at
        else:
            assert expected == self.queue.wake_at

    @invariant()
    def no_waking_while_busy(self):
        """While all slots are taken, no arrival wakes, unless the engine has not yet reacted to an earlier one."""
        if not self.model.slot_free() and not self.model.wake_pending:
            assert NEVER == self.queue.wake_ticket

    def _ready(self):
        at = self.model.wake_at()
        return at is not None and at <= self.now

    def _sleeping(self):
        at = self.model.wake_at()
        return at is not None and at > self.now

    def _take(self):
        reasons = self.model.reasons()
        self.batches.append(batch := self.queue.take(self.now))
        self.model.wake_pending = False
        assert batch is not None
        self._compare(batch, self.model.take(self.now))
        assert batch.reason in reasons
        assert (self.now, self.model.max_size) == (batch.departed, batch.max_size)

    def _drain(self):
        self.push("close")
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
        self.model.wake_pending = False

    def _withdraw(self, caller):
        waits = caller["state"] == "waiting"
        assert (place(caller) if waits else None) == self.queue.withdraw(caller["ticket"])
        if waits:
            caller["state"] = "withdrawn"
            self.model.wake_pending = False

    def _abandon(self, batch, caller):
        batch["left"].append(caller)
        last = len(batch["left"]) == len(batch["members"])
        real = self.batches[self.model.batches.index(batch)]
        assert (real if last else None) is self.queue.abandon(caller["ticket"])


@pytest.mark.untraced
@pytest.mark.parametrize("steps", [12, 60], ids=["briefly", "at length"])
def test_the_queue_agrees_with_the_model(steps):
    """After any sequence of operations at any times, the queue and the model agree."""
    run_state_machine_as_test(
        CoreMachine, settings=settings(max_examples=100, stateful_step_count=steps, deadline=None)
    )
