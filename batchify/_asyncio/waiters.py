"""The waiters of tasks: what a call awaits on an event loop, and the futures of calls.

Must not know: batches, the core, threads.

A task that awaits a call needs no ``asyncio.Future`` of its own, because one callback of the loop can wake all tasks of
a batch. So on asyncio's own loops, a call awaits a ``TaskWaiter``. It is an object like a future, as described by
``asyncio.isfuture()``: a task suspends at any object whose ``_asyncio_future_blocking`` is true. These use it:

====================  ================================================================================================
the coroutine         creates it, queues it with the item, and awaits it; removes the item if this raises
the task              ``get_loop()`` and ``add_done_callback()`` when it suspends, ``result()`` when it wakes, and
                      ``cancel()`` when the task is cancelled meanwhile
the engine            ``answer_all()`` for a batch without errors, otherwise ``done()``, ``set_result()`` and
                      ``set_exception()``, as for a future
``waiting()``         ``future_of()``
====================  ================================================================================================

Rules
-----
1. A waiter has its answer when the engine counts the call, and its task wakes in the next loop iteration.
2. A waiter with an error is a ``FailedWaiter``, even if the error is a cancellation. So the types of the waiters of a
   batch show whether callers have left, which takes less time than asking each waiter.
3. Each callback is called once. If the step of a task raises, as it does for Ctrl-C, the others still wake.
4. An exception must not refer to its waiter through a frame, because the waiter refers to the exception.

Other loops, such as uvloop, call their callbacks without Python code. There a plain future takes less time.

``submit()`` returns an ``ItemFuture`` on any loop. It keeps the callback of the code that waits for it, so that one
callback of the loop calls those of a whole batch.
"""

from __future__ import annotations

import sys
from asyncio import BaseEventLoop, CancelledError, Future, InvalidStateError, get_running_loop
from contextlib import suppress
from contextvars import Context, copy_context
from enum import Enum
from functools import partial
from operator import countOf
from typing import TYPE_CHECKING, Any, TypeAlias, cast
from weakref import ref

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Generator, Iterable, Iterator

    Callback = Callable[[Any], object]


class Pending(Enum):
    """The type of ``PENDING``, the answer of a waiter that has none."""

    PENDING = "PENDING"


PENDING = Pending.PENDING


class TaskWaiter:
    """A call that one task awaits.

    The code that creates one sets the first three attributes: an ``__init__()`` takes as long as all other steps.
    """

    __slots__ = (
        "__weakref__",
        "_asyncio_future_blocking",
        "_context",
        "_error",
        "answer",
        "callback",
        "future",
        "get_loop",
    )

    # Returns the loop. A weak reference to the loop is called like a method, but without a frame.
    get_loop: Callable[[], Any]
    # The result; ``PENDING`` until there is one, or if there is an error.
    answer: Any
    # Wakes the task; ``None`` before the task suspends, and again once it has been called.
    callback: Callback | None
    # The context in which the callback runs.
    _context: Context
    # The error of a ``FailedWaiter``.
    _error: BaseException
    # The future for ``waiting()``, once it was asked for.
    future: WaiterFuture
    # Whether a coroutine has just yielded this object to its task, which is to suspend.
    _asyncio_future_blocking: bool

    def __await__(self) -> Generator[TaskWaiter, None, Any]:
        self._asyncio_future_blocking = True
        try:
            yield self
            # A task has called ``result()``, but other code that drives a coroutine may not.
            return self.answer if self.answer is not PENDING else self.result()
        except BaseException:
            # Rule 4.
            del self
            raise

    def add_done_callback(self, callback: Callback, *, context: Context | None = None) -> None:
        if context is None:
            context = copy_context()
        if self.callback is None and self.answer is PENDING:
            self.callback, self._context = callback, context
        else:
            self._add_another(callback, context)

    def _add_another(self, callback: Callback, context: Context) -> None:
        if self.done():
            self._call_soon(callback, context)
        else:
            both = (cast("Callback", self.callback), self._context), (callback, context)
            self.callback, self._context = partial(_call_each_soon, both), Context()

    def done(self) -> bool:
        return self.answer is not PENDING

    def cancelled(self) -> bool:
        return False

    def result(self) -> Any:
        if self.answer is PENDING:
            msg = "the call has no answer yet"
            raise InvalidStateError(msg)
        return self.answer

    def exception(self) -> BaseException | None:
        self.result()
        return None

    def cancel(self, msg: Any = None) -> bool:
        """End the wait of the task, unless it has an answer. The coroutine of the call then removes its item."""
        if self.done():
            # An interrupt may have lost the callback that was to wake the task. A closed loop wakes no task.
            with suppress(RuntimeError):
                self._wake_soon()
            return False
        self.set_exception(CancelledError() if msg is None else CancelledError(msg))
        return True

    def set_result(self, result: Any) -> None:
        self.answer = result
        self._wake_soon()

    def set_exception(self, error: BaseException) -> None:
        self._error = error
        self.__class__ = FailedWaiter  # pyright: ignore[reportAttributeAccessIssue]  # it has the same slots
        self._wake_soon()

    def _wake_soon(self) -> None:
        if self.callback is not None:
            self.get_loop().call_soon(wake, iter((self,)), tuple)

    def _call_soon(self, callback: Callback, context: Context) -> None:
        self.get_loop().call_soon(callback, self, context=context)


class FailedWaiter(TaskWaiter):
    """A call that has an error, or is cancelled."""

    __slots__ = ()

    def add_done_callback(self, callback: Callback, *, context: Context | None = None) -> None:
        self._call_soon(callback, copy_context() if context is None else context)

    def done(self) -> bool:
        return True

    def cancelled(self) -> bool:
        return issubclass(type(self._error), CancelledError)

    def result(self) -> Any:
        error = self._error
        # Rule 4.
        del self
        try:
            raise error
        finally:
            del error

    def exception(self) -> BaseException | None:
        return self.result() if self.cancelled() else self._error


class ItemFuture(Future[Any]):
    """The future of ``submit()``. It keeps its first callback, and drops its item as soon as it is cancelled."""

    __slots__ = ("callback", "engine", "mark")

    # The engine and the mark for its ``leave()``.
    engine: Any
    mark: int
    # The first callback and its context, in one slot to save memory. The code that creates the future sets it to None.
    callback: tuple[Callback, Context] | None

    def add_done_callback(self, callback: Callback, *, context: Context | None = None) -> None:
        """Call ``callback`` soon after the future has its answer."""
        if context is None:
            context = copy_context()
        if self.callback is None and not self.done():
            self.callback = callback, context
        else:
            super().add_done_callback(callback, context=context)

    def remove_done_callback(self, callback: Callback) -> int:
        """Remove a callback, and return how often it was there."""
        removed = super().remove_done_callback(callback)
        if self.callback is not None and self.callback[0] == callback and not self.done():
            # A placeholder without effect: the present callbacks must still precede later ones.
            self.callback = id, self.callback[1]
            removed += 1
        return removed

    def cancel(self, msg: Any = None) -> bool:
        """Cancel the future, and drop its item."""
        if self.done():
            if not self.get_loop().is_closed():
                # As for a ``TaskWaiter``.
                self._wake_soon()
            return False
        self._wake_soon()
        super().cancel(msg)
        self.engine.leave(self.mark, self)
        return True

    def set_result(self, result: Any) -> None:
        self._wake_soon()
        super().set_result(result)

    def set_exception(self, error: Any) -> None:
        self._wake_soon()
        super().set_exception(error)

    def _wake_soon(self) -> None:
        """Call the callback in the next loop iteration. As in ``answer_all()``, this precedes the answer."""
        if self.callback is not None:
            self.get_loop().call_soon(call_back, iter((self,)))


class WaiterFuture(Future[Any]):
    """The future of a call that a task awaits. Cancelling it cancels the call."""

    def __init__(self, waiter: TaskWaiter) -> None:
        loop = waiter.get_loop()
        super().__init__(loop=loop)
        self._waiter = waiter
        # A loop that is closed by now answers no calls.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(self._begin)

    def _begin(self) -> None:
        # Looked up on the loop, because the waiter may have failed meanwhile, and then has another method.
        self._waiter.add_done_callback(self._follow)

    def cancel(self, msg: Any = None) -> bool:
        return not self.done() and self._waiter.cancel(msg) and super().cancel(msg)

    def _follow(self, waiter: TaskWaiter) -> None:
        if self.done():
            return
        if waiter.cancelled():
            super().cancel()
        elif (error := waiter.exception()) is not None:
            self.set_exception(error)
            # The caller gets the error too. Without this, asyncio would log that no code has read it.
            self.exception()
        else:
            self.set_result(waiter.result())


# Up to Python 3.11, looking up the running loop is a system call, which a loop that knows its thread can save. From
# 3.12 on, the lookup takes less time than passing the loop to a future.
LOOKUP_IS_SLOW = sys.version_info < (3, 12)

# A function of C, which ``map()`` calls without a frame.
is_done: Callable[[Future[Any]], bool] = Future[Any].done
AsyncWaiter: TypeAlias = TaskWaiter | Future[Any]


def future_factory(loop: AbstractEventLoop) -> Callable[[], Future[Any]] | None:
    """Return the function that creates the future of a call on ``loop``, the running one.

    It is ``None`` if a call is to await a ``TaskWaiter``.
    """
    if isinstance(loop, BaseEventLoop):
        return None
    return partial(Future[Any], loop=loop) if LOOKUP_IS_SLOW else Future


def new_waiter(loop: AbstractEventLoop) -> AsyncWaiter:
    if (new_future := future_factory(loop)) is not None:
        return new_future()
    waiter = TaskWaiter()
    waiter.get_loop, waiter.answer, waiter.callback = ref(loop), PENDING, None
    return waiter


def future_of(waiter: AsyncWaiter) -> Future[Any]:
    """Return the future of a waiter for ``waiting()``, which any thread may call."""
    if isinstance(waiter, Future):
        return waiter
    if not hasattr(waiter, "future"):
        waiter.future = WaiterFuture(waiter)
    return waiter.future


def only_kind(waiters: list[object]) -> type[object] | None:
    """Return the type of all ``waiters``, or ``None`` if they are of several."""
    kind, count = type(waiters[0]), len(waiters)
    return kind if count == 1 or countOf(map(type, waiters), kind) == count else None


def are_pending(waiters: list[Any]) -> bool:
    """Return whether all ``waiters`` are futures without an answer."""
    try:
        return True not in map(is_done, waiters)
    except TypeError:
        # One of them is a ``TaskWaiter``.
        return False


def answer_all(loop: Any, waiters: list[TaskWaiter], answers: list[Any], go_on: Callable[[], object]) -> None:
    """Give each waiter its answer. In the next loop iteration, wake the tasks, and then call ``go_on``."""
    # First, because an interrupt in between must leave no waiter with an answer asleep.
    loop.call_soon(wake, iter(waiters), go_on)
    for waiter, answer in zip(waiters, answers):  # noqa: B905  # checking the lengths takes time
        waiter.answer = answer


def wake(waiters: Iterator[TaskWaiter], go_on: Callable[[], object]) -> None:
    """Let the tasks of all ``waiters`` run until they suspend or end, and then call ``go_on``."""
    waiter: TaskWaiter | None
    try:
        for waiter in waiters:
            callback = waiter.callback
            if callback is not None:
                waiter.callback = None
                waiter._context.run(callback, waiter)
    except BaseException:
        # Rule 3. The iterator is past the waiter whose callback raised.
        get_running_loop().call_soon(wake, waiters, go_on)
        # Also now, because this may be the last step of the loop.
        go_on()
        raise
    finally:
        # Rule 4: an exception of the task may refer to this frame.
        waiter = None
    go_on()


def call_back(futures: Iterator[ItemFuture]) -> None:
    """Call the callbacks that ``futures`` keep."""
    try:
        for future in futures:
            if future.callback is not None:
                (callback, context), future.callback = future.callback, None
                context.run(callback, future)
    except BaseException:
        # As in ``wake()``.
        get_running_loop().call_soon(call_back, futures)
        raise


def _call_each_soon(calls: Iterable[tuple[Callback, Context]], waiter: TaskWaiter) -> None:
    for callback, context in calls:
        waiter._call_soon(callback, context)
