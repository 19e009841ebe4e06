"""Batches that wait for each other: a call that would wait for its own batch is refused, as it would never end.

Must not know: how a caller waits, clocks, locks.

1. A call from inside a batch holds a ``Wait`` while it waits. Other calls need none.
2. A call to a queue in which its own batch runs is refused.
3. A call that closes a cycle of batches of this process is refused. A batch of another process is in no queue here.
4. A batch that drains a queue does not wait if a call to that queue would be refused.

Theory: with one slot, each item in a queue waits for the batch that runs there, and that batch waits for its own calls
in further queues. If these steps lead from a call back to its own batch, no batch on the way can end. A queue with
several slots is not followed: its items may start while one batch waits. A drain, however, waits for all batches.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeAlias, cast
from weakref import WeakKeyDictionary

from batchify._batcher.current import local_batch
from batchify.errors import ReentrantCallError, circular, reentrant

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

    from batchify._core.batch import Batch
    from batchify._core.slots import Slots

    # A queue that a batch waits for, and whether it waits for all batches that run there.
    Step: TypeAlias = tuple[Slots, bool]

# The waits of each batch that has waited.
_steps: WeakKeyDictionary[Batch, list[Step]] = WeakKeyDictionary()


class Wait:
    """The wait of a call of ``name`` in ``queue``. Its creation refuses a call that would wait for its own batch."""

    __slots__ = ("end",)

    def __init__(self, queue: Slots, name: str) -> None:
        check_reentrancy(queue, name)
        end = begin_wait(queue)
        if end is None:
            raise ReentrantCallError(circular(name, cast("Batch", local_batch()).name))
        self.end = end

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.end()


def check_reentrancy(queue: Slots, name: str) -> None:
    if local_batch() in queue.running:
        raise ReentrantCallError(reentrant(name))


def begin_wait(queue: Slots, *, is_drained: bool = False) -> Callable[[], object] | None:
    """Let the running batch, if any, wait for a slot of ``queue``, or for all batches there if it ``is_drained``.

    Return the function that ends the wait, or ``None`` if the batch would wait for itself.
    """
    batch, step = local_batch(), (queue, is_drained)
    steps = [] if batch is None else _steps.setdefault(batch, [])
    # Noted before the search: of two waits that close a cycle at the same time, at least one sees the other.
    steps.append(step)
    if batch is not None and _leads_to(step, batch):
        steps.remove(step)
        return None
    return partial(steps.remove, step)


def _leads_to(step: Step, batch: Batch) -> bool:
    seen: set[int] = set()
    todo = [step]
    while todo:
        queue, is_drained = todo.pop()
        if id(queue) not in seen and (is_drained or queue.has_one_slot):
            seen.add(id(queue))
            for running in list(queue.running):
                if running is batch:
                    return True
                todo += _steps.get(running, ())
    return False
