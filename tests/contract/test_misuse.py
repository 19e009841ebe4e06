"""Misuses and their exact error messages.

Each table lists misuses with the expected messages. A message names the function, the given value and the remedy.
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
    """Do nothing; the tests never await the coroutine."""


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


class NoCause(Exception):  # noqa: N818  # named after its fault
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


@pytest.mark.parametrize("kind", [NoCause, NoClass, NoDict, NoAttribute])
def test_an_exception_whose_attributes_raise_reaches_its_caller(kit, kind):
    """An exception whose attributes raise reaches its caller, and the next call gets its result."""

    def answer(items):
        if 2 in items:
            raise kind
        return items

    echo, gate = kit.decorate()
    gate.answer = answer
    first = kit.call(echo, 2)
    kit.await_done([first])
    assert kind is type(first.exception(PATIENCE))
    assert [1] == kit.results([kit.call(echo, 1)])
    assert (1, 1, 0) == (echo.batch_stats.failed_items, echo.batch_stats.answered_items, echo.batch_stats.running)


# Wrong values of options, which the decorator and the engine classes name differently.

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
    (TypeError, True, "must be a number of seconds, or None, got True of type bool"),
    (TypeError, "0.1", "must be a number of seconds, or None, got '0.1' of type str"),
    (TypeError, 1j, "must be a number of seconds, or None, got 1j of type complex"),
    (TypeError, Decimal("0.1"), "must be a number of seconds, or None, got Decimal('0.1') of type Decimal"),
    (TypeError, (1,), "must be a number of seconds, or None, got (1,) of type tuple"),
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
# The other option that each of these options requires.
WITH = {"max_weight": {"weigh": len}, "weigh": {"max_weight": 1}}


def wrong_options(size, time):
    """Return parameter sets: a wrong value of each option, with its error.

    Args:
        size: The name of the option for the maximal batch size.
        time: The name of the option for the window.
    """
    values = {
        size: SIZES,
        time: TIMES,
        "concurrency": SIZES,
        "max_pending": [case for case in SIZES if case[1] is not None],
        "on_full": CHOICES,
        "weigh": FUNCTIONS,
        "max_weight": WEIGHTS,
        "group_by": FUNCTIONS,
        "dedupe": FLAGS[:2],
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


@pytest.mark.parametrize(("kind", "options", "message"), wrong_options("max_size", "timeout"))
@pytest.mark.parametrize(
    "decorate",
    [lambda **options: microbatch(embed, **options), lambda **options: microbatch(**options)(aembed)],
    ids=["microbatch(fn, ...)", "@microbatch(...)"],
)
def test_a_wrong_option_raises_an_error_that_names_the_rule(decorate, kind, options, message):
    """A wrong type raises ``TypeError`` and a wrong value ``ValueError``; both name the option, rule and value."""
    assert message == message_of(kind, decorate, **options)


@pytest.mark.parametrize(("kind", "options", "message"), wrong_options("max_batch_size", "batch_wait_timeout_s"))
@pytest.mark.parametrize("engine", [AsyncMicrobatcher, SyncMicrobatcher])
def test_a_wrong_engine_argument_raises_the_same_error(engine, kind, options, message):
    """An engine class raises the same errors, with the names of its own arguments."""
    assert message == message_of(kind, engine, embed, **options)


def test_on_full_raise_requires_max_pending():
    """``on_full="raise"`` without ``max_pending`` raises ``TypeError``, because it would have no effect."""
    message = "on_full='raise' needs max_pending: without it there is always room"
    for decorate in (microbatch, AsyncMicrobatcher, SyncMicrobatcher):
        assert message == message_of(TypeError, decorate, embed, on_full="raise")


@pytest.mark.parametrize(
    ("options", "given", "missing"),
    [({"weigh": len}, "weigh", "max_weight"), ({"max_weight": 10}, "max_weight", "weigh")],
)
def test_weigh_and_max_weight_require_each_other(options, given, missing):
    """``weigh`` or ``max_weight`` alone raises ``TypeError``, because it would have no effect."""
    message = f"{given} needs {missing}: the sum of weigh(item) over a batch is at most max_weight"
    for decorate in (microbatch, AsyncMicrobatcher, SyncMicrobatcher):
        assert message == message_of(TypeError, decorate, embed, **options)


UNKNOWN = ["max", "batch_size", "max_batch_size", "timeout_ms", "wait", "workers", "max_sizee", "texts"]


@pytest.mark.parametrize("option", UNKNOWN)
def test_an_unknown_option_is_a_type_error(option):
    """An unknown option raises a ``TypeError`` that names it, even if it resembles a known one."""
    expected = f"microbatch() got an unexpected keyword argument '{option}'"
    assert expected == message_of(TypeError, microbatch, embed, **{option: 1})
    assert expected == message_of(TypeError, microbatch, **{option: 1})


@pytest.mark.parametrize("option", ["max_size", "timeout", "batch_size", "max_batch"])
@pytest.mark.parametrize("engine", [AsyncMicrobatcher, SyncMicrobatcher])
def test_an_unknown_engine_argument_is_a_type_error(engine, option):
    """The engine classes accept neither misspelled arguments nor the option names of the decorator."""
    expected = f"{engine.__name__}.__init__() got an unexpected keyword argument '{option}'"
    assert expected == message_of(TypeError, engine, embed, **{option: 1})


@pytest.mark.parametrize(
    ("do", "message"),
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
def test_options_are_keyword_arguments(do, message):
    """Options are keyword arguments, and the batch function is positional."""
    assert message == message_of(TypeError, do)


# Objects that cannot be decorated.

NO_FUNCTION = "microbatch decorates a function of a list of items, got"
NO_COLUMN = "has no column: give it a parameter without a default for the list of items"
ADVICE = "give it one parameter by name for the list of items"
A_LAMBDA = "<lambda>()"


REFUSED = [
    (None, f"{NO_FUNCTION} None of type NoneType"),
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
    (lambda *texts: [], f"{A_LAMBDA} has *texts, which cannot be a column; {ADVICE}"),
    (lambda texts, *more: [], f"{A_LAMBDA} has *more, which cannot be a column; {ADVICE}"),
    (lambda *, texts: [], f"{A_LAMBDA} {NO_COLUMN} (texts can only be passed by name, so it is an option)"),
    (
        functools.partial(lambda top_k, texts: [], top_k=1),
        f"{A_LAMBDA} {NO_COLUMN} (texts can only be passed by name, so it is an option)",
    ),
]


@pytest.mark.parametrize(("fn", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_decorating_an_object_that_is_no_batch_function_is_refused(fn, message):
    """An object that is not a batch function is refused at decoration, with its name and the remedy."""
    assert message == message_of(TypeError, microbatch, fn)


@pytest.mark.parametrize(
    ("decorate", "message"),
    [
        (microbatch, "embed is already decorated with microbatch; pass all options to one decorator"),
        (microbatch(max_size=8), "embed is already decorated with microbatch; pass all options to one decorator"),
        (
            lambda fn: microbatch(staticmethod(fn)),
            "embed is already decorated with microbatch; pass all options to one decorator",
        ),
        (
            lambda fn: microbatch(classmethod(fn)),
            "embed is already decorated with microbatch; pass all options to one decorator",
        ),
        (
            lambda _: microbatch(Model.encode),
            "Model.encode is already decorated with microbatch; pass all options to one decorator",
        ),
        (
            lambda _: microbatch(Model().encode),
            "Model.encode is already decorated with microbatch; pass all options to one decorator",
        ),
    ],
)
def test_decorating_a_function_twice_is_refused(decorate, message):
    """A decorated function cannot be decorated again, because it takes one item."""
    assert message == message_of(TypeError, decorate, microbatch(embed))


def test_a_method_without_a_column_is_refused_at_its_first_lookup():
    """A method without a parameter for items is refused when it is first looked up on an instance."""

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
def test_an_engine_refuses_functions_that_it_cannot_run(engine, batch_fn, message):
    """An engine class refuses a function that it cannot run, and names the functions that it can run."""
    assert message == message_of(TypeError, engine, batch_fn)


# Misuses at run time, after each of which the next call gets its result.

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
def test_a_call_with_wrong_arguments_fails_at_once(batch_fn, member, args, kwargs, message):
    """A call with wrong arguments fails before an item is queued, and the next call gets its result."""
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
def test_a_wrong_call_of_a_method_does_not_count_the_instance(do, message):
    """The message for a wrong call of a method does not count the instance as an argument."""
    assert message == message_of(TypeError, do)
    assert 0 == Model.encode.batch_stats.pending
    assert "a" == Model().encode("a")


@pytest.mark.parametrize("batch_fn", [embed, aembed], ids=["def", "async def"])
def test_map_without_an_argument_is_a_type_error(batch_fn):
    """``map()`` without an argument raises the ``TypeError`` of Python itself."""
    message = "Batched.map() missing 1 required positional argument: 'items'"
    assert message == message_of(TypeError, microbatch(batch_fn).map)


def test_map_of_a_non_iterable_is_a_type_error():
    """``map()`` of a non-iterable raises the ``TypeError`` of Python itself, and the next call gets its results."""
    fn = microbatch(embed)
    assert "'int' object is not iterable" == message_of(TypeError, fn.map, 5)
    assert ["a", "b"] == fn.map("ab")


async def test_awaiting_map_of_a_non_iterable_is_a_type_error():
    """Awaiting ``map()`` of a non-iterable raises the same ``TypeError``, and the next call gets its results."""
    fn = microbatch(aembed)
    with pytest.raises(TypeError, match=r"^'int' object is not iterable$"):
        await fn.map(5)
    assert ["a", "b"] == await fn.map("ab")


def test_map_raises_the_error_of_its_iterable():
    """``map()`` raises the error of its iterable, and the next call gets its results."""

    def items():
        yield 1
        raise KeyError(2)

    fn = microbatch(embed)
    assert "2" == message_of(KeyError, fn.map, items())
    assert [2, 3] == fn.map([2, 3])


def test_every_way_to_call_a_closed_function_is_refused():
    """After ``close()``, every way to call raises a ``BatcherClosedError`` that names the function."""
    fn = microbatch(embed)
    fn.close()
    expected = "embed is closed and takes no more calls until it is opened again"
    calls = [lambda: fn("a"), lambda: fn.submit("a"), lambda: fn.map(["a"]), lambda: asyncio.run(fn.acall("a"))]
    assert [expected] * 4 == [message_of(BatcherClosedError, call) for call in calls]


NO_LOOP = (
    "can only be awaited on asyncio, and no event loop of asyncio is running in this thread; on trio, call a def "
    "function in a thread: await trio.to_thread.run_sync(function, item)"
)


def test_submit_of_an_async_function_requires_a_running_loop():
    """``submit()`` of an async function raises without a running loop; the next call gets its result."""
    fn = microbatch(aembed)
    assert f"aembed() {NO_LOOP}" == message_of(RuntimeError, fn.submit, "a")
    assert "a" == asyncio.run(fn("a"))


def test_cancelling_a_future_again_has_no_effect():
    """Cancelling a future twice, or after its result is set, has no effect on other futures."""
    fn = microbatch(embed, timeout=3600)
    cancelled, other = fn.submit("a"), fn.submit("b")
    assert [True, True] == [cancelled.cancel(), cancelled.cancel()]
    fn.flush()
    assert "b" == other.result(PATIENCE)
    assert not other.cancel()
    assert (1, 1) == (fn.batch_stats.answered_items, fn.batch_stats.cancelled_items)


def test_messages_contain_no_items_or_results():
    """Items and results are private, so no error message or ``repr()`` contains them."""
    secret = "private"  # noqa: S105  # not a password
    fn = microbatch(lambda texts: secret, name="embed")
    with pytest.raises(BatchResultError) as returned:
        fn(secret)
    with pytest.raises(TypeError) as called:
        fn(secret, texts=secret)
    texts = [str(returned.value), repr(returned.value), str(called.value), repr(fn), str(fn.batch_stats)]
    assert [] == [text for text in texts if secret in text]


# Calls without an event loop of asyncio, as from trio.


class Doubling:
    """Methods of every kind. Each instance has batchers of its own."""

    @microbatch(name="double")
    def plain(self, items):
        return [2 * item for item in items]

    @microbatch(name="double")
    async def awaited(self, items):
        return [2 * item for item in items]

    @microbatch(name="double")
    def stream(self, items):
        yield items

    @microbatch(name="double")
    async def astream(self, items):
        yield items


@pytest.mark.parametrize(
    "call",
    [
        lambda one: one.awaited(1),
        lambda one: one.awaited.options(priority=1)(1),
        lambda one: one.awaited.submit(1),
        lambda one: one.plain.acall(1),
        lambda one: one.plain.options(priority=1).acall(1),
        lambda one: anext(one.astream(1)),
        lambda one: one.astream.submit(1),
        lambda one: anext(one.stream.acall(1)),
        lambda one: AsyncMicrobatcher(one.awaited.__wrapped__, name="double").start(),
    ],
    ids=["async", "urgent", "submit", "acall", "urgent acall", "stream", "submitted stream", "stream acall", "start"],
)
@pytest.mark.parametrize("is_known", [False, True], ids=["first", "later"])
def test_without_an_event_loop_the_error_names_an_alternative(call, is_known):
    """A call that only asyncio can answer says so, and names a way that works on trio."""
    one = Doubling()

    async def use():
        assert [2, 2] == await asyncio.gather(one.awaited(1), one.plain.acall(1))

    if is_known:
        asyncio.run(use())
    # A coroutine is driven by hand, as other event loops do.
    assert f"double() {NO_LOOP}" == message_of(RuntimeError, lambda: call(one).send(None))
