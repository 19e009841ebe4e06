"""The report of one finished batch, and the call of the ``on_batch`` hook. It must not know engines."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass
from threading import current_thread
from typing import TYPE_CHECKING

from batchify._core.outcome import is_error

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchify._batcher.config import Config
    from batchify._core.batch import Batch

log = logging.getLogger("batchify")


@dataclass(frozen=True)
class BatchReport:
    """One finished batch. Times are in milliseconds.

    Attributes:
        name: the name of the batcher.
        size: the number of items, without padding up to one of ``sizes``.
        weight: the sum of their weights, or with ``length`` of their lengths; otherwise 0.
        reason: the reason of the departure, as in ``BatchStats.reasons``.
        wait_ms: for each caller, in order of arrival, the time from the call to the departure of the batch.
        run_ms: the time from the departure to the last answer.
        error: the error that ended the batch for all its callers; ``None`` if each got an answer of its own.
        thread: the name of the thread that ran the batch function, ran the event loop, or waited for the executor.
        executor: the name of the executor's type; ``None`` without an executor.
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


def report(
    hook: Callable[[BatchReport], object],
    config: Config,
    batch: Batch,
    run_time: float,
    error: BaseException | None,
    *,
    on_loop: bool,
) -> None:
    """Call ``hook``, the option ``on_batch``, for a batch that took ``run_time`` seconds."""
    finished = BatchReport(
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
        hook(finished)
    except BaseException as raised:
        # An error of a logging filter would end the worker, and later calls would hang.
        with suppress(Exception):
            log.exception("on_batch of %s() raised", config.name)
        # The loop ends with such an error, but a worker thread continues.
        if on_loop and not is_error(raised):
            raise
