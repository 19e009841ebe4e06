"""What a batch function is: its name, its kind, and what it returns."""

from __future__ import annotations

import inspect
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

R_co = TypeVar("R_co", covariant=True)

# ``Any`` because a checker that is told the classes asks for the types of what is inside.
METHOD_KINDS: Any = (classmethod, staticmethod)


def name_of(fn: object) -> str:
    """Return the qualified name of a function, or of what is inside a partial, or of the type of a callable object."""
    if isinstance(fn, partial):
        return name_of(fn.func)
    name = getattr(fn, "__qualname__", None)
    return name if isinstance(name, str) else type(fn).__qualname__


def is_async(fn: object) -> bool:
    """Say whether calling ``fn`` returns a coroutine, for functions, partials and objects with ``__call__`` alike."""
    return any(map(inspect.iscoroutinefunction, _called(fn)))


def is_generator(fn: object) -> bool:
    """Say whether calling ``fn`` returns a generator, asynchronous or not."""
    return is_async_generator(fn) or any(map(inspect.isgeneratorfunction, _called(fn)))


def is_async_generator(fn: object) -> bool:
    """Say whether calling ``fn`` returns an asynchronous generator."""
    return any(map(inspect.isasyncgenfunction, _called(fn)))


def _called(fn: object) -> tuple[Any, Any]:
    while isinstance(fn, partial):
        fn = fn.func
    return fn, getattr(type(fn), "__call__", None)  # noqa: B004  # wanted for what it is


class Results(Protocol[R_co]):
    """What a batch function may return: a list, tuple, array or the like, with a length and an order.

    A string has both, too; only the program tells that it is no list of results.
    """

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[R_co]: ...
    # Mappings and sets have none for positions.
    def __getitem__(self, index: int, /) -> R_co: ...
