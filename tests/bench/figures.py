"""The figures of runs, their medians, ratios and spreads, and the verdicts of bars.

Must not know: the measured work, the output.

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
        latencies: seconds from call to answer, if they were sampled.
        absent: the reason why the entrant did not take part.
    """

    values: list[float] = field(default_factory=list)
    tails: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
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


@dataclass(frozen=True)
class Bar:
    """A requirement of ``DESIGN``: the ratio of ``subject`` to the best of ``against`` is at least ``limit``.

    Attributes:
        limit: the limit of the ratio or difference.
        against: the other entrants; absent ones are ignored.
        most: whether ``limit`` is a maximum and not a minimum; then less is better.
        subject: the entrant that is judged.
        apart: whether the difference is judged, in the unit of the contest, and not the ratio.
        of: the figures that are judged, ``"values"`` or ``"tails"``.
    """

    limit: float
    against: tuple[str, ...] = (FLOOR,)
    most: bool = False
    subject: str = OURS
    apart: bool = False
    of: str = "values"


@dataclass(frozen=True)
class Verdict:
    """The verdict of a bar: its words, its figure, and whether it is met."""

    words: str
    figure: Spread
    met: bool


def judge(bar, figures, unit="", tail=""):
    """Compare the figures of all entrants with a bar; return ``None`` if its entrants did not take part."""
    others = [name for name in bar.against if name in figures and not figures[name].absent]
    if not others or bar.subject not in figures or figures[bar.subject].absent:
        return None
    taken = {name: getattr(figures[name], bar.of) for name in (*others, bar.subject)}
    best = (min if bar.most else max)(others, key=lambda name: median(taken[name]))
    pairs = list(zip(taken[bar.subject], taken[best], strict=True))
    figure = spread([a - b for a, b in pairs] if bar.apart else ratios(*zip(*pairs, strict=True)))
    shown_unit = f" ({tail if bar.of == 'tails' else unit})" if tail else ""
    asked = f"{bar.limit:g} {unit} over" if bar.apart else f"{bar.limit:g} x"
    words = f"{bar.subject} {'<=' if bar.most else '>='} {asked} {best}{shown_unit}"
    return Verdict(words, figure, figure.middle <= bar.limit if bar.most else figure.middle >= bar.limit)
