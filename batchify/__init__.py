"""Call a batch function one item at a time, and have it run in batches."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from batchify._batcher.current import CurrentBatch, current_batch
from batchify._batcher.registry import aclose_all, batchers, close_all
from batchify._batcher.report import BatchReport
from batchify._core.batch import BatchItem
from batchify._core.outcome import DONE, Done
from batchify._decorator.microbatch import microbatch
from batchify._stats.snapshot import BatchStats, Percentiles
from batchify._threads.batcher import SyncMicrobatcher
from batchify.errors import (
    BatchAbortedError,
    BatcherClosedError,
    BatchifyError,
    BatchResultError,
    DeadlineError,
    QueueFullError,
    ReentrantCallError,
)

if TYPE_CHECKING:
    from batchify._asyncio.batcher import AsyncMicrobatcher
    from batchify._planning.simulation import simulate

__version__ = "0.1.0"

__all__ = [
    "DONE",
    "AsyncMicrobatcher",
    "BatchAbortedError",
    "BatchItem",
    "BatchReport",
    "BatchResultError",
    "BatchStats",
    "BatcherClosedError",
    "BatchifyError",
    "CurrentBatch",
    "DeadlineError",
    "Done",
    "Percentiles",
    "QueueFullError",
    "ReentrantCallError",
    "SyncMicrobatcher",
    "aclose_all",
    "batchers",
    "close_all",
    "current_batch",
    "microbatch",
    "simulate",
]


# Most programs need neither the simulator nor both engines, and asyncio is half of the time of an import.
_IMPORTED_ON_USE = {"AsyncMicrobatcher": "_asyncio.batcher", "simulate": "_planning.simulation"}


def __getattr__(name: str) -> Any:
    if name in _IMPORTED_ON_USE:
        return getattr(import_module(f"batchify.{_IMPORTED_ON_USE[name]}"), name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
