"""The outcome of a batch: the results or the error of its function, and the answer of each caller."""

from __future__ import annotations

import asyncio
import sys
import traceback
from array import array
from collections import UserList, deque
from dataclasses import dataclass
from types import MappingProxyType, SimpleNamespace

import pytest

from batchify._core.outcome import (
    DONE,
    RaisedInThread,
    call_captured,
    copied,
    drop_engine_frame,
    exception_for,
    keyed_results,
    results,
    translate_exception,
    with_own_exceptions,
)
from batchify.errors import BatchAbortedError, BatchResultError
from tests.kit.misbehaving import Untouchable

RULE = "it must return one for each item, in order"
notes = pytest.mark.skipif(sys.version_info < (3, 11), reason="exceptions have no notes before Python 3.11")


def refusal(returned, size=3):
    """Return the message of the error that refuses a returned value for a number of items."""
    with pytest.raises(BatchResultError) as caught:
        results("embed", size, returned)
    return str(caught.value)


class Column:
    """Has a length and an order but is not a sequence, like an array."""

    def __init__(self, *values):
        self.values = values

    def __len__(self):
        return len(self.values)

    def __getitem__(self, place):
        return self.values[place]


class Boast(Column):
    """Reports a length that is one more than its number of results."""

    def __len__(self):
        return super().__len__() + 1


@pytest.mark.parametrize(
    "returned",
    [
        [1, 2, 3],
        (1, 2, 3),
        range(1, 4),
        deque([1, 2, 3]),
        array("q", [1, 2, 3]),
        UserList([1, 2, 3]),
        {"a": 1, "b": 2, "c": 3}.values(),
        Column(1, 2, 3),
    ],
    ids=lambda returned: type(returned).__name__,
)
def test_any_value_with_a_length_and_an_order_is_accepted(returned):
    """Lists, tuples, arrays and similar types give one result for each item, in order."""
    assert [1, 2, 3] == results("embed", 3, returned)


def test_the_list_of_results_is_a_new_one():
    """A later change of the returned list does not change any result."""
    returned = [1, 2, 3]
    answers = results("embed", 3, returned)
    returned.clear()
    assert [1, 2, 3] == answers


def test_results_are_passed_on_as_they_are():
    """The returned objects themselves are the results, and the engine does not examine them."""
    returned = [Untouchable(), None, ValueError("mine")]
    assert [id(result) for result in returned] == [id(result) for result in results("embed", 3, returned)]


@pytest.mark.parametrize(
    ("size", "returned", "message"),
    [
        (32, [0] * 31, f"embed() was given 32 items and returned 31 results; {RULE}"),
        (2, [0] * 3, f"embed() was given 2 items and returned 3 results; {RULE}"),
        (2, [0], f"embed() was given 2 items and returned 1 result; {RULE}"),
        (1, [], f"embed() was given 1 item and returned 0 results; {RULE}"),
        (1, [0, 0], f"embed() was given 1 item and returned 2 results; {RULE}"),
    ],
)
def test_a_wrong_number_of_results_is_refused(size, returned, message):
    """Too many or too few results are an error with both numbers and the rule."""
    assert message == refusal(returned, size)


@pytest.mark.parametrize(
    ("returned", "shown"),
    [
        (None, "None"),
        ({1: 1, 2: 2, 3: 3}, "a dict"),
        (MappingProxyType({1: 1, 2: 2, 3: 3}), "a mappingproxy"),
        ({1, 2, 3}, "a set"),
        (frozenset({1, 2, 3}), "a frozenset"),
        ({1: 1, 2: 2, 3: 3}.keys(), "a dict_keys"),
        ("abc", "a str"),
        (b"abc", "a bytes"),
        (bytearray(b"abc"), "a bytearray"),
        (memoryview(b"abc"), "a memoryview"),
    ],
)
def test_a_value_without_an_order_is_refused(returned, shown):
    """A mapping, a set, a string or bytes is refused even when it has the right length."""
    assert f"embed() was given 3 items and returned {shown}; {RULE}" == refusal(returned)


@pytest.mark.parametrize("verb", ["return", "yield"])
def test_a_table_is_refused(verb):
    """A table has the length of its rows, but yields its columns, so a square one would give wrong results."""

    class Frame(Column):
        def __dataframe__(self):
            raise NotImplementedError

    with pytest.raises(BatchResultError) as caught:
        results("embed", 2, Frame("a", "b"), verb)
    shown = f'a Frame, whose elements are its columns ({verb} frame.to_dict("records") instead)'
    assert f"embed() was given 2 items and {verb}ed {shown}; {RULE.replace('return', verb)}" == str(caught.value)


@pytest.mark.parametrize(
    ("returned", "shown"),
    [
        (iter([1, 2, 3]), "a list_iterator"),
        ((n for n in (1, 2, 3)), "a generator"),
        (map(str, [1, 2, 3]), "a map"),
        (3.0, "a float"),
        (3, "an int"),
        (OSError(), "an OSError"),
        (type("Xylophone", (), {})(), "a Xylophone"),
    ],
)
def test_a_value_without_a_length_is_refused(returned, shown):
    """An iterator or a single value is refused."""
    assert f"embed() was given 3 items and returned {shown}, which has no length; {RULE}" == refusal(returned)


def test_an_iterator_is_not_read():
    """An iterator that is refused is not consumed."""
    returned = iter([1, 2, 3])
    refusal(returned)
    assert [1, 2, 3] == list(returned)


@pytest.mark.parametrize("size", [2, 3])
def test_a_wrong_length_is_refused(size):
    """An object with another number of results than its length is refused, whichever number is right."""
    assert f"embed() was given {size} items and returned 2 results; {RULE}" == refusal(Boast(1, 2), size)


def test_a_refusal_has_no_context():
    """The failed ``len()`` is not part of the error that callers read."""
    with pytest.raises(BatchResultError) as caught:
        results("embed", 1, 3.0)
    assert caught.value.__suppress_context__


def test_results_are_never_shown():
    """The message has the type of the returned object, and never its content."""
    assert "private" not in refusal("private")


@pytest.mark.parametrize("on_loop", [True, False])
def test_an_exception_stays_as_it_is(on_loop):
    """An ``Exception`` stays as it is, on a loop and in a thread."""
    error = ValueError("bad")
    assert error is translate_exception(error, "embed", on_loop=on_loop)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1), GeneratorExit(), asyncio.CancelledError()])
def test_threads_get_errors_that_are_not_an_exception(error):
    """In a thread, an error that is not an ``Exception`` stays as it is, too."""
    assert error is translate_exception(error, "embed", on_loop=False)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1), GeneratorExit(), asyncio.CancelledError()])
def test_tasks_are_not_ended_with_their_batch(error):
    """On a loop, an error that would end a task becomes a ``BatchAbortedError`` from it."""
    translated = translate_exception(error, "embed", on_loop=True)
    message = f"the batch of embed() was ended by {type(error).__name__} before its callers had their results"
    assert (BatchAbortedError, message, error) == (type(translated), str(translated), translated.__cause__)


@pytest.mark.parametrize("on_loop", [True, False])
@pytest.mark.parametrize("error", [StopIteration(1), StopAsyncIteration()])
def test_stop_iteration_is_wrapped(error, on_loop):
    """``StopIteration`` and ``StopAsyncIteration`` become a ``RuntimeError`` from them, as in a generator."""
    translated = translate_exception(error, "embed", on_loop=on_loop)
    expected = (RuntimeError, f"embed() raised {type(error).__name__}", error)
    assert expected == (type(translated), str(translated), translated.__cause__)


def test_a_thread_returns_results_to_a_loop():
    """A function called in a thread for a loop gets the items, and its result is returned."""
    assert [3, 2, 1] == call_captured(lambda items: items[::-1], [1, 2, 3])


def fail(error):
    """Return a batch function that raises ``error``."""

    def embed(items):
        raise error

    return embed


def carried(error):
    """Return the exception that carries ``error`` to its loop, when a function raises it in a thread."""
    with pytest.raises(RaisedInThread) as caught:
        call_captured(fail(error), [1])
    return caught.value


def frames(error):
    """Return the names of the functions in a traceback."""
    return [frame.name for frame in traceback.extract_tb(error.__traceback__)]


@pytest.mark.parametrize("kind", [ValueError, StopIteration, SystemExit, KeyboardInterrupt])
def test_a_thread_carries_any_error_to_its_loop(kind):
    """Any error of a function in a thread reaches the loop as it is, with the function's own frames."""
    error = kind(1)
    assert (error, ["embed"]) == (carried(error).error, frames(error))


def test_a_carried_error_is_not_shown_twice():
    """The carrying exception has no visible context, so the error is not printed twice."""
    assert carried(ValueError("bad")).__suppress_context__


class PlainError(Exception):
    """A plain exception."""


class PickyError(Exception):
    """An exception whose constructor does not take its own ``args``."""

    def __init__(self, *, code):
        super().__init__(f"code {code}")
        self.code = code


class TardyError(PickyError):
    """An exception that has no ``args`` before its constructor runs."""

    def __new__(cls, *args, **kwargs):
        return super().__new__(cls)


class DividedError(Exception):
    """An exception whose ``__new__`` takes its ``args``, and whose ``__init__`` takes more arguments."""

    def __new__(cls, message, **kwargs):
        return super().__new__(cls, message)

    def __init__(self, message, *, code):
        super().__init__(message)


class CarefulError(Exception):
    """An exception whose ``__copy__`` gives the copy its own list."""

    def __init__(self, *args):
        super().__init__(*args)
        self.tried = ["here"]

    def __copy__(self):
        return type(self)(*self.args)


class WordingError(Exception):
    """An exception whose constructor formats the message."""

    def __init__(self, status):
        super().__init__(f"status {status}")
        self.status = status


class SharedError(Exception):
    """An exception whose copy is the same object."""

    def __copy__(self):
        return self


class ForgetfulError(Exception):
    """An exception whose copy has no arguments."""

    def __copy__(self):
        return type(self)()


class MuddledError(Exception):
    """An exception whose copy has other arguments."""

    def __copy__(self):
        return type(self)(*[[] for _ in self.args])


class OtherError(Exception):
    """An exception whose copy has another type."""

    def __copy__(self):
        return ValueError(*self.args)


class BrokenError(Exception):
    """An exception whose copy is not an exception."""

    def __copy__(self):
        return None


class RefusingError(Exception):
    """An exception that refuses to set attributes."""

    def __setattr__(self, name, value):
        raise AttributeError(name)


class MisusedError(Exception):
    """An exception with ``None`` in place of its list of notes."""

    def __init__(self):
        super().__init__()
        self.__notes__ = None


@dataclass(frozen=True)
class FrozenError(Exception):
    """An exception that is a frozen dataclass, and cannot be changed."""


class UndecidedError(Exception):
    """An exception without a truth value, like an array."""

    def __bool__(self):
        msg = "the truth value of an array is ambiguous"
        raise ValueError(msg)


COPIED = [
    PlainError("bad", 7),
    PlainError(),
    ValueError("bad"),
    KeyError("k"),
    FileNotFoundError(2, "no such file", "a.txt"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    PickyError(code=7),
    TardyError(code=7),
    DividedError("bad", code=7),
    CarefulError("bad"),
    WordingError(503),
    SharedError("bad"),
    ForgetfulError("bad"),
    MuddledError(["bad"]),
    OtherError("bad"),
    BrokenError("bad"),
    KeyboardInterrupt(),
]


def kind_of(error):
    return type(error).__name__


def copy_for(error, position=0, size=2):
    """Return the exception for one caller of a batch of ``embed()``."""
    return exception_for(error, "embed", position, size, on_loop=False)


@pytest.mark.parametrize("error", COPIED, ids=kind_of)
def test_each_caller_gets_its_own_exception(error):
    """Each caller gets its own object, however hard the exception is to copy."""
    assert error is not copy_for(error)


@pytest.mark.parametrize("error", COPIED, ids=kind_of)
def test_a_copy_has_the_message_of_the_original(error):
    """A copy has the type, the arguments and the message of the original."""
    twin = copy_for(error)
    assert (type(error), error.args, str(error)) == (type(twin), twin.args, str(twin))


@pytest.mark.parametrize("error", COPIED, ids=kind_of)
def test_a_copy_comes_from_the_original(error):
    """The cause of a copy is the original, with its traceback."""
    assert error is copy_for(error).__cause__


@pytest.mark.parametrize("kind", [PlainError, SharedError, WordingError], ids=lambda kind: kind.__name__)
def test_a_copy_has_the_attributes_of_the_original(kind):
    """Attributes of the original are on the copy."""
    error = kind("bad")
    error.status = 503
    assert 503 == copy_for(error).status


def test_an_exception_may_copy_itself():
    """The ``__copy__`` of an exception takes precedence, because it may know attributes that must not be shared."""
    error = CarefulError("bad")
    copy_for(error).tried.append("there")
    assert ["here"] == error.tried


def test_a_copy_has_its_own_attributes():
    """An attribute set on one copy is on no other."""
    error = PlainError("bad")
    copy_for(error).status = 503
    assert not hasattr(error, "status")


@notes
def test_a_group_is_copied():
    """A group of exceptions is copied with its members."""
    group = ExceptionGroup("several", [ValueError("bad")])  # noqa: F821  # it is there where the test is run
    twin = copy_for(group)
    assert (group, group.exceptions) == (twin.__cause__, twin.exceptions)


@notes
def test_a_copy_has_a_note_about_its_item():
    """A note names the function, the item's position, counted from 1, and the size of the batch."""
    assert ["raised by embed() for item 3 of a batch of 8"] == copy_for(PlainError("bad"), 2, 8).__notes__


@notes
def test_a_copy_keeps_the_notes_of_the_original():
    """The notes of the original come first."""
    error = PlainError("bad")
    error.add_note("while reading")
    assert ["while reading", "raised by embed() for item 1 of a batch of 2"] == copy_for(error).__notes__


@notes
def test_a_note_is_for_one_caller():
    """The note for one caller is not on the original."""
    error = PlainError("bad")
    error.add_note("while reading")
    copy_for(error)
    assert ["while reading"] == error.__notes__


def test_a_copy_has_no_note_before_python_3_11(monkeypatch):
    """On Python 3.10 a copy has no note."""
    monkeypatch.setattr("batchify._core.outcome.sys", SimpleNamespace(version_info=(3, 10)))
    assert not hasattr(copy_for(PlainError("bad")), "__notes__")


def test_an_exception_that_cannot_be_copied_is_shared():
    """An exception that cannot be copied reaches its callers as it is."""

    class UniqueError(Exception):
        def __new__(cls, *args):
            made.append(args)
            if len(made) > 1:
                raise TypeError
            return super().__new__(cls, *args)

    made = []
    error = UniqueError("bad")
    assert error is copy_for(error)


@pytest.mark.parametrize("error", [FrozenError(), RefusingError("bad"), MisusedError()], ids=kind_of)
def test_an_exception_that_cannot_be_changed_reaches_its_callers(error):
    """An exception whose copy takes no cause or no note reaches its callers without an internal error."""
    assert (type(error), error.args) == (type(copy_for(error)), copy_for(error).args)


def test_an_exception_is_not_tested_for_truth():
    """An exception that has no truth value is copied like any other."""
    error = UndecidedError("bad")
    assert error is copy_for(error).__cause__


def caught(error):
    """Return ``error`` after a batch function raised it and this function caught it."""
    try:
        fail(error)([1])
    except BaseException as raised:
        return raised


def test_the_frame_that_caught_an_error_is_removed():
    """The frame of the engine is removed from the traceback, and the frame of the batch function stays."""
    error = caught(PlainError("bad"))
    drop_engine_frame(error)
    assert ["embed"] == frames(error)


def test_without_a_traceback_no_frame_is_removed():
    """An error that was never raised stays as it is."""
    error = PlainError("bad")
    drop_engine_frame(error)
    assert [] == frames(error)


@pytest.mark.parametrize("kind", [FrozenError, RefusingError])
def test_an_exception_that_cannot_be_changed_loses_the_frame_too(kind):
    """An exception that refuses attributes loses its engine frame like any other."""
    error = caught(kind())
    drop_engine_frame(error)
    assert ["embed"] == frames(error)


def test_copies_do_not_share_a_traceback():
    """Raising the copy of one caller adds nothing to the traceback of another."""
    first, second = copy_for(error := PlainError("bad")), copy_for(error)
    with pytest.raises(PlainError):
        raise first
    assert None is second.__traceback__


def test_every_caller_gets_a_copy():
    """The callers of a batch that an ``Exception`` ended get copies of the exception."""
    error = PlainError("bad")
    own = exception_for(error, "embed", 0, 2, on_loop=True)
    assert (error, error.args) == (own.__cause__, own.args)


@notes
def test_every_exception_has_a_note_about_its_item():
    """The exception of a caller has the note with the function, its item and the size of its batch."""
    own = exception_for(PlainError("bad"), "embed", 2, 8, on_loop=True)
    assert ["raised by embed() for item 3 of a batch of 8"] == own.__notes__


@pytest.mark.parametrize(
    ("error", "kind"),
    [(StopIteration(), RuntimeError), (asyncio.CancelledError(), BatchAbortedError)],
    ids=["StopIteration", "CancelledError"],
)
def test_a_wrapper_comes_from_the_error_of_the_batch(error, kind):
    """The direct cause of a wrapper is the wrapped error."""
    own = exception_for(error, "embed", 0, 2, on_loop=True)
    assert (kind, error) == (type(own), own.__cause__)


@pytest.mark.parametrize(
    ("error", "kind"),
    [(StopIteration(), RuntimeError), (SystemExit(1), BatchAbortedError)],
    ids=["StopIteration", "SystemExit"],
)
def test_a_wrapper_comes_from_the_error_in_a_thread(error, kind):
    """The same is true for a function that a loop runs in a thread."""
    own = exception_for(carried(error).error, "embed", 0, 2, on_loop=True)
    assert (kind, error) == (type(own), own.__cause__)


def test_a_wrapper_names_the_function():
    """The message of a wrapper names the function."""
    assert "embed() raised StopIteration" == str(exception_for(StopIteration(), "embed", 0, 2, on_loop=True))


def test_each_caller_gets_its_own_wrapper():
    """Each caller of an aborted batch gets its own exception, too."""
    error = asyncio.CancelledError()
    assert exception_for(error, "embed", 0, 2, on_loop=True) is not exception_for(error, "embed", 1, 2, on_loop=True)


def test_repeated_exceptions_are_copied():
    """The first caller that shares an exception gets the object, and others get copies; results are never copied."""
    error, shared = ValueError("bad"), [1]
    first, second, third, fourth = with_own_exceptions([shared, error, shared, error])
    assert first is third is shared
    assert second is error is not fourth
    assert (ValueError, ("bad",)) == (type(fourth), fourth.args)


def test_a_bare_copy_has_no_cause_and_no_note():
    """A copy that is made outside of a batch has neither a cause nor a note about an item."""
    twin = copied(error := PlainError("bad", 7))
    assert (PlainError, error.args, None, False) == (
        type(twin),
        twin.args,
        twin.__cause__,
        hasattr(twin, "__notes__"),
    )
    assert error is not twin


@pytest.mark.parametrize("show", [repr, str])
def test_done_reads_as_its_public_name(show):
    """``DONE`` shows where users find it."""
    assert "batchify.DONE" == show(DONE)


def test_a_mapping_answers_each_item():
    """The result of each item is that of its key, in the order of the items; other keys do not matter."""
    answers = keyed_results("find", ["b", "a", "b"], MappingProxyType({"a": 1, "b": 2, "c": 3}))
    assert [2, 1, 2] == answers


def test_an_item_without_a_key_has_an_error_of_its_own():
    """A missing key, and an error in hashing the item, are the answers of these items."""
    found, missing, unhashable = keyed_results("find", ["a", "b", []], {"a": 1})
    assert (1, "find() returned no result for this item") == (found, missing.args[0])
    assert ({KeyError}, {TypeError}) == ({type(missing)}, {type(unhashable)})
    # It has no frame of the library, which would keep the batch.
    assert unhashable.__traceback__ is None


@pytest.mark.parametrize(("returned", "shown"), [(None, "None"), ([1], "a list")])
def test_only_a_mapping_has_keys(returned, shown):
    """Any other value is refused, by its kind."""
    with pytest.raises(BatchResultError) as caught:
        keyed_results("find", ["a"], returned)
    assert f"find() returned {shown}; with keyed=True, it must return a mapping from each item to its result" == str(
        caught.value
    )
