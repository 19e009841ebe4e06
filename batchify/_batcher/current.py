"""The batch that the running code belongs to.

Must not know: engines, options of a batcher.

A batch function runs in a context of its own. Only the current batch is set in it, so a batch function sees no context
variable of any caller.
"""

from __future__ import annotations

from contextvars import Context, ContextVar
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from batchify._batcher.requests import item_of
from batchify._core.batch import Batch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(frozen=True)
class CurrentBatch:
    """The batch that is running.

    Attributes:
        name: the name of the batcher.
        size: the number of items. While an error is isolated, the number of items of the part that runs.
        reason: the reason of the departure, as in ``BatchStats.reasons``.
        contexts: with ``capture_context``, the context of each item's caller, in the order of the items; otherwise
            empty. ``contexts[i][variable]`` reads a variable, ``contexts[i].run(function)`` calls a function in it.
    """

    name: str
    size: int
    reason: str
    contexts: tuple[Context, ...] = ()


# The batch, or the part of it, that runs. In another process, its description takes its place.
_current: ContextVar[Batch | CurrentBatch | None] = ContextVar("current_batch", default=None)

# Returns the current batch as it is: the one check that every call pays for.
current = _current.get

# Called with name, items and reason of each batch that is about to run. For tests only: other code must not see items.
observers: list[Callable[[str, Sequence[Any], str], None]] = []


def current_batch() -> CurrentBatch | None:
    """Return the batch that the running code belongs to, or ``None`` outside of batch functions.

    Tasks and contexts that were made inside a batch belong to it too.
    """
    batch = current()
    if batch is None or isinstance(batch, CurrentBatch):
        return batch
    return CurrentBatch(batch.name, batch.size, batch.reason, batch.contexts)


def local_batch() -> Batch | None:
    """Return the departed batch of this process that the running code belongs to."""
    batch = current()
    return batch.root if isinstance(batch, Batch) else None


def belongs_to(running: Sequence[object]) -> bool:
    """Say whether the running code belongs to one of the batches in ``running``."""
    return local_batch() in running


def portable() -> CurrentBatch | None:
    """Return the current batch as it can travel to another process: without contexts, which cannot be pickled."""
    batch = current_batch()
    return None if batch is None else replace(batch, contexts=())


def run_remote(batch: CurrentBatch | None, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call ``fn`` in a context in which only ``batch``, of another process, is set."""
    context = Context()
    context.run(_current.set, batch)
    return context.run(fn, *args, **kwargs)


def batch_context(batch: Batch) -> Context:
    """Return a context in which only ``batch`` is set."""
    context = Context()
    context.run(set_current, batch)
    return context


def set_current(batch: Batch) -> None:
    """Make ``batch``, or a part of one, current."""
    if observers:
        _notify(batch)
    _current.set(batch)


def _notify(batch: Batch) -> None:
    items = tuple(map(item_of, batch.items))
    for observe in observers:
        observe(batch.name, items, batch.reason)
