"""The promises of the decorator, walked line by line through both engines: what it takes, offers and means."""

from __future__ import annotations

import asyncio
import copy
import functools
import inspect
import pickle
import sys
import threading
from array import array
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

import batchify
from batchify import BatchResultError, BatchStats, microbatch
from batchify.testing import run
from tests.kit.engines import PATIENCE, doubled

SPELLINGS = {
    "@microbatch": microbatch,
    "@microbatch()": microbatch(),
    "@microbatch(max_size=8)": microbatch(max_size=8),
    "microbatch(fn, max_size=8)": functools.partial(microbatch, max_size=8),
}


def sync(items):
    """Double the items."""
    return doubled(items)


async def on_loop(items):
    """Double the items."""
    return doubled(items)


def answered(call):
    """Return what comes of a call, awaited if it has to be, in virtual time."""

    async def main():
        outcome = call()
        return await outcome if inspect.isawaitable(outcome) else outcome

    return run(main())


@pytest.mark.parametrize("fn", [sync, on_loop])
@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
def test_all_four_spellings(spelling, fn):
    """However it is spelt, a call takes one item and returns one result."""
    assert 42 == answered(lambda: spelling(fn)(21))


class Sync:
    """Every kind of method."""

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
    """The same for event loops."""

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
    "somebody's bound method": lambda owner: microbatch(owner.plain),
}


@pytest.mark.parametrize("owner", [Sync, OnLoop])
@pytest.mark.parametrize("kind", KINDS)
def test_everything_that_can_be_called(kind, owner):
    """Functions, methods of every kind, callables, partials and bound methods are decorated alike."""
    fn = KINDS[kind](owner())
    assert 42 == answered(lambda: fn(21))
    # What a classmethod around a decorated function passes on from it.
    if kind != "class method outside" or sys.version_info < (3, 13):
        assert [2, 4] == answered(lambda: fn.map([1, 2]))
        assert 42 == answered(lambda: fn.acall(21))


# What the options are if nobody says, and what happens then.


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


def batches_of(kit, items, **options):
    """Return the batches that ``items``, which come while another batch runs, travel in."""
    fn, gate = kit.held(**options)
    callers = kit.call_waiting(fn, *items)
    gate.open()
    kit.results(callers)
    return gate.batches[1:]


def test_max_size(kit):
    """No batch has more items."""
    assert [[1, 2], [3]] == batches_of(kit, [1, 2, 3], max_size=2)


def test_weigh_and_max_weight(kit):
    """The weights of a batch never sum above the most, and order is kept."""
    assert [[4, 1], [5], [1]] == batches_of(kit, [4, 1, 5, 1], weigh=lambda item: item, max_weight=5)


def test_group_by(kit):
    """Only equal groups share a batch, the oldest head leaves first."""
    assert [[1, 3], [2, 4]] == batches_of(kit, [1, 2, 3, 4], group_by=lambda item: item % 2)


def test_dedupe(kit):
    """Equal items are sent once."""
    assert [[1, 2]] == batches_of(kit, [1, 2, 1, 2, 1], dedupe=True)


def test_timeout_zero(kit):
    """With a window of 0, what is there leaves as soon as a slot is free."""
    assert [[1, 2, 3]] == batches_of(kit, [1, 2, 3], timeout=0)


def test_the_window_begins_with_the_arrival():
    """Time spent waiting for a busy function counts: the window is over when it falls free."""

    @microbatch(timeout=1)
    async def slow(items):
        await asyncio.sleep(10)
        return items

    async def main():
        first = slow.submit(1)
        await asyncio.sleep(5)
        await asyncio.gather(first, slow(2))
        return asyncio.get_running_loop().time()

    # The window, the first run, and the second, which began at once.
    assert 21 == run(main())


def test_name(kit):
    """The name is in statistics and errors."""
    fn, _ = kit.decorate(lambda items: [], name="mine")
    error = kit.call(fn, 1).exception(PATIENCE)
    assert ("mine", True) == (fn.batch_stats.name, str(error).startswith("mine() was given 1 item"))


# What is batched, and what is returned.


def test_a_function_without_a_column_is_refused():
    """There must be something that batches are made of, and not any number of it."""
    for fn in (list, lambda *items: items, lambda *, items: items, lambda items=(): items):
        with pytest.raises(TypeError):
            microbatch(fn)


def test_wrong_arguments_fail_before_anything_is_queued():
    """A call with wrong arguments fails as one of any Python function does."""
    fn = microbatch(sync)
    for args, kwargs in (((), {}), ((1, 2), {}), ((1,), {"size": 2})):
        with pytest.raises(TypeError):
            fn(*args, **kwargs)
    assert (0, 0) == (fn.batch_stats.total_items, fn.batch_stats.pending)


@pytest.mark.parametrize(
    "returned",
    [[2, 4], (2, 4), array("i", [2, 4]), range(2, 5, 2)],
    ids=lambda returned: type(returned).__name__,
)
def test_whatever_has_a_length_and_an_order(kit, returned):
    """A list, tuple or array is handed over, one result to each caller."""
    fn, _ = kit.decorate(lambda items: returned, timeout=3600, max_size=2)
    assert [2, 4] == kit.results(kit.call_waiting(fn, 1, 2))


@pytest.mark.parametrize(
    "returned",
    [None, [2], {1: 2, 2: 4}, {2, 4}, "24", b"24", iter([2, 4])],
    ids=lambda returned: type(returned).__name__,
)
def test_what_is_no_list_of_results(kit, returned):
    """A wrong number, or what has no order or is one value, is refused for every caller."""
    fn, _ = kit.decorate(lambda items: returned, timeout=3600, max_size=2)
    callers = kit.call_waiting(fn, 1, 2)
    assert [BatchResultError] * 2 == list(map(type, kit.errors(callers)))


def test_an_exception_as_a_result(kit):
    """A result that is an ``Exception`` is raised to its own caller only."""
    fn, _ = kit.decorate(lambda items: [ValueError(), items[1]], timeout=3600, max_size=2)
    callers = kit.call_waiting(fn, 1, 2)
    assert [ValueError, None] == [error and type(error) for error in kit.errors(callers)]


# What a decorated function offers.


def test_members_of_a_def_function():
    """Each member does what the table says, for a function whose callers block."""
    fn = microbatch(sync)
    assert 2 == fn(1)
    future = fn.submit(1)
    assert (True, 2) == (isinstance(future, Future), future.result(PATIENCE))
    assert [2, 4] == fn.map([1, 2])
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
    """Each member does what the table says, for a function whose callers await."""
    fn = microbatch(on_loop)
    assert 2 == await fn(1)
    future = fn.submit(1)
    assert (True, 2) == (isinstance(future, asyncio.Future), await future)
    assert [2, 4] == await fn.map([1, 2])
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


def test_a_coroutine_that_is_never_awaited_queues_nothing():
    """It only warns, as Python does."""
    fn = microbatch(on_loop)

    async def main():
        with pytest.warns(RuntimeWarning, match="never awaited"):
            fn(1)
        await asyncio.sleep(1)

    run(main())
    assert 0 == fn.batch_stats.total_items


decorated = microbatch(sync)


def test_a_good_citizen():
    """It keeps signature, kind, name, documentation and module, and pickles and copies by reference."""
    assert ["items"] == list(inspect.signature(decorated).parameters)
    assert (False, True) == (inspect.iscoroutinefunction(decorated), inspect.iscoroutinefunction(microbatch(on_loop)))
    kept = [(f.__name__, f.__doc__, f.__module__, f.__qualname__) for f in (sync, decorated)]
    assert kept[0] == kept[1]
    assert decorated is copy.copy(decorated)
    assert decorated is copy.deepcopy(decorated)


def test_instances_are_left_alone():
    """Each instance has batches of its own, and nothing of that is seen in it."""
    one, other = Sync(), Sync()
    before = Sync.method.batch_stats.total_items
    assert [2, 4] == [one.method(1), other.method(2)]
    assert [1, 1] == [instance.method.batch_stats.total_items for instance in (one, other)]
    assert before + 2 == Sync.method.batch_stats.total_items
    assert {} == vars(one)
    assert {} == vars(pickle.loads(pickle.dumps(one)))  # noqa: S301  # our own


def test_one_thread_for_one_slot():
    """With one slot and no executor, a function always runs on one and the same thread."""
    fn = microbatch(lambda items: [threading.get_ident()] * len(items), max_size=1)
    assert 1 == len({*fn.map(range(50)), fn(1)})


def test_the_live_ones_are_listed_and_closed():
    """``batchers()`` lists what is live, ``close_all()`` closes it."""
    fn = microbatch(sync, name="listed")
    fn(1)
    assert "listed" in [batcher.name for batcher in batchify.batchers()]
    batchify.close_all()
    with pytest.raises(batchify.BatcherClosedError):
        fn(1)


def test_an_executor_runs_the_batches():
    """With an executor, a batch runs in it."""
    with ThreadPoolExecutor(1, "theirs") as pool:
        fn = microbatch(lambda items: [threading.current_thread().name] * len(items), executor=pool)
        assert "theirs_0" == fn(1)


# Statistics.


def test_before_any_call():
    """All zeros, and no division by them."""
    stats = microbatch(sync).batch_stats
    assert {0} == {value for value in stats.to_dict().values() if isinstance(value, (int, float))}
    assert str(stats)
    assert "<" in stats._repr_html_()


def test_the_calls_add_up_when_the_caller_has_its_answer(kit):
    """When a caller has its answer, the counters include its batch."""
    fn, _ = kit.decorate()
    for calls in range(1, 20):
        kit.call(fn, 1).result(PATIENCE)
        stats = fn.batch_stats
        assert (calls, 0, 0) == (stats.answered_items, stats.pending, stats.running)
