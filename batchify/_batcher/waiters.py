"""The base class of everything that waits in the queue of a thread engine.

Decides: the verbs that an engine uses on a waiter.
Must not know: engines, how a caller blocks or awaits.

An engine asks ``is_open()`` when a batch departs and again when it ends. It stores ``value`` or ``error`` in the open
waiters, updates the statistics, and only then calls ``wake()`` on each: a caller that has its answer finds it counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from threading import Lock


class Waiter:
    """A caller of a thread engine."""

    __slots__ = ()

    value: Any
    error: BaseException | None
    # Makes the caller go on with its answer.
    wake: Callable[[], None]
    # Held until there is room for the item, if the caller blocks until then.
    gate: Lock | None = None

    @property
    def future(self) -> Any:
        """The future that the caller can cancel, or ``None``."""
        return None

    def is_open(self) -> bool:
        """Return whether the caller still wants an answer."""
        raise NotImplementedError

    def admit(self) -> None:
        """Open the gate: there is room for the item, or the item no longer waits for it."""
        if self.gate is not None and self.gate.locked():
            self.gate.release()
