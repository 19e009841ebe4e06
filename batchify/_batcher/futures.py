"""A future that the exception of a signal handler cannot leave locked."""

from __future__ import annotations

from concurrent.futures import Future
from operator import attrgetter
from threading import Condition
from typing import Any, TypeVar

T = TypeVar("T")


class AtomicCondition(Condition):
    """A condition that ``with`` takes and releases in one step of C.

    The methods of ``Condition`` are Python functions. A signal handler that raises at their end leaves the lock taken,
    and then a worker that sets the result would wait for ever.
    """

    __slots__ = ()
    __enter__: Any = property(attrgetter("_lock.__enter__"))
    __exit__: Any = property(attrgetter("_lock.__exit__"))


class SafeFuture(Future[T]):
    def __init__(self) -> None:
        super().__init__()
        self._condition.__class__ = AtomicCondition

    def renew_lock(self) -> None:
        """Forget the thread that holds the lock, in the child of a fork."""
        self._condition = Condition()
        self._condition.__class__ = AtomicCondition
