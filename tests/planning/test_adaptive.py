"""Adaptive timing compared with the best fixed windows."""

from __future__ import annotations

import pytest

from tests.planning.adaptive import (
    LOADS,
    MAX_SIZE,
    POLICIES,
    Aimd,
    Cell,
    ControlLimit,
    average,
    cells,
    draw,
    is_bounded,
    table,
)

CALLS = 1000
OWN = {"adaptive": POLICIES["adaptive"]}


# With one slot, no distance between departures is needed. With several, the distance costs the slowest calls more.
@pytest.mark.untraced
@pytest.mark.parametrize(("slots", "worst_p99"), [(1, 1.20), (4, 1.45)], ids=["one slot", "four slots"])
def test_no_window_is_much_better(slots, worst_p99):
    """For every function, load and kind of arrivals, the best window for that cell is hardly better.

    A cell that misses the bounds with few calls is simulated again with more calls and runs.
    """
    found = {}
    for cell in cells([slots], [None]):
        for calls, runs in ((2 * CALLS, 1), (6 * CALLS, 12)):
            found[cell] = mean, p99 = cell.regrets(calls, runs, OWN)["adaptive"]
            if mean <= 1.10 and p99 <= worst_p99:
                break
        else:
            pytest.fail(f"{cell} has {mean:.2f} / {p99:.2f}")
    assert is_bounded(average(list(found.values())))


@pytest.mark.untraced
def test_no_window_is_much_better_with_random_run_times():
    """With random run times, which need more calls, the same is true on average."""
    assert is_bounded(average([cell.regrets(4 * CALLS, policies=OWN)["adaptive"] for cell in cells([4], [0.5])]))


def test_the_distance_leaves_out_the_cost_of_items():
    """Under load, a distance of whole runs has a high regret, and that of adaptive timing has a low one."""
    (cell,) = (cell for cell in cells([4], [None]) if (cell.cost, cell.load, cell.burst) == ("a + 10 b n", 0.95, 1))
    regrets = cell.regrets(4 * CALLS)
    assert regrets["adaptive"][0] <= 1.10
    assert regrets["whole run"][0] >= 2.0


def test_the_table_has_average_and_worst_regrets():
    """Each group has a row, with both regrets of each policy."""
    row = dict.fromkeys(POLICIES, (1.0, 2.0))
    found = dict.fromkeys(cells([1, 4], [None]), row)
    lines = list(table(found, "slots", lambda cell: cell.concurrency))
    assert ["| 1 ", "| 4 "] == [line[:4] for line in lines[2:]]
    assert "| 1 | " + " | ".join(["1.00 / 2.00"] * 6) + " |" == lines[2]


def test_figures_are_averages_over_runs():
    """Each run has its own calls, and there are a quarter as many runs if run times are not random."""
    for noise, counted in [(0.5, 4), (None, 1)]:
        cell = Cell("a", 0.5, 1, noise, 1)
        runs = [cell._run(POLICIES["adaptive"](1), CALLS, run) for run in range(counted)]
        assert counted == len(set(runs))
        assert average(runs) == cell.latencies(lambda: POLICIES["adaptive"](1), CALLS, runs=4)


def test_other_policies_have_regrets():
    """Each policy has its regrets; where no policy beats the best window, the best limit is as good."""
    (cell,) = (cell for cell in cells([1], [None]) if (cell.cost, cell.load, cell.burst) == ("a + b n", 0.5, 1))
    regrets = cell.others(CALLS)
    assert ["adaptive", "best limit", "wait by regression", "AIMD"] == list(regrets)
    assert (1.0, 1.0) == pytest.approx(regrets["best limit"], rel=0.02)
    assert 1.05 < regrets["wait by regression"][0]


def test_a_batch_waits_for_the_limit():
    """With a limit of the maximum size, only full batches leave."""
    (cell,) = (cell for cell in cells([1], [None]) if (cell.cost, cell.load, cell.burst) == ("a", 0.1, 1))
    mean, _ = cell.latencies(lambda: ControlLimit(1, MAX_SIZE), CALLS)
    assert 1.0 + (MAX_SIZE - 1) / 2 / 3.2 == pytest.approx(mean, rel=0.05)


def test_sizes_grow_and_shrink():
    """The maximum size grows by one after a full batch that meets the target, and shrinks by a tenth otherwise."""

    class Queue:
        _max_size = MAX_SIZE

    queue, policy = Queue(), Aimd(1, 1.0)
    policy.attach(queue)
    sizes = []
    for run_time in [0.5] * 9 + [2.0, 0.5]:
        policy.ended(run_time, queue._max_size)
        sizes.append(queue._max_size)
    assert [2, 3, 4, 5, 6, 7, 8, 9, 10, 9, 10] == sizes


def test_regrets_are_drawn(tmp_path):
    """The chart is a PNG."""
    found = {cell: {"one": (1.0, 2.0), "other": (2.0, 4.0)} for cell in cells([1], [None])}
    assert set(LOADS) == {cell.load for cell in found}
    draw(found, tmp_path / "regret.png")
    assert b"\x89PNG" == (tmp_path / "regret.png").read_bytes()[:4]
