"""Batches that wait for each other in a cycle: only the call that closes the cycle is refused."""

from __future__ import annotations

import asyncio
import threading
from functools import partial

import pytest

from batchify import ReentrantCallError, microbatch
from tests.kit.columns import in_time
from tests.kit.engines import PATIENCE, wait_until


def expected_message(name, other):
    return (
        f"{name}() was called from inside a batch of {other}() that a batch of {name}() is waiting for: a deadlock; "
        f"call the batch function with a list instead: {name}.__wrapped__([item])"
    )


class Cycle:
    """A ring of functions that each call the next one, until ``depth`` calls have been made."""

    def __init__(self, kind, count, depth, **options):
        self.depth = depth
        self.functions = [microbatch(kind(self, place), name=f"f{place}", **options) for place in range(count)]

    def next(self, place):
        return self.functions[(place + 1) % len(self.functions)]


def blocking(cycle, place):
    """Return a batch function that calls the next function and blocks."""

    def batch(items):
        return [cycle.next(place)(item + 1) if item + 1 < cycle.depth else "end" for item in items]

    return batch


def on_loop(cycle, place):
    """Return an ``async def`` batch function that awaits the next function."""

    async def batch(items):
        return [await cycle.next(place)(item + 1) if item + 1 < cycle.depth else "end" for item in items]

    return batch


def bridged(cycle, place):
    """Return a ``def`` batch function that awaits the next function on its own event loop."""

    def batch(items):
        return [asyncio.run(cycle.next(place).acall(item + 1)) if item + 1 < cycle.depth else "end" for item in items]

    return batch


def mapping(cycle, place):
    """Return a batch function that calls the next function with ``map()``."""

    def batch(items):
        return cycle.next(place).map([items[0] + 1]) if items[0] + 1 < cycle.depth else ["end"]

    return batch


def mapping_on_loop(cycle, place):
    """Return an ``async def`` batch function that awaits ``map()`` of the next function."""

    async def batch(items):
        return await cycle.next(place).map([items[0] + 1]) if items[0] + 1 < cycle.depth else ["end"]

    return batch


def iterating(cycle, place):
    """Return a batch function that iterates over the results of the next function."""

    def batch(items):
        return [*cycle.next(place).imap([items[0] + 1])] if items[0] + 1 < cycle.depth else ["end"]

    return batch


def iterating_on_loop(cycle, place):
    """Return an ``async def`` batch function that iterates over the results of the next function."""

    async def batch(items):
        if items[0] + 1 == cycle.depth:
            return ["end"]
        return [result async for result in cycle.next(place).imap([items[0] + 1])]

    return batch


def outcome_of_call(function):
    """Call a function from outside all batches; return its answer or its ``ReentrantCallError``."""

    async def call():
        return await function.acall(0)

    try:
        return in_time(lambda: asyncio.run(call()))
    except ReentrantCallError as error:
        return error


KINDS = pytest.mark.parametrize(
    "kind", [blocking, on_loop, bridged, mapping, mapping_on_loop, iterating, iterating_on_loop]
)


@KINDS
@pytest.mark.parametrize("count", [2, 3])
def test_the_call_that_closes_a_cycle_is_refused(kind, count):
    """The call that closes a cycle is refused at once, because it would deadlock."""
    cycle = Cycle(kind, count, depth=count + 1)
    error = outcome_of_call(cycle.functions[0])
    assert (ReentrantCallError, expected_message("f0", f"f{count - 1}")) == (type(error), str(error))
    assert [1] * count == [function.batch_stats.failed_items for function in cycle.functions]


@KINDS
def test_a_chain_of_calls_is_allowed(kind):
    """A chain of calls to different functions is allowed at any depth."""
    cycle = Cycle(kind, 4, depth=4)
    assert ["end", "end"] == [outcome_of_call(cycle.functions[0]), outcome_of_call(cycle.functions[0])]


@KINDS
def test_a_cycle_is_allowed_if_a_slot_is_free(kind):
    """A call that closes a cycle runs if its function has a free slot."""
    cycle = Cycle(kind, 2, depth=4, concurrency=2)
    assert "end" == outcome_of_call(cycle.functions[0])


def test_an_answered_call_is_not_part_of_a_cycle():
    """A call that already has its answer is not part of a cycle."""
    answered, go_on = threading.Event(), threading.Event()

    @microbatch
    def first(items):
        if items == ["begin"]:
            second("return at once")
            answered.set()
            assert go_on.wait(PATIENCE)
        return items

    @microbatch
    def second(items):
        return [first("late")] if items == ["call back"] else items

    begun = first.submit("begin")
    assert answered.wait(PATIENCE)
    called = second.submit("call back")
    wait_until(lambda: first.batch_stats.pending)
    go_on.set()
    assert ["begin", "late"] == [begun.result(PATIENCE), called.result(PATIENCE)]


def test_one_of_two_batches_that_call_each_other_is_refused():
    """If two batches call each other's functions at the same time, at least one of the calls is refused."""
    both = threading.Barrier(2, timeout=PATIENCE)

    def calling(other):
        def batch(items):
            if items == ["begin"]:
                both.wait()
                return [other()("go on")]
            return items

        return batch

    first = microbatch(calling(lambda: second))
    second = microbatch(calling(lambda: first))
    futures = [first.submit("begin"), second.submit("begin")]
    errors = [in_time(partial(future.exception, PATIENCE)) for future in futures]
    assert {ReentrantCallError} == {type(error) for error in errors if error is not None}
