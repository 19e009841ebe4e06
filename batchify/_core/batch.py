"""A batch: items that left the queue together, their callers, and the parts that are run again to isolate an error.

Must not know: when a batch leaves, or what its items, waiters and contexts are.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import compress
from math import inf
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from batchify._core.entries import Entry
    from batchify._core.run_cost import RunCost


@dataclass(frozen=True)
class BatchItem:
    """One queued item.

    Attributes:
        data: the item.
        future: the ``asyncio.Future`` or ``concurrent.futures.Future`` of its result; ``None`` for a blocked caller.
        enqueued_at: its time of arrival, in seconds of the clock of the event loop, or of ``time.monotonic()``.
    """

    data: Any
    future: Any
    enqueued_at: float


class Batch:
    """Items that leave together, with their callers in parallel lists.

    The batch function gets ``items``, which it may change, or a list of its own. If waiters share items, ``shares`` has
    the index of each waiter's item. A part of a batch has that batch as its ``parent``.
    """

    shares: list[int] | None = None
    # The weight of each item.
    weights: list[float] | None = None
    parent: Batch | None = None
    # The entries of a grouped queue, one for each waiter. They keep the items alive that equal items replace.
    entries: Sequence[Entry] = ()
    # The earliest deadline of an item, while the batch may wait in an executor.
    expires_at = inf
    # The list that the batch function gets in place of ``items``, if these are needed after the run.
    given: list[Any] | None = None
    # The number of items by which that list is longer.
    padding = 0
    # Learns from the run time of the batch; ``None`` for a part, which is run again.
    run_cost: RunCost | None = None
    # The call of an executor that runs the batch. Until it starts, tasks may leave, and their items are dropped.
    call: Any = None
    # All waiters before this one are known not to want an answer any more.
    _first_open = 0
    # ``Line`` sets the name of the batcher, and the context of each item's caller if contexts are captured. A shell
    # sets the task that runs the batch on a loop, and the number of the slot with the state of its lifespan.
    name = ""
    task: Any = None
    contexts: tuple[Any, ...] = ()
    slot: int | None = None
    state: Any = None

    def __init__(
        self,
        items: list[Any],
        waiters: list[Any],
        arrived: list[float],
        reason: str,
        max_size: int,
        now: float,
    ) -> None:
        self.items = items
        self.waiters = waiters
        self.arrived = arrived
        self.reason = reason
        self.max_size = max_size
        self.departed = now
        self.size = len(items)
        # The number of calls that are not counted yet. Each item has at least one.
        self.unanswered = len(waiters)

    def __repr__(self) -> str:
        return f"<Batch of {self.size}, {self.reason}, departed at {self.departed:g}>"

    def copy_items(self, padding: int) -> None:
        """Give the batch function a list of its own, in which the last item is repeated ``padding`` times."""
        self.given = [*self.items, *self.items[-1:] * padding]
        self.padding = padding

    def drop(self, gone: list[bool]) -> None:
        """Remove the callers for which ``gone`` is true, because they left between the departure and the run."""
        stays = [not g for g in gone]
        waiters, arrived = list(compress(self.waiters, stays)), list(compress(self.arrived, stays))
        shares, calls = self.shares, len(waiters)
        # A caller that joined while the batch ran has no entry.
        entries = list(compress(self.entries, stays))
        expires_at = inf if self.expires_at == inf else min((entry.deadline for entry in entries), default=inf)
        if shares is not None:
            shares = list(compress(shares, stays))
            wanted = set(shares)
            stays = [index in wanted for index in range(self.size)]
            moved = {index: position for position, index in enumerate(compress(range(self.size), stays))}
            shares = [moved[index] for index in shares]
        items, contexts = list(compress(self.items, stays)), tuple(compress(self.contexts, stays))
        weights = None if self.weights is None else list(compress(self.weights, stays))
        size = len(items)
        # No call in between: the exception of a signal handler leaves all of these changed, or none.
        self.waiters, self.arrived, self.shares = waiters, arrived, shares
        self.items, self.contexts, self.weights = items, contexts, weights
        self.entries, self.expires_at = entries, expires_at
        self.unanswered, self.size, self._first_open = calls, size, 0

    def join(self, waiter: Any, index: int) -> None:
        """Let another caller share the item at ``index`` while the batch runs."""
        if self.shares is None:
            self.shares = [*range(self.size)]
        # No call in between: the exception of a signal handler leaves all of these changed, or none.
        self.waiters += (waiter,)
        # It did not wait.
        self.arrived += (self.departed,)
        self.shares += (index,)
        self.unanswered += 1

    @property
    def root(self) -> Batch:
        return self.parent or self

    def is_abandoned(self, is_open: Callable[[Any], bool]) -> bool:
        """Return whether no caller wants an answer any more. Checks after each departure take linear time in total.

        ``is_open`` returns whether a waiter still wants an answer; once it does not, it never will.
        """
        waiters = self.waiters
        while self._first_open < len(waiters) and not is_open(waiters[self._first_open]):
            self._first_open += 1
        return self._first_open == len(waiters)

    def halves(self) -> list[Batch]:
        """Return two parts, or none of a single item."""
        middle = self.size // 2
        return [self._part(0, middle), self._part(middle, self.size)] if middle else []

    @property
    def unfinished(self) -> Batch:
        """The part whose calls are not counted: the end of the batch, because parts run in order."""
        start = sorted([*self.positions, self.size])[-1 - self.unanswered]
        return self._part(start, self.size) if start else self

    def _part(self, start: int, end: int) -> Batch:
        chosen = [start <= index < end for index in self.positions]
        part = Batch(
            self.items[start:end],
            list(compress(self.waiters, chosen)),
            list(compress(self.arrived, chosen)),
            self.reason,
            self.max_size,
            self.departed,
        )
        if self.shares is not None:
            part.shares = [index - start for index in compress(self.shares, chosen)]
        if self.weights is not None:
            part.weights = self.weights[start:end]
        part.parent = self.root
        part.name = self.name
        part.contexts = self.contexts[start:end]
        return part

    @property
    def weight(self) -> float:
        return sum(self.weights or ())

    def learn(self, run_time: float) -> None:
        if self.run_cost is not None:
            self.run_cost.learn(self.size + self.padding, max(cast("list[float]", self.weights)), self.weight, run_time)

    @property
    def positions(self) -> Iterable[int]:
        """For each waiter, the position of its item."""
        return range(self.size) if self.shares is None else self.shares

    def forget(self) -> None:
        """Release items and waiters, so that a frame in a traceback does not keep them alive."""
        self.items, self.waiters, self.entries = [], [], ()
        self.given = self.call = None
