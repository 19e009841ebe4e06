"""The decorated function as Python sees it: how it is made, called, looked at, copied and compared.

What the functions and the class of this module offer is looked at but not called, since a test ends with all closed.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import gc
import inspect
import pickle
import sys
import threading
import typing
import weakref
from functools import partial
from inspect import Parameter

import pytest

from batchify import AsyncMicrobatcher, SyncMicrobatcher, batchers, microbatch
from tests.kit.engines import PATIENCE, adoubled, doubled


@microbatch
def tokenize(texts: list[str]) -> list[int]:
    """Count the letters."""
    return [len(text) for text in texts]


@microbatch
async def embed(texts: list[str]) -> list[float]:
    """Weigh the letters."""
    return [len(text) / 2 for text in texts]


class Model:
    """Has a method of each kind."""

    def __init__(self, factor):
        self.factor = factor

    def __eq__(self, other):
        return self.factor == other.factor

    __hash__ = None

    @microbatch
    def scale(self, numbers: list[int]) -> list[int]:
        """Multiply."""
        return [number * self.factor for number in numbers]

    @microbatch
    async def ascale(self, numbers: list[int]) -> list[int]:
        """Multiply, and be awaited."""
        return [number * self.factor for number in numbers]

    @microbatch
    @classmethod
    def make(cls, factors: list[int]) -> list[Model]:
        """Make models."""
        return [cls(factor) for factor in factors]

    @microbatch
    @staticmethod
    def parse(texts: list[str]) -> list[int]:
        """Read numbers."""
        return [int(text) for text in texts]


# Four ways to write it.

WAYS = {
    "@microbatch": microbatch,
    "@microbatch()": microbatch(),
    "@microbatch(max_size=2)": microbatch(max_size=2, timeout=3600),
    "microbatch(fn, max_size=2)": lambda fn: microbatch(fn, max_size=2, timeout=3600),
}


@pytest.mark.parametrize("way", WAYS)
async def test_ways_to_decorate(way):
    """However it is written, with a ``def`` or an ``async def`` function, the result takes one item."""
    double, adouble = WAYS[way](doubled), WAYS[way](adoubled)
    assert [2, 4] == [future.result(PATIENCE) for future in [double.submit(1), double.submit(2)]]
    assert [2, 4] == list(await asyncio.gather(adouble(1), adouble(2)))


@pytest.mark.parametrize("way", [way for way in WAYS if "max_size" in way])
async def test_options_are_heeded(way):
    """Options arrive where they belong, whichever way they are given."""
    adouble = WAYS[way](adoubled)
    assert [2, 4] == list(await asyncio.gather(adouble(1), adouble(2)))
    assert (1.0, 1) == (adouble.batch_stats.fill_ratio, adouble.batch_stats.reasons["full"])


def test_options_can_be_used_again():
    """What ``microbatch(...)`` returns decorates any number of functions, each with a batcher of its own."""
    decorate = microbatch(max_size=2)
    double, echo = decorate(doubled), decorate(lambda items: items)
    assert [6, 3] == [double(3), echo(3)]
    assert [1, 1] == [double.batch_stats.total_items, echo.batch_stats.total_items]


def test_the_same_function_twice():
    """Two decorations of one function do not share batches, and the function itself stays as it was."""
    one, two = microbatch(doubled, name="one"), microbatch(doubled, name="two")
    assert [2, 4, [6]] == [one(1), two(2), doubled([3])]
    assert [("one", 1), ("two", 1)] == [(fn.batch_stats.name, fn.batch_stats.total_items) for fn in (one, two)]


def test_the_batch_function_can_be_called_directly():
    """``__wrapped__`` is the batch function itself; of a method, bound to its instance."""
    assert doubled is microbatch(doubled).__wrapped__
    assert [1, 2] == tokenize.__wrapped__(["a", "bc"])
    assert [2, 4] == Model(2).scale.__wrapped__([1, 2])
    assert [3, 6] == Model.scale.__wrapped__(Model(3), [1, 2])
    assert [Model(1)] == Model.make.__wrapped__([1])
    assert [1] == Model.parse.__wrapped__(["1"])


# Which engine.


class Caller:
    """Can be called and awaited in many ways."""

    def __call__(self, items):
        return doubled(items)

    async def awaited(self, items):
        return doubled(items)

    @staticmethod
    async def plain(items):
        return doubled(items)

    @classmethod
    async def of_class(cls, items):
        return doubled(items)


class AsyncCaller:
    async def __call__(self, items):
        return doubled(items)


@functools.wraps(adoubled)
async def wrapper(*args):
    """Look like what it wraps."""
    return await adoubled(*args)


AWAITED = {
    "function": adoubled,
    "partial": partial(adoubled),
    "partial of a partial": partial(partial(adoubled)),
    "object": AsyncCaller(),
    "bound method": Caller().awaited,
    "bound method of __call__": AsyncCaller().__call__,
    "static method": Caller.plain,
    "class method": Caller.of_class,
    "wrapped function": wrapper,
    "raw static method": staticmethod(adoubled),
}
CALLED = {
    "function": doubled,
    "partial": partial(doubled),
    "object": Caller(),
    "bound method": Caller().__call__,
    "raw static method": staticmethod(doubled),
}


@pytest.mark.parametrize("form", AWAITED)
async def test_what_is_awaited_runs_on_the_loop(form):
    """Whatever returns a coroutine gets the asyncio engine: its calls are awaited and run where they are."""
    before = batchers()
    double = microbatch(AWAITED[form])
    assert 6 == await double(3)
    assert [AsyncMicrobatcher] == [type(batcher) for batcher in batchers() if batcher not in before]


@pytest.mark.parametrize("form", CALLED)
def test_what_returns_runs_on_a_thread(form):
    """Whatever returns its results gets the thread engine: its calls block."""
    before = batchers()
    double = microbatch(CALLED[form])
    assert 6 == double(3)
    assert [SyncMicrobatcher] == [type(batcher) for batcher in batchers() if batcher not in before]


# What it looks like.


def typed(annotations):
    """Return a batch function with these annotations."""

    def fn(texts, top_k=10, *, scale=1.0, **more):
        return texts

    fn.__annotations__ = annotations
    return fn


TYPED = "(texts: str, top_k: int = 10, *, scale=1.0, **more) -> int"
UNTYPED = "(texts, top_k=10, *, scale=1.0, **more)"
SIGNATURES = [
    (tokenize, "(texts: str) -> int"),
    (embed, "(texts: str) -> float"),
    (Model.scale, "(self, numbers: int) -> int"),
    (Model(2).scale, "(numbers: int) -> int"),
    (Model(2).ascale, "(numbers: int) -> int"),
    (Model.parse, "(texts: str) -> int"),
    (Model(2).parse, "(texts: str) -> int"),
    (microbatch(partial(lambda factor, items: items, 2)), "(items)"),
    (microbatch(Caller()), "(items)"),
    (microbatch(Model(2).scale.__wrapped__), "(numbers: int) -> int"),
    (microbatch(max), "(items, /)"),
    (microbatch(typed({"texts": list[str], "top_k": int, "return": tuple[int, ...]})), TYPED),
    (microbatch(typed({"texts": "list[str]", "return": "list[unheard_of]"})), UNTYPED),
    (microbatch(typed({})), UNTYPED),
]


@pytest.mark.parametrize(("fn", "expected"), SIGNATURES, ids=range(len(SIGNATURES)))
def test_the_signature_is_that_of_one_item(fn, expected):
    """``inspect.signature`` shows the one-item form, with types where they are known, and without an instance."""
    assert expected == str(inspect.signature(fn))


def test_the_signature_of_a_class_method():
    """A class method shows no class, whichever decorator is above and whichever way it is reached."""

    class Kind:
        @classmethod
        @microbatch
        def below(cls, numbers: list[int]) -> list[int]: ...

    assert ["(numbers: int) -> int"] * 2 == [str(inspect.signature(owner.below)) for owner in (Kind, Kind())]
    signature = inspect.signature(Model.make)
    assert [("factors", int)] == [(each.name, each.annotation) for each in signature.parameters.values()]
    assert Model is signature.return_annotation


@pytest.mark.parametrize("fn", [tokenize, Model(2).scale, Model.make, Model.parse])
def test_the_signature_takes_what_the_function_takes(fn):
    """The signature binds one item, by position and by name."""
    signature = inspect.signature(fn)
    (name,) = signature.parameters
    assert signature.bind("a") == signature.bind(**{name: "a"})
    assert Parameter.POSITIONAL_OR_KEYWORD is signature.parameters[name].kind


@pytest.mark.parametrize("fn", [tokenize, embed, Model.scale, Model(2).scale, Model(2).ascale, Model.make, Model.parse])
def test_names_and_documentation_are_kept(fn):
    """Name, qualified name, documentation and module are those of the batch function."""
    batch_fn = fn.__wrapped__
    for attribute in ("__name__", "__qualname__", "__doc__", "__module__", "__annotations__"):
        assert getattr(batch_fn, attribute) == getattr(fn, attribute)
    assert __name__ == fn.__module__
    assert fn.__doc__ in inspect.getdoc(fn)


KINDS = (
    inspect.iscoroutinefunction,
    asyncio.iscoroutinefunction,
    inspect.isgeneratorfunction,
    inspect.isasyncgenfunction,
    inspect.isfunction,
    inspect.ismethod,
    callable,
)


@pytest.mark.filterwarnings("ignore:'asyncio.iscoroutinefunction' is deprecated:DeprecationWarning")
@pytest.mark.parametrize(
    ("fn", "kinds"),
    [
        (tokenize, {"isfunction", "callable"}),
        (embed, {"iscoroutinefunction", "isfunction", "callable"}),
        (Model.scale, {"isfunction", "callable"}),
        (Model.ascale, {"iscoroutinefunction", "isfunction", "callable"}),
        (Model(2).scale, {"ismethod", "callable"}),
        (Model(2).ascale, {"iscoroutinefunction", "ismethod", "callable"}),
        (Model.make, {"ismethod", "callable"}),
        (Model.parse, {"isfunction", "callable"}),
        (microbatch(Caller()), {"callable"}),
        (microbatch(Caller().awaited), {"iscoroutinefunction", "ismethod", "callable"}),
        (microbatch(partial(adoubled)), {"iscoroutinefunction", "callable"}),
    ],
)
def test_kinds(fn, kinds):
    """``inspect`` and ``asyncio`` tell of a decorated function what they tell of the batch function."""
    told = {kind: kind(fn) for kind in KINDS}
    assert {kind: kind.__name__ in kinds for kind in KINDS} == told


def test_a_bound_method_tells_what_it_is_bound_to():
    """``__self__`` is the instance and ``__func__`` the decorated function, as of any method."""
    model = Model(2)
    assert model is model.scale.__self__
    assert Model.scale is model.scale.__func__
    assert Model is Model.make.__self__


def test_a_wrapper_looks_like_what_it_wraps():
    """``functools.wraps`` on top of a decorated function keeps its name and its one-item signature."""

    @functools.wraps(tokenize)
    def logged(*args):
        return tokenize(*args)

    assert ("tokenize", "(texts: str) -> int") == (logged.__name__, str(inspect.signature(logged)))
    assert tokenize is logged.__wrapped__
    assert tokenize.__wrapped__ is inspect.unwrap(logged)


def test_type_hints_are_those_of_the_batch_function():
    """``typing.get_type_hints`` tells of a decorated function what it tells of the batch function."""
    for fn in (tokenize, embed, Model.scale, Model(2).scale):
        assert typing.get_type_hints(fn.__wrapped__) == typing.get_type_hints(fn)
    assert {"texts": list[str], "return": list[int]} == typing.get_type_hints(tokenize)


def test_attributes_are_those_of_the_batch_function():
    """Attributes that others set on a function are found on it and on the batch function."""
    double = microbatch(lambda items: items * 2)
    double.tag = "slow"
    assert ("slow", {"tag": "slow"}) == (double.__wrapped__.tag, vars(double))
    with pytest.raises(AttributeError):
        _ = double.unheard_of


def test_it_shows_itself():
    """A decorated function and a bound method show what they are by name, and no instance with it."""
    assert "<microbatch tokenize>" == repr(tokenize) == str(tokenize)
    assert "<microbatch Model.scale>" == repr(Model.scale) == repr(Model(2).scale)
    assert "<microbatch letters>" == repr(microbatch(tokenize.__wrapped__, name="letters"))


# Copies.


def copies(thing):
    """Return ``thing`` copied and pickled in every way there is."""
    pickled = [pickle.dumps(thing, protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
    return [copy.copy(thing), copy.deepcopy(thing), *map(pickle.loads, pickled)]


@pytest.mark.parametrize("fn", [tokenize, embed, Model.scale, Model.ascale, Model.parse])
def test_a_function_is_copied_by_reference(fn):
    """A copy of a decorated function, also a pickled one, is the function itself."""
    assert all(twin is fn for twin in copies(fn))


def test_a_class_method_is_copied_by_reference():
    """A copy of a decorated class method is that of the same class."""
    assert [(Model, Model.scale.__class__)] * len(copies(0)) == [
        (twin.__self__, twin.__func__.__class__) for twin in copies(Model.make)
    ]
    assert all(twin == Model.make for twin in copies(Model.make))


def test_a_bound_method_is_copied_with_its_instance():
    """A pickled method comes back bound to an equal instance, and works."""
    model = Model(2)
    for twin in copies(model.scale):
        assert (Model.scale, model, 6) == (twin.__func__, twin.__self__, twin(3))
    assert model is copy.copy(model.scale).__self__


@pytest.mark.parametrize("fn", [microbatch(lambda items: items), microbatch(tokenize.__wrapped__)])
def test_what_has_no_name_of_its_own_is_not_pickled(fn):
    """A function that its module does not know by name can't be pickled, as without the decorator."""
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(fn)


# Identity.


def test_functions_are_equal_to_themselves():
    """A decorated function can be a key, is equal to itself, and differs from others."""
    functions = {tokenize: 1, embed: 2, Model.scale: 3}
    assert [1, 2, 3] == [functions[fn] for fn in (tokenize, embed, Model.scale)]
    assert tokenize != embed
    assert tokenize.__wrapped__ in functions


def test_bound_methods_are_equal_if_their_instance_is_the_same():
    """Methods of one instance are equal and hash alike, also if it has no hash; those of equal instances differ."""
    one, two = Model(2), Model(2)
    assert one.scale == one.scale
    assert hash(one.scale) == hash(one.scale)
    assert one.scale != two.scale
    assert one.scale != one.ascale
    assert 2 == len({one.scale, one.scale, two.scale})


def test_it_can_be_held_weakly():
    """A decorated function can be the target of a weak reference, and goes when nobody holds it."""
    double = microbatch(lambda items: items * 2)
    dead = weakref.ref(double)
    assert dead() is double
    del double
    gc.collect()
    assert dead() is None


# Calls.


def test_calls_by_position_and_by_name():
    """The item is given by position or by name, to each member that takes one."""
    double = microbatch(doubled)
    assert [2, 2] == [double(1), double(items=1)]
    assert [2, 2] == [double.submit(items=1).result(PATIENCE), asyncio.run(double.acall(items=1))]
    assert [6, 6] == [Model(2).scale(3), Model(2).scale(numbers=3)]


async def test_calls_of_async_functions_by_position_and_by_name():
    """The item is given by position or by name, to each member that takes one."""
    double = microbatch(adoubled)
    assert [2, 2] == [await double(1), await double(items=1)]
    assert [2, 2] == [await double.submit(items=1), await double.acall(items=1)]


# Decoration.


def test_decoration_makes_nothing(monkeypatch):
    """To decorate makes no thread, no lock and no event loop, and neither does looking at what was decorated."""

    def made(*args, **kwargs):
        raise AssertionError

    costly = [threading.Thread, threading.Lock, threading.RLock, threading.Condition, asyncio.new_event_loop]
    for name, module in list(sys.modules.items()):
        if name in ("threading", "asyncio") or name.partition(".")[0] == "batchify":
            for attribute, value in list(vars(module).items()):
                if any(value is each for each in costly):
                    monkeypatch.setattr(module, attribute, made)

    class Kind:
        @microbatch
        def method(self, items): ...

        @microbatch
        async def amethod(self, items): ...

    for fn in (microbatch(doubled), microbatch(adoubled), Kind.method, Kind().method, Kind().amethod):
        assert inspect.signature(fn) is not None
