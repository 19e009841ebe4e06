"""What can go wrong, in the user's words.

Every error names the batcher, says what was given and what to do. None of them ever shows an item or a result:
those may be anybody's private data. This module knows nothing of the rest of the package.
"""

from __future__ import annotations


class BatchifyError(Exception):
    """The base of every error that batchify raises on its own account."""


class BatchResultError(BatchifyError, ValueError):
    """The batch function did not return one result for each item, in order."""


class QueueFullError(BatchifyError):
    """As many items wait as ``max_pending`` allows, and ``on_full`` is ``"raise"``."""


class DeadlineError(BatchifyError, TimeoutError):
    """An item was not started before its deadline, and was dropped without being run."""


class BatcherClosedError(BatchifyError, RuntimeError):
    """A call came after ``close()`` or ``stop()``."""


class ReentrantCallError(BatchifyError, RuntimeError):
    """A batch function called its own one-item function and would have waited for itself for ever."""


class BatchAbortedError(BatchifyError, RuntimeError):
    """The batch was cancelled or torn down while its callers were not."""


def reentrant(name: str) -> str:
    """Say that a batch function called itself."""
    return (
        f"{name}() was called with one item from inside its own batch, and would wait for itself; "
        f"call the batch function with a list instead: {name}.__wrapped__([item])"
    )


def full(name: str, most: int) -> str:
    """Say that there is no room for a call."""
    items = "1 item" if most == 1 else f"{most} items"
    return f"{name}() has {items} waiting, as many as max_pending allows; call again later, or wait with on_full='wait'"


def overdue(name: str, seconds: float | None) -> str:
    """Say that a call was not started in time."""
    return (
        f"{name}() did not start with an item within its deadline of {seconds} s, and dropped it; give it more time, "
        f"or the batcher more capacity"
    )


def circular(name: str, other: str) -> str:
    """Say that a batch function called itself through another one."""
    return (
        f"{name}() was called from a batch of {other}() that its own batch waits for, and would wait for itself; "
        f"call the batch function with a list instead: {name}.__wrapped__([item])"
    )


def interrupting(name: str) -> str:
    """Say that a call came in the middle of another one."""
    return f"{name}() was called by a finalizer or signal handler in the middle of another call in this thread"


def closed(name: str) -> str:
    """Say that a call came too late."""
    return f"{name} is closed and takes no more calls"
