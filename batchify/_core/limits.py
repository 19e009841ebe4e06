"""The limits of a queue, and the validation of numbers.

Must not know: any other option of a batcher.

A value of the wrong type is a ``TypeError`` (``True`` is never a number). A number that is out of range, infinite or
NaN is a ``ValueError``. Each message names the option and the value.
"""

from __future__ import annotations

import sys
from bisect import bisect_left
from dataclasses import dataclass
from itertools import pairwise
from math import inf, ulp
from numbers import Real
from operator import index
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchify._core.run_cost import RunCost


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The options that a queue needs. ``timeout`` is in seconds.

    ``None`` means no limit, but a ``timeout`` of ``None`` adapts to the load. With ``run_cost``, the weights of entries
    are lengths, and decide which of them share a batch.
    """

    max_size: int = 32
    timeout: float | None = None
    concurrency: int = 1
    max_pending: int | None = None
    max_weight: float | None = None
    max_padded: float | None = None
    run_cost: RunCost | None = None
    sizes: tuple[int, ...] | None = None

    def padding(self, size: int) -> int:
        """Return the number of items that pad a batch of this size up to one of ``sizes``."""
        return 0 if self.sizes is None else self.sizes[bisect_left(self.sizes, size)] - size

    @property
    def padded_sizes(self) -> Sequence[int]:
        """The size of a batch of n items with its padding, at index n."""
        sizes = range(self.max_size + 1)
        return sizes if self.sizes is None else [0, *(size + self.padding(size) for size in sizes[1:])]


def check_sizes(limits: Limits) -> None:
    if limits.sizes is not None and limits.sizes[-1] != limits.max_size:
        msg = f"the last of sizes must be max_size, {limits.max_size}, got {limits.sizes!r}"
        raise ValueError(msg)


def number(option: str, value: Any) -> float:
    return _checked(option, value, "a number", "a finite number", -sys.float_info.max)


def whole(option: str, value: Any) -> int:
    """Return ``value`` as an int of at least 1. A float is never valid, not even ``1.0``."""
    try:
        number = index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise TypeError(wrong_type(option, "an int", value))
    if number < 1:
        msg = f"{option} must be at least 1, got {value!r}"
        raise ValueError(msg)
    return number


def increasing(option: str, value: Any) -> tuple[int, ...] | None:
    """Return ``value`` as a tuple of increasing ints of at least 1, or ``None`` for ``None``."""
    if value is None:
        return None
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        raise TypeError(wrong_type(option, "increasing ints, such as (1, 8, 32), or None", value))
    numbers = tuple(whole(f"each of {option}", number) for number in value)
    if not numbers or any(smaller >= larger for smaller, larger in pairwise(numbers)):
        msg = f"{option} must be increasing ints, such as (1, 8, 32), got {numbers!r}"
        raise ValueError(msg)
    return numbers


def seconds(option: str, value: Any) -> float | None:
    """Return ``value`` as a finite float of at least 0, or ``None`` for ``None``."""
    if value is None:
        return None
    return _checked(option, value, "a number of seconds, or None", "a finite number of seconds, at least 0", 0)


def positive(option: str, value: Any) -> float | None:
    """Return ``value`` as a finite float above 0, or ``None`` for ``None``."""
    if value is None:
        return None
    return _checked(option, value, "a number, or None", "a finite number above 0", ulp(0.0))


def wrong_type(option: str, expected: str, value: object) -> str:
    """Return the message for a value of the wrong type."""
    return f"{option} must be {expected}, got {value!r} of type {type(value).__name__}"


def _checked(option: str, value: Any, kind: str, rule: str, least: float) -> float:
    if not isinstance(value, (int, float, Real)) or isinstance(value, bool):
        raise TypeError(wrong_type(option, kind, value))
    try:
        converted = float(value)
    except OverflowError:
        converted = inf
    # Not the value itself: NumPy would round the bounds to its precision.
    if not least <= converted <= sys.float_info.max:
        msg = f"{option} must be {rule}, got {value!r}"
        raise ValueError(msg)
    return converted
