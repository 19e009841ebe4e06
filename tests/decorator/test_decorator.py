"""Decorated functions as Python objects: decoration, engines, introspection, copies, identity and calls.

Tests inspect the functions and the class of this module without calling them, because each test closes all batchers.
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
from wrapt import BaseObjectProxy

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
    """A class with a method of each kind."""

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
        """Multiply asynchronously."""
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


# Ways to write the decorator.

WAYS = {
    "@microbatch": microbatch,
    "@microbatch()": microbatch(),
    "@microbatch(max_size=2)": microbatch(max_size=2, timeout=3600),
    "microbatch(fn, max_size=2)": lambda fn: microbatch(fn, max_size=2, timeout=3600),
}


@pytest.mark.parametrize("way", WAYS)
async def test_every_way_to_decorate_gives_a_one_item_function(way):
    """However the decorator is written, the decorated ``def`` or ``async def`` function takes one item."""
    double, adouble = WAYS[way](doubled), WAYS[way](adoubled)
    assert [2, 4] == [future.result(PATIENCE) for future in [double.submit(1), double.submit(2)]]
    assert [2, 4] == list(await asyncio.gather(adouble(1), adouble(2)))


@pytest.mark.parametrize("way", [way for way in WAYS if "max_size" in way])
async def test_options_apply_in_every_way_to_decorate(way):
    """Options apply in every way to write the decorator."""
    adouble = WAYS[way](adoubled)
    assert [2, 4] == list(await asyncio.gather(adouble(1), adouble(2)))
    assert (1.0, 1) == (adouble.batch_stats.fill_ratio, adouble.batch_stats.reasons["full"])


def test_a_decorator_with_options_can_be_reused():
    """``microbatch(...)`` returns a decorator for any number of functions, each with its own batcher."""
    decorate = microbatch(max_size=2)
    double, echo = decorate(doubled), decorate(lambda items: items)
    assert [6, 3] == [double(3), echo(3)]
    assert [1, 1] == [double.batch_stats.total_items, echo.batch_stats.total_items]


def test_two_decorations_of_one_function_are_independent():
    """Two decorations of one function do not share batches, and the function itself does not change."""
    one, two = microbatch(doubled, name="one"), microbatch(doubled, name="two")
    assert [2, 4, [6]] == [one(1), two(2), doubled([3])]
    assert [("one", 1), ("two", 1)] == [(fn.batch_stats.name, fn.batch_stats.total_items) for fn in (one, two)]


def test_the_batch_function_can_be_called_directly():
    """``__wrapped__`` is the batch function; that of a method is bound to the instance."""
    assert doubled is microbatch(doubled).__wrapped__
    assert [1, 2] == tokenize.__wrapped__(["a", "bc"])
    assert [2, 4] == Model(2).scale.__wrapped__([1, 2])
    assert [3, 6] == Model.scale.__wrapped__(Model(3), [1, 2])
    assert [Model(1)] == Model.make.__wrapped__([1])
    assert [1] == Model.parse.__wrapped__(["1"])


# Choice of the engine.


class Caller:
    """A class with synchronous and asynchronous callables."""

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
    """Wrap a coroutine function."""
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
async def test_a_callable_that_returns_a_coroutine_runs_on_the_loop(form):
    """A callable that returns a coroutine uses the asyncio engine: its calls are awaited on their own loop."""
    before = batchers()
    double = microbatch(AWAITED[form])
    assert 6 == await double(3)
    assert [AsyncMicrobatcher] == [type(batcher) for batcher in batchers() if batcher not in before]


@pytest.mark.parametrize("form", CALLED)
def test_a_callable_that_returns_results_runs_in_a_thread(form):
    """A callable that returns its results uses the thread engine: its calls block."""
    before = batchers()
    double = microbatch(CALLED[form])
    assert 6 == double(3)
    assert [SyncMicrobatcher] == [type(batcher) for batcher in batchers() if batcher not in before]


# Introspection.


def typed(annotations):
    """Return a batch function with these annotations."""

    def fn(texts, top_k=10, *, scale=1.0, **more):
        return texts

    fn.__annotations__ = annotations
    return fn


TYPED = "(texts: str, top_k: int = 10, *, scale=1.0, **more) -> int"
# From Python 3.14 on, a signature shows the name itself.
UNKNOWN = "ForwardRef('unknown')" if sys.version_info < (3, 14) else "unknown"
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
    (
        microbatch(typed({"texts": "list[str]", "return": "list[unknown]"})),
        UNTYPED.replace("texts", "texts: str") + f" -> {UNKNOWN}",
    ),
    (microbatch(typed({"texts": "list[str]", "return": "unknown.Type"})), UNTYPED),
    (microbatch(typed({})), UNTYPED),
]


@pytest.mark.parametrize(("fn", "expected"), SIGNATURES, ids=range(len(SIGNATURES)))
def test_the_signature_is_that_of_the_one_item_form(fn, expected):
    """``inspect.signature`` shows the one-item form, with the types that are known, and without an instance."""
    assert expected == str(inspect.signature(fn))


@pytest.mark.parametrize("fn", [tokenize, Model.scale, Model(2).scale, Model.make, Model.parse])
def test_a_view_has_the_signature_of_its_function(fn):
    """``inspect.signature`` shows the same for ``fn.options(...)`` as for ``fn``."""
    assert inspect.signature(fn) == inspect.signature(fn.options(priority=1))


DEFERRED = """
class Node:
    @microbatch
    def children(self, nodes: list[Node]) -> list[Later]: ...

    @microbatch
    async def parents(self, nodes: list[Node], *, top_k: Later = None) -> list[Node]: ...
"""


def test_annotations_may_name_objects_that_are_not_defined_yet():
    """A method whose annotations name its own class can be decorated, and its signature is evaluated later."""
    # From Python 3.14 on, all annotations are evaluated later; this import keeps them as strings.
    flags = annotations.compiler_flag if sys.version_info < (3, 14) else 0
    module = {"microbatch": microbatch, "__name__": __name__}
    exec(compile(DEFERRED, __file__, "exec", flags, dont_inherit=True), module)  # noqa: S102  # our own text
    node = module["Node"]
    assert node is inspect.signature(node().children).parameters["nodes"].annotation
    with pytest.raises(NameError):
        typing.get_type_hints(node().children)
    module["Later"] = int
    assert {"nodes": node, "return": int} == typing.get_type_hints(node().children)
    evaluated = inspect.signature(node().parents)
    assert [node, int] == [parameter.annotation for parameter in evaluated.parameters.values()]
    assert node is evaluated.return_annotation


def test_the_signature_of_a_class_method_has_no_class():
    """The signature of a class method has no class parameter, in either order of the decorators."""

    class Kind:
        @classmethod
        @microbatch
        def below(cls, numbers: list[int]) -> list[int]: ...

    assert ["(numbers: int) -> int"] * 2 == [str(inspect.signature(owner.below)) for owner in (Kind, Kind())]
    signature = inspect.signature(Model.make)
    assert [("factors", int)] == [(each.name, each.annotation) for each in signature.parameters.values()]
    assert Model is signature.return_annotation


@pytest.mark.parametrize("fn", [tokenize, Model(2).scale, Model.make, Model.parse])
def test_the_signature_binds_one_item(fn):
    """The signature binds one item, by position and by name."""
    signature = inspect.signature(fn)
    (name,) = signature.parameters
    assert signature.bind("a") == signature.bind(**{name: "a"})
    assert Parameter.POSITIONAL_OR_KEYWORD is signature.parameters[name].kind


@pytest.mark.parametrize("fn", [tokenize, embed, Model.scale, Model(2).scale, Model(2).ascale, Model.make, Model.parse])
def test_names_and_documentation_are_kept(fn):
    """Name, qualified name, documentation and module are those of the batch function."""
    batch_fn = fn.__wrapped__
    for attribute in ("__name__", "__qualname__", "__doc__", "__module__"):
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
def test_inspection_gives_the_kind_of_the_batch_function(fn, kinds):
    """``inspect`` and ``asyncio`` classify a decorated function like its batch function."""
    results = {kind: kind(fn) for kind in KINDS}
    assert {kind: kind.__name__ in kinds for kind in KINDS} == results


def test_a_bound_method_has_its_instance_and_function():
    """``__self__`` is the instance and ``__func__`` the decorated function, as for any method."""
    model = Model(2)
    assert model is model.scale.__self__
    assert Model.scale is model.scale.__func__
    assert Model is Model.make.__self__


def test_functools_wraps_keeps_the_one_item_signature():
    """``functools.wraps`` around a decorated function keeps its name and its one-item signature."""

    @functools.wraps(tokenize)
    def logged(*args):
        return tokenize(*args)

    assert ("tokenize", "(texts: str) -> int") == (logged.__name__, str(inspect.signature(logged)))
    assert tokenize is logged.__wrapped__
    assert tokenize.__wrapped__ is inspect.unwrap(logged)


HINTED = [tokenize, embed, Model.scale, Model(2).scale, Model(2).ascale, Model.make, Model.parse]


@pytest.mark.parametrize("fn", [*HINTED, *(fn.options(priority=1) for fn in HINTED)])
def test_annotations_and_type_hints_are_those_of_the_signature(fn):
    """``__annotations__`` and ``typing.get_type_hints`` give the types of one item and its result."""
    signature = inspect.signature(fn)
    (parameter,) = (each for name, each in signature.parameters.items() if name != "self")
    expected = {parameter.name: parameter.annotation, "return": signature.return_annotation}
    assert expected == fn.__annotations__ == typing.get_type_hints(fn)


def test_the_annotations_of_the_batch_function_stay():
    """The batch function itself keeps its annotations."""
    assert {"texts": list[str], "return": list[int]} == typing.get_type_hints(tokenize.__wrapped__)


def test_functools_wraps_keeps_the_one_item_annotations():
    """``functools.wraps`` around a decorated function copies the annotations of its one-item form."""
    logged = functools.wraps(tokenize)(lambda *args: tokenize(*args))
    assert {"texts": str, "return": int} == typing.get_type_hints(logged)
    assert {"texts": str, "return": int} == tokenize.__annotate__(1)


def scaler():
    """Return an instance of a new class with two methods."""

    class Scaler:
        @microbatch
        def scale(self, numbers: list[int]) -> list[int]:
            return [number * 2 for number in numbers]

        @microbatch
        async def ascale(self, numbers: list[int]) -> list[int]:
            return [number * 2 for number in numbers]

    return Scaler()


def test_pydantic_validates_one_item():
    """``pydantic.validate_call`` converts one item, also for methods, views and ``async def`` functions."""
    validate_call = pytest.importorskip("pydantic").validate_call
    model = scaler()
    for fn in (model.scale, model.scale.options(priority=1)):
        assert 6 == validate_call(fn)("3")
        with pytest.raises(ValueError, match="valid integer"):
            validate_call(fn)(["3"])
    assert asyncio.iscoroutinefunction(validate_call(model.ascale))
    assert 6 == asyncio.run(validate_call(model.ascale)("3"))


def test_fastapi_takes_one_item():
    """A decorated function is a route and a dependency of FastAPI: its item and options are parameters of the query."""
    fastapi = pytest.importorskip("fastapi")
    app = fastapi.FastAPI()

    @microbatch
    def scale(numbers: list[int], *, factor: int = 2) -> list[int | ValueError]:
        return [number * factor for number in numbers]

    @app.get("/depends")
    async def depends(scaled: int = fastapi.Depends(scaler().ascale)):  # as FastAPI asks for it
        return scaled

    app.get("/scale")(scale)
    paths = app.openapi()["paths"]
    schemas = {
        path: [(each["name"], each["schema"]["type"], each["required"]) for each in paths[path]["get"]["parameters"]]
        for path in paths
    }
    assert {
        "/depends": [("numbers", "integer", True)],
        "/scale": [("numbers", "integer", True), ("factor", "integer", False)],
    } == schemas
    client = pytest.importorskip("fastapi.testclient").TestClient(app)
    assert 6 == client.get("/scale", params={"numbers": 3}).json()
    assert 6 == client.get("/depends", params={"numbers": 3}).json()


def test_attributes_are_those_of_the_batch_function():
    """An attribute set on a decorated function is set on its batch function too."""
    double = microbatch(lambda items: items * 2)
    double.tag = "slow"
    assert ("slow", {"tag": "slow"}) == (double.__wrapped__.tag, vars(double))
    with pytest.raises(AttributeError):
        _ = double.unknown


def test_the_representation_has_the_name():
    """The representation of a decorated function or bound method has its name, and no instance."""
    assert "<microbatch tokenize>" == repr(tokenize) == str(tokenize)
    assert "<microbatch Model.scale>" == repr(Model.scale) == repr(Model(2).scale)
    assert "<microbatch letters>" == repr(microbatch(tokenize.__wrapped__, name="letters"))


# Copies.


def copies(fn):
    """Return the shallow and deep copies of ``fn``, and its copies through every pickle protocol."""
    pickled = [pickle.dumps(fn, protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
    return [copy.copy(fn), copy.deepcopy(fn), *map(pickle.loads, pickled)]


@pytest.mark.parametrize("fn", [tokenize, embed, Model.scale, Model.ascale, Model.parse])
def test_a_function_is_copied_by_reference(fn):
    """A copy of a decorated function, also through pickle, is the function itself."""
    assert all(copied is fn for copied in copies(fn))


def test_a_class_method_is_copied_by_reference():
    """A copy of a decorated class method is equal to it and bound to the same class."""
    assert [(Model, Model.scale.__class__)] * len(copies(0)) == [
        (copied.__self__, copied.__func__.__class__) for copied in copies(Model.make)
    ]
    assert all(copied == Model.make for copied in copies(Model.make))


def test_a_bound_method_is_copied_with_its_instance():
    """A copied or pickled method is bound to an equal instance, and can be called."""
    model = Model(2)
    for copied in copies(model.scale):
        assert (Model.scale, model, 6) == (copied.__func__, copied.__self__, copied(3))
    assert model is copy.copy(model.scale).__self__


@pytest.mark.parametrize("fn", [microbatch(lambda items: items), microbatch(tokenize.__wrapped__)])
def test_a_function_without_a_global_name_is_not_pickled(fn):
    """A function that is not a global of its module can't be pickled, as without the decorator."""
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(fn)


# Identity.


def test_functions_compare_by_identity():
    """A decorated function is hashable, equal to itself, and different from other functions."""
    functions = {tokenize: 1, embed: 2, Model.scale: 3}
    assert [1, 2, 3] == [functions[fn] for fn in (tokenize, embed, Model.scale)]
    assert tokenize != embed
    assert tokenize.__wrapped__ in functions


@pytest.mark.parametrize("fn", [tokenize, Model.scale, Model.make])
def test_views_compare_by_identity(fn):
    """A view is equal to itself and to a proxy of it, but not to its function or to another view."""
    view = fn.options(deadline=1)
    for same in view, BaseObjectProxy(view):
        assert (True, True) == (view == same, same == view)
        assert (False, False) == (view != same, same != view)
        assert hash(view) == hash(same)
    for other in fn, fn.__wrapped__, fn.options(deadline=1), *copies(view)[1:]:
        assert (False, False) == (view == other, other == view)
        assert (True, True) == (view != other, other != view)
        assert 2 == len({view, other})


def test_bound_methods_are_equal_if_their_instance_is_the_same():
    """Methods of one instance are equal, even if it has no hash; those of two equal instances differ."""
    one, two = Model(2), Model(2)
    assert one.scale == one.scale
    assert hash(one.scale) == hash(one.scale)
    assert one.scale != two.scale
    assert one.scale != one.ascale
    assert 2 == len({one.scale, one.scale, two.scale})


def test_a_decorated_function_supports_weak_references():
    """A decorated function supports weak references, and is collected after its last strong one."""
    double = microbatch(lambda items: items * 2)
    dead = weakref.ref(double)
    assert dead() is double
    del double
    gc.collect()
    assert dead() is None


# Calls.


def test_the_item_is_given_by_position_or_by_name():
    """A call, ``submit`` and ``acall`` take the item by position or by name."""
    double = microbatch(doubled)
    assert [2, 2] == [double(1), double(items=1)]
    assert [2, 2] == [double.submit(items=1).result(PATIENCE), asyncio.run(double.acall(items=1))]
    assert [6, 6] == [Model(2).scale(3), Model(2).scale(numbers=3)]


async def test_the_item_of_an_async_function_is_given_by_position_or_by_name():
    """A call, ``submit`` and ``acall`` of an async function take the item by position or by name."""
    double = microbatch(adoubled)
    assert [2, 2] == [await double(1), await double(items=1)]
    assert [2, 2] == [await double.submit(items=1), await double.acall(items=1)]


# Decoration.


def test_decoration_creates_no_thread_lock_or_loop(monkeypatch):
    """Decoration and inspection create no thread, no lock and no event loop."""

    def fail(*args, **kwargs):
        raise AssertionError

    costly = [threading.Thread, threading.Lock, threading.RLock, threading.Condition, asyncio.new_event_loop]
    for name, module in list(sys.modules.items()):
        if name in ("threading", "asyncio") or name.partition(".")[0] == "batchify":
            for attribute, value in list(vars(module).items()):
                if any(value is each for each in costly):
                    monkeypatch.setattr(module, attribute, fail)

    class Kind:
        @microbatch
        def method(self, items): ...

        @microbatch
        async def amethod(self, items): ...

    for fn in (microbatch(doubled), microbatch(adoubled), Kind.method, Kind().method, Kind().amethod):
        assert inspect.signature(fn) is not None
