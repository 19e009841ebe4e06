"""The options of a batcher, validated once.

Decides: which values an option may have, and what is said of the others.
Must not know: engines, decorators.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from numbers import Real
from operator import index
from typing import Any

from batchify._signature import name_of


@dataclass(frozen=True)
class Config:
    """What a batcher was asked to do. All numbers are valid."""

    max_size: int
    timeout: float | None
    concurrency: int
    capture_context: bool
    name: str


def for_engine(
    batch_fn: object,
    max_batch_size: object,
    batch_wait_timeout_s: object,
    *,
    concurrency: object,
    capture_context: object,
    name: object,
) -> Config:
    """Return the validated options of an engine class, under the names its constructor gives them.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of range.
    """
    if not callable(batch_fn):
        msg = f"batch_fn must be callable, got {batch_fn!r}"
        raise TypeError(msg)
    return Config(
        max_size=whole("max_batch_size", max_batch_size),
        timeout=seconds("batch_wait_timeout_s", batch_wait_timeout_s),
        concurrency=whole("concurrency", concurrency),
        capture_context=flag("capture_context", capture_context),
        name=text("name", name_of(batch_fn) if name is None else name),
    )


def whole(option: str, value: Any) -> int:
    """Return ``value`` as an int of at least 1, or say what is wrong with it.

    Raises:
        TypeError: it is not an integer (``True`` and ``1.0`` are not).
        ValueError: it is below 1.
    """
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
    """Return ``value`` as a finite number of seconds of at least 0, or ``None`` if it is ``None``.

    Raises:
        TypeError: it is neither a real number nor ``None`` (``True`` is not a number).
        ValueError: it is negative, infinite or not a number at all (NaN).
    """
    if value is None:
        return None
    number: Any = value
    if not isinstance(value, (int, float, Real)) or isinstance(value, bool):
        msg = f"{option} must be a number of seconds, or None to adapt, got {value!r} of type {type(value).__name__}"
        raise TypeError(msg)
    if not 0 <= number <= sys.float_info.max:
        msg = f"{option} must be a finite number of seconds, at least 0, got {value!r}"
        raise ValueError(msg)
    return float(number)


def flag(option: str, value: object) -> bool:
    """Return ``value`` if it is ``True`` or ``False``.

    Raises:
        TypeError: it is anything else, whether true or not.
    """
    if not isinstance(value, bool):
        msg = f"{option} must be True or False, got {value!r} of type {type(value).__name__}"
        raise TypeError(msg)
    return value


def text(option: str, value: object) -> str:
    """Return ``value`` if it is a string that is not empty.

    Raises:
        TypeError: it is not a string.
        ValueError: it is empty.
    """
    if not isinstance(value, str):
        msg = f"{option} must be a str, got {value!r} of type {type(value).__name__}"
        raise TypeError(msg)
    if not value:
        msg = f"{option} must not be empty"
        raise ValueError(msg)
    return value
