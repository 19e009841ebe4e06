"""Batches that wait for each other: a call that would wait for its own batch is refused, as it would never end.

Must not know: how a caller waits, clocks, locks.

1. A call from inside a batch holds a ``Wait`` while it waits. Other calls need none.
2. A call to a queue in which its own batch runs is refused.
3. A call that closes a cycle of batches of this process is refused. A batch of another process is in no queue here.

Theory: with one slot, each item in a queue waits for the batch that runs there, and that batch waits for its own calls
in further queues. If these steps lead from a call back to its own batch, no batch on the way can end. A queue with
several slots is not followed: its items may start while one batch waits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from batchify._batcher.current import local_batch
from batchify.errors import ReentrantCallError, circular, reentrant

if TYPE_CHECKING:
    from typing_extensions import Self

    from batchify._core.batch import Batch
    from batchify._core.slots import Slots

# The queues in which the calls of a batch wait, for each batch that has made any.
_calls: WeakKeyDictionary[Batch, list[Slots]] = WeakKeyDictionary()


class Wait:
    """The wait of a call of ``name`` in ``queue``. Its creation refuses a call that would wait for its own batch."""

    __slots__ = ("_calls", "_queue")

    def __init__(self, queue: Slots, name: str) -> None:
        batch = local_batch()
        if batch in queue.running:
            raise ReentrantCallError(reentrant(name))
        self._queue = queue
        self._calls = [] if batch is None else _calls.setdefault(batch, [])
        # Noted before the search: of two calls that close a cycle at the same time, at least one sees the other.
        self._calls.append(queue)
        if batch is not None and _leads_to(queue, batch):
            self.end()
            raise ReentrantCallError(circular(name, batch.name))

    def end(self) -> None:
        self._calls.remove(self._queue)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.end()


def _leads_to(queue: Slots, batch: Batch) -> bool:
    seen: set[int] = set()
    todo = [queue]
    while todo:
        queue = todo.pop()
        if id(queue) not in seen and queue.has_one_slot:
            seen.add(id(queue))
            for running in list(queue.running):
                if running is batch:
                    return True
                todo += _calls.get(running, ())
    return False
