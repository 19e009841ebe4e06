"""A contest: several entrants do the same work in turn, in several rounds.

Decides: the order of runs.
Must not know: the measured work, the bars, the output.

Each round begins with another entrant, so that no entrant always runs after the same other one.
"""

from __future__ import annotations

import gc
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

from tests.bench.figures import FLOOR, Figures

if TYPE_CHECKING:
    from collections.abc import Callable


class AbsentError(Exception):
    """An entrant cannot take part. The message is the reason, and its row of the table shows it."""


@dataclass(frozen=True)
class Plan:
    """The share of the usual amount of work in each run."""

    scale: float = 1.0

    def count(self, usual):
        """Return the number of repetitions for a usual number of them."""
        return max(1, round(usual * self.scale))


@dataclass(frozen=True)
class Contest:
    """The contents of one table.

    Attributes:
        title: the work.
        unit: the unit of the figures.
        entrants: the runs by the name of the entrant, in the order of the table; a run returns its figure, or the
            figure and its tail.
        baseline: the name of the entrant to which ratios are computed.
        tail: the unit of the second figure, or an empty string.
        note: a remark for readers of the table.
    """

    title: str
    unit: str
    entrants: dict[str, Callable]
    baseline: str = FLOOR
    tail: str = ""
    note: str = ""

    def units(self):
        """Return the units of the figures of a run."""
        return [self.unit, self.tail] if self.tail else [self.unit]

    def play(self, rounds, figures):
        """Run all entrants and record their ``figures``; yield the name of each entrant before its run."""
        names = list(self.entrants)
        figures.update({name: Figures() for name in names})
        try:
            for number in range(rounds):
                first = number % len(names)
                for name in names[first:] + names[:first]:
                    yield name
                    _enter(figures[name], self.entrants[name])
        finally:
            gc.unfreeze()


class Together:
    """Entrants that run at the same time: the first call of ``outcome()`` in a round runs all of them."""

    def __init__(self, run):
        self._run = run
        self._rounds = count()
        self._outcomes = {}

    def outcome(self, name):
        """Return the figures of ``name`` in this round."""
        if name not in self._outcomes:
            self._outcomes = self._run(next(self._rounds))
        outcome = self._outcomes.pop(name)
        if isinstance(outcome, AbsentError):
            raise outcome
        return outcome


def _enter(entry, run):
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
    value, *tail = outcome if isinstance(outcome, tuple) else (outcome,)
    entry.values.append(value)
    entry.tails.extend(tail)
