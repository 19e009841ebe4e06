"""The lifespan of a slot: a context manager for a resource of the worker that runs its batches, such as a model.

Decides: when the context manager is entered, and what happens to an error.
Must not know: engines, threads, event loops.

1. A worker enters it before its first batch, and exits it when it ends.
2. An error on entering is the error of the batch, and the next batch tries again.
3. An error on exit is logged, because no call waits for it.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

from batchify._batcher.current import entering

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchify._core.batch import Batch

log = logging.getLogger("batchify")


class Lifespan:
    """The context manager of one worker thread, which alone calls these methods."""

    def __init__(self, function: Callable[[], Any], name: str) -> None:
        self._function = function
        self._name = name
        self._stack: ExitStack | None = None
        self.state: Any = None

    def enter(self, batch: Batch) -> bool:
        """Enter the context manager unless it is entered already; return whether ``batch`` is the first."""
        if self._stack is not None:
            return False
        stack = ExitStack()
        with entering(batch):
            self.state = stack.enter_context(manager_of(self._function, self._name, "__enter__"))
        self._stack = stack
        return True

    def exit(self) -> None:
        stack, self._stack = self._stack, None
        self.state = None
        if stack is not None:
            try:
                stack.close()
            except BaseException as error:  # noqa: BLE001  # rule 3
                log_exit(self._name, error)


def manager_of(function: Callable[[], Any], name: str, method: str) -> Any:
    """Return the context manager that ``function`` returns, which must have ``method``."""
    manager: object = function()
    if not hasattr(type(manager), method):
        kind = "a context manager" if method == "__enter__" else "an asynchronous context manager"
        msg = f"the lifespan of {name}() must return {kind}, got an object of type {type(manager).__name__}"
        raise TypeError(msg)
    return manager


def log_exit(name: str, error: BaseException) -> None:
    # An error of a logging filter would end the worker.
    with suppress(Exception):
        log.error("the lifespan of %s() raised on exit", name, exc_info=error)
