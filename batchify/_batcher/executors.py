"""Batches that run in an executor: in threads, processes or machines that are somebody else's.

Decides: what is sent there, and what is said of an executor that cannot run it.
Must not know: engines, batches, what an executor does with what it gets.

A decorated function cannot be pickled as functions are, by its name: that stands for what decorating has made of it.
So its name is what travels, and what is found by it on the other side is unwrapped there. It must be importable in the
other process, as the functions that any pool of processes runs.
"""

from __future__ import annotations

import sys
from concurrent.futures import CancelledError
from contextvars import copy_context
from dataclasses import dataclass
from importlib import import_module
from operator import attrgetter
from os import getpid
from types import MethodType
from typing import TYPE_CHECKING, Any

from batchify._batcher.current import portable, run_remote
from batchify.errors import BatchAbortedError

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor, Future

    from batchify._batcher.current import CurrentBatch


class BatchExecutor:
    """An executor that batches are to run in, and the process that it belongs to."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._process = getpid()

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, BatchExecutor) and self._executor is other._executor and self._process == other._process
        )

    def __hash__(self) -> int:
        return hash((id(self._executor), self._process))

    @property
    def type(self) -> type[Executor]:
        """The type of the executor."""
        return type(self._executor)

    @property
    def kind(self) -> str:
        """The name of that type."""
        return self.type.__name__

    def send(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Future[Any]:
        """Let the executor call ``fn``.

        Raises:
            RuntimeError: it belongs to the process that this one was forked from. Its threads are there, and it would
                never answer.
        """
        if getpid() != self._process:
            msg = (
                f"the {self.kind} was made before this process was forked, and runs nothing here; give a new one: "
                f"configure(executor=...)"
            )
            raise RuntimeError(msg)
        return self._executor.submit(LocalCall(fn, args, kwargs))

    def outcome(self, future: Future[Any]) -> Any:
        """Return what came of what was sent, when it is done.

        Raises:
            BatchAbortedError: the executor was shut, and has given it up.
            BaseException: whatever the function raised, or the executor: ``BrokenExecutor`` if it died.
        """
        try:
            return future.result()
        except CancelledError:
            if not future.cancelled():
                raise
            msg = f"the {self.kind} was shut down before the batch was done"
            raise BatchAbortedError(msg) from None

    def runs(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that calls ``fn`` there and waits for what comes of it."""

        def run(*args: Any, **kwargs: Any) -> Any:
            return self.outcome(self.send(fn, *args, **kwargs))

        return run


def run_in(fn: Callable[..., Any], elsewhere: BatchExecutor | None) -> Callable[..., Any]:
    """Return ``fn``, as it is run where it is to run."""
    return fn if elsewhere is None else elsewhere.runs(fn)


class LocalCall:
    """A call of a batch function on its way: in this process it runs in the batch's context, in another one by name.

    Its arguments are inside of it, out of sight of an executor that has options of its own among them, or looks into
    lists for what it knows, as Dask does both.
    """

    __slots__ = ("__name__", "_args", "_context", "_fn", "_kwargs")

    def __init__(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._fn = fn
        self._args = args
        self._kwargs = kwargs
        self._context = copy_context()
        # Under this name it is shown by an executor that shows anything.
        self.__name__: str = getattr(fn, "__name__", type(fn).__name__)

    def __call__(self) -> Any:
        return self._context.run(self._fn, *self._args, **self._kwargs)

    def __reduce__(self) -> Any:
        return RemoteCall, (*_reference(self._fn), self._context.run(portable), self._args, self._kwargs)


# What carries it there may log it, and items are nobody's business.
@dataclass(frozen=True, repr=False)
class RemoteCall:
    """A job in another process. It looks for its function when it is called, and not when it is unpickled.

    On its way it may pass through processes that do not have the function, such as the scheduler of a cluster.
    """

    owner: Any
    name: str
    batch: CurrentBatch | None
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def __call__(self) -> Any:
        return run_remote(self.batch, self._function(), *self.args, **self.kwargs)

    def _function(self) -> Callable[..., Any]:
        """Return the function that was sent.

        Raises:
            RuntimeError: it is not there.
        """
        found, cause = self.owner, None
        if not self.name:
            return found  # type: ignore[no-any-return]  # what was sent without a name is the function
        if isinstance(found, str):
            try:
                found = import_module(found)
            except ImportError as error:
                cause = error
        fn: Callable[..., Any] | None = _unwrapped(found, self.name)
        if fn is None:
            where = self.owner if isinstance(self.owner, str) else type(self.owner).__qualname__
            msg = (
                f"no decorated function {self.name} in {where}, in the process that is to run it; put it in a module "
                f"that can be imported there"
            )
            raise RuntimeError(msg) from cause
        return fn


def _reference(fn: Any) -> tuple[Any, str]:
    """Return what stands for ``fn`` in another process: an object or the name of a module, and what to take of it.

    Whatever its own name does not stand for a decoration of is sent as it is.
    """
    if isinstance(fn, MethodType):
        instance, name = fn.__self__, fn.__func__.__name__
        return (instance, name) if _unwrapped(instance, name) == fn else (fn, "")
    module, name = getattr(fn, "__module__", None), getattr(fn, "__qualname__", "")
    found = sys.modules.get(module) if isinstance(module, str) else None
    return (module, name) if found is not None and _unwrapped(found, name) is fn else (fn, "")


def _unwrapped(owner: Any, name: str) -> Any:
    """Return the batch function of what is decorated and called ``name``, ``None`` if there is nothing of the kind."""
    try:
        return attrgetter(name)(owner).__wrapped__
    except AttributeError:
        return None
