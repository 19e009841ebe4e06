"""The runs of one batch whose errors are isolated: the whole batch, and halves of the parts that fail.

Decides: which part runs next, and which parts an error ends.
Must not know: how a part runs, or how its callers get their answers.

Theory
------
A part that fails runs again as two halves, until a failing part is a single item: a binary search for each bad item.
For ``k`` bad items of ``n``, it adds at most ``2 k ceil(log2 n)`` runs, and never more than ``2 n - 2``: the number of
nodes below the root of a binary tree with ``n`` leaves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchify._core.outcome import is_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from batchify._core.batch import Batch


class Reruns:
    """Iterates over the parts of ``batch`` to run, in order. ``padding`` returns the padding for a size."""

    def __init__(self, batch: Batch, padding: Callable[[int], int]) -> None:
        self._padding = padding
        self._todo = [batch]

    def __iter__(self) -> Iterator[Batch]:
        while self._todo:
            self._part = part = self._todo.pop()
            part.copy_items(self._padding(part.size))
            yield part

    def ended(self, error: BaseException, *, is_abandoned: bool) -> Sequence[Batch]:
        """Return the parts that ``error`` of the current part ends; none if its halves run next.

        An error that is no ``Exception`` ends all parts, and so does any error of a batch that is abandoned: no caller
        wants an answer any more.
        """
        if is_abandoned or not is_error(error):
            rest, self._todo = self._todo, []
            return [self._part, *reversed(rest)]
        halves = self._part.halves()
        self._todo += reversed(halves)
        return [] if halves else [self._part]
