"""The types of generator functions, of decorated ones, and of streams.

Must not know: engines. Nothing here runs: no module imports this one at run time.

The type variables and classes correspond to those of ``types``, where ``R`` is a value of a stream. An exception among
the values is raised, and ``DONE`` ends the stream, so ``R`` excludes both.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, Concatenate, Protocol, TypeAlias, overload

from batchify._batcher.functions import Results
from batchify._core.outcome import Done
from batchify._decorator.types import Decorated, M_contra, Owner, Owner_contra, P, R, R_co, T

if TYPE_CHECKING:
    import collections.abc
    from collections.abc import AsyncIterable, Generator, Iterable

SyncValues: TypeAlias = Iterator[Results[R | Exception | Done]]
AsyncValues: TypeAlias = AsyncIterator[Results[R | Exception | Done]]
SyncGenerator: TypeAlias = Callable[P, SyncValues[R]]
AsyncGenerator: TypeAlias = Callable[P, AsyncValues[R]]


class SyncStream(Iterator[R_co], Protocol[R_co]):
    def close(self) -> None: ...


class AsyncStream(AsyncIterator[R_co], Protocol[R_co]):
    def aclose(self) -> Coroutine[Any, Any, None]: ...


class SyncStreams(Decorated, Protocol[T, P, R, M_contra]):
    @property
    def __wrapped__(self) -> Callable[Concatenate[list[T], P], SyncValues[R]]: ...
    def __call__(self, item: T, /, *args: P.args, **kwargs: P.kwargs) -> SyncStream[R]: ...
    def submit(self, item: T, /, *args: P.args, **kwargs: P.kwargs) -> SyncStream[R]: ...
    def map(self, items: Iterable[M_contra], /, **options: Any) -> list[list[R]]: ...
    def imap(self, items: Iterable[M_contra], ahead: int | None = None, /, **options: Any) -> Generator[list[R]]: ...
    def acall(self, item: T, /, *args: P.args, **kwargs: P.kwargs) -> AsyncStream[R]: ...


class AsyncStreams(Decorated, Protocol[T, P, R, M_contra]):
    @property
    def __wrapped__(self) -> Callable[Concatenate[list[T], P], AsyncValues[R]]: ...
    def __call__(self, item: T, /, *args: P.args, **kwargs: P.kwargs) -> AsyncStream[R]: ...
    def submit(self, item: T, /, *args: P.args, **kwargs: P.kwargs) -> AsyncStream[R]: ...
    def map(self, items: Iterable[M_contra], /, **options: Any) -> Coroutine[Any, Any, list[list[R]]]: ...
    def imap(
        self, items: AsyncIterable[M_contra] | Iterable[M_contra], ahead: int | None = None, /, **options: Any
    ) -> collections.abc.AsyncGenerator[list[R]]: ...
    def acall(self, item: T, /, *args: P.args, **kwargs: P.kwargs) -> AsyncStream[R]: ...


class SyncUnboundStreams(Decorated, Protocol[Owner_contra, T, P, R_co]):
    @property
    def __wrapped__(self) -> Callable[Concatenate[Owner_contra, list[T], P], SyncValues[R_co]]: ...
    def __call__(self, instance: Owner_contra, item: T, /, *args: P.args, **kwargs: P.kwargs) -> SyncStream[R_co]: ...


class AsyncUnboundStreams(Decorated, Protocol[Owner_contra, T, P, R_co]):
    @property
    def __wrapped__(self) -> Callable[Concatenate[Owner_contra, list[T], P], AsyncValues[R_co]]: ...
    def __call__(self, instance: Owner_contra, item: T, /, *args: P.args, **kwargs: P.kwargs) -> AsyncStream[R_co]: ...


class SyncStreamMethod(SyncUnboundStreams[Any, T, P, R], Protocol[T, P, R, M_contra]):
    @overload
    def __get__(self, instance: None, owner: type[Owner]) -> SyncUnboundStreams[Owner, T, P, R]: ...
    @overload
    def __get__(self, instance: object, owner: type | None = None) -> SyncStreams[T, P, R, M_contra]: ...


class AsyncStreamMethod(AsyncUnboundStreams[Any, T, P, R], Protocol[T, P, R, M_contra]):
    @overload
    def __get__(self, instance: None, owner: type[Owner]) -> AsyncUnboundStreams[Owner, T, P, R]: ...
    @overload
    def __get__(self, instance: object, owner: type | None = None) -> AsyncStreams[T, P, R, M_contra]: ...
