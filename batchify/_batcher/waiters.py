"""The waiters of a thread engine: the side of a call that gets the answer.

Decides: the verbs that an engine uses on waiters of one kind.
Must not know: engines, how a caller blocks or awaits.

A waiter is of the kind that its type is, or that its type is registered for. The waiters of a batch are of few kinds,
often of one. So an engine answers all waiters of a kind in one step, after it has counted them: a caller that has its
answer finds it in the statistics.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable
    from threading import Lock


class Failed:
    """An answer that is raised to the caller of the batcher ``name``."""

    __slots__ = ("error", "name")

    def __init__(self, error: BaseException, name: str) -> None:
        self.error = error
        self.name = name


class Waiter:
    __slots__ = ()

    # Whether a caller that leaves tells the engine, so that the engine need not ask each waiter.
    reports_leaving = False
    # Held until the item has room, if the caller blocks until then.
    gate: Lock | None = None

    def get_future(self) -> Any:
        """Return the future that the caller can cancel, if there is one."""
        return None

    def is_open(self) -> bool:
        """Return whether the caller still wants an answer. A batch asks before it runs, and before it answers."""
        raise NotImplementedError

    @classmethod
    def gone(cls, waiters: Iterable[Any]) -> list[bool]:
        return [not waiter.is_open() for waiter in waiters]

    def admit(self) -> None:
        """Open the gate: the item has room, or no longer waits for it."""
        if self.gate is not None and self.gate.locked():
            self.gate.release()

    def answer(self, answer: Any) -> None:
        """Wake the caller with its answer, a result or a ``Failed``."""
        raise NotImplementedError

    @classmethod
    def answer_all(cls, waiters: list[Any], answers: list[Any]) -> None:
        for waiter, answer in zip(waiters, answers, strict=True):
            waiter.answer(answer)


# The kinds of waiters whose type is not a subclass of ``Waiter``.
registered_kinds: dict[type[Any], type[Waiter]] = {}


def kind_of(waiter: Any) -> type[Waiter]:
    waiter_type: type[Any] = type(waiter)  # pyright: ignore[reportUnknownVariableType]  # the type of anything
    return registered_kinds.get(waiter_type, waiter_type)
