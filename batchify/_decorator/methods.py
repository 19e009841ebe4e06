"""Decorated functions and methods: how Python binds them, and which batcher a call belongs to.

Decides: whether a call belongs to the function itself, or to an instance or a class.
Must not know: batches, how a batcher works, which other members a decorated function has.
"""

from __future__ import annotations

import copy
import inspect
from functools import partial
from types import MethodType
from typing import TYPE_CHECKING, Any, NoReturn

from batchify._batcher.functions import METHOD_KINDS, name_of
from batchify._decorator.instances import Instances, InstanceScope
from batchify._decorator.proxy import Batched, BatchedView
from batchify._decorator.routes import Route, ways
from batchify._decorator.signature import Call

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchify._batcher.config import Config
    from batchify._decorator.instances import MakeBatcher
    from batchify._decorator.routes import RequestRoute, Ways


class BatchedFunction(Batched):
    """A decorated function, class method or static method; in the body of a class, it is not bound yet."""

    def __init__(self, fn: Any, config: Config, make_batcher: MakeBatcher) -> None:
        kind: type | None = type(fn) if isinstance(fn, METHOD_KINDS) else None  # pyright: ignore[reportUnknownVariableType]  # the type of anything
        function = fn if kind is None else fn.__func__
        call = Call(function, config.name)
        batcher = make_batcher(partial(call.batch, function), call.for_items(config))
        scope = Instances(function, config, make_batcher, batcher)
        route = Route(lambda: batcher)
        # Plain calls take no route, because there is nothing to find.
        self_ways = ways(call, batcher, route)
        if kind is None and len(call.columns) > 1 and _is_in_class(function):
            self_ways = tuple(
                partial(_passed_on, self, name, way) for name, way in zip(Batched.__slots__, self_ways, strict=True)
            )
        super().__init__(function, config, call, scope, route, self_ways)
        self._self_instances = scope
        self._self_kind = kind
        self._self_unbound: UnboundMethod | None = None
        if kind is classmethod:
            # Raise an error in its signature at decoration, not at the first call.
            _ = scope.call

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if self._self_kind is classmethod:
            return BatchedMethod(self, type(instance) if owner is None else owner)
        if self._self_kind is staticmethod or not _binds(self.__wrapped__):
            return self
        if instance is not None:
            return BatchedMethod(self, instance)
        if self._self_unbound is None:
            # One object, because pickle compares identities.
            self._self_unbound = UnboundMethod(self)
        return self._self_unbound

    @property
    def __func__(self) -> BatchedFunction:
        """The function of a decorated bound method, with the same options; ``inspect`` reads its signature."""
        return BatchedFunction(self.__wrapped__.__func__, self._self_config, self._self_instances.make_batcher)

    def __deepcopy__(self, memo: dict[int, Any]) -> BatchedFunction:
        # As Python does: a function is its own copy, and a bound method is copied with its instance.
        fn, instances = self.__wrapped__, self._self_instances
        if isinstance(fn, MethodType):
            copied = copy.deepcopy(fn, memo)
            if copied.__self__ is not fn.__self__:
                return BatchedFunction(copied, instances.config, instances.make_batcher)
        return self


class UnboundMethod(Batched):
    """A decorated method as an attribute of its class: a call passes the instance first."""

    def __init__(self, function: BatchedFunction) -> None:
        fn, config, scope = function.__wrapped__, function._self_config, function._self_scope
        route, bound = Route(partial(_refuse, config.name)), _bound_ways(partial(BatchedMethod, function))
        super().__init__(fn, config, function._self_call, scope, route, bound)
        self._self_function = function

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self._self_function.__get__(instance, owner)

    def _self_ways(self, route: RequestRoute) -> Ways:
        urgency = route.priority, route.time_limit
        return _bound_ways(lambda instance: BatchedView(BatchedMethod(self._self_function, instance), *urgency))


class BatchedMethod(Batched):
    """A decorated method of an instance, or class method of a class. It keeps the instance alive, as methods do."""

    def __init__(self, function: BatchedFunction, instance: Any) -> None:
        instances = function._self_instances
        route = Route(partial(instances.of, instance), instance)
        fn, scope = function.__wrapped__.__get__(instance), InstanceScope(instances, instance)
        super().__init__(fn, function._self_config, instances.call, scope, route, ways(instances.call, route, route))
        self._self_function = function
        self._self_instance = instance

    @property
    def __func__(self) -> Batched:
        function = self._self_function
        return function if function._self_kind is classmethod else function.__get__(None)

    def __deepcopy__(self, memo: dict[int, Any]) -> BatchedMethod:
        return BatchedMethod(self._self_function, copy.deepcopy(self._self_instance, memo))

    def __reduce_ex__(self, _: object) -> Any:
        return getattr, (self._self_instance, self.__wrapped__.__name__)


def _bound_ways(bind: Callable[[Any], Batched]) -> Ways:
    return tuple(partial(_call_bound, bind, name) for name in Batched.__slots__)


def _call_bound(bind: Callable[[Any], Batched], name: str, instance: Any, /, *args: Any, **kwargs: Any) -> Any:
    return getattr(bind(instance), name)(*args, **kwargs)


def _refuse(name: str) -> NoReturn:
    msg = f"{name}() is a method, so map() and imap() need an instance: instance.{name.rpartition('.')[2]}.map(items)"
    raise TypeError(msg)


def _passed_on(function: BatchedFunction, name: str, way: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Call a method whose decorator, or ``classmethod`` from Python 3.13 on, passes the instance as an argument."""
    if args and _has_as_method(args[0], function.__wrapped__.__name__):
        return _call_bound(partial(BatchedMethod, function), name, *args, **kwargs)
    return way(*args, **kwargs)


def _has_as_method(first: Any, name: str) -> bool:
    """Return whether ``first`` is an object or a class with a method of this name, other than a static method."""
    owner: Any = first if issubclass(type(first), type) else type(first)  # pyright: ignore[reportUnknownVariableType]
    held = inspect.getattr_static(owner, name, None)
    return held is not None and not isinstance(held, staticmethod)


def _is_in_class(fn: object) -> bool:
    where = name_of(fn).rpartition(".")[0]
    return bool(where) and not where.endswith("<locals>")


def _binds(fn: object) -> bool:
    """Return whether ``fn`` becomes a method as an attribute of an instance. A bound method does not."""
    return hasattr(type(fn), "__get__") and not isinstance(fn, MethodType)
