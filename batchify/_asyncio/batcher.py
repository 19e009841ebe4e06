"""The asyncio engine: one batcher, on whichever event loop calls it.

Decides: which loop's line a call stands in, and when the batcher is open.
Must not know: threads, decorators.

There is one ``AsyncEngine`` for each event loop, made at first use and gone with the loop. ``_engines`` is a plain dict
keyed by weak references because that can be copied in one step while other threads attach their loops.
"""

from __future__ import annotations

import asyncio
from asyncio import CancelledError, get_running_loop
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar
from weakref import ref

from batchify._asyncio.engine import AsyncEngine, CancelCallback
from batchify._asyncio.offload import ThreadOffload
from batchify._batcher.admission import entry_factory, urgent_entry_factory
from batchify._batcher.closing import Awaiting, Blocked
from batchify._batcher.config import for_engine
from batchify._batcher.current import inside
from batchify._batcher.cycles import called, calling
from batchify._batcher.functions import is_async
from batchify._batcher.registry import Counted, register
from batchify.errors import BatcherClosedError, closed

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future
    from collections.abc import Callable, Coroutine, Hashable, Iterable
    from concurrent.futures import Executor

    from typing_extensions import Self

    from batchify._batcher.config import Config
    from batchify._batcher.functions import Results
    from batchify._batcher.report import BatchReport
    from batchify._core.batch import BatchItem
    from batchify._stats.snapshot import BatchStats

T = TypeVar("T")
R = TypeVar("R")
A = TypeVar("A")
D = TypeVar("D", Awaiting, Blocked)


class AsyncMicrobatcher(Counted, Generic[T, R]):
    """Collect single items that tasks submit, and hand them to a batch function together.

    It works on any number of event loops, also one after the other: calls on one loop share batches. The first
    ``submit`` starts it.

    Args:
        batch_fn: takes a list of items and returns one result for each, in order. A plain ``def`` function is run in a
            thread of its own, so that the loop stays free.
        max_batch_size: most items in one call of ``batch_fn``.
        batch_wait_timeout_s: seconds that the first item of a batch waits at most for others; ``None`` is adaptive:
            never wait for company that cannot help.
        name: used in errors and statistics; the name of ``batch_fn`` if not given.
        concurrency: most batches that run at once on one loop.
        max_pending: most items that wait; ``None`` is no bound. What finds no room waits for it, first come first
            served. When there is no room, a batch does not wait for company that could not come.
        on_full: what a call does that finds no room: ``"wait"``, or ``"raise"`` ``QueueFullError`` at once.
        weigh: tells what an item weighs, a number of at least 0; an item heavier than ``max_weight`` is refused.
        max_weight: the weights of a batch sum up to this at most.
        group_by: tells which group an item belongs to, something hashable; only items of one group share a batch.
        dedupe: send equal hashable items that wait together once, and give the result to every caller.
        isolate_errors: when a batch raises an ``Exception``, run its halves again until the bad items are alone, so
            that only they fail.
        executor: any ``concurrent.futures.Executor`` that is to run the batches of a ``def`` function; ``None``:
            threads of its own.
        capture_context: keep the context of each caller for ``current_batch().contexts``.
        on_batch: called with a ``BatchReport`` after each batch, on the loop.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: a number is out of range.
    """

    # What does the work on one loop, and where a plain function is run. ``_inline`` puts others in their place.
    engine_kind: ClassVar[type[AsyncEngine]] = AsyncEngine
    call_captured: ClassVar[type[ThreadOffload]] = ThreadOffload

    def __init__(
        self,
        batch_fn: Callable[[list[T]], Results[R | Exception] | Coroutine[Any, Any, Results[R | Exception]]],
        max_batch_size: int = 32,
        batch_wait_timeout_s: float | None = 0.002,
        *,
        name: str | None = None,
        concurrency: int = 1,
        max_pending: int | None = None,
        on_full: Literal["wait", "raise"] = "wait",
        weigh: Callable[[T], float] | None = None,
        max_weight: float | None = None,
        group_by: Callable[[T], Hashable] | None = None,
        dedupe: bool = False,
        isolate_errors: bool = False,
        executor: Executor | None = None,
        capture_context: bool = False,
        on_batch: Callable[[BatchReport], object] | None = None,
    ) -> None:
        config = for_engine(
            batch_fn,
            max_batch_size,
            batch_wait_timeout_s,
            concurrency=concurrency,
            max_pending=max_pending,
            on_full=on_full,
            weigh=weigh,
            max_weight=max_weight,
            group_by=group_by,
            dedupe=dedupe,
            isolate_errors=isolate_errors,
            executor=executor,
            capture_context=capture_context,
            on_batch=on_batch,
            name=name,
        )
        self._build(lambda: batch_fn, config, is_async=is_async(batch_fn))
        register(self)

    @classmethod
    def from_source(cls, source: Callable[[], Callable[[list[T]], Any]], config: Config) -> Self:
        """Return a batcher that asks ``source`` for its batch function when there is work, and holds it only then.

        The function is ``async def``. The batcher makes itself known at its first use.
        """
        self = cls.__new__(cls)
        self._build(source, config, is_async=True)
        return self

    def _build(self, source: Callable[[], Callable[[list[T]], Any]], config: Config, *, is_async: bool) -> None:
        self._config = config
        # Whether calls may have priorities and deadlines.
        self.allows_priority = config.allows_priority
        self._source = source
        self._is_async = is_async
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        """Begin from nothing: no item, no loop, no thread. The child of a fork needs it."""
        self._engines: dict[ref[AbstractEventLoop], AsyncEngine] = {}
        # What makes of an item what stands in the line, if it is not that itself. It is the user's code, and comes
        # before anything else in a call.
        self._prepare = entry_factory(self._config)
        # The engine that was used last. Looking it up is what a call pays for working on any loop.
        self._engine: AsyncEngine | None = None
        self._started = self._closed = False
        self._counters = {}

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"<AsyncMicrobatcher {self.name}: {state}, {self.stats.pending} pending, {self.stats.running} running>"

    @property
    def name(self) -> str:
        """The name in errors and statistics."""
        return self._config.name

    @property
    def is_running(self) -> bool:
        """Whether it takes items: from the first ``submit`` or ``start()`` until ``stop()``."""
        return self._started and not self._closed

    @property
    def stats(self) -> BatchStats:
        """A snapshot of what happened on all loops, from whichever thread it is asked for."""
        self.settle()
        return self.counters.snapshot(self.name)

    async def submit(self, item: T, keep: object = None) -> R:  # noqa: ARG002  # it is kept by being an argument
        """Return the result for ``item``, which travels with what else is submitted meanwhile.

        Cancelling the caller takes the item out if it has not left yet, and drops its result if it has.

        Args:
            item: one item.
            keep: anything that must live until then.

        Raises:
            BatcherClosedError: it has been stopped.
            ReentrantCallError: called from inside a batch of the same loop, itself or through another batcher, which
                would wait for itself.
            BatchResultError: the batch function did not return one result for each item.
            BatchAbortedError: the batch was cancelled, but not by this caller.
            Exception: whatever the batch function raised, as an exception object of this caller's own.
        """
        data = item if self._prepare is None else self._prepare(item)
        loop = get_running_loop()
        engine = self._engine
        if engine is None or engine.running_loop is not loop:
            engine = self._wake(loop)
        caller = inside()
        queue = engine.queue
        if caller is not None:
            engine.check_reentrancy()
            calling(caller, queue, self.name)
        future = engine.future()
        try:
            ticket = engine.add(data, future, engine.clock())
            if ticket >= queue.wake_ticket:
                engine.start_or_schedule()
            try:
                return await future  # type: ignore[no-any-return]  # engines carry items and results of any type
            except (CancelledError, GeneratorExit):
                engine.leave(ticket, future)
                raise
        finally:
            if caller is not None:
                called(caller, queue)
            # Its exception refers to this frame, which must not refer back.
            del future

    def put(self, item: T) -> Future[R]:
        """Queue ``item`` at once and return the future of its result; a running event loop is needed.

        Cancelling the future takes the item out if it has not left yet.

        Raises:
            RuntimeError: there is no running event loop.
            BatcherClosedError: it has been stopped.
        """
        data = item if self._prepare is None else self._prepare(item)
        loop = get_running_loop()
        engine = self._engine
        if engine is None or engine.running_loop is not loop:
            engine = self._wake(loop)
        if inside():
            engine.check_reentrancy()
        future = engine.future()
        ticket = engine.add(data, future, engine.clock())
        if ticket >= engine.queue.wake_ticket:
            engine.start_or_schedule()
        future.add_done_callback(CancelCallback(engine, ticket), context=engine.empty_context)
        return future

    asubmit = submit

    async def submit_many(self, items: Iterable[T], keep: object = None) -> list[R]:  # noqa: ARG002  # as above
        """Return the results for ``items``, in order; the first error is raised, as ``asyncio.gather`` does.

        Args:
            items: any number of items.
            keep: anything that must live until then.
        """
        futures: list[Future[R]] = []
        try:
            for item in items:
                futures.append(self.put(item))  # noqa: PERF401  # what is queued when an item fails must be known
        except BaseException:
            for future in futures:
                future.cancel()
            raise
        return await asyncio.gather(*futures)

    def waiting(self) -> list[BatchItem]:
        """Return the items that wait at this moment, on each loop in order of arrival."""
        return [item for engine in list(self._engines.values()) for item in engine.waiting()]

    def change(self, changes: dict[str, Any]) -> None:
        """Go by other options, which are valid, from now on, on every loop."""
        self._config = replace(self._config, **changes)
        # The next call of each loop finds its engine anew, and changes it if that has not been told before. What is
        # prepared by these options comes after that.
        self._engine = None
        if self._config.allows_priority and not self.allows_priority:
            self._prepare = urgent_entry_factory(self._prepare, self._config)
            # Only now, when nobody can meet an engine that does not expect it.
            self.allows_priority = True
        for loop, engine in self._present():
            _tell(loop, partial(_change, engine), self._config)

    def flush(self) -> None:
        """Let what waits leave now, as far as there are slots, whichever loop it waits on."""
        for loop, engine in self._reachable():
            _tell(loop, engine.push, "flush")

    async def start(self) -> None:
        """Take items, also after ``stop()``. A new batcher need not be started: the first ``submit`` does it."""
        self._closed = False
        self._attach(get_running_loop())

    async def stop(self) -> None:
        """Take no more items, run what waits, and return when all is answered. Stopping twice is fine.

        Called from inside a batch, it does not wait for that batch, but returns at once.
        """
        self._shut()
        for waiting, loop in self._drain(Awaiting):
            await waiting.wait(loop)
        self._end_threads()

    aclose = stop

    def close(self) -> None:
        """Do what ``stop()`` does, from a thread without a running event loop.

        Raises:
            RuntimeError: called on an event loop that has items to run, and would wait for itself.
        """
        here = _running_loop()
        if any(loop is here and not engine.idle for loop, engine in self._reachable()):
            msg = f"{self.name}.close() would block the event loop that has to run its batches; use: await aclose()"
            raise RuntimeError(msg)
        self._shut()
        for waiting, loop in self._drain(Blocked):
            waiting.wait(loop)
        self._end_threads()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.stop()

    def _shut(self) -> None:
        self._closed = True
        self._engine = None

    def _drain(self, kind: Callable[[], D]) -> list[tuple[D, AbstractEventLoop]]:
        """Let every loop drain its line; return, for each that has items, who is told of the end of that.

        An idle engine is told too, and not waited for: a call that found the batcher open may be about to add an item.
        """
        drains: list[tuple[D, AbstractEventLoop]] = []
        for loop, engine in self._reachable():
            drain = kind()
            _tell(loop, engine.drain, drain.tell)
            if not engine.idle:
                drains.append((drain, loop))
        return drains

    def _end_threads(self) -> None:
        for engine in list(self._engines.values()):
            if isinstance(engine.source, ThreadOffload):
                engine.source.close()

    def _wake(self, loop: AbstractEventLoop) -> AsyncEngine:
        """Return the engine for ``loop``, ready to take items."""
        engine = self._attach(loop)
        engine.wake(loop)
        return engine

    def _attach(self, loop: AbstractEventLoop) -> AsyncEngine:
        """Return the engine for ``loop``, made now if need be."""
        if self._closed:
            raise BatcherClosedError(closed(self.name))
        if not self._started:
            self._started = True
            register(self)
        engine = self._engines.get(ref(loop))
        if engine is None:
            self.settle()
            config = self._config
            source = self._source if self._is_async else self.call_captured(self._source, config)
            engine = self.engine_kind(loop, source, config, self.counters)
            self._engines[ref(loop, partial(_forget, ref(self)))] = engine
        self._engine = engine
        if engine.requested is not self._config:
            _change(engine, self._config)
        return engine

    def _present(self) -> list[tuple[AbstractEventLoop, AsyncEngine]]:
        """Return the engines whose loops are not closed, with these."""
        self.settle()
        return [(loop, engine) for key, engine in list(self._engines.items()) if (loop := key()) is not None]

    def _reachable(self) -> list[tuple[AbstractEventLoop, AsyncEngine]]:
        """Return the engines whose loops run, with these."""
        return [(loop, engine) for loop, engine in self._present() if loop.is_running()]

    def settle(self) -> None:
        """Forget the loops that are closed, and count the calls on them as cancelled."""
        for key, engine in list(self._engines.items()):
            if engine.ended:
                self._forget(key)

    def _forget(self, key: ref[AbstractEventLoop]) -> None:
        engine = self._engines.pop(key, None)
        if engine is None:
            return
        if self._engine is engine:
            self._engine = None
        engine.abandon()


def _forget(weak: ref[AsyncMicrobatcher[Any, Any]], key: ref[AbstractEventLoop]) -> None:
    """Forget a loop that is gone. A batcher that referred to itself would go only when the collector finds it."""
    batcher = weak()
    if batcher is not None:
        batcher._forget(key)


def _change(engine: AsyncEngine, config: Config) -> None:
    engine.requested = config
    engine.change(config)
    if isinstance(engine.source, ThreadOffload):
        engine.source.change(config)


def _running_loop() -> AbstractEventLoop | None:
    try:
        return get_running_loop()
    except RuntimeError:
        return None


def _tell(loop: AbstractEventLoop, do: Callable[[A], None], argument: A) -> None:
    """Do ``do(argument)`` on ``loop``, if it goes on."""
    if loop is _running_loop():
        do(argument)
    else:
        # It may be closed by now.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(do, argument)
