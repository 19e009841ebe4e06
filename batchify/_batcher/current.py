"""What a batch function may know of the batch it runs.

Decides: what is visible from inside a batch.
Must not know: engines, the core.

A batch runs in a context of its own in which only this is set, so that nothing of one caller's request is visible in
the batch of another.
"""

from __future__ import annotations

from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from batchify._batcher.config import Config
    from batchify._core.batch import Batch
    from batchify._core.slots import Slots

    Running: TypeAlias = tuple[str, "Batch | RemoteBatch", "Batch | RemoteBatch"]


@dataclass(frozen=True)
class CurrentBatch:
    """The batch that is running.

    Attributes:
        name: the batcher's name.
        size: how many items it has; of a part that is run again to isolate an error, how many that has.
        reason: why it left, as in ``BatchStats.reasons``.
        contexts: with ``capture_context``, the context that each item was submitted in, in the order of the items; else
            empty. ``contexts[i][variable]`` reads a variable, ``contexts[i].run(function)`` calls a function in it.
    """

    name: str
    size: int
    reason: str
    contexts: tuple[Context, ...] = ()


class RemoteBatch:
    """A batch of another process, to code that runs here for it."""

    def __init__(self, batch: CurrentBatch) -> None:
        self.size = batch.size
        self.reason = batch.reason
        self.contexts = batch.contexts
        # In whose lines of this process the calls stand that it waits for.
        self.calls: list[Slots] = []


# The batcher's name, the batch, by which its engine knows it, and the part of it that runs. What the batch function may
# know is made of it for who asks.
_current: ContextVar[Running | None] = ContextVar("current_batch", default=None)

# Whether the running code belongs to any batch: true or false, at the price of a look.
inside = _current.get

# Who is told of each batch that is about to run: its name, its items, and why it left. For tests: nobody else may look
# at items.
observers: list[Callable[[str, Sequence[Any], str], None]] = []


def current_batch() -> CurrentBatch | None:
    """Return the batch that the running code belongs to, or ``None`` outside of batch functions.

    Tasks and contexts that were made inside a batch belong to it too.
    """
    current = inside()
    if current is None:
        return None
    name, _, part = current
    return CurrentBatch(name, part.size, part.reason, part.contexts)


def running_batch() -> tuple[str, Batch]:
    """Return the name of the current batch's batcher and the running batch or part, to code that is run for it."""
    name, _, part = cast("tuple[str, Batch, Batch]", inside())
    return name, part


def portable() -> CurrentBatch | None:
    """Return what can be told of the current batch in another process: all but contexts, which cannot go there."""
    current = current_batch()
    return None if current is None else replace(current, contexts=())


def run_remote(batch: CurrentBatch | None, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call ``fn`` on behalf of ``batch``, of another process, in a neutral context."""
    context = Context()
    if batch is not None:
        distant = RemoteBatch(batch)
        context.run(_current.set, (batch.name, distant, distant))
    return context.run(fn, *args, **kwargs)


def belongs_to(running: Sequence[object]) -> bool:
    """Say whether the running code belongs to one of the batches in ``running``."""
    current = inside()
    return current is not None and current[1] in running


def batch_context(batch: Batch, config: Config) -> Context:
    """Return a context for ``batch``, or for a part of one, in which nothing is set but that it is the current one.

    If each of its items stood in the line together with a context, they are parted.
    """
    context = Context()
    context.run(enter, batch, config)
    return context


def enter(batch: Batch, config: Config) -> None:
    """Make ``batch``, or a part of one, the current one here."""
    if config.capture_context and batch.whole is None:
        batch.contexts = tuple(context for _, context in batch.items)
        batch.items = [item for item, _ in batch.items]
    if observers:
        _show(batch, config)
    _current.set((config.name, batch.whole or batch, batch))


def _show(batch: Batch, config: Config) -> None:
    items = tuple(row[0] for row in batch.items) if config.has_options else tuple(batch.items)
    for watch in observers:
        watch(config.name, items, batch.reason)


def captured(item: Any) -> tuple[Any, Context]:
    """Return ``item`` together with the context of its caller, as ``batch_context`` takes them apart."""
    return item, copy_context()
