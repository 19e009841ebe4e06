"""The asyncio batcher: one batch function, called on any event loop.

Decides: which loop's engine takes a call, and when the batcher is open.
Must not know: threads, decorators.

Each event loop has an ``AsyncEngine`` of its own, created at first use and dropped with the loop. ``_engines`` is a
plain dict keyed by weak references, because one atomic step copies it while other threads add their loops.
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
from batchify._batcher.registry import register
from batchify._stats.counters import fold, together
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
    from batchify._stats.counters import Stats
    from batchify._stats.snapshot import BatchStats

T = TypeVar("T")
R = TypeVar("R")
A = TypeVar("A")
D = TypeVar("D", Awaiting, Blocked)


class AsyncMicrobatcher(Generic[T, R]):
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

    # The engine of a loop, and the source of a ``def`` batch function. ``batchify.testing.inline()`` replaces both.
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
        """Return a batcher that gets its ``async def`` batch function from ``source`` and holds it while there is work.

        ``batchers()`` lists it from its first use.
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
        """Start afresh, without items, loops and threads, as the child of a fork must."""
        self._engines: dict[ref[AbstractEventLoop], AsyncEngine] = {}
        # Turns an item into its entry in the queue; None if the item is the entry. It runs user code, so a call does it
        # before anything else.
        self._prepare = entry_factory(self._config)
        # The engine of the latest call. A call on the same loop need not look it up.
        self._engine: AsyncEngine | None = None
        self._started = self._closed = False
        # The counters of all engines, including those whose loops are gone.
        self._counts: list[Stats] = []

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"<AsyncMicrobatcher {self.name}: {state}, {self.stats.pending} pending, {self.stats.running} running>"

    @property
    def name(self) -> str:
        """The name in errors and statistics."""
        return self._config.name

    @property
    def is_running(self) -> bool:
        """Whether the batcher takes items: from the first ``submit`` or ``start()`` until ``stop()``."""
        return self._started and not self._closed

    @property
    def stats(self) -> BatchStats:
        """A snapshot of the statistics of all loops. Any thread may read it."""
        return together(self.name, self.parts())

    def parts(self) -> list[Stats]:
        """Return the counters that ``stats`` adds up."""
        self._forget_closed_loops()
        return list(self._counts)

    async def submit(self, item: T, keep: object = None) -> R:  # noqa: ARG002  # the frame keeps it alive
        """Return the result for ``item``, which shares a batch with other items submitted meanwhile.

        Cancelling the caller removes a waiting item, and drops the result of a running one.

        Args:
            item: one item.
            keep: any object that must live until the result is there.

        Raises:
            BatcherClosedError: the batcher has been stopped.
            ReentrantCallError: the call comes from inside a batch of the same loop, directly or through another
                batcher, and that batch would wait for itself.
            BatchResultError: the batch function did not return one result for each item.
            BatchAbortedError: the batch was cancelled, but not by this caller.
            Exception: the error of the batch function, as an exception object of this caller's own.
        """
        data = item if self._prepare is None else self._prepare(item)
        loop = get_running_loop()
        engine = self._engine
        if engine is None or engine.running_loop is not loop:
            engine = self._active_engine(loop)
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
            # The exception of the future refers to this frame, so the frame must not refer to the future.
            del future

    def put(self, item: T) -> Future[R]:
        """Queue ``item`` at once on the running event loop, and return the future of its result.

        Cancelling the future removes a waiting item.

        Raises:
            RuntimeError: there is no running event loop.
            BatcherClosedError: the batcher has been stopped.
        """
        data = item if self._prepare is None else self._prepare(item)
        loop = get_running_loop()
        engine = self._engine
        if engine is None or engine.running_loop is not loop:
            engine = self._active_engine(loop)
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
            keep: any object that must live until the results are there.
        """
        futures: list[Future[R]] = []
        try:
            for item in items:
                futures.append(self.put(item))  # noqa: PERF401  # when an item fails, the queued ones are cancelled
        except BaseException:
            for future in futures:
                future.cancel()
            raise
        return await asyncio.gather(*futures)

    def waiting(self) -> list[BatchItem]:
        """Return the items that wait now, for each loop in order of arrival."""
        return [item for engine in list(self._engines.values()) for item in engine.waiting()]

    def change(self, changes: dict[str, Any]) -> None:
        """Apply validated changes of options from now on, on every loop."""
        self._config = replace(self._config, **changes)
        # The next call on each loop looks up its engine and applies the changes to it, if that has not happened yet.
        # Only after that may items be prepared by the new options.
        self._engine = None
        if self._config.allows_priority and not self.allows_priority:
            self._prepare = urgent_entry_factory(self._prepare, self._config)
            # Only now, when no call can find an engine that does not expect it.
            self.allows_priority = True
        for loop, engine in self._present():
            _call_on(loop, partial(_reconfigure, engine), self._config)

    def flush(self) -> None:
        """Start the waiting items of every loop now, as far as slots are free."""
        for loop, engine in self._reachable():
            _call_on(loop, engine.flush, "flush")

    async def start(self) -> None:
        """Take items, also after ``stop()``. A new batcher need not be started: the first ``submit`` starts it."""
        self._closed = False
        self._engine_of(get_running_loop())

    async def stop(self) -> None:
        """Take no more items, run the waiting ones, and return when every call is answered. Stopping twice is fine.

        Inside a batch, it does not wait for that batch but returns at once.
        """
        self._shut()
        for waiting, loop in self._drain(Awaiting):
            await waiting.wait(loop)
        self._end_threads()

    aclose = stop

    def close(self) -> None:
        """Stop from a thread without a running event loop, as ``stop()`` does.

        Raises:
            RuntimeError: the event loop of this thread has items to run, and would wait for itself.
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
        """Drain the engine of every loop; for each loop with items, return an object that waits for the end of that.

        Idle engines are drained too, since a call that found the batcher open may be about to add an item, but nothing
        waits for them.
        """
        drains: list[tuple[D, AbstractEventLoop]] = []
        for loop, engine in self._reachable():
            drain = kind()
            _call_on(loop, engine.drain, drain.tell)
            if not engine.idle:
                drains.append((drain, loop))
        return drains

    def _end_threads(self) -> None:
        for engine in list(self._engines.values()):
            if isinstance(engine.source, ThreadOffload):
                engine.source.close()

    def _active_engine(self, loop: AbstractEventLoop) -> AsyncEngine:
        """Return the engine of ``loop``, ready to take items."""
        engine = self._engine_of(loop)
        engine.activate(loop)
        return engine

    def _engine_of(self, loop: AbstractEventLoop) -> AsyncEngine:
        """Return the engine of ``loop``, created if needed. It has the present options."""
        if self._closed:
            raise BatcherClosedError(closed(self.name))
        if not self._started:
            self._started = True
            register(self)
        engine = self._engines.get(ref(loop))
        if engine is None:
            self._forget_closed_loops()
            config = self._config
            source = self._source if self._is_async else self.call_captured(self._source, config)
            engine = self.engine_kind(loop, source, config)
            # Before the engine counts anything.
            self._counts.append(engine.stats)
            self._engines[ref(loop, partial(_forget, ref(self)))] = engine
        self._engine = engine
        if engine.requested is not self._config:
            _reconfigure(engine, self._config)
        return engine

    def _present(self) -> list[tuple[AbstractEventLoop, AsyncEngine]]:
        """Return the loops that are not closed, with their engines."""
        self._forget_closed_loops()
        return [(loop, engine) for key, engine in list(self._engines.items()) if (loop := key()) is not None]

    def _reachable(self) -> list[tuple[AbstractEventLoop, AsyncEngine]]:
        """Return the running loops, with their engines."""
        return [(loop, engine) for loop, engine in self._present() if loop.is_running()]

    def _forget_closed_loops(self) -> None:
        for key, engine in list(self._engines.items()):
            if engine.loop_is_closed:
                self._forget(key)

    def _forget(self, key: ref[AbstractEventLoop]) -> None:
        engine = self._engines.pop(key, None)
        if engine is None:
            return
        if self._engine is engine:
            self._engine = None
        engine.count_lost_calls()
        fold(self._counts, many=2)


def _forget(weak: ref[AsyncMicrobatcher[Any, Any]], key: ref[AbstractEventLoop]) -> None:
    """Forget a collected loop. The batcher is held weakly, so that it needs no garbage collector to be freed."""
    batcher = weak()
    if batcher is not None:
        batcher._forget(key)


def _reconfigure(engine: AsyncEngine, config: Config) -> None:
    engine.requested = config
    engine.change(config)
    if isinstance(engine.source, ThreadOffload):
        engine.source.change(config)


def _running_loop() -> AbstractEventLoop | None:
    try:
        return get_running_loop()
    except RuntimeError:
        return None


def _call_on(loop: AbstractEventLoop, function: Callable[[A], None], argument: A) -> None:
    """Call ``function(argument)`` on ``loop``, unless it is closed."""
    if loop is _running_loop():
        function(argument)
    else:
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(function, argument)
