"""Tell when the head of the line may leave, if its batch does not fill up first.

Decides: the departure time of a batch that is not full, from numbers alone.
Must not know: the inside of the queue, clocks, engines.

Both policies answer the same three calls:

* ``due(arrived, running)``: the time at which an item that arrived at ``arrived`` may leave while ``running`` batches
  run and a slot is free;
* ``departed(now)``: a batch left;
* ``ended(run_time)``: a batch is over, after ``run_time`` seconds.
"""

from __future__ import annotations

# The weight of the newest run in the moving average of run times: the last ten runs or so count, so that the policy
# follows a function that slows down within a few batches and does not chase a single slow one.
NEWEST = 0.2


class Window:
    """A fixed window: the head of the line waits at most ``timeout`` seconds from its arrival."""

    __slots__ = ("_timeout",)

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout

    def due(self, arrived: float, running: int) -> float:  # noqa: ARG002  # both policies are asked alike
        return arrived + self._timeout

    def departed(self, now: float) -> None:
        pass

    def ended(self, run_time: float) -> None:
        pass


class Adaptive:
    """No window: never wait for company that cannot help.

    With nothing running, what is there leaves at once. While batches run and a slot is free, departures keep a distance
    of the measured run time divided by the number of slots: at that pace the slots fall free evenly, so that the next
    departure never has to wait for all of them together, and each batch gathers what arrived in between.
    """

    __slots__ = ("_concurrency", "_last", "_run_time")

    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency
        self._last = float("-inf")
        self._run_time: float | None = None

    def due(self, arrived: float, running: int) -> float:
        if not running or self._run_time is None:
            return arrived
        return max(arrived, self._last + self._run_time / self._concurrency)

    def departed(self, now: float) -> None:
        self._last = now

    def ended(self, run_time: float) -> None:
        mean = run_time if self._run_time is None else self._run_time
        self._run_time = mean + NEWEST * (run_time - mean)
