"""The numbers that a queue decides by, and their validation.

Must not know: any other option of a batcher.

A value of the wrong type is a ``TypeError`` (``True`` is never a number), and a number out of range, infinite or NaN is
a ``ValueError``. Each message names the option and the value.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from numbers import Real
from operator import index
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When a batch is full, how long its items may wait, and how many batches and items there may be.

    Attributes:
        max_size: maximum number of items in a batch.
        timeout: seconds from the first item's arrival to its departure; ``None`` adapts to the load.
        concurrency: maximum number of batches that run at once.
        max_pending: maximum number of queued items; ``None`` means no bound.
        on_full: behaviour of a call at that bound: ``"wait"`` or ``"raise"``.
        max_weight: maximum total weight of a batch; ``None`` if items are not weighed.
    """

    max_size: int = 32
    timeout: float | None = None
    concurrency: int = 1
    max_pending: int | None = None
    on_full: str = "wait"
    max_weight: float | None = None


def number(option: str, value: Any) -> float:
    """Return ``value`` as a finite float."""
    if not _is_number(value):
        msg = f"{option} must be a number, got {value!r} of type {type(value).__name__}"
        raise TypeError(msg)
    if not abs(value) <= sys.float_info.max:
        msg = f"{option} must be a finite number, got {value!r}"
        raise ValueError(msg)
    return float(value)


def whole(option: str, value: Any) -> int:
    """Return ``value`` as an int of at least 1. A float is never valid, not even ``1.0``."""
    try:
        number = index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        msg = f"{option} must be an int, got {value!r} of type {type(value).__name__}"
        raise TypeError(msg)
    if number < 1:
        msg = f"{option} must be at least 1, got {value!r}"
        raise ValueError(msg)
    return number


def seconds(option: str, value: Any) -> float | None:
    """Return ``value`` as a finite float of at least 0, or ``None`` for ``None``."""
    if value is None:
        return None
    if not _is_number(value):
        msg = f"{option} must be a number of seconds, or None to adapt, got {value!r} of type {type(value).__name__}"
        raise TypeError(msg)
    if not 0 <= value <= sys.float_info.max:
        msg = f"{option} must be a finite number of seconds, at least 0, got {value!r}"
        raise ValueError(msg)
    return float(value)


def positive(option: str, value: Any) -> float | None:
    """Return ``value`` as a finite float above 0, or ``None`` for ``None``."""
    if value is None:
        return None
    if not _is_number(value):
        msg = f"{option} must be a number, or None, got {value!r} of type {type(value).__name__}"
        raise TypeError(msg)
    if not 0 < value <= sys.float_info.max:
        msg = f"{option} must be a finite number above 0, got {value!r}"
        raise ValueError(msg)
    return float(value)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float, Real)) and not isinstance(value, bool)
