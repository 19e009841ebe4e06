"""The outcome of a batch: from the value or the error of the batch function, one answer for each caller.

Decides: whether a value answers every item, and which exception each caller gets.
Must not know: how callers wait, or how they get their answers.

Rules
-----
1. A result is passed on unchanged. It is never compared, tested for truth or asked for its class.
2. A result that is an ``Exception`` is an error of its own caller.
3. Each caller gets its own copy of an error of the batch, with that error as its cause. One object raised to many
   callers would collect the tracebacks of all (python/cpython#101267). An exception that cannot be copied is shared.
4. An exception must not end the code around a call by accident. So ``StopIteration`` is wrapped, as in a generator
   (PEP 479). On a loop, an error that is no ``Exception`` is wrapped too: it would cancel the caller's task.
5. An exception class is user code, and may override any attribute. So the members that the library needs are read and
   set through ``BaseException``.
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

# These have a length, but no order, or are a single value. A caller would not notice that it got a key or a letter.
NOT_SEQUENCES = (Mapping, AbstractSet, str, bytes, bytearray, memoryview)

# The members of every exception.
_CAUSE, _DICT, _TRACEBACK = (vars(BaseException)[name] for name in ("__cause__", "__dict__", "__traceback__"))


class Done(Enum):
    """The type of ``DONE``."""

    DONE = "DONE"

    def __repr__(self) -> str:
        return "batchify.DONE"

    __str__ = __repr__


# A member of an enum stays one object when it is copied or unpickled, and type checkers can tell it apart.
DONE: Final = Done.DONE


def type_in_words(value: object) -> str:
    """Return the type of ``value`` in words, for a message."""
    kind = type(value).__name__
    return "None" if value is None else f"{'an' if kind[0] in 'AEIOUaeiou' else 'a'} {kind}"


def results(name: str, size: int, returned: Any, verb: str = "return") -> list[Any]:
    """Return the results for a batch of ``size`` items as a new list. ``verb`` is ``"return"`` or ``"yield"``.

    Raises:
        BatchResultError: ``returned`` is not one result for each item, in order.
    """
    kind = type_in_words(returned)
    if hasattr(type(returned), "__dataframe__"):  # pyright: ignore[reportUnknownArgumentType]  # the type of anything
        # Its length is that of its rows, but it yields the names of its columns. The attribute is the interchange
        # protocol of pandas, polars and others.
        frame = f'{kind}, whose elements are its columns ({verb} frame.to_dict("records") instead)'
        raise BatchResultError(_wrong(name, size, frame, verb))
    if returned is None or isinstance(returned, NOT_SEQUENCES):
        raise BatchResultError(_wrong(name, size, kind, verb))
    try:
        count = len(returned)
    except TypeError:
        raise BatchResultError(_wrong(name, size, f"{kind}, which has no length", verb)) from None
    answers = list(returned)
    if not count == len(answers) == size:
        raise BatchResultError(_wrong(name, size, f"{len(answers)} result{'' if len(answers) == 1 else 's'}", verb))
    return answers


def _wrong(name: str, size: int, returned: str, verb: str) -> str:
    items = "1 item" if size == 1 else f"{size} items"
    return f"{name}() was given {items} and {verb}ed {returned}; it must {verb} one for each item, in order"


def keyed_results(name: str, items: list[Any], returned: Any) -> list[Any]:
    """Return the result of each item from a mapping; an item that cannot be found has an error of its own.

    Raises:
        BatchResultError: ``returned`` is not a mapping.
    """
    if not isinstance(returned, Mapping):
        kind = type_in_words(returned)
        msg = f"{name}() returned {kind}; with keyed=True, it must return a mapping from each item to its result"
        raise BatchResultError(msg)
    return [_result_of(name, item, returned) for item in items]  # pyright: ignore[reportUnknownArgumentType]  # of anything


def _result_of(name: str, item: Any, returned: Mapping[Any, Any]) -> Any:
    try:
        return returned[item]
    except KeyError:
        return KeyError(f"{name}() returned no result for this item")
    except Exception as error:  # noqa: BLE001  # hashing and comparing an item is user code
        drop_engine_frame(error)
        return error


def is_error(result: object) -> bool:
    # Unlike this, isinstance() reads ``__class__``, which may be user code: a proxy or a mock may raise there, or claim
    # to be an exception.
    return issubclass(type(result), Exception)


def translate_exception(error: BaseException, name: str, *, on_loop: bool) -> BaseException:
    """Return the exception that callers get for ``error``: the error itself, or a wrapper (rule 4)."""
    kind = type(error)
    if issubclass(kind, (StopIteration, StopAsyncIteration)):
        wrapper: BaseException = RuntimeError(f"{name}() raised {kind.__name__}")
    elif on_loop and not is_error(error):
        ended = f"the batch of {name}() was ended by {kind.__name__} before its callers had their results"
        wrapper = BatchAbortedError(ended)
    else:
        return error
    wrapper.__cause__ = error
    return wrapper


class RaisedInThread(Exception):  # noqa: N818  # it is no error, but carries one
    """Carries the error of a batch function from its thread to the loop. A future does not carry every exception."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


def call_captured(fn: Callable[[Any], Any], items: Any) -> Any:
    """Call ``fn`` in a thread for a loop, and wrap its error in ``RaisedInThread``."""
    try:
        return fn(items)
    except BaseException as error:  # noqa: BLE001  # every way out of a batch answers its callers
        drop_engine_frame(error)
        raise RaisedInThread(error) from None


def drop_engine_frame(error: BaseException) -> None:
    """Remove the frame that caught ``error`` from its traceback. It would keep the batch and its callers alive."""
    traceback = _TRACEBACK.__get__(error)
    BaseException.with_traceback(error, traceback and traceback.tb_next)


def with_own_exceptions(answers: list[Any]) -> list[Any]:
    """Return ``answers`` with a copy in place of each repeated exception object."""
    if len({*map(id, answers)}) == len(answers):
        return answers
    seen: set[int] = set()
    own: list[Any] = []
    for answer in answers:
        own.append(copied(answer) if id(answer) in seen and is_error(answer) else answer)
        seen.add(id(answer))
    return own


def exception_for(error: BaseException, name: str, position: int, size: int, *, on_loop: bool) -> BaseException:
    """Return the exception for one caller: a wrapper of ``error``, or a copy with a note of the position.

    ``error`` is its cause. An error that cannot be copied is returned itself.
    """
    wrapper = translate_exception(error, name, on_loop=on_loop)
    if wrapper is not error:
        return wrapper
    twin = copied(error)
    if twin is error:
        return error
    _CAUSE.__set__(twin, error)
    if sys.version_info >= (3, 11):
        note = f"raised by {name}() for item {position + 1} of a batch of {size}"
        notes = _DICT.__get__(error).get("__notes__")
        _DICT.__get__(twin)["__notes__"] = [*notes, note] if isinstance(notes, list) else [note]
    return twin


def copied(error: BaseException) -> BaseException:
    for make_copy in (copy.copy, _rebuilt):
        try:
            twin = make_copy(error)
            if twin is not error and type(twin) is type(error):
                # A constructor that formats its message would format it twice.
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
