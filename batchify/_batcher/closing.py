"""How a thread or a task waits until an engine that is being closed has answered all its callers.

Must not know: batches, the core, when a batcher is open.

An event loop that stops or is closed does no more work and notifies nobody. A wait that depends on a loop therefore
polls whether the loop still runs, and gives up the calls that a loop leaves behind when it ends.
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

    def end(self) -> None:
        """Note that the work has ended. The engine calls it once, from any thread."""
        self.set_result(None)

    def wait(self, loop: AbstractEventLoop | None = None) -> None:
        """Block until the end, but no longer than ``loop`` runs if the engine depends on one."""
        while not self.done() and (loop is None or loop.is_running()):
            wait([self], None if loop is None else POLL_SECONDS)

    async def wait_async(self, loop: AbstractEventLoop | None = None) -> None:
        """Await the end, but no longer than ``loop`` runs if the engine depends on one."""
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
