"""Helpers that run the examples and read their output."""

from __future__ import annotations

import re
from importlib.util import find_spec

import pytest

from tests.kit import processes
from tests.kit.processes import ROOT

EXAMPLES = ROOT / "examples"


def needs(package):
    """Skip a test if a package of the group ``examples`` is not installed.

    Some packages have no wheel for every Python. The check does not import the package: NumPy starts threads, and
    ``fork()`` warns about threads in other tests.
    """
    return pytest.mark.skipif(find_spec(package) is None, reason=f"{package} is not installed")


def printed(name, *arguments, **variables):
    """Return the output of an example."""
    return processes.printed(EXAMPLES / name, *arguments, traced=False, **variables)


def numbers(line, output):
    """Return the numbers in each line of ``output`` that matches ``line``, a pattern in which # matches a number."""
    found = re.finditer(f"^{line.replace('#', '([0-9]+)')}$", output, re.MULTILINE)
    return [[int(number) for number in match.groups()] for match in found]
