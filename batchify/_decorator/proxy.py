"""A decorated function: a proxy of the batch function that is called with one item.

Decides: which members there are.
Must not know: how a call finds its batcher, or how a batcher works.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, TypeAlias

from wrapt import BaseObjectProxy

from batchify._batcher.config import changes
from batchify._batcher.functions import name_of
from batchify._batcher.live import configure_lock
from batchify._batcher.registry import for_each, for_each_async
from batchify._core.limits import number, positive, whole
from batchify._decorator.routes import RequestRoute, ways
from batchify._stats.snapshot import BatchStats

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from inspect import Signature

    from typing_extensions import Self

    from batchify._batcher.config import Config
    from batchify._decorator.instances import Instances, InstanceScope
    from batchify._decorator.routes import Route, Ways
    from batchify._decorator.signature import Call

    Proxy: TypeAlias = BaseObjectProxy[Any]
else:
    Proxy = BaseObjectProxy


class Batched(Proxy):
    """A decorated function, or a decorated method that is bound to an instance.

    It has these members. All other attributes, such as name, documentation and module, are those of the batch function.
    """

    # Calls are slots: a method of a proxy would add a tenth to the cost of a call.
    __slots__ = {  # noqa: RUF023  # the order in which a reader meets them
        "__call__": """Run one item and return its result; for an ``async def`` function, return a coroutine.

        For a generator function, return a stream: an iterator of the values for the item, asynchronous for an ``async
        def`` function. The item is queued when the stream is first read.
        """,
        "submit": """Queue one item at once and return the future of its result.

        The future is a ``concurrent.futures.Future`` for a ``def`` function, and an ``asyncio.Future`` for an ``async
        def`` function, which needs a running event loop. Cancelling it removes an item whose batch has not left yet.
        For a generator function, return a stream that is queued already.

        Raises:
            BatcherClosedError: the function has been closed.
        """,
        "acall": """Return a coroutine of the result for one item, which any event loop may await.

        Calls of a ``def`` function from threads and from all event loops share the same batches. For a generator
        function, return an asynchronous iterator of the values for the item.
        """,
    }

    def __init__(
        self,
        fn: Callable[..., Any],
        config: Config,
        call: Call,
        scope: Instances | InstanceScope,
        route: Route,
        ways: Ways,
    ) -> None:
        super().__init__(fn)
        self._self_config = config
        self._self_call = call
        self._self_scope = scope
        self._self_route = route
        for name, way in zip(Batched.__slots__, ways, strict=True):
            self.__self_setattr__(name, way)

    def _self_ways(self, route: RequestRoute) -> Ways:
        return ways(self._self_call, route, route)

    def map(self, items: Iterable[Any], /, *args: Any, **options: Any) -> Any:
        """Return the results for ``items`` in order: a list, or for an ``async def`` function an awaitable of a list.

        For a generator function, the result for an item is the list of all its values.

        Args:
            items: any number of items; with several columns, tuples of one element for each column.
            args: options of the batch function by position, for all items.
            options: options of the batch function by name, for all items.

        Raises:
            Exception: the error of the first item that fails.
        """
        rows = self._self_call.rows(items, options, args)
        route = self._self_route.requests() if args or options else self._self_route
        return route.submit_many(rows)

    def imap(self, items: Any, ahead: int | None = None, /, *args: Any, **options: Any) -> Any:
        """Return an iterator of the results for ``items`` in order, for an input of any length.

        It is asynchronous for an ``async def`` function, whose ``items`` may be asynchronous too. It takes no item
        before its first read, and after that at most ``ahead`` items more than were read. If the queue is full, it
        waits, whatever ``on_full`` is. For a generator function, the result for an item is the list of all its values.

        An error is raised in place of the result of its item. After an error, or if the iterator is closed early, the
        calls ahead are cancelled and an asynchronous input is closed.

        Args:
            items: any number of items; with several columns, tuples of one element for each column.
            ahead: maximum number of items that wait or run, or whose results are not read yet; ``None`` means twice the
                number of items that can run at once.
            args: options of the batch function by position, for all items.
            options: options of the batch function by name, for all items.
        """
        convert = self._self_call.converter(options, args)
        route = self._self_route.requests() if args or options else self._self_route
        return route._imap(items, convert, None if ahead is None else whole("ahead", ahead))

    def options(self, *, priority: float = 0, deadline: float | None = None) -> BatchedView:
        """Return a view with the same members, whose calls have a priority and a deadline.

        Args:
            priority: seconds by which a call overtakes others: it leaves before calls that arrived up to this many
                seconds earlier. A waiting call gains priority with age, so none starves. A priority does not change
                when a batch leaves.
            deadline: seconds from the call within which its item must start; ``None`` means no deadline. An item that
                has not started by then is dropped, and its caller gets a ``DeadlineError`` at that moment, not when a
                slot becomes free. While a slot is free, a batch leaves before the deadlines of its items: by a tenth of
                that time, at least 5 ms, at most half of it. With an executor, an item has started when the executor
                runs its batch, or pickles it for another process.

        Raises:
            TypeError: an argument is not a number.
            ValueError: an argument is not finite, or the deadline is not above 0.
        """
        return BatchedView(self, number("priority", priority), positive("deadline", deadline))

    @property
    def batch_stats(self) -> BatchStats:
        """A snapshot of the statistics."""
        batchers = self._self_scope.batchers()
        for batcher in batchers:
            batcher._settle()
        return batchers[0].stats if batchers else BatchStats(self._self_config.name)

    def reset_stats(self) -> None:
        """Reset the counters; queued and running calls stay counted.

        ``Class.method.reset_stats()`` resets all instances, and ``instance.method.reset_stats()`` that instance.
        """
        for batcher in self._self_scope.batchers()[:1]:
            batcher._counters.reset()

    def configure(self, **options: Any) -> None:
        """Change ``max_size``, ``timeout``, ``concurrency`` or ``executor``.

        The change applies to queued items and later calls; running batches are unaffected. ``Class.method.configure()``
        applies to all instances, also to later ones, and ``instance.method.configure()`` to that instance.

        Raises:
            TypeError: an option has a wrong type, or cannot change.
            ValueError: an option is out of range.
        """
        with configure_lock:
            self._self_scope.change(changes(self.__wrapped__, self._self_config, options))

    def flush(self) -> None:
        """Start the queued items as soon as slots are free, without waiting for more."""
        for batcher in self._self_scope.batchers():
            batcher.flush()

    def drain(self, timeout: float | None = None) -> None:
        """Start the queued items now, and return when all calls made so far are answered. Then idle workers end.

        No call is refused: the next call starts a worker again. A batch that drains its own function does not wait for
        itself.

        Args:
            timeout: maximum number of seconds to wait; ``None`` means no limit.

        Raises:
            TimeoutError: some of the calls are not answered yet.
            RuntimeError: the caller blocks the event loop that has to run the items; use ``await fn.adrain()`` there.
        """
        for_each(self._self_scope.batchers(), lambda batcher, left: batcher._drain(left), timeout)

    async def adrain(self, timeout: float | None = None) -> None:
        """Drain like ``drain()``, without blocking the event loop."""
        await for_each_async(self._self_scope.batchers(), lambda batcher, left: batcher._adrain(left), timeout)

    def close(self, timeout: float | None = None) -> None:
        """Refuse new calls, run the queued items, and return when all calls are answered and the workers have ended.

        Closing twice is fine. A batch that closes its own function does not wait for itself.

        Args:
            timeout: maximum number of seconds to wait; ``None`` means no limit. After that, and with ``0`` at once,
                items that have not started fail with ``BatcherClosedError``, and running batches are left to finish by
                themselves.

        Raises:
            RuntimeError: the caller blocks the event loop that has to run the items; use ``await fn.aclose()`` there.
        """
        for_each(self._self_scope.close(), lambda batcher, left: batcher.close(left), timeout)

    async def aclose(self, timeout: float | None = None) -> None:
        """Close like ``close()``, without blocking the event loop."""
        await for_each_async(self._self_scope.close(), lambda batcher, left: batcher.aclose(left), timeout)

    def open(self) -> None:
        """Take calls again after ``close()``; wait for a ``close()`` in progress.

        ``with fn:`` and ``async with fn:`` open the function, and close it at the end, for all its users.

        Raises:
            RuntimeError: the caller blocks the event loop whose calls the ``close()`` in progress waits for.
        """
        for batcher in self._self_scope.open():
            batcher._open()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        for batcher in self._self_scope.open():
            await batcher._aopen()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()

    @property
    def __signature__(self) -> Signature:
        return self._self_call.signature

    @property
    def __annotations__(self) -> dict[str, Any]:  # type: ignore[override]  # pyright: ignore[reportIncompatibleVariableOverride]
        signature = self.__signature__
        shown = {name: each.annotation for name, each in signature.parameters.items()}
        shown["return"] = signature.return_annotation
        return {name: annotation for name, annotation in shown.items() if annotation is not signature.empty}

    @property
    def __annotate__(self) -> Callable[[int], dict[str, Any]]:
        # From Python 3.14 on, ``functools.wraps`` copies this instead of ``__annotations__``.
        return lambda _format: self.__annotations__

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Batched:
        return self

    def __reduce_ex__(self, _: object) -> Any:
        return name_of(self.__wrapped__)

    def __dir__(self) -> list[str]:
        return sorted({*dir(type(self)), *dir(self.__wrapped__)})

    def __repr__(self) -> str:
        return f"<microbatch {self._self_config.name}>"

    __str__ = __repr__


class BatchedView(Batched):
    """A decorated function or method whose calls have a priority or a deadline."""

    def __init__(self, base: Batched, priority: float, deadline: float | None) -> None:
        route = RequestRoute(base._self_route, priority, deadline)
        fn, config, call, scope = base.__wrapped__, base._self_config, base._self_call, base._self_scope
        super().__init__(fn, config, call, scope, route, base._self_ways(route))
        self._self_base = base
        self._self_urgency = priority, deadline

    # A proxy compares what it wraps. That is the same for all views of a function, whose calls differ.
    __eq__ = object.__eq__
    __ne__ = object.__ne__
    __hash__ = object.__hash__

    def options(self, *, priority: float = 0, deadline: float | None = None) -> BatchedView:
        return self._self_base.options(priority=priority, deadline=deadline)

    options.__doc__ = Batched.options.__doc__

    @property
    def __func__(self) -> Any:
        """The function of a bound method, with the same options; ``inspect`` reads its signature."""
        return self._self_base.__func__

    def __deepcopy__(self, memo: dict[int, Any]) -> BatchedView:
        return BatchedView(copy.deepcopy(self._self_base, memo), *self._self_urgency)

    def __reduce_ex__(self, _: object) -> Any:
        return BatchedView, (self._self_base, *self._self_urgency)

    def __repr__(self) -> str:
        priority, deadline = self._self_urgency
        limit = "" if deadline is None else f", deadline {deadline:g} s"
        return f"<microbatch {self._self_config.name}, priority {priority:g}{limit}>"

    __str__ = __repr__
