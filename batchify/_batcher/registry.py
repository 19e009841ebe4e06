"""All live batchers, and the steps that drain or close several.

Must not know: the inside of an engine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchify._batcher.draining import time_left
from batchify._batcher.live import registered

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from batchify._batcher.base import Batcher
    from batchify._stats.counters import Stats


def batchers() -> list[Batcher[Any, Any]]:
    """Return the live batchers, oldest first. Each has ``name`` and ``stats``.

    A decorated function has one after its first call, and a decorated method has one for each instance. An
    ``AsyncMicrobatcher`` or ``SyncMicrobatcher`` is one itself.
    """
    return [batcher for batcher, listed in registered() if listed]


def sources() -> list[tuple[str, Stats]]:
    """Return the names and the counters of batchers. Together, they count every call once."""
    live = [batcher for batcher, _ in registered()]
    for batcher in live:
        batcher._settle()
    return [(batcher.name, batcher._counters) for batcher in live if batcher._parent is None]


def close_all(timeout: float | None = None) -> None:
    """Close every live batcher: refuse new calls, run the queued items, and return when all calls are answered.

    Args:
        timeout: maximum number of seconds for all of them, as in ``fn.close()``.

    Raises:
        RuntimeError: the caller blocks an event loop that has to run some of the batches; use ``await aclose_all()``
            there. All other batchers are closed first.
    """
    for_each(batchers(), lambda batcher, left: batcher.close(left), timeout)


async def aclose_all(timeout: float | None = None) -> None:
    """Close every live batcher like ``close_all()``, without blocking the event loop."""
    await for_each_async(batchers(), lambda batcher, left: batcher.aclose(left), timeout)


def drain_all(timeout: float | None = None) -> None:
    """Start the queued items of every live batcher, and return when all calls made so far are answered.

    No call is refused, and the next ones start new workers.

    Args:
        timeout: maximum number of seconds for all of them, as in ``fn.drain()``.

    Raises:
        TimeoutError: some of the calls are not answered yet.
        RuntimeError: the caller blocks an event loop that has to run some of the batches; use ``await adrain_all()``
            there. All other batchers are drained first.
    """
    for_each(batchers(), lambda batcher, left: batcher._drain(left), timeout)


async def adrain_all(timeout: float | None = None) -> None:
    """Drain every live batcher like ``drain_all()``, without blocking the event loop."""
    await for_each_async(batchers(), lambda batcher, left: batcher._adrain(left), timeout)


def for_each(
    several: Iterable[Batcher[Any, Any]],
    step: Callable[[Batcher[Any, Any], float | None], None],
    timeout: float | None,
) -> None:
    """Drain or close ``several`` batchers within ``timeout`` seconds.

    All start their queued items at once. They end one after the other, so that batches of one can call the next.
    """
    left = time_left(timeout)
    errors: list[Exception] = []
    for batcher in flushed(several):
        try:
            step(batcher, left())
        except (RuntimeError, TimeoutError) as error:  # noqa: PERF203  # the others are not spared
            errors.append(error)
    if errors:
        raise errors[0]


async def for_each_async(
    several: Iterable[Batcher[Any, Any]],
    step: Callable[[Batcher[Any, Any], float | None], Awaitable[None]],
    timeout: float | None,
) -> None:
    import asyncio  # noqa: PLC0415  # users of threads alone do not import it

    left = time_left(timeout, asyncio.get_running_loop().time)
    errors: list[TimeoutError] = []
    for batcher in flushed(several):
        try:
            await step(batcher, left())
        except TimeoutError as error:  # noqa: PERF203  # as above
            errors.append(error)
    if errors:
        raise errors[0]


def flushed(several: Iterable[Batcher[Any, Any]]) -> list[Batcher[Any, Any]]:
    first_to_last = [*several]
    for later in first_to_last[1:]:
        later.flush()
    return first_to_last
