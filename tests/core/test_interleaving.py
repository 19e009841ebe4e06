"""Another thread extends the list of a plain queue while a method runs: before any instruction of that method."""

from __future__ import annotations

import pytest

from batchify._core.queue import PlainQueue
from tests.kit.queues import caller, limits
from tests.kit.steps import at_steps, interrupted

pytestmark = pytest.mark.untraced

METHODS = {
    "plan": lambda queue: None,
    "take": lambda queue: queue.take(0.0),
    "take at the end of the window": lambda queue: queue.take(5.0),
    "withdraw": lambda queue: queue.withdraw(0, "B"),
    "withdraw the head": lambda queue: queue.withdraw(0, "A"),
    "finish": lambda queue: queue.finish(queue.running[0], 0.0),
    "flush": lambda queue: queue.flush("flush"),
    "change": lambda queue: queue.change(limits(max_size=4, timeout=5.0)),
    "close": lambda queue: setattr(queue, "closed", True),
    "list the entries": lambda queue: queue.entries,
    "count": lambda queue: (queue.waiting, queue.has_full, queue.arrivals, queue.running_calls),
}
LEAVING = {"withdraw": "B", "withdraw the head": "A"}
LINES = ["", "a", "ab", "abc", "abcdef"]
SIZES = pytest.mark.parametrize("max_size", [2, 4])


def new(items, *, max_size=2, slots=2):
    """Return a function that makes a queue with these items and a running batch, by default with a free slot."""

    def make():
        queue = PlainQueue(limits(max_size=max_size, timeout=5.0, concurrency=slots))
        queue.places += ("running", "running", 0.0) * max_size
        queue.take(0.0)
        for item in items:
            queue.places += (item, caller(item), 0.0)
        queue.plan()
        return queue

    return make


def arrive(queue):
    queue.places += ("x", "X", 0.0)


def matters(queue):
    """Return whether a call that arrived asks for a plan now."""
    return len(queue.places) >= queue.wake_length


def arrivals():
    """Return a function for the arrival of a call, and one that returns whether that call asks for a plan in any case.

    The thread of the call may compare the lengths as soon as the call has arrived, or only after the method has ended.
    """
    heard = {}

    def arrive_and_ask(queue):
        arrive(queue)
        heard[queue] = matters(queue)

    return arrive_and_ask, lambda queue: heard[queue] and matters(queue)


@pytest.fixture(autouse=True, params=[0, 1000], ids=["cut", "long"])
def _short(request, monkeypatch):
    """Cut the list at every departure, or never."""
    monkeypatch.setattr("batchify._core.queue.SHORT", request.param)


def remembers_plans(method=METHODS["plan"]):
    """Return a function that calls ``method`` and makes a plan, and one that returns and forgets this plan."""
    plans = []

    def act(queue):
        method(queue)
        plans.append(queue.plan())

    return act, plans.pop


def check_plan(queue, at, *, is_heard):
    """Check that this plan is the one for all calls of the queue, or that the last arrival asks for another."""
    assert 0 <= queue.arrivals - queue.mark <= 1
    length = queue.wake_length
    again = queue.plan()
    assert is_heard or (at == again and length <= queue.wake_length)


def drained(queue):
    """Follow the plans until no call waits; return all waiters that left, in order, except those that ran at first."""
    left = [*queue.running]
    while queue.waiting:
        at = queue.plan()
        if at is None:
            queue.finish(queue.running[0], 0.0)
        else:
            left.append(queue.take(at))
            assert left[-1] is not None
    return [waiter for batch in left for waiter in batch.waiters if waiter != "running"]


@SIZES
@pytest.mark.parametrize("items", LINES)
@pytest.mark.parametrize("method", METHODS)
def test_no_arrival_is_lost(method, items, max_size):
    """A call that arrives while the queue is used is planned for, and all leave in order of arrival."""
    act, plan = remembers_plans(METHODS[method])
    come, is_heard = arrivals()
    expected = [waiter for waiter in [*items.upper(), "X"] if waiter != LEAVING.get(method)]
    for queue in interrupted(new(items, max_size=max_size), act, come):
        check_plan(queue, plan(), is_heard=is_heard(queue))
        assert expected == drained(queue)


@SIZES
@pytest.mark.parametrize("slots", [1, 2])
@pytest.mark.parametrize("items", LINES)
def test_no_arrival_is_lost_while_all_leave(items, slots, max_size):
    """A call that arrives while all calls leave is one of them, or it waits and matters."""
    left = []
    come, is_heard = arrivals()

    def leave(queue):
        left[:] = queue.withdraw_all()

    for queue in interrupted(new(items, max_size=max_size, slots=slots), leave, come):
        stayed = [waiter for _, waiter, _ in queue.entries]
        assert [*items.upper(), "X"] == [waiter for _, (_, waiter, _) in left] + stayed
        assert [max_size + number for number in range(len(left))] == [ticket for ticket, _ in left]
        if stayed and slots == 2:
            assert is_heard(queue)
        assert ["X"] * len(stayed) == drained(queue)


@pytest.mark.parametrize("items", ["", "a", "ab"])
def test_the_arrival_that_fills_a_batch_matters(items):
    """If a call arrives while a plan is made, the arrival that fills the batch still reaches the wake length."""
    for queue in interrupted(new(items, max_size=4), PlainQueue.plan, arrive):
        while not queue.has_full:
            arrive(queue)
        assert matters(queue)


@SIZES
@pytest.mark.parametrize("items", LINES)
@pytest.mark.parametrize("pace", [1, 2, 3, 7, 20, 50])
def test_a_plan_catches_up_with_many_arrivals(pace, items, max_size):
    """However many calls arrive while a plan is made, the plan is for all, or the last of them asks for another."""
    queue = new(items, max_size=max_size)()
    heard = []

    def come(number):
        if number % pace == 0 and len(heard) < 9:
            arrive(queue)
            heard.append(matters(queue))

    act, plan = remembers_plans()
    assert at_steps(lambda: act(queue), come)
    is_heard = heard[-1] and matters(queue)
    assert (plan() == queue.plan()) or is_heard
    assert [*items.upper(), *["X"] * len(heard)] == drained(queue)


def test_a_batch_with_gaps_is_not_too_large():
    """Calls that arrive while a batch closes the gaps of callers that left do not make it larger than its maximum."""

    def with_gaps():
        queue = new("abcdefgh", max_size=4)()
        for _, waiter, _ in queue.entries[1:-1]:
            assert queue.withdraw(0, waiter)
        return queue

    def arrive_many(queue):
        for _ in range(6):
            arrive(queue)

    taken = []
    for _ in interrupted(with_gaps, lambda queue: taken.append(queue.take(5.0)), arrive_many):
        pass
    assert {2, 4} >= {batch.size for batch in taken}
