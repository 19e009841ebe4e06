"""The bars: the limits that batchify has to keep, each a ratio to another entrant of the same contest, or a count.

Decides: all limits of the benchmark, and whether figures keep them.
Must not know: how the figures are measured or shown.

A machine differs from run to run, so a bar is not met only if most rounds agree: if the upper quartile of the ratios is
below a minimum, or the lower quartile is above a maximum.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from fnmatch import fnmatchcase
from statistics import median
from typing import TYPE_CHECKING

from tests.bench.figures import FLOOR, OURS, ratios, spread
from tests.bench.padding import BY_LENGTH, SORTED
from tests.bench.subjects import ADAPTIVE, AIODATALOADER, FIXED_WINDOWS, FLOOR_WITH_POOL, ONE_THREAD, WINDOWED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.bench.contest import Contest
    from tests.bench.figures import Spread

EVERY_PYTHON = (3, 10)
GROUPS = {WINDOWED: "the best peer with a window", tuple(FIXED_WINDOWS): "the best fixed window"}


@dataclass(frozen=True)
class Bar:
    """A limit of the ratio of ``subject`` to the best of ``against``.

    Attributes:
        contest: the title of the contest, or a pattern of titles; of several contests, the worst is judged.
        limits: the limit from each version of Python on.
        against: the other entrants, of which absent ones are ignored; if there are none, the figure itself is judged.
        subject: the entrant that is judged.
        most: whether the limit is a maximum, so that less is better, and not a minimum.
        of: the figures that are judged, ``"values"`` or ``"tails"``.
        rounds: the number of rounds that the contest takes at least.
    """

    contest: str
    limits: Mapping[tuple[int, int], float]
    against: tuple[str, ...] = (FLOOR,)
    subject: str = OURS
    most: bool = False
    of: str = "values"
    rounds: int = 1

    def limit(self, python):
        """Return the limit for this version of Python, or ``None`` if the bar does not apply to it."""
        return next((self.limits[since] for since in sorted(self.limits, reverse=True) if since <= python[:2]), None)

    def limit_words(self):
        """Return the limit in words, for every version of Python."""
        return ", ".join(
            f"{'<=' if self.most else '>='} {limit:g}"
            + ("" if since == EVERY_PYTHON else f" from {'.'.join(map(str, since))}")
            for since, limit in self.limits.items()
        )

    def against_words(self):
        """Return in words the entrants with which ``subject`` is compared."""
        return f"x {GROUPS.get(self.against) or self.against[0]}" if self.against else ""

    def is_about(self, title):
        """Return whether the contest with this title is judged."""
        return fnmatchcase(title, self.contest)


def at_least(contest, limit, *against, **rest):
    """Return a bar with a minimum: one for every Python, or one from each version on."""
    limits = limit if isinstance(limit, dict) else {EVERY_PYTHON: limit}
    return Bar(contest, limits, against or (FLOOR,), **rest)


def at_most(contest, limit, *against, **rest):
    """Return a bar with a maximum."""
    return Bar(contest, {EVERY_PYTHON: limit}, against or (FLOOR,), most=True, **rest)


def flat(contest, limit, few, many):
    """Return a bar for the cost of an item with ``many`` of something, compared with ``few``."""
    return at_most(contest, limit, f"{OURS}, {few:,}", subject=f"{OURS}, {many:,}")


BARS = (
    at_least("256 tasks on asyncio, window 2 ms", {(3, 10): 0.80, (3, 13): 0.86}),
    at_least("256 tasks on asyncio, adaptive", 1.05, AIODATALOADER),
    at_least("256 tasks on uvloop, window 2 ms", {(3, 13): 0.78}),
    at_least("256 tasks on asyncio, window 2 ms", 4.2, *WINDOWED, of="tails"),
    at_least("gather of 50,000 coroutines", 0.90),
    at_least("gather of 50,000 futures of submit", 1.2, AIODATALOADER),
    at_most("a lone task", 1.0, AIODATALOADER),
    at_most("a lone thread", 1.3, ONE_THREAD),
    at_least("32 threads, window 2 ms", 0.78, rounds=9),
    at_least("64 threads, window 2 ms", 0.85, rounds=9),
    at_least("256 threads, window 2 ms", 0.80, rounds=9),
    at_least("256 tasks on asyncio call a def function", 0.92, FLOOR_WITH_POOL, of="tails"),
    *(
        at_most(f"arrivals at * % of capacity, {callers}", limit, *FIXED_WINDOWS, subject=ADAPTIVE, of=of)
        for of, limit in {"values": 1.10, "tails": 1.20}.items()
        for callers in ("tasks", "threads")
    ),
    *(
        at_least(f"padding, {callers} callers", limit, SORTED, subject=BY_LENGTH)
        for callers, limit in {16: 0.75, 64: 0.85, 256: 0.92}.items()
    ),
    at_most("memory of a waiting task", 1.35),
    at_most("memory of a future of submit on a loop", 1.35),
    at_most("memory of a future of submit among threads", 1.35),
    flat("items that wait behind a batch", 1.25, 1_000, 1_000_000),
    flat("items that wait, each with a priority of its own", 1.5, 1_000, 6_000),
    flat("items that wait, each with a priority of its own", 1.5, 1_000, 100_000),
    flat("items that wait, of 500 lengths", 1.5, 1_000, 100_000),
    flat("items that wait in groups by option", 1.25, 1, 10_000),
    flat("full batches of one instance after another", 1.25, 1, 10_000),
    Bar("frames of a call on an idle batcher", {EVERY_PYTHON: 45}, (), most=True),
    Bar("frames of a call on an idle batcher", {EVERY_PYTHON: 12}, (), most=True, of="tails"),
    at_most("import", 0.95, "asyncio"),
    at_most("a second without calls", 1.0, "nothing"),
    at_most("a second without calls", 1.0, "nothing", subject=f"{OURS}, threads"),
)


@dataclass(frozen=True)
class Verdict:
    """The verdict of a bar.

    Attributes:
        bar: the bar.
        contest: the contest; if the bar has several, the one with the worst figure.
        against: the entrant with which the subject is compared, in words, or an empty string.
        figure: the ratio and its quartiles, or ``None`` if an entrant did not take part.
        words: whether the bar is met, or why it is not judged.
    """

    bar: Bar
    contest: Contest
    against: str = ""
    figure: Spread | None = None
    words: str = "not measured"


def about(title):
    """Return the bars of a contest."""
    return [bar for bar in BARS if bar.is_about(title)]


def rounds(title, usual):
    """Return the number of rounds of a contest. One without a bar needs no more than a third of the usual rounds."""
    judged = about(title)
    return max([usual, *(bar.rounds for bar in judged)]) if judged else -(-usual // 3)


def verdicts(results, python=sys.version_info):
    """Return the verdict of each bar whose contests were run; ``results`` has tuples of a contest and its figures."""
    for bar in BARS:
        found = [judge(bar, contest, figures, python) for contest, figures in results if bar.is_about(contest.title)]
        if found:
            yield max(found, key=_badness)


def _badness(verdict):
    if verdict.figure is None:
        return float("inf")
    return verdict.figure.middle if verdict.bar.most else -verdict.figure.middle


def judge(bar, contest, figures, python):
    """Compare the figures of a contest with a bar."""
    present = {name: getattr(entry, bar.of) for name, entry in figures.items() if not entry.absent}
    others = [name for name in bar.against if name in present]
    if bar.subject not in present or (bar.against and not others):
        return Verdict(bar, contest)
    against, found = "", present[bar.subject]
    if others:
        best = (min if bar.most else max)(others, key=lambda name: median(present[name]))
        against, found = f"x {best}", ratios(found, present[best])
    figure, limit = spread(found), bar.limit(python)
    if limit is None:
        words = "no bar on this Python"
    else:
        words = "met" if (figure.low <= limit if bar.most else figure.high >= limit) else "not met"
    return Verdict(bar, contest, against, figure, words)
