"""Which batcher a call belongs to: that of the function, or that of the instance or class a method is bound to.

What an instance goes through because it has a decorated method, which should be nothing, is in ``test_instances.py``.
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

# What a classmethod around a decorated function passes on from it.
CHAINED = sys.version_info < (3, 13)


class Scaler:
    """Somebody else's class, with nothing decorated."""

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
    """Return a class with decorated methods of every kind, each of which answers with whom it was called on."""

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
    """Return how many items were answered in batches of ``fn``."""
    return fn.batch_stats.total_items


@pytest.fixture
def made():
    """Return a function that lists the batchers that were made since the test began."""
    before = batchify.batchers()
    return lambda: [batcher for batcher in batchify.batchers() if batcher not in before]


# What can be decorated.

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
def test_what_is_called_with_a_list_can_be_called_with_an_item(form):
    """Whatever can be called with a list of items can be decorated and called with one item."""
    assert 6 == microbatch(FORMS[form])(3)


def test_a_partial_may_give_an_argument_by_name():
    """What a partial gives by name is no column, and what comes after it is called by name."""
    assert 6 == microbatch(functools.partial(lambda items, factor: scaled(factor, items), factor=2))(3)


def test_a_builtin_that_hides_its_signature():
    """A builtin function that does not tell its parameters is called by position with a list."""
    # The largest of one list of one number is that list, which is one result for one item.
    assert 7 == microbatch(max)([7])


def test_an_object_of_somebody_else_is_called_with_its_state():
    """A bound method is called on its own object, and two of them have batches of their own."""
    double, triple = microbatch(Scaler(2).scale), microbatch(Scaler(3).scale)
    assert [8, 12] == [double(4), triple(4)]
    assert [1, 1] == [total(double), total(triple)]


@pytest.mark.parametrize("form", ["callable object", "bound method", "bound class method"])
def test_what_is_no_function_is_not_bound(form):
    """As an attribute of a class it stays what it is, as without the decorator: its own, and nobody's method."""

    class Kind:
        double = microbatch(FORMS[form])

    assert [6, 8] == [Kind().double(3), Kind.double(4)]
    assert 2 == total(Kind.double)


def test_a_builtin_is_not_bound():
    """A builtin function as an attribute of a class is no method, as without the decorator."""

    class Kind:
        first = microbatch(max)

    assert 7 == Kind().first([7])


def test_a_decorated_call_operator(kind):
    """An object whose ``__call__`` is decorated is called with one item."""
    kind.__call__ = kind.method
    one = kind()
    assert (one, 1) == one(1)
    assert 1 == total(one.method)


# Whose a call is.


def test_a_method_is_called_on_its_instance(kind):
    """A method runs on the instance it is called on, and its numbers are that instance's."""
    one, two = kind(), kind()
    assert [(one, 1), (two, 2), (two, 3)] == [one.method(1), two.method(2), two.method(3)]
    assert [1, 2, 3] == [total(one.method), total(two.method), total(kind.method)]


async def test_an_async_method_is_called_on_its_instance(kind):
    """An async method runs on the instance it is called on, and its numbers are that instance's."""
    one, two = kind(), kind()
    assert [(one, 1), (two, 2)] == list(await asyncio.gather(one.amethod(1), two.amethod(2)))
    assert [1, 1, 2] == [total(one.amethod), total(two.amethod), total(kind.amethod)]


def test_other_ways_to_call_a_method_through_its_class():
    """``submit`` and ``acall`` of a method through its class find the instance as a call does."""

    class Model:
        @microbatch
        def whose(self, items):
            return [(self, item) for item in items]

    one = Model()
    assert (one, 1) == Model.whose.submit(one, 1).result(PATIENCE)
    assert (one, 2) == asyncio.run(Model.whose.acall(one, 2))


@pytest.mark.parametrize("order", ["above", "below"])
def test_a_static_method_of_instances(order):
    """A static method may take instances of its own class as items of several columns."""

    class Point(int):
        @microbatch if order == "above" else staticmethod
        @staticmethod if order == "above" else microbatch
        def distance(ones, others):  # noqa: N805  # it is a static method in either order
            return [abs(one - other) for one, other in zip(ones, others, strict=True)]

    assert [4, 4] == [Point.distance(Point(1), Point(5)), Point(0).distance(Point(1), Point(5))]


@pytest.mark.parametrize("call", [lambda fn, *args: fn(*args), lambda fn, one, item: fn(one, items=item)])
def test_a_method_through_its_class(kind, call, made):
    """``Class.method(instance, item)`` is ``instance.method(item)``, in the same batches, from the first call on."""
    one = kind()
    assert [(one, 1), (one, 2)] == [call(kind.method, one, 1), call(kind.method, one, 2)]
    assert 2 == total(one.method)
    assert 1 == len(made())


def test_a_view_of_a_method_through_its_class(kind):
    """``Class.method.options(...)(instance, item)`` is ``instance.method.options(...)(item)``."""
    one = kind()
    urgent = kind.method.options(priority=1)
    assert (one, 1) == urgent(one, 1)
    assert (one, 2) == urgent.submit(one, 2).result(PATIENCE)
    assert 2 == total(one.method)


async def test_an_async_method_through_its_class(kind):
    """``await Class.method(instance, item)`` is ``await instance.method(item)``."""
    one = kind()
    assert (one, 1) == await kind.amethod(one, 1)
    assert 1 == total(one.amethod)


def test_an_inherited_method(kind):
    """An instance of a subclass has batches of its own, and counts for the class that has the method."""

    class Heir(kind):
        pass

    heir, other = Heir(), kind()
    assert [(heir, 1), (other, 2)] == [heir.method(1), other.method(2)]
    assert (heir, 3) == Heir.method(heir, 3)
    assert [2, 1, 3] == [total(heir.method), total(other.method), total(Heir.method)]
    assert Heir.method is kind.method


@pytest.mark.parametrize("through", [lambda kind, heir: super(kind, heir).method, lambda kind, heir: heir.inherited])
def test_a_method_that_is_overridden(kind, through):
    """The inherited method and the one that overrides it do not share batches, however they are reached."""

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
def test_a_class_method(kind, name, made):
    """A class method runs on the class it is called on, directly or through an instance, in either order."""
    heir = type("Heir", (kind,), {})
    assert (kind, 1) == getattr(kind, name)(1)
    assert (kind, 2) == getattr(kind(), name)(2)
    assert (heir, 3) == getattr(heir, name)(3)
    assert (heir, 4) == getattr(heir(), name)(items=4)
    assert 2 == len(made())


@pytest.mark.parametrize("name", CLASS_METHODS if CHAINED else ["above_class"])
def test_a_class_method_has_members(kind, name):
    """Each class has its own numbers for a class method, and its other members act on that class."""
    heir = type("Heir", (kind,), {})
    assert (kind, 1) == getattr(kind, name).submit(1).result(PATIENCE)
    assert [(heir, 2), (heir, 3)] == getattr(heir, name).map([2, 3])
    assert [1, 2] == [total(getattr(kind, name)), total(getattr(heir, name))]
    getattr(kind, name).close()
    with pytest.raises(BatcherClosedError):
        getattr(kind(), name)(4)
    assert (heir, 5) == getattr(heir, name)(5)


@pytest.mark.parametrize("name", ["async_above_class", "async_below_class"])
async def test_an_async_class_method(kind, name):
    """An async class method is awaited on the class it is called on, in either order."""
    heir = type("Heir", (kind,), {})
    assert [(kind, 1), (heir, 2)] == [await getattr(kind, name)(1), await getattr(heir(), name)(2)]


def test_super_in_a_class_method(kind):
    """``super().method(item)`` in a class method reaches the inherited one, on the class that was called."""

    class Heir(kind):
        @classmethod
        def above_class(cls, item):
            return super().above_class(item)

        @classmethod
        def below_class(cls, item):
            return super().below_class(item)

    assert [(Heir, 1), (Heir, 2)] == [Heir.above_class(1), Heir().below_class(2)]


@pytest.mark.parametrize("name", STATIC_METHODS)
def test_a_static_method(kind, name):
    """A static method has no instance, and one line for all, in either order."""
    heir = type("Heir", (kind,), {})
    calls = [getattr(owner, name) for owner in (kind, kind(), heir, heir())]
    assert [(None, 1)] * 4 == [call(1) for call in calls]
    assert (None, 2) == calls[0].submit(2).result(PATIENCE)
    assert 5 == total(getattr(kind, name))


def test_a_decorator_above():
    """A method stays a method under another decorator, which calls it with the instance and the item."""

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


def test_a_method_that_was_replaced(kind, monkeypatch):
    """A method that was taken out of its class, as spies do, can still be called with the instance and the item."""
    original = kind.method
    seen = []
    monkeypatch.setattr(kind, "method", lambda self, item: seen.append(item) or original(self, item))
    one = kind()
    assert (one, 1) == one.method(1)
    assert [1] == seen


@pytest.mark.parametrize("name", ["fn", "args", "kwargs", "instance", "item", "self", "batch_stats", "close"])
def test_an_item_may_have_any_name(name):
    """A column is given by name whatever its name is, also that of a member or of an argument of ours."""
    namespace = {}
    exec(f"def echo({name}): return {name}", namespace)  # noqa: S102  # the name is what is tested
    echo = microbatch(namespace["echo"])
    assert [1, 2] == [echo(**{name: 1}), echo.submit(**{name: 2}).result(PATIENCE)]


def test_a_method_can_be_bound_by_hand(kind):
    """``__get__`` binds to an instance, or to its class, without being told the class, as that of a function does."""
    one = kind()
    assert (one, 1) == vars(kind)["method"].__get__(one)(1)
    assert (kind, 2) == vars(kind)["above_class"].__get__(one)(2)
    assert vars(kind)["above_static"] is vars(kind)["above_static"].__get__(one)


def test_a_method_can_be_hidden(kind):
    """An attribute of an instance hides its method, as without the decorator."""
    one = kind()
    one.method = len
    assert 2 == one.method([1, 2])


# How many batchers there are.


def test_looking_makes_no_batcher(kind, made):
    """Reading a method, its numbers and its signature makes no batcher, nor does what has nothing to act on."""
    one = kind()
    for fn in (one.method, kind.method, one.amethod, kind.above_class, kind.above_static):
        assert 0 == total(fn)
        assert fn.__signature__ is not None
        fn.flush()
        fn.reset_stats()
        assert [] == made()


def test_an_instance_has_one_batcher(kind, made):
    """Every use of a method of one instance, by whatever member, goes to the same batcher."""
    one = kind()
    assert [(one, 1), (one, 2)] == [one.method(1), one.method.submit(2).result(PATIENCE)]
    assert [(one, 3)] == one.method.map([3])
    assert (one, 4) == asyncio.run(one.method.acall(4))
    assert 1 == len(made())
    assert 4 == total(one.method)


@pytest.fixture
def racers():
    """Return a function that calls another one in four threads at the same time, and returns what they return."""
    barrier = threading.Barrier(4)
    interval = sys.getswitchinterval()

    def racer(do):
        barrier.wait(PATIENCE)
        return do()

    with ThreadPoolExecutor(4) as pool:
        sys.setswitchinterval(1e-6)
        yield lambda do: list(pool.map(racer, [do] * 4))
    sys.setswitchinterval(interval)


def test_threads_that_race_for_the_first_call_of_a_function(racers):
    """Threads that call a function for the first time at the same moment share one batcher."""
    for _ in range(200):
        echo = microbatch(lambda items: items)
        assert [1] * 4 == racers(lambda: echo(1))  # noqa: B023  # it is called at once
        assert 4 == total(echo)


def test_threads_that_race_for_the_first_call_of_a_method(kind, racers):
    """Threads that call a method for the first time at the same moment share one batcher of the instance."""
    for n in range(200):
        one = kind()
        assert [(one, 1)] * 4 == racers(lambda: one.method(1))  # noqa: B023  # as above
        assert [4, 4 * n + 4] == [total(one.method), total(kind.method)]


def test_loops_that_race_for_the_first_call_of_a_method(kind, racers):
    """Event loops that await a method for the first time at the same moment share one batcher of the instance."""
    for n in range(50):
        one = kind()
        assert [(one, 1)] * 4 == racers(lambda: asyncio.run(one.amethod(1)))  # noqa: B023  # as above
        assert [4, 4 * n + 4] == [total(one.amethod), total(kind.amethod)]


# Closing.


def test_closing_an_instance_leaves_the_others_open(kind):
    """``close()`` of one instance, before its first call or after it, is about that instance only."""
    one, two, three = kind(), kind(), kind()
    assert (one, 1) == one.method(1)
    one.method.close()
    two.method.close()
    two.method.close()
    for closed in (one, two):
        with pytest.raises(BatcherClosedError):
            closed.method(2)
    assert (three, 3) == three.method(3)


def test_closing_a_class_closes_all(kind):
    """``Class.method.close()`` closes the instances there are and those to come, and leaves other methods open."""
    one, two, three = kind(), kind(), kind()
    assert [(one, 1), (two, 1)] == [one.method(1), two.method(1)]
    kind.method.close()
    kind.method.close()
    for closed in (one, two, three, kind()):
        with pytest.raises(BatcherClosedError):
            closed.method(2)
    assert (None, 3) == kind.above_static(3)
    assert 2 == total(kind.method)


def test_closing_an_instance_after_its_class(kind):
    """An instance whose class is closed can be closed too, used or not."""
    used, unused = kind(), kind()
    assert (used, 1) == used.method(1)
    kind.method.close()
    assert [None, None] == [used.method.close(), unused.method.close()]


async def test_closing_an_instance_without_blocking(kind):
    """``aclose()`` answers what waits on that instance, and leaves the others open."""
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


def test_a_block_of_an_instance(kind):
    """``with instance.method`` gives the method and closes it at the end, also when the block fails."""
    one, two = kind(), kind()
    with one.method as method:
        assert (one, 1) == method(1)
    with pytest.raises(ZeroDivisionError), two.method:
        raise ZeroDivisionError
    for closed in (one, two):
        with pytest.raises(BatcherClosedError):
            closed.method(2)


async def test_an_async_block_of_an_instance(kind):
    """``async with instance.method`` gives the method and closes it at the end."""
    one, two = kind(), kind()
    async with one.amethod as method:
        assert (one, 1) == await method(1)
    with pytest.raises(BatcherClosedError):
        await one.amethod(2)
    assert (two, 3) == await two.amethod(3)


def test_closing_while_the_first_call_makes_its_batcher(kind):
    """A method that is closed in the middle of the first call of an instance takes neither that call nor the next."""
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


def test_members_are_listed():
    """``dir()`` lists what a decorated function offers beside what the batch function has."""
    assert {"submit", "batch_stats", "__code__"} <= set(dir(microbatch(lambda items: items)))
