"""The batch function: its name, its kind, and the results that it may return."""

from __future__ import annotations

import inspect
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

K = TypeVar("K")
V = TypeVar("V")
R_co = TypeVar("R_co", covariant=True)

# ``Any``, because with the classes a type checker asks for the types that they wrap.
METHOD_KINDS: Any = (classmethod, staticmethod)


def name_of(fn: object) -> str:
    if isinstance(fn, partial):
        return name_of(fn.func)
    name = getattr(fn, "__qualname__", None)
    return name if isinstance(name, str) else type(fn).__qualname__


def is_async(fn: object) -> bool:
    """Say whether calling ``fn``, a function, a partial or an object with ``__call__``, returns a coroutine."""
    return any(map(inspect.iscoroutinefunction, _called(fn)))


def is_generator(fn: object) -> bool:
    """Return whether ``fn`` is a generator function, ``def`` or ``async def``."""
    return is_async_generator(fn) or any(map(inspect.isgeneratorfunction, _called(fn)))


def is_async_generator(fn: object) -> bool:
    return any(map(inspect.isasyncgenfunction, _called(fn)))


def _called(fn: object) -> tuple[Any, Any]:
    while isinstance(fn, partial):
        fn = fn.func
    return fn, getattr(type(fn), "__call__", None)  # noqa: B004  # the method itself is needed


class Results(Protocol[R_co]):
    """The results of a batch function. A string fits this protocol too; only the check at run time refuses it."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[R_co]: ...
    # Mappings and sets do not take a position.
    def __getitem__(self, index: int, /) -> R_co: ...


def rows(columns: Mapping[K, Results[V]]) -> list[dict[K, V]]:
    """Return one dict for each item of a batch, from the columns that tokenizers and models return.

    A batch function ends with ``return rows(tokenizer(texts))``.

    Args:
        columns: maps the name of each column to one value for each item, in order.

    Raises:
        ValueError: there is no column, or their lengths differ.
    """
    lengths = {name: len(column) for name, column in columns.items()}
    if len({*lengths.values()}) != 1:
        named = ", ".join(f"{name} has {length}" for name, length in lengths.items()) or "there are none"
        msg = f"rows() needs columns of one length, with one value for each item: {named}"
        raise ValueError(msg)
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
