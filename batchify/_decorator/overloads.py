"""The type of ``microbatch``: its result for each kind of batch function.

Nothing here runs: no module imports this one at run time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Concatenate, Protocol, overload

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Iterator
    from functools import partial

    from typing_extensions import Never, Unpack

    from batchify._batcher.options import Options
    from batchify._decorator.stream_types import (
        AsyncGenerator,
        AsyncStreamMethod,
        AsyncStreams,
        SyncGenerator,
        SyncStreamMethod,
        SyncStreams,
    )
    from batchify._decorator.types import (
        T2,
        AsyncBatch,
        AsyncFunction,
        AsyncMethod,
        ClassMethod,
        Owner,
        P,
        R,
        SyncBatch,
        SyncFunction,
        SyncMethod,
        T,
    )


class Decorator(Protocol):
    """``microbatch`` itself, with or without some of its options.

    A type checker takes the first overload that fits. For a function that fits several, their order means:

    * A partial, which accepts any arguments, comes first and has one column.
    * A second positional parameter that is a list is a column; without one, the function is not a method.
    * A function that returns ``Any`` is a ``def`` function and not a generator function.
    """

    @overload
    def __call__(self, **options: Unpack[Options]) -> Decorator: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, fn: partial[Coroutine[Any, Any, list[R]]], /, **options: Unpack[Options]
    ) -> AsyncFunction[Any, ..., R, Any]: ...
    @overload
    def __call__(self, fn: partial[list[R]], /, **options: Unpack[Options]) -> SyncFunction[Any, ..., R, Any]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, fn: partial[AsyncIterator[list[R]]], /, **options: Unpack[Options]
    ) -> AsyncStreams[Any, ..., R, Any]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, fn: partial[Iterator[list[R]]], /, **options: Unpack[Options]
    ) -> SyncStreams[Any, ..., R, Any]: ...
    @overload
    def __call__(
        self, fn: SyncBatch[Concatenate[list[T], list[T2], P], R], /, **options: Unpack[Options]
    ) -> SyncFunction[T, Concatenate[T2, P], R, tuple[T, T2]]: ...
    @overload
    def __call__(
        self, fn: AsyncBatch[Concatenate[list[T], list[T2], P], R], /, **options: Unpack[Options]
    ) -> AsyncFunction[T, Concatenate[T2, P], R, tuple[T, T2]]: ...
    @overload
    def __call__(
        self, fn: SyncBatch[Concatenate[list[T], P], R], /, **options: Unpack[Options]
    ) -> SyncFunction[T, P, R, T]: ...
    @overload
    def __call__(
        self, fn: AsyncBatch[Concatenate[list[T], P], R], /, **options: Unpack[Options]
    ) -> AsyncFunction[T, P, R, T]: ...
    @overload
    def __call__(
        self, fn: SyncBatch[Concatenate[type[Owner], list[T], P], R], /, **options: Unpack[Options]
    ) -> ClassMethod[SyncFunction[T, P, R, T]]: ...
    @overload
    def __call__(
        self, fn: AsyncBatch[Concatenate[type[Owner], list[T], P], R], /, **options: Unpack[Options]
    ) -> ClassMethod[AsyncFunction[T, P, R, T]]: ...
    @overload
    def __call__(
        self, fn: SyncBatch[Concatenate[Never, list[T], list[T2], P], R], /, **options: Unpack[Options]
    ) -> SyncMethod[T, Concatenate[T2, P], R, tuple[T, T2]]: ...
    @overload
    def __call__(
        self, fn: AsyncBatch[Concatenate[Never, list[T], list[T2], P], R], /, **options: Unpack[Options]
    ) -> AsyncMethod[T, Concatenate[T2, P], R, tuple[T, T2]]: ...
    @overload
    def __call__(
        self, fn: SyncBatch[Concatenate[Never, list[T], P], R], /, **options: Unpack[Options]
    ) -> SyncMethod[T, P, R, T]: ...
    @overload
    def __call__(
        self, fn: AsyncBatch[Concatenate[Never, list[T], P], R], /, **options: Unpack[Options]
    ) -> AsyncMethod[T, P, R, T]: ...
    @overload
    def __call__(
        self, fn: SyncGenerator[Concatenate[list[T], list[T2], P], R], /, **options: Unpack[Options]
    ) -> SyncStreams[T, Concatenate[T2, P], R, tuple[T, T2]]: ...
    @overload
    def __call__(
        self, fn: AsyncGenerator[Concatenate[list[T], list[T2], P], R], /, **options: Unpack[Options]
    ) -> AsyncStreams[T, Concatenate[T2, P], R, tuple[T, T2]]: ...
    @overload
    def __call__(
        self, fn: SyncGenerator[Concatenate[list[T], P], R], /, **options: Unpack[Options]
    ) -> SyncStreams[T, P, R, T]: ...
    @overload
    def __call__(
        self, fn: AsyncGenerator[Concatenate[list[T], P], R], /, **options: Unpack[Options]
    ) -> AsyncStreams[T, P, R, T]: ...
    @overload
    def __call__(
        self, fn: SyncGenerator[Concatenate[type[Owner], list[T], P], R], /, **options: Unpack[Options]
    ) -> ClassMethod[SyncStreams[T, P, R, T]]: ...
    @overload
    def __call__(
        self, fn: AsyncGenerator[Concatenate[type[Owner], list[T], P], R], /, **options: Unpack[Options]
    ) -> ClassMethod[AsyncStreams[T, P, R, T]]: ...
    @overload
    def __call__(
        self, fn: SyncGenerator[Concatenate[Never, list[T], list[T2], P], R], /, **options: Unpack[Options]
    ) -> SyncStreamMethod[T, Concatenate[T2, P], R, tuple[T, T2]]: ...
    @overload
    def __call__(
        self, fn: AsyncGenerator[Concatenate[Never, list[T], list[T2], P], R], /, **options: Unpack[Options]
    ) -> AsyncStreamMethod[T, Concatenate[T2, P], R, tuple[T, T2]]: ...
    @overload
    def __call__(
        self, fn: SyncGenerator[Concatenate[Never, list[T], P], R], /, **options: Unpack[Options]
    ) -> SyncStreamMethod[T, P, R, T]: ...
    @overload
    def __call__(
        self, fn: AsyncGenerator[Concatenate[Never, list[T], P], R], /, **options: Unpack[Options]
    ) -> AsyncStreamMethod[T, P, R, T]: ...
