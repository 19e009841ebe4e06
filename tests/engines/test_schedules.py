"""The asyncio engine with its callbacks in all orders within one delay, for each set of options.

``tests/kit/schedules.py`` has the scenarios, the checks, and a command for more delays.
"""

from __future__ import annotations

import re

import pytest

from batchify._asyncio.engine import AsyncEngine
from tests.kit.schedules import SETS, explore

pytest.importorskip("simloom", reason="simloom needs Python 3.12")
pytestmark = pytest.mark.untraced


@pytest.mark.parametrize("name", SETS)
def test_all_orders_within_one_delay(name):
    """Every call gets its own answer or error once, within its limits, and nothing is left, in any order."""
    assert 1 < explore(name, 1)


def test_one_delay_shows_a_fault(monkeypatch):
    """An engine that makes no new plan after ``configure()`` works in the usual order, and not in all others."""
    monkeypatch.setattr(AsyncEngine, "configure", lambda engine, config: engine.line.configure(config))
    assert 1 == explore("configure", 0)
    with pytest.raises(AssertionError) as caught:
        explore("configure", 1)
    assert re.fullmatch("schedule [0-9]+ of 'configure', with the delays {[0-9]+: [0-9]+}", caught.value.__notes__[0])
