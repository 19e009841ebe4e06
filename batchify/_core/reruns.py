"""The runs of one batch: the whole of it, and halves of the parts that fail, if errors are isolated.

Decides: which part runs next, and which parts an error ends.
Must not know: how a part is run, or how its callers get their answers.

Theory
------
A part that fails runs again as its two halves, one after the other, until a failing part is a single item. That is a
binary search for each bad item. For ``k`` bad items of ``n``, it adds at most ``2 k ceil(log2 n)`` runs, and never more
than ``2 n - 2``: the number of nodes below the root of a binary tree with ``n`` leaves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchify._core.outcome import is_error

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from batchify._core.batch import Batch


class Reruns:
    """The parts of a batch that are still to run, in order.

    Args:
        batch: the batch that departed.
        isolate: whether errors are isolated, so that only bad items fail.
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
        """The items of the current part, as a list that the batch function may change."""
        items = self._part.items
        return items.copy() if self._isolate else items

    def ended(self, error: BaseException) -> Sequence[Batch]:
        """Return the parts that ``error`` of the current part ends; none if its halves are to run.

        An error that is no ``Exception`` does not come from an item, and ends all parts. So does any error of a batch
        without callers, such as a cancelled batch that raises something else.
        """
        if not is_error(error) or self._part.root.is_abandoned:
            rest, self._todo = self._todo, []
            return [self._part, *reversed(rest)]
        halves = self._part.halves() if self._isolate else []
        self._todo += reversed(halves)
        return [] if halves else [self._part]
