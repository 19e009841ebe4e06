"""The end of the process: queued items start, and all submitted calls are answered before the workers end.

Decides: when the interpreter drains which batchers.
Must not know: engines, how a batcher drains.
"""

from __future__ import annotations

import atexit
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from batchify._batcher.registry import batchers

if TYPE_CHECKING:
    from batchify._batcher.base import Batcher
    from batchify._batcher.executors import BatchExecutor


# The types of executors whose shutdown first drains the batchers with an executor.
_executors: WeakSet[type] = WeakSet()


def drain_before_exit_of(executor: BatchExecutor | None) -> None:
    """Drain the batchers with an executor before executors of this type shut down and refuse batches."""
    # A module of executors registers its exit hook at import, and the interpreter calls the last hook first. One hook
    # for each type is therefore enough.
    if executor is not None and executor.type not in _executors:
        _executors.add(executor.type)
        # During the exit of the process it is too late, also for the executor.
        with suppress(RuntimeError):
            _register_atexit(_drain_executors)


def _alive() -> list[Batcher[Any, Any]]:
    return [batcher for batcher in batchers() if batcher._drains_at_exit]


def _flush() -> None:
    for batcher in _alive():
        batcher.flush()
    # A child of multiprocessing ends without the hooks of atexit. Its other threads may still make calls.
    process = sys.modules.get("multiprocessing.process")
    if process is not None and process.parent_process() is not None:
        for batcher in _alive():
            batcher._drain()


def _close() -> None:
    for batcher in _alive():
        batcher.close()


# Other threads may still make calls at this point, so this does not close.
def _drain_executors() -> None:
    for batcher in _alive():
        if batcher._config.executor is not None:
            batcher._drain()


# The interpreter calls this hook before it joins its threads, some of which may be blocked in a call for the length of
# a window. The function is private; concurrent.futures relies on it too.
_register_atexit = getattr(threading, "_register_atexit", atexit.register)
_register_atexit(_flush)
# The interpreter calls this hook when all other threads have ended, and before it stops daemons.
atexit.register(_close)
