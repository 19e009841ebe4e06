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
    Engine: TypeAlias = Callable[[Callable[..., Callable[..., Any]], Config], Batcher]


class Instances:
    """The instances, or classes, on which a function was called as their method.

    Args:
        function: the batch function, not bound.
        config: its options.
        engine: makes a batcher of a source of the batch function and the options.
        parent: the batcher of the function itself, which counts for all instances.
    """

    def __init__(self, function: Any, config: Config, engine: Engine, parent: Batcher) -> None:
        self.function = function
        self._config = config
        self._engine = engine
        self._parent = parent
        self._call: Call | None = None
        # The id of an instance -> a weak reference to it, and its batcher.
        self._known: dict[int, tuple[ref[Any], Batcher]] = {}
        # Whether it is known that a class has the function as its method.
        self.owned = False
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
        return [batcher for _, batcher in list(self._known.values())]

    def change(self, changes: dict[str, Any]) -> None:
        """Apply validated option changes to all instances, those to come included."""
        self._config = replace(self._config, **changes)
        for batcher in self.batchers():
            batcher.change(changes)

    def reset_after_fork(self) -> None:
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

        batcher = self._engine(source, call.for_rows(self._config))
        batcher.parent = self._parent
        batcher = known.setdefault(key, (weak, batcher))[1]
        if self.closed:
            # Another thread closed all others meanwhile, and could not see this one.
            batcher.close()
        return batcher


def _no_weak_reference(name: str, kind: str) -> str:
    return f"{name}() needs a weak reference to its {kind}, which has __slots__ without one; add '__weakref__' to them"
