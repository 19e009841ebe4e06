"""Misuses, and their error messages, word for word.

Each table reads as a page of the manual: a misuse and the answer to it. A message names the function, the given value,
and the remedy.
"""

from __future__ import annotations

import asyncio
import functools
import math
from decimal import Decimal
from fractions import Fraction

import pytest

from batchify import AsyncMicrobatcher, BatcherClosedError, BatchResultError, SyncMicrobatcher, microbatch
from tests.kit.engines import PATIENCE
from tests.kit.errors import message_of


async def later(*_):
    """Return a coroutine, which nothing awaits."""


def embed(texts):
    return texts


async def aembed(texts):
    return texts


class Model:
    @microbatch
    def encode(self, texts):
        return texts

    def nothing(self):
        return []


class NoCause(Exception):  # noqa: N818  # the name says how it misbehaves
    @property
    def __cause__(self):
        return None


class NoClass(Exception):  # noqa: N818
    @property
    def __class__(self):
        raise RuntimeError


class NoDict(Exception):  # noqa: N818
    @property
    def __dict__(self):
        raise RuntimeError


class NoAttribute(Exception):  # noqa: N818
    def __getattribute__(self, name):
        raise RuntimeError


@pytest.mark.parametrize("odd", [NoCause, NoClass, NoDict, NoAttribute])
def test_an_exception_whose_attributes_raise(kit, odd):
    """Its callers get it all the same, and the next call is answered."""

    def answer(items):
        if 2 in items:
            raise odd
        return items

    echo, gate = kit.decorate()
    gate.answer = answer
    first = kit.call(echo, 2)
    kit.await_done([first])
    assert odd is type(first.exception(PATIENCE))
    assert [1] == kit.results([kit.call(echo, 1)])
    assert (1, 1, 0) == (echo.batch_stats.failed_items, echo.batch_stats.answered_items, echo.batch_stats.running)


# Values of options, under the names of the decorator and of the engine classes.

SIZES = [
    (TypeError, True, "must be an int, got True of type bool"),
    (TypeError, 8.0, "must be an int, got 8.0 of type float"),
    (TypeError, math.nan, "must be an int, got nan of type float"),
    (TypeError, math.inf, "must be an int, got inf of type float"),
    (TypeError, "8", "must be an int, got '8' of type str"),
    (TypeError, None, "must be an int, got None of type NoneType"),
    (TypeError, 8j, "must be an int, got 8j of type complex"),
    (TypeError, Decimal(8), "must be an int, got Decimal('8') of type Decimal"),
    (TypeError, Fraction(8), "must be an int, got Fraction(8, 1) of type Fraction"),
    (TypeError, [8], "must be an int, got [8] of type list"),
    (ValueError, 0, "must be at least 1, got 0"),
    (ValueError, -1, "must be at least 1, got -1"),
]
TIMES = [
    (TypeError, True, "must be a number of seconds, or None to adapt, got True of type bool"),
    (TypeError, "0.1", "must be a number of seconds, or None to adapt, got '0.1' of type str"),
    (TypeError, 1j, "must be a number of seconds, or None to adapt, got 1j of type complex"),
    (TypeError, Decimal("0.1"), "must be a number of seconds, or None to adapt, got Decimal('0.1') of type Decimal"),
    (TypeError, (1,), "must be a number of seconds, or None to adapt, got (1,) of type tuple"),
    (ValueError, -1, "must be a finite number of seconds, at least 0, got -1"),
    (ValueError, -0.002, "must be a finite number of seconds, at least 0, got -0.002"),
    (ValueError, math.nan, "must be a finite number of seconds, at least 0, got nan"),
    (ValueError, math.inf, "must be a finite number of seconds, at least 0, got inf"),
]
FLAGS = [
    (TypeError, 1, "must be True or False, got 1 of type int"),
    (TypeError, None, "must be True or False, got None of type NoneType"),
    (TypeError, "yes", "must be True or False, got 'yes' of type str"),
]
NAMES = [
    (TypeError, 8, "must be a str, got 8 of type int"),
    (TypeError, b"embed", "must be a str, got b'embed' of type bytes"),
    (TypeError, True, "must be a str, got True of type bool"),
    (ValueError, "", "must not be empty"),
]
WEIGHTS = [
    (TypeError, True, "must be a number, or None, got True of type bool"),
    (TypeError, "10", "must be a number, or None, got '10' of type str"),
    (TypeError, Decimal(10), "must be a number, or None, got Decimal('10') of type Decimal"),
    (ValueError, 0, "must be a finite number above 0, got 0"),
    (ValueError, -1.5, "must be a finite number above 0, got -1.5"),
    (ValueError, math.nan, "must be a finite number above 0, got nan"),
    (ValueError, math.inf, "must be a finite number above 0, got inf"),
]
FUNCTIONS = [
    (TypeError, 8, "must be a function, or None, got 8 of type int"),
    (TypeError, "len", "must be a function, or None, got 'len' of type str"),
    (TypeError, later, "must be a def function, got the async def function later: nothing would await it"),
]
EXECUTORS = [
    (
        TypeError,
        4,
        "must be a concurrent.futures.Executor, or None for the engine's own threads, got 4 of type int",
    ),
    (
        TypeError,
        "threads",
        "must be a concurrent.futures.Executor, or None for the engine's own threads, got 'threads' of type str",
    ),
]
CHOICES = [
    (TypeError, True, "must be a str, got True of type bool"),
    (TypeError, None, "must be a str, got None of type NoneType"),
    (ValueError, "drop", "must be 'wait' or 'raise', got 'drop'"),
    (ValueError, "", "must not be empty"),
]
# The option that an option needs beside it.
WITH = {"max_weight": {"weigh": len}, "weigh": {"max_weight": 1}}


def options(size, time):
    """Return each wrong value of each option, with the error message."""
    values = {
        size: SIZES,
        time: TIMES,
        "concurrency": SIZES,
        "max_pending": [case for case in SIZES if case[1] is not None],
        "on_full": CHOICES,
        "weigh": FUNCTIONS,
        "max_weight": WEIGHTS,
        "group_by": FUNCTIONS,
        "dedupe": FLAGS,
        "isolate_errors": FLAGS,
        "executor": EXECUTORS,
        "capture_context": FLAGS,
        "on_batch": FUNCTIONS,
        "name": NAMES,
    }
    return [
        pytest.param(
            kind,
            {option: value, **WITH.get(option, {})},
            f"{option} {message}",
            id=f"{option}={getattr(value, '__name__', repr(value))}",
        )
        for option, table in values.items()
        for kind, value, message in table
    ]


@pytest.mark.parametrize(("kind", "options", "message"), options("max_size", "timeout"))
@pytest.mark.parametrize(
    "decorate",
    [lambda **options: microbatch(embed, **options), lambda **options: microbatch(**options)(aembed)],
    ids=["microbatch(fn, ...)", "@microbatch(...)"],
)
def test_wrong_values_of_options(decorate, kind, options, message):
    """A wrong type is a ``TypeError``, a wrong number a ``ValueError``; both name option, rule and value."""
    assert message == message_of(kind, decorate, **options)


@pytest.mark.parametrize(("kind", "options", "message"), options("max_batch_size", "batch_wait_timeout_s"))
@pytest.mark.parametrize("engine", [AsyncMicrobatcher, SyncMicrobatcher])
def test_wrong_values_of_arguments_of_an_engine(engine, kind, options, message):
    """An engine class has the same messages, with the names of its own arguments."""
    assert message == message_of(kind, engine, embed, **options)


def test_refusing_needs_a_bound():
    """``on_full="raise"`` without a bound has no effect, so it is a ``TypeError``."""
    message = "on_full='raise' needs max_pending: without it there is always room"
    for decorate in (microbatch, AsyncMicrobatcher, SyncMicrobatcher):
        assert message == message_of(TypeError, decorate, embed, on_full="raise")


@pytest.mark.parametrize(
    ("options", "given", "missing"),
    [({"weigh": len}, "weigh", "max_weight"), ({"max_weight": 10}, "max_weight", "weigh")],
)
def test_weigh_and_max_weight_need_each_other(options, given, missing):
    """One without the other has no effect, so it is a ``TypeError``."""
    message = f"{given} needs {missing}: the sum of weigh(item) over a batch is at most max_weight"
    for decorate in (microbatch, AsyncMicrobatcher, SyncMicrobatcher):
        assert message == message_of(TypeError, decorate, embed, **options)


UNKNOWN = ["max", "batch_size", "max_batch_size", "timeout_ms", "wait", "workers", "max_sizee", "texts"]


@pytest.mark.parametrize("option", UNKNOWN)
def test_unknown_options(option):
    """An unknown option, however similar to a known one, is a ``TypeError`` that names it."""
    expected = f"microbatch() got an unexpected keyword argument '{option}'"
    assert expected == message_of(TypeError, microbatch, embed, **{option: 1})
    assert expected == message_of(TypeError, microbatch, **{option: 1})


@pytest.mark.parametrize("option", ["max_size", "timeout", "batch_size", "max_batch"])
@pytest.mark.parametrize("engine", [AsyncMicrobatcher, SyncMicrobatcher])
def test_unknown_arguments_of_an_engine(engine, option):
    """The engine classes accept neither misspelled arguments nor the names of the decorator."""
    expected = f"{engine.__name__}.__init__() got an unexpected keyword argument '{option}'"
    assert expected == message_of(TypeError, engine, embed, **{option: 1})


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: microbatch(embed, 8), "microbatch() takes from 0 to 1 positional arguments but 2 were given"),
        (lambda: microbatch(fn=embed), "microbatch() got an unexpected keyword argument 'fn'"),
        (
            lambda: AsyncMicrobatcher(embed, 8, 0.1, "embed"),
            "AsyncMicrobatcher.__init__() takes from 2 to 4 positional arguments but 5 were given",
        ),
        (
            lambda: SyncMicrobatcher(embed, 8, 0.1, "embed"),
            "SyncMicrobatcher.__init__() takes from 2 to 4 positional arguments but 5 were given",
        ),
        (AsyncMicrobatcher, "AsyncMicrobatcher.__init__() missing 1 required positional argument: 'batch_fn'"),
        (SyncMicrobatcher, "SyncMicrobatcher.__init__() missing 1 required positional argument: 'batch_fn'"),
    ],
)
def test_options_are_keywords(ask, message):
    """Options are keyword arguments, and the batch function is positional."""
    assert message == message_of(TypeError, ask)


# Objects that cannot be decorated.

NO_FUNCTION = "microbatch decorates a function of a list of items, got"
NO_COLUMN = "has no column: give it a parameter without a default for the list of items"
ADVICE = "give it one parameter by name for the list of items"
A_LAMBDA = "<lambda>()"


REFUSED = [
    (5, f"{NO_FUNCTION} 5 of type int"),
    (True, f"{NO_FUNCTION} True of type bool"),
    ("embed", f"{NO_FUNCTION} 'embed' of type str"),
    ([1, 2], f"{NO_FUNCTION} [1, 2] of type list"),
    (staticmethod(5), f"{NO_FUNCTION} 5 of type int"),
    (classmethod("embed"), f"{NO_FUNCTION} 'embed' of type str"),
    (lambda: None, f"{A_LAMBDA} {NO_COLUMN}"),
    (lambda top_k=10, **more: [], f"{A_LAMBDA} {NO_COLUMN}"),
    (functools.partial(embed, []), f"embed() {NO_COLUMN}"),
    (Model().nothing, f"Model.nothing() {NO_COLUMN}"),
    (classmethod(lambda cls: []), f"{A_LAMBDA} {NO_COLUMN}"),
    (lambda *texts: [], f"{A_LAMBDA} has *texts, which is no column; {ADVICE}"),
    (lambda texts, *more: [], f"{A_LAMBDA} has *more, which is no column; {ADVICE}"),
    (lambda *, texts: [], f"{A_LAMBDA} {NO_COLUMN} (texts is none, as it can only be given by name)"),
    (
        functools.partial(lambda top_k, texts: [], top_k=1),
        f"{A_LAMBDA} {NO_COLUMN} (texts is none, as it can only be given by name)",
    ),
]


@pytest.mark.parametrize(("fn", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_decorating_other_objects(fn, message):
    """An object that is no batch function is refused at decoration, with its name and the remedy."""
    assert message == message_of(TypeError, microbatch, fn)


@pytest.mark.parametrize(
    ("decorate", "message"),
    [
        (microbatch, "embed is decorated with microbatch already"),
        (microbatch(max_size=8), "embed is decorated with microbatch already"),
        (lambda fn: microbatch(staticmethod(fn)), "embed is decorated with microbatch already"),
        (lambda fn: microbatch(classmethod(fn)), "embed is decorated with microbatch already"),
        (lambda _: microbatch(Model.encode), "Model.encode is decorated with microbatch already"),
        (lambda _: microbatch(Model().encode), "Model.encode is decorated with microbatch already"),
    ],
)
def test_decorating_twice(decorate, message):
    """A decorated function takes one item, so it is refused by name."""
    assert message == message_of(TypeError, decorate, microbatch(embed))


def test_a_method_without_a_column():
    """A method with no argument beside its instance is refused when it is first looked up on an instance."""

    class Kind:
        @microbatch(name="Kind.nothing")
        def nothing(self): ...

    assert f"Kind.nothing() {NO_COLUMN}" == message_of(TypeError, lambda: Kind().nothing)


@pytest.mark.parametrize(
    ("engine", "batch_fn", "message"),
    [
        (AsyncMicrobatcher, 5, "batch_fn must be callable, got 5"),
        (SyncMicrobatcher, 5, "batch_fn must be callable, got 5"),
        (AsyncMicrobatcher, None, "batch_fn must be callable, got None"),
        (SyncMicrobatcher, None, "batch_fn must be callable, got None"),
        (
            SyncMicrobatcher,
            aembed,
            "SyncMicrobatcher runs def functions, and aembed is async def; use AsyncMicrobatcher",
        ),
    ],
)
def test_functions_that_an_engine_cannot_run(engine, batch_fn, message):
    """The message of an engine class names the functions that it can run."""
    assert message == message_of(TypeError, engine, batch_fn)


# Misuses at run time, after which the next call is answered.

CALLS = [
    ((), {}, "missing 1 required positional argument: 'texts'"),
    (("a", "b"), {}, "takes 1 positional argument but 2 were given"),
    (("a",), {"texts": "b"}, "got multiple values for argument 'texts'"),
    ((), {"text": "a"}, "got an unexpected keyword argument 'text'"),
    (("a",), {"top_k": 1}, "got an unexpected keyword argument 'top_k'"),
]


@pytest.mark.parametrize(("args", "kwargs", "message"), CALLS, ids=[message for _, _, message in CALLS])
@pytest.mark.parametrize("member", ["__call__", "submit", "acall"])
@pytest.mark.parametrize("batch_fn", [embed, aembed], ids=["def", "async def"])
def test_wrong_calls(batch_fn, member, args, kwargs, message):
    """A wrong call fails at once, before anything is queued, and the next call is answered."""
    fn = microbatch(batch_fn, name="embed")
    assert f"embed() {message}" == message_of(TypeError, getattr(fn, member), *args, **kwargs)
    assert 0 == fn.batch_stats.pending
    assert "a" == asyncio.run(fn.acall("a"))
    assert 1 == fn.batch_stats.total_items


@pytest.mark.parametrize(
    ("do", "message"),
    [
        (lambda: Model.encode("a"), "Model.encode() missing 1 required positional argument: 'texts'"),
        (lambda: Model().encode(), "Model.encode() missing 1 required positional argument: 'texts'"),
        (lambda: Model().encode.submit(), "Model.encode() missing 1 required positional argument: 'texts'"),
        (lambda: Model().encode.acall(), "Model.encode() missing 1 required positional argument: 'texts'"),
        (lambda: Model().encode("a", "b"), "Model.encode() takes 1 positional argument but 2 were given"),
        (lambda: Model.encode(Model(), "a", "b"), "Model.encode() takes 1 positional argument but 2 were given"),
        (lambda: Model.encode(Model()), "Model.encode() missing 1 required positional argument: 'texts'"),
    ],
)
def test_wrong_calls_of_a_method(do, message):
    """The message for a wrong call of a method does not count its instance as an argument."""
    assert message == message_of(TypeError, do)
    assert 0 == Model.encode.batch_stats.pending
    assert "a" == Model().encode("a")


@pytest.mark.parametrize("batch_fn", [embed, aembed], ids=["def", "async def"])
def test_mapping_nothing(batch_fn):
    """``map`` without its argument is Python's own ``TypeError``."""
    message = "Batched.map() missing 1 required positional argument: 'items'"
    assert message == message_of(TypeError, microbatch(batch_fn).map)


def test_mapping_a_non_iterable():
    """``map`` of an object that is not iterable is Python's own ``TypeError``, and the next call is answered."""
    fn = microbatch(embed)
    assert "'int' object is not iterable" == message_of(TypeError, fn.map, 5)
    assert ["a", "b"] == fn.map("ab")


async def test_mapping_a_non_iterable_on_a_loop():
    """``await map`` of an object that is not iterable is the same ``TypeError``, and the next call is answered."""
    fn = microbatch(aembed)
    with pytest.raises(TypeError, match=r"^'int' object is not iterable$"):
        await fn.map(5)
    assert ["a", "b"] == await fn.map("ab")


def test_mapping_an_iterable_that_fails():
    """The caller gets the error of its iterable, and the next call is answered."""

    def items():
        yield 1
        raise KeyError(2)

    fn = microbatch(embed)
    assert "2" == message_of(KeyError, fn.map, items())
    assert [2, 3] == fn.map([2, 3])


def test_calling_a_closed_function():
    """Each member raises ``BatcherClosedError`` after ``close()``, with the name of the function."""
    fn = microbatch(embed)
    fn.close()
    expected = "embed is closed and takes no more calls"
    asks = [lambda: fn("a"), lambda: fn.submit("a"), lambda: fn.map(["a"]), lambda: asyncio.run(fn.acall("a"))]
    assert [expected] * 4 == [message_of(BatcherClosedError, ask) for ask in asks]


def test_submitting_without_a_loop():
    """``submit`` of an async function needs a running loop; the next call has one and is answered."""
    fn = microbatch(aembed)
    assert "no running event loop" == message_of(RuntimeError, fn.submit, "a")
    assert "a" == asyncio.run(fn("a"))


def test_cancelling_twice():
    """Cancelling a future again, or after its answer, does not affect other futures."""
    fn = microbatch(embed, timeout=3600)
    gone, stays = fn.submit("a"), fn.submit("b")
    assert [True, True] == [gone.cancel(), gone.cancel()]
    fn.flush()
    assert "b" == stays.result(PATIENCE)
    assert not stays.cancel()
    assert (1, 1) == (fn.batch_stats.answered_items, fn.batch_stats.cancelled_items)


def test_no_message_has_an_item():
    """Items and results are private, so no message contains them."""
    secret = "private"  # noqa: S105  # that is the point
    fn = microbatch(lambda texts: secret, name="embed")
    with pytest.raises(BatchResultError) as returned:
        fn(secret)
    with pytest.raises(TypeError) as called:
        fn(secret, texts=secret)
    shown = [str(returned.value), repr(returned.value), str(called.value), repr(fn), str(fn.batch_stats)]
    assert [] == [text for text in shown if secret in text]
