"""The thread engine: one batcher, for callers in any thread and, through a narrow bridge, on any event loop.

Decides: how a caller waits, and what happens to batchers when the process ends.
Must not know: batches, event loops, decorators.
"""

from __future__ import annotations

import atexit
import sys
import threading
import warnings
from contextlib import suppress
from dataclasses import replace
from functools import partial
from threading import get_ident
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar
from weakref import WeakSet

from batchify._batcher.closing import Closing
from batchify._batcher.config import ENGINE_OPTIONS, engine_config, shows_options
from batchify._batcher.current import current
from batchify._batcher.cycles import Wait
from batchify._batcher.executors import run_in
from batchify._batcher.functions import is_async
from batchify._batcher.registry import Counted, batchers, register
from batchify._threads.engine import ThreadEngine
from batchify._threads.waiters import FutureWaiter, ThreadWaiter, kept
from batchify.errors import ReentrantCallError, interrupting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Future
    from weakref import ref

    from typing_extensions import Self, Unpack

    from batchify._batcher.config import Config
    from batchify._batcher.executors import BatchExecutor
    from batchify._batcher.functions import Results
    from batchify._batcher.options import EngineOptions
    from batchify._core.batch import BatchItem
    from batchify._stats.snapshot import BatchStats

T = TypeVar("T")
R = TypeVar("R")


class SyncMicrobatcher(Counted, Generic[T, R]):
    """Run a batch function for items that threads submit one at a time.

    With ``concurrency=1``, the batch function always runs on one and the same thread. The first ``submit`` starts it.

    The other arguments are the options of ``microbatch`` except ``max_size`` and ``timeout``, by name. ``weigh`` and
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

    # What does the work. ``_inline`` puts another one in its place.
    _engine_kind: ClassVar[type[ThreadEngine]] = ThreadEngine

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

    @classmethod
    def _from_source(cls, source: Callable[[BatchExecutor | None], Callable[[list[T]], Any]], config: Config) -> Self:
        """Return a batcher that asks ``source`` for its batch function when there is work, and holds it only then.

        It makes itself known at its first use.
        """
        self = cls.__new__(cls)
        self._build(source, config)
        return self

    def _build(self, source: Callable[[BatchExecutor | None], Callable[[list[T]], Any]], config: Config) -> None:
        self._source = source
        self._config = config
        # Whether calls may have priorities and deadlines.
        self._takes_requests = config.takes_requests
        drain_before_exit_of(config.executor)
        self._reset_after_fork()

    def _reset_after_fork(self) -> None:
        """Begin from nothing: no item, no thread, no lock that somebody holds. The child of a fork needs it."""
        # Empty until it is needed. A dict because the first of several threads to put an engine there must win.
        self._own: dict[None, ThreadEngine] = {}
        # The same, once it is there.
        self._engine: ThreadEngine | None = None
        self._own_counters = {}

    def _ensure_engine(self) -> ThreadEngine:
        """Return the engine, made at first use."""
        if self._engine is None:
            engine = self._own.setdefault(None, self._engine_kind(self._source, self._config, self._counters))
            # Changes that came in between could not see it.
            self._update(engine)
            self._engine = engine
            register(self)
        return self._engine

    def _engines(self) -> list[ThreadEngine]:
        """Return the engine if there is one: a copy, as another thread may be making it."""
        return list(self._own.values())

    def __repr__(self) -> str:
        state = "closed" if any(engine.closed for engine in self._engines()) else "open"
        return f"<SyncMicrobatcher {self.name}: {state}, {self.stats.pending} pending, {self.stats.running} running>"

    @property
    def name(self) -> str:
        """The name in errors, statistics and thread names."""
        return self._config.name

    @property
    def _is_elsewhere(self) -> bool:
        """Whether an executor runs its batches."""
        return self._config.executor is not None

    @property
    def is_running(self) -> bool:
        """Whether it takes items: from the first ``submit`` or ``start()`` until ``stop()``."""
        return any(engine.started and not engine.closed for engine in self._engines())

    @property
    def stats(self) -> BatchStats:
        """A snapshot of what happened, from whichever thread it is asked for."""
        return self._counters.snapshot(self.name)

    def submit(self, item: T, keep: object = None) -> R:  # noqa: ARG002  # it is kept by being an argument
        """Return the result for ``item``, which travels with what else is submitted meanwhile. Blocks until then.

        Args:
            item: one item.
            keep: anything that must live until then.

        Raises:
            BatcherClosedError: it has been stopped.
            ReentrantCallError: called from inside one of its own batches, itself or through another batcher, which
                would wait for itself.
            BatchResultError: the batch function did not return one result for each item.
            BaseException: whatever the batch function raised, as an exception object of this caller's own.
        """
        asyncio = sys.modules.get("asyncio")
        if asyncio is not None and asyncio._get_running_loop() is not None:
            warn_on_loop(self.name, f"await {self.name}.acall(item)")
        engine = self._engine or self._ensure_engine()
        if get_ident() in engine.threads:
            raise engine.reentrant()
        wait = Wait(engine.queue, engine.name) if current() else None
        blocked, kept.blocked = kept.blocked or ThreadWaiter(), None
        ticket = None
        try:
            ticket = engine.enter(item, blocked)
            blocked.lock.acquire()
        except BaseException:
            # Ctrl-C, or what another signal handler raised. The waiter is not kept: it may still be told.
            blocked.left = True
            if ticket is not None:
                engine.leave(ticket)
            raise
        finally:
            if wait is not None:
                wait.end()
        kept.blocked = blocked
        if blocked.error is not None:
            blocked.fail()
        answer, blocked.value = blocked.value, None
        return answer  # type: ignore[no-any-return]  # waiters carry results of any type

    def _submit_nowait(self, item: T) -> Future[R]:
        """Queue ``item`` at once and return the future of its result.

        Cancelling the future takes the item out if it has not left yet. Without room for it, it blocks until there is.

        Raises:
            BatcherClosedError: it has been stopped.
            QueueFullError: there is no room, and ``on_full`` is ``"raise"``.
            ReentrantCallError: there is no room, and the thread that would wait for it has to make it.
        """
        engine = self._ensure_engine()
        future = FutureWaiter(bounded=self._config.max_pending is not None)
        ticket = engine.enter(item, future)
        future.add_done_callback(partial(_leave_if_cancelled, engine.workers.weak, ticket))
        if future.gate is not None:
            wait_for_room(engine, future.gate, future.cancel)
        return future

    def submit_many(self, items: Iterable[T], keep: object = None) -> list[R]:  # noqa: ARG002  # as above
        """Return the results for ``items``, in order. The first error is raised; what still waits then is taken out.

        Args:
            items: any number of items.
            keep: anything that must live until then.
        """
        futures: list[Future[R]] = []
        try:
            for item in items:
                futures.append(self._submit_nowait(item))  # noqa: PERF401  # what is queued when an item fails must be known
            return [future.result() for future in futures]
        finally:
            # The last first: else each would make way for the next one.
            for future in reversed(futures):
                future.cancel()

    def waiting(self) -> list[BatchItem]:
        """Return the items that wait at this moment, in order of arrival."""
        return [item for engine in self._engines() for item in engine.waiting()]

    def _change(self, changes: dict[str, Any]) -> None:
        """Go by other options, which are valid, from now on.

        Raises:
            ReentrantCallError: an urgent call comes in the middle of another one in this thread.
        """
        # Any other change can be made a moment later, but this one would be too late for the next call.
        if "takes_requests" in changes and any(engine.reentered() for engine in self._engines()):
            raise ReentrantCallError(interrupting(self.name))
        self._config = replace(self._config, **changes)
        drain_before_exit_of(self._config.executor)
        for engine in self._engines():
            self._update(engine)
        # Only now, when nobody can meet an engine that does not expect it.
        self._takes_requests = self._config.takes_requests

    def _update(self, engine: ThreadEngine) -> None:
        """Let ``engine`` go by the options as they are now, whoever else does so at this moment."""
        while engine.requested is not self._config:
            config = self._config
            engine.change(config)
            engine.requested = config

    def flush(self) -> None:
        """Let what waits leave now, as far as there are slots."""
        for engine in self._engines():
            engine.flush("flush")

    def start(self) -> None:
        """Take items, also after ``stop()``. A new batcher need not be started: the first ``submit`` does it."""
        self._ensure_engine().open()

    def stop(self) -> None:
        """Take no more items, run what waits, and return when all is answered. Stopping twice is fine.

        Called from inside a batch, it does not wait for that batch, but returns at once.
        """
        closing = Closing()
        self._ensure_engine().close(closing.end)
        closing.wait()

    close = stop

    async def aclose(self) -> None:
        """Do what ``stop()`` does without blocking the event loop."""
        closing = Closing()
        self._ensure_engine().close(closing.end)
        await closing.wait_async()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()


def wait_for_room(engine: ThreadEngine, gate: threading.Lock, leave: Callable[[], object]) -> None:
    """Block until there is room for an item, or ``leave``."""
    if gate.acquire(blocking=False):
        return
    try:
        if get_ident() in engine.threads:
            raise engine.reentrant()  # noqa: TRY301  # it takes the item out, as all that is raised here does
        with Wait(engine.queue, engine.name):
            gate.acquire()
    except BaseException:
        # Ctrl-C, or what another signal handler raised, too.
        leave()
        raise


def _leave_if_cancelled(weak: ref[ThreadEngine], ticket: int, future: Future[Any]) -> None:
    """Take a cancelled item out. A future keeps its callbacks, and must not keep the engine with them."""
    engine = weak()
    if engine is None or not future.cancelled():
        return
    if engine.reentered():
        engine.deferred.append(partial(_leave_if_cancelled, weak, ticket, future))
    elif engine.leave(ticket):
        # As no batch will do it: concurrent.futures.wait() and as_completed() wait for this.
        future.set_running_or_notify_cancel()


def warn_on_loop(name: str, use: str) -> None:
    """Warn, in the debug mode of asyncio, of a call that blocks the event loop of its thread, if there is one."""
    asyncio = sys.modules.get("asyncio")
    loop = None if asyncio is None else asyncio._get_running_loop()
    if loop is not None and loop.get_debug():
        msg = f"{name}() blocks the event loop that it is called from; use: {use}"
        warnings.warn(msg, RuntimeWarning, stacklevel=_depth())


def _depth() -> int:
    """Return how many frames above who asks the first one is that is not of this package."""
    depth, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("batchify."):
        depth, frame = depth + 1, frame.f_back
    return depth


def _live() -> list[SyncMicrobatcher[Any, Any]]:
    return [batcher for batcher in batchers() if isinstance(batcher, SyncMicrobatcher)]


def _flush() -> None:
    """Let no window keep a thread, and so the process, from ending."""
    for batcher in _live():
        batcher.flush()


def _drain() -> None:
    """Answer what was submitted before the process ends and takes the workers with it."""
    for batcher in _live():
        batcher.stop()


def _drain_executors() -> None:
    """Answer what was submitted before an executor ends: after that it takes no batch."""
    for batcher in _live():
        if batcher._is_elsewhere:
            batcher.stop()


def drain_before_exit_of(elsewhere: BatchExecutor | None) -> None:
    """Have ``_drain_executors`` called before the end of this executor. Who came last is called first.

    Executors see to their end when their module is imported, so once for each type is enough.
    """
    if elsewhere is not None and elsewhere.type not in _outlasted:
        _outlasted.add(elsewhere.type)
        # At the end of the process it is too late, and so it is for the executor.
        with suppress(RuntimeError):
            _register_atexit(_drain_executors)


_outlasted: WeakSet[type] = WeakSet()
# Once for all batchers. The interpreter calls the first before it joins its threads, of which some may be blocked in a
# call for the length of a window; its name is private, and what concurrent.futures relies on. It calls the second when
# all other threads have ended, and before it stops daemons.
_register_atexit = getattr(threading, "_register_atexit", atexit.register)
_register_atexit(_flush)
atexit.register(_drain)
