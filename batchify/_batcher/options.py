"""The types of the options, for type checkers and editors alone. ``config`` has their defaults and validation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

# In Python 3.10, a TypedDict of typing cannot be generic.
from typing_extensions import Required, TypedDict

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable
    from concurrent.futures import Executor
    from contextlib import AbstractAsyncContextManager, AbstractContextManager

    from batchify._batcher.report import BatchReport

T = TypeVar("T")


class SharedOptions(TypedDict, total=False):
    """The options that ``microbatch`` and the engine classes have in common."""

    concurrency: int
    max_pending: int | None
    on_full: Literal["wait", "raise"]
    max_weight: float | None
    max_padded: float | None
    sizes: Iterable[int] | None
    dedupe: bool | Literal["waiting", "running"]
    isolate_errors: bool
    executor: Executor | None
    lifespan: Callable[..., AbstractContextManager[Any] | AbstractAsyncContextManager[Any]] | None
    capture_context: bool
    on_batch: Callable[[BatchReport], object] | None
    name: str | None


class ColumnOptions(SharedOptions, total=False):
    """The options of ``microbatch``, whose functions get one argument for each column."""

    max_size: int
    timeout: float | None
    weigh: Callable[..., float] | None
    length: Callable[..., float] | None
    group_by: Callable[..., Hashable] | None


class Options(ColumnOptions, total=False):
    """The options for a batch function that returns a list."""

    keyed: Literal[False]


class KeyedOptions(ColumnOptions, total=False):
    """The options for a batch function that returns a mapping."""

    keyed: Required[Literal[True]]


class EngineOptions(SharedOptions, Generic[T], total=False):
    """The options of an engine class, whose functions get one item."""

    keyed: bool
    weigh: Callable[[T], float] | None
    length: Callable[[T], float] | None
    group_by: Callable[[T], Hashable] | None


class Changes(TypedDict, total=False):
    """The options that ``configure`` changes."""

    max_size: int
    timeout: float | None
    concurrency: int
    executor: Executor | None
