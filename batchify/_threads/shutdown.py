"""The end of the process: queued items start, and all submitted calls are answered before the workers end.

Decides: when the interpreter drains which batchers.
Must not know: engines, how a batcher drains.
"""

from __future__ import annotations

import atexit
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol
from weakref import WeakSet, ref

if TYPE_CHECKING:
    from batchify._batcher.executors import BatchExecutor


class Drainable(Protocol):
    """A batcher with threads that end with the process."""

    @property
    def _uses_executor(self) -> bool: ...
    def flush(self) -> None: ...
    def stop(self) -> None: ...


# Keyed by itself: a dict of weak references can be copied in one step while other threads add to it.
_batchers: dict[ref[Drainable], None] = {}
# The types of executors before whose end the batchers with an executor are drained.
_executors: WeakSet[type] = WeakSet()


def drain_at_exit(batcher: Drainable) -> None:
    """Drain ``batcher`` before the process ends, if it still exists."""
    _batchers[ref(batcher, lambda gone: _batchers.pop(gone, None))] = None


def drain_before_exit_of(executor: BatchExecutor | None) -> None:
    """Drain the batchers with an executor before executors of this type shut down: after that they take no batch.

    A module of executors registers its exit hook when it is imported, and the interpreter calls the last registered
    hook first. So one hook for each type is enough.
    """
    if executor is not None and executor.type not in _executors:
        _executors.add(executor.type)
        # At the end of the process it is too late, also for the executor.
        with suppress(RuntimeError):
            _register_atexit(_drain_executors)


def _alive() -> list[Drainable]:
    return [batcher for known in list(_batchers) if (batcher := known()) is not None]


def _flush() -> None:
    for batcher in _alive():
        batcher.flush()


def _drain() -> None:
    for batcher in _alive():
        batcher.stop()


def _drain_executors() -> None:
    for batcher in _alive():
        if batcher._uses_executor:
            batcher.stop()


# The interpreter calls this hook before it joins its threads, some of which may be blocked in a call for the length of
# a window. The function is private; concurrent.futures relies on it too.
_register_atexit = getattr(threading, "_register_atexit", atexit.register)
_register_atexit(_flush)
# The interpreter calls this hook when all other threads have ended, and before it stops daemons.
atexit.register(_drain)
