"""How adaptive timing fares beside fixed windows, and beside what else was tried: the tables of docs/adaptive.md.

A cell is a function, a load, a kind of arrivals, a kind of run times and a number of slots. In each cell all policies
get the same calls, and the best fixed window is picked by hand: of a dense grid, the one with the least mean, and the
one with the least 99th percentile. The regret of a policy is the ratio of its own figure to that.

Where run times are random, one run says little near saturation: the best of a dozen windows is then the luckiest one.
Figures are averages over several runs before they are compared.

    python -m tests.planning.adaptive --calls 6000 --runs 12
"""

from __future__ import annotations

import argparse
import math
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import product
from random import Random

from batchify._core.queue import PlainQueue
from batchify._core.timing import Adaptive, Window
from batchify._planning.simulation import by_size, departures, drawn, limits_of, variation

MAX_SIZE = 32
# Seconds by batch size. What matters is how much of a run is fixed: all of it, most, half, next to nothing; and a
# function whose run time goes up in steps, as of one that pads to the next power of two.
COSTS = {
    "a": {1: 1.0},
    "10 a + b n": {0: 10 / 11, 1: 1.0},
    "3 a + b n": {0: 3 / 4, 1: 1.0},
    "a + b n": {0: 1 / 2, 1: 1.0},
    "a + 10 b n": {0: 1 / 11, 1: 1.0},
    "steps": {n: 0.5 + 0.05 * 2 ** math.ceil(math.log2(n)) for n in range(1, MAX_SIZE + 1)},
}
LOADS = (0.1, 0.3, 0.5, 0.8, 0.95)
BURSTS = (1, 8)
NOISES = (None, 0.5)
SLOTS = (1, 2, 4)
# Seconds: as long as no batch, up to several times as long as one of one item.
WINDOWS = (0.0, *(0.05 * 1.6**step for step in range(11)))


class NoDistance(Adaptive):
    """Leave whenever a slot is free."""

    __slots__ = ()

    def due(self, arrived, running):
        return arrived


class WholeRun(Adaptive):
    """Keep a distance of the whole run time divided by the number of slots."""

    __slots__ = ()

    def due(self, arrived, running):
        if not running or self._run_time is None:
            return arrived
        return max(arrived, self._last + self._run_time / self._concurrency)


class Asked(PlainQueue):
    """A core that is asked for a batch at each arrival, for policies that count what waits."""

    __slots__ = ()

    def _set_wake_ticket(self):
        self.wake_ticket = 0


class ControlLimit(NoDistance):
    """Leave when a slot is free and so many wait: for one slot the best there is, if the limit suits the rate."""

    __slots__ = ("_core", "_limit")

    def __init__(self, concurrency, limit):
        super().__init__(concurrency)
        self._limit = limit

    def attach(self, queue):
        """Go by what waits in ``queue``."""
        self._core = queue

    def due(self, arrived, running):
        return arrived if self._core.waiting >= self._limit else math.inf


class WaitByRegression(Adaptive):
    """Leave when all that wait have waited longer for the next one, together, than the fixed cost that it would save.

    The fixed cost is learnt by regression; servers for models do something like it.
    """

    __slots__ = ("_core",)

    attach = ControlLimit.attach

    def due(self, arrived, running):
        newest = self._core._line.places[-1][2]
        return newest + self._distance * self._concurrency / self._core.waiting


class Aimd(NoDistance):
    """Leave whenever a slot is free, with a largest size that one more is added to while batches meet a target.

    Where one does not, it is a tenth less. The target is what a full batch takes: any other that can be met is worse.
    """

    __slots__ = ("_core", "_size_limit", "_target")

    def __init__(self, concurrency, target):
        super().__init__(concurrency)
        self._target = target
        self._size_limit = 1.0

    def attach(self, queue):
        """Change the largest size of ``queue``."""
        self._core = queue
        queue._max_size = 1

    def ended(self, run_time, size):
        if run_time > self._target * 1.000001:
            self._size_limit = max(1.0, 0.9 * self._size_limit)
        elif size >= int(self._size_limit):
            self._size_limit = min(MAX_SIZE, self._size_limit + 1.0)
        self._core._max_size = int(self._size_limit)


POLICIES = {"adaptive": Adaptive, "no distance": NoDistance, "whole run": WholeRun}
# What others do: the best of these limits is picked by hand for each case, as is the best window.
LIMITS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)


@dataclass(frozen=True)
class Cell:
    """One case, in which policies are compared. Loads are shares of what full batches could do."""

    cost: str
    load: float
    burst: int
    noise: float | None
    concurrency: int

    def latencies(self, policy, calls, runs=1):
        """Return the mean and the 99th percentile of the latency under a policy, in seconds.

        They are averages over so many runs, each with calls of its own, or over a quarter as many if run times are not
        random. ``policy()`` makes what is asked.
        """
        count = runs if self.noise else math.ceil(runs / 4)
        return average([self._run(policy(), calls, run) for run in range(count)])

    def _run(self, timing, calls, run):
        chance = Random(f"{self} {run}" if run else f"{self}")
        typical = by_size(COSTS[self.cost], MAX_SIZE)
        arrivals = drawn(chance, self.load * self.concurrency * MAX_SIZE / typical[-1], self.burst, calls)
        vary = variation(chance, self.noise)
        attach = getattr(timing, "attach", None)
        queue = (Asked if attach else PlainQueue)(limits_of(MAX_SIZE, 0.0, self.concurrency))
        queue._timing = timing
        if attach:
            attach(queue)
        left = departures(queue, arrivals, lambda size: typical[size] * vary())
        found = sorted(end - arrived for batch, end in left for arrived in batch.arrived)
        return math.fsum(found) / len(found), found[math.ceil(0.99 * len(found)) - 1]

    def regrets(self, calls, runs=1, policies=POLICIES):
        """Return the regret of each policy, in the mean and in the 99th percentile."""
        return self._beside_windows(
            {name: self.latencies(partial(policy, self.concurrency), calls, runs) for name, policy in policies.items()},
            calls,
            runs,
        )

    def others(self, calls, runs=1):
        """Return the regrets of what others do, and of adaptive timing."""
        target = by_size(COSTS[self.cost], MAX_SIZE)[-1]

        def figures(policy, *arguments):
            return self.latencies(partial(policy, self.concurrency, *arguments), calls, runs)

        found = {
            "adaptive": figures(Adaptive),
            "best limit": least(figures(ControlLimit, limit) for limit in LIMITS),
            "wait by regression": figures(WaitByRegression),
            "AIMD": figures(Aimd, target),
        }
        return self._beside_windows(found, calls, runs)

    def _beside_windows(self, found, calls, runs):
        """Divide figures by the least mean and the least 99th percentile that a fixed window has."""
        best = least(self.latencies(partial(Window, window), calls, runs) for window in WINDOWS)
        return {
            name: tuple(own / lowest for own, lowest in zip(pair, best, strict=True)) for name, pair in found.items()
        }


def least(figures):
    """Return the least mean and the least 99th percentile of several, picked apart."""
    return tuple(map(min, zip(*figures, strict=True)))


def cells(slots=SLOTS, noises=NOISES):
    """Return all cells with so many slots, and with such run times."""
    return [Cell(*case) for case in product(COSTS, LOADS, BURSTS, noises, slots)]


def average(pairs):
    """Return the average of several figures, or regrets, in the mean and in the 99th percentile."""
    return tuple(math.fsum(column) / len(pairs) for column in zip(*pairs, strict=True))


def worst(regrets):
    """Return the largest regret of several, in the mean and in the 99th percentile."""
    return tuple(map(max, zip(*regrets, strict=True)))


def is_bounded(regret):
    """Say whether a regret is within the bounds of what adaptive timing promises."""
    mean, p99 = regret
    return mean <= 1.10 and p99 <= 1.20


def table(found, title, of):
    """Return the lines of a table: for each value that ``of`` finds in a cell, what each policy has in those."""
    policies = list(next(iter(found.values())))
    yield f"| {title} | " + " | ".join(f"{name}: average | worst" for name in policies) + " |"
    yield "|---" * (1 + 2 * len(policies)) + "|"
    for value in dict.fromkeys(map(of, found)):
        rows = [regrets for cell, regrets in found.items() if of(cell) == value]
        figures = [shape([row[name] for row in rows]) for name in policies for shape in (average, worst)]
        yield f"| {value} | " + " | ".join("{:.2f} / {:.2f}".format(*pair) for pair in figures) + " |"


def draw(found, path):
    """Draw the average regret of each policy by load, in the mean and in the 99th percentile."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.5), layout="constrained")
    for panel, which, title in zip(figure.subplots(1, 2, sharey=True), (0, 1), ("mean", "p99"), strict=True):
        for name in next(iter(found.values())):
            rows = {load: [row[name] for cell, row in found.items() if cell.load == load] for load in LOADS}
            panel.plot([100 * load for load in rows], [average(row)[which] for row in rows.values()], "o-", label=name)
        panel.set(title=f"{title}, x best fixed window", xlabel="load in % of full batches", yscale="log")
        panel.set_yticks([1, 1.5, 2, 3, 5, 10], ["1", "1.5", "2", "3", "5", "10"])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    panel.legend(frameon=False)
    figure.savefig(path, dpi=100)


def main():
    """Print the tables: mean / 99th percentile, as ratios to the best fixed window of each cell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=6_000, help="calls in a run of a cell")
    parser.add_argument("--runs", type=int, default=12, help="runs of a cell; a quarter if run times are not random")
    parser.add_argument("--others", metavar="PNG", help="compare with what others do instead, and draw it there")
    asked = parser.parse_args()
    compared = cells()
    compare = partial(Cell.others if asked.others else Cell.regrets, calls=asked.calls, runs=asked.runs)
    with ProcessPoolExecutor() as pool:
        found = dict(zip(compared, pool.map(compare, compared), strict=True))
    if asked.others:
        draw(found, asked.others)
    groups = {
        "slots": lambda cell: cell.concurrency,
        "run time": lambda cell: cell.cost,
        "load": lambda cell: f"{cell.load:.0%}",
        "arrivals": lambda cell: "Poisson" if cell.burst == 1 else f"bursts of {cell.burst}",
        "noise": lambda cell: cell.noise or "none",
    }
    for title, of in groups.items():
        sys.stdout.write("\n".join([*table(found, title, of), "", ""]))
    for cell, regrets in found.items():
        if not is_bounded(regrets["adaptive"]):
            sys.stdout.write(f"{cell}: {{:.2f}} / {{:.2f}}\n".format(*regrets["adaptive"]))


if __name__ == "__main__":
    main()
