"""The cost of the grouped queue: how its steps and its memory depend on the number of calls."""

from __future__ import annotations

import pickle

import pytest

from batchify._core.entries import Entry
from batchify._core.grouped import GroupedQueue
from batchify._core.queue import PlainQueue
from tests.kit.queues import limits
from tests.kit.steps import traced

FEW, MANY = 250, 2000
CALLER = "caller"


class Time(float):
    """A time whose comparisons are functions in Python, so that ``steps`` counts them."""

    def __add__(self, other):
        return Time(float(self) + other)

    def __sub__(self, other):
        return Time(float(self) - other)

    def __lt__(self, other):
        return float(self) < other


def steps(act):
    """Return the number of calls, lines and returns that ``act()`` runs in Python."""
    count = 0

    def trace(*_):
        nonlocal count
        count += 1
        return trace

    traced(act, trace)
    return count


def mixed(number):
    """Return numbers that do not repeat and are in no order."""
    return number * 7919 % 10007


def arrive(queue, numbers, *, group=0, equal=None, priority=0.0, time_limit=None):
    """Queue an item for each number, an instant apart. An option is a value, or a function of the number."""
    for number in numbers:
        group_, equal_, priority_, time_limit_ = (
            option(number) if callable(option) else option for option in (group, equal, priority, time_limit)
        )
        equal_ = None if equal_ is None else (group_, equal_)
        entry = Entry("item", group_, 1.0, equal_, priority_, time_limit_)
        queue.add(entry, CALLER, Time(number / 1024))
        queue.admit_waiting()


def depart(queue, _):
    """Let all batches leave."""
    queue.flush("flush")
    while (batch := queue.take(0.0)) is not None:
        queue.finish(batch, 0.0)


def expire(queue, number):
    """Let all deadlines pass, and withdraw the items that have none."""
    queue.expire(1e9)
    withdraw(range)(queue, number)


def withdraw(order):
    return lambda queue, number: [queue.withdraw(mark, CALLER) for mark in order(number)]


WAYS_IN = {
    "alike": {},
    "rising priorities": {"priority": float},
    "falling priorities": {"priority": lambda number: -float(number)},
    "mixed priorities": {"priority": mixed},
    "one deadline": {"time_limit": 1e6},
    "mixed deadlines": {"time_limit": lambda number: 1e6 + mixed(number)},
    "own groups": {"group": lambda number: number},
    "few duplicates": {"equal": lambda number: number // 3},
    "many duplicates": {"equal": 1},
    "everything": {
        "group": lambda number: number % 16,
        "equal": lambda number: number // 32,
        "priority": mixed,
        "time_limit": lambda number: 1e6 + mixed(number + 1),
    },
}
WAYS_OUT = {
    "depart": depart,
    "expire": expire,
    "leave, oldest first": withdraw(range),
    "leave, newest first": withdraw(lambda number: range(number - 1, -1, -1)),
    "leave in mixed order": withdraw(lambda number: sorted(range(number), key=mixed)),
}


def steps_of_a_call(way_in, way_out, number):
    """Return the steps for each of ``number`` calls that arrive in one way, and then leave in another."""
    queue = GroupedQueue(limits(max_size=8, timeout=1e9, max_weight=6.0))

    def act():
        arrive(queue, range(number), **WAYS_IN[way_in])
        WAYS_OUT[way_out](queue, number)

    count = steps(act)
    assert 0 == queue.waiting
    return count / number


@pytest.mark.untraced
@pytest.mark.parametrize("way_out", WAYS_OUT)
@pytest.mark.parametrize("way_in", WAYS_IN)
def test_the_steps_of_a_call_hardly_grow_with_the_queue(way_in, way_out):
    """Eight times as many waiting calls take at most 1.5 times the steps for each call."""
    assert steps_of_a_call(way_in, way_out, MANY) <= 1.5 * steps_of_a_call(way_in, way_out, FEW)


@pytest.mark.untraced
@pytest.mark.parametrize("way_out", WAYS_OUT)
@pytest.mark.parametrize("way_in", ["alike", "falling priorities", "few duplicates", "many duplicates"])
def test_the_steps_of_calls_in_order_are_constant(way_in, way_out):
    """Calls that leave in order of arrival take no more steps if more of them wait."""
    assert steps_of_a_call(way_in, way_out, MANY) <= 1.01 * steps_of_a_call(way_in, way_out, FEW)


@pytest.mark.untraced
def test_a_low_priority_that_left_costs_nothing():
    """After a call of low priority and those that overtook it have left, calls take as many steps as before."""

    def run(priority):
        queue = GroupedQueue(limits(max_size=8, timeout=1e9))
        arrive(queue, [0], priority=priority)
        arrive(queue, [1])
        queue.withdraw(0, CALLER)
        arrive(queue, [2])
        queue.withdraw(1, CALLER)
        return steps(lambda: arrive(queue, range(3, FEW)))

    assert run(0.0) == run(-1.0)


@pytest.mark.untraced
def test_urgent_callers_that_leave_cost_nothing_later():
    """Urgent calls that come and go in many groups take no more steps than in a few groups."""

    def act(queue, groups):
        arrive(queue, range(groups), group=lambda number: number)
        for number in range(groups, 4 * groups):
            arrive(queue, [number], group=number // 3 - groups // 3, priority=1e6)
            queue.withdraw(number, CALLER)

    def run(groups):
        queue = GroupedQueue(limits(max_size=8, timeout=1e9))
        return steps(lambda: act(queue, groups)) / groups

    assert run(MANY) <= 1.5 * run(FEW)


@pytest.mark.untraced
def test_the_steps_after_a_replacement_do_not_grow_with_earlier_arrivals():
    """The first batch after the replacement of a plain queue takes no step for items that left before."""

    def run(number):
        plain = PlainQueue(limits())
        for _ in range(number):
            plain.places += ("item", CALLER, 0.0) * 2
            plain.finish(plain.take(0.0), 0.0)
        plain.places += ("item", CALLER, 0.0)
        entry = Entry("item", "g", 0.0, None)
        entry.ticket, entry.waiter, entry.arrived = number * 2, CALLER, 0.0
        queue = GroupedQueue(limits())
        queue.adopt(plain, [entry])
        return steps(lambda: queue.take(0.0))

    assert run(FEW) == run(MANY)


@pytest.mark.parametrize("way_in", WAYS_IN)
def test_callers_that_left_use_no_memory(way_in):
    """However many callers arrive and leave while no batch ends, the queue stays small."""
    options = WAYS_IN[way_in]
    queue = GroupedQueue(limits(max_size=8, timeout=1e9, max_weight=6.0))
    arrive(queue, range(4), **options)
    queue.take(1e9)
    arrive(queue, range(4, 12), **options)
    sizes = []
    for number in range(12, MANY):
        arrive(queue, [number], **options)
        queue.withdraw(number, CALLER)
        sizes.append(len(pickle.dumps(queue)))
    assert max(sizes) <= 1.5 * min(sizes)
