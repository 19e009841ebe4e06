"""What is told of one batch when it is over.

Must not know: engines.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from threading import current_thread
from typing import TYPE_CHECKING

from batchify._core.outcome import is_error

if TYPE_CHECKING:
    from batchify._batcher.config import Config
    from batchify._core.batch import Batch

log = logging.getLogger("batchify")


@dataclass(frozen=True)
class BatchReport:
    """One batch that is over. Times are in milliseconds.

    Attributes:
        name: the batcher's name.
        size: how many items the batch function got.
        weight: the sum of their weights; 0 if they are not weighed.
        reason: why the batch left, as in ``BatchStats.reasons``.
        wait_ms: for each caller, in order of arrival, the time from the call to the departure of the batch.
        run_ms: the time from the departure to the last answer.
        error: what ended the batch for all its callers; ``None`` if each had an answer of its own.
        thread: the name of the thread that ran the batch function, or that of the event loop; if an executor ran it,
            that of the thread that waited for it.
        executor: the name of the type of that executor, ``None`` without one.
    """

    name: str
    size: int
    weight: float
    reason: str
    wait_ms: tuple[float, ...]
    run_ms: float
    error: BaseException | None
    thread: str
    executor: str | None = None


def report(config: Config, batch: Batch, run_time: float, error: BaseException | None, *, on_loop: bool) -> None:
    """Call the hook of a batcher, if it has one, for a batch that took ``run_time`` seconds.

    Raises:
        BaseException: what the hook raises to end the program, if that is for an event loop to see. A worker lives on.
    """
    if config.on_batch is None:
        return
    told = BatchReport(
        name=config.name,
        size=batch.size,
        weight=batch.weight,
        reason=batch.reason,
        wait_ms=tuple(1000 * (batch.departed - arrived) for arrived in sorted(batch.arrived)),
        run_ms=1000 * run_time,
        error=error,
        thread=current_thread().name,
        executor=None if config.executor is None else config.executor.kind,
    )
    try:
        config.on_batch(told)
    except BaseException as raised:
        log.exception("on_batch of %s() raised", config.name)
        if on_loop and not is_error(raised):
            raise
