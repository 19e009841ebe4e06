"""The public face of a decorated function: everything that can be decorated, the defaults, and each member."""

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


def answered(call):
    """Return the result of a call, which is awaited if it has to be, in virtual time."""

    async def main():
        outcome = call()
        return await outcome if inspect.isawaitable(outcome) else outcome

    return run(main())


class Sync:
    """Has every kind of method."""

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
    """Has the same methods for event loops."""

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
def test_everything_that_can_be_called(kind, owner):
    """Functions, methods of every kind, callables, partials and bound methods are decorated alike."""
    fn = KINDS[kind](owner())
    assert 42 == answered(lambda: fn(21))
    # Since Python 3.13 a classmethod does not pass these members of the decorated function on.
    if kind != "class method outside" or sys.version_info < (3, 13):
        assert [2, 4] == answered(lambda: fn.map([1, 2]))
        assert 42 == answered(lambda: fn.acall(21))


def test_the_defaults():
    """The defaults are those of the documentation."""
    defaults = {name: p.default for name, p in inspect.signature(microbatch).parameters.items() if name != "fn"}
    assert defaults == {
        "max_size": 32,
        "timeout": None,
        "concurrency": 1,
        "max_pending": None,
        "on_full": "wait",
        "weigh": None,
        "max_weight": None,
        "group_by": None,
        "dedupe": False,
        "isolate_errors": False,
        "executor": None,
        "capture_context": False,
        "on_batch": None,
        "name": None,
    }


def test_name(kit):
    """Statistics and errors have the name."""
    fn, _ = kit.decorate(lambda items: [], name="mine")
    error = kit.call(fn, 1).exception(PATIENCE)
    assert ("mine", True) == (fn.batch_stats.name, str(error).startswith("mine() was given 1 item"))


def test_members_of_a_def_function():
    """Each member works as documented, for a function whose callers block."""
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


async def test_members_of_an_async_function():
    """Each member works as documented, for a function whose callers await."""
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
def test_members_of_the_engine_classes(engine):
    """The engine classes offer these members and no others."""
    batcher = engine(doubled)
    members = {"aclose", "close", "flush", "is_running", "name", "start", "stats", "stop", "waiting"}
    members |= {"submit", "submit_many"}
    assert members == {name for name in dir(batcher) if not name.startswith("_")}


def test_as_context_managers():
    """``with`` and ``async with`` close the function."""
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
