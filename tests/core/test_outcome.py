"""What came back from the batch function, and what each caller is told."""

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
    RaisedInThread,
    call_captured,
    copy_exception,
    drop_engine_frame,
    exception_for,
    results,
    translate_exception,
)
from batchify.errors import BatchAbortedError, BatchResultError
from tests.kit.misbehaving import Untouchable

RULE = "it must return one for each item, in order"
notes = pytest.mark.skipif(sys.version_info < (3, 11), reason="exceptions have no notes before Python 3.11")


def refusal(returned, size=3):
    """Return the message of the error that refuses what was returned for so many items."""
    with pytest.raises(BatchResultError) as caught:
        results("embed", size, returned)
    return str(caught.value)


class Column:
    """Has a length and can be read in order, and is no sequence, as an array is."""

    def __init__(self, *values):
        self.values = values

    def __len__(self):
        return len(self.values)

    def __getitem__(self, place):
        return self.values[place]


class Boast(Column):
    """Claims one result more than it has."""

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
def test_anything_with_a_length_and_an_order_is_taken(returned):
    """Lists, tuples, arrays and the like give one result for each item, in order."""
    assert [1, 2, 3] == results("embed", 3, returned)


def test_the_list_of_results_is_our_own():
    """What the batch function does to its list later changes nobody's result."""
    returned = [1, 2, 3]
    answers = results("embed", 3, returned)
    returned.clear()
    assert [1, 2, 3] == answers


def test_results_are_handed_over_as_they_are():
    """Results are not looked at: the very objects are handed over."""
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
    """Too many results, or too few, are an error that gives both numbers and the rule."""
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
def test_what_has_no_order_or_is_one_value_is_refused(returned, shown):
    """A mapping, a set, a string or bytes is refused even when it has the right length."""
    assert f"embed() was given 3 items and returned {shown}; {RULE}" == refusal(returned)


@pytest.mark.parametrize(
    ("returned", "shown"),
    [
        (iter([1, 2, 3]), "a list_iterator"),
        ((n for n in (1, 2, 3)), "a generator"),
        (map(str, [1, 2, 3]), "a map"),
        (3.0, "a float"),
    ],
)
def test_what_has_no_length_is_refused(returned, shown):
    """An iterator that can be read only once, or a single value, is refused."""
    assert f"embed() was given 3 items and returned {shown}, which has no length; {RULE}" == refusal(returned)


def test_an_iterator_is_not_read():
    """What is refused for its lack of a length is left as it was."""
    returned = iter([1, 2, 3])
    refusal(returned)
    assert [1, 2, 3] == list(returned)


@pytest.mark.parametrize("size", [2, 3])
def test_a_length_that_lies_is_refused(size):
    """What has another number of results than it says is refused, whichever of the two numbers is right."""
    assert f"embed() was given {size} items and returned 2 results; {RULE}" == refusal(Boast(1, 2), size)


def test_a_refusal_has_no_context():
    """That asking for a length failed is our business, and no part of what callers read."""
    with pytest.raises(BatchResultError) as caught:
        results("embed", 1, 3.0)
    assert caught.value.__suppress_context__


def test_results_are_never_shown():
    """The message tells the type of what came back, never what it holds."""
    assert "private" not in refusal("private")


@pytest.mark.parametrize("on_loop", [True, False])
def test_an_exception_is_told_as_it_is(on_loop):
    """Callers are told the ``Exception`` that ended their batch, wherever they are."""
    error = ValueError("bad")
    assert error is translate_exception(error, "embed", on_loop=on_loop)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1), GeneratorExit(), asyncio.CancelledError()])
def test_threads_are_told_what_would_end_a_task(error):
    """Callers in threads are told the very exception even if it is no ``Exception``."""
    assert error is translate_exception(error, "embed", on_loop=False)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1), GeneratorExit(), asyncio.CancelledError()])
def test_tasks_are_not_ended_with_their_batch(error):
    """Callers on a loop are told that their batch was aborted, and by what: nobody cancelled or ended them."""
    told = translate_exception(error, "embed", on_loop=True)
    message = f"the batch of embed() was ended by {type(error).__name__} before its callers had their results"
    assert (BatchAbortedError, message, error) == (type(told), str(told), told.__cause__)


@pytest.mark.parametrize("on_loop", [True, False])
@pytest.mark.parametrize("error", [StopIteration(1), StopAsyncIteration()])
def test_what_steers_generators_is_wrapped(error, on_loop):
    """``StopIteration`` and its kin become a ``RuntimeError`` from it, as in a generator."""
    told = translate_exception(error, "embed", on_loop=on_loop)
    expected = (RuntimeError, f"embed() raised {type(error).__name__}", error)
    assert expected == (type(told), str(told), told.__cause__)


def test_a_thread_works_for_a_loop():
    """A function that is called in a thread on behalf of a loop gets the items and returns its result."""
    assert [3, 2, 1] == call_captured(lambda items: items[::-1], [1, 2, 3])


def fail(error):
    """Return a batch function that raises ``error``."""

    def embed(items):
        raise error

    return embed


def carried(error):
    """Return what brings ``error`` to its loop when a function raises it in a thread."""
    with pytest.raises(RaisedInThread) as caught:
        call_captured(fail(error), [1])
    return caught.value


def frames(error):
    """Return the names of the functions in a traceback."""
    return [frame.name for frame in traceback.extract_tb(error.__traceback__)]


@pytest.mark.parametrize("kind", [ValueError, StopIteration, SystemExit, KeyboardInterrupt])
def test_a_thread_hands_any_error_to_its_loop(kind):
    """Whatever a function raises in a thread is brought to the loop as it is, with the function's own frames."""
    error = kind(1)
    assert (error, ["embed"]) == (carried(error).error, frames(error))


def test_what_brings_an_error_is_not_explained_by_it():
    """An error that is brought to a loop is not printed twice."""
    assert carried(ValueError("bad")).__suppress_context__


class PlainError(Exception):
    """As simple as they come."""


class PickyError(Exception):
    """Its constructor does not take its own ``args``."""

    def __init__(self, *, code):
        super().__init__(f"code {code}")
        self.code = code


class TardyError(PickyError):
    """Forgets its ``args`` until it is ready."""

    def __new__(cls, *args, **kwargs):
        return super().__new__(cls)


class DividedError(Exception):
    """One half of its constructor needs its ``args``, and the other half is not content with them."""

    def __new__(cls, message, **kwargs):
        return super().__new__(cls, message)

    def __init__(self, message, *, code):
        super().__init__(message)


class CarefulError(Exception):
    """Says how it is copied: with a list of its own."""

    def __init__(self, *args):
        super().__init__(*args)
        self.tried = ["here"]

    def __copy__(self):
        return type(self)(*self.args)


class WordingError(Exception):
    """Its constructor words the message."""

    def __init__(self, status):
        super().__init__(f"status {status}")
        self.status = status


class SharedError(Exception):
    """Says that it is its own copy."""

    def __copy__(self):
        return self


class ForgetfulError(Exception):
    """Its copy has lost the arguments."""

    def __copy__(self):
        return type(self)()


class MuddledError(Exception):
    """Its copy has other arguments."""

    def __copy__(self):
        return type(self)(*[[] for _ in self.args])


class OtherError(Exception):
    """Its copy is something else."""

    def __copy__(self):
        return ValueError(*self.args)


class BrokenError(Exception):
    """Its copy is no exception at all."""

    def __copy__(self):
        return None


class RefusingError(Exception):
    """Lets nobody set anything on it."""

    def __setattr__(self, name, value):
        raise AttributeError(name)


class MisusedError(Exception):
    """Has no list of notes where there should be one."""

    def __init__(self):
        super().__init__()
        self.__notes__ = None


@dataclass(frozen=True)
class FrozenError(Exception):
    """Can't be changed, as dataclasses may be."""


class UndecidedError(Exception):
    """Is neither true nor false, as an array is."""

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
    """Return the copy for one caller of a batch of ``embed()``."""
    return copy_exception(error, "embed", position, size)


@pytest.mark.parametrize("error", COPIED, ids=kind_of)
def test_a_caller_gets_an_exception_of_its_own(error):
    """Each caller gets another object, however hard the exception is to copy."""
    assert error is not copy_for(error)


@pytest.mark.parametrize("error", COPIED, ids=kind_of)
def test_a_copy_says_what_the_original_said(error):
    """A copy has the type, the arguments and the words of the original."""
    twin = copy_for(error)
    assert (type(error), error.args, str(error)) == (type(twin), twin.args, str(twin))


@pytest.mark.parametrize("error", COPIED, ids=kind_of)
def test_a_copy_comes_from_the_original(error):
    """The cause of a copy is the original, with its traceback."""
    assert error is copy_for(error).__cause__


@pytest.mark.parametrize("kind", [PlainError, SharedError, WordingError], ids=lambda kind: kind.__name__)
def test_a_copy_has_the_attributes_of_the_original(kind):
    """What was set on the original is found on the copy."""
    error = kind("bad")
    error.status = 503
    assert 503 == copy_for(error).status


def test_who_says_how_it_is_copied_is_copied_like_that():
    """An exception's own way to be copied is preferred to ours, which would share what it keeps to itself."""
    error = CarefulError("bad")
    copy_for(error).tried.append("there")
    assert ["here"] == error.tried


def test_a_copy_has_a_life_of_its_own():
    """What one caller sets on its copy is seen by no other."""
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
def test_a_copy_says_where_it_came_from():
    """A note names the function, the item's position, counted from 1, and the size of the batch."""
    assert ["raised by embed() for item 3 of a batch of 8"] == copy_for(PlainError("bad"), 2, 8).__notes__


@notes
def test_a_copy_keeps_the_notes_of_the_original():
    """Notes of the original come first."""
    error = PlainError("bad")
    error.add_note("while reading")
    assert ["while reading", "raised by embed() for item 1 of a batch of 2"] == copy_for(error).__notes__


@notes
def test_a_note_is_for_one_caller():
    """The note for one caller is neither on the original nor on the copy of the next."""
    error = PlainError("bad")
    error.add_note("while reading")
    copy_for(error)
    assert ["while reading"] == error.__notes__


def test_before_there_were_notes(monkeypatch):
    """On Python 3.10 a copy has no note."""
    monkeypatch.setattr("batchify._core.outcome.sys", SimpleNamespace(version_info=(3, 10)))
    assert not hasattr(copy_for(PlainError("bad")), "__notes__")


def test_what_can_not_be_copied_is_handed_out_itself():
    """An exception that can't be made again reaches its callers as it is."""

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
def test_what_can_not_be_changed_is_told_all_the_same(error):
    """An exception whose copy takes no cause or no note reaches its callers, and is no error within the library."""
    assert (type(error), error.args) == (type(copy_for(error)), copy_for(error).args)


def test_an_exception_is_not_tested_for_truth():
    """An exception that has no truth value is copied like any other."""
    error = UndecidedError("bad")
    assert error is copy_for(error).__cause__


def caught(error):
    """Return ``error`` after it was raised by a batch function and caught here."""
    try:
        fail(error)([1])
    except BaseException as raised:
        return raised


def test_the_frame_that_caught_an_error_is_trimmed():
    """The frame of the engine goes out of the traceback, and that of the batch function stays."""
    error = caught(PlainError("bad"))
    drop_engine_frame(error)
    assert ["embed"] == frames(error)


def test_without_a_traceback_there_is_nothing_to_trim():
    """An error that was never raised stays as it is."""
    error = PlainError("bad")
    drop_engine_frame(error)
    assert [] == frames(error)


@pytest.mark.parametrize("kind", [FrozenError, RefusingError])
def test_what_can_not_be_changed_is_trimmed_all_the_same(kind):
    """An error that lets nobody set anything on it is no error within the library."""
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
    """The callers of a batch that an ``Exception`` ended get copies of it."""
    error = PlainError("bad")
    told = exception_for(error, "embed", 0, 2, on_loop=True)
    assert (error, error.args) == (told.__cause__, told.args)


@notes
def test_every_caller_reads_which_item_was_its_own():
    """What a caller is told has the note with the function, its item and the size of its batch."""
    told = exception_for(PlainError("bad"), "embed", 2, 8, on_loop=True)
    assert ["raised by embed() for item 3 of a batch of 8"] == told.__notes__


@pytest.mark.parametrize(
    ("error", "kind"),
    [(StopIteration(), RuntimeError), (asyncio.CancelledError(), BatchAbortedError)],
    ids=["StopIteration", "CancelledError"],
)
def test_what_is_wrapped_comes_from_what_ended_the_batch(error, kind):
    """The error that stands for another one has that one for its cause, with none in between."""
    told = exception_for(error, "embed", 0, 2, on_loop=True)
    assert (kind, error) == (type(told), told.__cause__)


@pytest.mark.parametrize(
    ("error", "kind"),
    [(StopIteration(), RuntimeError), (SystemExit(1), BatchAbortedError)],
    ids=["StopIteration", "SystemExit"],
)
def test_what_a_thread_wraps_comes_from_what_ended_the_batch(error, kind):
    """A function that a loop runs in a thread is no exception to that."""
    told = exception_for(carried(error).error, "embed", 0, 2, on_loop=True)
    assert (kind, error) == (type(told), told.__cause__)


def test_what_is_wrapped_names_the_function():
    """A caller that is told another error than the one that ended its batch reads which function it was."""
    assert "embed() raised StopIteration" == str(exception_for(StopIteration(), "embed", 0, 2, on_loop=True))


def test_what_is_wrapped_is_wrapped_for_each_caller():
    """Callers of an aborted batch do not share an exception either."""
    error = asyncio.CancelledError()
    assert exception_for(error, "embed", 0, 2, on_loop=True) is not exception_for(error, "embed", 1, 2, on_loop=True)
