"""The types of batch functions and of decorated functions and methods.

Must not know: engines. Nothing here runs: no module imports this one at run time.

``P`` are the parameters of a call, ``R`` is its result, ``M`` is an item of ``map``, and ``Q`` are the options of a
call. An exception among the results is raised and not returned, and ``DONE`` ends a stream, so ``R`` excludes both. A
``Method`` is a function in the body of a class, and ``Unbound`` is one as an attribute of the class. ``Maps`` are the
members that take many items. Each name begins with ``Sync`` for ``def``, and with ``Async`` for ``async def``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeAlias, TypeVar, overload

from batchify._batcher.functions import Results
from batchify._core.outcome import Done

if TYPE_CHECKING:
    import asyncio
    import concurrent.futures
    from collections.abc import AsyncGenerator, AsyncIterable, Generator, Iterable
    from types import CoroutineType

    from typing_extensions import Self, Unpack

    from batchify._batcher.options import Changes
    from batchify._stats.snapshot import BatchStats

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
T = TypeVar("T")
R_co = TypeVar("R_co", covariant=True)
# An item of ``map``: a tuple if there are several columns.
M_contra = TypeVar("M_contra", contravariant=True)
# The class of a method, and a method after binding.
Owner = TypeVar("Owner")
Owner_contra = TypeVar("Owner_contra", contravariant=True)
Bound_co = TypeVar("Bound_co", covariant=True)
Batch_co = TypeVar("Batch_co", covariant=True)

# pyright takes an exception for a result unless it is exactly one of these, or sorts after the results by name.
Failure: TypeAlias = (
    Exception
    | ConnectionError
    | FileNotFoundError
    | IndexError
    | KeyError
    | LookupError
    | OSError
    | PermissionError
    | RuntimeError
    | TimeoutError
    | TypeError
    | ValueError
)
# What batch functions return.
SyncResults: TypeAlias = Results[R | Failure]
AsyncResults: TypeAlias = Coroutine[Any, Any, Results[R | Failure]]
SyncValues: TypeAlias = Iterator[Results[R | Failure | Done]]
AsyncValues: TypeAlias = AsyncIterator[Results[R | Failure | Done]]


class Decorated(Protocol):
    __name__: str
    __qualname__: str

    @property
    def batch_stats(self) -> BatchStats: ...
    def reset_stats(self) -> None: ...
    def configure(self, **options: Unpack[Changes]) -> None: ...
    def options(self, *, priority: float = 0, deadline: float | None = None) -> Self: ...
    def flush(self) -> None: ...
    def drain(self, timeout: float | None = None) -> None: ...
    async def adrain(self, timeout: float | None = None) -> None: ...
    def close(self, timeout: float | None = None) -> None: ...
    async def aclose(self, timeout: float | None = None) -> None: ...
    def open(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *error: object) -> None: ...
    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *error: object) -> None: ...


class SyncMaps(Decorated, Protocol[R, M_contra, Q]):
    def map(self, items: Iterable[M_contra], /, *args: Q.args, **options: Q.kwargs) -> list[R]: ...
    def imap(
        self, items: Iterable[M_contra], ahead: int | None = None, /, *args: Q.args, **options: Q.kwargs
    ) -> Generator[R]: ...


class AsyncMaps(Decorated, Protocol[R, M_contra, Q]):
    def map(
        self, items: Iterable[M_contra], /, *args: Q.args, **options: Q.kwargs
    ) -> CoroutineType[Any, Any, list[R]]: ...
    def imap(
        self,
        items: AsyncIterable[M_contra] | Iterable[M_contra],
        ahead: int | None = None,
        /,
        *args: Q.args,
        **options: Q.kwargs,
    ) -> AsyncGenerator[R]: ...


class SyncFunction(SyncMaps[R, M_contra, Q], Protocol[P, R, M_contra, Q]):
    @property
    def __wrapped__(self) -> Callable[..., Results[R]]: ...
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...
    def submit(self, *args: P.args, **kwargs: P.kwargs) -> concurrent.futures.Future[R]: ...
    def acall(self, *args: P.args, **kwargs: P.kwargs) -> CoroutineType[Any, Any, R]: ...


class AsyncFunction(AsyncMaps[R, M_contra, Q], Protocol[P, R, M_contra, Q]):
    @property
    def __wrapped__(self) -> Callable[..., Coroutine[Any, Any, Results[R]]]: ...
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> CoroutineType[Any, Any, R]: ...
    def submit(self, *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[R]: ...
    def acall(self, *args: P.args, **kwargs: P.kwargs) -> CoroutineType[Any, Any, R]: ...


class SyncStream(Iterator[R_co], Protocol[R_co]):
    def close(self) -> None: ...


class AsyncStream(AsyncIterator[R_co], Protocol[R_co]):
    def aclose(self) -> Coroutine[Any, Any, None]: ...


class SyncStreams(SyncMaps[list[R], M_contra, Q], Protocol[P, R, M_contra, Q]):
    @property
    def __wrapped__(self) -> Callable[..., Iterator[Results[R]]]: ...
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> SyncStream[R]: ...
    def submit(self, *args: P.args, **kwargs: P.kwargs) -> SyncStream[R]: ...
    def acall(self, *args: P.args, **kwargs: P.kwargs) -> AsyncStream[R]: ...


class AsyncStreams(AsyncMaps[list[R], M_contra, Q], Protocol[P, R, M_contra, Q]):
    @property
    def __wrapped__(self) -> Callable[..., AsyncIterator[Results[R]]]: ...
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> AsyncStream[R]: ...
    def submit(self, *args: P.args, **kwargs: P.kwargs) -> AsyncStream[R]: ...
    def acall(self, *args: P.args, **kwargs: P.kwargs) -> AsyncStream[R]: ...


class Unbound(Decorated, Protocol[Owner_contra, P, R_co, Batch_co]):
    """A method as an attribute of its class."""

    @property
    def __wrapped__(self) -> Batch_co: ...
    def __call__(self, instance: Owner_contra, /, *args: P.args, **kwargs: P.kwargs) -> R_co: ...


# ``__get__`` infers the class of a method. If it were part of the type, a subclass could not override the method. A
# method is a function too, because pyright does not call ``__get__`` for the members of a protocol.
class SyncMethod(SyncFunction[P, R, M_contra, Q], Protocol[P, R, M_contra, Q]):
    @overload
    def __get__(self, instance: None, owner: type[Owner]) -> Unbound[Owner, P, R, Callable[..., Results[R]]]: ...
    @overload
    def __get__(self, instance: object, owner: type | None = None) -> SyncFunction[P, R, M_contra, Q]: ...


class AsyncMethod(AsyncFunction[P, R, M_contra, Q], Protocol[P, R, M_contra, Q]):
    @overload
    def __get__(
        self, instance: None, owner: type[Owner]
    ) -> Unbound[Owner, P, CoroutineType[Any, Any, R], Callable[..., Coroutine[Any, Any, Results[R]]]]: ...
    @overload
    def __get__(self, instance: object, owner: type | None = None) -> AsyncFunction[P, R, M_contra, Q]: ...


class SyncStreamMethod(SyncStreams[P, R, M_contra, Q], Protocol[P, R, M_contra, Q]):
    @overload
    def __get__(self, instance: None, owner: type[Owner]) -> Unbound[Owner, P, SyncStream[R], Any]: ...
    @overload
    def __get__(self, instance: object, owner: type | None = None) -> SyncStreams[P, R, M_contra, Q]: ...


class AsyncStreamMethod(AsyncStreams[P, R, M_contra, Q], Protocol[P, R, M_contra, Q]):
    @overload
    def __get__(self, instance: None, owner: type[Owner]) -> Unbound[Owner, P, AsyncStream[R], Any]: ...
    @overload
    def __get__(self, instance: object, owner: type | None = None) -> AsyncStreams[P, R, M_contra, Q]: ...


class ClassMethod(Decorated, Protocol[Bound_co]):
    def __get__(self, instance: object, owner: type | None = None) -> Bound_co: ...
    # classmethod() takes callables only.
    def __call__(self, owner: Any, /, *args: Any, **kwargs: Any) -> Any: ...


# For ``list[T] -> list[T]`` with any ``T``. mypy binds the variable of a generic function to one type otherwise.
class SyncGeneric(Decorated, Protocol[Q]):
    @property
    def __wrapped__(self) -> Callable[..., Results[Any]]: ...
    def __call__(self, item: T, /, *args: Q.args, **options: Q.kwargs) -> T: ...
    def submit(self, item: T, /, *args: Q.args, **options: Q.kwargs) -> concurrent.futures.Future[T]: ...
    def map(self, items: Iterable[T], /, *args: Q.args, **options: Q.kwargs) -> list[T]: ...
    def imap(
        self, items: Iterable[T], ahead: int | None = None, /, *args: Q.args, **options: Q.kwargs
    ) -> Generator[T]: ...
    def acall(self, item: T, /, *args: Q.args, **options: Q.kwargs) -> CoroutineType[Any, Any, T]: ...


class AsyncGeneric(Decorated, Protocol[Q]):
    @property
    def __wrapped__(self) -> Callable[..., Coroutine[Any, Any, Results[Any]]]: ...
    def __call__(self, item: T, /, *args: Q.args, **options: Q.kwargs) -> CoroutineType[Any, Any, T]: ...
    def submit(self, item: T, /, *args: Q.args, **options: Q.kwargs) -> asyncio.Future[T]: ...
    def map(self, items: Iterable[T], /, *args: Q.args, **options: Q.kwargs) -> CoroutineType[Any, Any, list[T]]: ...
    def imap(
        self, items: AsyncIterable[T] | Iterable[T], ahead: int | None = None, /, *args: Q.args, **options: Q.kwargs
    ) -> AsyncGenerator[T]: ...
    def acall(self, item: T, /, *args: Q.args, **options: Q.kwargs) -> CoroutineType[Any, Any, T]: ...
