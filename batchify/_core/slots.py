"""The slots that batches run in, and the reason for which the next batch may leave.

Decides: whether the head of a queue may leave now, and for which reason.
Must not know: how a queue is ordered, or what its items ask for.

Rules
-----
1. A departing batch takes a slot, and frees it when it is finished. Without a free slot, no batch leaves.
2. The head of a queue leaves at once if its batch is full or was flushed, otherwise when the policy of ``timing`` says.
3. The reason of a departure is the first of these that applies:

   ==================  ================================================================================
   full, weight        no further item fits in
   flush, close        the queue was flushed, by ``flush()`` or by ``close()``
   slot                the head was due before, but all slots were taken
   timeout             the head has waited its time, or other batches run
   idle                no batch runs, and there is no window
   deadline            the deadline of an item is near
   ==================  ================================================================================
"""

from __future__ import annotations

from sys import maxsize
from typing import TYPE_CHECKING, Any

from batchify._core.timing import policy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchify._core.batch import Batch
    from batchify._core.limits import Limits
    from batchify._core.timing import Policy

# A wake ticket that no arrival reaches.
NEVER = maxsize


class Slots:
    """The base of both queues: the batches that run, and the rules for the departure of the next one."""

    __slots__ = (
        "_concurrency",
        "_flush_before",
        "_flush_reason",
        "_freed_at",
        "_freed_before",
        "_max_size",
        "_timing",
        "running",
        "wake_ticket",
    )

    _max_size: int
    _concurrency: int
    _timing: Policy

    def __init__(self, limits: Limits) -> None:
        # The batches that have left and are not finished, oldest first.
        self.running: list[Batch] = []
        self._apply(limits)
        # The time at which a slot was freed while all were taken, and the first ticket that had not arrived by then.
        self._freed_at = float("-inf")
        self._freed_before = 0
        # Tickets below this one leave without further waiting, for the reason beside it.
        self._flush_before = 0
        self._flush_reason = ""
        # The first ticket whose arrival can change the answer of take().
        self.wake_ticket = 0

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.waiting} waiting, {len(self.running)} of {self._concurrency} running>"

    @property
    def has_one_slot(self) -> bool:
        """Whether every queued item waits for the batch that runs."""
        return self._concurrency == 1

    @property
    def waiting(self) -> int:
        """The number of queued items."""
        raise NotImplementedError

    @property
    def arrivals(self) -> int:
        """The number of items that ever arrived, which is the next ticket. Any thread may read it."""
        raise NotImplementedError

    @property
    def expires_at(self) -> float | None:
        """The time at which ``expire()`` has something to return, or ``None``."""
        return None

    def expire(self, now: float) -> Sequence[Any]:  # noqa: ARG002  # plain calls have no deadline
        """Remove the entries whose deadline is over at ``now``, and return them."""
        return ()

    def admit_waiting(self) -> list[Any]:
        """Admit entries that wait for room, as far as there is room, and return their waiters.

        A shell calls it after each arrival, departure and withdrawal.
        """
        return []

    def change(self, limits: Limits) -> None:
        """Apply new limits. Running batches keep theirs, and the learnt run times are forgotten."""
        self._apply(limits)
        self.reset_wake_ticket()

    def adopt_slots(self, other: Slots) -> None:
        """Take over the slots of ``other`` and the batches that run in them."""
        self.running = other.running
        self._freed_at, self._freed_before = other._freed_at, other._freed_before
        self._flush_reason, self._flush_before = other._flush_reason, other._flush_before
        self._timing = other._timing

    def finish(self, batch: Batch, now: float) -> None:
        """Free the slot of ``batch``."""
        if len(self.running) >= self._concurrency:
            self._freed_at = now
            self._freed_before = self.arrivals
        self.running.remove(batch)
        # A batch that lost all its callers before it ran says nothing about run times.
        if batch.waiters:
            self._timing.ended(now - batch.departed, batch.size)
        self.reset_wake_ticket()

    def abandon(self, ticket: int) -> Batch | None:
        """Record that the caller of a running item left. Return its batch if no caller is left."""
        batch = next((b for b in self.running if ticket in b.tickets), None)
        if batch is None:
            return None
        batch.left_count += 1
        return batch if batch.is_abandoned else None

    def flush(self, reason: str) -> None:
        """Let all items queued so far leave as soon as there are slots, for ``reason``: ``"flush"`` or ``"close"``."""
        self._flush_reason = reason
        self._flush_before = self.arrivals

    def reset_wake_ticket(self) -> None:
        """Set ``wake_ticket`` anew, after an arrival has reached it."""
        raise NotImplementedError

    def _apply(self, limits: Limits) -> None:
        self._max_size = limits.max_size
        self._concurrency = limits.concurrency
        self._timing = policy(limits.timeout, limits.concurrency)

    def _start(self, batch: Batch, now: float) -> Batch:
        """Give ``batch`` a slot."""
        self.running.append(batch)
        self._timing.departed(now)
        self.reset_wake_ticket()
        return batch

    def _leaves_at(self, head: int, arrived: float) -> float:
        """Return when the head of a queue, with this ticket, may leave with a batch that is not full."""
        return arrived if head < self._flush_before else self._timing.due(arrived, len(self.running))

    def _reason(self, head: int, arrived: float, now: float) -> str | None:
        """Return the reason for which that head may leave at ``now``, or ``None``."""
        if head < self._flush_before:
            return self._flush_reason
        due = self._timing.due(arrived, len(self.running))
        if due > now:
            return None
        if head < self._freed_before and due <= self._freed_at:
            return "slot"
        return "timeout" if self.running else self._timing.when_idle
