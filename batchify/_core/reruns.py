"""The runs of one batch: the whole batch, and halves of the parts that fail, if errors are isolated.

Decides: which part runs next, and which parts an error ends.
Must not know: how a part runs, or how its callers get their answers.

Theory
------
A part that fails runs again as two halves, until a failing part is a single item: a binary search for each bad item.
For ``k`` bad items of ``n``, it adds at most ``2 k ceil(log2 n)`` runs, and never more than ``2 n - 2``: the number of
nodes below the root of a binary tree with ``n`` leaves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchify._core.outcome import is_error

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from batchify._core.batch import Batch


class Reruns:
    """Iterates over the parts of ``batch`` to run, in order."""

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
        """The items of the current part. The batch function may change the list."""
        items = self._part.items
        return items.copy() if self._isolate else items

    def ended(self, error: BaseException) -> Sequence[Batch]:
        """Return the parts that ``error`` of the current part ends; none if its halves run next.

        An error that is no ``Exception`` ends all parts, and so does any error of a batch without callers.
        """
        if not is_error(error) or self._part.root.is_abandoned:
            rest, self._todo = self._todo, []
            return [self._part, *reversed(rest)]
        halves = self._part.halves() if self._isolate else []
        self._todo += reversed(halves)
        return [] if halves else [self._part]
