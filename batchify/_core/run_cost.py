"""The cost of a run whose items are padded to the longest of them, learnt from run times.

Decides: how much padding costs as much as one more run.
Must not know: clocks, items, which of them share a batch.

A run of n items takes about ``a + d n + c total + b n longest`` seconds, where ``total`` is the sum of their lengths.
The coefficients, at least 0, are a least-squares fit with exponential forgetting.

* Errors are relative: each run is divided by its time. Otherwise long runs alone would determine the fit, and one
  delayed run would distort it.
* ``n`` and ``total`` are terms of their own, so that work for each item is not mistaken for a fixed cost, nor work for
  its true length for the cost of padding. ``c`` is shrunk a little: in doubt, padding costs as much as work does.
* Each run improves the last fit by a few sweeps over the coefficients (coordinate descent). Without a bound, a line
  through a convex cost would have a negative fixed cost.
"""

from __future__ import annotations

from math import inf
from operator import mul

# The weight of each run is this share of that of the next one.
KEPT = 0.99
SWEEPS = 8
# In the order of the terms: 1, n, total, n * longest.
SHRINKAGE = (1.0, 1.0, 1.01, 1.0)
# The number of runs before the costs count as known.
LEAST_RUNS = 4
# A run that takes less than this share of the expected time is ignored: it may have been a cache or an early return.
# If the next run is as fast, the cost has changed.
FAST = 0.25
# The squares of lengths outside of these bounds might overflow, or be 0.
SHORTEST, LONGEST = 1e-99, 1e99


class RunCost:
    """The learnt cost, which all batchers of one decorated function share. Runs are learnt one at a time."""

    def __init__(self) -> None:
        # The coefficients a, d, c, b.
        self._costs: list[float] = []
        self._runs = 0
        self._was_fast = False
        self._forget()

    def _forget(self) -> None:
        # The normal equations of the fit: sums over the runs of the products of two terms, and of the terms.
        self._moments = [[0.0] * 4 for _ in range(4)]
        self._targets = [0.0] * 4

    @property
    def padding_per_run(self) -> float | None:
        """The padding that costs as much as one more run, in units of length; ``None`` until it is known."""
        if self._runs < LEAST_RUNS:
            return None
        a, _, _, b = self._costs
        return a / b if b else inf

    def learn(self, size: int, longest: float, total: float, seconds: float) -> None:
        """Learn from a run of ``size`` items, whose longest length and total length are given."""
        if seconds <= 0 or not SHORTEST < longest < LONGEST:
            return
        terms = (1.0, size, total, size * longest)
        # Half of the first run counts as fixed.
        costs = self._costs or [seconds / 2, 0.0, 0.0, seconds / 2 / terms[3]]
        expected = sum(map(mul, costs, terms))
        if seconds < FAST * expected:
            self._was_fast = not self._was_fast
            if self._was_fast:
                return
            self._forget()
            costs = [cost * seconds / expected for cost in costs]
        self._was_fast = False
        relative = [term / seconds for term in terms]
        self._targets = [KEPT * target + term for target, term in zip(self._targets, relative, strict=True)]
        self._moments = [
            [KEPT * moment + term * other for moment, other in zip(row, relative, strict=True)]
            for row, term in zip(self._moments, relative, strict=True)
        ]
        for _ in range(SWEEPS):
            for index, (row, target, shrinkage) in enumerate(zip(self._moments, self._targets, SHRINKAGE, strict=True)):
                missing = target - sum(map(mul, row, costs)) + row[index] * costs[index]
                costs[index] = max(0.0, missing / (row[index] * shrinkage))
        self._costs = costs
        self._runs += 1
