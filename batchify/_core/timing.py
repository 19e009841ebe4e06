"""When the head of the queue may leave, if its batch does not fill up first.

Decides: the departure time of a batch that is not full, from numbers alone.
Must not know: the order of a queue, clocks, engines.

A policy has these members:

* ``due(arrived, running)``: the time at which the head may leave if a slot is free and ``running`` batches run;
* ``window``: the seconds from its arrival until then if they are fixed, otherwise ``None``;
* ``when_idle``: the reason of a departure while no other batch runs.

``Adaptive`` learns: ``departed(now)`` and ``ended(run_time, size)`` tell it that a batch left, and that a batch of
``size`` items ended, in seconds.
"""

from __future__ import annotations

from typing import TypeAlias

# The weight of the newest run in the moving averages. About the last ten runs count: the policy follows a function that
# slows down within a few batches, and does not chase a single slow run.
NEWEST = 0.2


class Window:
    """A fixed window: the head of the queue waits at most ``timeout`` seconds from its arrival."""

    def __init__(self, timeout: float, when_idle: str = "timeout") -> None:
        self.window = timeout
        self.when_idle = when_idle

    def due(self, arrived: float, running: int) -> float:  # noqa: ARG002  # the signature is that of all policies
        return arrived + self.window


class Adaptive:
    """No window and several slots: a call never waits when waiting cannot help.

    If no batch runs, queued items leave at once. If a batch runs and a slot is free, the next batch leaves no sooner
    than ``s / c`` after the last one. ``s`` is the fixed cost of a run, which does not depend on its size, and ``c`` is
    the number of slots. Items that share a batch save its fixed cost. The cost that grows with the items is the same in
    one batch as in two, so it is no reason to wait.

    The fixed cost is the value at size 0 of the line through the measured sizes and run times, by least squares with
    exponential forgetting (T. Finch, "Incremental calculation of weighted mean and variance", 2009). While all batches
    have one size, the two costs cannot be separated, and the whole run time counts as fixed.
    """

    when_idle = "idle"
    window = None

    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency
        # The time of the last departure, and the least distance of the next one from it.
        self._last = float("-inf")
        self._distance = 0.0
        # Moving averages of run time and size, the variance of the size, and its covariance with the run time.
        self._run_time: float | None = None
        self._size = 0.0
        self._variance = 0.0
        self._covariance = 0.0

    def due(self, arrived: float, running: int) -> float:
        if not running:
            return arrived
        return max(arrived, self._last + self._distance)

    def departed(self, now: float) -> None:
        self._last = now

    def ended(self, run_time: float, size: int) -> None:
        if self._run_time is None:
            self._run_time, self._size = run_time, size
        longer, larger = run_time - self._run_time, size - self._size
        self._run_time += NEWEST * longer
        self._size += NEWEST * larger
        self._variance = (1 - NEWEST) * (self._variance + NEWEST * larger * larger)
        self._covariance = (1 - NEWEST) * (self._covariance + NEWEST * larger * longer)
        slope = self._covariance / self._variance if self._variance else 0.0
        fixed = min(max(self._run_time - slope * self._size, 0.0), self._run_time)
        self._distance = fixed / self._concurrency


Policy: TypeAlias = "Window | Adaptive"


def policy(timeout: float | None, concurrency: int) -> Policy:
    if timeout is not None:
        return Window(timeout)
    # With one slot, adaptive timing needs no decision: queued items leave as soon as the slot is free.
    return Window(0.0, when_idle="idle") if concurrency == 1 else Adaptive(concurrency)
