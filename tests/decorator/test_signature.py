"""The kinds and names of batch functions, and the calls and signature of their one-item forms."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from inspect import Parameter
from typing import Annotated, Any, Optional, TypeVar, Union
from weakref import ref

import pytest
from typing_extensions import TypeAliasType

from batchify import Done
from batchify._batcher.functions import is_async, is_generator, name_of
from batchify._decorator.signature import Call
from tests.kit.errors import message_of
from tests.kit.misbehaving import Incomparable

EMPTY = Parameter.empty
T = TypeVar("T")
Texts = TypeAliasType("Texts", list[str])
Items = TypeAliasType("Items", Annotated[list[T], "several"], type_params=(T,))


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
    """A callable whose name is not a string, as for mocks."""

    def __init__(self):
        self.__qualname__ = 8

    def __call__(self, texts): ...


@functools.wraps(awaited)
def wrapper(*args):
    """Wrap ``awaited`` in a plain function."""


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
def test_a_callable_is_named_by_its_function_or_class(fn, name):
    """A function has its qualified name, a partial that of its function, a callable object that of its class."""
    assert name == name_of(fn)


AWAITED = [awaited, Model.aembed, Model().aembed, AsyncCallable(), partial(awaited), partial(Model.aembed, Model())]
CALLED = [sync, max, Model, Model.embed, Model().embed, Callable(), partial(sync), yielding, streaming, wrapper]
YIELDING = [yielding, streaming, Model.stream, Model().stream, YieldingCallable(), StreamingCallable()]


@pytest.mark.parametrize("fn", AWAITED, ids=name_of)
def test_a_callable_that_returns_a_coroutine_is_async(fn):
    """Functions, methods, partials and callable objects are async if a call returns a coroutine."""
    assert is_async(fn)


@pytest.mark.parametrize("fn", CALLED, ids=name_of)
def test_other_callables_are_not_async(fn):
    """Generator functions of both kinds, and plain wrappers of async functions, are not async."""
    assert not is_async(fn)


@pytest.mark.parametrize("fn", [partial(AsyncCallable()), partial(partial(AsyncCallable()))])
def test_a_partial_of_an_async_object_is_async(fn):
    """A partial of an object whose ``__call__`` is async is async."""
    assert is_async(fn)


@pytest.mark.parametrize("fn", [*YIELDING, partial(yielding), partial(streaming)], ids=name_of)
def test_a_callable_that_returns_a_generator_is_recognized(fn):
    """Generator functions of both kinds are recognized as functions, methods, partials and objects."""
    assert is_generator(fn)


@pytest.mark.parametrize("fn", [partial(YieldingCallable()), partial(StreamingCallable())], ids=name_of)
def test_a_partial_of_a_generator_object_is_recognized(fn):
    """A partial of an object whose ``__call__`` is a generator function is recognized."""
    assert is_generator(fn)


@pytest.mark.parametrize("fn", [*AWAITED, sync, Model, Model.embed, Callable(), max], ids=name_of)
def test_other_callables_are_no_generator_functions(fn):
    """Coroutine functions and plain functions are no generator functions."""
    assert not is_generator(fn)


# The one-item form.


def refusal(fn, **options):
    """Return the error message for an unsuitable batch function."""
    return message_of(TypeError, Call, fn, "f", **options)


def row(call, *args, **kwargs):
    """Return the row of a call: its item, or a request if it passes options."""
    return call.bind(lambda item: item, lambda request: request)(*args, **kwargs)


def complaint(call, *args, **kwargs):
    """Return the error message of a call with wrong arguments."""
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
    """A function needs a parameter without a default for the list of items."""
    assert "f() has no column: give it a parameter without a default for the list of items" == refusal(fn)


def test_a_method_without_a_column_is_refused():
    """The instance of a method does not count as a column."""
    expected = "f() has no column: give it a parameter without a default for the list of items"
    assert expected == refusal(lambda self: [], bound=True)


@pytest.mark.parametrize("fn", [lambda *, texts: [], partial(lambda top_k, texts: [], top_k=1)])
def test_a_keyword_only_parameter_is_no_column(fn):
    """If the only candidate for a column is keyword-only, the error names it."""
    expected = (
        "f() has no column: give it a parameter without a default for the list of items "
        "(texts can only be passed by name, so it is an option)"
    )
    assert expected == refusal(fn)


@pytest.mark.parametrize("fn", [lambda *args: [], lambda texts, *args: []])
def test_a_variable_number_of_columns_is_refused(fn):
    """A function with ``*args`` is refused, and the error names the parameter."""
    expected = "f() has *args, which cannot be a column; give it one parameter by name for the list of items"
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
    """The positional argument of a call is the item, for every kind of callable."""
    assert "a" == row(Call(fn, "f"), "a")


@pytest.mark.parametrize("fn", [sync, Model().embed, Callable(), partial(Model.embed, Model())])
def test_the_item_may_be_given_by_name(fn):
    """The item may be given by the name of the column in the batch function."""
    assert "a" == row(Call(fn, "f"), texts="a")


def test_a_method_is_called_without_its_instance():
    """With ``bound=True``, the item is the first argument."""
    call = Call(Model.embed, "f", bound=True)
    assert ["a", "b"] == [row(call, "a"), row(call, texts="b")]


def test_an_item_may_be_any_object():
    """The item is passed on unchanged."""
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
    """Wrong arguments raise the ``TypeError`` of Python, with the name of the function."""
    assert message == complaint(Call(sync, "f"), *args, **kwargs)


def test_errors_do_not_show_argument_values():
    """The error message names arguments, and does not show their values."""
    assert "private" not in complaint(Call(sync, "f"), "private", text="private")


def test_a_call_returns_the_result_of_its_delivery():
    """The one-item form returns the return value of the delivery function."""
    assert ["a"] == Call(sync, "f").bind(lambda item: [item], None)("a")


# Several columns.


def pairs(queries, docs):
    return list(zip(queries, docs, strict=True))


def test_a_call_gives_one_element_of_each_column():
    """Columns are given by position or by name, in any order, and the batch function gets a list of each."""
    calls = [(("q", "d"), {}), (("r",), {"docs": "e"}), ((), {"docs": "f", "queries": "s"})]
    assert [("q", "d"), ("r", "e"), ("s", "f")] == run(Call(pairs, "f"), pairs, *calls)


def test_each_column_is_a_list():
    """The batch function gets one list for each column."""
    columns = run(Call(pairs, "f"), lambda *columns: columns, (("q", "d"), {}), (("r", "e"), {}))
    assert (["q", "r"], ["d", "e"]) == columns


def test_a_missing_column_is_an_error():
    """A call of a function with two columns needs two arguments."""
    assert "f() missing 1 required positional argument: 'docs'" == complaint(Call(pairs, "f"), "a")


# Options.


def search(texts, limit=10, /, top_k=3, *, scale, exact=False, **more):
    return texts, limit, top_k, scale, exact, more


def given(*args, **kwargs):
    """Return the options that the batch function gets."""
    _, *options = run(Call(search, "f"), search, (("a", *args), kwargs))
    return tuple(options)


def test_an_omitted_option_has_its_default():
    """The batch function gets the defaults of options that a call omits."""
    assert (10, 3, 1.5, False, {}) == given(scale=1.5)


def test_options_are_given_by_position_or_name():
    """The batch function gets the options of the call, for every kind of parameter."""
    assert (5, 7, 2, True, {"deep": 1, "_wide": 2}) == given(5, _wide=2, exact=True, deep=1, scale=2, top_k=7)


def test_parameters_may_begin_with_underscores():
    """Parameters may begin with any number of underscores."""

    def fn(_texts, *, __top_k=3):
        return _texts, __top_k

    assert (["a"], 3) == run(Call(fn, "f"), fn, (("a",), {}))


def test_an_extra_option_may_have_the_name_of_a_positional_one():
    """A keyword option may have the same name as a positional-only option."""

    def fn(texts, top_k=1, /, **more):
        return texts, top_k, more

    assert (["a"], 5, {"top_k": 7}) == run(Call(fn, "f"), fn, (("a", 5), {"top_k": 7}))


def test_an_option_without_a_default_is_required():
    """A call that omits a required option fails like that of any function."""
    assert "f() missing 1 required keyword-only argument: 'scale'" == complaint(Call(search, "f"), "a")


def token(call, *args, **kwargs):
    """Return the interned options of a call."""
    return row(call, *args, **kwargs).options


def test_equal_options_share_one_token():
    """Calls with equal options carry the same token, however they are passed; other calls carry another."""
    call = Call(search, "f")
    one = token(call, "a", scale=1.0, b=1, a=2)
    assert one is token(call, "b", 10, 3, scale=1, exact=False, a=2, b=1)
    other = token(call, "a", scale=1.0)
    assert 4 == len({one, other, token(call, "a", scale=1.0, b=2, a=1), token(call, "a", 9, scale=1, b=1, a=2)})


def test_a_default_may_be_unhashable():
    """A call may omit an option with an unhashable default, which reaches the batch function unchanged."""

    def fn(texts, stop=[]):  # noqa: B006  # users write this
        return stop

    call = Call(fn, "f")
    assert "a" == row(call, "a")
    assert fn.__defaults__[0] is run(call, fn, (("a",), {}))


@pytest.mark.parametrize(("kwargs", "name"), [({"scale": [1]}, "scale"), ({"scale": 1, "deep": [1]}, "deep")])
def test_an_unhashable_option_is_refused_by_name(kwargs, name):
    """An unhashable option raises ``TypeError`` with the name of the option and without its value."""
    expected = (
        f"f() compares options to find the calls that may share a batch, so they must be hashable; {name} is a list"
    )
    assert expected == complaint(Call(search, "f"), "a", **kwargs)


def test_an_error_of_a_comparison_reaches_the_caller():
    """An exception from ``__hash__`` or ``__eq__`` of an option is raised unchanged to the caller."""
    call = Call(search, "f")
    kept = token(call, "a", scale=Incomparable())
    assert "odd" == complaint(call, "a", scale=Incomparable())
    assert kept is not token(call, "a", scale=2)


@pytest.mark.parametrize("kwargs", [{}, {"top_k": 3000}, {"top_k": int("3000"), "exact": False}])
def test_a_call_with_default_options_is_queued_as_its_item(kwargs):
    """A call without options, or with values equal to the defaults, is queued as the item alone."""

    def fn(texts, top_k=3000, *, exact=False, **more):
        return texts, top_k, exact, more

    assert "a" == row(Call(fn, "f"), "a", **kwargs)
    assert ("a", 3) == (row(Call(fn, "f"), "a", more=1).item, len(row(Call(fn, "f"), "a", more=1).options.key))


def test_a_token_lives_as_long_as_its_calls():
    """The token of options is freed with the last call that has it."""
    call = Call(search, "f")
    dead = ref(token(call, "a", scale=1))
    assert None is dead()


def test_rows_gives_one_row_for_each_item():
    """``rows()`` returns one row for each item, with the same options."""
    call = Call(search, "f")
    rows = list(call.rows(["a", "b"], {"scale": 1}))
    assert (["a", "b"], 10, 3, 1, False, {}) == call.batch(search)(rows)


def test_rows_takes_options_by_position():
    """``rows()`` passes positional arguments after the columns of each item, as a call does."""
    call = Call(lambda texts, k=1: [(text, k) for text in texts], "f")
    assert [("a", 3), ("b", 3)] == call.batch(call._fn)(list(call.rows(["a", "b"], {}, (3,))))
    two = Call(lambda queries, docs, k=1: [(*pair, k) for pair in zip(queries, docs, strict=True)], "f")
    assert [("q", "d", 3)] == two.batch(two._fn)(list(two.rows([("q", "d")], {}, (3,))))


def test_rows_takes_a_tuple_for_each_item_of_several_columns():
    """``rows()`` takes a tuple, or another sequence, for each item of several columns."""
    assert [("q", "d"), ("r", "e")] == list(Call(pairs, "f").rows([("q", "d"), ["r", "e"]], {}))


@pytest.mark.parametrize(
    ("item", "kind"),
    [
        ("qd", "a str"),
        (b"qd", "a bytes"),
        (5, "an int"),
        ({"docs": "d", "queries": "q"}, "a dict"),
        ({"q", "d"}, "a set"),
    ],
)
def test_rows_refuses_an_item_without_one_element_for_each_column(item, kind):
    """``rows()`` does not split strings, bytes, dicts or sets into columns, and its error states the expected form."""
    expected = f" one tuple (queries, docs) for each item, got {kind};"
    with pytest.raises(TypeError, match=re.escape(expected)):
        list(Call(pairs, "f").rows([item], {}))


def test_rows_of_one_column_are_the_items():
    """``rows()`` of a function with one column returns the items, and refuses unknown options."""
    assert ["a", "b"] == list(Call(sync, "f").rows(["a", "b"], {}))
    with pytest.raises(TypeError, match="unexpected keyword argument 'top_k'"):
        list(Call(sync, "f").rows(["a", "b"], {"top_k": 3}))


# The signature.


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
def test_the_signature_is_that_of_the_one_item_form(fn, expected):
    """Columns have the type of one item, and the return annotation is the type of one result."""
    assert expected == signature(fn)


def test_the_signature_of_a_method_has_no_instance():
    """With ``bound=True``, the signature has no instance parameter."""
    assert "(texts: str) -> int" == signature(Model.embed, bound=True)


def element(annotation):
    """Return the annotation of one item for a column with ``annotation``."""

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
        (Annotated[list[str], "short"], str),
        ("Annotated[Texts, 'short']", str),
        (Texts, str),
        (Items[int], int),
    ],
)
def test_the_type_of_one_item_is_the_element_type(annotation, expected):
    """A list of X, or another iterable of X, has items of type X."""
    assert expected == element(annotation)


@pytest.mark.parametrize(
    ("returned", "expected"),
    [
        (list[int | ValueError], int),
        ("list[int | ValueError]", int),
        (list[Union[int, str, KeyError, Exception]], Union[int, str]),  # noqa: UP007  # the older spelling
        (list[Optional[int]], Optional[int]),  # noqa: UP045  # likewise
        (list[ValueError], ValueError),
        (list[ValueError | KeyError], ValueError | KeyError),
        (list[list[int] | ValueError], list[int]),
        (dict[str, int | ValueError], int),
        (Mapping[str, bytes], bytes),
        (Annotated[dict[str, bytes], "by name"], bytes),
        (Items[int | ValueError], int),
    ],
)
def test_the_type_of_a_result_excludes_exceptions(returned, expected):
    """An exception among the results is raised, so the return annotation does not show it."""

    def fn(items): ...

    fn.__annotations__ = {"return": returned}
    assert expected == Call(fn, "f").signature.return_annotation


def test_the_type_of_a_stream_excludes_exceptions_and_done():
    """A stream shows the type of its values, without exceptions and ``DONE``."""

    def fn(items):
        yield []

    fn.__annotations__ = {"return": Annotated[Iterator[Items[int | ValueError | Done]], "slow"]}

    assert Iterator[int] == Call(fn, "f").signature.return_annotation


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
        "unknown.Type",
        "unknown",
        "list[(lambda: unknown)()]",
        "1 / 0",
        "int('x')",
        "not python",
        8,
    ],
    ids=repr,
)
def test_an_annotation_without_an_element_type_is_omitted(annotation):
    """An annotation without one element type, or that can't be evaluated, is left out without an error."""
    assert EMPTY is element(annotation)


def test_names_remain_if_annotations_cannot_be_evaluated():
    """If annotations can't be evaluated, the signature still has the parameters and their names."""

    def fn(texts: list[unknown.Type], top_k: int = 10) -> unknown.Type: ...  # noqa: F821  # undefined on purpose

    assert "(texts, top_k: 'int' = 10)" == signature(fn)


def test_the_signature_can_bind_arguments():
    """The signature binds arguments as any ``inspect.Signature`` does."""
    assert {"texts": "a"} == Call(sync, "f").signature.bind("a").arguments


def test_inspection_does_not_change_the_function():
    """The signature of the batch function itself stays the same."""
    before = inspect.signature(sync)
    assert "(texts: str) -> int" == signature(sync)
    assert before == inspect.signature(sync)


def test_a_compiled_bound_method_takes_the_items_alone():
    """A bound method of a compiled object takes only the items, even if its signature begins with ``self``."""
    encode_batch = (
        pytest.importorskip("tokenizers").Tokenizer(pytest.importorskip("tokenizers.models").BPE()).encode_batch
    )
    call = Call(encode_batch, "encode_batch")
    assert ["input", "is_pretokenized", "add_special_tokens"] == list(call.signature.parameters)
    item = row(call, "text")
    assert "text" == item
