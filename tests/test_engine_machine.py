"""Both engines against the model that the core is tested with: whole calls, from the caller's and the function's side.

The machine decides who calls and when, who leaves, how and when each batch ends; the batch function waits for it. After
each step it compares with the model which batches were run and why, what every caller was told, and what is counted.
The asyncio engine runs in made-up time, step by step. The thread engine has real threads, and only options with which
time makes no difference.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from concurrent.futures import Future

from conftest import VirtualLoop
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from test_core_machine import Model

from batchify import (
    AsyncMicrobatcher,
    BatchAbortedError,
    BatcherClosedError,
    BatchResultError,
    current_batch,
)

picks = st.integers(0, 40)
ENDS = ["answers", "some refused", "error", "too few", "too many", "None", "fatal"]


class Fatal(BaseException):
    """One that is not an ``Exception``."""


class Run:
    """A batch as its function sees it, which waits to be told how to end."""

    def __init__(self, items, moment):
        self.items = list(items)
        self.reason = current_batch().reason
        self.moment = moment
        # Told by the machine: a function to return the results of.
        self.end = Future()


class EngineMachine(RuleBasedStateMachine):
    """What is done to both engines, and what has to come of it."""

    # Whether a caller whose item runs can leave, by how it called.
    CALLS: dict[str, bool]

    def setup_with(self, **options):
        self.options = options
        self.model = Model(**options)
        self.now = 1000.0
        # As the function sees them, in the order in which they were started.
        self.runs = []
        # For each batch of the model: for which reasons it may leave.
        self.reasons = []
        self.closed = False
        # Who closes, and whether that should be over.
        self.closings = []
        # Calls that came too late.
        self.refused = []

    @rule(count=st.integers(1, 5), pick=picks)
    def arrive(self, count, pick):
        """Several call, one after the other; a full batch leaves at once, and the rest when all have called."""
        way = list(self.CALLS)[pick % len(self.CALLS)]
        if self.closed:
            self.refused.append(self._call(way, -1))
            self._settle()
            return
        for _ in range(count):
            self.model.add(self.now)
            caller = self.model.callers[-1]
            caller |= {"item": caller["ticket"], "told": None, "way": way}
            caller["handle"] = self._call(way, caller["item"])
            self._called()

    @precondition(lambda self: any(caller["told"] is None for caller in self._callers()))
    @rule(pick=picks)
    def leave(self, pick):
        """Somebody leaves who has no answer yet; if all of a batch on a loop have left, it is cancelled."""
        stays = [caller for caller in self._callers() if caller["told"] is None]
        caller = stays[pick % len(stays)]
        if caller["state"] == "waiting":
            if self._cancel(caller):
                caller |= {"state": "withdrawn", "told": "cancelled"}
        elif self.CALLS[caller["way"]]:
            assert self._cancel(caller)
            caller["told"] = "cancelled"
            self._left(next(batch for batch in self.model.running() if caller in batch["members"]))
        self._settle()

    @precondition(lambda self: self.model.running())
    @rule(pick=picks, end=st.sampled_from(ENDS))
    def finish(self, pick, end):
        """Any of the running batches ends, in any way, and every caller that stayed is told."""
        running = self.model.running()
        batch = running[pick % len(running)]
        run = next(run for run in self.runs if run.items[0] == batch["members"][0]["item"])
        size = len(batch["members"])
        function, told = ending(end, run.items)
        for caller, each in zip(batch["members"], told or [None] * size, strict=True):
            if caller["told"] is None:
                caller["told"] = each if told else self._told_of_all(end, caller, function, size)
        self._finished(batch)
        run.end.set_result(function)
        self._settle()

    @rule()
    def flush(self):
        """What waits leaves as soon as there are slots."""
        self.model.push("flush")
        self._take()
        self._flush()
        self._settle()

    @rule()
    def close(self):
        """No more calls are taken, what waits leaves, and closing is over when all is answered."""
        self.closed = True
        self.model.push("close")
        self._take()
        self.closings.append({"handle": self._close(), "over": False})
        self._settle()

    @precondition(lambda self: self.closed and self._may_reopen())
    @rule()
    def reopen(self):
        """Calls are taken again."""
        self.closed = False
        self._reopen()

    def teardown(self):
        """Answer everybody: nobody is lost, and no error is told to two."""
        if not hasattr(self, "model"):
            return
        try:
            self.flush()
            while self.model.running():
                self.finish(0, "error")
            self.close()
            copies = [caller["handle"].exception() for caller in self._callers() if caller["told"][0] == "copy"]
            assert len(copies) == len(set(map(id, copies)))
            assert not any(caller["told"] is None for caller in self._callers())
        finally:
            self._end()

    def _callers(self):
        return self.model.callers

    def _ready(self):
        at = self.model.wake_at()
        return at is not None and at <= self.now

    def _take(self):
        """Let everything leave in the model that may."""
        while self._ready():
            self.reasons.append(self.model.reasons())
            self.model.take(self.now)

    def _finished(self, batch):
        self.model.finish(batch, self.now)
        self._take()

    def _told_of_all(self, end, caller, function, size):
        """Return what somebody is told of a batch that ended with one error for all."""
        error = function.error
        if end == "fatal" and self._is_on_loop(caller):
            return "aborted", error
        if error is not None:
            return "copy", type(error), error.args, error
        items = "1 item" if size == 1 else f"{size} items"
        count = {"too few": size - 1, "too many": size + 1}.get(end)
        returned = "None" if count is None else "1 result" if count == 1 else f"{count} results"
        return "wrong", f"it() was given {items} and returned {returned}; it must return one for each item, in order"

    def _expected(self):
        """Return what should be seen now, according to the model."""
        if not self.model.waiting() and not self.model.running():
            for closing in self.closings:
                closing["over"] = True
        return {
            "runs": [[caller["item"] for caller in batch["members"]] for batch in self.model.batches],
            "told": [caller["told"] for caller in self._callers()],
            "closings": [closing["over"] for closing in self.closings],
            **self._counts(),
        }

    def _counts(self):
        over = [batch["members"] for batch in self.model.batches if batch["state"] == "over"]
        told = Counter(kind_of(caller) for members in over for caller in members)
        withdrawn = sum(caller["state"] == "withdrawn" for caller in self._callers())
        return {
            "pending": len(self.model.waiting()),
            "running": sum(len(batch["members"]) for batch in self.model.running()),
            "answered_items": told["answered"],
            "failed_items": told["failed"],
            "cancelled_items": told["cancelled"] + withdrawn,
            "expired_items": 0,
            "total_items": sum(map(len, over)),
            "total_batches": len(over),
            "size_histogram": dict(Counter(map(len, over))),
            "max_batch_size_seen": max(map(len, over), default=0),
        }

    def _observed(self):
        """Return what is seen now."""
        stats = self.batcher.stats
        return {
            "runs": self._started(),
            "told": [told(caller["handle"]) for caller in self._callers()],
            "closings": [closing["handle"].done() for closing in self.closings],
            **{name: getattr(stats, name) for name in self._counts()},
        }

    def _compare(self):
        assert self._expected() == self._observed()
        assert all(isinstance(handle.exception(), BatcherClosedError) for handle in self.refused)
        reasons = Counter(run.reason for run in self.runs)
        over = self.batcher.stats.reasons
        assert all(over[reason] <= count for reason, count in reasons.items())
        assert sum(over.values()) == self.batcher.stats.total_batches


def ending(end, items):
    """Return a function that ends a batch so, and what each caller is told if that is not one error for all."""

    def function():
        if error is not None:
            raise error
        return results

    results = [("answer", item) for item in items]
    error = {"error": KeyError("no", len(items)), "fatal": Fatal(len(items))}.get(end)
    function.error = error
    if end == "some refused":
        results[::2] = [ValueError(item) for item in items[::2]]
    told = [("itself", each) if isinstance(each, ValueError) else ("answer", each) for each in results]
    if end in ("too few", "too many", "None"):
        results = {"too few": results[1:], "too many": [*results, 0], "None": None}[end]
    return function, told if end in ("answers", "some refused") else None


def told(handle):
    """Return what a caller was told, ``None`` if nothing yet."""
    if not handle.done():
        return None
    if handle.cancelled():
        return "cancelled"
    error = handle.exception()
    if error is None:
        return "answer", handle.result()
    if isinstance(error, BatchResultError):
        return "wrong", str(error)
    if isinstance(error, BatchAbortedError):
        return "aborted", error.__cause__
    return ("itself", error) if error.__cause__ is None else ("copy", type(error), error.args, error.__cause__)


def kind_of(caller):
    """Return how the end of a call is counted."""
    if caller["told"] == "cancelled":
        return "cancelled"
    return "answered" if caller["told"][0] == "answer" else "failed"


class AsyncioMachine(EngineMachine):
    """Drives the asyncio engine, which stands still but for the steps that the machine takes."""

    CALLS = {"submit": True, "put": True}

    @initialize(
        max_size=st.integers(1, 4),
        timeout=st.sampled_from([None, 0.0, 0.75, 4.0]),
        concurrency=st.integers(1, 3),
    )
    def begin(self, **options):
        self.setup_with(**options)
        self.loop = VirtualLoop()
        self.batcher = AsyncMicrobatcher(
            self._batch, options["max_size"], options["timeout"], name="it", concurrency=options["concurrency"]
        )

    @rule(quarters=st.integers(1, 20))
    def sleep(self, quarters):
        """Time goes by, and batches leave when their time has come."""
        until = self.now + quarters / 4
        while (at := self.model.wake_at()) is not None and at <= until:
            self.now = max(self.now, at)
            self._take()
        self.now = until
        self.loop.call_at(until, self.loop.stop)
        self.loop.run_forever()
        self._settle()

    async def _batch(self, items):
        run = Run(items, self.loop.time())
        self.runs.append(run)
        return (await asyncio.wrap_future(run.end))()
