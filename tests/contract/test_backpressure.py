"""``max_pending`` and ``on_full``, through both engines and the bridge."""

from __future__ import annotations

import asyncio
import threading

import pytest

from batchify import QueueFullError, ReentrantCallError, microbatch
from tests.kit.engines import PATIENCE, doubled, wait_until
from tests.kit.processes import printed_by


def test_callers_wait_for_room(kit):
    """A caller that finds the queue full waits for room, in order of arrival."""
    double, gate = kit.held(max_pending=2)
    callers = kit.call_waiting(double, 1, 2, 3, 4, 5)
    assert 5 == double.batch_stats.pending
    gate.open()
    assert [2, 4, 6, 8, 10] == kit.results(callers)
    assert [[0], [1, 2], [3, 4], [5]] == gate.batches


def test_a_full_queue_does_not_wait_for_its_window(kit):
    """A full queue starts a batch before its window ends, because no further call can join the batch."""
    double, gate = kit.decorate(timeout=3600, max_pending=2)
    assert [2, 4] == kit.results(kit.call_waiting(double, 1, 2))
    assert 1 == double.batch_stats.reasons["full"]


def test_a_call_without_room_is_refused(kit):
    """With ``on_full="raise"``, a call without room raises ``QueueFullError`` and counts as rejected."""
    double, gate = kit.held(max_pending=1, on_full="raise")
    callers = kit.call_waiting(double, 1)
    error = kit.call(double, 2).exception(PATIENCE)
    expected = (
        "double() has 1 item waiting, as many as max_pending allows; call again later, or wait with on_full='wait'"
    )
    assert (QueueFullError, expected) == (type(error), str(error))
    stats = double.batch_stats
    assert (1, 1, 1) == (stats.rejected_items, stats.pending, stats.running)
    gate.open()
    assert [2] == kit.results(callers)
    assert 6 == kit.call(double, 3).result(PATIENCE)


def test_a_full_queue_refuses_calls_with_a_captured_context(kit):
    """With ``capture_context``, a call without room is refused with the same error."""
    double, gate = kit.held(max_pending=2, on_full="raise", capture_context=True)
    kit.call_waiting(double, 1, 2)
    expected = (
        "double() has 2 items waiting, as many as max_pending allows; call again later, or wait with on_full='wait'"
    )
    assert expected == str(kit.call(double, 3).exception(PATIENCE))
    gate.open()


def test_a_caller_cancelled_while_it_waits_for_room_is_never_run(kit):
    """A caller that is cancelled while it waits for room is never run, and the next caller takes its turn."""
    if kit.name == "threads":
        pytest.skip("a blocked thread can't be cancelled")
    double, gate = kit.held(max_pending=1)
    callers = kit.call_waiting(double, 1, 2, 3)
    callers[1].cancel()
    wait_until(lambda: double.batch_stats.cancelled_items == 1)
    gate.open()
    assert [2, 6] == kit.results([callers[0], callers[2]])
    assert [[0], [1], [3]] == gate.batches


def test_a_cancelled_caller_makes_room(kit):
    """The place in the queue of a cancelled caller goes to a caller that waits for room."""
    if kit.name == "threads":
        pytest.skip("a blocked thread can't be cancelled")
    double, gate = kit.held(max_pending=1, max_size=1)
    callers = kit.call_waiting(double, 1, 2)
    callers[0].cancel()
    wait_until(lambda: double.batch_stats.cancelled_items == 1)
    gate.open()
    assert [4] == kit.results(callers[1:])
    assert [[0], [2]] == gate.batches


def test_closing_answers_callers_that_wait_for_room(kit):
    """``close()`` also runs the items of callers that wait for room."""
    double, gate = kit.held(max_pending=1)
    callers = kit.call_waiting(double, 1, 2, 3)
    closing = threading.Thread(target=double.close)
    closing.start()
    gate.open()
    closing.join(PATIENCE)
    assert [2, 4, 6] == kit.results(callers)


def test_submit_blocks_a_thread_until_there_is_room(threads):
    """``submit`` in a thread blocks until there is room, and returns the future of its own item."""
    double, gate = threads.held(max_pending=1)
    first = double.submit(1)
    second = threads.call(double.submit, 2)
    wait_until(lambda: double.batch_stats.pending == 2)
    assert not second.done()
    gate.open()
    assert 4 == second.result(PATIENCE).result(PATIENCE)
    assert 2 == first.result(PATIENCE)


def test_map_takes_more_items_than_the_queue(threads):
    """``map`` of more items than the queue has room for runs them all."""
    double, _ = threads.decorate(max_pending=2)
    assert doubled(range(50)) == double.map(range(50))


def test_submit_on_a_loop_does_not_block():
    """``submit`` on a loop returns a future at once, also without room in the queue."""

    async def main():
        @microbatch(max_pending=2)
        async def double(items):
            return doubled(items)

        assert doubled(range(50)) == await asyncio.gather(*[double.submit(item) for item in range(50)])

    asyncio.run(main())


def test_a_worker_does_not_wait_for_itself(threads):
    """A callback on a worker thread that finds no room gets an error, because it would wait for itself."""
    double, gate = threads.held(max_pending=1)
    caller = threads.call(lambda: None)
    first = double.submit(1)
    errors = []

    def submit_twice(_):
        for _ in range(2):
            try:
                double.submit(2)
            except ReentrantCallError as error:
                errors.append(error)

    first.add_done_callback(submit_twice)
    assert None is caller.result(PATIENCE)
    gate.open()
    assert 2 == first.result(PATIENCE)
    double.close()
    assert 1 == len(errors)
    assert 1 == double.batch_stats.cancelled_items


def test_a_batch_may_wait_for_room_in_another_function(threads):
    """A batch may wait for room in the queue of another function that does not depend on it."""
    double, gate = threads.held(max_pending=1)
    own, _ = threads.decorate(lambda items: [[double.submit(item) for item in range(3)] for _ in items], name="own")
    futures = threads.call(own, 0)
    wait_until(lambda: double.batch_stats.pending == 2)
    gate.open()
    assert doubled(range(3)) == [future.result(PATIENCE) for future in futures.result(PATIENCE)]


def test_a_cycle_of_waits_for_room_is_refused(threads):
    """If two batches wait for each other, one of them for room, one call is refused to avoid a deadlock."""
    futures = []

    def call_other(items):
        futures.extend(other.submit(1) for _ in range(3))
        return items

    own, _ = threads.decorate(call_other, name="own")
    other, _ = threads.decorate(lambda items: [own(item) for item in items], name="other", max_pending=1, max_size=1)
    errors = threads.errors([threads.call(own, 0), *futures])
    other.close()
    errors += threads.errors(futures)
    assert ReentrantCallError in map(type, errors)


def test_cancelling_a_future_ends_its_wait_for_room(threads):
    """If the future of a call that waits for room is cancelled, the wait ends."""
    double, gate = threads.held(max_pending=1)
    double.submit(1)
    waiting = threads.call(double.submit, 2)
    wait_until(lambda: double.batch_stats.pending == 2)
    assert double._self_route.find().waiting()[-1].future.cancel()
    assert waiting.result(PATIENCE).cancelled()
    gate.open()


def test_an_interrupt_ends_a_wait_for_room():
    """Ctrl-C while ``submit`` waits for room removes its item, and the other calls are answered."""
    script = """
    import linecache, signal, sys, threading
    from batchify import microbatch

    opened = threading.Event()
    main = threading.main_thread().ident

    def interrupt_once(number, frame):
        signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt_once)

    @microbatch(max_pending=1)
    def echo(items):
        opened.wait()
        return items

    running = threading.Thread(target=echo, args=[0])
    running.start()
    while not echo.batch_stats.running:
        pass
    waiting = echo.submit(1)

    def line_of_main():
        frame = sys._current_frames()[main]
        return linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()

    def interrupt():
        while line_of_main() != "gate.acquire()":
            pass
        # Python misses a signal that comes just before the thread blocks on a lock, until the next one.
        while signal.getsignal(signal.SIGINT) is interrupt_once:
            signal.pthread_kill(main, signal.SIGINT)

    threading.Thread(target=interrupt).start()
    try:
        echo.submit(2)
    except KeyboardInterrupt:
        print(echo.batch_stats.pending, echo.batch_stats.cancelled_items)
    opened.set()
    print(waiting.result())
    """
    assert "1 1\n1\n" == printed_by(script)


async def test_threads_and_loops_wait_in_one_queue():
    """Callers in threads and on loops wait for room in the same queue."""

    @microbatch(max_pending=3)
    def double(items):
        return doubled(items)

    loop = asyncio.get_running_loop()
    blocked = [loop.run_in_executor(None, double, item) for item in range(20)]
    tasks = [double.acall(item) for item in range(20, 40)]
    assert doubled(range(40)) == await asyncio.gather(*blocked, *tasks)
