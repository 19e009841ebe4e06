"""Adaptive timing beside the best fixed window that could have been picked by hand."""

from __future__ import annotations

import pytest
from adaptive import POLICIES, average, cells, table

CALLS = 1000


# With one slot there is nothing to decide. The more chance there is, the more calls tell a policy from luck.
@pytest.mark.no_cover
@pytest.mark.parametrize(
    ("slots", "noise", "calls"),
    [(1, None, CALLS), (4, None, CALLS), (4, 0.5, 4 * CALLS)],
    ids=["one slot", "four slots", "four slots, random run times"],
)
def test_nothing_to_tune(slots, noise, calls):
    """On average over functions, loads and arrivals, the best window picked for each is hardly better."""
    own = {"adaptive": POLICIES["adaptive"]}
    mean, p99 = average([cell.regrets(calls, own)["adaptive"] for cell in cells([slots], [noise])])
    assert mean <= 1.10
    assert p99 <= 1.20


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
