"""Decorated functions and methods, and how one finds its batcher.

Decides: which batcher a call belongs to, that of the function or that of the instance the method is bound to.
Must not know: batches, how an engine works, what is offered beside calls.
"""

from __future__ import annotations

import copy
from functools import partial
from types import MethodType
from typing import TYPE_CHECKING, Any

from batchify._batcher.functions import METHOD_KINDS, name_of
from batchify._decorator.instances import Instances
from batchify._decorator.proxy import Batched
from batchify._decorator.signature import Call

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchify._batcher.config import Config
    from batchify._batcher.registry import Batcher
    from batchify._decorator.instances import Engine


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
        call = Call(function, config.name)
        batcher = engine(partial(call.batch, function), call.for_rows(config))
        instances = Instances(function, config, engine, batcher)
        ways = [call.one(batcher.submit), call.one(batcher.put), call.one(batcher.asubmit)]
        if len(call.columns) > 1 and self_kind is not staticmethod:
            # There is room for an instance.
            ways = [partial(_either, *both, instances) for both in zip(ways, _BOUND_WAYS, strict=True)]
        super().__init__(function, config, call, *ways)
        self._self_kind = self_kind
        self._self_engine = engine
        self._self_own = batcher
        self._self_instances = instances
        instances.owned = _is_in_class(function)
        if self_kind is classmethod:
            # What is wrong with it is said at decoration.
            _ = instances.call

    def __set_name__(self, owner: type, name: str) -> None:
        self._self_instances.owned = True

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        self._self_instances.owned = True
        if self._self_kind is classmethod:
            return BatchedMethod(self, type(instance) if owner is None else owner)
        if instance is None or self._self_kind is staticmethod or not _binds(self.__wrapped__):
            return self
        return BatchedMethod(self, instance)

    @property
    def __func__(self) -> BatchedFunction:
        """What a decorated bound method is bound from, decorated alike; ``inspect`` looks there for its signature."""
        return BatchedFunction(self.__wrapped__.__func__, self._self_config, self._self_engine)

    def __reduce__(self) -> str:
        return name_of(self.__wrapped__)

    def _self_batcher(self) -> Batcher:
        return self._self_own

    def _self_batchers(self) -> list[Batcher]:
        return [self._self_own, *self._self_instances.batchers()]

    def _self_closing(self) -> list[Batcher]:
        self._self_instances.closed = True
        return self._self_batchers()

    def _self_change(self, changes: dict[str, Any]) -> None:
        self._self_own.change(changes)
        self._self_instances.change(changes)


class BatchedMethod(Batched):
    """A decorated method of one instance, or class method of one class. It keeps the instance alive, as methods do."""

    def __init__(self, function: BatchedFunction, instance: Any) -> None:
        instances, call = function._self_instances, function._self_instances.call
        ways = [call.one(partial(way, instances, instance)) for way in _BOUND_WAYS]
        super().__init__(function.__wrapped__.__get__(instance), function._self_config, call, *ways)
        self._self_function = function
        self._self_instance = instance

    def _self_keep(self) -> object:
        return self._self_instance

    def __deepcopy__(self, memo: dict[int, Any]) -> BatchedMethod:
        return BatchedMethod(self._self_function, copy.deepcopy(self._self_instance, memo))

    @property
    def __func__(self) -> BatchedFunction:
        return self._self_function

    def __reduce__(self) -> Any:
        return getattr, (self._self_instance, self.__wrapped__.__name__)

    def _self_batcher(self) -> Batcher:
        return self._self_function._self_instances.of(self._self_instance)

    def _self_batchers(self) -> list[Batcher]:
        return self._self_function._self_instances.known(self._self_instance)

    def _self_closing(self) -> list[Batcher]:
        return self._self_batchers() if self._self_function._self_instances.closed else [self._self_batcher()]

    def _self_change(self, changes: dict[str, Any]) -> None:
        self._self_batcher().change(changes)


# The ways to call a method, by the row of a call. A coroutine keeps the instance alive until it has its answer, though
# nobody else may do so any more.
_BOUND_WAYS: list[Callable[[Instances, Any, Any], Any]] = [
    lambda instances, instance, row: instances.of(instance).submit(row, instance),
    lambda instances, instance, row: instances.of(instance).put(row),
    lambda instances, instance, row: instances.of(instance).asubmit(row, instance),
]


def _either(
    one: Callable[..., Any],
    bound: Callable[[Instances, Any, Any], Any],
    instances: Instances,
    /,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """Call the method of the first argument if this is one of its methods, else the function itself.

    A method is called so in two ways: ``Class.method(instance, item)``, and through a ``classmethod`` around it, which
    since Python 3.13 no longer asks the function to bind itself.
    """
    if instances.owned and args and _is_method_of(args[0], instances):
        instance, *rest = args
        return instances.call.one(partial(bound, instances, instance))(*rest, **kwargs)
    return one(*args, **kwargs)


def _is_method_of(first: Any, instances: Instances) -> bool:
    """Say whether ``first`` is an instance or a class that has this function as its method."""
    kinds = (*type(first).__mro__, *(first.__mro__ if issubclass(type(first), type) else ()))
    return any(_is_defined_in(kind, instances) for kind in kinds)


def _is_defined_in(kind: type, instances: Instances) -> bool:
    """Say whether ``kind`` has it, or something around it, among its attributes, or had it when it was made."""
    function = instances.function
    if isinstance(vars(kind).get(function.__name__), staticmethod):
        return False
    if (kind.__module__, f"{kind.__qualname__}.{function.__name__}") == (function.__module__, function.__qualname__):
        return True
    return any(
        issubclass(type(value), BatchedFunction) and value._self_instances is instances
        for value in list(vars(kind).values())
    )


def _is_in_class(fn: object) -> bool:
    """Say whether ``fn`` was defined in the body of a class, by its qualified name."""
    where = name_of(fn).rpartition(".")[0]
    return bool(where) and not where.endswith("<locals>")


def _binds(fn: object) -> bool:
    """Say whether ``fn`` becomes a method when it is looked up through an instance. A bound method stays what it is."""
    return hasattr(type(fn), "__get__") and not isinstance(fn, MethodType)
