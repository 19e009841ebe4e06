"""The exceptions of the library, and their messages.

Must not know: the rest of the package.

A message names the function, the numbers and the rule, and gives advice. It never shows an item or a result, which may
be private data.
"""

from __future__ import annotations


class BatchifyError(Exception):
    """The base of all errors that the library itself raises."""


class BatchResultError(BatchifyError, ValueError):
    """The batch function did not return one result for each item, in order."""


class QueueFullError(BatchifyError):
    """The queue has ``max_pending`` items, and ``on_full`` is ``"raise"``."""


class DeadlineError(BatchifyError, TimeoutError):
    """An item did not start before its deadline, and was dropped without being run."""


class BatcherClosedError(BatchifyError, RuntimeError):
    """A call was made after ``close()`` or ``stop()``, or had not started when the timeout of ``close()`` ended."""


class ReentrantCallError(BatchifyError, RuntimeError):
    """A call would have waited for its own batch forever.

    A thread that a batch function starts is not known to belong to the batch, unless it runs in a copy of its context:
    ``Thread(target=contextvars.copy_context().run, args=(fn, item))``. Otherwise the batch must not wait for the call.
    """


class BatchAbortedError(BatchifyError, RuntimeError):
    """The batch was cancelled or torn down, while its callers were not."""


def needs(user: str, packages: str, extra: str) -> str:
    """Return the message for an optional feature whose packages are not installed."""
    return f"{user} needs {packages}: pip install 'batchify-toolkit[{extra}]'"


def reentrant(name: str) -> str:
    """Return the message for a batch function that calls itself."""
    return (
        f"{name}() was called with one item from inside its own batch, and would wait for itself; "
        f"call the batch function with a list instead: {name}.__wrapped__([item])"
    )


def circular(name: str, other: str) -> str:
    """Return the message for a batch function that calls itself through the batch function of ``other``."""
    return (
        f"{name}() was called from inside a batch of {other}() that a batch of {name}() is waiting for: a deadlock; "
        f"call the batch function with a list instead: {name}.__wrapped__([item])"
    )


def interrupting(name: str) -> str:
    """Return the message for a call that interrupts another one in the same thread."""
    return (
        f"{name}() was called by a finalizer or signal handler in the middle of another call in this thread; "
        f"make the call in another thread"
    )


def full(name: str, most: int) -> str:
    """Return the message for a call that finds no room."""
    items = "1 item" if most == 1 else f"{most} items"
    return f"{name}() has {items} waiting, as many as max_pending allows; call again later, or wait with on_full='wait'"


def overdue(name: str, seconds: float | None) -> str:
    """Return the message for a call that was not started in time."""
    return (
        f"{name}() dropped an item that it could not start within its deadline of {seconds} s; allow the call more "
        f"time, or give the batcher more capacity"
    )


def no_loop(name: str) -> str:
    """Return the message for a call that can only be awaited on asyncio."""
    return (
        f"{name}() can only be awaited on asyncio, and no event loop of asyncio is running in this thread; on trio, "
        f"call a def function in a thread: await trio.to_thread.run_sync(function, item)"
    )


def unshared(name: str, *, overlap: bool) -> str:
    """Return the hint about a function whose calls have not shared a batch, although some ``overlap`` or none do."""
    reason = (
        "calls overlap, but differ in their instance, event loop, options or group, or each finds a free slot; let "
        "them agree in these, or lower concurrency"
        if overlap
        else "each call came after the answer of the one before, as in a loop or in synchronous GraphQL resolvers; "
        f"make the calls from threads or tasks at the same time, or use {name}.map(items)"
    )
    return f"{name}() gains nothing from batching so far, as each of its batches held one item: {reason}"


def closed(name: str) -> str:
    """Return the message for a call after the batcher was closed."""
    return f"{name} is closed and takes no more calls until it is opened again"


def dropped(name: str) -> str:
    """Return the message for a call whose item had not started when the timeout of ``close()`` ended."""
    return f"{name} was closed before it could start this item; allow close() a longer timeout"
