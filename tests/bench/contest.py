"""A contest: several entrants do the same work in turn, in several rounds.

Decides: the order of runs.
Must not know: the measured work, the output.

Each round begins with another entrant, so that no entrant always runs after the same other one.
"""

from __future__ import annotations

import gc
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.bench.figures import FLOOR, Bar, Figures, judge

if TYPE_CHECKING:
    from collections.abc import Callable


class AbsentError(Exception):
    """An entrant cannot take part. The message is the reason, and its row of the table shows it."""


@dataclass(frozen=True)
class Plan:
    """The amount of work.

    Attributes:
        scale: the share of the usual amount of work in each run.
        loops: the kinds of event loop to run on.
    """

    scale: float = 1.0
    loops: tuple[str, ...] = ("asyncio", "uvloop")

    def count(self, usual):
        """Return the number of repetitions for a usual number of them."""
        return max(1, round(usual * self.scale))


@dataclass(frozen=True)
class Entrant:
    """A participant in a contest.

    Attributes:
        run: returns the figure of a run, or the figure and its tail.
        sample: returns the latencies of a separate run, in seconds.
    """

    run: Callable
    sample: Callable | None = None


@dataclass(frozen=True)
class Contest:
    """The contents of one table.

    Attributes:
        title: the work.
        unit: the unit of the figures.
        entrants: the entrants by name, in the order of the table.
        baseline: the name of the entrant to which ratios are computed.
        bars: the requirements on the figures.
        tail: the unit of the second figure, or an empty string.
        note: a remark for readers of the table.
    """

    title: str
    unit: str
    entrants: dict[str, Entrant]
    baseline: str = FLOOR
    bars: tuple[Bar, ...] = ()
    tail: str = ""
    note: str = ""

    def runs(self, rounds):
        """Return the number of names that ``play`` yields."""
        return rounds * len(self.entrants) + len(self._sampled())

    def play(self, rounds, figures):
        """Run all entrants and record their ``figures``; yield the name of each entrant before its run."""
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
        """Return the verdict of each bar, except for bars whose entrants did not take part."""
        found = [judge(bar, figures, self.unit, self.tail) for bar in self.bars]
        return [verdict for verdict in found if verdict]

    def _sampled(self):
        return [name for name, entrant in self.entrants.items() if entrant.sample]


def _enter(entry, run, *, is_sample=False):
    """Run an entrant, and record its figures."""
    if entry.absent:
        return
    # The garbage collector then examines only the objects that this run creates.
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
