"""The slots that batches run in, and the reason for which the next batch may leave.

Decides: whether the head of a queue may leave now, and for which reason.
Must not know: the order of a queue, or the options of its items.

Rules
-----
1. A departing batch takes a slot, and frees it when it ends. Without a free slot, no batch leaves.
2. The head of a queue leaves at once if its batch is full or flushed, otherwise at the time that ``timing`` decides.
3. The reason of a departure is the first of these that applies:

   ==================  ======================================================
   full, weight        the batch has no room for another item
   flush, close        ``flush()`` or ``close()`` was called
   slot                the head was due before, but all slots were taken
   timeout             the window has passed, or other batches run
   idle                no batch runs, and there is no window
   deadline            the deadline of an item is near
   ==================  ======================================================
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from batchify._core.timing import Adaptive, policy

if TYPE_CHECKING:
    from batchify._core.batch import Batch
    from batchify._core.limits import Limits
    from batchify._core.timing import Policy

# The number of arrivals after which the mark of a queue is renewed.
SPAN = 1024


class Slots:
    """The base of both queues: the batches that run, and the rules for the departure of the next one."""

    taken: int
    _max_size: int
    _concurrency: int
    _timing: Policy
    # The same policy if it learns from the batches that run.
    _learner: Adaptive | None

    def __init__(self, limits: Limits) -> None:
        # The batches that have left and have not ended, oldest first.
        self.running: list[Batch] = []
        # The number of calls that ever left in a batch.
        self.taken = 0
        # The length of ``places`` from which an arrival may change the answer of take(). At 0, every arrival may.
        self.wake_length = 0
        self.change(limits)
        # The time at which a slot was freed while all were taken, and the first ticket that had not arrived by then.
        self._freed_at = float("-inf")
        self._freed_before = 0
        # Tickets below _flush_before leave without further waiting, for _flush_reason.
        self._flush_before = 0
        self._flush_reason = ""

    if TYPE_CHECKING:
        # Members that the queues define. The number of calls that wait:
        @property
        def waiting(self) -> int: ...
        # The number of items that ever arrived, which is the next ticket.
        @property
        def arrivals(self) -> int: ...
        # The first arrival of a waiting call; infinite if none waits.
        @property
        def oldest_arrival(self) -> float: ...
        # The number of calls that ever left the queue without a batch.
        @property
        def withdrawn(self) -> int: ...
        # The next time at which a batch may leave, if it is known. A shell calls this after each change that can make a
        # batch due, and before it waits.
        def plan(self) -> float | None: ...

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.waiting} waiting, {len(self.running)} of {self._concurrency} running>"

    @property
    def has_one_slot(self) -> bool:
        return self._concurrency == 1

    def is_settled(self, since: float) -> bool:
        """Return whether no call that arrived until ``since`` waits or runs."""
        return self.oldest_arrival > since and all(min(batch.arrived, default=inf) > since for batch in self.running)

    @property
    def running_calls(self) -> int:
        """The number of calls that have left and have no answer yet."""
        # Of a copy, made in one step, because any thread may ask.
        return sum(batch.unanswered for batch in [*self.running])

    def adopt_slots(self, other: Slots) -> None:
        self.running, self.taken = other.running, other.taken
        self._freed_at, self._freed_before = other._freed_at, other._freed_before
        self._flush_reason, self._flush_before = other._flush_reason, other._flush_before
        if self._learner and other._learner and self._concurrency == other._concurrency:
            self._timing = self._learner = other._learner

    def finish(self, batch: Batch, now: float) -> None:
        if len(self.running) >= self._concurrency:
            self._freed_at = now
            self._freed_before = self.arrivals
        self.running.remove(batch)
        self.wake_length = 0
        # A batch that lost all its callers before it ran has no meaningful run time.
        if self._learner is not None and batch.waiters:
            self._learner.ended(now - batch.departed, batch.size + batch.padding)

    def flush(self, reason: str) -> None:
        """Let all items queued so far leave as soon as slots are free, for ``reason``: ``"flush"`` or ``"close"``."""
        self._flush_reason = reason
        self._flush_before = self.arrivals

    def change(self, limits: Limits) -> None:
        """Apply new limits. Running batches keep the old ones, and the policy forgets the learnt run times."""
        self._max_size = limits.max_size
        self.padding = limits.padding
        self._concurrency = limits.concurrency
        self._timing = policy(limits.timeout, limits.concurrency)
        self._learner = self._timing if isinstance(self._timing, Adaptive) else None

    def _reason(self, head: int, arrived: float, now: float) -> str | None:
        if head < self._flush_before:
            return self._flush_reason
        window = self._timing.window
        due = self._timing.due(arrived, len(self.running)) if window is None else arrived + window
        if due > now:
            return None
        if head < self._freed_before and due <= self._freed_at:
            return "slot"
        return "timeout" if self.running else self._timing.when_idle
