"""What ``microbatch`` takes and returns, as type checkers and editors see it.

Describes: the public members of a decorated function, method and class method, one set for ``def`` and one for
``async def``, and which of them a batch function gets.
Must not know: engines. Nothing here runs, or is imported when the program runs.

``T`` is an item, ``R`` its result, ``P`` the options of a call. An exception in the place of a result is raised and not
returned, so ``R`` is what else there is.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Literal,
    ParamSpec,
    Protocol,
    TypeAlias,
    TypedDict,
    TypeVar,
    overload,
)

from batchify._batcher.functions import Results

if TYPE_CHECKING:
    import asyncio
    import concurrent.futures
    from collections.abc import AsyncIterator, Hashable, Iterable, Iterator
    from concurrent.futures import Executor
    from functools import partial

    from typing_extensions import Never, Self, Unpack

    from batchify._batcher.report import BatchReport
    from batchify._decorator.stream_types import (
        AsyncGenerator,
        AsyncStreamMethod,
        AsyncStreams,
        SyncGenerator,
        SyncStreamMethod,
        SyncStreams,
    )
    from batchify._stats.snapshot import BatchStats

T = TypeVar("T")
R = TypeVar("R")
# What an item of a second column is, and what ``map`` takes for one call: a tuple if there are two columns.
T2 = TypeVar("T2")
M_contra = TypeVar("M_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)
P = ParamSpec("P")
# What a method is called on: an instance, or a class.
Owner = TypeVar("Owner")
Owner_contra = TypeVar("Owner_contra", contravariant=True)
Bound_co = TypeVar("Bound_co", covariant=True)


class Options(TypedDict, total=False):
    """The options of ``microbatch``."""

    max_size: int
    timeout: float | None
    concurrency: int
    max_pending: int | None
    on_full: Literal["wait", "raise"]
    weigh: Callable[..., float] | None
    max_weight: float | None
    group_by: Callable[..., Hashable] | None
    dedupe: bool
    isolate_errors: bool
    executor: Executor | None
    capture_context: bool
    on_batch: Callable[[BatchReport], object] | None
    name: str | None


class Changes(TypedDict, total=False):
    """The options that can change while a function is used."""

    max_size: int
    timeout: float | None
    concurrency: int
    executor: Executor | None


SyncBatch: TypeAlias = Callable[P, Results[R | Exception]]
AsyncBatch: TypeAlias = Callable[P, Coroutine[Any, Any, Results[R | Exception]]]


class Decorated(Protocol):
    """What everything decorated offers."""

    __name__: str
    __qualname__: str

    @property
    def batch_stats(self) -> BatchStats: ...
    def reset_stats(self) -> None: ...
    def configure(self, **options: Unpack[Changes]) -> None: ...
    def options(self, *, priority: float = 0, deadline: float | None = None) -> Self: ...
    def flush(self) -> None: ...
    def close(self) -> None: ...
    async def aclose(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *error: object) -> None: ...
    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *error: object) -> None: ...


class SyncFunction(Decorated, Protocol[T, P, R, M_contra]):
    """A decorated ``def`` function, or method of an instance: callers block."""

    @property
    def __wrapped__(self) -> Callable[Concatenate[list[T], P], Results[R]]: ...
    def __call__(self, item: T, /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    def submit(self, item: T, /, *args: P.args, **kwargs: P.kwargs) -> concurrent.futures.Future[R]: ...
    def map(self, items: Iterable[M_contra], /, **options: Any) -> list[R]: ...
    def acall(self, item: T, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]: ...


class AsyncFunction(Decorated, Protocol[T, P, R, M_contra]):
    """A decorated ``async def`` function, or method of an instance: callers await."""

    @property
    def __wrapped__(self) -> Callable[Concatenate[list[T], P], Coroutine[Any, Any, Results[R]]]: ...
    def __call__(self, item: T, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]: ...
    def submit(self, item: T, /, *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[R]: ...
    def map(self, items: Iterable[M_contra], /, **options: Any) -> Coroutine[Any, Any, list[R]]: ...
    def acall(self, item: T, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]: ...


class SyncUnbound(Decorated, Protocol[Owner_contra, T, P, R_co]):
    """A decorated ``def`` method seen from its class."""

    @property
    def __wrapped__(self) -> Callable[Concatenate[Owner_contra, list[T], P], Results[R_co]]: ...
    def __call__(self, instance: Owner_contra, item: T, /, *args: P.args, **kwargs: P.kwargs) -> R_co: ...


class AsyncUnbound(Decorated, Protocol[Owner_contra, T, P, R_co]):
    """A decorated ``async def`` method seen from its class."""

    @property
    def __wrapped__(self) -> Callable[Concatenate[Owner_contra, list[T], P], Coroutine[Any, Any, Results[R_co]]]: ...
    def __call__(
        self, instance: Owner_contra, item: T, /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, R_co]: ...


# The class of a method is told by where it is found and is no parameter of its type: a subclass could not override it.
class SyncMethod(SyncUnbound[Any, T, P, R], Protocol[T, P, R, M_contra]):
    """A decorated ``def`` method as it stands in its class."""

    @overload
    def __get__(self, instance: None, owner: type[Owner]) -> SyncUnbound[Owner, T, P, R]: ...
    @overload
    def __get__(self, instance: object, owner: type | None = None) -> SyncFunction[T, P, R, M_contra]: ...


class AsyncMethod(AsyncUnbound[Any, T, P, R], Protocol[T, P, R, M_contra]):
    """A decorated ``async def`` method as it stands in its class."""

    @overload
    def __get__(self, instance: None, owner: type[Owner]) -> AsyncUnbound[Owner, T, P, R]: ...
    @overload
    def __get__(self, instance: object, owner: type | None = None) -> AsyncFunction[T, P, R, M_contra]: ...


class ClassMethod(Decorated, Protocol[Bound_co]):
    """A decorated class method as it stands in its class."""

    def __get__(self, instance: object, owner: type | None = None) -> Bound_co: ...
    # A classmethod() around it asks for a callable.
    def __call__(self, owner: Any, /, *args: Any, **kwargs: Any) -> Any: ...


class Decorator(Protocol):
    """What ``microbatch`` returns if it gets options only.

    The order counts where several fit: a partial may be called with anything, so it comes first, and has one column; a
    second positional parameter that is a list is a column; a function that returns ``Any`` is a ``def`` function and no
    generator function; and one with a second positional parameter no method.
    """

    # That they overlap is why they come first.
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, fn: partial[Coroutine[Any, Any, list[R]]], /
    ) -> AsyncFunction[Any, ..., R, Any]: ...
    @overload
    def __call__(self, fn: partial[list[R]], /) -> SyncFunction[Any, ..., R, Any]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, fn: partial[AsyncIterator[list[R]]], /
    ) -> AsyncStreams[Any, ..., R, Any]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, fn: partial[Iterator[list[R]]], /
    ) -> SyncStreams[Any, ..., R, Any]: ...
    @overload
    def __call__(
        self, fn: SyncBatch[Concatenate[list[T], list[T2], P], R], /
    ) -> SyncFunction[T, Concatenate[T2, P], R, tuple[T, T2]]: ...
    @overload
    def __call__(
        self, fn: AsyncBatch[Concatenate[list[T], list[T2], P], R], /
    ) -> AsyncFunction[T, Concatenate[T2, P], R, tuple[T, T2]]: ...
    @overload
    def __call__(self, fn: SyncBatch[Concatenate[list[T], P], R], /) -> SyncFunction[T, P, R, T]: ...
    @overload
    def __call__(self, fn: AsyncBatch[Concatenate[list[T], P], R], /) -> AsyncFunction[T, P, R, T]: ...
    @overload
    def __call__(
        self, fn: SyncBatch[Concatenate[type[Owner], list[T], P], R], /
    ) -> ClassMethod[SyncFunction[T, P, R, T]]: ...
    @overload
    def __call__(
        self, fn: AsyncBatch[Concatenate[type[Owner], list[T], P], R], /
    ) -> ClassMethod[AsyncFunction[T, P, R, T]]: ...
    @overload
    def __call__(
        self, fn: SyncBatch[Concatenate[Never, list[T], list[T2], P], R], /
    ) -> SyncMethod[T, Concatenate[T2, P], R, tuple[T, T2]]: ...
    @overload
    def __call__(
        self, fn: AsyncBatch[Concatenate[Never, list[T], list[T2], P], R], /
    ) -> AsyncMethod[T, Concatenate[T2, P], R, tuple[T, T2]]: ...
    @overload
    def __call__(self, fn: SyncBatch[Concatenate[Never, list[T], P], R], /) -> SyncMethod[T, P, R, T]: ...
    @overload
    def __call__(self, fn: AsyncBatch[Concatenate[Never, list[T], P], R], /) -> AsyncMethod[T, P, R, T]: ...
    @overload
    def __call__(
        self, fn: SyncGenerator[Concatenate[list[T], list[T2], P], R], /
    ) -> SyncStreams[T, Concatenate[T2, P], R, tuple[T, T2]]: ...
    @overload
    def __call__(
        self, fn: AsyncGenerator[Concatenate[list[T], list[T2], P], R], /
    ) -> AsyncStreams[T, Concatenate[T2, P], R, tuple[T, T2]]: ...
    @overload
    def __call__(self, fn: SyncGenerator[Concatenate[list[T], P], R], /) -> SyncStreams[T, P, R, T]: ...
    @overload
    def __call__(self, fn: AsyncGenerator[Concatenate[list[T], P], R], /) -> AsyncStreams[T, P, R, T]: ...
    @overload
    def __call__(
        self, fn: SyncGenerator[Concatenate[type[Owner], list[T], P], R], /
    ) -> ClassMethod[SyncStreams[T, P, R, T]]: ...
    @overload
    def __call__(
        self, fn: AsyncGenerator[Concatenate[type[Owner], list[T], P], R], /
    ) -> ClassMethod[AsyncStreams[T, P, R, T]]: ...
    @overload
    def __call__(
        self, fn: SyncGenerator[Concatenate[Never, list[T], list[T2], P], R], /
    ) -> SyncStreamMethod[T, Concatenate[T2, P], R, tuple[T, T2]]: ...
    @overload
    def __call__(
        self, fn: AsyncGenerator[Concatenate[Never, list[T], list[T2], P], R], /
    ) -> AsyncStreamMethod[T, Concatenate[T2, P], R, tuple[T, T2]]: ...
    @overload
    def __call__(self, fn: SyncGenerator[Concatenate[Never, list[T], P], R], /) -> SyncStreamMethod[T, P, R, T]: ...
    @overload
    def __call__(self, fn: AsyncGenerator[Concatenate[Never, list[T], P], R], /) -> AsyncStreamMethod[T, P, R, T]: ...
