"""What a batch function looks like, and the calls that its one-item form takes."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from inspect import Parameter
from typing import Any

import pytest

from batchify._signature import Call, is_async, is_generator, name_of

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
    with pytest.raises(TypeError) as caught:
        Call(fn, "f", **options)
    return str(caught.value)


def complaint(call, *args, **kwargs):
    """Return the message of the error of a call with the wrong arguments."""
    with pytest.raises(TypeError) as caught:
        call.item(args, kwargs)
    return str(caught.value)


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


@pytest.mark.parametrize(
    ("fn", "parameter"),
    [
        (lambda *args: [], "*args"),
        (lambda texts, *args: [], "*args"),
        (lambda texts, *, scale: [], "scale"),
    ],
)
def test_what_can_be_no_column_is_refused(fn, parameter):
    """A parameter without a default that a list of items can't be passed to is refused by name."""
    expected = f"f() has {parameter}, which is no column; give it one parameter by name for the list of items"
    assert expected == refusal(fn)


@pytest.mark.parametrize(
    "fn",
    [
        sync,
        lambda texts, /: [],
        lambda texts, top_k=10: [],
        lambda texts, top_k=10, *, scale=1.0: [],
        lambda texts, **options: [],
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
    assert "a" == Call(fn, "f").item(("a",), {})


@pytest.mark.parametrize("fn", [sync, Model().embed, Callable(), partial(Model.embed, Model())])
def test_the_item_may_be_given_by_name(fn):
    """The column has the name that it has in the batch function."""
    assert "a" == Call(fn, "f").item((), {"texts": "a"})


def test_a_method_is_called_without_its_instance():
    """When the instance is given already, the item is the first argument."""
    call = Call(Model.embed, "f", bound=True)
    assert ["a", "b"] == [call.item(("a",), {}), call.item((), {"texts": "b"})]


def test_an_item_may_be_anything():
    """The item is handed over as it is, whatever it is."""
    item = [{}, None]
    assert item is Call(sync, "f").item((item,), {})


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((), {}, "f() missing a required argument: 'texts'"),
        (("a", "b"), {}, "f() too many positional arguments"),
        (("a",), {"texts": "b"}, "f() multiple values for argument 'texts'"),
        (("a",), {"text": "b"}, "f() got an unexpected keyword argument 'text'"),
        ((), {"text": "b"}, "f() missing a required argument: 'texts'"),
    ],
)
def test_wrong_arguments_fail_like_those_of_any_function(args, kwargs, message):
    """A call with the wrong arguments is a ``TypeError`` that names the function and the argument."""
    assert message == complaint(Call(sync, "f"), *args, **kwargs)


def test_wrong_arguments_are_never_shown():
    """The message names arguments, and never tells their values."""
    assert "private" not in complaint(Call(sync, "f"), "private", text="private")


def test_an_option_is_no_part_of_the_one_item_form():
    """A parameter with a default keeps it, and can't be given with an item."""
    call = Call(lambda texts, top_k=10: [], "f")
    assert "f() got an unexpected keyword argument 'top_k'" == complaint(call, "a", top_k=5)


def test_the_complaint_has_no_context():
    """How the arguments were looked at is our business, and no part of what callers read."""
    with pytest.raises(TypeError) as caught:
        Call(sync, "f").item((), {})
    assert caught.value.__suppress_context__


def test_one_argument_for_two_columns():
    """One argument is not taken for an item where there are two columns."""
    call = Call(lambda queries, docs: [], "f")
    assert "f() missing a required argument: 'docs'" == complaint(call, "a")


def test_two_columns_are_one_too_many():
    """A function with two parameters without a default has no one-item form, and says so at the call."""
    call = Call(lambda queries, docs: [], "f")
    expected = "f() takes one list of items, and has 2 parameters without a default"
    assert expected == complaint(call, "a", "b")


@pytest.mark.parametrize(
    ("fn", "args", "expected"),
    [
        (Model.embed, (Model(), "a"), True),
        (Model.embed, (Model(),), True),
        (Model.embed, (), False),
        (sync, ("a",), False),
    ],
)
def test_a_method_called_through_its_class(fn, args, expected):
    """A method that is called through its class has its instance for a first argument, a function has not."""
    assert expected is Call(fn, "f").takes_instance(args)


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
        (lambda texts, top_k=10, *, scale=1.0, **options: [], "(texts)"),
        (lambda queries, docs, top_k=10: [], "(queries, docs)"),
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

    assert "(texts)" == signature(fn)


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
    assert ["input"] == list(call.signature.parameters)
    assert "text" == call.item(("text",), {})
