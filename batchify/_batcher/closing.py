"""The wait of a thread or a task until an engine that is closing has answered all its callers.

Must not know: batches, the core, when a batcher is open.
An event loop that stops or is closed notifies nothing. A wait that depends on a loop therefore polls whether it runs,
and gives up the calls of a loop that has ended.
"""

from __future__ import annotations

from concurrent.futures import Future, wait
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

POLL_SECONDS = 0.02


class Closing(Future[None]):
    """The end of an engine's work, for one thread or task that waits for it."""

    # The engine calls this once, from any thread.
    def end(self) -> None:
        self.set_result(None)

    def wait(self, loop: AbstractEventLoop | None = None) -> None:
        """Block until the end, or until ``loop`` stops if the engine depends on one."""
        while not self.done() and (loop is None or loop.is_running()):
            wait([self], None if loop is None else POLL_SECONDS)

    async def wait_async(self, loop: AbstractEventLoop | None = None) -> None:
        import asyncio  # noqa: PLC0415  # users of threads alone do not import it

        here = asyncio.get_running_loop()
        ended = here.create_future()

        def wake(_: object) -> None:
            # The loop may be closed by now, and then nothing waits on it.
            with suppress(RuntimeError):
                here.call_soon_threadsafe(ended.set_result, None)

        self.add_done_callback(wake)
        seconds = None if loop is None or loop is here else POLL_SECONDS
        while not ended.done() and (loop is None or loop.is_running()):
            await asyncio.wait([ended], timeout=seconds)
