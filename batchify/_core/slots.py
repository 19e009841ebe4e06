"""The slots that batches run in, and why a batch may leave when one is free.

Decides: whether what waits at the head of a line may leave now, and for which reason.
Must not know: lines, what else waits.
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

NEVER = maxsize


class Slots:
    """What both cores have: batches that run, and the rules for when the next one may leave."""

    __slots__ = (
        "_concurrency",
        "_flush_before",
        "_flush_reason",
        "_free",
        "_freed_at",
        "_freed_before",
        "_max_size",
        "_timing",
        "running",
        "wake_ticket",
    )

    _timing: Policy

    def __init__(self, limits: Limits) -> None:
        # The batches that have left and are not over, oldest first.
        self.running: list[Batch] = []
        self._take_on(limits)
        # When a slot fell free while all were busy, and the first ticket that had not arrived by then.
        self._freed_at = float("-inf")
        self._freed_before = 0
        # Tickets below this one leave without waiting any longer, for the reason beside it.
        self._flush_before = 0
        self._flush_reason = ""
        # The ticket whose arrival makes take() worth asking, or NEVER.
        self.wake_ticket = 0

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.waiting} waiting, {len(self.running)} of {self._concurrency} running>"

    @property
    def has_one_slot(self) -> bool:
        """Whether all that waits waits for the one batch that runs."""
        return self._concurrency == 1

    @property
    def waiting(self) -> int:
        """How many items wait."""
        raise NotImplementedError

    @property
    def arrivals(self) -> int:
        """How many items ever arrived; also the ticket of the next one. May be read from any thread."""
        raise NotImplementedError

    @property
    def expires_at(self) -> float | None:
        """When ``expire()`` is next worth asking if nothing else happens; ``None`` if never."""
        return None

    def expire(self, now: float) -> Sequence[Any]:  # noqa: ARG002  # here nobody has a deadline
        """Take out those whose deadlines are over at ``now``, and return their places."""
        return ()

    def admit_waiting(self) -> list[Any]:
        """Let those who waited for room into the line, as far as there is, and return their waiters.

        A shell does so after each arrival, departure and withdrawal.
        """
        return []

    def change(self, limits: Limits) -> None:
        """Go by these options from now on; what runs is left alone, and what was learnt of run times is forgotten."""
        self._take_on(limits)
        self._set_wake_ticket()

    def adopt_slots(self, other: Slots) -> None:
        """Take over the slots of ``other``, with all that runs in them."""
        self.running = other.running
        self._free = self._concurrency - len(self.running)
        self._freed_at, self._freed_before = other._freed_at, other._freed_before
        self._flush_reason, self._flush_before = other._flush_reason, other._flush_before
        self._timing = other._timing

    def finish(self, batch: Batch, now: float) -> None:
        """Free the slot of ``batch``."""
        if self._free <= 0:
            self._freed_at = now
            self._freed_before = self.arrivals
        self.running.remove(batch)
        self._free += 1
        # A batch that nobody waited for was not run, and tells nothing of run times.
        if batch.waiters:
            self._timing.ended(now - batch.departed, batch.size)
        self._set_wake_ticket()

    def abandon(self, ticket: int) -> Batch | None:
        """Note that a caller left whose item is running; return its batch if that was the last caller of it."""
        batch = next((b for b in self.running if ticket in b.tickets), None)
        if batch is None:
            return None
        batch.left += 1
        return batch if batch.is_abandoned else None

    def reset_wake_ticket(self) -> None:
        """Set the next alarm after this one was heard."""
        self._set_wake_ticket()

    def push(self, reason: str) -> None:
        """Let all that waits now leave as soon as there are slots, for ``reason``: ``"flush"`` or ``"close"``."""
        self._flush_reason = reason
        self._flush_before = self.arrivals

    def _take_on(self, limits: Limits) -> None:
        self._max_size = limits.max_size
        self._concurrency = limits.concurrency
        # How many slots are free: below 0 when there are less than there were, and more batches run.
        self._free = limits.concurrency - len(self.running)
        self._timing = policy(limits.timeout, limits.concurrency)

    def _set_wake_ticket(self) -> None:
        raise NotImplementedError

    def _start(self, batch: Batch, now: float) -> Batch:
        """Let ``batch`` have a slot."""
        self.running.append(batch)
        self._free -= 1
        self._timing.departed(now)
        self._set_wake_ticket()
        return batch

    def _leaves_at(self, head: int, arrived: float) -> float:
        """Return when the ticket at the head of a line that is not full may leave, if a slot is free."""
        return arrived if head < self._flush_before else self._timing.due(arrived, len(self.running))

    def _reason(self, head: int, arrived: float, now: float) -> str | None:
        """Say why the head of a line that is not full may leave now, ``None`` if it may not."""
        if head < self._flush_before:
            return self._flush_reason
        due = self._timing.due(arrived, len(self.running))
        if due > now:
            return None
        if head < self._freed_before and due <= self._freed_at:
            return "slot"
        return "timeout" if self.running else self._timing.when_idle
