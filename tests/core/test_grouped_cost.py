"""The cost of the grouped queue: how its steps depend on the number of calls."""

from __future__ import annotations

import sys

import pytest

from batchify._core.entries import Entry
from batchify._core.grouped import GroupedQueue
from batchify._core.queue import PlainQueue
from tests.kit.queues import limits

FEW, MANY = 250, 2000


def steps(act):
    """Return the number of calls, lines and returns that ``act()`` runs in Python."""
    count = 0

    def trace(*_):
        nonlocal count
        count += 1
        return trace

    sys.settrace(trace)
    try:
        act()
    finally:
        sys.settrace(None)
    return count


@pytest.mark.untraced
def test_the_steps_after_a_replacement_do_not_grow_with_earlier_arrivals():
    """The first batch after the replacement of a plain queue takes no step for items that left before."""

    def run(number):
        plain = PlainQueue(limits())
        for _ in range(number):
            plain.add("item", "caller", 0.0)
            plain.add("item", "caller", 0.0)
            plain.finish(plain.take(0.0), 0.0)
        ticket = plain.add("item", "caller", 0.0)
        entry = Entry("item", "g", 0.0, None)
        entry.arrive(ticket, "caller", 0.0)
        queue = GroupedQueue(limits())
        queue.adopt(plain, [entry])
        return steps(lambda: queue.take(0.0))

    assert run(FEW) == run(MANY)
