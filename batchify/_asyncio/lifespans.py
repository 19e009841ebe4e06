"""The lifespans of the slots of an engine on its event loop. See ``_batcher.lifespan`` for the rules.

Must not know: batches, the core, threads.

One task enters and exits the context manager of a slot, because some context managers, such as task groups, require
that. So the end of ``asyncio.run()``, which cancels all tasks, exits it too.
"""

from __future__ import annotations

import asyncio
from asyncio import CancelledError, Event, Future, Task
from contextlib import AsyncExitStack, suppress
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from batchify._batcher.current import entering
from batchify._batcher.lifespan import log_exit, manager_of

if TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import Callable, Sequence

    from batchify._core.batch import Batch

    # Ends with the exit of a context manager.
    EndOfLifespan: TypeAlias = Task[None] | concurrent.futures.Future[None]


class Lifespans(Protocol):
    """The lifespans of all slots of an engine: of ``LoopLifespans``, or of a ``ThreadOffload``."""

    @property
    def are_entered(self) -> bool: ...
    async def enter(self, slot: int, batch: Batch) -> tuple[Any, bool]: ...
    def end(self, chosen: Callable[[int], bool]) -> Sequence[EndOfLifespan]: ...


class LoopLifespan:
    """The context manager of one slot. All methods are for the thread of the loop."""

    def __init__(self, function: Callable[[], Any], name: str, batch: Batch) -> None:
        self._name = name
        self.entered: Future[Any] = Future()
        self._ended = Event()
        self.end = self._ended.set
        # In an empty context, and as a plain task, like those of batches.
        self.task = Context().run(Task, self._run(function, batch), name=name)
        # A loop that closes without the end of its tasks leaves it pending for good.
        self.task._log_destroy_pending = False  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
        # The loop itself raises a ``SystemExit``, so asyncio need not log it.
        self.task.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def _run(self, function: Callable[[], Any], batch: Batch) -> None:
        try:
            async with AsyncExitStack() as stack:
                with entering(batch):
                    state = await stack.enter_async_context(manager_of(function, self._name, "__aenter__"))
                # The rest must not keep its items alive.
                del batch
                self.entered.set_result(state)
                # The end of ``asyncio.run()`` is a usual end.
                with suppress(CancelledError):
                    await self._ended.wait()
        except GeneratorExit:
            # The loop was closed without the end of its tasks.
            raise
        except BaseException as error:
            if self.entered.done():
                log_exit(self._name, error)
            else:
                self.entered.set_exception(error)
                # Its batch may have been cancelled meanwhile, and then no code reads the error.
                self.entered.exception()
            if not isinstance(error, Exception):
                raise


def _forget(by_slot: dict[int, LoopLifespan], lifespan: LoopLifespan, _: object = None) -> None:
    for slot in [slot for slot, other in by_slot.items() if other is lifespan]:
        del by_slot[slot]


class LoopLifespans:
    """The lifespans of all slots of an engine, made as batches need them."""

    def __init__(self, function: Callable[[], Any], name: str) -> None:
        self._make: Callable[[Batch], LoopLifespan] = partial(LoopLifespan, function, name)
        self._by_slot: dict[int, LoopLifespan] = {}

    @property
    def are_entered(self) -> bool:
        """Whether any context manager is entered, or about to be."""
        return bool(self._by_slot)

    async def enter(self, slot: int, batch: Batch) -> tuple[Any, bool]:
        """Return the value of the context manager of ``slot``, and whether it was entered only now, for ``batch``."""
        lifespan = self._by_slot.get(slot)
        is_new = lifespan is None
        if lifespan is None:
            lifespan = self._by_slot[slot] = self._make(batch)
            # The end of a loop ends the task, which would keep the loop alive.
            lifespan.task.add_done_callback(partial(_forget, self._by_slot, lifespan))
        # This does not cancel the future if the batch is cancelled.
        await asyncio.wait([lifespan.entered, lifespan.task], return_when=asyncio.FIRST_COMPLETED)
        # An interrupt may have ended the task before it began.
        outcome: Future[Any] = lifespan.entered if lifespan.entered.done() else lifespan.task
        if outcome.cancelled() or outcome.exception() is not None:
            # The next batch tries again.
            _forget(self._by_slot, lifespan)
        return outcome.result(), is_new

    def end(self, chosen: Callable[[int], bool]) -> list[EndOfLifespan]:
        """Exit the context managers of the ``chosen`` slots, and return the tasks that do it."""
        ended = [self._by_slot.pop(slot) for slot in [*self._by_slot] if chosen(slot)]
        for lifespan in ended:
            lifespan.end()
        return [lifespan.task for lifespan in ended]

    # The engine is gone, because nothing refers to the function any more.
    def __del__(self) -> None:
        # A copy, because the loop may run in another thread, and forgets those that end.
        for lifespan in [*self._by_slot.values()]:
            with suppress(RuntimeError):
                lifespan.task.get_loop().call_soon_threadsafe(lifespan.end)
