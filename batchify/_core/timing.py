"""Tell when the head of the line may leave, if its batch does not fill up first.

Decides: the departure time of a batch that is not full, from numbers alone.
Must not know: the inside of the queue, clocks, engines.

All policies answer the same three calls:

* ``due(arrived, running)``: the time at which an item that arrived at ``arrived`` may leave while ``running`` batches
  run and a slot is free;
* ``departed(now)``: a batch left;
* ``ended(run_time, size)``: a batch of ``size`` items is over, after ``run_time`` seconds.

``when_idle`` is why a batch leaves when no other one runs.
"""

from __future__ import annotations

from typing import TypeAlias

# The weight of the newest run in the moving average of run times: the last ten runs or so count, so that the policy
# follows a function that slows down within a few batches and does not chase a single slow one.
NEWEST = 0.2


class Window:
    """A fixed window: the head of the line waits at most ``timeout`` seconds from its arrival."""

    __slots__ = ("_timeout",)

    when_idle = "timeout"

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout

    def due(self, arrived: float, running: int) -> float:  # noqa: ARG002  # all policies are asked alike
        return arrived + self._timeout

    def departed(self, now: float) -> None:
        pass

    def ended(self, run_time: float, size: int) -> None:
        pass


class AtOnce:
    """No window and one slot: what is there leaves when nothing runs, and there is nothing to decide."""

    __slots__ = ()

    when_idle = "idle"

    def due(self, arrived: float, running: int) -> float:  # noqa: ARG002  # all policies are asked alike
        return arrived

    def departed(self, now: float) -> None:
        pass

    def ended(self, run_time: float, size: int) -> None:
        pass


class Adaptive:
    """No window and several slots: never wait for company that cannot help.

    With nothing running, what is there leaves at once. While batches run and a slot is free, departures keep a distance
    of the fixed cost of a run divided by the number of slots: what a batch takes however small it is. That is what
    company saves; the part that grows with the items is the same in one batch or in two, and not worth a wait.

    The fixed cost is where the line through the measured sizes and run times meets size 0, by least squares that forget
    exponentially (means and covariances as in T. Finch, "Incremental calculation of weighted mean and variance", 2009).
    As long as all batches are of one size, nothing tells the two parts apart, and all counts as fixed.
    """

    __slots__ = ("_concurrency", "_covariance", "_distance", "_last", "_run_time", "_size", "_variance")

    when_idle = "idle"

    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency
        self._last = float("-inf")
        self._distance = 0.0
        # Moving averages, and how sizes vary, alone and together with run times.
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


Policy: TypeAlias = "Window | AtOnce | Adaptive"


def policy(timeout: float | None, concurrency: int) -> Policy:
    """Return the policy for these options."""
    if timeout is not None:
        return Window(timeout)
    return AtOnce() if concurrency == 1 else Adaptive(concurrency)
