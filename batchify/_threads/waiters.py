"""The waiters of threads: a blocked caller, and a future.

Must not know: batches, the core, event loops.
"""

from __future__ import annotations

import logging
from concurrent.futures import Future
from contextlib import suppress
from threading import Lock, local
from typing import Any, NoReturn, cast

from batchify._batcher.waiters import Waiter

log = logging.getLogger("batchify")


class ThreadWaiter(Waiter):
    """A caller that blocks its thread until it has its answer."""

    __slots__ = ("error", "left", "lock", "value", "wake")

    def __init__(self) -> None:
        # A bare lock, held until there is an answer: a Condition would make a new lock for each wait.
        self.lock = held_lock()
        self.wake = self.lock.release
        self.value = self.error = None
        # Whether the caller was interrupted and will not read the answer.
        self.left = False

    def is_open(self) -> bool:
        return not self.left

    def fail(self) -> NoReturn:
        error, self.error = cast("BaseException", self.error), None
        try:
            raise error
        finally:
            # The traceback refers to this frame, which must not refer back.
            del error


class FutureWaiter(Waiter, Future[Any]):
    """A caller that has a future. It can cancel the future until the batch departs."""

    # Whether the batch has not departed yet.
    _is_queued = True

    def __init__(self, *, bounded: bool = False) -> None:
        super().__init__()
        self.value = self.error = None
        # The caller blocks until a bounded queue has room.
        if bounded:
            self.gate = held_lock()

    @property
    def future(self) -> Future[Any]:
        return self

    def is_open(self) -> bool:
        if self._is_queued:
            # The engine asks first when the batch departs: from then on, the future cannot be cancelled.
            self._is_queued = False
            # An owner may have marked or answered the future itself.
            with suppress(RuntimeError):
                return self.set_running_or_notify_cancel()
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
            # concurrent.futures lets some exceptions of callbacks pass. They must not reach the other callers, nor must
            # an error of a logging filter.
            with suppress(Exception):
                log.exception("a callback of a future raised")


def held_lock() -> Lock:
    lock = Lock()
    lock.acquire()
    return lock


class Kept(local):
    """One ``ThreadWaiter`` for each thread, kept between calls; ``None`` while a call uses it."""

    blocked: ThreadWaiter | None = None


kept = Kept()
