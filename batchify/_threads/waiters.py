"""How the callers of a thread engine wait, and how they are told.

Must not know: batches, the core, event loops.

A waiter is told in two steps, so that everything is counted before anybody wakes: the worker stores ``value`` or
``error`` in every waiter of a batch, and then calls ``wake()`` on each. ``starts()`` is asked once, when the batch
leaves; ``wanted()`` when there is an answer; and ``admit()`` is called once, when there is room for its item.
"""

from __future__ import annotations

import logging
from concurrent.futures import Future
from contextlib import suppress
from threading import Lock, local
from typing import Any, NoReturn, cast

log = logging.getLogger("batchify")


class ThreadWaiter:
    """A caller that sits in its thread until it is told."""

    __slots__ = ("error", "left", "lock", "value", "wake")

    # What its caller could cancel: nothing.
    future = None

    def __init__(self) -> None:
        # Held while there is no answer. A bare lock: a Condition would make a fresh one for every wait.
        self.lock = Lock()
        self.lock.acquire()
        self.wake = self.lock.release
        self.value: Any = None
        self.error: BaseException | None = None
        # Whether its caller was interrupted, and will not read the answer.
        self.left = False

    def admit(self) -> None:
        """Go on to sit there: room makes no difference."""

    def starts(self) -> bool:
        return not self.left

    wanted = starts

    def fail(self) -> NoReturn:
        """Raise the error, and forget it."""
        error, self.error = cast("BaseException", self.error), None
        try:
            raise error
        finally:
            # The traceback refers to this frame, which must not refer back.
            del error


class ItemFuture(Future[Any]):
    """A caller that asked for a future. It may be cancelled until its batch leaves.

    Args:
        bounded: whether it may have to wait for room before it gets its future.
    """

    value: Any = None
    error: BaseException | None = None

    def __init__(self, *, bounded: bool = False) -> None:
        super().__init__()
        # Held while there is no room for it.
        self.gate: Lock | None = None
        if bounded:
            self.gate = Lock()
            self.gate.acquire()

    def admit(self) -> None:
        if self.gate is not None and self.gate.locked():
            self.gate.release()

    @property
    def future(self) -> Future[Any]:
        return self

    def starts(self) -> bool:
        # It says so if the one who asked for it has marked or answered it.
        with suppress(RuntimeError):
            return self.set_running_or_notify_cancel()
        return self.wanted()

    def wanted(self) -> bool:
        return not self.done()

    def wake(self) -> None:
        if self.done():
            return
        try:
            if self.error is None:
                self.set_result(self.value)
            else:
                self.set_exception(self.error)
        except BaseException:
            # What a callback of this future raises past concurrent.futures must not reach its neighbours.
            log.exception("a callback of a future raised")


class Kept(local):
    """One ``ThreadWaiter`` for each thread, kept between calls; ``None`` while a call uses it."""

    blocked: ThreadWaiter | None = None


kept = Kept()
