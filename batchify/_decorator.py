"""``microbatch()``: which engine a batch function gets.

Must not know: how an engine works, or how it is found at a call.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from batchify._binding import Batched, BatchedFunction
from batchify._config import Config, seconds, text, whole
from batchify._signature import is_async, is_generator, name_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchify._registry import Batcher


def microbatch(
    fn: Any = None,
    /,
    *,
    max_size: int = 32,
    timeout: float | None = None,
    concurrency: int = 1,
    name: str | None = None,
) -> Any:
    """Make a function of a list of items callable with one item, and run calls that come together in one batch.

    Works as ``@microbatch``, ``@microbatch()``, ``@microbatch(max_size=8)`` and ``microbatch(fn, max_size=8)``, on
    functions, methods, class methods, static methods, callable objects, partials and bound methods.

    A ``def`` function is run on a thread of its own, and its callers block; an ``async def`` function runs on the event
    loop of its callers, who await. The parameter without a default is the column: it gets the list of items. Parameters
    with a default keep it.

    The batch function returns anything with a length and an order, one result for each item. A result that is an
    ``Exception`` is raised to its own caller.

    Args:
        fn: the batch function.
        max_size: most items in one batch.
        timeout: seconds that the first item of a batch waits at most for others, from its arrival. 0: as soon as a slot
            is free. ``None``: adaptive; with nothing running, what is there leaves at once, and while batches run,
            items gather until a slot is free.
        concurrency: most batches that run at once, for each instance and event loop.
        name: used in errors, statistics and thread names; the qualified name of ``fn`` if not given.

    Returns:
        The one-item function, or a decorator if ``fn`` is not given.

    Raises:
        TypeError: ``fn`` or an option is of the wrong kind.
        ValueError: an option is out of range.
    """
    if fn is None:
        return partial(microbatch, max_size=max_size, timeout=timeout, concurrency=concurrency, name=name)
    function = fn.__func__ if isinstance(fn, (classmethod, staticmethod)) else fn
    _check(function)
    config = Config(
        max_size=whole("max_size", max_size),
        timeout=seconds("timeout", timeout),
        concurrency=whole("concurrency", concurrency),
        name=text("name", name_of(function) if name is None else name),
    )
    return BatchedFunction(fn, config, _on_loops if is_async(function) else _on_threads)


def _check(fn: Any) -> None:
    if not callable(fn):
        msg = f"microbatch decorates a function of a list of items, got {fn!r} of type {type(fn).__name__}"
        raise TypeError(msg)
    if isinstance(fn, Batched):
        msg = f"{name_of(fn)} is decorated with microbatch already"
        raise TypeError(msg)
    if is_generator(fn):
        msg = f"{name_of(fn)}() is a generator function; a batch function returns its results together"
        raise TypeError(msg)


def _on_loops(source: Callable[[], Callable[..., Any]], config: Config) -> Batcher:
    # Who only decorates plain functions does not pay for asyncio.
    from batchify._asyncio import AsyncMicrobatcher  # noqa: PLC0415

    return AsyncMicrobatcher.from_source(source, config)


def _on_threads(source: Callable[[], Callable[..., Any]], config: Config) -> Batcher:
    from batchify._threads import SyncMicrobatcher  # noqa: PLC0415  # as above, for threads

    return SyncMicrobatcher.from_source(source, config)
