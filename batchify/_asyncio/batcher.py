"""The asyncio batcher: one batch function, called on any event loop.

Decides: which loop's engine takes a call, and when the batcher is open.
Must not know: threads, decorators.
Each event loop has an ``AsyncEngine`` of its own, created at first use and dropped with the loop.
"""

from __future__ import annotations

import asyncio
from _thread import get_ident
from asyncio import Event, Semaphore, get_running_loop
from collections import deque
from collections.abc import AsyncIterable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar
from weakref import ref

from batchify._asyncio.engine import AsyncEngine, find_loop
from batchify._asyncio.lifespans import LoopLifespans
from batchify._asyncio.offload import ThreadOffload
from batchify._asyncio.waiters import LOOKUP_IS_SLOW, PENDING, TaskWaiter, new_waiter
from batchify._batcher.admission import entry_factory, grouped_entry_factory
from batchify._batcher.base import Batcher
from batchify._batcher.config import ENGINE_OPTIONS, engine_config, shows_options
from batchify._batcher.current import current
from batchify._batcher.cycles import Wait, check_reentrancy
from batchify._batcher.draining import Drain, End
from batchify._batcher.functions import is_async
from batchify._batcher.live import register
from batchify.errors import BatcherClosedError, closed

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future
    from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable

    from typing_extensions import Self, Unpack

    from batchify._batcher.config import Config
    from batchify._batcher.functions import Results
    from batchify._batcher.options import EngineOptions

T = TypeVar("T")
R = TypeVar("R")
A = TypeVar("A")


class AsyncMicrobatcher(Batcher[T, R]):
    """Run a batch function for items that tasks submit one at a time.

    It works on any number of event loops. Calls on one loop share batches. The first ``submit`` starts it.

    The options of ``microbatch`` except ``max_size`` and ``timeout`` are keyword arguments. ``weigh``, ``length`` and
    ``group_by`` get one item.

    Args:
        batch_fn: takes a list of items and returns one result for each, in order. A ``def`` function runs in
            ``executor``, or on a thread of its own, so that the loop stays free.
        max_batch_size: maximum number of items in one call of ``batch_fn``.
        batch_wait_timeout_s: maximum number of seconds that a batch waits for more items, from the arrival of its
            first; ``None`` is adaptive.

    Raises:
        TypeError: an argument is unknown, has a value of the wrong type, or does not work for ``batch_fn``.
        ValueError: an argument is out of range.
    """

    # The engine of a loop, and the source of a ``def`` batch function. ``batchify.testing.inline()`` replaces both.
    _engine_kind: ClassVar[type[AsyncEngine]] = AsyncEngine
    _offload_kind: ClassVar[type[ThreadOffload]] = ThreadOffload
    # Whether the batch function is an ``async def`` function.
    _is_async = True

    @shows_options(*ENGINE_OPTIONS)
    def __init__(
        self,
        batch_fn: Callable[[list[T]], Results[R | Exception] | Coroutine[Any, Any, Results[R | Exception]]],
        max_batch_size: int = 32,
        batch_wait_timeout_s: float | None = 0.002,
        **options: Unpack[EngineOptions[T]],
    ) -> None:
        config = engine_config("AsyncMicrobatcher", batch_fn, max_batch_size, batch_wait_timeout_s, options)
        self._is_async = is_async(batch_fn)
        self._build(lambda: batch_fn, config)
        register(self)

    def _reset_after_fork(self) -> None:
        super()._reset_after_fork()
        # A plain dict with weak keys: one atomic step copies it while other threads add their loops.
        self._by_loop: dict[ref[AbstractEventLoop], AsyncEngine] = {}
        # Turns an item into its entry in the queue; None if the item is the entry. As it runs user code, each call does
        # this first.
        self._prepare = entry_factory(self._config)
        # Whether all engines take calls with priorities and deadlines.
        self._are_engines_ready = self._config.takes_requests
        # The engine of the latest call. A call on the same loop skips the lookup.
        self._engine: AsyncEngine | None = None
        self._started = self._closed = False

    @property
    def is_running(self) -> bool:
        """Whether the batcher accepts items: from the first ``submit`` or ``start()`` until ``stop()``."""
        return self._started and not self._closed

    @property
    def _takes_requests(self) -> bool:
        return self._are_engines_ready

    @property
    def _is_closed(self) -> bool:
        return self._closed

    async def submit(self, item: T, keep: object = None) -> R:  # noqa: ARG002  # the frame keeps it alive
        """Return the result for ``item``, which shares a batch with other submitted items.

        Cancelling the call removes a queued item, and drops the result of a running one.

        Args:
            item: one item.
            keep: any object that must live until the answer.

        Raises:
            BatcherClosedError: the batcher is stopped.
            QueueFullError: the queue is full, and ``on_full`` is ``"raise"``.
            ReentrantCallError: the call comes from inside a batch of the same loop, directly or through another
                batcher, and would wait for itself.
            BatchResultError: the batch function did not return one result for each item.
            BatchAbortedError: the batch was cancelled, but not by this caller.
            Exception: the error of the batch function, as this caller's own exception object.
        """
        if self._prepare is not None or current():
            return await self._submit_slowly(item)
        engine = self._engine
        try:
            if engine is None or (
                (not LOOKUP_IS_SLOW or engine.threaded._thread_id != get_ident())
                and engine.running_loop is not get_running_loop()
            ):
                engine = self._active_engine(get_running_loop())
        except RuntimeError:
            find_loop(self.name)
            raise
        queue = engine.plain
        if queue is None:
            return await self._submit_slowly(item)
        mark, new_future = queue.mark, engine.future
        if new_future is None:
            # As ``new_waiter()``, but without a call.
            waiter: Any = TaskWaiter()
            waiter.get_loop, waiter.answer, waiter.callback = engine.loop, PENDING, None
        else:
            waiter = new_future()
        places = queue.places
        places += (item, waiter, engine.clock())
        try:
            if len(places) >= queue.wake_length:
                engine.start_or_schedule()
            return await waiter  # type: ignore[no-any-return]  # engines carry items and results of any type
        except BaseException:
            engine.leave(mark, waiter)
            raise
        finally:
            # The exception of the waiter refers to this frame, so the frame must not refer to the waiter.
            del waiter

    async def _submit_slowly(self, item: T) -> R:
        """Submit an item that needs an entry of its own, or a call from inside a batch."""
        data = item if self._prepare is None else self._prepare(item)
        loop = find_loop(self.name)
        wait = Wait(self._engine_of(loop).line.queue, self.name) if current() else None
        engine = self._active_engine(loop)
        waiter, mark = new_waiter(loop), 0
        try:
            mark = engine.enter(data, waiter)
            return await waiter  # type: ignore[no-any-return]  # as above
        except BaseException:
            engine.leave(mark, waiter)
            raise
        finally:
            if wait is not None:
                wait.end()
            del waiter

    def _submit_nowait(self, item: T) -> Future[R]:
        """Queue ``item`` at once on the running event loop, and return the future of its result."""
        data = item if self._prepare is None else self._prepare(item)
        engine = self._engine
        try:
            if engine is None or (
                (not LOOKUP_IS_SLOW or engine.threaded._thread_id != get_ident())
                and engine.running_loop is not get_running_loop()
            ):
                engine = self._active_engine(get_running_loop())
        except RuntimeError:
            find_loop(self.name)
            raise
        if current():
            check_reentrancy(engine.line.queue, self.name)
        future = engine.item_future(loop=engine.running_loop) if LOOKUP_IS_SLOW else engine.item_future()
        future.engine, future.callback = engine, None
        queue = engine.plain
        if queue is None:
            future.mark = engine.enter(data, future)
            return future
        future.mark = queue.mark
        places = queue.places
        places += (data, future, engine.clock())
        try:
            if len(places) >= queue.wake_length:
                engine.start_or_schedule()
        except BaseException:
            # The caller gets no future, and calls that came before wait for this step too.
            future.cancel()
            raise
        return future

    def _acall(self, item: T, keep: object = None) -> Any:
        return self.submit(item, keep)

    async def submit_many(self, items: Iterable[T], keep: object = None) -> list[R]:  # noqa: ARG002  # as above
        """Return the results for ``items``, in order, or raise the first error and withdraw the items still queued.

        Args:
            items: any number of items.
            keep: any object that must live until the answers.
        """
        calls: list[Any] = []
        try:
            for item in items:
                calls.append(self._submit_nowait(item))  # noqa: PERF401  # an item may fail after others are queued
            return [await self._result_of(call) for call in calls]
        finally:
            self._cancel_all(calls)

    async def _imap(
        self,
        items: AsyncIterable[Any] | Iterable[Any],
        convert: Callable[[Any], Any],
        ahead: int | None,
        keep: object = None,  # noqa: ARG002  # as above
    ) -> AsyncGenerator[Any]:
        room, ready = Semaphore(self._ahead(ahead)), Event()
        # The started calls in order. The task that starts them is appended after the last one.
        calls: deque[Any] = deque()

        async def start_each() -> None:
            rows = aiter(items) if isinstance(items, AsyncIterable) else _each(items)
            try:
                await room.acquire()
                async for item in rows:
                    calls.append(self._submit_nowait(self._patient(convert(item))))
                    ready.set()
                    await room.acquire()
            finally:
                aclose: Any = getattr(rows, "aclose", None)
                if aclose is not None:
                    await aclose()

        # A task, so that the results of earlier items do not wait for a slow input.
        starter = find_loop(self.name).create_task(start_each())
        # Not in the task, which may end before it begins.
        starter.add_done_callback(calls.append)
        starter.add_done_callback(lambda _: ready.set())
        try:
            while True:
                while not calls:
                    ready.clear()
                    await ready.wait()
                call = calls.popleft()
                if call is starter:
                    break
                yield await self._result_of(call)
                room.release()
            # It raises its error after the results of the items before.
            await starter
        finally:
            starter.cancel()
            self._cancel_all([call for call in calls if call is not starter])
            await asyncio.wait([starter])
            if not starter.cancelled():
                # As in ``_cancel()``.
                starter.exception()

    # Streams replace these two.
    async def _result_of(self, call: Any) -> Any:
        if not current() or call.done():
            return await call
        with Wait(call.engine.line.queue, self.name):
            return await call

    def _cancel(self, call: Any) -> None:
        if not call.cancel() and not call.cancelled():
            # An error is read, so that asyncio does not log it.
            call.exception()

    def _change(self, changes: dict[str, Any]) -> None:
        """Apply validated option changes on every loop."""
        self._config = replace(self._config, **changes)
        # The next call on each loop looks up its engine and applies the changes to it, if that has not happened yet.
        # Only after that may calls prepare their items by the new options.
        self._engine = None
        if self._config.takes_requests and not self._takes_requests:
            self._prepare = grouped_entry_factory(self._prepare, self._config)
            # Only now, when no call can find an engine that does not expect it.
            self._are_engines_ready = True
        for loop, engine in self._present():
            _call_on(loop, partial(_reconfigure, engine), self._config)

    def flush(self) -> None:
        """Start the queued items as soon as slots are free, without waiting for more."""
        for loop, engine in self._reachable():
            _call_on(loop, engine.flush, "flush")

    async def start(self) -> None:
        """Accept items, also after ``stop()``. This is optional: the first ``submit`` starts a new batcher."""
        loop = find_loop(self.name)
        await self._aopen()
        self._engine_of(loop)

    stop = Batcher[Any, Any].aclose
    drain = Batcher[Any, Any]._adrain

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.stop()

    def _accept(self) -> None:
        self._closed = False

    def _drains(self, reason: str) -> list[Drain]:
        if reason == "close":
            self._closed = True
            self._engine = None
        drains: list[Drain] = []
        for loop, engine in self._reachable():
            drain = Drain(engine.line.queue, reason, loop)
            # An idle engine too: a call that found the batcher open may be about to add an item.
            _call_on(loop, engine.drain, drain)
            if not engine.line.idle:
                drains.append(drain)
        return drains

    def _end_workers(self) -> Iterable[End]:
        ends: list[End] = []
        for loop, engine in self._present():
            end = End()
            end.loop = loop
            # A loop that has nothing to exit may be busy with other work.
            if engine.lifespans is not None and engine.lifespans.are_entered and loop.is_running():
                ends.append(end)
            if loop.is_running():
                _call_on(loop, engine.end_workers, end)
            else:
                engine.end_workers(end)
        return ends

    def _drop_queued(self) -> None:
        # Drop nothing if the batcher was opened again in the meantime. Checked here, because a slow loop may run this
        # only after a later ``open()``.
        for loop, engine in self._reachable() if self._closed else ():
            _call_on(loop, AsyncEngine.drop_queued, engine)

    def _check_may_block(self, member: str, instead: str) -> None:
        here = asyncio._get_running_loop()
        if any(loop is here and engine.needs_loop for loop, engine in self._reachable()):
            reason = "would block the event loop that has to run its batches"
            msg = f"{self.name}.{member}() {reason}; use: {instead}"
            raise RuntimeError(msg)

    def _active_engine(self, loop: AbstractEventLoop) -> AsyncEngine:
        engine = self._engine
        if engine is None or engine.loop() is not loop:
            engine = self._engine_of(loop)
        if engine.running_loop is None:
            engine.activate(loop)
        return engine

    def _engine_of(self, loop: AbstractEventLoop) -> AsyncEngine:
        """Return the engine of ``loop``, created if needed, with the present options."""
        if self._closed:
            raise BatcherClosedError(closed(self.name))
        if not self._started:
            self._started = True
            register(self)
        engine = self._by_loop.get(ref(loop))
        if engine is None:
            self._settle()
            config = self._config
            source: Any = self._source if self._is_async else self._offload_kind(self._source, config)
            lifespans = None if self._is_async else source
            if self._is_async and config.lifespan is not None:
                lifespans = LoopLifespans(config.lifespan, config.name)
            engine = self._engine_kind(loop, source, lifespans, config, self._counters)
            self._by_loop[ref(loop, partial(_settle, ref(self)))] = engine
        # Before the check, because another thread may change the options between them.
        self._engine = engine
        if engine.requested is not self._config:
            # The next call comes here again, also after an interrupt.
            self._engine = None
            _reconfigure(engine, self._config)
        return engine

    def _engines(self) -> list[AsyncEngine]:
        return [engine for _, engine in self._present()]

    def _present(self) -> list[tuple[AbstractEventLoop, AsyncEngine]]:
        self._settle()
        return [(loop, engine) for key, engine in list(self._by_loop.items()) if (loop := key()) is not None]

    def _reachable(self) -> list[tuple[AbstractEventLoop, AsyncEngine]]:
        return [(loop, engine) for loop, engine in self._present() if loop.is_running()]

    def _settle(self) -> None:
        """Forget the loops that are closed or gone, and count the calls on them as cancelled."""
        for key, engine in list(self._by_loop.items()):
            # Another thread may find the same loop, and the first one counts its calls.
            if engine.loop_is_closed and self._by_loop.pop(key, None) is not None:
                if self._engine is engine:
                    self._engine = None
                engine.count_lost_calls()


async def _each(items: Iterable[Any]) -> AsyncGenerator[Any]:
    for item in items:
        yield item


# The batcher is held weakly, so that it needs no garbage collector to be freed.
def _settle(weak: ref[AsyncMicrobatcher[Any, Any]], _: object) -> None:
    batcher = weak()
    if batcher is not None:
        batcher._settle()


def _reconfigure(engine: AsyncEngine, config: Config) -> None:
    engine.configure(config)
    if isinstance(engine.source, ThreadOffload):
        engine.source.config = config
    # Last, because an interrupt must leave it for the next call.
    engine.requested = config


def _call_on(loop: AbstractEventLoop, function: Callable[[A], None], argument: A) -> None:
    """Call ``function(argument)`` on ``loop``, unless it is closed."""
    if loop is asyncio._get_running_loop():
        function(argument)
    else:
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(function, argument)
