"""The thread engine with its threads in all schedules within one delay of the usual one, for each use.

``tests/kit/thread_schedules.py`` has the scenarios, the checks, and a command for more delays.
"""

from __future__ import annotations

import pytest

from batchify._threads.waiters import ThreadWaiter
from tests.kit.thread_schedules import SCENARIOS, explore

pytestmark = pytest.mark.untraced


@pytest.mark.parametrize("name", SCENARIOS)
def test_all_schedules_within_one_delay(name):
    """Every call gets its own answer once, on time, and no thread waits for ever, in any schedule."""
    # The number depends on the version of Python, which decides where a thread can be interrupted.
    assert 50 < explore(name, 1)


def test_one_delay_shows_an_answer_that_comes_after_its_signal(monkeypatch):
    """A worker that wakes a caller before it has set the answer works in the usual schedule, and not in all others."""

    def answer_all(waiters, answers):
        for waiter, answer in zip(waiters, answers, strict=True):
            waiter.release()
            waiter.value = answer

    monkeypatch.setattr(ThreadWaiter, "answer_all", answer_all)
    assert 1 == explore("first use", 0)
    with pytest.raises(AssertionError, match=r"delays \{[0-9]+: 1\}: at 0.0: None, not result of 2"):
        explore("first use", 1)
