"""The types of generator functions, of decorated ones, and of streams.

Describes: the public members of a decorated generator function and method, for ``def`` and for ``async def``.
Must not know: engines. Nothing here runs: no module imports this one at run time.

``T`` is an item, ``R`` a value of its stream, and ``P`` the options of a call. An exception among the values is raised,
and ``DONE`` ends the stream, so ``R`` stands for the other values.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, Concatenate, Protocol, TypeAlias, overload

from batchify._batcher.functions import Results
from batchify._core.outcome import Done
from batchify._decorator.types import Decorated, M_contra, Owner, Owner_contra, P, R, R_co, T

if TYPE_CHECKING:
    from collections.abc import Iterable

SyncGenerator: TypeAlias = Callable[P, Iterator[Results[R | Exception | Done]]]
AsyncGenerator: TypeAlias = Callable[P, AsyncIterator[Results[R | Exception | Done]]]


class SyncStream(Iterator[R_co], Protocol[R_co]):
    """The values for one item, read by a thread."""

    def close(self) -> None: ...


class AsyncStream(AsyncIterator[R_co], Protocol[R_co]):
    """The values for one item, read by a task."""

    def aclose(self) -> Coroutine[Any, Any, None]: ...


class SyncStreams(Decorated, Protocol[T, P, R, M_contra]):
    """A decorated ``def`` generator function or bound method: callers block for each value."""

    @property
    def __wrapped__(self) -> Callable[Concatenate[list[T], P], Iterator[Results[R | Exception | Done]]]: ...
    def __call__(self, item: T, /, *args: P.args, **kwargs: P.kwargs) -> SyncStream[R]: ...
    def submit(self, item: T, /, *args: P.args, **kwargs: P.kwargs) -> SyncStream[R]: ...
    def map(self, items: Iterable[M_contra], /, **options: Any) -> list[list[R]]: ...
    def acall(self, item: T, /, *args: P.args, **kwargs: P.kwargs) -> AsyncStream[R]: ...


class AsyncStreams(Decorated, Protocol[T, P, R, M_contra]):
    """A decorated ``async def`` generator function or bound method: callers await each value."""

    @property
    def __wrapped__(self) -> Callable[Concatenate[list[T], P], AsyncIterator[Results[R | Exception | Done]]]: ...
    def __call__(self, item: T, /, *args: P.args, **kwargs: P.kwargs) -> AsyncStream[R]: ...
    def submit(self, item: T, /, *args: P.args, **kwargs: P.kwargs) -> AsyncStream[R]: ...
    def map(self, items: Iterable[M_contra], /, **options: Any) -> Coroutine[Any, Any, list[list[R]]]: ...
    def acall(self, item: T, /, *args: P.args, **kwargs: P.kwargs) -> AsyncStream[R]: ...


class SyncUnboundStreams(Decorated, Protocol[Owner_contra, T, P, R_co]):
    """A decorated ``def`` generator method as an attribute of its class."""

    @property
    def __wrapped__(
        self,
    ) -> Callable[Concatenate[Owner_contra, list[T], P], Iterator[Results[R_co | Exception | Done]]]: ...
    def __call__(self, instance: Owner_contra, item: T, /, *args: P.args, **kwargs: P.kwargs) -> SyncStream[R_co]: ...


class AsyncUnboundStreams(Decorated, Protocol[Owner_contra, T, P, R_co]):
    """A decorated ``async def`` generator method as an attribute of its class."""

    @property
    def __wrapped__(
        self,
    ) -> Callable[Concatenate[Owner_contra, list[T], P], AsyncIterator[Results[R_co | Exception | Done]]]: ...
    def __call__(self, instance: Owner_contra, item: T, /, *args: P.args, **kwargs: P.kwargs) -> AsyncStream[R_co]: ...


class SyncStreamMethod(SyncUnboundStreams[Any, T, P, R], Protocol[T, P, R, M_contra]):
    """A decorated ``def`` generator method in the body of its class."""

    @overload
    def __get__(self, instance: None, owner: type[Owner]) -> SyncUnboundStreams[Owner, T, P, R]: ...
    @overload
    def __get__(self, instance: object, owner: type | None = None) -> SyncStreams[T, P, R, M_contra]: ...


class AsyncStreamMethod(AsyncUnboundStreams[Any, T, P, R], Protocol[T, P, R, M_contra]):
    """A decorated ``async def`` generator method in the body of its class."""

    @overload
    def __get__(self, instance: None, owner: type[Owner]) -> AsyncUnboundStreams[Owner, T, P, R]: ...
    @overload
    def __get__(self, instance: object, owner: type | None = None) -> AsyncStreams[T, P, R, M_contra]: ...
