"""Fixtures of the tests of exporters."""

from __future__ import annotations

import pytest

from batchify import microbatch


@pytest.fixture
def used():
    """Return a function that has answered 9 calls and failed one."""

    @microbatch(name="double", max_size=4, max_pending=100)
    def double(items):
        if None in items:
            raise KeyError
        return [2 * item for item in items]

    with double:
        double.map(range(9))
        with pytest.raises(KeyError):
            double(None)
    return double
