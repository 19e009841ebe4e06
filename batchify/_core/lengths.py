"""The entries of one group whose items are padded to the longest of their batch.

Decides: which items share a batch with the head.
Must not know: when a batch leaves, which item is the head, how a length is found, clocks.

Rules
-----
1. The head always leaves. The items nearest to it in length fill its batch; of equal lengths, the lowest ranks first.
2. Size times longest never exceeds ``max_padded``. Here and in rule 3, the size includes the padding of ``sizes``.
3. While two runs would be cheaper than one, the batch keeps only the part with the head. With m items no longer than x,
   two runs save m (longest - x) of padding, and must save more than ``SAVED_SHARE`` of the padding that costs as much
   as one more run.
4. Inside a batch, items are in order of arrival.

Theory
------
Lengths that differ by less than a 32nd form a class, and count as the longest length of the class. There are at most 32
classes for each doubling of the length, however many items wait. A class is a group of its own, so a step on an item
takes as long as in a plain group, and a step on a batch depends on ``max_size`` alone.

The rule needs no number from the user and divides by no size, so it has no special cases. A rule for the least cost per
unit of length does worse with few items waiting: it combines a short head with the longest items.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from math import ceil, frexp, inf, ldexp
from typing import TYPE_CHECKING

from batchify._core.entries import Group

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchify._core.entries import Entry

# Less than 1, because an item that is left out finds nearer ones among later arrivals.
SAVED_SHARE = 0.7
# Until it is known, one more run costs as much as padding of this many mean lengths.
GUESSED_LENGTHS = 2.0


class LengthGroup(Group):
    """A group whose entries have their lengths as weights."""

    __slots__ = ("_classes", "_lengths", "overtaken")

    def __init__(self) -> None:
        super().__init__()
        # The entries of each class, by its longest length, and these lengths in order.
        self._classes: dict[float, Group] = {}
        self._lengths: list[float] = []
        # The ticket of the first entry at the time when an entry near its deadline became the head in its place.
        self.overtaken = -1

    def enter(self, entry: Entry) -> None:
        super().enter(entry)
        length = class_of(entry.weight)
        if length not in self._classes:
            self._classes[length] = Group()
            insort(self._lengths, length)
        self._classes[length].enter(entry)

    def leave(self, entry: Entry) -> None:
        super().leave(entry)
        length = class_of(entry.weight)
        self._classes[length].leave(entry)
        self._drop_if_empty(length)

    def cut_near(
        self, head: Entry, padded_sizes: Sequence[int], max_padded: float, padding_per_run: float | None
    ) -> list[list[Entry]]:
        """Remove the items that share a batch with ``head``, and return the entries of each item.

        ``padded_sizes`` has the size of a batch of n items with its padding at index n.
        """
        if padding_per_run is None:
            padding_per_run = GUESSED_LENGTHS * self.weight / self.size
        own = class_of(head.weight)
        taken = [self._classes[own].take(head)]
        window = self._nearest(own, padded_sizes, max_padded)
        for length, size in split(window, own, SAVED_SHARE * padding_per_run, padded_sizes):
            taken += self._classes[length].cut(size - (length == own), inf)
            self._drop_if_empty(length)
        for duplicates in taken:
            for entry in duplicates:
                super().leave(entry)
        return sorted(taken, key=lambda duplicates: duplicates[0].ticket)

    def _nearest(self, own: float, padded_sizes: Sequence[int], max_padded: float) -> list[tuple[float, int]]:
        """Return the classes whose items fill the batch of a head of length ``own``, and how many items of each."""
        max_size = len(padded_sizes) - 1
        at = bisect_left(self._lengths, own)
        near = [*reversed(self._lengths[max(at - max_size, 0) : at]), *self._lengths[at : at + max_size]]
        # The head has already left its class.
        window = {own: 1}
        total, longest = 1, own
        # On a tie, the order remains: shorter lengths come first, and of two whose distances round to the same number,
        # the nearer one.
        for length in sorted(near, key=lambda length: abs(length - own)):
            if total == max_size:
                break
            padded = max(length, longest)
            # Once an item of one side does not fit, no later item of that side does.
            fits = padded * max_size <= max_padded
            most = max_size if fits else bisect_right(padded_sizes, max_padded // padded) - 1
            count = min(self._classes[length].size, most - total)
            if count > 0:
                window[length] = window.get(length, 0) + count
                total, longest = total + count, padded
        return sorted(window.items())

    def _drop_if_empty(self, length: float) -> None:
        if not self._classes[length].size:
            del self._classes[length]
            del self._lengths[bisect_left(self._lengths, length)]


def class_of(length: float) -> float:
    """Return the longest length of the class of ``length``."""
    mantissa, exponent = frexp(length)
    return ldexp(ceil(64 * mantissa), exponent - 6)


def split(
    window: list[tuple[float, int]], own: float, least: float, padded_sizes: Sequence[int]
) -> list[tuple[float, int]]:
    """Return the part of the window that the length ``own`` stays in, while a run of each part saves over ``least``.

    The window has pairs of a length and the number of its items, in order.
    """
    while True:
        longest, size = window[-1][0], sum(count for _, count in window)
        # A sum of lengths may be below 0 by rounding.
        below, most, border = 0, max(least, 0.0), 0
        for index, (length, count) in enumerate(window, 1):
            below += count
            saved = (padded_sizes[size] - padded_sizes[size - below]) * longest - padded_sizes[below] * length
            if saved > most:
                most, border = saved, index
        if not border:
            return window
        window = window[:border] if own <= window[border - 1][0] else window[border:]
