"""The collector, or a signal, comes in the middle of a call to the thread engine, and uses the same batcher."""

from __future__ import annotations

from concurrent.futures import CancelledError, wait

import pytest

from batchify import ReentrantCallError, SyncMicrobatcher, microbatch
from batchify._core.queue import PlainQueue
from tests.kit.columns import in_time
from tests.kit.engines import PATIENCE, doubled

# What a finalizer or a signal handler may do with a batcher and a future that waits in it, and how that future ends.
MEANWHILE = {
    "flushes": (lambda batcher, future: batcher.flush(), 2),
    "closes": (lambda batcher, future: batcher.close(), 2),
    "looks": (lambda batcher, future: batcher.waiting() and batcher.stats, 2),
    "configures": (lambda batcher, future: batcher._change({"max_size": 8}), 2),
    "cancels": (lambda batcher, future: future.cancel(), CancelledError),
}


def told(future):
    try:
        return future.result(0)
    except BaseException as error:
        return type(error)


def interrupt_next_arrival(queue, do):
    """Let something be done in the middle of the next arrival at a core."""

    class Interrupted(PlainQueue):
        __slots__ = ()

        def add(self, *arguments):
            self.__class__ = PlainQueue
            # It may come whenever something is called or allocated.
            do()
            return self.add(*arguments)

    queue.__class__ = Interrupted


def interrupted(meanwhile):
    """Return a future that waited, and one that was put into the line when ``meanwhile`` was done, both over."""
    batcher = SyncMicrobatcher(doubled, batch_wait_timeout_s=3600)
    first = batcher._submit_nowait(1)
    interrupt_next_arrival(batcher._ensure_engine().queue, lambda: meanwhile(batcher, first))
    second = batcher._submit_nowait(2)
    # What could not be done at once is done by now, or soon.
    wait([first], 0.01)
    batcher.flush()
    assert {first, second} == wait([first, second], PATIENCE).done
    batcher.close()
    return first, second


@pytest.mark.parametrize("how", MEANWHILE)
def test_who_comes_in_the_middle_of_a_call_does_not_wait_for_it(how):
    """Finalizers and signal handlers may use a batcher at any moment; what can't be done at once is done soon."""
    meanwhile, expected = MEANWHILE[how]
    first, second = in_time(lambda: interrupted(meanwhile))
    assert (expected, 4) == (told(first), told(second))


@pytest.mark.parametrize("way", ["_submit_nowait", "submit"])
def test_who_comes_in_the_middle_of_a_call_can_not_call(way):
    """A call from there would wait for the one that it interrupts, or overtake it, and is refused."""
    errors = []

    def call(batcher, _):
        with pytest.raises(ReentrantCallError) as caught:
            getattr(batcher, way)(3)
        errors.append(str(caught.value))

    first, second = in_time(lambda: interrupted(call))
    assert (2, 4) == (told(first), told(second))
    expected = (
        "doubled() was called by a finalizer or signal handler in the middle of another call in this thread; "
        "make the call in another thread"
    )
    assert [expected] == errors


def test_the_first_urgent_call_in_the_middle_of_a_call():
    """It is refused as any other call from there, and leaves the batcher as it was; the next urgent call is taken."""
    fn = microbatch(doubled)
    assert 2 == fn(1)
    (batcher,) = fn._self_scope.batchers()
    urgent = fn.options(priority=1)

    def call():
        with pytest.raises(ReentrantCallError, match="in the middle of another call in this thread"):
            urgent.submit(2)
        assert not batcher._takes_requests

    interrupt_next_arrival(batcher._ensure_engine().queue, call)
    assert 6 == in_time(lambda: fn(3))
    assert 8 == in_time(lambda: urgent(4))
