"""What a batch function looks like, and the calls that its one-item form takes."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from inspect import Parameter
from typing import Any
from weakref import ref

import pytest

from batchify._batcher.functions import is_async, is_generator, name_of
from batchify._decorator.signature import Call
from tests.kit.errors import message_of
from tests.kit.misbehaving import Incomparable

EMPTY = Parameter.empty


def sync(texts: list[str]) -> list[int]: ...


async def awaited(texts: list[str]) -> list[int]: ...


def yielding(texts):
    yield texts


async def streaming(texts):
    yield texts


class Model:
    def embed(self, texts: list[str]) -> list[int]: ...

    async def aembed(self, texts: list[str]) -> list[int]: ...

    def stream(self, texts):
        yield texts

    @classmethod
    def load(cls, texts): ...

    @staticmethod
    def plain(texts): ...


class Callable:
    def __call__(self, texts: list[str]) -> list[int]: ...


class AsyncCallable:
    async def __call__(self, texts: list[str]) -> list[int]: ...


class YieldingCallable:
    def __call__(self, texts):
        yield texts


class StreamingCallable:
    async def __call__(self, texts):
        yield texts


class Nameless:
    """Claims a name that is none, as mocks do."""

    def __init__(self):
        self.__qualname__ = 8

    def __call__(self, texts): ...


@functools.wraps(awaited)
def wrapper(*args):
    """Look like ``awaited`` and be called like any function."""


NAMES = [
    (sync, "sync"),
    (max, "max"),
    (Model, "Model"),
    (Model.embed, "Model.embed"),
    (Model().embed, "Model.embed"),
    (Model.load, "Model.load"),
    (Model.plain, "Model.plain"),
    (Callable(), "Callable"),
    (partial(sync), "sync"),
    (partial(partial(Model.embed, Model()), []), "Model.embed"),
    (partial(Callable()), "Callable"),
    (Nameless(), "Nameless"),
    (lambda texts: texts, "<lambda>"),
    (str.join, "str.join"),
]


@pytest.mark.parametrize(("fn", "name"), NAMES, ids=[name for _, name in NAMES])
def test_names(fn, name):
    """A function is called by its qualified name, a partial as its function, a callable object as its class."""
    assert name == name_of(fn)


AWAITED = [awaited, Model.aembed, Model().aembed, AsyncCallable(), partial(awaited), partial(Model.aembed, Model())]
CALLED = [sync, max, Model, Model.embed, Model().embed, Callable(), partial(sync), yielding, streaming, wrapper]
YIELDING = [yielding, streaming, Model.stream, Model().stream, YieldingCallable(), StreamingCallable()]


@pytest.mark.parametrize("fn", AWAITED, ids=name_of)
def test_what_returns_a_coroutine_is_async(fn):
    """Functions, methods, partials and callable objects are async if calling them returns a coroutine."""
    assert is_async(fn)


@pytest.mark.parametrize("fn", CALLED, ids=name_of)
def test_what_returns_no_coroutine_is_not_async(fn):
    """Whatever returns something else is not async: generators of both kinds, and wrappers of async functions."""
    assert not is_async(fn)


@pytest.mark.parametrize("fn", [partial(AsyncCallable()), partial(partial(AsyncCallable()))])
def test_a_partial_is_as_async_as_what_is_inside(fn):
    """A partial of an object whose ``__call__`` is async is async."""
    assert is_async(fn)


@pytest.mark.parametrize("fn", [*YIELDING, partial(yielding), partial(streaming)], ids=name_of)
def test_what_returns_a_generator_is_one(fn):
    """Generator functions of both kinds are known in all the forms that a function can have."""
    assert is_generator(fn)


@pytest.mark.parametrize("fn", [partial(YieldingCallable()), partial(StreamingCallable())], ids=name_of)
def test_a_partial_is_as_much_a_generator_as_what_is_inside(fn):
    """A partial of an object whose ``__call__`` is a generator function is one."""
    assert is_generator(fn)


@pytest.mark.parametrize("fn", [*AWAITED, sync, Model, Model.embed, Callable(), max], ids=name_of)
def test_what_returns_no_generator_is_none(fn):
    """Coroutines and plain functions are no generators."""
    assert not is_generator(fn)


# The one-item form.


def refusal(fn, **options):
    """Return the message of the error that refuses a batch function."""
    return message_of(TypeError, Call, fn, "f", **options)


def row(call, *args, **kwargs):
    """Return the row of a call: its item, or a request if it passes options."""
    return call.bind(lambda item: item, lambda request: request)(*args, **kwargs)


def complaint(call, *args, **kwargs):
    """Return the message of the error of a call with the wrong arguments."""
    return message_of(TypeError, row, call, *args, **kwargs)


def run(call, fn, *calls):
    """Return what ``fn`` returns for the rows of some calls."""
    return call.batch(fn)([row(call, *args, **kwargs) for args, kwargs in calls])


@pytest.mark.parametrize(
    "fn",
    [
        lambda: None,
        lambda top_k=10: [],
        lambda **options: [],
        lambda top_k=10, *, scale=1.0, **options: [],
        Model,
        partial(sync, texts=[]),
    ],
)
def test_a_function_without_a_column_is_refused(fn):
    """Without a parameter that has no default, nothing can be batched."""
    assert "f() has no column: give it a parameter without a default for the list of items" == refusal(fn)


def test_a_method_without_a_column_is_refused():
    """The instance is no column."""
    expected = "f() has no column: give it a parameter without a default for the list of items"
    assert expected == refusal(lambda self: [], bound=True)


@pytest.mark.parametrize("fn", [lambda *, texts: [], partial(lambda top_k, texts: [], top_k=1)])
def test_what_is_given_by_name_only_is_no_column(fn):
    """A function whose lists could only be given by name is refused with a word about that."""
    expected = (
        "f() has no column: give it a parameter without a default for the list of items "
        "(texts is none, as it can only be given by name)"
    )
    assert expected == refusal(fn)


@pytest.mark.parametrize("fn", [lambda *args: [], lambda texts, *args: []])
def test_any_number_of_columns_is_refused(fn):
    """A parameter that takes any number of arguments is refused by name."""
    expected = "f() has *args, which is no column; give it one parameter by name for the list of items"
    assert expected == refusal(fn)


@pytest.mark.parametrize(
    "fn",
    [
        sync,
        lambda texts, /: [],
        Model().embed,
        Model.load,
        Model.plain,
        Callable(),
        partial(Model.embed, Model()),
        max,
    ],
)
def test_one_positional_argument_is_the_item(fn):
    """A call with one argument carries that argument, whatever the function looks like."""
    assert "a" == row(Call(fn, "f"), "a")


@pytest.mark.parametrize("fn", [sync, Model().embed, Callable(), partial(Model.embed, Model())])
def test_the_item_may_be_given_by_name(fn):
    """The column has the name that it has in the batch function."""
    assert "a" == row(Call(fn, "f"), texts="a")


def test_a_method_is_called_without_its_instance():
    """When the instance is given already, the item is the first argument."""
    call = Call(Model.embed, "f", bound=True)
    assert ["a", "b"] == [row(call, "a"), row(call, texts="b")]


def test_an_item_may_be_anything():
    """The item is handed over as it is, whatever it is."""
    item = [{}, None]
    assert item is row(Call(sync, "f"), item)


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((), {}, "f() missing 1 required positional argument: 'texts'"),
        (("a", "b"), {}, "f() takes 1 positional argument but 2 were given"),
        (("a",), {"texts": "b"}, "f() got multiple values for argument 'texts'"),
        (("a",), {"text": "b"}, "f() got an unexpected keyword argument 'text'"),
        ((), {"text": "b"}, "f() got an unexpected keyword argument 'text'"),
    ],
)
def test_wrong_arguments_fail_like_those_of_any_function(args, kwargs, message):
    """A call with the wrong arguments is the ``TypeError`` of Python, under the name of the function."""
    assert message == complaint(Call(sync, "f"), *args, **kwargs)


def test_wrong_arguments_are_never_shown():
    """The message names arguments, and never tells their values."""
    assert "private" not in complaint(Call(sync, "f"), "private", text="private")


def test_a_call_returns_its_delivery():
    """The one-item form returns what the delivery of the item returns."""
    assert ["a"] == Call(sync, "f").bind(lambda item: [item], None)("a")


# Several columns.


def pairs(queries, docs):
    return list(zip(queries, docs, strict=True))


def test_a_call_gives_one_element_of_each_column():
    """Columns are given by position or by name, in any order, and the batch function gets a list of each."""
    calls = [(("q", "d"), {}), (("r",), {"docs": "e"}), ((), {"docs": "f", "queries": "s"})]
    assert [("q", "d"), ("r", "e"), ("s", "f")] == run(Call(pairs, "f"), pairs, *calls)


def test_the_columns_are_lists_of_the_function():
    """Each column is a list of its own."""
    told = run(Call(pairs, "f"), lambda *columns: columns, (("q", "d"), {}), (("r", "e"), {}))
    assert (["q", "r"], ["d", "e"]) == told


def test_one_argument_for_two_columns():
    """One argument is too few where there are two columns."""
    assert "f() missing 1 required positional argument: 'docs'" == complaint(Call(pairs, "f"), "a")


# Options.


def search(texts, limit=10, /, top_k=3, *, scale, exact=False, **more):
    return texts, limit, top_k, scale, exact, more


def given(*args, **kwargs):
    """Return what the batch function gets beside its items."""
    _, *options = run(Call(search, "f"), search, (("a", *args), kwargs))
    return tuple(options)


def test_an_option_that_is_left_alone_has_its_default():
    """The batch function gets the default of what a call does not say."""
    assert (10, 3, 1.5, False, {}) == given(scale=1.5)


def test_options_are_given_by_position_or_name():
    """The batch function gets what the call gives, whatever the kind of the parameter."""
    assert (5, 7, 2, True, {"deep": 1, "_wide": 2}) == given(5, _wide=2, exact=True, deep=1, scale=2, top_k=7)


def test_names_with_underscores_are_spared():
    """Parameters may begin with any number of underscores."""

    def fn(_texts, *, __top_k=3):
        return _texts, __top_k

    assert (["a"], 3) == run(Call(fn, "f"), fn, (("a",), {}))


def test_an_option_by_position_and_one_by_its_name():
    """A name that is taken by position may be used again among those that are free."""

    def fn(texts, top_k=1, /, **more):
        return texts, top_k, more

    assert (["a"], 5, {"top_k": 7}) == run(Call(fn, "f"), fn, (("a", 5), {"top_k": 7}))


def test_an_option_without_a_default_is_required():
    """A call without it fails as that of any function."""
    assert "f() missing 1 required keyword-only argument: 'scale'" == complaint(Call(search, "f"), "a")


def token(call, *args, **kwargs):
    """Return the interned options of a call that passes some."""
    return row(call, *args, **kwargs).options


def test_equal_options_are_one():
    """Calls with equal options carry the same token, however they say it; others carry others."""
    call = Call(search, "f")
    one = token(call, "a", scale=1.0, b=1, a=2)
    assert one is token(call, "b", 10, 3, scale=1, exact=False, a=2, b=1)
    other = token(call, "a", scale=1.0)
    assert 4 == len({one, other, token(call, "a", scale=1.0, b=2, a=1), token(call, "a", 9, scale=1, b=1, a=2)})


def test_an_unhashable_default_is_one_as_well():
    """A default that is not hashable can be left alone, and reaches the batch function as it is."""

    def fn(texts, stop=[]):  # noqa: B006  # what people write
        return stop

    call = Call(fn, "f")
    assert "a" == row(call, "a")
    assert fn.__defaults__[0] is run(call, fn, (("a",), {}))


@pytest.mark.parametrize(("kwargs", "name"), [({"scale": [1]}, "scale"), ({"scale": 1, "deep": [1]}, "deep")])
def test_an_unhashable_option_is_refused_by_name(kwargs, name):
    """An option that is not hashable is a TypeError that names it; the value is not shown."""
    expected = (
        f"f() compares options to find the calls that may share a batch, so they must be hashable; {name} is a list"
    )
    assert expected == complaint(Call(search, "f"), "a", **kwargs)


def test_a_hash_that_fails_is_the_callers():
    """What the ``__hash__`` or ``__eq__`` of an option raises is raised to its caller as it is."""
    call = Call(search, "f")
    kept = token(call, "a", scale=Incomparable())
    assert "odd" == complaint(call, "a", scale=Incomparable())
    assert kept is not token(call, "a", scale=2)


@pytest.mark.parametrize("kwargs", [{}, {"top_k": 3000}, {"top_k": int("3000"), "exact": False}])
def test_a_call_with_the_defaults_is_its_bare_item(kwargs):
    """A call that passes no option, or values equal to the defaults, is queued as its bare item."""

    def fn(texts, top_k=3000, *, exact=False, **more):
        return texts, top_k, exact, more

    assert "a" == row(Call(fn, "f"), "a", **kwargs)
    assert ("a", 3) == (row(Call(fn, "f"), "a", more=1).item, len(row(Call(fn, "f"), "a", more=1).options.key))


def test_options_that_nobody_uses_are_forgotten():
    """What stands for options goes with the last call that has them."""
    call = Call(search, "f")
    gone = ref(token(call, "a", scale=1))
    assert None is gone()


def test_many_items_with_the_same_options():
    """``rows()`` gives one row for each item, with the options of all."""
    call = Call(search, "f")
    rows = list(call.rows(["a", "b"], {"scale": 1}))
    assert (["a", "b"], 10, 3, 1, False, {}) == call.batch(search)(rows)


def test_many_items_of_several_columns():
    """``rows()`` takes a tuple for each item of several columns."""
    assert [("q", "d"), ("r", "e")] == list(Call(pairs, "f").rows([("q", "d"), ["r", "e"]], {}))


@pytest.mark.parametrize("item", ["qd", b"qd", 5])
def test_rows_of_what_is_no_row(item):
    """``rows()`` takes no text apart as if it were one element for each column, and says what it expects."""
    told = f"one element for each of queries, docs, as tuples, got a {type(item).__name__};"
    with pytest.raises(TypeError, match=told):
        list(Call(pairs, "f").rows([item], {}))


def test_many_plain_items():
    """``rows()`` gives items as they are where there is nothing else, and refuses options that there are not."""
    assert ["a", "b"] == list(Call(sync, "f").rows(["a", "b"], {}))
    with pytest.raises(TypeError, match="unexpected keyword argument 'top_k'"):
        list(Call(sync, "f").rows(["a", "b"], {"top_k": 3}))


# Its signature.


def signature(fn, **options):
    """Return the signature of the one-item form as text."""
    return str(Call(fn, "f", **options).signature)


@pytest.mark.parametrize(
    ("fn", "expected"),
    [
        (sync, "(texts: str) -> int"),
        (awaited, "(texts: str) -> int"),
        (Model().embed, "(texts: str) -> int"),
        (Callable(), "(texts: str) -> int"),
        (partial(Model.embed, Model()), "(texts: str) -> int"),
        (lambda texts, /: [], "(texts, /)"),
        (lambda texts, top_k=10, *, scale=1.0, **options: [], "(texts, top_k=10, *, scale=1.0, **options)"),
        (lambda queries, docs, top_k=10: [], "(queries, docs, top_k=10)"),
        (max, "(items, /)"),
    ],
)
def test_the_signature_is_that_of_one_item(fn, expected):
    """Parameters that are columns are shown with the type of one item, and the result with that of one result."""
    assert expected == signature(fn)


def test_the_signature_of_a_method_has_no_instance():
    """When the instance is given already it is not shown."""
    assert "(texts: str) -> int" == signature(Model.embed, bound=True)


def test_the_signature_is_made_once():
    """Asking again returns the same object."""
    call = Call(sync, "f")
    assert call.signature is call.signature


def element(annotation):
    """Return what is shown for a parameter with this annotation."""

    def fn(items): ...

    fn.__annotations__ = {"items": annotation}
    return Call(fn, "f").signature.parameters["items"].annotation


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (list[str], str),
        (Sequence[str], str),
        (Iterable[str], str),
        (tuple[str, ...], str),
        (list[list[int]], list[int]),
        (list[Any], Any),
        ("list[str]", str),
        ("Sequence[Model]", Model),
    ],
)
def test_the_type_of_one_item(annotation, expected):
    """A list of X, or another iterable of X, shows as X."""
    assert expected == element(annotation)


@pytest.mark.parametrize(
    "annotation",
    [
        list,
        str,
        Any,
        None,
        tuple[str, int],
        tuple[()],
        Mapping[str, int],
        type[str],
        list[str] | None,
        "list[str] | None",
        dict[str, int],
        "unheard_of.Type",
        "1 / 0",
        "int('x')",
        "not python",
        8,
    ],
    ids=repr,
)
def test_the_type_of_one_item_is_not_always_known(annotation):
    """What does not tell the type of an item shows as nothing, and is no error, not even if it can't be evaluated."""
    assert EMPTY is element(annotation)


def test_annotations_that_fail_spare_the_names():
    """When annotations can't be evaluated, the columns and their names are shown all the same."""

    def fn(texts: unheard_of, top_k: int = 10) -> unheard_of: ...  # noqa: F821  # that is the point

    assert "(texts, top_k: 'int' = 10)" == signature(fn)


def test_what_is_given_is_a_signature():
    """The signature is one that ``inspect`` can be asked to bind."""
    assert {"texts": "a"} == Call(sync, "f").signature.bind("a").arguments


def test_what_is_inspected_is_not_changed():
    """Looking at a function leaves its own signature as it was."""
    before = inspect.signature(sync)
    assert "(texts: str) -> int" == signature(sync)
    assert before == inspect.signature(sync)


def test_a_compiled_method_that_counts_its_instance():
    """A bound method of a compiled object takes the items alone, even where its signature begins with ``self``."""
    encode_batch = (
        pytest.importorskip("tokenizers").Tokenizer(pytest.importorskip("tokenizers.models").BPE()).encode_batch
    )
    call = Call(encode_batch, "encode_batch")
    assert ["input", "is_pretokenized", "add_special_tokens"] == list(call.signature.parameters)
    item = row(call, "text")
    assert "text" == item
