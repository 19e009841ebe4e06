"""The batcher: a batch function that is called with one item, whatever drives it.

Decides: when a batcher takes calls, and how it drains and closes.
Must not know: how a call waits, how an engine runs batches.

A subclass is a shell. It creates its engines, puts calls into them, and has these members:

    _drains(reason)                  start the queued items of all engines, and return the drains to wait for
    _end_workers()                   let idle worker threads end; one ``End`` for each
    _drop_queued()                   fail the items that have not started
    _accept()                        take calls, also after the batcher was closed
    _takes_requests                  whether calls may have priorities and deadlines
    _check_may_block(member, ...)    refuse to block the loop that has to run the batches; on threads, only warn
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from batchify._batcher.draining import Drain, End, wait_for, wait_for_async
from batchify._batcher.live import register
from batchify._batcher.requests import Request
from batchify._core.limits import seconds
from batchify._stats.counters import Stats

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence

    from typing_extensions import Self

    from batchify._batcher.config import Config
    from batchify._core.batch import BatchItem
    from batchify._stats.snapshot import BatchStats

T = TypeVar("T")
R = TypeVar("R")


class Batcher(Generic[T, R]):
    # Whether the end of the process waits for its calls.
    _drains_at_exit: ClassVar[bool] = False
    # The batcher that counts the calls of this one too.
    _parent: Batcher[Any, Any] | None = None
    _config: Config
    # Returns the batch function, which an engine holds only while there is work.
    _source: Callable[..., Callable[[list[T]], Any]]
    # The end of the latest ``close()``.
    _closing: End | None
    # Empty until first use. A dict, because the first of several threads that add counters must win.
    _own_counters: dict[None, Stats]

    @classmethod
    def _from_source(cls, source: Callable[..., Callable[[list[T]], Any]], config: Config) -> Self:
        """Return a batcher that takes its batch function from ``source``, and holds it only while there is work."""
        self = cls.__new__(cls)
        self._build(source, config)
        return self

    def _build(self, source: Callable[..., Callable[[list[T]], Any]], config: Config) -> None:
        self._source = source
        self._config = config
        self._reset_after_fork()

    # The child of a fork has the items and locks of its parent, but none of its threads and loops.
    def _reset_after_fork(self) -> None:
        self._own_counters = {}
        self._closing = None

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else "open"
        kind, stats = type(self).__name__, self.stats
        return f"<{kind} {self.name}: {state}, {stats.pending} pending, {stats.running} running>"

    @property
    def name(self) -> str:
        """The name in errors, statistics and thread names."""
        return self._config.name

    @property
    def _counters(self) -> Stats:
        if not self._own_counters:
            register(self, listed=False)
            self._own_counters.setdefault(None, Stats(None if self._parent is None else self._parent._counters))
        return self._own_counters[None]

    @property
    def stats(self) -> BatchStats:
        """A snapshot of the statistics. Any thread may read it."""
        self._settle()
        return self._counters.snapshot(self.name)

    def _settle(self) -> None:
        """Count calls as cancelled that no engine can answer any more."""

    def waiting(self) -> list[BatchItem]:
        """Return the queued items, for each event loop in order of arrival."""
        return [item for engine in self._engines() for item in engine.waiting()]

    def _drain(self, timeout: float | None = None) -> None:
        """Start the queued items now, and return when all calls made so far are answered. Then idle workers end.

        No call is refused. A batch does not wait for itself.

        Args:
            timeout: maximum number of seconds to wait; ``None`` means no limit.

        Raises:
            TimeoutError: some of the calls are not answered yet.
            RuntimeError: the caller blocks the event loop that has to run the items.
        """
        limit = seconds("timeout", timeout)
        self._check_may_block("drain", "await adrain()")
        if not wait_for(self._ends("flush"), limit):
            raise TimeoutError(self._undrained())

    async def _adrain(self, timeout: float | None = None) -> None:
        """Drain the batcher without blocking the event loop."""
        limit = seconds("timeout", timeout)
        if not await wait_for_async(self._ends("flush"), limit):
            raise TimeoutError(self._undrained())

    def close(self, timeout: float | None = None) -> None:
        """Refuse new items, run the queued ones, and return when all are answered and all worker threads have ended.

        Closing twice is fine. A call from inside a batch does not wait for that batch.

        Args:
            timeout: maximum number of seconds to wait; ``None`` means no limit. Then items that have not started fail
                with ``BatcherClosedError``, and running batches are left to finish by themselves.

        Raises:
            RuntimeError: the caller blocks the event loop that has to run the items; use ``await aclose()`` there.
        """
        limit = seconds("timeout", timeout)
        self._check_may_block("close", "await aclose()")
        with closing(self._ends("close")) as ends:
            # Inside, because ``open()`` waits until the ends are closed.
            if not wait_for(ends, limit):
                self._drop_queued()

    async def aclose(self, timeout: float | None = None) -> None:
        """Close the batcher without blocking the event loop."""
        limit = seconds("timeout", timeout)
        with closing(self._ends("close")) as ends:
            # As in ``close()``.
            if not await wait_for_async(ends, limit):
                self._drop_queued()

    def _open(self) -> None:
        """Take calls again after ``close()``; wait for one in progress."""
        if self._closing is not None and not self._closing.done():
            self._check_may_block("open", f"async with {self.name}")
            wait_for([self._closing], None)
        self._accept()

    async def _aopen(self) -> None:
        if self._closing is not None:
            await wait_for_async([self._closing], None)
        self._accept()

    def _ends(self, reason: str) -> Generator[End]:
        """Start the queued items, and yield the ends that a drain or, for ``"close"``, the closing waits for."""
        done, drains = End(), list[Drain]()
        if reason == "close":
            # First, so that ``open()`` waits as soon as the batcher is closed.
            self._closing = done
        try:
            drains += self._drains(reason)
            # Not at the end of this generator, because ``open()`` may block the loop that would continue it.
            done.set_after(drains)
            yield from drains
            yield from self._end_workers()
        finally:
            # A batch that stops waiting does not close a cycle any more.
            for drain in drains:
                drain.cancel()
            done.set()

    def _undrained(self) -> str:
        stats = self.stats
        calls = stats.pending + stats.running
        left = f"{calls} unanswered call{'' if calls == 1 else 's'}" if calls else "workers to end"
        return f"{self.name} still had {left} at the end of its timeout; allow drain() more time"

    def _patient(self, row: Any) -> Any:
        """Return the row of a call that waits for room, whatever ``on_full`` is."""
        if self._config.on_full != "raise":
            return row
        request = row if type(row) is Request else Request(row)
        request.waits = True
        return request

    def _ahead(self, ahead: int | None) -> int:
        return 2 * self._config.max_size * self._config.concurrency if ahead is None else ahead

    def _cancel_all(self, calls: Sequence[Any]) -> None:
        # In reverse order: otherwise each would make room for the next one.
        for call in reversed(calls):
            self._cancel(call)

    def _apply_changes(self) -> None:
        """Wait until changed options apply to new calls. On an event loop, changes apply at once."""

    if TYPE_CHECKING:
        # Members that the shells define.
        @property
        def is_running(self) -> bool: ...
        @property
        def _is_closed(self) -> bool: ...
        @property
        def _takes_requests(self) -> bool: ...
        def submit(self, item: T, keep: object = None) -> Any: ...
        def _submit_nowait(self, item: T) -> Any: ...
        def _acall(self, item: T, keep: object = None) -> Any: ...
        def submit_many(self, items: Iterable[T], keep: object = None) -> Any: ...
        def _imap(self, items: Any, convert: Callable[[Any], Any], ahead: int | None, keep: object = None) -> Any: ...
        def flush(self) -> None: ...
        def _cancel(self, call: Any) -> None: ...
        def _change(self, changes: dict[str, Any]) -> None: ...
        def _engines(self) -> list[Any]: ...
        def _drains(self, reason: str) -> list[Drain]: ...
        def _end_workers(self) -> Iterable[End]: ...
        def _drop_queued(self) -> None: ...
        def _accept(self) -> None: ...
        def _check_may_block(self, member: str, instead: str) -> None: ...
