"""The public API: the callables that can be decorated, the defaults of the options, and each member."""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
from concurrent.futures import Future

import pytest

import batchify
from batchify import BatchStats, microbatch
from batchify.testing import run
from tests.kit.engines import PATIENCE, doubled


def sync(items):
    """Double the items."""
    return doubled(items)


async def on_loop(items):
    """Double the items."""
    return doubled(items)


def result_of(call):
    """Return the result of a call in virtual time; await it if it is awaitable."""

    async def main():
        outcome = call()
        return await outcome if inspect.isawaitable(outcome) else outcome

    return run(main())


class Sync:
    """Has a ``def`` method of each kind."""

    @microbatch
    def method(self, items):
        return doubled(items)

    @classmethod
    @microbatch
    def class_outside(cls, items):
        return doubled(items)

    @microbatch
    @classmethod
    def class_inside(cls, items):
        return doubled(items)

    @staticmethod
    @microbatch
    def static_outside(items):
        return doubled(items)

    @microbatch
    @staticmethod
    def static_inside(items):
        return doubled(items)

    def plain(self, items):
        return doubled(items)

    def __call__(self, items):
        return doubled(items)


class OnLoop:
    """Has an ``async def`` method of each kind."""

    @microbatch
    async def method(self, items):
        return doubled(items)

    @classmethod
    @microbatch
    async def class_outside(cls, items):
        return doubled(items)

    @microbatch
    @classmethod
    async def class_inside(cls, items):
        return doubled(items)

    @staticmethod
    @microbatch
    async def static_outside(items):
        return doubled(items)

    @microbatch
    @staticmethod
    async def static_inside(items):
        return doubled(items)

    async def plain(self, items):
        return doubled(items)

    async def __call__(self, items):
        return doubled(items)


KINDS = {
    "method": lambda owner: owner.method,
    "class method outside": lambda owner: owner.class_outside,
    "class method inside": lambda owner: owner.class_inside,
    "static method outside": lambda owner: owner.static_outside,
    "static method inside": lambda owner: owner.static_inside,
    "callable": microbatch,
    "partial": lambda owner: microbatch(functools.partial(owner.plain)),
    "bound method": lambda owner: microbatch(owner.plain),
}


@pytest.mark.parametrize("owner", [Sync, OnLoop])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_callable_can_be_decorated(kind, owner):
    """Methods of every kind, callable objects, partials and bound methods can be decorated."""
    fn = KINDS[kind](owner())
    assert 42 == result_of(lambda: fn(21))
    # Since Python 3.13, a classmethod does not expose these members of the decorated function.
    if kind != "class method outside" or sys.version_info < (3, 13):
        assert [2, 4] == result_of(lambda: fn.map([1, 2]))
        assert 42 == result_of(lambda: fn.acall(21))


def test_the_defaults_match_the_documentation():
    """The defaults of the options match the documentation."""
    signature = inspect.signature(microbatch)
    assert "<no function>" == repr(signature.parameters["fn"].default)
    defaults = {name: p.default for name, p in signature.parameters.items() if name != "fn"}
    assert defaults == {
        "max_size": 32,
        "timeout": None,
        "concurrency": 1,
        "max_pending": None,
        "on_full": "wait",
        "weigh": None,
        "max_weight": None,
        "length": None,
        "max_padded": None,
        "sizes": None,
        "group_by": None,
        "dedupe": False,
        "keyed": False,
        "isolate_errors": False,
        "executor": None,
        "lifespan": None,
        "capture_context": False,
        "on_batch": None,
        "name": None,
    }


def test_statistics_and_errors_use_the_name(kit):
    """Statistics and error messages use the ``name`` option."""
    fn, _ = kit.decorate(lambda items: [], name="mine")
    error = kit.call(fn, 1).exception(PATIENCE)
    assert ("mine", True) == (fn.batch_stats.name, str(error).startswith("mine() was given 1 item"))


def test_each_member_of_a_def_function_works():
    """Each member of a decorated ``def`` function works as documented."""
    fn = microbatch(sync, max_size=2)
    assert 2 == fn(1)
    future = fn.submit(1)
    assert (True, 2) == (isinstance(future, Future), future.result(PATIENCE))
    assert [2, 4, 6] == fn.map([1, 2, 3])
    assert 2 == asyncio.run(fn.acall(1))
    assert 2 == fn.options(priority=1, deadline=60)(1)
    assert isinstance(fn.batch_stats, BatchStats)
    fn.configure(max_size=1, timeout=0, concurrency=2)
    fn.flush()
    assert fn.__wrapped__ is sync
    fn.close()
    fn.close()
    with pytest.raises(batchify.BatcherClosedError):
        fn(1)


async def test_each_member_of_an_async_function_works():
    """Each member of a decorated ``async def`` function works as documented."""
    fn = microbatch(on_loop, max_size=2)
    assert 2 == await fn(1)
    future = fn.submit(1)
    assert (True, 2) == (isinstance(future, asyncio.Future), await future)
    assert [2, 4, 6] == await fn.map([1, 2, 3])
    assert 2 == await fn.acall(1)
    assert 2 == await fn.options(priority=1, deadline=60)(1)
    assert isinstance(fn.batch_stats, BatchStats)
    fn.configure(max_size=1, timeout=0, concurrency=2)
    fn.flush()
    assert fn.__wrapped__ is on_loop
    await fn.aclose()
    await fn.aclose()
    with pytest.raises(batchify.BatcherClosedError):
        await fn(1)


@pytest.mark.parametrize("engine", [batchify.AsyncMicrobatcher, batchify.SyncMicrobatcher])
def test_the_engine_classes_have_exactly_the_documented_members(engine):
    """The engine classes have exactly the documented public members."""
    batcher = engine(doubled)
    members = {"aclose", "close", "drain", "flush", "is_running", "name", "start", "stats", "stop", "waiting"}
    members |= {"submit", "submit_many"}
    assert members == {name for name in dir(batcher) if not name.startswith("_")}


def test_leaving_a_context_manager_closes_the_function():
    """Leaving a ``with`` or ``async with`` block closes the function."""
    with microbatch(sync) as fn:
        assert 2 == fn(1)
    with pytest.raises(batchify.BatcherClosedError):
        fn(1)

    async def main():
        async with microbatch(on_loop) as fn:
            assert 2 == await fn(1)
        with pytest.raises(batchify.BatcherClosedError):
            await fn(1)

    run(main())
