"""What is run of a batch: the whole of it, or, where errors are isolated, also halves of what failed.

Decides: which part runs next, and whom an error ends.
Must not know: how a part is run, or how its callers are told.

A part that fails is run again as its two halves, one after the other, until what fails is a single item: a search by
halving for each bad item. Of n items with k bad ones, no more than 2 k log2(n) parts are run in addition, rounded up to
a whole logarithm, and never more than 2 n - 2: so many nodes a binary tree of n leaves has below its root.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchify._core.outcome import is_error

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from batchify._core.batch import Batch


class Reruns:
    """The parts of a batch that are yet to run, in order.

    Args:
        batch: the whole.
        isolate: whether only bad items fail.
    """

    __slots__ = ("_isolate", "_part", "_todo")

    def __init__(self, batch: Batch, *, isolate: bool) -> None:
        self._todo = [batch]
        self._isolate = isolate

    def __iter__(self) -> Iterator[Batch]:
        while self._todo:
            self._part = self._todo.pop()
            yield self._part

    @property
    def items(self) -> list[Any]:
        """What the batch function gets for the present part: a list that it may change."""
        items = self._part.items
        return items.copy() if self._isolate else items

    def ended(self, error: BaseException) -> Sequence[Batch]:
        """Return the parts that ``error``, raised by the present one, ends; nothing if its halves are to be run.

        What is no ``Exception`` is nothing that an item does: it ends all that is left. So does any error if nobody
        waits any more, as when a batch that all have left is cancelled and raises something else.
        """
        if not is_error(error) or self._part.root.is_abandoned:
            rest, self._todo = self._todo, []
            return [self._part, *reversed(rest)]
        halves = self._part.halves() if self._isolate else []
        self._todo += reversed(halves)
        return [] if halves else [self._part]
