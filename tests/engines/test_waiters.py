"""The waiter of a task: what a call awaits on asyncio's own loops, in each unusual situation."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
from asyncio import CancelledError, InvalidStateError
from contextlib import suppress

import anyio
import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from batchify import microbatch
from batchify._asyncio import waiters
from batchify.testing import VirtualLoop
from tests.kit.steps import at_steps

HOUR = 3600


def echo_of(answer=lambda items: items, **options):
    """Return a decorated echo function, and the list of its batches."""
    batches = []

    @microbatch(**options)
    async def echo(items):
        batches.append(list(items))
        return answer(items)

    return echo, batches


def suspended(call):
    """Begin a coroutine by hand, and return what it awaits."""
    return call.send(None)


def queued(fn):
    """Return the queued items of a decorated function."""
    return fn._self_route.find().waiting()


def counts(fn):
    """Return the numbers of answered, failed, cancelled and waiting calls."""
    stats = fn.batch_stats
    return stats.answered_items, stats.failed_items, stats.cancelled_items, stats.pending


def kinds(ends):
    """Return results as they are, and the types of exceptions."""
    return [type(end) if isinstance(end, BaseException) else end for end in ends]


@pytest.fixture(params=["task", "python task", "debug mode", "eager task"])
def loop(request):
    """Make a loop with tasks of one kind."""
    if request.param == "eager task" and sys.version_info < (3, 12):
        pytest.skip("eager tasks came with Python 3.12")
    loop = VirtualLoop()
    if request.param == "python task":
        loop.set_task_factory(lambda loop, coro, **kwargs: asyncio.tasks._PyTask(coro, loop=loop, **kwargs))
    if request.param == "debug mode":
        loop.set_debug(True)
    if request.param == "eager task":
        loop.set_task_factory(asyncio.eager_task_factory)
    yield loop
    loop.close()


def test_results_errors_and_cancellations(loop):
    """Calls of one batch get their own results and errors, and those that left are not run."""
    echo, batches = echo_of(lambda items: [KeyError(item) if item == 2 else item for item in items], timeout=HOUR)

    async def main():
        calls = [loop.create_task(echo(item)) for item in (1, 2, 3, 4)]
        await asyncio.sleep(0)
        calls[2].cancel()
        await asyncio.sleep(0)
        echo.flush()
        return await asyncio.gather(*calls, return_exceptions=True)

    assert [1, KeyError, CancelledError, 4] == kinds(loop.run_until_complete(main()))
    assert ([[1, 2, 4]], (2, 1, 1, 0)) == (batches, counts(echo))


def test_a_call_that_is_cancelled_while_it_waits(loop):
    """``wait_for``, and a cancelled scope of anyio, end a call and remove its item."""
    echo, batches = echo_of(timeout=HOUR)

    async def main():
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(echo(1), 1)
        with anyio.move_on_after(1) as scope:
            await echo(2)
        assert scope.cancelled_caught

    loop.run_until_complete(main())
    assert ([], (0, 0, 2, 0)) == (batches, counts(echo))


async def test_a_call_that_is_cancelled_between_its_answer_and_its_wake_up():
    """A caller that is cancelled when it has its answer, but does not run yet, is cancelled; the call has an answer."""
    echo, _ = echo_of(lambda items: asyncio.get_running_loop().call_soon(gone.cancel) and items)
    gone, stays = (asyncio.ensure_future(echo(item)) for item in (1, 2))
    await asyncio.sleep(0)
    # The callback of the batch function runs before the one that wakes the tasks, but after the answers.
    ends = await asyncio.gather(gone, stays, return_exceptions=True)
    assert ([CancelledError, 2], (2, 0, 0, 0)) == (kinds(ends), counts(echo))


async def test_tasks_and_futures_share_a_batch():
    """A batch of tasks and futures answers each, also if one has left while it ran."""

    @microbatch
    async def echo(items):
        await asyncio.sleep(1)
        return items

    tasks = [asyncio.ensure_future(echo(item)) for item in (1, 2)]
    await asyncio.sleep(0)
    futures = [echo.submit(item) for item in (3, 4)]
    await asyncio.sleep(0.5)
    tasks[0].cancel()
    futures[0].cancel()
    ends = await asyncio.gather(*tasks, *futures, return_exceptions=True)
    assert [CancelledError, 2, CancelledError, 4] == kinds(ends)
    assert (2, 0, 2, 0) == counts(echo)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("through", ["coroutine", "acall"])
def test_a_task_that_raises_when_it_wakes_does_not_stop_the_others(error, through):
    """If the step of one task ends the program, the loop raises that, and the other callers of its batch still wake."""
    loop = asyncio.new_event_loop()
    if through == "acall":
        echo = microbatch(lambda items: items, max_size=3).acall
    else:
        echo, _ = echo_of(max_size=3)

    async def call(item):
        result = await echo(item)
        if item == 1:
            raise error
        return result

    tasks = [loop.create_task(call(item)) for item in range(3)]
    with pytest.raises(error):
        loop.run_until_complete(asyncio.wait(tasks))
    others = loop.run_until_complete(asyncio.wait_for(asyncio.gather(tasks[0], tasks[2]), 1))
    assert ([0, 2], error) == (others, type(tasks[1].exception()))
    loop.close()


@pytest.mark.untraced
def test_an_interrupt_at_any_step_while_tasks_are_answered():
    """If Ctrl-C interrupts the answering of a batch, every task still wakes, with its answer or with an error.

    Without an interrupt, what is to happen after the tasks have woken happens after all of them.
    """
    number = steps = 0
    woken = []
    while number <= steps:
        loop = VirtualLoop()
        calls = [waiters.new_waiter(loop) for _ in range(3)]
        seen = []
        for call in calls:
            call.add_done_callback(seen.append)

        def interrupt(step, number=number):
            if step == number:
                raise KeyboardInterrupt

        def answer(loop=loop, calls=calls, seen=seen):
            try:
                waiters.answer_all(loop, calls, [1, 2, 3], lambda: woken.append(len(seen)))
            except KeyboardInterrupt:
                for call in calls:
                    if not call.done():
                        call.set_exception(KeyError())

        steps = at_steps(answer, interrupt)
        loop.run_until_complete(asyncio.sleep(0))
        loop.run_until_complete(asyncio.sleep(0))
        assert calls == sorted(seen, key=calls.index)
        loop.close()
        number += 1
    assert number > 10
    assert 3 == woken[-1]


async def test_a_coroutine_driven_by_hand():
    """Code that drives a coroutine itself uses the waiter like a future: it gets the result, or the error."""
    echo, _ = echo_of(lambda items: [KeyError() if item == 2 else item for item in items])
    variable = contextvars.ContextVar("variable", default="outside")
    seen = []
    calls = [echo(item) for item in (1, 2, 3)]
    one, two, three = map(suspended, calls)
    variable.set("inside")
    for number in range(2):
        one.add_done_callback(lambda waiter, number=number: seen.append((waiter, number, variable.get())))
    variable.set("later")
    assert {(True, asyncio.get_running_loop())} == {
        (asyncio.isfuture(call), call.get_loop()) for call in (one, two, three)
    }
    assert [False] * 3 == [waiter.done() or waiter.cancelled() for waiter in (one, two, three)]
    with pytest.raises(InvalidStateError, match="no answer yet"):
        one.result()
    assert three.cancel("a message")
    # Three loop iterations: the batch, the answers, and the second callback.
    for _ in range(3):
        await asyncio.sleep(0)
    assert [(one, 0, "inside"), (one, 1, "inside")] == seen
    assert (1, None, KeyError) == (one.result(), one.exception(), type(two.exception()))
    assert [False] * 3 == [waiter.cancel() for waiter in (one, two, three)]
    with pytest.raises(CancelledError, match="a message"):
        three.exception()
    for late in (one, two):
        late.add_done_callback(seen.append)
    await asyncio.sleep(0)
    assert [one, two] == seen[2:]
    for call, end in zip(calls, (StopIteration, KeyError, CancelledError), strict=True):
        with pytest.raises(end):
            call.send(None)
    assert (1, 1, 1, 0) == counts(echo)


async def test_a_coroutine_that_nothing_waits_for():
    """A coroutine whose driver adds no callback can be resumed once its batch has ended."""
    echo, _ = echo_of()
    call = echo(1)
    suspended(call)
    await asyncio.sleep(1)
    with pytest.raises(StopIteration) as end:
        call.send(None)
    assert (1, (1, 0, 0, 0)) == (end.value.value, counts(echo))


async def test_a_coroutine_that_is_resumed_too_early():
    """A coroutine that is resumed before its answer raises an error, and its item is removed."""
    echo, batches = echo_of()
    call = echo(1)
    suspended(call)
    with pytest.raises(InvalidStateError):
        call.send(None)
    await asyncio.sleep(1)
    assert ([], (0, 0, 1, 0)) == (batches, counts(echo))


@pytest.mark.parametrize("end", [lambda call: call.close(), lambda call: call.throw(KeyError)], ids=["close", "throw"])
async def test_a_coroutine_that_ends_while_it_waits(end):
    """If a waiting coroutine is closed, or code throws into it, its item is removed."""
    echo, batches = echo_of()
    call = echo(1)
    suspended(call)
    with suppress(KeyError):
        end(call)
    await asyncio.sleep(1)
    assert ([], (0, 0, 1, 0)) == (batches, counts(echo))


class TestFuturesOfWaitingCalls:
    """``waiting()`` gives each call of a task a future."""

    async def test_the_future_follows_its_call(self, caplog):
        """It gets the result or the error of the call, of which nobody need ask it, and is the same each time."""
        echo, _ = echo_of(lambda items: [KeyError() if item == 2 else item for item in items], timeout=HOUR)
        calls = [asyncio.ensure_future(echo(item)) for item in (1, 2, 3)]
        await asyncio.sleep(0)
        futures = [item.future for item in queued(echo)]
        assert futures == [item.future for item in queued(echo)]
        assert [True] * 3 == [isinstance(future, asyncio.Future) for future in futures]
        calls[2].cancel()
        echo.flush()
        ends = await asyncio.gather(*calls, return_exceptions=True)
        await asyncio.sleep(0)
        assert (1, ends[1], True) == (futures[0].result(), futures[1].exception(), futures[2].cancelled())
        assert [False] * 3 == [future.cancel() for future in futures]
        del futures, calls, ends
        gc.collect()
        assert [] == caplog.records

    async def test_cancelling_the_future_cancels_its_call(self):
        """The caller gets a ``CancelledError``, and the item is not run."""
        echo, batches = echo_of(timeout=HOUR)
        call = asyncio.ensure_future(echo(1))
        await asyncio.sleep(0)
        [item] = queued(echo)
        assert (True, True) == (item.future.cancel(), item.future.cancelled())
        with pytest.raises(CancelledError):
            await call
        assert ([], (0, 0, 1, 0)) == (batches, counts(echo))

    async def test_another_thread_may_ask(self):
        """A future that another thread asked for follows its call too."""
        echo, _ = echo_of(timeout=HOUR)
        call = asyncio.ensure_future(echo(1))
        await asyncio.sleep(0)
        [item] = await asyncio.get_running_loop().run_in_executor(None, queued, echo)
        echo.flush()
        assert (1, 1) == (await call, await item.future)

    async def test_the_future_of_a_call_from_a_task_to_a_thread(self):
        """The call of a task to a ``def`` function has such a future too."""
        echo = microbatch(lambda items: items, timeout=HOUR)
        call = asyncio.ensure_future(echo.acall(1))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        [item] = queued(echo)
        assert item.future.cancel()
        with pytest.raises(CancelledError):
            await call
        assert (0, 0, 1, 0) == counts(echo)

    def test_a_loop_that_is_closed_meanwhile(self):
        """A call whose loop is closed while a thread asks for its future has one without an end."""
        echo, _ = echo_of(timeout=HOUR)
        loop = VirtualLoop()
        call = echo(1)
        loop.call_soon(suspended, call)
        loop.run_until_complete(asyncio.sleep(0))
        [engine] = echo._self_route.find()._engines()
        loop.close()
        [item] = engine.waiting()
        assert not item.future.done()
        assert [] == queued(echo)
        call.close()


def test_other_loops_have_futures():
    """On a loop of uvloop, a call awaits a plain future, with the same results, errors and cancellations."""
    echo, batches = echo_of(lambda items: [KeyError() if item == 2 else item for item in items], timeout=HOUR)

    async def main():
        calls = [asyncio.ensure_future(echo(item)) for item in (1, 2, 3, 4)]
        await asyncio.sleep(0)
        assert [asyncio.Future] * 4 == [type(item.future) for item in queued(echo)]
        calls[2].cancel()
        echo.flush()
        ends = await asyncio.gather(*calls, return_exceptions=True)
        assert [1, KeyError, CancelledError, 4] == kinds(ends)

    loop = uvloop.new_event_loop()
    loop.run_until_complete(main())
    loop.close()
    assert ([[1, 2, 4]], (2, 1, 1, 0)) == (batches, counts(echo))


STEPS = st.lists(
    st.tuples(st.sampled_from(["add", "remove", "set_result", "set_exception", "cancel", "wait"]), st.integers(0, 2)),
    max_size=12,
)


@given(STEPS)
def test_a_future_of_submit_is_a_future_of_asyncio(steps):
    """A future of ``submit()`` calls its callbacks in the order, context and iteration in which one of asyncio does."""

    def log_of(make_future):
        log = []
        variable = contextvars.ContextVar("variable", default=None)

        def callback(number):
            return lambda future: log.append((number, variable.get(), future.done()))

        callbacks = [callback(number) for number in range(3)]
        others = {
            "add": lambda future, number: future.add_done_callback(callbacks[number]),
            "remove": lambda future, number: future.remove_done_callback(callbacks[number]),
            "set_result": lambda future, number: future.set_result(number),
            "set_exception": lambda future, number: future.set_exception(KeyError(number)),
            "cancel": lambda future, number: future.cancel(f"message {number}"),
        }

        async def run():
            future = make_future()
            for position, (step, number) in enumerate(steps):
                variable.set(position)
                if step == "wait":
                    await asyncio.sleep(0)
                    log.append("waited")
                    continue
                try:
                    log.append((step, others[step](future, number)))
                except InvalidStateError:
                    log.append((step, "too late"))
            await asyncio.sleep(0)
            log.append((future.done(), future.cancelled()))
            future.cancel()
            log.append(future.cancelled() or repr(future.exception() or future.result()))
            return future

        loop = VirtualLoop()
        future = loop.run_until_complete(run())
        loop.close()
        return [*log, future.cancel()]

    echo, batches = echo_of(timeout=HOUR)
    assert log_of(lambda: asyncio.get_running_loop().create_future()) == log_of(lambda: echo.submit(1))
    assert [] == batches


@pytest.mark.parametrize("leaves", [False, True])
async def test_callbacks_of_a_batch_of_futures(leaves, caplog):
    """All callbacks of a batch run in one iteration. If one raises, the others run in the next."""
    echo, batches = echo_of()
    iterations, seen, calls = [], [], [echo.submit(item) for item in range(4)]

    def called(future):
        seen.append((calls.index(future), len(iterations)))
        if future is calls[1]:
            raise KeyError

    for call in calls:
        call.add_done_callback(called)
    if leaves:
        calls[2].cancel()
    while len(seen) < 4:
        await asyncio.sleep(0)
        iterations.append(None)
    assert seen == ([(2, 0), (0, 1), (1, 1), (3, 2)] if leaves else [(0, 1), (1, 1), (2, 2), (3, 2)])
    assert [KeyError] == [record.exc_info[0] for record in caplog.records]
    assert [[0, 1, 3] if leaves else [0, 1, 2, 3]] == batches
    assert (4 - leaves, 0, leaves, 0) == counts(echo)
