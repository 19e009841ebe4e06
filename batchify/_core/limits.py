"""The limits of a queue, and the validation of numbers.

Must not know: any other option of a batcher.

A value of the wrong type is a ``TypeError`` (``True`` is never a number). A number that is out of range, infinite or
NaN is a ``ValueError``. Each message names the option and the value.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from numbers import Real
from operator import index
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The options that a queue needs. ``timeout`` is in seconds; ``on_full`` is ``"wait"`` or ``"raise"``.

    ``None`` means no limit, but a ``timeout`` of ``None`` adapts to the load.
    """

    max_size: int = 32
    timeout: float | None = None
    concurrency: int = 1
    max_pending: int | None = None
    on_full: str = "wait"
    max_weight: float | None = None


def number(option: str, value: Any) -> float:
    _check_type(option, value, "a number")
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
    _check_type(option, value, "a number of seconds, or None")
    if not 0 <= value <= sys.float_info.max:
        msg = f"{option} must be a finite number of seconds, at least 0, got {value!r}"
        raise ValueError(msg)
    return float(value)


def positive(option: str, value: Any) -> float | None:
    """Return ``value`` as a finite float above 0, or ``None`` for ``None``."""
    if value is None:
        return None
    _check_type(option, value, "a number, or None")
    if not 0 < value <= sys.float_info.max:
        msg = f"{option} must be a finite number above 0, got {value!r}"
        raise ValueError(msg)
    return float(value)


def _check_type(option: str, value: object, expected: str) -> None:
    if not isinstance(value, (int, float, Real)) or isinstance(value, bool):
        msg = f"{option} must be {expected}, got {value!r} of type {type(value).__name__}"
        raise TypeError(msg)
