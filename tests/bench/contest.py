"""A contest: several entrants do the same work, over and over in turn.

Decides: the order of runs.
Must not know: what is measured, how it is shown.

Rounds begin with another entrant each time, so that nobody always comes after the same one.
"""

from __future__ import annotations

import gc
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.bench.figures import FLOOR, Bar, Figures, judge

if TYPE_CHECKING:
    from collections.abc import Callable


class AbsentError(Exception):
    """An entrant cannot take part; the message says why, and stands in its line of the table."""


@dataclass(frozen=True)
class Plan:
    """How much is run.

    Attributes:
        scale: the share of the usual amount of work in each run.
        loops: the kinds of event loop to run on.
    """

    scale: float = 1.0
    loops: tuple[str, ...] = ("asyncio", "uvloop")

    def count(self, usual):
        """Return how often to do what is usually done ``usual`` times."""
        return max(1, round(usual * self.scale))


@dataclass(frozen=True)
class Entrant:
    """One that takes part.

    Attributes:
        run: returns its figure, or its figure and its tail.
        sample: returns the latencies of a run of their own, in seconds.
    """

    run: Callable
    sample: Callable | None = None


@dataclass(frozen=True)
class Contest:
    """One table.

    Attributes:
        title: what is done.
        unit: what the figures are.
        entrants: by name, in the order of the table.
        baseline: whose figures the ratios are to.
        bars: what is asked of the figures.
        tail: what the second figure is, if there is one.
        note: what one must know to read it.
    """

    title: str
    unit: str
    entrants: dict[str, Entrant]
    baseline: str = FLOOR
    bars: tuple[Bar, ...] = ()
    tail: str = ""
    note: str = ""

    def runs(self, rounds):
        """Return how often ``play`` yields."""
        return rounds * len(self.entrants) + len(self._sampled())

    def play(self, rounds, figures):
        """Run all entrants and note their ``figures``; yield the name of each before its run."""
        names = list(self.entrants)
        figures.update({name: Figures() for name in names})
        try:
            for number in range(rounds):
                first = number % len(names)
                for name in names[first:] + names[:first]:
                    yield name
                    _enter(figures[name], self.entrants[name].run)
            for name in self._sampled():
                yield name
                _enter(figures[name], self.entrants[name].sample, is_sample=True)
        finally:
            gc.unfreeze()

    def verdicts(self, figures):
        """Return how each bar is met, but for those whose entrants did not take part."""
        found = [judge(bar, figures, self.unit, self.tail) for bar in self.bars]
        return [verdict for verdict in found if verdict]

    def _sampled(self):
        return [name for name, entrant in self.entrants.items() if entrant.sample]


def _enter(entry, run, *, is_sample=False):
    """Let an entrant run, and note what came out."""
    if entry.absent:
        return
    # The garbage collector has nothing to look at but what this run makes.
    gc.collect()
    gc.freeze()
    try:
        outcome = run()
    except AbsentError as error:
        entry.absent = str(error)
        return
    if is_sample:
        entry.latencies.extend(outcome)
        return
    value, *tail = outcome if isinstance(outcome, tuple) else (outcome,)
    entry.values.append(value)
    entry.tails.extend(tail)
