"""The batchers of a decorated method, one for each instance.

Decides: when the batcher of an instance is made, and that its counters have those of the function as their parent.
Must not know: batches, how an engine works, how a method is found.

An instance is known by identity and held weakly. Nothing is stored in it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias
from weakref import ref

from batchify._batcher.registry import register_for_fork
from batchify._decorator.signature import Call
from batchify.errors import BatcherClosedError, closed

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchify._batcher.config import Config
    from batchify._batcher.executors import BatchExecutor
    from batchify._batcher.registry import Batcher

    # Makes a batcher of the options and a source of the batch function. The source may be given an executor to run it.
    MakeBatcher: TypeAlias = Callable[[Callable[..., Callable[..., Any]], Config], Batcher]


class Instances:
    """The instances, or classes, on which a function was called as their method.

    Args:
        function: the batch function, not bound.
        config: its options.
        engine: makes a batcher of a source of the batch function and the options.
        parent: the batcher of the function itself, which counts for all instances.
    """

    def __init__(self, function: Any, config: Config, make_batcher: MakeBatcher, own: Batcher) -> None:
        self.function = function
        self.make_batcher = make_batcher
        self._config = config
        self._own = own
        self._call: Call | None = None
        # The id of an instance -> a weak reference to it, and its batcher.
        self._known: dict[int, tuple[ref[Any], Batcher]] = {}
        self.closed = False
        register_for_fork(self)

    @property
    def call(self) -> Call:
        """The one-item form of the method."""
        if self._call is None:
            self._call = Call(self.function, self._config.name, bound=True)
        return self._call

    def of(self, instance: Any) -> Batcher:
        """Return the batcher of ``instance``, made at first use.

        Raises:
            BatcherClosedError: it has none, and all have been closed.
            TypeError: the instance does not support weak references.
        """
        known = self._known.get(id(instance))
        return self._make(instance) if known is None else known[1]

    def known(self, instance: Any) -> list[Batcher]:
        """Return the batcher of ``instance``, if it has one."""
        known = self._known.get(id(instance))
        return [] if known is None else [known[1]]

    def batchers(self) -> list[Batcher]:
        """Return the batchers that exist."""
        return [self._own, *(batcher for _, batcher in list(self._known.values()))]

    def close(self) -> list[Batcher]:
        """Make no batcher any more, and return those to close."""
        self.closed = True
        return self.batchers()

    def change(self, changes: dict[str, Any]) -> None:
        """Apply validated option changes to all instances, those to come included."""
        self._config = replace(self._config, **changes)
        for batcher in self.batchers():
            batcher._change(changes)

    def _reset_after_fork(self) -> None:
        """Accept calls on new instances again."""
        self.closed = False

    def _make(self, instance: Any) -> Batcher:
        if self.closed:
            raise BatcherClosedError(closed(self._config.name))
        known, key = self._known, id(instance)
        try:
            weak = ref(instance, lambda _: known.pop(key))
        except TypeError:
            raise TypeError(_no_weak_reference(self._config.name, type(instance).__qualname__)) from None
        call, function = self.call, self.function

        def source(elsewhere: BatchExecutor | None = None) -> Callable[..., Any]:
            return call.batch(function.__get__(weak()), elsewhere)

        batcher = self.make_batcher(source, call.for_items(self._config))
        batcher._parent = self._own
        batcher = known.setdefault(key, (weak, batcher))[1]
        if self.closed:
            # Another thread closed all others meanwhile, and could not see this one.
            batcher.close()
        return batcher


class InstanceScope:
    """The batcher of one instance, if there is one."""

    def __init__(self, instances: Instances, instance: Any) -> None:
        self._instances = instances
        self._instance = instance

    def batchers(self) -> list[Batcher]:
        return self._instances.known(self._instance)

    def close(self) -> list[Batcher]:
        return self.batchers() if self._instances.closed else [self._instances.of(self._instance)]

    def change(self, changes: dict[str, Any]) -> None:
        self._instances.of(self._instance)._change(changes)


def _no_weak_reference(name: str, kind: str) -> str:
    return f"{name}() needs a weak reference to its {kind}, which has __slots__ without one; add '__weakref__' to them"
