"""Routes: how a call reaches its batcher, as a bare item or as a request.

Must not know: how a batcher works, or how Python binds functions.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from batchify._batcher.live import configure_lock
from batchify._batcher.requests import Request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from batchify._batcher.base import Batcher
    from batchify._decorator.signature import Call

    # The functions behind ``fn``, ``fn.submit`` and ``fn.acall``.
    Ways: TypeAlias = tuple[Callable[..., Any], ...]


class Route:
    """The way from a call to its batcher. ``instance``, that of a method, lives at least as long as its calls."""

    __slots__ = ("find", "instance")

    def __init__(self, find: Callable[[], Batcher[Any, Any]], instance: object = None) -> None:
        self.find = find
        self.instance = instance

    def submit(self, row: Any) -> Any:
        return self.find().submit(row, self.instance)

    def _submit_nowait(self, row: Any) -> Any:
        return self.find()._submit_nowait(row)

    def _acall(self, row: Any) -> Any:
        return self.find()._acall(row, self.instance)

    def submit_many(self, rows: Iterable[Any]) -> Any:
        return self.find().submit_many(rows, self.instance)

    def _imap(self, items: Any, convert: Callable[[Any], Any], ahead: int | None) -> Any:
        return self.find()._imap(items, convert, ahead, self.instance)

    def requests(self) -> RequestRoute:
        return RequestRoute(self)


class RequestRoute(Route):
    """The way of calls with options, a priority or a time limit in seconds; the first makes the batcher accept them."""

    __slots__ = ("priority", "time_limit")

    def __init__(self, route: Route, priority: float = 0.0, time_limit: float | None = None) -> None:
        super().__init__(partial(_find_for_requests, route.find), route.instance)
        self.priority = priority
        self.time_limit = time_limit

    def submit(self, row: Any) -> Any:
        return super().submit(self._request(row))

    def _submit_nowait(self, row: Any) -> Any:
        return super()._submit_nowait(self._request(row))

    def _acall(self, row: Any) -> Any:
        return super()._acall(self._request(row))

    def submit_many(self, rows: Iterable[Any]) -> Any:
        return super().submit_many(map(self._request, rows))

    def _imap(self, items: Any, convert: Callable[[Any], Any], ahead: int | None) -> Any:
        return super()._imap(items, lambda item: self._request(convert(item)), ahead)

    def requests(self) -> RequestRoute:
        return self

    def _request(self, row: Any) -> Request:
        request = row if type(row) is Request else Request(row)
        request.priority, request.time_limit = self.priority, self.time_limit
        return request


def _find_for_requests(find: Callable[[], Batcher[Any, Any]]) -> Batcher[Any, Any]:
    batcher = find()
    if not batcher._takes_requests:
        with configure_lock:
            # Another thread may have changed it meanwhile.
            if not batcher._takes_requests:
                batcher._change({"takes_requests": True})
        # Not inside, because a finalizer may change options while its thread holds the lock of the engine.
        batcher._apply_changes()
    return batcher


def ways(call: Call, plain: Batcher[Any, Any] | Route, route: Route) -> Ways:
    requests = route.requests()
    return (
        call.bind(plain.submit, requests.submit),
        call.bind(plain._submit_nowait, requests._submit_nowait),
        call.bind(plain._acall, requests._acall),
    )
