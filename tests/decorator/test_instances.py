"""The batchers of instances: they do not change an instance, and do not keep it alive."""

from __future__ import annotations

import asyncio
import copy
import gc
import pickle
import re
import sys
import threading
import weakref
from dataclasses import dataclass, make_dataclass
from typing import NamedTuple

import pytest

import batchify
from batchify import BatchStats, microbatch
from batchify.testing import VirtualLoop
from tests.kit.engines import PATIENCE, Gate, doubled, wait_until
from tests.kit.processes import printed_by


class Scaler:
    """A class with one attribute, which can be pickled because it is a global of the module."""

    def __init__(self, factor):
        self.factor = factor

    @microbatch
    def scale(self, items):
        return [item * self.factor for item in items]

    @microbatch
    async def ascale(self, items):
        return [item * self.factor for item in items]


class Handler:
    """A class whose instances refer to their own decorated method, as objects with callbacks do."""

    def __init__(self):
        self.handle = self.work

    @microbatch
    def work(self, items):
        return [(self, item) for item in items]


def call(method, item):
    """Call a method of either engine, and return its result."""
    result = method(item)
    return asyncio.run(result) if asyncio.iscoroutine(result) else result


@pytest.fixture(params=["scale", "ascale"])
def name(request):
    """Return the name of a method of a ``Scaler``, one of each engine."""
    return request.param


def total(fn):
    return fn.batch_stats.total_items


def is_freed(dead):
    """Return whether the object of a weak reference is freed, after a collection of cycles."""
    return gc.collect() >= 0 and dead() is None


# Instances do not change.


def test_calls_do_not_change_an_instance(name):
    """Calls of its methods do not change the attributes of an instance."""
    scaler = Scaler(2)
    assert 6 == call(getattr(scaler, name), 3)
    assert {"factor": 2} == vars(scaler)


@pytest.mark.parametrize(
    "duplicate",
    [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))],  # noqa: S301  # our own bytes
    ids=["copy", "deepcopy", "pickle"],
)
def test_a_copy_has_its_own_batcher(name, duplicate):
    """An instance can be copied and pickled after a call, and its copy has its own batcher."""
    scaler = Scaler(2)
    assert 6 == call(getattr(scaler, name), 3)
    other = duplicate(scaler)
    other.factor = 3
    assert 0 == total(getattr(other, name))
    assert [6, 9] == [call(getattr(scaler, name), 3), call(getattr(other, name), 3)]
    assert [2, 1] == [total(getattr(scaler, name)), total(getattr(other, name))]


def test_a_deep_copy_has_its_own_methods():
    """In a deep copy, a reference to the method of the original becomes the method of the copy."""
    handler = Handler()
    assert (handler, 1) == handler.handle(1)
    other = copy.deepcopy(handler)
    assert (other, 2) == other.handle(2)
    assert (handler, 3) == copy.copy(handler).handle(3)


class Lines:
    @classmethod
    def of(cls, items):
        return items


class Owner:
    """Decorates its own method, and keeps it."""

    def __init__(self, factor):
        self.factor = factor
        self.scale = microbatch(self.scaled, name="scale")

    def scaled(self, numbers):
        return [self.factor * number for number in numbers]


def test_a_deep_copy_decorates_its_own_method():
    """An object that keeps a decorated method of its own has a copy that does so too, with the same options."""
    owner = Owner(2)
    owner.scale.configure(max_size=7)
    assert 6 == owner.scale(3)
    other = copy.deepcopy(owner)
    other.factor = 10
    assert [30, 6] == [other.scale(3), owner.scale(3)]
    assert (1, 2, other) == (total(other.scale), total(owner.scale), other.scale.__self__)
    assert [7, "scale"] == [other.scale._self_config.max_size, other.scale.batch_stats.name]
    assert copy.copy(owner).scale is owner.scale


def test_a_decorated_method_of_a_class_is_its_own_copy():
    """A class is not copied, so neither is a method that is bound to one."""
    lines = microbatch(Lines.of)
    assert lines is copy.deepcopy(lines)


def test_instances_may_have_slots(name):
    """A class with ``__slots__`` only needs ``__weakref__`` among them."""

    class Slotted(Scaler):
        __slots__ = ()

    class Weak:
        __slots__ = ("__weakref__", "factor")
        scale, ascale = Scaler.scale, Scaler.ascale

    for kind in (Slotted, Weak):
        scaler = kind.__new__(kind)
        scaler.factor = 2
        assert 6 == call(getattr(scaler, name), 3)


def test_slots_without_a_weak_reference_are_refused():
    """Without ``__weakref__``, a call raises an error that says what to do; statistics can be read."""

    class Slotted:
        __slots__ = ()

        @microbatch(name="scale")
        def scale(self, items):
            return items

        @microbatch(name="ascale")
        async def ascale(self, items):
            return items

    expected = "test_slots_without_a_weak_reference_are_refused.<locals>.Slotted; add '__weakref__' to its __slots__"
    slotted = Slotted()
    for fn in (slotted.scale, slotted.ascale):
        assert 0 == total(fn)
        for use in (fn, fn.submit, fn.acall):
            with pytest.raises(TypeError) as caught:
                use(1)
            assert f"{fn.batch_stats.name}() needs a weak reference to its {expected}" == str(caught.value)
    assert 0 == total(Slotted.scale)


def scale(self, items):
    return items


class Pair(NamedTuple):
    one: int
    scale = microbatch(scale)


class Number(int):
    scale = microbatch(scale)


class Octets(bytes):
    scale = microbatch(scale)


@pytest.mark.parametrize(
    ("one", "base"), [(Pair(1), "tuple"), (Number(1), "int"), (Octets(b"1"), "bytes")], ids=["tuple", "int", "bytes"]
)
def test_instances_of_variable_size_are_not_supported(one, base):
    """Instances of subclasses of int and tuple have no weak references, and the error does not advise to add any."""
    advice = f"subclasses of {base} have none, so keep the {base} in an attribute of another class"
    with pytest.raises(TypeError) as caught:
        one.scale(1)
    assert f"scale() needs a weak reference to its {type(one).__name__}; {advice}" == str(caught.value)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="dataclasses have no option for it before Python 3.11")
def test_a_dataclass_with_slots_takes_an_option():
    """The advice for a dataclass is the option that adds the slot, and it works."""

    def point(**options):
        return make_dataclass("Point", [("x", int)], namespace={"scale": microbatch(scale)}, slots=True, **options)(1)

    with pytest.raises(TypeError) as caught:
        point().scale(1)
    assert "scale() needs a weak reference to its Point; pass weakref_slot=True to its @dataclass" == str(caught.value)
    assert 1 == point(weakref_slot=True).scale(1)


def test_instances_need_no_hash():
    """A dataclass with ``__eq__``, and so without a hash, has a batcher for each instance, equal or not."""

    @dataclass
    class Point:
        x: int

        @microbatch
        def shift(self, items):
            return [self.x + item for item in items]

    one, two = Point(1), Point(1)
    assert [3, 4] == [one.shift(2), two.shift(3)]
    assert [1, 1, 2] == [total(one.shift), total(two.shift), total(Point.shift)]


def test_calls_use_no_special_method_of_an_instance(name):
    """A call uses no special method of its instance: no comparison, hash, length, truth or attribute access."""

    def touched(*args):
        raise AssertionError(args)

    members = ("__eq__", "__ne__", "__hash__", "__len__", "__bool__", "__getattr__", "__repr__", "__setattr__")
    kind = type("Touchy", (Scaler,), {**dict.fromkeys(members, touched), "__init__": object.__init__, "factor": 2})
    touchy = kind()
    assert 6 == call(getattr(touchy, name), 3)
    assert 6 == call(lambda item: getattr(kind, name)(touchy, item), 3)
    assert 2 == total(getattr(touchy, name))
    assert 1 == len({getattr(touchy, name), getattr(touchy, name)})
    assert "Scaler." in repr(getattr(touchy, name))


def test_callable_objects_are_not_tested_for_truth():
    """The decorator does not test a callable object for truth, which arrays do not support."""

    class Model:
        def __bool__(self):
            raise AssertionError

        def __call__(self, items):
            return doubled(items)

    double = microbatch(Model(), max_size=2, timeout=3600)
    assert [2, 4] == [future.result(PATIENCE) for future in [double.submit(1), double.submit(2)]]


# Lifetime.


def test_an_idle_instance_is_freed(name):
    """An idle instance is freed after a call of its method, like any other instance."""
    scaler = Scaler(2)
    dead = weakref.ref(scaler)
    assert 6 == call(getattr(scaler, name), 3)
    del scaler
    wait_until(lambda: is_freed(dead))


def test_an_instance_in_a_cycle_is_freed():
    """An instance in a cycle through its own decorated method is freed, like any other instance."""
    handler = Handler()
    dead = weakref.ref(handler)
    assert (handler, 1) == handler.handle(1)
    del handler
    wait_until(lambda: is_freed(dead))


def test_a_batcher_is_freed_with_its_instance(name):
    """The batcher of an instance is freed with the instance."""
    scaler = Scaler(2)
    before = batchify.batchers()
    assert 6 == call(getattr(scaler, name), 3)
    (dead,) = [weakref.ref(batcher) for batcher in batchify.batchers() if batcher not in before]
    del scaler
    wait_until(lambda: is_freed(dead))


@pytest.mark.untraced
def test_no_step_is_left_to_an_interrupt_when_an_instance_is_freed():
    """A signal handler cannot leave the batcher of a freed instance to the next instance with the same id."""

    class Doubler:
        @microbatch
        def double(self, items):
            return doubled(items)

    instance = Doubler()
    known = Doubler.double._self_scope._known
    # A batcher that has made no call has nothing else to free.
    Doubler.double._self_scope.of(instance)
    assert [id(instance)] == list(known)

    def interrupt(frame, event, _):
        if frame.f_globals["__name__"] == "batchify._decorator.instances":
            raise KeyboardInterrupt

    sys.settrace(interrupt)
    del instance
    sys.settrace(None)
    assert {} == known


def test_a_bound_method_keeps_its_instance_alive(name):
    """A bound method keeps its instance alive until the method itself is freed."""
    scaler = Scaler(2)
    dead = weakref.ref(scaler)
    method = getattr(scaler, name)
    del scaler
    gc.collect()
    assert 6 == call(method, 3)
    assert dead() is method.__self__
    del method
    wait_until(lambda: is_freed(dead))


async def outcome(awaitable):
    """Return the result or the error of ``awaitable`` as text, so that no traceback keeps an object alive."""
    try:
        return repr(await awaitable)
    except Exception as error:
        return repr(error)


@pytest.mark.parametrize(
    ("begin", "expected"),
    [
        (lambda: Scaler(2).ascale(3), "6"),
        (lambda: Scaler(2).ascale.acall(3), "6"),
        (lambda: Scaler(2).ascale.map([3, 4]), "[6, 8]"),
        (lambda: Scaler(2).ascale.submit(3), "6"),
        (lambda: Scaler(2).scale.acall(3), "6"),
    ],
    ids=["call", "acall", "map", "submit", "acall of def"],
)
async def test_a_coroutine_keeps_its_instance_alive(begin, expected):
    """The coroutine of a method can be awaited after all other references to the instance are deleted."""
    awaitable = begin()
    gc.collect()
    result = await outcome(awaitable)
    del awaitable
    gc.collect()
    assert expected == result


@pytest.mark.parametrize("member", ["map", "imap"])
@pytest.mark.parametrize(
    "read", [lambda: Scaler.scale, lambda: Scaler.scale.options(priority=1)], ids=["method", "view"]
)
def test_many_items_need_an_instance(member, read):
    """On the class, ``map()`` and ``imap()`` would pass lists of instances as ``self``. They are refused."""
    expected = "Scaler.scale() is a method, so map() and imap() need an instance: instance.scale.map(items)"
    with pytest.raises(TypeError, match=f"^{re.escape(expected)}$"):
        getattr(read(), member)([(Scaler(2), 3)])


@pytest.mark.parametrize("limits", [{}, {"max_pending": 8}], ids=["plain", "bounded"])
async def test_a_call_in_a_window_keeps_its_instance_alive(limits):
    """A call of a temporary instance is answered at the end of its window; then the instance is freed."""

    class Kind:
        @microbatch(timeout=0.05, **limits)
        async def double(self, items):
            return doubled(items)

    one = Kind()
    dead, future = weakref.ref(one), one.double.submit(1)
    del one
    gc.collect()
    assert 2 == await future
    gc.collect()
    assert is_freed(dead)


def test_a_submitted_call_keeps_its_instance_alive():
    """Submitted calls are answered after all references to their instance are deleted; then it is freed."""
    gate = Gate(doubled)
    gate.shut()

    class Kind:
        @microbatch
        def double(self, items):
            return gate(items)

    one = Kind()
    dead = weakref.ref(one)
    futures = [one.double.submit(1)]
    gate.await_batch()
    futures.append(one.double.submit(2))
    del one
    gc.collect()
    gate.open()
    assert [2, 4] == [future.result(PATIENCE) for future in futures]
    wait_until(lambda: is_freed(dead))
    assert [2, 0] == [Kind.double.batch_stats.answered_items, Kind.double.batch_stats.pending]


@pytest.mark.parametrize(
    ("timeout", "use"),
    [(None, "Model().work(1)"), (3600, "Model().work.submit(1).cancel()")],
    ids=["called", "cancelled"],
)
def test_a_finalizer_may_close_its_method(timeout, use):
    """The finalizer of an instance may close its method, on any thread, without a deadlock."""
    # A separate process, because a blocked finalizer cannot be stopped.
    script = f"""
        import os, threading
        from batchify import microbatch

        class Model:
            @microbatch(timeout={timeout})
            def work(self, items):
                return items

            def __del__(self):
                self.work.close()
                closed.set()

        closed = threading.Event()
        threading.Thread(target=lambda: {use}, daemon=True).start()
        print(closed.wait({PATIENCE}), flush=True)
        os._exit(0)
    """
    assert "True\n" == printed_by(script)


# Statistics of a class.


def test_a_class_counts_freed_instances_once(name):
    """The statistics of a class include those of freed instances, once."""
    Scaler.scale.reset_stats()
    Scaler.ascale.reset_stats()
    fn = getattr(Scaler, name)
    for count in range(1, 20):
        call(getattr(Scaler(2), name), 3)
        assert count == total(fn)
        assert (count, 0, 0) == (fn.batch_stats.answered_items, fn.batch_stats.pending, fn.batch_stats.running)
    gc.collect()
    stats = fn.batch_stats
    assert (19, 19, {1: 19}) == (stats.total_items, stats.total_batches, stats.size_histogram)
    assert stats.run_ms.p50 <= stats.run_ms.max


def test_a_class_counts_failures_of_freed_instances():
    """The statistics of a class include failed and cancelled calls of freed instances."""

    class Kind:
        @microbatch(timeout=3600)
        def fail(self, items):
            raise KeyError

    one = Kind()
    futures = [one.fail.submit(1), one.fail.submit(2)]
    futures[0].cancel()
    one.fail.flush()
    assert isinstance(futures[1].exception(PATIENCE), KeyError)
    dead = weakref.ref(one)
    del one, futures
    wait_until(lambda: is_freed(dead))
    stats = Kind.fail.batch_stats
    assert (1, 1, 0) == (stats.failed_items, stats.cancelled_items, stats.pending)


def test_reset_stats_of_a_class_resets_all_its_instances():
    """``reset_stats()`` of a class resets all its instances; of an instance, only that instance."""

    class Kind:
        @microbatch(name="echo")
        def echo(self, items):
            return items

    one, two = Kind(), Kind()
    assert [1, 1, 1] == [Kind().echo(1), one.echo(1), two.echo(1)]
    wait_until(lambda: gc.collect() >= 0 and 3 == total(Kind.echo))
    one.echo.reset_stats()
    assert [0, 1, 3] == [total(one.echo), total(two.echo), total(Kind.echo)]
    Kind.echo.reset_stats()
    assert BatchStats("echo") == Kind.echo.batch_stats
    assert 0 == total(two.echo)


def test_an_instance_freed_before_its_loop_closes_counts_once():
    """The calls of an instance count once, also if its loop closes after the instance is freed."""

    class Kind:
        @microbatch
        async def double(self, items):
            return doubled(items)

    one = Kind()
    loop = asyncio.new_event_loop()
    assert 2 == loop.run_until_complete(one.double(1))
    # Keep the batcher, as a thread that reads the statistics does.
    _, batcher = Kind.double._self_scope.batchers()
    del one
    assert [] == Kind.double._self_scope.batchers()[1:]
    loop.close()
    assert [1, 1] == [batcher.stats.answered_items, Kind.double.batch_stats.answered_items]


def test_the_counts_of_a_class_never_decrease():
    """The counts of a class never decrease while instances are created and freed."""

    class Kind:
        @microbatch
        def echo(self, items):
            return items

    seen = []
    stopped = threading.Event()

    def read():
        while not stopped.is_set():
            seen.append(total(Kind.echo))

    reader = threading.Thread(target=read)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    reader.start()
    try:
        for _ in range(500):
            Kind().echo(1)
    finally:
        stopped.set()
        reader.join(PATIENCE)
        sys.setswitchinterval(interval)
    assert sorted(seen) == seen
    assert 500 == total(Kind.echo)


def test_an_instance_freed_during_a_reading_counts_once(name):
    """An instance that is freed while the statistics of its class are read counts exactly once."""
    fn = getattr(Scaler, name)
    fn.reset_stats()
    scalers = [Scaler(2), Scaler(2)]
    assert [6, 6] == [call(getattr(scaler, name), 3) for scaler in scalers]
    dead = [weakref.ref(scaler) for scaler in scalers]

    class Last:
        running_calls = 0

        @property
        def waiting(self):
            scalers.clear()
            wait_until(lambda: is_freed(dead[1]))
            return 0

    fn._self_function._self_route.find()._counters.follow(last := Last())
    assert [(2, 0)] * 2 == [(fn.batch_stats.answered_items, fn.batch_stats.pending) for _ in range(2)]
    fn._self_function._self_route.find()._counters.retire(last)


@pytest.mark.parametrize("read", [lambda model: model.double, lambda model: type(model).double], ids=["own", "class"])
def test_calls_on_a_closed_loop_are_cancelled(read):
    """Calls that a closed loop leaves unanswered count as cancelled, for the instance and for its class."""

    class Model:
        @microbatch(max_size=2)
        async def double(self, items):
            await asyncio.sleep(3600)

    model = Model()
    loop = VirtualLoop()

    async def main():
        return [model.double.submit(item) for item in (1, 2, 3)], await asyncio.sleep(1)

    assert 3 == len(loop.run_until_complete(main())[0])
    stats = read(model).batch_stats
    assert (1, 2, 0) == (stats.pending, stats.running, stats.cancelled_items)
    loop.close()
    stats = read(model).batch_stats
    assert (0, 0, 3) == (stats.pending, stats.running, stats.cancelled_items)


def test_the_statistics_of_a_class_cover_all_instances():
    """The statistics of a class include all live and freed instances, also while calls wait."""

    class Model:
        @microbatch(timeout=3600)
        def double(self, items):
            return doubled(items)

    models = [Model() for _ in range(100)]
    futures = [model.double.submit(1) for model in models]
    stats = Model.double.batch_stats
    assert (100, 0) == (stats.pending, stats.answered_items)
    Model.double.close()
    assert {2} == {future.result(PATIENCE) for future in futures}
    del models[1:], futures
    wait_until(lambda: gc.collect() >= 0 and 2 == len(Model.double._self_scope.batchers()))
    stats = Model.double.batch_stats
    assert (0, 100, 1) == (stats.pending, stats.answered_items, total(models[0].double))
