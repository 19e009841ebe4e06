"""The batcher on threads, for callers in any thread and, through the bridge, on any event loop.

Decides: how a caller waits.
Must not know: batches, decorators, or more about event loops than whether one runs in this thread.
"""

from __future__ import annotations

import sys
import warnings
from collections import deque
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

from batchify._batcher.base import Batcher
from batchify._batcher.config import ENGINE_OPTIONS, engine_config, shows_options
from batchify._batcher.current import current
from batchify._batcher.cycles import Wait
from batchify._batcher.draining import Drain
from batchify._batcher.executors import run_in
from batchify._batcher.functions import is_async
from batchify._batcher.live import configure_lock, register
from batchify._batcher.waiters import Failed
from batchify._clock import monotonic
from batchify._threads.engine import ThreadEngine
from batchify._threads.shutdown import drain_before_exit_of
from batchify._threads.waiters import FutureWaiter, held_lock, kept, new_waiter
from batchify.errors import ReentrantCallError, interrupting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future
    from threading import Lock
    from weakref import ref

    from typing_extensions import Self, Unpack

    from batchify._batcher.config import Config
    from batchify._batcher.draining import End
    from batchify._batcher.functions import Results
    from batchify._batcher.options import EngineOptions

T = TypeVar("T")
R = TypeVar("R")


def look_for_loop() -> Any:
    """Return the event loop that runs in this thread, or ``None``. No loop runs before asyncio is loaded."""
    global running_loop  # noqa: PLW0603  # each call asks for the loop, and asyncio's own function takes less time
    # asyncio lacks the function while another thread imports it.
    running_loop = getattr(sys.modules.get("asyncio"), "_get_running_loop", look_for_loop)
    return None if running_loop is look_for_loop else running_loop()


running_loop: Callable[[], Any] = look_for_loop


class SyncMicrobatcher(Batcher[T, R]):
    """Run a batch function for items that threads submit one at a time.

    With ``concurrency=1``, the batch function always runs on the same thread, which the first ``submit`` starts.

    The options of ``microbatch`` except ``max_size`` and ``timeout`` are keyword arguments. ``weigh``, ``length`` and
    ``group_by`` get one item.

    Args:
        batch_fn: takes a list of items and returns one result for each, in order.
        max_batch_size: maximum number of items in one call of ``batch_fn``.
        batch_wait_timeout_s: maximum number of seconds that a batch waits for more items, from the arrival of its
            first; ``None`` is adaptive.

    Raises:
        TypeError: an argument is unknown, has a value of the wrong type, or does not work for ``batch_fn``;
            or ``batch_fn`` is an ``async def`` function.
        ValueError: an argument is out of range.
    """

    _engine: ThreadEngine | None = None
    # ``testing.inline()`` replaces it.
    _engine_kind: ClassVar[type[ThreadEngine]] = ThreadEngine
    _drains_at_exit = True
    # How a task asks for the answer of ``acall()``.
    _awaited: ClassVar[str] = "await "
    # The module for calls from event loops. The first such call loads it, so programs without loops skip asyncio.
    _bridge: ClassVar[Any] = None

    @shows_options(*ENGINE_OPTIONS)
    def __init__(
        self,
        batch_fn: Callable[[list[T]], Results[R | Exception]],
        max_batch_size: int = 32,
        batch_wait_timeout_s: float | None = 0.002,
        **options: Unpack[EngineOptions[T]],
    ) -> None:
        config = engine_config("SyncMicrobatcher", batch_fn, max_batch_size, batch_wait_timeout_s, options)
        if is_async(batch_fn):
            msg = f"SyncMicrobatcher runs def functions, and {config.name} is async def; use AsyncMicrobatcher"
            raise TypeError(msg)
        self._build(partial(run_in, batch_fn), config)
        register(self)

    def _build(self, source: Callable[..., Callable[[list[T]], Any]], config: Config) -> None:
        drain_before_exit_of(config.executor)
        super()._build(source, config)

    def _reset_after_fork(self) -> None:
        if self._engine is not None and self._engine.is_orphan():
            self._engine.free_futures()
        super()._reset_after_fork()
        self._engine = None

    def _ensure_engine(self) -> ThreadEngine:
        if self._engine is None:
            with configure_lock:
                if self._engine is None:
                    register(self)
                    engine = self._engine_kind(self._source, self._config, self._counters)
                    # No call in between: a signal handler may have made the first call meanwhile.
                    if self._engine is None:
                        self._engine = engine
        return self._engine

    def _engines(self) -> list[ThreadEngine]:
        return [] if self._engine is None else [self._engine]

    @property
    def _is_closed(self) -> bool:
        return self._engine is not None and self._engine.closed

    @property
    def is_running(self) -> bool:
        """Whether the batcher accepts items: from the first ``submit`` or ``start()`` until ``stop()``."""
        return self._engine is not None and not self._engine.closed

    def submit(self, item: T, keep: object = None) -> R:  # noqa: ARG002  # the frame keeps it alive
        """Return the result for ``item``, which shares a batch with other submitted items. Block until then.

        Args:
            item: one item.
            keep: any object that must live until the answer.

        Raises:
            BatcherClosedError: the batcher is stopped.
            QueueFullError: the queue is full, and ``on_full`` is ``"raise"``.
            ReentrantCallError: the call comes from inside a batch of this batcher, directly or through another
                batcher, and would wait for itself.
            BatchResultError: the batch function did not return one result for each item.
            BaseException: the error of the batch function, as this caller's own exception object.
        """
        if running_loop() is not None:
            self._warn_on_loop("")
        engine, waiter = self._engine or self._ensure_engine(), kept.waiter
        queue = engine.plain
        if waiter is None or waiter.is_busy:
            engine.check_blocking()
            # A signal handler may have interrupted the call that times the window. A worker does so instead.
            queue = queue if waiter is None else None
            waiter = new_waiter()
        wait = Wait(engine.line.queue, engine.name) if current() else None
        waiter.is_busy = True
        try:
            if queue is None or engine.reentered() or engine.is_interrupted():
                engine.enter(item, waiter)
                waiter.acquire()
            else:
                mark, places = queue.mark, queue.places
                places += (item, waiter, monotonic())
                seconds = engine.arrived(queue, mark, waiter) if len(places) >= queue.wake_length else -1
                while not waiter.acquire(True, seconds):  # noqa: FBT003  # naming the arguments costs more than this
                    seconds = engine.arrived(queue, mark, waiter)
            answer, waiter.value, waiter.is_busy = waiter.value, None, False
        except BaseException:
            # Ctrl-C, an error of another signal handler, or the limit of recursion. These may interrupt any call here,
            # and the rest is left to a worker. The waiter is not reused: a worker may still wake it.
            if kept.waiter is waiter:
                kept.waiter = None
            waiter.left = True
            engine.abandoned += (waiter,)
            engine.workers.waker = engine
            try:  # noqa: SIM105  # without a call, which may be too deep
                engine.workers.wake_idle()
            except RuntimeError:
                # That worker is woken already.
                pass
            engine.recover()
            raise
        finally:
            if wait is not None:
                wait.end()
        if type(answer) is not Failed:
            return answer  # type: ignore[no-any-return]  # waiters carry results of any type
        try:
            raise answer.error
        finally:
            # The traceback refers to this frame, which must not refer back.
            del answer

    def _submit_nowait(self, item: T) -> Future[R]:
        """Queue ``item`` at once and return the future of its result. Without room for the item, block."""
        engine = self._ensure_engine()
        future = FutureWaiter()
        if self._config.max_pending is not None:
            future.gate = held_lock()
        mark = engine.enter(item, future)
        try:
            future.add_done_callback(partial(_leave_if_cancelled, engine.workers.weak, mark))
        except BaseException:
            engine.abandoned += (future,)
            engine.recover()
            raise
        if future.gate is not None:
            self._wait_for_room(engine, future.gate, future.cancel)
        return future

    def _acall(self, item: T, keep: object = None) -> Any:
        """Return a coroutine for the result for ``item``, for a task on any event loop."""
        return (self._bridge or load_bridge()).acall(self, item, keep)

    def submit_many(self, items: Iterable[T], keep: object = None) -> list[R]:  # noqa: ARG002  # as above
        """Return the results for ``items``, in order, or raise the first error and withdraw the items still queued.

        Args:
            items: any number of items.
            keep: any object that must live until the answers.
        """
        self._warn_on_loop(".map")
        calls: list[Any] = []
        try:
            for item in items:
                calls.append(self._submit_nowait(item))  # noqa: PERF401  # an item may fail after others are queued
            return [self._await_result(call) for call in calls]
        finally:
            self._cancel_all(calls)

    def _imap(
        self,
        items: Iterable[Any],
        convert: Callable[[Any], Any],
        ahead: int | None,
        keep: object = None,  # noqa: ARG002  # as above
    ) -> Iterator[Any]:
        self._warn_on_loop(".imap")
        limit = self._ahead(ahead)
        started = (self._submit_nowait(self._patient(convert(item))) for item in items)
        calls: deque[Any] = deque()
        ended: Exception | None = None
        try:
            while True:
                while ended is None and len(calls) < limit:
                    try:
                        calls.append(next(started))
                    except Exception as error:  # noqa: BLE001, PERF203  # raised after the results of earlier items
                        ended = error
                if calls:
                    result = self._await_result(calls[0])
                    calls.popleft()
                    yield result
                elif isinstance(ended, StopIteration):
                    return
                else:
                    raise cast("Exception", ended)
        finally:
            # The traceback refers to this frame, which must not refer back.
            ended = None
            self._cancel_all(calls)

    def _wait_for_room(self, engine: ThreadEngine, gate: Lock, leave: Callable[[], object]) -> None:
        """Block until the item has room. After an error, call ``leave``."""
        try:
            if gate.acquire(blocking=False):
                return
            self._warn_on_loop(".submit")
            engine.check_blocking()
            with Wait(engine.line.queue, engine.name):
                gate.acquire()
        except BaseException:
            # Also Ctrl-C, or an error of another signal handler.
            leave()
            raise

    def _warn_on_loop(self, member: str) -> None:
        warn_on_loop(f"{self.name}{member}", f"{self._awaited}{self.name}.acall(item)")

    # Streams replace these two.
    def _await_result(self, call: Any) -> Any:
        if not current() or call.done():
            return call.result()
        engine = self._ensure_engine()
        with Wait(engine.line.queue, engine.name):
            return call.result()

    def _cancel(self, call: Any) -> None:
        call.cancel()

    def _change(self, changes: dict[str, Any]) -> None:
        """Apply validated option changes. Needs ``configure_lock``."""
        while True:
            before, engine = self._config, self._engine
            config = replace(before, **changes)
            drain_before_exit_of(config.executor)
            if engine is not None:
                # Inside the engine, other changes are deferred, but the next call already needs this one.
                if "takes_requests" in changes and engine.reentered():
                    raise ReentrantCallError(interrupting(self.name))
                engine.configure(config)
            # Last, so that no call with a priority reaches an engine that does not expect it. No call in between: if a
            # signal handler has made another change meanwhile, both apply.
            if self._config is before:
                self._config = config
                return

    @property
    def _takes_requests(self) -> bool:
        # An engine that has not applied the options yet may open its plain queue once more.
        engine = self._engine
        return (self._config if engine is None else engine.line.config).takes_requests

    def _apply_changes(self) -> None:
        for engine in self._engines():
            engine.apply_config()

    def flush(self) -> None:
        """Start the queued items as soon as slots are free, without waiting for more."""
        for engine in self._engines():
            engine.flush()

    def start(self) -> None:
        """Accept items, also after ``stop()``. This is optional: the first ``submit`` starts a new batcher."""
        self._open()

    stop = Batcher[Any, Any].close
    drain = Batcher[Any, Any]._drain

    def _accept(self) -> None:
        self._ensure_engine().open()

    def _drains(self, reason: str) -> list[Drain]:
        engines = [self._ensure_engine()] if reason == "close" else self._engines()
        drains = [Drain(engine.line.queue, reason) for engine in engines]
        for engine, drain in zip(engines, drains, strict=True):
            engine.drain(drain)
        return drains

    def _end_workers(self) -> Iterable[End]:
        return [end for engine in self._engines() for end in engine.end_workers()]

    def _drop_queued(self) -> None:
        for engine in self._engines():
            engine.drop_queued()

    def _check_may_block(self, member: str, instead: str) -> None:
        warn_on_loop(f"{self.name}.{member}", instead)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()


def load_bridge() -> Any:
    SyncMicrobatcher._bridge = import_module("batchify._bridge")
    return SyncMicrobatcher._bridge


# The engine is held weakly, as a future keeps its callbacks.
def _leave_if_cancelled(weak: ref[ThreadEngine], mark: int, future: Future[Any]) -> None:
    engine = weak()
    if engine is not None and future.cancelled():
        engine.leave(mark, future)


def warn_on_loop(name: str, use: str) -> None:
    """Warn, in the debug mode of asyncio, of a call that blocks the event loop of its own thread."""
    loop = running_loop()
    if loop is not None and loop.get_debug():
        msg = f"{name}() blocks the event loop that it is called from; use: {use}"
        # The warning is about the first frame outside of this package.
        level, frame = 1, sys._getframe()
        while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("batchify."):
            level, frame = level + 1, frame.f_back
        warnings.warn(msg, RuntimeWarning, stacklevel=level)
