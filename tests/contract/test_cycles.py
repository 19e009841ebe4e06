"""Batches that wait for each other in a cycle: the call that closes it is refused, and no other one."""

from __future__ import annotations

import asyncio
import threading
from functools import partial

import pytest

from batchify import ReentrantCallError, microbatch
from tests.kit.columns import in_time
from tests.kit.engines import PATIENCE, wait_until


def message(name, other):
    return (
        f"{name}() was called from inside a batch of {other}() that a batch of {name}() is waiting for: a deadlock; "
        f"call the batch function with a list instead: {name}.__wrapped__([item])"
    )


class Cycle:
    """Functions of which each calls the next one, and the last calls the first, until ``depth`` calls are made."""

    def __init__(self, kind, count, depth, **options):
        self.depth = depth
        self.functions = [microbatch(kind(self, place), name=f"f{place}", **options) for place in range(count)]

    def next(self, place):
        return self.functions[(place + 1) % len(self.functions)]


def blocking(cycle, place):
    """Return a batch function that calls the next one and blocks."""

    def batch(items):
        return [cycle.next(place)(item + 1) if item + 1 < cycle.depth else "end" for item in items]

    return batch


def on_loop(cycle, place):
    """Return a batch function that awaits the next one."""

    async def batch(items):
        return [await cycle.next(place)(item + 1) if item + 1 < cycle.depth else "end" for item in items]

    return batch


def bridged(cycle, place):
    """Return a plain batch function that awaits the next one on a loop of its own."""

    def batch(items):
        return [asyncio.run(cycle.next(place).acall(item + 1)) if item + 1 < cycle.depth else "end" for item in items]

    return batch


def ask(function):
    """Return the answer or the error of a call from outside."""

    async def call():
        return await function.acall(0)

    try:
        return in_time(lambda: asyncio.run(call()))
    except ReentrantCallError as error:
        return error


KINDS = pytest.mark.parametrize("kind", [blocking, on_loop, bridged])


@KINDS
@pytest.mark.parametrize("count", [2, 3])
def test_the_call_that_closes_a_cycle_is_refused(kind, count):
    """The call that would come back to its own batch is refused at once instead of a deadlock."""
    cycle = Cycle(kind, count, depth=count + 1)
    error = ask(cycle.functions[0])
    assert (ReentrantCallError, message("f0", f"f{count - 1}")) == (type(error), str(error))
    assert [1] * count == [function.batch_stats.failed_items for function in cycle.functions]


@KINDS
def test_a_chain_is_no_cycle(kind):
    """Batches may call other functions as deep as they like."""
    cycle = Cycle(kind, 4, depth=4)
    assert ["end", "end"] == [ask(cycle.functions[0]), ask(cycle.functions[0])]


@KINDS
def test_a_cycle_with_a_free_slot(kind):
    """If the first function has another slot, the call runs there."""
    cycle = Cycle(kind, 2, depth=4, concurrency=2)
    assert "end" == ask(cycle.functions[0])


def test_an_answered_call_closes_no_cycle():
    """A batch that has its answer from another function does not wait for that function."""
    over, go_on = threading.Event(), threading.Event()

    @microbatch
    def first(items):
        if items == ["begin"]:
            second("and be answered")
            over.set()
            assert go_on.wait(PATIENCE)
        return items

    @microbatch
    def second(items):
        return [first("late")] if items == ["call back"] else items

    begun = first.submit("begin")
    assert over.wait(PATIENCE)
    called = second.submit("call back")
    wait_until(lambda: first.batch_stats.pending)
    go_on.set()
    assert ["begin", "late"] == [begun.result(PATIENCE), called.result(PATIENCE)]


def test_two_batches_that_wait_for_each_other():
    """If batches of two functions call each other at the same time, at least one of the calls is refused."""
    both = threading.Barrier(2, timeout=PATIENCE)

    def meeting(other):
        def meet(items):
            if items == ["begin"]:
                both.wait()
                return [other()("go on")]
            return items

        return meet

    first = microbatch(meeting(lambda: second))
    second = microbatch(meeting(lambda: first))
    futures = [first.submit("begin"), second.submit("begin")]
    errors = [in_time(partial(future.exception, PATIENCE)) for future in futures]
    assert {ReentrantCallError} == {type(error) for error in errors if error is not None}
