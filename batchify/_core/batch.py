"""What waits and what leaves: an item that somebody looks at, the batch that it travels in, and the parts of that.

Must not know: when a batch leaves, or what its waiters are.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import compress
from typing import TYPE_CHECKING, Any

from batchify._core.outcome import with_own_exceptions

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable


@dataclass(frozen=True)
class BatchItem:
    """One item that waits.

    Attributes:
        data: the item.
        future: the ``asyncio.Future`` or ``concurrent.futures.Future`` of its result; ``None`` for a blocked caller.
        enqueued_at: when it arrived, in seconds of the clock of the event loop, or of ``time.monotonic()``.
    """

    data: Any
    future: Any
    enqueued_at: float


class Batch:
    """Items that leave together, as parallel lists. The batch function owns ``items`` and may change it.

    Args:
        items: what the batch function gets.
        waiters: who waits for the results.
        arrived: when each waiter came.
        tickets: the numbers of all that it was made of, those who had left before it departed included.
        reason: why it leaves.
        max_size: how many items would have been a full batch.
        now: when it leaves.
        shares: if some waiters share an item, for each waiter the index of its item.
        weights: that of each item, if they are weighed.
        parent: what it is a part of, if it is one.
    """

    __slots__ = (
        "__weakref__",
        "arrived",
        "contexts",
        "departed",
        "items",
        "left",
        "max_size",
        "name",
        "parent",
        "reason",
        "shares",
        "size",
        "tickets",
        "unfinished_items",
        "waiters",
        "weights",
    )

    def __init__(
        self,
        items: list[Any],
        waiters: list[Any],
        arrived: list[float],
        tickets: Collection[int],
        reason: str,
        max_size: int,
        now: float,
        shares: list[int] | None = None,
        weights: list[float] | None = None,
        parent: Batch | None = None,
    ) -> None:
        self.items = items
        self.waiters = waiters
        self.arrived = arrived
        self.tickets = tickets
        self.reason = reason
        self.max_size = max_size
        self.departed = now
        self.shares = shares
        self.weights = weights
        self.parent = parent
        # That of the batcher, set when the batch departs.
        self.name = ""
        # How many items the batch function gets, and for how many of them nothing has come of it yet.
        self.size = self.unfinished_items = len(items)
        # How many of its callers left after it departed.
        self.left = 0
        # That of the caller of each item, once it runs, if they were captured.
        self.contexts: tuple[Any, ...] = ()

    def __repr__(self) -> str:
        return f"<Batch of {self.size}, {self.reason}, departed at {self.departed:g}>"

    def drop(self, gone: list[bool], answered: int = 0) -> None:
        """Take out those for whom ``gone`` is true.

        They left at the last moment and will call ``abandon()`` yet, but for those that somebody else ``answered``.
        """
        stays = [not g for g in gone]
        self.waiters = list(compress(self.waiters, stays))
        self.arrived = list(compress(self.arrived, stays))
        if self.shares is not None:
            self.shares = list(compress(self.shares, stays))
            wanted = set(self.shares)
            stays = [index in wanted for index in range(self.size)]
            moved = {index: position for position, index in enumerate(compress(range(self.size), stays))}
            self.shares = [moved[index] for index in self.shares]
        self.items = list(compress(self.items, stays))
        if self.weights is not None:
            self.weights = list(compress(self.weights, stays))
        self.size = self.unfinished_items = len(self.items)
        self.left -= sum(gone) - answered

    @property
    def root(self) -> Batch:
        """The batch that departed: the parent of a part, otherwise the batch itself."""
        return self.parent or self

    @property
    def is_abandoned(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.left == len(self.waiters)

    def halves(self) -> list[Batch]:
        """Return the two parts of it to be run instead; none of a single item."""
        middle = self.size // 2
        return [self._part(0, middle), self._part(middle, self.size)] if middle else []

    @property
    def unfinished(self) -> Batch:
        """What of it is not over yet: its end, as parts are run in order."""
        return self if self.unfinished_items == self.size else self._part(self.size - self.unfinished_items, self.size)

    def _part(self, start: int, end: int) -> Batch:
        whose = [start <= index < end for index in self.positions]
        part = Batch(
            self.items[start:end],
            list(compress(self.waiters, whose)),
            list(compress(self.arrived, whose)),
            (),
            self.reason,
            self.max_size,
            self.departed,
            None if self.shares is None else [index - start for index in compress(self.shares, whose)],
            None if self.weights is None else self.weights[start:end],
            self.root,
        )
        part.name = self.name
        part.contexts = self.contexts[start:end]
        return part

    def part_finished(self, answered: int) -> Batch | None:
        """Record that this part finished with ``answered`` callers; return the whole batch if all its parts have."""
        root = self.root
        root.unfinished_items -= self.size
        # Who was answered is not waited for any more than who left.
        root.left += answered
        return None if root.unfinished_items else root

    @property
    def weight(self) -> float:
        """The sum of the weights of the items; 0 if they are not weighed."""
        return sum(self.weights or ())

    @property
    def positions(self) -> Iterable[int]:
        """For each waiter, the position of its item."""
        return range(self.size) if self.shares is None else self.shares

    def per_caller(self, results: list[Any]) -> list[Any]:
        """Return the result for each waiter. Waiters that share an exception get an object each."""
        return results if self.shares is None else with_own_exceptions([results[index] for index in self.shares])

    def forget(self) -> None:
        """Let go of items and waiters: a frame that outlives the batch in a traceback must not keep them alive."""
        self.items = []
        self.waiters = []
        self.tickets = ()
