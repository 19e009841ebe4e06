"""The batcher of each call: that of the function, or that of the instance or class of a bound method.

The effects of a decorated method on its instance, of which there should be none, are tested in ``test_instances.py``.
"""

from __future__ import annotations

import asyncio
import functools
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import batchify
from batchify import BatcherClosedError, microbatch
from tests.kit.engines import PATIENCE, doubled

# Before Python 3.13, a classmethod passes on the members of a decorated function below it.
CHAINED = sys.version_info < (3, 13)


class Scaler:
    """A class without decorated methods."""

    def __init__(self, factor=2):
        self.factor = factor

    def scale(self, items):
        return [item * self.factor for item in items]

    __call__ = scale

    @classmethod
    def double(cls, items):
        return cls(2).scale(items)

    @staticmethod
    def plain(items):
        return doubled(items)


def scaled(factor, items):
    return [item * factor for item in items]


def owner_of(items, owner):
    return [(owner, item) for item in items]


@pytest.fixture
def kind():
    """Return a class with decorated methods of every kind; each returns its instance or class with the item."""

    class Kind:
        @microbatch
        def method(self, items):
            return owner_of(items, self)

        @microbatch
        async def amethod(self, items):
            return owner_of(items, self)

        @microbatch
        @classmethod
        def above_class(cls, items):
            return owner_of(items, cls)

        @classmethod
        @microbatch
        def below_class(cls, items):
            return owner_of(items, cls)

        @microbatch
        @classmethod
        async def async_above_class(cls, items):
            return owner_of(items, cls)

        @classmethod
        @microbatch
        async def async_below_class(cls, items):
            return owner_of(items, cls)

        @microbatch
        @staticmethod
        def above_static(items):
            return owner_of(items, None)

        @staticmethod
        @microbatch
        def below_static(items):
            return owner_of(items, None)

    return Kind


CLASS_METHODS = ["above_class", "below_class"]
STATIC_METHODS = ["above_static", "below_static"]


def total(fn):
    """Return the number of items in the batches of ``fn``."""
    return fn.batch_stats.total_items


@pytest.fixture
def made():
    """Return a function that lists the batchers made since the start of the test."""
    before = batchify.batchers()
    return lambda: [batcher for batcher in batchify.batchers() if batcher not in before]


# Callables that can be decorated.

FORMS = {
    "function": doubled,
    "lambda": lambda items: [item * 2 for item in items],
    "callable object": Scaler(),
    "partial": functools.partial(scaled, 2),
    "bound method": Scaler().scale,
    "bound class method": Scaler.double,
    "static method": Scaler.plain,
}


@pytest.mark.parametrize("form", FORMS)
def test_any_callable_of_a_list_can_be_decorated(form):
    """Any callable that takes a list of items can be decorated and called with one item."""
    assert 6 == microbatch(FORMS[form])(3)


def test_a_partial_may_give_an_argument_by_name():
    """An argument that a partial gives by name is no column, and later parameters are given by name."""
    assert 6 == microbatch(functools.partial(lambda items, factor: scaled(factor, items), factor=2))(3)


def test_a_builtin_without_a_signature_takes_items_by_position():
    """A builtin function without a signature is called with a list by position."""
    # The maximum of a list that contains only the item [7] is that item, a list with one result.
    assert 7 == microbatch(max)([7])


def test_a_bound_method_of_a_plain_object_uses_its_state():
    """A decorated bound method runs on its own object, and two objects do not share batches."""
    double, triple = microbatch(Scaler(2).scale), microbatch(Scaler(3).scale)
    assert [8, 12] == [double(4), triple(4)]
    assert [1, 1] == [total(double), total(triple)]


@pytest.mark.parametrize("form", ["callable object", "bound method", "bound class method"])
def test_a_callable_that_is_no_function_does_not_become_a_method(form):
    """A callable object or bound method as a class attribute is not bound to instances, as without the decorator."""

    class Kind:
        double = microbatch(FORMS[form])

    assert [6, 8] == [Kind().double(3), Kind.double(4)]
    assert 2 == total(Kind.double)


def test_a_builtin_does_not_become_a_method():
    """A builtin function as a class attribute is not bound to instances, as without the decorator."""

    class Kind:
        first = microbatch(max)

    assert 7 == Kind().first([7])


def test_the_call_operator_can_be_decorated(kind):
    """An object whose ``__call__`` is decorated is called with one item."""
    kind.__call__ = kind.method
    one = kind()
    assert (one, 1) == one(1)
    assert 1 == total(one.method)


# The instance or class of a call.


def test_a_method_runs_on_its_instance(kind):
    """A method runs on its own instance, and has separate statistics for each instance."""
    one, two = kind(), kind()
    assert [(one, 1), (two, 2), (two, 3)] == [one.method(1), two.method(2), two.method(3)]
    assert [1, 2, 3] == [total(one.method), total(two.method), total(kind.method)]


async def test_an_async_method_runs_on_its_instance(kind):
    """An async method runs on its own instance, and has separate statistics for each instance."""
    one, two = kind(), kind()
    assert [(one, 1), (two, 2)] == list(await asyncio.gather(one.amethod(1), two.amethod(2)))
    assert [1, 1, 2] == [total(one.amethod), total(two.amethod), total(kind.amethod)]


def test_submit_and_acall_of_a_class_take_the_instance():
    """``Class.method.submit`` and ``Class.method.acall`` take the instance first, as a call does."""

    class Model:
        @microbatch
        def owner(self, items):
            return [(self, item) for item in items]

    one = Model()
    assert (one, 1) == Model.owner.submit(one, 1).result(PATIENCE)
    assert (one, 2) == asyncio.run(Model.owner.acall(one, 2))


@pytest.mark.parametrize("order", ["above", "below"])
def test_a_static_method_may_take_instances_as_items(order):
    """A static method may take instances of its own class as items of several columns."""

    class Point(int):
        @microbatch if order == "above" else staticmethod
        @staticmethod if order == "above" else microbatch
        def distance(ones, others):  # noqa: N805  # a static method in either order
            return [abs(one - other) for one, other in zip(ones, others, strict=True)]

    assert [4, 4] == [Point.distance(Point(1), Point(5)), Point(0).distance(Point(1), Point(5))]


@pytest.mark.parametrize("call", [lambda fn, *args: fn(*args), lambda fn, one, item: fn(one, items=item)])
def test_a_method_can_be_called_on_its_class(kind, call, made):
    """``Class.method(instance, item)`` is ``instance.method(item)``, and uses the same batcher."""
    one = kind()
    assert [(one, 1), (one, 2)] == [call(kind.method, one, 1), call(kind.method, one, 2)]
    assert 2 == total(one.method)
    assert 1 == len(made())


def test_a_view_of_a_method_can_be_called_on_its_class(kind):
    """``Class.method.options(...)(instance, item)`` is ``instance.method.options(...)(item)``."""
    one = kind()
    urgent = kind.method.options(priority=1)
    assert (one, 1) == urgent(one, 1)
    assert (one, 2) == urgent.submit(one, 2).result(PATIENCE)
    assert 2 == total(one.method)


async def test_an_async_method_can_be_called_on_its_class(kind):
    """``await Class.method(instance, item)`` is ``await instance.method(item)``."""
    one = kind()
    assert (one, 1) == await kind.amethod(one, 1)
    assert 1 == total(one.amethod)


def test_an_inherited_method_counts_for_its_defining_class(kind):
    """An instance of a subclass has its own batches, and counts for the class that defines the method."""

    class Heir(kind):
        pass

    heir, other = Heir(), kind()
    assert [(heir, 1), (other, 2)] == [heir.method(1), other.method(2)]
    assert (heir, 3) == Heir.method(heir, 3)
    assert [2, 1, 3] == [total(heir.method), total(other.method), total(Heir.method)]
    assert Heir.method is kind.method


@pytest.mark.parametrize("through", [lambda kind, heir: super(kind, heir).method, lambda kind, heir: heir.inherited])
def test_an_overriding_method_does_not_share_batches_with_the_inherited_one(kind, through):
    """A method that overrides another does not share batches with it, however the two are called."""

    class Heir(kind):
        @microbatch
        def method(self, items):
            return [self.inherited(item) for item in items]

        def inherited(self, item):
            return super().method(item)

    heir = Heir()
    assert (heir, 1) == heir.method(1)
    assert (heir, 2) == through(Heir, heir)(2)
    assert (heir, 3) == kind.method(heir, 3)
    assert [1, 3] == [total(Heir.method), total(kind.method)]


@pytest.mark.parametrize("name", CLASS_METHODS)
def test_a_class_method_runs_on_the_class_of_the_call(kind, name, made):
    """A class method runs on the class it is called on, also through an instance, in either decorator order."""
    heir = type("Heir", (kind,), {})
    assert (kind, 1) == getattr(kind, name)(1)
    assert (kind, 2) == getattr(kind(), name)(2)
    assert (heir, 3) == getattr(heir, name)(3)
    assert (heir, 4) == getattr(heir(), name)(items=4)
    assert 2 == len(made())


@pytest.mark.parametrize("name", CLASS_METHODS if CHAINED else ["above_class"])
def test_each_class_has_its_own_batcher_of_a_class_method(kind, name):
    """Statistics and other members of a class method act on the class they are read from."""
    heir = type("Heir", (kind,), {})
    assert (kind, 1) == getattr(kind, name).submit(1).result(PATIENCE)
    assert [(heir, 2), (heir, 3)] == getattr(heir, name).map([2, 3])
    assert [1, 2] == [total(getattr(kind, name)), total(getattr(heir, name))]
    getattr(kind, name).close()
    with pytest.raises(BatcherClosedError):
        getattr(kind(), name)(4)
    assert (heir, 5) == getattr(heir, name)(5)


@pytest.mark.parametrize("name", ["async_above_class", "async_below_class"])
async def test_an_async_class_method_runs_on_the_class_of_the_call(kind, name):
    """An async class method runs on the class it is called on, in either decorator order."""
    heir = type("Heir", (kind,), {})
    assert [(kind, 1), (heir, 2)] == [await getattr(kind, name)(1), await getattr(heir(), name)(2)]


def test_super_in_a_class_method_keeps_the_class_of_the_call(kind):
    """``super().method(item)`` calls the inherited class method on the class of the call."""

    class Heir(kind):
        @classmethod
        def above_class(cls, item):
            return super().above_class(item)

        @classmethod
        def below_class(cls, item):
            return super().below_class(item)

    assert [(Heir, 1), (Heir, 2)] == [Heir.above_class(1), Heir().below_class(2)]


@pytest.mark.parametrize("name", STATIC_METHODS)
def test_a_static_method_has_one_batcher(kind, name):
    """A static method has no instance and one batcher for all calls, in either decorator order."""
    heir = type("Heir", (kind,), {})
    calls = [getattr(owner, name) for owner in (kind, kind(), heir, heir())]
    assert [(None, 1)] * 4 == [call(1) for call in calls]
    assert (None, 2) == calls[0].submit(2).result(PATIENCE)
    assert 5 == total(getattr(kind, name))


def test_a_method_may_have_another_decorator_above():
    """Another decorator above calls the method with the instance and the item."""

    def logged(fn):
        @functools.wraps(fn)
        def wrapper(*args, **kwargs):
            return fn(*args, **kwargs)

        return wrapper

    class Kind:
        @logged
        @microbatch
        def method(self, items):
            return owner_of(items, self)

    one = Kind()
    assert (one, 1) == one.method(1)


def test_a_replaced_method_can_still_be_called(kind, monkeypatch):
    """A method that a spy has replaced can still be called with the instance and the item."""
    original = kind.method
    seen = []
    monkeypatch.setattr(kind, "method", lambda self, item: seen.append(item) or original(self, item))
    one = kind()
    assert (one, 1) == one.method(1)
    assert [1] == seen


@pytest.mark.parametrize("name", ["fn", "args", "kwargs", "instance", "item", "self", "batch_stats", "close"])
def test_a_column_may_have_any_name(name):
    """A column may have any name, also that of a member or of an internal parameter."""
    namespace = {}
    exec(f"def echo({name}): return {name}", namespace)  # noqa: S102  # the name is what is tested
    echo = microbatch(namespace["echo"])
    assert [1, 2] == [echo(**{name: 1}), echo.submit(**{name: 2}).result(PATIENCE)]


def test_a_method_can_be_bound_with_get(kind):
    """``__get__`` binds a method to an instance without the class argument, as for any function."""
    one = kind()
    assert (one, 1) == vars(kind)["method"].__get__(one)(1)
    assert (kind, 2) == vars(kind)["above_class"].__get__(one)(2)
    assert vars(kind)["above_static"] is vars(kind)["above_static"].__get__(one)


def test_an_instance_attribute_hides_a_method(kind):
    """An attribute of an instance hides its method, as without the decorator."""
    one = kind()
    one.method = len
    assert 2 == one.method([1, 2])


# The number of batchers.


def test_inspection_makes_no_batcher(kind, made):
    """Methods, statistics and signatures can be read, and unused methods flushed, without a new batcher."""
    one = kind()
    for fn in (one.method, kind.method, one.amethod, kind.above_class, kind.above_static):
        assert 0 == total(fn)
        assert fn.__signature__ is not None
        fn.flush()
        fn.reset_stats()
        assert [] == made()


def test_an_instance_has_one_batcher(kind, made):
    """All calls of a method of one instance, through any member, use the same batcher."""
    one = kind()
    assert [(one, 1), (one, 2)] == [one.method(1), one.method.submit(2).result(PATIENCE)]
    assert [(one, 3)] == one.method.map([3])
    assert (one, 4) == asyncio.run(one.method.acall(4))
    assert 1 == len(made())
    assert 4 == total(one.method)


@pytest.fixture
def racers():
    """Return a function that runs an action in four threads at the same time, and returns the results."""
    barrier = threading.Barrier(4)
    interval = sys.getswitchinterval()

    def racer(action):
        barrier.wait(PATIENCE)
        return action()

    with ThreadPoolExecutor(4) as pool:
        sys.setswitchinterval(1e-6)
        yield lambda action: list(pool.map(racer, [action] * 4))
    sys.setswitchinterval(interval)


def test_concurrent_first_calls_of_a_function_share_one_batcher(racers):
    """Threads that call a function for the first time at the same moment share one batcher."""
    for _ in range(200):
        echo = microbatch(lambda items: items)
        assert [1] * 4 == racers(lambda: echo(1))  # noqa: B023  # called at once
        assert 4 == total(echo)


def test_concurrent_first_calls_of_a_method_share_one_batcher(kind, racers):
    """Threads that call a method for the first time at the same moment share one batcher of the instance."""
    for n in range(200):
        one = kind()
        assert [(one, 1)] * 4 == racers(lambda: one.method(1))  # noqa: B023  # called at once
        assert [4, 4 * n + 4] == [total(one.method), total(kind.method)]


def test_first_calls_of_a_method_on_concurrent_loops_share_one_batcher(kind, racers):
    """Event loops that await a method for the first time at the same moment share one batcher of the instance."""
    for n in range(50):
        one = kind()
        assert [(one, 1)] * 4 == racers(lambda: asyncio.run(one.amethod(1)))  # noqa: B023  # called at once
        assert [4, 4 * n + 4] == [total(one.amethod), total(kind.amethod)]


# Closing.


def test_closing_an_instance_leaves_the_others_open(kind):
    """``instance.method.close()``, before or after the first call, affects that instance only."""
    one, two, three = kind(), kind(), kind()
    assert (one, 1) == one.method(1)
    one.method.close()
    two.method.close()
    two.method.close()
    for closed in (one, two):
        with pytest.raises(BatcherClosedError):
            closed.method(2)
    assert (three, 3) == three.method(3)


def test_closing_a_class_closes_all_its_instances(kind):
    """``Class.method.close()`` closes the method for existing and later instances; other methods stay open."""
    one, two, three = kind(), kind(), kind()
    assert [(one, 1), (two, 1)] == [one.method(1), two.method(1)]
    kind.method.close()
    kind.method.close()
    for closed in (one, two, three, kind()):
        with pytest.raises(BatcherClosedError):
            closed.method(2)
    assert (None, 3) == kind.above_static(3)
    assert 2 == total(kind.method)


def test_an_instance_can_be_closed_after_its_class(kind):
    """An instance whose class is closed can be closed too, with or without a call before."""
    used, unused = kind(), kind()
    assert (used, 1) == used.method(1)
    kind.method.close()
    assert [None, None] == [used.method.close(), unused.method.close()]


async def test_aclose_of_an_instance_answers_its_waiting_calls(kind):
    """``aclose()`` answers the waiting calls of that instance, and leaves the others open."""
    one, two = kind(), kind()
    waiting = asyncio.ensure_future(one.amethod(1))
    await asyncio.sleep(0)
    await one.amethod.aclose()
    assert waiting.done()
    with pytest.raises(BatcherClosedError):
        await one.amethod(2)
    assert (two, 3) == await two.amethod(3)
    await kind.amethod.aclose()
    with pytest.raises(BatcherClosedError):
        await two.amethod(4)


def test_a_with_block_closes_the_method_of_an_instance(kind):
    """``with instance.method`` yields the method and closes it at the end, also after an exception."""
    one, two = kind(), kind()
    with one.method as method:
        assert (one, 1) == method(1)
    with pytest.raises(ZeroDivisionError), two.method:
        raise ZeroDivisionError
    for closed in (one, two):
        with pytest.raises(BatcherClosedError):
            closed.method(2)


async def test_an_async_with_block_closes_the_method_of_an_instance(kind):
    """``async with instance.method`` yields the method and closes it at the end."""
    one, two = kind(), kind()
    async with one.amethod as method:
        assert (one, 1) == await method(1)
    with pytest.raises(BatcherClosedError):
        await one.amethod(2)
    assert (two, 3) == await two.amethod(3)


def test_closing_during_the_first_call_refuses_that_call(kind):
    """If a method is closed while the first call of an instance makes its batcher, all calls are refused."""
    one = kind()
    instances = kind.method._self_scope
    make = instances.make_batcher

    def close_and_make(source, config):
        kind.method.close()
        return make(source, config)

    instances.make_batcher = close_and_make
    for _ in range(2):
        with pytest.raises(BatcherClosedError):
            one.method(1)


def test_dir_lists_the_members():
    """``dir()`` lists the members of a decorated function and those of the batch function."""
    assert {"submit", "batch_stats", "__code__"} <= set(dir(microbatch(lambda items: items)))
