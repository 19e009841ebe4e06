"""How one waits, in a thread or on an event loop, until a batcher that is being closed has answered all.

Must not know: batches, the core, when a batcher is open.

An engine is given ``tell`` and calls it once, from whichever thread, when nothing waits and nothing runs any more. An
event loop that stops or is closed does nothing more, and says so to nobody, so who waits for one also looks now and
then whether it still runs. What waits there then is not waited for, as with a loop that had ended before.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

# Seconds between two looks at a loop.
LOOK = 0.02


class Blocked:
    """Somebody who closes from a thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._lock.acquire()

    def tell(self) -> None:
        self._lock.release()

    def wait(self, loop: AbstractEventLoop) -> None:
        """Block until told, but no longer than ``loop`` runs."""
        while not self._lock.acquire(timeout=LOOK) and loop.is_running():
            pass


class Awaiting:
    """Somebody who closes from an event loop."""

    def __init__(self) -> None:
        self._home = asyncio.get_running_loop()
        self._told = self._home.create_future()

    def tell(self) -> None:
        # The loop may be closed by now: then nobody is left to be told.
        with suppress(RuntimeError):
            self._home.call_soon_threadsafe(self._told.set_result, None)

    async def wait(self, loop: AbstractEventLoop | None = None) -> None:
        """Return when told; if that depends on another ``loop``, then no later than it ends."""
        seconds = None if loop is None or loop is self._home else LOOK
        while not self._told.done() and (loop is None or loop.is_running()):
            await asyncio.wait([self._told], timeout=seconds)
