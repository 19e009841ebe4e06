"""Batches that run in an executor of the user: in its threads, its processes or its machines.

Decides: the form in which a call of a batch function is sent, and the error if the executor cannot run it.
Must not know: engines, the queue, the kinds of executors.

1. An executor gets a call without arguments, which runs the batch function in the context of its batch.
2. The batch starts when the executor runs this call, or pickles it. Until then, tasks may leave and deadlines pass, and
   their items are dropped.
3. Another process imports the batch function by its name, which must be importable there. Pickle alone cannot do that,
   because the name stands for the decorated function. So the other process unwraps the object that it finds.
4. Items never appear in a representation of a call, because an executor may log it.
"""

from __future__ import annotations

import sys
from concurrent.futures import CancelledError
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from operator import attrgetter
from os import getpid
from threading import RLock
from types import MethodType
from typing import TYPE_CHECKING, Any, cast

from batchify._batcher.current import current, portable, run_remote
from batchify.errors import BatchAbortedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Executor, Future

    from typing_extensions import Self

    from batchify._batcher.current import CurrentBatch
    from batchify._core.batch import Batch

    # Returns the positional and the keyword arguments for a list of items.
    Arguments = Callable[[list[Any]], tuple[Iterable[Any], dict[str, Any]]]


class BatchExecutor:
    """An executor for batches, and the process that it belongs to."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._process = getpid()

    @property
    def type(self) -> type[Executor]:
        return type(self._executor)

    @property
    def kind(self) -> str:
        return self.type.__name__

    def send(self, call: LocalCall) -> Future[Any]:
        # In the child of a fork, the executor would never answer.
        if getpid() != self._process:
            msg = (
                f"the {self.kind} belongs to the process that this one was forked from, and runs nothing here; pass a "
                f"new one: configure(executor=...)"
            )
            raise RuntimeError(msg)
        return self._executor.submit(call)

    def outcome(self, future: Future[Any]) -> Any:
        try:
            return future.result()
        except CancelledError:
            if not future.cancelled():
                raise
            msg = f"the {self.kind} was shut down before the batch was done; close the batcher before its executor"
            raise BatchAbortedError(msg) from None


def only_items(items: list[Any]) -> tuple[Iterable[Any], dict[str, Any]]:
    return (items,), {}


def run_in(
    fn: Callable[..., Any], executor: BatchExecutor | None, arguments: Arguments = only_items
) -> Callable[..., Any]:
    """Return a function that runs the current batch in ``executor`` and waits for its value; without one, ``fn``."""
    if executor is None:
        return fn

    def run(_: list[Any]) -> Any:
        with LocalCall(fn, cast("Batch", current()), arguments) as call:
            return executor.outcome(executor.send(call))

    return run


class LocalCall:
    """A call of a batch function that an executor runs in this process. It is pickled as a ``RemoteCall``.

    The items are hidden from the executor: Dask, for one, takes some keyword arguments, and searches lists for its
    futures.
    """

    __slots__ = ("__name__", "_arguments", "_context", "_fn", "_part", "has_started", "lock")

    def __init__(self, fn: Callable[..., Any], part: Batch, arguments: Arguments = only_items) -> None:
        self._fn = fn
        self._part = part
        self._arguments = arguments
        self._context = copy_context()
        # An executor may show this name.
        self.__name__: str = getattr(fn, "__name__", type(fn).__name__)
        # Guards the change from an item that can be dropped to one that runs.
        self.lock = RLock()
        self.has_started = False
        part.call = self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # The executor may have failed without this. From now on, no caller may leave before it gets the error.
        self.start()

    def start(self) -> list[Any]:
        """Mark the batch as started, and return its items."""
        with self.lock:
            self.has_started = True
        return self._part.given or self._part.items

    def __call__(self) -> Any:
        items = self.start()
        if not items:
            return []
        args, kwargs = self._arguments(items)
        return self._context.run(self._fn, *args, **kwargs)

    def __reduce__(self) -> Any:
        items = self.start()
        if not items:
            return partial, (list,)
        return RemoteCall, (*_reference(self._fn), self._context.run(portable), *self._arguments(items))


@dataclass(frozen=True, repr=False)
class RemoteCall:
    """A call of a batch function that an executor runs in another process."""

    owner: Any
    name: str
    batch: CurrentBatch | None
    args: Iterable[Any]
    kwargs: dict[str, Any]

    def __call__(self) -> Any:
        return run_remote(self.batch, self._function(), *self.args, **self.kwargs)

    def _function(self) -> Callable[..., Any]:
        # Found only now: the call may be unpickled in processes that lack the function, such as a cluster's scheduler.
        found, cause = self.owner, None
        if not self.name:
            return found  # type: ignore[no-any-return]  # without a name, it is the function
        if isinstance(found, str):
            try:
                found = import_module(found)
            except ImportError as error:
                cause = error
        fn: Callable[..., Any] | None = _unwrapped(found, self.name)
        if fn is None:
            where = self.owner if isinstance(self.owner, str) else type(self.owner).__qualname__
            msg = (
                f"the process that runs the batch finds no decorated function {self.name} in {where}; define it in a "
                f"module that can be imported there"
            )
            raise RuntimeError(msg) from cause
        return fn


def _reference(fn: Any) -> tuple[Any, str]:
    """Return the owner of ``fn``, an object or the name of a module, and its name there; or ``fn`` and no name."""
    if isinstance(fn, MethodType):
        instance, name = fn.__self__, fn.__func__.__name__
        return (instance, name) if _unwrapped(instance, name) == fn else (fn, "")
    module, name = getattr(fn, "__module__", None), getattr(fn, "__qualname__", "")
    found = sys.modules.get(module) if isinstance(module, str) else None
    return (module, name) if found is not None and _unwrapped(found, name) is fn else (fn, "")


def _unwrapped(owner: Any, name: str) -> Any:
    try:
        return attrgetter(name)(owner).__wrapped__
    except AttributeError:
        return None
