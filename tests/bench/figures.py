"""The figures of runs, their medians, ratios and spreads.

Must not know: the measured work, the bars, the output.

On a shared machine, the same code may take twice as long a minute later. Two consecutive runs have about the same
conditions, so only figures of one round are compared: first the ratio of each round, then the median of these ratios.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median, quantiles

FLOOR = "floor"
OURS = "batchify"


@dataclass
class Figures:
    """The figures of one entrant.

    Attributes:
        values: one figure for each round, in the unit of the contest.
        tails: the second figure of each round, if the contest has one.
        absent: the reason why the entrant did not take part.
    """

    values: list[float] = field(default_factory=list)
    tails: list[float] = field(default_factory=list)
    absent: str = ""


@dataclass(frozen=True)
class Spread:
    """A median and the quartiles around it."""

    middle: float
    low: float
    high: float


def spread(values):
    """Return the median and the quartiles of ``values``; of fewer than four values, the minimum and the maximum."""
    if len(values) < 4:
        return Spread(median(values), min(values), max(values))
    low, middle, high = quantiles(values, n=4, method="inclusive")
    return Spread(middle, low, high)


def ratios(of, to):
    """Return the ratio of each round; the ratio of 0 to 0 is 1."""
    return [a / b if b else 1.0 if a == b else float("inf") for a, b in zip(of, to, strict=True)]


def percentile(values, percent):
    """Return the smallest value that at least ``percent`` per cent of ``values`` do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]
