"""The batchers of a decorated method, one for each instance.

Decides: when the batcher of an instance is made, and that the batcher of the function is its parent.
Must not know: batches, how an engine works, how a method is found.

Instances are compared by identity and held weakly. Nothing is stored in them.
"""

from __future__ import annotations

import sys
from dataclasses import is_dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, TypeAlias
from weakref import ref

from batchify._batcher.live import register_for_fork
from batchify._decorator.signature import Call
from batchify.errors import BatcherClosedError, closed

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchify._batcher.base import Batcher
    from batchify._batcher.config import Config
    from batchify._batcher.executors import BatchExecutor

    # Makes a batcher from a source of the batch function and the options. A source takes the executor, if there is one.
    MakeBatcher: TypeAlias = Callable[[Callable[..., Callable[..., Any]], Config], Batcher[Any, Any]]


class Instances:
    """The instances, or classes, on which a function was called as a method; ``own`` counts for all of them."""

    def __init__(self, function: Any, config: Config, make_batcher: MakeBatcher, own: Batcher[Any, Any]) -> None:
        self.function = function
        self.make_batcher = make_batcher
        self.config = config
        self._own = own
        # The id of an instance -> a weak reference to it, and its batcher.
        self._known: dict[int, tuple[ref[Any], Batcher[Any, Any]]] = {}
        self.closed = False
        register_for_fork(self)

    @cached_property
    def call(self) -> Call:
        return Call(self.function, self.config.name, bound=True)

    def of(self, instance: Any) -> Batcher[Any, Any]:
        """Return the batcher of ``instance``, made at first use unless all have been closed."""
        known = self._known.get(id(instance))
        return self._make(instance) if known is None else known[1]

    def batchers(self) -> list[Batcher[Any, Any]]:
        return [self._own, *(batcher for _, batcher in list(self._known.values()))]

    def close(self) -> list[Batcher[Any, Any]]:
        """Refuse new instances, and return the batchers to close."""
        self.closed = True
        return self.batchers()

    def open(self) -> list[Batcher[Any, Any]]:
        """Take new instances again, and return the batchers to open."""
        self.closed = False
        return self.batchers()

    def change(self, changes: dict[str, Any]) -> None:
        """Apply validated option changes to all instances, also to later ones."""
        self.config = replace(self.config, **changes)
        for batcher in self.batchers():
            batcher._change(changes)

    def _reset_after_fork(self) -> None:
        self.closed = False

    def _make(self, instance: Any) -> Batcher[Any, Any]:
        if self.closed:
            raise BatcherClosedError(closed(self.config.name))
        known, key = self._known, id(instance)
        try:
            # Without a frame, in which a signal handler could interrupt it: another instance may get the same id.
            weak = ref(instance, partial(known.pop, key))
        except TypeError:
            kind = type(instance).__qualname__
            msg = f"{self.config.name}() needs a weak reference to its {kind}; {_advice(instance)}"
            raise TypeError(msg) from None
        call, function = self.call, self.function

        def source(elsewhere: BatchExecutor | None = None) -> Callable[..., Any]:
            return call.batch(function.__get__(weak()), elsewhere)

        config, lifespan = call.for_items(self.config), self.config.lifespan
        if lifespan is not None:
            config = replace(config, lifespan=lambda: lifespan(weak()))
        batcher = self.make_batcher(source, config)
        batcher._parent = self._own
        batcher = known.setdefault(key, (weak, batcher))[1]
        if self.closed:
            # Another thread has closed the other batchers meanwhile, before this one was known.
            batcher.close()
        return batcher


def _advice(instance: object) -> str:
    """Return how to make the instances of a class weakly referenceable."""
    kind = type(instance)
    if kind.__itemsize__:
        base = next(base for base in kind.__mro__ if base.__itemsize__ and base.__module__ == "builtins")
        return f"subclasses of {base.__name__} have none, so keep the {base.__name__} in an attribute of another class"
    if is_dataclass(kind) and sys.version_info >= (3, 11):
        return "pass weakref_slot=True to its @dataclass"
    return "add '__weakref__' to its __slots__"


class InstanceScope:
    """The batcher of one instance, if it exists."""

    def __init__(self, instances: Instances, instance: Any) -> None:
        self._instances = instances
        self._instance = instance

    def batchers(self) -> list[Batcher[Any, Any]]:
        known = self._instances._known.get(id(self._instance))
        return [] if known is None else [known[1]]

    def close(self) -> list[Batcher[Any, Any]]:
        return self.batchers() if self._instances.closed else [self._instances.of(self._instance)]

    # A new instance remains closed with its class.
    open = close

    def change(self, changes: dict[str, Any]) -> None:
        self._instances.of(self._instance)._change(changes)
