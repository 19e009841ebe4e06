"""``microbatch()``: which engine a batch function gets.

Must not know: how an engine works, or how it is found at a call.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, cast

from batchify._batcher.config import OPTIONS, check_names, config_of, shows_options
from batchify._batcher.functions import METHOD_KINDS, is_async, is_async_generator, is_generator, name_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Unpack

    from batchify._batcher.config import Config
    from batchify._batcher.options import Options
    from batchify._batcher.registry import Batcher
    from batchify._decorator.instances import Engine
    from batchify._decorator.overloads import Decorator


def _typed(function: Callable[..., Any]) -> Decorator:
    """Show all options in the signature of ``microbatch``, and its overloads to type checkers."""
    return cast("Decorator", shows_options(*OPTIONS)(function))


@_typed
def microbatch(fn: Any = None, /, **options: Unpack[Options]) -> Any:
    """Make a function of a list of items callable with one item, and run calls that come together in one batch.

    Works as ``@microbatch``, ``@microbatch()``, ``@microbatch(max_size=8)`` and ``microbatch(fn, max_size=8)``, on
    functions, methods, class methods, static methods, callable objects, partials and bound methods.

    A ``def`` function is run on a thread of its own, and its callers block; an ``async def`` function runs on the event
    loop of its callers, who await.

    Parameters without a default are columns: a call gives one element of each, and the batch function gets a list of
    them. All other parameters are options: the batch function gets what the call gives, and only calls with equal
    options share a batch. So ``def score(queries, docs, *, top_k=10)`` is called ``score(query, doc, top_k=5)``, by
    position or by name. What options are equal is asked of their ``__eq__`` and ``__hash__``.

    The batch function returns anything with a length and an order, one result for each item. A result that is an
    ``Exception`` is raised to its own caller.

    A generator function yields such a list any number of times, and a call of it returns an iterator of the values in
    the caller's position, asynchronous for an ``async def`` one. It queues its item when it is first read; with
    ``submit()`` that is done at once. ``DONE`` in a position ends that stream; an exception there is raised to its
    caller and ends it; an error of the generator ends all that are open. Values are kept until they are read. A stream
    that is closed or dropped is left, and when nobody listens any more, the generator is closed.

    Args:
        fn: the batch function.
        max_size: most items in one batch.
        timeout: seconds that the first item of a batch waits at most for others, from its arrival. 0: as soon as a slot
            is free. ``None``: adaptive; with nothing running, what is there leaves at once, and while batches run,
            items gather until a slot is free. With several slots, departures are spaced by the fixed cost of a run,
            as learnt from sizes and run times, divided by ``concurrency``.
        concurrency: most batches that run at once, for each instance and event loop.
        max_pending: most items that wait; ``None`` is no bound. What finds no room waits for it, first come first
            served. When there is no room, a batch does not wait for company that could not come.
        on_full: what a call does that finds no room: ``"wait"``, or ``"raise"`` ``QueueFullError`` at once.
        weigh: tells what an item weighs, a number of at least 0 (of tokens, of bytes). Order is kept: nothing
            overtakes. An item heavier than ``max_weight`` is a ``ValueError`` of its own caller. With several columns
            ``weigh`` and ``group_by`` get one argument for each.
        max_weight: the weights of a batch sum up to this at most.
        group_by: tells which group an item belongs to, something hashable; only items of one group share a batch.
        dedupe: send equal hashable items that wait together once, and give the result to every caller. Not for
            generator functions: each caller reads a stream of its own.
        isolate_errors: when a batch of several raises an ``Exception``, or does not return one result for each item,
            run its halves again, one after the other, until the bad items are alone: only they fail. Good items are
            answered as soon as their part succeeds. Of n items with k bad ones, the batch function is called at most
            2 k ceil(log2 n), and never more than 2 n - 2, times in addition; ``batch_stats.isolation_runs`` counts it.
            It may see an item ceil(log2 n) + 1 times, so an item must do no harm twice. Not for generator functions:
            what a stream has brought cannot be taken back.
        executor: any ``concurrent.futures.Executor`` that is to run the batches of a ``def`` function: threads,
            processes, a cluster; ``None``: threads of its own. ``concurrency`` batches are given to it at once. Another
            process finds the function by its name, so it must be importable there, and items and results travel there
            and back. An executor that has died answers with its error until ``configure(executor=...)`` gives a new
            one. It must not be the one whose threads call the function: they would wait for themselves. Not for
            generator functions: what they yield could not travel.
        capture_context: keep the context of each caller for ``current_batch().contexts``; with ``dedupe`` that of the
            first caller of each item.
        on_batch: called with a ``BatchReport`` after each batch, when its callers have their answers, on the thread or
            event loop that ran it. An error in it is logged.
        name: used in errors, statistics and thread names; the qualified name of ``fn`` if not given.

    Returns:
        The one-item function, or a decorator if ``fn`` is not given.

    Raises:
        TypeError: ``fn`` or an option is of the wrong kind.
        ValueError: an option is out of range.
    """
    check_names("microbatch", options, OPTIONS)
    if fn is None:
        return partial(microbatch, **options)
    # wrapt takes longer to import than all the rest; who uses the engines as classes is spared it.
    from batchify._decorator.methods import BatchedFunction  # noqa: PLC0415
    from batchify._decorator.proxy import Batched  # noqa: PLC0415

    function = fn.__func__ if isinstance(fn, METHOD_KINDS) else fn
    if isinstance(function, Batched):
        msg = f"{name_of(function)} is decorated with microbatch already"
        raise TypeError(msg)
    _check(function)
    return BatchedFunction(fn, config_of(function, options), _engine(function))


def _check(fn: Any) -> None:
    if not callable(fn):
        msg = f"microbatch decorates a function of a list of items, got {fn!r} of type {type(fn).__name__}"
        raise TypeError(msg)


def _engine(fn: Any) -> Engine:
    """Return what makes a batcher for ``fn``, by what calling it returns."""
    if is_async_generator(fn):
        return _streams_on_loops
    if is_generator(fn):
        return _streams_on_threads
    return _on_loops if is_async(fn) else _on_threads


def _on_loops(source: Callable[[], Callable[..., Any]], config: Config) -> Batcher:
    # Who only decorates plain functions does not pay for asyncio.
    from batchify._asyncio.batcher import AsyncMicrobatcher  # noqa: PLC0415

    return AsyncMicrobatcher.from_source(source, config)  # pyright: ignore[reportUnknownVariableType]  # of any items


def _on_threads(source: Callable[..., Callable[..., Any]], config: Config) -> Batcher:
    from batchify._threads.batcher import SyncMicrobatcher  # noqa: PLC0415  # as above, for threads

    return SyncMicrobatcher.from_source(source, config)  # pyright: ignore[reportUnknownVariableType]  # of any items


def _streams_on_loops(source: Callable[[], Callable[..., Any]], config: Config) -> Batcher:
    from batchify._asyncio.streams import LoopStreams  # noqa: PLC0415  # as above

    return LoopStreams.from_source(source, config)


def _streams_on_threads(source: Callable[[], Callable[..., Any]], config: Config) -> Batcher:
    from batchify._threads.streams import ThreadStreams  # noqa: PLC0415  # as above

    return ThreadStreams.from_source(source, config)
