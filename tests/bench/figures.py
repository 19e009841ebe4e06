"""What runs gave, and what is made of it: medians, ratios, spreads, and whether a bar is met.

Must not know: what is measured, how it is shown.

On a machine that others use too, the same code takes twice as long from one minute to the next. Two runs that follow
each other meet much the same weather, so what is compared are the figures of one round: first the ratio of each round,
then the median of these ratios.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median, quantiles

FLOOR = "floor"
OURS = "batchify"


@dataclass
class Figures:
    """What the runs of one entrant gave.

    Attributes:
        values: one figure for each round, in the unit of the contest.
        tails: the same for a second figure, if the contest has one.
        latencies: seconds from call to answer, if they were sampled.
        absent: why it did not take part.
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
    """Return the median and the quartiles of ``values``; of fewer than four, the least and the greatest."""
    if len(values) < 4:
        return Spread(median(values), min(values), max(values))
    low, middle, high = quantiles(values, n=4, method="inclusive")
    return Spread(middle, low, high)


def ratios(of, to):
    """Return the ratio of each round; where nothing is compared with nothing, they are equal."""
    return [a / b if b else 1.0 if a == b else float("inf") for a, b in zip(of, to, strict=True)]


def percentile(values, percent):
    """Return the least of ``values`` that is not exceeded by ``percent`` of a hundred of them."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


@dataclass(frozen=True)
class Bar:
    """What ``DESIGN`` asks: the figure of ``subject`` over that of the best of ``against`` is at least ``limit``.

    Attributes:
        limit: the number to keep to.
        against: the others; those that did not take part are left out.
        most: whether ``limit`` is the most that is allowed, not the least; then less is better.
        subject: who is judged.
        apart: whether it is the difference that is judged, in the unit of the contest, not the ratio.
        of: which figures are judged, ``"values"`` or ``"tails"``.
    """

    limit: float
    against: tuple[str, ...] = (FLOOR,)
    most: bool = False
    subject: str = OURS
    apart: bool = False
    of: str = "values"


@dataclass(frozen=True)
class Verdict:
    """How a bar is met: in words, by how much, and whether."""

    words: str
    figure: Spread
    met: bool


def judge(bar, figures, unit="", tail=""):
    """Hold the figures of all entrants against a bar; ``None`` if those whom it names did not take part."""
    others = [name for name in bar.against if name in figures and not figures[name].absent]
    if not others or bar.subject not in figures or figures[bar.subject].absent:
        return None
    taken = {name: getattr(figures[name], bar.of) for name in (*others, bar.subject)}
    best = (min if bar.most else max)(others, key=lambda name: median(taken[name]))
    pairs = list(zip(taken[bar.subject], taken[best], strict=True))
    figure = spread([a - b for a, b in pairs] if bar.apart else ratios(*zip(*pairs, strict=True)))
    what = f" ({tail if bar.of == 'tails' else unit})" if tail else ""
    asked = f"{bar.limit:g} {unit} over" if bar.apart else f"{bar.limit:g} x"
    words = f"{bar.subject} {'<=' if bar.most else '>='} {asked} {best}{what}"
    return Verdict(words, figure, figure.middle <= bar.limit if bar.most else figure.middle >= bar.limit)
