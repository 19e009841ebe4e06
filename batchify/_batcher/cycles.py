"""Batches that call each other: a call that would come back to its own batch is refused, as it would wait for ever.

Must not know: how a caller waits, clocks, locks.

While the code of a batch waits for a call, the batch notes in whose line that call stands. Where one batch runs at a
time, all that stands in the line waits for it, and it waits for what it has called itself. If that, followed from line
to line, leads back to the calling batch, none of them can end. Lines with several slots are not followed: nobody knows
for which of their batches an item will wait.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchify.errors import ReentrantCallError, circular

if TYPE_CHECKING:
    from batchify._batcher.current import RemoteBatch, Running
    from batchify._core.batch import Batch
    from batchify._core.slots import Slots


def calling(caller: Running, queue: Slots, name: str) -> None:
    """Note that a batch waits for an item in the line of ``queue``, that of ``name``, until it is ``called()``.

    Raises:
        ReentrantCallError: that waits for the batch itself.
    """
    own, batch, _ = caller
    # First noted, then looked: of two that do it at the same time one at least sees the other.
    batch.calls.append(queue)
    # Its own line is nothing to follow: there it is told so anyway.
    if batch not in queue.running and _leads_to(queue, batch):
        batch.calls.remove(queue)
        raise ReentrantCallError(circular(name, own))


def called(caller: Running, queue: Slots) -> None:
    """Note that the batch does not wait there any more."""
    _, batch, _ = caller
    batch.calls.remove(queue)


def _leads_to(queue: Slots, batch: Batch | RemoteBatch) -> bool:
    """Say whether an item in the line of ``queue`` would wait for ``batch``."""
    seen: set[int] = set()
    todo = [queue]
    while todo:
        queue = todo.pop()
        if id(queue) not in seen and queue.has_one_slot:
            seen.add(id(queue))
            for running in list(queue.running):
                if running is batch:
                    return True
                todo += running.calls
    return False
