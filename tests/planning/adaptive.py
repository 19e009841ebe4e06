"""Compare adaptive timing with fixed windows and with other policies: the tables of docs/adaptive.md.

A cell is a function, a load, a kind of arrivals, a kind of run times and a number of slots. In each cell, all policies
get the same calls. The best fixed windows come from a dense grid: the one with the lowest mean, and the one with the
lowest 99th percentile. The regret of a policy is the ratio of its own figure to theirs.

Where run times are random, a single run says little near saturation, because the best window is then the luckiest one.
Therefore, figures are averaged over several runs before the comparison.

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
from batchify._planning.simulation import checked_limits, departures, interpolate, noise_source, poisson_arrivals

MAX_SIZE = 32
# Seconds by batch size. They differ in the fixed part of a run: all, most, half, hardly any. The run time of the last
# function grows in steps, like that of a function that pads to the next power of two.
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
# Seconds, from zero to several times the run time of one item.
WINDOWS = (0.0, *(0.05 * 1.6**step for step in range(11)))


class NoDistance(Adaptive):
    """A batch leaves whenever a slot is free."""

    def due(self, arrived, running):
        return arrived


class WholeRun(Adaptive):
    """Departures keep a distance of the whole run time, divided by the number of slots."""

    def due(self, arrived, running):
        if not running or self._run_time is None:
            return arrived
        return max(arrived, self._last + self._run_time / self._concurrency)


class WokenQueue(PlainQueue):
    """A queue that is asked for a batch at each arrival, for policies that depend on the number of waiting items."""

    def plan(self):
        at = super().plan()
        self.wake_length = 0
        return at


class ControlLimit(NoDistance):
    """A batch leaves when a slot is free and enough items wait, which is optimal for one slot and a known rate."""

    def __init__(self, concurrency, limit):
        super().__init__(concurrency)
        self._limit = limit

    def attach(self, queue):
        """Use the number of items that wait in ``queue``."""
        self._queue = queue

    def due(self, arrived, running):
        return arrived if self._queue.waiting >= self._limit else math.inf


class WaitByRegression(Adaptive):
    """A batch leaves when its items have waited, in total since the newest, longer than another item would save.

    Another item would save the fixed cost, which is learnt by regression. Model servers have similar policies.
    """

    attach = ControlLimit.attach

    def due(self, arrived, running):
        newest = self._queue.places[-1]
        return newest + self._distance * self._concurrency / self._queue.waiting


class Aimd(NoDistance):
    """A batch leaves whenever a slot is free, with a maximum size that grows by one while batches meet a target.

    After a batch that misses it, the maximum size shrinks by a tenth. The target is the run time of a full batch: any
    other target that can be met is worse.
    """

    def __init__(self, concurrency, target):
        super().__init__(concurrency)
        self._target = target
        self._size_limit = 1.0

    def attach(self, queue):
        """Change the maximum size of ``queue``."""
        self._queue = queue
        queue._max_size = 1

    def ended(self, run_time, size):
        if run_time > self._target * 1.000001:
            self._size_limit = max(1.0, 0.9 * self._size_limit)
        elif size >= int(self._size_limit):
            self._size_limit = min(MAX_SIZE, self._size_limit + 1.0)
        self._queue._max_size = int(self._size_limit)


POLICIES = {"adaptive": Adaptive, "no distance": NoDistance, "whole run": WholeRun}
# Control limits: the best of them is chosen for each cell, like the best window.
LIMITS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)


@dataclass(frozen=True)
class Cell:
    """A case in which policies are compared. A load is a share of the capacity with full batches."""

    cost: str
    load: float
    burst: int
    noise: float | None
    concurrency: int

    def latencies(self, policy, calls, runs=1):
        """Return the mean and the 99th percentile of the latency under a policy, in seconds.

        They are averages over ``runs`` runs with calls of their own, or over a quarter as many if run times are not
        random. ``policy()`` makes the policy of a run.
        """
        count = runs if self.noise else math.ceil(runs / 4)
        return average([self._run(policy(), calls, run) for run in range(count)])

    def _run(self, timing, calls, run):
        rng = Random(f"{self} {run}" if run else f"{self}")
        typical = interpolate(COSTS[self.cost], MAX_SIZE)
        rate = self.load * self.concurrency * MAX_SIZE / typical[-1]
        arrivals = poisson_arrivals(rng, rate, calls, self.burst)
        factor = noise_source(rng, self.noise)
        attach = getattr(timing, "attach", None)
        queue = (WokenQueue if attach else PlainQueue)(checked_limits(MAX_SIZE, 0.0, self.concurrency))
        queue._timing = timing
        queue._learner = timing if isinstance(timing, Adaptive) else None
        if attach:
            attach(queue)
        batches = departures(queue, arrivals, lambda batch: typical[batch.size] * factor())
        latencies = sorted(end - arrived for batch, end in batches for arrived in batch.arrived)
        return math.fsum(latencies) / len(latencies), latencies[math.ceil(0.99 * len(latencies)) - 1]

    def regrets(self, calls, runs=1, policies=POLICIES):
        """Return the regret of each policy, in the mean and in the 99th percentile."""
        return self._beside_windows(
            {name: self.latencies(partial(policy, self.concurrency), calls, runs) for name, policy in policies.items()},
            calls,
            runs,
        )

    def others(self, calls, runs=1):
        """Return the regrets of the policies of other systems, and of adaptive timing."""
        target = interpolate(COSTS[self.cost], MAX_SIZE)[-1]

        def figures(policy, *arguments):
            return self.latencies(partial(policy, self.concurrency, *arguments), calls, runs)

        found = {
            "adaptive": figures(Adaptive),
            "best limit": lowest(figures(ControlLimit, limit) for limit in LIMITS),
            "wait by regression": figures(WaitByRegression),
            "AIMD": figures(Aimd, target),
        }
        return self._beside_windows(found, calls, runs)

    def _beside_windows(self, found, calls, runs):
        """Divide figures by the lowest mean and the lowest 99th percentile of any fixed window."""
        best = lowest(self.latencies(partial(Window, window), calls, runs) for window in WINDOWS)
        return {
            name: tuple(own / window for own, window in zip(pair, best, strict=True)) for name, pair in found.items()
        }


def lowest(figures):
    """Return the lowest mean and the lowest 99th percentile, each on its own."""
    return tuple(map(min, zip(*figures, strict=True)))


def cells(slots=SLOTS, noises=NOISES):
    """Return all cells with these numbers of slots and these kinds of run times."""
    return [Cell(*values) for values in product(COSTS, LOADS, BURSTS, noises, slots)]


def average(pairs):
    """Return the average of figures or regrets, for the mean and for the 99th percentile."""
    return tuple(math.fsum(column) / len(pairs) for column in zip(*pairs, strict=True))


def worst(regrets):
    """Return the largest regret, for the mean and for the 99th percentile."""
    return tuple(map(max, zip(*regrets, strict=True)))


def is_bounded(regret):
    """Return whether a regret is within the bounds that adaptive timing promises."""
    mean, p99 = regret
    return mean <= 1.10 and p99 <= 1.20


def table(found, title, group_of):
    """Yield the lines of a table with a row for each group of cells, and the regrets of each policy."""
    policies = list(next(iter(found.values())))
    yield f"| {title} | " + " | ".join(f"{name}: average | worst" for name in policies) + " |"
    yield "|---" * (1 + 2 * len(policies)) + "|"
    for value in dict.fromkeys(map(group_of, found)):
        rows = [regrets for cell, regrets in found.items() if group_of(cell) == value]
        figures = [shape([row[name] for row in rows]) for name in policies for shape in (average, worst)]
        yield f"| {value} | " + " | ".join("{:.2f} / {:.2f}".format(*pair) for pair in figures) + " |"


def draw(found, path):
    """Draw the average regret of each policy by load, for the mean and for the 99th percentile."""
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
    parser.add_argument("--calls", type=int, default=6_000, help="calls in a run")
    parser.add_argument("--runs", type=int, default=12, help="runs of a cell; a quarter if run times are not random")
    parser.add_argument("--others", metavar="PNG", help="compare with the policies of other systems, and draw a chart")
    args = parser.parse_args()
    compared = cells()
    compare = partial(Cell.others if args.others else Cell.regrets, calls=args.calls, runs=args.runs)
    with ProcessPoolExecutor() as pool:
        found = dict(zip(compared, pool.map(compare, compared), strict=True))
    if args.others:
        draw(found, args.others)
    groups = {
        "slots": lambda cell: cell.concurrency,
        "run time": lambda cell: cell.cost,
        "load": lambda cell: f"{cell.load:.0%}",
        "arrivals": lambda cell: "Poisson" if cell.burst == 1 else f"bursts of {cell.burst}",
        "noise": lambda cell: cell.noise or "none",
    }
    for title, group_of in groups.items():
        sys.stdout.write("\n".join([*table(found, title, group_of), "", ""]))
    for cell, regrets in found.items():
        if not is_bounded(regrets["adaptive"]):
            sys.stdout.write(f"{cell}: {{:.2f}} / {{:.2f}}\n".format(*regrets["adaptive"]))


if __name__ == "__main__":
    main()
