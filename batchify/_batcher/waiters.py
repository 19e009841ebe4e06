"""The base class of all waiters in the queue of a thread engine.

Decides: the verbs that an engine uses on a waiter.
Must not know: engines, how a caller blocks or awaits.
An engine calls ``is_open()`` when a batch departs and again when it ends. It stores ``value`` or ``error`` in the open
waiters, updates the statistics, and only then calls ``wake()`` on each: a caller that has its answer finds it counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from threading import Lock


class Waiter:
    __slots__ = ()

    value: Any
    error: BaseException | None
    # Wakes the caller, which reads its answer.
    wake: Callable[[], None]
    # Held until the item has room, if the caller blocks until then.
    gate: Lock | None = None

    # The future that the caller can cancel.
    @property
    def future(self) -> Any:
        return None

    def is_open(self) -> bool:
        """Return whether the caller still wants an answer."""
        raise NotImplementedError

    def admit(self) -> None:
        """Open the gate: the item has room, or no longer waits for it."""
        if self.gate is not None and self.gate.locked():
            self.gate.release()
