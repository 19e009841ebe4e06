"""A decorated function: a proxy of the batch function that is called with one item.

Decides: its members, and the route from a call to its batcher.
Must not know: batches, how a batcher works.
"""

from __future__ import annotations

import copy
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from wrapt import BaseObjectProxy

from batchify._batcher.config import changes
from batchify._batcher.registry import configure_lock
from batchify._batcher.requests import Request
from batchify._core.limits import number, positive
from batchify._stats.counters import together

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from inspect import Signature

    from typing_extensions import Self

    from batchify._batcher.config import Config
    from batchify._batcher.registry import Batcher
    from batchify._decorator.signature import Call
    from batchify._stats.counters import Stats
    from batchify._stats.snapshot import BatchStats

    Proxy: TypeAlias = BaseObjectProxy[Any]
    Ways: TypeAlias = tuple[Callable[..., Any], ...]
else:
    Proxy = BaseObjectProxy


class Scope(Protocol):
    """The batchers that a decorated function or a bound method stands for."""

    def batchers(self) -> list[Batcher]:
        """Return the batchers that exist."""
        ...

    def close(self) -> list[Batcher]:
        """Accept no batcher that is made later, and return those to close."""
        ...

    def change(self, changes: dict[str, Any]) -> None:
        """Apply validated option changes."""
        ...

    def _parts(self) -> list[Stats]:
        """Return the counters of these batchers."""
        ...


class Route:
    """The way from a call to its batcher.

    Args:
        find: returns the batcher, and makes it if need be.
        instance: the instance of a method, which lives at least as long as its calls.
    """

    __slots__ = ("find", "instance")

    def __init__(self, find: Callable[[], Batcher], instance: object = None) -> None:
        self.find = find
        self.instance = instance

    def submit(self, row: Any) -> Any:
        return self.find().submit(row, self.instance)

    def submit_nowait(self, row: Any) -> Any:
        return self.find()._submit_nowait(row)

    def acall(self, row: Any) -> Any:
        return self.find()._acall(row, self.instance)

    def submit_many(self, rows: Iterable[Any]) -> Any:
        return self.find().submit_many(rows, self.instance)

    def requests(self) -> RequestRoute:
        """Return the way of calls that pass options."""
        return RequestRoute(self)


class RequestRoute(Route):
    """The way of calls that ask for more than their item. The first one makes the batcher accept such calls.

    Args:
        route: leads to the batcher.
        priority: that of every call.
        time_limit: seconds from a call to its deadline; ``None`` for no deadline.
    """

    __slots__ = ("priority", "time_limit")

    def __init__(self, route: Route, priority: float = 0.0, time_limit: float | None = None) -> None:
        super().__init__(partial(_find_for_requests, route.find), route.instance)
        self.priority = priority
        self.time_limit = time_limit

    def submit(self, row: Any) -> Any:
        return super().submit(self._request(row))

    def submit_nowait(self, row: Any) -> Any:
        return super().submit_nowait(self._request(row))

    def acall(self, row: Any) -> Any:
        return super().acall(self._request(row))

    def submit_many(self, rows: Iterable[Any]) -> Any:
        return super().submit_many(map(self._request, rows))

    def requests(self) -> RequestRoute:
        return self

    def _request(self, row: Any) -> Request:
        request = row if type(row) is Request else Request(row)
        request.priority, request.time_limit = self.priority, self.time_limit
        return request


def _find_for_requests(find: Callable[[], Batcher]) -> Batcher:
    batcher = find()
    if not batcher._takes_requests:
        with configure_lock:
            # Another thread may have done it meanwhile.
            if not batcher._takes_requests:
                batcher._change({"takes_requests": True})
    return batcher


def ways(call: Call, route: Route) -> Ways:
    """Return the ways to call a function: ``fn``, ``fn.submit`` and ``fn.acall``."""
    requests = route.requests()
    return (
        call.bind(route.submit, requests.submit),
        call.bind(route.submit_nowait, requests.submit_nowait),
        call.bind(route.acall, requests.acall),
    )


class Batched(Proxy):
    """A decorated function, or a decorated method that is bound to an instance.

    It offers these members; everything else is that of the batch function: name, documentation, module and kind.
    """

    # The ways to call it stand in slots: a method of a proxy would cost a tenth of a call.
    __slots__ = {  # noqa: RUF023  # the order in which a reader meets them
        "__call__": """Run one item and return its result; of an ``async def`` function, return a coroutine of it.

        Of a generator function, return a stream: an iterator of the values for the item, asynchronous for an ``async
        def`` one. It is queued when it is first read.
        """,
        "submit": """Queue one item at once and return the future of its result.

        It is a ``concurrent.futures.Future`` for a ``def`` function, and an ``asyncio.Future`` for an ``async def``
        function, which needs a running event loop. Cancelling it removes the item if its batch has not left yet. Of a
        generator function, it is a stream, as a call returns.

        Raises:
            BatcherClosedError: the function has been closed.
        """,
        "acall": """Return a coroutine of the result for one item, to be awaited on any event loop.

        Calls of a ``def`` function from threads and from all event loops share the same batches. Of a generator
        function, return an asynchronous iterator of the values for the item.
        """,
    }

    def __init__(
        self, fn: Callable[..., Any], config: Config, call: Call, scope: Scope, route: Route, ways: Ways
    ) -> None:
        super().__init__(fn)
        self._self_config = config
        self._self_call = call
        self._self_scope = scope
        self._self_route = route
        for set_slot, way in zip(_set_slots, ways, strict=True):
            set_slot(self, way)

    def _self_ways(self, route: RequestRoute) -> Ways:
        """Return the ways to call it as a view does."""
        return ways(self._self_call, route)

    def map(self, items: Iterable[Any], /, **options: Any) -> Any:
        """Return the results for ``items``, in order: a list, or for an ``async def`` function an awaitable of one.

        Of a generator function, the result for an item is the list of all its values.

        Args:
            items: any number of items; with several columns, tuples of one element for each.
            options: those of the batch function, for all items.

        Raises:
            Exception: the error of the first item that has one.
        """
        rows = self._self_call.rows(items, options)
        route = self._self_route.requests() if options else self._self_route
        return route.submit_many(rows)

    def options(self, *, priority: float = 0, deadline: float | None = None) -> BatchedView:
        """Return a view of it, with all that it offers, whose calls are more or less urgent.

        Args:
            priority: a call leaves before others that came up to this many seconds earlier. So higher ones leave first,
                and as who waits comes forward, no call starves. Which batch leaves when does not depend on it.
            deadline: seconds, from the call, in which its item must have been started. If it was not, it is dropped,
                unrun, and the call is a ``DeadlineError`` at that moment, not when a slot is free. With a slot free, an
                item that waits for company leaves when nine tenths of that time are over, and the batch with it; but
                no less than 5 ms before the deadline, if that leaves it half of its time. ``None``: no deadline.

        Raises:
            TypeError: one is no number.
            ValueError: one is not finite, or the deadline is not above 0.
        """
        return BatchedView(self, number("priority", priority), positive("deadline", deadline))

    @property
    def batch_stats(self) -> BatchStats:
        """A snapshot of what happened so far."""
        return together(self._self_config.name, self._self_scope._parts())

    def reset_stats(self) -> None:
        """Start counting anew; what waits and runs stays counted."""
        for part in self._self_scope._parts():
            part.reset()

    def configure(self, **options: Any) -> None:
        """Change ``max_size``, ``timeout``, ``concurrency`` or ``executor`` while it works; what runs is left alone.

        Of a method seen from its class, it is for all instances there are and all that come; of one of an instance, for
        that instance.

        Raises:
            TypeError: an option is of the wrong kind, or cannot change.
            ValueError: an option is out of range.
        """
        with configure_lock:
            self._self_scope.change(changes(self.__wrapped__, options))

    def flush(self) -> None:
        """Let what waits leave now, as far as there are slots."""
        for batcher in self._self_scope.batchers():
            batcher.flush()

    def close(self) -> None:
        """Take no new calls, run what waits, and return when all is answered. Closing twice is fine.

        Raises:
            RuntimeError: the caller is an event loop that has to run some of it; use ``await fn.aclose()`` there.
        """
        for batcher in self._self_scope.close():
            batcher.close()

    async def aclose(self) -> None:
        """Do what ``close()`` does without blocking the event loop."""
        for batcher in self._self_scope.close():
            await batcher.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()

    @property
    def __signature__(self) -> Signature:
        return self._self_call.signature

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Batched:
        return self

    def __reduce_ex__(self, protocol: object) -> Any:
        return self.__reduce__()

    def __dir__(self) -> list[str]:
        return sorted({*dir(type(self)), *dir(self.__wrapped__)})

    def __repr__(self) -> str:
        return f"<microbatch {self._self_config.name}>"

    __str__ = __repr__


# Past the proxy's own way to set attributes, which would set that of the batch function.
_set_slots = [vars(Batched)[name].__set__ for name in Batched.__slots__]


class BatchedView(Batched):
    """A decorated function or method whose calls have a priority or a deadline."""

    def __init__(self, base: Batched, priority: float, deadline: float | None) -> None:
        route = RequestRoute(base._self_route, priority, deadline)
        fn, config, call, scope = base.__wrapped__, base._self_config, base._self_call, base._self_scope
        super().__init__(fn, config, call, scope, route, base._self_ways(route))
        self._self_base = base
        self._self_urgency = priority, deadline

    def options(self, *, priority: float = 0, deadline: float | None = None) -> BatchedView:
        return self._self_base.options(priority=priority, deadline=deadline)

    options.__doc__ = Batched.options.__doc__

    def __deepcopy__(self, memo: dict[int, Any]) -> BatchedView:
        return BatchedView(copy.deepcopy(self._self_base, memo), *self._self_urgency)

    def __reduce__(self) -> Any:
        return _view, (self._self_base, *self._self_urgency)

    def __repr__(self) -> str:
        priority, deadline = self._self_urgency
        limit = "" if deadline is None else f", deadline {deadline:g} s"
        return f"<microbatch {self._self_config.name}, priority {priority:g}{limit}>"

    __str__ = __repr__


def _view(base: Batched, priority: float, deadline: float | None) -> BatchedView:
    return base.options(priority=priority, deadline=deadline)
