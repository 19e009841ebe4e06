"""What a decorated function offers: a proxy of the batch function that is called with one item.

Decides: which members there are, and what a view adds to the calls that are made through it.
Must not know: batches, how an engine works, which batcher a call belongs to.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, TypeAlias

from wrapt import BaseObjectProxy

from batchify._batcher.admission import Prioritized
from batchify._batcher.config import changes
from batchify._batcher.registry import configure_lock
from batchify._core.limits import number, positive
from batchify._stats.snapshot import BatchStats

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from inspect import Signature

    from typing_extensions import Self

    from batchify._batcher.config import Config
    from batchify._batcher.registry import Batcher
    from batchify._decorator.signature import Call

    Proxy: TypeAlias = BaseObjectProxy[Any]
else:
    Proxy = BaseObjectProxy


class Batched(Proxy):
    """What a decorated function offers, bound to an instance or not.

    Everything else is that of the batch function: its name, documentation, module and kind.
    """

    # The ways to call it stand in slots: a method of a proxy would cost a tenth of a call.
    __slots__ = {  # noqa: RUF023  # the order in which one meets them
        "__call__": """Run one item and return its result; of an ``async def`` function, return a coroutine of it.

        Of a generator function, return a stream: an iterator of the values for the item, asynchronous for an ``async
        def`` one. It is queued when it is first read.
        """,
        "submit": """Queue one item at once and return the future of its result.

        It is a ``concurrent.futures.Future`` for a ``def`` function, and an ``asyncio.Future`` for an ``async def``
        function, which needs a running event loop. Cancelling it takes the item out if it has not left yet. Of a
        generator function, it is a stream, as a call returns.

        Raises:
            BatcherClosedError: the function has been closed.
        """,
        "acall": """Return a coroutine of the result for one item, to be awaited on any event loop.

        Calls of a ``def`` function from threads and from all event loops share the same batches. Of a generator
        function, return an asynchronous iterator of the values for the item.
        """,
    }

    def __init__(self, fn: Callable[..., Any], config: Config, call: Call, *ways: Callable[..., Any]) -> None:
        super().__init__(fn)
        self._self_config = config
        self._self_call = call
        for put, way in zip(_put, ways, strict=True):
            put(self, way)

    def _self_batcher(self) -> Batcher:
        """Return the batcher that calls go to."""
        raise NotImplementedError

    def _self_keep(self) -> object:
        """Return what must live as long as a call does."""
        return None

    def _self_batchers(self) -> list[Batcher]:
        """Return the batchers that exist. The first one counts for all of them."""
        raise NotImplementedError

    def _self_closing(self) -> list[Batcher]:
        """Return the batchers to close so that no call is taken any more."""
        raise NotImplementedError

    def map(self, items: Iterable[Any], /, **options: Any) -> Any:
        """Return the results for ``items``, in order: a list, or for an ``async def`` function an awaitable of one.

        Of a generator function, the result for an item is the list of all its values.

        Args:
            items: any number of items; with several columns, tuples of one element for each.
            options: those of the batch function, for all items.

        Raises:
            Exception: the error of the first item that has one.
        """
        return self._self_submit_many(self._self_call.rows(items, options))

    def _self_submit_many(self, rows: Iterable[Any]) -> Any:
        return self._self_batcher().submit_many(rows, self._self_keep())

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
        return BatchedView(Urging(self, number("priority", priority), positive("deadline", deadline)))

    @property
    def batch_stats(self) -> BatchStats:
        """A snapshot of the statistics."""
        batchers = self._self_batchers()
        for batcher in batchers:
            batcher.settle()
        return batchers[0].stats if batchers else BatchStats(self._self_config.name)

    def reset_stats(self) -> None:
        """Set the statistics to zero; waiting and running calls stay counted.

        Of a method seen from its class, it resets all instances too; of one of an instance, only that instance.
        """
        for batcher in self._self_batchers()[:1]:
            batcher.counters.reset()

    def configure(self, **options: Any) -> None:
        """Change ``max_size``, ``timeout``, ``concurrency`` or ``executor`` while it works; what runs is left alone.

        Of a method seen from its class, it is for all instances there are and all that come; of one of an instance, for
        that instance.

        Raises:
            TypeError: an option is of the wrong kind, or cannot change.
            ValueError: an option is out of range.
        """
        with configure_lock:
            self._self_change(changes(self.__wrapped__, options))

    def _self_change(self, changes: dict[str, Any]) -> None:
        """Go by other options, which are valid, from now on."""
        raise NotImplementedError

    def flush(self) -> None:
        """Let what waits leave now, as far as there are slots."""
        for batcher in self._self_batchers():
            batcher.flush()

    def close(self) -> None:
        """Take no new calls, run what waits, and return when all is answered. Closing twice is fine.

        Raises:
            RuntimeError: the caller is an event loop that has to run some of it; use ``await fn.aclose()`` there.
        """
        for batcher in self._self_closing():
            batcher.close()

    async def aclose(self) -> None:
        """Do what ``close()`` does without blocking the event loop."""
        for batcher in self._self_closing():
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
_put = [vars(Batched)[name].__set__ for name in Batched.__slots__]


class Urging:
    """The ways to call a decorated function for those who are urgent, by the row of a call."""

    def __init__(self, base: Batched, priority: float, time_limit: float | None) -> None:
        self.base = base
        self.priority = priority
        self.time_limit = time_limit

    def submit(self, row: Any) -> Any:
        return self._batcher().submit(self._urgent(row), self.base._self_keep())

    def put(self, row: Any) -> Any:
        return self._batcher().put(self._urgent(row))

    def asubmit(self, row: Any) -> Any:
        return self._batcher().asubmit(self._urgent(row), self.base._self_keep())

    def submit_many(self, rows: Iterable[Any]) -> Any:
        return self._batcher().submit_many(map(self._urgent, rows), self.base._self_keep())

    def _urgent(self, row: Any) -> Prioritized:
        return Prioritized(row, self.priority, self.time_limit)

    def _batcher(self) -> Batcher:
        batcher = self.base._self_batcher()
        if not batcher.allows_priority:
            with configure_lock:
                # Another thread may have done it meanwhile.
                if not batcher.allows_priority:
                    batcher.change({"allows_priority": True})
        return batcher


class BatchedView(Batched):
    """A decorated function, or method, as those call it who are urgent."""

    def __init__(self, urging: Urging) -> None:
        base, call = urging.base, urging.base._self_call
        ways = [call.one(urging.submit), call.one(urging.put), call.one(urging.asubmit)]
        super().__init__(base.__wrapped__, base._self_config, call, *ways)
        self._self_urging = urging
        self._self_base = base

    def options(self, *, priority: float = 0, deadline: float | None = None) -> BatchedView:
        return self._self_base.options(priority=priority, deadline=deadline)

    options.__doc__ = Batched.options.__doc__

    def _self_submit_many(self, rows: Iterable[Any]) -> Any:
        return self._self_urging.submit_many(rows)

    def _self_batchers(self) -> list[Batcher]:
        return self._self_base._self_batchers()

    def _self_closing(self) -> list[Batcher]:
        return self._self_base._self_closing()

    def _self_change(self, changes: dict[str, Any]) -> None:
        self._self_base._self_change(changes)

    def __deepcopy__(self, memo: dict[int, Any]) -> BatchedView:
        urging = self._self_urging
        return BatchedView(Urging(copy.deepcopy(urging.base, memo), urging.priority, urging.time_limit))

    def __reduce__(self) -> Any:
        return _viewed, (self._self_base, self._self_urging.priority, self._self_urging.time_limit)

    def __repr__(self) -> str:
        urging = self._self_urging
        deadline = "" if urging.time_limit is None else f", deadline {urging.time_limit:g} s"
        return f"<microbatch {self._self_config.name}, priority {urging.priority:g}{deadline}>"

    __str__ = __repr__


def _viewed(base: Batched, priority: float, deadline: float | None) -> BatchedView:
    return base.options(priority=priority, deadline=deadline)
