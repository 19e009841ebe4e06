"""The types of batch functions and of decorated functions and methods.

Must not know: engines. Nothing here runs: no module imports this one at run time.

``T`` is an item, ``R`` its result, and ``P`` the options of a call. An exception among the results is raised and not
returned, so ``R`` excludes it. A ``Function`` may be a bound method, an ``Unbound`` is a method as an attribute of its
class, and a ``Method`` is one in the body of its class. Each is ``Sync`` for ``def``, or ``Async`` for ``async def``.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeAlias, TypeVar, overload

from batchify._batcher.functions import Results

if TYPE_CHECKING:
    import asyncio
    import concurrent.futures
    from collections.abc import Iterable

    from typing_extensions import Self, Unpack

    from batchify._batcher.options import Changes
    from batchify._stats.snapshot import BatchStats

T = TypeVar("T")
R = TypeVar("R")
# An element of a second column.
T2 = TypeVar("T2")
# An item of ``map``: a tuple if there are two columns.
M_contra = TypeVar("M_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)
P = ParamSpec("P")
# The class of a method, and a method after binding.
Owner = TypeVar("Owner")
Owner_contra = TypeVar("Owner_contra", contravariant=True)
Bound_co = TypeVar("Bound_co", covariant=True)

SyncBatch: TypeAlias = Callable[P, Results[R | Exception]]
AsyncBatch: TypeAlias = Callable[P, Coroutine[Any, Any, Results[R | Exception]]]


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


class SyncFunction(Decorated, Protocol[T, P, R, M_contra]):
    @property
    def __wrapped__(self) -> Callable[Concatenate[list[T], P], Results[R]]: ...
    def __call__(self, item: T, /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    def submit(self, item: T, /, *args: P.args, **kwargs: P.kwargs) -> concurrent.futures.Future[R]: ...
    def map(self, items: Iterable[M_contra], /, **options: Any) -> list[R]: ...
    def acall(self, item: T, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]: ...


class AsyncFunction(Decorated, Protocol[T, P, R, M_contra]):
    @property
    def __wrapped__(self) -> Callable[Concatenate[list[T], P], Coroutine[Any, Any, Results[R]]]: ...
    def __call__(self, item: T, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]: ...
    def submit(self, item: T, /, *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[R]: ...
    def map(self, items: Iterable[M_contra], /, **options: Any) -> Coroutine[Any, Any, list[R]]: ...
    def acall(self, item: T, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]: ...


class SyncUnbound(Decorated, Protocol[Owner_contra, T, P, R_co]):
    @property
    def __wrapped__(self) -> Callable[Concatenate[Owner_contra, list[T], P], Results[R_co]]: ...
    def __call__(self, instance: Owner_contra, item: T, /, *args: P.args, **kwargs: P.kwargs) -> R_co: ...


class AsyncUnbound(Decorated, Protocol[Owner_contra, T, P, R_co]):
    @property
    def __wrapped__(self) -> Callable[Concatenate[Owner_contra, list[T], P], Coroutine[Any, Any, Results[R_co]]]: ...
    def __call__(
        self, instance: Owner_contra, item: T, /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, R_co]: ...


# ``__get__`` infers the class of a method. If it were part of the type, a subclass could not override the method.
class SyncMethod(SyncUnbound[Any, T, P, R], Protocol[T, P, R, M_contra]):
    @overload
    def __get__(self, instance: None, owner: type[Owner]) -> SyncUnbound[Owner, T, P, R]: ...
    @overload
    def __get__(self, instance: object, owner: type | None = None) -> SyncFunction[T, P, R, M_contra]: ...


class AsyncMethod(AsyncUnbound[Any, T, P, R], Protocol[T, P, R, M_contra]):
    @overload
    def __get__(self, instance: None, owner: type[Owner]) -> AsyncUnbound[Owner, T, P, R]: ...
    @overload
    def __get__(self, instance: object, owner: type | None = None) -> AsyncFunction[T, P, R, M_contra]: ...


class ClassMethod(Decorated, Protocol[Bound_co]):
    def __get__(self, instance: object, owner: type | None = None) -> Bound_co: ...
    # classmethod() takes callables only.
    def __call__(self, owner: Any, /, *args: Any, **kwargs: Any) -> Any: ...
