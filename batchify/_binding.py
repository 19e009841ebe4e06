"""The decorated function: a proxy of the batch function that is called with one item.

Decides: which batcher a call belongs to, that of the function or that of the instance the method is bound to.
Must not know: batches, how an engine works.

Nothing is made at decoration: the batcher of a function, or of an instance, comes with its first use. An instance is
known by identity and held weakly, and nothing is stored in it.
"""

from __future__ import annotations

import copy
from types import MethodType
from typing import TYPE_CHECKING, Any, TypeAlias
from weakref import ref

from wrapt import BaseObjectProxy

from batchify._signature import METHOD_KINDS, Call, name_of
from batchify._stats import Stats, fold, together
from batchify.errors import BatcherClosedError, closed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from inspect import Signature

    from typing_extensions import Self

    from batchify._config import Config
    from batchify._registry import Batcher
    from batchify._stats import BatchStats

    Engine = Callable[[Callable[[], Callable[..., Any]], Config], Batcher]
    Proxy: TypeAlias = BaseObjectProxy[Any]
else:
    Proxy = BaseObjectProxy


class Batched(Proxy):
    """What a decorated function offers, bound to an instance or not.

    Everything else is that of the batch function: its name, documentation, module and kind.
    """

    def __init__(self, fn: Callable[..., Any], config: Config, call: Call) -> None:
        super().__init__(fn)
        self._self_config = config
        self._self_call = call

    def _self_batcher(self) -> Batcher:
        """Return the batcher that calls go to, made now if need be."""
        raise NotImplementedError

    def _self_batchers(self) -> list[Batcher]:
        """Return the batchers that exist."""
        raise NotImplementedError

    def _self_closing(self) -> list[Batcher]:
        """Return the batchers to close so that no call is taken any more."""
        raise NotImplementedError

    def _self_parts(self) -> list[Stats]:
        """Return the counters of these batchers."""
        return [part for batcher in self._self_batchers() for part in batcher.parts()]

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        return self._self_batcher().submit(self._self_call.item(args, kwargs))

    def submit(self, /, *args: Any, **kwargs: Any) -> Any:
        """Queue one item at once and return the future of its result.

        It is a ``concurrent.futures.Future`` for a ``def`` function, and an ``asyncio.Future`` for an ``async def``
        function, which needs a running event loop. Cancelling it takes the item out if it has not left yet.

        Raises:
            BatcherClosedError: the function has been closed.
        """
        return self._self_batcher().put(self._self_call.item(args, kwargs))

    def map(self, items: Iterable[Any]) -> Any:
        """Return the results for ``items``, in order: a list, or for an ``async def`` function an awaitable of one.

        Raises:
            Exception: the error of the first item that has one.
        """
        return self._self_batcher().submit_many(items)

    def acall(self, /, *args: Any, **kwargs: Any) -> Any:
        """Return a coroutine of the result for one item, to be awaited on any event loop.

        Calls of a ``def`` function from threads and from all event loops share the same batches.
        """
        return self._self_batcher().asubmit(self._self_call.item(args, kwargs))

    @property
    def batch_stats(self) -> BatchStats:
        """A snapshot of what happened so far."""
        return together(self._self_config.name, self._self_parts())

    def reset_stats(self) -> None:
        """Start counting anew; what waits and runs stays counted."""
        for part in self._self_parts():
            part.reset()

    def flush(self) -> None:
        """Let what waits leave now, as far as there are slots."""
        for batcher in self._self_batchers():
            batcher.flush()

    def close(self) -> None:
        """Take no new calls, run what waits, and return when all is answered. Closing twice is fine.

        Raises:
            RuntimeError: the caller is an event loop that has to run some of it; use ``await fn.aclose()`` there.
        """
        for batcher in self._self_closing():
            batcher.close()

    async def aclose(self) -> None:
        """Do what ``close()`` does without blocking the event loop."""
        for batcher in self._self_closing():
            await batcher.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()

    @property
    def __signature__(self) -> Signature:
        return self._self_call.signature

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Batched:
        return self

    def __reduce_ex__(self, protocol: object) -> Any:
        return self.__reduce__()

    def __dir__(self) -> list[str]:
        return sorted({*dir(type(self)), *dir(self.__wrapped__)})

    def __repr__(self) -> str:
        return f"<microbatch {self._self_config.name}>"

    __str__ = __repr__


class BatchedFunction(Batched):
    """A decorated function, or a decorated method seen from its class.

    Args:
        fn: what was decorated.
        config: its options.
        engine: makes a batcher of a source of the batch function and the options.

    Raises:
        TypeError: ``fn`` has no parameter for a list of items.
    """

    def __init__(self, fn: Any, config: Config, engine: Engine) -> None:
        # What the first argument of a method is: an instance, a class, or (of a static method) nothing.
        self_kind: type | None = type(fn) if isinstance(fn, METHOD_KINDS) else None  # pyright: ignore[reportUnknownVariableType]  # the type of anything
        function = fn if self_kind is None else fn.__func__
        super().__init__(function, config, Call(function, config.name))
        self._self_kind = self_kind
        self._self_engine = engine
        self._self_method_call = Call(function, config.name, bound=True) if self_kind is classmethod else None
        # A dict because the first of several threads to put its batcher there must win.
        self._self_own: dict[None, Batcher] = {}
        # The id of an instance -> a weak reference to it, and its batcher.
        self._self_bound: dict[int, tuple[ref[Any], Batcher]] = {}
        # What batchers counted whose instances are gone.
        self._self_past: list[Stats] = []
        self._self_closed = False

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        if self._self_call.takes_instance(args) and self._self_is_method_of(args[0]):
            return self._self_bind(args[0])(*args[1:], **kwargs)
        return super().__call__(*args, **kwargs)

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if self._self_kind is classmethod:
            return self._self_bind(type(instance) if owner is None else owner)
        if instance is None or self._self_kind is staticmethod or not _binds(self.__wrapped__):
            return self
        return self._self_bind(instance)

    @property
    def __func__(self) -> BatchedFunction:
        """What a decorated bound method is bound from, decorated alike; ``inspect`` looks there for its signature."""
        return BatchedFunction(self.__wrapped__.__func__, self._self_config, self._self_engine)

    def __reduce__(self) -> str:
        return name_of(self.__wrapped__)

    def _self_batcher(self) -> Batcher:
        batcher = self._self_own.get(None)
        if batcher is None:
            function = self.__wrapped__
            batcher = self._self_own.setdefault(None, self._self_new(lambda: function))
            if self._self_closed:
                # close() came in between, and could not see it.
                batcher.close()
        return batcher

    def _self_batchers(self) -> list[Batcher]:
        return [*self._self_own.values(), *(batcher for _, batcher in list(self._self_bound.values()))]

    def _self_closing(self) -> list[Batcher]:
        self._self_closed = True
        return self._self_batchers()

    def _self_parts(self) -> list[Stats]:
        # An instance may go at any moment, and with it its counters from here to there. Until they are final they stand
        # in both places or in one; if some have become so meanwhile, it is not known where they were seen.
        while True:
            present = super()._self_parts()
            past = list(self._self_past)
            if not any(part.final for part in present):
                return list({id(part): part for part in (*present, *past)}.values())

    def _self_new(self, source: Callable[[], Callable[..., Any]]) -> Batcher:
        if self._self_closed:
            raise BatcherClosedError(closed(self._self_config.name))
        return self._self_engine(source, self._self_config)

    def _self_bind(self, instance: Any) -> BatchedMethod:
        return BatchedMethod(self, instance)

    def _self_call_of_method(self) -> Call:
        if self._self_method_call is None:
            self._self_method_call = Call(self.__wrapped__, self._self_config.name, bound=True)
        return self._self_method_call

    def _self_batcher_of(self, instance: Any) -> Batcher:
        """Return the batcher of ``instance``, made now if need be."""
        known = self._self_bound.get(id(instance))
        if known is not None:
            return known[1]
        bound, past, key = self._self_bound, self._self_past, id(instance)

        def forget(_: object) -> None:
            parts = bound[key][1].parts()
            past.extend(parts)
            del bound[key]
            for part in parts:
                part.final = True
            fold(past)

        try:
            weak = ref(instance, forget)
        except TypeError:
            raise TypeError(_no_weak_reference(self._self_config.name, type(instance).__qualname__)) from None
        function = self.__wrapped__
        batcher = self._self_new(lambda: function.__get__(weak()))
        return bound.setdefault(key, (weak, batcher))[1]

    def _self_is_method_of(self, first: Any) -> bool:
        """Say whether ``first`` is an instance or a class that has this as its method.

        Such a call reaches the function itself in two ways: ``Class.method(instance, item)``, and through a
        ``classmethod`` around it, which since Python 3.13 no longer asks the function to bind itself.
        """
        kinds = (*type(first).__mro__, *(first.__mro__ if issubclass(type(first), type) else ()))
        return any(self._self_is_defined_in(kind) for kind in kinds)

    def _self_is_defined_in(self, kind: type) -> bool:
        """Say whether ``kind`` has this, or something around this, among its attributes, or had it when it was made."""
        function = self.__wrapped__
        if (kind.__module__, f"{kind.__qualname__}.{function.__name__}") == (
            function.__module__,
            function.__qualname__,
        ):
            return True
        return any(value is self for value in list(vars(kind).values()))


class BatchedMethod(Batched):
    """A decorated method of one instance, or class method of one class. It keeps the instance alive, as methods do."""

    def __init__(self, function: BatchedFunction, instance: Any) -> None:
        bound = function.__wrapped__.__get__(instance)
        super().__init__(bound, function._self_config, function._self_call_of_method())
        self._self_function = function
        self._self_instance = instance

    # A coroutine keeps the instance alive until it has its answer, though nobody else may do so any more.

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        return self._self_batcher().submit(self._self_call.item(args, kwargs), self._self_instance)

    def map(self, items: Iterable[Any]) -> Any:
        return self._self_batcher().submit_many(items, self._self_instance)

    def acall(self, /, *args: Any, **kwargs: Any) -> Any:
        return self._self_batcher().asubmit(self._self_call.item(args, kwargs), self._self_instance)

    def __deepcopy__(self, memo: dict[int, Any]) -> BatchedMethod:
        return BatchedMethod(self._self_function, copy.deepcopy(self._self_instance, memo))

    @property
    def __func__(self) -> BatchedFunction:
        return self._self_function

    def __reduce__(self) -> Any:
        return getattr, (self._self_instance, self.__wrapped__.__name__)

    def _self_batcher(self) -> Batcher:
        return self._self_function._self_batcher_of(self._self_instance)

    def _self_batchers(self) -> list[Batcher]:
        known = self._self_function._self_bound.get(id(self._self_instance))
        return [] if known is None else [known[1]]

    def _self_closing(self) -> list[Batcher]:
        return self._self_batchers() if self._self_function._self_closed else [self._self_batcher()]


def _no_weak_reference(name: str, kind: str) -> str:
    return f"{name}() needs a weak reference to its {kind}, which has __slots__ without one; add '__weakref__' to them"


def _binds(fn: object) -> bool:
    """Say whether ``fn`` becomes a method when it is looked up through an instance. A bound method stays what it is."""
    return hasattr(type(fn), "__get__") and not isinstance(fn, MethodType)
