"""The batchers of a decorated method, one for each instance.

Decides: when the batcher of an instance is made, and what of it outlives the instance: its numbers.
Must not know: batches, how an engine works, how a method is found.

An instance is known by identity and held weakly, and nothing is stored in it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias
from weakref import ref

from batchify._batcher.registry import keep
from batchify._decorator.signature import Call
from batchify._stats.counters import Stats, fold
from batchify.errors import BatcherClosedError, closed

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchify._batcher.config import Config
    from batchify._batcher.executors import BatchExecutor
    from batchify._batcher.registry import Batcher

    # Of where the batch function comes from, and the options. It is asked for one that runs in an executor, or not.
    MakeBatcher: TypeAlias = Callable[[Callable[..., Callable[..., Any]], Config], Batcher]


class Instances:
    """The instances, or classes, that a function was called on as their method.

    Args:
        function: the batch function, not bound.
        config: its options.
        engine: makes a batcher of a source of the batch function and the options.
    """

    def __init__(self, function: Any, config: Config, make_batcher: MakeBatcher, own: Batcher) -> None:
        self.function = function
        self.make_batcher = make_batcher
        self._config = config
        self._own = own
        self._call: Call | None = None
        # The id of an instance -> a weak reference to it, and its batcher.
        self._known: dict[int, tuple[ref[Any], Batcher]] = {}
        # What batchers counted whose instances are gone.
        self._past: list[Stats] = []
        self.closed = False

    @property
    def name(self) -> str:
        """The name of all the batchers."""
        return self._config.name

    @property
    def call(self) -> Call:
        """The one-item form of the method."""
        if self._call is None:
            self._call = Call(self.function, self._config.name, bound=True)
        return self._call

    def of(self, instance: Any) -> Batcher:
        """Return the batcher of ``instance``, made now if need be.

        Raises:
            BatcherClosedError: there is none, and all have been closed.
            TypeError: the instance cannot be held weakly.
        """
        known = self._known.get(id(instance))
        return self._make(instance) if known is None else known[1]

    def known(self, instance: Any) -> list[Batcher]:
        """Return the batcher of ``instance``, if there is one."""
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
        """Go by other options, which are valid, from now on, for all instances there are and all that come."""
        self._config = replace(self._config, **changes)
        for batcher in self.batchers():
            batcher._change(changes)

    def _parts(self) -> list[Stats]:
        """Return the counters of all batchers, those included whose instances are gone."""
        # An instance may go at any moment, and with it its counters from here to there. For as long as its batcher is
        # known they stand here, or in both places; if it is not any more, they may have been added to others there.
        while True:
            batchers = self.batchers()
            present = [part for batcher in batchers for part in batcher._parts()]
            past = list(self._past)
            known = {id(batcher) for batcher in self.batchers()}
            if all(id(batcher) in known for batcher in batchers):
                return list({id(part): part for part in (*present, *past)}.values())

    def reset_after_fork(self) -> None:
        """Begin from nothing but the instances there are. The child of a fork needs it."""
        # In place: the weak references of instances hold on to it.
        self._past.clear()
        self.closed = False

    def _make(self, instance: Any) -> Batcher:
        if self.closed:
            raise BatcherClosedError(closed(self._config.name))
        bound, past, key = self._known, self._past, id(instance)

        def forget(_: object) -> None:
            parts = bound[key][1]._parts()
            past.extend(parts)
            del bound[key]
            for part in parts:
                part.final = True
            fold(past)

        try:
            weak = ref(instance, forget)
        except TypeError:
            raise TypeError(_no_weak_reference(self._config.name, type(instance).__qualname__)) from None
        call, function = self.call, self.function

        def source(elsewhere: BatchExecutor | None = None) -> Callable[..., Any]:
            return call.batch(function.__get__(weak()), elsewhere)

        batcher = self.make_batcher(source, call.for_items(self._config))
        keep(self, batcher)
        batcher = bound.setdefault(key, (weak, batcher))[1]
        if self.closed:
            # That came in between, and could not see it.
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

    def _parts(self) -> list[Stats]:
        return [part for batcher in self.batchers() for part in batcher._parts()]


def _no_weak_reference(name: str, kind: str) -> str:
    return f"{name}() needs a weak reference to its {kind}, which has __slots__ without one; add '__weakref__' to them"
