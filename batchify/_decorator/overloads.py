"""The type of ``microbatch``: its result for each kind of batch function.

Nothing here runs: no module imports this one at run time.

A type checker takes the first overload that fits. Their order means:

* A partial, which accepts any arguments, has one column. So has a function without annotations.
* A positional parameter that is a list and has no default is a column; any other is an option.
* A function that returns ``Any`` is a ``def`` function and not a generator function.
"""

# mypy: disable-error-code="overload-overlap,overload-cannot-match"
# pyright: reportInvalidTypeVarUse=false, reportOverlappingOverload=false

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Concatenate, Protocol, TypeAlias, TypeVar, overload

from typing_extensions import Never

from batchify._batcher.functions import Results
from batchify._decorator.types import (
    AsyncFunction,
    AsyncGeneric,
    AsyncMethod,
    AsyncResults,
    AsyncStreamMethod,
    AsyncStreams,
    AsyncValues,
    ClassMethod,
    Failure,
    P,
    Q,
    R,
    R_co,
    SyncFunction,
    SyncGeneric,
    SyncMethod,
    SyncResults,
    SyncStreamMethod,
    SyncStreams,
    SyncValues,
    T,
)

if TYPE_CHECKING:
    from functools import partial

    from typing_extensions import Unpack

    from batchify._batcher.options import KeyedOptions, Options

T2 = TypeVar("T2")
T3 = TypeVar("T3")
B = TypeVar("B")


class AFunctionOfAListThatReturnsOneResultForEachItem:
    """No object is one. In their errors, mypy names the first overload that may fit, and pyright the last one."""


class Only(Protocol[R_co]):
    @property  # type: ignore[misc]
    def __class__(self) -> type[R_co]: ...  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]


NoBatchFunction: TypeAlias = AFunctionOfAListThatReturnsOneResultForEachItem
# Only a function without types for its items and results fits.
Untyped: TypeAlias = Callable[Concatenate[list[Only[Any]], P], Results[NoBatchFunction]]


# A batch function of one column. It fits both overloads only if all its other parameters have defaults: a second list
# without a default is a column.
class One(Protocol[T, P, R_co]):
    @overload
    def __call__(self, items: list[T], /) -> R_co: ...
    @overload
    def __call__(self, items: list[T], /, *args: P.args, **kwargs: P.kwargs) -> R_co: ...


# Names that end with ``M`` are those of methods.
class OneM(Protocol[T, P, R_co]):
    @overload
    def __call__(self, instance: Never, items: list[T], /) -> R_co: ...
    @overload
    def __call__(self, instance: Never, items: list[T], /, *args: P.args, **kwargs: P.kwargs) -> R_co: ...


SyncMapping: TypeAlias = Mapping[T, R | Failure]
AsyncMapping: TypeAlias = Coroutine[Any, Any, Mapping[T, R | Failure]]
# mypy takes a parameter ``**options`` for one that may hold the name of the column, so their types are not checked.
AnyOptions: TypeAlias = Callable[[list[T]], B]
AnyOptionsM: TypeAlias = Callable[[Never, list[T]], B]
Two: TypeAlias = Callable[Concatenate[list[T], list[T2], P], B]
TwoM: TypeAlias = Callable[Concatenate[Never, list[T], list[T2], P], B]
Three: TypeAlias = Callable[Concatenate[list[T], list[T2], list[T3], P], B]
ThreeM: TypeAlias = Callable[Concatenate[Never, list[T], list[T2], list[T3], P], B]
# One column and a required option.
Required: TypeAlias = Callable[Concatenate[list[T], P], B]
RequiredM: TypeAlias = Callable[Concatenate[Never, list[T], P], B]
OfClass: TypeAlias = Callable[Concatenate[type[Any], list[T], P], B]

# Each name ends with the number of columns. ``P`` is ``...`` for a function that takes any options.
SyncFunction1: TypeAlias = SyncFunction[Concatenate[T, P], R, T, P]
SyncFunction2: TypeAlias = SyncFunction[Concatenate[T, T2, P], R, tuple[T, T2], P]
SyncMethod1: TypeAlias = SyncMethod[Concatenate[T, P], R, T, P]
SyncMethod2: TypeAlias = SyncMethod[Concatenate[T, T2, P], R, tuple[T, T2], P]
AsyncFunction1: TypeAlias = AsyncFunction[Concatenate[T, P], R, T, P]
AsyncFunction2: TypeAlias = AsyncFunction[Concatenate[T, T2, P], R, tuple[T, T2], P]
AsyncMethod1: TypeAlias = AsyncMethod[Concatenate[T, P], R, T, P]
AsyncMethod2: TypeAlias = AsyncMethod[Concatenate[T, T2, P], R, tuple[T, T2], P]
SyncStreams1: TypeAlias = SyncStreams[Concatenate[T, P], R, T, P]
SyncStreams2: TypeAlias = SyncStreams[Concatenate[T, T2, P], R, tuple[T, T2], P]
SyncStreamMethod1: TypeAlias = SyncStreamMethod[Concatenate[T, P], R, T, P]
SyncStreamMethod2: TypeAlias = SyncStreamMethod[Concatenate[T, T2, P], R, tuple[T, T2], P]
AsyncStreams1: TypeAlias = AsyncStreams[Concatenate[T, P], R, T, P]
AsyncStreams2: TypeAlias = AsyncStreams[Concatenate[T, T2, P], R, tuple[T, T2], P]
AsyncStreamMethod1: TypeAlias = AsyncStreamMethod[Concatenate[T, P], R, T, P]
AsyncStreamMethod2: TypeAlias = AsyncStreamMethod[Concatenate[T, T2, P], R, tuple[T, T2], P]


class SyncIdentity(Protocol[Q]):
    def __call__(self, items: list[T], /, *args: Q.args, **options: Q.kwargs) -> Results[T | Exception]: ...


class AsyncIdentity(Protocol[Q]):
    async def __call__(self, items: list[T], /, *args: Q.args, **options: Q.kwargs) -> Results[T | Exception]: ...


class Decorator(Protocol):
    """``microbatch`` itself, with or without some of its options."""

    @overload
    def __call__(self, **_: Unpack[Options]) -> Decorator: ...
    @overload
    def __call__(self, **_: Unpack[KeyedOptions]) -> KeyedDecorator: ...
    @overload
    def __call__(self, fn: Only[NoBatchFunction], /, **_: Unpack[Options]) -> SyncFunction[..., Any, Any, ...]: ...
    @overload
    def __call__(self, fn: Untyped[P], /, **_: Unpack[Options]) -> SyncFunction[..., Any, Any, ...]: ...
    @overload
    def __call__(
        self, fn: partial[Coroutine[Any, Any, list[R]]], /, **_: Unpack[Options]
    ) -> AsyncFunction[..., R, Any, ...]: ...
    @overload
    def __call__(self, fn: partial[list[R]], /, **_: Unpack[Options]) -> SyncFunction[..., R, Any, ...]: ...
    @overload
    def __call__(
        self, fn: partial[AsyncIterator[list[R]]], /, **_: Unpack[Options]
    ) -> AsyncStreams[..., R, Any, ...]: ...
    @overload
    def __call__(self, fn: partial[Iterator[list[R]]], /, **_: Unpack[Options]) -> SyncStreams[..., R, Any, ...]: ...
    @overload
    def __call__(self, fn: SyncIdentity[Q], /, **_: Unpack[Options]) -> SyncGeneric[Q]: ...
    @overload
    def __call__(self, fn: AsyncIdentity[Q], /, **_: Unpack[Options]) -> AsyncGeneric[Q]: ...
    @overload
    def __call__(self, fn: One[T, P, SyncResults[R]], /, **_: Unpack[Options]) -> SyncFunction1[T, P, R]: ...
    @overload
    def __call__(self, fn: AnyOptions[T, SyncResults[R]], /, **_: Unpack[Options]) -> SyncFunction1[T, ..., R]: ...
    @overload
    def __call__(
        self, fn: Three[T, T2, T3, P, SyncResults[R]], /, **_: Unpack[Options]
    ) -> SyncFunction[Concatenate[T, T2, T3, P], R, tuple[T, T2, T3], P]: ...
    @overload
    def __call__(self, fn: Two[T, T2, P, SyncResults[R]], /, **_: Unpack[Options]) -> SyncFunction2[T, T2, P, R]: ...
    @overload
    def __call__(self, fn: Required[T, P, SyncResults[R]], /, **_: Unpack[Options]) -> SyncFunction1[T, P, R]: ...
    @overload
    def __call__(
        self, fn: OfClass[T, P, SyncResults[R]], /, **_: Unpack[Options]
    ) -> ClassMethod[SyncFunction1[T, P, R]]: ...
    @overload
    def __call__(self, fn: One[T, P, AsyncResults[R]], /, **_: Unpack[Options]) -> AsyncFunction1[T, P, R]: ...
    @overload
    def __call__(self, fn: AnyOptions[T, AsyncResults[R]], /, **_: Unpack[Options]) -> AsyncFunction1[T, ..., R]: ...
    @overload
    def __call__(
        self, fn: Three[T, T2, T3, P, AsyncResults[R]], /, **_: Unpack[Options]
    ) -> AsyncFunction[Concatenate[T, T2, T3, P], R, tuple[T, T2, T3], P]: ...
    @overload
    def __call__(self, fn: Two[T, T2, P, AsyncResults[R]], /, **_: Unpack[Options]) -> AsyncFunction2[T, T2, P, R]: ...
    @overload
    def __call__(self, fn: Required[T, P, AsyncResults[R]], /, **_: Unpack[Options]) -> AsyncFunction1[T, P, R]: ...
    @overload
    def __call__(
        self, fn: OfClass[T, P, AsyncResults[R]], /, **_: Unpack[Options]
    ) -> ClassMethod[AsyncFunction1[T, P, R]]: ...
    @overload
    def __call__(self, fn: One[T, P, SyncValues[R]], /, **_: Unpack[Options]) -> SyncStreams1[T, P, R]: ...
    @overload
    def __call__(self, fn: AnyOptions[T, SyncValues[R]], /, **_: Unpack[Options]) -> SyncStreams1[T, ..., R]: ...
    @overload
    def __call__(
        self, fn: Three[T, T2, T3, P, SyncValues[R]], /, **_: Unpack[Options]
    ) -> SyncStreams[Concatenate[T, T2, T3, P], R, tuple[T, T2, T3], P]: ...
    @overload
    def __call__(self, fn: Two[T, T2, P, SyncValues[R]], /, **_: Unpack[Options]) -> SyncStreams2[T, T2, P, R]: ...
    @overload
    def __call__(self, fn: Required[T, P, SyncValues[R]], /, **_: Unpack[Options]) -> SyncStreams1[T, P, R]: ...
    @overload
    def __call__(
        self, fn: OfClass[T, P, SyncValues[R]], /, **_: Unpack[Options]
    ) -> ClassMethod[SyncStreams1[T, P, R]]: ...
    @overload
    def __call__(self, fn: One[T, P, AsyncValues[R]], /, **_: Unpack[Options]) -> AsyncStreams1[T, P, R]: ...
    @overload
    def __call__(self, fn: AnyOptions[T, AsyncValues[R]], /, **_: Unpack[Options]) -> AsyncStreams1[T, ..., R]: ...
    @overload
    def __call__(
        self, fn: Three[T, T2, T3, P, AsyncValues[R]], /, **_: Unpack[Options]
    ) -> AsyncStreams[Concatenate[T, T2, T3, P], R, tuple[T, T2, T3], P]: ...
    @overload
    def __call__(self, fn: Two[T, T2, P, AsyncValues[R]], /, **_: Unpack[Options]) -> AsyncStreams2[T, T2, P, R]: ...
    @overload
    def __call__(self, fn: Required[T, P, AsyncValues[R]], /, **_: Unpack[Options]) -> AsyncStreams1[T, P, R]: ...
    @overload
    def __call__(
        self, fn: OfClass[T, P, AsyncValues[R]], /, **_: Unpack[Options]
    ) -> ClassMethod[AsyncStreams1[T, P, R]]: ...
    @overload
    def __call__(self, fn: OneM[T, P, SyncResults[R]], /, **_: Unpack[Options]) -> SyncMethod1[T, P, R]: ...
    @overload
    def __call__(self, fn: AnyOptionsM[T, SyncResults[R]], /, **_: Unpack[Options]) -> SyncMethod1[T, ..., R]: ...
    @overload
    def __call__(
        self, fn: ThreeM[T, T2, T3, P, SyncResults[R]], /, **_: Unpack[Options]
    ) -> SyncMethod[Concatenate[T, T2, T3, P], R, tuple[T, T2, T3], P]: ...
    @overload
    def __call__(self, fn: TwoM[T, T2, P, SyncResults[R]], /, **_: Unpack[Options]) -> SyncMethod2[T, T2, P, R]: ...
    @overload
    def __call__(self, fn: RequiredM[T, P, SyncResults[R]], /, **_: Unpack[Options]) -> SyncMethod1[T, P, R]: ...
    @overload
    def __call__(self, fn: OneM[T, P, AsyncResults[R]], /, **_: Unpack[Options]) -> AsyncMethod1[T, P, R]: ...
    @overload
    def __call__(self, fn: AnyOptionsM[T, AsyncResults[R]], /, **_: Unpack[Options]) -> AsyncMethod1[T, ..., R]: ...
    @overload
    def __call__(
        self, fn: ThreeM[T, T2, T3, P, AsyncResults[R]], /, **_: Unpack[Options]
    ) -> AsyncMethod[Concatenate[T, T2, T3, P], R, tuple[T, T2, T3], P]: ...
    @overload
    def __call__(self, fn: TwoM[T, T2, P, AsyncResults[R]], /, **_: Unpack[Options]) -> AsyncMethod2[T, T2, P, R]: ...
    @overload
    def __call__(self, fn: RequiredM[T, P, AsyncResults[R]], /, **_: Unpack[Options]) -> AsyncMethod1[T, P, R]: ...
    @overload
    def __call__(self, fn: OneM[T, P, SyncValues[R]], /, **_: Unpack[Options]) -> SyncStreamMethod1[T, P, R]: ...
    @overload
    def __call__(self, fn: AnyOptionsM[T, SyncValues[R]], /, **_: Unpack[Options]) -> SyncStreamMethod1[T, ..., R]: ...
    @overload
    def __call__(
        self, fn: ThreeM[T, T2, T3, P, SyncValues[R]], /, **_: Unpack[Options]
    ) -> SyncStreamMethod[Concatenate[T, T2, T3, P], R, tuple[T, T2, T3], P]: ...
    @overload
    def __call__(
        self, fn: TwoM[T, T2, P, SyncValues[R]], /, **_: Unpack[Options]
    ) -> SyncStreamMethod2[T, T2, P, R]: ...
    @overload
    def __call__(self, fn: RequiredM[T, P, SyncValues[R]], /, **_: Unpack[Options]) -> SyncStreamMethod1[T, P, R]: ...
    @overload
    def __call__(self, fn: OneM[T, P, AsyncValues[R]], /, **_: Unpack[Options]) -> AsyncStreamMethod1[T, P, R]: ...
    @overload
    def __call__(
        self, fn: AnyOptionsM[T, AsyncValues[R]], /, **_: Unpack[Options]
    ) -> AsyncStreamMethod1[T, ..., R]: ...
    @overload
    def __call__(
        self, fn: ThreeM[T, T2, T3, P, AsyncValues[R]], /, **_: Unpack[Options]
    ) -> AsyncStreamMethod[Concatenate[T, T2, T3, P], R, tuple[T, T2, T3], P]: ...
    @overload
    def __call__(
        self, fn: TwoM[T, T2, P, AsyncValues[R]], /, **_: Unpack[Options]
    ) -> AsyncStreamMethod2[T, T2, P, R]: ...
    @overload
    def __call__(self, fn: RequiredM[T, P, AsyncValues[R]], /, **_: Unpack[Options]) -> AsyncStreamMethod1[T, P, R]: ...
    @overload
    def __call__(
        self, fn: Two[T, T2, P, SyncMapping[tuple[T, T2], R]], /, **_: Unpack[KeyedOptions]
    ) -> SyncFunction2[T, T2, P, R]: ...
    @overload
    def __call__(
        self, fn: Required[T, P, SyncMapping[T, R]], /, **_: Unpack[KeyedOptions]
    ) -> SyncFunction1[T, P, R]: ...
    @overload
    def __call__(
        self, fn: RequiredM[T, P, SyncMapping[T, R]], /, **_: Unpack[KeyedOptions]
    ) -> SyncMethod1[T, P, R]: ...
    @overload
    def __call__(
        self, fn: Two[T, T2, P, AsyncMapping[tuple[T, T2], R]], /, **_: Unpack[KeyedOptions]
    ) -> AsyncFunction2[T, T2, P, R]: ...
    @overload
    def __call__(
        self, fn: Required[T, P, AsyncMapping[T, R]], /, **_: Unpack[KeyedOptions]
    ) -> AsyncFunction1[T, P, R]: ...
    @overload
    def __call__(
        self, fn: RequiredM[T, P, AsyncMapping[T, R]], /, **_: Unpack[KeyedOptions]
    ) -> AsyncMethod1[T, P, R]: ...
    @overload
    def __call__(self, fn: NoBatchFunction, /, **_: Unpack[Options]) -> SyncFunction[..., Any, Any, ...]: ...


class KeyedDecorator(Protocol):
    """``microbatch(keyed=True)``, with or without other options."""

    @overload
    def __call__(self, **_: Unpack[Options]) -> KeyedDecorator: ...
    @overload
    def __call__(
        self, fn: Two[T, T2, P, SyncMapping[tuple[T, T2], R]], /, **_: Unpack[Options]
    ) -> SyncFunction2[T, T2, P, R]: ...
    @overload
    def __call__(self, fn: Required[T, P, SyncMapping[T, R]], /, **_: Unpack[Options]) -> SyncFunction1[T, P, R]: ...
    @overload
    def __call__(self, fn: RequiredM[T, P, SyncMapping[T, R]], /, **_: Unpack[Options]) -> SyncMethod1[T, P, R]: ...
    @overload
    def __call__(
        self, fn: Two[T, T2, P, AsyncMapping[tuple[T, T2], R]], /, **_: Unpack[Options]
    ) -> AsyncFunction2[T, T2, P, R]: ...
    @overload
    def __call__(self, fn: Required[T, P, AsyncMapping[T, R]], /, **_: Unpack[Options]) -> AsyncFunction1[T, P, R]: ...
    @overload
    def __call__(self, fn: RequiredM[T, P, AsyncMapping[T, R]], /, **_: Unpack[Options]) -> AsyncMethod1[T, P, R]: ...
