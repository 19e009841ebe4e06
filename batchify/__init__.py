"""Call a batch function one item at a time, and have it run in batches."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

# Public names load on first use, because each program needs only some of them. This module imports no other module of
# the package: if it imported ``errors``, for example, then ``import batchify`` and ``import batchify.errors`` in two
# threads at once could fail on Python 3.13 with "deadlock detected by _ModuleLock".
# Type checkers see plain imports and no ``__getattr__``, which would hide misspelt names from them.
if TYPE_CHECKING:
    from batchify import errors as errors
    from batchify._asyncio.batcher import AsyncMicrobatcher as AsyncMicrobatcher
    from batchify._batcher.current import CurrentBatch as CurrentBatch
    from batchify._batcher.current import current_batch as current_batch
    from batchify._batcher.registry import aclose_all as aclose_all
    from batchify._batcher.registry import adrain_all as adrain_all
    from batchify._batcher.registry import batchers as batchers
    from batchify._batcher.registry import close_all as close_all
    from batchify._batcher.registry import drain_all as drain_all
    from batchify._batcher.report import BatchReport as BatchReport
    from batchify._core.batch import BatchItem as BatchItem
    from batchify._core.outcome import DONE as DONE
    from batchify._core.outcome import Done as Done
    from batchify._decorator.microbatch import microbatch as microbatch
    from batchify._planning.simulation import simulate as simulate
    from batchify._stats.snapshot import BatchStats as BatchStats
    from batchify._stats.snapshot import Percentiles as Percentiles
    from batchify._threads.batcher import SyncMicrobatcher as SyncMicrobatcher
    from batchify.errors import BatchAbortedError as BatchAbortedError
    from batchify.errors import BatcherClosedError as BatcherClosedError
    from batchify.errors import BatchifyError as BatchifyError
    from batchify.errors import BatchResultError as BatchResultError
    from batchify.errors import DeadlineError as DeadlineError
    from batchify.errors import QueueFullError as QueueFullError
    from batchify.errors import ReentrantCallError as ReentrantCallError
else:
    _MODULES = {
        "AsyncMicrobatcher": "_asyncio.batcher",
        "BatchAbortedError": "errors",
        "BatchItem": "_core.batch",
        "BatchReport": "_batcher.report",
        "BatchResultError": "errors",
        "BatchStats": "_stats.snapshot",
        "BatcherClosedError": "errors",
        "BatchifyError": "errors",
        "CurrentBatch": "_batcher.current",
        "DONE": "_core.outcome",
        "DeadlineError": "errors",
        "Done": "_core.outcome",
        "Percentiles": "_stats.snapshot",
        "QueueFullError": "errors",
        "ReentrantCallError": "errors",
        "SyncMicrobatcher": "_threads.batcher",
        "aclose_all": "_batcher.registry",
        "adrain_all": "_batcher.registry",
        "batchers": "_batcher.registry",
        "close_all": "_batcher.registry",
        "current_batch": "_batcher.current",
        "drain_all": "_batcher.registry",
        "microbatch": "_decorator.microbatch",
        "simulate": "_planning.simulation",
    }
    __all__ = list(_MODULES)

    def __getattr__(name: str) -> Any:
        if name == "errors":
            # Tracebacks show it as the module of the exceptions, so it needs no import of its own.
            return import_module("batchify.errors")
        if name not in _MODULES:
            msg = f"module {__name__!r} has no attribute {name!r}"
            raise AttributeError(msg)
        value = getattr(import_module(f"batchify.{_MODULES[name]}"), name)
        # Later accesses find the name without this function.
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return [*globals() | _MODULES]
