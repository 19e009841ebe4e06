"""The waiters of threads: a blocked caller, and a future.

Must not know: batches, the core, event loops.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from threading import Lock, local
from typing import Any

from batchify._batcher.futures import SafeFuture
from batchify._batcher.waiters import Failed, Waiter

log = logging.getLogger("batchify")


class ThreadWaiter(Waiter):
    """A caller that blocks its thread until it has its answer. Each thread keeps one."""

    __slots__ = ("acquire", "is_busy", "left", "release", "value")

    reports_leaving = True

    def __init__(self) -> None:
        # A bare lock, held until there is an answer: a Condition would make a new lock for each wait.
        lock = held_lock()
        self.acquire, self.release = lock.acquire, lock.release
        self.value: Any = None
        # Whether a call uses it, or its thread is a worker.
        self.is_busy = False
        # Whether the caller was interrupted and will not read the answer.
        self.left = False

    def is_open(self) -> bool:
        return not self.left

    @classmethod
    def answer_all(cls, waiters: list[ThreadWaiter], answers: list[Any]) -> None:
        for waiter, answer in zip(waiters, answers, strict=True):
            waiter.value = answer
            waiter.release()


class FutureWaiter(Waiter, SafeFuture[Any]):
    """A caller that has a future. It can cancel the future until the batch departs."""

    # Whether the batch has not departed yet.
    _is_queued = True

    def get_future(self) -> SafeFuture[Any]:
        return self

    def is_open(self) -> bool:
        if self._is_queued:
            # The engine asks first when the batch departs: from then on, the future cannot be cancelled.
            self._is_queued = False
            # An owner may have marked or answered the future itself.
            with suppress(RuntimeError):
                return self.set_running_or_notify_cancel()
        return not self.done()

    def answer(self, answer: Any) -> None:
        if self.done():
            return
        try:
            if type(answer) is Failed:
                self.set_exception(answer.error)
            else:
                self.set_result(answer)
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
    """The waiter of each thread; ``None`` before its first call. That of a worker is always busy."""

    waiter: ThreadWaiter | None = None


kept = Kept()


def new_waiter() -> ThreadWaiter:
    """Return a new waiter, which the thread keeps unless it has one already."""
    waiter = ThreadWaiter()
    if kept.waiter is None:
        kept.waiter = waiter
    return waiter
