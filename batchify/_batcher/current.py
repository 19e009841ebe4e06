"""The batch that the running code belongs to.

Must not know: engines, options of a batcher.
A batch function runs in a context with only the current batch set, and sees no context variable of a caller.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import Context, ContextVar
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from batchify._batcher.requests import item_of
from batchify._core.batch import Batch

if TYPE_CHECKING:
    from collections.abc import Callable, Generator


@dataclass(frozen=True)
class CurrentBatch:
    """The batch that is running.

    Attributes:
        name: the name of the batcher.
        size: the number of items, without padding; while an error is isolated, of the part that runs.
        reason: the reason of the departure, as in ``BatchStats.reasons``.
        slot: the slot that it runs in, from 0 to ``concurrency - 1``; ``None`` with an executor.
        state: the value of the context manager of ``lifespan``, which the worker of the slot has entered.
        contexts: with ``capture_context``, the context of each item's caller, in the order of the items; otherwise
            empty. ``contexts[i][variable]`` reads a variable, ``contexts[i].run(function)`` calls a function in it.
    """

    name: str
    size: int
    reason: str
    contexts: tuple[Context, ...] = ()
    slot: int | None = None
    state: Any = None


# The running batch or part of one; in another process, its description.
_current: ContextVar[Batch | CurrentBatch | None] = ContextVar("current_batch", default=None)

# Returns the current batch as it is. Every call pays for this check.
current = _current.get

# Called with the name, items and reason of each batch that is about to run. For tests only, as items may be private.
observers: list[Callable[[str, tuple[Any, ...], str], None]] = []


def current_batch() -> CurrentBatch | None:
    """Return the batch that the running code belongs to, or ``None`` outside of batch functions.

    While a lifespan is being entered, this is the batch that waits for it. Tasks and contexts that were created inside
    a batch belong to it too.
    """
    batch = current()
    if batch is None or isinstance(batch, CurrentBatch):
        return batch
    root = batch.root
    return CurrentBatch(batch.name, batch.size, batch.reason, batch.contexts, root.slot, root.state)


def local_batch() -> Batch | None:
    """Return the whole batch of this process that the running code belongs to, or ``None``."""
    batch = current()
    return batch.root if isinstance(batch, Batch) else None


def portable() -> CurrentBatch | None:
    """Return the current batch without contexts and state, which cannot be pickled."""
    batch = current_batch()
    return None if batch is None else replace(batch, contexts=(), state=None)


def run_remote(batch: CurrentBatch | None, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    # Only the batch, which is one of another process, is set in the context.
    context = Context()
    context.run(_current.set, batch)
    return context.run(fn, *args, **kwargs)


@contextmanager
def entering(batch: Batch) -> Generator[None]:
    """Make ``batch`` the current one while its lifespan is being entered. No observer sees it before it runs."""
    token = _current.set(batch)
    try:
        yield
    finally:
        _current.reset(token)


def batch_context(batch: Batch) -> Context:
    context = Context()
    set_batch: Any = set_current if observers else _current.set
    context.run(set_batch, batch)
    return context


def set_current(batch: Batch) -> None:
    if observers:
        items = tuple(map(item_of, batch.items))
        for observe in observers:
            observe(batch.name, items, batch.reason)
    _current.set(batch)
