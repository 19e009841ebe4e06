"""What came back from the batch function, turned into one answer for each caller.

Decides: whether a return value answers every item; which exception each caller gets.
Must not know: who waits, or how they are told.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from batchify.errors import BatchAbortedError, BatchResultError

if TYPE_CHECKING:
    from collections.abc import Callable

# They have a length, but no order, or are one value: a caller that got a key or a letter would not notice.
NOT_SEQUENCES = (Mapping, AbstractSet, str, bytes, bytearray, memoryview)

# Members of any exception, past what its class may have put in their place.
_CAUSE, _DICT, _TRACEBACK = (vars(BaseException)[name] for name in ("__cause__", "__dict__", "__traceback__"))


class Done(Enum):
    """The type of ``DONE``."""

    DONE = "DONE"

    def __repr__(self) -> str:
        return "batchify.DONE"

    __str__ = __repr__


# An enum has one object for it in a process, also where it is copied or unpickled, and type checkers can tell it apart.
DONE: Final = Done.DONE


def results(name: str, size: int, returned: Any, verb: str = "return") -> list[Any]:
    """Return the results for a batch of ``size`` items as a list of our own.

    Args:
        name: that of the batch function.
        size: how many items it was given.
        returned: what it made of them.
        verb: what it did with that.

    Raises:
        BatchResultError: ``returned`` is not one result for each item, in order.
    """
    kind = type(returned).__name__
    if returned is None or isinstance(returned, NOT_SEQUENCES):
        raise BatchResultError(_wrong(name, size, "None" if returned is None else f"a {kind}", verb))
    try:
        count = len(returned)
    except TypeError:
        raise BatchResultError(_wrong(name, size, f"a {kind}, which has no length", verb)) from None
    answers = list(returned)
    if not count == len(answers) == size:
        raise BatchResultError(_wrong(name, size, f"{len(answers)} result{'' if len(answers) == 1 else 's'}", verb))
    return answers


def _wrong(name: str, size: int, returned: str, verb: str) -> str:
    items = "1 item" if size == 1 else f"{size} items"
    return f"{name}() was given {items} and {verb}ed {returned}; it must {verb} one for each item, in order"


def shared_exception(error: BaseException, name: str, *, on_loop: bool) -> BaseException:
    """Return what the callers of a batch are told when ``error`` ended it.

    What is no ``Exception`` would cancel or end the task of a caller ``on_loop``, which nobody asked for: their batch
    was ended, not they. An exception that steers generators would change the meaning of the caller's own code, so it is
    wrapped as Python wraps it in a generator (PEP 479).
    """
    # Not isinstance(), which asks the exception: that is somebody else's code.
    kind = type(error)
    if issubclass(kind, (StopIteration, StopAsyncIteration)):
        told: BaseException = RuntimeError(f"{name}() raised {kind.__name__}")
    elif on_loop and not issubclass(kind, Exception):
        ended = f"the batch of {name}() was ended by {kind.__name__} before its callers had their results"
        told = BatchAbortedError(ended)
    else:
        return error
    told.__cause__ = error
    return told


class RaisedInThread(Exception):  # noqa: N818  # it is no error, but carries one
    """Brings what a batch function raised in a thread to the loop, as it is: not every exception can travel alone."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


def call_captured(fn: Callable[[Any], Any], items: Any) -> Any:
    """Call ``fn`` on behalf of a loop.

    Raises:
        Carried: with whatever ``fn`` raised.
    """
    try:
        return fn(items)
    except BaseException as error:  # noqa: BLE001  # every way out of a batch answers its callers
        drop_engine_frame(error)
        raise RaisedInThread(error) from None


def drop_engine_frame(error: BaseException) -> None:
    """Take the engine's frame out of the traceback: it would keep the batch, and so all callers, alive."""
    traceback = _TRACEBACK.__get__(error)
    BaseException.with_traceback(error, traceback and traceback.tb_next)


def exception_for(error: BaseException, name: str, position: int, size: int, *, on_loop: bool) -> BaseException:
    """Return what the caller at ``position`` of a batch of ``size`` is told when ``error`` ended it."""
    told = shared_exception(error, name, on_loop=on_loop)
    return copy_exception(error, name, position, size) if told is error else told


def with_own_exceptions(answers: list[Any]) -> list[Any]:
    """Return the answers for callers of whom some share one, each with an exception object of its own."""
    seen: set[int] = set()
    own: list[Any] = []
    for answer in answers:
        is_repeated = issubclass(type(answer), Exception) and id(answer) in seen
        own.append(_copied(answer) if is_repeated else answer)
        seen.add(id(answer))
    return own


def copy_exception(error: BaseException, name: str, position: int, size: int) -> BaseException:
    """Return an exception of the same type and arguments for the caller at ``position`` of a batch of ``size``.

    Its cause is the original. One object raised to many callers would collect all their tracebacks
    (python/cpython#101267). An exception that can't be copied is handed out itself.
    """
    twin = _copied(error)
    if twin is error:
        return error
    _CAUSE.__set__(twin, error)
    if sys.version_info >= (3, 11):
        note = f"raised by {name}() for item {position + 1} of a batch of {size}"
        notes = _DICT.__get__(error).get("__notes__")
        _DICT.__get__(twin)["__notes__"] = [*notes, note] if isinstance(notes, list) else [note]
    return twin


def _copied(error: BaseException) -> BaseException:
    """Return a copy of ``error``, or ``error`` itself if it cannot be copied."""
    for copied in (copy.copy, _rebuilt):
        try:
            twin = copied(error)
            if twin is not error and type(twin) is type(error):
                # A constructor that words its message would word it twice.
                BaseException.__setattr__(twin, "args", error.args)
                return twin
        except BaseException:  # noqa: BLE001, PERF203, S112  # the class may run any code when it is copied
            continue
    return error


def _rebuilt(error: BaseException) -> BaseException:
    """Copy an exception whose constructor does not take its own ``args``."""
    kind = type(error)
    twin = kind.__new__(kind, *error.args)
    vars(twin).update(vars(error))
    return twin
