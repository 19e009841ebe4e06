"""Adaptive timing beside the best fixed window that could have been picked by hand."""

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


# With one slot there is nothing to decide. With several, the distance between departures costs the unluckiest more.
@pytest.mark.untraced
@pytest.mark.parametrize(("slots", "worst_p99"), [(1, 1.20), (4, 1.45)], ids=["one slot", "four slots"])
def test_nothing_to_tune(slots, worst_p99):
    """Whatever the function, the load and the arrivals, the best window picked for each is hardly better.

    A few calls may be unlucky: where they are, more of them decide.
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
def test_nothing_to_tune_if_run_times_are_random():
    """On average the same is true of run times that nobody can foresee; the more chance, the more calls it takes."""
    assert is_bounded(average([cell.regrets(4 * CALLS, policies=OWN)["adaptive"] for cell in cells([4], [0.5])]))


def test_what_grows_with_the_items_is_not_waited_for():
    """Under load, no distance of whole runs is kept: it was up to four times as long as the best fixed window."""
    (cell,) = (cell for cell in cells([4], [None]) if (cell.cost, cell.load, cell.burst) == ("a + 10 b n", 0.95, 1))
    regrets = cell.regrets(4 * CALLS)
    assert regrets["adaptive"][0] <= 1.10
    assert regrets["whole run"][0] >= 2.0


def test_the_table_names_everything():
    """A row for each value, with the average and the worst of each policy."""
    row = dict.fromkeys(POLICIES, (1.0, 2.0))
    found = dict.fromkeys(cells([1, 4], [None]), row)
    lines = list(table(found, "slots", lambda cell: cell.concurrency))
    assert ["| 1 ", "| 4 "] == [line[:4] for line in lines[2:]]
    assert "| 1 | " + " | ".join(["1.00 / 2.00"] * 6) + " |" == lines[2]


def test_figures_are_averages_over_runs():
    """Each run has calls of its own, a quarter as many if run times are not random."""
    for noise, counted in [(0.5, 4), (None, 1)]:
        cell = Cell("a", 0.5, 1, noise, 1)
        runs = [cell._run(POLICIES["adaptive"](1), CALLS, run) for run in range(counted)]
        assert counted == len(set(runs))
        assert average(runs) == cell.latencies(lambda: POLICIES["adaptive"](1), CALLS, runs=4)


def test_what_others_do_is_compared():
    """Each of the others has its regrets, and where windows can't be beaten a limit picked by hand is as good."""
    (cell,) = (cell for cell in cells([1], [None]) if (cell.cost, cell.load, cell.burst) == ("a + b n", 0.5, 1))
    regrets = cell.others(CALLS)
    assert ["adaptive", "best limit", "wait by regression", "AIMD"] == list(regrets)
    assert (1.0, 1.0) == pytest.approx(regrets["best limit"], rel=0.02)
    assert 1.05 < regrets["wait by regression"][0]


def test_a_limit_is_waited_for():
    """With a limit that is never reached nothing leaves but full batches."""
    (cell,) = (cell for cell in cells([1], [None]) if (cell.cost, cell.load, cell.burst) == ("a", 0.1, 1))
    mean, _ = cell.latencies(lambda: ControlLimit(1, MAX_SIZE), CALLS)
    assert 1.0 + (MAX_SIZE - 1) / 2 / 3.2 == pytest.approx(mean, rel=0.05)


def test_sizes_grow_and_shrink():
    """One more item after a full batch in time, a tenth less after a late one."""

    class Line:
        _max_size = MAX_SIZE

    line, policy = Line(), Aimd(1, 1.0)
    policy.attach(line)
    sizes = []
    for run_time in [0.5] * 9 + [2.0, 0.5]:
        policy.ended(run_time, line._max_size)
        sizes.append(line._max_size)
    assert [2, 3, 4, 5, 6, 7, 8, 9, 10, 9, 10] == sizes


def test_regrets_are_drawn(tmp_path):
    """The picture is a PNG of a line for each policy."""
    found = {cell: {"one": (1.0, 2.0), "other": (2.0, 4.0)} for cell in cells([1], [None])}
    assert set(LOADS) == {cell.load for cell in found}
    draw(found, tmp_path / "regret.png")
    assert b"\x89PNG" == (tmp_path / "regret.png").read_bytes()[:4]
