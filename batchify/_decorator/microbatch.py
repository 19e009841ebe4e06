"""The decorator.

Decides: which engine runs a batch function.
Must not know: how an engine works, how a call finds its engine.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, cast

from batchify._batcher.config import OPTIONS, check_names, config_of, shows_options
from batchify._batcher.functions import METHOD_KINDS, is_async, is_async_generator, is_generator, name_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Unpack

    from batchify._batcher.options import Options
    from batchify._decorator.instances import MakeBatcher
    from batchify._decorator.overloads import Decorator


class _NoFunction:
    def __repr__(self) -> str:
        return "<no function>"


# ``microbatch(None)`` is a mistake.
NO_FUNCTION = _NoFunction()


def _typed(function: Callable[..., Any]) -> Decorator:
    # Every option for ``inspect``, and the overloads for type checkers. If ``microbatch`` were declared under
    # ``TYPE_CHECKING`` instead, editors would not show its docstring.
    return cast("Decorator", shows_options(*OPTIONS)(function))


@_typed
def microbatch(fn: Any = NO_FUNCTION, /, **options: Unpack[Options]) -> Any:
    """Turn a function of a list of items into a function of one item, whose concurrent calls run in batches.

    Works as ``@microbatch``, ``@microbatch()``, ``@microbatch(max_size=8)`` and ``microbatch(fn, max_size=8)``, on
    functions, methods, class methods, static methods, callable objects, partials and bound methods.

    A ``def`` function runs on a worker thread while its callers block. An ``async def`` function runs on the event loop
    of its callers, which await.

    Positional parameters without a default are columns: each call passes one element, and the batch function gets a
    list of them, in order of arrival. All other parameters are options of a call, which the batch function gets
    unchanged. Only calls with equal options, by ``__eq__`` and ``__hash__``, share a batch. So ``def score(queries,
    docs, *, top_k=10)`` is called as ``score(query, doc, top_k=5)``, by position or by name.

    The batch function returns one result for each item, in any object that has a length and an order. A result that is
    an ``Exception`` is raised to its own caller only.

    A generator function yields such objects any number of times. A call returns an iterator of the values at its own
    position, asynchronous for an ``async def`` function. The item is queued when the iterator is first read;
    ``submit()`` queues it at once. ``DONE`` at a position ends that stream, and so does an exception, which is raised
    to its caller. An error of the generator ends all open streams. Values are kept until they are read. A caller that
    closes or drops its stream leaves the batch, and when the last one has left, the generator is closed.

    Args:
        fn: the batch function.
        max_size: maximum number of items in one call of the batch function.
        timeout: maximum number of seconds that a batch waits for more items, from the arrival of its first. With ``0``,
            a batch leaves as soon as a slot is free. ``None`` is adaptive: if nothing is running, queued items leave at
            once; while batches run, items gather until a slot is free. With several slots, departures are spaced by the
            fixed cost of a run, which is learnt from sizes and run times, divided by ``concurrency``.
        concurrency: maximum number of batches that run at once, for each instance and event loop.
        max_pending: maximum number of queued items; ``None`` means no bound. Calls that find no room wait for it, in
            order of arrival. While there is no room, batches do not wait for more items.
        on_full: behaviour of a call that finds no room: ``"wait"``, or ``"raise"`` a ``QueueFullError`` at once.
        weigh: function that returns the weight of an item, a number of at least 0, such as its number of tokens. Order
            is kept: no item overtakes another. Needs ``max_weight``.
        max_weight: maximum total weight of a batch. A heavier item raises a ``ValueError`` to its own caller.
        length: function that returns the length of an item, a number of at least 0, such as its number of tokens or
            pixels, if the batch function pads every item to the longest of its batch. A batch consists of the first
            item of the queue and the queued items nearest to it in length, without those that would be cheaper to run
            in a batch of their own. The costs of a run and of padding are learnt from run times. Every item becomes the
            first one in its turn, so none starves. Inside a batch, items are in order of arrival. It does not work with
            ``weigh``, nor for generator functions.
        max_padded: maximum of the number of items in a batch times the longest length. A longer item is a
            ``ValueError`` for its own caller. Needs ``length``.
        sizes: increasing ints: the batch function only gets lists of one of these sizes, as compiled models need. A
            batch between two sizes is padded with its last item, and the results of padding are dropped. The last size
            is ``max_size``. It does not work with ``weigh``, as padding would exceed ``max_weight``.
        group_by: function that returns the group of an item, a hashable value. Only items of equal groups share a
            batch. With several columns, ``group_by``, ``weigh`` and ``length`` get one argument for each.
        dedupe: send equal hashable items that are queued together once, and give the same result object to every
            caller: ``True`` or ``"waiting"``. With ``"running"``, a call also joins an equal item that is running, on
            the same instance and event loop; it needs no room, and counts as started. It does not work for generator
            functions, as each caller reads its own stream.
        keyed: the batch function returns a mapping from each item to its result, as a query ``WHERE id IN (...)`` does;
            with several columns, the keys are tuples. Items must be hashable. An item without an entry is a
            ``KeyError`` for its own callers, and extra entries are ignored. Callers of equal items share one object.
            It does not work for generator functions, whose yields have one value for each position.
        isolate_errors: when a batch of several items raises an ``Exception``, or does not return one result for each
            item, run its halves again, one after the other, until the bad items are alone; only those fail. Callers in
            a half that succeeds get their answers at once. For k bad items of n, the batch function is called at most
            2 k ceil(log2 n) more times, and never more than 2 n - 2; ``batch_stats.isolation_runs`` counts these calls.
            The batch function may get an item ceil(log2 n) + 1 times, so it must be safe to process an item again. The
            option does not work for generator functions, as their callers may already have values.
        executor: any ``concurrent.futures.Executor``, which runs the batches of a ``def`` function in threads,
            processes or a cluster, at most ``concurrency`` at once; ``None`` means the engine's own threads. For other
            processes, the function must be importable by its name, and items and results picklable. If an executor
            breaks, calls fail with its error until ``configure(executor=...)`` replaces it. Threads of the executor
            must not call the function, as they would wait for themselves. It does not work for generator functions.
        lifespan: function that returns a context manager for a resource of a worker, such as a model on a device or a
            connection; an asynchronous one for an ``async def`` function. It is called without arguments, or with the
            instance of a method, once for each of the ``concurrency`` slots. The context manager is entered before the
            first batch of the slot, on the worker's own thread or the event loop, and exited when the worker ends:
            after ``drain()`` or ``close()``, a lower ``concurrency``, the end of the loop or the process. In a batch,
            ``current_batch().state`` is its value. ``current_batch().slot`` is the number of the slot, also while the
            context manager is being entered. An error on entering is the error of that batch, and the next batch tries
            again; an error on exit is logged. A context manager that refers to an instance keeps the instance alive
            until its exit. The child of a fork enters one of its own. It does not work with ``executor``.
        capture_context: keep the context of each caller for ``current_batch().contexts``; with ``dedupe``, that of the
            first caller of each item.
        on_batch: function that is called with a ``BatchReport`` after each batch, once its callers have their answers,
            on the thread or event loop that ran it. An error in it is logged and reaches no caller.
        name: used in errors, statistics and thread names; ``None`` means the qualified name of ``fn``.

    Returns:
        The function of one item, or ``microbatch`` itself with these options if ``fn`` is not given.

    Raises:
        TypeError: ``fn`` is not a batch function, or is decorated already; or an option is unknown, has a value of the
            wrong type, needs another option, or does not work for ``fn``.
        ValueError: an option is out of range.
    """
    check_names("microbatch", options, OPTIONS)
    if fn is NO_FUNCTION:
        # pyright would try every overload with every option.
        decorate: Any = microbatch
        return partial(decorate, **options)
    # wrapt takes longer to import than the whole package, and the engine classes do not need it.
    from batchify._decorator.methods import BatchedFunction  # noqa: PLC0415
    from batchify._decorator.proxy import Batched  # noqa: PLC0415

    function = fn.__func__ if isinstance(fn, METHOD_KINDS) else fn
    if isinstance(function, Batched):
        msg = f"{name_of(function)} is already decorated with microbatch; pass all options to one decorator"
        raise TypeError(msg)
    if not callable(function):
        msg = f"microbatch decorates a function of a list of items, got {function!r} of type {type(function).__name__}"
        raise TypeError(msg)
    return BatchedFunction(fn, config_of(function, options), _engine(function))


def _engine(fn: Any) -> MakeBatcher:
    # A program imports only the kinds that it decorates, because asyncio is half of the cost of an import.
    if is_async_generator(fn):
        from batchify._asyncio.streams import LoopStreams  # noqa: PLC0415

        return LoopStreams._from_source
    if is_generator(fn):
        from batchify._threads.streams import ThreadStreams  # noqa: PLC0415

        return ThreadStreams._from_source
    if is_async(fn):
        from batchify._asyncio.batcher import AsyncMicrobatcher  # noqa: PLC0415

        return AsyncMicrobatcher[Any, Any]._from_source
    from batchify._threads.batcher import SyncMicrobatcher  # noqa: PLC0415

    return SyncMicrobatcher[Any, Any]._from_source
