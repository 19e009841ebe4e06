"""The bridge: calls of one loop iteration on their way to the thread engine."""

from __future__ import annotations

import asyncio
from contextlib import closing

import pytest

from batchify import BatchAbortedError, BatcherClosedError, microbatch
from batchify._asyncio.waiters import new_waiter, wake
from batchify._batcher.draining import Drain
from batchify._bridge import BridgedChannel, BridgedWaiter, Mailbox
from batchify._threads import workers as _workers
from batchify._threads.engine import ThreadEngine
from tests.kit.engines import HOUR, PATIENCE, await_queued, wait_until


@pytest.fixture
def kit(threads):
    return threads


def begin(call):
    """Run a coroutine until it waits, as its task does in its first step."""
    call.send(None)
    return call


def counts(fn):
    return fn.batch_stats.pending, fn.batch_stats.cancelled_items


async def test_calls_leave_before_they_cross(kit):
    """Calls of a loop iteration that leave in the same iteration, in any order, are not run; the others are."""
    double, gate = kit.decorate(timeout=HOUR)
    calls = [begin(double.acall(item)) for item in range(7)]
    for leaving in (1, 4, 3, 6):
        calls[leaving].close()
    assert (3, 4) == counts(double)
    calls.append(begin(double.acall(7)))
    calls[0].close()
    double.flush()
    gate.await_batch()
    assert [[2, 5, 7]] == gate.batches
    for call in calls:
        call.close()


async def test_calls_leave_after_others_left_before_them(kit):
    """Calls leave the queue at once, also if earlier calls of their loop iteration left before they entered it."""
    double, gate = kit.held()
    calls = [begin(double.acall(item)) for item in range(1, 7)]
    for leaving in (0, 2):
        calls[leaving].close()
    double.flush()
    for leaving in (5, 1):
        calls[leaving].close()
    assert (2, 4) == counts(double)
    gate.open()
    gate.await_batch()
    assert [[0], [4, 5]] == gate.batches
    for call in calls:
        call.close()


async def test_calls_leave_from_between_calls_of_threads(kit):
    """A call leaves the queue at once if calls of threads are around it."""
    double, gate = kit.held()
    others = kit.call_waiting(double, 1)
    call = asyncio.ensure_future(double.acall(2))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    others += kit.call_waiting(double, 3)
    call.cancel()
    await asyncio.sleep(0)
    assert (2, 1) == counts(double)
    gate.open()
    assert [2, 6] == kit.results(others)
    assert [[0], [1, 3]] == gate.batches


async def test_calls_cross_to_a_queue_that_needs_more_than_items(kit):
    """Calls on their way get their answers, or leave at once, although a later call has a priority."""
    double, gate = kit.held()
    early = [asyncio.ensure_future(double.acall(item)) for item in (1, 2, 3)]
    await asyncio.sleep(0)
    urgent = double.options(priority=1).submit(4)
    await asyncio.sleep(0)
    early[1].cancel()
    await asyncio.sleep(0)
    assert (3, 1) == counts(double)
    gate.open()
    assert [2, 6, 8] == [await early[0], await early[2], urgent.result(PATIENCE)]
    assert [[0], [4, 1, 3]] == gate.batches


async def test_calls_on_their_way_to_a_changed_queue_are_counted(kit, monkeypatch):
    """At every moment, the statistics count the calls that enter a changed queue one by one."""
    double, gate = kit.held()
    enter, pending = ThreadEngine.enter, []

    def enter_between_readers(*call):
        pending.append(double.batch_stats.pending)
        mark = enter(*call)
        pending.append(double.batch_stats.pending)
        return mark

    early = [asyncio.ensure_future(double.acall(item)) for item in (1, 2, 3)]
    await asyncio.sleep(0)
    urgent = double.options(priority=1).submit(4)
    monkeypatch.setattr(ThreadEngine, "enter", enter_between_readers)
    await asyncio.sleep(0)
    assert [4] * 6 == pending
    gate.open()
    assert [2, 4, 6, 8] == [*await asyncio.gather(*early), urgent.result(PATIENCE)]


@pytest.mark.parametrize("interrupts", [1, 2, 3])
def test_an_interrupt_as_calls_enter_one_by_one(kit, monkeypatch, interrupts):
    """Ctrl-C as a call enters a changed queue is the answer of this call. The others enter it later."""
    double, gate = kit.held()
    enter, calls, entered = ThreadEngine.enter, [], []

    def enter_interrupted(self, item, *rest):
        entered.append(item)
        if 1 < len(entered) <= 1 + interrupts:
            raise KeyboardInterrupt
        return enter(self, item, *rest)

    async def call():
        calls.extend(asyncio.ensure_future(double.acall(item)) for item in range(1, 4 + interrupts))
        await asyncio.sleep(0)
        calls.append(asyncio.wrap_future(double.options(priority=1).submit(9)))
        monkeypatch.setattr(ThreadEngine, "enter", enter_interrupted)
        await asyncio.sleep(0)

    async def answers():
        gate.open()
        return await asyncio.gather(*calls, return_exceptions=True)

    raised = 0
    with closing(asyncio.new_event_loop()) as loop:
        for main in (call(), *(asyncio.sleep(0.01) for _ in range(interrupts))):
            try:
                loop.run_until_complete(main)
            except KeyboardInterrupt:
                raised += 1
        first, *others, before_last, last, urgent = loop.run_until_complete(answers())
    assert [2, 2 * (2 + interrupts), 2 * (3 + interrupts), 18] == [first, before_last, last, urgent]
    assert [BatchAbortedError] * interrupts == [*map(type, others)]
    assert interrupts == raised


async def test_a_crossing_that_fails_again_is_given_up(kit, monkeypatch, caplog):
    """A crossing that fails twice without progress is not tried again, and its call can leave."""
    double, _ = kit.decorate()

    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(ThreadEngine, "enter_all", fail)
    call = asyncio.ensure_future(double.acall(1))
    for _ in range(9):
        await asyncio.sleep(0)
    assert [MemoryError] * 2 == [record.exc_info[0] for record in caplog.records]
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert (0, 1) == counts(double)


@pytest.mark.parametrize(("interrupts", "end"), [(1, 2), (2, asyncio.CancelledError)])
def test_an_interrupt_as_answers_return(kit, monkeypatch, interrupts, end):
    """Ctrl-C as the answers of a batch reach their loop delays them. After another one, a call can be cancelled."""
    double, _ = kit.decorate()
    raised = []

    def wake_interrupted(*arguments):
        if len(raised) < interrupts:
            raised.append(KeyboardInterrupt)
            raise KeyboardInterrupt
        wake(*arguments)

    monkeypatch.setattr("batchify._bridge.wake", wake_interrupted)
    with closing(asyncio.new_event_loop()) as loop:
        call = loop.create_task(double.acall(1))
        for _ in range(interrupts):
            with pytest.raises(KeyboardInterrupt):
                loop.run_until_complete(asyncio.wait([call], timeout=PATIENCE))
        if interrupts == 1:
            assert end == loop.run_until_complete(call)
        else:
            call.cancel()
            with pytest.raises(end):
                loop.run_until_complete(call)


async def test_an_interrupt_as_values_return(kit, monkeypatch, caplog):
    """An exception, as of a signal handler, as values of streams reach their loop only delays them."""

    @microbatch(timeout=0)
    def values(items):
        for number in range(2):
            yield [(item, number) for item in items]

    deliver = BridgedChannel.deliver

    def deliver_interrupted(channel):
        monkeypatch.setattr(BridgedChannel, "deliver", deliver)
        raise MemoryError

    monkeypatch.setattr(BridgedChannel, "deliver", deliver_interrupted)
    assert [("a", 0), ("a", 1)] == [value async for value in values.acall("a")]
    assert [MemoryError] == [record.exc_info[0] for record in caplog.records]


async def test_a_call_on_its_way_to_a_closed_engine_is_refused(kit, monkeypatch):
    """A call that arrives while the engine closes is refused; if its caller has left, nothing happens."""
    double, gate = kit.decorate()
    enter, calls, futures = ThreadEngine._enter_crossings, [], []

    def enter_and_call(self):
        monkeypatch.setattr(ThreadEngine, "_enter_crossings", enter)
        enter(self)
        calls.extend(double.acall(item) for item in (1, 2, 3))
        futures.extend(call.send(None) for call in calls)

    monkeypatch.setattr(ThreadEngine, "_enter_crossings", enter_and_call)
    assert 0 == await double.acall(0)
    double.close()
    calls[0].close()
    # As a task does that is cancelled.
    futures[1].cancel()
    await asyncio.sleep(0)
    for call, error in ((calls[1], asyncio.CancelledError), (calls[2], BatcherClosedError)):
        with pytest.raises(error):
            call.send(None)
    assert ([[0]], (0, 0)) == (gate.batches, counts(double))


async def test_no_thread_for_calls_on_their_way(kit, monkeypatch):
    """If no thread can be started, all calls of the loop iteration fail, and later calls try again."""
    double, _ = kit.decorate()

    def fail(self):
        message = "can't start new thread"
        raise RuntimeError(message)

    with monkeypatch.context() as patch:
        patch.setattr(_workers.Thread, "start", fail)
        errors = await asyncio.gather(double.acall(1), double.acall(2), return_exceptions=True)
    assert ["can't start new thread"] * 2 == [*map(str, errors)]
    assert (2, 6) == (double.batch_stats.failed_items, await double.acall(3))


@pytest.mark.parametrize("leaves", [True, False], ids=["closed coroutine", "kept coroutine"])
def test_a_loop_is_closed_while_calls_are_on_their_way(kit, leaves):
    """A call that has left is not run; another one is, and its answer is dropped."""
    double, gate = kit.decorate(timeout=HOUR)
    loop = asyncio.new_event_loop()
    calls = [double.acall(1), double.acall(2)]

    def begin_all_and_stop():
        for call in calls:
            begin(call)
        loop.stop()

    loop.call_soon(begin_all_and_stop)
    loop.run_forever()
    loop.close()
    if leaves:
        for call in calls:
            call.close()
        assert (0, 2) == counts(double)
    double.close()
    assert ([] if leaves else [[1, 2]], 0) == (gate.batches, double.batch_stats.pending)
    for call in calls:
        call.close()


async def test_answers_of_a_batch_with_callers_of_each_kind(kit):
    """Threads, futures, and tasks of two loops share a batch: each gets its own result, or its own error."""

    def check(items):
        return [ValueError(item) if item % 2 else item for item in items]

    fn, gate = kit.held(answer=check, max_size=8)
    callers = kit.call_waiting(fn, 1, 2)
    futures = [fn.submit(3), fn.submit(4)]
    here = [asyncio.ensure_future(fn.acall(item)) for item in (5, 6)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    there = kit.call(asyncio.run, gathered(fn, 7, 8, 9))
    await_queued(fn, 9)
    here[0].cancel()
    futures[1].cancel()
    await asyncio.wait(here[:1])
    callers += kit.call_waiting(fn, 10)
    gate.open()
    await asyncio.wait(here)
    assert [2, 10] == [caller.result(PATIENCE) for caller in callers[1:]]
    assert ("1", "3", 6) == (str(callers[0].exception(PATIENCE)), str(futures[0].exception(PATIENCE)), await here[1])
    assert ["7", "8", "9"] == [*map(str, there.result(PATIENCE))]
    assert [[0], [1, 2, 3, 6, 7, 8, 9, 10]] == gate.batches


async def gathered(fn, *items):
    return await asyncio.gather(*map(fn.acall, items), return_exceptions=True)


async def test_a_caller_leaves_a_batch_with_callers_of_each_kind(kit):
    """A task that is cancelled while such a batch runs counts as cancelled, and the others get their answers."""
    double, gate = kit.decorate(timeout=HOUR, max_size=3)
    gate.shut()
    others = [*kit.call_waiting(double, 1), double.submit(2)]
    task = asyncio.ensure_future(double.acall(3))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    gate.await_batch()
    task.cancel()
    await asyncio.wait([task])
    gate.open()
    assert [2, 4] == kit.results(others)
    wait_until(lambda: double.batch_stats.running == 0)
    assert ([[1, 2, 3]], (0, 1), 2) == (gate.batches, counts(double), double.batch_stats.answered_items)


def test_values_for_a_closed_loop_are_dropped():
    """The values of a stream whose loop is closed are not kept, and raise no error in the thread of the batch."""
    loop = asyncio.new_event_loop()
    mailbox = Mailbox(loop)
    loop.close()
    for _ in range(2):
        mailbox.put("channel")
    assert [] == list(mailbox._put)


def test_a_batch_of_several_loops():
    """The tasks of each loop get their own answers from one batch. A loop that is closed meanwhile does no harm."""
    loops = [asyncio.new_event_loop() for _ in range(3)]
    futures = [loops[number].create_future() for number in (0, 1, 2, 0)]
    loops[2].close()
    BridgedWaiter.answer_all(futures, [10, 11, 12, 13])
    first, second = loops[:2]
    assert [10, 11, 13] == [
        loop.run_until_complete(future)
        for loop, future in ((first, futures[0]), (second, futures[1]), (first, futures[3]))
    ]
    first.close()
    second.close()


async def test_calls_that_cross_to_a_closed_engine(kit):
    """A call that found the engine open, but is on its way when it closes, is refused by that thread."""
    double, _ = kit.decorate()
    call = begin(double.acall(1))
    engine = double._self_route.find()._engine
    crossing = engine.crossing
    engine.drain(Drain(engine.line.queue, "close"))
    late = new_waiter(crossing.loop)
    crossing.calls += (2, late, 0.0)
    assert 1 == crossing.waiting
    await asyncio.get_running_loop().run_in_executor(None, engine.flush)
    assert 0 == crossing.waiting
    with pytest.raises(BatcherClosedError):
        await late
    call.close()


async def test_a_call_that_enters_alone_and_fails(kit, monkeypatch):
    """A call that crosses by itself, because the engine has changed its queue, gets the error of its arrival."""

    def cannot_start(thread):
        raise RuntimeError

    double, _ = kit.decorate()
    call = begin(double.acall(1))
    double._self_route.find()._change({"takes_requests": True})
    monkeypatch.setattr(_workers.Thread, "start", cannot_start)
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError):
        call.send(None)
    assert (0, 0) == (double.batch_stats.pending, double.batch_stats.total_items)
